"""What becomes of letters and signals between connections, the store and the other processes: the two parts
of the relay that carry them, with everything around them in memory.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, cast

import msgspec
import pytest
import structlog

from chatchain.errors import StoreUnavailable
from chatchain.model import Copy, Delivery, DeviceState, Envelope, Letter, Policy, Run, User
from chatchain.relay import letters as post
from chatchain.relay.allowance import Allowance
from chatchain.relay.letters import COUNTED, Letters
from chatchain.relay.limits import Rate
from chatchain.relay.mailbox import Verdict
from chatchain.relay.metrics import Metrics
from chatchain.relay.nodes import Passed
from chatchain.relay.ports import Membership, Peer
from chatchain.relay.sessions import Session
from chatchain.relay.signals import CONVERSATIONS, Signals
from chatchain.relay.tasks import Tasks, Threads
from chatchain.store.letters import into_runs, shifted
from chatchain.wire.intake import Intake
from chatchain.wire.messages import (
    Deliver,
    Goodbye,
    Message,
    Refused,
    Resumed,
    Signaled,
    StaleDevices,
    Submit,
    Tick,
    Welcome,
)
from chatchain.wire.parcels import deliver_frames, tick_frames
from tests.relay.here import Clock, until
from tests.relay.test_mailbox import ACTIVE, ADA, BOB, REVOKED, envelope, user

CARL = 100_000_000_000_003
SPACE = 4711


class Connection:
    """A peer that keeps what it is told."""

    address = "192.0.2.1"

    def __init__(self) -> None:
        self.told: list[Message] = []
        self.frames: list[tuple[type[Message], bytes]] = []
        self.session: object = None
        self.slow = False
        self.holds = 0
        self.strange, self.wide = True, True

    @property
    def waits(self) -> bool:
        return self.holds > 0

    def send(self, message: Message) -> None:
        self.told.append(message)

    def send_frames(self, kind: type[Message], frames: bytes) -> None:
        self.frames.append((kind, frames))

    def say_goodbye(self, code: str, message: str, retry_after_ms: int = 0) -> None:
        self.told.append(Goodbye(code, message, retry_after_ms))

    def hold(self) -> None:
        self.holds += 1

    def release(self) -> None:
        self.holds -= 1

    def logged_in(self) -> None:
        self.strange = False

    def narrow(self) -> None:
        self.wide = False

    def heard(self) -> list[Message]:
        """What it was told since the last time."""
        told, self.told = self.told, []
        return told

    def codes(self) -> list[str]:
        """Of refusals and farewells the codes; of other messages what they are."""
        return [getattr(message, "code", type(message).__name__) for message in self.heard()]

    def ticked(self) -> list[bytes]:
        """Ids of messages that were ticked since the last time."""
        ticks = b"".join(frames for kind, frames in self.frames if kind is Tick)
        self.frames = [each for each in self.frames if each[0] is not Tick]
        size = len(tick_frames([bytes(16)]))
        return [ticks[end - 16 : end] for end in range(size, len(ticks) + 1, size)]


class People:
    """Who is who; `seen` are those in memory."""

    def __init__(self, *users: User) -> None:
        self.there: dict[int, User] = {each.uid: each for each in users}
        self.seen: dict[int, User] = dict(self.there)
        self.known = self.seen.get
        self.membership = Membership(Policy.OPEN, frozenset())
        self.away = False

    async def user(self, uid: int) -> User | None:
        if self.away:
            raise StoreUnavailable("Away.")
        return self.there.get(uid)


class Others:
    """The other processes of this machine, and other machines: both only take in what they are told."""

    def __init__(self, *, alone: bool = True) -> None:
        self.alone = alone
        self.logins: list[tuple[int, int]] = []
        self.runs: list[Run] = []
        self.passed: Callable[[Passed], None] | None = None
        self.signals: list[Passed] = []
        self.at_hand: set[tuple[int, int]] = set()
        self.said: list[Passed] = []
        self.heard: Callable[[bytes], None] | None = None
        self.closed = False

    # --- as the neighbours ---

    def logged_in(self, uid: int, device: int) -> None:
        self.logins.append((uid, device))

    def committed(self, runs: list[Run]) -> None:
        self.runs += runs

    def pass_on(self, signal: Passed) -> bool:
        self.signals.append(signal)
        return (signal.uid, signal.device) in self.at_hand

    # --- as the bus ---

    def start(self, heard: Callable[[bytes], None]) -> None:
        self.heard = heard

    async def say(self, message: bytes) -> None:
        self.said.append(msgspec.msgpack.decode(message, type=Passed))

    async def close(self) -> None:
        self.closed = True


class Office:
    """The part that carries letters, and around it a store that commits when the test says so."""

    def __init__(self, *, others: Others | None = None, allowance: Allowance | None = None) -> None:
        self.people = People(user(ADA, ACTIVE), user(BOB, ACTIVE), user(CARL, ACTIVE))
        self.metrics, self.intake = Metrics(), Intake()
        self.threads = Threads(1, "post")
        self.tasks = Tasks(structlog.get_logger())
        self.looks = 0
        self.learns: Callable[[], None] = lambda: None
        """What the next look at the chain brings."""
        self.away = 0
        """How many questions the database will not answer."""
        self.given: list[Letter] = []
        self.rows: list[Run] = []
        self.before: dict[tuple[int, int, int], tuple[int, int]] = {}
        """What waited when it began."""
        self.digests: dict[bytes, bytes] = {}
        self.deleted: dict[tuple[int, int], int] = {}
        self.forgotten: list[tuple[int, int]] = []
        self.loads: list[tuple[int, int, int]] = []
        self.sequence = 0
        self.letters = Letters(
            cast(Any, self),
            self.threads,
            users=cast(Any, self.people),
            follower=cast(Any, self),
            nodes=cast(Any, others),
            allowance=allowance or Allowance(),
            tasks=self.tasks,
            intake=self.intake,
            log=structlog.get_logger(),
            metrics=self.metrics,
        )

    async def start(self) -> Office:
        await self.letters.start(cast(Any, self))
        return self

    # --- as the follower ---

    async def look_again(self) -> bool:
        self.looks += 1
        self.learns()
        return True

    # --- as the store ---

    def _check(self) -> None:
        if self.away:
            self.away -= 1
            raise StoreUnavailable("Away.")

    def space(self) -> int:
        return SPACE

    def usage(self) -> tuple[dict[tuple[int, int, int], tuple[int, int]], int]:
        self._check()
        return self.before, self.sequence

    def waiting(self, uid: int, device: int, after: int, rows: int, size: int) -> tuple[list[Run], bool]:
        self.loads.append((uid, device, after))
        self._check()
        found = [run for run in self.rows if (run.uid, run.device) == (uid, device) and run.first > after]
        return found, False

    def count_waiting(self, uid: int, device: int, after: int, rows: int) -> tuple[int, bool]:
        self._check()
        found = [run for run in self.rows if (run.uid, run.device) == (uid, device) and run.last > after]
        return sum(len(run.parcels) for run in found[:rows]), len(found) >= rows

    def accepted(self, sender: int, device: int, id: bytes) -> bytes | None:
        return self.digests.get(id)

    def keep(self, letters: list[Letter]) -> None:
        self.given += letters

    def remove(self, uid: int, device: int, through: int) -> None:
        self.deleted[uid, device] = through

    def removed(self, uid: int, device: int) -> int:
        return self.deleted.get((uid, device), 0)

    def forget_device(self, uid: int, device: int) -> Future[None]:
        done: Future[None] = Future()
        try:
            self._check()
        except StoreUnavailable as error:
            done.set_exception(error)
        else:
            self.forgotten.append((uid, device))
            done.set_result(None)
        return done

    async def commit(self, verdict: Verdict = "stored", *, most: int = 10_000) -> list[Letter]:
        """Does what was handed over, so much of it at most; gives it."""
        await asyncio.sleep(0)
        letters, self.given = self.given[:most], self.given[most:]
        if verdict != "stored":
            self.letters.kept([(letter, verdict) for letter in letters], [])
            return letters
        runs = shifted(into_runs(letters), self.sequence)
        self.sequence = runs[-1].last
        self.rows += runs
        self.digests |= {letter.id: letter.digest for letter in letters}
        self.letters.kept([(letter, verdict) for letter in letters], runs)
        return letters

    # --- for the tests ---

    def connect(self, uid: int, device: int = 1) -> Connection:
        """A connection whose login holds."""
        connection = Connection()
        self.letters.enter(cast(Peer, connection), self.people.there[uid], device)
        return connection

    def session(self, connection: Connection) -> Session:
        assert isinstance(connection.session, Session)
        return connection.session

    async def submit(self, connection: Connection, *envelopes: Envelope) -> None:
        """Says these in one piece; what is judged slowly is judged."""
        inbox: deque[Message] = deque(Submit(each) for each in envelopes)
        while inbox:
            self.letters.submitted(self.session(connection), inbox)
            if inbox:
                await until(lambda: not connection.waits)
        while self.tasks._tasks:
            await asyncio.wait(list(self.tasks._tasks))

    def value(self, name: str, *labels: str) -> float:
        """A counter or a gauge."""
        found = getattr(self.metrics, name)
        found = found.labels(*labels) if labels else found
        return float(found.collect()[0].samples[0].value) if not labels else float(found._value.get())


def write(number: int, *, to: int = BOB, body: bytes = b"body", version: int = 1) -> Envelope:
    plain = Envelope(number.to_bytes(16, "big"), 1, to, version, 1, body, (Copy(to, 1, b"h"),))
    assert plain.copies[0].uid == plain.recipient
    return plain


@pytest.fixture(autouse=True)
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is tried again at once."""
    monkeypatch.setattr(post, "RETRY", 0.0)


# --- connections ----------------------------------------------------------------------------------------


async def test_who_logs_in_is_told_what_waits_and_the_others_hear_of_it() -> None:
    """A stranger no more, and counted."""
    others = Others()
    office = await Office(others=others).start()
    connection = office.connect(BOB)
    (welcome,) = connection.heard()
    assert isinstance(welcome, Welcome)
    assert (welcome.uid, welcome.waiting) == (BOB, 0)
    assert (connection.strange, connection.wide, others.logins) == (False, False, [(BOB, 1)])
    assert office.letters.sessions == office.value("sessions") == office.value("logins", "accepted") == 1
    assert office.letters.holds(BOB, 1)
    office.letters.closed(office.session(connection))
    assert (office.letters.sessions, office.letters.holds(BOB, 1)) == (0, False)


@pytest.mark.parametrize(
    ("runs", "known", "deleted", "away", "waiting"),
    [
        (0, 0, 0, 0, 0),
        (3, 0, 0, 0, 6),  # another process has just stored them
        (3, 50, 0, 0, 6),  # another process has had them deleted
        (3, 0, 4, 0, 2),  # here they are about to be
        (COUNTED + 1, 3, 0, 0, 2 * COUNTED),
        (COUNTED + 1, 5_000, 0, 0, 5_000),
        (3, 4, 0, 1, 4),
    ],
)
async def test_among_others_what_waits_is_counted_in_the_database(
    runs: int, known: int, deleted: int, away: int, waiting: int
) -> None:
    """As far as that takes no time; and as this process knows it, where the database does not answer."""
    office = Office(others=Others(alone=False))
    if known:
        office.before[BOB, 1, ADA] = known, 100 * known
    await office.start()
    office.rows = [Run(BOB, 1, ADA, 1 + 2 * number, [b"a", b"b"]) for number in range(runs)]
    office.deleted[BOB, 1], office.away = deleted, away
    connection = office.connect(BOB)
    assert (connection.heard(), connection.waits) == ([], True)
    await until(lambda: not connection.waits)
    (welcome,) = connection.heard()
    assert isinstance(welcome, Welcome)
    assert (welcome.uid, welcome.waiting) == (BOB, waiting)


async def test_a_newer_login_here_or_elsewhere_closes_the_older_connection() -> None:
    """It counts no more, and gets nothing more."""
    office = await Office().start()
    older, newer = office.connect(BOB), office.connect(BOB)
    assert older.codes() == ["Welcome", "replaced"]
    assert office.letters.sessions == 1
    office.letters.closed(office.session(older))
    assert office.letters.holds(BOB, 1)
    office.letters.elsewhere(BOB, 1)
    assert newer.codes() == ["Welcome", "replaced"]
    assert office.letters.sessions == 0


async def test_sessions_of_an_older_epoch_end() -> None:
    """Those of the present one stay."""
    office = await Office().start()
    older = office.connect(BOB)
    office.people.there[BOB] = msgspec.structs.replace(user(BOB, ACTIVE, ACTIVE), epoch=1)
    newer, ada = office.connect(BOB, 2), office.connect(ADA)
    office.letters.end(BOB, "login_refused", "Log in anew.", except_epoch=1)
    assert [each.codes() for each in (older, newer, ada)] == [
        ["Welcome", "login_refused"],
        ["Welcome"],
        ["Welcome"],
    ]


async def test_a_revoked_device_is_forgotten_as_soon_as_the_database_can() -> None:
    """However often it cannot."""
    office = await Office().start()
    connection = office.connect(BOB)
    office.away = 3
    office.letters.revoked(BOB, 1)
    await until(lambda: office.forgotten == [(BOB, 1)])
    assert connection.codes() == ["Welcome", "revoked"]
    assert (office.away, office.letters.sessions) == (0, 0)


async def test_only_who_resumed_and_keeps_up_listens() -> None:
    """To what is not kept."""
    office = await Office().start()
    connection = office.connect(BOB)
    assert office.letters.listening(BOB, 1) is None
    office.letters.resume(office.session(connection), SPACE, 0)
    assert office.letters.listening(BOB, 1) is cast(Peer, connection)
    assert office.letters.listening(BOB, 2) is None
    connection.slow = True
    assert office.letters.listening(BOB, 1) is None


async def test_after_is_believed_of_this_space_only() -> None:
    """Of another it says nothing."""
    office = await Office().start()
    for space, after in ((SPACE, 9), (SPACE + 1, 0)):
        connection = office.connect(BOB)
        office.letters.resume(office.session(connection), space, 9)
        await until(lambda: bool(office.loads))
        assert connection.heard()[1:] == [Resumed(SPACE, after)]
        assert office.loads.pop() == (BOB, 1, max(after, office.removed(BOB, 1)))
        office.deleted.clear()


# --- letters that are taken ---------------------------------------------------------------------------------


async def test_a_letter_is_ticked_and_given_once_it_is_stored() -> None:
    """And counted; a repetition is ticked again, and what was read counts no more."""
    office = await Office().start()
    ada, bob = office.connect(ADA), office.connect(BOB)
    office.letters.receive(office.session(bob))
    await until(lambda: bool(office.loads))
    await asyncio.sleep(0)
    office.intake.shut = True
    await office.submit(ada, write(1), write(2))
    assert (ada.frames, bob.frames, office.value("queued") > 0) == ([], [], True)
    first, second = await office.commit()
    await until(lambda: bool(bob.frames))
    assert ada.ticked() == [first.id, second.id]
    parcels = [letter.parcels[0][2] for letter in (first, second)]
    assert bob.frames == [(Deliver, deliver_frames(1, parcels))]
    assert not office.intake.shut
    await office.submit(ada, write(1))
    await office.commit("duplicate")
    assert ada.ticked() == [first.id]
    office.letters.acknowledge(office.session(bob), (1, 2))
    assert office.deleted == {(BOB, 1): 2}
    for name, value in {
        "ticks": 2,
        "repeats": 1,
        "deliveries": 2,
        "acknowledged": 2,
        "queued": 0,
        "held": 0,
    }.items():
        assert office.value(name) == value, name
    assert office.metrics.batch._sum.get() == 2
    assert office.metrics.commit._sum.get() >= 0
    assert sum(bucket.get() for bucket in office.metrics.commit._buckets) == 1


async def test_among_several_processes_a_tick_comes_at_once_and_a_delivery_in_its_turn() -> None:
    """Others may have committed something before it."""
    others = Others()
    office = await Office(others=others).start()
    ada, bob = office.connect(ADA), office.connect(BOB)
    office.letters.receive(office.session(bob))
    await until(lambda: not office.tasks._tasks)
    await office.submit(ada, write(1))
    (letter,) = await office.commit()
    assert (ada.ticked(), bob.frames) == ([letter.id], [])
    office.letters.committed(others.runs)
    assert [kind for kind, _ in bob.frames] == [Deliver]


async def test_what_came_in_one_turn_is_handed_over_together() -> None:
    """Of all connections; and each letter once."""
    office = await Office().start()
    ada, carl = office.connect(ADA), office.connect(CARL)
    given: list[int] = []
    office.keep = lambda letters: given.append(len(letters))  # type: ignore[method-assign]
    for connection, numbers in ((ada, (1, 2)), (carl, (3,)), (ada, (4,))):
        inbox: deque[Message] = deque(Submit(write(number)) for number in numbers)
        office.letters.submitted(office.session(connection), inbox)
    await asyncio.sleep(0)
    office.letters.submitted(office.session(ada), deque([Submit(write(5))]))
    await asyncio.sleep(0)
    assert given == [4, 1]


# --- who is read from ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", ["rows", "bytes"])
async def test_who_has_much_unanswered_is_not_read_from(monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    """Until half of it is answered; nobody else waits for it."""
    office = await Office().start()
    ada, carl = office.connect(ADA), office.connect(CARL)
    await office.submit(carl, write(90))
    size = office.letters.pending
    monkeypatch.setattr(post, f"UNANSWERED_{bound.upper()}", 4 if bound == "rows" else 4 * size)
    for number in range(1, 4):
        await office.submit(ada, write(number))
        assert not ada.waits
    inbox: deque[Message] = deque([Submit(write(4)), Submit(write(5))])
    office.letters.submitted(office.session(ada), inbox)
    while inbox and not ada.waits:
        office.letters.submitted(office.session(ada), inbox)
    assert (ada.holds, carl.holds, office.value("held")) == (1, 0, 1)
    had = office.session(ada).rows
    await office.commit(most=1 + had - 3)
    assert ada.holds == 1
    await office.commit(most=1)
    assert (ada.holds, office.value("held")) == (0, 0)
    await office.commit()
    assert (office.session(ada).rows, office.session(ada).bytes, office.letters.pending) == (0, 0, 0)


async def test_while_much_waits_nobody_is_read_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes meanwhile is not either; half of it is stored before anybody is."""
    office = await Office().start()
    ada, carl = office.connect(ADA), office.connect(CARL)
    monkeypatch.setattr(post, "PENDING_BYTES", 4 * (post.LETTER_BYTES + 100))
    for number in range(1, 5):
        assert (ada.holds, carl.holds) == (0, 0)
        await office.submit(ada, write(number, body=bytes(100)))
    late = office.connect(BOB)
    assert [each.holds for each in (ada, carl, late)] == [1, 1, 1]
    assert office.value("held") == 3
    await office.commit(most=1)
    assert [each.holds for each in (ada, carl, late)] == [1, 1, 1]
    office.letters.closed(office.session(late))
    await office.commit()
    assert [each.holds for each in (ada, carl, late)] == [0, 0, 1]
    assert office.value("held") == 0


async def test_the_bounds_hold_whatever_is_sent() -> None:
    """2,000 messages and 1 MiB of a connection, and 8 MiB of all, each with the one that crosses it."""
    office = await Office().start()
    numbers = itertools.count(1)

    async def fill(connection: Connection, size: int) -> Session:
        session, version = office.session(connection), len(office.people.seen[CARL].devices)
        while not connection.waits:
            plain = msgspec.structs.replace(write(next(numbers), body=bytes(size)), sender_version=version)
            await office.submit(connection, plain)
        return session

    talkers = [office.connect(CARL)]
    assert (await fill(talkers[0], 0)).rows == 2_000
    await office.commit()
    most = 1024 * 1024
    assert most <= (await fill(talkers[0], 250_000)).bytes < most + 251_000
    while not office.letters._full:
        devices = user(CARL, *[ACTIVE] * (len(talkers) + 1))
        office.people.there[CARL] = office.people.seen[CARL] = devices
        talkers.append(office.connect(CARL, len(devices.devices)))
        await fill(talkers[-1], 250_000)
    assert 8 * most <= office.letters.pending < 8 * most + 251_000
    await office.commit()
    assert [each.holds for each in talkers] == [0] * len(talkers)


async def test_who_is_held_twice_is_released_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For its own sake and for everybody's."""
    office = await Office().start()
    ada = office.connect(ADA)
    monkeypatch.setattr(post, "UNANSWERED_ROWS", 2)
    monkeypatch.setattr(post, "PENDING_BYTES", 3 * post.LETTER_BYTES)
    inbox: deque[Message] = deque(Submit(write(number)) for number in range(1, 5))
    office.letters.submitted(office.session(ada), inbox)
    assert ada.holds == 1
    await office.commit()
    assert ada.holds == 0


def test_a_letter_counts_with_all_its_copies_and_something_for_itself() -> None:
    """An empty one costs memory, too."""
    session = cast(Session, type("Named", (), {"uid": ADA, "device": 1, "name": 1, "round": 3}))
    small = post._letter(session, write(1, body=b""), 5)
    copies = tuple(Copy(BOB, number, bytes(50)) for number in (1, 2))
    large = post._letter(session, msgspec.structs.replace(write(1, body=bytes(100)), copies=copies), 5)
    assert small.size >= 256
    assert large.size - small.size >= 2 * 100 + 2 * 50
    assert large.round == 3


@pytest.mark.parametrize("to", [77, BOB], ids=["another", "the same"])
async def test_what_follows_one_that_is_judged_slowly_waits(to: int) -> None:
    """It would overtake it."""
    office = await Office().start()
    ada = office.connect(ADA)
    office.people.seen.pop(BOB)
    inbox: deque[Message] = deque([Submit(write(1)), Submit(write(2, to=to)), Submit(write(3, to=CARL))])
    left = list(inbox)[1:]
    office.letters.submitted(office.session(ada), inbox)
    assert (ada.waits, list(inbox)) == (True, left)
    await until(lambda: not ada.waits)


async def test_what_was_too_fast_comes_again_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though more may be sent by then, and to whomever."""
    clock = Clock(monkeypatch, post)
    office = await Office(allowance=Allowance(messages=Rate(burst=1, per_second=1))).start()
    ada = office.connect(ADA)
    ada.heard()
    await office.submit(ada, write(1))
    await office.submit(ada, write(2))
    assert ada.codes() == ["limit_reached"]
    for number, to in ((3, BOB), (4, CARL)):
        clock.go_on(10)
        await office.submit(ada, write(number, to=to))
    assert ada.codes() == ["limit_reached"] * 2
    clock.go_on(10)
    await office.submit(ada, write(2))
    assert [letter.id for letter in await office.commit()] == [write(number).id for number in (1, 2)]


async def test_what_waits_from_before_is_counted_when_it_begins() -> None:
    """Else a restart would make room for as much again."""
    office = Office(allowance=msgspec.structs.replace(Allowance(), quota=SMALL))
    office.before = {(BOB, 1, ADA): (3, 900)}
    await office.start()
    welcome = office.connect(BOB).heard()[0]
    assert isinstance(welcome, Welcome)
    assert welcome.waiting == 3
    ada = office.connect(ADA)
    ada.heard()
    await office.submit(ada, write(1, body=bytes(100)))
    assert ada.codes() == ["limit_reached"]


# --- letters that are not taken -----------------------------------------------------------------------------


async def test_what_the_store_failed_at_comes_again_before_anything_else() -> None:
    """Also to others, and also what had been judged before the failure was heard."""
    office = await Office().start()
    ada = office.connect(ADA)
    ada.heard()
    await office.submit(ada, write(1))
    (letter,) = await office.commit("failed")
    assert letter.round == 0
    for number, to in ((2, BOB), (3, CARL)):
        await office.submit(ada, write(number, to=to))
    refused = ada.heard()
    assert [type(each) for each in refused] == [Refused] * 3
    assert all(isinstance(each, Refused) and each.retry_after_ms for each in refused)
    await office.submit(ada, write(1), write(2))
    assert [letter.round for letter in await office.commit()] == [1, 1]
    assert len(ada.ticked()) == 2
    assert office.value("refusals", "store_unavailable") == 3
    session = office.session(ada)
    session.round = 9
    await office.submit(ada, write(5))
    late = msgspec.structs.replace((await office.commit())[0], round=4)
    office.letters.kept([(late, "failed")], [])
    assert session.round == 9, "it was heard before"


async def test_one_after_another_may_be_taken_for_what_the_chain_brings() -> None:
    """Somebody who is new, or a device list; it is looked once."""
    office = await Office().start()
    office.people.there.pop(BOB)
    office.people.seen.pop(BOB)
    ada = office.connect(ADA)
    ada.heard()
    office.learns = lambda: office.people.there.update({BOB: user(BOB, ACTIVE)})
    await office.submit(ada, write(1))
    assert (len(await office.commit()), office.looks, ada.heard()) == (1, 1, [])
    two = user(BOB, ACTIVE, ACTIVE)
    office.people.seen[BOB] = user(BOB, ACTIVE)
    office.learns = lambda: office.people.there.update({BOB: two})
    copies = (Copy(BOB, 1, b"h"), Copy(BOB, 2, b"h"))
    await office.submit(ada, msgspec.structs.replace(write(2, version=2), copies=copies))
    assert (len(await office.commit()), office.looks, ada.heard()) == (1, 2, [])


async def test_who_knows_more_than_the_relay_tries_again() -> None:
    """And nothing of his overtakes it; to others it may be sent meanwhile."""
    office = await Office().start()
    ada = office.connect(ADA)
    ada.heard()
    await office.submit(ada, write(1, version=2), write(2), write(3, to=CARL))
    refused = ada.heard()
    assert [(each.code, each.retry_after_ms > 0) for each in refused if isinstance(each, Refused)] == [
        ("relay_behind", True)
    ] * 2
    assert [letter.id for letter in await office.commit()] == [write(3).id]
    assert office.looks == 1
    assert office.value("refusals", "relay_behind") == 2


async def test_a_refusal_for_good_comes_after_a_look_and_leaves_the_others() -> None:
    """Nobody of that id, and who is not admitted."""
    office = await Office().start()
    ada = office.connect(ADA)
    ada.heard()
    await office.submit(ada, write(1, to=77), write(2))
    assert ada.codes() == ["unknown_user"]
    office.people.membership = Membership(Policy.VOTE, frozenset({ADA}))
    await office.submit(ada, write(3), write(4))
    assert ada.codes() == ["not_a_member"] * 2
    office.people.membership = Membership(Policy.VOTE, frozenset({BOB}))
    await office.submit(ada, write(5))
    assert ada.codes() == ["not_a_member"]
    office.people.there.pop(ADA)
    office.people.seen.pop(ADA)
    await office.submit(ada, write(6))
    assert ada.codes() == ["unknown_user"]
    assert [letter.id for letter in await office.commit()] == [write(2).id]


async def test_an_old_list_makes_what_follows_wait() -> None:
    """The sender makes the message anew; those behind it must not be delivered before."""
    office = await Office().start()
    ada = office.connect(ADA)
    ada.heard()
    await office.submit(ada, write(1, version=0), write(2))
    stale, refused = ada.heard()
    assert isinstance(stale, StaleDevices)
    assert isinstance(refused, Refused)
    assert (refused.code, refused.retry_after_ms > 0) == ("relay_behind", True)
    await office.submit(ada, write(1), write(2))
    assert len(await office.commit()) == 2


async def test_a_message_that_was_stored_is_ticked_whatever_has_changed_since() -> None:
    """This very one: another under its id is refused as ever."""
    office = await Office().start()
    ada = office.connect(ADA)
    await office.submit(ada, write(1))
    await office.commit()
    ada.heard()
    office.people.there.pop(BOB)
    office.people.seen.pop(BOB)
    await office.submit(ada, write(1), write(1, body=b"another"))
    assert [type(each) for each in ada.heard()] == [Tick, Refused]


async def test_while_nobody_can_be_looked_up_a_message_is_refused_for_now() -> None:
    """And so is what follows it."""
    office = await Office().start()
    ada = office.connect(ADA)
    ada.heard()
    office.people.away = True
    office.people.seen.pop(BOB)
    await office.submit(ada, write(1))
    office.people.seen[BOB] = office.people.there[BOB]
    await office.submit(ada, write(2))
    refused = [each for each in ada.heard() if isinstance(each, Refused)]
    assert [(each.code, each.retry_after_ms > 0) for each in refused] == [("store_unavailable", True)] * 2
    assert office.given == []


async def test_a_full_mailbox_refuses_and_what_follows_does_not_slip_in() -> None:
    """Even if it is shorter, as long as the sender may not have heard."""
    office = await Office(allowance=msgspec.structs.replace(Allowance(), quota=SMALL)).start()
    ada = office.connect(ADA)
    ada.heard()
    for number, size in ((1, 600), (2, 600), (3, 1)):
        await office.submit(ada, write(number, body=bytes(size)))
    assert ada.codes() == ["limit_reached"] * 2
    assert [letter.id for letter in await office.commit()] == [write(1).id]
    await office.submit(ada, write(2, body=bytes(1)), write(3, body=bytes(1)))
    assert len(await office.commit()) == 2


SMALL = msgspec.structs.replace(Allowance().quota, bytes=1_000)


async def test_messages_in_one_piece_that_differ_are_judged_each_for_itself() -> None:
    """By recipient, versions and copies."""
    office = await Office().start()
    first = write(1)
    for change in (
        {"recipient": CARL},
        {"recipient_version": 2},
        {"sender_version": 2},
        {"copies": (Copy(BOB, 2, b"h"),)},
        {"copies": (*first.copies, Copy(BOB, 2, b"h"))},
    ):
        other = msgspec.structs.replace(first, **change)
        assert post._alike([Submit(first), Submit(other), Submit(first)], first) == [first]
    alike = [msgspec.structs.replace(first, id=bytes([number]) * 16, body=b"x") for number in range(3)]
    assert post._alike([*map(Submit, alike), Goodbye("a", "b", 0), Submit(first)], alike[0]) == alike
    ada = office.connect(ADA)
    ada.heard()
    await office.submit(ada, *(write(number, version=version) for number, version in ((1, 1), (2, 0))))
    assert ada.codes() == ["StaleDevices"]


async def test_of_many_none_is_taken_for_which_there_is_no_room() -> None:
    """What they would have taken of the sender's rate is given back, and they are judged one by one."""
    allowance = Allowance(messages=Rate(burst=4, per_second=1e-9), quota=SMALL)
    office = await Office(allowance=allowance).start()
    ada = office.connect(ADA)
    ada.heard()
    await office.submit(ada, *(write(number, body=bytes(400)) for number in (1, 2, 3)))
    assert ada.codes() == ["limit_reached"]
    assert [letter.id for letter in await office.commit()] == [write(1).id, write(2).id]
    await office.submit(ada, write(4, to=CARL))
    assert len(await office.commit()) == 1
    await office.submit(ada, write(5, to=CARL))
    assert ada.codes() == ["limit_reached"]
    assert office.given == []


# --- readers ------------------------------------------------------------------------------------------------


async def test_who_is_slow_is_given_nothing_until_it_reads_again() -> None:
    """It is in the database all the same."""
    office = await Office().start()
    ada, bob = office.connect(ADA), office.connect(BOB)
    office.letters.receive(office.session(bob))
    await until(lambda: not office.tasks._tasks)
    bob.slow = True
    for number in (1, 2, 3):
        await office.submit(ada, write(number))
        await office.commit()
    assert len(bob.frames) == 1
    bob.slow = False
    office.letters.writable(office.session(bob))
    await until(lambda: not office.tasks._tasks)
    assert b"".join(frames for _, frames in bob.frames) == deliver_frames(
        1, [parcel for run in office.rows for parcel in run.parcels]
    )


async def test_what_a_connection_is_answered_makes_it_slow_as_well() -> None:
    """Who sends and does not read is given no deliveries beside the answers."""
    office = await Office().start()
    ada = office.connect(ADA)
    office.letters.receive(office.session(ada))
    await until(lambda: not office.tasks._tasks)
    ada.slow = True
    await office.submit(ada, write(1, to=77))
    carl = office.connect(CARL)
    await office.submit(carl, write(2, to=ADA))
    await office.commit()
    assert ada.frames == []


async def test_a_read_that_failed_is_made_again_at_the_next_poll() -> None:
    """Behind what is about to be deleted."""
    office = await Office().start()
    bob = office.connect(BOB)
    office.away, office.deleted[BOB, 1] = 1, 5
    office.letters.receive(office.session(bob))
    await until(lambda: not office.tasks._tasks)
    assert office.loads == [(BOB, 1, 5)]
    office.letters.poll()
    await until(lambda: not office.tasks._tasks)
    assert office.loads == [(BOB, 1, 5)] * 2


async def test_with_the_database_back_all_is_counted_and_read_anew() -> None:
    """As soon as it answers; until then health says so and nobody follows."""
    office = await Office().start()
    ada, bob = office.connect(ADA), office.connect(BOB)
    office.letters.receive(office.session(bob))
    await until(lambda: not office.tasks._tasks)
    office.letters.store_failed("It does not answer.")
    assert not office.letters.store_sound
    await office.submit(ada, write(1))
    await office.commit()
    office.letters.poll()
    assert (bob.frames, len(office.loads)) == ([], 1)
    office.away = 3
    office.letters.store_settled()
    await until(lambda: not office.tasks._tasks)
    assert (office.letters.store_sound, office.away, len(office.loads)) == (True, 0, 2)
    assert [kind for kind, _ in bob.frames] == [Deliver]


async def test_what_another_process_stored_is_read_for_who_is_here() -> None:
    """Its word of what waits counts, too."""
    office = await Office(others=Others()).start()
    bob = office.connect(BOB)
    office.letters.receive(office.session(bob))
    await until(lambda: not office.tasks._tasks)
    office.rows.append(Run(BOB, 1, ADA, 1, [b"\x98parcel"]))
    office.letters.woken([(BOB, 1, 1)])
    await until(lambda: bool(bob.frames))
    office.letters.recounted({(CARL, 1, ADA): (12, 120)}, 1)
    welcome = office.connect(CARL).heard()[0]
    assert isinstance(welcome, Welcome)
    assert welcome.waiting == 12


@pytest.mark.parametrize("several", [False, True])
async def test_what_was_given_up_is_counted_and_its_senders_are_told(several: bool) -> None:
    """In the order of all commits."""
    others = Others() if several else None
    office = await Office(others=others).start()
    ada, bob = office.connect(ADA), office.connect(BOB)
    office.letters.receive(office.session(ada))
    await office.submit(ada, write(1), write(2))
    await office.commit()
    if others is not None:
        office.letters.committed(others.runs)
        others.runs.clear()
    office.letters.closed(office.session(bob))
    notice = Run(ADA, 1, BOB, 3, [b"\x98notice"])
    office.letters.expired(office.rows, [notice])
    assert office.value("dropped") == 2
    welcome = office.connect(BOB).heard()[0]
    assert isinstance(welcome, Welcome)
    assert welcome.waiting == 0
    if others is not None:
        assert others.runs == [notice]
    else:
        assert (Deliver, deliver_frames(3, notice.parcels)) in ada.frames


# --- signals ------------------------------------------------------------------------------------------------


class Sign:
    """The part that carries signals, with ada, bob and carl, of whom some listen here."""

    def __init__(self, *listening: tuple[int, int], nodes: bool = True, bus: bool = True) -> None:
        self.people = People(user(ADA, ACTIVE, ACTIVE), user(BOB, ACTIVE, REVOKED), user(CARL, ACTIVE))
        self.connections = {key: Connection() for key in listening}
        self.metrics, self.others = Metrics(), Others()
        self.signals = Signals(
            lambda uid, device: cast(Any, self.connections.get((uid, device))),
            nodes=cast(Any, self.others if nodes else None),
            bus=cast(Any, self.others if bus else None),
            users=cast(Any, self.people),
            allowance=Allowance(signals=Rate(burst=3, per_second=1e-9)),
            metrics=self.metrics,
        )
        self.signals.start()

    async def send(self, to: int = BOB, *, device: int = 1, copies: Sequence[tuple[int, int]] = ()) -> None:
        plain = envelope(1, *(copies or [(to, 1)]), body=b"typing")
        session = type("Named", (), {"uid": ADA, "device": device})
        await self.signals.send(cast(Session, session), msgspec.structs.replace(plain, recipient=to))

    def given(self, uid: int = BOB) -> list[Delivery]:
        """What a device was given since the last time."""
        return [each.delivery for each in self.connections[uid, 1].heard() if isinstance(each, Signaled)]

    def counted(self, outcome: str) -> float:
        return float(self.metrics.signals.labels(outcome)._value.get())


async def test_a_signal_is_given_here_and_said_nowhere_else() -> None:
    """Under the name that the session has."""
    sign = Sign((BOB, 1))
    await sign.send(device=2)
    (delivery,) = sign.given()
    assert (delivery.sequence, delivery.sender, delivery.sender_device) == (0, ADA, 2)
    assert (delivery.recipient, delivery.header, delivery.body) == (BOB, b"h", b"typing")
    assert (sign.others.signals, sign.others.said, sign.counted("given")) == ([], [], 1)


@pytest.mark.parametrize("nodes", [True, False])
async def test_who_is_not_here_may_be_at_a_neighbour_or_at_another_machine(nodes: bool) -> None:
    """The other machines are asked only if no neighbour is known to have the device."""
    sign = Sign(nodes=nodes)
    await sign.send()
    await sign.send(CARL)
    said = [(signal.uid, signal.device, signal.delivery.body) for signal in sign.others.said]
    assert said == [(BOB, 1, b"typing"), (CARL, 1, b"typing")]
    assert sign.others.signals == (sign.others.said if nodes else [])
    sign.others.at_hand = {(BOB, 1)}
    await sign.send()
    assert len(sign.others.said) == (2 if nodes else 3)
    await Sign(bus=False).send()


async def test_signals_go_from_active_devices_to_active_devices_of_the_recipient() -> None:
    """And between those whom policy lets message, both of them."""
    sign = Sign((BOB, 1), (BOB, 2), (CARL, 1))
    await sign.send(copies=[(BOB, 1), (BOB, 2), (CARL, 1)])
    assert [len(sign.connections[key].heard()) for key in sign.connections] == [1, 0, 0]
    await sign.send(device=3)
    assert sign.given() == []
    assert sign.counted("refused") == 0
    for members, reaches in (({ADA}, 0), ({BOB}, 0), ({ADA, BOB}, 1)):
        sign.people.membership = Membership(Policy.VOTE, frozenset(members))
        await sign.send(device=2)
        assert len(sign.given()) == reaches
    sign.people.membership = Membership(Policy.OPEN, frozenset())
    sign.people.there.pop(CARL)
    await sign.send(CARL)
    sign.people.there.pop(ADA)
    await sign.send(BOB)
    assert sign.counted("refused") == 4
    assert sign.others.said == []


async def test_while_nobody_can_be_looked_up_signals_are_lost() -> None:
    """Nobody waits for them."""
    sign = Sign((BOB, 1))
    sign.people.away = True
    await sign.send()
    sign.people.away = False
    assert sign.given() == []
    await sign.send()
    assert len(sign.given()) == 1


async def test_a_device_signals_so_often_to_a_user_and_an_account_so_often_at_all() -> None:
    """Each conversation for itself, and however many conversations there are."""
    sign = Sign((BOB, 1), (CARL, 1))
    for device in (1, 2):
        for to in (BOB, CARL):
            for _ in range(5):
                await sign.send(to, device=device)
    assert (len(sign.given()), len(sign.given(CARL)), sign.counted("limited")) == (6, 6, 8)
    many = range(1_000, 1_000 + CONVERSATIONS)
    sign.people.there |= {uid: user(uid, DeviceState.ACTIVE) for uid in many}
    sign.people.seen.clear()
    for uid in many:
        for device in (1, 2):
            await sign.send(uid, device=device)
    # Of thirty for the account twenty have gone: those that were too much for a conversation counted as well.
    assert len(sign.others.said) == 10
    assert CONVERSATIONS == 10


async def test_what_other_processes_pass_on_is_given_if_it_is_a_signal() -> None:
    """Whoever it was that said so; anything else is counted and dropped."""
    sign = Sign((BOB, 1))
    good = Delivery(0, bytes(16), 1, ADA, 1, BOB, 5, b"header", b"typing")
    bad = [msgspec.structs.replace(good, **change) for change in ({"body": bytes(513)}, {"sequence": 7})]
    heard, passed = sign.others.heard, sign.others.passed
    assert heard is not None
    assert passed is not None
    for delivery in (good, *bad):
        signal = Passed(BOB, 1, delivery)
        passed(signal)
        heard(msgspec.msgpack.encode(signal))
        passed(Passed(CARL, 1, delivery))
    heard(b"garbage")
    assert sign.given() == [good, good]
    assert (sign.counted("given"), sign.counted("unreadable")) == (2, 7)
    assert (sign.others.signals, sign.others.said) == ([], [])
    await sign.signals.close()
    assert sign.others.closed
    await Sign(nodes=False, bus=False).signals.close()
