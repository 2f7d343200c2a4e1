"""Key bundles and prekeys: devices publish their own, and fetch those of others."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Iterable, Sequence
from typing import Final

from chatchain.errors import BadRecord, LimitReached, NotAMember, RefusedError
from chatchain.identity.record import decode_record
from chatchain.model import KeyBundle
from chatchain.relay.allowance import Allowance, Lookups
from chatchain.relay.follower import Follower
from chatchain.relay.limits import Buckets, milliseconds
from chatchain.relay.ports import Reader, Writer
from chatchain.relay.prekeys import Bar, PrekeyStock
from chatchain.relay.sessions import Session
from chatchain.relay.tasks import Threads
from chatchain.relay.users import Users
from chatchain.wire.messages import (
    Done,
    FetchKeys,
    FetchPrekeys,
    Keys,
    Message,
    Prekeys,
    PrekeysLeft,
    PublishKeys,
    PublishPrekeys,
)

KeyRequest = PublishKeys | FetchKeys | PublishPrekeys | FetchPrekeys


DEVICES: Final = 16
"""Devices whose prekeys make one request of those that are limited: as many as a user may have active."""


def weight(request: KeyRequest) -> int:
    """For how many requests one counts."""
    return -(-len(request.devices) // DEVICES) if isinstance(request, FetchPrekeys) else 1


class KeyDesk:
    """Answers the requests for keys of devices that are logged in."""

    _writer: Writer

    def __init__(
        self,
        reader: Reader,
        threads: Threads,
        *,
        users: Users,
        follower: Follower,
        allowance: Allowance,
    ) -> None:
        self._reader = reader
        self._threads = threads
        self._users = users
        self._follower = follower
        self._requests = Buckets(allowance.key_requests)
        self._lookups = Lookups(allowance.lookups)
        self._prekeys = PrekeyStock(allowance.prekeys, allowance.prekeys_kept, follower.look_again)

    def start(self, writer: Writer) -> None:
        """Gives it the writer, before the first request."""
        self._writer = writer

    async def answer(self, session: Session, request: KeyRequest) -> Message:
        """What a request gives; raises ChatchainError."""
        wait = self._requests.take(session.uid, time.monotonic(), weight(request))
        if wait:
            raise LimitReached("Too many requests for keys.", retry_after_ms=milliseconds(wait))
        match request:
            case PublishKeys(ref, bundle):
                return await self._publish(session, ref, bundle)
            case FetchKeys(ref, uids):
                return await self._fetch(session, ref, uids)
            case PublishPrekeys():
                return await self._publish_prekeys(session, request)
            case FetchPrekeys():
                return await self._fetch_prekeys(session, request)

    async def _publish(self, session: Session, ref: int, bundle: KeyBundle) -> Done:
        if (bundle.uid, bundle.device) != (session.uid, session.device):
            raise RefusedError("A device publishes its own keys only.")
        if not await self._fits_chain(bundle):
            await self._follower.look_again()
            if not await self._fits_chain(bundle):
                raise BadRecord("The key bundle does not belong to the record that the chain holds.")
        async with self._prekeys.room:
            await asyncio.wrap_future(self._writer.publish(bundle))
        return Done(ref)

    async def _fits_chain(self, bundle: KeyBundle) -> bool:
        user = await self._users.user(bundle.uid)
        for device in user.active_devices if user is not None else ():
            if device.device == bundle.device:
                hashed = hashlib.sha256(bundle.kem_public).digest()
                record = decode_record(device.current.record)
                return bundle.version == device.current.version and secrets.compare_digest(
                    record.kem_hash, hashed
                )
        return False

    async def _fetch(self, session: Session, ref: int, uids: Sequence[int]) -> Keys:
        strangers = set(uids) - await self._fellows(session.uid, uids)
        wait = self._lookups.take(session.uid, strangers, time.monotonic())
        if wait:
            raise LimitReached("Too many users looked up.", retry_after_ms=milliseconds(wait))
        found = await self._threads.run(lambda: self._reader.bundles(uids))
        active = set()
        for uid in set(uids):
            user = await self._users.user(uid)
            active |= {(uid, device.device) for device in user.active_devices} if user is not None else set()
        return Keys(ref, tuple(bundle for bundle in found if (bundle.uid, bundle.device) in active))

    async def _publish_prekeys(self, session: Session, request: PublishPrekeys) -> PrekeysLeft:
        now = int(time.time())
        return await self._prekeys.publish(self._writer, session.uid, session.device, request, now)

    async def _fetch_prekeys(self, session: Session, request: FetchPrekeys) -> Prekeys:
        uids = list(dict.fromkeys(uid for uid, _ in request.devices))
        await self._follower.admits(session.uid, *uids)  # which looks at the chain if somebody is not
        admits = self._users.membership.admits
        if not admits(session.uid):
            # Registering costs nothing: who may not write to somebody must not use up their one-time keys.
            raise NotAMember("In this network only admitted members begin sessions with one another.")
        barred = {uid: Bar(NotAMember.code) for uid in uids if not admits(uid)}
        fellows = await self._fellows(session.uid, uids)
        for uid in uids:
            if uid not in fellows and uid not in barred:
                wait = self._lookups.take(session.uid, (uid,), time.monotonic())
                if wait:
                    barred[uid] = Bar(LimitReached.code, wait)
        asking, now = (session.uid, session.device), int(time.time())
        return await self._prekeys.fetch(self._writer, asking, request, barred, now, time.monotonic())

    async def _fellows(self, uid: int, others: Iterable[int]) -> set[int]:
        """Those of these users who are no strangers to a user: they share a group, as the chain says.

        The network is a group, of those who were admitted to it, also where anybody may write to anybody.
        """
        members = self._users.membership.members
        fellows = {other for other in others if other == uid or (uid in members and other in members)}
        rest = sorted(set(others) - fellows)
        if rest:
            fellows |= await self._threads.run(lambda: self._reader.fellows(uid, rest))
        return fellows
