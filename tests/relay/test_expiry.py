"""Messages that nobody fetched: who is told of which, and that it is told in time and once."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine, text

from chatchain.model import (
    RELAYS_WORD,
    Address,
    Copy,
    Device,
    DeviceId,
    DeviceState,
    DeviceVersion,
    Envelope,
    Letter,
    Run,
    Uid,
)
from chatchain.relay import mailbox as box
from chatchain.relay.expiry import notices
from chatchain.relay.mailbox import Mailbox
from chatchain.relay.quota import Quota
from chatchain.wire.bounds import MAX_NAMED
from chatchain.wire.messages import Tick
from chatchain.wire.parcels import opened, parcel
from tests.fixtures.chains import DevChain
from tests.relay import stage as stages
from tests.relay.test_operation import page

ADA, BOB = 100_000_000_000_001, 100_000_000_000_002
THEN_MS, NOW_MS = 1_000_000, 9_000_000
DAY_MS = 24 * 3600 * 1000


def device(uid: int, number: int = 1, *, version: int = 1, time: int = 1, active: bool = True) -> Device:
    """A device whose present keys are as old as `time` says, in seconds."""
    state = DeviceState.ACTIVE if active else DeviceState.REVOKED
    record = DeviceVersion(version, Address(bytes(20)), b"", 1, time)
    return Device(Uid(uid), DeviceId(number), state, bytes(32), (record,))


def copy(id: bytes, uid: int = BOB, number: int = 1, sender: int = ADA) -> Run:
    """One message that waits for one device."""
    envelope = Envelope(id, 2, BOB, 1, 1, b"body", (Copy(uid, number, b"header"),))
    return Run(uid, number, sender, 1, [parcel(envelope, envelope.copies[0], sender, 1, THEN_MS)])


def told(letters: list[Letter]) -> dict[tuple[int, int, int], list[bytes]]:
    """Which messages are named to which device: by user, device and the one who did not fetch them."""
    found: dict[tuple[int, int, int], list[bytes]] = {}
    for letter in letters:
        for uid, number, given in letter.parcels:
            word = opened(given)
            assert (word.suite, word.recipient, word.received_ms) == (RELAYS_WORD, uid, NOW_MS)
            assert len(word.body) <= 16 * MAX_NAMED
            ids = [word.body[at : at + 16] for at in range(0, len(word.body), 16)]
            found.setdefault((uid, number, word.sender), []).extend(ids)
    return found


def test_every_device_of_the_sender_is_told_once() -> None:
    """However many copies and messages there were; nobody else hears of it."""
    ids = [secrets.token_bytes(16) for _ in range(MAX_NAMED + 1)]
    gone = [copy(id_, BOB, number) for id_ in ids for number in (1, 2)]
    gone += [copy(ids[0], ADA, 2)]
    people = [device(ADA), device(ADA, 2), device(ADA, 3, active=False), device(BOB), device(BOB, 2)]
    assert told(notices(gone, people, NOW_MS)) == {(ADA, 1, BOB): ids, (ADA, 2, BOB): ids}


@pytest.mark.parametrize(
    ("second", "lost"),
    [
        (device(BOB, 2), False),
        (device(BOB, 2, time=NOW_MS // 1000), True),
        (device(BOB, 2, version=2, time=NOW_MS // 1000), False),
        (device(BOB, 2, active=False), True),
    ],
)
def test_what_one_device_took_was_not_dropped(second: Device, lost: bool) -> None:
    """Unless that device was not there yet, or is not any more."""
    id_ = secrets.token_bytes(16)
    found = told(notices([copy(id_)], [device(ADA), device(BOB), second], NOW_MS))
    assert found == ({(ADA, 1, BOB): [id_]} if lost else {})


def test_the_relay_s_word_expires_without_another() -> None:
    """And so does what has no sender left."""
    people = [device(ADA), device(BOB)]
    (letter,) = notices([copy(secrets.token_bytes(16))], people, NOW_MS)
    ((uid, number, given),) = letter.parcels
    assert notices([Run(uid, number, letter.sender, 1, [given])], people, NOW_MS) == []
    assert told(notices([copy(secrets.token_bytes(16))], people[1:], NOW_MS)) == {}


def test_what_expires_makes_room_and_its_notice_is_given_out() -> None:
    """The sender's device follows and gets it at once; it counts in its mailbox like any other."""
    mailbox = Mailbox({(BOB, 1, ADA): (1, 4)}, 1, quota=Quota(rows=1))
    mailbox.opened(1, ADA, 1)
    mailbox.receive(1)
    mailbox.loaded(1, [], False)
    letter = Letter(1, ADA, 1, bytes(16), b"", 5, ((BOB, 1, b"body"),), 4)
    assert isinstance(mailbox.submit(letter)[0], box.Send)
    gone, notice = Run(BOB, 1, ADA, 1, [b"body"]), Run(ADA, 1, BOB, 2, [b"word"])
    mailbox.expired([gone])
    assert mailbox.committed([notice]) == [box.Give(1, 2, [b"word"])]
    assert (mailbox.waiting(BOB, 1), mailbox.waiting(ADA, 1)) == (0, 1)
    assert mailbox.submit(letter) == [box.Store(letter)]
    assert box.Remove(ADA, 1, 2) in mailbox.acknowledged(1, [2])
    assert mailbox.waiting(ADA, 1) == 0


@pytest.fixture
def stage(
    anvil: DevChain, mariadb_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[stages.Stage]:
    """A relay that a test ages."""
    made = stages.Stage(anvil, tmp_path_factory.mktemp("expiry"), mariadb_url)
    made.start()
    yield made
    made.stop()


async def test_the_sender_hears_of_it_from_a_real_relay(stage: stages.Stage) -> None:
    """A month later the recipient finds nothing, the sender the relay's word, and the metrics count it."""
    ada, bob = stage.register("ada-old"), stage.register("bob-old")
    sender = await stages.Device(stage, ada).connect()
    old, young = sender.envelope(bob), sender.envelope(bob)
    assert await sender.submit(old) == Tick(old.id)
    await sender.close()
    stage.stop()
    engine = create_engine(stage.database)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE mail SET received_ms = received_ms - {31 * DAY_MS}"))
    engine.dispose()
    stage.start()
    sender = await stages.Device(stage, ada).begin()
    (word,) = await sender.receive(1)
    assert (word.suite, word.sender, word.header, word.body) == (RELAYS_WORD, bob.uid, b"", old.id)
    assert "chatchain_deliveries_dropped_total 1.0" in page(stage.metrics_port, "/metrics")[1]
    await sender.submit(young)
    recipient = await stages.Device(stage, bob).begin()
    assert [delivery.id for delivery in await recipient.receive(1)] == [young.id]
    await sender.close()
    await recipient.close()
