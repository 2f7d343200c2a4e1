"""Save a relay's database to a file, or fill a new database from one.

`python deploy/backup.py save FILE [--db URL]` may run while the relay works; `load FILE [--db URL]` wants an
empty database and no relay on it. The database comes from DATABASE_URL when --db is not given.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in {None, ""}:  # started as a file: the project's folder is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chatchain.programs.installed import Installed

with Installed():
    from chatchain.config import load_server
    from chatchain.errors import ChatchainError
    from chatchain.store import backup


def main(arguments: Sequence[str] | None = None) -> int:
    """Save or load, and say how much."""
    parser = argparse.ArgumentParser(description="Save or load what a relay's database holds.")
    parser.add_argument("verb", choices=("save", "load"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--db", metavar="URL", help="the database (DATABASE_URL)")
    options = parser.parse_args(arguments)
    try:
        url = load_server({"db": options.db}).db
        rows = backup.save(url, options.file) if options.verb == "save" else backup.load(url, options.file)
    except ChatchainError as error:
        print(f"backup: {error.message} {error.hint}".rstrip(), file=sys.stderr)
        return error.exit_code
    print(f"{rows} rows {'saved to' if options.verb == 'save' else 'loaded from'} {options.file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
