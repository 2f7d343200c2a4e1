"""The menu: everything that a newcomer needs, in plain words, one question at a time.

A line answers each question, from a terminal or from a pipe. `exit` leaves at every question, an empty line
goes back. A mistake is explained and the question asked again; nothing ends the menu but the person.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chatchain.errors import (
    AuthenticationError,
    BadConfig,
    ChainError,
    ChatchainError,
    HomeBusy,
    LoginRefused,
    MalformedName,
    MissingInput,
    NetworkError,
    NoAccount,
    StoreUnavailable,
    UsageError,
    VerificationError,
    WrongPassword,
)
from chatchain.ui import homes, render
from chatchain.ui.clean import clean_line
from chatchain.ui.cli.accounts import phrase_lines, phrase_shower
from chatchain.ui.cli.desk import Desk, run

if TYPE_CHECKING:
    from chatchain.client.core import Client

EXIT: Final = ("exit", "quit", "bye")
NEW: Final = ("n", "new")
WAIT_READ: Final = 2.0
"""Seconds that `read` waits for a first message."""
PAGE: Final = 20


HOPELESS: Final = (AuthenticationError, BadConfig, HomeBusy, StoreUnavailable, VerificationError)
"""Troubles of a home that was named on the command line: no answer to a question can change them."""


class Leave(Exception):
    """The person wants to leave the menu."""


class Back(Exception):
    """The person wants another question."""


@dataclass(frozen=True)
class Choice:
    """One thing to do, by its word and in a few more."""

    word: str
    says: str
    act: Callable[[Client], Awaitable[None]]


def menu(here: Desk) -> None:
    """Runs the menu until the person leaves; raises MissingInput where nobody can answer."""
    advice = "Give a command; `chatchain --help` lists them."
    if here.settings.no_input:
        raise MissingInput("No command was given, and --no-input leaves nobody to ask.", advice)
    if here.output.json:
        raise UsageError("The menu is for people; --json needs a command.", advice)
    dialog = Menu(here)
    run(dialog.go())
    if not dialog.answered and not here.console.terminal:
        raise MissingInput("No command was given, and nobody answers here.", advice)


class Menu:
    """One person's walk through the menu."""

    def __init__(self, here: Desk) -> None:
        self._here = here
        self._output = here.output
        self.answered = False
        self._choices: tuple[Choice, ...] = (
            Choice("send", "write to somebody", self._send),
            Choice("read", "read what came in", self._read),
            Choice("history", "read earlier messages with somebody", self._history),
            Choice("chat", "talk with somebody, back and forth", self._chat),
            Choice("contacts", "whom you know, and how to be sure of them", self._contacts),
            Choice("members", "who is in the network", self._members),
            Choice("vote", "see the proposals, and vote", self._vote),
            Choice("propose", "propose to admit or expel somebody", self._propose),
            Choice("request", "ask the members to admit you", self._request),
            Choice("status", "your account and the network", self._status),
            Choice("login", "log in at the relay", self._login),
            Choice("switch", "be somebody else", self._switch),
        )

    # --- the frame ----------------------------------------------------------------------------------------

    async def go(self) -> None:
        """Asks who it is and then, again and again, what to do."""
        self._say("chatchain: private messages for groups that govern themselves.")
        self._say("An empty line goes back; `exit` leaves.")
        try:
            while True:
                try:
                    await self._as_somebody()
                except Back:
                    continue
                except ChatchainError as error:
                    if homes.named(self._here.settings) is not None and isinstance(error, HOPELESS):
                        raise
                    self._output.error(error)
        except Leave:
            self._say("Goodbye.")
        except EOFError:
            self._say("")

    async def _as_somebody(self) -> None:
        home, name = await self._who()
        if home is None or name is None:
            await self._as_newcomer(home)
        else:
            await self._as_user(home, name)

    async def _who(self) -> tuple[Path | None, str | None]:
        """The home and user that are meant; None as the user of somebody new."""
        settings = self._here.settings
        if (named := homes.named(settings)) is not None:
            return named, (named.name if (named / "account.json").exists() else None)
        users = homes.users(settings.data_dir)
        if not users:
            self._say("", "There is no user on this machine yet, so let us make one.")
            return None, None
        self._say("", "Who are you?", *self._list([(name, "") for name in users]), "  n  somebody new")
        while True:
            answer = (await self._ask("Number or name: ")).lower()
            if answer in NEW:
                return None, None
            if (name := _pick(answer, users)) is not None:
                return settings.data_dir / name, name
            if answer:
                self._say(f"{answer!r} is none of these. Type a number, a name, or n for somebody new.")

    async def _as_newcomer(self, home: Path | None) -> None:
        here = self._here
        self._say(
            "", "A username has 3 to 32 characters: a-z, 0-9 and hyphens. Everybody can see it for ever."
        )
        name, place = await self._name(home)
        await self._join(place)
        password = here.kept_password or await self._new_password()
        async with here.client(place, password) as client:
            self._say("Registering on the chain; this takes a moment.")
            view = await client.register(name, on_phrase=self._show_phrase())
            self._output.lines(render.registered(view))
            await self._work(client, view.username)

    async def _name(self, home: Path | None) -> tuple[str, Path]:
        """The name that is wanted and the home that it would have."""
        while True:
            name = (await self._need("Which name would you like? ")).removeprefix("@")
            try:
                return name, home or homes.for_new(self._here.settings, name)
            except MalformedName as error:
                self._output.error(error)

    def _show_phrase(self) -> Callable[[str], None]:
        # From a pipe: the one who wrote the script reads the words in what the menu printed.
        return phrase_shower(self._here, None) or (lambda phrase: self._output.lines(phrase_lines(phrase)))

    async def _join(self, home: Path) -> None:
        """Makes the home know its network, if it does not yet."""
        settings = self._here.settings
        if (settings.rpc and settings.directory) or (home / "network.json").exists():
            return
        link = homes.remembered_link(settings, home)
        while link is None:
            self._say("Which network? Whoever invited you has a join link: chatchain://join?…")
            link = await self._need("Join link: ")
            if not link.startswith("chatchain://"):
                self._say("That is no join link: it begins with chatchain://join?")
                link = None
        async with self._here.client(home) as client:
            self._output.lines(render.joined(await client.join(link))[:-1])
        homes.remember_link(settings, link)

    async def _new_password(self) -> str:
        while True:
            first = await self._secret("Choose a password: ")
            if not first:
                self._say("An empty password protects nothing.")
            elif await self._secret("The same again: ") == first:
                return first
            else:
                self._say("The two differ.")

    async def _as_user(self, home: Path, name: str) -> None:
        while True:
            password = self._here.kept_password or await self._secret(f"Password for {name}: ")
            async with self._here.client(home, password) as client:
                try:
                    self._output.lines(render.logged_in(await client.login()))
                except WrongPassword as error:
                    if self._here.kept_password:
                        raise
                    self._output.error(error)
                    continue
                except NoAccount as error:
                    # Begun and not finished (a crash): the registration goes on where it broke off.
                    self._output.error(error)
                    await self._resume(client)
                except (NetworkError, ChainError, LoginRefused) as error:
                    # Without a relay there is still the history to read.
                    self._output.error(error)
                await self._work(client, name)
                return

    async def _resume(self, client: Client) -> None:
        name = await self._need("Your username again, to finish the registration: ")
        self._output.lines(render.registered(await client.register(name, on_phrase=self._show_phrase())))

    async def _work(self, client: Client, name: str) -> None:
        words = [choice.word for choice in self._choices]
        while True:
            self._say("", f"{clean_line(name)}, what would you like to do?")
            self._say(*self._list([(choice.word, choice.says) for choice in self._choices]), "  0  exit")
            answer = (await self._ask("Number or word: ")).lower()
            if answer == "0":
                raise Leave
            word = _pick(answer, words)
            if word is None:
                if answer:
                    self._say(f"{answer!r} is none of these. Type a number or a word from the list.")
                continue
            try:
                await self._choices[words.index(word)].act(client)
            except Switch:
                return
            except Back:
                continue
            except ChatchainError as error:
                self._output.error(error)

    # --- questions ----------------------------------------------------------------------------------------

    async def _ask(self, prompt: str) -> str:
        answer = (await self._here.console.line_soon(prompt)).strip()
        if not self._here.console.terminal:
            self._say("")  # a pipe echoes nothing, so the line ends here
        self.answered = True
        if answer.lower() in EXIT:
            raise Leave
        return answer

    async def _need(self, prompt: str) -> str:
        answer = await self._ask(prompt)
        if not answer:
            raise Back
        return answer

    async def _secret(self, prompt: str) -> str:
        answer = await self._here.console.secret_soon(prompt)
        self.answered = True
        return answer

    def _say(self, *lines: str) -> None:
        self._output.lines(lines)

    @staticmethod
    def _list(rows: Sequence[tuple[str, str]]) -> list[str]:
        width = max(len(word) for word, _ in rows)
        return [
            f" {number:2}  {clean_line(word):<{width}}  {says}".rstrip()
            for number, (word, says) in enumerate(rows, start=1)
        ]

    # --- things to do -------------------------------------------------------------------------------------

    async def _send(self, client: Client) -> None:
        to = await self._need("To whom? ")
        text = await self._need("What do you want to say? ")
        async for view in client.send(to, text):
            self._output.lines(render.sent(view))

    async def _read(self, client: Client) -> None:
        nothing = True
        async for view in client.receive(wait_s=WAIT_READ):
            nothing = False
            self._output.lines(render.message(view))
        if nothing:
            self._say("Nothing new.")

    async def _history(self, client: Client) -> None:
        peer = await self._need("With whom? ")
        self._output.lines(render.messages(await client.history(peer, limit=PAGE)))

    async def _chat(self, client: Client) -> None:
        from chatchain.ui.chat import talk

        peer = await self._need("With whom? ")
        await talk(client, peer, self._here.console, self._output)

    async def _contacts(self, client: Client) -> None:
        self._output.lines(render.contacts(await client.contacts()))
        who = await self._need("Whose safety number do you want to compare? (empty: none) ")
        view = await client.safety_number(who)
        self._output.lines(render.contact(view))
        if not view.verified and (await self._ask("Is it the same on the other side? (yes/no) ")) == "yes":
            self._output.lines(render.contact(await client.verify(who)))

    async def _members(self, client: Client) -> None:
        self._output.lines(render.members(await client.members()))

    async def _vote(self, client: Client) -> None:
        self._output.lines(render.proposals(await client.proposals()))
        number = await self._need("Which proposal do you want to vote on? (its id; empty: none) ")
        if not number.isdecimal() or len(number) > 18:
            raise UsageError(f"{number!r} is not the number of a proposal.")
        while (answer := (await self._need("yes or no? ")).lower()) not in ("yes", "y", "no", "n"):
            self._say("Type yes or no.")
        self._output.lines(render.proposal(await client.vote(int(number), answer.startswith("y"))))

    async def _propose(self, client: Client) -> None:
        while (kind := (await self._need("admit or expel? ")).lower()) not in ("admit", "expel"):
            self._say("Type admit or expel.")
        who = await self._need("Whom? ")
        self._output.lines(render.proposal(await client.propose(kind, who)))

    async def _request(self, client: Client) -> None:
        self._output.lines(render.proposal(await client.request()))

    async def _status(self, client: Client) -> None:
        self._output.lines(render.status(await client.status()))

    async def _login(self, client: Client) -> None:
        self._output.lines(render.logged_in(await client.login()))

    async def _switch(self, client: Client) -> None:
        raise Switch


class Switch(Exception):
    """The person wants to be another user."""


def _pick(answer: str, words: Sequence[str]) -> str | None:
    """What an answer means in a numbered list: the number, the word, or the beginning of only one word."""
    if answer.isdecimal():
        return words[int(answer) - 1] if len(answer) < 4 and 1 <= int(answer) <= len(words) else None
    if answer in words:
        return answer
    matching = [word for word in words if answer and word.startswith(answer)]
    return matching[0] if len(matching) == 1 else None
