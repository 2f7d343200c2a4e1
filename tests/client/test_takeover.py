"""The recovery address: named, it proposes another account, which takes over once the delay is past."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data

from chatchain.client import messaging
from chatchain.client.core import Client
from chatchain.client.views import PendingRecovery, ProposalPrompt, Recoverable, Recovered
from chatchain.client.watch import Watch
from chatchain.errors import (
    AccountKeyElsewhere,
    AlreadyDone,
    ChainUnreachable,
    FoldMismatch,
    KeyChanged,
    LimitReached,
    LoginRefused,
    NotFoundError,
    RefusedError,
    RelayUnreachable,
    UnknownUser,
    UsageError,
)
from chatchain.identity.keys import NOBODY, address_of, to_checksum
from chatchain.model import DeviceState
from chatchain.ui import render, takeovers
from tests.world import RECOVERY_CHANGE_S, RECOVERY_S, VETO_INTERVAL_S, World

NEW_PASSWORD = "quite another password"
GUARDIAN = b"\x07" * 32
"""The key of a recovery address that is nobody's account."""

DAY = 24 * 3600


def new_home(world: World, password: str | None = NEW_PASSWORD) -> Client:
    """A client core in a home that nobody has used."""
    return world.client("ada", home="new", password=password)


async def named(world: World, who: str) -> None:
    """Ada names her recovery address."""
    async with world.client("ada") as ada:
        offer = await ada.offer_recovery_address(who)
        await ada.set_recovery_address(offer.to)


async def begun(world: World) -> str:
    """A new account that is to take ada over waits in a new home; gives its address."""
    async with new_home(world) as new:
        return (await new.begin_takeover("ada")).account


async def proposed(world: World) -> str:
    """The same, once the recovery address has proposed it."""
    account = await begun(world)
    async with world.client("guard", password=None) as guard:
        await guard.propose_recovery("ada", account, GUARDIAN)
    return account


async def taken_over(world: World, *lost: int) -> Recovered:
    """Ada's account in a new home, with the devices that were called lost."""
    await named(world, to_checksum(address_of(GUARDIAN)))
    await proposed(world)
    world.now += RECOVERY_S
    async with new_home(world) as new:
        return await new.finalise_takeover(choose=lambda _: lost)


# --- naming -------------------------------------------------------------------------------------------------


async def test_the_first_recovery_address_counts_at_once(world: World) -> None:
    """Where there was none nobody could be harmed by haste; a user's name stands for the account."""
    async with world.client("ada") as ada:
        assert (await ada.recovery_address()).recovery == ""
        assert (await ada.whoami()).recovery_address is None
        offer = await ada.offer_recovery_address("bob")
    bob = to_checksum(world.chain.user("bob").account)
    assert (offer.to, offer.username, offer.now, offer.at_once) == (bob, "bob", "", True)
    async with world.client("ada") as ada:
        view = await ada.set_recovery_address(offer.to)
        assert (view.recovery, view.next, view.state, bool(view.tx)) == (bob, None, "active", True)
        assert (await ada.status()).recovery_address == bob


async def test_a_change_waits_and_may_be_taken_back(world: World) -> None:
    """It counts after three weeks without another transaction; until then the old one does."""
    first, second = (to_checksum(world.address_of(name)) for name in ("first", "second"))
    await named(world, first)
    async with world.client("ada") as ada:
        offer = await ada.offer_recovery_address(second)
        assert (offer.now, offer.at_once, offer.takes_back) == (first, False, False)
        view = await ada.set_recovery_address(second)
        assert view.recovery == first
        assert view.next is not None
        assert view.next.address == second
        assert (await ada.whoami()).next_recovery_address == view.next
        with pytest.raises(AlreadyDone, match=view.next.since):
            await ada.offer_recovery_address(second)
        back = await ada.offer_recovery_address(first)
        assert (back.at_once, back.takes_back) == (True, True)
        assert (await ada.set_recovery_address(first)).next is None
        await ada.set_recovery_address((await ada.offer_recovery_address(None)).to)
    world.now += RECOVERY_CHANGE_S
    async with world.client("ada", password=None) as ada:
        assert ((await ada.recovery_address()).recovery, (await ada.whoami()).recovery_address) == ("", None)
        with pytest.raises(AlreadyDone, match="has no recovery address"):
            await ada.offer_recovery_address(None)


async def test_whose_keys_changed_or_were_never_compared_is_not_named_in_silence(world: World) -> None:
    """A contact that a person verified is looked at again; of anybody else it is said that nobody was."""
    async with world.client("ada") as ada:
        assert not (await ada.offer_recovery_address("bob")).verified
        await ada.verify("bob")
        offer = await ada.offer_recovery_address("bob")
        assert offer.verified
        assert "verif" not in " ".join(takeovers.naming(offer))
        stranger = msgspec.structs.replace(offer, verified=False)
        assert "`chatchain contacts verify bob`" in " ".join(takeovers.naming(stranger))
    async with world.client("bob") as bob:
        await bob.rotate_keys()
    async with world.client("ada") as ada:
        with pytest.raises(KeyChanged):
            await ada.offer_recovery_address("bob")


async def test_addresses_that_cannot_help_are_refused(world: World) -> None:
    """One's own account or device, nobody's, the one that counts already, and what is no address."""
    me = world.chain.user("ada")
    await named(world, "bob")
    async with world.client("ada", password=None) as ada:
        for own in ("ada", to_checksum(me.account), to_checksum(me.devices[0].current.signer)):
            with pytest.raises(UsageError, match="this account itself"):
                await ada.offer_recovery_address(own)
        with pytest.raises(UsageError, match="Nobody has that address"):
            await ada.offer_recovery_address("0x" + NOBODY.hex())
        with pytest.raises(AlreadyDone, match="already"):
            await ada.offer_recovery_address("bob")
        with pytest.raises(UnknownUser):
            await ada.offer_recovery_address("nobody-here")
        with pytest.raises(UsageError, match="not an address"):
            await ada.offer_recovery_address("0x12")


async def test_a_new_account_names_its_recovery_address(world: World) -> None:
    """Also when the registration broke off; one's own address is refused, and an existing account's."""
    world.relay.up = False
    async with world.client("carol") as carol:
        with pytest.raises(RelayUnreachable):
            await carol.register("carol", recovery="bob")
    world.relay.up = True
    words: list[str] = []
    async with world.client("carol") as carol:
        await carol.register("carol", on_phrase=words.append)
    assert world.chain.user("carol").recovery == world.chain.user("bob").account
    async with world.client("again") as again:
        with pytest.raises(UsageError, match="it is for new accounts"):
            await again.register("carol", mnemonic=words[0], recovery="bob")
    key = b"\x09" * 32
    stored = (json.dumps(Account.encrypt(key, "pw", kdf="pbkdf2", iterations=2)), "pw")
    async with world.client("dan") as dan:
        with pytest.raises(UsageError, match="this account itself"):
            await dan.register("dan", keystore=stored, recovery=to_checksum(address_of(key)))
    for home in ("again", "dan"):
        assert not world.home(home).exists()


async def test_a_linked_device_names_nobody(world: World) -> None:
    """It lacks the account's key, and says where that is."""
    async with world.client("ada", home="second") as second:
        asked = await second.link("ada")
    async with world.client("ada") as ada:
        answer = (await ada.accept_link(asked.request)).answer
    async with world.client("ada", home="second") as second:
        await second.finish_link(answer)
        with pytest.raises(AccountKeyElsewhere):
            await second.set_recovery_address(to_checksum(world.chain.user("bob").account))


# --- proposing ----------------------------------------------------------------------------------------------


async def test_a_friend_proposes_from_his_own_home(world: World) -> None:
    """His account is her recovery address: no other key is needed, and no ether."""
    await named(world, "bob")
    account = await begun(world)
    async with world.client("bob") as bob:
        await bob.login()
        offer = await bob.offer_proposal("ada", account)
        assert (offer.account, offer.replaces, offer.drops) == (account, None, None)
        view = await bob.propose_recovery("ada", account)
        assert (view.proposed, view.sponsored) == (account, True)
        assert [sent.state async for sent in bob.send("ada", "I did")] == ["sent"]
        with pytest.raises(AlreadyDone, match="may take over from"):
            await bob.propose_recovery("ada", account)
    waits = world.chain.user("ada").next_account
    assert waits is not None
    assert to_checksum(waits.address) == account


async def test_proposing_pays_with_its_own_ether(world: World) -> None:
    """The recovery address needs no relay then."""
    await named(world, to_checksum(address_of(GUARDIAN)))
    account = await begun(world)
    world.chain.wei[address_of(GUARDIAN)] = 10**18
    world.relay.up = False
    async with world.client("guard", password=None) as guard:
        assert not (await guard.propose_recovery("ada", account, GUARDIAN)).sponsored
    assert not world.home("guard").exists()


async def test_proposals_that_cannot_be(world: World) -> None:
    """Without a recovery address, by somebody else, or of an account that is taken: nothing is sent."""
    account, sent = await begun(world), list(world.transactions)
    async with world.client("bob") as bob:
        with pytest.raises(RefusedError, match="has named no recovery address"):
            await bob.propose_recovery("ada", account)
    await named(world, to_checksum(address_of(GUARDIAN)))
    sent += ["setRecoveryFor"]
    async with world.client("bob") as bob:
        with pytest.raises(RefusedError, match="Only the recovery address of ada") as told:
            await bob.propose_recovery("ada", account)
        assert to_checksum(address_of(GUARDIAN)) in told.value.message
        taken = to_checksum(world.chain.user("bob").account)
        for nobody, whose in ((taken, "bob"), ("0x" + NOBODY.hex(), "nobody")):
            with pytest.raises(UsageError, match=f"it belongs to {whose}"):
                await bob.propose_recovery("ada", nobody, GUARDIAN)
        with pytest.raises(UsageError, match="not an address"):
            await bob.propose_recovery("ada", "ada", GUARDIAN)
    assert world.transactions == sent


async def test_a_proposal_says_what_it_replaces(world: World) -> None:
    """An earlier one, and a change of the recovery address that would have removed the proposer."""
    await named(world, to_checksum(address_of(GUARDIAN)))
    await named(world, "bob")
    account = await begun(world)
    thief = world.address_of("thief")
    async with world.client("guard", password=None) as guard:
        offer = await guard.offer_proposal("ada", account, GUARDIAN)
        assert offer.drops == to_checksum(world.chain.user("bob").account)
        await guard.propose_recovery("ada", to_checksum(thief), GUARDIAN)
        assert world.chain.user("ada").next_recovery is None
        assert (await guard.offer_proposal("ada", account, GUARDIAN)).replaces == to_checksum(thief)


def signature_of(prompt: ProposalPrompt, key: bytes) -> str:
    """What a wallet with this key gives for what it is shown, by another implementation than ours."""
    shown = encode_typed_data(full_message=json.loads(json.dumps(prompt.typed_data)))
    return "0x" + bytes(Account.from_key(key).sign_message(shown).signature).hex()


async def test_a_wallet_proposes(world: World) -> None:
    """Asked from the home that waits to take over: it signs what it is shown, and nothing else counts."""
    await named(world, to_checksum(address_of(GUARDIAN)))
    account = await begun(world)
    async with new_home(world) as new:
        sent = list(world.transactions)
        with pytest.raises(UsageError, match="No wallet was asked"):
            await new.propose_recovery("ada", account, signature="0x" + "11" * 65)
        prompt = await new.ask_wallet_to_propose("ada", account)
        assert (prompt.by, prompt.account) == (to_checksum(address_of(GUARDIAN)), account)
        assert prompt.typed_data["primaryType"] == "ProposeRecovery"
        other = to_checksum(world.address_of("thief"))
        with pytest.raises(UsageError, match="No wallet was asked"):
            await new.propose_recovery("ada", other, signature=signature_of(prompt, GUARDIAN))
        with pytest.raises(UsageError, match="not the signature of the account"):
            await new.propose_recovery("ada", account, signature=signature_of(prompt, b"\x01" * 32))
        assert world.transactions == sent
        view = await new.propose_recovery("ada", account, signature=signature_of(prompt, GUARDIAN))
        assert (view.proposed, view.sponsored) == (account, True)
    world.now += RECOVERY_S
    async with new_home(world) as new:
        assert (await new.finalise_takeover()).device == 2


async def test_a_contract_proposes_from_anybodys_home(world: World) -> None:
    """A wallet of several people, say, as recovery address; its signature may have any length."""
    safe = world.address_of("safe")
    world.chain.wallets[safe] = lambda _, signature: signature == b"all of us" * 30
    await named(world, to_checksum(safe))
    account = await begun(world)
    async with world.client("bob") as bob:
        await bob.login()
        await bob.ask_wallet_to_propose("ada", account)
        with pytest.raises(UsageError, match="does not accept"):
            await bob.propose_recovery("ada", account, signature="0x1234")
        signature = (b"all of us" * 30).hex()
        assert (await bob.propose_recovery("ada", account, signature=signature)).proposed == account


# --- seeing it ----------------------------------------------------------------------------------------------


async def test_the_login_tells_of_a_proposal(world: World) -> None:
    """Which account, since which block, and from when on."""
    await named(world, to_checksum(address_of(GUARDIAN)))
    async with world.client("ada") as ada:
        assert (await ada.login()).recovery is None
    account = await proposed(world)
    block = world.chain.blocks[-1].number
    async with world.client("ada") as ada:
        told = (await ada.login()).recovery
        assert told is not None
        assert (told.account, told.block) == (account, block)
        assert (await ada.recovery_address()).pending == told
        who = await ada.whoami()
        assert who.problem is not None
        assert f"since block {block}" in who.problem.message
        with pytest.raises(RefusedError, match="pending"):
            await ada.offer_recovery_address("bob")


async def test_a_chain_that_goes_away_behind_a_command_does_not_make_it_fail(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The warning is read from what is known; what was asked for is done by then."""

    async def away(*_: object) -> None:
        raise ChainUnreachable("No endpoint answers.")

    async with world.client("ada") as ada:
        assert await ada.pending_recovery() is None, "nothing was looked at yet"
        await ada.login()
        world.chain.propose_recovery("ada", world.address_of("thief"))
        assert await ada.pending_recovery() is None, "nobody is asked for it"
        await ada.safety_number("bob")
        assert await ada.pending_recovery() is not None
        monkeypatch.setattr(Watch, "user", away)
        assert await ada.pending_recovery() is None


async def test_an_endpoint_that_hides_a_proposal_is_caught(world: World) -> None:
    """The owner's own commands compare what the contract holds; `doctor` does not call it well."""
    await named(world, to_checksum(address_of(GUARDIAN)))
    await proposed(world)
    newest = world.chain.rows[-1]
    world.chain.lies = lambda row: None if row is newest else row
    async with world.client("ada") as ada:
        for attempt in (ada.login, ada.veto_recovery):
            with pytest.raises(FoldMismatch):
                await attempt()
        for told in (await ada.whoami(), await ada.status()):
            assert told.problem is not None
            assert told.problem.code == FoldMismatch.code
        found = {finding.check: finding.ok for finding in await ada.doctor()}
        assert (found["account"], found["recovery"]) == (False, False)


async def test_who_follows_hears_of_a_proposal(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, if it is there already, and else as soon as the chain shows it, also if nobody writes."""
    monkeypatch.setattr(messaging, "LOOK_AGAIN_S", 0.01)
    monkeypatch.setattr(messaging, "LOOK_OUT_S", 0.0)
    heard: list[PendingRecovery] = []
    await named(world, to_checksum(address_of(GUARDIAN)))
    account = ""
    for _ in range(2):
        async with world.client("ada") as ada:
            await ada.login()
            following = asyncio.create_task(world.drain(ada.receive(follow=True, alarm=heard.append), []))
            if not account:
                assert heard == []
                account = await proposed(world)
            await world.until(lambda: heard != [])
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            assert heard[0].account == account
            assert await ada.pending_recovery() == heard[0]
        heard.clear()


async def test_what_fails_has_seen_the_proposal_all_the_same(world: World) -> None:
    """With the relay away, nobody of that name, or no password: whatever has asked the chain knows it."""
    await named(world, to_checksum(address_of(GUARDIAN)))
    account = await proposed(world)
    async with world.client("ada") as ada:
        assert await ada.pending_recovery() is None  # nothing was asked yet
        with pytest.raises(UnknownUser):
            await world.drain(ada.send("nobody-here", "hello"), [])
        told = await ada.pending_recovery()
        assert told is not None
        assert told.account == account
    world.relay.up = False
    async with world.client("ada") as ada:
        with pytest.raises(RelayUnreachable):
            await ada.login()
        assert await ada.pending_recovery() == told
    async with world.client("ada", password=None) as ada:
        await ada.proposals()
        assert await ada.pending_recovery() == told


async def test_a_second_veto_has_to_wait(world: World) -> None:
    """Used up, it says until when, and what is left to do; a month later it works again."""
    await named(world, to_checksum(address_of(GUARDIAN)))
    account = await proposed(world)
    async with world.client("ada") as ada:
        assert (await ada.veto_recovery()).refused == account
    async with world.client("guard", password=None) as guard:
        await guard.propose_recovery("ada", account, GUARDIAN)
    async with world.client("ada") as ada:
        with pytest.raises(LimitReached, match="once in 30 days, and so again from 2027-") as told:
            await ada.veto_recovery()
        assert "Warn your contacts" in told.value.hint
        spent = (await ada.login()).recovery
        assert spent is not None
        assert spent.veto_from is not None
        assert spent.veto_from > spent.ready
        assert spent.veto_from in told.value.message
        assert "--veto" not in "".join(render.alarm(spent))
        assert "warn your contacts" in "".join(render.alarm(spent))
        assert await ada.pending_recovery() == spent == (await ada.recovery_address()).pending
        assert (await ada.whoami()).recovery == (await ada.status()).recovery == spent
        soon = msgspec.structs.replace(spent, veto_from="2026-01-01T00:00:00Z")
        assert "in time, with `chatchain recover --veto`" in "".join(render.alarm(soon))
    world.now += VETO_INTERVAL_S
    async with world.client("ada") as ada:
        free = (await ada.login()).recovery
        assert free is not None
        assert free.veto_from is None
        assert "refuse it with: chatchain recover --veto" in "".join(render.alarm(free))
        await ada.veto_recovery()
        with pytest.raises(NotFoundError, match="nothing to refuse"):
            await ada.veto_recovery()


# --- taking over --------------------------------------------------------------------------------------------


async def test_a_new_account_takes_over(world: World) -> None:
    """Name, id and seat stay; the lost device is out and cannot log in, and new mail is read."""
    await world.say("ada", "bob", "before")
    await world.hear("bob")
    before = world.chain.user("ada")
    made = await taken_over(world, 1)
    assert (made.uid, made.device, made.revoked, made.others) == (before.uid, 2, (1,), ())
    assert (made.replaced, made.password_changed) == (to_checksum(before.account), True)
    after = world.chain.user("ada")
    assert (after.epoch, to_checksum(after.account)) == (1, made.account)
    assert [device.state for device in after.devices] == [DeviceState.REVOKED, DeviceState.ACTIVE]
    await world.say("bob", "ada", "is it you?")
    async with new_home(world) as new:
        assert [shown.text async for shown in new.receive()] == ["is it you?"]
        assert [sent.state async for sent in new.send("bob", "it is")] == ["sent"]
        assert (await new.whoami()).problem is None
    assert [shown.text for shown in await world.hear("bob")] == ["it is"]
    async with world.client("ada") as lost:
        with pytest.raises(LoginRefused, match="revoked"):
            await lost.login()
        with pytest.raises(LoginRefused):
            await lost.veto_recovery()


async def test_whoever_verified_the_user_is_stopped_by_another_number(world: World) -> None:
    """The account is in it, and the change says which account, and since which block."""
    async with world.client("bob") as bob:
        number = (await bob.verify("ada")).fingerprint
    await taken_over(world, 1)
    user = world.chain.user("ada")
    async with world.client("bob") as bob:
        with pytest.raises(KeyChanged) as told:
            await world.drain(bob.send("ada", "hello?"), [])
        assert f"the account is now {to_checksum(user.account)}" in told.value.message
        assert f"(block {user.former_accounts[-1].block})" in told.value.message
        assert (await bob.safety_number("ada")).fingerprint != number
        assert (await bob.verify("ada")).verified
        assert [sent.state async for sent in bob.send("ada", "hello")] == ["sent"]


async def test_whoever_reads_is_told_of_changed_keys_once(world: World) -> None:
    """In front of the first message that comes after the change; again after the next one."""
    await world.register("carol")
    async with world.client("bob") as bob:
        await bob.verify("ada")
    await world.say("ada", "bob", "before")
    assert [shown.code or shown.text for shown in await world.hear("bob")] == ["before"]
    await taken_over(world, 1)
    for text in ("it is me", "really"):
        async with new_home(world) as new:
            await world.drain(new.send("bob", text), [])
    await world.say("carol", "bob", "hello")
    told, *rest = await world.hear("bob")
    assert (told.code, told.from_, told.kind) == ("key_changed", "ada", "notice")
    assert "the account is now" in (told.notice or "")
    assert "chatchain contacts verify ada" in (told.notice or "")
    assert [shown.text for shown in rest] == ["it is me", "really", "hello"]
    async with new_home(world) as new:
        await world.drain(new.send("bob", "again"), [])
    assert [shown.code or shown.text for shown in await world.hear("bob")] == ["again"]
    async with world.client("bob") as bob:
        await bob.verify("ada")
    async with new_home(world) as new:
        await new.rotate_keys()
        await world.drain(new.send("bob", "rotated"), [])
    assert [shown.code or shown.text for shown in await world.hear("bob")] == ["key_changed", "rotated"]


async def test_a_device_that_stays_listed_cannot_log_in_any_more(world: World) -> None:
    """The account secret is another's, so no password helps; its key of the account changes nothing."""
    made = await taken_over(world)
    assert made.others == (1,)
    async with world.client("ada") as old:
        for attempt in (
            old.login,
            old.rotate_keys,
            lambda: world.drain(old.receive(), []),
            lambda: world.drain(old.send("bob", "hello?"), []),
            lambda: old.change_password("another password, then"),
        ):
            with pytest.raises(AccountKeyElsewhere, match="no password lets this home in") as told:
                await attempt()
            assert "chatchain password" not in told.value.hint
        with pytest.raises(AccountKeyElsewhere):
            await old.set_recovery_address(to_checksum(world.chain.user("bob").account))
        with pytest.raises(AccountKeyElsewhere):
            await old.veto_recovery()
        who = await old.whoami()
        assert who.problem is not None
        assert who.problem.code == "account_key_elsewhere"


async def test_too_early_not_proposed_and_another_proposed(world: World) -> None:
    """Each says what is missing and who can help; nothing is lost, and later it goes on."""
    async with world.client("new", password=None) as new:
        with pytest.raises(NotFoundError, match="nothing was begun"):
            await new.finalise_takeover()
    account = await begun(world)
    async with new_home(world) as new:
        with pytest.raises(NotFoundError, match="not proposed") as told:
            await new.finalise_takeover()
        assert "no recovery address" in told.value.hint
    await named(world, to_checksum(address_of(GUARDIAN)))
    async with new_home(world) as new:
        with pytest.raises(NotFoundError) as told:
            await new.finalise_takeover()
        assert f"`chatchain recover propose ada {account}`" in told.value.hint
        with pytest.raises(RefusedError, match="is not the one of ada") as other:
            await new.recover()
        assert "recover finalise" in other.value.hint
        with pytest.raises(AlreadyDone, match="waits to take over"):
            await new.register("ada")
    async with world.client("guard", password=None) as guard:
        await guard.propose_recovery("ada", to_checksum(world.address_of("thief")), GUARDIAN)
        async with new_home(world) as new:
            with pytest.raises(RefusedError, match="another account is proposed"):
                await new.finalise_takeover()
        await guard.propose_recovery("ada", account, GUARDIAN)
    world.now += RECOVERY_S - DAY
    async with new_home(world) as new:
        assert (await new.takeover()).state == "proposed"
        with pytest.raises(RefusedError, match=r"may take over from 2027-.* not before"):
            await new.finalise_takeover()
    world.now += DAY
    async with new_home(world) as new:
        assert (await new.finalise_takeover()).device == 2
        sent = list(world.transactions)
        again = await new.finalise_takeover()
        assert (again.device, again.others, world.transactions) == (2, (1,), sent)
    with pytest.raises(AlreadyDone, match="belongs to bob"):
        async with world.client("bob") as bob:
            await bob.finalise_takeover()


async def test_nothing_was_taken_over_in_a_home_that_a_phrase_brought_back(world: World) -> None:
    """There `finalise` has nothing to finish."""
    words: list[str] = []
    async with world.client("carol") as carol:
        await carol.register("carol", on_phrase=words.append)
    async with world.client("carol", home="new") as new:
        await new.recover(words[0])
        with pytest.raises(AlreadyDone, match="belongs to carol"):
            await new.finalise_takeover()


async def test_what_was_begun_is_told_again(world: World) -> None:
    """The same account and phrase; another name, and an account that is somebody's, are refused."""
    words: list[str] = []
    async with new_home(world) as new:
        first = await new.begin_takeover("ada")
        again = await new.begin_takeover("ada", on_phrase=words.append)
        assert (again, len(words[0].split())) == (first, 12)
        assert await new.takeover() == first
        with pytest.raises(AlreadyDone, match="recovery of ada was begun"):
            await new.begin_takeover("bob")
    async with world.client("carol") as carol:
        made: list[str] = []
        await carol.register("carol", on_phrase=made.append)
    async with world.client("other") as other:
        with pytest.raises(AlreadyDone, match="account of carol already"):
            await other.begin_takeover("ada", mnemonic=made[0])
        with pytest.raises(UnknownUser, match="registered as nobody-here"):
            await other.begin_takeover("nobody-here")
    assert not world.home("other").exists()
    async with world.client("bob") as bob:
        with pytest.raises(AlreadyDone, match="belongs to bob"):
            await bob.begin_takeover("ada")


async def test_a_phrase_that_nobody_saw_is_shown_where_a_takeover_waits(world: World) -> None:
    """Once, as in a home that is somebody's."""
    words: list[str] = []
    await begun(world)
    async with new_home(world) as new:
        assert await new.show_phrase(words.append)
    async with new_home(world) as new:
        assert not await new.show_phrase(words.append)
        assert (await new.takeover()).state == "waiting"
    [phrase] = words
    assert len(phrase.split()) == 12


async def test_the_written_phrase_is_enough_to_begin_again(world: World) -> None:
    """The home is lost while the delay runs: the phrase makes the same account, in another home."""
    words: list[str] = []
    async with world.client("ada", home="first", password=NEW_PASSWORD) as first:
        account = (await first.begin_takeover("ada", on_phrase=words.append)).account
    await named(world, to_checksum(address_of(GUARDIAN)))
    async with world.client("guard", password=None) as guard:
        await guard.propose_recovery("ada", account, GUARDIAN)
    world.now += RECOVERY_S
    async with new_home(world) as new:
        assert (await new.begin_takeover("ada", mnemonic=words[0])).account == account
        assert (await new.finalise_takeover()).account == account


class Crash(BaseException):
    """Not an Exception: nothing in between may catch it."""


@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("step", ["finaliseRecoveryFor", "addDeviceFor", "setVerifierFor", "revokeDeviceFor"])
async def test_a_takeover_goes_on_after_a_crash(
    world: World, step: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before or after any transaction: the same command ends with one device, and the lost one out."""
    await named(world, to_checksum(address_of(GUARDIAN)))
    await proposed(world)
    world.now += RECOVERY_S
    execute = world.chain.execute

    def crash(call: Any, sender: Any) -> Any:
        if world.transactions[-1] != step:
            return execute(call, sender)
        if after:
            execute(call, sender)
        raise Crash

    monkeypatch.setattr(world.chain, "execute", crash)
    new = new_home(world)
    with pytest.raises(Crash):
        await new.finalise_takeover(choose=lambda _: [1])
    await world.kill(new)
    monkeypatch.undo()
    async with new_home(world) as new:
        made = await new.finalise_takeover(choose=lambda _: [1])
        assert (made.device, made.others) == (2, ())
        await new.login()
    user = world.chain.user("ada")
    assert [device.state for device in user.devices] == [DeviceState.REVOKED, DeviceState.ACTIVE]
    assert user.epoch == 1


async def test_a_takeover_asks_for_the_lost_devices_first(world: World) -> None:
    """Whoever changes their mind there has sent nothing."""
    await named(world, to_checksum(address_of(GUARDIAN)))
    await proposed(world)
    world.now += RECOVERY_S
    sent = list(world.transactions)

    def leave(offer: Recoverable) -> list[int]:
        assert [view.device for view in offer.devices] == [1]
        raise UsageError("no")

    async with new_home(world) as new:
        with pytest.raises(UsageError):
            await new.finalise_takeover(choose=leave)
    assert world.transactions == sent
    assert world.chain.user("ada").epoch == 0
