"""What a command works with: its settings, where results go, whom to ask, and a client of the right home."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import typer

from chatchain.errors import ChatchainError, WrongPassword
from chatchain.ui import homes, passwords, render
from chatchain.ui.console import Console
from chatchain.ui.output import Output
from chatchain.ui.world import Settings, World

if TYPE_CHECKING:
    from chatchain.client.core import Client
    from chatchain.client.views import PendingRecovery

T = TypeVar("T")

LAST_LOOK_S: Final = 1.0
"""How long a command that failed or was stopped waits to look whether somebody takes the account over."""

UTF8: Final = "Bring it into UTF-8 first; `iconv` converts texts."


@dataclass
class Desk:
    """One run of one command. Settings are read when the command runs, so that help needs none that hold."""

    world: World
    flags: Mapping[str, object]
    output: Output
    _told: set[tuple[str, int]] = field(default_factory=set)

    @cached_property
    def settings(self) -> Settings:
        """The settings; raises BadConfig."""
        return self.world.configure(self.flags)

    @cached_property
    def console(self) -> Console:
        """The person at the terminal, if there is one."""
        return Console(no_input=self.settings.no_input, quiet_stdout=self.output.json)

    @cached_property
    def kept_password(self) -> str | None:
        """The account's password, if its file was named."""
        path = self.settings.password_file
        return None if path is None else passwords.read_password(path, self.output)

    def password(self) -> str:
        """The account's password, from its file or from the person."""
        return self.kept_password or passwords.asker(self.console)()

    def client(
        self,
        home: Path | None = None,
        password: str | None = None,
        ask_password: Callable[[], str] | None = None,
    ) -> Client:
        """The client of a home; by default the one that the settings mean, with the password at hand."""
        return self.world.connect(
            homes.find(self.settings) if home is None else home,
            self.settings,
            password=password or self.kept_password,
            ask_password=ask_password or passwords.asker(self.console),
        )

    def run(
        self,
        work: Callable[[Client], Awaitable[T]],
        home: Path | None = None,
        password: str | None = None,
        ask_password: Callable[[], str] | None = None,
        *,
        warns: bool = True,
    ) -> T:
        """Runs a command's work with a client that is closed at the end.

        Whoever acts for an account that somebody is about to take over is told so, also where the work fails
        or is stopped; without `warns` only there, for its result tells it.
        """

        async def whole() -> T:
            done = False
            async with self.client(home, password, ask_password) as client:
                try:
                    result = await work(client)
                    done = True
                    return result
                finally:
                    if warns or not done:
                        await self._warn(client)

        try:
            return run(whole())
        except WrongPassword as wrong:
            if self.kept_password is None or password not in (None, self.kept_password):
                raise
            raise WrongPassword(wrong.message, f"{self._password_source()} {wrong.hint}") from wrong

    async def _warn(self, client: Client) -> None:
        """Tells of a takeover under way, in whatever state the work left the client."""
        import asyncio

        with suppress(ChatchainError, TimeoutError):
            async with asyncio.timeout(LAST_LOOK_S):
                pending = await client.pending_recovery()
            if pending is not None:
                self.alarm(pending)

    def alarm(self, pending: PendingRecovery) -> None:
        """Tells of a takeover under way, if this process has not done so."""
        for line in self.news(pending):
            self.output.note(line)

    def news(self, pending: PendingRecovery) -> list[str]:
        """What is to be said of a takeover under way: nothing where this process has said it."""
        which = pending.account, pending.block
        if which in self._told:
            return []
        self._told.add(which)
        return render.alarm(pending)

    def _password_source(self) -> str:
        """Where the password came from: a variable that is still set is easily forgotten."""
        where = next((one.where for one in self.settings.settings if one.name == "password_file"), "")
        return f"It is the one in {self.settings.password_file}, from {where}."


def desk(context: typer.Context) -> Desk:
    """The desk of this run."""
    found = context.find_object(Desk)
    assert found is not None, "the callback of the application put it there"
    return found


def run(work: Coroutine[object, object, T]) -> T:
    """Runs a coroutine to its end.

    After Ctrl-C the task is cancelled and may tidy up, but threads that still wait for a network or a
    keyboard are not waited for: the program ends next, and all that matters is committed.
    """
    import asyncio

    runner = asyncio.Runner()
    try:
        result = runner.run(work)
    except KeyboardInterrupt:
        raise
    except BaseException:
        runner.close()
        raise
    runner.close()
    return result


def argument_text(text: str, what: str) -> str:
    """A command-line argument as text; the shell passes bytes, which need not be any."""
    from chatchain.errors import BadText

    try:
        os.fsencode(text).decode()
    except UnicodeDecodeError:
        raise BadText(f"{what} is not text in UTF-8.", UTF8) from None
    return text
