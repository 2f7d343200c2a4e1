"""Safety numbers: Signal's published answer, and ours."""

from __future__ import annotations

import msgspec
import pytest

from chatchain.crypto import safety
from chatchain.errors import BadRecord
from chatchain.identity.names import uid_text
from chatchain.model import Address
from tests.identity.people import person

# The input and the answers of libsignal's own tests (5,200 rounds).
ALICE = (b"+14152222222", bytes.fromhex("0506863bc66d02b40d27b8d49ca7c09e9239236f9d7d25d6fcca5ce13c7064d868"))
BOB = (b"+14153333333", bytes.fromhex("05f781b6fb32fed9ba1cf2de978d4d5da28dc34046ae814402b5c0dbd96fda907b"))
DISPLAYED = "300354477692869396892869876765458257569162576843440918079131"
ALICE_SCANNED = "1e301a0353dce3dbe7684cb8336e85136cdc0ee96219494ada305d62a7bd61df"
BOB_SCANNED = "d62cbf73a11592015b6b9f1682ac306fea3aaf3885b84d12bca631e9d4fb3a4d"

ADA_USER = person("ada").user
BOB_USER = person("bob").user


def test_libsignals_answer_is_reproduced() -> None:
    """Digits and the scanned halves."""
    alice, bob = safety.fingerprint(*ALICE), safety.fingerprint(*BOB)
    assert safety.digits(alice, bob) == safety.digits(bob, alice) == DISPLAYED
    assert alice[:32].hex() == ALICE_SCANNED
    assert bob[:32].hex() == BOB_SCANNED


def test_both_sides_see_the_same_sixty_digits() -> None:
    """Whoever asks."""
    number = safety.safety_number(ADA_USER, BOB_USER)
    assert number == safety.safety_number(BOB_USER, ADA_USER)
    assert len(number) == 60
    assert number.isdigit()
    assert safety.spaced(number).split() == [number[i : i + 5] for i in range(0, 60, 5)]


def test_the_input_is_uid_and_account_address() -> None:
    """15 digits of the uid as the identifier, 20 bytes of the account as the key."""
    own = safety.fingerprint(uid_text(ADA_USER.uid).encode(), ADA_USER.account)
    assert safety.account_fingerprint(ADA_USER.uid, ADA_USER.account) == own


def test_another_account_or_uid_changes_the_number() -> None:
    """A replaced account key is what the number is for; new devices leave it alone."""
    number = safety.safety_number(ADA_USER, BOB_USER)
    moved = msgspec.structs.replace(BOB_USER, account=Address(b"\x66" * 20))
    assert safety.safety_number(ADA_USER, moved) != number
    assert safety.safety_number(ADA_USER, msgspec.structs.replace(BOB_USER, uid=ADA_USER.uid)) != number
    assert safety.safety_number(ADA_USER, person("bob").rotated().user) == number


def test_the_code_of_the_other_side_matches() -> None:
    """Theirs shows them first; one's own code does not match itself."""
    theirs = safety.qr_payload(BOB_USER, ADA_USER)
    assert safety.qr_matches(theirs, ADA_USER, BOB_USER)
    assert not safety.qr_matches(safety.qr_payload(ADA_USER, BOB_USER), ADA_USER, BOB_USER)
    assert not safety.qr_matches(theirs[:-1] + bytes([theirs[-1] ^ 1]), ADA_USER, BOB_USER)


@pytest.mark.parametrize(
    "scanned", [b"", b"\x01", b"\x02" + bytes(64), b"\x01" + bytes(63), b"\x01" + bytes(65)]
)
def test_another_code_is_refused(scanned: bytes) -> None:
    """It is not a mismatch but no safety number at all."""
    with pytest.raises(BadRecord):
        safety.qr_matches(scanned, ADA_USER, BOB_USER)


def test_a_code_as_text_has_one_spelling() -> None:
    """As a camera gives it to a person, wrapped by whatever carried it."""
    text = safety.qr_text(BOB_USER, ADA_USER)
    assert safety.read_qr(text) == safety.qr_payload(BOB_USER, ADA_USER)
    wrapped = "\n  ".join(text[start : start + 30] for start in range(0, len(text), 30))
    assert safety.qr_matches(safety.read_qr(wrapped), ADA_USER, BOB_USER)
    for wrong in (
        "",
        text[:-1],
        text + "A",
        text + "=",
        text.upper(),
        "chatchain://contact?name=bob",
        "é" * 112,
    ):
        with pytest.raises(BadRecord):
            safety.read_qr(wrong)
