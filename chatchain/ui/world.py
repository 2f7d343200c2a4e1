"""What the interface is handed by the wiring: a way to read the settings and a way to get at a client.

The interface itself knows the client core's face and nothing beneath it, not even where settings come from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from chatchain.client.core import Client

Shown = str | int | float | bool | list[str] | None


class Setting(Protocol):
    """One setting with its origin; secrets are masked already."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def value(self) -> Shown:
        """What it is set to."""

    @property
    def origin(self) -> str:
        """flag, environment, .env, config file, home or default."""

    @property
    def where(self) -> str:
        """The flag, variable or file."""


class Settings(Protocol):
    """What the interface needs of the client's configuration."""

    @property
    def home(self) -> Path | None:
        """One user's folder, if it was named."""

    @property
    def user(self) -> str | None:
        """The user whose folder below `data_dir` is meant, if named."""

    @property
    def data_dir(self) -> Path:
        """Where the homes of this machine's user are."""

    @property
    def password_file(self) -> Path | None:
        """Where the password stands, if anywhere."""

    @property
    def rpc(self) -> tuple[str, ...]:
        """Endpoints of the chain, if given."""

    @property
    def directory(self) -> str | None:
        """The network's one address, if given."""

    @property
    def json(self) -> bool:
        """Whether programs read the output."""

    @property
    def no_input(self) -> bool:
        """Whether nobody may be asked."""

    @property
    def debug(self) -> bool:
        """Whether stack traces are shown."""

    @property
    def settings(self) -> Sequence[Setting]:
        """Every setting with its origin."""

    def in_home(self, home: Path) -> Sequence[Setting]:
        """Every setting; the network from the home where nothing else names it."""


class Connect(Protocol):
    """Makes the client of one home; nothing is opened or read by that."""

    def __call__(
        self,
        home: Path,
        settings: Settings,
        *,
        password: str | None = None,
        ask_password: Callable[[], str] | None = None,
    ) -> Client:
        """`password` is at hand; `ask_password` is called once when one is needed and none is."""


@dataclass(frozen=True)
class World:
    """Everything outside of the interface."""

    version: str
    configure: Callable[[Mapping[str, object]], Settings]
    """Reads the settings, given the global flags by name; raises BadConfig."""
    connect: Connect
    environment: Mapping[str, str]
