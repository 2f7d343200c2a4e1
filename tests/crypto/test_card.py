"""A contact card says what the chain says, in one spelling, signed by one of the user's devices."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatchain.crypto.card import MAX_CARD, SCHEME, decode_card, encode_card, make_card, verify_card
from chatchain.errors import BadRecord
from chatchain.model import Address, Network, Uid
from tests.identity.people import NETWORK, OTHER_NETWORK, person

ADA = person("ada")
BOB = person("bob")
TEXT = make_card(NETWORK, ADA.user, 1, 1, ADA.secrets())


def test_a_card_survives() -> None:
    """It decodes to what the chain says and verifies."""
    card = decode_card(TEXT)
    assert (card.username, card.uid, card.account) == (ADA.name, ADA.uid, ADA.user.account)
    assert encode_card(card) == TEXT
    verify_card(card, NETWORK, ADA.user)


def test_a_card_survives_copying() -> None:
    """Line breaks and blanks of a mail are ignored."""
    wrapped = "\n  ".join(TEXT[i : i + 60] for i in range(0, len(TEXT), 60)) + "\r\n"
    assert decode_card(wrapped) == decode_card(TEXT)


def test_the_longest_card_stays_within_the_limit() -> None:
    """Name, chain id and device numbers at their largest."""
    card = msgspec.structs.replace(
        decode_card(TEXT), username="x" * 32, chain_id=2**64 - 1, device=2**32 - 1, version=2**32 - 1
    )
    assert len(encode_card(card)) <= MAX_CARD
    assert decode_card(encode_card(card)) == card


def test_a_card_by_an_older_key_of_an_active_device_still_verifies() -> None:
    """A printed card outlives a rotation: it gives no more than the chain says anyway."""
    verify_card(decode_card(TEXT), NETWORK, ADA.rotated().user)


@pytest.mark.parametrize("position", range(len(TEXT)))
def test_every_altered_character_is_noticed(position: int) -> None:
    """Mistyped anywhere, it is refused on reading or on verifying."""
    other = "0" if TEXT[position] != "0" else "1"
    typed = TEXT[:position] + other + TEXT[position + 1 :]
    with pytest.raises(BadRecord):
        verify_card(decode_card(typed), NETWORK, ADA.user)


@pytest.mark.parametrize(
    "changed",
    [
        {"username": "adb"},
        {"uid": BOB.uid},
        {"account": BOB.user.account},
        {"chain_id": 1},
        {"directory": Address(bytes(20))},
        {"device": 2},
        {"version": 2},
        {"signature": bytes(64)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_card_that_says_something_else_is_refused(changed: dict[str, Any]) -> None:
    """Each field is compared with the chain and signed."""
    with pytest.raises(BadRecord):
        verify_card(msgspec.structs.replace(decode_card(TEXT), **changed), NETWORK, ADA.user)


@pytest.mark.parametrize(
    "lie",
    [{"username": "bob"}, {"uid": BOB.uid}, {"account": BOB.user.account}],
    ids=lambda lie: next(iter(lie)),
)
def test_a_device_cannot_sign_a_card_that_lies(lie: dict[str, Any]) -> None:
    """Ada's own key over another name, id or account: the chain decides, not the signature."""
    claimed = msgspec.structs.replace(ADA.user, **lie)
    text = make_card(NETWORK, claimed, 1, 1, ADA.secrets())
    with pytest.raises(BadRecord, match="what the chain says"):
        verify_card(decode_card(text), NETWORK, ADA.user)


def test_a_card_of_another_network_is_named_as_such() -> None:
    """The hint says which network it is for."""
    with pytest.raises(BadRecord, match="another network") as failed:
        verify_card(decode_card(TEXT), OTHER_NETWORK, ADA.user)
    assert "31337" in failed.value.hint


def test_a_card_signed_by_somebody_else_is_refused() -> None:
    """Right words, wrong key."""
    forged = make_card(NETWORK, ADA.user, 1, 1, BOB.secrets())
    with pytest.raises(BadRecord, match="signature"):
        verify_card(decode_card(forged), NETWORK, ADA.user)


def test_a_card_of_a_revoked_device_is_refused() -> None:
    """The hint says how to get another."""
    with pytest.raises(BadRecord, match="active"):
        verify_card(decode_card(TEXT), NETWORK, ADA.revoked().user)


@pytest.mark.parametrize(
    "text",
    [
        "",
        SCHEME,
        "https://contact?" + TEXT.removeprefix(SCHEME),
        TEXT + "&x=1",
        TEXT[:-1],
        TEXT + "A",
        TEXT * 2,
        "x" * 5000,
        TEXT.replace("chain=31337", "chain=031337"),
        TEXT.replace("device=1", "device=01"),
        TEXT.replace("device=1", "device=１"),
        TEXT.replace("chain=31337", "chain=99999999999999999999"),
        TEXT.upper(),
    ],
)
def test_what_is_no_card_is_refused(text: str) -> None:
    """Other schemes, missing or added parts, and second spellings."""
    with pytest.raises(BadRecord):
        verify_card(decode_card(text), NETWORK, ADA.user)


@given(
    st.one_of(
        st.text(max_size=450), st.text(alphabet="abc019&=-_", max_size=200).map(lambda text: SCHEME + text)
    )
)
@settings(deadline=None)
def test_only_bad_record_escapes_the_parser(text: str) -> None:
    """Whatever is pasted."""
    with pytest.raises(BadRecord):
        decode_card(text)


def test_a_number_that_fits_no_field_is_refused() -> None:
    """A card for a chain id beyond 64 bits decodes and cannot be signed for."""
    network = Network(2**64, NETWORK.directory, NETWORK.registry, NETWORK.membership)
    with pytest.raises(BadRecord, match="cannot be"):
        make_card(network, ADA.user, 1, 1, ADA.secrets())
    assert Uid(ADA.uid) == ADA.user.uid
