"""What people do besides writing texts, with two real clients: answer, react, edit, delete, set."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.e2e.town import Town, founded
from tests.ui.terminal import Shell


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """One network for this file, with ada and bob."""
    with founded(tmp_path_factory.mktemp("town")) as town:
        yield town


def for_people(shell: Shell) -> Shell:
    return replace(shell, environment={**shell.environment, "CHATCHAIN_JSON": "0"})


def history(shell: Shell, peer: str) -> list[dict[str, Any]]:
    return shell.run("history", peer).objects


def test_a_conversation_with_everything_in_it(town: Town) -> None:
    """Each deed reaches the other side, shows in both histories, and ends with the right code and keys."""
    ada, bob = town.user("ada"), town.user("bob")
    sent = ada.run("send", "bob", "shall we meet on Firday?").object
    [came] = bob.run("receive", "--wait", "10").objects
    assert came.keys() >= {"id", "kind", "reply_to", "attachment"}
    message = sent["id"]

    # An answer, by the first digits of the id.
    replied = bob.run("reply", message[:12], "gladly")
    assert (replied.code, replied.object["to"], replied.object["state"]) == (0, "ada", "sent")
    [answer] = ada.run("receive", "--wait", "10").objects
    assert (answer["text"], answer["reply_to"]) == ("gladly", message)
    assert answer["quote"] == {"from": "ada", "text": "shall we meet on Firday?", "deleted": False}

    # An edit and a reaction.
    edited = ada.run("edit", message, "shall we meet on Friday?")
    assert (edited.code, edited.object["id"], edited.object["state"]) == (0, message, "sent")
    reacted = ada.run("react", answer["id"], "🎉")
    assert (reacted.code, reacted.object["id"]) == (0, answer["id"])
    told = {one["kind"]: one for one in bob.run("receive", "--wait", "10").objects}
    assert (told["edit"]["target"], told["edit"]["text"]) == (message, "shall we meet on Friday?")
    assert (told["reaction"]["target"], told["reaction"]["emoji"]) == (answer["id"], "🎉")
    for one, peer in ((ada, "bob"), (bob, "ada")):
        first, second = history(one, peer)
        assert (first["text"], first["edited"], first["deleted"]) == ("shall we meet on Friday?", True, False)
        assert second["reactions"] == [{"from": "ada", "emoji": "🎉"}]

    # What people see.
    lines = for_people(bob).run("history", "ada", "--ids").out.splitlines()
    assert f"{message[:8]}  ada (edited): shall we meet on Friday?" in lines[0]
    assert "gladly" in lines[1]
    assert [line.strip() for line in lines[2:]] == ["> answers ada: shall we meet on Friday?", "+ 🎉 ada"]

    # Only the author deletes; afterwards nothing is left of it.
    assert bob.run("delete", message).code == 7
    assert ada.run("delete", message).object["id"] == message
    [gone] = bob.run("receive", "--wait", "10").objects
    assert (gone["kind"], gone["target"]) == ("delete", message)
    for one, peer in ((ada, "bob"), (bob, "ada")):
        first = history(one, peer)[0]
        assert (first["id"], first.get("text"), first["deleted"]) == (message, None, True)
        assert one.run("search", "Friday").objects == []
    assert "ada * deleted" in for_people(bob).run("history", "ada").out

    # A name, a timer, off the record.
    named = ada.run("profile", "Ada Lovelace").object
    assert (named["name"], named["told"]) == ("Ada Lovelace", 1)
    settings = ada.run("chat-settings", "bob", "--timer", "1h", "--off-the-record").object
    assert (settings["expires"], settings["off_the_record"], settings["state"]) == (3600, True, "sent")
    codes = [one["code"] for one in bob.run("receive", "--wait", "10").objects]
    assert codes == ["profile_changed", "timer_changed", "off_the_record_changed"]
    assert ada.run("send", "bob", "not for long").code == 0
    [brief] = bob.run("receive", "--wait", "10").objects
    assert (brief["name"], brief["expires_after"]) == ("Ada Lovelace", 3600)
    assert history(bob, "ada")[-1]["expires"].endswith("Z")
    assert "bob “" not in for_people(ada).run("history", "bob").out
    assert "ada “Ada Lovelace” (disappears " in for_people(bob).run("history", "ada").out
    assert bob.run("contacts", "list").object["name"] == "Ada Lovelace"
    off = bob.run("chat-settings", "ada", "--timer", "off", "--on-the-record").object
    assert (off["expires"], off["off_the_record"], off["name"]) == (0, False, "Ada Lovelace")
    assert bob.run("chat-settings", "ada").object["state"] is None
    assert bob.run("privacy").object == {"typing": True, "read_receipts": True}
    assert bob.run("privacy", "--no-typing").object == {"typing": False, "read_receipts": True}
    assert bob.run("privacy", "--typing").object == {"typing": True, "read_receipts": True}


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("reply", "0123456789abcdef", "x"), 6, "unknown_message"),
        (("edit", "xyz", "x"), 2, "usage"),
        (("delete", "abc"), 2, "usage"),
        (("reply", "01234567"), 2, "missing_input"),
        (("react", "01234567"), 2, "missing_input"),
        (("react", "01234567", "👍", "--remove"), 2, "missing_input"),
        (("react", "01234567", ""), 2, "usage"),
        (("profile", "ada\u202eadmin"), 2, "bad_text"),
        (("profile", "   "), 2, "usage"),
        (("profile", "Ada", "--clear"), 2, "usage"),
        (("chat-settings", "bob", "--timer", "soon"), 2, "usage"),
        (("chat-settings", "bob", "--timer", "53w"), 7, "too_large"),
        (("chat-settings", "nobody-at-all"), 6, "unknown_user"),
        (("chat-settings", "ada", "--timer", "1d"), 2, "usage"),
    ],
)
def test_what_cannot_be_done_is_said(town: Town, arguments: tuple[str, ...], code: int, word: str) -> None:
    """What is wrong, a word for it, and what to do."""
    ended = town.user("ada").run(*arguments)
    assert (ended.code, ended.object["error"]["code"]) == (code, word), ended
    assert ended.object["error"]["message"]
    assert ended.object["error"]["hint"] or code == 6


def test_a_setting_that_waits_is_said_to_be_made(town: Town) -> None:
    """Without a relay the timer counts here already; nobody must believe that it was refused."""
    ada, bob = town.user("ada"), town.user("bob")
    assert ada.run("status").object["relay_answers"] is True
    with town.without_relay():
        assert ada.run("status").object["relay_answers"] is False
        assert "does not answer as it should" in for_people(ada).run("status").out
        ended = ada.run("chat-settings", "bob", "--timer", "2h")
        assert (ended.code, ended.object["state"], ended.object["expires"]) == (4, "queued", 7200), ended
        assert ended.object["error"]["code"] == "relay_unreachable"
        told = for_people(ada).run("chat-settings", "bob", "--timer", "off")
        assert (told.code, told.err.startswith("The relay ")) == (4, True), told
        assert told.out.endswith("Changed, and is queued for bob.\n")
        answers = f"{town.password('ada')}\nsettings\nbob\n1h\n\nexit\n"
        told = for_people(town.at_terminal("ada")).run(stdin=answers)
        assert "Changed, and is queued for bob.\n" in told.out
        assert "The relay " in told.err
    with town.at_terminal("ada").terminal("chat", "bob") as chat:
        chat.expect("Password: ")
        chat.type(town.password("ada"))
        chat.expect("Talking with bob.")
        with town.without_relay():
            chat.expect("(not connected, trying again) > ")
            chat.type("/timer 3h")
            chat.expect("3 hours after they were read")
            chat.expect("Changed, and is queued for bob.")
            chat.expect("The relay ")
        chat.type("/quit")
        assert chat.ended() == 0
    assert ada.run("login").code == 0
    codes = [one["code"] for one in bob.run("receive", "--wait", "10").objects if one["kind"] == "notice"]
    assert codes == ["timer_changed"] * 4


def test_a_chat_and_the_menu_know_the_deeds(town: Town) -> None:
    """Commands with a slash act on the last messages; the menu lets one choose."""
    ada, bob = town.user("ada"), town.user("bob")
    bob.run("chat-settings", "ada", "--timer", "off")
    assert ada.run("send", "bob", "ping").code == 0
    script = "pong\n/react 🏓\n/edit PONG\n/reply that was quick\n/timer 5m\n/timer soon\n/edit\n/quit\n"
    ended = for_people(bob).run("chat", "ada", stdin=script)
    assert ended.code == 0, ended
    assert "you [sent]: PONG (edited)" in ended.out
    assert "messages disappear  5 minutes after they were read" in ended.out
    assert "'soon' is no time" in ended.err
    assert "/edit TEXT gives your own last message another text." in ended.err
    ada.run("receive", "--wait", "10")
    kept = {one.get("text"): one for one in history(ada, "bob")}
    assert kept["ping"]["reactions"] == [{"from": "bob", "emoji": "🏓"}]
    assert kept["PONG"]["edited"]
    assert kept["that was quick"]["reply_to"] == kept["ping"]["id"]

    password = town.password("bob")
    answers = f"{password}\nreact\nada\n9\n1\nnice\n👀\nreply\nada\n1\nanswered\n"
    answers += "settings\nada\nsoon\n1h\n\nprofile\nBob B.\nexit\n"
    ended = for_people(town.at_terminal("bob")).run(stdin=answers)
    assert ended.code == 0, ended
    assert ended.out.count("sent to ada  (") == 2
    assert "A reaction is one emoji." in ended.err
    assert "'soon' is no time" in ended.err
    assert "messages disappear  1 hour after they were read" in ended.out
    assert "You are shown as bob “Bob B.”." in ended.out


def test_a_deletion_names_what_it_took_and_is_not_repeated_unawares(town: Town) -> None:
    """`/delete` a second time does not take the message before; that one is named by its number."""
    notes = town.folder / "notes.txt"
    notes.write_text("some notes")
    script = ["one", "two", "/delete", "/delete", "/delete 2", "/delete 0", "/delete 999"]
    script += [f"/file {notes}", "/delete", "/quit", ""]
    ended = for_people(town.user("bob")).run("chat", "ada", stdin="\n".join(script))
    assert ended.code == 0, ended
    for taken in ("two", "one", "file notes.txt"):
        assert ended.out.count(f"you [sent]: (deleted) {taken}\n") == 1
    assert ended.err.count("deleted already.\n/delete 2 takes back this one: one\n") == 1
    assert "/delete [N] takes your own last message back" in ended.err
    assert "of yours to do that with" in ended.err
    kept = [one.get("text") for one in history(town.user("bob"), "ada") if one["direction"] == "out"]
    assert kept[-3:] == [None, None, None]


def test_who_types_is_seen_in_a_chat(town: Town) -> None:
    """While bob types, ada's chat says so; when he has sent or given up, it says it no more."""
    with town.at_terminal("ada").terminal("chat", "bob") as at_ada:
        at_ada.expect("Password: ")
        at_ada.type(town.password("ada"))
        at_ada.expect("Talking with bob.")
        with town.at_terminal("bob").terminal("chat", "ada") as at_bob:
            at_bob.expect("Password: ")
            at_bob.type(town.password("bob"))
            at_bob.expect("Talking with ada.")
            at_bob.expect("> ")
            at_bob.press(b"h")
            at_ada.expect("(bob is typing) > ")
            at_bob.press(b"i\n")
            at_bob.expect("you [sent]: hi")
            at_ada.expect("bob “Bob B.”")
            at_bob.type("/quit")
            assert at_bob.ended() == 0
        at_ada.type("/quit")
        assert at_ada.ended() == 0
