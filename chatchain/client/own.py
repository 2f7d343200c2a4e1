"""Who this home is, as the machines need it: uid, device, network and the device's secrets by version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chatchain.client.ports import Store
from chatchain.crypto.device import DeviceSecrets, KemSecret
from chatchain.errors import BadRecord, LoginRefused
from chatchain.model import Device, DeviceId, DeviceState, Network, OwnKeys, Uid, User

KEEP_SUPERSEDED_MS: Final = 30 * 24 * 3600 * 1000
"""How long the secrets of superseded keys are kept, to read what was under way or waited at a relay."""


@dataclass(frozen=True)
class Own:
    """This home's place on the chain, with the secrets of the version in force."""

    network: Network
    uid: Uid
    device: DeviceId
    version: int
    secrets: DeviceSecrets
    readers: tuple[KemSecret, ...]
    """Every key that may open something, the one in force first."""


def own_device(user: User, device: DeviceId) -> Device:
    """This home's device as the chain lists it; raises LoginRefused when it is not, or not any more."""
    found = next((entry for entry in user.devices if entry.device == device), None)
    if found is None:
        raise LoginRefused(
            f"The chain lists no device {device} of {user.username}.",
            "Restore it in a new home: `chatchain register NAME --mnemonic-file F`.",
        )
    if found.state is not DeviceState.ACTIVE:
        raise LoginRefused(
            f"This home, device {device} of {user.username}, was revoked at block {found.revoked_block}.",
            "What is stored here can still be read; a new home needs the recovery phrase.",
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
            "Was this home restored from an old copy? Restore it from the recovery phrase as a new device.",
        )
    others: list[OwnKeys] = [keys for keys in kept if keys.version != listed.current.version]
    readers = (secrets.kem, *(DeviceSecrets.decode(keys.secret).kem for keys in others))
    return Own(network, user.uid, device, listed.current.version, secrets, readers)


def _is_due(keys: OwnKeys, in_force: int, now_ms: int) -> bool:
    if not keys.retired_ms:
        return keys.version < in_force
    return keys.retired_ms < now_ms - KEEP_SUPERSEDED_MS
