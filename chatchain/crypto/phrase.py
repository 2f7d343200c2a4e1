"""The recovery phrase: twelve BIP-39 words that give back the account key and the account secret.

The account key is at BIP-44's first Ethereum path with an empty passphrase, as every wallet finds it. The
account secret is derived from the same entropy under its own label.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from dataclasses import dataclass

from chatchain.crypto.derive import ACCOUNT_SECRET, hkdf
from chatchain.crypto.password import ACCOUNT_SECRET_BYTES
from chatchain.errors import UsageError

PATH = "m/44'/60'/0'/0/0"
WORDS = 12
_WORD_COUNTS = (12, 15, 18, 21, 24)
_BITS_PER_WORD = 11


@dataclass(frozen=True, slots=True, repr=False)
class PhraseKeys:
    """What a phrase stands for."""

    account_key: bytes
    account_secret: bytes

    def __repr__(self) -> str:
        return "PhraseKeys(…)"


def new_phrase() -> str:
    """Draws twelve words: 128 bits and a checksum."""
    return phrase_of(os.urandom(16))


def phrase_of(entropy: bytes) -> str:
    """Writes 16 to 32 bytes of entropy as words (BIP-39, English)."""
    if len(entropy) not in (16, 20, 24, 28, 32):
        raise ValueError("entropy has 16, 20, 24, 28 or 32 bytes")
    words = _wordlist()
    checksum_bits = len(entropy) // 4
    number = int.from_bytes(entropy, "big") << checksum_bits | _checksum(entropy, checksum_bits)
    count = (len(entropy) * 8 + checksum_bits) // _BITS_PER_WORD
    indices = [number >> _BITS_PER_WORD * place & 2047 for place in reversed(range(count))]
    return " ".join(words[index] for index in indices)


def normalise_phrase(text: str) -> str:
    """Gives the phrase in its one spelling; raises UsageError, which repeats no word of it."""
    words = unicodedata.normalize("NFKD", text).lower().split()
    if len(words) not in _WORD_COUNTS:
        raise UsageError(
            f"A recovery phrase has {WORDS} words (at times 15, 18, 21 or 24); this one has {len(words)}.",
            "Give all of them in their order, parted by blanks.",
        )
    entropy_of(" ".join(words))
    return " ".join(words)


def entropy_of(phrase: str) -> bytes:
    """Gives the entropy that a phrase spells; raises UsageError when a word or the checksum is wrong."""
    places = {word: index for index, word in enumerate(_wordlist())}
    number = 0
    words = phrase.split(" ")
    for position, word in enumerate(words, start=1):
        if word not in places:
            raise UsageError(f"Word {position} of the recovery phrase is not on the BIP-39 list.")
        number = number << _BITS_PER_WORD | places[word]
    checksum_bits = len(words) * _BITS_PER_WORD // 33
    entropy = (number >> checksum_bits).to_bytes(checksum_bits * 4, "big")
    if _checksum(entropy, checksum_bits) != number & (1 << checksum_bits) - 1:
        raise UsageError(
            "The recovery phrase has a wrong or swapped word: its checksum does not fit.",
            "Compare it word by word with what was written down.",
        )
    return entropy


def keys_of(phrase: str) -> PhraseKeys:
    """Gives the account key and account secret of a phrase; raises UsageError. Imports eth_account."""
    words = normalise_phrase(phrase)
    from eth_account.hdaccount.deterministic import HDPath
    from eth_account.hdaccount.mnemonic import Mnemonic

    return PhraseKeys(
        account_key=bytes(HDPath(PATH).derive(Mnemonic.to_seed(words))),
        account_secret=hkdf(entropy_of(words), ACCOUNT_SECRET, ACCOUNT_SECRET_BYTES),
    )


def _checksum(entropy: bytes, bits: int) -> int:
    return int.from_bytes(hashlib.sha256(entropy).digest(), "big") >> 256 - bits


def _wordlist() -> list[str]:
    from eth_account.hdaccount.mnemonic import Mnemonic

    return list(Mnemonic().wordlist)
