"""Where results go: one JSON object a line for programs, or plain lines for people.

With `json`, stdout carries objects and nothing else, and what people read goes to stderr. Without it,
results go to stdout and troubles to stderr.
"""

from __future__ import annotations

import json as json_text
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO, TypeVar

from chatchain.errors import StoreUnavailable
from chatchain.ui.clean import clean_line

if TYPE_CHECKING:
    import msgspec

    from chatchain.errors import ChatchainError

    ViewT = TypeVar("ViewT", bound=msgspec.Struct)

SHOWN_KEYS: Mapping[str, object] = {"group": None, "attachment": None, "reply_to": None}
"""Keys that every message object carries, also where they do not apply, so that a script can rely on them."""
STORED_KEYS: Mapping[str, object] = {
    "direction": None,
    "state": None,
    "reactions": [],
    "edited": False,
    "deleted": False,
    "expires": None,
}


class Output:
    """Writes results and troubles, for people or for programs."""

    def __init__(self, *, json: bool, environment: Mapping[str, str], colour: bool = True) -> None:
        self.json = json
        self._environment = environment
        dumb = environment.get("TERM", "dumb") == "dumb"
        self._colour = colour and "NO_COLOR" not in environment and not dumb
        for stream in (sys.stdout, sys.stderr):
            # A character that this terminal cannot show must not end the program.
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")

    @property
    def colours(self) -> int:
        """How many colours a picture may have on stdout; 0 where it can be none, or must not."""
        if self.json or not self._colour or not sys.stdout.isatty():
            return 0
        if not (sys.stdout.encoding or "").lower().startswith("utf"):
            return 0
        if self._environment.get("COLORTERM", "") in ("truecolor", "24bit"):
            return 2**24
        return 256 if "256color" in self._environment["TERM"] else 0

    def result(self, view: ViewT, text: Callable[[ViewT], Sequence[str]]) -> None:
        """Gives one result: the view's fields to a program, the lines of `text` to a person."""
        if self.json:
            self.object(as_object(view))
        else:
            self.lines(text(view))

    def results(self, views: Sequence[ViewT], text: Callable[[Sequence[ViewT]], Sequence[str]]) -> None:
        """Gives several results: an object each, or one text about all."""
        if self.json:
            for view in views:
                self.object(as_object(view))
        else:
            self.lines(text(views))

    def object(self, value: Mapping[str, object]) -> None:
        """One JSON object on stdout, in ASCII: no terminal and no encoding can be upset by it."""
        _write(sys.stdout, json_text.dumps(value) + "\n")

    def lines(self, lines: Sequence[str]) -> None:
        """Lines for a person, on stdout."""
        _write(sys.stdout, "".join(f"{line}\n" for line in lines))

    def note(self, text: str) -> None:
        """A remark for a person that is not the result."""
        _write(sys.stderr, clean_line(text) + "\n")

    def person(self, lines: Sequence[str]) -> None:
        """Lines that only a person wants: on stdout, or on stderr when a program reads that."""
        _write(sys.stderr if self.json else sys.stdout, "".join(f"{line}\n" for line in lines))

    def error(self, error: ChatchainError, *, hint: str | None = None) -> None:
        """Says what failed and what to do about it; `hint` says the latter in other words."""
        if self.json:
            self.object({"error": problem(error)})
            return
        mark, reset = ("\x1b[31m", "\x1b[0m") if self._colour and sys.stderr.isatty() else ("", "")
        # A message of ours has one line a fact (both fingerprints of a certificate, say); what it quotes is
        # cleaned.
        first, *more = [clean_line(line) for line in error.message.split("\n")]
        if advice := error.hint if hint is None else hint:
            more += [clean_line(line) for line in advice.split("\n")]
        _write(sys.stderr, f"{mark}{first}{reset}\n" + "".join(f"{line}\n" for line in more))


def _write(stream: TextIO, text: str) -> None:
    """Writes at once: what was shown counts as shown. A reader that went away stays BrokenPipeError."""
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as failure:
        raise StoreUnavailable(
            f"The output cannot be written: {failure.strerror}.",
            "Nothing that was not shown counts as shown.",
        ) from failure


def problem(error: ChatchainError) -> dict[str, object]:
    """An error as programs read it."""
    return {"code": error.code, "message": error.message, "hint": error.hint}


def as_object(view: msgspec.Struct) -> dict[str, object]:
    """A view's fields under the names of the interface."""
    import msgspec

    made: dict[str, object] = msgspec.to_builtins(view)
    return made


def message_object(view: msgspec.Struct, *, stored: bool) -> dict[str, object]:
    """A message as programs read it; from `history` and `search` with direction and state."""
    return {**SHOWN_KEYS, **(STORED_KEYS if stored else {}), **as_object(view)}


def outage(reason: ChatchainError | None) -> str:
    """The line that says that the connection is gone, and why, or that it is back."""
    return "Connected again." if reason is None else f"Not connected: {reason.message} Trying again."
