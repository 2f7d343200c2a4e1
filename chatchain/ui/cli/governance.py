"""Commands about membership: members, request, propose, proposals, vote."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from chatchain.ui import render
from chatchain.ui.cli.desk import desk

if TYPE_CHECKING:
    from chatchain.client.core import Client
    from chatchain.client.views import MemberView, ProposalView

propose = typer.Typer(help="Ask the members to admit or expel somebody.", rich_markup_mode=None)

Who = Annotated[str, typer.Argument(metavar="WHO", help="A name, a 15-digit id or a 0x account.")]
GroupArgument = Annotated[
    str | None, typer.Argument(metavar="GROUP", help="A group; without it the network.")
]
GroupOption = Annotated[
    str | None, typer.Option("--group", metavar="G", help="A group; without it the network.")
]


class Answer(StrEnum):
    """A vote as it is typed."""

    YES = "yes"
    NO = "no"


def members(context: typer.Context, group: GroupArgument = None) -> None:
    """Show the members."""

    async def work(client: Client) -> list[MemberView]:
        return await client.members(group)

    here = desk(context)
    here.output.results(here.run(work), render.members)


def request(context: typer.Context, group: GroupArgument = None) -> None:
    """Ask the members to admit you."""

    async def work(client: Client) -> ProposalView:
        return await client.request(group)

    here = desk(context)
    here.output.result(here.run(work), render.proposal)


@propose.command()
def admit(context: typer.Context, who: Who, group: GroupOption = None) -> None:
    """Propose to admit somebody."""
    _propose(context, "admit", who, group)


@propose.command()
def expel(context: typer.Context, who: Who, group: GroupOption = None) -> None:
    """Propose to expel a member."""
    _propose(context, "expel", who, group)


def _propose(context: typer.Context, kind: str, who: str, group: str | None) -> None:
    async def work(client: Client) -> ProposalView:
        return await client.propose(kind, who, group)

    here = desk(context)
    here.output.result(here.run(work), render.proposal)


def proposals(
    context: typer.Context,
    group: GroupArgument = None,
    only_open: Annotated[bool, typer.Option("--open", help="Only those that take votes.")] = False,
) -> None:
    """Show the proposals and their counts."""

    async def work(client: Client) -> list[ProposalView]:
        return await client.proposals(group, open_only=only_open)

    here = desk(context)
    here.output.results(here.run(work), render.proposals)


def vote(
    context: typer.Context,
    proposal: Annotated[int, typer.Argument(metavar="ID", min=1, help="The proposal's number.")],
    answer: Annotated[Answer, typer.Argument(metavar="yes|no")],
) -> None:
    """Vote on a proposal."""

    async def work(client: Client) -> ProposalView:
        return await client.vote(proposal, answer is Answer.YES)

    here = desk(context)
    here.output.result(here.run(work), render.proposal)


def add_to(app: typer.Typer) -> None:
    """Enters these commands into the application."""
    app.command()(members)
    app.command()(request)
    app.add_typer(propose, name="propose")
    app.command()(proposals)
    app.command()(vote)
