"""kill -9 at every step that changes a session: the same ciphertext again, no key twice, nothing shown twice,
and nothing that was read called unreadable.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chatchain.client.core import Client
from chatchain.client.session import Session
from chatchain.errors import ChatchainError, NoTick
from chatchain.model import Envelope, SessionChanges
from chatchain.store.local import LocalStore
from tests.client.families import Home, another, family, initial, store_of
from tests.world import World


class Killed(MemoryError):
    """The process is gone."""


class Used:
    """AES-GCM that remembers what was encrypted with each key under the nonce of zeros."""

    made: dict[bytes, set[bytes]]

    def __init__(self, key: bytes) -> None:
        self._cipher, self._key = AESGCM(key), key

    def encrypt(self, nonce: bytes, data: bytes, associated: bytes | None) -> bytes:
        """Encrypts and takes note."""
        ciphertext = self._cipher.encrypt(nonce, data, associated)
        if not any(nonce):
            self.made.setdefault(self._key, set()).add(ciphertext)
        return ciphertext

    def decrypt(self, nonce: bytes, data: bytes, associated: bytes | None) -> bytes:
        """Decrypts."""
        return self._cipher.decrypt(nonce, data, associated)


@pytest.fixture(autouse=True)
def _notes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every message key of every session is watched."""
    monkeypatch.setattr(Used, "made", {}, raising=False)
    monkeypatch.setattr("chatchain.crypto.ratchet.AESGCM", Used)


def no_key_left_twice(world: World) -> None:
    """Of all that was encrypted under one message key, one ciphertext at most ever left."""
    headers = {copy.header for submit in world.relay.submitted for copy in submit.envelope.copies}
    assert headers
    counted = 0
    for ciphertexts in Used.made.values():
        left = [one for one in ciphertexts if any(header.endswith(one) for header in headers)]
        assert len(left) <= 1
        counted += len(left)
    assert counted == len(headers)


def one_ciphertext_a_message(world: World) -> None:
    """What was submitted again under an id was the same to the last byte."""
    envelopes: dict[bytes, set[tuple[bytes, Any]]] = {}
    for submit in world.relay.submitted:
        envelope = submit.envelope
        envelopes.setdefault(envelope.id, set()).add((envelope.body, envelope.copies))
    assert all(len(each) == 1 for each in envelopes.values())


@pytest.fixture
def ada(world: World) -> Home:
    """Ada's one home."""
    return Home(world, "ada", "ada")


@pytest.fixture
def bob(world: World) -> Home:
    """Bob's one home."""
    return Home(world, "bob", "bob")


async def run_until_killed(home: Home, work: Callable[[Client], Awaitable[None]]) -> bool:
    """A process that may die while it works; says whether it lived."""
    client = home.client()
    try:
        await work(client)
        await client._station.last_words()
    except (Killed, ChatchainError):
        await home.world.kill(client)
        return False
    await client.close()
    return True


def writes(to: str, *said: str) -> Callable[[Client], Awaitable[None]]:
    """A process that sends."""

    async def work(client: Client) -> None:
        await World.drain(client.send(to, said, wait_s=2.0), [])

    return work


async def reads(client: Client) -> None:
    """A process that receives."""
    await World.drain(client.receive(), [])


STEPS = ("queue", "reseal", "take_in", "settle", "queue_receipts", "change_sessions")


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
async def test_killed_at_a_step_of_the_store(
    empty: World, monkeypatch: pytest.MonkeyPatch, step: str, moment: str
) -> None:
    """Each side in turn dies at its first transaction of a kind; what one wrote is what the other read."""
    await empty.register("ada", "bob")
    ada, bob = Home(empty, "ada", "ada"), Home(empty, "bob", "bob")
    armed, deaths = True, 0
    real: Callable[..., Any] = getattr(LocalStore, step)

    def dying(self: LocalStore, *given: Any, **named: Any) -> Any:
        nonlocal armed, deaths
        if not armed:
            return real(self, *given, **named)
        armed, deaths = False, deaths + 1
        if moment == "after":
            real(self, *given, **named)
        raise Killed

    monkeypatch.setattr(LocalStore, step, dying)
    for home, work in (
        (ada, writes("bob", "one", "two")),
        (bob, reads),
        (bob, writes("ada", "three")),
        (ada, reads),
        (ada, writes("bob", "four")),
    ):
        armed = True
        if step == "reseal" and work is not reads:
            empty.relay.up = False  # nothing can be sealed for somebody new
            with suppress(ChatchainError):
                await run_until_killed(home, work)
            empty.relay.up = True
        await run_until_killed(home, work)
    armed = False
    await ada.send("bob", "last")
    for home in (ada, bob, ada, bob):
        await home.hear()
    assert deaths
    told = []
    for home, peer in ((ada, "bob"), (bob, "ada")):
        async with home.client() as client:
            told.append(sorted((one.id, one.kind, one.text) for one in await client.history(peer)))
    assert told[0] == told[1]
    assert {kind for _, kind, _ in told[0]} == {"text"}
    assert not empty.relay.rows
    no_key_left_twice(empty)
    one_ciphertext_a_message(empty)


async def test_killed_before_the_acknowledgement(
    world: World, ada: Home, bob: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read and stored, then killed: what comes again is known, and no notice says that it cannot be read."""

    async def die(*_: object) -> None:
        raise Killed

    await ada.send("bob", "one", "two")
    with monkeypatch.context() as dying:
        dying.setattr(Session, "acknowledge", die)
        assert not await run_until_killed(bob, reads)
    assert await bob.texts(0.3) == ["one", "two"]
    assert await bob.hear() == []
    async with bob.client() as client:
        assert [one.kind for one in await client.history("ada")] == ["text", "text"]


async def test_killed_after_storing(empty: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wrote is a contact even so, and whom another device wrote to is no stranger here."""
    (ada,), (bob,) = await family(empty, "ada"), await family(empty, "bob")
    laptop = await another(bob, "laptop")
    await ada.send("bob", "one")
    await bob.send("ada", "two")
    real = LocalStore.take_in

    def dying(self: LocalStore, *given: Any, **named: Any) -> Any:
        real(self, *given, **named)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "take_in", dying)
        assert not await run_until_killed(laptop, reads)
    assert await laptop.texts() == ["one"]
    async with laptop.client() as client:
        assert [one.username for one in await client.contacts()] == ["ada"]
        kept = (await store_of(client)).contact(empty.chain.user("ada").uid)
        assert kept is not None
        assert kept.met


async def test_killed_between_storing_and_the_tick(world: World, ada: Home, bob: Home) -> None:
    """The relay never heard of it, the session has gone on: the very same ciphertext goes out."""
    await ada.send("bob", "first")
    world.relay.deaf = True
    client = ada.client()
    with pytest.raises(NoTick):
        await world.drain(client.send("bob", "second", wait_s=0.1), [])
    await world.kill(client)
    world.relay.deaf = False
    await ada.send("bob", "third")
    assert await bob.texts() == ["first", "second", "third"]
    one_ciphertext_a_message(world)
    no_key_left_twice(world)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_killed_at_a_sign_of_typing(
    world: World, ada: Home, bob: Home, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Nothing keeps it, and yet the session has moved on the disk before it leaves."""
    await ada.send("bob", "first")
    assert await bob.texts() == ["first"]
    await ada.hear()
    real, left = LocalStore.change_sessions, list[Envelope]()

    def dying(self: LocalStore, changes: SessionChanges) -> None:
        if moment == "after":
            real(self, changes)
        raise Killed

    async def leaves(_: Session, envelope: Envelope) -> None:
        left.append(envelope)

    async def types(client: Client) -> None:
        await client.login()
        with monkeypatch.context() as patch:
            patch.setattr(LocalStore, "change_sessions", dying)
            patch.setattr(Session, "signal", leaves)
            await client.typing("bob", started=True)

    assert not await run_until_killed(ada, types)
    assert left == []
    await ada.send("bob", "second")
    assert await bob.texts() == ["second"]
    no_key_left_twice(world)


async def test_killed_while_headers_are_added(empty: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new device's header was made and not stored, or stored and not sent: it is made once that leaves."""
    (ada,), (bob,) = await family(empty, "ada"), await family(empty, "bob")
    await ada.send("bob", "first")
    empty.relay.deaf = True
    client = ada.client()
    with pytest.raises(NoTick):
        await empty.drain(client.send("bob", "second", wait_s=0.1), [])
    await empty.kill(client)
    empty.relay.deaf = False
    laptop = await another(bob, "laptop")

    def die(*_: object) -> None:
        raise Killed

    for _ in range(2):
        with monkeypatch.context() as dying:
            dying.setattr(LocalStore, "reseal", die)
            client = ada.client()
            await client.login()
            await empty.kill(client)
    await ada.send("bob", "third")
    assert await bob.texts() == ["first", "second", "third"]
    assert await laptop.texts() == ["second", "third"]
    no_key_left_twice(empty)


async def test_a_session_begins_once(world: World, ada: Home, bob: Home) -> None:
    """One process begins a session and finds it lost: what it sends next has none of the old keys."""
    async with ada.client() as client:
        await world.drain(client.send("bob", "one"), [])
        desk = await client._station.desk()
        draft = desk.sessions.draft()
        assert draft.lost(world.chain.user("bob").uid, 1)
        desk.unlocked.store.change_sessions(draft.changes)
        await world.drain(client.send("bob", "two"), [])
    assert len(await ada.kept("bob")) == 2
    assert await bob.texts() == ["one", "two"]
    no_key_left_twice(world)


async def test_killed_before_prekeys_were_published(empty: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their secrets are stored first, so what the relay may hand out can be answered; a lost batch is made up
    for.
    """
    await empty.register("ada")

    async def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as dying:
        dying.setattr(Session, "publish_prekeys", die)
        client = empty.client("bob")
        with suppress(Killed):
            await client.register("bob")
        await empty.kill(client)
    bob = Home(empty, "bob", "bob")
    async with bob.client() as client:
        assert (await store_of(client)).prekeys() is not None
        await client.login()
    await Home(empty, "ada", "ada").send("bob", "hello")
    assert initial(empty) == [True]
    assert await bob.texts() == ["hello"]
