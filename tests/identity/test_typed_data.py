"""Every EIP-712 digest equals the one that eth_account computes from the type's fields."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import SignableMessage, encode_typed_data
from hypothesis import given, settings
from hypothesis import strategies as st

from chatchain.identity import keys, typed_data
from chatchain.model import (
    Address,
    Decision,
    KeyKind,
    Kind,
    Network,
    Policy,
    Reason,
    RelayAddress,
    SetAnchorer,
    SetRelays,
    SetRewards,
    SetRules,
    SetSuccessor,
    SetWitnesses,
)

SOMEBODY, ANOTHER = Address(b"\x11" * 20), Address(b"\x22" * 20)

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
        lambda network, uid, epoch, kind, *rest: typed_data.add_key_digest(
            network, uid, epoch, KeyKind[kind], *rest
        ),
        "registry",
        "AddKey",
        [
            ("uid", "uint64", uint(64)),
            ("epoch", "uint32", uint(32)),
            ("keyType", "string", st.just("RSA2048_OAEP")),
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
            ("group", "string", names),
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
            ("group", "string", names),
            ("uid", "uint64", uint(64)),
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
        typed_data.register_digest(
            network,
            "ada",
            Address(bytes(20)),
            bytes(32),
            "text",  # type: ignore[arg-type]  # on purpose
            Address(bytes(20)),
            Address(bytes(20)),
            b"",
            0,
        )


# What a wallet shows between action and group, and proposer, epoch and deadline.
PROMPTS: list[tuple[Kind, int, Decision, str, str, str, dict[str, Any]]] = [
    (
        Kind.ADMIT,
        7,
        Reason("Wrote the manual."),
        "Propose",
        "Admit a member",
        "uint64 subject,string reason",
        {"subject": 7, "reason": "Wrote the manual."},
    ),
    (
        Kind.EXPEL,
        7,
        Reason(),
        "Propose",
        "Expel a member",
        "uint64 subject,string reason",
        {"subject": 7, "reason": ""},
    ),
    (
        Kind.SET_RULES,
        0,
        SetRules(Policy.VOTE, 6_700, 86_400),
        "ProposeRules",
        "Change the rules",
        "bool onlyMembersSend,uint16 threshold,uint32 votingPeriod",
        {"onlyMembersSend": True, "threshold": 6_700, "votingPeriod": 86_400},
    ),
    (
        Kind.SET_ANCHORER,
        0,
        SetAnchorer(SOMEBODY, b"\x55" * 32),
        "ProposeAnchorer",
        "Choose who anchors the log",
        "address anchorer,bytes32 logId",
        {"anchorer": SOMEBODY, "logId": b"\x55" * 32},
    ),
    (
        Kind.SET_WITNESSES,
        0,
        SetWitnesses(1, (SOMEBODY, ANOTHER)),
        "ProposeWitnesses",
        "Choose who witnesses the log",
        "uint8 quorum,address[] witnesses",
        {"quorum": 1, "witnesses": [SOMEBODY, ANOTHER]},
    ),
    (
        Kind.SET_RELAYS,
        0,
        SetRelays((RelayAddress("a.example:1", b"\x66" * 32, bytes(32)),)),
        "ProposeRelays",
        "Choose the relays",
        "Relay[] relays",
        {"relays": [{"endpoint": "a.example:1", "spki": b"\x66" * 32, "nextSpki": bytes(32)}]},
    ),
    (
        Kind.SET_RELAYS,
        0,
        SetRelays(()),
        "ProposeRelays",
        "Choose the relays",
        "Relay[] relays",
        {"relays": []},
    ),
    (
        Kind.SET_REWARDS,
        0,
        SetRewards(SOMEBODY),
        "ProposeRewards",
        "Choose who publishes rewards",
        "address setter",
        {"setter": SOMEBODY},
    ),
    (
        Kind.SUCCESSOR,
        0,
        SetSuccessor(SOMEBODY),
        "ProposeSuccessor",
        "Recommend another network",
        "address successor",
        {"successor": SOMEBODY},
    ),
    (
        Kind.SUCCESSOR,
        0,
        SetSuccessor(None),
        "ProposeSuccessor",
        "Recommend another network",
        "address successor",
        {"successor": bytes(20)},
    ),
    (
        Kind.PAUSE,
        0,
        Reason("A key leaked."),
        "ProposePause",
        "Pause the network for 7 days",
        "string reason",
        {"reason": "A key leaked."},
    ),
    (
        Kind.UNPAUSE,
        0,
        Reason(),
        "ProposePause",
        "End the pause of the network",
        "string reason",
        {"reason": ""},
    ),
]


def fields_of(members: str) -> list[dict[str, str]]:
    """Members as EIP-712 lists them."""
    return [dict(zip(("type", "name"), member.split(), strict=True)) for member in members.split(",")]


@pytest.mark.parametrize(
    ("kind", "subject", "decision", "struct", "action", "members", "shown"),
    PROMPTS,
    ids=[f"{prompt[0].name}-{number}" for number, prompt in enumerate(PROMPTS)],
)
def test_a_wallet_shows_in_words_and_values_what_is_proposed(
    kind: Kind,
    subject: int,
    decision: Decision,
    struct: str,
    action: str,
    members: str,
    shown: dict[str, Any],
) -> None:
    """The digest is that of a message that says the act, the group and every value by name."""
    network = Network(31_337, SOMEBODY, SOMEBODY, ANOTHER)
    everything = f"string action,string group,{members},uint64 proposer,uint32 epoch,uint256 deadline"
    types = {struct: fields_of(everything)}
    if "Relay[]" in members:
        types["Relay"] = fields_of("string endpoint,bytes32 spki,bytes32 nextSpki")
    domain = {
        "name": "chatchain",
        "version": "1",
        "chainId": 31_337,
        "verifyingContract": "0x" + ANOTHER.hex(),
    }
    message = {"action": action, "group": "network", **shown, "proposer": 9, "epoch": 2, "deadline": 600}
    wallet = encode_typed_data(domain, types, message)
    digest = typed_data.propose_digest(network, "network", kind, subject, decision, 9, 2, 600)
    assert digest == keys.keccak256(b"\x19" + wallet.version + wallet.header + wallet.body)


def test_no_prompt_holds_bytes_where_words_or_values_would_do() -> None:
    """Bytes of any length are keys, records and parameters of the password; groups and acts have names."""
    structs = {name: text for name, text in vars(typed_data).items() if name.isupper() and "(" in str(text)}
    opaque = {name for name, text in structs.items() if "bytes " in text}
    assert opaque == {"REGISTER", "ADD_DEVICE", "UPDATE_DEVICE", "SET_VERIFIER", "ADD_KEY", "UPDATE_KEY"}
    assert not [name for name, text in structs.items() if "uint32 group" in text or "uint8 k" in text]
    assert set(typed_data.ACTIONS) == set(Kind)
    assert len(set(typed_data.ACTIONS.values())) == len(Kind)


def test_what_a_wallet_is_given_is_what_the_registry_checks() -> None:
    """An independent reader of the prompt, after a trip through JSON, signs the same digest."""
    network = Network(31337, SOMEBODY, ANOTHER, SOMEBODY, ANOTHER)
    given = (network, 123456789012345, 2, Address(b"\x11" * 20), b"a record", 7, 1_900_000_000)
    prompt = json.loads(json.dumps(typed_data.add_device_prompt(*given)))
    signable = encode_typed_data(full_message=prompt)
    assert keys.keccak256(
        b"\x19" + signable.version + signable.header + signable.body
    ) == typed_data.add_device_digest(*given)
    assert prompt["primaryType"] == "AddDevice"
    assert prompt["message"]["record"] == "0x" + b"a record".hex()


def test_what_a_recovery_addresss_wallet_is_given_is_what_the_registry_checks() -> None:
    """The same for a proposal: the account that would take over stands in it by name."""
    network = Network(31337, SOMEBODY, ANOTHER, SOMEBODY, ANOTHER)
    given = (network, 123456789012345, 2, Address(b"\x11" * 20), 7, 1_900_000_000)
    prompt = json.loads(json.dumps(typed_data.propose_recovery_prompt(*given)))
    signable = encode_typed_data(full_message=prompt)
    assert keys.keccak256(
        b"\x19" + signable.version + signable.header + signable.body
    ) == typed_data.propose_recovery_digest(*given)
    assert (prompt["primaryType"], prompt["message"]["account"]) == ("ProposeRecovery", "0x" + "11" * 20)
