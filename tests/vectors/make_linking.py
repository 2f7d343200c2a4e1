"""Writes link.json; run once, from the top: `python -m tests.vectors.make_linking`.

What is random in an answer is drawn anew, so run this only when a layout has changed on purpose.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from chatchain.crypto import linking
from chatchain.crypto.attachments import FileRef
from chatchain.crypto.linking import Handed, Request
from tests.identity.people import NETWORK, person, secrets_of, seed
from tests.vectors.make import write

ADA = person("ada")
ADMITTED = ADA.with_second_device()
EPHEMERAL = seed("link", "ephemeral")
FILE = FileRef(seed("file"), 1000, seed("file's hash"))
HANDED = Handed(b"account secret16", FILE, seed("blob"))


def main() -> None:
    """Writes the file."""
    write("link.json", "Linking: a new device's text, and an old one's answer to it", cases())


def asking() -> Request:
    """Ada's second device."""
    record = secrets_of("ada", 2).record(NETWORK, ADA.user.account, uid=ADA.uid, device=2, version=1)
    return linking.request(record, EPHEMERAL, seed("link", "secret"))


def cases() -> list[dict[str, Any]]:
    """What holds, and what is refused."""
    asked = asking()
    secrets = ADMITTED.secrets(1)
    given = linking.answer(asked, HANDED, secrets, uid=ADA.uid, device=1, version=1)
    good = {
        "request": asked.encode(),
        "record": asked.record,
        "ephemeral": EPHEMERAL,
        "ephemeral_public": asked.ephemeral,
        "secret": asked.secret,
        "transcript": hashlib.sha256(b"\x01" + asked.record + asked.ephemeral + asked.secret).digest(),
        "code": linking.code(asked),
        "answer": given.encode(),
        "answer_head": linking._head(given),
        "sealed": given.sealed,
        "signature": given.signature,
        "account_secret": HANDED.account_secret,
        "history": FILE.encode(),
        "blob": HANDED.blob,
    }
    alone = linking.answer(asked, Handed(HANDED.account_secret), secrets, uid=ADA.uid, device=1, version=1)
    bare = {"answer": alone.encode(), "history": b"", "blob": b""}
    altered = msgspec.structs.replace(given, sealed=bytes([given.sealed[0] ^ 1]) + given.sealed[1:])
    other = msgspec.structs.replace(asked, secret=bytes(32))
    forged = linking.answer(asked, HANDED, person("bob").secrets(), uid=ADA.uid, device=1, version=1)
    bad = {"outcome": "bad_record"}
    return [
        {"name": "with history", **good, "outcome": "ok"},
        {"name": "without history", **good, **bare, "outcome": "ok"},
        {"name": "altered answer", **good, "answer": altered.encode(), **bad},
        {"name": "answer to another request", **good, "request": other.encode(), **bad},
        {"name": "answer by another's device", **good, "answer": forged.encode(), **bad},
        {"name": "truncated answer", **good, "answer": given.encode()[:-1], **bad},
        {"name": "truncated request", **good, "request": asked.encode()[:-4], **bad},
    ]


if __name__ == "__main__":
    main()
