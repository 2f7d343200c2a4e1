"""Writes prekeys.json, pqxdh.json and ratchet.json; run once: `python -m tests.vectors.make_suite2`.

Ephemeral keys and encapsulations are drawn anew, so run this only when a layout has changed on purpose. As in
`make`, each case names its expected outcome. The saved states in these files are what older programs wrote:
they must load for ever.
"""

from __future__ import annotations

import hashlib

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chatchain.crypto import pqxdh, prekeys, ratchet, session
from chatchain.crypto.prekeys import LIFETIME
from chatchain.crypto.session import Session
from chatchain.crypto.x25519 import agree
from chatchain.errors import ChatchainError
from chatchain.identity.record import encode_record
from tests.crypto.pairs import ADA, BOB, MALLORY, NOW, Device, device, ping_pong
from tests.identity.people import NETWORK, seed
from tests.vectors.make import Case, flipped, write

AD = b"message id 16 by"
STORE = msgspec.structs.replace(
    prekeys.new_store(NOW),
    next_id=8,
    pairs=(prekeys.Pair(1, seed("spk"), 2, seed("last") * 2, NOW),),
    one_time={3: prekeys.Secret(seed("opk", 1), NOW), 4: prekeys.Secret(seed("opk", 2), NOW)},
    kem_one_time={5: prekeys.Secret(seed("pqopk") * 2, NOW)},
)
BUNDLE = BOB.bundle(STORE)


def bundle_cases() -> list[Case]:
    """Bundles as an initiator judges them by Bob's record."""
    said = {"record": encode_record(BOB.party.record), "uid": BOB.party.uid, "now": NOW}
    right = prekeys.encode_bundle(BUNDLE)
    signed = prekeys._signed_bytes(NETWORK, BOB.party.uid, 1, 1, BUNDLE.signed)
    lists_only_suite_1 = encode_record(device("bob", suites=2).party.record)
    parts = {
        "bundle": right,
        "signed_prekey": prekeys.encode_signed_key(BUNDLE.signed),
        "signed_prekey_claim": signed,
        "kem_prekey_start": prekeys.encode_signed_key(BUNDLE.kem)[:85],
    }
    assert BUNDLE.one_time is not None
    cases: list[tuple[str, bytes, Case, str]] = [
        ("without one-time keys", prekeys.encode_bundle(BOB.bundle(STORE, one_time=False)), said, "ok"),
        ("at its last second", right, said | {"now": NOW + LIFETIME - 1}, "ok"),
        ("truncated", right[:-1], said, "bad_record"),
        ("with a tail", right + b"\0", said, "bad_record"),
        ("unknown format", b"\x02" + right[1:], said, "bad_record"),
        ("expired", right, said | {"now": NOW + LIFETIME}, "bad_record"),
        ("altered signed prekey", flipped(right, 133), said, "bad_record"),
        ("altered KEM prekey", flipped(right, 1786), said, "bad_record"),
        ("of another device", prekeys.encode_bundle(MALLORY.bundle(STORE)), said, "bad_record"),
        ("to a device without suite 2", right, said | {"record": lists_only_suite_1}, "bad_record"),
    ]
    return [
        {"name": "right", "outcome": "ok", **parts, **said},
        *(
            {"name": name, "outcome": outcome, "bundle": data, **given}
            for name, data, given, outcome in cases
        ),
    ]


def handshake_case(name: str, bundle: prekeys.PrekeyBundle, text: bytes) -> Case:
    """A handshake with everything on the way."""
    begun = session.initiate(NETWORK, ADA.secrets, ADA.party, BOB.party, bundle, NOW)
    _, message = session.encrypt(begun, text, AD)
    handshake = begun.handshake
    named = pqxdh.decode_handshake(handshake)
    ids = (named.signed_id, named.one_time_id, named.kem_id)
    found = prekeys.find(STORE, prekeys.NOTHING, begun.id, ADA.party.uid, *ids)
    keys = pqxdh.agree_as_responder(BOB.secrets, BOB.party, ADA.party, found, handshake)
    return {
        "name": name,
        "outcome": "ok",
        **sides(ADA, BOB),
        "store": prekeys.encode_store(STORE),
        "ad": AD,
        "now": NOW,
        "message": message,
        "handshake_head": handshake[:52],
        "handshake_id": begun.id,
        "associated_data": pqxdh._associated_data(ADA.party, BOB.party, bundle.kem.key),
        "transcript": keys.ad,
        "root": keys.sk,
        "hka": keys.hka,
        "nhkb": keys.nhkb,
        "plaintext": text,
    }


def sides(initiator: Device, responder: Device) -> Case:
    """Who they are, and the responder's identity secret."""
    return {
        "initiator_uid": initiator.party.uid,
        "initiator_record": encode_record(initiator.party.record),
        "responder_uid": responder.party.uid,
        "responder_record": encode_record(responder.party.record),
        "responder_x25519": responder.secrets.x25519,
    }


def handshake_cases() -> list[Case]:
    """Right ones with and without one-time keys, and what an adversary makes of them."""
    right = handshake_case("all one-time keys", BUNDLE, b"hello, bob")
    bare = handshake_case(
        "no one-time key", BOB.bundle(STORE, one_time=False, one_time_kem=False), b"hello again"
    )
    used, _, _ = BOB.accept(STORE, ADA, right["message"], AD)
    seen, _, _ = BOB.accept(STORE, ADA, bare["message"], AD)
    other = {"initiator_uid": MALLORY.party.uid, "initiator_record": encode_record(MALLORY.party.record)}
    bad: list[tuple[str, Case]] = [
        ("replayed", right | {"store": prekeys.encode_store(used)}),
        ("replayed without a one-time key", bare | {"remembered": seen.begun[0].mark}),
        ("altered EK", right | {"message": flipped(right["message"], 21)}),
        ("EK in another spelling", bare | {"message": flipped_high(bare["message"], 52)}),
        ("altered CT", right | {"message": flipped(right["message"], 53)}),
        ("another one-time prekey named", right | {"message": flipped_to(right["message"], 16, 4)}),
        ("other additional data", right | {"ad": AD[::-1]}),
        ("truncated", right | {"message": right["message"][:-1]}),
        ("said to be from somebody else", right | other),
        ("for another key version", right | {"message": flipped(right["message"], 8)}),
    ]
    kept = ("store", "remembered", "ad", "now", "message", *sides(ADA, BOB))
    return [
        right,
        bare,
        *(
            {"name": name, "outcome": "undecryptable", **{key: case[key] for key in kept if key in case}}
            for name, case in bad
        ),
    ]


def flipped_high(data: bytes, position: int) -> bytes:
    """The data with the highest bit of a byte changed."""
    return flipped_to(data, position, data[position] ^ 0x80)


def flipped_to(data: bytes, position: int, value: int) -> bytes:
    """The data with another byte in one place."""
    return data[:position] + bytes([value]) + data[position + 1 :]


def ratchet_cases() -> list[Case]:
    """Saved states and what they make of a message."""
    begun = session.initiate(NETWORK, ADA.secrets, ADA.party, BOB.party, BUNDLE, NOW)
    ada, first = session.encrypt(begun, b"first", AD)
    _, bob, _ = BOB.accept(STORE, ADA, first, AD)
    bob, answer = session.encrypt(bob, b"answer", AD)
    cases = [reading("the first answer", ada, answer, b"answer")]
    ada, _ = session.decrypt(ada, answer, AD, NOW)
    before = ada
    ada, message = session.encrypt(ada, b"second chain", AD)
    shown = schedule(before, ada, message, b"second chain")
    cases.append(reading("a new chain", bob, message, b"second chain") | shown)
    at_chain = bob
    ada, late = session.encrypt(ada, b"late", AD)
    ada, jump = session.encrypt(ada, b"jump", AD)
    cases.append(reading("a jump", bob, jump, b"jump"))
    bob, _ = session.decrypt(bob, jump, AD, NOW)
    cases += [
        reading("a skipped message", bob, late, b"late"),
        reading("a repeated message", bob, jump, None),
        reading("a skipped message just in time", bob, late, b"late", now=NOW + ratchet.SKIPPED_LIFETIME),
        reading("a skipped message too late", bob, late, None, now=NOW + ratchet.SKIPPED_LIFETIME + 1),
        reading("altered header", at_chain, flipped(message, 20), None),
        reading("altered body", at_chain, flipped(message, len(message) - 1), None),
        reading("truncated", at_chain, message[:-1], None),
        reading("of another session", at_chain, first[:1] + flipped(first[1:], 30), None),
    ]
    bob, _ = session.decrypt(bob, late, AD, NOW)
    while True:
        bob, message = session.encrypt(bob, b"pong", AD)
        if bob.ratchet.kem_answer:
            cases.append(reading("a KEM answer", ada, message, b"pong"))
            ada, _ = session.decrypt(ada, message, AD, NOW)
            break
        ada, _ = session.decrypt(ada, message, AD, NOW)
        ada, message = session.encrypt(ada, b"ping", AD)
        if ada.ratchet.kem_seed:
            cases.append(reading("a KEM offer", bob, message, b"ping", random=True))
        bob, _ = session.decrypt(bob, message, AD, NOW)
    before = ada
    ada, message = session.encrypt(ada, b"next epoch", AD)
    shown = schedule(before, ada, message, b"next epoch") | {"kem_secret": before.ratchet.kem_secret}
    cases.append(reading("the first chain of a KEM epoch", bob, message, b"next epoch") | shown)
    without = msgspec.structs.replace(
        bob, ratchet=msgspec.structs.replace(bob.ratchet, kem_secret=b"", kem_answer=b"")
    )
    cases.append(reading("a KEM epoch without its secret", without, message, None))
    bob, _ = session.decrypt(bob, message, AD, NOW)
    ping_pong(ada, bob, 3)
    return cases


def reading(
    name: str, state: Session, message: bytes, plaintext: bytes | None, now: int = NOW, random: bool = False
) -> Case:
    """What a state makes of a message; `random`: the state after draws something."""
    case: Case = {
        "name": name,
        "state": session.encode_session(state),
        "message": message,
        "ad": AD,
        "now": now,
    }
    try:
        after, found = session.decrypt(state, message, AD, now)
    except ChatchainError as failure:
        assert plaintext is None, name
        return case | {"outcome": failure.code}
    assert found == plaintext
    shown: Case = {} if random else {"state_after": session.encode_session(after)}
    return case | {"outcome": "ok", "plaintext": found, **shown}


def schedule(before: Session, after: Session, message: bytes, text: bytes) -> Case:
    """The keys on the way of the first message of a chain."""
    state, new = before.ratchet, after.ratchet
    dh = agree(new.dhs, new.dhr)
    rk, ck, nhk = ratchet._kdf_rk(state.rk, dh + state.kem_secret)
    _, mk = ratchet._kdf_ck(ck)
    sealed, body = message[1:76], message[76:]
    header = AESGCM(new.hks).decrypt(sealed[:16], sealed[16:], None)
    assert (rk, nhk) == (new.rk, new.nhks)
    assert AESGCM(mk).decrypt(bytes(12), body, new.ad + sealed + AD) == text
    return {
        "rk_before": state.rk,
        "dh_out": dh,
        "rk": rk,
        "ck": ck,
        "nhk": nhk,
        "mk": mk,
        "hk": new.hks,
        "header": header,
        "sealed_header": sealed,
        "body_sha256": hashlib.sha256(body).digest(),
    }


if __name__ == "__main__":
    write(
        "prekeys.json",
        "Prekey bundles against Bob's record",
        bundle_cases(),
    )
    write("pqxdh.json", "Initial messages of suite 2 as Bob's device opens them", handshake_cases())
    write("ratchet.json", "Saved sessions of suite 2 and what they make of a message", ratchet_cases())
