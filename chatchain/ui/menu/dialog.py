"""Questions and answers, as the menu asks and takes them.

A line answers each question, from a terminal or from a pipe. `exit` leaves at every question, an empty line
goes back.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chatchain.errors import ChatchainError, UsageError
from chatchain.ui import passwords, render
from chatchain.ui.clean import clean_line
from chatchain.ui.cli.desk import Desk

if TYPE_CHECKING:
    from chatchain.client.core import Client
    from chatchain.client.views import Sent

EXIT: Final = ("exit", "quit", "bye")


class Leave(Exception):
    """The person wants to leave the menu."""


class Back(Exception):
    """The person wants another question."""


class Switch(Exception):
    """The person wants to be another user."""


@dataclass(frozen=True)
class Choice:
    """One thing to do, by its word and in a few more."""

    word: str
    says: str
    act: Callable[[Client], Awaitable[None]]


class Dialog:
    """What is said to a person, and what they answer."""

    def __init__(self, here: Desk) -> None:
        self.here = here
        self.output = here.output
        self.answered = False
        self.words: frozenset[str] = frozenset()
        """What can be chosen; a command of that name in an advice is named as a word of the menu."""

    # --- said ---------------------------------------------------------------------------------------------

    def say(self, *lines: str) -> None:
        """Lines for the person."""
        self.output.lines(lines)

    def error(self, error: ChatchainError) -> None:
        """Says what failed and what to do about it here."""
        words = "|".join(sorted(self.words, key=len, reverse=True))
        hint = re.sub(rf"`(?:chatchain )?({words}|proposals)(?: [^`]*)?`", _in_menu, error.hint)
        self.output.error(error, hint=hint)

    async def told(self, stream: AsyncIterator[Sent], done: str = "") -> None:
        """Says how far each thing that is sent comes, and what was done by it."""
        async for view in stream:
            self.say(*render.sent(view, done))

    # --- asked --------------------------------------------------------------------------------------------

    async def ask(self, prompt: str) -> str:
        """One answer, which may be empty."""
        answer = (await self.here.console.line_soon(prompt)).strip()
        if not self.here.console.terminal:
            self.say("")  # a pipe echoes nothing, so the line ends here
        self.answered = True
        if answer.lower() in EXIT:
            raise Leave
        return answer

    async def need(self, prompt: str) -> str:
        """One answer; an empty one goes back."""
        answer = await self.ask(prompt)
        if not answer:
            raise Back
        return answer

    async def agrees(self, prompt: str) -> bool:
        """Whether the answer is yes; anything else is no."""
        return (await self.ask(f"{prompt} (yes/no) ")).lower() in ("yes", "y")

    async def pick(self, prompt: str, words: Sequence[str], wrong: str) -> str:
        """One of the words, by its number, the word or its beginning; asks until it is one."""
        while True:
            answer = (await self.need(prompt)).lower()
            if (word := picked(answer, words)) is not None:
                return word
            self.say(f"{answer!r} is none of these. {wrong}")

    async def secret(self, prompt: str) -> str:
        """One line that a terminal does not show."""
        answer = await self.here.console.secret_soon(prompt)
        self.answered = True
        return answer

    async def new_password(self, what: str = "password", names: Sequence[str] = ()) -> str:
        """A password that is about to be set, twice; what does not do is explained and asked again, an empty
        line goes back.
        """
        while True:
            first = await self.secret(passwords.choose(what))
            if not first:
                raise Back
            try:
                passwords.check(first, names)
            except UsageError as flaw:
                self.error(flaw)
                continue
            if await self.secret("The same again: ") == first:
                return first
            self.say("The two differ.")


def numbered(rows: Sequence[tuple[str, str]]) -> list[str]:
    """A list to choose from."""
    width = max(len(word) for word, _ in rows)
    return [
        f" {number:2}  {clean_line(word):<{width}}  {says}".rstrip()
        for number, (word, says) in enumerate(rows, start=1)
    ]


def picked(answer: str, words: Sequence[str]) -> str | None:
    """What an answer means in a numbered list: the number, the word, or the beginning of only one word."""
    if answer.isdecimal():
        return words[int(answer) - 1] if len(answer) < 4 and 1 <= int(answer) <= len(words) else None
    if answer in words:
        return answer
    matching = [word for word in words if answer and word.startswith(answer)]
    return matching[0] if len(matching) == 1 else None


def _in_menu(command: re.Match[str]) -> str:
    return "`vote` in the menu" if command[1] == "proposals" else f"`{command[1]}` in the menu"
