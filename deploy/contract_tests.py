"""Run the contracts' tests; fails unless some ran and all passed.

`python deploy/contract_tests.py [forge's options]`. forge by itself ends well when it finds no test at all.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

if __package__ in {None, ""}:  # started as a file: the project's folder is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from deploy.tools import ROOT, forge_path

PASSED: Final = re.compile(r"\b[1-9]\d* tests? passed, 0 failed")
"""What forge says at the end of a run in which something was tested."""


def main() -> int:
    """Pass on what forge says while it says it."""
    command = [str(forge_path()), "test", *sys.argv[1:]]
    passed = False
    with subprocess.Popen(command, cwd=ROOT / "contracts", stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        for line in run.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            passed = passed or PASSED.search(line) is not None
    if not passed:
        print("contract tests: no test passed", file=sys.stderr)
    return run.returncode or not passed


if __name__ == "__main__":
    sys.exit(main())
