"""The keys of an account's devices: listed, given anew, ended."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chatchain.client.acting import Acting
from chatchain.client.paying import SIGNATURE_LASTS_S, Paid
from chatchain.client.session import made_up_for_later
from chatchain.client.times import second_text
from chatchain.client.views import KeyView
from chatchain.crypto.device import DeviceSecrets
from chatchain.errors import AlreadyDone, UnknownDevice, UnknownUser
from chatchain.identity.keys import sign_digest, to_checksum
from chatchain.identity.record import DeviceRecord, decode_record
from chatchain.identity.typed_data import revoke_device_digest, update_device_digest
from chatchain.model import Call, Device, DeviceState, OwnKeys, Uid

if TYPE_CHECKING:
    from chatchain.client.station import Station

FINGERPRINT_HEX: Final = 32
"""Hex digits shown of SHA-256 of a device's Ed25519 key: 128 bits, to compare two devices of one's own."""


@dataclass(frozen=True)
class Devices(Acting):
    """What this user may change about devices."""

    async def rotate(self) -> KeyView:
        """Gives this device new keys. They are stored here before the chain hears of them."""
        version = self.own.version + 1
        kept = next((keys for keys in self.store.own_keys() if keys.version == version), None)
        if kept is None:  # else an earlier rotation broke off before it was mined
            kept = OwnKeys(version, DeviceSecrets.generate().encode())
            self.store.put_own_keys(kept)
        secrets = DeviceSecrets.decode(kept.secret)
        device, signer = self.own.device, secrets.signer_address
        record = secrets.record(
            self.own.network, self.me.account, uid=self.me.uid, device=device, version=version
        )

        async def signed() -> Call:
            deadline = int(self.now()) + SIGNATURE_LASTS_S
            digest = update_device_digest(
                self.own.network, self.me.uid, self.me.epoch, device, version, signer, record, deadline
            )
            by = self.own.secrets
            return self.calls.update_device_for(
                self.me.uid,
                device,
                version,
                signer,
                record,
                deadline,
                by.signer_address,
                sign_digest(by.signer, digest),
            )

        paid = await self.payer.carry_out(
            self.calls.update_device(device, version, signer, record), self.account_key, signed
        )
        found = await self.watch.until(
            lambda: self._device(device, lambda listed: listed.current.version >= version), "The new key"
        )
        return key_view(found, here=True, paid=paid)

    async def revoke(self, device: int) -> KeyView:
        """Ends a device for ever."""
        listed = next((entry for entry in self.me.devices if entry.device == device), None)
        if listed is None:
            raise UnknownDevice(
                f"{self.me.username} has no device {device}.", "`chatchain keys list` shows them."
            )
        if listed.state is DeviceState.REVOKED:
            raise AlreadyDone(f"Device {device} was revoked at block {listed.revoked_block}.")
        key = self.account_key()

        async def signed() -> Call:
            deadline = int(self.now()) + SIGNATURE_LASTS_S
            digest = revoke_device_digest(self.own.network, self.me.uid, self.me.epoch, device, deadline)
            return self.calls.revoke_device_for(self.me.uid, device, deadline, sign_digest(key, digest))

        paid = await self.payer.carry_out(self.calls.revoke_device(device), lambda: key, signed)
        found = await self.watch.until(
            lambda: self._device(device, lambda listed: listed.state is DeviceState.REVOKED), "The revocation"
        )
        return key_view(found, here=device == self.own.device, paid=paid)

    async def _device(self, number: int, holds: Callable[[Device], bool]) -> Device | None:
        user = await self.watch.user(self.me.uid)
        devices = user.devices if user is not None else ()
        return next((entry for entry in devices if entry.device == number and holds(entry)), None)


def fingerprint_of(record: DeviceRecord) -> str:
    """What two devices of one's own are compared by."""
    return hashlib.sha256(record.ed25519).hexdigest()[:FINGERPRINT_HEX]


def key_view(device: Device, *, here: bool, paid: Paid | None = None) -> KeyView:
    """A device as people read it."""
    current = device.current
    revoked = device.state is DeviceState.REVOKED
    return KeyView(
        device=device.device,
        version=current.version,
        state=device.state.name.lower(),
        here=here,
        signer=to_checksum(current.signer),
        fingerprint=fingerprint_of(decode_record(current.record)),
        block=device.revoked_block if revoked else current.block,
        time=second_text(device.revoked_time if revoked else current.time),
        tx=paid.tx if paid else None,
    )


async def keys(station: Station) -> list[KeyView]:
    """The devices of this account, as the chain lists them."""
    account = station.home.require_account()
    watch = await station.public_watch()
    user = await watch.user(Uid(account.uid))
    if user is None:
        raise UnknownUser(f"The chain does not know {account.username}.")
    return [key_view(device, here=device.device == account.device) for device in user.devices]


async def rotate(station: Station) -> KeyView:
    """Gives this device new keys, on chain and at the relay."""
    view = await (await Devices.at(station)).rotate()
    await station.forget_desk()
    await station.desk()
    with made_up_for_later():
        await station.publish(await station.connect())
    return view


async def revoke(station: Station, device: int) -> KeyView:
    """Ends a device of this account for ever."""
    view = await (await Devices.at(station)).revoke(device)
    await station.forget_desk()
    return view
