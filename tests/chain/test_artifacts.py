"""The compiled contracts in the package are what the sources give, whoever compiles them."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploy import compile as compiling
from deploy.tools import ROOT, forge_path, solc_path


@pytest.fixture(scope="module")
def rebuilt() -> dict[str, dict[str, Any]]:
    """The artifacts as py-solc-x compiles them now."""
    return compiling.compile_contracts()


@pytest.fixture
def compiled_once(rebuilt: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever compiles with what is found first gets what that gave."""
    monkeypatch.setattr(compiling, "compile_contracts", lambda: rebuilt)


def checked_in(name: str) -> dict[str, Any]:
    """An artifact of the package."""
    artifact: dict[str, Any] = json.loads((compiling.ARTIFACTS / f"{name}.json").read_text(encoding="utf-8"))
    return artifact


def test_every_artifact_rebuilds_byte_for_byte(rebuilt: dict[str, dict[str, Any]]) -> None:
    """Text for text: the ABI, both codes, the immutables' places and the compiler's name."""
    assert sorted(path.stem for path in compiling.ARTIFACTS.glob("*.json")) == sorted(compiling.CONTRACTS)
    assert compiling.stale(compiling.ARTIFACTS, rebuilt) == []


def test_npm_and_py_solc_x_agree(rebuilt: dict[str, dict[str, Any]]) -> None:
    """The compiler behind the wrapper gives the same as whichever py-solc-x found first."""
    assert compiling.compile_contracts(solc_path()) == rebuilt


def test_forge_builds_the_same_code() -> None:
    """What forge tests is what the package deploys, although forge compiles the tests along with it.

    In forge's own folder, where its tests have built it already.
    """
    command = [str(forge_path()), "build"]
    done = subprocess.run(command, cwd=ROOT / "contracts", capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in compiling.CONTRACTS:
        place = ROOT / "contracts" / "out" / f"{name}.sol" / f"{name}.json"
        built = json.loads(place.read_text(encoding="utf-8"))
        artifact = checked_in(name)
        assert built["bytecode"]["object"] == artifact["bytecode"], name
        assert built["deployedBytecode"]["object"] == artifact["runtime"], name


def test_immutables_stand_where_the_runtime_code_has_zeros() -> None:
    """So a code check may compare everything outside these places."""
    for name in compiling.CONTRACTS:
        artifact = checked_in(name)
        code = bytes.fromhex(artifact["runtime"][2:])
        assert artifact["immutables"], name
        assert artifact["immutables"] == sorted(artifact["immutables"]), name
        for start, length in artifact["immutables"]:
            assert code[start : start + length] == bytes(32), name


def test_contracts_fit_the_size_limit() -> None:
    """EIP-170 allows 24,576 bytes of code."""
    for name in compiling.CONTRACTS:
        assert len(checked_in(name)["runtime"]) // 2 - 1 <= 24_576, name


def test_a_changed_missing_or_surplus_file_is_noticed(
    rebuilt: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """Each way in which a folder of artifacts can go stale."""
    for name, artifact in rebuilt.items():
        (tmp_path / f"{name}.json").write_text(compiling.render(artifact), encoding="utf-8")
    assert compiling.stale(tmp_path, rebuilt) == []

    changed = tmp_path / "Membership.json"
    changed.write_text(changed.read_text(encoding="utf-8").replace('"0x60', '"0x61', 1), encoding="utf-8")
    (tmp_path / "Directory.json").unlink()
    (tmp_path / "Ghost.json").write_text("{}", encoding="utf-8")
    names = [path.name for path in compiling.stale(tmp_path, rebuilt)]
    assert names == ["Directory.json", "Ghost.json", "Membership.json"]


def test_check_fails_on_missing_artifacts_and_writes_nothing(
    compiled_once: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--check` on an empty folder says what to run; only a plain run writes."""
    assert compiling.main(["--check", "--out", str(tmp_path)]) == 1
    assert "make abi" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_plain_run_writes_the_artifacts(
    compiled_once: None, rebuilt: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """Into a folder that it makes itself."""
    assert compiling.main(["--out", str(tmp_path / "new")]) == 0
    assert compiling.stale(tmp_path / "new", rebuilt) == []


def test_another_compiler_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`$SOLC` may not bring in another version unnoticed."""
    other = tmp_path / "solc"
    other.write_text("#!/bin/sh\necho 'Version: 0.8.36+commit.00000000.Linux.g++'\n", encoding="utf-8")
    other.chmod(0o755)
    monkeypatch.setenv("SOLC", str(other))
    with pytest.raises(compiling.CompileFailed, match="is not solc"):
        compiling.find_compiler()


def test_a_missing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`$SOLC` that leads nowhere is one sentence, not a traceback."""
    monkeypatch.setenv("SOLC", str(tmp_path / "nowhere"))
    with pytest.raises(compiling.CompileFailed, match="nowhere is not a compiler"):
        compiling.find_compiler()
