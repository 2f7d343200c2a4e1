"""A relay for files alone: real TLS, a real folder, a real table; whoever says a uid is believed.

What the whole relay adds (the login, the chain) is tested with the whole relay; here limits are small, and a
test sees what the server holds.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Coroutine
from pathlib import Path

import structlog

from chatchain.errors import ProtocolViolation
from chatchain.model import RelayAddress
from chatchain.relay import ports
from chatchain.relay.allowance import Allowance
from chatchain.relay.berths import MOVING_BYTES
from chatchain.relay.blobs import BlobLimits
from chatchain.relay.files import Files, FileSession
from chatchain.relay.metrics import Metrics
from chatchain.store.blobs import BlobFolder
from chatchain.store.server import ServerStore
from chatchain.transport import Listener, Peer, RelayLink, dial, server_context
from chatchain.wire.messages import (
    PROTOCOL_VERSION,
    Challenge,
    EnterFiles,
    FilesOpen,
    Message,
    Piece,
    Upload,
    Uploading,
)
from deploy.certificates import Pair


class FileServer:
    """Satisfies `transport.Handler`."""

    def __init__(
        self,
        pair: Pair,
        database: str,
        folder: str,
        limits: BlobLimits | None = None,
        *,
        moving: int = MOVING_BYTES,
    ) -> None:
        self.spki = pair.spki
        self.store = ServerStore(database)
        self.store.migrate()
        self.parts = BlobFolder(folder)
        self.members = True
        self.late_ms = 0
        """By how much the time for deleting is behind the clock."""
        self.peers: list[Peer] = []
        self.bugs: list[BaseException] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.metrics = Metrics()
        self.files = Files(
            self.parts,
            self.store.blobs,
            limits=limits or BlobLimits(),
            requests=Allowance().file_requests,
            moving=moving,
            log=structlog.get_logger(),
            metrics=self.metrics,
            admits=self._admits,
            hold=self._hold,
            spawn=self._spawn,
            deleting_ms=lambda: time.time_ns() // 1_000_000 - self.late_ms,
        )
        self.listener = Listener(self, server_context(str(pair.certificate), str(pair.key)))
        self.port = 0

    async def start(self) -> FileServer:
        self.port = await self.listener.start("127.0.0.1", 0)
        return self

    async def stop(self) -> None:
        self.listener.stop()
        for peer in self.peers:
            peer.abort()
        self.files.stop()
        await asyncio.sleep(0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.store.close()
        assert not self.bugs

    def relays(self) -> tuple[RelayAddress, ...]:
        return (RelayAddress(f"127.0.0.1:{self.port}", self.spki, bytes(32)),)

    # --- transport.Handler ---

    async def _admits(self, _: int) -> bool:
        return self.members

    def opened(self, peer: Peer) -> None:
        self.peers.append(peer)
        peer.send(Challenge(PROTOCOL_VERSION, bytes(32), 31337, bytes(20), 0))

    def received(self, peer: Peer, message: Message) -> None:
        if isinstance(message, EnterFiles):
            peer.logged_in()
            peer.session = self.files.enter(peer, message.uid, message.device, message.epoch)
        elif isinstance(peer.session, FileSession):
            self.files.received(peer.session, message)

    def submitted(self, peer: Peer, inbox: deque[Message]) -> None:
        raise AssertionError("a connection for files carries no messages")

    def violated(self, peer: Peer, violation: ProtocolViolation) -> None:
        pass

    def writable(self, peer: Peer) -> None:
        if isinstance(peer.session, FileSession):
            self.files.writable(peer.session)

    def closed(self, peer: Peer) -> None:
        if isinstance(peer.session, FileSession):
            self.files.closed(peer.session)
        peer.session = None

    # --- what the relay does for Files ---

    def _hold(self, peer: ports.Peer, work: Coroutine[None, None, None]) -> None:
        peer.hold()

        async def held() -> None:
            try:
                await work
            finally:
                peer.release()

        self._spawn(held())

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (bug := task.exception()) is not None:
            self.bugs.append(bug)


class Mover:
    """A connection for files that speaks the protocol word by word."""

    def __init__(self, link: RelayLink) -> None:
        self.link = link
        self.ref = 0

    async def say(self, message: Message) -> None:
        await self.link.send(message)  # type: ignore[arg-type]  # tests say what a client should not, too

    async def next(self) -> Message:
        async with asyncio.timeout(60):
            return await self.link.receive()

    async def announce(self, blob: bytes, size: int) -> Message:
        self.ref += 1
        await self.say(Upload(self.ref, blob, size))
        return await self.next()

    async def pieces(self, data: bytes, step: int = 100_000) -> None:
        for at in range(0, len(data), step):
            await self.say(Piece(self.ref, data[at : at + step]))

    async def upload(self, data: bytes) -> Message:
        """All that the relay does not have; gives its verdict."""
        answer = await self.announce(hashlib.sha256(data).digest(), len(data))
        if isinstance(answer, Uploading):
            await self.pieces(data[answer.offset :])
            answer = await self.next()
        return answer

    async def close(self) -> None:
        await self.link.close()


async def enter(server: FileServer, uid: int = 1, device: int = 1) -> Mover:
    """A connection of this user."""
    mover = Mover(await dial(server.relays()))
    await mover.say(EnterFiles(uid, device, 0, b"", bytes(65), bytes(65)))
    answer = await mover.next()
    assert isinstance(answer, FilesOpen), answer
    return mover


async def until(holds: Callable[[], bool]) -> None:
    """Waits for something that is about to happen."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def some(size: int) -> bytes:
    """A blob that nobody has seen before."""
    return os.urandom(size)


def parts_on_disk(folder: Path) -> int:
    """How many whole parts lie in a folder of files."""
    return sum("#" not in name for _, _, names in os.walk(folder) for name in names)
