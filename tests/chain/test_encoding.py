"""The ABI's words, held against eth_abi."""

from __future__ import annotations

import contextlib

import pytest
from eth_abi.abi import decode as oracle_decode
from eth_abi.abi import encode as oracle_encode
from hypothesis import given
from hypothesis import strategies as st

from chatchain.chain.encoding import Malformed, decode, encode, split_types

TYPES = {
    "uint8": st.integers(0, 2**8 - 1),
    "uint32": st.integers(0, 2**32 - 1),
    "uint64": st.integers(0, 2**64 - 1),
    "uint256": st.integers(0, 2**256 - 1),
    "bool": st.booleans(),
    "address": st.binary(min_size=20, max_size=20),
    "bytes32": st.binary(min_size=32, max_size=32),
    "bytes": st.binary(max_size=100),
    "string": st.text(max_size=50),
    "uint64[]": st.lists(st.integers(0, 2**64 - 1), max_size=5),
    "string[]": st.lists(st.text(max_size=10), max_size=4),
    "(string,bytes32,bytes32)[]": st.lists(
        st.tuples(
            st.text(max_size=40), st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32)
        ),
        max_size=4,
    ),
    "(uint8,uint32,address,bytes32)[]": st.lists(
        st.tuples(
            st.integers(0, 255),
            st.integers(0, 2**32 - 1),
            st.binary(min_size=20, max_size=20),
            st.binary(min_size=32, max_size=32),
        ),
        max_size=4,
    ),
}


@st.composite
def arguments(draw: st.DrawFn) -> tuple[tuple[str, ...], tuple[object, ...]]:
    types = tuple(draw(st.lists(st.sampled_from(sorted(TYPES)), max_size=6)))
    return types, tuple(draw(TYPES[name]) for name in types)


@given(arguments())
def test_encodes_and_decodes_as_eth_abi_does(case: tuple[tuple[str, ...], tuple[object, ...]]) -> None:
    """Our bytes are eth_abi's, eth_abi reads them back, and so do we."""
    types, values = case
    data = encode(types, values)
    assert data == oracle_encode(types, values)
    assert decode(types, data) == values
    oracle_decode(types, data)


@given(st.lists(st.sampled_from(sorted(TYPES)), min_size=1, max_size=4), st.binary(max_size=400))
def test_garbage_is_decoded_or_refused_and_nothing_else(types: list[str], data: bytes) -> None:
    """Only Malformed escapes, whatever the bytes."""
    with contextlib.suppress(Malformed):
        decode(tuple(types), data)


@given(arguments(), st.data())
def test_truncated_data_never_decodes_to_the_whole(
    case: tuple[tuple[str, ...], tuple[object, ...]], data: st.DataObject
) -> None:
    """A cut encoding is refused, or was padding that carries nothing."""
    types, values = case
    whole = encode(types, values)
    cut = data.draw(st.integers(0, max(0, len(whole) - 32)))
    with contextlib.suppress(Malformed):
        assert decode(types, whole[:cut]) == values


@pytest.mark.parametrize(
    ("types", "data"),
    [
        (("uint64",), (2**64).to_bytes(32, "big")),
        (("bool",), (2).to_bytes(32, "big")),
        (("address",), b"\1" * 32),
        (("bytes",), (32).to_bytes(32, "big") + (2**255).to_bytes(32, "big")),
        (("bytes",), (2**255).to_bytes(32, "big")),
        (("uint64[]",), (32).to_bytes(32, "big") + (2**60).to_bytes(32, "big")),
        (("string",), (32).to_bytes(32, "big") + (1).to_bytes(32, "big") + b"\xff" + bytes(31)),
        (("bytes32",), b""),
    ],
)
def test_refuses_what_no_contract_would_send(types: tuple[str, ...], data: bytes) -> None:
    """Words too wide, lengths and offsets beyond the data, text that is none."""
    with pytest.raises(Malformed):
        decode(types, data)


@pytest.mark.parametrize(
    ("types", "values"),
    [(("uint8",), (256,)), (("address",), (b"",)), (("bytes32",), (b"1",)), (("bool",), ())],
)
def test_refuses_to_encode_what_does_not_fit(types: tuple[str, ...], values: tuple[object, ...]) -> None:
    """A value of the wrong size or number is a mistake of ours and never reaches a contract."""
    with pytest.raises(Malformed):
        encode(types, values)


def test_splits_types_at_outer_commas() -> None:
    """Tuples stay whole."""
    assert split_types("uint64,(string,bytes32)[],bool") == ("uint64", "(string,bytes32)[]", "bool")
    assert split_types("") == ()
