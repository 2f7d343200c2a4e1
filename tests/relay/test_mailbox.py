"""The mailbox machine by itself: a model of the world around it, and claims about what it never does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chatchain.model import (
    Address,
    Copy,
    Device,
    DeviceId,
    DeviceState,
    DeviceVersion,
    Envelope,
    Letter,
    Run,
    Uid,
    User,
)
from chatchain.relay import mailbox as box
from chatchain.relay.mailbox import Mailbox, judge
from chatchain.relay.quota import Key, Quota, Quotas
from chatchain.store.letters import into_runs, shifted
from chatchain.wire.messages import Refused, StaleDevices

ADA, BOB = 100_000_000_000_001, 100_000_000_000_002

Told = list[tuple[Letter, box.Verdict]]


def user(uid: int, *states: DeviceState, version: int = 0, block: int = 7) -> User:
    """A user with one device for each state."""
    devices = tuple(
        Device(
            Uid(uid),
            DeviceId(number),
            state,
            bytes(32),
            (DeviceVersion(1, Address(bytes([number]) * 20), b"", 1, 1),),
        )
        for number, state in enumerate(states, start=1)
    )
    return User(
        Uid(uid),
        f"user{uid}",
        Address(bytes(20)),
        Address(bytes(20)),
        0,
        bytes(32),
        b"",
        devices,
        version or len(states),
        block,
        1,
    )


ACTIVE, REVOKED = DeviceState.ACTIVE, DeviceState.REVOKED


def envelope(number: int = 1, *to: tuple[int, int], body: bytes = b"body") -> Envelope:
    """An envelope for these devices (by default Bob's first)."""
    targets = to or ((BOB, 1),)
    copies = tuple(Copy(uid, device, b"h") for uid, device in targets)
    return Envelope(number.to_bytes(16, "big"), 1, BOB, 1, 1, body, copies)


# --- judging ------------------------------------------------------------------------------------------------


def verdict(
    change: dict[str, object], sender: User, recipient: User | None, *, admitted: bool = True
) -> object:
    return judge(
        msgspec.structs.replace(envelope(), **change), sender, recipient, device=1, admitted=admitted
    )


def test_an_envelope_that_covers_the_recipient_is_taken() -> None:
    """Every active device of the recipient, and if wanted the sender's own."""
    ada, bob = user(ADA, ACTIVE), user(BOB, ACTIVE, REVOKED, ACTIVE)
    copies = (Copy(BOB, 1, b""), Copy(BOB, 3, b""))
    assert verdict({"copies": copies, "recipient_version": 3}, ada, bob) is None
    assert verdict({"copies": (*copies, Copy(ADA, 1, b"")), "recipient_version": 3}, ada, bob) is None


@pytest.mark.parametrize(
    ("change", "uid"),
    [
        ({"recipient_version": 0}, BOB),
        ({"sender_version": 0}, ADA),
        ({"copies": (Copy(ADA, 1, b""),)}, BOB),
    ],
    ids=["old list of the recipient", "old list of the sender", "a device left out"],
)
def test_an_outdated_device_list_is_named_with_its_block(change: dict[str, object], uid: int) -> None:
    """The client learns whose list to check and up to which block."""
    found = verdict(change, user(ADA, ACTIVE), user(BOB, ACTIVE))
    assert found == StaleDevices(envelope().id, uid, 1, 7)


def test_a_device_left_out_of_a_longer_list_is_stale() -> None:
    """One of two active devices is not enough."""
    found = verdict({"recipient_version": 2}, user(ADA, ACTIVE), user(BOB, ACTIVE, ACTIVE))
    assert found == StaleDevices(envelope().id, BOB, 2, 7)


@pytest.mark.parametrize(
    ("change", "recipient", "admitted", "code"),
    [
        ({}, None, True, "unknown_user"),
        ({}, user(BOB, ACTIVE), False, "not_a_member"),
        ({"copies": (Copy(BOB, 1, b""), Copy(BOB, 2, b""))}, user(BOB, ACTIVE), True, "bad_copies"),
        ({"copies": (Copy(BOB, 1, b""), Copy(5, 1, b""))}, user(BOB, ACTIVE), True, "bad_copies"),
        ({}, user(BOB, REVOKED), True, "bad_copies"),
        ({"copies": (Copy(ADA, 1, b""),)}, user(BOB, REVOKED), True, "unknown_device"),
    ],
    ids=[
        "unknown",
        "not admitted",
        "no such device",
        "somebody else's",
        "to a revoked device",
        "no device left",
    ],
)
def test_what_may_not_be_sent_is_refused_for_good(
    change: dict[str, object], recipient: User | None, admitted: bool, code: str
) -> None:
    """Each with its own code, and none to be tried again."""
    found = verdict(change, user(ADA, ACTIVE), recipient, admitted=admitted)
    assert isinstance(found, Refused)
    assert (found.code, found.retry_after_ms) == (code, 0)


def test_a_revoked_device_sends_nothing() -> None:
    """Not even what it submitted before anybody told its connection."""
    ada = user(ADA, REVOKED, ACTIVE)
    found = verdict({"sender_version": 2}, ada, user(BOB, ACTIVE))
    assert isinstance(found, Refused)
    assert (found.code, found.retry_after_ms) == ("revoked", 0)


@pytest.mark.parametrize("change", [{"recipient_version": 2}, {"sender_version": 9}])
def test_a_client_that_has_seen_more_makes_the_relay_look(change: dict[str, object]) -> None:
    """A newer version than the relay's is no fault of the client's."""
    assert isinstance(verdict(change, user(ADA, ACTIVE), user(BOB, ACTIVE)), box.Ahead)


# --- the machine, by hand -----------------------------------------------------------------------------------


def letter(number: int = 1, *to: Key, body: bytes = b"body", sender: int = ADA, session: int = 1) -> Letter:
    """A letter for these devices (by default Bob's first); its parcels are the bare bodies."""
    parcels = tuple((uid, device, body) for uid, device in to or ((BOB, 1),))
    return Letter(session, sender, 1, number.to_bytes(16, "big"), b"digest", 5, parcels, len(body))


def submit(mailbox: Mailbox, number: int = 1, *to: Key, body: bytes = b"body") -> Letter:
    made = letter(number, *to, body=body)
    assert mailbox.submit(made) == [box.Store(made)]
    return made


def online(mailbox: Mailbox, session: int = 2, uid: int = BOB, device: int = 1) -> None:
    """A device that has read everything and follows."""
    mailbox.opened(session, uid, device)
    (load,) = mailbox.receive(session)
    assert isinstance(load, box.Load)
    assert mailbox.loaded(session, [], False) == []


def stored(mailbox: Mailbox, made: Letter, *sequences: int) -> list[box.Action]:
    """The store's word that a letter's parcels are committed under these sequences."""
    runs = [
        Run(uid, device, made.sender, sequence, [parcel])
        for (uid, device, parcel), sequence in zip(made.parcels, sequences, strict=True)
    ]
    return mailbox.kept([(made, "stored")], runs)


def row(sequence: int) -> Run:
    """A run of one message, as the store gives it."""
    return Run(BOB, 1, ADA, sequence, [b"body"])


def sent(actions: Sequence[box.Action]) -> list[int]:
    """The sequences delivered by these actions."""
    return [
        sequence
        for action in actions
        if isinstance(action, box.Give)
        for sequence in range(action.first, action.first + len(action.parcels))
    ]


def test_the_tick_follows_the_commit() -> None:
    """Submitting says nothing; the store's word brings tick and delivery."""
    mailbox = Mailbox()
    mailbox.opened(1, ADA, 1)
    online(mailbox)
    made = submit(mailbox)
    actions = stored(mailbox, made, 10)
    assert actions[0] == box.Ticks(1, [made.id])
    assert sent(actions) == [10]


@pytest.mark.parametrize("word", ["duplicate", "conflict", "failed"])
def test_what_was_not_stored_is_not_delivered(word: box.Verdict) -> None:
    """A repetition is ticked again; another content under the same id, or a failure, is refused."""
    mailbox = Mailbox()
    mailbox.opened(1, ADA, 1)
    online(mailbox)
    made = submit(mailbox)
    (action,) = mailbox.kept([(made, word)], [])
    if word == "duplicate":
        assert action == box.Ticks(1, [made.id])
    else:
        assert isinstance(action, box.Send)
        assert isinstance(action.message, Refused)
        assert (action.message.retry_after_ms > 0) == (word == "failed")
    assert mailbox._quotas._devices == {}


def test_every_device_online_is_served() -> None:
    """Each named device gets its own copy, and who is offline costs nothing."""
    mailbox = Mailbox()
    online(mailbox, 2, BOB, 1)
    online(mailbox, 3, BOB, 2)
    online(mailbox, 4, ADA, 2)
    made = submit(mailbox, 1, (BOB, 1), (BOB, 2), (BOB, 3), (ADA, 2))
    actions = stored(mailbox, made, 10, 11, 12, 13)
    assert sent(actions) == [10, 11, 13]
    assert mailbox.waiting(BOB, 3) == 1


def test_a_window_bounds_what_is_on_its_way() -> None:
    """Beyond it rows stay in the store and are read when half of it was acknowledged."""
    mailbox = Mailbox()
    online(mailbox)
    first = [stored(mailbox, submit(mailbox, n), n) for n in range(1, box.WINDOW_ROWS + 2)]
    assert sum(len(sent(actions)) for actions in first) == box.WINDOW_ROWS
    half = box.WINDOW_ROWS // 2
    early = mailbox.acknowledged(2, range(1, half))
    assert early == [box.Remove(BOB, 1, half - 1)]
    late = mailbox.acknowledged(2, [half])
    assert late[1:] == [box.Load(2, BOB, 1, box.WINDOW_ROWS, half, late[1].bytes)]  # type: ignore[union-attr]


def test_bytes_bound_the_window_too() -> None:
    """A few large deliveries fill it, yet one always fits."""
    mailbox = Mailbox()
    online(mailbox)
    body = bytes(192 * 1024)
    delivered = [sent(stored(mailbox, submit(mailbox, n, body=body), n)) for n in range(1, 6)]
    assert delivered == [[1], [2], [3], [], []]


def test_nobody_deletes_what_was_not_given_to_them() -> None:
    """An acknowledgement of other sequences does nothing."""
    mailbox = Mailbox()
    online(mailbox)
    stored(mailbox, submit(mailbox, 1), 10)
    assert mailbox.acknowledged(2, [9, 11]) == []
    assert mailbox.acknowledged(2, [10, 10]) == [box.Remove(BOB, 1, 10)]
    assert mailbox.acknowledged(2, [10]) == []
    assert mailbox.waiting(BOB, 1) == 0


def test_nothing_is_deleted_before_what_came_first_is_acknowledged() -> None:
    """Deletion is up to a sequence, so a gap holds it back; the window has room all the same."""
    mailbox = Mailbox()
    online(mailbox)
    for number in (10, 11, 12):
        stored(mailbox, submit(mailbox, number), number)
    assert mailbox.acknowledged(2, [11]) == []
    assert mailbox.acknowledged(2, [10]) == [box.Remove(BOB, 1, 11)]
    assert mailbox.waiting(BOB, 1) == 1
    assert mailbox.acknowledged(2, [12]) == [box.Remove(BOB, 1, 12)]


def test_a_run_is_given_as_a_whole() -> None:
    """And acknowledged message by message."""
    mailbox = Mailbox()
    online(mailbox)
    letters = [submit(mailbox, number) for number in range(3)]
    actions = mailbox.kept([(made, "stored") for made in letters], [Run(BOB, 1, ADA, 10, [b"body"] * 3)])
    assert actions == [box.Ticks(1, [made.id for made in letters]), box.Give(2, 10, [b"body"] * 3)]
    assert mailbox.waiting(BOB, 1) == 3
    assert mailbox.acknowledged(2, [10, 11]) == [box.Remove(BOB, 1, 11)]
    assert mailbox.waiting(BOB, 1) == 1


def test_a_commit_during_a_read_is_not_overlooked() -> None:
    """The read may have been too early to see it, so another one follows."""
    mailbox = Mailbox()
    mailbox.opened(2, BOB, 1)
    mailbox.receive(2)
    assert sent(stored(mailbox, submit(mailbox), 10)) == []
    (again,) = mailbox.loaded(2, [], False)
    assert isinstance(again, box.Load)


def test_a_read_that_is_ahead_of_the_verdict_gives_a_row_once() -> None:
    """The row was committed, read and given before the store's word of it came."""
    mailbox = Mailbox()
    mailbox.opened(2, BOB, 1)
    mailbox.receive(2)
    made = submit(mailbox)
    assert sent(mailbox.loaded(2, [row(10)], False)) == [10]
    assert stored(mailbox, made, 10) == [box.Ticks(1, [made.id])]
    assert mailbox.waiting(BOB, 1) == 1


def test_an_acknowledgement_ahead_of_the_verdict_is_counted_once() -> None:
    """And so is a row that a recount saw before its verdict came."""
    mailbox = Mailbox()
    mailbox.opened(2, BOB, 1)
    mailbox.receive(2)
    first, second = submit(mailbox, 1), submit(mailbox, 2)
    mailbox.loaded(2, [row(10)], True)
    assert mailbox.acknowledged(2, [10])[0] == box.Remove(BOB, 1, 10)
    stored(mailbox, first, 10)
    assert mailbox.waiting(BOB, 1) == 0
    mailbox.store_failed()
    mailbox.store_settled({(BOB, 1, ADA): (1, 5)}, 11)
    stored(mailbox, second, 11)
    assert mailbox.waiting(BOB, 1) == 1
    assert mailbox._early == set()


def test_who_resumes_is_given_what_comes_behind() -> None:
    """And what it has is deleted, as if the acknowledgement had not got lost."""
    mailbox = Mailbox({(BOB, 1, ADA): (3, 30)}, 12)
    mailbox.opened(2, BOB, 1)
    assert mailbox.receive(2, 11) == [
        box.Remove(BOB, 1, 11),
        box.Load(2, BOB, 1, 11, box.WINDOW_ROWS, box.WINDOW_BYTES),
    ]
    assert sent(mailbox.loaded(2, [row(12)], False)) == [12]
    assert mailbox.acknowledged(2, [12]) == [box.Remove(BOB, 1, 12)]
    assert mailbox.waiting(BOB, 1) == 0
    assert sent(stored(mailbox, submit(mailbox), 13)) == [13]


def test_after_a_failure_of_the_store_everybody_reads() -> None:
    """The row of a commit whose answer was lost is found before anything newer is delivered."""
    mailbox = Mailbox()
    online(mailbox)
    lost = submit(mailbox)
    mailbox.store_failed()
    mailbox.kept([(lost, "failed")], [])
    assert mailbox.poll() == []
    assert mailbox.store_settled({(BOB, 1, ADA): (1, 5)}, 10) == [
        box.Load(2, BOB, 1, 0, box.WINDOW_ROWS, box.WINDOW_BYTES)
    ]
    assert sent(stored(mailbox, submit(mailbox, 2), 11)) == []
    actions = mailbox.loaded(2, [row(10)], False)
    assert sent(actions) == [10]
    assert isinstance(actions[-1], box.Load)
    assert actions[-1].after == 10


def test_a_slow_reader_gets_nothing_more() -> None:
    """It is given the rest when it reads again."""
    mailbox = Mailbox()
    online(mailbox)
    mailbox.slow(2, True)
    assert sent(stored(mailbox, submit(mailbox), 10)) == []
    (load,) = mailbox.slow(2, False)
    assert isinstance(load, box.Load)


def test_a_new_connection_replaces_the_old() -> None:
    """What the old one had not acknowledged is delivered on the new."""
    mailbox = Mailbox()
    online(mailbox, 2)
    stored(mailbox, submit(mailbox), 10)
    (close,) = mailbox.opened(3, BOB, 1)
    assert isinstance(close, box.Close)
    assert (close.session, close.code) == (2, "replaced")
    assert mailbox.acknowledged(2, [10]) == []
    assert mailbox.waiting(BOB, 1) == 1
    (load,) = mailbox.receive(3)
    assert load == box.Load(3, BOB, 1, 0, box.WINDOW_ROWS, box.WINDOW_BYTES)
    mailbox.closed(2)
    assert mailbox.sessions_of(BOB) == [3]


def test_a_revoked_device_loses_connection_and_mail() -> None:
    """And only that device."""
    mailbox = Mailbox({(BOB, 1, ADA): (3, 30), (BOB, 2, ADA): (2, 20)})
    online(mailbox, 2, BOB, 1)
    actions = mailbox.revoked(BOB, 1)
    assert actions[0] == box.Forget(BOB, 1)
    assert isinstance(actions[1], box.Close)
    assert (mailbox.waiting(BOB, 1), mailbox.waiting(BOB, 2)) == (0, 2)
    assert mailbox.sessions_of(BOB) == []
    assert mailbox.revoked(BOB, 2) == [box.Forget(BOB, 2)]
    assert mailbox.waiting(BOB, 2) == 0, "what it left does not count against anybody"


def test_a_device_asks_for_its_deliveries_once() -> None:
    """A second word on the same connection gives nothing again, and deletes nothing that was not read."""
    mailbox = Mailbox()
    online(mailbox)
    assert sent(stored(mailbox, submit(mailbox), 10)) == [10]
    assert mailbox.receive(2) == []
    assert mailbox.receive(2, 10) == []
    assert mailbox.waiting(BOB, 1) == 1
    assert mailbox.acknowledged(2, [10]) == [box.Remove(BOB, 1, 10)]


def test_what_happens_during_a_read_makes_it_read_again() -> None:
    """Another process's commit, or a failure of the store, may have come after the read had looked."""
    mailbox = Mailbox()
    mailbox.opened(2, BOB, 1)
    mailbox.receive(2)
    assert mailbox.woken([(BOB, 1, 10)]) == []
    assert [type(action) for action in mailbox.loaded(2, [], False)] == [box.Load]
    mailbox.store_failed()
    assert mailbox.loaded(2, [], False) == []
    (load,) = mailbox.store_settled({(BOB, 1, ADA): (1, 5)}, 10)
    assert isinstance(load, box.Load)
    assert sent(mailbox.loaded(2, [row(10)], False)) == [10]


def test_a_full_mailbox_refuses_what_may_be_tried_later() -> None:
    """What is on its way into the store counts; what was acknowledged frees its place."""
    mailbox = Mailbox(quota=Quota(rows=2, bytes=1000))
    mailbox.opened(1, ADA, 1)
    online(mailbox)
    first, _ = submit(mailbox, 1), submit(mailbox, 2)
    third = letter(3)
    (refusal,) = mailbox.submit(third)
    assert isinstance(refusal, box.Send)
    assert isinstance(refusal.message, Refused)
    assert refusal.message.code == "limit_reached"
    assert refusal.message.retry_after_ms > 0
    stored(mailbox, first, 10)
    mailbox.acknowledged(2, [10])
    assert mailbox.submit(third) == [box.Store(third)]


def test_a_message_that_found_no_room_takes_none() -> None:
    """With one device's mailbox full, what was counted for the others, and for the sender, is free again."""
    for quota in (Quota(rows=1), Quota(rows=2, sender_rows=1)):
        mailbox = Mailbox(quota=quota)
        submit(mailbox, 1, (BOB, 2))
        for number in (2, 3):
            (refusal,) = mailbox.submit(letter(number, (BOB, 1), (BOB, 2)))
            assert isinstance(refusal, box.Send)
        submit(mailbox, 4, (BOB, 1))
        other = letter(5, (BOB, 2), sender=BOB)
        assert (mailbox.submit(other) == [box.Store(other)]) == (quota.rows == 2)


def test_bytes_fill_a_mailbox_to_the_last() -> None:
    """Counted are those stored and those on their way; a recount replaces what was counted before."""
    quotas = Quotas(Quota(bytes=100, sender_bytes=100))
    key = (BOB, 1)
    assert quotas.reserve(key, ADA, 60)
    assert not quotas.reserve(key, ADA, 41)
    assert quotas.reserve(key, ADA, 40)
    quotas.release(key, ADA, 2, 100)
    for _ in range(2):
        quotas.load({(BOB, 1, ADA): (1, 99)})
    assert quotas.waiting(key) == 1
    assert not quotas.reserve(key, ADA, 2)
    assert quotas.reserve(key, ADA, 1)


def test_one_sender_does_not_fill_another_s_mailbox() -> None:
    """Each has a share; who has used it up waits while the others go on."""
    mailbox = Mailbox(quota=Quota(rows=100, sender_rows=2))
    submit(mailbox, 1)
    submit(mailbox, 2)
    (refusal,) = mailbox.submit(letter(3))
    assert isinstance(refusal, box.Send)
    other = letter(4, sender=BOB, session=9)
    assert mailbox.submit(other) == [box.Store(other)]


def test_counts_of_empty_mailboxes_take_no_memory() -> None:
    """Whatever came and went, failed or was forgotten; and what is on its way survives a recount."""
    quotas = Quotas(Quota(rows=2))
    key = (BOB, 1)
    assert quotas.reserve(key, ADA, 10)
    quotas.load({(BOB, 1, ADA): (1, 10), (BOB, 2, ADA): (5, 50)})
    assert (quotas.waiting(key), quotas.waiting((BOB, 2))) == (1, 5)
    assert not quotas.reserve(key, BOB, 1)
    quotas.came(key, ADA, 1, 10)
    quotas.release(key, ADA, 1, 10)
    quotas.gone(key, ADA, 1, 10)
    quotas.gone(key, ADA, 1, 10)
    quotas.gone(key, ADA, 1, 10)
    assert quotas.reserve(key, BOB, 10)
    quotas.release(key, BOB, 1, 10)
    quotas.forget((BOB, 2))
    assert quotas._devices == {}
    assert quotas._shares == {}


def test_what_another_process_stored_is_read_before_what_came_after_it() -> None:
    """A session that follows falls behind, and nothing newer is handed out over the gap."""
    mailbox = Mailbox()
    online(mailbox)
    assert [type(action) for action in mailbox.woken([(BOB, 1, 10)])] == [box.Load]
    assert sent(stored(mailbox, submit(mailbox), 11)) == []
    assert mailbox.woken([(BOB, 1, 10)]) == [], "one read at a time"
    actions = mailbox.loaded(2, [row(10)], False)
    assert sent(actions) == [10]
    assert isinstance(actions[-1], box.Load), "what was committed during the read is read, too"
    assert sent(mailbox.loaded(2, [row(11)], False)) == [11]
    assert mailbox.woken([(BOB, 1, 11), (ADA, 7, 12)]) == [], "nothing new, and nobody here"
    assert sent(stored(mailbox, submit(mailbox), 12)) == [12]


def test_a_login_through_another_process_closes_the_connection_here() -> None:
    """With the same words as one through this process."""
    mailbox = Mailbox()
    online(mailbox)
    assert mailbox.elsewhere(BOB, 1) == [box.Close(2, *box.REPLACED)]
    assert mailbox.elsewhere(BOB, 1) == []
    assert not mailbox.holds(BOB, 1)


# --- the machine, against a model ---------------------------------------------------------------------------


class World(RuleBasedStateMachine):
    """A store that fails at the worst moment, devices that come and go, and all that was promised."""

    DEVICES = ((BOB, 1), (ADA, 2))

    @initialize()
    def begin(self) -> None:
        self.mailbox = Mailbox(quota=Quota(rows=10_000))
        self.rows: dict[int, tuple[Key, bytes, bytes]] = {}  # committed, by sequence: whose, id, parcel
        self.last = 0
        self.number = 0
        self.accepted: dict[bytes, Letter] = {}
        self.queue: list[Letter] = []
        self.untold: list[tuple[Told, list[Run]]] = []  # committed, and not yet known here
        self.loads: list[tuple[box.Load, list[Run]]] = []  # with what an early look would find
        self.away = False
        self.orphans: list[Letter] = []  # in a transaction whose connection was lost
        self.sessions: dict[int, Key] = {}
        self.names = 0
        self.ticked: set[bytes] = set()
        self.on_connection: dict[int, list[int]] = defaultdict(list)  # sequences given, by session
        self.disk: dict[Key, set[int]] = defaultdict(set)  # acknowledged, by device
        self.promised: dict[Key, list[bytes]] = defaultdict(list)
        self.seen: dict[Key, set[bytes]] = defaultdict(set)

    def act(self, actions: Sequence[box.Action]) -> None:
        for action in actions:
            match action:
                case box.Give(session, first, parcels):
                    for sequence, parcel in enumerate(parcels, first):
                        self.give(session, sequence, parcel)
                case box.Ticks(_, ids):
                    assert set(ids) <= set(self.accepted), "ticked before the commit"
                    self.ticked |= set(ids)
                case box.Send():
                    pass
                case box.Store(made):
                    self.queue.append(made)
                case box.Load():
                    self.loads.append((action, self._look(action)))
                case box.Remove(uid, device, through):
                    gone = {n for n, (to, _, _) in self.rows.items() if to == (uid, device) and n <= through}
                    assert gone <= self.disk[uid, device], "deleted before it was acknowledged"
                    for sequence in gone:
                        del self.rows[sequence]
                case box.Close(session, _, _):
                    self.sessions.pop(session, None)
                case _:
                    raise AssertionError(action)

    def give(self, session: int, sequence: int, parcel: bytes) -> None:
        key = self.sessions[session]
        given = self.on_connection[session]
        assert sequence in self.rows, "delivered before it was committed, or after its end"
        to, name, content = self.rows[sequence]
        assert (to, content) == (key, parcel)
        assert not given or sequence > given[-1], "out of order, or twice on one connection"
        before = {n for n, (to, _, _) in self.rows.items() if to == key and n < sequence}
        assert before <= set(given), "something older was passed over"
        given.append(sequence)
        self.seen[key].add(name)

    @rule(
        device=st.sampled_from(DEVICES),
        receive=st.sampled_from([True, True, True, False]),
        resume=st.booleans(),
    )
    def connect(self, device: Key, receive: bool, resume: bool) -> None:
        self.names += 1
        self.act(self.mailbox.opened(self.names, *device))
        self.sessions[self.names] = device
        if receive:
            self.act(self.mailbox.receive(self.names, self.complete_to(device) if resume else 0))

    def complete_to(self, device: Key) -> int:
        """The highest sequence up to which a device has everything on its disk."""
        missing = [n for n, (to, _, _) in self.rows.items() if to == device and n not in self.disk[device]]
        first = min(missing, default=self.last + 1)
        return max((n for n in self.disk[device] if n < first), default=0)

    @precondition(lambda self: any(self.on_connection[session] for session in self.sessions))
    @rule(data=st.data())
    def store_without_a_word(self, data: st.DataObject) -> None:
        """What the device has on its disk, and whose acknowledgement gets lost."""
        session = data.draw(st.sampled_from(sorted(s for s in self.sessions if self.on_connection[s])))
        self.disk[self.sessions[session]] |= set(self.on_connection[session])

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def disconnect(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(sorted(self.sessions)))
        self.mailbox.closed(session)
        del self.sessions[session]

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), slow=st.booleans())
    def slow(self, data: st.DataObject, slow: bool) -> None:
        self.act(self.mailbox.slow(data.draw(st.sampled_from(sorted(self.sessions))), slow))

    @rule(to=st.lists(st.sampled_from(DEVICES), min_size=1, unique=True), size=st.sampled_from([1, 190_000]))
    def submit_one(self, to: list[Key], size: int) -> None:
        self.submit(to, size)

    def submit(self, to: list[Key], size: int) -> None:
        self.number += 1
        made = letter(self.number, *to, body=self.number.to_bytes(4, "big") + bytes(size), session=0)
        self.act(self.mailbox.submit(made))

    @precondition(lambda self: not self.away)
    @rule(to=st.sampled_from(DEVICES))
    def submit_and_commit(self, to: Key) -> None:
        self.submit([to], 1)
        self.commit()

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def submit_again(self, data: st.DataObject) -> None:
        again = self.accepted[data.draw(st.sampled_from(sorted(self.accepted)))]
        self.act(self.mailbox.submit(again))

    def _commit(self, batch: list[Letter]) -> tuple[Told, list[Run]]:
        """One transaction, as the store makes runs of it."""
        told: Told = []
        new = []
        for made in batch:
            told.append((made, "duplicate" if made.id in self.accepted else "stored"))
            if made.id not in self.accepted:
                self.accepted[made.id] = made
                new.append(made)
        runs = shifted(into_runs(new), self.last)
        for run in runs:
            for parcel in run.parcels:
                self.last += 1
                name = parcel[:4].rjust(16, b"\0")
                self.promised[run.uid, run.device].append(name)
                self.rows[self.last] = (run.uid, run.device), name, parcel
        return told, runs

    @precondition(lambda self: self.queue and not self.away)
    @rule()
    def commit_all(self) -> None:
        self.commit()

    @precondition(lambda self: self.queue and not self.away)
    @rule()
    def commit_quietly(self) -> None:
        """A read may see rows before their verdict comes."""
        batch, self.queue = self.queue, []
        self.untold.append(self._commit(batch))

    @precondition(lambda self: self.untold)
    @rule()
    def tell(self) -> None:
        untold, self.untold = self.untold, []
        for told, runs in untold:
            self.act(self.mailbox.kept(told, runs))

    def commit(self) -> None:
        batch, self.queue = self.queue, []
        self.untold.append(self._commit(batch))
        self.tell()

    @precondition(lambda self: self.queue and not self.away)
    @rule(happened=st.booleans())
    def fail(self, happened: bool) -> None:
        """The connection breaks during a commit, which may happen all the same, later."""
        self.tell()
        batch, self.queue = self.queue, []
        self.orphans = batch if happened else []
        self.away = True
        self.mailbox.store_failed()
        self.act(self.mailbox.kept([(made, "failed") for made in batch], []))

    @precondition(lambda self: self.away)
    @rule()
    def settle(self) -> None:
        self.away = False
        self._commit(self.orphans)
        counts: dict[tuple[int, int, int], tuple[int, int]] = {}
        for key, _, parcel in self.rows.values():
            rows, size = counts.get((*key, ADA), (0, 0))
            counts[*key, ADA] = (rows + 1, size + len(parcel))
        self.act(self.mailbox.store_settled(counts, max(self.rows, default=0)))

    @precondition(lambda self: self.loads)
    @rule(data=st.data(), fails=st.sampled_from([False, False, True]), early=st.booleans())
    def load(self, data: st.DataObject, fails: bool, early: bool) -> None:
        """A read comes back; it looked at the rows when it was asked for, or just now."""
        load, before = self.loads.pop(data.draw(st.integers(0, len(self.loads) - 1)))
        if fails:
            self.mailbox.load_failed(load.session)
            return
        self._give(load, before if early else self._look(load))

    def _look(self, load: box.Load) -> list[Run]:
        """The rows as runs of one; that a run may be longer is what `_commit` shows."""
        return [
            Run(*key, ADA, sequence, [parcel])
            for sequence, (key, _, parcel) in sorted(self.rows.items())
            if key == (load.uid, load.device) and sequence > load.after
        ]

    def _give(self, load: box.Load, found: list[Run]) -> None:
        taken: list[Run] = []
        total = 0
        for run in found[: load.rows]:
            size = len(run.parcels[0])
            if taken and total + size > load.bytes:
                break
            taken.append(run)
            total += size
        self.act(self.mailbox.loaded(load.session, taken, len(taken) < len(found)))

    @precondition(lambda self: any(self.on_connection[session] for session in self.sessions))
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(sorted(s for s in self.sessions if self.on_connection[s])))
        given = self.on_connection[session]
        chosen = data.draw(st.lists(st.sampled_from(given), min_size=1, max_size=20))
        self.disk[self.sessions[session]] |= set(chosen)
        self.act(self.mailbox.acknowledged(session, chosen))

    @rule()
    def poll(self) -> None:
        self.act(self.mailbox.poll())

    @invariant()
    def the_window_is_bounded(self) -> None:
        for session in self.mailbox._sessions.values():
            assert len(session.window) <= box.WINDOW_ROWS + 64
            assert session.window_bytes <= box.WINDOW_BYTES + 200_000

    def teardown(self) -> None:
        """In the end every device comes online, and nothing that was ticked is missing on its disk."""
        if not hasattr(self, "mailbox"):
            return
        self.loads = []
        if self.away:
            self.settle()
        self.commit()
        for key in self.DEVICES:
            self.names += 1
            session = self.names
            self.act(self.mailbox.opened(session, *key))
            self.sessions[session] = key
            self.act(self.mailbox.receive(session))
            for _ in range(10_000):
                if self.loads:
                    load, _ = self.loads.pop(0)
                    self._give(load, self._look(load))
                    continue
                unacknowledged = [s for s in self.on_connection[session] if s in self.rows]
                if not unacknowledged:
                    break
                self.disk[key] |= set(unacknowledged)
                self.act(self.mailbox.acknowledged(session, unacknowledged))
            missing = set(self.promised[key]) - self.seen[key]
            assert not missing, "committed and never delivered"
            assert self.mailbox.waiting(*key) == 0
        assert not self.rows
        assert self.ticked <= set(self.accepted)
        assert self.mailbox._quotas._devices == {}, "counts of what is gone"


World.TestCase.settings = settings(max_examples=400, stateful_step_count=50, deadline=None)
TestWorld = World.TestCase
