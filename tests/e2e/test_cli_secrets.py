"""Nothing secret is printed, logged or left in a file that others may read, whatever goes wrong."""

from __future__ import annotations

import base64
import contextlib
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from chatchain.crypto.device import DeviceSecrets
from chatchain.crypto.phrase import keys_of
from chatchain.crypto.vault import open_vault
from chatchain.store.local import LocalStore
from tests.e2e.town import Town, founded
from tests.ui.terminal import PATIENCE, Ended, Shell

NEW_PASSWORD: Final = "another horse, stapled anew"
SAID: Final = "the plan is to meet at the old mill"
FILE: Final = b"what the file says, which is nobody's business. " * 50


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """One network for this file."""
    with founded(tmp_path_factory.mktemp("town")) as town:
        yield town


def spellings(secret: bytes) -> list[bytes]:
    """In which forms it could lie somewhere."""
    plain = secret.hex()
    return [
        secret,
        plain.encode(),
        plain.upper().encode(),
        base64.b64encode(secret).rstrip(b"="),
        base64.urlsafe_b64encode(secret).rstrip(b"="),
    ]


def secrets_in(home: Path, password: str) -> dict[str, bytes]:
    """What a home holds under its password."""
    vault = open_vault((home / "vault").read_bytes(), password)
    store = LocalStore(home / "messages.db", vault.database_key)
    found = {
        name: getattr(vault, name) for name in ("account_secret", "database_key", "keystore_key", "login_key")
    }
    for keys in store.own_keys():
        device = DeviceSecrets.decode(keys.secret)
        found |= {f"signer {keys.version}": device.signer, f"device {keys.version}": keys.secret}
    for uid, number in store.session_devices():
        for session in store.sessions(uid, number):
            found[f"session with {uid}"] = session.state
    prekeys = store.prekeys()
    assert prekeys is not None
    store.close()
    return found | {"prekeys": prekeys}


def new_machine(town: Town) -> Shell:
    """Somebody with another password and no home, who knows the network."""
    password = town.folder / "homes" / "fresh.password"
    password.write_text(NEW_PASSWORD + "\n")
    password.chmod(0o600)
    fresh = town.user("fresh")
    assert fresh.run("join", town.report["join"]).code == 0
    return fresh


def test_nothing_secret_comes_out(town: Town, tmp_path: Path) -> None:
    """Talk, files, new keys, a recovery, kills and errors of every kind, all with `--debug`."""
    ada, bob, printed = town.user("ada"), town.user("bob"), list[Ended]()
    phrase = (town.folder / "homes" / "ada.mnemonic").read_text().strip()
    (tmp_path / "notes.txt").write_bytes(FILE)
    (tmp_path / "wrong").write_text("some other password entirely")
    (tmp_path / "words").write_text(" ".join(phrase.split()[:-1]) + " zebra")
    for name in ("wrong", "words"):
        (tmp_path / name).chmod(0o600)

    def do(who: Shell, code: int, *arguments: str | Path, stdin: str | None = None) -> None:
        printed.append(who.run(*arguments, "--debug", stdin=stdin))
        assert printed[-1].code == code, printed[-1]

    do(bob, 0, "send", "ada", "-", stdin=SAID)
    do(ada, 0, "send", "bob", "-", stdin=SAID)
    do(ada, 0, "send", "bob", "--file", tmp_path / "notes.txt")
    assert SAID in str(bob.run("receive", "--wait", "5").objects)
    for command in (
        ("whoami",),
        ("status",),
        ("doctor",),
        ("config", "show"),
        ("keys", "list"),
        ("keys", "rotate"),
    ):
        do(ada, 0, *command)
    do(ada, 3, "receive", "--password-file", tmp_path / "wrong")
    do(ada, 3, "recover", "--veto", "--password-file", tmp_path / "wrong")
    do(ada, 5, "login", "--rpc", "http://127.0.0.1:1")
    do(ada, 6, "send", "nobody-at-all", "-", stdin=SAID)
    do(ada, 7, "recover", "--mnemonic-file", town.folder / "homes" / "ada.mnemonic")
    fresh = new_machine(town)
    do(fresh, 2, "recover", "--mnemonic-file", tmp_path / "words")
    recover = ("recover", "--mnemonic-file", town.folder / "homes" / "ada.mnemonic", "--keep-others")
    for pause in (0.7, 1.2):
        with fresh.start(*recover, "--debug") as process:
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
            out, err = process.communicate(timeout=PATIENCE)
            printed.append(Ended(-9, out.decode(), err.decode()))
    with town.without_relay():
        do(bob, 4, "send", "ada", "-", stdin=SAID)
    do(fresh, 0, *recover)
    do(bob, 0, "login")

    homes = town.folder / "homes"
    secrets: dict[str, bytes] = {
        "phrase": phrase.encode(),
        "most of the phrase": " ".join(phrase.split()[:-1]).encode(),
        "account key": keys_of(phrase).account_key,
        "text": SAID.encode(),
        "file": FILE[:48],
    }
    for name, password in (
        ("ada", town.password("ada")),
        ("bob", town.password("bob")),
        ("fresh", NEW_PASSWORD),
    ):
        secrets |= {f"{name}: {what}": secret for what, secret in secrets_in(homes / name, password).items()}
        secrets[f"{name}: password"] = password.encode()
    told = "".join(ended.out + ended.err for ended in printed).encode()
    for name, secret in secrets.items():
        assert not any(form in told for form in spellings(secret)), f"{name} was printed"
    left: dict[Path, bytes] = {}
    for path in town.folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # the chain writes its state anew
            left[path] = path.read_bytes()
    kept = {path for path in left if path.suffix in (".password", ".mnemonic")}
    received = {path for path in left if path.name == "notes.txt"}
    for path, data in left.items():
        for name, secret in secrets.items():
            meant = path in kept or (name == "file" and path in received)
            assert meant or not any(form in data for form in spellings(secret)), f"{name} lies in {path}"
    assert len(received) == 1
    for path in [one for home in homes.iterdir() if home.is_dir() for one in (home, *home.rglob("*"))]:
        assert not stat.S_IMODE(path.lstat().st_mode) & 0o077, f"{path} is open to others"
