"""What the contracts' calls cost: gas of receipts on a local Anvil, ours beside the usual designs.

Prints JSON lines only: `case` and `gas`; `per_message` where one call serves many, `each` where it serves
some. Every call is made as it would be in use: not the first of its kind, cold storage, a record of 227
bytes, a key description of 25, names of six letters. Ours run on the hard fork that they are compiled for;
the contracts in `contracts/bench`, which nothing else uses, on a newer one, because OpenZeppelin's need it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, cast

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import solcx  # noqa: E402
from eth_abi.abi import encode  # noqa: E402
from eth_account import Account  # noqa: E402
from eth_account.messages import encode_typed_data  # noqa: E402
from eth_account.signers.local import LocalAccount  # noqa: E402
from web3 import Web3  # noqa: E402

from chatchain.chain.artifacts import artifact  # noqa: E402
from chatchain.identity.keys import keccak256  # noqa: E402
from chatchain.identity.names import RESERVED_NAMES  # noqa: E402
from deploy.compile import find_compiler, read_sources  # noqa: E402
from deploy.deployer import created_address  # noqa: E402
from deploy.tools import anvil_path  # noqa: E402
from tests.fixtures.anvil import start_anvil  # noqa: E402
from tests.fixtures.chains import DevChain, start  # noqa: E402
from tests.fixtures.processes import free_port  # noqa: E402

RECORD: Final = hashlib.shake_256(b"record").digest(227)
KDF: Final = hashlib.shake_256(b"kdf").digest(25)
TEXT: Final = hashlib.shake_256(b"text").digest(300)
MEMBERS: Final = 64
BATCH: Final = 27
MESSAGES: Final = 1_000
CLAIMANTS: Final = {"": 16, "_of_1000": 1_000}
"""How many accounts earned: a claim carries a hash more whenever they double, for about 600 gas."""
NOBODY: Final = "0x" + "00" * 20
DAY: Final = 24 * 3600
DEADLINE: Final = 4_000_000_000
"""Always the same, so that every run signs and pays the same."""

SPONSOR: Final = Web3.to_checksum_address("0x" + "51" * 20)


class Chain:
    """A development chain on which every address may send, and whose gas costs nothing."""

    def __init__(self, chain: DevChain) -> None:
        self._chain = chain
        chain.rpc("anvil_autoImpersonateAccount", True)
        self.id = chain.chain_id

    def send(self, sender: str, to: str | None, data: str) -> dict[str, Any]:
        """Mine one transaction; gives its receipt."""
        transaction = {"from": sender, "data": data, "gas": hex(15_000_000), "gasPrice": "0x0"}
        if to is not None:
            transaction["to"] = to
        sent = self._chain.rpc("eth_sendTransaction", transaction)
        until = time.monotonic() + 10
        while (found := self._chain.rpc("eth_getTransactionReceipt", sent)) is None:
            assert time.monotonic() < until, "a transaction is not mined"
            time.sleep(0.001)
        receipt = cast("dict[str, Any]", found)
        assert receipt["status"] == "0x1", f"a call failed: {data[:10]} to {to}"
        return receipt

    def later(self, seconds: int) -> None:
        """Let time pass."""
        self._chain.rpc("evm_increaseTime", seconds)
        self._chain.rpc("anvil_mine", "0x2")

    def nonce(self, account: str) -> int:
        """How many transactions an account sent."""
        return int(str(self._chain.rpc("eth_getTransactionCount", account, "latest")), 16)

    def create(self, abi: list[dict[str, Any]], bytecode: str, *arguments: object) -> Contract:
        """Deploy a contract."""
        factory = Web3().eth.contract(abi=cast("Any", abi), bytecode=cast("Any", bytecode))
        receipt = self.send(SPONSOR, None, factory.constructor(*arguments).data_in_transaction)
        return Contract(self, abi, Web3.to_checksum_address(receipt["contractAddress"]))


class Contract:
    """A deployed contract."""

    def __init__(self, chain: Chain, abi: list[dict[str, Any]], address: str) -> None:
        self._chain = chain
        self._web3 = Web3().eth.contract(address=Web3.to_checksum_address(address), abi=cast("Any", abi))
        self.address = address

    def call(self, sender: str, function: str, *arguments: object) -> int:
        """Send a call; gives the gas of its receipt."""
        data = self._web3.encode_abi(function, arguments)
        return int(self._chain.send(sender, self.address, data)["gasUsed"], 16)

    def sign(self, key: LocalAccount, struct: str, *values: object, name: str = "chatchain") -> bytes:
        """A signature over a struct that is written as in `Name(type field,…)`."""
        primary, _, rest = struct.removesuffix(")").partition("(")
        fields = [dict(zip(("type", "name"), field.split(" "), strict=True)) for field in rest.split(",")]
        domain = {
            "name": name,
            "version": "1",
            "chainId": self._chain.id,
            "verifyingContract": self.address,
        }
        message = {field["name"]: value for field, value in zip(fields, values, strict=True)}
        signed = key.sign_message(encode_typed_data(domain, {primary: fields}, message))
        return bytes(signed.signature)


def person(label: str) -> LocalAccount:
    """A key of a label."""
    return cast("LocalAccount", Account.from_key(keccak256(label.encode())))


def uid_of(number: int) -> int:
    """The uid of the n-th user, from 1 (docs/contracts.md, IdentityRegistry)."""
    body = 10**13 + (number * 61_803_398_874_989 + 27_182_818_284_590) % (9 * 10**13)
    product = 10
    for digit in str(body):
        product = ((product + int(digit)) % 10 or 10) * 2 % 11
    return body * 10 + (11 - product) % 10


def letters(number: int) -> str:
    """A name of six letters."""
    return "".join(chr(97 + number // 26**place % 26) for place in range(6))


class Network:
    """Our contracts with so many members, and what they cost."""

    def __init__(self, chain: Chain, report: Callable[..., None]) -> None:
        self._chain = chain
        self._report = report
        self._users = 0
        self.registry = self._create("IdentityRegistry", list(RESERVED_NAMES))
        # Four contracts name the Directory, which comes last: its address follows from the nonce.
        deployer = bytes.fromhex(SPONSOR[2:])
        at = created_address(cast("Any", deployer), chain.nonce(SPONSOR) + 3)
        directory = Web3.to_checksum_address(at)
        self.membership = self._create("Membership", self.registry.address, directory, 1, (5000, 7 * DAY))
        self.ledger = self._create("MessageLedger", directory, self.membership.address)
        self.rewards = self._create("RewardDistributor", directory, self.membership.address, DAY, 10**24)
        parts = (self.registry, self.membership, self.ledger, self.rewards)
        found = self._create("Directory", *(part.address for part in parts))
        assert found.address == directory

    def _create(self, name: str, *arguments: object) -> Contract:
        built = artifact(name)
        return self._chain.create(built.abi, built.bytecode, *arguments)

    def register(self, who: LocalAccount, label: str, recovery: str = NOBODY) -> int:
        """Register a user; gives the gas."""
        self._users += 1
        signer = person(f"device of {label}").address
        name = letters(self._users)
        verifier = keccak256(name.encode())
        return self.registry.call(who.address, "register", name, verifier, KDF, recovery, signer, RECORD)

    # --- identities ---------------------------------------------------------------------------------------

    def identities(self) -> None:
        """Measures the registry's calls."""
        registry, report = self.registry, self._report
        keeper = person("keeper")
        ada, bob, eve = person("ada"), person("bob"), person("eve")
        self.register(person("first"), "first")
        report("register", self.register(ada, "ada"))
        uid = uid_of(self._users)
        report("register_with_recovery", self.register(bob, "bob", keeper.address))
        bobs = uid_of(self._users)
        report("register_for", self._register_for(eve))

        signer = person("device of ada").address
        report("update_device", registry.call(ada.address, "updateDevice", 1, 2, signer, RECORD[::-1]))
        report("update_device_itself", registry.call(signer, "updateDevice", 1, 3, signer, RECORD))
        new = person("second device").address
        report("add_device", registry.call(ada.address, "addDevice", new, RECORD))
        report("revoke_device", registry.call(ada.address, "revokeDevice", 2))
        report("set_verifier", registry.call(ada.address, "setVerifier", keccak256(b"other"), KDF))
        report("add_key", registry.call(ada.address, "addKey", 0, rsa_key()))
        report("commit", registry.call(ada.address, "commit", keccak256(b"commitment")))

        report("set_recovery", registry.call(ada.address, "setRecovery", keeper.address))
        report(
            "propose_recovery", registry.call(keeper.address, "proposeRecovery", bobs, person("new").address)
        )
        self._chain.later(8 * DAY)
        report("recover", registry.call(person("new").address, "finaliseRecovery", bobs))
        struct = "Transfer(uint64 uid,uint32 epoch,address from,address to,uint256 nonce,uint256 deadline)"
        taker = person("taker")
        values = (uid, 0, ada.address, taker.address, 0, DEADLINE)
        both = [registry.sign(key, struct, *values) for key in (ada, taker)]
        report("transfer_for", registry.call(SPONSOR, "transferFor", uid, taker.address, DEADLINE, *both))

    def _register_for(self, who: LocalAccount) -> int:
        self._users += 1
        name, signer = letters(self._users), person("device of eve").address
        verifier = keccak256(name.encode())
        struct = (
            "Register(string username,address account,bytes32 verifier,bytes kdf,"
            "address recovery,address signer,bytes record,uint256 deadline)"
        )
        values = (name, who.address, verifier, KDF, NOBODY, signer, RECORD, DEADLINE)
        signature = self.registry.sign(who, struct, *values)
        rest = (verifier, KDF, NOBODY, signer, RECORD, DEADLINE, signature)
        return self.registry.call(SPONSOR, "registerFor", who.address, name, *rest)

    # --- votes --------------------------------------------------------------------------------------------

    def votes(self) -> None:
        """Measures asking and voting in a group of 64."""
        membership, report = self.membership, self._report
        members = [person(f"member {number}") for number in range(MEMBERS)]
        first = self._users + 1
        for number, member in enumerate(members):
            self.register(member, f"member {number}")
        uids = [uid_of(first + number) for number in range(MEMBERS)]
        membership.call(SPONSOR, "seat", uids)
        newcomers = [person(f"newcomer {number}") for number in range(3)]
        for number, newcomer in enumerate(newcomers):
            self.register(newcomer, f"newcomer {number}")

        membership.call(newcomers[0].address, "request", 0)
        report("request", membership.call(newcomers[1].address, "request", 0))
        report("vote_first", membership.call(members[0].address, "vote", 2, True))
        report("vote", membership.call(members[1].address, "vote", 2, True))
        struct = "Vote(uint64 proposal,uint64 voter,uint32 epoch,bool support)"

        def signed(number: int, proposal: int) -> bytes:
            return membership.sign(members[number], struct, proposal, uids[number], 0, True)

        by_sig = (2, True, members[2].address, signed(2, 2))
        report("vote_by_sig", membership.call(SPONSOR, "voteBySig", *by_sig))
        membership.call(newcomers[2].address, "request", 0)
        membership.call(members[0].address, "vote", 3, True)
        batch = [(3, True, members[number].address, signed(number, 3)) for number in range(1, BATCH + 1)]
        gas = membership.call(SPONSOR, "voteBatch", batch)
        report(f"vote_batch_{BATCH}", gas, each=round(gas / BATCH))

    # --- log and rewards ----------------------------------------------------------------------------------

    def anchors(self) -> None:
        """Measures a head with the signature of the only witness."""
        ledger, anchorer, witness = self.ledger, person("anchorer"), person("witness")
        log = keccak256(b"log")
        ledger.call(SPONSOR, "setWitnesses", 1, [witness.address])
        ledger.call(SPONSOR, "setAnchorer", anchorer.address, log)
        gas = 0
        for batch in (1, 2):
            size, root = MESSAGES * batch, keccak256(bytes([batch]))
            signature = ledger.sign(
                witness, "TreeHead(bytes32 logId,uint64 size,bytes32 root)", log, size, root
            )
            gas = ledger.call(anchorer.address, "anchor", log, size, root, [signature])
        self._report("anchor", gas, per_message=round(gas / MESSAGES, 1))

    def claims(self) -> None:
        """Measures first and second claims, in a small tree and in a large one."""
        rewards, setter = self.rewards, person("setter")
        rewards.call(SPONSOR, "setSetter", setter.address)
        for turn, (suffix, count) in enumerate(CLAIMANTS.items()):
            accounts = [person(f"earner {number}{suffix}").address for number in range(count)]
            for again in (0, 1):
                epoch = 2 * turn + again + 1
                earned = 10**18 * (again + 1)
                gas = 0
                tree = Tree([_leaf(account, earned) for account in accounts])
                rewards.call(setter.address, "setRoot", tree.root, epoch, epoch * 10**22)
                self._chain.later(2 * DAY)
                for number in (0, 1):
                    gas = rewards.call(accounts[number], "claim", earned, tree.root, tree.path(number))
                self._report(("claim_later" if again else "claim_first") + suffix, gas)


class Tree:
    """A Merkle tree whose pairs are hashed in ascending order."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self._levels = [list(leaves)]
        while len(level := self._levels[-1]) > 1:
            pairs = [level[at : at + 2] for at in range(0, len(level), 2)]
            self._levels.append(
                [keccak256(b"".join(sorted(pair))) if len(pair) == 2 else pair[0] for pair in pairs]
            )
        self.root = self._levels[-1][0]

    def path(self, index: int) -> list[bytes]:
        """The siblings from a leaf to the root."""
        found = []
        for level in self._levels[:-1]:
            if (index ^ 1) < len(level):
                found.append(level[index ^ 1])
            index >>= 1
        return found


def _leaf(account: str, cumulative: int) -> bytes:
    return keccak256(keccak256(encode(["address", "uint256"], [account, cumulative])))


def rsa_key() -> bytes:
    """A well-formed SubjectPublicKeyInfo of RSA-2048; nobody has the private key."""
    modulus = b"\xc0" + hashlib.shake_256(b"modulus").digest(254) + b"\x01"
    prefix = bytes.fromhex("30820122300d06092a864886f70d01010105000382010f003082010a0282010100")
    return prefix + modulus + bytes.fromhex("0203010001")


# --- the usual designs --------------------------------------------------------------------------------------


def usual_designs(chain: Chain, report: Callable[..., None]) -> None:
    """Measures what a classroom would write, and the governor from the shelf."""
    built = _compile_bench()
    ada, bob = person("ada").address, person("bob").address
    gas = 0
    registry = chain.create(*built["NaiveRegistry"])
    pem = "-----BEGIN PUBLIC KEY-----\n" + "A" * 392 + "\n-----END PUBLIC KEY-----\n"
    for who, name in ((bob, "bobbie"), (ada, "adaada")):
        gas = registry.call(who, "register", name, hashlib.sha256(name.encode()).hexdigest(), pem)
    report("naive_string_register", gas)
    messages = chain.create(*built["NaiveMessages"])
    for _ in range(2):
        gas = messages.call(ada, "send", bob, TEXT)
    report("naive_message_storage", gas)

    seats = chain.create(*built["BenchSeat"])
    members = [person(f"member {number}") for number in range(8)]
    for number, member in enumerate(members):
        seats.call(SPONSOR, "mint", member.address, number)
    governor = chain.create(*built["BenchGovernor"], seats.address)
    chain.later(1)
    description = "admit"
    action: tuple[object, ...] = ([SPONSOR], [0], [b""])
    governor.call(members[0].address, "propose", *action, description)
    packed = encode(
        ["address[]", "uint256[]", "bytes[]", "bytes32"], [*action, keccak256(description.encode())]
    )
    proposal = int.from_bytes(keccak256(packed), "big")
    chain.later(2)
    governor.call(members[0].address, "castVote", proposal, 1)
    report("governor_vote", governor.call(members[1].address, "castVote", proposal, 1))
    struct = "Ballot(uint256 proposalId,uint8 support,address voter,uint256 nonce)"
    signature = governor.sign(members[2], struct, proposal, 1, members[2].address, 0, name="bench")
    gas = governor.call(SPONSOR, "castVoteBySig", proposal, 1, members[2].address, signature)
    report("governor_vote_by_sig", gas)


def _compile_bench() -> dict[str, tuple[list[dict[str, Any]], str]]:
    """ABI and bytecode of the contracts in contracts/bench, by name."""
    roots = sorted(f"bench/{path.name}" for path in (ROOT / "contracts" / "bench").glob("*.sol"))
    job = {
        "language": "Solidity",
        "sources": {name: {"content": text} for name, text in read_sources(roots).items()},
        "settings": {
            "optimizer": {"enabled": True, "runs": 200},
            "evmVersion": "cancun",
            "outputSelection": {root: {"*": ["abi", "evm.bytecode.object"]} for root in roots},
        },
    }
    output = solcx.compile_standard(job, solc_binary=find_compiler())
    return {
        name: (built["abi"], "0x" + built["evm"]["bytecode"]["object"])
        for root in roots
        for name, built in output["contracts"][root].items()
    }


def _newer_anvil(folder: Path) -> DevChain:
    port = free_port()
    options = [
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--hardfork",
        "cancun",
        "--block-base-fee-per-gas",
        "0",
    ]
    return start([str(anvil_path()), *options], port, folder / f"anvil-{port}.log")


def measure(report: Callable[..., None]) -> None:
    """Measures our own contracts."""
    with tempfile.TemporaryDirectory() as folder:
        chain = start_anvil(Path(folder), "--block-base-fee-per-gas", "0")
        try:
            network = Network(Chain(chain), report)
            network.identities()
            network.votes()
            network.anchors()
            network.claims()
        finally:
            chain.process.stop()


def snapshot() -> dict[str, int]:
    """The gas of every case of ours, to compare with contracts/snapshots/gas.json."""
    found: dict[str, int] = {}

    def note(case: str, gas: int, **_: float) -> None:
        found[case] = gas

    measure(note)
    return found


def _report(case: str, gas: int, **more: float) -> None:
    print(json.dumps({"bench": "gas", "case": case, "gas": gas, **more}), flush=True)


def main() -> None:
    """Measures everything and prints it, or writes the snapshot of ours."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="write what ours cost to this file instead"
    )
    options = parser.parse_args()
    if options.write:
        options.write.write_text(json.dumps(snapshot(), indent=1) + "\n", encoding="utf-8")
        return
    measure(_report)
    with tempfile.TemporaryDirectory() as folder:
        chain = _newer_anvil(Path(folder))
        try:
            usual_designs(Chain(chain), _report)
        finally:
            chain.process.stop()


if __name__ == "__main__":
    main()
