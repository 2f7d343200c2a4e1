"""Drives the relay's machines: connections on one side, database and chain on the other.

Everything here runs on the event loop and decides nothing that `mailbox`, `login`, `sponsor` or `limits`
could decide. Database and chain are asked in threads; while a connection waits for such an answer its
further messages wait too, so each client is served in the order in which it spoke.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

import msgspec
from structlog.typing import FilteringBoundLogger

from chatchain.errors import (
    BadRecord,
    ChainError,
    ChatchainError,
    CommitmentPending,
    LimitReached,
    LoginRefused,
    NetworkError,
    NotAMember,
    ProtocolViolation,
    RefusedError,
    StoreUnavailable,
)
from chatchain.identity.admission import Invitation
from chatchain.identity.record import decode_record
from chatchain.model import Call, DeviceState, Envelope, KeyBundle, Letter, Network, Policy, Run, User
from chatchain.relay import login as logins
from chatchain.relay import mailbox as box
from chatchain.relay import prekeys
from chatchain.relay.allowance import Allowance, Lookups, Pace, Paces
from chatchain.relay.blobs import BlobLimits
from chatchain.relay.directory import Changes
from chatchain.relay.expiry import notices
from chatchain.relay.files import Files, FileSession
from chatchain.relay.limits import Buckets, Rate
from chatchain.relay.metrics import Metrics
from chatchain.relay.newcomers import Newcomers
from chatchain.relay.nodes import Fold, Nodes
from chatchain.relay.ports import BlobParts, BlobTable, Membership, Peer, Reader, Writer
from chatchain.relay.prekeys import PrekeyLimits, PrekeyStock
from chatchain.relay.quota import Usage
from chatchain.relay.sponsor import Order, Paid, Sponsor, is_registration
from chatchain.relay.turns import Turns
from chatchain.wire import deadlines
from chatchain.wire.connection import State
from chatchain.wire.messages import (
    PROTOCOL_VERSION,
    Acknowledge,
    Challenge,
    Deliver,
    Done,
    EnterFiles,
    Failed,
    FetchKeys,
    FetchPrekeys,
    Keys,
    Login,
    Message,
    Ping,
    PublishKeys,
    PublishPrekeys,
    Receive,
    Refused,
    Sponsored,
    StaleDevices,
    Submit,
    Tick,
    Welcome,
)
from chatchain.wire.messages import (
    Sponsor as SponsorRequest,
)
from chatchain.wire.parcels import deliver_frames, parcel, tick_frames

UNANSWERED_BYTES: Final = 1024 * 1024
UNANSWERED_ROWS: Final = 2_000
"""What one connection may have submitted without an answer; above it the relay stops reading from it."""

LETTER_BYTES: Final = 256
"""What a message takes up while it waits, besides what is in it."""

PENDING_BYTES: Final = 16 * 1024 * 1024
"""The same for all connections together."""

KEY_REQUESTS: Final = Rate(burst=200, per_second=20)
"""Publications and look-ups of key bundles and prekeys by one user."""

CACHED_USERS: Final = 20_000
POLL: Final = 0.5
"""Seconds between two looks at the chain, and between two attempts at reads that are due."""

LOOK_GAP: Final = 0.25
"""Seconds between two looks at the chain when somebody has news of it."""

SWEEP: Final = 1.0
TEND: Final = 3.0
PRUNE: Final = 20.0
"""Seconds between two looks for old messages, and for old message ids, of which each takes up a small part.
"""

DAY_MS: Final = 24 * 3600 * 1000

STALE_CHAIN: Final = 60.0
"""Seconds without a successful look at the chain after which /health says so."""

SPONSORED_AT_ONCE: Final = 32
GUESTS_AT_ONCE: Final = SPONSORED_AT_ONCE // 2
"""Of these, calls from connections of one address that have not logged in."""

T = TypeVar("T")


class _Guest(msgspec.Struct):
    """A connection before its login."""

    nonce: bytes
    worked: int = -1
    """The number of the last request that showed work: each later one needs work of its own."""


class _Session(msgspec.Struct, eq=False):
    """A connection after its login."""

    name: int
    uid: int
    device: int
    epoch: int
    peer: Peer
    pace: Pace
    rows: int = 0
    bytes: int = 0
    held: bool = False


class Deployment(msgspec.Struct, frozen=True):
    """What this relay serves, and the key it shows."""

    network: Network
    spki: bytes


class Relay:
    """Satisfies `transport.Handler`."""

    def __init__(
        self,
        deployment: Deployment,
        *,
        reader: Reader,
        keeper: Fold,
        sponsor: Sponsor | None,
        newcomers: Newcomers | None = None,
        log: FilteringBoundLogger,
        metrics: Metrics | None = None,
        allowance: Allowance | None = None,
        prekey_limits: PrekeyLimits = prekeys.LIMITS,
        files: tuple[BlobParts, BlobTable],
        blob_limits: BlobLimits | None = None,
        nodes: Nodes | None = None,
    ) -> None:
        """`files` are where the bytes of files lie and the table that names them."""
        allowed = allowance or Allowance()
        self._deployment = deployment
        self._reader = reader
        self._keeper = keeper
        self._sponsor = sponsor
        self._newcomers = newcomers
        self._log = log
        self.metrics = metrics or Metrics()
        self._nodes = nodes
        self._keys: tuple[bytes, ...] = (deployment.spki,)
        self.metrics.sessions.set_function(lambda: len(self._sessions))
        self.metrics.held.set_function(lambda: len(self._waiting))
        self.metrics.queued.set_function(lambda: self._pending)
        self._writer: Writer | None = None
        self._quota = allowed.quota
        self._mailbox = box.Mailbox(quota=self._quota)
        self._membership = Membership(Policy.VOTE, frozenset())
        self._users: OrderedDict[int, User] = OrderedDict()
        self._peers: set[Peer] = set()
        self._sessions: dict[int, _Session] = {}
        self._names = 0
        self._pending = 0
        self._waiting: set[_Session] = set()
        self._letters: list[Letter] = []  # of this turn of the loop
        self._paces = Paces(allowed.messages)
        self._logins = Buckets(allowed.logins)
        self._logins_of_address = Buckets(allowed.address_logins)
        self._failures = Buckets(allowed.failed_logins)
        self._failures_of_address = Buckets(allowed.address_failed_logins)
        self._lookups = Lookups(allowed.lookups)
        self._key_requests = Buckets(KEY_REQUESTS)
        self._prekeys = PrekeyStock(prekey_limits, self._look_again)
        self._sponsoring = 0
        self._guests_paid: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._look: asyncio.Task[None] | None = None
        self._next_look: asyncio.Task[None] | None = None
        self._looked_at = float("-inf")
        self._look_ended = float("-inf")
        self._store_sound = True
        self._draining = False
        self.accepting = False
        """Whether connections are accepted; the program says so."""
        self._readers = ThreadPoolExecutor(2, "store-reader")
        self._chain = ThreadPoolExecutor(1, "chain")
        self._payers = ThreadPoolExecutor(4, "sponsor")
        self._turns = Turns(
            self._pay_all, self._payers, gather=sponsor.gather if sponsor is not None else 0.0
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._files = Files(
            *files,
            limits=blob_limits or BlobLimits(),
            log=log,
            metrics=self.metrics,
            admits=self._admits,
            hold=self._hold,
            spawn=self._spawn,
        )

    # --- life ---

    async def start(self, writer: Writer) -> None:
        """Looks at chain and database once, and begins to follow them; raises ChainError or
        StoreUnavailable.
        """
        self._loop = asyncio.get_running_loop()
        self._writer = writer
        if self._nodes is not None:
            await self._nodes.start(self, writer)
        usage, counted_to = await self._in(self._readers, self._reader.usage)
        self._mailbox = box.Mailbox(usage, counted_to, quota=self._quota)
        await self._refresh()
        await self._load_membership()
        self._spawn(self._follow())
        self._spawn(self._sweep())
        self._spawn(self._prune())
        self._spawn(self._expire())
        self._spawn(self._files.sweep())
        if self._sponsor is not None:
            self._spawn(self._tend(self._sponsor))
        for work in self._nodes.work() if self._nodes is not None else ():
            self._spawn(work)

    async def drain(self, seconds: float) -> None:
        """Says goodbye to everybody once what they submitted is answered, for so many seconds at most."""
        self._draining = True
        self.accepting = False
        deadline = time.monotonic() + seconds
        for peer in list(self._peers):
            peer.hold()
        while self._pending and time.monotonic() < deadline:  # noqa: ASYNC110  # once in a life, and it ends
            await asyncio.sleep(0.02)
        for peer in list(self._peers):
            peer.say_goodbye("shutdown", "The relay is stopping.", 1_000)
        while self._peers and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        for peer in list(self._peers):
            peer.abort()
        self._turns.stop()
        if self._nodes is not None:
            await self._nodes.close()
        for task in list(self._tasks):
            task.cancel()
        for pool in (self._readers, self._chain, self._payers):
            pool.shutdown(wait=False, cancel_futures=True)
        self._files.stop()

    def health(self) -> dict[str, object]:
        """What /health shows."""
        chain = time.monotonic() - self._looked_at < STALE_CHAIN
        return {
            "ok": self._store_sound and chain and not self._draining,
            "database": self._store_sound,
            "chain": chain,
            "draining": self._draining,
            "accepting": self.accepting,
            "connections": len(self._peers),
            "sessions": len(self._sessions),
        }

    def renewed(self, spki: bytes) -> None:
        """New connections show another key; those that opened before may still log in with the last one."""
        self._keys = (self._keys[-1], spki) if spki != self._keys[-1] else self._keys

    # --- transport.Handler ---

    def opened(self, peer: Peer) -> None:
        """Greets a connection with a nonce of its own."""
        self._peers.add(peer)
        self.metrics.connections.inc()
        guest = _Guest(secrets.token_bytes(logins.NONCE_BYTES))
        peer.session = guest
        network = self._deployment.network
        work = self._newcomers.rules.announced if self._newcomers is not None else 0
        peer.send(
            Challenge(PROTOCOL_VERSION, guest.nonce, network.chain_id, network.directory, _now_ms(), work)
        )
        if self._draining:
            peer.say_goodbye("shutdown", "The relay is stopping.", 1_000)

    def closed(self, peer: Peer) -> None:
        """Forgets a connection."""
        self._peers.discard(peer)
        self.metrics.connections.dec()
        if isinstance(peer.session, _Session):
            self._sessions.pop(peer.session.name, None)
            self._mailbox.closed(peer.session.name)
            self._waiting.discard(peer.session)
        elif isinstance(peer.session, FileSession):
            self._files.closed(peer.session)
        peer.session = None

    def violated(self, peer: Peer, violation: ProtocolViolation) -> None:
        """Notes a breach of the protocol; the connection is being closed."""
        self.metrics.violations.inc()
        self._log.info("violation", address=peer.address, reason=violation.message)

    def writable(self, peer: Peer) -> None:
        """Goes on with a peer that was slow."""
        if isinstance(peer.session, _Session):
            self._act(self._mailbox.slow(peer.session.name, False))
        elif isinstance(peer.session, FileSession):
            self._files.writable(peer.session)

    def received(self, peer: Peer, message: Message) -> None:
        """Serves one message."""
        session = peer.session
        if type(message) is Submit and type(session) is _Session:  # nearly all of them
            self._submit(session, message.envelope)
            return
        if isinstance(session, _Guest):
            if isinstance(message, Login | EnterFiles):
                self._hold(peer, self._log_in(peer, session, message))
            elif isinstance(message, SponsorRequest):
                self._hold(peer, self._pay_for(peer, None, message))
            return
        if isinstance(session, FileSession):
            self._files.received(session, message)
        if not isinstance(session, _Session):
            return
        match message:
            case Acknowledge(sequences):
                self.metrics.acknowledged.inc(len(sequences))
                self._act(self._mailbox.acknowledged(session.name, sequences))
            case Receive():
                self._act(self._mailbox.receive(session.name))
            case PublishKeys(ref, bundle):
                self._hold(peer, self._publish(session, ref, bundle))
            case FetchKeys(ref, uids):
                self._hold(peer, self._fetch(session, ref, uids))
            case SponsorRequest():
                self._hold(peer, self._pay_for(peer, session, message))
            case PublishPrekeys(ref):
                self._hold(peer, self._answer(peer, ref, self._publish_prekeys(session, message)))
            case FetchPrekeys(ref):
                self._hold(peer, self._answer(peer, ref, self._fetch_prekeys(session, message)))
            case _:
                raise AssertionError("the table of turns lets nothing else through")

    # --- login ---

    async def _log_in(self, peer: Peer, guest: _Guest, proof: Login | EnterFiles) -> None:
        # Counted before it is judged, and forgiven if it fits: else as many as come at once would be judged.
        wait = self._logins_of_address.take(peer.address, time.monotonic())
        if wait:
            self._turn_away(peer, "Too many logins from this address.", wait)
            return
        wait = self._failing(peer.address, proof.uid)
        if wait:
            self._turn_away(peer, "Too many failed logins from this address.", wait)
            return
        try:
            user = await self._prove(guest, proof)
        except LoginRefused as refusal:
            self.metrics.logins.labels("refused").inc()
            self._log.info("login refused", uid=proof.uid, device=proof.device, reason=refusal.message)
            peer.say_goodbye("login_refused", logins.REFUSAL)
            return
        except StoreUnavailable:
            self._forgive(peer.address, proof.uid)
            peer.say_goodbye("store_unavailable", "The relay cannot look anybody up at the moment.", 2_000)
            return
        self._forgive(peer.address, proof.uid)
        if peer.state is State.CLOSED:
            return
        wait = self._logins.take(user.uid, time.monotonic())  # not before: nobody uses up another's
        if wait:
            self._turn_away(peer, "Too many logins of this account.", wait)
            return
        if isinstance(proof, EnterFiles):
            peer.session = self._files.enter(peer, user.uid, proof.device, user.epoch)
            peer.logged_in()
            return
        self._names += 1
        pace = self._paces.of(user.uid, time.monotonic())
        session = _Session(self._names, user.uid, proof.device, user.epoch, peer, pace)
        peer.session = session
        peer.logged_in()
        self._sessions[session.name] = session
        self._act(self._mailbox.opened(session.name, user.uid, proof.device))
        waiting = self._mailbox.waiting(user.uid, proof.device)
        peer.send(Welcome(user.uid, waiting, _now_ms()))
        if self._nodes is not None:
            self._nodes.logged_in(user.uid, proof.device)
        self.metrics.logins.labels("accepted").inc()
        self._log.info("login", uid=user.uid, device=proof.device, waiting=waiting)

    def _turn_away(self, peer: Peer, sentence: str, wait: float) -> None:
        self.metrics.logins.labels("limited").inc()
        peer.say_goodbye("limit_reached", sentence, _milliseconds(wait))

    def _failing(self, address: str, uid: int) -> float:
        """Counts one more login of this address as failed, until it is forgiven; or says how long it has to
        wait.
        """
        now = time.monotonic()
        wait = self._failures.take((address, uid), now)
        if wait:
            return wait
        wait = self._failures_of_address.take(address, now)
        if wait:
            self._failures.give_back((address, uid))
        return wait

    def _forgive(self, address: str, uid: int) -> None:
        self._failures.give_back((address, uid))
        self._failures_of_address.give_back(address)

    async def _prove(self, guest: _Guest, proof: Login | EnterFiles) -> User:
        """Gives the user whom the proof shows, after a look at the chain if the first answer is no."""
        try:
            return await self._check(guest, proof)
        except LoginRefused:
            if not await self._look_again():
                raise
        return await self._check(guest, proof)

    async def _check(self, guest: _Guest, proof: Login | EnterFiles) -> User:
        user = await self._user(proof.uid)
        *older, newest = self._keys
        for spki in older:  # a proof is bound to the key that its connection showed
            with contextlib.suppress(LoginRefused):
                logins.check(self._deployment.network, user, proof, spki=spki, nonce=guest.nonce)
                break
        else:
            logins.check(self._deployment.network, user, proof, spki=newest, nonce=guest.nonce)
        assert user is not None, "a proof fits nobody unknown"
        return user

    # --- messages ---

    def _submit(self, session: _Session, envelope: Envelope) -> None:
        wait = session.pace.take(time.monotonic())
        if wait:
            sentence = "You send faster than this relay allows."
            self._send(session, Refused(envelope.id, "limit_reached", sentence, _milliseconds(wait)))
            return
        sender, recipient = self._users.get(session.uid), self._users.get(envelope.recipient)
        if sender is None or recipient is None:
            self._hold(session.peer, self._judge_slowly(session, envelope))
            return
        verdict = self._judge(session, envelope, sender, recipient)
        if verdict is None:
            self._store(session, envelope)
        else:
            self._hold(session.peer, self._judge_slowly(session, envelope))

    async def _judge_slowly(self, session: _Session, envelope: Envelope) -> None:
        """Judges with users from the database, and after a look at the chain where that may help."""
        try:
            verdict = await self._verdict(session, envelope)
            if isinstance(verdict, box.Ahead) or (
                isinstance(verdict, Refused) and not verdict.retry_after_ms
            ):
                await self._look_again()
                verdict = await self._verdict(session, envelope)
            if isinstance(verdict, box.Ahead):
                verdict = Refused(
                    envelope.id, "relay_behind", "The relay has not seen that block yet.", 1_000
                )
            answer: Message | None = verdict
            if answer is not None and await self._was_stored(session, envelope):
                answer = Tick(envelope.id)
        except StoreUnavailable:
            answer = Refused(envelope.id, "store_unavailable", "The relay cannot look anybody up now.", 2_000)
        if answer is None:
            self._store(session, envelope)
        else:
            self._send(session, answer)

    async def _verdict(
        self, session: _Session, envelope: Envelope
    ) -> Refused | StaleDevices | box.Ahead | None:
        sender = await self._user(session.uid)
        recipient = await self._user(envelope.recipient)
        if sender is None:  # a reorg took the registration back
            return Refused(envelope.id, "unknown_user", "The sender is no longer registered.", 0)
        return self._judge(session, envelope, sender, recipient)

    def _judge(
        self, session: _Session, envelope: Envelope, sender: User, recipient: User | None
    ) -> Refused | StaleDevices | box.Ahead | None:
        admitted = self._membership.admits(sender.uid, envelope.recipient)
        return box.judge(envelope, sender, recipient, device=session.device, admitted=admitted)

    async def _was_stored(self, session: _Session, envelope: Envelope) -> bool:
        """Whether this very message was stored and only its tick got lost: whatever has changed since, it
        counts.
        """
        digest = await self._in(
            self._readers, lambda: self._reader.accepted(session.uid, session.device, envelope.id)
        )
        return digest == _digest(envelope)

    def _store(self, session: _Session, envelope: Envelope) -> None:
        actions = self._mailbox.submit(_letter(session, envelope, _now_ms()))
        if type(actions[0]) is box.Store:
            self._keep(actions[0].letter)
        else:
            self._act(actions)

    # --- keys ---

    async def _publish(self, session: _Session, ref: int, bundle: KeyBundle) -> None:
        await self._answer(session.peer, ref, self._published(session, ref, bundle))

    async def _published(self, session: _Session, ref: int, bundle: KeyBundle) -> Message:
        self._limit_keys(session)
        if (bundle.uid, bundle.device) != (session.uid, session.device):
            raise RefusedError("A device publishes its own keys only.")
        if not await self._fits_chain(bundle):
            await self._look_again()
            if not await self._fits_chain(bundle):
                raise BadRecord("The key bundle does not belong to the record that the chain holds.")
        assert self._writer is not None
        await asyncio.wrap_future(self._writer.publish(bundle))
        return Done(ref)

    async def _fits_chain(self, bundle: KeyBundle) -> bool:
        user = await self._user(bundle.uid)
        for device in user.active_devices if user is not None else ():
            if device.device == bundle.device:
                hashed = hashlib.sha256(bundle.kem_public).digest()
                record = decode_record(device.current.record)
                return bundle.version == device.current.version and secrets.compare_digest(
                    record.kem_hash, hashed
                )
        return False

    async def _fetch(self, session: _Session, ref: int, uids: Sequence[int]) -> None:
        await self._answer(session.peer, ref, self._fetched(session, ref, uids))

    async def _fetched(self, session: _Session, ref: int, uids: Sequence[int]) -> Message:
        self._limit_keys(session)
        wait = self._lookups.take(session.uid, uids, time.monotonic())
        if wait:
            raise LimitReached("Too many users looked up.", retry_after_ms=_milliseconds(wait))
        found = await self._in(self._readers, lambda: self._reader.bundles(uids))
        active = set()
        for uid in set(uids):
            user = await self._user(uid)
            active |= {(uid, device.device) for device in user.active_devices} if user is not None else set()
        return Keys(ref, tuple(bundle for bundle in found if (bundle.uid, bundle.device) in active))

    async def _publish_prekeys(self, session: _Session, request: PublishPrekeys) -> Message:
        self._limit_keys(session)
        assert self._writer is not None
        now = _now_ms() // 1000
        return await self._prekeys.publish(self._writer, session.uid, session.device, request, now)

    async def _fetch_prekeys(self, session: _Session, request: FetchPrekeys) -> Message:
        self._limit_keys(session)
        if not await self._admits(session.uid, request.uid):
            # Registering costs nothing: who may not write to somebody must not use up their one-time keys.
            raise NotAMember("In this network only admitted members begin sessions with one another.")
        assert self._writer is not None
        now = _now_ms() // 1000
        return await self._prekeys.fetch(self._writer, session.uid, request, now, time.monotonic())

    def _limit_keys(self, session: _Session) -> None:
        wait = self._key_requests.take(session.uid, time.monotonic())
        if wait:
            raise LimitReached("Too many requests for keys.", retry_after_ms=_milliseconds(wait))

    # --- the sponsor ---

    async def _pay_for(self, peer: Peer, session: _Session | None, request: SponsorRequest) -> None:
        await self._answer(peer, request.ref, self._paid(peer, session, request))

    def _pay_all(self, orders: Sequence[Order]) -> list[Paid | ChatchainError]:
        assert self._sponsor is not None, "who has no sponsor takes no turns"
        return self._sponsor.pay_all(orders, time.monotonic())

    async def _paid(self, peer: Peer, session: _Session | None, request: SponsorRequest) -> Message:
        if self._sponsor is None:
            raise RefusedError("This relay does not pay for transactions.", "Put ether on the account.")
        crowded = session is None and self._guests_paid[peer.address] >= GUESTS_AT_ONCE
        if crowded or self._sponsoring >= SPONSORED_AT_ONCE:
            raise LimitReached("The relay is paying for as many calls as it can.", retry_after_ms=1_000)
        sponsor, call = self._sponsor, Call(request.contract, request.data)
        self._sponsoring += 1
        if session is None:
            self._guests_paid[peer.address] += 1
        try:
            user = await self._user(session.uid) if session is not None else None
            sponsor.admit(call, user, peer.address, time.monotonic())
            invitation = await self._let_in(peer, call, request)
            if session is None:
                await self._in(self._payers, lambda: sponsor.inspect(call))
            paid = await self._pay_one(Order(call, session.uid if session is not None else 0), invitation)
        except ChatchainError as error:
            if isinstance(error, CommitmentPending):
                _give_time(peer)
            self.metrics.sponsored.labels(error.code).inc()
            self._log.info("sponsor refused", code=error.code, uid=session.uid if session is not None else 0)
            raise
        finally:
            self._sponsoring -= 1
            if session is None:
                self._guests_paid[peer.address] -= 1
                self._guests_paid += Counter()  # forgets those at zero
        self.metrics.sponsored.labels("sent").inc()
        uid = session.uid if session is not None else 0
        self._log.info("sponsored", tx=paid.tx_hash.hex(), uid=uid, wei=paid.wei)
        _give_time(peer)
        return Sponsored(request.ref, paid.tx_hash)

    async def _let_in(self, peer: Peer, call: Call, request: SponsorRequest) -> Invitation | None:
        """Refuses the registration of a newcomer who neither worked for it nor is invited."""
        if self._newcomers is None or not is_registration(call):
            return None
        guest = peer.session
        if not isinstance(guest, _Guest):
            raise RefusedError("A newcomer is registered before login, on a connection of its own.")
        invitation = self._newcomers.invitation(request.admission)
        if invitation is None:
            if request.ref <= guest.worked:
                raise RefusedError("Each request for a newcomer needs work of its own.")
            self._newcomers.require_work(request.admission, guest.nonce, request.ref, call)
            guest.worked = request.ref
            return None
        self._newcomers.judge(
            invitation,
            await self._user(invitation.inviter),
            is_member=invitation.inviter in self._membership.members,
            time=int(time.time()),
            now=time.monotonic(),
        )
        return invitation

    async def _pay_one(self, order: Order, invitation: Invitation | None) -> Paid:
        """Has a call paid for; that uses an invitation up, unless the call is refused."""
        newcomers = self._newcomers
        if newcomers is None or invitation is None:
            return await self._turns.pay(order)
        spend = partial(newcomers.spend, invitation, order.call, int(time.time()))
        first = await self._in(self._payers, spend)
        try:
            return await self._turns.pay(order)
        except ChatchainError:
            if first:
                await self._in(self._payers, partial(newcomers.restore, invitation, order.call))
            raise

    # --- actions of the mailbox ---

    def _act(self, actions: Iterable[box.Action]) -> None:
        for action in actions:
            match action:
                case box.Store(letter):
                    self._keep(letter)
                case box.Ticks(name, ids):
                    session = self._sessions.get(name)
                    if session is not None:
                        session.peer.send_frames(Tick, tick_frames(ids))
                case box.Give(name, first, parcels):
                    session = self._sessions.get(name)
                    if session is not None:
                        self.metrics.deliveries.inc(len(parcels))
                        session.peer.send_frames(Deliver, deliver_frames(first, parcels))
                        self._mind_slowness(session)
                case box.Send(name, message):
                    session = self._sessions.get(name)
                    if session is not None:
                        self._send(session, message)
                case box.Remove(uid, device, through):
                    assert self._writer is not None
                    self._writer.remove(uid, device, through)
                case box.Load():
                    self._spawn(self._load(action))
                case box.Close(name, code, message):
                    session = self._sessions.pop(name, None)
                    if session is not None:
                        session.peer.say_goodbye(code, message)
                case box.Forget(uid, device):
                    self._spawn(self._forget(uid, device))

    def _send(self, session: _Session, message: Message) -> None:
        if isinstance(message, Refused):
            self.metrics.refusals.labels(message.code).inc()
        session.peer.send(message)
        self._mind_slowness(session)

    def _mind_slowness(self, session: _Session) -> None:
        if session.peer.slow:
            self._mailbox.slow(session.name, True)

    def _keep(self, letter: Letter) -> None:
        """Hands a letter to the writer, with all others of this turn of the loop."""
        session = self._sessions.get(letter.session)
        self._pending += letter.size
        if session is not None:
            session.rows += 1
            session.bytes += letter.size
            crowded = session.rows >= UNANSWERED_ROWS or session.bytes >= UNANSWERED_BYTES
            if (crowded or self._pending >= PENDING_BYTES) and not session.held:
                session.held = True
                session.peer.hold()
                self._waiting.add(session)
        if not self._letters:
            asyncio.get_running_loop().call_soon(self._hand_over)
        self._letters.append(letter)

    def _hand_over(self) -> None:
        assert self._writer is not None
        letters, self._letters = self._letters, []
        self._writer.keep(letters)

    async def _load(self, load: box.Load) -> None:
        try:
            runs, more = await self._in(
                self._readers,
                lambda: self._reader.waiting(load.uid, load.device, load.after, load.rows, load.bytes),
            )
        except StoreUnavailable as error:
            self._log.warning("read failed", reason=error.message)
            self._mailbox.load_failed(load.session)
        else:
            self._act(self._mailbox.loaded(load.session, runs, more))

    async def _forget(self, uid: int, device: int) -> None:
        """Deletes what a revoked device left; while the database is away, again and again."""
        assert self._writer is not None
        while True:
            try:
                await asyncio.wrap_future(self._writer.forget_device(uid, device))
                return
            except StoreUnavailable:
                await asyncio.sleep(SWEEP)

    # --- told by the writer, on the loop ---

    def kept(self, told: list[tuple[Letter, box.Verdict]], runs: list[Run]) -> None:
        """The store's verdicts on one batch, and the runs that it has stored."""
        for letter, _ in told:
            self._pending -= letter.size
            session = self._sessions.get(letter.session)
            if session is not None:
                session.rows -= 1
                session.bytes -= letter.size
        verdicts = Counter([verdict for _, verdict in told])
        self.metrics.repeats.inc(verdicts["duplicate"])
        if stored := verdicts["stored"]:
            self.metrics.ticks.inc(stored)
            self.metrics.batch.observe(stored)
            self.metrics.commit.observe(max(0, _now_ms() - told[0][0].received_ms) / 1000)
            if self._nodes is not None:
                self._nodes.stored(
                    (run.uid, run.device) for run in runs if not self._mailbox.holds(run.uid, run.device)
                )
        self._act(self._mailbox.kept(told, runs))
        if self._waiting:
            self._let_go()

    def expired(self, gone: list[Run], notices: list[Run]) -> None:
        """The store has given these up for their age; the notices are for their senders."""
        self.metrics.dropped.inc(sum(len(run.parcels) for run in gone))
        if self._nodes is not None:
            self._nodes.stored(
                (run.uid, run.device) for run in notices if not self._mailbox.holds(run.uid, run.device)
            )
        self._act(self._mailbox.expired(gone, notices))

    def woken(self, devices: Iterable[tuple[int, int, int]]) -> None:
        """Other processes have stored something for these: uid, device and the last sequence."""
        self._act(self._mailbox.woken(devices))

    def store_failed(self) -> None:
        """The database went away."""
        self._log.error("database away")
        self._store_sound = False
        self._mailbox.store_failed()

    def store_settled(self) -> None:
        """The database is back."""
        self._log.info("database back")
        self._spawn(self._recount())

    async def _recount(self) -> None:
        while True:
            try:
                usage, counted_to = await self._in(self._readers, self._reader.usage)
            except StoreUnavailable:
                await asyncio.sleep(SWEEP)
            else:
                self._store_sound = True
                self._act(self._mailbox.store_settled(usage, counted_to))
                return

    def _let_go(self) -> None:
        """Reads again from the connections that were held back and whose share is free."""
        for session in list(self._waiting):
            if (
                session.rows <= UNANSWERED_ROWS // 2
                and session.bytes <= UNANSWERED_BYTES // 2
                and self._pending <= PENDING_BYTES // 2
            ):
                self._waiting.discard(session)
                session.held = False
                session.peer.release()

    # --- told by the other processes' traces in the database, on the loop ---

    def holds(self, uid: int, device: int) -> bool:
        """Whether this device is connected here."""
        return self._mailbox.holds(uid, device)

    def elsewhere(self, uid: int, device: int) -> None:
        """This device has logged in through another process."""
        self._act(self._mailbox.elsewhere(uid, device))

    def recounted(self, usage: Usage, counted_to: int) -> None:
        """What waits, as the database has it."""
        self._mailbox.recounted(usage, counted_to)

    # --- the chain ---

    async def _admits(self, *uids: int) -> bool:
        """Whether policy lets all of these message, after a look at the chain if the first answer is no."""
        return self._membership.admits(*uids) or (await self._look_again() and self._membership.admits(*uids))

    async def _look_again(self) -> bool:
        """Looks at the chain now; False when it does not answer."""
        try:
            await self._refreshed()
        except (ChainError, StoreUnavailable):
            return False
        return True

    async def _refreshed(self) -> None:
        """Waits for a look at the chain that begins after this call; those who ask meanwhile share it."""
        if self._next_look is None:
            self._next_look = asyncio.create_task(self._after(self._look))
        await asyncio.shield(self._next_look)

    async def _after(self, current: asyncio.Task[None] | None) -> None:
        if current is not None:
            await asyncio.wait([current])
            await asyncio.sleep(max(0.0, self._look_ended + LOOK_GAP - time.monotonic()))
        self._look, self._next_look = self._next_look, None
        try:
            await self._refresh()
        finally:
            self._look_ended = time.monotonic()

    async def _refresh(self) -> None:
        changes = await self._in(self._chain, self._keeper.refresh)
        self._looked_at = time.monotonic()
        self.metrics.head.set(changes.head)
        self._apply(changes)

    def _apply(self, changes: Changes) -> None:
        for uid in changes.gone:
            self._users.pop(uid, None)
            self._end_sessions(uid, "login_refused", "The chain does not know this user any more.")
        for user in changes.users:
            if user.uid in self._users:
                self._users[user.uid] = user
            for device in user.devices:
                if device.state is DeviceState.REVOKED:
                    self._act(self._mailbox.revoked(user.uid, device.device))
                    self._files.end(user.uid, "revoked", "This device was revoked.", device=device.device)
            self._end_sessions(
                user.uid,
                "login_refused",
                "The account's key was replaced; log in anew.",
                except_epoch=user.epoch,
            )
        if changes.membership is not None:
            self._membership = changes.membership
        if changes.users or changes.gone:
            self._log.info(
                "users changed", count=len(changes.users), gone=len(changes.gone), head=changes.head
            )

    def _end_sessions(self, uid: int, code: str, message: str, *, except_epoch: int = -1) -> None:
        for name in self._mailbox.sessions_of(uid):
            session = self._sessions.get(name)
            if session is not None and session.epoch != except_epoch:
                session.peer.say_goodbye(code, message)
        self._files.end(uid, code, message, except_epoch=except_epoch)

    async def _load_membership(self) -> None:
        found = await self._in(self._readers, self._reader.membership)
        if found is not None:
            self._membership = Membership(*found)

    async def _user(self, uid: int) -> User | None:
        """A user from the cache or the database; raises StoreUnavailable."""
        user = self._users.get(uid)
        if user is not None:
            return user
        user = await self._in(self._readers, lambda: self._reader.user(uid))
        if user is not None:
            self._users[uid] = user
            if len(self._users) > CACHED_USERS:
                self._users.popitem(last=False)
        return user

    # --- forever ---

    async def _follow(self) -> None:
        """Follows the chain; when it does not answer, more and more patiently."""
        pause, complained = POLL, False
        while True:
            try:
                await self._refreshed()
                if complained:
                    self._log.info("chain back")
                pause, complained = POLL, False
            except (ChainError, NetworkError) as error:
                if not complained:
                    self._log.warning("chain not followed", code=error.code, reason=error.message)
                pause, complained = min(pause * 2, 10.0), True
            await asyncio.sleep(pause)

    async def _sweep(self) -> None:
        """Looks after deadlines, heartbeats and reads that are due."""
        loop = asyncio.get_running_loop()
        nonce = 0
        while True:
            await asyncio.sleep(SWEEP)
            now = loop.time()
            nonce += 1
            for peer in list(self._peers):
                if peer.deadline and now > peer.deadline:
                    peer.say_goodbye("login_deadline", "Nobody logged in on this connection.")
                elif now > peer.heard + deadlines.SILENCE and not peer.held:
                    peer.abort()
                elif now > peer.heard + deadlines.HEARTBEAT and now > peer.asked + deadlines.HEARTBEAT:
                    peer.asked = now
                    peer.send(Ping(nonce))
            self._act(self._mailbox.poll())

    async def _prune(self) -> None:
        """Forgets old message ids, a batch now and then."""
        assert self._writer is not None
        while True:
            try:
                more = await asyncio.wrap_future(self._writer.prune(_now_ms()))
            except StoreUnavailable:
                more = False
            await asyncio.sleep(SWEEP if more else PRUNE)

    async def _expire(self) -> None:
        """Gives up what nobody fetched in time, a batch now and then."""
        assert self._writer is not None
        while True:
            now = _now_ms()
            try:
                more = await asyncio.wrap_future(
                    self._writer.expire(now - self._quota.days * DAY_MS, now, notices)
                )
            except StoreUnavailable:
                more = False
            await asyncio.sleep(SWEEP if more else PRUNE)

    async def _tend(self, sponsor: Sponsor) -> None:
        """Sees the sponsor's transactions through."""
        await self._in(self._payers, sponsor.prepare)
        while True:
            await asyncio.sleep(TEND)
            try:
                await self._in(self._payers, sponsor.tend)
            except (ChainError, StoreUnavailable) as error:
                self._log.warning("transactions not tended", code=error.code)

    # --- small parts ---

    async def _answer(self, peer: Peer, ref: int, work: Coroutine[None, None, Message]) -> None:
        """Sends what the work gives, or why it failed."""
        try:
            answer = await work
        except ChatchainError as error:
            retry = getattr(error, "retry_after_ms", 2_000 if isinstance(error, NetworkError) else 0)
            sentence = f"{error.message} {error.hint}".strip()
            answer = Failed(ref, error.code, sentence[:1000], retry)
        peer.send(answer)

    def _hold(self, peer: Peer, work: Coroutine[None, None, None]) -> None:
        """Does the work before anything else that this peer has said."""
        peer.hold()
        self._spawn(self._held(peer, work))

    async def _held(self, peer: Peer, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Exception:
            peer.say_goodbye("relay_failure", "The relay failed at this; it is a bug.", 5_000)
            raise
        finally:
            peer.release()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._log.error("bug", exc_info=task.exception())

    async def _in(self, pool: Executor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work)


_ENCODER: Final = msgspec.msgpack.Encoder()


def _give_time(peer: Peer) -> None:
    """The chain has to mine what was paid for a stranger before it can log in."""
    if peer.deadline:
        peer.deadline = asyncio.get_running_loop().time() + deadlines.SPONSORED


def _digest(envelope: Envelope) -> bytes:
    """Tells whether a message sent again is the same; whoever forges it deceives nobody else."""
    return hashlib.sha256(_ENCODER.encode(envelope)).digest()[:16]


def _letter(session: _Session, envelope: Envelope, now_ms: int) -> Letter:
    uid, device = session.uid, session.device
    parcels, size = [], LETTER_BYTES
    for copy in envelope.copies:
        made = parcel(envelope, copy, uid, device, now_ms)
        parcels.append((copy.uid, copy.device, made))
        size += len(made)
    return Letter(session.name, uid, device, envelope.id, _digest(envelope), now_ms, tuple(parcels), size)


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000) + 1


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
