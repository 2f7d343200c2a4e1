"""Talking with somebody: what comes in is printed above the line that is being typed."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import termios
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from chatchain.errors import ChatchainError, UsageError
from chatchain.ui import render
from chatchain.ui.clean import clean_line
from chatchain.ui.editor import LineEditor
from chatchain.ui.output import message_object

if TYPE_CHECKING:
    from chatchain.client.core import Client
    from chatchain.client.views import Shown
    from chatchain.ui.console import Console
    from chatchain.ui.output import Output

COMMAND: Final = "/"
"""What a command begins with; two of them are a text that begins with one."""
QUIT: Final = "/quit"
EARLIER: Final = 10
"""How many earlier messages are shown at the start."""
PROMPT: Final = "> "


class Screen:
    """The lines above and the one being typed below, on a terminal; or plain lines where there is none."""

    def __init__(self, console: Console, output: Output) -> None:
        self._console = console
        self._output = output
        self.terminal = console.terminal and not output.json
        self._editor = LineEditor()

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

    def _draw(self) -> None:
        room = max(shutil.get_terminal_size().columns - len(PROMPT) - 1, 8)
        shown = clean_line(self._editor.text)
        while render.width(shown) > room:
            shown = shown[1:]
        sys.stdout.write(f"\r\x1b[K{PROMPT}{shown}")
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


async def talk(client: Client, peer: str, console: Console, output: Output) -> None:
    """Shows the last messages, then what comes in while the person types, until /quit or the end of input."""
    earlier = await client.history(peer, limit=EARLIER)
    screen = Screen(console, output)
    if not output.json:
        lines = [line for view in earlier for line in render.message(view)]
        output.lines([*lines, f"Talking with {clean_line(peer)}. {QUIT} leaves."])
    incoming = asyncio.create_task(_show_incoming(client, screen, output))
    typing = asyncio.create_task(_send_typed(client, peer, screen, output))
    try:
        done, _ = await asyncio.wait({incoming, typing}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (incoming, typing):
            task.cancel()
        await asyncio.gather(incoming, typing, return_exceptions=True)


async def _show_incoming(client: Client, screen: Screen, output: Output) -> None:
    """What others wrote meanwhile is shown too, with their names: it counts as seen now."""
    async for view in client.receive(follow=True):
        _show(view, screen, output)


def _show(view: Shown, screen: Screen, output: Output) -> None:
    if output.json:
        output.object(message_object(view, stored=False))
    else:
        screen.show(render.message(view))


async def _send_typed(client: Client, peer: str, screen: Screen, output: Output) -> None:
    async for line in screen.typed():
        word = line.strip()
        if word == QUIT:
            return
        if word.startswith(COMMAND) and not word.startswith(2 * COMMAND):
            # A slip of the finger in a command must not reach the other side.
            screen.error(UsageError("Unknown command.", f"{QUIT} leaves, {2 * COMMAND} sends a slash."))
        elif word:
            text = line.replace(2 * COMMAND, COMMAND, 1) if word.startswith(COMMAND) else line
            await _send(client, peer, text, screen, output)


async def _send(client: Client, peer: str, line: str, screen: Screen, output: Output) -> None:
    try:
        async for view in client.send(peer, line):
            if output.json:
                output.result(view, render.sent)
            elif view.error is None:
                screen.show([f"you [{view.state}]: {clean_line(line)}"])
    except ChatchainError as error:
        # One message that did not go is no reason to hang up.
        screen.error(error)
