"""The tables of a catalogue: their format, how the file is made, opened and brought up to date.

Format 2 added, to format 1, what tells whether a source has changed (`sources`), the model's
answers to pictures that never change (`canaries`), a checksum over the settings and counters
(`meta.checksum`), and paths that start at a root (``./…``). Files of format 1 are read as they
are; the first write brings them to format 2 in its own transaction, and no row is touched.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medcli.retrieval.media import medium
from medcli.retrieval.storage import peeking, storage_errors

FORMAT_VERSION = 2
APPLICATION_ID = 0x6D656463  # "medc", in the header of the file
COUNTERS = ("generation", "scans", "slice_vectors")
SEAL = "checksum"  # the key of `meta` that guards all others
_BUSY_SECONDS = 30.0

_TABLES = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID",
    """CREATE TABLE scans (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    scan_id TEXT NOT NULL UNIQUE,
    path TEXT NOT NULL,
    files TEXT NOT NULL,       -- JSON list
    n_slices INTEGER NOT NULL,
    label TEXT,
    patient TEXT,              -- keyed hash
    modality TEXT,
    format TEXT,
    decoder TEXT,
    pixel_sha256 TEXT,
    metadata TEXT NOT NULL,    -- JSON object
    checksum BLOB NOT NULL
)""",
    "CREATE INDEX scans_by_patient ON scans (patient) WHERE patient IS NOT NULL",
    "CREATE INDEX scans_by_pixels ON scans (pixel_sha256) WHERE pixel_sha256 IS NOT NULL",
    """CREATE TABLE vectors (
    id INTEGER PRIMARY KEY,
    scan INTEGER NOT NULL REFERENCES scans ON DELETE CASCADE,
    slice INTEGER,             -- NULL: the scan as a whole
    view TEXT NOT NULL,
    vector BLOB NOT NULL
)""",
    "CREATE INDEX vectors_by_scan ON vectors (scan)",
    """CREATE TABLE slices (
    scan INTEGER NOT NULL REFERENCES scans ON DELETE CASCADE,
    slice INTEGER NOT NULL,
    file TEXT NOT NULL,
    thumbnail BLOB,
    checksum BLOB NOT NULL,
    PRIMARY KEY (scan, slice)
)""",
)
_TABLES_OF_FORMAT_2 = (
    """CREATE TABLE sources (
    scan INTEGER PRIMARY KEY REFERENCES scans ON DELETE CASCADE,
    recipe TEXT,               -- JSON object: how it is read, size and mtime of its files
    sha256 TEXT,               -- of the content of its files
    fields BLOB NOT NULL,      -- checksum over the row of `scans` without its vectors
    checksum BLOB NOT NULL
)""",
    "CREATE INDEX sources_by_content ON sources (sha256) WHERE sha256 IS NOT NULL",
    """CREATE TABLE canaries (
    name TEXT PRIMARY KEY,
    vector BLOB NOT NULL,      -- float32
    checksum BLOB NOT NULL
) WITHOUT ROWID""",
)


def connect(path: Path, mode: str, *, query_only: bool = False) -> sqlite3.Connection:
    """A connection in which every transaction is explicit and every commit is on disk."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{mode}",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
    )
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")  # removed rows are overwritten
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute(f"PRAGMA query_only = {int(query_only)}")
    except BaseException:
        connection.close()
        raise
    return connection


def open_mode(path: Path, writable: bool) -> str:
    """How SQLite can open `path` here.

    A read-only folder, or a network, has no place for the WAL's shared memory, so the file
    is declared immutable. That is right only while no log or journal waits beside it: SQLite
    would not read it and would show another state.
    """
    if writable:
        return "mode=rw"
    return "mode=ro" if is_unfinished(path) else "mode=ro&immutable=1"


def is_unfinished(path: Path) -> bool:
    """Whether a log or a journal waits to be taken in."""
    beside = (path.with_name(f"{path.name}{suffix}") for suffix in ("-wal", "-journal"))
    return any(file.exists() and file.stat().st_size for file in beside)


def keeps_log(path: Path) -> bool:
    """Whether the file says of itself that its journal is a write-ahead log.

    References
    ----------
    SQLite, Database File Format, 1.3.3: file format version numbers
    """
    with peeking(path) as file:
        return file.read(20)[18:] == b"\x02\x02"


def journal_for(path: Path) -> str:
    """The journal mode that works where `path` lies."""
    return "WAL" if medium(path.parent) == "local" else "DELETE"


def set_journal(connection: sqlite3.Connection, path: Path) -> None:
    """Give an existing file the journal that works where it lies now.

    A log is taken in under an exclusive lock, which needs no shared memory.

    Raises
    ------
    LockedError, StorageError, DamagedError : as SQLite and the system report it
    """
    wanted = journal_for(path)
    with storage_errors(path):
        if wanted == "WAL" and connection.execute("PRAGMA journal_mode").fetchone() == ("wal",):
            return
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute(f"PRAGMA journal_mode = {wanted}")
        connection.execute("PRAGMA locking_mode = NORMAL")
        connection.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()  # lets the lock go


def create_tables(
    connection: sqlite3.Connection, meta: Mapping[str, str | int], path: Path
) -> None:
    """Fill the new file `path`; the caller has opened no transaction."""
    connection.execute(f"PRAGMA journal_mode = {journal_for(path)}")
    connection.execute("BEGIN")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
    for statement in (*_TABLES, *_TABLES_OF_FORMAT_2):
        connection.execute(statement)
    values = {**meta, "format_version": FORMAT_VERSION, **dict.fromkeys(COUNTERS, 0)}
    connection.executemany("INSERT INTO meta VALUES (?, ?)", values.items())
    seal_meta(connection)
    connection.execute("COMMIT")


def upgrade_tables(connection: sqlite3.Connection) -> None:
    """Bring a file of format 1 to format 2, inside the caller's transaction."""
    for statement in _TABLES_OF_FORMAT_2:
        connection.execute(statement)
    connection.execute("UPDATE meta SET value = ? WHERE key = 'format_version'", (FORMAT_VERSION,))
    connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")


def format_of(connection: sqlite3.Connection) -> int:
    """The number of the format that the tables have now."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def meta_checksum(meta: Mapping[str, Any]) -> str:
    """A digest over the settings and the counters."""
    pairs = ((key, value) for key, value in meta.items() if key != SEAL)
    others = sorted(pairs, key=lambda pair: repr(pair[0]))  # damage may change a key's type
    return hashlib.blake2b(json.dumps(others, default=repr).encode(), digest_size=16).hexdigest()


def seal_meta(connection: sqlite3.Connection) -> None:
    """Write the checksum of the settings and counters as they are now."""
    meta = dict(connection.execute("SELECT key, value FROM meta"))
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (SEAL, meta_checksum(meta)))
