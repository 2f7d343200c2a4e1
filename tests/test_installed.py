"""What somebody is told who starts a program with a Python that cannot run it."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from chatchain.programs import installed

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("program", ["client.py", "server.py", "deploy/devnet.py", "deploy/deploy.py"])
def test_missing_packages_are_told_in_one_sentence(program: str, tmp_path: Path) -> None:
    """A Python without the packages names one, says what to do and exits with 2."""
    # -S leaves out site-packages, -I the user's: the packages are not there.
    done = subprocess.run(
        [sys.executable, "-S", "-I", "-c", _AS_FILE.format(path=str(ROOT / program), root=str(ROOT))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == installed.USAGE, done.stderr
    assert done.stdout == ""
    assert re.fullmatch(
        r"chatchain needs the package \w+, which .* does not have\. Run `make setup`.*\n", done.stderr
    )


_AS_FILE = (
    "import runpy, sys; sys.path.insert(0, {root!r}); sys.argv = [{path!r}]; "
    "runpy.run_path({path!r}, run_name='__main__')"
)


@pytest.mark.parametrize("version", [(3, 10), (3, 14), (2, 7), (4, 0)])
def test_another_python_is_refused(version: tuple[int, int]) -> None:
    """The sentence names both what is needed and what is there."""
    said = installed.objection(version)
    assert "3.11 to 3.13" in said
    assert f"this is {version[0]}.{version[1]}" in said


def test_the_versions_are_those_that_the_package_declares() -> None:
    """The guard and `requires-python` say the same."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    after = (installed.NEWEST[0], installed.NEWEST[1] + 1)
    assert declared == ">={}.{},<{}.{}".format(*installed.OLDEST, *after)
    assert installed.objection(installed.OLDEST) == installed.objection(installed.NEWEST) == ""


def test_a_module_of_ours_that_is_missing_stays_a_bug() -> None:
    """Only foreign packages are a matter of setting up."""
    with pytest.raises(ModuleNotFoundError), installed.Installed():
        raise ModuleNotFoundError("No module", name="chatchain.nowhere")
