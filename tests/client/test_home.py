"""A home on a disk that is full or takes nothing: said in a sentence, with what was there as it was."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NoReturn

import pytest

from chatchain.client.home import Home
from chatchain.errors import RelayUnreachable, StoreUnavailable
from tests.world import World


def refuses(number: int) -> object:
    """What a disk answers to a call that it does not carry out."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "Free some space"), (errno.EDQUOT, "Free some space"), (errno.EIO, "Check whose it is")],
)
def test_a_file_is_written_whole_or_stays_as_it_was(
    tmp_path: Path, number: int, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up at the last moment leaves nothing half-written, and says what helps."""
    home = Home(tmp_path / "ada")
    home.write("vault", b"before")
    monkeypatch.setattr(os, "fsync", refuses(number))
    with pytest.raises(StoreUnavailable, match=os.strerror(number)) as told:
        home.write("vault", b"after")
    assert advice in told.value.hint
    assert [entry.name for entry in home.path.iterdir()] == ["vault"]
    assert home.read("vault") == b"before"


@pytest.mark.parametrize("deed", ["replace", "remove"])
def test_renaming_and_removing_say_so_too(tmp_path: Path, deed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other two ways in which a home changes."""
    home = Home(tmp_path / "ada")
    home.write("vault.new", b"new")
    monkeypatch.setattr(Path, "replace", refuses(errno.EROFS))
    monkeypatch.setattr(Path, "unlink", refuses(errno.EROFS))
    with pytest.raises(StoreUnavailable, match="Read-only"):
        home.replace("vault.new", "vault") if deed == "replace" else home.remove("vault.new")


def test_a_full_disk_keeps_nobody_from_taking_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is the operating system's; only the note whose it is needs a byte."""
    home = Home(tmp_path / "ada")
    monkeypatch.setattr(os, "pwrite", refuses(errno.ENOSPC))
    home.acquire()
    assert home.held
    home.release()


def test_a_home_with_the_right_mode_is_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that one on a read-only disk can be looked at; where a mode must change, it is said."""
    home = Home(tmp_path / "ada")
    home.make()
    monkeypatch.setattr(Path, "chmod", refuses(errno.EROFS))
    home.make()
    os.chmod(home.path, 0o500)  # noqa: PTH101 - the other way is the one that is refused here
    with pytest.raises(StoreUnavailable, match="Read-only"):
        home.make()
    monkeypatch.undo()
    monkeypatch.setattr(os, "open", refuses(errno.EROFS))
    with pytest.raises(StoreUnavailable, match="Read-only"):
        home.acquire()


async def test_what_everybody_may_know_needs_no_database(world: World) -> None:
    """`whoami`, `status` and the recovery address show though the home's database cannot be opened."""
    database = world.home("ada") / "messages.db"
    database.unlink()
    for beside in world.home("ada").glob("messages.db-*"):
        beside.unlink()
    database.mkdir()
    async with world.client("ada") as ada:
        assert (await ada.whoami()).state == "active"
        assert ((await ada.status()).state, (await ada.recovery_address()).recovery) == ("active", "")
        with pytest.raises(StoreUnavailable):
            await ada.login()


async def test_a_change_of_the_chain_says_that_it_was_not_asked_for(world: World) -> None:
    """Nothing waits here then, as a message would: the command is to be given again."""
    world.relay.up = False
    async with world.client("ada") as ada:
        with pytest.raises(RelayUnreachable) as told:
            await ada.rotate_keys()
    assert "Nothing was changed on the chain" in told.value.hint
