"""What others can make grow, as clients live with it: who comes back after being forgotten is heard again."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatchain.store.bounds import Bounds
from chatchain.store.local import LocalStore
from tests.world import World

FEW = Bounds(every=1, strangers=2, of_stranger=3, notices_of_one=2)


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Homes with room for two strangers."""
    monkeypatch.setattr("tests.world.LocalStore", lambda path, key: LocalStore(path, key, FEW))


async def test_a_stranger_who_was_forgotten_is_heard_again(world: World, tmp_path: Path) -> None:
    """The file goes with the message; the session that only one side still has is begun anew."""
    await world.register("carol", "dora", "eve")
    note = tmp_path / "note.txt"
    note.write_text("from carol")
    async with world.client("carol") as carol:
        await world.drain(carol.send_file("bob", note), [])
    (shown,) = await world.hear("bob")
    assert shown.attachment is not None
    assert shown.attachment.path is not None
    kept = Path(shown.attachment.path)
    assert exists(kept)
    for who in ("dora", "eve"):
        world.now += 60
        await world.say(who, "bob", f"{who} here")
        assert [one.text for one in await world.hear("bob")] == [f"{who} here"]
    async with world.client("bob") as bob:
        assert [one.username for one in await bob.contacts()] == ["dora", "eve"]
        assert await bob.search("note.txt") == []
    assert not exists(kept)
    world.now += 60
    await world.say("carol", "bob", "still there?")
    (told,) = await world.hear("bob")
    assert (told.kind, told.code) == ("notice", "undecryptable")
    assert [one.code for one in await world.hear("carol")] == ["unreadable_there"]
    await world.say("carol", "bob", "once more")
    assert [one.text for one in await world.hear("bob")] == ["once more"]


async def test_who_was_met_keeps_everything(world: World) -> None:
    """However many strangers come after: messages, session and the floor of the device list stay."""
    await world.register("carol", "dora", "eve")
    await world.say("bob", "ada", "hello ada")
    await world.hear("ada")
    await world.say("ada", "bob", *(f"number {number}" for number in range(5)))
    await world.hear("bob")
    for who in ("carol", "dora", "eve"):
        world.now += 60
        await world.say(who, "bob", *(f"{who} {number}" for number in range(5)))
        await world.hear("bob")
    async with world.client("bob") as bob:
        assert len(await bob.history("ada")) == 6
        assert [one.text for one in await bob.history("eve")] == [f"eve {number}" for number in (2, 3, 4)]
        store = (await bob._station.desk()).unlocked.store
        contact = store.contact(world.chain.user("ada").uid)
        assert contact is not None
        assert (contact.met, contact.floor) == (True, 1)
    await world.say("ada", "bob", "on the same session")
    assert [one.text for one in await world.hear("bob")] == ["on the same session"]


def exists(path: Path) -> bool:
    return path.exists()
