"""Our transactions are, byte for byte, those that eth_account makes."""

from __future__ import annotations

from eth_account import Account
from hypothesis import given, settings
from hypothesis import strategies as st

from chatchain.chain.transactions import Transaction, sign
from chatchain.identity.keys import Signer, to_checksum
from chatchain.model import Address

KEY = b"\x2a" * 32

numbers = st.sampled_from([0, 1, 127, 128, 255, 256, 2**32, 2**64 - 1]) | st.integers(0, 2**64 - 1)
transactions = st.builds(
    Transaction,
    chain_id=st.integers(1, 2**53),
    nonce=numbers,
    to=st.binary(min_size=20, max_size=20).map(Address),
    data=st.binary(max_size=80) | st.integers(0, 70_000).map(bytes),
    gas=numbers,
    fee=numbers,
    tip=numbers,
)


@given(transactions)
@settings(deadline=None)
def test_the_bytes_and_the_hash_are_eth_account_s(transaction: Transaction) -> None:
    """Every length of prefix, zeros and ones among the numbers, single bytes as data."""
    theirs = Account.sign_transaction(
        {
            "type": 2,
            "chainId": transaction.chain_id,
            "nonce": transaction.nonce,
            "to": to_checksum(transaction.to),
            "value": 0,
            "data": transaction.data,
            "gas": transaction.gas,
            "maxFeePerGas": transaction.fee,
            "maxPriorityFeePerGas": transaction.tip,
        },
        KEY,
    )
    ours = sign(transaction, Signer(KEY))
    assert (ours.raw, ours.hash) == (bytes(theirs.raw_transaction), bytes(theirs.hash))
