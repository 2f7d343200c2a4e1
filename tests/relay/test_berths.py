"""Berths for files: no more than there are, in the order of coming, and none for longer than a turn."""

from __future__ import annotations

from chatchain.relay.berths import IDLE, TURN, Berths


def busy(_: str) -> float:
    """Everybody has something to do."""
    return 0.0


def alone(who: str) -> str:
    """Everybody comes with one connection."""
    return who


async def test_whoever_comes_beyond_waits_in_the_order_of_coming() -> None:
    """One that leaves makes room for one, and for the first of them."""
    berths = Berths[str](2, alone)
    held = [berths.take(who, 0.0) for who in ("ada", "bob")]
    assert all(given.done() and given.result() for given in held)
    waits = {who: berths.take(who, 1.0) for who in ("cleo", "dan", "eve")}
    assert (berths.taken, berths.waiting) == (2, 3)
    assert not any(given.done() for given in waits.values())
    berths.leave("bob", 2.0)
    assert [who for who, given in waits.items() if given.done()] == ["cleo"]
    assert waits["cleo"].result()
    assert berths.has("cleo")
    assert not berths.has("dan")
    berths.leave("ada", 3.0)
    assert waits["dan"].result()
    assert (berths.taken, berths.waiting) == (2, 1)


async def test_one_has_one_berth_however_often_it_asks() -> None:
    """Also while it waits; and leaving twice frees no second one."""
    berths = Berths[str](1, alone)
    assert berths.take("ada", 0.0).result()
    assert berths.take("ada", 1.0).result()
    waiting = berths.take("bob", 2.0)
    assert berths.take("bob", 3.0) is waiting
    assert (berths.taken, berths.waiting) == (1, 1)
    cleo = berths.take("cleo", 4.0)
    berths.leave("ada", 5.0)
    berths.leave("ada", 5.0)
    assert waiting.result()
    assert not cleo.done()


async def test_who_waits_no_longer_is_told_so_and_followed_by_the_next() -> None:
    """One that hangs up, or whose work is given up, keeps no berth."""
    berths = Berths[str](1, alone)
    berths.take("ada", 0.0)
    bob, cleo, dan = (berths.take(who, 1.0) for who in ("bob", "cleo", "dan"))
    berths.leave("bob", 2.0)
    assert not bob.result()
    cleo.cancel()
    berths.leave("ada", 3.0)
    assert dan.result()
    assert (berths.taken, berths.waiting, berths.has("cleo")) == (1, 0, False)


async def test_nobody_gives_way_while_nobody_waits() -> None:
    """However slow or idle: nobody gains by it."""
    berths = Berths[str](1, alone)
    berths.take("ada", 0.0)
    assert berths.give_way(100 * TURN, lambda _: 100 * TURN) == []


async def test_the_idle_give_way_first_and_then_those_whose_turn_is_over() -> None:
    """As many as wait, each named once, those who have had their berth for longest first."""
    berths = Berths[str](4, alone)
    for at, who in enumerate(("ada", "bob", "cleo", "dan")):
        berths.take(who, float(at))
    berths.take("eve", 10.0)
    assert berths.give_way(TURN - 1, busy) == [], "their turns last"
    assert berths.give_way(TURN - 1, lambda who: IDLE if who == "cleo" else 0.0) == ["cleo"]
    assert berths.give_way(3 * TURN, busy) == [], "one leaves, one waits"
    for who in ("fay", "gus"):
        berths.take(who, 11.0)
    assert berths.give_way(TURN + 0.5, busy) == ["ada"], "only hers is over"
    assert berths.give_way(TURN + 3.5, busy) == ["bob"]
    berths.leave("cleo", TURN + 4)
    assert berths.has("eve")
    assert berths.give_way(TURN + 4, busy) == [], "two leave, two wait"
    berths.leave("ada", TURN + 5)
    berths.leave("bob", TURN + 5)
    berths.take("hal", TURN + 6)
    assert berths.give_way(10 * TURN, busy) == ["dan"]


async def test_who_comes_with_many_keeps_nobody_out_who_comes_with_one() -> None:
    """The fewest berths first, and among equals whoever came first; nobody waits for ever by it."""
    berths = Berths[str](2, lambda who: who[:3])
    for at, who in enumerate(("mal1", "mal2", "mal3", "mal4", "ada1", "bob1", "ada2")):
        berths.take(who, float(at))
    for leaves, follows in (
        ("mal1", "ada1"),
        ("mal2", "mal3"),
        ("ada1", "bob1"),
        ("mal3", "mal4"),
        ("bob1", "ada2"),
    ):
        assert not berths.has(follows)
        berths.leave(leaves, 10.0)
        assert berths.has(follows)
    assert berths.waiting == 0
