"""Writes groups.json and file.json; run once, from the top: `python -m tests.vectors.make_groups`.

A chain's secrets are fixed here, so groups.json comes out the same each time; the blobs of file.json are
sealed anew. As in `make`, each case names its expected outcome.
"""

from __future__ import annotations

import hashlib
import hmac

import msgspec

from chatchain.crypto import groups
from chatchain.crypto.attachments import HEADER_BYTES, Sealer
from chatchain.crypto.groups import Sender, SenderKeys, SendingChain
from tests.crypto.talkers import BOB, CAROL, EVE, GROUP, NOW, ROSTERS, SENDER, at
from tests.identity.people import seed
from tests.vectors.make import Case, flipped, write

ASSOCIATED = b"message id 16 by"


def chain(epoch: int, generation: int, previous: int = 0) -> SendingChain:
    """A chain of Ada's with fixed secrets."""
    return SendingChain(
        at(epoch),
        SENDER,
        generation=generation,
        index=0,
        previous=previous,
        started=NOW,
        chain_key=seed("chain", epoch, generation),
        signing_secret=seed("signing", epoch, generation),
        listeners=groups._packed([BOB, CAROL]),
    )


def steps(key: bytes) -> Case:
    """What is derived on the way of one message."""
    message_seed = hmac.digest(key, b"\x01", "sha256")
    keys = hmac.digest(message_seed, b"chatchain/2 group keys", "sha512")
    return {
        "chain_key": key,
        "next_chain_key": hmac.digest(key, b"\x02", "sha256"),
        "message_seed": message_seed,
        "key": keys[:32],
        "commitment": keys[32:],
    }


def sending_cases() -> list[Case]:
    """Two messages of one chain, with everything on the way."""
    cases: list[Case] = []
    now = chain(3, 2, previous=41)
    for name in ("first", "second"):
        after, message = groups.encrypt(now, now.epoch, f"the {name} message".encode(), ASSOCIATED)
        additional = groups._additional(now.epoch, SENDER, 2, now.index, ASSOCIATED)
        cases.append(
            {
                "kind": "send",
                "name": f"the {name} message",
                "outcome": "ok",
                "state": now.encode(),
                "plaintext": f"the {name} message".encode(),
                "associated": ASSOCIATED,
                "steps": steps(now.chain_key),
                "additional": additional,
                "signed": groups._signed(additional, message[17:49], message[49:-64]),
                "message": message,
                "state_after": after.encode(),
                "distribution": groups.distribution(now).encode(),
            }
        )
        now = after
    return cases


def accepting_cases() -> list[Case]:
    """Distributions as a listener judges them."""
    empty = SenderKeys(GROUP, SENDER)
    held = groups.accept(empty, groups.distribution(chain(3, 2)), ROSTERS, NOW)
    first, good = groups.distribution(chain(3, 2)), groups.distribution(chain(4, 3, previous=17))
    other = groups.distribution(msgspec.structs.replace(chain(3, 2), signing_secret=seed("another")))
    weak = msgspec.structs.replace(good, public=(1).to_bytes(32, "little"))
    elsewhere = msgspec.structs.replace(good, epoch=msgspec.structs.replace(good.epoch, group=bytes(32)))
    rosters = {epoch: ROSTERS[epoch] for epoch in (2, 3, 4)}
    given: list[tuple[str, SenderKeys, bytes, str]] = [
        ("the first chain", empty, first.encode(), "ok"),
        ("the next chain", held, good.encode(), "ok"),
        ("a chain that is held already", held, first.encode(), "ok"),
        ("epoch rollback", held, groups.distribution(chain(2, 3)).encode(), "wrong_epoch"),
        ("an older generation", held, groups.distribution(chain(3, 1)).encode(), "wrong_epoch"),
        (
            "an epoch that the chain does not confirm",
            held,
            groups.distribution(chain(5, 3)).encode(),
            "wrong_epoch",
        ),
        ("two chains under one number", held, other.encode(), "forged_message"),
        ("another group", held, elsewhere.encode(), "forged_message"),
        ("a signing key of small order", held, weak.encode(), "forged_message"),
        ("truncated", held, good.encode()[:-1], "undecryptable"),
        ("unknown format", held, b"\x02" + good.encode()[1:], "undecryptable"),
    ]
    cases = []
    for name, keys, data, outcome in given:
        case: Case = {"kind": "accept", "name": name, "outcome": outcome, "state": keys.encode()}
        case |= {"distribution": data, "now": NOW + 60}
        case["rosters"] = {str(epoch): roster.hex() for epoch, roster in rosters.items()}
        if outcome == "ok":
            after = groups.accept(keys, groups.Distribution.decode(data), rosters, NOW + 60)
            case["state_after"] = after.encode()
        cases.append(case)
    return cases


def receiving_cases() -> list[Case]:
    """Messages as a listener opens them."""
    now, messages = chain(3, 2), []
    for number in range(4):
        now, message = groups.encrypt(now, now.epoch, f"message {number}".encode(), ASSOCIATED)
        messages.append(message)
    fresh = groups.accept(SenderKeys(GROUP, SENDER), groups.distribution(chain(3, 2)), ROSTERS, NOW)
    skipped, _ = groups.decrypt(fresh, messages[2], ASSOCIATED, NOW)
    ended = groups.accept(skipped, groups.distribution(chain(4, 3, previous=3)), ROSTERS, NOW)
    late = groups.accept(
        SenderKeys(GROUP, SENDER),
        groups.distribution(msgspec.structs.replace(chain(3, 2), index=2)),
        ROSTERS,
        NOW,
    )
    as_eve = msgspec.structs.replace(fresh, sender=Sender(EVE.uid, 1))
    two_faced = groups.distribution(msgspec.structs.replace(chain(3, 2), chain_key=bytes(32)))
    misled = groups.accept(SenderKeys(GROUP, SENDER), two_faced, ROSTERS, NOW)
    moved = msgspec.structs.replace(fresh, chains=(_at(fresh, 4),), newest=(4, 2))
    given: list[tuple[str, SenderKeys, bytes, bytes, str]] = [
        ("the first message", fresh, messages[0], ASSOCIATED, "ok"),
        ("a message that skips two", fresh, messages[2], ASSOCIATED, "ok"),
        ("a message that was skipped", skipped, messages[0], ASSOCIATED, "ok"),
        ("a late message of the chain before", ended, messages[1], ASSOCIATED, "ok"),
        ("replayed", skipped, messages[2], ASSOCIATED, "replayed"),
        ("after the end of the chain", ended, messages[3], ASSOCIATED, "undecryptable"),
        ("from before the key was given", late, messages[1], ASSOCIATED, "undecryptable"),
        ("no key yet", SenderKeys(GROUP, SENDER), messages[0], ASSOCIATED, "missing_sender_key"),
        ("other associated data", fresh, messages[0], b"another id 16 by", "forged_message"),
        ("another sender", as_eve, messages[0], ASSOCIATED, "forged_message"),
        ("another epoch", moved, messages[0][:8] + b"\x04" + messages[0][9:], ASSOCIATED, "forged_message"),
        ("another chain key under one signing key", misled, messages[0], ASSOCIATED, "forged_message"),
        ("altered index", fresh, flipped(messages[0], 16), ASSOCIATED, "forged_message"),
        ("altered commitment", fresh, flipped(messages[0], 20), ASSOCIATED, "forged_message"),
        ("altered body", fresh, flipped(messages[0], 50), ASSOCIATED, "forged_message"),
        (
            "altered signature",
            fresh,
            flipped(messages[0], len(messages[0]) - 1),
            ASSOCIATED,
            "forged_message",
        ),
        ("truncated", fresh, messages[0][:128], ASSOCIATED, "undecryptable"),
        ("unknown format", fresh, b"\x02" + messages[0][1:], ASSOCIATED, "undecryptable"),
    ]
    cases = []
    for name, keys, message, associated, outcome in given:
        case: Case = {"kind": "receive", "name": name, "outcome": outcome, "state": keys.encode()}
        case |= {"message": message, "associated": associated, "now": NOW + 60}
        if outcome == "ok":
            after, received = groups.decrypt(keys, message, associated, NOW + 60)
            case |= {"plaintext": received.plaintext, "state_after": after.encode()}
        cases.append(case)
    return cases


def _at(keys: SenderKeys, epoch: int) -> groups.ReceivingChain:
    return msgspec.structs.replace(keys.chains[0], epoch=at(epoch))


def file_cases() -> list[Case]:
    """Two small files, opened rightly and wrongly; cobblestone.json has those of several chunks."""
    cases: list[Case] = []
    blobs = {}
    for name, data in (("a file", b"hello, file"), ("an empty file", b"")):
        sealer = Sealer(len(data))
        start = sealer.update(data)
        end, file = sealer.finish()
        blobs[name] = (start + end, file)
        cases.append({"name": name, "file": file.encode(), "blob": start + end, "outcome": "ok"})
        cases[-1]["sha256"] = hashlib.sha256(data).digest()
    blob, file = blobs["a file"]
    other, _ = blobs["an empty file"]
    wrong: dict[str, tuple[bytes, bytes, str]] = {
        "truncated file": (file.encode(), blob[:-1], "undecryptable"),
        "without its last chunk": (file.encode(), blob[:HEADER_BYTES], "undecryptable"),
        "with a tail": (file.encode(), blob + b"\0", "undecryptable"),
        "altered commitment": (file.encode(), flipped(blob, 30), "undecryptable"),
        "altered chunk": (file.encode(), flipped(blob, 60), "undecryptable"),
        "another file": (file.encode(), other, "undecryptable"),
        "another hash": (flipped(file.encode(), 68), blob, "undecryptable"),
        "another key": (flipped(file.encode(), 5), blob, "undecryptable"),
        "over the limit": (msgspec.structs.replace(file, size=25_000_001).encode(), blob, "too_large"),
        "malformed": (file.encode()[:-1], blob, "undecryptable"),
    }
    return cases + [{"name": n, "file": f, "blob": b, "outcome": code} for n, (f, b, code) in wrong.items()]


def main() -> None:
    """Writes both files."""
    cases = sending_cases() + accepting_cases() + receiving_cases()
    write("groups.json", "Sender keys: messages made, keys accepted, messages opened", cases)
    write("file.json", "Files as a message describes them and as the relay holds them", file_cases())


if __name__ == "__main__":
    main()
