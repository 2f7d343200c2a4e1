"""The contact card: one line of text that names a user on one network, signed by one of the user's devices.

It can be typed, pasted or shown as a QR code. The chain stays the judge: a card counts only when everything
in it is what the chain says, so a card cannot redirect anybody; it saves looking up and proves which account
was meant.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct

import msgspec

from chatchain.crypto.device import DeviceSecrets
from chatchain.errors import BadRecord, ChatchainError
from chatchain.identity import ed25519, keys, names
from chatchain.identity.record import device_record
from chatchain.model import Address, Network, Uid, User

MAX_CARD = 400
SCHEME = "chatchain://contact?"

_LABEL = b"chatchain/1 contact card"
_SIGNED = struct.Struct(">Q20sQ20sII")
_FORM = re.compile(
    re.escape(SCHEME)
    + r"name=(?P<name>[a-z0-9-]{3,32})&uid=(?P<uid>[0-9]{15})&account=(?P<account>0x[0-9a-fA-F]{40})"
    r"&chain=(?P<chain>[0-9]{1,20})&directory=(?P<directory>0x[0-9a-fA-F]{40})"
    r"&device=(?P<device>[0-9]{1,10})&version=(?P<version>[0-9]{1,10})&sig=(?P<sig>[A-Za-z0-9_-]{86})",
    re.ASCII,
)


class Card(msgspec.Struct, frozen=True):
    """A contact card's fields."""

    username: str
    uid: Uid
    account: Address
    chain_id: int
    directory: Address
    device: int
    version: int
    signature: bytes


def make_card(network: Network, user: User, device: int, version: int, secrets: DeviceSecrets) -> str:
    """Writes the signed card of a user, by one of the user's devices."""
    signed = _signed_bytes(
        user.username, user.uid, user.account, network.chain_id, network.directory, device, version
    )
    return encode_card(
        Card(
            user.username,
            user.uid,
            user.account,
            network.chain_id,
            network.directory,
            device,
            version,
            secrets.signing_key.sign(signed),
        )
    )


def encode_card(card: Card) -> str:
    """Writes a card in its one spelling."""
    signature = base64.urlsafe_b64encode(card.signature).decode().rstrip("=")
    return (
        f"{SCHEME}name={card.username}&uid={names.uid_text(card.uid)}&account={keys.to_checksum(card.account)}"
        f"&chain={card.chain_id}&directory={keys.to_checksum(card.directory)}"
        f"&device={card.device}&version={card.version}&sig={signature}"
    )


def decode_card(text: str) -> Card:
    """Reads a card, ignoring blanks and line breaks; raises BadRecord. `verify_card` judges it."""
    if len(text) > 2 * MAX_CARD:
        raise BadRecord("This is not a contact card: it is too long.")
    line = "".join(text.split())
    found = _FORM.fullmatch(line)
    if found is None or len(line) > MAX_CARD:
        raise BadRecord(f"This is not a contact card: a card starts with {SCHEME} and is complete.")
    try:
        card = Card(
            username=names.normalise_username(found["name"]),
            uid=names.uid_from_text(found["uid"]),
            account=keys.parse_address(found["account"]),
            chain_id=int(found["chain"]),
            directory=keys.parse_address(found["directory"]),
            device=int(found["device"]),
            version=int(found["version"]),
            signature=base64.urlsafe_b64decode(found["sig"] + "=="),
        )
    except (ChatchainError, binascii.Error) as exc:
        raise BadRecord(f"The contact card is mistyped. {exc}") from exc
    # One card, one spelling: leading zeros or stray bits in the last base64 letter are not accepted.
    if encode_card(card) != line:
        raise BadRecord("The contact card is mistyped.")
    return card


def verify_card(card: Card, network: Network, user: User) -> None:
    """Raises BadRecord unless the card says what the chain says and one of the user's devices signed it."""
    if (card.chain_id, card.directory) != (network.chain_id, network.directory):
        raise BadRecord(
            "The contact card is for another network.",
            f"It names chain {card.chain_id} and Directory {keys.to_checksum(card.directory)}.",
        )
    if (card.username, card.uid, card.account) != (user.username, user.uid, user.account):
        raise BadRecord("The contact card does not say what the chain says of this user.")
    device = next((d for d in user.active_devices if d.device == card.device), None)
    entry = next((v for v in device.history if v.version == card.version), None) if device else None
    if device is None or entry is None:
        raise BadRecord(
            "The contact card is signed by a device that the chain does not list as active.",
            "Ask for a new card: `chatchain contacts card` makes one.",
        )
    key = device_record(network, user, device, entry).ed25519
    signed = _signed_bytes(
        card.username, card.uid, card.account, card.chain_id, card.directory, card.device, card.version
    )
    if not ed25519.verify(key, card.signature, signed):
        raise BadRecord("The contact card's signature does not hold.")


def _signed_bytes(
    username: str, uid: int, account: Address, chain_id: int, directory: Address, device: int, version: int
) -> bytes:
    try:
        fixed = _SIGNED.pack(chain_id, directory, uid, account, device, version)
    except struct.error as exc:
        raise BadRecord("The contact card holds a number that cannot be.") from exc
    return _LABEL + fixed + username.encode()
