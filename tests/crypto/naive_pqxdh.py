"""PQXDH and the ratchet's first step a second time, from the specifications and docs/protocol.md alone.

Slow, plain, and sharing no line with the package: X25519 is RFC 7748's ladder on integers, HKDF is RFC 5869
spelled out. Only SHA-256, AES-GCM and ML-KEM come from libraries.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

P = 2**255 - 19
BASE = (9).to_bytes(32, "little")


def x25519(scalar: bytes, u: bytes) -> bytes:
    """RFC 7748, section 5."""
    k = int.from_bytes(scalar, "little")
    k = (k & ~7 & (2**255 - 1)) | 2**254
    x1 = int.from_bytes(u, "little") % 2**255 % P
    x2, z2, x3, z3, swap = 1, 0, x1, 1, 0
    for t in reversed(range(255)):
        bit = k >> t & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = (x2 + z2) % P, (x2 - z2) % P, (x3 + z3) % P, (x3 - z3) % P
        aa, bb, da, cb = a * a % P, b * b % P, d * a % P, c * b % P
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % P, x1 * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


def hkdf(salt: bytes, ikm: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 with SHA-256."""
    prk = hmac.new(salt, ikm, hashlib.sha256).digest()
    block, out = b"", b""
    for counter in range(1, 256):
        block = hmac.new(prk, block + info + bytes([counter]), hashlib.sha256).digest()
        out += block
        if len(out) >= length:
            break
    return out[:length]


class Keys(NamedTuple):
    """What both sides derive."""

    sk: bytes
    root: bytes
    hka: bytes
    nhkb: bytes
    transcript: bytes


def kdf(dhs: list[bytes], ss: bytes, ad: bytes, handshake: bytes) -> Keys:
    """KDF(KM) of PQXDH, section 2.2, and the keys of the session."""
    sk = hkdf(bytes(32), b"\xff" * 32 + b"".join(dhs) + ss, b"chatchain/2_CURVE25519_SHA-256_ML-KEM-1024", 32)
    transcript = hashlib.sha256(ad + handshake).digest()
    keys = hkdf(transcript, sk, b"chatchain/2 session keys", 96)
    return Keys(sk, keys[0:32], keys[32:64], keys[64:96], transcript)


def associated_data(uid_a: int, record_a: bytes, uid_b: int, record_b: bytes, pqpk: bytes) -> bytes:
    """AD; the X25519 identity key stands at byte 47 of a device record."""
    ik_a, ik_b = record_a[47:79], record_b[47:79]
    return (
        b"chatchain/2 associated data"
        + (b"\x01" + ik_a)
        + (b"\x01" + ik_b)
        + bytes([0, 2])
        + uid_a.to_bytes(8, "big")
        + record_a
        + uid_b.to_bytes(8, "big")
        + record_b
        + hashlib.sha256(b"\x02" + pqpk).digest()
    )


def responder_keys(
    handshake: bytes,
    ik_b: bytes,
    spk_b: bytes,
    opk_b: bytes,
    pqpk_seed: bytes,
    uid_a: int,
    record_a: bytes,
    uid_b: int,
    record_b: bytes,
) -> Keys:
    """PQXDH, section 3.4, with Bob's secrets; `opk_b` is empty when none was used."""
    ek_a, ct = handshake[20:52], handshake[52:1620]
    ik_a = record_a[47:79]
    dhs = [x25519(spk_b, ik_a), x25519(ik_b, ek_a), x25519(spk_b, ek_a)]
    if opk_b:
        dhs.append(x25519(opk_b, ek_a))
    kem = MLKEM1024PrivateKey.from_seed_bytes(pqpk_seed)
    ad = associated_data(uid_a, record_a, uid_b, record_b, kem.public_key().public_bytes_raw())
    return kdf(dhs, kem.decapsulate(ct), ad, handshake)


def open_first(keys: Keys, spk_b: bytes, message: bytes, ad: bytes) -> bytes:
    """The Double Ratchet with header encryption, section 4: Bob decrypts message 0 of Alice's first chain."""
    sealed, body = message[:75], message[75:]
    header = AESGCM(keys.hka).decrypt(sealed[:16], sealed[16:], b"")
    alice, pn, n = header[:32], header[32:36], header[36:40]
    assert (pn, n, header[40:43]) == (bytes(4), bytes(4), bytes(3))
    out = hkdf(keys.root, x25519(spk_b, alice), b"chatchain/2 ratchet root", 96)
    mk = hmac.new(out[32:64], b"\x01", hashlib.sha256).digest()
    return AESGCM(mk).decrypt(bytes(12), body, keys.transcript + sealed + ad)
