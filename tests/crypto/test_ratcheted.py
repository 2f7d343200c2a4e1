"""Bodies of suite 2: what a header carries opens exactly the body that it was made for."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from chatchain.crypto import content, ratcheted
from chatchain.crypto.content import Unsupported
from chatchain.errors import ForgedMessage, TooLarge, Undecryptable
from chatchain.model import MAX_TEXT_BYTES
from tests.identity.people import NETWORK

VECTORS = Path(__file__).parent.parent / "vectors" / "ratcheted.json"
Case = dict[str, Any]


def cases() -> list[Any]:
    """Every case of the file."""
    return [pytest.param(case, id=case["name"]) for case in json.loads(VECTORS.read_text())["cases"]]


@pytest.mark.parametrize("case", cases())
def test_a_vector_ends_as_it_says(case: Case) -> None:
    """It opens, is of a later program, or is refused."""
    carried, body = bytes.fromhex(case["carried"]), bytes.fromhex(case["body"])
    if case["outcome"] == "undecryptable":
        with pytest.raises(Undecryptable):
            ratcheted.open_body(carried, body)
        return
    found, time_ms = ratcheted.open_body(carried, body)
    if case["outcome"] == "unsupported":
        assert isinstance(found, Unsupported)
        return
    assert not isinstance(found, Unsupported)
    assert (content.encode(found).hex(), time_ms) == (case["content"], case["time_ms"])


def test_the_layouts_are_those_of_the_protocol() -> None:
    """Spelled out again from docs/protocol.md."""
    case = json.loads(VECTORS.read_text())["cases"][0]
    key, inner = bytes.fromhex(case["key"]), bytes.fromhex(case["content"])
    inside = struct.pack(">BQ", 1, case["time_ms"]) + inner
    padded = (inside + b"\x80").ljust(256, b"\0")
    body = AESGCM(key).encrypt(bytes(12), padded, b"chatchain/2 body")
    assert body.hex() == case["body"] == ratcheted.seal_body(key, inner, case["time_ms"]).hex()
    assert (key + hashlib.sha256(body).digest()).hex() == case["carried"]
    who = (NETWORK.chain_id, NETWORK.registry, bytes.fromhex(case["id"]))
    bound = struct.pack(">Q20s16sQIQ", *who, case["sender"], case["sender_device"], case["recipient"])
    assert (b"chatchain/2 header" + bound).hex() == case["associated"]


@given(st.binary(max_size=80), st.binary(max_size=400))
def test_only_documented_failures_escape(carried: bytes, body: bytes) -> None:
    """Whatever came out of a header, beside whatever body."""
    with pytest.raises(Undecryptable):
        ratcheted.open_body(carried, body)
    with pytest.raises(Undecryptable):
        ratcheted.open_body(carried[:32].ljust(32, b"\0") + hashlib.sha256(body).digest(), body)


def test_the_longest_text_fits() -> None:
    """And nothing that is longer than a body may be is looked at."""
    longest = content.encode(content.text("x" * MAX_TEXT_BYTES))
    key = os.urandom(32)
    body = ratcheted.seal_body(key, longest, 1)
    assert len(body) <= ratcheted.MAX_BODY_BYTES
    assert ratcheted.open_body(ratcheted.header_content(key, body), body)[1] == 1
    with pytest.raises(TooLarge):
        ratcheted.seal_body(key, bytes(ratcheted.MAX_BODY_BYTES), 1)
    huge = AESGCM(key).encrypt(bytes(12), bytes(ratcheted.MAX_BODY_BYTES), b"chatchain/2 body")
    with pytest.raises(Undecryptable):
        ratcheted.open_body(ratcheted.header_content(key, huge), huge)


@pytest.mark.parametrize("numbers", [(-1, 1, 1), (1, 2**32, 1), (1, 1, 2**64)])
def test_impossible_numbers_are_nobodys(numbers: tuple[int, int, int]) -> None:
    """What does not fit is forged, not a crash."""
    with pytest.raises(ForgedMessage):
        ratcheted.associated_data(NETWORK, bytes(16), *numbers)
