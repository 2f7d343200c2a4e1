"""Where the account's password comes from: a file, or a person who is asked."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chatchain.errors import BadConfig, MissingInput

if TYPE_CHECKING:
    from chatchain.ui.console import Console
    from chatchain.ui.output import Output

MAX_PASSWORD: Final = 4096
"""Bytes of a password file; more is some other file."""


def read_password(path: Path, output: Output, option: str = "--password-file") -> str:
    """The password in a file; one final newline is ignored."""
    try:
        with path.open("rb") as file:
            mode = file.fileno()
            data = file.read(MAX_PASSWORD + 1)
            shared = _shared(mode)
    except OSError as failure:
        raise BadConfig(
            f"The password file {path} cannot be read: {failure.strerror}.", f"Check {option}."
        ) from None
    if len(data) > MAX_PASSWORD:
        raise BadConfig(f"The password file {path} is too long to hold a password.", f"Check {option}.")
    if shared:
        output.note(f"Other users of this machine can read {path}; `chmod 600` it.")
    try:
        password = data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise BadConfig(f"The password file {path} is not text in UTF-8.", f"Check {option}.") from None
    if not password:
        raise BadConfig(f"The password file {path} is empty.", f"Check {option}.")
    return password


def _shared(descriptor: int) -> bool:
    import os

    status = os.fstat(descriptor)
    return stat.S_ISREG(status.st_mode) and bool(status.st_mode & (stat.S_IRGRP | stat.S_IROTH))


def asker(console: Console) -> Callable[[], str]:
    """Asks for the password of an account that exists."""

    def ask() -> str:
        return console.secret("Password: ", "The password is missing.")

    return ask


def ask_new(console: Console, what: str = "new password") -> str:
    """Asks for a password that is about to be set, twice."""
    missing = f"The {what} is missing."
    first = console.secret(f"Choose a {what}: ", missing)
    if not first:
        raise MissingInput("An empty password protects nothing.", "Type one, or give --password-file FILE.")
    if console.secret("The same again: ", missing) != first:
        raise MissingInput("The two passwords differ; nothing was changed.", "Try again.")
    return first
