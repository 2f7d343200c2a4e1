"""The relay's tables, for SQLite and for MySQL or MariaDB.

`users`, `devices`, `members` and `seats` are a fold of the chain's events and can be rebuilt from
`chain_logs`, which can be fetched again. `mail` and `accepted_ids` cannot: they are what a tick promises.
`blobs` says which files are whole; their bytes are elsewhere (store/blobs.py). Byte columns that a key
contains have fixed bounds, because MySQL indexes no unbounded ones.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, String, Table
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

metadata: Final = MetaData()

MYSQL_OPTIONS: Final[dict[str, Any]] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}


def fixed_bytes(length: int) -> TypeEngine[bytes]:
    """At most so many bytes, usable in a key."""
    return LargeBinary(length).with_variant(mysql.VARBINARY(length), "mysql", "mariadb")


def long_bytes() -> TypeEngine[bytes]:
    """Bytes of any length."""
    return LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


def number() -> TypeEngine[int]:
    """A 64-bit integer (in SQLite, where every integer is one, also as the row's own id)."""
    return BigInteger().with_variant(Integer(), "sqlite")


def _table(name: str, *parts: Column[Any] | Index) -> Table:
    return Table(name, metadata, *parts, **MYSQL_OPTIONS)


def _key(name: str, type_: TypeEngine[Any]) -> Column[Any]:
    return Column(name, type_, primary_key=True, autoincrement=False)


def _column(name: str, type_: TypeEngine[Any]) -> Column[Any]:
    return Column(name, type_, nullable=False)


users: Final = _table(
    "users",
    _key("uid", number()),
    _column("username", String(64)),
    _column("password", fixed_bytes(32)),  # the verifier: a hash of a public key, nothing to log in with
    _column("kdf", fixed_bytes(64)),
    _column("pub_key", fixed_bytes(1024)),  # the record of the newest active device
    _column("account", fixed_bytes(20)),
    _column("recovery", fixed_bytes(20)),
    _column("epoch", number()),
    _column("device_list_version", number()),
    _column("update_time", number()),  # of the block below, in seconds
    _column("block", number()),
    _column("block_hash", fixed_bytes(32)),  # empty when that block is older than those kept
    Index("users_by_name", "username"),
    Index("users_by_account", "account"),
)

devices: Final = _table(
    "devices",
    _key("uid", number()),
    _key("device", number()),
    _column("state", number()),
    _column("version", number()),
    _column("signer", fixed_bytes(20)),
    _column("head", fixed_bytes(32)),
    _column("record", fixed_bytes(1024)),
    _column("block", number()),
    _column("time", number()),
)

members: Final = _table(
    "members",
    _key("uid", number()),
    _column("sequence", number()),
)

seats: Final = _table(
    "seats", _key("uid", number()), _key("in_group", number()), Index("seats_by_group", "in_group", "uid")
)
"""Who sits in which group; those in the network itself are `members`."""

network: Final = _table(
    "network",
    _key("name", String(32)),
    _column("value", number()),
)

touched: Final = _table("touched", _key("uid", number()), _column("block", number()))
"""Users whose events came or went and for whom `users` is not settled yet; 0 stands for the network's
membership.
"""

mail: Final = _table(
    "mail",
    _key("uid", number()),
    _key("device", number()),
    _key("last", number()),  # sequence of the last of the messages
    _column("sender", number()),
    _column("messages", number()),
    _column("size", number()),
    _column("received_ms", number()),
    _column("content", long_bytes()),
    Index("mail_by_sequence", "last"),  # for whom other processes have written
)
"""What waits for the devices, in runs (store.letters)."""

accepted_ids: Final = _table(
    "accepted_ids",
    _key("id", fixed_bytes(16)),
    _key("sender", number()),
    _key("sender_device", number()),
    _column("hash", fixed_bytes(16)),
    _column("day", number()),  # since 1970
)

counters: Final = _table("counters", _key("name", String(32)), _column("value", number()))

key_bundles: Final = _table(
    "key_bundles",
    _key("uid", number()),
    _key("device", number()),
    _column("version", number()),
    _column("kem_public", fixed_bytes(4096)),
    _column("issued", number()),
    _column("expires", number()),
    _column("signature", fixed_bytes(128)),
)

prekeys: Final = _table(
    "prekeys",
    _key("uid", number()),
    _key("device", number()),
    _column("version", number()),
    _column("signed", fixed_bytes(128)),
    _column("last_resort", fixed_bytes(2048)),
    _column("expires", number()),
    _column("newest_x25519", number()),  # the highest ids that were ever published for this version
    _column("newest_kem", number()),
)

one_time_prekeys: Final = _table(
    "one_time_prekeys",
    _key("uid", number()),
    _key("device", number()),
    _key("sort", number()),
    _key("id", number()),
    _column("expires", number()),
    _column("prekey", fixed_bytes(2048)),
)

sponsor_spending: Final = _table("sponsor_spending", _key("slice", number()), _column("gwei", number()))
"""What the sponsor spent in each slice of time; the row of slice 0 is what those who book wait for."""

sponsor_bookings: Final = _table(
    "sponsor_bookings",
    _key("id", fixed_bytes(16)),
    _column("owner", fixed_bytes(16)),
    _column("slice", number()),
    _column("gwei", number()),
    _column("more", long_bytes()),
    _column("sent", long_bytes()),
)
"""What the sponsor booked and has not settled, and which process sees to it: where, what else was booked for
the same transaction, and the transaction once it is signed.
"""

blobs: Final = _table(
    "blobs",
    _key("owner", number()),
    _key("blob", fixed_bytes(32)),
    _column("size", number()),
    _column("state", number()),
    _column("spent", number()),  # bytes that count for the day of `created_ms`
    _column("created_ms", number()),
    _column("expires_ms", number()),
    Index("blobs_by_id", "blob"),
    Index("blobs_by_expiry", "expires_ms"),
)

invitations: Final = _table(
    "invitations",
    _key("id", fixed_bytes(16)),
    _column("account", fixed_bytes(20)),  # whose registration used it
    _column("expires", number()),
    Index("invitations_by_expiry", "expires"),
)

chain_blocks: Final = _table(
    "chain_blocks",
    _key("number", number()),
    _column("hash", fixed_bytes(32)),
    _column("parent", fixed_bytes(32)),
)

chain_logs: Final = _table(
    "chain_logs",
    _key("block", number()),
    _key("position", number()),
    _column("block_hash", fixed_bytes(32)),
    _column("time", number()),
    _column("source", number()),
    _column("topics", fixed_bytes(128)),  # up to four words of 32 bytes, one after the other
    _column("data", long_bytes()),
    _column("subject", number()),
    _column("label", String(64)),
    _column("address", fixed_bytes(20)),
    Index("chain_logs_by_hash", "block_hash"),
    Index("chain_logs_by_source", "source", "subject"),
    Index("chain_logs_by_subject", "subject"),
    Index("chain_logs_by_label", "label"),
    Index("chain_logs_by_address", "address"),
)

nodes: Final = _table(
    "nodes",
    _key("id", fixed_bytes(16)),
    _column("name", String(128)),
    _column("beats", number()),
    _column("connections", String(1024)),
)
"""The relay processes at work on this database, and by which connections they can be cut off."""

leases: Final = _table("leases", _key("name", String(32)), _column("holder", fixed_bytes(16)))
"""What one process at a time does for all; the holder is empty while nobody does."""

presence: Final = _table(
    "presence",
    _key("uid", number()),
    _key("device", number()),
    _column("node", fixed_bytes(16)),
    _column("number", number()),
    Index("presence_by_number", "number"),
)
"""Through which process a device logged in last."""

folded: Final = _table(
    "folded", _key("uid", number()), _column("number", number()), Index("folded_by_number", "number")
)
"""When a user was last rewritten (0: the members), counted so that each process notices once."""
