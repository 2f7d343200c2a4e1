"""The checked-in vectors of groups and files hold: each case ends as it says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from chatchain.crypto import groups
from chatchain.crypto.attachments import FileRef, Opener
from chatchain.crypto.groups import Distribution, SenderKeys, SendingChain
from chatchain.errors import ChatchainError

VECTORS = Path(__file__).parent.parent / "vectors"
Case = dict[str, Any]


def cases(name: str) -> list[Any]:
    """The cases of a file, by name."""
    return [pytest.param(case, id=case["name"]) for case in json.loads((VECTORS / name).read_text())["cases"]]


def unhexed(case: Case, *fields: str) -> list[bytes]:
    """The fields that stand in the file as hex."""
    return [bytes.fromhex(case[field]) for field in fields]


@pytest.mark.parametrize("case", cases("groups.json"))
def test_a_group_vector_ends_as_it_says(case: Case) -> None:
    """What is made is made again byte for byte; what is refused leaves the state as it was."""
    (state,) = unhexed(case, "state")
    if case["kind"] == "send":
        send(case, SendingChain.decode(state))
        return
    keys = SenderKeys.decode(state)
    outcome = "ok"
    try:
        if case["kind"] == "accept":
            accept(case, keys)
        else:
            receive(case, keys)
    except ChatchainError as failure:
        outcome = failure.code
    assert outcome == case["outcome"]
    assert keys.encode() == state


def send(case: Case, chain: SendingChain) -> None:
    """Encrypts, and looks at each step."""
    plaintext, associated = unhexed(case, "plaintext", "associated")
    after, message = groups.encrypt(chain, chain.epoch, plaintext, associated)
    assert message.hex() == case["message"]
    assert after.encode().hex() == case["state_after"]
    assert groups.distribution(chain).encode().hex() == case["distribution"]
    steps = case["steps"]
    assert [chain.chain_key.hex(), after.chain_key.hex()] == [steps["chain_key"], steps["next_chain_key"]]


def accept(case: Case, keys: SenderKeys) -> None:
    """Takes the group key."""
    (data,) = unhexed(case, "distribution")
    rosters = {int(epoch): bytes.fromhex(roster) for epoch, roster in case["rosters"].items()}
    after = groups.accept(keys, Distribution.decode(data), rosters, case["now"])
    assert after.encode().hex() == case["state_after"]


def receive(case: Case, keys: SenderKeys) -> None:
    """Opens the message."""
    message, associated = unhexed(case, "message", "associated")
    after, received = groups.decrypt(keys, message, associated, case["now"])
    assert received.plaintext.hex() == case["plaintext"]
    assert after.encode().hex() == case["state_after"]


@pytest.mark.parametrize("case", cases("file.json"))
def test_a_file_vector_ends_as_it_says(case: Case) -> None:
    """The plaintext is known by its hash."""
    reference, blob = unhexed(case, "file", "blob")
    outcome = "ok"
    try:
        opener = Opener(FileRef.decode(reference))
        found = opener.update(blob) + opener.finish()
        assert hashlib.sha256(found).hexdigest() == case["sha256"]
    except ChatchainError as failure:
        outcome = failure.code
    assert outcome == case["outcome"]
