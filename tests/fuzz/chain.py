"""What a chain's endpoint tells, and what people wrote into the chain."""

from __future__ import annotations

import json
from typing import Final

from chatchain.chain import decisions, events, reverts
from chatchain.chain.encoding import Malformed, decode, encode
from chatchain.chain.events import Directory, row_of
from chatchain.chain.rpc import Endpoints, Rpc, RpcFault, hexed
from chatchain.chain.sync import MemoryLogStore, Sync
from chatchain.errors import (
    BadRecord,
    ChainUnreachable,
    ChatchainError,
    EndpointsDisagree,
    FoldMismatch,
    VerificationError,
    WrongChain,
)
from chatchain.identity import ed25519, keys
from chatchain.identity.record import decode_record, encode_record, verify_record
from chatchain.model import Kind, LogRow, Policy, RelayAddress, SetRelays, SetRules
from tests.chain.histories import random_history, word
from tests.fuzz.target import cases, field, target
from tests.identity.people import NETWORK, person

ADA: Final = person("ada")
ENTRY: Final = ADA.user.devices[0].current
HISTORY: Final = random_history([(pick * 7 + 3, pick % 3) for pick in range(60)]).rows
UID: Final = 100_001
"""The first user of that history."""
KINDS: Final = sorted(events._DECODERS)
"""Every event that the contracts have: its source and first topic."""


def spelt(row: LogRow, place: int) -> bytes:
    """A row as a fuzzer may change it: kind, how many rows came before, number of topics, topics, data."""
    kind = KINDS.index((row.source, row.topics[0]))
    return bytes([kind, place, len(row.topics) - 1]) + b"".join(row.topics[1:]) + row.data


ROWS: Final = {row.topics[0]: spelt(row, place) for place, row in enumerate(HISTORY)}
BLANK: Final = [
    bytes([kind, 20, 3]) + b"".join(map(word, (UID, 1, 1))) + bytes(256) for kind in range(len(KINDS))
]


@target(FoldMismatch, seeds=[*ROWS.values(), *BLANK])
def event(data: bytes) -> None:
    """One more log after a part of a lawful history."""
    if len(data) < 3:
        return
    count = data[2] % 4
    source, kind = KINDS[data[0] % len(KINDS)]
    topics = (kind, *(data[3 + 32 * at : 35 + 32 * at].ljust(32, b"\0") for at in range(count)))
    fold = Directory(HISTORY[: data[1]])
    fold.take(row_of(10_000, bytes(32), 0, 1_700_100_000, source, topics, data[3 + 32 * count :]))
    for uid in fold.uids():
        fold.user(uid)
    fold.group(0)
    fold.proposals(0, now=1_700_100_000)


DECISIONS: Final = [
    bytes([Kind.SET_RULES]) + decisions.decision_data(SetRules(Policy.VOTE, 5000, 3600)),
    bytes([Kind.SET_RELAYS])
    + decisions.decision_data(SetRelays((RelayAddress("relay.example:5555", bytes(32), bytes(32)),))),
    bytes([Kind.ADMIT]) + b"because",
]


@target(seeds=DECISIONS)
def decision(data: bytes) -> None:
    """What a proposal of anybody says that it would do."""
    kinds = list(Kind)
    if data:
        decisions.read_decision(kinds[data[0] % len(kinds)], data[1:])


def sample(type_: str) -> object:
    """Any value of a type that a reason may carry."""
    if type_.startswith("bytes") and type_ != "bytes":
        return bytes(int(type_.removeprefix("bytes")))
    return {"string": "text", "bytes": b"data", "bool": True, "address": bytes(20)}.get(type_, 7)


REASONS: Final = [
    selector + encode(types, tuple(map(sample, types)))
    for selector, (types, _) in reverts.BY_SELECTOR.items()
]


@target(seeds=REASONS)
def refusal(data: bytes) -> None:
    """Why a contract refused, as an endpoint tells it."""
    assert isinstance(reverts.explain(data), ChatchainError)
    reverts.revert_data(data.decode("latin-1"))


TYPES: Final = ("uint64", "(string,bytes32,bytes32)[]", "bytes", "bool", "address", "uint64[]")


VALUES: Final = (7, [("host:1", bytes(32), bytes(32))], b"data", True, bytes(20), [1, 2])


@target(Malformed, seeds=[encode(TYPES, VALUES)])
def abi(data: bytes) -> None:
    """The contracts' words."""
    decode(TYPES, data)


SIGNED: Final = {ENTRY.record} | {
    bytes.fromhex(case["record"]) for case in cases("record.json") if case["outcome"] == "ok"
}


@target(BadRecord, seeds=[ENTRY.record, *field("record.json", "record")])
def record(data: bytes) -> None:
    """A device's record: only what was signed verifies."""
    assert encode_record(decode_record(data)) == data
    verify_record(data, NETWORK, ADA.user.account, ADA.uid, 1, 1, ENTRY.signer)
    assert data in SIGNED


@target(VerificationError, seeds=[keys.sign_digest(bytes([1]) * 32, bytes(32))])
def signature(data: bytes) -> None:
    """A signature by an account or a signer."""
    keys.recover(bytes(32), data)


BY_DEVICE: Final = ADA.secrets().signing_key.sign(b"message")


@target(seeds=[ADA.secrets().signing_key.public_key().public_bytes_raw() + BY_DEVICE + b"message"])
def device_signature(data: bytes) -> None:
    """A device's signature: key, signature, message."""
    key, signed, said = data[:32], data[32:96], data[96:]
    if ed25519.verify(key, signed, said):
        assert ed25519.is_valid_key(key)


class Endpoint(Rpc):
    """An endpoint that answers what it is told to, in turn."""

    def __init__(self, answers: list[bytes]) -> None:
        super().__init__("http://127.0.0.1:1")
        self._answers = answers

    def _post(self, body: bytes) -> bytes:
        return self._answers.pop(0) if self._answers else b""


def answer(*results: object) -> bytes:
    """A batch's answer."""
    told = [{"jsonrpc": "2.0", "id": at, "result": result} for at, result in enumerate(results)]
    return json.dumps(told).encode()


def block(number: int) -> dict[str, str]:
    """A header."""
    return {
        "number": hex(number),
        "hash": hexed(number.to_bytes(32, "big")),
        "parentHash": hexed(max(number - 1, 0).to_bytes(32, "big")),
        "timestamp": hex(1_700_000_000 + number),
    }


def log(row: LogRow, at: int) -> dict[str, object]:
    """A log in a block."""
    contract = (NETWORK.directory, NETWORK.registry, NETWORK.membership)[row.source]
    return {
        "address": hexed(contract),
        "topics": [hexed(topic) for topic in row.topics],
        "data": hexed(row.data),
        "blockNumber": hex(1),
        "blockHash": hexed((1).to_bytes(32, "big")),
        "logIndex": hex(at),
    }


STORY: Final = b"\n".join(
    (
        answer(hex(NETWORK.chain_id), block(1)),
        answer([log(row, at) for at, row in enumerate(HISTORY[:4])], block(0), block(1)),
    )
)


@target(
    ChainUnreachable,
    WrongChain,
    EndpointsDisagree,
    FoldMismatch,
    RpcFault,
    seeds=[STORY, b'{"jsonrpc":"2.0","id":0,"error":{"code":3,"message":"no","data":"0x"}}'],
)
def endpoint(data: bytes) -> None:
    """A whole catch-up, each line the answer to one question."""
    endpoints = Endpoints(["http://127.0.0.1:1"])
    endpoints.all = (Endpoint(data.split(b"\n")),)
    store = MemoryLogStore()
    Sync(endpoints, NETWORK, store, start=0, sleep=lambda _: None).advance()
    Directory(store.rows())
