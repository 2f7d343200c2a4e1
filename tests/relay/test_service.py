"""A relay process with real TLS, a real chain and each real database: what a client sees."""

from collections.abc import Callable

from chatchain.wire.messages import Tick
from tests.relay.stage import Account, Device, Stage

Someone = Callable[[], Account]


async def test_a_message_is_ticked_and_delivered(stage: Stage, someone: Someone) -> None:
    """The tick names the message, and the online recipient gets exactly what was sent."""
    ada, bob = someone(), someone()
    sender, recipient = await Device(stage, ada).connect(), await Device(stage, bob).begin()
    envelope = sender.envelope(bob, b"opaque bytes")
    assert await sender.submit(envelope) == Tick(envelope.id)
    (delivery,) = await recipient.receive(1)
    assert (delivery.id, delivery.body, delivery.header) == (envelope.id, b"opaque bytes", b"header")
    assert (delivery.sender, delivery.sender_device, delivery.recipient) == (ada.uid, 1, bob.uid)
    await sender.close()
    await recipient.close()
