"""Five devices in one group, and a network that does its worst, against a model that knows what must happen.

Group messages are dropped, repeated, reordered and altered, and reach also those who may not read them. The
group keys travel in the pairwise sessions: late, but each once and in order. Devices restart from what they
stored; members come and go; a user is recovered; devices learn of all that later.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chatchain.crypto import groups
from chatchain.crypto.groups import (
    MAX_CHAINS,
    MAX_KEPT,
    Distribution,
    GroupEpoch,
    Listener,
    Sender,
    SenderKeys,
    SendingChain,
)
from chatchain.errors import MissingSenderKey, Replayed, Undecryptable, VerificationError, WrongEpoch
from tests.crypto.talkers import GROUP, NOW, roster_hash

DEVICES = range(5)
BIT = 0x20


@dataclass(frozen=True)
class Said:
    """A group message as the model knows it."""

    sender: int
    place: tuple[int, int]
    index: int
    audience: frozenset[Listener]
    text: bytes
    wire: bytes


@dataclass
class Talker:
    """One device: what it stores, and how far it knows the chain."""

    view: int = 1
    chain: SendingChain | None = None
    keys: dict[int, SenderKeys] = field(default_factory=dict)
    given: dict[int, list[tuple[tuple[int, int], int]]] = field(default_factory=dict)
    """The model's own list of chains held, by sender: place and first index."""
    opened: set[Said] = field(default_factory=set)


class Group(RuleBasedStateMachine):
    """The world."""

    def __init__(self) -> None:
        super().__init__()
        self.rosters: list[frozenset[Listener]] = [frozenset()]
        """Who may read, by epoch; epoch 0 is not used."""
        self.rosters.append(frozenset(Listener(number, 1, 0) for number in DEVICES))
        self.talkers = [Talker() for _ in DEVICES]
        self.mail: dict[tuple[int, int], list[Distribution]] = {}
        self.messages: list[tuple[int, Said]] = []
        self.thieves: list[tuple[Listener, dict[int, SenderKeys]]] = []
        """What a device held when it was removed, or its user recovered."""
        self.clock = NOW
        self.count = 0

    @property
    def epoch(self) -> int:
        return len(self.rosters) - 1

    def at(self, epoch: int) -> GroupEpoch:
        return GroupEpoch(GROUP, epoch, roster_hash(epoch))

    def listener(self, device: int, epoch: int) -> Listener | None:
        return next((each for each in self.rosters[epoch] if each.uid == device), None)

    # --- what devices do ---

    @rule(device=st.sampled_from(DEVICES), count=st.integers(1, 6))
    def say(self, device: int, count: int) -> None:
        """A member says something, as far as it knows the roster; rotating when that is due."""
        talker = self.talkers[device]
        if self.listener(device, talker.view) is None:
            return
        audience = self.rosters[talker.view] - {self.listener(device, talker.view)}
        now = self.at(talker.view)
        chain = talker.chain
        if chain is None or groups.rotation_due(chain, now, audience, self.clock):
            chain = groups.start(now, Sender(device, 1), audience, self.clock, chain)
            self.give(chain, audience)
        elif fresh := groups.newcomers(chain, audience):
            self.give(chain, fresh)
            chain = groups.admit(chain, fresh)
        for _ in range(count):
            text = f"message {self.count}".encode()
            index = chain.index
            self.count += 1
            chain, wire = groups.encrypt(chain, now, text, b"associated")
            said = Said(device, (now.epoch, chain.generation), index, frozenset(audience), text, wire)
            self.messages += [(other, said) for other in DEVICES if other != device]
        talker.chain = chain

    def give(self, chain: SendingChain, listeners: frozenset[Listener] | tuple[Listener, ...]) -> None:
        for each in listeners:
            self.mail.setdefault((chain.sender.uid, each.uid), []).append(groups.distribution(chain))

    @rule(random=st.randoms(use_true_random=False), share=st.integers(1, 4))
    def take_keys(self, random: Random, share: int) -> None:
        """Pairwise sessions deliver their next group keys, some of them or all."""
        for pair in sorted(self.mail):
            while self.mail[pair] and random.randrange(4) < share:
                self.take_a_key(*pair)

    def take_a_key(self, sender: int, device: int) -> None:
        """A device takes a group key; if it does not know its epoch yet, it looks that up first."""
        given = self.mail[sender, device].pop(0)
        talker = self.talkers[device]
        keys = talker.keys.get(sender, SenderKeys(GROUP, Sender(sender, 1)))
        known = {epoch: roster_hash(epoch) for epoch in range(1, talker.view + 1)}
        if given.epoch.epoch > talker.view:
            with pytest.raises(WrongEpoch):
                groups.accept(keys, given, known, self.clock)
            talker.view = self.epoch
            known = {epoch: roster_hash(epoch) for epoch in range(1, talker.view + 1)}
        talker.keys[sender] = groups.accept(keys, Distribution.decode(given.encode()), known, self.clock)
        held = talker.given.setdefault(sender, [])
        held.append(((given.epoch.epoch, given.generation), given.index))
        del held[:-MAX_CHAINS]

    @rule(random=st.randoms(use_true_random=False), share=st.integers(1, 10))
    def hear(self, random: Random, share: int) -> None:
        """Some messages reach their devices in any order, and perhaps once more later."""
        random.shuffle(self.messages)
        arriving = self.messages[: len(self.messages) * share // 10]
        self.messages = [
            message for message in self.messages if message not in arriving or random.randrange(3) == 0
        ]
        for device, said in arriving:
            self.deliver(device, said)

    def deliver(self, device: int, said: Said) -> None:
        """One message reaches its device, and all thieves."""
        talker = self.talkers[device]
        keys = talker.keys.get(said.sender, SenderKeys(GROUP, Sender(said.sender, 1)))
        expected = self.expected(talker, said)
        before = keys.encode()
        if expected is None:
            assert any(each.uid == device for each in said.audience), "somebody reads who was not meant to"
            after, received = groups.decrypt(keys, said.wire, b"associated", self.clock)
            assert (received.plaintext, received.index) == (said.text, said.index)
            with pytest.raises(Replayed):
                groups.decrypt(after, said.wire, b"associated", self.clock)
            talker.keys[said.sender] = after
            talker.opened.add(said)
        else:
            with pytest.raises(expected):
                groups.decrypt(keys, said.wire, b"associated", self.clock)
        assert keys.encode() == before
        for thief, stolen in self.thieves:
            meant = any(each.uid == thief.uid and each.epoch <= thief.epoch for each in said.audience)
            if said.sender in stolen and not meant:
                with pytest.raises(VerificationError):
                    groups.decrypt(stolen[said.sender], said.wire, b"associated", self.clock)

    def expected(self, talker: Talker, said: Said) -> type[VerificationError] | None:
        """What the model says of a message: an error, or None when it must open."""
        held = talker.given.get(said.sender, [])
        first = next((first for place, first in held if place == said.place), None)
        if first is None:
            newer = not held or said.place > held[-1][0]
            return MissingSenderKey if newer else Undecryptable
        if said.index < first:
            return Undecryptable
        return Replayed if said in talker.opened else None

    @rule(random=st.randoms(use_true_random=False))
    def lose(self, random: Random) -> None:
        """Every tenth message never arrives."""
        self.messages = [message for message in self.messages if random.randrange(10)]

    @precondition(lambda self: self.messages)
    @rule(data=st.data())
    def tamper(self, data: st.DataObject) -> None:
        """A message arrives with one bit changed: refused, and the state stands."""
        device, said = data.draw(st.sampled_from(self.messages))
        keys = self.talkers[device].keys.get(said.sender, SenderKeys(GROUP, Sender(said.sender, 1)))
        altered = bytearray(said.wire)
        altered[data.draw(st.integers(0, len(altered) - 1))] ^= BIT
        before = keys.encode()
        with pytest.raises(VerificationError):
            groups.decrypt(keys, bytes(altered), b"associated", self.clock)
        assert keys.encode() == before

    @rule(device=st.sampled_from(DEVICES))
    def restart(self, device: int) -> None:
        """A device goes on from what it stored."""
        talker = self.talkers[device]
        if talker.chain is not None:
            stored = talker.chain.encode()
            talker.chain = SendingChain.decode(stored)
            assert talker.chain.encode() == stored
        talker.keys = {sender: SenderKeys.decode(keys.encode()) for sender, keys in talker.keys.items()}

    # --- what the group does ---

    @rule(device=st.sampled_from(DEVICES))
    def vote(self, device: int) -> None:
        """A member is removed, or one who was is admitted again."""
        now = self.rosters[-1]
        listed = self.listener(device, self.epoch)
        if listed:
            self.thieves.append((listed, dict(self.talkers[device].keys)))
        recoveries = max(each.epoch for roster in self.rosters for each in roster if each.uid == device)
        self.rosters.append(now - {listed} if listed else now | {Listener(device, 1, recoveries)})

    @rule(device=st.sampled_from(DEVICES))
    def recover(self, device: int) -> None:
        """A user is recovered: what the device before was given counts for nothing; the epoch stays."""
        listed = self.listener(device, self.epoch)
        if listed is not None:
            self.thieves.append((listed, dict(self.talkers[device].keys)))
            self.rosters[-1] = self.rosters[-1] - {listed} | {Listener(device, 1, listed.epoch + 1)}

    @rule(device=st.sampled_from(DEVICES))
    def look(self, device: int) -> None:
        """A device brings its view of the chain up to date."""
        self.talkers[device].view = self.epoch

    @rule(days=st.integers(1, 4))
    def wait(self, days: int) -> None:
        """Time passes; chains grow old. Nothing expires: less than 30 days pass in all."""
        if self.clock + days * 86_400 < NOW + groups.KEPT_SECONDS:
            self.clock += days * 86_400

    @invariant()
    def bounds_hold(self) -> None:
        """Whatever happens."""
        for talker in self.talkers:
            for keys in talker.keys.values():
                assert keys.kept <= MAX_KEPT
                assert len(keys.chains) <= MAX_CHAINS

    def teardown(self) -> None:
        """In the end all keys arrive, and then everything that was not lost opens once."""
        for sender, device in self.mail:
            while self.mail[sender, device]:
                self.take_a_key(sender, device)
        for device, said in self.messages:
            self.deliver(device, said)


Group.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestGroup = Group.TestCase
