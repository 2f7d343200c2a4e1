"""The recovery address from end to end: named, it proposes, is refused, and at last takes over."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from chatchain.chain.rpc import Rpc
from tests.e2e.town import Town, founded
from tests.ui.terminal import PATIENCE, Shell

NEW_PASSWORD: Final = "another horse, stapled anew"
DELAY_S: Final = 7 * 24 * 3600


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """One network for this file."""
    with founded(tmp_path_factory.mktemp("town")) as town:
        yield town


def result(who: Shell, *arguments: str | Path) -> dict[str, Any]:
    """The one object that a command prints, which must succeed."""
    ended = who.run(*arguments)
    assert ended.code == 0, ended
    [one] = ended.objects
    return one


def fails(who: Shell, code: int, *arguments: str | Path) -> dict[str, Any]:
    """The error of a command that must end with this code."""
    ended = who.run(*arguments)
    assert ended.code == code, ended
    return ended.error


def plain(who: Shell) -> Shell:
    """The same person, who reads text and not JSON."""
    environment = {key: value for key, value in who.environment.items() if key != "CHATCHAIN_JSON"}
    return replace(who, environment=environment)


def join(town: Town) -> tuple[str, ...]:
    """The network, for a home that has not joined."""
    return ("--rpc", town.report["rpc"], "--directory", town.report["contract_address"])


def test_a_paper_phrase_is_a_recovery_address_too(town: Town, tmp_path: Path) -> None:
    """Its words sign without any home; what is wrong is told with its own code."""
    bob, paper = town.user("bob"), tmp_path / "paper"
    paper.write_text("abandon " * 11 + "about\n")
    paper.chmod(0o600)
    guardian = "0x9858EfFD232B4033E47d90003D41EC34EcaEda94"  # of that phrase, as every wallet finds it
    helper = town.stranger("helper")
    result(helper, "join", town.report["join"])
    propose = ("recover", "propose", "bob", "0x" + "12" * 20, "--mnemonic-file", paper, "--yes")
    assert "no recovery address" in fails(helper, 7, *propose)["message"]
    assert (
        fails(helper, 2, "recover", "propose", "bob", "nobody", "--mnemonic-file", paper)["code"] == "usage"
    )
    both = ("--mnemonic-file", paper, "--wallet")
    assert fails(helper, 2, "recover", "propose", "bob", "0x" + "12" * 20, *both)["code"] == "usage"
    assert fails(bob, 2, "recover", "address", guardian, "--none")["code"] == "usage"
    assert fails(bob, 2, "recover", "--veto", "address")["code"] == "usage"
    assert fails(bob, 7, "recover", "finalise")["code"] == "already_done"
    named = ("register", "carol", "--recovery", guardian)
    assert result(town.stranger("carol"), *named, *join(town))["username"] == "carol"
    assert result(town.user("carol"), "recover", "address")["recovery"] == guardian
    made = result(helper, "recover", "propose", "carol", *propose[3:])
    assert (made["username"], made["sponsored"]) == ("carol", True)
    assert result(town.user("carol"), "whoami")["recovery"]["account"] == made["proposed"]


def test_an_account_is_taken_over_by_its_recovery_address(town: Town, tmp_path: Path) -> None:
    """Ada names bob; all of hers is lost, he proposes a new account, and a week later she is back.

    The last test of this town: its chain's clock goes ahead of the world's.
    """
    ada, bob, new = town.user("ada"), town.user("bob"), town.new_machine("new", NEW_PASSWORD)
    rpc = Rpc(town.report["rpc"])
    bobs = result(bob, "whoami")["account"]
    before = result(bob, "contacts", "verify", "ada")["fingerprint"]

    # Naming: asked for without a terminal, counts at once, and shows.
    assert result(ada, "recover", "address")["recovery"] == ""
    unasked = fails(ada, 2, "recover", "address", "bob")
    assert (unasked["code"], "--yes" in unasked["hint"]) == ("missing_input", True)
    with town.at_terminal("ada").terminal("recover", "address", "bob") as terminal:
        terminal.expect("Password")  # only the home knows whether bob was verified
        terminal.type(town.password("ada"))
        terminal.expect("the account of bob.")
        terminal.expect("You have not verified bob")
        terminal.expect("Name it? (yes/no) ")
        terminal.type("no")
        terminal.expect("Nothing was changed.")
        assert terminal.ended() == 7
    assert result(ada, "recover", "address")["recovery"] == ""
    assert result(ada, "recover", "address", "bob", "--yes")["recovery"] == bobs
    assert result(ada, "whoami")["recovery_address"] == bobs
    assert fails(ada, 7, "recover", "address", "bob", "--yes")["code"] == "already_done"
    assert "this account itself" in fails(ada, 2, "recover", "address", "ada", "--yes")["message"]

    # Without a terminal and a file the new account's phrase is kept, and said to be.
    other, kept = town.new_machine("other", NEW_PASSWORD), tmp_path / "kept"
    assert "keys phrase --out" in plain(other).run("recover", "begin", "ada").err
    result(other, "keys", "phrase", "--out", kept)
    assert len(kept.read_text().split()) == 12

    # The new account: made, told again, and not yet anybody's.
    words = tmp_path / "words"
    begun = result(new, "recover", "begin", "ada", "--mnemonic-file", words)
    assert (begun["state"], begun["recovery"]) == ("waiting", bobs)
    assert words.stat().st_mode & 0o777 == 0o600
    assert result(new, "recover", "begin", "ada")["account"] == begun["account"]
    assert f"recover propose ada {begun['account']}" in fails(new, 6, "recover", "finalise", "--yes")["hint"]
    assert "recover finalise" in fails(new, 7, "recover")["hint"]
    assert "not finished" in fails(new, 6, "whoami")["message"]

    # Proposing: by bob's account alone, paid by the sponsor; ada hears of it whatever she does.
    propose = ("recover", "propose", "ada", begun["account"])
    assert fails(ada, 7, *propose, "--yes")["code"] == "refused"
    assert fails(bob, 2, *propose)["code"] == "missing_input"
    made = result(bob, *propose, "--yes")
    assert (made["proposed"], made["sponsored"]) == (begun["account"], True)
    told = result(ada, "login")["recovery"]
    assert (told["account"], told["block"]) == (begun["account"], made["block"])
    assert result(ada, "status")["recovery"] == told
    for command in (("login",), ("send", "bob", "hello"), ("whoami",), ("receive",)):
        heard = plain(ada).run(*command)
        assert heard.code == 0, heard
        shown = heard.out + heard.err
        assert f"take your account over at block {made['block']}" in shown, command
        assert "chatchain recover --veto" in shown
        assert shown.count("***") == 2, command
    for command in (("send", "nosuch", "hello"), ("vote", "99", "yes"), ("keys", "revoke", "99")):
        heard = plain(ada).run(*command)
        assert heard.code != 0, heard
        assert heard.err.count("take your account over") == 1, command
    with plain(ada).start("receive", "--follow") as follower:
        assert follower.stderr is not None
        assert follower.stderr.readline() == b"\n"
        assert b"take your account over" in follower.stderr.readline()
        follower.send_signal(signal.SIGINT)
        _, more = follower.communicate(timeout=PATIENCE)
    assert b"***" not in more
    with plain(town.at_terminal("ada")).terminal("chat", "bob") as terminal:
        terminal.expect("Password")
        terminal.type(town.password("ada"))
        terminal.expect("take your account over")
        terminal.type("/quit")
        assert terminal.ended() == 0
    assert terminal.transcript.count("take your account over") == 1
    with plain(town.at_terminal("ada")).terminal() as terminal:
        terminal.expect("Password")
        terminal.type(town.password("ada"))
        terminal.expect("take your account over")
        terminal.expect("what would you like to do?")
        terminal.type("exit")
        assert terminal.ended() == 0
    assert terminal.transcript.count("take your account over") == 1
    assert "not before" in fails(new, 7, "recover", "finalise", "--yes")["message"]

    # The veto works once.
    assert result(ada, "recover", "--veto")["refused"] == begun["account"]
    assert "recovery" not in result(ada, "login")
    assert fails(new, 6, "recover", "finalise", "--yes")["code"] == "not_found"
    result(bob, *propose, "--yes")
    spent = fails(ada, 7, "recover", "--veto")
    assert (spent["code"], "once in 30 days" in spent["message"]) == ("limit_reached", True)
    assert "Warn your contacts" in spent["hint"]
    assert result(ada, "status")["recovery"]["veto_from"] in spent["message"]
    heard = plain(ada).run("send", "bob", "hello")
    assert ("this account cannot stop it" in heard.err, "--veto" in heard.err) == (True, False)

    # A week later; signatures that a sponsor carries end by the clock of this machine, so it pays itself.
    rpc.call("evm_increaseTime", DELAY_S)
    rpc.call("evm_mine")
    rpc.call("anvil_setBalance", begun["account"], hex(10**18))
    assert fails(new, 2, "recover", "finalise")["code"] == "missing_input"
    back = result(new, "recover", "finalise", "--yes", "--keep-others")
    assert (back["device"], back["revoked"], back["others"]) == (2, [], [1])
    assert back["password_changed"]

    # The device that stays listed is told what it is, in the menu as well; the same command ends it later.
    out = fails(ada, 7, "login")
    assert (out["code"], "chatchain password" in out["hint"]) == ("account_key_elsewhere", False)
    ended = plain(ada).run(stdin="history\nbob\nexit\n")
    assert (ended.code, ended.err.count("no password lets this home in")) == (0, 1), ended
    back = result(new, "recover", "finalise", "--yes", "--revoke-others")
    assert (back["device"], back["revoked"], back["others"]) == (2, [1], [])
    assert (back["account"], back["replaced"]) == (begun["account"], result(ada, "whoami")["account"])
    assert (back["member"], back["password_changed"]) == (True, False)

    # Peers are stopped by another number; what was ada's is out.
    stopped = fails(bob, 7, "send", "ada", "is it you?")
    assert (stopped["code"], begun["account"] in stopped["message"]) == ("key_changed", True)
    assert result(bob, "contacts", "verify", "ada")["fingerprint"] != before
    assert result(bob, "send", "ada", "is it you?")["state"] == "sent"
    assert result(new, "receive", "--wait", "5")["text"] == "is it you?"
    assert "was revoked at block" in fails(ada, 3, "login")["message"]
