"""What was ticked is never lost: relay and database are killed under load, again and again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Iterator
from typing import Final

import pytest

from chatchain.wire.messages import Refused, Tick
from tests.fixtures.chains import DevChain
from tests.fixtures.mariadb import MariaDB
from tests.integration.faults.load import FULL, health, pairs, through
from tests.relay.stage import Device, Stage

ROUNDS: Final = int(os.environ.get("CHATCHAIN_FAULT_ROUNDS", "0")) or (50 if FULL else 2)
"""Kills in one test."""

PAIRS: Final = 4
"""Eight clients."""

MESSAGES: Final = 150
"""Of each sender in each round, on both sides of the kill."""

AWAY: Final = 2.0
"""Seconds until a database that was killed is started again."""


@pytest.fixture(scope="module", params=["sqlite", "mariadb"])
def stage(
    request: pytest.FixtureRequest, anvil: DevChain, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """A relay of these tests' own, on each of the databases."""
    folder = tmp_path_factory.mktemp("faults")
    if request.param == "sqlite":
        database = f"sqlite:///{folder / 'relay.db'}"
    else:
        database = request.getfixturevalue("mariadb").new_database()
    made = Stage(anvil, folder, database)
    made.start()
    yield made
    made.stop()


async def test_a_relay_killed_under_load_loses_nothing_ticked(stage: Stage) -> None:
    """kill -9 in the middle, a new process, and every message arrives once and in order."""

    async def fault() -> None:
        assert stage.process is not None
        stage.process.kill()
        await asyncio.sleep(0.1)
        # Not in a thread: the fixtures' processes end with the thread that started them.
        stage.start()

    await through(pairs(stage, stage, PAIRS), ROUNDS, MESSAGES, fault)


async def test_a_database_killed_under_load_loses_nothing_ticked(
    stage: Stage, request: pytest.FixtureRequest
) -> None:
    """The server dies without a word and comes back; the relay goes on by itself."""
    if stage.database.startswith("sqlite"):
        # SQLite has no server to kill: what can happen to it is that another process holds its lock.
        async def fault() -> None:
            path = stage.database.removeprefix("sqlite:///")
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("PRAGMA busy_timeout=10000")
                other.execute("BEGIN IMMEDIATE")
                await asyncio.sleep(0.3)
                other.execute("ROLLBACK")

    else:
        server: MariaDB = request.getfixturevalue("mariadb")

        async def fault() -> None:
            server.kill()
            await asyncio.sleep(AWAY)
            server.start()

    assert stage.process is not None
    pid = stage.process.pid
    await through(pairs(stage, stage, PAIRS), ROUNDS, MESSAGES, fault)
    assert stage.process.running
    assert stage.process.pid == pid


async def test_while_the_database_is_away_nothing_is_ticked(
    anvil: DevChain, mariadb: MariaDB, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Senders are refused and may try again; logins are turned away; health says so; then all goes on."""
    stage = Stage(anvil, tmp_path_factory.mktemp("away"), mariadb.new_database())
    stage.start()
    ada, bob = stage.register("ada"), stage.register("bob")
    sender, recipient = await Device(stage, ada).connect(), await Device(stage, bob).begin()
    assert isinstance(await sender.send(bob, b"0"), Tick)
    mariadb.stop()
    try:
        lost = [sender.envelope(bob, str(number).encode()) for number in range(1, 50)]
        for envelope in lost:
            answer = await sender.submit(envelope)
            assert isinstance(answer, Refused)
            assert answer.code == "store_unavailable"
            assert answer.retry_after_ms > 0
        assert (await health(stage))[0] == 503
    finally:
        mariadb.start()
    async with asyncio.timeout(120):
        while isinstance(await sender.submit(lost[0]), Refused):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    for envelope in lost[1:]:
        assert isinstance(await sender.submit(envelope), Tick)
    bodies = [delivery.body for delivery in await recipient.receive(50)]
    assert bodies == [str(number).encode() for number in range(50)]
    async with asyncio.timeout(120):
        while (await health(stage))[0] != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    await sender.close()
    await recipient.close()
    stage.stop()
