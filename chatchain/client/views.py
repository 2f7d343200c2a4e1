"""What the client core answers: one struct per command, whose fields are the JSON keys that the command
prints.

A user interface shows these and computes nothing further. Ids of messages are 32 hex digits, accounts EIP-55
text, times RFC 3339 in UTC, uids whole numbers; a field that does not apply is None and may be left out of
what is printed.
"""

from __future__ import annotations

import msgspec


class View(msgspec.Struct, frozen=True, omit_defaults=True):
    """What every view is; fields at their default are left out of the JSON."""


class Problem(View, frozen=True):
    """Why something did not work, as an error is printed."""

    code: str
    message: str
    hint: str = ""


class Joined(View, frozen=True):
    """The network that this home now belongs to. `rpc` is the first endpoint; `endpoints` has all of them."""

    rpc: str
    directory: str
    endpoints: tuple[str, ...]
    chain_id: int
    policy: str
    relay: str


class Registered(View, frozen=True, omit_defaults=False):
    """A new account, or a new device of a restored one (`restored`).

    With `key_brought` it is a device that was there before, and has the account's key now.
    """

    username: str
    uid: int
    account: str
    device: int
    tx: str
    block: int
    member: bool
    proposal: int | None = None
    restored: bool = False
    sponsored: bool = False
    key_brought: bool = False
    problem: Problem | None = None
    """What is left to do, if the account is there and a later step (keys at the relay, request to join)
    failed.
    """


class PendingRecovery(View, frozen=True):
    """The recovery address proposed, at `block`, that `account` take the place of a user's: possible from the
    time `ready` on. `veto_from` is from when on the account may refuse it, if it may not now.
    """

    account: str
    ready: str
    block: int
    veto_from: str | None = None


class NextAddress(View, frozen=True):
    """The recovery address that was announced at `block` and counts from the time `since` on; an empty one:
    none.
    """

    address: str
    since: str
    block: int


class RecoveryView(View, frozen=True, omit_defaults=False):
    """Who may propose another account for a user: `recovery` is that address, empty where there is none.

    `next` is the one that takes its place, `pending` the account that was proposed. `device` is this home's,
    and `tx` and `block` are set by the command that changed the chain.
    """

    username: str
    uid: int
    account: str
    recovery: str
    next: NextAddress | None
    pending: PendingRecovery | None
    device: int
    version: int
    state: str
    tx: str | None = None
    block: int | None = None


class NamingOffer(View, frozen=True, omit_defaults=False):
    """What naming a recovery address would do: `to` may be empty; `username` is whose account it is, if it is
    one, and `verified` whether that user's keys were compared here; `at_once` whether it counts without the
    delay, and `takes_back` whether it only takes back the change that waits.
    """

    to: str
    username: str | None
    verified: bool
    now: str
    at_once: bool
    takes_back: bool


class ProposalOffer(View, frozen=True, omit_defaults=False):
    """What a proposal would do: `account` in the place of `now`, by the recovery address `by`.

    `replaces` is the account that is proposed already, `drops` the change of the recovery address that a
    proposal takes back.
    """

    username: str
    uid: int
    now: str
    account: str
    by: str
    replaces: str | None = None
    drops: str | None = None


class ProposalPrompt(ProposalOffer, frozen=True, omit_defaults=False, kw_only=True):
    """The same, with what the wallet that has the recovery address signs for it, as eth_signTypedData_v4
    takes it; the signature counts until `until`.
    """

    typed_data: dict[str, object]
    state: str
    until: str


class Proposed(View, frozen=True, omit_defaults=False):
    """Another account was proposed for a user; it may take over from `ready` on."""

    username: str
    uid: int
    account: str
    proposed: str
    ready: str
    tx: str
    block: int
    sponsored: bool


class TakeoverView(View, frozen=True, omit_defaults=False):
    """A home with a new account that is to take the place of a user's.

    `state` is `waiting` until the recovery address `recovery` (empty: there is none) proposed `account`,
    `proposed` from then on, `taken` once it is the user's. `ready` is from when on a proposed one may take
    over, and `proposed` which account is proposed now.
    """

    username: str
    uid: int
    account: str
    recovery: str
    state: str
    proposed: str | None = None
    ready: str | None = None


class Recoverable(View, frozen=True, omit_defaults=False):
    """The account that a recovery phrase belongs to, with the devices that are active there."""

    username: str
    uid: int
    account: str
    devices: tuple[KeyView, ...]
    pending: PendingRecovery | None = None


class Recovered(View, frozen=True, omit_defaults=False):
    """An account that came back to a new home, as its device `device`.

    `revoked` are the devices that this ended, `others` those that still speak for the account; `problem` says
    what is left to do at the relay. `password_changed`: the account has another password by this. `replaced`
    is the account that this one took the place of, by a proposal of the recovery address.
    """

    username: str
    uid: int
    account: str
    device: int
    version: int
    state: str
    member: bool
    revoked: tuple[int, ...]
    others: tuple[int, ...]
    tx: str
    block: int
    sponsored: bool
    problem: Problem | None = None
    password_changed: bool = False
    replaced: str | None = None


class Vetoed(View, frozen=True, omit_defaults=False):
    """A pending recovery that the account refused: `refused` does not take the place of `account`."""

    username: str
    uid: int
    account: str
    refused: str
    device: int
    version: int
    state: str
    tx: str
    block: int


class Invited(View, frozen=True):
    """A member's invitation for one newcomer, as text and inside the network's join link."""

    invitation: str
    expires: str
    join: str


class LoggedIn(View, frozen=True):
    """The relay accepted password and device. `waiting` counts what the relay holds for this device, receipts
    included: `receive` may show less.

    `renewed` is the version of the keys that this login gave the device because the record of those before
    lacked a suite; `problem` says why that did not work, if it did not. `recovery` is the account that was
    proposed in the place of this one.
    """

    username: str
    uid: int
    device: int
    relay: str
    waiting: int
    renewed: int | None = None
    problem: Problem | None = None
    recovery: PendingRecovery | None = None


class LoggedOut(View, frozen=True, omit_defaults=False):
    """The session with the relay is over; the keys stay. `member` as in `whoami`."""

    username: str
    uid: int
    account: str
    device: int
    member: bool | None


class WhoAmI(View, frozen=True, omit_defaults=False):
    """The account of this home; `member` and `state` are None while the chain cannot be asked.

    `state` is this home's device's: active or revoked. `recovery` is the account that was proposed in the
    place of this one, and `problem` says what happened and what to do. `recovery_address` is who could
    propose one, `next_recovery_address` who will.
    """

    username: str
    uid: int
    account: str
    device: int
    member: bool | None
    state: str | None = None
    recovery: PendingRecovery | None = None
    problem: Problem | None = None
    recovery_address: str | None = None
    next_recovery_address: NextAddress | None = None


class Status(View, frozen=True, omit_defaults=False):
    """The account of this home and how its network looks from here.

    `queued` and `unread` are None while the home is locked (no password given) or in use by another process;
    the rest of the account's standing is as in `whoami`; `relay_answers` is None where the chain names none.
    """

    username: str
    uid: int
    account: str
    device: int
    member: bool
    rpc: str
    directory: str
    chain_id: int
    block: int
    relay: str
    policy: str
    members: int
    open_proposals: int
    queued: int | None = None
    unread: int | None = None
    state: str | None = None
    recovery: PendingRecovery | None = None
    problem: Problem | None = None
    recovery_address: str | None = None
    next_recovery_address: NextAddress | None = None
    relay_answers: bool | None = None


class Sent(View, frozen=True):
    """One own message and how far it came. With `error` the state is queued or dropped.

    Of an edit, a deletion or a reaction `id` is the message that it is about, and `change` its own id.
    """

    id: str
    to: str
    state: str
    time: str = ""
    change: str | None = None
    error: Problem | None = None


class Fetched(View, frozen=True, omit_defaults=False):
    """The file of a message is here: whole, and with the hash that the message names."""

    id: str
    state: str
    name: str
    size: int
    sha256: str
    media_type: str
    path: str


class Quote(View, frozen=True, omit_defaults=False):
    """What this home has of the message that another one answers."""

    from_: str = msgspec.field(name="from")
    text: str
    deleted: bool = False


class Reacted(View, frozen=True, omit_defaults=False):
    """One person's emoji at a message."""

    from_: str = msgspec.field(name="from")
    emoji: str


class Preview(View, frozen=True, omit_defaults=False):
    """The small picture inside a message: of which type, and how many bytes."""

    media_type: str
    size: int


class Attachment(View, frozen=True, omit_defaults=False):
    """The file that a message brings; `path` is where it was stored, if it was."""

    name: str
    size: int
    sha256: str
    media_type: str
    path: str | None = None
    thumbnail: Preview | None = None


class Shown(View, frozen=True):
    """One message as people read it.

    `kind` is text, file or notice; a notice has no text: `notice` holds its sentence and `code` a stable word
    for it. `receive` also tells of what was done to earlier messages: an edit (with the new text), a delete,
    a reaction (with the emoji, empty when it was taken away); `target` is the message that it is about. A
    sign of typing has no id.

    `from_` is printed as `from`; `name` is the display name that they chose, which nobody has checked. A
    deleted message has no text. `expires_after` is how many seconds after it was read a message disappears,
    `expires` when, once that is known. In `history` and `search`, `direction` and `state` are set too; `to`
    names the peer of an own message.
    """

    id: str
    kind: str
    time: str
    from_: str = msgspec.field(name="from")
    from_uid: int = 0
    name: str | None = None
    text: str | None = None
    group: str | None = None
    notice: str | None = None
    code: str | None = None
    to: str | None = None
    target: str | None = None
    emoji: str | None = None
    reply_to: str | None = None
    quote: Quote | None = None
    reactions: tuple[Reacted, ...] = ()
    attachment: Attachment | None = None
    edited: bool = False
    deleted: bool = False
    expires_after: int | None = None
    expires: str | None = None
    direction: str | None = None
    state: str | None = None


class ChatSettings(View, frozen=True, omit_defaults=False):
    """How the conversation with somebody is set.

    `expires` is after how many seconds messages disappear, 0 never; `name` the display name that they chose.
    `state` is how far a change came (None: nothing was changed). With `error` it counts here and is queued.
    """

    username: str
    uid: int
    name: str
    expires: int
    off_the_record: bool
    state: str | None = None
    error: Problem | None = None


class PrivacyView(View, frozen=True, omit_defaults=False):
    """What this device tells others of its own accord."""

    typing: bool
    read_receipts: bool


class ProfileView(View, frozen=True, omit_defaults=False):
    """The own display name, shown beside the username to whom one writes with; `told` counts to whom a change
    is on its way.
    """

    username: str
    uid: int
    name: str
    told: int = 0


class ContactView(View, frozen=True, omit_defaults=False):
    """Somebody this home knows. `fingerprint` is the safety number of the two of you: 60 digits in groups of
    five; `code` is the same for a QR code, as they scan it. `name` is the display name that they chose, which
    nobody has checked.
    """

    username: str
    uid: int
    account: str
    fingerprint: str
    verified: bool
    changed: str | None = None
    """What changed since `verify`, if something did: sending is blocked until it is verified again."""
    name: str = ""
    code: str = ""


class CardView(View, frozen=True):
    """One's own contact card: `card` is the text to hand over, for `contacts add` at the other side."""

    card: str
    username: str
    uid: int
    account: str
    fingerprint: str
    verified: bool
    """True: nobody has to compare their own keys with themselves."""


class MemberView(View, frozen=True):
    """A member of a group; `sequence` tells who was there before whom."""

    username: str
    uid: int
    account: str
    sequence: int
    block: int


class ProposalView(View, frozen=True, omit_defaults=False):
    """A proposal and its count. `subject` and `proposer` are usernames, `subject` empty where it is about
    nobody; `action` says what it would do; `tx` is set by the command that changed the chain.
    """

    id: int
    kind: str
    subject: str
    yes: int
    no: int
    electorate: int
    state: str
    group: str
    subject_uid: int
    proposer: str
    deadline: str
    voted: bool
    """Whether this home's user has voted."""
    action: str = ""
    tx: str | None = None
    block: int | None = None
    sponsored: bool | None = None


class KeyView(View, frozen=True, omit_defaults=False):
    """A device of this account: `state` active or revoked, `version` of its keys, `here` whether it is this
    home's.
    """

    device: int
    version: int
    state: str
    here: bool
    signer: str
    fingerprint: str
    block: int
    time: str
    tx: str | None = None


class RsaKey(View, frozen=True, omit_defaults=False):
    """An RSA key of this account on the chain; the `label` says what it is worth."""

    key: int
    version: int
    state: str
    label: str
    fingerprint: str
    block: int
    tx: str | None = None


class RsaSealed(View, frozen=True, omit_defaults=False):
    """A text under somebody's RSA key, to be carried by other means; the `label` says what that is worth."""

    id: str
    to: str
    to_uid: int
    time: str
    label: str
    envelope: str
    changed: str | None = None
    """What is new about the recipient's RSA keys since they were used last."""


class RsaOpened(View, frozen=True, omit_defaults=False):
    """What somebody had sealed to this account's RSA key; the `label` says what that is worth.

    `repeated` is whether this message was opened here before; `changed` is what is new about the sender's
    RSA keys since they were used last.
    """

    id: str
    from_: str = msgspec.field(name="from")
    from_uid: int
    time: str
    label: str
    text: str
    repeated: bool
    changed: str | None = None


class LinkRequest(View, frozen=True, omit_defaults=False):
    """What a new device shows: the text for an old one, and the `code` that both must show."""

    request: str
    code: str
    username: str
    uid: int
    device: int
    version: int
    state: str
    fingerprint: str


class LinkOffer(View, frozen=True):
    """What an old device read in a new one's text: what would be added, and the code to compare."""

    code: str
    username: str
    device: int
    signer: str
    fingerprint: str
    added: bool


class LinkAccepted(View, frozen=True, omit_defaults=False):
    """The chain lists the new device. `answer` is the text for it; the file `history` goes with it."""

    answer: str
    code: str
    username: str
    uid: int
    device: int
    version: int
    state: str
    history: str | None = None
    contacts: int = 0
    messages: int = 0
    tx: str | None = None


class WalletPrompt(View, frozen=True, omit_defaults=False):
    """What a wallet that has the account's key signs to add a device, as eth_signTypedData_v4 takes it.

    `code` is what the new device must show; the signature counts until `until`.
    """

    typed_data: dict[str, object]
    account: str
    username: str
    uid: int
    device: int
    version: int
    state: str
    code: str
    until: str


class Linked(View, frozen=True, omit_defaults=False):
    """This home is a device of the account now; `problem` as in Registered."""

    username: str
    uid: int
    account: str
    device: int
    version: int
    state: str
    contacts: int
    messages: int
    problem: Problem | None = None


class Exported(View, frozen=True, omit_defaults=False):
    """A keystore V3 file of the account was written, by this `device`.

    The `version` and `state` of its keys are None while the chain cannot be asked.
    """

    path: str
    account: str
    device: int
    version: int | None
    state: str | None


class PasswordChanged(View, frozen=True):
    """The verifier on chain and the vault of this home follow the new password; `device` and its keys'
    `version` and `state` are as before.
    """

    username: str
    uid: int
    tx: str
    block: int
    device: int
    version: int
    state: str


class Finding(View, frozen=True, omit_defaults=False):
    """One thing that `doctor` looked at."""

    check: str
    ok: bool
    detail: str
    hint: str = ""
    exit_code: int = 0
    """What a command that met this trouble would end with."""
