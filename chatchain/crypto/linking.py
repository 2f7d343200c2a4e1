"""Linking a new device: a text from the new one to an old one, and an answer back.

    request(…)            new device: its record, an ephemeral key, a secret        → Request, to be shown
    verify_request(…)     old device: is it well-made, for us, and the next device?
    code(request)         both: twenty digits that a person compares
    answer(…)             old device, once the chain lists the new one              → Answer, to be shown
    open_answer(…)        new device                                                → Handed

The account key stays where it is: what is handed over is the account secret, without which the password
proves nothing at login, and the reference of a sealed file with contacts and history. Both texts go from
screen to screen; the relay has no part in them, and the chain says whether the new device was added. Who sees
both texts still lacks the ephemeral secret; who breaks X25519 lacks the request's secret unless he saw it.
"""

from __future__ import annotations

import base64
import hashlib
import os
import struct
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chatchain.crypto import safety, x25519
from chatchain.crypto.attachments import REF_BYTES, FileRef
from chatchain.crypto.derive import hkdf
from chatchain.crypto.device import DeviceSecrets
from chatchain.crypto.password import ACCOUNT_SECRET_BYTES
from chatchain.errors import BadRecord
from chatchain.identity import ed25519
from chatchain.identity.record import RECORD_BYTES, DeviceRecord, decode_record, device_record, verify_record
from chatchain.model import Network, User

SCHEME: Final = "chatchain://link?"
MAX_TEXT: Final = 1024
"""Characters of either text; the longer one has 412."""

_FORMAT: Final = 1
_REQUEST: Final = struct.Struct(f">B{RECORD_BYTES}s32s32s")
_ANSWER: Final = struct.Struct(">BQII32s")
_KEY_LABEL: Final = b"chatchain/1 link"
_SIGNED_LABEL: Final = b"chatchain/1 link answer"
_CODE_LABEL: Final = b"chatchain/1 link code"
_BLOB: Final = 32
_TAG: Final = 16
_ZERO_NONCE: Final = bytes(12)
_CODE_GROUPS: Final = 4


class Request(msgspec.Struct, frozen=True):
    """What the new device shows: the record that is to be added, an X25519 key, and 32 secret bytes."""

    record: bytes
    ephemeral: bytes
    secret: bytes

    def __repr__(self) -> str:
        return "Request(…)"

    def encode(self) -> str:
        """The text, for a screen or a QR code."""
        data = _REQUEST.pack(_FORMAT, self.record, self.ephemeral, self.secret)
        return f"{SCHEME}new={_base64(data)}"


class Answer(msgspec.Struct, frozen=True):
    """What the old device shows: who it is, its X25519 key, and what is sealed for the new device."""

    uid: int
    device: int
    version: int
    ephemeral: bytes
    sealed: bytes
    signature: bytes

    def encode(self) -> str:
        """The text, for a screen or a QR code."""
        return f"{SCHEME}answer={_base64(_head(self) + self.sealed + self.signature)}"


class Handed(msgspec.Struct, frozen=True):
    """What the new device is given; `history` is None when nothing of it is handed over.

    `blob` is the SHA-256 of the sealed file, by which a relay knows it.
    """

    account_secret: bytes
    history: FileRef | None = None
    blob: bytes = b""

    def __repr__(self) -> str:
        return "Handed(…)"


def decode_request(text: str) -> Request:
    """Reads a request, ignoring blanks and line breaks; raises BadRecord. `verify_request` judges it."""
    data = _bytes_of(text, "new")
    if len(data) != _REQUEST.size or data[0] != _FORMAT:
        raise BadRecord("The link text of the new device is incomplete, or of a newer program than this one.")
    _, record, ephemeral, secret = _REQUEST.unpack(data)
    return Request(record, ephemeral, secret)


def decode_answer(text: str) -> Answer:
    """Reads an answer, ignoring blanks and line breaks; raises BadRecord. `open_answer` judges it."""
    data = _bytes_of(text, "answer")
    sealed = len(data) - _ANSWER.size - ed25519.SIGNATURE_BYTES
    lengths = (ACCOUNT_SECRET_BYTES + _TAG, ACCOUNT_SECRET_BYTES + REF_BYTES + _BLOB + _TAG)
    if sealed not in lengths or data[0] != _FORMAT:
        raise BadRecord("The answer of the old device is incomplete, or of a newer program than this one.")
    _, uid, device, version, ephemeral = _ANSWER.unpack_from(data)
    end = _ANSWER.size + sealed
    return Answer(uid, device, version, ephemeral, data[_ANSWER.size : end], data[end:])


def request(record: bytes, ephemeral: bytes, secret: bytes) -> Request:
    """Makes a request for a record; `ephemeral` is the X25519 secret, to be kept for `open_answer`."""
    return Request(record, x25519.public_of(ephemeral), secret)


def code(asked: Request) -> str:
    """Twenty digits that both devices show: another text with the same code takes 2^66 tries of 5,200 hashes
    each.
    """
    digest = safety.fingerprint(_CODE_LABEL, _transcript(asked))
    groups = (int.from_bytes(digest[5 * n : 5 * n + 5], "big") % 100_000 for n in range(_CODE_GROUPS))
    return " ".join(f"{group:05d}" for group in groups)


def verify_request(asked: Request, network: Network, user: User) -> DeviceRecord:
    """Gives the record that the request wants to have added; raises BadRecord unless it may be.

    It must be a whole, self-signed record of this user's next device, or of one that was added already.
    """
    claimed = decode_record(asked.record)
    if claimed.uid != user.uid:
        raise BadRecord("The new device asks to be linked to another account than this one.")
    listed = next((each for each in user.active_devices if each.device == claimed.device), None)
    following = claimed.device == len(user.devices) + 1
    if not following and (listed is None or listed.history[0].record != asked.record):
        raise BadRecord(
            f"The new device asks to be device {claimed.device}, which this account has had or cannot have "
            "yet.",
            "Another device was added meanwhile. Run `chatchain link NAME --again` on the new one.",
        )
    return verify_record(asked.record, network, user.account, user.uid, claimed.device, 1, claimed.signer)


def answer(
    asked: Request,
    handed: Handed,
    secrets: DeviceSecrets,
    *,
    uid: int,
    device: int,
    version: int,
) -> Answer:
    """Seals what is handed over for the device that asked; signed by this device, in this version."""
    ephemeral = os.urandom(32)
    plain = Answer(uid, device, version, x25519.public_of(ephemeral), b"", b"")
    key = _key(asked, plain.ephemeral, x25519.agree(ephemeral, asked.ephemeral))
    file = handed.history.encode() + handed.blob if handed.history is not None else b""
    inside = handed.account_secret + file
    # The key is drawn for this one box, so the fixed nonce is used once with it.
    sealed = AESGCM(key).encrypt(_ZERO_NONCE, inside, _head(plain))
    signature = secrets.signing_key.sign(_signed(asked, plain, sealed))
    return msgspec.structs.replace(plain, sealed=sealed, signature=signature)


def open_answer(given: Answer, asked: Request, ephemeral: bytes, network: Network, user: User) -> Handed:
    """Opens the answer to our request with the ephemeral secret; raises BadRecord.

    It must come from an active device of the user, in the version that the chain has in force.
    """
    if given.uid != user.uid:
        raise BadRecord("The answer comes from another account than the one that was asked.")
    device = next((each for each in user.active_devices if each.device == given.device), None)
    if device is None or device.current.version != given.version:
        raise BadRecord("The answer comes from a device that the chain does not list, or not any more.")
    record = device_record(network, user, device)
    if not ed25519.verify(record.ed25519, given.signature, _signed(asked, given, given.sealed)):
        raise BadRecord(
            "The answer is not for this request, or was altered.",
            "Give the old device the text that this one shows, and bring its answer here.",
        )
    key = _key(asked, given.ephemeral, x25519.agree(ephemeral, given.ephemeral))
    try:
        inside = AESGCM(key).decrypt(_ZERO_NONCE, given.sealed, _head(given))
    except InvalidTag:
        raise BadRecord("The answer does not open with the keys of this request.") from None
    rest = inside[ACCOUNT_SECRET_BYTES:]
    history = FileRef.decode(rest[:REF_BYTES]) if rest else None
    return Handed(inside[:ACCOUNT_SECRET_BYTES], history, rest[REF_BYTES:])


def _head(given: Answer) -> bytes:
    return _ANSWER.pack(_FORMAT, given.uid, given.device, given.version, given.ephemeral)


def _transcript(asked: Request) -> bytes:
    data = _REQUEST.pack(_FORMAT, asked.record, asked.ephemeral, asked.secret)
    return hashlib.sha256(data).digest()


def _signed(asked: Request, given: Answer, sealed: bytes) -> bytes:
    return _SIGNED_LABEL + _transcript(asked) + _head(given) + sealed


def _key(asked: Request, answering: bytes, agreed: bytes) -> bytes:
    return hkdf(agreed, _KEY_LABEL + _transcript(asked) + answering, salt=asked.secret)


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes_of(text: str, which: str) -> bytes:
    """The bytes in a link text of one sort; raises BadRecord, also for any spelling but one."""
    line = "".join(text[: 2 * MAX_TEXT].split())
    start = f"{SCHEME}{which}="
    if len(text) > 2 * MAX_TEXT or len(line) > MAX_TEXT or not line.startswith(start):
        raise BadRecord(f"This is not such a link text: it starts with {start} and is complete.")
    body = line.removeprefix(start)
    try:
        data = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    except ValueError as exc:
        raise BadRecord("The link text is mistyped.") from exc
    if _base64(data) != body:
        raise BadRecord("The link text is mistyped.")
    return data
