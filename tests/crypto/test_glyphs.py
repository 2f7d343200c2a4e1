"""Emoji, display names, file names: what may stand beside words that a person trusts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatchain.crypto.glyphs import (
    MAX_FILE_NAME_BYTES,
    display_name,
    file_name,
    is_display_name,
    is_emoji,
    is_file_name,
)
from chatchain.errors import BadText


@pytest.mark.parametrize(
    "emoji",
    [
        *("👍", "👍🏽", "❤", "❤️", "☺️", "©", "🫩", "🇨🇭", "1️⃣", "#⃣"),
        *("👩‍💻", "👨‍👩‍👧‍👦", "🧑🏽‍❤️‍💋‍🧑🏿", "🏳️‍🌈"),
        "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "\U0001faf9",
    ],
)
def test_one_emoji_is_one(emoji: str) -> None:
    """Plain, toned, flagged, joined, tagged, and from the future."""
    assert is_emoji(emoji)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "a", "1", "#", "ok", "👍👍", "👍 ", "👍a", "🇨", "🇨🇭🇨🇭", "👍‍", "‍👍", "\u200d", "\ufe0f"),
        *(
            "👍\ufe0f\ufe0f",
            "👍\u0301",
            "👍\u202e",
            "\ud83d",
            "👍" + "\u200d👍" * 20,
            "\U000e0067",
            "1\ufe0f",
        ),
    ],
)
def test_everything_else_is_not(text: str) -> None:
    """Letters, two, halves, tails, marks, a chain without end."""
    assert not is_emoji(text)


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("Ada Lovelace", "Ada Lovelace"),
        ("  Ada \u00a0 Lovelace\u3000", "Ada Lovelace"),
        ("e\u0301te\u0301", "été"),
        ("艾达", "艾达"),
        ("عَائِشَة", "عَائِشَة"),
        ("क्‍ष", "क्‍ष"),
        ("O’Neil (Jr.)", "O’Neil (Jr.)"),
        ("Zoë 👩‍💻 ❤️", "Zoë 👩‍💻 ❤️"),
        ("x" * 40, "x" * 40),
    ],
)
def test_a_display_name_has_one_form(typed: str, name: str) -> None:
    """Composed, with single blanks; any script, and emoji."""
    assert display_name(typed) == name
    assert is_display_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "   ", "x" * 41, "👩‍💻" * 14, "a\x00", "a\x1b[31m", "a\u202eb", "a\u2066b", "a\u200fb"),
        *("a\u200bb", "a\u200db", "a\u200cb", "a\ufeffb", "a\u00adb", "\u3164", "\u2800\u2800", "a\u034fb"),
        *("a\ufe0fb", "a\U000e0041b", "\u0301", "a" + "\u0316" * 5, "\ue000", "\ud800", 'a" b', "a” b"),
        *("a\U000e0100b", "\u115f", "\u0378"),
        *("a\nb", "a\tb", "a\n", "\ra", "a\x1fb", "a\x85b", "a\u2028b", "a\u2029"),
    ],
)
def test_what_deceives_is_no_display_name(name: str) -> None:
    """Controls, turns, invisible and blank letters, piles of marks, quotation marks, too much."""
    with pytest.raises(BadText):
        display_name(name)


@given(st.text(max_size=60))
def test_a_display_name_that_was_made_holds(text: str) -> None:
    """Whatever is typed either becomes a name that both sides take, or is refused."""
    try:
        name = display_name(text)
    except BadText:
        return
    assert is_display_name(name)
    assert display_name(name) == name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("notes.txt", "notes.txt"),
        ("/home/ada/notes.txt", "notes.txt"),
        ("C:\\Users\\ada\\notes.txt", "notes.txt"),
        ("../..", "file"),
        ("", "file"),
        (".profile", "profile"),
        ("a:b?.txt", "a_b_.txt"),
        ("photo\u202egpj.exe", "photo_gpj.exe"),
        ("a\nb\x00.txt", "a_b_.txt"),
        ("e\u0301.txt", "é.txt"),
        ("x" * 300 + ".txt", "x" * 251 + ".txt"),
        ("é" * 200 + ".jpeg", "é" * 125 + ".jpeg"),
        ("half\ud800.txt", "half_.txt"),
    ],
)
def test_a_path_becomes_a_file_name(path: str, name: str) -> None:
    """The last part, harmless, with its ending, in 255 bytes."""
    assert file_name(path) == name


@given(st.text(max_size=400))
def test_a_file_name_that_was_made_holds(path: str) -> None:
    """Whatever a file is called, it can be sent."""
    name = file_name(path)
    assert is_file_name(name)
    assert file_name(name) == name
    assert len(name.encode()) <= MAX_FILE_NAME_BYTES


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", " a", "a ", "a.", "a\0", "a\u2067b", "x" * 256]
)
def test_what_is_no_file_name_is_refused(name: str) -> None:
    """Paths, blanks at the ends, turns, too long."""
    assert not is_file_name(name)
