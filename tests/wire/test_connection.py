"""Frames and turns: what a Connection takes in, and what it refuses."""

import random
import struct

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatchain.crypto import prekeys, ratchet, ratcheted, session
from chatchain.errors import ProtocolViolation, TooLarge
from chatchain.model import RELAYS_WORD, Copy, Delivery, Envelope, KeyBundle
from chatchain.wire import bounds
from chatchain.wire import messages as m
from chatchain.wire.bounds import MAX_COPIES, check
from chatchain.wire.connection import MAX_FRAME, MAX_FRAME_BEFORE_LOGIN, TABLE, Connection, Role, State, frame
from chatchain.wire.parcels import deliver_frames, parcel, tick_frames
from tests.crypto.pairs import ADA, BOB
from tests.crypto.pairs import BUNDLE as BUNDLE_2

UID = 123_456_789_012_345
OTHER = 234_567_890_123_456
ID = bytes(range(16))
ENVELOPE = Envelope(ID, 1, UID, 1, 1, b"body", (Copy(UID, 1, b"header"),))
DELIVERY = Delivery(7, ID, 1, UID, 1, UID, 1_700_000_000_000, b"header", b"body")
SIGN = Envelope(ID, 2, UID, 1, 1, b"sign", (Copy(UID, 1, b"header"),))
SIGNALED = Delivery(0, ID, 2, UID, 1, UID, 1_700_000_000_000, b"header", b"sign")
BUNDLE = KeyBundle(UID, 1, 1, b"k" * 1216, 1, 2, b"s" * 64)
CHALLENGE = m.Challenge(m.PROTOCOL_VERSION, bytes(32), 31337, bytes(20), 1_700_000_000_000, 16)
LOGIN = m.Login(UID, 1, 0, bytes(26), bytes(65), bytes(65))
SIGNED, KEM, ONE_TIME = b"s" * 117, b"k" * 1653, b"o" * 36
PUBLISH = m.PublishPrekeys(1, 1, SIGNED, KEM, (ONE_TIME,), (KEM,))
PREKEY_BUNDLE = b"h" * 17 + SIGNED + KEM
WELCOME = m.Welcome(UID, 0, 1_700_000_000_000)
ENTER_FILES = m.EnterFiles(UID, 1, 0, bytes(26), bytes(65), bytes(65))
FILES_OPEN = m.FilesOpen(UID, 25_024_472)
BLOB = bytes(range(32))

SAMPLES: tuple[m.Message, ...] = (
    LOGIN,
    m.Submit(ENVELOPE),
    m.Receive(0),
    m.Acknowledge((1, 2)),
    m.PublishKeys(1, BUNDLE),
    m.FetchKeys(1, (UID,)),
    m.Sponsor(1, "identity", bytes(100), bytes(9)),
    m.Ping(1),
    m.Pong(1),
    PUBLISH,
    m.FetchPrekeys(1, ((UID, 1), (UID, 2), (OTHER, 1))),
    m.Resume(2**62 + 1, 1_000),
    m.Signal(SIGN),
    CHALLENGE,
    WELCOME,
    m.Tick(ID),
    m.Refused(ID, "limit_reached", "Slow down.", 1000),
    m.StaleDevices(ID, UID, 2, 10),
    m.Deliver(DELIVERY),
    m.Keys(1, (BUNDLE,)),
    m.Sponsored(1, bytes(32)),
    m.Done(1),
    m.Failed(1, "reverted", "No.", 0),
    m.Goodbye("shutdown", "The relay stops.", 0),
    m.PrekeysLeft(1, 50, 49),
    m.Prekeys(1, (PREKEY_BUNDLE + ONE_TIME,), ()),
    m.Prekeys(1, (), (m.Withheld(OTHER, 1, "limit_reached", 600_001),)),
    m.Resumed(2**62 + 1, 1_000),
    m.Signaled(SIGNALED),
    ENTER_FILES,
    m.Upload(1, BLOB, 25_024_472),
    m.Fetch(1, BLOB, 1_048_576, 23_975_896),
    m.Discard(1, BLOB),
    m.Piece(1, b"sealed"),
    FILES_OPEN,
    m.Uploading(1, 1_048_576),
    m.Stored(1, 1_702_592_000_000),
    m.Fetching(1, 25_024_472),
)


def at(role: Role, state: State) -> Connection:
    """A connection of this role, brought to this state by a lawful conversation."""
    connection = Connection(role)
    path: dict[State, tuple[m.Message, ...]] = {
        State.OPENING: (),
        State.CHALLENGED: (CHALLENGE,),
        State.PROVING: (CHALLENGE, LOGIN),
        State.READY: (CHALLENGE, LOGIN, WELCOME),
        State.ENTERING: (CHALLENGE, ENTER_FILES),
        State.FILES: (CHALLENGE, ENTER_FILES, FILES_OPEN),
        State.CLOSED: (m.Goodbye("x", "y", 0),),
    }
    for message in path[state]:
        ours = isinstance(message, m.Login | m.EnterFiles) == (role is Role.CLIENT)
        if ours:
            connection.send(message)
        else:
            assert list(connection.receive_data(frame(message))) == [message]
    assert connection.state is state
    return connection


def test_every_message_is_sampled() -> None:
    """The list above holds each message of the protocol once, so the tests below miss none."""
    assert {type(sample) for sample in SAMPLES} == set(m.Message.__subclasses__())


@pytest.mark.parametrize("chunk", [1, 3, 10_000])
def test_a_conversation_reads_the_same_in_any_pieces(chunk: int) -> None:
    """Whole, by bytes, or in threes: the same messages come out, and a tail waits for its rest."""
    sent = [m.Submit(ENVELOPE), m.Receive(3), m.Acknowledge((1,)), m.Ping(9)]
    stream = b"".join(map(frame, sent))
    tail = frame(m.Receive(4))
    relay = at(Role.RELAY, State.READY)
    received: list[m.Message] = []
    data = stream + tail[:-1]
    for start in range(0, len(data), chunk):
        received += relay.receive_data(data[start : start + chunk])
    assert received == sent
    assert relay.buffered == len(tail) - 1
    assert list(relay.receive_data(tail[-1:])) == [m.Receive(4)]
    assert relay.buffered == 0


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
@pytest.mark.parametrize("state", list(State), ids=lambda state: state.name)
@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.name)
def test_the_table_binds_both_sides(sample: m.Message, state: State, role: Role) -> None:
    """What the table does not list is a violation when it comes and a bug when it is sent."""
    if state is State.CLOSED:
        return
    peer = Role.CLIENT if role is Role.RELAY else Role.RELAY
    ours, theirs = TABLE[state][role], TABLE[state][peer]
    connection = at(role, state)
    if type(sample) in ours:
        assert connection.send(sample) == frame(sample)
        assert connection.state is (ours[type(sample)] or state)
    else:
        with pytest.raises(AssertionError):
            connection.send(sample)
        assert connection.state is state
    connection = at(role, state)
    if type(sample) in theirs:
        assert list(connection.receive_data(frame(sample))) == [sample]
        assert connection.state is (theirs[type(sample)] or state)
    else:
        with pytest.raises(ProtocolViolation):
            list(connection.receive_data(frame(sample)))
        assert connection.state is State.CLOSED


def test_a_closed_connection_takes_nothing_in() -> None:
    """After Goodbye the rest is dropped, whatever it is."""
    client = at(Role.CLIENT, State.CLOSED)
    assert list(client.receive_data(b"\xff" * 100)) == []
    assert client.buffered == 0


@pytest.mark.parametrize("state", [State.CHALLENGED, State.READY], ids=["before login", "after"])
@pytest.mark.parametrize(
    "length",
    [0, 2**31, 2**32 - 1, MAX_FRAME + 1, -1 & 0xFFFFFFFF],
    ids=["empty", "negative", "max", "long", "-1"],
)
def test_an_impossible_length_is_refused_before_the_payload_comes(state: State, length: int) -> None:
    """Four bytes are enough to refuse a frame that is empty, negative or too long."""
    relay = at(Role.RELAY, state)
    with pytest.raises(ProtocolViolation):
        list(relay.receive_data(struct.pack(">I", length)))
    assert relay.state is State.CLOSED
    assert relay.buffered == 0


@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.name)
@pytest.mark.parametrize(
    "state",
    [State.OPENING, State.CHALLENGED, State.PROVING, State.ENTERING],
    ids=lambda state: state.name,
)
def test_a_stranger_is_held_to_small_frames(role: Role, state: State) -> None:
    """Until the login holds 4 KiB are allowed to either side, and not a byte more."""
    assert list(at(role, state).receive_data(struct.pack(">I", MAX_FRAME_BEFORE_LOGIN))) == []
    with pytest.raises(ProtocolViolation):
        list(at(role, state).receive_data(struct.pack(">I", MAX_FRAME_BEFORE_LOGIN + 1)))
    assert list(at(role, State.READY).receive_data(struct.pack(">I", MAX_FRAME))) == []


def test_sending_more_than_the_cap_is_refused_here() -> None:
    """A frame that the peer would refuse is not sent at all."""
    client = at(Role.CLIENT, State.CHALLENGED)
    with pytest.raises(TooLarge):
        client.send(m.Sponsor(1, "identity", bytes(5000)))
    assert client.state is State.CHALLENGED


def test_messages_before_a_violation_are_given_out() -> None:
    """Garbage behind a good message does not swallow it."""
    relay = at(Role.RELAY, State.READY)
    messages = relay.receive_data(frame(m.Ping(1)) + b"\x00\x00\x00\x01\xc1")
    assert next(messages) == m.Ping(1)
    with pytest.raises(ProtocolViolation):
        next(messages)


@pytest.mark.parametrize(
    "payload",
    [
        b"\xc1",
        b"\x90",
        b"\x91" * 5000,
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        msgspec.msgpack.encode([99, 1]),
        msgspec.msgpack.encode([8]),
        msgspec.msgpack.encode([8, "1"]),
        msgspec.msgpack.encode([8, 1, 2]),
        msgspec.msgpack.encode([8, 1]) + b"\x00",
        msgspec.msgpack.encode({"type": 8, "nonce": 1}),
        msgspec.msgpack.encode([5, 1, None]),
        b"\x93\x01\xa2\xff\xfe",
    ],
    ids=[
        "reserved",
        "empty",
        "deep",
        "wide",
        "long bytes",
        "tag",
        "short",
        "type",
        "extra",
        "tail",
        "map",
        "nil",
        "utf8",
    ],
)
def test_garbage_is_a_violation_and_nothing_else(payload: bytes) -> None:
    """Unknown tags, wrong types, bombs and rubbish all end as ProtocolViolation."""
    relay = at(Role.RELAY, State.READY)
    with pytest.raises(ProtocolViolation):
        list(relay.receive_data(struct.pack(">I", len(payload)) + payload))
    assert relay.state is State.CLOSED


@pytest.mark.parametrize(
    ("message", "place"),
    [
        (m.Submit(ENVELOPE), (1,)),
        (m.Submit(ENVELOPE), (1, 6, 0)),
        (m.Signal(SIGN), (1, 6, 0)),
        (m.Deliver(DELIVERY), (1,)),
        (m.PublishKeys(1, BUNDLE), (2,)),
        (m.Keys(1, (BUNDLE,)), (2, 0)),
    ],
    ids=["envelope", "copy", "copy of a signal", "delivery", "bundle", "fetched bundle"],
)
def test_no_part_of_a_message_holds_more_than_its_fields(message: m.Message, place: tuple[int, ...]) -> None:
    """What the relay would drop without a word, or two versions read differently, is a violation."""
    whole = msgspec.msgpack.decode(msgspec.msgpack.encode(message))
    part = whole
    for index in place:
        part = part[index]
    part.append(0)
    payload = msgspec.msgpack.encode(whole)
    with pytest.raises(ProtocolViolation):
        list(hearing(type(message)).receive_data(struct.pack(">I", len(payload)) + payload))


BAD: dict[str, m.Message] = {
    "short id": m.Submit(msgspec.structs.replace(ENVELOPE, id=b"short")),
    "long id": m.Tick(bytes(17)),
    "no copies": m.Submit(msgspec.structs.replace(ENVELOPE, copies=())),
    "many copies": m.Submit(
        msgspec.structs.replace(ENVELOPE, copies=tuple(Copy(UID, n + 1, b"") for n in range(MAX_COPIES + 1)))
    ),
    "twice one device": m.Submit(
        msgspec.structs.replace(ENVELOPE, copies=(Copy(UID, 1, b"a"), Copy(UID, 1, b"b")))
    ),
    "negative uid": m.FetchKeys(1, (-1,)),
    "long uid": m.FetchKeys(1, (10**15,)),
    "no users": m.FetchKeys(1, ()),
    "nine users": m.FetchKeys(1, tuple(range(1, 10))),
    "negative ref": m.Done(-1),
    "huge ref": m.Done(2**64 - 1),
    "short signature": msgspec.structs.replace(LOGIN, login_signature=bytes(64)),
    "long header": m.Submit(msgspec.structs.replace(ENVELOPE, copies=(Copy(UID, 1, bytes(4097)),))),
    "long body": m.Submit(msgspec.structs.replace(ENVELOPE, body=bytes(192 * 1024 + 1))),
    "nothing acknowledged": m.Acknowledge(()),
    "much acknowledged": m.Acknowledge(tuple(range(4097))),
    "device 0": msgspec.structs.replace(LOGIN, device=0),
    "prekeys of version 0": msgspec.structs.replace(PUBLISH, version=0),
    "short signed prekey": msgspec.structs.replace(PUBLISH, signed=SIGNED[:-1]),
    "one-time keys alone": m.PublishPrekeys(1, 1, b"", b"", (ONE_TIME,), ()),
    "KEM keys alone": m.PublishPrekeys(1, 1, b"", b"", (), (KEM,)),
    "no last-resort key": msgspec.structs.replace(PUBLISH, kem=b""),
    "long one-time key": msgspec.structs.replace(PUBLISH, one_time=(ONE_TIME + b"o",)),
    "short KEM key": msgspec.structs.replace(PUBLISH, kem_one_time=(KEM, KEM[:-1])),
    "many one-time keys": msgspec.structs.replace(PUBLISH, one_time=(ONE_TIME,) * 101),
    "many KEM keys": msgspec.structs.replace(PUBLISH, kem_one_time=(KEM,) * 101),
    "no device": m.FetchPrekeys(1, ()),
    "many devices": m.FetchPrekeys(1, tuple((UID, n) for n in range(1, 130))),
    "a device twice": m.FetchPrekeys(1, ((UID, 1), (OTHER, 1), (UID, 1))),
    "user 0": m.FetchPrekeys(1, ((UID, 1), (0, 1))),
    "prekeys of device 0": m.FetchPrekeys(1, ((UID, 0),)),
    "short prekey bundle": m.Prekeys(1, (PREKEY_BUNDLE[:-1],), ()),
    "long prekey bundle": m.Prekeys(1, (PREKEY_BUNDLE + ONE_TIME + b"o",), ()),
    "many prekey bundles": m.Prekeys(1, (PREKEY_BUNDLE,) * 128, (m.Withheld(UID, 1, "limit_reached", 1),)),
    "withheld from nobody": m.Prekeys(1, (), (m.Withheld(0, 1, "limit_reached", 1),)),
    "withheld from device 0": m.Prekeys(1, (), (m.Withheld(UID, 0, "limit_reached", 1),)),
    "withheld for years": m.Prekeys(1, (), (m.Withheld(UID, 1, "limit_reached", 24 * 3600 * 1000 + 1),)),
    "withheld for a long word": m.Prekeys(1, (), (m.Withheld(UID, 1, "l" * 65, 0),)),
    "negative count": m.PrekeysLeft(1, 0, -1),
    "short blob id": m.Upload(1, bytes(31), 1),
    "long blob id": m.Discard(1, bytes(33)),
    "nothing to upload": m.Upload(1, BLOB, 0),
    "endless upload": m.Upload(1, BLOB, 2**32 + 1),
    "negative offset": m.Fetch(1, BLOB, -1, 1),
    "nothing to fetch": m.Fetch(1, BLOB, 0, 0),
    "empty piece": m.Piece(1, b""),
    "long piece": m.Piece(1, bytes(192 * 1024 + 1)),
    "far offset": m.Uploading(1, 2**32 + 1),
    "file without a byte": m.Fetching(1, 0),
    "no selector": m.Sponsor(1, "identity", b"abc"),
    "a long admission": m.Sponsor(1, "identity", bytes(100), bytes(129)),
    "long calldata": m.Sponsor(1, "identity", bytes(8 * 1024 + 1)),
    "the relay's own suite": m.Submit(msgspec.structs.replace(ENVELOPE, suite=RELAYS_WORD)),
    "a copy for device 0": m.Submit(msgspec.structs.replace(ENVELOPE, copies=(Copy(UID, 0, b""),))),
    "long signal": m.Signal(msgspec.structs.replace(ENVELOPE, body=bytes(513))),
    "long signal delivered": m.Signaled(msgspec.structs.replace(SIGNALED, body=bytes(513))),
    "a signal with a place in the mailbox": m.Signaled(msgspec.structs.replace(SIGNALED, sequence=1)),
    "negative acknowledgement": m.Acknowledge((-1, 1)),
    "acknowledgement beyond all numbers": m.Acknowledge((1, 2**63)),
    "negative place": m.Resume(0, -1),
    "negative space": m.Resume(-1, 0),
    "no space": m.Resumed(0, 1),
    "negative delay": m.Goodbye("shutdown", "The relay stops.", -1),
    "long delay": m.Refused(ID, "limit_reached", "Later.", 24 * 3600 * 1000 + 1),
    "long kdf": msgspec.structs.replace(LOGIN, kdf=bytes(65)),
    "short device signature": msgspec.structs.replace(LOGIN, device_signature=bytes(64)),
    "long device signature for files": msgspec.structs.replace(ENTER_FILES, device_signature=bytes(66)),
    "no KEM key": m.PublishKeys(1, msgspec.structs.replace(BUNDLE, kem_public=b"")),
    "long KEM key": m.PublishKeys(1, msgspec.structs.replace(BUNDLE, kem_public=bytes(1601))),
}


def hearing(kind: type[m.Message]) -> Connection:
    """A connection that may be told such a message, after the login if it may be then."""
    for state in (State.READY, State.FILES, *State):
        for role, peer in ((Role.RELAY, Role.CLIENT), (Role.CLIENT, Role.RELAY)):
            if kind in TABLE[state][peer]:
                return at(role, state)
    raise AssertionError(f"{kind.__name__} may never be said")


@pytest.mark.parametrize("message", BAD.values(), ids=BAD.keys())
def test_a_field_out_of_bounds_is_a_violation(message: m.Message) -> None:
    """The bounds are checked in one place, and on everything that comes."""
    with pytest.raises(ProtocolViolation):
        check(message)
    with pytest.raises(ProtocolViolation):
        list(hearing(type(message)).receive_data(frame(message)))


def test_the_samples_are_within_bounds() -> None:
    """So that the refusals above are due to the one field that each changes."""
    for sample in SAMPLES:
        check(sample)
        assert list(hearing(type(sample)).receive_data(frame(sample))) == [sample]


def test_the_largest_lawful_submission_can_be_delivered() -> None:
    """A body and header that fit into a Submit fit into the Deliver that carries them on."""
    body, header = bytes(192 * 1024), bytes(4096)
    client = at(Role.CLIENT, State.READY)
    client.send(m.Submit(msgspec.structs.replace(ENVELOPE, body=body, copies=(Copy(UID, 1, header),))))
    largest = Delivery(2**63 - 1, ID, 0xFFFF, 10**15 - 1, 2**32 - 1, 10**15 - 1, 2**63 - 1, header, body)
    data = at(Role.RELAY, State.READY).send(m.Deliver(largest))
    assert list(client.receive_data(data)) == [m.Deliver(largest)]


def test_the_longest_answer_about_keys_fits_into_a_frame() -> None:
    """Eight users with sixteen devices each, every field at its limit."""
    bundle = KeyBundle(10**15 - 1, 2**32 - 1, 2**32 - 1, bytes(1600), 2**63 - 1, 2**63 - 1, bytes(128))
    keys = m.Keys(2**63 - 1, (bundle,) * 128)
    assert list(at(Role.CLIENT, State.READY).receive_data(at(Role.RELAY, State.READY).send(keys))) == [keys]


def test_the_most_prekeys_fit_into_a_frame() -> None:
    """Published at once, and fetched of as many devices as one may name; every field at its limit."""
    publish = m.PublishPrekeys(2**63 - 1, 2**32 - 1, SIGNED, KEM, (ONE_TIME,) * 100, (KEM,) * 100)
    assert list(at(Role.RELAY, State.READY).receive_data(at(Role.CLIENT, State.READY).send(publish))) == [
        publish
    ]
    most = bounds.MAX_FETCHED_DEVICES
    fetch = m.FetchPrekeys(2**63 - 1, tuple((bounds.MAX_UID, bounds.MAX_U32 - n) for n in range(most)))
    assert list(at(Role.RELAY, State.READY).receive_data(at(Role.CLIENT, State.READY).send(fetch))) == [fetch]
    withheld = m.Withheld(bounds.MAX_UID, bounds.MAX_U32, "l" * bounds.MAX_CODE, bounds.MAX_RETRY_MS)
    for answer in (
        m.Prekeys(2**63 - 1, (PREKEY_BUNDLE + ONE_TIME,) * most, ()),
        m.Prekeys(2**63 - 1, (), (withheld,) * most),
    ):
        sent = at(Role.RELAY, State.READY).send(answer)
        assert list(at(Role.CLIENT, State.READY).receive_data(sent)) == [answer]


def test_the_longest_piece_fits_into_a_frame_and_a_stranger_sends_none() -> None:
    """In both directions; before the login for files holds, a frame is as short as any stranger's."""
    piece = m.Piece(2**63 - 1, bytes(192 * 1024))
    for role, other in ((Role.CLIENT, Role.RELAY), (Role.RELAY, Role.CLIENT)):
        assert list(at(other, State.FILES).receive_data(at(role, State.FILES).send(piece))) == [piece]
    with pytest.raises(ProtocolViolation):
        list(at(Role.RELAY, State.ENTERING).receive_data(frame(piece)))


def test_asking_how_many_prekeys_are_left_publishes_nothing() -> None:
    """All of it empty is well-formed."""
    check(m.PublishPrekeys(1, 1, b"", b"", (), ()))


def test_the_lengths_of_prekeys_and_headers_are_those_of_suite_2() -> None:
    """This room knows them as numbers only."""
    assert bounds.SIGNED_PREKEY_BYTES == prekeys.SIGNED_PREKEY_BYTES
    assert bounds.SIGNED_KEM_BYTES == prekeys.SIGNED_KEM_BYTES
    assert bounds.ONE_TIME_BYTES == prekeys.ONE_TIME_BYTES
    assert len(prekeys.encode_bundle(BUNDLE_2)) == bounds.PREKEY_BUNDLE_BYTES + bounds.ONE_TIME_BYTES
    carried = ratcheted.header_content(bytes(32), b"the body")
    _, first = session.encrypt(ADA.begin(BOB, BUNDLE_2), carried, b"")
    longest = len(first) + ratchet.KEM_PUBLIC_BYTES
    assert longest == 2960 <= bounds.MAX_HEADER


@settings(max_examples=300, deadline=None)
@given(
    data=st.one_of(
        st.binary(max_size=400),
        st.binary(max_size=200).map(lambda payload: struct.pack(">I", len(payload)) + payload),
        st.tuples(st.sampled_from(SAMPLES), st.integers(0, 2**32), st.integers(0, 255)).map(
            lambda hit: bytes(
                byte ^ hit[2] if index == hit[1] % len(frame(hit[0])) else byte
                for index, byte in enumerate(frame(hit[0]))
            )
        ),
        st.recursive(
            st.none()
            | st.integers(-(2**63), 2**64 - 1)
            | st.binary(max_size=20)
            | st.text(max_size=8)
            | st.floats(),
            lambda inner: st.lists(inner, max_size=10),
            max_leaves=20,
        ).map(lambda value: (lambda p: struct.pack(">I", len(p)) + p)(msgspec.msgpack.encode(value))),
    ),
    role=st.sampled_from(list(Role)),
    state=st.sampled_from([state for state in State if state is not State.CLOSED]),
    seed=st.integers(0, 2**16),
)
def test_no_bytes_raise_anything_but_a_violation(data: bytes, role: Role, state: State, seed: int) -> None:
    """Whatever comes in whatever pieces, only ProtocolViolation escapes and closes the connection."""
    rng = random.Random(seed)
    connection = at(role, state)
    try:
        while data:
            cut = rng.randint(1, len(data))
            for message in connection.receive_data(data[:cut]):
                check(message)
            data = data[cut:]
    except ProtocolViolation:
        assert connection.state is State.CLOSED
        assert connection.buffered == 0


def test_frames_made_of_parcels_are_those_of_their_messages() -> None:
    """Whatever the length of the sequence's number."""
    ada, bob = 100_000_000_000_001, 100_000_000_000_002
    copy = Copy(bob, 2, b"header")
    envelope = Envelope(bytes(range(16)), 2, bob, 1, 1, b"body", (copy,))
    made = parcel(envelope, copy, ada, 3, 1_700_000_000_000)
    for first in (0, 127, 255, 65_535, 2**32 - 1, 2**40):
        expected = [
            m.Deliver(Delivery(sequence, envelope.id, 2, ada, 3, bob, 1_700_000_000_000, b"header", b"body"))
            for sequence in (first, first + 1)
        ]
        assert deliver_frames(first, [made, made]) == b"".join(map(frame, expected))
    ids = [bytes(16), b"\xff" * 16]
    assert tick_frames(ids) == b"".join(frame(m.Tick(id_)) for id_ in ids)


def test_frames_made_elsewhere_wait_for_their_turn_too() -> None:
    """Nothing is delivered before the login."""
    connection = Connection(Role.RELAY)
    with pytest.raises(AssertionError, match="Deliver may not be sent"):
        connection.require_turn(m.Deliver)
