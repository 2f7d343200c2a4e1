"""Settings of both programs: flag, environment, `.env`, config file, default, in this order.

A program's settings are a frozen value, read once when it starts; each keeps its origin. Every value is
checked here; one that cannot be meant ends in BadConfig, which names where it came from and never repeats a
secret. A client asks for its own settings by name, so PRIVATE_KEY and ACCOUNT (the deployer's and the
relay's) never reach it, even when its `.env` holds them.

The config file is `config.toml` in the platform's folder for configuration. Keys at its top are for both
programs; the tables `[client]` and `[server]` are for one and go before. `.env` is read in the current
directory.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, Generic, TypeVar
from urllib.parse import urlsplit, urlunsplit

from chatchain.errors import BadConfig

APPLICATION: Final = "chatchain"
CONFIG_FILE: Final = "config.toml"
ENV_FILE: Final = ".env"
NETWORK_FILE: Final = "network.json"
"""In a home: the network that it belongs to, written by the client core."""
_MAX_NETWORK: Final = 64 * 1024
DEFAULT_PORT: Final = 5555
DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_SPONSOR_ETHER: Final = 1.0
"""What the sponsor spends in 24 hours at most: some 500 registrations at 10 gwei."""

LIMITS: Final = (
    "messages_per_second",
    "message_burst",
    "logins_per_minute",
    "address_logins_per_minute",
    "failed_logins_per_minute",
    "address_failed_logins_per_minute",
    "lookups",
    "lookup_minutes",
    "key_requests_per_second",
    "key_request_burst",
    "prekeys",
    "prekey_minutes",
    "prekeys_kept",
    "file_requests_per_second",
    "file_request_burst",
    "signals_per_minute",
    "signal_burst",
    "file_bytes",
    "files",
    "files_mib",
    "files_mib_per_day",
    "files_days",
    "file_connections",
    "mailbox_messages",
    "mailbox_mib",
    "mailbox_days",
    "sender_messages",
    "sender_mib",
    "connections",
    "read_mib",
    "unfinished_mib",
    "moving_mib",
)
"""What RELAY_LIMITS may name; `relay.allowance` says what each means and how much it is otherwise."""

MOST_DAYS: Final = 36_500
"""More would be a time that the databases cannot hold."""

DEFAULT_WORK_BITS: Final = 16
"""What a newcomer's program works for its registration: 65,536 hashes, some 0.03 s."""

MASK: Final = "***"
_SECRET_SEGMENT: Final = 20
"""A last path segment of an endpoint this long is a provider's access key."""
_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}")
_USERNAME: Final = re.compile(r"[a-z][a-z0-9-]{2,31}")
_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""The order of secp256k1: a private key is below it (SEC 2)."""
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})

T = TypeVar("T")
Raw = str | int | float | bool | list["Raw"] | tuple[str, ...]
Shown = str | int | float | bool | list[str] | None
"""A setting as it is printed, secrets masked."""


class Origin(StrEnum):
    """Where a value came from, strongest first."""

    FLAG = "flag"
    ENVIRONMENT = "environment"
    ENV_FILE = ".env"
    CONFIG_FILE = "config file"
    HOME = "home"
    DEFAULT = "default"


@dataclass(frozen=True)
class Setting:
    """One setting as `config show` prints it: its value (masked), its origin and where exactly that is."""

    name: str
    value: Shown
    origin: Origin
    where: str


@dataclass(frozen=True)
class Sources:
    """The places that settings are read from, strongest first; flags not given are absent or None."""

    flags: Mapping[str, object]
    environment: Mapping[str, str]
    env_file: Mapping[str, str]
    config_file: Mapping[str, object]
    config_path: Path


@dataclass(frozen=True)
class _Option(Generic[T]):
    """How one setting is named, read and shown."""

    name: str
    parse: Callable[[Raw], T]
    show: Callable[[T], Shown]
    variable: str = ""
    """The environment's name for it; empty = cannot be set there."""
    flag: bool = True
    secret: bool = False
    """Masked whole, and never read from the config file."""
    quoted: bool = True
    """Whether a wrong value may be repeated to the person; a URL may carry a password."""


class _Reader:
    """Reads options from the sources and keeps a note of each for `config show`."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self.settings: list[Setting] = []
        self.origins: dict[str, Origin] = {}

    def __call__(self, option: _Option[T], default: T) -> T:
        raw, origin, where = self._find(option)
        value = default if raw is None else self._parse(option, raw, origin, where)
        self.origins[option.name] = origin
        shown = (MASK if raw is not None else None) if option.secret else option.show(value)
        self.settings.append(Setting(option.name, shown, origin, where))
        return value

    def _find(self, option: _Option[T]) -> tuple[Raw | None, Origin, str]:
        sources = self._sources
        if option.flag and (given := sources.flags.get(option.name)) not in (None, (), []):
            return _raw(given), Origin.FLAG, "--" + option.name.replace("_", "-")
        # A variable that is set to nothing is not set: a template's `NATS_URL=` means "none".
        if option.variable and (text := sources.environment.get(option.variable, "").strip()):
            return text, Origin.ENVIRONMENT, option.variable
        if option.variable and (text := sources.env_file.get(option.variable, "").strip()):
            return text, Origin.ENV_FILE, option.variable
        if not option.secret and (kept := sources.config_file.get(option.name)) is not None:
            return _raw(kept), Origin.CONFIG_FILE, f"{sources.config_path}: {option.name}"
        return None, Origin.DEFAULT, ""

    @staticmethod
    def _parse(option: _Option[T], raw: Raw, origin: Origin, where: str) -> T:
        try:
            return option.parse(raw)
        except (ValueError, RuntimeError) as problem:
            said = f": {raw!r}" if option.quoted and not option.secret else ""
            raise BadConfig(
                f"The setting {option.name} has a value that cannot be meant{said} ({problem}).",
                f"It comes from the {origin.value} ({where}). Correct it there.",
            ) from None


def _raw(value: object) -> Raw:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return tuple(str(item) for item in value)
    return str(value)


# --- how values are read --------------------------------------------------------------------------------


def _text(raw: Raw) -> str:
    if not isinstance(raw, str) or not raw.strip():
        raise ValueError("expected a text")
    return raw.strip()


def _flag(raw: Raw) -> bool:
    if isinstance(raw, bool):
        return raw
    word = str(raw).strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ValueError("expected true or false")


def _path(raw: Raw) -> Path:
    text = _text(raw)
    if "\0" in text:
        raise ValueError("a path has no zero byte")
    return Path(text).expanduser().absolute()


def _number(least: int, most: int) -> Callable[[Raw], int]:
    def parse(raw: Raw) -> int:
        try:
            number = raw if isinstance(raw, int) and not isinstance(raw, bool) else int(_text(raw))
        except ValueError:
            raise ValueError("expected a whole number") from None
        if not least <= number <= most:
            raise ValueError(f"expected {least} to {most}")
        return number

    return parse


def _ether(raw: Raw) -> float:
    try:
        amount = float(str(raw))
    except ValueError:
        raise ValueError("expected an amount of ether, such as 0.5") from None
    if not 0 <= amount <= 1_000_000:
        raise ValueError("expected 0 to 1000000 ether")
    return amount


def _username(raw: Raw) -> str:
    name = _text(raw).removeprefix("@")
    # A user's name is a folder's name here, so nothing else may pass.
    if not _USERNAME.fullmatch(name):
        raise ValueError("a username has 3 to 32 characters: a-z, 0-9 and hyphens, a letter first")
    return name


def _address(raw: Raw) -> str:
    text = _text(raw)
    if not _ADDRESS.fullmatch(text):
        raise ValueError("expected 0x and 40 hex digits")
    if not int(text, 16):
        raise ValueError("the zero address holds no contract")
    return text


def _endpoint(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("expected an address like http://127.0.0.1:8545")
    _ = parts.port  # raises ValueError when it is none
    return text


def _endpoints(raw: Raw) -> tuple[str, ...]:
    texts = [raw] if isinstance(raw, str) else raw
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise ValueError("expected one or several addresses")
    words = [word for text in texts for word in re.split(r"[\s,]+", str(text)) if word]
    if not words:
        raise ValueError("expected one or several addresses")
    return tuple(dict.fromkeys(_endpoint(word) for word in words))


def _database(raw: Raw) -> str:
    text = _text(raw)
    if not text.startswith(("sqlite://", "mysql+pymysql://")):
        raise ValueError("expected sqlite:///FILE or mysql+pymysql://USER:PASSWORD@HOST/NAME")
    return text


def _url(raw: Raw) -> str:
    text = _text(raw)
    if not urlsplit(text).scheme or not urlsplit(text).hostname:
        raise ValueError("expected an address like nats://127.0.0.1:4222")
    return text


def _networks(raw: Raw) -> tuple[str, ...]:
    texts = [raw] if isinstance(raw, str) else raw
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise ValueError("expected addresses or networks such as 10.0.0.7 or 10.0.0.0/24")
    words = [word for text in texts for word in re.split(r"[\s,]+", str(text)) if word]
    return tuple(dict.fromkeys(str(ipaddress.ip_network(word)) for word in words))


def _limits(raw: Raw) -> tuple[tuple[str, int], ...]:
    found: dict[str, int] = {}
    for word in re.split(r"[\s,]+", _text(raw)):
        name, equals, number = word.partition("=")
        if not equals or name not in LIMITS:
            raise ValueError(f"expected NAME=NUMBER of {', '.join(LIMITS)}")
        most = MOST_DAYS if name.endswith("_days") else 10**12 - 1
        if not (number.isascii() and number.isdecimal()) or not 0 < int(number) <= most:
            raise ValueError(f"{name} is a whole number from 1 to {most}, without a unit")
        if name in found:
            raise ValueError(f"{name} is given twice")
        found[name] = int(number)
    return tuple(found.items())


def _as_limits(value: tuple[tuple[str, int], ...]) -> Shown:
    return " ".join(f"{name}={number}" for name, number in value)


def _private_key(raw: Raw) -> bytes:
    text = _text(raw).removeprefix("0x")
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text) or not 0 < int(text, 16) < _ORDER:
        raise ValueError("expected 64 hex digits of a secp256k1 key")
    return bytes.fromhex(text)


# --- how values are shown -------------------------------------------------------------------------------


def mask_url(url: str) -> str:
    """A URL without the password, the query's values or a provider's access key."""
    parts = urlsplit(url)
    place = parts.netloc
    if "@" in place:
        login, _, host = place.rpartition("@")
        name = login.partition(":")[0]
        place = f"{name}:{MASK}@{host}" if ":" in login else f"{MASK}@{host}"
    before, slash, last = parts.path.rpartition("/")
    path = parts.path
    if len(last) >= _SECRET_SEGMENT and parts.scheme in {"http", "https"}:
        path = before + slash + MASK
    return urlunsplit((parts.scheme, place, path, MASK if parts.query else "", "")) if parts.netloc else url


def _as_is(value: T) -> Shown:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)


def _as_words(value: tuple[str, ...]) -> Shown:
    return list(value)


def _as_urls(value: tuple[str, ...]) -> Shown:
    return [mask_url(url) for url in value]


def _as_url(value: str | None) -> Shown:
    return None if value is None else mask_url(value)


# --- the options ----------------------------------------------------------------------------------------

_RPC: Final[_Option[tuple[str, ...]]] = _Option("rpc", _endpoints, _as_urls, "RPC_URL", quoted=False)
_DIRECTORY: Final[_Option[str | None]] = _Option("directory", _address, _as_is, "CONTRACT_ADDRESS")

_HOME: Final[_Option[Path | None]] = _Option("home", _path, _as_is, "CHATCHAIN_HOME")
_USER: Final[_Option[str | None]] = _Option("user", _username, _as_is, "CHATCHAIN_USER")
_PASSWORD_FILE: Final[_Option[Path | None]] = _Option(
    "password_file", _path, _as_is, "CHATCHAIN_PASSWORD_FILE"
)
_JSON: Final[_Option[bool]] = _Option("json", _flag, _as_is, "CHATCHAIN_JSON")
_NO_INPUT: Final[_Option[bool]] = _Option("no_input", _flag, _as_is, "CHATCHAIN_NO_INPUT")
_DEBUG: Final[_Option[bool]] = _Option("debug", _flag, _as_is, "CHATCHAIN_DEBUG")
CLIENT_OPTIONS: Final = (_HOME, _USER, _PASSWORD_FILE, _RPC, _DIRECTORY, _JSON, _NO_INPUT, _DEBUG)

_HOST: Final[_Option[str]] = _Option("host", _text, _as_is, "RELAY_HOST")
_PORT: Final[_Option[int]] = _Option("port", _number(0, 65535), _as_is, "RELAY_PORT")
_DB: Final[_Option[str]] = _Option("db", _database, _as_url, "DATABASE_URL", quoted=False)
_BLOBS: Final[_Option[str]] = _Option("blobs", _text, _as_url, "BLOB_URL", quoted=False)
_CERT: Final[_Option[Path | None]] = _Option("cert", _path, _as_is, "RELAY_CERT")
_KEY: Final[_Option[Path | None]] = _Option("key", _path, _as_is, "RELAY_KEY")
_WORKERS: Final[_Option[int]] = _Option("workers", _number(1, 64), _as_is, "RELAY_WORKERS")
_METRICS_PORT: Final[_Option[int | None]] = _Option(
    "metrics_port", _number(0, 65535), _as_is, "RELAY_METRICS_PORT"
)
_NATS: Final[_Option[str | None]] = _Option("nats", _url, _as_url, "NATS_URL", quoted=False)
_NATS_CA: Final[_Option[Path | None]] = _Option("nats_ca", _path, _as_is, "NATS_CA")
_PROXIES: Final[_Option[tuple[str, ...]]] = _Option("proxies", _networks, _as_words, "RELAY_PROXIES")
_SPONSOR_ETHER: Final[_Option[float]] = _Option(
    "sponsor_ether_per_day", _ether, _as_is, "SPONSOR_ETHER_PER_DAY", flag=False
)
_SPONSOR_ETHER_AN_HOUR: Final[_Option[float | None]] = _Option(
    "sponsor_ether_per_hour", _ether, _as_is, "SPONSOR_ETHER_PER_HOUR", flag=False
)
_SPONSOR_WORK: Final[_Option[int]] = _Option(
    "sponsor_work_bits", _number(0, 24), _as_is, "SPONSOR_WORK_BITS", flag=False
)
_SPONSOR_INVITED: Final[_Option[bool]] = _Option(
    "sponsor_invited_only", _flag, _as_is, "SPONSOR_INVITED_ONLY", flag=False
)
_PRIVATE_KEY: Final[_Option[bytes | None]] = _Option(
    "private_key", _private_key, _as_is, "PRIVATE_KEY", flag=False, secret=True
)
_RELAY_LIMITS: Final[_Option[tuple[tuple[str, int], ...]]] = _Option(
    "limits", _limits, _as_limits, "RELAY_LIMITS", flag=False
)
_ACCOUNT: Final[_Option[str | None]] = _Option("account", _address, _as_is, "ACCOUNT", flag=False)
SERVER_OPTIONS: Final = (
    _HOST,
    _PORT,
    _DB,
    _BLOBS,
    _RPC,
    _DIRECTORY,
    _CERT,
    _KEY,
    _WORKERS,
    _METRICS_PORT,
    _NATS,
    _NATS_CA,
    _PROXIES,
    _RELAY_LIMITS,
    _SPONSOR_ETHER,
    _SPONSOR_ETHER_AN_HOUR,
    _SPONSOR_WORK,
    _SPONSOR_INVITED,
    _ACCOUNT,
    _PRIVATE_KEY,
    _DEBUG,
)


# --- the two programs' settings -------------------------------------------------------------------------


@dataclass(frozen=True)
class ClientConfig:
    """What a client is told before it does anything.

    `home` is one user's folder; without it `user` names one below `data_dir`; without either the program
    looks which users are there. `rpc` and `directory` are empty when only the home knows them.
    """

    home: Path | None
    user: str | None
    data_dir: Path
    password_file: Path | None
    rpc: tuple[str, ...]
    directory: str | None
    json: bool
    no_input: bool
    debug: bool
    settings: tuple[Setting, ...] = field(repr=False, default=())

    def in_home(self, home: Path) -> tuple[Setting, ...]:
        """The settings in force in a home: what nothing else names of the network, the home knows."""
        path = home / NETWORK_FILE
        kept = _network_of(path)
        return tuple(
            Setting(setting.name, kept[setting.name], Origin.HOME, str(path))
            if setting.name in kept and setting.origin is Origin.DEFAULT
            else setting
            for setting in self.settings
        )


@dataclass(frozen=True)
class ServerConfig:
    """What a relay is told before it does anything; without `private_key` it sponsors nobody."""

    host: str
    port: int
    db: str = field(repr=False)
    blobs: str = field(repr=False)
    rpc: tuple[str, ...] = field(repr=False)
    directory: str | None
    cert: Path | None
    key: Path | None
    workers: int
    metrics_port: int | None
    nats: str | None = field(repr=False)
    nats_ca: Path | None
    proxies: tuple[str, ...]
    limits: tuple[tuple[str, int], ...]
    sponsor_ether_per_day: float
    sponsor_ether_per_hour: float | None
    sponsor_work_bits: int
    sponsor_invited_only: bool
    account: str | None
    private_key: bytes | None = field(repr=False)
    data_dir: Path
    debug: bool
    settings: tuple[Setting, ...] = field(repr=False, default=())

    @property
    def sponsor_wei_per_day(self) -> int:
        """The sponsor's spending limit in wei for 24 hours."""
        return int(self.sponsor_ether_per_day * 10**9) * 10**9

    @property
    def sponsor_wei_per_hour(self) -> int:
        """The same for an hour; a quarter of the day's unless it is given."""
        if self.sponsor_ether_per_hour is None:
            return self.sponsor_wei_per_day // 4
        return int(self.sponsor_ether_per_hour * 10**9) * 10**9


def load_client(
    flags: Mapping[str, object],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> ClientConfig:
    """The client's settings. `flags` maps option names (with underscores) to what was typed."""
    read = _Reader(_sources(flags, environment, folder, "client"))
    home, user = read(_HOME, None), read(_USER, None)
    home_rank, user_rank = (list(Origin).index(read.origins[name]) for name in ("home", "user"))
    if home is not None and user is not None:
        if home_rank == user_rank:
            raise BadConfig(
                f"Both a home and a user are given by the {read.origins['home'].value}; one of them decides.",
                "Leave one of --home and --user out.",
            )
        # Whoever says --user today does not mean the home that the environment has had since yesterday.
        home, user = (home, None) if home_rank < user_rank else (None, user)
    return ClientConfig(
        home=home,
        user=user,
        data_dir=data_dir(),
        password_file=read(_PASSWORD_FILE, None),
        rpc=read(_RPC, ()),
        directory=read(_DIRECTORY, None),
        json=read(_JSON, False),
        no_input=read(_NO_INPUT, False),
        debug=read(_DEBUG, False),
        settings=tuple(read.settings),
    )


def load_server(
    flags: Mapping[str, object],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> ServerConfig:
    """The relay's settings. Key and certificate come together or not at all."""
    read = _Reader(_sources(flags, environment, folder, "server"))
    data = data_dir()
    db = read(_DB, f"sqlite:///{data / 'relay.sqlite3'}")
    config = ServerConfig(
        host=read(_HOST, DEFAULT_HOST),
        port=read(_PORT, DEFAULT_PORT),
        db=db,
        blobs=read(_BLOBS, str(_beside(db) or data / "relay.blobs")),
        rpc=read(_RPC, ()),
        directory=read(_DIRECTORY, None),
        cert=read(_CERT, None),
        key=read(_KEY, None),
        workers=read(_WORKERS, 1),
        metrics_port=read(_METRICS_PORT, None),
        nats=read(_NATS, None),
        nats_ca=read(_NATS_CA, None),
        proxies=read(_PROXIES, ()),
        limits=read(_RELAY_LIMITS, ()),
        sponsor_ether_per_day=read(_SPONSOR_ETHER, DEFAULT_SPONSOR_ETHER),
        sponsor_ether_per_hour=read(_SPONSOR_ETHER_AN_HOUR, None),
        sponsor_work_bits=read(_SPONSOR_WORK, DEFAULT_WORK_BITS),
        sponsor_invited_only=read(_SPONSOR_INVITED, False),
        account=read(_ACCOUNT, None),
        private_key=read(_PRIVATE_KEY, None),
        data_dir=data,
        debug=read(_DEBUG, False),
        settings=tuple(read.settings),
    )
    if (config.cert is None) != (config.key is None):
        given, missing = ("cert", "key") if config.key is None else ("key", "cert")
        raise BadConfig(
            f"The setting {given} is given without {missing}.", "Give both --cert and --key, or neither."
        )
    return config


def _beside(db: str) -> Path | None:
    """The folder for files beside an embedded database; None where the database is a server."""
    scheme, found, path = db.partition("?")[0].partition(":///")
    return Path(path).with_suffix(".blobs").absolute() if found and scheme.startswith("sqlite") else None


def _network_of(path: Path) -> dict[str, Shown]:
    """What a home's file says of the network, as it is printed; nothing where it says nothing sound."""
    import json

    try:
        with path.open(encoding="utf-8") as file:
            read = json.loads(file.read(_MAX_NETWORK))
        return {"rpc": _as_urls(_endpoints(read["rpc"])), "directory": _address(read["directory"])}
    except (OSError, ValueError, KeyError, TypeError):  # the command that needs it says what is wrong
        return {}


def data_dir() -> Path:
    """Where homes and the embedded databases of this machine's user are kept."""
    from platformdirs import user_data_path

    return user_data_path(APPLICATION, appauthor=False)


def config_dir() -> Path:
    """Where the config file of this machine's user is looked for."""
    from platformdirs import user_config_path

    return user_config_path(APPLICATION, appauthor=False)


def _sources(
    flags: Mapping[str, object], environment: Mapping[str, str] | None, folder: Path | None, program: str
) -> Sources:
    path = config_dir() / CONFIG_FILE
    return Sources(
        flags=flags,
        environment=os.environ if environment is None else environment,
        env_file=_read_env_file((folder or Path()) / ENV_FILE),
        config_file=_read_config_file(path, program),
        config_path=path,
    )


def _read_env_file(path: Path) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as problem:
        raise BadConfig(f"The file {path.absolute()} cannot be read ({_reason(problem)}).") from None
    from io import StringIO

    from dotenv import dotenv_values

    # Without interpolation: a `$` in a database password is a dollar sign.
    return {
        name: value
        for name, value in dotenv_values(stream=StringIO(text), interpolate=False).items()
        if value is not None
    }


def _read_config_file(path: Path, program: str) -> dict[str, object]:
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as problem:
        raise BadConfig(f"The config file {path} cannot be read ({_reason(problem)}).") from None
    import tomllib

    try:
        tables: dict[str, object] = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise BadConfig(f"The config file {path} is not TOML ({problem}).") from None
    known = {"client": CLIENT_OPTIONS, "server": SERVER_OPTIONS}
    own: dict[str, object] = {}
    for table, options in known.items():
        part = tables.pop(table, {})
        if not isinstance(part, dict):
            raise BadConfig(f"In the config file {path}, {table} is not a table.", f"Write it as [{table}].")
        _refuse_unknown(path, part, {option.name for option in options if not option.secret}, f"[{table}] ")
        if table == program:
            own = part
    _refuse_unknown(
        path, tables, {option.name for options in known.values() for option in options if not option.secret}
    )
    return tables | own


def _refuse_unknown(path: Path, table: Mapping[str, object], known: set[str], where: str = "") -> None:
    if unknown := sorted(table.keys() - known):
        secret = any(option.secret and option.name in unknown for option in SERVER_OPTIONS)
        raise BadConfig(
            f"The config file {path} has a setting that does not exist: {where}{unknown[0]}.",
            "A private key belongs into the environment or .env."
            if secret
            else f"Known are {', '.join(sorted(known))}.",
        )


def _reason(problem: Exception) -> str:
    return problem.strerror or str(problem) if isinstance(problem, OSError) else "not UTF-8"
