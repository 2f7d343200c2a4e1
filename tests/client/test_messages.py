"""Sending and receiving: states, order, once on the screen, offline, limits of the input."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from functools import partial

import pytest

from chatchain.client import outbox
from chatchain.client.core import Client
from chatchain.client.views import Sent
from chatchain.errors import (
    BadText,
    CertificateMismatch,
    ChainUnreachable,
    ChatchainError,
    LoginRefused,
    MalformedUid,
    NetworkError,
    NotAMember,
    NoTick,
    RefusedError,
    RelayUnreachable,
    TooLarge,
    UnknownUser,
    UsageError,
    WrongPassword,
)
from chatchain.model import MAX_TEXT_BYTES, RELAYS_WORD, Delivery, User
from chatchain.wire.messages import Refused, Submit
from tests.world import World


async def test_a_line_arrives_and_is_delivered(world: World) -> None:
    """One tick after the commit, two after the other side has stored it, and it is shown once."""
    (sent,) = await world.say("ada", "bob", "hello bob")
    assert (sent.to, sent.state, sent.error) == ("bob", "sent", None)
    (shown,) = await world.hear("bob")
    assert (shown.id, shown.kind, shown.from_, shown.text, shown.time) == (
        sent.id,
        "text",
        "ada",
        "hello bob",
        sent.time,
    )
    assert await world.hear("bob") == []
    assert await world.hear("ada") == []
    async with world.client("ada") as ada:
        (kept,) = await ada.history("bob")
    assert (kept.direction, kept.state, kept.to, kept.text) == ("out", "delivered", "bob", "hello bob")


async def test_reading_history_tells_the_sender(world: World) -> None:
    """Who looks at the conversation has read it; the sender learns when both connect next."""
    await world.say("ada", "bob", "hello")
    await world.hear("bob")
    async with world.client("bob") as bob:
        (shown,) = await bob.history("ada")
        assert (shown.direction, shown.state) == ("in", "received")
        assert (await bob.status()).unread == 0
        await bob.login()
    await world.hear("ada")
    async with world.client("ada") as ada:
        assert [kept.state for kept in await ada.history("bob")] == ["read"]


async def test_what_was_shown_is_not_unread(world: World) -> None:
    """`receive` shows a message, so nothing is left to read; only `history` tells the sender of reading."""
    await world.say("ada", "bob", "one", "two")
    await world.hear("bob", count=1)
    async with world.client("bob") as bob:
        await bob.login()
        [shown] = [one async for one in bob.receive()]
        assert (shown.text, (await bob.status()).unread) == ("two", 0)
    await world.hear("ada")
    async with world.client("ada") as ada:
        assert {kept.state for kept in await ada.history("bob")} == {"delivered"}


async def test_many_lines_keep_their_order(world: World) -> None:
    """A thousand lines through one send arrive all, in order, each once."""
    lines = [f"line {number}" for number in range(1000)]
    sent = await world.say("ada", "bob", *lines)
    assert [one.state for one in sent] == ["sent"] * 1000
    shown = await world.hear("bob", wait_s=1)
    assert [one.text for one in shown] == lines
    assert [one.id for one in shown] == [one.id for one in sent]


async def test_a_slow_stream_is_sent_as_it_comes(world: World) -> None:
    """A line from an asynchronous source is ticked before the next one exists."""
    seen: list[Sent] = []

    def stored_more_than(count: int) -> bool:
        return len(world.relay.stored) > count

    async def typed() -> AsyncIterator[str]:
        for number in range(3):
            assert len(world.relay.stored) == number
            yield f"line {number}"
            await world.until(partial(stored_more_than, number))

    async with world.client("ada") as ada:
        seen += [sent async for sent in ada.send("bob", typed())]
    assert [sent.state for sent in seen] == ["sent"] * 3


async def test_both_directions_on_one_client(world: World) -> None:
    """A conversation over two open clients, each following while it sends."""
    async with world.client("ada") as ada, world.client("bob") as bob:
        following = ada.receive(follow=True)
        for number in range(3):
            assert [sent.state async for sent in bob.send("ada", f"to ada {number}")] == ["sent"]
            assert (await anext(following)).text == f"to ada {number}"
            assert [sent.state async for sent in ada.send("bob", f"to bob {number}")] == ["sent"]
        shown = [one async for one in bob.receive(count=3)]
        assert [one.text for one in shown] == ["to bob 0", "to bob 1", "to bob 2"]
        assert [one async for one in bob.receive()] == []


async def test_receive_again_on_the_same_client(world: World) -> None:
    """What arrives between two calls of `receive` is shown by the second."""
    async with world.client("bob") as bob:
        assert [one async for one in bob.receive()] == []
        await world.say("ada", "bob", "later")
        assert [one.text async for one in bob.receive(wait_s=5)] == ["later"]


async def test_receive_stops_at_count_and_loses_nothing(world: World) -> None:
    """What lies behind the count is shown by the next call, in order."""
    await world.say("ada", "bob", *(str(number) for number in range(10)))
    assert [one.text for one in await world.hear("bob", count=3)] == ["0", "1", "2"]
    assert [one.text for one in await world.hear("bob", count=1)] == ["3"]
    assert [one.text for one in await world.hear("bob")] == ["4", "5", "6", "7", "8", "9"]


async def test_names_ids_and_accounts_mean_the_same_user(world: World) -> None:
    """A name in any case, @name, the 15 digits and the account all reach bob."""
    bob = world.chain.user("bob")
    for name in (
        "bob",
        "BOB",
        "@bob",
        str(bob.uid),
        f"{str(bob.uid)[:5]} {str(bob.uid)[5:]}",
        "0x" + bob.account.hex(),
    ):
        (sent,) = await world.say("ada", name, "hello")
        assert sent.to == "bob", name


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("carol", UnknownUser),
        ("100000000000001", MalformedUid),
        ("12345", MalformedUid),
        ("#bob", UsageError),
        ("ada", UsageError),
        ("0x" + "11" * 20, UnknownUser),
    ],
)
async def test_nobody_there_stores_nothing(world: World, name: str, error: type[Exception]) -> None:
    """A recipient that does not exist, or is oneself, is refused before anything is kept."""
    with pytest.raises(error):
        await world.say("ada", name, "hello")
    async with world.client("ada") as ada:
        assert (await ada.status()).queued == 0
    assert world.relay.submitted == []


@pytest.mark.parametrize(
    ("text", "error"),
    [("", BadText), (" \n\t", BadText), ("x" * (MAX_TEXT_BYTES + 1), TooLarge), ("\udcff", BadText)],
)
async def test_texts_that_cannot_be_sent(world: World, text: str, error: type[Exception]) -> None:
    """Empty, too long by one byte, or not text: refused, nothing stored, nothing left."""
    with pytest.raises(error):
        await world.say("ada", "bob", text)
    assert world.relay.submitted == []


async def test_longest_text_goes_through(world: World) -> None:
    """Exactly 64 KiB arrive whole."""
    text = "ä" * (MAX_TEXT_BYTES // 2)
    assert [sent.state for sent in await world.say("ada", "bob", text)] == ["sent"]
    assert [shown.text for shown in await world.hear("bob")] == [text]


async def test_bad_line_comes_after_the_lines_before_it(world: World) -> None:
    """In a stream of lines those before a bad one are sent, those after are not, and the error is told."""
    sent: list[Sent] = []
    async with world.client("ada") as ada:
        with pytest.raises(TooLarge):
            await world.drain(ada.send("bob", ["one", "two", "x" * (MAX_TEXT_BYTES + 1), "four"]), sent)
    assert [one.state for one in sent] == ["sent", "sent"]
    assert [shown.text for shown in await world.hear("bob")] == ["one", "two"]


async def test_relay_away_keeps_the_message_queued(world: World) -> None:
    """Without a relay the message is queued with the reason, and the next command that connects sends it."""
    world.relay.up = False
    seen: list[Sent] = []
    async with world.client("ada") as ada:
        with pytest.raises(RelayUnreachable):
            await world.drain(ada.send("bob", "hello", wait_s=0.3), seen)
    assert [(sent.state, sent.error.code if sent.error else "") for sent in seen] == [
        ("queued", "relay_unreachable")
    ]
    world.relay.up = True
    async with world.client("ada") as ada:
        assert (await ada.status()).queued == 1
        await ada.login()
        assert (await ada.status()).queued == 0
    (shown,) = await world.hear("bob")
    assert (shown.text, shown.id) == ("hello", seen[0].id)


async def test_relay_that_comes_back_in_time_gets_the_message(world: World) -> None:
    """A relay that restarts within the ten seconds is found again by the same command."""
    world.relay.up = False

    async def restart() -> None:
        await asyncio.sleep(0.3)
        world.relay.up = True

    task = asyncio.create_task(restart())
    assert [sent.state for sent in await world.say("ada", "bob", "hello")] == ["sent"]
    await task


async def test_link_cut_while_sending_is_made_again(world: World) -> None:
    """A link cut in the middle of a thousand lines costs no line and doubles none on the screen."""
    texts = [str(number) for number in range(300)]
    async with world.client("ada") as ada:
        sent = []
        async for one in ada.send("bob", texts):
            sent.append(one)
            if len(sent) in (50, 120):
                world.relay.cut()
    assert [one.state for one in sent] == ["sent"] * 300
    assert [shown.text for shown in await world.hear("bob", wait_s=1)] == texts


async def test_no_tick_is_said(world: World) -> None:
    """A relay that keeps silent leaves the message queued and the command failing with NoTick."""
    world.relay.deaf = True
    seen: list[Sent] = []
    async with world.client("ada") as ada:
        with pytest.raises(NoTick) as told:
            await world.drain(ada.send("bob", "hello", wait_s=0.2), seen)
    assert (seen[0].state, told.value.exit_code) == ("queued", 4)


async def test_earlier_messages_go_first(world: World) -> None:
    """What an earlier run left is sent before what is new."""
    world.relay.up = False
    async with world.client("ada") as ada:
        with pytest.raises(RelayUnreachable):
            await world.drain(ada.send("bob", ["one", "two"], wait_s=0.05), [])
    world.relay.up = True
    await world.say("ada", "bob", "three")
    assert [shown.text for shown in await world.hear("bob")] == ["one", "two", "three"]


async def test_refused_for_good_is_dropped(world: World) -> None:
    """The relay's final no makes the message dropped, with the reason, and it is not tried again."""

    def no(submit: Submit) -> Refused:
        return Refused(submit.envelope.id, "not_a_member", "Only members.", 0)

    world.relay.refuse = no
    seen: list[Sent] = []
    async with world.client("ada") as ada:
        with pytest.raises(NotAMember):
            await world.drain(ada.send("bob", "hello"), seen)
        assert [(sent.state, sent.error and sent.error.code) for sent in seen] == [
            ("dropped", "not_a_member")
        ]
        assert [kept.state for kept in await ada.history("bob")] == ["dropped"]
    tried = len(world.relay.submitted)
    async with world.client("ada") as ada:
        await ada.login()
    assert len(world.relay.submitted) == tried


async def test_refused_for_now_is_tried_again(world: World) -> None:
    """A relay that takes nothing for a while is waited for, and order is kept."""
    refusals = iter(range(4))

    def busy(submit: Submit) -> Refused | None:
        if next(refusals, None) is None:
            return None
        return Refused(submit.envelope.id, "limit_reached", "Slow down.", 50)

    world.relay.refuse = busy
    assert [sent.state for sent in await world.say("ada", "bob", "1", "2", "3", "4")] == ["sent"] * 4
    assert [shown.text for shown in await world.hear("bob")] == ["1", "2", "3", "4"]


async def test_what_is_refused_for_long_leaves_in_the_same_session_and_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for it any more, but what is written to the same person meanwhile does not overtake it."""
    monkeypatch.setattr(outbox, "LONGEST_PAUSE_S", 0.3)
    await world.register("eve")
    found = world.chain.fold.user_by_name("bob")
    assert found is not None
    away = True

    def busy(submit: Submit) -> Refused | None:
        if away and submit.envelope.recipient == found.uid:
            return Refused(submit.envelope.id, "store_unavailable", "Not now.", 10)
        return None

    world.relay.refuse = busy
    seen: list[Sent] = []
    async with world.client("ada") as ada:
        with pytest.raises(NetworkError):
            await world.drain(ada.send("bob", "1"), seen)
        away = False
        with pytest.raises(NetworkError):
            await world.drain(ada.send("bob", "2"), seen)
        await world.drain(ada.send("eve", "at once"), seen)
        assert [sent.state for sent in seen] == ["queued", "queued", "sent"]
        async with asyncio.timeout(60):
            while (await ada.status()).queued:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    assert [shown.text for shown in await world.hear("bob")] == ["1", "2"]


async def test_a_recipient_without_keys_waits_for_them(world: World) -> None:
    """Somebody whose keys are nowhere gets the message once they have logged in."""
    world.relay.prekeys.clear()
    seen: list[Sent] = []
    async with world.client("ada") as ada:
        with pytest.raises(RefusedError):
            await world.drain(ada.send("bob", "hello", wait_s=0.3), seen)
    assert [sent.state for sent in seen] == ["queued"]
    async with world.client("bob") as bob:
        await bob.login()
    async with world.client("ada") as ada:
        await ada.login()
    assert [shown.text for shown in await world.hear("bob")] == ["hello"]


async def test_wrong_password_changes_nothing(world: World) -> None:
    """The vault does not open, nothing connects."""
    logins = world.relay.logins
    async with world.client("ada", password="not the password") as ada:
        with pytest.raises(WrongPassword):
            await world.drain(ada.send("bob", "hello"), [])
    assert world.relay.logins == logins


async def test_chain_away_keeps_nothing_for_a_stranger(world: World) -> None:
    """Who a name belongs to is the chain's word; a home that has none says that nothing was kept."""
    world.chain.up = False
    with pytest.raises(ChainUnreachable) as refused:
        await world.say("ada", "bob", "hello")
    assert "Nothing was kept" in refused.value.hint
    world.chain.up = True
    async with world.client("ada") as ada:
        assert (await ada.status()).queued == 0


async def test_chain_away_keeps_what_is_written_to_somebody_known(world: World) -> None:
    """It is queued and not sealed, is said to be kept, and leaves when the chain is back."""
    await world.say("ada", "bob", "first")
    world.chain.up = False
    kept: list[Sent] = []
    async with world.client("ada") as ada:
        with pytest.raises(ChainUnreachable) as told:
            await world.drain(ada.send("@Bob", ["second", "third"]), kept)
        assert "kept" in told.value.hint
        with pytest.raises(TooLarge):
            await world.drain(ada.send("bob", ["fourth", "x" * (MAX_TEXT_BYTES + 1), "never"]), kept)
        waiting = world.stores[-1].pending()
        assert [item.envelope for item in waiting] == [None] * 3
    assert [(one.to, one.state, one.error and one.error.code) for one in kept] == [
        ("bob", "queued", "chain_unreachable")
    ] * 3
    world.chain.up = True
    async with world.client("ada") as ada:
        await ada.login()
        assert (await ada.status()).queued == 0
    assert [one.text for one in await world.hear("bob")] == ["first", "second", "third", "fourth"]


async def test_what_was_kept_for_changed_keys_does_not_leave(world: World) -> None:
    """Without the chain nobody can tell that compared keys have changed; the session that would send can."""
    async with world.client("ada") as ada:
        await ada.verify("bob")
        world.chain.up = False
        with pytest.raises(ChainUnreachable):
            await world.drain(ada.send("bob", "for the old keys"), [])
    world.chain.up = True
    async with world.client("bob") as bob:
        await bob.rotate_keys()
    async with world.client("ada") as ada:
        await ada.login()
        assert (await ada.status()).queued == 1
    assert await world.hear("bob") == []


async def test_wrong_certificate_is_a_hard_stop(world: World) -> None:
    """A relay with another key than the chain's ends the command at once, and nothing is stored."""

    async def dial(relays: object) -> None:
        raise CertificateMismatch("Two fingerprints.")

    world.relay.dial = dial  # type: ignore[assignment,method-assign]  # somebody in the middle
    with pytest.raises(CertificateMismatch):
        await world.say("ada", "bob", "hello")
    async with world.client("ada") as ada:
        assert (await ada.status()).queued == 0


async def test_only_members_message_in_a_closed_network(closed: World) -> None:
    """Under policy vote a newcomer can neither send nor be sent to, before anything leaves."""
    await closed.register("carol")
    with pytest.raises(NotAMember):
        await closed.say("carol", "ada", "let me in")
    with pytest.raises(NotAMember):
        await closed.say("ada", "carol", "hello")
    assert closed.relay.submitted == []


async def test_offline_history_needs_neither_chain_nor_relay(world: World) -> None:
    """What is stored can be read with everything down."""
    await world.say("ada", "bob", "hello")
    world.chain.up = world.relay.up = False
    async with world.client("ada") as ada:
        assert [kept.text for kept in await ada.history("bob")] == ["hello"]
        assert [kept.text for kept in await ada.search("ell")] == ["hello"]
        assert [kept.text for kept in await ada.search("hel\0llo")] == ["hello"]


async def test_history_pages_by_id(world: World) -> None:
    """`before` names the oldest message that was seen."""
    await world.say("ada", "bob", *(str(number) for number in range(6)))
    async with world.client("ada") as ada:
        page = await ada.history("bob", limit=2)
        assert [one.text for one in page] == ["4", "5"]
        assert [one.text for one in await ada.history("bob", limit=3, before=page[0].id)] == ["1", "2", "3"]
        with pytest.raises(UsageError):
            await ada.history("bob", before="not an id")


async def test_tick_is_told_before_the_next_line_is_typed(world: World) -> None:
    """Who types line after line sees each one's tick, although the next line is not there yet."""
    lines: asyncio.Queue[str | None] = asyncio.Queue()

    async def typed() -> AsyncIterator[str]:
        while (line := await lines.get()) is not None:
            yield line

    async with world.client("ada") as ada:
        stream = ada.send("bob", typed())
        for number in range(3):
            lines.put_nowait(f"line {number}")
            assert (await anext(stream)).state == "sent"
        lines.put_nowait(None)
        assert [sent async for sent in stream] == []


async def test_failing_source_of_lines_is_told(world: World) -> None:
    """What was read before a source broke is sent, and its error is not lost."""

    async def broken() -> AsyncIterator[str]:
        yield "one"
        raise BadText("Line 2 is not UTF-8.")

    sent = []
    async with world.client("ada") as ada:
        stream = ada.send("bob", broken())
        sent.append((await anext(stream)).state)
        with pytest.raises(BadText, match="Line 2"):
            await anext(stream)
    assert sent == ["sent"]
    assert [shown.text for shown in await world.hear("bob")] == ["one"]


async def test_following_ends_when_the_device_is_taken_over_or_revoked(world: World) -> None:
    """A session that another one of the same device replaced does not fight for its place."""
    import shutil

    shutil.copytree(world.home("bob"), world.home("copy"))
    async with world.client("bob") as bob:
        following = asyncio.create_task(_follow(bob))
        await world.until(lambda: world.relay.logins == 3)
        async with world.client("bob", home="copy") as copy:
            await copy.login()
            with pytest.raises(LoginRefused, match="another connection"):
                await following


async def _follow(client: Client) -> list[str | None]:
    return [shown.text async for shown in client.receive(follow=True)]


async def test_following_survives_relay_and_chain_going_away(world: World) -> None:
    """`--follow` connects again by itself; a relay that was never there is an error at once."""
    async with world.client("bob") as bob:
        stream = bob.receive(follow=True)
        await world.say("ada", "bob", "one")
        assert (await anext(stream)).text == "one"
        world.relay.up = False
        world.relay.cut()
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.3)
        world.relay.up = True
        await world.say("ada", "bob", "two")
        assert (await waiting).text == "two"
    # It was not asked for more, so the last one may not have reached the screen: it is shown again.
    assert [shown.text for shown in await world.hear("bob")] == ["two"]
    world.relay.up = False
    async with world.client("bob") as bob:
        with pytest.raises(RelayUnreachable):
            await anext(bob.receive(follow=True))


async def test_an_outage_is_told_and_what_waited_is_sent_after_it(world: World) -> None:
    """Whoever follows hears once that the connection is gone and once that it is back; nothing is written
    twice.
    """
    heard: list[str] = []

    def outage(reason: ChatchainError | None) -> None:
        heard.append(reason.code if reason is not None else "back")

    before = world.relay.logins
    async with world.client("bob") as bob:
        following = asyncio.create_task(world.drain(bob.receive(follow=True, outage=outage), []))
        await world.until(lambda: world.relay.logins > before)
        world.relay.up = False
        world.relay.cut()
        await world.until(lambda: heard != [])
        with pytest.raises(NetworkError):
            await world.drain(bob.send("ada", "written offline", wait_s=0.05), [])
        assert heard == [NetworkError.code]
        world.relay.up = True
        await world.until(lambda: len(heard) == 2)
        assert heard[1] == "back"
        await world.until(lambda: len(world.relay.rows) == 1)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    assert [shown.text for shown in await world.hear("ada")] == ["written offline"]


# --- what nobody fetched ------------------------------------------------------------------------------------


async def test_what_nobody_fetched_in_time_is_dropped(world: World) -> None:
    """The sender is told by the relay, and it shows in the history with the reason."""
    (sent,) = await world.say("ada", "bob", "too late")
    assert sent.state == "sent"
    world.relay.expire()
    assert await world.hear("ada") == []
    assert world.relay.rows == {}
    async with world.client("ada") as ada:
        (shown,) = await ada.history("bob")
    assert (shown.state, shown.code) == ("dropped", "expired")
    assert await world.hear("bob") == []


async def test_a_receipt_counts_more_than_the_relay_s_word(world: World) -> None:
    """What was delivered is not dropped any more, and what the relay calls dropped may turn out delivered."""
    await world.say("ada", "bob", "first", "second")
    ada, bob = world.chain.user("ada"), world.chain.user("bob")
    ids = [submit.envelope.id for submit in world.relay.submitted]

    def word(of: User, *messages: bytes) -> Delivery:
        return Delivery(0, os.urandom(16), RELAYS_WORD, of.uid, 1, ada.uid, 1, b"", b"".join(messages))

    async def states() -> list[tuple[str | None, str | None]]:
        async with world.client("ada") as client:
            return [(shown.state, shown.code) for shown in await client.history("bob")]

    world.relay.inject(ada, word(ada, *ids))
    await world.hear("ada")
    assert await states() == [("sent", None)] * 2, "they were to somebody else"
    world.relay.inject(ada, word(bob, ids[0], b"cut short"))
    await world.hear("ada")
    assert await states() == [("dropped", "expired"), ("sent", None)]
    assert [shown.text for shown in await world.hear("bob")] == ["first", "second"]
    await world.hear("ada")
    assert await states() == [("delivered", None)] * 2
    world.relay.inject(ada, word(bob, *ids))
    await world.hear("ada")
    assert await states() == [("delivered", None)] * 2
