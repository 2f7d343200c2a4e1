"""A session of suite 2 between two devices: PQXDH, then the Double Ratchet; what the client uses of both.

    initiate(…, bundle, …)            → session          then `encrypt` makes the initial message
    accept(store, …, message, …)      → store, session, plaintext
    encrypt(session, plaintext, ad)   → session, message
    decrypt(session, message, ad, now)→ session, plaintext
    may_be_lost(session)              → whether the next message may be one that nobody repeats

Every value is frozen. The caller saves the new session (and, after `accept`, the new store) in the same
transaction as the plaintext or the message, before either leaves or shows; on an error nothing has changed.

The initiator's messages carry the handshake until the first answer comes, so any of them may arrive first.
An initial message is for `accept` unless a session with its `handshake_id` is there: then `decrypt` takes it.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from chatchain.crypto import pqxdh, prekeys, ratchet
from chatchain.crypto.device import DeviceSecrets
from chatchain.crypto.pqxdh import HANDSHAKE_BYTES, Handshake, Party
from chatchain.crypto.prekeys import Past, PrekeyBundle, PrekeyStore
from chatchain.crypto.ratchet import Ratchet
from chatchain.errors import BadRecord, Undecryptable
from chatchain.model import Network

INITIAL: Final = 1
ORDINARY: Final = 2

STATE_VERSION: Final = 1
_SAVED: Final = struct.Struct(">B32sH")


class Session(msgspec.Struct, frozen=True):
    """One side of a session; `id` is the same on both."""

    id: bytes
    ratchet: Ratchet
    handshake: bytes = b""
    """The initiator's, until the first answer."""

    def __repr__(self) -> str:
        return f"Session({self.id.hex()[:16]}…)"


def initiate(
    network: Network, secrets: DeviceSecrets, me: Party, them: Party, bundle: PrekeyBundle, now: int
) -> Session:
    """Begins a session with the device `them`, whose bundle is verified here; raises BadRecord.

    The first `encrypt` gives the initial message.
    """
    prekeys.require_suite(me.record)
    prekeys.verify_bundle(network, bundle, them.record, them.uid, now)
    keys, handshake = pqxdh.agree_as_initiator(secrets, me, them, bundle)
    return Session(pqxdh.handshake_id(handshake), ratchet.initiate(keys, bundle.signed.key), handshake)


def initial_handshake(message: bytes) -> tuple[bytes, Handshake] | None:
    """Gives an initial message's handshake id and handshake, None for an ordinary message.

    From it the caller learns which session it belongs to, or whose key versions `accept` needs. Nothing in it
    is authenticated yet. Raises Undecryptable for what is neither.
    """
    if message[:1] == bytes([ORDINARY]):
        return None
    if message[:1] != bytes([INITIAL]) or len(message) < 1 + HANDSHAKE_BYTES:
        raise Undecryptable("The message is neither of a session nor the beginning of one.")
    handshake = message[1 : 1 + HANDSHAKE_BYTES]
    return pqxdh.handshake_id(handshake), pqxdh.decode_handshake(handshake)


def accept(
    store: PrekeyStore,
    past: Past,
    secrets: DeviceSecrets,
    me: Party,
    them: Party,
    message: bytes,
    ad: bytes,
    now: int,
) -> tuple[PrekeyStore, Session, bytes]:
    """Answers an initial message of the device `them`: gives the new store, the session and the plaintext.

    `secrets` and `me` are of the version that the handshake names, and so is `them`; `past` is what is
    remembered of their user's handshakes with the signed prekey that it names. Raises Undecryptable for
    a repeated, altered or misdirected message, BadRecord for a key that cannot be, LimitReached when no more
    handshakes of this user can be remembered.
    """
    begun = initial_handshake(message)
    if begun is None:
        raise Undecryptable("The message belongs to a session that this device does not have.")
    id_, handshake = begun
    prekeys.require_suite(me.record)
    prekeys.require_suite(them.record)
    versions = (handshake.initiator_version, handshake.responder_version)
    if versions != (them.record.version, me.record.version):
        raise Undecryptable("The message begins a session with other key versions than the ones at hand.")
    named = (them.uid, handshake.signed_id, handshake.one_time_id, handshake.kem_id)
    found = prekeys.find(store, past, id_, *named)
    keys = pqxdh.agree_as_responder(secrets, me, them, found, message[1 : 1 + HANDSHAKE_BYTES])
    state, plaintext = ratchet.decrypt(
        ratchet.respond(keys, found.signed), message[1 + HANDSHAKE_BYTES :], ad, now
    )
    after = prekeys.used(store, past, id_, *named)
    return after, Session(id_, state), plaintext


def encrypt(session: Session, plaintext: bytes, ad: bytes) -> tuple[Session, bytes]:
    """Gives the next state and the message; `ad` is bound to it and not sent. Pad the plaintext before."""
    state, message = ratchet.encrypt(session.ratchet, plaintext, ad)
    head = bytes([INITIAL]) + session.handshake if session.handshake else bytes([ORDINARY])
    return msgspec.structs.replace(session, ratchet=state), head + message


def may_be_lost(session: Session) -> bool:
    """Whether a message may be sent that nobody repeats: the other side has answered, and lacks few."""
    return not session.handshake and ratchet.may_be_lost(session.ratchet)


def decrypt(session: Session, message: bytes, ad: bytes, now: int) -> tuple[Session, bytes]:
    """Gives the next state and the plaintext; raises Undecryptable and then nothing has changed."""
    begun = initial_handshake(message)
    if begun is None:
        body = message[1:]
    elif begun[0] == session.id:
        body = message[1 + HANDSHAKE_BYTES :]
    else:
        raise Undecryptable("The message begins another session.")
    state, plaintext = ratchet.decrypt(session.ratchet, body, ad, now)
    return Session(session.id, state), plaintext


def encode_session(session: Session) -> bytes:
    """Gives the session's bytes, for the encrypted database."""
    head = _SAVED.pack(STATE_VERSION, session.id, len(session.handshake))
    return head + session.handshake + ratchet.encode_ratchet(session.ratchet)


def decode_session(data: bytes) -> Session:
    """Reads what `encode_session` wrote, now or in an older version; raises BadRecord."""
    read = READERS.get(data[0]) if data else None
    if read is None:
        raise BadRecord("The saved session is empty, or of a newer program than this one.")
    return read(data)


def _read_1(data: bytes) -> Session:
    if len(data) < _SAVED.size:
        raise BadRecord("The saved session is truncated.")
    _, id_, length = _SAVED.unpack_from(data)
    if length not in (0, HANDSHAKE_BYTES):
        raise BadRecord("The saved session is damaged.")
    end = _SAVED.size + length
    return Session(id_, ratchet.decode_ratchet(data[end:]), data[_SAVED.size : end])


READERS: Final = {1: _read_1}
"""A reader for each version that was ever written; each gives today's session."""
