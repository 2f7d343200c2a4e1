"""Commands about keys and this machine: keys list, rotate, revoke, export; doctor; config show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chatchain.errors import AlreadyDone, MissingInput, RefusedError
from chatchain.ui import homes, passwords, render
from chatchain.ui.cli.accounts import phrase_shower
from chatchain.ui.cli.desk import Desk, desk

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
    yes: Annotated[
        bool,
        typer.Option("--yes", help="Ask nothing; needed without a terminal for this device or the last."),
    ] = False,
) -> None:
    """End a device of this account for ever."""
    here = desk(context)

    async def work(client: Client) -> tuple[KeyView, str] | None:
        if not yes and not await means_it(here, device, await client.keys()):
            return None
        name = (await client.whoami()).username
        return await client.revoke_device(device), name

    done = here.run(work)
    if done is None:
        raise RefusedError(f"Device {device} was not revoked.", "Type yes to revoke it.")
    view, name = done
    here.output.result(view, lambda view: render.revoked(view, name))


async def means_it(here: Desk, device: int, devices: Sequence[KeyView]) -> bool:
    """Asks before a device is ended; where nobody answers, the own one and the last one stay."""
    active = [view for view in devices if view.state == "active"]
    target = next((view for view in active if view.device == device), None)
    if target is None:  # the core says what is wrong with the number
        return True
    remarks = ["the one you are using"] if target.here else []
    remarks += ["the only one of this account"] if len(active) == 1 else []
    what = f"Device {device}" + (f" is {' and '.join(remarks)}" if remarks else "")
    if here.console.terminal:
        here.output.person([f"{what}{'. It' if remarks else ''} cannot be brought back after a revocation."])
        if remarks:
            here.output.person(["Only the recovery phrase then opens the account, in a new home."])
        try:
            return (await here.console.line_soon(f"Revoke device {device}? (yes/no) ")).strip() == "yes"
        except EOFError:
            return False
    if remarks:
        raise RefusedError(
            f"{what}; only the recovery phrase would open the account again.",
            "Nothing was changed. Add --yes if this is meant.",
        )
    return True


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
    findings = here.run(work, warns=False)
    here.output.results(findings, render.findings)
    if code := next((finding.exit_code for finding in findings if not finding.ok), 0):
        raise typer.Exit(code)


@config.command("show")
def show(context: typer.Context) -> None:
    """Show every setting with its origin."""
    here = desk(context)
    values = homes.settings_in_force(here.settings)
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
