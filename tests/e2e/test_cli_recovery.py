"""`recover` from end to end: a home is lost, the phrase brings the account back, the lost home is out."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from chatchain.chain.calls import Calls
from chatchain.chain.rpc import Endpoints, Rpc, hexed
from chatchain.chain.sync import MemoryLogStore
from chatchain.chain.view import ChainView
from chatchain.chain.writer import ChainWriter
from chatchain.crypto.phrase import keys_of
from chatchain.identity.keys import address_of, new_secret, parse_address, to_checksum
from tests.e2e.town import Town, founded
from tests.ui.terminal import PATIENCE, Shell

NEW_PASSWORD: Final = "another horse, stapled anew"


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """One network for this file."""
    with founded(tmp_path_factory.mktemp("town")) as town:
        yield town


def results(who: Shell, *arguments: str | Path) -> list[dict[str, Any]]:
    """The objects that a command prints, which must succeed."""
    ended = who.run(*arguments)
    assert ended.code == 0, ended
    return ended.objects


def fails(who: Shell, code: int, *arguments: str | Path) -> dict[str, Any]:
    """The error of a command that must end with this code."""
    ended = who.run(*arguments)
    assert ended.code == code, ended
    return ended.error


def phrase_file(town: Town, name: str) -> Path:
    """What somebody wrote down when the account was made."""
    return town.folder / "homes" / f"{name}.mnemonic"


def test_a_lost_home_comes_back_and_the_old_one_is_cut_off(town: Town) -> None:
    """Phrase and join link are all there is; kill -9 at any time, and the same command goes on."""
    ada, bob = town.user("ada"), town.user("bob")
    results(bob, "send", "ada", "before")
    assert [one["text"] for one in results(ada, "receive", "--wait", "5")] == ["before"]
    results(bob, "receive")  # the receipt, which nobody would believe of a revoked device
    number = results(bob, "contacts", "safety-number", "ada")[0]["fingerprint"]

    new = town.new_machine("new", NEW_PASSWORD)
    command = ("recover", "--mnemonic-file", str(phrase_file(town, "ada")), "--revoke-others")
    for pause in (0.5, 0.8, 1.1, 1.5):
        with new.start(*command) as process:
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE)
    [made] = results(new, *command)
    assert (made["username"], made["state"], made["others"]) == ("ada", "active", [])
    assert made["device"] == 2, "however often it was killed, there is one new device"

    results(bob, "send", "ada", "after")
    assert [one["text"] for one in results(new, "receive", "--wait", "5")] == ["after"]
    assert results(new, "send", "bob", "I am back")[0]["state"] == "sent"
    assert [one["text"] for one in results(bob, "receive", "--wait", "5")] == ["I am back"]
    assert results(bob, "contacts", "safety-number", "ada")[0]["fingerprint"] == number

    cut_off = fails(ada, 3, "receive")
    assert (cut_off["code"], "was revoked at block" in cut_off["message"]) == ("login_refused", True)
    assert "recover" in cut_off["hint"]
    [who] = results(ada, "whoami")
    assert (who["state"], who["problem"]["message"]) == ("revoked", cut_off["message"])
    assert [one["text"] for one in results(ada, "history", "bob")] == ["before"]
    assert [view["state"] for view in results(new, "keys", "list")] == ["revoked", "active"]


def test_what_cannot_be_is_refused_with_its_own_code(town: Town, tmp_path: Path) -> None:
    """Bad words 2, nobody's phrase 6, somebody's home 7, no chain 5; and no home is left behind."""
    machine = town.new_machine("hasty", NEW_PASSWORD)
    words = tmp_path / "words"
    words.write_text("abandon " * 11 + "zebra")
    words.chmod(0o600)
    assert "checksum" in fails(machine, 2, "recover", "--mnemonic-file", words)["message"]
    words.write_text("abandon " * 11 + "about\n")
    assert fails(machine, 6, "recover", "--mnemonic-file", words)["code"] == "unknown_user"
    assert fails(machine, 2, "recover", "--mnemonic-file", tmp_path / "nothing")["code"] == "bad_config"
    assert fails(machine, 2, "recover")["code"] == "missing_input"
    bobs = phrase_file(town, "bob")
    both = ("--revoke", "1", "--keep-others")
    assert fails(machine, 2, "recover", "--mnemonic-file", bobs, *both)["code"] == "usage"
    assert fails(machine, 6, "recover", "--mnemonic-file", bobs, "--revoke", "9")["code"] == "unknown_device"
    away = ("--rpc", "http://127.0.0.1:1", "--directory", town.report["contract_address"])
    assert fails(machine, 5, *away, "recover", "--mnemonic-file", bobs)["code"] == "chain_unreachable"
    assert fails(town.user("bob"), 7, "recover", "--mnemonic-file", bobs)["code"] == "already_done"
    assert fails(town.user("bob"), 7, "recover")["code"] == "already_done"
    words.chmod(0o644)
    assert "chmod 600" in machine.run("recover", "--mnemonic-file", words).err


def test_a_person_types_the_phrase_and_names_what_is_lost(town: Town) -> None:
    """At a terminal the words are not echoed, a slip may be mended, and the devices are asked for."""
    machine = town.new_machine("typing", NEW_PASSWORD)
    kept = {"CHATCHAIN_PASSWORD_FILE", "CHATCHAIN_JSON"}
    person = replace(
        machine, environment={key: value for key, value in machine.environment.items() if key not in kept}
    )
    phrase = phrase_file(town, "bob").read_text().strip()
    with person.terminal("recover") as terminal:
        terminal.expect("Recovery phrase")
        terminal.type(phrase.rsplit(" ", 1)[0])
        terminal.expect("has 11")
        terminal.expect("Recovery phrase")
        assert not terminal.echoes()
        terminal.type(phrase)
        for question in ("Choose a password", "The same again"):
            terminal.expect(question)
            terminal.type(NEW_PASSWORD)
        terminal.expect("This is the phrase of bob.")
        terminal.expect("Revoke which? Their numbers, all, or none: ")
        terminal.type("5")
        terminal.expect("or all, or none.")
        terminal.type("1")
        terminal.expect("bob is back, as device 2 of the account.")
        terminal.expect("the safety number is the same as before.")
        terminal.expect("The account's password was changed by this, for every device")
        assert terminal.ended() == 0
        assert phrase not in terminal.transcript
    assert [view["state"] for view in results(machine, "keys", "list")] == ["revoked", "active"]


def test_the_phrase_is_in_no_file_of_the_home(town: Town) -> None:
    """Nothing of the words stays on the disk of the new machine."""
    home = next((town.folder / "machines" / "new").rglob("account.json")).parent
    words = phrase_file(town, "ada").read_text().strip().encode()
    found = [path for path in home.rglob("*") if path.is_file()]
    assert found
    assert not [path for path in found if words in path.read_bytes()]


def test_a_recovery_by_the_recovery_address_is_shown_and_refused(town: Town) -> None:
    """No device is added while it is pending; --veto refuses it, paid by the sponsor, and goes on."""
    words = phrase_file(town, "bob")
    key, guardian, thief = keys_of(words.read_text()).account_key, new_secret(), address_of(new_secret())
    endpoints = Endpoints([town.report["rpc"]])
    view = ChainView(endpoints, parse_address(town.report["contract_address"]), MemoryLogStore())
    writer, rpc = ChainWriter(endpoints, view.network()), Rpc(town.report["rpc"])
    for each in (key, guardian):
        rpc.call("anvil_setBalance", hexed(address_of(each)), hex(10**18))
    view.sync()
    bob = view.user_by_name("bob")
    assert bob is not None
    writer.send(Calls().set_recovery(address_of(guardian)), key)
    writer.send(Calls().propose_recovery(bob.uid, thief), guardian)
    rpc.call("anvil_setBalance", hexed(address_of(key)), "0x0")

    [who] = results(town.user("bob"), "whoami")
    assert who["recovery"]["account"] == to_checksum(thief)
    machine = town.new_machine("again", NEW_PASSWORD)
    command = ("recover", "--mnemonic-file", words, "--keep-others")
    refused = fails(machine, 7, *command)
    assert to_checksum(thief) in refused["message"]
    assert "--veto" in refused["hint"]
    [made] = results(machine, *command, "--veto")
    assert made["state"] == "active"
    [who] = results(machine, "whoami")
    assert (who["state"], who["recovery"], who["problem"]) == ("active", None, None)
    assert fails(machine, 6, "recover", "--veto")["code"] == "not_found"
