"""What an operator relies on: readiness, the service manager's signs, new certificates, proxies, the log."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from chatchain.model import RelayAddress
from chatchain.relay import metrics as pages
from chatchain.transport import client_context, dial, spki_of
from chatchain.wire.messages import Submit, Tick, Welcome
from deploy import certificates
from tests.fixtures.chains import DevChain
from tests.fixtures.mariadb import MariaDB
from tests.integration.faults.load import gauges
from tests.relay.stage import ROOT, Device, Stage
from tests.wire.test_proxy import header


@pytest.fixture(scope="module")
def stage(anvil: DevChain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A network, and a relay that no test has started yet."""
    folder = tmp_path_factory.mktemp("operation")
    made = Stage(anvil, folder, f"sqlite:///{folder / 'relay.db'}")
    yield made
    made.stop()


def page(port: int, path: str) -> tuple[int, str]:
    """Status and text of a page of the metrics port."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def shown(port: int) -> bytes:
    """The hash of the key that a relay shows to a new connection."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        client_context().wrap_socket(plain) as secured,
    ):
        certificate = secured.getpeercert(binary_form=True)
        assert certificate is not None
        return spki_of(certificate)


def until(holds: Callable[[], bool]) -> None:
    """Waits for something that is about to happen."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def events(stage: Stage, name: str) -> list[dict[str, object]]:
    """The log's lines about something."""
    lines = (line for line in stage.log.read_text().splitlines() if line.startswith("{"))
    return [found for line in lines if (found := json.loads(line))["event"] == name]


def explained() -> set[str]:
    """The metrics of the table in docs/operations.md."""
    return set(
        re.findall(r"`(chatchain_[a-z_]+)(?:\{\w+\})?`", (ROOT / "docs" / "operations.md").read_text())
    )


def name_of(family: Metric) -> str:
    """How a family is asked for: a counter's only sample ends in _total."""
    return f"{family.name}_total" if family.type == "counter" else family.name


async def test_metrics_tell_how_long_a_message_takes(stage: Stage) -> None:
    """Commits, ticks, batches and what waits; /ready beside /health."""
    process = stage.start()
    assert page(stage.metrics_port, "/health")[0] == page(stage.metrics_port, "/ready")[0] == 200
    ada = stage.register("metricada")
    device = await Device(stage, ada).begin()
    assert isinstance(await device.send(ada), Tick)
    text = page(stage.metrics_port, "/metrics")[1]
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    for name, least in {
        "chatchain_commit_seconds_count": 1,
        "chatchain_commit_seconds_sum": 0.0001,
        "chatchain_tick_lag_seconds_count": 1,
        "chatchain_commit_messages_count": 1,
        "chatchain_messages_stored_total": 1,
        "chatchain_sessions": 1,
        "chatchain_connections": 1,
        "chatchain_nodes": 1,
    }.items():
        assert float(values[name]) >= least, name
    assert float(values["chatchain_queued_bytes"]) == float(values["chatchain_connections_held"]) == 0
    assert str(ada.uid) not in text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert all(family.documentation and family.type != "unknown" for family in families.values())
    shown = {name_of(family) for name, family in families.items() if not name.endswith("_created")}
    assert explained() == shown
    await device.close()
    process.stop()


async def test_metrics_show_what_waits_and_what_was_committed_together(stage: Stage) -> None:
    """While somebody else has the database's lock, and afterwards."""
    process = stage.start()
    ada = stage.register("waitingada")
    device = await Device(stage, ada).connect()
    before = await gauges(stage)
    with contextlib.closing(sqlite3.connect(stage.folder / "relay.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for _ in range(20):
            await device.say(Submit(device.envelope(ada, bytes(1_000))))
        async with asyncio.timeout(60):
            while (await gauges(stage))["chatchain_queued_bytes"] < 20 * 1_000:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        assert (await gauges(stage))["chatchain_messages_stored_total"] == before.get(
            "chatchain_messages_stored_total", 0
        )
        other.execute("ROLLBACK")
    for _ in range(20):
        await device.expect(Tick)
    after = await gauges(stage)
    more = {name: after[name] - before.get(name, 0) for name in after}
    assert after["chatchain_queued_bytes"] == 0
    assert more["chatchain_messages_stored_total"] == more["chatchain_commit_messages_sum"] == 20
    commits = more["chatchain_commit_messages_count"]
    assert 1 <= commits < 20, "one commit for all that waits"
    assert more["chatchain_commit_seconds_count"] == more["chatchain_tick_lag_seconds_count"] == commits
    assert more["chatchain_commit_seconds_sum"] > 0.5, "they waited for so long"
    assert more["chatchain_commit_seconds_sum"] > more["chatchain_tick_lag_seconds_sum"] > 0
    await device.close()
    process.stop()


@pytest.mark.parametrize("workers", [1, 2])
def test_the_service_manager_hears_of_start_life_and_end(
    stage: Stage, tmp_path: Path, mariadb: MariaDB, workers: int
) -> None:
    """READY=1 once connections are accepted, WATCHDOG=1 while it lives, STOPPING=1 when it drains."""
    heard: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)

        def hears(state: bytes) -> bool:
            while True:
                try:
                    heard.append(manager.recv(1024))
                except BlockingIOError:
                    return state in heard

        stage.environment |= {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "3000000"}
        try:
            process = stage.start("--workers", str(workers), "--db", mariadb.new_database())
        finally:
            del stage.environment["NOTIFY_SOCKET"], stage.environment["WATCHDOG_USEC"]
        until(lambda: hears(b"READY=1"))
        until(lambda: hears(b"WATCHDOG=1"))
        assert b"STOPPING=1" not in heard
        process._child.terminate()
        assert process._child.wait(60) == 0
        assert hears(b"STOPPING=1")
    assert heard.count(b"READY=1") == heard.count(b"STOPPING=1") == 1


async def test_a_new_certificate_is_shown_after_sighup_once_the_chain_names_it(
    stage: Stage, tmp_path: Path
) -> None:
    """Connections stay, also one without a login yet; a pair that clients would refuse is not taken."""
    old, new = stage.pair, certificates.make(tmp_path / "new")
    files = ("--cert", str(tmp_path / "relay.pem"), "--key", str(tmp_path / "relay.key"))

    def lay(pair: certificates.Pair) -> None:
        shutil.copy(pair.certificate, tmp_path / "relay.pem")
        shutil.copy(pair.key, tmp_path / "relay.key")

    lay(old)
    process = stage.start(*files)
    ada = stage.register("renewada")
    before = await Device(stage, ada).begin()

    lay(new)
    os.kill(process.pid, signal.SIGHUP)
    until(lambda: len(events(stage, "certificate kept")) == 1)
    assert await asyncio.to_thread(shown, stage.port) == old.spki, "the Directory does not name it"

    named = (RelayAddress(f"127.0.0.1:{stage.port}", old.spki, new.spki),)
    stage.world.deployer.set_relays(stage.world.network, named)
    (tmp_path / "relay.key").write_text("half a file")
    os.kill(process.pid, signal.SIGHUP)
    until(lambda: len(events(stage, "certificate kept")) == 2)
    assert await asyncio.to_thread(shown, stage.port) == old.spki, "it cannot be read"

    lay(new)
    guest = Device(stage, stage.register("renewguest"))
    stage.relays = named
    guest.link = await dial(stage.relays)  # not earlier: a stranger may stay for a few seconds
    os.kill(process.pid, signal.SIGHUP)
    until(lambda: len(events(stage, "certificate renewed")) == 1)
    assert await asyncio.to_thread(shown, stage.port) == new.spki
    assert isinstance(await before.send(ada), Tick)
    await guest.log_in()
    after = await Device(stage, stage.register("renewafter")).connect()
    assert isinstance(after.welcome, Welcome)
    for device in (before, guest, after):
        await device.close()
    process.stop()
    stage.relays = (RelayAddress(f"127.0.0.1:{stage.port}", old.spki, bytes(32)),)
    stage.world.deployer.set_relays(stage.world.network, stage.relays)


async def test_a_crowd_at_the_metrics_port_takes_few_files_from_the_relay() -> None:
    """Whoever opens connections there and says nothing keeps no messages from coming."""
    server = await pages.serve("127.0.0.1", 0, pages.Metrics(), lambda: {"ok": True})
    port = server.sockets[0].getsockname()[1]
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(pages.AT_ONCE)]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
    for _, crowding in silent:
        crowding.close()
        await crowding.wait_closed()

    def answers() -> bool:
        with contextlib.suppress(OSError):  # until it has noticed that they are gone
            return page(port, "/health")[0] == 200
        return False

    await asyncio.to_thread(until, answers)
    server.close()


def greeted(port: int, first: bytes, source: str = "127.0.0.1") -> bool:
    """Whether the relay speaks TLS with whoever says this first."""
    with socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(source, 0)) as plain:
        plain.sendall(first)
        try:
            with client_context().wrap_socket(plain) as secured:
                return bool(secured.recv(1))
        except (ssl.SSLError, OSError):
            return False


async def test_a_proxy_that_is_trusted_introduces_its_clients(stage: Stage) -> None:
    """It must, and nobody else can; what breaks the protocol is noted under the client's address."""
    process = stage.start("--proxies", "127.0.0.9", "--proxies", "2001:db8::/32")
    known = bytes([192, 0, 2, 7, 127, 0, 0, 1]) + b"\xc0\x00\x15\xb3"
    introduction = header(known)

    def garbage_from(first: bytes, source: str) -> None:
        with (
            socket.create_connection(("127.0.0.1", stage.port), 10, source_address=(source, 0)) as plain,
        ):
            plain.sendall(first)
            with client_context().wrap_socket(plain) as secured:
                secured.sendall(b"\xff" * 64)
                while secured.recv(1024):
                    pass

    assert await asyncio.to_thread(greeted, stage.port, introduction, "127.0.0.9")
    assert await asyncio.to_thread(greeted, stage.port, header(b"", verb=0x20, family=0), "127.0.0.9")
    assert not await asyncio.to_thread(greeted, stage.port, b"", "127.0.0.9")
    assert await asyncio.to_thread(greeted, stage.port, b"", "127.0.0.1")
    assert not await asyncio.to_thread(greeted, stage.port, introduction, "127.0.0.1")
    await asyncio.to_thread(garbage_from, introduction, "127.0.0.9")
    until(lambda: any(event["address"] == "192.0.2.7" for event in events(stage, "violation")))
    process.stop()


async def test_the_log_holds_no_secret(stage: Stage, mariadb: MariaDB) -> None:
    """Nor what was sent, however talkative: every line is JSON or a sentence for people."""
    before = len(stage.log.read_text()) if stage.log.exists() else 0
    process = stage.start("--debug", "--db", mariadb.new_database(), "--nats", "nats://u:sesame@127.0.0.1:9")
    ada, bob = stage.register("quietada"), stage.register("quietbob")
    device, other = await Device(stage, ada).begin(), await Device(stage, bob).begin()
    assert isinstance(await device.send(bob, b"SECRETBODY"), Tick)
    await other.receive(1)
    await device.close()
    await other.close()
    mariadb.execute("SELECT 1")
    process.stop()
    text = stage.log.read_text()[before:]
    key = stage.environment["PRIVATE_KEY"].removeprefix("0x")
    for secret in (mariadb.password, "sesame", key, "SECRETBODY", ada.login_key.hex(), ada.signer.hex()):
        assert secret not in text
    told = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert {"login", "running", "stopped"} <= {event["event"] for event in told}
    assert all({"event", "level", "timestamp"} <= event.keys() for event in told)
