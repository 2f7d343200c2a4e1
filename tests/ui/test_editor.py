"""The line editor of the chat, byte by byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatchain.ui.editor import MAX_TYPED, LineEditor


@pytest.mark.parametrize(
    ("typed", "lines", "rest"),
    [
        (b"hello\r", ["hello"], ""),
        (b"one\ntwo\nthr", ["one", "two"], "thr"),
        (b"helo\x7flo\r", ["hello"], ""),
        (b"\x7f\x08x\r", ["x"], ""),
        (b"nothing of this\x15all\r", ["all"], ""),
        (b"one two three\x17\x17and\r", ["one and"], ""),
        (b"a\x1b[Ab\x1b[1;5Cc\x1bOHd\x1bxe\r", ["abcde"], ""),
        ("\u00fcber \u4e2d\r".encode(), ["\u00fcber \u4e2d"], ""),
        (b"tab\tbed\x01\r", ["tab bed"], ""),
        (b"\xff\r", ["\ufffd"], ""),
    ],
)
def test_keys_do_what_they_are_for(typed: bytes, lines: list[str], rest: str) -> None:
    """Whole and byte by byte, with the same outcome."""
    whole = LineEditor()
    assert (whole.feed(typed), whole.text) == (lines, rest)
    single = LineEditor()
    assert [line for byte in typed for line in single.feed(bytes([byte]))] == lines
    assert single.text == rest


def test_ctrl_d_ends_the_input_on_an_empty_line_only() -> None:
    """In the middle of a text it is a slip of the hand; behind it nothing counts."""
    editor = LineEditor()
    assert editor.feed(b"abc\x04\r\x04def\r") == ["abc"]
    assert editor.ended


@given(st.binary(max_size=300))
def test_no_key_brings_a_control_character_into_the_line(typed: bytes) -> None:
    """Whatever a terminal sends."""
    editor = LineEditor()
    for line in [*editor.feed(typed), editor.text]:
        assert all(character >= " " for character in line)


def test_a_line_is_bounded() -> None:
    """A key that got stuck fills no memory."""
    editor = LineEditor()
    editor.feed(b"x" * (MAX_TYPED + 10))
    assert len(editor.text) == MAX_TYPED
