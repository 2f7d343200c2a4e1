"""Suite 2: what a relay hands out and delivers, and what a disk gives back."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chatchain.crypto import prekeys, ratchet, ratcheted, session
from chatchain.crypto.padding import MAX_PADDED, pad, unpad
from chatchain.crypto.pqxdh import decode_handshake, encode_handshake, handshake_id
from chatchain.crypto.sealed import MAX_TIME_MS
from chatchain.errors import BadRecord, LimitReached, Undecryptable
from tests.crypto.pairs import ADA, BOB, BUNDLE, NOW, STORE, settled
from tests.fuzz.target import cases, field, target
from tests.identity.people import NETWORK

SETTLED: Final = settled()
KEY: Final = bytes(range(32))
MAX_INSIDE: Final = MAX_PADDED - 1
FIRST: Final = session.encrypt(ADA.begin(BOB, BUNDLE), b"first", b"")[1]
SAID: Final = session.encrypt(SETTLED[0], b"said", b"")[1]
UPLOAD: Final = BOB.upload(STORE)


@target(BadRecord, seeds=[prekeys.encode_bundle(BUNDLE), *field("prekeys.json", "bundle")])
def bundle(data: bytes) -> None:
    """What a relay hands out as a bundle."""
    parsed = prekeys.decode_bundle(data)
    assert prekeys.encode_bundle(parsed) == data
    prekeys.verify_bundle(NETWORK, parsed, BOB.party.record, BOB.party.uid, NOW)


@target(BadRecord, seeds=map(prekeys.encode_signed_key, (UPLOAD.signed, UPLOAD.last_resort)))
def signed_key(data: bytes) -> None:
    """What a relay hands out as a signed key."""
    assert prekeys.encode_signed_key(prekeys.decode_signed_key(data)) == data


@target(BadRecord, seeds=map(prekeys.encode_one_time, UPLOAD.one_time[:2]))
def one_time(data: bytes) -> None:
    """What a relay hands out as a one-time key."""
    assert prekeys.encode_one_time(prekeys.decode_one_time(data)) == data


@target(BadRecord, seeds=[prekeys.encode_store(STORE), *field("pqxdh.json", "store")])
def store(data: bytes) -> None:
    """What a disk gives back as prekeys."""
    prekeys.encode_store(prekeys.decode_store(data))


@target(BadRecord, seeds=map(session.encode_session, SETTLED))
def saved_session(data: bytes) -> None:
    """What a disk gives back as a session."""
    session.encode_session(session.decode_session(data))


@target(BadRecord, seeds=[ratchet.encode_ratchet(side.ratchet) for side in SETTLED])
def saved_ratchet(data: bytes) -> None:
    """What a disk gives back as a ratchet."""
    ratchet.encode_ratchet(ratchet.decode_ratchet(data))


@target(Undecryptable, seeds=[FIRST[1:1621]])
def handshake(data: bytes) -> None:
    """The head of a beginning."""
    parsed = decode_handshake(data)
    assert encode_handshake(parsed) == data
    assert session.initial_handshake(bytes([session.INITIAL]) + data) == (handshake_id(data), parsed)


@target(seeds=[SAID, FIRST])
def message(data: bytes) -> None:
    """What a relay delivers in a session: nothing but what was said decrypts, and the state stays."""
    if data in (SAID, FIRST):
        return
    for side in SETTLED:
        before = session.encode_session(side)
        try:
            session.decrypt(side, data, b"", NOW)
        except Undecryptable:
            assert session.encode_session(side) == before
        else:
            raise AssertionError("noise was decrypted")


@target(BadRecord, LimitReached, Undecryptable, seeds=[FIRST])
def initial(data: bytes) -> None:
    """What a relay delivers as a beginning; the seed is a right one, so its alterations are tried too."""
    if data != FIRST:
        BOB.accept(STORE, ADA, data)
        raise AssertionError("an altered handshake was answered")


@target(Undecryptable, seeds=[ratcheted._INSIDE.pack(1, NOW * 1000) + bytes.fromhex("019201a26869")])
def body(data: bytes) -> None:
    """What is inside of a body that a session vouches for: the peer may write what it likes."""
    inside = AESGCM(KEY).encrypt(bytes(12), pad(data[:MAX_INSIDE]), b"chatchain/2 body")
    _, time_ms = ratcheted.open_body(ratcheted.header_content(KEY, inside), inside)
    assert time_ms <= MAX_TIME_MS


@target(
    Undecryptable,
    seeds=[bytes.fromhex(case["carried"] + case["body"]) for case in cases("ratcheted.json")],
)
def carried(data: bytes) -> None:
    """What a header carried, and a body for it."""
    ratcheted.open_body(data[:64], data[64:])


@target(Undecryptable, seeds=[pad(b"hello"), *field("padding.json", "padded")])
def padding(data: bytes) -> None:
    """What was padded by somebody else."""
    assert pad(unpad(data)) == data
