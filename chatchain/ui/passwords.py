"""Where the account's password comes from: a file, or a person who is asked."""

from __future__ import annotations

import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chatchain.errors import BadConfig, MissingInput, UsageError

if TYPE_CHECKING:
    from chatchain.ui.console import Console
    from chatchain.ui.output import Output

ATTEMPTS: Final = 3
"""How often a person may try to choose a password."""
LEAST: Final = 8
"""Characters of a password, as the prompt says; the core checks it, and more."""
MAX_PASSWORD: Final = 4096
"""Bytes of a password file; more is some other file."""


def read_password(path: Path, output: Output, option: str = "--password-file") -> str:
    """The password in a file; one final newline is ignored."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_PASSWORD + 1)
            others = shared(path)
    except OSError as failure:
        raise BadConfig(
            f"The password file {path} cannot be read: {failure.strerror}.", f"Check {option}."
        ) from None
    if len(data) > MAX_PASSWORD:
        raise BadConfig(f"The password file {path} is too long to hold a password.", f"Check {option}.")
    if others:
        output.note(f"Other users of this machine can read {path}; `chmod 600` it.")
    try:
        password = data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise BadConfig(f"The password file {path} is not text in UTF-8.", f"Check {option}.") from None
    if not password:
        raise BadConfig(f"The password file {path} is empty.", f"Check {option}.")
    return password


def shared(path: Path) -> bool:
    """Whether a file can be read by others on this machine."""
    status = path.stat()
    return stat.S_ISREG(status.st_mode) and bool(status.st_mode & (stat.S_IRGRP | stat.S_IROTH))


def asker(console: Console, prompt: str = "Password: ", option: str = "--password-file") -> Callable[[], str]:
    """Asks for the password of an account that exists; `option` is what names a file with it instead."""

    def ask() -> str:
        return console.secret(prompt, "The password is missing.", option)

    return ask


def check(password: str, names: Sequence[str] = ()) -> None:
    """Raises UsageError for a password that the core would not take."""
    from chatchain.client.core import Client

    Client.check_password(password, names)


def ask_new(
    console: Console,
    output: Output,
    what: str = "new password",
    names: Sequence[str] = (),
    option: str = "--password-file",
) -> str:
    """Asks for a password that is about to be set, twice; what does not do is explained and asked again."""
    missing = f"The {what} is missing."
    for attempt in range(1, ATTEMPTS + 1):
        try:
            first = console.secret(choose(what), missing, option)
            check(first, names)
            if console.secret("The same again: ", missing, option) == first:
                return first
            raise UsageError("The two passwords differ; nothing was changed.", "Try again.")
        except MissingInput:
            raise
        except UsageError as flaw:
            if attempt == ATTEMPTS:
                raise
            output.error(flaw)
    raise AssertionError("the last attempt returns or raises")


def ask_twice(console: Console, output: Output, question: str) -> str:
    """Asks for a password that nothing here can check, twice, so that it is at least what was meant."""
    missing = "The password is missing."
    for _ in range(ATTEMPTS):
        first = console.secret(question, missing)
        if console.secret("The same again: ", missing) == first:
            return first
        output.note("The two differ.")
    raise UsageError("The two passwords differ; nothing was changed.", "Try again.")


def choose(what: str = "password") -> str:
    """The question for a new password."""
    return f"Choose a {what} (at least {LEAST} characters): "
