"""What the relay counts, and the few lines of HTTP that show it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

REQUEST_SECONDS: Final = 5.0
REQUEST_LINES: Final = 64
AT_ONCE: Final = 32
"""Connections that are answered: more would take files from those whom the relay is for."""

SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

Health = Callable[[], dict[str, object]]
"""Gives what /health and /ready show; `ok` says whether the relay can do its work, and `accepting` whether it
takes connections.
"""


class Metrics:
    """The relay's counters. No label names a user or an address."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.ticks = self._counter("messages_stored", "Envelopes committed")
        self.repeats = self._counter("messages_repeated", "Envelopes that were committed before")
        self.refusals = self._counter("messages_refused", "Envelopes refused", ("code",))
        self.deliveries = self._counter("deliveries", "Deliveries sent to devices")
        self.acknowledged = self._counter("deliveries_acknowledged", "Deliveries acknowledged by devices")
        self.dropped = self._counter("deliveries_dropped", "Deliveries that nobody fetched in time")
        self.logins = self._counter("logins", "Logins", ("outcome",))
        self.sponsored = self._counter("sponsored", "Calls asked of the sponsor", ("outcome",))
        self.violations = self._counter("violations", "Connections closed for breaking the protocol")
        self.signals = self._counter("signals", "Signals for devices", ("outcome",))
        self.files = self._counter("files", "Uploads and downloads of files", ("outcome",))
        self.files_moving = self._gauge("files_moving", "Connections that move files")
        self.files_waiting = self._gauge("files_waiting", "Connections that wait for their turn with a file")
        self.file_bytes = self._counter("file_bytes", "Bytes of files", ("direction",))
        self.wakes = self._counter("wakes", "Calls between the processes of this relay", ("outcome",))
        self.handovers = self._counter("handovers", "Messages between the workers of a machine", ("outcome",))
        self.looks = self._counter("looks", "Looks for whom others have stored something")
        self.nodes = Gauge(
            "chatchain_nodes", "Processes on this database, this one included", registry=self.registry
        )
        self.nodes.set(1)
        self.connections = Gauge("chatchain_connections", "Open connections", registry=self.registry)
        self.head = Gauge(
            "chatchain_chain_head", "Block up to which the chain was read", registry=self.registry
        )
        self.clock_ahead = self._gauge(
            "clock_ahead_seconds", "By how much the clock is ahead of chain and database"
        )
        self.unsettled = self._gauge("sponsor_unsettled", "Transactions that were sent and are not mined")
        self.sponsor_stalled = self._gauge("sponsor_stalled", "Whether nothing that was sent is mined")
        self.sessions = self._gauge("sessions", "Connections that are logged in")
        self.held = self._gauge(
            "connections_held", "Connections not read from until what they sent is stored"
        )
        self.read = self._gauge("read_bytes", "What was read since the last commit and stays in memory")
        self.unread = self._gauge("connections_unread", "Connections that wait for a commit to be read from")
        self.unfinished = self._gauge("unfinished_bytes", "Bytes of frames that have begun")
        self.queued = self._gauge("queued_bytes", "Bytes of envelopes that wait for their commit")
        self.commit = self._seconds("commit", "From the oldest envelope of a commit to its tick")
        self.tick_lag = self._seconds("tick_lag", "From the end of a commit to the ticks of its envelopes")
        self.batch = Histogram(
            "chatchain_commit_messages",
            "Envelopes in one commit",
            buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000),
            registry=self.registry,
        )

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"chatchain_{name}", text, registry=self.registry)

    def _seconds(self, name: str, text: str) -> Histogram:
        return Histogram(f"chatchain_{name}_seconds", text, buckets=SECONDS, registry=self.registry)

    def _counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(f"chatchain_{name}", text, labels, registry=self.registry)


async def serve(host: str, port: int, metrics: Metrics, health: Health) -> asyncio.Server:
    """Answers GET /health, /ready and /metrics on this address until the server is closed."""

    answering = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answering
        if answering >= AT_ONCE:
            writer.transport.abort()
            return
        answering += 1
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                status, kind, body = _page(await _target(reader), metrics, health)
                head = (
                    f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
                    "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
                )
                writer.write(head.encode() + body)
                await writer.drain()
        except (OSError, ValueError, asyncio.IncompleteReadError):  # TimeoutError is an OSError
            pass
        finally:
            answering -= 1
            writer.close()

    return await asyncio.start_server(answer, host, port, limit=8 * 1024)


async def _target(reader: asyncio.StreamReader) -> str:
    """The path that is asked for; the headers are read and ignored."""
    request = (await reader.readline()).decode("latin-1").split()
    for _ in range(REQUEST_LINES):
        if not (await reader.readline()).strip():
            break
    return request[1] if len(request) == 3 and request[0] == "GET" else ""


def _page(target: str, metrics: Metrics, health: Health) -> tuple[str, str, bytes]:
    if target in ("/health", "/ready"):
        state = health()
        good = state.get("ok") and (target == "/health" or state.get("accepting"))
        status = "200 OK" if good else "503 Service Unavailable"
        return status, "application/json", json.dumps(state).encode() + b"\n"
    if target == "/metrics":
        return "200 OK", "text/plain; version=0.0.4; charset=utf-8", generate_latest(metrics.registry)
    return "404 Not Found", "text/plain", b"/health, /ready or /metrics\n"
