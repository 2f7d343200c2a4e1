"""Deadlines made short, on both sides: a test of every day cannot wait for the real ones.

Run as a program it is a relay: `hasty.py '{"SILENCE": 4}' --port …`, the arguments of the relay's own behind
the deadlines by their names in `wire.deadlines`.
"""

import json
import sys
from typing import Final

import pytest

from chatchain.programs import server
from chatchain.wire import deadlines
from tests.relay.stage import ROOT, Stage

SHORT: Final = {"HANDSHAKE": 2.0, "LOGIN": 3.0, "HEARTBEAT": 1.5, "SILENCE": 4.0}


def hasten(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the stage's next relay, and the clients in this process, wait for no longer than SHORT says."""
    for name, seconds in SHORT.items():
        monkeypatch.setattr(deadlines, name, seconds)
    patient = stage.command

    def command(*more: str) -> list[str]:
        words = patient(*more)
        at = words.index(str(ROOT / "server.py"))
        words[at : at + 1] = [__file__, json.dumps(SHORT)]
        return words

    stage.environment["PYTHONPATH"] = str(ROOT)
    monkeypatch.setattr(stage, "command", command)


def deadlines_in_force() -> tuple[float, float]:
    """For the handshake and for the login, as both sides wait at the moment."""
    return deadlines.HANDSHAKE, deadlines.LOGIN


if __name__ == "__main__":
    for name, seconds in json.loads(sys.argv[1]).items():
        assert hasattr(deadlines, name), name
        setattr(deadlines, name, seconds)
    server.main(sys.argv[2:])
