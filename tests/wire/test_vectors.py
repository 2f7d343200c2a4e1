"""The checked-in frames hold, and docs/protocol.md quotes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chatchain.errors import ProtocolViolation
from chatchain.wire.connection import Role, State, frame
from tests.wire.test_connection import SAMPLES, at

HERE = Path(__file__).parent
PROTOCOL = HERE.parents[1] / "docs" / "protocol.md"
CASES: list[dict[str, str]] = json.loads((HERE / "frames.json").read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_frame_is_read_as_its_vector_says(case: dict[str, str]) -> None:
    """Into the message that it is, into nothing yet, or into a violation."""
    receiver = Role.RELAY if case["from"] == "client" else Role.CLIENT
    connection = at(receiver, State[case["state"].upper()])
    data = bytes.fromhex(case["frame"])
    if case["outcome"] == "protocol_violation":
        with pytest.raises(ProtocolViolation):
            list(connection.receive_data(data))
        return
    messages = list(connection.receive_data(data))
    if case["outcome"] == "incomplete":
        assert messages == []
        assert connection.buffered == len(data)
        return
    (message,) = messages
    assert type(message).__name__ == case["name"]
    assert message in SAMPLES
    assert frame(message) == data


def test_every_message_has_a_vector() -> None:
    """So that a change of any layout is noticed."""
    known = {case["frame"] for case in CASES if case["outcome"] == "ok"}
    assert {frame(sample).hex() for sample in SAMPLES} == known


def test_every_frame_in_the_protocol_s_description_is_a_vector() -> None:
    """The document cannot drift from the code."""
    known = {case["frame"] for case in CASES}
    blocks = PROTOCOL.read_text().split("```frame\n")[1:]
    assert len(blocks) >= 3
    for block in blocks:
        lines = block.split("\n```")[0].split("\n")
        assert "".join(line.split("#")[0].replace(" ", "") for line in lines) in known
