"""X-Wing and HPKE are the published ones: an independent key schedule seals, the suite's library opens."""

from __future__ import annotations

import hmac
import json
from pathlib import Path

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from chatchain.crypto.derive import require_post_quantum
from chatchain.crypto.device import KemSecret
from chatchain.errors import BadConfig

XWING = json.loads((Path(__file__).parent.parent / "vectors" / "xwing.json").read_text())
SUITE_ID = b"HPKE" + (0x647A).to_bytes(2, "big") + (0x0001).to_bytes(2, "big") + (0x0002).to_bytes(2, "big")
"""X-Wing, HKDF-SHA256, AES-256-GCM (the registry of RFC 9180, section 7)."""


def extract(salt: bytes, label: bytes, secret: bytes) -> bytes:
    """RFC 9180's LabeledExtract."""
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + SUITE_ID + label + secret, "sha256")


def expand(key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    """RFC 9180's LabeledExpand, for at most one block of output."""
    return hmac.digest(
        key, length.to_bytes(2, "big") + b"HPKE-v1" + SUITE_ID + label + info + b"\x01", "sha256"
    )[:length]


def seal_base(shared_secret: bytes, info: bytes, plaintext: bytes) -> bytes:
    """RFC 9180's base mode from the KEM's shared secret on: the first message of a context, without AAD."""
    context = b"\x00" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    secret = extract(shared_secret, b"secret", b"")
    key = expand(secret, b"key", context, 32)
    nonce = expand(secret, b"base_nonce", context, 12)
    return AESGCM(key).encrypt(nonce, plaintext, b"")


@pytest.mark.parametrize("case", XWING["cases"], ids=lambda case: case["name"])
def test_the_published_x_wing_vector_opens(case: dict[str, str]) -> None:
    """Seed, encapsulation and shared secret are the draft's; only the right shared secret opens the text."""
    secret = KemSecret(bytes.fromhex(case["seed"]))
    enc = bytes.fromhex(case["ct"])
    sealed = enc + seal_base(bytes.fromhex(case["ss"]), b"some info", b"some plaintext")
    suite = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    assert suite.decrypt(sealed, secret.private, b"some info") == b"some plaintext"
    assert secret.public.hex().startswith(case["pk_start"])
    assert secret.public.hex().endswith(case["pk_end"])


def test_without_ml_kem_the_program_refuses_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never silently classical: neither a new home nor one that a better machine made."""
    require_post_quantum()

    def unsupported(_: bytes) -> None:
        raise UnsupportedAlgorithm("ML-KEM-768 is not supported by this backend.")

    monkeypatch.setattr(MLKEM768PrivateKey, "from_seed_bytes", unsupported)
    with pytest.raises(BadConfig, match="ML-KEM"):
        require_post_quantum()
    with pytest.raises(BadConfig, match="ML-KEM"):
        KemSecret(bytes(32))
