"""The client core's one face: what every user interface calls, and all that it may call.

A `Client` belongs to one home (one user of one network). It opens the home when a method first needs it, asks
for the password at most once, keeps one session with the relay for as long as it lives, and takes every
outside world from `Edges`. Methods answer with the structs of `views` and fail with the errors of
`chatchain.errors`. Here the machines are wired; what they do is theirs.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Sequence,
)
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from chatchain.client import conversations, decisions, doctor, governance, linking, messaging
from chatchain.client.account import (
    PHRASE,
    Registration,
    Unlocked,
    change_password,
    holds,
    require_free,
    require_unfinished,
    unlock,
)
from chatchain.client.compatibility import Compatibility
from chatchain.client.contacts import find
from chatchain.client.decisions import Wish
from chatchain.client.devices import Devices, fingerprint_of, key_view
from chatchain.client.home import OwnAccount, require_folder, require_new, write_new
from chatchain.client.links import join_link, parse_join_link
from chatchain.client.ports import Edges, NetworkSettings
from chatchain.client.showing import contact_view, problem_of
from chatchain.client.station import LAST_WORDS_S, Desk, Station
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
    PasswordChanged,
    Problem,
    ProfileView,
    ProposalView,
    Registered,
    RsaKey,
    RsaSealed,
    Sent,
    Shown,
    Status,
    WhoAmI,
)
from chatchain.client.watch import Watch
from chatchain.crypto.card import decode_card, make_card, verify_card
from chatchain.crypto.keystore import export_keystore
from chatchain.crypto.password import check_password
from chatchain.errors import (
    AlreadyDone,
    BadRecord,
    ChainError,
    ChainUnreachable,
    ChatchainError,
    MissingInput,
    NetworkError,
    NoAccount,
    NotAMember,
    RefusedError,
    UnknownUser,
    UsageError,
)
from chatchain.identity.admission import INVITATION_ID_BYTES, Invitation, parse_invitation
from chatchain.identity.keys import parse_address, sign_digest, to_checksum
from chatchain.identity.names import normalise_username
from chatchain.identity.record import SUITES, decode_record
from chatchain.model import (
    Contact,
    DeviceState,
    Kind,
    Network,
    Policy,
    ProposalState,
    Uid,
    User,
)

INVITATION_DAYS: Final = 30
"""The longest that an invitation lasts; relays remember the used ones for so long."""


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
        settings = parse_join_link(link)
        account = self._station.home.account()
        if account is not None and parse_address(account.directory) != settings.directory:
            raise AlreadyDone(
                f"This home belongs to {account.username} of another network.",
                "Choose another --home or --user.",
            )
        with self._station.home.tentative():
            self._station.home.acquire()
            watch = Watch(self._station.edges.chain(settings, None))
            network = await watch.network()
            await watch.sync()
            group, relays = await watch.group(), await watch.relays()
            settings = msgspec.structs.replace(settings, chain_id=network.chain_id)
            self._station.home.put_network(settings)
        return Joined(
            rpc=settings.endpoints[0],
            directory=to_checksum(network.directory),
            endpoints=settings.endpoints,
            chain_id=network.chain_id,
            policy=group.policy.name.lower(),
            relay=relays[0].endpoint if relays else "",
        )

    async def register(
        self,
        name: str,
        *,
        mnemonic: str | None = None,
        keystore: tuple[str, str] | None = None,
        on_phrase: Callable[[str], None] | None = None,
        invitation: str | None = None,
    ) -> Registered:
        """Makes an account, or with `mnemonic` brings one back, or goes on where a crash broke off.

        `keystore` is a keystore V3 text and its password: the account key comes from there and there is no
        phrase. `on_phrase` is called once with the 12 words of a new account before anything is sent; when it
        raises, nothing was sent; without it they stay in the encrypted database until `show_phrase`. Under
        policy `vote` the request to join is opened too. `invitation` is the text of a member's, instead of
        one that came with the join link.
        """
        with self._station.home.tentative():
            settings, network, registration, unlocked = await self._prepared(
                name, mnemonic, keystore, invitation
            )
        try:
            phrase = unlocked.store.setting(PHRASE)
            if phrase is not None and on_phrase is not None:
                on_phrase(phrase.decode())
                unlocked.store.set_setting(PHRASE, None)
            self._station.home.put_network(msgspec.structs.replace(settings, chain_id=network.chain_id))
            made = await registration.carry_out(unlocked)
            self._station.home.put_network(
                msgspec.structs.replace(settings, chain_id=network.chain_id, invitation="")
            )
        finally:
            unlocked.store.close()
            await self._station.hang_up()
        self._station.just_changed()
        problem, proposal = await self._settle_in(made.user)
        user = made.user
        return Registered(
            username=user.username,
            uid=user.uid,
            account=to_checksum(user.account),
            device=made.device,
            tx=made.paid.tx,
            block=made.paid.block,
            member=await self._station.require_watch().is_member(user.uid),
            proposal=proposal,
            restored=made.restored,
            sponsored=made.paid.sponsored,
            problem=problem,
        )

    async def _prepared(
        self,
        name: str,
        mnemonic: str | None,
        keystore: tuple[str, str] | None,
        invitation: str | None,
    ) -> tuple[NetworkSettings, Network, Registration, Unlocked]:
        """Everything of a registration that comes before something is sent."""
        normalise_username(name)
        settings = self._station.settings()
        if invitation is not None:
            settings = msgspec.structs.replace(settings, invitation=parse_invitation(invitation).text())
        self._station.home.acquire()
        watch = Watch(self._station.edges.chain(settings, None))
        network = await watch.network()
        await watch.sync()
        registration = Registration(
            self._station.home,
            self._station.edges,
            watch,
            network,
            self._station.writer_for(settings, network),
            self._station.stranger(watch),
            parse_invitation(settings.invitation) if settings.invitation else None,
        )
        await registration.require_possible(name, restores=mnemonic is not None or keystore is not None)
        password = await self._station.require_password()
        unlocked = await registration.prepare(name, password, mnemonic=mnemonic, keystore=keystore)
        return settings, network, registration, unlocked

    async def require_free(self, name: str) -> None:
        """Raises what would keep a new account from having this name; nothing is sent, and no new home stays
        then.
        """
        username = normalise_username(name)
        with self._station.home.tentative():
            if (account := self._station.home.account()) is not None:
                require_unfinished(account)
            watch = Watch(self._station.edges.chain(self._station.settings(), None))
            await watch.sync()
            await require_free(watch, username)

    @staticmethod
    def check_password(password: str, names: Iterable[str] = ()) -> None:
        """Raises UsageError, with advice, for a password that would not be accepted; `names` count as
        guesses.
        """
        check_password(password, names)

    async def _settle_in(self, user: User) -> tuple[Problem | None, int | None]:
        """Publishes the keys and opens the request to join; the account stands even if that fails."""
        try:
            await self._station.desk()
            problem = None
            try:
                await self._station.publish(await self._station.connect())
            except NetworkError as unreachable:
                problem = problem_of(unreachable)
            watch = self._station.require_watch()
            group = await watch.group()
            # Before founders are seated there is nobody who could vote on a request.
            if group.policy is Policy.OPEN or not group.members or await watch.is_member(user.uid):
                return problem, None
            return problem, (await (await self._governance()).request(0)).id
        except (NetworkError, ChainError, RefusedError) as failed:
            return problem_of(failed), None

    async def invite(self, *, days: int = INVITATION_DAYS) -> Invited:
        """Signs an invitation that lets one newcomer register; nothing is sent, so nobody can take it back.

        Raises NotAMember where the relay would not take this user's word.
        """
        account = self._station.home.require_account()
        if not 1 <= days <= INVITATION_DAYS:
            raise UsageError(f"An invitation lasts 1 to {INVITATION_DAYS} days.")
        own = (await self._station.desk()).own
        watch = self._station.require_watch()
        me = await watch.user(Uid(account.uid))
        if me is None or not await watch.is_member(me.uid):
            raise NotAMember("Only members invite.")
        expires = int(self._station.edges.clock()) + days * 24 * 3600
        plain = Invitation(me.uid, os.urandom(INVITATION_ID_BYTES), expires, b"")
        signature = sign_digest(own.secrets.signer, plain.digest(own.network, me.epoch))
        text = msgspec.structs.replace(plain, signature=signature).text()
        settings = self._station.settings()
        link = join_link(msgspec.structs.replace(settings, chain_id=own.network.chain_id, invitation=text))
        time = datetime.fromtimestamp(expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return Invited(invitation=text, expires=time, join=link)

    async def login(self, name: str | None = None) -> LoggedIn:
        """Proves password and device to the relay, publishes the keys and sends what was queued.

        A device whose record lacks a suite of this program, because an older one registered it, gets new keys
        with a record that lists all of them; should that fail, the login stands and the next one tries again.
        """
        account = self._station.home.require_account()
        if name is not None and normalise_username(name.removeprefix("@")) != account.username:
            raise UsageError(
                f"This home belongs to {account.username}, not to {name}.", "Choose --user or --home."
            )
        desk = await self._station.desk()
        session = await self._station.connect()
        await self._station.publish(session)
        renewed, problem = None, None
        if desk.own.identity.party.record.suites & SUITES != SUITES:
            try:
                renewed = (await self.rotate_keys()).version
            except (ChainError, NetworkError, RefusedError) as failed:
                problem = problem_of(failed)
            desk, session = await self._station.desk(), await self._station.connect()
        await desk.courier.drained(LAST_WORDS_S)
        await desk.outbox.drained(LAST_WORDS_S)
        return LoggedIn(
            username=account.username,
            uid=account.uid,
            device=account.device,
            relay=session.link.relay.endpoint,
            waiting=session.waiting,
            renewed=renewed,
            problem=problem,
        )

    async def logout(self) -> LoggedOut:
        """Ends the session with the relay; the keys stay."""
        account = self._station.home.require_account()
        await self._station.disconnect()
        member = await self._is_member(account)
        return LoggedOut(account.username, account.uid, account.account, account.device, member)

    async def whoami(self) -> WhoAmI:
        """The account of this home; needs no password, and no chain but for the membership."""
        account = self._station.home.require_account()
        return WhoAmI(
            username=account.username,
            uid=account.uid,
            account=account.account,
            device=account.device,
            member=await self._is_member(account),
        )

    async def _is_member(self, account: OwnAccount) -> bool | None:
        """Whether the account has a seat; None while the chain cannot be asked."""
        try:
            return await (await self._station.public_watch()).is_member(Uid(account.uid))
        except ChainUnreachable:
            return None

    async def status(self) -> Status:
        """The account and its network; what lies in the database is told only if a password is at hand."""
        account = self._station.home.require_account()
        settings = self._station.settings()
        watch = await self._station.public_watch()
        network, group = await watch.network(), await watch.group()
        relays, proposals = await watch.relays(), await watch.proposals()
        store = self._station.unlocked.store if self._station.unlocked is not None else None
        return Status(
            username=account.username,
            uid=account.uid,
            account=account.account,
            device=account.device,
            member=any(member.uid == account.uid for member in group.members),
            rpc=settings.endpoints[0],
            directory=to_checksum(network.directory),
            chain_id=network.chain_id,
            block=watch.head,
            relay=relays[0].endpoint if relays else "",
            policy=group.policy.name.lower(),
            members=len(group.members),
            open_proposals=sum(proposal.state is ProposalState.OPEN for proposal in proposals),
            queued=store.count_queued() if store else None,
            unread=store.count_unread() if store else None,
        )

    async def change_password(self, new: str) -> PasswordChanged:
        """Sets the verifier on chain and the vault of this home to a new password."""
        desk = await self._station.desk()
        me = await desk.people.require(desk.own.uid)
        payer = self._station.payer(me)
        if not holds(me, desk.unlocked.secrets):
            # Changed on another device, so no login is possible; the account's own signature is what counts.
            await self._station.disconnect()
            payer = self._station.payer(me, self._station.stranger(self._station.require_watch()))
        secrets, paid = await change_password(
            self._station.home,
            self._station.edges,
            self._station.require_watch(),
            desk.own.network,
            payer,
            me,
            desk.unlocked,
            new,
        )
        self._station.adopt(replace(desk.unlocked, secrets=secrets, from_next=False), new)
        await self._station.disconnect()
        self._station.just_changed()
        key = key_view(me.devices[desk.own.device - 1], here=True)
        return PasswordChanged(me.username, me.uid, paid.tx, paid.block, key.device, key.version, key.state)

    async def show_phrase(self, on_phrase: Callable[[str], None]) -> bool:
        """Hands over, once, the recovery phrase of a registration that had nobody to show it to.

        It is forgotten here afterwards, unless `on_phrase` raises. False: there is none here (any more).
        """
        store = await self._station.store()
        phrase = store.setting(PHRASE)
        if phrase is None:
            return False
        on_phrase(phrase.decode())
        store.set_setting(PHRASE, None)
        return True

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

    async def fetch_file(self, id: str, out: Path | None = None, *, overwrite: bool = False) -> Fetched:
        """Brings the file of a message here, once; with `out` a copy of it goes there.

        Raises UnknownMessage, NotFoundError when the relay keeps it no more, VerificationError when what the
        relay has is not the file, AlreadyDone rather than replace what is at `out`.
        """
        return await messaging.fetch_file(self._station, id, out, overwrite)

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
    ) -> AsyncIterator[Shown]:
        """Stores, acknowledges and yields what comes in; with `typing` also that somebody types.

        Ends once something was yielded and the mailbox is empty, after `wait_s` without anything, or after
        `count` messages; with `follow` only `count` or cancelling ends it, and a lost connection is made
        again: `outage` hears the reason when it is lost and None when it is back.
        """
        return messaging.receive(self._station, wait_s, follow, count, typing, outage)

    async def history(self, peer: str, *, limit: int = 50, before: str | None = None) -> list[Shown]:
        """The last `limit` messages with a peer, oldest first; `before` (an id) turns the page.

        Whoever looks has read them: the peer learns it when this home connects next.
        """
        return await messaging.history(self._station, peer, limit, before)

    async def search(self, text: str, *, limit: int = 50) -> list[Shown]:
        """Stored messages that contain every word of `text`, newest first."""
        return await messaging.search(self._station, text, limit)

    # --- people -----------------------------------------------------------------------------------------

    async def contacts(self) -> list[ContactView]:
        """Everybody that this home has written with, added or verified."""
        desk = await self._station.desk()
        me = await desk.people.require(desk.own.uid)
        views = []
        for contact in desk.unlocked.store.contacts():
            user = await self._station.require_watch().user(contact.uid)
            if user is not None:
                views.append(self._contact_view(desk, me, user, contact))
        return views

    async def add_contact(self, card: str) -> ContactView:
        """Checks a contact card against the chain and keeps the contact; it is not verified by that."""
        try:
            read = decode_card(card)
        except BadRecord as unreadable:  # nothing was signed that could fail to verify
            raise UsageError(unreadable.message, "Copy the card again, whole.") from unreadable
        desk = await self._station.desk()
        user = await desk.people.require(read.uid)
        verify_card(read, desk.own.network, user)
        if user.uid == desk.own.uid:
            raise UsageError("This is your own card; it is for others.")
        me = await desk.people.require(desk.own.uid)
        return self._contact_view(desk, me, user, desk.people.remember(user))

    async def own_card(self) -> CardView:
        """One's own contact card."""
        desk = await self._station.desk()
        me = await desk.people.require(desk.own.uid)
        return CardView(
            card=make_card(desk.own.network, me, desk.own.device, desk.own.version, desk.own.secrets),
            username=me.username,
            uid=me.uid,
            account=to_checksum(me.account),
            fingerprint=key_view(me.devices[desk.own.device - 1], here=True).fingerprint,
            verified=True,
        )

    async def safety_number(self, peer: str) -> ContactView:
        """The safety number with a peer, to compare over another channel."""
        desk = await self._station.desk()
        me, user = await desk.people.require(desk.own.uid), await self._somebody_else(desk, peer)
        return self._contact_view(desk, me, user, desk.people.known(user))

    async def verify(self, peer: str) -> ContactView:
        """Marks a peer's present keys as compared; accepts them again after a change."""
        desk = await self._station.desk()
        me, user = await desk.people.require(desk.own.uid), await self._somebody_else(desk, peer)
        contact = await desk.people.verify(user)
        desk.outbox.stale(user.uid)
        return self._contact_view(desk, me, user, contact)

    @staticmethod
    def _contact_view(desk: Desk, me: User, user: User, contact: Contact) -> ContactView:
        return contact_view(me, user, contact, desk.unlocked.store.peer(user.uid).display_name)

    async def require_reachable(self, peer: str) -> None:
        """Raises what would keep a message to this peer from being sent, before anything is written."""
        desk = await self._station.desk()
        await desk.outbox.check(await self._somebody_else(desk, peer))

    async def _somebody_else(self, desk: Desk, peer: str) -> User:
        user = await desk.people.find(peer)
        if user.uid == desk.own.uid:
            raise UsageError("That is you; name somebody else.", "`chatchain members` lists the others.")
        return user

    # --- governance -------------------------------------------------------------------------------------

    async def members(self, group: str | None = None) -> list[MemberView]:
        """The members, in the order in which they joined."""
        watch = await self._station.public_watch()
        return await governance.members(watch, await governance.group_number(watch, group))

    async def request(self, group: str | None = None) -> ProposalView:
        """Opens the proposal to admit this user."""
        bench = await self._governance()
        return await bench.request(await governance.group_number(bench.watch, group))

    async def propose(self, kind: str, who: str, group: str | None = None) -> ProposalView:
        """Opens a proposal (`admit`, `expel`)."""
        known = governance.KINDS.get(kind.lower())
        if known is None:
            raise UsageError(f"There is no proposal to {kind}.", f"Known: {', '.join(governance.KINDS)}.")
        bench = await self._governance()
        number = await governance.group_number(bench.watch, group)
        return await bench.propose(number, known, await find(bench.watch, who))

    async def propose_wish(self, wish: Wish, group: str | None = None) -> ProposalView:
        """Opens a proposal to set something: rules, an office, relays, a successor (`client.decisions`)."""
        bench = await self._governance()
        return await bench.propose_wish(await governance.group_number(bench.watch, group), wish)

    async def propose_pause(self, reason: str = "", *, end: bool = False) -> ProposalView:
        """Opens a proposal to pause the network, or to end its pause."""
        why = decisions.reason(reason)
        return await (await self._governance()).propose_pause(Kind.UNPAUSE if end else Kind.PAUSE, why)

    async def proposals(self, group: str | None = None, *, open_only: bool = False) -> list[ProposalView]:
        """The proposals, oldest first."""
        watch = await self._station.public_watch()
        number = await governance.group_number(watch, group)
        account = self._station.home.account()
        me = Uid(account.uid) if account is not None and account.uid else None
        return [
            await governance.proposal_view(watch, proposal, me)
            for proposal in await watch.proposals(number)
            if not open_only or proposal.state is ProposalState.OPEN
        ]

    async def vote(self, proposal: int, support: bool) -> ProposalView:
        """Casts this user's vote; the deciding vote carries the proposal out."""
        return await (await self._governance()).vote(proposal, support)

    async def _governance(self) -> governance.Governance:
        desk = await self._station.desk()
        me = await desk.people.require(desk.own.uid)
        return governance.Governance(
            own=desk.own,
            me=me,
            watch=self._station.require_watch(),
            calls=self._station.edges.calls,
            payer=self._station.payer(me),
            account_key=self._station.account_key,
            now=self._station.edges.clock,
        )

    # --- linking ----------------------------------------------------------------------------------------

    async def link(self, name: str, *, again: bool = False) -> LinkRequest:
        """Makes this home ready to become a device of an account that exists, and gives the text to show.

        The same text comes again until it was answered, or until `again` begins anew. The password is the
        account's.
        """
        normalise_username(name)
        with self._station.home.tentative():
            settings = self._station.settings()
            self._station.home.acquire()
            watch = Watch(self._station.edges.chain(settings, None))
            network = await watch.network()
            await watch.sync()
            if (account := self._station.home.account()) is not None:
                linking.require_linkable(account, normalise_username(name))
            password = await self._station.require_password()
            newcomer = linking.Newcomer(self._station.home, self._station.edges, watch, network)
            asked = await newcomer.ask(name, password, again=again)
            self._station.home.put_network(msgspec.structs.replace(settings, chain_id=network.chain_id))
        record = decode_record(asked.request.record)
        return LinkRequest(
            request=asked.request.encode(),
            code=linking.code(asked.request),
            username=asked.account.username,
            uid=asked.uid,
            device=asked.device,
            version=record.version,
            state="waiting",
            fingerprint=fingerprint_of(record),
        )

    async def inspect_link(self, text: str) -> LinkOffer:
        """Reads a new device's text and says what accepting it would do; nothing is changed."""
        host = await self._host()
        asked, record = host.inspect(text)
        return LinkOffer(
            code=linking.code(asked),
            username=host.me.username,
            device=record.device,
            signer=to_checksum(record.signer),
            fingerprint=fingerprint_of(record),
            added=len(host.me.devices) >= record.device,
        )

    async def accept_link(
        self, text: str, *, file: Path | None = None, through_relay: bool = False
    ) -> LinkAccepted:
        """Adds the device to the account and gives the answer for it.

        Contacts and the newest messages are handed over, sealed, through the relay or in a new file. May be
        repeated: a device that the chain lists is not added again. Needs the account's key.
        """
        host = await self._host()
        self._station.account_key()
        asked, record = host.inspect(text)
        packed = None
        if file is not None:
            require_new(file)
        if file is not None or through_relay:
            packed = await asyncio.to_thread(host.pack)
        if packed is not None and through_relay:
            await host.leave(packed)
        paid = await host.admit(asked, record)
        if packed is not None and file is not None:
            write_new(file, packed.blob)
        await self._station.forget_desk()
        return LinkAccepted(
            answer=host.answer(asked, packed),
            code=linking.code(asked),
            username=host.me.username,
            uid=host.me.uid,
            device=record.device,
            version=record.version,
            state=DeviceState.ACTIVE.name.lower(),
            history=str(file) if file is not None else None,
            contacts=packed.contacts if packed is not None else 0,
            messages=packed.messages if packed is not None else 0,
            tx=paid.tx if paid is not None else None,
        )

    async def finish_link(
        self, text: str, *, history: bytes | None = None, without_history: bool = False
    ) -> Linked:
        """Takes the old device's answer; this home is a device of the account then and publishes its keys.

        The history that was handed over comes from the relay, unless its sealed file is given.
        """
        home = self._station.home
        account = home.account()
        if account is None or account.uid or not account.linked:
            raise NoAccount(
                "This home does not wait for an answer.",
                "On the new device, begin with `chatchain link NAME`.",
            )
        settings = self._station.settings()
        home.acquire()
        password = await self._station.require_password()
        unlocked = await asyncio.to_thread(unlock, home, self._station.edges, password)
        try:
            watch = Watch(self._station.edges.chain(settings, None))
            await watch.sync()
            newcomer = linking.Newcomer(home, self._station.edges, watch, await watch.network())
            moved = await newcomer.move_in(unlocked, password, text, history, without=without_history)
        finally:
            unlocked.store.close()
        self._station.just_changed()
        problem, _ = await self._settle_in(moved.user)
        device = moved.user.devices[moved.account.device - 1]
        return Linked(
            username=moved.user.username,
            uid=moved.user.uid,
            account=to_checksum(moved.user.account),
            device=device.device,
            version=device.current.version,
            state=device.state.name.lower(),
            contacts=moved.contacts,
            messages=moved.messages,
            problem=problem,
        )

    async def _host(self) -> linking.Host:
        desk = await self._station.desk()
        me = await desk.people.require(desk.own.uid)
        return linking.Host(
            own=desk.own,
            me=me,
            unlocked=desk.unlocked,
            watch=self._station.require_watch(),
            edges=self._station.edges,
            payer=self._station.payer(me),
            account_key=self._station.account_key,
        )

    # --- keys -------------------------------------------------------------------------------------------

    async def keys(self) -> list[KeyView]:
        """The devices of this account, as the chain lists them."""
        account = self._station.home.require_account()
        watch = await self._station.public_watch()
        user = await watch.user(Uid(account.uid))
        if user is None:
            raise UnknownUser(f"The chain does not know {account.username}.")
        return [key_view(device, here=device.device == account.device) for device in user.devices]

    async def rotate_keys(self) -> KeyView:
        """Gives this device new keys, on chain and at the relay."""
        view = await (await self._devices()).rotate()
        await self._station.forget_desk()
        await self._station.desk()
        with messaging.made_up_for_later():
            await self._station.publish(await self._station.connect())
        return view

    async def revoke_device(self, device: int) -> KeyView:
        """Ends a device of this account for ever."""
        view = await (await self._devices()).revoke(device)
        await self._station.forget_desk()
        return view

    async def _devices(self) -> Devices:
        desk = await self._station.desk()
        me = await desk.people.require(desk.own.uid)
        return Devices(
            own=desk.own,
            me=me,
            store=desk.unlocked.store,
            watch=self._station.require_watch(),
            calls=self._station.edges.calls,
            payer=self._station.payer(me),
            account_key=self._station.account_key,
            now=self._station.edges.clock,
        )

    async def publish_rsa(self) -> RsaKey:
        """Publishes an RSA-2048 key, to sign what is sealed for those who have nothing better."""
        return await (await self._compatibility()).publish()

    async def seal_rsa(self, peer: str, text: str) -> RsaSealed:
        """Seals a text to a peer's RSA key; refused for whoever has a device for better encryption."""
        desk = await self._station.desk()
        user = await self._somebody_else(desk, peer)
        await desk.people.vet(user)  # who hides a peer's devices could bring us down to this
        return await (await self._compatibility()).seal(user, text)

    async def _compatibility(self) -> Compatibility:
        desk = await self._station.desk()
        me = await desk.people.require(desk.own.uid)
        return Compatibility(
            own=desk.own,
            me=me,
            store=desk.unlocked.store,
            watch=self._station.require_watch(),
            calls=self._station.edges.calls,
            payer=self._station.payer(me),
            account_key=self._station.account_key,
            now=self._station.edges.clock,
        )

    async def export_keystore(self, path: Path, password: str) -> Exported:
        """Writes the account key as a keystore V3 file (0600) under `password`; an existing file is not
        replaced.
        """
        if not password:
            raise MissingInput("The exported file needs a password.")
        account = self._station.home.require_account()
        require_folder(path)
        await self._station.open(exclusive=False)
        text = await asyncio.to_thread(export_keystore, self._station.account_key(), password)
        write_new(path, text.encode())
        key = await self._own_key(account)
        return Exported(
            str(path),
            account.account,
            account.device,
            key.version if key is not None else None,
            key.state if key is not None else None,
        )

    async def _own_key(self, account: OwnAccount) -> KeyView | None:
        """This home's device as the chain lists it; None while the chain cannot be asked."""
        try:
            user = await (await self._station.public_watch()).user(Uid(account.uid))
        except ChainUnreachable:
            return None
        return key_view(user.devices[account.device - 1], here=True) if user is not None else None

    async def doctor(self) -> list[Finding]:
        """Looks at home, chain, contracts, relay and account, and says what is wrong and what to do."""
        findings = [doctor.home_is_private(self._station.home), doctor.post_quantum()]
        try:
            settings = self._station.settings()
            watch = Watch(self._station.edges.chain(settings, None))
        except ChatchainError as failed:
            return [*findings, doctor.trouble("network", failed)]
        findings += await doctor.chain(watch, settings)
        if all(finding.ok for finding in findings[2:]):
            findings.append(await doctor.relay(watch, self._station.edges.dial, self._station.now_ms))
        account = self._station.home.account()
        if account is None or not account.uid:
            findings.append(
                Finding(
                    "account", ok=True, detail="There is no account here yet.", hint="chatchain register NAME"
                )
            )
        elif all(finding.ok for finding in findings[2:]):
            findings.append(await doctor.attempt("account", lambda: self._account_holds(account)))
        return findings

    async def _account_holds(self, account: OwnAccount) -> str:
        """Whether the chain lists this home's device, its events are whole, and (with a password) the login
        holds.
        """
        watch = await self._station.public_watch()
        user = await find(watch, account.account)
        await watch.confirm(user.uid)
        if self._station.password is None:
            return f"{user.username} is registered; without a password the login was not tried."
        session = await self._station.connect()
        return f"{user.username} logs in as device {account.device}; {session.waiting} deliveries wait."
