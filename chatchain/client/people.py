"""Who somebody is, and whether their keys are still those that were compared.

A name, a 15-digit id and a 0x account all lead to a user of the chain. Three guards stand before anything is
sealed to a user: the list of devices never gets shorter than it was once seen here (rollback), it is compared
with the heads that the contract stores whenever it is new here, and for a contact whose keys a person has
compared every change stops sending until it is accepted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from chatchain.client.ports import Store
from chatchain.client.watch import Watch
from chatchain.errors import FoldMismatch, KeyChanged, UnknownUser, UsageError
from chatchain.identity.keys import parse_address, to_checksum
from chatchain.identity.names import normalise_username, uid_from_text
from chatchain.identity.record import better_device
from chatchain.model import Contact, Device, DeviceState, Pin, Uid, User

_DIGITS = re.compile(r"[0-9 ]+")


class People:
    """The users of the chain as this home knows them."""

    def __init__(self, store: Store, watch: Watch) -> None:
        self._store = store
        self._watch = watch

    async def find(self, who: str) -> User:
        """The user that a person means; raises UnknownUser, MalformedName, MalformedUid or UsageError."""
        return await find(self._watch, who)

    async def require(self, uid: Uid) -> User:
        """The user with this id; raises UnknownUser."""
        user = await self._watch.user(uid)
        if user is None:
            raise UnknownUser(f"The chain knows no user {uid}.")
        return user

    def known(self, user: User) -> Contact:
        """What this home remembers of a user."""
        return self._store.contact(user.uid) or Contact(user.uid, user.username, listed=False, met=False)

    async def are_strangers(self, me: User, user: User) -> bool:
        """Whether nobody here has met this user, who is no fellow member of the network either: to ask for
        their keys counts as a look-up at the relay.
        """
        contact = self.known(user)
        if user.uid == me.uid or contact.met or contact.pin is not None:
            return False
        members = {member.uid for member in (await self._watch.group()).members}
        return not {me.uid, user.uid} <= members

    def remember(self, user: User, *, met: bool = True) -> Contact:
        """Lists a user among the contacts; whoever was not met stays a stranger."""
        before = self.known(user)
        contact = msgspec.structs.replace(before, username=user.username, listed=True, met=before.met or met)
        if contact != before:
            self._store.put_contact(contact)
        return contact

    async def vet(self, user: User, *, own: bool = False) -> None:
        """Raises unless this user's devices may be sealed to: FoldMismatch for a rollback or a fold that
        lies, KeyChanged.
        """
        contact = self.known(user)
        check_rollback(contact, user)
        if user.device_list_version > contact.confirmed:
            await self._watch.confirm(user.uid)
            seen = user.device_list_version
            self._store.put_contact(msgspec.structs.replace(contact, floor=seen, confirmed=seen))
        if not own:
            check_pin(contact, user)

    async def verify(self, user: User) -> Contact:
        """Pins a user's present keys as those that a person has compared."""
        contact = self.known(user)
        check_rollback(contact, user)
        await self._watch.confirm(user.uid)
        seen = user.device_list_version
        contact = msgspec.structs.replace(
            contact,
            username=user.username,
            pin=pin_of(user),
            floor=seen,
            confirmed=seen,
            listed=True,
            met=True,
        )
        self._store.put_contact(contact)
        return contact


async def find(watch: Watch, who: str) -> User:
    """The user that a name, id or account stands for."""
    text = who.strip()
    if text.startswith("#"):
        raise UsageError(
            f"{text} names a group; a user is wanted here.",
            "`chatchain members` lists users.",
        )
    if text.startswith("@"):
        user = await watch.user_by_name(normalise_username(text[1:]))
    elif text[:2] in ("0x", "0X"):
        address = parse_address(text)
        user = await watch.user_by_address(address)
        if user is not None and user.account != address:
            # Whoever lists a device names its signer, and may name an address that is somebody else's.
            raise UnknownUser(
                f"{text} is no account: {user.username} lists it as the signer of a device.",
                f"If {user.username} is meant, give that name; nobody is registered with the address itself.",
            )
    elif _DIGITS.fullmatch(text):
        user = await watch.user(uid_from_text(text))
    else:
        user = await watch.user_by_name(normalise_username(text))
    if user is None:
        raise UnknownUser(
            f"Nobody is registered as {text.removeprefix('@')}.",
            "Check the spelling; `chatchain members` lists them.",
        )
    return user


def check_rollback(contact: Contact, user: User) -> None:
    """Raises FoldMismatch when the chain shows fewer device changes than it did."""
    if user.device_list_version < contact.floor:
        raise FoldMismatch(
            f"The chain now shows {user.device_list_version} device changes of {user.username}, "
            f"and {contact.floor} before: somebody hides the newer ones.",
            "Compare with another RPC endpoint (--rpc).",
        )


def check_pin(contact: Contact, user: User) -> None:
    """Raises KeyChanged when a compared user's keys are not those that were compared."""
    changed = changes(contact.pin, user) if contact.pin is not None else []
    if changed:
        raise KeyChanged(
            f"The keys of {user.username} changed since you verified them: {'; '.join(changed)}.",
            "Nothing is sent before you compared the safety number again and said so: "
            f"`chatchain contacts verify {user.username}`.",
        )


def pin_of(user: User) -> Pin:
    """A user's present keys."""
    return Pin(
        account=user.account,
        recovery=user.recovery,
        epoch=user.epoch,
        devices=tuple((d.device, d.current.version, int(d.state), d.head) for d in user.devices),
        block=user.block,
        keys=tuple((k.number, k.current.version, int(k.state), k.head) for k in user.keys),
    )


def changes(pin: Pin, user: User) -> list[str]:
    """Says what is different from the pin, who did it and at which block; empty when nothing is."""
    found: list[str] = []
    if user.account != pin.account or user.epoch != pin.epoch:
        block = user.former_accounts[-1].block if user.former_accounts else user.block
        found.append(f"the account is now {to_checksum(user.account)} (block {block})")
    if user.recovery != pin.recovery:
        found.append("the recovery address changed")
    pinned = {device: (version, state, head) for device, version, state, head in pin.devices}
    for device in user.devices:
        found += _device_changes(device, pinned.pop(device.device, None), user.username)
    found += [f"device {device} is no longer listed" for device in pinned]
    if pin.keys is not None and better_device(user) is None:  # else nothing is sent by them, nor read
        found += rsa_changes({number: rest for number, *rest in pin.keys}, user)
    return found


def rsa_changes(before: Mapping[int, Sequence[object]], user: User) -> list[str]:
    """Says what is different about a user's RSA keys; `before` has version, state and head by number."""
    found: list[str] = []
    for key in user.keys:
        version, state, head = before.get(key.number, (0, DeviceState.ACTIVE, b""))
        if not version:
            found.append(f"{user.username} published RSA key {key.number} at block {key.history[0].block}")
        elif (key.current.version, key.head) != (version, head):
            found.append(
                f"{user.username} replaced RSA key {key.number} (version {key.current.version}) "
                f"at block {key.current.block}"
            )
        if key.state is DeviceState.REVOKED and state != DeviceState.REVOKED:
            found.append(f"{user.username} revoked RSA key {key.number}")
    return found


def _device_changes(device: Device, pinned: tuple[int, int, bytes] | None, who: str) -> list[str]:
    if pinned is None:
        return [f"{who} added device {device.device} at block {device.history[0].block}"]
    version, state, head = pinned
    found: list[str] = []
    if (device.current.version, device.head) != (version, head):
        found.append(
            f"{who} gave device {device.device} new keys (version {device.current.version}) "
            f"at block {device.current.block}"
        )
    if device.state is DeviceState.REVOKED and state != DeviceState.REVOKED:
        found.append(f"{who} revoked device {device.device} at block {device.revoked_block}")
    return found
