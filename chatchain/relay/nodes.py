"""One relay process among several: it wakes the others and is woken, and asks the database what is new.

Nothing lives in one process alone. A message, a login or a rewritten user is in the database before anybody
hears of it, and each process looks there every POLL seconds whatever it hears; what comes through the bus
only makes it look sooner. A look costs one small query while nothing is new.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Final, Protocol

import msgspec
from structlog.typing import FilteringBoundLogger

from chatchain.errors import ChainError, ChainUnreachable, StoreUnavailable
from chatchain.model import Policy, User
from chatchain.relay.directory import Changes
from chatchain.relay.metrics import Metrics
from chatchain.relay.ports import Membership
from chatchain.relay.quota import Usage

POLL: Final = 0.5
"""Seconds between two looks when nobody calls for one."""

GAP: Final = 0.005
"""Seconds between two looks when many do."""

BEAT: Final = 1.0

NAMED: Final = 1_000
"""Devices in one message of the bus; where more are concerned all processes look."""

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

    def lead(self) -> bool:
        """Whether this process follows the chain for all."""

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
        self._told_to = shared.counts().fold

    @property
    def leads(self) -> bool:
        """Whether this process follows the chain, as far as it knows."""
        return self._fold is not None

    def refresh(self) -> Changes:
        """Looks at the chain, or waits until that has been done; raises ChainError or StoreUnavailable."""
        began, start = time.monotonic(), self._shared.counts().looks
        while not self._shared.lead():
            self._fold = None
            time.sleep(_LOOK)
            counts = self._shared.counts()
            if counts.looks >= start + 2:  # the second look to end from now is one that began after now
                return self._changes(counts.head)
            if time.monotonic() > began + PATIENCE:
                raise ChainUnreachable("No process of this relay has looked at the chain for a while.")
        return self._changes(self._follow())

    def _follow(self) -> int:
        try:
            if self._fold is None:
                self._fold = self._make()
            head = self._fold.refresh().head
            self._shared.looked(head)
        except ChainError:
            # Another may reach the chain where this one does not.
            self._fold = None
            self._shared.give_up()
            raise
        except BaseException:
            self._fold = None
            raise
        return head

    def _changes(self, head: int) -> Changes:
        told_to = self._shared.counts().fold
        if told_to == self._told_to:
            return Changes(head)
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
        return Changes(head, tuple(users), tuple(gone), membership)


class Inmates(Protocol):
    """What this needs of the relay; called on the loop."""

    def holds(self, uid: int, device: int) -> bool:
        """Whether this device is connected here."""

    def woken(self, devices: Iterable[tuple[int, int, int]]) -> None:
        """Other processes have stored something for these."""

    def elsewhere(self, uid: int, device: int) -> None:
        """This device has logged in through another process."""

    def recounted(self, usage: Usage, counted_to: int) -> None:
        """What waits, as the database has it."""


class Frontier(Protocol):
    """The writer's knowledge of what others have written."""

    frontier: int | None


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


class Nodes:
    """Keeps one relay process level with the others."""

    def __init__(
        self,
        shared: Shared,
        bus: Bus | None,
        *,
        usage: Callable[[], tuple[Usage, int]],
        log: FilteringBoundLogger,
        metrics: Metrics,
    ) -> None:
        self._shared = shared
        self._bus = bus
        self._usage = usage
        self._log = log
        self._metrics = metrics
        self._inmates: Inmates | None = None
        self._writer: Frontier | None = None
        self._logged_in: dict[Device, None] = {}
        self._concerned: dict[Device, None] = {}
        self._logins_to = 0
        self._others = 0
        self._look = asyncio.Event()
        self._speak = asyncio.Event()

    # --- told by the relay, on the loop ---

    def logged_in(self, uid: int, device: int) -> None:
        """A device has logged in here: connections that it has elsewhere must close."""
        self._logged_in[uid, device] = None
        self._look.set()

    def stored(self, devices: Iterable[Device]) -> None:
        """Something was committed for devices that are not connected here."""
        if self._bus is None:
            return
        for device in devices:
            if len(self._concerned) <= NAMED:
                self._concerned[device] = None
        if self._concerned:
            self._speak.set()

    # --- life ---

    async def start(self, inmates: Inmates, writer: Frontier) -> None:
        """Begins to look from where everything stands now; raises StoreUnavailable."""
        self._inmates, self._writer = inmates, writer
        counts = await asyncio.to_thread(self._shared.counts)
        writer.frontier, self._logins_to = counts.sequence, counts.login
        if self._bus is not None:
            self._bus.start(self._heard)

    def work(self) -> list[Coroutine[None, None, None]]:
        """What runs as long as the relay does."""
        return [self._beat(), self._follow(), self._recount(), *([self._talk()] if self._bus else [])]

    async def close(self) -> None:
        """Hangs up."""
        if self._bus is not None:
            await self._bus.close()

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
            try:
                await self._exchange()
            except StoreUnavailable:
                await asyncio.sleep(POLL)
            await asyncio.sleep(GAP)

    async def _exchange(self) -> None:
        assert self._inmates is not None
        assert self._writer is not None
        # One after the other: a device that logs in here meanwhile is in the next announcement, and newer
        # than whatever is read now.
        devices = list(self._logged_in)[:NAMED]
        if devices:
            await asyncio.to_thread(lambda: self._shared.announce(devices))
            for announced in devices:
                del self._logged_in[announced]
            self.stored(devices)
            if self._logged_in:
                self._look.set()
        counts = await asyncio.to_thread(self._shared.counts)
        frontier = self._writer.frontier or 0
        if counts.sequence > frontier:
            found = await asyncio.to_thread(lambda: self._shared.stored(frontier, counts.sequence))
            self._inmates.woken(found)
            self._writer.frontier = max(self._writer.frontier or 0, counts.sequence)
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
            if not self._others:
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

    def _heard(self, message: bytes) -> None:
        """Somebody called; whoever it was, a look is the most that comes of it."""
        assert self._inmates is not None
        devices = named(message)
        if devices is None:
            self._metrics.wakes.labels("unreadable").inc()
            return
        if not devices or any(self._inmates.holds(uid, device) for uid, device in devices):
            self._metrics.wakes.labels("heeded").inc()
            self._look.set()
