"""Compose file, image and unit name only what exists, and their commands run without Docker too."""

import asyncio
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from dotenv import dotenv_values
from jsonschema import Draft202012Validator

from chatchain.config import CLIENT_OPTIONS, SERVER_OPTIONS, load_server
from chatchain.errors import NetworkError
from chatchain.model import RelayAddress
from chatchain.wire.messages import Tick
from deploy import certificates, deploy
from deploy.tools import anvil_path, cast_path
from tests.fixtures.chains import DevChain
from tests.fixtures.mariadb import MariaDB
from tests.fixtures.nats import Nats
from tests.fixtures.processes import accepts, free_port, running
from tests.relay.stage import Device, Stage
from tests.relay.test_operation import page

pytestmark = pytest.mark.alone

ROOT = Path(__file__).resolve().parent.parent
VARIABLES: Final = {option.variable for option in (*CLIENT_OPTIONS, *SERVER_OPTIONS)} - {""}

# What the programs do not read themselves: the compose file's own.
COMPOSE_ONLY: Final = {"MYSQL_PASSWORD", "NATS_PASSWORD", "MYSQL_ROOT_PASSWORD", "RELAY_ENDPOINT"}

# The part of the Compose Specification that the file uses, strictly: a misspelt key fails here.
STRINGS: Final = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
DURATION: Final = {"type": "string", "pattern": r"^\d+(ms|s|m)$"}
NAMED: Final = {"type": "object", "additionalProperties": {"type": "object", "maxProperties": 0}}
SERVICE: Final = {
    "type": "object",
    "additionalProperties": False,
    "required": ["restart", "networks"],
    "oneOf": [{"required": ["image"]}, {"required": ["build"]}],
    "properties": {
        "image": {"type": "string", "pattern": r"^[a-z0-9/]+:v?[0-9][0-9a-z.-]*$"},  # always a version
        "build": {
            "type": "object",
            "additionalProperties": False,
            "required": ["context", "dockerfile", "target"],
            "properties": {name: {"type": "string"} for name in ("context", "dockerfile", "target")},
        },
        "init": {"const": True},
        "read_only": {"const": True},
        "cap_drop": {"const": ["ALL"]},
        "security_opt": STRINGS,
        "tmpfs": STRINGS,
        "command": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "environment": {
            "type": "object",
            "propertyNames": {"pattern": "^[A-Z][A-Z0-9_]*$"},
            "additionalProperties": {"type": "string"},
        },
        "volumes": {"type": "array", "items": {"type": "string", "pattern": r"^[a-z]+:/[a-z/]+(:ro)?$"}},
        "configs": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["source", "target"],
                "properties": {
                    "source": {"type": "string"},
                    "target": {"type": "string", "pattern": "^/[a-z/.]+$"},
                },
            },
        },
        "networks": STRINGS,
        "ports": {"type": "array", "items": {"type": "string", "pattern": r"^127\.0\.0\.1:\d+:\d+$"}},
        "depends_on": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "required": ["condition"],
                "properties": {
                    "condition": {
                        "enum": ["service_healthy", "service_completed_successfully", "service_started"]
                    }
                },
            },
        },
        "healthcheck": {
            "type": "object",
            "additionalProperties": False,
            "required": ["test", "interval", "timeout", "retries"],
            "properties": {
                "test": {
                    "type": "array",
                    "prefixItems": [{"enum": ["CMD", "CMD-SHELL"]}],
                    "items": {"type": "string"},
                },
                "interval": DURATION,
                "timeout": DURATION,
                "retries": {"type": "integer", "minimum": 1},
            },
        },
        "restart": {"enum": ["no", "unless-stopped"]},
        "stop_grace_period": DURATION,
    },
}
SCHEMA: Final = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "services", "networks", "volumes"],
    "patternProperties": {"^x-": {"type": "object"}},
    "properties": {
        "name": {"type": "string"},
        "services": {"type": "object", "additionalProperties": SERVICE},
        "networks": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "internal": {"const": True},
                    "ipam": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {
                            "config": {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "additionalProperties": False,
                                    "properties": {"subnet": {"type": "string", "pattern": r"^[0-9./]+$"}},
                                },
                            }
                        },
                    },
                },
            },
        },
        "volumes": NAMED,
        "configs": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "required": ["file"],
                "properties": {"file": {"type": "string"}},
            },
        },
    },
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The compose file, with its anchors resolved."""
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    """Its services."""
    found: dict[str, Any] = compose["services"]
    return found


def stages() -> dict[str, str]:
    """The stages of the image's file: name and base."""
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    return {name: base for base, name in re.findall(r"^FROM (\S+) AS (\S+)$", text, re.MULTILINE)}


def test_the_compose_file_is_one(compose: dict[str, Any]) -> None:
    """It keeps to the specification's words, as far as it uses them."""
    problems = [
        f"{error.json_path}: {error.message}" for error in Draft202012Validator(SCHEMA).iter_errors(compose)
    ]
    assert problems == []


def test_the_schema_finds_mistakes(compose: dict[str, Any]) -> None:
    """A misspelt key, a port open to everybody and an image without a version do not pass."""
    relay = compose["services"]["relay"]
    mistakes: tuple[dict[str, Any], ...] = (
        {"health_check": {}},
        {"ports": ["5555:5555"]},
        {"restart": "sometimes"},
        {"environment": {"RELAY_PORT": 5555}},
        {"image": "mysql", "build": None},
    )
    for wrong in mistakes:
        changed = {**relay, **wrong}
        document = {**compose, "services": {"relay": {k: v for k, v in changed.items() if v is not None}}}
        assert not Draft202012Validator(SCHEMA).is_valid(document), wrong


def test_every_name_has_its_thing(compose: dict[str, Any], services: dict[str, Any]) -> None:
    """Services, networks, volumes, stages and files that are named exist."""
    for service in services.values():
        assert set(service.get("depends_on", {})) <= services.keys()
        assert set(service["networks"]) <= compose["networks"].keys()
        assert {volume.split(":")[0] for volume in service.get("volumes", [])} <= compose["volumes"].keys()
        if "build" in service:
            assert (ROOT / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
            assert service["build"]["target"] in stages()
        for config in service.get("configs", []):
            assert (ROOT / compose["configs"][config["source"]]["file"]).is_file()
        for name, needed in service.get("depends_on", {}).items():
            if needed["condition"] == "service_healthy":
                assert "healthcheck" in services[name]
            elif needed["condition"] == "service_completed_successfully":
                assert services[name]["restart"] == "no"


def test_the_database_is_not_published(services: dict[str, Any]) -> None:
    """Only the relay and the deployment share its network, which leads nowhere else."""
    assert "ports" not in services["mysql"]
    assert services["mysql"]["networks"] == ["inside"]
    assert services["mysql"]["image"].startswith("mysql:8.4")


def test_the_relays_are_reached_through_the_proxy_alone(
    compose: dict[str, Any], services: dict[str, Any]
) -> None:
    """Which they trust to say whom it speaks for, on a network where only ours are."""
    assert services["relay-2"] == services["relay"]
    assert "ports" not in services["relay"]
    assert services["relay"]["networks"] == services["nats"]["networks"] == ["inside"]
    (inside,) = compose["networks"]["inside"]["ipam"]["config"]
    assert services["relay"]["environment"]["RELAY_PROXIES"] == inside["subnet"]


def test_haproxy_and_prometheus_name_the_relays(services: dict[str, Any]) -> None:
    """By the names and ports of the compose file."""
    environment = services["relay"]["environment"]
    ports = {name: environment[f"RELAY_{name}"] for name in ("PORT", "METRICS_PORT")}
    text = (ROOT / "deploy" / "haproxy.cfg").read_text()
    servers = re.findall(r"^    server \w+ (\S+):(\d+)$", text, re.MULTILINE)
    assert servers == [("relay", ports["PORT"]), ("relay-2", ports["PORT"])]
    assert re.search(rf"send-proxy-v2 check port {ports['METRICS_PORT']} ", text)
    (bound,) = re.findall(r"^    bind :(\d+)$", text, re.MULTILINE)
    assert services["haproxy"]["ports"] == [f"127.0.0.1:{bound}:{bound}"]
    scraped = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())["scrape_configs"]
    assert scraped[0]["static_configs"][0]["targets"] == [
        f"{name}:{ports['METRICS_PORT']}" for name, _ in servers
    ]


@pytest.fixture
def behind(
    anvil: DevChain, mariadb: MariaDB, nats: Nats, tmp_path: Path
) -> Iterator[tuple[Stage, Stage, int]]:
    """Two relays that trust a proxy on this machine, and the port on which clients look for it."""
    one = Stage(anvil, tmp_path, mariadb.new_database())
    (tmp_path / "other").mkdir()
    other, front = one.beside(tmp_path / "other"), free_port()
    one.relays = other.relays = (RelayAddress(f"127.0.0.1:{front}", one.pair.spki, bytes(32)),)
    one.world.deployer.set_relays(one.world.network, one.relays)
    for stage in (one, other):
        stage.start("--proxies", "127.0.0.1", "--nats", nats.url)
    yield one, other, front
    for stage in (one, other):
        stage.stop()


async def test_haproxy_as_written_moves_clients_to_the_relay_that_is_left(
    behind: tuple[Stage, Stage, int], tmp_path: Path
) -> None:
    """Its configuration with this machine's places; within 5 s, and nothing that was ticked is lost."""
    one, other, front = behind
    text = (ROOT / "deploy" / "haproxy.cfg").read_text().replace("bind :5555", f"bind 127.0.0.1:{front}")
    for name, stage in (("relay", one), ("relay-2", other)):
        # A check's port stands with its server here, because both relays are on one machine.
        text = text.replace(f" {name}:5555\n", f" 127.0.0.1:{stage.port} port {stage.metrics_port}\n")
    settings = tmp_path / "haproxy.cfg"
    settings.write_text(text.replace("check port 9100", "check"))
    program = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    assert program, "haproxy is missing: 'make test' installs it, or names the command that does"
    ada, bob = one.register("proxyada"), one.register("proxybob")
    with running([program, "-f", str(settings)], tmp_path / "haproxy.log", lambda: accepts(front)):
        sender, recipient = await Device(one, ada).begin(), await Device(one, bob).begin()
        assert isinstance(await sender.send(bob, b"before"), Tick)
        idle = '"sessions": 0' in page(one.metrics_port, "/health")[1]
        gone = (other if idle else one).process
        assert gone is not None
        gone.kill()
        killed = time.monotonic()
        moved: list[Device] = []
        while not moved:
            again = [Device(one, ada), Device(one, bob)]
            try:
                for device in again:
                    await device.begin()
                assert isinstance(await again[0].send(bob, b"after"), Tick)
                moved = again
            except (NetworkError, AssertionError):
                for device in again:
                    await device.close()
                await asyncio.sleep(0.1)
        assert [delivery.body for delivery in await moved[1].receive(2)] == [b"before", b"after"]
        assert time.monotonic() - killed < 5
        for device in (sender, recipient, *moved):
            await device.close()


def test_what_can_be_read_only_is(services: dict[str, Any]) -> None:
    """No container writes outside its volumes, and ours have no capabilities."""
    for name, service in services.items():
        assert service["read_only"] is True, name
        if "build" in service:
            assert service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name


def test_no_secret_stands_in_the_file(services: dict[str, Any]) -> None:
    """Passwords come from the environment; private keys never do."""
    for service in services.values():
        for name, value in service.get("environment", {}).items():
            assert "PRIVATE_KEY" not in name
            if "PASSWORD" in name:
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), name


def test_every_variable_is_one_that_a_program_reads(services: dict[str, Any]) -> None:
    """What is set for the relay is a setting of the relay, and a person finds each in .env.example."""
    assert services["relay"]["environment"].keys() <= VARIABLES
    asked = set(re.findall(r"(?<!\$)\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    assert asked <= dotenv_values(ROOT / ".env.example").keys()


def test_the_relay_understands_its_settings(services: dict[str, Any], tmp_path: Path) -> None:
    """The environment of the compose file, filled in, is accepted."""
    filled = {
        name: re.sub(r"\$\{\w+:[?-]([^}]*)\}", "" if name.startswith("SPONSOR") else "secret", value)
        for name, value in services["relay"]["environment"].items()
    }
    config = load_server({}, environment=filled, folder=tmp_path)
    assert (config.host, config.port, config.metrics_port) == ("0.0.0.0", 5555, 9100)  # noqa: S104
    assert config.db == "mysql+pymysql://chatchain:secret@mysql/chatchain"
    assert f"files:{config.blobs}" in services["relay"]["volumes"]


def test_anvil_knows_its_options(services: dict[str, Any]) -> None:
    """Each flag of the chain's command stands in its help, and so does cast's."""
    help_text = subprocess.run([anvil_path(), "--help"], capture_output=True, text=True, check=True).stdout
    program, *flags = services["anvil"]["command"]
    assert program == "anvil"
    for flag in flags:
        assert flag.split("=")[0] in help_text.split() or f"{flag.split('=')[0]}" in help_text, flag
    probe = services["anvil"]["healthcheck"]["test"]
    help_text = subprocess.run(
        [cast_path(), "chain-id", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert probe[:3] == ["CMD", "cast", "chain-id"]
    assert probe[3] in help_text


def test_the_deployment_runs_as_written(
    services: dict[str, Any], anvil: DevChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one-shot's own script, on this machine's chain, twice: the second time it changes nothing."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("RELAY_ENDPOINT", "relay.example:5555")
    monkeypatch.setenv("PATH", f"{ROOT / '.venv' / 'bin'}:{Path('/usr/bin')}:{Path('/bin')}")
    shell, options, script = services["deploy"]["command"]
    script = script.replace("$$", "$").replace("/network", str(tmp_path))
    script = script.replace("http://anvil:8545", anvil.url)
    outputs = [
        subprocess.run([shell, options, script], cwd=ROOT, capture_output=True, text=True, check=False)
        for _ in range(2)
    ]
    for done in outputs:
        assert done.returncode == 0, done.stderr
        assert re.search(r"^CONTRACT_ADDRESS=0x[0-9a-fA-F]{40}$", done.stdout, re.MULTILINE)
    assert outputs[0].stdout == outputs[1].stdout
    deployment = deploy.read_deployment(tmp_path / "31337.json")
    assert deployment is not None
    settings = dotenv_values(tmp_path / "relay.env")
    assert settings["CONTRACT_ADDRESS"] == deployment.directory
    # The shell that starts the relay reads the same file.
    sourced = subprocess.run(
        [
            "sh",
            "-ec",
            f"set -a; . {shlex.quote(str(tmp_path / 'relay.env'))}; echo $CONTRACT_ADDRESS $ACCOUNT",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert sourced.split() == [settings["CONTRACT_ADDRESS"], settings["ACCOUNT"]]
    certificates.load(tmp_path / "tls" / "relay.pem", tmp_path / "tls" / "relay.key")


def test_the_relay_runs_as_written(
    services: dict[str, Any],
    anvil: DevChain,
    mariadb_url: str,
    nats: Nats,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The relay's own script and settings, with this machine's places, until its health check is content."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    network = tmp_path / "network"
    pair = certificates.make(network / "tls")
    relay = ["--relay", "localhost:5555", "--cert", str(pair.certificate)]
    settings = ["--addresses", str(network), "--relay-env", str(network / "relay.env")]
    assert deploy.main(["--rpc", anvil.url, *relay, *settings]) == 0
    here = {"mysql+pymysql://chatchain": mariadb_url, "nats://chatchain": nats.url, "/network": str(network)}
    environment = {name: _moved(value, here) for name, value in services["relay"]["environment"].items()}
    port, metrics = free_port(), free_port()
    environment |= {"RELAY_HOST": "127.0.0.1", "RELAY_PORT": str(port), "RELAY_METRICS_PORT": str(metrics)}
    environment |= {"PATH": f"{ROOT / '.venv' / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path)}
    shell, options, script = services["relay"]["command"]
    script = _moved(script, here).replace("server.py", str(ROOT / "server.py"))
    probe = [_moved(word, {"9100": str(metrics)}) for word in services["relay"]["healthcheck"]["test"][1:]]

    def healthy() -> bool:
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with running([shell, options, script], tmp_path / "relay.log", healthy) as process:
        assert accepts(port)
        assert process.running
    assert "stopped" in (tmp_path / "relay.log").read_text()


def _moved(text: str, places: dict[str, str]) -> str:
    """A text of the compose file with what is elsewhere on this machine."""
    for there, here in places.items():
        if "://" in there and text.startswith(there):
            return here
        text = text.replace(there, here)
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def test_the_image_copies_what_is_there() -> None:
    """Every source of a COPY exists and passes .dockerignore; stages copy from stages."""
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    for line in (ROOT / "deploy" / "Dockerfile").read_text().splitlines():
        if not line.startswith("COPY"):
            continue
        words = line.split()[1:]
        if words[0].startswith("--from="):
            assert words[0].removeprefix("--from=") in stages(), line
            continue
        for source in words[:-1]:
            assert (ROOT / source).exists(), line
            assert source.rstrip("/") in let_in, line


def test_images_have_versions_and_programs_no_privileges() -> None:
    """Each base names a version; what runs is not root."""
    for name, base in stages().items():
        assert base in stages() or re.fullmatch(r"[a-z]+:\d[\d.]*-slim", base), name
    for part in (ROOT / "deploy" / "Dockerfile").read_text().split("\nFROM ")[1:]:
        if part.split()[2] in {"chain", "relay"}:
            assert re.search(r"^USER 10001:10001$", part, re.MULTILINE), part


def test_the_unit_runs_the_relay_with_settings_it_knows() -> None:
    """Program, variables and grace period agree with ours."""
    lines = (ROOT / "deploy" / "chatchain-relay.service").read_text().splitlines()
    service = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    python, program = (Path(word) for word in service["ExecStart"].split())
    assert (ROOT / program.relative_to("/opt/chatchain")).is_file()
    assert python.relative_to("/opt/chatchain").parts[:2] == (".venv", "bin")
    for setting in service["Environment"].split():
        name = setting.split("=")[0]
        assert name in VARIABLES | {"XDG_DATA_HOME", "PYTHONDONTWRITEBYTECODE"}
    assert service["DynamicUser"] == service["NoNewPrivileges"] == service["PrivateDevices"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""
    assert service["ExecReload"].endswith("-HUP $MAINPID")
    assert service["Type"] == "notify"
    assert int(service["TimeoutStopSec"]) > 10


def test_the_example_explains_every_setting_and_no_other() -> None:
    """.env.example and config.py name the same variables; every one has a comment above it."""
    text = (ROOT / ".env.example").read_text()
    assert dotenv_values(ROOT / ".env.example").keys() == VARIABLES | COMPOSE_ONLY
    for block in re.split(r"\n\s*\n", text):
        assert block.lstrip().startswith("#"), block


def test_the_example_as_it_stands_is_accepted(tmp_path: Path) -> None:
    """A copy of it without a change gives the defaults and no complaint, and holds no secret."""
    (tmp_path / ".env").write_text((ROOT / ".env.example").read_text())
    config = load_server({}, environment={}, folder=tmp_path)
    assert config.private_key is None
    assert (config.host, config.port) == ("127.0.0.1", 5555)
