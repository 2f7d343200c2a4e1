"""Coverage-guided fuzzing of what groups and files take in: `python -m tests.fuzz.fuzz_groups -runs=100000`.

The first byte chooses the parser. What is stored must be written again as it was read; nothing but our own
errors may escape.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import atheris

with atheris.instrument_imports(include=["chatchain"]):
    from chatchain.crypto import groups
    from chatchain.crypto.attachments import FileRef, Opener
    from chatchain.crypto.groups import Distribution, SenderKeys, SendingChain
    from chatchain.errors import ChatchainError

from tests.crypto.talkers import GROUP, NOW, ROSTERS, SENDER, listening, started

CHAIN = started()
KEYS = listening(CHAIN)
_, MESSAGE = groups.encrypt(CHAIN, CHAIN.epoch, b"hello, group")


def sending(data: bytes) -> None:
    """A stored chain."""
    assert SendingChain.decode(data).encode() == data


def receiving(data: bytes) -> None:
    """A listener's stored keys, and a message for them."""
    keys = SenderKeys.decode(data)
    assert keys.encode() == data
    groups.decrypt(groups.expire(keys, NOW), MESSAGE, b"", NOW)


def distribution(data: bytes) -> None:
    """A group key from a pairwise session."""
    given = Distribution.decode(data)
    assert given.encode() == data
    groups.accept(SenderKeys(GROUP, SENDER), given, ROSTERS, NOW)


def message(data: bytes) -> None:
    """A group message; none but the sender's own opens."""
    _, received = groups.decrypt(KEYS, data, b"", NOW)
    assert (data, received.plaintext) == (MESSAGE, b"hello, group")


def file(data: bytes) -> None:
    """What a message says of a file, and a blob for it."""
    reference = FileRef.decode(data[:69])
    assert reference.encode() == data[:69]
    opener = Opener(reference)
    opener.update(data[69:])
    opener.finish()


PARSERS: tuple[Callable[[bytes], None], ...] = (sending, receiving, distribution, message, file)


def one_input(data: bytes) -> None:
    """Feeds one parser."""
    if not data:
        return
    try:
        PARSERS[data[0] % len(PARSERS)](data[1:])
    except ChatchainError:
        return


def main() -> None:
    """Runs until told to stop, with real bytes to start from."""
    seeds = (
        CHAIN.encode(),
        KEYS.encode(),
        groups.distribution(CHAIN).encode(),
        MESSAGE,
        bytes([1]) + bytes(140),
    )
    for number, seed in enumerate(seeds):
        one_input(bytes([number]) + seed)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
