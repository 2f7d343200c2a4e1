"""What people do besides writing texts: answer, edit, delete, react, set timers and names, type."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from chatchain.client import reading
from chatchain.client.views import Sent, Shown
from chatchain.crypto import content as contents
from chatchain.crypto.attachments import FileRef
from chatchain.crypto.groups import Distribution, GroupEpoch
from chatchain.errors import (
    AlreadyDone,
    AmbiguousName,
    BadText,
    ChainUnreachable,
    LimitReached,
    RefusedError,
    RelayUnreachable,
    TooLarge,
    UnknownMessage,
    UsageError,
)
from chatchain.model import Arrival, Delivery, Outgoing
from tests.world import World

DAY_S = 24 * 3600


async def one(stream: AsyncIterator[Sent]) -> Sent:
    """What became of the one thing that was sent."""
    (sent,) = [sent async for sent in stream]
    return sent


async def talk(world: World, who: str, peer: str, *, home: str | None = None) -> list[Shown]:
    """What somebody's home shows of a conversation."""
    async with world.client(who, home=home) as client:
        return await client.history(peer)


async def hear(world: World, who: str, *, home: str | None = None) -> list[Shown]:
    async with world.client(who, home=home) as client:
        return [shown async for shown in client.receive()]


async def said(world: World, text: str = "hello") -> str:
    """Ada says something that bob has read; gives its id."""
    (sent,) = await world.say("ada", "bob", text)
    await world.hear("bob")
    return sent.id


# --- answers --------------------------------------------------------------------------------------------


async def test_an_answer_quotes_from_the_own_database(world: World) -> None:
    """Both sides see what is answered, from what they hold themselves."""
    target = await said(world, "the  first\nmessage")
    async with world.client("bob") as bob:
        sent = await one(bob.reply(target, "the second"))
    assert (sent.to, sent.state, sent.id == target) == ("ada", "sent", False)
    (shown,) = await world.hear("ada")
    assert (shown.kind, shown.text, shown.reply_to) == ("text", "the second", target)
    assert shown.quote is not None
    assert (shown.quote.from_, shown.quote.text) == ("ada", "the first message")
    kept = (await talk(world, "bob", "ada"))[-1]
    assert (kept.id, kept.reply_to, kept.quote) == (sent.id, target, shown.quote)


async def test_an_answer_to_what_is_not_here_shows_without_quotation(world: World) -> None:
    """An answer may come to a device that never had the message: it shows, and quotes nothing."""
    await send_raw(world, "ada", "bob", contents.reply(world.chain.user("bob").uid, b"z" * 16, "as you said"))
    shown = (await world.hear("bob"))[-1]
    assert (shown.text, shown.reply_to, shown.quote) == ("as you said", (b"z" * 16).hex(), None)


async def send_raw(world: World, who: str, to: str, content: contents.Content) -> None:
    """Sends whatever content a client of somebody else's making might."""
    async with world.client(who) as client:
        desk = await client._station.desk()
        peer = await desk.people.find(to)
        store = desk.unlocked.store
        now_ms = int(world.clock() * 1000)
        encoded = contents.encode(content)
        store.queue([], [Outgoing(random.randbytes(16), peer.uid, "text", encoded, now_ms)])
        await client.login()


# --- edits ----------------------------------------------------------------------------------------------


async def test_an_edit_replaces_the_text_on_both_sides(world: World) -> None:
    """The other side is told once, and history shows the last text and that it was edited."""
    target = await said(world, "helo")
    async with world.client("ada") as ada:
        sent = await one(ada.edit(target[:8], "hello"))
        assert (sent.id, sent.state, sent.change != target) == (target, "sent", True)
    (told,) = await world.hear("bob")
    assert (told.kind, told.target, told.text, told.id) == ("edit", target, "hello", sent.change)
    assert await world.hear("bob") == []
    for who, peer in (("ada", "bob"), ("bob", "ada")):
        (kept,) = await talk(world, who, peer)
        assert (kept.id, kept.text, kept.edited) == (target, "hello", True)


async def test_an_edit_that_changes_nothing_is_none(world: World) -> None:
    """Nobody is told, and it is not one of the ten."""
    target = await said(world, "hello")
    async with world.client("ada") as ada:
        with pytest.raises(AlreadyDone, match="already"):
            await one(ada.edit(target, "hello"))
        with pytest.raises(BadText, match="blanks"):
            await one(ada.edit(target, "  "))
    assert await world.hear("bob") == []
    (kept,) = await talk(world, "ada", "bob")
    assert not kept.edited


async def test_only_the_author_edits_and_deletes(world: World) -> None:
    """Bob is refused before anything leaves; one that leaves all the same becomes a notice at ada's."""
    target = await said(world, "mine")
    async with world.client("bob") as bob:
        for act in (bob.edit(target, "ours"), bob.delete(target)):
            with pytest.raises(RefusedError, match="Only whoever wrote"):
                await one(act)
    for content in (contents.edit(bytes.fromhex(target), "his"), contents.delete(bytes.fromhex(target))):
        await send_raw(world, "bob", "ada", content)
        (told,) = await world.hear("ada")
        assert (told.kind, told.code, told.text) == ("notice", "not_the_author", None)
    kept = (await talk(world, "ada", "bob"))[0]
    assert (kept.text, kept.edited, kept.deleted) == ("mine", False, False)


async def test_edits_have_a_window_and_a_number(world: World) -> None:
    """Ten edits within a day, not one more; afterwards only deleting is left, and after two days nothing."""
    target = await said(world)
    async with world.client("ada") as ada:
        for number in range(10):
            await one(ada.edit(target, f"hello {number}"))
        with pytest.raises(LimitReached, match="10 times"):
            await one(ada.edit(target, "hello again"))
        (again,) = [sent async for sent in ada.send("bob", "another")]
        world.now += DAY_S + 60
        with pytest.raises(RefusedError, match="24 hours"):
            await one(ada.edit(again.id, "too late"))
        world.now += DAY_S
        with pytest.raises(RefusedError, match="48 hours"):
            await one(ada.delete(again.id))
    await world.hear("bob")
    assert [kept.text for kept in await talk(world, "bob", "ada")] == ["hello 9", "another"]


async def test_a_clock_set_back_does_not_lose_an_edit(world: World) -> None:
    """An edit comes after what it edits, whatever the clock says."""
    target = await said(world)
    world.now -= 3600
    async with world.client("ada") as ada:
        await one(ada.edit(target, "first"))
        await one(ada.edit(target, "second"))
    await world.hear("bob")
    assert [(kept.text, kept.edited) for kept in await talk(world, "bob", "ada")] == [("second", True)]


# --- deletions ------------------------------------------------------------------------------------------


async def test_a_deletion_leaves_a_tombstone(world: World) -> None:
    """Text, reactions and search go on both sides; that there was a message stays."""
    target = await said(world, "regrettable")
    async with world.client("bob") as bob:
        await one(bob.react(target, "👍"))
    await world.hear("ada")
    async with world.client("ada") as ada:
        assert (await one(ada.delete(target))).id == target
        with pytest.raises(RefusedError, match="was deleted"):
            await one(ada.edit(target, "better"))
    (told,) = await world.hear("bob")
    assert (told.kind, told.target, told.text) == ("delete", target, None)
    for who, peer in (("ada", "bob"), ("bob", "ada")):
        (kept,) = await talk(world, who, peer)
        assert (kept.id, kept.text, kept.deleted, kept.reactions) == (target, None, True, ())
        async with world.client(who) as client:
            assert await client.search("regrettable") == []
            for act in (client.react(target, "👍"), client.reply(target, "what was it?")):
                with pytest.raises(RefusedError, match="was deleted"):
                    await one(act)


async def test_an_answer_to_a_deleted_message_says_so(world: World) -> None:
    """The quotation goes with the message."""
    target = await said(world, "regrettable")
    async with world.client("bob") as bob:
        await one(bob.reply(target, "indeed"))
    async with world.client("ada") as ada:
        await one(ada.delete(target))
    await world.hear("bob")
    quote = (await talk(world, "bob", "ada"))[-1].quote
    assert quote is not None
    assert (quote.text, quote.deleted) == ("", True)


# --- reactions ------------------------------------------------------------------------------------------


async def test_a_reaction_that_changes_nothing_is_told_to_nobody(world: World) -> None:
    """Taking away what is not there, and the same emoji again, are refused before anything leaves."""
    target = await said(world)
    async with world.client("bob") as bob:
        with pytest.raises(AlreadyDone, match="no reaction of yours"):
            await one(bob.react(target, ""))
        await one(bob.react(target, "👍"))
        with pytest.raises(AlreadyDone, match="already"):
            await one(bob.react(target, "👍"))
        await one(bob.react(target, ""))
        with pytest.raises(AlreadyDone, match="no reaction of yours"):
            await one(bob.react(target, ""))
    assert [(shown.kind, shown.emoji) for shown in await world.hear("ada")] == [
        ("reaction", "👍"),
        ("reaction", ""),
    ]


async def test_a_reaction_is_one_a_person(world: World) -> None:
    """The last one stands, an empty one takes it away, and each side may have one."""
    target = await said(world)
    async with world.client("bob") as bob, world.client("ada") as ada:
        for emoji in ("👍", "🎉"):
            await one(bob.react(target, emoji))
        await one(ada.react(target, "❤️"))
        told = [shown async for shown in ada.receive()]
        assert [(shown.kind, shown.emoji, shown.target) for shown in told] == [
            ("reaction", "👍", target),
            ("reaction", "🎉", target),
        ][-len(told) :]
        (kept,) = await ada.history("bob")
        assert [(by.from_, by.emoji) for by in kept.reactions] == [("bob", "🎉"), ("ada", "❤️")]
        await one(bob.react(target, ""))
        told = [shown async for shown in ada.receive()]
        assert [(shown.kind, shown.emoji) for shown in told] == [("reaction", "")]
        assert [(by.from_, by.emoji) for by in (await ada.history("bob"))[0].reactions] == [("ada", "❤️")]
        with pytest.raises(BadText, match="one emoji"):
            await one(bob.react(target, "nice"))


# --- which message --------------------------------------------------------------------------------------


async def test_a_message_is_named_by_the_beginning_of_its_id(world: World) -> None:
    """Four digits or more, of only one message; what is not there or no id is told apart."""
    ids = [sent.id for sent in await world.say("ada", "bob", *"abcdefgh")]
    async with world.client("ada") as ada:
        store = await ada._station.store()
        twin = msgspec.structs.replace(store.messages(bytes(16), b"\xff" * 16)[0], row=0)
        other = bytes.fromhex(ids[0][:8]) + bytes(12)
        store.queue([msgspec.structs.replace(twin, id=other)], [])
        with pytest.raises(AmbiguousName, match=other.hex()):
            await one(ada.react(ids[0][:8], "👍"))
        assert (await one(ada.react(ids[0].upper(), "🎉"))).id == ids[0]
        unknown = "0000" if all(not known.startswith("0000") for known in ids) else "ffff"
        with pytest.raises(UnknownMessage):
            await one(ada.react(unknown, "👍"))
        for malformed in ("abc", "xyz1", "", ids[0] + "0"):
            with pytest.raises(UsageError):
                await one(ada.react(malformed, "👍"))


async def test_a_notice_is_no_message(world: World) -> None:
    """It is this program's own; nobody can answer it."""
    await said(world)
    async with world.client("ada") as ada:
        await ada.chat_settings("bob", off_the_record=True)
        notice = (await ada.history("bob"))[-1]
        with pytest.raises(RefusedError, match="notice"):
            await one(ada.react(notice.id, "👍"))


# --- what is in the way ---------------------------------------------------------------------------------


async def test_without_a_relay_a_deed_is_queued(world: World) -> None:
    """It counts here at once, and leaves with the next command that connects."""
    target = await said(world, "helo")
    world.relay.up = False
    async with world.client("ada") as ada:
        seen: list[Sent] = []
        with pytest.raises(RelayUnreachable):
            await world.drain(ada.edit(target, "hello", wait_s=0.1), seen)
        assert [(sent.id, sent.state, sent.error and sent.error.code) for sent in seen] == [
            (target, "queued", "relay_unreachable")
        ]
        assert (await ada.history("bob"))[0].text == "hello"
        assert (await ada.status()).queued == 1
    world.relay.up = True
    async with world.client("ada") as ada:
        await ada.login()
    await world.hear("bob")
    assert [kept.text for kept in await talk(world, "bob", "ada")] == ["hello"]


async def test_without_the_chain_a_deed_is_kept(world: World) -> None:
    """As a text is: unsealed, for somebody whom this home knows."""
    target = await said(world)
    world.chain.up = False
    async with world.client("ada") as ada:
        with pytest.raises(ChainUnreachable, match="answers"):
            await one(ada.react(target, "👍"))
    world.chain.up = True
    async with world.client("ada") as ada:
        await ada.login()
    (told,) = await world.hear("bob")
    assert (told.kind, told.emoji) == ("reaction", "👍")


# --- timers ---------------------------------------------------------------------------------------------


async def test_messages_disappear_on_both_sides(world: World) -> None:
    """From sending at the sender's, from reading at the recipient's; also while nothing runs."""
    async with world.client("ada") as ada:
        view = await ada.chat_settings("bob", expires=3600)
        assert (view.username, view.expires, view.state) == ("bob", 3600, "sent")
        (sent,) = [sent async for sent in ada.send("bob", "soon gone")]
        (notice, mine) = await ada.history("bob")
        assert (notice.code, notice.notice) == (
            "timer_changed",
            "You set messages to disappear 1 hour after they were read.",
        )
        assert (mine.expires_after, mine.expires is not None) == (3600, True)
    world.now += 3601
    assert [kept.id for kept in await talk(world, "ada", "bob")] == [notice.id]
    notice_there, theirs = await world.hear("bob")
    assert notice_there.notice == "ada set messages to disappear 1 hour after they were read."
    assert (theirs.id, theirs.text) == (sent.id, "soon gone")
    assert (theirs.expires_after, theirs.expires) == (3600, None)
    world.now += 3500
    assert [kept.id for kept in await talk(world, "bob", "ada")] == [notice.id, sent.id]
    world.now += 200
    assert [kept.id for kept in await talk(world, "bob", "ada")] == [notice.id]
    async with world.client("bob") as bob:
        assert (await bob.chat_settings("ada")).expires == 3600
        with pytest.raises(UnknownMessage):
            await one(bob.react(sent.id, "👍"))


async def test_what_waits_to_be_sent_does_not_disappear(world: World) -> None:
    """A message that has not left yet stays until it has."""
    async with world.client("ada") as ada:
        await ada.chat_settings("bob", expires=60)
    world.relay.up = False
    async with world.client("ada") as ada:
        with pytest.raises(RelayUnreachable):
            await world.drain(ada.send("bob", "patience", wait_s=0.05), [])
    world.now += 100
    assert [kept.text for kept in await talk(world, "ada", "bob")][1:] == ["patience"]
    world.relay.up = True
    async with world.client("ada") as ada:
        await ada.login()
    assert [kept.text for kept in await talk(world, "ada", "bob")][1:] == []
    assert [shown.text for shown in await world.hear("bob")][1:] == ["patience"]


async def test_a_file_disappears_with_its_message(world: World, tmp_path: Path) -> None:
    """What was stored of it goes too, without a connection."""
    (tmp_path / "notes.txt").write_text("soon gone")
    async with world.client("ada") as ada:
        await ada.chat_settings("bob", expires=60)
        await one(ada.send_file("bob", tmp_path / "notes.txt"))
    attachment = (await world.hear("bob"))[-1].attachment
    assert attachment is not None
    assert attachment.path is not None
    assert stored(attachment.path)
    world.relay.up = False
    world.now += 61
    assert [kept.kind for kept in await talk(world, "bob", "ada")] == ["notice"]
    assert not stored(attachment.path)


def stored(path: str) -> bool:
    return Path(path).exists()


async def test_disappearing_while_somebody_looks_on(world: World) -> None:
    """A client that runs deletes what is over without being asked."""
    async with world.client("ada") as ada:
        await ada.chat_settings("bob", expires=1)
        [sent async for sent in ada.send("bob", "blink")]
        store = await ada._station.store()
        following = asyncio.create_task(world.drain(ada.receive(follow=True), []))
        world.now += 2
        await world.until(lambda: store.next_expiry() is None)
        following.cancel()
    assert [kept.kind for kept in await talk(world, "ada", "bob")] == ["notice"]


async def test_the_last_setting_counts_whoever_made_it(world: World) -> None:
    """Both may set it; who is told nothing has changed nothing."""
    await said(world)
    async with world.client("ada") as ada, world.client("bob") as bob:
        await ada.chat_settings("bob", expires=60)
        await bob.chat_settings("ada", expires=7 * DAY_S)
        assert [shown.notice async for shown in ada.receive()] == [
            "bob set messages to disappear 1 week after they were read."
        ]
        assert [shown async for shown in bob.receive()] == []
        assert (await ada.chat_settings("bob")).expires == 604_800
        assert (await bob.chat_settings("ada")).expires == 604_800
        assert (await ada.chat_settings("bob", expires=604_800)).state is None
        assert (await ada.chat_settings("bob", expires=0)).state == "sent"
        assert [shown.notice async for shown in bob.receive()] == [
            "ada turned disappearing messages off; new ones stay."
        ]
        with pytest.raises(TooLarge):
            await ada.chat_settings("bob", expires=400 * DAY_S)


async def test_off_the_record_is_seen_by_both(world: World) -> None:
    """A switch that both see, and that either may turn back."""
    await said(world)
    async with world.client("ada") as ada, world.client("bob") as bob:
        assert (await ada.chat_settings("bob", off_the_record=True)).off_the_record
        (told,) = [shown async for shown in bob.receive()]
        assert (told.code, told.notice) == (
            "off_the_record_changed",
            (
                "ada took this conversation off the record: what you both write from now on is not meant "
                "to be kept as proof."
            ),
        )
        assert (await bob.chat_settings("ada")).off_the_record
        await bob.chat_settings("ada", off_the_record=False)
        assert [shown.notice async for shown in ada.receive()] == [
            (
                "bob put this conversation on the record again: what you both write from now on may be "
                "kept as proof."
            )
        ]
        assert not (await ada.chat_settings("bob")).off_the_record


# --- names ----------------------------------------------------------------------------------------------


async def test_a_display_name_stands_beside_the_username(world: World) -> None:
    """Contacts learn it at once, others with the first message; it never takes the username's place."""
    await said(world)
    async with world.client("ada") as ada:
        view = await ada.profile("  Ada   Lovelace ")
        assert (view.username, view.name, view.told) == ("ada", "Ada Lovelace", 1)
    (told,) = await world.hear("bob")
    assert (told.code, told.notice) == ("profile_changed", "ada is now also called “Ada Lovelace”.")
    await world.say("ada", "bob", "it is me")
    (shown,) = await world.hear("bob")
    assert (shown.from_, shown.name, shown.text) == ("ada", "Ada Lovelace", "it is me")
    await world.register("carol")
    await world.say("ada", "carol", "hello carol")
    assert [(one.from_, one.name, one.text) for one in await world.hear("carol")] == [
        ("ada", "Ada Lovelace", None),
        ("ada", "Ada Lovelace", "hello carol"),
    ]
    async with world.client("bob") as bob:
        assert [(one.username, one.name) for one in await bob.contacts()] == [("ada", "Ada Lovelace")]
    async with world.client("ada") as ada:
        assert (await ada.profile()).name == "Ada Lovelace"
        assert (await ada.profile("Ada Lovelace")).told == 0
        assert (await ada.profile("")).told == 2
        with pytest.raises(BadText):
            await ada.profile("bob\u202e")
    assert [one.notice for one in await world.hear("bob")] == ["ada goes by no other name any more."]


# --- typing ---------------------------------------------------------------------------------------------


async def test_typing_is_shown_and_never_kept(world: World) -> None:
    """Who follows sees it; nobody's database has it, and who comes later hears nothing of it."""
    await said(world)
    await hear(world, "ada")
    async with world.client("ada") as ada, world.client("bob") as bob:
        following = bob.receive(follow=True, typing=True)
        assert not await ada.typing("bob", started=True)  # no session yet: nothing is sent, nobody waits
        await ada.login()
        seen = asyncio.ensure_future(anext(following))
        await world.until(lambda: bob._station.session is not None and bob._station.session.alive)
        await ada.typing("bob", started=True)
        shown = await seen
        assert (shown.kind, shown.from_, shown.state, shown.text) == ("typing", "ada", "started", None)
        assert (await ada.status()).queued == 0
        await ada.typing("bob", started=False)
        assert (await anext(following)).state == "stopped"
        assert [kept.kind for kept in await bob.history("ada")] == ["text"]
    assert len(world.relay.signals) == 2
    assert not {sign.id for sign in world.relay.signals} & {id_ for _, _, id_ in world.relay.stored}
    async with world.client("ada") as ada:
        await ada.login()
        await ada.typing("bob", started=True)
    assert len(world.relay.signals) == 3
    async with world.client("bob") as bob:
        assert [one async for one in bob.receive(typing=True)] == []


async def test_typing_does_not_show_where_it_was_not_asked_for(world: World) -> None:
    """`receive` prints messages."""
    await said(world)
    await hear(world, "ada")
    async with world.client("ada") as ada, world.client("bob") as bob:
        await ada.login()
        heard: list[Shown] = []
        hearing = asyncio.create_task(world.drain(bob.receive(wait_s=0.3), heard))
        await world.until(lambda: bob._station.session is not None and bob._station.session.alive)
        await ada.typing("bob", started=True)
        await hearing
    assert len(world.relay.signals) == 1
    assert heard == []


# --- kinds that are yet to come -------------------------------------------------------------------------


async def test_a_group_key_is_a_notice_for_now(world: World) -> None:
    """It is read and bounded; what it is for, a later version knows."""
    key = Distribution(GroupEpoch(bytes(32), 1, bytes(32)), 1, 0, 0, b"k" * 32, b"p" * 32)
    await send_raw(world, "ada", "bob", contents.group_control(1, key.encode()))
    (told,) = await world.hear("bob")
    assert (told.kind, told.code, told.text) == ("notice", "group_control", None)
    assert "ada sent what a group chat needs" in (told.notice or "")
    assert "nothing to do" in (told.notice or "")
    ada, bob = world.chain.user("ada"), world.chain.user("bob")
    content = contents.group_control(9, b"a later program's")
    sent = Delivery(1, b"i" * 16, 2, ada.uid, 2, bob.uid, 1, b"", b"")
    own = reading.arrival(sent, ada, ada.uid, content, 1, 1)
    assert own == Arrival(ada.uid, b"i" * 16)  # of one's own doing on another device one is not told


async def test_a_file_shows_what_it_is(world: World) -> None:
    """Name, size and digest stand in the message, and it can be answered."""
    ref = FileRef(b"k" * 32, 5, b"h" * 32)
    content = contents.file(ref, b"b" * 32, "notes.txt", "text/plain", caption="as promised")
    await send_raw(world, "ada", "bob", content)
    (shown,) = await world.hear("bob")
    assert (shown.kind, shown.text) == ("file", "as promised")
    assert shown.attachment is not None
    assert (shown.attachment.name, shown.attachment.size, shown.attachment.path) == ("notes.txt", 5, None)
    async with world.client("bob") as bob:
        await one(bob.reply(shown.id, "thank you"))
        assert await bob.search("promised") != []
        for words in ("notes.txt", "OTES prom", "xt", "as ot"):
            assert [found.id for found in await bob.search(words)] == [shown.id], words
        assert await bob.search("notes thank") == []
    await send_raw(world, "ada", "bob", contents.delete(bytes.fromhex(shown.id)))
    assert [told.kind for told in await world.hear("bob")] == ["delete"]
    async with world.client("bob") as bob:
        assert await bob.search("notes.txt") == []


# --- five devices ---------------------------------------------------------------------------------------

HOMES = (("ada", "ada"), ("ada", "ada-2"), ("ada", "ada-3"), ("bob", "bob"), ("bob", "bob-2"))


async def five(world: World) -> None:
    """Ada with three devices and bob with two, each of which has published its keys."""
    phrases: list[str] = []
    for name, home in HOMES:
        async with world.client(name, home=home) as client:
            if name == home:
                await client.register(name, on_phrase=phrases.append)
            else:
                await client.register(name, mnemonic=phrases[-1])
    for name, home in HOMES:
        async with world.client(name, home=home) as client:
            await client.login()


def other(name: str) -> str:
    return "bob" if name == "ada" else "ada"


def shuffled(world: World, chance: random.Random) -> None:
    """Puts everything that waits at the relay into another order."""
    keys = sorted(world.relay.rows)
    entries = [world.relay.rows[key] for key in keys]
    chance.shuffle(entries)
    world.relay.rows = {
        key: (to, Delivery(key, *msgspec.structs.astuple(delivery)[1:]))
        for key, (to, delivery) in zip(keys, entries, strict=True)
    }
    world.relay.reopen()


Seen = tuple[str, str | None, bool, bool, str | None, tuple[tuple[str, str], ...]]


async def ends(world: World, name: str, home: str) -> tuple[dict[str, Seen], int, bool, str]:
    """Everything that a home shows of the conversation, in an order of no meaning."""
    async with world.client(name, home=home) as client:
        [shown async for shown in client.receive()]
        kept = await client.history(other(name), limit=200)
        view = await client.chat_settings(other(name))
        mine = await client.profile()
    names = {name: mine.name, other(name): view.name}
    return (
        {
            shown.id: (
                shown.from_,
                shown.text,
                shown.edited,
                shown.deleted,
                shown.reply_to,
                tuple(sorted((by.from_, by.emoji) for by in shown.reactions)),
            )
            for shown in kept
            if shown.kind == "text"
        },
        view.expires,
        view.off_the_record,
        names["ada"],
    )


@pytest.mark.parametrize("seed", range(3))
async def test_five_devices_converge_in_any_order(empty: World, seed: int) -> None:
    """Everybody edits, deletes, reacts and sets at once; in whatever order it comes, all five agree."""
    chance = random.Random(seed)
    await five(empty)
    ids: dict[str, list[str]] = {"ada": [], "bob": []}
    for name, home in HOMES:
        async with empty.client(name, home=home) as client:
            texts = [f"{home} {number}" for number in range(2)]
            ids[name] += [sent.id async for sent in client.send(other(name), texts)]
    for name, home in HOMES:
        await hear(empty, name, home=home)
    for name, home in HOMES:
        empty.now += chance.randint(-3, 3)  # their clocks differ
        async with empty.client(name, home=home) as client:
            mine, all_ids = ids[name], ids["ada"] + ids["bob"]
            for number in range(3):
                await one(client.edit(chance.choice(mine[1:]), f"{home} edit {number}"))
                with suppress(AlreadyDone):
                    await one(client.react(chance.choice(all_ids[1:]), chance.choice(["👍", "🎉", ""])))
            await one(client.reply(chance.choice(all_ids[1:]), f"{home} answers"))
            await client.chat_settings(other(name), expires=chance.choice([0, DAY_S, 2 * DAY_S]))
            await client.chat_settings(other(name), off_the_record=chance.random() < 0.5)
            if name == "ada":
                await client.profile(f"Ada {home}")
            if home in ("ada", "bob"):
                await one(client.delete(mine[0]))
    shuffled(empty, chance)
    found = [await ends(empty, name, home) for name, home in HOMES]
    assert len(found[0][0]) == 15
    assert found == found[:1] * 5


async def test_own_devices_see_what_was_done_on_another(empty: World) -> None:
    """An edit made on the phone shows on the laptop, which is told of nothing and owes nobody a receipt."""
    await five(empty)
    (sent,) = await empty.say("ada", "bob", "helo")
    async with empty.client("ada", home="ada-2") as phone:
        assert [shown async for shown in phone.receive()] == []
        await one(phone.edit(sent.id, "hello"))
        await one(phone.react(sent.id, "👍"))
    assert await hear(empty, "ada") == []
    (kept,) = await talk(empty, "ada", "bob")
    assert (kept.text, kept.edited, [by.emoji for by in kept.reactions]) == ("hello", True, ["👍"])


async def test_a_crash_before_showing_shows_a_deed_again(world: World) -> None:
    """A deed that was stored and not shown is shown by the next run, once."""
    target = await said(world)
    async with world.client("ada") as ada:
        await one(ada.edit(target, "hello again"))
    bob = world.client("bob")
    following = bob.receive()
    assert (await anext(following)).kind == "edit"
    await world.kill(bob)
    (told,) = await world.hear("bob")
    assert (told.kind, told.text) == ("edit", "hello again")
    assert await world.hear("bob") == []
