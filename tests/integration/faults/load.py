"""People who write to each other while something breaks, and what must hold afterwards.

The clients here keep what a real one keeps: an outbox of what was not ticked, which is sent again after each
reconnect, and a disk of what was received, which is acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from chatchain.errors import NetworkError
from chatchain.model import Envelope
from chatchain.wire.messages import Acknowledge, Deliver, Receive, Refused, Submit, Tick
from tests.relay.stage import Account, Device, Stage

FULL: Final = os.environ.get("CHATCHAIN_FAULTS") == "full"
"""Whether faults come as often and last as long as is claimed, or as a test of every day can wait for."""

WINDOW: Final = 40

UNLIMITED: Final = " ".join(
    f"{name}=1000000"
    for name in (
        "messages_per_second",
        "message_burst",
        "logins_per_minute",
        "address_logins_per_minute",
        "failed_logins_per_minute",
        "address_failed_logins_per_minute",
    )
)
"""RELAY_LIMITS for faults that make everybody log in again and again."""


class Absence:
    """How long somebody was without a relay at most."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._since: float | None = None

    def over(self) -> None:
        """A login holds."""
        if self._since is not None:
            self.longest = max(self.longest, time.monotonic() - self._since)
            self._since = None

    def begins(self) -> None:
        """A connection was lost, or none came about."""
        if self._since is None:
            self._since = time.monotonic()


class Sender:
    """Sends numbered messages and sends again what was not ticked, in order."""

    def __init__(self, stage: Stage, account: Account, to: Account, size: int = 0) -> None:
        self.stage, self.account, self.to = stage, account, to
        self.size = size
        self.outbox: dict[bytes, Envelope] = {}
        self.ticked: list[bytes] = []
        self.made = 0
        self.absence = Absence()

    def body(self, number: int) -> bytes:
        """What the message of this number says; every third is as long as was asked for."""
        return str(number).encode().ljust(self.size if number % 3 == 0 else 0, b".")

    async def run(self, count: int) -> None:
        """Until so many more are ticked, through however many reconnects."""
        target = self.made + count
        while self.made < target or self.outbox:
            device = Device(self.stage, self.account)
            try:
                await device.connect()
                self.absence.over()
                for envelope in self.outbox.values():
                    await device.say(Submit(envelope))
                await self._pump(device, target)
            except (NetworkError, OSError, AssertionError):
                self.absence.begins()
                await asyncio.sleep(0.05)
            finally:
                await device.close()

    async def _pump(self, device: Device, target: int) -> None:
        while self.made < target or self.outbox:
            while self.made < target and len(self.outbox) < WINDOW:
                envelope = device.envelope(self.to, self.body(self.made))
                self.made += 1
                self.outbox[envelope.id] = envelope
                await device.say(Submit(envelope))
            answer = await device.next()
            if isinstance(answer, Refused) and answer.retry_after_ms:
                raise NetworkError("Not now; all of it again, in order.")
            assert isinstance(answer, Tick), answer
            if self.outbox.pop(answer.id, None) is not None:
                self.ticked.append(answer.id)


class Recipient:
    """Stores what comes and acknowledges it afterwards; sees each id once."""

    def __init__(self, stage: Stage, account: Account) -> None:
        self.stage, self.account = stage, account
        self.disk: dict[bytes, bytes] = {}
        self.news = asyncio.Event()
        self.absence = Absence()

    async def has(self, count: int) -> None:
        """Waits until so many have come."""
        while len(self.disk) < count:
            self.news.clear()
            await self.news.wait()

    async def run(self) -> None:
        """Until cancelled, through however many reconnects."""
        while True:
            device = Device(self.stage, self.account)
            try:
                await device.connect()
                self.absence.over()
                await device.say(Receive(0))
                while True:
                    delivery = (await device.expect(Deliver)).delivery
                    self.disk.setdefault(delivery.id, delivery.body)
                    self.news.set()
                    await device.say(Acknowledge((delivery.sequence,)))
            except (NetworkError, OSError, AssertionError):
                self.absence.begins()
                await asyncio.sleep(0.05)
            finally:
                await device.close()


@dataclass
class Pair:
    """A sender and a recipient."""

    sender: Sender
    recipient: Recipient


def pairs(senders: Stage, recipients: Stage, count: int, size: int = 0) -> list[Pair]:
    """People who write to each other, and the stages that say which relay each dials first."""
    made = []
    for _ in range(count):
        ada, bob = senders.register(f"a{os.urandom(6).hex()}"), senders.register(f"b{os.urandom(6).hex()}")
        made.append(Pair(Sender(senders, ada, bob, size), Recipient(recipients, bob)))
    return made


async def through(
    talking: Sequence[Pair],
    rounds: int,
    messages: int,
    fault: Callable[[], Awaitable[None]],
    *,
    patience: float = 600,
) -> None:
    """Runs load through one fault after another, and compares what was promised with what arrived.

    Each sender has so many messages in each round, on both sides of the fault.
    """
    for _ in range(rounds):
        loading = [asyncio.create_task(pair.sender.run(messages)) for pair in talking]
        receiving = [asyncio.create_task(pair.recipient.run()) for pair in talking]
        await asyncio.sleep(random.uniform(0.02, 0.4))
        await fault()
        async with asyncio.timeout(patience):
            await asyncio.gather(*loading)
            for pair in talking:
                await pair.recipient.has(pair.sender.made)
        for task in receiving:
            task.cancel()
        await asyncio.gather(*receiving, return_exceptions=True)
    assert all(pair.sender.made == rounds * messages for pair in talking)
    compare(talking)


def compare(talking: Sequence[Pair]) -> None:
    """Nothing that was ticked is lost; everything is there once, and in order."""
    for pair in talking:
        assert set(pair.sender.ticked) <= pair.recipient.disk.keys(), "ticked and lost"
        assert len(pair.sender.ticked) == pair.sender.made
        expected = [pair.sender.body(number) for number in range(pair.sender.made)]
        arrived = list(pair.recipient.disk.values())
        assert sorted(arrived) == sorted(expected), "each once"
        assert arrived == expected, "in order"


async def health(stage: Stage, page: str = "health") -> tuple[int, dict[str, Any]]:
    """What the relay's /health says, or /ready: the status, and the words."""
    status, words = await _page(stage, page)
    return status, json.loads(words)


async def gauges(stage: Stage) -> dict[str, float]:
    """The relay's metrics, by name and labels."""
    text = (await _page(stage, "metrics"))[1].decode()
    return {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if line[:1] != "#"}


async def _page(stage: Stage, name: str) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.metrics_port)
    writer.write(f"GET /{name} HTTP/1.1\r\n\r\n".encode())
    head, _, words = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), words


def rss_kib(pid: int, *, most: bool = False) -> int:
    """Resident memory of a process; with `most` the most that there was since `forget_most`."""
    name = "VmHWM:" if most else "VmRSS:"
    return int(Path(f"/proc/{pid}/status").read_text().partition(name)[2].split()[0])


def forget_most(pid: int) -> None:
    """The most memory that a process has had counts from now on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def worst_of_100(values: Sequence[float]) -> float:
    """The 99th percentile."""
    return sorted(values)[int(len(values) * 0.99)]
