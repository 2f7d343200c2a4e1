"""What a fuzz target is, and the list of all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

ROOMS: Final = (
    "suite2",
    "groups",
    "content",
    "files",
    "envelopes",
    "texts",
    "homes",
    "wire",
    "relay",
    "chain",
)
"""The modules that hold targets."""

VECTORS: Final = Path(__file__).parent.parent / "vectors"
FOUND: Final = Path(__file__).parent / "found.json"

Run = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """One parser: how to feed it, which errors it documents, and inputs to begin with."""

    name: str
    run: Run
    errors: tuple[type[Exception], ...]
    seeds: tuple[bytes, ...]

    def takes(self, data: bytes) -> bool:
        """Feeds the parser; says no when it refused in a documented way."""
        try:
            self.run(data)
        except self.errors:
            return False
        return True


_TARGETS: Final[dict[str, Target]] = {}


def target(*errors: type[Exception], seeds: Iterable[bytes]) -> Callable[[Run], Run]:
    """Lists a function as a target; `errors` are what its parser documents."""

    def listed(run: Run) -> Run:
        name = f"{run.__module__.rpartition('.')[2]}.{run.__name__}"
        _TARGETS[name] = Target(name, run, errors, (*seeds, *found(name)))
        return run

    return listed


def found(name: str) -> list[bytes]:
    """What once crashed this target."""
    return [bytes.fromhex(each) for each in json.loads(FOUND.read_text()).get(name, ())]


def load(rooms: Sequence[str] = ROOMS) -> dict[str, Target]:
    """Imports these rooms and gives the targets of all that were imported so far."""
    for room in rooms:
        import_module(f"tests.fuzz.{room}")
    return _TARGETS


def cases(file: str) -> list[dict[str, Any]]:
    """The cases of a file of vectors."""
    found: list[dict[str, Any]] = json.loads((VECTORS / file).read_text())["cases"]
    return found


def field(file: str, name: str) -> list[bytes]:
    """What stands in hex in one field of a file's cases."""
    return [bytes.fromhex(case[name]) for case in cases(file) if name in case]


def texts(file: str, name: str) -> list[bytes]:
    """What stands as text in one field of a file's cases."""
    return [case[name].encode() for case in cases(file) if name in case]
