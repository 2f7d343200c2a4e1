"""What workers of one machine hand each other: nothing is lost, shown twice or out of order, whatever becomes
of what they say.
"""

from __future__ import annotations

import asyncio
import itertools
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec
import pytest
import structlog
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chatchain import neighbours
from chatchain.model import Run
from chatchain.neighbours import Neighbours
from chatchain.relay import mailbox as box
from chatchain.relay import nodes as several
from chatchain.relay.frontier import EARLY, Frontier, Stretch
from chatchain.relay.mailbox import Mailbox
from chatchain.relay.metrics import Metrics
from chatchain.relay.nodes import HAND_OVER, Nodes
from chatchain.relay.quota import Usage

ADA, BOB, CARL = 100_000_000_000_001, 100_000_000_000_002, 100_000_000_000_003

Device = tuple[int, int]


# --- the machine --------------------------------------------------------------------------------------------


class Crossing(RuleBasedStateMachine):
    """One worker whose neighbours commit as well, and tell it early, late, twice, in part or never."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Run] = []  # committed and not yet deleted
        self.last = 0
        self.frontier = Frontier(0)
        self.mailbox = Mailbox()
        self.underway: list[Stretch] = []
        self.loads: list[box.Load] = []
        self.given: dict[int, list[int]] = defaultdict(list)
        self.promised: dict[int, list[int]] = defaultdict(list)
        for uid in (1, 2):
            self.act(self.mailbox.opened(uid, uid, 1))
            self.act(self.mailbox.receive(uid))

    def act(self, actions: Iterable[box.Action]) -> None:
        for action in actions:
            if isinstance(action, box.Give):
                self.given[action.session] += range(action.first, action.first + len(action.parcels))
            elif isinstance(action, box.Load):
                self.loads.append(action)
            elif isinstance(action, box.Remove):
                self.rows = [row for row in self.rows if row.uid != action.uid or row.last > action.through]

    def go_on(self, stretches: Iterable[Stretch]) -> None:
        for stretch in stretches:
            self.act(self.mailbox.committed(stretch.runs, stretch.named))

    @rule(
        found=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=5),
        cut=st.integers(1, 5),
        named=st.sets(st.integers(0, 4)),
    )
    def commit(self, found: list[tuple[int, int]], cut: int, named: set[int]) -> None:
        """Some worker's; of some runs only the name is told, and of 3, who is not here, perhaps more."""
        runs = []
        for uid, count in found:
            runs.append(Run(uid, 1, ADA, self.last + 1, [b"parcel"] * count))
            self.promised[uid] += range(self.last + 1, self.last + count + 1)
            self.last += count
        self.rows += runs
        for part in (runs[:cut], runs[cut:]):
            if part:
                whole = [run for number, run in enumerate(part) if number not in named]
                names = [(run.uid, 1, run.last) for number, run in enumerate(part) if number in named]
                self.underway.append(Stretch(1, part[0].first, part[-1].last, whole, names))

    @precondition(lambda self: self.underway)
    @rule(data=st.data(), once=st.sampled_from([True, True, True, False]))
    def tell(self, data: st.DataObject, once: bool) -> None:
        stretch = data.draw(st.sampled_from(self.underway))
        if once:
            self.underway.remove(stretch)
        self.go_on(self.frontier.came(stretch))

    @precondition(lambda self: self.underway)
    @rule()
    def tell_in_order(self) -> None:
        self.go_on(self.frontier.came(self.underway.pop(0)))

    @precondition(lambda self: self.underway)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        self.underway.remove(data.draw(st.sampled_from(self.underway)))

    @rule(back=st.integers(0, 3))
    def look(self, back: int) -> None:
        """The database's answer, which may be older than what was told meanwhile."""
        to = max(self.frontier.known, sorted({0, *(row.last for row in self.rows)})[-1 - back :][0])
        self.answer(self.frontier.known, to)

    def answer(self, after: int, to: int) -> None:
        latest: dict[int, int] = {}
        for row in self.rows:
            if after < row.last <= to:
                latest[row.uid] = max(row.last, latest.get(row.uid, 0))
        self.act(self.mailbox.woken([(uid, 1, last) for uid, last in latest.items()]))
        self.go_on(self.frontier.looked(to))

    @precondition(lambda self: self.loads)
    @rule()
    def load(self) -> None:
        load = self.loads.pop(0)
        found = [row for row in self.rows if row.uid == load.uid and row.last > load.after]
        self.act(self.mailbox.loaded(load.session, found, False))

    @precondition(lambda self: any(self.given.values()))
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(sorted(uid for uid, given in self.given.items() if given)))
        self.act(self.mailbox.acknowledged(session, self.given[session]))

    @invariant()
    def nothing_is_given_twice_or_passed_over(self) -> None:
        for uid, given in self.given.items():
            assert given == self.promised[uid][: len(given)]

    def teardown(self) -> None:
        self.answer(self.frontier.known, self.last)
        while self.loads:
            self.load()
        for uid in (1, 2):
            assert self.given[uid] == self.promised[uid]
        assert self.frontier.known == self.frontier.seen == self.last
        assert (self.frontier._early, self.frontier._early_bytes) == ({}, 0)


TestCrossing = Crossing.TestCase
TestCrossing.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_a_device_that_is_named_is_given_none_of_the_runs_about_it() -> None:
    """A long message may lie before a short one, or after it: it reads both."""
    for runs, named in (([Run(BOB, 1, ADA, 2, [b"short"])], 1), ([Run(BOB, 1, ADA, 1, [b"short"])], 2)):
        mailbox = Mailbox()
        mailbox.opened(7, BOB, 1)
        mailbox.receive(7)
        mailbox.loaded(7, [], False)
        (load,) = mailbox.committed(runs, [(BOB, 1, named)])
        assert isinstance(load, box.Load)
        assert load.after == 0


def stretch(first: int, count: int = 1) -> Stretch:
    return Stretch(1, first, first + count - 1, [Run(BOB, 1, ADA, first, [b"x"] * count)], [])


def test_what_comes_early_is_bounded() -> None:
    """By number and by size; the next in order is taken all the same."""
    frontier = Frontier(0)
    for first in range(2, 2 * EARLY):
        assert frontier.came(stretch(first)) == []
    assert (frontier.seen, len(frontier._early)) == (EARLY + 1, EARLY)
    assert len(frontier.came(stretch(1))) == EARLY + 1
    large = [Stretch(1, n, n, [Run(BOB, 1, ADA, n, [bytes(2**20)])], []) for n in range(1000, 1010)]
    for each in large:
        assert frontier.came(each) == []
    assert len(frontier._early) == 4
    assert frontier.looked(1001) == large[2:4]


def test_a_stretch_that_makes_no_sense_changes_nothing() -> None:
    """Backwards, known, or known in part."""
    frontier = Frontier(10)
    for first, last in ((11, 10), (11, 5), (1, 10), (5, 15), (0, 0), (-5, 20)):
        assert frontier.came(Stretch(1, first, last, [], [])) == []
    assert (frontier.known, frontier.seen) == (10, 10)


# --- the sockets --------------------------------------------------------------------------------------------


def modes(folder: Path) -> list[int]:
    return [stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_neighbours_hear_each_other_and_nobody_else_can(tmp_path: Path) -> None:
    """In order; the sockets are their owner's, and gone afterwards."""
    told: list[str] = []
    one, other = (Neighbours(tmp_path, number, 2, told.append) for number in range(2))
    heard: list[bytes] = []
    one.start(lambda message: None)
    other.start(lambda message: heard.append(bytes(message)))
    for number in range(100):
        assert one.send(1, b"%d" % number)
    await until(lambda: len(heard) == 100)
    assert heard == [b"%d" % number for number in range(100)]
    assert modes(tmp_path) == [0o600, 0o600]
    for neighbour in (one, other):
        neighbour.close()
    assert (modes(tmp_path), told) == ([], [])


async def test_a_neighbour_that_takes_nothing_costs_a_bounded_queue(tmp_path: Path) -> None:
    """What does not fit is dropped at once; what was queued arrives in order when it goes on."""
    one, other = (Neighbours(tmp_path, number, 2, print) for number in range(2))
    heard: list[bytes] = []
    other.start(lambda message: heard.append(bytes(message[:4])))
    asyncio.get_running_loop().remove_reader(other._socket.fileno())  # type: ignore[union-attr]  # frozen
    accepted = [number for number in range(1000) if one.send(1, number.to_bytes(4, "big") + bytes(64_000))]
    assert accepted == list(range(len(accepted)))
    assert len(accepted) < 60
    assert one._lines[1]._queued <= neighbours.QUEUE_BYTES
    asyncio.get_running_loop().add_reader(other._socket.fileno(), other._read)  # type: ignore[union-attr]
    await until(lambda: len(heard) == len(accepted))
    assert heard == [number.to_bytes(4, "big") for number in accepted]
    assert one.send(1, b"more")
    await until(lambda: heard[-1] == b"more")
    assert one._lines[1]._queued == 0
    assert not asyncio.get_running_loop().remove_writer(one._lines[1]._connected().fileno()), "it is idle"
    for neighbour in (one, other):
        neighbour.close()


async def test_what_follows_a_queue_goes_through_it(tmp_path: Path) -> None:
    """Also when the neighbour has room again."""
    one, other = (Neighbours(tmp_path, number, 2, print) for number in range(2))
    heard: list[bytes] = []
    other.start(lambda message: heard.append(bytes(message)))
    assert other._socket is not None
    numbers = itertools.count()
    while not one._lines[1]._queue:
        assert one.send(1, b"%d" % next(numbers))
    first = [other._socket.recv(100) for _ in range(3)]
    last = next(numbers)
    assert one.send(1, b"%d" % last)
    await until(lambda: len(first) + len(heard) == last + 1)
    assert first + heard == [b"%d" % number for number in range(last + 1)]
    for neighbour in (one, other):
        neighbour.close()


async def test_who_hangs_up_leaves_nothing_with_the_loop(tmp_path: Path) -> None:
    """The numbers of its sockets are others' soon; nor is anything read behind a message that ended it."""
    loop = asyncio.get_running_loop()
    bugs: list[object] = []
    loop.set_exception_handler(lambda _, context: bugs.append(context))
    one, other = (Neighbours(tmp_path, number, 3, print) for number in range(2))
    assert (one.others, other.others) == ([1, 2], [0, 2])
    heard: list[bytes] = []

    def hear(message: memoryview) -> None:
        heard.append(bytes(message))
        other.close()

    other.start(hear)
    assert other._socket is not None
    reading = other._socket.fileno()
    numbers = itertools.count()
    while not one._lines[1]._queue:
        one.send(1, b"%d" % next(numbers))
    writing = one._lines[1]._connected().fileno()
    one.close()
    assert not loop.remove_writer(writing)
    assert one._lines[1]._queued == 0
    await until(lambda: heard)
    assert (heard, bugs, loop.remove_reader(reading)) == ([b"0"], [], False)


async def test_a_neighbour_that_was_replaced_is_found_again(tmp_path: Path) -> None:
    """What is said in between is dropped, also what had been queued; too long a message always is."""
    one, other = (Neighbours(tmp_path, number, 2, print) for number in range(2))
    assert not one.send(1, b"nobody")
    other.start(lambda message: None)
    asyncio.get_running_loop().remove_reader(other._socket.fileno())  # type: ignore[union-attr]
    while one.send(1, bytes(64_000)):
        pass
    assert other._socket is not None
    other._socket.close()  # as a process that is killed does; its name stays
    await until(lambda: not one._lines[1]._queue)
    assert not one.send(1, b"nobody")
    heard: list[bytes] = []
    newer = Neighbours(tmp_path, 1, 2, print)
    newer.start(lambda message: heard.append(bytes(message)))
    assert one.send(1, b"hello")
    assert not one.send(1, bytes(neighbours.MOST + 1))
    await until(lambda: heard == [b"hello"])
    newer.close()
    newest = Neighbours(tmp_path, 1, 2, print)
    newest.start(lambda message: heard.append(bytes(message)))
    assert [one.send(1, b"%d" % number) for number in (1, 2)] == [False, True]
    await until(lambda: heard == [b"hello", b"2"])
    for neighbour in (one, newest):
        neighbour.close()


async def test_without_a_folder_neighbours_say_so_and_go_on(tmp_path: Path) -> None:
    """They then hear nothing."""
    told: list[str] = []
    one = Neighbours(tmp_path / "gone", 0, 2, told.append)
    one.start(lambda message: None)
    assert not one.send(1, b"nobody")
    one.close()
    assert told == ["No such file or directory"]


# --- two processes ------------------------------------------------------------------------------------------


class Database:
    """What both share: who has something waiting up to which sequence."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, int]] = []
        self.looks = 0

    def beat(self) -> int:
        return 1

    def lead(self) -> int:
        return 0

    def looked(self, head: int) -> None: ...

    def give_up(self) -> None: ...

    def counts(self) -> several.Counts:
        class Now(msgspec.Struct, frozen=True):
            sequence: int
            login: int = 0
            fold: int = 0
            looks: int = 0
            head: int = 0

        return Now(max((last for *_, last in self.rows), default=0))

    def stored(self, after: int, to: int) -> list[tuple[int, int, int]]:
        self.looks += 1
        return [row for row in self.rows if after < row[2] <= to]

    def logins(self, after: int) -> list[Device]:
        return []

    def folded(self, after: int) -> list[int]:
        return []

    def announce(self, devices: Sequence[Device]) -> None: ...


class Process:
    """One of two workers, with the devices that it holds and what it was told for them."""

    def __init__(self, folder: Path, number: int, database: Database, *devices: Device) -> None:
        self.devices = set(devices)
        self.whole: list[Run] = []
        self.woke: list[tuple[int, int, int]] = []
        self.metrics = Metrics()
        self.near = Neighbours(folder, number, 2, print)
        self.nodes = Nodes(
            database, None, self.near, usage=lambda: ({}, 0), log=structlog.get_logger(), metrics=self.metrics
        )

    async def start(self) -> asyncio.Task[None]:
        await self.nodes.start(self)
        return asyncio.create_task(self.nodes._follow())

    def holds(self, uid: int, device: int) -> bool:
        return (uid, device) in self.devices

    def woken(self, devices: Iterable[tuple[int, int, int]]) -> None:
        self.woke += [device for device in devices if device[:2] in self.devices]

    def committed(self, runs: Iterable[Run], named: Iterable[tuple[int, int, int]]) -> None:
        self.woken(named)
        self.whole += [run for run in runs if (run.uid, run.device) in self.devices]

    def elsewhere(self, uid: int, device: int) -> None: ...

    def recounted(self, usage: Usage, counted_to: int) -> None: ...


@pytest.fixture
def database() -> Database:
    return Database()


class Commits:
    """Draws the sequences of one database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.numbers = itertools.count(1)

    def by(self, process: Process | None, *devices: Device, size: int = 10, count: int = 1) -> list[Run]:
        """A commit; without a process, of one that does not tell."""
        runs = []
        for uid, device in devices:
            first, *_ = [next(self.numbers) for _ in range(count)]
            runs.append(Run(uid, device, ADA, first, [bytes(size)] * count))
            self.database.rows.append((uid, device, runs[-1].last))
        if process is not None:
            process.nodes.committed(runs)
        return runs


async def test_a_place_is_learnt_from_the_first_message(tmp_path: Path, database: Database) -> None:
    """It is read back, the next is handed over; once the device is gone it is named again."""
    one, other = Process(tmp_path, 0, database), Process(tmp_path, 1, database, (BOB, 1))
    following = [await process.start() for process in (one, other)]
    commits = Commits(database)
    commits.by(one, (BOB, 1))
    await until(lambda: (BOB, 1) in one.nodes._places)
    assert (other.woke, other.whole) == ([(BOB, 1, 1)], [])
    (run,) = commits.by(one, (BOB, 1))
    await until(lambda: other.whole == [run])
    other.devices.clear()
    commits.by(one, (BOB, 1))
    await until(lambda: (BOB, 1) not in one.nodes._places)
    assert other.woke == [(BOB, 1, 1)]
    one.nodes._places[BOB, 1] = 1
    one.nodes.logged_in(BOB, 1)
    assert (BOB, 1) not in one.nodes._places
    await end(one, other, following)


async def test_an_oversized_run_is_named_and_many_are_cut(tmp_path: Path, database: Database) -> None:
    """What would not fit one message is left to the database; what is long goes in several."""
    one, other = Process(tmp_path, 0, database), Process(tmp_path, 1, database, (BOB, 1), (CARL, 1))
    following = [await process.start() for process in (one, other)]
    one.nodes._places = {(BOB, 1): 1, (CARL, 1): 1}
    commits = Commits(database)
    large, small = commits.by(one, (BOB, 1), size=HAND_OVER + 1), commits.by(one, (CARL, 1))
    many = commits.by(one, *[(CARL, 1)] * 20, size=8_000, count=2)
    await until(lambda: len(other.whole) == 21)
    assert (other.woke, other.whole) == ([(BOB, 1, large[0].last)], [*small, *many])
    assert other.metrics.handovers.labels("taken")._value.get() == 2 + 4
    assert database.looks == 0
    await end(one, other, following)


async def test_a_flood_of_calls_is_answered_by_looks_and_not_read(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever speaks on the bus has each process read a few KiB between two looks, however much he says."""
    process = Process(tmp_path, 0, database, (BOB, 1))
    following = await process.start()
    read: list[bytes] = []

    def note(message: bytes) -> tuple[Device, ...]:
        read.append(message)
        return ((CARL, 1),)

    monkeypatch.setattr(several, "named", note)
    noise = msgspec.msgpack.encode(((CARL, 1),) * 500)
    for _ in range(1000):
        process.nodes._heard(noise)
    assert sum(map(len, read)) <= several.ATTENTION
    Commits(database).by(None, (BOB, 1))
    await until(lambda: process.woke == [(BOB, 1, 1)])
    process.nodes._heard(noise)
    assert read.pop() == noise
    following.cancel()
    process.near.close()


async def test_what_nobody_told_of_is_looked_for(tmp_path: Path, database: Database) -> None:
    """Before anything that follows it is used."""
    one, other = Process(tmp_path, 0, database), Process(tmp_path, 1, database, (BOB, 1))
    following = [await process.start() for process in (one, other)]
    one.nodes._places[BOB, 1] = 1
    commits = Commits(database)
    commits.by(None, (BOB, 1))
    (run,) = commits.by(one, (BOB, 1))
    own = commits.by(other, (BOB, 1))
    await until(lambda: other.nodes._frontier.known == 3)
    assert (other.woke[0], database.looks > 0) == ((BOB, 1, 1), True)
    assert other.whole in ([run, *own], []), "in order, or all of it from the database"
    assert other.whole or (BOB, 1, 3) in other.woke
    await end(one, other, following)


class Calls:
    """A bus that nobody listens to."""

    connected = True

    def __init__(self) -> None:
        self.said: list[bytes] = []

    def start(self, heard: Callable[[bytes], None]) -> None: ...

    async def say(self, message: bytes) -> None:
        self.said.append(message)

    async def close(self) -> None: ...


async def test_other_machines_are_called_only_when_no_neighbour_takes_it(
    tmp_path: Path, database: Database
) -> None:
    """A device of a neighbour that does not answer may be elsewhere by now."""
    one, other = Process(tmp_path, 0, database), Process(tmp_path, 1, database, (BOB, 1))
    calls = Calls()
    one.nodes._bus = calls
    following = [await process.start() for process in (one, other)]
    following.append(asyncio.create_task(one.nodes._talk()))
    one.nodes._places = {(BOB, 1): 1}
    commits = Commits(database)
    commits.by(one, (BOB, 1))
    await until(lambda: other.whole)
    assert calls.said == []
    other.near.close()
    commits.by(one, (BOB, 1))
    await until(lambda: calls.said)
    assert calls.said == [msgspec.msgpack.encode([(BOB, 1)])]
    await end(one, other, following)


async def test_garbage_from_a_neighbour_changes_nothing(tmp_path: Path, database: Database) -> None:
    """Nor do words that no process of ours says."""
    one, other = Process(tmp_path, 0, database), Process(tmp_path, 1, database, (BOB, 1))
    following = [await process.start() for process in (one, other)]
    for message in (
        b"",
        b"garbage",
        b"\xdd\xff\xff\xff\xff",
        msgspec.msgpack.encode([9, 1, []]),
        bytes(100_000),
    ):
        assert one.near.send(1, message)
    unreadable = other.metrics.handovers.labels("unreadable")._value
    await until(lambda: unreadable.get() == 5)
    assert (other.woke, other.whole, other.nodes._frontier.known) == ([], [], 0)
    await end(one, other, following)


async def end(one: Process, other: Process, following: list[asyncio.Task[None]]) -> None:
    for task in following:
        task.cancel()
    await asyncio.gather(*following, return_exceptions=True)
    for process in (one, other):
        await process.nodes.close()
