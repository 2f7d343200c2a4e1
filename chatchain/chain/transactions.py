"""Signed transactions of type 2 (EIP-1559), as bytes. Pure.

Our own forty lines, because a sponsor signs a thousand a second and eth_account, whose import alone takes a
second, manages a few hundred; the tests hold each byte against it. Sources: EIP-2718, EIP-1559 and the
Yellow Paper's appendix B (RLP).
"""

from __future__ import annotations

from typing import NamedTuple

from chatchain.identity.keys import Signer, keccak256
from chatchain.model import Address

_TYPE = b"\x02"
_NOTHING = b"\xc0"  # the empty list: no access list

_SHORT = 55
"""Lengths up to here stand in the prefix itself."""


class Transaction(NamedTuple):
    """A call to a contract that carries no ether."""

    chain_id: int
    nonce: int
    to: Address
    data: bytes
    gas: int
    fee: int
    tip: int


class Signed(NamedTuple):
    """What is sent, and the hash under which it is found."""

    raw: bytes
    hash: bytes


def sign(transaction: Transaction, signer: Signer) -> Signed:
    """Signs with a secp256k1 key."""
    body = _body(transaction)
    signature = signer.sign_digest(keccak256(_TYPE + _list(body)))
    r, s = signature[:32].lstrip(b"\0"), signature[32:64].lstrip(b"\0")
    raw = _TYPE + _list(body + _integer(signature[64] - 27) + _item(r) + _item(s))
    return Signed(raw, keccak256(raw))


def _body(transaction: Transaction) -> bytes:
    numbers = (
        transaction.chain_id,
        transaction.nonce,
        transaction.tip,
        transaction.fee,
        transaction.gas,
    )
    rest = (_item(transaction.to), _integer(0), _item(transaction.data), _NOTHING)
    return b"".join((*(_integer(number) for number in numbers), *rest))


def _integer(number: int) -> bytes:
    return _item(number.to_bytes((number.bit_length() + 7) // 8, "big"))


def _item(data: bytes) -> bytes:
    if len(data) == 1 and data[0] < 0x80:
        return data
    return _prefix(0x80, len(data)) + data


def _list(body: bytes) -> bytes:
    return _prefix(0xC0, len(body)) + body


def _prefix(kind: int, length: int) -> bytes:
    if length <= _SHORT:
        return bytes([kind + length])
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([kind + _SHORT + len(size)]) + size
