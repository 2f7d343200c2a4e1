"""kill -9 at every step of sending and receiving: the same ciphertext again, shown once, nothing lost."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from chatchain.client.core import Client
from chatchain.client.home import Home
from chatchain.client.views import Sent
from chatchain.errors import HomeBusy, NoTick
from chatchain.store.local import LocalStore
from tests.world import World


async def _start(client: Client, *texts: str) -> asyncio.Task[list[Sent]]:
    """A send that will not come to its end."""

    async def send() -> list[Sent]:
        return [sent async for sent in client.send("bob", texts, wait_s=60)]

    return asyncio.create_task(send())


async def _end(task: asyncio.Task[list[Sent]]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_killed_between_send_and_tick(world: World) -> None:
    """The relay has committed, the tick never came: the same bytes go again, shown once."""
    world.relay.mute = True
    ada = world.client("ada")
    task = await _start(ada, "hello")
    await world.until(lambda: len(world.relay.stored) == 1)
    await _end(task)
    await world.kill(ada)
    world.relay.mute = False
    async with world.client("ada") as again:
        await again.login()
        assert [kept.state for kept in await again.history("bob")] == ["sent"]
    first, second = world.relay.submitted
    assert first == second
    assert [shown.text for shown in await world.hear("bob", wait_s=0.5)] == ["hello"]


async def test_killed_before_the_relay_took_it(world: World) -> None:
    """Stored here and lost on the way: the next run sends the very same envelope."""
    world.relay.deaf = True
    ada = world.client("ada")
    task = await _start(ada, "hello")
    await world.until(lambda: len(world.relay.submitted) == 1)
    await _end(task)
    await world.kill(ada)
    world.relay.deaf = False
    async with world.client("ada") as again:
        await again.login()
    assert world.relay.submitted[0] == world.relay.submitted[1]
    assert [shown.text for shown in await world.hear("bob")] == ["hello"]


async def test_killed_while_storing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the transaction nothing was promised: nothing is sent later either."""
    reached = asyncio.Event()

    def die(*_: object, **__: object) -> None:
        reached.set()
        raise MemoryError("killed here")

    monkeypatch.setattr(LocalStore, "queue", die)
    ada = world.client("ada")
    task = await _start(ada, "hello")
    with pytest.raises(MemoryError):
        await task
    await world.kill(ada)
    monkeypatch.undo()
    async with world.client("ada") as again:
        await again.login()
        assert await again.history("bob") == []
    assert world.relay.submitted == []


async def test_killed_after_the_tick_before_it_was_noted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tick was there, the state was not written: submitted again, ticked again, shown once."""

    def die(*_: object) -> None:
        raise asyncio.CancelledError("killed here")  # an error would be told, and the dead tell nothing

    monkeypatch.setattr(LocalStore, "settle", die)
    ada = world.client("ada")
    task = await _start(ada, "hello")
    await world.until(lambda: len(world.relay.stored) == 1)
    await asyncio.sleep(0.05)
    await _end(task)
    await world.kill(ada)
    monkeypatch.undo()
    async with world.client("ada") as again:
        assert [kept.state for kept in await again.history("bob")] == ["queued"]
        await again.login()
        assert [kept.state for kept in await again.history("bob")] == ["sent"]
    assert [shown.text for shown in await world.hear("bob", wait_s=0.5)] == ["hello"]


async def test_killed_in_the_middle_of_many(world: World) -> None:
    """However far a run came, the next one sends the rest, in order and each once."""
    ada = world.client("ada")
    texts = [str(number) for number in range(200)]
    task = await _start(ada, *texts)
    await world.until(lambda: len(world.relay.stored) >= 70)
    await _end(task)
    await world.kill(ada)
    async with world.client("ada") as again:
        await again.login()
        kept = [one.text for one in await again.history("bob", limit=500)]
    shown = [one.text for one in await world.hear("bob", wait_s=0.5)]
    assert len(shown) >= 70
    assert shown == kept == texts[: len(shown)]


async def test_killed_before_the_acknowledgement(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stored and not acknowledged: the delivery comes again and is shown once in all."""
    from chatchain.client.session import Session

    async def die(*_: object) -> None:
        raise MemoryError("killed here")

    await world.say("ada", "bob", "hello")
    monkeypatch.setattr(Session, "acknowledge", die)
    bob = world.client("bob")
    with pytest.raises(MemoryError):
        await world.drain(bob.receive(), [])
    await world.kill(bob)
    monkeypatch.undo()
    assert len(world.relay.rows) == 1
    assert [one.text for one in await world.hear("bob", wait_s=0.5)] == ["hello"]
    assert world.relay.rows.keys() & {1} == set()
    assert await world.hear("bob") == []


async def test_killed_before_storing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delivered and not stored: not acknowledged, so it comes again."""

    def die(*_: object) -> None:
        raise MemoryError("killed here")

    await world.say("ada", "bob", "hello")
    monkeypatch.setattr(LocalStore, "take_in", die)
    bob = world.client("bob")
    with pytest.raises(MemoryError):
        await world.drain(bob.receive(), [])
    await world.kill(bob)
    monkeypatch.undo()
    assert [one.text for one in await world.hear("bob", wait_s=0.5)] == ["hello"]


async def test_shown_once_although_interrupted_between_two(world: World) -> None:
    """Who was interrupted while messages were being shown sees the rest next time."""
    await world.say("ada", "bob", "1", "2", "3")
    bob = world.client("bob")
    stream = bob.receive()
    assert (await anext(stream)).text == "1"
    assert (await anext(stream)).text == "2"
    await world.kill(bob)
    # "2" was handed out and not taken back by the next request: it may come again, "3" must.
    assert [one.text for one in await world.hear("bob", wait_s=0.5)][-1] == "3"


async def test_receipt_survives(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The receipt is owed from the transaction that stored the message: a crash after it does not lose it."""
    from chatchain.client.outbox import Outbox

    await world.say("ada", "bob", "hello")
    with monkeypatch.context() as patched:
        patched.setattr(Outbox, "queue_receipts", lambda _: 0)
        bob = world.client("bob")
        assert [one.text async for one in bob.receive()] == ["hello"]
        await world.kill(bob)
    async with world.client("bob") as again:
        await again.login()
    await world.hear("ada")
    async with world.client("ada") as ada:
        assert [kept.state for kept in await ada.history("bob")] == ["delivered"]


async def test_two_processes_on_one_home(world: World) -> None:
    """A second client on the same home is refused, naming the process; looking things up is not."""
    async with world.client("ada") as first:
        await first.login()
        async with world.client("ada") as second:
            with pytest.raises(HomeBusy, match=str(os.getpid())) as told:
                await second.login()
            assert told.value.exit_code == 7
            assert await second.history("bob") == []
            assert (await second.whoami()).username == "ada"
            assert (await second.status()).queued == 0
        assert [sent.state async for sent in first.send("bob", "still here")] == ["sent"]


def test_lock_of_a_killed_process_falls(tmp_path: Path) -> None:
    """The operating system takes the lock back when a process is killed."""
    script = (
        "import sys, time; from pathlib import Path; from chatchain.client.home import Home\n"
        f"home = Home(Path({str(tmp_path)!r})); home.acquire(); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        home = Home(tmp_path)
        with pytest.raises(HomeBusy, match=f"process {process.pid}"):
            home.acquire()
        process.send_signal(signal.SIGKILL)
        process.wait()
        home.acquire()
        assert home.held
        home.release()


async def test_interrupted_send_stays_queued(world: World) -> None:
    """Ctrl-C while waiting for the tick: the message is kept, the home is free, the next run sends it."""
    world.relay.deaf = True
    async with world.client("ada") as ada:
        task = await _start(ada, "hello")
        await world.until(lambda: len(world.relay.submitted) == 1)
        await _end(task)
    world.relay.deaf = False
    assert [sent.state for sent in await world.say("ada", "bob", "again")] == ["sent"]
    assert [shown.text for shown in await world.hear("bob")] == ["hello", "again"]


async def test_silent_relay_then_another_run(world: World) -> None:
    """NoTick is not a loss: the next send brings both."""
    world.relay.mute = True
    async with world.client("ada") as ada:
        with pytest.raises(NoTick):
            await world.drain(ada.send("bob", "one", wait_s=0.2), [])
    world.relay.mute = False
    await world.say("ada", "bob", "two")
    assert [shown.text for shown in await world.hear("bob")] == ["one", "two"]
