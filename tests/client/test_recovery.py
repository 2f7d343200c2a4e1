"""A lost device: the account comes back from its phrase, whatever breaks off, and the lost ones are out."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Collection
from typing import Any

import pytest

from chatchain.client.core import Client
from chatchain.client.home import Home, OwnAccount
from chatchain.client.views import Recoverable
from chatchain.client.watch import Watch
from chatchain.errors import (
    AlreadyDone,
    ChainUnreachable,
    FoldMismatch,
    KeyChanged,
    LoginRefused,
    MissingInput,
    NoAccount,
    NotFoundError,
    RefusedError,
    RelayUnreachable,
    UnknownDevice,
    UnknownUser,
    UsageError,
    WrongPassword,
)
from chatchain.identity.record import device_record
from chatchain.model import Address, DeviceState, Uid
from tests.world import NETWORK, PASSWORD, World

NEW_PASSWORD = "quite another password"


@pytest.fixture
async def phrase(empty: World) -> str:
    """The recovery phrase of ada, who has written with bob; her home is lost."""
    words: list[str] = []
    async with empty.client("ada") as ada:
        await ada.register("ada", on_phrase=words.append)
    await empty.register("bob")
    await empty.say("ada", "bob", "before")
    await empty.hear("bob")
    return words[0]


def new_home(world: World, password: str | None = NEW_PASSWORD, home: str = "new") -> Client:
    """A client core in a home that nobody has used."""
    return world.client("ada", home=home, password=password)


def those(*numbers: int) -> Callable[[Recoverable], Collection[int]]:
    """Calls these devices lost."""
    return lambda _: numbers


def states(world: World, name: str = "ada") -> list[DeviceState]:
    """How somebody's devices stand on the chain."""
    return [device.state for device in world.chain.user(name).devices]


async def test_a_new_home_is_a_device_and_the_lost_one_is_out(empty: World, phrase: str) -> None:
    """Only the phrase and a new password: new mail is read, the lost device is refused, the name is hers."""
    async with new_home(empty) as ada:
        offer = await ada.identify(phrase)
        assert (offer.username, [view.device for view in offer.devices]) == ("ada", [1])
        made = await ada.recover(phrase, choose=those(1))
    assert (made.username, made.device, made.version, made.state) == ("ada", 2, 1, "active")
    assert (made.revoked, made.others, made.problem) == ((1,), (), None)
    assert made.password_changed
    assert states(empty) == [DeviceState.REVOKED, DeviceState.ACTIVE]
    await empty.say("bob", "ada", "are you back?")
    async with new_home(empty) as ada:
        assert (await ada.login()).device == 2
        assert [shown.text async for shown in ada.receive()] == ["are you back?"]
        assert [sent.state async for sent in ada.send("bob", "I am")] == ["sent"]
    assert [shown.text for shown in await empty.hear("bob")] == ["I am"]
    async with empty.client("ada") as lost:
        with pytest.raises(LoginRefused, match="was revoked at block"):
            await lost.login()


async def test_nothing_is_revoked_unasked(empty: World, phrase: str) -> None:
    """Without a choice every device stays, and the answer names those that do."""
    async with new_home(empty) as ada:
        made = await ada.recover(phrase)
    assert (made.revoked, made.others) == ((), (1,))
    assert states(empty) == [DeviceState.ACTIVE] * 2


async def test_the_safety_number_stays_and_the_new_device_is_seen(empty: World, phrase: str) -> None:
    """Whoever verified the user is stopped by the device that came, and finds the same number as before."""
    async with empty.client("bob") as bob:
        before = (await bob.verify("ada")).fingerprint
    async with new_home(empty) as ada:
        await ada.recover(phrase, choose=those(1))
        assert (await ada.safety_number("bob")).fingerprint == before
    async with empty.client("bob") as bob:
        with pytest.raises(KeyChanged, match=r"ada revoked device 1 at block \d+; ada added device 2 at"):
            await empty.drain(bob.send("ada", "is it you?"), [])
        assert (await bob.safety_number("ada")).fingerprint == before
        await bob.verify("ada")
        assert [sent.state async for sent in bob.send("ada", "it is")] == ["sent"]


async def test_the_old_password_may_stay(empty: World, phrase: str) -> None:
    """The account's own password leaves the verifier alone; another is set, and is to be strong enough."""
    async with new_home(empty, PASSWORD) as ada:
        assert not (await ada.recover(phrase)).password_changed
    assert not [verb for verb in empty.transactions if verb.startswith("setVerifier")]
    async with new_home(empty, "short", home="weak") as ada:
        with pytest.raises(UsageError):
            await ada.recover(phrase)
    assert not empty.home("weak").exists()
    async with new_home(empty, home="third") as ada:
        assert (await ada.recover(phrase)).device == 3
        await ada.login()
    async with new_home(empty, PASSWORD) as ada:
        with pytest.raises(WrongPassword, match="another device"):
            await ada.login()


async def test_the_versions_of_the_own_devices_are_pinned(empty: World, phrase: str) -> None:
    """Once back, a chain that shows fewer devices than it did is refused."""
    async with new_home(empty) as ada:
        await ada.recover(phrase, choose=those(1))
        await ada.login()
        me, store = empty.chain.user("ada"), (await ada._station.desk()).unlocked.store
        contact = store.contact(me.uid)
    assert contact is not None
    assert (contact.floor, contact.confirmed) == (me.device_list_version, me.device_list_version)


async def test_an_endpoint_that_hides_a_device_is_caught(empty: World, phrase: str) -> None:
    """The heads that the contract holds are compared before a device gets its number."""
    async with new_home(empty) as ada:
        await ada.recover(phrase)
    second = empty.chain.user("ada").devices[1].current.block
    empty.chain.lies = lambda row: None if row.block == second else row
    sent = list(empty.transactions)
    async with new_home(empty, home="third") as ada:
        with pytest.raises(FoldMismatch):
            await ada.recover(phrase)
    assert empty.transactions == sent


async def test_two_devices_at_the_same_moment(
    empty: World, phrase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever got another number than the record says is told so, and which one is to be revoked."""
    real, raced = Watch.confirm, False

    async def confirmed(self: Watch, uid: Uid) -> None:
        nonlocal raced
        await real(self, uid)
        if not raced:
            raced = True
            call = empty.edges.calls.add_device(Address(b"\x77" * 20), b"another's")
            empty.chain.execute(call, empty.chain.user("ada").account)

    monkeypatch.setattr(Watch, "confirm", confirmed)
    async with new_home(empty) as ada:
        with pytest.raises(RefusedError, match="so this one became device 3") as refused:
            await ada.recover(phrase)
    assert "--revoke 3" in refused.value.hint
    async with new_home(empty) as ada:
        with pytest.raises(NoAccount, match="not finished"):
            await ada.login()


async def test_a_recovery_that_another_process_just_finished_is_left_as_it_is(
    empty: World, phrase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It got the home in the moment between the first look at it and the lock."""
    async with new_home(empty, home="other") as ada:
        await ada.recover(phrase)
    real = Home.acquire

    def beaten(self: Home) -> None:
        if not self.held and not (self.path / "account.json").exists():
            shutil.copytree(empty.home("other"), self.path)
        real(self)

    monkeypatch.setattr(Home, "acquire", beaten)
    async with new_home(empty) as ada:
        assert (await ada.recover(phrase)).device == 2
    assert states(empty) == [DeviceState.ACTIVE] * 2


async def test_register_with_the_phrase_of_an_account_is_the_same_way(empty: World, phrase: str) -> None:
    """`register NAME` with a known phrase brings the account back too, and `recover` may finish it."""
    empty.relay.up = False
    async with new_home(empty) as ada:
        with pytest.raises(RelayUnreachable):
            await ada.register("ada", mnemonic=phrase)
        with pytest.raises(NoAccount, match=r"recovery of ada .* not finished"):
            await ada.login()
    empty.relay.up = True
    async with new_home(empty) as ada:
        made = await ada.recover(choose=those(1))
    assert (made.device, made.revoked) == (2, (1,))


class Crash(BaseException):
    """Not an Exception: nothing in between may catch it."""


STEPS = ("addDeviceFor", "setVerifierFor", "revokeDeviceFor")


@pytest.mark.parametrize("phrase_again", [True, False])
@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("step", STEPS)
async def test_it_goes_on_after_a_crash(
    empty: World, phrase: str, step: str, after: bool, phrase_again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before or after any transaction: the same command makes one device, once, and ends well."""
    execute = empty.chain.execute

    def crash(call: Any, sender: Any) -> Any:
        if empty.transactions[-1] != step:
            return execute(call, sender)
        if after:
            execute(call, sender)
        raise Crash

    monkeypatch.setattr(empty.chain, "execute", crash)
    ada = new_home(empty)
    with pytest.raises(Crash):
        await ada.recover(phrase, choose=those(1))
    await empty.kill(ada)
    monkeypatch.undo()
    finished = json.loads((empty.home("new") / "account.json").read_text()).get("uid")
    async with new_home(empty, "not the one that was chosen") as ada:
        with pytest.raises(WrongPassword):
            await ada.recover(phrase)
    async with new_home(empty) as ada:
        if finished and not phrase_again:
            with pytest.raises(AlreadyDone, match="belongs to ada"):
                await ada.recover(choose=those(1))
            return
        made = await ada.recover(phrase if phrase_again else None, choose=those(1))
        assert (made.device, made.others) == (2, ())
        await ada.login()
    assert states(empty) == [DeviceState.REVOKED, DeviceState.ACTIVE]
    user = empty.chain.user("ada")
    assert device_record(NETWORK, user, user.devices[1], user.devices[1].current).device == 2


@pytest.mark.parametrize("time", [1, 2])
async def test_a_home_that_is_half_written_counts_for_nothing(
    empty: World, phrase: str, time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the file that says whose home it is, or which device: again, and one device is new."""
    put, times = Home.put_account, 0

    def crash(home: Home, account: OwnAccount) -> None:
        nonlocal times
        times += 1
        if times == time:
            raise Crash
        put(home, account)

    monkeypatch.setattr(Home, "put_account", crash)
    ada = new_home(empty)
    with pytest.raises(Crash):
        await ada.recover(phrase, choose=those(1))
    await empty.kill(ada)
    monkeypatch.undo()
    async with new_home(empty) as ada:
        assert (await ada.recover(phrase, choose=those(1))).device == 2
        await ada.login()
    assert states(empty) == [DeviceState.REVOKED, DeviceState.ACTIVE]


@pytest.mark.parametrize("number", [1, 2, 3, 4])
async def test_killed_behind_a_file_of_the_home(
    empty: World, phrase: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that says whose it is comes last, so that what counts is whole; the same command goes on."""
    write, left = Home.write, number

    def crash(home: Home, name: str, data: bytes) -> None:
        nonlocal left
        write(home, name, data)
        left -= 1
        if not left:
            raise Crash

    monkeypatch.setattr(Home, "write", crash)
    ada = new_home(empty)
    with pytest.raises(Crash):
        await ada.recover(phrase)
    await empty.kill(ada)
    monkeypatch.undo()
    async with new_home(empty) as ada:
        assert (await ada.recover(phrase)).device == 2
        await ada.login()
    assert states(empty) == [DeviceState.ACTIVE] * 2


async def test_the_password_is_set_although_a_recovery_was_proposed_meanwhile(
    empty: World, phrase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry keeps new devices out then, not the end of a recovery that had its device already."""
    execute = empty.chain.execute

    def crash(call: Any, sender: Any) -> Any:
        if empty.transactions[-1] == "setVerifierFor":
            raise Crash
        return execute(call, sender)

    monkeypatch.setattr(empty.chain, "execute", crash)
    ada = new_home(empty)
    with pytest.raises(Crash):
        await ada.recover(phrase)
    await empty.kill(ada)
    monkeypatch.undo()
    empty.chain.propose_recovery("ada", empty.address_of("thief"))
    async with new_home(empty) as ada:
        assert (await ada.recover(phrase)).device == 2
        await ada.login()


async def test_repeating_a_finished_recovery_changes_nothing(empty: World, phrase: str) -> None:
    """Killed after the last step and run again: the same answer, and no further transaction."""
    async with new_home(empty) as ada:
        first = await ada.recover(phrase, choose=those(1))
    sent = list(empty.transactions)
    async with new_home(empty) as ada:
        again = await ada.recover(phrase, choose=those(1))
    assert (again.device, again.others, empty.transactions) == (first.device, (), sent)


async def test_a_home_that_was_revoked_meanwhile_is_not_added_again(empty: World, phrase: str) -> None:
    """A recovery that another device ended says so, with the way out."""
    async with new_home(empty) as ada:
        await ada.recover(phrase)
    async with empty.client("ada", password=PASSWORD) as first:
        with pytest.raises(WrongPassword):
            await first.login()
    async with new_home(empty, home="third") as third:
        await third.recover(phrase, choose=those(2))
    async with new_home(empty) as ada:
        with pytest.raises(LoginRefused, match="revoked at block") as told:
            await ada.recover(phrase)
    assert "recover" in told.value.hint
    assert len(states(empty)) == 3


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("abandon " * 11 + "zebra", "checksum"),
        ("abandon " * 11 + "xyzzy", "Word 12"),
        ("abandon " * 7, "12 words"),
        ("", "12 words"),
    ],
)
async def test_malformed_phrases(empty: World, words: str, says: str) -> None:
    """A wrong word, checksum or count is told before anything is asked or written."""
    async with new_home(empty, None) as ada:
        with pytest.raises(UsageError, match=says):
            await ada.recover(words)
    assert not empty.home("new").exists()


async def test_the_phrase_of_nobody(empty: World, phrase: str) -> None:
    """A good phrase without an account is told from a bad one, and leaves no home."""
    async with new_home(empty, None) as ada:
        for attempt in (ada.recover, ada.identify):
            with pytest.raises(UnknownUser, match="not registered here"):
                await attempt("abandon " * 11 + "about")
        with pytest.raises(MissingInput, match="phrase"):
            await ada.recover()
        with pytest.raises(MissingInput, match="password"):
            await ada.recover(phrase)
    assert not empty.home("new").exists()


async def test_a_home_that_is_somebody_s(empty: World, phrase: str) -> None:
    """Neither her own first home nor another's is made a second device of anything."""
    for name in ("ada", "bob"):
        async with empty.client(name) as client:
            with pytest.raises(AlreadyDone, match=f"belongs to {name}"):
                await client.recover(phrase)
    empty.relay.up = False
    async with empty.client("carol") as carol:
        with pytest.raises(RelayUnreachable):
            await carol.register("carol")
        with pytest.raises(AlreadyDone, match="registration of carol was begun"):
            await carol.recover(phrase)


@pytest.mark.parametrize("number", [2, 7])
async def test_devices_that_are_not_there(empty: World, phrase: str, number: int) -> None:
    """A wrong number is told before anything is sent."""
    sent = list(empty.transactions)
    async with new_home(empty) as ada:
        with pytest.raises(UnknownDevice, match=f"no device {number}"):
            await ada.recover(phrase, choose=those(number))
        assert (empty.transactions, states(empty)) == (sent, [DeviceState.ACTIVE])
        await ada.recover(phrase)
        with pytest.raises(UsageError, match="Device 2 is this one"):
            await ada.recover(phrase, choose=those(2))


async def test_chain_away(empty: World, phrase: str) -> None:
    """Without an endpoint nothing is written."""
    empty.chain.up = False
    async with new_home(empty) as ada:
        with pytest.raises(ChainUnreachable):
            await ada.recover(phrase)
    assert not empty.home("new").exists()


async def test_own_ether_needs_no_relay(empty: World, phrase: str) -> None:
    """Who pays for himself gets the lost device out while the relay is away, and is told what is left."""
    empty.ether = 10**18
    empty.relay.up = False
    async with new_home(empty) as ada:
        made = await ada.recover(phrase, choose=those(1))
    assert made.problem is not None
    assert (made.problem.code, made.revoked) == ("relay_unreachable", (1,))
    assert states(empty) == [DeviceState.REVOKED, DeviceState.ACTIVE]


# --- a recovery by the recovery address ---------------------------------------------------------------------


async def test_no_device_is_added_while_a_recovery_is_pending(empty: World, phrase: str) -> None:
    """It is told from when on who may take over, and nothing is sent; refused first, the device is added."""
    thief = empty.address_of("thief")
    empty.chain.propose_recovery("ada", thief)
    sent = list(empty.transactions)
    async with new_home(empty, None) as ada:
        offer = await ada.identify(phrase)
        assert offer.pending is not None
        with pytest.raises(RefusedError, match=offer.pending.account) as told:
            await ada.recover(phrase)
        ada._station.password = NEW_PASSWORD
        with pytest.raises(RefusedError, match="pending"):
            await ada.register("ada", mnemonic=phrase)
    assert "--veto" in told.value.hint
    assert (empty.transactions, empty.home("new").exists()) == (sent, False)
    async with new_home(empty) as ada:
        made = await ada.recover(phrase, choose=those(1), veto=True)
    assert (made.device, made.revoked) == (2, (1,))
    assert empty.chain.user("ada").next_account is None


async def test_a_home_refuses_a_recovery(empty: World, phrase: str) -> None:
    """The account's key in a home is enough; without a pending one there is nothing to refuse."""
    async with empty.client("ada") as ada:
        with pytest.raises(NotFoundError, match="pending"):
            await ada.veto_recovery()
        empty.chain.propose_recovery("ada", empty.address_of("thief"))
        refused = await ada.veto_recovery()
    assert (refused.device, refused.state) == (1, "active")
    assert refused.refused.lower() == "0x" + empty.address_of("thief").hex()
    assert empty.chain.user("ada").next_account is None


# --- what a home says of itself -----------------------------------------------------------------------------


async def test_a_revoked_home_says_when_and_what_to_do(empty: World, phrase: str) -> None:
    """`whoami` and `status` need no password for it; every command that needs the relay names it too."""
    async with new_home(empty) as ada:
        await ada.recover(phrase, choose=those(1))
    block = empty.chain.user("ada").devices[0].revoked_block
    async with empty.client("ada", password=None) as ada:
        for told in (await ada.whoami(), await ada.status()):
            assert (told.device, told.state, told.recovery) == (1, "revoked", None)
            assert told.problem is not None
            assert f"device 1 of ada, was revoked at block {block} (2027-" in told.problem.message
            assert "NEW-FOLDER recover" in told.problem.hint
            assert "NEW-FOLDER link" in told.problem.hint
    async with empty.client("ada") as ada:
        for attempt in (ada.login, ada.own_card, lambda: ada.vote(1, True), ada.rotate_keys):
            with pytest.raises(LoginRefused, match=f"revoked at block {block}"):
                await attempt()
        assert [kept.text for kept in await ada.history("bob")] == ["before"]
        found = {finding.check: finding for finding in await ada.doctor()}
    assert (found["account"].ok, found["account"].exit_code) == (False, 3)
    async with new_home(empty) as ada:
        assert ((await ada.whoami()).state, (await ada.whoami()).problem) == ("active", None)
        assert all(finding.ok for finding in await ada.doctor())


async def test_who_listens_while_being_revoked_hears_why(empty: World, phrase: str) -> None:
    """The session ends at once, and the error says where to read more."""
    async with empty.client("ada") as listening, new_home(empty, PASSWORD) as ada:
        await listening.login()
        hearing = asyncio.create_task(empty.drain(listening.receive(follow=True), []))
        await ada.recover(phrase, choose=those(1))
        empty.relay.revoked(empty.chain.user("ada").uid, 1)
        with pytest.raises(LoginRefused, match="revoked") as told:
            await hearing
    assert "chatchain whoami" in told.value.hint


async def test_a_pending_recovery_is_shown_with_the_way_to_refuse_it(empty: World, phrase: str) -> None:
    """The account and the time that count; once it has taken over, that too."""
    thief = empty.address_of("thief")
    empty.chain.propose_recovery("ada", thief)
    async with empty.client("ada", password=None) as ada:
        for told in (await ada.whoami(), await ada.status()):
            assert told.recovery is not None
            assert told.problem is not None
            assert told.recovery.account.lower() == "0x" + thief.hex()
            assert told.recovery.ready in told.problem.message
            assert "--veto" in told.problem.hint
            assert told.state == "active"
    async with empty.client("ada") as ada:
        found = {finding.check: finding for finding in await ada.doctor()}
        assert (found["account"].ok, found["recovery"].ok, found["recovery"].exit_code) == (True, False, 7)
    empty.chain.replace_account("ada", thief)
    async with empty.client("ada", password=None) as ada:
        told = await ada.whoami()
        found = {finding.check: finding for finding in await ada.doctor()}
    assert told.problem is not None
    assert (told.problem.code, told.recovery) == ("account_key_elsewhere", None)
    assert not found["recovery"].ok
    async with new_home(empty) as ada:
        with pytest.raises(UnknownUser, match="replaced"):
            await ada.recover(phrase)
