"""Signals: what matters only while it is new, such as that somebody is typing.

A signal is an envelope that is given to those of the recipient's devices that are connected, here or at
another process, and forgotten. Nothing of it is written down, nobody is told whether it came, and whatever is
in its way ends it. What it says the relay cannot read, as of any envelope.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from chatchain.errors import ProtocolViolation, StoreUnavailable
from chatchain.model import Copy, Delivery, Envelope, User
from chatchain.relay.allowance import Allowance
from chatchain.relay.limits import Buckets, Rate
from chatchain.relay.metrics import Metrics
from chatchain.relay.nodes import Bus, Nodes, Passed
from chatchain.relay.ports import Peer
from chatchain.relay.sessions import Session
from chatchain.relay.users import Users
from chatchain.wire.bounds import check
from chatchain.wire.messages import Signaled

CONVERSATIONS: Final = 10
"""In how many conversations one account may signal as often as is allowed in one."""


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Passed)


class Signals:
    """Passes signals on."""

    def __init__(
        self,
        listening: Callable[[int, int], Peer | None],
        *,
        nodes: Nodes | None,
        bus: Bus | None,
        users: Users,
        allowance: Allowance,
        metrics: Metrics,
    ) -> None:
        """`listening` gives the connection of a device that is here; through `nodes` and the `bus` signals
        reach the other processes of this machine, and those of others.
        """
        self._listening = listening
        self._nodes = nodes
        self._bus = bus
        self._users = users
        self._metrics = metrics
        rate = allowance.signals
        self._conversations = Buckets(rate)
        self._accounts = Buckets(Rate(CONVERSATIONS * rate.burst, CONVERSATIONS * rate.per_second))

    def start(self) -> None:
        """Begins to listen to the other processes."""
        if self._nodes is not None:
            self._nodes.passed = self._take
        if self._bus is not None:
            self._bus.start(self._heard)

    async def close(self) -> None:
        """Hangs up."""
        if self._bus is not None:
            await self._bus.close()

    async def send(self, session: Session, envelope: Envelope) -> None:
        """Gives a signal to the devices that are there."""
        now = time.monotonic()
        conversation = session.uid, session.device, envelope.recipient
        if self._accounts.take(session.uid, now) or self._conversations.take(conversation, now):
            self._count("limited")
            return
        try:
            sender = await self._users.user(session.uid)
            recipient = await self._users.user(envelope.recipient)
        except StoreUnavailable:
            return
        admitted = self._users.membership.admits(session.uid, envelope.recipient)
        if sender is None or recipient is None or not admitted:
            self._count("refused")
            return
        now_ms = time.time_ns() // 1_000_000
        for copy in reached(envelope, sender, recipient, session.device):
            delivery = Delivery(
                0,
                envelope.id,
                envelope.suite,
                session.uid,
                session.device,
                envelope.recipient,
                now_ms,
                copy.header,
                envelope.body,
            )
            if not self._give(copy.uid, copy.device, delivery):
                await self._pass_on(Passed(copy.uid, copy.device, delivery))

    async def _pass_on(self, signal: Passed) -> None:
        if self._nodes is not None and self._nodes.pass_on(signal):
            return
        if self._bus is not None:
            await self._bus.say(_ENCODER.encode(signal))

    def _give(self, uid: int, device: int, delivery: Delivery) -> bool:
        peer = self._listening(uid, device)
        if peer is None:
            return False
        peer.send(Signaled(delivery))
        self._count("given")
        return True

    def _heard(self, message: bytes) -> None:
        """Another machine has this for somebody. Whoever it was, the device that gets it believes nobody."""
        try:
            passed = _DECODER.decode(message)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._count("unreadable")
            return
        self._take(passed)

    def _take(self, passed: Passed) -> None:
        try:
            check(Signaled(passed.delivery))
        except ProtocolViolation:
            self._count("unreadable")
        else:
            self._give(passed.uid, passed.device, passed.delivery)

    def _count(self, outcome: str) -> None:
        self._metrics.signals.labels(outcome).inc()


def reached(envelope: Envelope, sender: User, recipient: User, device: int) -> Iterator[Copy]:
    """The copies for active devices of the recipient, if the sender's own is active; `device` is that one's
    number.
    """
    if (sender.uid, device) in sender.mailboxes:
        for copy in envelope.copies:
            if (copy.uid, copy.device) in recipient.mailboxes:
                yield copy
