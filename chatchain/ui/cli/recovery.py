"""The command `recover`: an account comes back from its recovery phrase."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from chatchain.errors import MissingInput, NoAccount, UsageError
from chatchain.ui import homes, passwords, render
from chatchain.ui.clean import clean_line
from chatchain.ui.cli.accounts import read_phrase
from chatchain.ui.cli.desk import Desk, desk, run

if TYPE_CHECKING:
    from chatchain.client.core import Client
    from chatchain.client.views import Recoverable, Recovered, Vetoed

ATTEMPTS: Final = 3
"""How often a person may try to type the phrase, or the numbers of devices."""


def recover(
    context: typer.Context,
    mnemonic_file: Annotated[
        Path | None,
        typer.Option(
            "--mnemonic-file", metavar="F", help="Read the recovery phrase from this file; else it is asked."
        ),
    ] = None,
    revoke: Annotated[
        list[int] | None,
        typer.Option(
            "--revoke", metavar="DEVICE", min=1, help="A lost device: it is ended for ever; repeatable."
        ),
    ] = None,
    revoke_others: Annotated[
        bool, typer.Option("--revoke-others", help="End every other device of the account.")
    ] = False,
    keep_others: Annotated[
        bool, typer.Option("--keep-others", help="End no device, and ask nothing about them.")
    ] = False,
    veto: Annotated[
        bool,
        typer.Option(
            "--veto",
            help="Refuse the account that the recovery address proposed; alone in a home that has the "
            "account's key, or before a device is added.",
        ),
    ] = False,
) -> None:
    """Bring an account back to a new home with nothing but its recovery phrase."""
    if sum((bool(revoke), revoke_others, keep_others)) > 1:
        raise UsageError("--revoke, --revoke-others and --keep-others contradict each other.")
    here = desk(context)
    if veto and mnemonic_file is None and (place := _finished(here)) is not None:

        async def refuse(client: Client) -> Vetoed:
            return await client.veto_recovery()

        here.output.result(here.run(refuse, place), render.vetoed)
        return
    place = _begun(here) if mnemonic_file is None else None
    phrase = None if place is not None else _phrase(here, mnemonic_file)
    home = place or homes.named(here.settings) or _home_of(here, phrase)
    link = homes.remembered_link(here.settings, home)
    begun = homes.unfinished(home)

    def ask() -> str:
        if begun is not None:
            return passwords.asker(here.console, f"Password for {clean_line(begun)} (chosen before): ")()
        return passwords.ask_new(here.console, here.output, "password for this account")

    def choose(offer: Recoverable) -> Collection[int]:
        if revoke_others:
            return [view.device for view in offer.devices]
        if revoke or keep_others or not offer.devices or not here.console.terminal:
            return revoke or ()
        return _asked(here, offer)

    async def work(client: Client) -> Recovered:
        if link is not None:
            await client.join(link)
        return await client.recover(phrase, choose=choose, veto=veto)

    here.output.result(here.run(work, home, here.kept_password, ask), render.recovered)


def _finished(here: Desk) -> Path | None:
    """The home that is meant, if it is somebody's."""
    try:
        home = homes.find(here.settings)
    except NoAccount:
        return None
    return home if (home / homes.ACCOUNT).exists() and homes.unfinished(home) is None else None


def _begun(here: Desk) -> Path | None:
    """The home that is meant, if no phrase is to be asked for: something was begun there, so it has the
    account's key already; or it was named and is somebody's, which the core says.
    """
    try:
        home = homes.find(here.settings)
    except NoAccount:
        return None
    taken = homes.named(here.settings) is not None and (home / homes.ACCOUNT).exists()
    return home if taken or homes.unfinished(home) is not None else None


def _phrase(here: Desk, file: Path | None) -> str:
    """The words from the file or from the person, who may try again."""
    if file is not None:
        return read_phrase(file, here.output)
    if not here.console.terminal:
        raise MissingInput(
            "The recovery phrase is missing.", "Give it in a file of mode 0600: --mnemonic-file FILE."
        )
    from chatchain.client.core import Client

    for attempt in range(1, ATTEMPTS + 1):
        phrase = here.console.secret(
            "Recovery phrase, all its words (not shown): ", "The phrase is missing.", "--mnemonic-file"
        )
        try:
            Client.check_phrase(phrase)
            return phrase
        except UsageError as flaw:
            if attempt == ATTEMPTS:
                raise
            here.output.error(flaw)
    raise AssertionError("the last attempt returns or raises")


def _home_of(here: Desk, phrase: str | None) -> Path:
    """The home under the name of whoever the phrase belongs to, which only the chain knows."""
    assert phrase is not None
    place = homes.waiting(here.settings)

    async def owner() -> str:
        link = homes.remembered_link(here.settings, place)
        async with here.client(place) as client:
            if link is not None:
                await client.join(link)
            return (await client.identify(phrase)).username

    return homes.for_new(here.settings, run(owner()))


def _asked(here: Desk, offer: Recoverable) -> Collection[int]:
    """Which devices the person calls lost."""
    here.output.person(render.recoverable(offer))
    known = {str(view.device): view.device for view in offer.devices}
    for _ in range(ATTEMPTS):
        try:
            words = here.console.line("Revoke which? Their numbers, all, or none: ").replace(",", " ").split()
        except EOFError:
            break
        if words == ["none"]:
            return ()
        if words == ["all"]:
            return known.values()
        if words and all(word in known for word in words):
            return [known[word] for word in words]
        here.output.person([f"Type one or more of {', '.join(known)}, or all, or none."])
    raise MissingInput(
        "Which devices are lost was not answered; nothing was changed.",
        "Run it again, or say it with --revoke DEVICE, --revoke-others or --keep-others.",
    )


def add_to(app: typer.Typer) -> None:
    """Enters this command into the application."""
    app.command()(recover)
