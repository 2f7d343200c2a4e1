"""How fast a store catches up on the chain's history, and how fast a sponsor registers newcomers.

Prints JSON lines only. A registration emits three events (Registered, VerifierSet, DeviceAdded), so 33,334
users are registered, each by its own account, with records as long as real ones. Every case is measured in
a fresh process: from the first question to the endpoint until the last row is in the store.

`events_per_s` is the whole catch-up over HTTP into the store; `decode_fold_per_s` is decoding the same rows
and folding them into a directory; `cpu_s` is the processor time of the catch-up in this process, which other
programs on the machine do not change; `rss_mib` is the most memory that the process held.

`sponsored_registrations` gives the sponsor signed registrations in turns as the relay does, and counts until
the last of them is mined: each is tried out, booked in the relay's database, signed and sent. The newcomers'
own signatures are made beforehand, and every registration is counted in the registry afterwards.
"""

import argparse
import asyncio
import json
import resource
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from chatchain.chain.calls import USER_COUNT, Calls  # noqa: E402
from chatchain.chain.events import Directory  # noqa: E402
from chatchain.chain.rpc import Endpoints, Request, Rpc, hexed, quantity, unhex  # noqa: E402
from chatchain.chain.sync import LogStore, MemoryLogStore  # noqa: E402
from chatchain.chain.view import ChainView  # noqa: E402
from chatchain.identity import typed_data  # noqa: E402
from chatchain.identity.keys import NOBODY, address_of, new_secret, sign_digest  # noqa: E402
from chatchain.model import Address, Call, LogRow, Network  # noqa: E402

T = TypeVar("T")

EVENTS: Final = 100_000
EVENTS_PER_USER: Final = 3
PER_BLOCK: Final = 200
RECORD_BYTES: Final = 227
KDF_BYTES: Final = 23

NEWCOMERS: Final = 5_000
FAR: Final = 2**40

CASES: Final = {"catch_up": "memory", "catch_up_client_store": "client", "catch_up_relay_store": "relay"}


def register(rpc: Rpc, network: Network, users: int) -> None:
    """Registers so many users, each from an account of its own that Anvil lets act without a key."""
    calls = Calls()
    rpc.call("anvil_autoImpersonateAccount", True)
    rpc.call("evm_setAutomine", False)
    for start in range(0, users, PER_BLOCK):
        requests = []
        for number in range(start, min(start + PER_BLOCK, users)):
            call = calls.register(
                f"user-{number}",
                secrets.token_bytes(32),
                secrets.token_bytes(KDF_BYTES),
                NOBODY,
                Address(secrets.token_bytes(20)),
                secrets.token_bytes(RECORD_BYTES),
            )
            transaction = {
                "from": hexed(secrets.token_bytes(20)),
                "to": hexed(network.registry),
                "data": hexed(call.data),
                "gas": hex(400_000),
                "gasPrice": "0x0",
            }
            requests.append(Request("eth_sendTransaction", (transaction,)))
        rpc.batch(requests)
        rpc.call("evm_mine")


def signed_registrations(network: Network, users: int) -> list[Call]:
    """So many newcomers, each with its account's signature."""
    calls = Calls()
    made = []
    for number in range(users):
        key = new_secret()
        account, signer = address_of(key), Address(secrets.token_bytes(20))
        name, verifier = f"guest-{number}", secrets.token_bytes(32)
        kdf, record = secrets.token_bytes(KDF_BYTES), secrets.token_bytes(RECORD_BYTES)
        digest = typed_data.register_digest(
            network, name, account, verifier, kdf, NOBODY, signer, record, FAR
        )
        made.append(
            calls.register_for(
                account, name, verifier, kdf, NOBODY, signer, record, FAR, sign_digest(key, digest)
            )
        )
    return made


def sponsored(url: str, network: Network, key: bytes, users: int, folder: Path) -> dict[str, object]:
    """Registers newcomers through a sponsor, and waits until the last one is mined."""
    from chatchain.programs.purse import Purse
    from chatchain.relay.limits import Rate
    from chatchain.relay.spending import Spending
    from chatchain.relay.sponsor import Order, Sponsor, SponsorLimits
    from chatchain.relay.turns import Turns
    from chatchain.store.server import ServerStore

    waiting = [Order(call) for call in signed_registrations(network, users)]
    endpoints = Endpoints([url])
    store = ServerStore(f"sqlite:///{folder / 'sponsor.db'}")
    store.migrate()
    spending = Spending(store.sponsoring, time.time, wei_per_hour=10**24, wei_per_day=10**24)
    limits = SponsorLimits(registrations=Rate(users, users))
    sponsor = Sponsor(Purse(endpoints, network, key), spending, limits, time.monotonic())
    sponsor.prepare()
    before = count_users(endpoints, network)
    cpu = time.process_time()

    async def pay_all_of_them() -> None:
        with ThreadPoolExecutor() as threads:
            turns = Turns(lambda orders: sponsor.pay_all(orders, time.monotonic()), threads)
            await asyncio.gather(*(turns.pay(order) for order in waiting))

    def all_of_them() -> None:
        asyncio.run(pay_all_of_them())
        while count_users(endpoints, network) < before + users:
            time.sleep(0.01)

    _, seconds = _timed(all_of_them)
    cpu_s = time.process_time() - cpu
    used = resource.getrusage(resource.RUSAGE_SELF)
    store.close()
    mined = quantity(endpoints.all[0].call("eth_blockNumber"))
    while quantity(endpoints.all[0].call("eth_blockNumber")) < mined + 2:
        time.sleep(0.1)
    # Counted again on blocks that are whole: while it makes one, Anvil may answer from within it.
    registered = count_users(endpoints, network) - before
    return {
        "bench": "chain",
        "case": "sponsored_registrations",
        "registrations": registered,
        "per_s": round(registered / seconds),
        "seconds": round(seconds, 2),
        "cpu_s": round(cpu_s, 2),
        "rss_mib": round(used.ru_maxrss / 1024),
    }


def count_users(endpoints: Endpoints, network: Network) -> int:
    """How many users the registry has."""
    request = USER_COUNT.request(network.registry)
    (count,) = USER_COUNT.answer(unhex(endpoints.all[0].call(request.method, *request.params)))
    return int(count)


def open_store(kind: str, folder: Path) -> LogStore:
    """An empty store of a kind."""
    if kind == "client":
        from chatchain.store.local import LocalStore

        return LocalStore(folder / "client.db", secrets.token_bytes(32)).logs
    if kind == "relay":
        from chatchain.store.chainlog import ServerLogStore
        from chatchain.store.database import migrate, open_database

        engine = open_database(f"sqlite:///{folder / 'relay.db'}")
        migrate(engine)
        return ServerLogStore(engine)
    return MemoryLogStore()


def catch_up(case: str, url: str, directory: bytes) -> dict[str, object]:
    """Measures one case; runs in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        view = ChainView(Endpoints([url]), Address(directory), open_store(CASES[case], Path(folder)))
        view.network()
        before = time.process_time()
        added, seconds = _timed(lambda: view.advance().added)
        cpu = time.process_time() - before
        used = resource.getrusage(resource.RUSAGE_SELF)
        figures: dict[str, object] = {
            "bench": "chain",
            "case": case,
            "events": added,
            "events_per_s": round(added / seconds),
            "seconds": round(seconds, 2),
            "cpu_s": round(cpu, 2),
            "rss_mib": round(used.ru_maxrss / 1024),
        }
        return figures


def decode_and_fold(url: str, directory: bytes) -> dict[str, object]:
    """Measures the fold alone, over rows that are in memory."""
    store = MemoryLogStore()
    ChainView(Endpoints([url]), Address(directory), store).sync()
    rows: list[LogRow] = store.rows()
    fold, seconds = _timed(lambda: Directory(rows))
    assert len(fold.uids()) * EVENTS_PER_USER >= EVENTS
    return {"decode_fold_per_s": round(len(rows) / seconds)}


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def main() -> None:
    """Starts a chain, fills it and measures; or measures one case against a chain that runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=[*CASES, "fold"])
    parser.add_argument("--rpc")
    parser.add_argument("--directory")
    options = parser.parse_args()
    if options.case:
        at = bytes.fromhex(options.directory.removeprefix("0x"))
        measured = (
            decode_and_fold(options.rpc, at)
            if options.case == "fold"
            else catch_up(options.case, options.rpc, at)
        )
        print(json.dumps(measured), flush=True)
        return
    from deploy.deployer import Deployer, Rules
    from tests.fixtures.anvil import start_anvil

    with tempfile.TemporaryDirectory() as folder:
        chain = start_anvil(Path(folder), "--block-base-fee-per-gas", "0", "--gas-limit", "1000000000")
        try:
            deployment = Deployer(chain.url, bytes.fromhex(chain.keys[0][2:])).deploy(Rules())
            rpc = Rpc(chain.url)
            users = -(-EVENTS // EVENTS_PER_USER)
            _, seconds = _timed(lambda: register(rpc, deployment.network, users))
            print(f"{users} users registered in {seconds:.1f} s", file=sys.stderr)

            def measure(case: str) -> dict[str, object]:
                command = [sys.executable, __file__, "--case", case, "--rpc", chain.url]
                command += ["--directory", hexed(deployment.network.directory)]
                told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=300)
                answer: dict[str, object] = json.loads(told.stdout)
                return answer

            for case in CASES:
                figures = measure(case)
                if case == "catch_up":
                    figures |= measure("fold")
                print(json.dumps(figures), flush=True)
        finally:
            chain.process.stop()
        # A block for each transaction is a development chain's habit; this one makes a block a second.
        chain = start_anvil(Path(folder), "--gas-limit", "1000000000")
        try:
            deployment = Deployer(chain.url, bytes.fromhex(chain.keys[0][2:])).deploy(Rules())
            Rpc(chain.url).call("evm_setIntervalMining", 1)
            sponsor_key = bytes.fromhex(chain.keys[1][2:])
            figures = sponsored(chain.url, deployment.network, sponsor_key, NEWCOMERS, Path(folder))
            print(json.dumps(figures), flush=True)
        finally:
            chain.process.stop()


if __name__ == "__main__":
    main()
