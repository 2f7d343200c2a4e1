"""Deploying on real chains: the contracts stand, wired to each other, and nothing is paid for in vain."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from chatchain.chain.calls import Calls
from chatchain.chain.rpc import Endpoints, Rpc, hexed, quantity
from chatchain.chain.writer import ChainWriter
from chatchain.config import CLIENT_OPTIONS, SERVER_OPTIONS
from chatchain.identity.keys import address_of, new_secret, parse_address, to_checksum
from chatchain.model import Address, Network
from deploy import certificates, deploy
from deploy.deployer import Deployer, Deployment, Rules, created_address, fund
from tests.fixtures.chains import DevChain

ROOT = Path(__file__).resolve().parent.parent.parent
NOBODY = Address(bytes(20))


@pytest.fixture(params=["anvil", "ganache"])
def chain(request: pytest.FixtureRequest) -> DevChain:
    """Each of the two development chains."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, DevChain)
    return found


@pytest.fixture(autouse=True)
def _nothing_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of whoever runs the tests reaches them."""
    for option in (*CLIENT_OPTIONS, *SERVER_OPTIONS):
        if option.variable:
            monkeypatch.delenv(option.variable, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A deployer of this test's own, so that tests on a shared chain do not meet."""
    path = tmp_path / "deployer.key"
    path.write_text(f"0x{new_secret().hex()}\n")
    return path


def arguments(chain: DevChain, key_file: Path, *more: str) -> list[str]:
    return [*more, "--rpc", chain.url, "--key-file", str(key_file), "--addresses", "addresses"]


def deployed(chain: DevChain) -> Deployment:
    found = deploy.read_deployment(Path("addresses") / f"{chain.chain_id}.json")
    assert found is not None
    return found


def account_of(key_file: Path) -> Address:
    return address_of(deploy.read_key(key_file))


def transactions(chain: DevChain, account: Address) -> int:
    return quantity(chain.rpc("eth_getTransactionCount", hexed(account), "latest"))


def register(chain: DevChain, network: Network, name: str) -> None:
    """Register a user with a record that only the contract must accept."""
    key = new_secret()
    fund(Rpc(chain.url), address_of(key), 10**18)
    signer = address_of(new_secret())
    call = Calls().register(name, b"\1" * 32, b"\1" * 26, NOBODY, signer, b"a record")
    ChainWriter(Endpoints([chain.url]), network).send(call, key)


def test_everything_is_deployed_and_entered(
    chain: DevChain, key_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Policy, relay and the key's hash are on the chain; file and printed lines name the same Directory."""
    pair = certificates.make(tmp_path / "tls")
    relay = ["--relay", "relay.example:5555", "--cert", str(pair.certificate)]
    assert deploy.main(arguments(chain, key_file, "--policy", "vote", *relay)) == 0
    deployment = deployed(chain)
    deployer = Deployer(chain.url, deploy.read_key(key_file))
    assert deployer.network_at(parse_address(deployment.directory)) == deployment.network
    [entered] = deployer.relays(deployment.network)
    assert (entered.endpoint, entered.spki) == ("relay.example:5555", pair.spki)
    assert not deployer.sealed(deployment.network)
    assert (deployment.chain_id, deployment.policy) == (chain.chain_id, "vote")
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        f"CONTRACT_ADDRESS={deployment.directory}",
        f"RPC_URL={chain.url}",
        f"ACCOUNT={to_checksum(account_of(key_file))}",
    ]
    assert deploy.read_key(key_file).hex() not in printed.out + printed.err


def test_founders_are_seated_and_the_seal_ends_the_deployers_role(
    chain: DevChain, key_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the seal neither a seat nor a relay is the deployer's to give; each refusal is a sentence."""
    certificate = str(certificates.make(tmp_path / "tls").certificate)
    assert deploy.main(arguments(chain, key_file, "--policy", "vote")) == 0
    network = deployed(chain).network
    assert deploy.main(arguments(chain, key_file, "seat", "ada")) == 6
    assert "Nobody is registered as ada" in capsys.readouterr().err
    for name in ("ada", "bob"):
        register(chain, network, name)
    assert deploy.main(arguments(chain, key_file, "seat", "ada", "bob", "--seal")) == 7  # no relay yet
    assert deploy.main(arguments(chain, key_file, "relay", "localhost:5555", "--cert", certificate)) == 0
    assert deploy.main(arguments(chain, key_file, "seat", "ada", "bob", "--seal")) == 0
    deployer = Deployer(chain.url, deploy.read_key(key_file))
    assert deployer.sealed(network)
    assert all(deployer.is_member(network, name) for name in ("ada", "bob"))
    capsys.readouterr()
    register(chain, network, "carol")
    assert deploy.main(arguments(chain, key_file, "seat", "carol")) == 7
    assert deploy.main(arguments(chain, key_file, "relay", "evil:5555", "--cert", certificate)) == 7
    assert "seal" in capsys.readouterr().err
    assert deploy.main(arguments(chain, key_file, "seal")) == 0  # done already
    assert [relay.endpoint for relay in deployer.relays(network)] == ["localhost:5555"]


def test_once_means_once(anvil: DevChain, key_file: Path) -> None:
    """With --once a standing deployment is found again and nothing is sent; a lost one is made anew."""
    assert deploy.main(arguments(anvil, key_file, "--once")) == 0
    first, sent = deployed(anvil), transactions(anvil, account_of(key_file))
    assert deploy.main(arguments(anvil, key_file, "--once")) == 0
    assert (deployed(anvil), transactions(anvil, account_of(key_file))) == (first, sent)
    anvil.rpc("anvil_setCode", first.directory, "0x")
    assert deploy.main(arguments(anvil, key_file, "--once")) == 0
    assert deployed(anvil).directory != first.directory


def test_the_sponsors_key_is_its_own_and_stays_in_its_file(
    anvil: DevChain, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The relay's settings hold a fresh key with ether; another run leaves them alone."""
    assert deploy.main(arguments(anvil, key_file, "--relay-env", "relay.env")) == 0
    text = Path("relay.env").read_text()
    settings = dict(line.split("=", 1) for line in text.splitlines())
    assert Path("relay.env").stat().st_mode & 0o777 == 0o600
    assert settings["CONTRACT_ADDRESS"] == deployed(anvil).directory
    sponsor = address_of(bytes.fromhex(settings["PRIVATE_KEY"][2:]))
    assert to_checksum(sponsor) == settings["ACCOUNT"]
    assert sponsor != account_of(key_file)
    assert quantity(anvil.rpc("eth_getBalance", hexed(sponsor), "latest")) == deploy.DEV_WEI
    printed = capsys.readouterr()
    assert settings["PRIVATE_KEY"][2:] not in printed.out + printed.err
    assert deploy.main(arguments(anvil, key_file, "--once", "--relay-env", "relay.env")) == 0
    assert Path("relay.env").read_text() == text


def test_a_key_that_is_not_the_deployers_is_refused_with_the_way_to_give_the_right_one(
    anvil: DevChain,
    key_file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where a relay's settings are, its sponsor's key is what deploy.py finds first."""
    assert deploy.main(arguments(anvil, key_file, "--relay-env", ".env")) == 0
    register(anvil, deployed(anvil).network, "dora")
    capsys.readouterr()
    without_key = ["seat", "dora", "--rpc", anvil.url]
    assert deploy.main(without_key) == 7
    assert "--key-file" in capsys.readouterr().err
    assert deploy.main([*without_key, "--key-file", str(key_file)]) == 0


def test_what_is_compiled_here_is_what_the_package_carries(anvil: DevChain, key_file: Path) -> None:
    """--compile deploys code that the package recognises as its own."""
    assert deploy.main(arguments(anvil, key_file, "--compile")) == 0
    assert Deployer(anvil.url, deploy.read_key(key_file)).present(deployed(anvil).network)


def test_a_bad_certificate_costs_nothing(
    anvil: DevChain, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What can be found wrong beforehand is found before the first transaction."""
    for relay, sentence in (
        (["--relay", "localhost:5555", "--cert", "none.pem"], "none.pem cannot be read"),
        (["--relay", "localhost", "--cert", "none.pem"], "host:port"),
        (["--relay", "localhost:0", "--cert", "none.pem"], "host:port"),
        (["--relay", "localhost:5555"], "belong together"),
        (["--cert", "none.pem"], "belong together"),
    ):
        assert deploy.main(arguments(anvil, key_file, *relay)) == 2
        assert sentence in capsys.readouterr().err
    assert transactions(anvil, account_of(key_file)) == 0
    assert not Path("addresses").exists()


def test_a_development_chain_needs_no_key(anvil: DevChain, capsys: pytest.CaptureFixture[str]) -> None:
    """The key that all such chains know is taken, and that is said."""
    assert deploy.main(["--rpc", anvil.url, "--addresses", "addresses"]) == 0
    assert "the key that all development chains know" in capsys.readouterr().err
    assert deployed(anvil).deployer == "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"


def test_another_chain_wants_a_key(
    new_anvil: Callable[..., DevChain], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The well-known key is never used there; PRIVATE_KEY of .env is."""
    chain = new_anvil("--chain-id", "777")
    command = ["--rpc", chain.url, "--addresses", "addresses"]
    assert deploy.main(command) == 2
    assert "PRIVATE_KEY" in capsys.readouterr().err
    Path(".env").write_text(f"PRIVATE_KEY={chain.keys[1]}\n")
    assert deploy.main(command) == 0
    assert deployed(chain).deployer == to_checksum(address_of(bytes.fromhex(chain.keys[1][2:])))
    monkeypatch.setenv("ACCOUNT", "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266")
    capsys.readouterr()
    assert deploy.main(command) == 2
    assert "ACCOUNT is 0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "0x12", "zz" * 32, "00" * 32, "ff" * 32, "ab" * 33])
def test_a_file_without_a_key_is_named_and_not_quoted(
    anvil: DevChain, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The path is in the sentence; what the file holds is not."""
    path = tmp_path / "some.key"
    path.write_text(text)
    assert deploy.main(["--rpc", anvil.url, "--key-file", str(path)]) == 2
    said = capsys.readouterr().err
    assert str(path) in said
    assert not text or text not in said


def test_no_chain_and_no_endpoint_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 5 when the chain is away, 2 when none is named."""
    assert deploy.main(["--rpc", "http://127.0.0.1:9"]) == 5
    assert "does not answer" in capsys.readouterr().err
    assert deploy.main([]) == 2
    assert "RPC_URL" in capsys.readouterr().err


def test_a_command_needs_a_network_that_is_there(
    anvil: DevChain, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a deployment, and with an address where nothing of ours stands."""
    assert deploy.main(arguments(anvil, key_file, "seal")) == 2
    assert "--directory" in capsys.readouterr().err
    empty = "0x00000000000000000000000000000000000000aa"
    assert deploy.main(arguments(anvil, key_file, "seal", "--directory", empty)) == 5
    assert "no chatchain Directory" in capsys.readouterr().err


def test_it_runs_as_a_program_from_anywhere(anvil: DevChain, tmp_path: Path) -> None:
    """`python deploy/deploy.py` finds the project by itself; options stand before or after the command."""
    program = [sys.executable, str(ROOT / "deploy" / "deploy.py")]
    for order in (["--rpc", anvil.url, "seat", "ada"], ["seat", "ada", "--rpc", anvil.url]):
        done = subprocess.run(
            [*program, *order, "--addresses", str(tmp_path)],
            cwd=tmp_path,
            env=os.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert "Which network?" in done.stderr


@pytest.mark.parametrize("nonce", [0, 1, 0x7F, 0x80, 0xFF, 0x100, 0xFFFF, 2**40])
def test_the_address_of_a_contract_to_be_is_known(nonce: int) -> None:
    """As web3 computes it."""
    from eth_typing import HexAddress, HexStr
    from web3.types import Nonce
    from web3.utils.address import get_create_address

    creator = address_of(b"\1" * 32)
    expected = get_create_address(HexAddress(HexStr(to_checksum(creator))), Nonce(nonce))
    assert to_checksum(created_address(creator, nonce)) == expected


def test_rules_are_the_contracts_to_judge(anvil: DevChain, key_file: Path) -> None:
    """A threshold of nothing is refused by the contract, in words, and nothing is written."""
    assert deploy.main(arguments(anvil, key_file, "--threshold", "0")) != 0
    assert not Path("addresses").exists()
    assert Rules().threshold == 5000


def test_the_file_has_the_names_that_others_read(anvil: DevChain, key_file: Path) -> None:
    """The keys of deploy/addresses/<chainId>.json."""
    assert deploy.main(arguments(anvil, key_file)) == 0
    content = json.loads((Path("addresses") / "31337.json").read_text())
    assert {"chainId", "directory", "identityRegistry", "membership", "deployer", "block"} <= content.keys()
