"""Linking a new device: what the new one asks, what an old one gives, and how the new one moves in.

The texts and their cryptography are crypto.linking's. As with a registration, what a step will make true is
stored before it is told: the new device keeps its keys and its request in its home until the answer has
come, and either step may be repeated after a crash.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from chatchain.client import handover, wallet
from chatchain.client.account import (
    NEXT_VAULT,
    VAULT,
    Consent,
    Unlocked,
    add_device,
    listed_with,
    unlock,
    with_verifier,
)
from chatchain.client.acting import Acting
from chatchain.client.devices import fingerprint_of
from chatchain.client.home import Home, OwnAccount, require_new, write_new
from chatchain.client.paying import Paid
from chatchain.client.ports import Edges, Store
from chatchain.client.registration import settle_in
from chatchain.client.session import Credentials
from chatchain.client.times import second_text
from chatchain.client.views import LinkAccepted, Linked, LinkOffer, LinkRequest, WalletPrompt
from chatchain.client.watch import Watch
from chatchain.crypto import linking
from chatchain.crypto.derive import require_post_quantum
from chatchain.crypto.device import DeviceSecrets
from chatchain.crypto.linking import Handed, Request
from chatchain.crypto.password import ACCOUNT_SECRET_BYTES
from chatchain.crypto.vault import Secrets, new_secrets, seal_vault
from chatchain.errors import (
    AccountKeyElsewhere,
    AlreadyDone,
    BadRecord,
    NoAccount,
    NotAMember,
    RefusedError,
    UnknownUser,
    UsageError,
    WrongPassword,
)
from chatchain.identity.keys import to_checksum
from chatchain.identity.names import normalise_username
from chatchain.identity.record import DeviceRecord, decode_record
from chatchain.model import (
    DeviceState,
    Network,
    OwnKeys,
    Uid,
    User,
)

if TYPE_CHECKING:
    from chatchain.client.station import Station

PENDING: Final = "link"
"""The setting that holds the request and the secret to its answer, until the device has moved in."""

ATTEMPTS: Final = 4
"""How many passwords are tried before a new device moves in, the one that it was begun with first."""

T = TypeVar("T")


class _Pending(msgspec.Struct, frozen=True, array_like=True):
    record: bytes
    ephemeral: bytes
    secret: bytes

    @property
    def request(self) -> Request:
        return linking.request(self.record, self.ephemeral, self.secret)


@dataclass(frozen=True)
class Asked:
    """A request as the new device shows it."""

    account: OwnAccount
    uid: Uid
    device: int
    request: Request


@dataclass(frozen=True)
class MovedIn:
    """What became of a linking."""

    account: OwnAccount
    user: User
    password: str
    """The account's, which opens this home from now on."""
    contacts: int
    messages: int


class Newcomer:
    """The new device's side."""

    def __init__(self, home: Home, edges: Edges, watch: Watch, network: Network) -> None:
        self._home = home
        self._edges = edges
        self._watch = watch
        self._network = network

    async def ask(self, name: str, password: str, *, again: bool) -> Asked:
        """Makes the request, or gives the one that was made before; `again` begins anew."""
        require_post_quantum()
        username = normalise_username(name)
        account = self._home.account()
        if account is not None:
            require_linkable(account, username)
        user = await self._watch.user_by_name(username)
        if user is None:
            raise UnknownUser(
                f"Nobody is registered as {username}.", "A new account is made by `chatchain register`."
            )
        if account is not None and not again:
            unlocked = await asyncio.to_thread(unlock, self._home, self._edges, password)
            try:
                kept = self._kept(unlocked.store, user)
            finally:
                unlocked.store.close()
            if kept is not None:
                return _asked(account, kept.request)
        return await self._begin(username, user, password)

    def _kept(self, store: Store, user: User) -> _Pending | None:
        """The request that was made before, if it may still be answered."""
        data = store.setting(PENDING)
        kept = msgspec.msgpack.decode(data, type=_Pending) if data is not None else None
        try:
            if kept is not None:
                linking.verify_request(kept.request, self._network, user)
        except BadRecord:
            return None
        return kept

    async def _begin(self, username: str, user: User, password: str) -> Asked:
        secrets = await asyncio.to_thread(new_secrets, password, os.urandom(ACCOUNT_SECRET_BYTES))
        vault = await asyncio.to_thread(seal_vault, secrets, password)
        device, number = DeviceSecrets.generate(), len(user.devices) + 1
        record = device.record(self._network, user.account, uid=user.uid, device=number, version=1)
        pending = _Pending(record, os.urandom(32), os.urandom(32))
        for leftover in ("messages.db", "messages.db-wal", "messages.db-shm", NEXT_VAULT):
            self._home.remove(leftover)
        self._home.write(VAULT, vault)
        store = self._edges.open_store(self._home.database, secrets.database_key)
        try:
            store.put_own_keys(OwnKeys(1, device.encode()))
            store.set_setting(PENDING, msgspec.msgpack.encode(pending))
        finally:
            store.close()
        account = OwnAccount(
            username,
            to_checksum(user.account),
            self._network.chain_id,
            to_checksum(self._network.directory),
            linked=True,
        )
        self._home.put_account(account)
        return _asked(account, pending.request)

    async def move_in(
        self,
        unlocked: Unlocked,
        password: str,
        text: str,
        history: bytes | None,
        *,
        without: bool,
        ask: Callable[[], str] | None,
    ) -> MovedIn:
        """Takes the old device's answer, once the chain lists this device; stores what is handed over.

        The history comes from the relay unless it is given, or not wanted (`without`). When this home was
        begun with another password than the account's, which nothing shows before, `ask` gives the right one;
        raises WrongPassword without it.
        """
        data = unlocked.store.setting(PENDING)
        if data is None:
            raise BadRecord("This home holds no request to be answered.", "Run `chatchain link NAME`.")
        pending = msgspec.msgpack.decode(data, type=_Pending)
        record = decode_record(pending.record)
        given = read(linking.decode_answer, text)
        asked_of = await self._watch.user(Uid(record.uid))
        if asked_of is None:
            raise UnknownUser(f"The chain does not know {unlocked.account.username} any more.")
        handed = linking.open_answer(given, pending.request, pending.ephemeral, self._network, asked_of)
        user = await self._watch.until(
            lambda: listed_with(self._watch, asked_of, record.signer), "This device"
        )
        secrets, password = await self._secrets(unlocked.secrets, handed, password, user, ask)
        told = handover.NOTHING
        if handed.history is not None and not without:
            keys = DeviceSecrets.decode(unlocked.store.own_keys()[-1].secret)
            who = Credentials(
                user.uid, record.device, user.epoch, secrets.kdf, secrets.login_key, keys.signer
            )
            way = (self._edges, self._watch, self._network, who)
            sealed = history or await handover.fetch(*way, handed.history, handed.blob)
            told = handover.open_history(handed.history, sealed)
        elif history is not None:
            raise UsageError("The answer hands over no history, so the file is not its own.")
        new = unlocked.store.adopt(told.contacts, told.peers, told.messages)
        self._home.write(VAULT, await asyncio.to_thread(seal_vault, secrets, password))
        account = msgspec.structs.replace(unlocked.account, uid=user.uid, device=record.device)
        self._home.put_account(account)
        unlocked.store.set_setting(PENDING, None)
        return MovedIn(account, user, password, len(told.contacts), new)

    async def _secrets(
        self, secrets: Secrets, handed: Handed, password: str, user: User, ask: Callable[[], str] | None
    ) -> tuple[Secrets, str]:
        """The home's secrets under the account's password, and that password, which may be asked for."""
        with_secret = replace(secrets, account_secret=handed.account_secret)
        for left in reversed(range(ATTEMPTS if ask is not None else 1)):
            known = await asyncio.to_thread(with_verifier, with_secret, password, user)
            if known is not None:
                return known, password
            if left and ask is not None:
                password = await asyncio.to_thread(ask)
        raise WrongPassword(
            f"This is not the password of {user.username}'s account, so this device could not log in.",
            "Bring the same answer again and give the account's password when you are asked for it, or in a "
            "file: --account-password-file FILE.",
        )


@dataclass(frozen=True)
class Host(Acting):
    """The old device's side."""

    def inspect(self, text: str) -> tuple[Request, DeviceRecord]:
        """Reads the new device's text and says what it would add; raises UsageError or BadRecord."""
        asked = read(linking.decode_request, text)
        return asked, linking.verify_request(asked, self.own.network, self.me)

    async def admit(self, asked: Request, record: DeviceRecord, consent: Consent | None) -> Paid | None:
        """Has the chain list the new device, by the account's key here or its consent from elsewhere; None
        when it does already.
        """
        if len(self.me.devices) >= record.device:
            return None
        paid = await add_device(
            self.edges,
            self.watch,
            self.own.network,
            self.payer,
            self.me,
            record.signer,
            asked.record,
            self.account_key,
            consent,
        )
        user = await self.watch.until(
            lambda: listed_with(self.watch, self.me, record.signer), "The new device"
        )
        number = next(each.device for each in user.active_devices if each.current.signer == record.signer)
        if number != record.device:
            raise RefusedError(
                f"Another device was added at the same moment, so this one became device {number}, "
                "which is not what its record says.",
                f"Run `chatchain keys revoke {number}`, and `chatchain link NAME --again` on the new device.",
            )
        return paid

    def answer(self, asked: Request, packed: handover.Packed | None) -> str:
        """The text for the new device."""
        handed = Handed(self.unlocked.secrets.account_secret)
        if packed is not None:
            handed = Handed(handed.account_secret, packed.file, hashlib.sha256(packed.blob).digest())
        return linking.answer(
            asked,
            handed,
            self.own.secrets,
            uid=self.own.uid,
            device=self.own.device,
            version=self.own.version,
        ).encode()


def require_linkable(account: OwnAccount, username: str) -> None:
    """Raises AlreadyDone for a home that belongs to an account, or to another linking or registration."""
    if account.uid:
        raise AlreadyDone(
            f"This home already belongs to {account.username}.", "Choose another --home or --user."
        )
    if not account.linked:
        raise AlreadyDone(
            f"In this home the registration of {account.username} was begun.",
            f"Go on with `chatchain register {account.username}`, or choose another --home.",
        )
    if account.username != username:
        raise AlreadyDone(
            f"This home waits to be linked to the account of {account.username}.", "Choose another --home."
        )


def read(decode: Callable[[str], T], text: str) -> T:
    """Reads a text that a person brought; raises UsageError when it is none: nothing failed to verify."""
    try:
        return decode(text)
    except BadRecord as unreadable:
        raise UsageError(unreadable.message, unreadable.hint or "Copy the text again, whole.") from unreadable


def code(asked: Request) -> str:
    """The digits that both devices show."""
    return linking.code(asked)


def _asked(account: OwnAccount, made: Request) -> Asked:
    record = decode_record(made.record)
    return Asked(account, Uid(record.uid), record.device, made)


async def ask(station: Station, name: str, *, again: bool = False) -> LinkRequest:
    """Makes this home ready to become a device of an account, and gives the text; see `Client.link`."""
    normalise_username(name)
    with station.home.tentative():
        settings = station.settings()
        station.home.acquire()
        watch = Watch(station.edges.chain(settings, None))
        network = await watch.network()
        await watch.sync()
        if (account := station.home.account()) is not None:
            require_linkable(account, normalise_username(name))
        password = await station.require_password()
        newcomer = Newcomer(station.home, station.edges, watch, network)
        asked = await newcomer.ask(name, password, again=again)
        station.home.put_network(msgspec.structs.replace(settings, chain_id=network.chain_id))
    record = decode_record(asked.request.record)
    return LinkRequest(
        request=asked.request.encode(),
        code=code(asked.request),
        username=asked.account.username,
        uid=asked.uid,
        device=asked.device,
        version=record.version,
        state="waiting",
        fingerprint=fingerprint_of(record),
    )


async def inspect(station: Station, text: str) -> LinkOffer:
    """Reads a new device's text and says what accepting it would do; nothing is changed."""
    host = await Host.at(station)
    asked, record = host.inspect(text)
    return LinkOffer(
        code=code(asked),
        username=host.me.username,
        device=record.device,
        signer=to_checksum(record.signer),
        fingerprint=fingerprint_of(record),
        added=len(host.me.devices) >= record.device,
    )


async def ask_wallet(station: Station, text: str) -> WalletPrompt:
    """Makes what a wallet signs to add the device of this text; see `Client.ask_wallet`."""
    host = await Host.at(station)
    asked, record = host.inspect(text)
    shown, until = await wallet.ask(host, asked.record, record)
    return WalletPrompt(
        typed_data=shown,
        account=to_checksum(host.me.account),
        username=host.me.username,
        uid=host.me.uid,
        device=record.device,
        version=record.version,
        state="waiting",
        code=code(asked),
        until=second_text(until),
    )


def _require_key(station: Station) -> None:
    """Raises AccountKeyElsewhere in a home without the account's key, before anything is left at a relay."""
    try:
        station.account_key()
    except AccountKeyElsewhere as elsewhere:
        raise AccountKeyElsewhere(
            elsewhere.message,
            f"{elsewhere.hint} If a wallet has the key: add --wallet, which shows what it is to sign.",
        ) from elsewhere


async def accept(
    station: Station,
    text: str,
    *,
    file: Path | None = None,
    through_relay: bool = False,
    signature: str | None = None,
) -> LinkAccepted:
    """Adds the device to the account and gives the answer for it; see `Client.accept_link`."""
    host = await Host.at(station)
    if signature is None:
        _require_key(station)
    asked, record = host.inspect(text)
    consent = await wallet.consent(host, asked.record, record, signature) if signature is not None else None
    packed = None
    if file is not None:
        require_new(file)
    if file is not None or through_relay:
        packed = await asyncio.to_thread(handover.pack, host.store, host.own.uid)
    if packed is not None and through_relay:
        secrets, signer = host.unlocked.secrets, host.own.secrets.signer
        me, device = host.me, host.own.device
        who = Credentials(me.uid, device, me.epoch, secrets.kdf, secrets.login_key, signer)
        try:
            await handover.leave(host.edges, host.watch, host.own.network, who, packed)
        except NotAMember as refused:  # being admitted is the one thing that need not be waited for here
            raise NotAMember(
                "The relay hands over contacts and messages for members only; the device was not added.",
                "Hand nothing over (--no-history), or in a file that you carry (--history FILE).",
            ) from refused
    paid = await host.admit(asked, record, consent)
    if packed is not None and file is not None:
        write_new(file, packed.blob)
    await station.forget_desk()
    return LinkAccepted(
        answer=host.answer(asked, packed),
        code=code(asked),
        username=host.me.username,
        uid=host.me.uid,
        device=record.device,
        version=record.version,
        state=DeviceState.ACTIVE.name.lower(),
        history=str(file) if file is not None else None,
        contacts=packed.contacts if packed is not None else 0,
        messages=packed.messages if packed is not None else 0,
        tx=paid.tx if paid is not None else None,
    )


async def finish(
    station: Station,
    text: str,
    *,
    history: bytes | None = None,
    without_history: bool = False,
    account_password: Callable[[], str] | None = None,
) -> Linked:
    """Takes the old device's answer and publishes this one's keys; see `Client.finish_link`."""
    home = station.home
    account = home.account()
    if account is None or account.uid or not account.linked:
        raise NoAccount(
            "This home does not wait for an answer.",
            "On the new device, begin with `chatchain link NAME`.",
        )
    settings = station.settings()
    home.acquire()
    password = await station.require_password()
    unlocked = await asyncio.to_thread(unlock, home, station.edges, password)
    try:
        watch = Watch(station.edges.chain(settings, None))
        await watch.sync()
        newcomer = Newcomer(home, station.edges, watch, await watch.network())
        moved = await newcomer.move_in(
            unlocked, password, text, history, without=without_history, ask=account_password
        )
    finally:
        unlocked.store.close()
    station.password = moved.password
    station.just_changed()
    problem, _ = await settle_in(station, moved.user)
    device = moved.user.devices[moved.account.device - 1]
    return Linked(
        username=moved.user.username,
        uid=moved.user.uid,
        account=to_checksum(moved.user.account),
        device=device.device,
        version=device.current.version,
        state=device.state.name.lower(),
        contacts=moved.contacts,
        messages=moved.messages,
        problem=problem,
    )
