"""The other development chain: no timestamps in its logs, other words for a revert, another chain id."""

from __future__ import annotations

import pytest

from chatchain.chain.rpc import quantity
from chatchain.chain.sync import MemoryLogStore
from chatchain.errors import AlreadyVoted, NameUnavailable, NoEther, UnknownUser
from chatchain.identity.keys import new_secret
from chatchain.model import Kind, ProposalId
from tests.chain.world import World, fresh, state
from tests.fixtures.chains import DevChain


def test_ganache_is_caught_up_with_and_followed(ganache: DevChain) -> None:
    """Register, seat, request, vote; the fold is complete, has times, and equals what the contracts hold."""
    world = World(ganache)
    store = MemoryLogStore()
    view = world.view(store)
    ada, bob = world.register("ada"), world.register("bob")
    view.sync()
    world.seat(ada)
    world.add_device(ada)
    world.send(bob, world.calls.request(0))
    world.send(ada, world.calls.vote(ProposalId(1), True))
    view.sync()
    assert state(store) == state(fresh(world))
    for person in (ada, bob):
        user = view.user_by_name(person.name)
        assert user is not None
        view.confirm(user.uid)
        block = world.rpc.call("eth_getBlockByNumber", hex(user.block), False)
        assert isinstance(block, dict)
        assert user.time == quantity(block["timestamp"]) > 0
    view.confirm_group()
    assert len(view.group().members) == 2
    assert view.network().chain_id == 1337


def test_ganaches_refusals_become_the_same_sentences(ganache: DevChain) -> None:
    """The revert data is found in Ganache's wrapping too."""
    world = World(ganache)
    ada, bob = world.register("ada"), world.register("bob")
    world.seat(ada, bob)
    with pytest.raises(NameUnavailable, match="ada is taken"):
        world.register("ada")
    uid = world.uid(ada)
    world.send(ada, world.calls.propose(0, Kind.EXPEL, uid, b""))
    world.send(ada, world.calls.vote(ProposalId(1), True))
    with pytest.raises(AlreadyVoted):
        world.send(ada, world.calls.vote(ProposalId(1), True))
    with pytest.raises((NoEther, UnknownUser)):
        world.writer.send(world.calls.request(0), new_secret())


def test_a_ganache_wound_back_is_followed(ganache: DevChain) -> None:
    """Snapshot and revert, then another history."""
    world = World(ganache)
    store = MemoryLogStore()
    view = world.view(store)
    ada = world.register("ada")
    snapshot = world.snapshot()
    world.add_device(ada)
    world.seat(ada)
    view.sync()
    world.wind_back(snapshot)
    world.update_device(ada, 1, 2)
    view.sync()
    assert state(store) == state(fresh(world))
    assert view.group().members == ()
