"""A home at work: opened with its password, with a view of the chain and a session with the relay.

Everything is opened when it is first needed and at most once: the lock, the vault, the database, the chain,
the machines (`Desk`), the session. A station knows how to get at them and when they are out of date; what is
done with them is other files' business.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Sequence,
)
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from chatchain.client.account import (
    Unlocked,
    account_key,
    reconcile_password,
    unlock,
)
from chatchain.client.attachments import Courier, forget_files
from chatchain.client.home import Home
from chatchain.client.inbox import Inbox
from chatchain.client.links import check_endpoint
from chatchain.client.outbox import Outbox
from chatchain.client.own import Own, load_own
from chatchain.client.paying import Payer
from chatchain.client.people import People, find
from chatchain.client.ports import ChainWriter, Edges, NetworkSettings, Store
from chatchain.client.prekeys import supply
from chatchain.client.privacy import Pace
from chatchain.client.session import Credentials, Session
from chatchain.client.sessions import Sessions
from chatchain.client.transfer import Transfer
from chatchain.client.watch import Watch
from chatchain.crypto.bundle import make_bundle
from chatchain.errors import (
    AuthenticationError,
    BadConfig,
    CertificateMismatch,
    ChainError,
    ChatchainError,
    HomeBusy,
    LimitReached,
    LoginRefused,
    MissingInput,
    NetworkError,
    RelayFailure,
    StoreUnavailable,
    WrongChain,
)
from chatchain.identity.keys import parse_address, to_checksum
from chatchain.model import (
    Contact,
    DeviceId,
    Network,
    Uid,
    User,
)

REPUBLISH_S: Final = 24 * 3600
"""How old a published key bundle may get before a session publishes it anew."""

FORGET_S: Final = 5.0
"""How long what was overwritten stays in the database's journal: emptying it costs some milliseconds."""

LAST_WORDS_S: Final = 3.0
"""How long a command that is done waits for receipts and earlier messages to get their ticks."""

RELAY_CATCHES_UP_S: Final = 10.0
"""How long after a change of one's own the relay may not have seen its block yet."""

RETRY_FIRST_S: Final = 0.2
RETRY_LAST_S: Final = 5.0
"""Pauses between attempts to connect: each twice the one before, up to the last."""

RETRY_JITTER_S: Final = 1.0
"""Added to each pause, a random part of it."""

LONGEST_PAUSE_S: Final = 60.0
"""The longest pause that a relay is granted when it asks for one."""

LASTED_S: Final = 30.0
"""A session that stood this long was worth its login, even if nothing came."""

FRUITLESS_S: Final = 3.0
"""The pause after one that was not: with the jitter, and time to dial, still less than the 5 s within which
the clients of a node that dies are at another.
"""


def _worth_another(broken: Exception) -> bool | float:
    """Whether another attempt to connect makes sense, or in how many seconds."""
    if isinstance(broken, CertificateMismatch) or not isinstance(
        broken, NetworkError | LimitReached | ChainError
    ):
        return False
    asked = _asked_s(broken)
    return asked + _jitter_s() if asked > RETRY_LAST_S else True


def _asked_s(broken: Exception | None) -> float:
    """How long a relay wants to be left alone, within bounds."""
    asked = broken.retry_after_ms / 1000 if isinstance(broken, RelayFailure | LimitReached) else 0.0
    return min(asked, LONGEST_PAUSE_S)


def _jitter_s() -> float:
    """A pause that cannot be foretold: a relay that comes back is called by everybody at once otherwise."""
    return random.uniform(0, RETRY_JITTER_S)  # noqa: S311  # nobody gains from guessing it


def attempts() -> AsyncIterator[AbstractContextManager[object]]:
    """Attempts to connect, with longer and longer pauses between them, while another makes sense."""
    import stamina  # 30 ms that only who was connected needs

    stamina.instrumentation.set_on_retry_hooks([])  # the screen says that the relay is away
    return aiter(
        stamina.retry_context(
            on=_worth_another,
            attempts=None,
            timeout=None,
            wait_initial=RETRY_FIRST_S,
            wait_max=RETRY_LAST_S,
            wait_jitter=RETRY_JITTER_S,
        )
    )


def rest_s(session: Session, lasted_s: float) -> float:
    """How long to wait after a session before the next. A login alone is worth nothing: a relay that welcomes
    and hangs up would be called without end.
    """
    worth_it = session.fruitful or lasted_s >= LASTED_S
    return max(0.0 if worth_it else FRUITLESS_S, _asked_s(session.why)) + _jitter_s()


@dataclass(frozen=True)
class Desk:
    """The machines at work for an opened home."""

    unlocked: Unlocked
    own: Own
    people: People
    sessions: Sessions
    outbox: Outbox
    inbox: Inbox
    courier: Courier


class Station:
    """One home at work."""

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
        self.home = Home(home)
        self.edges = edges
        self._endpoints = tuple(endpoints)
        self._directory = directory
        self.password = password
        self._ask_password = ask_password
        self.unlocked: Unlocked | None = None
        self._watch: Watch | None = None
        self._writer: ChainWriter | None = None
        self._desk: Desk | None = None
        self.session: Session | None = None
        self._connecting = asyncio.Lock()
        self._opening = asyncio.Lock()
        self._furnishing = asyncio.Lock()
        self._publishing = asyncio.Lock()
        self._changed_at = -RELAY_CATCHES_UP_S
        self.offline: ChatchainError | None = None
        self._spare: Transfer | None = None
        self.sealed: set[bytes] = set()
        """Blobs whose messages are about to be stored."""
        self.typing = Pace()
        self._tasks: set[asyncio.Task[None]] = set()
        self._forgetting: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Ends the session and gives the home back; never raises, and may be called twice."""
        chores = [*self._tasks, *([self._forgetting] if self._forgetting is not None else [])]
        for chore in chores:
            chore.cancel()
        await asyncio.gather(*chores, return_exceptions=True)
        self._forgetting = None
        await self.disconnect()
        if self.unlocked is not None:
            with suppress(ChatchainError):
                self.unlocked.store.close()
            self.unlocked = None
        self._desk = None
        self._watch = None
        self.home.release()

    def settings(self) -> NetworkSettings:
        """Flags first, then what `join` stored; a registered home stays with its own network."""
        stored = self.home.network()
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
        account = self.home.account()
        if account is not None and parse_address(account.directory) != directory:
            raise WrongChain(
                f"This home belongs to the network of {account.directory}, not of {to_checksum(directory)}.",
                "Check --directory (CONTRACT_ADDRESS), or choose another --home.",
            )
        chain_id = account.chain_id if account else 0
        if not chain_id and stored is not None and stored.directory == directory:
            chain_id = stored.chain_id
        invitation = stored.invitation if stored is not None and stored.directory == directory else ""
        return NetworkSettings(endpoints, directory, chain_id, invitation)

    async def require_password(self) -> str:
        if self.password is None:
            if self._ask_password is None:
                raise MissingInput(
                    "A password is needed and nobody is there to ask.",
                    "Give --password-file (CHATCHAIN_PASSWORD_FILE).",
                )
            self.password = await asyncio.to_thread(self._ask_password)
        return self.password

    async def open(self, *, exclusive: bool) -> Unlocked:
        """Opens vault and database; `exclusive` takes the home for this process first."""
        self.home.require_account()
        async with self._opening:
            if exclusive:
                self.home.acquire()
            if self.unlocked is None:
                password = await self.require_password()
                self.unlocked = await asyncio.to_thread(unlock, self.home, self.edges, password)
                self.purge(self.unlocked.store)  # what disappeared while nothing ran here
            return self.unlocked

    async def store(self) -> Store:
        """The database for looking up; another process may be at work in the home meanwhile."""
        return (await self.open(exclusive=False)).store

    async def public_watch(self) -> Watch:
        """The chain for what everybody may know: over the home's database if that can be had without asking,
        else over memory.
        """
        account = self.home.account()
        if account is not None and account.uid and self.password is not None and self._watch is None:
            with suppress(HomeBusy, StoreUnavailable):  # memory serves as well for what everybody may know
                await self.open(exclusive=True)
        if self._watch is None:
            logs = self.unlocked.store.logs if self.unlocked is not None and self.home.held else None
            self._watch = Watch(self.edges.chain(self.settings(), logs))
        await self._watch.sync()
        return self._watch

    def require_watch(self) -> Watch:
        assert self._watch is not None
        return self._watch

    async def desk(self) -> Desk:
        """The machines, over an opened home and a chain that was just looked at."""
        self.home.require_account()
        # Two who ask at once must get the same outbox: only one of two would be pumped.
        async with self._furnishing:
            if self._desk is None:
                self._desk = await self._furnished()
            else:
                await self.require_watch().sync()
            return self._desk

    async def _furnished(self) -> Desk:
        unlocked = await self.open(exclusive=True)
        if self._forgetting is None:
            self._forgetting = asyncio.create_task(self._forget())
        if self._watch is None:
            self._watch = Watch(self.edges.chain(self.settings(), unlocked.store.logs))
        watch = self._watch
        await watch.sync()
        network = await watch.network()
        people = People(unlocked.store, watch)
        me = await people.require(Uid(unlocked.account.uid))
        own = load_own(unlocked.store, network, me, DeviceId(unlocked.account.device), self.now_ms())
        sessions = Sessions(own, unlocked.store, self.now_ms)
        outbox = Outbox(own, unlocked.store, watch, people, sessions, self.now_ms)
        courier = Courier(own.uid, unlocked.store, outbox, self.files, self.transfer, self.sealed)
        outbox.woken = courier.nudge
        return Desk(
            unlocked=unlocked,
            own=own,
            people=people,
            sessions=sessions,
            outbox=outbox,
            inbox=Inbox(own, unlocked.store, watch, people, sessions, self.now_ms),
            courier=courier,
        )

    @property
    def known_watch(self) -> Watch | None:
        """The chain, if anything has needed it yet."""
        return self._watch

    def adopt(self, unlocked: Unlocked, password: str) -> None:
        """Goes on with changed secrets and another password."""
        assert self._desk is not None
        self.password, self.unlocked = password, unlocked
        self._desk = replace(self._desk, unlocked=unlocked)

    async def _forget(self) -> None:
        """Leaves no earlier states of sessions in the database's journal while the program is at work."""
        while True:
            await asyncio.sleep(FORGET_S)
            if self.unlocked is not None:
                with suppress(ChatchainError):
                    self.unlocked.store.forget_states()

    async def forget_desk(self) -> None:
        """Starts over with the keys that the chain has now."""
        await self.disconnect()
        self._desk = None
        self.just_changed()

    async def connect(self) -> Session:
        """The session with the relay, made if there is none; what was queued starts to be sent."""
        async with self._connecting:
            if self.session is not None and self.session.alive:
                return self.session
            await self.disconnect()
            desk = self._desk or await self.desk()
            watch = self.require_watch()
            me = await desk.people.require(desk.own.uid)
            reconcile_password(self.home, desk.unlocked, me)
            try:
                session = await self._logged_in(desk, me, watch)
            except ChatchainError as failed:
                self.offline = failed
                raise
            self.offline = None
            self.session = session
            desk.outbox.start(session)
            await desk.courier.start()
            self.background(desk.sessions.sweep(watch))
            if not self._published(desk, session):
                self.background(self.publish(session))
            return session

    async def _logged_in(self, desk: Desk, me: User, watch: Watch) -> Session:
        """Dials and logs in; after a change of one's own the relay gets a moment to see its block."""
        loop = asyncio.get_running_loop()
        while True:
            session = Session(await self.edges.dial(await watch.relays()))
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

    @asynccontextmanager
    async def transfer(self) -> AsyncIterator[Transfer]:
        """A connection for files, logged in; kept for the next who needs one if all went well on it."""
        transfer, self._spare = self._spare or await self._entered(), None
        try:
            yield transfer
        except BaseException:
            await transfer.close()
            raise
        await self._keep_spare(transfer)

    async def _keep_spare(self, transfer: Transfer) -> None:
        if self._spare is None and self.session is not None:
            self._spare = transfer
        else:
            await transfer.close()

    async def _entered(self) -> Transfer:
        desk = self._desk or await self.desk()
        watch = self.require_watch()
        me = await desk.people.require(desk.own.uid)
        transfer = Transfer(await self.edges.dial(await watch.relays()))
        try:
            await transfer.enter(desk.own.network, self._credentials(desk, me))
        except BaseException:
            await transfer.close()
            raise
        return transfer

    def purge(self, store: Store) -> None:
        """Deletes the messages whose time is over, and what they brought."""
        if store.purge(self.now_ms()):
            forget_files(self.files, store.has_file)

    @property
    def files(self) -> Path:
        """Where files come to and wait to go."""
        return self.home.path / "files"

    def _credentials(self, desk: Desk, me: User) -> Credentials:
        secrets = desk.unlocked.secrets
        return Credentials(
            uid=me.uid,
            device=desk.own.device,
            epoch=me.epoch,
            kdf=secrets.kdf,
            login_key=secrets.login_key,
            signer=desk.own.secrets.signer,
        )

    async def connect_again(self) -> Session:
        """Tries to connect until it works, more and more patiently; raises what no other attempt mends."""
        async for attempt in attempts():
            with attempt:
                return await self.connect()
        raise AssertionError("unreachable")

    async def keep_connected(self) -> None:
        """Connects again whenever the link is gone, until cancelled or until trying makes no sense."""
        session, loop = self.session, asyncio.get_running_loop()  # what the caller has made counts, too
        try:
            while True:
                session, since = session or await self.connect_again(), loop.time()
                await session.ended.wait()
                if isinstance(session.why, AuthenticationError):
                    raise session.why
                await asyncio.sleep(rest_s(session, loop.time() - since))
                session = None
        except CertificateMismatch:
            return
        except ChatchainError as failed:
            self.offline = failed

    async def publish(self, session: Session) -> None:
        """Gives the relay this device's key bundle, and the prekeys that it lacks."""
        # Whoever comes second finds the relay supplied, instead of supplying it twice.
        async with self._publishing:
            await self._publish(session)

    async def _publish(self, session: Session) -> None:
        desk = self._desk
        if desk is None:
            return
        now = self.edges.clock()
        bundle = make_bundle(
            desk.own.network,
            desk.own.secrets,
            uid=desk.own.uid,
            device=desk.own.device,
            version=desk.own.version,
            now=int(now),
        )
        await session.publish(bundle)
        again = not self._published(desk, session)
        await supply(desk.own, desk.unlocked.store, session, self.now_ms, again=again)
        desk.unlocked.store.set_setting(
            "published", msgspec.msgpack.encode((desk.own.version, session.link.spki, int(now)))
        )

    def _published(self, desk: Desk, session: Session) -> bool:
        """Whether this relay has this version's keys, and has not had them for long."""
        marker = desk.unlocked.store.setting("published")
        return marker is not None and _is_recent(
            marker, desk.own.version, session.link.spki, self.edges.clock()
        )

    async def disconnect(self) -> None:
        if self._desk is not None:
            await self._desk.courier.stop()
            await self._desk.outbox.stop()
        await self.hang_up()

    async def hang_up(self) -> None:
        if self._spare is not None:
            spare, self._spare = self._spare, None
            await spare.close()
        if self.session is not None:
            session, self.session = self.session, None
            await session.close()

    async def last_words(self) -> None:
        """Before a command ends well: receipts that are owed and what earlier runs left get a moment to be
        sent.
        """
        if self._desk is not None and self.session is not None and self.session.alive:
            with suppress(ChatchainError):
                self._desk.outbox.queue_receipts()
                await self._desk.courier.drained(LAST_WORDS_S)
                await self._desk.outbox.drained(LAST_WORDS_S)
                await asyncio.wait(self._tasks, timeout=LAST_WORDS_S) if self._tasks else None

    def stranger(self, watch: Watch) -> Callable[[], Awaitable[Session]]:
        """A way to connect without login, for a sponsored registration."""

        async def connect() -> Session:
            if self.session is None or not self.session.alive:
                self.session = Session(await self.edges.dial(await watch.relays()))
            return self.session

        return connect

    def background(self, work: Coroutine[None, None, None]) -> None:
        """Runs something that nobody waits for; what fails in it was for convenience and is tried again next
        time.
        """

        async def quietly() -> None:
            with suppress(ChatchainError):
                await work

        task = asyncio.create_task(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: work.close())  # for a task that was cancelled before it began

    def now_ms(self) -> int:
        return int(self.edges.clock() * 1000)

    def just_changed(self) -> None:
        self._changed_at = asyncio.get_running_loop().time()

    def writer_for(self, settings: NetworkSettings, network: Network) -> ChainWriter:
        if self._writer is None:
            self._writer = self.edges.writer(settings, network)
        return self._writer

    def payer(self, me: User, connect: Callable[[], Awaitable[Session]] | None = None) -> Payer:
        assert self._desk is not None
        writer = self.writer_for(self.settings(), self._desk.own.network)
        return Payer(writer, me.account, connect or self.connect)

    def account_key(self) -> bytes:
        assert self.unlocked is not None
        return account_key(self.home, self.unlocked.secrets)

    async def uid_of(self, store: Store, peer: str) -> Uid:
        """Who is meant, from the contacts if they know; only somebody else needs the chain."""
        contact = known_contact(store, peer)
        return contact.uid if contact is not None else (await find(await self.public_watch(), peer)).uid

    async def name_of(self, uid: Uid) -> str:
        account = self.home.account()
        if account is not None and account.uid == uid:
            return account.username
        contact = self.unlocked.store.contact(uid) if self.unlocked is not None else None
        if contact is not None:
            return contact.username
        user = await self._watch.user(uid) if self._watch is not None else None
        return user.username if user is not None else str(uid)


def known_contact(store: Store, peer: str) -> Contact | None:
    """Who is meant, among those whom the home knows."""
    text = peer.strip().removeprefix("@").casefold()
    return next((one for one in store.contacts() if text in (one.username, str(one.uid))), None)


def _is_recent(marker: bytes, version: int, spki: bytes, now: float) -> bool:
    try:
        published, where, when = msgspec.msgpack.decode(marker, type=tuple[int, bytes, int])
    except msgspec.DecodeError:
        return False
    return (published, where) == (version, spki) and 0 <= now - when < REPUBLISH_S
