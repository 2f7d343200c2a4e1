"""One process among several: what it says to whom, when it looks, and what it makes of what it hears.

The others, the database and the bus are a few values; what real ones do with it is in test_handover,
test_nodes and the store's tests.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager

import msgspec
import pytest
import structlog

from chatchain.errors import ChainUnreachable, StoreUnavailable
from chatchain.model import Delivery, DeviceState, Policy, Run, User
from chatchain.relay import nodes as several
from chatchain.relay.directory import Changes
from chatchain.relay.frontier import Stretch
from chatchain.relay.metrics import Metrics
from chatchain.relay.nodes import HAND_OVER, Nodes, Passed, SharedKeeper
from chatchain.relay.ports import Membership
from chatchain.relay.quota import Usage
from tests.relay.here import until
from tests.relay.test_mailbox import user

ADA, BOB, CARL, DORA = (100_000_000_000_000 + number for number in range(1, 5))
AT_BOB, AT_CARL, AT_DORA = (BOB, 1), (CARL, 1), (DORA, 1)

Device = tuple[int, int]


class Now(msgspec.Struct, frozen=True):
    sequence: int
    login: int
    fold: int
    looks: int
    head: int


class Database:
    """What the processes share; a test is all of the others."""

    def __init__(self) -> None:
        self.away = False
        self.others = 0
        self.sequence = 0
        self.rows: list[tuple[int, int, int]] = []
        self.logged_in: list[Device] = []  # through others; each counts one
        self.folds: list[int] = []
        self.looks = 0
        self.head = 0
        self.leads = 0
        self.asked = 0
        self.said: list[str] = []
        self.announced: list[list[Device]] = []
        self.during: Callable[[], None] = lambda: None
        """What happens while something is announced."""

    def store(self, *devices: Device) -> None:
        """Another process stores something for each of these."""
        for device in devices:
            self.sequence += 1
            self.rows.append((*device, self.sequence))

    def _check(self) -> None:
        if self.away:
            raise StoreUnavailable("Away.")

    def beat(self) -> int:
        self._check()
        return self.others

    def lead(self) -> int:
        self._check()
        return self.leads

    def looked(self, head: int) -> None:
        self.said.append(f"looked {head}")

    def give_up(self) -> None:
        self.said.append("gave up")

    def counts(self) -> several.Counts:
        self.asked += 1
        self._check()
        return Now(self.sequence, len(self.logged_in), len(self.folds), self.looks, self.head)

    def stored(self, after: int, to: int) -> list[tuple[int, int, int]]:
        self.said.append(f"stored {after} {to}")
        return [row for row in self.rows if after < row[2] <= to]

    def logins(self, after: int) -> list[Device]:
        return self.logged_in[after:]

    def folded(self, after: int) -> list[int]:
        return self.folds[after:]

    def announce(self, devices: Sequence[Device]) -> None:
        during, self.during = self.during, lambda: None
        during()
        self._check()
        self.announced.append(list(devices))


class Neighbours:
    """Two of them; a test reads what they are told and speaks for them."""

    def __init__(self) -> None:
        self.number, self.others = 0, [1, 2]
        self.heard: Callable[[memoryview], None] | None = None
        self.told: dict[int, list[bytes]] = {1: [], 2: []}
        self.deaf: set[int] = set()
        self.closed = False

    def start(self, heard: Callable[[memoryview], None]) -> None:
        self.heard = heard

    def send(self, to: int, message: bytes) -> bool:
        if to not in self.deaf:
            self.told[to].append(message)
        return to not in self.deaf

    def close(self) -> None:
        self.closed = True

    def say(self, word: object) -> None:
        assert self.heard is not None
        self.heard(memoryview(msgspec.msgpack.encode(word)))

    def words(self, number: int, kind: type) -> list[object]:
        """What one was told, of one kind, since the last time that was asked."""
        found, self.told[number] = self.told[number], []
        words = [several._NEAR.decode(message) for message in found]
        return [word for word in words if type(word) is kind]


class Calls:
    """A bus."""

    connected = True

    def __init__(self) -> None:
        self.heard: Callable[[bytes], None] | None = None
        self.said: list[object] = []
        self.closed = False

    def start(self, heard: Callable[[bytes], None]) -> None:
        self.heard = heard

    async def say(self, message: bytes) -> None:
        self.said.append(msgspec.msgpack.decode(message))

    async def close(self) -> None:
        self.closed = True

    def call(self, *devices: Device) -> None:
        assert self.heard is not None
        self.heard(msgspec.msgpack.encode(devices))


class Place:
    """A process with the devices that are connected to it, and everything around."""

    def __init__(self, *devices: Device, near: bool = True, bus: bool = True) -> None:
        self.devices = set(devices)
        self.told: list[tuple[str, object]] = []
        self.database = Database()
        self.near, self.bus = Neighbours(), Calls()
        self.metrics = Metrics()
        self.usage: Callable[[], tuple[Usage, int]] = lambda: ({}, 0)
        self.nodes = Nodes(
            self.database,
            self.bus if bus else None,
            self.near if near else None,
            usage=lambda: self.usage(),
            log=structlog.get_logger(),
            metrics=self.metrics,
        )

    async def start(self) -> Place:
        await self.nodes.start(self)
        return self

    def holds(self, uid: int, device: int) -> bool:
        return (uid, device) in self.devices

    def log_in(self, device: Device) -> None:
        """The device connects here."""
        self.devices.add(device)
        self.nodes.logged_in(*device)

    def woken(self, devices: Iterable[tuple[int, int, int]]) -> None:
        self.told.append(("woken", list(devices)))

    def elsewhere(self, uid: int, device: int) -> None:
        self.told.append(("elsewhere", (uid, device)))

    def committed(self, runs: Iterable[Run], named: Iterable[tuple[int, int, int]]) -> None:
        self.told.append(("committed", ([run.first for run in runs], list(named))))

    def recounted(self, usage: Usage, counted_to: int) -> None:
        self.told.append(("recounted", (usage, counted_to)))

    def heard(self, kind: str) -> list[object]:
        """What it was told, of one kind, since the last time that was asked."""
        found = [word for one, word in self.told if one == kind]
        self.told = [each for each in self.told if each[0] != kind]
        return found

    @property
    def called_for(self) -> list[object]:
        """Whom other machines are about to be called for."""
        return list(self.nodes._concerned)

    def due(self) -> asyncio.TimerHandle | None:
        """When what is missing is looked for."""
        return self.nodes._overdue

    def counted(self, counter: str, outcome: str) -> float:
        return float(getattr(self.metrics, counter).labels(outcome)._value.get())


@asynccontextmanager
async def running(*work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is done for its time alone."""
    monkeypatch.setattr(several, "POLL", 3_600.0)
    monkeypatch.setattr(several, "PATIENCE_NEAR", 0.0)
    monkeypatch.setattr(several, "GAP", 0.0)


def run(device: Device, first: int, *, size: int = 1, count: int = 1) -> Run:
    return Run(*device, ADA, first, [bytes(size)] * count)


# --- logins -------------------------------------------------------------------------------------------------


async def test_it_begins_where_everything_stands() -> None:
    """What was stored and who logged in before is nothing new."""
    place = Place(AT_BOB)
    place.database.store(AT_BOB)
    place.database.logged_in.append(AT_BOB)
    await place.start()
    await place.nodes._exchange()
    assert place.told == []


async def test_a_login_is_announced_once_and_told_to_everybody() -> None:
    """In the database first, and then to neighbours and machines, who look there."""
    place = await Place().start()
    place.log_in(AT_BOB)
    assert place.nodes._look.is_set()
    place.database.during = lambda: place.told.append(("before", [*place.called_for, *place.near.told[1]]))
    await place.nodes._exchange()
    assert place.heard("before") == [[]]
    for number in (1, 2):
        assert place.near.words(number, several._Look) == [several._Look([AT_BOB])]
    assert place.called_for == [AT_BOB]
    await place.nodes._exchange()
    assert place.database.announced == [[AT_BOB]]


async def test_a_login_that_could_not_be_announced_is_announced_later() -> None:
    """The database was away; nobody is told of what is not there."""
    place = await Place().start()
    place.log_in(AT_BOB)
    place.database.away = True
    with pytest.raises(StoreUnavailable):
        await place.nodes._exchange()
    assert (place.called_for, place.near.told) == ([], {1: [], 2: []})
    place.database.away = False
    await place.nodes._exchange()
    assert place.database.announced == [[AT_BOB]]


async def test_who_has_gone_before_the_announcement_is_not_announced() -> None:
    """The device is at another process by then, which would close its connection as the older one."""
    place = await Place().start()
    place.log_in(AT_BOB)
    place.database.away = True
    with pytest.raises(StoreUnavailable):
        await place.nodes._exchange()
    place.database.away = False
    place.devices.clear()
    place.log_in(AT_CARL)
    await place.nodes._exchange()
    await place.nodes._exchange()
    assert place.database.announced == [[AT_CARL]]
    assert place.called_for == [AT_CARL]


async def test_who_logs_in_while_others_are_announced_is_next() -> None:
    """At once."""
    place = await Place().start()
    place.log_in(AT_BOB)
    place.nodes._look.clear()
    place.database.during = lambda: place.log_in(AT_CARL)
    await place.nodes._exchange()
    assert place.nodes._look.is_set()
    await place.nodes._exchange()
    assert place.database.announced == [[AT_BOB], [AT_CARL]]


async def test_the_newest_of_three_logins_stays_however_slow_the_database_is() -> None:
    """Here, elsewhere, and here again while the first of them is being announced."""
    place = await Place(AT_BOB).start()
    place.log_in(AT_BOB)

    def meanwhile() -> None:
        place.database.logged_in.append(AT_BOB)
        place.log_in(AT_BOB)

    place.database.during = meanwhile
    await place.nodes._exchange()
    await place.nodes._exchange()
    assert place.database.announced == [[AT_BOB], [AT_BOB]]
    assert place.heard("elsewhere") == []


async def test_many_logins_are_announced_in_bounded_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a process takes over those of another; the rest follows at once."""
    monkeypatch.setattr(several, "NAMED", 3)
    place = await Place().start()
    devices = [(uid, 1) for uid in range(1, 6)]
    for device in devices:
        place.log_in(device)
    place.nodes._look.clear()
    await place.nodes._exchange()
    assert place.nodes._look.is_set()
    await place.nodes._exchange()
    assert place.database.announced == [devices[:3], devices[3:]]


async def test_who_logged_in_elsewhere_is_told_once_and_not_who_came_back() -> None:
    """Whoever is about to be announced here is newer than what is read."""
    place = await Place(AT_BOB, AT_CARL).start()
    place.database.logged_in += [AT_BOB, AT_CARL]
    place.database.during = lambda: place.log_in(AT_CARL)
    place.log_in(AT_DORA)
    for _ in range(2):
        await place.nodes._exchange()
        assert place.heard("elsewhere") in ([AT_BOB], [])
    place.database.logged_in.append(AT_CARL)
    await place.nodes._exchange()
    assert place.heard("elsewhere") == [AT_CARL]


# --- commits of this process ----------------------------------------------------------------------------


async def test_a_commit_of_nothing_is_nothing() -> None:
    """All that was submitted had been stored before."""
    place = await Place().start()
    place.nodes.committed([])
    assert (place.told, place.near.told) == ([], {1: [], 2: []})


async def test_other_machines_are_called_for_whom_no_place_is_known() -> None:
    """Nor for whom is here; what a neighbour does not take may be for a device that has left it."""
    place = await Place(AT_BOB).start()
    place.nodes._places = {AT_CARL: 1}
    place.nodes.committed([run(AT_BOB, 1), run(AT_CARL, 2), run(AT_DORA, 3)])
    assert place.called_for == [AT_DORA]
    place.near.deaf = {1}
    place.nodes.committed([run(AT_CARL, 4)])
    assert place.called_for == [AT_DORA, AT_CARL]
    assert place.heard("committed") == [([1, 2, 3], []), ([4], [])]
    assert place.counted("handovers", "sent") == 3
    assert place.counted("handovers", "dropped") == 1


async def test_each_neighbour_gets_what_is_for_its_devices_and_hears_of_the_rest() -> None:
    """With the last sequence of each."""
    place = await Place().start()
    place.nodes._places = {AT_BOB: 1, AT_CARL: 2}
    place.nodes.committed([run(AT_BOB, 1, count=2), run(AT_CARL, 3), run(AT_DORA, 4), run(AT_DORA, 5)])
    (first,), (second,) = (place.near.words(number, Stretch) for number in (1, 2))
    assert first == Stretch(0, 1, 5, [run(AT_BOB, 1, count=2)], [(*AT_CARL, 3), (*AT_DORA, 5)])
    assert second == Stretch(0, 1, 5, [run(AT_CARL, 3)], [(*AT_BOB, 2), (*AT_DORA, 5)])


async def test_stretches_are_bounded_and_leave_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what they carry and by how many they name; each begins where the last one ended."""
    monkeypatch.setattr(several, "NAMED", 3)
    place = await Place().start()
    place.nodes._places = {AT_BOB: 1}
    strangers = [run((uid, 1), uid) for uid in range(1, 8)]
    heavy = [run(AT_BOB, 8 + number, size=HAND_OVER // 2) for number in range(5)]
    too_heavy = run(AT_BOB, 13, size=HAND_OVER + 1)
    place.nodes.committed([*strangers, *heavy, too_heavy])
    found = [word for word in place.near.words(1, Stretch) if isinstance(word, Stretch)]
    assert [(one.first, one.last) for one in found] == [(1, 3), (4, 6), (7, 9), (10, 11), (12, 13)]
    assert [len(one.named) for one in found] == [3, 3, 1, 0, 1]
    assert [run for one in found for run in one.runs] == heavy
    assert [name for one in found for name in one.named] == [
        *((uid, 1, uid) for uid in range(1, 8)),
        (*AT_BOB, 13),
    ]


# --- commits of neighbours ------------------------------------------------------------------------------


async def test_who_is_named_and_here_is_answered_for_and_who_left_is_too() -> None:
    """To the neighbour that asked, and to no other."""
    place = await Place(AT_BOB).start()
    place.near.say(Stretch(1, 1, 2, [], [(*AT_BOB, 1), (*AT_CARL, 2)]))
    assert place.near.words(1, several._Here) == [several._Here(0, [AT_BOB])]
    place.near.say(Stretch(1, 3, 4, [run(AT_BOB, 3), run(AT_CARL, 4)], []))
    assert place.near.words(1, several._Gone) == [several._Gone(0, [AT_CARL])]
    assert place.near.told == {1: [], 2: []}
    assert place.heard("committed") == [([], [(*AT_BOB, 1), (*AT_CARL, 2)]), ([3, 4], [])]
    assert place.counted("handovers", "taken") == 2


async def test_places_are_bounded_and_the_latest_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many a neighbour claims."""
    monkeypatch.setattr(several, "PLACES", 4)
    place = await Place().start()
    devices = [(uid, 1) for uid in range(1, 8)]
    place.near.say(several._Here(2, devices))
    assert place.nodes._places == dict.fromkeys(devices[3:], 2)


async def test_only_the_neighbour_that_had_a_device_can_say_that_it_is_gone() -> None:
    """Other machines are called for it either way: it has not got what it was to get."""
    place = await Place().start()
    place.near.say(several._Here(2, [AT_BOB]))
    place.near.say(several._Gone(1, [AT_BOB]))
    assert place.nodes._places == {AT_BOB: 2}
    assert place.called_for == [AT_BOB]
    place.near.say(several._Gone(2, [AT_BOB]))
    assert place.nodes._places == {}


async def test_a_neighbour_s_word_of_news_is_heeded_for_who_is_here() -> None:
    """And for nobody else."""
    place = await Place(AT_BOB).start()
    place.near.say(several._Look([AT_CARL]))
    assert not place.nodes._look.is_set()
    place.near.say(several._Look([AT_CARL, AT_BOB]))
    assert place.nodes._look.is_set()
    assert place.nodes._called


async def test_signals_go_to_the_neighbour_that_has_the_device_or_to_all() -> None:
    """Then other machines are asked as well; one that is handed over is handed on."""
    heard: list[Passed] = []
    place = await Place().start()
    place.nodes.passed = heard.append
    place.nodes._places = {AT_BOB: 2}
    signals = [Passed(*device, DELIVERY) for device in (AT_BOB, AT_CARL)]
    assert [place.nodes.pass_on(signal) for signal in signals] == [True, False]
    assert place.near.words(1, Passed) == signals[1:]
    assert place.near.words(2, Passed) == signals
    place.near.say(signals[0])
    assert heard == signals[:1]
    assert not (await Place(near=False).start()).nodes.pass_on(signals[0])


DELIVERY = Delivery(0, bytes(16), 1, ADA, 1, BOB, 5, b"header", b"typing")


# --- what is missing ------------------------------------------------------------------------------------


async def test_what_is_missing_is_looked_for_though_nobody_calls() -> None:
    """First that, then what is early."""
    place = await Place(AT_BOB).start()
    place.database.store(AT_CARL, AT_BOB)
    async with running(place.nodes._follow()):
        place.near.say(Stretch(1, 3, 3, [run(AT_BOB, 3)], []))
        await until(lambda: len(place.told) == 2)
    assert place.told == [("woken", [(*AT_CARL, 1), (*AT_BOB, 2)]), ("committed", ([3], []))]
    assert place.database.said == ["stored 0 2"]
    assert place.metrics.looks._value.get() == 1


async def test_each_gap_gets_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several that are early one look is due; one that is filled leaves the next to be looked for."""
    place = await Place(AT_BOB).start()
    monkeypatch.setattr(several, "PATIENCE_NEAR", 3_600.0)
    place.near.say(Stretch(1, 2, 2, [], []))
    due = place.due()
    assert due is not None
    for first in (4, 6):
        place.near.say(Stretch(1, first, first, [], []))
        assert place.due() is due
    due.cancel()
    place.near.say(Stretch(1, 1, 1, [], []))
    place.nodes._miss(0)  # its time is over
    assert not place.nodes._look.is_set()
    assert place.due() not in (None, due)
    place.nodes._miss(2)
    assert place.nodes._look.is_set()
    assert place.nodes._called
    assert place.due() is None
    await place.nodes.close()


async def test_who_hangs_up_looks_for_nothing_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours, bus and what was due end."""
    monkeypatch.setattr(several, "PATIENCE_NEAR", 3_600.0)
    place = await Place().start()
    place.near.say(Stretch(1, 2, 2, [], []))
    due = place.due()
    assert due is not None
    await place.nodes.close()
    assert (due.cancelled(), place.near.closed, place.bus.closed) == (True, True, True)


async def test_alone_on_its_machine_it_waits_for_no_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who else could have committed says nothing of it here."""
    monkeypatch.setattr(several, "PATIENCE_NEAR", 3_600.0)
    place = await Place(AT_BOB, near=False).start()
    place.database.store(AT_BOB)
    async with running(place.nodes._follow()):
        place.nodes.committed([run(AT_BOB, 2)])
        await until(lambda: len(place.told) == 2)
    assert place.told == [("woken", [(*AT_BOB, 1)]), ("committed", ([2], []))]


async def test_a_call_is_heeded_at_once_and_what_nobody_told_of_after_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In which it may still come from the writer or a neighbour."""
    place = await Place(AT_BOB).start()
    place.database.store(AT_BOB)
    with monkeypatch.context() as patient:
        patient.setattr(several, "PATIENCE_NEAR", 3_600.0)
        place.bus.call(AT_BOB)
        await place.nodes._exchange()
    assert place.heard("woken") == [[(*AT_BOB, 1)]]
    assert not place.nodes._called
    place.database.store(AT_BOB)
    monkeypatch.setattr(several, "PATIENCE_NEAR", 0.02)
    looking = asyncio.create_task(place.nodes._exchange())
    place.near.say(Stretch(1, 2, 2, [run(AT_BOB, 2)], []))
    await looking
    assert place.database.said == ["stored 0 1"]


# --- calls ----------------------------------------------------------------------------------------------


async def test_calls_name_devices_or_everybody_and_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is called for once; beyond a number all are to look."""
    monkeypatch.setattr(several, "NAMED", 3)
    place = await Place().start()
    async with running(place.nodes._talk()):
        for number in (1, 2, 3):
            place.nodes.committed([run((DORA, number), number)])
        await until(lambda: bool(place.bus.said))
        place.nodes.committed([run((DORA, 1), 4)])
        await until(lambda: len(place.bus.said) == 2)
        place.nodes.committed([run((uid, 1), 4 + uid) for uid in range(1, 100)])
        assert len(place.called_for) == several.NAMED + 1
        await until(lambda: len(place.bus.said) == 3)
        assert not place.nodes._speak.is_set()
    assert place.bus.said == [[[DORA, number] for number in (1, 2, 3)], [[DORA, 1]], []]
    assert place.counted("wakes", "sent") == 3


async def test_a_call_is_heeded_if_somebody_named_is_here() -> None:
    """Or if all are meant; what is no call of ours is counted."""
    place = await Place(AT_BOB).start()
    assert place.bus.heard is not None
    place.bus.heard(b"garbage")
    place.bus.call(AT_CARL)
    assert not place.nodes._look.is_set()
    for devices in ((AT_CARL, AT_BOB), ()):
        place.bus.call(*devices)
        assert place.nodes._look.is_set()
        place.nodes._look.clear()
    assert (place.counted("wakes", "unreadable"), place.counted("wakes", "heeded")) == (1, 2)


# --- for ever -------------------------------------------------------------------------------------------


async def test_without_a_call_it_looks_every_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the database was away in between."""
    monkeypatch.setattr(several, "POLL", 0.01)
    place = await Place(AT_BOB).start()
    async with running(place.nodes._follow()):
        for number in (1, 2):
            place.database.store(AT_BOB)
            await until(lambda: bool(place.told))
            assert place.heard("woken") == [[(*AT_BOB, number)]]
            place.database.away = True
            await asyncio.sleep(0.05)
            place.database.away = False


async def test_a_look_lasts_until_somebody_calls_again() -> None:
    """It does not turn round and round."""
    place = await Place(AT_BOB).start()
    begun = place.database.asked
    async with running(place.nodes._follow()):
        for number in (1, 2):
            place.bus.call(AT_BOB)
            await until(lambda: place.database.asked == begun + number)  # noqa: B023  # it is waited for here
        for _ in range(20):
            await asyncio.to_thread(lambda: None)
    assert place.database.asked == begun + 2


async def test_between_two_looks_there_is_a_pause_and_attention_begins_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many call: those calls are read again that come after the look."""
    monkeypatch.setattr(several, "GAP", 3_600.0)
    place = await Place(AT_BOB).start()
    begun = place.database.asked
    async with running(place.nodes._follow()):
        for _ in range(several.ATTENTION):
            place.bus.call(AT_CARL)
        await until(lambda: place.database.asked > begun)
        heeded = place.counted("wakes", "heeded")
        place.bus.call(AT_CARL)
        assert place.counted("wakes", "heeded") == heeded > 0
        place.bus.call(AT_BOB)
        for _ in range(20):
            await asyncio.to_thread(lambda: None)
    assert place.database.asked == begun + 1


async def test_the_work_counts_who_is_there_and_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is alone counts nothing: nobody else changes it; and the database may be away for a while."""
    monkeypatch.setattr(several, "BEAT", 0.0)
    monkeypatch.setattr(several, "RECOUNT", 0.0)
    monkeypatch.setattr(several, "RECOUNT_SHARE", 0)
    place = await Place().start()
    counted: list[int] = []

    def usage() -> tuple[Usage, int]:
        counted.append(place.database.others)
        if len(counted) < 3:
            raise StoreUnavailable("Away.")
        return {}, 7

    place.usage = usage
    async with running(*place.nodes.work()):
        place.nodes.committed([run(AT_BOB, 1)])
        await until(lambda: bool(place.bus.said))
        for _ in range(20):
            await asyncio.to_thread(lambda: None)
        assert counted == []
        place.database.away = True
        await asyncio.to_thread(lambda: None)
        place.database.others = 2
        place.database.away = False
        await until(lambda: bool(place.told))
        await until(lambda: place.metrics.nodes._value.get() == 3)
    assert set(counted) == {2}
    assert place.heard("recounted")[0] == ({}, 7)


async def test_a_count_that_takes_long_is_made_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would keep the database busy."""
    monkeypatch.setattr(several, "RECOUNT", 0.0)
    monkeypatch.setattr(several, "RECOUNT_SHARE", 10**9)
    place = await Place().start()
    place.nodes._others = 1
    async with running(place.nodes._recount()):
        await until(lambda: bool(place.told))
        for _ in range(20):
            await asyncio.to_thread(lambda: None)
    assert len(place.told) == 1


# --- the chain, for all -------------------------------------------------------------------------------------


class Watch:
    """A clock that goes on while somebody sleeps; then the next thing happens."""

    def __init__(self, *happens: Callable[[], None]) -> None:
        self.now = 0.0
        self.happens = list(happens)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        assert self.now < 60
        if self.happens:
            self.happens.pop(0)()


class Chain:
    """A fold, and what the database holds of it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.begun = 0
        self.fails: BaseException | None = None
        self.users: dict[int, User] = {}
        self.admitted: tuple[Policy, frozenset[int]] | None = None

    def begin(self) -> Chain:
        self.begun += 1
        return self

    def refresh(self) -> Changes:
        if self.fails is not None:
            raise self.fails
        return Changes(9, tuple(self.users.values()), time_ms=77)

    def user(self, uid: int) -> User | None:
        return self.users.get(uid)

    def membership(self) -> tuple[Policy, frozenset[int]] | None:
        return self.admitted


@pytest.fixture
def chain() -> Chain:
    return Chain(Database())


@pytest.fixture
def keeper(chain: Chain) -> SharedKeeper:
    return SharedKeeper(chain.database, chain, chain.begin)


def test_who_does_not_follow_waits_for_a_look_that_began_after_it_asked(
    chain: Chain, keeper: SharedKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first to end may have begun before."""
    database = chain.database

    def looks(head: int) -> None:
        database.looks += 1
        database.head = head

    watch = Watch(lambda: looks(4), lambda: None, lambda: looks(5), lambda: looks(6))
    monkeypatch.setattr(several, "time", watch)
    assert keeper.refresh() == Changes(5)
    assert len(watch.happens) == 1
    assert (chain.begun, keeper.leads) == (0, False)


def test_who_waits_for_a_look_gives_up(keeper: SharedKeeper, monkeypatch: pytest.MonkeyPatch) -> None:
    """When nobody looks for longer than it takes to replace who should."""
    watch = Watch()
    monkeypatch.setattr(several, "time", watch)
    with pytest.raises(ChainUnreachable):
        keeper.refresh()
    assert several.PATIENCE < watch.now < several.PATIENCE + 1


def test_who_follows_tells_the_others_and_begins_anew_each_time_it_takes_that_up(
    chain: Chain, keeper: SharedKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others have written meanwhile."""
    database = chain.database
    database.leads = 1
    for _ in range(2):
        assert keeper.refresh() == Changes(9, time_ms=77)
    assert (chain.begun, keeper.leads, database.said) == (1, True, ["looked 9"] * 2)

    def looks() -> None:
        assert not keeper.leads
        database.looks += 2

    database.leads = 0
    monkeypatch.setattr(several, "time", Watch(looks))
    keeper.refresh()
    database.leads = 2
    keeper.refresh()
    assert chain.begun == 2
    database.leads = 3  # it stood still, lost the task and has it again, all between two looks
    keeper.refresh()
    assert chain.begun == 3


def test_who_cannot_reach_the_chain_lets_another_try(chain: Chain, keeper: SharedKeeper) -> None:
    """Whatever goes wrong, the next time begins with a fold of its own."""
    database = chain.database
    database.leads = 1
    keeper.refresh()
    database.said.clear()
    failures = (ChainUnreachable("Gone."), StoreUnavailable("Away."), ZeroDivisionError())
    for number, failure in enumerate(failures, 2):
        chain.fails = failure
        with pytest.raises(type(failure)):
            keeper.refresh()
        assert not keeper.leads
        chain.fails = None
        keeper.refresh()
        assert chain.begun == number
    assert database.said == ["gave up", *["looked 9"] * 3]


@pytest.mark.parametrize("leads", [True, False], ids=["following", "told"])
def test_changes_are_read_from_the_database_once_whoever_wrote_them(
    chain: Chain, keeper: SharedKeeper, monkeypatch: pytest.MonkeyPatch, leads: bool
) -> None:
    """Users, those that are gone, and the members as 0."""
    database, bob = chain.database, user(BOB, DeviceState.ACTIVE)
    database.leads, database.head = leads, 9

    def looks() -> None:
        database.looks += 2

    monkeypatch.setattr(several, "time", Watch(looks, looks))
    chain.users, chain.admitted = {BOB: bob}, (Policy.VOTE, frozenset({BOB}))
    database.folds += [BOB, 0, CARL]
    time_ms = 77 if leads else 0
    members = Membership(Policy.VOTE, frozenset({BOB}))
    assert keeper.refresh() == Changes(9, (bob,), (CARL,), members, time_ms)
    assert keeper.refresh() == Changes(9, time_ms=time_ms)
