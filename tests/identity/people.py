"""People with fixed keys, as the chain would list them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import msgspec

from chatchain.crypto.device import DeviceSecrets
from chatchain.identity import keys
from chatchain.identity.login import verifier_for
from chatchain.identity.names import check_digit
from chatchain.model import Address, Device, DeviceId, DeviceState, DeviceVersion, Network, Uid, User

NETWORK = Network(
    chain_id=31337,
    directory=Address(b"\xd1" * 20),
    registry=Address(b"\x1d" * 20),
    membership=Address(b"\x3b" * 20),
)
OTHER_NETWORK = msgspec.structs.replace(NETWORK, chain_id=1)
OTHER_REGISTRY = msgspec.structs.replace(NETWORK, registry=Address(b"\x2d" * 20))

KDF = bytes([1]) + b"public salt 16 b" + bytes([3]) + (65536).to_bytes(4, "big") + bytes([1])
BLOCK_TIME = 1_700_000_000
"""Unix seconds of a first record's block; every later version follows an hour after the one before."""


def seed(*words: object) -> bytes:
    """Gives 32 fixed bytes for these words."""
    return hashlib.sha256("/".join(map(str, words)).encode()).digest()


def secrets_of(name: str, device: int = 1, version: int = 1) -> DeviceSecrets:
    """Gives the fixed secrets of one version of somebody's device."""
    x25519, ed25519, signer, kem = (
        seed(name, device, version, part) for part in ("x", "ed", "signer", "kem")
    )
    return DeviceSecrets(x25519, ed25519, signer, kem)


def uid_of(name: str) -> Uid:
    """Gives a fixed, valid uid."""
    body = 10**13 + int.from_bytes(seed(name, "uid"), "big") % (9 * 10**13)
    return Uid(body * 10 + check_digit(body))


@dataclass(frozen=True)
class Person:
    """A user together with all secrets."""

    user: User
    account_key: bytes
    login_key: bytes

    @property
    def name(self) -> str:
        return self.user.username

    @property
    def uid(self) -> Uid:
        return self.user.uid

    def secrets(self, device: int = 1, version: int | None = None) -> DeviceSecrets:
        """Gives the secrets of a device, by default in its current version."""
        if version is None:
            version = self.user.devices[device - 1].current.version
        return secrets_of(self.name, device, version)

    def rotated(self, device: int = 1) -> Person:
        """Gives the person after one more key update of a device, an hour after the last."""
        old = self.user.devices[device - 1]
        version = old.current.version + 1
        entry = device_version(self.name, self.user.account, self.uid, device, version)
        return self._with(msgspec.structs.replace(old, history=(*old.history, entry)))

    def revoked(self, device: int = 1) -> Person:
        """Gives the person after a device's revocation."""
        old = self.user.devices[device - 1]
        return self._with(
            msgspec.structs.replace(old, state=DeviceState.REVOKED, revoked_block=99, revoked_time=BLOCK_TIME)
        )

    def with_second_device(self) -> Person:
        """Gives the person with one more device."""
        return self._with(device_of(self.name, self.user.account, self.uid, len(self.user.devices) + 1))

    def _with(self, device: Device) -> Person:
        devices = {d.device: d for d in self.user.devices} | {device.device: device}
        user = msgspec.structs.replace(
            self.user,
            devices=tuple(devices[number] for number in sorted(devices)),
            device_list_version=self.user.device_list_version + 1,
        )
        return replace(self, user=user)


def device_version(name: str, account: Address, uid: int, device: int, version: int) -> DeviceVersion:
    """Gives one entry of a device's history; a registration's carries uid 0."""
    secrets = secrets_of(name, device, version)
    in_record = 0 if device == version == 1 else uid
    return DeviceVersion(
        version=version,
        signer=secrets.signer_address,
        record=secrets.record(NETWORK, account, uid=in_record, device=device, version=version),
        block=10 * version,
        time=BLOCK_TIME + 3600 * (version - 1),
    )


def device_of(name: str, account: Address, uid: int, device: int) -> Device:
    """Gives an active device in its first version."""
    return Device(
        uid=Uid(uid),
        device=DeviceId(device),
        state=DeviceState.ACTIVE,
        head=bytes(32),
        history=(device_version(name, account, uid, device, 1),),
    )


def person(name: str) -> Person:
    """Gives somebody with one device."""
    account_key = seed(name, "account")
    login_key = seed(name, "login")
    account = keys.address_of(account_key)
    uid = uid_of(name)
    user = User(
        uid=uid,
        username=name,
        account=account,
        recovery=Address(bytes(20)),
        epoch=0,
        verifier=verifier_for(login_key, KDF),
        kdf=KDF,
        devices=(device_of(name, account, uid, 1),),
        device_list_version=1,
        block=10,
        time=BLOCK_TIME,
    )
    return Person(user, account_key, login_key)
