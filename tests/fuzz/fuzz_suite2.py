"""Feeds suite 2's parsers; only documented errors may escape, and what parses has one form.

Run one target: `python -m tests.fuzz.fuzz_suite2 TARGET [libFuzzer's options]`, from the top. Coverage is
that of this package: a C library shows none.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

import atheris
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

with atheris.instrument_imports(include=["chatchain"]):
    from chatchain.crypto import prekeys, ratchet, ratcheted, session
    from chatchain.crypto.padding import MAX_PADDED, pad
    from chatchain.crypto.sealed import MAX_TIME_MS
    from chatchain.errors import BadRecord, LimitReached, Undecryptable

from tests.crypto.pairs import ADA, BOB, BUNDLE, NOW, STORE, settled

SETTLED: Final = settled()
KEY: Final = bytes(range(32))
MAX_INSIDE: Final = MAX_PADDED - 1
FIRST: Final = session.encrypt(ADA.begin(BOB, BUNDLE), b"first", b"")[1]


def bundle(data: bytes) -> None:
    """What a relay hands out as a bundle."""
    parsed = prekeys.decode_bundle(data)
    assert prekeys.encode_bundle(parsed) == data


def signed_key(data: bytes) -> None:
    """What a relay hands out as a signed key."""
    assert prekeys.encode_signed_key(prekeys.decode_signed_key(data)) == data


def one_time(data: bytes) -> None:
    """What a relay hands out as a one-time key."""
    assert prekeys.encode_one_time(prekeys.decode_one_time(data)) == data


def store(data: bytes) -> None:
    """What a disk gives back as prekeys."""
    prekeys.encode_store(prekeys.decode_store(data))


def saved_session(data: bytes) -> None:
    """What a disk gives back as a session."""
    session.encode_session(session.decode_session(data))


def saved_ratchet(data: bytes) -> None:
    """What a disk gives back as a ratchet."""
    ratchet.encode_ratchet(ratchet.decode_ratchet(data))


def message(data: bytes) -> None:
    """What a relay delivers in a session: nothing of it decrypts, and the state stays."""
    for side in SETTLED:
        before = session.encode_session(side)
        try:
            session.decrypt(side, data, b"", NOW)
        except Undecryptable:
            assert session.encode_session(side) == before
        else:
            raise AssertionError("noise was decrypted")


def initial(data: bytes) -> None:
    """What a relay delivers as a beginning; the seed is a right one, so its alterations are tried too."""
    if data != FIRST:
        BOB.accept(STORE, ADA, data)
        raise AssertionError("an altered handshake was answered")


def body(data: bytes) -> None:
    """What is inside of a body that a session vouches for: the peer may write what it likes."""
    inside = AESGCM(KEY).encrypt(bytes(12), pad(data[:MAX_INSIDE]), b"chatchain/2 body")
    _, time_ms = ratcheted.open_body(ratcheted.header_content(KEY, inside), inside)
    assert time_ms <= MAX_TIME_MS


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    each.__name__: each
    for each in (bundle, signed_key, one_time, store, saved_session, saved_ratchet, message, initial, body)
}


def main() -> None:
    """Runs the target named first; the other arguments are libFuzzer's."""
    target = TARGETS[sys.argv.pop(1)]

    def one_input(data: bytes) -> None:
        try:
            target(data)
        except (BadRecord, Undecryptable, LimitReached):
            return

    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
