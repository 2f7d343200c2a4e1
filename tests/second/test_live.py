"""The second client beside the first: against the relay, and with the program that people run."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.programs import CLIENT, chatchain, clean_environment, devnet, up, user
from tests.second.chain import Chain
from tests.second.person import (
    DELETE,
    DELIVERED,
    EDIT,
    REACTION,
    READ,
    RECEIPT,
    REPLY,
    TEXT,
    Message,
    Person,
    safety_number,
)

SIZES = (1, 245, 246, 65_000, 65_536)  # characters: on both sides of a bucket's edge, and the largest text
STEP = 50  # messages from one KEM step to the next


class Town:
    """A network where ada uses the program."""

    def __init__(self, folder: Path, report: dict[str, Any]) -> None:
        self._folder, self._count = folder, 0
        self.chain = Chain(report["rpc"], report["contract_address"])
        self.ada = self.chain.uid_of("ada")

    def does(self, *arguments: str) -> list[dict[str, Any]]:
        """What ada's program prints."""
        return chatchain(self._folder, "ada", *arguments)

    def reads(self) -> list[str]:
        """The texts that wait for ada."""
        return [one.get("text", "") for one in self.does("receive", "--wait", "30")]

    def types(self, *arguments: str, lines: list[str]) -> None:
        """Has ada's program read lines."""
        command, settings = [*CLIENT, "--json", *arguments], clean_environment() | user(self._folder, "ada")
        text = "".join(line + "\n" for line in lines)
        done = subprocess.run(command, env=settings, input=text, text=True, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr

    @contextmanager
    def newcomer(self) -> Iterator[tuple[str, Person]]:
        """Somebody with the second client, logged in."""
        self._count += 1
        name, person = f"second-{self._count}", Person(self.chain, "a horse, correctly stapled")
        person.register(name)
        person.connect()
        try:
            yield name, person
        finally:
            person.disconnect()


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """One network for this file."""
    folder = tmp_path_factory.mktemp("network")
    try:
        yield Town(folder, up(folder, "--members", "ada"))
    finally:
        devnet("down", folder)


def take(person: Person, count: int) -> list[Message]:
    """The next messages that are no receipts."""
    return list(islice(person.texts(), count))


def contents(messages: list[Message]) -> list[list[Any]]:
    return [message.content for message in messages]


def test_a_conversation_from_nothing(town: Town) -> None:
    """Registered at the relay's expense; both ways, a KEM step, receipts, the same safety number."""
    with town.newcomer() as (name, bob):
        sent = [bob.send(town.ada, TEXT, f"line {n}") for n in range(STEP)]
        [session] = bob.sessions[town.ada, 1]
        assert (session.ratchet.initiator, session.ratchet.kem_seed) == (True, b"")
        sent.append(bob.send(town.ada, TEXT, "with a key of the KEM"))
        assert session.ratchet.kem_seed
        shown = town.does("receive", "--wait", "30")
        assert [one["id"] for one in shown] == [ident.hex() for ident in sent]
        assert {(one["from"], one["from_uid"]) for one in shown} == {(name, bob.me.uid)}
        assert shown[0]["text"] == "line 0"

        delivered: set[bytes] = set()
        while delivered < set(sent):
            kind, how, idents = bob.receive().content
            assert (kind, how) == (RECEIPT, DELIVERED)
            delivered |= set(idents)
        assert session.ratchet.kem_secret
        for size in SIZES:
            bob.send(town.ada, TEXT, "x" * size)
        assert session.ratchet.epoch == 1
        assert [len(text) for text in town.reads()] == list(SIZES)

        [answer] = town.does("send", name, "and hello to you")
        [message] = take(bob, 1)
        assert (message.sender, message.id.hex()) == (town.ada, answer["id"])
        assert message.content == [TEXT, "and hello to you"]
        bob.send(town.ada, RECEIPT, DELIVERED, [message.id])
        bob.send(town.ada, RECEIPT, READ, [message.id])
        bob.send(town.ada, TEXT, "read")
        assert town.reads() == ["read"]
        [last] = [one for one in town.does("history", name) if one["direction"] == "out"]
        assert last["state"] == "read"

        [told] = town.does("contacts", "safety-number", name)
        assert told["fingerprint"] == safety_number(town.chain.user(town.ada), town.chain.user(bob.me.uid))
        assert bob.sessions[town.ada, 1] == [session]


def test_it_goes_on_where_the_connection_ended(town: Town) -> None:
    """What came meanwhile comes once and in order; a KEM step in a session that ada began."""
    with town.newcomer() as (name, bob):
        bob.disconnect()
        lines = [f"line {n}" for n in range(STEP + 1)]
        town.types("send", name, "--lines", "-", lines=lines)
        assert bob.connect() == len(lines)
        for part in (lines[:3], lines[3:]):
            assert contents(take(bob, len(part))) == [[TEXT, line] for line in part]
            bob.connect()

        [session] = bob.sessions[town.ada, 1]
        assert not session.ratchet.initiator
        assert session.ratchet.kem_ciphertext
        bob.send(town.ada, TEXT, "with the answer")
        assert town.reads() == ["with the answer"]
        town.does("send", name, "in the next epoch")
        assert contents(take(bob, 1)) == [[TEXT, "in the next epoch"]]
        assert session.ratchet.epoch == 1
        assert bob.repeats == 0


def test_messages_about_messages(town: Town) -> None:
    """Edits, replies, reactions and deletions, both ways."""
    with town.newcomer() as (name, bob):
        first = bob.send(town.ada, TEXT, "frist")
        bob.send(town.ada, EDIT, first, "first")
        bob.send(town.ada, REACTION, bob.me.uid, first, "👍")
        gone = bob.send(town.ada, TEXT, "oops")
        bob.send(town.ada, DELETE, gone)
        reply = bob.send(town.ada, REPLY, bob.me.uid, first, "as I said")
        assert town.reads() == ["first", "", "as I said"]
        edited, deleted, replied = town.does("history", name)
        assert (edited["id"], edited["text"], edited["edited"]) == (first.hex(), "first", True)
        assert edited["reactions"] == [{"from": name, "emoji": "👍"}]
        assert (deleted["id"], deleted["deleted"]) == (gone.hex(), True)
        assert (replied["text"], replied["reply_to"]) == ("as I said", first.hex())

        town.types("chat", name, lines=["/react 👏", "/reply so it is", "/edit so it was", "/delete"])
        reaction, answer, edit, deletion = take(bob, 4)
        assert reaction.content == [REACTION, bob.me.uid, reply, "👏"]
        assert answer.content == [REPLY, bob.me.uid, reply, "so it is"]
        assert edit.content == [EDIT, answer.id, "so it was"]
        assert deletion.content == [DELETE, answer.id]


def test_files_of_3_mb(town: Town, tmp_path: Path) -> None:
    """Sealed, uploaded, fetched and opened, both ways."""
    content = os.urandom(3_000_000)
    with town.newcomer() as (name, bob):
        sent = bob.send_file(town.ada, content, "été.bin", "application/octet-stream")
        [shown] = town.does("receive", "--wait", "30")
        assert (shown["attachment"]["name"], shown["attachment"]["size"]) == ("été.bin", len(content))
        [got] = town.does("file", "get", sent.hex(), "--out", str(tmp_path / "got"))
        assert Path(got["path"]).read_bytes() == content

        (tmp_path / "film.mp4").write_bytes(content[::-1])
        town.does("send", name, "have a look", "--file", str(tmp_path / "film.mp4"))
        [message] = take(bob, 1)
        assert (message.content[2], message.content[8]) == ("film.mp4", "have a look")
        assert bob.fetch_file(message) == content[::-1]


def test_keys_that_ada_replaces(town: Town) -> None:
    """What was on its way to the old ones is read, and a new session begins with the new ones."""
    with town.newcomer() as (name, bob):
        bob.send(town.ada, TEXT, "to the old keys")
        town.does("keys", "rotate")
        bob.send(town.ada, TEXT, "to the new keys")
        assert town.reads() == ["to the old keys", "to the new keys"]
        old, new = bob.sessions[town.ada, 1]
        assert new.version == old.version + 1
        town.does("send", name, "from the new keys")
        assert contents(take(bob, 1)) == [[TEXT, "from the new keys"]]
