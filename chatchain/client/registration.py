"""Accounts: making one, or bringing one back; each goes on where a crash broke off.

As with everything of an account, what a transaction will make true is stored in the home before it is sent. A
registration is unfinished while `account.json` has no uid.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from chatchain.client.account import (
    ACCOUNT_KEY,
    NEXT_VAULT,
    VAULT,
    Unlocked,
    account_key,
    add_device,
    holds,
    listed_with,
    number_of,
    set_verifier,
    unlock,
    with_verifier,
)
from chatchain.client.governance import Governance
from chatchain.client.home import Home, OwnAccount
from chatchain.client.paying import SIGNATURE_LASTS_S, Paid, Payer
from chatchain.client.ports import ChainWriter, Edges, NetworkSettings
from chatchain.client.session import Session
from chatchain.client.showing import problem_of
from chatchain.client.views import Problem, Registered
from chatchain.client.watch import Watch
from chatchain.crypto import password as passwords
from chatchain.crypto import phrase as phrases
from chatchain.crypto.derive import require_post_quantum
from chatchain.crypto.device import DeviceSecrets
from chatchain.crypto.keystore import import_keystore
from chatchain.crypto.vault import Secrets, new_secrets, seal_account_key, seal_vault
from chatchain.errors import (
    AlreadyDone,
    ChainError,
    CommitmentNeeded,
    NameUnavailable,
    NetworkError,
    RefusedError,
    UsageError,
)
from chatchain.identity.admission import Invitation, parse_invitation
from chatchain.identity.keys import NOBODY, address_of, parse_address, sign_digest, to_checksum
from chatchain.identity.login import verifier_for
from chatchain.identity.names import RESERVED_NAMES, normalise_username
from chatchain.identity.typed_data import register_digest
from chatchain.model import Address, Call, Mined, Network, OwnKeys, Policy, User

if TYPE_CHECKING:
    from chatchain.client.station import Station

PHRASE: Final = "phrase"
"""The setting that holds a new phrase until it was shown."""


@dataclass(frozen=True)
class Made:
    """What became of a registration."""

    user: User
    device: int
    paid: Paid
    restored: bool


class Registration:
    """Makes an account, or makes this home a new device of one."""

    def __init__(
        self,
        home: Home,
        edges: Edges,
        watch: Watch,
        network: Network,
        writer: ChainWriter,
        connect: Callable[[], Awaitable[Session]],
        invitation: Invitation | None = None,
    ) -> None:
        """`connect` opens a session without login, for the sponsor."""
        self._home = home
        self._edges = edges
        self._watch = watch
        self._network = network
        self._writer = writer
        self._connect = connect
        self._invitation = invitation

    async def prepare(
        self, name: str, password: str, *, mnemonic: str | None, keystore: tuple[str, str] | None
    ) -> Unlocked:
        """Checks the wishes and stores every secret in the home; nothing is sent."""
        require_post_quantum()
        username = normalise_username(name)
        account = self._home.account()
        if account is not None:
            return await self._resume(account, username, password)
        phrase = None
        if keystore is not None:
            key = await asyncio.to_thread(import_keystore, *keystore)
            keys = phrases.PhraseKeys(key, os.urandom(passwords.ACCOUNT_SECRET_BYTES))
        elif mnemonic is not None:
            keys = await asyncio.to_thread(phrases.keys_of, mnemonic)
        else:
            phrase = await asyncio.to_thread(phrases.new_phrase)
            keys = await asyncio.to_thread(phrases.keys_of, phrase)
        address = address_of(keys.account_key)
        user = await self._watch.user_by_address(address)
        if user is None:
            await _require_free(self._watch, username)
            passwords.check_password(password, [username])
        elif user.username != username:
            raise UsageError(
                f"This recovery phrase belongs to {user.username}, not to {username}.",
                f"Restore it with `chatchain register {user.username} --mnemonic-file F`.",
            )
        secrets = await asyncio.to_thread(_home_secrets, password, keys.account_secret, user)
        vault = await asyncio.to_thread(seal_vault, secrets, password)
        return self._store_all(username, address, keys.account_key, secrets, vault, phrase)

    async def require_possible(self, name: str, *, restores: bool) -> None:
        """Raises what can be known to fail before the person is asked for a password."""
        username = normalise_username(name)
        account = self._home.account()
        if account is not None:
            require_unfinished(account)
        elif not restores:
            await _require_free(self._watch, username)

    async def _resume(self, account: OwnAccount, username: str, password: str) -> Unlocked:
        require_unfinished(account)
        unlocked = await asyncio.to_thread(unlock, self._home, self._edges, password)
        if account.username == username:
            return unlocked
        address = parse_address(account.account)
        if await self._watch.user_by_address(address) is not None:
            raise AlreadyDone(
                f"This home already has the account of {account.username}.",
                f"Go on with `chatchain register {account.username}`.",
            )
        await _require_free(self._watch, username)
        renamed = msgspec.structs.replace(account, username=username)
        self._home.put_account(renamed)
        return replace(unlocked, account=renamed)

    def _store_all(
        self, username: str, address: Address, key: bytes, secrets: Secrets, vault: bytes, phrase: str | None
    ) -> Unlocked:
        """Writes the home, the file that says whose it is last: without it nothing here counts yet."""
        home = self._home
        for leftover in ("messages.db", "messages.db-wal", "messages.db-shm", NEXT_VAULT):
            home.remove(leftover)
        home.write(VAULT, vault)
        home.write(ACCOUNT_KEY, seal_account_key(secrets.keystore_key, key))
        store = self._edges.open_store(home.database, secrets.database_key)
        store.put_own_keys(OwnKeys(1, DeviceSecrets.generate().encode()))
        if phrase is not None:
            store.set_setting(PHRASE, phrase.encode())
        account = OwnAccount(
            username, to_checksum(address), self._network.chain_id, to_checksum(self._network.directory)
        )
        home.put_account(account)
        return Unlocked(account, secrets, store, from_next=False)

    async def carry_out(self, unlocked: Unlocked) -> Made:
        """Gets the account or device onto the chain, unless it is there already, and notes it in the home."""
        key = account_key(self._home, unlocked.secrets)
        address = address_of(key)
        device = DeviceSecrets.decode(unlocked.store.own_keys()[-1].secret)
        user = await self._watch.user_by_address(address)
        if user is None:
            made = await self._register(unlocked, key, device)
        elif (number := number_of(user, device.signer_address)) is not None:
            made = Made(user, number, Paid("", user.block, sponsored=False), restored=number != 1)
        else:
            made = await self._add_device(unlocked, user, key, device)
        if not holds(made.user, unlocked.secrets):
            paid = await self._set_verifier(made.user, unlocked.secrets, key)
            made = replace(made, paid=paid if not made.paid.tx else made.paid)
        self._home.put_account(
            msgspec.structs.replace(unlocked.account, uid=made.user.uid, device=made.device)
        )
        return made

    async def _register(self, unlocked: Unlocked, key: bytes, device: DeviceSecrets) -> Made:
        network, address, username = self._network, address_of(key), unlocked.account.username
        verifier = verifier_for(unlocked.secrets.login_key, unlocked.secrets.kdf)
        kdf, signer = unlocked.secrets.kdf, device.signer_address
        record = device.record(network, address, uid=0, device=1, version=1)
        calls = self._edges.calls

        async def signed() -> Call:
            deadline = self._deadline()
            digest = register_digest(
                network, username, address, verifier, kdf, NOBODY, signer, record, deadline
            )
            return calls.register_for(
                address, username, verifier, kdf, NOBODY, signer, record, deadline, sign_digest(key, digest)
            )

        async def direct() -> Mined:
            call = calls.register(username, verifier, kdf, NOBODY, signer, record)
            try:
                return await asyncio.to_thread(self._writer.send, call, key)
            except CommitmentNeeded:
                pass
            commitment = calls.commit_registration(username, address, verifier)
            with suppress(AlreadyDone):  # an earlier run's is as good
                await asyncio.to_thread(self._writer.send, commitment, key)
            return await asyncio.to_thread(partial(self._writer.send, call, key, next_block=True))

        async def shown() -> int | None:
            # An earlier run's transaction may have been mined meanwhile; then ours had to fail.
            with suppress(ChainError):
                await self._watch.sync()
            done = await self._watch.user_by_address(address)
            same = done is not None and done.username == username and number_of(done, signer) is not None
            return done.block if same and done is not None else None

        paid = await self._payer(address).register(direct, signed, shown, self._invitation)

        async def listed() -> User | None:
            return await self._watch.user_by_address(address)

        user = await self._watch.until(listed, f"The registration of {username}")
        return Made(user, number_of(user, signer) or 1, paid, restored=False)

    async def _add_device(self, unlocked: Unlocked, user: User, key: bytes, device: DeviceSecrets) -> Made:
        network, signer = self._network, device.signer_address
        number = len(user.devices) + 1
        record = device.record(network, user.account, uid=user.uid, device=number, version=1)
        payer = self._payer(user.account)
        paid = await add_device(self._edges, self._watch, network, payer, user, signer, record, key)
        found = await self._watch.until(
            lambda: listed_with(self._watch, user, signer), f"The new device of {user.username}"
        )
        return Made(found, number_of(found, signer) or number, paid, restored=True)

    async def _set_verifier(self, user: User, secrets: Secrets, key: bytes) -> Paid:
        return await set_verifier(
            self._edges, self._watch, self._network, self._payer(user.account), user, secrets, key
        )

    def _payer(self, address: Address) -> Payer:
        return Payer(self._writer, address, self._connect)

    def _deadline(self) -> int:
        return int(self._edges.clock()) + SIGNATURE_LASTS_S


def require_unfinished(account: OwnAccount) -> None:
    """Raises AlreadyDone for a home whose registration is finished."""
    if account.uid:
        raise AlreadyDone(
            f"This home already belongs to {account.username}.", "Choose another --home or --user."
        )
    if account.linked:
        raise AlreadyDone(
            f"This home waits to be linked to the account of {account.username}.",
            "Bring the old device's answer: `chatchain link --answer TEXT`; or choose another --home.",
        )


async def _require_free(watch: Watch, username: str) -> None:
    """Raises NameUnavailable for a name that nobody new can have."""
    if username in RESERVED_NAMES:
        raise NameUnavailable(f"The name {username} is reserved.")
    if await watch.user_by_name(username) is not None:
        raise NameUnavailable(
            f"The name {username} is taken.",
            "Choose another name; if it is yours, restore it with its recovery phrase (--mnemonic-file).",
        )


def _home_secrets(password: str, account_secret: bytes, user: User | None) -> Secrets:
    """The keys of a new home. Where the account's verifier holds for this password, its KDF parameters are
    kept.
    """
    secrets = new_secrets(password, account_secret)
    return (with_verifier(secrets, password, user) if user is not None else None) or secrets


async def register(
    station: Station,
    name: str,
    *,
    mnemonic: str | None = None,
    keystore: tuple[str, str] | None = None,
    on_phrase: Callable[[str], None] | None = None,
    invitation: str | None = None,
) -> Registered:
    """Makes an account, brings one back, or goes on where a crash broke off; see `Client.register`."""
    with station.home.tentative():
        settings, network, registration, unlocked = await _prepared(
            station, name, mnemonic, keystore, invitation
        )
    try:
        phrase = unlocked.store.setting(PHRASE)
        if phrase is not None and on_phrase is not None:
            on_phrase(phrase.decode())
            unlocked.store.set_setting(PHRASE, None)
        station.home.put_network(msgspec.structs.replace(settings, chain_id=network.chain_id))
        made = await registration.carry_out(unlocked)
        station.home.put_network(msgspec.structs.replace(settings, chain_id=network.chain_id, invitation=""))
    finally:
        unlocked.store.close()
        await station.hang_up()
    station.just_changed()
    problem, proposal = await settle_in(station, made.user)
    user = made.user
    return Registered(
        username=user.username,
        uid=user.uid,
        account=to_checksum(user.account),
        device=made.device,
        tx=made.paid.tx,
        block=made.paid.block,
        member=await station.require_watch().is_member(user.uid),
        proposal=proposal,
        restored=made.restored,
        sponsored=made.paid.sponsored,
        problem=problem,
    )


async def _prepared(
    station: Station,
    name: str,
    mnemonic: str | None,
    keystore: tuple[str, str] | None,
    invitation: str | None,
) -> tuple[NetworkSettings, Network, Registration, Unlocked]:
    """Everything of a registration that comes before something is sent."""
    normalise_username(name)
    settings = station.settings()
    if invitation is not None:
        settings = msgspec.structs.replace(settings, invitation=parse_invitation(invitation).text())
    station.home.acquire()
    watch = Watch(station.edges.chain(settings, None))
    network = await watch.network()
    await watch.sync()
    registration = Registration(
        station.home,
        station.edges,
        watch,
        network,
        station.writer_for(settings, network),
        station.stranger(watch),
        parse_invitation(settings.invitation) if settings.invitation else None,
    )
    await registration.require_possible(name, restores=mnemonic is not None or keystore is not None)
    password = await station.require_password()
    unlocked = await registration.prepare(name, password, mnemonic=mnemonic, keystore=keystore)
    return settings, network, registration, unlocked


async def require_free(station: Station, name: str) -> None:
    """Raises what would keep a new account from having this name; nothing is sent, no new home stays then."""
    username = normalise_username(name)
    with station.home.tentative():
        if (account := station.home.account()) is not None:
            require_unfinished(account)
        watch = Watch(station.edges.chain(station.settings(), None))
        await watch.sync()
        await _require_free(watch, username)


async def settle_in(station: Station, user: User) -> tuple[Problem | None, int | None]:
    """Publishes the keys and opens the request to join; the account stands even if that fails."""
    try:
        await station.desk()
        problem = None
        try:
            await station.publish(await station.connect())
        except NetworkError as unreachable:
            problem = problem_of(unreachable)
        watch = station.require_watch()
        group = await watch.group()
        # Before founders are seated there is nobody who could vote on a request.
        if group.policy is Policy.OPEN or not group.members or await watch.is_member(user.uid):
            return problem, None
        return problem, (await (await Governance.at(station)).request(0)).id
    except (NetworkError, ChainError, RefusedError) as failed:
        return problem_of(failed), None
