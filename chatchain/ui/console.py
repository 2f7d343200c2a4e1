"""The person at the terminal: lines and passwords, read only when somebody asks.

Reading happens on the file descriptor, one line at a time, in a thread that nothing waits for at the end: a
program that is done, or was stopped, must not hang on a person who types nothing. A pipe works as well as a
terminal.
"""

from __future__ import annotations

import os
import signal
import sys
import termios
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from chatchain.errors import BadText, MissingInput

if TYPE_CHECKING:
    import asyncio

MAX_LINE: Final = 256 * 1024
"""Bytes of one typed line that are read; a message is shorter."""
_CHUNK: Final = 64 * 1024

TerminalSettings = list[Any]
"""What termios gives and takes: six numbers and a list of control characters."""


class Console:
    """Asks a person, on stdin; prompts go to stderr when a program reads stdout."""

    def __init__(self, *, no_input: bool, quiet_stdout: bool, descriptor: int = 0) -> None:
        self._no_input = no_input
        self._descriptor = descriptor
        self._prompts = sys.stderr if quiet_stdout else sys.stdout
        self._rest = b""
        self._ended = False
        self._pending: Future[str] | None = None
        self._saved: tuple[int, TerminalSettings] | None = None

    @property
    def terminal(self) -> bool:
        """Whether a person can be asked here: stdin and the place of the prompts are a terminal."""
        return not self._no_input and _is_tty(self._descriptor) and self._prompts.isatty()

    # --- lines --------------------------------------------------------------------------------------------

    def line(self, prompt: str) -> str:
        """The next line without its end; raises EOFError when there is none."""
        self._prompt(prompt)
        with _interruptible():
            return self._next().result() if self._pending else self._read_line()

    async def line_soon(self, prompt: str) -> str:
        """The next line, while the rest of the program goes on."""
        import asyncio

        self._prompt(prompt)
        if self._pending is None:
            self._pending = self._next()
        pending = self._pending
        try:
            return await asyncio.shield(asyncio.wrap_future(pending))
        finally:
            if pending.done():
                self._pending = None

    def _next(self) -> Future[str]:
        future: Future[str] = self._pending or Future()
        if self._pending is None:
            threading.Thread(target=self._deliver, args=(future,), daemon=True, name="console").start()
        return future

    def _deliver(self, future: Future[str]) -> None:
        try:
            line = self._read_line()
        except BaseException as failure:  # it is raised again where the line is awaited
            future.set_exception(failure)
        else:
            future.set_result(line)

    def _read_line(self) -> str:
        while b"\n" not in self._rest and not self._ended and len(self._rest) <= MAX_LINE:
            chunk = os.read(self._descriptor, _CHUNK)
            self._ended = not chunk
            self._rest += chunk
        if not self._rest:
            raise EOFError
        line, _, self._rest = self._rest.partition(b"\n")
        if len(line) > MAX_LINE:
            raise BadText("That line is too long to be read.")
        try:
            return line.decode().removesuffix("\r")
        except UnicodeDecodeError:
            raise BadText("That line is not text in UTF-8.") from None

    def _prompt(self, prompt: str) -> None:
        self._prompts.write(prompt)
        self._prompts.flush()

    # --- secrets ------------------------------------------------------------------------------------------

    def secret(self, prompt: str, missing: str, option: str = "--password-file") -> str:
        """A line that is not shown. Without one, raises MissingInput with the sentence `missing` and the
        `option` that names a file with it.

        A terminal is asked even when stdin is a pipe (the text to send): the one that controls this process.
        """
        if self._no_input:
            raise _nobody(missing, option)
        if _is_tty(self._descriptor):
            with self._hidden(self._descriptor):
                return self._answer(prompt, missing, option)
        if not sys.stderr.isatty():
            raise _nobody(missing, option)
        try:
            terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            raise _nobody(missing, option) from None
        try:
            other = Console(no_input=False, quiet_stdout=True, descriptor=terminal)
            with other._hidden(terminal):
                return other._answer(prompt, missing, option)
        finally:
            os.close(terminal)

    async def secret_soon(self, prompt: str) -> str:
        """A line that a terminal does not show, while the rest goes on; from a pipe just the next line."""
        if not _is_tty(self._descriptor):
            return await self.line_soon(prompt)
        with self._hidden(self._descriptor):
            try:
                return await self.line_soon(prompt)
            finally:
                self._prompt("\n")

    def _answer(self, prompt: str, missing: str, option: str) -> str:
        try:
            return self.line(prompt)
        except EOFError:
            raise MissingInput(
                missing, f"Nothing was typed. Try again, or give it with {option} FILE."
            ) from None
        finally:
            self._prompt("\n")

    @contextmanager
    def _hidden(self, descriptor: int) -> Iterator[None]:
        settings = termios.tcgetattr(descriptor)
        self._saved = (descriptor, settings)
        quiet = termios.tcgetattr(descriptor)
        quiet[3] &= ~termios.ECHO
        # What was typed ahead is kept (DRAIN, not FLUSH): a script at the terminal may be faster than the
        # prompt.
        termios.tcsetattr(descriptor, termios.TCSADRAIN, quiet)
        try:
            yield
        finally:
            self.restore()

    def restore(self) -> None:
        """Gives the terminal its echo back; may be called twice, and from a program that is being stopped."""
        if self._saved is not None:
            descriptor, settings = self._saved
            self._saved = None
            with suppress(termios.error):
                termios.tcsetattr(descriptor, termios.TCSADRAIN, settings)

    # --- a stream of text ---------------------------------------------------------------------------------

    def read_all(self, limit: int) -> bytes:
        """Everything up to the end, but never more than `limit` bytes and one."""
        parts = self._rest
        self._rest = b""
        with _interruptible():
            while len(parts) <= limit and (chunk := os.read(self._descriptor, _CHUNK)):
                parts += chunk
        return parts[: limit + 1]

    async def chunks(self) -> asyncio.Queue[bytes | None]:
        """What comes in, as it comes, in a queue that ends with None, a few chunks ahead at most."""
        import asyncio

        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(4)

        def pump() -> None:
            with suppress(RuntimeError, CancelledError):  # the loop ends or is gone: nobody wants the rest
                while chunk := os.read(self._descriptor, _CHUNK):
                    asyncio.run_coroutine_threadsafe(queue.put(chunk), loop).result()
                asyncio.run_coroutine_threadsafe(queue.put(None), loop).result()

        threading.Thread(target=pump, daemon=True, name="stdin").start()
        return queue


def _nobody(sentence: str, option: str) -> MissingInput:
    return MissingInput(
        sentence, f"There is nobody to ask: no terminal, or --no-input. Give it with {option} FILE."
    )


def _is_tty(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


@contextmanager
def _interruptible() -> Iterator[None]:
    """Lets Ctrl-C end a read at once: asyncio's own handler only notes it and the read would go on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
