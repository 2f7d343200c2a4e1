"""Compiles the contracts into the artifacts that the package carries.

`python deploy/compile.py` writes `chatchain/chain/abi/<Contract>.json`; with `--check` it writes nothing and
fails if a file there is not what the sources give. The result depends on the sources and the compiler's
version alone: sources go in by name and text, and the bytecode carries no metadata.

An artifact is one JSON object:

    contract    its name
    compiler    version and commit of solc
    abi         as solc gives it
    bytecode    what a deployment sends, before the encoded constructor arguments
    runtime     the code at the contract's address, with zeros where immutables will stand
    immutables  [start, length] of each such place in the runtime code, in bytes, ascending
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import solcx
import solcx.install
from solcx.exceptions import DownloadError, SolcError, SolcInstallationError, SolcNotInstalled

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCES: Final = ROOT / "contracts" / "src"
ARTIFACTS: Final = ROOT / "chatchain" / "chain" / "abi"
SOLC_VERSION: Final = "0.8.37"
CONTRACTS: Final = (
    "Directory",
    "IdentityRegistry",
    "Membership",
    "MessageLedger",
    "RewardDistributor",
    "RewardToken",
)

ROOTS: Final = tuple(f"src/{contract}.sol" for contract in CONTRACTS)

# As in contracts/foundry.toml; a test compares the two results.
SETTINGS: Final[dict[str, Any]] = {
    "optimizer": {"enabled": True, "runs": 200},
    "viaIR": False,
    "evmVersion": "shanghai",
    "metadata": {"bytecodeHash": "none", "appendCBOR": False},
    "outputSelection": {
        f"src/{name}.sol": {
            name: [
                "abi",
                "metadata",
                "evm.bytecode.object",
                "evm.deployedBytecode.object",
                "evm.deployedBytecode.immutableReferences",
            ]
        }
        for name in CONTRACTS
    },
}

_IMPORT: Final = re.compile(r'^import\s+(?:[^"\';]*\sfrom\s+)?["\']([^"\']+)["\']\s*;', re.MULTILINE)


class CompileFailed(Exception):
    """The contracts do not compile here."""


def find_compiler() -> Path:
    """Path of a solc of the right version.

    In this order: the one named in `$SOLC`, one that py-solc-x installed before, npm's behind its wrapper,
    a download.
    """
    if chosen := os.environ.get("SOLC"):
        path = Path(chosen)
        _require_version(path)
        return path
    try:
        return Path(solcx.install.get_executable(SOLC_VERSION))
    except SolcNotInstalled:
        pass  # not installed; the next will do
    wrapper = ROOT / "deploy" / "solc"
    if (ROOT / "node_modules" / "solc" / "soljson.js").exists():
        _require_version(wrapper)
        return wrapper
    try:
        solcx.install_solc(SOLC_VERSION)
        return Path(solcx.install.get_executable(SOLC_VERSION))
    except (DownloadError, SolcInstallationError, OSError) as error:
        raise CompileFailed(
            f"no solc {SOLC_VERSION}: run 'make setup' for npm's, or name one in SOLC ({error})"
        ) from error


def _require_version(solc: Path) -> None:
    try:
        told = subprocess.run(
            [solc, "--version"], capture_output=True, text=True, check=True, timeout=60
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise CompileFailed(f"{solc} is not a compiler: {error}") from error
    if f"Version: {SOLC_VERSION}+" not in told:
        raise CompileFailed(f"{solc} is not solc {SOLC_VERSION}")


def read_sources(roots: Iterable[str] = ROOTS) -> dict[str, str]:
    """Text of every source that these need, by the name that the compiler shall know it by."""
    sources: dict[str, str] = {}
    wanted = [*roots]
    while wanted:
        name = wanted.pop()
        if name in sources:
            continue
        path = _path(name)
        try:
            sources[name] = path.read_text(encoding="utf-8")
        except OSError as error:
            raise CompileFailed(f"{path} cannot be read; run 'make setup'") from error
        wanted += [_resolve(name, target) for target in _IMPORT.findall(sources[name])]
    return dict(sorted(sources.items()))


def _path(name: str) -> Path:
    if name.startswith("solady/"):
        return ROOT / "node_modules" / "solady" / "src" / name.removeprefix("solady/")
    if name.startswith("@openzeppelin/"):
        return ROOT / "node_modules" / name
    return SOURCES.parent / name


def _resolve(importer: str, target: str) -> str:
    if target.startswith("."):
        return os.path.normpath(Path(importer).parent / target).replace(os.sep, "/")
    return target


def compile_contracts(solc: Path | None = None) -> dict[str, dict[str, Any]]:
    """The artifact of every contract, by its name."""
    job = {
        "language": "Solidity",
        "sources": {name: {"content": text} for name, text in read_sources().items()},
        "settings": SETTINGS,
    }
    try:
        output = solcx.compile_standard(job, solc_binary=solc or find_compiler())
    except SolcError as error:
        raise CompileFailed(error.message) from error
    return {name: _artifact(name, output["contracts"][f"src/{name}.sol"][name]) for name in CONTRACTS}


def _artifact(name: str, built: dict[str, Any]) -> dict[str, Any]:
    runtime = built["evm"]["deployedBytecode"]
    holes = {
        (at["start"], at["length"]) for places in runtime["immutableReferences"].values() for at in places
    }
    return {
        "contract": name,
        "compiler": json.loads(built["metadata"])["compiler"]["version"],
        "abi": built["abi"],
        "bytecode": "0x" + built["evm"]["bytecode"]["object"],
        "runtime": "0x" + runtime["object"],
        "immutables": [list(hole) for hole in sorted(holes)],
    }


def render(artifact: dict[str, Any]) -> str:
    """The text of an artifact's file: one entry of the ABI a line, so that a change reads well."""
    fields = [
        (key, json.dumps(value, separators=(",", ":"))) for key, value in artifact.items() if key != "abi"
    ]
    entries = ",\n  ".join(json.dumps(entry, separators=(",", ":")) for entry in artifact["abi"])
    fields.insert(2, ("abi", f"[\n  {entries}\n ]"))
    return "{\n" + ",\n".join(f' "{key}": {value}' for key, value in fields) + "\n}\n"


def stale(folder: Path, artifacts: dict[str, dict[str, Any]]) -> list[Path]:
    """The files in a folder that are not what these artifacts render to, or that no contract accounts for."""
    wanted = {folder / f"{name}.json": render(artifact) for name, artifact in artifacts.items()}
    present = {path: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    return sorted(path for path in wanted.keys() | present.keys() if wanted.get(path) != present.get(path))


def main(arguments: list[str] | None = None) -> int:
    """Write the artifacts, or with `--check` compare them."""
    parser = argparse.ArgumentParser(description="Compile the contracts into the package's artifacts.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file differs")
    parser.add_argument(
        "--out", type=Path, default=ARTIFACTS, metavar="DIR", help="default: chatchain/chain/abi"
    )
    options = parser.parse_args(arguments)
    try:
        artifacts = compile_contracts()
    except CompileFailed as error:
        print(f"compile: {error}", file=sys.stderr)
        return 1
    if options.check:
        differing = stale(options.out, artifacts)
        for path in differing:
            print(f"compile: {path} is not what the sources give; run 'make abi'", file=sys.stderr)
        return 1 if differing else 0
    options.out.mkdir(parents=True, exist_ok=True)
    for name, artifact in artifacts.items():
        path = options.out / f"{name}.json"
        path.write_text(render(artifact), encoding="utf-8", newline="\n")
        print(f"{path}: {len(artifact['runtime']) // 2 - 1} bytes of code")
    return 0


if __name__ == "__main__":
    sys.exit(main())
