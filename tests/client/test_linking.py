"""Linking a new device from an old one, in a world in memory: what each side shows, stores and may do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data

from chatchain.client.account import ACCOUNT_KEY
from chatchain.client.core import Client
from chatchain.client.views import (
    ChatSettings,
    ContactView,
    LinkAccepted,
    Linked,
    LinkRequest,
    Sent,
    Shown,
    WalletPrompt,
)
from chatchain.errors import (
    AccountKeyElsewhere,
    AlreadyDone,
    BadRecord,
    LoginRefused,
    NoAccount,
    NotAMember,
    Undecryptable,
    UnknownUser,
    UsageError,
    WrongPassword,
)
from chatchain.model import DeviceState
from chatchain.wire import messages as m
from tests.world import PASSWORD, World

NEW = "ada's second"
"""The home of the new device."""


@dataclass
class Moved:
    """A linking from its beginning to its end."""

    asked: LinkRequest
    accepted: LinkAccepted
    linked: Linked


def second(world: World, password: str = PASSWORD) -> Client:
    return world.client("ada", home=NEW, password=password)


async def begin(world: World, *, again: bool = False, password: str = PASSWORD) -> LinkRequest:
    async with second(world, password) as new:
        return await new.link("ada", again=again)


async def accept(world: World, asked: LinkRequest, history: Path | None = None) -> LinkAccepted:
    async with world.client("ada") as old:
        return await old.accept_link(asked.request, file=history)


async def finish(world: World, accepted: LinkAccepted, blob: bytes | None = None) -> Linked:
    async with second(world) as new:
        return await new.finish_link(accepted.answer, history=blob)


async def link(world: World, history: Path | None = None) -> Moved:
    asked = await begin(world)
    accepted = await accept(world, asked, history)
    blob = await asyncio.to_thread(history.read_bytes) if history is not None else None
    return Moved(asked, accepted, await finish(world, accepted, blob))


async def texts(world: World, home: str = NEW) -> list[str | None]:
    async with world.client("ada", home=home) as client:
        return [shown.text async for shown in client.receive()]


async def test_a_new_device_moves_in(world: World) -> None:
    """Both sides show one code; afterwards the new one logs in and reads what comes."""
    asked = await begin(world)
    async with world.client("ada") as old:
        offer = await old.inspect_link(asked.request)
    assert (offer.code, offer.device, offer.fingerprint, offer.added) == (
        asked.code,
        2,
        asked.fingerprint,
        False,
    )
    assert world.transactions.count("addDeviceFor") == 0
    accepted = await accept(world, asked)
    assert (accepted.code, accepted.device, accepted.state, accepted.version) == (asked.code, 2, "active", 1)
    linked = await finish(world, accepted)
    assert (linked.username, linked.device, linked.version, linked.state) == ("ada", 2, 1, "active")
    assert (linked.messages, linked.problem) == (0, None)
    async with second(world) as new:
        assert (await new.login("ada")).device == 2
    await world.say("bob", "ada", "to both")
    assert await texts(world) == ["to both"]
    assert await texts(world, "ada") == ["to both"]
    async with second(world) as new:
        assert [sent.state async for sent in new.send("bob", "from the new one")] == ["sent"]
    assert [shown.text for shown in await world.hear("bob")] == ["from the new one"]


async def test_the_account_s_key_is_not_copied(world: World) -> None:
    """There is no file of it, and what needs it says where it is; voting and rotating need it not."""
    await link(world)
    assert not (world.home(NEW) / ACCOUNT_KEY).exists()
    async with second(world) as new:
        with pytest.raises(AccountKeyElsewhere):
            await new.revoke_device(1)
        with pytest.raises(AccountKeyElsewhere):
            await new.export_keystore(world.folder / "key.json", PASSWORD)
        with pytest.raises(AccountKeyElsewhere):
            await new.change_password("another horse battery")
        assert (await new.rotate_keys()).version == 2
        assert (await new.request()).state == "open"
    assert not (world.folder / "key.json").exists()
    assert await texts(world) == []
    third = world.client("ada", home="third")
    async with third:
        request = (await third.link("ada")).request
    async with second(world) as new:
        with pytest.raises(AccountKeyElsewhere):
            await new.accept_link(request)
    assert world.transactions.count("addDeviceFor") == 1


async def test_an_account_with_ether_does_not_stop_its_linked_device(world: World) -> None:
    """It cannot send in the account's name, so it signs and the sponsor pays."""
    await link(world)
    world.ether = 10**18
    async with second(world) as new:
        assert (await new.request()).sponsored


async def test_contacts_and_history_are_handed_over(world: World, tmp_path: Path) -> None:
    """With who was verified, in order, as read; a message that comes again is not shown twice."""
    await world.say("bob", "ada", "first", "second")
    await world.hear("ada")
    await world.say("ada", "bob", "third")
    async with world.client("ada") as old:
        await old.verify("bob")
    file = tmp_path / "history"
    moved = await link(world, file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert (moved.accepted.contacts, moved.accepted.messages) == (1, 3)
    assert (moved.linked.contacts, moved.linked.messages) == (1, 3)
    async with second(world) as new:
        shown = await new.history("bob")
        assert [(one.text, one.direction) for one in shown] == [
            ("first", "in"),
            ("second", "in"),
            ("third", "out"),
        ]
        assert [(view.username, view.verified) for view in await new.contacts()] == [("bob", True)]
        assert (await new.status()).unread == 0
        assert [found.text for found in await new.search("second")] == ["second"]
    assert await texts(world) == []


async def test_the_new_device_sees_conversations_as_the_old_one_does(world: World, tmp_path: Path) -> None:
    """Edits, reactions and settings come along; what was taken back or is to disappear does not."""
    sent = await world.say("bob", "ada", "first", "secnd", "taken back")
    async with world.client("bob") as bob:
        await exhaust(bob.edit(sent[1].id, "second"))
        await exhaust(bob.delete(sent[2].id))
        await bob.profile("Bob the Builder")
        await exhaust(bob.send("ada", ["fourth"]))
    await world.hear("ada")
    async with world.client("ada") as old:
        await exhaust(old.react(sent[0].id, "👍"))
        await old.chat_settings("bob", expires=3600, off_the_record=True)
        await exhaust(old.send("bob", ["vanishing"]))
    await link(world, tmp_path / "history")
    old_view, new_view = await seen_at(world, "ada"), await seen_at(world, NEW)
    shown = [one for one in old_view[0] if not (one.deleted or one.expires_after)]
    assert [one.text for one in shown if one.kind == "text"] == ["first", "second", "fourth"]
    assert shown[0].reactions
    assert shown[1].edited
    assert new_view == (shown, *old_view[1:])


async def seen_at(world: World, home: str) -> tuple[list[Shown], ChatSettings, list[ContactView]]:
    """Ada's conversation with bob as one of her homes shows it."""
    async with world.client("ada", home=home) as client:
        shown = await client.history("bob")
        return (
            [msgspec.structs.replace(one, state=None) for one in shown],
            await client.chat_settings("bob"),
            await client.contacts(),
        )


async def exhaust(stream: AsyncIterator[Sent]) -> None:
    assert [sent.state async for sent in stream] == ["sent"]


async def test_who_is_no_member_is_told_how_to_link_all_the_same(world: World) -> None:
    """A relay keeps files for members only: nothing was done then, and without a history it works."""
    world.relay.shelf.refuse = lambda upload: m.Failed(upload.ref, "not_a_member", "Only members.", 0)
    asked = await begin(world)
    async with world.client("ada") as old:
        with pytest.raises(NotAMember, match="was not added") as told:
            await old.accept_link(asked.request, through_relay=True)
        assert "--no-history" in told.value.hint
        assert [one.device for one in await old.keys()] == [1]
        accepted = await old.accept_link(asked.request)
    assert (await finish(world, accepted)).device == 2


async def test_the_history_is_of_no_use_to_who_finds_it(world: World, tmp_path: Path) -> None:
    """It opens only as the file that the answer names; cut, altered or another file is refused."""
    await world.say("ada", "bob", "a secret that would show")
    file = tmp_path / "history"
    accepted = await accept(world, await begin(world), file)
    blob = file.read_bytes()
    assert b"secret that would show" not in blob
    for wrong in (blob[:-1], blob + b"x", blob[:100] + bytes([blob[100] ^ 1]) + blob[101:], b"x"):
        with pytest.raises(Undecryptable):
            await finish(world, accepted, wrong)
    assert (await finish(world, accepted, blob)).messages == 1


async def test_the_new_device_may_do_without_the_history(world: World, tmp_path: Path) -> None:
    """And a file that no answer speaks of is not taken."""
    await world.say("ada", "bob", "past")
    accepted = await accept(world, await begin(world), tmp_path / "history")
    async with second(world) as new:
        linked = await new.finish_link(accepted.answer, without_history=True)
        assert (linked.contacts, linked.messages) == (0, 0)
    async with world.client("ada", home="third") as third:
        bare = await accept(world, await third.link("ada"))
        with pytest.raises(UsageError):
            await third.finish_link(bare.answer, history=b"something")


async def test_an_existing_file_is_not_written_over(world: World, tmp_path: Path) -> None:
    """And nothing was sent then."""
    file = tmp_path / "history"
    file.write_text("mine")
    with pytest.raises(AlreadyDone):
        await accept(world, await begin(world), file)
    assert file.read_text() == "mine"
    assert world.transactions.count("addDeviceFor") == 0


async def test_both_halves_may_be_repeated(world: World) -> None:
    """The request stays until it is answered; the device is added once; each answer opens."""
    asked = await begin(world)
    assert await begin(world) == asked
    first = await accept(world, asked)
    async with world.client("ada") as old:
        assert (await old.inspect_link(asked.request)).added
    again = await accept(world, asked)
    assert again.tx is None
    assert again.answer != first.answer
    assert world.transactions.count("addDeviceFor") == 1
    assert (await finish(world, first)).device == 2
    with pytest.raises(NoAccount):
        await finish(world, again)
    with pytest.raises(AlreadyDone):
        await begin(world)


async def test_beginning_anew_makes_the_old_text_worthless(world: World) -> None:
    """After `again` the answer to the first request does not open."""
    first = await begin(world)
    other = await begin(world, again=True)
    assert other.code != first.code
    accepted = await accept(world, first)
    with pytest.raises(BadRecord, match="not for this request"):
        await finish(world, accepted)


async def test_another_device_meanwhile_makes_the_request_stale(world: World) -> None:
    """The number in its record is taken; asking again gives a new text."""
    asked = await begin(world)
    third = world.client("ada", home="third")
    async with third:
        other = await third.link("ada")
    await accept(world, other)
    with pytest.raises(BadRecord, match="device 2"):
        await accept(world, asked)
    fresh = await begin(world)
    assert fresh.device == 3
    assert (await finish(world, await accept(world, fresh))).device == 3


async def test_a_swapped_text_shows_another_code(world: World) -> None:
    """Eve's own device in place of the new one: the digits differ, and hers is not for this account."""
    asked = await begin(world)
    eve = world.client("ada", home="eve", password="a guess of hers")
    async with eve:
        swapped = await eve.link("ada")
    async with world.client("ada") as old:
        offer = await old.inspect_link(swapped.request)
    assert offer.code != asked.code
    async with world.client("bob") as bob:
        with pytest.raises(BadRecord, match="another account"):
            await bob.inspect_link(asked.request)


async def test_an_answer_from_another_account_is_refused(world: World) -> None:
    """Bob cannot take ada's new device for himself."""
    asked = await begin(world)
    await accept(world, asked)
    bobs = world.client("bob", home="bob's second")
    async with bobs:
        theirs = await bobs.link("bob")
    async with world.client("bob") as bob:
        foreign = await bob.accept_link(theirs.request)
    async with second(world) as new:
        with pytest.raises(BadRecord, match="another account"):
            await new.finish_link(foreign.answer)
        with pytest.raises(NoAccount):
            await new.whoami()


async def test_another_password_than_the_account_s_is_told(world: World) -> None:
    """The new device could not log in with it, so it moves in only once the right one is given."""
    wrong = "not the password at all"
    asked = await begin(world, password=wrong)
    accepted = await accept(world, asked)
    guesses = iter([wrong, "nor this", "nor that", "too late: " + PASSWORD])
    async with second(world, wrong) as new:
        with pytest.raises(WrongPassword, match="not the password of ada's account") as told:
            await new.finish_link(accepted.answer)
        with pytest.raises(WrongPassword):
            await new.finish_link(accepted.answer, account_password=lambda: next(guesses))
    assert "same answer" in told.value.hint
    assert len(list(guesses)) == 1
    tries = iter(["nor this", PASSWORD])
    async with second(world, wrong) as new:
        linked = await new.finish_link(accepted.answer, account_password=lambda: next(tries))
        assert (linked.device, linked.problem) == (2, None)
    async with second(world, wrong) as new:
        with pytest.raises(WrongPassword):
            await new.login()
    async with second(world) as new:
        assert (await new.login()).device == 2


async def test_wishes_that_cannot_be(world: World) -> None:
    """An unknown name, a home that is somebody's, texts that are none."""
    async with world.client("x", home="x") as nobody:
        with pytest.raises(UnknownUser):
            await nobody.link("nobody-at-all")
    assert not world.home("x").exists()
    async with world.client("ada") as old:
        with pytest.raises(AlreadyDone):
            await old.link("ada")
        for text in ("", "chatchain://link?new=", "hello"):
            with pytest.raises(UsageError):
                await old.inspect_link(text)
        with pytest.raises(NoAccount):
            await old.finish_link("hello")
    await begin(world)
    async with second(world) as new:
        with pytest.raises(AlreadyDone):
            await new.register("ada")
        with pytest.raises(AlreadyDone):
            await new.link("bob")
        with pytest.raises(NoAccount, match="waits to be linked"):
            await new.whoami()


async def test_a_new_password_is_taken_over_by_the_linked_device(world: World) -> None:
    """Set on the old device, typed on the new one: no transaction, and it logs in again."""
    await link(world)
    async with world.client("ada") as old:
        await old.change_password("another horse battery")
    sent = list(world.transactions)
    async with second(world) as new:
        with pytest.raises(WrongPassword):
            await new.login("ada")
    async with second(world) as new:
        await new.change_password("another horse battery")
    assert world.transactions == sent
    async with second(world, "another horse battery") as new:
        assert (await new.login("ada")).device == 2


async def test_a_revoked_device_is_sent_away_and_comes_no_more(world: World) -> None:
    """While it listens, and when it tries again; the others go on."""
    await link(world)
    async with second(world) as lost:
        await lost.login("ada")
        async with world.client("ada") as old:
            assert (await old.revoke_device(2)).state == "revoked"
        world.relay.revoked(world.chain.user("ada").uid, 2)
        with pytest.raises(LoginRefused):
            async for _ in lost.receive(wait_s=5):
                pass
    async with second(world) as lost:
        with pytest.raises(LoginRefused):
            await lost.login("ada")
    assert world.chain.user("ada").devices[1].state is DeviceState.REVOKED
    await world.say("bob", "ada", "for who is left")
    assert await texts(world, "ada") == ["for who is left"]


async def test_a_lost_account_comes_back_by_its_phrase(empty: World) -> None:
    """Every device is lost; a new home from the phrase is a device that can revoke and link."""
    phrases: list[str] = []
    async with empty.client("ada") as ada:
        await ada.register("ada", on_phrase=phrases.append)
    await empty.register("bob")
    await link(empty)
    saved = empty.client("ada", home="saved")
    async with saved:
        made = await saved.register("ada", mnemonic=phrases[0])
        assert (made.device, made.restored) == (3, True)
        for lost in (1, 2):
            assert (await saved.revoke_device(lost)).state == "revoked"
    await empty.say("bob", "ada", "welcome back")
    assert await texts(empty, "saved") == ["welcome back"]
    async with empty.client("ada", home="fourth") as fourth:
        asked = await fourth.link("ada")
    async with empty.client("ada", home="saved") as saved_again:
        assert (await saved_again.accept_link(asked.request)).device == 4


async def _linked(world: World) -> Client:
    """A second device of ada's, without the account's key."""
    accepted = await accept(world, await begin(world))
    client = second(world)
    await client.finish_link(accepted.answer)
    return client


def _signature(prompt: WalletPrompt, key: bytes) -> str:
    """What a wallet with this key gives for what it is shown, by another implementation than ours."""
    shown = encode_typed_data(full_message=json.loads(json.dumps(prompt.typed_data)))
    return "0x" + bytes(Account.from_key(key).sign_message(shown).signature).hex()


async def test_a_wallet_lets_a_device_in_where_no_device_has_the_key(world: World) -> None:
    """The linked device shows what to sign, takes the account's signature, and hands the rest over."""
    async with world.client("ada") as old:
        await old.login()
        key = old._station.account_key()
    async with await _linked(world) as here:
        async with world.client("ada", home="third") as third:
            asked = await third.link("ada")
        with pytest.raises(AccountKeyElsewhere) as told:
            await here.accept_link(asked.request)
        assert "--wallet" in told.value.hint
        prompt = await here.ask_wallet(asked.request)
        assert (prompt.device, prompt.code, prompt.state) == (3, asked.code, "waiting")
        accepted = await here.accept_link(asked.request, signature=_signature(prompt, key))
        assert (accepted.device, accepted.state) == (3, "active")
    async with world.client("ada", home="third") as third:
        assert (await third.finish_link(accepted.answer)).device == 3
        assert (await third.login()).device == 3


async def test_signatures_that_let_nobody_in(world: World) -> None:
    """Another's, one over another request, an old one, none at all: nothing is sent."""
    async with world.client("ada") as old:
        await old.login()
        key = old._station.account_key()
    async with await _linked(world) as here:
        async with world.client("ada", home="third") as third:
            asked = await third.link("ada")
        sent = list(world.transactions)
        with pytest.raises(UsageError, match="No wallet was asked"):
            await here.accept_link(asked.request, signature="0x" + "11" * 65)
        prompt = await here.ask_wallet(asked.request)
        good = _signature(prompt, key)
        for bad in ("", "hello", good[:-2], good + "00", "0x" + "00" * 3000):
            with pytest.raises(UsageError, match="not the signature of an account"):
                await here.accept_link(asked.request, signature=bad)
        with pytest.raises(UsageError, match="not the signature of the account"):
            await here.accept_link(asked.request, signature=_signature(prompt, b"\x01" * 32))
        with pytest.raises(UsageError):
            await here.accept_link(asked.request, signature="0x" + "00" * 65)
        async with world.client("ada", home="third") as third:
            other = await third.link("ada", again=True)
        with pytest.raises(UsageError, match="No wallet was asked"):
            await here.accept_link(other.request, signature=good)
        uid = world.chain.user("ada").uid
        world.chain.nonces[uid] = world.chain.nonces.get(uid, 0) + 1
        with pytest.raises(UsageError, match="signed something else"):
            await here.accept_link(asked.request, signature=good)
        prompt = await here.ask_wallet(asked.request)
        world.now += 3601
        with pytest.raises(UsageError, match="is over"):
            await here.accept_link(asked.request, signature=_signature(prompt, key))
    assert world.transactions == sent


async def test_a_wallet_that_is_a_contract_judges_its_signature_itself(world: World) -> None:
    """ERC-1271: of any length, also none, as its owners signed it; what it does not accept is not sent."""
    ada = world.chain.user("ada")
    digests: list[bytes] = []

    def judge(digest: bytes, signature: bytes) -> bool:
        digests.append(digest)
        return signature in (b"", b"two owners" * 20)

    async with await _linked(world) as here:
        world.chain.wallets[ada.account] = judge
        for number, given in ((3, b"two owners" * 20), (4, b"")):
            async with world.client("ada", home=f"device{number}") as new:
                asked = await new.link("ada")
            prompt = await here.ask_wallet(asked.request)
            sent = list(world.transactions)
            for bad in ("0x1234", "0x" + "11" * 65, _signature(prompt, b"\x01" * 32)):
                with pytest.raises(UsageError, match="does not accept this signature"):
                    await here.accept_link(asked.request, signature=bad)
            assert world.transactions == sent
            accepted = await here.accept_link(asked.request, signature="0x" + given.hex())
            assert (accepted.device, accepted.state) == (number, "active")
            async with world.client("ada", home=f"device{number}") as new:
                assert (await new.finish_link(accepted.answer)).device == number
            assert len(set(digests)) == number - 2, "what the wallet judged is what the registry asks about"


async def test_a_key_that_has_become_a_contract_too_still_signs(world: World) -> None:
    """As with EIP-7702: the key's own signature counts, whatever the code would say."""
    async with world.client("ada") as old:
        await old.login()
        key = old._station.account_key()
    async with await _linked(world) as here:
        async with world.client("ada", home="third") as third:
            asked = await third.link("ada")
        signature = _signature(await here.ask_wallet(asked.request), key)
        world.chain.wallets[world.chain.user("ada").account] = lambda _, given: False
        assert (await here.accept_link(asked.request, signature=signature)).device == 3
