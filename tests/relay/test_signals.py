"""Signals through a real relay: to who is connected, and nowhere else."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chatchain.model import Copy
from chatchain.store.server import ServerStore
from chatchain.wire.messages import Deliver, FetchKeys, Goodbye, Keys, Signal, Signaled, Tick
from tests.fixtures.chains import DevChain
from tests.fixtures.mariadb import MariaDB
from tests.fixtures.nats import Nats
from tests.relay.stage import Account, Device, Stage
from tests.relay.test_nodes import on_different_workers

Someone = Callable[[], Account]


async def listening(stage: Stage, account: Account) -> Device:
    """A device that has resumed."""
    device = await Device(stage, account).connect()
    await device.resume(0, 0)
    return device


async def settled(device: Device) -> None:
    """All that was said before is served, and what came of it has arrived."""
    await device.say(FetchKeys(99, (device.account.uid,)))
    await device.expect(Keys)


async def test_a_signal_reaches_who_is_there_and_is_not_kept(stage: Stage, someone: Someone) -> None:
    """As it was sent, under the sender's name; the database holds nothing of it, and nobody is answered."""
    ada, bob = someone(), someone()
    sender, recipient = await listening(stage, ada), await listening(stage, bob)
    sign = sender.envelope(bob, b"typing")
    await sender.say(Signal(sign))
    given = (await recipient.expect(Signaled)).delivery
    assert (given.sequence, given.id, given.body, given.header) == (0, sign.id, b"typing", b"header")
    assert (given.sender, given.sender_device, given.recipient) == (ada.uid, 1, bob.uid)
    await settled(sender)
    store = ServerStore(stage.database)
    assert store.waiting(bob.uid, 1, 0, 10, 10_000) == ([], False)
    assert store.accepted(ada.uid, 1, sign.id) is None
    store.close()
    await recipient.close()
    await sender.say(Signal(sender.envelope(bob, b"to nobody")))
    await settled(sender)
    assert isinstance(await sender.send(bob, b"kept"), Tick)
    again = await listening(stage, bob)
    assert [one.body for one in await again.receive(1)] == [b"kept"]
    for device in (sender, again):
        await device.close()


async def test_who_began_in_the_older_way_is_not_confused(stage: Stage, someone: Someone) -> None:
    """Such a client knows no signals, and would hang up."""
    ada, bob = someone(), someone()
    sender, older = await listening(stage, ada), await Device(stage, bob).begin()
    await sender.say(Signal(sender.envelope(bob, b"typing")))
    assert isinstance(await sender.send(bob, b"text"), Tick)
    assert [one.body for one in await older.receive(1)] == [b"text"]
    for device in (sender, older):
        await device.close()


async def test_a_signal_goes_to_devices_of_its_recipient_only(stage: Stage, someone: Someone) -> None:
    """Whatever its copies say."""
    ada, bob, eve = someone(), someone(), someone()
    devices = [await listening(stage, who) for who in (ada, bob, eve)]
    sender, recipient, other = devices
    copies = tuple(Copy(who.uid, number, b"h") for who in (eve, ada, bob) for number in (1, 2))
    await sender.say(Signal(sender.envelope(bob, b"typing", copies=copies)))
    assert (await recipient.expect(Signaled)).delivery.body == b"typing"
    for device in devices:
        await settled(device)
        assert device.received == []
    for device in devices:
        await device.close()
    assert other is devices[2]


async def test_signals_are_limited_by_conversation_and_account(stage: Stage, someone: Someone) -> None:
    """What is too much is dropped without a word, and messages are not held up."""
    ada, bob, eve = someone(), someone(), someone()
    sender, recipient, other = [await listening(stage, who) for who in (ada, bob, eve)]
    for number in range(40):
        await sender.say(Signal(sender.envelope(bob, b"%d" % number)))
    await sender.say(Signal(sender.envelope(eve, b"another")))
    assert isinstance(await sender.send(bob, b"text"), Tick)
    came = []
    while isinstance(message := await recipient.next(), Signaled):
        came.append(message.delivery.body)
    assert isinstance(message, Deliver)
    assert came == [b"%d" % number for number in range(len(came))]
    assert 10 <= len(came) < 40  # two seconds bring one more
    assert (await other.expect(Signaled)).delivery.body == b"another"
    for device in (sender, recipient, other):
        await device.close()


async def test_a_large_signal_breaks_the_protocol(stage: Stage, someone: Someone) -> None:
    """Files and texts have their own ways."""
    sender = await listening(stage, someone())
    await sender.say(Signal(sender.envelope(sender.account, bytes(513))))
    assert (await sender.expect(Goodbye)).code == "protocol_violation"
    await sender.close()


@pytest.fixture(params=["neighbours", "machines"])
def places(
    request: pytest.FixtureRequest, anvil: DevChain, mariadb: MariaDB, nats: Nats, tmp_path: Path
) -> Iterator[list[Stage]]:
    """Two processes of a relay: workers of one machine, or machines that hear each other through NATS."""
    one = Stage(anvil, tmp_path, mariadb.new_database())
    if request.param == "neighbours":
        one.start("--workers", "2")
        yield [one]
        one.stop()
        return
    (tmp_path / "other").mkdir()
    other = one.beside(tmp_path / "other")
    for stage in (one, other):
        stage.start("--nats", nats.url)
    yield [one.alone(), other.alone()]
    other.stop()
    one.stop()


async def test_a_signal_reaches_a_device_at_another_process(places: list[Stage]) -> None:
    """In both directions."""
    ada, bob = places[0].register("signalada"), places[0].register("signalbob")
    if len(places) == 1:
        one, other = await on_different_workers(places[0], ada, bob)
    else:
        one, other = [await Device(at, who).connect() for at, who in zip(places, (ada, bob), strict=True)]
    for device in (one, other):
        await device.resume(0, 0)
    for sender, recipient in ((one, other), (other, one)):
        body = secrets.token_bytes(8)
        came: list[bytes] = []
        end = time.monotonic() + 60
        while not came and time.monotonic() < end:  # NATS may still be connecting
            await sender.say(Signal(sender.envelope(recipient.account, body)))
            try:
                async with asyncio.timeout(2.5):
                    came.append((await recipient.expect(Signaled)).delivery.body)
            except TimeoutError:
                continue
        assert came == [body]
    for device in (one, other):
        await device.close()
