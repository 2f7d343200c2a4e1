"""Suite 1: what was sealed opens on each device it was sealed to; everything else is refused by name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from hypothesis import given, settings
from hypothesis import strategies as st

from chatchain.crypto import content, sealed
from chatchain.crypto.content import ReceiptKind, Text
from chatchain.crypto.device import KemSecret, kem_public_key
from chatchain.crypto.padding import pad
from chatchain.crypto.sealed import (
    HEADER_BYTES,
    MAX_BODY_BYTES,
    MAX_COPIES,
    MAX_TIME_MS,
    Opened,
    Target,
    open_,
    seal,
)
from chatchain.errors import BadRecord, ForgedMessage, TooLarge, Undecryptable
from chatchain.identity import ed25519
from chatchain.identity.record import signing_key_for
from chatchain.model import Delivery, Envelope, Network, Uid, User
from chatchain.wire.messages import Submit
from tests.identity.people import BLOCK_TIME, NETWORK, OTHER_NETWORK, OTHER_REGISTRY, Person, person

ADA = person("ada")
BOB = person("bob").with_second_device()
EVE = person("eve")

NOW = BLOCK_TIME * 1000 + 500
ID = b"message id 16 by"
HELLO = content.text("hello, bob")
EVERYBODY: dict[Uid, User] = {who.uid: who.user for who in (ADA, BOB, EVE)}


def targets_of(*people: Person) -> list[Target]:
    """All active devices of these people."""
    return [
        Target(who.uid, device.device, who.secrets(device.device).kem_public)
        for who in people
        for device in who.user.active_devices
    ]


def deliveries(
    sender: Person = ADA,
    recipient: Person = BOB,
    what: content.Content = HELLO,
    *,
    network: Network = NETWORK,
    message_id: bytes = ID,
    device: int = 1,
    version: int | None = None,
    time_ms: int = NOW,
    targets: Sequence[Target] | None = None,
) -> list[Delivery]:
    """Seals a message and gives it as the relay delivers it to each target."""
    version = version or sender.user.devices[device - 1].current.version
    body, copies = seal(
        network,
        what,
        secrets=sender.secrets(device, version),
        sender=sender.uid,
        device=device,
        version=version,
        recipient=recipient.uid,
        message_id=message_id,
        time_ms=time_ms,
        targets=targets or targets_of(recipient),
    )
    return [
        Delivery(7, message_id, 1, sender.uid, device, recipient.uid, NOW + 20, copy.header, body)
        for copy in copies
    ]


def opened(
    delivery: Delivery,
    reader: Person = BOB,
    device: int = 1,
    *,
    network: Network = NETWORK,
    keys: Sequence[KemSecret] | None = None,
    users: Mapping[Uid, User] | None = None,
) -> Opened:
    """Opens a delivery as the client does, asking the chain's listing for the sender's key."""
    listed = {**EVERYBODY, **(users or {})}

    def resolve(uid: int, sender_device: int, version: int, signed_ms: int) -> bytes:
        user = listed.get(Uid(uid))
        if user is None:
            raise ForgedMessage("The chain lists no such user.")
        return signing_key_for(network, user, sender_device, version, signed_ms, delivery.received_ms)

    mine = [reader.secrets(device).kem] if keys is None else keys
    return open_(network, delivery, uid=reader.uid, device=device, keys=mine, resolve=resolve)


def altered(delivery: Delivery, **fields: Any) -> Delivery:
    """The delivery as a hostile relay could hand it over."""
    return msgspec.structs.replace(delivery, **fields)


# The suite's HPKE and the header's layout, spelled out again from docs/protocol.md.
HPKE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def info_of(reader: Person, network: Network = NETWORK) -> bytes:
    """What a header to this reader's first device is bound to."""
    numbers = reader.uid.to_bytes(8, "big") + (1).to_bytes(4, "big")
    return b"chatchain/1 sealed header" + network.chain_id.to_bytes(8, "big") + network.registry + numbers


def header_of(delivery: Delivery, reader: Person = BOB, network: Network = NETWORK) -> bytes:
    """What a dishonest reader finds in a header: body key (32) ‖ version (4) ‖ time (8) ‖ signature (64)."""
    return HPKE.decrypt(delivery.header, reader.secrets().kem.private, info_of(reader, network))


def resealed(header: bytes, reader: Person = BOB) -> bytes:
    """The same header, or a changed one, sealed anew by somebody who is not its author."""
    return HPKE.encrypt(header, kem_public_key(reader.secrets().kem_public), info_of(reader))


HONEST, SECOND = deliveries()
RECEIPT = content.receipt(ReceiptKind.READ, (ID, bytes(16)))


# --- what must work -------------------------------------------------------------------------------------


def test_each_device_opens_its_copy() -> None:
    """One body, one header for each, and the sender's time and version come along."""
    assert HONEST.body == SECOND.body
    assert HONEST.header != SECOND.header
    for delivery, device in ((HONEST, 1), (SECOND, 2)):
        assert opened(delivery, device=device) == Opened(HELLO, NOW, 1)


@pytest.mark.parametrize("what", [content.text("x"), content.text("😀" * 16_384), RECEIPT])
def test_every_content_survives(what: content.Content) -> None:
    """From one byte to 64 KiB."""
    assert opened(deliveries(what=what)[0]).content == what


def test_the_senders_other_devices_read_along() -> None:
    """A copy to oneself names the recipient, so the conversation is known."""
    ada = ADA.with_second_device()
    body_to_self = deliveries(ada, targets=[*targets_of(BOB), *targets_of(ada)[1:]])[-1]
    assert body_to_self.recipient == BOB.uid
    assert opened(body_to_self, ada, 2, users={ada.uid: ada.user}).content == HELLO


def test_a_superseded_kem_key_still_opens_what_was_on_its_way() -> None:
    """The current key is tried first, then those before it."""
    bob = BOB.rotated()
    keys = [bob.secrets(1, 2).kem, bob.secrets(1, 1).kem]
    assert opened(HONEST, bob, keys=keys).content == HELLO
    with pytest.raises(Undecryptable):
        opened(HONEST, bob, keys=keys[:1])


def test_the_header_and_body_have_their_documented_sizes() -> None:
    """Lengths tell the bucket and the number of devices, nothing else."""
    assert len(HONEST.header) == HEADER_BYTES == 1244
    assert len(HONEST.body) == 256 + 16
    assert len(deliveries(what=content.text("x" * 200))[0].body) == len(HONEST.body)


def test_the_largest_envelope_fits_a_frame() -> None:
    """64 KiB of text to 32 devices stays under half of 256 KiB."""
    many = [Target(BOB.uid, number, BOB.secrets().kem_public) for number in range(1, MAX_COPIES + 1)]
    body, copies = seal(
        NETWORK,
        content.text("x" * 65_536),
        secrets=ADA.secrets(),
        sender=ADA.uid,
        device=1,
        version=1,
        recipient=BOB.uid,
        message_id=ID,
        time_ms=NOW,
        targets=many,
    )
    assert len(body) == MAX_BODY_BYTES
    frame = msgspec.msgpack.encode(Submit(Envelope(ID, 1, BOB.uid, 1, 1, body, copies)))
    assert len(frame) < 128 * 1024
    with pytest.raises(TooLarge, match="32"):
        deliveries(targets=[*many, many[0]])


def test_the_plaintext_is_nowhere_in_what_the_relay_sees() -> None:
    """Nor the signature, nor the key."""
    seen = msgspec.msgpack.encode(HONEST)
    assert b"hello" not in seen
    assert ADA.secrets().ed25519_public not in seen


def test_the_same_text_never_looks_the_same() -> None:
    """Keys are drawn for each message."""
    first, second = deliveries()[0], deliveries()[0]
    assert first.body != second.body
    assert first.header[:1120] != second.header[:1120]


# --- what a hostile relay, member or stranger tries ---------------------------------------------------------


@pytest.mark.parametrize("position", [*range(0, 1120, 37), *range(1120, HEADER_BYTES)])
def test_every_altered_part_of_the_header_is_noticed(position: int) -> None:
    """ML-KEM's and X25519's parts of the encapsulation, the ciphertext and the tag."""
    header = bytearray(HONEST.header)
    header[position] ^= 0x01
    with pytest.raises(Undecryptable):
        opened(altered(HONEST, header=bytes(header)))


@pytest.mark.parametrize("position", range(0, 272, 3))
def test_every_altered_part_of_the_body_is_noticed(position: int) -> None:
    """Ciphertext and tag."""
    body = bytearray(HONEST.body)
    body[position] ^= 0x80
    with pytest.raises(Undecryptable):
        opened(altered(HONEST, body=bytes(body)))


@pytest.mark.parametrize(
    "fields",
    [
        {"header": b""},
        {"header": HONEST.header[:-1]},
        {"header": HONEST.header + b"\0"},
        {"header": HONEST.header[:1120]},
        {"body": b""},
        {"body": HONEST.body[:-1]},
        {"body": HONEST.body[:15]},
        {"body": HONEST.body + b"\0"},
        {"body": bytes(MAX_BODY_BYTES + 1)},
        {"id": ID[:-1]},
        {"suite": 2},
        {"suite": 0},
    ],
)
def test_a_truncated_oversized_or_unknown_message_is_undecryptable(fields: dict[str, Any]) -> None:
    """Said as such, and nothing else escapes."""
    with pytest.raises(Undecryptable):
        opened(altered(HONEST, **fields))


@pytest.mark.parametrize("time_ms", [MAX_TIME_MS + 1, 2**63, 2**64 - 1])
def test_a_signed_time_beyond_every_calendar_is_undecryptable(time_ms: int) -> None:
    """A member may sign any 64 bits as the time; those that no database holds go no further."""
    delivery, *_ = deliveries(time_ms=time_ms)
    with pytest.raises(Undecryptable, match="9999"):
        opened(delivery)


def test_the_last_millisecond_of_9999_is_a_time() -> None:
    """The bound itself is carried."""
    delivery, *_ = deliveries(time_ms=MAX_TIME_MS)
    assert opened(delivery).time_ms == MAX_TIME_MS


@pytest.mark.parametrize("sender", [EVE.uid, BOB.uid, 1, 0])
def test_a_forged_sender_is_named_a_forgery(sender: int) -> None:
    """The relay says that somebody else wrote it."""
    with pytest.raises(ForgedMessage):
        opened(altered(HONEST, sender=sender))


@pytest.mark.parametrize("uid", [-1, 2**64])
def test_a_sender_or_recipient_that_cannot_exist_is_a_forgery(uid: int) -> None:
    """Numbers beyond the field do not crash the reader."""
    with pytest.raises(ForgedMessage):
        opened(altered(HONEST, recipient=uid))
    with pytest.raises(ForgedMessage):
        opened(altered(HONEST, sender=uid), users={Uid(uid): ADA.user})


def test_a_message_signed_by_another_of_the_senders_devices_is_a_forgery() -> None:
    """The device is signed too."""
    ada = ADA.with_second_device()
    with pytest.raises(ForgedMessage):
        opened(altered(HONEST, sender_device=2), users={ada.uid: ada.user})
    with pytest.raises(ForgedMessage, match="does not list"):
        opened(altered(HONEST, sender_device=2))


def test_a_swapped_recipient_is_a_forgery() -> None:
    """A message to Bob cannot be shown to him as one that Ada wrote to Eve, nor into another conversation."""
    with pytest.raises(ForgedMessage):
        opened(altered(HONEST, recipient=EVE.uid))


def test_a_message_passed_on_by_its_reader_is_a_forgery() -> None:
    """Bob seals it anew, to Eve, with Ada's signature: it still names Bob as its recipient."""
    passed_on = resealed(header_of(HONEST), EVE)
    with pytest.raises(ForgedMessage):
        opened(altered(HONEST, header=passed_on, recipient=EVE.uid), EVE)
    with pytest.raises(ForgedMessage, match="addressed to somebody else"):
        opened(altered(HONEST, header=passed_on), EVE)


def test_a_replay_under_another_id_is_a_forgery() -> None:
    """Under the same id the client's memory of ids refuses it."""
    with pytest.raises(ForgedMessage):
        opened(altered(HONEST, id=b"another id 16 by"))


def test_a_signature_moved_to_another_text_is_a_forgery() -> None:
    """Even by one who may read both: a reader who re-seals with the sender's signature of the first."""
    first, other = deliveries()[0], deliveries(what=content.text("pay eve 100"))[0]
    mixed = resealed(header_of(other)[:32] + header_of(first)[32:])
    with pytest.raises(ForgedMessage):
        opened(altered(other, header=mixed))


@pytest.mark.parametrize("position", range(32, 108))
def test_every_bit_of_version_time_and_signature_is_bound(position: int) -> None:
    """Re-sealed by one who can read it, with one bit changed."""
    header = bytearray(header_of(HONEST))
    header[position] ^= 0x01
    with pytest.raises(ForgedMessage):
        opened(altered(HONEST, header=resealed(bytes(header))))


def test_the_header_of_one_message_does_not_open_the_body_of_another() -> None:
    """Each body has its own key."""
    other = deliveries(what=content.text("another"))[0]
    with pytest.raises(Undecryptable, match="belongs to another message"):
        opened(altered(HONEST, body=other.body))
    with pytest.raises(Undecryptable):
        opened(altered(HONEST, header=other.header))


def test_another_device_cannot_open_it() -> None:
    """Another device of the same user, another user, and the right key under a wrong name."""
    with pytest.raises(Undecryptable, match="another device"):
        opened(HONEST, device=2)
    with pytest.raises(Undecryptable, match="another device"):
        opened(altered(HONEST, recipient=EVE.uid), EVE)
    with pytest.raises(Undecryptable):
        opened(HONEST, device=2, keys=[BOB.secrets(1).kem])
    with pytest.raises(Undecryptable):
        opened(HONEST, keys=[])


@pytest.mark.parametrize("network", [OTHER_NETWORK, OTHER_REGISTRY])
def test_a_message_of_another_network_does_not_open(network: Network) -> None:
    """The same keys on another chain or registry."""
    with pytest.raises(Undecryptable):
        opened(deliveries(network=network)[0])


def test_a_signature_for_another_network_is_a_forgery() -> None:
    """Re-sealed for this network by its reader, it is still signed for the other."""
    other = deliveries(network=OTHER_NETWORK)[0]
    moved = resealed(header_of(other, network=OTHER_NETWORK))
    with pytest.raises(ForgedMessage):
        opened(altered(other, header=moved))


def test_a_key_that_the_chain_does_not_list_signs_nothing() -> None:
    """Eve's keys under Ada's name, and a version that does not exist."""
    with pytest.raises(ForgedMessage):
        opened(altered(deliveries(EVE)[0], sender=ADA.uid))
    with pytest.raises(ForgedMessage, match="version 2"):
        opened(deliveries(ADA.rotated())[0])


def test_rotation_and_revocation_are_obeyed() -> None:
    """The rule of the superseded key, with the times of a real message."""
    ada = ADA.rotated()
    listed = {ada.uid: ada.user}
    replaced = (BLOCK_TIME + 3600) * 1000
    assert opened(HONEST, users=listed).version == 1
    assert opened(deliveries(ada, time_ms=replaced)[0], users=listed).version == 2
    late = altered(deliveries(ada, version=1, time_ms=NOW)[0], received_ms=replaced + 301_000)
    with pytest.raises(ForgedMessage, match="had replaced"):
        opened(late, users=listed)
    with pytest.raises(ForgedMessage, match="revoked"):
        opened(HONEST, users={ADA.uid: ADA.revoked().user})


def test_a_small_order_key_opens_no_door() -> None:
    """If a listing ever gave one, its universal signature would still not count."""
    identity = (1).to_bytes(32, "little")
    forged = resealed(header_of(HONEST)[:44] + identity + bytes(32))
    with pytest.raises(ForgedMessage):
        open_(
            NETWORK,
            altered(HONEST, header=forged),
            uid=BOB.uid,
            device=1,
            keys=[BOB.secrets().kem],
            resolve=lambda *_: identity,
        )


def test_malformed_content_from_a_real_sender_is_undecryptable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signed garbage stays garbage."""
    monkeypatch.setattr(content, "encode", lambda _: b"\x01\xc1")
    garbage = deliveries()[0]
    with pytest.raises(Undecryptable, match="content"):
        opened(garbage)


def test_malformed_padding_from_a_real_sender_is_undecryptable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Padding has one spelling, also for those who sign it."""
    monkeypatch.setattr(sealed, "pad", lambda data: data + bytes(10))
    garbage = deliveries()[0]
    with pytest.raises(Undecryptable, match="padding"):
        opened(garbage)


@given(
    st.binary(min_size=HEADER_BYTES, max_size=HEADER_BYTES), st.binary(max_size=400), st.binary(max_size=20)
)
@settings(deadline=None, max_examples=50)
def test_garbage_fails_only_as_documented(header: bytes, body: bytes, id: bytes) -> None:
    """Whatever the relay delivers."""
    with pytest.raises(Undecryptable):
        opened(Delivery(1, id, 1, ADA.uid, 1, BOB.uid, NOW, header, body))


def test_a_malformed_kem_key_is_not_sealed_to() -> None:
    """Named before anything is sent."""
    with pytest.raises(BadRecord):
        deliveries(targets=[Target(BOB.uid, 1, b"\xff" * 1216)])


def test_slips_of_the_caller_are_refused() -> None:
    """No target, or an id of another length."""
    with pytest.raises(ValueError, match="device"):
        seal(
            NETWORK,
            HELLO,
            secrets=ADA.secrets(),
            sender=1,
            device=1,
            version=1,
            recipient=2,
            message_id=ID,
            time_ms=0,
            targets=[],
        )
    with pytest.raises(ValueError, match="16 bytes"):
        deliveries(message_id=b"short")


def test_the_signature_covers_what_the_protocol_says() -> None:
    """Label ‖ chain ‖ registry ‖ sender, device ‖ recipient ‖ id ‖ time ‖ SHA-256(padded plaintext)."""
    signature = header_of(HONEST)[44:]
    signed = (
        b"chatchain/1 sealed message"
        + NETWORK.chain_id.to_bytes(8, "big")
        + NETWORK.registry
        + ADA.uid.to_bytes(8, "big")
        + (1).to_bytes(4, "big")
        + BOB.uid.to_bytes(8, "big")
        + ID
        + NOW.to_bytes(8, "big")
        + hashlib.sha256(pad(content.encode(HELLO))).digest()
    )
    assert ed25519.verify(ADA.secrets().ed25519_public, signature, signed)
    assert isinstance(HELLO, Text)
