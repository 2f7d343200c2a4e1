"""The account at its home: logging in and out, how it stands, its password, phrase and key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chatchain.client import devices
from chatchain.client.account import PHRASE, holds, require_same, set_password, unlock
from chatchain.client.devices import key_view
from chatchain.client.home import OwnAccount, require_folder, write_new
from chatchain.client.own import own_device
from chatchain.client.recovery import address_text, next_address, require_settled, threat
from chatchain.client.showing import problem_of
from chatchain.client.station import LAST_WORDS_S
from chatchain.client.views import (
    Exported,
    KeyView,
    LoggedIn,
    LoggedOut,
    NextAddress,
    PasswordChanged,
    PendingRecovery,
    Problem,
    Status,
    WhoAmI,
)
from chatchain.client.watch import Watch
from chatchain.crypto import keystore
from chatchain.errors import (
    ChainError,
    ChainUnreachable,
    FoldMismatch,
    LoginRefused,
    MissingInput,
    NetworkError,
    RefusedError,
    UsageError,
)
from chatchain.identity.keys import to_checksum
from chatchain.identity.names import normalise_username
from chatchain.identity.record import SUITES
from chatchain.model import DeviceId, DeviceState, ProposalState, RelayAddress, Uid

if TYPE_CHECKING:
    from chatchain.client.ports import Store
    from chatchain.client.station import Station


RELAY_S: Final = 2.0
"""Seconds that `status` waits for a relay; `doctor` waits longer and says why."""


async def login(station: Station, name: str | None = None) -> LoggedIn:
    """Proves password and device to the relay and publishes the keys; see `Client.login`."""
    account = station.home.require_account()
    if name is not None and normalise_username(name.removeprefix("@")) != account.username:
        raise UsageError(
            f"This home belongs to {account.username}, not to {name}.", "Choose --user or --home."
        )
    desk = await station.desk()
    # An endpoint could hide from the owner that somebody takes the account over.
    await station.require_watch().confirm(desk.own.uid)
    session = await station.connect()
    await station.publish(session)
    renewed, problem = None, None
    if desk.own.identity.party.record.suites & SUITES != SUITES:
        try:
            renewed = (await devices.rotate(station)).version
        except (ChainError, NetworkError, RefusedError) as failed:
            problem = problem_of(failed)
        desk, session = await station.desk(), await station.connect()
    await desk.courier.drained(LAST_WORDS_S)
    await desk.outbox.drained(LAST_WORDS_S)
    return LoggedIn(
        username=account.username,
        uid=account.uid,
        device=account.device,
        relay=session.link.relay.endpoint,
        waiting=session.waiting,
        renewed=renewed,
        problem=problem,
        recovery=await threat(
            station.require_watch(), await desk.people.require(desk.own.uid), station.edges.clock()
        ),
    )


async def logout(station: Station) -> LoggedOut:
    """Ends the session with the relay; the keys stay."""
    account = station.home.require_account()
    await station.disconnect()
    member = await _is_member(station, account)
    return LoggedOut(account.username, account.uid, account.account, account.device, member)


async def whoami(station: Station) -> WhoAmI:
    """The account of this home; needs no password, and no chain but for the membership."""
    account = station.home.require_account()
    try:
        watch = await station.public_watch()
        member, standing = (
            await watch.is_member(Uid(account.uid)),
            await _standing(watch, account, station.edges.clock()),
        )
    except ChainUnreachable:
        member, standing = None, Standing()
    return WhoAmI(
        username=account.username,
        uid=account.uid,
        account=account.account,
        device=account.device,
        member=member,
        state=standing.state,
        recovery=standing.recovery,
        problem=standing.problem,
        recovery_address=standing.recovery_address,
        next_recovery_address=standing.next_address,
    )


@dataclass(frozen=True)
class Standing:
    """How this home's device stands on the chain, and what its person should know of that."""

    state: str | None = None
    recovery: PendingRecovery | None = None
    problem: Problem | None = None
    recovery_address: str | None = None
    next_address: NextAddress | None = None


async def _standing(watch: Watch, account: OwnAccount, now: float) -> Standing:
    user = await watch.user(Uid(account.uid))
    if user is None:
        return Standing()
    stands = Standing(
        state=DeviceState.ACTIVE.name.lower(),
        recovery=await threat(watch, user, now),
        recovery_address=address_text(user.recovery) or None,
        next_address=next_address(user),
    )
    try:
        own_device(user, DeviceId(account.device))
        await watch.confirm(user.uid)
        require_settled(user)
        require_same(user, account)
    except LoginRefused as out:
        return replace(stands, state=DeviceState.REVOKED.name.lower(), problem=problem_of(out))
    except (FoldMismatch, RefusedError) as unsettled:
        return replace(stands, problem=problem_of(unsettled))
    return stands


async def _is_member(station: Station, account: OwnAccount) -> bool | None:
    """Whether the account has a seat; None while the chain cannot be asked."""
    try:
        return await (await station.public_watch()).is_member(Uid(account.uid))
    except ChainUnreachable:
        return None


async def status(station: Station) -> Status:
    """The account and its network; what lies in the database is told only if a password is at hand."""
    account = station.home.require_account()
    settings = station.settings()
    watch = await station.public_watch()
    network, group = await watch.network(), await watch.group()
    relays, proposals = await watch.relays(), await watch.proposals()
    store = station.unlocked.store if station.unlocked is not None else None
    standing = await _standing(watch, account, station.edges.clock())
    return Status(
        username=account.username,
        uid=account.uid,
        account=account.account,
        device=account.device,
        member=any(member.uid == account.uid for member in group.members),
        rpc=settings.endpoints[0],
        directory=to_checksum(network.directory),
        chain_id=network.chain_id,
        block=watch.head,
        relay=relays[0].endpoint if relays else "",
        policy=group.policy.name.lower(),
        members=len(group.members),
        open_proposals=sum(proposal.state is ProposalState.OPEN for proposal in proposals),
        queued=store.count_queued() if store else None,
        unread=store.count_unread() if store else None,
        state=standing.state,
        recovery=standing.recovery,
        problem=standing.problem,
        recovery_address=standing.recovery_address,
        next_recovery_address=standing.next_address,
        relay_answers=await _answers(station, relays) if relays else None,
    )


async def _answers(station: Station, relays: Sequence[RelayAddress]) -> bool:
    """Whether a relay of the chain's answers at once, and as it should."""
    try:
        async with asyncio.timeout(RELAY_S):
            link = await station.edges.dial(relays)
    except (NetworkError, TimeoutError):
        return False
    await link.close()
    return True


async def change_password(station: Station, new: str) -> PasswordChanged:
    """Sets the verifier on chain and the vault of this home to a new password."""
    desk = await station.desk()
    me = await desk.people.require(desk.own.uid)
    require_same(me, desk.unlocked.account)
    payer = station.payer(me)
    if not holds(me, desk.unlocked.secrets):
        # Changed on another device, so no login is possible; the account's own signature is what counts.
        await station.disconnect()
        payer = station.payer(me, station.stranger(station.require_watch()))
    secrets, paid = await set_password(
        station.home,
        station.edges,
        station.require_watch(),
        desk.own.network,
        payer,
        me,
        desk.unlocked,
        new,
    )
    station.adopt(replace(desk.unlocked, secrets=secrets, from_next=False), new)
    await station.disconnect()
    station.just_changed()
    key = key_view(me.devices[desk.own.device - 1], here=True)
    return PasswordChanged(me.username, me.uid, paid.tx, paid.block, key.device, key.version, key.state)


async def show_phrase(station: Station, on_phrase: Callable[[str], None]) -> bool:
    """Hands over, once, the recovery phrase that nobody has seen yet; see `Client.show_phrase`."""
    account = station.home.account()
    if account is None or account.uid or account.linked:
        return _handed_over(await station.store(), on_phrase)
    # A home that waits to take over, or whose registration broke off.
    station.home.acquire()
    password = await station.require_password()
    unlocked = await asyncio.to_thread(unlock, station.home, station.edges, password)
    try:
        return _handed_over(unlocked.store, on_phrase)
    finally:
        unlocked.store.close()


def _handed_over(store: Store, on_phrase: Callable[[str], None]) -> bool:
    phrase = store.setting(PHRASE)
    if phrase is None:
        return False
    on_phrase(phrase.decode())
    store.set_setting(PHRASE, None)
    return True


async def export_keystore(station: Station, path: Path, password: str) -> Exported:
    """Writes the account key as a keystore V3 file; see `Client.export_keystore`."""
    if not password:
        raise MissingInput("The exported file needs a password.")
    account = station.home.require_account()
    require_folder(path)
    secret = (await station.open(exclusive=False)).secrets.account_secret
    text = await asyncio.to_thread(keystore.export_keystore, station.account_key(), secret, password)
    write_new(path, text.encode())
    key = await _own_key(station, account)
    return Exported(
        str(path),
        account.account,
        account.device,
        key.version if key is not None else None,
        key.state if key is not None else None,
    )


async def _own_key(station: Station, account: OwnAccount) -> KeyView | None:
    """This home's device as the chain lists it; None while the chain cannot be asked."""
    try:
        user = await (await station.public_watch()).user(Uid(account.uid))
    except ChainUnreachable:
        return None
    return key_view(user.devices[account.device - 1], here=True) if user is not None else None
