"""The vault: the secrets of one home, sealed under its password.

It holds keys, not data: the account secret, the database's key, the key of the local account-key file and the
login key, so that opening a home costs one Argon2id run. Byte layout: docs/protocol.md. A SHA-256 over the
file tells damage from a wrong password; it adds nothing against an attacker and takes nothing away.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass, replace

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chatchain.crypto import password as passwords
from chatchain.crypto.password import ACCOUNT_SECRET_BYTES, KDF_BYTES, Kdf, decode_kdf, new_kdf
from chatchain.errors import BadRecord, WrongPassword

VAULT_MAGIC = b"chatchain vault\x01"
ACCOUNT_KEY_MAGIC = b"chatchain akey\x01"

_NONCE = 12
_TAG = 16
_CHECKSUM = 32
_SECRETS = ACCOUNT_SECRET_BYTES + 3 * 32 + KDF_BYTES
VAULT_BYTES = len(VAULT_MAGIC) + KDF_BYTES + _NONCE + _SECRETS + _TAG + _CHECKSUM
ACCOUNT_KEY_BYTES = len(ACCOUNT_KEY_MAGIC) + _NONCE + 32 + _TAG


@dataclass(frozen=True, slots=True, repr=False)
class Secrets:
    """What a password opens. `kdf` are the public parameters that `login_key` was made with."""

    account_secret: bytes
    database_key: bytes
    keystore_key: bytes
    login_key: bytes
    kdf: bytes

    def __repr__(self) -> str:
        return "Secrets(…)"


def new_secrets(password: str, account_secret: bytes) -> Secrets:
    """Draws the keys of a new home and derives its login key."""
    kdf = new_kdf().encode()
    return Secrets(
        account_secret=account_secret,
        database_key=os.urandom(32),
        keystore_key=os.urandom(32),
        login_key=passwords.login_key(password, account_secret, kdf),
        kdf=kdf,
    )


def with_new_password(secrets: Secrets, password: str) -> Secrets:
    """Gives the same secrets with a login key for another password, under a fresh salt."""
    kdf = new_kdf().encode()
    return replace(secrets, login_key=passwords.login_key(password, secrets.account_secret, kdf), kdf=kdf)


def seal_vault(secrets: Secrets, password: str, kdf: Kdf | None = None) -> bytes:
    """Seals the secrets under the password; the salt is fresh unless `kdf` is given."""
    parameters = kdf or new_kdf()
    head = VAULT_MAGIC + parameters.encode()
    nonce = os.urandom(_NONCE)
    plain = (
        secrets.account_secret + secrets.database_key + secrets.keystore_key + secrets.login_key + secrets.kdf
    )
    if len(plain) != _SECRETS:
        raise ValueError("a secret has the wrong length")
    box = AESGCM(passwords.vault_key(password, parameters)).encrypt(nonce, plain, head)
    body = head + nonce + box
    return body + hashlib.sha256(body).digest()


def open_vault(data: bytes, password: str) -> Secrets:
    """Gives the secrets back; raises WrongPassword, or BadRecord when the file itself is damaged."""
    body, checksum = data[:-_CHECKSUM], data[-_CHECKSUM:]
    if (
        len(data) != VAULT_BYTES
        or not data.startswith(VAULT_MAGIC)
        or not hmac.compare_digest(hashlib.sha256(body).digest(), checksum)
    ):
        raise BadRecord(
            "The vault of this home is damaged or truncated; the password was not tried.",
            "Restore the file from a backup, or the account from its recovery phrase.",
        )
    head_end = len(VAULT_MAGIC) + KDF_BYTES
    kdf = decode_kdf(data[len(VAULT_MAGIC) : head_end])
    nonce, box = body[head_end : head_end + _NONCE], body[head_end + _NONCE :]
    try:
        plain = AESGCM(passwords.vault_key(password, kdf)).decrypt(nonce, box, body[:head_end])
    except InvalidTag:
        raise WrongPassword("The password is wrong.") from None
    secret = ACCOUNT_SECRET_BYTES
    return Secrets(
        account_secret=plain[:secret],
        database_key=plain[secret : secret + 32],
        keystore_key=plain[secret + 32 : secret + 64],
        login_key=plain[secret + 64 : secret + 96],
        kdf=plain[secret + 96 :],
    )


def seal_account_key(keystore_key: bytes, account_key: bytes) -> bytes:
    """Seals the account's key for the local file: AES-256-GCM under the vault's keystore key."""
    if len(account_key) != 32:
        raise ValueError("an account key has 32 bytes")
    nonce = os.urandom(_NONCE)
    return ACCOUNT_KEY_MAGIC + nonce + AESGCM(keystore_key).encrypt(nonce, account_key, ACCOUNT_KEY_MAGIC)


def open_account_key(keystore_key: bytes, data: bytes) -> bytes:
    """Gives the account's key back; raises BadRecord when the file is damaged or belongs to another vault."""
    start = len(ACCOUNT_KEY_MAGIC)
    if len(data) == ACCOUNT_KEY_BYTES and data.startswith(ACCOUNT_KEY_MAGIC):
        try:
            return AESGCM(keystore_key).decrypt(
                data[start : start + _NONCE], data[start + _NONCE :], ACCOUNT_KEY_MAGIC
            )
        except InvalidTag:
            pass
    raise BadRecord(
        "The account key file is damaged or belongs to another home.",
        "Restore the file from a backup, or the account from its recovery phrase.",
    )
