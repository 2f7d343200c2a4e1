"""Who is read from when not all can be: the part of the relay that holds back, without its connections."""

from __future__ import annotations

import secrets
from typing import Any, cast

import structlog

from chatchain.model import DeviceState, Letter
from chatchain.relay.allowance import Allowance
from chatchain.relay.letters import PENDING_BYTES, Letters
from chatchain.relay.metrics import Metrics
from chatchain.relay.ports import Peer
from chatchain.relay.sessions import Session
from chatchain.relay.tasks import Tasks
from chatchain.wire.intake import Intake
from tests.relay.test_mailbox import user


class Writer:
    """Takes everything and commits nothing."""

    def keep(self, letters: list[Letter]) -> None:
        pass


class Talker:
    """A connection that fills the relay by itself whenever it is read from."""

    def __init__(self, letters: Letters, served: list[int], uid: int) -> None:
        self.letters, self.served, self.uid = letters, served, uid
        self.session: object = None
        self.slow = False
        self.letter: Letter | None = None

    def release(self) -> None:
        session = cast(Session, self.session)
        self.served.append(self.uid)
        self.letter = Letter(
            session.name, self.uid, 1, secrets.token_bytes(16), b"", 1, ((7, 1, b"x"),), PENDING_BYTES
        )
        self.letters._keep([self.letter])

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None  # whatever else a connection does


async def test_who_was_held_back_longest_is_read_from_first() -> None:
    """However much the first of them has to say each time: all have their turn, round after round."""
    nobody: Any = None
    letters = Letters(
        nobody,
        nobody,
        users=nobody,
        follower=nobody,
        nodes=None,
        allowance=Allowance(),
        tasks=Tasks(structlog.get_logger()),
        intake=Intake(),
        log=structlog.get_logger(),
        metrics=Metrics(),
    )
    letters._writer = cast(Any, Writer())
    served: list[int] = []
    talkers = {uid: Talker(letters, served, uid) for uid in range(101, 109)}
    for uid, talker in talkers.items():
        letters.enter(cast(Peer, talker), user(uid, DeviceState.ACTIVE), 1)
    talkers[101].release()  # as the others are read from, the relay is full
    for _ in range(24):
        last = talkers[served[-1]].letter
        assert last is not None
        letters.kept([(last, "duplicate")], [])
    assert served[1:] == [*talkers] * 3
