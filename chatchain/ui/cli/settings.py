"""Commands about keys and this machine: keys list, rotate, revoke, export; doctor; config show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chatchain.errors import AlreadyDone, MissingInput
from chatchain.ui import passwords, render
from chatchain.ui.cli.accounts import phrase_shower
from chatchain.ui.cli.desk import desk

if TYPE_CHECKING:
    from chatchain.client.core import Client
    from chatchain.client.views import Exported, Finding, KeyView

keys = typer.Typer(help="The devices of this account and their keys.", rich_markup_mode=None)
config = typer.Typer(help="The settings in force.", rich_markup_mode=None)


@keys.command("list")
def list_(context: typer.Context) -> None:
    """Show the devices of this account, as the chain lists them."""

    async def work(client: Client) -> list[KeyView]:
        return await client.keys()

    here = desk(context)
    here.output.results(here.run(work), render.keys)


@keys.command()
def rotate(context: typer.Context) -> None:
    """Give this device new keys, on the chain and at the relay."""

    async def work(client: Client) -> KeyView:
        return await client.rotate_keys()

    here = desk(context)
    here.output.result(here.run(work), render.rotated)


@keys.command()
def revoke(
    context: typer.Context,
    device: Annotated[
        int, typer.Argument(metavar="DEVICE", min=1, help="Its number, from `chatchain keys list`.")
    ],
) -> None:
    """End a device of this account for ever."""

    async def work(client: Client) -> KeyView:
        return await client.revoke_device(device)

    here = desk(context)
    here.output.result(here.run(work), render.revoked)


@keys.command()
def export(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file.")],
    keystore_password_file: Annotated[
        Path | None,
        typer.Option(
            "--keystore-password-file",
            metavar="F",
            help="The file's own password; without it the account's password opens the file.",
        ),
    ] = None,
) -> None:
    """Write the account's key as a keystore V3 file, which wallets open."""
    here = desk(context)
    own = here.password()
    secret = (
        passwords.read_password(keystore_password_file, here.output, "--keystore-password-file")
        if keystore_password_file is not None
        else own
    )

    async def work(client: Client) -> Exported:
        return await client.export_keystore(file, secret)

    here.output.result(here.run(work, password=own), render.exported)


@keys.command()
def phrase(
    context: typer.Context,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="F", help="A new file (0600), where there is no terminal.")
    ] = None,
) -> None:
    """Show, once, the recovery phrase that the registration had nobody to show to."""
    here = desk(context)
    show = phrase_shower(here, out)
    if show is None:
        raise MissingInput("There is no terminal to show the phrase on.", "Name a new file with --out FILE.")

    async def work(client: Client) -> None:
        if not await client.show_phrase(show):
            raise AlreadyDone(
                "The recovery phrase was shown before; it is not kept here.", "Look on the paper."
            )

    here.run(work)
    if here.output.json:
        here.output.object({"file": str(out) if out is not None else None})


def doctor(context: typer.Context) -> None:
    """Look for trouble with home, chain, relay and account."""

    async def work(client: Client) -> list[Finding]:
        return await client.doctor()

    here = desk(context)
    here.output.results(here.run(work), render.findings)


@config.command("show")
def show(context: typer.Context) -> None:
    """Show every setting with its origin."""
    here = desk(context)
    values = here.settings.settings
    if here.output.json:
        for value in values:
            here.output.object(
                {
                    "name": value.name,
                    "value": value.value,
                    "origin": str(value.origin),
                    "where": value.where,
                }
            )
    else:
        here.output.lines(render.settings(values))


def add_to(app: typer.Typer) -> None:
    """Enters these commands into the application."""
    app.add_typer(keys, name="keys")
    app.command()(doctor)
    app.add_typer(config, name="config")
