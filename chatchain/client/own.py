"""Who this home is, as the machines need it: uid, device, network and the device's secrets by version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chatchain.client.ports import Store
from chatchain.client.times import second_text
from chatchain.crypto.device import DeviceSecrets, KemSecret
from chatchain.crypto.pqxdh import Party
from chatchain.errors import BadRecord, LoginRefused
from chatchain.identity.record import SUPERSEDED_GRACE_MS, device_record, lists
from chatchain.model import Device, DeviceId, DeviceState, Network, OwnKeys, Suite, Uid, User

KEEP_SUPERSEDED_MS: Final = 30 * 24 * 3600 * 1000
"""How long the secrets of superseded keys are kept, to read what was under way or waited at a relay."""


_WAY_BACK: Final = (
    "To go on, link a new home from another device (`chatchain --home NEW-FOLDER link NAME`), "
    "or bring the account back with its recovery phrase (`chatchain --home NEW-FOLDER recover`)."
)


@dataclass(frozen=True)
class Identity:
    """One version of this device: its secrets, and what the chain shows of it."""

    secrets: DeviceSecrets
    party: Party
    until_ms: int | None
    """Up to when something may have been sent to it; None for the version in force."""


@dataclass(frozen=True)
class Own:
    """This home's place on the chain, with the secrets of every version that may still open something."""

    network: Network
    uid: Uid
    device: DeviceId
    identities: tuple[Identity, ...]
    """The versions whose secrets are here, the one in force first."""
    ratchet_since_ms: int | None
    """From when on everybody could know that this device speaks suite 2; None if it does not."""

    @property
    def identity(self) -> Identity:
        """The version in force."""
        return self.identities[0]

    @property
    def version(self) -> int:
        """The number of the version in force."""
        return self.identity.party.record.version

    @property
    def secrets(self) -> DeviceSecrets:
        """The secrets of the version in force."""
        return self.identity.secrets

    @property
    def readers(self) -> tuple[KemSecret, ...]:
        """Every key that may open something sealed with suite 1, the one in force first."""
        return tuple(one.secrets.kem for one in self.identities)

    def identity_of(self, version: int) -> Identity | None:
        """A version of this device, if its secrets are still here."""
        return next((one for one in self.identities if one.party.record.version == version), None)


def own_device(user: User, device: DeviceId) -> Device:
    """This home's device as the chain lists it; raises LoginRefused when it is not, or not any more."""
    found = next((entry for entry in user.devices if entry.device == device), None)
    if found is None:
        raise LoginRefused(
            f"The chain lists no device {device} of {user.username}.",
            _WAY_BACK,
        )
    if found.state is not DeviceState.ACTIVE:
        raise LoginRefused(
            f"This home, device {device} of {user.username}, was revoked at block {found.revoked_block} "
            f"({second_text(found.revoked_time)}): it can neither read what comes nor speak for the account.",
            f"What is stored here can still be read (`chatchain history PEER`). {_WAY_BACK}",
        )
    return found


def load_own(store: Store, network: Network, user: User, device: DeviceId, now_ms: int) -> Own:
    """Takes the secrets of the version that the chain has in force and retires those before it."""
    listed = own_device(user, device)
    kept = store.own_keys()
    if any(_is_due(keys, listed.current.version, now_ms) for keys in kept):
        store.retire_own_keys(listed.current.version, now_ms, KEEP_SUPERSEDED_MS)
        kept = store.own_keys()
    current = next((keys for keys in kept if keys.version == listed.current.version), None)
    secrets = DeviceSecrets.decode(current.secret) if current is not None else None
    if secrets is None or secrets.signer_address != listed.current.signer:
        raise BadRecord(
            f"This home does not hold version {listed.current.version} of its keys, which the chain has.",
            "Was this home restored from an old copy, or does a copy of it run elsewhere? Only one can be "
            "the device: bring the account back in a new home (`chatchain --home NEW-FOLDER recover`).",
        )
    others = [(keys.version, DeviceSecrets.decode(keys.secret)) for keys in kept]
    identities = [
        _identity(network, user, listed, version, one)
        for version, one in [
            (listed.current.version, secrets),
            *(other for other in others if other[0] < listed.current.version),
        ]
    ]
    return Own(network, user.uid, device, tuple(identities), _ratchet_since_ms(network, user, listed))


def _identity(network: Network, user: User, device: Device, version: int, secrets: DeviceSecrets) -> Identity:
    entry = next(one for one in device.history if one.version == version)
    party = Party(user.uid, device_record(network, user, device, entry))
    successor = next((one for one in device.history if one.version > version), None)
    until = successor.time * 1000 + SUPERSEDED_GRACE_MS if successor is not None else None
    return Identity(secrets, party, until)


def _ratchet_since_ms(network: Network, user: User, device: Device) -> int | None:
    """When this device began to list suite 2 without a break since, and the grace."""
    since = None
    for entry in reversed(device.history):
        if not lists(device_record(network, user, device, entry), Suite.RATCHET):
            break
        since = entry.time * 1000 + SUPERSEDED_GRACE_MS
    return since


def _is_due(keys: OwnKeys, in_force: int, now_ms: int) -> bool:
    if not keys.retired_ms:
        return keys.version < in_force
    return keys.retired_ms < now_ms - KEEP_SUPERSEDED_MS
