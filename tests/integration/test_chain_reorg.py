"""Reorganisations of a real chain: afterwards a store holds what a reader of the new chain alone would
hold.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chatchain.chain.sync import KEPT_BLOCKS, LogStore, MemoryLogStore
from chatchain.model import Kind, ProposalId
from chatchain.store.chainlog import ServerLogStore
from chatchain.store.database import migrate, open_database
from chatchain.store.local import LocalStore
from tests.chain.world import Person, World, fresh, state
from tests.fixtures.anvil import start_anvil
from tests.fixtures.chains import DevChain

DEEPEST = 12


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevChain]:
    """A chain that is this module's to bend; each test deploys a network of its own."""
    started = start_anvil(tmp_path_factory.mktemp("reorg"))
    yield started
    started.process.stop()


@pytest.fixture(params=["memory", "client", "relay"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LogStore]:
    """Every store that follows the chain."""
    if request.param == "client":
        local = LocalStore(tmp_path / "client.db", secrets.token_bytes(32))
        yield local.logs
        local.close()
    elif request.param == "relay":
        engine = open_database(f"sqlite:///{tmp_path / 'relay.db'}")
        migrate(engine)
        yield ServerLogStore(engine)
        engine.dispose()
    else:
        yield MemoryLogStore()


def twelve_kinds(world: World) -> list[Callable[[], object]]:
    """Twelve transactions for twelve blocks, of every kind that a user or member can make."""
    ada, bob = world.register("ada"), world.register("bob")
    bob_uid = world.uid(bob)
    world.seat(ada)
    calls = world.calls
    eve: list[Person] = []

    def as_ada(call: object) -> Callable[[], object]:
        return lambda: world.send(ada, call)

    return [
        lambda: world.add_device(ada),
        lambda: world.update_device(ada, 1, 2),
        as_ada(calls.revoke_device(2)),
        as_ada(calls.set_verifier(secrets.token_bytes(32), b"kdf")),
        lambda: world.send(bob, calls.request(0)),
        as_ada(calls.vote(ProposalId(1), True)),
        lambda: eve.append(world.register("eve")),
        as_ada(calls.propose(0, Kind.EXPEL, bob_uid, b"")),
        as_ada(calls.vote(ProposalId(2), True)),
        lambda: world.send(bob, calls.vote(ProposalId(2), True)),
        lambda: world.update_device(ada, 1, 3),
        lambda: world.send(eve[0], calls.request(0)),
    ]


@pytest.mark.parametrize("depth", range(1, DEEPEST + 1))
def test_a_reorg_of_any_depth_leaves_what_the_new_chain_holds(chain: DevChain, depth: int) -> None:
    """One event kind a block, all taken in, then the last blocks replaced by empty ones."""
    world = World(chain)
    store = MemoryLogStore()
    view = world.view(store)
    acts = twelve_kinds(world)
    for act in acts:
        before = int(str(world.rpc.call("eth_blockNumber")), 16)
        act()
        assert int(str(world.rpc.call("eth_blockNumber")), 16) == before + 1
    view.sync()
    taken = store.rows()
    view.proposals()
    world.rpc.call("anvil_reorg", depth, [])
    step = view.advance()
    assert {row.block for row in step.dropped} == {row.block for row in taken[-len(step.dropped) :]}
    assert len({row.block for row in step.dropped}) == depth
    assert state(store) == state(fresh(world))
    for row in taken:
        if row.subject:
            view.confirm(row.subject)  # type: ignore[arg-type]  # a row's subject is a uid
    view.confirm_group()
    assert view.proposals() == world.view(store).proposals()


def test_every_store_walks_back(chain: DevChain, store: LogStore) -> None:
    """The client's and the relay's stores end where the one in memory ends, reorg after reorg."""
    world = World(chain)
    view = world.view(store)
    for act in twelve_kinds(world):
        act()
        view.sync()
    for depth in (3, 1, 5):
        world.rpc.call("anvil_reorg", depth, [])
        view.sync()
        assert state(store) == state(fresh(world))
        world.register(f"after-{depth}")
        view.sync()
        assert state(store) == state(fresh(world))


def test_other_events_in_the_same_places_replace_the_first(chain: DevChain, store: LogStore) -> None:
    """A chain wound back and built up differently: nothing of the first branch is left."""
    world = World(chain)
    view = world.view(store)
    ada = world.register("ada")
    view.sync()
    snapshot = world.snapshot()
    world.add_device(ada)
    world.seat(ada)
    view.sync()
    assert len(view.group().members) == 1
    world.wind_back(snapshot)
    bob = world.register("bob")
    world.seat(bob)
    world.update_device(ada, 1, 2)
    view.sync()
    assert state(store) == state(fresh(world))
    assert [member.uid for member in view.group().members] == [world.uid(bob)]


def test_a_development_chain_wound_back_is_believed(chain: DevChain) -> None:
    """A shorter chain takes its events with it, where chains can be wound back at all."""
    world = World(chain)
    store = MemoryLogStore()
    view = world.view(store)
    world.register("ada")
    snapshot = world.snapshot()
    bob = world.register("bob")
    view.sync()
    assert view.user_by_name(bob.name) is not None
    world.wind_back(snapshot)
    step = view.advance()
    assert len(step.dropped) == 3
    assert view.user_by_name(bob.name) is None
    assert view.user_by_name("ada") is not None
    assert state(store) == state(fresh(world))


def test_an_endpoint_that_lags_takes_nothing_back(new_anvil: Callable[..., DevChain]) -> None:
    """On a real network a tip below ours is an endpoint behind, so a revocation stays in force."""
    world = World(new_anvil("--chain-id", "77"))
    store = MemoryLogStore()
    view = world.view(store, confirmations=0)
    snapshot = world.snapshot()
    world.mine(3)
    view.sync()
    before = state(store)
    world.wind_back(snapshot)
    view.sync()
    assert state(store) == before
    world.mine(4)  # now it has another history, and that is a reorg
    view.sync()
    assert state(store) == state(fresh(world))


def test_a_reorg_deeper_than_what_is_kept_starts_anew(new_anvil: Callable[..., DevChain]) -> None:
    """When no kept block is left on the chain, the history is read again from the deployment on."""
    world = World(new_anvil())
    store = MemoryLogStore()
    view = world.view(store)
    ada = world.register("ada")
    snapshot = world.snapshot()
    world.add_device(ada)
    world.rpc.call("anvil_mine", hex(KEPT_BLOCKS + 20))
    view.sync()
    world.wind_back(snapshot)
    world.update_device(ada, 1, 2)
    world.rpc.call("anvil_mine", hex(KEPT_BLOCKS + 40))
    step = view.advance()
    assert len(step.dropped) == len(store.rows()) == 5
    assert state(store) == state(fresh(world))


def test_a_chain_started_anew_at_the_same_address_is_read_anew(new_anvil: Callable[..., DevChain]) -> None:
    """The same contracts at the same addresses with other people: none of the old ones is left."""
    first = World(new_anvil())
    first.register("ada")
    store = MemoryLogStore()
    first.view(store).sync()
    second = World(new_anvil("--timestamp", "1700000000"))
    assert second.network == first.network
    for name in ("bob", "eve"):
        second.register(name)
    view = second.view(store)
    view.sync()
    assert view.user_by_name("ada") is None
    assert view.user_by_name("bob") is not None
    assert state(store) == state(fresh(second))


def test_an_interrupted_catch_up_goes_on_where_it_stopped(chain: DevChain) -> None:
    """Whatever failed between two ranges, the store holds whole ranges and the next round completes them."""

    class Full(MemoryLogStore):
        """A store whose disk is full after one range."""

        room = 1

        def take(self, rows, blocks) -> None:  # type: ignore[no-untyped-def]
            if self.room == 0:
                raise OSError("no space left on device")
            self.room -= 1
            super().take(rows, blocks)

    world = World(chain)
    for name in ("ada", "bob", "eve"):
        world.register(name)
        world.mine(20)
    store = Full()
    view = world.view(store)
    with pytest.raises(OSError, match="no space"):
        view.sync()
    head = store.head()
    assert head is not None
    assert head.number < int(str(world.rpc.call("eth_blockNumber")), 16)
    store.room = 1000
    view.sync()
    assert state(store) == state(fresh(world))
