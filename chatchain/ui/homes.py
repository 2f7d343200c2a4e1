"""Which home is meant: the one named, the user named, or the only one there is.

Homes lie in the data folder under their users' names. `.joined` beside them (no user can be called so)
keeps the network that `join` was given before there was any user; the next registration takes it from
there.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chatchain.errors import AmbiguousName, MalformedName, NoAccount, UsageError

if TYPE_CHECKING:
    from chatchain.ui.world import Settings

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{1,30}[a-z0-9]")
_MARKS: Final = ("account.json", "network.json")
"""A folder with one of these is a home: a registered user's, or one that joined a network."""
WAITING: Final = ".joined"
LINK: Final = "link"
_MAX_LINK: Final = 4096


def users(data_dir: Path) -> list[str]:
    """Whose homes are here, by name."""
    try:
        found = [entry.name for entry in data_dir.iterdir() if _NAME.fullmatch(entry.name)]
    except OSError:
        return []
    return sorted(name for name in found if any((data_dir / name / mark).exists() for mark in _MARKS))


def named(settings: Settings) -> Path | None:
    """The home that --home or --user names, if one does."""
    if settings.home is not None:
        return settings.home
    return settings.data_dir / settings.user if settings.user is not None else None


def find(settings: Settings) -> Path:
    """The home of a command that needs an account; raises AmbiguousName or NoAccount."""
    if (home := named(settings)) is not None:
        return home
    match users(settings.data_dir):
        case []:
            raise NoAccount("There is no user on this machine yet.")
        case [name]:
            return settings.data_dir / name
        case names:
            raise AmbiguousName(
                f"Several users have a home here: {', '.join(names)}.",
                "Say which one you are with --user NAME.",
            )


def for_new(settings: Settings, name: str) -> Path:
    """The home of a registration: the one named, else one under the new user's own name."""
    if settings.home is None and settings.user not in (None, name):
        raise UsageError(
            f"The home of {settings.user} is for {settings.user}, not for {name}.",
            "Leave --user out, or correct it.",
        )
    if (home := named(settings)) is not None:
        return home
    if not _NAME.fullmatch(name):
        raise MalformedName(f"{name!r} cannot be a username.")
    return settings.data_dir / name


def for_join(settings: Settings) -> Path:
    """The home that a join link goes into: the one named, the only one, or a place for the next user."""
    if (home := named(settings)) is not None:
        return home
    match users(settings.data_dir):
        case [name]:
            return settings.data_dir / name
        case _:
            return settings.data_dir / WAITING


def remember_link(settings: Settings, link: str) -> None:
    """Keeps a join link that held, for the users to come."""
    folder = settings.data_dir / WAITING
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = folder / LINK
    file.write_text(link.strip() + "\n", encoding="utf-8")
    file.chmod(0o600)


def remembered_link(settings: Settings, home: Path) -> str | None:
    """The join link that a new home should follow, unless its network is known already."""
    if (settings.rpc and settings.directory) or (home / "network.json").exists():
        return None
    try:
        with (settings.data_dir / WAITING / LINK).open(encoding="utf-8") as file:
            return file.read(_MAX_LINK).strip() or None
    except (OSError, UnicodeDecodeError):
        return None
