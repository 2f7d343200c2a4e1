"""Writes rsa.json; run once, from the top: `python -m tests.vectors.make_rsa`.

The keys are those of rsa_keys.json. What is random in an envelope is drawn anew, so run this only when the
layout has changed on purpose.
"""

from __future__ import annotations

from typing import Any

from chatchain.crypto import content, rsa
from chatchain.model import Suite
from tests.crypto.rsa_people import SECRETS, rsa_user
from tests.identity.people import BLOCK_TIME, NETWORK
from tests.vectors.make import flipped, write

ID = b"message id 16 by"
HEADER = 57


def main() -> None:
    """Writes the file."""
    write("rsa.json", "The RSA compatibility envelope as bob opens what ada is said to have sent", cases())


def envelope(sender: str, recipient: str, by: str) -> bytes:
    """Seals "hello" from one to another, with somebody's key."""
    return rsa.seal(
        NETWORK,
        content.text("hello"),
        secret=SECRETS[by],
        sender=rsa_user(sender) if sender == by else rsa_user(sender, *rsa_user(by).keys),
        recipient=rsa_user(recipient),
        message_id=ID,
        time_ms=BLOCK_TIME * 1000,
    )


def cases() -> list[dict[str, Any]]:
    """What holds, and what is refused; `suites` are what each user's device lists."""
    good = envelope("ada", "bob", "ada")
    case = {
        "envelope": good,
        "header": good[:HEADER],
        "wrapped": good[HEADER : HEADER + 256],
        "id": ID,
        "time_ms": BLOCK_TIME * 1000,
        "text": "hello",
        "label": rsa.LABEL,
        "sender_suites": 0,
        "recipient_suites": 0,
    }
    sealed, ratchet = 1 << Suite.SEALED, 1 << Suite.RATCHET
    return [
        {"name": "hello", **case, "outcome": "ok"},
        {"name": "sender lists suite 2", **case, "sender_suites": ratchet, "outcome": "ok"},
        {"name": "recipient lists suite 1", **case, "recipient_suites": sealed, "outcome": "ok"},
        {"name": "recipient lists suite 2", **case, "recipient_suites": ratchet, "outcome": "ok"},
        *(
            {
                "name": f"both list suites, the sender suite {suite}",
                **case,
                "sender_suites": suites,
                "recipient_suites": ratchet,
                "outcome": "bad_record",
            }
            for suite, suites in ((1, sealed), (2, ratchet))
        ),
        {"name": "altered box", **case, "envelope": flipped(good, 400), "outcome": "undecryptable"},
        {"name": "altered key", **case, "envelope": flipped(good, 100), "outcome": "undecryptable"},
        {"name": "altered time", **case, "envelope": flipped(good, 56), "outcome": "undecryptable"},
        {"name": "truncated", **case, "envelope": good[:-1], "outcome": "undecryptable"},
        {
            "name": "signed by another key",
            **case,
            "envelope": envelope("ada", "bob", "eve"),
            "outcome": "forged_message",
        },
        {
            "name": "from another user",
            **case,
            "envelope": envelope("eve", "bob", "eve"),
            "outcome": "forged_message",
        },
        {
            "name": "for another user",
            **case,
            "envelope": envelope("ada", "eve", "ada"),
            "outcome": "undecryptable",
        },
    ]


if __name__ == "__main__":
    main()
