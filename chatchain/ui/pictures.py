"""The previews of pictures on a terminal: two pixels in each character, the upper half block and its ground.

They come from strangers. Whoever decodes them gives pixels, and nothing but pixels; from these come the
block, colours in numbers, and their end at the end of each line. A terminal without 256 colours or UTF-8,
NO_COLOR, `--no-color`, a pipe and `--json` get none.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from chatchain.ui import render

if TYPE_CHECKING:
    from chatchain.client.core import Client
    from chatchain.client.images import Picture
    from chatchain.client.views import Shown
    from chatchain.ui.output import Output

COLUMNS: Final = 40
ROWS: Final = 12
"""The most that a picture takes; small enough for a page of talk to stay one."""
NARROWEST: Final = 10
"""Columns below which nothing could be made out."""

_INDENT: Final = " " * 18
_STEPS: Final = (0, 95, 135, 175, 215, 255)
"""What the six steps of a colour are worth among 256 colours."""


async def message(client: Client, view: Shown, output: Output, *, ids: bool = False) -> list[str]:
    """One message in lines, with the picture that came inside it where it can be shown."""
    return render.message(view, ids=ids) + await _lines(client, view, output)


async def messages(client: Client, views: Sequence[Shown], output: Output, *, ids: bool = False) -> list[str]:
    """Several messages in the order given."""
    if not views:
        return render.messages(views)
    return [line for view in views for line in await message(client, view, output, ids=ids)]


async def _lines(client: Client, view: Shown, output: Output) -> list[str]:
    if view.attachment is None or view.attachment.thumbnail is None or not output.colours:
        return []
    columns = min(COLUMNS, shutil.get_terminal_size().columns - len(_INDENT) - 1)
    if columns < NARROWEST:
        return []
    picture = await client.picture(view, columns, 2 * ROWS)
    return [] if picture is None else blocks(picture, output.colours)


def blocks(picture: Picture, colours: int) -> list[str]:
    """A picture in lines of half blocks, in 256 colours or in all of them."""
    pixel = _of_256 if colours == 256 else _of_all
    rgb, row = picture.rgb, 3 * picture.width
    lines = []
    for top in range(0, picture.height, 2):
        line, last = _INDENT, ""
        for at in range(top * row, (top + 1) * row, 3):
            colour = f"\x1b[38;{pixel(rgb[at : at + 3])}"
            if top + 1 < picture.height:
                colour += f";48;{pixel(rgb[at + row : at + row + 3])}"
            colour += "m"
            line, last = line + ("" if colour == last else colour) + "▀", colour
        lines.append(f"{line}\x1b[0m")
    return lines


def _of_all(pixel: bytes) -> str:
    return f"2;{pixel[0]};{pixel[1]};{pixel[2]}"


def _of_256(pixel: bytes) -> str:
    red, green, blue = (_step(value) for value in pixel)
    return f"5;{16 + 36 * red + 6 * green + blue}"


def _step(value: int) -> int:
    return min(range(len(_STEPS)), key=lambda step: abs(_STEPS[step] - value))
