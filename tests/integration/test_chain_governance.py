"""Recovery, keys, groups, offices, ledger and rewards on a real Anvil: the fold equals what the contracts
hold, through reorgs too, and signatures count once, in time, here and in their epoch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from chatchain.chain import calls
from chatchain.chain.encoding import encode
from chatchain.chain.events import (
    DIRECTORY,
    REWARDS,
    SIGNATURES,
    Directory,
)
from chatchain.chain.rpc import unhex
from chatchain.chain.sync import LogStore, MemoryLogStore
from chatchain.chain.view import ChainView
from chatchain.errors import AlreadyDone, ChatchainError, RefusedError, VerificationError
from chatchain.identity import typed_data
from chatchain.identity.keys import address_of, keccak256, new_secret, sign_digest
from chatchain.model import (
    Address,
    Call,
    Decision,
    DeviceState,
    FormerAccount,
    KeyKind,
    Kind,
    LogRow,
    Network,
    Policy,
    ProposalId,
    ProposalState,
    Reason,
    RelayAddress,
    RewardRoot,
    SetAnchorer,
    SetRelays,
    SetRewards,
    SetRules,
    SetSuccessor,
    SetWitnesses,
    Uid,
)
from tests.chain.world import FAR, Person, World, dump, fresh
from tests.fixtures.anvil import start_anvil
from tests.fixtures.chains import DevChain

DAY = 24 * 3600
FULL = os.environ.get("CHATCHAIN_FAULTS") == "full"
LOG, SECOND_LOG = b"\x01" * 32, b"\x02" * 32
ROOT = b"\x0f" * 32
REASONLESS = Reason()
CHAT = 10**18
RELAY = RelayAddress("localhost:5555", b"s" * 32, bytes(32))


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevChain]:
    """A chain whose clock this module may move."""
    started = start_anvil(tmp_path_factory.mktemp("governance"))
    yield started
    started.process.stop()


def ask(world: World, view: calls.View, *values: object) -> tuple[Any, ...]:
    """What a contract itself answers."""
    request = view.request(calls.address_in(world.network, view.contract), *values)
    return view.answer(unhex(world.rpc.call(request.method, *request.params)))


def rsa_key() -> bytes:
    """A key that the registry takes."""
    public = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def pass_time(world: World, seconds: int) -> None:
    world.rpc.call("evm_increaseTime", seconds)
    world.mine()


class Story:
    """Three people, two of them members, and one transaction after another until every event was there."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ada, self.bob, self.eve = (world.register(name) for name in ("ada", "bob", "eve"))
        self.uid = {person.name: world.uid(person) for person in (self.ada, self.bob, self.eve)}
        world.seat(self.ada, self.bob)
        self.guardian, self.heir, self.anchorer = (Person(name) for name in ("guardian", "heir", "anchorer"))
        self.witness = new_secret()
        for person in (self.guardian, self.heir, self.anchorer):
            world.fund(person.account)
        self.decisions: list[Decision] = []

    def decide(self, kind: Kind, decision: Decision = REASONLESS) -> list[Callable[[], object]]:
        """A proposal, and the votes of both members."""
        self.decisions.append(decision)
        number = ProposalId(len(self.decisions))
        call = self.world.calls.propose(0, kind, Uid(0), self.world.calls.decision_data(decision))
        vote = self.world.calls.vote(number, True)
        return [
            partial(self.send, person, made)
            for person, made in ((self.ada, call), (self.ada, vote), (self.bob, vote))
        ]

    def send(self, person: Person, call: Call) -> None:
        """Through whatever writer the world has by then."""
        self.world.send(person, call)

    def anchor(self, log: bytes, size: int) -> None:
        digest = typed_data.tree_head_digest(self.world.network, log, size, ROOT)
        call = self.world.calls.anchor(log, size, ROOT, [sign_digest(self.witness, digest)])
        self.send(self.anchorer, call)

    def acts(self) -> list[Callable[[], object]]:
        """In order: each is one block with one event or more, or lets time pass."""
        calls_, send = self.world.calls, self.send
        ada, bob, eve, uid = self.ada, self.bob, self.eve, self.uid
        other = Person("other")
        setter = self.anchorer.account
        return [
            partial(self.world.register, "zoe"),
            lambda: self.world.deployer.set_relays(self.world.network, [RELAY]),
            lambda: self.world.deployer.seal(self.world.network),
            partial(send, eve, calls_.add_key(0, rsa_key())),
            partial(send, eve, calls_.update_key(1, 2, rsa_key())),
            partial(send, eve, calls_.revoke_key(1)),
            partial(send, eve, calls_.add_key(0, rsa_key())),
            partial(send, eve, calls_.invalidate_nonce()),
            partial(send, eve, calls_.set_recovery(self.guardian.account)),
            partial(send, self.guardian, calls_.propose_recovery(uid["eve"], other.account)),
            partial(send, eve, calls_.veto_recovery()),
            partial(send, self.guardian, calls_.propose_recovery(uid["eve"], self.heir.account)),
            partial(pass_time, self.world, 8 * DAY),
            partial(send, self.heir, calls_.finalise_recovery(uid["eve"])),
            partial(send, self.heir, calls_.set_recovery(other.account)),
            partial(send, eve, calls_.commit(b"c" * 32)),
            partial(self.world.add_device, bob),
            partial(self.world.update_device, bob, 2, 2),
            partial(send, bob, calls_.revoke_device(2)),
            partial(send, ada, calls_.create_group("choir", [uid["bob"], uid["eve"]], 6000, 3 * DAY)),
            partial(send, bob, calls_.leave(1)),
            *self.decide(Kind.SET_ANCHORER, SetAnchorer(self.anchorer.account, LOG)),
            *self.decide(Kind.SET_WITNESSES, SetWitnesses(1, (address_of(self.witness),))),
            partial(self.anchor, LOG, 10),
            partial(self.anchor, LOG, 25),
            *self.decide(Kind.SET_ANCHORER, SetAnchorer(self.anchorer.account, SECOND_LOG)),
            partial(self.anchor, SECOND_LOG, 3),
            *self.decide(Kind.SET_REWARDS, SetRewards(setter)),
            partial(send, self.anchorer, calls_.set_root(ROOT, 1, 5 * CHAT)),
            *self.decide(Kind.SET_REWARDS, SetRewards(setter)),
            partial(send, self.anchorer, calls_.set_root(leaf(ada.account, 2 * CHAT), 1, 5 * CHAT)),
            partial(pass_time, self.world, 4 * DAY),
            partial(send, bob, calls_.claim_for(ada.account, 2 * CHAT, leaf(ada.account, 2 * CHAT), [])),
            *self.decide(Kind.PAUSE, Reason("a rogue relay")),
            *self.decide(Kind.UNPAUSE),
            *self.decide(Kind.SET_RULES, SetRules(Policy.VOTE, 6600, 2 * DAY)),
            *self.decide(
                Kind.SET_RELAYS,
                SetRelays((RelayAddress(RELAY.endpoint, b"n" * 32, bytes(32)),)),
            ),
            *self.decide(Kind.SUCCESSOR, SetSuccessor(self.world.network.registry)),
            *self.decide(Kind.SUCCESSOR, SetSuccessor(None)),
        ]


def leaf(account: Address, cumulative: int) -> bytes:
    """The root of a tree of one leaf."""
    return keccak256(keccak256(encode(("address", "uint256"), (account, cumulative))))


def everything(store: LogStore) -> tuple[object, ...]:
    """All that a store's rows fold to."""
    fold = Directory(store.rows())
    offices = (fold.ledger(), fold.rewards(FAR), fold.relays, fold.successor, fold.paused_until, fold.sealed)
    return store.rows(), store.head(), dump(fold), fold.groups(), fold.proposals(1, 0), offices


@pytest.fixture(scope="module")
def told(chain: DevChain) -> tuple[World, Story, MemoryLogStore]:
    """The whole story, followed act by act."""
    world = World(chain, voting_period=30 * DAY)
    story = Story(world)
    store = MemoryLogStore()
    view = world.view(store)
    for act in story.acts():
        act()
        view.sync()
    return world, story, store


def kinds(rows: Iterable[LogRow]) -> set[str]:
    """The names of the events in rows."""
    names = {(source, keccak256(signature.encode())): signature for source, signature in SIGNATURES}
    return {names[row.source, row.topics[0]].partition("(")[0] for row in rows}


EVERY_KIND = {signature.partition("(")[0] for _, signature in SIGNATURES}


def test_the_story_has_every_event(told: tuple[World, Story, MemoryLogStore]) -> None:
    """So no event is left that no test has seen on a chain."""
    assert kinds(told[2].rows()) == EVERY_KIND


def test_users_groups_and_offices_equal_the_contracts(told: tuple[World, Story, MemoryLogStore]) -> None:
    """Followed act by act, read anew, and asked of the contracts: one and the same."""
    world, story, store = told
    view = world.view(store)
    view.sync()
    assert everything(store) == everything(fresh(world))
    for uid in story.uid.values():
        view.confirm(uid)
    for group in (0, 1):
        view.confirm_group(group)
    view.confirm_ledger()
    eve = view.user(story.uid["eve"])
    assert eve is not None
    assert (eve.account, eve.epoch) == (story.heir.account, 1)
    assert [former.account for former in eve.former_accounts] == [story.eve.account]
    assert isinstance(eve.former_accounts[0], FormerAccount)
    assert view.user_by_address(story.heir.account) == eve
    assert view.user_by_address(story.eve.account) is None
    assert eve.devices[0].current.account == story.eve.account
    assert [(key.number, key.state, len(key.history)) for key in eve.keys] == [
        (1, DeviceState.REVOKED, 2),
        (2, DeviceState.ACTIVE, 1),
    ]
    choir = view.group_by_name("choir")
    assert choir is not None
    assert ask(world, calls.GROUP_NAMED, "choir") == (True, choir.group)
    assert {member.uid for member in choir.members} == {story.uid["ada"], story.uid["eve"]}
    assert (view.group().policy, view.group().threshold) == (Policy.VOTE, 6600)
    assert (view.paused_until(),) == ask(world, calls.PAUSED_UNTIL)
    head = view.ledger_head()
    assert head is not None
    assert (head.log_id, head.size, head.root) == (SECOND_LOG, 3, ROOT)
    first = view.ledger_head(LOG)
    assert first is not None
    assert first.size == 25
    ((size, _, is_open, root, previous),) = ask(world, calls.LOG, SECOND_LOG)
    assert (size, is_open, root, previous) == (3, True, ROOT, LOG)
    rewards = view.rewards()
    assert rewards.setter == story.anchorer.account
    assert view.claimed(story.ada.account) == 2 * CHAT
    assert ask(world, calls.CLAIMED, story.ada.account) == (2 * CHAT,)
    ((root, total, epoch, effective),) = ask(world, calls.CURRENT_ROOT)
    assert Directory(store.rows(source=REWARDS)).rewards(FAR).current == RewardRoot(
        epoch, root, total, effective
    )
    assert Directory(store.rows(source=DIRECTORY)).relays == view.relays()
    assert [proposal.decision for proposal in view.proposals()] == story.decisions
    assert {proposal.state for proposal in view.proposals()} == {ProposalState.PASSED}
    for proposal in view.proposals():
        ((*_, told_state, _),) = ask(world, calls.PROPOSAL, proposal.id)
        assert proposal.state is ProposalState(told_state)
        if Kind.SET_RULES <= proposal.kind <= Kind.SUCCESSOR:
            assert ask(world, calls.PAYLOAD, proposal.id) == (proposal.data,)
    assert (view.successor() or Address(bytes(20)),) == ask(world, calls.SUCCESSOR)


@pytest.mark.parametrize("depth", range(1, 13))
def test_a_reorg_of_any_depth_takes_any_event_back(new_anvil: Callable[..., DevChain], depth: int) -> None:
    """An act, blocks on top of it, and all of them replaced by empty ones: store and view then are those of
    a reader who never saw them; and the act is done again. At full count each act, else each sixth.
    """
    # A chain of its own: Anvil winds back well only while its history is short.
    world = World(new_anvil(), voting_period=30 * DAY)
    story = Story(world)
    store = MemoryLogStore()
    view = world.view(store)
    taken_back: set[str] = set()
    for number, act in enumerate(story.acts()):
        view.sync()
        before = everything(store)[2:]
        act()
        if not FULL and (number + depth) % 6:
            continue
        world.mine(depth - 1)
        view.sync()
        view.ledger(), view.groups(), view.rewards(), view.proposals()
        world.rpc.call("anvil_reorg", depth, [])
        taken_back |= kinds(view.advance().dropped)
        assert everything(store) == everything(fresh(world))
        anew = world.view(store)
        anew.sync()
        assert remembered(view) == remembered(anew)
        assert everything(store)[2:] == before
        world.forget_sent()
        act()  # also when it only let time pass
    view.sync()
    for uid in story.uid.values():
        view.confirm(uid)
    for group in view.groups():
        view.confirm_group(group.group)
    view.confirm_ledger()
    assert kinds(store.rows()) == EVERY_KIND
    assert taken_back == EVERY_KIND if FULL else len(taken_back) >= len(EVERY_KIND) // 6


def remembered(view: ChainView) -> tuple[object, ...]:
    """What a view answers from its folds."""
    return view.ledger(), view.groups(), view.rewards(), view.proposals(), view.relays()


def test_a_signature_counts_once_in_time_here_and_in_its_epoch(chain: DevChain) -> None:
    """Expired, replayed, made for another chain or contract, or before the account was replaced."""
    world = World(chain)
    story = Story(world)
    network, uid, key = world.network, story.uid["eve"], rsa_key()
    build, payer = world.calls, story.ada

    def add(network_: Network, epoch: int, nonce: int, deadline: int, by: bytes) -> Call:
        digest = typed_data.add_key_digest(network_, uid, epoch, KeyKind.RSA2048_OAEP, key, nonce, deadline)
        return build.add_key_for(uid, 0, key, deadline, sign_digest(by, digest))

    def refused(call: Call, kind: type[ChatchainError]) -> None:
        with pytest.raises(kind):
            world.send(payer, call)

    elsewhere = Network(1, network.directory, network.registry, network.membership)
    another = Network(network.chain_id, network.directory, network.membership, network.registry)
    refused(add(network, 0, 0, 1, story.eve.key), RefusedError)
    refused(add(elsewhere, 0, 0, FAR, story.eve.key), VerificationError)
    refused(add(another, 0, 0, FAR, story.eve.key), VerificationError)
    good = add(network, 0, 0, FAR, story.eve.key)
    world.send(payer, good)
    refused(good, VerificationError)
    held = add(network, 0, 1, FAR, story.eve.key)
    digest = typed_data.transfer_digest(network, uid, 0, story.eve.account, story.heir.account, 1, FAR)
    hand_over = build.transfer_for(
        uid, story.heir.account, FAR, sign_digest(story.eve.key, digest), sign_digest(story.heir.key, digest)
    )
    world.send(payer, hand_over)
    refused(hand_over, ChatchainError)
    refused(held, VerificationError)
    view = world.view()
    nonce = view.nonce(uid)
    refused(add(network, 0, nonce, FAR, story.heir.key), VerificationError)
    world.send(payer, add(network, 1, nonce, FAR, story.heir.key))
    view.confirm(uid)
    user = view.user(uid)
    assert user is not None
    assert (user.account, user.epoch, len(user.keys)) == (story.heir.account, 1, 2)


def test_a_vote_of_a_batch_that_fails_spoils_none_of_the_others(chain: DevChain) -> None:
    """Votes by signature of two members, one of them forged and one cast twice."""
    world = World(chain)
    story = Story(world)
    world.send(story.ada, world.calls.propose(0, Kind.PAUSE, Uid(0), b""))

    def vote(person: Person, key: bytes) -> tuple[int, bool, bytes, bytes]:
        digest = typed_data.vote_digest(world.network, 1, story.uid[person.name], 0, True)
        return 1, True, person.account, sign_digest(key, digest)

    good = vote(story.ada, story.ada.key)
    world.send(story.eve, world.calls.vote_batch([vote(story.bob, story.eve.key), good, good]))
    view = world.view()
    view.sync()
    proposal = view.proposal(ProposalId(1))
    assert proposal is not None
    assert proposal.voters == (story.uid["ada"],)
    with pytest.raises(AlreadyDone):
        world.send(story.ada, world.calls.propose(0, Kind.PAUSE, Uid(0), b""))
