"""The menu's frame: who somebody is, how a newcomer gets an account, and the standing question what to do.

A mistake is explained and the question asked again; nothing ends the menu but the person.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from chatchain.errors import (
    AccountKeyElsewhere,
    AuthenticationError,
    BadConfig,
    ChainError,
    ChatchainError,
    HomeBusy,
    LoginRefused,
    MalformedName,
    MissingInput,
    NameUnavailable,
    NetworkError,
    NotFoundError,
    StoreUnavailable,
    UsageError,
    VerificationError,
    WrongPassword,
)
from chatchain.ui import homes, render, takeovers
from chatchain.ui.clean import clean_line
from chatchain.ui.cli.accounts import phrase_lines, phrase_shower
from chatchain.ui.cli.desk import Desk, run
from chatchain.ui.menu.account import Account, be_let_in
from chatchain.ui.menu.dialog import Back, Choice, Dialog, Leave, Switch, numbered, picked
from chatchain.ui.menu.people import People
from chatchain.ui.menu.talk import Talk

if TYPE_CHECKING:
    from chatchain.client.core import Client
    from chatchain.client.views import Joined

NEW: Final = ("n", "new")
LINK: Final = "link"
"""What a newcomer answers who has another device of the account."""
RECOVER: Final = "recover"
"""What one answers who has nothing of it but the recovery address."""
LIST: Final = ("help", "?", "list")

HOPELESS: Final = (AuthenticationError, BadConfig, HomeBusy, StoreUnavailable, VerificationError)
"""Troubles of a home that was named on the command line: no answer to a question can change them."""


class OtherName(Exception):
    """The name cannot be had; the person chooses another."""


def menu(here: Desk) -> None:
    """Runs the menu until the person leaves; raises MissingInput where nobody can answer."""
    advice = "Give a command; `chatchain --help` lists them."
    if here.settings.no_input:
        raise MissingInput("No command was given, and --no-input leaves nobody to ask.", advice)
    if here.output.json:
        raise UsageError("The menu is for people; --json needs a command.", advice)
    dialog = Dialog(here)
    walk = Menu(dialog)
    run(walk.go())
    if walk.locked_out is not None and not here.console.terminal:
        raise typer.Exit(walk.locked_out.exit_code)
    if not dialog.answered and not here.console.terminal:
        raise MissingInput("No command was given, and nobody answers here.", advice)


class Menu:
    """One person's walk through the menu."""

    def __init__(self, dialog: Dialog) -> None:
        self._dialog = dialog
        self._here = dialog.here
        self.locked_out: WrongPassword | None = None
        """The refusal, already said, after which no right password came."""
        account = Account(dialog)
        more = Choice("account", "your name, password, devices and keys, invitations", self._account)
        self._choices = (*Talk(dialog).choices, *People(dialog).choices, more, account.switch)
        self._more = account.choices
        dialog.words = frozenset(choice.word for choice in (*self._choices, *self._more))

    # --- who it is ----------------------------------------------------------------------------------------

    async def go(self) -> None:
        """Asks who it is and then, again and again, what to do."""
        say = self._dialog.say
        say("chatchain: private messages for groups that govern themselves.")
        say("An empty line goes back; `exit` leaves.")
        try:
            while True:
                try:
                    await self._as_somebody()
                except Back:
                    continue
                except ChatchainError as error:
                    if homes.named(self._here.settings) is not None and isinstance(error, HOPELESS):
                        raise
                    self._dialog.error(error)
        except Leave:
            self.locked_out = None
            say("Goodbye.")
        except EOFError:
            say("")

    async def _as_somebody(self) -> None:
        home, name = await self._who()
        if home is None or name is None:
            await self._as_newcomer(home)
        else:
            await self._as_user(home, name)

    async def _who(self) -> tuple[Path | None, str | None]:
        """The home and user that are meant; None as the user of somebody new."""
        settings, say = self._here.settings, self._dialog.say
        if (named := homes.named(settings)) is not None:
            return named, (named.name if (named / homes.ACCOUNT).exists() else None)
        users = homes.users(settings.data_dir)
        if not users:
            say("", "There is no user on this machine yet, so let us make one.")
            return None, None
        rows = [
            (name, "(registration not finished)" if homes.unfinished(settings.data_dir / name) else "")
            for name in users
        ]
        say("", "Who are you?", *numbered(rows), "  n  somebody new, or with an account from elsewhere")
        while True:
            answer = (await self._dialog.ask("Number or name: ")).lower()
            if answer in NEW:
                return None, None
            if (name := picked(answer, users)) is not None:
                return settings.data_dir / name, name
            if answer:
                say(f"{answer!r} is none of these. Type a number, a name, or n for somebody new.")

    # --- somebody new -------------------------------------------------------------------------------------

    async def _as_newcomer(self, home: Path | None) -> None:
        say = self._dialog.say
        say("", "A username has 3 to 32 characters: a-z, 0-9 and hyphens. Everybody can see it for ever.")
        name, place, phrase = await self._wish(home)
        if (place / homes.ACCOUNT).exists():
            await self._as_user(place, name)
            return
        if phrase == LINK:
            await self._be_let_in(place, name)
            return
        if phrase == RECOVER:
            await self._begin_takeover(place, name)
            return
        password = self._here.kept_password or await self._dialog.new_password(names=[name])
        async with self._here.client(place, password) as client:
            if phrase is not None and (link := homes.remembered_link(self._here.settings, place)):
                await client.join(link)
            say("Registering on the chain; this takes a moment.")
            view = await client.register(name, mnemonic=phrase, on_phrase=self._show_phrase())
            say(*render.registered(view))
            await self._work(client, view.username)

    async def _wish(self, home: Path | None) -> tuple[str, Path, str | None]:
        """A name that can be had, its home, and the recovery phrase (or LINK, RECOVER) if the account is
        there already.
        """
        while True:
            name, place = await self._name(home)
            try:
                if (place / homes.ACCOUNT).exists():
                    return name, place, None
                return name, place, await self._way_back(name, place)
            except OtherName:
                continue
            except MalformedName as error:
                self._dialog.error(error)

    async def _name(self, home: Path | None) -> tuple[str, Path]:
        """The name that is wanted and the home that it would have."""
        while True:
            name = (await self._dialog.need("Which name would you like? ")).removeprefix("@")
            try:
                return name, home or homes.for_new(self._here.settings, name)
            except MalformedName as error:
                self._dialog.error(error)

    async def _way_back(self, name: str, place: Path) -> str | None:
        """Makes sure that the name can be had, in a network that the home knows then; gives the recovery
        phrase, LINK or RECOVER, if the account is there already.
        """
        async with self._here.client(place) as client:
            await self._join(client, place)
            try:
                await client.require_free(name)
                return None
            except NameUnavailable as error:
                self._dialog.error(error)
                taken = error
        if "taken" not in taken.message:
            raise OtherName
        self._dialog.say(
            "If it is you: type `link` to be let in by a device that you have, the 12 words of the recovery",
            "phrase, or `recover` if only your recovery address is left. An empty line chooses another name.",
        )
        phrase = (await self._dialog.secret("Recovery phrase, link, or recover: ")).strip()
        if not phrase:
            raise OtherName
        return phrase.lower() if phrase.lower() in (LINK, RECOVER) else phrase

    def _show_phrase(self) -> Callable[[str], None]:
        # From a pipe: the one who wrote the script reads the words in what the menu printed.
        return phrase_shower(self._here, None) or (lambda phrase: self._dialog.say(*phrase_lines(phrase)))

    async def _join(self, client: Client, home: Path) -> None:
        """Makes the home know its network, if it does not yet."""
        settings, say = self._here.settings, self._dialog.say
        if (settings.rpc and settings.directory) or (home / "network.json").exists():
            return
        link = homes.remembered_link(settings, home)
        if link is not None:
            say("The network is the one whose join link was used on this machine before.")
            self._joined(await client.join(link))
            return
        say("Which network? Whoever invited you has a join link: chatchain://join?…")
        while True:
            link = await self._dialog.need("Join link: ")
            try:
                self._joined(await client.join(link))
                break
            except (UsageError, NetworkError, ChainError) as error:
                self._dialog.error(error)
        homes.remember_link(settings, link)
        say("The link is remembered for whoever registers next on this machine.")

    def _joined(self, view: Joined) -> None:
        self._dialog.say(*render.joined(view, registered=True))

    async def _be_let_in(self, place: Path, name: str) -> None:
        """Makes this machine a device of an account that exists elsewhere."""
        while True:
            password = await self._password(f"Password of {name}'s account: ")
            async with self._here.client(place, password) as client:
                if link := homes.remembered_link(self._here.settings, place):
                    await client.join(link)
                try:
                    asked = await client.link(name)
                except WrongPassword as error:
                    self._refused(error)
                    continue
                if (username := await be_let_in(self._dialog, client, asked)) is not None:
                    await self._work(client, username)
                return

    async def _begin_takeover(self, place: Path, name: str) -> None:
        """Makes a new account on this machine that is to take over the one of this name."""
        password = self._here.kept_password or await self._dialog.new_password(names=[name])
        async with self._here.client(place, password) as client:
            if link := homes.remembered_link(self._here.settings, place):
                await client.join(link)
            view = await client.begin_takeover(name, on_phrase=self._show_phrase())
            self._dialog.say(*takeovers.takeover(view))

    async def _take_over(self, client: Client) -> bool:
        """Goes on with a takeover that was begun here; whether it is over, if one was."""
        try:
            view = await client.takeover()
        except NotFoundError:
            return False
        if view.state == "taken":
            return False
        say, agrees = self._dialog.say, self._dialog.agrees
        say(*takeovers.takeover(view))
        if view.state == "proposed":
            say("", *takeovers.last_word(view))
        if view.state != "proposed" or not await agrees("Take over now?"):
            raise self._away()
        every = await agrees("Shut out all other devices of the account, for ever?")
        made = await client.finalise_takeover(
            choose=lambda offer: [one.device for one in offer.devices] if every else []
        )
        say(*render.recovered(made))
        return True

    async def _password(self, prompt: str) -> str:
        """The password of an account; an empty line goes back, or leaves where there is no way back."""
        if self._here.kept_password:
            return self._here.kept_password
        password = await self._dialog.secret(clean_line(prompt))
        if not password:
            raise self._away()
        return password

    def _away(self) -> Exception:
        """What goes back to the first question, or leaves where there is no way back."""
        return Leave() if homes.named(self._here.settings) is not None else Back()

    def _refused(self, error: WrongPassword) -> None:
        """Says that a password is wrong, for it to be asked for again; raises what nobody can answer."""
        if self._here.kept_password:
            raise error
        self._dialog.error(error)
        self.locked_out = error

    # --- somebody known -----------------------------------------------------------------------------------

    async def _as_user(self, home: Path, name: str) -> None:
        begun = homes.unfinished(home)
        if begun is not None and homes.waits_for_link(home):
            self._dialog.say(f"This machine waits to be let in as a device of {clean_line(begun)}.")
            await self._be_let_in(home, begun)
            return
        if begun is not None:
            what = "recovery" if homes.restores(home) else "registration"
            self._dialog.say(f"The {what} of {clean_line(begun)} is not finished; it goes on now.")
        prompt = f"Password for {name}: " if begun is None else f"Password for {begun} (chosen before): "
        while True:
            password = await self._password(prompt)
            async with self._here.client(home, password) as client:
                try:
                    if begun is not None and await self._take_over(client):
                        pass
                    elif begun is not None:
                        # The name is the one that was chosen then: the home and its keys belong to it.
                        made = await client.register(begun, on_phrase=self._show_phrase())
                        self._dialog.say(*render.registered(made))
                    else:
                        view = await client.login()
                        self._dialog.say(*render.logged_in(view))
                        if view.recovery is not None:
                            self._here.news(view.recovery)  # it is in what was just said
                except WrongPassword as error:
                    self._refused(error)
                    continue
                except (NetworkError, ChainError, LoginRefused, AccountKeyElsewhere) as error:
                    self._dialog.error(error)
                    if begun is not None:
                        return
                    # Without a relay there is still the history to read.
                self.locked_out = None
                await self._work(client, name)
                return

    # --- what to do ---------------------------------------------------------------------------------------

    async def _work(self, client: Client, name: str) -> None:
        listed = False
        while True:
            await self._warn(client)
            self._dialog.say("", f"{clean_line(name)}, what would you like to do?")
            self._dialog.say(*(["  (? lists it all)"] if listed else self._list(self._choices)))
            listed = True
            answer = (await self._dialog.ask("Number or word: ")).lower()
            if answer == "0":
                raise Leave
            if answer in LIST:
                listed = False
                continue
            if (choice := self._chosen(answer)) is None:
                if answer:
                    self._dialog.say(f"{answer!r} is none of these. Type a number or a word from the list.")
                    listed = False
                continue
            try:
                await choice.act(client)
            except Switch:
                return
            except Back:
                continue
            except ChatchainError as error:
                self._dialog.error(error)

    async def _warn(self, client: Client) -> None:
        """Tells of a takeover under way, as far as the chain has shown it here."""
        with suppress(ChatchainError):
            if (pending := await client.pending_recovery()) is not None:
                self._dialog.say(*self._here.news(pending))

    def _chosen(self, answer: str) -> Choice | None:
        """What is meant: of the list, or by its word what stands below `account`."""
        for choices in (self._choices, self._more):
            words = [choice.word for choice in choices]
            if (word := picked(answer, words)) is not None and (choices is self._choices or word == answer):
                return choices[words.index(word)]
        return None

    async def _account(self, client: Client) -> None:
        words = [choice.word for choice in self._more]
        self._dialog.say(*numbered([(choice.word, choice.says) for choice in self._more]))
        wrong = "Type a number or a word from the list."
        word = await self._dialog.pick("Which one? (empty: none) ", words, wrong)
        await self._more[words.index(word)].act(client)

    @staticmethod
    def _list(choices: tuple[Choice, ...]) -> list[str]:
        return [*numbered([(choice.word, choice.says) for choice in choices]), "  0  exit"]
