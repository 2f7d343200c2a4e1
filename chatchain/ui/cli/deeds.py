"""Commands about what was said already and about a conversation: reply, react, edit, delete, chat-settings,
privacy, profile.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from chatchain.errors import ChatchainError, MissingInput, UsageError
from chatchain.ui import render
from chatchain.ui.changing import change_settings
from chatchain.ui.clean import clean_line
from chatchain.ui.cli.desk import argument_text, desk
from chatchain.ui.cli.messages import Peer, one_text
from chatchain.ui.timers import timer_seconds

if TYPE_CHECKING:
    from chatchain.client.core import Client
    from chatchain.client.views import ChatSettings, PrivacyView, ProfileView, Sent

Id = Annotated[
    str,
    typer.Argument(metavar="ID", help="The message's id, or its first digits (history PEER --ids)."),
]
Text = Annotated[
    str | None, typer.Argument(metavar="TEXT", help="What to say instead; - reads it from stdin.")
]


def reply(
    context: typer.Context,
    id: Id,
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="What to answer; - reads it from stdin.")
    ] = None,
) -> None:
    """Answer a message; both sides see which one."""
    said = _text(context, text)
    _tell(context, lambda client: client.reply(id, said), "")


def edit(context: typer.Context, id: Id, text: Text = None) -> None:
    """Give a message of yours another text, within a day of writing it."""
    said = _text(context, text)
    _tell(context, lambda client: client.edit(id, said), "edited")


def delete(context: typer.Context, id: Id) -> None:
    """Take a message of yours back for everybody, within two days of writing it."""
    _tell(context, lambda client: client.delete(id), "deleted")


def react(
    context: typer.Context,
    id: Id,
    emoji: Annotated[str | None, typer.Argument(metavar="EMOJI", help="One emoji, such as 👍.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take your reaction away.")] = False,
) -> None:
    """Put an emoji at a message, in place of yours before."""
    if remove == (emoji is not None):
        raise MissingInput("Which reaction?", "Give one emoji, or --remove to take yours away.")
    sign = argument_text(emoji or "", "The reaction")
    if emoji is not None and not sign:
        raise UsageError("The reaction is empty.", "Give one emoji, or --remove to take yours away.")
    done = "reaction taken away" if remove else f"reaction {clean_line(sign)}"
    _tell(context, lambda client: client.react(id, sign), done)


def _text(context: typer.Context, text: str | None) -> str:
    if text is None:
        raise MissingInput("The text is missing.", "Write it behind the id, or - to read it from stdin.")
    return one_text(desk(context).console, text)


def _tell(context: typer.Context, act: Callable[[Client], AsyncIterator[Sent]], done: str) -> None:
    """Does one thing and says how far it came; what is in the way is said once and ends the command."""
    here = desk(context)

    async def work(client: Client) -> ChatchainError | None:
        told = None
        try:
            async for view in act(client):
                told = view.error
                here.output.result(view, lambda view: render.sent(view, done))
        except ChatchainError as error:
            if not here.output.json or told is None:
                raise
            return error
        return None

    failed = here.run(work)
    if failed is not None:
        raise typer.Exit(failed.exit_code)


def chat_settings(
    context: typer.Context,
    peer: Peer,
    timer: Annotated[
        str | None,
        typer.Option(
            "--timer",
            metavar="TIME",
            help="Messages disappear so long after reading: 30s, 5m, 1h, 1d, 4w, or off.",
        ),
    ] = None,
    off_the_record: Annotated[
        bool, typer.Option("--off-the-record", help="Note for both sides that this is off the record.")
    ] = False,
    on_the_record: Annotated[
        bool, typer.Option("--on-the-record", help="Note for both sides that this is on the record.")
    ] = False,
) -> None:
    """Show or change how the conversation with somebody is set; both sides see a change."""
    if off_the_record and on_the_record:
        raise UsageError("--off-the-record and --on-the-record contradict each other.")
    seconds = timer_seconds(timer) if timer is not None else None
    off = off_the_record if off_the_record or on_the_record else None

    async def work(client: Client) -> tuple[ChatSettings, ChatchainError | None]:
        return await change_settings(client, peer, seconds, off)

    here = desk(context)
    view, obstacle = here.run(work)
    here.output.result(view, render.chat_settings)
    if obstacle is not None:
        if not here.output.json:
            raise obstacle
        raise typer.Exit(obstacle.exit_code)


def _either(yes: bool, no: bool, option: str) -> bool | None:
    """What a pair of options says, None for neither."""
    if yes and no:
        raise UsageError(f"--{option} and --no-{option} contradict each other.")
    return yes if yes or no else None


def privacy(
    context: typer.Context,
    typing: Annotated[bool, typer.Option("--typing", help="Let others see that you are typing.")] = False,
    no_typing: Annotated[bool, typer.Option("--no-typing", help="Keep it to yourself.")] = False,
    read_receipts: Annotated[
        bool, typer.Option("--read-receipts", help="Let others learn what you have read.")
    ] = False,
    no_read_receipts: Annotated[
        bool, typer.Option("--no-read-receipts", help="Keep that to yourself.")
    ] = False,
) -> None:
    """Show or change what this device tells others without being asked."""
    types = _either(typing, no_typing, "typing")
    reads = _either(read_receipts, no_read_receipts, "read-receipts")

    async def work(client: Client) -> PrivacyView:
        return await client.privacy(typing=types, read_receipts=reads)

    here = desk(context)
    here.output.result(here.run(work), render.privacy)


def profile(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="How you want to be called beside your username.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Go by the username alone.")] = False,
) -> None:
    """Show or change the name that stands beside your username."""
    if name is not None and clear:
        raise UsageError("A name and --clear contradict each other.", "Give one of them.")
    if name is not None and not name.strip():
        raise UsageError("The name is empty.", "--clear takes your display name away.")
    chosen = "" if clear else argument_text(name, "The name") if name is not None else None

    async def work(client: Client) -> ProfileView:
        return await client.profile(chosen)

    here = desk(context)
    here.output.result(here.run(work), render.profile)


def add_to(app: typer.Typer) -> None:
    """Enters these commands into the application."""
    for command in (reply, react, edit, delete, chat_settings, privacy, profile):
        app.command()(command)
