"""Keeps a store of the contracts' events level with the chain: catches up, follows, walks back over reorgs.

Nothing here interprets an event beyond the columns that look-ups need. The rules:

- Rows and the blocks that they are known from go into the store together, the last block being the new
  head; the newest 256 blocks below the chain's tip are all kept with number, hash and parent.
- Before anything is added, the endpoint must still have the stored head. If it has not, the newest kept
  block that it has is the common ancestor and everything above goes; if it has none of them, everything
  goes and the history is read again from the start. Development chains emit no `removed` logs, and others
  lose them with a connection.
- Logs are asked for in ranges that shrink when an endpoint refuses or sends too much and grow again
  afterwards.
- Of several endpoints, a quorum must tell the same story of each range: block hashes and logs.
- An endpoint that only lags (its tip is a block that we hold) takes nothing back: a chain never gets
  shorter, and believing so would bring revoked devices back. Development chains can be wound back, and
  there it is believed.
"""

from __future__ import annotations

import contextlib
import gc
import time
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from hashlib import sha256
from typing import Final, NamedTuple, Protocol

import msgspec

from chatchain.chain.events import DIRECTORY, IDENTITY, LEDGER, MEMBERSHIP, REWARDS, row_of
from chatchain.chain.rpc import (
    AnswerTooLarge,
    Endpoints,
    Header,
    Request,
    Rpc,
    RpcFault,
    hexed,
    quantity,
    require_chain,
    unhex,
)
from chatchain.errors import ChainUnreachable, EndpointsDisagree
from chatchain.model import BlockRef, LogRow, Network

KEPT_BLOCKS: Final = 256
"""How many recent blocks a store keeps, so how deep a reorg is walked back instead of read anew."""

DEV_CHAINS: Final = frozenset({1337, 31337})
"""Chain ids of Ganache and Anvil, which may be wound back and need no confirmations."""

FIRST_SPAN: Final = 16
LONGEST_SPAN: Final = 50_000
LOGS_PER_RANGE: Final = 8_000
"""Blocks in the first range of a catch-up and in the longest, and the number of logs that a range aims at."""

SEARCH_AFTER: Final = 50_000
"""Objects after which a search for garbage begins during a catch-up."""

SEARCH_FROM: Final = 50_000
"""Chains longer than this are searched for the block of the deployment before they are read."""

_ATTEMPTS: Final = 5
_PAUSE: Final = 0.2


class LogStore(Protocol):
    """Where rows and recent blocks are kept; store/ has the durable ones."""

    def head(self) -> BlockRef | None:
        """The last block taken in."""

    def recent(self, limit: int) -> list[BlockRef]:
        """Kept blocks, newest first; at most KEPT_BLOCKS are kept, the head always."""

    def take(self, rows: Sequence[LogRow], blocks: Sequence[BlockRef]) -> None:
        """Adds rows and blocks in one transaction; blocks ascend, and the last is the new head."""

    def drop_from(self, number: int) -> list[LogRow]:
        """Deletes, in one transaction, the blocks numbered so or higher and every row of them, and gives
        the rows.

        Rows go by their block's number too, since only recent blocks are kept. The head moves back to the
        highest block that is left, or to None.
        """

    def rows(
        self,
        *,
        source: int | None = None,
        subject: int | None = None,
        label: str | None = None,
        address: bytes | None = None,
    ) -> list[LogRow]:
        """The rows for which everything given holds, in chain order."""


class MemoryLogStore:
    """A LogStore that forgets with its process: for tools, tests and benchmarks."""

    def __init__(self) -> None:
        self._rows: list[LogRow] = []
        self._by_subject: dict[int, list[LogRow]] = {}
        self._by_label: dict[str, list[LogRow]] = {}
        self._by_address: dict[bytes, list[LogRow]] = {}
        self._blocks: list[BlockRef] = []

    def head(self) -> BlockRef | None:
        """The last block taken in."""
        return self._blocks[-1] if self._blocks else None

    def recent(self, limit: int) -> list[BlockRef]:
        """Kept blocks, newest first."""
        return self._blocks[::-1][:limit]

    def take(self, rows: Sequence[LogRow], blocks: Sequence[BlockRef]) -> None:
        """Adds rows and blocks."""
        self._rows += rows
        for row in rows:
            self._index(row)
        self._blocks = [*self._blocks, *blocks][-KEPT_BLOCKS:]

    def drop_from(self, number: int) -> list[LogRow]:
        """Deletes what is numbered so or higher."""
        cut = bisect_left(self._rows, number, key=lambda row: row.block)
        dropped, kept = self._rows[cut:], self._rows[:cut]
        self._blocks = [block for block in self._blocks if block.number < number]
        if dropped:
            self._rows, self._by_subject, self._by_label, self._by_address = kept, {}, {}, {}
            for row in kept:
                self._index(row)
        return dropped

    def rows(
        self,
        *,
        source: int | None = None,
        subject: int | None = None,
        label: str | None = None,
        address: bytes | None = None,
    ) -> list[LogRow]:
        """The rows for which everything given holds, in chain order."""
        rows = self._rows
        if subject is not None:
            rows = self._by_subject.get(subject, [])
        elif label is not None:
            rows = self._by_label.get(label, [])
        elif address is not None:
            rows = self._by_address.get(address, [])
        return [
            row
            for row in rows
            if (source is None or row.source == source)
            and (subject is None or row.subject == subject)
            and (label is None or row.label == label)
            and (address is None or row.address == address)
        ]

    def _index(self, row: LogRow) -> None:
        self._by_subject.setdefault(row.subject, []).append(row)
        if row.label:
            self._by_label.setdefault(row.label, []).append(row)
        if row.address:
            self._by_address.setdefault(row.address, []).append(row)


class Advance(NamedTuple):
    """What one round of synchronising changed."""

    head: BlockRef
    time: int
    """The head's timestamp."""
    added: int
    """How many rows came in."""
    subjects: frozenset[int]
    """Users of whom rows came or went."""
    membership: bool
    """Whether rows of Membership came or went."""
    dropped: tuple[LogRow, ...]
    """Rows that a reorg took back."""
    sources: frozenset[int]
    """The contracts of which rows came or went, numbered as in LogRow."""


class _InFlux(ChainUnreachable):
    """The chain moved while an endpoint was telling of it."""


class _Log(msgspec.Struct, rename="camel", frozen=True, gc=False):
    """A log as eth_getLogs gives it; `blockTimestamp` is given by some nodes only."""

    address: str
    topics: tuple[str, ...]
    data: str
    block_number: str
    block_hash: str
    log_index: str
    block_timestamp: str | None = None


@contextlib.contextmanager
def _rare_searches_for_garbage() -> Iterator[None]:
    """Lets the collector look for cycles seldom: a hundred thousand events hold none, and each tuple of their
    topics counts towards its next search, which took a fifth of a catch-up.
    """
    before = gc.get_threshold()
    gc.set_threshold(max(before[0], SEARCH_AFTER), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


class _Probe(NamedTuple):
    """A first look at an endpoint: its tip, its block at our head's number, and the logs since then."""

    latest: Header
    at_known: Header | None
    logs: list[_Log] | None


class _Range(NamedTuple):
    """A question about so many blocks after a known one."""

    known: BlockRef | None
    blocks: int
    requests: list[Request]


class _Piece(NamedTuple):
    """An endpoint's story of a range.

    Without blocks, the endpoint no longer has the block that the range builds on; with that one alone,
    nothing came after it.
    """

    rows: list[LogRow]
    blocks: list[BlockRef]

    def key(self) -> bytes:
        """Equal for equal stories: the hashes of the blocks, and the logs."""
        digest = sha256()
        for block in self.blocks:
            digest.update(b"%d%b%b" % (block.number, block.hash, block.parent))
        for row in self.rows:
            digest.update(b"|%d,%d,%d,%d," % (row.block, row.index, row.source, len(row.topics)))
            digest.update(row.block_hash + b"".join(row.topics) + sha256(row.data).digest())
        return digest.digest()

    def tell(self) -> str:
        """For a person."""
        if not self.blocks:
            return "another chain than before"
        tip = self.blocks[-1]
        return f"{len(self.rows)} events up to block {tip.number} ({hexed(tip.hash)[:12]}…)"


class _Round:
    """Adds up what one call of `advance` changes."""

    def __init__(self) -> None:
        self.added = 0
        self.subjects: set[int] = set()
        self.sources: set[int] = set()
        self.dropped: list[LogRow] = []

    def took(self, rows: Sequence[LogRow]) -> None:
        self.added += len(rows)
        self._note(rows)

    def lost(self, rows: Sequence[LogRow]) -> None:
        self.dropped += rows
        self._note(rows)

    def _note(self, rows: Sequence[LogRow]) -> None:
        for row in rows:
            self.sources.add(row.source)
            if row.subject:
                self.subjects.add(row.subject)


class Sync:
    """Brings one store level with the chain each time it is asked. For one thread at a time."""

    def __init__(
        self,
        endpoints: Endpoints,
        network: Network,
        store: LogStore,
        *,
        start: int | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._endpoints = endpoints
        self._network = network
        self._store = store
        self._start = start
        self._sleep = sleep
        self._shrinks = network.chain_id in DEV_CHAINS
        self._sources = {
            hexed(network.directory): DIRECTORY,
            hexed(network.registry): IDENTITY,
            hexed(network.membership): MEMBERSHIP,
            hexed(network.ledger): LEDGER,
            hexed(network.rewards): REWARDS,
        }
        self._span = _Span()

    def advance(self) -> Advance:
        """Takes in what is new; raises ChainUnreachable, WrongChain or EndpointsDisagree."""
        done = _Round()
        for attempt in range(_ATTEMPTS):
            try:
                head, timestamp = self._level(done)
            except (_InFlux, EndpointsDisagree):
                # Endpoints may differ for a moment at the tip; what stays different is reported.
                if attempt + 1 == _ATTEMPTS:
                    raise
                self._sleep(_PAUSE)
            else:
                return Advance(
                    head,
                    timestamp,
                    done.added,
                    frozenset(done.subjects),
                    MEMBERSHIP in done.sources,
                    tuple(done.dropped),
                    frozenset(done.sources),
                )
        raise AssertionError("unreachable")

    def _level(self, done: _Round) -> tuple[BlockRef, int]:
        for _ in range(_ATTEMPTS):
            known = self._store.head()
            tip, piece = self._look(known)
            number, timestamp = quantity(tip.number), quantity(tip.timestamp)
            if known is not None and number < known.number and not self._shortened(number, unhex(tip.hash)):
                return known, timestamp
            piece = piece or self._agree_on(known, number)
            if known is not None and piece.blocks == [known]:
                return known, timestamp
            with contextlib.closing(self._to_the_tip(piece, number)) as pieces:
                for told in pieces:
                    if not told.blocks:
                        done.lost(self._walk_back())
                        break
                    self._store.take(told.rows, told.blocks)
                    done.took(told.rows)
                else:
                    head = self._store.head()
                    assert head is not None
                    return head, timestamp
        raise _InFlux("The endpoints keep changing their story of the chain.")

    def _to_the_tip(self, piece: _Piece, tip: int) -> Generator[_Piece, None, None]:
        """This range and those after it; with one endpoint, the next one travels while this one is stored.

        Only the waiting is done in the other thread: reading there too was slower, as it and SQLite took
        turns with the interpreter's lock at every row (docs/measurements.md).
        """
        if not piece.blocks or piece.blocks[-1].number >= tip:
            yield piece
            return
        from concurrent.futures import ThreadPoolExecutor  # only a catch-up needs it

        with _rare_searches_for_garbage(), ThreadPoolExecutor(1) as ahead:
            while piece.blocks and piece.blocks[-1].number < tip:
                known = piece.blocks[-1]
                travelling: Callable[[], list[msgspec.Raw]] | None = None
                if len(self._endpoints.all) == 1:
                    asked = self._next_range(known, tip)
                    travelling = ahead.submit(self._endpoints.all[0].batch, asked.requests).result
                yield piece
                piece = self._agree_on(known, tip, travelling)
            yield piece

    # -- looking at the tip

    def _look(self, known: BlockRef | None) -> tuple[Header, _Piece | None]:
        """The tip to go to, and, where one round trip told it all, the story up to there."""
        if len(self._endpoints.all) == 1:
            endpoint = self._endpoints.all[0]
            probe = self._probe(endpoint, known, eager=known is not None)
            return probe.latest, self._eager(endpoint, known, probe)
        probes = self._endpoints.each(lambda endpoint: self._probe(endpoint, known, eager=False))
        # The highest block that a quorum of endpoints has reached: laggards do not hold the others back.
        tips = sorted(
            (probe.latest for _, probe in probes), key=lambda tip: quantity(tip.number), reverse=True
        )
        return tips[self._endpoints.quorum - 1], None

    def _probe(self, endpoint: Rpc, known: BlockRef | None, *, eager: bool) -> _Probe:
        requests = [Request("eth_chainId"), _header("latest")]
        if known is not None:
            requests.append(_header(hex(known.number)))
            if eager:
                requests.append(self._logs(known.number, "latest"))
        try:
            results = endpoint.try_batch(requests)
        except AnswerTooLarge:
            return self._probe(endpoint, known, eager=False)
        if isinstance(results[0], RpcFault):
            raise results[0]
        require_chain(endpoint, endpoint.plain(results[0]), self._network.chain_id)
        latest = _read_header(endpoint, results[1])
        if latest is None:
            raise ChainUnreachable(f"The endpoint {endpoint.name} has no blocks yet.")
        at_known = _read_header(endpoint, results[2]) if known is not None else None
        logs = None
        if len(results) == 4 and not isinstance(results[3], RpcFault):
            logs = endpoint.read(results[3], list[_Log])
        return _Probe(latest, at_known, logs)

    def _eager(self, endpoint: Rpc, known: BlockRef | None, probe: _Probe) -> _Piece | None:
        """The whole story from the first look, when few blocks have passed; otherwise None."""
        number = quantity(probe.latest.number)
        if known is None or probe.logs is None or number > known.number + KEPT_BLOCKS:
            return None
        if probe.at_known is None or unhex(probe.at_known.hash) != known.hash:
            return _Piece([], [])
        if number <= known.number:
            return _Piece([], [known])
        between = self._headers(endpoint, range(known.number + 1, number))
        logs = [log for log in probe.logs if quantity(log.block_number) > known.number]
        return self._piece(endpoint, known, [*between, probe.latest], logs)

    def _shortened(self, number: int, tip: bytes) -> bool:
        """Whether a tip below our head means that the chain is another one, and not that an endpoint lags."""
        if self._shrinks:
            return True
        for block in self._store.recent(KEPT_BLOCKS):
            if block.number == number:
                return block.hash != tip
        raise ChainUnreachable(f"The endpoints are far behind: at block {number}, which was passed long ago.")

    # -- ranges

    def _agree_on(
        self, known: BlockRef | None, tip: int, travelling: Callable[[], list[msgspec.Raw]] | None = None
    ) -> _Piece:
        """The next range's story, told alike by a quorum; `travelling` brings an answer asked for before."""
        if known is not None and known.number >= tip:
            return self._agree_that_it_stands(known)
        while True:
            asked = self._next_range(known, tip)
            try:
                piece = self._endpoints.agree(
                    partial(self._range, asked=asked, travelling=travelling), key=_Piece.key, tell=_Piece.tell
                )
            except (RpcFault, AnswerTooLarge, EndpointsDisagree):
                # Endpoints word "too many results" in many ways, and of several only some may refuse: so any
                # failure counts as that until it is one block that was asked for.
                if asked.blocks == 1:
                    raise
                self._span.halve(asked.blocks)
                travelling = None
            else:
                self._span.adapt(asked.blocks, len(piece.rows))
                return piece

    def _agree_that_it_stands(self, known: BlockRef) -> _Piece:
        """The story that nothing came after our head, or that our head is gone."""

        def hash_there(endpoint: Rpc) -> str | None:
            header = _read_header(endpoint, endpoint.batch([_header(hex(known.number))])[0])
            return None if header is None else header.hash

        found = self._endpoints.agree(hash_there)
        return _Piece([], [known] if found is not None and unhex(found) == known.hash else [])

    def _next_range(self, known: BlockRef | None, tip: int) -> _Range:
        """What to ask for next: logs, the headers to keep, and the block to build on."""
        first = known.number + 1 if known is not None else self._first_block(tip)
        last = min(tip, first + self._span.size - 1)
        numbers = range(max(first, min(last, tip - KEPT_BLOCKS + 1)), last + 1)
        requests = [self._logs(first, hex(last)), *(_header(hex(number)) for number in numbers)]
        if known is not None:
            requests.append(_header(hex(known.number)))
        return _Range(known, last - first + 1, requests)

    def _range(
        self, endpoint: Rpc, asked: _Range, travelling: Callable[[], list[msgspec.Raw]] | None
    ) -> _Piece:
        """One endpoint's story of a range."""
        results = travelling() if travelling is not None else endpoint.batch(asked.requests)
        if asked.known is not None:
            base = _read_header(endpoint, results[-1])
            if base is None or unhex(base.hash) != asked.known.hash:
                return _Piece([], [])
            results = results[:-1]
        headers = [_present(endpoint, result) for result in results[1:]]
        return self._piece(endpoint, asked.known, headers, endpoint.read(results[0], list[_Log]))

    def _piece(
        self, endpoint: Rpc, known: BlockRef | None, headers: Sequence[Header], logs: Sequence[_Log]
    ) -> _Piece:
        """Puts headers and logs of one endpoint together, provided that they fit."""
        blocks = [
            BlockRef(quantity(header.number), unhex(header.hash), unhex(header.parent_hash))
            for header in headers
        ]
        before = known
        for block in blocks:
            # Anvil may make its first block anew when it starts from a saved state; it holds no event.
            follows = before is not None and before.number + 1 == block.number and before.number > 0
            if before is not None and follows and before.hash != block.parent:
                raise _InFlux(f"The endpoint {endpoint.name} tells of blocks that do not follow each other.")
            before = block
        hashes = {header.number: header.hash for header in headers}
        times = {header.hash: header.timestamp for header in headers}
        untimed = {
            log.block_number: log.block_hash
            for log in logs
            if log.block_timestamp is None and log.block_hash not in times
        }
        for header in self._headers(endpoint, [quantity(number) for number in untimed]):
            times[header.hash] = header.timestamp
            hashes[header.number] = header.hash
        rows = []
        for log in logs:
            if hashes.get(log.block_number, log.block_hash) != log.block_hash:
                raise _InFlux(
                    f"The endpoint {endpoint.name} tells of an event in a block that it does not have."
                )
            rows.append(self._row(log, times))
        rows.sort(key=lambda row: (row.block, row.index))
        places = {(row.block, row.index) for row in rows}
        first = known.number + 1 if known is not None else 0
        if len(places) != len(rows) or (
            rows and not first <= rows[0].block <= rows[-1].block <= blocks[-1].number
        ):
            raise ChainUnreachable(f"The endpoint {endpoint.name} serves logs that were not asked for.")
        return _Piece(rows, blocks)

    def _row(self, log: _Log, times: dict[str, str]) -> LogRow:
        timestamp = log.block_timestamp if log.block_timestamp is not None else times[log.block_hash]
        try:
            return row_of(
                int(log.block_number, 16),
                bytes.fromhex(log.block_hash[2:]),
                int(log.log_index, 16),
                int(timestamp, 16),
                self._sources[log.address.lower()],
                tuple([bytes.fromhex(topic[2:]) for topic in log.topics]),
                bytes.fromhex(log.data[2:]),
            )
        except (KeyError, ValueError) as error:
            raise ChainUnreachable(
                "An endpoint served a log that is malformed or was not asked for."
            ) from error

    def _headers(self, endpoint: Rpc, numbers: Sequence[int]) -> list[Header]:
        results = endpoint.batch([_header(hex(number)) for number in numbers])
        return [_present(endpoint, result) for result in results]

    def _logs(self, first: int, last: str) -> Request:
        return Request(
            "eth_getLogs", ({"address": list(self._sources), "fromBlock": hex(first), "toBlock": last},)
        )

    # -- the two ends

    def _first_block(self, tip: int) -> int:
        """The block from which the history is read: the deployment's, when it can be found."""
        if self._start is None:
            self._start = 0
            if tip > SEARCH_FROM:
                # A node without old state cannot tell; then the history is read from the beginning.
                with contextlib.suppress(RpcFault):
                    self._start = self._endpoints.first(lambda endpoint: self._deployment(endpoint, tip))
        return min(self._start, tip)

    def _deployment(self, endpoint: Rpc, tip: int) -> int:
        """The first block with the registry's code; Membership and Directory are deployed after it."""
        low, high = 0, tip
        while low < high:
            middle = (low + high) // 2
            code = endpoint.call("eth_getCode", hexed(self._network.registry), hex(middle))
            low, high = (low, middle) if code not in ("0x", None) else (middle + 1, high)
        return low

    def _walk_back(self) -> list[LogRow]:
        """Drops what is above the newest kept block that the chain still has; everything when it has none."""
        kept = self._store.recent(KEPT_BLOCKS)
        ancestor = self._endpoints.agree(lambda endpoint: self._ancestor(endpoint, kept))
        return self._store.drop_from(0 if ancestor is None else ancestor + 1)

    @staticmethod
    def _ancestor(endpoint: Rpc, kept: Sequence[BlockRef]) -> int | None:
        start, size = 0, 8
        while part := kept[start : start + size]:
            results = endpoint.batch([_header(hex(block.number)) for block in part])
            for block, result in zip(part, results, strict=True):
                header = _read_header(endpoint, result)
                if header is not None and unhex(header.hash) == block.hash:
                    return block.number
            start, size = start + size, size * 4
        return None


class _Span:
    """How many blocks to ask for at once."""

    def __init__(self) -> None:
        self.size = FIRST_SPAN
        self._calm = 0

    def halve(self, asked: int) -> None:
        """After a refusal: half, and for a while no more."""
        self.size = max(1, asked // 2)
        self._calm = 8

    def adapt(self, asked: int, logs: int) -> None:
        """After an answer: towards the number of logs that is aimed at, at most fourfold each time."""
        if self._calm > 0:
            self._calm -= 1
            return
        fitting = asked * LOGS_PER_RANGE // max(logs, 1)
        self.size = max(1, min(fitting, asked * 4, LONGEST_SPAN))


def _header(block: str) -> Request:
    return Request("eth_getBlockByNumber", (block, False))


def _read_header(endpoint: Rpc, result: msgspec.Raw | RpcFault) -> Header | None:
    """A header, or None for a block that the endpoint does not have."""
    if isinstance(result, RpcFault):
        raise result
    return endpoint.read(result, Header | None)  # type: ignore[arg-type]  # a union is a type form, not a class


def _present(endpoint: Rpc, result: msgspec.Raw) -> Header:
    header = _read_header(endpoint, result)
    if header is None:
        raise _InFlux(f"The endpoint {endpoint.name} lost a block while it was asked.")
    return header
