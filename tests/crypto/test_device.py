"""A device's secrets survive the database, publish the right keys, and never show."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatchain.crypto.device import KEM_PUBLIC_BYTES, DeviceSecrets, KemSecret, kem_hash, kem_public_key
from chatchain.errors import BadRecord
from chatchain.identity import ed25519, keys
from chatchain.identity.record import decode_record
from tests.identity.people import NETWORK, person, secrets_of

ADA = person("ada")


def test_secrets_survive_the_database() -> None:
    """Encoding and decoding are inverse."""
    secrets = DeviceSecrets.generate()
    assert DeviceSecrets.decode(secrets.encode()) == secrets
    assert DeviceSecrets.generate() != secrets


def test_secrets_do_not_show() -> None:
    """Neither the device's nor its KEM key's repr holds a byte, nor does an error about them."""
    secrets = secrets_of("ada")
    assert repr(secrets) == "DeviceSecrets(…)"
    assert repr(secrets.kem) == "KemSecret(…)"
    with pytest.raises(BadRecord) as failed:
        DeviceSecrets.decode(secrets.encode()[:-1])
    assert str(failed.value) == "The device's secrets are damaged."


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_only_bad_record_escapes_the_decoder(data: bytes) -> None:
    """Whatever the database gives."""
    with pytest.raises(BadRecord):
        DeviceSecrets.decode(data)


@pytest.mark.parametrize(
    "data",
    [
        msgspec.msgpack.encode((2, *[bytes(32)] * 4)),
        msgspec.msgpack.encode((1, *[bytes(32)] * 3)),
        msgspec.msgpack.encode((1, *[bytes(32)] * 5)),
        msgspec.msgpack.encode((1, *[bytes(31)] * 4)),
    ],
)
def test_another_encoding_is_refused(data: bytes) -> None:
    """Another version, count or length."""
    with pytest.raises(BadRecord):
        DeviceSecrets.decode(data)


def test_a_secret_of_another_length_is_refused() -> None:
    """Nothing is padded."""
    with pytest.raises(ValueError, match="32 bytes"):
        DeviceSecrets(bytes(31), bytes(32), bytes(32), bytes(32))
    with pytest.raises(ValueError, match="32 bytes"):
        KemSecret(bytes(31))


def test_the_record_publishes_the_secrets_public_halves() -> None:
    """Each key in its field, and the KEM key by its hash."""
    secrets = ADA.secrets()
    record = decode_record(secrets.record(NETWORK, ADA.user.account, uid=ADA.uid, device=1, version=1))
    assert record.ed25519 == ed25519.public_of(secrets.ed25519) == secrets.ed25519_public
    assert record.x25519 == secrets.x25519_public
    assert record.signer == keys.address_of(secrets.signer)
    assert record.kem_hash == hashlib.sha256(secrets.kem_public).digest() == kem_hash(secrets.kem_public)


def test_the_x25519_identity_key_is_not_the_one_inside_of_x_wing() -> None:
    """Two protocols, two keys."""
    secrets = ADA.secrets()
    assert secrets.x25519_public != secrets.kem_public[-32:]


@pytest.mark.parametrize(
    "data", [b"", bytes(KEM_PUBLIC_BYTES - 1), bytes(KEM_PUBLIC_BYTES + 1), b"\xff" * KEM_PUBLIC_BYTES]
)
def test_what_is_no_kem_key_is_refused(data: bytes) -> None:
    """Another length, or coefficients outside of ML-KEM's field."""
    with pytest.raises(BadRecord):
        kem_public_key(data)
