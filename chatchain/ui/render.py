"""Views as lines of text for a person. Whatever came from others is cleaned here, and nowhere later."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

from chatchain.ui.clean import clean_line, clean_lines

if TYPE_CHECKING:
    from chatchain.client.views import (
        CardView,
        ChatSettings,
        ContactView,
        Exported,
        Fetched,
        Finding,
        Invited,
        Joined,
        KeyView,
        LinkAccepted,
        Linked,
        LinkOffer,
        LinkRequest,
        LoggedIn,
        LoggedOut,
        MemberView,
        NextAddress,
        PasswordChanged,
        PendingRecovery,
        PrivacyView,
        Problem,
        ProfileView,
        ProposalView,
        Recoverable,
        Recovered,
        Registered,
        RsaKey,
        RsaOpened,
        RsaSealed,
        Sent,
        Shown,
        Status,
        Vetoed,
        WalletPrompt,
        WhoAmI,
    )
    from chatchain.ui.world import Setting

NOBODY = "(nobody)"


# --- building blocks ------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell, two blanks between; every cell is cleaned."""
    lines = [list(head), *([clean_line(cell) for cell in row] for row in rows)]
    widths = [max(width(line[column]) for line in lines) for column in range(len(head))]
    return [
        "  ".join(pad(cell, widths[column]) for column, cell in enumerate(line)).rstrip() for line in lines
    ]


def fields(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Names and values, one pair a line."""
    kept = [(name, clean_line(value)) for name, value in pairs]
    widest = max((width(name) for name, _ in kept), default=0)
    return [f"{pad(name, widest)}  {value}".rstrip() for name, value in kept]


def width(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def pad(text: str, columns: int) -> str:
    """The text with blanks up to the width."""
    return text + " " * (columns - width(text))


def local_time(rfc3339: str) -> str:
    """A time in this machine's zone, to the minute."""
    try:
        return datetime.fromisoformat(rfc3339).astimezone().strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return clean_line(rfc3339)


def yes_no(value: bool) -> str:
    """A truth in a word."""
    return "yes" if value else "no"


# --- account --------------------------------------------------------------------------------------------


def joined(view: Joined, *, registered: bool = False) -> list[str]:
    """The network that this home now belongs to, and what a home without an account does next."""
    return [
        "Joined the network.",
        *fields(
            [
                ("chain", str(view.chain_id)),
                ("endpoints", ", ".join(view.endpoints)),
                ("directory", view.directory),
                ("relay", view.relay),
                ("who may message", _policy(view.policy)),
            ]
        ),
        *([] if registered else ["Next: `chatchain register NAME`."]),
    ]


def rsa_key(view: RsaKey) -> list[str]:
    """An RSA key on the chain, with what it is worth."""
    return [
        f"RSA key {view.key} (version {view.version}) is on the chain.",
        *fields([("worth", view.label), ("SHA-256", view.fingerprint), ("block", str(view.block))]),
    ]


def rsa_sealed(view: RsaSealed) -> list[str]:
    """A text under somebody's RSA key; its own first lines say what it is."""
    return [
        f"For {clean_line(view.to)}, to be carried by other means. {view.label}:",
        "",
        *view.envelope.splitlines(),
        *_changed_rsa(view.to, view.changed),
    ]


def rsa_opened(view: RsaOpened) -> list[str]:
    """What came under an RSA key. Lines of the text are marked, so that none can pass for another message."""
    return [
        f"{local_time(view.time)}  {clean_line(view.from_)}, by other means. {view.label}:",
        *(f"  | {line}" for line in clean_lines(view.text)),
        *(["You have opened this message here before."] if view.repeated else []),
        *_changed_rsa(view.from_, view.changed),
    ]


def _changed_rsa(who: str, changed: str | None) -> list[str]:
    if not changed:
        return []
    return [
        f"Since you last used an RSA key of {clean_line(who)}: {clean_line(changed)}. Ask whether that is so."
    ]


def link_request(view: LinkRequest, *, in_menu: bool = False) -> list[str]:
    """What the new device shows, to be carried to an old one."""
    there = "There, choose `link` in the menu, or run `chatchain link --accept TEXT`, with this text, whole:"
    return [
        f"This will be device {view.device} of {clean_line(view.username)}, once an old device lets it in.",
        there if in_menu else "There, run `chatchain link --accept TEXT` with this text, whole:",
        "",
        view.request,
        "",
        *fields([("code", view.code)]),
        "The old device must show the same code. Keep the text to yourself.",
        f"Then bring its answer here{'' if in_menu else ': `chatchain link --answer TEXT`'}. Only that",
        "shows whether the password is the account's; if it is not, you are asked for the right one then.",
    ]


def link_offer(view: LinkOffer) -> list[str]:
    """What an old device would let in."""
    return [
        f"A new device wants to be device {view.device} of {clean_line(view.username)}.",
        "It will read what is sent to you from now on, and speak and vote in your name until it is revoked.",
        *fields([("code", view.code), ("fingerprint", view.fingerprint)]),
    ]


def wallet_prompt(view: WalletPrompt, *, in_menu: bool = False) -> list[str]:
    """What goes to a wallet, and what comes back from it."""
    back = "give here what the wallet gave." if in_menu else "run the same command with"
    lines = [
        f"Have the wallet of {view.account} sign this (eth_signTypedData_v4) until {local_time(view.until)}:",
        "",
        json.dumps(view.typed_data),
        "",
        f"It adds device {view.device} to {clean_line(view.username)}. Then {back}",
    ]
    return lines if in_menu else [*lines, "`--signature HEX` in the place of `--wallet`."]


def link_accepted(view: LinkAccepted) -> list[str]:
    """The answer, to be carried to the new device."""
    lines = [
        f"Device {view.device} of {clean_line(view.username)} is on the chain. On the new device, run",
        "`chatchain link --answer TEXT` with this text, whole:",
        "",
        view.answer,
        "",
    ]
    if view.history is not None:
        lines.append(
            f"The file {clean_line(view.history)} has {view.contacts} contacts and {view.messages} messages, "
            "sealed for the new device: bring it there and add --history FILE."
        )
    elif view.contacts or view.messages:
        lines.append(
            f"{view.contacts} contacts and {view.messages} messages wait for it at the relay, under seal."
        )
    return lines


def link_answer(view: LinkAccepted) -> list[str]:
    """The same for who sits at a menu."""
    lines = [
        f"Device {view.device} of {clean_line(view.username)} is on the chain. On the new device, give this",
        "text, whole, as the old device's answer:",
        "",
        view.answer,
        "",
    ]
    if view.contacts or view.messages:
        lines.append(
            f"{count(view.contacts, 'contact')} and {count(view.messages, 'message')} wait for it at the "
            "relay, under seal."
        )
    return lines


def linked(view: Linked) -> list[str]:
    """A device that has moved in."""
    lines = [
        f"This is device {view.device} of {clean_line(view.username)} now.",
        *fields(
            [
                ("id", str(view.uid)),
                ("account", view.account),
                ("contacts", str(view.contacts)),
                ("messages", str(view.messages)),
            ]
        ),
        "The account's key stays on the old device: only there are devices added and revoked.",
    ]
    return lines + _not_done(view.problem)


def registered(view: Registered) -> list[str]:
    """A new account, or one brought back."""
    if view.key_brought:
        return [
            f"This home, device {view.device} of {clean_line(view.username)}, holds the account's key now.",
            "Nothing else has changed.",
        ]
    lines = [
        f"{clean_line(view.username)} is back, as device {view.device} of the account."
        if view.restored
        else f"Welcome, {clean_line(view.username)}. The account is registered on the chain.",
        *fields(
            [
                ("id", str(view.uid)),
                ("account", view.account),
                ("device", str(view.device)),
                ("transaction", view.tx),
                ("block", str(view.block)),
                ("paid by", "the network" if view.sponsored else "the account"),
                ("member", yes_no(view.member)),
            ]
        ),
    ]
    if view.proposal is not None and not view.member:
        lines.append(f"The members were asked to admit you: proposal {view.proposal}.")
    return lines + _not_done(view.problem)


def recoverable(view: Recoverable) -> list[str]:
    """Whose account comes back, and which of its devices may be in other hands."""
    return [
        f"This is the phrase of {clean_line(view.username)}. These devices speak for the account:",
        *table(
            ("device", "version", "since", "fingerprint"),
            [
                (str(device.device), str(device.version), local_time(device.time), device.fingerprint)
                for device in view.devices
            ],
        ),
        "What is lost or stolen should be revoked: it can then neither read what comes nor speak for you.",
    ]


def recovered(view: Recovered) -> list[str]:
    """An account that is back."""
    name = clean_line(view.username)
    lines = [
        f"{name} is back, as device {view.device} of the account.",
        *fields(
            [
                ("id", str(view.uid)),
                ("account", view.account),
                ("member", yes_no(view.member)),
                ("revoked", ", ".join(str(device) for device in view.revoked) or "no device"),
            ]
        ),
        "Messages of before are on the old devices only. Who has verified you is told of the new device;",
    ]
    if view.replaced is None:
        lines.append("the safety number is the same as before.")
    else:
        lines.append(f"the safety number is another: this account took the place of {view.replaced}.")
    return lines + _others(view, name) + _not_done(view.problem)


def _others(view: Recovered, name: str) -> list[str]:
    """What became of the account's other devices."""
    if view.replaced is not None:
        return [
            f"Device {device} cannot log in any more, but still votes for {name}: `chatchain keys revoke "
            f"{device}`. If you have it, link it anew."
            for device in view.others
        ]
    lines = []
    if view.password_changed:
        lines.append(
            "The account's password was changed by this, for every device: it is the one chosen here."
        )
        if view.others:
            lines.append("Other devices still open with the old one: run `chatchain password` there.")
    return lines + [
        f"Device {device} still reads and speaks for {name}. If it is lost: `chatchain keys revoke {device}`."
        for device in view.others
    ]


def _not_done(problem: Problem | None) -> list[str]:
    if problem is None:
        return []
    return [f"Not done yet: {clean_line(problem.message)} The next command tries again."]


def vetoed(view: Vetoed) -> list[str]:
    """A recovery that was refused."""
    return [
        f"Refused: {clean_line(view.refused)} will not be the account of {clean_line(view.username)}.",
        "A recovery can be refused once in 30 days. If whoever has the recovery address is not to be trusted",
        "any more, name another now: `chatchain recover address WHO`.",
    ]


def invited(view: Invited) -> list[str]:
    """An invitation, and where to put it."""
    return [
        f"One newcomer may register with this until {local_time(view.expires)}. Whoever has it may use it.",
        "",
        view.invitation,
        "",
        "Or send this join link, which carries it:",
        "",
        view.join,
    ]


def alarm(pending: PendingRecovery) -> list[str]:
    """What nobody may overlook: somebody is about to take the account over."""
    return [
        "",
        f"*** Somebody proposed to take your account over at block {pending.block}. ***",
        f"From {local_time(pending.ready)} on, {clean_line(pending.account)} may become the account.",
        *_what_helps(pending),
    ]


def _what_helps(pending: PendingRecovery) -> list[str]:
    if pending.veto_from is None:
        return ["If that is not your doing, refuse it with: chatchain recover --veto"]
    spent = "You have refused one less than 30 days ago, and can again from"
    if pending.veto_from < pending.ready:
        return [
            f"{spent} {local_time(pending.veto_from)} on: in time, with `chatchain recover --veto`.",
            "Do not miss it, if this is not your doing; until then warn your contacts over another channel.",
        ]
    return [
        f"{spent} {local_time(pending.veto_from)} on only: this account cannot stop it.",
        "If it is not your doing, warn your contacts over another channel, and agree with whoever has the",
        "recovery address, if that is not the thief.",
    ]


def coming(change: NextAddress | None) -> str:
    """A change of the recovery address that waits, behind the one that counts."""
    if change is None:
        return ""
    return f" (from {local_time(change.since)} on {clean_line(change.address) or 'none'})"


def logged_in(view: LoggedIn) -> list[str]:
    """The relay knows who this is."""
    lines = [
        f"Logged in as {clean_line(view.username)} (device {view.device}) at {clean_line(view.relay)}.",
        f"{count(view.waiting, 'message')} waiting." if view.waiting else "No message is waiting.",
    ]
    if view.renewed is not None:
        lines.append(
            f"An older program had registered this device: it got new keys (version {view.renewed}), which "
            "list today's encryption. Contacts who verified you are told so."
        )
    if view.problem is not None:
        lines.append(
            "This device still has the keys of an older program, without today's encryption: "
            f"{clean_line(view.problem.message)} The next login tries again."
        )
    return lines + (alarm(view.recovery) if view.recovery is not None else [])


def logged_out(view: LoggedOut) -> list[str]:
    """The session is over."""
    return [f"{clean_line(view.username)} is logged out. The keys stay in this home."]


def who_am_i(view: WhoAmI) -> list[str]:
    """The account of this home."""
    return fields(
        [
            ("name", view.username),
            ("id", str(view.uid)),
            ("account", view.account),
            ("device", _device(view)),
            ("member", "not known while the chain is away" if view.member is None else yes_no(view.member)),
            *_recovery_address(view),
        ]
    ) + _advice(view)


def _device(view: WhoAmI | Status) -> str:
    return f"{view.device} ({view.state})" if view.state not in (None, "active") else str(view.device)


def _recovery_address(view: WhoAmI | Status) -> list[tuple[str, str]]:
    """Who may propose another account, as far as somebody was named."""
    if view.recovery_address is None and view.next_recovery_address is None:
        return []
    return [("recovery address", (view.recovery_address or "none") + coming(view.next_recovery_address))]


def _advice(view: WhoAmI | Status) -> list[str]:
    """What is wrong with the account or its device, and what to do, below everything else."""
    if view.recovery is not None and view.state == "active":
        return alarm(view.recovery)
    if view.problem is None:
        return []
    return ["", clean_line(view.problem.message), clean_line(view.problem.hint)]


SILENT: Final = " (does not answer as it should: `chatchain doctor` says why)"
"""Stands behind the address of a relay that is away or somebody else's."""


def status(view: Status) -> list[str]:
    """The account of this home and its network."""
    return fields(
        [
            ("name", view.username),
            ("id", str(view.uid)),
            ("account", view.account),
            ("device", _device(view)),
            ("member", yes_no(view.member)),
            *_recovery_address(view),
            ("chain", f"{view.chain_id}, block {view.block}, asked at {view.rpc}"),
            ("directory", view.directory),
            ("relay", view.relay + ("" if view.relay_answers is not False else SILENT)),
            ("who may message", _policy(view.policy)),
            ("members", str(view.members)),
            ("open proposals", str(view.open_proposals)),
            ("unread messages", _unless_locked(view.unread)),
            ("waiting to be sent", _unless_locked(view.queued)),
        ]
    ) + _advice(view)


def _unless_locked(number: int | None) -> str:
    return "not known while the home is locked" if number is None else str(number)


def password_changed(view: PasswordChanged) -> list[str]:
    """The new password holds."""
    return [
        f"The password of {clean_line(view.username)} is changed, here and on the chain (block {view.block})."
    ]


# --- messages -------------------------------------------------------------------------------------------


def message(view: Shown, *, ids: bool = False) -> list[str]:
    """One message. Lines after the first are marked, so that no text can pass for another message.

    What is known of a message stands before its text, where the text cannot forge it; what others wrote, in
    a line of its own.
    """
    if view.direction == "out":
        who = f"to {clean_line(view.to or NOBODY)}"
        mark = f" [{clean_line(view.state)}]" if view.state else ""
    else:
        who, mark = _named(view.from_, view.name), ""
    where = f" #{clean_line(view.group)}" if view.group else ""
    place = f"  {view.id[:8]}" if ids else ""
    head = f"{local_time(view.time)}{place}{where}  {who}{mark}"
    if (told := _told(view)) is not None:
        return [f"{head} {told}"]
    if view.notice is not None:
        return [f"{local_time(view.time)}{place}{where} {_notice(view, who)}{mark}"]
    head += _remarks(view)
    if view.text is None:
        return [f"{head} * {'deleted' if view.deleted else clean_line(view.kind)}"]
    indent = " " * 16
    first, *more = clean_lines(view.text)
    head = f"{head}: {first}" if view.text else head
    lines = [head.rstrip(), *(f"{indent}  | {line}" for line in more)]
    if view.attachment is not None and view.direction != "out":
        path, fetch = view.attachment.path, f"fetch it: `chatchain file get {view.id[:8]}`"
        lines.append(f"{indent}  = {clean_line(path) if path else fetch}")
    if view.reply_to:
        lines.append(f"{indent}  > {_answered(view)}")
    if view.reactions:
        lines.append(f"{indent}  + {_reactions(view)}")
    return lines


def _named(username: str, name: str | None) -> str:
    """Who somebody is, and behind it how they want to be called: the name is never alone."""
    return f"{clean_line(username)} “{clean_line(name)}”" if name else clean_line(username)


def _notice(view: Shown, who: str) -> str:
    """What a notice says; who it is about stands before it unless it begins with that."""
    sentence = clean_line(view.notice or "")
    begins = ("You ", clean_line(view.from_) + " ")
    return f" * {sentence}" if sentence.startswith(begins) else f" {who} * {sentence}"


def _told(view: Shown) -> str | None:
    """What was done to an earlier message, in words."""
    about = f"“{clean_line(view.quote.text)}”" if view.quote is not None and view.quote.text else "a message"
    match view.kind:
        case "edit":
            first, *more = clean_lines(view.text or "")
            return f"* edited a message: {first}{' …' if more else ''}"
        case "delete":
            return "* deleted a message"
        case "reaction" if view.emoji:
            return f"* {clean_line(view.emoji)} to {about}"
        case "reaction":
            return f"* took the reaction to {about} away"
        case _:
            return None


def _remarks(view: Shown) -> str:
    """What is known of a message besides its text."""
    remarks = []
    if view.edited:
        remarks.append("edited")
    if view.attachment is not None:
        remarks.append(f"file {clean_line(view.attachment.name)}, {size(view.attachment.size)}")
    if view.expires:
        remarks.append(f"disappears {local_time(view.expires)}")
    elif view.expires_after:
        remarks.append(f"disappears {span(view.expires_after)} after reading")
    return f" ({'; '.join(remarks)})" if remarks else ""


def _answered(view: Shown) -> str:
    if view.quote is None:
        return "answers a message that is not here"
    quoted = "(deleted)" if view.quote.deleted else clean_line(view.quote.text)
    return f"answers {clean_line(view.quote.from_)}: {quoted}"


def _reactions(view: Shown) -> str:
    by_emoji: dict[str, list[str]] = {}
    for one in view.reactions:
        by_emoji.setdefault(clean_line(one.emoji), []).append(clean_line(one.from_))
    return "   ".join(f"{emoji} {', '.join(names)}" for emoji, names in by_emoji.items())


def span(seconds: int) -> str:
    """A time in the largest unit that it is a whole number of."""
    units = ((7 * 86_400, "week"), (86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
    size, unit = next((size, unit) for size, unit in units if seconds % size == 0)
    return count(seconds // size, unit)


def messages(views: Sequence[Shown], *, ids: bool = False) -> list[str]:
    """Several messages in the order given."""
    return [line for view in views for line in message(view, ids=ids)] or ["There are no messages."]


def chat_settings(view: ChatSettings) -> list[str]:
    """How a conversation is set."""
    timer = f"{span(view.expires)} after they were read" if view.expires else "never"
    lines = fields(
        [
            ("with", view.username),
            ("called", view.name or "-"),
            ("messages disappear", timer),
            ("off the record", yes_no(view.off_the_record)),
        ]
    )
    if view.state is not None:
        way = "is queued for" if view.state == "queued" else f"{clean_line(view.state)} to"
        lines.append(f"Changed, and {way} {clean_line(view.username)}.")
    return lines


def privacy(view: PrivacyView) -> list[str]:
    """What this device tells others."""
    return [
        f"Others {'see' if view.typing else 'do not see'} that you are typing.",
        f"Others {'learn' if view.read_receipts else 'do not learn'} that you have read a message.",
    ]


def profile(view: ProfileView) -> list[str]:
    """The own display name."""
    lines = [
        f"You are shown as {_named(view.username, view.name)}."
        if view.name
        else f"You have no display name; you are shown as {clean_line(view.username)}."
    ]
    if view.told:
        lines.append(f"{count(view.told, 'contact')} will see it; others do when you write to them.")
    return lines


def sent(view: Sent, done: str = "") -> list[str]:
    """How far an own message came, or what was `done` to one; why not further is said once, by the error that
    follows.
    """
    return [f"{done}{', ' if done else ''}{view.state} to {clean_line(view.to)}  ({view.id})"]


def fetched(view: Fetched) -> list[str]:
    """The file is here."""
    return [f"{clean_line(view.name)} ({size(view.size)}) is at {clean_line(view.path)}."]


# --- people ---------------------------------------------------------------------------------------------


def contact(view: ContactView) -> list[str]:
    """Somebody, with the safety number to compare."""
    pairs = [("name", view.username), ("id", str(view.uid)), ("account", view.account)]
    if view.name:
        pairs.insert(1, ("called", view.name))
    if view.changed:
        pairs.append(("changed", view.changed))
    pairs.append(("verified", yes_no(view.verified)))
    groups = view.fingerprint.split()
    rows = [" ".join(groups[start : start + 4]) for start in range(0, len(groups), 4)]
    return [*fields(pairs), "safety number", *(f"    {clean_line(row)}" for row in rows)]


def safety_number(view: ContactView) -> list[str]:
    """The safety number, and what to do with it."""
    name = clean_line(view.username)
    return [
        *contact(view),
        ""
        if view.verified
        else f"Compare it with {name} in person or by phone, then run `chatchain contacts verify {name}`.",
    ]


def contacts(views: Sequence[ContactView]) -> list[str]:
    """Everybody that this home knows."""
    if not views:
        return ["No contacts yet. Write to somebody, or add a card: `chatchain contacts add CARD`."]
    return table(
        ["name", "called", "id", "verified", "remark"],
        (
            [view.username, view.name or "-", str(view.uid), yes_no(view.verified), view.changed or ""]
            for view in views
        ),
    )


def card(view: CardView) -> list[str]:
    """The own contact card, to hand over."""
    return [clean_line(view.card)]


# --- governance -----------------------------------------------------------------------------------------


def members(views: Sequence[MemberView]) -> list[str]:
    """Who has a seat."""
    return table(
        ["name", "id", "account", "since block"],
        ([view.username, str(view.uid), view.account, str(view.block)] for view in views),
    )


def proposal(view: ProposalView) -> list[str]:
    """One proposal and its count."""
    lines = [
        f"Proposal {view.id}: {_what(view)} ({clean_line(view.group)}) is {view.state}.",
        f"{view.yes} yes, {view.no} no, of {view.electorate} who may vote.",
    ]
    if view.state == "open":
        lines.append(f"Voting ends {local_time(view.deadline)}.")
    return lines


def proposals(views: Sequence[ProposalView]) -> list[str]:
    """All proposals."""
    if not views:
        return ["There are no proposals."]
    return table(
        ["id", "proposal", "state", "yes", "no", "of", "ends", "your vote"],
        (
            [
                str(view.id),
                _what(view),
                view.state,
                str(view.yes),
                str(view.no),
                str(view.electorate),
                local_time(view.deadline),
                "given" if view.voted else "not given",
            ]
            for view in views
        ),
    )


def _what(view: ProposalView) -> str:
    return clean_line(view.action)


def _policy(policy: str) -> str:
    known = {"open": "anyone registered", "vote": "members voted in"}
    return known.get(policy, clean_line(policy))


# --- keys and settings ----------------------------------------------------------------------------------


def keys(views: Sequence[KeyView]) -> list[str]:
    """The devices of this account."""
    return table(
        ["device", "version", "state", "since", "fingerprint", ""],
        (
            [
                str(view.device),
                str(view.version),
                view.state,
                local_time(view.time),
                view.fingerprint,
                "this one" if view.here else "",
            ]
            for view in views
        ),
    )


def rotated(view: KeyView) -> list[str]:
    """The device has new keys."""
    return [
        f"Device {view.device} has new keys: version {view.version}, on the chain since block {view.block}."
    ]


def revoked(view: KeyView, name: str) -> list[str]:
    """The device is out for ever."""
    lines = [f"Device {view.device} is revoked; nobody encrypts to it any more."]
    if view.here:
        lines += [
            f"To go on as {clean_line(name)}, bring the account back to a new home, with its phrase:",
            "`chatchain --home NEW-FOLDER recover`.",
        ]
    return lines


def exported(view: Exported) -> list[str]:
    """A keystore file was written."""
    return [
        f"The key of account {view.account} is in {clean_line(view.path)} (keystore V3).",
        "Whoever has this file and its password is you. Keep it apart from this machine.",
    ]


def findings(views: Sequence[Finding]) -> list[str]:
    """What `doctor` looked at, troubles with what to do."""
    lines = []
    for line, view in zip(
        table(["", "", ""], ([_mark(view), view.check, view.detail] for view in views))[1:],
        views,
        strict=True,
    ):
        lines.append(line)
        if view.hint:
            lines.append(f"          {clean_line(view.hint)}")
    return lines


def _mark(view: Finding) -> str:
    return "ok" if view.ok else "trouble"


def settings(values: Sequence[Setting]) -> list[str]:
    """Every setting with its origin."""
    return table(
        ["setting", "value", "from", ""],
        ([value.name, _value(value.value), str(value.origin), value.where] for value in values),
    )


def _value(value: str | float | bool | list[str] | None) -> str:
    if value is None or value == []:
        return "-"
    if isinstance(value, bool):
        return yes_no(value)
    return " ".join(value) if isinstance(value, list) else str(value)


def size(number: int) -> str:
    """A number of bytes as people say it, in powers of ten like the limits."""
    for unit, name in ((1_000_000, "MB"), (1_000, "kB")):
        if number >= unit:
            return f"{number / unit:.1f} {name}" if number < 10 * unit else f"{number // unit} {name}"
    return count(number, "byte")


def count(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
