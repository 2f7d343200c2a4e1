"""What the relay's database keeps of a signed transaction, so that another process can see it through.

Numbers of wei are written out: they may be larger than the format's integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from chatchain.model import Address, Call, Dispatch


class Sending(NamedTuple):
    """A transaction on its way: its calls, the most that each of these may cost, and how it is sent."""

    calls: list[Call]
    wei: list[int]
    dispatch: Dispatch


class _Kept(msgspec.Struct, array_like=True):
    calls: list[tuple[str, bytes]]
    wei: list[str]
    sender: bytes
    nonce: int
    to: bytes
    data: bytes
    gas: int
    fees: tuple[str, str, str]
    hashes: list[bytes]


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Kept)


def encode(calls: Sequence[Call], wei: Sequence[int], dispatch: Dispatch) -> bytes:
    """Writes it down."""
    return _ENCODER.encode(
        _Kept(
            [(call.contract, call.data) for call in calls],
            [str(amount) for amount in wei],
            dispatch.sender,
            dispatch.nonce,
            dispatch.to,
            dispatch.data,
            dispatch.gas,
            (str(dispatch.fee), str(dispatch.tip), str(dispatch.agreed)),
            list(dispatch.hashes),
        )
    )


def decode(kept: bytes) -> Sending:
    """Reads what this program has written."""
    found = _DECODER.decode(kept)
    fee, tip, agreed = map(int, found.fees)
    return Sending(
        [Call(contract, data) for contract, data in found.calls],
        [int(amount) for amount in found.wei],
        Dispatch(
            Address(found.sender),
            found.nonce,
            Address(found.to),
            found.data,
            found.gas,
            fee,
            tip,
            agreed,
            tuple(found.hashes),
        ),
    )
