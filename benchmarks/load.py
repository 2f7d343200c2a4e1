"""The clients of `relay.py`, all in one process that costs little CPU: raw sockets, frames made beforehand.

    traffic   pairs of a sender and a receiver; each sender keeps so many messages unticked. Everything that
              was ticked must arrive once and in order, else it ends with an error.
    slices    the same for a moment each time that stdin has a line, by some of the pairs
    idle      so many devices log in, stay and answer heartbeats until stdin ends
    waiting   one device logs in, and how long that and its first hundred deliveries take
    stalled   a device that reads nothing is sent more than a relay should queue for it

One JSON object on stdout when the figures stand. Processor time is that of the processes that the parent
names, all their threads, read from /proc until everything is delivered and the database has come to rest.
"""

import argparse
import hashlib
import json
import os
import select
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import msgspec  # noqa: E402

from benchmarks.placing import connections_of  # noqa: E402
from chatchain.client.session import ACKNOWLEDGE_MOST, ACKNOWLEDGE_S  # noqa: E402
from chatchain.identity.login import login_proof, verifier_for  # noqa: E402
from chatchain.model import Copy, Envelope, Network, Suite  # noqa: E402
from chatchain.transport import client_context  # noqa: E402
from chatchain.wire.connection import Connection, Role, frame  # noqa: E402
from chatchain.wire.messages import (  # noqa: E402
    Acknowledge,
    Challenge,
    Login,
    Message,
    Pong,
    Receive,
    Submit,
    Welcome,
)

M = TypeVar("M", bound=Message)

PAYLOAD: Final = 300
HEADER: Final = 156
"""Of a session that is under way in suite 2 (wire.bounds says what is in it)."""

SETTLE_S: Final = 1.0
"""For what the database tidies up after the last message; its processor time counts."""

PATIENCE_S: Final = 60.0

DIALS: Final = 200
"""How often a connection is tried that one of several workers is to have; the kernel gives it to any."""

LOGINS_AT_ONCE: Final = 16

TICK: Final = b"\x92\x22\xc4\x10"
DELIVER: Final = b"\x92\x25\x99"
"""How the payloads of the two frequent frames begin (docs/protocol.md)."""

NUMBER: Final = {0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q"}

LOGIN_KEY: Final = hashlib.sha256(b"the login key of every user of the benchmark").digest()
KDF: Final = bytes(23)
VERIFIER: Final = verifier_for(LOGIN_KEY, KDF)


def signer_of(number: int) -> bytes:
    """The secret key of a user's device."""
    return hashlib.sha256(b"device %d" % number).digest()


CONTEXT: Final = client_context()
"""One for all: making it costs more than a handshake."""


class Site(msgspec.Struct):
    """Where the relay is, and who its users are."""

    port: int
    spki: bytes
    network: Network
    uids: list[int]
    server: list[int]
    """Its process ids."""
    workers: list[int]
    """Those of them that hold connections."""
    database: list[int]


class Client:
    """One logged-in device."""

    def __init__(self, site: Site, number: int, worker: int | None = None) -> None:
        """`worker` is the process that is to hold the connection; if there is none, any does."""
        self.uid = site.uids[number]
        for _ in range(DIALS):
            plain = socket.create_connection(("127.0.0.1", site.port), PATIENCE_S)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket = CONTEXT.wrap_socket(plain)
            if worker is None or (site.port, self.socket.getsockname()[1]) in connections_of(worker):
                break
            self.socket.close()
        else:
            raise SystemExit(f"none of {DIALS} connections came to process {worker}")
        self.left = b""
        self._connection = Connection(Role.CLIENT)
        self._messages: Iterator[Message] = iter(())
        challenge = self._expect(Challenge)
        proof = login_proof(
            site.network,
            spki=site.spki,
            nonce=challenge.nonce,
            uid=self.uid,
            device=1,
            epoch=0,
            login_key=LOGIN_KEY,
            signer=signer_of(number),
        )
        login = Login(self.uid, 1, 0, KDF, proof.login_signature, proof.device_signature)
        self.socket.sendall(self._connection.send(login))
        self.waiting = self._expect(Welcome).waiting

    def _expect(self, kind: type[M]) -> M:
        while True:
            for message in self._messages:
                if not isinstance(message, kind):
                    raise SystemExit(f"{message} instead of {kind.__name__}")
                return message
            data = self.socket.recv(65536)
            if not data:
                raise SystemExit("the relay hung up before the login")
            self._messages = self._connection.receive_data(data)

    def say(self, message: Message) -> None:
        """Sends one message, waiting as long as it takes."""
        self.write(frame(message))

    def write(self, data: bytes) -> None:
        """Sends bytes, waiting as long as it takes."""
        while data:
            try:
                data = data[self.socket.send(data) :]
            except ssl.SSLWantWriteError:
                select.select([], [self.socket], [], PATIENCE_S)

    def frames(self) -> list[bytes]:
        """The payloads that have arrived; heartbeats are answered."""
        data = self.left
        while True:
            try:
                read = self.socket.recv(65536)
            except ssl.SSLWantReadError:
                break
            if not read:
                raise SystemExit("the relay hung up")
            data += read
            if not self.socket.pending():
                break
        found = []
        start, end = 0, len(data)
        while end - start >= 4:
            (length,) = struct.unpack_from(">I", data, start)
            if end - start - 4 < length:
                break
            found.append(data[start + 4 : start + 4 + length])
            start += 4 + length
        self.left = data[start:]
        return found

    def other(self, payload: bytes) -> None:
        """A frame that is neither a tick nor a delivery: a heartbeat, or the end of the measurement."""
        message = msgspec.msgpack.decode(payload, type=list[object])
        if message[0] != 8:
            raise SystemExit(f"the relay said {message}")
        self.say(Pong(int(str(message[1]))))


def sequence_of(payload: bytes) -> int:
    """The sequence in a Deliver frame."""
    first = payload[3]
    return first if first < 0x80 else int(struct.unpack_from(NUMBER[first], payload, 4)[0])


def id_of(payload: bytes) -> bytes:
    """The message id in a Deliver frame."""
    first = payload[3]
    at = 4 + (0 if first < 0x80 else struct.calcsize(NUMBER[first]))
    return payload[at + 2 : at + 18]


def cpu_s(pids: Sequence[int]) -> float:
    """Processor seconds that these processes have used so far."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


# --- traffic ----------------------------------------------------------------------------------------------


class Pair:
    """A sender and its receiver, and what has passed between them.

    Each of several workers holds as many senders and receivers as any other. Of four pairs two cross from one
    worker to another.
    """

    def __init__(self, site: Site, number: int) -> None:
        workers = site.workers
        across = 1 - number // len(workers) % 2
        self.sender = Client(site, 2 * number, workers[number % len(workers)])
        self.receiver = Client(site, 2 * number + 1, workers[(number + across) % len(workers)])
        self.receiver.say(Receive(0))
        for client in (self.sender, self.receiver):
            client.socket.setblocking(False)
        mark = os.urandom(16)
        copies = (Copy(self.receiver.uid, 1, os.urandom(HEADER)),)
        body = os.urandom(PAYLOAD)
        envelope = Envelope(mark, int(Suite.RATCHET), self.receiver.uid, 1, 1, body, copies)
        self._head, _, self._tail = frame(Submit(envelope)).partition(mark)
        self.sent: list[tuple[bytes, float]] = []
        self.ticked = self.arrived = 0
        self.stored: list[int] = []
        self._told_at = 0.0
        self.latencies: list[float] = []
        self.deliveries: list[float] = []

    @property
    def settled(self) -> bool:
        """Whether everything was ticked, delivered and acknowledged."""
        return self.arrived == self.ticked == len(self.sent) and not self.stored

    def begin(self) -> None:
        """Forgets what was sent before, which is settled."""
        self.sent.clear()
        self.ticked = self.arrived = 0

    def send(self, count: int) -> None:
        """So many new messages in one write."""
        now = time.perf_counter()
        ids = os.urandom(16 * count)
        new = [(ids[at : at + 16], now) for at in range(0, 16 * count, 16)]
        self.sent += new
        head, tail = self._head, self._tail
        self.sender.write(b"".join([head + name + tail for name, _ in new]))

    def hear_ticks(self) -> int:
        """Takes in what the sender is told; gives how many messages were ticked."""
        now = time.perf_counter()
        before = self.ticked
        for payload in self.sender.frames():
            if payload.startswith(TICK):
                name, at = self.sent[self.ticked]
                if payload[4:20] != name:
                    raise SystemExit("a tick out of order")
                self.latencies.append(now - at)
                self.ticked += 1
            else:
                self.sender.other(payload)
        return self.ticked - before

    def hear_deliveries(self) -> None:
        """Takes in and acknowledges what the receiver is given."""
        now = time.perf_counter()
        for payload in self.receiver.frames():
            if payload.startswith(DELIVER):
                name, at = self.sent[self.arrived]
                if id_of(payload) != name:
                    raise SystemExit("a delivery out of order, twice, or of something else")
                self.deliveries.append(now - at)
                self.arrived += 1
                self.stored.append(sequence_of(payload))
            else:
                self.receiver.other(payload)
        self.acknowledge(now)

    def acknowledge(self, now: float) -> None:
        """Says what has arrived, as seldom as a client does."""
        if self.stored and (now >= self._told_at + ACKNOWLEDGE_S or len(self.stored) >= ACKNOWLEDGE_MOST):
            self.receiver.say(Acknowledge(tuple(self.stored)))
            self.stored.clear()
            self._told_at = now


class Traffic:
    """Pairs that write at a window, each with so many messages unticked."""

    def __init__(self, site: Site, pairs: range, window: int) -> None:
        self._site = site
        self._window = window
        self._crowd = [Pair(site, number) for number in pairs]
        self._poll = select.epoll()
        self._act: dict[int, tuple[Pair, bool]] = {}
        for pair in self._crowd:
            for client, hear in ((pair.sender, True), (pair.receiver, False)):
                self._poll.register(client.socket.fileno(), select.EPOLLIN)
                self._act[client.socket.fileno()] = pair, hear

    def measure(self, warm_s: float, seconds: float, settle_s: float) -> dict[str, object]:
        """Fills the windows, and counts for so many seconds once so many have passed; at the end it waits."""
        site, crowd = self._site, self._crowd
        for pair in crowd:
            pair.begin()
            pair.send(self._window)
        self._run_until(time.perf_counter() + warm_s, sending=True)
        for pair in crowd:
            pair.latencies.clear()
            pair.deliveries.clear()
        ticked, begun = sum(pair.ticked for pair in crowd), time.perf_counter()
        server, database, own = cpu_s(site.server), cpu_s(site.database), time.process_time()
        self._run_until(begun + seconds, sending=True)
        took, counted = time.perf_counter() - begun, sum(pair.ticked for pair in crowd) - ticked
        self._run_until(time.perf_counter() + PATIENCE_S, sending=False)
        own = time.process_time() - own
        time.sleep(settle_s)
        server, database = cpu_s(site.server) - server, cpu_s(site.database) - database
        everything = sum(pair.ticked for pair in crowd) - ticked
        latencies = sorted(latency for pair in crowd for latency in pair.latencies)
        deliveries = sorted(latency for pair in crowd for latency in pair.deliveries)
        return {
            "msgs_per_s": round(counted / took),
            "server_cpu_us": round(server / everything * 1e6, 1),
            "db_cpu_us": round(database / everything * 1e6, 1),
            "p50_ms": milliseconds(latencies, 0.5),
            "p99_ms": milliseconds(latencies, 0.99),
            "delivered_p50_ms": milliseconds(deliveries, 0.5),
            "delivered_p99_ms": milliseconds(deliveries, 0.99),
            "load_cpu_us": round(own / everything * 1e6, 1),
            "messages": everything,
        }

    def _run_until(self, end: float, *, sending: bool) -> None:
        look_at = 0.0
        while (now := time.perf_counter()) < end:
            if now >= look_at:
                look_at = now + ACKNOWLEDGE_S / 4
                for pair in self._crowd:
                    pair.acknowledge(now)
            for file, _ in self._poll.poll(ACKNOWLEDGE_S / 4):
                pair, ticks = self._act[file]
                if not ticks:
                    pair.hear_deliveries()
                elif (count := pair.hear_ticks()) and sending:
                    pair.send(count)
            if not sending and all(pair.settled for pair in self._crowd):
                return
        if not sending:
            raise SystemExit("not everything was ticked and delivered")


def milliseconds(ordered: Sequence[float], share: float) -> float:
    """A quantile of sorted seconds."""
    return round(ordered[int(share * (len(ordered) - 1))] * 1000, 2)


# --- connections that wait ----------------------------------------------------------------------------------


def idle(site: Site, count: int) -> None:
    """Logs so many devices in, says how fast that went, and stays until stdin ends."""
    poll = select.epoll()
    clients: dict[int, Client] = {}

    def log_in(number: int) -> None:
        client = Client(site, number)
        client.socket.setblocking(False)
        clients[client.socket.fileno()] = client
        poll.register(client.socket.fileno(), select.EPOLLIN)

    def answer() -> None:
        while True:
            for file, _ in poll.poll():
                for payload in clients[file].frames():
                    clients[file].other(payload)

    threading.Thread(target=answer, daemon=True).start()
    server, begun = cpu_s(site.server), time.perf_counter()
    with ThreadPoolExecutor(LOGINS_AT_ONCE) as pool:
        list(pool.map(log_in, range(count)))
    took, server = time.perf_counter() - begun, cpu_s(site.server) - server
    told = {
        "logins_per_s": round(count / took),
        "login_server_cpu_us": round(server / count * 1e6),
        "connections": len(clients),
    }
    print(json.dumps(told), flush=True)
    sys.stdin.read()


def waiting(site: Site, number: int, count: int) -> dict[str, object]:
    """How long one device needs to log in and to get its first deliveries."""
    begun = time.perf_counter()
    client = Client(site, number)
    logged_in = time.perf_counter()
    client.say(Receive(0))
    got = 0
    while got < count:
        got += sum(payload.startswith(DELIVER) for payload in client.frames())
    done = time.perf_counter()
    return {
        "waiting": client.waiting,
        "login_ms": round((logged_in - begun) * 1000, 1),
        "first_100_ms": round((done - begun) * 1000, 1),
    }


def stalled(site: Site, count: int) -> dict[str, object]:
    """How much the server grows by while one device reads nothing of so many messages."""
    pair = Pair(site, 0)
    before = rss_kib(site.server)
    most = 0
    pair.send(50)
    poll = select.epoll()
    poll.register(pair.sender.socket.fileno(), select.EPOLLIN)
    while pair.ticked < count:
        poll.poll(PATIENCE_S)
        ticked = pair.hear_ticks()
        pair.send(min(ticked, count - len(pair.sent)))
        most = max(most, rss_kib(site.server) - before)
    return {"messages": count, "sent_kib": count * (PAYLOAD + HEADER) // 1024, "server_grew_kib": most}


def rss_kib(pids: Sequence[int]) -> int:
    """Resident memory of processes."""
    lines = "".join(Path(f"/proc/{pid}/status").read_text() for pid in pids).splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def main() -> None:
    """Plays one case against the relay that stdin's first line describes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=["traffic", "slices", "idle", "waiting", "stalled"])
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="the number of the first pair")
    parser.add_argument("--window", type=int, default=50)
    parser.add_argument("--warm", type=float, default=3.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--settle", type=float, default=SETTLE_S)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--number", type=int, default=0)
    options = parser.parse_args()
    site = msgspec.json.decode(sys.stdin.readline(), type=Site)
    if options.case == "idle":
        idle(site, options.count)
    elif options.case == "waiting":
        print(json.dumps(waiting(site, options.number, options.count)), flush=True)
    elif options.case == "stalled":
        print(json.dumps(stalled(site, options.count)), flush=True)
    else:
        traffic = Traffic(site, range(options.first, options.first + options.pairs), options.window)
        times = options.warm, options.seconds, options.settle
        if options.case == "traffic":
            print(json.dumps(traffic.measure(*times)), flush=True)
            return
        print(json.dumps({"ready": True}), flush=True)
        for _ in sys.stdin:
            print(json.dumps(traffic.measure(*times)), flush=True)


if __name__ == "__main__":
    main()
