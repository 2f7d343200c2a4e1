"""Two implementations of the handshake agree, and both sides of ours do."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from chatchain.crypto import pqxdh, prekeys, session
from chatchain.crypto.ratchet import SharedKeys
from chatchain.errors import Undecryptable
from chatchain.identity.record import encode_record
from tests.crypto import naive_pqxdh
from tests.crypto.pairs import ADA, BOB, BUNDLE, NOW, STORE, Device, device

WYCHEPROOF = Path(__file__).parent.parent / "vectors" / "wycheproof.json"


def naive(handshake: bytes, alice: Device, bob: Device, found: prekeys.Found) -> naive_pqxdh.Keys:
    """The naive responder's keys."""
    return naive_pqxdh.responder_keys(
        handshake,
        bob.secrets.x25519,
        found.signed,
        found.one_time,
        found.kem,
        alice.party.uid,
        encode_record(alice.party.record),
        bob.party.uid,
        encode_record(bob.party.record),
    )


def found_for(named: pqxdh.Handshake) -> prekeys.Found:
    """The secrets of Bob's that a handshake names."""
    ids = (named.signed_id, named.one_time_id, named.kem_id)
    return prekeys.find(STORE, prekeys.NOTHING, bytes(32), ADA.party.uid, *ids)


def test_the_naive_x25519_is_the_published_one() -> None:
    """The oracle itself is right: a public key of RFC 7748, section 6.1, and Wycheproof's selection."""
    bob = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    assert naive_pqxdh.x25519(bob, naive_pqxdh.BASE).hex() == (
        "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    )
    for case in json.loads(WYCHEPROOF.read_text())["files"]["x25519_test"]:
        found = naive_pqxdh.x25519(bytes.fromhex(case["private"]), bytes.fromhex(case["public"]))
        assert found.hex() == case["shared"], case["tcId"]


@pytest.mark.parametrize("one_time", [True, False])
@pytest.mark.parametrize("one_time_kem", [True, False])
def test_a_second_implementation_derives_the_same_keys_and_opens_the_first_message(
    one_time: bool, one_time_kem: bool
) -> None:
    """Written from the specifications alone; initiator and responder of ours agree with it."""
    bundle = BOB.bundle(STORE, one_time=one_time, one_time_kem=one_time_kem)
    keys, handshake = pqxdh.agree_as_initiator(ADA.secrets, ADA.party, BOB.party, bundle)
    named = pqxdh.decode_handshake(handshake)
    found = found_for(named)
    assert pqxdh.agree_as_responder(BOB.secrets, BOB.party, ADA.party, found, handshake) == keys
    expected = naive(handshake, ADA, BOB, found)
    assert (keys.sk, keys.hka, keys.nhkb, keys.ad) == expected[1:]

    _, message = session.encrypt(ADA.begin(BOB, bundle), b"hello, bob", b"bound")
    handshake, rest = message[1:1621], message[1621:]
    found = found_for(named)
    opened = naive_pqxdh.open_first(naive(handshake, ADA, BOB, found), found.signed, rest, b"bound")
    assert opened == b"hello, bob"
    assert BOB.accept(STORE, ADA, message, b"bound")[2] == b"hello, bob"


def test_every_party_record_and_byte_of_the_handshake_enters_the_keys() -> None:
    """Who is deceived about one of them derives other keys."""
    keys, handshake = pqxdh.agree_as_initiator(ADA.secrets, ADA.party, BOB.party, BUNDLE)
    named = pqxdh.decode_handshake(handshake)
    found = found_for(named)

    def respond(**changed: object) -> SharedKeys:
        given = {"me": BOB.party, "them": ADA.party, "data": handshake, **changed}
        return pqxdh.agree_as_responder(BOB.secrets, given["me"], given["them"], found, given["data"])  # type: ignore[arg-type]  # a table of wrong arguments

    other_uid = msgspec.structs.replace(ADA.party, uid=ADA.party.uid + 10)
    other_signer = msgspec.structs.replace(
        BOB.party, record=msgspec.structs.replace(BOB.party.record, kem_hash=bytes(32))
    )
    suites = msgspec.structs.replace(
        ADA.party, record=msgspec.structs.replace(ADA.party.record, suites=0xFFFF)
    )
    seen = {
        respond().sk,
        *(
            respond(**{key: value}).sk
            for key, value in (
                ("them", other_uid),
                ("me", other_signer),
                ("them", suites),
                ("me", device("bob", rotated=True).party),
            )
        ),
    }
    # The high bit of an X25519 key is ignored by the curve, yet not by the transcript.
    for position in (0, 4, 8, 12, 16, 51, 52, len(handshake) - 1):
        changed = bytearray(handshake)
        changed[position] ^= 0x80
        seen.add(respond(data=bytes(changed)).sk)
    assert keys.sk in seen
    assert len(seen) == 1 + 4 + 8


def test_no_handshake_repeats() -> None:
    """Ephemeral key and encapsulation are fresh each time."""
    first, second = ADA.begin(BOB, BUNDLE), ADA.begin(BOB, BUNDLE)
    assert first.id != second.id
    assert first.handshake[20:] != second.handshake[20:]


def test_a_handshake_has_one_length() -> None:
    """Whole, and neither shorter nor longer."""
    handshake = ADA.begin(BOB, BUNDLE).handshake
    assert len(handshake) == pqxdh.HANDSHAKE_BYTES == 1620
    assert pqxdh.encode_handshake(pqxdh.decode_handshake(handshake)) == handshake
    for length in (*range(0, 1620, 60), 1619):
        with pytest.raises(Undecryptable):
            pqxdh.decode_handshake(handshake[:length])
    with pytest.raises(Undecryptable):
        pqxdh.decode_handshake(handshake + b"\0")


def test_a_session_works_both_ways_after_the_handshake() -> None:
    """The initiator repeats the handshake until the first answer, then stops."""
    ada, first = session.encrypt(ADA.begin(BOB, BUNDLE), b"one", b"")
    ada, second = session.encrypt(ada, b"two", b"")
    assert ada.handshake
    store, bob, plaintext = BOB.accept(STORE, ADA, second)
    assert (plaintext, bob.id, bob.handshake) == (b"two", ada.id, b"")
    bob, plaintext = session.decrypt(bob, first, b"", NOW)
    assert plaintext == b"one"
    bob, answer = session.encrypt(bob, b"three", b"")
    ada, plaintext = session.decrypt(ada, answer, b"", NOW)
    assert (plaintext, ada.handshake) == (b"three", b"")
    ada, message = session.encrypt(ada, b"four", b"")
    assert session.initial_handshake(message) is None
    assert session.decrypt(bob, message, b"", NOW)[1] == b"four"
    assert store != STORE
