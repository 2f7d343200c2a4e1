"""NATS, through which several relay processes of one operator wake each other.

What travels says only "look"; the database says what there is to see. So it may be lost, repeated or made
up: the relays look by themselves every so often, and a message too many costs a look. Nothing waits for NATS,
nothing is kept for it, and while it is away what would be said is left unsaid. Who may speak and listen there
is decided by the server that the URL names: credentials in the URL, TLS with `tls://`. Such a server must
show a certificate that an authority of the system, or the given one, vouches for.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error

from chatchain.errors import BadConfig

MOST: Final = 32 * 1024
"""Bytes of a message; a longer one is not ours."""

_RETRY: Final = 1
_CONNECT: Final = 3
_SILENT: Final = 60.0
"""Seconds before the same complaint is made again: a flood of messages must not become one of the log."""

_PING: Final = 5
"""Seconds between two questions to the server whether it is there; it is given up after two."""


class NoTls(Error):
    """The server offers no TLS, and the URL asks for it."""


class _Guarded(Client):
    """Gives no credentials away where TLS was asked for and the server does not offer it.

    A server says in the clear whether it wants TLS, and the library believes it whatever the URL says: who
    stands between would only have to leave that out to be told the password.
    """

    def _connect_command(self) -> bytes:
        assert self._current_server is not None
        if self._current_server.uri.scheme == "tls" and not self._server_info.get("tls_required"):
            raise NoTls
        return super()._connect_command()


class Bus:
    """One subject of a NATS server, with whatever connection there is at the moment."""

    def __init__(
        self, url: str, subject: str, told: Callable[[str], None], *, authority: Path | None = None
    ) -> None:
        """`told` hears what goes wrong. `authority` is the certificate (PEM) that vouches for a server at
        `tls://`, instead of the system's. Raises BadConfig.
        """
        self._url = url
        self._context = _context(authority) if urlsplit(url).scheme == "tls" else None
        self._subject = subject
        self._told = told
        self._client: _Guarded | None = None
        self._task: asyncio.Task[None] | None = None
        self._complained: dict[str, float] = {}

    @property
    def connected(self) -> bool:
        """Whether what is said now is likely to be heard."""
        return self._client is not None and self._client.is_connected

    def start(self, heard: Callable[[bytes], None]) -> None:
        """Begins to connect, for as long as it takes; `heard` gets what others say, on the loop."""
        self._task = asyncio.create_task(self._connect(heard))

    async def say(self, message: bytes) -> None:
        """Says something to all others, if they can be reached right now."""
        client = self._client
        if client is None or not client.is_connected:
            return
        with contextlib.suppress(Error, OSError):
            await client.publish(self._subject, message)

    async def close(self) -> None:
        """Hangs up."""
        if self._task is not None:
            self._task.cancel()
        if self._client is None:  # one that was never told to connect cannot be closed
            return
        with contextlib.suppress(Error, OSError, TimeoutError):
            async with asyncio.timeout(_CONNECT):
                await self._client.close()

    async def _connect(self, heard: Callable[[bytes], None]) -> None:
        async def note(error: Exception) -> None:
            self._complain(error)

        async def hear(message: Msg) -> None:
            if len(message.data) <= MOST:
                heard(message.data)

        while True:
            closed = asyncio.Event()

            async def end(closed: asyncio.Event = closed) -> None:
                closed.set()

            client = self._client = _Guarded()
            try:
                await client.connect(
                    self._url,
                    tls=self._context,
                    name="chatchain relay",
                    no_echo=True,
                    connect_timeout=_CONNECT,
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=_RETRY,
                    ping_interval=_PING,
                    max_outstanding_pings=2,
                    pending_size=256 * 1024,
                    error_cb=note,
                    closed_cb=end,
                )
                # What comes faster than it is heard is dropped: the next message says the same.
                await client.subscribe(
                    self._subject, cb=hear, pending_msgs_limit=256, pending_bytes_limit=256 * MOST
                )
            except (Error, OSError, TimeoutError) as error:
                self._complain(error)
                with contextlib.suppress(Error, OSError):
                    await client.close()
            else:
                await closed.wait()  # it reconnects by itself until a server refuses it
            self._client = None
            await asyncio.sleep(_RETRY)

    def _complain(self, error: Exception) -> None:
        # Only its kind: its words may hold the URL, and so a password.
        kind, now = type(error).__name__, asyncio.get_running_loop().time()
        if isinstance(error, ssl.SSLCertVerificationError):
            kind += f": {error.verify_message}"
        if now >= self._complained.get(kind, now):
            self._complained[kind] = now + _SILENT
            self._told(kind)


def _context(authority: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=authority)
    except OSError as error:  # ssl.SSLError is one
        raise BadConfig(
            f"The authority of the NATS server, {authority}, cannot be read.",
            "--nats-ca (NATS_CA) is a certificate in PEM.",
        ) from error
