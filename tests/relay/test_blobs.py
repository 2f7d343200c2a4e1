"""What a relay allows of files, and how parts become a blob, without a server: the edges of every limit."""

from __future__ import annotations

import hashlib
import os

import pytest

from chatchain.errors import LimitReached, RefusedError, TooLarge
from chatchain.model import Blob, BlobState, BlobUse
from chatchain.relay.blobs import (
    PART_BYTES,
    Assembly,
    BlobLimits,
    admit,
    check_size,
    part_sizes,
    parts_kept,
    slices,
)

LIMITS = BlobLimits(largest=1_000, count=3, bytes=2_000, per_day=3_000)


def blob_of(data: bytes) -> Blob:
    return Blob(1, hashlib.sha256(data).digest(), len(data), BlobState.PARTIAL, 5, 10**15)


def test_a_blob_may_be_as_large_as_the_limit_says() -> None:
    """And not a byte more."""
    check_size(LIMITS, 1_000)
    with pytest.raises(TooLarge):
        check_size(LIMITS, 1_001)


@pytest.mark.parametrize(
    ("use", "fits"),
    [
        (BlobUse(0, 0, 2_000), 1_000),
        (BlobUse(2, 1_000, 0), 1_000),
        (BlobUse(0, 1_999, 2_999), 1),
    ],
    ids=["day", "bytes", "both"],
)
def test_room_is_used_to_the_last_byte(use: BlobUse, fits: int) -> None:
    """What still fits is taken; one byte more is to be tried later, and never at once."""
    admit(LIMITS, use, fits)
    with pytest.raises(LimitReached) as raised:
        admit(LIMITS, use, fits + 1)
    assert raised.value.retry_after_ms > 0


def test_a_user_has_so_many_files() -> None:
    """However small they are."""
    admit(LIMITS, BlobUse(2, 0, 0), 1)
    with pytest.raises(LimitReached) as raised:
        admit(LIMITS, BlobUse(3, 0, 0), 1)
    assert raised.value.retry_after_ms > 0


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        ([], 0),
        ([PART_BYTES], 1),
        ([PART_BYTES, PART_BYTES, 7], 3),
        ([PART_BYTES, PART_BYTES - 1, 7], 1),
        ([PART_BYTES - 1, PART_BYTES, 7], 0),
        ([PART_BYTES, PART_BYTES, 6], 2),
        ([PART_BYTES, PART_BYTES, 8], 2),
        ([PART_BYTES, PART_BYTES, 7, 7], 3),
    ],
)
def test_an_upload_goes_on_behind_the_last_part_of_the_right_size(found: list[int], kept: int) -> None:
    """What lies behind a part that is short, or long, is not believed."""
    assert parts_kept(2 * PART_BYTES + 7, found) == kept


@pytest.mark.parametrize("step", [1_000_003, PART_BYTES, 3 * PART_BYTES])
def test_pieces_become_parts_whatever_their_size(step: int) -> None:
    """Each byte has its place, and the whole has its hash only once every part went through."""
    data = os.urandom(2 * PART_BYTES + 7)
    assembly = Assembly(blob_of(data))
    parts: list[bytes] = []
    for at in range(0, len(data), step):
        assert assembly.offset == at
        parts += assembly.take(data[at : at + step])
    assert [len(part) for part in parts] == part_sizes(len(data))
    assert b"".join(parts) == data
    for number, part in enumerate(parts):
        assert not assembly.matches()
        assert assembly.keep(part) == number
    assert assembly.matches()


def test_one_byte_too_many_or_another_byte_is_not_the_blob() -> None:
    """The first is refused when it comes, the second shows in the hash."""
    data = os.urandom(1_000)
    assembly = Assembly(blob_of(data))
    assembly.take(data[:500])
    with pytest.raises(RefusedError):
        assembly.take(data[500:] + b"x")
    (part,) = assembly.take(data[500:])
    other = Assembly(blob_of(data))
    for wanted, given in ((assembly, part), (other, part[:-1] + bytes([part[-1] ^ 1]))):
        wanted.keep(given)
    assert assembly.matches()
    assert not other.matches()


@pytest.mark.parametrize("offset", [0, 1, PART_BYTES - 1, PART_BYTES, 2 * PART_BYTES + 6])
@pytest.mark.parametrize("length", [1, PART_BYTES - 1, PART_BYTES, 2 * PART_BYTES + 7])
def test_slices_are_the_bytes_that_were_asked_for(offset: int, length: int) -> None:
    """In order, without a gap, and none beyond a part."""
    at = offset
    for part, start, end in slices(offset, length):
        assert part * PART_BYTES + start == at
        assert 0 <= start < end <= PART_BYTES
        at = part * PART_BYTES + end
    assert at == offset + length
