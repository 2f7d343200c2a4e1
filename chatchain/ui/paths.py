"""Paths as people type them, or drop them into a terminal."""

from __future__ import annotations

import shlex
from pathlib import Path


def typed_path(typed: str) -> Path:
    """The path that is meant: as it was typed if that is there, else without the quotation marks and
    backslashes that a terminal adds to a file that is dropped into it. `~` is the home folder.
    """
    plain = Path(typed.strip()).expanduser()
    if not plain.exists():
        try:
            words = shlex.split(typed)
        except ValueError:  # an apostrophe in a name
            return plain
        if len(words) == 1:
            return Path(words[0]).expanduser()
    return plain


def path_and_rest(typed: str) -> tuple[Path, str]:
    """A path and what stands behind it; a path with blanks is there, or stands in quotation marks."""
    path = typed_path(typed)
    if path.exists():
        return path, ""
    try:
        words = shlex.split(typed)
    except ValueError:
        return path, ""
    if len(words) > 1 and Path(words[0]).expanduser().exists():
        return Path(words[0]).expanduser(), " ".join(words[1:])
    return path, ""
