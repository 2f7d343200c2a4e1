"""No text from others may act on the terminal that shows it."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatchain.ui.clean import MAX_STACKED, clean_line, clean_lines

ACTING = {"Cc", "Cf", "Cs", "Zl", "Zp"}


@given(st.text())
def test_nothing_that_acts_on_a_terminal_is_left(text: str) -> None:
    """Whatever comes in, no control, format mark, separator or surrogate comes out but the two joiners."""
    shown = clean_line(text)
    assert not [
        character
        for character in shown
        if unicodedata.category(character) in ACTING and character not in "\u200c\u200d"
    ]


@given(
    st.text(
        st.characters(
            categories=["L", "N", "P", "S", "Zs"], exclude_characters="\u115f\u1160\u3164\uffa0\u2800"
        )
    )
)
def test_ordinary_text_is_shown_as_it_is(text: str) -> None:
    """Letters, digits, punctuation, symbols and blanks of every script pass."""
    assert clean_line(text) == text


@pytest.mark.parametrize(
    ("attack", "shown"),
    [
        ("\x1b[2J\x1b[H", "\u241b[2J\u241b[H"),  # clears the screen
        ("\x1b]0;root\x07", "\u241b]0;root\u2407"),  # sets the window's title
        ("\x9b31m", "<U+009B>31m"),  # the same controls in one byte
        ("a\rb", "a\u240db"),  # overwrites the line
        ("a\nb", "a\u240ab"),  # fakes another message
        ("a\x08b", "a\u2408b"),  # takes a letter back
        ("a\x7fb", "a\u2421b"),
        ("a\x00b", "a\u2400b"),
        ("\u202egnp.exe", "<U+202E>gnp.exe"),  # turns the direction around
        ("\u2067abc\u2069", "<U+2067>abc<U+2069>"),
        ("a\u200bb", "a<U+200B>b"),  # looks like ab
        ("a\u00adb", "a<U+00AD>b"),
        ("a\ufeffb", "a<U+FEFF>b"),
        ("a\u2028b", "a<U+2028>b"),
        ("\U000e0041", "<U+E0041>"),  # an invisible tag
        ("\u3164", "<U+3164>"),  # a blank letter
        ("\ud800", "<U+D800>"),  # half a character
    ],
)
def test_an_attack_is_shown_for_what_it_is(attack: str, shown: str) -> None:
    """The reader sees that something was there."""
    assert clean_line(attack) == shown


def test_stacked_marks_are_cut() -> None:
    """A letter with a hundred marks does not paint over the lines around it; one with a few is spelled so."""
    assert clean_line("o" + "\u0301" * 100 + "k") == "o" + "\u0301" * MAX_STACKED + "k"
    assert clean_line("e\u0302\u0301") == "e\u0302\u0301"


def test_an_emoji_of_several_parts_stays_whole() -> None:
    """The joiner that builds a family is not a hidden mark."""
    family = "\U0001f469\u200d\U0001f467"
    assert clean_line(family) == family


def test_lines_break_at_line_feeds_only() -> None:
    """A carriage return belongs to its line feed or is shown; tabs become blanks; other breaks are shown."""
    assert clean_lines("a\r\nb\rc\td\u2028e\x0b") == ["a", "b\u240dc    d<U+2028>e\u240b"]
