"""Commands about the own account: join, register, invite, login, logout, whoami, status, password."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from chatchain.errors import BadConfig, MissingInput, UsageError
from chatchain.ui import homes, passwords, render
from chatchain.ui.clean import clean_line
from chatchain.ui.cli.desk import Desk, desk
from chatchain.ui.output import Output

if TYPE_CHECKING:
    from chatchain.client.core import Client
    from chatchain.client.views import (
        Invited,
        Joined,
        LoggedIn,
        LoggedOut,
        PasswordChanged,
        Registered,
        Status,
        WhoAmI,
    )

MAX_FILE: Final = 64 * 1024
"""Bytes of a phrase or keystore file that are read."""

KEPT_PHRASE: Final = (
    "There was neither a terminal to show the recovery phrase on nor a --mnemonic-file, so it is kept in the "
    "encrypted home. Write it down with `chatchain keys phrase --out FILE`: without it a lost home is a lost "
    "account."
)


def join(
    context: typer.Context,
    link: Annotated[str, typer.Argument(metavar="LINK", help="chatchain://join?… from whom you trust.")],
) -> None:
    """Check a join link against its chain and remember the network."""
    here = desk(context)
    home = homes.for_join(here.settings)

    async def work(client: Client) -> Joined:
        return await client.join(link)

    view = here.run(work, home)
    if here.settings.home is None:  # a folder of its own says nothing about the machine's next user
        homes.remember_link(here.settings, link)
    registered = (home / homes.ACCOUNT).exists()
    here.output.result(view, lambda view: render.joined(view, registered=registered))


def register(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The username you want.")],
    mnemonic_file: Annotated[
        Path | None,
        typer.Option(
            "--mnemonic-file",
            metavar="F",
            help="Write the recovery phrase to this new file (0600); an existing one is read, to restore.",
        ),
    ] = None,
    keystore: Annotated[
        Path | None,
        typer.Option(
            "--keystore", metavar="F", help="Take the account's key from this keystore V3 file; no phrase."
        ),
    ] = None,
    keystore_password_file: Annotated[
        Path | None,
        typer.Option(
            "--keystore-password-file", metavar="F", help="The keystore's password, if it is another one."
        ),
    ] = None,
    invitation: Annotated[
        str | None,
        typer.Option(
            "--invitation", metavar="TEXT", help="A member's invitation; a join link may carry it, too."
        ),
    ] = None,
    recovery: Annotated[
        str | None,
        typer.Option(
            "--recovery",
            metavar="WHO",
            help="Who may propose another account once this one is lost: an address, or a user.",
        ),
    ] = None,
    new_secret: Annotated[
        bool,
        typer.Option("--new-secret", help="With --keystore: come back though other devices are shut out."),
    ] = False,
) -> None:
    """Register a new user on the chain, or bring one back."""
    here = desk(context)
    home = homes.for_new(here.settings, name.removeprefix("@"))
    if mnemonic_file is not None and keystore is not None:
        raise UsageError(
            "A keystore has no recovery phrase.", "Give --mnemonic-file or --keystore, not both."
        )
    restores = mnemonic_file is not None and mnemonic_file.exists()
    mnemonic = read_phrase(mnemonic_file, here.output) if mnemonic_file is not None and restores else None
    show = phrase_shower(here, mnemonic_file)
    stored = read_keystore(here, keystore, keystore_password_file)
    link = homes.remembered_link(here.settings, home)
    begun = homes.unfinished(home)

    def ask() -> str:
        if begun is not None:
            return passwords.asker(here.console, f"Password for {clean_line(begun)} (chosen before): ")()
        if (home / homes.ACCOUNT).exists():  # the keystore brings its key
            return passwords.asker(here.console)()
        username = name.removeprefix("@")
        return passwords.ask_new(here.console, here.output, "password for this account", [username])

    async def work(client: Client) -> Registered:
        if link is not None:
            await client.join(link)
        return await client.register(
            name,
            mnemonic=mnemonic,
            keystore=stored,
            on_phrase=show,
            invitation=invitation,
            recovery=recovery,
            new_secret=new_secret,
        )

    here.output.result(here.run(work, home, here.kept_password, ask), render.registered)
    if show is None and mnemonic is None and stored is None:
        here.output.note(KEPT_PHRASE)


def read_keystore(here: Desk, file: Path | None, password_file: Path | None) -> tuple[str, str] | None:
    """The text and the password of a keystore, if a file is named."""
    if file is None:
        return None
    option = "--keystore-password-file"
    text = _read_text(file)
    if password_file is not None:
        return text, passwords.read_password(password_file, here.output, option)
    missing = "The password of the keystore is missing."
    return text, here.kept_password or here.console.secret("Password of the keystore: ", missing, option)


def phrase_shower(here: Desk, file: Path | None) -> Callable[[str], None] | None:
    """Where a new account's phrase goes: into the new file, onto the terminal, or nowhere yet."""

    def to_file(phrase: str) -> None:
        assert file is not None
        write_new(file, phrase + "\n")
        here.output.note(f"The recovery phrase is in {file}. Copy it to paper and delete the file.")

    def to_terminal(phrase: str) -> None:
        here.output.person(phrase_lines(phrase))
        here.console.line("Press Enter when you have written it down. ")

    if file is not None:
        return to_file
    return to_terminal if here.console.terminal else None


def phrase_lines(phrase: str) -> list[str]:
    """The recovery phrase as a person copies it."""
    words = [f"{place:2} {word:<9}" for place, word in enumerate(phrase.split(), start=1)]
    rows = ["   ".join(words[start : start + 4]) for start in range(0, len(words), 4)]
    return [
        "",
        "Your recovery phrase. It is shown this once. Write it down on paper:",
        "whoever has it has the account, and without it a lost device is a lost account.",
        "",
        *(f"    {row}" for row in rows),
        "",
    ]


def write_new(path: Path, text: str) -> None:
    """Writes a file that nobody else can read and that was not there before."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
    except OSError as failure:
        raise BadConfig(f"{path} cannot be written: {failure.strerror}.", "Name a new file.") from None


def read_phrase(path: Path, output: Output) -> str:
    """The recovery phrase in a file; says so if others can read it."""
    phrase = _read_text(path)
    if passwords.shared(path):
        output.note(f"Other users of this machine can read {path}; `chmod 600` it.")
    return phrase


def _read_text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_FILE + 1)
    except OSError as failure:
        raise BadConfig(
            f"{path} cannot be read: {failure.strerror}.", "Check the spelling of its path, and its rights."
        ) from None
    except UnicodeDecodeError:
        raise BadConfig(f"{path} is not text.") from None
    if len(text) > MAX_FILE:
        raise BadConfig(f"{path} is too long to be what was asked for.")
    return text.strip()


def invite(
    context: typer.Context,
    days: Annotated[int, typer.Option(metavar="N", help="How many days it lasts, 1 to 30.")] = 7,
) -> None:
    """Make an invitation: with it a relay registers one newcomer without further ado."""
    here = desk(context)

    async def work(client: Client) -> Invited:
        return await client.invite(days=days)

    here.output.result(here.run(work), render.invited)


def login(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The user; needed when there are several.")
    ] = None,
) -> None:
    """Show password and device to the relay, and publish the keys."""
    here = desk(context)
    user = name.removeprefix("@") if name is not None else None
    settings = here.settings
    # A name says whose home is meant, unless a home was named already; the core compares the two.
    known = user is not None and homes.named(settings) is None and user in homes.users(settings.data_dir)
    home = settings.data_dir / user if known and user is not None else None

    async def work(client: Client) -> LoggedIn:
        return await client.login(user)

    here.output.result(here.run(work, home, warns=False), render.logged_in)


def logout(context: typer.Context) -> None:
    """End the session with the relay; the keys stay."""

    async def work(client: Client) -> LoggedOut:
        return await client.logout()

    here = desk(context)
    here.output.result(here.run(work), render.logged_out)


def whoami(context: typer.Context) -> None:
    """Show the account of this home."""

    async def work(client: Client) -> WhoAmI:
        return await client.whoami()

    here = desk(context)
    here.output.result(here.run(work, warns=False), render.who_am_i)


def status(context: typer.Context) -> None:
    """Show the account and how its network looks from here."""

    async def work(client: Client) -> Status:
        return await client.status()

    here = desk(context)
    here.output.result(here.run(work, warns=False), render.status)


def password(
    context: typer.Context,
    new_password_file: Annotated[
        Path | None,
        typer.Option("--new-password-file", metavar="F", help="A file with the new password."),
    ] = None,
) -> None:
    """Change the password, here and on the chain."""
    here = desk(context)
    old = None
    if new_password_file is not None:
        new = passwords.read_password(new_password_file, here.output, "--new-password-file")
    elif here.console.terminal:
        old = here.password()
        new = passwords.ask_new(here.console, here.output, option="--new-password-file")
    else:
        raise MissingInput("The new password is missing.", "Give it with --new-password-file FILE.")

    async def work(client: Client) -> PasswordChanged:
        return await client.change_password(new)

    here.output.result(here.run(work, password=old), render.password_changed)


def add_to(app: typer.Typer) -> None:
    """Enters these commands into the application."""
    for command in (join, register, invite, login, logout, whoami, status, password):
        app.command()(command)
