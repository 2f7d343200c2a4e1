"""The menu, driven by a person at a pseudo-terminal and by a script through a pipe. No network here."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import pytest
import typer
from typer.core import TyperGroup

from chatchain.ui.cli.app import application
from chatchain.ui.cli.desk import Desk
from chatchain.ui.menu.dialog import Dialog
from chatchain.ui.menu.frame import Menu
from chatchain.ui.output import Output
from chatchain.ui.world import World
from tests.ui.terminal import Shell, shell


@pytest.fixture
def here(tmp_path: Path) -> Shell:
    """A machine on which nobody has a home yet."""
    return shell(tmp_path)


def make_homes(here: Shell, *names: str) -> None:
    """Homes as far as the first question goes."""
    for name in names:
        home = Path(here.environment["XDG_DATA_HOME"]) / "chatchain" / name
        home.mkdir(parents=True)
        (home / "account.json").write_text("{}")


def test_a_newcomer_is_led_from_name_to_network(here: Shell) -> None:
    """A name that cannot be is explained and asked again; so is a link that is none; `exit` leaves."""
    with here.terminal() as terminal:
        terminal.expect("no user on this machine yet")
        terminal.expect("Which name would you like? ")
        terminal.type("Ada Lovelace")
        terminal.expect("3 to 32 characters")
        terminal.expect("Which name would you like? ")
        terminal.type("ada")
        terminal.expect("Which network?")
        terminal.expect("Join link: ")
        terminal.type("https://example.org")
        terminal.expect("not a join link")
        terminal.expect("Join link: ")
        terminal.type("chatchain://join?rpc=http://127.0.0.1:1")
        terminal.expect("incomplete")
        terminal.expect("Join link: ")
        terminal.type("chatchain://join?rpc=http://127.0.0.1:1&chain=1&directory=0x" + "12" * 20)
        terminal.expect("127.0.0.1:1")  # the sentence about the endpoint that does not answer
        terminal.expect("Join link: ")
        terminal.type("")
        terminal.expect("Which name would you like? ")
        terminal.type("exit")
        terminal.expect("Goodbye.")
        assert terminal.ended() == 0
    assert not (Path(here.environment["XDG_DATA_HOME"]) / "chatchain" / "ada").exists()


def test_users_are_chosen_by_number_or_name(here: Shell) -> None:
    """What is neither is explained; an empty line asks again; the password is not shown."""
    make_homes(here, "ada", "bob")
    with here.terminal() as terminal:
        terminal.expect("Who are you?")
        terminal.expect("1  ada")
        terminal.expect("2  bob")
        terminal.expect("n  somebody new")
        terminal.expect("Number or name: ")
        terminal.type("7")
        terminal.expect("'7' is none of these")
        terminal.type("")
        terminal.expect("Number or name: ")
        terminal.type("carol")
        terminal.expect("'carol' is none of these")
        terminal.type("2")
        terminal.expect("Password for bob: ")
        assert not terminal.echoes()
        terminal.type("geheim")
        terminal.expect("damaged")  # this home is a sham
        assert terminal.echoes()
        terminal.expect("Who are you?")
        terminal.type("new")
        terminal.expect("Which name would you like? ")
        terminal.type("")
        terminal.expect("Who are you?")
        terminal.type("EXIT")
        assert terminal.ended() == 0
        assert "geheim" not in terminal.transcript


def test_a_registration_that_broke_off_goes_on_under_its_own_name(here: Shell) -> None:
    """The list marks it, and neither the name nor a new password is asked for."""
    make_homes(here, "ada", "frank")
    home = Path(here.environment["XDG_DATA_HOME"]) / "chatchain" / "frank"
    account = {"username": "frank", "account": "0x" + "12" * 20, "chain_id": 1, "directory": "0x" + "34" * 20}
    (home / "account.json").write_text(json.dumps(account | {"uid": 0, "device": 0}))
    with here.terminal() as terminal:
        terminal.expect("2  frank  (registration not finished)")
        terminal.type("frank")
        terminal.expect("not finished")
        terminal.expect("Password for frank (chosen before): ")
        terminal.press(b"\x03")
        assert terminal.ended() == 130
        assert "again" not in terminal.transcript


def test_a_home_that_only_joined_is_no_user(here: Shell) -> None:
    """A network alone is nobody."""
    make_homes(here, "ada")
    joined = Path(here.environment["XDG_DATA_HOME"]) / "chatchain" / "bob"
    joined.mkdir()
    (joined / "network.json").write_text("{}")
    assert "bob" not in here.run(stdin="exit\n").out


def test_a_terminal_that_is_closed_or_ctrl_d_leaves(here: Shell) -> None:
    """The end of input is an answer too."""
    make_homes(here, "ada")
    with here.terminal() as terminal:
        terminal.expect("Number or name: ")
        terminal.press(b"\x04")
        assert terminal.ended() == 0


def test_ctrl_c_leaves_the_menu(here: Shell) -> None:
    """Exit 130 and the sentence; also while a password is typed, and the terminal echoes again."""
    make_homes(here, "ada")
    with here.terminal() as terminal:
        terminal.expect("Number or name: ")
        terminal.type("ada")
        terminal.expect("Password for ada: ")
        terminal.press(b"\x03")
        assert terminal.ended() == 130
        assert terminal.echoes()
        assert "Stopped; nothing is lost." in terminal.transcript
        assert "Traceback" not in terminal.transcript


@pytest.mark.parametrize("leave", ["exit\n", "exit", "quit\n", ""])
def test_a_script_can_answer_through_a_pipe(leave: str, here: Shell) -> None:
    """Questions appear as at a terminal; the end of the script is the end of the menu."""
    make_homes(here, "ada", "bob")
    ended = here.run(stdin="9\n" + leave)
    assert ended.code == 0, ended
    assert "1  ada" in ended.out
    assert "'9' is none of these" in ended.out


def test_hostile_answers_are_explained_and_shown_harmless(here: Shell) -> None:
    """Control characters, bytes that are no text and endless lines neither act nor end the menu."""
    make_homes(here, "ada")
    ended = here.run(stdin=b"\x1b[2J\n\xff\xfe\n" + b"x" * 300_000 + b"\nexit\n")
    assert ended.code == 0, ended
    assert "\x1b" not in ended.out
    assert "not text" in ended.err
    assert "too long" in ended.err


def test_the_home_that_was_named_is_not_asked_for(here: Shell) -> None:
    """--user takes the first question away."""
    make_homes(here, "ada", "bob")
    with here.terminal("--user", "bob") as terminal:
        terminal.expect("Password for bob: ")
        terminal.press(b"\x03")
        assert terminal.ended() == 130
        assert "Who are you?" not in terminal.transcript


IN_MENU = {
    "join": None,  # the first questions of a newcomer
    "register": None,
    "invite": "invite",
    "login": "login",
    "whoami": "status",
    "status": "status",
    "password": "password",
    "link": "link",
    "recover": "recover",
    "recover address": "recover",
    "recover begin": None,  # the answer `recover` where the phrase is asked for; the next start finalises it
    "recover propose": "recover",
    "recover finalise": None,
    "send": "send",
    "receive": "read",
    "history": "history",
    "search": "search",
    "file get": "get",
    "chat": "chat",
    "reply": "reply",
    "react": "react",
    "edit": "edit",
    "delete": "delete",
    "chat-settings": "settings",
    "privacy": "privacy",
    "profile": "profile",
    "contacts list": "contacts",
    "contacts add": "card",
    "contacts card": "card",
    "contacts safety-number": "contacts",
    "contacts verify": "contacts",
    "members": "members",
    "request": "request",
    "propose admit": "propose",
    "propose expel": "propose",
    "propose pause": "propose",
    "propose unpause": "propose",
    "proposals": "vote",
    "vote": "vote",
    "keys list": "keys",
    "keys rotate": "keys",
    "keys revoke": "keys",
    "keys export": "keys",
    "keys phrase": "keys",
    "doctor": "doctor",
}
"""Where each command is in the menu; None: among the questions before it."""

OFFICES = ("rules", "anchorer", "witnesses", "relays", "rewards", "successor")
LEFT_OUT = {
    "logout": "leaving the menu ends the session",
    "config show": "settings are read from files and flags, which a menu does not show",
    **dict.fromkeys(("rsa publish", "rsa seal", "rsa open"), "for old programs' files, not for talk"),
    **{f"propose set {what}": "addresses and hashes, which one copies into a command" for what in OFFICES},
}
"""The commands that the menu does without, each with its reason."""

MORE_WORDS = {"file", "account", "switch"}
"""What the menu has besides: a part of `send`, its own second list, and another user."""


def commands(group: TyperGroup, path: str = "") -> Iterator[str]:
    """Every command that can be given, by its words."""
    for name, command in group.commands.items():
        words = f"{path} {name}".strip()
        if not isinstance(command, TyperGroup):
            yield words
            continue
        if command.invoke_without_command:
            yield words
        yield from commands(command, words)


def test_every_command_is_in_the_menu_or_left_out_for_a_reason() -> None:
    """A command that is added belongs into one of the two lists; the menu's words are what the first says."""
    group = typer.main.get_command(application())
    assert isinstance(group, TyperGroup)
    assert set(commands(group)) == IN_MENU.keys() | LEFT_OUT.keys()
    assert not IN_MENU.keys() & LEFT_OUT.keys()
    here = Desk(World("", configure, connect, {}), {}, Output(json=False, environment={}))
    dialog = Dialog(here)
    Menu(dialog)
    assert {word for word in IN_MENU.values() if word is not None} | MORE_WORDS == dialog.words


def configure(_: Mapping[str, object]) -> NoReturn:
    """No setting is needed to list what there is."""
    raise AssertionError


def connect(*_: object, **__: object) -> NoReturn:
    """No home either."""
    raise AssertionError
