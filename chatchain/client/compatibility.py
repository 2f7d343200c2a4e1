"""The RSA compatibility envelope, for writing to somebody who publishes an RSA key and nothing better.

What is sealed is a text to be carried by other means: the relay delivers to devices, and such a peer has none
that could read. Everything shown bears the label of crypto.rsa.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chatchain.client.acting import Acting
from chatchain.client.contacts import somebody_else
from chatchain.client.paying import SIGNATURE_LASTS_S
from chatchain.client.showing import time_text
from chatchain.client.views import RsaKey, RsaSealed
from chatchain.crypto import content as contents
from chatchain.crypto import rsa
from chatchain.errors import BadRecord, RefusedError
from chatchain.identity.keys import sign_digest
from chatchain.identity.typed_data import add_key_digest
from chatchain.model import MESSAGE_ID_BYTES, Call, DeviceState, KeyKind, PublishedKey, User

if TYPE_CHECKING:
    from chatchain.client.station import Station

KEPT: Final = "rsa"
"""The setting that holds the RSA key: PKCS #8, from before the chain hears of it."""


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

    async def seal(self, peer: User, text: str) -> RsaSealed:
        """Seals a text for a peer; raises RefusedError for one who has a device for better encryption."""
        secret = self.store.setting(KEPT)
        if secret is None:
            raise RefusedError(
                "This home has no RSA key to sign with.",
                "`chatchain rsa publish` makes one and publishes it.",
            )
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
        return RsaSealed(
            id=id_.hex(),
            to=peer.username,
            to_uid=peer.uid,
            time=time_text(time_ms),
            label=rsa.LABEL,
            envelope=rsa.armour(envelope),
        )


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


async def seal(station: Station, peer: str, text: str) -> RsaSealed:
    """Seals a text to a peer's RSA key; refused for whoever has a device for better encryption."""
    desk = await station.desk()
    user = await somebody_else(desk, peer)
    await desk.people.vet(user)  # who hides a peer's devices could bring us down to this
    return await (await Compatibility.at(station)).seal(user, text)
