"""What the menu and a chat offer besides talk: files, search, keys, password, invitations, a new device."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import PIL.Image
import pytest

from tests.e2e.town import PASSWORD, Town, founded
from tests.ui.terminal import Shell, Terminal, shell

NEW_PASSWORD = "quite another horse, stapled too"


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A network with two members."""
    with founded(tmp_path_factory.mktemp("town")) as town:
        yield town


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A picture whose name needs care in a shell."""
    made = tmp_path / "my holiday.png"
    PIL.Image.new("RGB", (64, 48), "teal").save(made)
    return made


def size_of(path: Path) -> tuple[int, int]:
    with PIL.Image.open(path) as image:
        return image.size


def for_people(machine: Shell) -> Shell:
    """The same surroundings, without JSON."""
    return replace(machine, environment={**machine.environment, "CHATCHAIN_JSON": "0"})


def test_a_picture_shows_on_a_terminal_that_can_and_nowhere_else(town: Town, photo: Path) -> None:
    """Half blocks in colours for a person; its type and size for a program; the file for both."""
    bob = town.at_terminal("bob")
    assert town.user("ada").run("send", "bob", "look", "--file", photo).code == 0
    capable = {**bob.environment, "COLORTERM": "truecolor", "LANG": "C.UTF-8"}
    capable["CHATCHAIN_PASSWORD_FILE"] = town.user("bob").environment["CHATCHAIN_PASSWORD_FILE"]
    for arguments, shows in ((("receive",), True), (("history", "ada", "--no-color"), False)):
        with replace(bob, environment=capable).terminal(*arguments) as terminal:
            terminal.expect("look")
            assert terminal.ended() == 0
        assert len(re.findall(r"^ {18}\x1b\[38;2;0;12\d;12\d;48;2;[0-9;]+m▀", terminal.transcript, re.M)) == (
            12 if shows else 0
        )
    [came] = town.user("bob").run("history", "ada").objects
    assert came["attachment"]["thumbnail"]["media_type"] == "image/jpeg"
    assert 0 < came["attachment"]["thumbnail"]["size"] < 16_384
    assert "▀" not in for_people(town.user("bob")).run("history", "ada").out
    saved = town.user("bob").run("file", "get", came["id"], "--preview", "--out", photo.parent).object
    assert size_of(Path(saved["path"])) == (64, 48)


def test_the_menu_sends_finds_and_fetches_files(town: Town, photo: Path) -> None:
    """A path that is not there is asked for again; empty lines go back; what came goes where one wants it."""
    other = photo.with_name("other.png")
    photo.rename(other)
    large = photo.with_name("large")
    with large.open("wb") as film:
        film.truncate(25_000_001)
    answers = [
        town.password("bob"),
        "file",
        "ada",
        "nothing.png",
        str(photo.parent),
        str(large),
        str(other),
        "my caption",
        "file",
        "ada",
        "",
    ]
    answers += ["search", "other.png", "search", "", "account", "", "keys", "", "?", "exit"]
    ended = for_people(town.at_terminal("bob")).run(stdin="\n".join(answers) + "\n")
    assert ended.code == 0, ended
    assert "There is no file nothing.png." in ended.err
    assert "is a folder; only files can be sent." in ended.err
    assert "25,000,000 is the limit" in ended.err
    assert ended.out.count("What is to be said of it?") == 1
    assert ended.out.count("sent to ada") == 1
    assert re.search(r"to ada \[\w+\] \(file other.png, \d+ bytes\): my caption", ended.out)
    assert "this one" in ended.out
    assert ended.out.count("  ? lists it all") == 0
    assert ended.out.count("(? lists it all)") == 6
    assert town.user("ada").run("receive", "--wait", "10").code == 0
    answers = [town.password("ada"), "get", "bob", "1", str(photo.parent / "got.png"), "exit"]
    ended = for_people(town.at_terminal("ada")).run(stdin="\n".join(answers) + "\n")
    assert ended.code == 0, ended
    assert size_of(photo.parent / "got.png") == (64, 48)


def test_a_chat_sends_finds_and_fetches_files(town: Town, photo: Path) -> None:
    """A path with a blank as it is or in quotation marks; a command that lacks something says what."""
    ada, bob = town.user("ada"), town.user("bob")
    place = photo.parent / "from the chat.png"
    script = [f"/file {photo}", f"/file '{photo}' in quotes", "/file", "/file nothing.png"]
    script += ["/search holiday quotes", "/search", "/reply", "/edit", "/get x/y/z", "/replay", "/help"]
    ended = for_people(ada).run("chat", "bob", stdin="\n".join([*script, "/quit", ""]))
    assert ended.code == 0, ended
    assert ended.out.count("you [sent]: (file my holiday.png)") == 2
    assert re.search(r"to bob \[\w+\] \(file my holiday.png, \d+ bytes\): in quotes", ended.out)
    for usage in (
        "/file PATH [TEXT] sends a file",
        "/search WORDS finds",
        "/reply TEXT answers",
        "/edit TEXT gives",
    ):
        assert usage in ended.err
    assert ended.err.count("Unknown command.") == 1
    assert "There is no file nothing.png." in ended.err
    assert bob.run("receive").code == 0  # a script types faster than messages come
    ended = for_people(bob).run("chat", "ada", stdin=f"/get {place}\n/get {place}\n/quit\n")
    assert ended.code == 0, ended
    assert size_of(place) == (64, 48)
    assert "exists already" in ended.err


def test_the_menu_names_a_recovery_address_and_takes_over_by_it(town: Town) -> None:
    """Three people's walks: who names, who begins on a new machine, who proposes; and the veto."""
    answers = [town.password("ada"), "privacy", "no", "", "doctor", "card", "", "keys", "phrase"]
    answers += ["recover", "name", "ada", "recover", "name", "bob", "no"]
    answers += ["recover", "name", "bob", "yes", "exit"]
    ended = for_people(town.at_terminal("ada")).run(stdin="\n".join(answers) + "\n")
    assert ended.code == 0, ended
    assert "That is this account itself" in ended.err
    assert "The recovery phrase was shown before" in ended.out
    assert "the account of bob" in ended.out
    assert town.user("ada").run("privacy").object == {"typing": False, "read_receipts": True}
    bobs = town.user("bob").run("whoami").object["account"]
    assert town.user("ada").run("whoami").object["recovery_address"] == bobs

    machine = shell(town.folder / "machines" / "phone")
    assert machine.run("join", town.report["join"]).code == 0
    begun = machine.run(stdin=f"ada\nrecover\n{NEW_PASSWORD}\n{NEW_PASSWORD}\n\nexit\n")
    assert begun.code == 0, begun
    found = re.search(r"chatchain recover propose ada (0x[0-9a-fA-F]{40})", begun.out)
    assert found is not None, begun
    again = machine.run(stdin=f"1\n{NEW_PASSWORD}\nexit\n")
    assert "The recovery of ada is not finished; it goes on now." in again.out
    assert found[0] in again.out

    answers = ["recover", "propose", "ada", found[1], "yes", "exit"]
    ended = for_people(town.user("bob")).run(stdin="\n".join(answers) + "\n")
    assert "It may take over from" in ended.out, ended
    answers = [town.password("ada"), "recover", "veto", "yes", "exit"]
    ended = for_people(town.at_terminal("ada")).run(stdin="\n".join(answers) + "\n")
    assert "*** Somebody proposed to take your account over at block" in ended.out
    assert f"Refused: {found[1]} will not be the account of ada." in ended.out


def text_below(terminal: Terminal, heading: str, end: str) -> str:
    """The one long word between two lines."""
    terminal.expect(heading)
    [word] = [word for word in terminal.expect(end).split() if len(word) > 60]
    return word


def test_the_menu_lets_a_new_device_in_and_changes_the_password(town: Town) -> None:
    """Both sides of linking by answers alone, left in between and gone on with; password and invitation."""
    assert town.user("ada").run("send", "bob", "before the laptop came").code == 0
    machine = shell(town.folder / "machines" / "laptop")
    with machine.terminal() as laptop:
        laptop.expect("Which name would you like? ")
        laptop.type("ada")
        laptop.expect("Join link: ")
        laptop.type(town.report["join"])
        laptop.expect("The name ada is taken.")
        laptop.expect("Recovery phrase, link, or recover: ")
        laptop.type("link")
        laptop.expect("Password of ada's account: ")
        laptop.type("not ada's at all")
        request = text_below(laptop, "with this text, whole:", "code")
        code = laptop.expect("The old device must show").strip()
        laptop.expect("(empty: later): ")
        laptop.type("")
        laptop.expect("the text stays the same")
        laptop.expect("1  ada")
        laptop.type("1")
        laptop.expect("waits to be let in as a device of ada")
        laptop.expect("Password of ada's account: ")
        laptop.type("not this one")
        laptop.expect("The password is wrong.")
        laptop.expect("Password of ada's account: ")
        laptop.type("not ada's at all")
        assert text_below(laptop, "with this text, whole:", "code") == request
        laptop.expect("(empty: later): ")

        with town.at_terminal("ada").terminal() as desk:
            desk.expect("Password for ada: ")
            desk.type(town.password("ada"))
            desk.expect("Number or word: ")
            desk.type("link")
            desk.expect("The new device's text: ")
            desk.type(request)
            desk.expect(code)
            desk.expect("Does the new device show this code? (yes/no) ")
            desk.type("yes")
            desk.expect("under seal? (yes/no) ")
            desk.type("yes")
            answer = text_below(desk, "as the old device's answer:", "wait for it at the relay")
            desk.expect("Number or word: ")
            desk.type("exit")
            assert desk.ended() == 0

        laptop.type("nonsense")
        laptop.expect("(empty: later): ")
        laptop.type(answer)
        laptop.expect("This is not the password of ada's account")
        laptop.expect("The account's password: ")
        laptop.type(town.password("ada"))
        laptop.expect("This is device 2 of ada now.")
        laptop.expect("Number or word: ")
        laptop.type("history")
        laptop.expect("With whom? ")
        laptop.type("bob")
        laptop.expect("before the laptop came")
        laptop.expect("Number or word: ")
        laptop.type("exit")
        assert laptop.ended() == 0

    answers = [town.password("bob"), "password", "short", NEW_PASSWORD, "other", NEW_PASSWORD, NEW_PASSWORD]
    answers += ["invite", "99", "invite", "", "keys", "rotate", "exit"]
    ended = for_people(town.at_terminal("bob")).run(stdin="\n".join(answers) + "\n")
    assert ended.code == 0, ended
    assert "The password of bob is changed" in ended.out
    assert "'99' is no number of days" in ended.err
    assert "chatchain://join?" in ended.out
    assert "Device 1 has new keys: version 2" in ended.out
    assert NEW_PASSWORD not in ended.out + ended.err
    assert PASSWORD not in ended.out + ended.err
    wrong = for_people(town.at_terminal("bob")).run(stdin=f"{town.password('bob')}\n\n")
    assert (wrong.code, wrong.err.startswith("The password is wrong.")) == (0, True)  # an empty line leaves
    right = for_people(town.at_terminal("bob")).run(stdin=f"{NEW_PASSWORD}\nexit\n")
    assert "Logged in as bob" in right.out
