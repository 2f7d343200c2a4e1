"""Contacts as their home shows them: listed, added by card, compared and verified."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chatchain.client.devices import fingerprint_of
from chatchain.client.people import changes
from chatchain.client.views import CardView, ContactView
from chatchain.crypto import safety
from chatchain.crypto.card import decode_card, make_card, verify_card
from chatchain.errors import BadRecord, UsageError, VerificationError
from chatchain.identity.keys import to_checksum
from chatchain.model import Contact, User

if TYPE_CHECKING:
    from chatchain.client.station import Desk, Station


async def contacts(station: Station) -> list[ContactView]:
    """Everybody that this home has written with, added or verified."""
    desk = await station.desk()
    me = await desk.people.require(desk.own.uid)
    views = []
    for contact in desk.unlocked.store.contacts():
        user = await station.require_watch().user(contact.uid)
        if user is not None:
            views.append(_view(desk, me, user, contact))
    return views


async def add_contact(station: Station, card: str) -> ContactView:
    """Checks a contact card against the chain and keeps the contact; it is not verified by that."""
    try:
        read = decode_card(card)
    except BadRecord as unreadable:  # nothing was signed that could fail to verify
        raise UsageError(unreadable.message, "Copy the card again, whole.") from unreadable
    desk = await station.desk()
    user = await desk.people.require(read.uid)
    verify_card(read, desk.own.network, user)
    if user.uid == desk.own.uid:
        raise UsageError("This is your own card; it is for others.")
    me = await desk.people.require(desk.own.uid)
    return _view(desk, me, user, desk.people.remember(user))


async def own_card(station: Station) -> CardView:
    """One's own contact card."""
    desk = await station.desk()
    me = await desk.people.require(desk.own.uid)
    return CardView(
        card=make_card(desk.own.network, me, desk.own.device, desk.own.version, desk.own.secrets),
        username=me.username,
        uid=me.uid,
        account=to_checksum(me.account),
        fingerprint=fingerprint_of(desk.own.identity.party.record),
        verified=True,
    )


async def safety_number(station: Station, peer: str) -> ContactView:
    """The safety number with a peer, to compare over another channel."""
    desk = await station.desk()
    me, user = await desk.people.require(desk.own.uid), await somebody_else(desk, peer)
    return _view(desk, me, user, desk.people.known(user))


async def verify(station: Station, peer: str, scanned: str | None = None) -> ContactView:
    """Marks a peer's present keys as compared, by a person or with the code that was scanned from the peer's
    screen; accepts them again after a change.
    """
    desk = await station.desk()
    me, user = await desk.people.require(desk.own.uid), await somebody_else(desk, peer)
    if scanned is not None:
        _compare(scanned, me, user)
    contact = await desk.people.verify(user)
    desk.outbox.stale(user.uid)
    return _view(desk, me, user, contact)


def _compare(scanned: str, me: User, user: User) -> None:
    """Raises VerificationError unless the peer's screen shows the code of the two accounts seen from here."""
    try:
        code = safety.read_qr(scanned)
        matches = safety.qr_matches(code, me, user)
    except BadRecord as unreadable:  # nothing was compared yet
        raise UsageError(unreadable.message, "Scan it again, or compare the digits.") from unreadable
    if not matches and code == safety.qr_payload(me, user):
        raise UsageError(
            "This is the code that your own program shows.", f"Scan the one that {user.username} shows."
        )
    if not matches:
        raise VerificationError(
            f"What {user.username} shows is not the code of your two accounts as they are seen from here.",
            "Nothing was noted. Compare names and digits, and ask another RPC endpoint (--rpc).",
        )


async def require_reachable(station: Station, peer: str) -> None:
    """Raises what would keep a message to this peer from being sent, before anything is written."""
    desk = await station.desk()
    await desk.outbox.check(await somebody_else(desk, peer))


async def somebody_else(desk: Desk, peer: str) -> User:
    """The user that a person means; raises UsageError for oneself."""
    user = await desk.people.find(peer)
    if user.uid == desk.own.uid:
        raise UsageError("That is you; name somebody else.", "`chatchain members` lists the others.")
    return user


def _view(desk: Desk, me: User, user: User, contact: Contact) -> ContactView:
    changed = changes(contact.pin, user) if contact.pin is not None else []
    return ContactView(
        username=user.username,
        name=desk.unlocked.store.peer(user.uid).display_name,
        uid=user.uid,
        account=to_checksum(user.account),
        fingerprint=safety.spaced(safety.safety_number(me, user)),
        verified=contact.pin is not None and not changed,
        changed="; ".join(changed) or None,
        code=safety.qr_text(me, user),
    )
