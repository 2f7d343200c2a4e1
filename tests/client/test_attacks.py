"""What a relay, a stranger or a thief may try: refused with a notice, acknowledged, and nothing of the real
lost. Everybody here lists suite 1 only; what concerns sessions is in test_session_attacks.py.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import msgspec
import pytest

from chatchain.chain.events import Directory
from chatchain.chain.rpc import RpcFault
from chatchain.client import station
from chatchain.client.session import MAX_DELIVERIES, MAX_WAITING_BYTES, Session, failure, parting
from chatchain.client.station import FRUITLESS_S, LASTED_S, LONGEST_PAUSE_S, RETRY_JITTER_S, rest_s
from chatchain.client.views import Sent, Shown
from chatchain.crypto import content as contents
from chatchain.crypto.device import DeviceSecrets, KemSecret
from chatchain.crypto.padding import unpad
from chatchain.crypto.sealed import Target, seal
from chatchain.errors import (
    CertificateMismatch,
    ChainUnreachable,
    ChatchainError,
    FoldMismatch,
    KeyChanged,
    LimitReached,
    LoginRefused,
    NetworkError,
    NoTick,
    ProtocolViolation,
    RefusedError,
    RelayFailure,
    UnknownUser,
)
from chatchain.identity.keys import to_checksum
from chatchain.model import Address, Delivery, LogRow, Suite, User
from chatchain.ui.cli.app import Stopped
from chatchain.wire.messages import Deliver, Goodbye, Login, Refused, Resumed
from tests.world import NETWORK, World

NEW_SIGNER = Address(b"\x77" * 20)


@pytest.fixture(autouse=True)
def _suite_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices that know nothing of suite 2."""
    monkeypatch.setattr("chatchain.crypto.device.SUITES", 1 << Suite.SEALED)


def forge(
    world: World,
    claimed: User,
    secrets: DeviceSecrets,
    *,
    to: str = "bob",
    text: str = "send me money",
    version: int = 1,
    device: int = 1,
    signed_sender: User | None = None,
    signed_recipient: User | None = None,
    signed_ms: int | None = None,
) -> Delivery:
    """A message sealed to somebody that claims to come from somebody, signed with whatever key."""
    target = world.chain.user(to)
    kem = world.relay.bundles[target.uid, 1].kem_public
    message_id, now = os.urandom(16), int(world.now * 1000)
    body, copies = seal(
        NETWORK,
        contents.text(text),
        secrets=secrets,
        sender=(signed_sender or claimed).uid,
        device=device,
        version=version,
        recipient=(signed_recipient or target).uid,
        message_id=message_id,
        time_ms=now if signed_ms is None else signed_ms,
        targets=[Target(target.uid, 1, kem)],
    )
    return Delivery(1, message_id, Suite.SEALED, claimed.uid, device, target.uid, now, copies[0].header, body)


def mailbox(world: World, name: str) -> list[Delivery]:
    """What the relay still holds for somebody."""
    uid = world.chain.user(name).uid
    return [delivery for (owner, _), delivery in world.relay.rows.values() if owner == uid]


async def notice(world: World, name: str = "bob") -> Shown:
    """The one thing shown, which must be a notice; afterwards the mailbox is empty."""
    shown = await world.hear(name, wait_s=0.5)
    assert len(shown) == 1, shown
    assert shown[0].kind == "notice"
    assert shown[0].text is None
    assert not mailbox(world, name)
    assert await world.hear(name) == []
    return shown[0]


async def test_forged_sender(world: World) -> None:
    """A message in ada's name signed by another key becomes a notice that says so."""
    world.relay.inject(
        world.chain.user("bob"), forge(world, world.chain.user("ada"), DeviceSecrets.generate())
    )
    told = await notice(world)
    assert (told.code, told.from_) == ("forged_message", "ada")
    assert "signature" in (told.notice or "")


async def test_replay_of_what_is_remembered_no_more(world: World) -> None:
    """A relay repeats a disappeared message when its id is forgotten: its date says that it may be one."""
    async with world.client("ada") as ada:
        await ada.chat_settings("bob", expires=60)
    await world.say("ada", "bob", "gone in a minute")
    kept = mailbox(world, "bob")[-1]
    assert [one.text for one in await world.hear("bob") if one.kind == "text"] == ["gone in a minute"]
    world.now += 61 * 24 * 3600
    await world.say("ada", "bob", "two months later")
    assert [one.text for one in await world.hear("bob")] == ["two months later"]
    async with world.client("bob") as bob:
        store = (await bob._station.desk()).unlocked.store
        assert not store.has_seen(world.chain.user("ada").uid, kept.id)
        assert [one.text for one in await bob.history("ada") if one.kind == "text"] == ["two months later"]
    world.relay.inject(world.chain.user("bob"), kept)
    told = await notice(world)
    assert told.code == "too_far_off"
    assert "repeated" in (told.notice or "")


async def test_dated_far_ahead(world: World) -> None:
    """A message of suite 1 from a far future could not be remembered for long enough."""
    async with world.client("ada") as ada:
        secrets = (await ada._station.desk()).own.secrets
    for days, code in ((29, None), (31, "too_far_off")):
        ahead = int((world.now + days * 24 * 3600) * 1000)
        delivery = forge(world, world.chain.user("ada"), secrets, signed_ms=ahead)
        world.relay.inject(world.chain.user("bob"), delivery)
        (shown,) = await world.hear("bob", wait_s=0.5)
        assert shown.code == code


async def test_sender_that_does_not_exist(world: World) -> None:
    """A sender whom the chain does not list is forged by definition."""
    ghost = msgspec.structs.replace(world.chain.user("ada"), uid=world.chain.user("ada").uid + 1)
    world.relay.inject(world.chain.user("bob"), forge(world, ghost, DeviceSecrets.generate()))
    assert (await notice(world)).code == "forged_message"


async def test_device_that_does_not_exist(world: World) -> None:
    """A device that the chain does not list for the sender."""
    delivery = forge(world, world.chain.user("ada"), DeviceSecrets.generate(), device=7)
    world.relay.inject(world.chain.user("bob"), delivery)
    assert (await notice(world)).code == "forged_message"


async def test_signature_moved_to_another_sender(world: World) -> None:
    """Carol's own valid message, relabelled as ada's by the relay."""
    await world.register("carol")
    await world.say("carol", "bob", "hi")
    ada = world.chain.user("ada")
    world.relay.tamper = lambda delivery: msgspec.structs.replace(delivery, sender=ada.uid)
    told = await notice(world)
    assert (told.code, told.from_) == ("forged_message", "ada")


async def test_signature_moved_to_another_text(world: World) -> None:
    """The header of one message with the body of another."""
    await world.say("ada", "bob", "yes", "no")
    bodies = [delivery.body for _, delivery in world.relay.rows.values()]

    def swap(delivery: Delivery) -> Delivery:
        other = bodies[1] if delivery.body == bodies[0] else bodies[0]
        return msgspec.structs.replace(delivery, body=other)

    world.relay.tamper = swap
    shown = await world.hear("bob", wait_s=0.5)
    assert [one.code for one in shown] == ["undecryptable", "undecryptable"]


async def test_message_with_another_id(world: World) -> None:
    """A replay under a fresh id does not carry its signature along."""
    await world.say("ada", "bob", "pay me once")
    world.relay.tamper = lambda delivery: msgspec.structs.replace(delivery, id=os.urandom(16))
    assert (await notice(world)).code == "forged_message"


async def test_replayed_message_is_shown_once(world: World) -> None:
    """The relay delivers the same message again, later and as often as it likes."""
    await world.say("ada", "bob", "pay me once")
    (_, kept), *_ = world.relay.rows.values()
    assert [one.text for one in await world.hear("bob")] == ["pay me once"]
    for _ in range(3):
        world.relay.inject(world.chain.user("bob"), kept)
    assert await world.hear("bob", wait_s=0.3) == []
    assert not world.relay.rows.keys() & {kept.sequence}


async def test_message_for_somebody_else(world: World) -> None:
    """A message that ada wrote to carol, passed on to bob by carol's hand or the relay's."""
    await world.register("carol")
    async with world.client("ada") as ada:
        secrets = (await ada._station.desk()).own.secrets
    delivery = forge(world, world.chain.user("ada"), secrets, signed_recipient=world.chain.user("carol"))
    world.relay.inject(world.chain.user("bob"), delivery)
    assert (await notice(world)).code == "forged_message"
    delivery = msgspec.structs.replace(delivery, recipient=world.chain.user("carol").uid)
    world.relay.inject(world.chain.user("bob"), delivery)
    assert (await notice(world)).code == "forged_message"


@pytest.mark.parametrize("part", ["header", "body"])
@pytest.mark.parametrize("how", ["flipped", "truncated", "empty", "garbage"])
async def test_altered_message(world: World, part: str, how: str) -> None:
    """Whatever is done to the bytes, one notice comes of it and the client goes on."""

    def alter(delivery: Delivery) -> Delivery:
        data: bytes = getattr(delivery, part)
        changed = {
            "flipped": data[:40] + bytes([data[40] ^ 1]) + data[41:],
            "truncated": data[:-1],
            "empty": b"",
            "garbage": os.urandom(len(data)),
        }[how]
        return msgspec.structs.replace(delivery, **{part: changed})

    await world.say("ada", "bob", "hello")
    world.relay.tamper = alter
    told = await notice(world)
    assert told.code in ("undecryptable", "forged_message", "not_for_this_device")


async def test_forgery_does_not_take_the_real_ones_place(world: World) -> None:
    """A forged copy with the real message's id, delivered first, leaves the real one to be shown."""
    await world.say("ada", "bob", "the real one")
    ((key, real),) = world.relay.rows.values()
    forged = forge(world, world.chain.user("ada"), DeviceSecrets.generate())
    forged = msgspec.structs.replace(forged, id=real.id)
    world.relay.rows = {
        1: (key, msgspec.structs.replace(forged, sequence=1)),
        2: (key, msgspec.structs.replace(real, sequence=2)),
    }
    world.relay.reopen()
    shown = await world.hear("bob", wait_s=0.5)
    assert [(one.kind, one.text) for one in shown] == [("notice", None), ("text", "the real one")]


async def test_a_signed_time_that_no_database_holds_locks_no_mailbox(world: World) -> None:
    """A member signs the largest time there is: one notice, and what came around it is shown."""
    async with world.client("ada") as ada:
        secrets = (await ada._station.desk()).own.secrets
    await world.say("ada", "bob", "before")
    delivery = forge(world, world.chain.user("ada"), secrets, signed_ms=2**64 - 1)
    world.relay.inject(world.chain.user("bob"), delivery)
    await world.say("ada", "bob", "after")
    shown = await world.hear("bob", wait_s=0.5, count=3)
    assert [(one.kind, one.text, one.code) for one in shown] == [
        ("text", "before", None),
        ("notice", None, "undecryptable"),
        ("text", "after", None),
    ]
    assert not mailbox(world, "bob")


async def test_a_message_that_cannot_be_stored_locks_no_mailbox(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were those bounds forgotten, the database's own refusal of one row would cost that row alone."""
    monkeypatch.setattr("chatchain.crypto.sealed.MAX_TIME_MS", 2**64)
    monkeypatch.setattr("chatchain.client.inbox.AHEAD_MS", 2**64)
    async with world.client("ada") as ada:
        secrets = (await ada._station.desk()).own.secrets
    await world.say("ada", "bob", "before")
    delivery = forge(world, world.chain.user("ada"), secrets, signed_ms=2**64 - 1)
    world.relay.inject(world.chain.user("bob"), delivery)
    await world.say("ada", "bob", "after")
    shown = await world.hear("bob", wait_s=0.5, count=3)
    assert [(one.kind, one.text, one.code) for one in shown] == [
        ("text", "before", None),
        ("notice", None, "not_understood"),
        ("text", "after", None),
    ]
    assert "OverflowError" in (shown[1].notice or "")
    assert not mailbox(world, "bob")


async def test_a_message_on_which_opening_stumbles_locks_no_mailbox(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake of ours that one message brings out keeps the next one from nobody."""

    def stumble(padded: bytes) -> bytes:
        if b"the key" in padded:
            raise ZeroDivisionError("a secret")
        return unpad(padded)

    monkeypatch.setattr("chatchain.crypto.sealed.unpad", stumble)
    await world.say("ada", "bob", "the key", "hello")
    shown = await world.hear("bob", wait_s=0.5, count=2)
    assert [(one.text, one.code) for one in shown] == [(None, "not_understood"), ("hello", None)]
    assert "secret" not in (shown[0].notice or "")
    assert not mailbox(world, "bob")


async def test_same_garbage_again_is_one_notice(world: World) -> None:
    """A notice is told once for the same bytes, however often they come."""
    delivery = forge(world, world.chain.user("ada"), DeviceSecrets.generate())
    world.relay.inject(world.chain.user("bob"), delivery)
    await notice(world)
    world.relay.inject(world.chain.user("bob"), delivery)
    assert await world.hear("bob", wait_s=0.3) == []


async def test_forged_receipt_moves_nothing(world: World) -> None:
    """A receipt signed by a stranger's key does not turn sent into delivered."""
    (sent,) = await world.say("ada", "bob", "hello")
    bob, ada = world.chain.user("bob"), world.chain.user("ada")
    secrets = DeviceSecrets.generate()
    message_id, now = os.urandom(16), int(world.now * 1000)
    body, copies = seal(
        NETWORK,
        contents.receipt(contents.ReceiptKind.READ, (bytes.fromhex(sent.id),)),
        secrets=secrets,
        sender=bob.uid,
        device=1,
        version=1,
        recipient=ada.uid,
        message_id=message_id,
        time_ms=now,
        targets=[Target(ada.uid, 1, world.relay.bundles[ada.uid, 1].kem_public)],
    )
    world.relay.inject(
        ada, Delivery(1, message_id, Suite.SEALED, bob.uid, 1, ada.uid, now, copies[0].header, body)
    )
    await notice(world, "ada")
    async with world.client("ada") as client:
        assert [one.state for one in await client.history("bob") if one.direction == "out"] == ["sent"]


async def test_message_by_a_revoked_device(world: World) -> None:
    """A thief with a revoked device's keys cannot speak for its owner, and cannot log in."""
    async with world.client("ada") as ada:
        secrets = (await ada._station.desk()).own.secrets
    world.chain.execute(world.edges.calls.revoke_device(1), world.chain.user("ada").account)
    world.now += 3600
    world.relay.inject(world.chain.user("bob"), forge(world, world.chain.user("ada"), secrets))
    told = await notice(world)
    assert told.code == "forged_message"
    assert "was revoked at block" in (told.notice or "")
    assert "If you expected a message, ask ada to send it again." in (told.notice or "")
    with pytest.raises(LoginRefused, match="revoked"):
        await world.say("ada", "bob", "hello")


@pytest.mark.parametrize("days", [0, 1, 30])
async def test_message_of_a_revoked_device_dated_back(world: World, days: int) -> None:
    """By its thief and a relay in league: both times say before, and nothing of it is shown; one notice says
    what may have been lost, however many there are.
    """
    async with world.client("ada") as ada:
        secrets = (await ada._station.desk()).own.secrets
    world.chain.execute(world.edges.calls.revoke_device(1), world.chain.user("ada").account)
    back = int((world.now - days * 24 * 3600) * 1000)
    for number in range(3):
        forged = forge(world, world.chain.user("ada"), secrets, text=f"pay {number}", signed_ms=back)
        world.relay.inject(world.chain.user("bob"), msgspec.structs.replace(forged, received_ms=back))
    told = await notice(world)
    assert told.code == "revoked_sender"
    block = world.chain.user("ada").devices[0].revoked_block
    assert f"Ada's device 1 was revoked at block {block} (20" in (told.notice or "")
    assert "If you miss something, ask ada to send it again." in (told.notice or "")


async def test_message_by_a_superseded_key(world: World) -> None:
    """After a rotation the old key signs nothing new."""
    async with world.client("ada") as ada:
        old = (await ada._station.desk()).own.secrets
        await ada.rotate_keys()
    world.now += 3600
    world.relay.inject(world.chain.user("bob"), forge(world, world.chain.user("ada"), old))
    told = await notice(world)
    assert "replaced" in (told.notice or "")


async def test_swapped_key_bundle_is_not_used(world: World) -> None:
    """The relay hands out its own key for bob's device: the chain's hash says no, and nothing is sealed to
    it.
    """
    bob = world.chain.user("bob")
    theirs = world.relay.bundles[bob.uid, 1]
    world.relay.bundles[bob.uid, 1] = msgspec.structs.replace(
        theirs, kem_public=KemSecret(os.urandom(32)).public
    )
    async with world.client("ada") as ada:
        with pytest.raises(RefusedError, match="no keys to encrypt to"):
            await world.drain(ada.send("bob", "hello", wait_s=0.3), [])
    assert world.relay.stored == {}


async def test_an_invented_bundle_does_not_displace_a_good_one(world: World) -> None:
    """Bob has a second device without keys, so ada asks the relay again each time: what it invents for his
    first device is not kept.
    """
    bob = world.chain.user("bob")
    world.chain.execute(world.edges.calls.add_device(NEW_SIGNER, b"record"), bob.account)
    await world.say("ada", "bob", "first")
    theirs = world.relay.bundles[bob.uid, 1]
    async with world.client("ada") as ada:
        store = (await ada._station.desk()).unlocked.store
        assert store.bundles(bob.uid) == [theirs]
        world.relay.bundles[bob.uid, 1] = msgspec.structs.replace(
            theirs, kem_public=KemSecret(os.urandom(32)).public
        )
        await world.drain(ada.send("bob", "second"), [])
        assert store.bundles(bob.uid) == [theirs]
    assert [one.text for one in await world.hear("bob")] == ["first", "second"]


async def test_an_address_that_is_only_a_signer_names_nobody(world: World) -> None:
    """Bob lists somebody's address as his device's signer: what is sent there does not go to bob."""
    bob = world.chain.user("bob")
    world.chain.execute(world.edges.calls.add_device(NEW_SIGNER, b"record"), bob.account)
    async with world.client("ada") as ada:
        with pytest.raises(UnknownUser, match="signer of a device"):
            await world.drain(ada.send(to_checksum(NEW_SIGNER), "for its owner"), [])
        assert await ada.contacts() == []
        await world.drain(ada.send(to_checksum(bob.account), "for bob"), [])
    assert [one.text for one in await world.hear("bob")] == ["for bob"]


async def test_hidden_change_that_the_relay_points_at_is_noticed(world: World) -> None:
    """An endpoint hides bob's newest device and the relay calls our list stale: we believe neither, look at
    the contract, and keep the message.
    """
    await world.say("ada", "bob", "before")
    world.chain.execute(world.edges.calls.add_device(NEW_SIGNER, b"record"), world.chain.user("bob").account)
    newest = world.chain.rows[-1]
    world.chain.lies = lambda row: None if row is newest else row
    before = len(world.relay.stored)
    sent: list[Sent] = []
    async with world.client("ada") as ada:
        with pytest.raises(FoldMismatch):
            await world.drain(ada.send("bob", "hello", wait_s=60), sent)
        assert [one.state for one in sent] == ["queued"]
    assert len(world.relay.stored) == before


async def test_what_carries_no_signature_is_told_as_the_relays_word(world: World) -> None:
    """A delivery without a header proves nothing of its alleged sender, and the notice says so."""
    ada = world.chain.user("ada")
    hollow = msgspec.structs.replace(forge(world, ada, DeviceSecrets.generate()), header=b"", body=b"")
    world.relay.inject(world.chain.user("bob"), hollow)
    told = await notice(world)
    assert told.code == "not_for_this_device"
    assert (told.notice or "").startswith("The relay says that ada ")
    assert "no signature" in (told.notice or "")


async def test_hidden_revocation_is_noticed(world: World) -> None:
    """An endpoint that hides the newest event of a peer is caught by the contract's heads before anything is
    sealed.
    """
    world.chain.execute(world.edges.calls.add_device(NEW_SIGNER, b"record"), world.chain.user("bob").account)
    newest = world.chain.rows[-1]

    def update(row: LogRow) -> LogRow | None:
        return None if row is newest else row

    world.chain.lies = update
    with pytest.raises(FoldMismatch):
        await world.say("ada", "bob", "hello")
    assert world.relay.submitted == []


async def test_rolled_back_device_list_is_noticed(world: World) -> None:
    """A chain that shows fewer changes of a peer's keys than it did is not believed."""
    async with world.client("bob") as bob:
        await bob.rotate_keys()
    await world.say("ada", "bob", "hello")
    del world.chain.rows[-1]
    tip = world.chain.blocks.pop()
    world.chain.blocks.append(msgspec.structs.replace(tip, hash=os.urandom(32)))
    with pytest.raises(FoldMismatch, match="hides"):
        await world.say("ada", "bob", "hello again")


async def test_changed_keys_of_a_verified_contact_block_sending(world: World) -> None:
    """After `verify`, a new key stops sending and says who changed what at which block."""
    async with world.client("ada") as ada:
        assert (await ada.verify("bob")).verified
    await world.say("ada", "bob", "before")
    async with world.client("bob") as bob:
        block = (await bob.rotate_keys()).block
    with pytest.raises(KeyChanged, match=f"bob gave device 1 new keys .version 2. at block {block}") as told:
        await world.say("ada", "bob", "after")
    assert told.value.exit_code == 7
    async with world.client("ada") as ada:
        (contact,) = await ada.contacts()
        assert not contact.verified
        assert str(block) in (contact.changed or "")
        assert [kept.text for kept in await ada.history("bob")] == ["before"]
        await ada.verify("bob")
        assert [sent.state async for sent in ada.send("bob", "accepted")] == ["sent"]


async def test_added_device_of_a_verified_contact_blocks_what_is_queued(world: World) -> None:
    """A message queued before the change is not sealed to the new device behind the sender's back."""
    async with world.client("ada") as ada:
        await ada.verify("bob")
    world.relay.deaf = True
    async with world.client("ada") as ada:
        with pytest.raises(NoTick):
            await world.drain(ada.send("bob", "secret", wait_s=0.1), [])
    world.relay.deaf = False
    world.chain.execute(world.edges.calls.add_device(NEW_SIGNER, b"record"), world.chain.user("bob").account)
    async with world.client("ada") as ada:
        await ada.login()
        assert (await ada.status()).queued == 1
    assert world.relay.stored == {}


async def test_message_of_an_outsider_in_a_closed_network(closed: World) -> None:
    """Where only members message, a relay that lets an outsider through is caught by the recipient."""
    await closed.register("carol")
    async with closed.client("carol") as carol:
        secrets = (await carol._station.desk()).own.secrets
    closed.relay.inject(closed.chain.user("bob"), forge(closed, closed.chain.user("carol"), secrets))
    told = await notice(closed)
    assert "not a member" in (told.notice or "")


def every_code(root: type[ChatchainError] = ChatchainError) -> set[str]:
    """The codes of all failures that this program knows, wherever they are defined."""
    return {root.code}.union(*map(every_code, root.__subclasses__()))


HOSTILE = ("rpc_fault", "stopped", "bug", "wrong_password", "wrong_chain", "fold_mismatch", "", "\x1b[2J")


def test_a_relays_code_picks_no_class_of_ours() -> None:
    """Whatever word it uses, what comes of it is one of the failures that a relay may announce."""
    assert {RpcFault.code, Stopped.code} < every_code()
    reasons = {type(failure(code, "x")).code for code in every_code() | set(HOSTILE)}
    partings = {type(parting(code, "x")).code for code in every_code() | set(HOSTILE)}
    assert not (reasons | partings) & set(HOSTILE)
    assert all(type(failure(code, "x")) is RelayFailure for code in HOSTILE)
    assert all(type(parting(code, "x")) is RelayFailure for code in HOSTILE)
    assert partings == {
        "login_refused",
        "limit_reached",
        "store_unavailable",
        "protocol_violation",
        "relay_failure",
    }


@pytest.mark.parametrize("code", HOSTILE)
async def test_a_goodbye_with_a_hostile_code_ends_the_session(world: World, code: str) -> None:
    """Nobody hangs: the session ends, and its reason is a failure of the relay."""
    async with world.client("bob") as bob:
        await bob.login()
        session = bob._station.session
        assert session is not None
        (peer,) = world.relay._peers.values()
        world.relay._say(peer, Goodbye(code, "gone", 0))
        async with asyncio.timeout(60):
            await session.ended.wait()
        assert type(session.why) is RelayFailure


async def test_a_session_whose_reader_stumbles_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake of ours in reading is told to whoever waits for an answer, and to whoever asks later."""

    def stumble(*_: object) -> ChatchainError:
        raise TypeError("missing arguments")

    monkeypatch.setattr("chatchain.client.session.parting", stumble)
    async with world.client("bob") as bob:
        await bob.login()
        session = bob._station.session
        assert session is not None
        (peer,) = world.relay._peers.values()
        waiting = asyncio.create_task(session.deliveries(1))
        world.relay._say(peer, Goodbye("shutdown", "gone", 0))
        async with asyncio.timeout(60):
            with pytest.raises(ProtocolViolation, match="TypeError"):
                await waiting
            with pytest.raises(ProtocolViolation, match="TypeError"):
                await session.fetch((1,))


async def test_a_pump_that_stumbles_tells_the_sender(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake of ours in sending is told at once, and what was written stays queued."""

    def stumble(*_: object) -> ChatchainError:
        raise TypeError("missing arguments")

    monkeypatch.setattr("chatchain.client.outbox.failure", stumble)
    world.relay.refuse = lambda submit: Refused(submit.envelope.id, "refused", "no", 0)
    async with world.client("ada") as ada, asyncio.timeout(60):
        for text in ("one", "two"):
            sent: list[Sent] = []
            with pytest.raises(NetworkError, match="TypeError"):
                await world.drain(ada.send("bob", text, wait_s=60), sent)
            assert [one.state for one in sent] == ["queued"]
        assert (await ada.status()).queued == 2


async def test_relay_that_floods_with_large_ones(world: World) -> None:
    """The bound is one of bytes as well as of number."""
    async with world.client("bob") as bob:
        await bob.login()
        session = bob._station.session
        assert session is not None
        large = forge(world, world.chain.user("ada"), DeviceSecrets.generate(), text="x" * 60_000)
        fits = MAX_WAITING_BYTES // (len(large.header) + len(large.body))
        assert fits < MAX_DELIVERIES
        session._dispatch(Resumed(1, 0))
        for _ in range(fits):
            session._dispatch(Deliver(large))
        with pytest.raises(ProtocolViolation):
            session._dispatch(Deliver(large))
        await session.deliveries(1)
        session._dispatch(Deliver(large))


def hang_up(world: World, monkeypatch: pytest.MonkeyPatch, retry_after_ms: int) -> None:
    """A relay that welcomes everybody and says goodbye at once."""
    login = world.relay._login

    def welcome_and_leave(peer: Any, message: Login, fold: Directory) -> None:
        login(peer, message, fold)
        world.relay._say(peer, Goodbye("shutdown", "later", retry_after_ms))
        world.relay.gone(peer)

    monkeypatch.setattr(world.relay, "_login", welcome_and_leave)


async def test_a_goodbye_after_each_login_makes_no_storm(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever listens, and whoever sends, stays away as long as the relay asks."""
    hang_up(world, monkeypatch, 60_000)
    before = world.relay.logins
    async with world.client("bob") as bob:
        listening = asyncio.create_task(world.drain(bob.receive(follow=True), []))
        await world.until(lambda: world.relay.logins > before)
        await asyncio.sleep(0.7)
        assert world.relay.logins == before + 1
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    before = world.relay.logins
    async with world.client("ada") as ada:
        with pytest.raises(NoTick):
            await world.drain(ada.send("bob", "hello", wait_s=0.7), [])
        assert world.relay.logins == before + 1


async def test_a_session_must_be_worth_its_login(world: World) -> None:
    """A login alone is not, a delivery or half a minute is; what a relay asks for has a bound; nobody knows
    exactly when a client comes back.
    """
    async with world.client("bob") as bob:
        await bob.login()
        session = bob._station.session
        assert session is not None
        for lasted_s, least in ((0.1, FRUITLESS_S), (LASTED_S, 0.0)):
            pauses = {rest_s(session, lasted_s) for _ in range(50)}
            assert least <= min(pauses) < max(pauses) <= least + RETRY_JITTER_S
            assert len(pauses) > 40
            assert max(pauses) < 4.1, "whoever served it is dead perhaps: another has it within 5 s"
        session._end(RelayFailure("later", retry_after_ms=7_000))
        assert 7 <= rest_s(session, LASTED_S) <= 7 + RETRY_JITTER_S
        session._ended = RelayFailure("later", retry_after_ms=10**9)
        assert rest_s(session, LASTED_S) <= LONGEST_PAUSE_S + RETRY_JITTER_S
        session._ended = NetworkError("gone")
        session._dispatch(Resumed(1, 0))
        session._dispatch(Deliver(forge(world, world.chain.user("ada"), DeviceSecrets.generate())))
        assert rest_s(session, 0.1) <= RETRY_JITTER_S


async def test_connecting_again_goes_on_until_the_relay_is_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it fails; but what no attempt mends ends the trying."""
    monkeypatch.setattr(station, "RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(station, "RETRY_LAST_S", 0.02)
    monkeypatch.setattr(station, "RETRY_JITTER_S", 0.01)
    async with world.client("ada") as ada:
        await ada.login()
        world.relay.up = False
        world.relay.cut()
        again = asyncio.create_task(ada._station.connect_again())
        await asyncio.sleep(0.2)
        assert not again.done()
        world.relay.up = True
        async with asyncio.timeout(60):
            assert (await again).alive
    assert station._worth_another(CertificateMismatch("other")) is False
    assert station._worth_another(LoginRefused("no")) is False
    assert station._worth_another(ChainUnreachable("gone")) is True
    pause = station._worth_another(LimitReached("later", retry_after_ms=30_000))
    assert 30 <= pause <= 30 + station.RETRY_JITTER_S


async def test_relay_that_floods(world: World) -> None:
    """A relay that sends without end ends the session instead of filling the memory."""
    async with world.client("bob") as bob:
        await bob.login()
        session = bob._station.session
        assert isinstance(session, Session)
        delivery = forge(world, world.chain.user("ada"), DeviceSecrets.generate())
        session._dispatch(Resumed(1, 0))
        for _ in range(MAX_DELIVERIES):
            session._dispatch(Deliver(delivery))
        with pytest.raises(ProtocolViolation):
            session._dispatch(Deliver(delivery))
