"""Writes the vectors of this folder; run once, from the top: `python -m tests.vectors.make`.

The files are checked in and are the protocol's fixed points: a change of a byte layout shows as a vector
that no longer holds. Each case names its expected outcome: "ok", or the code of the error. What is random in
a sealed message or a vault is drawn anew, so run this only when a layout has changed on purpose. xwing.json
is published, not ours.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.hpke import AEAD, KEM, Suite
from cryptography.hazmat.primitives.hpke import KDF as KDF_

from chatchain.crypto import (
    attachments,
    bundle,
    card,
    content,
    groups,
    padding,
    phrase,
    safety,
    sealed,
    vault,
)
from chatchain.crypto.password import Kdf, login_key, vault_key
from chatchain.identity import keys, names, typed_data
from chatchain.identity.login import login_proof, verifier_for
from chatchain.identity.record import decode_record, encode_record, sign_record
from chatchain.model import Kind, Network, Reason
from tests.identity.people import KDF, NETWORK, person, seed

HERE = Path(__file__).parent
ADA = person("ada")
BOB = person("bob")
QUICK = Kdf(b"vault salt 16 by", time_cost=1, memory_kib=8192)
Case = dict[str, Any]


def main() -> None:
    """Writes every file."""
    write("names.json", "Usernames as typed, ids as typed", names_cases())
    write("digests.json", "EIP-712 digests and the signature by `secret`", digest_cases())
    write("record.json", "Device records and what the chain says around them", record_cases())
    write("login.json", "Login proofs as a relay judges them", login_cases())
    write("password.json", "Argon2id and HKDF", password_cases())
    write("vault.json", "Vaults and account key files", vault_cases())
    write("phrase.json", "Recovery phrases", phrase_cases())
    write("padding.json", "Padded plaintexts", padding_cases())
    write("content.json", "Contents before padding", content_cases())
    write("sealed.json", "Deliveries of suite 1 as one device opens them", sealed_cases())
    write("bundle.json", "Key bundles against the record of device 1", bundle_cases())
    write("card.json", "Contact cards against the chain", card_cases())
    write("safety.json", "Safety numbers", safety_cases())


def write(name: str, about: str, cases: list[Case]) -> None:
    """Writes one file, its bytes as hex."""
    body = {"about": about, "network": network_fields(NETWORK), "cases": cases}
    text = json.dumps(body, indent=1, ensure_ascii=False, default=bytes.hex)
    (HERE / name).write_text(text + "\n")


def network_fields(network: Network) -> Case:
    """The deployment that the signatures of a file are bound to."""
    return {name: getattr(network, name) for name in ("chain_id", "directory", "registry", "membership")}


def flipped(data: bytes, position: int) -> bytes:
    """The data with one bit changed."""
    changed = bytearray(data)
    changed[position] ^= 1
    return bytes(changed)


def names_cases() -> list[Case]:
    """Names and ids, good and bad."""
    good = names.uid_text(ADA.uid)
    typed = [("ada", "ada"), ("Ada-Lovelace", "ada-lovelace"), ("ａｄａ", "ada")]
    cases: list[Case] = [{"kind": "name", "typed": t, "name": n, "outcome": "ok"} for t, n in typed]
    cases += [
        {"kind": "name", "typed": t, "outcome": "malformed_name"}
        for t in ("", "ab", "1ada", "ada-", "a--b", "a" * 33, "аda", "ada!")
    ]
    cases += [{"kind": "uid", "typed": good, "uid": ADA.uid, "outcome": "ok"}]
    wrong = (good[:-1] + str((int(good[-1]) + 1) % 10), good[:-1], good + "0", "0" * 15)
    return cases + [{"kind": "uid", "typed": t, "outcome": "malformed_uid"} for t in wrong]


def digest_cases() -> list[Case]:
    """One of each type."""
    uid, signer, record = ADA.uid, ADA.secrets().signer_address, b"\x01record"
    verifier = ADA.user.verifier
    account = ADA.user.account
    given: dict[str, list[Any]] = {
        "register": ["ada", account, verifier, KDF, keys.NOBODY, signer, record, 1_700_000_600],
        "add_device": [uid, 0, signer, record, 3, 1_700_000_600],
        "update_device": [uid, 0, 1, 2, signer, record, 1_700_000_600],
        "revoke_device": [uid, 0, 1, 1_700_000_600],
        "set_verifier": [uid, 0, verifier, KDF, 4, 1_700_000_600],
        "login": [seed("spki"), seed("nonce"), uid, 1, 0],
        "request": ["network", uid, 0, 1_700_000_600],
        "propose": ["network", Kind.EXPEL, BOB.uid, Reason("why"), uid, 0, 1_700_000_600],
        "vote": [1, uid, 0, True],
    }
    cases = []
    for name, values in given.items():
        digest = getattr(typed_data, f"{name}_digest")(NETWORK, *values)
        signature = keys.sign_digest(ADA.account_key, digest)
        cases.append(
            {
                "name": name,
                "outcome": "ok",
                "values": [one.text if isinstance(one, Reason) else one for one in values],
                "digest": digest,
                "secret": ADA.account_key,
                "signature": signature,
                "address": account,
            }
        )
    return cases


def record_cases() -> list[Case]:
    """A registration's, a rotation's, and broken ones."""
    rotated = ADA.rotated().user.devices[0].history
    first, second = rotated
    said = {"account": ADA.user.account, "uid": ADA.uid, "device": 1, "version": 2, "signer": second.signer}
    at_first = said | {"version": 1, "signer": first.signer}
    decoded = decode_record(second.record)

    def resigned(**fields: Any) -> bytes:
        changed = msgspec.structs.replace(decoded, **fields)
        return encode_record(sign_record(changed, ADA.user.account, ADA.secrets(1, 2).ed25519))

    bad: list[tuple[str, bytes, Case]] = [
        ("truncated", second.record[:-1], said),
        ("with a tail", second.record + b"\0", said),
        ("unknown format", b"\x02" + second.record[1:], said),
        ("altered signature", flipped(second.record, 226), said),
        ("altered key", flipped(second.record, 60), said),
        ("another account", second.record, said | {"account": BOB.user.account}),
        ("another user", second.record, said | {"uid": BOB.uid}),
        ("another signer", second.record, said | {"signer": first.signer}),
        ("an older version served as newer", first.record, said),
        ("uid 0 after the registration", resigned(uid=0), said),
        ("Ed25519 key of small order", resigned(ed25519=(1).to_bytes(32, "little")), said),
        ("X25519 key of small order", resigned(x25519=bytes(32)), said),
        ("no suite that is known", resigned(suites=1), said),
        ("another chain", resigned(chain_id=1), said),
    ]
    cases: list[Case] = [
        {"name": "registration", "record": first.record, **at_first, "outcome": "ok"},
        {"name": "rotation", "record": second.record, **said, "outcome": "ok"},
    ]
    return cases + [{"name": n, "record": r, **s, "outcome": "bad_record"} for n, r, s in bad]


def login_cases() -> list[Case]:
    """A right proof and wrong ones."""
    spki, nonce, signer = seed("spki"), seed("nonce"), ADA.secrets().signer
    good = login_proof(
        NETWORK,
        spki=spki,
        nonce=nonce,
        uid=ADA.uid,
        device=1,
        epoch=0,
        login_key=ADA.login_key,
        signer=signer,
    )
    base = {
        "uid": ADA.uid,
        "device": 1,
        "epoch": 0,
        "spki": spki,
        "nonce": nonce,
        "kdf": KDF,
        "verifier": ADA.user.verifier,
        "signer": ADA.secrets().signer_address,
        "login_signature": good.login_signature,
        "device_signature": good.device_signature,
    }
    mirrored = keys.SECP256K1_N - int.from_bytes(good.login_signature[32:64], "big")
    high = good.login_signature[:32] + mirrored.to_bytes(32, "big") + bytes([55 - good.login_signature[64]])
    wrong: dict[str, Case] = {
        "another nonce (replay)": {"nonce": seed("other")},
        "another certificate": {"spki": seed("other")},
        "swapped signatures": {
            "login_signature": good.device_signature,
            "device_signature": good.login_signature,
        },
        "another verifier (password changed)": {"verifier": verifier_for(BOB.login_key, KDF)},
        "other KDF parameters": {"kdf": flipped(KDF, 22)},
        "another signer": {"signer": BOB.secrets().signer_address},
        "s in the upper half": {"login_signature": high},
        "truncated signature": {"device_signature": good.device_signature[:-1]},
    }
    cases: list[Case] = [{"name": "a right proof", **base, "outcome": "ok"}]
    return cases + [{"name": n, **base, **change, "outcome": "login_refused"} for n, change in wrong.items()]


def password_cases() -> list[Case]:
    """Both keys of one password, cheap and at the default cost."""
    secret = b"account secret16"
    return [
        {
            "name": f"{kdf.memory_kib // 1024} MiB",
            "outcome": "ok",
            "password": password,
            "kdf": kdf.encode(),
            "account_secret": secret,
            "login_key": login_key(password, secret, kdf.encode()),
            "vault_key": vault_key(password, kdf),
        }
        for password, kdf in (("correct horse", QUICK), ("Zürich–東京", Kdf(b"login salt 16 by")))
    ]


def vault_cases() -> list[Case]:
    """One vault, opened rightly, wrongly and damaged."""
    secrets = vault.Secrets(b"a" * 16, b"d" * 32, b"k" * 32, b"l" * 32, KDF)
    sealed_vault = vault.seal_vault(secrets, "correct horse", QUICK)
    account = vault.seal_account_key(secrets.keystore_key, ADA.account_key)
    opened = {
        "account_secret": secrets.account_secret,
        "database_key": secrets.database_key,
        "keystore_key": secrets.keystore_key,
        "login_key": secrets.login_key,
        "kdf": secrets.kdf,
    }
    base = {"vault": sealed_vault, "password": "correct horse"}
    return [
        {"name": "right password", **base, "outcome": "ok", "secrets": opened},
        {"name": "wrong password", **base, "password": "correct horses", "outcome": "wrong_password"},
        {"name": "truncated", **base, "vault": sealed_vault[:-1], "outcome": "bad_record"},
        {"name": "empty", **base, "vault": b"", "outcome": "bad_record"},
        {"name": "one bit changed", **base, "vault": flipped(sealed_vault, 60), "outcome": "bad_record"},
        {
            "name": "account key file",
            "account_file": account,
            "keystore_key": secrets.keystore_key,
            "account_key": ADA.account_key,
            "outcome": "ok",
        },
        {
            "name": "account key file of another home",
            "account_file": account,
            "keystore_key": bytes(32),
            "outcome": "bad_record",
        },
    ]


def phrase_cases() -> list[Case]:
    """Known phrases and mistakes."""
    good = ["abandon " * 11 + "about", "test " * 11 + "junk"]
    cases: list[Case] = []
    for words in good:
        found = phrase.keys_of(words)
        cases.append(
            {
                "phrase": words,
                "outcome": "ok",
                "account": keys.to_checksum(keys.address_of(found.account_key)),
                "account_secret": found.account_secret,
            }
        )
    wrong = ("", "abandon " * 12, "about " + "abandon " * 11, "test " * 11 + "jung")
    return cases + [{"phrase": words, "outcome": "usage"} for words in wrong]


def padding_cases() -> list[Case]:
    """Lengths at the edges of buckets, and other paddings."""
    cases: list[Case] = [
        {"data": bytes([7]) * length, "padded_length": len(padding.pad(bytes(length))), "outcome": "ok"}
        for length in (0, 1, 255, 256, 511, 512, 2047, 2048)
    ]
    bad = (b"", bytes(256), b"\x80", b"\x80" + bytes(256), b"\x80" + bytes(254) + b"\1")
    return cases + [{"padded": padded, "outcome": "undecryptable"} for padded in bad]


def content_cases() -> list[Case]:
    """One of each kind, what is yet to come, garbage."""
    target, author, digest = b"message id 16 by", BOB.uid, hashlib.sha256(b"bytes").digest()
    ref = attachments.FileRef(seed("file key"), 5, digest)
    group_key = groups.Distribution(
        groups.GroupEpoch(seed("group"), 3, seed("roster")), 2, 0, 7, seed("chain key"), seed("public")
    )
    good: dict[str, content.Content] = {
        "text": content.text("hello, bob"),
        "text that disappears": content.text("hello, bob", 3600),
        "delivered": content.receipt(content.ReceiptKind.DELIVERED, (target, bytes(16))),
        "read": content.receipt(content.ReceiptKind.READ, (target,)),
        "file": content.file(ref, seed("blob"), "notes.txt", "text/plain"),
        "picture": content.file(
            ref, seed("blob"), "été.jpg", "image/jpeg", thumbnail=b"JPEG", caption="look", expires=60
        ),
        "edit": content.edit(target, "hello, Bob"),
        "delete": content.delete(target),
        "reply": content.reply(author, target, "yes"),
        "reaction": content.reaction(author, target, "👍"),
        "reaction taken away": content.reaction(author, target, ""),
        "typing": content.typing(content.TypingState.STARTED),
        "timer": content.timer(86_400),
        "timer off": content.timer(0),
        "group control": content.group_control(content.ControlKind.SENDER_KEY, group_key.encode()),
        "profile": content.profile("Ada Lovelace"),
        "off the record": content.off_the_record(on=True),
        "on the record": content.off_the_record(on=False),
    }
    cases: list[Case] = [
        {
            "name": n,
            "content": content.encode(one),
            "kind": type(one).__name__,
            "fields": fields(one),
            "outcome": "ok",
        }
        for n, one in good.items()
    ]
    later = {"a later kind": (b"\x01\x92\x63\xa1x", 1, 99), "a later version": (b"\x02", 2, 0)}
    cases += [
        {
            "name": n,
            "content": data,
            "kind": "Unsupported",
            "fields": {"version": version, "kind": kind},
            "outcome": "ok",
        }
        for n, (data, version, kind) in later.items()
    ]
    text = content.encode(good["text"])
    control = content.GroupControl(content.ControlKind.SENDER_KEY, group_key.encode()[:-1])
    bad = {
        "empty": b"",
        "no kind": b"\x01\x90",
        "cut": text[:-1],
        "tail": text + b"x",
        "empty text": b"\x01\x92\x01\xa0",
        "default written out": b"\x01\x93\x01\xa1x\x00",
        "longer number": b"\x01\x93\x01\xa1x\xcd\x00\x01",
        "field too many": b"\x01\x94\x01\xa1x\x01\x01",
        "file in another folder": content.encode(
            content.File(seed("blob"), "../notes.txt", "text/plain", ref.key, 5, digest)
        ),
        "file over the limit": content.encode(
            content.File(seed("blob"), "notes.txt", "text/plain", ref.key, 25_000_001, digest)
        ),
        "two emoji": content.encode(content.Reaction(author, target, "👍👍")),
        "timer of two years": content.encode(content.Timer(2 * 365 * 86_400)),
        "group key cut": content.encode(control),
        "name that turns": content.encode(content.Profile("ada\u202e")),
        "name not composed": content.encode(content.Profile("e\u0301te\u0301")),
    }
    return cases + [{"name": n, "content": data, "outcome": "undecryptable"} for n, data in bad.items()]


def fields(one: content.Content) -> Case:
    """What a content says, field by field."""
    found: Case = msgspec.to_builtins(msgspec.structs.asdict(one), builtin_types=(bytes,))
    return found


def sealed_cases() -> list[Case]:
    """One message as its reader gets it, and as a hostile relay could change it."""
    message_id, now = b"message id 16 by", 1_700_000_000_500

    def made(text: str, network: Network = NETWORK) -> tuple[bytes, bytes]:
        body, copies = sealed.seal(
            network,
            content.text(text),
            secrets=ADA.secrets(),
            sender=ADA.uid,
            device=1,
            version=1,
            recipient=BOB.uid,
            message_id=message_id,
            time_ms=now,
            targets=[sealed.Target(BOB.uid, 1, BOB.secrets().kem_public)],
        )
        return body, copies[0].header

    body, header = made("hello, bob")
    other_body, _ = made("another text")
    elsewhere = made("hello, bob", msgspec.structs.replace(NETWORK, chain_id=1))
    base = {
        "id": message_id,
        "suite": 1,
        "sender": ADA.uid,
        "sender_device": 1,
        "recipient": BOB.uid,
        "header": header,
        "body": body,
        "reader": BOB.uid,
        "reader_device": 1,
        "kem_seed": BOB.secrets().kem_seed,
        "sender_key": ADA.secrets().ed25519_public,
    }
    wrong: dict[str, tuple[str, Case]] = {
        "altered encapsulation": ("undecryptable", {"header": flipped(header, 5)}),
        "altered header": ("undecryptable", {"header": flipped(header, 1130)}),
        "altered body": ("undecryptable", {"body": flipped(body, 5)}),
        "truncated header": ("undecryptable", {"header": header[:-1]}),
        "truncated body": ("undecryptable", {"body": body[:-1]}),
        "body of another message": ("undecryptable", {"body": other_body}),
        "another device": ("undecryptable", {"reader_device": 2}),
        "another key": ("undecryptable", {"kem_seed": ADA.secrets().kem_seed}),
        "another network": ("undecryptable", {"header": elsewhere[1], "body": elsewhere[0]}),
        "unknown suite": ("undecryptable", {"suite": 9}),
        "forged sender": ("forged_message", {"sender": person("eve").uid}),
        "forged sender's device": ("forged_message", {"sender_device": 2}),
        "a key that the chain does not list": (
            "forged_message",
            {"sender_key": BOB.secrets().ed25519_public},
        ),
        "a key of small order": ("forged_message", {"sender_key": (1).to_bytes(32, "little")}),
        "replayed under another id": ("forged_message", {"id": b"another id 16 by"}),
        "addressed to somebody else": ("forged_message", {"recipient": person("eve").uid}),
    }
    hello = {"text": "hello, bob", "time_ms": now, "version": 1} | inside(header, message_id, now)
    cases: list[Case] = [{"name": "hello", **base, "outcome": "ok", **hello}]
    return cases + [{"name": n, **base, **change, "outcome": code} for n, (code, change) in wrong.items()]


def inside(header: bytes, message_id: bytes, now: int) -> Case:
    """What Bob's device finds in the header, and the bytes that its signature is over."""
    suite = Suite(KEM.MLKEM768_X25519, KDF_.HKDF_SHA256, AEAD.AES_256_GCM)
    registry = NETWORK.chain_id.to_bytes(8, "big") + NETWORK.registry
    info = b"chatchain/1 sealed header" + registry + BOB.uid.to_bytes(8, "big") + (1).to_bytes(4, "big")
    padded = padding.pad(content.encode(content.text("hello, bob")))
    signed = (
        b"chatchain/1 sealed message"
        + registry
        + ADA.uid.to_bytes(8, "big")
        + (1).to_bytes(4, "big")
        + BOB.uid.to_bytes(8, "big")
        + message_id
        + now.to_bytes(8, "big")
        + hashlib.sha256(padded).digest()
    )
    return {"info": info, "inside": suite.decrypt(header, BOB.secrets().kem.private, info), "signed": signed}


def bundle_cases() -> list[Case]:
    """A bundle of Ada's device and altered ones."""
    now = 1_700_000_000
    good = bundle.make_bundle(NETWORK, ADA.secrets(), uid=ADA.uid, device=1, version=1, now=now)
    entry = ADA.user.devices[0].current
    fields = {name: getattr(good, name) for name in good.__struct_fields__}
    base = {
        "record": entry.record,
        "account": ADA.user.account,
        "signer": entry.signer,
        "record_uid": ADA.uid,
        "now": now,
        **fields,
    }
    wrong: dict[str, Case] = {
        "expired": {"now": good.expires},
        "from the future": {"now": now - bundle.CLOCK_SKEW - 1},
        "another key": {"kem_public": BOB.secrets().kem_public},
        "another device": {"device": 2},
        "prolonged": {"expires": good.expires + 1},
        "altered signature": {"signature": flipped(good.signature, 0)},
    }
    cases: list[Case] = [{"name": "a right bundle", **base, "outcome": "ok"}]
    return cases + [{"name": n, **base, **change, "outcome": "bad_record"} for n, change in wrong.items()]


def card_cases() -> list[Case]:
    """Ada's card and altered ones."""
    good = card.make_card(NETWORK, ADA.user, 1, 1, ADA.secrets())
    by_bob = card.make_card(NETWORK, ADA.user, 1, 1, BOB.secrets())
    wrong = {
        "signed by somebody else": by_bob,
        "cut": good[:-1],
        "another name": good.replace("name=ada", "name=adb"),
        "another chain": good.replace("chain=31337", "chain=1"),
        "a second spelling": good.replace("device=1", "device=01"),
        "another scheme": good.replace("chatchain://", "http://"),
    }
    named = (ADA.name, ADA.uid, ADA.user.account, NETWORK.chain_id, NETWORK.directory, 1, 1)
    cases: list[Case] = [
        {"name": "Ada's", "card": good, "signed": card._signed_bytes(*named), "outcome": "ok"}
    ]
    return cases + [{"name": n, "card": text, "outcome": "bad_record"} for n, text in wrong.items()]


def safety_cases() -> list[Case]:
    """Ada and Bob."""
    return [
        {
            "outcome": "ok",
            "mine": {"uid": ADA.uid, "account": ADA.user.account},
            "theirs": {"uid": BOB.uid, "account": BOB.user.account},
            "number": safety.safety_number(ADA.user, BOB.user),
            "qr": safety.qr_payload(ADA.user, BOB.user),
            "my_fingerprint": safety.account_fingerprint(ADA.uid, ADA.user.account),
            "input_of_the_first_round": hashlib.sha512(
                b"\0\0" + ADA.user.account + names.uid_text(ADA.uid).encode() + ADA.user.account
            ).digest(),
        }
    ]


if __name__ == "__main__":
    main()
