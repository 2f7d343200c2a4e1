"""Signals between clients: seen by who is there, kept by nobody, and harmless when they get lost."""

from __future__ import annotations

import pytest

from chatchain.client import privacy
from chatchain.client.core import Client
from chatchain.client.views import Shown
from chatchain.crypto import content as contents
from chatchain.crypto.content import TypingState
from chatchain.crypto.ratchet import MAX_LOSSY, MAX_SKIP
from chatchain.model import Delivery, Envelope, Outgoing
from chatchain.wire.messages import Signaled
from tests.world import World


@pytest.fixture
async def pair(world: World) -> World:
    """Ada and bob have written to each other."""
    await world.say("ada", "bob", "hello")
    await world.hear("bob")
    await world.say("bob", "ada", "hello yourself")
    await world.hear("ada")
    await world.hear("bob")
    return world


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs of typing may follow one another at once."""
    monkeypatch.setattr(privacy, "TYPING_EVERY_S", 0.0)


async def signalled(client: Client, count: int) -> None:
    for _ in range(count):
        assert await client.typing("bob", started=True)


@pytest.mark.usefixtures("hasty")
async def test_lost_signals_leave_the_next_message_readable(pair: World) -> None:
    """However long somebody types to who is away: there are never more than the reader can jump over."""
    pair.relay.lossy = True
    async with pair.client("ada") as ada:
        await ada.login()
        await signalled(ada, 3 * MAX_LOSSY)
        lost = len(pair.relay.signals)
        assert MAX_LOSSY // 2 < lost <= MAX_LOSSY < MAX_SKIP // 2
        assert [sent.state async for sent in ada.send("bob", ["there you are"])] == ["sent"]
    pair.relay.lossy = False
    assert [shown.text for shown in await pair.hear("bob", wait_s=0.5)] == ["there you are"]
    await pair.hear("ada")  # bob's device has answered: a new chain begins
    async with pair.client("ada") as ada:
        await ada.login()
        await signalled(ada, 1)
    assert len(pair.relay.signals) == lost + 1


async def test_a_signal_begins_no_session_and_uses_up_no_key(world: World) -> None:
    """Nor does it go where the other side has not answered yet: what it would carry would be lost with it."""
    before = {key: len(stock.one_time) for key, stock in world.relay.prekeys.items()}
    async with world.client("ada") as ada:
        await ada.login()
        assert await ada.typing("bob", started=True)
    assert world.relay.signals == []
    assert {key: len(stock.one_time) for key, stock in world.relay.prekeys.items()} == before
    await world.say("ada", "bob", "hello")
    async with world.client("ada") as ada:
        await ada.login()
        assert await ada.typing("bob", started=True)
    assert world.relay.signals == []


async def test_a_killed_client_uses_no_key_of_a_signal_again(pair: World) -> None:
    """The session's next state is stored before the signal leaves."""
    ada = pair.client("ada")
    await ada.login()
    await signalled(ada, 1)
    await pair.kill(ada)
    (signal,) = pair.relay.signals
    await pair.say("ada", "bob", "again")
    assert signal.copies[0].header != pair.relay.submitted[-1].envelope.copies[0].header
    assert [shown.text for shown in await pair.hear("bob", wait_s=0.5)] == ["again"]


def signal_of(envelope: Envelope, sender: int) -> Signaled:
    """What a relay makes of an envelope that it passes on as a signal."""
    return Signaled(
        Delivery(
            0,
            envelope.id,
            envelope.suite,
            sender,
            1,
            envelope.recipient,
            0,
            envelope.copies[0].header,
            envelope.body,
        )
    )


async def shown_to_bob(world: World, signals: list[Signaled], wait_s: float = 0.5) -> list[Shown]:
    """What bob is shown while the relay hands him signals of its own."""
    async with world.client("bob") as bob:
        await bob.login()
        (peer,) = (peer for peer in world.relay._peers.values() if peer.user is not None)
        for signal in signals:
            world.relay._say(peer, signal)
        return [shown async for shown in bob.receive(wait_s=wait_s, typing=True)]


async def test_a_repeated_signal_is_shown_once(pair: World) -> None:
    """Its key is used up."""
    pair.relay.lossy = True
    async with pair.client("ada") as ada:
        await ada.login()
        await signalled(ada, 1)
        signal = signal_of(pair.relay.signals[0], pair.chain.user("ada").uid)
    assert [shown.kind for shown in await shown_to_bob(pair, [signal, signal])] == ["typing"]
    assert await shown_to_bob(pair, [signal]) == []


async def test_a_signal_that_was_kept_back_shows_nothing(pair: World) -> None:
    """Nobody types for hours; its key is used up all the same."""
    pair.relay.lossy = True
    async with pair.client("ada") as ada:
        await ada.login()
        await signalled(ada, 1)
        signal = signal_of(pair.relay.signals[0], pair.chain.user("ada").uid)
    pair.now += 600
    assert await shown_to_bob(pair, [signal]) == []
    pair.now -= 600
    assert await shown_to_bob(pair, [signal]) == []


async def test_a_message_that_is_passed_as_a_signal_is_not_swallowed(pair: World) -> None:
    """The relay could otherwise have it opened and forgotten; its session stays as it was."""
    await pair.say("ada", "bob", "for good")
    signal = signal_of(pair.relay.submitted[-1].envelope, pair.chain.user("ada").uid)
    held, pair.relay.rows = pair.relay.rows, {}
    assert await shown_to_bob(pair, [signal]) == []
    pair.relay.rows = held
    assert [shown.text for shown in await pair.hear("bob", wait_s=0.5)] == ["for good"]


async def test_a_sign_that_begins_a_session_is_none(world: World) -> None:
    """A changed client's: a one-time prekey went for something that nobody stores."""
    async with world.client("ada") as ada:
        store = (await ada._station.desk()).unlocked.store
        content = contents.encode(contents.typing(TypingState.STARTED))
        bob = world.chain.user("bob").uid
        store.queue([], [Outgoing(bytes(16), bob, "receipt", content, int(world.now * 1000))])
        await ada.login()
    signal = signal_of(world.relay.submitted[-1].envelope, world.chain.user("ada").uid)
    world.relay.rows.clear()
    assert await shown_to_bob(world, [signal]) == []
    async with world.client("bob") as client:
        found = (await client._station.desk()).unlocked.store
        assert found.sessions(world.chain.user("ada").uid, 1) == []


async def test_a_forged_signal_shows_nothing(pair: World) -> None:
    """Not even a notice: anybody on the way could fill a screen with them."""
    ada = pair.chain.user("ada").uid
    forged = [
        Signaled(Delivery(0, bytes(16), suite, sender, device, recipient, 0, header, b"body"))
        for suite in (1, 2, 9)
        for sender in (ada, 123_456_789_012_345)
        for device in (1, 7)
        for recipient in (ada, pair.chain.user("bob").uid)
        for header in (b"", b"\x01", b"\x02" + bytes(200))
    ]
    assert await shown_to_bob(pair, forged) == []
    async with pair.client("bob") as bob:
        assert [message.kind for message in await bob.history("ada")] == ["text", "text"]


async def test_typing_is_told_now_and_then(pair: World) -> None:
    """And its end once, to whom its beginning was told."""
    async with pair.client("ada") as ada:
        await ada.login()
        await signalled(ada, 5)
        assert len(pair.relay.signals) == 1
        for _ in range(3):
            await ada.typing("bob", started=False)
        assert len(pair.relay.signals) == 2


async def test_a_person_may_keep_typing_and_reading_private(pair: World) -> None:
    """Each for itself; nobody is told, and one's own messages and ticks stay as they are."""
    async with pair.client("bob") as bob:
        assert (await bob.privacy()).typing
        assert (await bob.privacy(read_receipts=False)).typing
        told = await bob.privacy(typing=False)
        assert (told.typing, told.read_receipts) == (False, False)
        await bob.login()
        assert await bob.typing("ada", started=True)
    assert pair.relay.signals == []
    await pair.say("ada", "bob", "secret reader")
    await pair.hear("bob")
    async with pair.client("bob") as bob:
        assert len(await bob.history("ada")) == 3
        await bob.login()
    await pair.hear("ada")
    async with pair.client("ada") as ada:
        assert [shown.state for shown in await ada.history("bob")][-1] == "delivered"
    async with pair.client("bob") as bob:
        assert (await bob.privacy(read_receipts=True, typing=True)).read_receipts
    await pair.say("ada", "bob", "open reader")
    await pair.hear("bob")
    async with pair.client("bob") as bob:
        await bob.history("ada")
        await bob.login()
    await pair.hear("ada")
    async with pair.client("ada") as ada:
        states = [shown.state for shown in await ada.history("bob")]
    assert states[-1] == "read"
    assert states[-2] == "delivered"
