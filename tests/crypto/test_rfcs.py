"""The primitives that are used give the answers of the documents that define them."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chatchain.crypto import derive, x25519
from tests.crypto import test_post_quantum as schedule


def h(digits: str) -> bytes:
    return bytes.fromhex(digits)


@pytest.mark.parametrize(
    ("secret", "salt", "info", "expected"),
    [
        pytest.param(
            b"\x0b" * 22,
            bytes(range(13)),
            bytes(range(0xF0, 0xFA)),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
            id="A.1",
        ),
        pytest.param(
            b"\x0b" * 22,
            b"",
            b"",
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
            id="A.3",
        ),
    ],
)
def test_rfc_5869(secret: bytes, salt: bytes, info: bytes, expected: str) -> None:
    """HKDF-SHA256, with and without salt and info."""
    assert derive.hkdf(secret, info, 42, salt=salt).hex() == expected


def test_rfc_7748_section_5_2() -> None:
    """One multiplication, and a thousand of them, each from the result of those before."""
    scalar = h("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    point = h("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    product = "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"
    assert x25519.agree(scalar, point).hex() == product
    k = u = (9).to_bytes(32, "little")
    for _ in range(1000):
        k, u = x25519.agree(k, u), k
    assert k.hex() == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


def test_rfc_7748_section_6_1() -> None:
    """Bob's public key, and what he agrees on with Alice."""
    bob = h("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    alice = h("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    assert x25519.public_of(bob).hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    assert (
        x25519.agree(bob, alice).hex() == "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    )


def test_rfc_9180_a_1_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """The schedule by which test_post_quantum judges HPKE is the RFC's, here for its X25519 and AES-128."""
    monkeypatch.setattr(schedule, "SUITE_ID", b"HPKE" + h("002000010001"))
    info = h("4f6465206f6e2061204772656369616e2055726e")
    shared = h("fe0e18c9f024ce43799ae393c7e8fe8fce9d218875e8227b0187c04e7d2ea1fc")
    context = b"\x00" + schedule.extract(b"", b"psk_id_hash", b"") + schedule.extract(b"", b"info_hash", info)
    secret = schedule.extract(shared, b"secret", b"")
    key = schedule.expand(secret, b"key", context, 16)
    nonce = schedule.expand(secret, b"base_nonce", context, 12)
    assert (key.hex(), nonce.hex()) == ("4531685d41d65f03dc48f6b8302c05b0", "56d890e5accaaf011cff4b7d")
    first = AESGCM(key).encrypt(nonce, b"Beauty is truth, truth beauty", b"Count-0")
    assert first.hex() == (
        "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a"
    )
