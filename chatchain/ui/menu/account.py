"""The menu about one's own account: name, devices and their keys, password, recovery, invitations."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from chatchain.errors import AccountKeyElsewhere, ChatchainError, MissingInput, UsageError, WrongPassword
from chatchain.ui import render, takeovers
from chatchain.ui.cli.accounts import phrase_lines
from chatchain.ui.cli.settings import means_it
from chatchain.ui.menu.dialog import Back, Choice, Dialog, Switch, numbered
from chatchain.ui.paths import typed_path

if TYPE_CHECKING:
    from chatchain.client.core import Client
    from chatchain.client.views import Linked, LinkRequest

KEY_DEEDS: Final = (
    ("rotate", "give this device new keys"),
    ("revoke", "shut a device out for ever, a lost one say"),
    ("export", "write the account's key into a file, for a wallet"),
    ("phrase", "show the recovery phrase, if nobody has seen it yet"),
)

NAME: Final = ("name", "choose who may propose another account for you, once yours is lost")
PROPOSE: Final = ("propose", "propose another account for somebody who chose you")
VETO: Final = ("veto", "refuse the account that was proposed for you")
WRONG: Final = "Type a number or a word from the list."


class Account:
    """What can be done about the own account."""

    def __init__(self, dialog: Dialog) -> None:
        self._dialog = dialog
        self.choices = (
            Choice("profile", "the name beside your username", self._profile),
            Choice("password", "choose another password", self._password),
            Choice("keys", "your devices and their keys; shut one out", self._keys),
            Choice("link", "let a new device of yours in", self._link),
            Choice("recover", "who may bring the account back, or refuse who tries to", self._recover),
            Choice("privacy", "what others learn of your typing and reading", self._privacy),
            Choice("invite", "an invitation for somebody new", self._invite),
            Choice("status", "your account and the network", self._status),
            Choice("doctor", "look for trouble with chain, relay and account", self._doctor),
            Choice("login", "log in at the relay", self._login),
        )
        self.switch = Choice("switch", "be somebody else", self._switch)

    async def _profile(self, client: Client) -> None:
        dialog = self._dialog
        dialog.say(*render.profile(await client.profile()))
        name = await dialog.need("How do you want to be called? (`none`: by the username alone) ")
        dialog.say(*render.profile(await client.profile("" if name.lower() == "none" else name)))

    async def _password(self, client: Client) -> None:
        dialog = self._dialog
        dialog.say("The new password holds on every device of yours. An empty line leaves the old one.")
        view = await client.whoami()
        new = await dialog.new_password("new password", [view.username])
        dialog.say(*render.password_changed(await client.change_password(new)))
        if dialog.here.kept_password is not None:
            dialog.say("The password file that was named still holds the old one.")

    async def _keys(self, client: Client) -> None:
        dialog, devices = self._dialog, await client.keys()
        dialog.say(*render.keys(devices), "", *numbered(KEY_DEEDS))
        words = [word for word, _ in KEY_DEEDS]
        word = await dialog.pick("Which one? (empty: none) ", words, WRONG)
        if word == "rotate":
            dialog.say(*render.rotated(await client.rotate_keys()))
        elif word == "revoke":
            number = await dialog.need("Which device? (its number) ")
            if not number.isdecimal() or len(number) > 9:
                raise UsageError(f"{number!r} is no number of a device.")
            if await means_it(dialog.here, int(number), devices):
                name = (await client.whoami()).username
                dialog.say(*render.revoked(await client.revoke_device(int(number)), name))
        elif word == "phrase":
            if not await client.show_phrase(lambda phrase: dialog.say(*phrase_lines(phrase))):
                dialog.say("The recovery phrase was shown before; it is not kept here. Look on the paper.")
        else:
            path = typed_path(await dialog.need("Into which new file? "))
            secret = await dialog.new_password("password for that file")
            dialog.say(*render.exported(await client.export_keystore(path, secret)))

    async def _link(self, client: Client) -> None:
        dialog = self._dialog
        dialog.say(
            "On the new device start chatchain, give your username, and type link. It shows a text: bring it",
            "here whole (copy it, or send it to yourself).",
        )
        text = await dialog.need("The new device's text: ")
        dialog.say(*render.link_offer(await client.inspect_link(text)))
        if not await dialog.agrees("Does the new device show this code?"):
            dialog.say("Nothing was changed. Let a device in only if both show the same code.")
            return
        through_relay = await dialog.agrees("Hand over your contacts and newest messages, under seal?")
        try:
            view = await client.accept_link(text, through_relay=through_relay)
        except AccountKeyElsewhere as elsewhere:
            dialog.say(elsewhere.message)
            if not await dialog.agrees("Does a wallet have it, to sign with?"):
                dialog.say(elsewhere.default_hint)
                return
            dialog.say(*render.wallet_prompt(await client.ask_wallet(text), in_menu=True))
            signature = await dialog.need("What the wallet gave: ")
            view = await client.accept_link(text, through_relay=through_relay, signature=signature)
        dialog.say(*render.link_answer(view))

    async def _recover(self, client: Client) -> None:
        dialog, view = self._dialog, await client.recovery_address()
        deeds = (*((VETO,) if view.pending is not None else ()), NAME, PROPOSE)
        dialog.say(*takeovers.recovery(view), "", *numbered(deeds))
        word = await dialog.pick("Which one? (empty: none) ", [word for word, _ in deeds], WRONG)
        if word == "veto":
            if await dialog.agrees("Refuse it? That is possible once in 30 days."):
                dialog.say(*render.vetoed(await client.veto_recovery()))
        elif word == "name":
            who = await dialog.need("Whom? (a user, an address, or `none`) ")
            naming = await client.offer_recovery_address(None if who.lower() == "none" else who)
            dialog.say(*takeovers.naming(naming))
            if await dialog.agrees("Name it?"):
                dialog.say(*takeovers.recovery(await client.set_recovery_address(naming.to)))
        else:
            whose = await dialog.need("For whom? ")
            account = await dialog.need("Which account? (0x…, as the new device shows it) ")
            dialog.say(*takeovers.proposal(await client.offer_proposal(whose, account)))
            if await dialog.agrees("Propose it?"):
                dialog.say(*takeovers.proposed(await client.propose_recovery(whose, account)))

    async def _privacy(self, client: Client) -> None:
        dialog = self._dialog
        dialog.say(*render.privacy(await client.privacy()))
        typing = await self._switched("Let others see that you are typing?")
        reads = await self._switched("Let others learn what you have read?")
        if typing is not None or reads is not None:
            dialog.say(*render.privacy(await client.privacy(typing=typing, read_receipts=reads)))

    async def _switched(self, question: str) -> bool | None:
        """Yes, no, or as it is."""
        answer = (await self._dialog.ask(f"{question} (yes, no; empty: as it is) ")).lower()
        return {"yes": True, "y": True, "no": False, "n": False}.get(answer)

    async def _doctor(self, client: Client) -> None:
        self._dialog.say(*render.findings(await client.doctor()))

    async def _invite(self, client: Client) -> None:
        days = await self._dialog.ask("For how many days? (1 to 30; empty: 7) ")
        if days and not (days.isdecimal() and 1 <= int(days) <= 30):
            raise UsageError(f"{days!r} is no number of days from 1 to 30.")
        self._dialog.say(*render.invited(await client.invite(days=int(days or 7))))

    async def _status(self, client: Client) -> None:
        self._dialog.say(*render.status(await client.status()))

    async def _login(self, client: Client) -> None:
        self._dialog.say(*render.logged_in(await client.login()))

    async def _switch(self, client: Client) -> None:
        raise Switch


async def be_let_in(dialog: Dialog, client: Client, asked: LinkRequest) -> str | None:
    """The new device's side of linking: shows its text, and takes the old one's answer; gives the username,
    or None when the person leaves it for later.
    """
    dialog.say(*render.link_request(asked, in_menu=True))
    while True:
        try:
            answer = await dialog.need("The old device's answer (empty: later): ")
            view = await _finished(dialog, client, answer)
        except Back:
            dialog.say("Start chatchain again once the old device has answered; the text stays the same.")
            return None
        except ChatchainError as error:
            dialog.error(error)
        else:
            dialog.say(*render.linked(view))
            return view.username


async def _finished(dialog: Dialog, client: Client, answer: str) -> Linked:
    """Takes an answer; asks what only now proves to be needed."""
    ask, without_history = None, False
    while True:
        try:
            return await client.finish_link(answer, without_history=without_history, account_password=ask)
        except WrongPassword as wrong:
            dialog.say(wrong.message)
            password = await dialog.secret("The account's password: ")
            if not password:
                raise Back from wrong
            ask = partial(str, password)
        except MissingInput as gone:
            dialog.say(gone.message)
            if without_history or not await dialog.agrees("Go on without contacts and messages?"):
                raise Back from gone
            without_history = True
