"""Adds to saved.json what this program saves of sessions and prekeys: `python -m tests.vectors.make_saved`.

What stands there was written by older programs and must load for ever, so nothing is ever taken away: for a
new version this adds its cases, and to those before what they are to become (`now`).
"""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec

from chatchain.crypto import prekeys, session
from tests.crypto.pairs import NOW
from tests.identity.people import seed
from tests.vectors.make import HERE, Case, write
from tests.vectors.make_suite2 import STORE

FILE = HERE / "saved.json"
AGAIN: dict[str, Callable[[bytes], bytes]] = {
    "prekeys": lambda data: prekeys.encode_store(prekeys.decode_store(data)),
    "session": lambda data: session.encode_session(session.decode_session(data)),
}


def saved_now() -> list[Case]:
    """Everything that a store of prekeys can hold; sessions come out of the vectors of the ratchet."""
    version = prekeys.STORE_VERSION
    used = msgspec.structs.replace(
        STORE,
        pairs=(*STORE.pairs, prekeys.Pair(8, seed("spk", 2), 9, seed("last", 2) * 2, NOW, 0)),
    )
    data = prekeys.encode_store(used)
    bad = (
        ("truncated", data[:-1]),
        ("with a tail", data + b"\0"),
        ("newer", bytes([version + 1]) + data[1:]),
    )
    return [
        {"name": f"prekeys of version {version}", "kind": "prekeys", "outcome": "ok", "saved": data},
        *({"name": name, "kind": "prekeys", "outcome": "bad_record", "saved": each} for name, each in bad),
    ]


def main() -> None:
    """Writes the file."""
    older = json.loads(FILE.read_text())["cases"]
    names = {case["name"] for case in older if case["outcome"] == "ok"}
    cases = [{**case, "saved": bytes.fromhex(case["saved"])} for case in older if case["outcome"] == "ok"] + [
        case for case in saved_now() if case["name"] not in names
    ]
    for case in cases:
        if case["outcome"] == "ok":
            case["now"] = AGAIN[case["kind"]](case["saved"])
    write(FILE.name, "Saved sessions and prekeys: `now` is what this program saves of them", cases)


if __name__ == "__main__":
    main()
