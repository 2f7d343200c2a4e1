"""A development network and its people, for the tests of the command line."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from tests.e2e.programs import devnet, runs, up
from tests.ui.terminal import Shell, shell

PASSWORD: Final = "a horse, correctly stapled"


@dataclass(frozen=True)
class Town:
    """A development network under policy `vote`, with the founders ada and bob."""

    folder: Path
    report: dict[str, Any]

    def user(self, name: str) -> Shell:
        """The surroundings of somebody with a home and a password file, whose commands print JSON."""
        home = self.folder / "homes" / name
        own = {
            "CHATCHAIN_HOME": str(home),
            "CHATCHAIN_PASSWORD_FILE": f"{home}.password",
            "CHATCHAIN_JSON": "1",
        }
        machine = shell(self.folder / "machines" / name)
        return replace(machine, environment={**machine.environment, **own})

    def stranger(self, name: str) -> Shell:
        """Somebody with a password file and nothing else yet."""
        password = self.folder / "homes" / f"{name}.password"
        password.write_text(PASSWORD + "\n")
        password.chmod(0o600)
        return self.user(name)

    def new_machine(self, name: str, password: str) -> Shell:
        """A machine that knows the network's join link and a password, and nobody's home."""
        folder = self.folder / "machines" / name
        file = folder / "password"
        folder.mkdir(parents=True)
        file.write_text(password + "\n")
        file.chmod(0o600)
        machine = self.user(name)
        environment = {
            **{key: value for key, value in machine.environment.items() if key != "CHATCHAIN_HOME"},
            "CHATCHAIN_PASSWORD_FILE": str(file),
        }
        machine = replace(machine, environment=environment)
        joined = machine.run("join", self.report["join"])
        assert joined.code == 0, joined
        return machine

    def password(self, name: str) -> str:
        """What somebody types when asked."""
        return (self.folder / "homes" / f"{name}.password").read_text().strip()

    def at_terminal(self, name: str) -> Shell:
        """Somebody who is asked for everything but the home."""
        user = self.user(name)
        kept = {"CHATCHAIN_PASSWORD_FILE", "CHATCHAIN_JSON"}
        return replace(
            user, environment={key: value for key, value in user.environment.items() if key not in kept}
        )

    @contextlib.contextmanager
    def without_relay(self) -> Iterator[None]:
        """The relay is gone for the length of a block."""
        pid = devnet("status", self.folder)["pids"]["relay"]
        os.kill(pid, signal.SIGTERM)
        while runs(pid):
            time.sleep(0.02)
        try:
            yield
        finally:
            up(self.folder)


@contextlib.contextmanager
def founded(folder: Path) -> Iterator[Town]:
    """A network that lives as long as the block."""
    try:
        yield Town(folder, up(folder, "--policy", "vote", "--members", "ada,bob"))
    finally:
        devnet("down", folder)
