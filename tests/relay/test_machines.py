"""Several machines of one operator: one database, and nothing else between them but NATS, if there is any.

The workers of one machine hand over what they have stored. Machines have to look for it, or are called.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chatchain.wire.messages import Goodbye, Tick
from tests.fixtures.chains import DevChain
from tests.fixtures.mariadb import MariaDB
from tests.fixtures.nats import Nats
from tests.integration.faults.load import gauges
from tests.relay.stage import Device, Stage

pytestmark = pytest.mark.alone

MESSAGES = 5
LATEST = 2.0
"""Seconds after its tick at which a message is there, though nobody called for a look."""

Begin = Callable[..., tuple[Stage, Stage]]


@pytest.fixture
def begin(anvil: DevChain, mariadb: MariaDB, tmp_path: Path) -> Iterator[Begin]:
    """Starts two machines on a new database."""
    running: list[Stage] = []

    def both(*more: str) -> tuple[Stage, Stage]:
        (tmp_path / "other").mkdir()
        one = Stage(anvil, tmp_path, mariadb.new_database())
        running.extend((one, one.beside(tmp_path / "other")))
        for stage in running:
            stage.start(*more)
        return running[0].alone(), running[1].alone()

    yield both
    for stage in running:
        stage.stop()


async def delays(sender: Device, recipient: Device) -> list[float]:
    """Seconds from the tick of a message to its arrival, of several."""
    found = []
    for number in range(MESSAGES):
        assert isinstance(await sender.send(recipient.account, b"%d" % number), Tick)
        ticked = time.monotonic()
        assert (await recipient.receive(1))[0].body == b"%d" % number
        found.append(time.monotonic() - ticked)
    return found


async def test_machines_without_nats_find_what_the_others_stored_within_two_seconds(begin: Begin) -> None:
    """Both ways; and who logs in at one is logged out at the other."""
    one, other = begin()
    ada, bob = one.register("ada"), one.register("bob")
    here, there = await Device(one, ada).begin(), await Device(other, bob).begin()
    for sender, recipient in ((here, there), (there, here)):
        # Half a second is usual; the machine may be busy for one of them.
        assert statistics.median(await delays(sender, recipient)) < LATEST
    moved = await Device(one, bob).begin()
    assert (await there.expect(Goodbye)).code == "replaced"
    assert statistics.median(await delays(here, moved)) < LATEST
    for device in (here, there, moved):
        await device.close()


async def test_machines_call_each_other_through_nats_and_look_while_it_is_away(
    begin: Begin, nats: Nats
) -> None:
    """A call is what brings a message while there is NATS, and the next look when it was killed."""
    one, other = begin("--nats", nats.url)
    ada, bob = one.register("ada"), one.register("bob")
    here, there = await Device(one, ada).begin(), await Device(other, bob).begin()

    async def heeded() -> float:
        return (await gauges(other)).get('chatchain_wakes_total{outcome="heeded"}', 0.0)

    async with asyncio.timeout(60):
        while not await heeded():  # it may still be connecting
            await delays(here, there)
    nats.kill()
    try:
        before = await heeded()
        assert statistics.median(await delays(here, there)) < LATEST
        assert await heeded() == before
    finally:
        nats.start()
    async with asyncio.timeout(60):
        while await heeded() == before:
            await delays(here, there)
    for device in (here, there):
        await device.close()
