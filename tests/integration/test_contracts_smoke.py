"""The contracts on real chains: register, vote, found a group, fill the offices, anchor, earn, move on."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak
from web3 import Web3
from web3.contract import Contract
from web3.contract.contract import ContractFunction
from web3.exceptions import ContractCustomError
from web3.types import RPCEndpoint, TxReceipt

from deploy.compile import ARTIFACTS
from tests.fixtures.chains import DevChain
from tests.vectors import merkle

POLICY_VOTE = 1
ADMIT, SET_ANCHORER, SET_WITNESSES, SET_RELAYS, SET_REWARDS, SUCCESSOR = 0, 3, 4, 5, 6, 7
WINDOW = 30  # the chain is shared: its clock goes ahead by this
CAP = 1000 * 10**18
PASSED = 2
ACTIVE = 1
NOBODY = "0x" + "00" * 20
VERIFIER = b"\x11" * 32
KDF = b"\x01" + b"\x22" * 24
RECORD = b"\x33" * 227
FAR = 2**40

REGISTER = (
    "string username,address account,bytes32 verifier,bytes kdf,address recovery,"
    "address signer,bytes record,uint256 deadline"
)
REQUEST = "string group,uint64 uid,uint32 epoch,uint256 deadline"
VOTE = "uint64 proposal,uint64 voter,uint32 epoch,bool support"
WORDING = {
    SET_ANCHORER: ("ProposeAnchorer", "Choose who anchors the log"),
    SET_WITNESSES: ("ProposeWitnesses", "Choose who witnesses the log"),
    SET_RELAYS: ("ProposeRelays", "Choose the relays"),
    SET_REWARDS: ("ProposeRewards", "Choose who publishes rewards"),
    SUCCESSOR: ("ProposeSuccessor", "Recommend another network"),
}
RELAY = "string endpoint,bytes32 spki,bytes32 nextSpki"
CREATE_GROUP = (
    "string name,uint64[] founders,uint16 threshold,uint32 votingPeriod,uint64 creator,uint32 epoch,"
    "uint256 deadline"
)
LEAVE = "string group,uint64 uid,uint32 sequence,uint32 epoch,uint256 deadline"
TREE_HEAD = "bytes32 logId,uint64 size,bytes32 root"


@dataclass(frozen=True)
class User:
    """A registered user with the keys of account and first device."""

    uid: int
    account: LocalAccount
    device: LocalAccount


class Sponsor:
    """A funded account that deploys, and carries other people's signatures."""

    def __init__(self, chain: DevChain) -> None:
        self.web3 = Web3(Web3.HTTPProvider(chain.url))
        self.chain_id = self.web3.eth.chain_id
        self.account: LocalAccount = Account.from_key(chain.keys[0])

    def send(self, call: Any) -> TxReceipt:
        """Send a contract call or construction from the sponsor's key and wait for its receipt."""
        transaction = call.build_transaction({"from": self.account.address, "nonce": self.nonce()})
        signed = self.account.sign_transaction(transaction)
        receipt = self.web3.eth.wait_for_transaction_receipt(
            self.web3.eth.send_raw_transaction(signed.raw_transaction), timeout=30, poll_latency=0.02
        )
        assert receipt["status"] == 1
        return receipt

    def nonce(self) -> int:
        """The sponsor's next nonce."""
        return self.web3.eth.get_transaction_count(self.account.address)

    def deploy(self, name: str, *arguments: object) -> Contract:
        """Deploy a checked-in artifact, and compare the code on the chain with it outside the immutables."""
        artifact = json.loads((ARTIFACTS / f"{name}.json").read_text(encoding="utf-8"))
        factory = self.web3.eth.contract(abi=artifact["abi"], bytecode=artifact["bytecode"])
        address = self.send(factory.constructor(*arguments))["contractAddress"]
        assert address is not None
        code = bytearray(self.web3.eth.get_code(address))
        for start, length in artifact["immutables"]:
            code[start : start + length] = bytes(length)
        assert code.hex() == artifact["runtime"].removeprefix("0x")
        return self.web3.eth.contract(address=address, abi=artifact["abi"])

    def sign(
        self, key: LocalAccount, contract: Contract, name: str, fields: str, /, **values: object
    ) -> bytes:
        """An EIP-712 signature over one struct, as a wallet makes it."""
        structs = {name: fields} | ({"Relay": RELAY} if "Relay[]" in fields else {})
        types = {
            struct: [dict(zip(("type", "name"), field.split(), strict=True)) for field in members.split(",")]
            for struct, members in structs.items()
        }
        domain = {
            "name": "chatchain",
            "version": "1",
            "chainId": self.chain_id,
            "verifyingContract": contract.address,
        }
        signed = Account.sign_typed_data(
            key.key, domain_data=domain, message_types=types, message_data=values
        )
        return bytes(signed.signature)


@pytest.fixture(params=["anvil", "ganache"])
def sponsor(request: pytest.FixtureRequest) -> Sponsor:
    """The same test on both chains."""
    return Sponsor(request.getfixturevalue(request.param))


def created_by(deployer: str, nonce: int) -> str:
    """The address of the contract that an account creates with this nonce: the hash of their RLP list."""
    number = nonce.to_bytes((nonce.bit_length() + 7) // 8, "big")
    item = number if 0 < nonce < 0x80 else bytes([0x80 + len(number)]) + number
    body = bytes([0x80 + 20]) + bytes.fromhex(deployer[2:]) + item
    return Web3.to_checksum_address(keccak(bytes([0xC0 + len(body)]) + body)[12:])


def register(sponsor: Sponsor, registry: Contract, username: str) -> User:
    """Register a new user who has no ether, through the sponsor."""
    account, device = Account.create(), Account.create()
    values: dict[str, object] = {
        "username": username,
        "account": account.address,
        "verifier": VERIFIER,
        "kdf": KDF,
        "recovery": NOBODY,
        "signer": device.address,
        "record": RECORD,
        "deadline": FAR,
    }
    signature = sponsor.sign(account, registry, "Register", REGISTER, **values)
    sponsor.send(
        registry.functions.registerFor(
            account.address, username, VERIFIER, KDF, NOBODY, device.address, RECORD, FAR, signature
        )
    )
    uid, device_id, epoch = registry.functions.resolve(account.address).call()
    assert (device_id, epoch) == (0, 0)
    assert registry.functions.resolve(device.address).call() == [uid, 1, 0]
    assert registry.functions.uidOf(username).call() == uid
    state, version, signer, head = registry.functions.device(uid, 1).call()
    assert (state, version, signer) == (ACTIVE, 1, device.address)
    assert head == keccak(bytes(32) + (1).to_bytes(32, "big") + keccak(RECORD))
    return User(uid, account, device)


@dataclass(frozen=True)
class Contracts:
    """A whole network."""

    registry: Contract
    membership: Contract
    ledger: Contract
    distributor: Contract
    directory: Contract


def deploy_network(sponsor: Sponsor) -> Contracts:
    """Five creations in a row; all name the Directory that comes last."""
    registry = sponsor.deploy("IdentityRegistry", ["admin"])
    predicted = created_by(sponsor.account.address, sponsor.nonce() + 3)
    rules = (5000, 7 * 86_400)
    membership = sponsor.deploy("Membership", registry.address, predicted, POLICY_VOTE, rules)
    ledger = sponsor.deploy("MessageLedger", predicted, membership.address)
    distributor = sponsor.deploy("RewardDistributor", predicted, membership.address, WINDOW, CAP)
    parts = [contract.address for contract in (registry, membership, ledger, distributor)]
    directory = sponsor.deploy("Directory", *parts)
    assert membership.functions.directory().call() == directory.address == predicted
    return Contracts(registry, membership, ledger, distributor, directory)


def found_network(sponsor: Sponsor, network: Contracts, *founders: User) -> None:
    """Seat the founders, enter a relay, seal."""
    sponsor.send(network.membership.functions.seat([user.uid for user in founders]))
    sponsor.send(network.directory.functions.setRelays([("127.0.0.1:5555", b"\x44" * 32, bytes(32))]))
    sponsor.send(network.directory.functions.seal())
    assert network.directory.functions.isSealed().call()


def test_register_and_vote(sponsor: Sponsor) -> None:
    """Two users come by signature, the founder's device votes the newcomer in, and the chain says so."""
    network = deploy_network(sponsor)
    registry, membership = network.registry, network.membership
    ada = register(sponsor, registry, "ada")
    bob = register(sponsor, registry, "bob")
    found_network(sponsor, network, ada)
    refused(membership.functions.seat([bob.uid]), sponsor, membership, "IsSealed")
    assert not membership.functions.maySend(bob.uid).call()

    asked = sponsor.sign(
        bob.device, membership, "Request", REQUEST, group="network", uid=bob.uid, epoch=0, deadline=FAR
    )
    sponsor.send(membership.functions.requestFor(0, bob.device.address, FAR, asked))
    assert membership.functions.proposalCount().call() == 1

    refused(
        membership.functions.voteBySig(1, True, bob.device.address, asked),
        sponsor,
        membership,
        "BadSignature",
    )
    yes = sponsor.sign(ada.device, membership, "Vote", VOTE, proposal=1, voter=ada.uid, epoch=0, support=True)
    receipt = sponsor.send(membership.functions.voteBySig(1, True, ada.device.address, yes))
    addresses = {entry["address"] for entry in receipt["logs"]}
    assert addresses == {membership.address}
    assert [entry["topics"][0] for entry in receipt["logs"]] == [
        keccak(text="Voted(uint64,uint64,bool,uint32,uint32)"),
        keccak(text="Closed(uint64,uint8)"),
        keccak(text="MemberAdded(uint32,uint64,uint32,uint32,bytes32)"),
    ]

    group, kind, subject, proposer, electorate, ayes, noes, _, state, data = membership.functions.proposal(
        1
    ).call()
    assert (group, kind, subject, proposer) == (0, ADMIT, bob.uid, bob.uid)
    assert (electorate, ayes, noes, state) == (1, 1, 0, PASSED)
    assert data == keccak(b"")
    assert membership.functions.member(0, bob.uid).call() == [True, 2]
    assert membership.functions.maySend(bob.uid).call()
    refused(membership.functions.voteBySig(1, True, ada.device.address, yes), sponsor, membership, "NotOpen")


def signed_vote(sponsor: Sponsor, network: Contracts, voter: User, proposal: int) -> tuple[Any, ...]:
    """A yes as `voteBatch` takes it."""
    values = {"proposal": proposal, "voter": voter.uid, "epoch": 0, "support": True}
    signature = sponsor.sign(voter.device, network.membership, "Vote", VOTE, **values)
    return (proposal, True, voter.device.address, signature)


def enact(
    sponsor: Sponsor, network: Contracts, voters: list[User], kind: int, matter: str, **values: Any
) -> TxReceipt:
    """Propose by signature over what a wallet shows, vote in one batch, and see that it passed."""
    membership, proposer = network.membership, voters[0]
    struct, action = WORDING[kind]
    abi_types = [field.split()[0].replace("Relay", "(string,bytes32,bytes32)") for field in matter.split(",")]
    data = encode(
        abi_types, [[tuple(one.values()) for one in v] if "Relay" in matter else v for v in values.values()]
    )
    shown = {"action": action, "group": "network"} | values
    shown |= {"proposer": proposer.uid, "epoch": 0, "deadline": FAR}
    fields = f"string action,string group,{matter},uint64 proposer,uint32 epoch,uint256 deadline"
    signature = sponsor.sign(proposer.device, membership, struct, fields, **shown)
    by = proposer.device.address
    sponsor.send(membership.functions.proposeFor(0, kind, 0, data, by, FAR, signature))
    proposal = membership.functions.proposalCount().call()
    assert membership.functions.payload(proposal).call() == data
    votes = [signed_vote(sponsor, network, voter, proposal) for voter in voters]
    receipt = sponsor.send(membership.functions.voteBatch(votes))
    assert membership.functions.proposal(proposal).call()[8] == PASSED
    return receipt


def test_members_fill_every_office(sponsor: Sponsor) -> None:
    """After the seal a quorum names relays, anchorer, witness and setter, and each of them can act."""
    network = deploy_network(sponsor)
    users = [register(sponsor, network.registry, name) for name in ("ada", "bob", "cem")]
    found_network(sponsor, network, *users)
    relay = {"endpoint": "relay.example:443", "spki": b"\x55" * 32, "nextSpki": b"\x66" * 32}
    enact(sponsor, network, users[:2], SET_RELAYS, "Relay[] relays", relays=[relay])
    assert network.directory.functions.relays().call() == [tuple(relay.values())]

    witness, log_id = Account.create(), b"\x77" * 32
    matter = "uint8 quorum,address[] witnesses"
    enact(sponsor, network, users[1:], SET_WITNESSES, matter, quorum=1, witnesses=[witness.address])
    matter, holder = "address anchorer,bytes32 logId", sponsor.account.address
    enact(sponsor, network, users, SET_ANCHORER, matter, anchorer=holder, logId=log_id)
    root = merkle.tree_hash([b"one", b"two", b"three"])
    head = {"logId": log_id, "size": 3, "root": root}
    signature = sponsor.sign(witness, network.ledger, "TreeHead", TREE_HEAD, **head)
    sponsor.send(network.ledger.functions.anchor(log_id, 3, root, [signature]))
    assert network.ledger.functions.log(log_id).call()[3] == root
    proof = merkle.path(2, [b"one", b"two", b"three"])
    included = network.ledger.functions.verifyInclusion(merkle.leaf_hash(b"three"), 2, 3, root, proof)
    assert included.call()

    enact(sponsor, network, users, SET_REWARDS, "address setter", setter=sponsor.account.address)
    earner, amount = users[0].account.address, 5 * 10**18
    leaf = keccak(keccak(encode(["address", "uint256"], [earner, amount])))
    sponsor.send(network.distributor.functions.setRoot(leaf, 1, amount))
    claim = network.distributor.functions.claimFor(earner, amount, leaf, [])
    refused(claim, sponsor, network.distributor, "WrongRoot")  # the window has not passed
    sponsor.web3.provider.make_request(RPCEndpoint("evm_increaseTime"), [WINDOW])
    sponsor.web3.provider.make_request(RPCEndpoint("evm_mine"), [])
    sponsor.send(claim)
    artifact = json.loads((ARTIFACTS / "RewardToken.json").read_text(encoding="utf-8"))
    token = sponsor.web3.eth.contract(network.distributor.functions.token().call(), abi=artifact["abi"])
    assert token.functions.balanceOf(earner).call() == amount

    successor = deploy_network(sponsor).directory.address
    enact(sponsor, network, users, SUCCESSOR, "address successor", successor=successor)
    assert network.directory.functions.successor().call() == successor


def test_a_group_is_founded_and_left_by_signature(sponsor: Sponsor) -> None:
    """Whoever has no ether founds a group with another, and leaves it."""
    network = deploy_network(sponsor)
    membership = network.membership
    ada, bob = (register(sponsor, network.registry, name) for name in ("ada", "bob"))
    found_network(sponsor, network, ada, bob)
    values: dict[str, object] = {"name": "club", "founders": [bob.uid], "threshold": 6000}
    values |= {"votingPeriod": 3600, "creator": ada.uid, "epoch": 0, "deadline": FAR}
    signature = sponsor.sign(ada.account, membership, "CreateGroup", CREATE_GROUP, **values)
    by = ada.account.address
    sponsor.send(membership.functions.createGroupFor("club", [bob.uid], (6000, 3600), by, FAR, signature))
    assert membership.functions.groupNamed("club").call() == [True, 1]
    assert membership.functions.member(1, bob.uid).call() == [True, 2]
    values = {"group": "club", "uid": bob.uid, "sequence": 2, "epoch": 0, "deadline": FAR}
    signature = sponsor.sign(bob.device, membership, "Leave", LEAVE, **values)
    sponsor.send(membership.functions.leaveFor(1, bob.device.address, FAR, signature))
    assert membership.functions.member(1, bob.uid).call() == [False, 2]


def refused(call: ContractFunction, sponsor: Sponsor, contract: Contract, error: str) -> None:
    """The call reverts with this custom error of the contract."""
    entry = next(e for e in contract.abi if e["type"] == "error" and e["name"] == error)
    signature = f"{error}({','.join(argument['type'] for argument in entry['inputs'])})"
    with pytest.raises(ContractCustomError) as failure:
        call.call({"from": sponsor.account.address})
    assert str(failure.value.data).startswith("0x" + keccak(text=signature)[:4].hex())
