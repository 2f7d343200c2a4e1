"""Deploys the contracts and enters what belongs in them before the seal.

    python deploy/deploy.py --rpc URL [--policy open|vote] [--relay HOST:PORT --cert FILE] …
    python deploy/deploy.py relay HOST:PORT --cert FILE [--next-cert FILE]
    python deploy/deploy.py seat NAME… [--seal]
    python deploy/deploy.py seal

The first writes `deploy/addresses/<chainId>.json` and prints the lines for `.env` on stdout; what it tells
people goes to stderr. The others find the network by --directory, CONTRACT_ADDRESS or that file.

The key comes from --key-file or PRIVATE_KEY (environment or `.env`), never from the command line. On a
development chain the first key of the phrase that every such chain knows will do; it is funded if need be.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

if __package__ in {None, ""}:  # started as a file: the project's folder is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chatchain.programs.installed import Installed

with Installed():
    import msgspec

    from chatchain.chain.artifacts import Artifact
    from chatchain.chain.rpc import Rpc, hexed, quantity
    from chatchain.config import ServerConfig, load_server
    from chatchain.errors import BadConfig, ChatchainError, MissingInput, UsageError
    from chatchain.identity.keys import SECP256K1_N, address_of, new_secret, parse_address, to_checksum
    from chatchain.model import Network, Policy, RelayAddress
    from deploy import certificates, files
    from deploy.deployer import DEV_CHAINS, THRESHOLD, VOTING_PERIOD, Deployer, Deployment, Rules, fund

ADDRESSES: Final = Path(__file__).resolve().parent / "addresses"

DEV_KEY: Final = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
"""First key of "test test … junk", the phrase that development chains start with: public, worth nothing."""

DEV_WEI: Final = 100 * 10**18
LEAST_WEI: Final = 10**17
"""With less than this a key on a development chain gets more; a deployment costs a tenth of it at 10 gwei."""

NO_SPKI: Final = bytes(32)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the commands; gives the exit code of chatchain's table."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except ChatchainError as error:
        print(f"{error.message}\n{error.hint}".rstrip(), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _run(options: argparse.Namespace) -> int:
    config = load_server({"rpc": options.rpc, "directory": options.directory})
    if not config.rpc:
        raise MissingInput("Which chain? No RPC endpoint was given.", "Give --rpc URL, or set RPC_URL.")
    key, chain_id = _key(options.key_file, config, Rpc(config.rpc[0]))
    deployer = Deployer(config.rpc[0], key)
    _tell(f"chain {chain_id} at {deployer.rpc.name}, deployer {to_checksum(deployer.account)}")
    if options.command is None:
        _deploy(options, config, deployer)
        return 0
    network = _network(config, deployer, options.addresses)
    if options.command == "relay":
        relay = relay_address(options.endpoint, options.cert, options.next_cert)
        deployer.set_relays(network, [relay])
        _tell(f"relay {relay.endpoint} with key 0x{relay.spki.hex()}")
    elif options.command == "seat":
        deployer.seat(network, options.names)
        _tell(f"seated as founders: {', '.join(options.names)}")
    if options.command == "seal" or (options.command == "seat" and options.seal):
        deployer.seal(network)
        _tell("sealed: from now on only votes change this network")
    return 0


def _deploy(options: argparse.Namespace, config: ServerConfig, deployer: Deployer) -> None:
    relays = _relays(options)  # a bad certificate must be found before anything is paid for
    path = options.addresses / f"{deployer.chain_id()}.json"
    deployment = _standing(path, deployer) if options.once else None
    if deployment is None:
        rules = Rules(Policy[options.policy.upper()], options.threshold, options.voting_period)
        deployment = deployer.deploy(rules, _compiled() if options.compile else None)
        if relays:
            deployer.set_relays(deployment.network, relays)
        files.write(path, msgspec.json.format(msgspec.json.encode(deployment)).decode() + "\n")
        _tell(f"deployed at block {deployment.block}; addresses in {path}")
    else:
        _tell(f"deployed before; addresses in {path}")
    for relay in deployer.relays(deployment.network):
        _tell(f"relay {relay.endpoint} with key 0x{relay.spki.hex()}")
    if options.relay_env is not None:
        _relay_env(options.relay_env, deployment, config, deployer.rpc)
    print("\n".join(env_lines(deployment, config.rpc)))
    if not deployer.sealed(deployment.network):
        _tell("not sealed: when the founders have registered, `python deploy/deploy.py seat NAME… --seal`")


def _relays(options: argparse.Namespace) -> list[RelayAddress]:
    if options.relay is None and options.cert is None:
        return []
    if options.relay is None or options.cert is None:
        raise UsageError(
            "--relay and --cert belong together.", "Clients need the address and the key's hash."
        )
    return [relay_address(options.relay, options.cert, options.next_cert)]


def relay_address(endpoint: str, certificate: Path, following: Path | None = None) -> RelayAddress:
    """A relay as the Directory holds it; raises for an address or a certificate that cannot be meant."""
    host, colon, port = endpoint.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"{endpoint!r} is not the address of a relay.", "It has the form host:port.")
    spki = certificates.spki_sha256(certificates.read_certificate(certificate))
    after = certificates.spki_sha256(certificates.read_certificate(following)) if following else NO_SPKI
    return RelayAddress(endpoint, spki, after)


def env_lines(deployment: Deployment, endpoints: Sequence[str]) -> list[str]:
    """What goes into `.env`; the private key is whoever's it is, and is never printed."""
    return [
        f"CONTRACT_ADDRESS={deployment.directory}",
        f"RPC_URL={','.join(endpoints)}",
        f"ACCOUNT={deployment.deployer}",
    ]


def _relay_env(path: Path, deployment: Deployment, config: ServerConfig, rpc: Rpc) -> None:
    """The relay's own settings: a sponsor key that is not the deployer's. One that is there stays."""
    if path.exists():
        _tell(f"{path} is there already and stays as it is")
        return
    secret = new_secret()
    sponsor = address_of(secret)
    lines = env_lines(deployment, config.rpc)[:-1]
    lines += [f"ACCOUNT={to_checksum(sponsor)}", f"PRIVATE_KEY=0x{secret.hex()}"]
    files.write(path, "\n".join(lines) + "\n", mode=files.SECRET)
    if deployment.chain_id in DEV_CHAINS:
        fund(rpc, sponsor, DEV_WEI)
        _tell(f"the relay's settings are in {path}; its sponsor {to_checksum(sponsor)} has ether")
    else:
        _tell(f"the relay's settings are in {path}; send ether to its sponsor {to_checksum(sponsor)}")


def _standing(path: Path, deployer: Deployer) -> Deployment | None:
    """The deployment of an earlier run, if its file is here and its contracts still stand."""
    deployment = read_deployment(path)
    return deployment if deployment is not None and deployer.present(deployment.network) else None


def read_deployment(path: Path) -> Deployment | None:
    """The content of an addresses file; None if there is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Deployment)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise BadConfig(
            f"The file {path} cannot be read: {error}.", "Deploy again, or correct it."
        ) from error


def _network(config: ServerConfig, deployer: Deployer, folder: Path) -> Network:
    """The network that a command is about."""
    if config.directory is not None:
        return deployer.network_at(parse_address(config.directory))
    deployment = read_deployment(folder / f"{deployer.chain_id()}.json")
    if deployment is None:
        raise MissingInput(
            "Which network? No Directory was given, and none was deployed from here.",
            "Give --directory ADDRESS, or set CONTRACT_ADDRESS.",
        )
    return deployer.network_at(deployment.network.directory)


def _key(key_file: Path | None, config: ServerConfig, rpc: Rpc) -> tuple[bytes, int]:
    """The deployer's key, and the chain that it is for; on a development chain it has ether afterwards."""
    chain_id = quantity(rpc.call("eth_chainId"))
    if key_file is not None:
        key = read_key(key_file)
    elif config.private_key is not None:
        key = config.private_key
    elif chain_id in DEV_CHAINS:
        key = bytes.fromhex(DEV_KEY)
        _tell("no PRIVATE_KEY: using the key that all development chains know")
    else:
        raise MissingInput(
            f"Chain {chain_id} wants a deployer's key.", "Set PRIVATE_KEY in .env, or give --key-file FILE."
        )
    account = address_of(key)
    if config.account is not None and key_file is None and config.private_key is not None:
        _require_account(config.account, to_checksum(account))
    if chain_id in DEV_CHAINS and quantity(rpc.call("eth_getBalance", hexed(account), "latest")) < LEAST_WEI:
        fund(rpc, account, DEV_WEI)
    return key, chain_id


def _require_account(told: str, derived: str) -> None:
    if told.lower() != derived.lower():
        raise BadConfig(
            f"ACCOUNT is {told}, but PRIVATE_KEY belongs to {derived}.",
            "Correct one of them, or leave ACCOUNT out.",
        )


def read_key(path: Path) -> bytes:
    """A secp256k1 key from a file with 64 hex digits; no error repeats what is in it."""
    try:
        text = path.read_text(encoding="ascii").strip().removeprefix("0x")
        key = bytes.fromhex(text)
    except OSError as error:
        raise BadConfig(f"The key file {path} cannot be read: {error.strerror}.") from None
    except ValueError:
        key = b""
    if len(key) != 32 or not 0 < int.from_bytes(key, "big") < SECP256K1_N:
        raise BadConfig(
            f"The key file {path} does not hold a key.", "It holds 64 hex digits and nothing else."
        )
    return key


def _compiled() -> dict[str, Artifact]:
    from deploy import compile as compiler

    _tell("compiling")
    try:
        built = compiler.compile_contracts()
    except compiler.CompileFailed as error:
        raise BadConfig(f"The contracts do not compile: {error}.") from error
    return {name: msgspec.convert(content, Artifact) for name, content in built.items()}


def _tell(sentence: str) -> None:
    print(f"deploy: {sentence}", file=sys.stderr)


def _common(*, default: object) -> argparse.ArgumentParser:
    """Options that stand before or after the command; made twice, as argparse shares what it inherits."""
    common = argparse.ArgumentParser(add_help=False, argument_default=default)
    common.add_argument("--rpc", metavar="URL", help="endpoint of the chain (RPC_URL)")
    common.add_argument("--directory", metavar="ADDRESS", help="the network's Directory (CONTRACT_ADDRESS)")
    common.add_argument("--key-file", type=Path, metavar="FILE", help="the deployer's key, 64 hex digits")
    common.add_argument("--addresses", type=Path, metavar="DIR", help="folder of <chainId>.json")
    return common


def _parser() -> argparse.ArgumentParser:
    after = _common(default=argparse.SUPPRESS)
    parser = argparse.ArgumentParser(
        parents=[_common(default=None)],
        description="Deploy the contracts; or, before the seal, enter the relay and the founders.",
    )
    parser.set_defaults(addresses=ADDRESSES)
    parser.add_argument(
        "--policy", choices=["open", "vote"], default="open", help="who may message: default open"
    )
    parser.add_argument(
        "--threshold",
        type=int,
        default=THRESHOLD,
        metavar="BPS",
        help="yes votes must exceed it; default 5000",
    )
    parser.add_argument(
        "--voting-period", type=int, default=VOTING_PERIOD, metavar="SECONDS", help="default 7 days"
    )
    parser.add_argument("--relay", metavar="HOST:PORT", help="enter this relay")
    parser.add_argument("--cert", type=Path, metavar="FILE", help="… with the hash of this certificate's key")
    parser.add_argument("--next-cert", type=Path, metavar="FILE", help="… and of the one that will follow")
    parser.add_argument("--compile", action="store_true", help="compile instead of taking the artifacts")
    parser.add_argument("--once", action="store_true", help="do nothing if the deployment of before stands")
    parser.add_argument(
        "--relay-env",
        type=Path,
        metavar="FILE",
        help="write the relay's settings here, with a key of its own",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    relay = commands.add_parser("relay", parents=[after], help="enter a relay, before the seal")
    relay.add_argument("endpoint", metavar="HOST:PORT")
    relay.add_argument("--cert", type=Path, metavar="FILE", required=True)
    relay.add_argument("--next-cert", type=Path, metavar="FILE")
    seat = commands.add_parser("seat", parents=[after], help="seat registered users as founders")
    seat.add_argument("names", nargs="+", metavar="NAME")
    seat.add_argument("--seal", action="store_true", help="then seal")
    commands.add_parser("seal", parents=[after], help="end the deployer's role, for good")
    return parser


if __name__ == "__main__":
    sys.exit(main())
