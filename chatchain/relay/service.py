"""The relay: takes each connection's messages to the part that serves them.

Everything here runs on the event loop and decides nothing. `authentication` tells who a connection is,
`letters` carries messages, `signals` what is not kept, `keys` answers for key bundles and prekeys, `files`
for files, `sponsoring` for what is paid, `follower` brings what the chain says, `housekeeping` does what is
due. Those know each other only in this order: `users`, `follower`, then the rest beside one another.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from typing import Final

import msgspec
from structlog.typing import FilteringBoundLogger

from chatchain.errors import ProtocolViolation
from chatchain.model import DeviceState, Network
from chatchain.relay import login
from chatchain.relay.allowance import Allowance
from chatchain.relay.authentication import Authentication
from chatchain.relay.clocks import Clocks
from chatchain.relay.directory import Changes
from chatchain.relay.files import Files, FileSession
from chatchain.relay.follower import Follower
from chatchain.relay.housekeeping import chores
from chatchain.relay.keys import KeyDesk
from chatchain.relay.letters import Letters
from chatchain.relay.limits import Buckets, Rate
from chatchain.relay.metrics import Metrics
from chatchain.relay.newcomers import Newcomers
from chatchain.relay.nodes import Bus, Fold, Nodes
from chatchain.relay.ports import BlobParts, BlobTable, Peer, Reader, Writer
from chatchain.relay.sessions import Guest, Session
from chatchain.relay.signals import Signals
from chatchain.relay.sponsor import Sponsor
from chatchain.relay.sponsoring import Sponsoring
from chatchain.relay.tasks import Tasks, Threads
from chatchain.relay.users import Users
from chatchain.wire.intake import Intake
from chatchain.wire.messages import (
    PROTOCOL_VERSION,
    Acknowledge,
    Challenge,
    EnterFiles,
    FetchKeys,
    FetchPrekeys,
    Login,
    Message,
    PublishKeys,
    PublishPrekeys,
    Receive,
    Resume,
    Signal,
)
from chatchain.wire.messages import (
    Sponsor as SponsorRequest,
)

NOTED: Final = Rate(burst=10, per_second=1 / 60)
"""Breaches of the protocol from one address that are logged: whoever repeats them must not fill the disk."""

FAREWELL: Final = 1.0
"""Of the seconds in which a relay ends, those that are left for the goodbyes to be read."""

GOODBYE: tuple[str, str, int] = "shutdown", "The relay is stopping.", 1_000

BUSY: tuple[str, str, int] = "relay_busy", "The relay's database does not keep up; come again.", 5_000
"""For whoever comes while those who are there have sent as much as the relay can keep."""


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
        files: tuple[BlobParts, BlobTable],
        nodes: Nodes | None = None,
        signals: Bus | None = None,
        clocks: Clocks | None = None,
    ) -> None:
        """`files` are where the bytes of files lie and the table that names them."""
        allowed = allowance or Allowance()
        network = deployment.network
        self._network = network
        self._log = log
        self.metrics = metrics = metrics or Metrics()
        self._nodes = nodes
        self._days = allowed.quota.days
        self.intake = intake = Intake(read=allowed.read, unfinished=allowed.unfinished)
        """Counts what all connections send; the listener tells it."""
        metrics.read.set_function(lambda: intake.read)
        metrics.unread.set_function(lambda: intake.waiting)
        metrics.unfinished.set_function(lambda: intake.unfinished)
        self._clocks = clocks = clocks or Clocks()
        metrics.clock_ahead.set_function(lambda: clocks.ahead_ms / 1000)
        self._peers: set[Peer] = set()
        self._draining = False
        self.accepting = False
        """Whether connections are accepted; the program says so."""
        self._noted = Buckets(NOTED)
        self._tasks = tasks = Tasks(log)
        self._readers = readers = Threads(2, "store-reader")
        users = Users(reader, readers)
        self._follower = follower = Follower(keeper, users, self._changed, log=log, metrics=metrics)
        self._authentication = Authentication(
            network,
            deployment.spki,
            allowance=allowed,
            users=users,
            follower=follower,
            log=log,
            metrics=metrics,
        )
        self.letters = Letters(
            reader,
            readers,
            users=users,
            follower=follower,
            nodes=nodes,
            allowance=allowed,
            tasks=tasks,
            intake=intake,
            log=log,
            metrics=metrics,
        )
        """Hears what the writer and the other processes tell."""
        self._signals = Signals(
            self.letters.listening, nodes=nodes, bus=signals, users=users, allowance=allowed, metrics=metrics
        )
        self._keys = KeyDesk(
            reader,
            readers,
            users=users,
            follower=follower,
            allowance=allowed,
        )
        self._sponsoring = Sponsoring(sponsor, newcomers, users=users, log=log, metrics=metrics)
        self._files = Files(
            *files,
            limits=allowed.files,
            requests=allowed.file_requests,
            moving=allowed.moving,
            log=log,
            metrics=metrics,
            admits=follower.admits,
            hold=tasks.hold,
            spawn=tasks.spawn,
            deleting_ms=lambda: clocks.deleting_ms,
        )

    # --- life ---

    async def start(self, writer: Writer) -> None:
        """Looks at chain and database once, and begins to follow them; raises ChainError or
        StoreUnavailable.
        """
        if self._nodes is not None:
            await self._nodes.start(self.letters)
        self._keys.start(writer)
        self._signals.start()
        await self.letters.start(writer)
        await self._follower.start()
        for work in (
            self._follower.follow(),
            *chores(writer, self._peers, self.letters, self._clocks, self.intake, self._log, days=self._days),
            self._files.sweep(),
            self._sponsoring.tend(),
            *(self._nodes.work() if self._nodes is not None else ()),
        ):
            self._tasks.spawn(work)

    async def drain(self, seconds: float) -> None:
        """Says goodbye to everybody once what they submitted is answered, for so many seconds at most."""
        self._draining = True
        self.accepting = False
        deadline = time.monotonic() + seconds
        for peer in list(self._peers):
            peer.hold()
        answered = deadline - min(FAREWELL, seconds / 2)
        while self.letters.pending and time.monotonic() < answered:  # noqa: ASYNC110  # once in a life
            await asyncio.sleep(0.02)
        for peer in list(self._peers):
            peer.say_goodbye(*GOODBYE)
        while self._peers and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        for peer in list(self._peers):
            peer.abort()
        if self._nodes is not None:
            await self._nodes.close()
        await self._signals.close()
        self._tasks.stop()
        self._sponsoring.stop()
        self._follower.stop()
        self._readers.stop()
        self._files.stop()

    def health(self) -> dict[str, object]:
        """What /health shows."""
        database, chain = self.letters.store_sound, self._follower.fresh
        return {
            "ok": database and chain and not self._draining,
            "database": database,
            "chain": chain,
            "clock": self._clocks.verdict,
            "sponsor": self._sponsoring.state,
            "draining": self._draining,
            "accepting": self.accepting,
            "connections": len(self._peers),
            "sessions": self.letters.sessions,
        }

    def renewed(self, spki: bytes) -> None:
        """New connections show another key."""
        self._authentication.renewed(spki)

    # --- transport.Handler ---

    def opened(self, peer: Peer) -> None:
        """Greets a connection with a nonce of its own."""
        self._peers.add(peer)
        self.metrics.connections.inc()
        peer.session = guest = Guest(secrets.token_bytes(login.NONCE_BYTES))
        network, now_ms = self._network, time.time_ns() // 1_000_000
        work = self._sponsoring.work_announced
        peer.send(Challenge(PROTOCOL_VERSION, guest.nonce, network.chain_id, network.directory, now_ms, work))
        if self._draining:
            peer.say_goodbye(*GOODBYE)
        elif self.intake.shut:
            peer.say_goodbye(*BUSY)

    def closed(self, peer: Peer) -> None:
        """Forgets a connection."""
        self._peers.discard(peer)
        self.metrics.connections.dec()
        if isinstance(peer.session, Session):
            self.letters.closed(peer.session)
        elif isinstance(peer.session, FileSession):
            self._files.closed(peer.session)
        peer.session = None

    def violated(self, peer: Peer, violation: ProtocolViolation) -> None:
        """Notes a breach of the protocol; the connection is being closed."""
        self.metrics.violations.inc()
        if not self._noted.take(peer.address, time.monotonic()):
            self._log.info("violation", address=peer.address, reason=violation.message)

    def writable(self, peer: Peer) -> None:
        """Goes on with a peer that was slow."""
        if isinstance(peer.session, Session):
            self.letters.writable(peer.session)
        elif isinstance(peer.session, FileSession):
            self._files.writable(peer.session)

    def received(self, peer: Peer, message: Message) -> None:
        """Serves one message."""
        session = peer.session
        if isinstance(session, Session):
            self._serve(session, message)
        elif isinstance(session, FileSession):
            self._files.received(session, message)
        elif isinstance(session, Guest):
            self._greet(peer, session, message)

    def submitted(self, peer: Peer, inbox: deque[Message]) -> None:
        """Takes what is to be stored."""
        if isinstance(peer.session, Session):
            self.letters.submitted(peer.session, inbox)
        else:  # its session has ended
            inbox.popleft()

    def _serve(self, session: Session, message: Message) -> None:
        match message:
            case Acknowledge(sequences):
                self.letters.acknowledge(session, sequences)
            case Signal(envelope):
                self._tasks.hold(session.peer, self._signals.send(session, envelope))
            case Resume(space, after):
                self.letters.resume(session, space, after)
            case Receive():
                self.letters.receive(session)
            case PublishKeys(ref) | FetchKeys(ref) | PublishPrekeys(ref) | FetchPrekeys(ref):
                self._tasks.answer(session.peer, ref, self._keys.answer(session, message))
            case SponsorRequest(ref):
                paid = self._sponsoring.pay_for(session.peer, session, message)
                self._tasks.answer(session.peer, ref, paid)
            case _:
                raise AssertionError("the table of turns lets nothing else through")

    def _greet(self, peer: Peer, guest: Guest, message: Message) -> None:
        if isinstance(message, Login | EnterFiles):
            self._tasks.hold(peer, self._log_in(peer, guest, message))
        elif isinstance(message, SponsorRequest):
            self._tasks.answer(peer, message.ref, self._sponsoring.pay_for(peer, None, message))

    async def _log_in(self, peer: Peer, guest: Guest, proof: Login | EnterFiles) -> None:
        user = await self._authentication.admit(peer, guest, proof)
        if user is None:
            return
        if self.intake.shut:
            peer.say_goodbye(*BUSY)
        elif isinstance(proof, Login):
            self.letters.enter(peer, user, proof.device)
        else:
            peer.session = self._files.enter(peer, user.uid, proof.device, user.epoch)
            peer.logged_in()

    # --- told by the follower ---

    def _changed(self, changes: Changes) -> None:
        if changes.time_ms:
            self._clocks.heard(changes.time_ms)
        for uid in changes.gone:
            self._end(uid, "The chain does not know this user any more.")
        for user in changes.users:
            for device in user.devices:
                if device.state is DeviceState.REVOKED:
                    self.letters.revoked(user.uid, device.device)
                    self._files.end(user.uid, "revoked", "This device was revoked.", device=device.device)
            self._end(user.uid, "The account's key was replaced; log in anew.", except_epoch=user.epoch)

    def _end(self, uid: int, message: str, *, except_epoch: int = -1) -> None:
        self.letters.end(uid, "login_refused", message, except_epoch=except_epoch)
        self._files.end(uid, "login_refused", message, except_epoch=except_epoch)
