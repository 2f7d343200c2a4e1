"""How much a relay carries: the real server over real TLS with a real MariaDB, clients in another process.

Prints JSON lines only. All users are registered on a local Anvil, whose history the relay reads as it would
any chain's; each case starts a fresh server on the same database. Messages have a payload of 300 bytes and a
header as long as suite 2's, random ids, one receiving device. The server's limits stand far above the load.

    window_50, window_1    ten pairs, each sender with so many messages unticked. `server_cpu_us` and
                           `db_cpu_us` are processor time a message, of the whole way: submitted, committed,
                           ticked, delivered, acknowledged, deleted. `p50_ms` and `p99_ms` are from submission
                           to tick, which follows the commit; `delivered_…` to the receiver's hands.
    workers_2              window 50 with two server processes on two cores, and how many times it is what
                           one does on one core (below; `one_…`); medians of several rounds. Of the two load
                           processes `p50_ms` is the mean and `p99_ms` the higher one
    idle_2000, idle_10000  logged-in devices that say nothing: resident memory each, and logins a second
    waiting_1m             a mailbox of a million messages: login, and the first hundred of them
    file_25mb              a file up and down, kept in a folder on this disk, and what a message waits for its
                           tick meanwhile (files.py)
    stalled_reader         how much the server grows by while a device takes nothing of what it is sent

workers_2 compares two workers on two cores with one on one. Each core has a worker, the database's threads
for its connections, and a load process with half the pairs; the pairs are spread evenly over the workers,
three fifths of them across (twenty connections that the kernel spreads are rarely level). The load is counted
out: what the others would do if they had the cores to themselves (`alone_msgs_per_s`) is what they did, times
2 / (2 - the cores that the load used). The one has its core to itself, with all of the
database, and the load on the other one.

    times_one              two workers so, by one worker so
    times_one_by_cpu       by processor time alone: twice what a message costs the one, by what it costs the
                           two; what they would do if nothing but processor time held them up
    unplaced_two_times_one, unplaced_one_times_one
                           two workers, and one, on both cores as the kernel places their threads and those of
                           the database, by the same one worker on its core; one uses more than a core

Both relays have users and a database of their own and are there at the same time; a round takes the four in
turn for a second each, so that they meet the machine in much the same moment. It has its own ratios;
`rounds` has them all, behind what two busy cores did to one at the time, which is the most that a second
worker could bring.

`machine` says how fast the machine was before and after a case (machine.py): two figures can be compared
only as far as these agree.

MariaDB runs with innodb_flush_log_at_trx_commit=1 and its doublewrite buffer, as it always should.
"""

import argparse
import contextlib
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import msgspec  # noqa: E402
import pymysql  # noqa: E402

from benchmarks.load import HEADER, KDF, PAYLOAD, VERIFIER, Site, rss_kib, signer_of  # noqa: E402
from benchmarks.machine import pace  # noqa: E402
from benchmarks.placing import bind, children_of, connections_of, threads_of  # noqa: E402
from chatchain.chain.calls import Calls  # noqa: E402
from chatchain.chain.rpc import Request, Rpc, hexed  # noqa: E402
from chatchain.identity.keys import NOBODY, address_of, to_checksum  # noqa: E402
from chatchain.model import Copy, Envelope, Network, RelayAddress  # noqa: E402
from chatchain.wire.connection import LENGTH  # noqa: E402
from chatchain.wire.parcels import parcel  # noqa: E402
from deploy import certificates  # noqa: E402
from deploy.deployer import Deployer, Rules  # noqa: E402
from tests.fixtures.anvil import start_anvil  # noqa: E402
from tests.fixtures.chains import DevChain  # noqa: E402
from tests.fixtures.mariadb import MariaDB  # noqa: E402
from tests.fixtures.processes import Process, free_port  # noqa: E402

PER_BLOCK: Final = 200
RECORD_BYTES: Final = 227
PAIRS: Final = 10
CROWD: Final = 10_000
MAILBOX: Final = 1_000_000
PATIENCE_S: Final = 300.0
ROUNDS: Final = 32
SLICE_WARM_S: Final = 0.3
SLICE_S: Final = 1.0
SLICE_SETTLE_S: Final = 0.3

LIMITS: Final = (
    "messages_per_second=1000000,message_burst=1000000,mailbox_messages=10000000,mailbox_mib=100000,"
    "sender_messages=10000000,sender_mib=100000,address_logins_per_minute=1000000,connections=20000"
)
"""Far above the load: ten accounts of one address send here what a whole network would."""

DATABASE: Final = ("--innodb-buffer-pool-size=2G", "--innodb-log-file-size=1G")
"""Room for the ids of all that is sent here, as docs/operations.md recommends: some million in a minute."""


class Bench:
    """A chain, a database and users; `serving` starts a relay between them."""

    def __init__(self, folder: Path, chain: DevChain, database: MariaDB) -> None:
        self.folder = folder
        self.database = database
        self.url = database.new_database()
        self.chain = chain
        deployer = Deployer(chain.url, bytes.fromhex(chain.keys[0][2:]))
        self.network: Network = deployer.deploy(Rules()).network
        self.pair = certificates.make(folder / "certificates")
        self.port = free_port()
        relay = RelayAddress(f"127.0.0.1:{self.port}", self.pair.spki, bytes(32))
        deployer.set_relays(self.network, (relay,))
        self._runs = 0

    def register(self, users: int) -> None:
        """Registers user-0, user-1 and so on, each from an account that Anvil lets act without a key."""
        rpc, calls = Rpc(self.chain.url), Calls()
        rpc.call("anvil_autoImpersonateAccount", True)
        rpc.call("evm_setAutomine", False)
        for start in range(0, users, PER_BLOCK):
            requests = []
            for number in range(start, min(start + PER_BLOCK, users)):
                signer = address_of(signer_of(number))
                record = secrets.token_bytes(RECORD_BYTES)
                call = calls.register(f"user-{number}", VERIFIER, KDF, NOBODY, signer, record)
                transaction = {
                    "from": hexed(secrets.token_bytes(20)),
                    "to": hexed(self.network.registry),
                    "data": hexed(call.data),
                    "gas": hex(400_000),
                    "gasPrice": "0x0",
                }
                requests.append(Request("eth_sendTransaction", (transaction,)))
            rpc.batch(requests)
            rpc.call("evm_mine")
        rpc.call("evm_setAutomine", True)

    @contextlib.contextmanager
    def serving(self, *more: str) -> Iterator[Site]:
        """A fresh server on the database."""
        self._runs += 1
        log = self.folder / f"relay-{self._runs}.log"
        environment = (f"PATH={os.environ['PATH']}", f"HOME={self.folder}", f"RELAY_LIMITS={LIMITS}")
        process = Process(
            [
                *("/usr/bin/env", "-C", str(self.folder), "-i", *environment),
                *(sys.executable, str(ROOT / "server.py")),
                *("--port", str(self.port), "--db", self.url, "--rpc", self.chain.url),
                *("--directory", to_checksum(self.network.directory)),
                *("--cert", str(self.pair.certificate), "--key", str(self.pair.key), *more),
            ],
            log,
        )
        try:
            process.wait_until(lambda: "Server is running on" in log.read_text(), PATIENCE_S)
            workers = children_of(process.pid)
            yield Site(
                self.port,
                self.pair.spki,
                self.network,
                self.uids(),
                [process.pid, *workers],
                workers or [process.pid],
                [self.database.process.pid],
            )
        finally:
            process.stop()

    def uids(self) -> list[int]:
        """The users' ids, in the order of their names' numbers."""
        with self.connected() as cursor:
            cursor.execute("SELECT username, uid FROM users")
            found = {str(name): int(uid) for name, uid in cursor.fetchall()}
        return [found[f"user-{number}"] for number in range(len(found))]

    def threads_for(self, processes: Sequence[int]) -> dict[int, list[int]]:
        """For each of these processes the database's threads that serve its connections."""
        port = self.database.port
        whose = {ours: pid for pid in processes for ours, theirs in connections_of(pid) if theirs == port}
        found: dict[int, list[int]] = {pid: [] for pid in processes}
        with self.connected() as cursor:
            cursor.execute("SELECT TID, HOST FROM information_schema.PROCESSLIST")
            for thread, host in cursor.fetchall():
                caller = str(host).partition(":")[2]
                if caller and (pid := whose.get(int(caller))) is not None:
                    found[pid].append(int(thread))
        return found

    @contextlib.contextmanager
    def connected(self) -> "Iterator[pymysql.cursors.Cursor]":
        """A connection of the benchmark's own to the relay's database."""
        login, _, place = self.url.removeprefix("mysql+pymysql://").partition("@")
        user, password = login.split(":")
        connection = pymysql.connect(
            host="127.0.0.1",
            port=self.database.port,
            user=user,
            password=password,
            database=place.partition("/")[2],
            autocommit=True,
        )
        with connection, connection.cursor() as cursor:
            yield cursor


@contextlib.contextmanager
def loading(site: Site, *arguments: str, program: str = "load.py") -> "Iterator[subprocess.Popen[bytes]]":
    """The load process of one case; its first line of output is its figures."""
    child = subprocess.Popen(
        [sys.executable, str(ROOT / "benchmarks" / program), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert child.stdin is not None
        child.stdin.write(msgspec.json.encode(site) + b"\n")
        child.stdin.flush()
        yield child
    finally:
        assert child.stdin is not None
        child.stdin.close()
        child.wait(PATIENCE_S)


def figures_of(child: "subprocess.Popen[bytes]") -> dict[str, Any]:
    """What a load process has found."""
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise SystemExit("the load process ended without figures")
    told: dict[str, Any] = json.loads(line)
    return told


# --- the cases --------------------------------------------------------------------------------------------


def window(bench: Bench, size: int, seconds: float) -> dict[str, Any]:
    """Traffic at a window."""
    traffic = "traffic", "--pairs", str(PAIRS), "--window", str(size), "--seconds", str(seconds)
    with bench.serving() as site, loading(site, *traffic) as child:
        return figures_of(child)


class Rig:
    """A relay and a load process for each worker: traffic at window 50 for a slice of time when told."""

    def __init__(self, bench: Bench, site: Site, children: "Sequence[subprocess.Popen[bytes]]") -> None:
        self._bench = bench
        self._site = site
        self._children = children
        for child in children:
            figures_of(child)  # all are logged in

    def slice(self, *shares: set[int], load: set[int] | None = None) -> dict[str, float]:
        """What came of one slice, each worker and what is its own on a share of the cores, its load process
        as well if that has no others.

        `alone_msgs_per_s` is the rate if the load processes took nothing of these cores.
        """
        cores = set.union(*shares)
        for pid in (*self._site.server, *self._site.database):
            bind(threads_of(pid), cores)
        serving = self._bench.threads_for(self._site.workers)
        for worker, child, share in zip(self._site.workers, self._children, shares, strict=True):
            bind([*threads_of(worker), *serving[worker]], share)
            bind(threads_of(child.pid), load or share)
        for child in self._children:
            assert child.stdin is not None
            child.stdin.write(b"go\n")
            child.stdin.flush()
        told = [figures_of(child) for child in self._children]
        messages = sum(each["messages"] for each in told)

        def shares_of(key: str) -> list[float]:
            return [each[key] * each["messages"] / messages for each in told]

        rate, load_us = sum(each["msgs_per_s"] for each in told), sum(shares_of("load_cpu_us"))
        taken = 0 if load else rate * load_us / 1e6
        return {
            "msgs_per_s": rate,
            "alone_msgs_per_s": rate * len(cores) / (len(cores) - taken),
            # Each load process has seen what all messages cost.
            "server_cpu_us": statistics.mean(shares_of("server_cpu_us")),
            "db_cpu_us": statistics.mean(shares_of("db_cpu_us")),
            "load_cpu_us": load_us,
            "p50_ms": statistics.mean(each["p50_ms"] for each in told),
            "p99_ms": max(each["p99_ms"] for each in told),
        }


@contextlib.contextmanager
def rig(bench: Bench, count: int) -> Iterator[Rig]:
    """A relay of so many workers."""
    times = "--warm", str(SLICE_WARM_S), "--seconds", str(SLICE_S), "--settle", str(SLICE_SETTLE_S)
    share = PAIRS // count
    with contextlib.ExitStack() as stack:
        site = stack.enter_context(bench.serving(*(("--workers", str(count)) if count > 1 else ())))
        loads = [("slices", "--first", str(share * which), "--pairs", str(share)) for which in range(count)]
        yield Rig(bench, site, [stack.enter_context(loading(site, *load, *times)) for load in loads])


def workers(bench: Bench, rounds: int) -> dict[str, Any]:
    """Two workers on two cores and one on one, and both as the kernel places them: a slice each in turn."""
    first, second = sorted(os.sched_getaffinity(0))[:2]
    both = {first, second}
    beside = Bench(bench.folder / "beside", bench.chain, bench.database)
    beside.register(2 * PAIRS)
    twos, ones, ratios = [], [], []
    with contextlib.ExitStack() as stack:
        pair, single = stack.enter_context(rig(bench, 2)), stack.enter_context(rig(beside, 1))
        for number in range(rounds):
            core = (first, second)[number // 2 % 2]  # they are not equally fast
            takes = {
                "two": partial(pair.slice, {first}, {second}),
                "one": partial(single.slice, {core}, load=both - {core}),
                "unplaced_two": partial(pair.slice, both, both),
                "unplaced_one": partial(single.slice, both),
            }
            turn = list(takes)[:: 1 if number % 2 else -1]  # what comes later meets an older database
            told = {name: takes[name]() for name in turn}
            two, one = told["two"], told["one"]
            machine = pace()
            twos.append(two)
            ones.append({f"one_{key}": figure for key, figure in one.items() if key != "alone_msgs_per_s"})
            ratios.append(
                {
                    "machine_times_one": machine["two_cores"] / machine["one_core"],
                    "times_one": two["alone_msgs_per_s"] / one["alone_msgs_per_s"],
                    "times_one_by_cpu": 2 * spent(one) / spent(two),
                    **{
                        f"{name}_times_one": told[name]["alone_msgs_per_s"] / one["alone_msgs_per_s"]
                        for name in ("unplaced_two", "unplaced_one")
                    },
                }
            )
        bind(threads_of(bench.database.process.pid), os.sched_getaffinity(0))
    return {
        **medians(twos, 1),
        **medians(ones, 1),
        **medians(ratios, 2),
        "rounds": sorted([round(ratio, 2) for ratio in told.values()] for told in ratios),
    }


def spent(told: dict[str, float]) -> float:
    """Processor time a message."""
    return told["server_cpu_us"] + told["db_cpu_us"]


def medians(rounds: "list[dict[str, Any]]", digits: int) -> dict[str, float]:
    """Of each figure the median over the rounds."""
    return {key: round(statistics.median(told[key] for told in rounds), digits) for key in rounds[0]}


def idle(bench: Bench, count: int) -> dict[str, Any]:
    """Devices that log in and say nothing."""
    with bench.serving() as site:
        before = rss_kib(site.server)
        with loading(site, "idle", "--count", str(count)) as child:
            told = figures_of(child)
            return {"rss_kib_each": round((rss_kib(site.server) - before) / count, 1), **told}


def stalled(bench: Bench) -> dict[str, Any]:
    """A device that takes nothing of what it is sent."""
    with bench.serving() as site, loading(site, "stalled", "--count", "20000") as child:
        return figures_of(child)


def files(bench: Bench) -> dict[str, Any]:
    """A file of 25 MB, up and down."""
    with bench.serving() as site, loading(site, program="files.py") as child:
        return figures_of(child)


def waiting(bench: Bench, count: int) -> dict[str, Any]:
    """A mailbox of very many messages, and what looking into it costs."""
    number = 2 * PAIRS
    with bench.serving() as site:
        pass
    fill(bench, site.uids[number], site.uids[0], count)
    with bench.serving() as site:
        before = rss_kib(site.server)
        with loading(site, "waiting", "--number", str(number), "--count", "100") as child:
            told = figures_of(child)
            grown = rss_kib(site.server) - before
    return {**told, "rss_mib_before": round(before / 1024), "rss_grown_mib": round(grown / 1024, 1)}


def fill(bench: Bench, uid: int, sender: int, count: int) -> None:
    """Puts messages into a mailbox as the relay's own statement would, without a sender for each."""
    with bench.connected() as cursor:
        cursor.execute("SELECT value FROM counters WHERE name = 'sequence'")
        row = cursor.fetchone()
        assert row is not None
        (last,) = row
        copy = Copy(uid, 1, secrets.token_bytes(HEADER))
        envelope = Envelope(secrets.token_bytes(16), 2, uid, 1, 1, secrets.token_bytes(PAYLOAD), (copy,))
        now_ms = time.time_ns() // 10**6
        given = parcel(envelope, copy, sender, 1, now_ms)
        cursor.execute("UPDATE counters SET value = value + %s WHERE name = 'sequence'", (count,))
        cursor.execute(
            "INSERT INTO mail (uid, device, last, sender, messages, size, received_ms, content) "
            "SELECT %s, 1, %s + seq, %s, 1, %s, %s, _binary %s FROM seq_1_to_1000000 LIMIT %s",
            (uid, last, sender, len(given), now_ms, LENGTH.pack(len(given)) + given, count),
        )


def main() -> None:
    """Prepares what all cases need, and measures them one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", help="a case; may be repeated")
    parser.add_argument("--seconds", type=float, default=10.0, help="of traffic in window_50 and window_1")
    options = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("This needs two processors, one of them for the load.")
    cases: dict[str, Callable[[Bench], dict[str, Any]]] = {
        "window_50": lambda bench: window(bench, 50, options.seconds),
        "window_1": lambda bench: window(bench, 1, options.seconds),
        "workers_2": lambda bench: workers(bench, ROUNDS),
        "idle_2000": lambda bench: idle(bench, 2000),
        "idle_10000": lambda bench: idle(bench, CROWD),
        "stalled_reader": stalled,
        "file_25mb": files,
        "waiting_1m": lambda bench: waiting(bench, MAILBOX),
    }
    chosen = options.only or list(cases)
    users = CROWD if "idle_10000" in chosen else 2000 if "idle_2000" in chosen else 2 * PAIRS + 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chain = start_anvil(folder, "--block-base-fee-per-gas", "0", "--gas-limit", "1000000000")
        try:
            database = MariaDB(folder, *DATABASE)
            try:
                bench = Bench(folder, chain, database)
                bench.register(users)
                for case in chosen:
                    before = pace()
                    told = {"bench": "relay", "case": case, **cases[case](bench)}
                    print(json.dumps({**told, "machine": [before, pace()]}), flush=True)
            finally:
                database.stop()
        finally:
            chain.process.stop()


if __name__ == "__main__":
    main()
