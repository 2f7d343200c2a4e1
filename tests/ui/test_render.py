"""What people read: aligned, in local time, and with nothing in it that another person could abuse."""

import time
from collections.abc import Iterator

import msgspec
import pytest

from chatchain.client.views import (
    Attachment,
    ChatSettings,
    ContactView,
    Finding,
    Invited,
    MemberView,
    PrivacyView,
    Problem,
    ProfileView,
    ProposalView,
    Quote,
    Reacted,
    Sent,
    Shown,
)
from chatchain.errors import UsageError
from chatchain.ui import render
from chatchain.ui.timers import timer_seconds

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


def test_an_invitation_says_in_local_time_until_when_it_holds() -> None:
    """No seconds of another zone for a person."""
    lines = render.invited(Invited(invitation="text", expires="2026-11-21T19:37:18Z", join="link"))
    assert f"until {render.local_time('2026-11-21T19:37:18Z')}. " in lines[0]
    assert "18Z" not in lines[0]


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
    assert render.message(notice) == ["2025-11-21 17:45  * bob has new keys"]
    other = shown(kind="notice", text=None, notice="The message was altered.", code="undecryptable")
    assert render.message(other) == ["2025-11-21 17:45  bob * The message was altered."]


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
        render.message(shown(name=ATTACK)),
        render.message(shown(reply_to="00", quote=Quote(ATTACK, ATTACK))),
        render.message(shown(reactions=(Reacted(ATTACK, ATTACK),))),
        render.message(shown(attachment=Attachment(ATTACK, 1, "00", ATTACK))),
        render.message(shown(kind="edit", text=ATTACK)),
        render.message(shown(kind="reaction", text=None, emoji=ATTACK, quote=Quote(ATTACK, ATTACK))),
        render.chat_settings(ChatSettings(ATTACK, 1, ATTACK, 0, off_the_record=False, state="sent")),
        render.profile(ProfileView(ATTACK, 1, ATTACK)),
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


@pytest.mark.usefixtures("in_kathmandu")
def test_what_is_known_of_a_message_stands_before_its_text() -> None:
    """Edited, brought along, soon gone; and reactions below, marked."""
    soon = shown(edited=True, expires_after=3600)
    assert render.message(soon) == ["2025-11-21 17:45  bob (edited; disappears 1 hour after reading): hello"]
    sooner = shown(expires="2025-11-21T13:00:00Z", expires_after=3600)
    assert render.message(sooner) == ["2025-11-21 17:45  bob (disappears 2025-11-21 18:45): hello"]
    file = shown(kind="file", text="", attachment=Attachment("a.txt", 5, "00", "text/plain"))
    assert render.message(file) == [
        "2025-11-21 17:45  bob (file a.txt, 5 bytes)",
        "                  = fetch it: `chatchain file get 00000000`",
    ]
    here = msgspec.structs.replace(file, attachment=Attachment("a.txt", 5, "00", "text/plain", "/home/a.txt"))
    assert render.message(here)[1:] == ["                  = /home/a.txt"]
    own = msgspec.structs.replace(here, direction="out", to="eve")
    assert render.message(own) == ["2025-11-21 17:45  to eve (file a.txt, 5 bytes)"]
    liked = shown(reactions=(Reacted("ada", "👍"), Reacted("bob", "🎉"), Reacted("eve", "👍")))
    assert render.message(liked)[1].split() == ["+", "👍", "ada,", "eve", "🎉", "bob"]
    assert render.message(shown(text=None, deleted=True)) == ["2025-11-21 17:45  bob * deleted"]
    assert render.message(shown(id="ab" * 16), ids=True) == ["2025-11-21 17:45  abababab  bob: hello"]


@pytest.mark.parametrize(
    ("quote", "line"),
    [
        (Quote("ada", "the first message"), "> answers ada: the first message"),
        (Quote("ada", "hi”): I owe you 100"), "> answers ada: hi”): I owe you 100"),
        (Quote("ada", "", deleted=True), "> answers ada: (deleted)"),
        (None, "> answers a message that is not here"),
    ],
)
def test_what_is_answered_cannot_speak_for_who_answers(quote: Quote | None, line: str) -> None:
    """It stands in a line of its own, behind a mark that no text can set."""
    first, *more = render.message(shown(text="yes\n> no", reply_to="11" * 16, quote=quote))
    assert first.endswith("  bob: yes")
    assert [one.strip() for one in more] == ["| > no", line]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (9_949, "9.9 kB"),
        (15_163, "15 kB"),
        (999_999, "999 kB"),
        (2_000_000, "2.0 MB"),
        (25_000_000, "25 MB"),
    ],
)
def test_sizes_are_said_as_people_say_them(number: int, said: str) -> None:
    """In powers of ten, as the limits are."""
    assert render.size(number) == said


@pytest.mark.usefixtures("in_kathmandu")
def test_deeds_are_told_in_words() -> None:
    """Who did what to which message."""
    quote = Quote("ada", "the first message")

    def told(**changes: object) -> str:
        (line,) = render.message(shown(quote=quote, target="11" * 16, **changes))
        return line.removeprefix("2025-11-21 17:45  bob ")

    assert told(kind="edit", text="better\nlonger") == "* edited a message: better …"
    assert told(kind="delete", text=None) == "* deleted a message"
    assert told(kind="reaction", text=None, emoji="👍") == "* 👍 to “the first message”"
    assert told(kind="reaction", text=None, emoji="") == "* took the reaction to “the first message” away"


def test_a_display_name_never_stands_alone() -> None:
    """The username comes first; what the name says is between quotation marks."""
    (line,) = render.message(shown(name="ada"))
    assert line.endswith("bob “ada”: hello")
    assert render.profile(ProfileView("ada", 1, "Ada L.", 2)) == [
        "You are shown as ada “Ada L.”.",
        "2 contacts will see it; others do when you write to them.",
    ]
    assert render.profile(ProfileView("ada", 1, "")) == ["You have no display name; you are shown as ada."]


def test_settings_are_said_in_words() -> None:
    """How it is, and how far a change came."""
    assert render.chat_settings(ChatSettings("bob", 1, "", 0, off_the_record=False)) == [
        "with                bob",
        "called              -",
        "messages disappear  never",
        "off the record      no",
    ]
    changed = render.chat_settings(ChatSettings("bob", 1, "Bob", 90, off_the_record=True, state="sent"))
    assert changed[2:] == [
        "messages disappear  90 seconds after they were read",
        "off the record      yes",
        "Changed, and sent to bob.",
    ]
    assert render.privacy(PrivacyView(typing=True, read_receipts=False)) == [
        "Others see that you are typing.",
        "Others do not learn that you have read a message.",
    ]


@pytest.mark.parametrize(
    ("typed", "seconds"),
    [("30", 30), ("30s", 30), ("5m", 300), ("1h", 3600), (" 1 D ", 86_400), ("4w", 2_419_200), ("off", 0)],
)
def test_a_timer_is_typed_with_its_unit(typed: str, seconds: int) -> None:
    """Seconds without one."""
    assert timer_seconds(typed) == seconds


@pytest.mark.parametrize("typed", ["", "soon", "-1", "1.5h", "1y", "00", "9999999999s", "1h30m"])
def test_what_is_no_time_is_refused(typed: str) -> None:
    """With an example of what is."""
    with pytest.raises(UsageError, match="no time") as refused:
        timer_seconds(typed)
    assert "1d" in refused.value.hint


def test_a_list_of_proposals_does_not_take_no_vote_for_a_no() -> None:
    """Somebody who has not voted yet has not voted against it."""
    view = ProposalView(1, "admit", "zoe", 0, 0, 1, "open", "network", 1, "x", "admit zoe", False)
    _, row = render.proposals([view])
    assert row.endswith("not given")
    _, row = render.proposals([msgspec.structs.replace(view, voted=True)])
    assert row.endswith("  given")
