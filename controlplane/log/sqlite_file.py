"""The file of the SQLite log: its tables, how it is opened, and the examination before that.

Note [A row and its place]. `id` is shard x 2^40 + offset: one integer key, so that a place is a range of the table. The
checksum of a row begins with its place: a row that is read at another place than it was written for is found out.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

from controlplane.log.ports import LogCorrupt, LogUnavailable, Stream
from controlplane.log.sqlite_guards import FileLock, Mark, sync_directory

FORMAT: Final = 1
SHARD_SPAN: Final = 1 << 40
"""Most offsets of one place."""
SETTINGS: Final = "settings"
BUSY_TIMEOUT_S: Final = 5.0
CACHE_KIB: Final = 512
"""Pages that each connection keeps in memory: batches are small, and readers go on where they were."""

_ADVICE: Final = (
    "Stop the daemon, keep a copy of the files, then restore the log from a backup and give its loss your consent with "
    "`coreplane doctor --accept-loss`"
)
_CORRUPT: Final = ("SQLITE_CORRUPT", "SQLITE_NOTADB")

_JOURNAL_COLUMNS: Final = "id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, key TEXT NOT NULL, crc INTEGER NOT NULL"
_SCHEMA: Final = (
    "CREATE TABLE log (format INTEGER NOT NULL, shards INTEGER NOT NULL, commits INTEGER NOT NULL)",
    "CREATE TABLE places (stream TEXT, shard INTEGER, start INTEGER, next INTEGER, PRIMARY KEY (stream, shard))",
    "CREATE TABLE shards (shard INTEGER PRIMARY KEY, epoch INTEGER NOT NULL)",
    "CREATE TABLE settings (id INTEGER PRIMARY KEY, crc INTEGER NOT NULL, data BLOB NOT NULL)",
    f"CREATE TABLE events ({_JOURNAL_COLUMNS}, data BLOB NOT NULL)",
    f"CREATE TABLE metrics ({_JOURNAL_COLUMNS}, data BLOB NOT NULL)",
    f"CREATE TABLE status ({_JOURNAL_COLUMNS}, data BLOB, shard INTEGER NOT NULL, UNIQUE (shard, key))",
    "CREATE INDEX tombstones ON status (at_ms) WHERE data IS NULL",
)


class Slot(NamedTuple):
    """A sequence of offsets in the file: the settings log (shard 0) or a place of the journal."""

    stream: str
    shard: int


class Counters:
    """What the writer must know to go on. Changed by the writer thread after each commit, read from anywhere."""

    def __init__(self, shards: int) -> None:
        self.shards = shards
        self.commits = 0
        self.starts: dict[Slot, int] = {}
        """Oldest offset that is kept."""
        self.nexts: dict[Slot, int] = {}
        """One past the last committed offset."""
        self.epochs: dict[int, int] = {}


class OpenFile(NamedTuple):
    """A log that was examined and is locked."""

    path: Path
    lock: FileLock
    mark: Mark
    connection: sqlite3.Connection
    """The writer's."""
    connect: Callable[[], sqlite3.Connection]
    """Makes another one for it."""
    counters: Counters


def settings_crc(offset: int, data: bytes) -> int:
    """Checksum of a row of the settings log; Note [A row and its place]."""
    return crc32(data, offset)  # of the offset it takes the lower 32 bits


def entry_crc(row_id: int, key: bytes, data: bytes | None) -> int:
    """Checksum of a row of the journal."""
    place = crc32(key, row_id ^ row_id >> 32)
    return place ^ 0xFFFFFFFF if data is None else crc32(data, place)


def open_file(path: Path, *, shards: int, synchronous: str) -> OpenFile:
    """Lock, examine and open the log; an empty one is made when there is none. Blocks.

    Raises `LogUnavailable` (in use, another number of shards, no access) and `LogCorrupt`.
    """
    with translated(path), ExitStack() as undo:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        undo.callback(lock.release)
        mark = Mark(path)
        undo.callback(mark.close)
        found = examine(path, mark.read())
        if found is not None and found.shards != shards:
            msg = (
                f"{path} was made with {found.shards} shards and can't be opened with {shards}: set log.shards to match"
            )
            raise LogUnavailable(msg)
        connection = connect(path, synchronous)
        undo.callback(connection.close)
        if found is None:
            create(connection, shards)
            sync_directory(path.parent)
        counters = read_counters(path, connection)
        undo.pop_all()
    return OpenFile(path, lock, mark, connection, partial(connect, path, synchronous), counters)


def connect(path: Path, synchronous: str) -> sqlite3.Connection:
    """The writer's connection; the file is made when it isn't there. Raises `LogUnavailable`."""
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        connection.close()
        msg = f"{path}: its file system can't hold a write-ahead log (journal mode {mode}); use a local disk"
        raise LogUnavailable(msg)
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute("PRAGMA fullfsync=ON")
    connection.execute("PRAGMA cell_size_check=ON")
    connection.execute(f"PRAGMA cache_size=-{CACHE_KIB:d}")
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """A connection that can't write, and leaves the write-ahead log alone when it is closed. Text comes as bytes."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.text_factory = bytes
    connection.execute("PRAGMA cell_size_check=ON")
    connection.execute(f"PRAGMA cache_size=-{CACHE_KIB:d}")
    return connection


def create(connection: sqlite3.Connection, shards: int) -> None:
    """The tables of an empty log."""
    slots = [(SETTINGS, 0), *((str(stream), shard) for stream in Stream for shard in range(shards))]
    connection.execute("BEGIN IMMEDIATE")
    for statement in _SCHEMA:
        connection.execute(statement)
    connection.execute("INSERT INTO log VALUES (?, ?, 0)", (FORMAT, shards))
    connection.executemany("INSERT INTO places VALUES (?, ?, 0, 0)", slots)
    connection.executemany("INSERT INTO shards VALUES (?, 0)", [(shard,) for shard in range(shards)])
    connection.execute("COMMIT")


def examine(path: Path, acknowledged: int) -> Counters | None:
    """The counters of a log, None when there is none yet. Nothing is changed, in the write-ahead log neither.

    Raises `LogCorrupt` when less is there than was acknowledged, or not all that is counted.
    """
    if not path.exists() or path.stat().st_size == 0:
        _refuse_loss(path, 0, acknowledged)
        return None
    with translated(path), closing(connect_reader(path)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if not tables:
            _refuse_loss(path, 0, acknowledged)
            return None
        if b"log" not in tables:
            msg = f"{path} is a database, but not a log of Coreplane"
            raise LogCorrupt(msg)
        counters = read_counters(path, connection)
        _refuse_loss(path, counters.commits, acknowledged)
        _refuse_missing(path, connection, counters)
        return counters


def read_counters(path: Path, connection: sqlite3.Connection) -> Counters:
    """The counters as they are committed. Raises `LogUnavailable` for a format this version doesn't know."""
    row = connection.execute("SELECT format, shards, commits FROM log").fetchone()
    if row is None:
        msg = f"{path}: the table log is empty. {_ADVICE}"
        raise LogCorrupt(msg)
    if row[0] != FORMAT:
        msg = f"{path} has format {row[0]}, this version knows {FORMAT}: use the version that wrote it"
        raise LogUnavailable(msg)
    counters = Counters(row[1])
    counters.commits = row[2]
    for stream, shard, start, following in connection.execute("SELECT stream, shard, start, next FROM places"):
        slot = Slot(stream if isinstance(stream, str) else stream.decode(), shard)
        counters.starts[slot], counters.nexts[slot] = start, following
    counters.epochs = dict(connection.execute("SELECT shard, epoch FROM shards"))
    return counters


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Errors of SQLite and of the file system as those of the ports."""
    try:
        yield
    except sqlite3.Error as exc:
        raise meaning(path, exc) from exc
    except OSError as exc:
        msg = f"{path}: {exc}"
        raise LogUnavailable(msg) from exc


def meaning(path: Path, exc: sqlite3.Error) -> LogCorrupt | LogUnavailable:
    """Damaged, or only out of reach."""
    if error_name(exc).startswith(_CORRUPT):
        return LogCorrupt(f"{path}: {exc}. {_ADVICE}")
    return LogUnavailable(f"{path}: {exc}")


def error_name(exc: sqlite3.Error) -> str:
    """`SQLITE_FULL`; empty for errors of Python's own."""
    return getattr(exc, "sqlite_errorname", None) or ""


def corrupt(path: Path, where: str, what: str) -> LogCorrupt:
    """The error for a row that isn't what was written: table and offset, and what to do."""
    return LogCorrupt(f"{path}: {where}: {what}. {_ADVICE}")


def _refuse_loss(path: Path, commits: int, acknowledged: int) -> None:
    if commits < acknowledged:
        msg = f"{path}: the log ends at commit {commits}, but {acknowledged} was acknowledged. {_ADVICE}"
        raise LogCorrupt(msg)


def _refuse_missing(path: Path, connection: sqlite3.Connection, counters: Counters) -> None:
    """Every place must end where it is counted to end: a lost page isn't always malformed."""
    for slot, following in counters.nexts.items():
        low = slot.shard * SHARD_SPAN
        query = f"SELECT max(id) FROM {slot.stream} WHERE id >= ? AND id < ?"  # noqa: S608 - our own table names
        (last,) = connection.execute(query, (low, low + SHARD_SPAN)).fetchone()
        end = counters.starts[slot] if last is None else last - low + 1
        if end != following:
            raise corrupt(path, f"{slot.stream}, shard {slot.shard}", f"ends at offset {end} instead of {following}")
