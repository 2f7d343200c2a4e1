"""The relay's stocks of prekeys: what is done with them inside of one transaction.

Whoever changes a device's stocks locks its row in `prekeys` first, so no one-time key is handed out twice,
whichever process does it. Which version of a device is in force is read from `devices`, the fold of the chain
in the same database: an outdated stock is neither added to nor given from, and goes with the rewriting of its
user.

Statements that serve many at once are written out with their values, which are integers and nothing else.
"""

# ruff: noqa: S608

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, exists, func, insert, select, update

from chatchain.model import DeviceState, PrekeyBatch, PrekeyDraw, PrekeySort
from chatchain.store.tables import devices, one_time_prekeys, prekeys

TERMS: Final = 200
"""Parts of one statement; SQLite takes 500 of a UNION."""

_Key = tuple[int, int]
"""A user and the number of a device."""
_Stock = tuple[int, int, PrekeySort]
T = TypeVar("T")


def publish(
    connection: Connection, uid: int, device: int, batch: PrekeyBatch, kept: int, now: int
) -> tuple[int, int] | None:
    """Replaces the signed keys, adds the one-time keys, and counts what is left of each sort.

    None, and nothing is done, unless the device is active with the batch's version. An id that was published
    for this version before is passed over: its key may have been handed out.
    """
    active = _active(connection, uid, [device], lock=True)
    if active.get(device) != batch.version:
        return None
    if batch.signed:
        _replace(connection, uid, device, batch)
        stock = _stock(uid, device)
        connection.execute(delete(one_time_prekeys).where(stock, one_time_prekeys.c.expires <= now))
        for sort in PrekeySort:
            _trim(connection, and_(stock, one_time_prekeys.c.sort == sort), kept)
    return _left(connection, uid, device, batch.version, now)


def take(connection: Connection, fetches: Sequence[Sequence[_Key]], now: int) -> list[list[PrekeyDraw]]:
    """Takes, for each fetch, one one-time key of each sort away from each of its devices, in the order of
    users and numbers; all fetches together cost a few statements.

    Devices that are not active, or have no valid prekeys for their version, are absent. An empty stock of KEM
    keys is stood in for by the last-resort key.
    """
    wanted = Counter(key for fetch in fetches for key in fetch)
    live = _live(connection, sorted(wanted), now)
    stocks = _oldest(connection, {key: wanted[key] for key in live}, now)
    spent: dict[_Stock, list[int]] = {}

    def pop(uid: int, device: int, sort: PrekeySort) -> bytes:
        left = stocks.get((uid, device, sort))
        if not left:
            return b""
        id_, prekey = left.popleft()
        spent.setdefault((uid, device, sort), []).append(id_)
        return prekey

    def draw(uid: int, device: int) -> PrekeyDraw:
        row = live[uid, device]
        one_time, kem = (pop(uid, device, sort) for sort in PrekeySort)
        return PrekeyDraw(
            uid, device, row.version, bytes(row.signed), kem or bytes(row.last_resort), one_time
        )

    draws = [[draw(*key) for key in sorted(set(fetch)) if key in live] for fetch in fetches]
    for some in batched(spent.items(), TERMS):
        which = [
            f"(uid={uid} AND device={device} AND sort={int(sort)} AND id IN ({','.join(map(str, ids))}))"
            for (uid, device, sort), ids in some
        ]
        connection.exec_driver_sql(f"DELETE FROM one_time_prekeys WHERE {' OR '.join(which)}")
    return draws


def _live(connection: Connection, wanted: Sequence[_Key], now: int) -> dict[_Key, Row[Any]]:
    """Those of these devices that have valid prekeys for the version in force, whose stocks are locked."""
    lock = "" if connection.dialect.name == "sqlite" else " FOR UPDATE"
    found: dict[_Key, Row[Any]] = {}
    for some in batched(wanted, TERMS):
        named = " OR ".join(f"(uid={uid} AND device={device})" for uid, device in some)
        rows = connection.exec_driver_sql(
            "SELECT uid, device, version, signed, last_resort FROM prekeys "
            f"WHERE ({named}) AND expires > {int(now)} ORDER BY uid, device{lock}"
        ).all()
        active = connection.exec_driver_sql(
            f"SELECT uid, device, version FROM devices WHERE ({named}) AND state = {int(DeviceState.ACTIVE)}"
        ).all()
        versions = {(row.uid, row.device): row.version for row in active}
        found |= {
            (row.uid, row.device): row for row in rows if versions.get((row.uid, row.device)) == row.version
        }
    return found


def _oldest(
    connection: Connection, counts: Mapping[_Key, int], now: int
) -> dict[_Stock, deque[tuple[int, bytes]]]:
    """So many of the oldest valid keys of each sort of each device, as (id, key)."""
    stocks = [
        "SELECT * FROM (SELECT uid, device, sort, id, prekey FROM one_time_prekeys "
        f"WHERE uid={uid} AND device={device} AND sort={int(sort)} AND expires > {int(now)} "
        f"ORDER BY id LIMIT {count}) AS stock"
        for (uid, device), count in counts.items()
        for sort in PrekeySort
    ]
    found: dict[_Stock, deque[tuple[int, bytes]]] = {}
    for some in batched(stocks, TERMS):
        for row in connection.exec_driver_sql(" UNION ALL ".join(some)):
            stock = row.uid, row.device, PrekeySort(row.sort)
            found.setdefault(stock, deque()).append((row.id, bytes(row.prekey)))
    return {stock: deque(sorted(keys)) for stock, keys in found.items()}


def drop_outdated(connection: Connection, uids: Sequence[int]) -> None:
    """Deletes the prekeys of these users' devices that are active no more, or with another version."""
    current = and_(
        devices.c.uid == prekeys.c.uid,
        devices.c.device == prekeys.c.device,
        devices.c.version == prekeys.c.version,
        devices.c.state == DeviceState.ACTIVE,
    )
    outdated = select(prekeys.c.uid, prekeys.c.device).where(
        prekeys.c.uid.in_(uids), ~exists(select(devices.c.uid).where(current))
    )
    for row in connection.execute(outdated).all():
        forget(connection, row.uid, row.device)


def forget(connection: Connection, uid: int, device: int) -> None:
    """Deletes all prekeys of a device."""
    for table in (prekeys, one_time_prekeys):
        connection.execute(delete(table).where(table.c.uid == uid, table.c.device == device))


def _active(connection: Connection, uid: int, some: Sequence[int], *, lock: bool = False) -> dict[int, int]:
    """The versions in force of those devices that are active."""
    query = select(devices.c.device, devices.c.version).where(
        devices.c.uid == uid, devices.c.device.in_(some), devices.c.state == DeviceState.ACTIVE
    )
    if lock:  # so that a new version that is just being written waits, and then deletes what comes now
        query = query.with_for_update(read=True)
    return {row.device: row.version for row in connection.execute(query)}


def _replace(connection: Connection, uid: int, device: int, batch: PrekeyBatch) -> None:
    same = and_(prekeys.c.uid == uid, prekeys.c.device == device)
    before = connection.execute(select(prekeys).where(same).with_for_update()).first()
    if before is not None and before.version != batch.version:
        connection.execute(delete(one_time_prekeys).where(_stock(uid, device)))
        connection.execute(delete(prekeys).where(same))
        before = None
    newest = {
        PrekeySort.X25519: before.newest_x25519 if before is not None else 0,
        PrekeySort.KEM: before.newest_kem if before is not None else 0,
    }
    fresh = {(key.sort, key.id): key for key in batch.one_time if key.id > newest[key.sort]}
    if fresh:
        rows = [
            {
                "uid": uid,
                "device": device,
                "sort": int(key.sort),
                "id": key.id,
                "expires": key.expires,
                "prekey": key.key,
            }
            for key in fresh.values()
        ]
        connection.execute(insert(one_time_prekeys), rows)
    for sort, id_ in fresh:
        newest[sort] = max(newest[sort], id_)
    values = {
        "version": batch.version,
        "signed": batch.signed,
        "last_resort": batch.last_resort,
        "expires": batch.expires,
        "newest_x25519": newest[PrekeySort.X25519],
        "newest_kem": newest[PrekeySort.KEM],
    }
    if before is None:
        connection.execute(insert(prekeys), [{"uid": uid, "device": device, **values}])
    else:
        connection.execute(update(prekeys).where(same).values(values))


def _trim(connection: Connection, stock: ColumnElement[bool], kept: int) -> None:
    """Deletes the oldest keys of a stock that holds more than may be kept."""
    newest = (
        select(one_time_prekeys.c.id)
        .where(stock)
        .order_by(one_time_prekeys.c.id.desc())
        .offset(kept)
        .limit(1)
    )
    last = connection.execute(newest).scalar()
    if last is not None:
        connection.execute(delete(one_time_prekeys).where(stock, one_time_prekeys.c.id <= last))


def _left(connection: Connection, uid: int, device: int, version: int, now: int) -> tuple[int, int]:
    """How many one-time keys there are for this version: X25519, KEM."""
    current = exists(
        select(prekeys.c.uid).where(
            prekeys.c.uid == uid, prekeys.c.device == device, prekeys.c.version == version
        )
    )
    query = (
        select(one_time_prekeys.c.sort, func.count())
        .where(_stock(uid, device), one_time_prekeys.c.expires > now, current)
        .group_by(one_time_prekeys.c.sort)
    )
    left = {row[0]: int(row[1]) for row in connection.execute(query)}
    return left.get(PrekeySort.X25519, 0), left.get(PrekeySort.KEM, 0)


def _stock(uid: int, device: int) -> ColumnElement[bool]:
    return and_(one_time_prekeys.c.uid == uid, one_time_prekeys.c.device == device)


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of so many; as `itertools` has it from Python 3.12 on."""
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
