"""Registering, restoring, changing the password; each broken off at every step and gone on with."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import msgspec
import pytest

from chatchain.client.account import NEXT_VAULT
from chatchain.client.core import Client
from chatchain.errors import (
    AccountKeyElsewhere,
    AlreadyDone,
    BadConfig,
    BadRecord,
    ChainUnreachable,
    MalformedName,
    MissingInput,
    NameUnavailable,
    NoAccount,
    RelayUnreachable,
    SecretElsewhere,
    UsageError,
    WrongChain,
    WrongPassword,
)
from chatchain.model import DeviceState
from tests.world import PASSWORD, World


async def test_registration_by_the_sponsor(empty: World) -> None:
    """Without ether the relay pays; the home afterwards logs in, and its folder is private."""
    phrases: list[str] = []
    async with empty.client("ada") as ada:
        made = await ada.register("Ada", on_phrase=phrases.append)
    assert (made.username, made.device, made.sponsored, made.restored) == ("ada", 1, True, False)
    assert (made.member, made.proposal, made.problem) == (False, None, None)
    assert len(str(made.uid)) == 15
    assert len(phrases[0].split()) == 12
    async with empty.client("ada") as ada:
        who = await ada.whoami()
        assert (who.uid, who.account, who.device) == (made.uid, made.account, 1)
        assert (await ada.login("ada")).uid == made.uid
    for path in (empty.home("ada"), *empty.home("ada").iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


async def test_registration_with_own_ether(empty: World) -> None:
    """An account with ether sends the transaction itself."""
    empty.ether = 10**18
    async with empty.client("ada") as ada:
        assert not (await ada.register("ada")).sponsored
    assert empty.transactions == ["register"]


async def test_newcomer_asks_to_join_a_closed_network(closed: World) -> None:
    """Under policy vote registering opens the request, and two yes of two make a member."""
    async with closed.client("carol") as carol:
        made = await carol.register("carol")
    assert (made.member, made.proposal) == (False, 1)
    async with closed.client("ada") as ada:
        assert (await ada.vote(1, True)).state == "open"
    async with closed.client("bob") as bob:
        view = await bob.vote(1, True)
    assert (view.state, view.yes, view.electorate, view.subject) == ("passed", 2, 2, "carol")
    async with closed.client("carol") as carol:
        assert (await carol.whoami()).member
    assert [sent.state for sent in await closed.say("carol", "ada", "thank you")] == ["sent"]
    assert [shown.text for shown in await closed.hear("ada")] == ["thank you"]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("ab", MalformedName),
        ("-ada", MalformedName),
        ("a--b", MalformedName),
        ("ada!", MalformedName),
        ("admin", NameUnavailable),
        ("bob", NameUnavailable),
    ],
)
async def test_names_that_cannot_be_had(world: World, name: str, error: type[Exception]) -> None:
    """Malformed, reserved and taken names are refused before a home is made."""
    async with world.client("new") as new:
        with pytest.raises(error):
            await new.require_free(name)
        with pytest.raises(error):
            await new.register(name)
    assert not world.home("new").exists()


async def test_a_refused_name_is_said_before_a_password_is_asked_for(world: World) -> None:
    """Nobody chooses a password for nothing; and what lay in the folder before stays."""
    world.home("new").mkdir()
    (world.home("new") / "notes").write_text("mine")
    async with world.client("new", password=None) as new:
        with pytest.raises(NameUnavailable):
            await new.register("bob")
        with pytest.raises(MissingInput, match="password"):
            await new.register("carol")
    assert (world.home("new") / "notes").read_text() == "mine"
    async with world.client("ada", password=None) as ada:
        with pytest.raises(AlreadyDone):
            await ada.register("carol")


@pytest.mark.parametrize("password", ["", "short", "password"])
async def test_weak_passwords_are_refused(empty: World, password: str) -> None:
    """A password that falls at once makes no account."""
    async with empty.client("ada", password=password) as ada:
        with pytest.raises(UsageError):
            await ada.register("ada")
    assert empty.transactions == []


async def test_no_password_and_nobody_to_ask(world: World) -> None:
    """What is missing is named."""
    async with world.client("ada", password=None) as ada:
        with pytest.raises(MissingInput, match="password"):
            await ada.login()
        assert (await ada.whoami()).username == "ada"


async def test_no_network_named(tmp_path: Path, empty: World) -> None:
    """Without link or flags nothing is guessed."""
    async with Client(tmp_path / "home", empty.edges, password=PASSWORD) as nobody:
        with pytest.raises(BadConfig, match="which network"):
            await nobody.register("ada")


async def test_home_without_account(empty: World) -> None:
    """Commands that need an account say that there is none."""
    async with empty.client("ada") as ada:
        for attempt in (ada.login, ada.whoami, ada.status, ada.keys):
            with pytest.raises(NoAccount):
                await attempt()


async def test_second_registration_in_a_home(world: World) -> None:
    """A home has one user."""
    async with world.client("ada") as ada:
        with pytest.raises(AlreadyDone):
            await ada.register("carol")


class Crash(BaseException):
    """Not an Exception: nothing in between may catch it."""


@pytest.mark.parametrize("step", ["before phrase", "before transaction", "after transaction"])
async def test_registration_goes_on_after_a_crash(
    empty: World, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it broke off, `register` again makes one account, with the keys of the first attempt."""
    phrases: list[str] = []
    execute = empty.chain.execute

    def show(phrase: str) -> None:
        if step == "before phrase":
            raise Crash
        phrases.append(phrase)

    def crash(*given: object) -> object:
        if step == "after transaction":
            execute(*given)  # type: ignore[arg-type]  # passed through
        raise Crash

    monkeypatch.setattr(empty.chain, "execute", crash)
    ada = empty.client("ada")
    with pytest.raises(Crash):
        await ada.register("ada", on_phrase=show)
    await empty.kill(ada)
    first = json.loads((empty.home("ada") / "account.json").read_text())
    monkeypatch.undo()
    async with empty.client("ada", password="another password") as again:
        with pytest.raises(WrongPassword):
            await again.register("ada")
    async with empty.client("ada") as again:
        with pytest.raises(NoAccount, match="not finished"):
            await again.login()
    async with empty.client("ada") as again:
        made = await again.register("ada", on_phrase=phrases.append)
    assert made.account == first["account"]
    assert len(empty.chain.fold.uids()) == 1
    assert len(phrases) == 1
    async with empty.client("ada") as again:
        await again.login()


async def test_name_lost_to_somebody_else_in_between(empty: World) -> None:
    """When another took the name while we were away, the same keys register under another one."""
    empty.relay.up = False
    async with empty.client("ada") as ada:
        with pytest.raises(RelayUnreachable):
            await ada.register("ada")
    empty.relay.up = True
    async with empty.client("thief", home="thief") as thief:
        await thief.register("ada")
    async with empty.client("ada") as ada:
        with pytest.raises(NameUnavailable):
            await ada.register("ada")
        made = await ada.register("ada-2")
    assert made.username == "ada-2"


async def test_unshown_phrase_is_kept_until_asked_for(empty: World) -> None:
    """With nobody to show it to, the phrase stays in the encrypted home until it is asked for, once."""
    await empty.register("ada")
    shown: list[str] = []
    async with empty.client("ada") as ada:
        assert await ada.show_phrase(shown.append)
        assert not await ada.show_phrase(shown.append)
    assert len(shown[0].split()) == 12


async def test_chain_away_registers_nothing(empty: World) -> None:
    """Without an endpoint nothing is written into the home."""
    empty.chain.up = False
    async with empty.client("ada") as ada:
        with pytest.raises(ChainUnreachable):
            await ada.register("ada")
    assert not (empty.home("ada") / "vault").exists()


async def test_relay_away_after_own_transaction(empty: World) -> None:
    """An account that pays for itself is registered without a relay, and is told what is left to do."""
    empty.ether = 10**18
    empty.relay.up = False
    async with empty.client("ada") as ada:
        made = await ada.register("ada")
    assert made.uid
    assert made.problem is not None
    assert made.problem.code == "relay_unreachable"


# --- restoring ------------------------------------------------------------------------------------------


async def _with_phrase(world: World, name: str) -> str:
    phrases: list[str] = []
    async with world.client(name) as client:
        await client.register(name, on_phrase=phrases.append)
    return phrases[0]


async def test_restored_home_is_a_new_device(empty: World) -> None:
    """The phrase brings the account back as device 2, and messages reach both devices from then on."""
    phrase = await _with_phrase(empty, "ada")
    await empty.register("bob")
    async with empty.client("ada", home="laptop") as laptop:
        made = await laptop.register("ada", mnemonic=phrase)
    assert (made.device, made.restored) == (2, True)
    assert [d.state for d in empty.chain.user("ada").devices] == [DeviceState.ACTIVE] * 2
    await empty.say("bob", "ada", "hello")
    assert [shown.text for shown in await empty.hear("ada")] == ["hello"]
    async with empty.client("ada", home="laptop") as laptop:
        assert [shown.text async for shown in laptop.receive()] == ["hello"]
        assert [sent.state async for sent in laptop.send("bob", "from the laptop")] == ["sent"]
    assert await empty.hear("ada") == []
    async with empty.client("ada") as first:
        kept = await first.history("bob")
    assert [(one.direction, one.text) for one in kept] == [("in", "hello"), ("out", "from the laptop")]


async def test_restoring_keeps_the_password_if_it_is_the_same(empty: World) -> None:
    """The same password leaves the verifier alone; another sets it anew, and then the old one is refused."""
    phrase = await _with_phrase(empty, "ada")
    async with empty.client("ada", home="laptop") as laptop:
        await laptop.register("ada", mnemonic=phrase)
    assert "setVerifier" not in "".join(empty.transactions)
    async with empty.client("ada", home="phone", password="quite another one") as phone:
        await phone.register("ada", mnemonic=phrase)
        await phone.login()
    assert empty.transactions[-1] in ("setVerifier", "setVerifierFor")
    async with empty.client("ada") as first:
        with pytest.raises(WrongPassword, match="another device"):
            await first.login()
        await first.change_password("one for both of them")
        await first.login()


async def test_phrase_of_somebody_else(empty: World) -> None:
    """A phrase restores its own account under its own name only."""
    phrase = await _with_phrase(empty, "ada")
    async with empty.client("bob") as bob:
        with pytest.raises(UsageError, match="belongs to ada"):
            await bob.register("bob", mnemonic=phrase)


@pytest.mark.parametrize("phrase", ["one two three", "zoo " * 12, "", "abandon " * 11 + "zebra"])
async def test_malformed_phrases(empty: World, phrase: str) -> None:
    """A phrase with a wrong word, count or checksum is refused, and no home is made."""
    async with empty.client("ada") as ada:
        with pytest.raises(UsageError):
            await ada.register("ada", mnemonic=phrase)
    assert not (empty.home("ada") / "vault").exists()


async def test_registering_with_a_keystore(empty: World, tmp_path: Path) -> None:
    """An exported account key registers, or comes back, in another home."""
    exported = tmp_path / "key.json"
    async with empty.client("ada") as ada:
        made = await ada.register("ada")
        await ada.export_keystore(exported, "file password")
        with pytest.raises(AlreadyDone):
            await ada.export_keystore(exported, "file password")
    assert stat.S_IMODE(exported.stat().st_mode) == 0o600
    async with empty.client("ada", home="laptop") as laptop:
        with pytest.raises(WrongPassword):
            await laptop.register("ada", keystore=(exported.read_text(), "not it"))
        again = await laptop.register("ada", keystore=(exported.read_text(), "file password"))
    assert (again.account, again.device) == (made.account, 2)
    async with empty.client("ada") as ada:  # the file carries the account secret: nobody is shut out
        await ada.login()
    assert not [verb for verb in empty.transactions if verb.startswith("setVerifier")]


async def test_a_keystore_without_the_account_secret_shuts_nobody_out_unasked(
    world: World, tmp_path: Path
) -> None:
    """It is told before anything is changed, with the safer ways; asked for, it is done."""
    exported = tmp_path / "key.json"
    async with world.client("ada") as ada:
        await ada.export_keystore(exported, "pw")
    content = json.loads(exported.read_text())
    del content["chatchain"]
    stored, sent = (json.dumps(content), "pw"), list(world.transactions)
    async with world.client("ada", home="laptop") as laptop:
        with pytest.raises(SecretElsewhere, match="device 1 could not log in any more") as told:
            await laptop.register("ada", keystore=stored)
    for way in ("chatchain link ada", "chatchain recover", "keys export", "--new-secret"):
        assert way in told.value.hint
    assert (world.transactions, world.home("laptop").exists()) == (sent, False)
    async with world.client("ada") as ada:
        await ada.login()
    async with world.client("ada", home="laptop") as laptop:
        assert (await laptop.register("ada", keystore=stored, new_secret=True)).device == 2
        await laptop.login()
        await laptop.revoke_device(1)
        await laptop.revoke_device(2)
    async with world.client("ada", home="third") as third:  # where no device is left, nobody is shut out
        assert (await third.register("ada", keystore=stored)).device == 3
        await third.login()


async def test_a_keystore_brings_a_linked_device_the_accounts_key(world: World, tmp_path: Path) -> None:
    """The chain has nothing to do with it, and every device goes on."""
    exported, bobs = tmp_path / "key.json", tmp_path / "bob.json"
    async with world.client("ada", home="second") as second:
        asked = await second.link("ada")
    async with world.client("ada") as ada:
        answer = (await ada.accept_link(asked.request)).answer
        await ada.export_keystore(exported, "pw")
        with pytest.raises(AlreadyDone, match="belongs to ada"):
            await ada.register("ada", keystore=(exported.read_text(), "pw"))
    async with world.client("bob") as bob:
        await bob.export_keystore(bobs, "pw")
    async with world.client("ada", home="second") as second:
        await second.finish_link(answer)
        with pytest.raises(AccountKeyElsewhere):
            await second.revoke_device(1)
        with pytest.raises(UsageError, match="not that of ada"):
            await second.register("ada", keystore=(bobs.read_text(), "pw"))
        with pytest.raises(AlreadyDone, match="belongs to ada"):
            await second.register("carol", keystore=(bobs.read_text(), "pw"))
    sent = list(world.transactions)
    async with world.client("ada", home="second") as second:
        made = await second.register("ada", keystore=(exported.read_text(), "pw"))
        assert (made.device, made.key_brought, world.transactions) == (2, True, sent)
    async with world.client("ada") as ada:
        await ada.login()
    async with world.client("ada", home="second") as second:
        await second.login()
        assert (await second.revoke_device(1)).state == "revoked"


# --- the password ---------------------------------------------------------------------------------------


async def test_password_change(world: World) -> None:
    """The new password opens home and relay, the old one neither."""
    async with world.client("ada") as ada:
        changed = await ada.change_password("a new long password")
        assert changed.username == "ada"
        assert [sent.state async for sent in ada.send("bob", "still here")] == ["sent"]
    async with world.client("ada") as ada:
        with pytest.raises(WrongPassword):
            await ada.login()
    async with world.client("ada", password="a new long password") as ada:
        await ada.login()
        assert [kept.text for kept in await ada.history("bob")] == ["still here"]


async def test_weak_new_password_changes_nothing(world: World) -> None:
    """A weak one is refused before anything is written."""
    async with world.client("ada") as ada:
        with pytest.raises(UsageError):
            await ada.change_password("ada")
    assert not (world.home("ada") / NEXT_VAULT).exists()


@pytest.mark.parametrize("step", ["before transaction", "after transaction"])
async def test_password_change_goes_on_after_a_crash(
    world: World, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password whose verifier the chain holds is the one that counts; the other is refused with the
    reason.
    """
    execute = world.chain.execute

    def crash(*given: object) -> object:
        if step == "after transaction":
            execute(*given)  # type: ignore[arg-type]  # passed through
        raise Crash

    monkeypatch.setattr(world.chain, "execute", crash)
    ada = world.client("ada")
    with pytest.raises(Crash):
        await ada.change_password("a new long password")
    await world.kill(ada)
    monkeypatch.undo()
    good, bad = (
        (PASSWORD, "a new long password")
        if step == "before transaction"
        else ("a new long password", PASSWORD)
    )
    async with world.client("ada", password=bad) as ada:
        with pytest.raises(WrongPassword):
            await ada.login()
    async with world.client("ada", password="neither of them") as ada:
        with pytest.raises(WrongPassword):
            await ada.login()
    async with world.client("ada", password=good) as ada:
        await ada.login()
        assert [sent.state async for sent in ada.send("bob", "hello")] == ["sent"]
    async with world.client("ada", password=good) as ada:
        await ada.change_password("the third password now")
    async with world.client("ada", password="the third password now") as ada:
        await ada.login()


# --- files ----------------------------------------------------------------------------------------------


async def test_damaged_vault_is_not_a_wrong_password(world: World) -> None:
    """A vault with a flipped byte says that it is damaged."""
    vault = world.home("ada") / "vault"
    data = bytearray(vault.read_bytes())
    data[-40] ^= 1
    vault.write_bytes(data)
    async with world.client("ada") as ada:
        with pytest.raises(BadRecord, match="damaged"):
            await ada.login()


async def test_home_stays_with_its_network(world: World) -> None:
    """Another Directory by flag does not make a registered home speak to another network."""
    other = Client(
        world.home("ada"),
        world.edges,
        endpoints=("http://127.0.0.1:1",),
        directory="0x" + "99" * 20,
        password=PASSWORD,
    )
    with pytest.raises(WrongChain):
        await other.login()
    await other.close()


async def test_no_secret_in_the_home_in_the_clear(empty: World) -> None:
    """Neither phrase nor password nor account key can be read anywhere in the folder."""
    phrases: list[str] = []
    async with empty.client("ada") as ada:
        await ada.register("ada", on_phrase=phrases.append)
        await ada.login()
        key, secrets = ada._station.account_key(), ada._station.unlocked
        assert secrets is not None
        hidden = [
            key,
            secrets.secrets.login_key,
            secrets.secrets.database_key,
            secrets.secrets.account_secret,
        ]
    hidden += [PASSWORD.encode(), phrases[0].encode(), key.hex().encode()]
    stored = b"".join(path.read_bytes() for path in empty.home("ada").iterdir())
    assert [secret for secret in hidden if secret in stored] == []


async def test_who_one_is_needs_no_chain(world: World) -> None:
    """The home knows it all but the membership, which is then not claimed either way."""
    async with world.client("ada", password=None) as ada:
        there = await ada.whoami()
        assert (await ada.logout()).member == there.member is False
    world.chain.up = False
    async with world.client("ada", password=None) as ada:
        assert await ada.whoami() == msgspec.structs.replace(there, member=None, state=None)
        left = await ada.logout()
    assert (left.username, left.account, left.device, left.member) == ("ada", there.account, 1, None)


async def test_what_touches_keys_names_device_version_and_state(world: World, tmp_path: Path) -> None:
    """Every command about keys says whose they are, and a card that it is one's own."""
    async with world.client("ada") as ada:
        await ada.rotate_keys()
        changed = await ada.change_password("a new long password")
        assert (changed.device, changed.version, changed.state) == (1, 2, "active")
        assert (await ada.own_card()).verified
        exported = await ada.export_keystore(tmp_path / "key.json", "file password")
        assert (exported.device, exported.version, exported.state) == (1, 2, "active")
        world.chain.up = False
        exported = await ada.export_keystore(tmp_path / "again.json", "file password")
        assert (exported.device, exported.version, exported.state) == (1, None, None)
