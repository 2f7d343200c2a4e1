"""Makes text from others harmless before it reaches a terminal.

What a stranger wrote (messages, notices, names) may hold escape sequences that move the cursor or set the
window's title, marks that turn the reading direction around, or line breaks that fake another message.
Nothing is dropped silently: what would act on the terminal is shown as a visible sign instead (Unicode TR
36, section 2; CVE-2021-42574).
"""

from __future__ import annotations

import unicodedata
from typing import Final

_PICTURES: Final = 0x2400
"""Unicode's control pictures stand in the order of the C0 controls."""
_DELETE: Final = "\N{SYMBOL FOR DELETE}"
_JOINERS: Final = frozenset("\u200c\u200d")
"""They build emoji and letters of several scripts, and act on nothing but their neighbours."""
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of characters that act and are not seen: controls, formats, lone surrogates, separators."""
_FILLERS: Final = frozenset("\u115f\u1160\u3164\uffa0\u2800\u034f")
"""Blank letters, with which a name can be made to look empty or shorter."""
MAX_STACKED: Final = 8
"""Combining marks on one letter that are shown; more of them would paint over the lines around."""


def clean_line(text: str) -> str:
    """One line: every control, line break and invisible mark becomes a visible sign."""
    if text.isascii() and text.isprintable():
        return text
    shown: list[str] = []
    stacked = 0
    for character in text:
        stacked = stacked + 1 if unicodedata.combining(character) else 0
        if stacked <= MAX_STACKED:
            shown.append(_sign(character))
    return "".join(shown)


def clean_lines(text: str) -> list[str]:
    """A text's lines, each harmless; only the line feed (after a carriage return or not) breaks a line."""
    return [clean_line(line.replace("\t", "    ")) for line in text.replace("\r\n", "\n").split("\n")]


def _sign(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(_PICTURES + code)
    if code == 0x7F:
        return _DELETE
    if character in _JOINERS:
        return character
    if character in _FILLERS or unicodedata.category(character) in _UNSEEN:
        return f"<U+{code:04X}>"
    return character
