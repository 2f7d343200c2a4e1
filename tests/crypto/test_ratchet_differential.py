"""Our ratchet, header encryption and KEM steps switched off, talks with an independent implementation.

The other side is the `doubleratchet` package with the specification's recommended functions; only the AEAD
and the bytes of a header are ours.
"""

from __future__ import annotations

import asyncio
import random
import struct
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from doubleratchet import AEAD, AuthenticationFailedException, DoubleRatchet, EncryptedMessage, Header
from doubleratchet.recommended import (
    HashFunction,
    diffie_hellman_ratchet_curve25519,
    kdf_hkdf,
    kdf_separate_hmacs,
)

from chatchain.crypto import ratchet
from chatchain.crypto.ratchet import BARE, MAX_KEPT, MAX_SKIP, Ratchet, SharedKeys
from chatchain.crypto.x25519 import public_of
from tests.crypto.pairs import NOW

MESSAGES = 5000
"""In each of the two casts."""

HEADER = struct.Struct(">32sIIHB")
AD = b"a" * 32
SK = b"s" * 32
SPK = b"p" * 32
KEYS = SharedKeys(SK, bytes(32), bytes(32), AD)


class RootKdf(kdf_hkdf.KDF):
    """HKDF with SHA-256 and our label."""

    @staticmethod
    def _get_hash_function() -> HashFunction:
        return HashFunction.SHA_256

    @staticmethod
    def _get_info() -> bytes:
        return b"chatchain/2 ratchet root"


class ChainKdf(kdf_separate_hmacs.KDF):
    """One HMAC-SHA-256 for the chain key, one for the message key."""

    @staticmethod
    def _get_hash_function() -> HashFunction:
        return HashFunction.SHA_256


class Aead(AEAD):
    """AES-256-GCM, the message key used once."""

    @staticmethod
    async def encrypt(plaintext: bytes, key: bytes, associated_data: bytes) -> bytes:
        return AESGCM(key).encrypt(bytes(12), plaintext, associated_data)

    @staticmethod
    async def decrypt(ciphertext: bytes, key: bytes, associated_data: bytes) -> bytes:
        try:
            return AESGCM(key).decrypt(bytes(12), ciphertext, associated_data)
        except InvalidTag as exc:
            raise AuthenticationFailedException from exc


class Oracle(DoubleRatchet):
    """The other implementation with our header's bytes."""

    @staticmethod
    def _build_associated_data(associated_data: bytes, header: Header) -> bytes:
        return associated_data + header_bytes(header)


SETTINGS: dict[str, Any] = {
    "diffie_hellman_ratchet_class": diffie_hellman_ratchet_curve25519.DiffieHellmanRatchet,
    "root_chain_kdf": RootKdf,
    "message_chain_kdf": ChainKdf,
    "message_chain_constant": b"\x02\x01",
    "dos_protection_threshold": MAX_SKIP,
    "max_num_skipped_message_keys": MAX_KEPT,
    "aead": Aead,
}


def header_bytes(header: Header) -> bytes:
    """The bare header: no KEM epoch, no KEM field."""
    return HEADER.pack(
        header.ratchet_pub, header.previous_sending_chain_length, header.sending_chain_length, 0, 0
    )


def to_ours(message: EncryptedMessage) -> bytes:
    """A message of the oracle as our bytes."""
    return header_bytes(message.header) + message.ciphertext


def to_oracle(message: bytes) -> EncryptedMessage:
    """Our bytes as a message of the oracle."""
    dh, pn, n, epoch, field = HEADER.unpack_from(message)
    assert (epoch, field) == (0, 0)
    return EncryptedMessage(Header(dh, pn, n), message[HEADER.size :])


async def begin(ours_begins: bool) -> tuple[Ratchet, DoubleRatchet]:
    """The first message in one direction and its decryption."""
    if ours_begins:
        ours, message = ratchet.encrypt(ratchet.initiate(KEYS, public_of(SPK), BARE), b"first", b"")
        oracle, plaintext = await Oracle.decrypt_initial_message(
            **SETTINGS,
            shared_secret=SK,
            own_ratchet_priv=SPK,
            message=to_oracle(message),
            associated_data=AD,
        )
    else:
        oracle, first = await Oracle.encrypt_initial_message(
            **SETTINGS,
            shared_secret=SK,
            recipient_ratchet_pub=public_of(SPK),
            message=b"first",
            associated_data=AD,
        )
        ours, plaintext = ratchet.decrypt(ratchet.respond(KEYS, SPK, BARE), to_ours(first), b"", NOW)
    assert plaintext == b"first"
    return ours, oracle


async def converse(seed: str, ours_begins: bool) -> int:
    """Exchanges shuffled messages; gives how many were read."""
    dice = random.Random(seed)
    ours, oracle = await begin(ours_begins)
    to_us: list[tuple[bytes, bytes]] = []
    to_them: list[tuple[bytes, bytes]] = []
    decrypted = late = 0
    for number in range(MESSAGES + 1):
        text, last = b"%d" % number, number == MESSAGES
        if last:
            pass  # what is still on its way arrives
        elif dice.random() < 0.5:
            ours, sealed = ratchet.encrypt(ours, text, b"")
            to_them.append((text, sealed))
        else:
            to_us.append((text, to_ours(await oracle.encrypt_message(text, AD))))
        for box in (to_us, to_them):
            while box and (last or len(box) > 6 or dice.random() < 0.3):
                index = dice.randrange(len(box)) if len(box) < 12 else 0
                late += index > 0
                text, sealed = box.pop(index)
                if box is to_us:
                    ours, plaintext = ratchet.decrypt(ours, sealed, b"", NOW)
                else:
                    plaintext = await oracle.decrypt_message(to_oracle(sealed), AD)
                assert plaintext == text
                decrypted += 1
    assert late > MESSAGES / 4
    return decrypted


@pytest.mark.parametrize("ours_begins", [True, False])
def test_shuffled_messages_are_read_by_an_independent_ratchet(ours_begins: bool) -> None:
    """Five thousand in either cast, every one of them."""
    assert asyncio.run(converse(f"{ours_begins}", ours_begins)) == MESSAGES
