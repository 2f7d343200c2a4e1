"""What lies in a home, or is brought to one: damaged, cut short, or made by somebody else."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from chatchain.client.home import Home, OwnAccount
from chatchain.crypto import vault
from chatchain.crypto.device import DeviceSecrets
from chatchain.crypto.keystore import import_keystore
from chatchain.crypto.password import decode_kdf, new_kdf
from chatchain.errors import BadConfig, BadRecord, UsageError, WrongPassword
from tests.crypto.test_vault import ACCOUNT, VAULT
from tests.fuzz.target import field, target
from tests.identity.people import person

PASSWORD: Final = "correct horse"


PBKDF2: Final = {
    "cipher": "aes-128-ctr",
    "cipherparams": {"iv": "04f2513d72b8aed7277acc68f333823f"},
    "ciphertext": "829af446014691d05f6421cc3c8f05ab3a87afef559ed14d7fa43c94327fc35b",
    "kdf": "pbkdf2",
    "kdfparams": {"c": 1, "dklen": 32, "prf": "hmac-sha256", "salt": "0cb34882e8fbb3f5537e6f114f3a6ad0"},
    "mac": "a98e934a6db37b542134f41bccfb32f0210bb80d1792442feed9f0625c43ddf3",
}
SCRYPT: Final = {
    "cipher": "aes-128-ctr",
    "cipherparams": {"iv": "3f4ebceed9736708c8525c4761f99143"},
    "ciphertext": "da4cbed97e36984b2a70e831433e058f89a0adece75ea2eab675ec171ca133de",
    "kdf": "scrypt",
    "kdfparams": {"dklen": 32, "n": 2, "r": 8, "p": 1, "salt": "7cad180c670953ffb1e575efb2fcbdc4"},
    "mac": "6886b01e05c216ecba32e611a001148e4aa67f5ac1fe1459eea12eba5c41d494",
}
"""Keystores under the password that ask for next to no work."""


@target(BadRecord, WrongPassword, seeds=[VAULT])
def vault_file(data: bytes) -> None:
    """The vault, with any password's work bounded before it is done."""
    if data[16:39] in (b"", VAULT[16:39]):  # others may ask for seconds of work, which is lawful
        assert vault.seal_vault(vault.open_vault(data, PASSWORD), PASSWORD, decode_kdf(data[16:39]))
    else:
        decode_kdf(data[16:39])


@target(BadRecord, seeds=[ACCOUNT, *field("vault.json", "account_file")])
def account_key(data: bytes) -> None:
    """The account's key under the vault's."""
    assert len(vault.open_account_key(b"k" * 32, data)) == 32


@target(BadRecord, seeds=[new_kdf().encode(), *field("password.json", "kdf")])
def kdf(data: bytes) -> None:
    """A password's parameters, from a file or the chain."""
    assert decode_kdf(data).encode() == data


@target(BadRecord, seeds=[person("ada").secrets().encode()])
def device_secrets(data: bytes) -> None:
    """A device's keys out of its database."""
    DeviceSecrets.decode(data)


@target(
    UsageError,
    WrongPassword,
    seeds=[json.dumps({"crypto": crypto, "version": 3}).encode() for crypto in (PBKDF2, SCRYPT)],
)
def keystore(data: bytes) -> None:
    """A keystore file; only such as cost little, since any allowed cost is lawful."""
    text = data.decode("latin-1")
    try:
        parameters = json.loads(text)["crypto"]["kdfparams"]
        costs = [parameters.get(name, 1) for name in "nrpc"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        costs = []
    if all(isinstance(cost, int) and cost < 4096 for cost in costs):
        import_keystore(text, PASSWORD)


def home(folder: str, name: str, data: bytes) -> Home:
    """A home with one such file."""
    (Path(folder) / name).write_bytes(data)
    return Home(Path(folder))


NETWORK_FILE: Final = {"rpc": ["http://127.0.0.1:8545"], "directory": "0x" + "d1" * 20, "chain_id": 31337}


@target(BadConfig, seeds=[json.dumps(NETWORK_FILE).encode()])
def network_file(data: bytes) -> None:
    """What a home says of its network."""
    with tempfile.TemporaryDirectory() as folder:
        home(folder, "network.json", data).network()


@target(
    BadConfig, seeds=[msgspec.json.encode(OwnAccount("ada", "0x" + "9b" * 20, 31337, "0x" + "d1" * 20, 7))]
)
def account_file(data: bytes) -> None:
    """What a home says of its account."""
    with tempfile.TemporaryDirectory() as folder:
        home(folder, "account.json", data).account()
