"""Which home is meant: the one named, the user named, or the only one there is.

Homes lie in the data folder under their users' names. `.joined` beside them (no user can be called so)
keeps the network that `join` was given before there was any user; the next registration takes it from
there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chatchain.errors import AmbiguousName, MalformedName, NoAccount, UsageError

if TYPE_CHECKING:
    from chatchain.ui.world import Setting, Settings

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{1,30}[a-z0-9]")
ACCOUNT: Final = "account.json"
"""A folder with this file is somebody's home; one that only joined a network is nobody's yet."""
WAITING: Final = ".joined"
LINK: Final = "link"
_MAX_LINK: Final = 4096
_MAX_ACCOUNT: Final = 64 * 1024


def users(data_dir: Path) -> list[str]:
    """Whose homes are here, by name."""
    try:
        found = [entry.name for entry in data_dir.iterdir() if _NAME.fullmatch(entry.name)]
    except OSError:
        return []
    return sorted(name for name in found if (data_dir / name / ACCOUNT).exists())


def unfinished(home: Path) -> str | None:
    """Whose registration, or linking, was begun in this home and is not finished, if one was."""
    account = _account(home)
    name = account.get("username")
    return name if isinstance(name, str) and not account.get("uid") else None


def waits_for_link(home: Path) -> bool:
    """Whether what was begun in this home is to become a device of an account that exists."""
    return bool(_account(home).get("linked"))


def restores(home: Path) -> bool:
    """Whether what was begun in this home is to bring an account back, not to make one."""
    return bool(_account(home).get("restored"))


def _account(home: Path) -> dict[str, object]:
    try:
        with (home / ACCOUNT).open(encoding="utf-8") as file:
            account = json.loads(file.read(_MAX_ACCOUNT))
    except (OSError, ValueError):  # whoever opens the home says what is wrong with it
        return {}
    return account if isinstance(account, dict) else {}


def named(settings: Settings) -> Path | None:
    """The home that --home or --user names, if one does."""
    if settings.home is not None:
        return settings.home
    return settings.data_dir / settings.user if settings.user is not None else None


def find(settings: Settings) -> Path:
    """The home of a command that needs an account; raises AmbiguousName or NoAccount."""
    if (home := named(settings)) is not None:
        known = users(settings.data_dir) if settings.home is None and not home.exists() else []
        if known:
            are = "there is only" if len(known) == 1 else "there are"
            raise NoAccount(
                f"There is no user {settings.user} here; {are} {', '.join(known)}.",
                f"Correct --user, or create one with `chatchain register {settings.user}`.",
            )
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


def settings_in_force(settings: Settings) -> Sequence[Setting]:
    """Every setting; where none names the network, what the home that is meant knows of it."""
    try:
        home = find(settings)
    except (NoAccount, AmbiguousName):
        return settings.settings
    return settings.in_home(home)


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


def waiting(settings: Settings) -> Path:
    """A place that is nobody's home, for asking the network that the next user will join."""
    return settings.data_dir / WAITING


def for_join(settings: Settings) -> Path:
    """The home that a join link goes into: the one named, the only one, or a place for the next user."""
    if (home := named(settings)) is not None:
        return home
    match users(settings.data_dir):
        case [name]:
            return settings.data_dir / name
        case _:
            return waiting(settings)


def remember_link(settings: Settings, link: str) -> None:
    """Keeps a join link that held, for the users to come."""
    folder = settings.data_dir / WAITING
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = folder / LINK
    beside = folder / f"{LINK}.part"  # a disk that fills up must not leave half a link
    beside.write_text(link.strip() + "\n", encoding="utf-8")
    beside.chmod(0o600)
    beside.replace(file)


def remembered_link(settings: Settings, home: Path) -> str | None:
    """The join link that a new home should follow, unless its network is known already."""
    if (settings.rpc and settings.directory) or (home / "network.json").exists():
        return None
    try:
        with (settings.data_dir / WAITING / LINK).open(encoding="utf-8") as file:
            return file.read(_MAX_LINK).strip() or None
    except (OSError, UnicodeDecodeError):
        return None
