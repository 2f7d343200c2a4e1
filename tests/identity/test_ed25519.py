"""Ed25519: RFC 8032's answers, and keys for which anybody could sign are refused."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from chatchain.identity import ed25519

# RFC 8032, section 7.1, TEST 3
SECRET = bytes.fromhex("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7")
PUBLIC = bytes.fromhex("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025")
MESSAGE = bytes.fromhex("af82")
SIGNATURE = bytes.fromhex(
    "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
    "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
)
ORDER = 2**252 + 27742317777372353535851937790883648493

SMALL_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    (2**255 - 20).to_bytes(32, "little"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
]


def test_rfc_8032_test_3() -> None:
    """Key, signature and verification are the RFC's."""
    assert ed25519.public_of(SECRET) == PUBLIC
    assert ed25519.sign(SECRET, MESSAGE) == SIGNATURE
    assert ed25519.verify(PUBLIC, SIGNATURE, MESSAGE)


def test_an_altered_signature_or_message_does_not_hold() -> None:
    """Each bit of the signature and the message counts."""
    for position in range(64):
        altered = bytearray(SIGNATURE)
        altered[position] ^= 1
        assert not ed25519.verify(PUBLIC, bytes(altered), MESSAGE)
    assert not ed25519.verify(PUBLIC, SIGNATURE, b"\xaf\x83")
    assert not ed25519.verify(PUBLIC, SIGNATURE[:-1], MESSAGE)


def test_a_signature_with_s_plus_the_order_does_not_hold() -> None:
    """RFC 8032 demands the reduced s: one signature, one spelling."""
    s = int.from_bytes(SIGNATURE[32:], "little") + ORDER
    assert not ed25519.verify(PUBLIC, SIGNATURE[:32] + s.to_bytes(32, "little"), MESSAGE)


@pytest.mark.parametrize("key", SMALL_ORDER)
def test_a_key_of_small_order_is_refused(key: bytes) -> None:
    """For such a key one signature holds for many messages."""
    assert not ed25519.is_valid_key(key)
    assert not ed25519.verify(key, key + bytes(32), MESSAGE)


def test_the_gate_is_needed() -> None:
    """Without it the library accepts a signature that nobody made: identity key, R = identity, s = 0."""
    identity = (1).to_bytes(32, "little")
    Ed25519PublicKey.from_public_bytes(identity).verify(identity + bytes(32), MESSAGE)
    assert not ed25519.verify(identity, identity + bytes(32), MESSAGE)


@pytest.mark.parametrize("key", [b"", b"\xff" * 32, b"\x02" + bytes(31), PUBLIC[:-1], PUBLIC + b"\0"])
def test_what_is_no_key_is_refused(key: bytes) -> None:
    """Wrong lengths and points off the curve."""
    assert not ed25519.is_valid_key(key)
    assert not ed25519.verify(key, SIGNATURE, MESSAGE)
