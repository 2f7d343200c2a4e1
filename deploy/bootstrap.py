"""Set the project up on a machine that has only Python, from the lock files: `.venv` and `node_modules`.

Run by the bare `python3`, so only the standard library is at hand. Safe to repeat: a stamp made of the lock
files tells when nothing is left to do. All talk goes to stderr, because targets that print JSON depend on it.
"""

import sys

# Before anything else, and in words that every Python since 3.6 can parse.
if not (3, 11) <= sys.version_info[:2] < (3, 14):
    sys.exit(
        f"chatchain needs Python 3.11, 3.12 or 3.13, but {sys.executable} is "
        f"{sys.version_info[0]}.{sys.version_info[1]}: name another, as in 'make PYTHON=python3.12 setup'."
    )

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import tomllib
import venv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
VENV: Final = ROOT / ".venv"
NODE_MODULES: Final = ROOT / "node_modules"
PYTHON_LOCKS: Final = ("pyproject.toml", "uv.lock")
NODE_LOCKS: Final = ("package.json", "package-lock.json")

OLDEST_NODE: Final = 18

# A machine may trust roots of its own; Python's and Node's bundled lists would not know them.
SYSTEM_ROOTS: Final = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Alpine, Arch
    Path("/etc/pki/tls/certs/ca-bundle.crt"),  # Fedora
    Path("/etc/ssl/cert.pem"),  # macOS, BSD
)


class SetupFailed(Exception):
    """The set-up cannot go on; the message is one sentence for a person."""


def main() -> None:
    """Make `.venv` and `node_modules` what the lock files say."""
    try:
        with _alone():
            _set_up()
    except SetupFailed as error:
        sys.exit(f"set-up: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _set_up() -> None:
    has_node = bool(shutil.which("node") and shutil.which("npm"))
    python = Stamp(VENV / "chatchain-python", PYTHON_LOCKS, has_node)
    node = Stamp(NODE_MODULES / ".chatchain-node", NODE_LOCKS, has_node)
    if python.fresh() and node.fresh():
        return
    environment = _environment(os.environ)
    npm = _system_npm()
    if not python.fresh():
        python.remove()
        _make_venv()
        _install_uv(environment)
        _say("Python packages, as in uv.lock")
        groups = ["--group=setup"] if npm else ["--group=setup", "--group=node"]
        _run([str(VENV / "bin" / "uv"), "sync", "--frozen", "--quiet", *groups], environment)
        python.set()
    if not node.fresh():
        node.remove()
        _say(f"Node packages, as in package-lock.json, with {'the system' if npm else 'our own'} Node")
        if not npm:
            npm = VENV / "bin" / "npm"
            environment["PATH"] = f"{VENV / 'bin'}{os.pathsep}{environment.get('PATH', os.defpath)}"
        # No package of ours needs its install script, so none gets to run one.
        flags = ["--include=dev", "--ignore-scripts"]
        quiet = ["--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]
        _run([str(npm), "ci", *flags, *quiet], environment)
        node.set()
    _say("done")


class Stamp:
    """A mark inside what was installed, made of the lock files that it was installed from."""

    def __init__(self, path: Path, locks: Sequence[str], has_node: bool) -> None:
        # A virtual environment does not survive a move, so the place counts too.
        digest = hashlib.sha256(f"{ROOT}\0{has_node}".encode())
        for name in locks:
            digest.update(hashlib.sha256((ROOT / name).read_bytes()).digest())
        self._path, self._text = path, digest.hexdigest()

    def fresh(self) -> bool:
        """Whether what is installed came from the lock files as they are now."""
        try:
            return self._path.read_text() == self._text
        except OSError:
            return False

    def remove(self) -> None:
        """Forget the mark before changing anything: a set-up that is cut short must start again."""
        self._path.unlink(missing_ok=True)

    def set(self) -> None:
        """Mark the work as done."""
        self._path.write_text(self._text)


def _make_venv() -> None:
    python = VENV / "bin" / "python"
    probe = "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14) or sys.prefix != sys.argv[1])"
    if python.exists() and subprocess.run([python, "-c", probe, VENV], check=False).returncode == 0:
        return
    _say(f"virtual environment with Python {sys.version.split()[0]}")
    try:
        venv.create(VENV, clear=True, with_pip=True, symlinks=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SetupFailed(
            f"Python could not make a virtual environment ({error}); "
            "on Debian and Ubuntu: apt install python3-venv"
        ) from error


def _install_uv(environment: Mapping[str, str]) -> None:
    """Install uv with pip, at the version and the hashes of the lock file."""
    with (ROOT / "uv.lock").open("rb") as file:
        packages = tomllib.load(file)["package"]
    uv = next(package for package in packages if package["name"] == "uv")
    if (VENV / "bin" / "uv").exists() and _output([str(VENV / "bin" / "uv"), "--version"]).split()[1:2] == [
        uv["version"]
    ]:
        return
    _say(f"uv {uv['version']}")
    hashes = " ".join(f"--hash={wheel['hash']}" for wheel in uv["wheels"])
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write(f"uv=={uv['version']} {hashes}\n")
        requirements.flush()
        pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "--only-binary=:all:", "--require-hashes", "-r", requirements.name], environment)


def _system_npm() -> Path | None:
    """The system's npm, if a Node of a good age comes with it."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        return None
    major = _output([node, "--version"]).removeprefix("v").split(".")[0]
    return Path(npm) if major.isdigit() and int(major) >= OLDEST_NODE else None


def _environment(given: Mapping[str, str]) -> dict[str, str]:
    """The environment for pip, uv and npm: as given, and trusting the system's roots where it has some."""
    environment = dict(given)
    for name in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "UV_PROJECT_ENVIRONMENT", "NODE_ENV"):
        environment.pop(name, None)
    roots = next((path for path in SYSTEM_ROOTS if path.exists()), None)
    if roots:
        environment.setdefault("PIP_CERT", str(roots))
        environment.setdefault("NODE_EXTRA_CA_CERTS", str(roots))
        environment.setdefault("UV_SYSTEM_CERTS", "true")
    environment["UV_PYTHON"] = str(VENV / "bin" / "python")
    environment["UV_PYTHON_DOWNLOADS"] = "never"
    return environment


def _run(command: list[str], environment: Mapping[str, str]) -> None:
    """Run a program in the project's folder, its talk on our stderr, never waiting for an answer."""
    silent = subprocess.DEVNULL
    done = subprocess.run(command, cwd=ROOT, env=environment, stdin=silent, stdout=sys.stderr, check=False)
    if done.returncode:
        name = " ".join([Path(command[0]).name, *command[1:2]])
        raise SetupFailed(f"'{name}' failed with status {done.returncode} (see above)")


def _output(command: list[str]) -> str:
    """What a program prints; nothing when it does not run."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Hold the set-up lock: two `make` calls at once must not install into one folder."""
    folder = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _say(text: str) -> None:
    print(f"set-up: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
