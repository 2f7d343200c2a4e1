"""Passwords: two separate keys, bounded parameters, and a floor against the obvious."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from chatchain.crypto import password
from chatchain.crypto.password import Kdf, check_password, decode_kdf, login_key, new_kdf, vault_key
from chatchain.errors import BadRecord, UsageError
from chatchain.identity.keys import SECP256K1_N, public_key

QUICK = Kdf(b"salt of 16 bytes", time_cost=1, memory_kib=8192)
SECRET = b"account secret16"


def test_kdf_parameters_survive() -> None:
    """23 bytes: version, salt, time, memory, parallelism."""
    kdf = new_kdf()
    assert (kdf.time_cost, kdf.memory_kib, kdf.parallelism) == (3, 65536, 1)
    assert decode_kdf(kdf.encode()) == kdf
    assert kdf.encode() == b"\x01" + kdf.salt + b"\x03" + b"\x00\x01\x00\x00" + b"\x01"
    assert new_kdf().salt != kdf.salt


@pytest.mark.parametrize(
    "kdf",
    [
        Kdf(bytes(16), time_cost=0),
        Kdf(bytes(16), time_cost=17),
        Kdf(bytes(16), memory_kib=0),
        Kdf(bytes(16), memory_kib=8191),
        Kdf(bytes(16), memory_kib=1024 * 1024 + 1),
        Kdf(bytes(16), memory_kib=2**32 - 1),
        Kdf(bytes(16), parallelism=0),
        Kdf(bytes(16), parallelism=2),
    ],
)
def test_parameters_outside_of_the_bounds_are_refused_before_use(kdf: Kdf) -> None:
    """A hostile chain or file cannot ask for all memory, nor for next to no work."""
    with pytest.raises(BadRecord, match="limits"):
        decode_kdf(kdf.encode())
    with pytest.raises(BadRecord, match="limits"):
        login_key("correct horse", SECRET, kdf.encode())


@pytest.mark.parametrize(
    "data", [b"", QUICK.encode()[:-1], QUICK.encode() + b"\0", b"\x02" + QUICK.encode()[1:]]
)
def test_parameters_of_another_form_are_refused(data: bytes) -> None:
    """Length and version."""
    with pytest.raises(BadRecord, match="kind"):
        decode_kdf(data)


def expected(info: bytes, length: int, mixed: bytes = b"") -> bytes:
    """The same derivation on another Argon2 library."""
    argon2 = Argon2id(salt=QUICK.salt, length=32, iterations=1, lanes=1, memory_cost=8192)
    stretched = argon2.derive(b"correct horse")
    return HKDF(SHA256(), length, None, info).derive(stretched + mixed)


def test_the_derivation_is_the_documented_one() -> None:
    """Argon2id, then HKDF-SHA256 under each label; the login scalar is reduced from 384 bits into 1..n-1."""
    assert vault_key("correct horse", QUICK) == expected(b"chatchain/1 vault key", 32)
    wide = int.from_bytes(expected(b"chatchain/1 login key", 48, SECRET), "big")
    assert login_key("correct horse", SECRET, QUICK.encode()) == (wide % (SECP256K1_N - 1) + 1).to_bytes(
        32, "big"
    )


def test_every_input_of_the_login_key_counts() -> None:
    """Password, account secret, salt and costs; and the key is a valid scalar."""
    kdfs = [QUICK, Kdf(bytes(16), 1, 8192), Kdf(QUICK.salt, 2, 8192), Kdf(QUICK.salt, 1, 8200)]
    found = {login_key("correct horse", SECRET, kdf.encode()) for kdf in kdfs}
    found.add(login_key("Correct horse", SECRET, QUICK.encode()))
    found.add(login_key("correct horse", bytes(16), QUICK.encode()))
    found.add(vault_key("correct horse", QUICK))
    assert len(found) == 7
    assert all(len(public_key(key)) == 64 for key in found)
    with pytest.raises(ValueError, match="16 bytes"):
        login_key("correct horse", b"", QUICK.encode())


def test_composed_and_decomposed_letters_are_one_password() -> None:
    """macOS and Linux keyboards may spell é differently."""
    assert vault_key("caf\u00e9 au lait", QUICK) == vault_key("cafe\u0301 au lait", QUICK)


@pytest.mark.parametrize("bad", ["x" * 1025, "\ud800 surrogate"])
def test_what_is_no_password_is_a_usage_error(bad: str) -> None:
    """Too long, or not text."""
    with pytest.raises(UsageError):
        vault_key(bad, QUICK)
    with pytest.raises(UsageError):
        check_password(bad)


@pytest.mark.parametrize(
    "weak", ["", "short", "1234567", "12345678", "password", "password123", "aaaaaaaa", "qwertyuiop"]
)
def test_a_password_that_would_fall_at_once_is_refused_with_advice(weak: str) -> None:
    """The error carries what to do instead."""
    with pytest.raises(UsageError) as refused:
        check_password(weak)
    assert refused.value.hint


def test_ones_own_name_is_no_password() -> None:
    """The username counts as the first guess."""
    check_password("lovelace-byron")
    with pytest.raises(UsageError, match="weak"):
        check_password("lovelace-byron", ["lovelace-byron"])


@pytest.mark.parametrize(
    "good", ["correct horse battery staple", "hunter2hunter2", "k8#Vn2!q", "x" * 3 + "Zq!7" * 60]
)
def test_a_password_that_stands_a_while_is_taken(good: str) -> None:
    """Only too weak ones are refused; a long one is judged by its first part."""
    check_password(good, ["ada", ""])


def test_the_floor_is_no_timing_trap() -> None:
    """zxcvbn's time grows quickly with the length: only the first 72 characters are estimated."""
    check_password("correct horse " * 70)
    assert password.MAX_PASSWORD_BYTES == 1024
