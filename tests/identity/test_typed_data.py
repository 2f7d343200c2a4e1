"""Every EIP-712 digest equals the one that eth_account computes from the type's fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import SignableMessage, encode_typed_data
from hypothesis import given, settings
from hypothesis import strategies as st

from chatchain.identity import keys, typed_data
from chatchain.model import Address, Network

addresses = st.binary(min_size=20, max_size=20).map(Address)
words = st.binary(min_size=32, max_size=32)
blobs = st.binary(max_size=100)
names = st.text(max_size=40)
networks = st.builds(
    Network,
    chain_id=st.integers(0, 2**256 - 1),
    directory=addresses,
    registry=addresses,
    membership=addresses,
    ledger=addresses,
)


def uint(bits: int) -> st.SearchStrategy[int]:
    """Numbers of this width, its edges included."""
    return st.one_of(st.sampled_from([0, 1, 2**bits - 1]), st.integers(0, 2**bits - 1))


# (digest, contract, primary type, [(field, solidity type, values)]), as the contracts have them
CASES: list[tuple[Callable[..., bytes], str, str, list[tuple[str, str, st.SearchStrategy[Any]]]]] = [
    (
        typed_data.register_digest,
        "registry",
        "Register",
        [
            ("username", "string", names),
            ("account", "address", addresses),
            ("verifier", "bytes32", words),
            ("kdf", "bytes", blobs),
            ("recovery", "address", addresses),
            ("signer", "address", addresses),
            ("record", "bytes", blobs),
            ("deadline", "uint256", uint(256)),
        ],
    ),
    (
        typed_data.add_device_digest,
        "registry",
        "AddDevice",
        [
            ("uid", "uint64", uint(64)),
            ("epoch", "uint32", uint(32)),
            ("signer", "address", addresses),
            ("record", "bytes", blobs),
            ("nonce", "uint256", uint(256)),
            ("deadline", "uint256", uint(256)),
        ],
    ),
    (
        typed_data.update_device_digest,
        "registry",
        "UpdateDevice",
        [
            ("uid", "uint64", uint(64)),
            ("epoch", "uint32", uint(32)),
            ("deviceId", "uint32", uint(32)),
            ("version", "uint32", uint(32)),
            ("signer", "address", addresses),
            ("record", "bytes", blobs),
            ("deadline", "uint256", uint(256)),
        ],
    ),
    (
        typed_data.revoke_device_digest,
        "registry",
        "RevokeDevice",
        [
            ("uid", "uint64", uint(64)),
            ("epoch", "uint32", uint(32)),
            ("deviceId", "uint32", uint(32)),
            ("deadline", "uint256", uint(256)),
        ],
    ),
    (
        typed_data.set_verifier_digest,
        "registry",
        "SetVerifier",
        [
            ("uid", "uint64", uint(64)),
            ("epoch", "uint32", uint(32)),
            ("verifier", "bytes32", words),
            ("kdf", "bytes", blobs),
            ("nonce", "uint256", uint(256)),
            ("deadline", "uint256", uint(256)),
        ],
    ),
    (
        typed_data.add_key_digest,
        "registry",
        "AddKey",
        [
            ("uid", "uint64", uint(64)),
            ("epoch", "uint32", uint(32)),
            ("keyType", "uint8", uint(8)),
            ("key", "bytes", blobs),
            ("nonce", "uint256", uint(256)),
            ("deadline", "uint256", uint(256)),
        ],
    ),
    (
        typed_data.update_key_digest,
        "registry",
        "UpdateKey",
        [
            ("uid", "uint64", uint(64)),
            ("epoch", "uint32", uint(32)),
            ("keyId", "uint32", uint(32)),
            ("version", "uint32", uint(32)),
            ("key", "bytes", blobs),
            ("deadline", "uint256", uint(256)),
        ],
    ),
    (
        typed_data.revoke_key_digest,
        "registry",
        "RevokeKey",
        [
            ("uid", "uint64", uint(64)),
            ("epoch", "uint32", uint(32)),
            ("keyId", "uint32", uint(32)),
            ("deadline", "uint256", uint(256)),
        ],
    ),
    (
        typed_data.set_recovery_digest,
        "registry",
        "SetRecovery",
        [
            ("uid", "uint64", uint(64)),
            ("epoch", "uint32", uint(32)),
            ("recovery", "address", addresses),
            ("nonce", "uint256", uint(256)),
            ("deadline", "uint256", uint(256)),
        ],
    ),
    *(
        (
            digest,
            "registry",
            primary,
            [
                ("uid", "uint64", uint(64)),
                ("epoch", "uint32", uint(32)),
                ("account", "address", addresses),
                ("nonce", "uint256", uint(256)),
                ("deadline", "uint256", uint(256)),
            ],
        )
        for digest, primary in (
            (typed_data.propose_recovery_digest, "ProposeRecovery"),
            (typed_data.veto_recovery_digest, "VetoRecovery"),
        )
    ),
    (
        typed_data.finalise_recovery_digest,
        "registry",
        "FinaliseRecovery",
        [
            ("uid", "uint64", uint(64)),
            ("epoch", "uint32", uint(32)),
            ("account", "address", addresses),
            ("deadline", "uint256", uint(256)),
        ],
    ),
    (
        typed_data.transfer_digest,
        "registry",
        "Transfer",
        [
            ("uid", "uint64", uint(64)),
            ("epoch", "uint32", uint(32)),
            ("from", "address", addresses),
            ("to", "address", addresses),
            ("nonce", "uint256", uint(256)),
            ("deadline", "uint256", uint(256)),
        ],
    ),
    (
        typed_data.invalidate_nonce_digest,
        "registry",
        "InvalidateNonce",
        [
            ("uid", "uint64", uint(64)),
            ("epoch", "uint32", uint(32)),
            ("nonce", "uint256", uint(256)),
            ("deadline", "uint256", uint(256)),
        ],
    ),
    (
        typed_data.create_group_digest,
        "membership",
        "CreateGroup",
        [
            ("name", "string", names),
            ("founders", "uint64[]", st.lists(uint(64), max_size=8)),
            ("threshold", "uint16", uint(16)),
            ("votingPeriod", "uint32", uint(32)),
            ("creator", "uint64", uint(64)),
            ("epoch", "uint32", uint(32)),
            ("deadline", "uint256", uint(256)),
        ],
    ),
    (
        typed_data.leave_digest,
        "membership",
        "Leave",
        [
            ("group", "uint32", uint(32)),
            ("uid", "uint64", uint(64)),
            ("sequence", "uint32", uint(32)),
            ("epoch", "uint32", uint(32)),
            ("deadline", "uint256", uint(256)),
        ],
    ),
    (
        typed_data.tree_head_digest,
        "ledger",
        "TreeHead",
        [("logId", "bytes32", words), ("size", "uint64", uint(64)), ("root", "bytes32", words)],
    ),
    (
        typed_data.login_digest,
        "registry",
        "Login",
        [
            ("spki", "bytes32", words),
            ("nonce", "bytes32", words),
            ("uid", "uint64", uint(64)),
            ("device", "uint32", uint(32)),
            ("epoch", "uint32", uint(32)),
        ],
    ),
    (
        typed_data.request_digest,
        "membership",
        "Request",
        [
            ("group", "uint32", uint(32)),
            ("uid", "uint64", uint(64)),
            ("epoch", "uint32", uint(32)),
            ("deadline", "uint256", uint(256)),
        ],
    ),
    (
        typed_data.propose_digest,
        "membership",
        "Propose",
        [
            ("group", "uint32", uint(32)),
            ("kind", "uint8", uint(8)),
            ("subject", "uint64", uint(64)),
            ("data", "bytes", blobs),
            ("proposer", "uint64", uint(64)),
            ("epoch", "uint32", uint(32)),
            ("deadline", "uint256", uint(256)),
        ],
    ),
    (
        typed_data.vote_digest,
        "membership",
        "Vote",
        [
            ("proposal", "uint64", uint(64)),
            ("voter", "uint64", uint(64)),
            ("epoch", "uint32", uint(32)),
            ("support", "bool", st.booleans()),
        ],
    ),
]


def oracle(
    network: Network, contract: str, primary: str, fields: list[tuple[str, str]], values: list[Any]
) -> SignableMessage:
    """What eth_account makes of the same message."""
    domain = {
        "name": "chatchain",
        "version": "1",
        "chainId": network.chain_id,
        "verifyingContract": "0x" + getattr(network, contract).hex(),
    }
    types = {primary: [{"name": name, "type": kind} for name, kind in fields]}
    message = {
        name: "0x" + value.hex() if kind == "address" else value
        for (name, kind), value in zip(fields, values, strict=True)
    }
    return encode_typed_data(domain, types, message)


@pytest.mark.parametrize("case", CASES, ids=[case[2] for case in CASES])
@given(st.data())
@settings(deadline=None, max_examples=30)
def test_the_digest_is_what_eth_account_signs(
    case: tuple[Callable[..., bytes], str, str, list[tuple[str, str, st.SearchStrategy[Any]]]],
    data: st.DataObject,
) -> None:
    """Equal digests, and a signature made by either side is recovered by the other."""
    digest_of, contract, primary, shape = case
    network = data.draw(networks)
    values = [data.draw(strategy, label=name) for name, _, strategy in shape]
    digest = digest_of(network, *values)
    theirs = oracle(network, contract, primary, [(name, kind) for name, kind, _ in shape], values)
    assert digest == keys.keccak256(b"\x19" + theirs.version + theirs.header + theirs.body)
    secret = b"\x2a" * 32
    assert keys.recover(digest, bytes(Account.sign_message(theirs, secret).signature)) == keys.address_of(
        secret
    )
    assert (
        Account.recover_message(theirs, signature=keys.sign_digest(secret, digest))
        == Account.from_key(secret).address
    )


@pytest.mark.parametrize(
    ("values", "failure"),
    [
        ((-1, 1, 0, True), ValueError),
        ((2**64, 1, 0, True), ValueError),
        ((True, 1, 0, True), ValueError),
        ((1, 1, 2**32, True), ValueError),
        ((1, 1, 0, 1), TypeError),
    ],
)
def test_a_value_that_does_not_fit_its_field_is_refused(
    values: tuple[Any, ...], failure: type[Exception]
) -> None:
    """Nothing is truncated or coerced on the way into a digest."""
    network = Network(1, Address(bytes(20)), Address(bytes(20)), Address(bytes(20)))
    with pytest.raises(failure):
        typed_data.vote_digest(network, *values)


def test_bytes_of_another_length_are_refused() -> None:
    """An address has 20 bytes and a bytes32 has 32."""
    network = Network(1, Address(bytes(20)), Address(bytes(20)), Address(bytes(20)))
    with pytest.raises(ValueError, match="32 bytes"):
        typed_data.login_digest(network, bytes(31), bytes(32), 1, 1, 0)
    with pytest.raises(ValueError, match="20 bytes"):
        typed_data.add_device_digest(network, 1, 0, Address(bytes(19)), b"", 0, 0)
    with pytest.raises(TypeError, match="bytes"):
        typed_data.propose_digest(network, 0, 0, 1, "text", 1, 0, 0)  # type: ignore[arg-type]  # on purpose
