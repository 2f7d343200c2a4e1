"""One conversation between a client and a relay, without any I/O: bytes in, messages out, and the reverse.

A frame is a big-endian u32 length and that many bytes of msgpack: one tagged array of `wire.messages`. The
declared length is judged before the payload is looked at. Which message may travel in which state stands in
one table, which binds both sides: sending out of turn is a bug here (AssertionError), receiving out of turn
is the peer's ProtocolViolation. After a violation or a Goodbye the connection is closed and takes
no more bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import Enum, auto
from typing import Final

import msgspec

from chatchain.errors import ProtocolViolation, TooLarge
from chatchain.wire import messages as m
from chatchain.wire.bounds import check, check_envelope
from chatchain.wire.messages import ClientMessage, Message, RelayMessage

MAX_FRAME: Final = 256 * 1024
"""Payload bytes of one frame once the login holds."""

MAX_FRAME_BEFORE_LOGIN: Final = 4 * 1024
"""Payload bytes of one frame before: a stranger costs little memory."""

LENGTH: Final = struct.Struct(">I")


class Role(Enum):
    """Which side of the conversation this is."""

    CLIENT = auto()
    RELAY = auto()


class State(Enum):
    """How far the conversation has come."""

    OPENING = auto()  # the relay's challenge is due
    CHALLENGED = auto()  # the client may log in, or ask for a sponsored registration
    PROVING = auto()  # the login is being checked
    READY = auto()  # both sides talk freely
    ENTERING = auto()  # the login for files is being checked
    FILES = auto()  # blobs go up and down, one at a time
    CLOSED = auto()


_ALIVE: Final[dict[type[Message], State | None]] = {m.Ping: None, m.Pong: None}
_BEFORE_LOGIN: Final[dict[type[Message], State | None]] = {
    m.Sponsored: None,
    m.Failed: None,
    m.Goodbye: State.CLOSED,
    **_ALIVE,
}

# Who may say what in which state, and the state that follows (None: the same).
TABLE: Final[dict[State, dict[Role, dict[type[Message], State | None]]]] = {
    State.OPENING: {
        Role.CLIENT: {},
        Role.RELAY: {m.Challenge: State.CHALLENGED, m.Goodbye: State.CLOSED},
    },
    State.CHALLENGED: {
        Role.CLIENT: {m.Login: State.PROVING, m.EnterFiles: State.ENTERING, m.Sponsor: None, **_ALIVE},
        Role.RELAY: _BEFORE_LOGIN,
    },
    State.PROVING: {
        Role.CLIENT: _ALIVE,
        Role.RELAY: {m.Welcome: State.READY, **_BEFORE_LOGIN},
    },
    State.READY: {
        Role.CLIENT: dict.fromkeys(
            (
                m.Submit,
                m.Receive,
                m.Resume,
                m.Signal,
                m.Acknowledge,
                m.PublishKeys,
                m.FetchKeys,
                m.PublishPrekeys,
                m.FetchPrekeys,
                m.Sponsor,
                m.Ping,
                m.Pong,
            )
        ),
        Role.RELAY: {
            **dict.fromkeys(
                (
                    m.Tick,
                    m.Refused,
                    m.StaleDevices,
                    m.Resumed,
                    m.Deliver,
                    m.Signaled,
                    m.Keys,
                    m.PrekeysLeft,
                    m.Prekeys,
                    m.Sponsored,
                    m.Done,
                    m.Failed,
                )
            ),
            m.Goodbye: State.CLOSED,
            **_ALIVE,
        },
    },
    State.ENTERING: {
        Role.CLIENT: _ALIVE,
        Role.RELAY: {m.FilesOpen: State.FILES, **_BEFORE_LOGIN},
    },
    State.FILES: {
        Role.CLIENT: dict.fromkeys((m.Upload, m.Fetch, m.Discard, m.Piece, m.Ping, m.Pong)),
        Role.RELAY: {
            **dict.fromkeys((m.Uploading, m.Stored, m.Fetching, m.Piece, m.Done, m.Failed)),
            m.Goodbye: State.CLOSED,
            **_ALIVE,
        },
    },
    State.CLOSED: {Role.CLIENT: {}, Role.RELAY: {}},
}

_STILL: Final = {
    state: {role: {kind for kind, step in turns.items() if step is None} for role, turns in both.items()}
    for state, both in TABLE.items()
}
"""The messages that leave the state as it is: nearly all that are ever sent."""

_length_at: Final = LENGTH.unpack_from
_ENCODER: Final = msgspec.msgpack.Encoder()
_FROM_CLIENT: Final = msgspec.msgpack.Decoder(ClientMessage)
_FROM_RELAY: Final = msgspec.msgpack.Decoder(RelayMessage)


def frame(message: Message) -> bytes:
    """Encodes one message as a frame."""
    payload = _ENCODER.encode(message)
    return LENGTH.pack(len(payload)) + payload


class Connection:
    """One side of one conversation: `receive_data` turns bytes into messages, `send` a message into bytes."""

    def __init__(self, role: Role) -> None:
        self._role = role
        self._peer = Role.RELAY if role is Role.CLIENT else Role.CLIENT
        self._decoder: msgspec.msgpack.Decoder[ClientMessage] | msgspec.msgpack.Decoder[RelayMessage] = (
            _FROM_RELAY if role is Role.CLIENT else _FROM_CLIENT
        )
        self._enter(State.OPENING)
        self._incoming: bytes | bytearray = b""
        self._at = 0  # everything before was given out

    @property
    def state(self) -> State:
        """How far the conversation has come."""
        return self._state

    @property
    def buffered(self) -> int:
        """Bytes of an unfinished frame that wait for the rest; never more than a frame and one read."""
        return len(self._incoming) - self._at

    @property
    def announced(self) -> int:
        """How long the unfinished frame will be, length and all; 0 while not even the length is there."""
        if self.buffered < LENGTH.size:
            return 0
        length: int = LENGTH.unpack_from(self._incoming, self._at)[0]
        return LENGTH.size + length

    def send(self, message: Message) -> bytes:
        """Gives the bytes of one message of ours and takes the step in the table."""
        kind = type(message)
        self.require_turn(kind)
        data = frame(message)
        if len(data) - LENGTH.size > self._cap:
            raise TooLarge(
                f"This message is larger than the {self._cap // 1024} KiB that the protocol carries."
            )
        step = self._ours[kind]
        if step is not None:
            self._enter(step)
        return data

    def require_turn(self, kind: type[Message]) -> None:
        """Raises AssertionError unless a message of this kind may be sent now: for frames made elsewhere."""
        if kind not in self._ours:
            raise AssertionError(f"{kind.__name__} may not be sent in state {self._state.name}")

    def receive_data(self, data: bytes) -> Iterator[Message]:
        """Takes bytes in and yields the messages that they complete, judging each only when it is asked for.

        Raises ProtocolViolation where the peer's bytes stop making sense; the messages before were given out.
        """
        if self._state is not State.CLOSED:
            if not self._incoming:
                self._incoming = data
            elif isinstance(
                self._incoming, bytearray
            ):  # a long frame in many pieces: only what is new is copied
                self._incoming += data
            else:
                self._incoming = bytearray(self._incoming + data)
        return self._messages()

    def close(self) -> None:
        """Ends the conversation from here: nothing more is sent or taken in."""
        self._enter(State.CLOSED)
        self._incoming, self._at = b"", 0

    def _enter(self, state: State) -> None:
        """Takes up a state, with what may be said in it."""
        self._state = state
        self._ours = TABLE[state][self._role]
        self._theirs = TABLE[state][self._peer]
        self._still = _STILL[state][self._peer]
        self._cap = MAX_FRAME if state in (State.READY, State.FILES) else MAX_FRAME_BEFORE_LOGIN

    def _messages(self) -> Iterator[Message]:
        while self._state is not State.CLOSED:
            try:
                message = self._next()
            except ProtocolViolation:
                self.close()
                raise
            if message is None:
                break
            yield message
        if self._at:
            self._incoming, self._at = self._incoming[self._at :], 0

    def _next(self) -> Message | None:
        """The next message, or None while its frame is not complete."""
        incoming, start = self._incoming, self._at + LENGTH.size
        if len(incoming) < start:
            return None
        length: int = _length_at(incoming, self._at)[0]
        if not 0 < length <= self._cap:
            raise ProtocolViolation(self._impossible(length))
        end = start + length
        if len(incoming) < end:
            return None
        message = self._decode(incoming[start:end])
        self._at = end
        if type(message) not in self._still:
            self._step(message)
        return message

    def _impossible(self, length: int) -> str:
        if length == 0:
            return "The peer sent an empty frame."
        if length >= 2**31:
            return "The peer sent a frame with a negative length."
        return f"The peer announced a frame of {length} bytes; {self._cap} are allowed now."

    def _decode(self, payload: bytes | bytearray) -> Message:
        try:
            message: Message = self._decoder.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolViolation("The peer sent a frame that is not a message of the protocol.") from error
        if type(message) is m.Submit:  # the one that comes by the thousand
            check_envelope(message.envelope)
        else:
            check(message)
        return message

    def _step(self, message: Message) -> None:
        """What a message does that is more than to be one: it changes the state, or is out of turn."""
        step = self._theirs.get(type(message))
        if step is None:
            raise ProtocolViolation(
                f"The peer sent {type(message).__name__} out of turn (state {self._state.name.lower()})."
            )
        self._enter(step)
