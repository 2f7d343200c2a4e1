"""The menu about people: whom one knows, who is in the network, and what its members vote on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from chatchain.errors import AlreadyVoted, UsageError, VotingClosed
from chatchain.ui import render
from chatchain.ui.menu.dialog import Choice, Dialog

if TYPE_CHECKING:
    from chatchain.client.core import Client
    from chatchain.client.views import ProposalView


PAUSES: Final = ("pause", "unpause")
KINDS: Final = ("admit", "expel", *PAUSES)
"""What is proposed in a few words; offices, rules and relays are for the command line."""


class People:
    """What can be done about people."""

    def __init__(self, dialog: Dialog) -> None:
        self._dialog = dialog
        self.choices = (
            Choice("contacts", "whom you know, and how to be sure of them", self._contacts),
            Choice("card", "your contact card, or somebody's to add", self._card),
            Choice("members", "who is in the network", self._members),
            Choice("vote", "see the proposals, and vote", self._vote),
            Choice("propose", "propose to admit or expel somebody, or a pause", self._propose),
            Choice("request", "ask the members to admit you", self._request),
        )

    async def _contacts(self, client: Client) -> None:
        dialog = self._dialog
        dialog.say(*render.contacts(await client.contacts()))
        who = await dialog.need("Whose safety number do you want to compare? (empty: none) ")
        view = await client.safety_number(who)
        dialog.say(*render.contact(view))
        if not view.verified and await dialog.agrees("Is it the same on the other side?"):
            dialog.say(*render.contact(await client.verify(who)))

    async def _card(self, client: Client) -> None:
        dialog = self._dialog
        dialog.say(*render.card(await client.own_card()))
        card = await dialog.need("Somebody's card, to add them? (empty: none) ")
        dialog.say(*render.contact(await client.add_contact(card)))

    async def _members(self, client: Client) -> None:
        self._dialog.say(*render.members(await client.members()))

    async def _vote(self, client: Client) -> None:
        dialog, views = self._dialog, await client.proposals()
        dialog.say(*render.proposals(views))
        if not any(view.state == "open" for view in views):
            return
        number = await dialog.need("Which proposal do you want to vote on? (its id; empty: none) ")
        _require_votable(number, views)
        answer = await dialog.pick("yes or no? ", ("yes", "no"), "Type yes or no.")
        dialog.say(*render.proposal(await client.vote(int(number), answer == "yes")))

    async def _propose(self, client: Client) -> None:
        dialog = self._dialog
        kind = await dialog.pick(f"{', '.join(KINDS)}? ", KINDS, "Type one of these words.")
        if kind in PAUSES:
            reason = await dialog.ask("The reason, for everybody to see? (empty: none) ")
            view = await client.propose_pause(reason, end=kind == "unpause")
            dialog.say(*render.proposal(view))
            return
        who = await dialog.need("Whom? ")
        dialog.say(*render.proposal(await client.propose(kind, who)))

    async def _request(self, client: Client) -> None:
        self._dialog.say(*render.proposal(await client.request()))


def _require_votable(number: str, views: Sequence[ProposalView]) -> None:
    """Raises what can be known before somebody makes up their mind."""
    view = next((view for view in views if str(view.id) == number), None)
    if view is None:
        raise UsageError(
            f"{number!r} is not the number of a proposal.", "Type one of the list's first column."
        )
    if view.voted:
        raise AlreadyVoted(f"You have voted on proposal {number} already; a vote counts once.")
    if view.state != "open":
        raise VotingClosed(f"Proposal {number} is {view.state}; it takes no more votes.")
