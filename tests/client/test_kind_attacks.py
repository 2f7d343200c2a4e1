"""What a contact, a relay, a thief or a co-user may try with ids, settings, files and links."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from chatchain.client import home as homes
from chatchain.client.attachments import AUTO_FILES_OF_STRANGER, copy_out
from chatchain.client.sessions import MAX_AFRESH
from chatchain.client.views import Sent, Shown
from chatchain.crypto import content as contents
from chatchain.errors import AlreadyDone, BadRecord, FoldMismatch, NoTick
from chatchain.model import RELAYS_WORD, Delivery, Outgoing, Suite
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


async def test_a_contact_sends_a_message_under_the_id_of_ours(ada: Home, bob: Home) -> None:
    """It keeps nobody from editing and taking back their own words, nor changes them."""
    async with ada.client() as client:
        mine = await one(client.send("bob", "my word"))
    await bob.hear()
    await send_raw(bob, "ada", contents.text("not my word"), id=bytes.fromhex(mine.id))
    (shown,) = await ada.hear()
    assert (shown.id, shown.text) == (mine.id, "not my word")
    async with ada.client() as client:
        assert (await one(client.edit(mine.id, "my last word"))).state == "sent"
        assert (await one(client.react(mine.id, "👍"))).state == "sent"
    assert [kept.text for kept in await talk(ada, "bob")] == ["my last word", "not my word"]
    async with ada.client() as client:
        assert (await one(client.delete(mine.id))).state == "sent"
    assert [kept.text for kept in await talk(ada, "bob")] == [None, "not my word"]
    await bob.hear()
    (theirs,) = await talk(bob, "ada")
    assert (theirs.text, theirs.deleted) == (None, True)


async def test_a_relay_says_that_a_message_never_arrived(world: World, ada: Home, bob: Home) -> None:
    """Its author may take it back all the same: bob has it, and the relay held his receipt back."""
    async with ada.client() as client:
        mine = await one(client.send("bob", "regretted"))
    assert await bob.texts() == ["regretted"]
    me, peer = world.chain.user("ada"), world.chain.user("bob")
    world.relay.rows.clear()
    word = Delivery(0, os.urandom(16), RELAYS_WORD, peer.uid, 1, me.uid, 1, b"", bytes.fromhex(mine.id))
    world.relay.inject(me, word)
    await ada.hear()
    assert [(kept.state, kept.code) for kept in await talk(ada, "bob")] == [("dropped", "expired")]
    async with ada.client() as client:
        assert (await one(client.delete(mine.id))).state == "sent"
    await bob.hear()
    assert [kept.deleted for kept in await talk(bob, "ada")] == [True]


# --- settings that would stay for ever ------------------------------------------------------------------


@pytest.mark.parametrize("what", ["timer", "record"])
async def test_a_setting_dated_ahead(empty: World, what: str) -> None:
    """Bob sets something in the year 9999: ada changes it back, on all her devices and at bob's."""
    (ada, phone), (bob,) = await family(empty, "ada", 2), await family(empty, "bob")
    content = contents.timer(1) if what == "timer" else contents.off_the_record(on=True)
    await send_raw(bob, "ada", content, time_ms=YEAR_9999_MS)
    for home in (ada, phone):
        assert [shown.kind for shown in await home.hear()] == ["notice"]
    async with ada.client() as client:
        if what == "timer":
            await client.chat_settings("bob", expires=0)
        else:
            await client.chat_settings("bob", off_the_record=False)
    await phone.hear()
    for home in (ada, phone):
        async with home.client() as client:
            view = await client.chat_settings("bob")
        assert (view.expires, view.off_the_record) == (0, False)
    assert await bob.hear() == []  # it came, and is as he has it


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


async def test_one_blob_named_by_many_messages(world: World, ada: Home, bob: Home, tmp_path: Path) -> None:
    """A stranger cannot fill bob's disk with copies of one upload: only a few come by themselves."""
    (tmp_path / "a.txt").write_bytes(b"a" * 1000)
    async with ada.client() as client:
        await one(client.send_file("bob", tmp_path / "a.txt"))
        (kept,) = (await store_of(client)).history(world.chain.user("bob").uid, limit=1)
        again = [
            Outgoing(os.urandom(16), kept.peer, "file", kept.content, kept.time_ms)
            for _ in range(AUTO_FILES_OF_STRANGER + 5)
        ]
        (await store_of(client)).queue([], again)
        await client.login()
    shown = await bob.hear()
    came = [each.attachment.path for each in shown if each.attachment is not None]
    assert [path is not None for path in came] == [True] * AUTO_FILES_OF_STRANGER + [False] * 6
    await bob.send("ada", "so you are no stranger")
    await send_raw(ada, "bob", contents.decode(kept.content))  # type: ignore[arg-type]
    last = (await bob.hear())[-1]
    assert last.attachment is not None
    assert last.attachment.path is not None
    async with bob.client() as client:
        assert (await client.fetch_file(shown[-1].id)).size == 1000


async def test_many_names_bring_no_more_files_than_one_bound(
    world: World, ada: Home, bob: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strangers share what comes along by itself; those whom bob has met are not crowded out."""
    monkeypatch.setattr("chatchain.client.files.AUTO_FILES_OF_STRANGERS", 3)
    (tmp_path / "a.txt").write_bytes(b"a" * 1000)
    await world.register("carol", "dave")
    for name in ("carol", "dave"):
        for _ in range(2):
            async with world.client(name) as client:
                await one(client.send_file("bob", tmp_path / "a.txt"))
    came = [each.attachment.path for each in await bob.hear() if each.attachment is not None]
    assert [path is not None for path in came] == [True, True, True, False]
    await bob.send("ada", "so you are no stranger")
    async with ada.client() as client:
        await one(client.send_file("bob", tmp_path / "a.txt"))
    (last,) = await bob.hear()
    assert last.attachment is not None
    assert last.attachment.path is not None


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


async def test_a_file_that_is_taken_back_goes_at_once(
    world: World, ada: Home, bob: Home, tmp_path: Path
) -> None:
    """Not only with the next session: what somebody looks on at goes while they look on."""
    (tmp_path / "a.txt").write_bytes(b"regretted")
    async with ada.client() as client:
        sent = await one(client.send_file("bob", tmp_path / "a.txt"))
    (shown,) = await bob.hear()
    assert shown.attachment is not None
    path = shown.attachment.path
    assert path is not None
    assert names(Path(path).parent) == ["a.txt"]
    folder = world.home("ada") / "files" / "in"
    async with ada.client() as client:
        await client.fetch_file(sent.id)
        assert len(names(folder)) == 1
        await one(client.delete(sent.id))
        assert names(folder) == []
    await bob.hear()
    assert names(world.home("bob") / "files" / "in") == []


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_file_that_waits_where_ours_will_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who shares the folder makes our temporary file first, readable to all: we do not use it."""
    source, out = tmp_path / "source", tmp_path / "out"
    source.write_bytes(b"secret")
    monkeypatch.setattr(os, "urandom", bytes)  # even a name that can be foretold
    for name, act in (
        (f".{'00' * 8}.part", lambda: copy_out(source, out, name="x", overwrite=False)),
        (f".out.{'00' * 8}.part", lambda: homes.write_private(out, b"secret")),
    ):
        trap = tmp_path / name
        trap.touch(mode=0o666)
        with pytest.raises((AlreadyDone, FileExistsError)):
            act()
        assert not out.exists()
        assert not trap.exists() or trap.read_bytes() == b""


@pytest.mark.parametrize(("days", "counts"), [(2, True), (4, False)])
async def test_dated_ahead_to_be_edited_for_long(ada: Home, bob: Home, days: int, counts: bool) -> None:
    """Ada dates a message a year ahead, to reword it when it suits her: after three days she cannot."""
    world, year_ms = ada.world, 365 * 24 * 3600 * 1000
    ahead = int(world.clock() * 1000) + year_ms
    await send_raw(ada, "bob", contents.text("I owe you ten"), id=b"promise".ljust(16), time_ms=ahead)
    assert [shown.text for shown in await bob.hear()] == ["I owe you ten"]
    world.now += days * 24 * 3600
    change = contents.edit(b"promise".ljust(16), "I owe you one")
    await send_raw(ada, "bob", change, time_ms=ahead + 3600_000)
    await bob.hear()
    (kept,) = await talk(bob, "ada")
    assert (kept.text, kept.edited) == (("I owe you one", True) if counts else ("I owe you ten", False))
