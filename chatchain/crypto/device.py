"""The secrets of one device and what they publish: DeviceRecord and the X-Wing key."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property, lru_cache

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey, MLKEM768X25519PublicKey

from chatchain.crypto.derive import require_post_quantum
from chatchain.errors import BadRecord
from chatchain.identity import keys
from chatchain.identity.record import SUITES, DeviceRecord, encode_record, sign_record
from chatchain.model import Address, Network

KEM_SEED_BYTES = 32
_MLKEM_PUBLIC = 1184
KEM_PUBLIC_BYTES = _MLKEM_PUBLIC + 32
"""An X-Wing public key: ML-KEM-768's, then X25519's."""

_ENCODING = 1


@dataclass(frozen=True, repr=False)
class DeviceSecrets:
    """One version of a device's secrets, each 32 bytes: X25519 and Ed25519 identity keys, secp256k1 signer,
    X-Wing seed.

    The X25519 identity key is for sessions to come and is not the one inside of X-Wing.
    """

    x25519: bytes
    ed25519: bytes
    signer: bytes
    kem_seed: bytes

    def __post_init__(self) -> None:
        if any(len(secret) != 32 for secret in (self.x25519, self.ed25519, self.signer, self.kem_seed)):
            raise ValueError("every secret of a device has 32 bytes")

    def __repr__(self) -> str:
        return "DeviceSecrets(…)"

    @classmethod
    def generate(cls) -> DeviceSecrets:
        """Draws all four."""
        return cls(os.urandom(32), os.urandom(32), keys.new_secret(), os.urandom(KEM_SEED_BYTES))

    def encode(self) -> bytes:
        """Gives the secrets as msgpack, for the encrypted database."""
        return msgspec.msgpack.encode((_ENCODING, self.x25519, self.ed25519, self.signer, self.kem_seed))

    @classmethod
    def decode(cls, data: bytes) -> DeviceSecrets:
        """Reads what `encode` wrote; raises BadRecord."""
        try:
            version, *secrets = msgspec.msgpack.decode(data, type=tuple[int, bytes, bytes, bytes, bytes])
            if version != _ENCODING:
                raise ValueError("unknown encoding")
            return cls(*secrets)
        except (msgspec.DecodeError, ValueError) as exc:
            raise BadRecord("The device's secrets are damaged.") from exc

    @cached_property
    def signing_key(self) -> Ed25519PrivateKey:
        """The Ed25519 key, ready to sign."""
        return Ed25519PrivateKey.from_private_bytes(self.ed25519)

    @cached_property
    def kem(self) -> KemSecret:
        """The X-Wing key, ready to open; building it costs as much as opening a message."""
        return KemSecret(self.kem_seed)

    @property
    def ed25519_public(self) -> bytes:
        """The Ed25519 public key."""
        return self.signing_key.public_key().public_bytes_raw()

    @property
    def x25519_public(self) -> bytes:
        """The X25519 identity public key."""
        return X25519PrivateKey.from_private_bytes(self.x25519).public_key().public_bytes_raw()

    @cached_property
    def signer_address(self) -> Address:
        """The address that acts for the user on the chain."""
        return keys.address_of(self.signer)

    @property
    def kem_public(self) -> bytes:
        """The X-Wing public key, 1,216 bytes."""
        return self.kem.public

    def record(self, network: Network, account: Address, *, uid: int, device: int, version: int) -> bytes:
        """Gives the signed DeviceRecord for the chain; `uid` is 0 in a registration."""
        unsigned = DeviceRecord(
            suites=SUITES,
            chain_id=network.chain_id,
            registry=network.registry,
            uid=uid,
            device=device,
            version=version,
            x25519=self.x25519_public,
            ed25519=self.ed25519_public,
            signer=self.signer_address,
            kem_hash=kem_hash(self.kem_public),
        )
        return encode_record(sign_record(unsigned, account, self.ed25519))


class KemSecret:
    """An X-Wing private key in the library's form.

    X-Wing's secret is one 32-byte seed, stretched by SHAKE-256 to the seeds of its two halves (section 5.2 of
    draft-connolly-cfrg-xwing-kem); the library takes the halves.
    """

    __slots__ = ("private", "public")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != KEM_SEED_BYTES:
            raise ValueError("an X-Wing seed has 32 bytes")
        require_post_quantum()
        expanded = hashlib.shake_256(seed).digest(96)
        mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
        x25519 = X25519PrivateKey.from_private_bytes(expanded[64:])
        self.private = MLKEM768X25519PrivateKey(mlkem, x25519)
        self.public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return "KemSecret(…)"


@lru_cache(maxsize=1024)
def kem_public_key(data: bytes) -> MLKEM768X25519PublicKey:
    """Loads an X-Wing public key; raises BadRecord when it is not one."""
    if len(data) != KEM_PUBLIC_BYTES:
        raise BadRecord(f"An X-Wing public key has {KEM_PUBLIC_BYTES} bytes, this one {len(data)}.")
    try:
        mlkem = MLKEM768PublicKey.from_public_bytes(data[:_MLKEM_PUBLIC])
        x25519 = X25519PublicKey.from_public_bytes(data[_MLKEM_PUBLIC:])
    except ValueError as exc:
        raise BadRecord("The X-Wing public key is malformed.") from exc
    return MLKEM768X25519PublicKey(mlkem, x25519)


def kem_hash(kem_public: bytes) -> bytes:
    """Gives what the DeviceRecord holds of an X-Wing public key: its SHA-256."""
    return hashlib.sha256(kem_public).digest()
