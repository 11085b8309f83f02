"""A memory in a folder of its own: one SQLite database, whole after any crash, and an index in files beside it.

memory.sqlite      all of it; anyone can open it with SQLite
index/N/*.npy      latents sorted for searching; made from the database, and made anew if they are deleted
writer.lock        held by the one process that writes
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Self

from ami import files
from ami.memory.database import BEGUN, Database
from ami.memory.index import FileIndex

NAME, LOCK = "memory.sqlite", "writer.lock"
_APPLICATION = int.from_bytes(b"AMIm", "big")  # in the file's header: whose it is
_WAIT = 30.0  # seconds that are waited for a reader to let go
# Each entry brings a file from the schema of its position to the next. Never change one that was released: add another.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE episodes (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    CREATE TABLE moments (
        number INTEGER PRIMARY KEY, time REAL NOT NULL, x REAL, y REAL, z REAL, a REAL, b REAL, c REAL,
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


class SQLite(Database):
    """The default: nothing to install, nothing to start."""

    def __init__(self, folder: Path, connection: sqlite3.Connection, lock: WriterLock | None) -> None:
        """Use :meth:`open`."""
        self.folder, self.name = folder, str(folder)
        self._connection, self._lock = connection, lock

    @classmethod
    def called(cls, where: str) -> str:
        """Its folder."""
        return where

    @classmethod
    def create(cls, where: str, about: Mapping[str, object]) -> None:
        """In a folder that is empty or not there."""
        folder = Path(where)
        if cls.exists(where):
            raise ValueError(f"{folder} is there and is not empty; choose a new folder for the memory")
        with files.whole_folder(folder) as part, _explained(folder):
            connection = sqlite3.connect(part / NAME, isolation_level=None)
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            _migrate(connection, 0)
            cls(folder, connection, None).set_about({**BEGUN, **about})
            connection.close()

    @classmethod
    def open(cls, where: str, write: bool) -> Self:
        """Open the database of a folder."""
        folder = Path(where)
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
            with _explained(folder):
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
        return cls(folder, connection, lock)

    @classmethod
    def exists(cls, where: str) -> bool:
        """Whether the folder is there, with something in it; or something that is no folder."""
        folder = Path(where)
        return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))

    @classmethod
    def destroy(cls, where: str) -> None:
        """Delete the folder."""
        shutil.rmtree(where)

    def close(self) -> None:
        """Close the files."""
        self._connection.close()
        if self._lock is not None:
            self._lock.release()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """A deferred transaction that ends as it began."""
        with _explained(self.folder):
            self._connection.execute("BEGIN DEFERRED")
            try:
                yield
            finally:
                self._let_go()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A transaction, synced when it ends."""
        if self._lock is None:
            raise ValueError(f"{self.folder} was opened for reading; open it for writing")
        with _explained(self.folder):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._let_go()
                raise
            self._connection.execute("COMMIT")

    def _let_go(self) -> None:
        with suppress(sqlite3.Error):  # a full disk or a damaged page has ended the transaction by itself
            self._connection.execute("ROLLBACK")

    def index(self, dim: int) -> FileIndex:
        """In files beside it."""
        return FileIndex(self, self.folder / "index", dim)

    def erase(self) -> None:
        """Neither in free pages nor in the log of what was written."""
        with _explained(self.folder):
            self._connection.execute("VACUUM")
            (busy, *_) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise RuntimeError(
                f"what was deleted from {self.folder} is gone, but a reader still holds its old pages, so it can be "
                "found in the file until the next prune; close the reader and prune again"
            )

    def broken(self) -> list[str]:
        """What is wrong with its pages."""
        try:
            found = [said for (said,) in self.ask("PRAGMA integrity_check") if said != "ok"]
        except sqlite3.DatabaseError as error:  # damaged so badly that it cannot be examined to the end
            found = [str(error)]
        return [f"{NAME}: {said}" for said in found]

    def size(self) -> int:
        """Of all files."""
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())

    def ask(self, sql: str, values: Sequence[object] = ()) -> list[tuple]:
        """The answers to one question."""
        return self._connection.execute(sql, values).fetchall()

    def many(self, sql: str, values: Iterable[Sequence[object]]) -> int:
        """Do the same for each of many values; how many rows were changed."""
        return max(self._connection.executemany(sql, values).rowcount, 0)

    def do(self, sql: str) -> None:
        """What has no answer."""
        self._connection.execute(sql)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
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
