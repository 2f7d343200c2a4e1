"""Recovery: an account comes back to a new home from its phrase, when no device is left that could link it.

The new home becomes a further device under the account's own key, which stays what it was, and so does the
safety number; whoever verified the user sees that a device came. In this order, each step only if the chain
does not show it yet: the home is written, a pending recovery by others refused if that is wished, the device
added, the password set, the lost devices revoked, the keys published. So whatever broke off, the same command
goes on.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from chatchain.client import devices
from chatchain.client.account import (
    ACCOUNT_KEY,
    NEXT_VAULT,
    PHRASE,
    VAULT,
    Unlocked,
    account_key,
    add_device,
    holds,
    listed_with,
    number_of,
    require_same,
    set_verifier,
    unlock,
    with_verifier,
)
from chatchain.client.acting import Acting
from chatchain.client.devices import key_view
from chatchain.client.home import Home, OwnAccount
from chatchain.client.own import own_device
from chatchain.client.paying import SIGNATURE_LASTS_S, Paid, Payer
from chatchain.client.ports import ChainWriter, Edges
from chatchain.client.session import Session
from chatchain.client.showing import problem_of
from chatchain.client.times import second_text
from chatchain.client.views import NextAddress, PendingRecovery, Problem, Recoverable, Recovered, Vetoed
from chatchain.client.watch import Watch
from chatchain.crypto import phrase as phrases
from chatchain.crypto.derive import require_post_quantum
from chatchain.crypto.device import DeviceSecrets
from chatchain.crypto.keystore import account_secret_in, import_keystore
from chatchain.crypto.password import ACCOUNT_SECRET_BYTES, check_password
from chatchain.crypto.phrase import PhraseKeys
from chatchain.crypto.vault import new_secrets, seal_account_key, seal_vault
from chatchain.errors import (
    AlreadyDone,
    ChainError,
    LimitReached,
    MissingInput,
    NetworkError,
    NotFoundError,
    RefusedError,
    UnknownDevice,
    UnknownUser,
    UsageError,
)
from chatchain.identity.keys import address_of, parse_address, sign_digest, to_checksum
from chatchain.identity.record import decode_record
from chatchain.identity.typed_data import veto_recovery_digest
from chatchain.model import Address, Call, Device, DeviceId, DeviceState, Network, OwnKeys, User

if TYPE_CHECKING:
    from chatchain.client.station import Station

Choose = Callable[[Recoverable], Collection[int]]
"""Which of an account's other devices are lost: called once, before anything is sent."""

VETO_SPENT: Final = (
    "Until then this account cannot stop it. Warn your contacts over another channel, and agree with whoever "
    "has the recovery address, if that is not the thief."
)


@dataclass(frozen=True)
class Made:
    """What became of a registration or recovery."""

    user: User
    device: int
    paid: Paid
    restored: bool
    password_changed: bool = False


TakeOver: TypeAlias = Callable[["Recovery", User, Address, bytes], Awaitable[User]]
"""Has the account of this address and key take the place of a user's."""


@dataclass(frozen=True)
class Recovery:
    """Makes a home a further device of an account whose key is at hand."""

    home: Home
    edges: Edges
    watch: Watch
    network: Network
    writer: ChainWriter
    connect: Callable[[], Awaitable[Session]]
    """Opens a session without login, for the sponsor."""

    async def furnish(
        self, username: str, keys: PhraseKeys, password: str, user: User | None, phrase: str | None = None
    ) -> Unlocked:
        """Writes a new home, the file that says whose it is last: without it nothing here counts yet.

        Where the verifier of the account that is brought back (`user`) holds for this password, it stays; any
        other must be strong enough. Raises UsageError.
        """
        secrets = await asyncio.to_thread(new_secrets, password, keys.account_secret)
        if user is not None:
            known = await asyncio.to_thread(with_verifier, secrets, password, user)
            if known is None:
                check_password(password, [username])
            secrets = known or secrets
        vault = await asyncio.to_thread(seal_vault, secrets, password)
        home = self.home
        for leftover in ("messages.db", "messages.db-wal", "messages.db-shm", NEXT_VAULT):
            home.remove(leftover)
        home.write(VAULT, vault)
        home.write(ACCOUNT_KEY, seal_account_key(secrets.keystore_key, keys.account_key))
        store = self.edges.open_store(home.database, secrets.database_key)
        store.put_own_keys(OwnKeys(1, DeviceSecrets.generate().encode()))
        if phrase is not None:
            store.set_setting(PHRASE, phrase.encode())
        account = OwnAccount(
            username,
            to_checksum(address_of(keys.account_key)),
            self.network.chain_id,
            to_checksum(self.network.directory),
            restored=user is not None,
        )
        home.put_account(account)
        return Unlocked(account, secrets, store, from_next=False)

    def device_of(self, unlocked: Unlocked, user: User) -> Device | None:
        """This home's device, if the chain lists it already; raises LoginRefused if it was revoked since."""
        number = unlocked.account.device
        if not number:
            signer = DeviceSecrets.decode(unlocked.store.own_keys()[-1].secret).signer_address
            number = next((d.device for d in user.devices if d.current.signer == signer), 0)
        return own_device(user, DeviceId(number)) if number else None

    async def bring_back(self, unlocked: Unlocked, user: User, key: bytes, *, veto: bool = False) -> Made:
        """Gets device and password onto the chain, unless they are there, and notes it in the home."""
        listed = self.device_of(unlocked, user)
        # An endpoint that hides a device would have us give the new one its number.
        await self.watch.confirm(user.uid)
        if veto and user.next_account is not None:
            payer = self.payer(user.account)
            user, _ = await refuse(self.edges, self.watch, self.network, payer, user, key)
        if listed is not None:
            made = Made(
                user, listed.device, Paid("", user.block, sponsored=False), restored=listed.device != 1
            )
        else:
            require_settled(user)
            made = await self._add_device(unlocked, user, key)
        if not holds(made.user, unlocked.secrets):
            paid = await set_verifier(
                self.edges,
                self.watch,
                self.network,
                self.payer(user.account),
                made.user,
                unlocked.secrets,
                key,
            )
            made = replace(made, paid=paid if not made.paid.tx else made.paid, password_changed=True)
        _require_own_number(made)
        return self.moved_in(unlocked, made)

    def moved_in(self, unlocked: Unlocked, made: Made) -> Made:
        """Notes in the home which device of the account it is."""
        self.home.put_account(
            msgspec.structs.replace(unlocked.account, uid=made.user.uid, device=made.device)
        )
        return made

    async def _add_device(self, unlocked: Unlocked, user: User, key: bytes) -> Made:
        device = DeviceSecrets.decode(unlocked.store.own_keys()[-1].secret)
        network, signer = self.network, device.signer_address
        number = len(user.devices) + 1
        record = device.record(network, user.account, uid=user.uid, device=number, version=1)
        payer = self.payer(user.account)
        paid = await add_device(self.edges, self.watch, network, payer, user, signer, record, lambda: key)
        found = await self.watch.until(
            lambda: listed_with(self.watch, user, signer), f"The new device of {user.username}"
        )
        return Made(found, number_of(found, signer) or number, paid, restored=True)

    def payer(self, account: Address) -> Payer:
        """How calls of this account get onto the chain."""
        return Payer(self.writer, account, self.connect)


async def new_keys(mnemonic: str | None, keystore: tuple[str, str] | None) -> tuple[PhraseKeys, str | None]:
    """The keys of an account that is to be made, and the new phrase if nothing was brought."""
    if keystore is not None:
        key = await asyncio.to_thread(import_keystore, *keystore)
        carried = account_secret_in(keystore[0], key)
        return PhraseKeys(key, carried or os.urandom(ACCOUNT_SECRET_BYTES)), None
    phrase = await asyncio.to_thread(phrases.new_phrase) if mnemonic is None else None
    return await asyncio.to_thread(phrases.keys_of, mnemonic or phrase or ""), phrase


async def refuse(
    edges: Edges, watch: Watch, network: Network, payer: Payer, user: User, key: bytes
) -> tuple[User, Paid]:
    """Refuses, with the account's key, the account that was proposed in its place."""
    assert user.next_account is not None
    proposed = user.next_account.address

    async def signed() -> Call:
        nonce, deadline = await watch.nonce(user.uid), int(edges.clock()) + SIGNATURE_LASTS_S
        digest = veto_recovery_digest(network, user.uid, user.epoch, proposed, nonce, deadline)
        return edges.calls.veto_recovery_for(user.uid, deadline, sign_digest(key, digest))

    async def refused() -> User | None:
        found = await watch.user(user.uid)
        return found if found is not None and found.next_account is None else None

    async def shown() -> int | None:
        with suppress(ChainError):
            await watch.sync()
        return watch.head if await refused() is not None else None

    try:
        paid = await payer.carry_out(edges.calls.veto_recovery(), lambda: key, signed, shown)
    except LimitReached as spent:
        if spent.retry_after_ms or spent.hint:  # the relay's limit, not the contract's
            raise
        raise LimitReached(spent.message, VETO_SPENT) from spent
    return await watch.until(refused, "The refusal"), paid


def pending(user: User) -> PendingRecovery | None:
    """The account that was proposed in the place of the user's, if one was."""
    if user.next_account is None:
        return None
    waits = user.next_account
    return PendingRecovery(to_checksum(waits.address), second_text(waits.time), waits.block)


async def threat(watch: Watch, user: User, now: float) -> PendingRecovery | None:
    """The same, with from when on it can be refused, if it cannot now and the chain can be asked."""
    waits = pending(user)
    if waits is not None:
        with suppress(ChainError):
            since = await watch.veto_from(user.uid)
            return msgspec.structs.replace(waits, veto_from=second_text(since)) if since > now else waits
    return waits


def next_address(user: User) -> NextAddress | None:
    """The recovery address that was announced and does not count yet, if there is one."""
    waits = user.next_recovery
    return (
        None
        if waits is None
        else NextAddress(address_text(waits.address), second_text(waits.time), waits.block)
    )


def address_text(address: Address) -> str:
    """An address as people read it; empty for nobody."""
    return to_checksum(address) if any(address) else ""


def require_settled(user: User) -> None:
    """Raises RefusedError while a recovery by the account's recovery address is pending."""
    waiting = pending(user)
    if waiting is not None:
        raise RefusedError(
            f"A recovery of {user.username} is pending since block {waiting.block}: from {waiting.ready} on "
            f"{waiting.account} may become the account, and until this ends no device can be added.",
            "If you did not ask for it, refuse it: add --veto to `chatchain recover`. Else go on in the home "
            "that has the new account: `chatchain recover finalise`.",
        )


async def owner(watch: Watch, address: Address) -> User:
    """The user whose account this is; raises UnknownUser."""
    user = await watch.user_by_account(address)
    if user is None:
        raise UnknownUser(
            f"No account of this network belongs to this recovery phrase: {to_checksum(address)} is not "
            "registered here, or was replaced.",
            "Check the phrase and the network (--rpc, --directory). A new account is made from it by "
            "`chatchain register NAME --mnemonic-file F`.",
        )
    return user


# --- what a home does with it -------------------------------------------------------------------------------


async def identify(station: Station, mnemonic: str) -> Recoverable:
    """Whose account a phrase belongs to; see `Client.identify`."""
    keys = await asyncio.to_thread(phrases.keys_of, mnemonic)
    watch = Watch(station.edges.chain(station.settings(), None))
    await watch.sync()
    return _recoverable(await owner(watch, address_of(keys.account_key)), None)


async def recover(
    station: Station,
    mnemonic: str | None,
    *,
    choose: Choose,
    veto: bool = False,
    take_over: TakeOver | None = None,
) -> Recovered:
    """Makes a new home a device of the account of a phrase; see `Client.recover`.

    With `take_over` the home's account may still be one that was only proposed for the user.
    """
    require_post_quantum()
    home = station.home
    with home.tentative():
        keys = await asyncio.to_thread(phrases.keys_of, mnemonic) if mnemonic is not None else None
        goes_on = take_over is not None
        # What is wrong with a home that another process has is said first.
        _begun(home.account(), keys, goes_on=goes_on)
        settings = station.settings()
        home.acquire()
        begun = _begun(home.account(), keys, goes_on=goes_on)
        watch = Watch(station.edges.chain(settings, None))
        network = await watch.network()
        await watch.sync()
        if keys is not None:
            address = address_of(keys.account_key)
        else:
            assert begun is not None
            address = parse_address(begun.account)
        user = await _owner(watch, address, begun, may_take_over=take_over is not None)
        if not veto and begun is None:
            require_settled(user)
        writer = station.writer_for(settings, network)
        machine = Recovery(home, station.edges, watch, network, writer, station.stranger(watch))
        password = await station.require_password()
        if begun is not None:
            unlocked = await asyncio.to_thread(unlock, home, station.edges, password)
        else:
            assert keys is not None
            unlocked = await machine.furnish(user.username, keys, password, user)
    try:
        listed = machine.device_of(unlocked, user)
        offer = _recoverable(user, listed.device if listed is not None else None)
        lost = _lost(user, offer, choose(offer))
        home.put_network(msgspec.structs.replace(settings, chain_id=network.chain_id))
        key = account_key(home, unlocked.secrets)
        if take_over is not None and user.account != address:
            user = await take_over(machine, user, address, key)
        made = await machine.bring_back(unlocked, user, key, veto=veto)
    finally:
        unlocked.store.close()
        await station.hang_up()
    station.just_changed()
    for device in lost:
        await devices.revoke(station, device)
    return await _recovered(station, made, lost)


async def _owner(watch: Watch, address: Address, begun: OwnAccount | None, *, may_take_over: bool) -> User:
    """The user whose account this is, or who is to be taken over in the home where that was begun."""
    try:
        return await owner(watch, address)
    except UnknownUser:
        user = await watch.user_by_name(begun.username) if begun is not None else None
        if user is None:
            raise
    if may_take_over:
        return user
    raise RefusedError(
        f"The account of this home, {to_checksum(address)}, is not the one of {user.username}, which is "
        f"{to_checksum(user.account)}.",
        "If it is to take over: `chatchain recover finalise` says how that stands, and does it.",
    )


def _begun(account: OwnAccount | None, keys: PhraseKeys | None, *, goes_on: bool) -> OwnAccount | None:
    """Whose recovery was begun in this home, or finished where the phrase or the caller says that it is to go
    on; raises AlreadyDone for a home in other use.
    """
    if account is None:
        if keys is None:
            raise MissingInput("The recovery phrase is missing.", "Give it with --mnemonic-file FILE.")
        return None
    same = keys is None or parse_address(account.account) == address_of(keys.account_key)
    if account.restored and same and (keys is not None or goes_on or not account.uid):
        return account
    if account.restored and not account.uid:
        raise AlreadyDone(
            f"In this home the recovery of {account.username} was begun, with another phrase.",
            "Go on with that phrase, or choose another --home.",
        )
    require_new_home(account)
    raise AlreadyDone(
        f"In this home the registration of {account.username} was begun.",
        f"Go on with `chatchain register {account.username}`, or choose another --home.",
    )


def require_new_home(account: OwnAccount) -> None:
    """Raises AlreadyDone for a home that belongs to somebody or waits to be linked."""
    if account.uid:
        raise AlreadyDone(
            f"This home already belongs to {account.username}.", "Choose another --home or --user."
        )
    if account.linked:
        raise AlreadyDone(
            f"This home waits to be linked to the account of {account.username}.",
            "Bring the old device's answer: `chatchain link --answer TEXT`; or choose another --home.",
        )


def _recoverable(user: User, own: int | None) -> Recoverable:
    """The account that a phrase belongs to, with its other devices that are active."""
    return Recoverable(
        username=user.username,
        uid=user.uid,
        account=to_checksum(user.account),
        devices=tuple(key_view(d, here=False) for d in user.active_devices if d.device != own),
        pending=pending(user),
    )


def _lost(user: User, offer: Recoverable, chosen: Collection[int]) -> list[int]:
    """The chosen ones that are active still; raises UnknownDevice or UsageError before anything is sent."""
    active = {view.device for view in offer.devices}
    for number in sorted(set(chosen) - active):
        if not 1 <= number <= len(user.devices):
            raise UnknownDevice(
                f"{user.username} has no device {number} that could be revoked.",
                f"Active: {', '.join(str(one) for one in sorted(active)) or 'none'}. Nothing was changed.",
            )
        if user.devices[number - 1].state is DeviceState.ACTIVE:
            raise UsageError(f"Device {number} is this one.", "Name the devices that are lost.")
    return sorted(active & set(chosen))


def _require_own_number(made: Made) -> None:
    """Raises RefusedError when the chain gave the device another number than its record says."""
    listed = made.user.devices[made.device - 1]
    if decode_record(listed.current.record).device != made.device:
        raise RefusedError(
            f"Another device was added at the same moment, so this one became device {made.device}, which is "
            "not what its record says.",
            f"Recover again in another new --home, and there name it as lost: --revoke {made.device}.",
        )


async def publish_keys(station: Station) -> Problem | None:
    """Gives the relay this device's keys; why that did not work is told, and the next session tries again."""
    try:
        await station.publish(await station.connect())
    except NetworkError as unreachable:
        return problem_of(unreachable)
    return None


async def veto(station: Station) -> Vetoed:
    """Refuses the pending recovery of this home's account; see `Client.veto_recovery`."""
    acting = await Acting.at(station)
    await acting.watch.confirm(acting.me.uid)  # "nothing to refuse" must be no endpoint's invention
    require_same(acting.me, station.home.require_account())
    waiting = pending(acting.me)
    if waiting is None:
        raise NotFoundError(
            f"No recovery of {acting.me.username} is pending: there is nothing to refuse.",
            "`chatchain recover address` shows who could propose one.",
        )
    key = acting.account_key()
    user, paid = await refuse(acting.edges, acting.watch, acting.own.network, acting.payer, acting.me, key)
    own = key_view(user.devices[acting.own.device - 1], here=True)
    return Vetoed(
        username=user.username,
        uid=user.uid,
        account=to_checksum(user.account),
        refused=waiting.account,
        device=own.device,
        version=own.version,
        state=own.state,
        tx=paid.tx,
        block=paid.block,
    )


async def _recovered(station: Station, made: Made, lost: Collection[int]) -> Recovered:
    """Publishes the keys of the new device, pins what the chain lists, and tells how it stands."""
    desk = await station.desk()
    problem = await publish_keys(station)
    user = await desk.people.require(made.user.uid)
    await desk.people.vet(user, own=True)
    own = key_view(user.devices[made.device - 1], here=True)
    return Recovered(
        username=user.username,
        uid=user.uid,
        account=to_checksum(user.account),
        device=own.device,
        version=own.version,
        state=own.state,
        member=await station.require_watch().is_member(user.uid),
        revoked=tuple(sorted(lost)),
        others=tuple(int(d.device) for d in user.active_devices if d.device != made.device),
        tx=made.paid.tx,
        block=made.paid.block,
        sponsored=made.paid.sponsored,
        problem=problem,
        password_changed=made.password_changed,
        replaced=_replaced(user, made.device),
    )


def _replaced(user: User, device: int) -> str | None:
    """The account before, if this is the first device since another took its place."""
    if not user.former_accounts:
        return None
    former = user.former_accounts[-1]
    others = [one for one in user.devices if one.device != device]
    if any(one.history[0].block >= former.block for one in others):
        return None
    return to_checksum(former.account)
