"""What a person at a terminal does: the menu from the first question to the first message, and a chat."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.e2e.town import PASSWORD, Town, founded
from tests.ui.terminal import Shell, Terminal, shell


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """One network for this file."""
    with founded(tmp_path_factory.mktemp("town")) as town:
        yield town


@pytest.fixture(scope="module")
def ada(town: Town) -> Shell:
    """The first founder, by commands."""
    return town.user("ada")


def choose(terminal: Terminal, word: str) -> None:
    """Answers the menu's standing question."""
    terminal.expect("what would you like to do?")
    terminal.expect("Number or word: ")
    terminal.type(word)


def test_a_newcomer_goes_from_the_first_question_to_the_first_message(town: Town, ada: Shell) -> None:
    """Name, network, password, phrase, waiting for the members, voting, writing, reading, leaving."""
    machine = shell(town.folder / "machines" / "newcomer")
    with machine.terminal() as terminal:
        terminal.expect("Which name would you like? ")
        terminal.type("nora")
        terminal.expect("Join link: ")
        terminal.type(town.report["join"])
        terminal.expect("Joined the network.")
        terminal.expect("Choose a password (at least 8 characters): ")
        assert not terminal.echoes()
        terminal.type("a horse")
        terminal.expect("fewer than 8 characters")
        terminal.expect("Choose a password (at least 8 characters): ")
        terminal.type(PASSWORD)
        terminal.expect("The same again: ")
        terminal.type("another horse")
        terminal.expect("The two differ.")
        terminal.expect("Choose a password (at least 8 characters): ")
        terminal.type(PASSWORD)
        terminal.expect("The same again: ")
        terminal.type(PASSWORD)
        terminal.expect("Your recovery phrase.")
        words = [word for word in terminal.expect("Press Enter").split() if word.isalpha() and word.islower()]
        assert len(words[-12:]) == 12
        terminal.press(b"\n")
        terminal.expect("Welcome, nora.")
        terminal.expect("The members were asked to admit you")

        choose(terminal, "send")
        terminal.expect("To whom? ")
        terminal.type("nobody-at-all")
        terminal.expect("nobody-at-all")
        choose(terminal, "send")
        terminal.expect("To whom? ")
        terminal.type("ada")
        terminal.expect("Only admitted members")

        [proposal] = [one for one in ada.run("proposals").objects if one["subject"] == "nora"]
        for voter in (ada, town.user("bob")):
            assert voter.run("vote", str(proposal["id"]), "yes").code == 0

        choose(terminal, "members")
        terminal.expect("nora")
        choose(terminal, "send")
        terminal.expect("To whom? ")
        terminal.type("ada")
        terminal.expect("What do you want to say? ")
        terminal.type("now I may")
        terminal.expect("sent to ada")
        [came] = ada.run("receive", "--wait", "10").objects
        assert (came["from"], came["text"]) == ("nora", "now I may")

        assert ada.run("send", "nora", "welcome\n2025-01-01 00:00  bob: fake").code == 0
        choose(terminal, "read")
        terminal.expect("ada: welcome")
        terminal.expect("| 2025-01-01 00:00  bob: fake")
        choose(terminal, "read")
        terminal.expect("Nothing new.")
        choose(terminal, "history")
        terminal.expect("With whom? ")
        terminal.type("ada")
        terminal.expect("to ada [")
        terminal.expect("ada: welcome")

        choose(terminal, "nonsense")
        terminal.expect("'nonsense' is none of these")
        choose(terminal, "vote")
        terminal.expect("admit nora")
        terminal.expect("what would you like to do?")  # none takes votes, so none is asked for
        terminal.type("exit")
        terminal.expect("Goodbye.")
        assert terminal.ended() == 0
        assert PASSWORD not in terminal.transcript
        assert "Traceback" not in terminal.transcript

    # The next time the menu knows her, and a wrong password is asked again.
    with machine.terminal() as terminal:
        terminal.expect("1  nora")
        terminal.type("nora")
        terminal.expect("Password for nora: ")
        terminal.type("wrong")
        terminal.expect("The password is wrong.")
        terminal.expect("Password for nora: ")
        terminal.type(PASSWORD)
        terminal.expect("Logged in as nora")
        choose(terminal, "0")
        assert terminal.ended() == 0


def test_a_second_user_of_the_machine_needs_no_link(town: Town) -> None:
    """The menu remembers the network; a taken name is explained; a pipe can do it all."""
    machine = shell(town.folder / "machines" / "newcomer")
    script = ["new", "ada", "", "admin", "olga", PASSWORD, PASSWORD, "status", "exit"]
    ended = machine.run(stdin="\n".join(script) + "\n")
    assert ended.code == 0, ended
    assert "The name ada is taken." in ended.err
    assert "The name admin is reserved." in ended.err
    assert not (machine.folder.parent / "data" / "chatchain" / "ada").exists()
    assert "Welcome, olga." in ended.out
    assert "open proposals" in ended.out
    assert PASSWORD not in ended.out + ended.err
    locked_out = machine.run(stdin="olga\nwrong\n")
    assert locked_out.code == 3, locked_out
    assert locked_out.err.startswith("The password is wrong.")


def test_registering_at_a_terminal_shows_the_phrase_once(town: Town) -> None:
    """The command asks what the menu would ask, and goes on when the person has written the words down."""
    pia = town.at_terminal("pia")
    assert (
        replace(pia, environment={**pia.environment, "CHATCHAIN_JSON": "1"})
        .run("join", town.report["join"])
        .object
    )
    with pia.terminal("register", "pia") as terminal:
        for first, second, said in (
            ("short", None, "fewer than 8 characters"),
            (PASSWORD, PASSWORD + "?", "differ"),
            (PASSWORD, PASSWORD, ""),
        ):
            terminal.expect("password for this account (at least 8 characters): ")
            terminal.type(first)
            if second is not None:
                terminal.expect("The same again: ")
                terminal.type(second)
            if second != PASSWORD:
                terminal.expect(said)
        terminal.expect("Your recovery phrase.")
        terminal.expect("Press Enter when you have written it down.")
        terminal.type("")
        terminal.expect("Welcome, pia.")
        assert terminal.ended() == 0


def test_a_chat_shows_what_comes_in_above_the_line_being_typed(town: Town, ada: Shell) -> None:
    """What was typed so far is drawn again; states are shown; /quit leaves with everything sent."""
    bob = town.at_terminal("bob")
    assert ada.run("send", "bob", "before the chat").code == 0
    with bob.terminal("chat", "ada") as terminal:
        terminal.expect("Password: ")
        terminal.type(town.password("bob"))
        terminal.expect("Talking with ada.")
        terminal.expect("ada: before the chat")
        terminal.press(b"half a sen")
        terminal.expect("half a sen")
        assert ada.run("send", "bob", "\x1b[2Jhello?").code == 0
        terminal.expect("ada: \u241b[2Jhello?")
        terminal.expect("> half a sen")
        terminal.press(b"tenx\x7fce\n")
        terminal.expect("you [sent]: half a sentence")
        terminal.type("/quit")
        assert terminal.ended() == 0
        assert terminal.echoes()
        assert "Traceback" not in terminal.transcript
    assert ada.run("receive", "--wait", "10").objects[-1]["text"] == "half a sentence"


def test_ctrl_c_in_a_chat_gives_the_terminal_back(town: Town) -> None:
    """Exit 130, and echo as before."""
    with town.at_terminal("bob").terminal("chat", "ada") as terminal:
        terminal.expect("Password: ")
        terminal.type(town.password("bob"))
        terminal.expect("Talking with ada.")
        terminal.expect("> ")
        assert not terminal.echoes()
        terminal.press(b"\x03")
        assert terminal.ended() == 130
        assert terminal.echoes()
        assert "Traceback" not in terminal.transcript


def test_a_chat_works_through_pipes(town: Town, ada: Shell) -> None:
    """Lines of a script are sent; the end of input ends the chat."""
    bob = replace(town.user("bob"), environment={**town.user("bob").environment, "CHATCHAIN_JSON": "0"})
    ended = bob.run("chat", "ada", stdin="one\n\n/exit\n//two\n")
    assert ended.code == 0, ended
    assert ended.err == "Unknown command.\n/help lists them, /quit leaves, // sends a slash.\n"
    assert ended.out.count("you [sent]") == 2
    texts = [one["text"] for one in ada.run("receive", "--wait", "10").objects]
    assert texts[-2:] == ["one", "/two"]


def test_a_registration_that_broke_off_goes_on_in_the_menu(town: Town) -> None:
    """Without a relay nobody pays for it; the next time the menu says so and finishes it."""
    machine = shell(town.folder / "machines" / "rosa")
    assert machine.run("join", town.report["join"]).code == 0
    password = town.folder / "rosa.password"
    password.write_text(PASSWORD)
    password.chmod(0o600)
    with town.without_relay():
        broken = machine.run("register", "rosa", "--password-file", password, "--json")
        assert (broken.code, broken.error["code"]) == (4, "relay_unreachable")
        early = machine.run("whoami", "--json")
        assert (early.code, early.error["code"]) == (6, "no_account")
        assert "register rosa" in early.error["hint"]
    with machine.terminal() as terminal:
        terminal.expect("1  rosa  (registration not finished)")
        terminal.type("1")
        terminal.expect("not finished")
        terminal.expect("Password for rosa (chosen before): ")
        terminal.type(PASSWORD)
        terminal.expect("Your recovery phrase.")
        terminal.expect("Press Enter")
        terminal.type("")
        terminal.expect("Welcome, rosa.")
        choose(terminal, "exit")
        assert terminal.ended() == 0


def test_the_menu_brings_an_account_back_from_its_phrase(town: Town) -> None:
    """On another machine a taken name leads to the question for the recovery phrase."""
    tilda = town.stranger("tilda")
    words = town.folder / "tilda.words"
    assert tilda.run("join", town.report["join"]).code == 0
    assert tilda.run("register", "tilda", "--mnemonic-file", words).code == 0
    machine = shell(town.folder / "machines" / "tilda-again")
    script = ["tilda", town.report["join"], words.read_text().strip(), PASSWORD, PASSWORD, "status", "exit"]
    ended = machine.run(stdin="\n".join(script) + "\n")
    assert ended.code == 0, ended
    assert "tilda is back, as device 2" in ended.out
    assert words.read_text().strip() not in ended.out + ended.err
