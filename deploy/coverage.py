"""Fail unless the contracts' tests reach every line and every branch of `contracts/src`.

`python deploy/coverage.py` runs `forge coverage` and prints what it says of each file.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Final

if __package__ in {None, ""}:  # started as a file: the project's folder is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from deploy.contract_copy import ContractCopy

_ROW: Final = re.compile(r"^\|\s*(src/\S+)\s*\|(.+)\|\s*$", re.MULTILINE)


def rows(table: str) -> dict[str, tuple[str, str]]:
    """Lines and branches of each source, as forge's table tells them."""
    found = {}
    for name, rest in _ROW.findall(table):
        lines, _statements, branches, _functions = (cell.strip() for cell in rest.split("|"))
        found[name] = (lines, branches)
    return found


def is_whole(cell: str) -> bool:
    """Whether a cell such as `97.00% (97/100)` tells that nothing is missing."""
    match = re.search(r"\((\d+)/(\d+)\)", cell)
    return match is not None and match[1] == match[2]


def main() -> int:
    """Run the tests with counters; fails if anything stays unreached."""
    with tempfile.TemporaryDirectory() as folder:
        run = ContractCopy(Path(folder)).forge(
            "coverage", "--report", "summary", "--no-match-coverage", "test/"
        )
    found = rows(run.stdout)
    for name, (lines, branches) in found.items():
        print(f"{name}: lines {lines}, branches {branches}")
    missing = [name for name, cells in found.items() if not all(is_whole(cell) for cell in cells)]
    if run.returncode or not found or missing:
        print(f"coverage: not whole: {', '.join(missing) or 'the tests failed'}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
