"""Talking with somebody: what comes in is printed above the line that is being typed."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import termios
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from chatchain.errors import ChatchainError, UnknownMessage, UsageError
from chatchain.ui import pictures, render
from chatchain.ui.changing import change_settings
from chatchain.ui.clean import clean_line
from chatchain.ui.editor import LineEditor
from chatchain.ui.output import message_object, outage
from chatchain.ui.paths import path_and_rest, typed_path
from chatchain.ui.timers import timer_seconds

if TYPE_CHECKING:
    from chatchain.client.core import Client
    from chatchain.client.views import PendingRecovery, Sent, Shown
    from chatchain.ui.cli.desk import Desk
    from chatchain.ui.console import Console
    from chatchain.ui.output import Output, ViewT

COMMAND: Final = "/"
"""What a command begins with; two of them are a text that begins with one."""
QUIT: Final = "/quit"
COMMANDS: Final = {
    "/reply": ("TEXT", "answers the last message of the other side"),
    "/react": ("EMOJI", "puts an emoji at it; without one, takes yours away"),
    "/edit": ("TEXT", "gives your own last message another text"),
    "/delete": ("[N]", "takes your own last message back, or the Nth from the end"),
    "/file": ("PATH [TEXT]", "sends a file or a picture, with a word about it"),
    "/get": ("[PATH]", "fetches the last file of the other side, to PATH if you name one"),
    "/search": ("WORDS", "finds messages of this conversation, and files by their names"),
    "/timer": ("1d", "lets messages disappear so long after reading (30s, 5m, 1h, 4w, off)"),
    "/record": ("off", "takes the conversation off the record (on: back on it)"),
    "/help": ("", "shows this"),
    QUIT: ("", "leaves"),
}
"""Each command, what stands behind it, and what it does."""
FOUND: Final = 10
"""Messages that a search shows."""
EARLIER: Final = 10
"""How many earlier messages are shown at the start."""
NAMED: Final = 60
"""Characters of a text by which a message is named."""
LOOKED_BACK: Final = 50
"""How far back a command looks for the message that it is about."""
PROMPT: Final = "> "
OFFLINE: Final = "not connected, trying again"
"""Stands before the line that is typed; what is sent then waits."""
TYPING_EVERY_S: Final = 5.0
"""How often the other side is told that somebody types."""
CONNECTING_S: Final = 0.25
"""How long to wait for a session before looking for it again."""
TYPING_SHOWN_S: Final = 10.0
"""How long that is shown after it was told."""


class Screen:
    """The lines above and the one being typed below, on a terminal; or plain lines where there is none."""

    def __init__(self, console: Console, output: Output) -> None:
        self._console = console
        self._output = output
        self.terminal = console.terminal and not output.json
        self.on_typing: Callable[[str], None] = lambda text: None
        self._editor = LineEditor()
        self._remark = ""

    def show(self, lines: Sequence[str]) -> None:
        """Prints lines above the one that is being typed."""
        if not self.terminal:
            self._output.lines(lines)
            return
        sys.stdout.write("\r\x1b[K" + "".join(f"{line}\r\n" for line in lines))
        self._draw()

    def error(self, error: ChatchainError) -> None:
        """Says what failed."""
        if self.terminal:
            self.show([clean_line(line) for line in (error.message, error.hint) if line])
        else:
            self._output.error(error)

    def remark(self, text: str) -> None:
        """Says something before the line that is typed, until it is said to be over by an empty text."""
        if self.terminal and text != self._remark:
            self._remark = text
            self._draw()

    def _draw(self) -> None:
        prompt = f"({clean_line(self._remark)}) {PROMPT}" if self._remark else PROMPT
        room = max(shutil.get_terminal_size().columns - render.width(prompt) - 1, 8)
        shown = clean_line(self._editor.text)
        while render.width(shown) > room:
            shown = shown[1:]
        sys.stdout.write(f"\r\x1b[K{prompt}{shown}")
        sys.stdout.flush()

    async def typed(self) -> AsyncIterator[str]:
        """The lines that the person types, until the end of input."""
        if not self.terminal:
            with suppress(EOFError):
                while True:
                    yield await self._console.line_soon("")
            return
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[bytes] = asyncio.Queue()
        descriptor = sys.stdin.fileno()
        with _by_character(descriptor):
            loop.add_reader(descriptor, lambda: arrived.put_nowait(_read(descriptor)))
            try:
                self._draw()
                while not self._editor.ended:
                    data = await arrived.get()
                    if not data:
                        break
                    for line in self._editor.feed(data):
                        sys.stdout.write("\r\x1b[K")
                        yield line
                    self._draw()
                    self.on_typing(self._editor.text)
            finally:
                loop.remove_reader(descriptor)
                sys.stdout.write("\r\x1b[K")
                sys.stdout.flush()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # the terminal was closed
        return b""


@contextmanager
def _by_character(descriptor: int) -> Iterator[None]:
    """Gives each key at once and echoes none; Ctrl-C still interrupts."""
    before = termios.tcgetattr(descriptor)
    now = termios.tcgetattr(descriptor)
    now[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(descriptor, termios.TCSADRAIN, now)
    try:
        yield
    finally:
        with suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


async def talk(client: Client, peer: str, here: Desk) -> None:
    """Shows the last messages, then what comes in while the person types, until /quit or the end of input."""
    output = here.output
    earlier = await client.history(peer, limit=EARLIER)
    screen = Screen(here.console, output)
    if not output.json:
        lines = await pictures.messages(client, earlier, output) if earlier else []
        output.lines([*lines, f"Talking with {clean_line(peer)}. {QUIT} leaves, /help says what else."])
    signs = _Signs(client, peer)
    screen.on_typing = signs.typed
    incoming = asyncio.create_task(_show_incoming(client, screen, here))
    typing = asyncio.create_task(_send_typed(client, peer, screen, output))
    try:
        done, _ = await asyncio.wait({incoming, typing}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (incoming, typing):
            task.cancel()
        await asyncio.gather(incoming, typing, return_exceptions=True)
        await signs.over()


class _Signs:
    """Tells the other side that a text is being typed: now and then, and never what."""

    def __init__(self, client: Client, peer: str) -> None:
        self._client = client
        self._peer = peer
        self._told: float | None = None
        self._task: asyncio.Task[None] | None = None

    def typed(self, text: str) -> None:
        """Looks at the line after a key was pressed; a command is nobody else's business."""
        now = asyncio.get_running_loop().time()
        if not text:
            if self._told is not None:
                self._told = None
                self._tell(started=False)
        elif not text.startswith(COMMAND) and (self._told is None or now - self._told >= TYPING_EVERY_S):
            self._told = now
            self._tell(started=True)

    def _tell(self, *, started: bool) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._quietly(started=started))

    async def _quietly(self, *, started: bool) -> None:
        with suppress(ChatchainError):
            # At the beginning the session is still being made.
            while not await self._client.typing(self._peer, started=started):  # noqa: ASYNC110
                await asyncio.sleep(CONNECTING_S)

    async def over(self) -> None:
        """Waits for nothing any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


async def _show_incoming(client: Client, screen: Screen, here: Desk) -> None:
    """What others wrote meanwhile is shown too, with their names: it counts as seen now."""
    output = here.output
    clear: asyncio.TimerHandle | None = None

    def told(reason: ChatchainError | None) -> None:
        if clear is not None:
            clear.cancel()
        if screen.terminal:
            screen.remark("" if reason is None else OFFLINE)
        else:
            output.note(outage(reason))

    def alarm(pending: PendingRecovery) -> None:
        if not screen.terminal:
            here.alarm(pending)
        elif lines := here.news(pending):
            screen.show(lines)

    async for view in client.receive(follow=True, typing=screen.terminal, outage=told, alarm=alarm):
        if clear is not None:
            clear.cancel()
        if view.kind != "typing":
            screen.remark("")
            await _show(client, view, screen, output)
        elif view.state == "started":
            screen.remark(f"{view.from_} is typing")
            clear = asyncio.get_running_loop().call_later(TYPING_SHOWN_S, screen.remark, "")
        else:
            screen.remark("")


async def _show(client: Client, view: Shown, screen: Screen, output: Output) -> None:
    if output.json:
        output.object(message_object(view, stored=False))
    else:
        screen.show(await pictures.message(client, view, output))


async def _send_typed(client: Client, peer: str, screen: Screen, output: Output) -> None:
    async for line in screen.typed():
        word = line.strip()
        if word == QUIT:
            return
        try:
            if word == "/help":
                screen.show(_help())
            elif word.startswith(COMMAND) and not word.startswith(2 * COMMAND):
                await _command(client, peer, word, screen, output)
            elif word:
                text = line.replace(2 * COMMAND, COMMAND, 1) if word.startswith(COMMAND) else line
                await _say(client.send(peer, text), text, screen, output)
        except ChatchainError as error:
            # One message that did not go is no reason to hang up.
            screen.error(error)


async def _say(stream: AsyncIterator[Sent], said: str, screen: Screen, output: Output) -> None:
    async for view in stream:
        if output.json:
            output.result(view, render.sent)
        elif view.error is None:
            screen.show([f"you [{view.state}]: {clean_line(said)}"])


async def _command(client: Client, peer: str, line: str, screen: Screen, output: Output) -> None:
    """Does what a line with a slash asks for; raises what is wrong with it."""
    word, _, rest = line.partition(" ")
    rest = rest.strip()
    match word:
        case "/reply" if rest:
            target = await _last(client, peer, mine=False)
            await _say(client.reply(target.id, rest), rest, screen, output)
        case "/react":
            target = await _last(client, peer, mine=False)
            await _say(client.react(target.id, rest), rest or "reaction taken away", screen, output)
        case "/edit" if rest:
            target = await _last(client, peer, mine=True)
            await _say(client.edit(target.id, rest), f"{rest} (edited)", screen, output)
        case "/delete" if not rest or _counts(rest):
            target = await _to_delete(client, peer, int(rest or 1))
            await _say(client.delete(target.id), f"(deleted) {_named(target)}", screen, output)
        case "/file" if rest:
            path, caption = path_and_rest(rest)
            said = f"(file {path.name}) {caption}".rstrip()
            await _say(client.send_file(peer, path, caption), said, screen, output)
        case "/get":
            target = await _last(client, peer, mine=False, kinds=("file",))
            fetched = await client.fetch_file(target.id, typed_path(rest) if rest else None)
            _result(fetched, render.fetched, screen, output)
        case "/search" if rest:
            await _search(client, peer, rest, screen, output)
        case "/timer" if rest:
            await _change(client, peer, screen, output, expires=timer_seconds(rest))
        case "/record" if rest in ("on", "off"):
            await _change(client, peer, screen, output, off_the_record=rest == "off")
        case _ if word in COMMANDS:
            raise UsageError(
                f"{_usage(word)} {COMMANDS[word][1]}.", "That is how it is used; nothing was sent."
            )
        case _:
            # A slip of the finger in a command must not reach the other side.
            raise UsageError(
                "Unknown command.", f"/help lists them, {QUIT} leaves, {2 * COMMAND} sends a slash."
            )


def _usage(word: str) -> str:
    return f"{word} {COMMANDS[word][0]}".rstrip()


def _help() -> list[str]:
    """Every command, and how to begin a text with a slash."""
    wide = max(len(_usage(word)) for word in COMMANDS)
    lines = [f"{_usage(word):<{wide}}  {does}" for word, (_, does) in COMMANDS.items()]
    return [*lines, f"{2 * COMMAND:<{wide}}  at the beginning of a text sends a slash"]


async def _search(client: Client, peer: str, words: str, screen: Screen, output: Output) -> None:
    """Shows the newest messages of this conversation that hold every word."""
    views = await client.search(words, limit=FOUND, peer=peer)
    if output.json:
        for view in reversed(views):
            output.object(message_object(view, stored=True))
    else:
        found = await pictures.messages(client, views[::-1], output)
        screen.show(found if views else [f"Nothing here holds {clean_line(words)}."])


async def _change(
    client: Client,
    peer: str,
    screen: Screen,
    output: Output,
    *,
    expires: int | None = None,
    off_the_record: bool | None = None,
) -> None:
    """Changes a setting, shows how things stand, and then what is in the way of telling the other side."""
    view, obstacle = await change_settings(client, peer, expires, off_the_record)
    _result(view, render.chat_settings, screen, output)
    if obstacle is not None and not output.json:  # a program has it in the object
        raise obstacle


def _result(view: ViewT, text: Callable[[ViewT], Sequence[str]], screen: Screen, output: Output) -> None:
    if output.json:
        output.result(view, text)
    else:
        screen.show(text(view))


async def _last(client: Client, peer: str, *, mine: bool, kinds: Collection[str] = ("text", "file")) -> Shown:
    """The last message of one side that is still there; raises UnknownMessage."""
    for view in reversed(await client.history(peer, limit=LOOKED_BACK)):
        if view.kind in kinds and not view.deleted and (view.direction == "out") == mine:
            return view
    what = "message" if "text" in kinds else "file"
    raise UnknownMessage(
        f"Among the last {LOOKED_BACK} messages there is no {what} of "
        f"{'yours' if mine else 'the other side'} to do that with.",
        "`chatchain history PEER --ids` shows the ids; reply, react, edit, delete and file get take them.",
    )


def _counts(word: str) -> bool:
    """Whether this is the number of a message from the end."""
    return word.isascii() and word.isdecimal() and len(word) < 4 and int(word) > 0


async def _to_delete(client: Client, peer: str, number: int) -> Shown:
    """The own message at this place from the end; those deleted keep theirs, so that asking twice does not
    take the one before. Raises UsageError for one that is deleted, UnknownMessage when there is none.
    """
    views = await client.history(peer, limit=LOOKED_BACK)
    mine = [view for view in reversed(views) if view.kind in ("text", "file") and view.direction == "out"]
    if number > len(mine):
        few = "is none" if not mine else f"are only {len(mine)}"
        raise UnknownMessage(
            f"Among the last {LOOKED_BACK} messages there {few} of yours to do that with.",
            "`chatchain history PEER --ids` shows the ids; `chatchain delete ID` takes one.",
        )
    if not mine[number - 1].deleted:
        return mine[number - 1]
    left = next(((at, view) for at, view in enumerate(mine, 1) if at > number and not view.deleted), None)
    raise UsageError(
        "Your last message is deleted already." if number == 1 else "That message is deleted already.",
        f"/delete {left[0]} takes back this one: {_named(left[1])}"
        if left is not None
        else "`chatchain history PEER --ids` shows the ids; `chatchain delete ID` takes one.",
    )


def _named(view: Shown) -> str:
    """A message by its file's name, or by how its text begins."""
    if view.attachment is not None:
        return f"file {clean_line(view.attachment.name)}"
    text = clean_line(view.text or "")
    return text if len(text) <= NAMED else f"{text[:NAMED]}…"
