"""Who is registered at the relay's expense, on a relay in this process with a chain of the test's making."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from chatchain.errors import InvitationRefused, NameUnavailable
from chatchain.identity.admission import INVITED_ONLY, Invitation, work_for
from chatchain.identity.keys import address_of, new_secret, sign_digest
from chatchain.model import Address, Call, DeviceState, Network, Policy
from chatchain.relay import follower, newcomers, sponsoring
from chatchain.relay.limits import Buckets, Rate
from chatchain.relay.newcomers import LONGEST_INVITATION, Rules
from chatchain.relay.ports import Membership
from chatchain.relay.service import NOTED
from chatchain.transport import RelayLink, dial
from chatchain.wire.messages import Failed, Goodbye, Message, Sponsored
from chatchain.wire.messages import Sponsor as Request
from tests.relay.here import NETWORK, Here
from tests.relay.test_mailbox import ADA, BOB
from tests.relay.test_mailbox import user as member
from tests.relay.test_sponsor import calls_of
from tests.relay.test_sponsor import newcomers as registrations

BITS = 8


class Door:
    """A relay's door, and somebody before it."""

    def __init__(self, here: Here) -> None:
        self.here = here
        self.calls = iter(registrations(200))

    async def knock(self) -> RelayLink:
        return await dial(self.here.named)

    def work(self, link: RelayLink, ref: int, call: Call, bits: int = BITS) -> bytes:
        return work_for(link.challenge.nonce, ref, call, bits)

    def invitation(
        self,
        *,
        inviter: int = ADA,
        lasts: int = 3600,
        key: bytes = b"",
        epoch: int = 0,
        network: Network = NETWORK,
    ) -> Invitation:
        plain = Invitation(inviter, secrets.token_bytes(16), int(time.time()) + lasts, b"")
        signature = sign_digest(key or self.here.account.signer, plain.digest(network, epoch))
        return msgspec.structs.replace(plain, signature=signature)


async def ask(link: RelayLink, ref: int, call: Call, admission: bytes) -> Message:
    await link.send(Request(ref, call.contract, call.data, admission))
    return await link.receive()


async def told(link: RelayLink, ref: int, call: Call, admission: bytes) -> str:
    """The refusal's code, or nothing when it is paid for."""
    answer = await ask(link, ref, call, admission)
    assert isinstance(answer, Failed | Sponsored), answer
    return answer.code if isinstance(answer, Failed) else ""


async def opened(folder: Path, rules: Rules) -> Here:
    here = Here(folder, rules=rules)
    await here.start()
    return here


@pytest.fixture
async def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Door]:
    """Of a relay that asks for a little work."""
    monkeypatch.setattr(follower, "POLL", 0.05)
    here = await opened(tmp_path, Rules(BITS))
    yield Door(here)
    await here.stop()


async def test_a_newcomer_who_worked_is_paid_for(door: Door) -> None:
    """The challenge says how much; another request needs work of its own."""
    link = await door.knock()
    assert link.challenge.work == BITS
    first, second = next(door.calls), next(door.calls)
    assert await told(link, 1, first, b"") == "refused"
    assert await told(link, 2, first, door.work(link, 2, first)) == ""
    assert await told(link, 2, first, door.work(link, 2, first)) == "refused"  # the same once more
    assert await told(link, 3, second, door.work(link, 2, second)) == "refused"
    assert await told(link, 4, second, door.work(link, 4, first)) == "refused"
    assert await told(link, 5, second, door.work(link, 5, second)) == ""
    assert door.here.payer.paid == [first, second]
    await link.close()


async def test_work_of_another_connection_counts_for_nothing(door: Door) -> None:
    """It cannot be gathered beforehand and spent in a rush."""
    one, other = await door.knock(), await door.knock()
    call = next(door.calls)
    while (done := door.work(one, 1, call, 16)) == door.work(other, 1, call, BITS):
        call = next(door.calls)
    refused = 0
    for _ in range(3):  # by luck it may pass once in 256
        refused += await told(other, 1, call, done) == "refused"
        done = door.work(one, 1, call := next(door.calls), 16)
    assert refused >= 2
    await one.close()
    await other.close()


async def test_whoever_is_invited_needs_no_work(door: Door) -> None:
    """Once: for that account again, for another not; and what is refused uses nothing up."""
    link = await door.knock()
    call, other = next(door.calls), next(door.calls)
    invitation = door.invitation().encode()
    spare, third = door.invitation().encode(), next(door.calls)
    door.here.payer.refused[call] = NameUnavailable("The name is taken.")
    assert await told(link, 1, call, invitation) == "name_unavailable"
    assert await told(link, 1, call, spare) == "name_unavailable"
    assert await told(link, 1, third, spare) == "", "nothing came of it: it is anybody's still"
    door.here.payer.refused.clear()
    assert await told(link, 2, call, invitation) == ""
    assert await told(link, 3, call, invitation) == ""
    assert await told(link, 4, other, invitation) == "invitation_refused"
    # The account's second registration is refused, and that makes its invitation no better for others.
    again = Call(call.contract, call.data.replace(b"user-", b"name-"))
    door.here.payer.refused[again] = NameUnavailable("The account is registered.")
    assert await told(link, 5, again, invitation) != ""
    assert await told(link, 6, other, invitation) == "invitation_refused"
    assert door.here.payer.paid == [third, call]
    await link.close()


async def test_a_used_invitation_is_known_after_a_restart(tmp_path: Path) -> None:
    """The database remembers it, and whose it was."""
    here = await opened(tmp_path, Rules(BITS))
    door = Door(here)
    invitation, call, other = door.invitation(), next(door.calls), next(door.calls)
    link = await door.knock()
    assert await told(link, 1, call, invitation.encode()) == ""
    await link.close()
    spent = here.store.invitations
    account = call.data[16:36]
    now = int(time.time())
    assert spent.spend(invitation.id, invitation.expires, other.data[16:36], now) == account
    assert spent.spend(invitation.id, invitation.expires, account, now) == account
    # When it has expired it may be forgotten: the relay refuses it for its age.
    assert spent.spend(b"x" * 16, now + 10, account, invitation.expires) is None
    assert spent.spend(invitation.id, invitation.expires, account, now) is None
    await here.stop()


async def test_bad_invitations_are_told_by_their_fault(door: Door) -> None:
    """Expired, too long, forged, of a stranger or a non-member, for another network or an old epoch, bent."""
    link = await door.knock()
    elsewhere = Network(1, NETWORK.directory, NETWORK.registry, NETWORK.membership)
    swapped = Network(NETWORK.chain_id, NETWORK.directory, NETWORK.membership, NETWORK.registry)
    good = door.invitation()
    bad = {
        "expired": door.invitation(lasts=-1),
        "longer than a month": door.invitation(lasts=LONGEST_INVITATION + 60),
        "not signed": door.invitation(key=new_secret()),
        "is not a member": door.invitation(inviter=BOB),
        "not signed ": door.invitation(network=elsewhere),
        "not signed  ": door.invitation(network=swapped),
        "not signed   ": door.invitation(epoch=1),
        "not signed    ": msgspec.structs.replace(good, expires=good.expires + 1),
        "not signed     ": msgspec.structs.replace(good, id=bytes(16)),
        "not signed      ": msgspec.structs.replace(good, signature=b"\xff" * 65),
    }
    for ref, (words, invitation) in enumerate(bad.items(), 1):
        answer = await ask(link, ref, next(door.calls), invitation.encode())
        assert isinstance(answer, Failed), words
        assert (answer.code, words.strip() in answer.message) == ("invitation_refused", True), answer
    assert await told(link, 99, next(door.calls), good.encode()[:-1]) == "refused"
    assert await told(link, 100, next(door.calls), good.encode()) == ""
    await link.close()


class _Unspent:
    """Remembers nothing: whether an invitation was used is not judged here."""

    def spend(self, id: bytes, expires: int, account: bytes, now: int) -> bytes | None:
        raise AssertionError

    def restore(self, id: bytes, account: bytes) -> None:
        raise AssertionError


@pytest.mark.parametrize(
    ("change", "epoch", "good"),
    [
        ({}, 0, True),
        ({"epoch": 3}, 3, True),
        ({"epoch": 3}, 0, False),
        ({"devices": ()}, 0, False),
        ({"state": DeviceState.REVOKED}, 0, False),
    ],
    ids=["as it is", "after a recovery", "from before a recovery", "no device", "revoked"],
)
def test_what_the_chain_says_of_the_inviter_now_decides(
    change: dict[str, Any], epoch: int, good: bool
) -> None:
    """An invitation is signed by a device that is active, in the account's epoch; it ends to the second."""
    key, changes = new_secret(), dict(change)
    plain = member(ADA, changes.pop("state", DeviceState.ACTIVE))
    version = msgspec.structs.replace(plain.devices[0].current, signer=address_of(key))
    device = msgspec.structs.replace(plain.devices[0], history=(version,))
    inviter = msgspec.structs.replace(plain, **{"devices": (device,), **changes})
    bare = Invitation(ADA, bytes(16), 1_000, b"")
    signed = msgspec.structs.replace(bare, signature=sign_digest(key, bare.digest(NETWORK, epoch)))
    judging = newcomers.Newcomers(NETWORK, Rules(BITS), _Unspent())
    if not good:
        with pytest.raises(InvitationRefused, match="not signed by"):
            judging.judge(signed, inviter, is_member=True, time=999, now=0)
        return
    judging.judge(signed, inviter, is_member=True, time=999, now=0)
    with pytest.raises(InvitationRefused, match="expired"):
        judging.judge(signed, inviter, is_member=True, time=1_000, now=0)


async def test_one_member_s_invitations_are_not_everybody_s_share(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member who hands out hundreds has some of them used each hour."""
    assert door.here.newcomers is not None
    monkeypatch.setattr(door.here.newcomers, "_by_inviter", Buckets(Rate.hourly(2)))
    link = await door.knock()
    answers = [await told(link, ref, next(door.calls), door.invitation().encode()) for ref in range(3)]
    assert answers == ["", "", "limit_reached"]
    assert newcomers.INVITATIONS.burst >= 10
    await link.close()


async def test_whoever_shows_a_used_invitation_takes_nothing_from_the_others(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a registration that is refused: a member's share is for newcomers who came in."""
    assert door.here.newcomers is not None
    monkeypatch.setattr(door.here.newcomers, "_by_inviter", Buckets(Rate.hourly(2)))
    link = await door.knock()
    used, taken, first = door.invitation().encode(), next(door.calls), next(door.calls)
    for _ in range(3):  # whoever lost the answer asks again, and came in once
        assert await told(link, 1, first, used) == ""
    for ref in range(2, 5):
        assert await told(link, ref, next(door.calls), used) == "invitation_refused"
    door.here.payer.refused[taken] = NameUnavailable("The name is taken.")
    for ref in range(5, 8):
        assert await told(link, ref, taken, door.invitation().encode()) == "name_unavailable"
    assert await told(link, 8, next(door.calls), door.invitation().encode()) == ""
    assert await told(link, 9, next(door.calls), door.invitation().encode()) == "limit_reached"
    await link.close()


async def test_strangers_leave_room_for_members_at_the_sponsor(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From however many addresses they come."""
    monkeypatch.setattr(sponsoring, "AT_ONCE", 3)
    monkeypatch.setattr(sponsoring, "STRANGERS_AT_ONCE", 2)
    go_on = threading.Event()
    monkeypatch.setattr(door.here.payer, "has_code", lambda _: not go_on.wait(20))
    links = [await door.knock() for _ in range(3)]
    calls = [next(door.calls) for _ in links]
    for link, call in zip(links[:2], calls, strict=False):
        await link.send(Request(1, call.contract, call.data, door.work(link, 1, call)))
    while door.here.relay._sponsoring._guests.total() < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert await told(links[2], 1, calls[2], door.work(links[2], 1, calls[2])) == "limit_reached"
    member = await door.here.connect()
    vote = calls_of(ADA, address_of(door.here.account.signer))["voteBySig"]
    assert await told(member, 1, vote, b"") == ""
    go_on.set()
    for link in links[:2]:
        assert isinstance(await link.receive(), Sponsored)
    for link in (*links, member):
        await link.close()


@pytest.mark.parametrize(("guests", "strangers", "all_"), [(1, 9, 9), (9, 1, 9), (9, 9, 1)])
async def test_so_many_are_paid_for_at_a_time(
    door: Door, monkeypatch: pytest.MonkeyPatch, guests: int, strangers: int, all_: int
) -> None:
    """Of an address, of strangers, of all; whoever was served, or refused, has given its place back."""
    monkeypatch.setattr(sponsoring, "AT_ONCE", all_)
    monkeypatch.setattr(sponsoring, "STRANGERS_AT_ONCE", strangers)
    monkeypatch.setattr(sponsoring, "GUESTS_AT_ONCE", guests)
    served, other = await door.knock(), await door.knock()
    for ref in range(3):
        assert await told(other, ref, Call("identity", bytes(68)), b"") == "refused"
    go_on = threading.Event()
    monkeypatch.setattr(door.here.payer, "has_code", lambda _: not go_on.wait(60))
    first, second = next(door.calls), next(door.calls)
    await served.send(Request(1, first.contract, first.data, door.work(served, 1, first)))
    while not door.here.relay._sponsoring._guests.total():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    answer = await ask(other, 4, second, door.work(other, 4, second))
    assert isinstance(answer, Failed)
    assert (answer.code, answer.retry_after_ms > 0) == ("limit_reached", True)
    member = await door.here.connect()
    vote = calls_of(ADA, address_of(door.here.account.signer))["voteBySig"]
    assert await told(member, 1, vote, b"") == ("limit_reached" if all_ == 1 else "")
    go_on.set()
    assert isinstance(await served.receive(), Sponsored)
    assert await told(other, 5, second, door.work(other, 5, second)) == ""
    for link in (served, other, member):
        await link.close()


async def test_whoever_asks_too_often_keeps_no_member_out(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strangers' requests count for their address, over however many connections; a member's for himself."""
    monkeypatch.setattr(door.here.relay._sponsoring, "_requests", Buckets(Rate(burst=3, per_second=0.001)))
    answers = []
    for ref in range(5):
        link = await door.knock()
        answers.append(await told(link, ref, Call("identity", bytes(68)), b""))
        await link.close()
    assert answers == ["refused"] * 3 + ["limit_reached"] * 2
    member = await door.here.connect()
    answers = [await told(member, ref, Call("identity", bytes(68)), b"") for ref in range(5)]
    assert answers == ["refused"] * 3 + ["limit_reached"] * 2
    await member.close()


async def test_who_is_no_member_invites_nobody(door: Door) -> None:
    """However well the invitation is signed."""
    link = await door.knock()
    users = door.here.relay._follower._users
    members, users.membership = users.membership, Membership(Policy.VOTE, frozenset({BOB}))
    assert await told(link, 1, next(door.calls), door.invitation().encode()) == "invitation_refused"
    users.membership = members
    assert await told(link, 2, next(door.calls), door.invitation().encode()) == ""
    await link.close()


async def test_asking_on_and_on_for_nothing_fills_no_log(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond some nothing is looked at: the log of an open door is nobody's to fill."""
    monkeypatch.setattr(door.here.relay._sponsoring, "_requests", Buckets(Rate(burst=5, per_second=0.001)))
    link = await door.knock()
    with capture_logs() as lines:
        answers = [await told(link, ref, Call("identity", bytes(68)), b"") for ref in range(20)]
    assert answers == ["refused"] * 5 + ["limit_reached"] * 15
    assert [line["event"] for line in lines] == ["sponsor refused"] * 5
    await link.close()
    links = [await door.knock() for _ in range(20)]
    with capture_logs() as lines:
        for link in links:
            link._writer.write(b"\xff" * 64)
            assert isinstance(await link.receive(), Goodbye)
            await link.close()
    assert [line["event"] for line in lines] == ["violation"] * int(NOTED.burst)


async def test_a_relay_may_take_only_who_is_invited(tmp_path: Path) -> None:
    """Its challenge says so, and no work changes it."""
    here = await opened(tmp_path, Rules(BITS, invited_only=True))
    door = Door(here)
    link = await door.knock()
    assert link.challenge.work == INVITED_ONLY
    call = next(door.calls)
    answer = await ask(link, 1, call, door.work(link, 1, call))
    assert isinstance(answer, Failed)
    assert "invited" in answer.message
    assert await told(link, 2, call, door.invitation().encode()) == ""
    await link.close()
    await here.stop()


async def test_nobody_is_registered_by_somebody_who_is_logged_in(door: Door) -> None:
    """Or a member could skip the work for as many as he likes."""
    link = await door.here.connect()
    call = next(door.calls)
    assert await told(link, 1, call, door.work(link, 1, call)) == "refused"
    assert await told(link, 2, call, door.invitation().encode()) == "refused"
    await link.close()


async def test_work_is_looked_at_before_the_chain_is(door: Door) -> None:
    """Whoever does none costs the relay a hash."""
    link = await door.knock()
    call = next(door.calls)
    door.here.payer.contracts = {Address(call.data[16:36])}
    answer = await ask(link, 1, call, b"")
    assert isinstance(answer, Failed)
    assert "work" in answer.message
    assert door.here.payer.tried == []
    await link.close()
