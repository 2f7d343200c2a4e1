"""A device record counts only when everything in it is what the chain says, and its own key signed it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatchain.errors import BadRecord, ForgedMessage
from chatchain.identity import ed25519, keys
from chatchain.identity.record import (
    RECORD_BYTES,
    SUPERSEDED_GRACE_MS,
    DeviceRecord,
    decode_record,
    device_record,
    encode_record,
    sign_record,
    signing_key_for,
    verify_record,
)
from chatchain.model import Address, Device, User
from tests.identity.people import BLOCK_TIME, NETWORK, OTHER_NETWORK, OTHER_REGISTRY, person

ADA = person("ada")
BOB = person("bob")
ENTRY = ADA.rotated().user.devices[0].current  # version 2: a record that carries the uid
RECORD = decode_record(ENTRY.record)

# Ed25519's identity point; X25519's point of order 1
SMALL_ED25519 = (1).to_bytes(32, "little")
SMALL_X25519 = (1).to_bytes(32, "little")


def verify(data: bytes, **changed: Any) -> DeviceRecord:
    """Verifies against what the chain says of Ada's device, apart from what is changed."""
    said: dict[str, Any] = {
        "network": NETWORK,
        "account": ADA.user.account,
        "uid": ADA.uid,
        "device": 1,
        "version": 2,
        "signer": ENTRY.signer,
    } | changed
    return verify_record(data, **said)


def resigned(**fields: Any) -> bytes:
    """Ada's record with other fields, signed anew by her key: what a hostile owner could publish."""
    record = msgspec.structs.replace(RECORD, **fields)
    return encode_record(sign_record(record, ADA.user.account, ADA.secrets(1, 2).ed25519))


def test_a_record_survives_the_chain() -> None:
    """Encoding and decoding are inverse, and it verifies."""
    assert len(ENTRY.record) == RECORD_BYTES == 227
    assert encode_record(RECORD) == ENTRY.record
    found = verify(ENTRY.record)
    assert found.ed25519 == ADA.secrets(1, 2).ed25519_public
    assert found.x25519 == ADA.secrets(1, 2).x25519_public
    assert found.signer == ADA.secrets(1, 2).signer_address


def test_a_record_made_for_an_account_before_still_holds() -> None:
    """Devices stay when the account is replaced; a record made for no account of that time does not hold."""
    former, device = ADA.user.account, ADA.user.devices[0]
    recovered = msgspec.structs.replace(ADA.user, account=BOB.user.account, epoch=1)
    with pytest.raises(BadRecord, match="for this account"):
        device_record(NETWORK, recovered, device)
    then = msgspec.structs.replace(device.current, account=former)
    assert device_record(NETWORK, recovered, device, then).ed25519 == ADA.secrets(1, 1).ed25519_public
    later = msgspec.structs.replace(device.current, account=BOB.user.account)
    with pytest.raises(BadRecord, match="for this account"):
        device_record(NETWORK, ADA.user, device, later)


def test_the_record_of_a_registration_carries_no_uid() -> None:
    """The registry assigns the uid in the same transaction, so 0 stands in its place, there only."""
    user = ADA.user
    assert decode_record(user.devices[0].current.record).uid == 0
    assert device_record(NETWORK, user, user.devices[0]).device == 1
    with pytest.raises(BadRecord, match="another user"):
        verify(resigned(uid=0))


@pytest.mark.parametrize("position", range(RECORD_BYTES))
def test_every_altered_byte_is_noticed(position: int) -> None:
    """Format, fields and signature: no byte can change."""
    data = bytearray(ENTRY.record)
    data[position] ^= 0x01
    with pytest.raises(BadRecord):
        verify(bytes(data))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"network": OTHER_NETWORK}, "another network"),
        ({"network": OTHER_REGISTRY}, "another network"),
        ({"account": BOB.user.account}, "not signed by its own key"),
        ({"uid": BOB.uid}, "another user"),
        ({"device": 2}, "another user, device"),
        ({"version": 3}, "another user, device or version"),
        ({"signer": Address(b"\x55" * 20)}, "another signer"),
    ],
)
def test_a_record_moved_elsewhere_is_refused(changed: dict[str, Any], why: str) -> None:
    """Another chain, registry, account, user, device, version or signer."""
    with pytest.raises(BadRecord, match=why):
        verify(ENTRY.record, **changed)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"suites": 0}, "no encryption"),
        ({"suites": 1}, "no encryption"),
        ({"ed25519": SMALL_ED25519}, "not a safe point"),
        ({"ed25519": b"\xff" * 32}, "not a safe point"),
        ({"x25519": SMALL_X25519}, "small order"),
        ({"x25519": bytes(32)}, "small order"),
        ({"ed25519": BOB.secrets().ed25519_public}, "not signed by its own key"),
    ],
)
def test_unsafe_keys_are_refused_even_when_signed(fields: dict[str, Any], why: str) -> None:
    """The account may authorise anything; readers still use no key that protects nothing or is another's."""
    with pytest.raises(BadRecord, match=why):
        verify(resigned(**fields))


def test_a_small_order_key_cannot_vouch_for_itself() -> None:
    """R = identity, s = 0 is a signature that the bare library accepts for the identity key."""
    forged = msgspec.structs.replace(RECORD, ed25519=SMALL_ED25519, signature=SMALL_ED25519 + bytes(32))
    with pytest.raises(BadRecord, match="not a safe point"):
        verify(encode_record(forged))


def test_later_suites_may_be_listed_beside_ours() -> None:
    """Unknown bits of the bitmap are for programs to come."""
    assert verify(resigned(suites=0xFFFE)).suites == 0xFFFE


@pytest.mark.parametrize("length", [0, 1, RECORD_BYTES - 1, RECORD_BYTES + 1, 1024])
def test_a_record_of_another_length_is_refused(length: int) -> None:
    """Truncated or with a tail."""
    with pytest.raises(BadRecord, match="bytes"):
        decode_record((ENTRY.record * 5)[:length])


@given(st.one_of(st.binary(max_size=300), st.binary(min_size=RECORD_BYTES, max_size=RECORD_BYTES)))
@settings(deadline=None)
def test_only_bad_record_escapes_the_parser(data: bytes) -> None:
    """Whatever the chain serves."""
    with pytest.raises(BadRecord):
        verify(data)


def test_an_unsigned_record_is_not_encoded() -> None:
    """A record without its signature never reaches the chain."""
    with pytest.raises(ValueError, match="not signed"):
        encode_record(msgspec.structs.replace(RECORD, signature=b""))


# --- which key may have signed ------------------------------------------------------------------------------

ROTATED = ADA.rotated()
REPLACED_AT = (BLOCK_TIME + 3600) * 1000
"""When version 2 replaced version 1, in ms."""
LATEST = REPLACED_AT + SUPERSEDED_GRACE_MS


def key_of(version: int, user: User = ROTATED.user, signed: int = LATEST, received: int = LATEST) -> bytes:
    """Asks for the key with which device 1 signs under this version."""
    return signing_key_for(NETWORK, user, 1, version, signed, received)


def test_the_current_version_signs_at_any_time() -> None:
    """Its times are not judged: clocks differ."""
    for signed, received in [(0, 0), (LATEST * 2, 0), (0, LATEST * 2)]:
        assert key_of(2, signed=signed, received=received) == ADA.secrets(1, 2).ed25519_public


def test_a_superseded_version_signs_until_five_minutes_after_its_successor() -> None:
    """A message on its way during a rotation is not lost."""
    assert key_of(1) == ADA.secrets(1, 1).ed25519_public


@pytest.mark.parametrize(
    ("signed", "received"), [(LATEST + 1, LATEST), (LATEST, LATEST + 1), (0, LATEST + 1)]
)
def test_a_superseded_version_signs_no_later(signed: int, received: int) -> None:
    """Neither the signed time nor the relay's may be later: backdating does not help a thief."""
    with pytest.raises(ForgedMessage, match="version 2 had replaced"):
        key_of(1, signed=signed, received=received)


def test_the_grace_counts_from_the_next_version_not_the_last() -> None:
    """Two rotations later, version 1 still ended when version 2 came."""
    twice = ROTATED.rotated().user
    assert key_of(1, twice) == ADA.secrets(1, 1).ed25519_public
    with pytest.raises(ForgedMessage, match="version 2 had replaced"):
        key_of(1, twice, received=LATEST + 1)
    assert key_of(2, twice, received=LATEST + 1) == ADA.secrets(1, 2).ed25519_public


def test_a_revoked_device_signs_nothing() -> None:
    """Not even what it signed before: the key may be in other hands."""
    with pytest.raises(ForgedMessage, match="revoked"):
        key_of(2, ROTATED.revoked().user, signed=0, received=0)


@pytest.mark.parametrize(("device", "version"), [(2, 1), (0, 1), (1, 3), (1, 0)])
def test_what_the_chain_does_not_list_signs_nothing(device: int, version: int) -> None:
    """Unknown devices and versions."""
    with pytest.raises(ForgedMessage, match="does not list"):
        signing_key_for(NETWORK, ROTATED.user, device, version, 0, 0)


def test_an_unsound_record_gives_no_key() -> None:
    """A record that does not verify is never a source of keys, even with the chain's blessing."""
    entry = ADA.user.devices[0].current
    broken = msgspec.structs.replace(entry, record=entry.record[:-1] + bytes([entry.record[-1] ^ 1]))
    device: Device = msgspec.structs.replace(ADA.user.devices[0], history=(broken,))
    with pytest.raises(BadRecord):
        key_of(1, msgspec.structs.replace(ADA.user, devices=(device,)))


def test_the_signature_covers_the_account() -> None:
    """The label, the account's address, then the fields: another account's record needs another signature."""
    data = b"chatchain/1 device record" + ADA.user.account + ENTRY.record[:-64]
    assert ed25519.verify(RECORD.ed25519, ENTRY.record[-64:], data)
    assert keys.address_of(ADA.account_key) == ADA.user.account
