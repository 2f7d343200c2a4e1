"""What a relay reads of what it is given: prekeys, calls to pay for, proofs, calls of other processes."""

from __future__ import annotations

from typing import Final

import msgspec

from chatchain.chain import calls
from chatchain.chain.calls import Calls
from chatchain.crypto import prekeys
from chatchain.errors import BadRecord, ChainError, LoginRefused, ProtocolViolation
from chatchain.identity.admission import decode_invitation, shows_work
from chatchain.identity.keys import NOBODY
from chatchain.identity.login import login_proof
from chatchain.model import Call, ProposalId
from chatchain.relay import login as logins
from chatchain.relay import nodes, sponsor
from chatchain.relay.prekeys import read_batch
from chatchain.wire.bounds import check
from chatchain.wire.messages import Login, PublishPrekeys
from tests.crypto.pairs import BOB, STORE
from tests.fuzz.target import target
from tests.fuzz.texts import INVITATION
from tests.identity.people import NETWORK, person

ADA: Final = person("ada")
UPLOAD: Final = BOB.upload(STORE)
PUBLISHED: Final = PublishPrekeys(
    1,
    1,
    prekeys.encode_signed_key(UPLOAD.signed),
    prekeys.encode_signed_key(UPLOAD.last_resort),
    tuple(map(prekeys.encode_one_time, UPLOAD.one_time[:3])),
    tuple(map(prekeys.encode_signed_key, UPLOAD.kem_one_time[:2])),
)
SPKI, NONCE = b"s" * 32, b"n" * 32
PROOF: Final = login_proof(
    NETWORK,
    spki=SPKI,
    nonce=NONCE,
    uid=ADA.uid,
    device=1,
    epoch=0,
    login_key=ADA.login_key,
    signer=ADA.secrets().signer,
)
LOGIN: Final = Login(ADA.uid, 1, 0, ADA.user.kdf, PROOF.login_signature, PROOF.device_signature)


@target(BadRecord, ProtocolViolation, seeds=[msgspec.msgpack.encode(PUBLISHED)])
def batch(data: bytes) -> None:
    """What a device publishes."""
    try:
        made = msgspec.msgpack.decode(data, type=PublishPrekeys)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    check(made)
    found = read_batch(made, 7)
    assert len(found.one_time) == len(made.one_time) + len(made.kem_one_time)
    assert all(0 < key.id < 2**32 and 0 <= key.expires < 2**63 for key in found.one_time)


@target(LoginRefused, ProtocolViolation, seeds=[msgspec.msgpack.encode(LOGIN)])
def login(data: bytes) -> None:
    """A proof: only Ada's own logs her in."""
    try:
        made = msgspec.msgpack.decode(data, type=Login)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    check(made)
    logins.check(NETWORK, ADA.user, made, spki=SPKI, nonce=NONCE)
    assert made == LOGIN


def calldata() -> list[bytes]:
    """Calls of the kinds that a sponsor is asked for."""
    made = [
        Calls().vote_by_sig(ProposalId(1), True, ADA.user.account, bytes(65)),
        Calls().register_for(
            ADA.user.account,
            "ada",
            bytes(32),
            bytes(23),
            NOBODY,
            ADA.user.devices[0].current.signer,
            bytes(227),
            2**40,
            bytes(65),
        ),
    ]
    return [bytes([0 if call.contract == "identity" else 1]) + call.data for call in made]


@target(ChainError, seeds=calldata())
def sponsored(data: bytes) -> None:
    """A call that somebody asks to be paid for."""
    call = Call("identity" if not data[:1] or data[0] % 2 == 0 else "membership", data[1:])
    calls.verb(call)
    sponsor.is_registration(call)
    calls.arguments(call)


@target(seeds=[bytes.fromhex("01") + bytes(8), INVITATION.encode()])
def admission(data: bytes) -> None:
    """What stands beside a newcomer's registration."""
    found = decode_invitation(data)
    if found is not None:
        assert found.encode() == data
    shows_work(data, NONCE, 1, Call("identity", b""), 16)


@target(seeds=[msgspec.msgpack.encode(((1, 2), (3, 4))), b"\x90"])
def woken(data: bytes) -> None:
    """What anybody may say on the bus between processes."""
    nodes.named(data)
