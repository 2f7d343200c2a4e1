"""The relay's sponsor on a real Anvil: what it commits to, packs, is told, refuses and gives back."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator

import msgspec
import pytest

from chatchain.chain.calls import arguments
from chatchain.chain.encoding import encode
from chatchain.chain.rpc import hexed, quantity
from chatchain.errors import (
    AlreadyVoted,
    ChatchainError,
    CommitmentNeeded,
    CommitmentPending,
    NameUnavailable,
    RefusedError,
    Reverted,
    VerificationError,
    VotingClosed,
)
from chatchain.identity import typed_data
from chatchain.identity.keys import NOBODY, address_of, new_secret, sign_digest
from chatchain.model import GWEI, Address, Call, Kind, Network, ProposalId, RelayAddress, Uid
from chatchain.programs.purse import Purse
from chatchain.relay.spending import Spending
from chatchain.relay.sponsor import MAX_GAS, Order, Paid, Sponsor, SponsorLimits
from tests.chain.world import ETHER, FAR, Person, World
from tests.fixtures.anvil import start_anvil
from tests.fixtures.chains import DevChain
from tests.relay.journal import MemoryJournal


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevChain]:
    """A chain whose clock and pool this module may move."""
    started = start_anvil(tmp_path_factory.mktemp("sponsor"))
    yield started
    started.process.stop()


class Stage:
    """A network with members, and a sponsor with a purse of its own."""

    def __init__(self, chain: DevChain, members: int = 0) -> None:
        self.world = World(chain)
        key = new_secret()
        self.account = address_of(key)
        self.world.fund(self.account, 100 * ETHER)
        self.purse = Purse(self.world.endpoints, self.world.network, key)
        self.journal = MemoryJournal()
        spending = Spending(self.journal, time.time, wei_per_hour=10 * ETHER, wei_per_day=10 * ETHER)
        self.sponsor = Sponsor(self.purse, spending, SponsorLimits(), 0)
        self.members = [self.world.register(f"member-{number}") for number in range(members)]
        if members:
            self.world.seat(*self.members)
        self.uids = [self.world.uid(member) for member in self.members]
        if members:
            relay = RelayAddress("localhost:5555", b"s" * 32, bytes(32))
            self.world.deployer.set_relays(self.world.network, [relay])
            self.world.deployer.seal(self.world.network)

    def pay(self, *calls: Call, uid: int = 0) -> list[Paid | ChatchainError]:
        return self.sponsor.pay_all([Order(call, uid) for call in calls], 0)

    def settle(self) -> None:
        """Lets what was sent be mined and the sponsor see it."""
        while self.sponsor._bills:
            self.sponsor.tend(0)
            time.sleep(0.02)

    def spent(self) -> int:
        return 100 * ETHER - self.world.writer.balance(self.account)

    def nonce(self) -> int:
        return quantity(self.world.rpc.call("eth_getTransactionCount", hexed(self.account), "latest"))

    def newcomer(self, name: str, key: bytes | None = None, network: Network | None = None) -> Call:
        key, signer = key or new_secret(), address_of(new_secret())
        account, verifier, record = address_of(key), secrets.token_bytes(32), secrets.token_bytes(227)
        values = (name, account, verifier, b"kdf", NOBODY, signer, record, FAR)
        signature = sign_digest(key, typed_data.register_digest(network or self.world.network, *values))
        return self.world.calls.register_for(
            account, name, verifier, b"kdf", NOBODY, signer, record, FAR, signature
        )

    def vote(self, member: int, proposal: int = 1, *, support: bool = True, by: bytes | None = None) -> Call:
        digest = typed_data.vote_digest(self.world.network, proposal, self.uids[member], 0, support)
        key = by or self.members[member].key
        return self.world.calls.vote_by_sig(
            ProposalId(proposal), support, self.members[member].account, sign_digest(key, digest)
        )

    def propose(self, kind: Kind, data: bytes = b"") -> None:
        self.world.send(self.members[0], self.world.calls.propose(0, kind, Uid(0), data))

    def voters(self, proposal: int = 1) -> set[Uid]:
        view = self.world.view()
        view.sync()
        found = view.proposal(ProposalId(proposal))
        assert found is not None
        return set(found.voters)


def signature_of(call: Call) -> bytes:
    signature: bytes = arguments(call)[-1]
    return signature


def malleable(signature: bytes) -> bytes:
    """The other signature that follows from one without its key."""
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    s = order - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes([55 - signature[64]])


def kinds(outcomes: list[Paid | ChatchainError]) -> list[type]:
    return [type(outcome) for outcome in outcomes]


def test_collected_votes_are_one_transaction_and_a_poisoned_one_spoils_none(chain: DevChain) -> None:
    """A forged vote is refused before anything is paid; the others are counted together."""
    stage = Stage(chain, members=6)
    stage.propose(Kind.PAUSE)
    votes = [stage.vote(member) for member in range(3)]
    poisoned = stage.vote(3, by=new_secret())
    first, forged, second, third = stage.pay(votes[0], poisoned, *votes[1:])
    assert isinstance(forged, VerificationError)
    assert isinstance(first, Paid)
    assert [first, first] == [second, third]
    stage.settle()
    assert stage.nonce() == 1
    assert stage.voters() == set(stage.uids[:3])
    # Only what mining took stays booked.
    assert stage.journal.total == -(-stage.spent() // GWEI)


def test_a_vote_that_its_batch_skipped_is_told_with_the_reason(chain: DevChain) -> None:
    """Two votes of one user in one batch, as from two devices, and a vote after the deciding one."""
    stage = Stage(chain, members=3)
    stage.propose(Kind.PAUSE)
    yes, no = stage.vote(0), stage.vote(0, support=False)
    deciding, late = stage.vote(1), stage.vote(2)
    told = stage.pay(yes, no, deciding, late, uid=stage.uids[0])
    assert kinds(told) == [Paid] * 4
    stage.settle()
    assert stage.voters() == set(stage.uids[:2])
    assert stage.pay(yes, uid=stage.uids[0]) == told[:1]
    # The chain shows that this user has voted: which of the two counted, the chain says as well.
    assert stage.pay(deciding, uid=stage.uids[1]) == told[2:3]
    (skipped,) = stage.pay(late, uid=stage.uids[2])
    assert isinstance(skipped, VotingClosed)
    assert "passed" in skipped.message
    assert stage.nonce() == 1


def test_the_vote_that_decides_on_relays_passes_whatever_it_writes(chain: DevChain) -> None:
    """A list of sixteen takes more than any other call may; an estimate says how much is booked."""
    stage = Stage(chain, members=2)
    relays = [
        (f"relay-{number}.example.org:5555", secrets.token_bytes(32), secrets.token_bytes(32))
        for number in range(16)
    ]
    stage.propose(Kind.SET_RELAYS, encode(("(string,bytes32,bytes32)[]",), (relays,)))
    assert kinds(stage.pay(stage.vote(0), uid=stage.uids[0])) == [Paid]
    stage.settle()
    (paid,) = stage.pay(stage.vote(1), uid=stage.uids[1])
    assert isinstance(paid, Paid)
    stage.settle()
    receipt = stage.world.rpc.call("eth_getTransactionReceipt", hexed(paid.tx_hash))
    assert isinstance(receipt, dict)
    assert quantity(receipt["gasUsed"]) > MAX_GAS
    assert len(stage.world.view().relays()) == 16


def test_deciding_votes_of_every_network_kind_stay_below_the_bound(chain: DevChain) -> None:
    """Anchorer, witnesses, rewards, successor: with the largest data that each may carry."""
    stage = Stage(chain, members=1)
    witnesses = sorted(secrets.token_bytes(20) for _ in range(16))
    decisions = {
        Kind.SET_ANCHORER: encode(("address", "bytes32"), (secrets.token_bytes(20), secrets.token_bytes(32))),
        Kind.SET_WITNESSES: encode(("uint8", "address[]"), (16, witnesses)),
        Kind.SET_REWARDS: encode(("address",), (secrets.token_bytes(20),)),
        Kind.SUCCESSOR: encode(("address",), (stage.world.network.registry,)),
        Kind.PAUSE: b"",
        Kind.UNPAUSE: b"",
        Kind.SET_RULES: encode(("uint8", "uint16", "uint32"), (1, 6600, 86400)),
    }
    view = stage.world.view()
    for number, (kind, data) in enumerate(decisions.items(), 1):
        stage.propose(kind, data)
        (paid,) = stage.pay(stage.vote(0, number), uid=stage.uids[0])
        assert isinstance(paid, Paid), (kind, paid)
        stage.settle()
        view.sync()
        proposal = view.proposal(ProposalId(number))
        assert proposal is not None
        assert proposal.state.name == "PASSED", kind


def test_votes_that_decide_only_together_are_decided_in_one_transaction(chain: DevChain) -> None:
    """The batch brings along the gas that its last vote needs."""
    stage = Stage(chain, members=3)
    stage.propose(Kind.SUCCESSOR, encode(("address",), (stage.world.network.registry,)))
    assert kinds(stage.pay(stage.vote(0), stage.vote(1), uid=stage.uids[0])) == [Paid, Paid]
    stage.settle()
    assert stage.nonce() == 1
    view = stage.world.view()
    view.sync()
    proposal = view.proposal(ProposalId(1))
    assert proposal is not None
    assert proposal.state.name == "PASSED"


def test_where_names_must_be_committed_to_the_sponsor_commits(chain: DevChain) -> None:
    """Somebody has made others commit: the newcomer asks again and is registered, in few transactions."""
    stage = Stage(chain)
    stranger = new_secret()
    stage.world.fund(address_of(stranger))
    stage.world.writer.send(stage.world.calls.commit(secrets.token_bytes(32)), stranger)
    call = stage.newcomer("ada")
    assert kinds(stage.pay(call)) == [CommitmentPending]
    stage.settle()
    (paid,) = stage.pay(call)
    assert isinstance(paid, Paid)
    stage.settle()
    assert stage.nonce() == 2
    view = stage.world.view()
    view.sync()
    assert view.user_by_name("ada") is not None


def test_a_rival_who_sends_the_same_signature_first_changes_nothing(chain: DevChain) -> None:
    """The sponsor's transaction fails and costs what it costs; who asks again is told the contract's reason,
    and the chain shows the very account that was asked for.
    """
    stage = Stage(chain)
    rival = new_secret()
    stage.world.fund(address_of(rival))
    key = new_secret()
    call = stage.newcomer("ada", key)
    stage.world.rpc.call("evm_setAutomine", False)
    try:
        cost = stage.world.writer.estimate(call, address_of(rival))
        dearer = msgspec.structs.replace(cost, fee=cost.fee * 10, tip=cost.tip * 10)
        (paid,) = stage.pay(call)
        assert isinstance(paid, Paid)
        stage.world.writer.submit(call, rival, dearer)
        stage.world.mine()
    finally:
        stage.world.rpc.call("evm_setAutomine", True)
    stage.settle()
    with pytest.raises(NameUnavailable):
        stage.world.writer.look(paid.tx_hash)
    assert stage.journal.total == -(-stage.spent() // GWEI) > 0
    assert kinds(stage.pay(call)) == [NameUnavailable]
    view = stage.world.view()
    view.sync()
    user = view.user_by_name("ada")
    assert user is not None
    assert user.account == address_of(key)


def test_bad_signatures_of_every_sort_cost_nothing_and_come_as_sentences(chain: DevChain) -> None:
    """Expired, replayed, for another chain or contract, of an old epoch, malleable, cut, empty: in one turn
    with good ones, which pass.
    """
    stage = Stage(chain, members=2)
    world, network = stage.world, stage.world.network
    stage.propose(Kind.PAUSE)
    eve = world.register("eve")
    uid = world.uid(eve)
    elsewhere = msgspec.structs.replace(network, chain_id=1)
    swapped = msgspec.structs.replace(network, registry=network.membership, membership=network.registry)

    def verifier(
        net: Network = network, *, deadline: int = FAR, epoch: int = 0, nonce: int = 0, mend: int = 0
    ) -> Call:
        value = secrets.token_bytes(32)
        digest = typed_data.set_verifier_digest(net, uid, epoch, value, b"kdf", nonce, deadline)
        signature = sign_digest(eve.key, digest)
        signature = signature[: 65 - mend]
        return world.calls.set_verifier_for(uid, value, b"kdf", deadline, signature)

    replayed = stage.vote(0)
    assert kinds(stage.pay(replayed, uid=stage.uids[0])) == [Paid]
    stage.settle()
    replay = stage.vote(0, support=False)
    before, nonce = stage.spent(), stage.nonce()
    bad = {
        "expired": (verifier(deadline=1), RefusedError),
        "another chain": (verifier(elsewhere), VerificationError),
        "another contract": (verifier(swapped), VerificationError),
        "another epoch": (verifier(epoch=1), VerificationError),
        "a later nonce": (verifier(nonce=1), VerificationError),
        "cut": (verifier(mend=2), VerificationError),
        "empty": (verifier(mend=65), VerificationError),
        "a registration for another chain": (stage.newcomer("mal", network=elsewhere), VerificationError),
        "a taken name": (stage.newcomer("eve"), NameUnavailable),
        "a second vote": (replay, AlreadyVoted),
    }
    good = verifier()
    *told, passed = stage.pay(*(call for call, _ in bad.values()), good)
    for (what, (_, kind)), outcome in zip(bad.items(), told, strict=True):
        assert type(outcome) is kind, (what, outcome)
        assert isinstance(outcome, ChatchainError)
        assert outcome.message.endswith(".")
        assert not isinstance(outcome, Reverted)  # each has a class and a sentence of its own
    assert isinstance(passed, Paid)
    stage.settle()
    assert stage.nonce() == nonce + 1
    assert stage.spent() > before
    # The good one again: within the memory it is answered, and by another sponsor it is a replay.
    assert stage.pay(good) == [passed]
    other = Stage.__new__(Stage)
    other.__dict__.update(stage.__dict__)
    other.sponsor = Sponsor(
        stage.purse,
        Spending(stage.journal, time.time, wei_per_hour=ETHER, wei_per_day=ETHER),
        SponsorLimits(),
        0,
    )
    (again,) = other.pay(good)
    assert isinstance(again, VerificationError)
    # Nor does the same signature in its other form count again: s and n - s are as good for the curve.
    twin = Call(good.contract, good.data.replace(signature_of(good), malleable(signature_of(good))))
    assert twin != good
    assert kinds(stage.pay(twin)) == [VerificationError]


def test_whoever_recovers_an_account_needs_no_ether(chain: DevChain) -> None:
    """Naming the guardian, proposing and finishing a recovery are all signed and paid for by the sponsor."""
    stage = Stage(chain)
    world, network = stage.world, stage.world.network
    ada, guardian, heir = world.register("ada"), Person("guardian"), Person("heir")
    uid, view = world.uid(ada), world.view()

    def nonce() -> int:
        return view.nonce(uid)

    def done(call: Call, uid_: int = 0) -> None:
        (paid,) = stage.pay(call, uid=uid_)
        assert isinstance(paid, Paid), paid
        stage.settle()

    digest = typed_data.set_recovery_digest(network, uid, 0, guardian.account, nonce(), FAR)
    done(world.calls.set_recovery_for(uid, guardian.account, FAR, sign_digest(ada.key, digest)), uid)
    digest = typed_data.propose_recovery_digest(network, uid, 0, heir.account, nonce(), FAR)
    propose = world.calls.propose_recovery_for(uid, heir.account, FAR, sign_digest(guardian.key, digest))
    done(propose)
    world.rpc.call("evm_increaseTime", 40 * 86400)
    world.mine()
    digest = typed_data.finalise_recovery_digest(network, uid, 0, heir.account, FAR)
    done(world.calls.finalise_recovery_for(uid, FAR, sign_digest(heir.key, digest)))
    view.sync()
    user = view.user(uid)
    assert user is not None
    assert (user.account, user.epoch) == (Address(heir.account), 1)


def test_who_pays_for_itself_commits_first_and_registers_with_the_next_block(chain: DevChain) -> None:
    """Tried out on the block that there is, the registration would be refused until another is made."""
    stage = Stage(chain)
    stranger, key = new_secret(), new_secret()
    for one in (stranger, key):
        stage.world.fund(address_of(one))
    calls, writer = stage.world.calls, stage.world.writer
    writer.send(calls.commit(secrets.token_bytes(32)), stranger)
    verifier = secrets.token_bytes(32)
    register = calls.register("ada", verifier, b"kdf", NOBODY, address_of(new_secret()), bytes(227))
    with pytest.raises(CommitmentNeeded):
        writer.send(register, key)
    writer.send(calls.commit_registration("ada", address_of(key), verifier), key)
    writer.send(register, key, next_block=True)
    view = stage.world.view()
    view.sync()
    assert view.user_by_name("ada") is not None
