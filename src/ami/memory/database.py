"""The file that moments are kept in: one SQLite database, whole after any crash, written by one process at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Float64

from ami import files
from ami.memory.moment import Moment
from ami.memory.nearest import Rows

NAME, LOCK = "memory.sqlite", "writer.lock"
_APPLICATION = int.from_bytes(b"AMIm", "big")  # in the file's header: whose it is
_WAIT = 30.0  # seconds that are waited for a reader to let go
# Each entry brings a file from the schema of its position to the next. Never change one that was released: add another.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE about (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
    CREATE TABLE episodes (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    -- Numbers are never given twice: what was deleted is not found under another moment's.
    CREATE TABLE moments (
        number INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, x REAL, y REAL, z REAL,
        episode INTEGER NOT NULL REFERENCES episodes, source TEXT NOT NULL, surprise REAL,
        latent BLOB NOT NULL, checksum INTEGER NOT NULL);
    CREATE INDEX moments_of_episodes ON moments (episode);
    -- Apart from the moments, which are read in bulk.
    CREATE TABLE thumbnails (moment INTEGER PRIMARY KEY REFERENCES moments, picture BLOB NOT NULL);
    """,
)


class WriterLock:
    """Held by the one process that writes; the kernel lets go of it when that process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self._file: IO[str] = (folder / LOCK).open("a+", encoding="ascii")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            who = self._file.read().strip() or "unknown"
            self._file.close()
            raise ValueError(
                f"{folder} is being written by another (process {who}), and a memory has one writer at a time; "
                "wait for it, or open it for reading"
            ) from None
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        """Let others write."""
        self._file.close()


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """What SQLite says, as the errors that the rest of the house raises."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        if name in ("SQLITE_FULL", "SQLITE_IOERR_WRITE"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR_SHORT_READ")):
            raise ValueError(
                f"{folder / NAME} is damaged ({error}); see what is wrong with ami memory check, and copy it back from "
                "a backup or an export"
            ) from error
        raise RuntimeError(f"{folder / NAME}: {error}") from error


def create(folder: Path, about: Mapping[str, object]) -> None:
    """Make an empty database in a folder that is empty or not there; whoever sees it sees a whole one."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there and is not empty; choose a new folder for the memory")
    folder = folder.resolve()
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        with explained(folder):
            connection = sqlite3.connect(part / NAME, isolation_level=None)
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            _migrate(connection, 0)
            set_about(connection, {**about, "generation": 0})
            connection.close()
        os.rename(part, folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    files.sync_folder(folder.parent)


def connect(folder: Path, write: bool) -> tuple[sqlite3.Connection, WriterLock | None]:
    """Open the database of a memory; one of an older schema is brought to this one, if it may be written."""
    path = folder / NAME
    if not folder.is_dir():
        raise ValueError(f"there is no memory in {folder}: no such folder; make one with ami remember")
    if not path.is_file():
        raise ValueError(f"{folder} is not a memory: it has no {NAME}; make one with ami remember")
    with path.open("rb") as file:
        if file.read(16) != b"SQLite format 3\0":
            raise ValueError(f"{folder} is not a memory, or is damaged: {NAME} is not a SQLite database")
    lock = WriterLock(folder) if write else None
    try:
        with explained(folder):
            connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, isolation_level=None)
            try:
                _prepare(connection, folder, write)
            except BaseException:
                connection.close()
                raise
    except BaseException:
        if lock is not None:
            lock.release()
        raise
    return connection, lock


def _prepare(connection: sqlite3.Connection, folder: Path, write: bool) -> None:
    connection.execute(f"PRAGMA busy_timeout = {int(1000 * _WAIT)}")
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != _APPLICATION:
        raise ValueError(f"{folder} is not a memory: {NAME} is a database of something else")
    (schema,) = connection.execute("PRAGMA user_version").fetchone()
    if schema > len(MIGRATIONS):
        raise ValueError(f"{folder} has schema {schema}, this AMI reads up to {len(MIGRATIONS)}; install a newer AMI")
    if write:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA foreign_keys = ON")
        _migrate(connection, schema)
    elif schema < len(MIGRATIONS):
        raise ValueError(
            f"{folder} has schema {schema}, older than this AMI's {len(MIGRATIONS)}; any verb that writes to it "
            "brings it here, ami memory prune say"
        )
    else:
        connection.execute("PRAGMA query_only = ON")


def _migrate(connection: sqlite3.Connection, schema: int) -> None:
    """Each step in a transaction of its own, with the number that says that it was done."""
    for number, script in enumerate(MIGRATIONS[schema:], start=schema + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing of what is done inside."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        _let_go(connection)
        raise
    connection.execute("COMMIT")


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """One state of the file throughout, whatever is written meanwhile."""
    connection.execute("BEGIN DEFERRED")
    try:
        yield
    finally:
        _let_go(connection)


def _let_go(connection: sqlite3.Connection) -> None:
    with suppress(sqlite3.Error):  # a full disk or a damaged page has ended the transaction by itself
        connection.execute("ROLLBACK")


def erase(connection: sqlite3.Connection, folder: Path) -> None:
    """Leave nothing of what was deleted: neither in free pages nor in the log of what was written."""
    connection.execute("VACUUM")
    (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise RuntimeError(
            f"what was deleted from {folder} is gone, but a reader still holds its old pages, so it can be found in "
            "the file until the next prune; close the reader and prune again"
        )


_SAID = "time, x, y, z, episode, source, surprise"
_WHOLE = f"""
    SELECT moments.number, {_SAID}, latent, checksum, picture, episodes.name
    FROM moments JOIN episodes ON episodes.number = episode LEFT JOIN thumbnails ON moment = moments.number
"""


def insert(connection: sqlite3.Connection, moments: Sequence[Moment]) -> list[int]:
    """Add moments inside a transaction; their numbers."""
    names = sorted({moment.episode for moment in moments})
    connection.executemany("INSERT OR IGNORE INTO episodes (name) VALUES (?)", ((name,) for name in names))
    episodes = episode_numbers(connection)
    numbers = []
    for moment in moments:
        latent = moment.latent.astype("<f2").tobytes()
        place = (None, None, None) if moment.place is None else tuple(map(float, moment.place))
        surprise = None if moment.surprise is None else float(moment.surprise)
        said = (float(moment.time), *place, episodes[moment.episode], moment.source, surprise)
        row = connection.execute(
            f"INSERT INTO moments ({_SAID}, latent, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*said, latent, _checksum(said, latent, moment.thumbnail)),
        )
        numbers.append(int(row.lastrowid or 0))
    pictures = ((number, each.thumbnail) for number, each in zip(numbers, moments, strict=True) if each.thumbnail)
    connection.executemany("INSERT INTO thumbnails VALUES (?, ?)", pictures)
    return numbers


def about(connection: sqlite3.Connection) -> dict[str, Any]:
    """What the memory says of itself."""
    return dict(connection.execute("SELECT name, value FROM about"))


def set_about(connection: sqlite3.Connection, changed: Mapping[str, object]) -> None:
    """Change some of that."""
    connection.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", changed.items())


def generation(connection: sqlite3.Connection) -> int:
    """Which sorting of the index belongs to the moments."""
    return connection.execute("SELECT value FROM about WHERE name = 'generation'").fetchone()[0]


def delete(connection: sqlite3.Connection, numbers: Iterable[int]) -> int:
    """Delete moments inside a transaction; how many there were."""
    connection.execute("CREATE TEMP TABLE going (number INTEGER PRIMARY KEY)")
    connection.executemany("INSERT OR IGNORE INTO going VALUES (?)", ((int(number),) for number in numbers))
    connection.execute("DELETE FROM thumbnails WHERE moment IN (SELECT number FROM going)")
    gone = connection.execute("DELETE FROM moments WHERE number IN (SELECT number FROM going)").rowcount
    connection.execute("DELETE FROM episodes WHERE number NOT IN (SELECT episode FROM moments)")
    connection.execute("DROP TABLE going")
    return gone


def replace_latents(connection: sqlite3.Connection, moments: Iterable[tuple[int, Moment]]) -> None:
    """Give moments, inside a transaction, the latents that they are given with; the rest of them stays."""
    for number, moment in moments:
        said = connection.execute(f"SELECT {_SAID} FROM moments WHERE number = ?", (number,)).fetchone()
        latent = moment.latent.astype("<f2").tobytes()
        connection.execute(
            "UPDATE moments SET latent = ?, checksum = ? WHERE number = ?",
            (latent, _checksum(said, latent, moment.thumbnail), number),
        )


def episode_numbers(connection: sqlite3.Connection) -> dict[str, int]:
    """Each episode's number."""
    return dict(connection.execute("SELECT name, number FROM episodes"))


def read(
    connection: sqlite3.Connection, folder: Path, *, after: int = 0, limit: int = -1, numbers: Sequence[int] = ()
) -> list[tuple[int, Moment]]:
    """Moments with their numbers: those named or, in their order, at most ``limit`` whose numbers are above ``after``.

    Each is checked against what was written.
    """
    # More names than SQLite takes in one question are never asked for: they are the top few of a recall.
    which = f"IN ({', '.join('?' * len(numbers))})" if numbers else "> ?"
    found = []
    for number, *said, latent, written, picture, episode in connection.execute(
        f"{_WHOLE} WHERE moments.number {which} ORDER BY moments.number LIMIT ?", (*(numbers or (after,)), limit)
    ):
        if _checksum(said, latent, picture) != written:
            raise ValueError(
                f"moment {number} of {folder} is damaged: it is not what was written; ami memory check names all such, "
                "and ami memory forget --moments takes them out"
            )
        time, x, y, z, _, source, surprise = said
        place = None if x is None else (x, y, z)
        found.append((number, Moment(np.frombuffer(latent, "<f2"), time, place, episode, source, surprise, picture)))
    return found


def damaged(connection: sqlite3.Connection, dim: int) -> list[int]:
    """The numbers of all moments that are not what was written."""
    return [
        number
        for number, *said, latent, written, picture, _ in connection.execute(_WHOLE)
        if len(latent) != 2 * dim or _checksum(said, latent, picture) != written
    ]


def counted(connection: sqlite3.Connection) -> dict[str, int | float | None]:
    """How much there is, and from when to when."""
    query = "SELECT count(*), count(DISTINCT episode), min(time), max(time), count(x) FROM moments"
    names = "moments", "episodes", "since", "until", "with_place"
    return dict(zip(names, connection.execute(query).fetchone(), strict=True))


def broken_pages(connection: sqlite3.Connection) -> list[str]:
    """What SQLite finds wrong with its own structure."""
    try:
        return [said for (said,) in connection.execute("PRAGMA integrity_check") if said != "ok"]
    except sqlite3.DatabaseError as error:  # damaged so badly that it cannot be examined to the end
        return [str(error)]


def without_thumbnail(connection: sqlite3.Connection) -> list[int]:
    """The numbers of the moments that have no picture."""
    query = "SELECT number FROM moments WHERE number NOT IN (SELECT moment FROM thumbnails)"
    return [number for (number,) in connection.execute(query)]


def surprise(connection: sqlite3.Connection) -> Float64[np.ndarray, "moments"]:
    """How surprising each moment was, in their order; NaN where it is not known."""
    query = "SELECT surprise FROM moments ORDER BY number"
    return np.array([value for (value,) in connection.execute(query)], np.float64)


def _checksum(said: Sequence[object], latent: bytes, thumbnail: bytes | None) -> int:
    """Over all of a moment: SQLite itself does not notice a flipped bit inside a value."""
    return zlib.crc32(thumbnail or b"", zlib.crc32(latent, zlib.crc32(repr(tuple(said)).encode())))


def columns(connection: sqlite3.Connection, dim: int, after: int = 0) -> Rows:
    """What is searched of the moments whose numbers are above ``after``."""
    query = "SELECT number, time, x, y, z, episode, latent FROM moments WHERE number > ? ORDER BY number"
    cursor, parts = connection.execute(query, (after,)), [Rows.none(dim)]
    while some := cursor.fetchmany(65536):
        number, time, x, y, z, episode, latent = zip(*some, strict=True)
        place = np.array([x, y, z], np.float64).T  # NULL becomes NaN
        vectors = np.frombuffer(bytearray().join(latent), "<f2").reshape(-1, dim)
        parts.append(Rows(np.array(number), np.array(time), place, np.array(episode, np.int32), vectors))
    return Rows.joined(parts)
