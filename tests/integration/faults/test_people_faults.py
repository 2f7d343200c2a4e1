"""What people see whose machines are wrong: the whole client, as its own processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.e2e.town import founded
from tests.integration.faults.test_clock_faults import OFF, Clock
from tests.ui.terminal import Shell


def off_by(person: Shell, folder: Path, seconds: int) -> Shell:
    """The same person on a machine whose clock is wrong."""
    folder.mkdir()
    clock = Clock(folder)
    clock.set(seconds)
    return replace(person, environment={**person.environment, **clock.environment})


def test_two_people_whose_clocks_are_four_days_apart_talk(tmp_path: Path) -> None:
    """From the first keys on, one ahead and one behind: every message is shown once, in order."""
    with founded(tmp_path / "town") as town:
        ada = off_by(town.user("ada"), tmp_path / "ahead", OFF)
        bob = off_by(town.user("bob"), tmp_path / "behind", -OFF)
        for person in (ada, bob):
            assert person.run("login").code == 0
        texts = [f"message {number}" for number in range(2)]
        for text in texts:
            for sender, name in ((ada, "bob"), (bob, "ada")):
                sent = sender.run("send", name, text)
                assert sent.code == 0, sent
        for person, name in ((ada, "bob"), (bob, "ada")):
            assert person.run("receive", "--wait", "3").code == 0
            seen = [one["text"] for one in person.run("history", name).objects if one["direction"] == "in"]
            assert seen == texts
