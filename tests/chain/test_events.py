"""The fold: what it makes of a history, what it refuses, and what taking events back does to it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatchain.chain.encoding import encode
from chatchain.chain.events import (
    DIRECTORY,
    IDENTITY,
    MEMBERSHIP,
    Directory,
    Registered,
    RelaysSet,
    decode,
    device_head,
    row_of,
)
from chatchain.chain.sync import KEPT_BLOCKS, MemoryLogStore
from chatchain.errors import FoldMismatch
from chatchain.identity.keys import keccak256
from chatchain.model import Address, DeviceState, LogRow, ProposalId, ProposalState, Uid
from tests.chain.histories import History, random_history, topic, word
from tests.chain.world import dump

CHOICES = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 3)), max_size=40)


def test_a_user_is_folded_with_the_history_of_every_key() -> None:
    """Versions in order, heads as the registry computes them, the last verifier, the count of device
    events.
    """
    history = History()
    uid = history.register()
    history.step()
    history.update_device(uid, 1)
    history.add_device(uid)
    history.step()
    history.revoke_device(uid, 2)
    history.verifier(uid)
    user = Directory(history.rows).user(Uid(uid))
    assert user is not None
    first, second = user.devices
    assert [version.version for version in first.history] == [1, 2]
    assert first.state is DeviceState.ACTIVE
    assert second.state is DeviceState.REVOKED
    assert (second.revoked_block, second.revoked_time) == (3, 1_700_000_003)
    assert user.active_devices == (first,)
    assert user.device_list_version == 4
    assert user.block == 3
    one = keccak256(bytes(32) + word(1) + keccak256(first.history[0].record))
    assert first.head == keccak256(one + word(2) + keccak256(first.history[1].record))
    assert device_head(first.history) == first.head


def test_users_are_found_by_name_account_and_active_signer_only() -> None:
    """A signer that was replaced or revoked names nobody any more."""
    history = History()
    uid = history.register()
    fold = Directory(history.rows)
    user = fold.user(Uid(uid))
    assert user is not None
    old = user.devices[0].current.signer
    assert (
        fold.user_by_name(user.username)
        == fold.user_by_address(user.account)
        == fold.user_by_address(old)
        == user
    )
    history.step()
    history.update_device(uid, 1)
    fold = Directory(history.rows)
    assert fold.user_by_address(old) is None
    user = fold.user(Uid(uid))
    assert user is not None
    history.revoke_device(uid, 1)
    fold = Directory(history.rows)
    assert fold.user_by_address(user.devices[0].current.signer) is None
    assert fold.user_by_address(user.account) is not None
    assert fold.user_by_name("nobody") is None
    assert fold.user_by_address(Address(bytes(20))) is None


def test_members_and_proposals_are_folded() -> None:
    """Seats in order, epoch and hash of the last change, votes with their voters, the state at a time."""
    history = History()
    ada, bob, eve = (history.register() for _ in range(3))
    history.join(ada)
    history.join(bob)
    proposal = history.propose(eve)
    history.vote(proposal, ada, True)
    history.step()
    history.leave(bob)
    fold = Directory(history.rows)
    group = fold.group(0)
    assert group is not None
    assert [(member.uid, member.sequence) for member in group.members] == [(ada, 1)]
    assert (group.epoch, group.roster_hash, group.name) == (3, history.roster, "network")
    found = fold.proposal(ProposalId(proposal), now=0)
    assert found is not None
    assert (found.yes, found.no, found.voters, found.state) == (1, 0, (ada,), ProposalState.OPEN)
    lapsed = fold.proposal(ProposalId(proposal), now=found.deadline + 1)
    assert lapsed is not None
    assert lapsed.state is ProposalState.EXPIRED
    at_deadline = fold.proposals(0, now=found.deadline)
    assert at_deadline[0].state is ProposalState.OPEN
    history.close(proposal, ProposalState.PASSED)
    closed = Directory(history.rows).proposal(ProposalId(proposal), now=found.deadline + 1)
    assert closed is not None
    assert closed.state is ProposalState.PASSED


def test_additions_wait_for_confirmations_and_removals_do_not() -> None:
    """Above the horizon nobody gains anything, and whoever loses something has lost it."""
    history = History()
    ada = history.register()
    history.add_device(ada)
    history.join(ada)
    old = history.block
    history.step()
    history.update_device(ada, 1)
    bob = history.register()
    history.join(bob)
    history.revoke_device(ada, 2)
    history.add_device(ada)
    history.revoke_device(ada, 3)
    history.leave(ada)
    fold = Directory(history.rows, horizon=old)
    user, group = fold.user(Uid(ada)), fold.group(0)
    assert user is not None
    assert group is not None
    assert [device.device for device in user.devices] == [1, 2]
    assert user.devices[0].current.version == 1
    assert user.devices[1].state is DeviceState.REVOKED
    assert fold.user(Uid(bob)) is None
    assert group.members == ()
    assert group.roster_hash == history.roster
    assert fold.pending
    in_force = Directory(history.rows, horizon=history.block)
    assert not in_force.pending
    assert dump(in_force) == dump(Directory(history.rows))


HIDDEN: dict[str, list[tuple[str, tuple[object, ...]]]] = {
    "a registration": [("register", ()), ("revoke_device", (100_003, 1))],
    "a version": [("update_device", (100_001, 1)), ("update_device", (100_001, 1))],
    "a device": [("add_device", (100_001,)), ("add_device", (100_001,))],
    "a joining": [("join", (100_001,)), ("leave", (100_001,))],
    "another joining": [("join", (100_001,)), ("join", (100_002,))],
    "a leaving": [("join", (100_001,)), ("leave", (100_001,)), ("join", (100_002,))],
    "a proposal": [("propose", (100_002,)), ("vote", (1, 100_001, True))],
    "a vote": [("propose", (100_002,)), ("vote", (1, 100_001, True)), ("vote", (1, 100_002, True))],
}
LATER_IN_ITS_STORY = {"a leaving", "a vote"}


@pytest.mark.parametrize("what", HIDDEN)
def test_an_event_hidden_in_the_middle_is_noticed(what: str) -> None:
    """Leaving out any event on which a later one builds makes the fold refuse."""
    history = History()
    history.register()
    history.register()
    hidden = len(history.rows) + (what in LATER_IN_ITS_STORY)
    for verb, arguments in HIDDEN[what]:
        getattr(history, verb)(*arguments)
    Directory(history.rows)
    with pytest.raises(FoldMismatch):
        Directory(history.rows[:hidden] + history.rows[hidden + 1 :])


@given(CHOICES, st.data())
def test_an_event_told_twice_or_out_of_order_is_refused(
    choices: list[tuple[int, int]], data: st.DataObject
) -> None:
    """The same row again, or an older one, never changes the fold."""
    rows = random_history(choices).rows
    again = data.draw(st.sampled_from(rows))
    with pytest.raises(FoldMismatch):
        Directory([*rows, again])


def test_a_replayed_registration_or_signer_is_refused() -> None:
    """Names, accounts and signers are unique on the chain, so a second one was invented."""
    history = History()
    history.register()
    for row in history.rows[1:4]:
        later = msgspec.structs.replace(row, block=row.block + 9)
        if decode(row).__class__.__name__ == "VerifierSet":
            continue
        with pytest.raises(FoldMismatch):
            Directory([*history.rows, later])


@settings(max_examples=150, deadline=None)
@given(CHOICES, st.data())
def test_fold_after_rollback_is_the_fold_of_the_shorter_history(
    choices: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Dropping blocks from a store leaves what a reader of the shorter chain has, and gives back the rest."""
    history = random_history(choices)
    store = MemoryLogStore()
    for number in range(1, history.block + 1):
        store.take([row for row in history.rows if row.block == number], [history.block_ref(number)])
    cut = data.draw(st.integers(0, history.block + 1))
    dropped = store.drop_from(cut)
    shorter = [row for row in history.rows if row.block < cut]
    assert dropped == [row for row in history.rows if row.block >= cut]
    assert dump(Directory(store.rows())) == dump(Directory(shorter))
    assert store.head() == (history.block_ref(min(cut - 1, history.block)) if cut > 1 else None)
    for uid in Directory(shorter).uids():
        assert Directory(store.rows(subject=uid)).user(uid) == Directory(shorter).user(uid)


@settings(max_examples=100, deadline=None)
@given(CHOICES, st.integers(0, 20))
def test_a_horizon_never_adds_rights(choices: list[tuple[int, int]], back: int) -> None:
    """With any horizon the fold holds no member, user or active device that the whole fold lacks."""
    history = random_history(choices)
    whole = Directory(history.rows)
    fold = Directory(history.rows, horizon=history.block - back)
    assert set(fold.uids()) <= set(whole.uids())
    for uid in fold.uids():
        ours, theirs = fold.user(uid), whole.user(uid)
        assert ours is not None
        assert theirs is not None
        assert {device.device for device in ours.active_devices} <= {
            device.device for device in theirs.active_devices
        }
    old, new = fold.group(0), whole.group(0)
    assert old is not None
    assert new is not None
    assert {member.uid for member in old.members} <= {member.uid for member in new.members}
    if back == 0:
        assert dump(fold) == dump(whole)


@given(CHOICES)
@settings(max_examples=50, deadline=None)
def test_rows_of_one_user_fold_to_that_user(choices: list[tuple[int, int]]) -> None:
    """Folding lazily gives what folding everything gives."""
    rows = random_history(choices).rows
    whole = Directory(rows)
    for uid in whole.uids():
        assert Directory(row for row in rows if row.subject == uid).user(uid) == whole.user(uid)


@given(st.integers(0, 2), st.lists(st.binary(min_size=32, max_size=32), max_size=4), st.binary(max_size=200))
def test_garbage_logs_are_refused(source: int, topics: list[bytes], data: bytes) -> None:
    """Only FoldMismatch escapes."""
    with pytest.raises(FoldMismatch):
        row_of(1, bytes(32), 0, 0, source, tuple(topics), data)


@pytest.mark.parametrize(
    "change",
    [
        {"topics": (topic("Registered(uint64,address,string,address)"), word(0), word(1))},
        {"topics": (topic("Registered(uint64,address,string,address)"), word(10**15), word(1))},
        {"topics": (topic("Registered(uint64,address,string,address)"), word(5), b"\xff" * 32)},
        {"topics": (topic("Registered(uint64,address,string,address)"),)},
        {"data": encode(("string", "address"), ("n" * 33, bytes(20)))},
        {"data": bytes(20_000)},
        {"block": 2**60},
        {"index": 2**60},
        {"time": 2**60},
    ],
)
def test_events_larger_than_the_contracts_emit_reach_no_store(change: dict[str, object]) -> None:
    """A lying endpoint cannot make a database refuse, or hold what no column is made for."""
    history = History()
    history.register()
    good = history.rows[1]
    columns = ("block", "block_hash", "index", "time", "source", "topics", "data")
    values = {name: getattr(good, name) for name in columns}
    assert row_of(**values) == good
    with pytest.raises(FoldMismatch):
        row_of(**(values | change))


@given(st.data())
def test_altered_events_fail_cleanly_or_decode(data: st.DataObject) -> None:
    """A known event with other bytes is refused by FoldMismatch, if it is refused."""
    row = data.draw(st.sampled_from(random_history([(n * 7, 1) for n in range(60)]).rows))
    topics = row.topics[: data.draw(st.integers(1, len(row.topics)))]
    altered = msgspec.structs.replace(row, topics=topics, data=data.draw(st.binary(max_size=300)))
    try:
        decode(altered)
        row_of(1, bytes(32), 0, 0, altered.source, altered.topics, altered.data)
    except FoldMismatch:
        pass


def test_look_up_columns_are_filled_in() -> None:
    """Name and account of a registration, signer of a device event, and the uid of all."""
    history = History()
    uid = history.register()
    registered, verifier, added = history.rows[1:]
    event = decode(registered)
    assert isinstance(event, Registered)
    assert (registered.subject, registered.label, registered.address) == (uid, f"user-{uid}", event.account)
    assert (verifier.subject, verifier.label, verifier.address) == (uid, "", b"")
    assert (added.subject, len(added.address)) == (uid, 20)
    assert history.rows[0].source == MEMBERSHIP
    assert history.rows[0].subject == 0


def test_the_directorys_events_are_understood() -> None:
    """Relays are asked for elsewhere; the seal is remembered."""
    relay = ("localhost:5555", b"s" * 32, bytes(32))
    data = encode(("(string,bytes32,bytes32)[]",), ([relay],))
    row = row_of(1, bytes(32), 0, 0, DIRECTORY, (topic("RelaysSet((string,bytes32,bytes32)[])"),), data)
    assert decode(row) == RelaysSet((relay,))
    fold = Directory([row, row_of(2, bytes(32), 0, 0, DIRECTORY, (topic("Sealed()"),), b"")])
    assert fold.sealed


def test_a_state_or_policy_of_a_later_version_is_told() -> None:
    """An enum value that this version does not know is a failure with a sentence, not a crash."""
    history = History()
    uid = history.register()
    history.close(history.propose(uid), 77)
    with pytest.raises(FoldMismatch, match="ProposalState 77"):
        Directory(history.rows)


def test_a_store_keeps_only_recent_blocks() -> None:
    """The rows stay, the list of blocks is bounded."""
    history = History()
    store = MemoryLogStore()
    history.register()
    history.step(KEPT_BLOCKS * 2)
    store.take(history.rows, history.blocks())
    recent = store.recent(10_000)
    assert len(recent) == KEPT_BLOCKS
    assert recent[0] == store.head() == history.block_ref(history.block)
    assert store.rows(source=IDENTITY) == [row for row in history.rows if row.source == IDENTITY]


def test_rows_are_found_by_each_column() -> None:
    """And by several at once."""
    history = History()
    first, second = history.register(), history.register()
    store = MemoryLogStore()
    store.take(history.rows, history.blocks())

    def found(**columns: object) -> list[LogRow]:
        return store.rows(**columns)  # type: ignore[arg-type]  # the columns are the test's data

    assert found(subject=first) == history.rows[1:4]
    assert found(label=f"user-{second}") == [history.rows[4]]
    assert found(address=history.rows[1].address) == [history.rows[1]]
    assert found(source=IDENTITY, subject=second) == history.rows[4:]
    assert found(source=MEMBERSHIP, subject=second) == []
    assert found(label="nobody") == []
