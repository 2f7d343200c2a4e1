"""Commands about messages: send, receive, history, search, chat."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from chatchain.errors import BadText, ChatchainError, MissingInput, TooLarge, UsageError
from chatchain.ui import pictures, render
from chatchain.ui.cli.desk import UTF8, Desk, argument_text, desk
from chatchain.ui.output import message_object, outage

if TYPE_CHECKING:
    from chatchain.client.core import Client
    from chatchain.client.views import Shown
    from chatchain.ui.console import Console

MAX_TEXT: Final = 64 * 1024
"""Bytes of one text; the core refuses more, this only bounds what is read before it does."""


Peer = Annotated[str, typer.Argument(metavar="PEER", help="A name, a 15-digit id or a 0x account.")]
Limit = Annotated[int, typer.Option("--limit", metavar="N", min=1, max=10_000, help="How many at most.")]


def send(
    context: typer.Context,
    to: Annotated[str, typer.Argument(metavar="TO", help="A name, a 15-digit id or a 0x account.")],
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="What to say; - reads it from stdin.")
    ] = None,
    lines: Annotated[
        bool, typer.Option("--lines", help="One message a line, from TEXT or from stdin.")
    ] = False,
    files: Annotated[
        list[str] | None,
        typer.Option("--file", metavar="PATH", help="A file, up to 25 MB; TEXT is what is said of it."),
    ] = None,
    keep_metadata: Annotated[
        bool, typer.Option("--keep-metadata", help="Send a picture with what it says of its taking.")
    ] = False,
) -> None:
    """Send a message and wait for the relay's tick."""
    here = desk(context)
    if files is not None and len(files) > 1:
        raise UsageError("A message brings one file.", "Send each file in a message of its own.")
    if files == [""]:
        raise UsageError("The path of the file is empty.", "Name the file behind --file.")
    file = Path(files[0]) if files else None
    if file is not None and lines:
        raise UsageError("A file is one message; --lines sends many.", "Leave one of the two out.")
    if keep_metadata and file is None:
        raise UsageError("--keep-metadata is about a file, and none is named.", "Add --file PATH.")
    if text is None and not lines and file is None:
        raise MissingInput(
            "The text to send is missing.",
            "Write it behind the name, or - to read it from stdin, or --lines for one message a line.",
        )
    told: list[ChatchainError | None] = []

    async def work(client: Client) -> None:
        flaws: list[ChatchainError] = []
        if file is None:
            stream = client.send(to, _texts(here.console, text, lines, flaws))
        else:
            about = _stdin_text(here.console) if text == "-" else argument_text(text or "", "The caption")
            stream = client.send_file(to, file, about, keep_metadata=keep_metadata)
        count = {"sent": 0}
        problems: list[str] = []
        try:
            async for view in stream:
                if view.error is not None:
                    problems.append(view.error.code)
                if here.output.json or not lines:
                    here.output.result(view, render.sent)
                else:
                    count[view.state] = count.get(view.state, 0) + 1
            if flaws:
                raise flaws[0]
        except ChatchainError as error:
            # Under --json the object of the message carries its error already; once is enough.
            if not (here.output.json and error.code in problems):
                raise
            told.append(error)
        finally:
            if lines and not here.output.json:
                here.output.lines([", ".join(f"{number} {state}" for state, number in count.items()) + "."])

    here.run(work)
    if told and told[0] is not None:
        raise typer.Exit(told[0].exit_code)


async def _texts(
    console: Console, text: str | None, lines: bool, flaws: list[ChatchainError]
) -> AsyncIterator[str]:
    """The texts to send; a line that cannot be read ends them and goes into `flaws`."""
    if not lines:
        assert text is not None
        yield one_text(console, text)
    elif text is not None and text != "-":
        for line in argument_text(text, "The message").splitlines():
            if line:
                yield line
    else:
        try:
            async for line in stdin_lines(console):
                yield line
        except (BadText, TooLarge) as flaw:
            flaws.append(flaw)


def one_text(console: Console, text: str) -> str:
    """A text as it was given, or from stdin."""
    return _stdin_text(console) if text == "-" else argument_text(text, "The message")


def _stdin_text(console: Console) -> str:
    data = console.read_all(MAX_TEXT + 2)
    if len(data) > MAX_TEXT + 2:
        raise TooLarge(f"A message has {MAX_TEXT} bytes at most.", "Send it in parts.")
    try:
        return data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise BadText("What stdin holds is not text in UTF-8.", UTF8) from None


async def stdin_lines(console: Console) -> AsyncIterator[str]:
    """The lines of stdin, as they come; empty and blank ones say nothing and are left out."""
    queue = await console.chunks()
    rest = b""
    number = 0
    while (chunk := await queue.get()) is not None or rest:
        rest += chunk or b"\n"
        *whole, rest = rest.split(b"\n")
        if len(rest) > MAX_TEXT + 2:
            whole, rest = [*whole, rest], b""
        for line in whole:
            number += 1
            if (said := _line_text(line, number)).strip():
                yield said
        if chunk is None:
            return


def _line_text(line: bytes, number: int) -> str:
    if len(line) > MAX_TEXT + 1:
        raise TooLarge(
            f"Line {number} is longer than a message may be ({MAX_TEXT} bytes).",
            "The lines before it were sent.",
        )
    try:
        return line.decode().removesuffix("\r")
    except UnicodeDecodeError:
        raise BadText(
            f"Line {number} is not text in UTF-8.",
            "The lines before it were sent; correct it and go on there.",
        ) from None


def receive(
    context: typer.Context,
    wait: Annotated[
        float,
        typer.Option(
            "--wait", metavar="SECONDS", min=0, max=86_400, help="Wait so long for a first message."
        ),
    ] = 0.0,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until Ctrl-C.")] = False,
    count: Annotated[
        int | None, typer.Option("--count", metavar="N", min=1, help="Stop after N messages.")
    ] = None,
) -> None:
    """Show the messages that came in."""
    here = desk(context)

    async def work(client: Client) -> None:
        async for view in client.receive(
            wait_s=wait,
            follow=follow,
            count=count,
            outage=lambda reason: here.output.note(outage(reason)),
            alarm=here.alarm,
        ):
            await show(here, client, view)

    try:
        here.run(work)
    except KeyboardInterrupt:
        if not follow:
            raise
        # This is how following ends.


async def show(here: Desk, client: Client, view: Shown) -> None:
    """Prints one message that came in."""
    if here.output.json:
        here.output.object(message_object(view, stored=False))
    else:
        here.output.lines(await pictures.message(client, view, here.output))


def history(
    context: typer.Context,
    peer: Peer,
    limit: Limit = 50,
    before: Annotated[
        str | None, typer.Option("--before", metavar="ID", help="The messages before this one.")
    ] = None,
    ids: Annotated[
        bool, typer.Option("--ids", help="Show the beginnings of the ids, for reply, react, edit and delete.")
    ] = False,
) -> None:
    """Show the messages with somebody, from this device's database."""

    here = desk(context)

    async def work(client: Client) -> None:
        await _show_stored(here, client, await client.history(peer, limit=limit, before=before), ids=ids)

    here.run(work)


def search(
    context: typer.Context,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Words of a message, or of its file's name.")],
    limit: Limit = 50,
    peer: Annotated[
        str | None, typer.Option("--with", metavar="PEER", help="Only the messages with this user.")
    ] = None,
) -> None:
    """Find messages in this device's database."""
    words = argument_text(text, "What to search for")

    here = desk(context)

    async def work(client: Client) -> None:
        await _show_stored(here, client, await client.search(words, limit=limit, peer=peer))

    here.run(work)


async def _show_stored(here: Desk, client: Client, views: list[Shown], *, ids: bool = False) -> None:
    if here.output.json:
        for view in views:
            here.output.object(message_object(view, stored=True))
    else:
        here.output.lines(await pictures.messages(client, views, here.output, ids=ids))


def chat(context: typer.Context, peer: Peer) -> None:
    """Talk with somebody, back and forth; /quit leaves."""
    from chatchain.ui.chat import talk

    here = desk(context)

    async def work(client: Client) -> None:
        await talk(client, peer, here)

    here.run(work)


def add_to(app: typer.Typer) -> None:
    """Enters these commands into the application."""
    for command in (send, receive, history, search, chat):
        app.command()(command)
