"""The command line as scripts meet it, without a network: JSON, exit codes, nothing more than asked for."""

import dataclasses
import errno
import inspect
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import pytest

from chatchain import errors
from chatchain.config import load_client
from chatchain.errors import ChatchainError
from chatchain.ui.cli.app import ORDER, main
from chatchain.ui.cli.options import PLAIN, VALUED
from chatchain.ui.world import World
from tests.ui.terminal import PATIENCE, PROGRAM, ROOT, Ended, Shell, shell

COMMANDS = (
    *("join", "register", "invite", "login", "logout", "whoami", "status", "password", "link", "recover"),
    *("send", "receive", "history", "search", "file get", "chat"),
    *("reply", "react", "edit", "delete", "chat-settings", "privacy", "profile"),
    *("contacts list", "contacts add", "contacts card", "contacts safety-number", "contacts verify"),
    *("members", "request", "propose admit", "propose expel", "propose pause", "propose unpause"),
    *(f"propose set {what}" for what in ("rules", "anchorer", "witnesses", "relays", "rewards", "successor")),
    *("proposals", "vote", "recover address", "recover begin", "recover propose", "recover finalise"),
    *("keys list", "keys rotate", "keys revoke", "keys export", "keys phrase", "rsa publish", "rsa seal"),
    *("doctor", "config show"),
)
LATER = ("block", "group", "ledger", "witness")
LATEST = ("rewards", "export", "import", "tui", "web")


@pytest.fixture
def here(tmp_path: Path) -> Shell:
    """A machine on which nobody has a home yet."""
    return shell(tmp_path)


def make_home(here: Shell, name: str) -> Path:
    """A home as far as looking for one goes."""
    home = Path(here.environment["XDG_DATA_HOME"]) / "chatchain" / name
    home.mkdir(parents=True)
    (home / "account.json").write_text("{}")
    return home


# --- help -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["send", "--help"], ["--version"], ["nope", "--json"]])
def test_help_loads_no_library_that_only_work_needs(arguments: list[str]) -> None:
    """`--help` answers at once: no chain, no cryptography, no database, no event loop."""
    script = (
        "import sys\n"
        "from chatchain.programs.client import run\n"
        f"run({arguments!r})\n"
        "print('LOADED', *sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    loaded = set(done.stdout.rpartition("LOADED")[2].split())
    assert "typer" in loaded
    heavy = {"web3", "eth_account", "eth_abi", "sqlalchemy", "cryptography", "nacl", "coincurve", "Crypto"}
    assert not loaded & (heavy | {"sqlcipher3", "asyncio", "ssl", "urllib3", "pydantic", "rich", "msgspec"})


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Ended]:
    """What a command says about itself where the settings cannot be meant; asked once."""
    here = shell(tmp_path_factory.mktemp("explained"))
    broken = dataclasses.replace(here, environment={**here.environment, "RPC_URL": "nonsense"})
    return cache(lambda command: broken.run(*command.split(), "--help"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, explained: Callable[[str], Ended]) -> None:
    """With a usage line and a sentence, also where the settings cannot be meant."""
    ended = explained(command)
    assert ended.code == 0
    assert ended.out.startswith(f"Usage: chatchain {command} ")


def test_the_list_of_commands_is_complete(here: Shell) -> None:
    """`--help` names each command, and none that does not exist yet."""
    ended = here.run("--help")
    listed = [line.split()[0] for line in ended.out.partition("Commands:")[2].splitlines() if line.strip()]
    assert listed == list(ORDER) == list(dict.fromkeys(command.split()[0] for command in (*ORDER,)))
    assert set(listed) == {command.split()[0] for command in COMMANDS}
    for later in (*LATER, *LATEST):
        assert here.run(later, "x").code == 2


# --- errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["nope"],
        ["send"],
        ["send", "bob"],
        ["send", "bob", "hi", "there", "you"],
        ["vote", "1", "maybe"],
        ["vote", "one", "yes"],
        ["vote", "0", "yes"],
        ["receive", "--count", "0"],
        ["receive", "--wait", "-1"],
        ["history", "bob", "--limit", "none"],
        ["chat-settings", "bob", "--on-the-record", "--off-the-record"],
        ["recover", "--revoke-others", "--keep-others"],
        ["recover", "--revoke", "0"],
        ["recover", "ada"],
        ["recover", "--veto", "address"],
        ["recover", "address", "bob", "--none"],
        ["recover", "begin", "ada", "--mnemonic-file", "f", "--keystore", "g"],
        ["recover", "propose", "ada"],
        ["recover", "propose", "ada", "0x00", "--wallet", "--signature", "0x00"],
        ["recover", "finalise", "--revoke", "1", "--keep-others"],
        ["contacts"],
        ["keys", "revoke"],
        ["whoami", "--nonsense"],
        ["whoami", "--home"],
        ["whoami", "--rpc", "nonsense"],
        ["whoami", "--directory", "0x12"],
        ["whoami", "--user", "../ada"],
        ["whoami", "--home", "/a", "--user", "ada"],
        ["register", "ada", "--mnemonic-file", "a", "--keystore", "b"],
        ["register", "Ada Lovelace", "--password-file", "/dev/null"],
        ["--user", "bob", "register", "ada"],
        ["config", "show", "--password-file"],
        [],
    ],
)
def test_a_usage_error_is_one_object_and_exit_code_2(arguments: list[str], here: Shell) -> None:
    """Under --json on stdout and nothing on stderr; without it the other way round, as a sentence."""
    for_programs = here.run("--json", *arguments)
    assert for_programs.code == 2, for_programs
    assert for_programs.error["message"]
    assert for_programs.err == ""
    for_people = here.run("--no-input", *arguments)
    assert (for_people.code, for_people.out) == (2, "")
    assert for_people.err.strip()


@pytest.mark.parametrize("answer", ["yes", "YES", "No"])
def test_a_vote_is_understood_in_any_case(answer: str, here: Shell) -> None:
    """What stops it here is that nobody has a home."""
    ended = here.run("--json", "vote", "2", answer)
    assert (ended.code, ended.error["code"]) == (6, "no_account")


def test_a_slip_is_explained_in_plain_words(here: Shell) -> None:
    """Numbers are called numbers, and a text without quotes is named as what it is."""
    assert "'one' is not a whole number" in here.run("vote", "one", "yes").err
    assert "'one' is not a whole number" in here.run("invite", "--days", "one").err
    assert "'x' is not a number" in here.run("receive", "--wait", "x").err
    assert "in quotes" in here.run("send", "bob", "hi", "there").err
    assert "in quotes: chatchain search 'some words'." in here.run("search", "hi", "there").err
    assert "in quotes: chatchain rsa seal NAME" in here.run("rsa", "seal", "bob", "hi", "there").err
    assert "in quotes" not in here.run("history", "bob", "there").err


def test_what_contradicts_itself_or_is_empty_is_said(here: Shell) -> None:
    """Neither the last of two options wins silently, nor is an empty path a folder."""
    for option in ("typing", "read-receipts"):
        ended = here.run("privacy", f"--{option}", f"--no-{option}")
        assert (ended.code, "contradict each other" in ended.err) == (2, True)
    assert "path of the file is empty" in here.run("send", "bob", "--file", "").err
    assert "up to 25 MB" in here.run("send", "--help").out


@pytest.mark.parametrize("arguments", [["help"], ["-h"], ["help", "send"], ["send", "-h"]])
def test_help_is_given_however_it_is_asked_for(arguments: list[str], here: Shell) -> None:
    """The word, the letter and the option are the same."""
    ended = here.run(*arguments)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("Usage: chatchain")


def every_error() -> list[type[ChatchainError]]:
    """All of the tree."""
    return [
        kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, ChatchainError)
    ]


@pytest.mark.parametrize("kind", every_error())
def test_every_failure_of_the_tree_has_its_exit_code(
    kind: type[ChatchainError], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The code, sentence and hint of the error are what a program reads."""
    code = main(
        ["whoami", "--json", "--home", str(tmp_path)], world(lambda: kind("It failed.", "Do better."))
    )
    assert code == kind.exit_code
    assert json.loads(capsys.readouterr().out) == {
        "error": {"code": kind.code, "message": "It failed.", "hint": "Do better."}
    }


def world(failure: Callable[[], BaseException]) -> World:
    """A world in which every client fails as told."""

    def connect(*_: object, **__: object) -> NoReturn:
        raise failure()

    return World("1", lambda flags: load_client(flags, environment={}), connect, {})


def test_a_bug_is_one_sentence_without_its_own_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What an unexpected exception says may hold a secret; its name and the way to more are enough."""
    broken = world(lambda: RuntimeError("password is geheim"))
    assert main(["whoami", "--home", str(tmp_path)], broken) == 1
    seen = capsys.readouterr()
    assert "geheim" not in seen.out + seen.err
    assert "Traceback" not in seen.out + seen.err
    assert "RuntimeError" in seen.err
    assert "--debug" in seen.err


def test_debug_shows_the_stack_trace_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And stdout stays what a program can read."""
    broken = world(lambda: RuntimeError("broken"))
    assert main(["--json", "whoami", "--debug", "--home", str(tmp_path)], broken) == 1
    seen = capsys.readouterr()
    assert "Traceback" in seen.err
    assert json.loads(seen.out)["error"]["code"] == "bug"


def test_text_of_others_in_an_error_is_cleaned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A relay's words in an error act on no terminal."""
    hostile = world(lambda: errors.RelayFailure("\x1b[2Jgone\nsecond line", "\u202ehint"))
    assert main(["whoami", "--home", str(tmp_path)], hostile) == 4
    assert capsys.readouterr().err == "\u241b[2Jgone\nsecond line\n<U+202E>hint\n"


# --- homes ----------------------------------------------------------------------------------------------


def test_without_any_user_a_command_says_how_to_make_one(here: Shell) -> None:
    """NoAccount, and how to register."""
    ended = here.run("whoami", "--json")
    assert (ended.code, ended.error["code"]) == (6, "no_account")
    assert "register" in ended.error["hint"]


def test_with_several_users_a_command_names_them(here: Shell) -> None:
    """AmbiguousName lists who is there."""
    make_home(here, "ada")
    make_home(here, "bob")
    ended = here.run("whoami", "--json")
    assert (ended.code, ended.error["code"]) == (2, "ambiguous_name")
    assert "ada, bob" in ended.error["message"]
    assert "--user" in ended.error["hint"]


def test_what_is_no_home_is_not_taken_for_one(here: Shell) -> None:
    """A stray folder beside the homes, or one whose name no user has, makes nothing ambiguous."""
    make_home(here, "ada")
    data = Path(here.environment["XDG_DATA_HOME"]) / "chatchain"
    (data / "empty").mkdir()
    make_home(here, ".joined")
    # The home of ada is a sham, so it is opened and found damaged: it was taken, and alone.
    assert here.run("whoami", "--json").error["code"] == "bad_config"


# --- settings -------------------------------------------------------------------------------------------


def test_config_show_tells_value_and_origin(here: Shell) -> None:
    """Every source of settings is named; a password in a URL is masked."""
    (here.folder / ".env").write_text("RPC_URL=https://user:geheim@node.example\nPRIVATE_KEY=0xgeheim\n")
    ended = here.run("config", "show", "--json", "--user", "ada")
    shown = {one["name"]: one for one in ended.objects}
    assert ended.code == 0
    assert (shown["user"]["value"], shown["user"]["origin"]) == ("ada", "flag")
    assert (shown["rpc"]["value"], shown["rpc"]["origin"]) == (["https://user:***@node.example"], ".env")
    assert shown["directory"] == {"name": "directory", "value": None, "origin": "default", "where": ""}
    people = here.run("config", "show", "--user", "ada")
    assert "geheim" not in ended.out + people.out
    assert "flag" in people.out


# --- streams --------------------------------------------------------------------------------------------


def test_a_reader_that_goes_away_ends_the_program_quietly(here: Shell) -> None:
    """As with other programs in a pipe: no traceback, and the exit code of SIGPIPE."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*PROGRAM, "config", "show"],
        stdout=write,
        stderr=subprocess.PIPE,
        env=dict(here.environment),
        cwd=here.folder,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_end_no_program(closed: str, here: Shell) -> None:
    """No file that is opened later passes for stdin or stdout."""
    done = subprocess.run(
        ["/bin/sh", "-c", f'"$0" "$@" {closed}', *PROGRAM, "config", "show"],
        capture_output=True,
        env=dict(here.environment),
        cwd=here.folder,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("json_option", [[], ["--json"]])
def test_a_full_disk_is_named(json_option: list[str], here: Shell) -> None:
    """Output that could not be written is no success."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PROGRAM, "config", "show", *json_option],
            stdout=full,
            stderr=subprocess.PIPE,
            env=dict(here.environment),
            cwd=here.folder,
            check=False,
        )
    assert done.returncode == 4
    assert b"No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr


def test_no_argument_and_nobody_there_is_a_usage_error(here: Shell) -> None:
    """The menu needs somebody: stdin without a line, --no-input and --json say so."""
    for arguments in ([], ["--no-input"], ["--json"]):
        ended = here.run(*arguments)
        assert ended.code == 2
        assert "--help" in ended.err + ended.out


def test_colour_is_for_terminals_that_want_it(here: Shell) -> None:
    """NO_COLOR and pipes get none."""
    with here.terminal("whoami") as terminal:
        assert terminal.ended() == 6
        assert "\x1b[31m" in terminal.transcript
    plain = dataclasses.replace(here, environment={**here.environment, "NO_COLOR": ""})
    with plain.terminal("whoami") as terminal:
        assert terminal.ended() == 6
        assert "\x1b" not in terminal.transcript
    assert "\x1b" not in here.run("whoami").err


def test_a_password_file_is_read_with_care(here: Shell, tmp_path: Path) -> None:
    """Missing, empty, overlong or binary files are named; one that others can read is remarked on."""
    file = tmp_path / "password"
    link = "chatchain://join?rpc=http://127.0.0.1:1&chain=1&directory=0x" + "12" * 20
    for content in (None, b"", b"\n", b"\xff\xfe", b"x" * 5000):
        if content is not None:
            file.write_bytes(content)
        ended = here.run("--json", "join", link, "--password-file", file)
        assert (ended.code, ended.error["code"]) == (2, "bad_config")
        assert str(file) in ended.error["message"]
    file.write_bytes(b"correct horse\n")
    file.chmod(0o644)
    ended = here.run("--json", "join", link, "--password-file", file)
    assert (ended.code, ended.error["code"]) == (5, "chain_unreachable")
    assert "chmod 600" in ended.err


# --- the person -----------------------------------------------------------------------------------------


def test_a_registration_that_cannot_be_asks_for_no_password(here: Shell) -> None:
    """Without a network there is nothing to choose a password for, and no home is left behind."""
    with here.terminal("register", "ada") as terminal:
        terminal.expect("which network is meant")
        assert terminal.ended() == 2
        assert "password" not in terminal.transcript
    assert not (Path(here.environment["XDG_DATA_HOME"]) / "chatchain" / "ada").exists()


def test_a_user_who_is_not_here_is_told_who_is(here: Shell) -> None:
    """A slip in --user is no reason to register somebody."""
    make_home(here, "carol")
    make_home(here, "dave")
    ended = here.run("whoami", "--user", "carrol", "--json")
    assert (ended.code, ended.error["code"]) == (6, "no_account")
    assert ended.error["message"] == "There is no user carrol here; there are carol, dave."


def test_ctrl_c_at_a_question_stops_at_once(here: Shell) -> None:
    """Exit 130, one sentence, and the terminal as it was."""
    with here.terminal("keys", "export", "file", "--user", "ada") as terminal:
        terminal.expect("Password: ")
        assert not terminal.echoes()
        terminal.press(b"\x03")
        assert terminal.ended() == 130
        assert "Stopped; nothing is lost." in terminal.transcript
        assert "Traceback" not in terminal.transcript
        assert terminal.echoes()


@pytest.mark.parametrize(
    ("arguments", "prompt", "option"),
    [
        (["recover"], "Recovery phrase", "--mnemonic-file FILE"),
        (["keys", "export", "file", "--user", "ada"], "Password: ", "--password-file FILE"),
    ],
)
def test_ctrl_d_at_a_question_says_what_is_true(
    arguments: list[str], prompt: str, option: str, here: Shell
) -> None:
    """Somebody was asked and typed nothing; what names a file instead is the option of that very secret."""
    with here.terminal(*arguments) as terminal:
        terminal.expect(prompt)
        terminal.press(b"\x04")
        terminal.expect(f"Nothing was typed. Try again, or give it with {option}.")
        assert terminal.ended() == 2
        assert "nobody" not in terminal.transcript


def test_ctrl_c_while_the_program_still_loads_leaves_no_trace() -> None:
    """The same exit code, before anything could be said."""
    script = (
        "import sys\n"
        "from chatchain.programs.client import run\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer.core': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "sys.exit(run(['--help']))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_ctrl_c_while_the_chain_does_not_answer_stops_the_program(here: Shell) -> None:
    """In the form that was asked for, while the endpoint still holds the connection."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        link = f"chatchain://join?rpc=http://127.0.0.1:{port}&chain=1&directory=0x" + "12" * 20
        with here.start("--json", "join", link) as child, silent.accept()[0]:
            child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=PATIENCE)
    assert child.returncode == 130
    assert json.loads(out)["error"]["code"] == "stopped"
    assert err == b""


@pytest.mark.parametrize(
    ("number", "code", "exit_code"),
    [(errno.ENOSPC, "store_unavailable", 4), (errno.EACCES, "store_unavailable", 4), (errno.EBADF, "bug", 1)],
)
def test_what_the_machine_refuses_is_no_bug(
    number: int, code: str, exit_code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full disk that nobody expected there is said by the file's name; other failures stay bugs."""

    def configure(_: object) -> Any:
        raise OSError(number, os.strerror(number), "/some/file")

    def connect(*_: object, **__: object) -> Any:
        raise AssertionError

    assert main(["--json", "whoami"], World("", configure, connect, {})) == exit_code
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == code
    assert ("/some/file" in error["message"]) == (code != "bug")


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (
            ["chat-settings", "bob", "--timer"],
            "The option --timer needs a value.",
            "30s, 5m, 1h, 1d, 4w, or off. See `chatchain chat-settings --help`.",
        ),
        (
            ["propose", "set", "rules", "--threshold"],
            "The option --threshold needs a value.",
            "66, or 66%. See `chatchain propose set rules --help`.",
        ),
        (["vote"], "Missing argument 'ID'.", "The proposal's number. See `chatchain vote --help`."),
        (["keys", "list", "--foo"], "No such option: --foo.", "See `chatchain keys list --help`."),
    ],
)
def test_a_mistake_says_what_is_wanted(arguments: list[str], message: str, hint: str, here: Shell) -> None:
    """The option's own words stand there, and the command whose help has the rest."""
    error = here.run("--json", *arguments).error
    assert error["message"] == message
    assert error["hint"].endswith(hint)


def test_the_manual_names_every_command_and_option(explained: Callable[[str], Ended]) -> None:
    """docs/cli.md and the program list the same."""
    manual = (ROOT / "docs" / "cli.md").read_text()
    for command in COMMANDS:
        assert f"`{command}" in manual, command
        described = explained(command).out
        for option in re.findall(r"--[a-z-]+", described.partition("Options:")[2]):
            assert option == "--help" or option in manual, (command, option)
    for option in (*VALUED, *PLAIN):
        assert f"`{option}" in manual
