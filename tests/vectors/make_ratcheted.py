"""Writes ratcheted.json; run once: `python -m tests.vectors.make_ratcheted`. Nothing in it is random."""

from __future__ import annotations

import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chatchain.crypto import content, padding, ratcheted
from chatchain.crypto.sealed import MAX_TIME_MS
from tests.identity.people import NETWORK, seed, uid_of
from tests.vectors.make import Case, flipped, write

KEY = seed("key of a body")
TIME_MS = 1_700_000_000_500
ID = b"message id 16 by"
HELLO = content.encode(content.text("hello, bob"))


def sealed_with(inside: bytes) -> bytes:
    """A body with something else inside than `seal_body` puts there."""
    return AESGCM(KEY).encrypt(bytes(12), padding.pad(inside), b"chatchain/2 body")


def ratcheted_cases() -> list[Case]:
    """Bodies with what a header carries of them."""
    body = ratcheted.seal_body(KEY, HELLO, TIME_MS)
    carried = ratcheted.header_content(KEY, body)
    other = ratcheted.seal_body(KEY, content.encode(content.text("hello, eve")), TIME_MS)
    inside = struct.pack(">BQ", 1, TIME_MS) + HELLO
    late = ratcheted.seal_body(KEY, HELLO, MAX_TIME_MS + 1)
    strange = sealed_with(b"\2" + inside[1:])
    bare = sealed_with(b"\1")
    unpadded = AESGCM(KEY).encrypt(bytes(12), inside, b"chatchain/2 body")
    wrong_key = ratcheted.header_content(seed("another key"), body)
    cases: list[tuple[str, bytes, bytes, str]] = [
        ("altered body", carried, flipped(body, 5), "undecryptable"),
        ("another body under the header", carried, other, "undecryptable"),
        ("truncated body", carried, body[:-1], "undecryptable"),
        ("another key with the hash", wrong_key, body, "undecryptable"),
        ("truncated header", carried[:-1], body, "undecryptable"),
        ("header with a tail", carried + b"\0", body, "undecryptable"),
        ("after the year 9999", ratcheted.header_content(KEY, late), late, "undecryptable"),
        ("too short inside", ratcheted.header_content(KEY, bare), bare, "undecryptable"),
        ("not padded", ratcheted.header_content(KEY, unpadded), unpadded, "undecryptable"),
        ("of a format to come", ratcheted.header_content(KEY, strange), strange, "unsupported"),
    ]
    return [
        {
            "name": "hello",
            "outcome": "ok",
            "key": KEY,
            "content": HELLO,
            "time_ms": TIME_MS,
            "inside": inside,
            "carried": carried,
            "body": body,
            "id": ID,
            "sender": uid_of("ada"),
            "sender_device": 1,
            "recipient": uid_of("bob"),
            "associated": ratcheted.associated_data(NETWORK, ID, uid_of("ada"), 1, uid_of("bob")),
        },
        *(
            {"name": name, "outcome": outcome, "carried": header, "body": data}
            for name, header, data, outcome in cases
        ),
    ]


if __name__ == "__main__":
    write("ratcheted.json", "Bodies of suite 2 with what a header carries of them", ratcheted_cases())
