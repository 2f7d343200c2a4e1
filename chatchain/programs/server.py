"""The relay's program: reads its settings, builds the edges, runs until it is told to stop. The only
wiring.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import dataclasses
import errno
import gc
import hashlib
import ipaddress
import logging
import os
import resource
import signal
import socket
import ssl
import stat
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol

import structlog
import uvloop
from structlog.typing import FilteringBoundLogger

from chatchain import __version__
from chatchain.chain.rpc import Endpoints
from chatchain.chain.sync import DEV_CHAINS
from chatchain.chain.view import CONFIRMATIONS, ChainView
from chatchain.config import ENV_FILE, ServerConfig, load_server
from chatchain.errors import BadConfig, ChatchainError, MissingInput
from chatchain.identity.keys import parse_address, to_checksum
from chatchain.model import Address, Network, Run
from chatchain.neighbours import Neighbours
from chatchain.programs import workers
from chatchain.programs.notify import notify, watchdog_seconds
from chatchain.programs.purse import Purse
from chatchain.relay import metrics as pages
from chatchain.relay.allowance import allowance_of
from chatchain.relay.directory import Keeper
from chatchain.relay.newcomers import Newcomers, Rules
from chatchain.relay.nodes import Bus, Nodes, SharedKeeper
from chatchain.relay.service import Deployment, Relay
from chatchain.relay.spending import Spending
from chatchain.relay.sponsor import Sponsor, SponsorLimits
from chatchain.store.blobs import BlobFolder
from chatchain.store.nodes import NodeStore
from chatchain.store.server import ServerStore, ServerWriter
from chatchain.store.writer import Listener as StoreListener
from chatchain.store.writer import Told
from chatchain.transport import Listener, fingerprint, server_context, show_pair, spki_of

DRAIN_SECONDS: Final = 8.0
"""Less than the ten seconds after which an impatient supervisor kills."""

END_SECONDS: Final = 9.0
"""When the process ends though something still waits for a database or a chain that does not answer: what was
not committed by then was not ticked either.
"""

LARGE_BYTES: Final = 256 * 1024
"""From this size on a block of memory is mapped by itself: what TLS reads into, and parts of files."""

_MMAP_THRESHOLD: Final = -3
"""M_MMAP_THRESHOLD of malloc.h."""

GATHER_SECONDS: Final = 2.0
"""How long a sponsored vote waits for others where blocks are made seconds apart."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs a relay and ends the process with the exit code of what stopped it."""
    arguments = vars(_parser().parse_args(argv))

    def start() -> int:
        config = load_server(arguments)
        return _guarded(lambda: _start(config), debug=config.debug)

    sys.exit(_guarded(start, debug=bool(arguments["debug"])))


def _start(config: ServerConfig) -> int:
    """Runs the relay that the settings describe."""
    log = _log(debug=config.debug)
    _require_known(config)
    _warn_of_readable_secrets(config, log)
    return _alone(config, log) if config.workers == 1 else _together(config, log)


def _guarded(work: Callable[[], int], *, debug: bool) -> int:
    """Does it, and says in a sentence why it failed; gives the exit code."""
    try:
        return work()
    except ChatchainError as error:
        print(f"{error.message} {error.hint}".strip(), file=sys.stderr)
        if debug:
            traceback.print_exc()
        return error.exit_code
    except KeyboardInterrupt:  # before the relay listens to signals itself
        return 130
    except Exception as error:
        print(f"The relay failed, which is a bug: {type(error).__name__}: {error}", file=sys.stderr)
        if debug:
            traceback.print_exc()
        else:
            print("Run it with --debug to see where, and please report it.", file=sys.stderr)
        return 1


def _alone(config: ServerConfig, log: FilteringBoundLogger) -> int:
    """Runs the relay in this process."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(config, log, Alone()))
    return 0


def _together(config: ServerConfig, log: FilteringBoundLogger) -> int:
    """Runs the relay in several processes that share its port."""
    with _naming(config.host, config.port):
        port, reserved = _reserved(config.host, config.port)

    def run(channel: workers.Channel) -> int:
        metrics_port = config.metrics_port and config.metrics_port + channel.number
        mine = dataclasses.replace(config, port=port, metrics_port=metrics_port)

        def work() -> int:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(
                    _run(mine, log.bind(worker=channel.number), Among(channel, config.workers, folder))
                )
            return 0

        return _guarded(work, debug=config.debug)

    def ready() -> None:
        print(f"Server is running on {config.host}:{port}", flush=True)

    with reserved, _meeting_place(log) as folder:
        return workers.Supervisor(config.workers, run, log, ready).serve()


@contextlib.contextmanager
def _meeting_place(log: FilteringBoundLogger) -> Iterator[Path | None]:
    """A folder that is ours alone, for the workers' sockets; without it they meet in the database."""
    with contextlib.ExitStack() as stack:
        try:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chatchain-")))
        except OSError as error:
            log.warning("neighbours", reason=error.strerror)
            yield None
        else:
            yield folder


def _reserved(host: str, port: int) -> tuple[int, socket.socket]:
    """A port that the workers may share, and the socket that holds it for them without listening."""
    family, _, _, _, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    # Not shared first: another relay's workers would share it with ours.
    with _bound(family, (address[0], port, *address[2:]), shared=False) as probe:
        port = probe.getsockname()[1]
    return port, _bound(family, (address[0], port, *address[2:]), shared=True)


def _bound(family: int, address: tuple[object, ...], *, shared: bool) -> socket.socket:
    holding = socket.socket(family, socket.SOCK_STREAM)
    try:
        holding.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            holding.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holding.bind(address)
    except OSError:
        holding.close()
        raise
    return holding


class Place(Protocol):
    """Where a relay process stands: alone, or among workers."""

    share: int
    """How many processes share what the settings allow together."""
    life: int | None
    """File descriptor whose end means that this process must stop."""
    number: int
    """Which of those processes this is."""
    folder: Path | None
    """Where they have their sockets for each other."""

    def ready(self, host: str, port: int) -> None:
        """The relay accepts connections."""

    def alive(self) -> None:
        """The loop turns; called every second."""

    def stopping(self) -> None:
        """The relay drains."""


class Alone:
    """A relay that is one process, and speaks for itself."""

    share = 1
    number = 0
    life: int | None = None
    folder: Path | None = None

    def __init__(self) -> None:
        self._watched = watchdog_seconds() is not None

    def ready(self, host: str, port: int) -> None:
        """Tells people and the service manager."""
        print(f"Server is running on {host}:{port}", flush=True)
        notify("READY=1")

    def alive(self) -> None:
        """Tells the service manager, if it asked."""
        if self._watched:
            notify("WATCHDOG=1")

    def stopping(self) -> None:
        """Tells the service manager."""
        notify("STOPPING=1")


class Among:
    """A worker, whose supervisor speaks for all."""

    def __init__(self, channel: workers.Channel, share: int, folder: Path | None) -> None:
        self._channel = channel
        self.share = share
        self.number = channel.number
        self.folder = folder
        self.life: int | None = channel.life

    def ready(self, host: str, port: int) -> None:
        """Tells the supervisor."""
        self._channel.say(workers.READY)

    def alive(self) -> None:
        """Tells the supervisor."""
        self._channel.say(workers.ALIVE)

    def stopping(self) -> None:
        """Its supervisor has told."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="server.py",
        description="Run a chatchain relay. Every option may also stand in the environment or in .env.",
    )
    add = parser.add_argument
    add("--host", metavar="H", help="address to listen on (RELAY_HOST; 127.0.0.1)")
    add("--port", metavar="P", help="port to listen on, 0 for a free one (RELAY_PORT; 5555)")
    add(
        "--db", metavar="URL", help="sqlite:///FILE or mysql+pymysql://USER:PASSWORD@HOST/NAME (DATABASE_URL)"
    )
    add("--rpc", metavar="URL", action="append", help="endpoint of the chain; may be repeated (RPC_URL)")
    add("--directory", metavar="ADDRESS", help="the network's Directory contract (CONTRACT_ADDRESS)")
    add("--cert", metavar="F", help="TLS certificate, PEM (RELAY_CERT)")
    add("--key", metavar="F", help="its private key, PEM (RELAY_KEY)")
    add(
        "--blobs",
        metavar="URL",
        help="folder for files, or s3://BUCKET/PREFIX (BLOB_URL; beside the database's file)",
    )
    add(
        "--workers",
        metavar="N",
        help="processes that share the port; more than 1 need MySQL (RELAY_WORKERS; 1)",
    )
    add(
        "--metrics-port",
        metavar="P",
        help="port of /health, /ready and /metrics; each worker has the next (RELAY_METRICS_PORT; none)",
    )
    add("--nats", metavar="URL", help="lets several processes wake each other (NATS_URL)")
    add("--nats-ca", metavar="F", help="authority of a NATS server at tls://, PEM (NATS_CA; the system's)")
    add(
        "--proxies",
        metavar="A",
        action="append",
        help="proxies that introduce their clients (PROXY v2); may be repeated (RELAY_PROXIES)",
    )
    add("--debug", action="store_const", const=True, help="log more, and show where an error arose")
    add("--version", action="version", version=f"chatchain {__version__}")
    return parser


# --- building
# ------------------------------------------------------------------------------------------------


async def _run(config: ServerConfig, log: FilteringBoundLogger, place: Place) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        if place.life is not None:
            loop.remove_reader(place.life)  # it stays at its end
        if not stop.is_set():
            stop.set()
            _end_in(END_SECONDS, log)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    if place.life is not None:
        loop.add_reader(place.life, end)
    loop.set_exception_handler(lambda _, context: log.error("bug", **_described(context)))
    context, spki = _certificate(config)
    endpoints = Endpoints(config.rpc)
    store = ServerStore(config.db)
    parts = await asyncio.to_thread(BlobFolder, config.blobs)
    view = ChainView(endpoints, _directory(config), store.log)
    # The database first: it is nearer, and what it says about a wrong URL is plainer.
    await asyncio.to_thread(store.migrate)
    try:
        shared = await asyncio.to_thread(_place_in, store)
        network = await asyncio.to_thread(view.network)
        await asyncio.to_thread(store.deployment, network.chain_id, network.directory)
        turn = contextlib.nullcontext if shared is None else lambda: shared.turn("sponsor")
        sponsor = _sponsor(config, endpoints, network, store, log, turn)
        await asyncio.to_thread(_compare_certificate, view, spki, log)
        confirmations = 0 if network.chain_id in DEV_CHAINS else CONFIRMATIONS
        metrics = pages.Metrics()

        def fold() -> Keeper:
            fresh = ChainView(endpoints, network.directory, store.log)
            return Keeper(fresh, store, confirmations=confirmations)

        relay = Relay(
            Deployment(network, spki),
            reader=store,
            keeper=fold() if shared is None else await asyncio.to_thread(SharedKeeper, shared, store, fold),
            sponsor=sponsor,
            newcomers=Newcomers(
                network,
                Rules(config.sponsor_work_bits, invited_only=config.sponsor_invited_only),
                store.invitations,
            ),
            log=log,
            allowance=allowance_of(dict(config.limits)),
            files=(parts, store.blobs),
            metrics=metrics,
            nodes=_nodes(config, store, shared, network, place, log, metrics),
            signals=_bus(config, network, log, "signal"),
        )
        writer = store.writer(_listener(loop, relay))

        def renew() -> None:
            renewing = asyncio.create_task(_renew(config, context, view, relay, log))
            renewing.add_done_callback(lambda task: task.result())

        loop.add_signal_handler(signal.SIGHUP, renew)
        try:
            await _serve(config, relay, writer, context, stop, log, place)
        finally:
            await asyncio.to_thread(writer.stop, 5.0)
    finally:
        endpoints.close()
        await asyncio.to_thread(store.close)


def _place_in(store: ServerStore) -> NodeStore | None:
    """This process's place among others on a database that can be shared; of another it is the only one."""
    if store.shareable:
        return store.join(f"{socket.gethostname()}:{os.getpid()}")
    store.claim()
    return None


def _nodes(
    config: ServerConfig,
    store: ServerStore,
    shared: NodeStore | None,
    network: Network,
    place: Place,
    log: FilteringBoundLogger,
    metrics: pages.Metrics,
) -> Nodes | None:
    if shared is None:
        return None
    near = None
    if place.folder is not None:
        near = Neighbours(
            place.folder, place.number, place.share, lambda reason: log.warning("neighbours", reason=reason)
        )
    bus = _bus(config, network, log, "look")
    return Nodes(shared, bus, near, usage=store.usage, log=log, metrics=metrics)


def _bus(config: ServerConfig, network: Network, log: FilteringBoundLogger, what: str) -> Bus | None:
    """A way to the other processes for one kind of message, which then pushes no other kind aside."""
    if config.nats is None:
        return None
    from chatchain import bus  # 0.1 s that only those pay who use it

    own = hashlib.sha256(b"%d:%b" % (network.chain_id, network.directory)).hexdigest()[:16]
    return bus.Bus(
        config.nats,
        f"chatchain.{own}.{what}",
        lambda kind: log.warning("nats", kind=kind),
        authority=config.nats_ca,
    )


async def _serve(
    config: ServerConfig,
    relay: Relay,
    writer: ServerWriter,
    context: ssl.SSLContext,
    stop: asyncio.Event,
    log: FilteringBoundLogger,
    place: Place,
) -> None:
    _raise_file_limit()
    _return_large_blocks()
    await relay.start(writer)
    _settle_garbage()
    listener = Listener(
        relay,
        context,
        proxies=[ipaddress.ip_network(text) for text in config.proxies],
        connections=allowance_of(dict(config.limits)).connections,
        intake=relay.intake,
    )
    web: asyncio.Server | None = None
    beating = asyncio.create_task(_beat(place))
    try:
        if config.metrics_port is not None:
            with _naming(config.host, config.metrics_port, "--metrics-port"):
                web = await pages.serve(config.host, config.metrics_port, relay.metrics, relay.health)
            port = web.sockets[0].getsockname()[1]
            log.info("metrics", host=config.host, port=port)
        with _naming(config.host, config.port):
            port = await listener.start(config.host, config.port, shared=place.share > 1)
        relay.accepting = True
        place.ready(config.host, port)
        log.info("running", host=config.host, port=port, version=__version__)
        await stop.wait()
        place.stopping()
        log.info("stopping")
        listener.stop()
        await relay.drain(DRAIN_SECONDS)
    finally:
        beating.cancel()
        listener.stop()
        if web is not None:
            web.close()
    log.info("stopped")


def _end_in(seconds: float, log: FilteringBoundLogger) -> None:
    """Ends the process then, whatever its threads wait for; until then it may end by itself."""

    def end() -> None:
        log.warning("cut short", reason="database or chain did not answer in time")
        os._exit(0)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


async def _renew(
    config: ServerConfig, context: ssl.SSLContext, view: ChainView, relay: Relay, log: FilteringBoundLogger
) -> None:
    """Shows the pair that lies in the files by now, unless clients would refuse it."""
    try:
        _, spki = _certificate(config)
        if not await asyncio.to_thread(_is_named, view, spki):
            log.warning("certificate kept", reason="not on chain", fingerprint=fingerprint(spki))
            return
        assert config.cert is not None
        assert config.key is not None
        show_pair(context, str(config.cert), str(config.key))
    except (ChatchainError, ssl.SSLError, OSError) as error:
        log.warning("certificate kept", reason=str(error))
        return
    relay.renewed(spki)
    log.info("certificate renewed", fingerprint=fingerprint(spki))


def _is_named(view: ChainView, spki: bytes) -> bool:
    return any(spki in (relay.spki, relay.next_spki) for relay in view.relays())


async def _beat(place: Place) -> None:
    while True:
        place.alive()
        await asyncio.sleep(workers.BEAT)


def _listener(loop: asyncio.AbstractEventLoop, relay: Relay) -> StoreListener:
    """What the committing thread tells, brought to the loop; after the loop's end there is nobody to tell."""
    letters = relay.letters

    def on_loop(tell: Callable[..., None]) -> Callable[..., None]:
        def call(*values: Any) -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(tell, *values)

        return call

    def kept(told: Told, runs: list[Run]) -> None:
        committed = time.monotonic()

        def tell() -> None:
            relay.metrics.tick_lag.observe(time.monotonic() - committed)
            letters.kept(told, runs)

        on_loop(tell)()

    return StoreListener(
        kept,
        on_loop(letters.store_failed),
        on_loop(letters.store_settled),
        on_loop(letters.expired),
    )


def _require_known(config: ServerConfig) -> None:
    if not config.rpc:
        raise MissingInput("No chain is given.", "Give --rpc URL (RPC_URL).")
    if config.directory is None:
        raise MissingInput(
            "No network is given.", "Give --directory ADDRESS (CONTRACT_ADDRESS); deploy.py prints it."
        )
    if config.cert is None or config.key is None:
        raise MissingInput(
            "No TLS certificate is given.",
            "Give --cert and --key (RELAY_CERT, RELAY_KEY); deploy/certificates.py or openssl makes a pair.",
        )
    if config.db.startswith("sqlite"):
        if config.workers > 1:
            raise BadConfig(
                "An SQLite database serves one process.",
                "Leave --workers at 1, or give --db a MySQL database.",
            )
        if config.nats is not None:
            raise BadConfig(
                "An SQLite database serves one process, which has nobody to wake through NATS.",
                "Leave --nats (NATS_URL) out, or give --db a MySQL database.",
            )


def _warn_of_readable_secrets(config: ServerConfig, log: FilteringBoundLogger) -> None:
    """Warns when every user of this machine can read what only the relay should know."""
    assert config.key is not None
    for path in (Path(ENV_FILE), config.key):
        with contextlib.suppress(OSError):
            if path.stat().st_mode & stat.S_IROTH:
                log.warning("readable by others", file=str(path.absolute()))


def _directory(config: ServerConfig) -> Address:
    assert config.directory is not None
    return parse_address(config.directory)


def _certificate(config: ServerConfig) -> tuple[ssl.SSLContext, bytes]:
    assert config.cert is not None
    assert config.key is not None
    for path, what in ((config.cert, "certificate"), (config.key, "private key")):
        try:
            path.open("rb").close()
        except OSError as error:
            raise BadConfig(f"The {what} {path} cannot be read: {error.strerror}.") from error
    try:
        context = server_context(str(config.cert), str(config.key))
        certificate = ssl.PEM_cert_to_DER_cert(_first_certificate(config.cert))
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", "") or ""
        # OpenSSL keeps certificates by kind of key, and finds none for a key of another kind.
        if "MISMATCH" in reason or reason == "NO_CERTIFICATE_ASSIGNED":
            raise BadConfig(
                f"The private key {config.key} does not belong to the certificate {config.cert}."
            ) from error
        if "TOO_SMALL" in reason or "TOO_WEAK" in reason:
            raise BadConfig(
                f"The certificate {config.cert} is too weak ({reason.lower().replace('_', ' ')}).",
                "Make one with RSA of 2048 bits or more, ECDSA or Ed25519.",
            ) from error
        raise BadConfig(
            f"The certificate {config.cert} or the private key {config.key} is not valid PEM.",
            "A key with a passphrase is not supported.",
        ) from error
    return context, spki_of(certificate)


def _first_certificate(path: Path) -> str:
    text = path.read_text(encoding="ascii", errors="replace")
    start, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    _, found, rest = text.partition(start)
    body, closed, _ = rest.partition(end)
    if not found or not closed:
        raise ValueError("no certificate")
    return f"{start}{body}{end}\n"


def _compare_certificate(view: ChainView, spki: bytes, log: FilteringBoundLogger) -> None:
    """Warns when clients would refuse this relay's certificate."""
    if not _is_named(view, spki):
        log.warning("certificate not on chain", fingerprint=fingerprint(spki))
        print(
            f"The Directory does not name this relay's key {fingerprint(spki)}: clients refuse it.",
            file=sys.stderr,
        )


def _sponsor(
    config: ServerConfig,
    endpoints: Endpoints,
    network: Network,
    store: ServerStore,
    log: FilteringBoundLogger,
    turn: Callable[[], contextlib.AbstractContextManager[None]],
) -> Sponsor | None:
    if config.private_key is None or not config.sponsor_wei_per_day:
        log.warning("sponsor off", reason="no PRIVATE_KEY" if config.private_key is None else "limit is 0")
        return None
    purse = Purse(endpoints, network, config.private_key, turn)
    hour, day = config.sponsor_wei_per_hour, config.sponsor_wei_per_day
    log.info("sponsor", account=to_checksum(purse.account), wei_per_hour=hour, wei_per_day=day)
    if config.account is not None and parse_address(config.account) != purse.account:
        log.warning("ACCOUNT is not the address of PRIVATE_KEY", account=config.account)
    spending = Spending(store.sponsoring, time.time, wei_per_hour=hour, wei_per_day=day)
    gather = 0.0 if network.chain_id in DEV_CHAINS else GATHER_SECONDS
    return Sponsor(purse, spending, SponsorLimits(gather=gather), time.monotonic())


@contextlib.contextmanager
def _naming(host: str, port: int, flag: str = "--port") -> Any:
    """Says in a sentence why an address cannot be bound."""
    try:
        yield
    except OSError as error:
        reasons = {
            errno.EADDRINUSE: "another program uses it",
            errno.EACCES: "that needs more rights",
            errno.EADDRNOTAVAIL: "this machine has no such address",
        }
        reason = reasons.get(error.errno or 0, error.strerror or str(error))
        raise BadConfig(
            f"The relay cannot listen on {host}:{port}: {reason}.", f"Choose another with --host and {flag}."
        ) from error


def _settle_garbage() -> None:
    """Leaves what was loaded at the start out of every later search for garbage, and searches more rarely.

    Messages are freed by counting references; they only make a search long, and the loop waits for it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _return_large_blocks() -> None:
    """Has the C library give large blocks back to the system whenever they are freed.

    Else it stops doing so once the first was freed, and what one connection needed while it moved a file
    stays with the process, in pieces between what others still need.
    """
    with contextlib.suppress(AttributeError, OSError):  # another library than glibc does as it likes
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, LARGE_BYTES)


def _raise_file_limit() -> None:
    """A connection is a file: take as many as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# --- the log
# -------------------------------------------------------------------------------------------------


def _log(*, debug: bool) -> FilteringBoundLogger:
    """One JSON object a line on stderr, for our own events and for the libraries' warnings."""
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if debug else logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=shared,
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    log: FilteringBoundLogger = structlog.get_logger()
    return log


def _described(context: dict[str, Any]) -> dict[str, Any]:
    error = context.get("exception")
    return {"what": str(context.get("message", "")), **({"exc_info": error} if error is not None else {})}


if __name__ == "__main__":
    main()
