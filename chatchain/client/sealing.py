"""Sealing: from something that waits to the envelope for every device that is to have it.

A `Plan` says which devices these are by the chain, and by which suite they are reached: by suite 2 as soon as
any device of the recipient lists it, and then none by suite 1. A plan may have to ask the relay for keys;
sealing by it does not wait for anything, so that sessions and envelopes can be stored as one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final

import msgspec

from chatchain.client.own import Own, own_device
from chatchain.client.people import People
from chatchain.client.ports import Store
from chatchain.client.session import Session
from chatchain.client.sessions import Draft, Fresh, NoSession, Sessions
from chatchain.crypto import content as contents
from chatchain.crypto.bundle import check_bundle
from chatchain.crypto.content import Unsupported
from chatchain.crypto.pqxdh import Party
from chatchain.crypto.ratcheted import KEY_BYTES, associated_data, header_content, seal_body
from chatchain.crypto.sealed import MAX_COPIES, Target, seal
from chatchain.errors import BadRecord, ChatchainError, LimitReached, NoTick, RefusedError, TooLarge
from chatchain.identity.record import device_record, lists
from chatchain.model import (
    Copy,
    Envelope,
    KeyBundle,
    Outgoing,
    SessionChanges,
    Suite,
    Uid,
    User,
)

RECEIPT: Final = "receipt"

ASK_AGAIN_MS: Final = 60_000
"""How long a device that had no keys to fetch is left alone."""

STRANGERS_ASKED: Final = 2
"""Strangers within an hour for whose receipts alone the relay is asked for keys. It lets us look up four new
ones an hour for long: whoever has many names, writes with each and has a second device, must leave us some.
"""

HOUR_MS: Final = 3600 * 1000


class NoKeys(RefusedError):
    """There is nothing to encrypt to yet."""

    code = "no_tick"
    exit_code = NoTick.exit_code


@dataclass(frozen=True)
class Plan:
    """To whom an envelope for one recipient is sealed, and which view of the chain that rests on."""

    suite: Suite
    recipient_version: int
    sender_version: int
    made_ms: int
    targets: tuple[Target, ...] = ()
    """Suite 1: the recipient's devices."""
    own_targets: tuple[Target, ...] = ()
    parties: tuple[Party, ...] = ()
    """Suite 2: the recipient's devices with which there is a session, or one was begun."""
    own_parties: tuple[Party, ...] = ()
    keyless: tuple[Copy, ...] = ()
    """Empty copies for the recipient's devices that have published no keys: the relay wants every device
    named, and the device can say that a message passed it by.
    """
    lacks: bool = False
    """Whether some device is left out for which there may be keys later."""


class Sealing:
    """Seals what this device sends."""

    def __init__(
        self, own: Own, store: Store, people: People, sessions: Sessions, now_ms: Callable[[], int]
    ) -> None:
        self._own = own
        self._store = store
        self._people = people
        self._sessions = sessions
        self._now_ms = now_ms
        self._plans: dict[Uid, Plan] = {}
        self._fresh: Fresh = {}
        self._asked_ms: list[int] = []

    def stale(self, uid: Uid | None = None) -> None:
        """Forgets for whom envelopes are sealed (to one user, or to all)."""
        if uid is None or uid == self._own.uid:
            self._plans.clear()
            self._fresh.clear()
        else:
            self._plans.pop(uid, None)

    # --- for whom -------------------------------------------------------------------------------------------

    async def plan(self, recipient: Uid, session: Session | None) -> Plan:
        """Which devices an envelope to this recipient goes to; asks the relay for keys not at hand.

        Raises NoKeys, KeyChanged, FoldMismatch and what fetching raises; NoSession when the relay would have
        to be asked and there is no session with it.
        """
        plan = (await self.plans((recipient,), session))[recipient]
        if isinstance(plan, ChatchainError):
            raise plan
        return plan

    async def plans(
        self, recipients: Iterable[Uid], session: Session | None, receipts: Collection[Uid] = ()
    ) -> dict[Uid, Plan | ChatchainError]:
        """The same for many at once, whose prekeys the relay is asked for together; or why there is no plan
        for one, which leaves the others theirs. Raises what concerns this device itself, or the link.

        To those in `receipts` go receipts alone: for strangers among them the relay is not asked often.
        """
        me = await self._people.require(self._own.uid)
        found: dict[Uid, Plan | ChatchainError] = {}
        peers: list[User] = []
        for uid in dict.fromkeys(recipients):
            try:
                peer = await self._people.require(uid)
                plan = self._plans.get(uid)
                if plan is not None and self._holds(plan, peer, me):
                    found[uid] = plan
                    continue
                await self._people.vet(peer)
                self._sessions.tidy(peer)
                if not peer.active_devices:
                    raise NoKeys(f"{peer.username} has no active device that could read a message.")
                if uid in receipts and await self._is_spared(me, peer):
                    raise NoKeys(f"{peer.username} is a stranger; receipts wait until you answer.")
                peers.append(peer)
            except ChatchainError as obstacle:
                found[uid] = obstacle
        if not peers:
            return found
        await self._people.vet(me, own=True)
        own_device(me, self._own.device)
        self._sessions.tidy(me)
        withheld = await self._begin(peers, me, session)
        for peer in peers:
            try:
                found[peer.uid] = self._plans[peer.uid] = await self._planned(peer, me, session)
            except ChatchainError as obstacle:
                refusal = withheld.get(peer.uid) if isinstance(obstacle, NoKeys) else None
                found[peer.uid] = refusal or obstacle
        return found

    async def _is_spared(self, me: User, peer: User) -> bool:
        """Whether the relay is not to be asked for the keys of a stranger now."""
        parties = self._parties(peer)
        speaking = [one for one in parties if self._speaks_ratchet(one)]
        lacks = (
            not all(map(self._reaches, speaking))
            if speaking
            else len(self._checked(parties, self._store.bundles(peer.uid))) < len(parties)
        )
        if not lacks or not await self._people.are_strangers(me, peer):
            return False
        now = self._now_ms()
        self._asked_ms = [at for at in self._asked_ms if now - HOUR_MS < at <= now]
        if len(self._asked_ms) >= STRANGERS_ASKED:
            return True
        self._asked_ms.append(now)
        return False

    def _holds(self, plan: Plan, peer: User, me: User) -> bool:
        """Whether a plan made before can still be sealed by."""
        if (plan.recipient_version, plan.sender_version) != (
            peer.device_list_version,
            me.device_list_version,
        ):
            return False
        if plan.lacks and plan.made_ms < self._now_ms() - ASK_AGAIN_MS:
            return False
        return all(self._reaches(party) for party in (*plan.parties, *plan.own_parties))

    async def _planned(self, peer: User, me: User, session: Session | None) -> Plan:
        plan = await (
            self._by_ratchet(peer, me, session)
            if any(map(self._speaks_ratchet, self._parties(peer)))
            else self._by_sealed(peer, me, session)
        )
        reached = {target.device for target in plan.targets} | {one.record.device for one in plan.parties}
        if not reached:
            raise NoKeys(
                f"{peer.username} has not logged in yet, so there are no keys to encrypt to.",
                "The message is kept; a later command sends it.",
            )
        missing = [one for one in peer.active_devices if one.device not in reached]
        keyless = tuple(Copy(peer.uid, one.device, b"") for one in missing)
        return replace(plan, keyless=keyless, lacks=plan.lacks or bool(missing))

    async def _by_ratchet(self, peer: User, me: User, session: Session | None) -> Plan:
        speaking = [one for one in self._parties(peer) if self._speaks_ratchet(one)]
        others = [one for one in self._others(me) if self._speaks_ratchet(one)]
        if not all(map(self._reaches, speaking + others)):
            _online(session)
        own_parties = tuple(filter(self._reaches, others))
        return Plan(
            Suite.RATCHET,
            peer.device_list_version,
            me.device_list_version,
            self._now_ms(),
            parties=tuple(filter(self._reaches, speaking)),
            own_parties=own_parties,
            lacks=len(own_parties) < len(others),
        )

    async def _by_sealed(self, peer: User, me: User, session: Session | None) -> Plan:
        # Who speaks suite 2, as we do, refuses this one: not even one's own devices get a copy then.
        sealed = [one for one in self._others(me) if not self._speaks_ratchet(one)]
        return Plan(
            Suite.SEALED,
            peer.device_list_version,
            me.device_list_version,
            self._now_ms(),
            targets=await self._targets(peer, self._parties(peer), session),
            own_targets=await self._targets(me, sealed, session),
        )

    def _parties(self, user: User) -> list[Party]:
        """A user's active devices, but for those whose record on the chain does not hold."""
        found = []
        for device in user.active_devices:
            with suppress(BadRecord):
                found.append(Party(user.uid, device_record(self._own.network, user, device)))
        return found

    def _others(self, me: User) -> list[Party]:
        return [one for one in self._parties(me) if one.record.device != self._own.device]

    def _speaks_ratchet(self, them: Party) -> bool:
        """Whether suite 2 is what this device and another one speak."""
        both = (self._own.identity.party.record, them.record)
        return all(lists(record, Suite.RATCHET) for record in both)

    def _reaches(self, them: Party) -> bool:
        """Whether there is a session with a device, or one was begun."""
        return self._sessions.has(them) or _key(them) in self._fresh

    async def _begin(
        self, peers: Iterable[User], me: User, session: Session | None
    ) -> dict[int, ChatchainError]:
        """Begins sessions with those of these users' devices, and of one's own, with which there is none;
        gives by user why the relay gives no prekeys.
        """
        lacking = {
            (one.uid, one.record.device): one
            for one in chain(self._others(me), *map(self._parties, peers))
            if self._speaks_ratchet(one) and not self._reaches(one)
        }
        if not lacking or session is None:
            return {}
        try:
            bundles, withheld = await session.fetch_prekeys(list(lacking))
        except LimitReached as limit:
            return {uid: limit for uid, _ in lacking}
        for bundle in bundles:
            them = lacking.get((bundle.uid, bundle.device))
            if them is not None:
                with suppress(BadRecord):  # out of date, or the relay's invention: as good as absent
                    self._fresh[_key(them)] = self._sessions.begin(them, bundle)
        return withheld

    async def _targets(
        self, user: User, parties: Sequence[Party], session: Session | None
    ) -> tuple[Target, ...]:
        """The devices with their KEM keys, each checked against the chain; a device that published none is
        left out.
        """
        found = self._checked(parties, self._store.bundles(user.uid))
        if len(found) < len(parties):
            fetched = await _online(session).fetch((user.uid,))
            # Only what holds is kept: an invention of the relay's must not take a good bundle's place.
            self._store.put_bundles(bundle for bundle, _ in self._checked(parties, fetched))
            found = self._checked(parties, self._store.bundles(user.uid))
        return tuple(target for _, target in found)

    def _checked(
        self, parties: Sequence[Party], bundles: Sequence[KeyBundle]
    ) -> list[tuple[KeyBundle, Target]]:
        """The bundles that the chain vouches for, one a device, and what is sealed to with them."""
        listed = {one.record.device: one for one in parties}
        found: dict[int, tuple[KeyBundle, Target]] = {}
        for bundle in bundles:
            them = listed.get(bundle.device)
            if them is None:
                continue
            with suppress(BadRecord):  # out of date, or the relay's invention: as good as absent
                key = check_bundle(self._own.network, bundle, them.record, them.uid, self._now_ms() // 1000)
                found[bundle.device] = bundle, Target(them.uid, bundle.device, key)
        return [found[device] for device in listed if device in found]

    # --- the envelope ---------------------------------------------------------------------------------------

    def seal(self, items: Sequence[Outgoing], plan: Plan) -> tuple[list[Outgoing], SessionChanges]:
        """Seals things for one recipient by a plan; the sessions after it are to be stored with them.

        Raises NoSession when a session went after the plan was made, TooLarge for too many devices.
        """
        draft = self._sessions.draft()
        sealed = [
            self._by_sessions(item, plan, draft) if plan.suite is Suite.RATCHET else self._by_keys(item, plan)
            for item in items
        ]
        return sealed, draft.changes

    def seal_signal(self, item: Outgoing, peer: User, me: User) -> tuple[Envelope | None, SessionChanges]:
        """Seals what may get lost, for those devices with which a session stands; it begins none."""
        draft = self._sessions.draft()
        key, body, _ = self._begun(item)
        carried = header_content(key, body)
        ad = associated_data(self._own.network, item.id, self._own.uid, self._own.device, peer.uid)
        copies = []
        for them in self._parties(peer):
            header = draft.encrypt_signal(them, carried, ad) if self._speaks_ratchet(them) else None
            if header is not None:
                copies.append(Copy(them.uid, them.record.device, header))
        if not copies:
            return None, SessionChanges()
        envelope = Envelope(
            id=item.id,
            suite=Suite.RATCHET,
            recipient=peer.uid,
            recipient_version=peer.device_list_version,
            sender_version=me.device_list_version,
            body=body,
            copies=tuple(copies[:MAX_COPIES]),
        )
        return envelope, draft.changes

    def _by_sessions(self, item: Outgoing, plan: Plan, draft: Draft) -> Outgoing:
        # A receipt tells the other side; one's own other devices need not know who told whom.
        parties = plan.parties + (plan.own_parties if item.kind != RECEIPT else ())
        if len(parties) > MAX_COPIES:
            raise TooLarge(f"The message would go to {len(parties)} devices; {MAX_COPIES} is the limit.")
        key, body, headers = self._begun(item)
        carried = header_content(key, body)
        ad = associated_data(self._own.network, item.id, self._own.uid, self._own.device, item.recipient)
        copies, sealed_for = [], []
        for them in parties:
            whose = _key(them)
            header = headers.get(whose) or draft.encrypt(them, carried, ad, self._fresh)
            copies.append(Copy(them.uid, them.record.device, header))
            sealed_for.append(whose)
        envelope = self._envelope(item, plan, body, tuple(copies))
        return msgspec.structs.replace(
            item, envelope=envelope, version=self._own.version, key=key, sealed_for=tuple(sealed_for)
        )

    def _begun(self, item: Outgoing) -> tuple[bytes, bytes, dict[tuple[int, int, int], bytes]]:
        """The body with its key, and the headers there are; all new unless these keys have sealed it before.

        Headers are kept because each one that is made and never sent makes the reader jump over a key.
        """
        if item.envelope is None or not item.key or item.version != self._own.version:
            key = os.urandom(KEY_BYTES)
            return key, seal_body(key, item.content, item.time_ms), {}
        made = {(copy.uid, copy.device): copy.header for copy in item.envelope.copies}
        headers = {whose: made[whose[:2]] for whose in item.sealed_for}
        return item.key, item.envelope.body, headers

    def _by_keys(self, item: Outgoing, plan: Plan) -> Outgoing:
        content = contents.decode(item.content)
        assert not isinstance(content, Unsupported)
        body, copies = seal(
            self._own.network,
            content,
            secrets=self._own.secrets,
            sender=self._own.uid,
            device=self._own.device,
            version=self._own.version,
            recipient=item.recipient,
            message_id=item.id,
            time_ms=item.time_ms,
            targets=plan.targets + (plan.own_targets if item.kind != RECEIPT else ()),
        )
        envelope = self._envelope(item, plan, body, copies)
        return msgspec.structs.replace(
            item, envelope=envelope, version=self._own.version, key=b"", sealed_for=()
        )

    @staticmethod
    def _envelope(item: Outgoing, plan: Plan, body: bytes, copies: tuple[Copy, ...]) -> Envelope:
        return Envelope(
            id=item.id,
            suite=plan.suite,
            recipient=item.recipient,
            recipient_version=plan.recipient_version,
            sender_version=plan.sender_version,
            body=body,
            copies=copies + plan.keyless,
        )


def _online(session: Session | None) -> Session:
    """The session with the relay; raises NoSession without one: what lacks keys now may have them there."""
    if session is None:
        raise NoSession("Without the relay there are no keys for every device.")
    return session


def _key(party: Party) -> tuple[int, int, int]:
    return party.uid, party.record.device, party.record.version
