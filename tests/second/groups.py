"""Groups: sender keys. One chain of one device, and who listens to it."""

import hmac
import os
import struct
from dataclasses import dataclass, field

from nacl.signing import SigningKey

from tests.second.chain import verify
from tests.second.primitives import mac, seal, sha256, unseal

_HEAD = struct.Struct(">BQII")  # format, epoch, generation, index
_LENGTH = 1000
_DISTRIBUTION = struct.Struct(">B32sQ32sIII32s32s")


@dataclass(frozen=True)
class Place:
    """Where a chain belongs."""

    group: bytes
    epoch: int
    roster: bytes
    uid: int
    device: int
    generation: int

    def data(self, index: int, ad: bytes) -> bytes:
        """What the body is bound to."""
        numbers = struct.pack(">QIII", self.uid, self.device, self.generation, index)
        return b"chatchain/2 group body" + self.group + self.epoch.to_bytes(8) + self.roster + numbers + ad


def _keys(chain: bytes) -> tuple[bytes, bytes, bytes]:
    """The next chain key, and a message's key and commitment."""
    both = hmac.digest(mac(chain, b"\x01"), b"chatchain/2 group keys", "sha512")
    return mac(chain, b"\x02"), both[:32], both[32:]


def _signed(data: bytes, commitment: bytes, box: bytes) -> bytes:
    return b"chatchain/2 group message" + sha256(data) + commitment + box


@dataclass
class SenderChain:
    """The sender's side."""

    place: Place
    key: bytes = field(default_factory=lambda: os.urandom(32))
    signing: SigningKey = field(default_factory=SigningKey.generate)
    index: int = 0
    before: int = 0  # messages of the generation before

    def distribution(self) -> bytes:
        place = self.place
        return _DISTRIBUTION.pack(
            1, place.group, place.epoch, place.roster, place.generation, self.index, self.before,
            self.key, bytes(self.signing.verify_key),
        )  # fmt: skip

    def encrypt(self, text: bytes, ad: bytes) -> bytes:
        if self.index >= _LENGTH:
            raise ValueError("this chain is used up")
        data = self.place.data(self.index, ad)
        head = _HEAD.pack(1, self.place.epoch, self.place.generation, self.index)
        self.key, key, commitment = _keys(self.key)
        self.index += 1
        box = seal(key, text, data)
        return head + commitment + box + self.signing.sign(_signed(data, commitment, box)).signature


@dataclass
class Listener:
    """A reader's side of one chain."""

    place: Place
    index: int
    key: bytes
    public: bytes

    @classmethod
    def of(cls, distribution: bytes, uid: int, device: int) -> "Listener":
        form, group, epoch, roster, generation, index, _, key, public = _DISTRIBUTION.unpack(distribution)
        if form != 1:
            raise ValueError("another format")
        return cls(Place(group, epoch, roster, uid, device, generation), index, key, public)

    def decrypt(self, message: bytes, ad: bytes) -> bytes:
        """Open the next message, or one further on; what lies between is passed over here."""
        form, epoch, generation, index = _HEAD.unpack_from(message)
        if (form, epoch, generation) != (1, self.place.epoch, self.place.generation):
            raise ValueError("another chain")
        if not self.index <= index < _LENGTH:
            raise ValueError("opened before, or too far ahead")
        told, box, signature = message[17:49], message[49:-64], message[-64:]
        data = self.place.data(index, ad)
        verify(self.public, signature, _signed(data, told, box))
        chain = self.key
        for _ in range(index - self.index):
            chain = mac(chain, b"\x02")
        chain, key, commitment = _keys(chain)
        if not hmac.compare_digest(commitment, told):
            raise ValueError("another key")
        text = unseal(key, box, data)
        self.key, self.index = chain, index + 1
        return text
