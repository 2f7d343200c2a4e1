"""Padding hides lengths within buckets and has one spelling only."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatchain.crypto.padding import MAX_PADDED, bucket, pad, unpad
from chatchain.errors import TooLarge, Undecryptable

BUCKETS = [256, 512, 1024, *range(2048, 16_385, 2048), *range(20_480, MAX_PADDED + 1, 4096)]


def test_the_buckets_are_the_documented_ones() -> None:
    """Every length falls into one of them, the smallest that holds it and the mark."""
    assert sorted({bucket(length) for length in range(MAX_PADDED)}) == BUCKETS
    for length in range(MAX_PADDED):
        assert bucket(length) == min(size for size in BUCKETS if size > length)


def test_what_fits_no_bucket_is_too_large() -> None:
    """The last byte is the mark's."""
    assert len(pad(bytes(MAX_PADDED - 1))) == MAX_PADDED
    with pytest.raises(TooLarge):
        pad(bytes(MAX_PADDED))


@given(st.one_of(st.binary(max_size=3000), st.binary(max_size=300).map(lambda data: data + bytes(50))))
@settings(deadline=None)
def test_padding_is_undone(data: bytes) -> None:
    """Also for data that ends in zeros or in the mark."""
    assert unpad(pad(data)) == data
    assert unpad(pad(data + b"\x80")) == data + b"\x80"


@pytest.mark.parametrize(
    "padded",
    [
        b"",
        bytes(256),
        b"\x80",
        b"\x80" + bytes(254),
        b"\x80" + bytes(256),
        b"a\x80" + bytes(510),
        b"a" * 256,
        b"\x80" + bytes(254) + b"\x01",
        b"a\x80" + bytes(MAX_PADDED + 4096 - 2),
    ],
    ids=["empty", "no mark", "alone", "short", "long", "bucket too large", "full", "tail", "beyond"],
)
def test_any_other_padding_is_refused(padded: bytes) -> None:
    """A padded text has exactly one form."""
    with pytest.raises(Undecryptable):
        unpad(padded)


@given(st.binary(max_size=600))
@settings(deadline=None)
def test_only_undecryptable_escapes(padded: bytes) -> None:
    """What unpads is what pad would have made."""
    try:
        data = unpad(padded)
    except Undecryptable:
        return
    assert pad(data) == padded
