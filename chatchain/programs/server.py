"""The relay's program: reads its settings, builds the edges, runs until it is told to stop. The only
wiring.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import gc
import logging
import resource
import signal
import ssl
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import structlog
import uvloop
from structlog.typing import FilteringBoundLogger

from chatchain import __version__
from chatchain.chain.rpc import Endpoints
from chatchain.chain.sync import DEV_CHAINS
from chatchain.chain.view import CONFIRMATIONS, ChainView
from chatchain.config import ServerConfig, load_server
from chatchain.errors import BadConfig, ChatchainError, MissingInput
from chatchain.identity.keys import parse_address, to_checksum
from chatchain.model import Address, Network
from chatchain.programs.purse import Purse
from chatchain.relay import metrics as pages
from chatchain.relay.directory import Keeper
from chatchain.relay.service import Deployment, Relay
from chatchain.relay.spending import Spending
from chatchain.relay.sponsor import Sponsor, SponsorLimits
from chatchain.store.blobs import BlobFolder
from chatchain.store.server import ServerStore, ServerWriter
from chatchain.store.writer import Listener as StoreListener
from chatchain.transport import Listener, fingerprint, server_context, spki_of

DRAIN_SECONDS: Final = 9.0
"""Less than the ten seconds after which an impatient supervisor kills."""

GATHER_SECONDS: Final = 2.0
"""How long a sponsored vote waits for others where blocks are made seconds apart."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs a relay and ends the process with the exit code of what stopped it."""
    arguments = vars(_parser().parse_args(argv))
    try:
        config = load_server(arguments)
        log = _log(debug=config.debug)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(config, log))
    except ChatchainError as error:
        print(f"{error.message} {error.hint}".strip(), file=sys.stderr)
        if arguments["debug"]:
            raise
        sys.exit(error.exit_code)
    except KeyboardInterrupt:  # before the relay listens to signals itself
        sys.exit(130)
    except Exception as error:
        print(f"The relay failed, which is a bug: {type(error).__name__}: {error}", file=sys.stderr)
        if arguments["debug"]:
            raise
        print("Run it with --debug to see where, and please report it.", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)


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
    add("--workers", metavar="N", help="processes (RELAY_WORKERS; 1)")
    add("--metrics-port", metavar="P", help="port of /health and /metrics (RELAY_METRICS_PORT; none)")
    add("--nats", metavar="URL", help="reserved for several relays of one operator (NATS_URL)")
    add("--debug", action="store_const", const=True, help="log more, and show where an error arose")
    add("--version", action="version", version=f"chatchain {__version__}")
    return parser


# --- building
# ------------------------------------------------------------------------------------------------


async def _run(config: ServerConfig, log: FilteringBoundLogger) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.set_exception_handler(lambda _, context: log.error("bug", **_described(context)))
    _require_known(config)
    context, spki = _certificate(config)
    endpoints = Endpoints(config.rpc)
    store = ServerStore(config.db)
    parts = await asyncio.to_thread(BlobFolder, config.blobs)
    view = ChainView(endpoints, _directory(config), store.log)
    # The database first: it is nearer, and what it says about a wrong URL is plainer.
    await asyncio.to_thread(store.migrate)
    try:
        await asyncio.to_thread(store.claim)
        network = await asyncio.to_thread(view.network)
        await asyncio.to_thread(store.deployment, network.chain_id, network.directory)
        sponsor = _sponsor(config, endpoints, network, store, log)
        await asyncio.to_thread(_compare_certificate, view, spki, log)
        confirmations = 0 if network.chain_id in DEV_CHAINS else CONFIRMATIONS
        relay = Relay(
            Deployment(network, spki),
            reader=store,
            keeper=Keeper(view, store, confirmations=confirmations),
            sponsor=sponsor,
            log=log,
            files=(parts, store.blobs),
        )
        writer = store.writer(_listener(loop, relay))
        try:
            await _serve(config, relay, writer, context, stop, log)
        finally:
            await asyncio.to_thread(writer.stop, 5.0)
    finally:
        endpoints.close()
        store.close()


async def _serve(
    config: ServerConfig,
    relay: Relay,
    writer: ServerWriter,
    context: ssl.SSLContext,
    stop: asyncio.Event,
    log: FilteringBoundLogger,
) -> None:
    _raise_file_limit()
    await relay.start(writer)
    _settle_garbage()
    listener = Listener(relay, context)
    web: asyncio.Server | None = None
    try:
        if config.metrics_port is not None:
            with _naming(config.host, config.metrics_port):
                web = await pages.serve(config.host, config.metrics_port, relay.metrics, relay.health)
            port = web.sockets[0].getsockname()[1]
            log.info("metrics", host=config.host, port=port)
        with _naming(config.host, config.port):
            port = await listener.start(config.host, config.port)
        print(f"Server is running on {config.host}:{port}", flush=True)
        log.info("running", host=config.host, port=port, version=__version__)
        await stop.wait()
        log.info("stopping")
        listener.stop()
        await relay.drain(DRAIN_SECONDS)
    finally:
        listener.stop()
        if web is not None:
            web.close()
    log.info("stopped")


def _listener(loop: asyncio.AbstractEventLoop, relay: Relay) -> StoreListener:
    """What the committing thread tells, brought to the loop; after the loop's end there is nobody to tell."""

    def on_loop(tell: Callable[..., None]) -> Callable[..., None]:
        def call(*values: Any) -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(tell, *values)

        return call

    return StoreListener(on_loop(relay.kept), on_loop(relay.store_failed), on_loop(relay.store_settled))


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
    if config.workers > 1:
        raise BadConfig("This version runs one process a relay.", "Leave --workers at 1.")
    if config.nats is not None:
        raise BadConfig("This version does not use NATS.", "Leave --nats (NATS_URL) out.")


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
        if "MISMATCH" in reason:
            raise BadConfig(
                f"The private key {config.key} does not belong to the certificate {config.cert}."
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
    if not any(spki in (relay.spki, relay.next_spki) for relay in view.relays()):
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
) -> Sponsor | None:
    if config.private_key is None or not config.sponsor_wei_per_day:
        log.warning("sponsor off", reason="no PRIVATE_KEY" if config.private_key is None else "limit is 0")
        return None
    purse = Purse(endpoints, network, config.private_key)
    hour, day = config.sponsor_wei_per_hour, config.sponsor_wei_per_day
    log.info("sponsor", account=to_checksum(purse.account), wei_per_hour=hour, wei_per_day=day)
    if config.account is not None and parse_address(config.account) != purse.account:
        log.warning("ACCOUNT is not the address of PRIVATE_KEY", account=config.account)
    spending = Spending(store.sponsoring, time.time, wei_per_hour=hour, wei_per_day=day)
    gather = 0.0 if network.chain_id in DEV_CHAINS else GATHER_SECONDS
    return Sponsor(purse, spending, SponsorLimits(gather=gather), time.monotonic())


@contextlib.contextmanager
def _naming(host: str, port: int) -> Any:
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
            f"The relay cannot listen on {host}:{port}: {reason}.", "Choose another with --host and --port."
        ) from error


def _settle_garbage() -> None:
    """Leaves what was loaded at the start out of every later search for garbage, and searches more rarely.

    Messages are freed by counting references; they only make a search long, and the loop waits for it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


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
