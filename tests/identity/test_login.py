"""The relay lets in who holds both the password's key and the device's, for this certificate and nonce."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from chatchain.errors import LoginRefused
from chatchain.identity import keys
from chatchain.identity.login import check_login, login_proof, verifier_for, verifier_of
from chatchain.model import DeviceId, Network
from tests.identity.people import KDF, NETWORK, OTHER_NETWORK, OTHER_REGISTRY, Person, person

ADA = person("ada")
BOB = person("bob")
SPKI = b"\x0a" * 32
NONCE = b"\x0b" * 32


def attempt(
    who: Person = ADA, made: dict[str, Any] | None = None, shown: dict[str, Any] | None = None
) -> DeviceId:
    """Makes a proof (with some inputs changed) and shows it to the relay (with others changed)."""
    inputs: dict[str, Any] = {
        "network": NETWORK,
        "spki": SPKI,
        "nonce": NONCE,
        "uid": who.uid,
        "device": 1,
        "epoch": who.user.epoch,
        "login_key": who.login_key,
        "signer": who.secrets().signer,
    } | (made or {})
    network: Network = inputs.pop("network")
    proof = login_proof(network, **inputs)
    checked: dict[str, Any] = {
        "user": who.user,
        "spki": SPKI,
        "nonce": NONCE,
        "device": 1,
        "epoch": who.user.epoch,
        "kdf": KDF,
        "login_signature": proof.login_signature,
        "device_signature": proof.device_signature,
    } | (shown or {})
    return check_login(NETWORK, checked.pop("user"), **checked).device


def test_a_right_proof_logs_in() -> None:
    """It gives the device that logged in."""
    assert attempt() == 1


def test_the_verifier_is_a_hash_of_the_login_public_key_and_the_kdf() -> None:
    """keccak256(x ‖ y ‖ kdf), and never the key itself."""
    public = keys.public_key(ADA.login_key)
    assert verifier_for(ADA.login_key, KDF) == verifier_of(public, KDF) == keys.keccak256(public + KDF)
    with pytest.raises(ValueError, match="64 bytes"):
        verifier_of(public[:33], KDF)


@pytest.mark.parametrize(
    "made",
    [
        {"spki": b"\xaa" * 32},
        {"nonce": b"\xbb" * 32},
        {"uid": BOB.uid},
        {"device": 2},
        {"epoch": 1},
        {"network": OTHER_NETWORK},
        {"network": OTHER_REGISTRY},
    ],
    ids=[
        "another server",
        "replayed nonce",
        "another user",
        "another device",
        "old epoch",
        "another chain",
        "another registry",
    ],
)
def test_a_proof_made_for_something_else_is_refused(made: dict[str, Any]) -> None:
    """The signed digest binds certificate, nonce, user, device, epoch, chain and registry."""
    with pytest.raises(LoginRefused, match="not signed by device"):
        attempt(made=made)


def test_a_wrong_password_is_refused() -> None:
    """Its login key is another one."""
    with pytest.raises(LoginRefused, match="password"):
        attempt(made={"login_key": BOB.login_key})


def test_a_stolen_password_without_the_device_is_refused() -> None:
    """The signer of another device does not do, nor the account's key."""
    for signer in (BOB.secrets().signer, ADA.account_key):
        with pytest.raises(LoginRefused, match="not signed by device"):
            attempt(made={"signer": signer})


def test_other_kdf_parameters_do_not_match_the_verifier() -> None:
    """The verifier binds them, so nobody can be talked into weaker ones."""
    with pytest.raises(LoginRefused, match="password"):
        attempt(shown={"kdf": KDF[:-1] + b"\x02"})
    with pytest.raises(LoginRefused, match="malformed"):
        attempt(shown={"kdf": bytes(65)})


def test_swapped_signatures_are_refused() -> None:
    """Each key signs the same digest, and each signature is judged for its own role."""
    proof = login_proof(
        NETWORK,
        spki=SPKI,
        nonce=NONCE,
        uid=ADA.uid,
        device=1,
        epoch=0,
        login_key=ADA.login_key,
        signer=ADA.secrets().signer,
    )
    with pytest.raises(LoginRefused):
        attempt(shown={"login_signature": proof.device_signature, "device_signature": proof.login_signature})


def test_a_revoked_or_unknown_device_is_refused() -> None:
    """Whatever it signs."""
    with pytest.raises(LoginRefused, match="revoked"):
        attempt(ADA.revoked())
    with pytest.raises(LoginRefused, match="no device 2"):
        attempt(made={"device": 2}, shown={"device": 2})


def test_a_superseded_signer_is_refused() -> None:
    """After a rotation only the current signer logs in."""
    rotated = ADA.rotated()
    assert attempt(rotated) == 1
    with pytest.raises(LoginRefused, match="not signed by device"):
        attempt(rotated, made={"signer": ADA.secrets(1, 1).signer})


def test_another_epoch_is_refused() -> None:
    """A recovery ends all that was signed before it."""
    recovered = msgspec.structs.replace(ADA.user, epoch=1)
    with pytest.raises(LoginRefused, match="epoch"):
        attempt(shown={"user": recovered})


@pytest.mark.parametrize("signature", [b"", bytes(65), b"\xff" * 65, bytes(64), b"\x01" * 64 + b"\x1b\x00"])
def test_malformed_signatures_are_refused(signature: bytes) -> None:
    """Only LoginRefused escapes."""
    for field in ("login_signature", "device_signature"):
        with pytest.raises(LoginRefused):
            attempt(shown={field: signature})
