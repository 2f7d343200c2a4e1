"""Commands for peers who publish an RSA key and nothing better: rsa publish, rsa seal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from chatchain.ui import render
from chatchain.ui.cli.desk import desk
from chatchain.ui.cli.messages import Peer, one_text

if TYPE_CHECKING:
    from chatchain.client.core import Client
    from chatchain.client.views import RsaKey, RsaSealed

rsa = typer.Typer(
    help="RSA-2048 compatibility: no forward secrecy, not post-quantum; refused to whoever has better.",
    rich_markup_mode=None,
)


@rsa.command()
def publish(context: typer.Context) -> None:
    """Publish an RSA-2048 key of yours on the chain, to sign such messages with."""

    async def work(client: Client) -> RsaKey:
        return await client.publish_rsa()

    here = desk(context)
    here.output.result(here.run(work), render.rsa_key)


@rsa.command()
def seal(
    context: typer.Context,
    peer: Peer,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to say; - reads it from stdin.")],
) -> None:
    """Seal a text to somebody's RSA key, as text to be carried by other means."""
    here = desk(context)
    said = one_text(here.console, text)

    async def work(client: Client) -> RsaSealed:
        return await client.seal_rsa(peer, said)

    here.output.result(here.run(work), render.rsa_sealed)


def add_to(app: typer.Typer) -> None:
    """Enters these commands into the application."""
    app.add_typer(rsa, name="rsa")
