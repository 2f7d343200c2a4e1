"""From a password to keys: Argon2id once, then HKDF under separate labels for login and vault.

The login key also mixes the account secret, 128 random bits that never leave the user's devices, so the
public verifier on the chain cannot be guessed offline. The vault's key comes from the password alone, since
the vault holds that secret; its salt is its own and never published.
"""

from __future__ import annotations

import os
import struct
import unicodedata
from collections.abc import Iterable

import msgspec
from nacl.bindings import crypto_pwhash_alg, crypto_pwhash_ALG_ARGON2ID13
from nacl.exceptions import CryptoError

from chatchain.crypto.derive import LOGIN_KEY, VAULT_KEY, hkdf
from chatchain.errors import BadRecord, LimitReached, UsageError
from chatchain.identity.keys import SECP256K1_N

ACCOUNT_SECRET_BYTES = 16
SALT_BYTES = 16
MIN_CHARACTERS = 8
MAX_PASSWORD_BYTES = 1024

MIN_SCORE = 1
"""zxcvbn's floor: 0 means guessed within a thousand tries. More is not asked for here because the verifier on
the chain is shielded by the account secret; the password guards this device's files."""

_ESTIMATED_CHARACTERS = 72
"""zxcvbn's time grows with the square of the length; a longer password is strong by its first part."""

KDF_VERSION = 1
_KDF = struct.Struct(">B16sBIB")
KDF_BYTES = _KDF.size
TIME_COST_LIMIT = 16
MEMORY_LIMIT_KIB = 1024 * 1024
MEMORY_FLOOR_KIB = 8 * 1024


class Kdf(msgspec.Struct, frozen=True):
    """Argon2id parameters, on the chain and in a vault: version ‖ salt ‖ t ‖ memory in KiB ‖ p."""

    salt: bytes
    time_cost: int = 3
    memory_kib: int = 64 * 1024
    parallelism: int = 1

    def encode(self) -> bytes:
        """Gives the 23 bytes."""
        return _KDF.pack(KDF_VERSION, self.salt, self.time_cost, self.memory_kib, self.parallelism)


def new_kdf() -> Kdf:
    """Draws a salt for the default profile: t=3, 64 MiB as RFC 9106 recommends, p=1 as libsodium has it."""
    return Kdf(os.urandom(SALT_BYTES))


def decode_kdf(data: bytes) -> Kdf:
    """Reads KDF parameters; raises BadRecord outside of the bounds: a file must not ask for all memory."""
    if len(data) != KDF_BYTES or data[0] != KDF_VERSION:
        raise BadRecord("The password parameters are of a kind that this program does not know.")
    _, salt, time_cost, memory_kib, parallelism = _KDF.unpack(data)
    if not (
        1 <= time_cost <= TIME_COST_LIMIT
        and MEMORY_FLOOR_KIB <= memory_kib <= MEMORY_LIMIT_KIB
        and parallelism == 1
    ):
        raise BadRecord("The password parameters are outside of the limits.")
    return Kdf(salt, time_cost, memory_kib, parallelism)


def login_key(password: str, account_secret: bytes, kdf: bytes) -> bytes:
    """Gives the secp256k1 secret that logs in, for the `kdf` bytes on the chain. Runs Argon2id (80 ms)."""
    if len(account_secret) != ACCOUNT_SECRET_BYTES:
        raise ValueError("an account secret has 16 bytes")
    wide = hkdf(_stretched(password, decode_kdf(kdf)) + account_secret, LOGIN_KEY, 48)
    # 384 bits reduced to a 256-bit range: the bias is below 2^-128 (RFC 9380, section 5)
    return (int.from_bytes(wide, "big") % (SECP256K1_N - 1) + 1).to_bytes(32, "big")


def vault_key(password: str, kdf: Kdf) -> bytes:
    """Gives the AES-256 key that the home's vault is sealed under. Runs Argon2id (80 ms)."""
    return hkdf(_stretched(password, kdf), VAULT_KEY)


def check_password(password: str, names: Iterable[str] = ()) -> None:
    """Raises UsageError, with advice, for a password that would fall at once; `names` count as guesses."""
    if not password:
        raise UsageError("The password is empty.", f"Choose at least {MIN_CHARACTERS} characters.")
    if len(password) < MIN_CHARACTERS:
        raise UsageError(
            f"The password has fewer than {MIN_CHARACTERS} characters.",
            "A few unrelated words make a good one.",
        )
    _password_bytes(password)
    from zxcvbn import zxcvbn

    found = zxcvbn(password[:_ESTIMATED_CHARACTERS], user_inputs=[name for name in names if name])
    if found["score"] < MIN_SCORE:
        feedback = found["feedback"]
        reason = str(feedback["warning"] or "It would be guessed within a thousand tries.")
        advice = " ".join(str(line) for line in feedback["suggestions"])
        raise UsageError(
            f"The password is too weak. {reason}", advice or "A few unrelated words make a good one."
        )


def _stretched(password: str, kdf: Kdf) -> bytes:
    try:
        return crypto_pwhash_alg(
            32,
            _password_bytes(password),
            kdf.salt,
            kdf.time_cost,
            kdf.memory_kib * 1024,
            crypto_pwhash_ALG_ARGON2ID13,
        )
    except (CryptoError, MemoryError) as exc:
        raise LimitReached(
            f"Too little memory is free to check the password; {kdf.memory_kib // 1024} MiB are needed."
        ) from exc


def _password_bytes(password: str) -> bytes:
    # Keyboards differ in how they compose letters: NFC makes the same password the same bytes (RFC 8265,
    # OpaqueString).
    try:
        data = unicodedata.normalize("NFC", password).encode()
    except UnicodeEncodeError as exc:
        raise UsageError("The password is not valid text.") from exc
    if len(data) > MAX_PASSWORD_BYTES:
        raise UsageError(f"The password is longer than {MAX_PASSWORD_BYTES} bytes.")
    return data
