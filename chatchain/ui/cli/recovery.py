"""The command `recover`: an account comes back from its recovery phrase, or by its recovery address."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from chatchain.errors import MissingInput, NoAccount, UsageError
from chatchain.ui import homes, passwords, render, takeovers
from chatchain.ui.cli import takeover
from chatchain.ui.cli.accounts import read_phrase
from chatchain.ui.cli.desk import Desk, desk, run

if TYPE_CHECKING:
    from chatchain.client.core import Client
    from chatchain.client.views import Recoverable, Recovered, Vetoed

ATTEMPTS: Final = 3
"""How often a person may try to type the phrase, or the numbers of devices."""


Revoke = Annotated[
    list[int] | None,
    typer.Option(
        "--revoke", metavar="DEVICE", min=1, help="A lost device: it is ended for ever; repeatable."
    ),
]
RevokeOthers = Annotated[bool, typer.Option("--revoke-others", help="End every other device of the account.")]
KeepOthers = Annotated[bool, typer.Option("--keep-others", help="End no device, and ask nothing about them.")]


def recover(
    context: typer.Context,
    mnemonic_file: Annotated[
        Path | None,
        typer.Option(
            "--mnemonic-file", metavar="F", help="Read the recovery phrase from this file; else it is asked."
        ),
    ] = None,
    revoke: Revoke = None,
    revoke_others: RevokeOthers = False,
    keep_others: KeepOthers = False,
    veto: Annotated[
        bool,
        typer.Option(
            "--veto",
            help="Refuse the account that the recovery address proposed; alone in a home that has the "
            "account's key, or before a device is added.",
        ),
    ] = False,
) -> None:
    """Bring an account back to a new home with nothing but its recovery phrase.

    The commands below it are about the recovery address: who may propose another account in its place.
    """
    if context.invoked_subcommand is not None:
        if veto or mnemonic_file is not None or revoke or revoke_others or keep_others:
            raise UsageError(
                f"Options of `recover` itself do not go before `{context.invoked_subcommand}`.",
                f"See `chatchain recover {context.invoked_subcommand} --help`.",
            )
        return
    here = desk(context)
    choose = chooser(here, revoke, revoke_others=revoke_others, keep_others=keep_others)
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
            return takeover.chosen_before(here, begun)
        return passwords.ask_new(here.console, here.output, "password for this account")

    async def work(client: Client) -> Recovered:
        if link is not None:
            await client.join(link)
        return await client.recover(phrase, choose=choose, veto=veto)

    here.output.result(here.run(work, home, here.kept_password, ask), render.recovered)


def chooser(
    here: Desk, revoke: list[int] | None, *, revoke_others: bool, keep_others: bool
) -> Callable[[Recoverable], Collection[int]]:
    """Which devices are lost: as the options say, or a person at a terminal."""
    if sum((bool(revoke), revoke_others, keep_others)) > 1:
        raise UsageError("--revoke, --revoke-others and --keep-others contradict each other.")

    def choose(offer: Recoverable) -> Collection[int]:
        if revoke_others:
            return [view.device for view in offer.devices]
        if revoke or keep_others or not offer.devices or not here.console.terminal:
            return revoke or ()
        return _asked(here, offer)

    return choose


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


def finalise(
    context: typer.Context,
    revoke: Revoke = None,
    revoke_others: RevokeOthers = False,
    keep_others: KeepOthers = False,
    yes: takeover.Yes = False,
) -> None:
    """Take over as was proposed, where `begin` was run."""
    here = desk(context)
    choose = chooser(here, revoke, revoke_others=revoke_others, keep_others=keep_others)
    home = homes.find(here.settings)

    async def work(client: Client) -> Recovered:
        view = await client.takeover()
        if view.state == "proposed":  # else the core says what is missing, or there is nothing left to ask
            await takeover.confirm(here, takeovers.last_word(view), "Take over?", yes=yes)
        return await client.finalise_takeover(choose=choose)

    name = homes.unfinished(home) or home.name
    view = here.run(work, home, here.kept_password, lambda: takeover.chosen_before(here, name))
    here.output.result(view, render.recovered)


def add_to(app: typer.Typer) -> None:
    """Enters this command, and those below it, into the application."""
    group = typer.Typer(
        invoke_without_command=True,
        callback=recover,
        subcommand_metavar="[COMMAND]",
        rich_markup_mode=None,
    )
    takeover.add_to(group)
    group.command()(finalise)
    app.add_typer(group, name="recover")
