"""The application: the commands in their order, and what becomes of every way a run can end."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from chatchain.errors import ChatchainError, StoreUnavailable, UsageError
from chatchain.ui.cli import (
    accounts,
    deeds,
    files,
    governance,
    linking,
    messages,
    options,
    people,
    recovery,
    rsa,
    settings,
)
from chatchain.ui.cli.desk import Desk, desk
from chatchain.ui.output import Output
from chatchain.ui.world import World

PROGRAM: Final = "chatchain"
STOPPED: Final = 130
"""What a shell reports of a program that Ctrl-C ended."""
PIPE_CLOSED: Final = 141
"""What a shell reports of a program whose reader went away."""


class Bug(ChatchainError):
    """Something happened that this program does not know of itself."""

    code = "bug"
    exit_code = 1
    default_hint = (
        "Nothing that was stored is lost. Run it again with --debug for the details, and report them."
    )


class Stopped(ChatchainError):
    """The person ended the program."""

    code = "stopped"
    exit_code = STOPPED


ORDER: Final = (
    *("join", "register", "invite", "login", "logout", "whoami", "status", "password", "link", "recover"),
    *("send", "receive", "history", "search", "file", "chat"),
    *("reply", "react", "edit", "delete", "chat-settings", "privacy", "profile", "contacts"),
    *("members", "request", "propose", "proposals", "vote", "keys", "rsa", "doctor", "config"),
)
"""The commands as `--help` lists them: in the order in which a newcomer meets them."""


NUMBERS: Final = {
    "int range": "a whole number",
    "integer range": "a whole number",
    "integer": "a whole number",
    "int": "a whole number",
    "float range": "a number",
    "float": "a number",
}
"""What the parser calls a number, and what a person does; the longer words stand before their beginnings."""

QUOTED: Final = {
    f"{PROGRAM} send": "NAME 'what you want to say'",
    f"{PROGRAM} reply": "ID 'what you want to say'",
    f"{PROGRAM} edit": "ID 'what you meant to say'",
    f"{PROGRAM} search": "'some words'",
    f"{PROGRAM} profile": "'Your Name'",
    f"{PROGRAM} rsa seal": "NAME 'what you want to say'",
    f"{PROGRAM} propose pause": "'the reason'",
    f"{PROGRAM} propose unpause": "'the reason'",
}
"""The commands that end with a text, and how one of several words is written."""


class _ReaderGone(Exception):
    """Nobody reads stdout any more."""


class _Commands(TyperGroup):
    """Lists the commands in our order, and keeps typer from ending the program by itself."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=ORDER.index)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as gone:  # typer would exit with 1, which here means a bug
            raise _ReaderGone from gone


def application() -> typer.Typer:
    """Builds the command line."""
    app = typer.Typer(
        name=PROGRAM,
        cls=_Commands,
        invoke_without_command=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
        callback=_start,
    )
    for noun in (accounts, linking, recovery, messages, files, deeds, people, governance, rsa, settings):
        noun.add_to(app)
    return app


def _start(
    context: typer.Context,
    home: options.Home = None,
    user: options.User = None,
    json: options.Json = False,
    no_input: options.NoInput = False,
    no_color: options.NoColor = False,
    password_file: options.PasswordFile = None,
    rpc: options.Rpc = None,
    directory: options.Directory = None,
    debug: options.Debug = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version and leave.")] = False,
) -> None:
    """A private messenger for groups that govern themselves.

    Without a command, a menu in plain words.
    The options below go before or after a command.
    """
    here = desk(context)
    here.flags = {
        "home": home,
        "user": user,
        "json": json or None,
        "no_input": no_input or None,
        "password_file": password_file,
        "rpc": tuple(rpc or ()),
        "directory": directory,
        "debug": debug or None,
    }
    if version:
        here.output.lines([f"{PROGRAM} {here.world.version}"])
        raise typer.Exit
    if context.invoked_subcommand is None:
        from chatchain.ui.menu.frame import menu

        menu(here)


def main(arguments: Sequence[str], world: World) -> int:
    """Runs one command line and gives the exit code; every trouble has been said."""
    output = Output(
        json=options.wants_json(arguments, world.environment),
        environment=world.environment,
        colour=not options.is_given("--no-color", arguments),
    )
    here = Desk(world, {}, output)
    debug = "--debug" in arguments
    try:
        return _run(arguments, here)
    except (_ReaderGone, BrokenPipeError):
        _abandon_stdout()
        return PIPE_CLOSED
    except KeyboardInterrupt:
        return _tell(output, Stopped("Stopped; nothing is lost."), debug=False)
    except TyperException as error:
        return _tell(output, _usage(error, arguments), debug)
    except ChatchainError as error:
        return _tell(output, error, debug)
    except OSError as error:
        return _tell(output, _of_the_machine(error), debug)
    except Exception as error:  # the last line of defence: a sentence, never a stack trace
        return _tell(output, _bug(error), debug)
    finally:
        if "console" in here.__dict__:
            here.console.restore()


def _bug(error: Exception) -> Bug:
    return Bug(f"Something unexpected happened inside {PROGRAM} ({type(error).__name__}).")


MACHINES_OWN: Final = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
        *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR),
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    }
)
"""What a machine refuses, wherever a program happens to meet it: no bug, and nothing that it can mend."""


def _of_the_machine(error: OSError) -> ChatchainError:
    """What a disk or a folder refused, said by its name; any other failure of the kind is a bug."""
    if error.errno not in MACHINES_OWN:
        return _bug(error)
    what = (
        f"{error.filename} cannot be used" if error.filename is not None else "This machine refused something"
    )
    return StoreUnavailable(
        f"{what}: {error.strerror}.", "Is the disk full, or not yours to write to? Mend that and try again."
    )


def _run(arguments: Sequence[str], here: Desk) -> int:
    command = typer.main.get_command(application())
    code = command.main(
        args=_asking_for_help(options.hoist(arguments)), prog_name=PROGRAM, standalone_mode=False, obj=here
    )
    if code == STOPPED:  # typer's word for KeyboardInterrupt
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


def _asking_for_help(arguments: list[str]) -> list[str]:
    """`help send` means `send --help`."""
    return [*arguments[1:], "--help"] if arguments[:1] == ["help"] else arguments


def _usage(error: TyperException, arguments: Sequence[str]) -> UsageError:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else PROGRAM
    message = " ".join(error.format_message().split())
    meant = getattr(error, "param", None)
    option = getattr(error, "option_name", None)
    if context is None and option is not None:  # without its value, which the parser tells nobody of whom
        path, command = _meant(arguments)
        meant = next((one for one in command.params if option in one.opts), None)
        message = f"The option {option} needs a value"
    for kind, plain in NUMBERS.items():
        message = message.replace(f"is not a valid {kind}", f"is not {plain}")
    hint = f"See `{path} --help`."
    if help_text := getattr(meant, "help", None):
        hint = f"{help_text} {hint}"
    if path in QUOTED and "unexpected extra argument" in message:
        hint = f"Put the text in quotes: {path} {QUOTED[path]}."
    return UsageError(message if message.endswith((".", "?")) else message + ".", hint)


def _meant(arguments: Sequence[str]) -> tuple[str, Any]:
    """The command that a line is about, as far as its words name one, and how it is called."""
    command: Any = typer.main.get_command(application())
    path = PROGRAM
    for word in arguments:
        following = command.commands.get(word) if isinstance(command, TyperGroup) else None
        if following is not None:
            command, path = following, f"{path} {word}"
    return path, command


def _tell(output: Output, error: ChatchainError, debug: bool) -> int:
    if debug:
        traceback.print_exc(file=sys.stderr)
    try:
        output.error(error)
    except (BrokenPipeError, StoreUnavailable):
        _abandon_stdout()
        if output.json:  # stdout takes nothing any more; a person may still see why
            _tell(Output(json=False, environment={}), error, debug=False)
    return error.exit_code


def _abandon_stdout() -> None:
    """Lets nothing more be written to a reader that is gone, also not when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
