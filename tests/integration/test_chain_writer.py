"""Transactions on a real Anvil: refused before they cost, seen through when they are stuck, lost or taken
back.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from chatchain.chain.calls import Calls
from chatchain.chain.rpc import Endpoints, Rpc, hexed, quantity
from chatchain.chain.writer import ChainWriter
from chatchain.errors import (
    AlreadyDone,
    AlreadyVoted,
    ChainError,
    ChainUnreachable,
    ChatchainError,
    LimitReached,
    MalformedName,
    NameUnavailable,
    NoEther,
    NotAMember,
    RefusedError,
    Reverted,
    TransactionPending,
    UnknownProposal,
    UnknownUser,
    VerificationError,
    VotingClosed,
)
from chatchain.identity import typed_data
from chatchain.identity.keys import NOBODY, address_of, new_secret, sign_digest
from chatchain.model import Address, Call, Kind, ProposalId
from tests.chain.proxy import proxy
from tests.chain.world import ETHER, FAR, World
from tests.fixtures.chains import DevChain
from tests.fixtures.processes import free_port

CALLS = Calls()


@dataclass
class Sponsor:
    """Somebody who pays for others with one key."""

    writer: ChainWriter
    key: bytes = field(repr=False)

    def submit(self, call: Call) -> bytes:
        return self.writer.submit(call, self.key)

    def balance(self) -> int:
        return self.writer.balance(address_of(self.key))


def registration(name: str) -> Call:
    return CALLS.register(
        name, secrets.token_bytes(32), b"kdf", NOBODY, address_of(new_secret()), secrets.token_bytes(200)
    )


def nonce(world: World, key: bytes) -> int:
    return quantity(world.rpc.call("eth_getTransactionCount", hexed(address_of(key)), "latest"))


def funded(world: World) -> bytes:
    key = new_secret()
    world.fund(address_of(key))
    return key


def test_a_transaction_is_of_type_two_and_for_this_chain_only(anvil: DevChain) -> None:
    """An older kind with a wrong chain id would be accepted and never mined."""
    world = World(anvil)
    mined = world.writer.send(registration("ada"), funded(world))
    sent = world.rpc.call("eth_getTransactionByHash", hexed(mined.tx_hash))
    assert isinstance(sent, dict)
    assert (sent["type"], sent["chainId"]) == ("0x2", "0x7a69")
    assert int(sent["blockNumber"], 16) == mined.block
    assert world.writer.wait(mined.tx_hash) == mined
    assert world.writer.look(mined.tx_hash) == mined


def test_every_refusal_comes_as_a_sentence_and_costs_nothing(anvil: DevChain) -> None:
    """What the contracts refuse is tried out first: no nonce is used and no ether spent."""
    world = World(anvil)
    ada, bob, eve = (world.register(name) for name in ("ada", "bob", "eve"))
    world.seat(ada)
    world.send(bob, CALLS.request(0))
    ada_uid, bob_uid = world.uid(ada), world.uid(bob)
    stranger = funded(world)
    past = typed_data.request_digest(world.network, "network", ada_uid, 0, 1)
    refused: list[tuple[bytes, Call, type[ChatchainError], str]] = [
        (stranger, registration("ada"), NameUnavailable, "ada is taken"),
        (stranger, registration("admin"), NameUnavailable, "admin is reserved"),
        (stranger, registration("no--good"), MalformedName, "no--good"),
        (stranger, CALLS.request(0), UnknownUser, "belongs to no user"),
        (ada.key, registration("ada2"), AlreadyDone, "already belongs to a user"),
        (ada.key, CALLS.update_device(1, 7, address_of(ada.signer), b"r"), RefusedError, "due for version 2"),
        (ada.key, CALLS.revoke_device(9), ChatchainError, "has no device 9"),
        (ada.key, CALLS.request(0), AlreadyDone, "is a member already"),
        (ada.key, CALLS.vote(ProposalId(77), True), UnknownProposal, "no proposal 77"),
        (ada.key, CALLS.close(ProposalId(1)), RefusedError, "still open"),
        (ada.key, CALLS.propose(0, Kind.EXPEL, bob_uid, b""), NotAMember, "not a member"),
        (bob.key, CALLS.request(0), AlreadyDone, "Proposal 1 already asks"),
        (eve.key, CALLS.vote(ProposalId(1), True), NotAMember, "not a member"),
        (eve.key, CALLS.seat([ada_uid]), RefusedError, "only the deployer may"),
        (
            eve.key,
            CALLS.request_for(0, ada.account, 1, sign_digest(ada.key, past)),
            RefusedError,
            "valid until 1970-01-01",
        ),
        (
            eve.key,
            CALLS.request_for(0, bob.account, FAR, b"\1" * 65),
            VerificationError,
            "does not accept the signature",
        ),
    ]
    for key, call, kind, words in refused:
        before = (nonce(world, key), world.writer.balance(address_of(key)))
        with pytest.raises(kind, match=words) as caught:
            world.writer.send(call, key)
        assert caught.value.message.endswith((".", ".”"))
        assert (nonce(world, key), world.writer.balance(address_of(key))) == before
    world.send(ada, CALLS.vote(ProposalId(1), True))
    with pytest.raises(VotingClosed, match="it is passed"):
        world.send(ada, CALLS.vote(ProposalId(1), True))
    world.send(ada, CALLS.propose(0, Kind.EXPEL, ada_uid, b""))
    world.send(ada, CALLS.vote(ProposalId(2), True))
    with pytest.raises(AlreadyVoted, match="already voted on proposal 2"):
        world.send(ada, CALLS.vote(ProposalId(2), True))


def test_an_account_without_ether_is_told_so(anvil: DevChain) -> None:
    """With the balance and what it would cost, and a way out; nothing is sent."""
    world = World(anvil)
    key = new_secret()
    with pytest.raises(NoEther, match="holds 0 ether") as caught:
        world.writer.send(registration("ada"), key)
    assert "sponsor" in caught.value.hint
    assert nonce(world, key) == 0


def test_an_account_with_just_enough_may_send(anvil: DevChain) -> None:
    """The comfortable margin is given up before the transaction is."""
    world = World(anvil)
    key = new_secret()
    world.fund(address_of(key))
    cost = world.writer.estimate(registration("ada"), address_of(key))
    present = cost.gas * (cost.fee + cost.tip) // 2  # the fee is twice the base fee, and the tip
    assert present * 3 // 2 < cost.wei
    world.fund(address_of(key), present * 3 // 2)
    world.writer.send(registration("ada"), key)
    assert 0 < world.writer.balance(address_of(key)) < present


def test_the_key_appears_in_no_failure_and_no_representation(anvil: DevChain) -> None:
    """Neither as hex nor as bytes."""
    world = World(anvil)
    key = funded(world)
    world.rpc.call("evm_setAutomine", False)
    writer = ChainWriter(world.endpoints, world.network, wait=0.1)
    try:
        with pytest.raises(TransactionPending) as caught:
            writer.send(registration("ada"), key)
        held = repr(writer._watched) + repr(caught.value) + str(caught.value) + repr(caught.value.args)
    finally:
        world.rpc.call("evm_setAutomine", True)
        world.mine()
    assert key.hex() not in held
    assert repr(key) not in held


def test_an_unmined_transaction_is_reported_with_its_hash(new_anvil: Callable[..., DevChain]) -> None:
    """After the wait it is pending, not failed; and it can be waited for again."""
    world = World(new_anvil())
    key = funded(world)
    world.rpc.call("evm_setAutomine", False)
    writer = ChainWriter(world.endpoints, world.network, wait=0.3)
    with pytest.raises(TransactionPending, match=r"0x[0-9a-f]{64} is not mined") as caught:
        writer.send(registration("ada"), key)
    tx_hash = bytes.fromhex(caught.value.message.split("0x")[1][:64])
    with pytest.raises(TransactionPending):
        writer.wait(tx_hash)
    assert writer.look(tx_hash) is None
    world.mine()
    assert writer.wait(tx_hash).tx_hash == tx_hash


def test_a_stuck_transaction_is_replaced_by_a_better_paid_one(new_anvil: Callable[..., DevChain]) -> None:
    """When the base fee rises above the offer, the same nonce is offered with more; it acts once."""
    world = World(new_anvil())
    key = funded(world)
    world.rpc.call("evm_setAutomine", False)
    writer = ChainWriter(world.endpoints, world.network, stuck=0.2)
    first = writer.submit(registration("ada"), key)
    world.rpc.call("anvil_setNextBlockBaseFeePerGas", hex(50 * 10**9))
    world.mine()
    assert writer.look(first) is None
    time.sleep(1.1)
    writer.tend()
    world.mine()
    assert writer.look(first) is None
    (sent,) = writer._watched.values()
    assert len(sent.hashes) == 2
    assert writer.look(sent.hashes[1]) is not None
    assert nonce(world, key) == 1
    writer.tend()
    assert nonce(world, key) == 1


def test_of_a_transaction_and_its_replacement_one_is_mined(new_anvil: Callable[..., DevChain]) -> None:
    """A node that still holds the first version swaps it for the better paid one."""
    world = World(new_anvil())
    key = funded(world)
    world.rpc.call("evm_setAutomine", False)
    writer = ChainWriter(world.endpoints, world.network, stuck=0.2)
    first = writer.submit(registration("ada"), key)
    time.sleep(0.3)
    writer.tend()
    world.mine()
    (sent,) = writer._watched.values()
    assert [writer.look(tx_hash) is not None for tx_hash in sent.hashes] == [False, True]
    assert sent.hashes[0] == first
    assert writer._tend_one(sent) == writer.look(sent.hashes[1])
    world.mine(13)
    writer.tend()
    assert (writer.watched, nonce(world, key)) == (0, 1)


def test_send_itself_replaces_what_is_stuck(new_anvil: Callable[..., DevChain]) -> None:
    """Who waits in the foreground needs nobody else to look after it."""
    world = World(new_anvil())
    key = funded(world)
    world.rpc.call("evm_setAutomine", False)
    writer = ChainWriter(world.endpoints, world.network, stuck=0.5)
    stop = threading.Event()

    def mine_dearly() -> None:
        rpc = Rpc(world.chain.url)
        rpc.call("anvil_setNextBlockBaseFeePerGas", hex(60 * 10**9))
        while not stop.wait(0.2):
            rpc.call("evm_mine")

    mined: list[Any] = []
    sender = threading.Thread(target=lambda: mined.append(writer.send(registration("ada"), key)))
    sender.start()
    while not writer.watched:
        time.sleep(0.01)
    miner = threading.Thread(target=mine_dearly)
    miner.start()
    sender.join(120)
    stop.set()
    miner.join()
    assert mined
    assert len(next(iter(writer._watched.values())).hashes) >= 2


def test_a_transaction_that_the_node_lost_is_sent_again(new_anvil: Callable[..., DevChain]) -> None:
    """Dropped from the pool: the same bytes go out once more."""
    world = World(new_anvil())
    key = funded(world)
    world.rpc.call("evm_setAutomine", False)
    tx_hash = world.writer.submit(registration("ada"), key)
    assert world.rpc.call("anvil_dropTransaction", hexed(tx_hash)) == hexed(tx_hash)
    world.mine()
    assert world.writer.look(tx_hash) is None
    time.sleep(1.1)
    world.writer.tend()
    world.mine()
    assert world.writer.look(tx_hash) is not None


def test_a_transaction_that_a_reorg_took_back_is_sent_again(new_anvil: Callable[..., DevChain]) -> None:
    """Mined, taken back, and mined once more under the same hash; the user exists after all."""
    world = World(new_anvil())
    key = funded(world)
    world.mine(5)
    mined = world.writer.send(registration("ada"), key)
    world.mine(2)
    world.rpc.call("anvil_reorg", 4, [])
    view = world.view()
    view.sync()
    assert view.user_by_name("ada") is None
    assert world.writer.look(mined.tx_hash) is None
    time.sleep(1.1)
    world.writer.tend()
    again = world.writer.wait(mined.tx_hash)
    assert again.tx_hash == mined.tx_hash
    view.sync()
    assert view.user_by_name("ada") is not None


def test_what_is_deep_enough_is_no_longer_watched(new_anvil: Callable[..., DevChain]) -> None:
    """The list of transactions to look after does not grow for ever."""
    world = World(new_anvil())
    for name in ("ada", "bob"):
        world.writer.send(registration(name), funded(world))
    assert world.writer.watched == 2
    world.writer.tend()
    assert world.writer.watched == 2
    world.mine(13)
    world.writer.tend()
    assert world.writer.watched == 0


def test_a_lost_transaction_leaves_no_gap_for_the_next(new_anvil: Callable[..., DevChain]) -> None:
    """A nonce above a gap would wait silently, so the gap is filled first."""
    world = World(new_anvil())
    key = funded(world)
    world.rpc.call("evm_setAutomine", False)
    sponsor = Sponsor(world.writer, key)
    first = sponsor.submit(registration_for(world, "ada"))
    second = sponsor.submit(registration_for(world, "bob"))
    world.rpc.call("anvil_dropTransaction", hexed(second))
    world.rpc.call("anvil_dropTransaction", hexed(first))
    third = sponsor.submit(registration_for(world, "eve"))
    world.mine()
    for tx_hash in (first, second, third):
        assert world.writer.look(tx_hash) is not None


def registration_for(world: World, name: str) -> Call:
    """A newcomer's signed registration for somebody else to pay."""
    account, signer = new_secret(), new_secret()
    verifier, record = secrets.token_bytes(32), secrets.token_bytes(227)
    digest = typed_data.register_digest(
        world.network,
        name,
        address_of(account),
        verifier,
        b"kdf",
        NOBODY,
        address_of(signer),
        record,
        FAR,
    )
    return CALLS.register_for(
        address_of(account),
        name,
        verifier,
        b"kdf",
        NOBODY,
        address_of(signer),
        record,
        FAR,
        sign_digest(account, digest),
    )


def test_a_sponsor_pays_for_many_at_once_and_one_refusal_spoils_nothing(anvil: DevChain) -> None:
    """Sixteen threads, one key: every good registration is mined under a nonce of its own."""
    world = World(anvil)
    sponsor = Sponsor(world.writer, funded(world))
    before = sponsor.balance()
    submitted: list[bytes] = []
    failures: list[ChatchainError] = []

    def sponsor_one(name: str) -> None:
        call = registration_for(world, name)
        try:
            assert world.writer.estimate(call, address_of(sponsor.key)).wei > 0
            submitted.append(sponsor.submit(call))
        except ChatchainError as failure:
            failures.append(failure)

    names = [f"user-{number}" for number in range(15)] + ["admin"]
    threads = [threading.Thread(target=sponsor_one, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [type(failure) for failure in failures] == [NameUnavailable]
    for tx_hash in submitted:
        world.writer.wait(tx_hash)
    view = world.view()
    view.sync()
    assert all(view.user_by_name(name) for name in names[:-1])
    assert sponsor.balance() < before


def test_another_program_with_the_same_key_costs_a_retry_only(anvil: DevChain) -> None:
    """Two writers that do not know of each other alternate."""
    world = World(anvil)
    key = funded(world)
    other = Sponsor(ChainWriter(Endpoints([anvil.url]), world.network), key)
    ours = Sponsor(world.writer, key)
    for number in range(6):
        sponsor = (ours, other)[number % 2]
        world.writer.wait(sponsor.submit(registration_for(world, f"user-{number}")))
    assert nonce(world, key) == 6


def test_a_place_taken_by_a_foreign_transaction_is_told(new_anvil: Callable[..., DevChain]) -> None:
    """When somebody else's transaction used the nonce, ours can never be mined, and waiting ends."""
    world = World(new_anvil())
    key = funded(world)
    world.rpc.call("evm_setAutomine", False)
    ours = world.writer.submit(registration("ada"), key)
    world.rpc.call("anvil_dropTransaction", hexed(ours))
    ChainWriter(world.endpoints, world.network).submit(registration("bob"), key)
    world.mine()
    (sent,) = world.writer._watched.values()
    time.sleep(1.1)
    with pytest.raises(Reverted, match="took the place"):
        world.writer._tend_one(sent)
    assert world.writer.watched == 0


def test_a_transaction_that_fails_when_mined_is_explained(new_anvil: Callable[..., DevChain]) -> None:
    """Two of the same name in one block: both passed the trial, and the second learns why it failed."""
    world = World(new_anvil())
    world.rpc.call("evm_setAutomine", False)
    hashes = [world.writer.submit(registration("ada"), funded(world))]
    world.rpc.call("anvil_dropTransaction", hexed(hashes[0]))  # the trial sees what waits in the pool
    hashes.append(world.writer.submit(registration("ada"), funded(world)))
    time.sleep(1.1)
    world.writer.tend()
    world.mine()
    outcomes: list[object] = []
    for tx_hash in hashes:
        try:
            outcomes.append(type(world.writer.look(tx_hash)).__name__)
        except NameUnavailable as failure:
            outcomes.append(failure.message)
    assert sorted(str(outcome) for outcome in outcomes) == ["Mined", "The name ada is taken."]
    world.mine(13)
    world.writer.tend()
    assert world.writer.watched == 0


def test_a_vote_that_turns_out_to_decide_has_gas_enough(new_anvil: Callable[..., DevChain]) -> None:
    """Two votes in one block: the second executes the proposal although its trial did not."""
    world = World(new_anvil())
    ada, bob, eve, dan = (world.register(name) for name in ("ada", "bob", "eve", "dan"))
    world.seat(ada, bob, eve)
    world.send(dan, CALLS.request(0))
    world.rpc.call("evm_setAutomine", False)
    hashes = [world.writer.submit(CALLS.vote(ProposalId(1), True), person.key) for person in (ada, bob)]
    world.mine()
    for tx_hash in hashes:
        assert world.writer.look(tx_hash) is not None
    view = world.view()
    view.sync()
    assert world.uid(dan) in {member.uid for member in view.group().members}


def test_a_device_may_vote_by_signature_through_a_sponsor(anvil: DevChain) -> None:
    """The EIP-712 digests of identity are those that the contracts check."""
    world = World(anvil)
    ada, bob = world.register("ada"), world.register("bob")
    world.seat(ada)
    sponsor = Sponsor(world.writer, funded(world))
    digest = typed_data.request_digest(world.network, "network", world.uid(bob), 0, FAR)
    world.writer.wait(
        sponsor.submit(CALLS.request_for(0, address_of(bob.signer), FAR, sign_digest(bob.signer, digest)))
    )
    digest = typed_data.vote_digest(world.network, ProposalId(1), world.uid(ada), 0, True)
    ballot = CALLS.vote_by_sig(ProposalId(1), True, address_of(ada.signer), sign_digest(ada.signer, digest))
    world.writer.wait(sponsor.submit(ballot))
    with pytest.raises(VotingClosed):
        sponsor.submit(ballot)
    view = world.view()
    view.sync()
    assert len(view.group().members) == 2


def test_a_transaction_goes_to_every_endpoint_and_one_that_is_down_does_not_matter(anvil: DevChain) -> None:
    """Whichever answers carries it."""
    world = World(anvil)
    with proxy(anvil.port) as second:
        dead = f"http://127.0.0.1:{free_port()}"
        writer = ChainWriter(Endpoints([dead, anvil.url, second.url]), world.network)
        writer.send(registration("ada"), funded(world))
        assert "eth_sendRawTransaction" in second.methods
    writer = ChainWriter(Endpoints([dead]), world.network)
    with pytest.raises(ChainUnreachable):
        writer.send(registration("bob"), new_secret())


def test_a_call_to_no_contract_of_ours_is_refused(anvil: DevChain) -> None:
    """Before anything is signed."""
    world = World(anvil)
    with pytest.raises(ChainError, match="no contract called"):
        world.writer.send(Call("bank", b"\0\0\0\0"), new_secret())


def test_too_many_unmined_transactions_are_refused(
    new_anvil: Callable[..., DevChain], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sponsor's list of open transactions is bounded."""
    monkeypatch.setattr("chatchain.chain.writer.MAX_WATCHED", 2)
    world = World(new_anvil())
    key = funded(world)
    world.rpc.call("evm_setAutomine", False)
    for name in ("ada", "bob"):
        world.writer.submit(registration_for(world, name), key)
    with pytest.raises(LimitReached) as caught:
        world.writer.submit(registration_for(world, "eve"), key)
    assert caught.value.retry_after_ms > 0
    assert world.writer.balance(address_of(key)) == ETHER


# --- wallets that are contracts: their code judges signatures, and runs at the sponsor's expense ---

AGREES = bytes.fromhex("631626ba7e60e01b5f5260205ff3")
"""Code that accepts every signature (ERC-1271)."""

BURNS = bytes.fromhex("5b620493e05a11600057") + AGREES
"""The same, after it has burnt whatever gas it was given but the 300,000 last."""


def wallet(world: World, code: bytes) -> tuple[str, Call]:
    """A contract, and a call that registers it."""
    account = secrets.token_bytes(20)
    world.rpc.call("anvil_setCode", hexed(account), hexed(code))
    name, signer = f"w{account.hex()[:16]}", address_of(new_secret())
    call = CALLS.register_for(
        Address(account), name, secrets.token_bytes(32), b"kdf", NOBODY, signer, bytes(227), FAR, b""
    )
    return hexed(account), call


def test_f3_a_wallet_that_changes_its_mind_costs_no_more_than_was_booked(anvil: DevChain) -> None:
    """It takes little gas when it is asked, and all that it gets when the transaction is mined."""
    world = World(anvil)
    key = funded(world)
    account, call = wallet(world, AGREES)
    cost = world.writer.estimate(call, address_of(key), 1_000_000)
    assert cost.limit <= 1_000_000
    world.rpc.call("anvil_setCode", account, hexed(BURNS))
    before = world.writer.balance(address_of(key))
    tx_hash = world.writer.submit(call, key, cost)
    with contextlib.suppress(ChatchainError):
        world.writer.wait(tx_hash)
    receipt: Any = world.rpc.call("eth_getTransactionReceipt", hexed(tx_hash))
    assert cost.gas < quantity(receipt["gasUsed"]) <= cost.limit
    assert before - world.writer.balance(address_of(key)) <= cost.wei


def test_f3_fees_are_raised_within_what_is_allowed_only(new_anvil: Callable[..., DevChain]) -> None:
    """A stuck transaction stays as it is until somebody agrees to pay more, and is asked about once."""
    world = World(new_anvil())
    key = funded(world)
    writer = ChainWriter(world.endpoints, world.network, stuck=0.0)
    world.rpc.call("evm_setAutomine", False)
    call = registration("ada")
    cost = writer.estimate(call, address_of(key))
    tx_hash = writer.submit(call, key, cost)
    asked: list[int] = []

    def refuse(submitted: bytes, wei: int) -> bool:
        assert submitted == tx_hash
        asked.append(wei)
        return False

    writer.tend(refuse)
    waiting: Any = world.rpc.call("eth_getTransactionByHash", hexed(tx_hash))
    assert quantity(waiting["maxFeePerGas"]) == cost.fee
    writer.tend(lambda submitted, wei: not refuse(submitted, wei))
    assert asked[0] == asked[1] > 0
    world.mine()
    block: Any = world.rpc.call("eth_getBlockByNumber", "latest", True)
    (mined,) = block["transactions"]
    paid = quantity(mined["maxFeePerGas"]) * quantity(mined["gas"])
    assert paid == cost.wei + asked[1]


def test_f4_a_node_is_not_made_to_run_more_gas_than_is_paid_for(anvil: DevChain) -> None:
    """The limit goes with the question, and a call beyond it is refused in a sentence."""
    world = World(anvil)
    key = funded(world)
    asked: list[Any] = []

    def note(method: str, params: list[Any], _: dict[str, Any]) -> None:
        if method == "eth_estimateGas":
            asked.append(params[0].get("gas"))

    account, _ = wallet(world, BURNS)
    with proxy(anvil.port, note) as endpoint:
        writer = ChainWriter(Endpoints([endpoint.url]), world.network)
        assert writer.has_code(Address(bytes.fromhex(account[2:])))
        assert not writer.has_code(Address(address_of(key)))
        writer.estimate(registration_for(world, "ada"), address_of(key), 1_000_000)
        with pytest.raises(RefusedError, match="more than 100000 gas"):
            writer.estimate(registration_for(world, "bob"), address_of(key), 100_000)
    assert asked == [hex(1_000_000), hex(100_000)]
