"""Contents: every kind within its bounds, one spelling each, and room for kinds to come."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatchain.crypto import content
from chatchain.crypto.attachments import MAX_FILE_BYTES, FileRef
from chatchain.crypto.content import ControlKind, File, Receipt, ReceiptKind, Text, Unsupported
from chatchain.crypto.padding import pad
from chatchain.errors import BadText, TooLarge, Undecryptable

ID = b"message id 16 by"
REF = FileRef(b"k" * 32, 5, b"h" * 32)
BLOB = b"b" * 32

ids = st.binary(min_size=16, max_size=16)
uids = st.integers(1, 2**64 - 1)
timers = st.integers(0, content.MAX_TIMER_S)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=50)
contents = st.one_of(
    st.builds(content.text, texts, timers),
    st.builds(content.receipt, st.sampled_from(ReceiptKind), st.lists(ids, min_size=1).map(tuple)),
    st.builds(
        lambda size, thumbnail, caption, expires: content.file(
            FileRef(REF.key, size, REF.sha256),
            BLOB,
            "a.txt",
            "text/plain",
            thumbnail=thumbnail,
            caption=caption,
            expires=expires,
        ),
        st.integers(0, MAX_FILE_BYTES),
        st.binary(max_size=50),
        st.one_of(st.just(""), texts),
        timers,
    ),
    st.builds(content.edit, ids, texts),
    st.builds(content.delete, ids),
    st.builds(content.reply, uids, ids, texts, timers),
    st.builds(content.reaction, uids, ids, st.sampled_from(["", "👍", "❤️", "👩‍💻"])),
    st.builds(content.typing, st.sampled_from(content.TypingState)),
    st.builds(content.timer, timers),
    st.builds(content.group_control, st.integers(2, 255), st.binary(min_size=1, max_size=50)),
    st.builds(content.profile, st.sampled_from(["", "Ada", "Zoë 🐙", "艾达"])),
    st.builds(lambda on: content.off_the_record(on=on), st.booleans()),
)


@given(contents)
def test_every_content_survives(made: content.Content) -> None:
    """Whatever was made comes back exactly."""
    assert content.decode(content.encode(made)) == made


@pytest.mark.parametrize("count", [1, 256])
def test_a_receipt_survives(count: int) -> None:
    """Kind and ids come back, up to the most that fit."""
    sent = content.receipt(ReceiptKind.READ, tuple(bytes([0, number]) * 8 for number in range(count)))
    assert content.decode(content.encode(sent)) == sent


@pytest.mark.parametrize("text", ["x" * 65_536, "é" * 32_768, "😀" * 16_384])
def test_the_longest_text_fits(text: str) -> None:
    """65,536 bytes of UTF-8, whatever the characters, into the last bucket, also as an answer or an edit."""
    assert content.decode(content.encode(content.text(text))) == Text(text)
    for made in (content.text(text, 3600), content.edit(ID, text), content.reply(2**64 - 1, ID, text, 3600)):
        pad(content.encode(made))


@pytest.mark.parametrize("text", ["x" * 65_537, "é" * 32_769, "😀" * 16_385])
def test_a_longer_text_is_too_large(text: str) -> None:
    """Bytes are counted, not characters."""
    for make in (content.text, lambda value: content.edit(ID, value), lambda v: content.reply(1, ID, v)):
        with pytest.raises(TooLarge, match="65536"):
            make(text)


@pytest.mark.parametrize("text", ["", "\ud800", "half \udfff"])
def test_an_empty_or_broken_text_is_refused(text: str) -> None:
    """There is nothing to send, or it is not text."""
    for make in (content.text, lambda value: content.edit(ID, value), lambda v: content.reply(1, ID, v)):
        with pytest.raises(BadText):
            make(text)


@pytest.mark.parametrize("ids", [(), (b"short",), (bytes(17),), (bytes(16),) * 257])
def test_a_malformed_receipt_is_not_made(ids: tuple[bytes, ...]) -> None:
    """One to 256 ids of 16 bytes."""
    with pytest.raises(ValueError, match="receipt"):
        content.receipt(ReceiptKind.READ, ids)


@pytest.mark.parametrize("emoji", ["👍👍", "ok", "👍 ", " ", "a", "🇨", "👍" + "\u200d👍" * 20])
def test_a_reaction_is_one_emoji(emoji: str) -> None:
    """Not two, not letters, not half a flag, not a chain without end."""
    with pytest.raises(BadText):
        content.reaction(1, ID, emoji)


def test_a_timer_beyond_a_year_is_refused() -> None:
    """The year itself is not."""
    assert content.timer(content.MAX_TIMER_S).seconds == content.MAX_TIMER_S
    with pytest.raises(TooLarge):
        content.timer(content.MAX_TIMER_S + 1)


def test_a_file_over_the_limit_is_refused() -> None:
    """25,000,000 bytes are carried, one more is not; nor is a caption over 8 KiB."""
    largest = FileRef(REF.key, MAX_FILE_BYTES, REF.sha256)
    assert content.file(largest, BLOB, "a", "text/plain").ref == largest
    with pytest.raises(TooLarge):
        content.file(FileRef(REF.key, MAX_FILE_BYTES + 1, REF.sha256), BLOB, "a", "text/plain")
    with pytest.raises(TooLarge):
        content.file(REF, BLOB, "a", "text/plain", caption="x" * 8193)
    pad(
        content.encode(
            content.file(REF, BLOB, "é" * 127, "text/plain", thumbnail=bytes(16_384), caption="x" * 8192)
        )
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"blob": b"b" * 31},
        {"key": b"k" * 33},
        {"sha256": b""},
        {"size": -1},
        {"size": 2**64 - 1},
        {"thumbnail": bytes(16_385)},
        {"name": ""},
        {"name": "x" * 256},
        {"name": ".."},
        {"name": "a/b"},
        {"name": "a\\b"},
        {"name": "a\0"},
        {"name": "exe.\u202egpj"},
        {"media_type": "text"},
        {"media_type": "text/plain; charset=x"},
        {"media_type": "Text/Plain"},
        {"media_type": "a/" + "b" * 200},
        {"caption": "x" * 8193},
        {"expires": -1},
        {"expires": content.MAX_TIMER_S + 1},
    ],
)
def test_a_file_outside_of_its_bounds_does_not_decode(changed: dict[str, object]) -> None:
    """Whoever writes bytes by hand gets no further than a notice."""
    honest = content.file(REF, BLOB, "a.txt", "text/plain")
    assert content.decode(content.encode(honest)) == honest
    with pytest.raises(Undecryptable):
        content.decode(content.encode(msgspec.structs.replace(honest, **changed)))


def test_secrets_do_not_show() -> None:
    """What is printed of a file or a group key holds no key."""
    made = content.file(REF, BLOB, "a.txt", "text/plain")
    assert repr(made) == "File(name='a.txt', size=5)"
    assert "kkk" not in repr(made.ref)
    assert repr(content.group_control(200, b"secret")) == "GroupControl(kind=200, 6 bytes)"


def packed(*values: object) -> bytes:
    """A content of the current version with any fields."""
    return b"\x01" + msgspec.msgpack.encode(values)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (packed(13, "later"), Unsupported(1, 13)),
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
        packed(1, "x", -1),
        packed(1, "x", content.MAX_TIMER_S + 1),
        packed(1, "x", 0),
        packed(1, "x", 1, 1),
        packed(1, "x", True),
        packed(2, 1),
        packed(2, 4, [bytes(16)]),
        packed(2, 1, []),
        packed(2, 1, [b"short"]),
        packed(2, 1, [bytes(16)] * 257),
        packed(4, ID[:15], "x"),
        packed(4, ID, ""),
        packed(5, ID + b"x"),
        packed(5),
        packed(6, 0, ID, "x"),
        packed(6, -1, ID, "x"),
        packed(6, 2**64 - 1, b"", "x"),
        packed(7, 1, ID, ""),
        packed(7, 1, ID, "no emoji"),
        packed(8, 3),
        packed(9, 0),
        packed(9, -5),
        packed(10, 0, b"x"),
        packed(10, 256, b"x"),
        packed(10, 2, b""),
        packed(10, 2, bytes(4097)),
        packed(10, ControlKind.SENDER_KEY, bytes(148)),
        packed(11, ""),
        packed(11, " ada"),
        packed(11, "a\u200bda"),
        packed(12, 1),
        packed(12, False),
        packed(1, "text") + b"tail",
        b"\x01\x92\x01\xa1\xff",
        b"\x01\x92\x01\xd9\x01x",
        b"\x01\xdd\xff\xff\xff\xff\x01",
        b"\x01" + b"\x91" * 5000,
        b"\x01" + msgspec.msgpack.encode([200, bytes(70_000)]),
    ],
)
def test_malformed_content_is_refused(data: bytes) -> None:
    """Missing, wrong, too many, not UTF-8, another spelling, a tail, a huge length, a depth bomb."""
    with pytest.raises(Undecryptable):
        content.decode(data)


def test_content_is_whole_or_refused() -> None:
    """Every kind, cut at any byte or with one byte more, is no content."""
    for made in (
        content.file(REF, BLOB, "a.txt", "text/plain", caption="look", expires=60),
        content.reply(7, ID, "yes", 60),
        content.reaction(7, ID, "👍"),
        content.group_control(9, b"payload"),
    ):
        data = content.encode(made)
        for length in range(1, len(data)):
            with pytest.raises(Undecryptable):
                content.decode(data[:length])
        with pytest.raises(Undecryptable):
            content.decode(data + b"\0")


kinds = st.integers(0, 15).map(lambda kind: bytes([kind]))
headed = st.builds(
    lambda count, kind, rest: b"\x01" + bytes([0x90 + count]) + kind + rest,
    st.integers(0, 10),
    kinds,
    st.binary(max_size=200),
)
mutated = st.builds(
    lambda made, place, byte: (
        (data := content.encode(made))[: place % len(data)] + bytes([byte]) + data[place % len(data) + 1 :]
    ),
    contents,
    st.integers(0, 300),
    st.integers(0, 255),
)


@given(st.one_of(st.binary(max_size=200), headed, mutated))
@settings(deadline=None)
def test_only_undecryptable_escapes_and_all_has_one_spelling(data: bytes) -> None:
    """Whatever stands inside of an envelope; what is read is written again as it was."""
    try:
        found = content.decode(data)
    except Undecryptable:
        return
    if not isinstance(found, Unsupported):
        assert content.encode(found) == data


def test_kinds_are_told_apart_by_their_numbers() -> None:
    """The numbers are the protocol's and never change."""
    assert packed(1, "x") == content.encode(Text("x"))
    assert content.encode(Receipt(ReceiptKind.READ, (ID,))) == packed(2, 2, [ID])
    assert content.encode(File(BLOB, "a", "a/b", REF.key, 5, REF.sha256))[1:3] == b"\x97\x03"
