"""A model of two devices: whatever the network does, nothing is read twice, nothing within limits is lost."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chatchain.crypto import prekeys, session
from chatchain.crypto.prekeys import PrekeyStore
from chatchain.crypto.ratchet import MAX_KEPT, MAX_STALE
from chatchain.crypto.session import Session
from chatchain.errors import Undecryptable
from tests.crypto.pairs import ADA, BOB, BUNDLE, NOW, STORE, restarted

SIDES = st.integers(0, 1)


@dataclass
class Flying:
    """A message on its way to a side."""

    to: int
    text: bytes
    message: bytes
    chain: int
    read: bool = False


class TwoDevices(RuleBasedStateMachine):
    """Ada (0) begins a session with Bob (1); the network drops, reorders, repeats and alters."""

    def __init__(self) -> None:
        super().__init__()
        self.sides: list[Session | None] = [None, None]
        self.store: PrekeyStore = STORE
        self.past = prekeys.NOTHING
        self.sent: list[Flying] = []
        self.chains = [0, 0]
        self.newest_read = [0, 0]

    @initialize()
    def begin(self) -> None:
        self.sides[0] = ADA.begin(BOB, BUNDLE)

    # What happens to the devices

    def send(self, side: int) -> Flying:
        state = self.sides[side]
        assert state is not None
        text = b"%d of side %d" % (len(self.sent), side)
        after, message = session.encrypt(state, text, b"")
        self.chains[side] += after.ratchet.dhs_public != state.ratchet.dhs_public
        self.sides[side] = after
        flying = Flying(1 - side, text, message, self.chains[side])
        self.sent.append(flying)
        return flying

    def deliver(self, flying: Flying) -> None:
        state = self.sides[flying.to]
        lost = flying.chain < self.newest_read[flying.to] - MAX_STALE
        try:
            if state is None:
                self.store, after, text = BOB.accept(self.store, ADA, flying.message, past=self.past)
            else:
                after, text = session.decrypt(state, flying.message, b"", NOW)
        except Undecryptable:
            assert flying.read or lost, "a message within the limits was lost"
            return
        assert not flying.read, "a message was decrypted twice"
        assert text == flying.text
        flying.read = True
        self.sides[flying.to] = after
        self.newest_read[flying.to] = max(self.newest_read[flying.to], flying.chain)

    @rule(side=SIDES)
    def speak(self, side: int) -> None:
        if self.sides[side] is not None:
            self.send(side)

    @rule(side=SIDES)
    def speak_and_be_heard(self, side: int) -> None:
        if self.sides[side] is not None:
            self.deliver(self.send(side))

    @rule(rounds=st.integers(1, 30))
    def chat(self, rounds: int) -> None:
        """Long enough, now and then, for KEM steps."""
        for _ in range(rounds):
            self.speak_and_be_heard(0)
            self.speak_and_be_heard(1)

    @precondition(lambda self: self.sent)
    @rule(pick=st.integers(0, 2**16))
    def arrive(self, pick: int) -> None:
        """Any message, late or for the second time."""
        self.deliver(self.sent[pick % len(self.sent)])

    @precondition(lambda self: self.sent)
    @rule(pick=st.integers(0, 7))
    def arrive_lately_sent(self, pick: int) -> None:
        self.deliver(self.sent[-1 - pick % len(self.sent)])

    @precondition(lambda self: self.sent)
    @rule(pick=st.integers(0, 2**16), at=st.integers(0, 2**16), bit=st.integers(0, 7))
    def altered(self, pick: int, at: int, bit: int) -> None:
        """One bit changes: refused, and nothing has moved."""
        flying = self.sent[pick % len(self.sent)]
        changed = bytearray(flying.message)
        changed[at % len(changed)] ^= 1 << bit
        self.refused(flying.to, bytes(changed))

    @precondition(lambda self: self.sent)
    @rule(pick=st.integers(0, 2**16))
    def reflected(self, pick: int) -> None:
        """A message comes back to who wrote it."""
        flying = self.sent[pick % len(self.sent)]
        if self.sides[1 - flying.to] is not None:
            self.refused(1 - flying.to, flying.message)

    def refused(self, side: int, message: bytes) -> None:
        state, before = self.sides[side], prekeys.encode_store(self.store)
        saved = None if state is None else session.encode_session(state)
        if state is None:
            with pytest.raises(Undecryptable):
                BOB.accept(self.store, ADA, message, past=self.past)
        else:
            with pytest.raises(Undecryptable):
                session.decrypt(state, message, b"", NOW)
        assert saved == (None if state is None else session.encode_session(state))
        assert before == prekeys.encode_store(self.store)

    @rule(side=SIDES)
    def restart(self, side: int) -> None:
        """The program ends and loads what it had saved."""
        state = self.sides[side]
        if state is not None:
            self.sides[side] = session.decode_session(session.encode_session(state))
        self.store, self.past = restarted(self.store, self.past)

    @precondition(lambda self: self.sides[1] is not None)
    @rule(pick=st.integers(0, 2**16))
    def replayed_handshake(self, pick: int) -> None:
        """An initial message never begins a second session."""
        first = [each for each in self.sent if session.initial_handshake(each.message)]
        with pytest.raises(Undecryptable):
            BOB.accept(self.store, ADA, first[pick % len(first)].message, past=self.past)

    @invariant()
    def states_are_bounded(self) -> None:
        for state in self.sides:
            if state is not None:
                assert len(state.ratchet.skipped) <= MAX_STALE + 1
                assert sum(len(chain.keys) for chain in state.ratchet.skipped) <= MAX_KEPT


TwoDevices.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
test_two_devices = TwoDevices.TestCase
