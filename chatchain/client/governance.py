"""Membership as a member sees it: asking to join, proposing, voting, and reading how it stands.

With ether the account sends the transaction itself; without, this device's signer signs the EIP-712 digest
and the relay's sponsor pays. Whatever can be known from the fold is refused before anything is sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chatchain.client.acting import Acting
from chatchain.client.decisions import KIND_OF, Wish, sentence
from chatchain.client.decisions import reason as pause_reason
from chatchain.client.paying import SIGNATURE_LASTS_S, Paid
from chatchain.client.people import find
from chatchain.client.times import second_text
from chatchain.client.views import MemberView, ProposalView
from chatchain.client.watch import Watch, open_proposal, way_in
from chatchain.errors import (
    AlreadyDone,
    AlreadyVoted,
    NotAMember,
    NotFoundError,
    UnknownProposal,
    UsageError,
    VotingClosed,
)
from chatchain.identity.keys import sign_digest, to_checksum
from chatchain.identity.typed_data import propose_digest, request_digest, vote_digest
from chatchain.model import (
    Address,
    Call,
    Decision,
    Group,
    Kind,
    Proposal,
    ProposalId,
    ProposalState,
    Reason,
    Uid,
    User,
)

if TYPE_CHECKING:
    from chatchain.client.station import Station

NETWORK: Final = "network"
"""The name of group 0."""

SEE: Final = "`chatchain proposals` shows the counts."

KINDS: Final = {"admit": Kind.ADMIT, "expel": Kind.EXPEL}


async def group_number(watch: Watch, name: str | None) -> int:
    """The group that a name stands for; raises NotFoundError. Group 0 is the network itself."""
    if name is None or name.removeprefix("#") in (NETWORK, "0"):
        return 0
    found = await watch.group_by_name(name.removeprefix("#"))
    if found is None:
        raise NotFoundError(
            f"There is no governed group {name}.", "Without a name the network's own group is meant."
        )
    return found.group


async def members(station: Station, group: str | None) -> list[MemberView]:
    """The members in the order in which they joined."""
    watch = await station.public_watch()
    found = await watch.group(await group_number(watch, group))
    views = []
    for member in sorted(found.members, key=lambda member: member.sequence):
        user = await watch.user(member.uid)
        views.append(
            MemberView(
                username=user.username if user else str(member.uid),
                uid=member.uid,
                account=to_checksum(user.account) if user else "",
                sequence=member.sequence,
                block=member.block,
            )
        )
    return views


async def proposal_view(
    watch: Watch, proposal: Proposal, me: Uid | None, paid: Paid | None = None
) -> ProposalView:
    """A proposal as people read it."""
    group = await watch.group(proposal.group)
    subject = await _name(watch, proposal.subject) if proposal.subject else ""
    return ProposalView(
        id=proposal.id,
        kind=proposal.kind.name.lower(),
        subject=subject,
        yes=proposal.yes,
        no=proposal.no,
        electorate=proposal.electorate,
        state=proposal.state.name.lower(),
        group=group.name or NETWORK,
        subject_uid=proposal.subject,
        proposer=await _name(watch, proposal.proposer),
        deadline=second_text(proposal.deadline),
        voted=me is not None and me in proposal.voters,
        action=sentence(proposal.kind, subject, proposal.decision, proposal.group),
        tx=paid.tx if paid else None,
        block=paid.block if paid else None,
        sponsored=paid.sponsored if paid else None,
    )


async def _name(watch: Watch, uid: Uid) -> str:
    user = await watch.user(uid)
    return user.username if user is not None else str(uid)


@dataclass(frozen=True)
class Governance(Acting):
    """What this user may change about a group."""

    async def request(self, group: int) -> ProposalView:
        """Opens the proposal to admit this user; an open one is given instead of a second."""
        if await self.watch.is_member(self.me.uid, group):
            raise AlreadyDone("You are a member already.")
        existing = await open_proposal(self.watch, group, Kind.ADMIT, self.me.uid)
        if existing is not None:
            return await proposal_view(self.watch, existing, self.me.uid)

        async def signed() -> Call:
            deadline = self._deadline()
            name = (await self.watch.group(group)).name
            digest = request_digest(self.own.network, name, self.me.uid, self.me.epoch, deadline)
            return self.calls.request_for(group, self._signer, deadline, self._sign(digest))

        paid = await self.payer.carry_out(self.calls.request(group), self.account_key, signed)
        return await self._opened(group, Kind.ADMIT, self.me.uid, paid)

    async def propose(self, group: int, kind: Kind, subject: User) -> ProposalView:
        """Opens a proposal about a user."""
        found = await self._require_member(group)
        inside = any(member.uid == subject.uid for member in found.members)
        if kind is Kind.ADMIT and inside:
            raise AlreadyDone(f"{subject.username} is a member already.")
        if kind is Kind.EXPEL and not inside:
            raise AlreadyDone(f"{subject.username} is not a member.")
        if await open_proposal(self.watch, group, kind, subject.uid) is not None:
            raise AlreadyDone(
                f"A proposal to {kind.name.lower()} {subject.username} is open already.",
                "`chatchain proposals` shows it; vote on that one.",
            )
        return await self._propose(group, kind, subject.uid, Reason())

    async def propose_wish(self, group: int, wish: Wish) -> ProposalView:
        """Opens a proposal to set what a person asked for."""
        found = await self._require_member(group)
        decision = wish(found, await self.watch.ledger())
        return await self._propose_once(group, KIND_OF[type(decision)], decision)

    async def propose_pause(self, kind: Kind, reason: Reason) -> ProposalView:
        """Opens a proposal to pause the network or to end its pause."""
        await self._require_member(0)
        return await self._propose_once(0, kind, reason)

    async def _propose_once(self, group: int, kind: Kind, decision: Decision) -> ProposalView:
        data = self.calls.decision_data(decision)
        for proposal in await self.watch.proposals(group):
            if (proposal.kind, proposal.data, proposal.state) == (kind, data, ProposalState.OPEN):
                raise AlreadyDone(
                    f"Proposal {proposal.id} asks for the same and is open.",
                    "`chatchain proposals` shows it; vote on that one.",
                )
        return await self._propose(group, kind, Uid(0), decision)

    async def _propose(self, group: int, kind: Kind, subject: Uid, decision: Decision) -> ProposalView:
        data = self.calls.decision_data(decision)

        async def signed() -> Call:
            name, deadline = (await self.watch.group(group)).name, self._deadline()
            digest = propose_digest(
                self.own.network, name, kind, subject, decision, self.me.uid, self.me.epoch, deadline
            )
            return self.calls.propose_for(
                group, kind, subject, data, self._signer, deadline, self._sign(digest)
            )

        direct = self.calls.propose(group, kind, subject, data)
        paid = await self.payer.carry_out(direct, self.account_key, signed)
        return await self._opened(group, kind, subject, paid, data)

    async def vote(self, number: int, support: bool) -> ProposalView:
        """Casts this user's vote."""
        known = ProposalId(number)
        proposal = await self.watch.proposal(known)
        if proposal is None:
            raise UnknownProposal(f"There is no proposal {number}.", "`chatchain proposals` lists them.")
        if proposal.state is not ProposalState.OPEN:
            raise VotingClosed(
                f"Proposal {number} is {proposal.state.name.lower()}; it takes no more votes.", SEE
            )
        group = await self._require_member(proposal.group)
        if self.me.uid in proposal.voters:
            raise AlreadyVoted(f"You have voted on proposal {number} already; a vote counts once.", SEE)
        seat = next(member for member in group.members if member.uid == self.me.uid)
        if seat.block > proposal.block:
            raise NotAMember(
                f"You joined after proposal {number} was opened; only members of that moment vote."
            )

        async def signed() -> Call:
            digest = vote_digest(self.own.network, number, self.me.uid, self.me.epoch, support)
            return self.calls.vote_by_sig(known, support, self._signer, self._sign(digest))

        async def counted() -> Proposal | None:
            found = await self.watch.proposal(known)
            return found if found is not None and self.me.uid in found.voters else None

        async def shown() -> int | None:
            await self.watch.sync()
            return self.watch.head if await counted() is not None else None

        paid = await self.payer.carry_out(
            self.calls.vote(known, support), self.account_key, signed, shown, may_be_passed_over=True
        )

        found = await self.watch.until(counted, "The vote")
        return await proposal_view(self.watch, found, self.me.uid, paid)

    # --- inside --------------------------------------------------------------------------------------------

    @property
    def _signer(self) -> Address:
        return self.own.secrets.signer_address

    def _sign(self, digest: bytes) -> bytes:
        return sign_digest(self.own.secrets.signer, digest)

    def _deadline(self) -> int:
        return int(self.now()) + SIGNATURE_LASTS_S

    async def _require_member(self, group: int) -> Group:
        found = await self.watch.group(group)
        if not any(member.uid == self.me.uid for member in found.members):
            raise NotAMember(
                "Only admitted members propose and vote.", await way_in(self.watch, self.me.uid, group)
            )
        return found

    async def _opened(
        self, group: int, kind: Kind, subject: Uid, paid: Paid, data: bytes = b""
    ) -> ProposalView:
        async def listed() -> Proposal | None:
            for proposal in reversed(await self.watch.proposals(group)):
                same = (proposal.kind, proposal.subject, proposal.data) == (kind, subject, data)
                if same and proposal.block >= paid.block:
                    return proposal
            return None if data else await open_proposal(self.watch, group, kind, subject)

        found = await self.watch.until(listed, "The proposal")
        return await proposal_view(self.watch, found, self.me.uid, paid)


async def request(station: Station, group: str | None = None) -> ProposalView:
    """Opens the proposal to admit this user."""
    bench = await Governance.at(station)
    return await bench.request(await group_number(bench.watch, group))


async def propose(station: Station, kind: str, who: str, group: str | None = None) -> ProposalView:
    """Opens a proposal (`admit`, `expel`)."""
    known = KINDS.get(kind.lower())
    if known is None:
        raise UsageError(f"There is no proposal to {kind}.", f"Known: {', '.join(KINDS)}.")
    bench = await Governance.at(station)
    number = await group_number(bench.watch, group)
    return await bench.propose(number, known, await find(bench.watch, who))


async def propose_wish(station: Station, wish: Wish, group: str | None = None) -> ProposalView:
    """Opens a proposal to set something: rules, an office, relays, a successor (`client.decisions`)."""
    bench = await Governance.at(station)
    return await bench.propose_wish(await group_number(bench.watch, group), wish)


async def propose_pause(station: Station, reason: str = "", *, end: bool = False) -> ProposalView:
    """Opens a proposal to pause the network, or to end its pause."""
    why = pause_reason(reason)
    return await (await Governance.at(station)).propose_pause(Kind.UNPAUSE if end else Kind.PAUSE, why)


async def proposals(
    station: Station, group: str | None = None, *, open_only: bool = False
) -> list[ProposalView]:
    """The proposals, oldest first."""
    watch = await station.public_watch()
    number = await group_number(watch, group)
    account = station.home.account()
    me = Uid(account.uid) if account is not None and account.uid else None
    return [
        await proposal_view(watch, proposal, me)
        for proposal in await watch.proposals(number)
        if not open_only or proposal.state is ProposalState.OPEN
    ]


async def vote(station: Station, proposal: int, support: bool) -> ProposalView:
    """Casts this user's vote; the deciding vote carries the proposal out."""
    return await (await Governance.at(station)).vote(proposal, support)
