"""Writes admission.json and history.json; run once, from the top: `python -m tests.vectors.make_hands`.

What people and devices of one user hand to each other: admissions of newcomers, and the past of an account.
"""

from __future__ import annotations

import msgspec

from chatchain.client.handover import History
from chatchain.identity.admission import Invitation, work_for
from chatchain.identity.keys import sign_digest
from chatchain.identity.record import decode_record
from chatchain.model import Call, Contact, Direction, MessageState, Peer, StoredMessage
from tests.identity.people import BLOCK_TIME, NETWORK, person, seed
from tests.vectors.make import Case, write

ADA, BOB = person("ada"), person("bob")
CALL = Call("identity", bytes(range(100)))
NONCE = seed("nonce")
REF = 7
BITS = 16
ID = b"message id 16 by"


def admissions() -> list[Case]:
    """Work and an invitation, each for what it was made and for something else."""
    invited = Invitation(ADA.uid, b"invitation 16 by", BLOCK_TIME + 7 * 24 * 3600, bytes(65))
    digest = invited.digest(NETWORK, 0)
    invited = msgspec.structs.replace(invited, signature=sign_digest(ADA.account_key, digest))
    work = {"kind": "work", "nonce": NONCE, "ref": REF, "contract": CALL.contract, "data": CALL.data}
    done = work_for(NONCE, REF, CALL, BITS)
    invitation = {
        "kind": "invitation",
        "admission": invited.encode(),
        "text": invited.text(),
        "digest": digest,
        "account": ADA.user.account,
        "epoch": 0,
    }
    return [
        {"name": "work", "outcome": "ok", **work, "admission": done, "bits": BITS},
        {"name": "too little work", "outcome": "refused", **work, "admission": done, "bits": 60},
        {
            "name": "work for another request",
            "outcome": "refused",
            **work,
            "ref": REF + 1,
            "admission": done,
            "bits": 20,
        },
        {"name": "invitation", "outcome": "ok", **invitation},
        {"name": "invitation of another epoch", "outcome": "refused", **invitation, "epoch": 1},
        {"name": "invitation, mistyped", "outcome": "usage", **invitation, "text": invited.text()[:-1]},
    ]


def histories() -> list[Case]:
    """The past of an account that knows one user and wrote one message."""
    assert decode_record(ADA.user.devices[0].current.record).device == 1
    told = History(
        1,
        (Contact(BOB.uid, "bob", floor=1, confirmed=1),),
        (Peer(BOB.uid, timer_s=3600, display_name="Bob"),),
        (
            StoredMessage(
                ID,
                ADA.uid,
                1,
                BOB.uid,
                Direction.OUT,
                "text",
                "hello, bob",
                BLOCK_TIME * 1000,
                state=MessageState.READ,
                row=1,
            ),
        ),
    )
    data = msgspec.msgpack.encode(told)
    newer = msgspec.msgpack.encode(msgspec.structs.replace(told, format=2))
    return [
        {"name": "one message", "outcome": "ok", "history": data, "fields": msgspec.to_builtins(told)},
        {"name": "truncated", "outcome": "undecryptable", "history": data[:-1]},
        {"name": "no UTF-8", "outcome": "undecryptable", "history": data.replace(b"hello", b"\xff" * 5)},
        {"name": "newer", "outcome": "undecryptable", "history": newer},
    ]


if __name__ == "__main__":
    write("admission.json", "What lets a newcomer's registration in", admissions())
    write("history.json", "What a linked device is given of the past, as it stands in the file", histories())
