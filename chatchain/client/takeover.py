"""The recovery address: naming it, and what it is for: another account takes a user over after a delay.

Four parties have a hand in it, and they may be one person. The account names a recovery address; whoever has
that address proposes another account; a home with the new account takes over once the delay is past; and the
old account may refuse meanwhile (`recovery.veto`). Seat, name, id, devices and the recovery address stay; the
account's key is another, so the epoch rises, sessions end and everybody sees another safety number. The
account secret is the new phrase's, so no other device of before logs in again: each is to be linked anew.

A home that waits to take over looks like a recovery that was begun, and once the account is the user's it is
finished like one (`recovery.recover`). The contract judges who may do what and when; what is asked here
before is asked so that a person gets an answer without paying for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import msgspec

from chatchain.client import wallet
from chatchain.client.account import PHRASE, require_same, unlock
from chatchain.client.acting import Acting
from chatchain.client.devices import key_view
from chatchain.client.home import OwnAccount
from chatchain.client.paying import SIGNATURE_LASTS_S, Paid, Payer
from chatchain.client.people import check_pin, find
from chatchain.client.recovery import (
    Choose,
    Recovery,
    address_text,
    new_keys,
    next_address,
    pending,
    recover,
    require_new_home,
    require_settled,
    threat,
)
from chatchain.client.times import second_text
from chatchain.client.views import (
    NamingOffer,
    PendingRecovery,
    ProposalOffer,
    ProposalPrompt,
    Proposed,
    Recovered,
    RecoveryView,
    TakeoverView,
)
from chatchain.client.watch import Watch
from chatchain.crypto.derive import require_post_quantum
from chatchain.errors import (
    AccountKeyElsewhere,
    AlreadyDone,
    ChainError,
    ChatchainError,
    NotFoundError,
    RefusedError,
    UnknownUser,
    UsageError,
)
from chatchain.identity.keys import NOBODY, address_of, parse_address, sign_digest, to_checksum
from chatchain.identity.names import normalise_username
from chatchain.identity.typed_data import (
    finalise_recovery_digest,
    propose_recovery_digest,
    propose_recovery_prompt,
    set_recovery_digest,
)
from chatchain.model import Address, Call, Uid, User

if TYPE_CHECKING:
    from chatchain.client.ports import Store
    from chatchain.client.station import Station

WAITING: Final = "waiting"
PROPOSED: Final = "proposed"
TAKEN: Final = "taken"


# --- the recovery address -----------------------------------------------------------------------------------


async def show(station: Station) -> RecoveryView:
    """Who may propose another account for this home's user; see `Client.recovery_address`."""
    account = station.home.require_account()
    watch = await station.public_watch()
    user = await watch.user(Uid(account.uid))
    if user is None:
        raise UnknownUser(f"The chain does not know {account.username}.")
    return _view(user, account.device, await threat(watch, user, station.edges.clock()))


async def noticed(station: Station) -> PendingRecovery | None:
    """The proposal that the chain showed while this home was at work; see `Client.pending_recovery`."""
    account, watch = station.home.account(), station.known_watch
    if account is None or not account.uid or watch is None or not watch.synced:
        return None
    with suppress(ChatchainError):  # what was asked for is done by then, and must not seem to have failed
        user = await watch.user(Uid(account.uid))
        return await threat(watch, user, station.edges.clock()) if user is not None else None
    return None


async def offer_naming(station: Station, who: str | None) -> NamingOffer:
    """What naming somebody would do; nothing is changed. See `Client.offer_recovery_address`."""
    account = station.home.require_account()
    watch = await station.public_watch()
    user = await watch.user(Uid(account.uid))
    if user is None:
        raise UnknownUser(f"The chain does not know {account.username}.")
    require_same(user, account)
    require_settled(user)
    to = await guardian(watch, who, user) if who is not None else NOBODY
    waits = user.next_recovery
    if to == user.recovery and waits is None:
        raise AlreadyDone(
            f"{to_checksum(to)} is the recovery address of {user.username} already."
            if any(to)
            else f"{user.username} has no recovery address."
        )
    if waits is not None and to == waits.address:
        raise AlreadyDone(
            f"This change was announced at block {waits.block} and counts from {second_text(waits.time)} on."
        )
    holder = await watch.user_by_account(to) if any(to) else None
    return NamingOffer(
        to=address_text(to),
        username=holder.username if holder is not None else None,
        verified=holder is not None and _is_verified(await station.store(), holder),
        now=address_text(user.recovery),
        at_once=not any(user.recovery) or to == user.recovery,
        takes_back=to == user.recovery,
    )


def _is_verified(store: Store, user: User) -> bool:
    """Whether a person has compared this user's keys; raises KeyChanged where they changed since."""
    contact = store.contact(user.uid)
    if contact is None or contact.pin is None:
        return False
    check_pin(contact, user)
    return True


async def name(station: Station, to: str) -> RecoveryView:
    """Names the recovery address, or none; see `Client.set_recovery_address`."""
    acting = await Acting.at(station)
    account = station.home.require_account()
    require_same(acting.me, account)
    key, me = acting.account_key(), acting.me
    address = parse_address(to) if to else NOBODY

    async def signed() -> Call:
        nonce, deadline = await acting.watch.nonce(me.uid), int(acting.now()) + SIGNATURE_LASTS_S
        digest = set_recovery_digest(acting.own.network, me.uid, me.epoch, address, nonce, deadline)
        return acting.calls.set_recovery_for(me.uid, address, deadline, sign_digest(key, digest))

    async def named() -> User | None:
        found = await acting.watch.user(me.uid)
        if found is None:
            return None
        waits = found.next_recovery
        return found if (found.recovery if waits is None else waits.address) == address else None

    async def shown() -> int | None:
        with suppress(ChainError):
            await acting.watch.sync()
        return acting.watch.head if await named() is not None else None

    paid = await acting.payer.carry_out(acting.calls.set_recovery(address), lambda: key, signed, shown)
    user = await acting.watch.until(named, "The recovery address")
    return msgspec.structs.replace(_view(user, account.device, pending(user)), tx=paid.tx, block=paid.block)


async def guardian(watch: Watch, who: str, user: User | None) -> Address:
    """The address that a person names: itself, or the account of a user; raises UsageError for one's own."""
    text = who.strip()
    if text[:2] in ("0x", "0X"):
        address = parse_address(text)
        if not any(address):
            raise UsageError("Nobody has that address.", "`chatchain recover address --none` names nobody.")
        holder = await watch.user_by_address(address)
    else:
        holder = await find(watch, text)
        address = holder.account
    if user is not None and holder is not None and holder.uid == user.uid:
        raise own_address()
    return address


def own_address() -> UsageError:
    """Why an account cannot be its own recovery address."""
    return UsageError(
        "That is this account itself, or a device of it: whoever has lost it could not help.",
        "Name an address whose key lies elsewhere: another wallet's, or the account of somebody whom you "
        "trust.",
    )


def _view(user: User, device: int, waits: PendingRecovery | None) -> RecoveryView:
    own = key_view(user.devices[device - 1], here=True)
    return RecoveryView(
        username=user.username,
        uid=user.uid,
        account=to_checksum(user.account),
        recovery=address_text(user.recovery),
        next=next_address(user),
        pending=waits,
        device=own.device,
        version=own.version,
        state=own.state,
    )


# --- proposing another account ------------------------------------------------------------------------------


async def offer_proposal(station: Station, who: str, account: str, key: bytes | None) -> ProposalOffer:
    """What a proposal would do; nothing is changed. See `Client.offer_proposal`."""
    user, _, address, by = await _proposal(station, who, account, key)
    return _offer(user, address, by)


def _offer(user: User, address: Address, by: Address) -> ProposalOffer:
    waits, drops = user.next_account, user.next_recovery
    return ProposalOffer(
        username=user.username,
        uid=user.uid,
        now=to_checksum(user.account),
        account=to_checksum(address),
        by=to_checksum(by),
        replaces=to_checksum(waits.address) if waits is not None else None,
        drops=address_text(drops.address) if drops is not None else None,
    )


async def ask_wallet(station: Station, who: str, account: str) -> ProposalPrompt:
    """What the wallet that has the recovery address signs to propose; see `Client.ask_wallet_to_propose`."""
    user, watch, address, by = await _proposal(station, who, account, by_wallet=True)
    network, nonce = await watch.network(), await watch.nonce(user.uid)
    async with _notes(station) as store:
        asked = wallet.keep(store, _matter(user, address), nonce, station.edges.clock())
    shown = propose_recovery_prompt(network, user.uid, user.epoch, address, nonce, asked.deadline)
    offer = msgspec.structs.asdict(_offer(user, address, by))
    return ProposalPrompt(**offer, typed_data=shown, state=WAITING, until=second_text(asked.deadline))


async def propose(
    station: Station, who: str, account: str, key: bytes | None = None, signature: str | None = None
) -> Proposed:
    """Proposes another account for a user; see `Client.propose_recovery`."""
    by_wallet = signature is not None
    user, watch, address, by = await _proposal(station, who, account, key, by_wallet=by_wallet)
    network, edges = await watch.network(), station.edges

    def digest(nonce: int, deadline: int) -> bytes:
        return propose_recovery_digest(network, user.uid, user.epoch, address, nonce, deadline)

    def call(deadline: int, given: bytes) -> Call:
        return edges.calls.propose_recovery_for(user.uid, address, deadline, given)

    ready: Call | None = None
    if signature is not None:
        nonce = await watch.nonce(user.uid)
        again = f"Ask the wallet anew: `chatchain recover propose {user.username} ACCOUNT --wallet`."
        async with _notes(station) as store:
            asked = wallet.kept(store, _matter(user, address), nonce, edges.clock(), again)
        signed = digest(asked.nonce, asked.deadline)
        ready = call(asked.deadline, await wallet.signed(watch, by, signed, signature, again))
    elif key is None:
        await station.open(exclusive=True)
        key = station.account_key()

    def own_key() -> bytes:
        if key is None:
            raise AccountKeyElsewhere("The recovery address's key is in a wallet.")
        return key

    async def consent() -> Call:
        if ready is not None:
            return ready
        deadline = int(edges.clock()) + SIGNATURE_LASTS_S
        return call(deadline, sign_digest(own_key(), digest(await watch.nonce(user.uid), deadline)))

    async def proposed() -> User | None:
        found = await watch.user(user.uid)
        waits = found.next_account if found is not None else None
        return found if waits is not None and waits.address == address else None

    async def shown() -> int | None:
        with suppress(ChainError):
            await watch.sync()
        return watch.head if await proposed() is not None else None

    direct = edges.calls.propose_recovery(user.uid, address)
    paid = await _as_stranger(
        station, watch, by, lambda payer: payer.carry_out(direct, own_key, consent, shown)
    )
    found = await watch.until(proposed, "The proposal")
    waits = found.next_account
    assert waits is not None
    return Proposed(
        username=found.username,
        uid=found.uid,
        account=to_checksum(found.account),
        proposed=to_checksum(waits.address),
        ready=second_text(waits.time),
        tx=paid.tx,
        block=paid.block,
        sponsored=paid.sponsored,
    )


def _matter(user: User, address: Address) -> bytes:
    """What tells this proposal from anything else that a wallet is asked to sign."""
    return b"propose" + user.uid.to_bytes(8, "big") + address


@asynccontextmanager
async def _notes(station: Station) -> AsyncIterator[Store]:
    """The database of a home that is somebody's, or in which a takeover was begun."""
    account = station.home.account()
    if account is None or account.uid or not account.restored:
        yield (await station.open(exclusive=True)).store
        return
    station.home.acquire()
    password = await station.require_password()
    unlocked = await asyncio.to_thread(unlock, station.home, station.edges, password)
    try:
        yield unlocked.store
    finally:
        unlocked.store.close()


async def _as_stranger(
    station: Station, watch: Watch, by: Address, work: Callable[[Payer], Awaitable[Paid]]
) -> Paid:
    """Carries out a call that is not the logged-in user's: a relay pays for such before login only."""
    await station.disconnect()
    writer = station.writer_for(station.settings(), await watch.network())
    try:
        return await work(Payer(writer, by, station.stranger(watch)))
    finally:
        await station.hang_up()


async def _proposal(
    station: Station, who: str, account: str, key: bytes | None = None, *, by_wallet: bool = False
) -> tuple[User, Watch, Address, Address]:
    """The user, the chain, the account to propose and who proposes it; raises what speaks against it."""
    address, by = parse_address(account), address_of(key) if key is not None else None
    if by is None and not by_wallet:
        by = parse_address(station.home.require_account().account)
        watch = await station.public_watch()
    else:
        watch = Watch(station.edges.chain(station.settings(), None))
        await watch.sync()
    user = await find(watch, who)
    by = by or user.recovery
    if not any(user.recovery):
        raise RefusedError(
            f"{user.username} has named no recovery address, so nobody can propose another account.",
            "Only the recovery phrase, or a device that is left, brings this account back.",
        )
    if user.recovery != by:
        raise RefusedError(
            f"Only the recovery address of {user.username} may propose: that is "
            f"{to_checksum(user.recovery)}, and not {to_checksum(by)}.",
            "Do it in the home of the account that has that address, or with its key: --mnemonic-file F, "
            "--keystore F, or --wallet.",
        )
    taken = await watch.user_by_account(address)
    if taken is not None or not any(address):
        raise UsageError(
            f"{to_checksum(address)} cannot take over: it belongs to "
            f"{taken.username if taken is not None else 'nobody'}.",
            "Propose the address of a new account: `chatchain recover begin NAME` makes one and shows it.",
        )
    waits = user.next_account
    if waits is not None and waits.address == address:
        raise AlreadyDone(
            f"{to_checksum(address)} was proposed at block {waits.block}, and may take over from "
            f"{second_text(waits.time)} on.",
            "Proposing it again would only begin the delay anew.",
        )
    return user, watch, address, by


# --- taking over --------------------------------------------------------------------------------------------


async def begin(
    station: Station,
    who: str,
    *,
    mnemonic: str | None = None,
    keystore: tuple[str, str] | None = None,
    on_phrase: Callable[[str], None] | None = None,
) -> TakeoverView:
    """Makes a home with a new account that is to take a user over; see `Client.begin_takeover`."""
    require_post_quantum()
    username = normalise_username(who.removeprefix("@"))
    with station.home.tentative():
        account = station.home.account()
        if account is not None:
            _require_waiting(account, username)
        settings = station.settings()
        station.home.acquire()
        watch = Watch(station.edges.chain(settings, None))
        network = await watch.network()
        await watch.sync()
        user = await find(watch, f"@{username}")
        keys, phrase = None, None
        if account is None:
            keys, phrase = await new_keys(mnemonic, keystore)
            await _require_unused(watch, address_of(keys.account_key))
        password = await station.require_password()
        if keys is None:
            unlocked = await asyncio.to_thread(unlock, station.home, station.edges, password)
        else:
            writer, connect = station.writer_for(settings, network), station.stranger(watch)
            machine = Recovery(station.home, station.edges, watch, network, writer, connect)
            unlocked = await machine.furnish(username, keys, password, user, phrase)
    try:
        kept = unlocked.store.setting(PHRASE)
        if kept is not None and on_phrase is not None:
            on_phrase(kept.decode())
            unlocked.store.set_setting(PHRASE, None)
        station.home.put_network(msgspec.structs.replace(settings, chain_id=network.chain_id))
    finally:
        unlocked.store.close()
    return _takeover(user, parse_address(unlocked.account.account))


def _require_waiting(account: OwnAccount, username: str) -> None:
    """Raises AlreadyDone for a home that is anything but one that waits to take this user over."""
    require_new_home(account)
    if not account.restored or account.username != username:
        doing = "recovery" if account.restored else "registration"
        raise AlreadyDone(
            f"In this home the {doing} of {account.username} was begun.", "Choose another --home."
        )


async def _require_unused(watch: Watch, address: Address) -> None:
    holder = await watch.user_by_account(address)
    if holder is not None:
        raise AlreadyDone(
            f"{to_checksum(address)} is the account of {holder.username} already, so it cannot take over.",
            f"To bring {holder.username} back with its phrase: `chatchain recover --mnemonic-file F`. To "
            "take another user over: leave the file out, and a new phrase is made.",
        )


async def waiting(station: Station) -> TakeoverView:
    """How the takeover stands that was begun in this home; see `Client.takeover`."""
    account = _begun(station.home.account())
    watch = Watch(station.edges.chain(station.settings(), None))
    await watch.sync()
    user = await find(watch, f"@{account.username}")
    view = _takeover(user, parse_address(account.account))
    if view.state != TAKEN or not user.former_accounts:
        require_new_home(account)
    return view


def _begun(account: OwnAccount | None) -> OwnAccount:
    """Whose takeover was begun here, or finished: lost devices may be left to end."""
    if account is not None and not account.restored:
        require_new_home(account)
    if account is None or not account.restored:
        raise NotFoundError(
            "In this home nothing was begun that could be finished.",
            "Begin with `chatchain recover begin NAME`; or name the home where you did: --home, --user.",
        )
    return account


def _takeover(user: User, address: Address) -> TakeoverView:
    waits = user.next_account
    state = WAITING
    if user.account == address:
        state = TAKEN
    elif waits is not None and waits.address == address:
        state = PROPOSED
    return TakeoverView(
        username=user.username,
        uid=user.uid,
        account=to_checksum(address),
        recovery=address_text(user.recovery),
        state=state,
        proposed=to_checksum(waits.address) if waits is not None else None,
        ready=second_text(waits.time) if waits is not None else None,
    )


async def finalise(station: Station, *, choose: Choose) -> Recovered:
    """Takes over as was proposed, and makes this home a device; see `Client.finalise_takeover`."""
    if _begun(station.home.account()).uid:
        await waiting(station)
    return await recover(station, None, choose=choose, take_over=_take_over)


async def _take_over(machine: Recovery, user: User, address: Address, key: bytes) -> User:
    """Has the home's account take the place of the user's, as was proposed; waits until it has."""
    watch, edges = machine.watch, machine.edges
    require_proposed(user, address)

    async def signed() -> Call:
        deadline = int(edges.clock()) + SIGNATURE_LASTS_S
        digest = finalise_recovery_digest(machine.network, user.uid, user.epoch, address, deadline)
        return edges.calls.finalise_recovery_for(user.uid, deadline, sign_digest(key, digest))

    async def taken() -> User | None:
        found = await watch.user(user.uid)
        return found if found is not None and found.account == address else None

    async def shown() -> int | None:
        with suppress(ChainError):
            await watch.sync()
        return watch.head if await taken() is not None else None

    call = edges.calls.finalise_recovery(user.uid)
    await machine.payer(address).carry_out(call, lambda: key, signed, shown)
    return await watch.until(taken, "The takeover")


def require_proposed(user: User, address: Address) -> None:
    """Raises NotFoundError or RefusedError unless this account was proposed for the user."""
    waits = user.next_account
    if waits is not None and waits.address == address:
        return
    by = to_checksum(user.recovery)
    if waits is not None:
        raise RefusedError(
            f"For {user.username} another account is proposed: {to_checksum(waits.address)}, at block "
            f"{waits.block}.",
            f"Ask whoever has the recovery address {by} what that is, and to propose this home's: "
            f"{to_checksum(address)}.",
        )
    raise NotFoundError(
        f"The account of this home, {to_checksum(address)}, is not proposed for {user.username}: nobody "
        "did yet, or it was refused.",
        f"Whoever has the recovery address {by} runs `chatchain recover propose {user.username} "
        f"{to_checksum(address)}`."
        if any(user.recovery)
        else f"{user.username} has named no recovery address, so this account cannot be taken over.",
    )
