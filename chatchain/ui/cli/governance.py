"""Commands about membership: members, request, propose, proposals, vote."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from chatchain.ui import render
from chatchain.ui.cli.desk import desk

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from chatchain.client.core import Client
    from chatchain.client.decisions import Wish
    from chatchain.client.views import MemberView, ProposalView

propose = typer.Typer(help="Ask the members to decide something.", rich_markup_mode=None)
setting = typer.Typer(help="Propose to change rules, offices or relays.", rich_markup_mode=None)

Who = Annotated[str, typer.Argument(metavar="WHO", help="A name, a 15-digit id or a 0x account.")]
GroupArgument = Annotated[
    str | None, typer.Argument(metavar="GROUP", help="A group; without it the network.")
]
GroupOption = Annotated[
    str | None, typer.Option("--group", metavar="G", help="A group; without it the network.")
]


Holder = Annotated[str, typer.Argument(metavar="ADDRESS", help="0x and 40 hex digits.")]
Reason = Annotated[str, typer.Argument(metavar="REASON", help="Why; everybody can read it for ever.")]


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


@propose.command()
def pause(context: typer.Context, reason: Reason = "") -> None:
    """Propose to stop the network's messages, groups and rewards for 7 days."""
    _propose_pause(context, reason, end=False)


@propose.command()
def unpause(context: typer.Context, reason: Reason = "") -> None:
    """Propose to end the network's pause."""
    _propose_pause(context, reason, end=True)


@setting.command()
def rules(
    context: typer.Context,
    policy: Annotated[
        str | None, typer.Option("--policy", metavar="open|vote", help="Who may send: all, or members.")
    ] = None,
    threshold: Annotated[
        str | None,
        typer.Option("--threshold", metavar="PERCENT", help="More than this must vote yes: 66, or 66%."),
    ] = None,
    period: Annotated[
        str | None, typer.Option("--period", metavar="TIME", help="How long votes last: 7d, 36h, 90m.")
    ] = None,
    group: GroupOption = None,
) -> None:
    """Propose other rules; what is not named stays."""
    _wish(context, lambda decisions: decisions.rules(policy, threshold, period), group)


@setting.command()
def anchorer(
    context: typer.Context,
    address: Holder,
    log: Annotated[
        str | None, typer.Option("--log", metavar="ID", help="Start another log: 64 hex digits.")
    ] = None,
) -> None:
    """Propose who anchors the log of messages."""
    _wish(context, lambda decisions: decisions.anchorer(address, log))


@setting.command()
def witnesses(
    context: typer.Context,
    quorum: Annotated[int, typer.Argument(metavar="K", help="How many of them must sign a head.")],
    addresses: Annotated[list[str], typer.Argument(metavar="ADDRESS...", help="0x and 40 hex digits each.")],
) -> None:
    """Propose who witnesses the log of messages."""
    _wish(context, lambda decisions: decisions.witnesses(quorum, addresses))


@setting.command()
def relays(
    context: typer.Context,
    listed: Annotated[
        list[str],
        typer.Argument(metavar="HOST:PORT=KEY[,NEXTKEY]...", help="SHA-256 of each relay's public key."),
    ],
) -> None:
    """Propose the whole list of relays, first choice first."""
    _wish(context, lambda decisions: decisions.relays(listed))


@setting.command()
def rewards(context: typer.Context, address: Holder) -> None:
    """Propose who publishes what members earned."""
    _wish(context, lambda decisions: decisions.rewards(address))


@setting.command()
def successor(
    context: typer.Context,
    directory: Annotated[str, typer.Argument(metavar="ADDRESS|none", help="Another network's Directory.")],
) -> None:
    """Propose to recommend another network, or none any more."""
    _wish(context, lambda decisions: decisions.successor(directory))


def _wish(context: typer.Context, read: Callable[[ModuleType], Wish], group: str | None = None) -> None:
    from chatchain.client import decisions  # when it is needed: the command line starts fast

    wish = read(decisions)
    here = desk(context)
    here.output.result(here.run(lambda client: client.propose_wish(wish, group)), render.proposal)


def _propose_pause(context: typer.Context, reason: str, *, end: bool) -> None:
    here = desk(context)
    here.output.result(here.run(lambda client: client.propose_pause(reason, end=end)), render.proposal)


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
    answer: Annotated[Answer, typer.Argument(metavar="yes|no", case_sensitive=False)],
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
    propose.add_typer(setting, name="set")
    app.add_typer(propose, name="propose")
    app.command()(proposals)
    app.command()(vote)
