"""Signatures and addresses agree with eth_account, which served as the independent oracle."""

from __future__ import annotations

import pytest
from eth_account import Account
from eth_utils.address import to_checksum_address
from hypothesis import given, settings
from hypothesis import strategies as st

from chatchain.errors import UsageError, VerificationError
from chatchain.identity import keys
from chatchain.model import Address

secrets_ = st.integers(1, keys.SECP256K1_N - 1).map(lambda number: number.to_bytes(32, "big"))
digests = st.binary(min_size=32, max_size=32)


def test_keccak_is_ethereums() -> None:
    """The hash of nothing is the famous one, which differs from NIST's SHA3-256."""
    assert keys.keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"


@given(secrets_, digests)
@settings(deadline=None, max_examples=40)
def test_signatures_are_those_of_eth_account(secret: bytes, digest: bytes) -> None:
    """Both sign deterministically (RFC 6979) with a low s: equal bytes, and each recovers the other's."""
    mine = keys.sign_digest(secret, digest)
    theirs = bytes(Account.unsafe_sign_hash(digest, secret).signature)
    assert mine == theirs
    assert keys.to_checksum(keys.recover(digest, theirs)) == Account.from_key(secret).address
    assert Account._recover_hash(digest, signature=mine) == Account.from_key(secret).address


def test_a_new_secret_is_a_valid_one() -> None:
    """It signs, and two are never the same."""
    first, second = keys.new_secret(), keys.new_secret()
    assert first != second
    assert keys.recover(bytes(32), keys.sign_digest(first, bytes(32))) == keys.address_of(first)


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32, b"\x01", b"\x01" * 33, b""])
def test_what_is_no_secret_signs_nothing(secret: bytes) -> None:
    """Zero, numbers beyond the group's order and other lengths are refused, never reduced or padded."""
    with pytest.raises(ValueError, match=r"."):
        keys.sign_digest(secret, bytes(32))


def test_a_high_s_is_refused() -> None:
    """The mirrored signature is as right to the mathematics; accepting it would make signatures malleable."""
    digest = b"\x07" * 32
    good = keys.sign_digest(b"\x01" * 32, digest)
    s = keys.SECP256K1_N - int.from_bytes(good[32:64], "big")
    mirrored = good[:32] + s.to_bytes(32, "big") + bytes([55 - good[64]])
    with pytest.raises(VerificationError, match="malleable"):
        keys.recover(digest, mirrored)


@given(st.binary(max_size=70), digests)
@settings(deadline=None)
def test_garbage_recovers_to_nothing_but_a_documented_error(signature: bytes, digest: bytes) -> None:
    """Only VerificationError escapes."""
    try:
        keys.recover(digest, signature)
    except VerificationError:
        return
    assert len(signature) == 65


@given(st.integers(0, 64), st.integers(0, 7))
@settings(deadline=None, max_examples=60)
def test_an_altered_signature_names_nobody_or_somebody_else(position: int, bit: int) -> None:
    """No flipped bit leaves the signer in place."""
    digest = b"\x09" * 32
    signature = bytearray(keys.sign_digest(b"\x02" * 32, digest))
    signature[position] ^= 1 << bit
    try:
        found = keys.recover(digest, bytes(signature))
    except VerificationError:
        return
    assert found != keys.address_of(b"\x02" * 32)


@given(st.binary(min_size=20, max_size=20).map(Address))
@settings(deadline=None)
def test_addresses_are_written_as_eip55_and_read_back(address: Address) -> None:
    """The text equals eth_utils' and reads back in checksummed, lower and upper case."""
    text = keys.to_checksum(address)
    assert text == to_checksum_address(address)
    assert {
        keys.parse_address(text),
        keys.parse_address(text.lower()),
        keys.parse_address("0x" + text[2:].upper()),
    } == {address}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0x",
        "5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAe",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAedd",
        "0x5AAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xg" + "0" * 39,
        "0x" + "ab " * 13 + "a",
        "0x" + "００" * 20,
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """Length, digits and a mixed-case checksum are all checked."""
    with pytest.raises(UsageError):
        keys.parse_address(text)
