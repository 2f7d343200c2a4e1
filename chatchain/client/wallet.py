"""An address whose key is in a wallet: what the wallet is shown, and the word that it gives.

What is asked is kept in the home until the signature comes back, so that what was signed is what is sent. The
signature proves itself: it must be the address's, over exactly that. A wallet that is a contract judges its
signatures itself (ERC-1271), so it is asked; the registry asks it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from chatchain.client.account import Consent
from chatchain.client.acting import Acting
from chatchain.errors import UsageError, VerificationError
from chatchain.identity.keys import recover, to_checksum
from chatchain.identity.record import DeviceRecord
from chatchain.identity.typed_data import add_device_digest, add_device_prompt
from chatchain.model import Address

if TYPE_CHECKING:
    from chatchain.client.ports import Store
    from chatchain.client.watch import Watch

KEPT: Final = "wallet"
"""The setting that holds what a wallet was asked to sign last."""

LASTS_S: Final = 3600
"""How long a wallet's signature counts: it may lie in another place, or need several people."""

KEY_SIGNATURE_BYTES: Final = 65
MAX_SIGNATURE_BYTES: Final = 2048
"""A contract's signature has any form, say one of each of its owners. Before login a relay takes 4 KiB."""


class Asked(msgspec.Struct, frozen=True, array_like=True):
    """What a wallet was asked to sign last: the `matter` tells one request from another."""

    matter: bytes
    nonce: int
    deadline: int


def keep(store: Store, matter: bytes, nonce: int, now: float) -> Asked:
    """Notes what a wallet is asked to sign, in place of what it was asked before."""
    asked = Asked(matter, nonce, int(now) + LASTS_S)
    store.set_setting(KEPT, msgspec.msgpack.encode(asked))
    return asked


def kept(store: Store, matter: bytes, nonce: int, now: float, again: str) -> Asked:
    """What a wallet was asked to sign about this, if its signature still counts; raises UsageError, which
    says how it is asked `again`.
    """
    data = store.setting(KEPT)
    asked = msgspec.msgpack.decode(data, type=Asked) if data is not None else None
    if asked is None or asked.matter != matter:
        raise UsageError("No wallet was asked to sign this.", again)
    if asked.deadline <= now:
        raise UsageError("The time for which the wallet was asked to sign is over.", again)
    if asked.nonce != nonce:
        raise UsageError("The account has signed something else since: this signature counts no more.", again)
    return asked


async def signed(watch: Watch, by: Address, digest: bytes, signature: str, again: str) -> bytes:
    """An address's signature over a digest, as the registry takes it; raises UsageError for any other."""
    given = _bytes_of(signature)
    if len(given) == KEY_SIGNATURE_BYTES:
        normal = given[:-1] + bytes([given[-1] + 27]) if given[-1] < 27 else given  # some count from zero
        try:
            if recover(digest, normal) == by:
                return normal
        except VerificationError as unreadable:
            if not await watch.is_contract(by):
                raise UsageError(unreadable.message, unreadable.hint) from unreadable
    if not await watch.is_contract(by):
        if len(given) != KEY_SIGNATURE_BYTES:
            raise UsageError(
                "This is not the signature of an account.",
                "It is 0x and 130 hex digits, as a wallet gives it.",
            )
        raise UsageError(
            f"This is not the signature of the account {to_checksum(by)} over what was shown last.",
            f"Sign with that account. {again}",
        )
    if not await watch.accepts(by, digest, given):
        raise UsageError(
            f"The contract wallet {to_checksum(by)} does not accept this signature of what was shown last "
            "(ERC-1271).",
            f"Have as many of its owners sign as it asks for, over the typed data as it stands. {again}",
        )
    return given


async def ask(acting: Acting, record: bytes, device: DeviceRecord) -> tuple[dict[str, object], int]:
    """What the wallet signs to add this device, as eth_signTypedData_v4 takes it, and until when."""
    me, nonce = acting.me, await acting.watch.nonce(acting.me.uid)
    asked = keep(acting.store, record, nonce, acting.now())
    shown = add_device_prompt(
        acting.own.network, me.uid, me.epoch, device.signer, record, nonce, asked.deadline
    )
    return shown, asked.deadline


async def consent(acting: Acting, record: bytes, device: DeviceRecord, signature: str) -> Consent:
    """The account's word for this device; raises UsageError for anything else that was brought."""
    me, network = acting.me, acting.own.network
    again = "Show the wallet the request anew: `chatchain link --accept TEXT --wallet`."
    asked = kept(acting.store, record, await acting.watch.nonce(me.uid), acting.now(), again)
    digest = add_device_digest(network, me.uid, me.epoch, device.signer, record, asked.nonce, asked.deadline)
    return Consent(asked.deadline, await signed(acting.watch, me.account, digest, signature, again))


def _bytes_of(signature: str) -> bytes:
    text = signature.strip()
    try:
        given = bytes.fromhex(text.removeprefix("0x")) if text else None
    except ValueError:
        given = None
    if given is None or len(given) > MAX_SIGNATURE_BYTES:
        raise UsageError(
            "This is not the signature of an account.", "It is 0x and hex digits, as a wallet gives it."
        )
    return given
