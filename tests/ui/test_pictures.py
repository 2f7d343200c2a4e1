"""Previews on a terminal: half blocks and colours, and nothing else, only where they can be seen."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Mapping

import pytest

from chatchain.client.images import Picture
from chatchain.ui import pictures
from chatchain.ui.output import Output

RED, GREEN, BLUE = b"\xff\0\0", b"\0\xff\0", b"\0\0\xff"


class Terminal(io.TextIOWrapper):
    """Something that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def terminal(encoding: str = "utf-8") -> Terminal:
    return Terminal(io.BytesIO(), encoding=encoding)


def colours(environment: Mapping[str, str], *, json: bool = False, colour: bool = True) -> int:
    return Output(json=json, environment=environment, colour=colour).colours


def test_two_rows_of_pixels_are_one_of_characters() -> None:
    """The upper one is the sign, the lower one its ground; the last of an odd number has none."""
    tall = Picture(2, 3, RED + RED + GREEN + BLUE + BLUE + GREEN)
    assert [line.strip() for line in pictures.blocks(tall, 2**24)] == [
        "\x1b[38;2;255;0;0;48;2;0;255;0m▀\x1b[38;2;255;0;0;48;2;0;0;255m▀\x1b[0m",
        "\x1b[38;2;0;0;255m▀\x1b[38;2;0;255;0m▀\x1b[0m",
    ]
    assert pictures.blocks(Picture(2, 2, RED * 4), 256) == [
        " " * 18 + "\x1b[38;5;196;48;5;196m▀▀\x1b[0m",
    ]


def test_whatever_the_pixels_nothing_but_colours_reaches_the_terminal() -> None:
    """Every byte as a pixel, in both ways of writing colours."""
    wild = Picture(64, 4, bytes(range(256)) * 3)
    for number in (256, 2**24):
        for line in pictures.blocks(wild, number):
            assert re.fullmatch(r" {18}(\x1b\[38;[0-9;]+m▀+)+\x1b\[0m", line)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TERM": "xterm-256color"}, 256),
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, 2**24),
        ({"TERM": "xterm"}, 0),
        ({"TERM": "dumb", "COLORTERM": "truecolor"}, 0),
        ({"COLORTERM": "truecolor"}, 0),
        ({"TERM": "xterm-256color", "NO_COLOR": ""}, 0),
        ({}, 0),
    ],
)
def test_pictures_are_for_terminals_that_can(
    environment: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And never for programs, pipes, who wants no colour, or another encoding."""
    monkeypatch.setattr(sys, "stdout", terminal())
    assert colours(environment) == expected
    assert colours(environment, json=True) == colours(environment, colour=False) == 0
    monkeypatch.setattr(sys, "stdout", terminal("iso8859-1"))
    assert colours(environment) == 0
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert colours(environment) == 0
