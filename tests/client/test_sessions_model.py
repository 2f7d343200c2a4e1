"""A model of two and of five devices and all the sessions between them, each step from what was saved.

The network drops, reorders, repeats and alters; devices begin at once, lose their sessions, are revoked. What
a device has the session for, or may answer, is read, once; nothing else is, and what fails changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chatchain.client.own import Identity, Own
from chatchain.client.sessions import AFRESH_MS, MAX_SESSIONS, Draft
from chatchain.crypto import prekeys, session
from chatchain.crypto.prekeys import PrekeyBundle
from chatchain.errors import Undecryptable
from chatchain.model import DeviceId, KeptSession, SessionChanges, Uid
from tests.crypto.pairs import NOW, device
from tests.identity.people import NETWORK

NAMES = (("ada", 1), ("bob", 1), ("bob", 2), ("mallory", 1), ("eve", 1))
DEVICES = [device(*name) for name in NAMES]


@dataclass
class Saved:
    """What one device has on its disk."""

    rows: dict[tuple[int, int, bytes], KeptSession] = field(default_factory=dict)
    lost: dict[tuple[int, int], int] = field(default_factory=dict)
    stock: bytes = b""
    begun: set[tuple[int, int, bytes]] = field(default_factory=set)

    def sessions(self, uid: int, number: int) -> list[KeptSession]:
        """As the database."""
        return [row for row in self.rows.values() if (row.uid, row.device) == (uid, number)]

    def lost_ms(self, uid: int, number: int) -> int:
        """As the database."""
        return self.lost.get((uid, number), 0)

    def lost_since(self, since_ms: int) -> int:
        """As the database."""
        return sum(at > since_ms for at in self.lost.values())

    def prekeys(self) -> bytes:
        """As the database."""
        return self.stock

    def handshakes(self, signed_id: int, user: int) -> tuple[frozenset[bytes], bool]:
        """As the database."""
        return frozenset(mark for key, whose, mark in self.begun if (key, whose) == (signed_id, user)), False

    def save(self, changes: SessionChanges) -> None:
        """As the database."""
        for gone in changes.gone:
            self.rows.pop(gone, None)
        self.rows |= {(row.uid, row.device, row.id): row for row in changes.kept}
        self.lost |= {(uid, number): at for uid, number, at in changes.lost}
        self.stock = changes.prekeys or self.stock
        self.begun |= set(changes.begun)


@dataclass
class Flying:
    """A message on its way, with the session that it belongs to."""

    source: int
    to: int
    text: bytes
    message: bytes
    session: bytes
    read: bool = False


class Devices(RuleBasedStateMachine):
    """Everybody writes to everybody."""

    count = 5

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = NOW * 1000
        self.disks = [Saved(stock=prekeys.encode_store(prekeys.new_store(NOW))) for _ in self.all]
        self.sent: list[Flying] = []
        self.answered: list[set[bytes]] = [set() for _ in self.all]
        self.handed_out = [0 for _ in self.all]
        self.began: set[bytes] = set()

    @property
    def all(self) -> range:
        return range(self.count)

    def own(self, number: int) -> Own:
        """A device as it starts anew."""
        made = DEVICES[number]
        identity = Identity(made.secrets, made.party, None)
        return Own(NETWORK, Uid(made.party.uid), DeviceId(made.party.record.device), (identity,), None)

    def draft(self, number: int) -> Draft:
        """What a device does next, from what it saved."""
        disk: Any = self.disks[number]
        return Draft(self.own(number), disk, self.now_ms)

    def drawn(self, number: int, one_time: bool) -> PrekeyBundle:
        """The next bundle that the relay gives away: no one-time key twice."""
        store = prekeys.decode_store(self.disks[number].stock)
        up = DEVICES[number].upload(store)
        fresh = [key for key in up.one_time if key.id > self.handed_out[number]]
        kem = [key for key in up.kem_one_time if key.id > self.handed_out[number] + prekeys.BATCH]
        if not (one_time and fresh and kem):
            return DEVICES[number].bundle(store, one_time=False, one_time_kem=False)
        self.handed_out[number] = fresh[0].id
        party = DEVICES[number].party
        return PrekeyBundle(party.uid, party.record.device, party.record.version, up.signed, kem[0], fresh[0])

    def where(self, number: int) -> tuple[int, int]:
        """A device as (uid, device)."""
        party = DEVICES[number].party
        return party.uid, party.record.device

    # --- what devices do

    @rule(source=st.integers(0, 4), to=st.integers(0, 4), one_time=st.booleans())
    def send(self, source: int, to: int, one_time: bool) -> None:
        source, to = source % self.count, to % self.count
        if source == to:
            return
        them, draft, text = DEVICES[to].party, self.draft(source), b"%d" % len(self.sent)
        fresh = {
            (*self.where(to), them.record.version): session.initiate(
                NETWORK,
                DEVICES[source].secrets,
                DEVICES[source].party,
                them,
                self.drawn(to, one_time),
                self.now_ms // 1000,
            )
        }
        message = draft.encrypt(them, text, b"", fresh)
        (changed,) = draft.changes.kept
        self.disks[source].save(draft.changes)
        if not fresh:
            assert changed.id not in self.began
            self.began.add(changed.id)
        self.sent.append(Flying(source, to, text, message, changed.id))

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), altered=st.booleans())
    def deliver(self, data: st.DataObject, altered: bool) -> None:
        """One message, perhaps for the second time, perhaps altered."""
        flying = data.draw(st.sampled_from(self.sent))
        source, draft, disk = DEVICES[flying.source], self.draft(flying.to), self.disks[flying.to]
        message = flying.message[:-1] + bytes([flying.message[-1] ^ altered])
        here = (*self.where(flying.source), flying.session)
        begins = flying.message[0] == session.INITIAL and flying.session not in self.answered[flying.to]
        readable = not flying.read and not altered and (here in disk.rows or begins)
        listed = source.owner.user.devices[source.party.record.device - 1]
        try:
            step = draft.decrypt(source.owner.user, listed, message, b"")
        except Undecryptable:
            assert not readable
            assert draft.changes == SessionChanges()
            return
        assert readable
        assert step.carried == flying.text
        assert draft.changes == SessionChanges()
        draft.keep(step)
        disk.save(draft.changes)
        flying.read = True
        self.answered[flying.to].add(flying.session)

    @rule(number=st.integers(0, 4), other=st.integers(0, 4))
    def lose(self, number: int, other: int) -> None:
        """A device's sessions with another are gone: lost, or the other was revoked."""
        number, other = number % self.count, other % self.count
        draft = self.draft(number)
        draft.forget(*self.where(other))
        self.disks[number].save(draft.changes)

    @rule(number=st.integers(0, 4), other=st.integers(0, 4))
    def begin_anew(self, number: int, other: int) -> None:
        """Something could not be read: at most once an hour nothing more is sent on what there is."""
        number, other = number % self.count, other % self.count
        draft, before = self.draft(number), self.disks[number].lost_ms(*self.where(other))
        assert draft.lost(*self.where(other)) == (before <= self.now_ms - AFRESH_MS)
        self.disks[number].save(draft.changes)

    @rule(minutes=st.integers(1, 90))
    def wait(self, minutes: int) -> None:
        self.now_ms += minutes * 60_000

    # --- what holds

    @invariant()
    def few_are_kept(self) -> None:
        for disk in self.disks:
            places = [(row.uid, row.device) for row in disk.rows.values()]
            assert all(places.count(place) <= MAX_SESSIONS for place in places)

    @invariant()
    def what_is_saved_loads(self) -> None:
        for disk in self.disks:
            for row in disk.rows.values():
                assert session.decode_session(row.state).id == row.id


class TwoDevices(Devices):
    """Only ada's and bob's."""

    count = 2


TestTwoDevices = TwoDevices.TestCase
TestTwoDevices.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
TestFiveDevices = Devices.TestCase
TestFiveDevices.settings = settings(max_examples=25, stateful_step_count=60, deadline=None)
