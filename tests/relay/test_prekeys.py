"""Prekeys at a relay: real devices publish, others fetch, and the bundles are those of suite 2."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from types import MappingProxyType
from typing import Any

import msgspec
import pytest

from chatchain.crypto import prekeys, session
from chatchain.errors import BadRecord, StoreUnavailable
from chatchain.identity.keys import address_of
from chatchain.model import PrekeyBatch, PrekeyDraw, PrekeySort, Uid
from chatchain.relay.allowance import ACCOUNT_PAIRS, Allowance
from chatchain.relay.limits import REMEMBERED
from chatchain.relay.prekeys import AT_ONCE, ONE_TIME_SECONDS, Bar, PrekeyStock, read_batch
from chatchain.store.server import ServerStore
from chatchain.wire.bounds import MAX_FETCHED_DEVICES
from chatchain.wire.messages import (
    Failed,
    FetchPrekeys,
    Goodbye,
    Message,
    Prekeys,
    PrekeysLeft,
    PublishPrekeys,
    Withheld,
)
from tests.crypto.pairs import ADA, BOB, NOW, STORE
from tests.relay.stage import Account, Device, Stage

Someone = Callable[[], Account]

UPLOAD = BOB.upload(STORE)
PUBLISH = PublishPrekeys(
    1,
    1,
    prekeys.encode_signed_key(UPLOAD.signed),
    prekeys.encode_signed_key(UPLOAD.last_resort),
    tuple(map(prekeys.encode_one_time, UPLOAD.one_time)),
    tuple(map(prekeys.encode_signed_key, UPLOAD.kem_one_time)),
)


# --- alone: what is read and what is limited ----------------------------------------------------------------


class Memory:
    """A store's writer that remembers what it was asked and answers at once."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int, PrekeyBatch, int]] = []
        self.answer: tuple[int, int] | None = (50, 50)
        self.away = False
        self.draws: list[PrekeyDraw] = []
        self.asked: list[tuple[tuple[int, int], ...]] = []

    def publish_prekeys(
        self, uid: int, device: int, batch: PrekeyBatch, *, kept: int, now: int
    ) -> Future[tuple[int, int] | None]:
        self.batches.append((uid, device, batch, kept))
        return self._done(self.answer)

    def take_prekeys(self, devices: Sequence[tuple[int, int]], now: int) -> Future[list[PrekeyDraw]]:
        self.asked.append(tuple(devices))
        return self._done([draw for draw in self.draws if (draw.uid, draw.device) in devices])

    def _done(self, value: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if self.away:
            future.set_exception(StoreUnavailable("Gone."))
        else:
            future.set_result(value)
        return future


LIMITS = Allowance()
ADA_1 = 5, 1
"""A device that asks."""


def stock(looks: list[bool] | None = None) -> PrekeyStock:
    async def look() -> bool:
        return looks.pop(0) if looks else False

    return PrekeyStock(LIMITS.prekeys, LIMITS.prekeys_kept, look)


def test_kinds_ids_and_expiries_are_read_at_their_places() -> None:
    """As suite 2 writes them; the batch expires with the first of its signed keys."""
    batch = read_batch(PUBLISH, 7)
    assert (batch.version, batch.signed, batch.last_resort) == (1, PUBLISH.signed, PUBLISH.kem)
    assert batch.expires == UPLOAD.signed.expires
    x25519 = [key for key in batch.one_time if key.sort is PrekeySort.X25519]
    kem = [key for key in batch.one_time if key.sort is PrekeySort.KEM]
    assert [(key.id, key.expires, key.key) for key in x25519] == [
        (key.id, 7, encoded) for key, encoded in zip(UPLOAD.one_time, PUBLISH.one_time, strict=True)
    ]
    assert [(key.id, key.expires, key.key) for key in kem] == [
        (key.id, key.expires, encoded)
        for key, encoded in zip(UPLOAD.kem_one_time, PUBLISH.kem_one_time, strict=True)
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"signed": b"\x02" + PUBLISH.signed[1:]},
        {"kem": PUBLISH.kem_one_time[0]},
        {"kem_one_time": (PUBLISH.kem_one_time[0], PUBLISH.kem)},
        {"kem_one_time": (b"\x02" + bytes(1652),)},
        {"one_time": (bytes(36),)},
    ],
    ids=["signed", "last resort", "one-time KEM", "KEM id 0", "id 0"],
)
def test_a_key_in_the_place_of_another_is_refused(change: dict[str, Any]) -> None:
    """Its owner would be offered handshakes that fail."""
    with pytest.raises(BadRecord):
        read_batch(msgspec.structs.replace(PUBLISH, **change), 7)


def test_an_expiry_beyond_all_numbers_is_cut() -> None:
    """The database's numbers have 63 bits."""
    endless = PUBLISH.signed[:13] + b"\xff" * 8 + PUBLISH.signed[21:]
    kem = PUBLISH.kem[:13] + b"\xff" * 8 + PUBLISH.kem[21:]
    assert read_batch(msgspec.structs.replace(PUBLISH, signed=endless, kem=kem), 7).expires == 2**63 - 1


async def fetched(
    here: PrekeyStock,
    writer: Memory,
    *devices: tuple[int, int],
    by: tuple[int, int] = ADA_1,
    barred: Mapping[int, Bar] = MappingProxyType({}),
    at: float = 0.0,
) -> Prekeys:
    """What a device is answered that asks for these at this second."""
    return await here.fetch(writer, by, FetchPrekeys(4, devices), barred, NOW, at)


def drawn(uid: int, device: int) -> PrekeyDraw:
    return PrekeyDraw(uid, device, 1, b"signed", b"kem", b"")


def waits(answer: Prekeys) -> dict[tuple[int, int], int]:
    """For which devices one has to wait, and how long in ms."""
    assert {one.code for one in answer.withheld} <= {"limit_reached"}
    return {(one.uid, one.device): one.retry_after_ms for one in answer.withheld}


async def test_the_bundle_is_the_one_that_suite_2_reads() -> None:
    """Assembled here without any cryptography, it begins a session between real devices."""
    writer, bob = Memory(), BOB.party.uid
    kem, one = PUBLISH.kem_one_time[0], PUBLISH.one_time[0]
    writer.draws = [
        PrekeyDraw(bob, 1, 1, PUBLISH.signed, kem, one),
        PrekeyDraw(bob, 2, 1, PUBLISH.signed, kem, b""),
    ]
    given = await fetched(stock(), writer, (bob, 1), (bob, 2))
    assert (given.ref, given.withheld) == (4, ())
    bundle = prekeys.decode_bundle(given.bundles[0])
    assert prekeys.encode_bundle(bundle) == given.bundles[0]
    assert prekeys.decode_bundle(given.bundles[1]).one_time is None
    _, message = session.encrypt(ADA.begin(BOB, bundle), b"hello", b"")
    assert BOB.accept(STORE, ADA, message)[2] == b"hello"


async def test_prekeys_are_limited_by_pair() -> None:
    """Six at once, then one in ten minutes; other devices, of either side, are not touched."""
    here, writer = stock(), Memory()
    writer.draws = [drawn(7, 1), drawn(7, 2), drawn(8, 1)]
    for _ in range(6):
        assert (await fetched(here, writer, (7, 1))).bundles
    refused = await fetched(here, writer, (7, 1))
    assert refused.bundles == ()
    assert waits(refused) == {(7, 1): pytest.approx(600_000, abs=2)}
    for by, device in (((6, 1), (7, 1)), ((5, 2), (7, 1)), (ADA_1, (8, 1)), (ADA_1, (7, 2))):
        assert (await fetched(here, writer, device, by=by)).bundles
    assert (await fetched(here, writer, (7, 1), at=600.1)).bundles
    assert waits(await fetched(here, writer, (7, 1), at=600.2))


async def test_a_limited_pair_spoils_nothing_for_the_others_in_a_batch() -> None:
    """Nor is it asked of the database; what was withheld counts for nothing."""
    here, writer = stock(), Memory()
    writer.draws = [drawn(7, 1), drawn(7, 2), drawn(8, 1)]
    for _ in range(6):
        await fetched(here, writer, (7, 1))
    for _ in range(6):
        answer = await fetched(here, writer, (8, 1), (7, 1), (9, 1), (7, 2))
        assert [prekeys_of(each) for each in answer.bundles] == [(7, 2), (8, 1)]
        assert waits(answer) == {(7, 1): pytest.approx(600_000, abs=2)}
        assert writer.asked[-1] == ((8, 1), (9, 1), (7, 2))
    asked = len(writer.asked)
    answer = await fetched(here, writer, (8, 1), (7, 1), (7, 2))
    assert answer.bundles == ()
    assert waits(answer).keys() == {(8, 1), (7, 1), (7, 2)}
    assert len(writer.asked) == asked
    assert (await fetched(here, writer, (9, 1))).withheld == ()  # of whom nothing was ever given


def prekeys_of(bundle: bytes) -> tuple[int, int]:
    """Whose bundle it is."""
    return int.from_bytes(bundle[1:9], "big"), int.from_bytes(bundle[9:13], "big")


async def test_of_who_is_barred_nothing_is_given_and_nothing_counts() -> None:
    """Each with the reason that holds for all devices of that user; the others get theirs."""
    here, writer = stock(), Memory()
    writer.draws = [drawn(7, 1), drawn(8, 1)]
    barred = {8: Bar("not_a_member"), 9: Bar("limit_reached", 2.0)}
    for _ in range(6):
        answer = await fetched(here, writer, (8, 1), (7, 1), (9, 1), (9, 2), barred=barred, at=0.0)
        assert [prekeys_of(each) for each in answer.bundles] == [(7, 1)]
        assert answer.withheld == (
            Withheld(8, 1, "not_a_member", 0),
            Withheld(9, 1, "limit_reached", 2_001),
            Withheld(9, 2, "limit_reached", 2_001),
        )
    assert (await fetched(here, writer, (8, 1))).bundles


async def test_a_fetch_that_the_database_did_not_answer_does_not_count() -> None:
    """It took nothing off any stock."""
    here, writer = stock(), Memory()
    writer.away = True
    for _ in range(20):
        with pytest.raises(StoreUnavailable):
            await fetched(here, writer, (7, 1), (8, 1))
    writer.away = False
    assert await fetched(here, writer, (7, 1), (8, 1)) == Prekeys(4, (), ())


async def test_asking_for_many_who_are_not_there_makes_nobody_forgotten() -> None:
    """Else one account would empty a stock, with ten thousand questions between two helpings."""
    here, writer = stock(), Memory()
    writer.draws = [drawn(7, 1)]
    for _ in range(6):
        await fetched(here, writer, (7, 1))
    for first in range(100, 100 + REMEMBERED, MAX_FETCHED_DEVICES):
        nobody = [(first + number, 1) for number in range(MAX_FETCHED_DEVICES)]
        assert await fetched(here, writer, *nobody) == Prekeys(4, (), ())
    assert waits(await fetched(here, writer, (7, 1)))
    assert here._pairs._count == 1


async def test_fetching_of_very_many_makes_one_wait_and_the_relay_remember_no_more() -> None:
    """So many pairs of an account at a time, whatever a batch holds; those that count go on."""
    here, writer = stock(), Memory()
    many = [(uid, 1) for uid in range(100, 100 + ACCOUNT_PAIRS + 100)]
    writer.draws = [drawn(*device) for device in many]
    answers = [
        await fetched(here, writer, *many[start : start + MAX_FETCHED_DEVICES])
        for start in range(0, len(many), MAX_FETCHED_DEVICES)
    ]
    assert sum(len(answer.bundles) for answer in answers) == ACCOUNT_PAIRS == here._pairs._count
    assert waits(answers[-1]).keys() == set(many[ACCOUNT_PAIRS:])
    assert (await fetched(here, writer, many[0])).bundles
    assert (await fetched(here, writer, many[-1], at=600.1)).bundles


async def test_a_crowd_that_asks_for_keys_leaves_the_writer_to_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A few requests are before its thread at a time; all are answered."""
    here, writer = stock(), Memory()
    waiting: list[Future[list[PrekeyDraw]]] = []

    def slowly(devices: Sequence[tuple[int, int]], now: int) -> Future[list[PrekeyDraw]]:
        waiting.append(Future())
        return waiting[-1]

    monkeypatch.setattr(writer, "take_prekeys", slowly)
    asked = [asyncio.create_task(fetched(here, writer, (7, 1), by=(user, 1))) for user in range(100, 140)]
    answered = 0
    while answered < len(asked):
        await asyncio.sleep(0)
        assert len(waiting) - answered <= AT_ONCE
        for future in waiting[answered:]:
            future.set_result([])
        answered = len(waiting)
    assert await asyncio.gather(*asked) == [Prekeys(4, (), ())] * len(asked)


async def test_a_version_that_the_relay_does_not_know_makes_it_look_once() -> None:
    """And when it still does not know it, or the chain does not answer, the prekeys are refused."""
    writer = Memory()
    writer.answer = None
    for looks, attempts in (([True], 2), ([False], 1)):
        writer.batches.clear()
        with pytest.raises(BadRecord):
            await stock(looks).publish(writer, 5, 2, PUBLISH, NOW)
        assert len(writer.batches) == attempts
        assert looks == []
    assert [(uid, device, kept) for uid, device, _, kept in writer.batches] == [(5, 2, LIMITS.prekeys_kept)]


def test_the_limit_of_a_stock_is_the_device_s_own() -> None:
    """The relay keeps as many as a device remembers the secrets of, and as long as it signs for."""
    assert LIMITS.prekeys_kept == prekeys.MAX_ONE_TIME
    assert ONE_TIME_SECONDS == prekeys.LIFETIME


# --- a relay process ----------------------------------------------------------------------------------------


def publication(**changes: object) -> PublishPrekeys:
    """Prekeys of the right form that expire in a month, with two one-time keys of each sort."""
    now = int(time.time())

    def signed(kind: int, id: int, length: int) -> bytes:
        head = bytes([kind]) + id.to_bytes(4, "big") + now.to_bytes(8, "big")
        head += (now + 30 * 24 * 3600).to_bytes(8, "big")
        return head + secrets.token_bytes(length - len(head))

    plain = PublishPrekeys(
        3,
        1,
        signed(1, 1, 117),
        signed(3, 2, 1653),
        tuple(number.to_bytes(4, "big") + secrets.token_bytes(32) for number in (3, 4)),
        tuple(signed(2, number, 1653) for number in (5, 6)),
    )
    return msgspec.structs.replace(plain, **changes)


def ask(version: int = 1) -> PublishPrekeys:
    return PublishPrekeys(9, version, b"", b"", (), ())


def expected(account: Account, made: PublishPrekeys, kem: bytes, one_time: bytes) -> bytes:
    head = b"\x01" + account.uid.to_bytes(8, "big") + account.device.to_bytes(4, "big")
    return head + made.version.to_bytes(4, "big") + made.signed + kem + one_time


async def said(device: Device, message: Message) -> Message:
    await device.say(message)
    return await device.next()


async def test_published_prekeys_are_given_to_whoever_asks(stage: Stage, someone: Someone) -> None:
    """One of each stock at a time, until only the last-resort key is left."""
    ada, bob = someone(), someone()
    one, two = await Device(stage, ada).connect(), await Device(stage, bob).connect()
    made = publication()
    assert await said(two, ask()) == PrekeysLeft(9, 0, 0)
    assert await said(two, made) == PrekeysLeft(3, 2, 2)
    fetch = FetchPrekeys(4, ((bob.uid, 1), (bob.uid, 2)))
    for kem, one_time in (*zip(made.kem_one_time, made.one_time, strict=True), (made.kem, b"")):
        assert await said(one, fetch) == Prekeys(4, (expected(bob, made, kem, one_time),), ())
    assert await said(two, ask()) == PrekeysLeft(9, 0, 0)
    await one.close()
    await two.close()


async def test_known_and_unknown_users_are_answered_alike(stage: Stage, someone: Someone) -> None:
    """Who has published nothing, a device that is not there, and nobody: no bundle."""
    ada, bob = someone(), someone()
    one = await Device(stage, ada).connect()
    for uid in (bob.uid, ada.uid, 123_456_789_012_345):
        assert await said(one, FetchPrekeys(4, ((uid, 1), (uid, 9)))) == Prekeys(4, (), ())
    await one.close()


async def test_old_bundle_is_refused_after_its_version(stage: Stage, someone: Someone) -> None:
    """With the new record on the chain the old prekeys are gone, and publishing them again is refused."""
    ada, bob = someone(), someone()
    one, two = await Device(stage, ada).connect(), await Device(stage, bob).connect()
    assert await said(two, publication(version=2)) == Failed(
        3, "bad_record", "The prekeys are not for the version of this device that the chain holds.", 0
    )
    await said(two, publication())
    world = stage.world
    world.fund(bob.address)
    record = bob.record(world, version=2, uid=bob.uid)
    world.writer.send(world.calls.update_device(1, 2, address_of(bob.signer), record), bob.key)
    new = publication(version=2)
    assert await said(two, new) == PrekeysLeft(3, 2, 2)
    failed = await said(two, publication())
    assert isinstance(failed, Failed)
    assert failed.code == "bad_record"
    (kem, *_), (one_time, *_) = new.kem_one_time, new.one_time
    assert await said(one, FetchPrekeys(1, ((bob.uid, 1),))) == Prekeys(
        1, (expected(bob, new, kem, one_time),), ()
    )
    await one.close()
    await two.close()


async def test_a_revoked_device_leaves_no_prekeys_and_is_sent_away(stage: Stage, someone: Someone) -> None:
    """At the block of its revocation."""
    ada, bob = someone(), someone()
    one, two = await Device(stage, ada).connect(), await Device(stage, bob).connect()
    await said(two, publication())
    stage.world.fund(bob.address)
    stage.world.writer.send(stage.world.calls.revoke_device(1), bob.key)
    assert (await two.expect(Goodbye)).code == "revoked"
    assert await said(one, FetchPrekeys(1, ((bob.uid, 1),))) == Prekeys(1, (), ())
    await one.close()


async def test_one_request_is_answered_for_many_users(stage: Stage, someone: Someone) -> None:
    """Good ones among an unknown user, a revoked device and one that has to wait: each gets what it would
    have got alone.
    """
    ada, bob, carol, dave = (someone() for _ in range(4))
    one, two, three, four = [await Device(stage, who).connect() for who in (ada, bob, carol, dave)]
    of_bob, of_carol = publication(), publication()
    for device, made in ((two, of_bob), (three, of_carol), (four, publication())):
        assert await said(device, made) == PrekeysLeft(3, 2, 2)
    stage.world.fund(dave.address)
    stage.world.writer.send(stage.world.calls.revoke_device(1), dave.key)
    assert (await four.expect(Goodbye)).code == "revoked"
    nobody = 123_456_789_012_345
    wanted = ((nobody, 1), (carol.uid, 1), (dave.uid, 1), (bob.uid, 2), (bob.uid, 1))
    first = await said(one, FetchPrekeys(1, wanted))
    assert first == Prekeys(
        1,
        tuple(
            expected(who, made, made.kem_one_time[0], made.one_time[0])
            for who, made in sorted(((bob, of_bob), (carol, of_carol)), key=lambda pair: pair[0].uid)
        ),
        (),
    )
    for _ in range(5):
        assert (await said(one, FetchPrekeys(1, ((bob.uid, 1),)))) != Prekeys(1, (), ())
    second = await said(one, FetchPrekeys(2, wanted))
    assert isinstance(second, Prekeys)
    assert second.bundles == (expected(carol, of_carol, of_carol.kem_one_time[1], of_carol.one_time[1]),)
    assert waits(second).keys() == {(bob.uid, 1)}
    for device in (one, two, three, four):
        await device.close()


async def test_emptying_a_stock_takes_many_users(stage: Stage, someone: Someone) -> None:
    """One user gets six bundles of another and then has to wait; the stock is for others."""
    eve, ada, bob = someone(), someone(), someone()
    thief, one, two = [await Device(stage, who).connect() for who in (eve, ada, bob)]
    await said(two, publication())
    for _ in range(6):
        assert isinstance(await said(thief, FetchPrekeys(1, ((bob.uid, 1),))), Prekeys)
    refused = await said(thief, FetchPrekeys(2, ((bob.uid, 1),)))
    assert isinstance(refused, Prekeys)
    assert (refused.ref, refused.bundles) == (2, ())
    assert 0 < waits(refused)[bob.uid, 1] <= 600_001
    assert isinstance(await said(one, FetchPrekeys(1, ((bob.uid, 1),))), Prekeys)
    for device in (thief, one, two):
        await device.close()


async def test_fetches_at_the_same_time_get_different_keys(stage: Stage, someone: Someone) -> None:
    """Two users, one stock."""
    ada, eve, bob = someone(), someone(), someone()
    one, other, two = [await Device(stage, who).connect() for who in (ada, eve, bob)]
    made = publication()
    await said(two, made)
    fetch = FetchPrekeys(1, ((bob.uid, 1),))
    answers = await asyncio.gather(said(one, fetch), said(other, fetch))
    bundles = {answer.bundles[0] for answer in answers if isinstance(answer, Prekeys)}
    assert bundles == {
        expected(bob, made, kem, key) for kem, key in zip(made.kem_one_time, made.one_time, strict=True)
    }
    for device in (one, other, two):
        await device.close()


async def test_who_shares_a_group_is_known_as_the_chain_says(stage: Stage, someone: Someone) -> None:
    """From the block in which somebody joins to the one in which somebody leaves."""
    ada, bob, eve = someone(), someone(), someone()
    world, name = stage.world, f"choir-{ada.uid}"
    store = ServerStore(stage.database)
    for account in (ada, bob):
        world.fund(account.address)

    async def until(fellows: set[int]) -> None:
        async with asyncio.timeout(60):
            while store.fellows(ada.uid, [bob.uid, eve.uid]) != fellows:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    assert store.fellows(ada.uid, [bob.uid, eve.uid]) == set()
    world.writer.send(world.calls.create_group(name, [Uid(bob.uid)], 5000, 3600), ada.key)
    await until({bob.uid})
    view = world.view()
    view.sync()
    group = view.group_by_name(name)
    assert group is not None
    world.writer.send(world.calls.leave(group.group), bob.key)
    await until(set())
    store.close()
