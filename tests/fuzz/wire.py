"""What comes over a connection, to either side and in every state."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import msgspec

from chatchain.errors import ProtocolViolation
from chatchain.wire.bounds import check
from chatchain.wire.connection import Connection, Role, State
from chatchain.wire.proxy import FIXED, client_of, following
from tests.fuzz.target import target
from tests.wire.test_connection import at
from tests.wire.test_proxy import IPV4, IPV6, header

FRAMES: Final = [
    (case["from"], case["state"], bytes.fromhex(case["frame"]))
    for case in json.loads((Path(__file__).parent.parent / "wire" / "frames.json").read_text())["cases"]
]
PLACES: Final[list[tuple[Role, State]]] = [
    (role, state) for role in Role for state in State if state is not State.CLOSED
]


def place(sender: str, state: str) -> int:
    """The number of the side and state that receives such a frame."""
    reader = Role.RELAY if sender == "client" else Role.CLIENT
    return PLACES.index((reader, State[state.upper()]))


@target(
    ProtocolViolation,
    seeds=[bytes([place(sender, state)]) + frame for sender, state, frame in FRAMES],
)
def frames(data: bytes) -> None:
    """The first byte chooses side and state; the rest comes in two pieces."""
    if not data:
        return
    role, state = PLACES[data[0] % len(PLACES)]
    connection: Connection = at(role, state)
    half = 1 + len(data) // 2
    for piece in (data[1:half], data[half:]):
        for message in connection.receive_data(piece):
            check(message)
            assert isinstance(message, msgspec.Struct)


@target(ProtocolViolation, seeds=[header(IPV4), header(IPV6, family=0x21), header(b"", verb=0x20, family=0)])
def proxy(data: bytes) -> None:
    """How a proxy introduces its client."""
    length = following(data[:FIXED])
    client_of(data[:FIXED], data[FIXED : FIXED + length])
