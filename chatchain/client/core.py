"""The client core's one face: what every user interface calls, and all that it may call.

A `Client` belongs to one home (one user of one network). It opens the home when a method first needs it, asks
for the password at most once, keeps one session with the relay for as long as it lives, and takes every
outside world from `Edges`. Methods answer with the structs of `views` and fail with the errors of
`chatchain.errors`. Here the machines are wired; what they do is theirs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from chatchain.client import doctor, governance
from chatchain.client.account import (
    PHRASE,
    Registration,
    Unlocked,
    account_key,
    change_password,
    holds,
    reconcile_password,
    unlock,
)
from chatchain.client.contacts import People, changes, find
from chatchain.client.devices import Devices, key_view
from chatchain.client.home import Home, OwnAccount, write_private
from chatchain.client.inbox import Inbox
from chatchain.client.links import check_endpoint, parse_join_link
from chatchain.client.outbox import Outbox, Outcome
from chatchain.client.own import Own, load_own
from chatchain.client.paying import Payer
from chatchain.client.ports import ChainWriter, Edges, NetworkSettings, Store
from chatchain.client.session import Credentials, Session
from chatchain.client.views import (
    CardView,
    ContactView,
    Exported,
    Finding,
    Joined,
    KeyView,
    LoggedIn,
    LoggedOut,
    MemberView,
    PasswordChanged,
    Problem,
    ProposalView,
    Registered,
    Sent,
    Shown,
    Status,
    WhoAmI,
)
from chatchain.client.watch import Watch
from chatchain.crypto import content as contents
from chatchain.crypto.bundle import make_bundle
from chatchain.crypto.card import decode_card, make_card, verify_card
from chatchain.crypto.keystore import export_keystore
from chatchain.crypto.safety import safety_number, spaced
from chatchain.errors import (
    AlreadyDone,
    BadConfig,
    BadText,
    CertificateMismatch,
    ChainError,
    ChatchainError,
    HomeBusy,
    LoginRefused,
    MissingInput,
    NetworkError,
    NoTick,
    RefusedError,
    TooLarge,
    UnknownMessage,
    UnknownUser,
    UsageError,
    WrongChain,
)
from chatchain.identity.keys import parse_address, to_checksum
from chatchain.identity.names import normalise_username
from chatchain.model import (
    Contact,
    DeviceId,
    Direction,
    MessageState,
    Network,
    Policy,
    ProposalState,
    StoredMessage,
    Uid,
    User,
)

CHUNK: Final = 64
"""Texts that are stored in one transaction, and deliveries that are."""

AHEAD: Final = 512
"""Own messages that may wait for their verdict before more input is read."""

REPUBLISH_S: Final = 24 * 3600
"""How old a published key bundle may get before a session publishes it anew."""

LAST_WORDS_S: Final = 3.0
"""How long a command that is done waits for receipts and earlier messages to get their ticks."""

QUIET_S: Final = 2.0
"""A mailbox that announced more than it delivers counts as empty after this long."""

RELAY_CATCHES_UP_S: Final = 10.0
"""How long after a change of one's own the relay may not have seen its block yet."""

RETRY_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Pauses between attempts to connect; the last one repeats."""


@dataclass(frozen=True)
class _Desk:
    """The machines at work for an opened home."""

    unlocked: Unlocked
    own: Own
    people: People
    outbox: Outbox
    inbox: Inbox


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
        self._home = Home(home)
        self._edges = edges
        self._endpoints = tuple(endpoints)
        self._directory = directory
        self._password = password
        self._ask_password = ask_password
        self._unlocked: Unlocked | None = None
        self._watch: Watch | None = None
        self._writer: ChainWriter | None = None
        self._desk_: _Desk | None = None
        self._session: Session | None = None
        self._connecting = asyncio.Lock()
        self._opening = asyncio.Lock()
        self._changed_at = -RELAY_CATCHES_UP_S
        self._offline: ChatchainError | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, NoTick):
            await self._last_words()
        await self.close()

    async def close(self) -> None:
        """Ends the session and gives the home back; never raises, and may be called twice."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._disconnect()
        if self._unlocked is not None:
            with suppress(ChatchainError):
                self._unlocked.store.close()
            self._unlocked = None
        self._desk_ = None
        self._watch = None
        self._home.release()

    # --- network and account ----------------------------------------------------------------------------

    async def join(self, link: str) -> Joined:
        """Checks a `chatchain://join?…` link against the chain that it names and stores it in the home."""
        settings = parse_join_link(link)
        account = self._home.account()
        if account is not None and parse_address(account.directory) != settings.directory:
            raise AlreadyDone(
                f"This home belongs to {account.username} of another network.",
                "Choose another --home or --user.",
            )
        self._home.acquire()
        watch = Watch(self._edges.chain(settings, None))
        network = await watch.network()
        await watch.sync()
        group, relays = await watch.group(), await watch.relays()
        settings = msgspec.structs.replace(settings, chain_id=network.chain_id)
        self._home.put_network(settings)
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
    ) -> Registered:
        """Makes an account, or with `mnemonic` brings one back, or goes on where a crash broke off.

        `keystore` is a keystore V3 text and its password: the account key comes from there and there is no
        phrase. `on_phrase` is called once with the 12 words of a new account before anything is sent; when it
        raises, nothing was sent; without it they stay in the encrypted database until `show_phrase`. Under
        policy `vote` the request to join is opened too.
        """
        normalise_username(name)
        settings = self._settings()
        self._home.acquire()
        watch = Watch(self._edges.chain(settings, None))
        network = await watch.network()
        await watch.sync()
        registration = Registration(
            self._home,
            self._edges,
            watch,
            network,
            self._writer_for(settings, network),
            self._stranger(watch),
        )
        unlocked = await registration.prepare(
            name, await self._require_password(), mnemonic=mnemonic, keystore=keystore
        )
        try:
            phrase = unlocked.store.setting(PHRASE)
            if phrase is not None and on_phrase is not None:
                on_phrase(phrase.decode())
                unlocked.store.set_setting(PHRASE, None)
            self._home.put_network(msgspec.structs.replace(settings, chain_id=network.chain_id))
            made = await registration.carry_out(unlocked)
        finally:
            unlocked.store.close()
            await self._hang_up()
        self._just_changed()
        problem, proposal = await self._settle_in(made.user)
        user = made.user
        return Registered(
            username=user.username,
            uid=user.uid,
            account=to_checksum(user.account),
            device=made.device,
            tx=made.paid.tx,
            block=made.paid.block,
            member=await self._require_watch().is_member(user.uid),
            proposal=proposal,
            restored=made.restored,
            sponsored=made.paid.sponsored,
            problem=problem,
        )

    async def _settle_in(self, user: User) -> tuple[Problem | None, int | None]:
        """Publishes the keys and opens the request to join; the account stands even if that fails."""
        try:
            await self._desk()
            problem = None
            try:
                await self._publish(await self._connect())
            except NetworkError as unreachable:
                problem = _problem(unreachable)
            watch = self._require_watch()
            group = await watch.group()
            # Before founders are seated there is nobody who could vote on a request.
            if group.policy is Policy.OPEN or not group.members or await watch.is_member(user.uid):
                return problem, None
            return problem, (await (await self._governance()).request(0)).id
        except (NetworkError, ChainError, RefusedError) as failed:
            return _problem(failed), None

    async def login(self, name: str | None = None) -> LoggedIn:
        """Proves password and device to the relay, publishes the key bundle and sends what was queued."""
        account = self._home.require_account()
        if name is not None and normalise_username(name.removeprefix("@")) != account.username:
            raise UsageError(
                f"This home belongs to {account.username}, not to {name}.", "Choose --user or --home."
            )
        desk = await self._desk()
        session = await self._connect()
        await self._publish(session)
        await desk.outbox.drained(LAST_WORDS_S)
        return LoggedIn(
            username=account.username,
            uid=account.uid,
            device=account.device,
            relay=session.link.relay.endpoint,
            waiting=session.waiting,
        )

    async def logout(self) -> LoggedOut:
        """Ends the session with the relay; the keys stay."""
        account = self._home.require_account()
        await self._disconnect()
        return LoggedOut(account.username, account.uid)

    async def whoami(self) -> WhoAmI:
        """The account of this home; needs no password."""
        account = self._home.require_account()
        watch = await self._public_watch()
        return WhoAmI(
            username=account.username,
            uid=account.uid,
            account=account.account,
            device=account.device,
            member=await watch.is_member(Uid(account.uid)),
        )

    async def status(self) -> Status:
        """The account and its network; what lies in the database is told only if a password is at hand."""
        account = self._home.require_account()
        settings = self._settings()
        watch = await self._public_watch()
        network, group = await watch.network(), await watch.group()
        relays, proposals = await watch.relays(), await watch.proposals()
        store = self._unlocked.store if self._unlocked is not None else None
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
        desk = await self._desk()
        me = await desk.people.require(desk.own.uid)
        payer = self._payer(me)
        if not holds(me, desk.unlocked.secrets):
            # Changed on another device, so no login is possible; the account's own signature is what counts.
            await self._disconnect()
            payer = self._payer(me, self._stranger(self._require_watch()))
        secrets, paid = await change_password(
            self._home,
            self._edges,
            self._require_watch(),
            desk.own.network,
            payer,
            me,
            desk.unlocked,
            new,
        )
        self._password = new
        self._unlocked = replace(desk.unlocked, secrets=secrets, from_next=False)
        self._desk_ = replace(desk, unlocked=self._unlocked)
        await self._disconnect()
        self._just_changed()
        return PasswordChanged(me.username, me.uid, paid.tx, paid.block)

    async def show_phrase(self, on_phrase: Callable[[str], None]) -> bool:
        """Hands over, once, the recovery phrase of a registration that had nobody to show it to.

        It is forgotten here afterwards, unless `on_phrase` raises. False: there is none here (any more).
        """
        store = await self._store()
        phrase = store.setting(PHRASE)
        if phrase is None:
            return False
        on_phrase(phrase.decode())
        store.set_setting(PHRASE, None)
        return True

    # --- messages ---------------------------------------------------------------------------------------

    async def send(
        self, to: str, texts: str | Iterable[str] | AsyncIterable[str], *, wait_s: float = 10.0
    ) -> AsyncIterator[Sent]:
        """Queues, encrypts and sends each text; yields each once it is ticked, or given up on after `wait_s`.

        A message without a tick is yielded as queued, a refused one as dropped, both with `error`; once
        everything is yielded, the first such error is raised (NoTick, RelayUnreachable, NotAMember …). What
        is wrong with the input (BadText, TooLarge, UnknownUser, KeyChanged) is raised before that text is
        stored, after the texts before it were settled. A plain iterable is taken as already in memory; what
        comes slowly belongs into an asynchronous one.
        """
        if isinstance(texts, str):
            contents.text(texts)
        desk = await self._desk()
        peer = await desk.people.find(to)
        if peer.uid == desk.own.uid:
            raise UsageError("That is you; a message needs somebody else.")
        await desk.outbox.check(peer)
        with _later():
            await self._connect()
        keeper = asyncio.create_task(self._keep_connected())
        first: ChatchainError | None = None
        waiting: deque[tuple[StoredMessage, float]] = deque()
        flaw: ChatchainError | None = None
        try:
            async with aclosing(_chunks(texts, CHUNK)) as chunks:
                async for chunk in chunks:
                    good, flaw = _good(chunk)
                    if good:
                        desk.people.remember(peer)
                        session = self._session if self._session is not None and self._session.alive else None
                        now = asyncio.get_running_loop().time()
                        waiting.extend(
                            (message, now) for message in await desk.outbox.add(peer, good, session)
                        )
                    while waiting and (len(waiting) > AHEAD or desk.outbox.outcome(waiting[0][0].id).done()):
                        sent = await self._settled(desk, peer, *waiting.popleft(), wait_s)
                        first = first or sent[1]
                        yield sent[0]
                    if flaw is not None:
                        break
            while waiting:
                sent = await self._settled(desk, peer, *waiting.popleft(), wait_s)
                first = first or sent[1]
                yield sent[0]
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        if flaw is not None or first is not None:
            raise flaw or first or AssertionError

    async def _settled(
        self, desk: _Desk, peer: User, message: StoredMessage, since: float, wait_s: float
    ) -> tuple[Sent, ChatchainError | None]:
        """Waits for the verdict about one message, as long as verdicts keep coming."""
        loop = asyncio.get_running_loop()
        future = desk.outbox.outcome(message.id)
        while not future.done():
            left = max(since, desk.outbox.progress) + wait_s - loop.time()
            hopeless = self._offline is not None and not isinstance(self._offline, NetworkError)
            if left <= 0 or hopeless or isinstance(self._offline, CertificateMismatch):
                break
            await asyncio.wait([future], timeout=min(left, 0.25) if self._offline else left)
        if future.done():
            outcome = future.result()
        else:
            outcome = Outcome(
                MessageState.QUEUED, self._offline or NoTick("The relay has not confirmed in time.")
            )
        desk.outbox.forget(message.id)
        error = outcome.error
        view = Sent(
            id=message.id.hex(),
            to=peer.username,
            state=outcome.state.value,
            time=_time(message.time_ms),
            error=_problem(error) if error is not None else None,
        )
        return view, error

    async def receive(
        self, *, wait_s: float = 0.0, follow: bool = False, count: int | None = None
    ) -> AsyncIterator[Shown]:
        """Stores, acknowledges and yields what comes in.

        Ends once something was yielded and the mailbox is empty, after `wait_s` without anything, or after
        `count` messages; with `follow` only `count` or cancelling ends it, and a lost connection is made
        again.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        desk = await self._desk()
        shown = 0
        # What was stored and not yet shown when an earlier run ended.
        while batch := desk.unlocked.store.unshown(CHUNK if count is None else min(CHUNK, count - shown)):
            for message in batch:
                yield await self._shown(message)
                desk.unlocked.store.mark_shown(message.row)
                shown += 1
            if count is not None and shown >= count:
                return
        attempt = 0
        while True:
            try:
                session = await self._connect()
                attempt = 0
                await session.receive()
                self._background(self._publish(session))
                while True:
                    if (
                        not follow
                        and session.announced == 0
                        and session.idle
                        and (shown or loop.time() >= deadline)
                    ):
                        return
                    patience = None if follow else max(deadline - loop.time(), 0.0)
                    if session.announced and patience is not None:
                        patience = max(patience, QUIET_S)
                    try:
                        async with asyncio.timeout(patience):
                            deliveries = await session.deliveries(
                                CHUNK if count is None else min(CHUNK, count - shown)
                            )
                    except TimeoutError:
                        session.announced = 0
                        continue
                    taken = await desk.inbox.take(deliveries)
                    await session.acknowledge(taken.sequences)
                    desk.outbox.queue_receipts()
                    for message in taken.fresh:
                        if message.direction is Direction.IN:
                            yield await self._shown(message)
                            desk.unlocked.store.mark_shown(message.row)
                            shown += 1
                    if count is not None and shown >= count:
                        return
            except (NetworkError, ChainError) as broken:
                if not follow or isinstance(broken, CertificateMismatch):
                    raise
                await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
                attempt += 1

    async def history(self, peer: str, *, limit: int = 50, before: str | None = None) -> list[Shown]:
        """The last `limit` messages with a peer, oldest first; `before` (an id) turns the page.

        Whoever looks has read them: the peer learns it when this home connects next.
        """
        store = await self._store()
        uid = await self._uid_of(store, peer)
        row = None
        if before is not None:
            found = store.message(_message_id(before))
            if found is None or found.peer != uid:
                raise UnknownMessage(f"There is no message {before} with {peer} here.")
            row = found.row
        messages = store.history(uid, limit=max(limit, 1), before=row)
        if messages:
            store.mark_read(uid, messages[-1].row)
        return [await self._shown(message, full=True) for message in messages]

    async def search(self, text: str, *, limit: int = 50) -> list[Shown]:
        """Stored messages that contain every word of `text`, newest first."""
        words = text.split()
        if not words:
            raise UsageError("Say what to search for.")
        store = await self._store()
        return [await self._shown(found, full=True) for found in store.search(words, limit=max(limit, 1))]

    # --- people -----------------------------------------------------------------------------------------

    async def contacts(self) -> list[ContactView]:
        """Everybody that this home has written with, added or verified."""
        desk = await self._desk()
        me = await desk.people.require(desk.own.uid)
        views = []
        for contact in desk.unlocked.store.contacts():
            user = await self._require_watch().user(contact.uid)
            if user is not None:
                views.append(_contact_view(me, user, contact))
        return views

    async def add_contact(self, card: str) -> ContactView:
        """Checks a contact card against the chain and keeps the contact; it is not verified by that."""
        read = decode_card(card)
        desk = await self._desk()
        user = await desk.people.require(read.uid)
        verify_card(read, desk.own.network, user)
        if user.uid == desk.own.uid:
            raise UsageError("This is your own card; it is for others.")
        me = await desk.people.require(desk.own.uid)
        return _contact_view(me, user, desk.people.remember(user))

    async def own_card(self) -> CardView:
        """One's own contact card."""
        desk = await self._desk()
        me = await desk.people.require(desk.own.uid)
        return CardView(
            card=make_card(desk.own.network, me, desk.own.device, desk.own.version, desk.own.secrets),
            username=me.username,
            uid=me.uid,
            account=to_checksum(me.account),
            fingerprint=key_view(me.devices[desk.own.device - 1], here=True).fingerprint,
        )

    async def safety_number(self, peer: str) -> ContactView:
        """The safety number with a peer, to compare over another channel."""
        desk = await self._desk()
        me, user = await desk.people.require(desk.own.uid), await self._somebody_else(desk, peer)
        return _contact_view(me, user, desk.people.known(user))

    async def verify(self, peer: str) -> ContactView:
        """Marks a peer's present keys as compared; accepts them again after a change."""
        desk = await self._desk()
        me, user = await desk.people.require(desk.own.uid), await self._somebody_else(desk, peer)
        contact = await desk.people.verify(user)
        desk.outbox.stale(user.uid)
        return _contact_view(me, user, contact)

    async def _somebody_else(self, desk: _Desk, peer: str) -> User:
        user = await desk.people.find(peer)
        if user.uid == desk.own.uid:
            raise UsageError("That is you; name somebody else.")
        return user

    # --- governance -------------------------------------------------------------------------------------

    async def members(self, group: str | None = None) -> list[MemberView]:
        """The members, in the order in which they joined."""
        number = governance.group_number(group)
        return await governance.members(await self._public_watch(), number)

    async def request(self, group: str | None = None) -> ProposalView:
        """Opens the proposal to admit this user."""
        number = governance.group_number(group)
        return await (await self._governance()).request(number)

    async def propose(self, kind: str, who: str, group: str | None = None) -> ProposalView:
        """Opens a proposal (`admit`, `expel`)."""
        number = governance.group_number(group)
        known = governance.KINDS.get(kind.lower())
        if known is None:
            raise UsageError(f"There is no proposal to {kind}.", f"Known: {', '.join(governance.KINDS)}.")
        bench = await self._governance()
        return await bench.propose(number, known, await find(self._require_watch(), who))

    async def proposals(self, group: str | None = None, *, open_only: bool = False) -> list[ProposalView]:
        """The proposals, oldest first."""
        number = governance.group_number(group)
        watch = await self._public_watch()
        account = self._home.account()
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
        desk = await self._desk()
        me = await desk.people.require(desk.own.uid)
        return governance.Governance(
            own=desk.own,
            me=me,
            watch=self._require_watch(),
            calls=self._edges.calls,
            payer=self._payer(me),
            account_key=self._account_key,
            now=self._edges.clock,
        )

    # --- keys -------------------------------------------------------------------------------------------

    async def keys(self) -> list[KeyView]:
        """The devices of this account, as the chain lists them."""
        account = self._home.require_account()
        watch = await self._public_watch()
        user = await watch.user(Uid(account.uid))
        if user is None:
            raise UnknownUser(f"The chain does not know {account.username}.")
        return [key_view(device, here=device.device == account.device) for device in user.devices]

    async def rotate_keys(self) -> KeyView:
        """Gives this device new keys, on chain and at the relay."""
        view = await (await self._devices()).rotate()
        await self._forget_desk()
        await self._desk()
        with _later():
            await self._publish(await self._connect())
        return view

    async def revoke_device(self, device: int) -> KeyView:
        """Ends a device of this account for ever."""
        view = await (await self._devices()).revoke(device)
        await self._forget_desk()
        return view

    async def _devices(self) -> Devices:
        desk = await self._desk()
        me = await desk.people.require(desk.own.uid)
        return Devices(
            own=desk.own,
            me=me,
            store=desk.unlocked.store,
            watch=self._require_watch(),
            calls=self._edges.calls,
            payer=self._payer(me),
            account_key=self._account_key,
            now=self._edges.clock,
        )

    async def export_keystore(self, path: Path, password: str) -> Exported:
        """Writes the account key as a keystore V3 file (0600) under `password`; an existing file is not
        replaced.
        """
        if not password:
            raise MissingInput("The exported file needs a password.")
        account = self._home.require_account()
        if path.exists():
            raise AlreadyDone(f"{path} exists already.", "Choose another file; it was not touched.")
        await self._open(exclusive=False)
        text = await asyncio.to_thread(export_keystore, self._account_key(), password)
        try:
            write_private(path, text.encode(), replace=False)
        except FileExistsError as exists:
            raise AlreadyDone(
                f"{path} exists already.", "Choose another file; it was not touched."
            ) from exists
        return Exported(str(path), account.account)

    async def doctor(self) -> list[Finding]:
        """Looks at home, chain, contracts, relay and account, and says what is wrong and what to do."""
        findings = [doctor.home_is_private(self._home), doctor.post_quantum()]
        try:
            settings = self._settings()
            watch = Watch(self._edges.chain(settings, None))
        except ChatchainError as failed:
            return [*findings, Finding("network", ok=False, detail=failed.message, hint=failed.hint)]
        findings += await doctor.chain(watch, settings)
        if all(finding.ok for finding in findings[2:]):
            findings.append(await doctor.relay(watch, self._edges.dial, self._now_ms))
        account = self._home.account()
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
        watch = await self._public_watch()
        user = await find(watch, account.account)
        await watch.confirm(user.uid)
        if self._password is None:
            return f"{user.username} is registered; without a password the login was not tried."
        session = await self._connect()
        return f"{user.username} logs in as device {account.device}; {session.waiting} deliveries wait."

    # --- opening ----------------------------------------------------------------------------------------

    def _settings(self) -> NetworkSettings:
        """Flags first, then what `join` stored; a registered home stays with its own network."""
        stored = self._home.network()
        for endpoint in self._endpoints:
            check_endpoint(endpoint)
        endpoints = self._endpoints or (stored.endpoints if stored else ())
        directory = (
            parse_address(self._directory) if self._directory else (stored.directory if stored else None)
        )
        if not endpoints or directory is None:
            raise BadConfig(
                "It is not known which network is meant.",
                "Run `chatchain join LINK`, or give --rpc (RPC_URL) and --directory (CONTRACT_ADDRESS).",
            )
        account = self._home.account()
        if account is not None and parse_address(account.directory) != directory:
            raise WrongChain(
                f"This home belongs to the network of {account.directory}, not of {to_checksum(directory)}.",
                "Check --directory (CONTRACT_ADDRESS), or choose another --home.",
            )
        chain_id = account.chain_id if account else 0
        if not chain_id and stored is not None and stored.directory == directory:
            chain_id = stored.chain_id
        return NetworkSettings(endpoints, directory, chain_id)

    async def _require_password(self) -> str:
        if self._password is None:
            if self._ask_password is None:
                raise MissingInput(
                    "A password is needed and nobody is there to ask.",
                    "Give --password-file (CHATCHAIN_PASSWORD_FILE).",
                )
            self._password = await asyncio.to_thread(self._ask_password)
        return self._password

    async def _open(self, *, exclusive: bool) -> Unlocked:
        """Opens vault and database; `exclusive` takes the home for this process first."""
        self._home.require_account()
        async with self._opening:
            if exclusive:
                self._home.acquire()
            if self._unlocked is None:
                password = await self._require_password()
                self._unlocked = await asyncio.to_thread(unlock, self._home, self._edges, password)
            return self._unlocked

    async def _store(self) -> Store:
        """The database for looking up; another process may be at work in the home meanwhile."""
        return (await self._open(exclusive=False)).store

    async def _public_watch(self) -> Watch:
        """The chain for what everybody may know: over the home's database if that can be had without asking,
        else over memory.
        """
        account = self._home.account()
        if account is not None and account.uid and self._password is not None and self._watch is None:
            with suppress(HomeBusy):
                await self._open(exclusive=True)
        if self._watch is None:
            logs = self._unlocked.store.logs if self._unlocked is not None and self._home.held else None
            self._watch = Watch(self._edges.chain(self._settings(), logs))
        await self._watch.sync()
        return self._watch

    def _require_watch(self) -> Watch:
        assert self._watch is not None
        return self._watch

    async def _desk(self) -> _Desk:
        """The machines, over an opened home and a chain that was just looked at."""
        self._home.require_account()
        if self._desk_ is not None:
            await self._require_watch().sync()
            return self._desk_
        unlocked = await self._open(exclusive=True)
        if self._watch is None:
            self._watch = Watch(self._edges.chain(self._settings(), unlocked.store.logs))
        watch = self._watch
        await watch.sync()
        network = await watch.network()
        people = People(unlocked.store, watch)
        me = await people.require(Uid(unlocked.account.uid))
        own = load_own(unlocked.store, network, me, DeviceId(unlocked.account.device), self._now_ms())
        self._desk_ = _Desk(
            unlocked=unlocked,
            own=own,
            people=people,
            outbox=Outbox(own, unlocked.store, watch, people, self._now_ms),
            inbox=Inbox(own, unlocked.store, watch, people, self._now_ms),
        )
        return self._desk_

    async def _forget_desk(self) -> None:
        """Starts over with the keys that the chain has now."""
        await self._disconnect()
        self._desk_ = None
        self._just_changed()

    # --- connecting -------------------------------------------------------------------------------------

    async def _connect(self) -> Session:
        """The session with the relay, made if there is none; what was queued starts to be sent."""
        async with self._connecting:
            if self._session is not None and self._session.alive:
                return self._session
            await self._disconnect()
            desk = self._desk_ or await self._desk()
            watch = self._require_watch()
            me = await desk.people.require(desk.own.uid)
            reconcile_password(self._home, desk.unlocked, me)
            try:
                session = await self._logged_in(desk, me, watch)
            except ChatchainError as failed:
                self._offline = failed
                raise
            self._offline = None
            self._session = session
            desk.outbox.start(session)
            marker = desk.unlocked.store.setting("published")
            if marker is None or not _is_recent(
                marker, desk.own.version, session.link.spki, self._edges.clock()
            ):
                self._background(self._publish(session))
            return session

    async def _logged_in(self, desk: _Desk, me: User, watch: Watch) -> Session:
        """Dials and logs in; after a change of one's own the relay gets a moment to see its block."""
        loop = asyncio.get_running_loop()
        while True:
            session = Session(await self._edges.dial(await watch.relays()))
            try:
                await session.login(desk.own.network, self._credentials(desk, me))
                return session
            except LoginRefused:
                await session.close()
                if loop.time() > self._changed_at + RELAY_CATCHES_UP_S:
                    raise
                await asyncio.sleep(0.25)
            except BaseException:
                await session.close()
                raise

    def _credentials(self, desk: _Desk, me: User) -> Credentials:
        secrets = desk.unlocked.secrets
        return Credentials(
            uid=me.uid,
            device=desk.own.device,
            epoch=me.epoch,
            kdf=secrets.kdf,
            login_key=secrets.login_key,
            signer=desk.own.secrets.signer,
        )

    async def _keep_connected(self) -> None:
        """Connects again whenever the link is gone, until cancelled or until trying makes no sense."""
        attempt = 0
        while True:
            try:
                session = await self._connect()
                attempt = 0
                await session.ended.wait()
            except CertificateMismatch:
                return
            except NetworkError:
                await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
                attempt += 1
            except ChatchainError as failed:
                self._offline = failed
                return

    async def _publish(self, session: Session) -> None:
        """Gives the relay this device's key bundle."""
        desk = self._desk_
        if desk is None:
            return
        now = self._edges.clock()
        bundle = make_bundle(
            desk.own.network,
            desk.own.secrets,
            uid=desk.own.uid,
            device=desk.own.device,
            version=desk.own.version,
            now=int(now),
        )
        await session.publish(bundle)
        desk.unlocked.store.set_setting(
            "published", msgspec.msgpack.encode((desk.own.version, session.link.spki, int(now)))
        )

    async def _disconnect(self) -> None:
        if self._desk_ is not None:
            await self._desk_.outbox.stop()
        await self._hang_up()

    async def _hang_up(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def _last_words(self) -> None:
        """Before a command ends well: receipts that are owed and what earlier runs left get a moment to be
        sent.
        """
        if self._desk_ is not None and self._session is not None and self._session.alive:
            with suppress(ChatchainError):
                self._desk_.outbox.queue_receipts()
                await self._desk_.outbox.drained(LAST_WORDS_S)
                await asyncio.wait(self._tasks, timeout=LAST_WORDS_S) if self._tasks else None

    def _stranger(self, watch: Watch) -> Callable[[], Awaitable[Session]]:
        """A way to connect without login, for a sponsored registration."""

        async def connect() -> Session:
            if self._session is None or not self._session.alive:
                self._session = Session(await self._edges.dial(await watch.relays()))
            return self._session

        return connect

    def _background(self, work: Coroutine[None, None, None]) -> None:
        """Runs something that nobody waits for; what fails in it was for convenience and is tried again next
        time.
        """

        async def quietly() -> None:
            with suppress(ChatchainError):
                await work

        task = asyncio.create_task(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- small things -----------------------------------------------------------------------------------

    def _now_ms(self) -> int:
        return int(self._edges.clock() * 1000)

    def _just_changed(self) -> None:
        self._changed_at = asyncio.get_running_loop().time()

    def _writer_for(self, settings: NetworkSettings, network: Network) -> ChainWriter:
        if self._writer is None:
            self._writer = self._edges.writer(settings, network)
        return self._writer

    def _payer(self, me: User, connect: Callable[[], Awaitable[Session]] | None = None) -> Payer:
        assert self._desk_ is not None
        writer = self._writer_for(self._settings(), self._desk_.own.network)
        return Payer(writer, me.account, connect or self._connect)

    def _account_key(self) -> bytes:
        assert self._unlocked is not None
        return account_key(self._home, self._unlocked.secrets)

    async def _uid_of(self, store: Store, peer: str) -> Uid:
        """Who is meant, from the contacts if they know; only somebody else needs the chain."""
        text = peer.strip().removeprefix("@").casefold()
        for contact in store.contacts():
            if text in (contact.username, str(contact.uid)):
                return contact.uid
        return (await find(await self._public_watch(), peer)).uid

    async def _shown(self, message: StoredMessage, *, full: bool = False) -> Shown:
        """A stored message as people read it; `full` adds what history shows."""
        outgoing = message.direction is Direction.OUT
        peer = await self._name_of(message.peer)
        account = self._home.require_account()
        notice = message.kind == "notice"
        return Shown(
            id=message.id.hex(),
            kind=message.kind,
            time=_time(message.time_ms),
            from_=account.username if outgoing else peer,
            from_uid=account.uid if outgoing else message.peer,
            text=None if notice else message.text,
            notice=message.text if notice else None,
            code=message.code or None,
            to=peer if outgoing else None,
            direction=message.direction.value if full else None,
            state=(message.state.value if message.state is not None else "received") if full else None,
        )

    async def _name_of(self, uid: Uid) -> str:
        contact = self._unlocked.store.contact(uid) if self._unlocked is not None else None
        if contact is not None:
            return contact.username
        user = await self._watch.user(uid) if self._watch is not None else None
        return user.username if user is not None else str(uid)


async def _chunks(
    texts: str | Iterable[str] | AsyncIterable[str], size: int
) -> AsyncGenerator[list[str], None]:
    """Texts in lists of up to `size`: from a stream, whatever is there when the last list was dealt with."""
    if isinstance(texts, str):
        yield [texts]
        return
    if not isinstance(texts, AsyncIterable):
        chunk: list[str] = []
        for text in texts:
            chunk.append(text)
            if len(chunk) == size:
                yield chunk
                chunk = []
        if chunk:
            yield chunk
        return
    queue: asyncio.Queue[str | None] = asyncio.Queue(AHEAD)

    async def read() -> None:
        try:
            async for text in texts:
                await queue.put(text)
        finally:
            await queue.put(None)

    reader = asyncio.create_task(read())
    try:
        while (first := await queue.get()) is not None:
            batch = [first]
            while len(batch) < size and not queue.empty():
                following = queue.get_nowait()
                if following is None:
                    yield batch
                    await reader
                    return
                batch.append(following)
            yield batch
        await reader
    finally:
        reader.cancel()


def _good(texts: Sequence[str]) -> tuple[list[str], ChatchainError | None]:
    """The texts up to the first that cannot be sent, and why it cannot."""
    good: list[str] = []
    for text in texts:
        try:
            contents.text(text)
        except (BadText, TooLarge) as flaw:
            return good, flaw
        good.append(text)
    return good, None


@contextmanager
def _later() -> Iterator[None]:
    """Lets a failing network pass where a later attempt makes up for it; a wrong certificate never passes."""
    try:
        yield
    except CertificateMismatch:
        raise
    except NetworkError:
        pass


def _contact_view(me: User, user: User, contact: Contact) -> ContactView:
    changed = changes(contact.pin, user) if contact.pin is not None else []
    return ContactView(
        username=user.username,
        uid=user.uid,
        account=to_checksum(user.account),
        fingerprint=spaced(safety_number(me, user)),
        verified=contact.pin is not None and not changed,
        changed="; ".join(changed) or None,
    )


def _problem(error: ChatchainError) -> Problem:
    return Problem(error.code, error.message, error.hint)


def _time(time_ms: int) -> str:
    """RFC 3339 in UTC; an impossible time (the sender's word) shows as the nearest possible one."""
    clamped = min(max(time_ms, 0), 253_402_300_799_999)
    return (
        datetime.fromtimestamp(clamped / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def _message_id(text: str) -> bytes:
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != 16:
        raise UsageError(f"{text[:64]!r} is not the id of a message: 32 hex digits.")
    return raw


def _is_recent(marker: bytes, version: int, spki: bytes, now: float) -> bool:
    try:
        published, where, when = msgspec.msgpack.decode(marker, type=tuple[int, bytes, int])
    except msgspec.DecodeError:
        return False
    return (published, where) == (version, spki) and 0 <= now - when < REPUBLISH_S
