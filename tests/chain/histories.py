"""Histories of rows as the contracts would emit them, without a chain: for tests of the fold alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from chatchain.chain.encoding import encode
from chatchain.chain.events import IDENTITY, MEMBERSHIP, row_of
from chatchain.identity.keys import keccak256
from chatchain.model import BlockRef, LogRow


def topic(signature: str) -> bytes:
    return keccak256(signature.encode())


def word(number: int) -> bytes:
    return number.to_bytes(32, "big")


class History:
    """A little registry and Membership that only emit, one event a block unless told otherwise."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self.rows: list[LogRow] = []
        self.block = 1
        self.index = 0
        self.devices: dict[int, dict[int, tuple[int, bool]]] = {}  # uid -> device -> version, active
        self.members: dict[int, int] = {}
        self.sequence = 0
        self.epoch = 0
        self.roster = bytes(32)
        self.proposals: dict[int, set[int]] = {}  # the open ones and who voted
        self.yes: dict[int, list[int]] = {}
        self.count = 0
        self.group()

    def step(self, blocks: int = 1) -> None:
        """Goes on to a later block."""
        self.block += blocks
        self.index = 0

    def block_ref(self, number: int) -> BlockRef:
        return BlockRef(number, keccak256(b"b%d" % number), keccak256(b"b%d" % (number - 1)))

    def blocks(self) -> list[BlockRef]:
        return [self.block_ref(number) for number in range(1, self.block + 1)]

    def emit(self, source: int, signature: str, topics: list[bytes], data: bytes) -> None:
        self.rows.append(
            row_of(
                self.block,
                keccak256(b"b%d" % self.block),
                self.index,
                1_700_000_000 + self.block,
                source,
                (topic(signature), *topics),
                data,
            )
        )
        self.index += 1

    def bytes(self, length: int) -> bytes:
        return self._random.randbytes(length)

    # -- one for each verb

    def group(self) -> None:
        data = encode(("string", "uint8", "uint16", "uint32"), ("network", 1, 5000, 100))
        self.emit(MEMBERSHIP, "GroupCreated(uint32,string,uint8,uint16,uint32)", [word(0)], data)

    def register(self) -> int:
        uid = 100_000 + len(self.devices) + 1
        account = self.bytes(20)
        self.devices[uid] = {}
        data = encode(("string", "address"), (f"user-{uid}", bytes(20)))
        self.emit(
            IDENTITY, "Registered(uint64,address,string,address)", [word(uid), bytes(12) + account], data
        )
        self.verifier(uid)
        self.add_device(uid)
        return uid

    def verifier(self, uid: int) -> None:
        data = encode(("bytes32", "bytes"), (self.bytes(32), self.bytes(23)))
        self.emit(IDENTITY, "VerifierSet(uint64,bytes32,bytes)", [word(uid)], data)

    def add_device(self, uid: int) -> None:
        device = len(self.devices[uid]) + 1
        self.devices[uid][device] = (1, True)
        topics = [word(uid), word(device), bytes(12) + self.bytes(20)]
        data = encode(("bytes",), (self.bytes(40),))
        self.emit(IDENTITY, "DeviceAdded(uint64,uint32,address,bytes)", topics, data)

    def update_device(self, uid: int, device: int) -> None:
        version = self.devices[uid][device][0] + 1
        self.devices[uid][device] = (version, True)
        topics = [word(uid), word(device), bytes(12) + self.bytes(20)]
        data = encode(("uint32", "bytes"), (version, self.bytes(40)))
        self.emit(IDENTITY, "DeviceUpdated(uint64,uint32,address,uint32,bytes)", topics, data)

    def revoke_device(self, uid: int, device: int) -> None:
        self.devices[uid][device] = (self.devices[uid][device][0], False)
        self.emit(IDENTITY, "DeviceRevoked(uint64,uint32)", [word(uid), word(device)], b"")

    def join(self, uid: int) -> None:
        self.sequence += 1
        self.members[uid] = self.sequence
        self._turn("MemberAdded", 1, uid, self.sequence)

    def leave(self, uid: int) -> None:
        self._turn("MemberRemoved", 2, uid, self.members.pop(uid))

    def _turn(self, name: str, change: int, uid: int, sequence: int) -> None:
        types = ("bytes32", "uint8", "uint64", "uint32")
        self.roster = keccak256(encode(types, (self.roster, change, uid, sequence)))
        self.epoch += 1
        data = encode(("uint32", "uint32", "bytes32"), (sequence, self.epoch, self.roster))
        self.emit(MEMBERSHIP, f"{name}(uint32,uint64,uint32,uint32,bytes32)", [word(0), word(uid)], data)

    def propose(self, subject: int) -> int:
        self.count += 1
        self.proposals[self.count] = set()
        self.yes[self.count] = [0, 0]
        data = encode(
            ("uint8", "uint64", "uint32", "uint64", "bytes"),
            (0, subject, max(len(self.members), 1), 1_700_000_000 + self.block + 100, b""),
        )
        topics = [word(self.count), word(0), word(subject)]
        self.emit(MEMBERSHIP, "Proposed(uint64,uint32,uint64,uint8,uint64,uint32,uint64,bytes)", topics, data)
        return self.count

    def vote(self, proposal: int, voter: int, support: bool) -> None:
        self.proposals[proposal].add(voter)
        self.yes[proposal][not support] += 1
        data = encode(("bool", "uint32", "uint32"), (support, *self.yes[proposal]))
        self.emit(MEMBERSHIP, "Voted(uint64,uint64,bool,uint32,uint32)", [word(proposal), word(voter)], data)

    def close(self, proposal: int, state: int) -> None:
        del self.proposals[proposal]
        self.emit(MEMBERSHIP, "Closed(uint64,uint8)", [word(proposal)], encode(("uint8",), (state,)))

    # -- anything that is possible now

    def possible(self) -> list[Callable[[], object]]:
        """Every event that the contracts could emit next."""
        steps: list[Callable[[], object]] = [self.register]
        for uid, devices in self.devices.items():
            steps += [partial(self.verifier, uid), partial(self.add_device, uid)]
            for device, (_, active) in devices.items():
                if active:
                    steps += [
                        partial(self.update_device, uid, device),
                        partial(self.revoke_device, uid, device),
                    ]
            if uid in self.members:
                steps.append(partial(self.leave, uid))
            else:
                steps += [partial(self.join, uid), partial(self.propose, uid)]
        for proposal, voted in self.proposals.items():
            steps.append(partial(self.close, proposal, 2))
            steps += [
                partial(self.vote, proposal, voter, voter % 2 == 0) for voter in self.members.keys() - voted
            ]
        return steps


def random_history(choices: list[tuple[int, int]], seed: int = 0) -> History:
    """A history from numbers: each pair picks one of the possible events and how many blocks pass before
    it.
    """
    history = History(seed)
    for pick, blocks in choices:
        if blocks:
            history.step(blocks)
        possible = history.possible()
        possible[pick % len(possible)]()
    return history
