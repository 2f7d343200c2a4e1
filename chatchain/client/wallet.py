"""An account whose key is in a wallet: what the wallet is shown of a new device, and the word that it gives.

The request is kept in the home until the signature comes back, so that what was signed is what is sent. The
signature proves itself: it must be the account's, over exactly that.
"""

from __future__ import annotations

from typing import Final

import msgspec

from chatchain.client.account import Consent
from chatchain.client.acting import Acting
from chatchain.errors import UsageError, VerificationError
from chatchain.identity.keys import recover, to_checksum
from chatchain.identity.record import DeviceRecord
from chatchain.identity.typed_data import add_device_digest, add_device_prompt

KEPT: Final = "wallet"
"""The setting that holds what a wallet was asked to sign last."""

LASTS_S: Final = 3600
"""How long a wallet's signature counts: it may lie in another place, or need several people."""

SIGNATURE_BYTES: Final = 65


class _Asked(msgspec.Struct, frozen=True, array_like=True):
    record: bytes
    nonce: int
    deadline: int


async def ask(acting: Acting, record: bytes, device: DeviceRecord) -> tuple[dict[str, object], int]:
    """What the wallet signs to add this device, as eth_signTypedData_v4 takes it, and until when."""
    me, nonce = acting.me, await acting.watch.nonce(acting.me.uid)
    asked = _Asked(record, nonce, int(acting.now()) + LASTS_S)
    acting.store.set_setting(KEPT, msgspec.msgpack.encode(asked))
    shown = add_device_prompt(
        acting.own.network, me.uid, me.epoch, device.signer, record, nonce, asked.deadline
    )
    return shown, asked.deadline


async def consent(acting: Acting, record: bytes, device: DeviceRecord, signature: str) -> Consent:
    """The account's word for this device; raises UsageError for anything else that was brought."""
    data = acting.store.setting(KEPT)
    asked = msgspec.msgpack.decode(data, type=_Asked) if data is not None else None
    again = "Show the wallet the request anew: `chatchain link --accept TEXT --wallet`."
    if asked is None or asked.record != record:
        raise UsageError("No wallet was asked to sign for this device.", again)
    if asked.deadline <= acting.now():
        raise UsageError("The time for which the wallet was asked to sign is over.", again)
    if asked.nonce != await acting.watch.nonce(acting.me.uid):
        raise UsageError("The account has signed something else since: this signature counts no more.", again)
    given = _bytes_of(signature)
    me, network = acting.me, acting.own.network
    digest = add_device_digest(network, me.uid, me.epoch, device.signer, record, asked.nonce, asked.deadline)
    try:
        signer = recover(digest, given)
    except VerificationError as unreadable:
        raise UsageError(unreadable.message, unreadable.hint) from unreadable
    if signer != me.account:
        raise UsageError(
            f"This is not the signature of the account {to_checksum(me.account)} over what was shown last.",
            f"Sign with that account. {again}",
        )
    return Consent(asked.deadline, given)


def _bytes_of(signature: str) -> bytes:
    try:
        given = bytes.fromhex(signature.strip().removeprefix("0x"))
    except ValueError:
        given = b""
    if len(given) != SIGNATURE_BYTES:
        raise UsageError(
            "This is not the signature of an account.", "It is 0x and 130 hex digits, as a wallet gives it."
        )
    if given[-1] < 27:  # some wallets count from zero
        given = given[:-1] + bytes([given[-1] + 27])
    return given
