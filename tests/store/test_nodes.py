"""Several processes on one database: who lives, who follows the chain, what is new. On a real MariaDB."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from chatchain.errors import StoreUnavailable
from chatchain.model import BlockRef, Policy
from chatchain.store.nodes import LeaseLost, NodeStore
from chatchain.store.server import ServerStore

Join = Callable[[str], tuple[ServerStore, NodeStore]]


class Watch:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def join(mariadb_url: str) -> Iterator[Join]:
    """Opens the same database as one more process would."""
    opened: list[ServerStore] = []

    def begin(name: str) -> tuple[ServerStore, NodeStore]:
        store = ServerStore(mariadb_url)
        store.migrate()
        opened.append(store)
        return store, store.join(name)

    yield begin
    for store in opened:
        store.close()


def until(holds: Callable[[], bool]) -> None:
    """Waits for the server to notice that a connection has ended."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_processes_see_each_other_come_and_go(join: Join) -> None:
    """One that leaves is missed at once."""
    (_, first), (second_store, second) = join("first"), join("second")
    assert first.beat() == second.beat() == 1
    second_store.close()
    assert first.beat() == 0


def test_processes_share_a_space_until_none_is_left(join: Join) -> None:
    """Who joins others goes on in theirs; who begins alone begins another."""
    (first_store, _), (second_store, _) = join("first"), join("second")
    space = first_store.space()
    assert second_store.space() == space
    first_store.close()
    third_store, _ = join("third")
    assert third_store.space() == space
    second_store.close()
    third_store.close()
    fourth_store, _ = join("fourth")
    assert fourth_store.space() != space


def test_of_those_that_begin_together_all_go_on_in_one_space(join: Join) -> None:
    """Whoever is first begins it, also when none of them was there before."""
    for number in range(5):
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda n: join(f"{n}")[0], range(4)))
        spaces = {store.space() for store in together}
        assert len(spaces) == 1, number
        for store in together:
            store.close()


def test_one_process_follows_the_chain_and_another_takes_over(join: Join) -> None:
    """When it leaves, gives up, or is killed, which ends its connections."""
    (first_store, first), (_, second), (_, third) = join("first"), join("second"), join("third")
    assert first.lead() == 1
    assert not second.lead()
    assert first.lead() == 1
    second.give_up()  # which is not its to give
    assert not second.lead()
    first.give_up()
    assert second.lead()
    assert not first.lead()
    second.give_up()
    assert first.lead() == 2
    first_store.close()
    assert third.lead()


def test_a_killed_process_is_missed_at_the_next_heartbeat(join: Join) -> None:
    """Its named lock ends with its connection, whatever the watch says."""
    (_, first), (_, second) = join("first"), join("second")
    assert first.lead()
    assert first._pulse is not None
    first._pulse.invalidate()  # as when the process is gone
    until(lambda: second.beat() == 0)
    assert second.lead()


def test_who_goes_on_beating_is_left_alone(join: Join, mariadb_url: str) -> None:
    """However long both have been there, by whichever watch."""
    _, beating = join("beating")
    assert beating.lead()
    watch = Watch()
    judging = NodeStore(create_engine(mariadb_url), "judging", clock=watch)
    for _ in range(4):
        assert judging.beat() == 1
        beating.beat()
        watch.now += 4.9
    assert beating.lead()
    judging.leave()


def test_a_frozen_process_is_fenced_and_writes_nothing_when_it_wakes(join: Join, mariadb_url: str) -> None:
    """Its open transaction gives its locks back, and its lease is another's."""
    frozen_store, frozen = join("frozen")
    assert frozen.lead()
    held = frozen_store._engine.connect()
    held.execute(text("UPDATE counters SET value = value + 1 WHERE name = 'sequence'"))
    frozen.beat()  # writes down which connections it has
    watch = Watch()
    judging = NodeStore(create_engine(mariadb_url), "judging", clock=watch)
    assert judging.beat() == 1
    watch.now = 4.9
    assert judging.beat() == 1
    watch.now = 5.1
    assert judging.beat() == 0
    with judging._engine.begin() as connection:
        connection.execute(text("SET innodb_lock_wait_timeout = 60"))
        connection.execute(text("UPDATE counters SET value = value + 1 WHERE name = 'sequence'"))
    with pytest.raises(SQLAlchemyError):
        held.execute(text("SELECT 1"))
    held.invalidate()
    held.close()
    assert judging.lead()
    before = frozen.counts()
    with pytest.raises(LeaseLost):
        frozen_store.log.take([], [BlockRef(1, bytes(32), bytes(32))])
    with pytest.raises(LeaseLost):
        frozen_store.rewrite_membership(Policy.OPEN, {7: 1}, [], settled_to=1)
    with pytest.raises(LeaseLost):
        frozen.looked(9)
    assert frozen.counts() == before
    judging.leave()
    judging._engine.dispose()


def test_what_a_process_connected_just_before_it_froze_is_ended_as_well(join: Join, mariadb_url: str) -> None:
    """It holds what the others want to have, and has had no heartbeat since."""
    frozen_store, frozen = join("frozen")
    frozen.beat()
    assert frozen.lead()
    watch = Watch()
    judging = NodeStore(create_engine(mariadb_url), "judging", clock=watch)
    assert judging.beat() == 1
    frozen_store._engine.dispose()
    held = frozen_store._engine.connect()
    held.execute(text("SELECT * FROM leases FOR UPDATE"))
    watch.now = 5.1
    assert judging.beat() == 0
    with pytest.raises(SQLAlchemyError):
        held.execute(text("SELECT 1"))
    held.invalidate()
    held.close()
    judging.leave()
    judging._engine.dispose()


def test_who_could_not_look_judges_nobody(join: Join, mariadb_url: str) -> None:
    """After an outage of the database every heartbeat is old; that is nobody's fault."""
    join("other")
    watch = Watch()
    judging = NodeStore(create_engine(mariadb_url), "judging", clock=watch)
    assert judging.beat() == 1
    assert judging._pulse is not None
    judging._pulse.invalidate()
    judging._pulse.close()
    with pytest.raises(StoreUnavailable):
        judging.beat()
    watch.now = 60.0

    def looks_again() -> bool:
        with suppress(StoreUnavailable):  # its own place may not be free yet
            return judging.beat() == 1
        return False

    until(looks_again)
    judging.leave()
    judging._engine.dispose()


def test_a_login_elsewhere_is_seen_once_it_is_newer(join: Join) -> None:
    """The last announcement counts, on whichever process."""
    (_, first), (_, second) = join("first"), join("second")
    first.announce([(7, 1), (8, 1)])
    since = second.counts().login
    assert second.logins(since - 1) == [(7, 1), (8, 1)]
    second.announce([(7, 1)])
    assert first.logins(since) == [(7, 1)]
    assert second.logins(0) == [(8, 1)]


def test_rewritten_users_are_told_to_every_process(join: Join) -> None:
    """Once each, the members as 0."""
    (store, first), (_, second) = join("first"), join("second")
    assert first.lead()
    since = second.counts().fold
    store.rewrite([], [5, 6], settled_to=1)
    assert sorted(second.folded(since)) == [5, 6]
    since = second.counts().fold
    store.rewrite_membership(Policy.OPEN, {5: 1}, [], settled_to=1)
    assert second.folded(since) == [0]
