"""No message overtakes one that was refused for now: alone, and through a relay."""

from __future__ import annotations

import msgspec
import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from chatchain.model import BlockRef, Copy, Envelope, LogRow
from chatchain.relay import allowance as allowances
from chatchain.relay import letters
from chatchain.relay.allowance import Allowance
from chatchain.relay.limits import Rate
from chatchain.relay.order import ASK_AGAIN_MS, EVERYBODY, IN_IGNORANCE, MOST, Order
from chatchain.relay.quota import Quota
from chatchain.transport import RelayLink
from chatchain.wire.messages import Deliver, Receive, Refused, Submit, Tick
from tests.relay.here import Begin, Clock, until
from tests.relay.test_mailbox import ADA

BOB, EVE = 7, 8


def behind(id: bytes, retry_after_ms: int = 1_000) -> Refused:
    return Refused(id, "relay_behind", "Not yet.", retry_after_ms)


def test_what_is_under_way_is_refused_until_what_was_refused_comes_again() -> None:
    """To the same recipient, with the time that is left; others are not kept waiting."""
    order = Order()
    assert order.overtakes(BOB, b"1", 0.0) is None
    order.refused(BOB, behind(b"1"), 0.0)
    assert order.overtakes(BOB, b"2", 0.5) == behind(b"2", 501)
    assert order.overtakes(BOB, b"3", 30.0) == behind(b"3", ASK_AGAIN_MS)  # a line may be slow
    assert order.overtakes(EVE, b"4", 30.0) is None
    order.came(b"1")
    assert order.overtakes(BOB, b"1", 30.0) is None
    assert order.overtakes(BOB, b"2", 30.0) is None
    assert not order.owed


def test_what_had_nothing_to_do_with_a_recipient_holds_for_all() -> None:
    """The sender was too fast, or the database away."""
    order = Order()
    order.refused(EVERYBODY, behind(b"1"), 0.0)
    assert order.overtakes(BOB, b"2", 0.0) is not None
    assert order.overtakes(EVE, b"3", 0.0) is not None
    order.came(b"1")
    assert order.overtakes(EVE, b"3", 0.0) is None


def test_who_repeats_nothing_is_taken_at_the_second_try() -> None:
    """Any of what was refused shows that the client has heard; and at some time all of it is forgotten."""
    order = Order()
    order.refused(BOB, behind(b"1"), 0.0)
    assert order.overtakes(BOB, b"2", 5.0) is not None
    order.came(b"2")
    assert order.overtakes(BOB, b"2", 5.1) is None
    order.refused(BOB, behind(b"3"), 10.0)
    assert order.overtakes(BOB, b"4", 10.0 + IN_IGNORANCE - 1) is not None
    assert order.overtakes(BOB, b"5", 10.0 + IN_IGNORANCE) is None
    assert not order.owed


def test_who_goes_on_and_on_costs_no_more_memory() -> None:
    """The earliest ids are kept: these come again first."""
    order = Order()
    for number in range(2 * MOST):
        order.refused(BOB, behind(b"%d" % number), 0.0)
        order.overtakes(BOB, b"x%d" % number, 0.0)
    assert len(order.owed[BOB].ids) == MOST
    order.came(b"0")
    assert not order.owed


# --- through a relay ----------------------------------------------------------------------------------------


def envelope(number: int, body: bytes = b"body", version: int = 1) -> Envelope:
    return Envelope(bytes([number]) * 16, 1, ADA, version, version, body, (Copy(ADA, 1, b"header"),))


async def told(link: RelayLink, sent: Envelope) -> str:
    """What the relay answers: its code, or that it ticks."""
    await link.send(Submit(sent))
    answer = await link.receive()
    assert isinstance(answer, Tick | Refused), answer
    assert answer.id == sent.id
    return answer.code if isinstance(answer, Refused) else "tick"


async def arrived(link: RelayLink, count: int) -> list[int]:
    """The numbers of so many messages, in the order of their delivery."""
    await link.send(Receive(0))
    numbers = []
    for _ in range(count):
        deliver = await link.receive()
        assert isinstance(deliver, Deliver)
        numbers.append(deliver.delivery.id[0])
    return numbers


async def test_a_relay_that_catches_up_lets_nothing_overtake(begin: Begin) -> None:
    """The second message finds the block that the first did not."""
    here = await begin()
    link = await here.connect()
    first, second = envelope(1, version=2), envelope(2, version=2)
    assert await told(link, first) == "relay_behind"
    assert here.chain.ada is not None
    here.chain.ada, here.chain.head = msgspec.structs.replace(here.chain.ada, device_list_version=2), 2
    row = LogRow(2, b"c" * 32, 0, 1, 1, (b"t" * 32,), b"", subject=ADA)
    here.store.log.take([row], [BlockRef(2, b"c" * 32, b"b" * 32)])
    assert await told(link, second) == "relay_behind"
    assert await told(link, first) == "tick"
    assert await told(link, second) == "tick"
    assert await arrived(link, 2) == [1, 2]
    await link.close()


async def test_a_small_message_does_not_overtake_a_large_one_that_found_no_room(begin: Begin) -> None:
    """Into a mailbox that is nearly full."""
    here = await begin(Allowance(quota=Quota(sender_bytes=10_000)))
    link = await here.connect()
    assert await told(link, envelope(1, bytes(6_000))) == "tick"
    assert await told(link, envelope(2, bytes(6_000))) == "limit_reached"
    assert await told(link, envelope(3, b"small")) == "limit_reached"
    assert await told(link, envelope(3, b"small")) == "tick"  # its client has heard, and gave up the other
    await link.close()


async def test_a_slow_line_brings_nothing_past_a_limit(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sent before the refusal came may arrive when more is allowed again."""
    monkeypatch.setattr(allowances, "SHUT_SECONDS", 0.0)
    clock = Clock(monkeypatch, letters)
    here = await begin(Allowance(messages=Rate(burst=1, per_second=20)))
    link = await here.connect()
    assert await told(link, envelope(1)) == "tick"
    assert await told(link, envelope(2)) == "limit_reached"
    clock.go_on(0.2)
    assert await told(link, envelope(3)) == "limit_reached"
    clock.go_on(0.2)
    assert await told(link, envelope(2)) == "tick"
    await link.close()


async def test_nothing_overtakes_what_the_database_did_not_take(begin: Begin) -> None:
    """However long after it is back."""
    here = await begin()
    link = await here.connect()
    away = True

    def lose(*_: object) -> None:
        if away:
            raise OperationalError("BEGIN", None, ConnectionResetError())

    event.listen(here.store._engine, "begin", lose)
    try:
        assert await told(link, envelope(1)) == "store_unavailable"
        away = False
        await until(lambda: here.relay.letters.store_sound)
        assert await told(link, envelope(2)) == "store_unavailable"
        assert await told(link, envelope(1)) == "tick"
        assert await told(link, envelope(2)) == "tick"
    finally:
        event.remove(here.store._engine, "begin", lose)
    assert await arrived(link, 2) == [1, 2]
    await link.close()
