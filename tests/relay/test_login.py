"""Login proofs as the relay judges them: what fits, and that nothing else does."""

from __future__ import annotations

import msgspec
import pytest

from chatchain.errors import LoginRefused
from chatchain.identity.keys import address_of, new_secret, recover_public
from chatchain.identity.login import login_proof, verifier_for
from chatchain.model import Address, Device, DeviceState, Network, User
from chatchain.relay.login import check
from chatchain.wire.messages import Login
from tests.relay.test_mailbox import ADA, BOB, user

NETWORK = Network(31337, Address(b"d" * 20), Address(b"r" * 20), Address(b"m" * 20))
SPKI, NONCE, KDF = b"s" * 32, b"n" * 32, b"\x01" + bytes(22)
LOGIN_KEY, SIGNER = new_secret(), new_secret()


def ada(state: DeviceState = DeviceState.ACTIVE, **changes: object) -> User:
    """A user whose keys are the ones above."""
    plain = user(ADA, state)
    device: Device = plain.devices[0]
    version = msgspec.structs.replace(device.current, signer=address_of(SIGNER))
    device = msgspec.structs.replace(device, history=(version,))
    whole = msgspec.structs.replace(plain, devices=(device,), verifier=verifier_for(LOGIN_KEY, KDF), kdf=KDF)
    return msgspec.structs.replace(whole, **changes)


def proof(network: Network = NETWORK, **changes: object) -> Login:
    """Ada's proof, with something about what is signed changed."""
    signed: dict[str, object] = {
        "spki": SPKI,
        "nonce": NONCE,
        "uid": ADA,
        "device": 1,
        "epoch": 0,
        "login_key": LOGIN_KEY,
        "signer": SIGNER,
        **changes,
    }
    made = login_proof(network, **signed)  # type: ignore[arg-type]
    return Login(ADA, 1, 0, KDF, made.login_signature, made.device_signature)


def test_the_proof_of_password_and_device_logs_in() -> None:
    """And gives the device."""
    assert check(NETWORK, ada(), proof(), spki=SPKI, nonce=NONCE).device == 1


@pytest.mark.parametrize(
    "change",
    [
        {"spki": b"x" * 32},
        {"nonce": b"x" * 32},
        {"uid": BOB},
        {"device": 2},
        {"epoch": 1},
        {"login_key": new_secret()},
        {"signer": new_secret()},
        {"network": msgspec.structs.replace(NETWORK, chain_id=1)},
        {"network": msgspec.structs.replace(NETWORK, registry=Address(b"x" * 20))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_proof_made_for_anything_else_does_not(change: dict[str, object]) -> None:
    """Another server, connection, user, device, epoch, password, device key or network."""
    network = change.pop("network", NETWORK)
    assert isinstance(network, Network)
    with pytest.raises(LoginRefused):
        check(NETWORK, ada(), proof(network, **change), spki=SPKI, nonce=NONCE)


@pytest.mark.parametrize(
    "who",
    [
        ada(DeviceState.REVOKED),
        ada(epoch=1),
        ada(verifier=bytes(32)),
        user(ADA, DeviceState.ACTIVE),
        ada(uid=BOB),
        None,
    ],
    ids=["revoked", "recovered", "new password", "other signer", "somebody else", "nobody"],
)
def test_what_the_chain_says_now_decides(who: User | None) -> None:
    """A proof that was good until the chain changed is none."""
    with pytest.raises(LoginRefused):
        check(NETWORK, who, proof(), spki=SPKI, nonce=NONCE)


@pytest.mark.parametrize(
    "who",
    [ada(), ada(DeviceState.REVOKED), ada(epoch=1), ada(devices=()), None],
    ids=["known", "revoked", "another epoch", "no such device", "nobody"],
)
def test_every_refusal_makes_the_same_work(who: User | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both signatures are recovered, whether or not there is anything to compare them with: else a proof for
    a device that nobody has would tell by its time whether there is such a user.
    """
    recovered: list[bytes] = []

    def counted(digest: bytes, signature: bytes) -> bytes:
        recovered.append(signature)
        return recover_public(digest, signature)

    monkeypatch.setattr("chatchain.identity.login.recover_public", counted)
    wrong = proof(login_key=new_secret(), signer=new_secret())
    with pytest.raises(LoginRefused):
        check(NETWORK, who, wrong, spki=SPKI, nonce=NONCE)
    assert recovered == [wrong.login_signature, wrong.device_signature]


@pytest.mark.parametrize("field", ["login_signature", "device_signature"])
@pytest.mark.parametrize(
    "bad", [bytes(65), b"\xff" * 65, bytes(64) + b"\x1b"], ids=["zeros", "ones", "v only"]
)
def test_signatures_that_recover_to_nothing_are_refused(field: str, bad: bytes) -> None:
    """As a refusal, not as another kind of failure; for known and unknown alike."""
    broken = msgspec.structs.replace(proof(), **{field: bad})
    for who in (ada(), None):
        with pytest.raises(LoginRefused):
            check(NETWORK, who, broken, spki=SPKI, nonce=NONCE)


def test_other_kdf_parameters_are_refused() -> None:
    """The verifier covers them, so a relay cannot be made to vouch for weaker ones."""
    with pytest.raises(LoginRefused):
        check(NETWORK, ada(), msgspec.structs.replace(proof(), kdf=b"\x02" + KDF[1:]), spki=SPKI, nonce=NONCE)
