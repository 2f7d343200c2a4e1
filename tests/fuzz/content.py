"""What an opened envelope holds: the peer may write what it likes."""

from __future__ import annotations

from contextlib import suppress

from chatchain.crypto import content, glyphs
from chatchain.errors import BadText, Undecryptable
from tests.fuzz.target import field, target


@target(Undecryptable, seeds=field("content.json", "content"))
def any_kind(data: bytes) -> None:
    """Whatever is read is written again as it was."""
    found = content.decode(data)
    if not isinstance(found, content.Unsupported):
        assert content.encode(found) == data


@target(seeds=[b"Ada Lovelace", "a\u202eb/../c\0.txt".encode(), "👩‍👩‍👧".encode()])
def short_texts(data: bytes) -> None:
    """Names of files and of people, and emoji, from anybody."""
    text = data.decode(errors="replace")
    assert glyphs.is_file_name(glyphs.file_name(text))
    with suppress(BadText):
        assert glyphs.is_display_name(glyphs.display_name(text))
    glyphs.is_emoji(text)
