"""What the relay remembers about a connection for messages, before its login and after it."""

from __future__ import annotations

import msgspec

from chatchain.relay.allowance import Pace
from chatchain.relay.order import Order
from chatchain.relay.ports import Peer


class Guest(msgspec.Struct):
    """A connection before its login."""

    nonce: bytes
    worked: int = -1
    """The number of the last request that showed work: each later one needs work of its own."""


class Session(msgspec.Struct, eq=False):
    """A connection after its login."""

    name: int
    uid: int
    device: int
    epoch: int
    peer: Peer
    pace: Pace
    order: Order = msgspec.field(default_factory=Order)
    rows: int = 0
    bytes: int = 0
    """What it has submitted without an answer."""
    resumed: bool = False
    """Whether it has begun with Resume, and so knows all that this relay may say."""
    held: bool = False
    """Whether the relay has stopped reading from it until some of that is answered."""
    round: int = 0
    """How often it was heard that the store had failed at something of it."""
