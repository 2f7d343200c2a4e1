"""Contents: texts within the limits, receipts, and room for kinds to come."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatchain.crypto import content
from chatchain.crypto.content import Receipt, ReceiptKind, Text, Unsupported
from chatchain.crypto.padding import pad
from chatchain.errors import BadText, TooLarge, Undecryptable


@given(st.text(min_size=1, max_size=200))
def test_a_text_survives(text: str) -> None:
    """Whatever is valid text comes back exactly."""
    assert content.decode(content.encode(content.text(text))) == Text(text)


@pytest.mark.parametrize("kind", ReceiptKind)
@pytest.mark.parametrize("count", [1, 256])
def test_a_receipt_survives(kind: ReceiptKind, count: int) -> None:
    """Kind and ids come back."""
    sent = content.receipt(kind, tuple(bytes([0, number]) * 8 for number in range(count)))
    assert content.decode(content.encode(sent)) == sent


@pytest.mark.parametrize("text", ["x" * 65_536, "é" * 32_768, "😀" * 16_384])
def test_the_longest_text_fits(text: str) -> None:
    """65,536 bytes of UTF-8, whatever the characters, into the last bucket."""
    assert content.decode(content.encode(content.text(text))) == Text(text)
    pad(content.encode(content.text(text)))


@pytest.mark.parametrize("text", ["x" * 65_537, "é" * 32_769, "😀" * 16_385])
def test_a_longer_text_is_too_large(text: str) -> None:
    """Bytes are counted, not characters."""
    with pytest.raises(TooLarge, match="65536"):
        content.text(text)


@pytest.mark.parametrize("text", ["", "\ud800", "half \udfff"])
def test_an_empty_or_broken_text_is_refused(text: str) -> None:
    """There is nothing to send, or it is not text."""
    with pytest.raises(BadText):
        content.text(text)


@pytest.mark.parametrize("ids", [(), (b"short",), (bytes(17),), (bytes(16),) * 257])
def test_a_malformed_receipt_is_not_made(ids: tuple[bytes, ...]) -> None:
    """One to 256 ids of 16 bytes."""
    with pytest.raises(ValueError, match="receipt"):
        content.receipt(ReceiptKind.READ, ids)


def packed(*values: object) -> bytes:
    """A content of the current version with any fields."""
    return b"\x01" + msgspec.msgpack.encode(values)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (packed(3, "later"), Unsupported(1, 3)),
        (packed(200), Unsupported(1, 200)),
        (b"\x02whatever", Unsupported(2, 0)),
        (b"\xff", Unsupported(255, 0)),
    ],
)
def test_what_a_later_program_sends_is_told_apart_from_damage(data: bytes, found: Unsupported) -> None:
    """It shows as a notice instead of an error."""
    assert content.decode(data) == found


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        b"\x01\xc1",
        packed(),
        packed("text"),
        packed(1),
        packed(1, ""),
        packed(1, 5),
        packed(1, "x" * 65_537),
        packed(2, 1),
        packed(2, 3, [bytes(16)]),
        packed(2, 1, []),
        packed(2, 1, [b"short"]),
        packed(2, 1, [bytes(16)] * 257),
        packed(1, "text") + b"tail",
        b"\x01\x92\x01\xa1\xff",
        b"\x01\xdd\xff\xff\xff\xff\x01",
        b"\x01" + b"\x91" * 5000,
    ],
)
def test_malformed_content_is_refused(data: bytes) -> None:
    """Missing, wrong, too many, not UTF-8, a tail, a huge declared length, a depth bomb."""
    with pytest.raises(Undecryptable):
        content.decode(data)


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda data: b"\x01\x92\x01" + data)))
@settings(deadline=None)
def test_only_undecryptable_escapes(data: bytes) -> None:
    """Whatever stands inside of an envelope."""
    try:
        found = content.decode(data)
    except Undecryptable:
        return
    assert isinstance(found, Text | Receipt | Unsupported)
