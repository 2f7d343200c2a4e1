"""Ethereum keys without web3: keccak256, secp256k1 signatures over digests, and addresses as text."""

from __future__ import annotations

import secrets
from functools import lru_cache

from coincurve import PrivateKey, PublicKey
from Crypto.Hash import keccak

from chatchain.errors import UsageError, VerificationError
from chatchain.model import Address

SECRET_BYTES = 32
SIGNATURE_BYTES = 65
SECP256K1_N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""The order of the secp256k1 group (SEC 2, section 2.4.1)."""

NOBODY = Address(bytes(20))


def keccak256(data: bytes) -> bytes:
    """Gives Ethereum's hash of the data: 32 bytes."""
    return keccak.new(digest_bits=256, data=data).digest()


def new_secret() -> bytes:
    """Draws a secp256k1 secret: 32 bytes, uniform in 1..n-1."""
    return (secrets.randbelow(SECP256K1_N - 1) + 1).to_bytes(SECRET_BYTES, "big")


def public_key(secret: bytes) -> bytes:
    """Gives the uncompressed public key of a secret: 64 bytes x ‖ y."""
    return _private(secret).public_key.format(compressed=False)[1:]


def address_of_public(public: bytes) -> Address:
    """Gives the address of a 64-byte uncompressed public key."""
    return Address(keccak256(public)[-20:])


def address_of(secret: bytes) -> Address:
    """Gives the address of a secret."""
    return address_of_public(public_key(secret))


def sign_digest(secret: bytes, digest: bytes) -> bytes:
    """Signs a 32-byte digest: 65 bytes r ‖ s ‖ v with s in the lower half (EIP-2) and v 27 or 28."""
    return _signature(_private(secret), digest)


class Signer:
    """A secret that signs often: the work of reading it is done once."""

    def __init__(self, secret: bytes) -> None:
        self._key = _private(secret)

    def sign_digest(self, digest: bytes) -> bytes:
        """As `sign_digest` above."""
        return _signature(self._key, digest)


def recover_public(digest: bytes, signature: bytes) -> bytes:
    """Gives the 64-byte public key that made this signature; raises VerificationError.

    A signature with s in the upper half is refused, as the contracts refuse it: one signature has one
    spelling.
    """
    if len(digest) != 32:
        raise ValueError("a digest has 32 bytes")
    if len(signature) != SIGNATURE_BYTES or signature[64] not in (27, 28):
        raise VerificationError("The signature is malformed.")
    if int.from_bytes(signature[32:64], "big") > SECP256K1_N // 2:
        raise VerificationError("The signature is malleable: its s is in the upper half.")
    try:
        key = PublicKey.from_signature_and_message(
            signature[:64] + bytes([signature[64] - 27]), digest, hasher=None
        )
    except ValueError as exc:
        raise VerificationError("The signature fits no key.") from exc
    return key.format(compressed=False)[1:]


def recover(digest: bytes, signature: bytes) -> Address:
    """Gives the address that signed this digest; raises VerificationError."""
    return address_of_public(recover_public(digest, signature))


@lru_cache(maxsize=1024)
def to_checksum(address: Address) -> str:
    """Writes an address as EIP-55 text."""
    if len(address) != 20:
        raise ValueError("an address has 20 bytes")
    text = address.hex()
    mask = keccak256(text.encode()).hex()
    return "0x" + "".join(c.upper() if int(m, 16) >= 8 else c for c, m in zip(text, mask, strict=False))


def parse_address(text: str) -> Address:
    """Reads an address; mixed case must be a right EIP-55 checksum. Raises UsageError."""
    body = text[2:]
    try:
        raw = bytes.fromhex(body) if text[:2] in ("0x", "0X") and len(body) == 40 else b""
    except ValueError:
        raw = b""
    # bytes.fromhex forgives blanks between pairs; an address does not contain any
    if len(raw) != 20 or not body.isalnum():
        raise UsageError(f"{text[:64]!r} is not an address: an address is 0x and 40 hex digits.")
    address = Address(raw)
    if body not in (body.lower(), body.upper()) and to_checksum(address)[2:] != body:
        raise UsageError(
            f"The address {text} is mistyped: its upper and lower case letters do not fit (EIP-55)."
        )
    return address


def _signature(key: PrivateKey, digest: bytes) -> bytes:
    if len(digest) != 32:
        raise ValueError("a digest has 32 bytes")
    signature = key.sign_recoverable(digest, hasher=None)
    return signature[:64] + bytes([27 + signature[64]])


def _private(secret: bytes) -> PrivateKey:
    # coincurve pads a short secret with zeros: a truncated one must not become another key
    if len(secret) != SECRET_BYTES:
        raise ValueError("a secp256k1 secret has 32 bytes")
    return PrivateKey(secret)
