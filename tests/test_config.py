"""Settings: where each comes from, what goes before what, and what a value that cannot be meant leads to."""

import dataclasses
from pathlib import Path

import pytest

from chatchain import config
from chatchain.config import Origin, load_client, load_server
from chatchain.errors import BadConfig

ADDRESSES = [f"0x{digit * 40}" for digit in "12345"]
KEY = "0x" + "ab" * 32


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to start in, with the machine user's own folders elsewhere below it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    work = tmp_path / "work"
    work.mkdir()
    return work


def write_config(place: Path, text: str) -> Path:
    """Writes the config file and gives its path."""
    path = config.config_dir() / config.CONFIG_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def origin_of(settings: tuple[config.Setting, ...], name: str) -> tuple[Origin, str]:
    """Where one setting came from."""
    [found] = [setting for setting in settings if setting.name == name]
    return found.origin, found.where


def test_flag_goes_before_environment_before_env_file_before_config_file_before_default(place: Path) -> None:
    """Taking the strongest source away each time uncovers the next."""
    flags: dict[str, object] = {"directory": ADDRESSES[0]}
    environment = {"CONTRACT_ADDRESS": ADDRESSES[1]}
    path = write_config(place, f'directory = "{ADDRESSES[3]}"\n')
    (place / ".env").write_text(f"CONTRACT_ADDRESS={ADDRESSES[2]}\n")

    def seen() -> tuple[str | None, tuple[Origin, str]]:
        loaded = load_client(flags, environment=environment, folder=place)
        return loaded.directory, origin_of(loaded.settings, "directory")

    assert seen() == (ADDRESSES[0], (Origin.FLAG, "--directory"))
    flags["directory"] = None
    assert seen() == (ADDRESSES[1], (Origin.ENVIRONMENT, "CONTRACT_ADDRESS"))
    environment.clear()
    assert seen() == (ADDRESSES[2], (Origin.ENV_FILE, "CONTRACT_ADDRESS"))
    (place / ".env").unlink()
    assert seen() == (ADDRESSES[3], (Origin.CONFIG_FILE, f"{path}: directory"))
    path.unlink()
    assert seen() == (None, (Origin.DEFAULT, ""))


@pytest.mark.parametrize("load", [load_client, load_server])
def test_every_option_is_read_and_listed(load: object, place: Path) -> None:
    """What `config show` lists is what exists, each once."""
    loaded, options = (
        (load_client({}, environment={}, folder=place), config.CLIENT_OPTIONS)
        if load is load_client
        else (load_server({}, environment={}, folder=place), config.SERVER_OPTIONS)
    )
    assert sorted(setting.name for setting in loaded.settings) == sorted(option.name for option in options)
    assert {setting.origin for setting in loaded.settings} == {Origin.DEFAULT}


def test_a_variable_set_to_nothing_is_not_set(place: Path) -> None:
    """A template's empty line means "none", in the environment and in .env."""
    (place / ".env").write_text("RPC_URL=http://127.0.0.1:1\nNATS_URL=\n")
    loaded = load_server({}, environment={"RPC_URL": "  "}, folder=place)
    assert loaded.rpc == ("http://127.0.0.1:1",)
    assert loaded.nats is None


def test_endpoints_are_separated_by_commas_or_blanks_and_kept_once(place: Path) -> None:
    """RPC_URL can name several endpoints, as --rpc can be repeated."""
    first, second = "http://127.0.0.1:1", "https://node.example/rpc"
    for flags, environment in (
        ({}, {"RPC_URL": f"{first}, {second} {first}"}),
        ({"rpc": (first, second, first)}, {}),
    ):
        assert load_client(flags, environment=environment, folder=place).rpc == (first, second)


def test_a_table_for_one_program_goes_before_the_top_of_the_config_file(place: Path) -> None:
    """The other program's table is not read."""
    write_config(
        place,
        'rpc = "http://127.0.0.1:1"\n[client]\nrpc = ["http://127.0.0.1:2", "http://127.0.0.1:3"]\n'
        "[server]\nport = 6000\n",
    )
    client = load_client({}, environment={}, folder=place)
    server = load_server({}, environment={}, folder=place)
    assert client.rpc == ("http://127.0.0.1:2", "http://127.0.0.1:3")
    assert (server.rpc, server.port) == (("http://127.0.0.1:1",), 6000)


def test_a_client_never_reads_the_deployers_key(place: Path) -> None:
    """PRIVATE_KEY and ACCOUNT stand in the same .env, and nothing of them is in the client's settings."""
    (place / ".env").write_text(f"PRIVATE_KEY={KEY}\nACCOUNT={ADDRESSES[0]}\nRPC_URL=http://127.0.0.1:1\n")
    environment = {"PRIVATE_KEY": KEY, "ACCOUNT": ADDRESSES[0]}
    loaded = load_client({}, environment=environment, folder=place)
    everything = repr(dataclasses.asdict(loaded))
    assert KEY[2:] not in everything
    assert ADDRESSES[0] not in everything
    assert loaded.rpc == ("http://127.0.0.1:1",)


def test_a_server_reads_the_key_and_shows_it_to_nobody(place: Path) -> None:
    """The key is in the value and in no text made of it."""
    environment = {"PRIVATE_KEY": KEY, "DATABASE_URL": "mysql+pymysql://relay:geheim@db/chat"}
    loaded = load_server({}, environment=environment, folder=place)
    assert loaded.private_key == bytes.fromhex(KEY[2:])
    assert loaded.db == environment["DATABASE_URL"]
    shown = repr(loaded) + repr(loaded.settings)
    assert KEY[2:] not in shown
    assert "geheim" not in shown
    assert [setting.value for setting in loaded.settings if setting.name == "private_key"] == [config.MASK]


def test_a_private_key_in_the_config_file_is_refused(place: Path) -> None:
    """A file that is copied around is no place for a key; the message does not repeat it."""
    write_config(place, f'private_key = "{KEY}"\n')
    with pytest.raises(BadConfig) as caught:
        load_server({}, environment={}, folder=place)
    assert KEY[2:] not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RPC_URL", "ftp://127.0.0.1"),
        ("RPC_URL", "localhost:8545"),
        ("RPC_URL", "http://127.0.0.1:99999"),
        ("CONTRACT_ADDRESS", "0x1234"),
        ("CONTRACT_ADDRESS", "0x" + "0" * 40),
        ("CHATCHAIN_USER", "../../etc"),
        ("CHATCHAIN_USER", "Ada"),
        ("CHATCHAIN_JSON", "perhaps"),
        ("CHATCHAIN_HOME", "a\0b"),
    ],
)
def test_a_malformed_client_setting_names_its_origin(variable: str, value: str, place: Path) -> None:
    """Each ends in BadConfig with the variable's name in the hint."""
    with pytest.raises(BadConfig) as caught:
        load_client({}, environment={variable: value}, folder=place)
    assert variable in caught.value.hint
    assert "environment" in caught.value.hint


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RELAY_PORT", "65536"),
        ("RELAY_PORT", "-1"),
        ("RELAY_PORT", "http"),
        ("RELAY_WORKERS", "0"),
        ("DATABASE_URL", "postgres://user:geheim@db/chat"),
        ("NATS_URL", "geheim"),
        ("PRIVATE_KEY", "geheim"),
        ("PRIVATE_KEY", "0x" + "00" * 32),
        ("PRIVATE_KEY", "0x" + "ff" * 32),
        ("ACCOUNT", "me"),
        ("SPONSOR_ETHER_PER_DAY", "-1"),
        ("SPONSOR_ETHER_PER_DAY", "nan"),
        ("RELAY_LIMITS", "message_per_second=1"),
        ("RELAY_LIMITS", "mailbox_mib=256MiB"),
        ("RELAY_LIMITS", "connections = 5"),
        ("RELAY_LIMITS", "connections=0"),
        ("RELAY_LIMITS", "connections=5 connections=6"),
        ("RELAY_LIMITS", "connections=\u0665"),
        ("RELAY_LIMITS", "files_days=36501"),
    ],
)
def test_a_malformed_server_setting_names_its_origin_and_no_secret(
    variable: str, value: str, place: Path
) -> None:
    """What may hold a password or key is not repeated."""
    with pytest.raises(BadConfig) as caught:
        load_server({}, environment={variable: value}, folder=place)
    assert variable in caught.value.hint
    assert "geheim" not in caught.value.message + caught.value.hint
    assert "ffff" not in caught.value.message


@pytest.mark.parametrize("flag", ["cert", "key"])
def test_certificate_and_key_come_together(flag: str, place: Path) -> None:
    """One without the other cannot be meant."""
    with pytest.raises(BadConfig, match="without"):
        load_server({flag: Path("x.pem")}, environment={}, folder=place)


def test_a_home_and_a_user_of_the_same_rank_contradict(place: Path) -> None:
    """Of different rank the stronger decides, so --user works where CHATCHAIN_HOME is set for good."""
    with pytest.raises(BadConfig, match="one of them"):
        load_client({"home": place, "user": "ada"}, environment={}, folder=place)
    by_flag = load_client({"user": "ada"}, environment={"CHATCHAIN_HOME": str(place)}, folder=place)
    assert (by_flag.home, by_flag.user) == (None, "ada")
    by_flag = load_client({"home": place}, environment={"CHATCHAIN_USER": "ada"}, folder=place)
    assert (by_flag.home, by_flag.user) == (place, None)


@pytest.mark.parametrize(
    "text",
    ["rpc = ", 'prot = 5555\nrpc = "http://127.0.0.1:1"', "client = 5", "[server]\nhome = 'x'", "\udcff"],
)
def test_a_config_file_that_cannot_be_meant_is_named(text: str, place: Path) -> None:
    """Broken TOML, an unknown setting and one of the wrong program are errors with the file's path."""
    path = write_config(place, "")
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadConfig) as caught:
        load_client({}, environment={}, folder=place)
    assert str(path) in caught.value.message


def test_an_env_file_takes_a_dollar_sign_as_it_is(place: Path) -> None:
    """A database password may hold one."""
    (place / ".env").write_text("DATABASE_URL='mysql+pymysql://relay:a${HOME}b@db/chat'\n")
    loaded = load_server({}, environment={"HOME": "/root"}, folder=place)
    assert loaded.db == "mysql+pymysql://relay:a${HOME}b@db/chat"


def test_an_env_file_that_is_not_text_is_named(place: Path) -> None:
    """It is an error and not a traceback."""
    (place / ".env").write_bytes(b"RPC_URL=\xff\xfe\n")
    with pytest.raises(BadConfig, match="env"):
        load_client({}, environment={}, folder=place)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:8545", "http://127.0.0.1:8545"),
        ("https://user:geheim@node.example/", "https://user:***@node.example/"),
        ("https://geheim@node.example/", "https://***@node.example/"),
        ("https://node.example/v3/0123456789abcdef0123456789abcdef", "https://node.example/v3/***"),
        ("https://node.example/?apikey=geheim", "https://node.example/?***"),
        ("mysql+pymysql://relay:geheim@db/chat", "mysql+pymysql://relay:***@db/chat"),
        ("sqlite:////var/lib/chatchain/relay.sqlite3", "sqlite:////var/lib/chatchain/relay.sqlite3"),
    ],
)
def test_urls_are_shown_without_what_is_secret_in_them(url: str, shown: str) -> None:
    """Passwords, access keys and query values are masked; where it is stays readable."""
    assert config.mask_url(url) == shown


def test_the_default_database_is_embedded_in_the_data_folder(place: Path) -> None:
    """A relay without settings keeps its mailboxes in SQLite, on loopback, at the published port."""
    loaded = load_server({}, environment={}, folder=place)
    assert loaded.db == f"sqlite:///{config.data_dir() / 'relay.sqlite3'}"
    assert (loaded.host, loaded.port, loaded.workers) == ("127.0.0.1", 5555, 1)
    assert loaded.sponsor_wei_per_day == 10**18
