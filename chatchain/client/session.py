"""A session with a relay: one link whose incoming messages are sorted to those who wait for them.

Answers find their question by `ref` or by message id, deliveries go into a bounded queue, and when the link
ends everybody who waits learns why. What the messages mean is other machines' business.
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final, TypeVar

from chatchain.client.ports import Link
from chatchain.crypto.prekeys import (
    PrekeyBundle,
    Upload,
    decode_bundle,
    encode_one_time,
    encode_signed_key,
)
from chatchain.errors import (
    AlreadyDone,
    AlreadyVoted,
    BadRecord,
    CertificateMismatch,
    ChatchainError,
    CommitmentPending,
    InvitationRefused,
    LimitReached,
    LoginRefused,
    MalformedName,
    NameUnavailable,
    NetworkError,
    NotAMember,
    NotFoundError,
    ProtocolViolation,
    RefusedError,
    RelayFailure,
    Reverted,
    StoreUnavailable,
    TooLarge,
    UnknownDevice,
    UnknownProposal,
    UnknownUser,
    VerificationError,
    VotingClosed,
    WrongChain,
)
from chatchain.identity.admission import INVITED_ONLY, Invitation, work_for
from chatchain.identity.login import login_proof
from chatchain.model import Call, Delivery, Envelope, KeyBundle, MessageId, Network, Progress
from chatchain.wire.bounds import MAX_FETCHED_DEVICES
from chatchain.wire.messages import (
    Acknowledge,
    ClientMessage,
    Deliver,
    Done,
    Failed,
    FetchKeys,
    FetchPrekeys,
    Goodbye,
    Keys,
    Login,
    Prekeys,
    PrekeysLeft,
    PublishKeys,
    PublishPrekeys,
    Refused,
    RelayMessage,
    Resume,
    Resumed,
    Signal,
    Signaled,
    Sponsor,
    Sponsored,
    StaleDevices,
    Submit,
    Tick,
    Welcome,
)

MAX_DELIVERIES: Final = 1024
"""Deliveries that may wait here to be stored: twice what a relay sends before it wants acknowledgements."""

MAX_SIGNALS: Final = 64
"""Deliveries of all kinds that wait here for a signal to be taken in besides."""

MAX_WAITING_BYTES: Final = 4 * 1024 * 1024
"""Bytes of such deliveries: eight times what a relay sends before it wants acknowledgements."""

ACKNOWLEDGE_S: Final = 0.02
ACKNOWLEDGE_MOST: Final = 64
ACKNOWLEDGE_BYTES: Final = 64 * 1024
"""An acknowledgement goes at once, unless another went so many seconds before: then it waits for the rest of
them, or until so many deliveries or bytes are stored. So a relay that has much for a device hears of many at
a time, and goes on meanwhile: it sends eight times as many, and as much, before it waits.
"""

FAREWELL_S: Final = 1.0
"""How long the end of a session waits for the relay to take the last acknowledgement."""

ANSWER_S: Final = 20.0
"""How long a relay may think about a request before it counts as gone."""

_WITHHELD: Final = "The relay gives out no keys to begin a session with this user now."

Verdict = Tick | Refused | StaleDevices
"""What a relay says about a submitted envelope."""

_Answer = Done | Keys | PrekeysLeft | Prekeys | Sponsored
_T = TypeVar("_T")


@dataclass(frozen=True, repr=False)
class Credentials:
    """What this device logs in with."""

    uid: int
    device: int
    epoch: int
    kdf: bytes
    login_key: bytes
    signer: bytes


_REASONS: Final[dict[str, type[ChatchainError]]] = {
    kind.code: kind
    for kind in (
        AlreadyDone,
        AlreadyVoted,
        CommitmentPending,
        InvitationRefused,
        LimitReached,
        MalformedName,
        NameUnavailable,
        NotAMember,
        NotFoundError,
        RefusedError,
        Reverted,
        StoreUnavailable,
        TooLarge,
        UnknownDevice,
        UnknownProposal,
        UnknownUser,
        VerificationError,
        VotingClosed,
    )
}
"""What a relay may say of one request, in its own name or the contract's. The list is closed: a relay has no
say about a password, the chain or the end of the program.
"""

_PARTINGS: Final[dict[str, type[ChatchainError]]] = {
    "login_refused": LoginRefused,
    "replaced": LoginRefused,  # another session of this device took over: connecting again would be wrong
    "revoked": LoginRefused,
    "limit_reached": LimitReached,
    "store_unavailable": StoreUnavailable,
    "protocol_violation": ProtocolViolation,
}
"""What a relay may say in a Goodbye."""

LONGEST_DELAY_MS: Final = 24 * 3600 * 1000
"""A relay that asks for a longer pause than a day has no idea when."""


def failure(code: str, message: str, retry_after_ms: int = 0) -> ChatchainError:
    """The error that a relay's code and sentence about one request stand for; any other code is RelayFailure.

    The sentence is the relay's word and is shown as such; only its printable characters are kept.
    """
    return _error(_REASONS.get(code, RelayFailure), message, retry_after_ms)


def parting(code: str, message: str, retry_after_ms: int = 0) -> ChatchainError:
    """The error that a relay's Goodbye stands for; a code that ends no session is RelayFailure."""
    parted = _error(_PARTINGS.get(code, RelayFailure), message, retry_after_ms)
    if code == "revoked":
        parted.hint = "`chatchain whoami` says when that was, and what to do."
    return parted


def _error(kind: type[ChatchainError], message: str, retry_after_ms: int) -> ChatchainError:
    sentence = (
        "".join(char if char.isprintable() else " " for char in message)[:500] or "The relay gave no reason."
    )
    if issubclass(kind, LimitReached | RelayFailure):
        return kind(sentence, retry_after_ms=min(max(retry_after_ms, 0), LONGEST_DELAY_MS))
    return kind(sentence)


class Session:
    """A link at work. `start` reads it until it ends; afterwards every call raises why it ended."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.waiting = 0
        """How many deliveries the relay held for this device at login."""
        self.announced = 0
        """How many of those have not come yet."""
        self.fruitful = False
        """Whether anything was delivered, or a message of ours taken: more than a login came of it."""
        self._held = 0  # bytes of the deliveries that wait
        self._receiving = False
        self._space = 0  # in which the relay's sequences count
        self._taken = 0  # bytes that were given out to be stored
        self._stored: list[int] = []  # sequences that the relay is not told of yet
        self._stored_bytes = 0
        self._told_at = -math.inf  # when it was told last
        self._telling: asyncio.Task[None] | None = None
        self.ended = asyncio.Event()
        self._ended: ChatchainError | None = None
        self._welcome: asyncio.Future[Welcome] = asyncio.get_running_loop().create_future()
        self._answers: dict[int, asyncio.Future[_Answer]] = {}
        self._verdicts: dict[MessageId, asyncio.Future[Verdict]] = {}
        self._deliveries: asyncio.Queue[Delivery | None] = asyncio.Queue(MAX_DELIVERIES)
        self._refs = 0
        self._writing = asyncio.Lock()
        self._reader = asyncio.create_task(self._read())

    # --- life ----------------------------------------------------------------------------------------------

    @property
    def why(self) -> ChatchainError | None:
        """Why the link ended, if it has."""
        return self._ended

    @property
    def alive(self) -> bool:
        """Whether the link still stands."""
        return self._ended is None

    async def close(self) -> None:
        """Says what else is stored, as far as the relay listens, and ends the link; never raises."""
        try:
            with suppress(ChatchainError, TimeoutError):
                async with asyncio.timeout(FAREWELL_S):
                    if self._telling is not None:
                        self._telling.cancel()
                        await asyncio.wait([self._telling])  # it gives back what it has not said
                    await self._acknowledge()
        finally:
            self._end(NetworkError("The session was closed."))
            self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self.link.close()

    async def login(self, network: Network, who: Credentials) -> None:
        """Proves password and device; raises LoginRefused and other errors that the relay gives as its
        reason.
        """
        challenge = self.link.challenge
        if (challenge.chain_id, challenge.directory) != (network.chain_id, network.directory):
            raise WrongChain("The relay serves another network than the chain that named it.")
        proof = login_proof(
            network,
            spki=self.link.spki,
            nonce=challenge.nonce,
            uid=who.uid,
            device=who.device,
            epoch=who.epoch,
            login_key=who.login_key,
            signer=who.signer,
        )
        await self._send(
            Login(who.uid, who.device, who.epoch, who.kdf, proof.login_signature, proof.device_signature)
        )
        welcome = await self._within(asyncio.shield(self._welcome))
        if welcome.uid != who.uid:
            raise ProtocolViolation("The relay welcomed somebody else.")
        self.waiting = self.announced = welcome.waiting

    # --- requests -------------------------------------------------------------------------------------------

    async def publish(self, bundle: KeyBundle) -> None:
        """Gives the relay this device's key bundle."""
        await self._ask(lambda ref: PublishKeys(ref, bundle), Done)

    async def fetch(self, uids: tuple[int, ...]) -> tuple[KeyBundle, ...]:
        """The key bundles of these users' devices: the relay's word, to be checked."""
        return (await self._ask(lambda ref: FetchKeys(ref, uids), Keys)).bundles

    async def prekeys_left(self, version: int) -> tuple[int, int]:
        """How many one-time prekeys of each sort (X25519, KEM) the relay holds for this device."""
        left = await self._ask(lambda ref: PublishPrekeys(ref, version, b"", b"", (), ()), PrekeysLeft)
        return left.one_time, left.kem_one_time

    async def publish_prekeys(self, version: int, upload: Upload) -> None:
        """Gives the relay this device's prekeys."""
        signed, kem = encode_signed_key(upload.signed), encode_signed_key(upload.last_resort)
        one_time = tuple(map(encode_one_time, upload.one_time))
        kem_one_time = tuple(map(encode_signed_key, upload.kem_one_time))
        await self._ask(
            lambda ref: PublishPrekeys(ref, version, signed, kem, one_time, kem_one_time), PrekeysLeft
        )

    async def fetch_prekeys(
        self, devices: Sequence[tuple[int, int]]
    ) -> tuple[list[PrekeyBundle], dict[int, ChatchainError]]:
        """A prekey bundle of each of these devices, named as (uid, device), in as few requests as it takes:
        the relay's word, to be verified. And by user why the relay gives none, where it says so.
        """
        found: list[PrekeyBundle] = []
        withheld: dict[int, ChatchainError] = {}
        for start in range(0, len(devices), MAX_FETCHED_DEVICES):
            some = tuple(devices[start : start + MAX_FETCHED_DEVICES])
            try:
                answer = await self._ask(functools.partial(FetchPrekeys, devices=some), Prekeys)
            except LimitReached as limit:
                if not start:
                    raise
                # One-time keys that were given out are used up: they must not be drawn in vain.
                for uid, _ in devices[start:]:
                    withheld.setdefault(uid, limit)
                break
            for data in answer.bundles:
                with suppress(BadRecord):
                    found.append(decode_bundle(data))
            for one in answer.withheld:
                withheld.setdefault(one.uid, failure(one.code, _WITHHELD, one.retry_after_ms))
        return found, withheld

    async def sponsor(self, call: Call) -> bytes:
        """Has the relay pay for a signed call; gives the transaction's hash."""
        return (await self._ask(lambda ref: Sponsor(ref, call.contract, call.data), Sponsored)).tx_hash

    async def sponsor_newcomer(self, call: Call, invitation: Invitation | None = None) -> bytes:
        """The same for a registration, with an invitation or the work that the relay asks for."""
        if invitation is not None:
            admission = invitation.encode()
            return (await self._ask(lambda ref: _newcomer(ref, call, admission), Sponsored)).tx_hash
        challenge = self.link.challenge
        if challenge.work == INVITED_ONLY:
            raise RefusedError(
                "This relay pays only for newcomers whom a member has invited.",
                "Ask a member for an invitation (`chatchain invite`), and give it with --invitation.",
            )
        self._refs += 1
        ref, admission = self._refs, b""
        if challenge.work:
            admission = await asyncio.to_thread(work_for, challenge.nonce, ref, call, challenge.work)
        return (await self._ask(lambda _: _newcomer(ref, call, admission), Sponsored, ref)).tx_hash

    async def submit(self, envelope: Envelope) -> Awaitable[Verdict]:
        """Writes an envelope and gives what will become the relay's verdict; submitting again replaces the
        waiting.
        """
        self._check()
        verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        verdict.add_done_callback(_retrieved)
        self._verdicts[MessageId(envelope.id)] = verdict
        await self._send(Submit(envelope))
        return verdict

    async def signal(self, envelope: Envelope) -> None:
        """Hands over what is for those who are there now; nobody says what became of it."""
        await self._send(Signal(envelope))

    # --- deliveries -----------------------------------------------------------------------------------------

    async def receive(self, known: Progress) -> None:
        """Has the relay start to deliver what this home lacks, which has come so far at it; asked once a
        session.
        """
        if self._receiving:
            return
        self._receiving = True
        await self._send(Resume(known.space, known.after))

    def progress(self, deliveries: Sequence[Delivery]) -> Progress:
        """How far this home has come at the relay once these are stored."""
        return Progress(self.link.spki, self._space, max(delivery.sequence for delivery in deliveries))

    async def deliveries(self, limit: int) -> list[Delivery]:
        """Waits for at least one delivery and gives up to `limit` of them; raises why the link ended.

        Those without a sequence are signals.
        """
        batch: list[Delivery] = []
        while len(batch) < limit and (not batch or not self._deliveries.empty()):
            if self._ended is not None and self._deliveries.empty():
                raise self._ended
            delivery = await self._deliveries.get()
            if delivery is not None:
                if delivery.sequence:
                    self.announced = max(self.announced - 1, 0)
                    self._taken += _size(delivery)
                self._held -= _size(delivery)
                batch.append(delivery)
            elif not batch:
                self._check()
            else:
                break
        return batch

    @property
    def idle(self) -> bool:
        """Whether no delivery waits to be taken."""
        return self._deliveries.empty()

    async def acknowledge(self, sequences: tuple[int, ...]) -> None:
        """Says that these deliveries are stored: now, or in a moment together with those that follow."""
        self._check()
        self._stored += sequences
        self._stored_bytes, self._taken = self._stored_bytes + self._taken, 0
        enough = len(self._stored) >= ACKNOWLEDGE_MOST or self._stored_bytes >= ACKNOWLEDGE_BYTES
        try:
            if enough or self._due_in() <= 0:
                await self._acknowledge()
        finally:
            if self._stored and (self._telling is None or self._telling.done()):
                self._telling = asyncio.create_task(self._acknowledge_soon())

    def _due_in(self) -> float:
        return self._told_at + ACKNOWLEDGE_S - asyncio.get_running_loop().time()

    async def _acknowledge_soon(self) -> None:
        with suppress(ChatchainError):  # the link has ended, which whoever uses it next is told
            while self._stored:  # more may be stored while the relay takes its time
                await asyncio.sleep(self._due_in())
                await self._acknowledge()

    async def _acknowledge(self) -> None:
        if self._stored:
            stored, self._stored, self._stored_bytes = self._stored, [], 0
            self._told_at = asyncio.get_running_loop().time()
            try:
                await self._send(Acknowledge(tuple(stored)))
            except asyncio.CancelledError:
                self._stored[:0] = stored  # better twice than never: the relay would wait for it
                raise

    # --- inside ---------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._ended is not None:
            raise self._ended

    async def _send(self, message: ClientMessage) -> None:
        self._check()
        async with self._writing:
            try:
                await self.link.send(message)
            except NetworkError as broken:
                # The relay's Goodbye may lie unread behind a broken pipe: it is the better reason.
                await asyncio.wait([self._reader], timeout=1.0)
                raise (self._ended or broken) from broken

    async def _within(self, answer: Awaitable[_T]) -> _T:
        try:
            async with asyncio.timeout(ANSWER_S):
                return await answer
        except TimeoutError as late:
            raise RelayFailure("The relay takes too long to answer.", "Try again in a moment.") from late

    async def _ask(
        self, build: Callable[[int], ClientMessage], expected: type[_T], ref: int | None = None
    ) -> _T:
        self._check()
        if ref is None:
            self._refs += 1
            ref = self._refs
        answer: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(_retrieved)
        self._answers[ref] = answer
        try:
            await self._send(build(ref))
            given = await self._within(answer)
        finally:
            self._answers.pop(ref, None)
        if not isinstance(given, expected):
            raise ProtocolViolation("The relay answered another question than was asked.")
        return given

    async def _read(self) -> None:
        try:
            while True:
                self._dispatch(await self.link.receive())
        except ChatchainError as broken:
            self._end(broken)
        except Exception as bug:
            # Whoever waits on a session that nobody reads waits for ever, so it ends, whatever went wrong.
            violation = ProtocolViolation(
                f"Something that the relay sent could not be dealt with ({type(bug).__name__}).",
                "Update chatchain; if this happens again, report it.",
            )
            violation.__cause__ = bug
            self._end(violation)

    def _dispatch(self, message: RelayMessage) -> None:
        match message:
            case Deliver(delivery):
                if not self._space:
                    raise ProtocolViolation("The relay delivers without saying what its numbers mean.")
                if self._deliveries.full() or self._held + _size(delivery) > MAX_WAITING_BYTES:
                    raise ProtocolViolation("The relay sends without waiting for acknowledgements.")
                self._held += _size(delivery)
                self._deliveries.put_nowait(delivery)
                self.fruitful = True
            case Signaled(delivery):
                if self._deliveries.qsize() < MAX_SIGNALS:  # else there is more to do than to look who types
                    self._held += _size(delivery)
                    self._deliveries.put_nowait(delivery)
            case Tick(id) | Refused(id) | StaleDevices(id):
                self.fruitful = self.fruitful or isinstance(message, Tick)
                verdict = self._verdicts.pop(MessageId(id), None)
                if verdict is not None and not verdict.done():
                    verdict.set_result(message)
            case Done(ref) | Keys(ref) | PrekeysLeft(ref) | Prekeys(ref) | Sponsored(ref):
                self._answer(ref, message)
            case Failed(ref, code, sentence, retry):
                self._answer(ref, failure(code, sentence, retry))
            case Resumed(space):
                self._space = space
            case Welcome():
                if not self._welcome.done():
                    self._welcome.set_result(message)
            case Goodbye(code, sentence, retry):
                raise parting(code, sentence, retry)
            case _:
                raise ProtocolViolation(f"The relay sent {type(message).__name__} where it makes no sense.")

    def _answer(self, ref: int, answer: _Answer | ChatchainError) -> None:
        waiting = self._answers.pop(ref, None)
        if waiting is None:
            if not self._welcome.done() and isinstance(answer, ChatchainError):
                self._welcome.set_exception(answer)
            return
        if waiting.done():
            return
        if isinstance(answer, ChatchainError):
            waiting.set_exception(answer)
        else:
            waiting.set_result(answer)

    def _end(self, why: ChatchainError) -> None:
        if self._ended is not None:
            return
        self._ended = why
        self.ended.set()
        _fail(self._welcome, why)
        for answer in self._answers.values():
            _fail(answer, why)
        for verdict in self._verdicts.values():
            _fail(verdict, why)
        _retrieved(self._welcome)
        self._verdicts.clear()
        if self._deliveries.empty():
            self._deliveries.put_nowait(None)


def _newcomer(ref: int, call: Call, admission: bytes) -> Sponsor:
    return Sponsor(ref, call.contract, call.data, admission)


def _size(delivery: Delivery) -> int:
    return len(delivery.header) + len(delivery.body)


def _fail(future: asyncio.Future[_T], why: ChatchainError) -> None:
    if not future.done():
        future.set_exception(why)


def _retrieved(future: asyncio.Future[_T]) -> None:
    """Marks a failure as seen, so that one nobody waits for any more is not reported as lost."""
    if future.done() and not future.cancelled():
        future.exception()


@contextmanager
def made_up_for_later() -> Iterator[None]:
    """Lets a failing network pass where a later attempt makes up for it; a wrong certificate never passes."""
    try:
        yield
    except CertificateMismatch:
        raise
    except NetworkError:
        pass
