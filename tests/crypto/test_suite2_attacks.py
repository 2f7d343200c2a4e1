"""Attacks on suite 2, one test each; after every refusal the state stands where it stood."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from chatchain.crypto import pqxdh, prekeys, ratchet, session
from chatchain.crypto.pqxdh import HANDSHAKE_BYTES, Party
from chatchain.crypto.prekeys import NOTHING, KeyKind, PrekeyStore, encode_store
from chatchain.crypto.ratchet import MAX_KEPT, MAX_SKIP
from chatchain.crypto.session import Session, encode_session
from chatchain.crypto.x25519 import agree, public_of
from chatchain.errors import BadRecord, ChatchainError, Undecryptable
from chatchain.identity.record import sign_record
from chatchain.model import Suite
from tests.crypto.pairs import (
    ADA,
    BOB,
    BUNDLE,
    MALLORY,
    NOW,
    STORE,
    Device,
    device,
    pair,
    restarted,
    settled,
)
from tests.identity.people import NETWORK

SMALL_ORDER = [
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
]


@contextmanager
def refused(*kept: Session | PrekeyStore, error: type[ChatchainError] = Undecryptable) -> Iterator[None]:
    """The block raises and none of the values has moved."""
    before = [encode_session(each) if isinstance(each, Session) else encode_store(each) for each in kept]
    with pytest.raises(error):
        yield
    after = [encode_session(each) if isinstance(each, Session) else encode_store(each) for each in kept]
    assert before == after


def initial(sender: Device = ADA, text: bytes = b"hi") -> bytes:
    """Gives an initial message to Bob."""
    return session.encrypt(sender.begin(BOB, BUNDLE), text, b"")[1]


def test_swapped_bundle() -> None:
    """The relay hands out Mallory's keys for Bob: signed by her, claiming to be his, or mixed with his."""
    hers = MALLORY.bundle(STORE)
    for swapped in (
        hers,
        msgspec.structs.replace(hers, uid=BOB.party.uid),
        msgspec.structs.replace(BUNDLE, signed=hers.signed),
        msgspec.structs.replace(BUNDLE, kem=hers.kem),
    ):
        with pytest.raises(BadRecord):
            ADA.begin(BOB, swapped)


def test_swapped_one_time_key() -> None:
    """The one key without a signature: swapping it denies service and opens nothing."""
    mine = b"m" * 32
    assert BUNDLE.one_time is not None
    swapped = msgspec.structs.replace(
        BUNDLE, one_time=msgspec.structs.replace(BUNDLE.one_time, key=public_of(mine))
    )
    message = session.encrypt(ADA.begin(BOB, swapped), b"hi", b"")[1]
    with refused(STORE):
        BOB.accept(STORE, ADA, message)


def test_old_bundle() -> None:
    """Withdrawn by the chain, expired, or of keys that Bob has deleted since."""
    with pytest.raises(BadRecord, match="key version"):
        ADA.begin(device("bob", rotated=True), BUNDLE)
    with pytest.raises(BadRecord, match="expired"):
        ADA.begin(BOB, BUNDLE, NOW + prekeys.LIFETIME)
    late = NOW + prekeys.ROTATION
    store = prekeys.maintain(prekeys.maintain(STORE, late, 50, 50), late + prekeys.GRACE, 50, 50)
    with refused(store):
        BOB.accept(store, ADA, initial())


def test_reflected_message() -> None:
    """What Ada wrote comes back to her, as a message and as a beginning."""
    ada, bob = settled()
    ada, message = session.encrypt(ada, b"to bob", b"")
    with refused(ada):
        session.decrypt(ada, message, b"", NOW)
    store = prekeys.new_store(NOW)
    with refused(store):
        session.accept(store, NOTHING, ADA.secrets, ADA.party, BOB.party, initial(), b"", NOW)
    fresh, first = session.encrypt(ADA.begin(BOB, BUNDLE), b"to bob", b"")
    with refused(fresh):
        session.decrypt(fresh, first, b"", NOW)
    assert session.decrypt(bob, message, b"", NOW)[1] == b"to bob"


def test_unknown_key_share_by_an_identity_key_that_is_not_hers() -> None:
    """Mallory lists Bob's X25519 key as hers and hands on what Ada writes to her: Bob derives other keys.

    Her record is sound by itself: it bears her Ed25519 signature, and she signs Bob's prekeys as her own.
    """
    record = msgspec.structs.replace(MALLORY.party.record, x25519=BOB.party.record.x25519, signature=b"")
    posing = Device(
        MALLORY.owner,
        MALLORY.secrets,
        Party(MALLORY.party.uid, sign_record(record, MALLORY.owner.user.account, MALLORY.secrets.ed25519)),
    )
    state, message = session.encrypt(ADA.begin(posing, posing.bundle(STORE)), b"to mallory", b"")
    assert state.ratchet.ns == 1
    with refused(STORE):
        BOB.accept(STORE, ADA, message)


def test_unknown_key_share_about_who_is_writing() -> None:
    """Ada's message, said to be from Mallory who lists Ada's X25519 key: Bob believes neither."""
    record = msgspec.structs.replace(MALLORY.party.record, x25519=ADA.party.record.x25519, signature=b"")
    posing = Party(
        MALLORY.party.uid, sign_record(record, MALLORY.owner.user.account, MALLORY.secrets.ed25519)
    )
    with refused(STORE):
        session.accept(STORE, NOTHING, BOB.secrets, BOB.party, posing, initial(), b"", NOW)


def test_another_device_of_the_same_user_is_another_party() -> None:
    """A message to Bob's first device says nothing to his second, and none is from Ada's second."""
    second = device("bob", 2)
    with refused(STORE):
        second.accept(STORE, ADA, initial())
    with refused(STORE):
        BOB.accept(STORE, device("ada", 2), initial())


def test_forged_sender() -> None:
    """Mallory begins a session and the relay says that it is Ada's."""
    forged = initial(MALLORY)
    with refused(STORE):
        BOB.accept(STORE, ADA, forged)
    # Without Ada's secret she can name her, and derives other keys than Bob.
    as_ada = Device(ADA.owner, MALLORY.secrets, ADA.party)
    with refused(STORE):
        BOB.accept(STORE, ADA, initial(as_ada))


def test_forged_sender_with_the_responders_secrets() -> None:
    """Key compromise impersonation: who has Bob's identity key, and no prekey, cannot write to him as Ada."""
    ephemeral_guess = Device(ADA.owner, BOB.secrets, ADA.party)
    with refused(STORE):
        BOB.accept(STORE, ADA, initial(ephemeral_guess))


def test_forged_message_in_a_session_of_another() -> None:
    """A message of Mallory's session with Bob is not one of Ada's."""
    _, bob = settled()
    mallory = MALLORY.begin(BOB, BOB.bundle(prekeys.new_store(NOW)))
    for _ in range(2):
        mallory, message = session.encrypt(mallory, b"hi", b"")
        for each in (message, b"\x02" + message[1 + HANDSHAKE_BYTES :]):
            with refused(bob):
                session.decrypt(bob, each, b"", NOW)


def test_replayed_initial_message() -> None:
    """At once, after a restart, without one-time keys; also by the second message."""
    bundle = BOB.bundle(STORE, one_time=False, one_time_kem=False)
    ada, first = session.encrypt(ADA.begin(BOB, bundle), b"one", b"")
    ada, second = session.encrypt(ada, b"two", b"")
    store, bob, _ = BOB.accept(STORE, ADA, first)
    for each, past in ((store, NOTHING), restarted(store)):
        for message in (first, second):
            with refused(each):
                BOB.accept(each, ADA, message, past=past)
    with refused(bob):
        session.decrypt(bob, first, b"", NOW)
    assert session.decrypt(bob, second, b"", NOW)[1] == b"two"


def test_replayed_initial_message_in_another_spelling() -> None:
    """X25519 ignores the highest bit of EK: the same secret under another handshake id opens nothing."""
    bundle = BOB.bundle(STORE, one_time=False, one_time_kem=False)
    message = bytearray(session.encrypt(ADA.begin(BOB, bundle), b"one", b"")[1])
    store, _, _ = BOB.accept(STORE, ADA, bytes(message))
    message[1 + 51] ^= 0x80
    with refused(store):
        BOB.accept(store, ADA, bytes(message))


def test_a_stripped_handshake_only_delays() -> None:
    """An initial message without its handshake belongs to no session; with it, it is read."""
    _, message = session.encrypt(ADA.begin(BOB, BUNDLE), b"one", b"")
    with refused(STORE):
        BOB.accept(STORE, ADA, b"\x02" + message[1 + HANDSHAKE_BYTES :])
    assert BOB.accept(STORE, ADA, message)[2] == b"one"


def test_altered_handshake_before_a_message_of_a_session_under_way() -> None:
    """The handshake is repeated until the first answer; each repetition must be the same."""
    ada, first = session.encrypt(ADA.begin(BOB, BUNDLE), b"one", b"")
    _, second = session.encrypt(ada, b"two", b"")
    _, bob, _ = BOB.accept(STORE, ADA, first)
    with refused(bob):
        session.decrypt(bob, second[:30] + bytes([second[30] ^ 1]) + second[31:], b"", NOW)
    assert session.decrypt(bob, second, b"", NOW)[1] == b"two"


def test_skipped_key_exhaustion() -> None:
    """A peer jumps as far as it may, again and again: bounded memory, and one jump too far is refused."""
    ada, bob = pair()
    for _ in range(6):
        far = msgspec.structs.replace(ada.ratchet, ns=ada.ratchet.ns + MAX_SKIP + 1)
        _, message = session.encrypt(msgspec.structs.replace(ada, ratchet=far), b"", b"")
        with refused(bob):
            session.decrypt(bob, message, b"", NOW)
        for _ in range(MAX_SKIP):
            state, _ = ratchet.encrypt(ada.ratchet, b"", b"")
            ada = msgspec.structs.replace(ada, ratchet=state)
        ada, message = session.encrypt(ada, b"", b"")
        bob, _ = session.decrypt(bob, message, b"", NOW)
        assert sum(len(chain.keys) for chain in bob.ratchet.skipped) <= MAX_KEPT
        assert len(encode_session(bob)) < 96 * 1024


@pytest.mark.parametrize("key", SMALL_ORDER, ids=bytes.hex)
def test_small_order_key(key: bytes) -> None:
    """As identity, signed prekey, one-time prekey, ephemeral and ratchet key: all are refused."""
    with pytest.raises(BadRecord):
        agree(b"s" * 32, key)
    posing = Device(
        BOB.owner,
        BOB.secrets,
        Party(BOB.party.uid, msgspec.structs.replace(BOB.party.record, x25519=key)),
    )
    with pytest.raises(BadRecord):
        ADA.begin(posing, BUNDLE)
    assert BUNDLE.one_time is not None
    with pytest.raises(BadRecord):
        ADA.begin(
            BOB, msgspec.structs.replace(BUNDLE, one_time=msgspec.structs.replace(BUNDLE.one_time, key=key))
        )
    signed = msgspec.structs.replace(BUNDLE.signed, key=key)
    claim = prekeys._signed_bytes(NETWORK, BOB.party.uid, 1, 1, signed)
    signed = msgspec.structs.replace(signed, signature=BOB.secrets.signing_key.sign(claim))
    with pytest.raises(BadRecord):
        ADA.begin(BOB, msgspec.structs.replace(BUNDLE, signed=signed))
    message = initial()
    ephemeral = message[:21] + key + message[53:]
    with refused(STORE, error=BadRecord):
        BOB.accept(STORE, ADA, ephemeral)
    ada, bob = settled()
    new_chain, _ = session.encrypt(ada, b"", b"")
    forged = msgspec.structs.replace(new_chain.ratchet, dhs_public=key)
    _, message = session.encrypt(msgspec.structs.replace(new_chain, ratchet=forged), b"", b"")
    with refused(bob):
        session.decrypt(bob, message, b"", NOW)


def test_suite_downgrade() -> None:
    """A device that lists suite 2 is neither written to nor heard by an older suite; one that does not has no
    sessions."""
    listed, unlisted = BOB.party.record, device("bob", suites=1 << Suite.SEALED).party.record
    prekeys.refuse_downgrade(listed, Suite.RATCHET)
    prekeys.refuse_downgrade(unlisted, Suite.SEALED)
    for suite in (0, Suite.SEALED, 3):
        with pytest.raises(BadRecord, match="refused"):
            prekeys.refuse_downgrade(listed, suite)
    old = device("bob", suites=1 << Suite.SEALED)
    with pytest.raises(BadRecord, match="lists no suite"):
        ADA.begin(old, old.bundle(STORE))
    with pytest.raises(BadRecord, match="lists no suite"):
        device("ada", suites=1 << Suite.SEALED).begin(BOB, BUNDLE)
    with refused(STORE, error=BadRecord):
        old.accept(STORE, ADA, initial())
    # A modified program of a device that does not list the suite begins a session all the same.
    sly = device("ada", suites=1 << Suite.SEALED)
    keys, handshake = pqxdh.agree_as_initiator(sly.secrets, sly.party, BOB.party, BUNDLE)
    _, message = ratchet.encrypt(ratchet.initiate(keys, BUNDLE.signed.key), b"hi", b"")
    with refused(STORE, error=BadRecord):
        BOB.accept(STORE, sly, b"\x01" + handshake + message)


def test_suite_downgrade_by_another_record_of_the_same_version() -> None:
    """Both sides must have seen the same list of suites: it is in AD with the rest of the record."""
    both = msgspec.structs.replace(BOB.party.record, suites=BOB.party.record.suites | 8, signature=b"")
    other = Party(BOB.party.uid, sign_record(both, BOB.owner.user.account, BOB.secrets.ed25519))
    with refused(STORE):
        session.accept(STORE, NOTHING, BOB.secrets, other, ADA.party, initial(), b"", NOW)


def test_kem_prekey_of_one_purpose_in_the_others_place() -> None:
    """A relay that passes a last-resort key off as a one-time key, to have it used by many."""
    last = msgspec.structs.replace(BOB.upload(STORE).last_resort, kind=KeyKind.ONE_TIME_KEM)
    with pytest.raises(BadRecord):
        ADA.begin(BOB, msgspec.structs.replace(BUNDLE, kem=last))


def test_altered_handshake() -> None:
    """Every part of it, one bit each."""
    message = initial()
    for position in (
        0,
        1,
        5,
        9,
        13,
        17,
        21,
        52,
        53,
        900,
        HANDSHAKE_BYTES,
        HANDSHAKE_BYTES + 1,
        len(message) - 1,
    ):
        changed = bytearray(message)
        changed[position] ^= 1
        with refused(STORE):
            BOB.accept(STORE, ADA, bytes(changed))
    for length in range(0, len(message), 37):
        with refused(STORE):
            BOB.accept(STORE, ADA, message[:length])
    assert pqxdh.handshake_id(message[1 : 1 + HANDSHAKE_BYTES]) == BOB.accept(STORE, ADA, message)[1].id
