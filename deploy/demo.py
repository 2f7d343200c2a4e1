"""The main job as a transcript: deploy, register, vote a newcomer in, message both ways, look into the relay.

`make demo` runs it. Everything is done by the programs that everybody uses, each command as it is shown,
in a folder of its own that is gone afterwards (`--keep` leaves it there and the network running). Whatever
does not come out as it should ends the demonstration with exit code 1 and with what failed.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import secrets
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

if __package__ in {None, ""}:  # started as a file: the project's folder is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chatchain.programs.installed import Installed

with Installed():
    import msgspec

    from chatchain.crypto.phrase import keys_of
    from deploy import files
    from deploy.devnet import environment

ROOT: Final = Path(__file__).resolve().parent.parent
WIDTH: Final = 100
COMMAND_SECONDS: Final = 300

HELLO: Final = "Welcome, carol! The meeting is on Friday at eight."
THANKS: Final = "Thank you, ada. I will bring the minutes."
EARLY: Final = "Hello, may I come in?"


class DemoFailed(Exception):
    """A step did not come out as it should."""


class Demo:
    """One run of the demonstration in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._network: dict[str, Any] = {}
        self._steps = 0

    def run(self) -> None:
        """All steps in order."""
        self._start()
        self._newcomer()
        self._vote()
        self._first_message()
        self._look_into_the_relay()
        self._answer()

    # --- the steps ----------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._step(
            "A network",
            "A development chain, the contracts, a relay, and two founding members, ada and bob. Policy "
            "`vote`: only members may message, and who is a member is decided by vote.",
        )
        arguments = ["up", "--policy", "vote", "--members", "ada,bob", "--port", "0", "--relay-port", "0"]
        self._network = self._devnet(*arguments)
        where = json.loads((self.folder / "deployment.json").read_text())
        self._table(
            ("chain", f"{self._network['rpc']} (Anvil, chain {where['chainId']})"),
            ("Directory", f"{where['directory']}  names the others and the relay"),
            ("IdentityRegistry", f"{where['identityRegistry']}  users, devices, keys"),
            ("Membership", f"{where['membership']}  members, proposals, votes"),
            ("relay", f"{self._network['relay']}  TLS 1.3; the hash of its key is in the Directory"),
            ("founders", f"{', '.join(self._network['members'])}  registered, seated; the network is sealed"),
        )
        self._require(self._network["sealed"] is True, "the network is not sealed")

    def _newcomer(self) -> None:
        self._step(
            "carol arrives",
            "All she has is the link. She makes her keys on her own device and signs her registration; the "
            "relay pays for it, since she has no ether.",
        )
        files.write(self.folder / "homes" / "carol.password", secrets.token_urlsafe(18), mode=files.SECRET)
        self._chatchain("carol", "join", self._network["join"])
        self._chatchain("carol", "register", "carol", "--mnemonic-file", "homes/carol.mnemonic")
        self._require(not self._ask("carol", "whoami")[0]["member"], "carol is a member already")
        self._say("She is registered, and not a member. The relay takes no message from her:")
        self._chatchain("carol", "send", "ada", EARLY, expect=7)

    def _vote(self) -> None:
        self._step(
            "The members decide",
            "Registering opened a proposal to admit her. More than half of the members must agree: with two "
            "of them, both. Each vote is signed by its voter and counted by the contract.",
        )
        self._chatchain("ada", "proposals")
        number = str(self._ask("ada", "proposals")[0]["id"])
        self._chatchain("ada", "vote", number, "yes")
        self._chatchain("bob", "vote", number, "yes")
        [proposal] = self._ask("bob", "proposals")
        self._require(proposal["state"] == "passed", f"proposal {number} is {proposal['state']}")
        self._say("The second yes was the deciding one, and admitted her in the same transaction:")
        self._chatchain("carol", "members")
        names = {member["username"] for member in self._ask("carol", "members")}
        self._require(names == {"ada", "bob", "carol"}, f"the members are {names}")

    def _first_message(self) -> None:
        self._step(
            "ada writes to carol",
            "carol is offline. The message is encrypted on ada's device, to the keys that the chain lists "
            "for her. `sent` is the first tick: it is on the relay's disk.",
        )
        self._chatchain("ada", "send", "carol", HELLO)

    def _look_into_the_relay(self) -> None:
        self._step(
            "What the relay has of it", "Its database and its log, searched for what it must not know."
        )
        database, log = self.folder / "relay.sqlite3", self.folder / "logs" / "relay.log"
        [row] = _waiting(database)
        self._table(
            ("waiting", f"1 message for user {row['uid']}, {row['size']} bytes, which begin"),
            ("", " ".join(f"{byte:02x}" for byte in row["start"])),
        )
        held = b"".join(path.read_bytes() for path in [*sorted(self.folder.glob("relay.sqlite3*")), log])
        secret = {"ada's message": HELLO, "what carol tried before": EARLY, **self._secrets()}
        for what, text in secret.items():
            found = [kind for kind, form in _spellings(text).items() if form in held]
            self._require(not found, f"{what} is in the relay's database or log ({', '.join(found)})")
            self._print(f"    not there: {what}")
        self._require(b"carol" in held, "the search does not find what the relay does know")
        self._print("    there, as on the public chain: the name carol")

    def _answer(self) -> None:
        self._step(
            "carol reads and answers",
            "Her device checks that the key which signed is ada's on the chain, stores the message and tells "
            "ada's device: that is the second tick.",
        )
        self._chatchain("carol", "receive", "--wait", "10")
        self._chatchain("carol", "send", "ada", THANKS)
        self._chatchain("ada", "receive", "--wait", "10")
        self._chatchain("ada", "history", "carol")
        talk = self._ask("ada", "history", "carol")
        seen = [(message["text"], message["direction"], message["state"]) for message in talk]
        self._require(seen[:1] == [(HELLO, "out", "delivered")], f"ada's message was not delivered: {seen}")
        self._require([text for text, *_ in seen] == [HELLO, THANKS], f"the talk is another: {seen}")
        left = {row["id"].hex() for row in _waiting(self.folder / "relay.sqlite3")}
        self._require(left.isdisjoint(message["id"] for message in talk), "the relay still holds a message")
        self._say("Both have both messages, and the relay has neither of them any more.")

    def _secrets(self) -> dict[str, str]:
        """Everybody's passwords, recovery phrases and private keys, by what they are."""
        found = {}
        for name in ("ada", "bob", "carol"):
            phrase = (self.folder / "homes" / f"{name}.mnemonic").read_text().strip()
            found[f"{name}'s password"] = (self.folder / "homes" / f"{name}.password").read_text().strip()
            found[f"{name}'s recovery phrase"] = phrase
            found[f"{name}'s private key"] = keys_of(phrase).account_key.hex()
        operator = json.loads((self.folder / "secrets.json").read_text())
        found |= {f"the {role}'s private key": key for role, key in operator.items()}
        return found

    # --- commands -----------------------------------------------------------------------------------------

    def _devnet(self, *arguments: str) -> dict[str, Any]:
        command = [*arguments, "--dir", str(self.folder)]
        self._print(f"\n  $ python deploy/devnet.py {shlex.join(arguments)}")
        done = self._call([sys.executable, str(ROOT / "deploy" / "devnet.py"), *command], environment())
        if done.returncode:
            raise DemoFailed(f"devnet.py {arguments[0]} failed:\n{done.stdout}{done.stderr}")
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    def _chatchain(self, user: str, *arguments: str, expect: int = 0) -> None:
        """Run a command as a user would type it, and show what it says."""
        self._print(f"\n  {user} $ chatchain {_typed(arguments)}")
        done = self._client(user, *arguments)
        self._print(textwrap.indent((done.stdout + done.stderr).rstrip(), "    "))
        if done.returncode != expect:
            raise DemoFailed(
                f"`chatchain {arguments[0]}` of {user} ended with {done.returncode}, not {expect}."
            )
        if expect:
            self._print(f"    (exit code {expect}: refused)")

    def _ask(self, user: str, *arguments: str) -> list[dict[str, Any]]:
        """What a command tells a program: one object a line."""
        done = self._client(user, "--json", *arguments)
        if done.returncode:
            raise DemoFailed(f"`chatchain {arguments[0]}` of {user} failed:\n{done.stdout}{done.stderr}")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def _client(self, user: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        settings = {
            "CHATCHAIN_HOME": f"homes/{user}",
            "CHATCHAIN_PASSWORD_FILE": f"homes/{user}.password",
            "CHATCHAIN_NO_INPUT": "true",
            "NO_COLOR": "1",
        }
        return self._call([sys.executable, str(ROOT / "client.py"), *arguments], environment() | settings)

    def _call(self, command: Sequence[str], settings: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command,
                cwd=self.folder,
                env=dict(settings),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=COMMAND_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DemoFailed(f"{Path(command[1]).name} takes longer than {COMMAND_SECONDS} s.") from None

    # --- talking ------------------------------------------------------------------------------------------

    def _step(self, title: str, text: str) -> None:
        self._steps += 1
        self._print(f"\n\n{self._steps}. {title}")
        self._say(text)

    def _say(self, text: str) -> None:
        self._print("\n" + textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="  "))

    def _table(self, *rows: tuple[str, str]) -> None:
        widest = max(len(name) for name, _ in rows)
        for name, value in rows:
            self._print(f"    {name:{widest}}  {value}")

    def _print(self, text: str) -> None:
        print(text, flush=True)

    def _require(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise DemoFailed(otherwise)


def _typed(arguments: Sequence[str]) -> str:
    """Arguments as a person types them: quoted for the shell, in double quotes where that reads better."""
    return " ".join(
        f'"{word}"' if " " in word and not set(word) & set('"$`\\!') else shlex.quote(word)
        for word in arguments
    )


def _spellings(text: str) -> dict[str, bytes]:
    """How a secret might lie in a database or a log."""
    plain = text.encode()
    forms = {
        "as it is": plain,
        "in JSON": json.dumps(text)[1:-1].encode(),
        "in UTF-16": text.encode("utf-16-le"),
        "in hex": plain.hex().encode(),
        "in base64": base64.b64encode(plain).rstrip(b"="),
    }
    if len(text) == 64 and not set(text) - set("0123456789abcdef"):
        forms["in bytes"] = bytes.fromhex(text)
    return forms


def _waiting(database: Path) -> list[dict[str, Any]]:
    """The messages that wait in the relay's database, without their content but for its first bytes."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        runs = connection.execute("SELECT uid, content FROM mail ORDER BY last").fetchall()
    found = []
    for uid, content in runs:
        while content:  # of each message a length and, encoded: id, suite, ids and time, header, body
            end = 4 + int.from_bytes(content[:4], "big")
            id_, *_, body = msgspec.msgpack.decode(content[4:end])
            found.append({"id": id_, "uid": uid, "size": len(body), "start": body[:24]})
            content = content[end:]
    return found


@contextlib.contextmanager
def _folder(keep: bool) -> Iterator[Path]:
    """A folder for the run. The network in it ends with the run; after a failure the folder stays."""
    folder = Path(tempfile.mkdtemp(prefix="chatchain-demo-"))
    failed = True
    try:
        yield folder
        failed = False
    finally:
        if not keep or failed:
            _down(folder)
        if failed:
            print(f"The logs are in {folder / 'logs'}.", file=sys.stderr)
        elif not keep:
            shutil.rmtree(folder)


def _down(folder: Path) -> None:
    if (folder / "devnet.json").exists():
        command = [sys.executable, str(ROOT / "deploy" / "devnet.py"), "down", "--dir", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DemoFailed(f"devnet.py down failed:\n{done.stderr}")


def _terminated(number: int, frame: object) -> NoReturn:
    """SIGTERM ends the run as Ctrl-C does, with everything put away."""
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Show everything; 0 if everything came out as it should."""
    parser = argparse.ArgumentParser(description="Show the main job on a development chain of this machine.")
    parser.add_argument("--keep", action="store_true", help="leave the network running, and say where")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminated)
    started = time.monotonic()
    print("chatchain, from nothing to messages. Each line with a $ is a command that runs as you see it.")
    try:
        with _folder(options.keep) as folder:
            Demo(folder).run()
    except DemoFailed as error:
        print(f"\nThe demonstration failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    print(f"\nDone in {time.monotonic() - started:.0f} s. The README shows how to do the same by hand.")
    if options.keep:
        print(f"The network runs on in {folder}; to end it: python deploy/devnet.py down --dir {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
