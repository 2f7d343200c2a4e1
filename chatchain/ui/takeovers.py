"""Recovery addresses, proposals and takeovers as lines of text for a person."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from chatchain.ui.clean import clean_line
from chatchain.ui.render import alarm, coming, fields, local_time

if TYPE_CHECKING:
    from chatchain.client.views import (
        NamingOffer,
        ProposalOffer,
        ProposalPrompt,
        Proposed,
        RecoveryView,
        TakeoverView,
    )


def recovery(view: RecoveryView) -> list[str]:
    """Who may propose another account."""
    lines = fields(
        [
            ("account", f"{view.account} ({view.username})"),
            ("recovery address", (view.recovery or "none") + coming(view.next)),
        ]
    )
    if view.tx is not None and view.next is not None:
        lines.append("Until then the one before counts; naming that one again takes the change back.")
    if not view.recovery and view.next is None:
        lines.append(
            "Without one, only the recovery phrase brings a lost account back. Name somebody whom you trust, "
            "or an address of yours that lies elsewhere: `chatchain recover address WHO`."
        )
    return lines + (alarm(view.pending) if view.pending is not None else [])


def naming(offer: NamingOffer) -> list[str]:
    """What a person is asked before the recovery address changes."""
    if offer.takes_back:
        return [f"The change that waits is taken back; {clean_line(offer.now) or 'none'} goes on to count."]
    if not offer.to:
        lines = [f"Nobody is to be the recovery address any more in the place of {clean_line(offer.now)}."]
    else:
        whose = f", the account of {clean_line(offer.username)}" if offer.username else ""
        lines = [
            f"The recovery address is to be {clean_line(offer.to)}{whose}.",
            "Whoever has its key may propose another account in the place of yours, and you may",
            "refuse that once in 30 days: keep it safer than the account.",
            *unverified(offer),
        ]
    when = "It counts at once." if offer.at_once else "It counts in 21 days; the old one until then."
    return [*lines, when]


def unverified(offer: NamingOffer) -> list[str]:
    """What is not known of whom a name stands for."""
    if offer.username is None or offer.verified:
        return []
    name = clean_line(offer.username)
    return [
        f"You have not verified {name}: the chain and your endpoint alone say that this is whom you mean.",
        f"To be sure, compare the safety number first: `chatchain contacts verify {name}`.",
    ]


def proposal(offer: ProposalOffer) -> list[str]:
    """What a person is asked before another account is proposed."""
    lines = [
        f"{clean_line(offer.account)} is to be the account of {clean_line(offer.username)},",
        f"in the place of {clean_line(offer.now)}.",
        "It may take over in 7 days, unless it is refused before. Everybody can see the proposal.",
    ]
    if offer.replaces is not None:
        lines.append(f"It takes the place of an earlier proposal: {clean_line(offer.replaces)}.")
    if offer.drops is not None:
        lines.append(
            f"It takes back that the recovery address changes to {clean_line(offer.drops) or 'none'}."
        )
    return lines


def prompt(view: ProposalPrompt) -> list[str]:
    """What the wallet with the recovery address signs."""
    return [
        *proposal(view),
        f"The wallet that has {clean_line(view.by)} signs this typed data (EIP-712)",
        f"until {local_time(view.until)}:",
        "",
        json.dumps(view.typed_data),
        "",
        f"Then: {_propose(view.username, view.account)} --signature HEX",
    ]


def proposed(view: Proposed) -> list[str]:
    """A proposal that stands."""
    return [
        f"Proposed: {clean_line(view.proposed)} as the account of {clean_line(view.username)}.",
        f"It may take over from {local_time(view.ready)} on, unless it is refused before.",
        "Then, in the home that has it: chatchain recover finalise",
    ]


def takeover(view: TakeoverView) -> list[str]:
    """How a takeover stands, and who has to do what next."""
    name, account = clean_line(view.username), clean_line(view.account)
    lines = fields([("new account", account), ("to take over", name)])
    if view.state == "taken":
        return [*lines, "It is the account now. Finish with: chatchain recover finalise"]
    if view.state == "proposed" and view.ready is not None:
        return [
            *lines,
            f"It is proposed, and may take over from {local_time(view.ready)} on.",
            "Then, here: chatchain recover finalise",
        ]
    if view.proposed is not None:
        lines.append(f"Another account is proposed now: {clean_line(view.proposed)}.")
    if not view.recovery:
        return [*lines, f"{name} has named no recovery address, so nobody can propose this account."]
    return [
        *lines,
        f"Next, whoever has {name}'s recovery address {clean_line(view.recovery)} runs:",
        f"  {_propose(name, account)}",
        "Seven days later, here: chatchain recover finalise",
    ]


def _propose(name: str, account: str) -> str:
    return f"chatchain recover propose {clean_line(name)} {clean_line(account)}"


def last_word(view: TakeoverView) -> list[str]:
    """What a person is asked before an account takes over."""
    name = clean_line(view.username)
    return [
        f"{clean_line(view.account)} becomes the account of {name}, and this home a device of it.",
        "The password is the one of this home from then on. No other device of the account logs in again",
        "before it is linked anew; everybody sees another safety number and is asked to compare it.",
    ]
