"""The menu: everything that a newcomer needs, in plain words, one question at a time.

A line answers each question, from a terminal or from a pipe. `exit` leaves at every question, an empty line
goes back. A mistake is explained and the question asked again; nothing ends the menu but the person.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from chatchain.errors import (
    AlreadyVoted,
    AuthenticationError,
    BadConfig,
    BadText,
    ChainError,
    ChatchainError,
    HomeBusy,
    LoginRefused,
    MalformedName,
    MissingInput,
    NameUnavailable,
    NetworkError,
    StoreUnavailable,
    UnknownMessage,
    UsageError,
    VerificationError,
    VotingClosed,
    WrongPassword,
)
from chatchain.ui import homes, passwords, pictures, render
from chatchain.ui.clean import clean_line
from chatchain.ui.cli.accounts import phrase_lines, phrase_shower
from chatchain.ui.cli.deeds import timer_seconds
from chatchain.ui.cli.desk import Desk, run

if TYPE_CHECKING:
    from chatchain.client.core import Client
    from chatchain.client.views import Joined, ProposalView, Sent, Shown

EXIT: Final = ("exit", "quit", "bye")
NEW: Final = ("n", "new")
WAIT_READ: Final = 2.0
"""Seconds that `read` waits for a first message."""
PAGE: Final = 20
PICKED: Final = 9
"""Messages that can be chosen from."""


HOPELESS: Final = (AuthenticationError, BadConfig, HomeBusy, StoreUnavailable, VerificationError)
"""Troubles of a home that was named on the command line: no answer to a question can change them."""


class Leave(Exception):
    """The person wants to leave the menu."""


class Back(Exception):
    """The person wants another question."""


class OtherName(Exception):
    """The name cannot be had; the person chooses another."""


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
    if dialog.locked_out is not None and not here.console.terminal:
        raise typer.Exit(dialog.locked_out.exit_code)
    if not dialog.answered and not here.console.terminal:
        raise MissingInput("No command was given, and nobody answers here.", advice)


class Menu:
    """One person's walk through the menu."""

    def __init__(self, here: Desk) -> None:
        self._here = here
        self._output = here.output
        self.answered = False
        self.locked_out: WrongPassword | None = None
        """The refusal, already said, after which no right password came."""
        self._choices: tuple[Choice, ...] = (
            Choice("send", "write to somebody", self._send),
            Choice("read", "read what came in", self._read),
            Choice("history", "read earlier messages with somebody", self._history),
            Choice("chat", "talk with somebody, back and forth", self._chat),
            Choice("reply", "answer one of the last messages", self._reply),
            Choice("react", "put an emoji at one of them", self._react),
            Choice("edit", "give one of your messages another text", self._edit),
            Choice("delete", "take one of your messages back", self._delete),
            Choice("settings", "disappearing messages, off the record", self._settings),
            Choice("profile", "the name beside your username", self._profile),
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
                    self._error(error)
        except Leave:
            self.locked_out = None
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
            return named, (named.name if (named / homes.ACCOUNT).exists() else None)
        users = homes.users(settings.data_dir)
        if not users:
            self._say("", "There is no user on this machine yet, so let us make one.")
            return None, None
        rows = [
            (name, "(registration not finished)" if homes.unfinished(settings.data_dir / name) else "")
            for name in users
        ]
        self._say("", "Who are you?", *self._list(rows), "  n  somebody new, or with a recovery phrase")
        while True:
            answer = (await self._ask("Number or name: ")).lower()
            if answer in NEW:
                return None, None
            if (name := _pick(answer, users)) is not None:
                return settings.data_dir / name, name
            if answer:
                self._say(f"{answer!r} is none of these. Type a number, a name, or n for somebody new.")

    async def _as_newcomer(self, home: Path | None) -> None:
        self._say(
            "", "A username has 3 to 32 characters: a-z, 0-9 and hyphens. Everybody can see it for ever."
        )
        name, place, phrase = await self._wish(home)
        if (place / homes.ACCOUNT).exists():
            await self._as_user(place, name)
            return
        password = self._here.kept_password or await self._new_password(name)
        async with self._here.client(place, password) as client:
            if phrase is not None and (link := homes.remembered_link(self._here.settings, place)):
                await client.join(link)
            self._say("Registering on the chain; this takes a moment.")
            view = await client.register(name, mnemonic=phrase, on_phrase=self._show_phrase())
            self._output.lines(render.registered(view))
            await self._work(client, view.username)

    async def _wish(self, home: Path | None) -> tuple[str, Path, str | None]:
        """A name that can be had, its home, and the recovery phrase if the account is there already."""
        while True:
            name, place = await self._name(home)
            try:
                if (place / homes.ACCOUNT).exists():
                    return name, place, None
                return name, place, await self._phrase_for(name, place)
            except OtherName:
                continue
            except MalformedName as error:
                self._error(error)

    async def _name(self, home: Path | None) -> tuple[str, Path]:
        """The name that is wanted and the home that it would have."""
        while True:
            name = (await self._need("Which name would you like? ")).removeprefix("@")
            try:
                return name, home or homes.for_new(self._here.settings, name)
            except MalformedName as error:
                self._error(error)

    async def _phrase_for(self, name: str, place: Path) -> str | None:
        """Makes sure that the name can be had, in a network that the home knows then; gives the recovery
        phrase if the account is there already.
        """
        async with self._here.client(place) as client:
            await self._join(client, place)
            try:
                await client.require_free(name)
                return None
            except NameUnavailable as error:
                self._error(error)
                taken = error
        if "taken" not in taken.message:
            raise OtherName
        self._say(
            "If it is you, type the 12 words of the recovery phrase; an empty line chooses another name."
        )
        phrase = await self._secret("Recovery phrase: ")
        if not phrase.strip():
            raise OtherName
        return phrase

    def _show_phrase(self) -> Callable[[str], None]:
        # From a pipe: the one who wrote the script reads the words in what the menu printed.
        return phrase_shower(self._here, None) or (lambda phrase: self._output.lines(phrase_lines(phrase)))

    async def _join(self, client: Client, home: Path) -> None:
        """Makes the home know its network, if it does not yet."""
        settings = self._here.settings
        if (settings.rpc and settings.directory) or (home / "network.json").exists():
            return
        link = homes.remembered_link(settings, home)
        if link is not None:
            self._say("The network is the one whose join link was used on this machine before.")
            self._joined(await client.join(link))
            return
        self._say("Which network? Whoever invited you has a join link: chatchain://join?…")
        while True:
            link = await self._need("Join link: ")
            try:
                self._joined(await client.join(link))
                break
            except (UsageError, NetworkError, ChainError) as error:
                self._error(error)
        homes.remember_link(settings, link)
        self._say("The link is remembered for whoever registers next on this machine.")

    def _joined(self, view: Joined) -> None:
        self._output.lines(render.joined(view, registered=True))

    async def _new_password(self, name: str) -> str:
        while True:
            first = await self._secret(passwords.choose())
            try:
                passwords.check(first, [name])
            except UsageError as flaw:
                self._error(flaw)
                continue
            if await self._secret("The same again: ") == first:
                return first
            self._say("The two differ.")

    async def _as_user(self, home: Path, name: str) -> None:
        begun = homes.unfinished(home)
        if begun is not None:
            self._say(f"The registration of {clean_line(begun)} is not finished; it goes on now.")
        prompt = f"Password for {name}: " if begun is None else f"Password for {begun} (chosen before): "
        while True:
            password = self._here.kept_password or await self._secret(clean_line(prompt))
            async with self._here.client(home, password) as client:
                try:
                    if begun is not None:
                        # The name is the one that was chosen then: the home and its keys belong to it.
                        made = await client.register(begun, on_phrase=self._show_phrase())
                        self._output.lines(render.registered(made))
                    else:
                        self._output.lines(render.logged_in(await client.login()))
                except WrongPassword as error:
                    if self._here.kept_password:
                        raise
                    self._error(error)
                    self.locked_out = error
                    continue
                except (NetworkError, ChainError, LoginRefused) as error:
                    self._error(error)
                    if begun is not None:
                        return
                    # Without a relay there is still the history to read.
                self.locked_out = None
                await self._work(client, name)
                return

    async def _work(self, client: Client, name: str) -> None:
        words = [choice.word for choice in self._choices]
        while True:
            self._say("", f"{clean_line(name)}, what would you like to do?")
            self._say(*self._list([(choice.word, choice.says) for choice in self._choices]), "  0  exit")
            answer = (await self._ask("Number or word: ")).lower()
            if answer == "0":
                raise Leave
            if answer in ("help", "?"):
                continue
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
                self._error(error)

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

    def _error(self, error: ChatchainError) -> None:
        """Says what failed; a command that is a word of the menu is named as that."""
        words = "|".join(choice.word for choice in self._choices)
        hint = re.sub(rf"`(?:chatchain )?({words}|proposals)(?: [^`]*)?`", _in_menu, error.hint)
        self._output.error(error, hint=hint)

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
        with suppress(NetworkError, ChainError):  # offline the message is queued, if it can be
            await client.require_reachable(to)
        text = await self._need("What do you want to say? ")
        async for view in client.send(to, text):
            self._output.lines(render.sent(view))

    async def _read(self, client: Client) -> None:
        nothing = True
        async for view in client.receive(wait_s=WAIT_READ):
            nothing = False
            self._output.lines(await pictures.message(client, view, self._output))
        if nothing:
            self._say("Nothing new.")

    async def _history(self, client: Client) -> None:
        peer = await self._need("With whom? ")
        views = await client.history(peer, limit=PAGE)
        self._output.lines(await pictures.messages(client, views, self._output))

    async def _chat(self, client: Client) -> None:
        from chatchain.ui.chat import talk

        peer = await self._need("With whom? ")
        await talk(client, peer, self._here.console, self._output)

    async def _pick_message(self, client: Client, *, mine: bool = False) -> Shown:
        """One of the last messages with somebody, chosen by its number."""
        peer = await self._need("With whom? ")
        views = [
            view
            for view in await client.history(peer, limit=PAGE)
            if view.kind in ("text", "file") and not view.deleted and (view.direction == "out" or not mine)
        ][-PICKED:]
        if not views:
            raise UnknownMessage("There is no message that this could be done with.")
        for number, view in enumerate(views, start=1):
            first, *more = render.message(view)
            self._say(f" {number:2}  {first}", *(f"     {line}" for line in more))
        while True:
            answer = await self._need("Which one? (its number; empty: none) ")
            if answer.isdecimal() and len(answer) < 4 and 1 <= int(answer) <= len(views):
                return views[int(answer) - 1]
            self._say(f"{answer!r} is none of these. Type a number from the list.")

    async def _told(self, stream: AsyncIterator[Sent]) -> None:
        async for view in stream:
            self._output.lines(render.sent(view))

    async def _reply(self, client: Client) -> None:
        target = await self._pick_message(client)
        await self._told(client.reply(target.id, await self._need("What do you want to answer? ")))

    async def _react(self, client: Client) -> None:
        target = await self._pick_message(client)
        while True:
            emoji = await self._need("Which emoji? (`none` takes yours away) ")
            try:
                return await self._told(client.react(target.id, "" if emoji.lower() == "none" else emoji))
            except BadText as flaw:
                self._error(flaw)

    async def _edit(self, client: Client) -> None:
        target = await self._pick_message(client, mine=True)
        await self._told(client.edit(target.id, await self._need("What should it say? ")))

    async def _delete(self, client: Client) -> None:
        target = await self._pick_message(client, mine=True)
        if (await self._ask("Take it back for everybody? (yes/no) ")).lower() in ("yes", "y"):
            await self._told(client.delete(target.id))

    async def _settings(self, client: Client) -> None:
        peer = await self._need("With whom? ")
        self._output.lines(render.chat_settings(await client.chat_settings(peer)))
        seconds = await self._timer()
        record = (await self._ask("Off the record? (yes, no; empty: as it is) ")).lower()
        switch = {"yes": True, "y": True, "no": False, "n": False}.get(record)
        if seconds is None and switch is None:
            return
        view = await client.chat_settings(peer, expires=seconds, off_the_record=switch)
        self._output.lines(render.chat_settings(view))

    async def _timer(self) -> int | None:
        while True:
            typed = await self._ask("Messages disappear after (30s, 5m, 1h, 1d, 4w, off; empty: as it is): ")
            try:
                return timer_seconds(typed) if typed else None
            except UsageError as flaw:
                self._error(flaw)

    async def _profile(self, client: Client) -> None:
        self._output.lines(render.profile(await client.profile()))
        name = await self._need("How do you want to be called? (`none`: by the username alone) ")
        view = await client.profile("" if name.lower() == "none" else name)
        self._output.lines(render.profile(view))

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
        views = await client.proposals()
        self._output.lines(render.proposals(views))
        if not any(view.state == "open" for view in views):
            return
        number = await self._need("Which proposal do you want to vote on? (its id; empty: none) ")
        _require_votable(number, views)
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


def _in_menu(command: re.Match[str]) -> str:
    return "`vote` in the menu" if command[1] == "proposals" else f"`{command[1]}` in the menu"


class Switch(Exception):
    """The person wants to be another user."""


def _require_votable(number: str, views: Sequence[ProposalView]) -> None:
    """Raises what can be known before somebody makes up their mind."""
    view = next((view for view in views if str(view.id) == number), None)
    if view is None:
        raise UsageError(
            f"{number!r} is not the number of a proposal.", "Type one of the list's first column."
        )
    if view.voted:
        raise AlreadyVoted(f"You have voted on proposal {number} already; a vote counts once.")
    if view.state != "open":
        raise VotingClosed(f"Proposal {number} is {view.state}; it takes no more votes.")


def _pick(answer: str, words: Sequence[str]) -> str | None:
    """What an answer means in a numbered list: the number, the word, or the beginning of only one word."""
    if answer.isdecimal():
        return words[int(answer) - 1] if len(answer) < 4 and 1 <= int(answer) <= len(words) else None
    if answer in words:
        return answer
    matching = [word for word in words if answer and word.startswith(answer)]
    return matching[0] if len(matching) == 1 else None
