"""The compiled contracts that the package carries, as deploy/compile.py wrote them."""

from __future__ import annotations

import pkgutil
from functools import cache
from typing import Any, Final

import msgspec

CONTRACTS: Final = ("Directory", "IdentityRegistry", "Membership")


class Artifact(msgspec.Struct, frozen=True):
    """One contract: ABI, code in hex, and [start, length] of what its construction fills in."""

    contract: str
    abi: list[dict[str, Any]]
    bytecode: str
    runtime: str
    immutables: list[tuple[int, int]]


class Code(msgspec.Struct, frozen=True):
    """The part of an artifact that tells whether a contract on the chain is this one."""

    runtime: str
    immutables: list[tuple[int, int]]

    def matches(self, found: bytes) -> bool:
        """Whether code on the chain is this contract's, whatever its immutables hold."""
        masked = bytearray(found)
        for start, length in self.immutables:
            masked[start : start + length] = bytes(length)
        return masked.hex() == self.runtime.removeprefix("0x")


@cache
def artifact(contract: str) -> Artifact:
    """The whole artifact of a contract named in CONTRACTS."""
    return msgspec.json.decode(_read(contract), type=Artifact)


@cache
def code(contract: str) -> Code:
    """The runtime code of a contract named in CONTRACTS; skips over its ABI, which the client never needs."""
    return msgspec.json.decode(_read(contract), type=Code)


def _read(contract: str) -> bytes:
    # Not importlib.resources: its import costs more than all the rest of a start-up check.
    data = pkgutil.get_data("chatchain.chain", f"abi/{contract}.json")
    assert data is not None, "the package is installed as files"
    return data
