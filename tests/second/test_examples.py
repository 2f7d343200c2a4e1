"""The examples in docs/protocol.md, computed again by the second client from what the document says."""

import ast
import re
import struct
import sys
from pathlib import Path
from typing import Final

import pytest
from nacl.signing import SigningKey

from tests.second.chain import RECORD_LABEL, Device, Network, User, verify
from tests.second.files import blob_size, open_file
from tests.second.groups import Listener, Place, SenderChain
from tests.second.keys import associated, signed_text
from tests.second.person import fingerprint, login_key, safety_number
from tests.second.primitives import sha256, unpad, unseal
from tests.second.ratchet import chain_step, open_header, root_step

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "protocol.md"
ADA, BOB = 670887400361956, 895825231796709  # the uids of the examples
ACCOUNT: Final = bytes.fromhex("9B5EF6a97622fE4a7945ee019724090b0c83FA44")  # ada's, in the contact card
LIBRARIES: Final = sys.stdlib_module_names | {
    "cryptography", "eth_abi", "eth_account", "eth_keys", "eth_utils", "msgspec", "nacl", "urllib3"
}  # fmt: skip
NETWORK: Final = Network(31337, b"\x1d" * 20)


def blocks(heading: str) -> list[bytes]:
    """The blocks of hex below a heading, in order."""
    part = DOCUMENT.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = re.findall(r"^```hex\n(.*?)^```", part, re.MULTILINE | re.DOTALL)
    return [bytes.fromhex("".join(line.split("#")[0] for line in block.splitlines())) for block in found]


@pytest.fixture(scope="module")
def people() -> tuple[Device, Device]:
    """The two of the handshake's AD, with their records."""
    _, ad, *_ = blocks("Suite 2: handshake")
    (a, ada), (b, bob) = (struct.unpack_from(">Q227s", ad, start) for start in (95, 330))
    return Device(0, ACCOUNT, a, 1, 1, ada[111:131], ada), Device(0, b"", b, 1, 1, bob[111:131], bob)


def test_it_knows_nothing_but_libraries() -> None:
    """No module of the client imports anything of the program."""
    modules = [path for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("test_")]
    assert len(modules) > 5
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}"]
                assert node.level == 0
            for name in names:
                top = name.split(".")[0]
                assert name.startswith("tests.second.") or name == "tests.second" or top in LIBRARIES, name


def test_every_struct_that_a_contract_hashes_is_listed() -> None:
    """And no other, but for the two that only relays judge."""
    part = DOCUMENT.read_text().split("\n## Identity\n")[1].split("\n## ")[0]
    tail = "uint64 proposer,uint32 epoch,uint256 deadline"
    listed = {line.strip().replace("…", tail) for line in part.splitlines() if re.match(r"    \w+\(", line)}
    hashed = set()
    for path in (DOCUMENT.parents[1] / "contracts" / "src").glob("*.sol"):
        hashed |= set(re.findall(r'"([A-Z]\w+\(\w+ \w+[^"]*\))"', path.read_text()))
    hashed = {struct for struct in hashed if not struct.startswith(("EIP712Domain(", "Relay("))}
    assert len(hashed) > 20
    assert {struct.partition("(")[0] for struct in listed - hashed} == {"Login", "Invitation"}
    assert hashed <= listed


def test_a_device_record() -> None:
    [record] = blocks("Device records")
    device = Device(0, ACCOUNT, ADA, 1, 2, record[111:131], record)
    assert record[31:47] == device.place
    verify(device.ed25519, record[163:], RECORD_LABEL + ACCOUNT + record[:163])


def test_a_login_key() -> None:
    kdf, key, *_ = blocks("Passwords, vault and phrase")
    assert login_key("Zürich–東京", b"account secret16", kdf) == key


def test_a_signed_prekey_and_the_transcript(people: tuple[Device, Device]) -> None:
    """Signature and AD over the records, the transcript's input but for the ciphertext."""
    a, b = people
    a.check(NETWORK)
    assert (a.uid, b.uid) == (ADA, BOB)
    signed, text, *_ = blocks("Suite 2: prekeys")
    head, signature, key = signed[:21], signed[21:85], signed[85:]
    assert signed_text(head, NETWORK, b, key) == text
    verify(b.ed25519, signature, text)
    handshake, ad, *_ = blocks("Suite 2: handshake")
    assert associated(a, b, b"")[:-32] == ad[:-32]
    assert struct.unpack_from(">IIIII", handshake) == (1, 1, 1, 3, 5)


def test_a_message_of_a_new_chain() -> None:
    """From root key and shared secret to header and text."""
    found = blocks("Suite 2: messages")
    header, message, before, shared, root, chain, following, key, header_key = found[:9]
    assert root_step(before, shared) == (root, chain, following)
    assert chain_step(chain)[1] == key
    sealed, body = message[1:76], message[76:]
    assert open_header(header_key, sealed) == struct.unpack(">32sIIHB", header)
    state, _ = found[16:]
    transcript = state[56:88]
    assert unseal(key, body, transcript + sealed + b"message id 16 by") == b"second chain"


def test_a_chain_that_takes_a_kem_secret_in() -> None:
    header, secret, before, shared, *keys = blocks("Suite 2: messages")[9:16]
    assert root_step(before, shared + secret) == tuple(keys)
    assert struct.unpack(">32sIIHB", header)[3:] == (1, 0)


def test_an_envelope() -> None:
    inside, header, bound, body = blocks("Suite 2: envelopes")
    assert bound.endswith(struct.pack(">QIQ", ADA, 1, BOB))
    assert sha256(body) == header[32:]
    assert unpad(unseal(header[:32], body, b"chatchain/2 body")) == inside


def test_a_group_message() -> None:
    """Distribution, keys and message, made from the sender's stored state and read by a listener."""
    shared, chain, _, _, _, following, message, data, _, sender, _ = blocks("Groups: sender keys")
    group, epoch, roster, uid, device, generation, index, before, _, chain_key, secret = struct.unpack_from(
        ">32sQ32sQIIIIQ32s32s", sender, 1
    )
    place, bound = Place(group, epoch, roster, uid, device, generation), data[-16:]
    speaker = SenderChain(place, chain_key, SigningKey(secret), index, before)
    assert (speaker.key, speaker.distribution()) == (chain, shared)
    assert place.data(0, bound) == data
    assert speaker.encrypt(b"the first message", bound) == message
    assert speaker.key == following
    listener = Listener.of(shared, uid, device)
    assert listener.decrypt(message, bound) == b"the first message"
    third = [speaker.encrypt(text, b"") for text in (b"second", b"third")][1]
    assert listener.decrypt(third, b"") == b"third"
    with pytest.raises(ValueError, match="before"):
        listener.decrypt(third, b"")


def test_a_file() -> None:
    reference, blob = blocks("Attachments")
    key, size, digest = reference[1:33], int.from_bytes(reference[33:37]), reference[37:]
    assert blob_size(size) == len(blob)
    assert open_file(key, size, digest, blob) == b"hello, file"


def test_a_safety_number() -> None:
    """Ada's half of the digits and of the code."""
    text = fingerprint(ADA, ACCOUNT)
    [code] = blocks("Safety number")
    assert code[1:33] == text[:32]
    ada = User(ADA, ACCOUNT, 0, b"", 1)
    half = safety_number(ada, ada)[:35]
    assert f"    {half} " in DOCUMENT.read_text()
