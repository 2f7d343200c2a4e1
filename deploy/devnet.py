"""A whole development network in one command: chain, contracts, relay and, if wanted, founding members.

    python deploy/devnet.py up [--policy vote] [--members ada,bob] …
    python deploy/devnet.py status | down | seat NAME…

Everything lives in one folder D (--dir, default .devnet):

    devnet.json      what this network is; chosen at the first `up` and kept
    secrets.json     the deployer's and the sponsor's key (0600)
    deployment.json  where the contracts are
    chain/           the chain's own state
    tls/             development CA and the relay's certificate
    relay.env        the relay's settings (0600)
    homes/NAME       a founding member's home; NAME.password and NAME.mnemonic (0600) are beside it
    logs/, run/      what runs: logs and process ids

`up` goes through its steps and does what is missing, so that the same command starts a stopped network, goes
on where a crash broke off, and changes nothing in one that runs. It never deploys twice. No secret is on a
command line: the keys are drawn at random and get ether from the chain, which has no accounts of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import fcntl
import ipaddress
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

if __package__ in {None, ""}:  # started as a file: the project's folder is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chatchain.programs.installed import Installed

with Installed():
    import msgspec

    from chatchain.chain.rpc import Rpc, hexed, quantity
    from chatchain.client.home import Home
    from chatchain.client.links import join_link
    from chatchain.client.ports import NetworkSettings
    from chatchain.config import CLIENT_OPTIONS, SERVER_OPTIONS
    from chatchain.errors import (
        BadConfig,
        ChainError,
        ChatchainError,
        HomeBusy,
        NetworkError,
        NoContract,
        NotFoundError,
        UsageError,
    )
    from chatchain.identity.keys import address_of, new_secret, to_checksum
    from chatchain.identity.names import normalise_username
    from chatchain.model import Policy, RelayAddress
    from chatchain.transport import dial
    from deploy import certificates, files, tools
    from deploy.deploy import read_deployment
    from deploy.deployer import Deployer, Deployment, Rules, fund
    from deploy.services import Service, ServiceFailed

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = Path(".devnet")
LOOPBACK: Final = "127.0.0.1"
CHAIN_PORT: Final = 8545
RELAY_PORT: Final = 5555
SERVER_PORTS: Final = range(15_000, 32_768)
"""Below those that Linux, macOS and BSD lend to outgoing connections."""
CHAIN_IDS: Final = {"anvil": 31337, "ganache": 1337}

HARDFORK: Final = "shanghai"
"""What the contracts are compiled for, and the newest that Ganache knows."""

STATE_SECONDS: Final = 1
"""How often Anvil writes its state down; a kill -9 loses what came after."""

PURSE_WEI: Final = 10_000 * 10**18
LEAST_WEI: Final = 1_000 * 10**18
SPONSOR_ETHER_PER_DAY: Final = 1_000
"""The ether of a development chain is worth nothing; the limit only stops a runaway loop."""

COMMAND_SECONDS: Final = 300
REGISTRATIONS: Final = 4
"""How many founders register at a time; each takes 64 MiB for its password."""

EXPOSED: Final = (
    "warning: {host} is open to other machines, and whoever reaches the chain's port can rewrite this "
    "development chain: use it among people you trust. The keys that hold ether stay in this folder."
)

T = TypeVar("T")


class Plan(msgspec.Struct, frozen=True):
    """What a development network is; it never changes after the first `up`."""

    chain: str
    policy: str
    host: str
    port: int
    relay_port: int
    db: str
    advertised: str
    """The host by which others reach what listens on `host`."""
    ready: bool = False
    """Whether an `up` has come through once."""

    @property
    def rpc(self) -> str:
        """The chain's endpoint as others reach it."""
        return f"http://{_bracketed(self.advertised)}:{self.port}"

    @property
    def relay(self) -> str:
        """The relay's address as the Directory names it."""
        return f"{_bracketed(self.advertised)}:{self.relay_port}"


class Secrets(msgspec.Struct, frozen=True):
    """The two keys of a network's operator, in hex. They differ: after the seal the deployer has no role."""

    deployer: str
    sponsor: str


class Report(msgspec.Struct, frozen=True):
    """What `up` and `status` print."""

    rpc: str
    contract_address: str
    relay: str
    db: str
    env_file: str
    join: str
    running: dict[str, bool]
    pids: dict[str, int]
    chain: str
    policy: str
    dir: str
    sealed: bool | None
    members: tuple[str, ...]


class Devnet:
    """The network in one folder, for as long as one command works on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.chain = Service("chain", folder)
        self.relay = Service("relay", folder)

    # --- up -----------------------------------------------------------------------------------------------

    def up(self, wanted: Mapping[str, object], members: Sequence[str]) -> Report:
        """Bring everything up that is not; what this call started goes down again if it fails."""
        before = {service.name for service in (self.chain, self.relay) if service.pid is not None}
        try:
            return self._up(wanted, members)
        except BaseException:
            for service in (self.relay, self.chain):
                if service.name not in before:
                    with contextlib.suppress(ServiceFailed):
                        service.stop()
            raise

    def _up(self, wanted: Mapping[str, object], members: Sequence[str]) -> Report:
        plan = self._planned(wanted)
        if beyond_loopback(plan.host):
            _tell(EXPOSED.format(host=plan.host))
        keys = self._secrets()
        self._start_chain(plan)
        deployer = Deployer(plan.rpc, bytes.fromhex(keys.deployer))
        self._fill_purses(deployer.rpc, keys)
        deployment = self._deployed(plan, deployer)
        self._enter_relay(plan, deployer, deployment)
        self._start_relay(plan, keys, deployer, deployment)
        if members:
            self._found(plan, deployer, deployment, members)
        plan = self._keep(msgspec.structs.replace(plan, ready=True))
        return self._report(plan, deployment, sealed=deployer.sealed(deployment.network))

    def _planned(self, wanted: Mapping[str, object]) -> Plan:
        """The plan of before, which the flags may repeat and not change, or a new one from the flags."""
        plan = self._plan()
        if plan is None:
            plan = _new_plan(self.folder, wanted)
            # Before they are kept: a port that is kept is not chosen again.
            _require_free(plan.host, plan.port, "--port")
            _require_free(plan.host, plan.relay_port, "--relay-port")
            return self._keep(plan)
        for name, value in wanted.items():
            if value not in (None, 0, getattr(plan, name)):
                flag = f"--{name.replace('_', '-')}"
                raise BadConfig(
                    f"The network in {self.folder} was made with {flag} {getattr(plan, name)}, which stays.",
                    f"Leave {flag} out, or make another network with another --dir.",
                )
        return plan

    def _plan(self) -> Plan | None:
        return _read(self.folder / "devnet.json", Plan)

    def _keep(self, plan: Plan) -> Plan:
        if plan != self._plan():
            files.write(
                self.folder / "devnet.json", _json(plan), mode=files.SECRET
            )  # `db` may hold a password
        return plan

    def _secrets(self) -> Secrets:
        path = self.folder / "secrets.json"
        kept = _read(path, Secrets)
        if kept is None:
            kept = Secrets(new_secret().hex(), new_secret().hex())
            files.write(path, _json(kept), mode=files.SECRET)
        return kept

    def _start_chain(self, plan: Plan) -> None:
        rpc = Rpc(plan.rpc)
        if self.chain.pid is None:
            _require_free(plan.host, plan.port, "--port")
            self.chain.start(_chain_command(plan, self.folder), cwd=self.folder, environment=environment())
        self.chain.wait_until(lambda: _answers(rpc))
        found = quantity(rpc.call("eth_chainId"))
        if found != CHAIN_IDS[plan.chain]:
            raise ServiceFailed(f"Another chain ({found}) answers at {plan.rpc}.", "End it, or use --port 0.")

    def _fill_purses(self, rpc: Rpc, keys: Secrets) -> None:
        for key in (keys.deployer, keys.sponsor):
            account = address_of(bytes.fromhex(key))
            if quantity(rpc.call("eth_getBalance", hexed(account), "latest")) < LEAST_WEI:
                fund(rpc, account, PURSE_WEI)

    def _deployed(self, plan: Plan, deployer: Deployer) -> Deployment:
        path = self.folder / "deployment.json"
        deployment = read_deployment(path)
        if deployment is not None and deployer.present(deployment.network):
            return deployment
        if plan.ready:
            raise NoContract(
                f"The chain in {self.folder} no longer holds this network: its state was lost.",
                f"Begin anew: `{_command('down', self.folder)}`, then delete the folder.",
            )
        deployment = deployer.deploy(Rules(Policy[plan.policy.upper()]))
        files.write(path, _json(deployment))
        return deployment

    def _enter_relay(self, plan: Plan, deployer: Deployer, deployment: Deployment) -> None:
        pair = certificates.make(self.folder / "tls", [plan.advertised])
        relay = RelayAddress(plan.relay, pair.spki, bytes(32))
        if deployer.relays(deployment.network) != (relay,):
            deployer.set_relays(deployment.network, [relay])

    def _start_relay(self, plan: Plan, keys: Secrets, deployer: Deployer, deployment: Deployment) -> None:
        settings = self._relay_settings(plan, keys, deployment)
        text = "".join(f"{name}={_quoted(value)}\n" for name, value in settings.items())
        files.write(self.folder / "relay.env", text, mode=files.SECRET)
        relays = deployer.relays(deployment.network)
        if self.relay.pid is None:
            _require_free(plan.host, plan.relay_port, "--relay-port")
            # Every setting is in the environment and none on the command line, which others can read.
            command = [sys.executable, str(ROOT / "server.py")]
            self.relay.start(command, cwd=self.folder, environment=environment() | settings)
        self.relay.wait_until(lambda: _relay_answers(relays))

    def _relay_settings(self, plan: Plan, keys: Secrets, deployment: Deployment) -> dict[str, str]:
        sponsor = bytes.fromhex(keys.sponsor)
        return {
            "CONTRACT_ADDRESS": deployment.directory,
            "RPC_URL": plan.rpc,
            "DATABASE_URL": plan.db,
            "BLOB_URL": str(self.folder / "files"),
            "ACCOUNT": to_checksum(address_of(sponsor)),
            "PRIVATE_KEY": f"0x{keys.sponsor}",
            "SPONSOR_ETHER_PER_DAY": str(SPONSOR_ETHER_PER_DAY),
            "RELAY_HOST": plan.host,
            "RELAY_PORT": str(plan.relay_port),
            "RELAY_CERT": str(self.folder / "tls" / "relay.pem"),
            "RELAY_KEY": str(self.folder / "tls" / "relay.key"),
        }

    # --- founders -----------------------------------------------------------------------------------------

    def _found(self, plan: Plan, deployer: Deployer, deployment: Deployment, members: Sequence[str]) -> None:
        """Register the founders with the client that everybody uses, seat them and seal."""
        with ThreadPoolExecutor(min(len(members), REGISTRATIONS)) as threads:
            list(threads.map(lambda name: self._register(plan, deployment, name), members))
        self._seat(deployer, deployment, members)

    def _seat(self, deployer: Deployer, deployment: Deployment, members: Sequence[str]) -> None:
        network = deployment.network
        if not deployer.sealed(network):
            deployer.seat(network, members)
            deployer.seal(network)
        elif missing := [name for name in members if not deployer.is_member(network, name)]:
            raise UsageError(
                f"The network is sealed, so {', '.join(missing)} cannot be seated as a founder.",
                "From now on the members decide: chatchain request, then a vote.",
            )

    def _register(self, plan: Plan, deployment: Deployment, name: str) -> None:
        home = self.folder / "homes" / name
        account = Home(home).account()
        if account is not None and account.uid:
            return
        home.parent.mkdir(mode=0o700, exist_ok=True)
        password = home.with_name(f"{name}.password")
        if not password.exists():
            files.write(password, secrets.token_urlsafe(18) + "\n", mode=files.SECRET)
        command = [
            sys.executable,
            str(ROOT / "client.py"),
            "--home",
            str(home),
            "--password-file",
            str(password),
        ]
        command += ["--rpc", plan.rpc, "--directory", deployment.directory, "--no-input", "--json"]
        command += ["register", name, "--mnemonic-file", str(home.with_name(f"{name}.mnemonic"))]
        try:
            done = subprocess.run(
                command,
                cwd=self.folder,
                env=environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=COMMAND_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ServiceFailed(
                f"Registering {name} takes longer than {COMMAND_SECONDS} s.", f"See {self.relay.log}."
            ) from None
        if done.returncode:
            said = (done.stdout + done.stderr).strip()
            raise ServiceFailed(f"Registering {name} failed (exit code {done.returncode}):\n{said}")

    # --- the other commands -------------------------------------------------------------------------------

    def seat(self, names: Sequence[str]) -> Report:
        """Seat registered users as founders and seal."""
        plan, deployment = self._made()
        deployer = Deployer(plan.rpc, bytes.fromhex(self._secrets().deployer))
        self._seat(deployer, deployment, names)
        return self._report(plan, deployment, sealed=True)

    def status(self) -> Report:
        """What is here and what of it runs."""
        plan, deployment = self._made()
        sealed = None
        with contextlib.suppress(ChainError):  # it is down, which the process ids say
            sealed = Deployer(plan.rpc, bytes.fromhex(self._secrets().deployer)).sealed(deployment.network)
        return self._report(plan, deployment, sealed=sealed)

    def down(self) -> dict[str, int]:
        """Stop what runs, the chain last and only when it has written its state; gives the process ids."""
        return {s.name: pid for s in (self.relay, self.chain) if (pid := s.stop()) is not None}

    def _made(self) -> tuple[Plan, Deployment]:
        plan, deployment = self._plan(), read_deployment(self.folder / "deployment.json")
        if plan is None or deployment is None:
            raise _nothing_in(self.folder)
        return plan, deployment

    def _report(self, plan: Plan, deployment: Deployment, *, sealed: bool | None) -> Report:
        network = NetworkSettings((plan.rpc,), deployment.network.directory, deployment.chain_id)
        homes = sorted((self.folder / "homes").glob("*.password"))
        pids = {s.name: pid for s in (self.chain, self.relay) if (pid := s.pid) is not None}
        return Report(
            rpc=plan.rpc,
            contract_address=deployment.directory,
            relay=plan.relay,
            db=plan.db,
            env_file=str(self.folder / "relay.env"),
            join=join_link(network),
            running={name: name in pids for name in (self.chain.name, self.relay.name)},
            pids=pids,
            chain=plan.chain,
            policy=plan.policy,
            dir=str(self.folder),
            sealed=sealed,
            members=tuple(path.stem for path in homes),
        )


# --- choosing -----------------------------------------------------------------------------------------------


def _new_plan(folder: Path, wanted: Mapping[str, object]) -> Plan:
    host = str(wanted["host"] or LOOPBACK)
    port, relay_port = (
        default if (value := wanted[name]) is None else int(str(value))
        for name, default in (("port", CHAIN_PORT), ("relay_port", RELAY_PORT))
    )
    free = _free_ports(host, 2)
    return Plan(
        chain=str(wanted["chain"] or "anvil"),
        policy=str(wanted["policy"] or "open"),
        host=host,
        port=port or free[0],
        relay_port=relay_port or free[1],
        db=str(wanted["db"] or f"sqlite:///{folder / 'relay.sqlite3'}"),
        advertised=_advertised(host),
    )


def _chain_command(plan: Plan, folder: Path) -> list[str]:
    state = folder / "chain"
    state.mkdir(exist_ok=True)
    if plan.chain == "anvil":
        command = [str(tools.anvil_path()), "--host", plan.host, "--port", str(plan.port), "--quiet"]
        command += ["--chain-id", str(CHAIN_IDS["anvil"]), "--hardfork", HARDFORK, "--accounts", "0"]
        return [*command, "--state", str(state / "state.json"), "--state-interval", str(STATE_SECONDS)]
    command = [*tools.ganache_command(), "--server.host", plan.host, "--server.port", str(plan.port)]
    command += ["--chain.chainId", str(CHAIN_IDS["ganache"]), "--chain.networkId", str(CHAIN_IDS["ganache"])]
    command += ["--chain.hardfork", HARDFORK, "--wallet.totalAccounts", "0", "--logging.quiet"]
    return [*command, "--database.dbPath", str(state / "ganache")]


def environment() -> dict[str, str]:
    """The caller's environment without settings of ours, which were meant for another network."""
    ours = {option.variable for option in (*CLIENT_OPTIONS, *SERVER_OPTIONS)}
    return {name: value for name, value in os.environ.items() if name not in ours}


# --- addresses and ports ------------------------------------------------------------------------------------


def beyond_loopback(host: str) -> bool:
    """Whether other machines can reach what listens on a host."""
    if host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True  # some name; better one warning too many


def _advertised(host: str) -> str:
    """The host that others use: for "every interface" the address of the one that leads outside."""
    try:
        everywhere = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return host
    if not everywhere:
        return host
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # an address for documentation; choosing a route sends nothing
        return str(probe.getsockname()[0])
    return LOOPBACK


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _free_ports(host: str, count: int) -> list[int]:
    """Ports that nobody holds, all different.

    Of those that systems lend to outgoing connections, one could be taken before the server listens there.
    """
    free: list[int] = []
    with contextlib.ExitStack() as held:
        while len(free) < count:
            port = secrets.choice(SERVER_PORTS)
            probe = held.enter_context(socket.socket(_family(host)))
            try:
                _bind(probe, host, port)
            except BadConfig as error:
                if not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.EADDRINUSE:
                    raise
            else:
                free.append(port)
    return free


def _require_free(host: str, port: int, flag: str) -> None:
    """Refuse a port on which another program listens, in better words than the log of the one that fails."""
    with socket.socket(_family(host)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            _bind(probe, host, port)
        except BadConfig as error:
            # Connections that ended a moment ago can keep a port as well; they do not stand in the way.
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.EADDRINUSE:
                raise
            if _somebody_listens(host, port):
                hint = f"Another program listens there; {flag} 0 takes a free one."
                raise BadConfig(error.message, hint) from error


def _somebody_listens(host: str, port: int) -> bool:
    address = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)  # noqa: S104  # not bound: asked about
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=2):
        return True
    return False


def _bind(probe: socket.socket, host: str, port: int) -> None:
    try:
        probe.bind((host, port))
    except OSError as error:
        raise BadConfig(f"Nothing can listen on {host}:{port}: {error.strerror}.", "Check --host.") from error


def _answers(rpc: Rpc) -> bool:
    try:
        rpc.call("eth_chainId")
    except ChainError:
        return False
    return True


def _relay_answers(relays: Sequence[RelayAddress]) -> bool:
    """Whether the relay shows its certificate and greets, as a client will find it."""

    async def greet() -> None:
        await (await dial(relays)).close()

    try:
        asyncio.run(greet())
    except NetworkError:
        return False
    return True


# --- the command --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Hold the folder, so that two commands do not work on it at once; gives whether it was made just now."""
    new = not folder.exists()
    os.umask(0o077)  # also for what is started from here: whoever may read a file may lock it
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        (folder / "lock").chmod(0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HomeBusy(f"Another devnet command works on {folder}.", "Let it end first.") from None
        yield new


@contextlib.contextmanager
def _undone(folder: Path) -> Iterator[None]:
    """What was refused leaves nothing behind: a plan that stayed would refuse the flags that mend it.

    What broke off for another reason stays, for its logs and because the same command goes on with it.
    """
    try:
        yield
    except (UsageError, tools.ToolMissing):
        shutil.rmtree(folder)
        raise


def _json(value: msgspec.Struct) -> str:
    return msgspec.json.format(msgspec.json.encode(value)).decode() + "\n"


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise BadConfig(f"The file {path} cannot be read: {error}.") from error


def _quoted(value: str) -> str:
    """As `.env` files and shells read it alike."""
    return value if value.replace("/", "").replace(":", "").replace(".", "").isalnum() else f"'{value}'"


def _tell(sentence: str) -> None:
    print(f"devnet: {sentence}", file=sys.stderr, flush=True)


def _nothing_in(folder: Path) -> NotFoundError:
    return NotFoundError(f"There is no network in {folder}.", f"`{_command('up', folder)}` makes one.")


def _command(words: str, folder: Path) -> str:
    """A command of this program for this folder, to be typed as it stands in the project's folder."""
    where = "" if folder == FOLDER.absolute() else f" --dir {shlex.quote(str(folder))}"
    return f"python deploy/devnet.py {words}{where}"


def _explain(report: Report) -> None:
    """What a person does next; programs read the one line on stdout."""
    lines = [f"The network runs (chain {report.rpc}, relay {report.relay}). Newcomers type"]
    lines += [
        f"  chatchain --user NAME join {shlex.quote(report.join)}",
        "  chatchain --user NAME register NAME",
    ]
    if report.members:
        homes = Path(report.dir) / "homes"
        name = report.members[0]
        settings = f"CHATCHAIN_HOME={homes / name} CHATCHAIN_PASSWORD_FILE={homes / name}.password"
        lines += [f"To be {name} ({', '.join(report.members)} have homes here):", f"  export {settings}"]
        lines += ["  chatchain status"]
    lines += [f"To stop it: {_command('down', Path(report.dir))}"]
    print("\n".join(lines), file=sys.stderr, flush=True)


def _names(text: str) -> list[str]:
    return [normalise_username(name) for name in dict.fromkeys(text.replace(",", " ").split())]


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number < 65536:
        raise argparse.ArgumentTypeError(f"{number} is no port: 0 to 65535")
    return number


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--dir", type=Path, default=FOLDER, metavar="D", help=f"its folder; default {FOLDER}")
    parser = argparse.ArgumentParser(description="A development network: chain, contracts, relay, founders.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", parents=[common], help="bring it up, and print one JSON object")
    up.add_argument("--chain", choices=sorted(CHAIN_IDS), help="default anvil")
    up.add_argument("--policy", choices=["open", "vote"], help="who may message: default open")
    up.add_argument("--members", default="", metavar="NAMES", help="founders to register, such as ada,bob")
    up.add_argument("--db", metavar="URL", help="the relay's database; default SQLite in D")
    up.add_argument("--host", metavar="H", help=f"where to listen; default {LOOPBACK}")
    up.add_argument(
        "--port", type=_port, metavar="P", help=f"the chain's; default {CHAIN_PORT}, 0 = a free one"
    )
    up.add_argument("--relay-port", type=_port, metavar="P", help=f"default {RELAY_PORT}, 0 = a free one")
    commands.add_parser("down", parents=[common], help="stop it; everything stays in D")
    commands.add_parser("status", parents=[common], help="what it is and what runs")
    seat = commands.add_parser("seat", parents=[common], help="seat registered users as founders, and seal")
    seat.add_argument("names", nargs="+", metavar="NAME")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the commands; gives the exit code of chatchain's table."""
    options = _parser().parse_args(arguments)
    folder = options.dir.absolute()
    try:
        if options.command != "up" and not (folder / "devnet.json").exists():
            raise _nothing_in(folder)
        with _alone(folder) as new, _undone(folder) if new else contextlib.nullcontext():
            _run(options, Devnet(folder))
    except (ChatchainError, tools.ToolMissing) as error:
        hint = getattr(error, "hint", "")
        print(f"{error}" + (f"\n{hint}" if hint else ""), file=sys.stderr)
        return error.exit_code if isinstance(error, ChatchainError) else 1
    except KeyboardInterrupt:
        _tell("interrupted; what was started for it is stopped again")
        return 130
    return 0


def _run(options: argparse.Namespace, devnet: Devnet) -> None:
    if options.command == "down":
        print(msgspec.json.encode({"stopped": devnet.down()}).decode())
        return
    if options.command == "status":
        report = devnet.status()
    elif options.command == "seat":
        report = devnet.seat(_names(" ".join(options.names)))
    else:
        wanted = {
            name: getattr(options, name) for name in ("chain", "policy", "host", "port", "relay_port", "db")
        }
        report = devnet.up(wanted, _names(options.members))
        if not report.sealed:
            _tell(f"not sealed: when founders have registered, `{_command('seat NAME…', devnet.folder)}`")
        _explain(report)
    print(msgspec.json.encode(report).decode(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
