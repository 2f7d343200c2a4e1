"""What a well-formed message may contain: the one place where lengths and counts are checked.

Types are msgspec's business; this module adds sizes. It knows no state and no policy: a message that passes
is well-formed, not welcome.
"""

from __future__ import annotations

from chatchain.errors import ProtocolViolation
from chatchain.model import MESSAGE_ID_BYTES, RELAYS_WORD, Delivery, Envelope, KeyBundle
from chatchain.wire import messages as m

MAX_UID = 10**15 - 1
MAX_U32 = 2**32 - 1
MAX_I64 = 2**63 - 1

MAX_COPIES = 64
"""Headers in one envelope: up to 16 active devices of each side, with room for a small group."""

MAX_HEADER = 4 * 1024
"""One device's header. Suite 1's has 1,244 bytes. Suite 2's is a session's message that carries the key and
the hash of the body, at most 2,960 bytes: 1 of format, 1,620 of handshake, 75 of sealed header, 1,184 of a
KEM field, those 64, and 16 of tag.
"""

MAX_BODY = 192 * 1024
"""The common body: a 64 KiB text padded to its bucket fits, and its delivery stays below the frame's cap."""

MAX_SIGNAL_BODY = 512
"""The body of a signal: the smallest bucket and its tag fit."""

BLOB_ID_BYTES = 32
MAX_BLOB = 2**32
"""No blob of any relay is as long; how long one may be is policy."""

MAX_PIECE = 192 * 1024
MAX_ACKNOWLEDGED = 4096
MAX_NAMED = 64
"""Messages that one word of the relay names."""

MAX_FETCHED_USERS = 8
"""8 users of 16 devices with the largest bundles still fit into one frame."""

MAX_BUNDLES = MAX_FETCHED_USERS * 16
MAX_KEM_PUBLIC = 1600
"""X-Wing's has 1,216 bytes, ML-KEM-1024's 1,568."""
MAX_BUNDLE_SIGNATURE = 128

SIGNED_PREKEY_BYTES = 117
SIGNED_KEM_BYTES = 1653
ONE_TIME_BYTES = 36
PREKEY_BUNDLE_BYTES = 17 + SIGNED_PREKEY_BYTES + SIGNED_KEM_BYTES
"""Without a one-time key; with one it has ONE_TIME_BYTES more."""

MAX_PUBLISHED_PREKEYS = 100
"""One-time keys of each sort in one message: 165 KiB. Who has more publishes in several."""

MAX_FETCHED_DEVICES = 128
"""Devices of which one request asks prekeys: of 8 users with 16 each, or of a crowd with few. The largest
answer has 128 bundles of 1,823 bytes and three more for each: 229 KiB, which fits into one frame.
"""
MAX_KDF = 64
SIGNATURE_BYTES = 65
MAX_CALLDATA = 8 * 1024
MAX_ADMISSION = 128
"""An invitation has 98 bytes."""

MAX_WORK = 255
MAX_CODE = 64
MAX_SENTENCE = 1024
MAX_RETRY_MS = 24 * 3600 * 1000


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ProtocolViolation(f"A message of the protocol holds {what}.")


def _uid(value: int) -> None:
    _require(0 < value <= MAX_UID, "an impossible user number")


def _device(value: int) -> None:
    _require(0 < value <= MAX_U32, "an impossible device number")


def _count(value: int, what: str = "an impossible number") -> None:
    _require(0 <= value <= MAX_I64, what)


def _exactly(value: bytes, length: int, what: str) -> None:
    _require(len(value) == length, f"{what} that is not {length} bytes long")


def _at_most(value: bytes, limit: int, what: str) -> None:
    _require(len(value) <= limit, f"{what} longer than {limit} bytes")


def _identifier(value: bytes) -> None:
    _exactly(value, MESSAGE_ID_BYTES, "a message id")


def _verdict(code: str, message: str, retry_after_ms: int) -> None:
    _require(len(code) <= MAX_CODE, "an overlong code")
    _require(len(message) <= MAX_SENTENCE, "an overlong sentence")
    _require(0 <= retry_after_ms <= MAX_RETRY_MS, "an impossible delay")


def check_envelope(envelope: Envelope) -> None:
    """Raises ProtocolViolation unless every field of an envelope is within its bounds."""
    copies = envelope.copies
    # Written out: the relay asks this of every message that anybody sends.
    if not (
        len(envelope.id) == MESSAGE_ID_BYTES
        and 0 < envelope.suite < RELAYS_WORD
        and 0 < envelope.recipient <= MAX_UID
        and 0 <= envelope.recipient_version <= MAX_U32
        and 0 <= envelope.sender_version <= MAX_U32
        and len(envelope.body) <= MAX_BODY
        and 0 < len(copies) <= MAX_COPIES
    ):
        raise ProtocolViolation("An envelope has a field that is out of its bounds.")
    for copy in copies:
        if not (0 < copy.uid <= MAX_UID and 0 < copy.device <= MAX_U32 and len(copy.header) <= MAX_HEADER):
            raise ProtocolViolation("A copy in an envelope has a field that is out of its bounds.")
    if len(copies) > 1 and len({(copy.uid, copy.device) for copy in copies}) != len(copies):
        raise ProtocolViolation("A message of the protocol holds two copies for one device.")


def check_delivery(delivery: Delivery) -> None:
    """Raises ProtocolViolation unless every field of a delivery is within its bounds."""
    _count(delivery.sequence)
    _identifier(delivery.id)
    _require(0 < delivery.suite <= 0xFFFF, "an impossible suite")
    _uid(delivery.sender)
    _device(delivery.sender_device)
    _uid(delivery.recipient)
    _count(delivery.received_ms)
    _at_most(delivery.header, MAX_HEADER, "a header")
    _at_most(delivery.body, MAX_BODY, "a body")


def check_bundle(bundle: KeyBundle) -> None:
    """Raises ProtocolViolation unless every field of a key bundle is within its bounds."""
    _uid(bundle.uid)
    _device(bundle.device)
    _require(0 < bundle.version <= MAX_U32, "an impossible record version")
    _require(0 < len(bundle.kem_public) <= MAX_KEM_PUBLIC, "a KEM key of an impossible length")
    _count(bundle.issued)
    _count(bundle.expires)
    _at_most(bundle.signature, MAX_BUNDLE_SIGNATURE, "a signature")


def _prekeys(keys: tuple[bytes, ...], length: int) -> None:
    _require(len(keys) <= MAX_PUBLISHED_PREKEYS, f"more than {MAX_PUBLISHED_PREKEYS} one-time keys of a sort")
    for key in keys:
        _exactly(key, length, "a one-time key")


def check(message: m.Message) -> None:
    """Raises ProtocolViolation unless every field of a message is within its bounds."""
    match message:
        case m.Submit():
            check_envelope(message.envelope)
        case m.Deliver(delivery):
            check_delivery(delivery)
        case m.Signal(envelope):
            check_envelope(envelope)
            _at_most(envelope.body, MAX_SIGNAL_BODY, "a signal")
        case m.Signaled(delivery):
            check_delivery(delivery)
            _require(delivery.sequence == 0, "a signal with a place in the mailbox")
            _at_most(delivery.body, MAX_SIGNAL_BODY, "a signal")
        case m.Tick(id):
            _identifier(id)
        case m.Acknowledge(sequences):
            _require(0 < len(sequences) <= MAX_ACKNOWLEDGED, "an acknowledgement of nothing or too much")
            _count(min(sequences))
            _count(max(sequences))
        case m.Ping(nonce) | m.Pong(nonce):
            _count(nonce)
        case m.Receive(after):
            _count(after)
        case m.Resume(space, after):
            _count(space)
            _count(after)
        case m.Resumed(space, after):
            _count(space)
            _require(space > 0, "a space without an identity")
            _count(after)
        case m.Login(uid, device, epoch, kdf, login_signature, device_signature) | m.EnterFiles(
            uid, device, epoch, kdf, login_signature, device_signature
        ):
            _uid(uid)
            _device(device)
            _require(0 <= epoch <= MAX_U32, "an impossible epoch")
            _at_most(kdf, MAX_KDF, "key derivation parameters")
            _exactly(login_signature, SIGNATURE_BYTES, "a signature")
            _exactly(device_signature, SIGNATURE_BYTES, "a signature")
        case m.PublishKeys(ref, bundle):
            _count(ref)
            check_bundle(bundle)
        case m.FetchKeys(ref, uids):
            _count(ref)
            _require(0 < len(uids) <= MAX_FETCHED_USERS, f"no users or more than {MAX_FETCHED_USERS}")
            for uid in uids:
                _uid(uid)
        case m.Sponsor(ref, contract, data, admission):
            _count(ref)
            _at_most(admission, MAX_ADMISSION, "an admission")
            _require(len(contract) <= MAX_CODE, "an overlong name of a contract")
            _require(4 <= len(data) <= MAX_CALLDATA, "calldata of an impossible length")
        case m.PublishPrekeys(ref, version, signed, kem, one_time, kem_one_time):
            _count(ref)
            _require(0 < version <= MAX_U32, "an impossible record version")
            if signed or kem or one_time or kem_one_time:
                _exactly(signed, SIGNED_PREKEY_BYTES, "a signed prekey")
                _exactly(kem, SIGNED_KEM_BYTES, "a last-resort prekey")
            _prekeys(one_time, ONE_TIME_BYTES)
            _prekeys(kem_one_time, SIGNED_KEM_BYTES)
        case m.FetchPrekeys(ref, devices):
            _count(ref)
            _require(
                0 < len(devices) <= MAX_FETCHED_DEVICES, f"no devices or more than {MAX_FETCHED_DEVICES}"
            )
            for uid, device in devices:
                _uid(uid)
                _device(device)
            _require(len(set(devices)) == len(devices), "a device twice")
        case m.Challenge(version, nonce, chain_id, directory, time_ms, work):
            _require(0 <= work <= MAX_WORK, "an impossible amount of work")
            _count(version)
            _exactly(nonce, 32, "a nonce")
            _count(chain_id)
            _exactly(directory, 20, "an address")
            _count(time_ms)
        case m.Welcome(uid, waiting, time_ms):
            _uid(uid)
            _count(waiting)
            _count(time_ms)
        case m.Refused(id, code, sentence, retry_after_ms):
            _identifier(id)
            _verdict(code, sentence, retry_after_ms)
        case m.StaleDevices(id, uid, version, block):
            _identifier(id)
            _uid(uid)
            _count(version)
            _count(block)
        case m.Keys(ref, bundles):
            _count(ref)
            _require(len(bundles) <= MAX_BUNDLES, "too many key bundles")
            for bundle in bundles:
                check_bundle(bundle)
        case m.Sponsored(ref, tx_hash):
            _count(ref)
            _exactly(tx_hash, 32, "a transaction hash")
        case m.Done(ref):
            _count(ref)
        case m.Failed(ref, code, sentence, retry_after_ms):
            _count(ref)
            _verdict(code, sentence, retry_after_ms)
        case m.Goodbye(code, sentence, retry_after_ms):
            _verdict(code, sentence, retry_after_ms)
        case m.PrekeysLeft(ref, left, kem_left):
            _count(ref)
            _count(left)
            _count(kem_left)
        case m.Prekeys(ref, prekey_bundles, withheld):
            _count(ref)
            _require(len(prekey_bundles) + len(withheld) <= MAX_FETCHED_DEVICES, "too many prekey bundles")
            for one in withheld:
                _uid(one.uid)
                _device(one.device)
                _verdict(one.code, "", one.retry_after_ms)
            for each in prekey_bundles:
                _require(
                    len(each) in (PREKEY_BUNDLE_BYTES, PREKEY_BUNDLE_BYTES + ONE_TIME_BYTES),
                    "a prekey bundle of an impossible length",
                )
        case m.Upload(ref, blob, size):
            _count(ref)
            _exactly(blob, BLOB_ID_BYTES, "a blob's id")
            _require(0 < size <= MAX_BLOB, "an impossible size")
        case m.Fetch(ref, blob, offset, length):
            _count(ref)
            _exactly(blob, BLOB_ID_BYTES, "a blob's id")
            _require(0 <= offset <= MAX_BLOB, "an impossible offset")
            _require(0 < length <= MAX_BLOB, "an impossible length")
        case m.Discard(ref, blob):
            _count(ref)
            _exactly(blob, BLOB_ID_BYTES, "a blob's id")
        case m.Piece(ref, data):
            _count(ref)
            _require(0 < len(data) <= MAX_PIECE, f"an empty piece or one longer than {MAX_PIECE} bytes")
        case m.FilesOpen(uid, largest):
            _uid(uid)
            _count(largest)
        case m.Uploading(ref, offset):
            _count(ref)
            _require(0 <= offset <= MAX_BLOB, "an impossible offset")
        case m.Stored(ref, expires_ms):
            _count(ref)
            _count(expires_ms)
        case m.Fetching(ref, size):
            _count(ref)
            _require(0 < size <= MAX_BLOB, "an impossible size")
        case _:
            raise AssertionError(f"bounds of {type(message).__name__} are not stated")
