"""A device's keys: record, bundle, prekeys and the handshake of suite 2 (PQXDH)."""

import hashlib
import os
import struct
import time
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.mlkem import (
    MLKEM768PrivateKey,
    MLKEM1024PrivateKey,
    MLKEM1024PublicKey,
)
from eth_account import Account
from nacl.signing import SigningKey

from tests.second.chain import RECORD_LABEL, Device, Network, verify
from tests.second.primitives import dh, dh_public, hkdf, sha256
from tests.second.ratchet import Ratchet

_SIGNED, _ONE_TIME_KEM, _LAST_RESORT = 1, 2, 3
_LABELS = {
    _SIGNED: b"chatchain/2 signed prekey",
    _ONE_TIME_KEM: b"chatchain/2 one-time KEM prekey",
    _LAST_RESORT: b"chatchain/2 last-resort KEM prekey",
}
_PROTOCOL = b"chatchain/2_CURVE25519_SHA-256_ML-KEM-1024"
_NUMBERS = struct.Struct(">IIIII")  # of a handshake: both key versions, ids of SPK, OPK and KEM prekey
_HANDSHAKE = 1620
_WEEK = 7 * 86400
_LIFE = 90 * 86400


@dataclass
class DeviceKeys:
    """The secrets of one device, version 1."""

    signer: bytes = field(default_factory=lambda: os.urandom(32))
    x25519: bytes = field(default_factory=lambda: os.urandom(32))
    ed25519: SigningKey = field(default_factory=SigningKey.generate)
    xwing_seed: bytes = field(default_factory=lambda: os.urandom(32))

    @property
    def xwing(self) -> bytes:
        """The X-Wing public key: ML-KEM-768 ‖ X25519, both from one seed."""
        stretched = hashlib.shake_256(self.xwing_seed).digest(96)
        kem = MLKEM768PrivateKey.from_seed_bytes(stretched[:64]).public_key().public_bytes_raw()
        return kem + dh_public(stretched[64:])

    @property
    def address(self) -> str:
        return str(Account.from_key(self.signer).address)

    def sign(self, text: bytes) -> bytes:
        return bytes(self.ed25519.sign(text).signature)

    def record(self, network: Network, account: str) -> bytes:
        """That of a registration."""
        place = struct.pack(">QII", 0, 1, 1)
        curves = dh_public(self.x25519) + bytes(self.ed25519.verify_key)
        signer = bytes.fromhex(self.address[2:])
        fields = b"\x01\x00\x06" + bytes(network) + place + curves + signer + sha256(self.xwing)
        return fields + self.sign(RECORD_LABEL + bytes.fromhex(account[2:]) + fields)

    def key_bundle(self, network: Network, me: Device) -> list[object]:
        issued = int(time.time())
        dates = struct.pack(">QQ", issued, issued + _LIFE)
        text = b"chatchain/1 key bundle" + bytes(network) + me.place + sha256(self.xwing) + dates
        return [me.uid, me.number, me.version, self.xwing, issued, issued + _LIFE, self.sign(text)]


class Prekeys:
    """What a device publishes, and the secrets of it by their ids."""

    def __init__(self, network: Network, keys: DeviceKeys, me: Device) -> None:
        self._network, self._keys, self._me = network, keys, me
        self._next = 1
        self._secrets: dict[int, bytes] = {}
        self._signed_prekey = self._signed(_SIGNED, os.urandom(32))
        self._last_resort = self._signed(_LAST_RESORT, os.urandom(64))
        self._lasting = set(self._secrets)

    def more(self, count: int) -> list[object]:
        """The lasting keys and so many new ones of each sort, as they are published."""
        secrets = [os.urandom(32) for _ in range(count)]
        one_time = [self._keep(secret) + dh_public(secret) for secret in secrets]
        one_time_kem = [self._signed(_ONE_TIME_KEM, os.urandom(64)) for _ in range(count)]
        return [self._signed_prekey, self._last_resort, one_time, one_time_kem]

    def secret(self, number: int) -> bytes:
        return self._secrets[number]

    def used(self, handshake: bytes) -> None:
        """Delete the one-time keys that a handshake used."""
        for number in {*_NUMBERS.unpack_from(handshake)[3:]} - self._lasting:
            self._secrets.pop(number, None)

    def _keep(self, secret: bytes) -> bytes:
        number, self._next = self._next, self._next + 1
        self._secrets[number] = secret
        return number.to_bytes(4)

    def _signed(self, kind: int, secret: bytes) -> bytes:
        issued = int(time.time())
        head = bytes([kind]) + self._keep(secret) + struct.pack(">QQ", issued, issued + _LIFE)
        if kind == _SIGNED:
            key = dh_public(secret)
        else:
            key = MLKEM1024PrivateKey.from_seed_bytes(secret).public_key().public_bytes_raw()
        return head + self._keys.sign(signed_text(head, self._network, self._me, key)) + key


def _encoded(kind: int, key: bytes) -> bytes:
    """EncodeEC or EncodeKEM."""
    return (b"\x01" if kind == _SIGNED else b"\x02") + key


def signed_text(head: bytes, network: Network, of: Device, key: bytes) -> bytes:
    """What the signature of a signed prekey covers; its head is kind, id and dates."""
    return _LABELS[head[0]] + bytes(network) + of.place + head[1:] + _encoded(head[0], key)


def _checked(signed: bytes, kinds: tuple[int, ...], network: Network, of: Device) -> tuple[int, bytes]:
    """Id and key of a signed prekey that may be used."""
    kind, number, issued, expires = struct.unpack_from(">BIQQ", signed)
    if kind not in kinds or not issued - _WEEK <= time.time() < expires:
        raise ValueError("a prekey of another kind or time")
    head, signature, key = signed[:21], signed[21:85], signed[85:]
    verify(of.ed25519, signature, signed_text(head, network, of, key))
    return number, key


def associated(a: Device, b: Device, kem_prekey: bytes) -> bytes:
    """AD of the handshake between the two."""
    curves = _encoded(_SIGNED, a.x25519) + _encoded(_SIGNED, b.x25519)
    people = b"".join(one.uid.to_bytes(8) + one.record for one in (a, b))
    kem = sha256(_encoded(_LAST_RESORT, kem_prekey))
    return b"chatchain/2 associated data" + curves + (2).to_bytes(2) + people + kem


def _session_keys(secrets: bytes, ad: bytes, handshake: bytes) -> tuple[bytes, bytes]:
    """RK ‖ HKA ‖ NHKB, and the transcript."""
    sk = hkdf(b"\xff" * 32 + secrets, _PROTOCOL, salt=bytes(32))
    transcript = sha256(ad + handshake)
    return hkdf(sk, b"chatchain/2 session keys", 96, transcript), transcript


@dataclass
class Session:
    """A ratchet with one version of a device, and the handshake as long as it is not answered."""

    name: bytes
    version: int
    ratchet: Ratchet
    handshake: bytes = b""

    @classmethod
    def begin(cls, network: Network, keys: DeviceKeys, me: Device, peer: Device, bundle: bytes) -> "Session":
        """The initiator's, from a prekey bundle of the peer."""
        if bundle[:17] != b"\x01" + peer.place:
            raise ValueError("a bundle of another device")
        spk_id, spk = _checked(bundle[17:134], (_SIGNED,), network, peer)
        kem_id, kem = _checked(bundle[134:1787], (_ONE_TIME_KEM, _LAST_RESORT), network, peer)
        opk_id, opk = int.from_bytes(bundle[1787:1791]), bundle[1791:]
        ek = os.urandom(32)
        shared, ciphertext = MLKEM1024PublicKey.from_public_bytes(kem).encapsulate()
        secrets = dh(keys.x25519, spk) + dh(ek, peer.x25519) + dh(ek, spk)
        if opk:
            secrets += dh(ek, opk)
        numbers = _NUMBERS.pack(me.version, peer.version, spk_id, opk_id, kem_id)
        handshake = numbers + dh_public(ek) + ciphertext
        derived = _session_keys(secrets + shared, associated(me, peer, kem), handshake)
        return cls(sha256(handshake), peer.version, Ratchet.begin(*derived, spk), handshake)

    @classmethod
    def answer(
        cls, prekeys: Prekeys, keys: DeviceKeys, me: Device, peer: dict[int, Device], handshake: bytes
    ) -> "Session":
        """The responder's."""
        version, mine, spk_id, opk_id, kem_id = _NUMBERS.unpack_from(handshake)
        if mine != me.version:
            raise ValueError("a handshake for other keys")
        ek, ciphertext = handshake[20:52], handshake[52:]
        spk = prekeys.secret(spk_id)
        secrets = dh(spk, peer[version].x25519) + dh(keys.x25519, ek) + dh(spk, ek)
        if opk_id:
            secrets += dh(prekeys.secret(opk_id), ek)
        kem = MLKEM1024PrivateKey.from_seed_bytes(prekeys.secret(kem_id))
        ad = associated(peer[version], me, kem.public_key().public_bytes_raw())
        derived = _session_keys(secrets + kem.decapsulate(ciphertext), ad, handshake)
        return cls(sha256(handshake), version, Ratchet.answer(*derived, spk))

    def encrypt(self, text: bytes, ad: bytes) -> bytes:
        message = self.ratchet.encrypt(text, ad)
        return b"\x01" + self.handshake + message if self.handshake else b"\x02" + message

    def decrypt(self, header: bytes, ad: bytes) -> bytes:
        text = self.ratchet.decrypt(header[1 + len(handshake_of(header)) :], ad)
        self.handshake = b""
        return text


def handshake_of(header: bytes) -> bytes:
    """The handshake in front of a message, or nothing."""
    return header[1 : 1 + _HANDSHAKE] if header[:1] == b"\x01" else b""
