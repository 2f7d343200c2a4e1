"""Every target holds for a few hundred inputs, and every parser has one; `make fuzz` goes on from there."""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.fuzz.target import Target, load

HERE: Final = Path(__file__).parent
PACKAGE: Final = HERE.parents[1] / "chatchain"
TARGETS: Final = load()

INPUTS: Final = 300
"""Altered inputs of each target."""

SLOW: Final = {"homes.vault_file": 20, "files.image": 100, "files.preview": 100}
"""Targets whose inputs cost milliseconds: Argon2id, a picture."""

PARSES: Final = re.compile(
    r"(decode|parse|read|open|from|unpad|unhex|verify|check|recover|normalise|initial_handshake)(_|$)"
    r"|.*_(from_text|matches)$|explain$|client_of$|following$|row_of$|accept$|decrypt$"
)
"""How parsers are called here."""

OTHERWISE: Final = {
    "check_delivery": "wire.frames, through `check`",
    "check_digit": "counts digits for texts.uid",
    "check_envelope": "wire.frames, through `check`",
    "check_login": "relay.login, through the relay's check",
    "check_password": "judges what its owner types",
    "check_size": "compares two numbers",
    "recover_public": "chain.signature, through `recover`",
    "unhex": "chain.endpoint: every hash goes through it",
}
"""Functions of such a name that no target calls by name: by which they are reached, or why by none."""


def altered(target: Target) -> Iterator[bytes]:
    """Inputs by chance, the same in every run: seeds that are cut, spliced and changed, and noise."""
    chance = random.Random(target.name)
    for _ in range(SLOW.get(target.name, INPUTS)):
        data = bytearray(chance.choice(target.seeds))
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(data) + 1)
            match chance.randrange(7):
                case 0:
                    data = data[:at]
                case 1:
                    data[at:at] = chance.randbytes(chance.randint(1, 40))
                case 2:
                    del data[at : at + chance.randint(1, 40)]
                case 3:
                    data[at:] = chance.choice(target.seeds)[at:]
                case 4:
                    data[at : at + 8] = chance.choice((bytes(8), b"\xff" * 8, bytes(7) + b"\x01"))
                case _ if at < len(data):
                    data[at] ^= 1 << chance.randrange(8)
        yield bytes(data)


@pytest.mark.parametrize("target", [pytest.param(each, id=each.name) for each in TARGETS.values()])
def test_nothing_but_documented_errors_escapes(target: Target) -> None:
    """From the seeds, what once crashed and what chance makes of them; a seed at least gets all the way."""
    assert sum(map(target.takes, target.seeds)), "this target never gets behind its first check"
    target.takes(b"")
    for data in altered(target):
        target.takes(data)


def parsers() -> Iterator[tuple[str, str]]:
    """Every public function of the pure rooms, and of the chain's, that is called like a parser."""
    rooms = [PACKAGE / room for room in ("crypto", "identity", "wire", "chain")]
    for path in sorted(file for room in rooms for file in room.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and PARSES.match(node.name):
                yield f"{path.parent.name}/{path.name}", node.name


def test_every_parser_has_a_target() -> None:
    """What is added to the rooms that read foreign bytes is fuzzed, or says here why not."""
    targets = "\n".join(path.read_text() for path in HERE.glob("*.py") if path != Path(__file__))
    missing = [
        f"{file}: {name}"
        for file, name in parsers()
        if name not in OTHERWISE and not re.search(rf"\b{name}\b", targets)
    ]
    assert not missing
    assert OTHERWISE.keys() <= {name for _, name in parsers()}, "an exception for what is gone"
