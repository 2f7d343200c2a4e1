"""Sends transactions and sees them through: the only module of the package that imports web3.

Every transaction is of type 2 (EIP-1559), because development chains accept one of the older kind with a
wrong chain id and then never mine it. It is tried out first, so that a refusal costs nothing and comes as a
sentence. Nonces are given out under a lock, above the chain's count and what is on its way. What was sent
is watched: a transaction that the node has lost, or a reorg took back, is sent again as it was; one that
stays unmined is replaced by one with higher fees under the same nonce, so that whichever is mined does the
same once.

Many calls of one sender go in few round trips (`estimate_all`, `submit_all`): each has its own outcome, and
one that is refused keeps none of the others from being sent.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from chatchain.chain.calls import address_in
from chatchain.chain.rpc import Endpoints, Header, Request, Rpc, RpcFault, hexed, quantity
from chatchain.chain.transactions import Transaction, sign
from chatchain.chain.trial import TIP, Candidate, Trial, refusal
from chatchain.errors import (
    ChainError,
    ChainUnreachable,
    ChatchainError,
    LimitReached,
    NoEther,
    Reverted,
    StoreUnavailable,
    TransactionPending,
)
from chatchain.identity.keys import Signer, address_of, to_checksum
from chatchain.model import Address, Call, Cost, Dispatch, Mined, Network, Outcome

if TYPE_CHECKING:
    from web3 import Web3

WAIT: Final = 30.0
"""Seconds until an unmined transaction is reported as pending."""

STUCK: Final = 25.0
"""Seconds after which an unmined transaction is replaced by a better paid one: two of Ethereum's blocks."""

SETTLED: Final = 12
"""Blocks on top of a mined transaction after which it is no longer watched."""

MAX_WATCHED: Final = 16_384

MOST_RAISES: Final = 10
"""How often a transaction is offered for a better price, which is then nine times the first, or what the
chain asks for. A node that never mines anything makes us offer no more than that.
"""

KEPT_VERSIONS: Final = 32
"""Versions of a transaction whose receipts are asked for."""

_POLL: Final = (0.05, 1.0)
"""Seconds between two looks for a receipt: at first, and at most."""

_RESEND: Final = 1.0
_PLAIN_GAS: Final = 21_000


class _Receipt(msgspec.Struct, rename="camel"):
    status: str
    block_number: str
    block_hash: str
    gas_used: str
    effective_gas_price: str = "0x0"

    @property
    def wei(self) -> int:
        """What the transaction cost."""
        return quantity(self.gas_used) * quantity(self.effective_gas_price)


class _Transaction(msgspec.Struct):
    """A transaction as a node knows it, so far as a replay needs it."""

    input: str
    sender: str = msgspec.field(name="from")
    to: str | None = None


Allow = Callable[[bytes, int], bool]
"""Whether the transaction that was submitted under this hash may cost so many wei more."""

Keep = Callable[[Sequence[tuple[int, Dispatch]]], None]
"""Writes down what was signed before it is sent, with its place among the calls that were given (-1: it is
another version of what was sent); raises ChatchainError if it must not be sent.
"""


class _Terms(NamedTuple):
    """What the one who pays has to say while transactions are seen through."""

    allow: Allow | None = None
    keep: Keep | None = None


_NO_TERMS: Final = _Terms()


class _Trace(NamedTuple):
    """What an endpoint knows of a transaction: whether of its latest version, and all versions' receipts."""

    known: bool
    receipts: list[_Receipt | None]


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
    signer: Signer = field(repr=False)
    hashes: list[bytes] = field(default_factory=list)
    raw: bytes = b""
    since: float = 0.0  # when its present version first went out
    placed: float = 0.0  # when it was last asked whether its nonce is one that comes
    resent: float = 0.0
    agreed: int = 0  # the highest fee that was allowed, though it may not have been taken
    place: int = -1  # among the calls that were sent together
    raises: int = 0  # how often it was replaced for a better price
    seen_in: tuple[int, str] | None = None  # the block, by number and hash, that it was last found in
    told: bool = False  # whether `tend` has given its outcome


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
        self._submitted: dict[bytes, _Sent] = {}  # the same, by the hash that was told
        self._web3: Web3 | None = None

    def prepare(self) -> None:
        """Imports now what the first transaction would otherwise wait for."""
        self._node()

    def balance(self, account: Address) -> int:
        """Wei that the account can spend."""
        return quantity(self._call("eth_getBalance", hexed(account), "latest"))

    def estimate(self, call: Call, sender: Address, most: int = 0, *, next_block: bool = False) -> Cost:
        """What the call would cost the sender now; raises what the contract would refuse it with.

        With `most`, nodes try it out with no more gas than that, and its transaction is given no more.
        """
        (cost,) = self.estimate_all([Candidate(call, most)], sender, next_block=next_block)
        if isinstance(cost, ChatchainError):
            raise cost
        return cost

    def estimate_all(
        self, candidates: Sequence[Candidate], sender: Address, *, next_block: bool = False
    ) -> list[Cost | ChatchainError]:
        """What each of the calls would cost the sender now, or what the contract would refuse it with.

        With `next_block` nodes are asked as if the next block were begun.
        """
        trial = Trial(self._network, candidates, sender, next_block=next_block)
        return self._endpoints.first(trial.run)

    def submit_all(
        self, calls: Sequence[tuple[Call, Cost]], key: bytes, keep: Keep | None = None
    ) -> list[bytes | ChatchainError]:
        """Signs and sends calls for exactly these costs, nonce after nonce; gives the transactions' hashes.

        Nothing is tried out here. What a node refuses leaves a gap among the nonces, and that is closed. What
        `keep` does not take is not sent; what it has taken counts as sent even if no node answers: one may
        have heard it.
        """
        sender, signer = address_of(key), Signer(key)
        outcomes: dict[int, bytes | ChatchainError] = {}
        due = [
            _Sent(
                sender,
                -1,
                address_in(self._network, call.contract),
                call.data,
                cost.limit,
                cost.fee,
                cost.tip,
                signer,
                place=place,
            )
            for place, (call, cost) in enumerate(calls)
        ]
        with self._lock:
            self._require_room(len(due))
            for _ in range(3):
                try:
                    due = self._send_row(due, outcomes, keep) if due else []
                except ChainError as error:
                    if not outcomes:
                        raise
                    outcomes.update((sent.place, error) for sent in due)  # the others are on their way
                    due = []
        for sent in due:
            outcomes[sent.place] = _crowded_out()
        return [outcomes[place] for place in range(len(calls))]

    def adopt(self, dispatches: Sequence[Dispatch], key: bytes) -> list[bool | None]:
        """Looks after transactions that another process has signed: False for what another key has signed,
        and None for what was never sent, because another of ours has its nonce by now.
        """
        signer = Signer(key)
        adopted: list[bool | None] = []
        with self._lock:
            for one in dispatches:
                sent = _Sent(one.sender, one.nonce, one.to, one.data, one.gas, one.fee, one.tip, signer)
                sent.agreed, sent.raises = one.agreed, len(one.hashes) - 1
                self._sign(sent)
                if sent.hashes != [one.hashes[-1]]:
                    adopted.append(False)
                    continue
                sent.hashes = list(one.hashes)
                there = self._watched.setdefault((one.sender, one.nonce), sent)
                if there is sent:
                    self._watch(sent)
                adopted.append(True if there.hashes[0] == sent.hashes[0] else None)
        return adopted

    def follow(self, tx_hash: bytes) -> bytes:
        """The hash under which a transaction of ours is to be looked for now: that of its latest version."""
        sent = self._submitted.get(tx_hash)
        return sent.hashes[-1] if sent is not None else tx_hash

    def submit(self, call: Call, key: bytes, cost: Cost | None = None) -> bytes:
        """Signs and sends, and gives the transaction's hash without waiting; `tend` sees it through.

        With a `cost` it gets exactly that, and the call is not tried out again: what was judged is what is
        paid.
        """
        return self._submit(call, key, cost).hashes[0]

    def has_code(self, account: Address) -> bool:
        """Whether the account is a contract, or does as one."""
        return self._call("eth_getCode", hexed(account), "latest") != "0x"

    def send(self, call: Call, account_key: bytes, *, next_block: bool = False) -> Mined:
        """Signs, sends, resubmits when needed, waits until mined; raises TransactionPending after 30 s."""
        cost = self.estimate(call, address_of(account_key), next_block=next_block)
        sent = self._submit(call, account_key, cost)
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

    def tend(self, allow: Allow | None = None, keep: Keep | None = None) -> list[Outcome]:
        """Looks after everything sent and not settled; gives what was mined or failed since the last time.

        To be called every few seconds by a process that outlives its transactions; one that fails never keeps
        another from its turn. `allow` is asked before one may cost more than was agreed, and `keep` is told
        before another version is sent. A transaction that a reorg takes back is looked after again, and told
        of no second time.
        """
        terms = _Terms(allow, keep)
        with self._lock:
            watched = list(self._watched.values())
        if not watched:
            return []
        head = quantity(self._call("eth_blockNumber"))
        due = self._not_where_they_were(watched)
        traces = self._endpoints.first(lambda endpoint: self._traces(endpoint, due))
        outcomes: list[Outcome] = []
        for sent, trace in zip(due, traces, strict=True):
            try:
                outcome = self._tend_one_of_many(sent, trace, terms)
            except ChainUnreachable:
                if not outcomes:
                    raise
                return outcomes  # these are told once; the others have their turn the next time
            if outcome is not None and not sent.told:
                sent.told = True
                outcomes.append(outcome)
        with contextlib.suppress(ChainError):
            self._begin_lower([sent for sent in due if sent.seen_in is None], terms)
        for sent in watched:
            if sent.seen_in is not None and head - sent.seen_in[0] >= SETTLED:
                self._forget(sent)
        return outcomes

    def _tend_one_of_many(self, sent: _Sent, trace: _Trace, terms: _Terms) -> Outcome | None:
        try:
            mined = self._tend_one(sent, terms, trace)
        except ChainUnreachable:
            raise
        except ChatchainError as failure:
            # Refused or overtaken: nothing more to be done for it.
            self._forget(sent)
            for version, receipt in zip(sent.hashes, trace.receipts, strict=False):
                if receipt is not None:
                    block = quantity(receipt.block_number)
                    return Outcome(sent.hashes[0], version, block, receipt.wei, failure)
            return Outcome(sent.hashes[0], sent.hashes[-1], 0, 0, failure)
        if mined is None:
            return None
        wei = next((receipt.wei for receipt in trace.receipts if receipt is not None), 0)
        return Outcome(sent.hashes[0], mined.tx_hash, mined.block, wei)

    def _not_where_they_were(self, watched: Sequence[_Sent]) -> list[_Sent]:
        """Those that are not known to stand in a block of the chain as it is now.

        One question for each block that holds some of them answers for all of these.
        """
        blocks = sorted({sent.seen_in for sent in watched if sent.seen_in is not None})
        requests = [Request("eth_getBlockByNumber", (hex(number), False)) for number, _ in blocks]

        def ask(endpoint: Rpc) -> set[tuple[int, str]]:
            answers = endpoint.batch(requests)
            return {
                block
                for block, raw in zip(blocks, answers, strict=True)
                if bytes(raw) != b"null" and endpoint.read(raw, Header).hash == block[1]
            }

        standing = self._endpoints.first(ask) if blocks else set()
        due = [sent for sent in watched if sent.seen_in not in standing]
        for sent in due:
            sent.seen_in = None
        return due

    @property
    def watched(self) -> int:
        """How many transactions are not settled yet."""
        return len(self._watched)

    # -- sending

    def _submit(self, call: Call, key: bytes, cost: Cost | None = None) -> _Sent:
        sender, signer = address_of(key), Signer(key)
        to = address_in(self._network, call.contract)
        given = cost or self.estimate(call, sender)
        with self._lock:
            self._require_room(1)
            for _ in range(3):
                nonce = self._next_nonce(sender)
                sent = _Sent(sender, nonce, to, call.data, given.limit, given.fee, given.tip, signer)
                try:
                    self._broadcast(sent)
                except _NonceTaken:
                    continue  # another process sends with the same key
                self._watch(sent)
                return sent
        raise _crowded_out()

    def _require_room(self, more: int) -> None:
        if len(self._watched) + more > MAX_WATCHED:
            raise LimitReached(f"{MAX_WATCHED} transactions are waiting to be mined.", retry_after_ms=15_000)

    def _watch(self, sent: _Sent) -> None:
        sent.placed = self._clock()
        self._watched[sent.sender, sent.nonce] = sent
        self._submitted[sent.hashes[0]] = sent

    def _send_row(
        self, row: list[_Sent], outcomes: dict[int, bytes | ChatchainError], keep: Keep | None
    ) -> list[_Sent]:
        """Sends transactions under nonces in a row; gives those whose nonce another program used first."""
        for sent, nonce in zip(row, self._free_nonces(row[0].sender), strict=False):
            sent.nonce = nonce
            self._sign(sent)
            sent.resent = sent.since
        if keep is not None:
            try:
                keep([(sent.place, _dispatch(sent)) for sent in row])
            except ChatchainError as error:
                outcomes.update((sent.place, error) for sent in row)
                return []
        again, refused = [], []
        for sent, fault in zip(row, self._send_all(row, unsure=keep is not None), strict=True):
            if fault is None or _is_known(fault):
                self._watch(sent)
                outcomes[sent.place] = sent.hashes[0]
            elif _is_taken(fault):
                sent.hashes.clear()
                again.append(sent)
            else:
                outcomes[sent.place] = refusal(fault)
                refused.append(sent)
        for sent in refused:
            self._close_gap(sent)
        return again

    def _free_nonces(self, sender: Address) -> Iterator[int]:
        """The nonces that neither the chain nor anything on its way uses."""
        nonce = self._next_nonce(sender)
        while True:
            if (sender, nonce) not in self._watched:
                yield nonce
            nonce += 1

    def _send_all(self, row: Sequence[_Sent], *, unsure: bool) -> list[RpcFault | None]:
        """Sends a row. When no node answers it may have arrived; `unsure` takes it for sent, and it is sent
        again later.
        """
        try:
            return self._send_raw_all([sent.raw for sent in row])
        except ChainError:
            if not unsure:
                raise
            return [None] * len(row)

    def _send_raw_all(self, raws: list[bytes]) -> list[RpcFault | None]:
        """Sends to every endpoint; what each transaction was refused with where none took it."""
        requests = [Request("eth_sendRawTransaction", (hexed(raw),)) for raw in raws]
        faults: list[RpcFault | None] | None = None
        failure: ChainError | None = None
        for endpoint in self._endpoints.all:
            try:
                answers = endpoint.try_batch(requests)
            except ChainError as error:
                failure = error
                continue
            told = [answer if isinstance(answer, RpcFault) else None for answer in answers]
            before = faults if faults is not None else told
            faults = [
                None if first is None or second is None else first
                for first, second in zip(before, told, strict=True)
            ]
        if faults is None:
            assert failure is not None
            raise failure
        return faults

    def _close_gap(self, refused: _Sent) -> None:
        """Uses up a nonce for nothing, so that those above need not wait; else the next call takes it."""
        if not any(sender == refused.sender and nonce > refused.nonce for sender, nonce in self._watched):
            return
        filler = _Sent(
            refused.sender,
            refused.nonce,
            refused.sender,
            b"",
            _PLAIN_GAS,
            refused.fee,
            refused.tip,
            refused.signer,
        )
        self._sign(filler)
        if self._send_raw_all([filler.raw])[0] is None:
            self._watch(filler)

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

    def _broadcast(self, sent: _Sent, terms: _Terms = _NO_TERMS) -> None:
        """Signs the transaction as it stands now and sends it; a node that has it already is content."""
        self._sign(sent)
        if terms.keep is not None:
            terms.keep([(-1, _dispatch(sent))])
        self._send_raw(sent)

    def _sign(self, sent: _Sent) -> None:
        signed = sign(
            Transaction(self._network.chain_id, sent.nonce, sent.to, sent.data, sent.gas, sent.fee, sent.tip),
            sent.signer,
        )
        sent.raw = signed.raw
        sent.hashes.append(signed.hash)
        sent.since = self._clock()

    def _send_raw(self, sent: _Sent) -> None:
        sent.resent = self._clock()
        try:
            self._node().eth.send_raw_transaction(sent.raw)
        except RpcFault as fault:
            if _is_known(fault):
                return
            if _is_taken(fault):
                raise _NonceTaken from fault
            raise refusal(fault) from fault

    def _node(self) -> Web3:
        """web3 over our own endpoints: its import takes seconds, so it waits until something is sent."""
        if self._web3 is None:
            from web3 import Web3

            self._web3 = Web3(_provider(self._endpoints))
        return self._web3

    # -- seeing it through

    def _tend_one(
        self,
        sent: _Sent,
        terms: _Terms = _NO_TERMS,
        trace: _Trace | None = None,
    ) -> Mined | None:
        """The outcome if it is mined; otherwise sends it again if it is lost or waits too long."""
        known, receipts = trace or self._endpoints.first(lambda endpoint: self._trace(endpoint, sent))
        for tx_hash, receipt in zip(sent.hashes, receipts, strict=False):
            if receipt is not None:
                return self._found(sent, tx_hash, receipt)
        now = self._clock()
        with self._lock:
            try:
                if known and now - sent.since >= self._stuck:
                    self._raise_fee(sent, terms)
                elif not known and now - sent.resent >= _RESEND:
                    self._send_again(sent, terms)
            except _NonceTaken:
                return self._overtaken(sent)
        return None

    def _send_again(self, sent: _Sent, terms: _Terms) -> None:
        """Sends what the node has lost, with higher fees if it has become too cheap to be taken."""
        try:
            self._send_raw(sent)
        except RpcFault:
            self._raise_fee(sent, terms)

    def _trace(self, endpoint: Rpc, sent: _Sent) -> _Trace:
        return self._traces(endpoint, [sent])[0]

    def _traces(self, endpoint: Rpc, several: Sequence[_Sent]) -> list[_Trace]:
        """Whether the endpoint knows the latest version of each, and the receipts of all its versions."""
        hashes = [list(sent.hashes) for sent in several]
        requests = []
        for versions in hashes:
            requests.append(Request("eth_getTransactionByHash", (hexed(versions[-1]),)))
            requests += [Request("eth_getTransactionReceipt", (hexed(version),)) for version in versions]
        results = iter(endpoint.batch(requests))
        return [
            _Trace(
                bytes(next(results)) != b"null",
                [_read_receipt(endpoint, next(results)) for _ in versions],
            )
            for versions in hashes
        ]

    def _found(self, sent: _Sent, tx_hash: bytes, receipt: _Receipt) -> Mined:
        sent.seen_in = (quantity(receipt.block_number), receipt.block_hash)
        return self._outcome(tx_hash, receipt)

    def _raise_fee(self, sent: _Sent, terms: _Terms) -> None:
        """Replaces a transaction by a better paid one; nodes ask for an eighth more at least."""
        if sent.raises >= MOST_RAISES:
            return
        block = self._call("eth_getBlockByNumber", "latest", False)
        base = quantity(block.get("baseFeePerGas", "0x0")) if isinstance(block, dict) else 0
        before = (sent.tip, sent.fee, sent.raw, list(sent.hashes))
        tip = max(sent.tip * 5 // 4 + 1, TIP)
        fee = max(sent.fee * 5 // 4 + 1, 2 * base + tip)
        more = fee - max(sent.fee, sent.agreed)
        if terms.allow is not None and more > 0 and not terms.allow(sent.hashes[0], sent.gas * more):
            return  # it waits until more may be spent, or the chain is cheaper
        sent.tip, sent.fee, sent.agreed = tip, fee, max(fee, sent.agreed)
        sent.raises += 1
        try:
            self._broadcast(sent, terms)
        except (NoEther, RpcFault, StoreUnavailable):
            # The version before is still good; it only waits for cheaper times.
            sent.tip, sent.fee, sent.raw, sent.hashes = before

    def _begin_lower(self, waiting: Sequence[_Sent], terms: _Terms) -> None:
        """Signs anew, from the chain's own count on, what waits above a nonce that nobody uses.

        A node that told a wrong count had us begin too high, and what stands there is never mined. Should
        both versions be, somehow, the second fails like any call that comes twice.
        """
        with self._lock:
            now = self._clock()
            rows: dict[Address, list[_Sent]] = {}
            for sent in waiting:
                if self._watched.get((sent.sender, sent.nonce)) is sent:
                    rows.setdefault(sent.sender, []).append(sent)
            for sender, row in rows.items():
                row.sort(key=lambda sent: sent.nonce)
                if now - min(sent.placed for sent in row) < self._stuck:
                    continue
                for sent in row:  # whatever comes of it, not again at once
                    sent.placed = now
                nonce = quantity(self._call("eth_getTransactionCount", hexed(sender), "pending"))
                # Where one of ours was mined at this count or above, it is this word that is wrong.
                if any(by == sender and nonce <= at < row[0].nonce for by, at in self._watched) or any(
                    one.seen_in is not None and one.sender == sender and one.nonce >= nonce
                    for one in self._watched.values()
                ):
                    continue
                if nonce < row[0].nonce:
                    self._move_down(row, nonce, terms)

    def _move_down(self, row: Sequence[_Sent], nonce: int, terms: _Terms) -> None:
        before = [(sent.nonce, sent.raw, list(sent.hashes)) for sent in row]
        for place, sent in enumerate(row):
            sent.nonce = nonce + place
            self._sign(sent)
            sent.hashes = [sent.hashes[0], *sent.hashes[1:][-KEPT_VERSIONS:]]
        try:
            if terms.keep is not None:
                terms.keep([(-1, _dispatch(sent)) for sent in row])
        except StoreUnavailable:
            for sent, (old, raw, hashes) in zip(row, before, strict=True):
                sent.nonce, sent.raw, sent.hashes = old, raw, hashes
            return
        for sent, (old, _, _) in zip(row, before, strict=True):
            del self._watched[sent.sender, old]
            self._watched[sent.sender, sent.nonce] = sent
            sent.resent = self._clock()
        self._send_raw_all([sent.raw for sent in row])  # what is refused is looked at again like what is lost

    def _overtaken(self, sent: _Sent) -> Mined | None:
        """The nonce is used: by one of our versions, mined just now, or by somebody else's transaction."""
        _, receipts = self._endpoints.first(lambda endpoint: self._trace(endpoint, sent))
        for tx_hash, receipt in zip(sent.hashes, receipts, strict=False):
            if receipt is not None:
                return self._found(sent, tx_hash, receipt)
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
            return refusal(fault)
        return Reverted(
            "The transaction was mined and failed: the state had changed in between.", "Try again."
        )

    def _forget(self, sent: _Sent) -> None:
        with self._lock:
            self._watched.pop((sent.sender, sent.nonce), None)
            self._submitted.pop(sent.hashes[0], None)

    def _receipts(self, hashes: list[bytes]) -> list[_Receipt | None]:
        requests = [Request("eth_getTransactionReceipt", (hexed(tx_hash),)) for tx_hash in hashes]
        return self._endpoints.first(
            lambda endpoint: [_read_receipt(endpoint, raw) for raw in endpoint.batch(requests)]
        )

    def _call(self, method: str, *params: object) -> object:
        return self._endpoints.first(lambda endpoint: endpoint.call(method, *params))

    def _pending(self, tx_hash: bytes) -> TransactionPending:
        return TransactionPending(f"The transaction {hexed(tx_hash)} is not mined after {self._wait:.0f} s.")


def _dispatch(sent: _Sent) -> Dispatch:
    """What another process must know of it."""
    return Dispatch(
        sent.sender,
        sent.nonce,
        sent.to,
        sent.data,
        sent.gas,
        sent.fee,
        sent.tip,
        sent.agreed,
        tuple(sent.hashes),
    )


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


def _is_known(fault: RpcFault) -> bool:
    reason = fault.reason.lower()
    return any(words in reason for words in ("already known", "already imported", "known transaction"))


def _is_taken(fault: RpcFault) -> bool:
    reason = fault.reason.lower()
    return any(
        words in reason for words in ("nonce too low", "nonce is too low", "correct nonce", "underpriced")
    )


def _crowded_out() -> ChainError:
    return ChainError(
        "Another program keeps sending with the same account.", "Try again when it has finished."
    )
