"""Every message of the client–relay protocol, as tagged msgpack arrays (docs/protocol.md lists the bytes).

A request that wants an answer of its own carries `ref`, a number the client chooses per connection; the
answer repeats it. A submitted envelope is answered under its message id.
"""

from __future__ import annotations

import msgspec

from chatchain.model import Delivery, Envelope, KeyBundle

PROTOCOL_VERSION = 2
"""Since 2 one FetchPrekeys asks for several users' devices."""


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What every message of the protocol is."""


# --- client to relay ------------------------------------------------------------------------------------


class Login(Message, frozen=True, tag=1):
    """Answers the relay's challenge: both signatures are over the EIP-712 `Login` of identity.login."""

    uid: int
    device: int
    epoch: int
    kdf: bytes
    login_signature: bytes
    device_signature: bytes


class Submit(Message, frozen=True, tag=2):
    """Hands the relay one envelope; answered by Tick, Refused or StaleDevices with the envelope's id."""

    envelope: Envelope


class Receive(Message, frozen=True, tag=3):
    """Starts delivery of what waits and of what comes, from the start; `after` says nothing.

    Clients of before `Resume` begin with this.
    """

    after: int


class Acknowledge(Message, frozen=True, tag=4):
    """Says that these deliveries are stored on this device; the relay deletes them."""

    sequences: tuple[int, ...]


class PublishKeys(Message, frozen=True, tag=5):
    """Gives the relay this device's key bundle; answered by Done."""

    ref: int
    bundle: KeyBundle


class FetchKeys(Message, frozen=True, tag=6):
    """Asks for the key bundles of all active devices of a few users; answered by Keys."""

    ref: int
    uids: tuple[int, ...]


class Sponsor(Message, frozen=True, tag=7):
    """Asks the relay to pay for one signed contract call (`contract` is "identity" or "membership").

    `data` is the whole calldata, selector included. Before login only what makes login possible is accepted:
    a registration, or what gives an account back to its owner. A registration comes with an `admission`: the
    work that the challenge asked for, or a member's invitation (identity.admission).
    """

    ref: int
    contract: str
    data: bytes
    admission: bytes = b""


class Ping(Message, frozen=True, tag=8):
    """Asks the peer to show that it is alive; either side may send it."""

    nonce: int


class Pong(Message, frozen=True, tag=9):
    """Answers a Ping with its nonce."""

    nonce: int


class PublishPrekeys(Message, frozen=True, tag=10):
    """Gives the relay this device's prekeys of suite 2; answered by PrekeysLeft.

    `signed` and `kem` (the last-resort key) replace those before, the one-time keys are added; the layouts
    are those of docs/protocol.md. With all of them empty it only asks how many are left.
    """

    ref: int
    version: int
    signed: bytes
    kem: bytes
    one_time: tuple[bytes, ...]
    kem_one_time: tuple[bytes, ...]


class FetchPrekeys(Message, frozen=True, tag=11):
    """Asks for a prekey bundle of each of these devices, each as (uid, device); answered by Prekeys."""

    ref: int
    devices: tuple[tuple[int, int], ...]


class Resume(Message, frozen=True, tag=12):
    """Starts delivery of what waits and of what comes, behind the last sequence that this device has stored
    of that space; answered by Resumed. Of a space that is not the relay's (0: of none) it is from the start.
    """

    space: int
    after: int


class Signal(Message, frozen=True, tag=13):
    """Hands the relay an envelope for those of the recipient's devices that are connected right now; it is
    stored nowhere, may get lost, and is not answered.
    """

    envelope: Envelope


class EnterFiles(Message, frozen=True, tag=16):
    """Answers the challenge like Login, for a connection that carries files and no messages."""

    uid: int
    device: int
    epoch: int
    kdf: bytes
    login_signature: bytes
    device_signature: bytes


class Upload(Message, frozen=True, tag=17):
    """Announces a blob by its SHA-256 and size; answered by Uploading, or by Stored if it is there."""

    ref: int
    blob: bytes
    size: int


class Fetch(Message, frozen=True, tag=18):
    """Asks for `length` bytes of a blob; answered by Fetching and as many Pieces as it takes."""

    ref: int
    blob: bytes
    offset: int
    length: int


class Discard(Message, frozen=True, tag=19):
    """Asks the relay to forget a blob that this user uploaded; answered by Done, also if there is none."""

    ref: int
    blob: bytes


class Piece(Message, frozen=True, tag=20):
    """The next bytes of the upload or download with this number; either side sends it."""

    ref: int
    data: bytes


# --- relay to client ------------------------------------------------------------------------------------


class Challenge(Message, frozen=True, tag=32):
    """The relay's first message: a single-use nonce (32 bytes) and the deployment it serves."""

    version: int
    nonce: bytes
    chain_id: int
    directory: bytes
    time_ms: int
    work: int = 0
    """Bits of work that a newcomer's registration needs; 255: an invitation in any case."""


class Welcome(Message, frozen=True, tag=33):
    """The login holds; `waiting` counts the deliveries stored for this device."""

    uid: int
    waiting: int
    time_ms: int


class Tick(Message, frozen=True, tag=34):
    """The envelope is committed in the relay's database (also for one that was committed before)."""

    id: bytes


class Refused(Message, frozen=True, tag=35):
    """The envelope was not taken and is not stored; `retry_after_ms` 0 means do not retry."""

    id: bytes
    code: str
    message: str
    retry_after_ms: int


class StaleDevices(Message, frozen=True, tag=36):
    """A device list used for this envelope is out of date: check the chain up to `block` and send again."""

    id: bytes
    uid: int
    version: int
    block: int


class Deliver(Message, frozen=True, tag=37):
    """Brings one delivery; it comes again after a reconnect until acknowledged."""

    delivery: Delivery


class Keys(Message, frozen=True, tag=38):
    """Answers FetchKeys; a device that published nothing is absent."""

    ref: int
    bundles: tuple[KeyBundle, ...]


class Sponsored(Message, frozen=True, tag=39):
    """The relay sent the transaction."""

    ref: int
    tx_hash: bytes


class Done(Message, frozen=True, tag=40):
    """The request was carried out."""

    ref: int


class Failed(Message, frozen=True, tag=41):
    """The request was not carried out."""

    ref: int
    code: str
    message: str
    retry_after_ms: int


class Goodbye(Message, frozen=True, tag=42):
    """The last message before the relay closes the connection, and why."""

    code: str
    message: str
    retry_after_ms: int


class PrekeysLeft(Message, frozen=True, tag=43):
    """Answers PublishPrekeys: the one-time keys that the relay holds for this device's key version."""

    ref: int
    one_time: int
    kem_one_time: int


class Withheld(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A device of which nothing was given, whatever there is: why, and when to ask again (0: do not)."""

    uid: int
    device: int
    code: str
    retry_after_ms: int


class Prekeys(Message, frozen=True, tag=44):
    """Answers FetchPrekeys with bundles as bytes; a device that is in neither list published nothing."""

    ref: int
    bundles: tuple[bytes, ...]
    withheld: tuple[Withheld, ...]


class Resumed(Message, frozen=True, tag=45):
    """Answers Resume: the space in which this relay's sequences count, and behind which one it delivers."""

    space: int
    after: int


class Signaled(Message, frozen=True, tag=46):
    """Brings a signal, whose delivery has the sequence 0; only to who began with Resume."""

    delivery: Delivery


class FilesOpen(Message, frozen=True, tag=48):
    """The login of a connection for files holds; no blob may be larger than `largest` bytes."""

    uid: int
    largest: int


class Uploading(Message, frozen=True, tag=49):
    """The relay holds so many bytes of the blob and waits for those behind them."""

    ref: int
    offset: int


class Stored(Message, frozen=True, tag=50):
    """The blob is whole, has the hash that was announced, and is on the relay's disk until then."""

    ref: int
    expires_ms: int


class Fetching(Message, frozen=True, tag=51):
    """The blob has this size, and the bytes asked for follow."""

    ref: int
    size: int


ClientMessage = (
    Login
    | Submit
    | Receive
    | Acknowledge
    | PublishKeys
    | FetchKeys
    | Sponsor
    | Ping
    | Pong
    | PublishPrekeys
    | FetchPrekeys
    | Resume
    | Signal
    | EnterFiles
    | Upload
    | Fetch
    | Discard
    | Piece
)
RelayMessage = (
    Challenge
    | Welcome
    | Tick
    | Refused
    | StaleDevices
    | Deliver
    | Keys
    | Sponsored
    | Done
    | Failed
    | Goodbye
    | PrekeysLeft
    | Prekeys
    | Resumed
    | Signaled
    | FilesOpen
    | Uploading
    | Stored
    | Fetching
    | Piece
    | Ping
    | Pong
)
