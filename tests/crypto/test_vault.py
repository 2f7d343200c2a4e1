"""The vault opens under its password alone, and tells damage from a wrong password."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatchain.crypto.password import Kdf, decode_kdf, login_key
from chatchain.crypto.vault import (
    ACCOUNT_KEY_BYTES,
    VAULT_BYTES,
    Secrets,
    new_secrets,
    open_account_key,
    open_vault,
    seal_account_key,
    seal_vault,
    with_new_password,
)
from chatchain.errors import BadRecord, WrongPassword

QUICK = Kdf(b"vault salt 16 by", time_cost=1, memory_kib=8192)
SECRETS = Secrets(b"a" * 16, b"d" * 32, b"k" * 32, b"l" * 32, Kdf(b"login salt 16 by").encode())
VAULT = seal_vault(SECRETS, "correct horse", QUICK)


def test_a_vault_opens_under_its_password() -> None:
    """All secrets come back."""
    assert len(VAULT) == VAULT_BYTES
    assert open_vault(VAULT, "correct horse") == SECRETS


@pytest.mark.parametrize("password", ["", "correct hors", "Correct horse", "correct horse "])
def test_a_wrong_password_is_told(password: str) -> None:
    """It is not taken for damage."""
    with pytest.raises(WrongPassword):
        open_vault(VAULT, password)


@pytest.mark.parametrize("position", range(VAULT_BYTES))
def test_every_altered_byte_is_damage(position: int) -> None:
    """Wherever the disk or somebody changed it: the right password is not blamed."""
    data = bytearray(VAULT)
    data[position] ^= 0x01
    with pytest.raises(BadRecord, match="damaged"):
        open_vault(bytes(data), "correct horse")


@pytest.mark.parametrize("length", [0, 1, 16, 39, 51, VAULT_BYTES - 32, VAULT_BYTES - 1])
def test_a_truncated_vault_is_damage(length: int) -> None:
    """Also an empty file."""
    with pytest.raises(BadRecord, match="truncated"):
        open_vault(VAULT[:length], "correct horse")


def test_parameters_cannot_be_weakened_with_a_fresh_checksum() -> None:
    """The checksum is public; the parameters are bound by the encryption, and bounded."""

    def patched(kdf: Kdf) -> bytes:
        body = VAULT[:16] + kdf.encode() + VAULT[39:-32]
        return body + hashlib.sha256(body).digest()

    assert open_vault(patched(QUICK), "correct horse") == SECRETS
    with pytest.raises(WrongPassword):
        open_vault(patched(Kdf(QUICK.salt, 2, 8192)), "correct horse")
    with pytest.raises(BadRecord, match="limits"):
        open_vault(patched(Kdf(QUICK.salt, 1, 2**32 - 1)), "correct horse")


@given(st.binary(max_size=2 * VAULT_BYTES))
@settings(deadline=None)
def test_only_documented_errors_escape(data: bytes) -> None:
    """Whatever is in the file."""
    with pytest.raises(BadRecord):
        open_vault(data, "correct horse")
    with pytest.raises(BadRecord):
        open_vault(VAULT[:16] + data, "correct horse")


def test_two_vaults_of_the_same_secrets_differ() -> None:
    """Salt and nonce are fresh."""
    first, second = seal_vault(SECRETS, "correct horse"), seal_vault(SECRETS, "correct horse")
    assert first[16:39] != second[16:39]
    assert open_vault(first, "correct horse") == open_vault(second, "correct horse")


def test_a_new_home_and_a_new_password() -> None:
    """A password change keeps all keys but the login key, which gets a salt of its own."""
    secrets = new_secrets("correct horse", b"s" * 16)
    assert secrets.login_key == login_key("correct horse", b"s" * 16, secrets.kdf)
    changed = with_new_password(secrets, "battery staple")
    assert changed.login_key == login_key("battery staple", b"s" * 16, changed.kdf)
    assert decode_kdf(changed.kdf).salt != decode_kdf(secrets.kdf).salt
    kept = ("account_secret", "database_key", "keystore_key")
    assert [getattr(changed, field) for field in kept] == [getattr(secrets, field) for field in kept]


def test_secrets_do_not_show() -> None:
    """Neither repr nor str nor a format carries a byte of them."""
    for shown in (repr(SECRETS), str(SECRETS), f"{SECRETS!r:>40}"):
        assert "ddd" not in shown
        assert shown.strip() == "Secrets(…)"


def test_malformed_secrets_are_not_sealed() -> None:
    """A slip of the caller must not become an unreadable home."""
    with pytest.raises(ValueError, match="wrong length"):
        seal_vault(Secrets(b"", b"d" * 32, b"k" * 32, b"l" * 32, SECRETS.kdf), "correct horse", QUICK)


ACCOUNT = seal_account_key(b"k" * 32, b"x" * 32)


def test_the_account_key_file_opens_under_the_keystore_key() -> None:
    """And under no other."""
    assert open_account_key(b"k" * 32, ACCOUNT) == b"x" * 32
    assert b"x" * 8 not in ACCOUNT
    with pytest.raises(BadRecord, match="another home"):
        open_account_key(b"K" * 32, ACCOUNT)
    with pytest.raises(ValueError, match="32 bytes"):
        seal_account_key(b"k" * 32, b"x" * 31)


@pytest.mark.parametrize("position", range(ACCOUNT_KEY_BYTES))
def test_an_altered_account_key_file_is_damage(position: int) -> None:
    """Every byte counts."""
    data = bytearray(ACCOUNT)
    data[position] ^= 0x80
    with pytest.raises(BadRecord):
        open_account_key(b"k" * 32, bytes(data))


@pytest.mark.parametrize(
    "data", [b"", ACCOUNT[:-1], ACCOUNT + b"\0", bytes(200)], ids=["empty", "short", "long", "longer"]
)
def test_an_account_key_file_of_another_length_is_damage(data: bytes) -> None:
    """Truncated, empty or with a tail."""
    with pytest.raises(BadRecord):
        open_account_key(b"k" * 32, data)
