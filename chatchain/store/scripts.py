"""Statements that are written out, run in as few round trips as may be.

On MySQL a transaction is one script that ends with COMMIT, and an error in it leaves the rest undone. What
people have sent does not stand in its text: the server reads a literal byte by byte, which is more work than
all that it does with it. Such bytes travel in front of the script in the same write, in boxes: variables
that a prepared `SET` takes as they are. The script cuts its values out of them, and begins by asking whether
they are those that were sent with it. The driver has no prepared statements, so the packet is made here.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Protocol, cast

from pymysql.connections import MAX_PACKET_LEN
from pymysql.constants import COMMAND, FIELD_TYPE, SERVER_STATUS
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

SCRIPT_BYTES: Final = 1024 * 1024
"""A round trip ends with the statement that reaches this, and before one that brings boxes after another."""

FEW_BYTES: Final = 8 * 1024
"""What a statement takes in its text, in hexadecimal, because filling boxes would be more work."""

BOXES: Final = 32
BOX_BYTES: Final = 16 * 1024
"""How many boxes of bytes there are beside a statement, and at what size the next is begun."""


BOXED: Final = "boxed"
"""The option of a connection that says whether its server takes boxes; if it is not there, it does."""


class WithBytes(NamedTuple):
    """A statement, and the boxes of bytes that its values are cut out of."""

    text: str
    boxes: list[bytes]


Statement = str | WithBytes


class Packing:
    """Bytes on their way into boxes: the server copies a whole box to cut something out of it, and needs a
    variable for each.
    """

    def __init__(self, connection: Connection, total: int) -> None:
        """`total` is how much there is altogether; what is over when the boxes are full goes into others.
        Without boxes (`takes_boxes`) all of it is few.
        """
        self._few = total <= FEW_BYTES or not connection.get_execution_options().get(BOXED, True)
        self._variable = "?{}" if _is_sqlite(connection) else "@box{}"
        self._boxes: list[list[bytes]] = []
        self._size = BOX_BYTES  # of the last box; a new one is due

    @property
    def full(self) -> bool:
        """Whether what was put in fills all boxes."""
        return len(self._boxes) == BOXES and self._size >= BOX_BYTES

    def put(self, parts: Sequence[bytes]) -> str:
        """Takes in what together is one value; gives an expression of SQL for it."""
        if self._few:
            return f"x'{b''.join(parts).hex()}'"
        if self._size >= BOX_BYTES:
            self._boxes.append([])
            self._size = 0
        at, size = self._size, sum(map(len, parts))
        self._boxes[-1] += parts
        self._size += size
        return f"SUBSTR({self._variable.format(len(self._boxes))},{at + 1},{size})"

    def packed(self) -> list[bytes]:
        """The boxes."""
        return [b"".join(box) for box in self._boxes]


def takes_boxes(connection: Connection) -> bool:
    """Tries whether a server takes bytes beside a script as they are: it may be one that nobody has tried.

    Whoever is told no should not use the connection any more. Raises DBAPIError if the server is gone.
    """
    if _is_sqlite(connection):
        return True
    every = bytes(range(256))
    is_it = f"SET @tried = IF(SUBSTR(@box1, 2, 255) = x'{every[1:].hex()}', 1, (SELECT 1 UNION SELECT 2))"
    try:
        _run_script(connection, is_it, [every])
    except DBAPIError as error:
        if error.orig is not None and error.orig.args[:1] in _GONE:
            raise
        return False
    return True


_GONE: Final = ((1053,), (1927,), (2003,), (2006,), (2013,))
"""How a server says that it stops or has stopped, or ended this connection."""


def drawing(connection: Connection, count: int) -> tuple[list[Statement], str]:
    """How a transaction takes so many sequences: statements for `run_statements`, which then gives the last
    of them, and an expression for the one before the first. Without statements it is drawn already.
    """
    if _is_sqlite(connection):
        raised = text("UPDATE counters SET value = value + :n WHERE name = 'sequence' RETURNING value")
        return [], str(int(connection.execute(raised, {"n": count}).scalar_one()) - count)
    return [_DRAW.format(count)], f"LAST_INSERT_ID()-{count}"


_DRAW: Final = "UPDATE counters SET value = LAST_INSERT_ID(value + {}) WHERE name = 'sequence'"


@contextlib.contextmanager
def written_out(connection: Connection) -> Iterator[None]:
    """A transaction of nothing but one `run_statements` with `commit`, which on MySQL saves a round trip."""
    if _is_sqlite(connection):
        with connection.begin():
            yield
        return
    try:
        yield
    except BaseException:
        with contextlib.suppress(connection.dialect.loaded_dbapi.Error, OSError):
            connection.connection.rollback()
        raise


def run_statements(connection: Connection, statements: Sequence[Statement], *, commit: bool = False) -> int:
    """Runs statements, on MySQL in as few round trips as may be; with `commit` the last of them ends the
    transaction that `written_out` began.

    Gives what one of them made its LAST_INSERT_ID, or 0.
    """
    if _is_sqlite(connection):
        for statement in statements:
            if isinstance(statement, str):
                connection.exec_driver_sql(statement)
            else:
                connection.exec_driver_sql(statement.text, tuple(statement.boxes))
        return 0
    if commit:
        statements = [*statements, "COMMIT"]
    inserted = 0
    script: list[str] = []
    boxes: list[bytes] = []
    size = 0
    for statement in statements:
        words, more = (statement, []) if isinstance(statement, str) else statement
        if size >= SCRIPT_BYTES or (boxes and more):
            inserted = max(inserted, _run_script(connection, ";".join(script), boxes))
            script, boxes, size = [], [], 0
        script.append(words)
        boxes = boxes or more
        size += len(words)
    if script:
        inserted = max(inserted, _run_script(connection, ";".join(script), boxes))
    return inserted


def _run_script(connection: Connection, script: str, boxes: Sequence[bytes]) -> int:
    """One round trip."""
    driver = connection.dialect.loaded_dbapi
    try:
        return _Line(connection).run(script, boxes)
    except driver.Error as error:
        raise DBAPIError.instance(
            "statements of a commit",
            (),
            error,
            driver.Error,
            hide_parameters=True,
            dialect=connection.dialect,
        ) from error


def _is_sqlite(connection: Connection) -> bool:
    return connection.dialect.name == "sqlite"


# --- MySQL's protocol -------------------------------------------------------------------------------------


class _Packet(Protocol):
    def get_all_data(self) -> bytes: ...

    def is_ok_packet(self) -> bool: ...

    def advance(self, length: int) -> None: ...

    def read_length_encoded_integer(self) -> int: ...

    def read_uint16(self) -> int: ...


class _Driver(Protocol):
    """What is used of a connection of pymysql: its packets. Its cursors take twice as long over a script."""

    _next_seq_id: int

    def _execute_command(self, command: int, sql: bytes) -> None: ...

    def _write_bytes(self, data: bytes) -> None: ...

    def _read_packet(self) -> _Packet: ...

    def _force_close(self) -> None: ...


_SET: Final = (
    f"SET {', '.join(f'@box{number} = CAST(? AS BINARY)' for number in range(1, BOXES + 1))}, @script = ?"
).encode()
_PREPARED: Final = struct.Struct("<BIHH")
"""The answer to the first command: status, the statement's number, columns, parameters."""

_EXECUTE: Final = struct.Struct(f"<BIBI {(BOXES + 8) // 8}s B {2 * BOXES}s BB")
"""Command, statement, flags, 1; which values are NULL; that types follow; those of the boxes and of the
number, each with a byte that says unsigned.
"""

_TYPES: Final = bytes((FIELD_TYPE.BLOB, 0)) * BOXES
_NUMBER: Final = struct.Struct("<Q")
_THREE_BYTES: Final = 0xFD
_UNSIGNED: Final = 0x80

_OURS: Final = "SET @script = IF(@script = {}, 0, (SELECT 1 UNION SELECT 2));"
"""Fails where the variables are not those that were sent with it: a subquery of two rows is an error in every
mode of the server.
"""


class _Line:
    """A connection to a server, for scripts of statements none of which gives rows."""

    def __init__(self, connection: Connection) -> None:
        self._driver = cast(_Driver, connection.connection.driver_connection)
        self._known = connection.info  # lives as long as the connection to the server

    def run(self, script: str, boxes: Sequence[bytes]) -> int:
        """Sends a script, with its boxes in the same write; gives what one of its statements made the
        LAST_INSERT_ID, or 0.
        """
        if boxes:
            return self._run_boxed(script, boxes)
        self._driver._execute_command(COMMAND.COM_QUERY, script.encode("ascii"))
        return self._answer()

    def _run_boxed(self, script: str, boxes: Sequence[bytes]) -> int:
        if "boxes" not in self._known:
            self._known["boxes"] = self._prepared()
            self._known["scripts"] = 0
        self._known["scripts"] += 1
        number = self._known["scripts"]
        empty = ((1 << BOXES) - (1 << len(boxes))).to_bytes((BOXES + 8) // 8, "little")
        setting = [
            _EXECUTE.pack(
                *(COMMAND.COM_STMT_EXECUTE, self._known["boxes"], 0, 1),
                *(empty, 1, _TYPES, FIELD_TYPE.LONGLONG, _UNSIGNED),
            )
        ]
        for box in boxes:
            setting += (bytes([_THREE_BYTES]) + len(box).to_bytes(3, "little"), box)
        setting.append(_NUMBER.pack(number))
        query = bytes([COMMAND.COM_QUERY]) + (_OURS.format(number) + script).encode("ascii")
        self._driver._write_bytes(
            b"".join((_length(sum(map(len, setting))), *setting, _length(len(query)), query))
        )
        try:
            self._answer()
        except BaseException:
            self._driver._force_close()  # the script fails as well, and nobody waits for its answer
            raise
        return self._answer()

    def _answer(self) -> int:
        """Reads what the server says to one command: an OK packet for each of its statements."""
        self._driver._next_seq_id = 1
        inserted = 0
        more = True
        while more:
            packet = self._driver._read_packet()
            assert packet.is_ok_packet(), "a script has no statement that gives rows"
            packet.advance(1)
            packet.read_length_encoded_integer()  # rows
            inserted = max(inserted, packet.read_length_encoded_integer())
            more = bool(packet.read_uint16() & SERVER_STATUS.SERVER_MORE_RESULTS_EXISTS)
        return inserted

    def _prepared(self) -> int:
        self._driver._execute_command(COMMAND.COM_STMT_PREPARE, _SET)
        answer = self._driver._read_packet().get_all_data()
        _, statement, columns, parameters = _PREPARED.unpack_from(answer)
        for count in (parameters, columns):
            for _ in range(count + bool(count)):  # what they are, and the end of it
                self._driver._read_packet()
        return int(statement)


def _length(payload: int) -> bytes:
    """The head of a packet that is the first of its command."""
    assert payload < MAX_PACKET_LEN, "scripts and boxes are far smaller"
    return payload.to_bytes(3, "little") + b"\0"
