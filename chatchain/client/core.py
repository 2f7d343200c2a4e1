"""The client core's one face: what every user interface calls, and all that it may call.

A `Client` belongs to one home (one user of one network). It opens the home when a method first needs it, asks
for the password at most once, keeps one session with the relay for as long as it lives, and takes every
outside world from `Edges`. Methods answer with the structs of `views` and fail with the errors of
`chatchain.errors`. Each method says what is promised; the module of its area keeps it.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from chatchain.client import (
    compatibility,
    contacts,
    conversations,
    devices,
    doctor,
    files,
    governance,
    joining,
    linking,
    login,
    messaging,
    recovery,
    registration,
    takeover,
)
from chatchain.client.decisions import Wish
from chatchain.client.images import Picture
from chatchain.client.joining import INVITATION_DAYS
from chatchain.client.ports import Edges
from chatchain.client.recovery import Choose
from chatchain.client.station import Station
from chatchain.client.views import (
    CardView,
    ChatSettings,
    ContactView,
    Exported,
    Fetched,
    Finding,
    Invited,
    Joined,
    KeyView,
    LinkAccepted,
    Linked,
    LinkOffer,
    LinkRequest,
    LoggedIn,
    LoggedOut,
    MemberView,
    NamingOffer,
    PasswordChanged,
    PendingRecovery,
    PrivacyView,
    ProfileView,
    ProposalOffer,
    ProposalPrompt,
    ProposalView,
    Proposed,
    Recoverable,
    Recovered,
    RecoveryView,
    Registered,
    RsaKey,
    RsaOpened,
    RsaSealed,
    Sent,
    Shown,
    Status,
    TakeoverView,
    Vetoed,
    WalletPrompt,
    WhoAmI,
)
from chatchain.crypto.password import check_password
from chatchain.crypto.phrase import normalise_phrase
from chatchain.errors import ChatchainError


class Client:
    """One user's messenger, without a face."""

    def __init__(
        self,
        home: Path,
        edges: Edges,
        *,
        endpoints: Sequence[str] = (),
        directory: str = "",
        password: str | None = None,
        ask_password: Callable[[], str] | None = None,
    ) -> None:
        """`endpoints` and `directory` (from flags or environment) go before what `join` stored.

        `password` is one that is already at hand; `ask_password` is called, once, when one is needed and
        none is. Nothing is opened or read here.
        """
        self._station = Station(
            home,
            edges,
            endpoints=endpoints,
            directory=directory,
            password=password,
            ask_password=ask_password,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self._station.last_words()
        await self.close()

    async def close(self) -> None:
        """Ends the session and gives the home back; never raises, and may be called twice."""
        await self._station.close()

    # --- network and account ----------------------------------------------------------------------------

    async def join(self, link: str) -> Joined:
        """Checks a `chatchain://join?…` link against the chain that it names and stores it in the home."""
        return await joining.join(self._station, link)

    async def register(
        self,
        name: str,
        *,
        mnemonic: str | None = None,
        keystore: tuple[str, str] | None = None,
        on_phrase: Callable[[str], None] | None = None,
        invitation: str | None = None,
        recovery: str | None = None,
        new_secret: bool = False,
    ) -> Registered:
        """Makes an account, or with `mnemonic` brings one back, or goes on where a crash broke off.

        `keystore` is a keystore V3 text and its password: the account key comes from there and there is no
        phrase. `on_phrase` is called once with the 12 words of a new account before anything is sent; when it
        raises, nothing was sent; without it they stay in the encrypted database until `show_phrase`. Under
        policy `vote` the request to join is opened too. `invitation` is the text of a member's, instead of
        one that came with the join link. `recovery` names a new account's recovery address: an address, or a
        user.

        An account that exists comes back by a keystore without losing its other devices only if the file
        carries the account secret, as `export_keystore` writes it; else SecretElsewhere is raised, unless
        `new_secret`. In a home that is a linked device, a keystore brings the account's key.
        """
        return await registration.register(
            self._station,
            name,
            mnemonic=mnemonic,
            keystore=keystore,
            on_phrase=on_phrase,
            invitation=invitation,
            recovery=recovery,
            new_secret=new_secret,
        )

    @staticmethod
    def check_phrase(phrase: str) -> None:
        """Raises UsageError, which repeats no word of it, for a recovery phrase that cannot be one."""
        normalise_phrase(phrase)

    async def identify(self, mnemonic: str) -> Recoverable:
        """Whose account a recovery phrase belongs to; nothing is written. Raises UnknownUser."""
        return await recovery.identify(self._station, mnemonic)

    async def recover(
        self, mnemonic: str | None = None, *, choose: Choose = lambda _: (), veto: bool = False
    ) -> Recovered:
        """Brings an account back to a new home from its phrase: a further device, with this home's password.

        `choose` is called once, before anything is sent, and says which of the other devices are lost: they
        are revoked. With `veto` a pending recovery by the account's recovery address is refused first;
        without, it keeps any device from being added (RefusedError). May be repeated until it is done, then
        also without the phrase. Raises UnknownUser for a phrase that no account belongs to, AlreadyDone for a
        home that is somebody's.
        """
        return await recovery.recover(self._station, mnemonic, choose=choose, veto=veto)

    async def veto_recovery(self) -> Vetoed:
        """Refuses the pending recovery of this home's account; possible once in 30 days.

        Raises NotFoundError when none is pending, AccountKeyElsewhere in a linked home.
        """
        return await recovery.veto(self._station)

    async def pending_recovery(self) -> PendingRecovery | None:
        """The account that was proposed in the place of this one, as far as what was done here has shown;
        nobody is asked for that.
        """
        return await takeover.noticed(self._station)

    async def recovery_address(self) -> RecoveryView:
        """Who may propose another account for this home's user; needs no password."""
        return await takeover.show(self._station)

    async def offer_recovery_address(self, who: str | None) -> NamingOffer:
        """What naming somebody (an address, or a user) as recovery address would do, or nobody (None).

        Nothing is changed. Raises AlreadyDone where it would change nothing, UsageError for the account's
        own address, RefusedError while a recovery is pending.
        """
        return await takeover.offer_naming(self._station, who)

    async def set_recovery_address(self, to: str) -> RecoveryView:
        """Names the recovery address; an empty text names none.

        It counts at once where there was none or where it takes a waiting change back, else after 21 days.
        Raises AccountKeyElsewhere in a linked home.
        """
        return await takeover.name(self._station, to)

    async def offer_proposal(self, who: str, account: str, key: bytes | None = None) -> ProposalOffer:
        """What proposing another account for a user would do; nothing is changed.

        `key` is the recovery address's, where that is not the account of this home. Raises RefusedError for
        whoever is not the user's recovery address, UsageError for an account that is somebody's, AlreadyDone.
        """
        return await takeover.offer_proposal(self._station, who, account, key)

    async def ask_wallet_to_propose(self, who: str, account: str) -> ProposalPrompt:
        """Makes what a wallet that has the user's recovery address signs to propose another account.

        It is kept in this home, which is somebody's or waits to take over, until `propose_recovery` brings
        the signature; a later one takes its place.
        """
        return await takeover.ask_wallet(self._station, who, account)

    async def propose_recovery(
        self, who: str, account: str, key: bytes | None = None, *, signature: str | None = None
    ) -> Proposed:
        """Proposes another account for a user, as the user's recovery address; raises as `offer_proposal`.

        The word is given by the key of this home's account, by `key`, or by the `signature` (hex) of the
        wallet over what `ask_wallet_to_propose` gave.
        """
        return await takeover.propose(self._station, who, account, key, signature)

    @staticmethod
    async def key_of(*, mnemonic: str | None = None, keystore: tuple[str, str] | None = None) -> bytes:
        """The account key of a recovery phrase or a keystore V3 text; raises UsageError or WrongPassword."""
        return (await recovery.new_keys(mnemonic, keystore))[0].account_key

    async def begin_takeover(
        self,
        who: str,
        *,
        mnemonic: str | None = None,
        keystore: tuple[str, str] | None = None,
        on_phrase: Callable[[str], None] | None = None,
    ) -> TakeoverView:
        """Makes a home with a new account that is to take a user over; nothing is sent.

        `mnemonic`, `keystore` and `on_phrase` are as in `register`. May be repeated: it then says how things
        stand. Raises AlreadyDone for a home in other use, or an account that is somebody's.
        """
        return await takeover.begin(
            self._station, who, mnemonic=mnemonic, keystore=keystore, on_phrase=on_phrase
        )

    async def takeover(self) -> TakeoverView:
        """How the takeover stands that was begun in this home; needs no password. Raises NotFoundError."""
        return await takeover.waiting(self._station)

    async def finalise_takeover(self, *, choose: Choose = lambda _: ()) -> Recovered:
        """Takes over as was proposed, once the delay is past, and makes this home a device of the user's.

        `choose` as in `recover`. May be repeated until it is done, as `recover` may. Raises NotFoundError
        when the home's account is not proposed, RefusedError when another is, or it is too early.
        """
        return await takeover.finalise(self._station, choose=choose)

    async def require_free(self, name: str) -> None:
        """Raises what would keep a new account from having this name; nothing is sent, and no new home stays
        then.
        """
        await registration.require_free(self._station, name)

    @staticmethod
    def check_password(password: str, names: Iterable[str] = ()) -> None:
        """Raises UsageError, with advice, for a password that would not be accepted; `names` count as
        guesses.
        """
        check_password(password, names)

    async def invite(self, *, days: int = INVITATION_DAYS) -> Invited:
        """Signs an invitation that lets one newcomer register; nothing is sent, so nobody can take it back.

        Raises NotAMember where the relay would not take this user's word.
        """
        return await joining.invite(self._station, days=days)

    async def login(self, name: str | None = None) -> LoggedIn:
        """Proves password and device to the relay, publishes the keys and sends what was queued.

        A device whose record lacks a suite of this program, because an older one registered it, gets new keys
        with a record that lists all of them; should that fail, the login stands and the next one tries again.
        """
        return await login.login(self._station, name)

    async def logout(self) -> LoggedOut:
        """Ends the session with the relay; the keys stay."""
        return await login.logout(self._station)

    async def whoami(self) -> WhoAmI:
        """The account of this home; needs no password, and no chain but for the membership."""
        return await login.whoami(self._station)

    async def status(self) -> Status:
        """The account and its network; what lies in the database is told only if a password is at hand."""
        return await login.status(self._station)

    async def change_password(self, new: str) -> PasswordChanged:
        """Sets the verifier on chain and the vault of this home to a new password."""
        return await login.change_password(self._station, new)

    async def show_phrase(self, on_phrase: Callable[[str], None]) -> bool:
        """Hands over, once, the recovery phrase of a registration that had nobody to show it to.

        It is forgotten here afterwards, unless `on_phrase` raises. False: there is none here (any more).
        """
        return await login.show_phrase(self._station, on_phrase)

    # --- messages ---------------------------------------------------------------------------------------

    def send(
        self, to: str, texts: str | Iterable[str] | AsyncIterable[str], *, wait_s: float = 10.0
    ) -> AsyncIterator[Sent]:
        """Queues, encrypts and sends each text; yields each once it is ticked, or given up on after `wait_s`.

        A message without a tick is yielded as queued, a refused one as dropped, both with `error`; once
        everything is yielded, the first such error is raised (NoTick, RelayUnreachable, NotAMember …). What
        is wrong with the input (BadText, TooLarge, UnknownUser, KeyChanged) is raised before that text is
        stored, after the texts before it were settled. A plain iterable is taken as already in memory; what
        comes slowly belongs into an asynchronous one.
        """
        return messaging.send(self._station, to, texts, wait_s)

    def send_file(
        self, to: str, path: Path, caption: str = "", *, keep_metadata: bool = False, wait_s: float = 10.0
    ) -> AsyncIterator[Sent]:
        """Seals a file of at most 25 MB, uploads it and sends it; yields and raises as `send` does.

        `wait_s` counts from the last byte that moved. What is not uploaded by then is kept, sealed, and goes
        on with the next session. An image loses what it says of its taking, unless `keep_metadata`. Raises
        NoSuchFile, BadFile, TooLarge and RefusedError before anything is stored.
        """
        return messaging.send_file(self._station, to, path, caption, keep_metadata, wait_s)

    async def fetch_file(
        self, id: str, out: Path | None = None, *, overwrite: bool = False, preview: bool = False
    ) -> Fetched:
        """Brings the file of a message here, once; with `out` a copy of it goes there. With `preview` it is
        only the small picture that came inside the message.

        Raises UnknownMessage, NotFoundError when the relay keeps it no more, VerificationError when what the
        relay has is not the file, AlreadyDone rather than replace what is at `out`, BadFile when nothing can
        be written there.
        """
        return await messaging.fetch_file(self._station, id, out, overwrite, preview)

    async def picture(self, shown: Shown, width: int, height: int) -> Picture | None:
        """The preview inside a message as at most so many pixels, for a screen; None without a good one."""
        return await files.picture(self._station, shown, width, height)

    def reply(self, id: str, text: str, *, wait_s: float = 10.0) -> AsyncIterator[Sent]:
        """Answers a message; yields and raises as `send` does, as all of the following do.

        `id` is a message's id or the beginning of one, of at least 4 digits. Raises UnknownMessage,
        AmbiguousName, and RefusedError for a message that is not there any more.
        """
        return messaging.reply(self._station, id, text, wait_s)

    def edit(self, id: str, text: str, *, wait_s: float = 10.0) -> AsyncIterator[Sent]:
        """Gives an own message another text, within a day and ten times at most."""
        return messaging.edit(self._station, id, text, wait_s)

    def delete(self, id: str, *, wait_s: float = 10.0) -> AsyncIterator[Sent]:
        """Takes an own message back, here and everywhere, within two days."""
        return messaging.delete(self._station, id, wait_s)

    def react(self, id: str, emoji: str, *, wait_s: float = 10.0) -> AsyncIterator[Sent]:
        """Puts one emoji at a message, in place of the one before; an empty one takes it away."""
        return messaging.react(self._station, id, emoji, wait_s)

    async def typing(self, to: str, *, started: bool) -> bool:
        """Tells a peer that something is being typed, or is not any more; False while no session stands."""
        return await messaging.type_(self._station, to, started=started)

    async def chat_settings(
        self,
        peer: str,
        *,
        expires: int | None = None,
        off_the_record: bool | None = None,
        wait_s: float = 10.0,
    ) -> ChatSettings:
        """How the conversation with a peer is set; what is given is changed first, for both sides.

        Both keep a notice of a change. A change that could not be sent yet counts here already, and its
        obstacle is raised.
        """
        return await conversations.settings(self._station, peer, expires, off_the_record, wait_s)

    async def privacy(self, *, typing: bool | None = None, read_receipts: bool | None = None) -> PrivacyView:
        """What this device tells others of its own accord; what is given is changed first."""
        return await conversations.privacy(self._station, typing, read_receipts)

    async def profile(self, name: str | None = None) -> ProfileView:
        """The own display name; a `name` is set first (an empty one takes it away) and sent to the contacts.

        Raises BadText for a name that could deceive.
        """
        return await conversations.profile(self._station, name)

    def receive(
        self,
        *,
        wait_s: float = 0.0,
        follow: bool = False,
        count: int | None = None,
        typing: bool = False,
        outage: Callable[[ChatchainError | None], None] = lambda _: None,
        alarm: Callable[[PendingRecovery], None] = lambda _: None,
    ) -> AsyncIterator[Shown]:
        """Stores, acknowledges and yields what comes in; with `typing` also that somebody types.

        Ends once something was yielded and the mailbox is empty, after `wait_s` without anything, or after
        `count` messages; with `follow` only `count` or cancelling ends it, and a lost connection is made
        again: `outage` hears the reason when it is lost and None when it is back. `alarm` hears, again and
        again, of an account that was proposed in the place of this one.
        """
        return messaging.receive(self._station, wait_s, follow, count, typing, outage, alarm)

    async def history(self, peer: str, *, limit: int = 50, before: str | None = None) -> list[Shown]:
        """The last `limit` messages with a peer, oldest first; `before` (an id) turns the page.

        Whoever looks has read them: the peer learns it when this home connects next.
        """
        return await messaging.history(self._station, peer, limit, before)

    async def search(self, text: str, *, limit: int = 50, peer: str | None = None) -> list[Shown]:
        """Stored messages that contain every word of `text`, in themselves or their file's name, newest
        first; with `peer` those of one conversation.
        """
        return await messaging.search(self._station, text, limit, peer)

    # --- people -----------------------------------------------------------------------------------------

    async def contacts(self) -> list[ContactView]:
        """Everybody that this home has written with, added or verified."""
        return await contacts.contacts(self._station)

    async def add_contact(self, card: str) -> ContactView:
        """Checks a contact card against the chain and keeps the contact; it is not verified by that."""
        return await contacts.add_contact(self._station, card)

    async def own_card(self) -> CardView:
        """One's own contact card."""
        return await contacts.own_card(self._station)

    async def safety_number(self, peer: str) -> ContactView:
        """The safety number with a peer, to compare over another channel."""
        return await contacts.safety_number(self._station, peer)

    async def verify(self, peer: str, scanned: str | None = None) -> ContactView:
        """Marks a peer's present keys as compared, by a person or by the code scanned from the peer's screen;
        accepts them again after a change.
        """
        return await contacts.verify(self._station, peer, scanned)

    async def require_reachable(self, peer: str) -> None:
        """Raises what would keep a message to this peer from being sent, before anything is written."""
        await contacts.require_reachable(self._station, peer)

    # --- governance -------------------------------------------------------------------------------------

    async def members(self, group: str | None = None) -> list[MemberView]:
        """The members, in the order in which they joined."""
        return await governance.members(self._station, group)

    async def request(self, group: str | None = None) -> ProposalView:
        """Opens the proposal to admit this user."""
        return await governance.request(self._station, group)

    async def propose(self, kind: str, who: str, group: str | None = None) -> ProposalView:
        """Opens a proposal (`admit`, `expel`)."""
        return await governance.propose(self._station, kind, who, group)

    async def propose_wish(self, wish: Wish, group: str | None = None) -> ProposalView:
        """Opens a proposal to set something: rules, an office, relays, a successor (`client.decisions`)."""
        return await governance.propose_wish(self._station, wish, group)

    async def propose_pause(self, reason: str = "", *, end: bool = False) -> ProposalView:
        """Opens a proposal to pause the network, or to end its pause."""
        return await governance.propose_pause(self._station, reason, end=end)

    async def proposals(self, group: str | None = None, *, open_only: bool = False) -> list[ProposalView]:
        """The proposals, oldest first."""
        return await governance.proposals(self._station, group, open_only=open_only)

    async def vote(self, proposal: int, support: bool) -> ProposalView:
        """Casts this user's vote; the deciding vote carries the proposal out."""
        return await governance.vote(self._station, proposal, support)

    # --- linking ----------------------------------------------------------------------------------------

    async def link(self, name: str, *, again: bool = False) -> LinkRequest:
        """Makes this home ready to become a device of an account that exists, and gives the text to show.

        The same text comes again until it was answered, or until `again` begins anew. The password is the
        account's.
        """
        return await linking.ask(self._station, name, again=again)

    async def inspect_link(self, text: str) -> LinkOffer:
        """Reads a new device's text and says what accepting it would do; nothing is changed."""
        return await linking.inspect(self._station, text)

    async def ask_wallet(self, text: str) -> WalletPrompt:
        """Makes what a wallet that has the account's key signs to add the device of this text.

        It is kept here until `accept_link` brings the signature; a later one takes its place.
        """
        return await linking.ask_wallet(self._station, text)

    async def accept_link(
        self,
        text: str,
        *,
        file: Path | None = None,
        through_relay: bool = False,
        signature: str | None = None,
    ) -> LinkAccepted:
        """Adds the device to the account and gives the answer for it.

        Contacts and the newest messages are handed over, sealed, through the relay or in a new file. May be
        repeated: a device that the chain lists is not added again. Needs the account's key, or the
        `signature` (hex) of the wallet that has it over what `ask_wallet` gave.
        """
        return await linking.accept(
            self._station, text, file=file, through_relay=through_relay, signature=signature
        )

    async def finish_link(
        self,
        text: str,
        *,
        history: bytes | None = None,
        without_history: bool = False,
        account_password: Callable[[], str] | None = None,
    ) -> Linked:
        """Takes the old device's answer; this home is a device of the account then and publishes its keys.

        The history that was handed over comes from the relay, unless its sealed file is given.
        `account_password` is asked, three times at most, when this home was begun with another password than
        the account's: the chain's verifier tells nobody who lacks what the answer brings.
        """
        return await linking.finish(
            self._station,
            text,
            history=history,
            without_history=without_history,
            account_password=account_password,
        )

    # --- keys -------------------------------------------------------------------------------------------

    async def keys(self) -> list[KeyView]:
        """The devices of this account, as the chain lists them."""
        return await devices.keys(self._station)

    async def rotate_keys(self) -> KeyView:
        """Gives this device new keys, on chain and at the relay."""
        return await devices.rotate(self._station)

    async def revoke_device(self, device: int) -> KeyView:
        """Ends a device of this account for ever."""
        return await devices.revoke(self._station, device)

    async def publish_rsa(self) -> RsaKey:
        """Publishes an RSA-2048 key, to sign what is sealed for those who have nothing better."""
        return await compatibility.publish(self._station)

    async def seal_rsa(self, peer: str, text: str) -> RsaSealed:
        """Seals a text to a peer's RSA key; refused for whoever has a device for better encryption."""
        return await compatibility.seal(self._station, peer, text)

    async def open_rsa(self, text: str) -> RsaOpened:
        """Opens the text of a message that somebody sealed to this account's RSA key; refused between two who
        both have devices for better encryption.
        """
        return await compatibility.open_text(self._station, text)

    async def export_keystore(self, path: Path, password: str) -> Exported:
        """Writes the account key as a keystore V3 file (0600) under `password`; an existing file is not
        replaced.
        """
        return await login.export_keystore(self._station, path, password)

    async def doctor(self) -> list[Finding]:
        """Looks at home, chain, contracts, relay and account, and says what is wrong and what to do."""
        return await doctor.examine(self._station)
