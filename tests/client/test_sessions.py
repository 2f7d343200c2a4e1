"""Sessions of suite 2 between homes: begun, answered, crossed, lost, ended; nothing lost, nothing twice."""

from __future__ import annotations

import os
import shutil
from typing import Final

import pytest
from msgspec.structs import replace

from chatchain.client.sealing import NoKeys, Plan
from chatchain.client.session import Session
from chatchain.client.sessions import AFRESH_MS, KEEP_MS, MAX_SESSIONS, UNANSWERED_MS
from chatchain.crypto import prekeys
from chatchain.crypto.prekeys import PrekeyBundle
from chatchain.crypto.session import ORDINARY, decode_session
from chatchain.errors import (
    ChatchainError,
    LimitReached,
    NetworkError,
    NoTick,
    RefusedError,
    RelayUnreachable,
)
from chatchain.model import SessionChanges, Suite, Uid
from chatchain.wire.messages import Prekeys, Refused, Withheld
from tests.client.families import Home, another, deliver, delivered, family, initial, store_of
from tests.world import World

DAY: Final = 24 * 3600


@pytest.fixture
def ada(world: World) -> Home:
    """Ada's one home."""
    return Home(world, "ada", "ada")


@pytest.fixture
def bob(world: World) -> Home:
    """Bob's one home."""
    return Home(world, "bob", "bob")


# --- begun and answered ---------------------------------------------------------------------------------


async def test_a_session_begins_and_is_answered(world: World, ada: Home, bob: Home) -> None:
    """The first messages carry the handshake; once there was an answer, a receipt is enough, they do not."""
    await ada.send("bob", "one", "two")
    assert {submit.envelope.suite for submit in world.relay.submitted} == {Suite.RATCHET}
    assert initial(world) == [True, True]
    assert await bob.texts() == ["one", "two"]
    await ada.hear()
    await ada.send("bob", "three")
    assert world.relay.submitted[-1].envelope.copies[0].header[0] == ORDINARY
    assert await bob.texts() == ["three"]
    async with ada.client() as client:
        assert [one.state for one in await client.history("bob")] == ["delivered", "delivered", "sent"]
    assert len(await ada.kept("bob")) == len(await bob.kept("ada")) == 1


async def test_a_long_conversation_goes_through_kem_steps(world: World, ada: Home, bob: Home) -> None:
    """A hundred and twenty messages in turn, with their receipts, mix new KEM secrets in."""
    async with ada.client() as one, bob.client() as other:
        for number in range(60):
            assert [sent.state async for sent in one.send("bob", f"ping {number}")] == ["sent"]
            assert [shown.text async for shown in other.receive(wait_s=5, count=1)] == [f"ping {number}"]
            assert [sent.state async for sent in other.send("ada", f"pong {number}")] == ["sent"]
            assert [shown.text async for shown in one.receive(wait_s=5, count=1)] == [f"pong {number}"]
    (kept,) = await ada.kept("bob")
    assert decode_session(kept.state).ratchet.epoch >= 2


async def test_both_begin_at_once(world: World, ada: Home, bob: Home) -> None:
    """Both sessions are kept, everything arrives, and it goes on whichever of them."""
    await ada.send("bob", "from ada")
    await bob.send("ada", "from bob")
    assert initial(world) == [True, True]
    assert await ada.texts() == ["from bob"]
    assert await bob.texts() == ["from ada"]
    assert {one.id for one in await ada.kept("bob")} == {one.id for one in await bob.kept("ada")}
    for number in range(3):
        await ada.send("bob", f"ada {number}")
        await bob.send("ada", f"bob {number}")
        assert await ada.texts() == [f"bob {number}"]
        assert await bob.texts() == [f"ada {number}"]
    assert len(await ada.kept("bob")) == 2


async def test_what_is_sent_goes_out_on_the_session_that_was_heard_last(
    world: World, ada: Home, bob: Home
) -> None:
    """Two sessions crossed; ada then heard bob on his, so hers rests."""
    await ada.send("bob", "from ada")
    await bob.send("ada", "from bob")
    theirs = (await bob.kept("ada"))[0].id
    assert await ada.texts() == ["from bob"]
    before = {one.id: one.state for one in await ada.kept("bob")}
    await ada.send("bob", "answer")
    changed = {one.id for one in await ada.kept("bob") if one.state != before[one.id]}
    assert changed == {theirs}


async def test_reordered_and_repeated(world: World, ada: Home, bob: Home) -> None:
    """The relay delivers backwards and everything twice: each is shown once."""
    said = [str(number) for number in range(20)]
    await ada.send("bob", *said)
    rows = list(world.relay.rows.values())
    deliver(world, [*reversed(rows), *rows])
    assert await bob.texts(0.3) == said[::-1]
    assert not [key for key, _ in world.relay.rows.values() if key[0] == world.chain.user("bob").uid]


async def test_messages_that_the_relay_loses_cost_only_themselves(world: World, ada: Home, bob: Home) -> None:
    """Every third one is dropped; the others come, also after a restart, and late ones still open."""
    await ada.send("bob", *map(str, range(30)))
    rows = list(world.relay.rows.values())
    deliver(world, [row for number, row in enumerate(rows) if number % 3])
    assert await bob.texts() == [str(number) for number in range(30) if number % 3]
    deliver(world, rows[::3])
    assert await bob.texts() == [str(number) for number in range(0, 30, 3)]


# --- several devices ------------------------------------------------------------------------------------


async def test_five_devices_hear_everything(empty: World) -> None:
    """Two of ada's, three of bob's: every message reaches every other device, whoever writes."""
    adas, bobs = await family(empty, "ada", 2), await family(empty, "bob", 3)
    peers = {"ada": "bob", "bob": "ada"}
    for home in (*adas, *bobs):
        await home.send(peers[home.owner], f"from {home.home}")
    for home in (*adas, *bobs, *adas, *bobs):
        await home.hear()
    everything = {f"from {home.home}" for home in (*adas, *bobs)}
    for home in (*adas, *bobs):
        async with home.client() as client:
            assert {one.text for one in await client.history(peers[home.owner])} == everything
    assert {submit.envelope.suite for submit in empty.relay.submitted} == {Suite.RATCHET}


async def test_a_device_that_comes_later_is_added_and_nothing_else_changes(empty: World) -> None:
    """The relay calls the device lists stale: the headers that were made stay, so no key is jumped over."""
    world, (ada,), (bob,) = empty, await family(empty, "ada"), await family(empty, "bob")
    await ada.send("bob", "before")
    world.relay.deaf = True
    async with ada.client() as client:
        with pytest.raises(NoTick):
            await world.drain(client.send("bob", ["one", "two"], wait_s=0.1), [])
    world.relay.deaf = False
    old = {submit.envelope.id: submit.envelope for submit in world.relay.submitted[-2:]}
    laptop = await another(bob, "laptop")
    async with ada.client() as client:
        await client.login()
    new = {
        submit.envelope.id: submit.envelope
        for submit in world.relay.submitted
        if submit.envelope.id in old and len(submit.envelope.copies) == 2
    }
    assert new.keys() == old.keys()
    for id_, before in old.items():
        assert (new[id_].body, new[id_].copies[0]) == (before.body, before.copies[0])
    assert await bob.texts() == ["before", "one", "two"]
    assert await laptop.texts() == ["one", "two"]


async def test_what_was_sealed_for_old_lists_breaks_no_session(
    empty: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More waits than a message may jump over, and then the device list changes."""
    world, (ada,), (bob,) = empty, await family(empty, "ada"), await family(empty, "bob")
    monkeypatch.setattr("chatchain.crypto.ratchet.MAX_SKIP", 5)
    await ada.send("bob", "before")
    world.relay.deaf = True
    said = [str(number) for number in range(20)]
    async with ada.client() as client:
        with pytest.raises(NoTick):
            await world.drain(client.send("bob", said, wait_s=0.1), [])
    world.relay.deaf = False
    laptop = await another(bob, "laptop")
    async with ada.client() as client:
        await client.login()
    assert await bob.texts() == ["before", *said]
    assert await laptop.texts() == said


async def test_what_is_written_offline_reaches_a_device_that_was_never_written_to(empty: World) -> None:
    """Without the relay a new device's keys cannot be had: the message waits, and then goes to both."""
    (ada,), (bob,) = await family(empty, "ada"), await family(empty, "bob")
    await ada.send("bob", "before")
    laptop = await another(bob, "laptop")
    empty.relay.up = False
    async with ada.client() as client:
        with pytest.raises(NetworkError):
            await empty.drain(client.send("bob", "offline", wait_s=0.1), [])
    empty.relay.up = True
    async with ada.client() as client:
        await client.login()
    assert await bob.texts() == ["before", "offline"]
    assert await laptop.texts() == ["offline"]


async def test_a_relay_that_gives_no_more_prekeys_keeps_nothing_from_the_other_devices(
    empty: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks too often is told to wait; where there is a session the message goes out meanwhile."""
    (ada,), (bob,) = await family(empty, "ada"), await family(empty, "bob")
    await ada.send("bob", "before")
    laptop = await another(bob, "laptop")

    async def enough(*_: object) -> tuple[list[PrekeyBundle], dict[int, ChatchainError]]:
        raise LimitReached("Too many sessions were begun with this user.")

    with monkeypatch.context() as limited:
        limited.setattr(Session, "fetch_prekeys", enough)
        await ada.send("bob", "meanwhile")
    await ada.send("bob", "after")
    assert await bob.texts() == ["before", "meanwhile", "after"]
    assert [one.code or one.text for one in await laptop.hear()] == ["not_for_this_device", "after"]


async def test_prekeys_that_were_given_out_are_not_thrown_away_for_a_later_refusal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of several requests a later one is refused: what came is used, the rest is withheld with the reason."""
    limit = LimitReached("Too many requests for keys.", retry_after_ms=1000)
    answers: list[Prekeys | LimitReached] = [Prekeys(1, bundles=(b"one",), withheld=()), limit]

    async def ask(*_: object) -> Prekeys:
        answer = answers.pop(0)
        if isinstance(answer, LimitReached):
            raise answer
        return answer

    monkeypatch.setattr("chatchain.client.session.MAX_FETCHED_DEVICES", 1)
    monkeypatch.setattr("chatchain.client.session.decode_bundle", lambda data: data)
    monkeypatch.setattr(Session, "_ask", ask)
    session = Session.__new__(Session)
    found, withheld = await session.fetch_prekeys([(1, 1), (2, 1), (3, 1)])
    assert (list[object](found), withheld) == ([b"one"], {2: limit, 3: limit})
    answers[:] = [limit]
    with pytest.raises(LimitReached):
        await session.fetch_prekeys([(1, 1), (2, 1)])


@pytest.mark.parametrize("whose", ["the reader's", "one's own"])
async def test_what_waited_goes_to_no_device_revoked_since(empty: World, whose: str) -> None:
    """Though it was sealed for it: a relay in league with its thief would hand it over without a word."""
    (ada, _), (bob, _) = await family(empty, "ada", 2), await family(empty, "bob", 2)
    await ada.send("bob", "first")
    empty.relay.deaf = True
    client = ada.client()
    with pytest.raises(NoTick):
        await empty.drain(client.send("bob", "second", wait_s=0.1), [])
    await empty.kill(client)
    empty.relay.deaf = False
    owner = bob if whose == "the reader's" else ada
    async with owner.client() as client:
        await client.revoke_device(2)
    gone = (empty.chain.user(owner.owner).uid, 2)
    before = len(empty.relay.submitted)
    async with ada.client() as client:
        await client.login()
    left = [submit.envelope for submit in empty.relay.submitted[before:]]
    assert len(left) == 1
    assert gone not in {(copy.uid, copy.device) for copy in left[0].copies}
    assert await bob.texts() == ["first", "second"]


async def test_a_revoked_device_is_forgotten_at_once(empty: World) -> None:
    """Its sessions go with the first look at the chain, and what it had sent is not shown any more."""
    (ada,), bobs = await family(empty, "ada"), await family(empty, "bob", 2)
    await ada.send("bob", "to both")
    for home in bobs:
        await home.hear()
    await ada.hear()
    assert await ada.kept("bob", 2)
    await bobs[1].send("ada", "from the thief")
    async with bobs[0].client() as client:
        await client.revoke_device(2)
    async with ada.client() as client:
        await client.login()
        store = await store_of(client)
        await empty.until(lambda: not store.sessions(empty.chain.user("bob").uid, 2))
        assert store.sessions(empty.chain.user("bob").uid, 1)
    (notice,) = await ada.hear()
    assert (notice.kind, notice.code) == ("notice", "revoked_sender")
    await ada.send("bob", "to one")
    assert len(empty.relay.submitted[-1].envelope.copies) == 1


# --- keys change ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["ada", "bob"])
async def test_new_keys_of_either_side_begin_a_new_session(
    world: World, ada: Home, bob: Home, who: str
) -> None:
    """A session stands between two key versions: after a rotation another one carries what is sent."""
    await ada.send("bob", "before")
    await bob.hear()
    await ada.hear()
    (old,) = await ada.kept("bob")
    await {"ada": ada, "bob": bob}[who].rotate()
    await ada.send("bob", "after")
    assert initial(world)[-1]
    assert await bob.texts() == ["after"]
    newest, kept = await ada.kept("bob")
    assert kept.id == old.id != newest.id
    assert (newest.own_version, newest.version) == ((2, 1) if who == "ada" else (1, 2))


async def test_what_was_on_its_way_when_keys_changed_is_read(world: World, ada: Home, bob: Home) -> None:
    """Within the grace of a rotation the old session still opens, on both sides."""
    await ada.send("bob", "begins")
    await bob.hear()
    await ada.hear()
    await ada.send("bob", "under way")
    await bob.rotate()
    await ada.rotate()
    assert await bob.texts() == ["under way"]


async def test_what_a_replaced_key_sends_later_is_refused(world: World, ada: Home, bob: Home) -> None:
    """A thief of ada's old state goes on with the session after she has replaced her keys."""
    await ada.send("bob", "begins")
    await bob.hear()
    await ada.hear()
    world.relay.refuse = lambda submit: Refused(submit.envelope.id, "refused", "not by ada", 0)
    async with ada.client() as client:
        with pytest.raises(RefusedError):
            await world.drain(client.send("bob", "by the thief"), [])
    world.relay.refuse = lambda submit: None
    stolen = world.relay.submitted[-1].envelope
    await ada.rotate()
    world.now += DAY
    world.relay.inject(world.chain.user("bob"), delivered(world, stolen))
    notices = [shown for shown in await bob.hear() if shown.kind == "notice"]
    assert [notice.code for notice in notices] == ["forged_message"]
    assert "had replaced" in (notices[0].notice or "")


async def test_what_comes_later_to_replaced_keys_is_refused(world: World, ada: Home, bob: Home) -> None:
    """A thief of bob's old state writes to him as ada: the session has the keys of either direction."""
    await ada.send("bob", "begins")
    await bob.hear()
    await ada.hear()
    world.relay.refuse = lambda submit: Refused(submit.envelope.id, "refused", "not by ada", 0)
    for moment in ("within the grace", "after it"):
        async with ada.client() as client:
            with pytest.raises(RefusedError):
                await world.drain(client.send("bob", moment), [])
    world.relay.refuse = lambda submit: None
    within, after = (submit.envelope for submit in world.relay.submitted[-2:])
    await bob.rotate()
    world.relay.inject(world.chain.user("bob"), delivered(world, within))
    assert await bob.texts() == ["within the grace"]
    world.now += DAY
    world.relay.inject(world.chain.user("bob"), delivered(world, after))
    (notice,) = [shown for shown in await bob.hear() if shown.kind == "notice"]
    assert notice.code == "undecryptable"
    assert "have been replaced" in (notice.notice or "")


async def test_a_tick_that_was_lost_before_a_rotation(world: World, ada: Home, bob: Home) -> None:
    """The relay says that it has an envelope under this id, by the old keys: it is sent, and read once."""
    await ada.send("bob", "begins")
    world.relay.mute = True
    client = ada.client()
    with pytest.raises(NoTick):
        await world.drain(client.send("bob", "hello", wait_s=0.1), [])
    await world.kill(client)
    world.relay.mute = False
    await ada.rotate()
    async with ada.client() as client:
        await client.login()
        assert [one.state for one in await client.history("bob")] == ["sent", "sent"]
    assert await bob.texts() == ["begins", "hello"]


async def test_new_keys_bring_new_prekeys(world: World, bob: Home) -> None:
    """Whoever made bob replace his keys may have had the secrets of his prekeys too."""
    uid = world.chain.user("bob").uid
    before = world.relay.prekeys[uid, 1]
    await bob.rotate()
    after = world.relay.prekeys[uid, 1]
    assert (before.version, after.version) == (1, 2)
    assert before.signed[1:5] != after.signed[1:5]
    assert not {*before.one_time} & {*after.one_time}


# --- upkeep ---------------------------------------------------------------------------------------------


async def test_prekeys_are_filled_up_when_few_are_left(world: World, bob: Home) -> None:
    """Every login asks; under twenty, of either sort, brings new ones, which the relay has never had."""
    stock = world.relay.prekeys[world.chain.user("bob").uid, 1]
    ever = {*stock.one_time}
    assert (len(stock.one_time), len(stock.kem_one_time)) == (prekeys.BATCH, prekeys.BATCH)
    del stock.one_time[prekeys.REFILL_BELOW :], stock.kem_one_time[prekeys.REFILL_BELOW - 1 :]
    await bob.hear()
    assert (len(stock.one_time), len(stock.kem_one_time)) == (prekeys.REFILL_BELOW, prekeys.BATCH)
    del stock.one_time[5:]
    await bob.hear()
    assert len(stock.one_time) == prekeys.BATCH
    assert not {*stock.one_time[5:]} & ever


async def test_the_signed_prekey_is_replaced_weekly_and_answers_for_a_time(
    world: World, ada: Home, bob: Home
) -> None:
    """What was begun with the key before is answered within the grace, and refused after it."""
    uid = world.chain.user("bob").uid
    first = world.relay.prekeys[uid, 1].signed
    await ada.send("bob", "begun with the first key")
    async with bob.client() as client:
        await client.login()
    assert world.relay.prekeys[uid, 1].signed == first
    world.now += prekeys.ROTATION
    async with bob.client() as client:
        await client.login()
    assert world.relay.prekeys[uid, 1].signed != first
    assert await bob.texts() == ["begun with the first key"]


async def test_a_session_begins_without_one_time_keys(world: World, ada: Home, bob: Home) -> None:
    """The stock is used up: signed prekey and last-resort key do."""
    stock = world.relay.prekeys[world.chain.user("bob").uid, 1]
    stock.one_time.clear()
    stock.kem_one_time.clear()
    await ada.send("bob", "hello")
    assert await bob.texts() == ["hello"]


# --- lost and old ---------------------------------------------------------------------------------------


async def test_a_lost_session_mends_itself(world: World, ada: Home, bob: Home) -> None:
    """Bob's home forgot its sessions: one notice on each side, and the next message is read again."""
    await ada.send("bob", "before")
    await bob.hear()
    await ada.hear()
    async with bob.client() as client:
        store = await store_of(client)
        kept = store.sessions(world.chain.user("ada").uid, 1)
        store.change_sessions(SessionChanges(gone=tuple((one.uid, one.device, one.id) for one in kept)))
    await ada.send("bob", "lost")
    (notice,) = await bob.hear()
    assert (notice.kind, notice.code) == ("notice", "undecryptable")
    assert "ask ada to send it again" in (notice.notice or "")
    (told,) = await ada.hear()
    assert (told.kind, told.code, told.from_) == ("notice", "unreadable_there", "bob")
    await ada.send("bob", "again")
    assert await bob.texts() == ["again"]
    assert await ada.hear() == []


async def test_a_home_put_back_from_an_old_copy_mends_itself(world: World, ada: Home, bob: Home) -> None:
    """Its session goes over keys that bob has used up: he cannot read that, says so, and begins anew."""
    await ada.send("bob", "one")
    await bob.hear()
    await ada.hear()
    copy = world.folder / "copy"
    shutil.copytree(world.home("ada"), copy)
    await ada.send("bob", "two")
    assert await bob.texts() == ["two"]
    shutil.rmtree(world.home("ada"))
    copy.rename(world.home("ada"))
    await ada.send("bob", "three")
    assert [shown.code for shown in await bob.hear()] == ["undecryptable"]
    assert "unreadable_there" in {shown.code for shown in await ada.hear()}
    await ada.send("bob", "four")
    assert (await bob.texts())[-1] == "four"
    await bob.send("ada", "five")
    assert (await ada.texts())[-1] == "five"


async def test_spoiled_messages_begin_one_session_an_hour(world: World, ada: Home, bob: Home) -> None:
    """A relay that spoils what it delivers cannot use up prekeys: bob answers once, then only takes note."""
    await ada.send("bob", "before")
    await bob.hear()
    await ada.hear()
    world.relay.tamper = lambda delivery: replace(delivery, header=b"\2" + os.urandom(200))
    begun = sum(initial(world))
    for number in range(4):
        await ada.send("bob", f"spoiled {number}")
        assert [shown.kind for shown in await bob.hear()] == ["notice"]
    assert sum(initial(world)) == begun + 1
    world.now += AFRESH_MS / 1000 + 1
    await ada.send("bob", "spoiled again")
    await bob.hear()
    assert sum(initial(world)) == begun + 2


async def test_a_session_without_answer_is_begun_anew_after_a_month(
    world: World, ada: Home, bob: Home
) -> None:
    """The prekeys that the old one names may be gone by then."""
    await ada.send("bob", "one")
    (old,) = await ada.kept("bob")
    world.now += UNANSWERED_MS / 1000
    async with bob.client() as client:
        await client.login()  # his prekeys are signed for three months; these are new
    await ada.send("bob", "two")
    newest, kept = await ada.kept("bob")
    assert newest.id != kept.id == old.id
    assert await bob.texts() == ["one", "two"]


async def test_only_a_few_sessions_are_kept(world: World, ada: Home, bob: Home) -> None:
    """However often bob begins anew, ada keeps four, the newest."""
    for number in range(MAX_SESSIONS + 2):
        async with bob.client() as client:
            store = await store_of(client)
            kept = store.sessions(world.chain.user("ada").uid, 1)
            store.change_sessions(SessionChanges(gone=tuple((one.uid, one.device, one.id) for one in kept)))
        await bob.send("ada", f"{number}")
        assert await ada.texts() == [f"{number}"]
    assert len(await ada.kept("bob")) == MAX_SESSIONS
    assert (await ada.kept("bob"))[0].id == (await bob.kept("ada"))[0].id


async def test_an_old_session_goes_in_the_end(world: World, ada: Home, bob: Home) -> None:
    """What nothing was sent or heard on for a month is deleted; the session in use stays, however quiet."""
    await ada.send("bob", "before")
    await bob.hear()
    await ada.hear()
    await bob.rotate()
    await ada.send("bob", "after")
    await bob.hear()
    await ada.hear()
    assert len(await ada.kept("bob")) == 2
    world.now += KEEP_MS / 1000
    async with ada.client() as client:
        await client.login()
        store = await store_of(client)
        await world.until(lambda: len(store.sessions(world.chain.user("bob").uid, 1)) == 1)
    (left,) = await ada.kept("bob")
    assert left.version == 2


# --- many prekeys in one request ------------------------------------------------------------------------


async def own_copies(home: Home, peer: str) -> list[str | None]:
    """What another device of one's own has of what was written to somebody."""
    await home.hear()
    async with home.client() as client:
        return [shown.text for shown in await client.history(peer)]


def devices_of(world: World, *names: str) -> set[tuple[int, int]]:
    """The active devices of these people."""
    users = [world.chain.user(name) for name in names]
    return {(user.uid, device.device) for user in users for device in user.active_devices}


async def test_the_reader_s_devices_and_one_s_own_are_asked_for_in_one_request(empty: World) -> None:
    """Nobody but the device that asks is left out, and the second message needs nothing."""
    (ada, laptop), homes = await family(empty, "ada", 2), await family(empty, "bob", 3)
    empty.relay.fetched.clear()
    await ada.send("bob", "one", "two")
    (asked,) = empty.relay.fetched
    mine = (empty.chain.user("ada").uid, 1)
    assert set(asked) == devices_of(empty, "ada", "bob") - {mine}
    for home in homes:
        assert await home.texts() == ["one", "two"]
    assert await own_copies(laptop, "bob") == ["one", "two"]


async def test_what_waits_for_many_people_asks_for_all_their_keys_at_once(empty: World) -> None:
    """Written while the relay was away; one's own other device has one session for all of it."""
    names = ["bob", "carol", "dave"]
    (ada, laptop), homes = await family(empty, "ada", 2), [(await family(empty, name))[0] for name in names]
    empty.relay.up = False
    for name in names:
        with pytest.raises(RelayUnreachable):
            await ada.send(name, f"to {name}")
    empty.relay.up = True
    empty.relay.fetched.clear()
    async with ada.client() as client:
        await client.login()
    (asked,) = empty.relay.fetched
    assert set(asked) == devices_of(empty, "ada", *names) - {(empty.chain.user("ada").uid, 1)}
    for name, home in zip(names, homes, strict=True):
        assert await home.texts() == [f"to {name}"]
    for name in names:
        assert await own_copies(laptop, name) == [f"to {name}"]
    assert len(await laptop.kept("ada")) == 1


async def test_plans_for_a_crowd_take_as_few_requests_as_its_devices_fit_into(
    empty: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a room asks before it writes to all of its members; one who has no keys keeps nobody else's."""
    names = ["bob", "carol", "dave", "erin", "frank"]
    (ada,) = await family(empty, "ada")
    for name in names[:4]:
        await family(empty, name)
    await empty.register("frank")
    empty.relay.prekeys.pop((empty.chain.user("frank").uid, 1), None)
    nobody = Uid(123_456_789_012_345)
    uids = [empty.chain.user(name).uid for name in names]
    monkeypatch.setattr("chatchain.client.session.MAX_FETCHED_DEVICES", 2)
    async with ada.client() as client:
        await client.login()
        session = client._station.session
        sealing = (await client._station.desk()).outbox._sealing
        empty.relay.fetched.clear()
        plans = await sealing.plans([*uids, nobody], session)
        assert [len(asked) for asked in empty.relay.fetched] == [2, 2, 1]
        assert all(isinstance(plans[uid], Plan) for uid in uids[:4])
        assert isinstance(plans[uids[4]], NoKeys)
        assert isinstance(plans[nobody], ChatchainError)
        empty.relay.fetched.clear()
        again = await sealing.plans(uids[:4], None)
        assert [again[uid] for uid in uids[:4]] == [plans[uid] for uid in uids[:4]]
        assert not empty.relay.fetched


async def test_a_reader_whose_keys_are_withheld_keeps_no_message_from_others(empty: World) -> None:
    """The relay says of whom it gives none and until when; that message waits, the others leave."""
    (ada,), (bob,), (carol,) = [await family(empty, name) for name in ("ada", "bob", "carol")]
    of_bob = empty.chain.user("bob").uid
    empty.relay.withhold = lambda device: (
        Withheld(*device, "limit_reached", 600_000) if device[0] == of_bob else None
    )
    with pytest.raises(LimitReached, match="The relay gives out no keys") as waits:
        await ada.send("bob", "later")
    assert waits.value.retry_after_ms == 600_000
    await ada.send("carol", "now")
    assert await carol.texts() == ["now"]
    empty.relay.withhold = lambda device: None
    async with ada.client() as client:
        await client.login()
    assert await bob.texts() == ["later"]


async def test_a_device_of_one_s_own_whose_keys_are_withheld_is_asked_for_again(empty: World) -> None:
    """After a minute, by a program that stays connected; until then messages go without it."""
    (ada, laptop), (bob,) = await family(empty, "ada", 2), await family(empty, "bob")
    own = (empty.chain.user("ada").uid, 2)
    empty.relay.withhold = lambda device: (
        Withheld(*device, "limit_reached", 60_000) if device == own else None
    )
    async with ada.client() as client:
        assert [sent.state async for sent in client.send("bob", "one")] == ["sent"]
        empty.relay.withhold = lambda device: None
        assert [sent.state async for sent in client.send("bob", "two")] == ["sent"]
        empty.now += 61
        assert [sent.state async for sent in client.send("bob", "three")] == ["sent"]
    assert await bob.texts() == ["one", "two", "three"]
    assert await own_copies(laptop, "bob") == ["three"]


async def test_mail_that_a_device_sent_before_it_was_revoked(empty: World) -> None:
    """Its reader is told once what is not shown and why, and not that anybody forged it; so is the owner's
    other device, and what was fetched in time stays.
    """
    (ada, lost), (bob,) = await family(empty, "ada", 2), await family(empty, "bob")
    await lost.send("bob", "in time")
    assert await bob.texts() == ["in time"]
    await lost.hear()
    await lost.send("bob", "too late", "this too")
    async with ada.client() as client:
        await client.revoke_device(2)
    (told,) = await bob.hear()
    assert (told.kind, told.text, told.code) == ("notice", None, "revoked_sender")
    assert "Ada's device 2 was revoked at block" in (told.notice or "")
    assert "ask ada to send it again" in (told.notice or "")
    assert not [one for one in empty.relay.rows.values() if one[0] == (empty.chain.user("bob").uid, 1)]
    assert await bob.hear() == []
    async with bob.client() as client:
        assert "in time" in [shown.text for shown in await client.history("ada")]
    codes = [shown.code for shown in await ada.hear() if shown.kind == "notice"]
    assert codes == ["revoked_sender"]
    await ada.send("bob", "it was lost")
    assert await bob.texts() == ["it was lost"]


async def test_a_flood_of_strangers_with_two_devices_leaves_look_ups_for_whom_one_writes_to(
    empty: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their receipts would cost one each; after a few these wait, until one answers or an hour has gone."""
    monkeypatch.setattr("chatchain.client.sealing.STRANGERS_ASKED", 1)
    (bob,), (carol,) = await family(empty, "bob"), await family(empty, "carol")
    strangers = [await family(empty, name, 2) for name in ("mallory", "trudy")]
    empty.relay.fetched.clear()

    def asked() -> list[set[int]]:
        found = [{uid for uid, _ in devices} for devices in empty.relay.fetched]
        empty.relay.fetched.clear()
        return found

    def sent_to(name: str) -> int:
        uid = empty.chain.user(name).uid
        return sum(one.envelope.recipient == uid for one in empty.relay.submitted)

    uids = {name: empty.chain.user(name).uid for name in ("mallory", "trudy", "carol")}
    for first, _ in strangers:
        await first.send("bob", "hello")
    asked()
    async with bob.client() as client:
        shown = [each.text async for each in client.receive(wait_s=1.0)]
        assert shown == ["hello", "hello"]
        await empty.until(lambda: sent_to("mallory") == 1)
        assert asked() == [{uids["mallory"]}]
        assert (sent_to("mallory"), sent_to("trudy")) == (1, 0)
        assert [sent.state async for sent in client.send("carol", "one")] == ["sent"]
        assert [sent.state async for sent in client.send("trudy", "two")] == ["sent"]
        assert asked() == [{uids["carol"]}, {uids["trudy"]}]
    for home in strangers[1]:
        assert "two" in await home.texts()
    assert await carol.texts() == ["one"]
    async with bob.client() as client:
        await client.login()
    assert sent_to("trudy") == 2
