"""Suite 2: messages. The Double Ratchet with header encryption and a KEM step."""

import copy
import os
import struct
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey

from tests.second.primitives import dh, dh_public, hkdf, mac, seal, unseal

_HEADER = struct.Struct(">32sIIHB")  # DHs, PN, N, KEM epoch, KEM field
_SEALED = 75
_KEY, _CIPHERTEXT = 1, 2
_FIELD_SIZES = {0: 0, _KEY: 1184, _CIPHERTEXT: 1088}
_STEP_EVERY = 50
_REPEAT_AFTER = 10
_MAX_SKIP = 1000


class Unreadable(Exception):
    """No key of this session opens that."""


@dataclass
class Ratchet:
    """One side of a session; the names are those of the specification."""

    initiator: bool
    transcript: bytes
    rk: bytes
    dhs: bytes  # the secret
    dhr: bytes
    nhks: bytes  # becomes HKs when a sending chain begins
    nhkr: bytes
    hks: bytes = b""
    hkr: bytes = b""
    cks: bytes = b""
    ckr: bytes = b""
    ns: int = 0
    nr: int = 0
    pn: int = 0
    epoch: int = 0
    since_step: int = 0
    since_field: int = 0
    field_due: bool = False
    kem_seed: bytes = b""  # the initiator's, while its key is about
    kem_ciphertext: bytes = b""  # the responder's answer
    kem_secret: bytes = b""
    skipped: dict[bytes, dict[int, bytes]] = field(default_factory=dict)  # by header key

    @classmethod
    def begin(cls, keys: bytes, transcript: bytes, theirs: bytes) -> "Ratchet":
        """The initiator's, from RK ‖ HKA ‖ NHKB and the responder's signed prekey."""
        return cls(True, transcript, keys[:32], b"", theirs, nhks=keys[32:64], nhkr=keys[64:])

    @classmethod
    def answer(cls, keys: bytes, transcript: bytes, ours: bytes) -> "Ratchet":
        return cls(False, transcript, keys[:32], ours, b"", nhks=keys[64:], nhkr=keys[32:64])

    def encrypt(self, text: bytes, ad: bytes) -> bytes:
        fresh = not self.cks
        if fresh:
            self._begin_chain()
        kind, kem = self._field(fresh)
        header = _HEADER.pack(dh_public(self.dhs), self.pn, self.ns, self.epoch, kind)
        nonce = os.urandom(16)
        sealed = nonce + seal(self.hks, header, nonce=nonce)
        self.cks, key = chain_step(self.cks)
        self.ns += 1
        self.since_step += 1
        self.since_field += 1
        return sealed + seal(key, kem + text, self.transcript + sealed + ad)

    def decrypt(self, message: bytes, ad: bytes) -> bytes:
        """Open one message; what cannot be opened changes nothing."""
        trial = copy.copy(self)
        trial.skipped = {key: dict(keys) for key, keys in self.skipped.items()}
        try:
            text = trial._open(message, ad)
        except (InvalidTag, ValueError) as failure:
            raise Unreadable from failure
        self.__dict__.update(trial.__dict__)
        return text

    def _open(self, message: bytes, ad: bytes) -> bytes:
        sealed, body = message[:_SEALED], message[_SEALED:]
        key = b""
        header = None
        for header_key, keys in self.skipped.items():
            header = open_header(header_key, sealed)
            if header and header[2] in keys:
                key = keys.pop(header[2])
                break
        if not key:
            header = open_header(self.hkr, sealed)
            if header is None:
                header = open_header(self.nhkr, sealed)
                if header is None:
                    raise Unreadable
                self._take_chain(header[0], header[1], header[3])
            self._skip(header[2])
            self.ckr, key = chain_step(self.ckr)
            self.nr += 1
        assert header is not None
        _, _, _, epoch, kind = header
        text = unseal(key, body, self.transcript + sealed + ad)
        size = _FIELD_SIZES[kind]
        self.since_step += 1
        if epoch == self.epoch:
            self._take_field(kind, text[:size])
        return text[size:]

    def _begin_chain(self) -> None:
        secret = b""
        if self.initiator and self.kem_secret:
            secret = self.kem_secret
            self._stepped()
        self.dhs = os.urandom(32)
        self.hks = self.nhks
        self.rk, self.cks, self.nhks = root_step(self.rk, dh(self.dhs, self.dhr) + secret)

    def _take_chain(self, dhr: bytes, pn: int, epoch: int) -> None:
        secret = b""
        if epoch == (self.epoch + 1) % 65536 and not self.initiator and self.kem_secret:
            secret = self.kem_secret
        elif epoch != self.epoch:
            raise Unreadable("a chain of another epoch")
        if self.ckr:
            self._skip(pn)
        self.pn, self.ns, self.nr = self.ns, 0, 0
        self.cks = b""
        self.hkr, self.dhr = self.nhkr, dhr
        if secret:
            self._stepped()
        self.rk, self.ckr, self.nhkr = root_step(self.rk, dh(self.dhs, self.dhr) + secret)

    def _skip(self, until: int) -> None:
        if until < self.nr or until - self.nr > _MAX_SKIP:
            raise Unreadable("used before, or too far ahead")
        while self.nr < until:
            self.ckr, key = chain_step(self.ckr)
            self.skipped.setdefault(self.hkr, {})[self.nr] = key
            self.nr += 1

    def _stepped(self) -> None:
        self.epoch = (self.epoch + 1) % 65536
        self.since_step = 0
        self.kem_seed = self.kem_ciphertext = self.kem_secret = b""

    def _field(self, fresh: bool) -> tuple[int, bytes]:
        """What goes in front of the next message."""
        if self.initiator and not self.kem_seed and self.since_step >= _STEP_EVERY:
            self.kem_seed, self.field_due = os.urandom(64), True
        if not (self.field_due or (fresh and self.since_field >= _REPEAT_AFTER)):
            return 0, b""
        self.field_due, self.since_field = False, 0
        if self.kem_ciphertext:
            return _CIPHERTEXT, self.kem_ciphertext
        if self.kem_seed and not self.kem_secret:
            return _KEY, MLKEM768PrivateKey.from_seed_bytes(self.kem_seed).public_key().public_bytes_raw()
        return 0, b""

    def _take_field(self, kind: int, kem: bytes) -> None:
        if kind == _KEY and not self.initiator and not self.kem_ciphertext:
            self.kem_secret, self.kem_ciphertext = MLKEM768PublicKey.from_public_bytes(kem).encapsulate()
            self.field_due = True
        elif kind == _CIPHERTEXT and self.kem_seed and not self.kem_secret:
            self.kem_secret = MLKEM768PrivateKey.from_seed_bytes(self.kem_seed).decapsulate(kem)


def open_header(key: bytes, sealed: bytes) -> tuple[bytes, int, int, int, int] | None:
    if not key:
        return None
    try:
        dhr, pn, n, epoch, kind = _HEADER.unpack(unseal(key, sealed[16:], nonce=sealed[:16]))
    except InvalidTag:
        return None
    return dhr, pn, n, epoch, kind


def root_step(rk: bytes, secret: bytes) -> tuple[bytes, bytes, bytes]:
    keys = hkdf(secret, b"chatchain/2 ratchet root", 96, rk)
    return keys[:32], keys[32:64], keys[64:]


def chain_step(chain: bytes) -> tuple[bytes, bytes]:
    return mac(chain, b"\x02"), mac(chain, b"\x01")
