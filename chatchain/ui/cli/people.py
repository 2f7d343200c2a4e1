"""Commands about people: contacts list, add, card, safety-number, verify."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Annotated

import typer

from chatchain.ui import render
from chatchain.ui.cli.desk import desk
from chatchain.ui.cli.messages import Peer

if TYPE_CHECKING:
    from chatchain.client.core import Client
    from chatchain.client.views import CardView, ContactView

contacts = typer.Typer(help="Whom this home knows, and how sure that is.", rich_markup_mode=None)


@contacts.command("list")
def list_(context: typer.Context) -> None:
    """Show everybody that this home knows."""

    async def work(client: Client) -> list[ContactView]:
        return await client.contacts()

    here = desk(context)
    here.output.results(here.run(work), render.contacts)


@contacts.command()
def add(
    context: typer.Context,
    card: Annotated[str, typer.Argument(metavar="CARD", help="chatchain://contact?…")],
) -> None:
    """Add somebody from a contact card, checked against the chain."""

    async def work(client: Client) -> ContactView:
        return await client.add_contact(card)

    here = desk(context)
    here.output.result(here.run(work), render.contact)


@contacts.command()
def card(
    context: typer.Context,
    qr: Annotated[bool, typer.Option("--qr", help="Draw it as a QR code too.")] = False,
) -> None:
    """Show your own contact card, to hand over."""

    async def work(client: Client) -> CardView:
        return await client.own_card()

    here = desk(context)
    view = here.run(work)
    here.output.result(view, render.card)
    if qr:
        here.output.person(qr_lines(view.card))


@contacts.command("safety-number")
def safety_number(
    context: typer.Context,
    peer: Peer,
    qr: Annotated[bool, typer.Option("--qr", help="Draw it as a QR code too, for them to scan.")] = False,
) -> None:
    """Show the safety number with somebody, to compare over another channel."""

    async def work(client: Client) -> ContactView:
        return await client.safety_number(peer)

    here = desk(context)
    view = here.run(work)
    here.output.result(view, render.safety_number)
    if qr:
        here.output.person(qr_lines(view.code))


@contacts.command()
def verify(
    context: typer.Context,
    peer: Peer,
    qr: Annotated[
        str | None, typer.Option("--qr", metavar="TEXT", help="What you scanned from their screen.")
    ] = None,
) -> None:
    """Note that you compared the safety number with somebody, or have it compared with a scanned code."""

    async def work(client: Client) -> ContactView:
        return await client.verify(peer, qr)

    here = desk(context)
    here.output.result(here.run(work), render.contact)


def qr_lines(text: str) -> list[str]:
    """A QR code in half-height blocks."""
    import segno

    drawn = io.StringIO()
    segno.make(text, micro=False).terminal(out=drawn, compact=True)
    return drawn.getvalue().splitlines()


def add_to(app: typer.Typer) -> None:
    """Enters these commands into the application."""
    app.add_typer(contacts, name="contacts")
