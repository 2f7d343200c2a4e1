"""A device that an older program registered: its record lacks a suite, until it logs in."""

from __future__ import annotations

import pytest

from chatchain.errors import RefusedError
from chatchain.identity.record import SUITES, decode_record
from chatchain.model import Suite
from tests.world import World


@pytest.fixture
async def old(empty: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Ada, whose record lists suite 1 alone, and bob of today."""
    with monkeypatch.context() as before:
        before.setattr("chatchain.crypto.device.SUITES", 1 << Suite.SEALED)
        await empty.register("ada")
    await empty.register("bob")
    return empty


def suites(world: World, name: str) -> list[int]:
    (device,) = world.chain.user(name).devices
    return [decode_record(version.record).suites for version in device.history]


async def test_login_brings_the_record_up_to_date(old: World) -> None:
    """Once, with new keys; from then on suite 2 is spoken with this device."""
    assert suites(old, "ada") == [1 << Suite.SEALED]
    await old.say("bob", "ada", "before")
    async with old.client("ada") as ada:
        view = await ada.login()
    assert (view.renewed, view.problem) == (2, None)
    assert suites(old, "ada") == [1 << Suite.SEALED, SUITES]
    async with old.client("ada") as ada:
        again = await ada.login()
    assert again.renewed is None
    await old.say("bob", "ada", "after")
    assert [shown.text for shown in await old.hear("ada")] == ["before", "after"]
    ada_uid = old.chain.user("ada").uid
    to_ada = [submit.envelope for submit in old.relay.submitted if submit.envelope.recipient == ada_uid]
    assert (to_ada[0].suite, to_ada[-1].suite) == (Suite.SEALED, Suite.RATCHET)


async def test_a_device_of_today_keeps_its_keys(old: World) -> None:
    """Its login sends no transaction."""
    before = list(old.transactions)
    async with old.client("bob") as bob:
        assert (await bob.login()).renewed is None
    assert old.transactions == before


async def test_login_stands_when_the_record_cannot_be_renewed(
    old: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The contract refuses what the sponsor sends: it is said, and the next login tries again."""

    def refuse(*_: object) -> None:
        raise RefusedError("Not now.")

    with monkeypatch.context() as refusing:
        refusing.setattr(old.chain, "_update_device_for", refuse)
        async with old.client("ada") as ada:
            view = await ada.login()
    assert view.renewed is None
    assert view.problem is not None
    assert (view.problem.code, view.problem.message) == ("refused", "Not now.")
    assert suites(old, "ada") == [1 << Suite.SEALED]
    async with old.client("ada") as ada:
        assert (await ada.login()).renewed == 2
