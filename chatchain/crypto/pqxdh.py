"""PQXDH: two devices agree on a secret while one of them is away.

The words and the steps are those of Signal's "The PQXDH Key Agreement Protocol", section 3, with curve
curve25519, hash SHA-256, ML-KEM-1024 as pqkem and info `chatchain/2`: IK, EK, SPK, OPK, PQPK, CT, DH1 to
DH4, SS, SK, AD. Two things differ. The initial message names the initiator's DeviceRecord by its version
instead of carrying IK_A, since the chain holds it. And the initial ciphertext is the first message of the
Double Ratchet, whose keys are derived from SK together with a hash over AD and every byte of the handshake.

AD holds both identity keys, both users with their device records (and so their Ed25519 keys and the hashes of
their KEM keys), the suite, and the hash of the KEM prekey. Who was deceived about any of them derives other
keys.
"""

from __future__ import annotations

import hashlib
import os
import struct
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PrivateKey, MLKEM1024PublicKey

from chatchain.crypto import derive, x25519
from chatchain.crypto.device import DeviceSecrets
from chatchain.crypto.prekeys import Found, PrekeyBundle, encode_ec, encode_kem
from chatchain.crypto.ratchet import SharedKeys
from chatchain.errors import BadRecord, Undecryptable
from chatchain.identity.record import DeviceRecord, encode_record
from chatchain.model import Suite

KEM_CIPHERTEXT_BYTES: Final = 1568
INFO: Final = b"chatchain/2_CURVE25519_SHA-256_ML-KEM-1024"
_F: Final = b"\xff" * 32
_AD_LABEL: Final = b"chatchain/2 associated data"
_KEYS_LABEL: Final = b"chatchain/2 session keys"
_PARTY: Final = struct.Struct(">Q227s")
_HANDSHAKE: Final = struct.Struct(f">IIIII32s{KEM_CIPHERTEXT_BYTES}s")
HANDSHAKE_BYTES: Final = _HANDSHAKE.size


class Party(msgspec.Struct, frozen=True):
    """One device as the chain shows it: its user and its verified record."""

    uid: int
    record: DeviceRecord


class Handshake(msgspec.Struct, frozen=True):
    """The head of an initial message: whose key versions, which prekeys (OPK id 0: none), EK_A and CT."""

    initiator_version: int
    responder_version: int
    signed_id: int
    one_time_id: int
    kem_id: int
    ephemeral: bytes
    ciphertext: bytes


def encode_handshake(handshake: Handshake) -> bytes:
    """Gives the handshake's 1,620 bytes."""
    return _HANDSHAKE.pack(
        handshake.initiator_version,
        handshake.responder_version,
        handshake.signed_id,
        handshake.one_time_id,
        handshake.kem_id,
        handshake.ephemeral,
        handshake.ciphertext,
    )


def decode_handshake(data: bytes) -> Handshake:
    """Reads what `encode_handshake` wrote; raises Undecryptable for another length."""
    if len(data) != HANDSHAKE_BYTES:
        raise Undecryptable("The initial message is truncated.")
    return Handshake(*_HANDSHAKE.unpack(data))


def handshake_id(data: bytes) -> bytes:
    """Names a handshake by all of its bytes: 32."""
    return hashlib.sha256(data).digest()


def agree_as_initiator(
    secrets: DeviceSecrets, me: Party, them: Party, bundle: PrekeyBundle
) -> tuple[SharedKeys, bytes]:
    """Section 3.3: gives the shared keys and the handshake to send; `bundle` has passed `verify_bundle`.

    The ephemeral secret and the intermediate values are not kept. Raises BadRecord for keys that cannot be.
    """
    ephemeral = os.urandom(32)
    ciphertext, ss = _encapsulate(bundle.kem.key)
    spk = bundle.signed.key
    agreed = [
        x25519.agree(secrets.x25519, spk),
        x25519.agree(ephemeral, them.record.x25519),
        x25519.agree(ephemeral, spk),
    ]
    if bundle.one_time:
        agreed.append(x25519.agree(ephemeral, bundle.one_time.key))
    handshake = encode_handshake(
        Handshake(
            me.record.version,
            them.record.version,
            bundle.signed.id,
            bundle.one_time.id if bundle.one_time else 0,
            bundle.kem.id,
            x25519.public_of(ephemeral),
            ciphertext,
        )
    )
    return _shared(agreed, ss, _associated_data(me, them, bundle.kem.key), handshake), handshake


def agree_as_responder(
    secrets: DeviceSecrets, me: Party, them: Party, found: Found, data: bytes
) -> SharedKeys:
    """Section 3.4: gives the same keys from the handshake's bytes and the secrets that it names."""
    handshake = decode_handshake(data)
    agreed = [
        x25519.agree(found.signed, them.record.x25519),
        x25519.agree(secrets.x25519, handshake.ephemeral),
        x25519.agree(found.signed, handshake.ephemeral),
    ]
    if found.one_time:
        agreed.append(x25519.agree(found.one_time, handshake.ephemeral))
    public, ss = _decapsulate(found.kem, handshake.ciphertext)
    return _shared(agreed, ss, _associated_data(them, me, public), data)


def _shared(agreed: list[bytes], ss: bytes, ad: bytes, handshake: bytes) -> SharedKeys:
    """SK = KDF(DH1 ‖ DH2 ‖ DH3 ‖ [DH4 ‖] SS), and the ratchet's keys bound to AD and handshake."""
    sk = derive.hkdf(_F + b"".join(agreed) + ss, INFO, salt=bytes(32))
    transcript = hashlib.sha256(ad + handshake).digest()
    keys = derive.hkdf(sk, _KEYS_LABEL, 96, salt=transcript)
    return SharedKeys(keys[:32], keys[32:64], keys[64:], transcript)


def _associated_data(initiator: Party, responder: Party, kem_public: bytes) -> bytes:
    return b"".join(
        (
            _AD_LABEL,
            encode_ec(initiator.record.x25519),
            encode_ec(responder.record.x25519),
            Suite.RATCHET.to_bytes(2, "big"),
            _PARTY.pack(initiator.uid, encode_record(initiator.record)),
            _PARTY.pack(responder.uid, encode_record(responder.record)),
            hashlib.sha256(encode_kem(kem_public)).digest(),
        )
    )


def _encapsulate(public: bytes) -> tuple[bytes, bytes]:
    """(CT, SS) = PQKEM-ENC(PQPK); raises BadRecord for a malformed key."""
    try:
        secret, ciphertext = MLKEM1024PublicKey.from_public_bytes(public).encapsulate()
    except ValueError as exc:
        raise BadRecord("The KEM prekey is malformed.") from exc
    return ciphertext, secret


def _decapsulate(seed: bytes, ciphertext: bytes) -> tuple[bytes, bytes]:
    """Gives PQPK and SS = PQKEM-DEC(PQPK, CT); a wrong CT gives another secret, not an error (FIPS 203)."""
    key = MLKEM1024PrivateKey.from_seed_bytes(seed)
    return key.public_key().public_bytes_raw(), key.decapsulate(ciphertext)
