"""Install the Debian packages that the tests need (`deploy/apt.txt`): in one step when root, else name it.

Run by the bare `python3` after the set-up; standard library only.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

LIST: Final = Path(__file__).resolve().parent / "apt.txt"

# What proves a package present where dpkg does not know: other systems, or an installation by hand.
PROGRAMS: Final = {
    "faketime": "faketime",
    "haproxy": "haproxy",
    "iproute2": "ip",
    "mariadb-server-core": "mariadbd",
    "nats-server": "nats-server",
    "nftables": "nft",
    "strace": "strace",
}


def main() -> None:
    """Leave every listed package installed, or exit with the one command that installs what is missing."""
    missing = [name for name in listed(LIST.read_text()) if not _present(name)]
    if not missing:
        return
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    if shutil.which("apt-get") is None:
        sys.exit(f"The tests need what Debian calls {', '.join(missing)}: please install it.")
    if os.geteuid() != 0:
        sys.exit(f"The tests need {', '.join(missing)}: please run 'sudo {' '.join(install)}'.")
    print(f"packages: installing {', '.join(missing)}", file=sys.stderr, flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], install):
        if subprocess.run(command, env=environment, stdout=sys.stderr, check=False).returncode:
            sys.exit(f"'{' '.join(command)}' failed (see above).")


def listed(text: str) -> list[str]:
    """The package names of the list, one a line; `#` starts a comment."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def _present(package: str) -> bool:
    program = PROGRAMS.get(package)
    # Debian keeps servers in /usr/sbin, which a user's PATH may lack.
    if program and shutil.which(
        program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"
    ):
        return True
    if shutil.which("dpkg-query") is None:
        return False
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout == "installed"


if __name__ == "__main__":
    main()
