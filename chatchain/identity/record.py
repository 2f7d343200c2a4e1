"""DeviceRecord: what the chain publishes about one version of one device's keys.

The account authorises the record by the transaction (or EIP-712 signature) that carries it; the device's own
Ed25519 key counter-signs it, so nobody can list another's key as theirs. `signing_key_for` is the receivers'
rule on which version of a key may have signed a message. Byte layout: docs/protocol.md.
"""

from __future__ import annotations

import struct
from functools import lru_cache

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from chatchain.errors import BadRecord, ForgedMessage, RevokedSender
from chatchain.identity import ed25519
from chatchain.model import Address, Device, DeviceState, DeviceVersion, Network, Suite, User

FORMAT = 1
SUITES = 1 << Suite.SEALED | 1 << Suite.RATCHET
"""Bitmap of the suites that this program speaks: bit n stands for suite n."""

SUPERSEDED_GRACE_MS = 5 * 60 * 1000
"""How long after its successor's block an old key may still sign: its owner may not have seen the block."""

_LABEL = b"chatchain/1 device record"
_FIELDS = struct.Struct(">BHQ20sQII32s32s20s32s")
RECORD_BYTES = _FIELDS.size + ed25519.SIGNATURE_BYTES


class DeviceRecord(msgspec.Struct, frozen=True):
    """One version of a device's public keys.

    `uid` is 0 in the record of a registration: the registry assigns the id in that same transaction.
    `kem_hash` is the SHA-256 of the X-Wing public key, whose 1,216 bytes are too long for the chain.
    """

    suites: int
    chain_id: int
    registry: Address
    uid: int
    device: int
    version: int
    x25519: bytes
    ed25519: bytes
    signer: Address
    kem_hash: bytes
    signature: bytes = b""


def lists(record: DeviceRecord, suite: Suite) -> bool:
    """Says whether a record lists a suite."""
    return bool(record.suites >> suite & 1)


def better_device(user: User) -> Device | None:
    """Gives an active device of a user that lists any suite, also one that this program does not speak: with
    it the RSA compatibility envelope has no place.
    """
    return next((device for device in user.active_devices if _suites_of(device.current.record)), None)


def _suites_of(record: bytes) -> int:
    """What a record lists, whether or not the rest of it holds; 0 for one that is none."""
    try:
        return decode_record(record).suites
    except BadRecord:
        return 0


def sign_record(record: DeviceRecord, account: Address, ed25519_secret: bytes) -> DeviceRecord:
    """Gives the record counter-signed by the device's Ed25519 key on behalf of this account."""
    signature = ed25519.sign(ed25519_secret, _signed_bytes(record, account))
    return msgspec.structs.replace(record, signature=signature)


def encode_record(record: DeviceRecord) -> bytes:
    """Gives the bytes that go on the chain: 227, big-endian, fixed layout."""
    if len(record.signature) != ed25519.SIGNATURE_BYTES:
        raise ValueError("the record is not signed")
    return _packed(record) + record.signature


def decode_record(data: bytes) -> DeviceRecord:
    """Reads the fields without judging them; raises BadRecord for another length or format."""
    if len(data) != RECORD_BYTES:
        raise BadRecord(f"A device record has {RECORD_BYTES} bytes, this one {len(data)}.")
    format_, suites, chain_id, registry, uid, device, version, x25519, ed, signer, kem_hash = (
        _FIELDS.unpack_from(data)
    )
    if format_ != FORMAT:
        raise BadRecord(f"The device record has format {format_}, which this program does not know.")
    return DeviceRecord(
        suites=suites,
        chain_id=chain_id,
        registry=Address(registry),
        uid=uid,
        device=device,
        version=version,
        x25519=x25519,
        ed25519=ed,
        signer=Address(signer),
        kem_hash=kem_hash,
        signature=data[_FIELDS.size :],
    )


@lru_cache(maxsize=4096)
def verify_record(
    data: bytes, network: Network, account: Address, uid: int, device: int, version: int, signer: Address
) -> DeviceRecord:
    """Gives the record if its fields are what the chain says and its signature holds; raises BadRecord.

    Only the first record of a user's first device may carry uid 0.
    """
    record = decode_record(data)
    where = f"The record of device {device} (version {version}) of user {uid}"
    if not record.suites & SUITES:
        raise BadRecord(f"{where} lists no encryption that this program speaks.")
    if (record.chain_id, record.registry) != (network.chain_id, network.registry):
        raise BadRecord(f"{where} belongs to another network.")
    newborn = device == 1 and version == 1 and record.uid == 0
    if not (record.uid == uid or newborn) or (record.device, record.version) != (device, version):
        raise BadRecord(f"{where} was made for another user, device or version.")
    if record.signer != signer:
        raise BadRecord(f"{where} names another signer than the chain.")
    if not ed25519.is_valid_key(record.ed25519):
        raise BadRecord(f"{where} has an Ed25519 key that is not a safe point.")
    if not _contributes(record.x25519):
        raise BadRecord(f"{where} has an X25519 key of small order.")
    if not ed25519.verify(record.ed25519, record.signature, _signed_bytes(record, account)):
        raise BadRecord(f"{where} is not signed by its own key for this account.")
    return record


def device_record(
    network: Network, user: User, device: Device, version: DeviceVersion | None = None
) -> DeviceRecord:
    """Gives the verified record of a version (by default the current one) of a device; raises BadRecord.

    A record is counter-signed for the account that the user had when it appeared: devices and their keys stay
    when the account is replaced, so the present account is not asked for.
    """
    entry = version or device.current
    account = entry.account or user.account
    return verify_record(entry.record, network, account, user.uid, device.device, entry.version, entry.signer)


def listed_device(user: User, device: int) -> Device:
    """Gives a device that may send at all; raises ForgedMessage for one unlisted, RevokedSender for one
    revoked.
    """
    found = next((d for d in user.devices if d.device == device), None)
    who = f"device {device} of {user.username}"
    if found is None or found.state is DeviceState.NONE:
        raise ForgedMessage(f"The message claims to come from {who}, which the chain does not list.")
    if found.state is DeviceState.REVOKED:
        raise RevokedSender(f"The message comes from {who}, which has been revoked.")
    return found


def signing_key_for(
    network: Network, user: User, device: int, version: int, signed_ms: int, received_ms: int
) -> bytes:
    """Gives the Ed25519 key that this version of this device signs with, if it may have signed then.

    `signed_ms` is the time inside the signature, `received_ms` the relay's. The version in force always may.
    A superseded one may only if both times are at most five minutes after its successor's block: the signed
    time alone would let a thief of the old key backdate. A revoked device never may. Raises ForgedMessage, or
    BadRecord when the chain's record is unsound.
    """
    found = listed_device(user, device)
    who = f"device {device} of {user.username}"
    entry = next((v for v in found.history if v.version == version), None)
    if entry is None:
        raise ForgedMessage(
            f"The message is signed with key version {version} of {who}, which the chain does not list."
        )
    if version != found.current.version:
        successor = next(v for v in found.history if v.version > version)
        latest = successor.time * 1000 + SUPERSEDED_GRACE_MS
        if max(signed_ms, received_ms) > latest:
            raise ForgedMessage(
                f"The message is signed with key version {version} of {who}, "
                f"which version {successor.version} had replaced."
            )
    return device_record(network, user, found, entry).ed25519


def _packed(record: DeviceRecord) -> bytes:
    return _FIELDS.pack(
        FORMAT,
        record.suites,
        record.chain_id,
        record.registry,
        record.uid,
        record.device,
        record.version,
        record.x25519,
        record.ed25519,
        record.signer,
        record.kem_hash,
    )


def _signed_bytes(record: DeviceRecord, account: Address) -> bytes:
    return _LABEL + account + _packed(record)


def _contributes(x25519: bytes) -> bool:
    """Says whether an agreement with this key depends on the other side's secret (RFC 7748, section 6.1)."""
    try:
        X25519PrivateKey.from_private_bytes(bytes([1] * 32)).exchange(
            X25519PublicKey.from_public_bytes(x25519)
        )
    except ValueError:
        return False
    return True
