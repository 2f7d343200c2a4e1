"""Every command against a real network: the keys that scripts rely on, and the exit codes of bad input."""

import contextlib
import json
import os
import select
import signal
import socketserver
import ssl
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest

from deploy import certificates
from tests.e2e.town import PASSWORD, Town, founded
from tests.fixtures.chains import call
from tests.fixtures.processes import free_port
from tests.ui.terminal import PATIENCE, PROGRAM, Ended, Shell

MAX_TEXT = 64 * 1024


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """One network for this file; what a test does to it, it undoes, or it makes a user of its own."""
    with founded(tmp_path_factory.mktemp("town")) as town:
        yield town


@pytest.fixture(scope="module")
def ada(town: Town) -> Shell:
    """The first founder."""
    return town.user("ada")


@pytest.fixture(scope="module")
def bob(town: Town) -> Shell:
    """The second founder."""
    return town.user("bob")


@pytest.fixture(scope="module")
def carol(town: Town, ada: Shell, bob: Shell) -> Shell:
    """A newcomer who joined, registered, asked to be admitted, and was voted in by both founders."""
    carol = town.stranger("carol")
    joined = carol.run("join", town.report["join"])
    assert joined.object.keys() >= {"rpc", "directory"}
    assert joined.object["directory"] == town.report["contract_address"]
    words = town.folder / "carol.words"
    registered = carol.run("register", "carol", "--mnemonic-file", words)
    assert registered.code == 0, registered
    made = registered.object
    assert made.keys() >= {"username", "uid", "account", "device", "tx", "block", "member"}
    assert (made["username"], made["device"], made["member"]) == ("carol", 1, False)
    assert stat.S_IMODE(words.stat().st_mode) == 0o600
    assert len(words.read_text().split()) == 12
    assert_not_said(registered, words.read_text().strip(), PASSWORD)
    [proposal] = [one for one in ada.run("proposals").objects if one["subject"] == "carol"]
    votes = [voter.run("vote", str(proposal["id"]), "yes") for voter in (ada, bob)]
    assert [voted.object["state"] for voted in votes] == ["open", "passed"]
    return carol


def assert_not_said(ended: Ended, *secrets: str) -> None:
    """No secret stands in what a command wrote."""
    for secret in secrets:
        assert secret not in ended.out + ended.err


def received(by: Shell, text: str) -> dict[str, Any]:
    """The message with this text, once it came."""
    for _ in range(5):
        for one in by.run("receive", "--wait", "5").objects:
            if one.get("text") == text:
                return one
    raise AssertionError(f"{text!r} did not come")


def until_held(home: Shell, by: subprocess.Popen[bytes]) -> None:
    """Waits until a process has taken the home."""
    lock = Path(home.environment["CHATCHAIN_HOME"]) / "lock"
    while lock.read_text().strip() != str(by.pid):
        assert by.poll() is None
        time.sleep(0.02)


# --- what scripts rely on -------------------------------------------------------------------------------


def test_account_commands(carol: Shell) -> None:
    """whoami, status, login and logout carry the keys of the interface."""
    account = {"username", "uid", "account", "device", "member"}
    who = carol.run("whoami").object
    assert who.keys() >= account
    assert (who["username"], who["member"]) == ("carol", True)
    assert carol.run("status").object.keys() >= account
    login = carol.run("login", "carol").object
    assert login.keys() >= {"username", "uid", "device", "relay", "waiting"}
    assert login["uid"] == who["uid"]
    assert carol.run("logout").code == 0
    # Logging out leaves the keys: the next command logs in by itself.
    assert carol.run("login").object["username"] == "carol"


def test_a_message_goes_both_ways_and_its_states_forward(ada: Shell, carol: Shell) -> None:
    """send, receive, history and search; delivered and read come back to the sender."""
    sent = ada.run("send", "carol", "Grüße, 世界 \U0001f44b")
    assert sent.code == 0, sent
    assert sent.object.keys() >= {"id", "to", "state"}
    assert (sent.object["to"], sent.object["state"]) == ("carol", "sent")
    message = received(carol, "Grüße, 世界 \U0001f44b")
    assert message.keys() >= {"id", "kind", "from", "group", "time", "text", "attachment"}
    assert (message["id"], message["kind"], message["from"]) == (sent.object["id"], "text", "ada")
    assert message["time"].endswith("Z")
    assert carol.run("send", "@ada", "hello back").code == 0
    assert received(ada, "hello back")["from"] == "carol"

    stored = carol.run("history", "ada").objects  # looking is reading
    assert [(one["direction"], one["text"]) for one in stored[-2:]] == [
        ("in", "Grüße, 世界 \U0001f44b"),
        ("out", "hello back"),
    ]
    assert all({"direction", "state", "from", "group", "time", "kind", "id"} <= one.keys() for one in stored)
    assert carol.run("login").code == 0  # takes the receipts along
    assert ada.run("receive", "--wait", "3").code == 0
    [own] = [one for one in ada.run("history", "carol").objects if one["id"] == sent.object["id"]]
    assert own["state"] == "read"

    [found] = carol.run("search", "世界").objects
    assert found["id"] == sent.object["id"]
    assert found.keys() >= {"direction", "state"}
    assert carol.run("search", "nobody said this").objects == []
    older = carol.run("history", "ada", "--limit", "1", "--before", stored[-1]["id"]).object
    assert older["id"] == stored[-2]["id"]


def test_a_user_is_a_name_an_id_or_an_account(ada: Shell, carol: Shell) -> None:
    """All three reach the same person."""
    who = carol.run("whoami").object
    for name in ("carol", "@carol", str(who["uid"]), who["account"]):
        assert ada.run("send", name, "which name?").object["to"] == "carol"


def test_text_comes_from_stdin_whole_or_by_lines(ada: Shell, carol: Shell) -> None:
    """`-` is one message without its final newline; `--lines` one a line, in order, empty ones left out."""
    carol.run("receive")
    assert ada.run("send", "carol", "-", stdin="first\nsecond\n").code == 0
    assert received(carol, "first\nsecond")["text"] == "first\nsecond"
    lines = [f"line {number}" for number in range(50)]
    many = ada.run("send", "carol", "--lines", stdin="\n".join(lines[:25]) + "\r\n\n" + "\n".join(lines[25:]))
    assert many.code == 0, many
    assert [one["state"] for one in many.objects] == ["sent"] * 50
    came: list[dict[str, Any]] = []
    while len(came) < 50:
        batch = carol.run("receive", "--wait", "5", "--count", "20").objects
        assert 0 < len(batch) <= 20
        came += batch
    assert [one["text"] for one in came] == lines
    assert [one["id"] for one in came] == [one["id"] for one in many.objects]


def test_people_see_sentences(ada: Shell, carol: Shell) -> None:
    """Without --json results are lines on stdout, and nothing of a stranger's acts on the terminal."""
    people = replace(carol, environment={**carol.environment, "CHATCHAIN_JSON": "0"})
    carol.run("receive")
    assert ada.run("send", "carol", "--", "\x1b[2J--json \u202eevil\nada: fake").code == 0
    shown = people.run("receive", "--wait", "10")
    assert (shown.code, shown.err) == (0, "")
    first, second = shown.out.splitlines()
    assert first.endswith("ada: \u241b[2J--json <U+202E>evil")
    assert second.strip() == "| ada: fake"
    for command in ("whoami", "status", "members", "proposals", "contacts list", "keys list", "doctor"):
        ended = people.run(*command.split())
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.strip()
    assert "carol" in people.run("members").out


def test_contact_commands(ada: Shell, carol: Shell) -> None:
    """Both see one safety number; verifying is remembered; a card is added; a QR code goes to people."""
    keys = {"username", "uid", "fingerprint", "verified"}
    mine, theirs = (
        ada.run("contacts", "safety-number", "carol"),
        carol.run("contacts", "safety-number", "ada"),
    )
    assert mine.object.keys() >= keys
    assert mine.object["fingerprint"] == theirs.object["fingerprint"]
    assert len(mine.object["fingerprint"].replace(" ", "")) == 60
    drawn = carol.run("contacts", "safety-number", "ada", "--qr")
    assert "\u2588" in drawn.err or "\x1b[" in drawn.err
    assert ada.run("contacts", "verify", "carol", "--qr", mine.object["code"]).code == 2
    foreign = carol.run("contacts", "safety-number", "bob").object["code"]
    assert ada.run("contacts", "verify", "carol", "--qr", foreign).code == 8
    assert ada.run("contacts", "verify", "carol", "--qr", drawn.object["code"]).object["verified"] is True
    assert ada.run("contacts", "verify", "carol").object["verified"] is True
    [known] = [one for one in ada.run("contacts", "list").objects if one["username"] == "carol"]
    assert known["verified"] is True
    card = carol.run("contacts", "card", "--qr")
    assert card.object["username"] == "carol"
    assert "\u2588" in card.err or "\x1b[" in card.err
    added = ada.run("contacts", "add", card.object["card"])
    assert added.object.keys() >= keys
    forged = card.object["card"][:-6] + ("AAAAAA" if not card.object["card"].endswith("AAAAAA") else "BBBBBB")
    assert ada.run("contacts", "add", forged).code in (2, 8)
    assert ada.run("contacts", "add", "nonsense").code == 2


def test_governance_commands(ada: Shell, bob: Shell, carol: Shell) -> None:
    """A proposal is opened, counted and decided; numbers and words are those of the interface."""
    keys = {"id", "kind", "subject", "yes", "no", "electorate", "state"}
    assert {"ada", "bob", "carol"} <= {one["username"] for one in ada.run("members").objects}
    proposed = ada.run("propose", "expel", "carol")
    assert proposed.code == 0, proposed
    proposal = proposed.object
    assert proposal.keys() >= keys
    assert (proposal["kind"], proposal["subject"], proposal["state"]) == ("expel", "carol", "open")
    number = str(proposal["id"])
    assert bob.run("vote", number, "no").object["no"] == 1
    again = bob.run("vote", number, "yes")
    assert (again.code, again.error["code"]) == (7, "already_voted")
    assert carol.run("vote", number, "no").object["state"] == "rejected"
    late = ada.run("vote", number, "yes")
    assert (late.code, late.error["code"]) == (7, "voting_closed")
    ruled = ada.run("propose", "set", "rules", "--period", "3h")
    assert (ruled.code, ruled.object["kind"], ruled.object["subject"]) == (0, "set_rules", ""), ruled
    assert "within 3 hours" in ruled.object["action"]
    number_of_rules = str(ruled.object["id"])
    assert ada.run("vote", number_of_rules, "yes").object["state"] == "open"
    assert bob.run("vote", number_of_rules, "yes").object["state"] == "passed"
    listed = ada.run("proposals").objects
    assert all(keys <= one.keys() for one in listed)
    assert int(number) not in [one["id"] for one in ada.run("proposals", "--open").objects]


def test_key_commands(town: Town, ada: Shell, bob: Shell, carol: Shell) -> None:
    """list, rotate and export; who writes next uses the new keys, and what was verified needs a new look."""
    keys = {"device", "version", "state"}
    [before] = bob.run("keys", "list").objects
    assert before.keys() >= keys
    assert (before["device"], before["version"], before["state"]) == (1, 1, "active")
    rotated = bob.run("keys", "rotate").object
    assert (rotated["device"], rotated["version"], rotated["state"]) == (1, before["version"] + 1, "active")
    assert ada.run("send", "bob", "to your new keys").code == 0
    assert received(bob, "to your new keys")["from"] == "ada"

    file = town.folder / "carol.keystore"
    exported = carol.run("keys", "export", file)
    assert exported.code == 0, exported
    assert json.loads(file.read_text())["version"] == 3
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    from eth_account import Account

    key = Account.decrypt(file.read_text(), PASSWORD)
    assert (
        Account.from_key(key).address == exported.object["account"] == carol.run("whoami").object["account"]
    )
    assert carol.run("keys", "export", file).code == 7


def test_a_revoked_device_is_out_and_the_phrase_brings_the_account_back(town: Town, ada: Shell) -> None:
    """A second home from the phrase is device 2; it revokes the first, which can no longer log in.

    Before the first login nobody but the account itself pays for a further device, so it is given ether.
    """
    first = town.stranger("dana")
    words = town.folder / "dana.words"
    assert first.run("join", town.report["join"]).code == 0
    assert first.run("register", "dana", "--mnemonic-file", words).code == 0
    port = int(town.report["rpc"].rpartition(":")[2])
    call(port, "anvil_setBalance", [first.run("whoami").object["account"], hex(10**18)])
    second = town.stranger("dana-2")
    assert second.run("join", town.report["join"]).code == 0
    back = second.run("register", "dana", "--mnemonic-file", words)
    assert back.code == 0, back
    assert (back.object["username"], back.object["device"]) == ("dana", 2)
    own = second.run("keys", "revoke", "2")  # nobody to ask, so the device in use stays
    assert (own.code, own.error["code"]) == (7, "refused")
    assert "--yes" in own.error["hint"]
    revoked = second.run("keys", "revoke", "1")
    assert (revoked.code, revoked.object["state"]) == (0, "revoked")
    out = first.run("login")
    assert (out.code, out.error["code"]) == (3, "login_refused")
    assert second.run("keys", "revoke", "9").code == 6
    assert ada.run("propose", "admit", "dana").code in (0, 7)  # 7: her own request is open already


def test_the_phrase_that_nobody_saw_is_kept_until_asked_for(town: Town) -> None:
    """Without terminal and file nothing secret is written; `keys phrase --out` hands it over once."""
    erin = town.stranger("erin")
    assert erin.run("join", town.report["join"]).code == 0
    registered = erin.run("register", "erin")
    assert registered.code == 0
    assert "keys phrase" in registered.err
    words = town.folder / "erin.words"
    handed = erin.run("keys", "phrase", "--out", words)
    assert handed.code == 0, handed
    assert_not_said(handed, words.read_text().strip())
    assert len(words.read_text().split()) == 12
    assert stat.S_IMODE(words.stat().st_mode) == 0o600
    assert erin.run("keys", "phrase", "--out", town.folder / "again").code == 7
    assert not (town.folder / "again").exists()


def test_a_changed_password_opens_and_the_old_one_does_not(town: Town) -> None:
    """On the chain and in the home at once."""
    frank = town.stranger("frank")
    assert frank.run("join", town.report["join"]).code == 0
    assert frank.run("register", "frank", "--mnemonic-file", town.folder / "frank.words").code == 0
    new = town.folder / "frank.new"
    new.write_text("an even better stapled horse")
    new.chmod(0o600)
    changed = frank.run("password", "--new-password-file", new)
    assert changed.code == 0, changed
    assert_not_said(changed, new.read_text(), PASSWORD)
    old = frank.run("login")
    assert (old.code, old.error["code"]) == (3, "wrong_password")
    assert frank.run("login", "--password-file", new).code == 0


def test_doctor_finds_nothing_wrong_in_a_healthy_home(ada: Shell) -> None:
    """Each finding says what was looked at."""
    ended = ada.run("doctor")
    assert ended.code == 0
    assert {"check", "ok", "detail"} <= ended.objects[0].keys()
    assert [one for one in ended.objects if not one["ok"]] == []


# --- bad input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["send", "nobody-here", "hi"], 6, "unknown_user"),
        (["send", "No Such Name", "hi"], 2, "malformed_name"),
        (["send", "123456789012346", "hi"], 2, "malformed_uid"),
        (["send", "0x" + "12" * 20, "hi"], 6, "unknown_user"),
        (["send", "bob", ""], 2, "bad_text"),
        (["send", "bob", "x" * (MAX_TEXT + 1)], 7, "too_large"),
        (["send", "ada", "to myself"], 2, "usage"),
        (["history", "bob", "--before", "ff" * 16], 6, "unknown_message"),
        (["vote", "999", "yes"], 6, "unknown_proposal"),
        (["members", "no-such-group"], 6, "not_found"),
        (["propose", "admit", "bob"], 7, "already_done"),
        (["propose", "set", "rules"], 2, "usage"),
        (["propose", "set", "rewards", "ada"], 2, "usage"),
        (["propose", "set", "witnesses", "2", "0x" + "12" * 20], 2, "usage"),
        (["propose", "set", "anchorer", "0x" + "12" * 20], 2, "usage"),
        (["request"], 7, "already_done"),
        (["keys", "revoke", "7"], 6, "unknown_device"),
        (["whoami", "--directory", "0x" + "12" * 20], 5, "wrong_chain"),
        (["login", "bob"], 2, "usage"),
        (["join", "https://example.org"], 2, "usage"),
        (["keys", "export", "no-such-folder/file"], 2, "bad_config"),
    ],
)
def test_what_cannot_be_done_is_said_with_its_exit_code(
    arguments: list[str], code: int, word: str, ada: Shell
) -> None:
    """One object, one exit code, and a sentence for the person."""
    ended = ada.run(*arguments)
    assert (ended.code, ended.error["code"]) == (code, word), ended
    assert ended.error["message"]
    people = replace(ada, environment={**ada.environment, "CHATCHAIN_JSON": "0"}).run(*arguments)
    assert (people.code, people.out) == (code, "")
    assert people.err.startswith(ended.error["message"].split("\n")[0])


def test_text_that_is_none_is_refused(ada: Shell) -> None:
    """Bytes that are not UTF-8, from stdin and as an argument; a line too long; nothing at all."""
    assert ada.run("send", "bob", "-", stdin=b"\xff\xfe").error["code"] == "bad_text"
    assert ada.run("send", "bob", "-", stdin=b"").error["code"] == "bad_text"
    assert ada.run("send", "bob", os.fsdecode(b"\xff")).error["code"] == "bad_text"
    assert ada.run("send", "bob", "-", stdin=b"x" * (MAX_TEXT + 5)).error["code"] == "too_large"
    mixed = ada.run("send", "bob", "--lines", stdin=b"fine\n\xff\nnever\n")
    assert mixed.code == 2
    assert [one.get("state") for one in mixed.objects] == ["sent", None]
    assert "Line 2" in mixed.objects[1]["error"]["message"]
    long = ada.run("send", "bob", "--lines", stdin=b"fine\n" + b"x" * 300_000)
    assert (long.code, [one.get("state") for one in long.objects]) == (7, ["sent", None])


def test_names_that_cannot_be_had(town: Town, ada: Shell) -> None:
    """Taken, reserved and malformed names are told apart, and no home is spoilt by the attempt."""
    greta = town.stranger("greta")
    assert greta.run("join", town.report["join"]).code == 0
    for name, code, word in (
        ("ada", 7, "name_unavailable"),
        ("admin", 7, "name_unavailable"),
        ("a", 2, "malformed_name"),
        ("no--pe", 2, "malformed_name"),
        ("Nope!", 2, "malformed_name"),
    ):
        ended = greta.run("register", name)
        assert (ended.code, ended.error["code"]) == (code, word), ended
    assert greta.run("whoami").error["code"] == "no_account"
    assert greta.run("register", "greta").code == 0


def test_the_last_device_is_revoked_only_by_somebody_who_means_it(town: Town) -> None:
    """A terminal asks first; without one `--yes` is needed; afterwards the way back is named."""
    name = "jutta"
    jutta = town.stranger(name)
    assert jutta.run("join", town.report["join"]).code == 0
    assert jutta.run("register", name).code == 0
    refused = jutta.run("keys", "revoke", "1")
    assert (refused.code, refused.error["code"]) == (7, "refused")
    assert "only one" in refused.error["message"]
    person = replace(jutta, environment={**jutta.environment, "CHATCHAIN_JSON": "0"})
    with person.terminal("keys", "revoke", "1") as terminal:
        terminal.expect("only one of this account")
        terminal.expect("(yes/no) ")
        terminal.type("y")
        assert terminal.ended() == 7
    assert jutta.run("keys", "list").object["state"] == "active"
    done = person.run("keys", "revoke", "1", "--yes")
    assert (done.code, done.err) == (0, "")
    assert "NEW-FOLDER recover" in done.out
    assert jutta.run("login").code == 3


def test_doctor_ends_with_the_code_of_the_first_trouble(town: Town, ada: Shell) -> None:
    """A script need not read what it says."""
    ended = ada.run("doctor", "--rpc", f"http://127.0.0.1:{free_port()}")
    assert ended.code == 5
    first = next(one for one in ended.objects if not one["ok"])
    assert (first["check"], first["exit_code"]) == ("chain", 5)


def test_the_settings_show_the_network_that_the_home_knows(town: Town, ada: Shell) -> None:
    """With the home as its origin, unless something else names it."""
    shown = {one["name"]: one for one in ada.run("config", "show").objects}
    assert (shown["directory"]["value"], shown["directory"]["origin"]) == (
        town.report["contract_address"].lower(),
        "home",
    )
    assert shown["rpc"]["origin"] == "home"
    other = {one["name"]: one for one in ada.run("config", "show", "--rpc", "http://127.0.0.1:1").objects}
    assert (other["rpc"]["value"], other["rpc"]["origin"]) == (["http://127.0.0.1:1"], "flag")


def test_a_wrong_password_is_an_authentication_failure(town: Town, ada: Shell) -> None:
    """And is said by no command."""
    wrong = town.folder / "wrong"
    wrong.write_text("an incorrectly stapled horse")
    wrong.chmod(0o600)
    for command in (["login"], ["send", "bob", "hi"], ["keys", "rotate"], ["history", "bob"]):
        ended = ada.run(*command, "--password-file", wrong)
        assert (ended.code, ended.error["code"]) == (3, "wrong_password")
        assert f"the one in {wrong}, from --password-file." in ended.error["hint"]
        assert_not_said(ended, wrong.read_text())
    exported = {**ada.environment, "CHATCHAIN_PASSWORD_FILE": str(wrong)}
    assert "from CHATCHAIN_PASSWORD_FILE." in replace(ada, environment=exported).run("login").error["hint"]


def test_without_terminal_and_password_file_the_password_is_named_as_missing(ada: Shell) -> None:
    """Nothing prompts."""
    bare = {name: value for name, value in ada.environment.items() if name != "CHATCHAIN_PASSWORD_FILE"}
    ended = replace(ada, environment=bare).run("send", "bob", "hi")
    assert (ended.code, ended.error["code"]) == (2, "missing_input")
    assert "--password-file" in ended.error["hint"]
    assert replace(ada, environment=bare).run("whoami").code == 0  # needs none


def test_who_is_no_member_is_told_so(town: Town, carol: Shell) -> None:
    """Under policy vote the unadmitted neither send nor vote nor propose."""
    hugo = town.stranger("hugo")
    assert hugo.run("join", town.report["join"]).code == 0
    registered = hugo.run("register", "hugo").object
    assert registered["member"] is False
    for command in (
        ["send", "ada", "hi"],
        ["vote", str(registered["proposal"]), "yes"],
        ["propose", "expel", "ada"],
    ):
        ended = hugo.run(*command)
        assert (ended.code, ended.objects[-1]["error"]["code"]) == (7, "not_a_member"), ended


def test_a_chain_that_does_not_answer_or_is_another(town: Town, ada: Shell) -> None:
    """Unreachable endpoint; a join link with another chain id; one whose address holds no contract."""
    nowhere = f"http://127.0.0.1:{free_port()}"
    ended = ada.run("login", "--rpc", nowhere)
    assert (ended.code, ended.error["code"]) == (5, "chain_unreachable")
    stranger = town.stranger("ida")
    other = stranger.run("join", town.report["join"].replace("chain=31337", "chain=1"))
    assert (other.code, other.error["code"]) == (5, "wrong_chain")
    link = town.report["join"].replace(town.report["contract_address"], "0x" + "12" * 20)
    empty = stranger.run("join", link)
    assert (empty.code, empty.error["code"]) == (5, "no_contract")


def test_two_processes_on_one_home(bob: Shell) -> None:
    """The second one is told, and who holds the home; Ctrl-C is how following ends, with exit 0."""
    with bob.start("receive", "--follow") as follower:
        until_held(bob, follower)
        busy = bob.run("login")
        assert (busy.code, busy.error["code"]) == (7, "home_busy")
        assert str(follower.pid) in busy.error["message"]
        follower.send_signal(signal.SIGINT)
        out, err = follower.communicate(timeout=PATIENCE)
    assert (follower.returncode, err) == (0, b"")
    assert all(json.loads(line) for line in out.splitlines())
    assert bob.run("login").code == 0


def test_ctrl_c_while_waiting_stops_with_130(bob: Shell) -> None:
    """One object says so, nothing is lost, and the home is free again."""
    with bob.start("receive", "--wait", "600") as waiting:
        until_held(bob, waiting)
        waiting.send_signal(signal.SIGINT)
        out, err = waiting.communicate(timeout=PATIENCE)
    assert (waiting.returncode, err) == (130, b"")
    assert json.loads(out.splitlines()[-1])["error"]["code"] == "stopped"
    assert bob.run("login").code == 0


def test_without_a_relay_a_message_is_queued_and_goes_with_the_next_command(
    town: Town, ada: Shell, carol: Shell
) -> None:
    """Exit 4 and state queued in the one object of the message; nothing is lost and nothing shown twice."""
    carol.run("receive")
    with town.without_relay():
        queued = ada.run("send", "carol", "kept for later")
        assert queued.code == 4, queued
        assert queued.object["state"] == "queued"
        assert queued.object["error"].keys() == {"code", "message", "hint"}
        login = ada.run("login")
        assert (login.code, login.error["code"]) == (4, "relay_unreachable")
        assert ada.run("history", "carol").objects[-1]["state"] == "queued"
    assert ada.run("login").code == 0
    message = received(carol, "kept for later")
    assert message["id"] == queued.object["id"]
    assert carol.run("receive", "--wait", "1").objects == []


def test_following_says_that_the_relay_is_away_and_back(town: Town, ada: Shell, carol: Shell) -> None:
    """On stderr; a program that reads stdout gets the messages and nothing else."""

    def line(stream: IO[bytes] | None) -> bytes:
        assert stream is not None
        assert select.select([stream], [], [], PATIENCE)[0]
        return stream.readline()

    carol.run("receive")
    with carol.start("receive", "--follow") as follower:
        ada.run("send", "carol", "before")
        assert json.loads(line(follower.stdout))["text"] == "before"
        with town.without_relay():
            assert line(follower.stderr).startswith(b"Not connected: ")
        assert line(follower.stderr) == b"Connected again.\n"
        assert ada.run("send", "carol", "afterwards").object["state"] == "sent"
        assert json.loads(line(follower.stdout))["text"] == "afterwards"
        follower.send_signal(signal.SIGINT)
        assert follower.communicate(timeout=PATIENCE) == (b"", b"")


def test_a_relay_with_another_certificate_is_a_hard_stop(town: Town, ada: Shell) -> None:
    """Both fingerprints are shown, nothing is sent, and the message stays here."""
    folder = town.folder / "impostor"
    folder.mkdir()
    pair = certificates.make(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(pair.certificate, pair.key)
    heard: list[bytes] = []

    class Impostor(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError), context.wrap_socket(self.request, server_side=True) as secured:
                heard.append(secured.recv(65536))

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True

    port = int(town.report["relay"].rpartition(":")[2])
    with town.without_relay(), Server(("127.0.0.1", port), Impostor) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            login = ada.run("login")
            send = ada.run("send", "bob", "for bob alone")
        finally:
            server.shutdown()
            thread.join()
    assert (login.code, login.error["code"]) == (4, "certificate_mismatch")
    honest = certificates.load(town.folder / "tls" / "relay.pem", town.folder / "tls" / "relay.key")
    shown = login.error["message"].replace(":", "").lower()
    assert pair.spki.hex() in shown
    assert honest.spki.hex() in shown
    assert (send.code, send.objects[-1]["error"]["code"]) == (4, "certificate_mismatch")
    assert b"".join(heard) == b""


def test_no_command_line_ever_held_a_secret(town: Town, ada: Shell) -> None:
    """Passwords, phrases and keys come from files and prompts; `--help` offers no option for their text."""
    for command in ("register", "login", "password", "keys export", "join"):
        help_text = ada.run(*command.split(), "--help").out
        assert "--password " not in help_text
        assert "--mnemonic " not in help_text


def test_a_reader_that_goes_away_loses_no_message(ada: Shell, carol: Shell) -> None:
    """What could not be printed was not shown: the next `receive` brings it."""
    carol.run("receive")
    assert ada.run("send", "carol", "for whom?").code == 0
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*PROGRAM, "receive", "--wait", "10"],
        stdin=subprocess.DEVNULL,
        stdout=write,
        stderr=subprocess.PIPE,
        env=dict(carol.environment),
        cwd=carol.folder,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")
    assert received(carol, "for whom?")["from"] == "ada"
