"""What a relay, a stranger, a thief or an endpoint may try against sessions of suite 2: refused, told once,
and the conversation goes on.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from chatchain.client import messaging, station
from chatchain.client.sessions import MAX_SESSIONS
from chatchain.client.views import Shown
from chatchain.crypto import content as contents
from chatchain.crypto import prekeys, ratcheted, x25519
from chatchain.crypto import session as sessions
from chatchain.crypto.device import DeviceSecrets
from chatchain.crypto.pqxdh import Party
from chatchain.crypto.prekeys import decode_bundle
from chatchain.crypto.sealed import Target, seal
from chatchain.errors import FoldMismatch, KeyChanged, RefusedError, StoreUnavailable
from chatchain.identity.record import decode_record
from chatchain.model import Address, Delivery, LogRow, SessionChanges, Suite, User
from chatchain.store.bounds import Bounds
from chatchain.store.local import LocalStore
from tests.client.families import Home, deliver, family, store_of
from tests.store.pages import journal_of, pages
from tests.world import NETWORK, World

NEW_SIGNER = Address(b"\x77" * 20)


@pytest.fixture
def ada(world: World) -> Home:
    """Ada's one home."""
    return Home(world, "ada", "ada")


@pytest.fixture
def bob(world: World) -> Home:
    """Bob's one home."""
    return Home(world, "bob", "bob")


async def secrets_of(home: Home) -> DeviceSecrets:
    """What a thief takes."""
    async with home.client() as client:
        return (await client._station.desk()).own.secrets


def party(user: User, device: int = 1) -> Party:
    """A device as the chain shows it."""
    return Party(user.uid, decode_record(user.devices[device - 1].current.record))


def forge(
    world: World,
    claimed: User,
    secrets: DeviceSecrets,
    *,
    to: str = "bob",
    text: str = "send me money",
    device: int = 1,
    bound_sender: User | None = None,
    bound_recipient: User | None = None,
    time_ms: int | None = None,
) -> Delivery:
    """The first message of a session with somebody, by whatever keys, that claims to come from somebody."""
    target = world.chain.user(to)
    bundle = decode_bundle(world.relay.prekeys[target.uid, 1].draw())
    now, message_id, key = int(world.now * 1000), os.urandom(16), os.urandom(32)
    made = sessions.initiate(NETWORK, secrets, party(claimed), party(target), bundle, now // 1000)
    sender, recipient = bound_sender or claimed, bound_recipient or target
    ad = ratcheted.associated_data(NETWORK, message_id, sender.uid, device, recipient.uid)
    body = ratcheted.seal_body(key, contents.encode(contents.text(text)), now if time_ms is None else time_ms)
    _, header = sessions.encrypt(made, ratcheted.header_content(key, body), ad)
    return Delivery(1, message_id, Suite.RATCHET, claimed.uid, device, target.uid, now, header, body)


def waiting(world: World, name: str) -> list[Delivery]:
    """What the relay still holds for somebody."""
    uid = world.chain.user(name).uid
    return [delivery for (owner, _), delivery in world.relay.rows.values() if owner == uid]


async def notice(home: Home) -> Shown:
    """The one thing shown, which must be a notice; afterwards the mailbox is empty."""
    (shown,) = await home.hear(0.5)
    assert (shown.kind, shown.text) == ("notice", None)
    assert not waiting(home.world, home.owner)
    assert await home.hear() == []
    return shown


async def talk_goes_on(ada: Home, bob: Home) -> None:
    """Both write and both read."""
    await bob.send("ada", "still here?")
    assert (await ada.texts())[-1] == "still here?"
    await ada.send("bob", "still here")
    assert (await bob.texts())[-1] == "still here"


# --- who wrote ------------------------------------------------------------------------------------------


async def test_forged_sender(world: World, ada: Home, bob: Home) -> None:
    """A session begun in ada's name by another's keys opens with bob to nothing."""
    world.relay.inject(
        world.chain.user("bob"), forge(world, world.chain.user("ada"), DeviceSecrets.generate())
    )
    assert (await notice(bob)).code == "undecryptable"
    await talk_goes_on(ada, bob)


async def test_sender_that_does_not_exist(world: World, bob: Home) -> None:
    """A sender or a device that the chain does not list is forged by definition."""
    ada = world.chain.user("ada")
    delivery = forge(world, ada, DeviceSecrets.generate())
    world.relay.inject(world.chain.user("bob"), replace(delivery, sender=ada.uid + 1))
    assert (await notice(bob)).code == "forged_message"
    world.relay.inject(world.chain.user("bob"), replace(delivery, sender_device=7))
    assert (await notice(bob)).code == "forged_message"


async def test_key_version_that_the_chain_does_not_list(world: World, ada: Home, bob: Home) -> None:
    """A handshake that names a version to come."""
    real = forge(world, world.chain.user("ada"), await secrets_of(ada))
    header = real.header[:1] + (9).to_bytes(4, "big") + real.header[5:]
    world.relay.inject(world.chain.user("bob"), replace(real, header=header))
    assert (await notice(bob)).code == "forged_message"


async def test_message_moved_to_another_sender_or_id(world: World, ada: Home, bob: Home) -> None:
    """Carol's own message relabelled as ada's, and ada's own under a fresh id."""
    await world.register("carol")
    uid = world.chain.user("ada").uid
    await world.say("carol", "bob", "hi")
    world.relay.tamper = lambda delivery: replace(delivery, sender=uid)
    assert (await notice(bob)).code == "undecryptable"
    await ada.send("bob", "pay me once")
    world.relay.tamper = lambda delivery: replace(delivery, id=os.urandom(16))
    assert (await notice(bob)).code == "undecryptable"


async def test_message_for_somebody_else(world: World, ada: Home, bob: Home) -> None:
    """What ada wrote to carol does not become something that she wrote to bob."""
    await world.register("carol")
    secrets, user, carol = await secrets_of(ada), world.chain.user("ada"), world.chain.user("carol")
    delivery = forge(world, user, secrets, bound_recipient=carol)
    world.relay.inject(world.chain.user("bob"), delivery)
    assert (await notice(bob)).code == "undecryptable"
    world.relay.inject(world.chain.user("bob"), replace(delivery, recipient=carol.uid))
    assert (await notice(bob)).code == "forged_message"


async def test_unknown_key_share(world: World, ada: Home, bob: Home) -> None:
    """Carol lists ada's very keys as hers; a session of ada's is none of hers with bob all the same."""
    await world.register("carol")
    secrets = await secrets_of(ada)
    real = forge(world, world.chain.user("ada"), secrets)
    world.relay.inject(world.chain.user("bob"), replace(real, sender=world.chain.user("carol").uid))
    assert (await notice(bob)).code == "undecryptable"


async def test_reflected_message(world: World, ada: Home, bob: Home) -> None:
    """The relay sends ada's own message back to her as bob's."""
    await ada.send("bob", "I owe you")
    (row,) = waiting(world, "bob")
    world.relay.inject(
        world.chain.user("ada"), replace(row, sender=row.recipient, recipient=world.chain.user("ada").uid)
    )
    assert (await notice(ada)).code == "undecryptable"
    assert await bob.texts() == ["I owe you", None]  # ada's home told bob that something was unreadable
    await talk_goes_on(ada, bob)


@pytest.mark.parametrize("part", ["header", "body"])
@pytest.mark.parametrize("how", ["flipped", "truncated", "empty", "garbage", "swapped"])
async def test_altered_message(world: World, ada: Home, bob: Home, part: str, how: str) -> None:
    """Whatever is done to the bytes, a notice comes of it, and unaltered they are read afterwards."""
    await ada.send("bob", "hello", "other")
    rows = [row for row in world.relay.rows.values() if row[0][0] == world.chain.user("bob").uid]
    (key, real), (_, other) = rows
    data: bytes = getattr(real, part)
    changed = {
        "flipped": data[:-1] + bytes([data[-1] ^ 1]),
        "truncated": data[:-1],
        "empty": b"",
        "garbage": os.urandom(len(data)),
        "swapped": getattr(other, part),
    }[how]
    deliver(world, [(key, replace(real, **{part: changed}))])
    (shown,) = await bob.hear(0.5)
    assert shown.code in ("undecryptable", "not_for_this_device")
    deliver(world, rows)
    assert await bob.texts() == ["hello", "other"]


async def test_time_that_no_database_holds(world: World, ada: Home, bob: Home) -> None:
    """A member dates a message with the largest number there is: one notice, the mailbox stays open."""
    delivery = forge(world, world.chain.user("ada"), await secrets_of(ada), time_ms=2**64 - 1)
    world.relay.inject(world.chain.user("bob"), delivery)
    assert (await notice(bob)).code == "undecryptable"
    await talk_goes_on(ada, bob)


async def test_stolen_identity_of_a_revoked_device(world: World, ada: Home, bob: Home) -> None:
    """Who has the keys of a revoked device begins no session in its name."""
    secrets = await secrets_of(ada)
    delivery = forge(world, world.chain.user("ada"), secrets)
    world.chain.execute(world.edges.calls.revoke_device(1), world.chain.user("ada").account)
    world.relay.inject(world.chain.user("bob"), delivery)
    assert "revoked" in ((await notice(bob)).notice or "")
    assert await bob.kept("ada") == []


# --- replays --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one_time", [True, False])
async def test_replayed_initial_message(world: World, ada: Home, bob: Home, one_time: bool) -> None:
    """With or without a one-time key, under its id or another, also after restarts: nothing new is shown."""
    if not one_time:
        stock = world.relay.prekeys[world.chain.user("bob").uid, 1]
        stock.one_time.clear()
        stock.kem_one_time.clear()
    await ada.send("bob", "pay me once")
    (initial_one,) = waiting(world, "bob")
    assert await bob.texts() == ["pay me once"]
    before = {one.id: one.state for one in await bob.kept("ada")}
    for _ in range(2):
        world.relay.inject(world.chain.user("bob"), initial_one)
        assert await bob.hear() == []
    world.relay.inject(world.chain.user("bob"), replace(initial_one, id=os.urandom(16)))
    assert (await notice(bob)).code == "undecryptable"
    assert before.items() <= {one.id: one.state for one in await bob.kept("ada")}.items()


@pytest.mark.parametrize("one_time", [True, False])
async def test_replayed_initial_message_whose_session_is_gone(
    world: World, ada: Home, bob: Home, one_time: bool
) -> None:
    """Were its session deleted, only the prekeys know of it: they do not answer a second time."""
    if not one_time:
        stock = world.relay.prekeys[world.chain.user("bob").uid, 1]
        stock.one_time.clear()
        stock.kem_one_time.clear()
    await ada.send("bob", "pay me once")
    (first,) = waiting(world, "bob")
    assert await bob.texts() == ["pay me once"]
    async with bob.client() as client:
        store = await store_of(client)
        kept = store.sessions(world.chain.user("ada").uid, 1)
        store.change_sessions(SessionChanges(gone=tuple((one.uid, one.device, one.id) for one in kept)))
        for table in ("seen", "messages"):  # a replay must not need what is remembered there
            store._db.execute(f"DELETE FROM {table}")  # type: ignore[attr-defined]
    world.relay.inject(world.chain.user("bob"), first)
    assert (await notice(bob)).code == "undecryptable"
    begun = sessions.initial_handshake(first.header)
    assert begun is not None
    assert begun[0] not in {one.id for one in await bob.kept("ada")}


async def test_same_one_time_key_twice(world: World, ada: Home, bob: Home) -> None:
    """A relay hands carol the bundle that ada has had: her session is refused, and bob begins another."""
    await world.register("carol")
    carol = Home(world, "carol", "carol")
    given: list[bytes] = []

    def first_again(bundle: bytes) -> bytes:
        given.append(bundle)
        return given[0]

    world.relay.hand_out = first_again
    await ada.send("bob", "from ada")
    await carol.send("bob", "from carol")
    world.relay.hand_out = lambda bundle: bundle
    shown = await bob.hear()
    assert [(one.from_, one.text) for one in shown] == [("ada", "from ada"), ("carol", None)]
    (told,) = await carol.hear()
    assert told.code == "unreadable_there"
    await carol.send("bob", "once more")
    assert await bob.texts() == ["once more"]


# --- keys -----------------------------------------------------------------------------------------------


async def test_swapped_bundle(world: World, ada: Home, bob: Home) -> None:
    """Carol's prekeys, or the relay's own, in the place of bob's: nothing is sealed to them."""
    await world.register("carol")
    theirs = world.relay.prekeys[world.chain.user("carol").uid, 1]
    world.relay.hand_out = lambda bundle: bundle[:17] + theirs.draw()[17:]
    async with ada.client() as client:
        with pytest.raises(RefusedError, match="no keys to encrypt to"):
            await world.drain(client.send("bob", "hello", wait_s=0.3), [])
    assert world.relay.stored == {}
    world.relay.hand_out = lambda bundle: bundle
    async with ada.client() as client:
        await client.login()
    assert await bob.texts() == ["hello"]


async def test_old_bundle(world: World, ada: Home, bob: Home) -> None:
    """A bundle of keys that the chain has replaced, and one past its date, are as good as none."""
    old = world.relay.prekeys[world.chain.user("bob").uid, 1].draw()
    await bob.rotate()
    world.relay.hand_out = lambda bundle: old
    async with ada.client() as client:
        with pytest.raises(RefusedError, match="no keys to encrypt to"):
            await world.drain(client.send("bob", "hello", wait_s=0.3), [])
        world.relay.hand_out = lambda bundle: bundle
        world.now += prekeys.LIFETIME
        with pytest.raises(RefusedError, match="no keys to encrypt to"):
            await world.drain(client.send("bob", "again", wait_s=0.3), [])
    assert world.relay.stored == {}


async def test_small_order_one_time_key(world: World, ada: Home) -> None:
    """A one-time key bears no signature: a relay that puts a point of small order there is not followed."""
    world.relay.hand_out = lambda bundle: bundle[:-32] + bytes(32)
    async with ada.client() as client:
        with pytest.raises(RefusedError, match="no keys to encrypt to"):
            await world.drain(client.send("bob", "hello", wait_s=0.3), [])
    assert world.relay.stored == {}


async def test_swapped_one_time_key(world: World, ada: Home, bob: Home) -> None:
    """A one-time key of the relay's own begins a session that nobody has: told, and mended by bob."""
    world.relay.hand_out = lambda bundle: bundle[:-32] + x25519.public_of(os.urandom(32))
    await ada.send("bob", "hello")
    world.relay.hand_out = lambda bundle: bundle
    assert (await notice(bob)).code == "undecryptable"
    await talk_goes_on(ada, bob)


async def test_rolled_back_device_list(world: World, ada: Home, bob: Home) -> None:
    """An endpoint that shows fewer changes of bob's keys than before gets nothing sealed to the old ones."""
    await bob.rotate()
    await ada.send("bob", "hello")
    del world.chain.rows[-1]
    tip = world.chain.blocks.pop()
    world.chain.blocks.append(replace(tip, hash=os.urandom(32)))
    before = len(world.relay.submitted)
    with pytest.raises(FoldMismatch, match="hides"):
        await ada.send("bob", "hello again")
    assert len(world.relay.submitted) == before


async def test_hidden_revocation(world: World, ada: Home) -> None:
    """A new session is begun with nobody whose newest event an endpoint hides."""
    world.chain.execute(world.edges.calls.add_device(NEW_SIGNER, b"record"), world.chain.user("bob").account)
    newest = world.chain.rows[-1]

    def hide(row: LogRow) -> LogRow | None:
        return None if row is newest else row

    world.chain.lies = hide
    with pytest.raises(FoldMismatch):
        await ada.send("bob", "hello")
    assert world.relay.submitted == []


async def test_changed_keys_of_a_verified_contact(world: World, ada: Home, bob: Home) -> None:
    """No session is begun with keys that were not compared; the message says who changed what at which
    block.
    """
    await ada.send("bob", "before")
    async with ada.client() as client:
        await client.verify("bob")
    async with bob.client() as client:
        block = (await client.rotate_keys()).block
    sent = len(world.relay.submitted)
    with pytest.raises(KeyChanged, match=f"bob gave device 1 new keys .version 2. at block {block}"):
        await ada.send("bob", "after")
    async with ada.client() as client:
        await client.login()
    assert len(world.relay.submitted) == sent
    async with ada.client() as client:
        await client.verify("bob")
        assert [one.state async for one in client.send("bob", "accepted")] == ["sent"]
    assert await bob.texts() == ["before", "accepted"]


# --- downgrades -----------------------------------------------------------------------------------------


async def test_suite_downgrade_is_not_heard(world: World, ada: Home, bob: Home) -> None:
    """Sealed and signed by ada's own keys, yet by suite 1 although both list suite 2: not shown."""
    secrets, user, target = await secrets_of(ada), world.chain.user("ada"), world.chain.user("bob")
    message_id, now = os.urandom(16), int((world.now + 3600) * 1000)
    kem = world.relay.bundles[target.uid, 1].kem_public
    body, copies = seal(
        NETWORK,
        contents.text("the old way"),
        secrets=secrets,
        sender=user.uid,
        device=1,
        version=1,
        recipient=target.uid,
        message_id=message_id,
        time_ms=now,
        targets=[Target(target.uid, 1, kem)],
    )
    sealed = Delivery(1, message_id, Suite.SEALED, user.uid, 1, target.uid, now, copies[0].header, body)
    world.relay.inject(target, sealed)
    told = await notice(bob)
    assert told.code == "downgraded"
    assert "sealed the old way" in (told.notice or "")


async def test_suite_downgrade_is_not_spoken(world: World, ada: Home) -> None:
    """A relay that withholds bob's prekeys and offers his X-Wing key gets nothing."""
    world.relay.prekeys.clear()
    assert world.relay.bundles
    async with ada.client() as client:
        with pytest.raises(RefusedError, match="no keys to encrypt to"):
            await world.drain(client.send("bob", "hello", wait_s=0.3), [])
    assert world.relay.submitted == []


@pytest.mark.parametrize("suite", [Suite.SEALED, 3])
async def test_a_message_of_another_suite(world: World, ada: Home, bob: Home, suite: int) -> None:
    """The number of the suite is the relay's word: neither suite opens what the other sealed."""
    await ada.send("bob", "hello")
    rows = list(world.relay.rows.values())
    deliver(world, [(key, replace(row, suite=suite)) for key, row in rows])
    assert (await notice(bob)).code == "undecryptable"
    deliver(world, rows)
    assert await bob.texts() == ["hello"]


async def test_a_peer_of_suite_1_still_gets_suite_1(empty: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways, until new keys list suite 2: from then on nothing else is spoken."""
    with monkeypatch.context() as old:
        old.setattr("chatchain.crypto.device.SUITES", 1 << Suite.SEALED)
        (bob,) = await family(empty, "bob")
    (ada,) = await family(empty, "ada")
    await ada.send("bob", "one")
    assert await bob.texts() == ["one"]
    await bob.send("ada", "two")
    assert await ada.texts() == ["two"]
    assert {submit.envelope.suite for submit in empty.relay.submitted} == {Suite.SEALED}
    await bob.rotate()
    before = len(empty.relay.submitted)
    await ada.send("bob", "three")
    assert await bob.texts() == ["three"]
    await bob.send("ada", "four")
    assert await ada.texts() == ["four"]
    assert {submit.envelope.suite for submit in empty.relay.submitted[before:]} == {Suite.RATCHET}


# --- exhaustion -----------------------------------------------------------------------------------------


async def test_flood_of_sessions(world: World, ada: Home, bob: Home) -> None:
    """Whoever has ada's keys may begin sessions without end: a few are kept."""
    secrets = await secrets_of(ada)
    for number in range(MAX_SESSIONS * 3):
        world.relay.inject(
            world.chain.user("bob"), forge(world, world.chain.user("ada"), secrets, text=str(number))
        )
    assert await bob.texts(0.3) == [str(number) for number in range(MAX_SESSIONS * 3)]
    assert len(await bob.kept("ada")) == MAX_SESSIONS


async def test_flood_without_one_time_keys(
    world: World, ada: Home, bob: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever begins too many is answered no more; a newcomer is, and the mailbox stays open."""
    monkeypatch.setattr(prekeys, "MAX_BEGUN", 3)
    await world.register("carol")
    stock = world.relay.prekeys[world.chain.user("bob").uid, 1]
    stock.one_time.clear()
    stock.kem_one_time.clear()
    secrets = await secrets_of(ada)
    deliveries = [forge(world, world.chain.user("ada"), secrets, text=str(number)) for number in range(5)]
    deliver(world, [((world.chain.user("bob").uid, 1), one) for one in deliveries])
    assert await bob.texts(0.3) == ["0", "1", "2", None, None]
    assert not waiting(world, "bob")
    stock.one_time.clear()
    stock.kem_one_time.clear()
    await world.say("carol", "bob", "hello")
    assert await bob.texts() == ["hello"]


def without_one_time_keys(world: World, name: str) -> None:
    """Has the relay hand out the last-resort key."""
    stock = world.relay.prekeys[world.chain.user(name).uid, 1]
    stock.one_time.clear()
    stock.kem_one_time.clear()


async def test_replayed_initial_message_that_everything_else_has_forgotten(
    world: World, ada: Home, bob: Home
) -> None:
    """Without one-time keys, after a restart, with the home's ids, messages and sessions gone: the memory of
    handshakes alone stands against it, and it is there.
    """
    without_one_time_keys(world, "bob")
    forged = forge(world, world.chain.user("ada"), await secrets_of(ada), text="pay me")
    world.relay.inject(world.chain.user("bob"), forged)
    assert await bob.texts() == ["pay me"]
    for _ in range(2):
        async with bob.client() as client:
            store = await store_of(client)
            assert isinstance(store, LocalStore)
            for table in ("messages", "seen", "sessions"):
                store._db.execute(f"DELETE FROM {table}")
        world.relay.inject(world.chain.user("bob"), forged)
        (told,) = await bob.hear()
        assert (told.kind, told.text) == ("notice", None)


async def test_flood_of_names_without_one_time_keys(
    world: World, ada: Home, bob: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newcomer is answered at once, the prekeys stay, and a first message that was under way opens."""

    def few(path: Path, key: bytes) -> LocalStore:
        world.stores.append(store := LocalStore(path, key, Bounds(every=1, handshakes=4)))
        return store

    monkeypatch.setattr(world, "_open_store", few)
    names, secrets = ["mallory", "trudy"], {}
    for name in [*names, "carol"]:
        await world.register(name)
    for name in names:
        secrets[name] = await secrets_of(Home(world, name, name))
    reader = world.chain.user("bob")
    without_one_time_keys(world, "bob")
    await ada.send("bob", "under way")
    under_way = list(world.relay.rows.values())
    world.relay.rows.clear()
    flood = [forge(world, world.chain.user(name), secrets[name], text="flood") for name in names * 3]
    deliver(world, [((reader.uid, 1), one) for one in flood])
    assert (await bob.texts()).count("flood") >= 4
    async with bob.client() as client:
        await client.login()
        before = prekeys.decode_store((await store_of(client)).prekeys() or b"")
    assert len(before.pairs) == 1
    without_one_time_keys(world, "bob")
    world.relay.rows.clear()
    await world.say("carol", "bob", "hello")
    assert await bob.texts() == ["hello"]
    deliver(world, under_way)
    assert await bob.texts() == ["under way"]
    world.relay.rows.clear()
    for one in flood:
        world.relay.inject(reader, one)
    assert "flood" not in await bob.texts()
    async with bob.client() as client:
        stored = (await store_of(client)).prekeys() or b""
    assert prekeys.decode_store(stored).pairs == before.pairs


async def test_one_time_keys_used_up_while_connected(
    world: World, ada: Home, bob: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who stays connected for weeks gives the relay new prekeys all the same."""
    await bob.texts()
    stock = world.relay.prekeys[world.chain.user("bob").uid, 1]
    stock.one_time.clear()
    stock.kem_one_time.clear()
    monkeypatch.setattr(messaging, "SUPPLY_AGAIN_S", 0.01)
    async with bob.client() as client:

        async def first() -> list[Shown]:
            return [shown async for shown in client.receive(wait_s=30.0, follow=True, count=1)]

        listening = asyncio.create_task(first())
        await world.until(lambda: bool(stock.one_time and stock.kem_one_time))
        await ada.send("bob", "still there?")
        assert [shown.text for shown in await listening] == ["still there?"]


async def test_sessions_and_prekeys_that_a_newer_program_saved(
    world: World, ada: Home, bob: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After going back to an older program nothing is taken for undecryptable: it waits at the relay."""
    await ada.send("bob", "one")
    assert await bob.texts() == ["one"]
    await ada.send("bob", "two")
    await world.register("carol")
    await world.say("carol", "bob", "three")
    with monkeypatch.context() as older:
        older.setattr("chatchain.crypto.session.READERS", {})
        with pytest.raises(StoreUnavailable, match="newer chatchain"):
            await bob.texts()
    with monkeypatch.context() as older:
        older.setattr("chatchain.crypto.prekeys.READERS", {})
        with pytest.raises(StoreUnavailable, match="newer chatchain"):
            await bob.texts()
    assert await bob.texts() == ["two", "three"]


async def test_skipped_key_exhaustion(
    world: World, ada: Home, bob: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What jumps over too many messages is refused, the state does not move, and a new session mends it."""
    monkeypatch.setattr("chatchain.crypto.ratchet.MAX_SKIP", 5)
    await ada.send("bob", *map(str, range(10)))
    rows = list(world.relay.rows.values())
    deliver(world, rows[:1])
    assert await bob.texts() == ["0"]
    (before,) = await bob.kept("ada")
    deliver(world, rows[8:9])
    (told,) = await bob.hear()
    assert told.kind == "notice"
    assert (await bob.kept("ada"))[-1].state == before.state
    await ada.hear()
    await ada.send("bob", "mended")
    assert await bob.texts() == ["mended"]


# --- who copies the home while it is at work ------------------------------------------------------------


async def test_earlier_session_states_in_the_journal_of_a_program_at_work(
    world: World, ada: Home, bob: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the key of the database and all its files a thief finds no state but the last."""
    monkeypatch.setattr(station, "FORGET_S", 0.01)
    chains: list[bytes] = []
    async with bob.client() as client:
        store = await store_of(client)
        unlocked = (await client._station.desk()).unlocked
        database, key = client._station.home.database, unlocked.secrets.database_key

        async def said() -> list[Shown]:
            return [shown async for shown in client.receive(wait_s=30.0, follow=True, count=1)]

        for number in range(3):
            listening = asyncio.create_task(said())
            await ada.send("bob", str(number))
            assert [shown.text for shown in await listening] == [str(number)]
            (kept,) = store.sessions(world.chain.user("ada").uid, 1)
            chains.append(sessions.decode_session(kept.state).ratchet.ckr)
        await world.until(lambda: not journal_of(database).stat().st_size)
        found = pages(database, key)
    assert len(set(chains)) == 3
    assert chains[-1] in found
    assert not any(key in found for key in chains[:-1])
