"""The primitives, called as this room calls them, on a selection of Project Wycheproof's vectors."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import (
    MLKEM768PrivateKey,
    MLKEM768PublicKey,
    MLKEM1024PrivateKey,
    MLKEM1024PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_der_public_key

from chatchain.crypto import derive, rsa, x25519
from chatchain.errors import BadRecord, VerificationError
from chatchain.identity import ed25519, keys

Case = dict[str, Any]
VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "wycheproof.json").read_text())
FILES = VECTORS["files"]


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
    openssl = X25519PrivateKey.from_private_bytes(secret)  # it serves HPKE
    if "ZeroSharedSecret" in case["flags"]:
        with pytest.raises(BadRecord):
            x25519.agree(secret, public)
        with pytest.raises(ValueError, match="shared key"):
            openssl.exchange(X25519PublicKey.from_public_bytes(public))
    else:
        assert x25519.agree(secret, public) == shared
        assert openssl.exchange(X25519PublicKey.from_public_bytes(public)) == shared


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


RSA_PRIVATE = load_der_private_key(
    bytes.fromhex(VECTORS["keys"]["rsa_oaep_2048_sha256_mgf1sha256_test"]), password=None
)


@pytest.mark.parametrize("case", cases("rsa_oaep_2048_sha256_mgf1sha256_test"))
def test_rsa_oaep_sha256(case: Case) -> None:
    """RSAES-OAEP as the compatibility envelope uses it: SHA-256 for both, with a label."""
    assert isinstance(RSA_PRIVATE, RSAPrivateKey)
    message, ciphertext, label = unhexed(case, "msg", "ct", "label")
    scheme = OAEP(MGF1(SHA256()), SHA256(), label)
    if case["result"] == "valid":
        assert RSA_PRIVATE.decrypt(ciphertext, scheme) == message
    else:
        with pytest.raises(ValueError, match=r"(?i)decryption|length"):
            RSA_PRIVATE.decrypt(ciphertext, scheme)


@pytest.mark.parametrize("case", cases("rsa_pss_2048_sha256_mgf1_32_test"))
def test_rsa_pss_sha256(case: Case) -> None:
    """RSASSA-PSS by the very parameters of the compatibility envelope: a salt of 32 bytes, no other."""
    assert holds("rsa_pss_2048_sha256_mgf1_32_test", case) == (case["result"] == "valid")


@pytest.mark.parametrize("case", cases("rsa_pss_2048_sha256_mgf1_0_test"))
def test_rsa_pss_with_another_salt_length_does_not_hold(case: Case) -> None:
    """Valid signatures of the same key whose salt is empty."""
    assert case["result"] == "valid"
    assert not holds("rsa_pss_2048_sha256_mgf1_0_test", case)


def holds(name: str, case: Case) -> bool:
    """Whether a PSS signature of this file's key holds."""
    key = load_der_public_key(bytes.fromhex(VECTORS["keys"][name]))
    assert isinstance(key, RSAPublicKey)
    message, signature = unhexed(case, "msg", "sig")
    try:
        key.verify(signature, message, rsa.PSS, SHA256())
    except InvalidSignature:
        return False
    return True


@pytest.mark.parametrize("case", cases("ecdsa_secp256k1_sha256_p1363_test"))
def test_ecdsa_secp256k1(case: Case) -> None:
    """A key is recovered from what it signed and from nothing else; with s in the upper half never."""
    public, message, signature = unhexed(case, "publicKey", "msg", "sig")
    digest = hashlib.sha256(message).digest()
    found = set()
    for v in (27, 28):
        try:
            found.add(keys.recover_public(digest, signature + bytes([v])))
        except VerificationError:
            continue
    high = int.from_bytes(signature[32:], "big") > keys.SECP256K1_N // 2
    assert (public[1:] in found) == (case["result"] == "valid" and not high)


@pytest.mark.parametrize("case", cases("hmac_sha512_test"))
def test_hmac_sha512(case: Case) -> None:
    """The keys of a group's messages."""
    key, message, tag = unhexed(case, "key", "msg", "tag")
    assert hmac.compare_digest(hmac.digest(key, message, "sha512"), tag) == (case["result"] == "valid")


@pytest.mark.parametrize("case", cases("hkdf_sha512_test"))
def test_hkdf_sha512(case: Case) -> None:
    """HKDF-Expand, as for files, after the RFC's Extract."""
    ikm, salt, info, okm = unhexed(case, "ikm", "salt", "info", "okm")
    extracted = hmac.digest(salt or bytes(64), ikm, "sha512")
    if case["result"] == "valid":
        assert HKDFExpand(SHA512(), case["size"], info).derive(extracted) == okm
    else:
        with pytest.raises(ValueError, match="derive"):
            HKDFExpand(SHA512(), case["size"], info)


@pytest.mark.parametrize("case", cases("pbkdf2_hmacsha512_test"))
def test_pbkdf2_sha512(case: Case) -> None:
    """What makes a seed of a recovery phrase (BIP-39)."""
    password, salt, key = unhexed(case, "password", "salt", "dk")
    assert hashlib.pbkdf2_hmac("sha512", password, salt, case["iterationCount"], case["dkLen"]) == key
