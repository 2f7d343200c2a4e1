"""Keystore V3: what leaves a home opens elsewhere, and what comes in is bounded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from eth_account import Account

from chatchain.crypto.keystore import account_secret_in, export_keystore, import_keystore
from chatchain.errors import UsageError, WrongPassword

KEY = b"\x11" * 32
SECRET = b"account secret16"

# A keystore made by geth's documentation (Web3 Secret Storage Definition, PBKDF2 vector).
PUBLISHED = {
    "crypto": {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": "6087dab2f9fdbbfaddc31a909735c1e6"},
        "ciphertext": "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
        "kdf": "pbkdf2",
        "kdfparams": {
            "c": 262144,
            "dklen": 32,
            "prf": "hmac-sha256",
            "salt": "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd",
        },
        "mac": "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2",
    },
    "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
    "version": 3,
}


# The other vector of the same page.
PUBLISHED_SCRYPT = PUBLISHED | {
    "crypto": {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": "83dbcc02d8ccb40e466191a123791e0e"},
        "ciphertext": "d172bf743a674da9cdad04534d56926ef8358534d458fffccd4e6ad2fbde479c",
        "kdf": "scrypt",
        "kdfparams": {
            "dklen": 32,
            "n": 262144,
            "p": 8,
            "r": 1,
            "salt": "ab0c7876052600dd703518d6fc3fe8984592145b591fc8fb5c6d43190334ba19",
        },
        "mac": "2103ac29920d71da29f15d75b4a16dbe95cfd7ff8faea1056c33131d846e3097",
    }
}


def test_an_exported_key_comes_back() -> None:
    """The file is V3 with scrypt, and a wrong password is told as such."""
    text = export_keystore(KEY, SECRET, "correct horse")
    assert json.loads(text)["version"] == 3
    assert import_keystore(text, "correct horse") == KEY
    assert bytes(Account.decrypt(text, "correct horse")) == KEY
    with pytest.raises(WrongPassword):
        import_keystore(text, "wrong horse")


@pytest.mark.parametrize("published", [PUBLISHED, PUBLISHED_SCRYPT], ids=["PBKDF2", "scrypt"])
def test_the_published_keystore_opens(published: dict[str, object]) -> None:
    """Known answers of the Web3 Secret Storage Definition."""
    found = import_keystore(json.dumps(published), "testpassword")
    assert found.hex() == "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d"


def changed(**parameters: Any) -> str:
    """The published keystore with other KDF parameters."""
    crypto: dict[str, Any] = dict(PUBLISHED["crypto"])  # type: ignore[call-overload]  # the value is a dict
    return json.dumps(PUBLISHED | {"crypto": crypto | {"kdfparams": crypto["kdfparams"] | parameters}})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        "not json",
        "[" * 100_000,
        "x" * 70_000,
        json.dumps(PUBLISHED | {"version": 1}),
        json.dumps(PUBLISHED | {"crypto": None}),
        json.dumps(PUBLISHED | {"crypto": {"kdfparams": []}}),
        json.dumps(PUBLISHED | {"crypto": {"kdfparams": {}}}),
        changed(c=10**12),
        changed(c="262144"),
        changed(c=True),
        changed(dklen=10**9),
        changed(n=2**30),
        changed(prf=5),
    ],
)
def test_a_malformed_or_hostile_keystore_is_a_usage_error(text: str) -> None:
    """Refused before any work is done for it."""
    with pytest.raises(UsageError):
        import_keystore(text, "testpassword")


CARRIED = ("000102030405060708090a0b", "e1134eb752aeb2e6b3310faabf7ce351", "a9c54a7e0f3ae61c592bf4aa1a3a94f2")
"""Nonce, sealed secret and tag, as docs/protocol.md quotes them for this key and secret."""


def carrying(sealed: object) -> str:
    """A keystore that carries this in the place of the account secret."""
    return json.dumps(PUBLISHED | {"chatchain": {"account_secret": sealed}})


def test_a_keystore_of_ours_carries_the_account_secret() -> None:
    """For whoever can open it, and for nobody with another key."""
    text = export_keystore(KEY, SECRET, "correct horse")
    assert account_secret_in(text, KEY) == SECRET
    assert account_secret_in(text, b"\x12" * 32) is None
    assert SECRET.hex() not in text
    assert export_keystore(KEY, SECRET, "correct horse") != text


def test_what_is_carried_is_what_the_protocol_says() -> None:
    """The document's example opens, and is spelled out again from its text."""
    assert account_secret_in(carrying("".join(CARRIED)), KEY) == SECRET
    label = b"chatchain/1 keystore secret"
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=label).derive(KEY)
    nonce, *sealed = map(bytes.fromhex, CARRIED)
    assert AESGCM(derived).encrypt(nonce, SECRET, label) == b"".join(sealed)
    protocol = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
    assert all(part in protocol for part in CARRIED)


@pytest.mark.parametrize(
    "sealed",
    [
        "",
        "00",
        "zz",
        7,
        None,
        ["00"],
        "00" * 12,
        "00" * 44,
        "".join(CARRIED)[:-2],
        "ff" + "".join(CARRIED)[2:],
    ],
)
def test_a_secret_that_was_altered_is_none(sealed: object) -> None:
    """Nobody's bytes become an account secret."""
    assert account_secret_in(carrying(sealed), KEY) is None


@pytest.mark.parametrize("ours", [None, 7, [], "account_secret", {}])
def test_other_programs_keystores_carry_none(ours: object) -> None:
    """Whatever stands where ours would."""
    assert account_secret_in(json.dumps(PUBLISHED), KEY) is None
    assert account_secret_in(json.dumps(PUBLISHED | {"chatchain": ours}), KEY) is None
