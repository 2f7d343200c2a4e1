"""KeyBundle: a device's X-Wing public key, signed by the device and checked against the hash on the chain."""

from __future__ import annotations

import hmac
import struct

from chatchain.crypto.device import DeviceSecrets, kem_hash, kem_public_key
from chatchain.errors import BadRecord
from chatchain.identity import ed25519
from chatchain.identity.record import DeviceRecord
from chatchain.model import KeyBundle, Network

LIFETIME = 90 * 24 * 3600
"""Seconds that a bundle holds; a device publishes it anew at each login."""

CLOCK_SKEW = 7 * 24 * 3600
"""Seconds that the issuer's clock may be ahead of ours: whose machine is days off is still to be reached."""

_LABEL = b"chatchain/1 key bundle"
_SIGNED = struct.Struct(">Q20sQII32sQQ")


def make_bundle(
    network: Network,
    secrets: DeviceSecrets,
    *,
    uid: int,
    device: int,
    version: int,
    now: int,
    lifetime: int = LIFETIME,
) -> KeyBundle:
    """Signs this device's X-Wing public key for the relay; `now` in Unix seconds."""
    public = secrets.kem_public
    signed = _signed_bytes(network, uid, device, version, public, now, now + lifetime)
    return KeyBundle(uid, device, version, public, now, now + lifetime, secrets.signing_key.sign(signed))


def check_bundle(network: Network, bundle: KeyBundle, record: DeviceRecord, uid: int, now: int) -> bytes:
    """Gives the X-Wing public key if the bundle is what the (verified) record of user `uid` vouches for;
    raises BadRecord.

    The hash on the chain is what counts; signature and expiry keep a relay from serving what the device has
    withdrawn.
    """
    where = f"The key bundle of device {bundle.device} of user {bundle.uid}"
    if (bundle.uid, bundle.device, bundle.version) != (uid, record.device, record.version):
        raise BadRecord(f"{where} is for another device or key version than the chain's.")
    if not hmac.compare_digest(kem_hash(bundle.kem_public), record.kem_hash):
        raise BadRecord(f"{where} does not match the hash on the chain.")
    kem_public_key(bundle.kem_public)
    try:
        signed = _signed_bytes(
            network, uid, bundle.device, bundle.version, bundle.kem_public, bundle.issued, bundle.expires
        )
    except struct.error as exc:
        raise BadRecord(f"{where} has impossible times.") from exc
    if not ed25519.verify(record.ed25519, bundle.signature, signed):
        raise BadRecord(f"{where} is not signed by the device's key.")
    if bundle.issued > now + CLOCK_SKEW:
        raise BadRecord(f"{where} is dated in the future.", "Check this machine's clock.")
    if now >= bundle.expires:
        raise BadRecord(f"{where} has expired.", "The device publishes a new one when it logs in next.")
    return bundle.kem_public


def _signed_bytes(
    network: Network, uid: int, device: int, version: int, public: bytes, issued: int, expires: int
) -> bytes:
    return _LABEL + _SIGNED.pack(
        network.chain_id, network.registry, uid, device, version, kem_hash(public), issued, expires
    )
