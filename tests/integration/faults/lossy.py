"""Chain, relay and clients in one network that loses packets; run inside it as `lossy FOLDER MESSAGES`.

The network has a loopback and nothing else; it ends with the last process that is in it.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.fixtures import anvil
from tests.integration.faults.load import UNLIMITED, pairs, through
from tests.relay.stage import Stage

PERCENT: Final = 10
PATIENCE: Final = 540.0

RULES: Final = """
table inet faults {{
    chain arriving {{
        type filter hook input priority filter;
        tcp dport {port} numgen random mod 100 < {percent} counter drop
        tcp sport {port} numgen random mod 100 < {percent} counter drop
    }}
}}
"""


def main(folder: Path, messages: int) -> None:
    """Loses packets in both directions between relay and clients, and says how many."""
    _run("ip", "link", "set", "lo", "up")
    chain = anvil.start_anvil(folder)
    stage = Stage(chain, folder, f"sqlite:///{folder / 'relay.db'}")
    stage.environment["RELAY_LIMITS"] = UNLIMITED
    stage.start()
    try:
        talking = pairs(stage, stage, 2)
        _run("nft", "-f", "-", text=RULES.format(port=stage.port, percent=PERCENT))

        async def nothing_else() -> None:
            """The packets are fault enough."""

        asyncio.run(through(talking, 1, messages, nothing_else, patience=PATIENCE))
        counted = [int(number) for number in re.findall(r"packets (\d+)", _run("nft", "list", "ruleset"))]
        assert all(counted), f"both directions lose packets: {counted}"
        print(f"lost {sum(counted)}")
    finally:
        stage.stop()
        chain.process.stop()


def _run(*command: str, text: str = "") -> str:
    # Administrators' programs are in /usr/sbin, which a user's PATH may lack.
    environment = {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"}
    done = subprocess.run(command, input=text, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, f"'{' '.join(command)}' failed: {done.stderr}"
    return done.stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
