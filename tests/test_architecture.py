"""The arrows between the rooms (ARCHITECTURE.md) hold, read from the source and not from good intentions.

Imports inside functions and under TYPE_CHECKING count as well: an arrow is an arrow. Only the
question of what a program loads at its start leaves them out.
"""

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = "chatchain"

# Room -> the rooms it may know. `errors` is common ground: it imports nothing of ours and everyone may fail.
ARROWS: Final[Mapping[str, frozenset[str]]] = {
    "__init__": frozenset(),
    "errors": frozenset(),
    "model": frozenset(),
    "config": frozenset(),
    # pure
    "identity": frozenset({"model"}),
    "wire": frozenset({"model"}),
    "crypto": frozenset({"model", "identity"}),
    "ledger": frozenset({"model"}),
    # edges: one outside world each
    "transport": frozenset({"model", "wire"}),
    "bus": frozenset(),
    "neighbours": frozenset(),
    "chain": frozenset({"model", "identity"}),
    "store": frozenset({"model"}),
    "p2p": frozenset({"model", "wire"}),
    # applications
    "relay": frozenset({"model", "identity", "wire", "ledger"}),
    "client": frozenset({"model", "identity", "wire", "crypto", "ledger"}),
    "ui": frozenset({"client"}),
}
WIRING: Final = "programs"

# No sockets, files, clocks or tasks. The system's randomness is allowed: fresh keys are
# made where they are used.
PURE: Final = (
    "errors",
    "model",
    "identity",
    "wire",
    "crypto",
    "ledger",
    "relay.blobs",
    "relay.expiry",
    "relay.frontier",
    "relay.mailbox",
    "chain.events",
)
# fmt: off
IMPURE: Final = frozenset({
    "asyncio", "concurrent", "datetime", "http", "io", "logging", "multiprocessing", "os", "pathlib", "queue",
    "random", "select", "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess", "tempfile", "threading",
    "time", "urllib",
})
# fmt: on
ALLOWED_ALL_THE_SAME: Final = frozenset({"os.urandom"})
PURE_BUILTINS_REFUSED: Final = frozenset({"open", "print", "input"})

# A library that is somebody's outside world -> the rooms that may know it (the wiring always may).
OWNERS: Final[Mapping[str, frozenset[str]]] = {
    "PIL": frozenset({"client"}),
    "alembic": frozenset({"store"}),
    "cryptography.cobblestone": frozenset({"crypto"}),
    "cryptography.hazmat.primitives.asymmetric.mlkem": frozenset({"crypto"}),
    "cryptography.hazmat.primitives.hpke": frozenset({"crypto"}),
    "dotenv": frozenset({"config"}),
    "obstore": frozenset({"store"}),
    "nats": frozenset({"bus"}),
    "prometheus_client": frozenset({"relay"}),
    "pymysql": frozenset({"store"}),
    "rich": frozenset({"ui"}),
    "segno": frozenset({"ui"}),
    "socket": frozenset({"neighbours", "transport", "p2p"}),
    "solcx": frozenset(),
    "sqlalchemy": frozenset({"store"}),
    "sqlcipher3": frozenset({"store"}),
    "sqlite3": frozenset({"store"}),
    "ssl": frozenset({"transport", "p2p", "bus"}),
    "structlog": frozenset({"relay"}),
    "typer": frozenset({"ui"}),
    "web3": frozenset({"chain"}),
}

# Seconds to import; a program that starts must not pay for them before it knows that it needs them.
HEAVY: Final = ("web3", "eth_account", "solcx")


@dataclass(frozen=True)
class Import:
    """One imported name, dotted in full, and whether merely loading the module executes it."""

    name: str
    line: int
    eager: bool


@dataclass(frozen=True)
class Module:
    """One source file of ours."""

    name: str
    imports: tuple[Import, ...]
    calls: frozenset[str]

    @property
    def room(self) -> str:
        """The part of the package it belongs to."""
        parts = self.name.split(".")
        return parts[1] if len(parts) > 1 else "__init__"


def modules(root: Path) -> dict[str, Module]:
    """Every module of the package under the folder, by name."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = read(name, path.read_text())
    return found


def read(name: str, source: str) -> Module:
    """What a module imports and which plain names it calls."""
    tree = ast.parse(source)
    calls = frozenset(
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    )
    used = frozenset(
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    )
    imports = (found for plain in _imports(tree, eager=True) for found in _as_used(plain, used))
    return Module(name, tuple(imports), calls)


def _as_used(imported: Import, used: frozenset[str]) -> list[Import]:
    """A plain `import os` as what is taken from it, so that one function is not the whole library."""
    if imported.name != "os":
        return [imported]
    taken = sorted(name for name in used if within(name, imported.name))
    return [replace(imported, name=name) for name in taken] or [imported]


def _imports(node: ast.AST, eager: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, eager) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            prefix = "." * child.level + (child.module or "")
            yield from (Import(f"{prefix}.{alias.name}", child.lineno, eager) for alias in child.names)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _imports(child, eager=False)
        elif isinstance(child, ast.If) and _is_type_checking(child.test):
            yield from (
                found for part in child.body for found in _imports(ast.Module([part], []), eager=False)
            )
            yield from (found for part in child.orelse for found in _imports(ast.Module([part], []), eager))
        else:
            yield from _imports(child, eager)


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def within(name: str, library: str) -> bool:
    """Whether a dotted name is the library or something in it."""
    return name == library or name.startswith(f"{library}.")


def violations(found: Mapping[str, Module]) -> list[str]:
    """Every broken arrow, one sentence each."""
    return [
        f"{module.name}:{imported.line} imports {imported.name}: {reason}"
        for module in found.values()
        for imported in module.imports
        if (reason := _objection(module, imported.name))
    ] + [
        f"{module.name} calls {call}(): a pure room has no outside world"
        for module in found.values()
        if _is_pure(module)
        for call in sorted(module.calls & PURE_BUILTINS_REFUSED)
    ]


def _objection(module: Module, name: str) -> str:
    top = name.split(".")[0]
    if name.startswith("."):
        return "imports are absolute, so that an arrow can be read"
    if top in {"deploy", "tests", "benchmarks", "client", "server"}:
        return "the package stands without the folders around it"
    if top == "importlib" and not name.startswith(("importlib.resources", "importlib.metadata")):
        return "an import by name hides an arrow"
    if top == PACKAGE:
        return _arrow(module, name)
    if _is_pure(module) and top in IMPURE and name not in ALLOWED_ALL_THE_SAME:
        return "a pure room has no outside world"
    for library, owners in OWNERS.items():
        if within(name, library) and module.room not in owners | {WIRING}:
            return f"{library} belongs to {', '.join(sorted(owners)) or 'deploy'}"
    return ""


def _arrow(module: Module, name: str) -> str:
    room = [*name.split("."), "__init__"][1]
    if room == "__version__":
        return ""
    if room == WIRING and module.room != WIRING:
        return "only a person starts a program"
    if module.room == WIRING or room == module.room:
        return ""
    if module.room not in ARROWS:
        return f"the room {module.room} has no place in ARROWS"
    allowed = ARROWS[module.room] | ({"errors"} if module.room != "errors" else set())
    return (
        ""
        if room in allowed
        else f"{module.room} may only know {', '.join(sorted(allowed)) or 'nothing of ours'}"
    )


def _is_pure(module: Module) -> bool:
    return any(within(module.name, f"{PACKAGE}.{room}") for room in PURE)


def loaded_by(start: str, found: Mapping[str, Module], *, eager_only: bool) -> dict[str, str]:
    """Every module and library that importing `start` leads to, each with the module that asks for it."""
    reached = {start: start}
    waiting = [start]
    while waiting:
        asker = waiting.pop()
        for imported in found[asker].imports:
            if imported.eager or not eager_only:
                for name in _resolve(imported.name, found):
                    if name not in reached:
                        reached[name] = asker
                        waiting.extend([name] if name in found else [])
    return reached


def _resolve(name: str, found: Mapping[str, Module]) -> list[str]:
    """The modules that importing a name executes, packages on the way too; a library as its dotted name."""
    if name.split(".")[0] != PACKAGE:
        return [name]
    parts = name.split(".")
    return [way for end in range(1, len(parts) + 1) if (way := ".".join(parts[:end])) in found]


def circle(found: Mapping[str, Module]) -> list[str]:
    """Modules each of which imports the next, if only late or for its types; empty when none lead back."""
    known = {
        name: {ways[-1] for one in module.imports if (ways := _resolve(one.name, found))} - {name}
        for name, module in found.items()
    }
    try:
        TopologicalSorter(known).prepare()
    except CycleError as tied:
        around: list[str] = tied.args[1]
        return around[::-1]
    return []


@pytest.fixture(scope="module")
def ours() -> dict[str, Module]:
    """The package as it is."""
    return modules(ROOT)


def test_every_import_follows_an_arrow(ours: dict[str, Module]) -> None:
    """Rooms know only what the design lets them, and each library stays with its owner."""
    assert ours
    assert violations(ours) == []


def test_no_imports_run_in_a_circle(ours: dict[str, Module]) -> None:
    """Within rooms, too, whoever reads a module first needs none of those that build on it."""
    assert circle(ours) == []


def test_a_circle_is_seen() -> None:
    """Also one that is closed by a late import, and one by an import for types."""
    late = "def late():\n    from chatchain.client import outbox"
    typed = "if TYPE_CHECKING:\n    from chatchain.client.outbox import Outbox"
    for back in (late, typed):
        found = {
            name: read(name, source)
            for name, source in {
                "chatchain": "",
                "chatchain.client": "",
                "chatchain.client.outbox": "from chatchain.client.people import People",
                "chatchain.client.people": back,
            }.items()
        }
        around = circle(found)
        assert around[0] == around[-1]
        assert set(around) == {"chatchain.client.outbox", "chatchain.client.people"}


def test_every_room_has_its_place(ours: dict[str, Module]) -> None:
    """A new room enters the table of arrows before it enters the package."""
    assert {module.room for module in ours.values()} - ARROWS.keys() <= {WIRING}


def test_the_relay_has_no_way_to_decrypt(ours: dict[str, Module]) -> None:
    """Nothing that the server's program leads to, however late, can open an envelope."""
    starts = [
        name for name, module in ours.items() if module.room == "relay" or name.endswith("programs.server")
    ]
    assert starts
    for start in starts:
        for name, asker in loaded_by(start, ours, eager_only=False).items():
            for secret in (
                "chatchain.crypto",
                "chatchain.client",
                "chatchain.ui",
                "nacl.public",
                "nacl.secret",
            ):
                assert not within(name, secret), f"{start} leads to {name}, asked for by {asker}"
            assert not name.startswith("cryptography.hazmat.primitives.hpke"), f"{asker} imports {name}"


def test_starting_the_client_loads_nothing_heavy(ours: dict[str, Module]) -> None:
    """`--help`, `send` and `receive` pay for no chain library."""
    starts = [
        name for name, module in ours.items() if module.room in {"ui", "client"} or name.endswith("s.client")
    ]
    assert starts
    for start in starts:
        for name, asker in loaded_by(start, ours, eager_only=True).items():
            assert not any(within(name, heavy) for heavy in HEAVY), (
                f"{start} loads {name}, asked for by {asker}"
            )


def test_the_programs_at_the_top_level_only_start_those_in_the_package() -> None:
    """`python client.py` and the installed `chatchain` are one program (ADR 1)."""
    for name in ("client", "server"):
        module = read(name, (ROOT / f"{name}.py").read_text())
        assert {imported.name for imported in module.imports} == {
            f"{PACKAGE}.programs.installed.Installed",
            f"{PACKAGE}.programs.{name}.main",
        }


def test_what_says_that_packages_are_missing_needs_none(ours: dict[str, Module]) -> None:
    """Nothing that the guard leads to is beyond the standard library."""
    reached = loaded_by(f"{PACKAGE}.programs.installed", ours, eager_only=False)
    beyond = {name.split(".")[0] for name in reached} - set(sys.stdlib_module_names) - {PACKAGE}
    assert beyond == set()


@pytest.mark.parametrize(
    ("name", "source", "part_of_the_objection"),
    [
        ("chatchain.relay.service", "from chatchain.crypto import sealed", "relay may only know"),
        ("chatchain.relay.service", "import chatchain.crypto.sealed as harmless", "relay may only know"),
        ("chatchain.relay.service", "from chatchain import crypto", "relay may only know"),
        ("chatchain.relay.service", "def late():\n    from chatchain.crypto import sealed", "relay may only"),
        ("chatchain.store.tables", "from chatchain.chain import sync", "store may only know"),
        ("chatchain.chain.sync", "from chatchain import transport", "chain may only know"),
        ("chatchain.ui.cli", "from chatchain.crypto import password", "ui may only know"),
        ("chatchain.client.core", "from chatchain.store import database", "client may only know"),
        ("chatchain.model", "from chatchain.identity import ids", "model may only know"),
        ("chatchain.errors", "import chatchain.model", "nothing of ours"),
        ("chatchain.client.core", "from chatchain.programs import client", "only a person starts"),
        ("chatchain.chain.calls", "from deploy.tools import anvil_path", "without the folders around"),
        ("chatchain.wire.frames", "import asyncio", "no outside world"),
        ("chatchain.wire.frames", "from time import monotonic", "no outside world"),
        ("chatchain.crypto.sealed", "import random", "no outside world"),
        ("chatchain.identity.ids", "import os.path", "no outside world"),
        (
            "chatchain.identity.ids",
            "import os\nkey = os.urandom(16)\nhome = os.environ",
            "os.environ: a pure",
        ),
        ("chatchain.identity.ids", "import os as harmless", "no outside world"),
        ("chatchain.relay.mailbox", "import asyncio", "no outside world"),
        ("chatchain.chain.events", "import time", "no outside world"),
        ("chatchain.crypto.sealed", "data = open('key').read()", "calls open()"),
        ("chatchain.relay.service", "from cryptography.hazmat.primitives.hpke import Suite", "belongs to"),
        ("chatchain.relay.service", "from cryptography.hazmat.primitives import hpke", "belongs to"),
        ("chatchain.client.core", "import sqlcipher3", "belongs to store"),
        ("chatchain.client.core", "from web3 import Web3", "belongs to chain"),
        ("chatchain.chain.build", "import solcx", "belongs to deploy"),
        ("chatchain.client.core", "import importlib\nimportlib.import_module('web3')", "hides an arrow"),
        ("chatchain.wire.frames", "from . import messages", "absolute"),
        ("chatchain.lobby", "import chatchain.model", "no place in ARROWS"),
    ],
)
def test_a_broken_arrow_is_seen(name: str, source: str, part_of_the_objection: str) -> None:
    """Each rule finds the breach that it is for."""
    objections = violations({name: read(name, source)})
    assert len(objections) == 1
    assert part_of_the_objection in objections[0]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("chatchain.relay.service", "import asyncio\nfrom chatchain.wire import messages"),
        (
            "chatchain.ui.cli",
            "import typer\nfrom chatchain.client import session\nfrom chatchain.errors import X",
        ),
        ("chatchain.programs.client", "import web3\nfrom chatchain import store, chain, transport, ui"),
        ("chatchain.crypto.vault", "import os\nfrom os import urandom\nkey = os.urandom(16)"),
        ("chatchain.crypto.sealed", "import secrets\nfrom cryptography.hazmat.primitives import hpke"),
        ("chatchain.ui.cli", "from chatchain import __version__"),
        ("chatchain.store.tables", "from importlib.resources import files"),
    ],
)
def test_an_arrow_of_the_design_is_let_through(name: str, source: str) -> None:
    """The rules forbid no more than they say."""
    assert violations({name: read(name, source)}) == []


def test_what_a_program_loads_is_followed_through_every_module() -> None:
    """An eager import three steps away counts; one inside a function or for types only does not."""
    package = {
        name: read(name, source)
        for name, source in {
            "chatchain": "",
            "chatchain.ui": "from chatchain.client import core",
            "chatchain.client": "import json",
            "chatchain.client.core": (
                "from typing import TYPE_CHECKING\n"
                "if TYPE_CHECKING:\n    import solcx\n"
                "else:\n    import tomllib\n"
                "def late():\n    import web3\n"
                "try:\n    import coincurve\nexcept ImportError:\n    pass\n"
            ),
        }.items()
    }
    eager = loaded_by("chatchain.ui", package, eager_only=True)
    assert {"json", "coincurve", "tomllib", "chatchain.client.core"} <= eager.keys()
    assert not {"web3", "solcx"} & eager.keys()
    assert {"web3", "solcx"} <= loaded_by("chatchain.ui", package, eager_only=False).keys()
