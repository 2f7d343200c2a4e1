"""The global options: accepted before or after the command, up to a bare `--`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from chatchain.errors import UsageError

VALUED: Final = ("--home", "--user", "--password-file", "--rpc", "--directory")
PLAIN: Final = ("--json", "--no-input", "--no-color", "--debug")
"""Every other option belongs to a command; a test compares both lists with what is declared below."""

Home = Annotated[
    Path | None, typer.Option("--home", metavar="DIR", help="One user's folder (CHATCHAIN_HOME).")
]
User = Annotated[
    str | None, typer.Option("--user", metavar="NAME", help="The user whose home is meant (CHATCHAIN_USER).")
]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON object a line on stdout; text for people on stderr.")
]
NoInput = Annotated[bool, typer.Option("--no-input", help="Ask nothing; name what is missing.")]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--password-file", metavar="FILE", help="A file with the password (CHATCHAIN_PASSWORD_FILE)."
    ),
]
Rpc = Annotated[
    list[str] | None,
    typer.Option("--rpc", metavar="URL", help="An endpoint of the chain (RPC_URL); repeatable."),
]
Directory = Annotated[
    str | None,
    typer.Option(
        "--directory", metavar="ADDRESS", help="The network's Directory contract (CONTRACT_ADDRESS)."
    ),
]
NoColor = Annotated[bool, typer.Option("--no-color", help="No colours and no pictures (NO_COLOR).")]
Debug = Annotated[bool, typer.Option("--debug", help="Show stack traces.")]


def hoist(arguments: Sequence[str]) -> list[str]:
    """Moves the global options to the front, where typer expects them; what follows `--` stays."""
    front: list[str] = []
    rest: list[str] = []
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            rest += [word, *waiting]
            break
        name, equals, _ = word.partition("=")
        if word in PLAIN or (equals and name in VALUED):
            front.append(word)
        elif word in VALUED:
            if not waiting or waiting[0] == "--" or waiting[0].partition("=")[0] in (*VALUED, *PLAIN):
                raise UsageError(f"The option {word} needs a value.", "See `chatchain --help`.")
            front += [word, waiting.pop(0)]
        else:
            rest.append(word)
    return front + rest


def wants_json(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Whether programs read the output, also when the rest of the command line cannot be understood."""
    return is_given("--json", arguments) or environment.get("CHATCHAIN_JSON", "").lower() in {
        "1",
        "true",
        "yes",
        "on",
    }


def is_given(option: str, arguments: Sequence[str]) -> bool:
    """Whether an option without a value stands on the command line, before a bare `--`."""
    words = list(arguments)
    return option in (words[: words.index("--")] if "--" in words else words)
