"""The checked-in vectors of suite 2 hold: each case ends as it says, states that were saved load for ever."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chatchain.crypto import pqxdh, prekeys, session
from chatchain.crypto.device import DeviceSecrets
from chatchain.crypto.pqxdh import HANDSHAKE_BYTES, Party
from chatchain.errors import ChatchainError
from chatchain.identity import ed25519
from chatchain.identity.record import decode_record
from chatchain.model import Address, Network
from tests.crypto import naive_pqxdh

FOLDER = Path(__file__).parent.parent / "vectors"
Case = dict[str, Any]


def cases(name: str) -> list[Any]:
    """Every case of a file."""
    return [pytest.param(case, id=case["name"]) for case in json.loads((FOLDER / name).read_text())["cases"]]


def unhexed(case: Case, *fields: str) -> list[bytes]:
    """The fields that stand in the file as hex."""
    return [bytes.fromhex(case[field]) for field in fields]


def outcome(check: Callable[[], None]) -> str:
    """Gives "ok" or the code of our error; any other failure is a failure."""
    try:
        check()
    except ChatchainError as failure:
        return failure.code
    return "ok"


def network() -> Network:
    """The deployment that the file's signatures are bound to."""
    fields = json.loads((FOLDER / "prekeys.json").read_text())["network"]
    addresses = (Address(bytes.fromhex(fields[name])) for name in ("directory", "registry", "membership"))
    return Network(fields["chain_id"], *addresses)


@pytest.mark.parametrize("case", cases("prekeys.json"))
def test_a_prekey_vector_ends_as_it_says(case: Case) -> None:
    """Bundles are judged."""

    def check() -> None:
        data, record = unhexed(case, "bundle", "record")
        bundle, owner = prekeys.decode_bundle(data), decode_record(record)
        prekeys.verify_bundle(network(), bundle, owner, case["uid"], case["now"])
        assert prekeys.encode_bundle(bundle) == data
        if "signed_prekey_claim" in case:
            key, claim, kem = unhexed(case, "signed_prekey", "signed_prekey_claim", "kem_prekey_start")
            assert data[17:134] == key
            assert data[134 : 134 + len(kem)] == kem
            assert ed25519.verify(owner.ed25519, key[21:85], claim)

    assert outcome(check) == case["outcome"]


@pytest.mark.parametrize("case", cases("pqxdh.json"))
def test_a_handshake_vector_ends_as_it_says(case: Case) -> None:
    """Here and in the naive implementation."""
    message, ad, saved, secret, record_a, record_b = unhexed(
        case, "message", "ad", "store", "responder_x25519", "initiator_record", "responder_record"
    )
    secrets = DeviceSecrets(secret, bytes(32), bytes(31) + b"\x01", bytes(32))
    me = Party(case["responder_uid"], decode_record(record_b))
    them = Party(case["initiator_uid"], decode_record(record_a))
    store = prekeys.decode_store(saved)
    remembered = [bytes.fromhex(case["remembered"])] if "remembered" in case else []
    past = prekeys.Past(frozenset(remembered))

    def check() -> None:
        _, opened, plaintext = session.accept(store, past, secrets, me, them, message, ad, case["now"])
        id_, expected = unhexed(case, "handshake_id", "plaintext")
        assert (opened.id, plaintext) == (id_, expected)
        handshake = message[1 : 1 + HANDSHAKE_BYTES]
        named = pqxdh.decode_handshake(handshake)
        found = prekeys.find(
            store, past, id_, case["initiator_uid"], named.signed_id, named.one_time_id, named.kem_id
        )
        keys = naive_pqxdh.responder_keys(
            handshake, secret, found.signed, found.one_time, found.kem, them.uid, record_a, me.uid, record_b
        )
        assert list(keys[1:]) == unhexed(case, "root", "hka", "nhkb", "transcript")
        (head,) = unhexed(case, "handshake_head")
        assert handshake.startswith(head)

    assert outcome(check) == case["outcome"]


@pytest.mark.parametrize("case", cases("ratchet.json"))
def test_a_ratchet_vector_ends_as_it_says(case: Case) -> None:
    """From a saved state to the next; nothing moves on a failure."""
    saved, message, ad = unhexed(case, "state", "message", "ad")
    state = session.decode_session(saved)

    def check() -> None:
        after, plaintext = session.decrypt(state, message, ad, case["now"])
        assert plaintext.hex() == case["plaintext"]
        if "state_after" in case:
            assert session.encode_session(after).hex() == case["state_after"]

    assert outcome(check) == case["outcome"]
    assert session.encode_session(state) == saved


@pytest.mark.parametrize("case", [one for one in cases("ratchet.json") if "mk" in one.values[0]])
def test_the_key_schedule_is_as_written_down(case: Case) -> None:
    """Each step of docs/protocol.md, by hand, on a new chain with a KEM secret and without."""
    kem_secret = bytes.fromhex(case.get("kem_secret", ""))
    rk_before, dh, rk, ck, nhk, mk = unhexed(case, "rk_before", "dh_out", "rk", "ck", "nhk", "mk")
    hk, header, sealed, message, ad = unhexed(case, "hk", "header", "sealed_header", "message", "ad")
    assert naive_pqxdh.hkdf(rk_before, dh + kem_secret, b"chatchain/2 ratchet root", 96) == rk + ck + nhk
    assert hmac.digest(ck, b"\x01", "sha256") == mk
    assert message[1:76] == sealed
    assert AESGCM(hk).decrypt(sealed[:16], sealed[16:], b"") == header
    transcript = session.decode_session(bytes.fromhex(case["state"])).ratchet.ad
    body = AESGCM(mk).decrypt(bytes(12), message[76:], transcript + sealed + ad)
    assert body.hex() == case["plaintext"]
