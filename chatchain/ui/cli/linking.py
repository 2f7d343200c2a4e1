"""The command `link`: on a new device, on an old one, and on the new one again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from chatchain.errors import BadConfig, MissingInput, RefusedError, TooLarge, UsageError
from chatchain.ui import homes, passwords, render
from chatchain.ui.clean import clean_line
from chatchain.ui.cli.desk import Desk, argument_text, desk
from chatchain.ui.cli.people import qr_lines

if TYPE_CHECKING:
    from chatchain.client.core import Client
    from chatchain.client.views import LinkAccepted, Linked, LinkOffer, LinkRequest, WalletPrompt

MAX_TEXT: Final = 4096
"""Characters of a link text that are read."""
MAX_FILE: Final = 26_000_000
"""Bytes of a history file that are read: the core takes no more than 25,000,000, and their seal."""


def link(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="On the new device: whose account it is.")
    ] = None,
    accept: Annotated[
        str | None,
        typer.Option("--accept", metavar="TEXT", help="On an old device: the new one's text (-: stdin)."),
    ] = None,
    answer: Annotated[
        str | None,
        typer.Option("--answer", metavar="TEXT", help="On the new device: the answer (-: stdin)."),
    ] = None,
    code: Annotated[
        str | None,
        typer.Option("--code", metavar="DIGITS", help="With --accept: what the new device shows."),
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option(
            "--history",
            metavar="FILE",
            help="Hand over contacts and messages in this file, which --accept writes and --answer reads.",
        ),
    ] = None,
    no_history: Annotated[
        bool, typer.Option("--no-history", help="Hand over, or take, neither contacts nor messages.")
    ] = False,
    wallet: Annotated[
        bool,
        typer.Option("--wallet", help="With --accept: show what a wallet that has the account's key signs."),
    ] = False,
    signature: Annotated[
        str | None,
        typer.Option("--signature", metavar="HEX", help="With --accept: what the wallet gave."),
    ] = None,
    account_password_file: Annotated[
        Path | None,
        typer.Option(
            "--account-password-file",
            metavar="F",
            help="With --answer: the account's password, if `link NAME` was given another one.",
        ),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="With NAME: begin anew, with other keys.")] = False,
    qr: Annotated[bool, typer.Option("--qr", help="Draw the text as a QR code too.")] = False,
) -> None:
    """Make a new device of an account that exists; the account's key stays where it is."""
    if sum(given is not None for given in (name, accept, answer)) != 1:
        raise UsageError(
            "Say which part this device has.",
            "`link NAME` on the new device, then `link --accept TEXT` on an old one, "
            "then `link --answer TEXT` on the new one.",
        )
    if no_history and history is not None:
        raise UsageError("--history and --no-history contradict each other.")
    if wallet and signature is not None:
        raise UsageError("--wallet comes first; --signature brings what the wallet gave.")
    here = desk(context)
    if accept is not None and wallet:
        _show_wallet(here, _text(here, accept, "--accept"), code)
    elif name is not None:
        _begin(here, name, again=again, qr=qr)
    elif accept is not None:
        text = _text(here, accept, "--accept")
        _accept(here, text, code, history, signature, no_history=no_history, qr=qr)
    elif answer is not None:
        text = _text(here, answer, "--answer")
        _finish(here, text, history, account_password_file, no_history=no_history)


def _begin(here: Desk, name: str, *, again: bool, qr: bool) -> None:
    username = name.removeprefix("@")
    home = homes.for_new(here.settings, username)
    join = homes.remembered_link(here.settings, home)

    def ask() -> str:
        question = f"Password of {clean_line(username)}'s account: "
        return passwords.ask_twice(here.console, here.output, question)

    async def work(client: Client) -> LinkRequest:
        if join is not None:
            await client.join(join)
        return await client.link(username, again=again)

    view = here.run(work, home, here.kept_password, ask)
    here.output.result(view, render.link_request)
    if qr:
        here.output.person(qr_lines(view.request))


NOT_ADDED: Final = "Add it only if both devices show the same code."


def _show_wallet(here: Desk, text: str, code: str | None) -> None:
    async def work(client: Client) -> WalletPrompt | None:
        if not await _is_meant(here, await client.inspect_link(text), code):
            return None
        return await client.ask_wallet(text)

    view = here.run(work)
    if view is None:
        raise RefusedError("The device was not added.", NOT_ADDED)
    here.output.result(view, render.wallet_prompt)


def _accept(
    here: Desk,
    text: str,
    code: str | None,
    history: Path | None,
    signature: str | None,
    *,
    no_history: bool,
    qr: bool,
) -> None:
    through_relay = history is None and not no_history

    async def work(client: Client) -> LinkAccepted | None:
        if not await _is_meant(here, await client.inspect_link(text), code):
            return None
        return await client.accept_link(text, file=history, through_relay=through_relay, signature=signature)

    view = here.run(work)
    if view is None:
        raise RefusedError("The device was not added.", NOT_ADDED)
    here.output.result(view, render.link_accepted)
    if qr:
        here.output.person(qr_lines(view.answer))


async def _is_meant(here: Desk, offer: LinkOffer, code: str | None) -> bool:
    """Whether the person has compared the code, by typing it or by saying so."""
    if code is not None:
        if "".join(code.split()) != offer.code.replace(" ", ""):
            raise RefusedError(
                "This is not the code of that text: it may be another device's. Nothing was changed.",
                "Bring the text over again from the screen of the new device.",
            )
        return True
    here.output.person(render.link_offer(offer))
    if not here.console.terminal:
        raise MissingInput(
            "Nobody is there to compare the code.", "Give --code with the digits that the new device shows."
        )
    try:
        said = await here.console.line_soon("Does the new device show this code? (yes/no) ")
    except EOFError:
        return False
    return said.strip() == "yes"


def _finish(
    here: Desk, text: str, history: Path | None, account_password: Path | None, *, no_history: bool
) -> None:
    home = homes.find(here.settings)
    blob = _blob(history) if history is not None else None
    ask: Callable[[], str] | None = None
    option = "--account-password-file"
    if account_password is not None:
        ask = partial(passwords.read_password, account_password, here.output, option)
    elif here.console.terminal:
        ask = passwords.asker(here.console, "That is not the account's password. The account's: ", option)

    async def work(client: Client) -> Linked:
        return await client.finish_link(text, history=blob, without_history=no_history, account_password=ask)

    here.output.result(here.run(work, home), render.linked)


def _text(here: Desk, given: str, option: str) -> str:
    if given != "-":
        return argument_text(given, option)
    data = here.console.read_all(MAX_TEXT)
    if len(data) > MAX_TEXT:
        raise TooLarge("What came from stdin is too long for a link text.")
    return data.decode("ascii", "replace")


def _blob(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as failure:
        raise BadConfig(f"The file {path} cannot be read: {failure.strerror}.", "Check --history.") from None
    if len(data) > MAX_FILE:
        raise BadConfig(f"The file {path} is too long for a history.", "Check --history.")
    return data


def add_to(app: typer.Typer) -> None:
    """Enters this command into the application."""
    app.command()(link)
