"""Usernames and ids are what the contract says they are."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatchain.errors import MalformedName, MalformedUid
from chatchain.identity.names import (
    RESERVED_NAMES,
    check_digit,
    checked_uid,
    normalise_username,
    uid_from_text,
    uid_text,
)


@pytest.mark.parametrize(
    "name", ["ada", "a1b", "bob-2", "a-b-c", "x" * 32, "abc-def-ghi-jkl-mno-pqr-stu-vwxy"]
)
def test_a_name_by_the_rule_stays_as_it_is(name: str) -> None:
    """Nothing is changed in a name that already follows the rule."""
    assert normalise_username(name) == name


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("Ada", "ada"), ("ADA-Lovelace", "ada-lovelace"), ("ａｄａ", "ada"), ("Ｂｏｂ７", "bob7")],
)
def test_a_name_is_normalised_per_ensip15(typed: str, meant: str) -> None:
    """Case and full-width forms fold into the one name that the chain knows."""
    assert normalise_username(typed) == meant


@pytest.mark.parametrize(
    ("typed", "rule"),
    [
        ("", "empty"),
        ("ab", "3 to 32"),
        ("x" * 33, "3 to 32"),
        ("x" * 10_000, "too long"),
        ("1ada", "start with a letter"),
        ("-ada", "start with a letter"),
        ("ada-", "ends with a hyphen"),
        ("a--b", "two hyphens"),
        ("ada lovelace", "only have the characters"),
        ("ada_l", "only have the characters"),
        ("ada.eth", "only have the characters"),
        ("ada\n", "only have the characters"),
        ("adä", "only have the characters"),
        ("аda", "cannot stand in a username"),  # a Cyrillic а among Latin letters
        ("ada\u200d", "cannot stand in a username"),
        ("\ud800bc", "cannot stand in a username"),
    ],
)
def test_a_malformed_name_is_refused_with_its_rule(typed: str, rule: str) -> None:
    """The message says which rule is broken."""
    with pytest.raises(MalformedName, match=rule):
        normalise_username(typed)


@given(st.text(max_size=40))
@settings(deadline=None, max_examples=150)
def test_normalising_is_idempotent_and_fails_only_as_documented(typed: str) -> None:
    """Whatever is typed gives a name that normalises to itself, or MalformedName."""
    try:
        name = normalise_username(typed)
    except MalformedName:
        return
    assert normalise_username(name) == name


def test_reserved_names_follow_the_rule_and_do_not_repeat() -> None:
    """A reserved name that could not be registered anyway would be a slip."""
    assert [normalise_username(name) for name in RESERVED_NAMES] == sorted(set(RESERVED_NAMES))


@pytest.mark.parametrize(
    ("body", "digit"), [("79462", 3), ("00200667308", 5), ("3339200596", 1), ("13669597", 6)]
)
def test_the_check_digit_has_its_published_values(body: str, digit: int) -> None:
    """Known answers: the standard's usual examples, a Croatian OIB and a German VAT number."""
    assert check_digit(body) == digit


@given(st.integers(10**13, 10**14 - 1), st.integers(0, 14), st.integers(1, 9))
@settings(deadline=None)
def test_every_single_wrong_digit_is_caught(body: int, position: int, difference: int) -> None:
    """The check digit finds any one mistyped digit."""
    right = uid_text(body * 10 + check_digit(body))
    wrong = right[:position] + str((int(right[position]) + difference) % 10) + right[position + 1 :]
    assert uid_from_text(right) == int(right)
    with pytest.raises(MalformedUid):
        uid_from_text(wrong)


def test_an_id_may_be_typed_in_groups() -> None:
    """Blanks between digits are for the eye."""
    body = 12345678901234
    typed = uid_text(body * 10 + check_digit(body))
    assert uid_from_text(f" {typed[:5]} {typed[5:10]} {typed[10:]} ") == int(typed)


@pytest.mark.parametrize(
    "typed", ["", "1", "1" * 14, "1" * 16, "a" * 15, "-" + "1" * 14, "１" * 15, "²" * 15, "0" * 15]
)
def test_what_is_no_id_is_refused(typed: str) -> None:
    """Length and digits are checked before the check digit."""
    with pytest.raises(MalformedUid):
        uid_from_text(typed)


@pytest.mark.parametrize("number", [-1, 0, 10**14 - 1, 10**15, 2**64])
def test_a_number_outside_of_the_range_is_no_id(number: int) -> None:
    """The chain's ids have exactly fifteen digits."""
    with pytest.raises(MalformedUid):
        checked_uid(number)


def test_plain_names_load_no_ethereum_library() -> None:
    """The common case stays fast: no web3, no ens, no eth_account."""
    script = (
        "import sys; from chatchain.identity import names, keys, typed_data, record, login;"
        "names.normalise_username('Ada');"
        "print(sorted({'web3', 'ens', 'eth_account'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
