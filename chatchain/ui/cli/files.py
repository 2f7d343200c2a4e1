"""Commands about the files of messages: file get."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chatchain.ui import render
from chatchain.ui.cli.desk import desk

if TYPE_CHECKING:
    from chatchain.client.core import Client
    from chatchain.client.views import Fetched

file = typer.Typer(help="The files that messages brought.", rich_markup_mode=None)


@file.command()
def get(
    context: typer.Context,
    message: Annotated[str, typer.Argument(metavar="ID", help="The message's id, or its beginning.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="PATH", help="Where to put a copy: a file, or a folder."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is at PATH.")] = False,
    preview: Annotated[
        bool, typer.Option("--preview", help="Only the small picture that came in the message.")
    ] = False,
) -> None:
    """Bring a message's file here; what broke off goes on."""

    async def work(client: Client) -> Fetched:
        return await client.fetch_file(message, out, overwrite=overwrite, preview=preview)

    here = desk(context)
    here.output.result(here.run(work), render.fetched)


def add_to(app: typer.Typer) -> None:
    """Enters these commands into the application."""
    app.add_typer(file, name="file")
