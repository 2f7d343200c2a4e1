"""Keystore V3 files, which geth, cast and wallets open: how an account key leaves or enters a home.

One of ours carries the account secret besides, sealed under a key that is derived from the account's: without
it whoever comes back with the file would have to draw another, and shut every other device out. Other
programs pass over what they do not know.
"""

from __future__ import annotations

import json
import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chatchain.crypto.derive import KEYSTORE_SECRET, hkdf
from chatchain.crypto.password import ACCOUNT_SECRET_BYTES
from chatchain.errors import UsageError, WrongPassword

MAX_KEYSTORE_BYTES = 64 * 1024
_MAX_SCRYPT_N = 1 << 20
_MAX_PBKDF2_ROUNDS = 10_000_000

_OURS: Final = "chatchain"
_SEALED: Final = "account_secret"
_NONCE: Final = 12


def export_keystore(account_key: bytes, account_secret: bytes, password: str) -> str:
    """Writes the account key as keystore V3 JSON (scrypt, n=262144: about 0.7 s). Imports eth_account."""
    from eth_account import Account

    nonce = os.urandom(_NONCE)
    key = hkdf(account_key, KEYSTORE_SECRET)
    sealed = nonce + AESGCM(key).encrypt(nonce, account_secret, KEYSTORE_SECRET)
    return json.dumps(Account.encrypt(account_key, password) | {_OURS: {_SEALED: sealed.hex()}})


def account_secret_in(text: str, account_key: bytes) -> bytes | None:
    """The account secret that a keystore of ours carries; None in another program's, or an altered one."""
    field = _bounded(text).get(_OURS)
    sealed = field.get(_SEALED) if isinstance(field, dict) else None
    try:
        data = bytes.fromhex(sealed) if isinstance(sealed, str) else b""
        if len(data) < _NONCE:
            return None
        key = hkdf(account_key, KEYSTORE_SECRET)
        secret = AESGCM(key).decrypt(data[:_NONCE], data[_NONCE:], KEYSTORE_SECRET)
    except (ValueError, InvalidTag):
        return None
    return secret if len(secret) == ACCOUNT_SECRET_BYTES else None


def import_keystore(text: str, password: str) -> bytes:
    """Reads an account key from keystore V3 JSON; raises UsageError or WrongPassword. Imports eth_account."""
    content = _bounded(text)
    from eth_account import Account

    try:
        return bytes(Account.decrypt(content, password))
    # The library takes the file's fields as they come, and raises whatever it runs into where one is strange.
    except (ValueError, LookupError, TypeError, AttributeError, NotImplementedError, AssertionError) as exc:
        if str(exc) == "MAC mismatch":
            raise WrongPassword("The password does not open this keystore file.") from None
        raise UsageError("The keystore file is not a keystore V3 file that this program can read.") from exc


def _bounded(text: str) -> dict[str, object]:
    """Refuses what would cost without end before any key derivation starts."""
    refused = UsageError("The keystore file is not a keystore V3 file that this program can read.")
    if len(text) > MAX_KEYSTORE_BYTES:
        raise refused
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise refused from exc
    if not isinstance(content, dict):
        raise refused
    crypto = content.get("crypto", content.get("Crypto"))
    parameters = crypto.get("kdfparams") if isinstance(crypto, dict) else None
    if not isinstance(parameters, dict):
        raise refused
    limits = {"n": _MAX_SCRYPT_N, "r": 64, "p": 64, "c": _MAX_PBKDF2_ROUNDS, "dklen": 64}
    for name, limit in limits.items():
        value = parameters.get(name, 1)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limit:
            raise refused
    return content
