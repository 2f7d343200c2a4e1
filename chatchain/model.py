"""The words of the domain: ids, envelopes, receipts, contacts. Values only, no behaviour that could fail.

Bytes inside, text at the edges: ids of messages are 16 random bytes here and 32 hex digits on a screen;
addresses are 20 bytes here and EIP-55 text on a screen.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum, StrEnum
from functools import cached_property
from typing import Final, NamedTuple, NewType

import msgspec

from chatchain.errors import ChatchainError

Uid = NewType("Uid", int)
"""A user's 15-digit number, check digit included. It names; it never authenticates."""

DeviceId = NewType("DeviceId", int)
"""A device of one user, counted from 1. In `resolve` 0 stands for the account itself."""

Address = NewType("Address", bytes)
"""An Ethereum address: 20 bytes."""

MessageId = NewType("MessageId", bytes)
"""16 random bytes chosen by the sender's device; the same in every copy of a message."""

ProposalId = NewType("ProposalId", int)

MESSAGE_ID_BYTES = 16
MAX_TEXT_BYTES = 64 * 1024
"""UTF-8 bytes of one text message."""

EDIT_WINDOW_MS = 24 * 3600 * 1000
"""How long after it was written a message may be edited, by the author's clock."""
DELETE_WINDOW_MS = 48 * 3600 * 1000
"""How long after it was written a message may be taken back, by the author's clock."""
GRACE_MS = 48 * 3600 * 1000
"""How much later, by the relay's clock, an edit or deletion may come in: its author may have been offline."""
MAX_EDITS = 10
"""Edits of one message that count: the first ones by (time, id)."""


class Suite(IntEnum):
    """How an envelope is encrypted; the number travels in every envelope."""

    SEALED = 1
    RATCHET = 2


RELAYS_WORD: Final = 0xFFFF
"""In the place of a suite: the relay itself wrote this delivery and nobody signed it. It names messages of
the reader's to `sender` that waited too long.
"""


class DeviceState(IntEnum):
    """A device's life: NONE → ACTIVE → REVOKED; REVOKED is terminal."""

    NONE = 0
    ACTIVE = 1
    REVOKED = 2


class KeyKind(IntEnum):
    """What kind of public key a user publishes besides its devices."""

    RSA2048_OAEP = 0


class Kind(IntEnum):
    """What a proposal would do when it passes; from SET_ANCHORER on in group 0 only."""

    ADMIT = 0
    EXPEL = 1
    SET_RULES = 2
    SET_ANCHORER = 3
    SET_WITNESSES = 4
    SET_RELAYS = 5
    SET_REWARDS = 6
    SUCCESSOR = 7
    PAUSE = 8
    UNPAUSE = 9


class ProposalState(IntEnum):
    """Where a proposal stands, numbered as in the Membership contract."""

    NONE = 0
    OPEN = 1
    PASSED = 2
    REJECTED = 3
    EXPIRED = 4
    VOID = 5


class Policy(IntEnum):
    """Who may message in the network: anyone registered, or admitted members only."""

    OPEN = 0
    VOTE = 1


class MessageState(StrEnum):
    """How far an own message has come; it never moves backwards."""

    QUEUED = "queued"
    SENT = "sent"
    DELIVERED = "delivered"
    READ = "read"
    DROPPED = "dropped"


class Direction(StrEnum):
    """Whether a stored message came in or went out."""

    IN = "in"
    OUT = "out"


class Network(msgspec.Struct, frozen=True):
    """What binds every signature to one deployment: the chain and its contracts."""

    chain_id: int
    directory: Address
    registry: Address
    membership: Address
    ledger: Address = Address(bytes(20))
    rewards: Address = Address(bytes(20))


class Copy(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One device's share of an envelope: the sealed header that opens the common body."""

    uid: int
    device: int
    header: bytes


class Envelope(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One logical message on its way out: a body encrypted once and a header for each device.

    `recipient_version` and `sender_version` are the device-list versions (count of device events on chain)
    that the sender knew of the recipient and of itself; the relay refuses an older view.
    """

    id: bytes
    suite: int
    recipient: int
    recipient_version: int
    sender_version: int
    body: bytes
    copies: tuple[Copy, ...]


class Delivery(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One envelope as it reaches one device; `sequence` is the mailbox's and is what gets acknowledged.

    `sender` and `sender_device` are the relay's word until the signature inside was checked.
    """

    sequence: int
    id: bytes
    suite: int
    sender: int
    sender_device: int
    recipient: int
    received_ms: int
    header: bytes
    body: bytes


class Letter(msgspec.Struct, eq=False, gc=False):
    """An envelope on its way into the relay's store: for each device, by uid and number, its parcel.

    A parcel is the encoded delivery without its sequence. `session` is where the tick goes; `size` the bytes
    that the letter takes up until it is stored. `round` rises when the relay has heard that letters of the
    session failed, and refuses what would overtake them.
    """

    session: int
    sender: int
    device: int
    id: bytes
    digest: bytes
    received_ms: int
    parcels: tuple[tuple[int, int, bytes], ...]
    size: int
    round: int = 0


class Run(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one sender has for one device out of one commit: parcels with the sequences from `first` on."""

    uid: int
    device: int
    sender: int
    first: int
    parcels: list[bytes]

    @property
    def last(self) -> int:
        """The sequence of the last parcel."""
        return self.first + len(self.parcels) - 1


class KeyBundle(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A device's KEM public key, which is too long for the chain; the chain holds its SHA-256."""

    uid: int
    device: int
    version: int
    kem_public: bytes
    issued: int
    expires: int
    signature: bytes


class PrekeySort(IntEnum):
    """The two stocks of one-time prekeys that a device keeps at the relay."""

    X25519 = 1
    KEM = 2


class OneTimePrekey(msgspec.Struct, frozen=True):
    """One key of a stock, its bytes opaque; `expires` in Unix seconds."""

    sort: PrekeySort
    id: int
    expires: int
    key: bytes


class PrekeyBatch(msgspec.Struct, frozen=True):
    """What a device publishes for one version of its record; without `signed` it publishes nothing."""

    version: int
    signed: bytes
    last_resort: bytes
    expires: int
    one_time: tuple[OneTimePrekey, ...]


class PrekeyDraw(msgspec.Struct, frozen=True):
    """What one request for a device's prekeys was given; `one_time` is empty when the stock is."""

    uid: int
    device: int
    version: int
    signed: bytes
    kem: bytes
    one_time: bytes


class BlobState(IntEnum):
    """How far a blob came: PARTIAL → STORED → GONE, or PARTIAL → GONE."""

    PARTIAL = 0
    STORED = 1
    GONE = 2
    """Not served any more; the row stays for a day, because what was uploaded counts for the day."""


class Blob(msgspec.Struct, frozen=True):
    """An opaque file at a relay: the SHA-256 of its bytes is its id, each user who uploads it has a copy."""

    owner: int
    id: bytes
    size: int
    state: BlobState
    created_ms: int
    expires_ms: int

    @property
    def folder(self) -> str:
        """Where its parts are kept: nothing in this name comes from outside but as a number or as hex."""
        return f"{self.id.hex()[:2]}/{self.id.hex()}-{self.owner}-{self.created_ms}"

    def continued_by(self, upload: Blob, now_ms: int) -> bool:
        """Whether an upload of the same blob goes on with this one, rather than begin anew."""
        return self.size == upload.size and self.state is not BlobState.GONE and self.expires_ms > now_ms


class BlobUse(msgspec.Struct, frozen=True):
    """What one user's blobs take up, and how many bytes were announced within a day."""

    count: int
    bytes: int
    today: int


class RelayAddress(msgspec.Struct, frozen=True):
    """A relay as the Directory names it: where it is and which public keys (SHA-256 of SPKI) it may show."""

    endpoint: str
    spki: bytes
    next_spki: bytes


class DeviceVersion(msgspec.Struct, frozen=True):
    """One entry in the public history of a device's keys: the record and where on the chain it appeared.

    `account` is the user's account at that moment, for which the record is counter-signed; empty stands for
    the present one.
    """

    version: int
    signer: Address
    record: bytes
    block: int
    time: int
    account: Address = Address(b"")


class Device(msgspec.Struct, frozen=True):
    """A device as the chain lists it; `history` holds every version, oldest first."""

    uid: Uid
    device: DeviceId
    state: DeviceState
    head: bytes
    history: tuple[DeviceVersion, ...]
    revoked_block: int = 0
    revoked_time: int = 0

    @property
    def current(self) -> DeviceVersion:
        """The version in force."""
        return self.history[-1]


class KeyVersion(msgspec.Struct, frozen=True):
    """One entry in the public history of a published key."""

    version: int
    key: bytes
    block: int
    time: int


class PublishedKey(msgspec.Struct, frozen=True):
    """A key that a user publishes besides its devices; `history` holds every version, oldest first."""

    number: int
    kind: KeyKind
    state: DeviceState
    head: bytes
    history: tuple[KeyVersion, ...]

    @property
    def current(self) -> KeyVersion:
        """The version in force."""
        return self.history[-1]


class Takeover(msgspec.Struct, frozen=True):
    """An address that takes another's place from a second on: a recovery address, or a proposed account.

    `block` is the one in which that was announced.
    """

    address: Address
    time: int
    block: int


class FormerAccount(msgspec.Struct, frozen=True):
    """An account that was a user's, at this epoch, until a block."""

    account: Address
    epoch: int
    block: int
    time: int


class User(msgspec.Struct, frozen=True, dict=True):
    """A user as the chain knows it.

    `device_list_version` counts all device events so far; `block` is the last change. `next_recovery` takes
    the place of `recovery`, and `next_account` may take that of `account`, from its time on; while
    `next_account` is set, a recovery is pending. `former_accounts` are the accounts before, oldest first.
    """

    uid: Uid
    username: str
    account: Address
    recovery: Address
    epoch: int
    verifier: bytes
    kdf: bytes
    devices: tuple[Device, ...]
    device_list_version: int
    block: int
    time: int
    keys: tuple[PublishedKey, ...] = ()
    next_recovery: Takeover | None = None
    next_account: Takeover | None = None
    former_accounts: tuple[FormerAccount, ...] = ()

    def at(self, time: int) -> User:
        """The user as of a second after its last event: another recovery address may count by then."""
        due = self.next_recovery
        if due is None or time < due.time:
            return self
        return msgspec.structs.replace(self, recovery=due.address, next_recovery=None)

    @property
    def active_devices(self) -> tuple[Device, ...]:
        """The devices that may sign and read now."""
        return tuple(device for device in self.devices if device.state is DeviceState.ACTIVE)

    @cached_property
    def mailboxes(self) -> frozenset[tuple[int, int]]:
        """Where mail for this user goes, and from where it comes: its active devices, by uid and number."""
        return frozenset((int(self.uid), int(device.device)) for device in self.active_devices)


class Member(msgspec.Struct, frozen=True):
    """A seat in a group: the sequence tells who was there before whom."""

    uid: Uid
    sequence: int
    block: int


class Group(msgspec.Struct, frozen=True):
    """A group as folded from its events."""

    group: int
    name: str
    policy: Policy
    threshold: int
    voting_period: int
    epoch: int
    roster_hash: bytes
    members: tuple[Member, ...]


class Reason(msgspec.Struct, frozen=True):
    """Why somebody is to be admitted or expelled, or the network paused; for people to read."""

    text: str = ""


class SetRules(msgspec.Struct, frozen=True):
    """By which rules a group votes: threshold in hundredths of a percent, voting period in seconds."""

    policy: Policy
    threshold: int
    voting_period: int


class SetAnchorer(msgspec.Struct, frozen=True):
    """Who anchors heads, and into which log of messages; a new id closes the log before."""

    anchorer: Address
    log_id: bytes


class SetWitnesses(msgspec.Struct, frozen=True):
    """Who witnesses heads, ascending, and how many of them must sign one."""

    quorum: int
    witnesses: tuple[Address, ...]


class SetRelays(msgspec.Struct, frozen=True):
    """The relays that the Directory names from then on."""

    relays: tuple[RelayAddress, ...]


class SetRewards(msgspec.Struct, frozen=True):
    """Who publishes the roots of rewards."""

    setter: Address


class SetSuccessor(msgspec.Struct, frozen=True):
    """Which network's Directory members recommend to go on with; None withdraws the recommendation."""

    directory: Address | None


Decision = Reason | SetRules | SetAnchorer | SetWitnesses | SetRelays | SetRewards | SetSuccessor
"""What the data of a proposal say; the kind stands beside it."""


class Proposal(msgspec.Struct, frozen=True):
    """A proposal with its count; `state` is EXPIRED for an open one whose deadline has passed.

    `decision` is what `data` say, or None when they say nothing that its kind could do.
    """

    id: ProposalId
    group: int
    kind: Kind
    subject: Uid
    proposer: Uid
    electorate: int
    yes: int
    no: int
    deadline: int
    state: ProposalState
    voters: tuple[Uid, ...]
    block: int
    data: bytes = b""
    decision: Decision | None = Reason()


class TreeHead(msgspec.Struct, frozen=True):
    """A head of the log of messages as it was anchored."""

    log_id: bytes
    size: int
    root: bytes
    block: int
    time: int


class Log(msgspec.Struct, frozen=True):
    """A log of messages: its last head, or None before the first, and the log before with its last head."""

    log_id: bytes
    previous_id: bytes
    previous_size: int
    previous_root: bytes
    head: TreeHead | None


class Ledger(msgspec.Struct, frozen=True):
    """The logs of messages, oldest first, of which the last grows; who anchors and who witnesses."""

    logs: tuple[Log, ...]
    anchorer: Address
    quorum: int
    witnesses: tuple[Address, ...]


class RewardRoot(msgspec.Struct, frozen=True):
    """The root of an epoch's rewards; it counts from `effective_at` on."""

    epoch: int
    root: bytes
    total: int
    effective_at: int


class Rewards(msgspec.Struct, frozen=True):
    """The root that counts, the one that does not yet, and who publishes them."""

    current: RewardRoot | None
    pending: RewardRoot | None
    setter: Address


class BlockRef(msgspec.Struct, frozen=True):
    """One block of the chain by number, hash and parent."""

    number: int
    hash: bytes
    parent: bytes


class LogRow(msgspec.Struct, frozen=True, gc=False):
    """One contract event as stored: raw, with the three columns that look-ups need.

    `source` names the contract (0 Directory, 1 IdentityRegistry, 2 Membership, 3 MessageLedger,
    4 RewardDistributor). `subject` is the uid of an identity event and 0 otherwise; `label` the username of
    `Registered`; `address` the account or signer that the event introduces.
    """

    block: int
    block_hash: bytes
    index: int
    time: int
    source: int
    topics: tuple[bytes, ...]
    data: bytes
    subject: int = 0
    label: str = ""
    address: bytes = b""


class Call(msgspec.Struct, frozen=True):
    """One contract call, ready to be sent by its author or paid for by a sponsor."""

    contract: str
    data: bytes


class Mined(msgspec.Struct, frozen=True):
    """A transaction that succeeded."""

    tx_hash: bytes
    block: int


class Cost(msgspec.Struct, frozen=True):
    """What a call would take, and the gas and the fees (wei) that its transaction is given."""

    gas: int
    limit: int
    fee: int
    tip: int

    @property
    def wei(self) -> int:
        """The most that it can cost: a contract that is asked about a signature may burn all that it gets."""
        return self.limit * self.fee


GWEI: Final = 10**9


class Booked(NamedTuple):
    """Where a sum was booked, to give a part of it back, and the name under which that is known."""

    slice: int
    gwei: int
    id: bytes

    @property
    def wei(self) -> int:
        """The same in wei."""
        return self.gwei * GWEI


class Note(NamedTuple):
    """What was booked for one transaction, which the first of it names, and the transaction as it was signed;
    nothing if it never was.
    """

    booked: Sequence[Booked]
    sent: bytes


class Dispatch(msgspec.Struct, frozen=True):
    """A signed transaction as it must be known to be seen through: the hashes of its versions, of which the
    first names it, and what the last one says. `agreed` is the highest fee that was allowed.
    """

    sender: Address
    nonce: int
    to: Address
    data: bytes
    gas: int
    fee: int
    tip: int
    agreed: int
    hashes: tuple[bytes, ...]


class Outcome(msgspec.Struct, frozen=True):
    """What became of a transaction: which of its versions was mined, what it cost, and why it failed if so.

    One whose nonce somebody else's transaction took was never mined, and cost nothing.
    """

    submitted: bytes
    mined: bytes
    block: int
    wei: int
    failure: ChatchainError | None = None


class Pin(msgspec.Struct, frozen=True):
    """What a user's keys were when a person compared them: account, recovery, and of each device its number,
    version, state and head; of each other key (RSA) the same, or None where it was not asked for then.
    """

    account: bytes
    recovery: bytes
    epoch: int
    devices: tuple[tuple[int, int, int, bytes], ...]
    block: int
    keys: tuple[tuple[int, int, int, bytes], ...] | None = None


class Contact(msgspec.Struct, frozen=True):
    """Somebody a home knows.

    `floor` is the highest device-list version seen, `confirmed` the highest one compared with the contract.
    `met` is whether this home's user wrote to them, added their card or verified them; others are strangers.
    """

    uid: Uid
    username: str
    pin: Pin | None = None
    floor: int = 0
    confirmed: int = 0
    listed: bool = True
    met: bool = True


class DeedKind(StrEnum):
    """What somebody can do to what is there already."""

    EDIT = "edit"
    DELETE = "delete"
    REACTION = "reaction"
    TIMER = "timer"
    PROFILE = "profile"
    OFF_THE_RECORD = "off_the_record"


class Deed(msgspec.Struct, frozen=True):
    """Something that somebody does to what is there already: to a message, or to a conversation.

    `id` and `time_ms` are those of the message that carried it, and order deeds that exclude one another;
    `received_ms` is the relay's time and `arrived_ms` this device's, 0 for one's own. `author` and `target`
    name the message that is meant. `value` is the edit's text, the reaction's emoji or the profile's name;
    `number` the timer's seconds or 1 for off the record.
    """

    kind: DeedKind
    id: bytes
    sender: Uid
    peer: Uid
    time_ms: int
    received_ms: int = 0
    author: Uid = Uid(0)
    target: bytes = b""
    value: str = ""
    number: int = 0
    arrived_ms: int = 0

    @property
    def place(self) -> tuple[int, bytes]:
        """Where it stands among deeds that exclude one another: the last one counts."""
        return self.time_ms, self.id


class Peer(msgspec.Struct, frozen=True):
    """What a conversation is set to, and the name that the other side wants to be shown by.

    `timer_s` is 0 while messages stay. `profile_sent` is the own display name as this peer was told it. The
    own uid's entry holds the own display name. The times are those of the last change.
    """

    uid: Uid
    timer_s: int = 0
    off_the_record: bool = False
    display_name: str = ""
    timer_ms: int = 0
    off_the_record_ms: int = 0
    profile_ms: int = 0
    profile_sent: str = ""


class StoredMessage(msgspec.Struct, frozen=True):
    """A message as a home keeps it; `row` is its place in the order of arrival there (0 before it is stored).

    `sender` and `id` together are unique. `kind` is text, file or notice; a notice carries a stable word in
    `code` and its sentence in `text`. What a person is told once and no history keeps has the kind edit,
    delete or reaction (with the emoji in `text`). `state` is set for own messages only.

    `about_author` and `about` name the message that it answers, or that such a deed is about. `content` is
    what a file's message says of it, `file_name` its name once more, to be searched. `edited_ms` is the time
    of the edit that counts (0: none); a deleted message has no text left. It disappears `expires_s` after it
    was read (0: never), which is at `expires_ms` once that has begun. `reactions` are by whom and what.
    `path` is where its file was put on this device.

    `received_ms` and `arrived_ms` are when it came by the relay's clock and by this device's (0: written
    here); `time_ms` is its author's word.
    """

    id: bytes
    sender: Uid
    device: int
    peer: Uid
    direction: Direction
    kind: str
    text: str
    time_ms: int
    code: str = ""
    state: MessageState | None = None
    row: int = 0
    about_author: Uid = Uid(0)
    about: bytes = b""
    content: bytes = b""
    edited_ms: int = 0
    deleted: bool = False
    expires_s: int = 0
    expires_ms: int = 0
    reactions: tuple[tuple[Uid, str], ...] = ()
    path: str = ""
    received_ms: int = 0
    arrived_ms: int = 0
    file_name: str = ""


class Outgoing(msgspec.Struct, frozen=True):
    """One thing that waits for its tick: the payload, and once sealed the very envelope that is sent.

    `time_ms` goes with it, so sealing again for other devices keeps it; `version` is that of the own record
    that sealed. Under suite 2 `key` is the body's and `sealed_for` names the devices that have their header,
    each as (uid, device, key version): when the lists change, only what is missing is added.
    """

    id: bytes
    recipient: Uid
    kind: str
    content: bytes
    time_ms: int
    envelope: Envelope | None = None
    version: int = 0
    row: int = 0
    key: bytes = b""
    sealed_for: tuple[tuple[int, int, int], ...] = ()


class WaitingUpload(msgspec.Struct, frozen=True):
    """A sealed file that has to be at the relay before the message with this id leaves."""

    id: bytes
    blob: bytes
    size: int


class Arrival(msgspec.Struct, frozen=True):
    """What one delivery comes to, stored in one transaction: a message, states of own messages, a receipt,
    something to send back.

    With a `deed`, `message` is what tells a person of it, and is kept only when the deed changed something.
    `refusal` takes its place when the deed is about a message that somebody else wrote. Of a sign of `typing`
    (1 started, 2 stopped) nothing is kept. `dropped` are own messages to this user of which the relay says
    that nobody fetched them. `at_ms` is when it came, or was written if it claims to be from later.
    """

    sender: Uid
    id: bytes
    message: StoredMessage | None = None
    deed: Deed | None = None
    refusal: StoredMessage | None = None
    typing: int = 0
    states: tuple[tuple[bytes, MessageState], ...] = ()
    dropped: tuple[bytes, ...] = ()
    receipt_due: bool = False
    answer: Outgoing | None = None
    at_ms: int = 0


class Progress(msgspec.Struct, frozen=True):
    """How far a home has come at a relay, which it knows by the hash of its key: everything up to sequence
    `after` is stored. Sequences count in a space whose identity the relay tells; 0 is none.
    """

    relay: bytes
    space: int
    after: int


HANDSHAKE_MARK_BYTES: Final = 8
"""By so much of its name a handshake is known again among those of its user."""


class KeptSession(msgspec.Struct, frozen=True):
    """A session of suite 2 with one device, as a home keeps it; `state` is the crypto room's.

    `version` and `own_version` are the key versions that it was begun between. `rank` grows with each
    message that comes in on it, so the highest of a device was heard last. `begun_ms` is when this home began
    it, until the first answer (then 0), `used_ms` when it last carried something. On a `retired` one nothing
    is sent any more.
    """

    uid: int
    device: int
    id: bytes
    version: int
    own_version: int
    rank: int
    begun_ms: int
    used_ms: int
    retired: bool
    state: bytes


class SessionChanges(msgspec.Struct, frozen=True):
    """What must be stored together with the messages that it belongs to: sessions as they are afterwards,
    sessions that are gone as (uid, device, id), devices whose session was lost as (uid, device, when in ms),
    and the prekeys if they changed.

    With the prekeys belong the handshakes that were answered and must not come again, each as (signed prekey,
    user, mark), and the lowest id of a signed prekey that is still there: what is remembered of those before
    it goes.
    """

    kept: tuple[KeptSession, ...] = ()
    gone: tuple[tuple[int, int, bytes], ...] = ()
    lost: tuple[tuple[int, int, int], ...] = ()
    prekeys: bytes | None = None
    begun: tuple[tuple[int, int, bytes], ...] = ()
    oldest_prekey: int = 0


class OwnKeys(msgspec.Struct, frozen=True):
    """One version of this device's secrets, opaque here.

    `retired_ms` is when the next version took over (0 = in force or coming).
    """

    version: int
    secret: bytes
    retired_ms: int = 0
