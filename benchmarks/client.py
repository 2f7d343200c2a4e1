"""How quick the client is on a real development network: start-up, one line, many lines, the idle relay.

Prints JSON lines only. Every figure is taken from outside, with the programs that people run: from the start
of a process until the line with the tick stands on its standard output. `s_to_tick` and `s_to_screen` are
medians, `worst_s_to_tick` is the slowest run.

    help         wall seconds of `chatchain --help`, and whether web3 was imported
    send_one     one line to a peer who is online with `receive --follow`
    send_lines   a thousand lines through one `send --lines`, counted in the recipient's database afterwards
    relay_idle   the relay's memory before anybody connects, and after all of this
"""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent

RUNS: Final = 7
LINES: Final = 1000
PATIENCE_S: Final = 120.0
HEAVY: Final = ("web3", "eth_account", "sqlalchemy")
"""What `send`, `receive` and `--help` do without."""

MAIN: Final = "import sys; from chatchain.programs.client import main; main()"


def tell(case: str, **figures: object) -> None:
    """Prints one result."""
    print(json.dumps({"bench": "client", "case": case, **figures}), flush=True)


def devnet(*arguments: str) -> dict[str, Any]:
    """Runs one command of deploy/devnet.py."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "deploy" / "devnet.py"), *arguments],
        stdout=subprocess.PIPE,
        check=True,
        timeout=PATIENCE_S,
    )
    report: dict[str, Any] = json.loads(done.stdout or b"{}")
    return report


class Person:
    """Somebody with a home on the network, whose commands are processes of their own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.home = folder / "homes" / name
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("CHATCHAIN_")},
            "CHATCHAIN_HOME": str(self.home),
            "CHATCHAIN_PASSWORD_FILE": f"{self.home}.password",
            "CHATCHAIN_JSON": "1",
        }

    def start(self, *arguments: str, stdin: IO[bytes] | int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        """Starts one command."""
        return subprocess.Popen(
            [str(Path(sys.executable).with_name("chatchain")), *arguments],
            stdin=stdin,
            stdout=subprocess.PIPE,
            env=self.environment,
        )

    def run(self, *arguments: str) -> list[dict[str, Any]]:
        """Runs one command and gives its JSON lines."""
        process = self.start(*arguments)
        out, _ = process.communicate(timeout=PATIENCE_S)
        if process.returncode:
            raise SystemExit(f"{arguments} ended with {process.returncode}: {out.decode()}")
        return [json.loads(line) for line in out.splitlines()]

    def imports(self, *arguments: str) -> list[str]:
        """Which of the heavy packages one command imports."""
        traced = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", MAIN, *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=True,
            timeout=PATIENCE_S,
        )
        names = {
            line.rpartition("|")[2].strip().split(".")[0] for line in traced.stderr.decode().splitlines()
        }
        return sorted(names & set(HEAVY))


class Follower:
    """A person's `receive --follow`, and when each text came to its screen."""

    def __init__(self, person: Person) -> None:
        self._process = person.start("receive", "--follow")
        self._seen: dict[str, float] = {}
        self._news = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self._seen[json.loads(line)["text"]] = time.perf_counter()
                self._news.notify_all()

    def time_of(self, text: str) -> float:
        """When a text was shown; waits for it."""
        with self._news:
            if not self._news.wait_for(lambda: text in self._seen, PATIENCE_S):
                raise SystemExit(f"{text!r} never came to the recipient's screen")
            return self._seen[text]

    def end(self) -> None:
        """Ends it as Ctrl-C does."""
        self._process.terminate()
        self._process.wait(PATIENCE_S)


@contextlib.contextmanager
def following(person: Person) -> Iterator[Follower]:
    """Somebody who is online for the length of a block."""
    follower = Follower(person)
    try:
        yield follower
    finally:
        follower.end()


def rss_mib(pid: int) -> float:
    """What a process and its children hold in memory."""
    total, waiting = 0, [pid]
    while waiting:
        current = waiting.pop()
        folder = Path(f"/proc/{current}")
        for line in (folder / "status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1])
        for task in (folder / "task").iterdir():
            waiting += [int(child) for child in (task / "children").read_text().split()]
    return round(total / 1024, 1)


def bench_help(person: Person) -> None:
    """The start that every command pays for."""
    walls = []
    for _ in range(RUNS):
        start = time.perf_counter()
        person.start("--help").communicate(timeout=PATIENCE_S)
        walls.append(time.perf_counter() - start)
    imported = person.imports("--help")
    tell("help", s=round(statistics.median(walls), 3), worst_s=round(max(walls), 3), web3="web3" in imported)


def bench_send_one(ada: Person, bob: Person) -> None:
    """One line to somebody who is online."""
    to_tick, to_screen = [], []
    with following(bob) as follower:
        ada.run("send", "bob", "warm")
        follower.time_of("warm")
        for number in range(RUNS):
            text = f"one line, {number}"
            start = time.perf_counter()
            process = ada.start("send", "bob", text)
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            to_tick.append(time.perf_counter() - start)
            if told.get("state") != "sent":
                raise SystemExit(f"no tick: {told}")
            process.communicate(timeout=PATIENCE_S)
            to_screen.append(follower.time_of(text) - start)
        sending = ada.imports("send", "bob", "traced")
    receiving = bob.imports("receive")
    tell(
        "send_one",
        s_to_tick=round(statistics.median(to_tick), 3),
        worst_s_to_tick=round(max(to_tick), 3),
        s_to_screen=round(statistics.median(to_screen), 3),
        heavy_imports=sorted({*sending, *receiving}),
    )


def bench_send_lines(ada: Person, bob: Person, folder: Path) -> None:
    """A thousand lines, all on disk at the other side."""
    texts = [f"line {number} of {LINES}" for number in range(LINES)]
    source = folder / "lines.txt"
    source.write_text("\n".join(texts) + "\n")
    with following(bob) as follower:
        ada.run("send", "bob", "warm again")
        follower.time_of("warm again")
        with source.open("rb") as lines:
            start = time.perf_counter()
            process = ada.start("send", "bob", "--lines", stdin=lines)
            assert process.stdout is not None
            times = [(time.perf_counter(), json.loads(line)["state"]) for line in process.stdout]
            process.wait(PATIENCE_S)
        shown = follower.time_of(texts[-1])
    ticked = [moment for moment, state in times if state == "sent"]
    if len(ticked) != LINES:
        raise SystemExit(f"{len(ticked)} of {LINES} lines were ticked")
    kept = [message["text"] for message in bob.run("history", "ada", "--limit", str(2 * LINES))]
    on_disk = [text for text in kept if text in set(texts)]
    tell(
        "send_lines",
        lines=LINES,
        per_s=round(LINES / (ticked[-1] - start), 1),
        per_s_once_started=round((LINES - 1) / max(ticked[-1] - ticked[0], 1e-9), 1),
        s_to_last_on_screen=round(shown - start, 3),
        on_disk=len(on_disk),
        in_order=on_disk == texts,
    )


def main(_: Sequence[str]) -> None:
    """Runs every case on a network of its own."""
    folder = Path(tempfile.mkdtemp(prefix="chatchain-bench-"))
    try:
        report = devnet(
            "up", "--dir", str(folder), "--members", "ada,bob", "--port", "0", "--relay-port", "0"
        )
        relay = int(report["pids"]["relay"])
        time.sleep(1.0)
        before = rss_mib(relay)
        ada, bob = Person(folder, "ada"), Person(folder, "bob")
        bench_help(ada)
        bench_send_one(ada, bob)
        bench_send_lines(ada, bob, folder)
        tell("relay_idle", rss_mib=before, after_rss_mib=rss_mib(relay))
    finally:
        with contextlib.suppress(subprocess.SubprocessError):
            devnet("down", "--dir", str(folder))
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
