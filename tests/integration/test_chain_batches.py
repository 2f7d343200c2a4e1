"""Many calls of one sponsor on a real Anvil: few round trips, own outcomes, no gap among the nonces."""

from __future__ import annotations

import secrets
from typing import Any

from chatchain.chain.rpc import hexed, quantity
from chatchain.errors import ChatchainError, NameUnavailable, NoEther, VerificationError
from chatchain.identity import typed_data
from chatchain.identity.keys import NOBODY, address_of, new_secret, sign_digest
from chatchain.model import Address, Call
from tests.chain.proxy import proxy
from tests.chain.world import ETHER, FAR, World
from tests.fixtures.chains import DevChain


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


def test_each_call_of_a_batch_has_its_own_outcome(anvil: DevChain) -> None:
    """A taken name and a forged signature are told by themselves; the others are priced and mined."""
    world = World(anvil)
    world.register("ada")
    key, sponsor = purse(world)
    batch = [newcomer(world, name) for name in ("bob", "ada", "eve", "fay")]
    batch.insert(2, newcomer(world, "mal", forged=True))
    costs = world.writer.estimate_all(batch, sponsor)
    kinds = [type(cost) if isinstance(cost, ChatchainError) else int for cost in costs]
    assert kinds == [int, NameUnavailable, VerificationError, int, int]
    good = [
        (call, cost.gas)
        for call, cost in zip(batch, costs, strict=True)
        if not isinstance(cost, ChatchainError)
    ]
    for told in world.writer.submit_all(good, key):
        assert isinstance(told, bytes)
        world.writer.wait(told)
    assert nonce(world, sponsor) == 3
    view = world.view()
    view.sync()
    assert all(view.user_by_name(name) is not None for name in ("bob", "eve", "fay"))
    assert view.user_by_name("mal") is None
    world.writer.tend()


def test_the_first_of_its_kind_may_be_the_bad_one(anvil: DevChain) -> None:
    """The measure is then taken from the next that succeeds."""
    world = World(anvil)
    _, sponsor = purse(world)
    batch = [newcomer(world, "mal", forged=True), newcomer(world, "bob"), newcomer(world, "eve")]
    first, second, third = world.writer.estimate_all(batch, sponsor)
    assert isinstance(first, VerificationError)
    assert not isinstance(second, ChatchainError)
    assert second == third
    assert 150_000 < second.gas < 400_000
    assert second.wei > second.gas


def test_what_a_node_refuses_leaves_no_gap(anvil: DevChain) -> None:
    """The nonce of the refused transaction is used up, so that those above it are mined."""
    world = World(anvil)
    key, sponsor = purse(world)
    refused: list[int] = []

    def refuse_the_second(method: str, params: list[Any], response: dict[str, Any]) -> dict[str, Any] | None:
        if method != "eth_sendRawTransaction":
            return None
        refused.append(1)
        if len(refused) != 2:
            return None
        return {"jsonrpc": "2.0", "id": response["id"], "error": {"code": -32000, "message": "pool is full"}}

    # The proxy asks the node first, so there the transaction is in: the answer alone is bent, and the
    # filler then finds its nonce in use. What matters is that each outcome stays with its call.
    with proxy(anvil.port, refuse_the_second) as endpoint:
        from chatchain.chain.rpc import Endpoints
        from chatchain.chain.writer import ChainWriter

        writer = ChainWriter(Endpoints([endpoint.url]), world.network)
        batch = [(newcomer(world, name), 250_000) for name in ("bob", "eve", "fay")]
        first, second, third = writer.submit_all(batch, key)
        assert isinstance(first, bytes)
        assert isinstance(second, ChatchainError)
        assert "pool is full" in second.message
        assert isinstance(third, bytes)
        writer.wait(first)
        writer.wait(third)
    assert nonce(world, sponsor) == 3


def test_a_purse_pays_as_far_as_it_reaches(anvil: DevChain) -> None:
    """The calls that it cannot pay for are told so; those before are sent, and a later batch goes on."""
    world = World(anvil)
    price = quantity(world.rpc.call("eth_gasPrice"))
    key, sponsor = purse(world, 600_000 * price)
    batch = [(newcomer(world, name), 240_000) for name in ("bob", "eve", "fay", "gus")]
    outcomes = world.writer.submit_all(batch, key)
    assert isinstance(outcomes[0], bytes)
    assert isinstance(outcomes[-1], NoEther)
    for told in outcomes:
        if isinstance(told, bytes):
            world.writer.wait(told)
    world.fund(sponsor)
    (told,) = world.writer.submit_all(batch[-1:], key)
    assert isinstance(told, bytes)
    world.writer.wait(told)


def test_two_batches_in_a_row_do_not_share_a_nonce(anvil: DevChain) -> None:
    """What is on its way counts, whether or not it is mined; each newcomer is registered once."""
    world = World(anvil)
    key, sponsor = purse(world)
    count = 0
    for _ in range(2):
        batch = [(newcomer(world, f"user-{count + step}"), 250_000) for step in range(20)]
        count += len(batch)
        for told in world.writer.submit_all(batch, key):
            assert isinstance(told, bytes)
            world.writer.wait(told)
    assert nonce(world, sponsor) == count
    view = world.view()
    view.sync()
    assert all(view.user_by_name(f"user-{number}") is not None for number in range(count))
