"""The primitives that are used give the answers of the documents that define them."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from chatchain.crypto import derive, x25519
from chatchain.identity import ed25519, keys
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
            bytes(range(80)),
            bytes(range(0x60, 0xB0)),
            bytes(range(0xB0, 0x100)),
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
            "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
            id="A.2",
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
    assert derive.hkdf(secret, info, len(expected) // 2, salt=salt).hex() == expected


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


@pytest.mark.parametrize(
    ("secret", "public", "message", "signature"),
    [
        pytest.param(
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            b"",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
            "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
            id="TEST 1",
        ),
        pytest.param(
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            b"\x72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
            id="TEST 2",
        ),
        pytest.param(
            "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
            "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
            hashlib.sha512(b"abc").digest(),
            "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b589"
            "09351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
            id="TEST SHA(abc)",
        ),
    ],
)
def test_rfc_8032_section_7_1(secret: str, public: str, message: bytes, signature: str) -> None:
    """Key, signature and verification; TEST 3 stands with the gate for keys."""
    assert ed25519.public_of(h(secret)).hex() == public
    assert ed25519.sign(h(secret), message).hex() == signature
    assert ed25519.verify(h(public), h(signature), message)


def test_rfc_9106_section_5_3() -> None:
    """Argon2id of the library by which test_password judges libsodium's, which takes neither lanes nor AD."""
    judge = Argon2id(
        salt=b"\x02" * 16,
        length=32,
        iterations=3,
        lanes=4,
        memory_cost=32,
        secret=b"\x03" * 8,
        ad=b"\x04" * 12,
    )
    tag = judge.derive(b"\x01" * 32)
    assert tag.hex() == "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659"


LONG = (
    b"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn"
    b"hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu"
)
"""The message of 896 bits of NIST's examples for SHA-512."""


@pytest.mark.parametrize(
    ("message", "digest"),
    [
        pytest.param(
            b"abc",
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
            "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            id="24 bits",
        ),
        pytest.param(
            LONG,
            "8e959b75dae313da8cf4f72814fc143f8f7779c6eb9f7fa17299aeadb6889018"
            "501d289e4900f7e4331b99dec4b5433ac7d329eeb6dd26545e96e55b874be909",
            id="896 bits",
        ),
        pytest.param(
            b"a" * 1_000_000,
            "e718483d0ce769644e2e42c7bc15b4638e1f98b13b2044285632a803afa973eb"
            "de0ff244877ea60a4cb0432ce577c31beb009c5c2c49aa2e4eadb217ad8cc09b",
            id="a million letters",
        ),
    ],
)
def test_fips_180_sha_512(message: bytes, digest: str) -> None:
    """NIST's examples; the safety number, groups and files rest on it."""
    assert hashlib.sha512(message).hexdigest() == digest


@pytest.mark.parametrize(
    ("message", "digest"),
    [
        pytest.param(
            b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", id="24 bits"
        ),
        pytest.param(
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
            id="448 bits",
        ),
    ],
)
def test_fips_180_sha_256(message: bytes, digest: str) -> None:
    """NIST's examples."""
    assert hashlib.sha256(message).hexdigest() == digest


def test_keccak_256_of_a_known_text() -> None:
    """What Ethereum calls an event: the first topic of every ERC-20 transfer."""
    found = keys.keccak256(b"Transfer(address,address,uint256)").hex()
    assert found == "ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
