"""Sends transactions and sees them through: the only module of the package that imports web3.

Every transaction is of type 2 (EIP-1559), because development chains accept one of the older kind with a
wrong chain id and then never mine it. It is tried out first, so that a refusal costs nothing and comes as a
sentence. Nonces are given out under a lock, above the chain's count and what is on its way. What was sent
is watched: a transaction that the node has lost, or a reorg took back, is sent again as it was; one that
stays unmined is replaced by one with higher fees under the same nonce, so that whichever is mined does the
same once.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from chatchain.chain.calls import address_in
from chatchain.chain.reverts import explain, revert_data
from chatchain.chain.rpc import Endpoints, Header, Request, Rpc, RpcFault, hexed, quantity
from chatchain.errors import (
    ChainError,
    ChainUnreachable,
    ChatchainError,
    LimitReached,
    NoEther,
    RefusedError,
    Reverted,
    TransactionPending,
)
from chatchain.identity.keys import address_of, to_checksum
from chatchain.model import Address, Call, Mined, Network

if TYPE_CHECKING:
    from web3 import Web3

WAIT: Final = 30.0
"""Seconds until an unmined transaction is reported as pending."""

STUCK: Final = 25.0
"""Seconds after which an unmined transaction is replaced by a better paid one: two of Ethereum's blocks."""

SETTLED: Final = 12
"""Blocks on top of a mined transaction after which it is no longer watched."""

MAX_WATCHED: Final = 4096

GAS_MARGIN: Final = 150_000
"""Gas beyond the estimate: when a vote is mined it may be the deciding one, which executes the proposal."""

_POLL: Final = (0.05, 1.0)
"""Seconds between two looks for a receipt: at first, and at most."""

_RESEND: Final = 1.0
_TIP: Final = 1_000_000_000


class Cost(NamedTuple):
    """What a call would take now, and the gas and the fees that its transaction is given."""

    gas: int
    limit: int
    fee: int
    tip: int

    @property
    def wei(self) -> int:
        """The most that it can cost: a contract that is asked about a signature may burn all that it gets."""
        return self.limit * self.fee


class _Receipt(msgspec.Struct, rename="camel"):
    status: str
    block_number: str


class _Transaction(msgspec.Struct):
    """A transaction as a node knows it, so far as a replay needs it."""

    input: str
    sender: str = msgspec.field(name="from")
    to: str | None = None


class _Offer(NamedTuple):
    """What a transaction would need, and what there is."""

    gas: int
    balance: int
    base: int
    tip: int


@dataclass
class _Sent:
    """A transaction on its way: its nonce's versions, of which one at most will be mined."""

    sender: Address
    nonce: int
    to: Address
    data: bytes
    gas: int
    fee: int
    tip: int
    key: bytes = field(repr=False)
    hashes: list[bytes] = field(default_factory=list)
    raw: bytes = b""
    since: float = 0.0  # when its present version first went out
    resent: float = 0.0
    agreed: int = 0  # the highest fee that was allowed, though it may not have been taken


class ChainWriter:
    """Sends calls to one network's contracts. All methods may be used from several threads."""

    def __init__(
        self,
        endpoints: Endpoints,
        network: Network,
        *,
        wait: float = WAIT,
        stuck: float = STUCK,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._endpoints = endpoints
        self._network = network
        self._wait = wait
        self._stuck = stuck
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.RLock()
        self._watched: dict[tuple[Address, int], _Sent] = {}
        self._web3: Web3 | None = None

    def prepare(self) -> None:
        """Imports now what the first transaction would otherwise wait for."""
        from eth_account import Account

        assert Account is not None
        self._node()

    def balance(self, account: Address) -> int:
        """Wei that the account can spend."""
        return quantity(self._call("eth_getBalance", hexed(account), "latest"))

    def estimate(self, call: Call, sender: Address, most: int = 0) -> Cost:
        """What the call would cost the sender now; raises what the contract would refuse it with.

        With `most`, nodes try it out with no more gas than that, and its transaction is given no more.
        """
        return self._cost(sender, call, most)

    def submit(self, call: Call, key: bytes, cost: Cost | None = None) -> bytes:
        """Signs and sends, and gives the transaction's hash without waiting; `tend` sees it through.

        With a `cost` it gets exactly that, and the call is not tried out again: what was judged is what is
        paid.
        """
        return self._submit(call, key, cost).hashes[0]

    def has_code(self, account: Address) -> bool:
        """Whether the account is a contract, or does as one."""
        return self._call("eth_getCode", hexed(account), "latest") != "0x"

    def send(self, call: Call, account_key: bytes) -> Mined:
        """Signs, sends, resubmits when needed, waits until mined; raises TransactionPending after 30 s."""
        sent = self._submit(call, account_key)
        deadline = self._clock() + self._wait
        pause = _POLL[0]
        while True:
            mined = self._tend_one(sent)
            if mined is not None:
                return mined
            if self._clock() >= deadline:
                raise self._pending(sent.hashes[-1])
            self._sleep(pause)
            pause = min(pause * 1.5, _POLL[1])

    def wait(self, tx_hash: bytes) -> Mined:
        """Waits until somebody else's transaction is mined; raises TransactionPending after 30 s."""
        deadline = self._clock() + self._wait
        pause = _POLL[0]
        while True:
            mined = self.look(tx_hash)
            if mined is not None:
                return mined
            if self._clock() >= deadline:
                raise self._pending(tx_hash)
            self._sleep(pause)
            pause = min(pause * 1.5, _POLL[1])

    def look(self, tx_hash: bytes) -> Mined | None:
        """The transaction if it is mined; raises what the contract refused it with when it failed."""
        receipt = self._receipts([tx_hash])[0]
        return None if receipt is None else self._outcome(tx_hash, receipt)

    def tend(self, allow: Callable[[int], bool] | None = None) -> None:
        """Looks after everything sent and not settled; one that fails never keeps another from its turn.

        To be called every few seconds by a process that outlives its transactions. `allow` is asked before
        one may cost so many wei more than was agreed.
        """
        with self._lock:
            watched = list(self._watched.values())
        head = quantity(self._call("eth_blockNumber")) if watched else 0
        for sent in watched:
            try:
                mined = self._tend_one(sent, allow)
                settled = mined is not None and head - mined.block >= SETTLED
            except ChainUnreachable:
                raise
            except ChatchainError:
                settled = True  # refused or overtaken: nothing more to be done for it
            if settled:
                self._forget(sent)

    @property
    def watched(self) -> int:
        """How many transactions are not settled yet."""
        return len(self._watched)

    # -- sending

    def _submit(self, call: Call, key: bytes, cost: Cost | None = None) -> _Sent:
        sender = address_of(key)
        to = address_in(self._network, call.contract)
        _, limit, fee, tip = cost or self._cost(sender, call)
        with self._lock:
            if len(self._watched) >= MAX_WATCHED:
                raise LimitReached(
                    f"{MAX_WATCHED} transactions are waiting to be mined.", retry_after_ms=15_000
                )
            for _ in range(3):
                sent = _Sent(sender, self._next_nonce(sender), to, call.data, limit, fee, tip, key)
                try:
                    self._broadcast(sent)
                except _NonceTaken:
                    continue  # another process sends with the same key
                self._watched[sender, sent.nonce] = sent
                return sent
        raise ChainError(
            "Another program keeps sending with the same account.", "Try again when it has finished."
        )

    def _cost(self, sender: Address, call: Call, most: int = 0) -> Cost:
        to = address_in(self._network, call.contract)
        gas, balance, base, tip = self._try_out(sender, to, call.data, most)
        limit = gas * 5 // 4 + GAS_MARGIN
        fee = 2 * base + tip
        if most:
            limit = min(limit, max(most, gas))
        if balance < limit * fee:
            # A poorer account may still do with what the estimate asks for, at today's price.
            limit, fee = min(limit, gas * 9 // 8), base * 9 // 8 + tip
        if balance < limit * fee:
            raise NoEther(
                f"The account {to_checksum(sender)} holds {_ether(balance)} ether, and this "
                f"transaction may cost "
                f"{_ether(limit * fee)}."
            )
        return Cost(gas, limit, fee, tip)

    def _next_nonce(self, sender: Address) -> int:
        """The first nonce that neither the chain nor anything on its way uses.

        Should the node have lost what is on its way, or a reorg have taken it back, it is sent again first: a
        nonce above a gap would wait without end.
        """
        nonce = quantity(self._call("eth_getTransactionCount", hexed(sender), "pending"))
        while (waiting := self._watched.get((sender, nonce))) is not None:
            with contextlib.suppress(_NonceTaken):
                self._send_raw(waiting)
            nonce += 1
        return nonce

    def _try_out(self, sender: Address, to: Address, data: bytes, most: int = 0) -> _Offer:
        """What the transaction would need; raises what the contract would refuse it with."""
        transaction = {"from": hexed(sender), "to": hexed(to), "data": hexed(data)}
        if most:
            transaction["gas"] = hex(most)
        requests = [
            Request("eth_estimateGas", (transaction,)),
            Request("eth_getBalance", (hexed(sender), "latest")),
            Request("eth_getBlockByNumber", ("latest", False)),
            Request("eth_maxPriorityFeePerGas"),
        ]

        def ask(endpoint: Rpc) -> _Offer:
            *needed, tip = endpoint.try_batch(requests)
            results = []
            for result in needed:
                if isinstance(result, RpcFault):
                    raise _too_much(result, most) or _refusal(result)
                results.append(result)
            gas, balance = (quantity(endpoint.plain(result)) for result in results[:2])
            header = endpoint.read(results[2], Header)
            return _Offer(
                gas,
                balance,
                quantity(header.base_fee_per_gas or "0x0"),
                _TIP if isinstance(tip, RpcFault) else quantity(endpoint.plain(tip)),
            )

        return self._endpoints.first(ask)

    def _broadcast(self, sent: _Sent) -> None:
        """Signs the transaction as it stands now and sends it; a node that has it already is content."""
        from eth_account import Account

        signed = Account.sign_transaction(
            {
                "type": 2,
                "chainId": self._network.chain_id,
                "nonce": sent.nonce,
                "to": to_checksum(sent.to),
                "value": 0,
                "data": hexed(sent.data),
                "gas": sent.gas,
                "maxFeePerGas": sent.fee,
                "maxPriorityFeePerGas": sent.tip,
            },
            sent.key,
        )
        sent.raw = bytes(signed.raw_transaction)
        sent.hashes.append(bytes(signed.hash))
        sent.since = self._clock()
        self._send_raw(sent)

    def _send_raw(self, sent: _Sent) -> None:
        sent.resent = self._clock()
        try:
            self._node().eth.send_raw_transaction(sent.raw)
        except RpcFault as fault:
            reason = fault.reason.lower()
            if any(words in reason for words in ("already known", "already imported", "known transaction")):
                return
            if any(
                words in reason
                for words in ("nonce too low", "nonce is too low", "correct nonce", "underpriced")
            ):
                raise _NonceTaken from fault
            raise _refusal(fault) from fault

    def _node(self) -> Web3:
        """web3 over our own endpoints: its import takes seconds, so it waits until something is sent."""
        if self._web3 is None:
            from web3 import Web3

            self._web3 = Web3(_provider(self._endpoints))
        return self._web3

    # -- seeing it through

    def _tend_one(self, sent: _Sent, allow: Callable[[int], bool] | None = None) -> Mined | None:
        """The outcome if it is mined; otherwise sends it again if it is lost or waits too long."""
        known, receipts = self._endpoints.first(lambda endpoint: self._trace(endpoint, sent))
        for tx_hash, receipt in zip(sent.hashes, receipts, strict=False):
            if receipt is not None:
                return self._outcome(tx_hash, receipt)
        now = self._clock()
        with self._lock:
            try:
                if known and now - sent.since >= self._stuck:
                    self._raise_fee(sent, allow)
                elif not known and now - sent.resent >= _RESEND:
                    self._send_again(sent, allow)
            except _NonceTaken:
                return self._overtaken(sent)
        return None

    def _send_again(self, sent: _Sent, allow: Callable[[int], bool] | None) -> None:
        """Sends what the node has lost, with higher fees if it has become too cheap to be taken."""
        try:
            self._send_raw(sent)
        except RpcFault:
            self._raise_fee(sent, allow)

    def _trace(self, endpoint: Rpc, sent: _Sent) -> tuple[bool, list[_Receipt | None]]:
        """Whether the endpoint knows the latest version, and the receipts of all versions."""
        hashes = list(sent.hashes)
        requests = [Request("eth_getTransactionByHash", (hexed(hashes[-1]),))]
        requests += [Request("eth_getTransactionReceipt", (hexed(tx_hash),)) for tx_hash in hashes]
        known, *receipts = endpoint.batch(requests)
        return bytes(known) != b"null", [_read_receipt(endpoint, receipt) for receipt in receipts]

    def _raise_fee(self, sent: _Sent, allow: Callable[[int], bool] | None) -> None:
        """Replaces a transaction by a better paid one; nodes ask for an eighth more at least."""
        block = self._call("eth_getBlockByNumber", "latest", False)
        base = quantity(block.get("baseFeePerGas", "0x0")) if isinstance(block, dict) else 0
        before = (sent.tip, sent.fee, sent.raw, list(sent.hashes))
        tip = max(sent.tip * 5 // 4 + 1, _TIP)
        fee = max(sent.fee * 5 // 4 + 1, 2 * base + tip)
        more = fee - max(sent.fee, sent.agreed)
        if allow is not None and more > 0 and not allow(sent.gas * more):
            return  # it waits until more may be spent, or the chain is cheaper
        sent.tip, sent.fee, sent.agreed = tip, fee, max(fee, sent.agreed)
        try:
            self._broadcast(sent)
        except (NoEther, RpcFault):
            # The version before is still good; it only waits for cheaper times.
            sent.tip, sent.fee, sent.raw, sent.hashes = before

    def _overtaken(self, sent: _Sent) -> Mined | None:
        """The nonce is used: by one of our versions, mined just now, or by somebody else's transaction."""
        _, receipts = self._endpoints.first(lambda endpoint: self._trace(endpoint, sent))
        for tx_hash, receipt in zip(sent.hashes, receipts, strict=False):
            if receipt is not None:
                return self._outcome(tx_hash, receipt)
        counted = quantity(self._call("eth_getTransactionCount", hexed(sent.sender), "latest"))
        if counted <= sent.nonce:
            return None  # one of our versions waits in the node's pool
        self._forget(sent)
        raise Reverted(
            f"Another transaction of {to_checksum(sent.sender)} took the place of this one (nonce "
            f"{sent.nonce}).",
            "Look whether what you wanted is done, and try again if not.",
        )

    def _outcome(self, tx_hash: bytes, receipt: _Receipt) -> Mined:
        if quantity(receipt.status) == 1:
            return Mined(tx_hash, quantity(receipt.block_number))
        raise self._endpoints.first(lambda endpoint: self._replay(endpoint, tx_hash, receipt))

    def _replay(self, endpoint: Rpc, tx_hash: bytes, receipt: _Receipt) -> ChatchainError:
        """Why a mined transaction failed, found by running it again on the state that it met."""
        raw = endpoint.batch([Request("eth_getTransactionByHash", (hexed(tx_hash),))])[0]
        failed = endpoint.read(raw, _Transaction)
        transaction = {"from": failed.sender, "to": failed.to, "data": failed.input}
        try:
            endpoint.call("eth_call", transaction, receipt.block_number)
        except RpcFault as fault:
            return _refusal(fault)
        return Reverted(
            "The transaction was mined and failed: the state had changed in between.", "Try again."
        )

    def _forget(self, sent: _Sent) -> None:
        with self._lock:
            self._watched.pop((sent.sender, sent.nonce), None)

    def _receipts(self, hashes: list[bytes]) -> list[_Receipt | None]:
        requests = [Request("eth_getTransactionReceipt", (hexed(tx_hash),)) for tx_hash in hashes]
        return self._endpoints.first(
            lambda endpoint: [_read_receipt(endpoint, raw) for raw in endpoint.batch(requests)]
        )

    def _call(self, method: str, *params: object) -> object:
        return self._endpoints.first(lambda endpoint: endpoint.call(method, *params))

    def _pending(self, tx_hash: bytes) -> TransactionPending:
        return TransactionPending(f"The transaction {hexed(tx_hash)} is not mined after {self._wait:.0f} s.")


class _NonceTaken(Exception):
    """The node has another transaction for this nonce."""


def _provider(endpoints: Endpoints) -> Any:
    """A web3 provider over our endpoints: bounded answers, our errors, transactions to all of them."""
    from web3.providers import JSONBaseProvider

    class OurProvider(JSONBaseProvider):
        def make_request(self, method: Any, params: Any) -> Any:
            if method != "eth_sendRawTransaction":
                result = endpoints.first(lambda endpoint: endpoint.call(method, *params))
                return {"jsonrpc": "2.0", "id": 1, "result": result}
            result, failure = None, None
            for endpoint in endpoints.all:
                try:
                    result = endpoint.call(method, *params)
                except ChainError as error:
                    # The node's own refusal says more than that another one is away.
                    failure = failure if isinstance(failure, RpcFault) else error
            if result is None:
                assert failure is not None
                raise failure
            return {"jsonrpc": "2.0", "id": 1, "result": result}

    return OurProvider()


def _read_receipt(endpoint: Rpc, raw: msgspec.Raw) -> _Receipt | None:
    return None if bytes(raw) == b"null" else endpoint.read(raw, _Receipt)


def _refusal(fault: RpcFault) -> ChatchainError:
    """What a node's error means: a revert's sentence, an empty purse, or the error itself."""
    data = revert_data(fault.data)
    if data is not None:
        return explain(data)
    if "insufficient funds" in fault.reason.lower():
        return NoEther("The account cannot pay for this transaction.")
    if "revert" in fault.reason.lower():
        return explain(b"")
    return fault


def _too_much(fault: RpcFault, most: int) -> RefusedError | None:
    """What a node's error means when the call was tried out with so much gas and no more."""
    if not most or revert_data(fault.data) is not None or "gas" not in fault.reason.lower():
        return None
    return RefusedError(f"The call would take more than {most} gas, and that is all that is paid for.")


def _ether(wei: int) -> str:
    return f"{wei / 10**18:.6f}".rstrip("0").rstrip(".")
