"""What the relay does when nothing happens: deadlines, heartbeats, limits, a chain and a database that are
away.

The relay runs inside the test, with its waits made short; its database is real, its chain a few values.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, cast

import msgspec
import pytest

from chatchain.errors import ProtocolViolation, StoreUnavailable
from chatchain.model import BlockRef, Copy, Envelope, LogRow, User
from chatchain.relay import authentication, follower, housekeeping, keys, letters
from chatchain.relay.allowance import Allowance
from chatchain.relay.limits import Rate
from chatchain.transport import Peer, RelayLink, dial
from chatchain.wire import deadlines
from chatchain.wire.connection import State, frame
from chatchain.wire.intake import FRAME_GRACE
from chatchain.wire.messages import (
    Deliver,
    Failed,
    FetchKeys,
    Keys,
    Ping,
    Receive,
    Refused,
    Sponsored,
    Submit,
    Tick,
)
from chatchain.wire.messages import (
    Sponsor as SponsorRequest,
)
from tests.relay.here import Begin, Clock, Here, farewell, until
from tests.relay.test_mailbox import ADA
from tests.relay.test_sponsor import registration


@pytest.fixture
async def here(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> Here:
    """Started with short waits."""
    monkeypatch.setattr(housekeeping, "SWEEP", 0.05)
    monkeypatch.setattr(follower, "POLL", 0.05)
    monkeypatch.setattr(follower, "LOOK_GAP", 0.01)
    return await begin()


async def test_who_does_not_log_in_is_sent_away(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's time is short; who logged in may stay; who was just registered gets longer."""
    monkeypatch.setattr(deadlines, "LOGIN", 60.0)
    monkeypatch.setattr(deadlines, "SPONSORED", 120.0)
    monkeypatch.setattr(housekeeping, "SWEEP", 0.05)
    here = await begin()
    stranger, newcomer = await dial(here.named), await dial(here.named)
    member = await here.connect()
    call = registration()
    await newcomer.send(SponsorRequest(1, call.contract, call.data))
    assert isinstance(await newcomer.receive(), Sponsored)
    for peer in here.relay._peers:  # a minute goes by
        peer.deadline = peer.deadline and peer.deadline - 60.0
    assert (await farewell(stranger)).code == "login_deadline"
    await newcomer.send(SponsorRequest(2, "identity", bytes(4)))
    assert isinstance(await newcomer.receive(), Failed)
    await member.send(FetchKeys(1, (ADA,)))
    assert await member.receive() == Keys(1, ())
    await newcomer.close()
    await member.close()


def test_a_dead_peer_is_found_within_45_s_by_either_side() -> None:
    """The client at its deadline, the relay at the next look behind it, which may be under way just then.

    Both ask long before, so that who lives has time to answer.
    """
    assert deadlines.SILENCE + 2 * housekeeping.SWEEP <= 45
    assert deadlines.HEARTBEAT + 2 * housekeeping.SWEEP <= deadlines.SILENCE / 2


async def test_a_silent_peer_is_asked_and_then_dropped(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that answers the relay's Pings stays; one that answers nothing goes."""
    monkeypatch.setattr(deadlines, "SILENCE", 100.0)
    alive = await here.connect()
    (member,) = here.relay._peers
    dead = await dial(here.named)
    (stranger,) = here.relay._peers - {member}
    stranger.deadline = 0.0  # it is its silence that counts here
    for link in (alive, dead):
        assert link._beat is not None
        link._beat.cancel()
    monkeypatch.setattr(deadlines, "HEARTBEAT", 0.1)
    reading = asyncio.create_task(alive.receive())  # whoever reads answers
    for _ in range(4):
        for peer in (member, stranger):
            peer.heard -= 40.0  # so much time goes by
        before = member.heard
        await until(lambda: member.heard > before)  # noqa: B023  # it is waited for here
    await until(lambda: here.relay.health()["connections"] == 1)
    # The one that is gone never read: the Pings lie unanswered in its socket.
    pings = list(dead._connection.receive_data(await dead._reader.read(2**16)))
    assert pings
    assert all(isinstance(message, Ping) for message in pings)
    assert here.relay.health()["sessions"] == 1
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await alive.close()
    await dead.close()


async def test_who_is_kept_waiting_is_asked_and_not_taken_for_dead(here: Here) -> None:
    """Its answers cannot be heard, and its own side hears that the relay lives."""
    link = await here.connect()
    (peer,) = here.relay._peers
    peer.hold()
    for _ in range(3):
        peer.heard -= 2 * deadlines.SILENCE
        peer.asked = before = peer.asked - 2 * deadlines.SILENCE
        await until(lambda: peer.asked > before)  # noqa: B023
    assert peer.state is State.READY
    pings = list(link._connection.receive_data(await link._reader.read(2**16)))
    assert pings
    assert all(isinstance(message, Ping) for message in pings)
    peer.release()
    await link.send(FetchKeys(1, (ADA,)))
    assert await link.receive() == Keys(1, ())
    await link.close()


async def test_what_was_begun_must_be_said_in_time(here: Here) -> None:
    """However long the silence between two bytes may be; whoever finishes has all the time for the next."""
    link = await here.connect()
    peer = cast(Peer, next(iter(here.relay._peers)))
    request = frame(FetchKeys(1, (ADA,)))
    for _ in range(2):
        link._writer.write(request[:-1])
        await until(lambda: peer._frame_began > 0)
        peer._frame_began += 60.0  # on a machine that is slow
        link._writer.write(request[-1:])
        assert await link.receive() == Keys(1, ())
        assert peer._frame_began == 0
    link._writer.write(request[:-1])
    await until(lambda: peer._frame_began > 0)
    peer._frame_began -= FRAME_GRACE + 60.0
    assert (await farewell(link)).code == "too_slow"


async def test_who_comes_while_the_database_does_not_keep_up_comes_again(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once those who are there have sent as much as the relay keeps; with an answer of the database all is as
    before, also when nobody commits anything.
    """
    here = await begin(Allowance(read=1))
    gone: Future[int] = Future()
    gone.set_exception(StoreUnavailable("Gone."))
    with monkeypatch.context() as away:
        away.setattr(here.writer, "keep_time", lambda *_: gone)
        member, stranger = await here.connect(), await dial(here.named)
        await member.send(Receive(0))
        await until(lambda: here.relay.intake.shut)
        goodbye = await farewell(await dial(here.named))
        assert (goodbye.code, goodbye.retry_after_ms > 0) == ("relay_busy", True)
        await stranger.send(here.login(stranger))
        assert (await farewell(stranger)).code == "relay_busy"
        await member.send(FetchKeys(1, (ADA,)))
    assert await member.receive() == Keys(1, ())
    await until(lambda: not here.relay.intake.shut)
    await member.close()
    await (await here.connect()).close()


async def test_failed_logins_of_an_address_are_limited(begin: Begin) -> None:
    """After some the address waits, even with a right proof; right ones cost nothing."""
    here = await begin(Allowance(failed_logins=Rate(burst=3, per_second=0.001)))
    for _ in range(5):
        await (await here.connect()).close()
    for _ in range(3):
        link = await dial(here.named)
        await link.send(msgspec.structs.replace(here.login(link), login_signature=bytes(65)))
        assert (await farewell(link)).code == "login_refused"
    link = await dial(here.named)
    await link.send(here.login(link))
    goodbye = await farewell(link)
    assert goodbye.code == "limit_reached"
    assert goodbye.retry_after_ms > 0


async def test_f7_who_fails_on_purpose_keeps_no_neighbour_out(begin: Begin) -> None:
    """Failures count for a user at an address, however many come at once, and for the address only in
    masses.
    """
    few, more = Rate(burst=3, per_second=0.001), Rate(burst=8, per_second=0.001)
    here = await begin(Allowance(failed_logins=few, address_failed_logins=more))

    async def fail(uid: int) -> str:
        link = await dial(here.named)
        await link.send(msgspec.structs.replace(here.login(link), uid=uid, login_signature=bytes(65)))
        return (await farewell(link)).code

    told = await asyncio.gather(*(fail(ADA + 1) for _ in range(7)))
    assert sorted(told) == ["limit_reached"] * 4 + ["login_refused"] * 3
    for _ in range(10):
        await (await here.connect()).close()
    told = await asyncio.gather(*(fail(ADA + 2 + number) for number in range(7)))
    assert sorted(told) == ["limit_reached"] * 2 + ["login_refused"] * 5
    link = await dial(here.named)
    await link.send(here.login(link))
    assert (await farewell(link)).code == "limit_reached"


async def test_who_has_not_even_the_device_locks_nobody_out_of_it(begin: Begin) -> None:
    """A neighbour who fails in somebody's name, on and on, does not keep them from logging in."""
    here = await begin(Allowance(failed_logins=Rate(burst=3, per_second=0.001)))
    told = []
    for _ in range(5):
        link = await dial(here.named)
        proof = here.login(link)
        forged = proof.login_signature[:-2] + b"\x00" + proof.login_signature[-1:]
        await link.send(msgspec.structs.replace(proof, device_signature=forged))
        told.append((await farewell(link)).code)
    assert told == ["login_refused"] * 3 + ["limit_reached"] * 2
    await (await here.connect()).close()


async def test_who_was_cut_off_while_judged_is_not_logged_in(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that ended meanwhile is nobody's, and is not kept for ever as one that takes messages."""
    gate, users = threading.Event(), here.store.users

    def slow(uids: Sequence[int]) -> list[User]:
        assert gate.wait(60)
        return users(uids)

    monkeypatch.setattr(here.store, "users", slow)
    link = await dial(here.named)
    (peer,) = here.relay._peers
    await link.send(here.login(link))
    await until(lambda: peer.held)
    peer.abort()
    await until(lambda: not here.relay._peers)
    gate.set()
    await until(lambda: not peer.held)
    assert here.relay.letters.sessions == 0
    assert not here.relay.letters.holds(ADA, 1)
    await link.close()


async def test_failures_at_one_address_count_at_no_other(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever guesses from afar, in masses or at one account, does not keep its owner from logging in."""
    few, more = Rate(burst=2, per_second=0.001), Rate(burst=4, per_second=0.001)
    here = await begin(Allowance(failed_logins=few, address_failed_logins=more))
    at = {"address": "192.0.2.1"}
    monkeypatch.setattr("chatchain.transport._subject", lambda _: at["address"])
    told = []
    for uid in (ADA, ADA, ADA, ADA + 1, ADA + 1, ADA + 2):
        link = await dial(here.named)
        await link.send(msgspec.structs.replace(here.login(link), uid=uid, login_signature=bytes(65)))
        told.append((await farewell(link)).code)
    assert told == [*["login_refused"] * 2, "limit_reached", *["login_refused"] * 2, "limit_reached"]
    at["address"] = "192.0.2.2"
    await (await here.connect()).close()


async def test_who_was_turned_away_for_the_neighbours_has_not_failed(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the address may try again, so may everybody there, however often they tried meanwhile."""
    clock = Clock(monkeypatch, authentication)
    few, more = Rate(burst=2, per_second=0.001), Rate(burst=2, per_second=1)
    here = await begin(Allowance(failed_logins=few, address_failed_logins=more))
    for number in range(2):
        link = await dial(here.named)
        await link.send(msgspec.structs.replace(here.login(link), uid=ADA + 1 + number))
        assert (await farewell(link)).code == "login_refused"
    for _ in range(3):
        link = await dial(here.named)
        await link.send(here.login(link))
        assert (await farewell(link)).code == "limit_reached"
    clock.go_on(2)
    await (await here.connect()).close()


@pytest.mark.parametrize("limit", ["logins", "address_logins"])
async def test_logins_are_limited(begin: Begin, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an account, and from an address whoever it is; the farewell says how long to wait."""
    Clock(monkeypatch, authentication)
    few = Rate(burst=3, per_second=0.1)
    here = await begin(Allowance(logins=few) if limit == "logins" else Allowance(address_logins=few))
    for _ in range(3):
        await (await here.connect()).close()
    link = await dial(here.named)
    await link.send(here.login(link))
    goodbye = await farewell(link)
    assert goodbye.code == "limit_reached"
    assert 10_000 <= goodbye.retry_after_ms <= 10_001


async def test_who_sends_too_fast_is_refused_until_it_may_send_again(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the time to wait; what was on its way meanwhile overtakes nothing; other sessions count, too."""
    clock = Clock(monkeypatch, letters)
    here = await begin(Allowance(messages=Rate(burst=5, per_second=2)))
    link = await here.connect()
    copies = (Copy(ADA, 1, b"header"),)
    sent = [Envelope(bytes([number]) * 16, 1, ADA, 1, 1, b"body", copies) for number in range(8)]

    async def submit(link: RelayLink, envelopes: Sequence[Envelope]) -> dict[bytes, Tick | Refused]:
        answers = {}
        for envelope in envelopes:
            await link.send(Submit(envelope))
        for _ in envelopes:
            answer = await link.receive()
            assert isinstance(answer, Tick | Refused)
            answers[answer.id] = answer
        return answers

    answers = await submit(link, sent)
    assert [type(answers[envelope.id]) for envelope in sent] == [Tick] * 5 + [Refused] * 3
    refused = answers[sent[5].id]
    assert isinstance(refused, Refused)
    assert refused.code == "limit_reached"
    assert 1_000 <= refused.retry_after_ms <= 1_001
    await link.close()
    again = await here.connect()
    answers = await submit(again, sent[5:6])
    assert isinstance(answers[sent[5].id], Refused)
    clock.go_on(1.1)
    answers = await submit(again, sent[5:7])
    assert {type(answer) for answer in answers.values()} == {Tick}
    await again.close()


@pytest.mark.parametrize(("version", "hint"), [(1, "operator"), (3, "Update chatchain")])
async def test_a_relay_of_another_version_is_told_apart(
    here: Here, monkeypatch: pytest.MonkeyPatch, version: int, hint: str
) -> None:
    """At its first word; the sentence says who has to be updated."""
    monkeypatch.setattr("chatchain.relay.service.PROTOCOL_VERSION", version)
    with pytest.raises(ProtocolViolation, match=f"version {version} of the protocol, we speak 2") as met:
        await dial(here.named)
    assert hint in met.value.hint


async def test_strangers_are_looked_up_a_few_at_a_time(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they exist or not; those that were looked up before are free."""
    Clock(monkeypatch, keys)
    here = await begin(Allowance(lookups=Rate(burst=4, per_second=0.01)))
    link = await here.connect()
    for ref, uids in enumerate([(7, 8, 9), (ADA, 7, 8), (10,), (7, 8, 9, 10)]):
        await link.send(FetchKeys(ref, uids))
        assert await link.receive() == Keys(ref, ())
    await link.send(FetchKeys(9, (7, 11)))
    failed = await link.receive()
    assert isinstance(failed, Failed)
    assert failed.code == "limit_reached"
    assert 100_000 <= failed.retry_after_ms <= 100_001
    await link.close()


async def test_requests_for_keys_are_limited(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the burst they fail with the time to wait, and the connection stays."""
    Clock(monkeypatch, keys)
    link = await here.connect()
    answers = []
    for ref in range(250):
        await link.send(FetchKeys(ref, (ADA,)))
        answers.append(await link.receive())
    failed = [answer for answer in answers if isinstance(answer, Failed)]
    assert failed
    assert {answer.code for answer in failed} == {"limit_reached"}
    assert all(answer.retry_after_ms > 0 for answer in failed)
    assert isinstance(answers[0], Keys)
    await link.close()


async def test_without_the_chain_the_relay_serves_whom_it_knows(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logins go on, a wrong one is refused as ever, and health tells after a while."""
    here.chain.up = False
    await (await here.connect()).close()
    link = await dial(here.named)
    await link.send(msgspec.structs.replace(here.login(link), device_signature=bytes(65)))
    assert (await farewell(link)).code == "login_refused"
    assert here.relay.health()["ok"]
    monkeypatch.setattr(follower, "STALE", 0.0)
    assert (here.relay.health()["ok"], here.relay.health()["chain"]) == (False, False)
    monkeypatch.setattr(follower, "STALE", 60.0)
    here.chain.up = True
    looks = here.chain.looks
    await until(lambda: here.chain.looks >= looks + 3)


async def test_a_registration_that_a_reorg_took_back_ends_the_session(here: Here) -> None:
    """The user is gone from the database, and who was logged in is told."""
    link = await here.connect()
    here.chain.ada, here.chain.head = None, 2
    here.store.log.drop_from(1)
    assert (await farewell(link)).code == "login_refused"
    assert here.store.user(ADA) is None


async def test_a_recovered_account_ends_its_sessions(here: Here) -> None:
    """A raised epoch makes every earlier proof worthless."""
    link = await here.connect()
    assert here.chain.ada is not None
    here.chain.ada, here.chain.head = msgspec.structs.replace(here.chain.ada, epoch=1), 2
    row = LogRow(2, b"c" * 32, 0, 1, 1, (b"t" * 32,), b"", subject=ADA)
    here.store.log.take([row], [BlockRef(2, b"c" * 32, b"b" * 32)])
    assert (await farewell(link)).code == "login_refused"
    stored = here.store.user(ADA)
    assert stored is not None
    assert stored.epoch == 1


async def test_a_bug_ends_one_connection_and_is_reported(
    here: Here, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not the relay; and its words do not reach the client."""

    def broken(uids: object) -> Any:
        raise ZeroDivisionError("inner workings")

    link = await here.connect()
    monkeypatch.setattr(here.store, "bundles", broken)
    await link.send(FetchKeys(1, (ADA,)))
    goodbye = await farewell(link)
    assert goodbye.code == "relay_failure"
    assert "inner workings" not in goodbye.message
    monkeypatch.undo()
    await (await here.connect()).close()


async def test_a_read_that_takes_long_keeps_nothing_else_waiting(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages are stored and ticked meanwhile, and heartbeats answered; then comes what was to be read."""
    begun, go_on = threading.Event(), threading.Event()
    waiting = here.store.waiting

    def slow(*query: Any) -> Any:
        begun.set()
        assert go_on.wait(60)
        return waiting(*query)

    monkeypatch.setattr(here.store, "waiting", slow)
    envelopes = [
        Envelope(bytes([n]) * 16, 1, ADA, 1, 1, b"body", (Copy(ADA, 1, b"header"),)) for n in range(3)
    ]
    link = await here.connect()
    await link.send(Submit(envelopes[0]))
    assert await link.receive() == Tick(envelopes[0].id)
    await link.send(Receive(0))
    await until(begun.is_set)
    (peer,) = here.relay._peers
    for envelope in envelopes[1:]:
        await link.send(Submit(envelope))
        assert await link.receive() == Tick(envelope.id)
    before = peer.heard
    await link.send(Ping(7))
    await until(lambda: peer.heard > before)
    go_on.set()
    delivered = [await link.receive() for _ in envelopes]
    assert [each.delivery.id for each in delivered if isinstance(each, Deliver)] == [
        envelope.id for envelope in envelopes
    ]
    await link.close()


async def test_a_store_that_cannot_read_refuses_and_goes_on(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look-up that fails is told as a failure that may pass."""

    def away(uids: object) -> Any:
        raise StoreUnavailable("Away.")

    link = await here.connect()
    with monkeypatch.context() as patch:
        patch.setattr(here.store, "bundles", away)
        await link.send(FetchKeys(1, (ADA,)))
        failed = await link.receive()
    assert isinstance(failed, Failed)
    assert failed.code == "store_unavailable"
    assert failed.retry_after_ms > 0
    await link.send(FetchKeys(2, (ADA,)))
    assert await link.receive() == Keys(2, ())
    await link.close()
