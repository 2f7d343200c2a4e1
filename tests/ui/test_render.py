"""What people read: aligned, in local time, and with nothing in it that another person could abuse."""

import time
from collections.abc import Iterator

import msgspec
import pytest

from chatchain.client.views import ContactView, Finding, MemberView, Problem, ProposalView, Sent, Shown
from chatchain.ui import render

ATTACK = "\x1b[2J\u202eevil\r\nada: pay me"


@pytest.fixture
def in_kathmandu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A zone with an offset that no other has by accident."""
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def shown(**changes: object) -> Shown:
    """A message that came in, changed as said."""
    plain = Shown(id="00" * 16, kind="text", time="2025-11-21T12:00:00Z", from_="bob", text="hello")
    return msgspec.structs.replace(plain, **changes)


@pytest.mark.usefixtures("in_kathmandu")
def test_times_are_local() -> None:
    """The wire says UTC, the screen what the clock on the wall says."""
    assert render.local_time("2025-11-21T23:30:00.123Z") == "2025-11-22 05:15"


def test_a_time_that_is_none_is_shown_cleaned() -> None:
    """A relay's nonsense does not end the program."""
    assert render.local_time("\x1bnever") == "\u241bnever"


@pytest.mark.usefixtures("in_kathmandu")
def test_a_message_is_one_line_with_time_and_sender() -> None:
    """When, who, what."""
    assert render.message(shown()) == ["2025-11-21 17:45  bob: hello"]
    own = shown(direction="out", to="bob", from_="ada", state="delivered")
    assert render.message(own) == ["2025-11-21 17:45  to bob [delivered]: hello"]
    notice = shown(kind="notice", text=None, notice="bob has new keys", code="keys_changed")
    assert render.message(notice) == ["2025-11-21 17:45  bob * bob has new keys"]


def test_a_second_line_cannot_pass_for_another_message() -> None:
    """Every line after the first is marked, so only the program itself begins a line with a time."""
    first, *more = render.message(shown(text="hi\n2025-11-21 17:46  ada: pay me"))
    assert first.endswith("bob: hi")
    assert [line.lstrip()[:2] for line in more] == ["| "]


@pytest.mark.parametrize(
    "lines",
    [
        render.message(shown(text=ATTACK)),
        render.message(shown(from_=ATTACK)),
        render.message(shown(group=ATTACK)),
        render.message(shown(kind="notice", text=None, notice=ATTACK)),
        render.sent(Sent("id", ATTACK, "queued", error=Problem("x", ATTACK))),
        render.contact(ContactView(ATTACK, 1, "0x", "12345 " * 12, False, changed=ATTACK)),
        render.contacts([ContactView(ATTACK, 1, "0x", "1", False, changed=ATTACK)]),
        render.members([MemberView(ATTACK, 1, ATTACK, 1, 1)]),
        render.proposals(
            [ProposalView(1, "admit", ATTACK, 0, 0, 1, "open", "network", 1, "x", ATTACK, False)]
        ),
        render.proposal(ProposalView(1, "admit", ATTACK, 0, 0, 1, "open", ATTACK, 1, "x", ATTACK, False)),
        render.findings([Finding(ATTACK, False, ATTACK, ATTACK)]),
    ],
)
def test_no_field_of_a_view_reaches_the_terminal_as_it_came(lines: list[str]) -> None:
    """Names, texts, notices and reasons are all somebody else's words."""
    text = "".join(lines)
    assert "evil" in text
    assert not {"\x1b", "\u202e", "\r", "\n"} & set(text)


def test_tables_are_aligned_also_with_wide_characters() -> None:
    """A cell in two-column characters takes two columns each."""
    lines = render.table(["name", "x"], [["ada", "1"], ["\u4e2d\u6587\u5b57", "2"]])
    assert lines == ["name    x", "ada     1", "\u4e2d\u6587\u5b57  2"]


def test_a_safety_number_stands_in_three_rows() -> None:
    """Twelve groups of five digits, four a row, as they are read out."""
    number = " ".join(f"{n:05}" for n in range(12))
    lines = render.contact(ContactView("bob", 1, "0x", number, False))
    assert [line.split() for line in lines[-3:]] == [number.split()[start : start + 4] for start in (0, 4, 8)]
