"""A memory on a PostgreSQL server with pgvector, for what one machine has outgrown: read, and searched, from anywhere.

``postgresql://USER@HOST/DATABASE#NAME`` names one: a schema of that database, ``ami`` where no name is said.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self
from urllib.parse import urlsplit

import psycopg  # pyright: ignore[reportMissingImports] (an extra)
from psycopg import sql  # pyright: ignore[reportMissingImports]

from ami.memory.database import BEGUN, Database
from ami.memory.pgvector import Half, ServerIndex, teach

_OURS = "AMI memory, schema "  # the comment on a schema of the database: whose it is
_APPLICATION = int.from_bytes(b"AMIm", "big")  # the high half of the number of the writer's lock
_WAIT = 30  # seconds that are waited for a reader to let go
# Each entry brings a memory from the schema of its position to the next; one that was released is never changed.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
    CREATE TABLE episodes (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    CREATE TABLE moments (
        number BIGINT PRIMARY KEY, time FLOAT8 NOT NULL, x FLOAT8, y FLOAT8, z FLOAT8, a FLOAT8, b FLOAT8, c FLOAT8,
        episode INTEGER NOT NULL REFERENCES episodes, source TEXT NOT NULL, surprise FLOAT8,
        latent HALFVEC NOT NULL, checksum BIGINT NOT NULL);
    CREATE INDEX moments_of_episodes ON moments (episode);
    CREATE INDEX moments_in_time ON moments (time);
    CREATE TABLE thumbnails (moment BIGINT PRIMARY KEY REFERENCES moments, picture BYTEA NOT NULL);
    ALTER TABLE thumbnails ALTER picture SET STORAGE EXTERNAL; -- JPEG is not made smaller
    """,
)


class Postgres(Database):
    """A schema of a database. The server's own log and its backups are its administrator's, and are not erased."""

    def __init__(self, name: str, connection: Any, write: bool) -> None:
        """Use :meth:`open`."""
        self.name, self._connection, self._write = name, connection, write
        teach(connection)

    @classmethod
    def called(cls, where: str) -> str:
        """Without a password."""
        url = urlsplit(where)
        query = "&".join(part for part in url.query.split("&") if part and not part.startswith("password="))
        user, at, host = url.netloc.rpartition("@")
        netloc = user.partition(":")[0] + at + host
        return url._replace(netloc=netloc, query=query, fragment=_schema(where)).geturl()

    @classmethod
    def create(cls, where: str, about: Mapping[str, object]) -> None:
        """Make the schema, and what is in it, in one transaction."""
        name, schema = cls.called(where), _schema(where)
        with _connected(where) as connection:
            if _comment(connection, schema) is not None:
                raise ValueError(f"{name} is there; choose a new name for the memory, after a # at the end")
            with connection.transaction():
                try:
                    connection.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
                except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile):
                    raise ValueError(
                        f"the server of {name} has no pgvector, which a memory needs; install it"
                    ) from None
                connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
                _migrate(connection, schema, 0)
                cls(name, connection, True).set_about({**BEGUN, **about})

    @classmethod
    def open(cls, where: str, write: bool) -> Self:
        """Connect to the server."""
        name, schema = cls.called(where), _schema(where)
        with _connected(where, keep=True) as connection:
            _prepare(connection, name, schema, write)
            return cls(name, connection, write)

    @classmethod
    def exists(cls, where: str) -> bool:
        """Whether there is a schema of that name."""
        with _connected(where) as connection:
            return _comment(connection, _schema(where)) is not None

    @classmethod
    def destroy(cls, where: str) -> None:
        """Drop the schema."""
        with _connected(where) as connection:
            connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(_schema(where))))

    def close(self) -> None:
        """Close the connection; the server lets go of the lock with it, however it ends."""
        self._connection.close()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """A repeatable read."""
        with _explained(self.name), self._connection.transaction():
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A transaction, synced by the server when it ends."""
        if not self._write:
            raise ValueError(f"{self.name} was opened for reading; open it for writing")
        with _explained(self.name), self._connection.transaction():
            yield

    def index(self, dim: int) -> ServerIndex:
        """On the server."""
        return ServerIndex(self, dim)

    def erase(self) -> None:
        """Write the tables, and the index, anew."""
        with _explained(self.name):
            self._connection.execute("VACUUM (FULL) moments, thumbnails, episodes")

    def broken(self) -> list[str]:
        """What the server says when it reads everything; by default it knows a damaged page by its checksum."""
        try:
            self.ask("SELECT sum(checksum) FROM moments LEFT JOIN thumbnails ON moment = number")
        except psycopg.DatabaseError as error:
            return [str(error)]
        return []

    def size(self) -> int:
        """Of the tables and their indexes."""
        tables = "'about', 'episodes', 'moments', 'thumbnails'"
        return int(
            self.ask(f"SELECT sum(pg_total_relation_size(name::regclass)) FROM unnest(ARRAY[{tables}]) name")[0][0]
        )

    def ask(self, sql: str, values: Sequence[object] = ()) -> list[tuple]:
        """The answers to one question."""
        return self._connection.execute(sql.replace("?", "%s"), values, binary=True).fetchall()

    def many(self, sql: str, values: Iterable[Sequence[object]]) -> int:
        """Do the same for each of many values; how many rows were changed."""
        with self._connection.cursor() as cursor:
            cursor.executemany(sql.replace("?", "%s"), values)
            return max(cursor.rowcount, 0)

    def do(self, sql: str) -> None:
        """What has no answer."""
        self._connection.execute(sql)

    def latent(self, held: bytes) -> Half:
        """As pgvector's ``halfvec``."""
        return Half(held)


def _schema(where: str) -> str:
    schema = urlsplit(where).fragment or "ami"
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", schema) or schema.startswith("pg_"):
        raise ValueError(f"{schema!r} is no name for a memory; take small letters, digits and _")
    return schema


@contextmanager
def _connected(where: str, keep: bool = False) -> Iterator[Any]:
    """A connection, closed at the end unless it is to be kept and nothing went wrong."""
    name = Postgres.called(where)
    who = f"process {os.getpid()} on {socket.gethostname()}"
    try:
        connection = psycopg.connect(where.partition("#")[0], autocommit=True, application_name=who)
    except psycopg.Error as error:
        said = str(error).strip().splitlines()[-1]
        raise ValueError(f"{name} cannot be reached ({said}); see that its server runs, and lets you in") from None
    try:
        with _explained(name):
            yield connection
    except BaseException:
        connection.close()
        raise
    if not keep:
        connection.close()


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """What the server says, as the errors that the rest of the house raises."""
    try:
        yield
    except psycopg.errors.DiskFull as error:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name) from error
    except (psycopg.errors.DataCorrupted, psycopg.errors.IndexCorrupted) as error:
        raise ValueError(
            f"{name} is damaged ({error}); see what is wrong with ami memory check, and copy it back from a backup or "
            "an export"
        ) from error
    except psycopg.DataError as error:
        raise ValueError(f"{name} cannot hold this: {error}") from error
    except psycopg.Error as error:
        raise RuntimeError(f"{name}: {error}") from error


def _comment(connection: Any, schema: str) -> str | None:
    """What is said of a schema of the database; ``None`` where there is none of that name."""
    query = "SELECT coalesce(obj_description(oid, 'pg_namespace'), '') FROM pg_namespace WHERE nspname = %s"
    found = connection.execute(query, (schema,)).fetchone()
    return None if found is None else found[0]


def _prepare(connection: Any, name: str, schema: str, write: bool) -> None:
    said = _comment(connection, schema)
    if said is None:
        raise ValueError(f"there is no memory {name}: no such schema in that database; make one with ami remember")
    if not said.startswith(_OURS):
        raise ValueError(f"{name} is not a memory: that schema of the database is something else")
    number = int(said.removeprefix(_OURS))
    if number > len(MIGRATIONS):
        raise ValueError(f"{name} has schema {number}, this AMI reads up to {len(MIGRATIONS)}; install a newer AMI")
    if number < len(MIGRATIONS) and not write:
        raise ValueError(
            f"{name} has schema {number}, older than this AMI's {len(MIGRATIONS)}; any verb that writes to it brings "
            "it here, ami memory prune say"
        )
    _find(connection, schema)
    connection.isolation_level, connection.read_only = psycopg.IsolationLevel.REPEATABLE_READ, not write
    if write:
        _lock(connection, name, schema)
        connection.execute(f"SET lock_timeout = '{_WAIT}s'")
        connection.execute("SET synchronous_commit = on")
        connection.execute("SET client_connection_check_interval = '1s'")  # a killed writer's work ends with it
        _migrate(connection, schema, number)


def _lock(connection: Any, name: str, schema: str) -> None:
    """For as long as the connection lasts."""
    query = "SELECT oid::bigint, pg_try_advisory_lock(%s + oid::bigint) FROM pg_namespace WHERE nspname = %s"
    oid, ours = connection.execute(query, (_APPLICATION << 32, schema)).fetchone()
    if ours:
        return
    query = """
        SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid)
        WHERE locktype = 'advisory' AND classid::bigint = %s AND objid::bigint = %s AND granted
    """
    who = connection.execute(query, (_APPLICATION, oid)).fetchone() or ("unknown",)
    raise ValueError(
        f"{name} is being written by another ({who[0]}), and a memory has one writer at a time; wait for it, or open "
        "it for reading"
    )


def _find(connection: Any, schema: str) -> None:
    connection.execute(sql.SQL("SET search_path = {}, public").format(sql.Identifier(schema)))


def _migrate(connection: Any, schema: str, number: int) -> None:
    """Each step in a transaction of its own, with the number that says that it was done."""
    _find(connection, schema)
    for done, script in enumerate(MIGRATIONS[number:], start=number + 1):
        with connection.transaction():
            connection.execute(script)
            comment = sql.SQL("COMMENT ON SCHEMA {} IS {}")
            connection.execute(comment.format(sql.Identifier(schema), sql.Literal(f"{_OURS}{done}")))
