"""Accounts: making one, or bringing one back; each goes on where a crash broke off.

As with everything of an account, what a transaction will make true is stored in the home before it is sent. A
registration is unfinished while `account.json` has no uid.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from chatchain.client.account import (
    ACCOUNT_KEY,
    PHRASE,
    Unlocked,
    account_key,
    number_of,
    unlock,
)
from chatchain.client.governance import Governance
from chatchain.client.home import OwnAccount
from chatchain.client.own import own_device
from chatchain.client.paying import SIGNATURE_LASTS_S
from chatchain.client.ports import NetworkSettings
from chatchain.client.recovery import (
    Made,
    Recovery,
    new_keys,
    publish_keys,
    require_new_home,
    require_settled,
)
from chatchain.client.showing import problem_of
from chatchain.client.takeover import guardian, own_address
from chatchain.client.views import Problem, Registered
from chatchain.client.watch import Watch
from chatchain.crypto import password as passwords
from chatchain.crypto.derive import require_post_quantum
from chatchain.crypto.device import DeviceSecrets
from chatchain.crypto.keystore import account_secret_in, import_keystore
from chatchain.crypto.vault import seal_account_key
from chatchain.errors import (
    AlreadyDone,
    ChainError,
    CommitmentNeeded,
    NameUnavailable,
    NetworkError,
    RefusedError,
    SecretElsewhere,
    UsageError,
)
from chatchain.identity.admission import Invitation, parse_invitation
from chatchain.identity.keys import NOBODY, address_of, parse_address, sign_digest, to_checksum
from chatchain.identity.login import verifier_for
from chatchain.identity.names import RESERVED_NAMES, normalise_username
from chatchain.identity.typed_data import register_digest
from chatchain.model import Address, Call, DeviceId, Mined, Network, Policy, Uid, User

if TYPE_CHECKING:
    from chatchain.client.station import Station


RECOVERY: Final = "recovery"
"""The setting that holds the recovery address that a registration names."""


@dataclass(frozen=True)
class Registration(Recovery):
    """Makes an account; one that is there already is a recovery's business."""

    invitation: Invitation | None = None
    recovery: str | None = None
    """Who is to be the new account's recovery address, as a person names it."""
    new_secret: bool = False
    """Whether an account may come back without its account secret, which shuts its other devices out."""

    async def prepare(
        self, name: str, password: str, *, mnemonic: str | None, keystore: tuple[str, str] | None
    ) -> Unlocked:
        """Checks the wishes and stores every secret in the home; nothing is sent."""
        require_post_quantum()
        username = normalise_username(name)
        account = self.home.account()
        named = await guardian(self.watch, self.recovery, None) if self.recovery is not None else None
        if account is not None:
            unlocked = await self._resume(account, username, password)
        else:
            unlocked = await self._begin(username, password, mnemonic, keystore, named)
        if named is not None:
            unlocked.store.set_setting(RECOVERY, named)
        return unlocked

    async def _begin(
        self,
        username: str,
        password: str,
        mnemonic: str | None,
        keystore: tuple[str, str] | None,
        named: Address | None,
    ) -> Unlocked:
        keys, phrase = await new_keys(mnemonic, keystore)
        address = address_of(keys.account_key)
        user = await self.watch.user_by_account(address)
        if named == address:
            raise own_address()
        if user is None:
            await _require_free(self.watch, username)
            passwords.check_password(password, [username])
        elif user.username != username:
            raise UsageError(
                f"This recovery phrase belongs to {user.username}, not to {username}.",
                "Bring that account back with `chatchain recover --mnemonic-file F`.",
            )
        elif named is not None:
            raise UsageError(
                f"{username} is registered, so --recovery names nothing: it is for new accounts.",
                "Bring the account back without it, and then: `chatchain recover address WHO`.",
            )
        else:
            require_settled(user)
            if keystore is not None and not self.new_secret:
                _require_secret(user, account_secret_in(keystore[0], keys.account_key))
        return await self.furnish(username, keys, password, user, phrase)

    async def require_possible(self, name: str, *, restores: bool) -> None:
        """Raises what can be known to fail before the person is asked for a password."""
        username = normalise_username(name)
        account = self.home.account()
        if account is not None:
            require_unfinished(account)
        elif not restores:
            await _require_free(self.watch, username)

    async def _resume(self, account: OwnAccount, username: str, password: str) -> Unlocked:
        require_unfinished(account)
        await self._require_own_way(account)
        unlocked = await asyncio.to_thread(unlock, self.home, self.edges, password)
        if account.username == username:
            return unlocked
        address = parse_address(account.account)
        if await self.watch.user_by_account(address) is not None:
            raise AlreadyDone(
                f"This home already has the account of {account.username}.",
                f"Go on with `chatchain register {account.username}`.",
            )
        await _require_free(self.watch, username)
        renamed = msgspec.structs.replace(account, username=username)
        self.home.put_account(renamed)
        return replace(unlocked, account=renamed)

    async def _require_own_way(self, account: OwnAccount) -> None:
        """Raises AlreadyDone where a takeover was begun: its account is not for a new name."""
        if account.restored and await self.watch.user_by_account(parse_address(account.account)) is None:
            raise AlreadyDone(
                f"In this home a new account for {account.username} waits to take over.",
                "Go on with `chatchain recover finalise`, or choose another --home.",
            )

    async def carry_out(self, unlocked: Unlocked) -> Made:
        """Gets the account or device onto the chain, unless it is there already, and notes it in the home."""
        key = account_key(self.home, unlocked.secrets)
        address = address_of(key)
        device = DeviceSecrets.decode(unlocked.store.own_keys()[-1].secret)
        user = await self.watch.user_by_account(address)
        if user is not None:
            return await self.bring_back(unlocked, user, key)
        made = await self._register(unlocked, key, device)
        return self.moved_in(unlocked, made)

    async def _register(self, unlocked: Unlocked, key: bytes, device: DeviceSecrets) -> Made:
        network, address, username = self.network, address_of(key), unlocked.account.username
        verifier = verifier_for(unlocked.secrets.login_key, unlocked.secrets.kdf)
        kdf, signer = unlocked.secrets.kdf, device.signer_address
        record = device.record(network, address, uid=0, device=1, version=1)
        calls = self.edges.calls
        recovery = Address(unlocked.store.setting(RECOVERY) or NOBODY)

        async def signed() -> Call:
            deadline = self._deadline()
            digest = register_digest(
                network, username, address, verifier, kdf, recovery, signer, record, deadline
            )
            return calls.register_for(
                address, username, verifier, kdf, recovery, signer, record, deadline, sign_digest(key, digest)
            )

        async def direct() -> Mined:
            call = calls.register(username, verifier, kdf, recovery, signer, record)
            try:
                return await asyncio.to_thread(self.writer.send, call, key)
            except CommitmentNeeded:
                pass
            commitment = calls.commit_registration(username, address, verifier)
            with suppress(AlreadyDone):  # an earlier run's is as good
                await asyncio.to_thread(self.writer.send, commitment, key)
            return await asyncio.to_thread(partial(self.writer.send, call, key, next_block=True))

        async def shown() -> int | None:
            # An earlier run's transaction may have been mined meanwhile; then ours had to fail.
            with suppress(ChainError):
                await self.watch.sync()
            done = await self.watch.user_by_account(address)
            same = done is not None and done.username == username and number_of(done, signer) is not None
            return done.block if same and done is not None else None

        paid = await self.payer(address).register(direct, signed, shown, self.invitation)

        async def listed() -> User | None:
            return await self.watch.user_by_account(address)

        user = await self.watch.until(listed, f"The registration of {username}")
        return Made(user, number_of(user, signer) or 1, paid, restored=False)

    def _deadline(self) -> int:
        return int(self.edges.clock()) + SIGNATURE_LASTS_S


def _require_secret(user: User, secret: bytes | None) -> None:
    """Raises SecretElsewhere rather than shut the devices out that an account has."""
    devices = [str(int(one.device)) for one in user.active_devices]
    if secret is not None or not devices:
        return
    which = f"device {devices[0]}" if len(devices) == 1 else f"devices {', '.join(devices)}"
    raise SecretElsewhere(
        f"This keystore holds the key of {user.username}'s account and not its account secret, without which "
        f"no password of it holds. Coming back so draws a new one: {which} could not log in any more, "
        "whatever the password, and would have to be linked anew. Nothing was changed.",
        f"Safer: `chatchain link {user.username}` with a device that you have (the keystore then brings the "
        f"key there: `register {user.username} --keystore F` in the linked home), `chatchain recover` with "
        "the phrase, or a keystore from `chatchain keys export`, which carries the secret. If no other "
        "device is left: --new-secret.",
    )


def require_unfinished(account: OwnAccount) -> None:
    """Raises AlreadyDone for a home whose registration is finished."""
    require_new_home(account)


async def _require_free(watch: Watch, username: str) -> None:
    """Raises NameUnavailable for a name that nobody new can have."""
    if username in RESERVED_NAMES:
        raise NameUnavailable(f"The name {username} is reserved.")
    if await watch.user_by_name(username) is not None:
        raise NameUnavailable(
            f"The name {username} is taken.",
            "Choose another name; if it is yours, restore it with its recovery phrase (--mnemonic-file).",
        )


async def register(
    station: Station,
    name: str,
    *,
    mnemonic: str | None = None,
    keystore: tuple[str, str] | None = None,
    on_phrase: Callable[[str], None] | None = None,
    invitation: str | None = None,
    recovery: str | None = None,
    new_secret: bool = False,
) -> Registered:
    """Makes an account, brings one back, or goes on where a crash broke off; see `Client.register`."""
    account = station.home.account()
    if keystore is not None and account is not None and account.uid:
        return await _bring_key(station, account, name, keystore)
    with station.home.tentative():
        settings, network, registration, unlocked = await _prepared(
            station, name, mnemonic, keystore, invitation, recovery, new_secret
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


async def _bring_key(
    station: Station, account: OwnAccount, name: str, keystore: tuple[str, str]
) -> Registered:
    """Brings the account's key into a home that is a device without it; the chain has nothing to do with it.

    Raises AlreadyDone for a home that has the key, or is another's.
    """
    if normalise_username(name) != account.username:
        require_unfinished(account)
    key = await asyncio.to_thread(import_keystore, *keystore)
    watch = await station.public_watch()
    user = await watch.user(Uid(account.uid))
    if user is None or user.account != address_of(key):
        raise UsageError(
            f"The keystore is not that of {account.username}'s account.",
            "Nothing was changed. `chatchain whoami` shows the account.",
        )
    if not account.linked and parse_address(account.account) == user.account:
        require_unfinished(account)
    own = own_device(user, DeviceId(account.device))
    unlocked = await station.open(exclusive=True)
    home = station.home
    home.write(ACCOUNT_KEY, seal_account_key(unlocked.secrets.keystore_key, key))
    home.put_account(msgspec.structs.replace(account, account=to_checksum(user.account), linked=False))
    return Registered(
        username=user.username,
        uid=user.uid,
        account=to_checksum(user.account),
        device=own.device,
        tx="",
        block=user.block,
        member=await watch.is_member(user.uid),
        restored=True,
        key_brought=True,
    )


async def _prepared(
    station: Station,
    name: str,
    mnemonic: str | None,
    keystore: tuple[str, str] | None,
    invitation: str | None,
    recovery: str | None,
    new_secret: bool,
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
        recovery,
        new_secret,
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
        problem = await publish_keys(station)
        watch = station.require_watch()
        group = await watch.group()
        # Before founders are seated there is nobody who could vote on a request.
        if group.policy is Policy.OPEN or not group.members or await watch.is_member(user.uid):
            return problem, None
        return problem, (await (await Governance.at(station)).request(0)).id
    except (NetworkError, ChainError, RefusedError) as failed:
        return problem_of(failed), None
