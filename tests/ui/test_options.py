"""Global options are taken from anywhere before `--`."""

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from chatchain.errors import UsageError
from chatchain.ui.cli.app import application
from chatchain.ui.cli.options import PLAIN, VALUED, hoist, wants_json


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["whoami", "--json"], ["--json", "whoami"]),
        (["--json", "whoami"], ["--json", "whoami"]),
        (["send", "bob", "hi", "--home", "/h"], ["--home", "/h", "send", "bob", "hi"]),
        (["send", "--home=/h", "bob", "hi"], ["--home=/h", "send", "bob", "hi"]),
        (["contacts", "--user", "ada", "list"], ["--user", "ada", "contacts", "list"]),
        (["send", "bob", "--", "--json"], ["send", "bob", "--", "--json"]),
        (["x", "--rpc", "a", "--rpc", "b"], ["--rpc", "a", "--rpc", "b", "x"]),
        (["send", "bob", "-"], ["send", "bob", "-"]),
        (["password", "--new-password-file", "f"], ["password", "--new-password-file", "f"]),
        (["send", "bob", "--home"[:-1]], ["send", "bob", "--hom"]),
    ],
)
def test_global_options_move_to_the_front(typed: list[str], meant: list[str]) -> None:
    """Their values move with them; everything else stays in its order."""
    assert hoist(typed) == meant


@given(
    st.lists(st.sampled_from(["send", "bob", "hi", "--json", "--debug", "--home=/h", "--lines", "-"])),
    st.data(),
)
def test_where_a_global_option_stands_does_not_matter(words: list[str], data: st.DataObject) -> None:
    """Moving one anywhere else gives the same command line, but for the order among the options."""
    place = data.draw(st.integers(0, len(words)))
    moved = [*words[:place], "--no-input", *words[place:]]
    assert sorted(hoist(moved)) == sorted(hoist(["--no-input", *words]))
    assert [word for word in hoist(moved) if not word.startswith("--")] == [
        word for word in words if not word.startswith("--")
    ]


@pytest.mark.parametrize("typed", [["whoami", "--home"], ["--home", "--json"], ["--rpc", "--", "x"]])
def test_an_option_without_its_value_is_named(typed: list[str]) -> None:
    """It must not swallow the next option."""
    with pytest.raises(UsageError, match=typed[-1] if typed[-1] == "--home" else typed[0]):
        hoist(typed)


def test_the_lists_of_options_are_those_declared() -> None:
    """An option that is declared and not listed would only work before the command."""
    declared = {
        option: getattr(parameter, "is_flag", None)
        for parameter in typer.main.get_command(application()).params
        for option in parameter.opts
        if option not in ("--help", "--version", "--install-completion", "--show-completion")
    }
    assert declared == dict.fromkeys(VALUED, False) | dict.fromkeys(PLAIN, True)


def test_json_is_known_before_the_command_line_is_understood() -> None:
    """So that the error about it comes in the form that was asked for."""
    assert wants_json(["nope", "--json"], {})
    assert wants_json(["nope"], {"CHATCHAIN_JSON": "1"})
    assert not wants_json(["send", "bob", "--", "--json"], {})
    assert not wants_json([], {"CHATCHAIN_JSON": "0"})
