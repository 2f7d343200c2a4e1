"""A small disk of one's own, which can be filled up and given room again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from tests.fixtures.processes import Process

RESERVE: Final = 64 * 1024
"""Bytes a step when the last room is taken."""


class SmallDisk:
    """A tmpfs over a folder that only the programs see that are started `inside`.

    It lives in a mount namespace and is gone with the last of them: there is nothing to unmount.
    """

    def __init__(self, folder: Path, mebibytes: int) -> None:
        self.folder = folder
        folder.mkdir()
        mount = 'mount -t tmpfs -o size="$2"m tmpfs "$1" && echo mounted && exec sleep infinity'
        own = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
        log = folder.with_suffix(".log")
        self._holder = Process([*own, "sh", "-c", mount, "sh", str(folder), str(mebibytes)], log)
        self._holder.wait_until(lambda: "mounted" in log.read_text())
        self._seen = Path(f"/proc/{self._holder.pid}/root{folder}")

    def inside(self, command: list[str]) -> list[str]:
        """The command for a program that sees this disk."""
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        here = ["nsenter", "--target", str(self._holder.pid), "--mount", *user]
        return [*here, *command]

    def free(self) -> int:
        """Bytes of room."""
        found = os.statvfs(self._seen)
        return found.f_bavail * found.f_frsize

    def fill(self) -> None:
        """Takes all the room there is."""
        with open(self._seen / "ballast", "ab", buffering=0) as ballast:
            while room := self.free():
                try:
                    ballast.write(bytes(min(room, RESERVE)))
                except OSError:  # somebody else took the last of it
                    return

    def clear(self) -> None:
        """Gives the room back."""
        (self._seen / "ballast").unlink()

    def stop(self) -> None:
        """Ends it, once the programs inside have ended."""
        self._holder.kill()
