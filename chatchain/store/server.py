"""The relay's store: reads, the fold of the chain's users, and the writer of `store.writer`.

Every method here blocks; the relay calls them from its reader and chain threads. Only `writer` takes work
from the event loop, because it merely queues it.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from itertools import accumulate
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Engine, Row, and_, delete, insert, or_, select, text, update
from sqlalchemy.exc import SQLAlchemyError

from chatchain.errors import BadConfig
from chatchain.model import (
    Address,
    Device,
    DeviceId,
    DeviceState,
    DeviceVersion,
    KeyBundle,
    Letter,
    Policy,
    PrekeyBatch,
    PrekeyDraw,
    Run,
    Uid,
    User,
)
from chatchain.store import letters, prekeys
from chatchain.store.blobs import BlobTable
from chatchain.store.chainlog import ServerLogStore
from chatchain.store.database import Claim, claim, migrate, open_database, translated
from chatchain.store.nodes import NodeStore
from chatchain.store.scripts import run_statements
from chatchain.store.sponsoring import SpentInvitations, SponsorJournal
from chatchain.store.tables import (
    accepted_ids,
    chain_blocks,
    counters,
    devices,
    key_bundles,
    mail,
    members,
    network,
    seats,
    touched,
    users,
)
from chatchain.store.writer import Listener, Writer

ACCEPTED_DAYS: Final = 60
"""How long a message's id is remembered: a client that was away so long and sends again is noticed by the
recipient.
"""

DEPLOYMENT: Final = ("chain_id", "directory_high")
"""In the table `network`: the deployment that the database belongs to."""

FETCHED: Final = 256
"""Devices of which one transaction takes prekeys: messages wait no longer than for a batch of theirs."""

PRUNE_ROWS: Final = 5_000
PRUNE_PARTS: Final = 4096
"""The ids are looked through a part at a time, without an index by age that each message would pay for."""

Tell = Callable[[Sequence[Run], Sequence[Device], int], list[Letter]]
"""What to tell whom about runs that were given up, with the devices of all concerned and the time."""


class ServerStore:
    """One relay process's way to its database."""

    def __init__(self, url: str) -> None:
        self._engine = open_database(url)
        self._claim: Claim | None = None
        self._nodes: NodeStore | None = None
        self.log = ServerLogStore(self._engine)
        """The chain's events."""
        self.sponsoring = SponsorJournal(self._engine)
        """What the sponsor spent."""
        self.blobs = BlobTable(self._engine)
        """Which files there are."""
        self.invitations = SpentInvitations(self._engine)
        """Which invitations were used."""

    def touched(self) -> dict[int, int]:
        """Users that must be rewritten (0: the members), each with the newest block that concerns it."""
        return self.log.touched()

    def migrate(self, to: str = "head") -> None:
        """Creates or upgrades the tables; raises StoreUnavailable."""
        migrate(self._engine, to)

    @property
    def shareable(self) -> bool:
        """Whether several processes may work on this database: on MySQL, not on SQLite."""
        return self._engine.name != "sqlite"

    def claim(self) -> None:
        """Makes this process the database's only relay; raises RefusedError while there is another."""
        self._claim = claim(self._engine)
        self._draw_space()

    def join(self, name: str) -> NodeStore:
        """Takes a place among the processes that share the database, once per process."""
        self._engine.dispose()  # of connections from before nobody would know that they are to be fenced
        nodes = self._nodes = NodeStore(self._engine, name)
        self.log.guard = nodes.guard
        self.sponsoring.owner, self.sponsoring.shared = nodes.id, True
        with nodes.turn("join"):  # or two that begin together would each take the other for one at work
            if not nodes.beat():
                self._draw_space()
        return nodes

    def _draw_space(self) -> None:
        """Gives the space of sequences another identity, before the only process on this database begins.

        It cannot know whether the database is as the last one left it. Somebody may have put an older one in
        its place, which gives sequences out again that devices have seen.
        """
        same = counters.c.name == "space"
        with translated(), self._engine.execution_options(writes=True).begin() as connection:
            connection.execute(update(counters).where(same).values(value=secrets.randbelow(2**63 - 1) + 1))

    def writer(self, listener: Listener) -> ServerWriter:
        """Starts the thread that commits."""
        return ServerWriter(self._engine, listener)

    def check(self) -> None:
        """Raises StoreUnavailable unless the database answers."""
        with translated(), self._engine.connect() as connection:
            connection.execute(select(1))

    def close(self) -> None:
        """Gives the connections back."""
        if self._nodes is not None:
            self._nodes.leave()
        if self._claim is not None:
            with contextlib.suppress(SQLAlchemyError, OSError):
                self._claim.close()
        self._engine.dispose()

    # --- the mailbox ---

    def usage(self) -> tuple[dict[tuple[int, int, int], tuple[int, int]], int]:
        """What waits for each device from each sender, in rows and bytes, and the highest sequence of it."""
        with translated(), self._engine.connect() as connection:
            return letters.usage(connection)

    def space(self) -> int:
        """The identity of the space in which the sequences count."""
        with translated(), self._engine.connect() as connection:
            return int(
                connection.execute(select(counters.c.value).where(counters.c.name == "space")).scalar_one()
            )

    def waiting(self, uid: int, device: int, after: int, rows: int, size: int) -> tuple[list[Run], bool]:
        """The runs after a sequence, within both limits but at least one; whether there may be more."""
        with translated(), self._engine.connect() as connection:
            return letters.waiting(connection, uid, device, after, rows, size)

    def count_waiting(self, uid: int, device: int, after: int, rows: int) -> tuple[int, bool]:
        """How many messages wait after a sequence in so many runs at most; whether there may be more."""
        with translated(), self._engine.connect() as connection:
            return letters.count_waiting(connection, uid, device, after, rows)

    def accepted(self, sender: int, device: int, id: bytes) -> bytes | None:
        """The digest under which a message was stored, if it was."""
        with translated(), self._engine.connect() as connection:
            return letters.digests(connection, sender, device, [id]).get((sender, device, id))

    # --- key bundles ---

    def bundles(self, uids: Sequence[int]) -> list[KeyBundle]:
        """The bundles of these users' devices."""
        query = (
            select(key_bundles)
            .where(key_bundles.c.uid.in_(uids))
            .order_by(key_bundles.c.uid, key_bundles.c.device)
        )
        with translated(), self._engine.connect() as connection:
            return [
                KeyBundle(
                    row.uid,
                    row.device,
                    row.version,
                    bytes(row.kem_public),
                    row.issued,
                    row.expires,
                    bytes(row.signature),
                )
                for row in connection.execute(query)
            ]

    # --- the fold of the chain ---

    def user(self, uid: int) -> User | None:
        """A user as last rewritten."""
        return next(iter(self.users([uid])), None)

    def users(self, uids: Sequence[int]) -> list[User]:
        """Those of these users that there are, as last rewritten; of each device's history only the current
        version is kept here.
        """
        found: dict[int, list[Device]] = {}
        rows: list[Row[Any]] = []
        with translated(), self._engine.connect() as connection:
            for start in range(0, len(uids), 500):
                some = uids[start : start + 500]
                rows += connection.execute(select(users).where(users.c.uid.in_(some)))
                query = (
                    select(devices).where(devices.c.uid.in_(some)).order_by(devices.c.uid, devices.c.device)
                )
                for row in connection.execute(query):
                    found.setdefault(row.uid, []).append(_device(row))
        return [_user(row, found.get(row.uid, ())) for row in rows]

    def membership(self) -> tuple[Policy, frozenset[int]] | None:
        """The network's policy and members as last rewritten; None before the first time."""
        with translated(), self._engine.connect() as connection:
            policy = connection.execute(select(network.c.value).where(network.c.name == "policy")).scalar()
            if policy is None:
                return None
            return Policy(policy), frozenset(connection.execute(select(members.c.uid)).scalars())

    def rewrite(self, found: Iterable[User], gone: Iterable[int], *, settled_to: int) -> None:
        """Brings `users` and `devices` to what the fold says now, in one transaction.

        Those whose newest event is at or below `settled_to` need no further look; the others are looked at
        again.
        """
        found, gone = list(found), list(gone)
        uids = [*(user.uid for user in found), *gone]
        if not uids:
            return
        with translated(), self._folding(uids) as connection:
            hashes = {row.number: bytes(row.hash) for row in connection.execute(select(chain_blocks))}
            for start in range(0, len(uids), 500):
                some = uids[start : start + 500]
                connection.execute(delete(users).where(users.c.uid.in_(some)))
                connection.execute(delete(devices).where(devices.c.uid.in_(some)))
                connection.execute(
                    delete(touched).where(touched.c.uid.in_(some), touched.c.block <= settled_to)
                )
            if found:
                connection.execute(insert(users), [_user_values(user, hashes) for user in found])
                rows = [_device_values(device) for user in found for device in user.devices]
                if rows:
                    connection.execute(insert(devices), rows)
            for start in range(0, len(uids), 500):
                prekeys.drop_outdated(connection, uids[start : start + 500])

    def fellows(self, uid: int, others: Sequence[int]) -> set[int]:
        """Those of these users who share a group with a user, the network left out."""
        mine = select(seats.c.in_group).where(seats.c.uid == uid)
        query = select(seats.c.uid).where(seats.c.in_group.in_(mine), seats.c.uid.in_(others))
        with translated(), self._engine.connect() as connection:
            return set(connection.execute(query).scalars())

    def rewrite_membership(
        self,
        policy: Policy,
        sequences: dict[int, int],
        seated: Iterable[tuple[int, int]],
        *,
        settled_to: int,
    ) -> None:
        """Brings the network's policy and members (uid and sequence), and who sits in other groups (group and
        uid), to what the fold says now.
        """
        with translated(), self._folding([0]) as connection:
            _reseat(connection, set(seated))
            connection.execute(delete(members))
            connection.execute(delete(network).where(network.c.name == "policy"))
            connection.execute(insert(network), [{"name": "policy", "value": int(policy)}])
            if sequences:
                rows = [{"uid": uid, "sequence": sequence} for uid, sequence in sequences.items()]
                connection.execute(insert(members), rows)
            connection.execute(delete(touched).where(touched.c.uid == 0, touched.c.block <= settled_to))

    def rewrite_seats(self, seated: Iterable[tuple[int, int]]) -> None:
        """Brings who sits in other groups than the network (group and uid) to what the fold says now."""
        with translated(), self._folding([]) as connection:
            _reseat(connection, set(seated))

    @contextlib.contextmanager
    def _folding(self, uids: Sequence[int]) -> Iterator[Connection]:
        """A transaction that rewrites these users, and of which other processes hear."""
        with self._engine.execution_options(writes=True).begin() as connection:
            if self._nodes is not None:
                self._nodes.guard(connection)
            yield connection
            if self._nodes is not None and uids:
                self._nodes.tell(connection, uids)

    def deployment(self, chain_id: int, directory: bytes) -> None:
        """Remembers which deployment this database belongs to; raises BadConfig if it is another's."""
        marks = dict(zip(DEPLOYMENT, (chain_id, int.from_bytes(directory[:7], "big")), strict=True))
        with translated(), self._engine.execution_options(writes=True).begin() as connection:
            known = {row.name: row.value for row in connection.execute(select(network))}
            for name, value in marks.items():
                if name not in known:
                    connection.execute(insert(network), [{"name": name, "value": value}])
                elif known[name] != value:
                    raise BadConfig(
                        "The database belongs to another deployment (another chain or Directory).",
                        "Give this relay a database of its own with --db.",
                    )


def _reseat(connection: Connection, seated: set[tuple[int, int]]) -> None:
    """Writes what differs: there may be many groups, and one event concerns one of them."""
    before = {(row.in_group, row.uid) for row in connection.execute(select(seats))}
    for group, uid in before - seated:
        connection.execute(delete(seats).where(seats.c.uid == uid, seats.c.in_group == group))
    if seated - before:
        rows = [{"uid": uid, "in_group": group} for group, uid in seated - before]
        connection.execute(insert(seats), rows)


class _Fetch(msgspec.Struct):
    """Prekeys that somebody waits for."""

    wanted: Sequence[tuple[int, int]]
    now: int
    future: Future[list[PrekeyDraw]]


def _together(fetches: Sequence[_Fetch]) -> int:
    """How many of these are served in one transaction: at least one, beyond it so many devices at most."""
    sizes = accumulate(len(fetch.wanted) for fetch in fetches)
    return max(1, sum(size <= FETCHED for size in sizes))


class ServerWriter(Writer):
    """The committing thread with the rarer things that it is asked to do."""

    def __init__(self, engine: Engine, listener: Listener) -> None:
        super().__init__(engine, listener)
        self.next_part = secrets.randbelow(PRUNE_PARTS)  # however often the relay is restarted
        """Which part of the accepted ids is pruned next."""
        self._fetches: list[_Fetch] = []
        self._gathering = threading.Lock()

    def publish(self, bundle: KeyBundle) -> Future[None]:
        """Keeps a device's bundle in place of an older one."""

        def work(connection: Connection) -> None:
            same = and_(key_bundles.c.uid == bundle.uid, key_bundles.c.device == bundle.device)
            connection.execute(delete(key_bundles).where(same))
            connection.execute(insert(key_bundles), [msgspec.structs.asdict(bundle)])

        return self.run(work)

    def publish_prekeys(
        self, uid: int, device: int, batch: PrekeyBatch, *, kept: int, now: int
    ) -> Future[tuple[int, int] | None]:
        """Takes a device's prekeys in and gives how many one-time keys of each sort are left, at most `kept`;
        None when the device is not active with that version.
        """
        return self.run(lambda connection: prekeys.publish(connection, uid, device, batch, kept, now))

    def take_prekeys(self, devices: Sequence[tuple[int, int]], now: int) -> Future[list[PrekeyDraw]]:
        """Takes one one-time key of each sort off the stocks of those of these devices, each as (uid,
        device), that have prekeys.

        Who asks while the thread is busy is served in one transaction with others who do.
        """
        fetch = _Fetch(devices, now, Future())
        with self._gathering:
            self._fetches.append(fetch)
            first = len(self._fetches) == 1
        if first:
            self._serve_fetches()
        return fetch.future

    def _serve_fetches(self) -> None:
        served: list[_Fetch] = []

        def gathered() -> list[_Fetch]:
            with self._gathering:
                some = _together(self._fetches)
                found, self._fetches = self._fetches[:some], self._fetches[some:]
                more = bool(self._fetches)
            if more:
                self._serve_fetches()
            return [fetch for fetch in found if fetch.future.set_running_or_notify_cancel()]

        def work(connection: Connection) -> list[list[PrekeyDraw]]:
            if not served:  # else it is the same once more
                served.extend(gathered())
            now = max((fetch.now for fetch in served), default=0)
            return prekeys.take(connection, [fetch.wanted for fetch in served], now)

        def after(draws: list[list[PrekeyDraw]]) -> None:
            for fetch, drawn in zip(served, draws, strict=True):
                fetch.future.set_result(drawn)

        def failed(done: Future[None]) -> None:
            error = done.exception()
            if error is not None:
                for fetch in served or gathered():
                    fetch.future.set_exception(error)

        self._then(work, after).add_done_callback(failed)

    def forget_device(self, uid: int, device: int) -> Future[None]:
        """Deletes what waits for a device, its key bundle and its prekeys."""

        def work(connection: Connection) -> None:
            prekeys.forget(connection, uid, device)
            for table in (mail, key_bundles):
                connection.execute(delete(table).where(table.c.uid == uid, table.c.device == device))

        return self.run(work)

    def expire(self, before_ms: int, now_ms: int, tell: Tell) -> Future[bool]:
        """Gives up what came before a time and still waits, some at a time, and in the same transaction
        stores what `tell` makes of it for the senders; whether there may be more.
        """

        def work(connection: Connection) -> tuple[list[Run], list[Run], bool]:
            places, more = letters.expired(connection, before_ms - _ahead(connection, now_ms))
            gone = letters.locked(connection, places) if places else []
            uids = {uid for run in gone for uid in (run.uid, run.sender)}
            concerned = select(devices).where(devices.c.uid.in_(uids))
            people = [_device(row) for row in connection.execute(concerned)] if gone else []
            runs = letters.into_runs(tell(gone, people, now_ms))
            dropping = list(letters.dropping([(run.uid, run.device, run.last) for run in gone]))
            if runs:
                runs = self._insert(connection, runs, now_ms, dropping)
            else:
                run_statements(connection, dropping)
            return gone, runs, more

        def after(found: tuple[list[Run], list[Run], bool]) -> bool:
            gone, runs, more = found
            if gone:
                self._listener.expired(gone, runs)
            return more

        return self._then(work, after)

    def keep_time(self, second_ms: int, own_ms: int) -> Future[int]:
        """Moves the time that is kept up to the earlier of a process's clock and the best second opinion,
        that time among them; gives it.
        """
        same = counters.c.name == "clock"

        def work(connection: Connection) -> int:
            kept = connection.execute(select(counters.c.value).where(same)).scalar()
            now_ms = min(own_ms, max(second_ms, kept or 0))
            if kept is None:
                connection.execute(insert(counters).values(name="clock", value=now_ms))
            elif now_ms > kept:
                further = update(counters).where(same, counters.c.value < now_ms)
                connection.execute(further.values(value=now_ms))
            return max(now_ms, kept or 0)

        return self.run(work)

    def prune(self, now_ms: int) -> Future[bool]:
        """Forgets old ids of accepted messages in one of PRUNE_PARTS of them; whether there may be more in
        it.
        """

        def work(connection: Connection) -> bool:
            ids = accepted_ids.c.id
            low, high = part_bounds(self.next_part)
            today = (now_ms - _ahead(connection, now_ms)) // letters.DAY_MS
            old = accepted_ids.c.day < today - ACCEPTED_DAYS
            oldest = select(accepted_ids).where(ids >= low, ids < high, old).limit(PRUNE_ROWS)
            keys = [(row.id, row.sender, row.sender_device) for row in connection.execute(oldest)]
            for start in range(0, len(keys), 200):
                same = [
                    and_(
                        ids == which,
                        accepted_ids.c.sender == sender,
                        accepted_ids.c.sender_device == device,
                    )
                    for which, sender, device in keys[start : start + 200]
                ]
                connection.execute(delete(accepted_ids).where(or_(*same)))
            more = len(keys) == PRUNE_ROWS
            self.next_part = (self.next_part + (not more)) % PRUNE_PARTS
            return more

        return self.run(work)


def _ahead(connection: Connection, now_ms: int) -> int:
    """By how much a process's clock is ahead of the database server's, which every process asks: what one
    node takes for old must not be gone for all because that node's clock is wrong.
    """
    if connection.dialect.name == "sqlite":
        return 0  # it has no other clock
    there = connection.execute(text("SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)")).scalar_one()
    return max(0, now_ms - int(there))


def part_bounds(part: int) -> tuple[bytes, bytes]:
    """Where the ids of a part begin, and before what they end; ids are random, so parts are alike."""
    width = 65536 // PRUNE_PARTS
    low = (part * width).to_bytes(2, "big") if part else b""
    return low, ((part + 1) * width).to_bytes(2, "big") if part < PRUNE_PARTS - 1 else b"\xff" * 17


def _device(row: Row[tuple[object, ...]]) -> Device:
    version = DeviceVersion(row.version, Address(bytes(row.signer)), bytes(row.record), row.block, row.time)
    return Device(
        uid=Uid(row.uid),
        device=DeviceId(row.device),
        state=DeviceState(row.state),
        head=bytes(row.head),
        history=(version,),
    )


def _user(row: Row[tuple[object, ...]], found: Sequence[Device]) -> User:
    return User(
        uid=Uid(row.uid),
        username=row.username,
        account=Address(bytes(row.account)),
        recovery=Address(bytes(row.recovery)),
        epoch=row.epoch,
        verifier=bytes(row.password),
        kdf=bytes(row.kdf),
        devices=tuple(found),
        device_list_version=row.device_list_version,
        block=row.block,
        time=row.update_time,
    )


def _user_values(user: User, hashes: dict[int, bytes]) -> dict[str, object]:
    active = user.active_devices
    return {
        "uid": user.uid,
        "username": user.username,
        "password": user.verifier,
        "kdf": user.kdf,
        "pub_key": active[-1].current.record if active else b"",
        "account": user.account,
        "recovery": user.recovery,
        "epoch": user.epoch,
        "device_list_version": user.device_list_version,
        "update_time": user.time,
        "block": user.block,
        "block_hash": hashes.get(user.block, b""),
    }


def _device_values(device: Device) -> dict[str, object]:
    current = device.current
    return {
        "uid": device.uid,
        "device": device.device,
        "state": int(device.state),
        "version": current.version,
        "signer": current.signer,
        "head": device.head,
        "record": current.record,
        "block": current.block,
        "time": current.time,
    }
