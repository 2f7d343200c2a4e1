"""Many calls of one sponsor on a real Anvil: few round trips, own outcomes, no gap among the nonces."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from chatchain.chain.rpc import Endpoints, hexed, quantity
from chatchain.chain.trial import Candidate
from chatchain.chain.writer import ChainWriter
from chatchain.errors import ChatchainError, NameUnavailable, NoEther, RefusedError, VerificationError
from chatchain.identity import typed_data
from chatchain.identity.keys import NOBODY, address_of, new_secret, sign_digest
from chatchain.model import Address, Call, Cost, Outcome
from tests.chain.proxy import proxy
from tests.chain.world import ETHER, FAR, World
from tests.fixtures.chains import DevChain

MOST: Final = 1_000_000
"""Gas that a sponsor would pay for."""


def newcomer(world: World, name: str, *, forged: bool = False) -> Call:
    """A registration with the signature of its account, or of somebody else."""
    key, signer = new_secret(), address_of(new_secret())
    account, verifier, record = address_of(key), secrets.token_bytes(32), secrets.token_bytes(227)
    values = (name, account, verifier, b"kdf", NOBODY, signer, record, FAR)
    digest = typed_data.register_digest(world.network, *values)
    signature = sign_digest(new_secret() if forged else key, digest)
    return world.calls.register_for(account, name, verifier, b"kdf", NOBODY, signer, record, FAR, signature)


def purse(world: World, wei: int = ETHER) -> tuple[bytes, Address]:
    key = new_secret()
    world.fund(address_of(key), wei)
    return key, address_of(key)


def nonce(world: World, account: Address) -> int:
    return quantity(world.rpc.call("eth_getTransactionCount", hexed(account), "latest"))


def tried(world: World, batch: list[Call], sponsor: Address, most: int = MOST) -> list[Cost | ChatchainError]:
    return world.writer.estimate_all([Candidate(call, most) for call in batch], sponsor)


def costs(world: World, batch: list[Call], sponsor: Address) -> list[tuple[Call, Cost]]:
    """The calls that would pass, each with its cost."""
    return [
        (call, cost)
        for call, cost in zip(batch, tried(world, batch, sponsor), strict=True)
        if not isinstance(cost, ChatchainError)
    ]


def told(world: World, count: int) -> list[Outcome]:
    """The outcomes of so many transactions, as they are mined."""
    outcomes: list[Outcome] = []
    while len(outcomes) < count:
        outcomes += world.writer.tend()
        time.sleep(0.02)
    return outcomes


def test_each_call_of_a_batch_has_its_own_outcome(anvil: DevChain) -> None:
    """A taken name and a forged signature are told by themselves; the others are priced and mined."""
    world = World(anvil)
    world.register("ada")
    key, sponsor = purse(world)
    batch = [newcomer(world, name) for name in ("bob", "ada", "eve", "fay")]
    batch.insert(2, newcomer(world, "mal", forged=True))
    kinds = [type(cost) for cost in tried(world, batch, sponsor)]
    assert kinds == [Cost, NameUnavailable, VerificationError, Cost, Cost]
    for tx_hash in world.writer.submit_all(costs(world, batch, sponsor), key):
        assert isinstance(tx_hash, bytes)
        world.writer.wait(tx_hash)
    assert nonce(world, sponsor) == 3
    view = world.view()
    view.sync()
    assert all(view.user_by_name(name) is not None for name in ("bob", "eve", "fay"))
    assert view.user_by_name("mal") is None


def test_the_first_of_its_kind_may_be_the_bad_one(anvil: DevChain) -> None:
    """The others are then measured one by one."""
    world = World(anvil)
    _, sponsor = purse(world)
    batch = [newcomer(world, "mal", forged=True), newcomer(world, "bob"), newcomer(world, "eve")]
    first, second, third = tried(world, batch, sponsor)
    assert isinstance(first, VerificationError)
    for cost in (second, third):
        assert isinstance(cost, Cost)
        assert 150_000 < cost.gas < 400_000
        assert cost.limit <= MOST


def test_no_call_of_a_batch_runs_with_more_gas_than_is_paid_for(anvil: DevChain) -> None:
    """Every question carries a limit, and a call beyond it is refused by itself."""
    world = World(anvil)
    _, sponsor = purse(world)
    asked: list[tuple[str, int]] = []

    def note(method: str, params: list[Any], _: dict[str, Any]) -> None:
        if method in ("eth_estimateGas", "eth_call"):
            asked.append((method, quantity(params[0]["gas"])))

    with proxy(anvil.port, note) as endpoint:
        writer = ChainWriter(Endpoints([endpoint.url]), world.network)
        batch = [newcomer(world, "bob"), newcomer(world, "mal", forged=True), newcomer(world, "eve")]
        good, forged, other = writer.estimate_all([Candidate(call, MOST) for call in batch], sponsor)
        refused = writer.estimate_all([Candidate(call, 100_000) for call in batch[:1]], sponsor)
    assert isinstance(good, Cost)
    assert isinstance(other, Cost)
    assert isinstance(forged, VerificationError)
    assert isinstance(refused[0], RefusedError)
    assert "more than 100000 gas" in refused[0].message
    assert {method for method, _ in asked} == {"eth_estimateGas", "eth_call"}
    assert max(gas for _, gas in asked) == MOST
    # One is measured, two run once with what it would be given, and the one that fails is measured itself.
    assert [method for method, _ in asked] == [
        "eth_estimateGas",
        "eth_call",
        "eth_call",
        "eth_estimateGas",
        "eth_estimateGas",
    ]
    assert [gas for method, gas in asked if method == "eth_call"] == [good.limit] * 2


def test_no_node_talks_an_account_out_of_its_ether(anvil: DevChain) -> None:
    """What it calls a usual tip would be paid to whoever makes the block."""
    world = World(anvil)
    _, sponsor = purse(world)

    def dear(method: str, _: list[Any], told: dict[str, Any]) -> dict[str, Any] | None:
        return told | {"result": hex(10**15)} if method == "eth_maxPriorityFeePerGas" else None

    with proxy(anvil.port, dear) as liar:
        cost = ChainWriter(Endpoints([liar.url]), world.network).estimate(newcomer(world, "bob"), sponsor)
    assert cost.tip == 100 * 10**9
    assert cost.wei < 10**17


def test_what_a_node_refuses_leaves_no_gap(anvil: DevChain) -> None:
    """The nonce of the refused transaction is used up, so that those above it are mined."""
    world = World(anvil)
    key, sponsor = purse(world)
    batch = costs(world, [newcomer(world, name) for name in ("bob", "eve", "fay")], sponsor)
    poisoned = msgspec.structs.replace(
        batch[1][1], limit=2**40
    )  # more than a block holds: a node refuses it at once
    batch[1] = (batch[1][0], poisoned)
    first, second, third = world.writer.submit_all(batch, key)
    assert isinstance(second, ChatchainError)
    for tx_hash in (first, third):
        assert isinstance(tx_hash, bytes)
        world.writer.wait(tx_hash)
    assert nonce(world, sponsor) == 3
    view = world.view()
    view.sync()
    assert [view.user_by_name(name) is not None for name in ("bob", "eve", "fay")] == [True, False, True]


def test_a_purse_pays_as_far_as_it_reaches(anvil: DevChain) -> None:
    """The calls that it cannot pay for are told so; those before are sent, and a later batch goes on."""
    world = World(anvil)
    price = quantity(world.rpc.call("eth_gasPrice"))
    key, sponsor = purse(world, 600_000 * price)
    batch = [newcomer(world, name) for name in ("bob", "eve", "fay", "gus")]
    first, *_, last = tried(world, batch, sponsor)
    assert isinstance(first, Cost)
    assert isinstance(last, NoEther)
    for tx_hash in world.writer.submit_all(costs(world, batch, sponsor), key):
        assert isinstance(tx_hash, bytes)
        world.writer.wait(tx_hash)
    world.fund(sponsor)
    (late,) = world.writer.submit_all(costs(world, batch[-1:], sponsor), key)
    assert isinstance(late, bytes)
    world.writer.wait(late)


def test_two_batches_in_a_row_do_not_share_a_nonce(anvil: DevChain) -> None:
    """What is on its way counts, whether or not it is mined; each newcomer is registered once."""
    world = World(anvil)
    key, sponsor = purse(world)
    count = 0
    for _ in range(2):
        batch = [newcomer(world, f"user-{count + step}") for step in range(20)]
        count += len(batch)
        for tx_hash in world.writer.submit_all(costs(world, batch, sponsor), key):
            assert isinstance(tx_hash, bytes)
    outcomes = told(world, count)
    assert [outcome.failure for outcome in outcomes] == [None] * count
    assert nonce(world, sponsor) == count
    view = world.view()
    view.sync()
    assert all(view.user_by_name(f"user-{number}") is not None for number in range(count))


def test_what_was_paid_is_told_once(anvil: DevChain) -> None:
    """The wei of the outcomes are what left the purse, also for one that failed when it was mined."""
    world = World(anvil)
    key, sponsor = purse(world)
    batch = [newcomer(world, "bob"), newcomer(world, "eve"), newcomer(world, "bob")]
    submitted = world.writer.submit_all(costs(world, batch, sponsor), key)
    outcomes = {outcome.submitted: outcome for outcome in told(world, 3)}
    assert set(outcomes) == set(submitted)
    assert sum(outcome.wei for outcome in outcomes.values()) == ETHER - world.writer.balance(sponsor)
    lost = outcomes[submitted[2]]  # type: ignore[index]  # a hash, as the line above has shown
    assert isinstance(lost.failure, NameUnavailable)
    assert lost.wei > 0
    assert world.writer.tend() == []


def test_a_replaced_transaction_is_followed_to_the_one_that_was_mined(
    new_anvil: Callable[..., DevChain],
) -> None:
    """Whoever was told the first hash learns the latest, and which was mined."""
    world = World(new_anvil())
    key, sponsor = purse(world)
    writer = ChainWriter(world.endpoints, world.network, stuck=0.0)
    (cost,) = writer.estimate_all([Candidate(newcomer(world, "bob"), MOST)], sponsor)
    world.rpc.call("evm_setAutomine", False)
    assert isinstance(cost, Cost)
    (first,) = writer.submit_all([(newcomer(world, "bob"), cost)], key)
    assert isinstance(first, bytes)
    assert writer.follow(first) == first
    assert writer.tend() == []
    second = writer.follow(first)
    assert second != first
    world.mine()
    (outcome,) = writer.tend()
    assert (outcome.submitted, outcome.mined, outcome.failure) == (first, second, None)
    assert writer.look(first) is None
    assert writer.look(second) is not None
    world.mine(13)
    writer.tend()
    assert writer.watched == 0
    assert writer.follow(first) == first  # settled: whoever wants to know it later remembers it


def test_a_batch_that_a_reorg_took_back_is_sent_again(new_anvil: Callable[..., DevChain]) -> None:
    """The whole of it, and its outcomes are told no second time."""
    world = World(new_anvil())
    key, sponsor = purse(world)
    world.mine(3)
    before = quantity(world.rpc.call("eth_blockNumber"))
    names = [f"user-{number}" for number in range(4)]
    batch = costs(world, [newcomer(world, name) for name in names], sponsor)
    world.writer.submit_all(batch, key)
    told(world, 4)
    world.rpc.call("anvil_reorg", quantity(world.rpc.call("eth_blockNumber")) - before + 1, [])
    view = world.view()
    view.sync()
    assert view.user_by_name(names[0]) is None
    time.sleep(1.1)
    assert world.writer.tend() == []
    world.mine()
    assert world.writer.tend() == []
    view.sync()
    assert all(view.user_by_name(name) is not None for name in names)
    world.mine(13)
    world.writer.tend()
    assert world.writer.watched == 0
