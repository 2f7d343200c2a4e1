"""Accounts: making one, bringing one back, changing its password; each goes on where a crash broke off.

The rule throughout: what a transaction will make true is stored here before it is sent, and which of two
things is true is asked of the chain. A registration is unfinished while `account.json` has no uid; a password
change while `vault.new` exists.
"""

from __future__ import annotations

import asyncio
import hmac
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import msgspec

from chatchain.client.home import Home, OwnAccount
from chatchain.client.paying import SIGNATURE_LASTS_S, Paid, Payer
from chatchain.client.ports import ChainWriter, Edges, Store
from chatchain.client.session import Session
from chatchain.client.watch import Watch
from chatchain.crypto import password as passwords
from chatchain.crypto import phrase as phrases
from chatchain.crypto.derive import require_post_quantum
from chatchain.crypto.device import DeviceSecrets
from chatchain.crypto.keystore import import_keystore
from chatchain.crypto.vault import (
    Secrets,
    new_secrets,
    open_account_key,
    open_vault,
    seal_account_key,
    seal_vault,
    with_new_password,
)
from chatchain.errors import (
    AccountKeyElsewhere,
    AlreadyDone,
    BadRecord,
    ChainError,
    CommitmentNeeded,
    NameUnavailable,
    NoAccount,
    UsageError,
    WrongPassword,
)
from chatchain.identity.admission import Invitation
from chatchain.identity.keys import NOBODY, address_of, sign_digest, to_checksum
from chatchain.identity.login import verifier_for
from chatchain.identity.names import RESERVED_NAMES, normalise_username
from chatchain.identity.typed_data import add_device_digest, register_digest, set_verifier_digest
from chatchain.model import Address, Call, Mined, Network, OwnKeys, User

VAULT: Final = "vault"
NEXT_VAULT: Final = "vault.new"
ACCOUNT_KEY: Final = "account.key"
NEXT_VERIFIER: Final = "next_verifier"
"""The setting that holds the verifier that belongs to `vault.new`: public, and compared with the chain's."""
PHRASE: Final = "phrase"
"""The setting that holds a new phrase until it was shown."""


@dataclass(frozen=True, repr=False)
class Unlocked:
    """A home opened with its password."""

    account: OwnAccount
    secrets: Secrets
    store: Store
    from_next: bool
    """Whether the password is the one of an unfinished change."""


def unlock(home: Home, edges: Edges, password: str) -> Unlocked:
    """Opens the vault and the database; raises WrongPassword. Runs Argon2id: call it in a thread."""
    account = home.account()
    data = home.read(VAULT)
    if account is None or data is None:
        raise NoAccount(f"There is no account in {home.path} yet.")
    following = home.read(NEXT_VAULT)
    from_next = False
    try:
        secrets = open_vault(data, password)
    except WrongPassword:
        if following is None:
            raise
        secrets = open_vault(following, password)
        from_next = True
    return Unlocked(account, secrets, edges.open_store(home.database, secrets.database_key), from_next)


def account_key(home: Home, secrets: Secrets) -> bytes:
    """The account's key, from its own file; raises AccountKeyElsewhere in a linked home."""
    account = home.account()
    if account is not None and account.linked:
        raise AccountKeyElsewhere("This device was linked: it does not hold the account's key.")
    data = home.read(ACCOUNT_KEY)
    if data is None:
        raise BadRecord(
            "The account key file of this home is missing.",
            "Restore it from a backup, or the account from its recovery phrase.",
        )
    return open_account_key(secrets.keystore_key, data)


def reconcile_password(home: Home, unlocked: Unlocked, user: User) -> None:
    """Finishes a password change that a crash broke off, or says which password counts.

    The chain holds one verifier; the password given opened one of two vaults.
    """
    held = holds(user, unlocked.secrets)
    if held and unlocked.from_next:
        home.replace(NEXT_VAULT, VAULT)
    elif not held and unlocked.from_next:
        raise WrongPassword(
            "The change to this password was not completed: the chain still has the old one.",
            "Use the old password, or wait if the change was sent just now, and change it again.",
        )
    elif not held and unlocked.store.setting(NEXT_VERIFIER) == user.verifier:
        raise WrongPassword("The password was changed: the chain has the new one.", "Use the new password.")
    elif not held:
        raise WrongPassword(
            "The account's password was changed on another device; this home still opens with the old one.",
            "Run `chatchain password` here to set one password for both again.",
        )


# --- making and restoring ---------------------------------------------------------------------------------


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
            await require_free(self._watch, username)
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
            await require_free(self._watch, username)

    async def _resume(self, account: OwnAccount, username: str, password: str) -> Unlocked:
        require_unfinished(account)
        unlocked = await asyncio.to_thread(unlock, self._home, self._edges, password)
        if account.username == username:
            return unlocked
        address = _parse(account.account)
        if await self._watch.user_by_address(address) is not None:
            raise AlreadyDone(
                f"This home already has the account of {account.username}.",
                f"Go on with `chatchain register {account.username}`.",
            )
        await require_free(self._watch, username)
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
        elif (number := _number_of(user, device.signer_address)) is not None:
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
            same = done is not None and done.username == username and _number_of(done, signer) is not None
            return done.block if same and done is not None else None

        paid = await self._payer(address).register(direct, signed, shown, self._invitation)

        async def listed() -> User | None:
            return await self._watch.user_by_address(address)

        user = await self._watch.until(listed, f"The registration of {username}")
        return Made(user, _number_of(user, signer) or 1, paid, restored=False)

    async def _add_device(self, unlocked: Unlocked, user: User, key: bytes, device: DeviceSecrets) -> Made:
        network, signer = self._network, device.signer_address
        number = len(user.devices) + 1
        record = device.record(network, user.account, uid=user.uid, device=number, version=1)
        payer = self._payer(user.account)
        paid = await add_device(self._edges, self._watch, network, payer, user, signer, record, key)
        found = await self._watch.until(
            lambda: listed_with(self._watch, user, signer), f"The new device of {user.username}"
        )
        return Made(found, _number_of(found, signer) or number, paid, restored=True)

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


async def require_free(watch: Watch, username: str) -> None:
    """Raises NameUnavailable for a name that nobody new can have."""
    if username in RESERVED_NAMES:
        raise NameUnavailable(f"The name {username} is reserved.")
    if await watch.user_by_name(username) is not None:
        raise NameUnavailable(
            f"The name {username} is taken.",
            "Choose another name; if it is yours, restore it with its recovery phrase (--mnemonic-file).",
        )


async def add_device(
    edges: Edges,
    watch: Watch,
    network: Network,
    payer: Payer,
    user: User,
    signer: Address,
    record: bytes,
    key: bytes,
) -> Paid:
    """Adds a device to the account whose key this is; `listed_with` tells when the chain has it."""

    async def signed() -> Call:
        nonce, deadline = await watch.nonce(user.uid), int(edges.clock()) + SIGNATURE_LASTS_S
        digest = add_device_digest(network, user.uid, user.epoch, signer, record, nonce, deadline)
        return edges.calls.add_device_for(user.uid, signer, record, deadline, sign_digest(key, digest))

    async def shown() -> int | None:
        with suppress(ChainError):
            await watch.sync()
        found = await listed_with(watch, user, signer)
        return found.block if found is not None else None

    return await payer.carry_out(edges.calls.add_device(signer, record), lambda: key, signed, shown)


async def listed_with(watch: Watch, user: User, signer: Address) -> User | None:
    """The user as soon as one of its active devices has this signer."""
    found = await watch.user(user.uid)
    return found if found is not None and _number_of(found, signer) is not None else None


async def set_verifier(
    edges: Edges, watch: Watch, network: Network, payer: Payer, user: User, secrets: Secrets, key: bytes
) -> Paid:
    """Sets the chain's verifier to the one of these secrets and waits until it is in force."""
    verifier, kdf = verifier_for(secrets.login_key, secrets.kdf), secrets.kdf

    async def signed() -> Call:
        nonce, deadline = await watch.nonce(user.uid), int(edges.clock()) + SIGNATURE_LASTS_S
        digest = set_verifier_digest(network, user.uid, user.epoch, verifier, kdf, nonce, deadline)
        return edges.calls.set_verifier_for(user.uid, verifier, kdf, deadline, sign_digest(key, digest))

    async def in_force() -> bool | None:
        found = await watch.user(user.uid)
        return True if found is not None and holds(found, secrets) else None

    async def shown() -> int | None:
        with suppress(ChainError):
            await watch.sync()
        return watch.head if await in_force() else None

    paid = await payer.carry_out(edges.calls.set_verifier(verifier, kdf), lambda: key, signed, shown)

    await watch.until(in_force, "The new password")
    return paid


async def change_password(
    home: Home,
    edges: Edges,
    watch: Watch,
    network: Network,
    payer: Payer,
    user: User,
    unlocked: Unlocked,
    new: str,
) -> tuple[Secrets, Paid]:
    """Writes the new vault beside the old one, sets the verifier on chain, then swaps the vaults.

    Where the chain has the new password already, because another device set it, only this home changes.
    """
    known = await asyncio.to_thread(with_verifier, unlocked.secrets, new, user)
    if known is not None and not holds(user, unlocked.secrets):
        home.write(VAULT, await asyncio.to_thread(seal_vault, known, new))
        home.remove(NEXT_VAULT)
        return known, Paid("", user.block, sponsored=False)
    key = account_key(home, unlocked.secrets)
    passwords.check_password(new, [user.username])
    following = await asyncio.to_thread(with_new_password, unlocked.secrets, new)
    unlocked.store.set_setting(NEXT_VERIFIER, verifier_for(following.login_key, following.kdf))
    home.write(NEXT_VAULT, await asyncio.to_thread(seal_vault, following, new))
    paid = await set_verifier(edges, watch, network, payer, user, following, key)
    home.replace(NEXT_VAULT, VAULT)
    return following, paid


def _home_secrets(password: str, account_secret: bytes, user: User | None) -> Secrets:
    """The keys of a new home. Where the account's verifier holds for this password, its KDF parameters are
    kept.
    """
    secrets = new_secrets(password, account_secret)
    return (with_verifier(secrets, password, user) if user is not None else None) or secrets


def with_verifier(secrets: Secrets, password: str, user: User) -> Secrets | None:
    """The secrets with the login key of this password, if it is the one that the chain has."""
    try:
        login_key = passwords.login_key(password, secrets.account_secret, user.kdf)
    except BadRecord:
        return None
    known = replace(secrets, login_key=login_key, kdf=user.kdf)
    return known if holds(user, known) else None


def holds(user: User, secrets: Secrets) -> bool:
    """Whether the chain's verifier is the one of these secrets."""
    return hmac.compare_digest(verifier_for(secrets.login_key, secrets.kdf), user.verifier)


def _number_of(user: User, signer: Address) -> int | None:
    """Which active device of the user has this signer."""
    return next((d.device for d in user.active_devices if d.current.signer == signer), None)


def _parse(text: str) -> Address:
    return Address(bytes.fromhex(text.removeprefix("0x")))
