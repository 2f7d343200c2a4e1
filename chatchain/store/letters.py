"""What waits for the devices, and which messages were accepted: the statements of every commit and read.

A row of `mail` is a run: what one sender has for one device out of one commit, up to RUN_PARCELS and
RUN_BYTES. Few rows a commit is what makes a commit cheap; the rows of a device lie side by side under the
sequence of their last parcel. A row goes once all of it is acknowledged.

The statements of a commit are written out with their values, because that is several times faster than to
have the driver put them in one by one; nothing but integers and hexadecimal digits gets into them. What is in
the messages lies beside them (store.scripts).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from sqlalchemy import Connection, Row, and_, func, or_, select

from chatchain.model import Letter, Run
from chatchain.store.scripts import Packing, WithBytes
from chatchain.store.tables import accepted_ids, mail

RUN_PARCELS: Final = 64
RUN_BYTES: Final = 32 * 1024
"""A run is read and given out as a whole, so it is a small part of what may be on its way to a device."""

EXPIRED_RUNS: Final = 200
"""Runs that one transaction looks at for their age: 6.25 MiB at most, and no commit waits for it for long."""

DAY_MS: Final = 24 * 3600 * 1000

Key = tuple[int, int, bytes]
"""What makes an envelope one and the same: sender, sender's device, message id."""

Place = tuple[int, int, int]
"""Where a run lies: its recipient, the device, the last sequence."""

_LENGTH: Final = struct.Struct(">I")


# --- writing ----------------------------------------------------------------------------------------------


def into_runs(letters: Iterable[Letter]) -> list[Run]:
    """Sorts the parcels of letters into runs, each sender's in order; sequences count from 1."""
    open_runs: dict[tuple[int, int, int], tuple[list[bytes], int]] = {}
    found: list[tuple[tuple[int, int, int], list[bytes]]] = []
    for letter in letters:
        for uid, device, parcel in letter.parcels:
            key = uid, device, letter.sender
            parcels, size = open_runs.get(key, (None, 0))
            if parcels is None or len(parcels) >= RUN_PARCELS or size + len(parcel) > RUN_BYTES:
                parcels, size = [], 0
                found.append((key, parcels))
            parcels.append(parcel)
            open_runs[key] = parcels, size + len(parcel)
    runs: list[Run] = []
    first = 1
    for (uid, device, sender), parcels in found:
        runs.append(Run(uid, device, sender, first, parcels))
        first += len(parcels)
    return runs


def shifted(runs: Iterable[Run], by: int) -> list[Run]:
    """The same runs with sequences that count from so many more."""
    return [Run(run.uid, run.device, run.sender, run.first + by, run.parcels) for run in runs]


def accepting(letters: Iterable[Letter]) -> Iterator[str]:
    """Statements that remember message ids; an id that was accepted before is an IntegrityError.

    All processes insert in the order of the ids: who is given the same as another waits, and both need not.
    """
    rows = sorted(
        f"(x'{letter.id.hex()}',{letter.sender},{letter.device},"
        f"x'{letter.digest.hex()}',{letter.received_ms // DAY_MS})"
        for letter in letters
    )
    for start in range(0, len(rows), 5000):
        yield _ACCEPT + ",".join(rows[start : start + 5000])


def storing(connection: Connection, runs: Sequence[Run], base: str, received_ms: int) -> Iterator[WithBytes]:
    """Statements that store runs, the newest of whose messages came in at this time.

    The runs' sequences count from the one before, for which `base` is an expression of SQL.
    """
    values: list[str] = []
    total = sum([len(parcel) for run in runs for parcel in run.parcels])
    packing = Packing(connection, total)
    for run in runs:
        size = 0
        content: list[bytes] = []
        for parcel in run.parcels:
            length = len(parcel)
            content += (_LENGTH.pack(length), parcel)
            size += length
        values.append(
            f"({run.uid},{run.device},{base}+{run.last},{run.sender},"
            f"{len(run.parcels)},{size},{received_ms},{packing.put(content)})"
        )
        if packing.full:
            yield WithBytes(_STORE + ",".join(values), packing.packed())
            values, packing = [], Packing(connection, total)
    if values:
        yield WithBytes(_STORE + ",".join(values), packing.packed())


def deleting(done: Mapping[tuple[int, int], int]) -> Iterator[str]:
    """Statements that delete each device's runs that end at its sequence or before."""
    which = [
        f"(uid={uid} AND device={device} AND last<={through})" for (uid, device), through in done.items()
    ]
    for start in range(0, len(which), 200):
        yield _DELETE + " OR ".join(which[start : start + 200])


def dropping(rows: Sequence[Place]) -> Iterator[str]:
    """Statements that delete exactly these runs."""
    which = [f"(uid={uid} AND device={device} AND last={last})" for uid, device, last in rows]
    for start in range(0, len(which), 200):
        yield _DELETE + " OR ".join(which[start : start + 200])


_ACCEPT: Final = "INSERT INTO accepted_ids (id,sender,sender_device,hash,day) VALUES "
_STORE: Final = "INSERT INTO mail (uid,device,last,sender,messages,size,received_ms,content) VALUES "
_DELETE: Final = "DELETE FROM mail WHERE "


# --- reading ----------------------------------------------------------------------------------------------


def waiting(
    connection: Connection, uid: int, device: int, after: int, rows: int, size: int
) -> tuple[list[Run], bool]:
    """The runs after a sequence, within both limits but at least one; whether there may be more.

    Of a run that begins before that sequence, the rest.
    """
    here = and_(mail.c.uid == uid, mail.c.device == device, mail.c.last > after)
    sizes = select(mail.c.last, mail.c.messages, mail.c.size).where(here).order_by(mail.c.last).limit(rows)
    found = connection.execute(sizes).all()
    last, messages, bytes_, count = after, 0, 0, 0
    for row in found:  # sizes first, so that no more is loaded than may be sent
        if count and (messages + row.messages > rows or bytes_ + row.size > size):
            break
        last, messages, bytes_, count = row.last, messages + row.messages, bytes_ + row.size, count + 1
    if not count:
        return [], False
    query = select(mail).where(here, mail.c.last <= last).order_by(mail.c.last)
    runs = [_run(row, after) for row in connection.execute(query)]
    return runs, count < len(found) or len(found) == rows


def count_waiting(connection: Connection, uid: int, device: int, after: int, rows: int) -> tuple[int, bool]:
    """How many messages the first runs after a sequence hold; whether there may be more runs than so many."""
    here = and_(mail.c.uid == uid, mail.c.device == device, mail.c.last > after)
    query = select(mail.c.messages).where(here).order_by(mail.c.last).limit(rows)
    found = connection.execute(query).scalars().all()
    return sum(found), len(found) == rows


def expired(connection: Connection, before_ms: int) -> tuple[list[Place], bool]:
    """Where the oldest runs lie that came before this time, some at a time; whether there may be more.

    What was committed together is given together, or at least what of it is from one sender for one user, as
    far as it fits: the copies of a message are looked at side by side.
    """
    columns = mail.c.uid, mail.c.device, mail.c.last, mail.c.sender, mail.c.received_ms
    found = connection.execute(select(*columns).order_by(mail.c.last).limit(EXPIRED_RUNS)).all()
    old = [row for row in found if row.received_ms < before_ms]
    full = len(found) == EXPIRED_RUNS
    if full and old:
        last = old[-1]
        whole = [row for row in old if row.received_ms != last.received_ms]
        old = whole or [row for row in old if (row.sender, row.uid) != (last.sender, last.uid)] or old
    return [(row.uid, row.device, row.last) for row in old], full and bool(old)


def locked(connection: Connection, rows: Sequence[Place]) -> list[Run]:
    """Those of these runs that are still there; nobody else deletes them before this transaction ends."""
    same = [
        and_(mail.c.uid == uid, mail.c.device == device, mail.c.last == last) for uid, device, last in rows
    ]
    query = select(mail).where(or_(*same)).order_by(mail.c.last).with_for_update()
    return [_run(row, 0) for row in connection.execute(query)]


def _run(row: Row[tuple[object, ...]], after: int) -> Run:
    parcels = list(_parcels(bytes(row.content)))
    first = row.last - row.messages + 1
    given = max(0, after + 1 - first)
    return Run(row.uid, row.device, row.sender, first + given, parcels[given:])


def _parcels(content: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(content):
        (length,) = _LENGTH.unpack_from(content, at)
        at += _LENGTH.size + length
        yield content[at - length : at]


def usage(connection: Connection) -> tuple[dict[tuple[int, int, int], tuple[int, int]], int]:
    """What waits for each device from each sender, in rows and bytes, and the highest sequence among it.

    One statement sees one state: every row up to that sequence which is not deleted is counted.
    """
    group = (mail.c.uid, mail.c.device, mail.c.sender)
    sums = (func.sum(mail.c.messages), func.sum(mail.c.size), func.max(mail.c.last))
    found = connection.execute(select(*group, *sums).group_by(*group)).all()
    counts = {(row[0], row[1], row[2]): (int(row[3]), int(row[4])) for row in found}
    return counts, max((int(row[5]) for row in found), default=0)


def accepted_of(connection: Connection, letters: Iterable[Letter]) -> dict[Key, bytes]:
    """The digests under which these ids were accepted before, as far as they were."""
    by_sender: dict[tuple[int, int], list[bytes]] = {}
    for letter in letters:
        by_sender.setdefault((letter.sender, letter.device), []).append(letter.id)
    known: dict[Key, bytes] = {}
    for (sender, device), ids in by_sender.items():
        for start in range(0, len(ids), 500):
            known |= digests(connection, sender, device, ids[start : start + 500])
    return known


def digests(connection: Connection, sender: int, device: int, ids: Sequence[bytes]) -> dict[Key, bytes]:
    """The digests under which a device's messages were accepted."""
    query = select(accepted_ids.c.id, accepted_ids.c.hash).where(
        accepted_ids.c.id.in_(ids),
        accepted_ids.c.sender == sender,
        accepted_ids.c.sender_device == device,
    )
    return {(sender, device, bytes(row.id)): bytes(row.hash) for row in connection.execute(query)}
