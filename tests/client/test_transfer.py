"""A file comes as the message says or not at all, whatever a relay sends; and goes on where it broke off."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from chatchain.client.attachments import copy_out, fetch, forget_files, place_of
from chatchain.client.transfer import Transfer
from chatchain.crypto.attachments import CHUNK_BYTES, HEADER_BYTES, Sealer, blob_size
from chatchain.crypto.content import File
from chatchain.errors import (
    AlreadyDone,
    ChatchainError,
    LimitReached,
    NetworkError,
    NoSuchFile,
    NotFoundError,
    ProtocolViolation,
    RefusedError,
    TooLarge,
    VerificationError,
)
from chatchain.model import Direction, RelayAddress, StoredMessage, Uid
from chatchain.wire.messages import (
    PROTOCOL_VERSION,
    Challenge,
    ClientMessage,
    Discard,
    Done,
    Failed,
    Fetch,
    Fetching,
    Goodbye,
    Piece,
    RelayMessage,
    Stored,
    Tick,
    Upload,
    Uploading,
)

SIZE = 5 * CHUNK_BYTES + 777


def sealed(data: bytes, name: str = "notes.bin") -> tuple[bytes, File]:
    """A file's blob and what a message says of it."""
    sealer = Sealer(len(data))
    begun = sealer.update(data)
    last, ref = sealer.finish()
    blob = begun + last
    name_of_blob = hashlib.sha256(blob).digest()
    return blob, File(name_of_blob, name, "application/octet-stream", ref.key, ref.size, ref.sha256)


Relay = Callable[[ClientMessage], list[RelayMessage | None]]
"""What a relay says to each message; None cuts the connection."""


class Line:
    """A link to a relay that does as it likes."""

    relay = RelayAddress("relay:1", bytes(32), bytes(32))
    spki = bytes(32)
    challenge = Challenge(PROTOCOL_VERSION, bytes(32), 31337, bytes(20), 0)

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._answers: asyncio.Queue[RelayMessage | None] = asyncio.Queue()
        self.heard: list[ClientMessage] = []
        self.closed = False

    async def send(self, message: ClientMessage) -> None:
        self.heard.append(message)
        for answer in self._relay(message):
            self._answers.put_nowait(answer)
        await asyncio.sleep(0)  # whoever listens hears it now

    async def receive(self) -> RelayMessage:
        answer = await self._answers.get()
        if answer is None:
            raise NetworkError("The connection has ended.")
        return answer

    async def close(self) -> None:
        self.closed = True


class Lines:
    """Connections for files to one such relay, as a courier or a download opens them."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self.opened: list[Line] = []

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Transfer]:
        transfer = self.open()
        try:
            yield transfer
        finally:
            await transfer.close()

    def open(self) -> Transfer:
        self.opened.append(Line(self._relay))
        made = Transfer(self.opened[-1])
        made._largest = 2**31
        return made


def serving(blob: bytes, *, size: int | None = None, step: int = 10_000) -> Relay:
    """Serves these bytes for whatever is asked, as a blob of this size."""

    def answer(message: ClientMessage) -> list[RelayMessage | None]:
        assert isinstance(message, Fetch)
        part = blob[message.offset : message.offset + message.length]
        pieces = [Piece(message.ref, part[at : at + step]) for at in range(0, len(part), step)]
        return [Fetching(message.ref, len(blob) if size is None else size), *pieces]

    return answer


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A message's folder; afterwards nothing lies in the home that has another mode than 0600."""
    made = tmp_path / "files" / "in" / "1-00"
    yield made
    for path in made.glob("*"):
        assert path.stat().st_mode & 0o777 == 0o600


def left(folder: Path, data: bytes) -> None:
    """What an earlier attempt left."""
    folder.mkdir(parents=True)
    (folder / ".part").write_bytes(data)
    (folder / ".part").chmod(0o600)


async def test_a_file_comes_whole_under_its_name(folder: Path) -> None:
    """Once; a second time nothing is asked of the relay."""
    data = os.urandom(SIZE)
    blob, file = sealed(data)
    lines = Lines(serving(blob))
    path = await fetch(lines, file, folder)
    assert path == folder / "notes.bin"
    assert path.read_bytes() == data
    assert await fetch(lines, file, folder) == path
    assert len(lines.opened) == 1
    assert lines.opened[0].closed


@pytest.mark.parametrize("size", [1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
@pytest.mark.parametrize("chunks", [0, 1, 2, 3])
async def test_a_download_goes_on_behind_the_last_chunk(folder: Path, size: int, chunks: int) -> None:
    """From each boundary, with a torn chunk behind it that is fetched anew."""
    data = os.urandom(size)
    blob, file = sealed(data)
    there = data[: chunks * CHUNK_BYTES] + b"torn"
    left(folder, there)
    lines = Lines(serving(blob))
    assert (await fetch(lines, file, folder)).read_bytes() == data
    whole = min(len(there), size) // CHUNK_BYTES
    asked = [(one.offset, one.length) for one in lines.opened[0].heard if isinstance(one, Fetch)]
    start = HEADER_BYTES + whole * (CHUNK_BYTES + 16) if whole else 0
    assert asked[-1] == (start, len(blob) - start)
    assert asked[:-1] == ([(0, HEADER_BYTES)] if whole else [])


async def test_a_download_that_breaks_off_goes_on_by_itself_and_later(folder: Path) -> None:
    """As long as each connection brings something; what came stays for the next attempt."""
    data = os.urandom(SIZE)
    blob, file = sealed(data)
    cuts = 0

    def breaking(message: ClientMessage) -> list[RelayMessage | None]:
        nonlocal cuts
        answers = serving(blob)(message)
        assert isinstance(message, Fetch)
        if message.length > HEADER_BYTES and cuts < 2:
            cuts += 1
            return [*answers[: 6 - cuts], None]
        return answers

    lines = Lines(breaking)
    assert (await fetch(lines, file, folder)).read_bytes() == data
    assert len(lines.opened) == 3
    dead = Lines(lambda message: [None])
    _, other = sealed(os.urandom(SIZE), "other")
    with pytest.raises(NetworkError):
        await fetch(dead, other, folder)


def _flipped(blob: bytes, at: int) -> bytes:
    return blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]


def _swapped(blob: bytes) -> bytes:
    """The last two whole chunks change places."""
    chunk = CHUNK_BYTES + 16
    begin = HEADER_BYTES + 3 * chunk
    first, second = blob[begin : begin + chunk], blob[begin + chunk : begin + 2 * chunk]
    return blob[:begin] + second + first + blob[begin + 2 * chunk :]


CUT = HEADER_BYTES + 2 * (CHUNK_BYTES + 16)
ATTACKS: dict[str, Callable[[bytes], Relay]] = {
    "garbage": lambda blob: serving(os.urandom(len(blob))),
    "another file sealed": lambda blob: serving(sealed(os.urandom(SIZE))[0]),
    "a bit of the header": lambda blob: serving(_flipped(blob, 30)),
    "a bit in the middle": lambda blob: serving(_flipped(blob, len(blob) // 2)),
    "a bit at the end": lambda blob: serving(_flipped(blob, len(blob) - 1)),
    "chunks in another order": lambda blob: serving(_swapped(blob)),
    "shorter, and says so": lambda blob: serving(blob[:-1]),
    "longer, and says so": lambda blob: serving(blob + b"x"),
    "zeros behind a chunk": lambda blob: serving(blob[:CUT] + bytes(len(blob) - CUT)),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
@pytest.mark.parametrize("chunks", [0, 2], ids=["anew", "resumed"])
async def test_what_is_not_the_message_s_file_gets_no_name(
    folder: Path, attack: Callable[[bytes], Relay], chunks: int
) -> None:
    """It is told, exit code 8, and nothing of it stays; the right bytes are taken afterwards."""
    data = os.urandom(SIZE)
    blob, file = sealed(data)
    if chunks:
        left(folder, data[: chunks * CHUNK_BYTES])
    with pytest.raises(VerificationError) as told:
        await fetch(Lines(attack(blob)), file, folder)
    assert told.value.exit_code == 8
    assert not (folder / "notes.bin").exists()
    assert (await fetch(Lines(serving(blob)), file, folder)).read_bytes() == data


async def test_a_damaged_start_on_this_disk_is_fetched_anew(folder: Path) -> None:
    """It shows only at the end, by the hash of the whole, and the relay is not blamed for it."""
    data = os.urandom(SIZE)
    blob, file = sealed(data)
    left(folder, bytes(2 * CHUNK_BYTES))
    assert (await fetch(Lines(serving(blob)), file, folder)).read_bytes() == data


def _always(said: list[RelayMessage | None]) -> Relay:
    return lambda _: said


async def test_a_relay_that_sends_more_than_was_asked_for_is_left(folder: Path) -> None:
    """What it sends beyond is not even looked at; nor an answer to another question."""
    blob, file = sealed(os.urandom(SIZE))

    def generous(message: ClientMessage) -> list[RelayMessage | None]:
        assert isinstance(message, Fetch)
        return [Fetching(message.ref, len(blob)), Piece(message.ref, blob), Piece(message.ref, b"more")]

    path = await fetch(Lines(generous), file, folder)
    assert path.stat().st_size == SIZE
    path.unlink()

    def greedy(message: ClientMessage) -> list[RelayMessage | None]:
        assert isinstance(message, Fetch)
        return [Fetching(message.ref, len(blob)), Piece(message.ref, blob + b"more")]

    answers: tuple[list[RelayMessage | None], ...] = (
        [Fetching(2, len(blob))],
        [Stored(1, 1)],
        [Tick(bytes(16))],
        [Fetching(1, len(blob)), Done(1)],
    )
    for wrong in (greedy, *(_always(said) for said in answers)):
        with pytest.raises(ProtocolViolation):
            await fetch(Lines(wrong), file, folder)
    assert not (folder / "notes.bin").exists()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Failed(1, "not_found", "Gone.", 0), NotFoundError),
        (Failed(1, "limit_reached", "Later.", 5000), LimitReached),
        (Goodbye("shutdown", "The relay stops.", 0), NetworkError),
        (Failed(1, "wrong_password", "Type it here.", 0), NetworkError),
    ],
    ids=["gone", "limit", "goodbye", "a word that is not the relay's to say"],
)
async def test_a_relay_s_refusal_is_told_as_what_it_is(
    folder: Path, answer: RelayMessage, error: type[ChatchainError]
) -> None:
    """By its code, from a closed list."""
    _, file = sealed(b"data")
    with pytest.raises(error):
        await fetch(Lines(lambda _: [answer]), file, folder)


# --- up -----------------------------------------------------------------------------------------------------


class Taking:
    """A relay that takes an upload from an offset on, and may say something in the middle."""

    def __init__(self, offset: int, size: int, after: dict[int, RelayMessage] | None = None) -> None:
        self.got = b""
        self._offset, self._size, self._after = offset, size, after or {}

    def __call__(self, message: ClientMessage) -> list[RelayMessage | None]:
        if isinstance(message, Upload):
            return [Uploading(message.ref, self._offset)]
        assert isinstance(message, Piece)
        self.got += message.data
        if (said := self._after.pop(len(self.got) // 100_000, None)) is not None:
            return [said]
        return [Stored(message.ref, 5)] if self._offset + len(self.got) == self._size else []


@pytest.mark.parametrize("offset", [0, 1, 300_000, 499_999, 500_000])
async def test_an_upload_goes_on_from_where_the_relay_says(offset: int) -> None:
    """To the end; at the end nothing is sent any more."""
    data = os.urandom(500_000)
    relay = Taking(offset, len(data))
    lines = Lines(relay if offset < len(data) else lambda m: [Uploading(1, offset), Stored(1, 5)])
    transfer = lines.open()
    moved: list[int] = []
    assert await transfer.upload(bytes(32), len(data), io.BytesIO(data), moved.append) == 5
    assert relay.got == data[offset:]
    assert moved == sorted(moved)


async def test_a_relay_that_has_more_than_there_is_is_left() -> None:
    """An offset beyond the end cannot be."""
    transfer = Lines(Taking(11, 10)).open()
    with pytest.raises(ProtocolViolation):
        await transfer.upload(bytes(32), 10, io.BytesIO(bytes(10)))


async def test_a_relay_that_has_enough_in_the_middle_is_heard() -> None:
    """Its reason comes out, and the rest is not sent."""
    data = os.urandom(3_000_000)
    relay = Taking(0, len(data), {3: Failed(1, "store_unavailable", "No room.", 10_000)})
    transfer = Lines(relay).open()
    with pytest.raises(NetworkError, match="No room"):
        await transfer.upload(bytes(32), len(data), io.BytesIO(data))
    assert len(relay.got) < len(data)


async def test_a_file_larger_than_the_relay_takes_is_not_announced() -> None:
    """The relay named its limit when it let us in."""
    lines = Lines(lambda _: [])
    transfer = lines.open()
    transfer._largest = 10
    with pytest.raises(TooLarge):
        await transfer.upload(bytes(32), 11, io.BytesIO(bytes(11)))
    assert lines.opened[0].heard == []


async def test_a_sealed_file_that_was_cut_short_is_noticed() -> None:
    """Nothing is sent in its place."""
    transfer = Lines(lambda m: [Uploading(1, 0)] if isinstance(m, Upload) else []).open()
    with pytest.raises((RefusedError, NetworkError)):
        await transfer.upload(bytes(32), 1000, io.BytesIO(bytes(10)))


async def test_a_blob_is_discarded_by_its_id() -> None:
    """And the relay's word for it is awaited."""
    lines = Lines(lambda m: [Done(m.ref)] if isinstance(m, Discard) else [])
    transfer = lines.open()
    await transfer.discard(bytes(32))
    assert lines.opened[0].heard == [Discard(1, bytes(32))]


# --- where files go -----------------------------------------------------------------------------------------


def test_a_copy_touches_nothing_that_is_there(tmp_path: Path) -> None:
    """Not even through a link; told to overwrite, it replaces the file whole, and a link, not its target."""
    source = tmp_path / "notes.txt"
    source.write_bytes(b"new")
    out = tmp_path / "out"
    out.mkdir()
    assert copy_out(source, out, name="notes.txt", overwrite=False) == out / "notes.txt"
    assert copy_out(source, out / "other", name="notes.txt", overwrite=False).read_bytes() == b"new"
    (out / "old").write_bytes(b"old")
    (out / "link").symlink_to(out / "old")
    (out / "dangling").symlink_to(out / "nowhere")
    for name in ("old", "link", "dangling"):
        with pytest.raises(AlreadyDone):
            copy_out(source, out / name, name="notes.txt", overwrite=False)
    assert not (out / "nowhere").exists()
    assert copy_out(source, out / "link", name="notes.txt", overwrite=True).read_bytes() == b"new"
    assert (out / "old").read_bytes() == b"old"
    assert {path.name for path in out.iterdir()} == {"notes.txt", "other", "old", "link", "dangling"}
    assert (out / "notes.txt").stat().st_mode & 0o777 == 0o600
    with pytest.raises(NoSuchFile):
        copy_out(source, tmp_path / "missing" / "file", name="notes.txt", overwrite=False)


def test_a_copy_needs_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems of memory sticks have none; what is there is as safe as elsewhere."""

    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    source, out = tmp_path / "notes.txt", tmp_path / "out"
    source.write_bytes(b"new")
    out.mkdir()
    assert copy_out(source, out, name="notes.txt", overwrite=False).read_bytes() == b"new"
    (out / "old").write_bytes(b"old")
    (out / "dangling").symlink_to(out / "nowhere")
    for name in ("old", "dangling"):
        with pytest.raises(AlreadyDone):
            copy_out(source, out / name, name="notes.txt", overwrite=False)
    assert (out / "old").read_bytes() == b"old"
    assert {path.name for path in out.iterdir()} == {"notes.txt", "old", "dangling"}


def test_files_of_messages_that_are_gone_go_too(tmp_path: Path) -> None:
    """What else lies there is left alone."""
    message = StoredMessage(bytes(16), Uid(7), 1, Uid(7), Direction.IN, "file", "", 0)
    kept, gone = place_of(tmp_path, message), tmp_path / "in" / f"7-{b'x'.hex()}"
    for folder in (kept, gone, tmp_path / "in" / "something"):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"data")
    forget_files(tmp_path, lambda sender, message: (sender, message) == (7, bytes(16)))
    assert {path.name for path in (tmp_path / "in").iterdir()} == {kept.name, "something"}


def test_the_size_of_a_blob_is_known_before(tmp_path: Path) -> None:
    """What a relay says of it is compared with that."""
    for size in (1, CHUNK_BYTES, SIZE):
        assert len(sealed(os.urandom(size))[0]) == blob_size(size)
