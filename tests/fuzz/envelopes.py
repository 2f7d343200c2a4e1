"""What a relay delivers or a person brings in older clothes: suite 1, its key bundles, the RSA envelope."""

from __future__ import annotations

from typing import Final

import msgspec

from chatchain.crypto import bundle, rsa, sealed
from chatchain.crypto.device import KemSecret, kem_public_key
from chatchain.errors import BadRecord, ForgedMessage, Undecryptable
from chatchain.identity.record import decode_record
from chatchain.model import Delivery, KeyBundle, Suite
from tests.crypto.rsa_people import SECRETS, published, rsa_user
from tests.fuzz.target import cases, field, target
from tests.identity.people import BLOCK_TIME, NETWORK, person

ADA, BOB = rsa_user("ada"), rsa_user("bob")
CASE: Final = next(case for case in cases("sealed.json") if case["outcome"] == "ok")
SEED, SENDER_KEY = bytes.fromhex(CASE["kem_seed"]), bytes.fromhex(CASE["sender_key"])
RECORD: Final = decode_record(person("ada").user.devices[0].current.record)
BUNDLE: Final = bundle.make_bundle(
    NETWORK, person("ada").secrets(), uid=person("ada").uid, device=1, version=1, now=BLOCK_TIME
)


@target(BadRecord, ForgedMessage, Undecryptable, seeds=field("rsa.json", "envelope"))
def rsa_envelope(data: bytes) -> None:
    """What somebody claims to have sealed: only what was signed opens."""
    opened = rsa.open_(NETWORK, data, secret=SECRETS["bob"], recipient=BOB, sender=ADA)
    assert opened.id == bytes.fromhex(cases("rsa.json")[0]["id"])


@target(BadRecord, seeds=[rsa.armour(each).encode() for each in field("rsa.json", "envelope")])
def rsa_armour(data: bytes) -> None:
    """The text of an envelope."""
    rsa.from_armour(data.decode("latin-1"))


@target(BadRecord, seeds=[published("bob").current.key])
def rsa_key(data: bytes) -> None:
    """A key that somebody published."""
    rsa.public_key(data)


@target(ForgedMessage, Undecryptable, seeds=[bytes.fromhex(CASE["header"] + CASE["body"])])
def suite_1(data: bytes) -> None:
    """A delivery of the sealed suite: only what was signed opens."""
    header, body = data[: sealed.HEADER_BYTES], data[sealed.HEADER_BYTES :]
    id_ = bytes.fromhex(CASE["id"])
    opened = sealed.open_(
        NETWORK,
        Delivery(
            1, id_, Suite.SEALED, CASE["sender"], CASE["sender_device"], CASE["recipient"], 0, header, body
        ),
        uid=CASE["reader"],
        device=CASE["reader_device"],
        keys=[KemSecret(SEED)],
        resolve=lambda *_: SENDER_KEY,
    )
    assert opened.time_ms == CASE["time_ms"]


@target(BadRecord, seeds=[msgspec.msgpack.encode(BUNDLE)])
def key_bundle(data: bytes) -> None:
    """A key bundle as a relay hands it out: only the device's own passes."""
    try:
        shown = msgspec.msgpack.decode(data, type=KeyBundle)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    assert bundle.check_bundle(NETWORK, shown, RECORD, person("ada").uid, BLOCK_TIME) == BUNDLE.kem_public


@target(BadRecord, seeds=[BUNDLE.kem_public])
def kem_key(data: bytes) -> None:
    """An X-Wing key."""
    kem_public_key(data)
