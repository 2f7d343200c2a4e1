"""A file goes from one home to another: sealed, uploaded, named in a message, fetched, checked."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path

import PIL.Image
import pytest

from chatchain.client import attachments
from chatchain.client.attachments import AUTO_BYTES
from chatchain.client.showing import described
from chatchain.client.views import Sent, Shown
from chatchain.crypto.attachments import MAX_FILE_BYTES, blob_size
from chatchain.errors import (
    AlreadyDone,
    BadFile,
    ChainUnreachable,
    KeyChanged,
    LimitReached,
    NetworkError,
    NoSuchFile,
    NotFoundError,
    NoTick,
    RefusedError,
    RelayUnreachable,
    TooLarge,
    UnknownMessage,
    UnknownUser,
    VerificationError,
)
from chatchain.wire import messages as m
from tests.shelf import STEP
from tests.store.pages import pages
from tests.world import World

BIG = AUTO_BYTES + 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that is small enough to come by itself."""
    made = tmp_path / "notes.txt"
    made.write_bytes(os.urandom(300_000))
    return made


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A file that comes when it is asked for."""
    made = tmp_path / "film.mp4"
    made.write_bytes(os.urandom(BIG))
    return made


def read(path: Path | str) -> bytes:
    return Path(path).read_bytes()


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def exists(path: str) -> bool:
    return Path(path).exists()


async def one(stream: AsyncIterator[Sent]) -> Sent:
    (sent,) = [sent async for sent in stream]
    return sent


async def give(world: World, path: Path, caption: str = "") -> Sent:
    """Ada sends bob a file."""
    async with world.client("ada") as ada:
        return await one(ada.send_file("bob", path, caption))


async def take(world: World) -> Shown:
    """What bob is shown next."""
    (shown,) = await world.hear("bob")
    return shown


def sealed(world: World, who: str = "ada") -> list[Path]:
    """What waits to be uploaded in somebody's home."""
    folder = world.home(who) / "files" / "out"
    return list(folder.iterdir()) if folder.exists() else []


async def test_a_small_file_comes_with_its_message(world: World, path: Path) -> None:
    """Sent, ticked, shown with name, size and hash, and there; the caption is its text."""
    sent = await give(world, path, "Look.")
    assert (sent.state, sent.to, sent.error) == ("sent", "bob", None)
    shown = await take(world)
    assert (shown.kind, shown.id, shown.text) == ("file", sent.id, "Look.")
    file = shown.attachment
    assert file is not None
    assert (file.name, file.size, file.media_type) == ("notes.txt", 300_000, "text/plain")
    assert file.sha256 == hashlib.sha256(read(path)).hexdigest()
    assert file.path is not None
    came = Path(file.path)
    assert read(came) == read(path)
    assert came.is_relative_to(world.home("bob"))
    assert mode(came) == 0o600
    assert sealed(world) == []
    async with world.client("bob") as bob:
        (kept,) = await bob.history("ada")
    assert kept.attachment == file


async def test_the_relay_sees_nothing_of_a_file(world: World, path: Path) -> None:
    """Neither its bytes nor its name; only how long it is."""
    write(path, b"a secret line\n" * 20_000)
    await give(world, path, "caption")
    (blob,) = world.relay.shelf.blobs.values()
    assert len(blob) == blob_size(len(read(path)))
    everything = blob + b"".join(submit.envelope.body for submit in world.relay.submitted)
    for secret in (b"secret line", b"notes", b"caption"):
        assert secret not in everything


async def test_a_large_file_comes_when_it_is_asked_for(world: World, big: Path, tmp_path: Path) -> None:
    """Until then its path is unknown; afterwards it is, and nothing is fetched again."""
    sent = await give(world, big)
    shown = await take(world)
    assert shown.attachment is not None
    assert shown.attachment.path is None
    assert shown.text == ""
    assert world.relay.shelf.fetched == []
    async with world.client("bob") as bob:
        got = await bob.fetch_file(sent.id[:8])
        assert read(got.path) == read(big)
        assert (got.id, got.name, got.size, got.state) == (sent.id, "film.mp4", BIG, "received")
        asked = len(world.relay.shelf.fetched)
        out = tmp_path / "copy.mp4"
        assert (await bob.fetch_file(sent.id, out)).path == str(out)
        assert read(out) == read(big)
        with pytest.raises(AlreadyDone):
            await bob.fetch_file(sent.id, out)
        out.write_bytes(b"")
        await bob.fetch_file(sent.id, out, overwrite=True)
        assert out.stat().st_size == BIG
        assert len(world.relay.shelf.fetched) == asked
        (kept,) = await bob.history("ada")
    assert kept.attachment is not None
    assert kept.attachment.path == got.path


async def test_a_download_goes_on_after_a_kill(world: World, big: Path) -> None:
    """What came before is not fetched twice, but for the chunk that was torn."""
    sent = await give(world, big)
    await take(world)
    world.relay.shelf.cut_down = [5 * STEP, 0, 0]
    bob = world.client("bob")
    with pytest.raises(Exception, match="ended"):
        await bob.fetch_file(sent.id)
    await world.kill(bob)
    asked = len(world.relay.shelf.fetched)
    async with world.client("bob") as bob:
        got = await bob.fetch_file(sent.id)
    assert read(got.path) == read(big)
    later = world.relay.shelf.fetched[asked:]
    assert later[0].length == 56
    assert later[1].offset > 4 * STEP


@pytest.mark.parametrize("steps", [0, 1, 4, 9])
async def test_an_upload_goes_on_after_a_kill_and_the_message_is_sent(
    world: World, big: Path, steps: int
) -> None:
    """By the next command that connects, from the sealed copy: the file itself may be gone by then."""
    data = read(big)
    shelf = world.relay.shelf
    shelf.cut_up = [steps * STEP + 1] * 20
    ada = world.client("ada")
    sending = asyncio.create_task(one(ada.send_file("bob", big)))
    await world.until(lambda: bool(shelf.begun) and len(shelf.cut_up) < 20)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    await world.kill(ada)
    assert world.relay.submitted == []
    assert len(sealed(world)) == 1
    write(big, b"")
    shelf.cut_up, shelf.uploaded = [], 0
    there = max(len(begun) for begun in shelf.begun.values()) // STEP * STEP
    async with world.client("ada") as ada:
        (kept,) = await ada.history("bob")
        assert (kept.kind, kept.state) == ("file", "queued")
        await ada.login()
    assert shelf.uploaded == blob_size(BIG) - there
    assert sealed(world) == []
    shown = await take(world)
    assert shown.id == kept.id
    async with world.client("bob") as bob:
        assert read((await bob.fetch_file(shown.id)).path) == data


async def test_a_connection_that_breaks_off_is_made_again_within_one_command(world: World, big: Path) -> None:
    """The person sees nothing of it."""
    world.relay.shelf.cut_up = [3 * STEP, 2 * STEP]
    assert (await give(world, big)).state == "sent"
    assert world.relay.shelf.uploaded < blob_size(BIG) + 3 * STEP


async def test_an_upload_that_gets_on_is_tried_on_however_often_it_breaks_off(
    world: World, big: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a relay that lets others have their turn; one that gets no further is given up for now."""
    monkeypatch.setattr(attachments, "PAUSES_S", (0.01, 0.01))
    monkeypatch.setattr(attachments, "KEPT_BYTES", STEP)
    shelf = world.relay.shelf
    shelf.cut_up = [STEP + 1] * 8
    assert (await give(world, big)).state == "sent"
    assert shelf.cut_up == []
    shelf.cut_up = [1] * 8
    async with world.client("ada") as ada:
        with pytest.raises(NetworkError):
            await one(ada.send_file("bob", big))
    assert len(shelf.cut_up) == 8 - 3


async def test_an_upload_that_a_relay_forgets_again_and_again_is_given_up_for_now(
    world: World, big: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is regained of it is no progress: else the same pieces would be sent without end."""
    monkeypatch.setattr(attachments, "PAUSES_S", (0.01, 0.01))
    monkeypatch.setattr(attachments, "KEPT_BYTES", STEP)
    shelf = world.relay.shelf
    shelf.cut_up = [STEP + 1] * 20

    def forget(_: m.Upload) -> None:
        if len(shelf.cut_up) % 2 == 0:
            shelf.begun.clear()

    shelf.refuse = forget
    async with world.client("ada") as ada:
        with pytest.raises(NetworkError):
            await one(ada.send_file("bob", big))
    assert len(shelf.cut_up) == 20 - 4


async def test_without_a_relay_a_file_is_kept_sealed(world: World, big: Path) -> None:
    """Queued with the reason; the next command that connects uploads and sends it."""
    world.relay.up = False
    async with world.client("ada") as ada:
        with pytest.raises(RelayUnreachable):
            await one(ada.send_file("bob", big, wait_s=0.2))
    assert world.relay.shelf.blobs == {}
    world.relay.up = True
    async with world.client("ada") as ada:
        await ada.login()
    shown = await take(world)
    assert shown.attachment is not None
    assert shown.attachment.name == "film.mp4"


async def test_without_the_chain_a_file_is_kept_for_somebody_who_is_known(world: World, path: Path) -> None:
    """As texts are."""
    await world.say("ada", "bob", "hello")
    world.chain.up = False
    async with world.client("ada") as ada:
        with pytest.raises(ChainUnreachable):
            await one(ada.send_file("bob", path))
    world.chain.up = True
    async with world.client("ada") as ada:
        await ada.login()
    assert [shown.kind for shown in await world.hear("bob")] == ["text", "file"]


async def test_a_file_on_its_way_keeps_no_message_waiting(world: World, big: Path) -> None:
    """What is written while it is uploaded arrives first; then the file, and each once."""
    shelf = world.relay.shelf
    shelf.refuse = lambda upload: m.Failed(upload.ref, "store_unavailable", "No room.", 1000)
    async with world.client("ada") as ada:
        sending = asyncio.create_task(one(ada.send_file("bob", big)))
        await world.until(lambda: len(sealed(world)) == 1 and sealed(world)[0].name[0] != ".")
        (text,) = [sent async for sent in ada.send("bob", "meanwhile")]
        assert text.state == "sent"
        shelf.refuse = lambda upload: None
        assert (await sending).state == "sent"
    assert [shown.kind for shown in await world.hear("bob")] == ["text", "file"]
    assert await world.hear("bob") == []


async def test_a_quota_keeps_the_file_and_says_so(world: World, path: Path) -> None:
    """Exit code 7, state queued; with room again it goes."""
    world.relay.shelf.refuse = lambda upload: m.Failed(upload.ref, "limit_reached", "Enough.", 3600_000)
    async with world.client("ada") as ada:
        seen: list[Sent] = []
        with pytest.raises(LimitReached):
            await world.drain(ada.send_file("bob", path), seen)
    assert [sent.state for sent in seen] == ["queued"]
    world.relay.shelf.refuse = lambda upload: None
    async with world.client("ada") as ada:
        await ada.login()
    assert (await take(world)).kind == "file"


async def test_a_file_that_the_relay_will_never_take_is_dropped(world: World, path: Path) -> None:
    """With its reason; nothing waits for it for ever."""
    world.relay.shelf.refuse = lambda upload: m.Failed(upload.ref, "too_large", "Too large for me.", 0)
    async with world.client("ada") as ada:
        seen: list[Sent] = []
        with pytest.raises(TooLarge):
            await world.drain(ada.send_file("bob", path), seen)
        (kept,) = await ada.history("bob")
    assert [sent.state for sent in seen] == [kept.state] == ["dropped"]
    assert sealed(world) == []
    assert await world.hear("bob") == []


async def test_what_a_relay_damaged_is_uploaded_anew(world: World, big: Path) -> None:
    """It says that the hash is wrong; the second time all of it goes."""
    shelf = world.relay.shelf
    shelf.cut_up = [3 * STEP]
    ada = world.client("ada")
    sending = asyncio.create_task(one(ada.send_file("bob", big)))
    await world.until(lambda: bool(shelf.begun) and not shelf.cut_up)
    (blob,) = shelf.begun
    shelf.begun[blob] = bytes(3 * STEP)
    assert (await sending).state == "sent"
    await ada.close()
    assert hashlib.sha256(shelf.blobs[blob]).digest() == blob


async def test_a_relay_that_swaps_or_alters_a_file_is_caught(world: World, path: Path, big: Path) -> None:
    """A small one is shown without its file, a large one refused with exit code 8; later it may be right."""
    world.relay.shelf.tamper = lambda blob: blob[:-1] + bytes([blob[-1] ^ 1])
    await give(world, path)
    shown = await take(world)
    assert shown.attachment is not None
    assert shown.attachment.path is None
    async with world.client("bob") as bob:
        with pytest.raises(VerificationError):
            await bob.fetch_file(shown.id)
        other = await give(world, big)
        await world.drain(bob.receive(), [])
        blobs = world.relay.shelf.blobs
        first, second = blobs
        blobs[first], blobs[second] = blobs[second], blobs[first]
        world.relay.shelf.tamper = lambda blob: blob
        for wrong in (shown.id, other.id):
            with pytest.raises(VerificationError):
                await bob.fetch_file(wrong)
        blobs[first], blobs[second] = blobs[second], blobs[first]
        assert read((await bob.fetch_file(shown.id)).path) == read(path)


async def test_a_file_that_the_relay_keeps_no_more_is_not_found(world: World, path: Path) -> None:
    """Exit code 6; its message stays."""
    await give(world, path)
    world.relay.shelf.blobs.clear()
    shown = await take(world)
    async with world.client("bob") as bob:
        with pytest.raises(NotFoundError) as told:
            await bob.fetch_file(shown.id)
        assert told.value.exit_code == 6
        assert len(await bob.history("ada")) == 1


async def test_a_photograph_leaves_without_its_place_and_with_a_preview(world: World, tmp_path: Path) -> None:
    """Unless it is to keep it."""
    image, exif = PIL.Image.new("RGB", (64, 48), "teal"), PIL.Image.Exif()
    exif[0x010E] = "at home"
    photo = tmp_path / "photo.jpg"
    image.save(photo, exif=exif)
    await give(world, photo)
    shown = await take(world)
    assert shown.attachment is not None
    assert shown.attachment.path is not None
    assert b"at home" not in read(shown.attachment.path)
    async with world.client("ada") as ada:
        await one(ada.send_file("bob", photo, keep_metadata=True))
    shown = await take(world)
    assert shown.attachment is not None
    assert shown.attachment.path is not None
    assert read(shown.attachment.path) == read(photo)
    assert PIL.Image.open(BytesIO(read(photo))).getexif()[0x010E] == "at home"


async def test_a_preview_is_seen_and_saved_without_the_relay(world: World, tmp_path: Path) -> None:
    """As pixels for a screen, and as a file written anew from them; both sides have it."""
    photo = tmp_path / "photo.png"
    PIL.Image.new("RGB", (64, 48), "teal").save(photo)
    await give(world, photo)
    shown = await take(world)
    assert shown.attachment is not None
    assert shown.attachment.thumbnail is not None
    assert (shown.attachment.thumbnail.media_type, shown.attachment.thumbnail.size > 100) == (
        "image/jpeg",
        True,
    )
    world.relay.up = False
    for who, peer in (("ada", "bob"), ("bob", "ada")):
        async with world.client(who) as client:
            (view,) = await client.history(peer)
            picture = await client.picture(view, 20, 20)
            assert picture is not None
            assert (picture.width, picture.height, len(picture.rgb)) == (20, 15, 900)
            assert all(abs(a - b) < 12 for a, b in zip(picture.rgb[:3], (0, 128, 128), strict=True))
            saved = await client.fetch_file(view.id, tmp_path / f"{who}.jpg", preview=True)
            assert (saved.name, saved.media_type, saved.size) == (
                "photo-preview.jpg",
                "image/jpeg",
                len(read(saved.path)),
            )
            assert PIL.Image.open(BytesIO(read(saved.path))).size == (64, 48)
            kept = await client.fetch_file(view.id, preview=True)
            assert mode(Path(kept.path)) == 0o600


async def test_of_what_disappeared_while_nothing_ran_nothing_is_left(world: World, tmp_path: Path) -> None:
    """Text, caption, name, preview, file and index are gone on both sides before anything is shown again,
    from the database's pages and its journal too.
    """
    photo = tmp_path / "xylophone.png"
    PIL.Image.effect_noise((64, 48), 80).save(photo)
    async with world.client("ada") as ada:
        await ada.chat_settings("bob", expires=60)
        await one(ada.send_file("bob", photo, "quetzal"))
        await world.drain(ada.send("bob", "zymurgy"), [])
    assert [shown.text for shown in await world.hear("bob")][1:] == ["quetzal", "zymurgy"]

    async def told(who: str, words: str) -> tuple[bytes, bytes, list[Shown]]:
        """What somebody's pages hold, the beginning of their preview, and what a search shows."""
        async with world.client(who) as client:
            found = await client.search(words)
            unlocked = await client._station.open(exclusive=False)
            preview = b""
            for shown in found:
                assert exists((await client.fetch_file(shown.id, preview=True)).path)
                message = unlocked.store.message(bytes.fromhex(shown.id))
                assert message is not None
                preview = described(message).thumbnail[20:60]
            key = unlocked.secrets.database_key
        return pages(world.home(who) / "messages.db", key), preview, found

    previews = {}
    for who in ("ada", "bob"):
        held, previews[who], found = await told(who, "xylophone")
        assert len(found) == 1
        assert all(word in held for word in (b"quetzal", b"zymurgy", b"xylophone", previews[who]))
    world.relay.up = world.chain.up = False
    world.now += 61
    for who in ("ada", "bob"):
        held, _, found = await told(who, "xylophone")
        assert found == []
        for word in (b"quetzal", b"zymurgy", b"xylophone", b"xyl", b"zym", previews[who]):
            assert word not in held, (who, word)
        left = [file for file in (world.home(who) / "files").rglob("*") if file.is_file()]
        assert left == []


async def test_other_files_have_no_preview(world: World, path: Path) -> None:
    """Neither to be seen nor to be saved; a text has none either."""
    await give(world, path)
    shown = await take(world)
    await world.say("ada", "bob", "a text")
    (text,) = await world.hear("bob")
    async with world.client("bob") as bob:
        assert await bob.picture(shown, 20, 20) is None
        assert await bob.picture(text, 20, 20) is None
        with pytest.raises(NotFoundError):
            await bob.fetch_file(shown.id, preview=True)
        with pytest.raises(RefusedError):
            await bob.fetch_file(text.id, preview=True)


async def test_a_place_where_nothing_can_be_written_is_named(
    world: World, path: Path, tmp_path: Path
) -> None:
    """It is a mistake in the command and no fault of the network; the file stays where it is."""
    await give(world, path)
    shown = await take(world)
    async with world.client("bob") as bob:
        for out in (Path("/proc/x"), Path("/proc/x/y"), Path("/dev/full/x")):
            with pytest.raises((BadFile, NoSuchFile)) as told:
                await bob.fetch_file(shown.id, out)
            assert str(out.parent) in told.value.message
            assert told.value.exit_code in (2, 6)


async def test_what_cannot_be_sent_is_refused_before_anything_is_stored(
    world: World, tmp_path: Path, path: Path
) -> None:
    """Each with its own exit code; the history stays empty, and nothing sealed is left."""
    film = tmp_path / "film"
    with film.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    (tmp_path / "empty").write_bytes(b"")
    logins = world.relay.logins
    async with world.client("ada") as ada:
        for wrong, error, code in (
            (film, TooLarge, 7),
            (tmp_path / "missing", NoSuchFile, 6),
            (tmp_path, BadFile, 2),
            (tmp_path / "empty", BadFile, 2),
        ):
            with pytest.raises(error) as told:
                await one(ada.send_file("bob", wrong))
            assert told.value.exit_code == code
        with pytest.raises(TooLarge):
            await one(ada.send_file("bob", path, "x" * 8193))
        assert world.relay.logins == logins
        with pytest.raises(UnknownUser):
            await one(ada.send_file("nobody", path))
        await ada.login()
        assert await ada.history("bob") == []
    assert sealed(world) == []


async def test_a_changed_key_blocks_files_as_it_blocks_texts(world: World, path: Path) -> None:
    """Nothing is uploaded for keys that somebody may have slipped in."""
    async with world.client("ada") as ada:
        await ada.verify("bob")
    async with world.client("bob") as bob:
        await bob.rotate_keys()
    async with world.client("ada") as ada:
        with pytest.raises(KeyChanged):
            await one(ada.send_file("bob", path))
    assert world.relay.shelf.blobs == {}


async def test_a_deleted_file_goes_from_both_homes(world: World, path: Path) -> None:
    """And from the relay; what another message brought stays."""
    sent = await give(world, path)
    other = await give(world, path)
    came = [shown.attachment.path for shown in await world.hear("bob") if shown.attachment is not None]
    assert all(place is not None and exists(place) for place in came)
    assert len(world.relay.shelf.blobs) == 2
    async with world.client("ada") as ada:
        await one(ada.delete(sent.id))
    assert len(world.relay.shelf.blobs) == 1
    await world.hear("bob")
    async with world.client("bob") as bob:
        await bob.login()
        with pytest.raises(RefusedError):
            await bob.fetch_file(sent.id)
        left = {shown.id: shown.attachment for shown in await bob.history("ada")}
    assert left[sent.id] is None
    assert left[other.id] is not None
    assert [exists(place) for place in came if place is not None] == [False, True]


async def test_a_file_that_is_deleted_before_it_was_uploaded_never_is(world: World, path: Path) -> None:
    """Its sealed copy goes too."""
    world.relay.shelf.refuse = lambda upload: m.Failed(upload.ref, "limit_reached", "Later.", 3600_000)
    async with world.client("ada") as ada:
        seen: list[Sent] = []
        with pytest.raises(LimitReached):
            await world.drain(ada.send_file("bob", path), seen)
        world.relay.shelf.refuse = lambda upload: None
        await one(ada.delete(seen[0].id))
        await ada.login()
    assert world.relay.shelf.blobs == {}
    assert sealed(world) == []


async def test_only_messages_with_files_have_files(world: World) -> None:
    """A text's id, or nobody's."""
    (text,) = await world.say("ada", "bob", "hello")
    async with world.client("ada") as ada:
        with pytest.raises(RefusedError):
            await ada.fetch_file(text.id)
        with pytest.raises(UnknownMessage):
            await ada.fetch_file("00" * 16)


async def test_a_path_in_a_name_leads_nowhere(world: World, tmp_path: Path) -> None:
    """What would climb out of its folder becomes a name in it."""
    odd = tmp_path / "..\\..\\evil\n.sh"
    odd.write_bytes(b"data")
    await give(world, odd)
    shown = await take(world)
    assert shown.attachment is not None
    assert shown.attachment.path is not None
    came = Path(shown.attachment.path)
    assert came.parent == world.home("bob") / "files" / "in" / came.parent.name
    assert "\n" not in came.name


async def test_an_answer_that_never_comes_ends_with_a_kept_file(world: World, path: Path) -> None:
    """The relay takes the bytes and says nothing: the person is not kept waiting for ever."""
    world.relay.shelf._take = lambda ref, data: []  # type: ignore[method-assign]
    async with world.client("ada") as ada:
        seen: list[Sent] = []
        with pytest.raises(NoTick):
            await world.drain(ada.send_file("bob", path, wait_s=0.3), seen)
        assert [sent.state for sent in seen] == ["queued"]
        await ada._station.disconnect()
    assert len(sealed(world)) == 1


async def test_many_small_files_come_over_one_connection(world: World, tmp_path: Path) -> None:
    """Each login is counted by the relay: a heap of files must not use them up."""
    async with world.client("ada") as ada:
        for number in range(6):
            path = tmp_path / f"{number}.txt"
            write(path, b"text %d" % number)
            await one(ada.send_file("bob", path))
    assert world.relay.shelf.entered <= 2
    world.relay.shelf.entered = 0
    shown = await world.hear("bob")
    assert [one.attachment.path is not None for one in shown if one.attachment is not None] == [True] * 6
    assert world.relay.shelf.entered == 1
