"""Where a home goes on in its mailbox: what a relay holds and the home has not, and each message once on
screen.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from chatchain.client.session import Session
from chatchain.errors import NetworkError
from chatchain.model import Delivery, Progress
from chatchain.store.local import LocalStore
from chatchain.wire.messages import Resume
from tests.world import World


class Witness:
    """Notes what goes over the relay's links."""

    def __init__(self, world: World) -> None:
        self.delivered: list[int] = []
        self.resumed: list[Resume] = []
        handle = world.relay._handle

        def heard(peer: object, message: object) -> None:
            if isinstance(message, Resume):
                self.resumed.append(message)
            handle(peer, message)  # type: ignore[arg-type]

        def told(delivery: Delivery) -> Delivery:
            self.delivered.append(delivery.sequence)
            return delivery

        world.relay._handle = heard  # type: ignore[method-assign]
        world.relay.tamper = told


async def hear_unthanked(world: World, monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """What bob is shown in a run none of whose acknowledgements reach the relay."""

    async def lost(*_: object) -> None:
        pass

    with monkeypatch.context() as patch:
        patch.setattr(Session, "acknowledge", lost)
        return [shown.text for shown in await world.hear("bob", wait_s=0.5)]


async def test_what_is_stored_is_not_delivered_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though its acknowledgement got lost: the home says how far it has come."""
    witness = Witness(world)
    await world.say("ada", "bob", "1", "2", "3")
    assert await hear_unthanked(world, monkeypatch) == ["1", "2", "3"]
    before = len(witness.delivered)
    await world.say("ada", "bob", "4")
    assert [shown.text for shown in await world.hear("bob", wait_s=0.5)] == ["4"]
    own = {sequence for sequence in witness.delivered[before:] if sequence <= max(witness.delivered[:before])}
    assert own == set(), "nothing comes twice"
    assert [resume.after for resume in witness.resumed if resume.space][-1] >= 3


async def test_of_a_restored_relay_nothing_is_swallowed_and_nothing_shown_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives sequences out again that the home has seen, for other messages, and some messages again."""
    await world.say("ada", "bob", "old 1", "old 2")
    backup, stored = dict(world.relay.rows), dict(world.relay.stored)
    assert await hear_unthanked(world, monkeypatch) == ["old 1", "old 2"]
    await world.say("ada", "bob", *(f"lost {n}" for n in range(8)))
    assert len(await world.hear("bob", wait_s=0.5)) == 8
    world.relay.restore(backup, stored, space=8)
    await world.say("ada", "bob", "new 1", "new 2")
    assert [shown.text for shown in await world.hear("bob", wait_s=0.5)] == ["new 1", "new 2"]
    await world.say("ada", "bob", "new 3")
    assert [shown.text for shown in await world.hear("bob", wait_s=0.5)] == ["new 3"]


async def test_a_relay_that_does_not_say_what_its_numbers_mean_is_left(world: World) -> None:
    """Else they would be taken for another relay's."""
    handle = world.relay._handle

    def silent(peer: object, message: object) -> None:
        if isinstance(message, Resume):
            world.relay._act(world.relay.mailbox.receive(peer.number, 0))  # type: ignore[attr-defined]
        else:
            handle(peer, message)  # type: ignore[arg-type]

    await world.say("ada", "bob", "hello")
    world.relay._handle = silent  # type: ignore[method-assign]
    with pytest.raises(NetworkError):
        await world.hear("bob", wait_s=0.5)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """An empty home's database."""
    return LocalStore(tmp_path / "home.db", bytes(32))


def test_progress_never_goes_back_within_a_space(store: LocalStore) -> None:
    """In another space it begins anew."""
    one, two = b"1" * 32, b"2" * 32
    assert store.progress(one) == Progress(one, 0, 0)
    for after in (5, 3):
        store.take_in([], progress=Progress(one, 7, after))
    assert store.progress(one) == Progress(one, 7, 5)
    store.take_in([], progress=Progress(one, 8, 2))
    assert store.progress(one) == Progress(one, 8, 2)
    assert store.progress(two) == Progress(two, 0, 0)


async def test_a_relay_has_another_delete_nothing(world: World) -> None:
    """One that claims the other's space, and numbers as it likes, keeps nobody's messages from coming."""
    witness = Witness(world)
    await world.say("ada", "bob", "1")
    assert [shown.text for shown in await world.hear("bob")] == ["1"]
    space = world.relay.space
    async with world.client("bob") as bob:
        store = (await bob._station.desk()).unlocked.store
        store.take_in([], progress=Progress(b"\xee" * 32, space, 2**62))
    await world.say("ada", "bob", "2")
    assert [shown.text for shown in await world.hear("bob")] == ["2"]
    assert max(resume.after for resume in witness.resumed) < 2**62


def test_relays_are_remembered_to_a_bound(store: LocalStore) -> None:
    """The one that was not heard from for longest is forgotten."""
    relays = [bytes([number]) * 32 for number in range(40)]
    for relay in relays:
        store.take_in([], progress=Progress(relay, 7, 1))
        store.take_in([], progress=Progress(relays[0], 7, 1))
    known = [relay for relay in relays if store.progress(relay).space]
    assert known == [relays[0], *relays[-15:]]
