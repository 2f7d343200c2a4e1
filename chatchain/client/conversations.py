"""How a conversation is set, and by which name one is shown in it."""

from __future__ import annotations

from chatchain.client import messaging
from chatchain.client.outbox import keep
from chatchain.client.privacy import choose
from chatchain.client.session import made_up_for_later
from chatchain.client.station import Station
from chatchain.client.views import ChatSettings, PrivacyView, ProfileView
from chatchain.client.writing import Writer
from chatchain.crypto import content as contents
from chatchain.errors import ChatchainError, UsageError
from chatchain.model import DeviceId, Uid


async def settings(
    station: Station, peer: str, expires: int | None, off_the_record: bool | None, wait_s: float
) -> ChatSettings:
    """How the conversation with a peer is set, after changing what is given.

    A change that waits to be sent counts here already; why it waits is raised once all is changed.
    """
    store = await station.store()
    uid = await station.uid_of(store, peer)
    if uid == station.home.require_account().uid:
        raise UsageError(
            "That is you; a conversation needs somebody else.", "`chatchain members` lists the others."
        )
    before, acts = store.peer(uid), list[messaging.Act]()
    if expires is not None:
        seconds = contents.timer(expires).seconds
        if seconds != before.timer_s:
            acts.append(lambda writer: writer.timer(seconds))
    if off_the_record is not None and off_the_record != before.off_the_record:
        switch = off_the_record
        acts.append(lambda writer: writer.off_the_record(on=switch))
    state, failed = None, None
    for act in acts:
        try:
            async for sent in messaging.do(station, peer, act, wait_s):
                state = sent.state
        except ChatchainError as error:
            failed = failed or error
    if failed is not None:
        raise failed
    after = store.peer(uid)
    return ChatSettings(
        username=await station.name_of(uid),
        uid=uid,
        name=after.display_name,
        expires=after.timer_s,
        off_the_record=after.off_the_record,
        state=state,
    )


async def privacy(station: Station, typing: bool | None, read_receipts: bool | None) -> PrivacyView:
    """What this device tells others of its own accord, after changing what is given."""
    changes = typing is not None or read_receipts is not None
    store = (await station.open(exclusive=True)).store if changes else await station.store()
    chosen = choose(store, typing, read_receipts)
    return PrivacyView(chosen.typing, chosen.read_receipts)


async def profile(station: Station, name: str | None) -> ProfileView:
    """The own display name, after changing it; who was met is told now, others when this home writes."""
    account = station.home.require_account()
    uid, device, told = Uid(account.uid), DeviceId(account.device), 0
    if name is not None:
        chosen = contents.profile(name).name
        store = (await station.open(exclusive=True)).store
        mine = store.peer(uid)
        if chosen != mine.display_name:
            own = Writer(uid, device, mine, station.now_ms()).profile(chosen, mine.profile_ms)
            assert own.deed is not None
            store.queue([], [], done=[own.deed])
        for contact in (one for one in store.contacts() if one.met):
            writer = Writer(uid, device, store.peer(contact.uid), station.now_ms())
            written = messaging.introduced(store, writer)
            keep(store, written, [one.outgoing for one in written])
            told += len(written)
        if told:
            with made_up_for_later():
                await station.connect()
                (await station.desk()).outbox.wake()
    store = await station.store()
    return ProfileView(account.username, uid, store.peer(uid).display_name, told)
