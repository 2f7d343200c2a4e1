"""How a relay in this process greets, forgets and ends those who connect, and what it says of itself."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from structlog.testing import capture_logs

from chatchain.errors import ProtocolViolation, StoreUnavailable
from chatchain.model import DeviceState, Letter
from chatchain.relay import login
from chatchain.relay.directory import Changes
from chatchain.relay.files import FileSession
from chatchain.relay.ports import Peer
from chatchain.relay.service import NOTED
from chatchain.transport import RelayLink, dial
from chatchain.wire.connection import State
from chatchain.wire.messages import (
    Challenge,
    EnterFiles,
    Failed,
    FetchKeys,
    FilesOpen,
    Goodbye,
    Keys,
    Login,
    Message,
    Ping,
    Signal,
    Submit,
    Tick,
)
from tests.relay.here import Begin, Here, farewell, until
from tests.relay.test_mailbox import ADA, user
from tests.relay.test_post import Connection
from tests.relay.test_together import envelope


@pytest.fixture
async def here(begin: Begin) -> Here:
    return await begin()


class Stranger(Connection):
    """A connection that may be cut; its farewells are told to the relay only when the test says so."""

    def __init__(self, here: Here, address: str = "192.0.2.1") -> None:
        super().__init__()
        self.here, self.address = here, address
        self.deadline = self.heard_at = self.asked = 0.0
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True
        self.here.relay.closed(cast(Peer, self))


def opened(here: Here, address: str = "192.0.2.1") -> Stranger:
    stranger = Stranger(here, address)
    here.relay.opened(cast(Peer, stranger))
    return stranger


async def enter_files(here: Here) -> RelayLink:
    """A connection for files."""
    link = await dial(here.named)
    proof = here.login(link)
    await link.send(EnterFiles(ADA, 1, 0, proof.kdf, proof.login_signature, proof.device_signature))
    assert isinstance(await link.receive(), FilesOpen)
    return link


def health(here: Here, *names: str) -> list[object]:
    shown = here.relay.health()
    return [shown[name] for name in names]


# --- greeting and forgetting --------------------------------------------------------------------------------


async def test_each_connection_is_greeted_with_a_nonce_of_its_own(here: Here) -> None:
    """And counted until it is gone."""
    strangers = [opened(here) for _ in range(3)]
    nonces = set()
    for stranger in strangers:
        (challenge,) = stranger.heard()
        assert isinstance(challenge, Challenge)
        assert len(challenge.nonce) == login.NONCE_BYTES
        assert cast(Any, stranger.session).nonce == challenge.nonce
        nonces.add(challenge.nonce)
    assert len(nonces) == 3
    assert health(here, "connections", "sessions") == [3, 0]
    assert here.relay.metrics.connections._value.get() == 3
    for stranger in strangers:
        here.relay.closed(cast(Peer, stranger))
        assert stranger.session is None
    assert health(here, "connections") == [0]
    assert here.relay.metrics.connections._value.get() == 0


async def test_connections_of_both_sorts_are_forgotten_when_they_end(here: Here) -> None:
    """Their sessions with them."""
    links = [await here.connect(), await enter_files(here)]
    files = here.relay._files
    assert (health(here, "sessions"), len(files._sessions)) == ([1], 1)
    for link in links:
        await link.close()
    await until(lambda: health(here, "connections") == [0])
    assert (health(here, "sessions"), len(files._sessions)) == ([0], 0)
    assert not here.relay.letters.holds(ADA, 1)


async def test_what_a_connection_said_behind_its_end_is_dropped(here: Here) -> None:
    """One after the other, as it lies in its inbox."""
    stranger = opened(here)
    here.relay.closed(cast(Peer, stranger))
    inbox: deque[Message] = deque([Submit(envelope(1)), Submit(envelope(2))])
    here.relay.submitted(cast(Peer, stranger), inbox)
    assert list(inbox) == [Submit(envelope(2))]
    proof = Login(ADA, 1, 0, b"", bytes(65), bytes(65))
    for message in (Ping(1), FetchKeys(1, (ADA,)), proof):
        here.relay.received(cast(Peer, stranger), message)
    here.relay.writable(cast(Peer, stranger))
    assert (here.relay.letters.pending, stranger.holds) == (0, 0)


async def test_nothing_else_is_served_while_a_login_or_a_signal_is_looked_at(here: Here) -> None:
    """Nobody has more of them under way than one; a login that fails is no bug."""
    stranger = opened(here)
    with capture_logs() as log:
        here.relay.received(cast(Peer, stranger), Login(ADA, 1, 0, b"", bytes(65), bytes(65)))
        assert stranger.holds == 1
        await until(lambda: stranger.holds == 0)
    assert stranger.codes() == ["Challenge", "login_refused"]
    assert [line["event"] for line in log] == ["login refused"]
    member = opened(here)
    here.relay.letters.enter(cast(Peer, member), user(ADA, DeviceState.ACTIVE), 1)
    here.relay.received(cast(Peer, member), Signal(envelope(1)))
    assert member.holds == 1
    await until(lambda: member.holds == 0)


async def test_who_reads_again_is_given_more_by_the_part_that_serves_it(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages or files."""
    links = [await here.connect(), await enter_files(here)]
    told: list[object] = []
    monkeypatch.setattr(here.relay.letters, "writable", told.append)
    monkeypatch.setattr(here.relay._files, "writable", told.append)
    for peer in here.relay._peers:
        here.relay.writable(peer)
        assert told.pop() is peer.session
    for link in links:
        await link.close()


async def test_breaches_of_an_address_are_counted_and_noted_up_to_a_bound(here: Here) -> None:
    """Whoever repeats them fills no disk, and hides nobody else's."""
    one, other = opened(here), opened(here, "192.0.2.2")
    with capture_logs() as log:
        for _ in range(50):
            here.relay.violated(cast(Peer, one), ProtocolViolation("Nonsense."))
        here.relay.violated(cast(Peer, other), ProtocolViolation("Nonsense."))
    noted = [line["address"] for line in log if line["event"] == "violation"]
    assert noted == ["192.0.2.1"] * int(NOTED.burst) + ["192.0.2.2"]
    assert here.relay.metrics.violations._value.get() == 51


# --- what the chain says ------------------------------------------------------------------------------------


async def test_what_the_chain_says_ends_sessions_of_both_sorts(here: Here) -> None:
    """A revoked device's, those of an older epoch, and those of who is gone; nobody else's."""
    present = user(ADA, DeviceState.ACTIVE)
    assert present.epoch == 0

    async def after(changes: Changes) -> list[str]:
        links = [await here.connect(), await enter_files(here)]
        here.relay._changed(changes)
        ended = [peer.state is State.CLOSED for peer in here.relay._peers]
        assert len(set(ended)) == 1
        codes = [(await farewell(link)).code for link in links] if ended[0] else []
        for link in links:
            await link.close()
        await until(lambda: health(here, "connections") == [0])
        return codes

    revoked = user(ADA, DeviceState.REVOKED, DeviceState.ACTIVE)
    other = user(ADA, DeviceState.ACTIVE, DeviceState.REVOKED)
    for unconcerned in (Changes(2, (present,)), Changes(2, (other,)), Changes(2, gone=(ADA + 1,))):
        assert await after(unconcerned) == []
    assert await after(Changes(2, (revoked,))) == ["revoked"] * 2
    assert await after(Changes(2, (msgspec.structs.replace(present, epoch=1),))) == ["login_refused"] * 2
    assert await after(Changes(2, gone=(ADA,))) == ["login_refused"] * 2


async def test_the_chain_s_time_is_a_second_opinion(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is known."""
    heard: list[int] = []
    monkeypatch.setattr(here.relay._clocks, "heard", heard.append)
    for time_ms in (7, 0, 9):
        here.relay._changed(Changes(2, time_ms=time_ms))
    assert heard == [7, 9]


async def test_health_is_that_of_database_and_chain(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by itself."""
    assert health(here, "ok", "database", "chain", "draining", "accepting") == [
        True,
        True,
        True,
        False,
        False,
    ]
    here.relay.accepting = True
    assert health(here, "accepting") == [True]
    here.relay.letters.store_sound = False
    assert health(here, "ok", "database", "chain") == [False, False, True]
    here.relay.letters.store_sound = True
    monkeypatch.setattr("chatchain.relay.follower.STALE", 0.0)
    assert health(here, "ok", "database", "chain") == [False, True, False]


# --- the end ------------------------------------------------------------------------------------------------


class Slow:
    """Holds back what is to be stored until the test lets it go."""

    def __init__(self, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kept: list[list[Letter]] = []
        self._keep = here.writer.keep
        monkeypatch.setattr(here.writer, "keep", self.kept.append)

    def go_on(self) -> None:
        for each in self.kept:
            self._keep(each)


async def test_a_relay_that_ends_answers_first_and_takes_nothing_more(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes meanwhile is sent away at once; health says that it ends."""
    here.relay.accepting = True
    slow = Slow(here, monkeypatch)
    link = await here.connect()
    await link.send(Submit(envelope(1)))
    await until(lambda: bool(slow.kept))
    ending = asyncio.create_task(here.relay.drain(3_600))
    await until(lambda: here.relay._draining)
    assert health(here, "ok", "draining", "accepting") == [False, True, False]
    await link.send(Submit(envelope(2)))
    goodbye = await farewell(await dial(here.named))
    assert (goodbye.code, goodbye.retry_after_ms > 0) == ("shutdown", True)
    assert not ending.done()
    slow.go_on()
    assert isinstance(tick := await link.receive(), Tick)
    assert tick.id == envelope(1).id
    assert (await farewell(link)).code == "shutdown"
    await ending
    assert len(slow.kept) == 1, "what came after that is not taken"
    assert health(here, "connections") == [0]


@pytest.mark.parametrize("stuck", ["store", "peer"])
async def test_a_relay_that_ends_waits_for_nobody_for_ever(
    here: Here, monkeypatch: pytest.MonkeyPatch, stuck: str
) -> None:
    """Neither for a database that does not answer nor for a client that does not go: it is cut."""
    stranger, link = opened(here), None
    if stuck == "store":
        slow = Slow(here, monkeypatch)
        link = await here.connect()
        await link.send(Submit(envelope(1)))
        await until(lambda: bool(slow.kept))
    async with asyncio.timeout(60):
        await here.relay.drain(0.2)
    assert stranger.aborted
    assert stranger.holds == 1
    assert [type(message) for message in stranger.told] == [Challenge, Goodbye]
    await until(lambda: health(here, "connections") == [0])
    if link is not None:
        await link.close()


async def test_who_goes_by_itself_is_not_cut(here: Here) -> None:
    """It may read the farewell first."""
    stranger = opened(here)
    ending = asyncio.create_task(here.relay.drain(3_600))
    await until(lambda: len(stranger.told) == 2)
    await asyncio.sleep(0.05)
    assert not ending.done()
    here.relay.closed(cast(Peer, stranger))
    await ending
    assert not stranger.aborted


class Others:
    """The other processes, as the relay begins and ends to talk with them."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.passed: object = None

    async def start(self, inmates: object) -> None:
        self.said.append("start")

    def work(self) -> list[Coroutine[None, None, None]]:
        return [self.look()]

    async def look(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        self.said.append("close")


class Bus(Others):
    def start(self, heard: object) -> None:  # type: ignore[override]  # a bus begins at once
        self.said.append("start")


async def test_a_relay_begins_all_of_its_work_and_ends_all_of_it(tmp_path: Path) -> None:
    """Tasks, threads, and the talk with the other processes."""
    here = Here(tmp_path)
    relay, nodes, bus = here.relay, Others(), Bus()
    relay._nodes = relay._signals._nodes = cast(Any, nodes)
    relay._signals._bus = cast(Any, bus)
    await here.start()
    names = [cast(Any, task.get_coro()).__qualname__ for task in relay._tasks._tasks]
    assert {"Follower.follow", "Files.sweep", "Sponsoring.tend", "Others.look", "sweep", "keep_time"} <= {
        *names
    }
    assert nodes.passed is not None
    assert relay._keys._writer is here.writer
    await here.stop()
    await until(lambda: not relay._tasks._tasks)
    assert (nodes.said, bus.said) == (["start", "close"], ["start", "close"])
    for threads in (relay._readers, relay._follower._threads, relay._sponsoring._threads):
        with pytest.raises(RuntimeError, match="shutdown"):
            threads.executor.submit(print)
    assert relay._files._stopped


async def test_a_request_is_served_by_the_part_that_it_is_for(here: Here) -> None:
    """A connection for files is no connection for messages, and the reverse."""
    link, files = await here.connect(), await enter_files(here)
    sessions = [peer.session for peer in here.relay._peers]
    assert len([each for each in sessions if isinstance(each, FileSession)]) == 1
    assert all(peer.deadline == 0 for peer in here.relay._peers)
    await link.send(FetchKeys(3, (ADA,)))
    assert await link.receive() == Keys(3, ())
    for each in (link, files):
        await each.close()


async def test_what_an_operator_should_do_is_told_to_nobody_else(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks while the database is away learns that, and when to come again."""

    def away(_: object) -> None:
        raise StoreUnavailable("The database server does not answer.", "Check --db (DATABASE_URL).")

    link = await here.connect()
    monkeypatch.setattr(here.store, "bundles", away)
    await link.send(FetchKeys(5, (ADA,)))
    failed = await link.receive()
    assert failed == Failed(5, "store_unavailable", "The database server does not answer.", 2_000)
    await link.close()
