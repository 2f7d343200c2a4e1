"""The relay's stocks of prekeys: what is done with them inside of one transaction.

Whoever changes a device's stocks locks its row in `prekeys` first, so no one-time key is handed out twice,
whichever process does it. Which version of a device is in force is read from `devices`, the fold of the chain
in the same database: an outdated stock is neither added to nor given from, and goes with the rewriting of its
user.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, exists, func, insert, select, update

from chatchain.model import DeviceState, PrekeyBatch, PrekeyDraw, PrekeySort
from chatchain.store.tables import devices, one_time_prekeys, prekeys


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


def take(connection: Connection, uid: int, wanted: Sequence[int], now: int) -> list[PrekeyDraw]:
    """Takes one one-time key of each sort away from each of these devices, in the order of their numbers.

    Devices that are not active, or have no valid prekeys for their version, are absent. An empty stock of KEM
    keys is stood in for by the last-resort key.
    """
    query = (
        select(prekeys)
        .where(prekeys.c.uid == uid, prekeys.c.device.in_(wanted), prekeys.c.expires > now)
        .order_by(prekeys.c.device)
        .with_for_update()
    )
    rows = connection.execute(query).all()
    active = _active(connection, uid, wanted)
    return [_draw(connection, row, now) for row in rows if active.get(row.device) == row.version]


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


def _draw(connection: Connection, row: Row[tuple[object, ...]], now: int) -> PrekeyDraw:
    one_time, kem = (_pop(connection, row.uid, row.device, sort, now) for sort in PrekeySort)
    return PrekeyDraw(row.device, row.version, bytes(row.signed), kem or bytes(row.last_resort), one_time)


def _pop(connection: Connection, uid: int, device: int, sort: PrekeySort, now: int) -> bytes:
    """Takes the oldest valid key off a stock; empty bytes when there is none."""
    stock = and_(_stock(uid, device), one_time_prekeys.c.sort == sort)
    query = (
        select(one_time_prekeys.c.id, one_time_prekeys.c.prekey)
        .where(stock, one_time_prekeys.c.expires > now)
        .order_by(one_time_prekeys.c.id)
        .limit(1)
    )
    found = connection.execute(query).first()
    if found is None:
        return b""
    connection.execute(delete(one_time_prekeys).where(stock, one_time_prekeys.c.id == found.id))
    return bytes(found.prekey)


def _stock(uid: int, device: int) -> ColumnElement[bool]:
    return and_(one_time_prekeys.c.uid == uid, one_time_prekeys.c.device == device)
