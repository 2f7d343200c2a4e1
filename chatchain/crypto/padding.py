"""Padding to buckets, so that a ciphertext's length says little about the text's.

ISO/IEC 7816-4: one byte 0x80, then zeros up to the bucket. Buckets: 256, 512, 1,024, 2,048; multiples of
2,048 up to 16,384; multiples of 4,096 up to 69,632, which holds the longest text.
"""

from __future__ import annotations

from chatchain.errors import TooLarge, Undecryptable

MAX_PADDED = 69_632
_SMALL = (256, 512, 1024, 2048)
_MARK = b"\x80"


def bucket(length: int) -> int:
    """Gives the size of the smallest bucket that holds so many bytes and the mark; raises TooLarge."""
    needed = length + 1
    for size in _SMALL:
        if needed <= size:
            return size
    step = 2048 if needed <= 16_384 else 4096
    size = -(-needed // step) * step
    if size > MAX_PADDED:
        raise TooLarge(f"The message has {length} bytes; {MAX_PADDED - 1} fit.")
    return size


def pad(data: bytes) -> bytes:
    """Fills the data up to its bucket."""
    return (data + _MARK).ljust(bucket(len(data)), b"\0")


def unpad(padded: bytes) -> bytes:
    """Gives the data back; raises Undecryptable for anything that `pad` would not have made."""
    data, mark, _ = padded.rstrip(b"\0").rpartition(_MARK)
    if (
        not mark
        or not padded.rstrip(b"\0").endswith(_MARK)
        or len(padded) > MAX_PADDED
        or pad(data) != padded
    ):
        raise Undecryptable("The message's padding is malformed.")
    return data
