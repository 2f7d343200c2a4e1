"""The RSA compatibility envelope, for writing to somebody who publishes an RSA key and nothing better.

What is sealed is a text to be carried by other means: the relay delivers to devices, and such a peer has none
that could read. What such a peer writes back comes the same way and is opened here; it enters no history.
Everything shown bears the label of crypto.rsa.

A peer's RSA keys are pinned when they are first used: the chain never shows fewer changes of them again, and
what changed since is told with the next use that comes to something: else an invented text would use it up.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from chatchain.client.acting import Acting
from chatchain.client.contacts import somebody_else
from chatchain.client.paying import SIGNATURE_LASTS_S
from chatchain.client.people import rsa_changes
from chatchain.client.times import time_text
from chatchain.client.views import RsaKey, RsaOpened, RsaSealed
from chatchain.crypto import content as contents
from chatchain.crypto import rsa
from chatchain.errors import (
    BadRecord,
    FoldMismatch,
    ForgedMessage,
    RefusedError,
    Undecryptable,
    UsageError,
)
from chatchain.identity.keys import sign_digest
from chatchain.identity.typed_data import add_key_digest
from chatchain.model import (
    MESSAGE_ID_BYTES,
    Arrival,
    Call,
    DeviceState,
    KeyKind,
    PublishedKey,
    Uid,
    User,
)

if TYPE_CHECKING:
    from chatchain.client.station import Station

KEPT: Final = "rsa"
"""The setting that holds the RSA key: PKCS #8, from before the chain hears of it."""

PINNED: Final = "rsa_keys/"
"""The setting, with a uid behind it, that holds a user's RSA keys as they were when one was used last."""

_Pinned = tuple[tuple[int, int, int, bytes], ...]
"""Of each key its number, version, state and head."""


@dataclass(frozen=True)
class Compatibility(Acting):
    """What this user may do with an RSA key."""

    async def publish(self) -> RsaKey:
        """Publishes an RSA key on the chain, or shows the one that is there; needs the account's key."""
        secret = self.store.setting(KEPT)
        listed = _listed(self.me, rsa.public_of(secret)) if secret is not None else None
        if listed is not None:
            return _view(listed, None)
        account = self.account_key()
        if secret is None:
            secret = await asyncio.to_thread(rsa.new_secret)
            self.store.set_setting(KEPT, secret)
        public = rsa.public_of(secret)

        async def signed() -> Call:
            nonce, deadline = await self.watch.nonce(self.me.uid), int(self.now()) + SIGNATURE_LASTS_S
            digest = add_key_digest(
                self.own.network, self.me.uid, self.me.epoch, KeyKind.RSA2048_OAEP, public, nonce, deadline
            )
            return self.calls.add_key_for(
                self.me.uid, KeyKind.RSA2048_OAEP, public, deadline, sign_digest(account, digest)
            )

        direct = self.calls.add_key(KeyKind.RSA2048_OAEP, public)
        paid = await self.payer.carry_out(direct, lambda: account, signed)

        async def found() -> PublishedKey | None:
            user = await self.watch.user(self.me.uid)
            return _listed(user, public) if user is not None else None

        return _view(await self.watch.until(found, "The RSA key"), paid.tx)

    def _secret(self, what_for: str) -> bytes:
        secret = self.store.setting(KEPT)
        if secret is None:
            raise RefusedError(
                f"This home has no RSA key to {what_for} with.",
                "`chatchain rsa publish` makes one and publishes it.",
            )
        return secret

    async def seal(self, peer: User, text: str) -> RsaSealed:
        """Seals a text for a peer; raises RefusedError for one who has a device for better encryption."""
        secret = self._secret("sign")
        keys, changed = await self._compared(peer)
        id_, time_ms = os.urandom(MESSAGE_ID_BYTES), int(self.now() * 1000)
        try:
            envelope = rsa.seal(
                self.own.network,
                contents.text(text),
                secret=secret,
                sender=self.me,
                recipient=peer,
                message_id=id_,
                time_ms=time_ms,
            )
        except BadRecord as unfit:  # nothing that was received failed to verify
            raise RefusedError(unfit.message, unfit.hint) from unfit
        self._pin(peer, keys)
        return RsaSealed(
            id=id_.hex(),
            to=peer.username,
            to_uid=peer.uid,
            time=time_text(time_ms),
            label=rsa.LABEL,
            envelope=rsa.armour(envelope),
            changed=changed,
        )

    async def open(self, sender: User, envelope: bytes) -> RsaOpened:
        """Opens what a peer has sealed; raises RefusedError when both could do better."""
        secret = self._secret("open such a message")
        try:
            rsa.require_nothing_better(sender, self.me)
        except BadRecord as refused:
            raise RefusedError(refused.message, refused.hint) from refused
        keys, changed = await self._compared(sender)
        opened = rsa.open_(self.own.network, envelope, secret=secret, recipient=self.me, sender=sender)
        if not isinstance(opened.content, contents.Text):
            raise Undecryptable(f"{sender.username} sealed something that is no text.")
        repeated = self.store.has_seen(sender.uid, opened.id)
        if not repeated:
            self.store.take_in([Arrival(sender.uid, opened.id, at_ms=int(self.now() * 1000))])
        self._pin(sender, keys)
        return RsaOpened(
            id=opened.id.hex(),
            from_=sender.username,
            from_uid=sender.uid,
            time=time_text(opened.time_ms),
            label=opened.label,
            text=opened.content.text,
            repeated=repeated,
            changed=changed,
        )

    async def _compared(self, peer: User) -> tuple[_Pinned, str | None]:
        """A peer's RSA keys as they are, and what is new about them since one was used last.

        Raises FoldMismatch when the chain shows fewer changes than it did, or not what the contract holds.
        """
        stored = self.store.setting(f"{PINNED}{peer.uid}")
        before = msgspec.msgpack.decode(stored, type=_Pinned) if stored is not None else None
        now: _Pinned = tuple((k.number, k.current.version, int(k.state), k.head) for k in peer.keys)
        if before is not None and _changes(now) < _changes(before):
            raise FoldMismatch(
                f"The chain now shows {_changes(now)} changes of {peer.username}'s RSA keys, and "
                f"{_changes(before)} before: somebody hides the newer ones.",
                "Compare with another RPC endpoint (--rpc).",
            )
        if before == now:
            return now, None
        await self.watch.confirm(peer.uid)
        if before is None:
            return now, None
        return now, "; ".join(rsa_changes({number: rest for number, *rest in before}, peer))

    def _pin(self, peer: User, keys: _Pinned) -> None:
        self.store.set_setting(f"{PINNED}{peer.uid}", msgspec.msgpack.encode(keys))


def _changes(keys: _Pinned) -> int:
    """How many events of the chain made these keys: each version is one, and a revocation."""
    return sum(version + (state == DeviceState.REVOKED) for _, version, state, _ in keys)


def _listed(user: User, public: bytes) -> PublishedKey | None:
    return next(
        (key for key in user.keys if key.state is DeviceState.ACTIVE and key.current.key == public), None
    )


def _view(key: PublishedKey, tx: str | None) -> RsaKey:
    return RsaKey(
        key=key.number,
        version=key.current.version,
        state=key.state.name.lower(),
        label=rsa.LABEL,
        fingerprint=hashlib.sha256(key.current.key).hexdigest(),
        block=key.current.block,
        tx=tx,
    )


async def publish(station: Station) -> RsaKey:
    """Publishes an RSA-2048 key, to sign what is sealed for those who have nothing better."""
    return await (await Compatibility.at(station)).publish()


async def open_text(station: Station, text: str) -> RsaOpened:
    """Opens a text that was sealed to this account's RSA key; who sealed it stands in it."""
    try:
        envelope = rsa.from_armour(text)
    except BadRecord as unreadable:  # nothing was signed that could fail to verify
        raise UsageError(
            unreadable.message, "Copy it again, whole, with its first and last line."
        ) from unreadable
    desk = await station.desk()
    uid = rsa.sender_of(envelope)
    sender = await station.require_watch().user(Uid(uid))
    if sender is None:
        raise ForgedMessage(f"The message claims to come from user {uid}, whom the chain does not list.")
    await desk.people.vet(sender, own=sender.uid == desk.own.uid)
    return await (await Compatibility.at(station)).open(sender, envelope)


async def seal(station: Station, peer: str, text: str) -> RsaSealed:
    """Seals a text to a peer's RSA key; refused for whoever has a device for better encryption."""
    desk = await station.desk()
    user = await somebody_else(desk, peer)
    await desk.people.vet(user)  # who hides a peer's devices could bring us down to this
    sealed = await (await Compatibility.at(station)).seal(user, text)
    desk.people.remember(
        user
    )  # what was seen of the devices of somebody who was written to is never forgotten
    return sealed
