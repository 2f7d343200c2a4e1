"""Prekeys: what a device publishes so that others can begin a session with it while it is away.

Signal's "The PQXDH Key Agreement Protocol", sections 2.4 and 2.5, names them: a signed prekey (X25519),
one-time prekeys (X25519), signed one-time prekeys of the KEM (ML-KEM-1024) and a signed last-resort one. The
identity keys are the device's: its record on the chain vouches for them. Every signature is Ed25519 by the
device, over a label of its own, the network, the device and its key version, the key's id, its time of issue
and its expiry.

`PrekeyStore` is the private side, a frozen value: every operation gives a new one, to be saved in the same
transaction as what came out with it. `PrekeyBundle` is what the relay hands to an initiator, who believes it
only after `verify_bundle`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PrivateKey

from chatchain.crypto import x25519
from chatchain.crypto.device import DeviceSecrets
from chatchain.errors import BadRecord, LimitReached, Undecryptable
from chatchain.identity import ed25519
from chatchain.identity.record import DeviceRecord, lists
from chatchain.model import HANDSHAKE_MARK_BYTES, Network, Suite

ROTATION: Final = 7 * 24 * 3600
"""Seconds after which the signed prekey and the last-resort key are replaced."""

GRACE: Final = 30 * 24 * 3600
"""Seconds that a replaced key still answers: an initial message made with it may wait at the relay."""

LIFETIME: Final = 90 * 24 * 3600
"""Seconds that a signature holds: so long may a device be away and still be reached."""

CLOCK_SKEW: Final = 7 * 24 * 3600
"""Seconds that the issuer's clock may be ahead of ours: whose machine is days off is still to be reached."""

BATCH: Final = 50
"""One-time keys of each sort after a refill."""

REFILL_BELOW: Final = 20
"""One-time keys left at the relay under which more are made."""

MAX_ONE_TIME: Final = 500
"""One-time keys of each sort that are kept, handed out or not; the oldest go first."""

MAX_BEGUN: Final = 256
"""Handshakes without a one-time key that one user may begin with one signed prekey: more than one an hour for
the week in which it is given out.
"""

MAX_PAIRS: Final = 64
"""Signed prekeys with their last-resort keys that are kept: the weekly ones of a grace are five, and no more
come of what others do; the rest are for who replaces the device's own keys every day.
"""

X25519_BYTES: Final = 32
KEM_PUBLIC_BYTES: Final = 1568
_KEM_SEED_BYTES: Final = 64


class KeyKind(IntEnum):
    """What a signed key is for; the number is part of its bytes."""

    SIGNED_PREKEY = 1
    ONE_TIME_KEM = 2
    LAST_RESORT_KEM = 3


_LABELS: Final = {
    KeyKind.SIGNED_PREKEY: b"chatchain/2 signed prekey",
    KeyKind.ONE_TIME_KEM: b"chatchain/2 one-time KEM prekey",
    KeyKind.LAST_RESORT_KEM: b"chatchain/2 last-resort KEM prekey",
}
_SIGNED: Final = struct.Struct(">Q20sQIIIQQ")
_SIGNED_KEY: Final = struct.Struct(">BIQQ64s")
_ONE_TIME: Final = struct.Struct(">I32s")
_BUNDLE: Final = struct.Struct(">BQII")
_BUNDLE_FORMAT: Final = 1

SIGNED_PREKEY_BYTES: Final = _SIGNED_KEY.size + X25519_BYTES
SIGNED_KEM_BYTES: Final = _SIGNED_KEY.size + KEM_PUBLIC_BYTES
ONE_TIME_BYTES: Final = _ONE_TIME.size


def encode_ec(public: bytes) -> bytes:
    """EncodeEC: one byte for the curve, then the u-coordinate."""
    return b"\x01" + public


def encode_kem(public: bytes) -> bytes:
    """EncodeKEM: one byte for the KEM, then the key; no EncodeEC is ever equal to it."""
    return b"\x02" + public


# --- what is published ----------------------------------------------------------------------------------


class SignedKey(msgspec.Struct, frozen=True):
    """A public prekey with its signature; times in Unix seconds."""

    kind: KeyKind
    id: int
    issued: int
    expires: int
    signature: bytes
    key: bytes


class OneTimeKey(msgspec.Struct, frozen=True):
    """A one-time X25519 prekey; as in the specification it bears no signature."""

    id: int
    key: bytes


class PrekeyBundle(msgspec.Struct, frozen=True):
    """What an initiator gets: SPK, PQPK (one-time, else last-resort) and, while there are any, an OPK."""

    uid: int
    device: int
    version: int
    signed: SignedKey
    kem: SignedKey
    one_time: OneTimeKey | None


class Upload(msgspec.Struct, frozen=True):
    """What a device publishes at the relay: two keys replace those before, the others are added."""

    signed: SignedKey
    last_resort: SignedKey
    one_time: tuple[OneTimeKey, ...]
    kem_one_time: tuple[SignedKey, ...]


def encode_signed_key(key: SignedKey) -> bytes:
    """Gives a signed key's bytes: 117 for a signed prekey, 1,653 for a KEM key."""
    return _SIGNED_KEY.pack(key.kind, key.id, key.issued, key.expires, key.signature) + key.key


def decode_signed_key(data: bytes) -> SignedKey:
    """Reads what `encode_signed_key` wrote, without judging it; raises BadRecord."""
    try:
        kind, id_, issued, expires, signature = _SIGNED_KEY.unpack_from(data)
        key = SignedKey(KeyKind(kind), id_, issued, expires, signature, data[_SIGNED_KEY.size :])
    except (struct.error, ValueError) as exc:
        raise BadRecord("The signed prekey is malformed.") from exc
    if len(key.key) != (X25519_BYTES if key.kind is KeyKind.SIGNED_PREKEY else KEM_PUBLIC_BYTES):
        raise BadRecord("The signed prekey has the wrong length.")
    return key


def encode_one_time(key: OneTimeKey) -> bytes:
    """Gives a one-time prekey's 36 bytes."""
    return _ONE_TIME.pack(key.id, key.key)


def decode_one_time(data: bytes) -> OneTimeKey:
    """Reads what `encode_one_time` wrote; raises BadRecord."""
    if len(data) != ONE_TIME_BYTES:
        raise BadRecord(f"A one-time prekey has {ONE_TIME_BYTES} bytes, this one {len(data)}.")
    key = OneTimeKey(*_ONE_TIME.unpack(data))
    if not key.id:
        raise BadRecord("A one-time prekey has the id that stands for none.")
    return key


def encode_bundle(bundle: PrekeyBundle) -> bytes:
    """Gives the bundle's bytes; the keys stand in them as they were published."""
    head = _BUNDLE.pack(_BUNDLE_FORMAT, bundle.uid, bundle.device, bundle.version)
    last = encode_one_time(bundle.one_time) if bundle.one_time else b""
    return head + encode_signed_key(bundle.signed) + encode_signed_key(bundle.kem) + last


def decode_bundle(data: bytes) -> PrekeyBundle:
    """Reads what `encode_bundle` wrote, without judging it; raises BadRecord."""
    signed = _BUNDLE.size
    kem = signed + SIGNED_PREKEY_BYTES
    end = kem + SIGNED_KEM_BYTES
    if len(data) not in (end, end + ONE_TIME_BYTES):
        raise BadRecord("The prekey bundle has an impossible length.")
    format_, uid, device, version = _BUNDLE.unpack_from(data)
    if format_ != _BUNDLE_FORMAT:
        raise BadRecord(f"The prekey bundle has format {format_}, which this program does not know.")
    return PrekeyBundle(
        uid,
        device,
        version,
        decode_signed_key(data[signed:kem]),
        decode_signed_key(data[kem:end]),
        decode_one_time(data[end:]) if len(data) > end else None,
    )


def verify_bundle(network: Network, bundle: PrekeyBundle, record: DeviceRecord, uid: int, now: int) -> None:
    """Raises BadRecord unless the (verified) record of user `uid` vouches for every signed key in the bundle.

    The version must be the record's, so a bundle of keys that the chain has replaced is worth nothing; the
    record must list suite 2.
    """
    where = f"The prekey bundle of device {bundle.device} of user {bundle.uid}"
    require_suite(record)
    if (bundle.uid, bundle.device, bundle.version) != (uid, record.device, record.version):
        raise BadRecord(f"{where} is for another device or key version than the chain's.")
    if bundle.signed.kind is not KeyKind.SIGNED_PREKEY or bundle.kem.kind is KeyKind.SIGNED_PREKEY:
        raise BadRecord(f"{where} offers a key for another purpose than it was signed for.")
    for key in (bundle.signed, bundle.kem):
        if not ed25519.verify(
            record.ed25519, key.signature, _signed_bytes(network, uid, record.device, record.version, key)
        ):
            raise BadRecord(f"{where} holds a key that is not signed by the device's key.")
        if key.issued > now + CLOCK_SKEW:
            raise BadRecord(f"{where} is dated in the future.", "Check this machine's clock.")
        if now >= key.expires:
            raise BadRecord(f"{where} has expired.", "The device publishes new keys when it logs in next.")


def require_suite(record: DeviceRecord) -> None:
    """Raises BadRecord when the record does not list suite 2."""
    if not lists(record, Suite.RATCHET):
        raise BadRecord(f"Device {record.device} lists no suite with prekeys in its record on the chain.")


def refuse_downgrade(record: DeviceRecord, suite: int) -> None:
    """Raises BadRecord when a device that lists suite 2 is written to, or heard from, by an older suite."""
    if lists(record, Suite.RATCHET) and suite != Suite.RATCHET:
        raise BadRecord(
            f"Device {record.device} speaks suite {int(Suite.RATCHET)} by its record on the chain; "
            f"suite {suite} is refused."
        )


def _signed_bytes(network: Network, uid: int, device: int, version: int, key: SignedKey) -> bytes:
    encoded = encode_ec(key.key) if key.kind is KeyKind.SIGNED_PREKEY else encode_kem(key.key)
    try:
        fields = _SIGNED.pack(
            network.chain_id, network.registry, uid, device, version, key.id, key.issued, key.expires
        )
    except struct.error as exc:
        raise BadRecord("The prekey names a number that cannot be.") from exc
    return _LABELS[key.kind] + fields + encoded


# --- what is kept ---------------------------------------------------------------------------------------


class Secret(msgspec.Struct, frozen=True):
    """A prekey's secret (32 bytes, or the KEM's seed of 64) and its time of issue."""

    secret: bytes
    issued: int

    def __repr__(self) -> str:
        return "Secret(…)"


class Pair(msgspec.Struct, frozen=True):
    """A signed prekey and the last-resort key that rotates with it; `replaced` is 0 while it is in force."""

    signed_id: int
    signed: bytes
    kem_id: int
    kem: bytes
    issued: int
    replaced: int = 0

    def __repr__(self) -> str:
        return "Pair(…)"


class Begun(msgspec.Struct, frozen=True):
    """A handshake without one-time keys that was answered: by which signed prekey, whose it was, its mark.

    User 0 is not known (a store of version 1 does not say). An empty mark says that no other of this user is
    answered by this signed prekey.
    """

    signed_id: int
    user: int
    mark: bytes


class Past(msgspec.Struct, frozen=True):
    """What is remembered, beside the store, of one user's handshakes with one signed prekey: the marks of
    those without one-time keys; or that this memory was given up, so that no others are answered.
    """

    marks: frozenset[bytes] = frozenset()
    closed: bool = False


NOTHING: Final = Past()
"""What is remembered of somebody new."""


class PrekeyStore(msgspec.Struct, frozen=True):
    """All secrets of a device's prekeys, and what was just begun with them.

    `pairs` are the oldest first, the last one in force. A handshake with a one-time key cannot come again,
    because its key is gone; one without is remembered for as long as its signed prekey is there. That memory
    (`Past`) lies beside the store, since it may be large: `begun` is what has come to it since the store was
    read, to be added in the transaction that saves the store.
    """

    next_id: int
    pairs: tuple[Pair, ...]
    one_time: Mapping[int, Secret]
    kem_one_time: Mapping[int, Secret]
    begun: tuple[Begun, ...] = ()

    def __repr__(self) -> str:
        return "PrekeyStore(…)"


class Found(msgspec.Struct, frozen=True):
    """The secrets that one handshake names."""

    signed: bytes
    one_time: bytes
    kem: bytes

    def __repr__(self) -> str:
        return "Found(…)"


def new_store(now: int) -> PrekeyStore:
    """Draws the first keys; `now` in Unix seconds."""
    return _refilled(_rotated(PrekeyStore(1, (), {}, {}), now), now, 0, 0)


def maintain(store: PrekeyStore, now: int, left: int, kem_left: int) -> PrekeyStore:
    """Rotates, deletes and refills what is due; gives the same store when nothing is.

    `left` and `kem_left` are the one-time keys that the relay still has. To be called at each login.
    """
    if now >= store.pairs[-1].issued + ROTATION:
        store = _rotated(store, now)
    return _refilled(_swept(store, now), now, left, kem_left)


def renew(store: PrekeyStore, now: int) -> PrekeyStore:
    """Replaces what is in force before its time, for a device whose identity keys were replaced."""
    return _swept(_rotated(store, now), now)


def upload(
    store: PrekeyStore,
    network: Network,
    secrets: DeviceSecrets,
    *,
    uid: int,
    device: int,
    version: int,
    since: int,
) -> Upload:
    """Signs what the relay should have: the keys in force, and the one-time keys with ids from `since`.

    `since` is 0 for all that is left (for a new key version, whose signatures replace the old ones) or the
    `next_id` of the store before `maintain`.
    """

    def signed(kind: KeyKind, id_: int, issued: int, public: bytes) -> SignedKey:
        key = SignedKey(kind, id_, issued, issued + LIFETIME, b"", public)
        claim = _signed_bytes(network, uid, device, version, key)
        return msgspec.structs.replace(key, signature=secrets.signing_key.sign(claim))

    now = store.pairs[-1]
    return Upload(
        signed(KeyKind.SIGNED_PREKEY, now.signed_id, now.issued, x25519.public_of(now.signed)),
        signed(KeyKind.LAST_RESORT_KEM, now.kem_id, now.issued, _kem_public(now.kem)),
        tuple(
            OneTimeKey(id_, x25519.public_of(each.secret))
            for id_, each in store.one_time.items()
            if id_ >= since
        ),
        tuple(
            signed(KeyKind.ONE_TIME_KEM, id_, each.issued, _kem_public(each.secret))
            for id_, each in store.kem_one_time.items()
            if id_ >= since
        ),
    )


def find(
    store: PrekeyStore,
    past: Past,
    handshake_id: bytes,
    user: int,
    signed_id: int,
    one_time_id: int,
    kem_id: int,
) -> Found:
    """Gives the secrets that a handshake of a user names (one-time id 0: none); `past` is of that user and
    that signed prekey.

    Raises Undecryptable for a handshake that was answered before, or whose keys have been used or deleted,
    and LimitReached for one without one-time keys of a user who has begun too many.
    """
    if _unlimited(store, one_time_id, kem_id):
        _require_new(store, past, handshake_id, user, signed_id)
    gone = Undecryptable("The message was made with a prekey that this device has used or deleted.")
    pair = next((each for each in store.pairs if each.signed_id == signed_id), None)
    if pair is None:
        raise gone
    one_time = store.one_time.get(one_time_id)
    if one_time_id and one_time is None:
        raise gone
    kem = store.kem_one_time.get(kem_id)
    last = next((each.kem for each in store.pairs if each.kem_id == kem_id), None)
    seed = kem.secret if kem else last
    if seed is None:
        raise gone
    return Found(pair.signed, one_time.secret if one_time else b"", seed)


def used(
    store: PrekeyStore,
    past: Past,
    handshake_id: bytes,
    user: int,
    signed_id: int,
    one_time_id: int,
    kem_id: int,
) -> PrekeyStore:
    """Gives the store after an answered handshake: its one-time keys are gone, or it is to be remembered.

    Only what can be remembered is answered: raises what `find` raises.
    """
    if _unlimited(store, one_time_id, kem_id):
        _require_new(store, past, handshake_id, user, signed_id)
        begun = Begun(signed_id, user, _mark(handshake_id))
        store = msgspec.structs.replace(store, begun=(*store.begun, begun))
    return msgspec.structs.replace(
        store,
        one_time=_without(store.one_time, one_time_id),
        kem_one_time=_without(store.kem_one_time, kem_id),
    )


def _unlimited(store: PrekeyStore, one_time_id: int, kem_id: int) -> bool:
    """Whether a handshake uses no key up, so that it could come any number of times."""
    return one_time_id not in store.one_time and kem_id not in store.kem_one_time


def _require_new(store: PrekeyStore, past: Past, handshake_id: bytes, user: int, signed_id: int) -> None:
    """Raises unless this is one more that can be remembered."""
    fresh = {each.mark for each in store.begun if each.signed_id == signed_id and each.user in (user, 0)}
    marks = past.marks | fresh
    if _mark(handshake_id) in marks:
        raise Undecryptable("The message repeats a handshake that this device has answered.")
    if past.closed or b"" in marks or len(marks) >= MAX_BEGUN:
        raise LimitReached(
            "This user has begun too many sessions without one-time keys; this one is not answered.",
            "Others are once new prekeys are published, within a week; with one-time keys any is.",
        )


def _mark(handshake_id: bytes) -> bytes:
    """By what a handshake is known again: it is compared with others of its user only, so nobody gains by two
    that share it, and by accident two in 2^64 do.
    """
    return handshake_id[:HANDSHAKE_MARK_BYTES]


def _rotated(store: PrekeyStore, now: int) -> PrekeyStore:
    replaced = tuple(
        each if each.replaced else msgspec.structs.replace(each, replaced=now) for each in store.pairs
    )
    pair = Pair(store.next_id, os.urandom(X25519_BYTES), store.next_id + 1, os.urandom(_KEM_SEED_BYTES), now)
    return msgspec.structs.replace(store, pairs=(*replaced, pair), next_id=store.next_id + 2)


def _swept(store: PrekeyStore, now: int) -> PrekeyStore:
    """Deletes what has been replaced for longer than the grace, and one-time keys that nobody may use now."""
    pairs = tuple(each for each in store.pairs if not each.replaced or now < each.replaced + GRACE)
    pairs = pairs[-MAX_PAIRS:]
    ids = {each.signed_id for each in pairs}
    return msgspec.structs.replace(
        store,
        pairs=pairs,
        one_time=_fresh(store.one_time, now),
        kem_one_time=_fresh(store.kem_one_time, now),
        begun=tuple(each for each in store.begun if each.signed_id in ids),
    )


def _refilled(store: PrekeyStore, now: int, left: int, kem_left: int) -> PrekeyStore:
    next_id, one_time, kem_one_time = store.next_id, dict(store.one_time), dict(store.kem_one_time)
    if left < REFILL_BELOW:
        for _ in range(BATCH - left):
            one_time[next_id] = Secret(os.urandom(X25519_BYTES), now)
            next_id += 1
    if kem_left < REFILL_BELOW:
        for _ in range(BATCH - kem_left):
            kem_one_time[next_id] = Secret(os.urandom(_KEM_SEED_BYTES), now)
            next_id += 1
    return msgspec.structs.replace(
        store, next_id=next_id, one_time=_newest(one_time), kem_one_time=_newest(kem_one_time)
    )


def _fresh(keys: Mapping[int, Secret], now: int) -> dict[int, Secret]:
    return {id_: each for id_, each in keys.items() if now < each.issued + LIFETIME + GRACE}


def _newest(keys: Mapping[int, Secret]) -> dict[int, Secret]:
    return dict(list(keys.items())[-MAX_ONE_TIME:])


def _without(keys: Mapping[int, Secret], id_: int) -> Mapping[int, Secret]:
    return {each: secret for each, secret in keys.items() if each != id_} if id_ in keys else keys


def _kem_public(seed: bytes) -> bytes:
    return MLKEM1024PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()


# --- the saved store: docs/protocol.md ------------------------------------------------------------------

STORE_VERSION: Final = 3

_STORE: Final = struct.Struct(">BIBHH")
_STORE_2: Final = struct.Struct(">BIBHHHH")
_STORE_1: Final = struct.Struct(">BIBHHH")
_PAIR: Final = struct.Struct(">I32sI64sQQ")
_X_SECRET: Final = struct.Struct(">IQ32s")
_KEM_SECRET: Final = struct.Struct(">IQ64s")
_SEEN_2: Final = struct.Struct(">32sIQ")
_SEEN_1: Final = struct.Struct(">32sI")
_CLOSED_2: Final = struct.Struct(">IQ")

_Table = list[tuple[Any, ...]]


def encode_store(store: PrekeyStore) -> bytes:
    """Gives the store's bytes, for the encrypted database; `begun` is no part of them."""
    head = _STORE.pack(
        STORE_VERSION, store.next_id, len(store.pairs), len(store.one_time), len(store.kem_one_time)
    )
    return b"".join(
        [
            head,
            *(_PAIR.pack(p.signed_id, p.signed, p.kem_id, p.kem, p.issued, p.replaced) for p in store.pairs),
            *(_X_SECRET.pack(id_, each.issued, each.secret) for id_, each in store.one_time.items()),
            *(_KEM_SECRET.pack(id_, each.issued, each.secret) for id_, each in store.kem_one_time.items()),
        ]
    )


def decode_store(data: bytes) -> PrekeyStore:
    """Reads what `encode_store` wrote, now or in an older version; raises BadRecord.

    The versions before 3 hold what was begun themselves: it is in `begun` then, as if it had just been.
    """
    read = READERS.get(data[0]) if data else None
    if read is None:
        raise BadRecord("The saved prekeys are empty, or of a newer program than this one.")
    try:
        return read(data)
    except (struct.error, ValueError) as exc:
        raise BadRecord("The saved prekeys are damaged.") from exc


def _read_3(data: bytes) -> PrekeyStore:
    _, next_id, *counts = _STORE.unpack_from(data)
    return _store(next_id, _tables(data, _STORE.size, (_PAIR, _X_SECRET, _KEM_SECRET), counts))


def _read_2(data: bytes) -> PrekeyStore:
    _, next_id, *counts = _STORE_2.unpack_from(data)
    *tables, seen, closed = _tables(
        data, _STORE_2.size, (_PAIR, _X_SECRET, _KEM_SECRET, _SEEN_2, _CLOSED_2), counts
    )
    begun = [Begun(signed_id, user, _mark(id_)) for id_, signed_id, user in seen]
    return _store(next_id, tables, [*begun, *(Begun(signed_id, user, b"") for signed_id, user in closed)])


def _read_1(data: bytes) -> PrekeyStore:
    """The version that did not say who had begun what is remembered."""
    _, next_id, *counts = _STORE_1.unpack_from(data)
    *tables, seen = _tables(data, _STORE_1.size, (_PAIR, _X_SECRET, _KEM_SECRET, _SEEN_1), counts)
    return _store(next_id, tables, [Begun(signed_id, 0, _mark(id_)) for id_, signed_id in seen])


def _store(next_id: int, tables: Sequence[_Table], begun: Sequence[Begun] = ()) -> PrekeyStore:
    pairs, one_time, kem_one_time = tables
    return PrekeyStore(
        next_id,
        tuple(Pair(*fields) for fields in pairs),
        _secrets(one_time),
        _secrets(kem_one_time),
        tuple(begun),
    )


def _tables(
    data: bytes, position: int, layouts: Sequence[struct.Struct], counts: Sequence[int]
) -> list[_Table]:
    """The rows of tables that follow each other up to the end; raises ValueError."""
    tables = []
    for layout, count in zip(layouts, counts, strict=True):
        end = position + count * layout.size
        if end > len(data):
            raise ValueError("truncated")
        tables.append(list(layout.iter_unpack(data[position:end])))
        position = end
    if position != len(data) or not counts[0]:
        raise ValueError("tail, or no signed prekey")
    return tables


def _secrets(rows: _Table) -> dict[int, Secret]:
    return {id_: Secret(secret, issued) for id_, issued, secret in rows}


READERS: Final = {1: _read_1, 2: _read_2, 3: _read_3}
"""A reader for each version that was ever written; each gives today's store."""
