"""Coverage-guided fuzzing by atheris: `python -m tests.fuzz [TARGET [libFuzzer's options]]`, from the top.

Without a target all of them run for FUZZ_SECONDS each, as many at a time as there are cores; the exit status
says whether one crashed, and its input lies in `.fuzz/`. Coverage is that of Python: a C library shows
none.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from tests.fuzz.target import load

ROOT: Final = Path(__file__).parents[2]
KEPT: Final = ROOT / ".fuzz"
"""Inputs that atheris found worth keeping, by target, and those that crashed."""

SECONDS: Final = "20"
LIMITS: Final = (
    "-timeout=20",
    "-rss_limit_mb=2048",
    "-max_len=65536",
    "-print_final_stats=1",
)


def main(arguments: Sequence[str]) -> int:
    """Runs the target named first, or all."""
    if find_spec("atheris") is None:
        print("atheris is not here; it comes with `make setup` on Linux, x86-64.", file=sys.stderr)
        return 2
    if arguments:
        return one(arguments[0], arguments[1:])
    return everything()


def one(name: str, options: Sequence[str]) -> int:
    """Fuzzes one target until told to stop."""
    import atheris

    with atheris.instrument_imports(include=["chatchain", "PIL"]):
        targets = load([name.partition(".")[0]])
    if name not in targets:
        print(f"There is no target {name}.", file=sys.stderr)
        return 2
    target = targets[name]

    def one_input(data: bytes) -> None:
        target.takes(data)

    corpus = KEPT / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup([name, *options, f"-artifact_prefix={KEPT}/{name}-", str(corpus)], one_input)
    atheris.Fuzz()
    return 0


def everything() -> int:
    """Fuzzes all targets, each in a process of its own."""
    seconds = os.environ.get("FUZZ_SECONDS", SECONDS)
    names = sorted(load())

    def fuzzed(name: str) -> tuple[str, subprocess.CompletedProcess[str]]:
        command = [sys.executable, "-m", "tests.fuzz", name, f"-max_total_time={seconds}", *LIMITS]
        return name, subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    crashed = []
    with ThreadPoolExecutor(os.cpu_count()) as together:
        for name, done in together.map(fuzzed, names):
            inputs = re.search(r"number_of_executed_units: *(\d+)", done.stderr)
            count, end = inputs[1] if inputs else 0, "crashed" if done.returncode else "held"
            print(f"{name:28} {count:>9} inputs  {end}", flush=True)
            if done.returncode:
                crashed.append(name)
                where = [line for line in done.stderr.splitlines() if "ERROR" in line or "written to" in line]
                print(done.stdout, *where, sep="\n", file=sys.stderr)
    print(f"{len(names)} targets, {len(crashed)} crashed{': ' if crashed else ''}{', '.join(crashed)}")
    return 1 if crashed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
