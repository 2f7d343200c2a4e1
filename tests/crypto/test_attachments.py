"""Files: the published format, in constant memory, and every way in which a relay could spoil one."""

from __future__ import annotations

import hashlib
import io
import json
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag
from hypothesis import given, settings
from hypothesis import strategies as st

from chatchain.crypto import attachments
from chatchain.crypto.attachments import (
    CHUNK_BYTES,
    HEADER_BYTES,
    MAX_FILE_BYTES,
    Cobblestone,
    FileRef,
    Opener,
    Sealer,
    blob_size,
    pieces,
    seal_pieces,
)
from chatchain.errors import ChatchainError, RefusedError, TooLarge, Undecryptable

VECTORS = Path(__file__).parent.parent / "vectors" / "cobblestone.json"
SEALED_CHUNK = CHUNK_BYTES + 16
LENGTHS = [0, 1, 57, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES + 5000]


def content(length: int) -> bytes:
    """Bytes of which no two chunks are alike."""
    return hashlib.shake_128(b"a file").digest(length)


def sealed(data: bytes, step: int = 5000) -> tuple[bytes, FileRef]:
    """The blob of a file, and what the message says of it."""
    sealer = Sealer(len(data))
    blob = b"".join(seal_pieces(sealer, pieces(io.BytesIO(data), step)))
    end, file = sealer.finish()
    return blob + end, file


def opened(blob: bytes, file: FileRef, step: int = 5000) -> bytes:
    """What the blob holds, fed in steps."""
    opener = Opener(file)
    return b"".join(opener.update(piece) for piece in pieces(io.BytesIO(blob), step)) + opener.finish()


def chunks(blob: bytes) -> list[bytes]:
    """The header, and each sealed chunk."""
    body = blob[HEADER_BYTES:]
    return [blob[:HEADER_BYTES]] + [body[at : at + SEALED_CHUNK] for at in range(0, len(body), SEALED_CHUNK)]


THREE = content(3 * CHUNK_BYTES + 500)
BLOB, FILE = sealed(THREE)


# --- the format -----------------------------------------------------------------------------------------


def vectors() -> list[Any]:
    """Wycheproof's, each with its outcome."""
    return [pytest.param(case, id=case["name"]) for case in json.loads(VECTORS.read_text())["cases"]]


@pytest.mark.parametrize("case", vectors())
@pytest.mark.parametrize("step", [17, 16_400, 10**7])
def test_a_published_vector_ends_as_it_says(case: dict[str, Any], step: int) -> None:
    """Whole, in steps of a sealed chunk and in small ones; what is refused gives but its valid start."""
    key, context = bytes.fromhex(case["key"]), bytes.fromhex(case["context"])
    ciphertext = zlib.decompress(bytes.fromhex(case["ciphertext"]))
    if step == 17 and len(ciphertext) > 100_000:
        step = 99_991
    found, outcome = b"", "ok"
    try:
        stream = Cobblestone(key, context, ciphertext[:HEADER_BYTES])
        for piece in pieces(io.BytesIO(ciphertext[HEADER_BYTES:]), step):
            found += stream.update(piece)
        found += stream.finish()
    except Undecryptable as failure:
        outcome = failure.code
    assert outcome == case["outcome"]
    if "plaintext_length" in case:
        start = found[: case["plaintext_length"]]
        assert outcome != "ok" or start == found
        if step < SEALED_CHUNK or outcome == "ok":
            assert hashlib.sha512(start).hexdigest() == case["plaintext_sha512"]
    else:
        assert not found


@pytest.mark.parametrize("length", LENGTHS)
def test_the_library_opens_what_we_seal_and_we_open_what_it_seals(length: int) -> None:
    """Two implementations of one specification, in both directions."""
    data = content(length)
    blob, file = sealed(data)
    theirs = Cobblestone256Decryptor(file.key, b"chatchain/2 file")
    assert theirs.update(blob) + theirs.finalize() == data
    encryptor = Cobblestone256Encryptor(file.key, b"chatchain/2 file")
    assert opened(encryptor.update(data) + encryptor.finalize(), file) == data


@given(st.binary(max_size=300), st.integers(0, 200), st.integers(1, 255))
@settings(deadline=None)
def test_we_refuse_what_the_library_refuses(data: bytes, at: int, flip: int) -> None:
    """A byte changed anywhere, or none."""
    key = bytes(32)
    encryptor = Cobblestone256Encryptor(key, b"")
    blob = bytearray(encryptor.update(data) + encryptor.finalize())
    if at < len(blob):
        blob[at] ^= flip
    try:
        theirs = Cobblestone256Decryptor(key, b"")
        expected: bytes | None = theirs.update(bytes(blob)) + theirs.finalize()
    except InvalidTag:
        expected = None
    found: bytes | None
    try:
        stream = Cobblestone(key, b"", bytes(blob[:HEADER_BYTES]))
        found = stream.update(bytes(blob[HEADER_BYTES:])) + stream.finish()
    except Undecryptable:
        found = None
    assert found == expected


# --- whole files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("step", [1000, 16_384, 16_400, 262_144])
def test_a_file_survives(length: int, step: int) -> None:
    """Whatever its length and the pieces that it travels in."""
    data = content(length)
    blob, file = sealed(data, step)
    assert len(blob) == blob_size(length)
    assert (file.size, file.sha256) == (length, hashlib.sha256(data).digest())
    assert opened(blob, file, step) == data


def test_byte_by_byte_gives_the_same() -> None:
    """The machine keeps what is not complete yet."""
    blob, file = sealed(content(CHUNK_BYTES + 3), 1)
    assert opened(blob, file, 1) == content(CHUNK_BYTES + 3)


def test_the_largest_file_survives_in_constant_memory() -> None:
    """25,000,000 bytes are never all there: under 8 MB at the worst moment, both ways."""
    whole = hashlib.sha256()
    sealer, file = Sealer(MAX_FILE_BYTES), FileRef(bytes(32), 0, bytes(32))

    def source() -> Iterator[bytes]:
        piece, left = bytes(range(256)) * 1024, MAX_FILE_BYTES
        while left:
            yield piece[:left]
            left -= min(left, len(piece))

    def through() -> Iterator[bytes]:
        nonlocal file
        yield from seal_pieces(sealer, source())
        end, file = sealer.finish()
        yield end

    def measured(stream: Iterator[bytes]) -> int:
        tracemalloc.start()
        for piece in stream:
            whole.update(piece)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert measured(through()) < 8_000_000
    assert file.size == MAX_FILE_BYTES
    # The blob is made again in step with its opening, so that it is never whole either.
    encryptor = Cobblestone256Encryptor(file.key, b"chatchain/2 file")
    again = (encryptor.update(piece) for piece in source())
    whole = hashlib.sha256()
    opener = Opener(file)
    assert measured(opener.update(piece) for piece in again) < 8_000_000
    whole.update(opener.update(encryptor.finalize()) + opener.finish())
    assert whole.digest() == file.sha256


def test_every_file_has_its_own_key() -> None:
    """The same file twice makes two blobs that have nothing in common."""
    one, two = sealed(THREE), sealed(THREE)
    assert one[1].key != two[1].key
    assert not set(chunks(one[0])) & set(chunks(two[0]))


# --- limits ---------------------------------------------------------------------------------------------


class Untouched(io.BytesIO):
    """A reader that must not be read."""

    def read(self, size: int | None = -1, /) -> bytes:
        raise AssertionError("something was read")


def test_a_file_over_the_limit_is_refused_before_it_is_read() -> None:
    """Both when sending and when a message announces one."""
    reader = Untouched()
    with pytest.raises(TooLarge, match="25,000,000"):
        list(seal_pieces(Sealer(MAX_FILE_BYTES + 1), pieces(reader)))
    large = FileRef(bytes(32), MAX_FILE_BYTES + 1, bytes(32))
    with pytest.raises(TooLarge):
        Opener(large)
    with pytest.raises(TooLarge):
        FileRef.decode(large.encode())
    with pytest.raises(AssertionError):
        reader.read()


def test_a_file_that_changes_while_it_is_read_is_refused() -> None:
    """Grown or shrunk: what the message would say of it is no longer so."""
    sealer = Sealer(1000)
    sealer.update(bytes(1000))
    with pytest.raises(RefusedError, match="changed"):
        sealer.update(b"x")
    with pytest.raises(RefusedError, match="changed"):
        Sealer(1000).finish()


def test_a_longer_blob_is_refused_at_its_first_byte_too_many() -> None:
    """A relay cannot make a device read on."""
    opener = Opener(FILE)
    opener.update(BLOB)
    with pytest.raises(Undecryptable, match="longer"):
        opener.update(b"x")


# --- going on after an interruption ---------------------------------------------------------------------


@pytest.mark.parametrize("whole", [0, 1, 2, 3])
def test_a_download_goes_on_at_a_chunk_boundary(whole: int) -> None:
    """With the header, the plaintext that is there, and the rest of the blob."""
    written = THREE[: whole * CHUNK_BYTES]
    opener = Opener(FILE, pieces(io.BytesIO(written), 1000))
    assert opener.offset == HEADER_BYTES + whole * SEALED_CHUNK
    assert opener.update(BLOB[:HEADER_BYTES]) == b""
    rest = opener.update(BLOB[opener.offset :]) + opener.finish()
    assert written + rest == THREE


def test_a_changed_start_shows_at_the_end_of_a_resumed_download() -> None:
    """What lay on the disk meanwhile counts towards the hash as well."""
    opener = Opener(FILE, [bytes(CHUNK_BYTES)])
    opener.update(BLOB[:HEADER_BYTES])
    opener.update(BLOB[opener.offset :])
    with pytest.raises(Undecryptable, match="not the one"):
        opener.finish()


def test_a_resumed_download_takes_no_chunk_of_another_place() -> None:
    """The number of a chunk is in its nonce."""
    opener = Opener(FILE, [THREE[:CHUNK_BYTES]])
    opener.update(BLOB[:HEADER_BYTES])
    with pytest.raises(Undecryptable):
        opener.update(BLOB[HEADER_BYTES + 2 * SEALED_CHUNK :])


@pytest.mark.parametrize("written", [b"x", bytes(CHUNK_BYTES + 1), bytes(4 * CHUNK_BYTES)])
def test_going_on_elsewhere_is_a_slip_of_the_caller(written: bytes) -> None:
    """Half a chunk, or more than the file has."""
    with pytest.raises(ValueError, match="whole number"):
        Opener(FILE, [written])


# --- attacks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "length",
    [0, 1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 15, HEADER_BYTES + SEALED_CHUNK, len(BLOB) - 1],
)
def test_truncated_file(length: int) -> None:
    """Cut inside of the header, at a chunk boundary, before the last byte."""
    with pytest.raises(Undecryptable):
        opened(BLOB[:length], FILE)


@pytest.mark.parametrize("size", [0, CHUNK_BYTES, 3 * CHUNK_BYTES])
def test_truncated_file_whose_message_agrees(size: int) -> None:
    """Even a size that fits the cut does not make a full chunk the last one."""
    cut = BLOB[: HEADER_BYTES + size // CHUNK_BYTES * SEALED_CHUNK]
    with pytest.raises(Undecryptable):
        opened(cut, msgspec.structs.replace(FILE, size=size))


@pytest.mark.parametrize("order", [(1, 0, 2, 3), (0, 2, 1, 3), (0, 0, 2, 3), (3, 1, 2, 0), (2, 1, 0, 3)])
def test_reordered_chunks(order: tuple[int, ...]) -> None:
    """Swapped, repeated, the last one first."""
    header, *parts = chunks(BLOB)
    with pytest.raises(Undecryptable):
        opened(header + b"".join(parts[number] for number in order), FILE)


def test_swapped_chunk_of_another_file() -> None:
    """The same place in another blob, with and without its header."""
    other, other_file = sealed(content(3 * CHUNK_BYTES + 501)[1:])
    assert other_file.size == FILE.size
    mine, theirs = chunks(BLOB), chunks(other)
    for at in range(len(mine)):
        with pytest.raises(Undecryptable):
            opened(b"".join([*mine[:at], theirs[at], *mine[at + 1 :]]), FILE)


def test_swapped_file() -> None:
    """Another file's blob, and another file under the right key."""
    other, _ = sealed(bytes(len(THREE)))
    with pytest.raises(Undecryptable, match="another key"):
        opened(other, FILE)
    encryptor = Cobblestone256Encryptor(FILE.key, b"chatchain/2 file")
    with pytest.raises(Undecryptable, match="not the one"):
        opened(encryptor.update(bytes(len(THREE))) + encryptor.finalize(), FILE)


@pytest.mark.parametrize("at", [0, 23, 24, 55, 56, 16_455, 16_456, len(BLOB) - 17, len(BLOB) - 1])
def test_altered_file(at: int) -> None:
    """Salt, commitment, a chunk, a tag, the last chunk and its tag."""
    altered = bytearray(BLOB)
    altered[at] ^= 1
    with pytest.raises(Undecryptable):
        opened(bytes(altered), FILE)


def test_a_refused_file_stays_refused() -> None:
    """Nothing that follows a refused chunk opens."""
    header, first, second, *_ = chunks(BLOB)
    stream = Cobblestone(FILE.key, b"chatchain/2 file", header)
    with pytest.raises(Undecryptable):
        stream.update(second)
    with pytest.raises(Undecryptable, match="before"):
        stream.update(first)
    with pytest.raises(Undecryptable):
        stream.finish()


# --- what the message says ------------------------------------------------------------------------------


def test_a_reference_survives_and_keeps_its_key_to_itself() -> None:
    """69 bytes; a log that shows it opens nothing."""
    assert FileRef.decode(FILE.encode()) == FILE
    assert len(FILE.encode()) == attachments.REF_BYTES == 69
    assert FILE.key.hex() not in repr(FILE)
    assert repr(FILE.key)[2:-1] not in repr(FILE)


@pytest.mark.parametrize(
    "data",
    [b"", FILE.encode()[:-1], FILE.encode() + b"\0", b"\2" + FILE.encode()[1:]],
    ids=["empty", "short", "long", "another version"],
)
def test_a_malformed_reference_is_refused(data: bytes) -> None:
    """Another length or format."""
    with pytest.raises(Undecryptable):
        FileRef.decode(data)


@given(st.binary(max_size=80), st.binary(max_size=200), st.integers(1, 90))
@settings(deadline=None)
def test_only_our_errors_escape(reference: bytes, blob: bytes, step: int) -> None:
    """Whatever a message says of a file, and whatever the relay gives for it."""
    for said in (reference, b"\1" + reference.ljust(68, b"\0")[:68]):
        with pytest.raises(ChatchainError):
            opened(blob, FileRef.decode(said), step)
