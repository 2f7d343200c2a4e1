"""People who publish an RSA key and no device that speaks a suite of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import msgspec

from chatchain.crypto import rsa
from chatchain.identity.record import decode_record, sign_record
from chatchain.identity.record import encode_record as encode
from chatchain.model import DeviceState, KeyKind, KeyVersion, PublishedKey, User
from tests.identity.people import BLOCK_TIME, person

SECRETS: Final = {
    name: bytes.fromhex(secret)
    for name, secret in json.loads(
        (Path(__file__).parents[1] / "vectors" / "rsa_keys.json").read_text()
    ).items()
}
"""Fixed keys, since drawing one takes as long as everything else together."""


def published(name: str, *older: str, state: DeviceState = DeviceState.ACTIVE) -> PublishedKey:
    """The key of this name, in force after the older ones."""
    history = tuple(
        KeyVersion(version, rsa.public_of(SECRETS[which]), 10 * version, BLOCK_TIME + 3600 * version)
        for version, which in enumerate((*older, name), 1)
    )
    return PublishedKey(1, KeyKind.RSA2048_OAEP, state, bytes(32), history)


def rsa_user(name: str, *keys: PublishedKey, suites: int = 0) -> User:
    """Somebody with these keys (by default the one of that name) and a device that lists these suites."""
    plain = person(name)
    device = plain.user.devices[0]
    record = sign_record(
        msgspec.structs.replace(decode_record(device.current.record), suites=suites, signature=b""),
        plain.user.account,
        plain.secrets().ed25519,
    )
    version = msgspec.structs.replace(device.current, record=encode(record))
    listed = msgspec.structs.replace(device, history=(version,))
    return msgspec.structs.replace(plain.user, devices=(listed,), keys=keys or (published(name),))
