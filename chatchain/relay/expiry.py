"""What senders are told of messages that nobody fetched for so long that the relay gave them up. Pure.

A message has come to nothing once no device of its recipient has taken its copy. All copies are as old as
each other and expire together, so those devices that had none to expire have taken theirs, unless they
joined later. Copies for the sender's own devices, and these notices themselves, expire without a word.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from chatchain.model import MESSAGE_ID_BYTES, RELAYS_WORD, Device, DeviceState, Letter, Run
from chatchain.wire.bounds import MAX_NAMED
from chatchain.wire.parcels import notice, opened


def notices(expired: Iterable[Run], devices: Iterable[Device], now_ms: int) -> list[Letter]:
    """The notices about these runs, one for each sender and recipient and so many messages; `devices` are
    those of both.
    """
    active: dict[int, list[Device]] = {}
    for device in devices:
        if device.state is DeviceState.ACTIVE:
            active.setdefault(device.uid, []).append(device)
    copies: dict[tuple[int, int], dict[bytes, tuple[int, set[int]]]] = {}
    for run in expired:
        if run.uid == run.sender:
            continue
        messages = copies.setdefault((run.sender, run.uid), {})
        for parcel in run.parcels:
            delivery = opened(parcel)
            if delivery.suite != RELAYS_WORD:
                messages.setdefault(delivery.id, (delivery.received_ms, set()))[1].add(run.device)
    told: list[Letter] = []
    for (sender, uid), messages in copies.items():
        readers = [int(device.device) for device in active.get(sender, [])]
        lost = [
            id_
            for id_, (received_ms, had) in messages.items()
            if all(one.device in had or _joined_after(one, received_ms) for one in active.get(uid, []))
        ]
        told += [
            _letter(sender, readers, uid, lost[start : start + MAX_NAMED], now_ms)
            for start in range(0, len(lost), MAX_NAMED)
        ]
    return told


def _joined_after(device: Device, received_ms: int) -> bool:
    """Whether a device was added only after this time; of one whose keys were replaced nobody here knows."""
    return device.current.version == 1 and device.current.time * 1000 > received_ms


def _letter(sender: int, readers: Iterable[int], uid: int, lost: list[bytes], now_ms: int) -> Letter:
    id_ = os.urandom(MESSAGE_ID_BYTES)
    parcel = notice(id_, about=uid, device=1, to=sender, received_ms=now_ms, messages=lost)
    parcels = tuple((sender, reader, parcel) for reader in readers)
    return Letter(0, uid, 1, id_, b"", now_ms, parcels, len(parcel) * len(parcels))
