"""A delivery as the relay keeps it: encoded once, when it comes in, and given out as these very bytes.

A parcel is the msgpack array of a `Delivery` without its sequence, which is not known before the commit. Its
bytes lie in the database and go into the frame of each `Deliver`, so that nothing is encoded twice and a
mailbox is given out without being decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from chatchain.model import MESSAGE_ID_BYTES, RELAYS_WORD, Copy, Delivery, Envelope
from chatchain.wire.connection import LENGTH, frame
from chatchain.wire.messages import Deliver, Tick

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(tuple[bytes, int, int, int, int, int, bytes, bytes]).decode

_TICK: Final = frame(Tick(bytes(MESSAGE_ID_BYTES)))[:-MESSAGE_ID_BYTES]
_DELIVER: Final = frame(Deliver(Delivery(0, b"", 0, 0, 0, 0, 0, b"", b"")))[LENGTH.size : LENGTH.size + 3]
"""How the two frames of every message begin: tags and array headers."""

_HEAD: Final = struct.Struct(">I3sBI").pack
"""What precedes a parcel: the frame's length, the header, and a sequence that takes 32 bits."""

_U32: Final = 0xCE
_U32_FROM: Final = 2**16
_U32_TO: Final = 2**32
_MORE: Final = len(_DELIVER) + 5 - 1  # the sequence comes, the parcel's own array header goes


def parcel(envelope: Envelope, copy: Copy, sender: int, device: int, received_ms: int) -> bytes:
    """What one device gets of an envelope."""
    return _encode(
        (
            envelope.id,
            envelope.suite,
            sender,
            device,
            envelope.recipient,
            received_ms,
            copy.header,
            envelope.body,
        )
    )


def notice(
    id: bytes, *, about: int, device: int, to: int, received_ms: int, messages: Sequence[bytes]
) -> bytes:
    """What a device of `to` gets from the relay itself when these messages to `about` waited too long."""
    return _encode((id, RELAYS_WORD, about, device, to, received_ms, b"", b"".join(messages)))


def opened(given: bytes) -> Delivery:
    """What a parcel holds; its sequence is not known here."""
    return Delivery(0, *_decode(given))


def deliver_frames(first: int, parcels: Sequence[bytes]) -> bytes:
    """The frames of `Deliver` for parcels with the sequences from `first` on."""
    parts: list[bytes] = []
    if first >= _U32_FROM and first + len(parcels) <= _U32_TO:  # nearly always: one step for what precedes
        for sequence, given in enumerate(parcels, first):
            parts += (_HEAD(len(given) + _MORE, _DELIVER, _U32, sequence), given[1:])
        return b"".join(parts)
    for sequence, given in enumerate(parcels, first):
        number = _encode(sequence)
        parts += (LENGTH.pack(len(_DELIVER) + len(number) + len(given) - 1), _DELIVER, number, given[1:])
    return b"".join(parts)


def tick_frames(ids: Iterable[bytes]) -> bytes:
    """The frames of `Tick` for these message ids."""
    return b"".join([_TICK + id_ for id_ in ids])
