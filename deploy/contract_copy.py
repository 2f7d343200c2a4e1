"""The contracts with their tests in a folder of their own, to run forge on without touching the work tree."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from deploy.tools import ROOT, forge_path

LIBRARIES: Final = "node_modules"


class ContractCopy:
    """A copy in an empty folder."""

    def __init__(self, folder: Path) -> None:
        self.contracts = folder / "contracts"
        shutil.copytree(ROOT / "contracts", self.contracts, ignore=shutil.ignore_patterns("out", "cache"))
        shutil.copytree(ROOT / "tests" / "vectors", folder / "tests" / "vectors")
        (folder / "deploy").mkdir()
        for name in ("solc", "solc.cjs"):
            shutil.copy(ROOT / "deploy" / name, folder / "deploy" / name)
        (folder / ".venv").symlink_to(ROOT / ".venv", target_is_directory=True)
        # `forge coverage` follows a library's relative imports only where the library is below the project.
        for parent in (folder, self.contracts):
            (parent / LIBRARIES).symlink_to(ROOT / LIBRARIES, target_is_directory=True)
        for name in ("foundry.toml", "remappings.txt"):
            path = self.contracts / name
            path.write_text(path.read_text(encoding="utf-8").replace(f"../{LIBRARIES}", LIBRARIES))

    def forge(
        self, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run forge to its end."""
        return subprocess.run(
            [str(forge_path()), *arguments],
            cwd=self.contracts,
            env=os.environ | dict(environment or {}),
            capture_output=True,
            text=True,
            check=False,
        )
