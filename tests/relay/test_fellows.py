"""Who may look up how many: those who share a group are no strangers to each other, as the chain says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import delete

from chatchain.errors import ChainError
from chatchain.model import BlockRef, DeviceState, Group, LogRow, Member, Policy, Uid, User
from chatchain.relay import follower, keys
from chatchain.relay.allowance import Allowance
from chatchain.relay.directory import Keeper
from chatchain.relay.keys import DEVICES, weight
from chatchain.relay.limits import Rate
from chatchain.relay.nodes import SharedKeeper
from chatchain.store.server import ServerStore
from chatchain.store.tables import touched
from chatchain.transport import RelayLink
from chatchain.wire.bounds import MAX_FETCHED_DEVICES
from chatchain.wire.messages import Failed, FetchKeys, FetchPrekeys, Keys, Prekeys, Withheld
from tests.relay.here import Chain, Clock, Here, farewell
from tests.relay.stage import Account
from tests.relay.test_mailbox import ADA, BOB, user

STRANGERS = range(500, 600)
NOBODY = 123_456_789_012_345


def group(number: int, *uids: int, policy: Policy = Policy.OPEN) -> Group:
    members = tuple(Member(Uid(uid), sequence, 1) for sequence, uid in enumerate(uids, 1))
    return Group(number, f"group{number}", policy, 5000, 3600, 1, bytes(32), members)


class Network:
    """A relay that looks at the chain only when it has to, and the groups that the chain tells of."""

    def __init__(self, here: Here) -> None:
        self.here = here
        self.groups: tuple[Group, ...] = (group(0, ADA),)
        self.bob = user(BOB, DeviceState.ACTIVE, DeviceState.REVOKED)

    def user(self, uid: Uid) -> User | None:
        return self.bob if uid == BOB else self.here.chain.ada if uid == ADA else None

    def tell(self, *groups: Group) -> None:
        """The next block brings these groups."""
        self.groups, head = groups, self.here.chain.head + 1
        before, this = (bytes([number]) * 32 for number in (head, head + 1))
        rows = [
            LogRow(head, this, 0, 1, 2, (b"t" * 32,), b""),
            LogRow(head, this, 1, 1, 1, (b"t" * 32,), b"", subject=BOB),
        ]
        self.here.store.log.take(rows, [BlockRef(head, this, before)])
        self.here.chain.head = head


@pytest.fixture
async def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Network]:
    """Two strangers may be looked up, then one every hundred seconds; ada asks."""
    monkeypatch.setattr(follower, "POLL", 1_000.0)
    monkeypatch.setattr(follower, "LOOK_GAP", 0.0)
    Clock(monkeypatch, keys)
    here = Here(tmp_path, Allowance(lookups=Rate(burst=2, per_second=0.01)))
    made = Network(here)
    monkeypatch.setattr(here.chain, "user", made.user)
    monkeypatch.setattr(here.chain, "groups", lambda: made.groups)
    made.tell(group(0, ADA))
    await here.start()
    yield made
    await here.stop()


async def fetched(link: RelayLink, *uids: int) -> Prekeys:
    await link.send(FetchPrekeys(1, tuple((uid, 1) for uid in uids)))
    answer = await link.receive()
    assert isinstance(answer, Prekeys), answer
    return answer


def withheld(answer: Prekeys) -> list[int]:
    """Of whom nothing is told for now."""
    for one in answer.withheld:
        assert one.code == "limit_reached"
        assert 0 < one.retry_after_ms <= 100_001
    return [one.uid for one in answer.withheld]


async def test_strangers_count_as_look_ups_whether_they_exist_or_not(network: Network) -> None:
    """Each once; beyond the limit they are withheld, and those that were looked up before are told of."""
    link = await network.here.connect()
    assert withheld(await fetched(link, BOB, NOBODY)) == []
    assert withheld(await fetched(link, 500, BOB, 501, NOBODY)) == [500, 501]
    assert withheld(await fetched(link, BOB, NOBODY, ADA)) == []
    await link.send(FetchKeys(2, (BOB, NOBODY)))
    assert await link.receive() == Keys(2, ())
    await link.send(FetchKeys(3, (500,)))
    failed = await link.receive()
    assert isinstance(failed, Failed)
    assert failed.code == "limit_reached"
    await link.close()


@pytest.mark.parametrize("number", [0, 7], ids=["the network", "another group"])
async def test_fellow_members_are_no_strangers(network: Network, number: int) -> None:
    """Their prekeys come in one batch and do not count; who left, or is in another group, is a stranger."""
    fellows = tuple(STRANGERS[:60])
    network.tell(*{0: group(0, ADA), number: group(number, ADA, *fellows), 8: group(8, *STRANGERS)}.values())
    link = await network.here.connect()
    await network.here.relay._follower.look_again()
    assert await fetched(link, *fellows) == Prekeys(1, (), ())
    assert withheld(await fetched(link, *STRANGERS)) == list(STRANGERS[62:])
    for start in range(0, 60, 8):
        await link.send(FetchKeys(1, fellows[start : start + 8]))
        assert await link.receive() == Keys(1, ())
    network.tell(*{0: group(0, ADA), number: group(number, ADA, *fellows[1:])}.values())
    await network.here.relay._follower.look_again()
    assert withheld(await fetched(link, *fellows)) == [fellows[0]]
    await link.close()


async def test_members_of_the_network_are_no_fellows_of_who_is_none(network: Network) -> None:
    """Under policy `open` whoever is registered may write, and is a stranger all the same."""
    network.tell(group(0, *STRANGERS))
    link = await network.here.connect()
    await network.here.relay._follower.look_again()
    assert withheld(await fetched(link, *STRANGERS)) == list(STRANGERS[2:])
    await link.close()


class Groups(Chain):
    """A chain whose groups a test sets."""

    def __init__(self) -> None:
        super().__init__(Account("ada"))
        self.told: tuple[Group, ...] = ()

    def groups(self) -> tuple[Group, ...]:
        return self.told


def joined_as_before_0009(store: ServerStore, chain: Groups, *groups: Group) -> None:
    """An event that brings these groups, and what a program that knows of no seats makes of it."""
    chain.told, chain.head = groups, chain.head + 1
    before, this = (bytes([number]) * 32 for number in (chain.head, chain.head + 1))
    store.log.take(
        [LogRow(chain.head, this, 0, 1, 2, (b"t" * 32,), b"")], [BlockRef(chain.head, this, before)]
    )
    with store._engine.execution_options(writes=True).begin() as connection:
        connection.execute(delete(touched).where(touched.c.uid == 0))


def test_who_takes_up_following_the_chain_mends_seats_that_an_older_program_let_be(mariadb_url: str) -> None:
    """In a rolling upgrade the old one goes on following and says of nobody that he came or left."""
    older, newer = ServerStore(mariadb_url), ServerStore(mariadb_url)
    older.migrate()
    chain = Groups()
    old, new = older.join("older"), newer.join("newer")
    try:
        assert new.lead()
        chain.told = (group(0, ADA), group(7, ADA, BOB))
        Keeper(chain, newer, confirmations=0).refresh()
        assert newer.fellows(ADA, [BOB, 500]) == {BOB}
        new.give_up()
        assert old.lead()
        joined_as_before_0009(older, chain, group(0, ADA), group(7, ADA, 500))
        assert newer.fellows(ADA, [BOB, 500]) == {BOB}, "else there would be nothing to mend"
        keeper = SharedKeeper(new, newer, lambda: Keeper(chain, newer, confirmations=0))
        older.close()
        while not keeper.leads:
            with suppress(ChainError):  # until it is seen that the older one has gone
                keeper.refresh()
        assert newer.fellows(ADA, [BOB, 500]) == {500}
    finally:
        older.close()
        newer.close()


def test_a_relay_that_was_an_older_one_for_a_while_mends_seats_at_its_start(tmp_path: Path) -> None:
    """Nobody shares its database; the chain has nothing new, and is asked for no user."""
    store, chain = ServerStore(f"sqlite:///{tmp_path / 'relay.db'}"), Groups()
    store.migrate()
    joined_as_before_0009(store, chain, group(0, ADA), group(7, ADA, BOB))
    Keeper(chain, store, confirmations=0).refresh()
    assert store.fellows(ADA, [BOB, 500]) == {BOB}
    joined_as_before_0009(store, chain, group(0, ADA), group(7, ADA, 500))
    Keeper(chain, store, confirmations=0).refresh()
    assert store.fellows(ADA, [BOB, 500]) == {500}
    store.close()


async def test_among_members_who_is_none_is_withheld_and_spoils_nothing(network: Network) -> None:
    """Under policy `vote`; whether there is such a user or not. A batch costs one look at the chain."""
    network.tell(group(0, ADA, 500, policy=Policy.VOTE))
    link = await network.here.connect()
    await network.here.relay._follower.look_again()
    looks = network.here.chain.looks
    answer = await fetched(link, BOB, 500, NOBODY)
    assert answer.withheld == (Withheld(BOB, 1, "not_a_member", 0), Withheld(NOBODY, 1, "not_a_member", 0))
    assert network.here.chain.looks == looks + 1
    network.tell(group(0, 500, policy=Policy.VOTE))
    await network.here.relay._follower.look_again()
    await link.send(FetchPrekeys(2, ((500, 1), (ADA, 1))))
    failed = await link.receive()
    assert isinstance(failed, Failed)
    assert failed.code == "not_a_member"
    await link.close()


async def test_an_oversize_batch_is_refused_before_any_work(network: Network) -> None:
    """It is no message of the protocol: nothing is looked up, and the connection ends."""
    link = await network.here.connect()
    desk = network.here.relay._keys
    await link.send(FetchPrekeys(1, ((BOB, 1),)))
    assert await link.receive() == Prekeys(1, (), ())
    devices = tuple((uid, 1) for uid in range(1, MAX_FETCHED_DEVICES + 2))
    link._writer.write(link._connection.send(FetchPrekeys(2, devices)))
    assert (await farewell(link)).code == "protocol_violation"
    assert list(desk._lookups._lookers[ADA].known) == [BOB]


def test_a_large_batch_counts_for_as_many_requests_as_one_would_make_by_user() -> None:
    """Nobody gets more keys a second by asking for many together."""
    for count, requests in ((1, 1), (DEVICES, 1), (DEVICES + 1, 2), (MAX_FETCHED_DEVICES, 8)):
        assert weight(FetchPrekeys(1, tuple((uid, 1) for uid in range(1, count + 1)))) == requests
    assert weight(FetchKeys(1, (1, 2, 3))) == 1
