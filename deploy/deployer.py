"""The deployer's part as a library: creates the contracts, enters relays and founders, seals.

Order and addresses: IdentityRegistry, Membership, Directory, from three nonces in a row. Membership must know
the Directory and the Directory must know Membership, so the Directory's address is computed beforehand; if
another transaction of the same key comes between, the Directory refuses its wiring and nothing was gained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from chatchain.chain import calls
from chatchain.chain.artifacts import CONTRACTS, Artifact, artifact, code
from chatchain.chain.reverts import explain, revert_data
from chatchain.chain.rpc import Endpoints, Rpc, RpcFault, hexed, quantity, unhex
from chatchain.chain.writer import ChainWriter
from chatchain.errors import (
    ChainError,
    ChainUnreachable,
    NoContract,
    Reverted,
    TransactionPending,
    UnknownUser,
)
from chatchain.identity.keys import address_of, keccak256, parse_address, to_checksum
from chatchain.identity.names import RESERVED_NAMES, normalise_username
from chatchain.model import Address, Call, Network, Policy, RelayAddress, Uid

if TYPE_CHECKING:
    from eth_typing import HexStr
    from web3 import Web3
    from web3.types import TxParams, TxReceipt

DEV_CHAINS: Final = {31337: "Anvil", 1337: "Ganache"}

THRESHOLD: Final = 5000
"""Basis points of the electorate that the yes votes must exceed: more than half."""

VOTING_PERIOD: Final = 7 * 24 * 3600

RECEIPT_SECONDS: Final = 120


class Deployment(msgspec.Struct, frozen=True, rename="camel"):
    """What a deployment left on a chain; the file of the same content is deploy/addresses/<chainId>.json."""

    chain_id: int
    directory: str
    identity_registry: str
    membership: str
    deployer: str
    block: int
    policy: str
    threshold: int
    voting_period: int

    @property
    def network(self) -> Network:
        """The addresses as the package knows them."""
        return Network(
            self.chain_id,
            parse_address(self.directory),
            parse_address(self.identity_registry),
            parse_address(self.membership),
        )


@dataclass(frozen=True)
class Rules:
    """How the network's own group begins."""

    policy: Policy = Policy.OPEN
    threshold: int = THRESHOLD
    voting_period: int = VOTING_PERIOD


# --- the deployer -----------------------------------------------------------------------------------------


class Deployer:
    """One key on one chain: creates the contracts, enters relays and founders, seals."""

    def __init__(self, rpc_url: str, key: bytes) -> None:
        self.rpc = Rpc(rpc_url)
        self.account = address_of(key)
        self._url = rpc_url
        self._key = key
        self._calls = calls.Calls()
        self._web3: Web3 | None = None

    def chain_id(self) -> int:
        """The chain that the endpoint serves."""
        return quantity(self.rpc.call("eth_chainId"))

    def deploy(self, rules: Rules, artifacts: dict[str, Artifact] | None = None) -> Deployment:
        """Create the three contracts, wired to each other."""
        built = artifacts or {name: artifact(name) for name in CONTRACTS}
        chain_id = self.chain_id()
        nonce = self._nonce()
        # Membership must know the Directory, which must know Membership: its address follows from the nonce.
        directory = created_address(self.account, nonce + 2)
        registry, _ = self._create(built["IdentityRegistry"], nonce, list(RESERVED_NAMES))
        group_rules = (rules.threshold, rules.voting_period)
        membership, _ = self._create(
            built["Membership"], nonce + 1, registry, directory, int(rules.policy), group_rules
        )
        found, block = self._create(built["Directory"], nonce + 2, registry, membership)
        if found != directory:
            raise ChainError("The Directory is not where it was expected: this is a bug or a strange chain.")
        return Deployment(
            chain_id=chain_id,
            directory=to_checksum(directory),
            identity_registry=to_checksum(registry),
            membership=to_checksum(membership),
            deployer=to_checksum(self.account),
            block=block,
            policy=rules.policy.name.lower(),
            threshold=rules.threshold,
            voting_period=rules.voting_period,
        )

    def set_relays(self, network: Network, relays: Sequence[RelayAddress]) -> None:
        """Enter the relays, replacing those that are there."""
        self._send(network, self._calls.set_relays(relays))

    def seat(self, network: Network, names: Sequence[str]) -> list[Uid]:
        """Seat registered users as founders; those who are seated already are passed over."""
        uids = [self._uid(network, name) for name in names]
        new = [uid for uid in dict.fromkeys(uids) if not self._ask(calls.MEMBER, network, 0, uid)[0]]
        if new:
            self._send(network, self._calls.seat(new))
        return new

    def seal(self, network: Network) -> None:
        """End the deployer's role; nothing happens when it ended before."""
        if not self.sealed(network):
            self._send(network, self._calls.seal())

    def is_member(self, network: Network, name: str) -> bool:
        """Whether a registered user has a seat."""
        return bool(self._ask(calls.MEMBER, network, 0, self._uid(network, name))[0])

    def sealed(self, network: Network) -> bool:
        """Whether the deployer's role is over."""
        return bool(self._ask(calls.IS_SEALED, network)[0])

    def relays(self, network: Network) -> tuple[RelayAddress, ...]:
        """The relays that the Directory names."""
        return calls.relay_addresses(self._ask(calls.RELAYS, network))

    def present(self, network: Network) -> bool:
        """Whether our Directory stands at its address."""
        found = unhex(self.rpc.call("eth_getCode", hexed(network.directory), "latest"))
        return bool(found) and code("Directory").matches(found)

    def network_at(self, directory: Address) -> Network:
        """The network that a Directory describes; raises NoContract."""
        network = Network(self.chain_id(), directory, Address(bytes(20)), Address(bytes(20)))
        if not self.present(network):
            raise NoContract(f"There is no chatchain Directory at {to_checksum(directory)} on this chain.")
        registry = Address(self._ask(calls.REGISTRY_ADDRESS, network)[0])
        membership = Address(self._ask(calls.MEMBERSHIP_ADDRESS, network)[0])
        return msgspec.structs.replace(network, registry=registry, membership=membership)

    def _uid(self, network: Network, name: str) -> Uid:
        uid = Uid(self._ask(calls.UID_OF, network, normalise_username(name))[0])
        if not uid:
            hint = f"Register first: chatchain register {name}"
            raise UnknownUser(f"Nobody is registered as {name} in this network.", hint)
        return uid

    def _ask(self, view: calls.View, network: Network, *values: object) -> tuple[Any, ...]:
        request = view.request(calls.address_in(network, view.contract), *values)
        return view.answer(unhex(self.rpc.call(request.method, *request.params)))

    def _nonce(self) -> int:
        return quantity(self.rpc.call("eth_getTransactionCount", hexed(self.account), "pending"))

    def _create(self, built: Artifact, nonce: int, *arguments: object) -> tuple[Address, int]:
        """Create one contract; gives its address and block."""
        contract = self._node().eth.contract(abi=cast(Any, built.abi), bytecode=cast(Any, built.bytecode))
        receipt = self._submit(nonce, contract.constructor(*arguments).data_in_transaction)
        address = receipt["contractAddress"]
        if address is None:
            raise ChainError(f"The endpoint names no address for the new {built.contract}.")
        return parse_address(address), int(receipt["blockNumber"])

    def _send(self, network: Network, call: Call) -> None:
        """Send a call as every writer of the package does."""
        ChainWriter(Endpoints([self._url]), network).send(call, self._key)

    def _submit(self, nonce: int, code_and_arguments: HexStr) -> TxReceipt:
        """Sign a creation, send it, wait until it is mined."""
        from web3.exceptions import ContractLogicError, TimeExhausted, Web3RPCError

        eth = self._node().eth
        transaction: dict[str, Any] = {"chainId": self.chain_id(), "nonce": nonce, "data": code_and_arguments}
        transaction |= {"from": to_checksum(self.account), "value": 0}
        try:
            tip, base = eth.max_priority_fee, eth.get_block("latest").get("baseFeePerGas", 0)
            transaction |= {"maxPriorityFeePerGas": tip, "maxFeePerGas": 2 * base + tip}
            transaction["gas"] = eth.estimate_gas(cast("TxParams", transaction)) * 5 // 4
            signed = eth.account.sign_transaction(transaction, self._key)
            sent = eth.send_raw_transaction(signed.raw_transaction)
            receipt = eth.wait_for_transaction_receipt(sent, RECEIPT_SECONDS, poll_latency=0.05)
        except ContractLogicError as refusal:
            raise explain(revert_data(refusal.data) or b"") from refusal
        except TimeExhausted as late:
            raise TransactionPending(f"A transaction is not mined after {RECEIPT_SECONDS} s.") from late
        except Web3RPCError as refusal:
            raise ChainError(f"The endpoint refused a transaction: {refusal.message}") from refusal
        except OSError as broken:  # what web3's HTTP library raises
            raise ChainUnreachable(f"The endpoint {self.rpc.name} does not answer.") from broken
        if receipt["status"] != 1:
            raise Reverted("A contract could not be created.", "Nothing was gained; deploy again.")
        return receipt

    def _node(self) -> Web3:
        if self._web3 is None:
            from web3 import HTTPProvider
            from web3 import Web3 as Node

            self._web3 = Node(HTTPProvider(self._url))
        return self._web3


def created_address(creator: Address, nonce: int) -> Address:
    """Where a contract will stand: keccak(rlp([creator, nonce])), last 20 bytes (Yellow Paper, section 7)."""
    number = nonce.to_bytes((nonce.bit_length() + 7) // 8, "big")
    short = len(number) == 1 and number[0] < 0x80
    item = number if short else bytes([0x80 + len(number)]) + number
    payload = bytes([0x80 + 20]) + creator + item
    return Address(keccak256(bytes([0xC0 + len(payload)]) + payload)[-20:])


def fund(rpc: Rpc, account: Address, wei: int) -> None:
    """Give an account of a development chain ether out of nothing."""
    amount = hex(wei)
    for method in ("anvil_setBalance", "evm_setAccountBalance"):
        try:
            rpc.call(method, hexed(account), amount)
        except RpcFault:
            continue  # another make of chain; the next word may be its own
        return
    raise ChainError("This chain gives away no ether: it is no development chain.")
