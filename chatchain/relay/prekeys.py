"""Prekeys of suite 2 at the relay: taken in from their device, handed out to who begins a session.

The relay reads no more of a key than its kind, id and expiry, at the places that docs/protocol.md gives, and
believes nothing: whoever gets a bundle checks its signatures against the chain. What a fetch gives is gone
for others, so fetches are what is limited: an adversary who empties the stock of one-time keys takes part of
the forward secrecy of first messages away.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

from chatchain.errors import BadRecord, LimitReached, StoreUnavailable
from chatchain.model import OneTimePrekey, PrekeyBatch, PrekeyDraw, PrekeySort
from chatchain.relay.allowance import Device, Pairs
from chatchain.relay.limits import Rate, milliseconds
from chatchain.relay.ports import PrekeyWriter
from chatchain.wire.messages import FetchPrekeys, Prekeys, PrekeysLeft, PublishPrekeys, Withheld

_SIGNED_HEAD: Final = struct.Struct(">BIQQ")
"""Kind, id, issued and expires: how a signed key begins."""
_ONE_TIME_HEAD: Final = struct.Struct(">I")
_BUNDLE_HEAD: Final = struct.Struct(">BQII")
_BUNDLE_FORMAT: Final = 1
_SIGNED_PREKEY, _ONE_TIME_KEM, _LAST_RESORT_KEM = 1, 2, 3
_MAX_TIME: Final = 2**63 - 1


ONE_TIME_SECONDS: Final = 90 * 24 * 3600
"""Seconds that an X25519 one-time key is handed out, which bears no date of its own."""

AT_ONCE: Final = 8
"""Requests that may be before the writer's thread: a crowd that asks for keys lets messages pass."""


class Bar(NamedTuple):
    """Why nothing is given of somebody's devices, and for how many seconds (0: for ever)."""

    code: str
    seconds: float = 0.0


class PrekeyStock:
    """Serves both requests."""

    def __init__(self, per_pair: Rate, kept: int, look_again: Callable[[], Awaitable[bool]]) -> None:
        """`per_pair` is how often one device may fetch another's prekeys, `kept` how many there are of each
        sort.
        """
        self._kept = kept
        self._look_again = look_again
        self._pairs = Pairs(per_pair)
        self.room = asyncio.Semaphore(AT_ONCE)
        """Before the writer's thread, for whatever has to do with keys."""

    async def publish(
        self, writer: PrekeyWriter, uid: int, device: int, request: PublishPrekeys, now: int
    ) -> PrekeysLeft:
        """Takes in what the logged-in device publishes for itself; `now` in Unix seconds.

        Raises BadRecord for misplaced keys, and unless the version is that of the device's record on the
        chain, at which the relay looks once more before it says so.
        """
        batch = read_batch(request, now + ONE_TIME_SECONDS)

        async def attempt() -> tuple[int, int] | None:
            async with self.room:
                future = writer.publish_prekeys(uid, device, batch, kept=self._kept, now=now)
                return await asyncio.wrap_future(future)

        left = await attempt()
        if left is None and await self._look_again():
            left = await attempt()
        if left is None:
            raise BadRecord("The prekeys are not for the version of this device that the chain holds.")
        return PrekeysLeft(request.ref, *left)

    async def fetch(
        self,
        writer: PrekeyWriter,
        asking: Device,
        request: FetchPrekeys,
        barred: Mapping[int, Bar],
        now: int,
        monotonic: float,
    ) -> Prekeys:
        """Gives a device what it asked for: of nobody, and of who has published nothing, no bundle.

        Nothing is given of the devices of those users who are `barred`, nor of those for which this device
        has to wait: the answer says so of each, and the others' are given.
        """
        wanted = [other for other in request.devices if other[0] not in barred]
        waits = self._pairs.take(asking, wanted, monotonic)
        wanted = [other for other in wanted if other not in waits]
        draws: list[PrekeyDraw] = []
        if wanted:
            try:
                async with self.room:
                    draws = await asyncio.wrap_future(writer.take_prekeys(wanted, now))
            except StoreUnavailable:
                self._pairs.give_back(asking, wanted)
                raise
        # Of these nothing went, and who is not there must not use up anybody's room.
        self._pairs.give_back(asking, set(wanted) - {(draw.uid, draw.device) for draw in draws})
        withheld = (
            _withheld(other, barred.get(other[0]) or Bar(LimitReached.code, waits[other]))
            for other in request.devices
            if other[0] in barred or other in waits
        )
        return Prekeys(request.ref, tuple(map(bundle, draws)), tuple(withheld))


def read_batch(request: PublishPrekeys, one_time_expires: int) -> PrekeyBatch:
    """Reads kinds, ids and expiries out of a publication; raises BadRecord for a key out of place."""
    if not request.signed:
        return PrekeyBatch(request.version, b"", b"", 0, ())
    _, signed_expires = _head(request.signed, _SIGNED_PREKEY)
    _, kem_expires = _head(request.kem, _LAST_RESORT_KEM)
    one_time = []
    for key in request.one_time:
        (id_,) = _ONE_TIME_HEAD.unpack_from(key)
        one_time.append(OneTimePrekey(PrekeySort.X25519, id_, one_time_expires, key))
    for key in request.kem_one_time:
        id_, expires = _head(key, _ONE_TIME_KEM)
        one_time.append(OneTimePrekey(PrekeySort.KEM, id_, expires, key))
    if not all(each.id for each in one_time):
        raise BadRecord("A one-time prekey has the id that stands for none.")
    return PrekeyBatch(
        request.version, request.signed, request.kem, min(signed_expires, kem_expires), tuple(one_time)
    )


def bundle(draw: PrekeyDraw) -> bytes:
    """The bytes of a prekey bundle; the keys stand in them as they were published."""
    head = _BUNDLE_HEAD.pack(_BUNDLE_FORMAT, draw.uid, draw.device, draw.version)
    return head + draw.signed + draw.kem + draw.one_time


def _head(key: bytes, kind: int) -> tuple[int, int]:
    """Id and expiry of a signed key of this kind; raises BadRecord."""
    found, id_, _, expires = _SIGNED_HEAD.unpack_from(key)
    if found != kind:
        raise BadRecord("A prekey was published in the place of another kind.")
    return id_, min(expires, _MAX_TIME)


def _withheld(device: Device, bar: Bar) -> Withheld:
    return Withheld(*device, bar.code, milliseconds(bar.seconds) if bar.seconds else 0)
