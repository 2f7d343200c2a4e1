"""The primitives, called as this room calls them, on a selection of Project Wycheproof's vectors."""

from __future__ import annotations

import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import (
    MLKEM768PrivateKey,
    MLKEM768PublicKey,
    MLKEM1024PrivateKey,
    MLKEM1024PublicKey,
)
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from chatchain.crypto import derive, x25519
from chatchain.errors import BadRecord
from chatchain.identity import ed25519

Case = dict[str, Any]
FILES = json.loads((Path(__file__).parent.parent / "vectors" / "wycheproof.json").read_text())["files"]


def cases(name: str) -> list[Any]:
    """The cases of one file."""
    return [pytest.param(case, id=f"{case['tcId']}-{case['result']}") for case in FILES[name]]


def unhexed(case: Case, *fields: str) -> list[bytes]:
    """Fields as bytes."""
    return [bytes.fromhex(case[field]) for field in fields]


@pytest.mark.parametrize("case", cases("x25519_test"))
def test_x25519(case: Case) -> None:
    """Where the shared secret would be zero the key is refused; everything else is computed."""
    secret, public, shared = unhexed(case, "private", "public", "shared")
    if "ZeroSharedSecret" in case["flags"]:
        with pytest.raises(BadRecord):
            x25519.agree(secret, public)
    else:
        assert x25519.agree(secret, public) == shared


@pytest.mark.parametrize("case", cases("ed25519_test"))
def test_ed25519(case: Case) -> None:
    """Valid signatures hold; malleable, truncated and altered ones do not."""
    key, message, signature = unhexed(case, "publicKey", "msg", "sig")
    assert ed25519.verify(key, signature, message) == (case["result"] == "valid")


@pytest.mark.parametrize("case", cases("aes_gcm_test"))
def test_aes_256_gcm(case: Case) -> None:
    """With the nonces of 96 and 128 bits that the ratchet uses."""
    key, nonce, ad, message, ciphertext, tag = unhexed(case, "key", "iv", "aad", "msg", "ct", "tag")
    cipher = AESGCM(key)
    if case["result"] == "valid":
        assert cipher.encrypt(nonce, message, ad) == ciphertext + tag
        assert cipher.decrypt(nonce, ciphertext + tag, ad) == message
    else:
        with pytest.raises(InvalidTag):
            cipher.decrypt(nonce, ciphertext + tag, ad)


@pytest.mark.parametrize("case", cases("hkdf_sha256_test"))
def test_hkdf_sha256(case: Case) -> None:
    """With salt and info; more than 255 blocks are refused."""
    ikm, salt, info, okm = unhexed(case, "ikm", "salt", "info", "okm")
    if case["result"] == "valid":
        assert derive.hkdf(ikm, info, case["size"], salt=salt) == okm
    else:
        with pytest.raises(ValueError, match="derive"):
            HKDF(algorithm=SHA256(), length=case["size"], salt=salt, info=info)


@pytest.mark.parametrize("case", cases("hmac_sha256_test"))
def test_hmac_sha256(case: Case) -> None:
    """The chain's KDF."""
    key, message, tag = unhexed(case, "key", "msg", "tag")
    assert hmac.compare_digest(hmac.digest(key, message, "sha256"), tag) == (case["result"] == "valid")


KEMS: dict[str, tuple[Any, Any]] = {
    "mlkem_768": (MLKEM768PrivateKey, MLKEM768PublicKey),
    "mlkem_1024": (MLKEM1024PrivateKey, MLKEM1024PublicKey),
}


@pytest.mark.parametrize("kem", KEMS)
def test_ml_kem_decapsulation(kem: str) -> None:
    """From the seed: the public key, and the shared secret also where FIPS 203 rejects implicitly."""
    private, _ = KEMS[kem]
    for case in FILES[f"{kem}_test"]:
        seed, ciphertext = unhexed(case, "seed", "c")
        if case["result"] == "valid":
            key = private.from_seed_bytes(seed)
            assert key.public_key().public_bytes_raw().hex() == case["ek"]
            assert key.decapsulate(ciphertext).hex() == case["K"]
        else:
            with pytest.raises(ValueError, match=r"seed|ciphertext|length"):
                private.from_seed_bytes(seed).decapsulate(ciphertext)


@pytest.mark.parametrize("kem", KEMS)
def test_ml_kem_refuses_malformed_keys(kem: str) -> None:
    """Of a wrong length or with a coefficient beyond the modulus."""
    _, public = KEMS[kem]
    for case in FILES[f"{kem}_encaps_test"]:
        with pytest.raises(ValueError, match=r"(?i)public|key|length"):
            public.from_public_bytes(bytes.fromhex(case["ek"]))
