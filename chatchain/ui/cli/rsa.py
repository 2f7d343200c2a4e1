"""Commands for peers who publish an RSA key and nothing better: rsa publish, rsa seal, rsa open."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from chatchain.errors import BadFile, NoSuchFile, TooLarge
from chatchain.ui import render
from chatchain.ui.cli.desk import desk
from chatchain.ui.cli.messages import Peer, one_text

if TYPE_CHECKING:
    from chatchain.client.core import Client
    from chatchain.client.views import RsaKey, RsaOpened, RsaSealed
    from chatchain.ui.cli.desk import Desk

MAX_SEALED: Final = 256 * 1024
"""Bytes of a sealed text that are read; what can be sealed stays below."""

rsa = typer.Typer(
    help="For peers with an RSA-2048 key alone: no forward secrecy, not post-quantum, not deniable.",
    rich_markup_mode=None,
)


@rsa.command()
def publish(context: typer.Context) -> None:
    """Publish an RSA-2048 key of yours on the chain, to sign and be written to with."""

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


@rsa.command("open")
def open_(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="[FILE]", help="With the sealed text; - is stdin.")] = "-",
) -> None:
    """Open a text that somebody without anything better sealed to your RSA key."""
    here = desk(context)
    text = _sealed_text(here, file)

    async def work(client: Client) -> RsaOpened:
        return await client.open_rsa(text)

    here.output.result(here.run(work), render.rsa_opened)


def _sealed_text(here: Desk, name: str) -> str:
    """What a file or stdin holds; anything that is not ASCII is none of it and becomes a mark."""
    if name == "-":
        data = here.console.read_all(MAX_SEALED)
    else:
        try:
            with Path(name).open("rb") as file:
                data = file.read(MAX_SEALED + 1)
        except FileNotFoundError:
            raise NoSuchFile(f"There is no file {name}.", "Check the spelling of its path.") from None
        except (OSError, ValueError) as failure:
            why = (failure.strerror if isinstance(failure, OSError) else None) or str(failure)
            raise BadFile(f"The file {name} cannot be read: {why}.") from None
    if len(data) > MAX_SEALED:
        raise TooLarge("This is too long for a sealed text.")
    return data.decode("ascii", "replace")


def add_to(app: typer.Typer) -> None:
    """Enters these commands into the application."""
    app.add_typer(rsa, name="rsa")
