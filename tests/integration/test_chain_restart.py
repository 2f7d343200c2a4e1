"""A sponsor whose process ends at the worst moment, and one whose only endpoint does not tell the truth."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from chatchain.chain.rpc import Endpoints, hexed, quantity
from chatchain.chain.writer import MOST_RAISES, STUCK, ChainWriter
from chatchain.errors import ChatchainError, SponsorUnavailable
from chatchain.identity import typed_data
from chatchain.identity.keys import NOBODY, address_of, new_secret, sign_digest
from chatchain.model import GWEI, Call
from chatchain.programs.purse import Purse
from chatchain.relay.spending import DAY, HOUR, Spending
from chatchain.relay.sponsor import STALLED, Order, Paid, Sponsor, SponsorLimits
from chatchain.store.server import ServerStore
from chatchain.transport import dial
from chatchain.wire.messages import Sponsored
from tests.chain.proxy import proxy
from tests.chain.world import ETHER, FAR, World
from tests.fixtures.chains import DevChain
from tests.integration.faults.load import health
from tests.relay import stage as stages


class Stage:
    """A chain that mines when it is told to, an endpoint before it that may lie, and a relay's processes, one
    after the other.
    """

    def __init__(self, chain: DevChain, folder: Path, stack: ExitStack) -> None:
        self.world = World(chain)
        self.lie: Callable[[str, list[Any], dict[str, Any]], dict[str, Any] | None] | None = None
        self.url = stack.enter_context(proxy(chain.port, self._bend)).url
        self.key = new_secret()
        self.account = address_of(self.key)
        self.world.fund(self.account, 100 * ETHER)
        self.world.rpc.call("evm_setAutomine", False)
        self.database = f"sqlite:///{folder / 'relay.db'}"
        self.now = 0.0
        self.stores: list[ServerStore] = []
        self.begin()

    def _bend(self, method: str, parameters: list[Any], told: dict[str, Any]) -> dict[str, Any] | None:
        return self.lie(method, parameters, told) if self.lie is not None else None

    def begin(self) -> None:
        """Another process takes the place of the one before, which has no time to say anything."""
        store = ServerStore(self.database)
        store.migrate()
        self.stores.append(store)
        endpoints = Endpoints([self.url])
        purse = Purse(endpoints, self.world.network, self.key)
        purse._writer = ChainWriter(endpoints, self.world.network, clock=lambda: self.now)
        spending = Spending(store.sponsoring, time.time, wei_per_hour=10 * ETHER, wei_per_day=10 * ETHER)
        self.sponsor = Sponsor(purse, spending, SponsorLimits(), self.now)

    def pay(self, call: Call) -> Paid | ChatchainError:
        (paid,) = self.sponsor.pay_all([Order(call)], self.now)
        return paid

    def tend(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.sponsor.tend(self.now)

    def booked(self) -> int:
        """Gwei that count for the day."""
        told: list[int] = []

        def judge(_hour: int, day: int, *_: int) -> list[Any]:
            told.append(day)
            return []

        self.stores[-1].sponsoring.book(int(time.time() // 15), HOUR, DAY, judge)
        return told[0]

    def spent(self) -> int:
        """Gwei that the account has paid, as the booking rounds them."""
        return -(-(100 * ETHER - self.world.writer.balance(self.account)) // GWEI)

    def nonce(self) -> int:
        return quantity(self.world.rpc.call("eth_getTransactionCount", hexed(self.account), "latest"))

    def newcomer(self, name: str) -> Call:
        key, signer = new_secret(), address_of(new_secret())
        values = (name, address_of(key), secrets.token_bytes(32), b"kdf", NOBODY, signer)
        record = secrets.token_bytes(227)
        digest = typed_data.register_digest(self.world.network, *values, record, FAR)
        name, account, verifier, kdf, recovery, _ = values
        return self.world.calls.register_for(
            account, name, verifier, kdf, recovery, signer, record, FAR, sign_digest(key, digest)
        )

    def registered(self, name: str) -> bool:
        view = self.world.view()
        view.sync()
        return view.user_by_name(name) is not None


@pytest.fixture
def stage(new_anvil: Callable[..., DevChain], tmp_path: Path) -> Iterator[Stage]:
    """With a first process."""
    with ExitStack() as stack:
        made = Stage(new_anvil(), tmp_path, stack)
        yield made
        for store in made.stores:
            store.close()


@pytest.mark.parametrize("known", [True, False], ids=["in the pool", "lost"])
def test_what_one_process_sent_the_next_sees_through(stage: Stage, known: bool) -> None:
    """Also what no node has any more; it is mined once, whoever asks again is told so, and what it did not
    use is given back.
    """
    call = stage.newcomer("ada")
    paid = stage.pay(call)
    assert isinstance(paid, Paid)
    booked = stage.booked()
    if not known:
        stage.world.rpc.call("anvil_dropTransaction", hexed(paid.tx_hash))
    stage.begin()
    stage.tend(2.0)
    assert stage.booked() == booked
    assert stage.pay(call) == paid
    stage.world.mine()
    assert stage.registered("ada")
    stage.tend()
    assert (stage.nonce(), stage.booked()) == (1, stage.spent())
    assert stage.sponsor.unsettled == 0
    stage.begin()
    stage.tend()
    assert stage.booked() == stage.spent()


def test_what_was_mined_meanwhile_is_settled_at_the_next_start(stage: Stage) -> None:
    """Nobody was there to see it."""
    assert isinstance(stage.pay(stage.newcomer("ada")), Paid)
    stage.world.mine()
    stage.begin()
    stage.tend()
    assert stage.booked() == stage.spent() > 0


def test_a_better_price_is_known_to_the_next_process(stage: Stage) -> None:
    """Whichever version is mined, it is found, and all that was booked for it is settled."""
    paid = stage.pay(stage.newcomer("ada"))
    assert isinstance(paid, Paid)
    stage.tend(STUCK)
    stage.begin()
    stage.tend(2.0)
    (bill,) = stage.sponsor._bills
    assert bill == paid.tx_hash
    assert stage.sponsor._payer.follow(paid.tx_hash) != paid.tx_hash
    stage.world.mine()
    stage.tend()
    assert stage.registered("ada")
    assert stage.booked() == stage.spent() > 0


def test_a_node_that_mines_nothing_costs_a_bounded_sum_and_no_more_calls(stage: Stage) -> None:
    """Prices are raised so often and no further; after five minutes the sponsor says why it does not pay, and
    goes on by itself once something is mined.
    """
    paid = stage.pay(stage.newcomer("ada"))
    assert isinstance(paid, Paid)
    first = stage.booked()
    for _ in range(3 * MOST_RAISES):
        stage.tend(STUCK)
    assert first < stage.booked() < 16 * first
    assert stage.sponsor.stalled(stage.now)
    before = stage.booked()
    late = stage.newcomer("bob")
    refusal = stage.pay(late)
    assert isinstance(refusal, SponsorUnavailable)
    assert refusal.hint
    assert refusal.retry_after_ms > 0
    assert stage.booked() == before
    stage.world.mine()
    stage.tend(1.0)
    assert not stage.sponsor.stalled(stage.now)
    assert stage.booked() == stage.spent()
    assert isinstance(stage.pay(late), Paid)
    stage.world.mine()
    stage.tend(1.0)
    assert stage.registered("bob")


def test_a_wrong_nonce_is_mended_once_the_node_tells_the_right_one(stage: Stage) -> None:
    """Above a gap nothing is ever mined: what waits there is signed anew, in its order, and mined once."""

    def lie(method: str, parameters: list[Any], told: dict[str, Any]) -> dict[str, Any] | None:
        if method != "eth_getTransactionCount":
            return None
        return told | {"result": hex(quantity(told["result"]) + 1_000)}

    stage.lie = lie
    for name in ("ada", "bob"):
        assert isinstance(stage.pay(stage.newcomer(name)), Paid)
    stage.world.mine()
    for _ in range(int(STALLED // STUCK) + 1):
        stage.tend(STUCK)
    assert stage.nonce() == 0
    assert stage.sponsor.stalled(stage.now)
    stage.lie = None
    stage.tend(STUCK)
    stage.world.mine()
    stage.tend(1.0)
    assert not stage.sponsor.stalled(stage.now)
    assert stage.sponsor.unsettled == 0
    assert stage.nonce() == 2
    assert stage.registered("ada")
    assert stage.registered("bob")
    assert stage.booked() - stage.spent() in (0, 1), "each is rounded up by itself"


def test_receipts_that_never_come_are_a_stall_and_nothing_is_sent_twice(stage: Stage) -> None:
    """The node takes everything, mines it and does not say so."""

    def lie(method: str, parameters: list[Any], told: dict[str, Any]) -> dict[str, Any] | None:
        if method == "eth_getTransactionReceipt":
            return told | {"result": None}
        if method == "eth_sendRawTransaction" and "error" in told:  # the nonce is used
            return {"id": told["id"], "jsonrpc": "2.0", "result": hexed(bytes(32))}
        return None

    call = stage.newcomer("ada")
    assert isinstance(stage.pay(call), Paid)
    stage.world.mine()
    stage.lie = lie
    for _ in range(int(STALLED // STUCK) + 2):
        stage.tend(STUCK)
    assert stage.sponsor.stalled(stage.now)
    assert isinstance(stage.pay(stage.newcomer("bob")), SponsorUnavailable)
    stage.lie = None
    stage.tend(1.0)
    assert not stage.sponsor.stalled(stage.now)
    assert (stage.nonce(), stage.booked()) == (1, stage.spent())


def test_an_absurd_price_is_refused_as_the_node_s_fault(stage: Stage) -> None:
    """It books nothing, and with a price of this world the same call passes."""

    def lie(method: str, parameters: list[Any], told: dict[str, Any]) -> dict[str, Any] | None:
        if method != "eth_getBlockByNumber" or not isinstance(told.get("result"), dict):
            return None
        return told | {"result": told["result"] | {"baseFeePerGas": hex(10**9 * GWEI)}}

    call = stage.newcomer("ada")
    stage.world.rpc.call("anvil_setBalance", hexed(stage.account), hex(10**15 * ETHER))
    stage.lie = lie
    refusal = stage.pay(call)
    assert isinstance(refusal, SponsorUnavailable)
    assert stage.booked() == 0
    stage.lie = None
    assert isinstance(stage.pay(call), Paid)


def test_what_no_node_has_answered_may_have_arrived(stage: Stage) -> None:
    """The connection broke while it was sent: it stays booked and is sent again, and is mined once."""

    def lie(method: str, parameters: list[Any], told: dict[str, Any]) -> dict[str, Any] | None:
        return {"nonsense": True} if method == "eth_sendRawTransaction" else None

    call = stage.newcomer("ada")
    stage.lie = lie
    paid = stage.pay(call)
    assert isinstance(paid, Paid)
    assert stage.booked() > 0
    stage.lie = None
    stage.tend(2.0)
    assert stage.pay(call) == paid
    stage.world.mine()
    stage.tend()
    assert (stage.nonce(), stage.booked()) == (1, stage.spent())
    assert stage.registered("ada")


def test_of_two_processes_that_signed_for_one_nonce_each_is_settled(stage: Stage) -> None:
    """The first was killed before it sent; its nonce went to another call before anybody took it over."""
    call = stage.newcomer("ada")
    assert isinstance(stage.pay(call), Paid)
    stage.world.rpc.call("anvil_dropAllTransactions")  # as if it never had been sent
    stage.begin()
    assert isinstance(stage.pay(stage.newcomer("bob")), Paid)
    stage.tend()
    assert stage.sponsor.unsettled == 1
    assert isinstance(stage.pay(call), Paid)
    stage.world.mine()
    stage.tend()
    assert stage.nonce() == 2
    assert stage.booked() - stage.spent() in (0, 1), "each is rounded up by itself"
    assert stage.registered("ada")
    assert stage.registered("bob")


async def test_a_relay_that_is_killed_leaves_nothing_booked_for_nothing(
    new_anvil: Callable[..., DevChain], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The program itself, with what it had sent on its way."""
    folder = tmp_path_factory.mktemp("killed")
    relay = stages.Stage(new_anvil(), folder, f"sqlite:///{folder / 'relay.db'}")
    relay.start()
    rpc, sponsor = relay.world.rpc, address_of(bytes.fromhex(relay.world.chain.keys[1][2:]))
    before = relay.world.writer.balance(sponsor)
    rpc.call("evm_setAutomine", False)
    account = stages.Account("ada")
    newcomer = stages.Device(relay, account)
    newcomer.link = await dial(relay.relays)
    assert isinstance(await newcomer.sponsor(account.registration(relay.world)), Sponsored)
    await newcomer.close()
    assert relay.process is not None
    relay.process.kill()
    assert len(rows(folder, "SELECT id FROM sponsor_bookings")) == 1

    relay.start()
    rpc.call("evm_mine")
    async with asyncio.timeout(120):
        while rows(folder, "SELECT id FROM sponsor_bookings"):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    ((kept,),) = rows(folder, "SELECT SUM(gwei) FROM sponsor_spending")
    assert kept == -(-(before - relay.world.writer.balance(sponsor)) // GWEI) > 0
    assert (await health(relay))[1]["sponsor"] == "paying"
    relay.stop()


def rows(folder: Path, query: str) -> list[tuple[Any, ...]]:
    """What the relay's database says."""
    with contextlib.closing(sqlite3.connect(folder / "relay.db")) as connection:
        return connection.execute(query).fetchall()
