"""A home: the folder of one user of one network, and what of it is not in the database.

    network.json  which deployment this home belongs to, the endpoints that it asks, and until it is used the
                  invitation that it came with
    account.json  whose home it is: public facts, readable without the password
    vault         the secrets that the password opens (crypto.vault); vault.new during a password change
    account.key   the account's key under the vault's keystore key
    messages.db   the SQLCipher database
    lock          held by the process that works here

The folder has mode 0700 and every file 0600. A file is replaced whole: written beside, fsynced, renamed. The
lock is the operating system's, so a process that died holds nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec

from chatchain.client.ports import NetworkSettings
from chatchain.errors import AlreadyDone, BadConfig, HomeBusy, NoAccount, StoreUnavailable
from chatchain.model import Address

MAX_FILE = 64 * 1024
"""No file that is read whole here is anywhere near as long."""


class OwnAccount(msgspec.Struct, frozen=True):
    """Whose home this is. `uid` and `device` are 0 while it is being registered or linked.

    A `linked` home has no key of the account: that stays on the device that let this one in. A `restored` one
    was brought back from a phrase or keystore as a further device.
    """

    username: str
    account: str
    chain_id: int
    directory: str
    uid: int = 0
    device: int = 0
    linked: bool = False
    restored: bool = False


class _NetworkFile(msgspec.Struct, frozen=True):
    rpc: tuple[str, ...]
    directory: str
    chain_id: int = 0
    invitation: str = ""


class Home:
    """One user's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock_file: int | None = None
        self._made = False

    # --- the lock ----------------------------------------------------------------------------------------

    def acquire(self) -> None:
        """Takes the home for this process; raises HomeBusy, naming the other process. May be called again."""
        if self._lock_file is not None:
            return
        self.make()
        with writing(self.path):
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as held:
            other = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            who = f"process {other}" if other.isdigit() else "another process"
            raise HomeBusy(
                f"This home is in use by {who}.",
                "Let it finish or end it, then try again; nothing was changed.",
            ) from held
        with suppress(OSError):  # the lock holds without the note whose it is, also on a full disk
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._lock_file = descriptor

    def release(self) -> None:
        """Gives the home back; may be called twice."""
        if self._lock_file is not None:
            with suppress(OSError):
                os.ftruncate(self._lock_file, 0)
            os.close(self._lock_file)
            self._lock_file = None

    @property
    def held(self) -> bool:
        """Whether this process has the home."""
        return self._lock_file is not None

    # --- files -------------------------------------------------------------------------------------------

    @contextmanager
    def tentative(self) -> Iterator[None]:
        """If the block fails, a home that this object made and that is nobody's yet goes away again."""
        try:
            yield
        except BaseException:
            if self._made and not (self.path / "account.json").exists():
                for name in ("network.json", "lock"):
                    (self.path / name).unlink(missing_ok=True)
                with suppress(OSError):  # something else lies there: it is not ours to remove
                    self.path.rmdir()
                self.release()
                self._made = False
            raise

    def make(self) -> None:
        """Makes the folder, for its owner alone."""
        with writing(self.path):
            self._made = self._made or not self.path.exists()
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if stat.S_IMODE(self.path.stat().st_mode) != 0o700:
                self.path.chmod(0o700)

    def read(self, name: str) -> bytes | None:
        """A file's bytes, or None."""
        try:
            with (self.path / name).open("rb") as file:
                return file.read(MAX_FILE)
        except FileNotFoundError:
            return None
        except OSError as failure:
            raise StoreUnavailable(
                f"{self.path / name} cannot be read: {failure.strerror}.",
                "Check whose it is, and its rights.",
            ) from failure

    def write(self, name: str, data: bytes) -> None:
        """Replaces a file whole, or leaves it as it was."""
        self.make()
        write_private(self.path / name, data)

    def replace(self, source: str, target: str) -> None:
        """Renames a file over another."""
        with writing(self.path / target):
            (self.path / source).replace(self.path / target)
            sync_folder(self.path)

    def remove(self, name: str) -> None:
        """Deletes a file if it is there."""
        with writing(self.path / name):
            (self.path / name).unlink(missing_ok=True)
            sync_folder(self.path)

    @property
    def database(self) -> Path:
        """Where the database is."""
        return self.path / "messages.db"

    # --- what the files say ------------------------------------------------------------------------------

    def network(self) -> NetworkSettings | None:
        """What `join` or the registration stored."""
        data = self.read("network.json")
        if data is None:
            return None
        try:
            file = msgspec.json.decode(data, type=_NetworkFile)
            return NetworkSettings(file.rpc, _address(file.directory), file.chain_id, file.invitation)
        except (msgspec.DecodeError, ValueError) as failure:
            raise BadConfig(
                f"{self.path / 'network.json'} is damaged.", "Run `chatchain join LINK` again."
            ) from failure

    def put_network(self, settings: NetworkSettings) -> None:
        """Stores the network."""
        directory = "0x" + settings.directory.hex()
        file = _NetworkFile(settings.endpoints, directory, settings.chain_id, settings.invitation)
        self.write("network.json", msgspec.json.format(msgspec.json.encode(file)))

    def account(self) -> OwnAccount | None:
        """Whose home this is, if anybody's."""
        data = self.read("account.json")
        if data is None:
            return None
        try:
            return msgspec.json.decode(data, type=OwnAccount)
        except (msgspec.DecodeError, UnicodeDecodeError) as failure:
            raise BadConfig(f"{self.path / 'account.json'} is damaged.") from failure

    def put_account(self, account: OwnAccount) -> None:
        """Stores whose home this is."""
        self.write("account.json", msgspec.json.format(msgspec.json.encode(account)))

    def require_account(self) -> OwnAccount:
        """Whose home this is; raises NoAccount, also while a registration is unfinished."""
        account = self.account()
        if account is None:
            raise NoAccount(f"There is no account in {self.path} yet.")
        if not account.uid and account.linked:
            raise NoAccount(
                f"This home waits to be linked to the account of {account.username}.",
                "Bring the old device's answer: `chatchain link --answer TEXT`.",
            )
        if not account.uid and account.restored:
            raise NoAccount(
                f"The recovery of {account.username} in {self.path} is not finished.",
                "Go on with `chatchain recover`.",
            )
        if not account.uid:
            raise NoAccount(
                f"The registration of {account.username} in {self.path} is not finished.",
                f"Go on with `chatchain register {account.username}`.",
            )
        return account


def write_private(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Writes a file of mode 0600 that is there whole after a crash, or not at all.

    Without `replace`, FileExistsError says that something is there already.
    """
    # Whoever else may write in that folder must not have made the file for us, with rights of his own.
    beside = path.with_name(f".{path.name}.{os.urandom(8).hex()}.part")
    with writing(path), ExitStack() as tidy:
        tidy.callback(beside.unlink, missing_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            beside.replace(path)
        else:
            path.hardlink_to(beside)
    sync_folder(path.parent)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what a disk refuses into a sentence and what helps; that a file exists stays FileExistsError."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as failure:
        full = failure.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StoreUnavailable(
            f"{path} cannot be written: {failure.strerror}.",
            "Free some space and try again; what was there is as it was."
            if full
            else "Check whose it is, its rights, and that its disk can be written to.",
        ) from failure


def require_folder(path: Path) -> None:
    """Raises BadConfig for a file in a folder that does not exist."""
    if not path.parent.is_dir():
        raise BadConfig(f"There is no folder {path.parent}.", "Make it first, or name another file.")


def require_new(path: Path) -> None:
    """Raises what would keep `write_new` from writing this file."""
    require_folder(path)
    if path.exists():
        raise _exists(path)


def write_new(path: Path, data: bytes) -> None:
    """Writes a file of mode 0600 that was not there; raises AlreadyDone if it was."""
    try:
        write_private(path, data, replace=False)
    except FileExistsError as exists:
        raise _exists(path) from exists


def _exists(path: Path) -> AlreadyDone:
    return AlreadyDone(f"{path} exists already.", "Choose another file; it was not touched.")


def make_private(folder: Path) -> None:
    """Makes a folder, and what is missing above it, for the owner alone; `parents=True` asks the umask."""
    if not folder.parent.exists():
        make_private(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)


def sync_folder(path: Path) -> None:
    """Returns when the names in a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _address(text: str) -> Address:
    raw = bytes.fromhex(text.removeprefix("0x"))
    if len(raw) != 20:
        raise ValueError("an address has 20 bytes")
    return Address(raw)
