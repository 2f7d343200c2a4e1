"""What is the account's in a home: its vault, its key, its password, and adding devices to it.

The rule throughout: what a transaction will make true is stored here before it is sent, and which of two
things is true is asked of the chain. A password change is unfinished while `vault.new` exists.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from chatchain.client.home import Home, OwnAccount
from chatchain.client.paying import SIGNATURE_LASTS_S, Paid, Payer
from chatchain.client.ports import Edges, Store
from chatchain.client.watch import Watch
from chatchain.crypto import password as passwords
from chatchain.crypto.vault import (
    Secrets,
    open_account_key,
    open_vault,
    seal_vault,
    with_new_password,
)
from chatchain.errors import (
    AccountKeyElsewhere,
    BadRecord,
    ChainError,
    NoAccount,
    WrongPassword,
)
from chatchain.identity.keys import parse_address, sign_digest, to_checksum
from chatchain.identity.login import verifier_for
from chatchain.identity.typed_data import add_device_digest, set_verifier_digest
from chatchain.model import Address, Call, Network, User

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


@dataclass(frozen=True)
class Consent:
    """The account's signature that a device be added, and the second until which it counts."""

    deadline: int
    signature: bytes


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


def require_same(user: User, account: OwnAccount) -> None:
    """Raises AccountKeyElsewhere when another account took the place of the one that a home belongs to."""
    if user.account == parse_address(account.account):
        return
    raise AccountKeyElsewhere(
        f"Since block {user.former_accounts[-1].block} the account of {user.username} is "
        f"{to_checksum(user.account)}: no password lets this home in any more, and the key that it holds "
        "changes nothing.",
        "What is stored here can still be read. If it was you, go on in the home that has the new account, "
        "or link this machine anew (`chatchain --home NEW-FOLDER link NAME`). If not, warn your contacts "
        "over another channel: whoever has the new account speaks for you.",
    )


def reconcile_password(home: Home, unlocked: Unlocked, user: User) -> None:
    """Finishes a password change that a crash broke off, or says which password counts.

    The chain holds one verifier; the password given opened one of two vaults.
    """
    held = holds(user, unlocked.secrets)
    if not held:
        require_same(user, unlocked.account)
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


async def add_device(
    edges: Edges,
    watch: Watch,
    network: Network,
    payer: Payer,
    user: User,
    signer: Address,
    record: bytes,
    key: Callable[[], bytes],
    consent: Consent | None = None,
) -> Paid:
    """Adds a device to the account whose key this is, or that consented; `listed_with` tells when the chain
    has it.
    """

    async def signed() -> Call:
        given = consent or await consented()
        return edges.calls.add_device_for(user.uid, signer, record, given.deadline, given.signature)

    async def consented() -> Consent:
        nonce, deadline = await watch.nonce(user.uid), int(edges.clock()) + SIGNATURE_LASTS_S
        digest = add_device_digest(network, user.uid, user.epoch, signer, record, nonce, deadline)
        return Consent(deadline, sign_digest(key(), digest))

    async def shown() -> int | None:
        with suppress(ChainError):
            await watch.sync()
        found = await listed_with(watch, user, signer)
        return found.block if found is not None else None

    return await payer.carry_out(edges.calls.add_device(signer, record), key, signed, shown)


async def listed_with(watch: Watch, user: User, signer: Address) -> User | None:
    """The user as soon as one of its active devices has this signer."""
    found = await watch.user(user.uid)
    return found if found is not None and number_of(found, signer) is not None else None


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


async def set_password(
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


def number_of(user: User, signer: Address) -> int | None:
    """Which active device of the user has this signer."""
    return next((d.device for d in user.active_devices if d.current.signer == signer), None)
