"""How moments are found that PostgreSQL keeps: the server itself searches, with pgvector."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float
from psycopg import pq  # pyright: ignore[reportMissingImports] (an extra)
from psycopg.adapt import Dumper, Loader  # pyright: ignore[reportMissingImports]

from ami.memory.database import COLUMNS, Database, Index, to_rows
from ami.memory.moment import LONGEST, Where
from ami.memory.nearest import Rows

_FEW = 16384  # rows that are always searched exactly
_WIDEST = 4000  # numbers in a latent that pgvector can make a graph of
_LIST = 200, 1000  # the least, and the most, candidates that are kept in mind during a search


class Half(bytes):
    """A latent's 16-bit numbers, the low byte of each first."""


class _Dumper(Dumper):
    format = pq.Format.BINARY

    def dump(self, obj: Half) -> bytes:
        return struct.pack(">HH", len(obj) // 2, 0) + np.frombuffer(obj, "<u2").astype(">u2").tobytes()


class _Loader(Loader):
    format = pq.Format.BINARY

    def load(self, data: Any) -> bytes:
        return np.frombuffer(data, ">u2", offset=4).astype("<u2").tobytes()


def teach(connection: Any) -> None:
    """Let a connection send and receive latents in 16 bits."""
    (oid,) = connection.execute("SELECT 'halfvec'::regtype::oid").fetchone()
    connection.adapters.register_dumper(Half, type("_Known", (_Dumper,), {"oid": oid}))
    connection.adapters.register_loader(oid, _Loader)


class ServerIndex(Index):
    """The server searches: exactly, or where moments are many through pgvector's graph.

    The graph is HNSW (Malkov and Yashunin 2018). Bounds are part of the question. Where the graph finds too few within
    them, all that they allow are looked at.
    """

    def __init__(self, database: Database, dim: int) -> None:
        self._database, self._dim = database, dim

    def candidates(self, question: Float[np.ndarray, "dim"], pool: int, where: Where, exact: bool) -> Rows:
        """In the server's order."""
        bounds, values = _bounds(where)
        query = f"SELECT {COLUMNS} FROM moments WHERE {bounds} ORDER BY latent::"
        if not exact and self._built():
            self._database.do(f"SET LOCAL hnsw.ef_search = {self._list(pool)}")
            self._database.do("SET LOCAL hnsw.iterative_scan = relaxed_order")
            half = Half(question.clip(-LONGEST, LONGEST).astype("<f2").tobytes())
            found = self._database.ask(f"{query}halfvec({self._dim}) <-> ? LIMIT ?", (*values, half, pool))
            if len(found) == pool:
                return to_rows(found, self._dim)
        # The graph is of halves: of whole numbers it cannot be asked.
        whole = json.dumps(question.astype(np.float64).tolist())
        return to_rows(self._database.ask(f"{query}vector <-> ?::vector LIMIT ?", (*values, whole, pool)), self._dim)

    def rows(self, where: Where) -> Rows:
        """In pages, as they are read from the tables."""
        bounds, values = _bounds(where)
        return self._database.columns(self._dim, bounds=bounds, values=values)

    def due(self) -> bool:
        """Once, when moments have become many; from then on the server follows by itself."""
        return self._database.told("last") > _FEW and self._dim <= _WIDEST and not self._built()

    def grow(self) -> None:
        """The first time is like any other."""
        self.sort()

    def sort(self) -> None:
        """Build the graph, if there are many."""
        self.clear()
        if self._database.count() > _FEW and self._dim <= _WIDEST:
            of = f"(latent::halfvec({self._dim})) halfvec_l2_ops"
            self._database.do(f"CREATE INDEX moments_by_likeness ON moments USING hnsw ({of})")

    def clear(self) -> None:
        """Drop the graph."""
        self._database.do("DROP INDEX IF EXISTS moments_by_likeness")

    def forget(self, numbers: Iterable[int]) -> None:
        """The server does."""

    def tidy(self) -> None:
        """The server does."""

    def wrong(self) -> list[str]:
        """Nothing that can be asked for."""
        return []

    def pool(self) -> int:
        """What the graph keeps in mind for the five that are asked for by default."""
        return self._list(0) if self._built() else 0

    def _list(self, pool: int) -> int:
        return min(max(2 * pool, _LIST[0]), _LIST[1])

    def _built(self) -> bool:
        return self._database.ask("SELECT to_regclass('moments_by_likeness') IS NOT NULL")[0][0]


def _bounds(where: Where) -> tuple[str, list[object]]:
    """What ``where`` allows, in SQL; a place that is NULL is not near anything."""
    said, values = ["true"], []
    if where.since is not None:
        said, values = [*said, "time >= ?"], [*values, where.since]
    if where.until is not None:
        said, values = [*said, "time <= ?"], [*values, where.until]
    if where.near is not None:
        x, y, z, radius = map(float, where.near)
        said.append("(x - ?) * (x - ?) + (y - ?) * (y - ?) + (z - ?) * (z - ?) <= ?")
        values += [x, x, y, y, z, z, radius**2]
    if where.episodes is not None:
        said.append("episode IN (SELECT number FROM episodes WHERE name = ANY(?))")
        values.append(list(where.episodes))
    return " AND ".join(said), values
