"""The recovery phrase: published BIP-39 and BIP-44 answers, and clear words about mistakes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatchain.crypto.phrase import entropy_of, keys_of, new_phrase, normalise_phrase, phrase_of
from chatchain.errors import UsageError
from chatchain.identity.keys import address_of, to_checksum

ABANDON = "abandon " * 11 + "about"
JUNK = "test test test test test test test test test test test junk"

# Entropy and phrase from BIP-39's own vectors.
PUBLISHED = [
    ("00" * 16, ABANDON),
    ("7f" * 16, "legal winner thank year wave sausage worth useful legal winner thank yellow"),
    ("80" * 16, "letter advice cage absurd amount doctor acoustic avoid letter advice cage above"),
    ("ff" * 16, "zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo wrong"),
    ("00" * 32, "abandon " * 23 + "art"),
]


@pytest.mark.parametrize(("entropy", "phrase"), PUBLISHED)
def test_the_words_are_bip39s(entropy: str, phrase: str) -> None:
    """Both ways."""
    assert phrase_of(bytes.fromhex(entropy)) == phrase
    assert entropy_of(phrase).hex() == entropy


@pytest.mark.parametrize(
    ("phrase", "account"),
    [
        (ABANDON, "0x9858EfFD232B4033E47d90003D41EC34EcaEda94"),
        (JUNK, "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"),
    ],
)
def test_the_account_is_where_every_wallet_finds_it(phrase: str, account: str) -> None:
    """The first Ethereum address of two phrases that the world knows."""
    assert to_checksum(address_of(keys_of(phrase).account_key)) == account


def test_the_account_secret_comes_from_the_entropy_under_its_own_label() -> None:
    """Fixed for a phrase, of 16 bytes, and nothing that the account key shows."""
    first, again, other = keys_of(ABANDON), keys_of(ABANDON), keys_of(JUNK)
    assert first == again
    assert len(first.account_secret) == 16
    assert first.account_secret != other.account_secret
    assert first.account_secret not in first.account_key


def test_a_new_phrase_has_twelve_words_and_checks() -> None:
    """Two are never the same."""
    first, second = new_phrase(), new_phrase()
    assert first != second
    assert len(first.split()) == 12
    assert normalise_phrase(first) == first


@given(st.sampled_from([16, 20, 24, 28, 32]).flatmap(lambda size: st.binary(min_size=size, max_size=size)))
@settings(deadline=None)
def test_entropy_survives(entropy: bytes) -> None:
    """Every length that BIP-39 knows."""
    assert entropy_of(phrase_of(entropy)) == entropy


def test_blanks_and_case_do_not_matter() -> None:
    """A phrase from a file may have line breaks, capitals and spaces."""
    typed = "  " + ABANDON.replace(" ", "\n  ").title() + "\n"
    assert normalise_phrase(typed) == ABANDON
    assert keys_of(typed) == keys_of(ABANDON)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("", "has 0"),
        ("abandon", "has 1"),
        (ABANDON + " about", "has 13"),
        (ABANDON.replace("about", "abandon"), "checksum"),
        ("about " + "abandon " * 11, "checksum"),
        (ABANDON.replace("about", "abuot"), "Word 12"),
        ("secretword " + "abandon " * 11, "Word 1 "),
    ],
)
def test_a_mistake_is_named_without_repeating_the_phrase(typed: str, said: str) -> None:
    """Which word, or the checksum; never the words themselves, since errors end in logs."""
    with pytest.raises(UsageError, match=said) as failed:
        keys_of(typed)
    assert "secretword" not in failed.value.message + failed.value.hint
    assert "abuot" not in failed.value.message + failed.value.hint


def test_keys_do_not_show() -> None:
    """repr is empty of them."""
    assert repr(keys_of(ABANDON)) == "PhraseKeys(…)"


@pytest.mark.parametrize("size", [0, 15, 17, 64])
def test_entropy_of_another_size_is_no_phrase(size: int) -> None:
    """BIP-39 knows five sizes."""
    with pytest.raises(ValueError, match="entropy"):
        phrase_of(bytes(size))
