"""What a contact, a relay, a thief or a co-user may try with ids, settings, files and links."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from chatchain.client.sessions import MAX_AFRESH
from chatchain.client.views import Sent, Shown
from chatchain.crypto import content as contents
from chatchain.errors import BadRecord, FoldMismatch, NoTick
from chatchain.model import Delivery, Outgoing, Suite
from tests.client.families import Home, family, store_of
from tests.world import World

YEAR_9999_MS = 253_402_300_799_999


@pytest.fixture
def ada(world: World) -> Home:
    """Ada's one home."""
    return Home(world, "ada", "ada")


@pytest.fixture
def bob(world: World) -> Home:
    """Bob's one home."""
    return Home(world, "bob", "bob")


async def one(stream: AsyncIterator[Sent]) -> Sent:
    """What became of the one thing that was sent."""
    (sent,) = [sent async for sent in stream]
    return sent


async def send_raw(
    home: Home, to: str, content: contents.Content, *, id: bytes = b"", time_ms: int | None = None
) -> None:
    """Sends what a client of somebody else's making might, under any id and date."""
    now_ms = int(home.world.clock() * 1000) if time_ms is None else time_ms
    peer = home.world.chain.user(to).uid
    item = Outgoing(id or os.urandom(16), peer, "text", contents.encode(content), now_ms)
    async with home.client() as client:
        (await store_of(client)).queue([], [item])
        await client.login()


async def talk(home: Home, peer: str) -> list[Shown]:
    """What a home shows of a conversation."""
    async with home.client() as client:
        return await client.history(peer)


# --- messages of one id ---------------------------------------------------------------------------------


# --- settings that would stay for ever ------------------------------------------------------------------


# --- revoked devices ------------------------------------------------------------------------------------


async def test_what_was_sealed_before_a_revocation(empty: World) -> None:
    """It leaves without the revoked device's copy, also to a relay that would take and hand it over."""
    (ada,), bobs = await family(empty, "ada"), await family(empty, "bob", 2)
    await ada.send("bob", "to both")
    empty.relay.deaf = True
    async with ada.client() as client:
        with pytest.raises(NoTick):
            await empty.drain(client.send("bob", "for whom?", wait_s=0.05), [])
    assert {copy.device for copy in empty.relay.submitted[-1].envelope.copies} == {1, 2}
    async with bobs[0].client() as client:
        await client.revoke_device(2)
    async with ada.client() as client:
        await client.login()
    last = empty.relay.submitted[-1].envelope
    assert {copy.device for copy in last.copies if copy.uid == empty.chain.user("bob").uid} == {1}


async def test_a_revoked_device_asks_to_be_linked_again(empty: World) -> None:
    """Its old text gets no second answer with the account's secret."""
    (ada,) = await family(empty, "ada")
    async with empty.client("ada", home="thief") as new:
        asked = await new.link("ada")
    async with ada.client() as client:
        await client.accept_link(asked.request)
        await client.revoke_device(2)
    async with ada.client() as client:
        with pytest.raises(BadRecord, match="has had"):
            await client.accept_link(asked.request)


# --- compatibility --------------------------------------------------------------------------------------


async def test_rsa_downgrade_by_hidden_devices(
    world: World, ada: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endpoint that shows fewer device changes of bob than before gets no RSA envelope out of ada."""
    await ada.send("bob", "before")
    async with ada.client() as client:
        await client.publish_rsa()
        desk = await client._station.desk()
        user = world.chain.user("bob")
        less = replace(user, devices=(), device_list_version=user.device_list_version - 1)

        async def shown(who: str) -> object:
            return less

        monkeypatch.setattr(desk.people, "find", shown)
        with pytest.raises(FoldMismatch, match="hides"):
            await client.seal_rsa("bob", "secret")


# --- floods ---------------------------------------------------------------------------------------------


async def test_messages_invented_of_everybody(
    world: World, ada: Home, bob: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay cannot have bob write to everybody who is registered: he answers a few an hour."""
    monkeypatch.setattr("chatchain.client.sessions.MAX_AFRESH", 2)
    names = ["carol", "dave", "erin"]
    await world.register(*names)
    before = len(world.relay.submitted)
    for name in names:
        user, me = world.chain.user(name), world.chain.user("bob")
        now_ms = int(world.now * 1000)
        garbage = b"\2" + os.urandom(200)
        delivery = Delivery(1, os.urandom(16), Suite.RATCHET, user.uid, 1, me.uid, now_ms, garbage, garbage)
        world.relay.inject(me, delivery)
    assert [shown.kind for shown in await bob.hear(0.3)] == ["notice"] * 3
    answered = [submit.envelope.recipient for submit in world.relay.submitted[before:]]
    assert answered == [world.chain.user(name).uid for name in names[:2]]
    assert MAX_AFRESH <= 100


# --- files ----------------------------------------------------------------------------------------------


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]
