"""Coverage-guided fuzzing of what an opened envelope holds: `python -m tests.fuzz.fuzz_content -runs=100000`.

Only Undecryptable may escape, and whatever is read is written again as it was.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["chatchain"]):
    from chatchain.crypto import content, glyphs
    from chatchain.errors import BadText, Undecryptable

VECTORS = Path(__file__).parent.parent / "vectors" / "content.json"


def one_input(data: bytes) -> None:
    """Feeds the parser, and the rules for short texts."""
    text = data.decode(errors="replace")
    assert glyphs.is_file_name(glyphs.file_name(text))
    with suppress(BadText):
        assert glyphs.is_display_name(glyphs.display_name(text))
    try:
        found = content.decode(data)
    except Undecryptable:
        return
    if not isinstance(found, content.Unsupported):
        assert content.encode(found) == data


def main() -> None:
    """Runs until told to stop, with the vectors to start from."""
    for case in json.loads(VECTORS.read_text())["cases"]:
        one_input(bytes.fromhex(case["content"]))
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
