"""`link` from end to end: two homes of one user, a real chain, a real relay, and the texts between them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data

from chatchain.chain.rpc import Rpc
from chatchain.crypto.phrase import keys_of
from tests.e2e.town import Town, founded
from tests.ui.terminal import PATIENCE, Shell


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """One network for this file."""
    with founded(tmp_path_factory.mktemp("town")) as town:
        yield town


def result(who: Shell, *arguments: str, stdin: str | None = None) -> dict[str, Any]:
    """The one object that a command prints, which must succeed."""
    [only] = results(who, *arguments, stdin=stdin)
    return only


def results(who: Shell, *arguments: str, stdin: str | None = None) -> list[dict[str, Any]]:
    """The objects that a command prints, which must succeed."""
    ended = who.run(*arguments, stdin=stdin)
    assert ended.code == 0, ended
    return ended.objects


def fails(who: Shell, code: int, *arguments: str) -> dict[str, Any]:
    """The error of a command that must end with this code."""
    ended = who.run(*arguments)
    assert ended.code == code, ended
    return ended.error


def new_device(town: Town, name: str, home: str) -> Shell:
    """Another machine of somebody who knows the account's password."""
    user = town.user(name)
    place = town.folder / "machines" / home
    return replace(user, environment={**user.environment, "CHATCHAIN_HOME": str(place / "home")})


def test_a_device_is_linked_talks_and_is_revoked(town: Town) -> None:
    """Three commands on two devices; contacts and history come along, the account's key does not."""
    ada, bob = town.user("ada"), town.user("bob")
    results(bob, "send", "ada", "before there were two")
    assert [one["text"] for one in results(ada, "receive", "--wait", "5")] == ["before there were two"]
    second = new_device(town, "ada", "second")
    result(second, "join", town.report["join"])
    asked = result(second, "link", "ada")
    assert (asked["device"], asked["state"]) == (2, "waiting")

    wrong = fails(ada, 7, "link", "--accept", asked["request"], "--code", "0" * 20)
    assert wrong["code"] == "refused"
    missing = fails(ada, 2, "link", "--accept", asked["request"])
    assert missing["code"] == "missing_input"
    accepted = result(ada, "link", "--accept", asked["request"], "--code", asked["code"])
    assert (accepted["device"], accepted["state"], accepted["messages"]) == (2, "active", 1)
    linked = result(second, "link", "--answer", accepted["answer"])
    assert (linked["device"], linked["messages"], linked["problem"]) == (2, 1, None)

    assert result(second, "login")["device"] == 2
    assert [one["text"] for one in results(second, "history", "bob")] == ["before there were two"]
    assert not (town.folder / "machines" / "second" / "home" / "account.key").exists()
    assert result(second, "send", "bob", "from the second")["state"] == "sent"
    assert [one["text"] for one in results(bob, "receive", "--wait", "5")] == ["from the second"]
    results(bob, "send", "ada", "to both")
    for device in (ada, second):
        assert "to both" in [one["text"] for one in results(device, "receive", "--wait", "5")]
    assert fails(second, 7, "keys", "revoke", "1", "--yes")["code"] == "account_key_elsewhere"

    with second.start("receive", "--follow") as listening:
        assert listening.stdout is not None
        results(bob, "send", "ada", "do you listen")
        assert json.loads(listening.stdout.readline())["text"] == "do you listen"
        assert result(ada, "keys", "revoke", "2")["state"] == "revoked"
        assert listening.wait(PATIENCE) == 3, "a revoked device is sent away at once"
        assert json.loads(listening.stdout.readline())["error"]["code"] == "login_refused"
    assert fails(second, 3, "login")["code"] == "login_refused"
    assert [view["state"] for view in results(ada, "keys", "list")] == ["active", "revoked"]
    results(bob, "send", "ada", "for the first alone")
    assert [one["text"] for one in results(ada, "receive", "--wait", "5")] == [
        "do you listen",
        "for the first alone",
    ]


def test_the_texts_may_come_over_stdin_and_the_history_in_a_file(town: Town, tmp_path: Path) -> None:
    """A QR code goes to people; the text alone is what a program reads."""
    history = str(tmp_path / "history")
    third = new_device(town, "bob", "third")
    result(third, "join", town.report["join"])
    asked = result(third, "link", "bob", "--qr")
    bob = town.user("bob")
    results(bob, "send", "ada", "what the file will hold")
    accept = ("link", "--accept", "-", "--code", asked["code"], "--history", history)
    accepted = result(bob, *accept, stdin=asked["request"] + "\n")
    assert accepted["contacts"] == 1
    assert "--history" in fails(third, 2, "link", "--answer", accepted["answer"])["hint"]
    linked = result(third, "link", "--answer", "-", "--history", history, stdin=accepted["answer"] + "\n")
    assert (linked["device"], linked["messages"]) == (accepted["device"], accepted["messages"])
    assert fails(bob, 2, "link")["code"] == "usage"
    assert fails(bob, 2, "link", "bob", "--answer", "x")["code"] == "usage"
    assert fails(third, 6, "link", "--answer", accepted["answer"])["code"] == "no_account"


def test_a_person_is_asked_whether_the_codes_are_the_same(town: Town) -> None:
    """At a terminal; any word but yes leaves everything as it was."""
    fourth = new_device(town, "bob", "fourth")
    result(fourth, "join", town.report["join"])
    asked = result(fourth, "link", "bob")
    with town.at_terminal("bob").terminal("link", "--accept", asked["request"]) as terminal:
        terminal.expect("Password")
        terminal.type(town.password("bob"))
        terminal.expect("speak and vote in your name")
        terminal.expect(asked["code"])
        terminal.expect("Does the new device show this code? (yes/no) ")
        terminal.type("no")
        terminal.expect("The device was not added.")
    devices = [view["device"] for view in results(town.user("bob"), "keys", "list")]
    assert asked["device"] not in devices


def test_a_device_begun_with_the_wrong_password_moves_in_with_the_right_one(town: Town) -> None:
    """Only the answer shows that it was wrong; the same answer serves, and nothing is begun anew."""
    fifth = new_device(town, "bob", "fifth")
    wrong = town.folder / "wrong.password"
    wrong.write_text("not the password of bob")
    wrong.chmod(0o600)
    right = fifth.environment["CHATCHAIN_PASSWORD_FILE"]
    result(fifth, "join", town.report["join"])
    asked = result(fifth, "link", "bob", "--password-file", str(wrong))
    accepted = result(
        town.user("bob"), "link", "--accept", asked["request"], "--code", asked["code"], "--no-history"
    )
    answer = ("link", "--answer", accepted["answer"], "--password-file", str(wrong))
    assert "--account-password-file" in fails(fifth, 3, *answer)["hint"]
    with fifth.terminal(*answer) as terminal:
        terminal.expect("That is not the account's password. The account's: ")
        terminal.press(b"\x04")
        terminal.expect("--account-password-file FILE")
    assert result(fifth, *answer, "--account-password-file", right)["device"] == asked["device"]
    assert result(fifth, "login")["device"] == asked["device"]


def test_a_wallet_signs_for_a_device_where_none_has_the_key(town: Town) -> None:
    """The real registry takes the wallet's signature, which the sponsor carries."""
    sixth, seventh = new_device(town, "bob", "sixth"), new_device(town, "bob", "seventh")
    for device in (sixth, seventh):
        result(device, "join", town.report["join"])
    asked = result(sixth, "link", "bob")
    accept = ("link", "--accept", asked["request"], "--code", asked["code"], "--no-history")
    result(sixth, "link", "--answer", result(town.user("bob"), *accept)["answer"])
    asked = result(seventh, "link", "bob")
    accept = ("link", "--accept", asked["request"], "--code", asked["code"], "--no-history")
    assert "--wallet" in fails(sixth, 7, *accept)["hint"]
    prompt = result(sixth, *accept, "--wallet")
    phrase = (town.folder / "homes" / "bob.mnemonic").read_text()
    wallet = Account.from_key(keys_of(phrase).account_key)
    assert prompt["account"] == wallet.address
    signature = wallet.sign_message(encode_typed_data(full_message=prompt["typed_data"])).signature
    assert fails(sixth, 2, *accept, "--signature", "0x" + "11" * 65)["code"] == "usage"
    added = result(sixth, *accept, "--signature", "0x" + bytes(signature).hex())
    assert (added["device"], added["state"]) == (asked["device"], "active")
    assert result(seventh, "link", "--answer", added["answer"])["device"] == asked["device"]


THREE_BYTES: Final = "0x604435600314631626ba7e0260e01b5f5260205ff3"
"""Code of a wallet that accepts every signature of three bytes, and no other (ERC-1271)."""


def test_a_wallet_that_is_a_contract_lets_a_device_in(town: Town) -> None:
    """It is asked before anything is sent; the real registry asks it again, and the sponsor carries it."""
    eighth, ninth = new_device(town, "bob", "eighth"), new_device(town, "bob", "ninth")
    for device in (eighth, ninth):
        result(device, "join", town.report["join"])
    asked = result(eighth, "link", "bob")
    accept = ("link", "--accept", asked["request"], "--code", asked["code"], "--no-history")
    result(eighth, "link", "--answer", result(town.user("bob"), *accept)["answer"])
    asked = result(ninth, "link", "bob")
    accept = ("link", "--accept", asked["request"], "--code", asked["code"], "--no-history")
    account = result(eighth, *accept, "--wallet")["account"]
    rpc = Rpc(town.report["rpc"])
    rpc.call("anvil_setCode", account, THREE_BYTES)
    try:
        for bad in ("0x1234", "0x" + "11" * 65):
            refused = fails(eighth, 2, *accept, "--signature", bad)
            assert "does not accept this signature" in refused["message"]
        assert result(eighth, *accept, "--signature", "0x123456")["device"] == asked["device"]
    finally:
        rpc.call("anvil_setCode", account, "0x")


def test_an_rsa_key_is_published_and_no_use_against_who_has_better(town: Town, tmp_path: Path) -> None:
    """The real contract takes the key; the label is in what programs read; bob lists suite 2."""
    ada = town.user("ada")
    key = result(ada, "rsa", "publish")
    assert (key["key"], key["state"]) == (1, "active")
    assert key["label"] == "RSA-2048 compatibility: no forward secrecy, not post-quantum, not deniable"
    assert result(ada, "rsa", "publish")["fingerprint"] == key["fingerprint"]
    refused = fails(ada, 7, "rsa", "seal", "bob", "hello")
    assert "better encryption" in refused["message"]
    garbled = tmp_path / "sealed.txt"
    garbled.write_bytes(b"\xff\x00 no sealed text")
    empty = tmp_path / "empty.txt"
    empty.write_bytes(b"")
    for wrong, code in ((garbled, 2), (empty, 2), (tmp_path, 2), (tmp_path / "missing", 6)):
        fails(ada, code, "rsa", "open", str(wrong))
    # Signed by nobody: what is wrong with it is told before anything is decrypted.
    text = f"-----BEGIN CHATCHAIN RSA-2048 COMPATIBILITY MESSAGE-----\n({key['label']})\nAQID\n"
    garbled.write_text(f"{text}-----END CHATCHAIN RSA-2048 COMPATIBILITY MESSAGE-----\n")
    assert "not an RSA" in fails(ada, 8, "rsa", "open", str(garbled))["message"]
