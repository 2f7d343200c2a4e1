"""What may be imported on the way of a message: nothing that takes a second to load."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("web3", "eth_account", "eth_abi", "eth_utils", "aiohttp", "requests", "sqlalchemy", "pydantic")


def test_reading_and_even_the_writer_import_nothing_heavy() -> None:
    """Both modules come without web3, which only a transaction needs."""
    program = (
        "import sys, chatchain.chain.view, chatchain.chain.writer, chatchain.chain.reverts\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert told.stdout.strip() == "[]"
