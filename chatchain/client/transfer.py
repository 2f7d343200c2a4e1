"""A connection for files: blobs go up and down on it, and no message waits behind them.

It logs in like the connection for messages and stands beside it; TCP's own flow control is the stream's. What
a relay says and sends is not believed: who fetches counts the bytes here and judges them elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

from chatchain.client.ports import Link
from chatchain.client.session import Credentials, failure, parting
from chatchain.errors import (
    NetworkError,
    ProtocolViolation,
    RefusedError,
    RelayFailure,
    TooLarge,
    VerificationError,
    WrongChain,
)
from chatchain.identity.login import login_proof
from chatchain.model import Network
from chatchain.wire.messages import (
    Discard,
    Done,
    EnterFiles,
    Failed,
    Fetch,
    Fetching,
    FilesOpen,
    Goodbye,
    Piece,
    RelayMessage,
    Stored,
    Upload,
    Uploading,
)

PIECE_BYTES: Final = 128 * 1024
"""How much of an upload travels in one frame."""

ANSWER_S: Final = 60.0
"""How long a relay may take to look into its disk or its bucket."""

TURN_S: Final = 900.0
"""How long it may then make one wait for a turn, while heartbeats show that it lives: who comes anew stands
behind all others, and would never have a turn if giving up sooner than it takes to come.
"""


class Source(Protocol):
    """What a blob is read from: an open file."""

    def seek(self, offset: int, /) -> int:
        """Goes to so many bytes from the start."""

    def read(self, size: int, /) -> bytes:
        """Gives at most `size` bytes, none at the end."""


class Transfer:
    """One such connection; it does one thing at a time, and after an error it is of no more use."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._ref = 0
        self._largest = 0

    async def enter(self, network: Network, who: Credentials) -> None:
        """Proves password and device, over this connection's own nonce; raises LoginRefused and others."""
        challenge = self._link.challenge
        if (challenge.chain_id, challenge.directory) != (network.chain_id, network.directory):
            raise WrongChain("The relay serves another network than the chain that named it.")
        proof = login_proof(
            network,
            spki=self._link.spki,
            nonce=challenge.nonce,
            uid=who.uid,
            device=who.device,
            epoch=who.epoch,
            login_key=who.login_key,
            signer=who.signer,
        )
        await self._link.send(
            EnterFiles(who.uid, who.device, who.epoch, who.kdf, proof.login_signature, proof.device_signature)
        )
        answer = await self._next()
        if not isinstance(answer, FilesOpen) or answer.uid != who.uid:
            raise ProtocolViolation("The relay welcomed somebody else.")
        self._largest = answer.largest

    async def close(self) -> None:
        """Ends the connection; never raises."""
        await self._link.close()

    async def upload(
        self, blob: bytes, size: int, source: Source, on_progress: Callable[[int], None] = lambda _: None
    ) -> int:
        """Sends a blob from where an earlier attempt came to; gives the time in ms until which it is kept.

        `on_progress` is told how many bytes are on their way. The relay has it on its disk when this returns.
        """
        if size > self._largest:
            raise TooLarge(
                f"This relay takes files of {self._largest:,} bytes when sealed; this one has {size:,}.",
                "Make it smaller, or send it in parts.",
            )
        self._ref += 1
        await self._link.send(Upload(self._ref, blob, size))
        answer = await self._next()
        if isinstance(answer, Uploading):
            if answer.offset > size:
                raise ProtocolViolation("The relay claims to have more of a file than there is.")
            answer = await self._send_from(answer.offset, size, source, on_progress)
        if not isinstance(answer, Stored):
            raise ProtocolViolation("The relay answered another question than was asked.")
        return answer.expires_ms

    async def _send_from(
        self, offset: int, size: int, source: Source, on_progress: Callable[[int], None]
    ) -> RelayMessage:
        """Sends the rest while listening: a relay that has had enough says so in the middle."""
        verdict = asyncio.ensure_future(self._listen())
        try:
            source.seek(offset)
            while offset < size and not verdict.done():
                piece = source.read(min(PIECE_BYTES, size - offset))
                if not piece:
                    raise RefusedError("A file of this home that waits to be uploaded was cut short.")
                try:
                    await self._link.send(Piece(self._ref, piece))
                except NetworkError:
                    await asyncio.wait([verdict], timeout=1.0)  # its Goodbye is the better reason
                    if not verdict.done():
                        raise
                    break
                offset += len(piece)
                on_progress(offset)
            return await self._within(verdict, TURN_S)
        finally:
            verdict.cancel()
            await asyncio.gather(verdict, return_exceptions=True)

    async def fetch(self, blob: bytes, size: int, offset: int, length: int) -> AsyncIterator[bytes]:
        """Gives so many bytes of a blob that must have this size, as they come."""
        self._ref += 1
        await self._link.send(Fetch(self._ref, blob, offset, length))
        head = await self._next()
        if not isinstance(head, Fetching):
            raise ProtocolViolation("The relay answered another question than was asked.")
        if head.size != size:
            raise VerificationError(
                f"The relay's file has {head.size:,} bytes, the message names one of {size:,}."
            )
        patience = TURN_S
        while length:
            piece = await self._next(patience)
            patience = ANSWER_S
            if not isinstance(piece, Piece):
                raise ProtocolViolation("The relay answered another question than was asked.")
            length -= len(piece.data)
            if length < 0:
                raise ProtocolViolation("The relay sent more of a file than was asked for.")
            yield piece.data

    async def discard(self, blob: bytes) -> None:
        """Has the relay forget a blob of one's own; it need not have it."""
        self._ref += 1
        await self._link.send(Discard(self._ref, blob))
        if not isinstance(await self._next(), Done):
            raise ProtocolViolation("The relay answered another question than was asked.")

    async def _next(self, patience: float | None = None) -> RelayMessage:
        return await self._within(asyncio.ensure_future(self._listen()), patience or ANSWER_S)

    async def _within(self, answer: asyncio.Future[RelayMessage], patience: float) -> RelayMessage:
        try:
            async with asyncio.timeout(patience):
                return await answer
        except TimeoutError as late:
            raise RelayFailure("The relay takes too long with a file.", "Try again in a moment.") from late

    async def _listen(self) -> RelayMessage:
        """The next message about what was asked last; raises what the relay says is in the way."""
        while True:
            message = await self._link.receive()
            match message:
                case Failed(ref, code, sentence, retry):
                    if ref == self._ref:
                        raise failure(code, sentence, retry)
                case Goodbye(code, sentence, retry):
                    raise parting(code, sentence, retry)
                case Uploading(ref) | Stored(ref) | Fetching(ref) | Piece(ref) | Done(ref):
                    if ref != self._ref:
                        raise ProtocolViolation("The relay answered another question than was asked.")
                    return message
                case _:
                    return message
