"""Which short texts of others may stand beside trusted words: an emoji, a display name, a file name.

A message's text may hold anything and is cleaned when it is shown. These three stand where a person trusts
their eyes, so their rules hold before anything is stored: no controls, no marks that turn the reading
direction, nothing invisible. The sender's side makes a text fit (`display_name`, `file_name`), both sides
check that it does.

What an emoji is follows the grammar of Unicode TS 51 over the blocks that Unicode has set aside for
pictographs, so that emoji that are younger than this program's Unicode tables pass on every device alike.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from chatchain.errors import BadText

MAX_EMOJI_BYTES: Final = 64
"""The longest emoji of Unicode 16, two people and a heart with skin tones, has 35 bytes."""

MAX_DISPLAY_NAME: Final = 40
MAX_DISPLAY_NAME_BYTES: Final = 160
MAX_FILE_NAME_BYTES: Final = 255

_PICTOGRAPH: Final = (
    "\u00a9\u00ae\u203c\u2049\u2122\u2139\u2194-\u2199\u21a9\u21aa\u231a\u231b\u2328\u2388\u23cf"
    "\u23e9-\u23f3\u23f8-\u23fa\u24c2\u25aa\u25ab\u25b6\u25c0\u25fb-\u25fe\u2600-\u2605\u2607-\u2612"
    "\u2614-\u2685\u2690-\u2705\u2708-\u2712\u2714\u2716\u271d\u2721\u2728\u2733\u2734\u2744\u2747\u274c"
    "\u274e\u2753-\u2755\u2757\u2763-\u2767\u2795-\u2797\u27a1\u27b0\u27bf\u2934\u2935\u2b05-\u2b07"
    "\u2b1b\u2b1c\u2b50\u2b55\u3030\u303d\u3297\u3299"
    "\U0001f000-\U0001f0ff\U0001f10d-\U0001f10f\U0001f12f\U0001f16c-\U0001f171\U0001f17e\U0001f17f"
    "\U0001f18e\U0001f191-\U0001f19a\U0001f1ad-\U0001f1e5\U0001f201-\U0001f20f\U0001f21a\U0001f22f"
    "\U0001f232-\U0001f23a\U0001f23c-\U0001f23f\U0001f249-\U0001f3fa\U0001f400-\U0001f53d"
    "\U0001f546-\U0001f64f\U0001f680-\U0001f6ff\U0001f774-\U0001f77f\U0001f7d5-\U0001f7ff"
    "\U0001f80c-\U0001f80f\U0001f848-\U0001f84f\U0001f85a-\U0001f85f\U0001f888-\U0001f88f"
    "\U0001f8ae-\U0001f8ff\U0001f90c-\U0001f93a\U0001f93c-\U0001f945\U0001f947-\U0001faff"
    "\U0001fc00-\U0001fffd"
)
"""Extended_Pictographic of Unicode's emoji-data.txt; the reserved places in it are set aside for good."""

_FLAG: Final = "[\U0001f1e6-\U0001f1ff]{2}"
_TONE: Final = "[\U0001f3fb-\U0001f3ff]"
_SELECTOR: Final = "\ufe0f"
_JOINER: Final = "\u200d"
_TAGS: Final = "[\U000e0020-\U000e007e]{1,8}\U000e007f"
_ONE: Final = (
    f"(?:{_FLAG}|[{_PICTOGRAPH}](?:{_TONE}|{_SELECTOR}\u20e3?|{_TAGS})?|{_TONE}|[0-9#*]{_SELECTOR}?\u20e3)"
)
_EMOJI: Final = re.compile(f"{_ONE}(?:{_JOINER}{_ONE})*")
_IN_EMOJI: Final = re.compile(f"[{_PICTOGRAPH}](?:{_TONE}|{_SELECTOR})?(?:{_JOINER}{_ONE})*")

_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""Categories of what acts and is not seen, or is seen differently everywhere."""
_BLANKS: Final = frozenset("\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0\u034f")
_QUOTES: Final = frozenset('"\u201c\u201d\u201e\u201f\u2033\u301d\u301e\uff02')
"""A display name is shown between quotation marks, and must not be able to end them."""
_MAX_MARKS: Final = 4
_VIRAMA: Final = 9
_TURNS: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_PATH: Final = frozenset('/\\:*?"<>|\0')
"""What separates or means something else in a path of some system."""


def is_emoji(text: str) -> bool:
    """Whether a text is one emoji, as one sign, and nothing else."""
    return len(text.encode("utf-8", "replace")) <= MAX_EMOJI_BYTES and _EMOJI.fullmatch(text) is not None


# --- display names --------------------------------------------------------------------------------------


def display_name(text: str) -> str:
    """Gives a name as it is sent: composed (NFC), blanks made single; raises BadText for what must not be."""
    name = unicodedata.normalize("NFC", " ".join(text.split()))
    controls = any(unicodedata.category(sign) in ("Cc", "Zl", "Zp") for sign in text)
    if controls or not is_display_name(name) or any(unicodedata.category(sign) == "Cn" for sign in name):
        raise BadText(
            "That cannot be a display name.",
            f"It has up to {MAX_DISPLAY_NAME} letters, digits, signs and single blanks, at least one to be "
            "seen; no quotation marks, line breaks, invisible characters or marks that turn the reading "
            "direction.",
        )
    return name


def is_display_name(text: str) -> bool:
    """Whether a text is a display name in the one form in which it is sent."""
    if not 1 <= len(text) <= MAX_DISPLAY_NAME or not _is_text(text):
        return False
    if len(text.encode()) > MAX_DISPLAY_NAME_BYTES or unicodedata.normalize("NFC", text) != text:
        return False
    if text != text.strip(" ") or "  " in text:
        return False
    plain = _IN_EMOJI.sub("\u263a", text)
    return any(unicodedata.category(sign)[0] in "LNPS" for sign in plain) and _is_plain(plain)


def _is_plain(text: str) -> bool:
    """Whether every character of a name is one that people see."""
    marks = 0
    before = ""
    for sign in text:
        category = unicodedata.category(sign)
        marks = marks + 1 if category[0] == "M" else 0
        joins = sign in "\u200c\u200d" and before != "" and unicodedata.combining(before) == _VIRAMA
        if marks > _MAX_MARKS or (marks and before in ("", " ")):
            return False
        if (category in _UNSEEN and not joins) or (category == "Zs" and sign != " "):
            return False
        if sign in _BLANKS or sign in _QUOTES or "\ufe00" <= sign <= "\ufe0f" or sign >= "\U000e0100":
            return False
        before = sign
    return True


# --- file names -----------------------------------------------------------------------------------------


def file_name(path: str) -> str:
    """Gives the last part of a path as a name that may be sent; what must not be in it becomes `_`."""
    last = unicodedata.normalize("NFC", re.split(r"[/\\]", path.encode("utf-8", "replace").decode())[-1])
    name = "".join("_" if _acts(sign) else sign for sign in last).strip(" .") or "file"
    stem, dot, ending = name.rpartition(".")
    if not dot or len(ending.encode()) > 16:
        stem, dot, ending = name, "", ""
    room = MAX_FILE_NAME_BYTES - len((dot + ending).encode())
    return stem.encode()[:room].decode(errors="ignore").rstrip(" .") + dot + ending


def is_file_name(name: str) -> bool:
    """Whether a name is a file's name and nothing else: no path, no direction, at most 255 bytes."""
    return (
        _is_text(name)
        and 1 <= len(name.encode()) <= MAX_FILE_NAME_BYTES
        and name == name.strip(" .")
        and not any(_acts(sign) for sign in name)
    )


def _acts(sign: str) -> bool:
    return sign in _PATH or sign in _TURNS or unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp")


def _is_text(text: str) -> bool:
    """Whether a text can be written in UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
