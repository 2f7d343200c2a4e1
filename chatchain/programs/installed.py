"""A plain sentence instead of a stack trace where this Python cannot run chatchain.

Whoever starts a program from a clone does it before `make setup`, or with the system's Python, sooner or
later. Pythons that are too old must be able to read this file, so it is written in words that they know.
"""

from __future__ import annotations

import sys
from types import TracebackType

OLDEST = (3, 11)
NEWEST = (3, 13)
"""What `requires-python` in pyproject.toml says."""

OURS = ("chatchain", "deploy")
USAGE = 2
"""The exit code of `errors.UsageError`."""

REMEDY = "Run `make setup`, then `. .venv/bin/activate` (or start the program with .venv/bin/python)."


class Installed:
    """`with Installed():` around a program's imports ends it with a sentence if they cannot be had."""

    def __enter__(self) -> None:
        refusal = objection((sys.version_info[0], sys.version_info[1]))
        if refusal:
            _end(refusal)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, ModuleNotFoundError):
            missing = (error.name or "").split(".")[0]
            if missing not in OURS:  # one of ours that is missing is a bug, and shows where
                _end(f"chatchain needs the package {missing}, which {sys.executable} does not have.")


def objection(version: tuple[int, int]) -> str:
    """What speaks against a version of Python; empty if nothing does."""
    if OLDEST <= version <= NEWEST:
        return ""
    return "chatchain runs on Python {}.{} to {}.{}, and this is {}.{}.".format(*OLDEST, *NEWEST, *version)


def _end(sentence: str) -> None:
    sys.stderr.write(f"{sentence} {REMEDY}\n")
    sys.exit(USAGE)
