"""Feeds the parsers of link texts, the RSA envelope, published prekeys and the relay's frames.

Only documented errors may escape, and what parses has one form. Run one target:
`python -m tests.fuzz.fuzz_links TARGET [libFuzzer's options]`, from the top.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

import atheris
import msgspec

with atheris.instrument_imports(include=["chatchain"]):
    from chatchain.crypto import linking, rsa
    from chatchain.errors import BadRecord, ForgedMessage, ProtocolViolation, TooLarge, Undecryptable
    from chatchain.relay.prekeys import read_batch
    from chatchain.wire.bounds import check
    from chatchain.wire.connection import Connection, Role, State
    from chatchain.wire.messages import PublishPrekeys

from tests.crypto.rsa_people import SECRETS, rsa_user
from tests.crypto.test_linking import ADMITTED, EPHEMERAL, REQUEST, answering
from tests.identity.people import NETWORK
from tests.wire.test_connection import at

ADA, BOB = rsa_user("ada"), rsa_user("bob")
ANSWER: Final = answering()


def request(data: bytes) -> None:
    """What a person brings from a new device."""
    text = data.decode("latin-1")
    parsed = linking.decode_request(text)
    assert parsed.encode() == "".join(text.split())
    linking.verify_request(parsed, NETWORK, ADMITTED.user)


def answer(data: bytes) -> None:
    """What a person brings back: nothing but the right answer opens."""
    text = data.decode("latin-1")
    parsed = linking.decode_answer(text)
    assert parsed.encode() == "".join(text.split())
    linking.open_answer(parsed, REQUEST, EPHEMERAL, NETWORK, ADMITTED.user)
    assert parsed == ANSWER


def envelope(data: bytes) -> None:
    """What somebody claims to have sealed: noise is never signed."""
    rsa.open_(NETWORK, data, secret=SECRETS["bob"], recipient=BOB, sender=ADA)
    raise AssertionError("noise was opened")


def armour(data: bytes) -> None:
    """The text of an envelope."""
    rsa.from_armour(data.decode("latin-1"))


def batch(data: bytes) -> None:
    """What a device publishes, as the relay reads it."""
    provider = atheris.FuzzedDataProvider(data)

    def some(length: int) -> tuple[bytes, ...]:
        count = provider.ConsumeIntInRange(0, 3)
        return tuple(provider.ConsumeBytes(min(length, 40)).ljust(length, b"\0") for _ in range(count))

    one_time, kem = some(36), some(1653)
    signed, last = provider.ConsumeBytes(40).ljust(117, b"\0"), provider.ConsumeBytes(40).ljust(1653, b"\0")
    made = PublishPrekeys(1, 1, signed, last, one_time, kem)
    check(made)
    found = read_batch(made, 7)
    assert len(found.one_time) == len(one_time) + len(kem)
    assert all(0 < key.id < 2**32 and 0 <= key.expires < 2**63 for key in found.one_time)


def frames(data: bytes) -> None:
    """What comes over a connection that stands, to either side."""
    for role in Role:
        connection: Connection = at(role, State.READY)
        for message in connection.receive_data(data):
            check(message)
            assert isinstance(message, msgspec.Struct)


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    each.__name__: each for each in (request, answer, envelope, armour, batch, frames)
}


def main() -> None:
    """Runs the target named first; the other arguments are libFuzzer's."""
    target = TARGETS[sys.argv.pop(1)]

    def one_input(data: bytes) -> None:
        try:
            target(data)
        except (BadRecord, ForgedMessage, ProtocolViolation, TooLarge, Undecryptable):
            return

    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
