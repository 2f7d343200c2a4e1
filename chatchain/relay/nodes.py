"""One relay process among several: it wakes the others and is woken, and asks the database what is new.

Nothing lives in one process alone. A message, a login or a rewritten user is in the database before anybody
hears of it, and each process looks there every POLL seconds whatever it hears; what comes through the bus
only makes it look sooner. A look costs one small query while nothing is new.

Workers of one machine hand each other what they have committed for each other's devices, so that it need not
be read back (ADR 3). That is used only where nothing before it is missing (`frontier`); if something is, it
is looked for in the database after a moment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Final, Protocol

import msgspec
from structlog.typing import FilteringBoundLogger

from chatchain.errors import ChainError, ChainUnreachable, StoreUnavailable
from chatchain.model import Delivery, Policy, Run, User
from chatchain.relay.directory import Changes
from chatchain.relay.frontier import Frontier, Stretch
from chatchain.relay.metrics import Metrics
from chatchain.relay.ports import Membership
from chatchain.relay.quota import Usage

POLL: Final = 0.5
"""Seconds between two looks when nobody calls for one."""

GAP: Final = 0.005
"""Seconds between two looks when many do."""

PATIENCE_NEAR: Final = 0.02
"""Seconds for which what was committed, and has not been told here, may still be on its way."""

BEAT: Final = 1.0

HAND_OVER: Final = 64 * 1024
"""Bytes at which one message to a neighbour ends; a longer run than this is left to the database."""

PLACES: Final = 20_000
"""Devices of which this process remembers at which neighbour they are."""

NAMED: Final = 1_000
"""Devices in one message of the bus; where more are concerned all processes look."""

ATTENTION: Final = 8 * 1024
"""Bytes of calls that are read between two looks; more of them, whoever floods the bus, are answered by a
look, which costs less than to read on.
"""

RECOUNT: Final = 10.0
"""Seconds between two counts of what waits for whom, which the other processes change as well."""

RECOUNT_SHARE: Final = 20
"""A count that takes long is made more rarely: this many times as long passes until the next."""

PATIENCE: Final = 10.0
"""Seconds that a process waits for the one that follows the chain: more than it takes to replace that one."""

_LOOK: Final = 0.2

Device = tuple[int, int]


class Counts(Protocol):
    """How much there has been so far."""

    @property
    def sequence(self) -> int: ...

    @property
    def login(self) -> int: ...

    @property
    def fold(self) -> int: ...

    @property
    def looks(self) -> int: ...

    @property
    def head(self) -> int: ...


class Shared(Protocol):
    """What the processes share; `store.nodes` has it. Blocks; raises StoreUnavailable."""

    def beat(self) -> int:
        """Shows that this process lives; gives how many others there are."""

    def lead(self) -> int:
        """For the how-many-eth time this process follows the chain for all; 0 when another does."""

    def looked(self, head: int) -> None:
        """Tells the others that the chain was looked at."""

    def give_up(self) -> None:
        """Lets another process follow the chain."""

    def counts(self) -> Counts:
        """How far everything has come."""

    def stored(self, after: int, to: int) -> list[tuple[int, int, int]]:
        """Devices for which something was stored: uid, device, the last sequence."""

    def logins(self, after: int) -> list[Device]:
        """Devices that have logged in through other processes."""

    def folded(self, after: int) -> list[int]:
        """Users that were rewritten (0: the members)."""

    def announce(self, devices: Sequence[Device]) -> None:
        """Tells the others that these devices are logged in here now."""


class Fold(Protocol):
    """Follows the chain into the database; `directory.Keeper` does. Blocks."""

    def refresh(self) -> Changes:
        """Takes in what is new and says who changed."""


class Folded(Protocol):
    """The users and members as last rewritten. Blocks."""

    def user(self, uid: int) -> User | None:
        """A user."""

    def membership(self) -> tuple[Policy, frozenset[int]] | None:
        """The network's policy and members."""


class SharedKeeper:
    """Follows the chain for all processes, or reads what the one that does has written.

    For one thread. Each time that this process takes the task up it begins with a fold of its own, because
    others have written since the last.
    """

    def __init__(self, shared: Shared, folded: Folded, fold: Callable[[], Fold]) -> None:
        self._shared = shared
        self._folded = folded
        self._make = fold
        self._fold: Fold | None = None
        self._term = 0
        self._told_to = shared.counts().fold

    @property
    def leads(self) -> bool:
        """Whether this process follows the chain, as far as it knows."""
        return self._fold is not None

    def refresh(self) -> Changes:
        """Looks at the chain, or waits until that has been done; raises ChainError or StoreUnavailable."""
        began, start = time.monotonic(), self._shared.counts().looks
        while not (term := self._shared.lead()):
            self._fold = None
            time.sleep(_LOOK)
            counts = self._shared.counts()
            if counts.looks >= start + 2:  # the second look to end from now is one that began after now
                return self._changes(Changes(counts.head))
            if time.monotonic() > began + PATIENCE:
                raise ChainUnreachable("No process of this relay has looked at the chain for a while.")
        if term != self._term:  # another may have followed it meanwhile, unnoticed while this one stood still
            self._fold, self._term = None, term
        return self._changes(self._follow())

    def _follow(self) -> Changes:
        try:
            if self._fold is None:
                self._fold = self._make()
            found = self._fold.refresh()
            self._shared.looked(found.head)
        except ChainError:
            # Another may reach the chain where this one does not.
            self._fold = None
            self._shared.give_up()
            raise
        except BaseException:
            self._fold = None
            raise
        return Changes(found.head, time_ms=found.time_ms)

    def _changes(self, plain: Changes) -> Changes:
        told_to = self._shared.counts().fold
        if told_to == self._told_to:
            return plain
        users: list[User] = []
        gone: list[int] = []
        membership = None
        for uid in self._shared.folded(self._told_to):
            if uid == 0:
                known = self._folded.membership()
                membership = Membership(*known) if known is not None else None
                continue
            user = self._folded.user(uid)
            if user is None:
                gone.append(uid)
            else:
                users.append(user)
        self._told_to = told_to
        return Changes(plain.head, tuple(users), tuple(gone), membership, plain.time_ms)


class Inmates(Protocol):
    """What this needs of the relay; called on the loop."""

    def holds(self, uid: int, device: int) -> bool:
        """Whether this device is connected here."""

    def woken(self, devices: Iterable[tuple[int, int, int]]) -> None:
        """Other processes have stored something for these."""

    def elsewhere(self, uid: int, device: int) -> None:
        """This device has logged in through another process."""

    def committed(self, runs: Iterable[Run], named: Iterable[tuple[int, int, int]]) -> None:
        """What was committed next, whoever committed it: runs, and for whom there is something else."""

    def recounted(self, usage: Usage, counted_to: int) -> None:
        """What waits, as the database has it."""


class Near(Protocol):
    """The other workers of this machine; `chatchain.neighbours` has them. Nothing here waits."""

    number: int
    """Which worker this is."""
    others: list[int]
    """Which there are besides."""

    def start(self, heard: Callable[[memoryview], None]) -> None:
        """Begins to listen."""

    def send(self, to: int, message: bytes) -> bool:
        """Sends, or drops the message and gives False."""

    def close(self) -> None:
        """Hangs up."""


class Bus(Protocol):
    """How processes call each other; `chatchain.bus` is one."""

    @property
    def connected(self) -> bool:
        """Whether what is said now is likely to be heard."""

    def start(self, heard: Callable[[bytes], None]) -> None:
        """Begins to listen."""

    async def say(self, message: bytes) -> None:
        """Says something to all others."""

    async def close(self) -> None:
        """Hangs up."""


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(tuple[tuple[int, int], ...])


def named(message: bytes) -> tuple[Device, ...] | None:
    """The devices that a call names, none for all of them; None for what is no call of ours."""
    try:
        return _DECODER.decode(message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


class _Here(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """These devices are connected to the process of this number."""

    origin: int
    devices: list[Device]


class _Gone(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """These are not, whatever was thought."""

    origin: int
    devices: list[Device]


class _Look(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """There is something new about these devices in the database."""

    devices: list[Device]


class Passed(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """A signal for a device that is connected to another process, or to none (relay.signals)."""

    uid: int
    device: int
    delivery: Delivery


_NEAR: Final = msgspec.msgpack.Decoder(Stretch | _Here | _Gone | _Look | Passed)


class Nodes:
    """Keeps one relay process level with the others."""

    def __init__(
        self,
        shared: Shared,
        bus: Bus | None,
        near: Near | None = None,
        *,
        usage: Callable[[], tuple[Usage, int]],
        log: FilteringBoundLogger,
        metrics: Metrics,
    ) -> None:
        self._shared = shared
        self._bus = bus
        self._near = near
        self._usage = usage
        self._log = log
        self._metrics = metrics
        self._inmates: Inmates | None = None
        self._frontier = Frontier(0)
        self._places: dict[Device, int] = {}  # at which neighbour devices are, as far as that is known
        self._overdue: asyncio.TimerHandle | None = None
        self._called = False
        self._listened = 0  # bytes of calls since the last look
        self._logged_in: dict[Device, None] = {}
        self._concerned: dict[Device, None] = {}
        self._logins_to = 0
        self._others = 0
        self._look = asyncio.Event()
        self._speak = asyncio.Event()
        self.passed: Callable[[Passed], None] = lambda _: None
        """Hears of the signals that neighbours pass on."""

    # --- told by the relay, on the loop ---

    def logged_in(self, uid: int, device: int) -> None:
        """A device has logged in here: connections that it has elsewhere must close."""
        self._places.pop((uid, device), None)
        self._logged_in[uid, device] = None
        self._look.set()

    def committed(self, runs: list[Run]) -> None:
        """This process has committed these runs, whose sequences follow each other."""
        if not runs:
            return
        assert self._inmates is not None
        devices = {(run.uid, run.device) for run in runs}
        self._wake(
            device for device in devices if device not in self._places and not self._inmates.holds(*device)
        )
        if self._near is not None:
            for other in self._near.others:
                for stretch in self._stretches(runs, other):
                    if not self._tell(other, stretch):  # they may have left it for another machine
                        self._wake((run.uid, run.device) for run in stretch.runs)
        self._go_on(self._frontier.came(Stretch(self._number, runs[0].first, runs[-1].last, runs, [])))

    def pass_on(self, signal: Passed) -> bool:
        """Hands a signal to the neighbours; whether its device is known to be at one of them."""
        place = self._places.get((signal.uid, signal.device))
        for other in self._near.others if self._near is not None else ():
            if place in (None, other):
                self._tell(other, signal)
        return place is not None

    # --- life ---

    async def start(self, inmates: Inmates) -> None:
        """Begins to look from where everything stands now; raises StoreUnavailable."""
        self._inmates = inmates
        counts = await asyncio.to_thread(self._shared.counts)
        self._frontier, self._logins_to = Frontier(counts.sequence), counts.login
        if self._near is not None:
            self._near.start(self._handed)
        if self._bus is not None:
            self._bus.start(self._heard)

    @property
    def alone(self) -> bool:
        """Whether no other process is at work on the database, as far as this one has noticed."""
        return not self._others

    def work(self) -> list[Coroutine[None, None, None]]:
        """What runs as long as the relay does."""
        return [self._beat(), self._follow(), self._recount(), *([self._talk()] if self._bus else [])]

    async def close(self) -> None:
        """Hangs up."""
        if self._overdue is not None:
            self._overdue.cancel()
        if self._near is not None:
            self._near.close()
        if self._bus is not None:
            await self._bus.close()

    # --- the neighbours ---

    @property
    def _number(self) -> int:
        return self._near.number if self._near is not None else 0

    def _stretches(self, runs: Iterable[Run], other: int) -> Iterator[Stretch]:
        """What a neighbour is told of runs: those for its devices whole, of the others whom they are for."""
        first = last = size = 0
        whole: list[Run] = []
        named: dict[Device, int] = {}
        for run in runs:
            first = first or run.first
            device = run.uid, run.device
            length = sum(map(len, run.parcels)) if self._places.get(device) == other else HAND_OVER + 1
            if length <= HAND_OVER:
                whole.append(run)
                size += length
            else:
                named[device] = run.last
            last = run.last
            if size >= HAND_OVER or len(named) >= NAMED:
                yield Stretch(self._number, first, last, whole, _listed(named))
                first, size, whole, named = 0, 0, [], {}
        if first:
            yield Stretch(self._number, first, last, whole, _listed(named))

    def _tell(self, other: int, word: Stretch | _Here | _Gone | _Look | Passed) -> bool:
        """Says something to a neighbour, unless it takes nothing at the moment."""
        assert self._near is not None
        sent = self._near.send(other, _ENCODER.encode(word))
        self._metrics.handovers.labels("sent" if sent else "dropped").inc()
        return sent

    def _handed(self, message: memoryview) -> None:
        """A neighbour has said something."""
        try:
            word = _NEAR.decode(message)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._metrics.handovers.labels("unreadable").inc()
            return
        if isinstance(word, Stretch):
            self._take(word)
        elif isinstance(word, _Here):
            for device in word.devices:
                self._places[device] = word.origin
            while len(self._places) > PLACES:
                del self._places[next(iter(self._places))]
        elif isinstance(word, _Gone):
            for device in word.devices:
                if self._places.get(device) == word.origin:
                    del self._places[device]
            self._wake(word.devices)
        elif isinstance(word, Passed):
            self.passed(word)
        else:
            self._wanted(word.devices)

    def _take(self, stretch: Stretch) -> None:
        assert self._inmates is not None
        holds = self._inmates.holds
        here = [(uid, device) for uid, device, _ in stretch.named if holds(uid, device)]
        if here:
            self._tell(stretch.origin, _Here(self._number, here))
        gone = [(run.uid, run.device) for run in stretch.runs if not holds(run.uid, run.device)]
        if gone:
            self._tell(stretch.origin, _Gone(self._number, gone))
        self._metrics.handovers.labels("taken").inc()
        self._go_on(self._frontier.came(stretch))

    def _go_on(self, stretches: Iterable[Stretch]) -> None:
        """Uses what is next, and sees to it that what is missing is looked for."""
        assert self._inmates is not None
        for stretch in stretches:
            self._inmates.committed(stretch.runs, stretch.named)
        if self._frontier.seen > self._frontier.known and self._overdue is None:
            patience = PATIENCE_NEAR if self._near is not None else 0.0
            self._overdue = asyncio.get_running_loop().call_later(patience, self._miss, self._frontier.known)

    def _miss(self, known: int) -> None:
        """What was missing has come meanwhile, or is looked for."""
        self._overdue = None
        if self._frontier.known == known:
            self._called = True
            self._look.set()
        else:
            self._go_on(())

    # --- forever ---

    async def _beat(self) -> None:
        while True:
            try:
                others = await asyncio.to_thread(self._shared.beat)
            except StoreUnavailable:
                pass  # the writer says that the database is away
            else:
                if others != self._others:
                    self._log.info("other nodes", count=others)
                self._others = others
                self._metrics.nodes.set(others + 1)
            await asyncio.sleep(BEAT)

    async def _follow(self) -> None:
        """Looks for what is new, every now and then and whenever somebody calls."""
        while True:
            try:
                async with asyncio.timeout(POLL):
                    await self._look.wait()
            except TimeoutError:
                pass
            self._look.clear()
            self._listened = 0
            try:
                await self._exchange()
            except StoreUnavailable:
                await asyncio.sleep(POLL)
            await asyncio.sleep(GAP)

    async def _exchange(self) -> None:
        assert self._inmates is not None
        called, self._called = self._called, False
        # One after the other: a device that logs in here meanwhile, for the second time perhaps, is in the
        # next announcement, and newer than whatever is read now.
        logged_in = list(self._logged_in)[:NAMED]
        for each in logged_in:
            del self._logged_in[each]
        # Whoever has gone since may be elsewhere by now, and would be closed there.
        if devices := [each for each in logged_in if self._inmates.holds(*each)]:
            try:
                await asyncio.to_thread(lambda: self._shared.announce(devices))
            except StoreUnavailable:
                self._logged_in |= dict.fromkeys(devices)
                raise
            self._wake(devices)
            if self._near is not None:
                for other in self._near.others:
                    self._tell(other, _Look(devices))
        if self._logged_in:
            self._look.set()
        counts = await asyncio.to_thread(self._shared.counts)
        if counts.sequence > self._frontier.known and not called:
            await asyncio.sleep(PATIENCE_NEAR)  # most of it is on its way here, from the writer at least
        known = self._frontier.known
        if counts.sequence > known:
            found = await asyncio.to_thread(lambda: self._shared.stored(known, counts.sequence))
            self._metrics.looks.inc()
            self._inmates.woken(found)
            self._go_on(self._frontier.looked(counts.sequence))
        if counts.login > self._logins_to:
            since = self._logins_to
            for uid, device in await asyncio.to_thread(lambda: self._shared.logins(since)):
                if (uid, device) not in self._logged_in:
                    self._inmates.elsewhere(uid, device)
            self._logins_to = counts.login

    async def _recount(self) -> None:
        assert self._inmates is not None
        pause = RECOUNT
        while True:
            await asyncio.sleep(pause)
            if self.alone:
                continue
            began = time.monotonic()
            try:
                usage, counted_to = await asyncio.to_thread(self._usage)
            except StoreUnavailable:
                continue
            pause = max(RECOUNT, RECOUNT_SHARE * (time.monotonic() - began))
            self._inmates.recounted(usage, counted_to)

    async def _talk(self) -> None:
        assert self._bus is not None
        while True:
            await self._speak.wait()
            self._speak.clear()
            devices, self._concerned = self._concerned, {}
            # Nobody named means that everybody is.
            await self._bus.say(_ENCODER.encode(() if len(devices) > NAMED else tuple(devices)))
            self._metrics.wakes.labels("sent").inc()

    def _wake(self, devices: Iterable[Device]) -> None:
        """Has the other machines look for these devices."""
        if self._bus is None:
            return
        for device in devices:
            if len(self._concerned) <= NAMED:
                self._concerned[device] = None
        if self._concerned:
            self._speak.set()

    def _heard(self, message: bytes) -> None:
        """Somebody called; whoever it was, a look is the most that comes of it."""
        self._listened += len(message)
        devices = named(message) if self._listened <= ATTENTION else ()
        if devices is None:
            self._metrics.wakes.labels("unreadable").inc()
            return
        if self._wanted(devices):
            self._metrics.wakes.labels("heeded").inc()

    def _wanted(self, devices: Sequence[Device]) -> bool:
        """Looks if one of these is connected here, or if nobody is named."""
        assert self._inmates is not None
        if devices and not any(self._inmates.holds(uid, device) for uid, device in devices):
            return False
        self._called = True
        self._look.set()
        return True


def _listed(named: dict[Device, int]) -> list[tuple[int, int, int]]:
    return [(uid, device, last) for (uid, device), last in named.items()]
