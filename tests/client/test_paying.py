"""How a call gets onto the chain when the relay pays: asked patiently, followed, the chain believed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from chatchain.client import paying
from chatchain.client.paying import Paid, Payer
from chatchain.client.session import Session
from chatchain.errors import (
    AlreadyVoted,
    ChatchainError,
    CommitmentPending,
    InvitationRefused,
    LimitReached,
    NameUnavailable,
    NoEther,
    Reverted,
    TransactionPending,
    VotingClosed,
)
from chatchain.identity.admission import INVITED_ONLY, Invitation
from chatchain.model import Address, Call, Mined

CALL, ACCOUNT = Call("identity", b"call"), Address(b"a" * 20)
ONE, TWO = b"1" * 32, b"2" * 32
INVITATION = Invitation(1, bytes(16), 2, bytes(65))


class Scene:
    """A relay that answers as the test says, one answer after the other, and a chain that mines likewise."""

    def __init__(self, answers: list[bytes | ChatchainError], work: int = 8) -> None:
        self.answers = answers
        self.asked: list[object] = []
        self.mined: dict[bytes, Mined | ChatchainError] = {}
        self.shows: int | None = None
        self.ether = 0
        self.sent: list[Call] = []
        self.link = SimpleNamespace(challenge=SimpleNamespace(work=work))
        self.payer = Payer(self, ACCOUNT, self._session)

    # the relay

    async def _session(self) -> Session:
        return cast(Session, self)

    async def sponsor(self, call: Call) -> bytes:
        self.asked.append(call)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, ChatchainError):
            raise answer
        return answer

    async def sponsor_newcomer(self, call: Call, invitation: Invitation | None = None) -> bytes:
        self.asked.append(invitation)
        answer = self.answers.pop(0)
        if isinstance(answer, ChatchainError):
            raise answer
        return answer

    # the chain

    def balance(self, account: Address) -> int:
        return self.ether

    def send(self, call: Call, account_key: bytes, *, next_block: bool = False) -> Mined:
        self.sent.append(call)
        raise NoEther("Too little.")

    def look(self, tx_hash: bytes) -> Mined | None:
        outcome = self.mined.get(tx_hash)
        if isinstance(outcome, ChatchainError):
            raise outcome
        return outcome

    async def shown(self) -> int | None:
        return self.shows

    async def carry_out(self, *, may_be_passed_over: bool = False) -> Paid:
        async def signed() -> Call:
            return CALL

        return await self.payer.carry_out(
            CALL, lambda: b"key", signed, self.shown, may_be_passed_over=may_be_passed_over
        )

    async def register(self, invitation: Invitation | None) -> Paid:
        async def signed() -> Call:
            return CALL

        async def direct() -> Mined:
            raise AssertionError("there is no ether")

        return await self.payer.register(direct, signed, self.shown, invitation)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits of seconds are milliseconds here."""
    monkeypatch.setattr(paying, "_POLL_S", (0.001, 0.01))
    monkeypatch.setattr(paying, "ASK_AGAIN_S", 0.02)
    monkeypatch.setattr(paying, "PASSED_OVER_S", 0.06)


def mined(tx: bytes) -> Mined:
    return Mined(tx, 7)


def paid(tx: bytes) -> Paid:
    return Paid("0x" + tx.hex(), 7, sponsored=True)


async def test_a_busy_sponsor_is_asked_again_and_a_limit_is_told() -> None:
    """A second or two is waited for; hours are not."""
    busy = [LimitReached("Busy.", retry_after_ms=1), CommitmentPending("Committing.", retry_after_ms=1)]
    scene = Scene([*busy, ONE])
    scene.mined[ONE] = mined(ONE)
    assert await scene.carry_out() == paid(ONE)
    assert len(scene.asked) == 3
    with pytest.raises(LimitReached):
        await Scene([LimitReached("Enough for an hour.", retry_after_ms=3_600_000)]).carry_out()
    with pytest.raises(LimitReached):
        await Scene([LimitReached("Never.", retry_after_ms=0)]).carry_out()


async def test_a_sponsor_that_is_always_busy_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for ever."""
    monkeypatch.setattr(paying, "TURN_S", 0.05)
    with pytest.raises(LimitReached):
        await Scene([LimitReached("Busy.", retry_after_ms=5)]).carry_out()


async def test_the_hash_that_is_told_is_the_mined_one() -> None:
    """The relay replaced the first transaction: asked again it names the second."""
    scene = Scene([ONE, TWO])
    scene.mined[TWO] = mined(TWO)
    assert await scene.carry_out() == paid(TWO)


async def test_what_is_not_mined_is_pending_under_its_latest_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person can look for it later."""
    monkeypatch.setattr(paying, "WAIT_S", 0.1)
    with pytest.raises(TransactionPending, match=TWO.hex()):
        await Scene([ONE, TWO]).carry_out()


@pytest.mark.parametrize(
    "refusal", [NameUnavailable("Taken."), Reverted("Used."), VotingClosed("Passed.")], ids=lambda e: e.code
)
async def test_a_lost_race_is_no_failure_when_the_chain_shows_what_was_asked_for(
    refusal: ChatchainError,
) -> None:
    """Whether it was refused before it was sent or failed when it was mined."""
    before, after = Scene([refusal]), Scene([ONE])
    after.mined[ONE] = refusal
    for scene in (before, after):
        with pytest.raises(type(refusal)):
            await scene.carry_out()
    before, after = Scene([refusal]), Scene([ONE])
    after.mined[ONE] = refusal
    for scene in (before, after):
        scene.shows = 5
        assert await scene.carry_out() == Paid("", 5, sponsored=False)


async def test_who_has_voted_already_is_told_so() -> None:
    """It may have been the other way."""
    scene = Scene([AlreadyVoted("You have voted.")])
    scene.shows = 5
    with pytest.raises(AlreadyVoted):
        await scene.carry_out()


async def test_a_vote_that_a_batch_passed_over_is_told_with_the_reason() -> None:
    """The transaction was mined and the chain does not show the vote: the relay says why."""
    scene = Scene([ONE, ONE, VotingClosed("Proposal 1 takes no more votes: it is passed.")])
    scene.mined[ONE] = mined(ONE)
    with pytest.raises(VotingClosed, match="passed"):
        await scene.carry_out(may_be_passed_over=True)


async def test_a_vote_that_was_passed_over_may_go_again() -> None:
    """Tried anew it passes, in another transaction."""
    scene = Scene([ONE, TWO])
    scene.mined = {ONE: mined(ONE), TWO: mined(TWO)}

    async def once_sent_again() -> int | None:
        return 7 if len(scene.asked) == 2 else None

    scene.shown = once_sent_again  # type: ignore[method-assign]  # the chain shows it after the second
    assert await scene.carry_out(may_be_passed_over=True) == paid(TWO)


async def test_an_account_with_too_little_ether_turns_to_the_relay() -> None:
    """It tries by itself first."""
    scene = Scene([ONE])
    scene.ether, scene.mined = 5, {ONE: mined(ONE)}
    assert await scene.carry_out() == paid(ONE)
    assert scene.sent == [CALL]


async def test_a_refused_invitation_is_made_up_for_by_work() -> None:
    """Where the relay takes work; where it does not, the refusal stands."""
    scene = Scene([InvitationRefused("Used before."), ONE])
    scene.mined[ONE] = mined(ONE)
    assert await scene.register(INVITATION) == paid(ONE)
    assert scene.asked == [INVITATION, None]
    with pytest.raises(InvitationRefused):
        await Scene([InvitationRefused("Used before."), ONE], work=INVITED_ONLY).register(INVITATION)
