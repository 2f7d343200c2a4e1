"""One line being typed, as a pure machine: bytes of a terminal go in, finished lines come out.

It exists so that a message which comes in while somebody types can be printed above the line, and the line
drawn again. Editing is what a line needs and no more: characters, Backspace, Ctrl-U (all), Ctrl-W (a word),
Ctrl-D (the end).
"""

from __future__ import annotations

import codecs
from typing import Final

MAX_TYPED: Final = 16 * 1024
"""Characters of one typed line; what goes beyond is not taken in."""

_ESCAPE: Final = "\x1b"
_ENTER: Final = "\r\n"
_BACKSPACE: Final = "\x7f\b"
_ALL: Final = "\x15"
_WORD: Final = "\x17"
_END: Final = "\x04"


class LineEditor:
    """The line so far, and whether the person has ended the input."""

    def __init__(self) -> None:
        self.text = ""
        self.ended = False
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._sequence = ""

    def feed(self, data: bytes) -> list[str]:
        """Takes in what was typed and gives the lines that it finished."""
        done: list[str] = []
        for character in self._decoder.decode(data):
            if self.ended:
                break
            if self._sequence or character == _ESCAPE:
                self._skip(character)
            elif character in _ENTER:
                done.append(self.text)
                self.text = ""
            else:
                self._edit(character)
        return done

    def _skip(self, character: str) -> None:
        """Passes over an escape sequence (an arrow key, say): ESC [ … up to its final character (ECMA-48)."""
        self._sequence += character
        if len(self._sequence) == 1 or self._sequence in ("\x1b[", "\x1bO"):
            return
        if not self._sequence.startswith("\x1b[") or "@" <= character <= "~" or len(self._sequence) > 32:
            self._sequence = ""

    def _edit(self, character: str) -> None:
        if character in _BACKSPACE:
            self.text = self.text[:-1]
        elif character == _ALL:
            self.text = ""
        elif character == _WORD:
            self.text = self.text.rstrip()
            self.text = self.text[: self.text.rfind(" ") + 1]
        elif character == _END:
            self.ended = not self.text
        elif character == "\t":
            self.text += " "
        elif character >= " " and len(self.text) < MAX_TYPED:
            self.text += character
