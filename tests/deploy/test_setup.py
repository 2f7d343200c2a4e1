"""Setting up: the right Python, the locked packages, the compiler behind its wrapper."""

import json
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import solcx

from deploy import bootstrap, packages, tools

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("version", [(3, 10, 14), (3, 14, 0), (4, 0, 0)])
def test_another_python_is_refused_in_one_sentence(
    version: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what was found, what is needed and how to name another."""
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(SystemExit) as refused:
        runpy.run_path(str(ROOT / "deploy" / "bootstrap.py"), run_name="__main__")
    sentence = str(refused.value)
    assert f"is {version[0]}.{version[1]}:" in sentence
    assert "needs Python 3.11, 3.12 or 3.13" in sentence
    assert "\n" not in sentence


def test_a_stamp_is_fresh_until_a_lock_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is installed twice, and a changed lock file is never missed."""
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    (tmp_path / "a.lock").write_text("one")
    mark = tmp_path / "stamp"

    def stamp(*, has_node: bool = True) -> bootstrap.Stamp:
        return bootstrap.Stamp(mark, ["a.lock"], has_node)

    assert not stamp().fresh()
    stamp().set()
    assert stamp().fresh()
    assert not stamp(has_node=False).fresh()
    (tmp_path / "a.lock").write_text("two")
    assert not stamp().fresh()
    stamp().set()
    stamp().remove()
    assert not stamp().fresh()


def test_the_environment_trusts_the_roots_of_the_system(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """pip, uv and Node get the system's bundle where there is one, and what a person chose is kept."""
    roots = tmp_path / "roots.crt"
    monkeypatch.setattr(bootstrap, "SYSTEM_ROOTS", (tmp_path / "absent", roots))
    assert "PIP_CERT" not in bootstrap._environment({})
    roots.touch()
    made = bootstrap._environment({"PIP_CERT": "/mine", "VIRTUAL_ENV": "/another", "PATH": "/bin"})
    assert made["PIP_CERT"] == "/mine"
    assert made["NODE_EXTRA_CA_CERTS"] == str(roots)
    assert made["UV_SYSTEM_CERTS"] == "true"
    assert made["PATH"] == "/bin"
    assert "VIRTUAL_ENV" not in made


def test_the_lock_files_name_no_registry_but_the_public_ones() -> None:
    """Whoever made a lock file, on whatever machine: everyone can install from it."""
    lock = (ROOT / "uv.lock").read_text()
    hosts = set(re.findall(r'(?:url|registry) = "([^"]*?//[^/"]*)', lock))
    assert hosts == {"https://pypi.org", "https://files.pythonhosted.org"}
    for package in json.loads((ROOT / "package-lock.json").read_text())["packages"].values():
        assert package.get("resolved", "https://registry.npmjs.org/").startswith(
            "https://registry.npmjs.org/"
        )


def test_every_locked_file_is_held_by_its_hash() -> None:
    """A registry that changes its mind is noticed."""
    for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]:
        for file in [*package.get("wheels", []), *filter(None, [package.get("sdist")])]:
            assert re.fullmatch(r"sha256:[0-9a-f]{64}", file["hash"]), package["name"]
    for name, package in json.loads((ROOT / "package-lock.json").read_text())["packages"].items():
        # Only what this machine could not fetch, Foundry for other systems, may stand without.
        other_system = (
            package.get("optional") and "@foundry-rs/" in name and not name.endswith("-linux-amd64")
        )
        bundled = package.get("inBundle")
        assert name == "" or bundled or other_system or package["integrity"].startswith("sha512-"), name


def test_missing_packages_are_named_in_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root nothing is installed; the sentence can be pasted."""
    monkeypatch.setattr(packages, "LIST", tmp_path / "apt.txt")
    monkeypatch.setattr(packages, "os", SimpleNamespace(geteuid=lambda: 1000, environ={}, defpath="/bin"))
    monkeypatch.setattr("shutil.which", lambda name, **_: f"/usr/bin/{name}")
    (tmp_path / "apt.txt").write_text("# for a test\nchatchain-no-such-package  # really\n\n")
    with pytest.raises(SystemExit, match=r"'sudo apt-get install .*chatchain-no-such-package'"):
        packages.main()


def test_installed_packages_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the list of the project names is here, or these tests would not run; nothing happens."""
    packages.main()
    monkeypatch.setattr(packages, "LIST", tmp_path / "apt.txt")
    (tmp_path / "apt.txt").write_text("")
    packages.main()


def test_the_wrapped_compiler_answers_like_the_native_one() -> None:
    """py-solc-x reads the version that package.json pins, and gets bytecode."""
    pinned = json.loads((ROOT / "package.json").read_text())["devDependencies"]["solc"]
    assert str(solcx.wrapper.get_solc_version(tools.solc_path())) == pinned
    source = "// SPDX-License-Identifier: MIT\npragma solidity 0.8.37; contract Empty {}"
    output = solcx.compile_standard(
        {
            "language": "Solidity",
            "sources": {"Empty.sol": {"content": source}},
            "settings": {"outputSelection": {"*": {"*": ["evm.bytecode.object"]}}},
        },
        solc_binary=tools.solc_path(),
    )
    assert output["contracts"]["Empty.sol"]["Empty"]["evm"]["bytecode"]["object"].startswith("60")


@pytest.mark.parametrize("options", [[], ["--bin", "a.sol"], ["--standard-json", "--via-ir"]])
def test_the_wrapped_compiler_refuses_what_it_does_not_do(options: list[str]) -> None:
    """A silent half-answer would be worse."""
    done = subprocess.run(
        [tools.solc_path(), *options], input="{}", capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("solc: ")


@pytest.mark.parametrize("name", ["anvil", "forge", "cast"])
def test_the_tools_are_native_programs(name: str) -> None:
    """Not npm's wrappers, whose children outlive them."""
    found = subprocess.run(
        [sys.executable, ROOT / "deploy" / "tools.py", name], capture_output=True, text=True, check=True
    )
    path = Path(found.stdout.strip())
    assert path.read_bytes()[:4] in {b"\x7fELF", b"\xcf\xfa\xed\xfe"}


def test_a_missing_tool_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The way out is in the sentence."""
    monkeypatch.setattr(tools, "ROOT", tmp_path)
    monkeypatch.delenv("SOLC", raising=False)
    for find in (tools.anvil_path, tools.solc_path, tools.ganache_command):
        with pytest.raises(tools.ToolMissing, match="run 'make setup'"):
            find()
