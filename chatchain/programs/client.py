"""The client's wiring: settings, the edges of the core, and the interface on top.

Everything heavy is imported when it is first used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from chatchain.client.core import Client
    from chatchain.client.ports import (
        ChainView,
        ChainWriter,
        Edges,
        Link,
        LogStore,
        NetworkSettings,
        Store,
    )
    from chatchain.model import Network, RelayAddress
    from chatchain.ui.world import Settings

STOPPED = 130


def edges() -> Edges:
    """The outside worlds of a client core; each is imported when it is first used."""
    from chatchain.chain.calls import Calls
    from chatchain.client.ports import Edges

    return Edges(open_store=_open_store, chain=_chain, writer=_writer, calls=Calls(), dial=_dial)


def _open_store(path: Path, key: bytes) -> Store:
    from chatchain.store.local import LocalStore

    return LocalStore(path, key)


def _chain(settings: NetworkSettings, store: LogStore | None) -> ChainView:
    from chatchain.chain.rpc import Endpoints
    from chatchain.chain.sync import MemoryLogStore
    from chatchain.chain.view import ChainView

    return ChainView(
        Endpoints(settings.endpoints),
        settings.directory,
        MemoryLogStore() if store is None else store,
        chain_id=settings.chain_id or None,
    )


def _writer(settings: NetworkSettings, network: Network) -> ChainWriter:
    from chatchain.chain.rpc import Endpoints
    from chatchain.chain.writer import ChainWriter

    return ChainWriter(Endpoints(settings.endpoints), network)


async def _dial(relays: Sequence[RelayAddress]) -> Link:
    from chatchain.transport import dial

    return await dial(relays)


def connect(
    home: Path,
    settings: Settings,
    *,
    password: str | None = None,
    ask_password: Callable[[], str] | None = None,
) -> Client:
    """The client of one home."""
    from chatchain.client.core import Client

    return Client(
        home,
        edges(),
        endpoints=settings.rpc,
        directory=settings.directory or "",
        password=password,
        ask_password=ask_password,
    )


def configure(flags: Mapping[str, object]) -> Settings:
    """The client's settings in force."""
    from chatchain.config import load_client

    return load_client(flags)


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and gives its exit code."""
    try:
        from chatchain import __version__
        from chatchain.ui.cli.app import main as run_command
        from chatchain.ui.world import World

        return run_command(arguments, World(__version__, configure, connect, os.environ))
    except KeyboardInterrupt:  # before there was anything to stop, or in the middle of saying so
        return STOPPED


def _open_streams() -> None:
    """Opens what was closed on us: else the first file or socket would pass for stdin or stdout."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - for the process's life


def main() -> NoReturn:
    """Runs `chatchain` with the command line of this process."""
    _open_streams()
    code = run(sys.argv[1:])
    sys.stderr.flush()
    # Threads that still wait for a network or a keyboard have nothing left to do and are not waited for.
    os._exit(code)
