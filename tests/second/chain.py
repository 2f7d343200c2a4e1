"""What the contracts say, asked of one endpoint by JSON-RPC; and the digests that people sign."""

from dataclasses import dataclass
from typing import Any

import urllib3
from eth_abi.abi import decode, encode
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils.crypto import keccak
from nacl.bindings import crypto_core_ed25519_is_valid_point
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

RECORD_LABEL = b"chatchain/1 device record"
_SESSIONS = 1 << 2  # the bit of suite 2
_REGISTERED = keccak(text="Registered(uint64,address,string,address)")
_REPLACED = keccak(text="AccountReplaced(uint64,address,address,uint32)")
_ADDED = keccak(text="DeviceAdded(uint64,uint32,address,bytes)")
_UPDATED = keccak(text="DeviceUpdated(uint64,uint32,address,uint32,bytes)")
_REVOKED = keccak(text="DeviceRevoked(uint64,uint32)")
_DEVICES = _ADDED, _UPDATED, _REVOKED
_VERIFIER = keccak(text="VerifierSet(uint64,bytes32,bytes)")


@dataclass(frozen=True)
class Network:
    """What every signature is bound to."""

    chain_id: int
    registry: bytes

    def __bytes__(self) -> bytes:
        return self.chain_id.to_bytes(8) + self.registry


@dataclass(frozen=True)
class User:
    uid: int
    account: bytes
    epoch: int
    kdf: bytes
    list_version: int


@dataclass(frozen=True)
class Device:
    """One version of a device's keys, since which block it counts, and for which account it was made."""

    block: int
    account: bytes
    uid: int
    number: int
    version: int
    signer: bytes
    record: bytes

    @property
    def place(self) -> bytes:
        return self.uid.to_bytes(8) + self.number.to_bytes(4) + self.version.to_bytes(4)

    @property
    def x25519(self) -> bytes:
        return self.record[47:79]

    @property
    def ed25519(self) -> bytes:
        return self.record[79:111]

    def check(self, network: Network) -> None:
        """Refuse a record of which not everything holds."""
        fields, signature = self.record[:-64], self.record[-64:]
        first = (self.number, self.version) == (1, 1)
        if not (
            len(self.record) == 227
            and fields[0] == 1
            and int.from_bytes(fields[1:3]) & _SESSIONS
            and fields[3:31] == bytes(network)
            and (fields[31:47] == self.place or (first and fields[31:47] == bytes(8) + self.place[8:]))
            and fields[111:131] == self.signer
            and crypto_core_ed25519_is_valid_point(self.ed25519)
        ):
            raise ValueError("this record is not what the chain says of it")
        verify(self.ed25519, signature, RECORD_LABEL + self.account + fields)


class Chain:
    """A network, found by the address of its Directory."""

    def __init__(self, rpc: str, directory: str) -> None:
        self.rpc, self.directory = rpc, directory
        self.registry = self.call(directory, "identityRegistry()", "address")[0]
        self.network = Network(int(self._ask("eth_chainId"), 16), bytes.fromhex(self.registry[2:]))

    def relay(self) -> tuple[str, int, tuple[bytes, bytes]]:
        """Host, port and the two pins of the first relay."""
        (((endpoint, now, following), *_),) = self.call(
            self.directory, "relays()", "(string,bytes32,bytes32)[]"
        )
        host, _, port = endpoint.rpartition(":")
        return host.strip("[]"), int(port), (now, following)

    def uid_of(self, name: str) -> int:
        return int(self.call(self.registry, "uidOf(string)", "uint64", name)[0])

    def user(self, uid: int) -> User:
        account, epoch, *_ = self.call(
            self.registry, "user(uint64)", "address,uint32,uint32,uint32,bytes32,address", uid
        )
        _, _, verifier = self._logs(uid, _VERIFIER)[-1]
        _, kdf = decode(["bytes32", "bytes"], verifier)
        return User(uid, bytes.fromhex(account[2:]), epoch, kdf, len(self._logs(uid, *_DEVICES)))

    def devices(self, uid: int) -> dict[int, dict[int, Device]]:
        """The active devices by number, each with all its versions."""
        found: dict[int, dict[int, Device]] = {}
        account = b""
        for block, (event, _, *topics), data in self._logs(uid, _REGISTERED, _REPLACED, *_DEVICES):
            if event in (_REGISTERED, _REPLACED):
                account = topics[0][12:]
                continue
            number, version = int.from_bytes(topics[0]), 1
            if event == _REVOKED:
                del found[number]
                continue
            if event == _UPDATED:
                version, record = decode(["uint32", "bytes"], data)
            else:
                (record,) = decode(["bytes"], data)
            device = Device(block, account, uid, number, version, topics[1][12:], record)
            device.check(self.network)
            found.setdefault(number, {})[version] = device
        return found

    def may_sign(self, versions: dict[int, Device], version: int, *times_ms: int) -> bool:
        """Whether a version counts: in force, or superseded five minutes before these times at most."""
        if version + 1 not in versions:
            return version in versions
        block = self._ask("eth_getBlockByNumber", hex(versions[version + 1].block), False)
        return max(times_ms) <= (int(block["timestamp"], 16) + 300) * 1000

    def digest(self, struct: str, **values: Any) -> Any:
        """EIP-712 of a struct, given as the document writes it."""
        name, _, fields = struct.rstrip(")").partition("(")
        types = [{"type": kind, "name": field} for kind, field in (one.split() for one in fields.split(","))]
        domain = {
            "name": "chatchain",
            "version": "1",
            "chainId": self.network.chain_id,
            "verifyingContract": self.registry,
        }
        return encode_typed_data(domain, {name: types}, values)

    def mined(self, transaction: bytes) -> bool:
        receipt = self._ask("eth_getTransactionReceipt", "0x" + transaction.hex())
        return receipt is not None and int(receipt["status"], 16) == 1

    def call(self, contract: str, function: str, returns: str, *values: Any) -> Any:
        data = calldata(function, *values)
        answer = self._ask("eth_call", {"to": contract, "data": "0x" + data.hex()}, "latest")
        return decode(_types(returns), bytes.fromhex(answer[2:]))

    def _logs(self, uid: int, *events: bytes) -> list[tuple[int, list[bytes], bytes]]:
        topics = [["0x" + event.hex() for event in events], f"0x{uid:064x}"]
        where = {"address": self.registry, "fromBlock": "0x0", "topics": topics}
        return [
            (
                int(log["blockNumber"], 16),
                [bytes.fromhex(topic[2:]) for topic in log["topics"]],
                bytes.fromhex(log["data"][2:]),
            )
            for log in self._ask("eth_getLogs", where)
        ]

    def _ask(self, method: str, *params: Any) -> Any:
        question = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        said = urllib3.request("POST", self.rpc, json=question).json()
        if "error" in said:
            raise ValueError(said["error"])
        return said["result"]


def calldata(function: str, *values: Any) -> bytes:
    inner = function[function.index("(") + 1 : -1]
    return keccak(text=function)[:4] + encode(_types(inner), values)


def sign(secret: bytes, message: Any) -> bytes:
    return bytes(Account.sign_message(message, secret).signature)


def verify(public: bytes, signature: bytes, text: bytes) -> None:
    try:
        VerifyKey(public).verify(text, signature)
    except BadSignatureError as failure:
        raise ValueError("the signature does not hold") from failure


def _types(listed: str) -> list[str]:
    if listed.startswith("("):
        return [listed]
    return [one for one in listed.split(",") if one]
