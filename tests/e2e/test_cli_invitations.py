"""Invitations on the command line, from the member who makes one to the newcomer who uses it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

import pytest

from tests.e2e.town import Town, founded


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A network with the founders ada and bob."""
    with founded(tmp_path_factory.mktemp("town")) as town:
        yield town


def used(town: Town) -> int:
    """How many invitations the relay's database knows as used."""
    with sqlite3.connect(town.report["db"].removeprefix("sqlite:///")) as database:
        (count,) = database.execute("SELECT count(*) FROM invitations").fetchone()
        return int(count)


def test_a_newcomer_registers_with_what_a_member_sent(town: Town) -> None:
    """In the join link or by itself; once each, and whoever comes later does the work instead."""
    ada = town.user("ada")
    first, second = (ada.run("invite", "--days", days).object for days in ("1", "30"))
    assert first["invitation"] != second["invitation"]
    assert first["expires"] < second["expires"]

    ivy = town.stranger("ivy")
    assert ivy.run("join", first["join"]).code == 0
    network = town.folder / "homes" / "ivy" / "network.json"
    assert json.loads(network.read_text())["invitation"] == first["invitation"]
    assert ivy.run("register", "ivy").object["sponsored"] is True
    assert json.loads(network.read_text())["invitation"] == ""
    assert used(town) == 1

    joe = town.stranger("joe")
    assert joe.run("join", town.report["join"]).code == 0
    assert joe.run("register", "joe", "--invitation", second["invitation"]).object["sponsored"] is True
    assert used(town) == 2

    late = town.stranger("late")
    assert late.run("join", first["join"]).code == 0
    assert late.run("register", "late").object["sponsored"] is True
    assert used(town) == 2


def test_only_members_invite_and_only_invitations_are_taken_for_one(town: Town) -> None:
    """With the exit codes of a refusal and of a mistake."""
    kim = town.stranger("kim")
    assert kim.run("join", town.report["join"]).code == 0
    assert kim.run("register", "kim", "--invitation", "invite1nonsense").code == 2
    assert kim.run("register", "kim").code == 0
    assert kim.run("invite").code == 7
    assert town.user("ada").run("invite", "--days", "31").code == 2
