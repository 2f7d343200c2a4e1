"""Break the contracts in many small ways, one at a time, and see that their tests notice every one.

`python deploy/mutants.py [--only TEXT]` copies the contracts with their tests into a temporary folder, makes
sure that the tests pass there, and then runs them once per entry of `contracts/mutants/*.json`: a guard
removed or a sign turned. A mutant that survives, that does not compile, or whose place is no longer in the
source is a failure. The work tree is never touched.

An entry is `contract` (a file of contracts/src), `claim` (what goes wrong), `find` (text that stands there
exactly once) and `replace`. With `by`, a test's name, that test alone must notice it: so it is shown of every
invariant that it can fall. Every invariant needs such an entry.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

if __package__ in {None, ""}:  # started as a file: the project's folder is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import msgspec

from deploy.contract_copy import ContractCopy
from deploy.tools import ROOT

LISTS: Final = ROOT / "contracts" / "mutants"
ELSEWHERE: Final = {"Signed": "IdentityRegistry", "Names": "IdentityRegistry", "Governed": "MessageLedger"}
"""Whose tests answer for a source that has none of its own."""

_FAILED: Final = re.compile(
    r"^(?:\[FAIL.*\])? (\w+)\(", re.MULTILINE
)  # below its calls, if it is an invariant
_RAN: Final = re.compile(r"[1-9]\d* tests? passed")
_INVARIANT: Final = re.compile(r"function (invariant_\w+)\(")


class Mutant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way to break a contract."""

    contract: str
    claim: str
    find: str
    replace: str
    by: str = ""


def read_mutants() -> list[Mutant]:
    """All that are listed."""
    lists = sorted(LISTS.glob("*.json"))
    return [one for path in lists for one in msgspec.json.decode(path.read_bytes(), type=list[Mutant])]


def unproved(mutants: Iterable[Mutant]) -> list[str]:
    """The invariants that no mutant is there to break."""
    sources = (ROOT / "contracts" / "test" / "invariant").glob("*.t.sol")
    names = {name for path in sources for name in _INVARIANT.findall(path.read_text(encoding="utf-8"))}
    return sorted(names - {mutant.by for mutant in mutants})


class Patient:
    """A copy of the contracts that is broken and mended."""

    def __init__(self, copy: ContractCopy) -> None:
        self._copy = copy

    def survives(self, mutant: Mutant) -> str | None:
        """Why a mutant counts as a failure; None when the tests kill it."""
        path = self._copy.contracts / "src" / f"{mutant.contract}.sol"
        text = path.read_text(encoding="utf-8")
        if text.count(mutant.find) != 1:
            return f"its place stands {text.count(mutant.find)} times in the source"
        path.write_text(text.replace(mutant.find, mutant.replace), encoding="utf-8")
        try:
            # The unit tests nearly always suffice; only a mutant that they miss meets the invariants too.
            own = ELSEWHERE.get(mutant.contract, mutant.contract)
            unit_first = [("--match-path", f"test/{own}/*"), ()]
            for chosen in [("--match-test", rf"^{mutant.by}\(")] if mutant.by else unit_first:
                verdict = self.test(*chosen)
                if verdict is None:
                    return "it does not compile, or no test ran"
                if mutant.by in verdict if mutant.by else verdict:
                    return None
            return "the tests pass"
        finally:
            path.write_text(text, encoding="utf-8")

    def test(self, *chosen: str) -> list[str] | None:
        """The tests that failed, of those that ran until the first did; None when none ran."""
        # The optimizer makes no difference to what is tested here, and compiling without it takes a third.
        run = self._copy.forge("test", "--fail-fast", *chosen, environment={"FOUNDRY_OPTIMIZER": "false"})
        failed = _FAILED.findall(run.stdout)
        # forge ends with 0 when it finds no test, and not with 0 when it cannot compile.
        return failed if failed or (not run.returncode and _RAN.search(run.stdout)) else None


def main() -> int:
    """Try all mutants; fails unless every one is killed."""
    parser = argparse.ArgumentParser(description="Run the contracts' tests against broken contracts.")
    parser.add_argument("--only", default="", metavar="TEXT", help="those whose contract or claim holds this")
    options = parser.parse_args()
    chosen = [one for one in read_mutants() if options.only in f"{one.contract}: {one.claim}"]
    if vain := unproved(read_mutants()):
        print(f"mutants: nothing breaks {', '.join(vain)}", file=sys.stderr)
        return 1
    alive = 0
    with tempfile.TemporaryDirectory() as folder:
        patient = Patient(ContractCopy(Path(folder)))
        if patient.test() != []:
            print("mutants: the tests fail without any mutant; run 'make test'", file=sys.stderr)
            return 1
        for mutant in chosen:
            start = time.monotonic()
            reason = patient.survives(mutant)
            alive += reason is not None
            verdict = "killed" if reason is None else f"ALIVE ({reason})"
            took = time.monotonic() - start
            by = f" ({mutant.by})" if mutant.by else ""
            print(f"{verdict}: {mutant.contract}: {mutant.claim}{by} [{took:.0f} s]", flush=True)
    print(f"{len(chosen) - alive} of {len(chosen)} mutants killed")
    return 1 if alive or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
