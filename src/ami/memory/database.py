"""What a memory asks of the database that it is kept in; the tables, and most questions, are the same in all."""

from __future__ import annotations

import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Self

import numpy as np
from jaxtyping import Float64

from ami.memory.moment import Moment, Where
from ami.memory.nearest import Rows

_TOGETHER = 65536  # rows that are read, or written, at a time
_SAID = "time, x, y, z, a, b, c, episode, source, surprise"  # a b c: the turn
_WHOLE = f"""
    SELECT moments.number, {_SAID}, latent, checksum, picture, episodes.name
    FROM moments JOIN episodes ON episodes.number = episode LEFT JOIN thumbnails ON moment = moments.number
"""
# What is kept beside the moments, so that no step takes longer where they are many: how many there are, the number that
# was given last, and the parts of the index.
BEGUN: dict[str, object] = {"count": 0, "last": 0, "parts": []}
COLUMNS = "number, time, x, y, z, a, b, c, episode, latent"  # what is searched, in the order of ``to_rows``


class Database(ABC):
    """Moments in tables, open for reading, or for writing by one process at a time.

    The SQL here is what SQLite and PostgreSQL both understand, with ``?`` for values. All of it is asked inside
    :meth:`reading` or :meth:`writing`.
    """

    name: str  # what sentences call it

    @classmethod
    @abstractmethod
    def called(cls, where: str) -> str:
        """What sentences call it that is named so."""

    @classmethod
    @abstractmethod
    def create(cls, where: str, about: Mapping[str, object]) -> None:
        """Make an empty one where nothing is; whoever sees it sees a whole one."""

    @classmethod
    @abstractmethod
    def open(cls, where: str, write: bool) -> Self:
        """Open one; one of an older schema is brought to this one, if it may be written."""

    @classmethod
    @abstractmethod
    def exists(cls, where: str) -> bool:
        """Whether something is there, a memory or not."""

    @classmethod
    @abstractmethod
    def destroy(cls, where: str) -> None:
        """Delete it, with all that it holds."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it, and of the right to write."""

    @abstractmethod
    def reading(self) -> AbstractContextManager[None]:
        """One state of the database throughout, whatever is written meanwhile."""

    @abstractmethod
    def writing(self) -> AbstractContextManager[None]:
        """All or nothing of what is done inside; durable afterwards."""

    @abstractmethod
    def index(self, dim: int) -> Index:
        """How moments of so many numbers are found in it."""

    @abstractmethod
    def erase(self) -> None:
        """Leave nothing of what was deleted; outside any transaction."""

    @abstractmethod
    def broken(self) -> list[str]:
        """What the database itself finds wrong, in sentences."""

    @abstractmethod
    def size(self) -> int:
        """Bytes that it takes."""

    @abstractmethod
    def ask(self, sql: str, values: Sequence[object] = ()) -> list[tuple]:
        """The answers to one question."""

    @abstractmethod
    def many(self, sql: str, values: Iterable[Sequence[object]]) -> int:
        """Do the same for each of many values; how many rows were changed."""

    @abstractmethod
    def do(self, sql: str) -> None:
        """What has no answer."""

    def latent(self, held: bytes) -> object:
        """A latent's 16-bit numbers as a value of SQL."""
        return held

    def about(self) -> dict[str, Any]:
        """What the memory says of itself."""
        return {name: json.loads(value) for name, value in self.ask("SELECT name, value FROM about")}

    def set_about(self, changed: Mapping[str, object]) -> None:
        """Change some of that."""
        sql = "INSERT INTO about VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        self.many(sql, [(name, json.dumps(value)) for name, value in changed.items()])

    def told(self, name: str) -> Any:
        """One thing of that."""
        ((value,),) = self.ask("SELECT value FROM about WHERE name = ?", (name,))
        return json.loads(value)

    def insert(self, moments: Sequence[Moment]) -> list[int]:
        """Add moments; their numbers, which are never given twice: a deleted one is not found under another's."""
        episodes = {name: self._episode(name) for name in sorted({moment.episode for moment in moments})}
        first = self.told("last") + 1
        rows = []
        for number, moment in enumerate(moments, start=first):
            place, turn = moment.place or (None,) * 3, moment.turn or (None,) * 3
            *numbers, surprise = (_number(value) for value in (moment.time, *place, *turn, moment.surprise))
            said = (*numbers, episodes[moment.episode], moment.source, surprise)
            latent = moment.latent.astype("<f2").tobytes()
            rows.append((number, *said, self.latent(latent), _checksum(said, latent, moment.thumbnail)))
        self.many(f"INSERT INTO moments (number, {_SAID}, latent, checksum) VALUES ({_marks(13)})", rows)
        pictures = [(number, each.thumbnail) for number, each in enumerate(moments, start=first) if each.thumbnail]
        self.many("INSERT INTO thumbnails VALUES (?, ?)", pictures)
        self.set_about({"last": first + len(moments) - 1, "count": self.count() + len(moments)})
        return list(range(first, first + len(moments)))

    def delete(self, numbers: Iterable[int]) -> int:
        """Delete moments; how many there were."""
        named = [(int(number),) for number in set(numbers)]
        self.many("DELETE FROM thumbnails WHERE moment = ?", named)
        gone = self.many("DELETE FROM moments WHERE number = ?", named)
        self.do("DELETE FROM episodes WHERE number NOT IN (SELECT episode FROM moments)")
        self.set_about({"count": self.count() - gone})
        return gone

    def replace_latents(self, moments: Iterable[tuple[int, Moment]]) -> None:
        """Give moments the latents that they come with; the rest of them stays."""
        rows = []
        for number, moment in moments:
            (said,) = self.ask(f"SELECT {_SAID} FROM moments WHERE number = ?", (number,))
            latent = moment.latent.astype("<f2").tobytes()
            rows.append((self.latent(latent), _checksum(said, latent, moment.thumbnail), number))
        self.many("UPDATE moments SET latent = ?, checksum = ? WHERE number = ?", rows)

    def read(self, *, after: int = 0, limit: int = 1, numbers: Sequence[int] = ()) -> list[tuple[int, Moment]]:
        """Moments with their numbers: those named or, in their order, at most ``limit`` that came after one.

        Each is checked against what was written.
        """
        found = []
        for number, *said, latent, written, picture, episode in self._whole(after, limit, numbers):
            if _checksum(said, latent, picture) != written:
                raise ValueError(
                    f"moment {number} of {self.name} is damaged: it is not what was written; ami memory check names "
                    "all such, and ami memory forget --moments takes them out"
                )
            time, x, y, z, a, b, c, _, source, surprise = said
            place, turn = None if x is None else (x, y, z), None if a is None else (a, b, c)
            held = Moment(np.frombuffer(latent, "<f2"), time, place, episode, source, surprise, picture, turn)
            found.append((number, held))
        return found

    def damaged(self, dim: int) -> list[int]:
        """The numbers of all moments that are not what was written."""
        found, last = [], 0
        while some := self._whole(last, 4096, ()):
            for number, *said, latent, written, picture, _ in some:
                if len(latent) != 2 * dim or _checksum(said, latent, picture) != written:
                    found.append(number)
            last = some[-1][0]
        return found

    def _whole(self, after: int, limit: int, numbers: Sequence[int]) -> list[tuple]:
        # More names than SQLite takes in one question are never asked for: they are the top few of a recall.
        which, limit = (f"IN ({_marks(len(numbers))})", len(numbers)) if numbers else ("> ?", limit)
        sql = f"{_WHOLE} WHERE moments.number {which} ORDER BY moments.number LIMIT ?"
        return self.ask(sql, (*(numbers or (after,)), limit))

    def count(self) -> int:
        """How many moments there are."""
        return self.told("count")

    def counted(self) -> dict[str, int | float | None]:
        """How much there is, and from when to when."""
        query = "SELECT count(*), count(DISTINCT episode), min(time), max(time), count(x) FROM moments"
        names = "moments", "episodes", "since", "until", "with_place"
        return dict(zip(names, self.ask(query)[0], strict=True))

    def _episode(self, name: str) -> int:
        """An episode's number, given to it now where it has none."""
        if known := self.ask("SELECT number FROM episodes WHERE name = ?", (name,)):
            return known[0][0]
        ((number,),) = self.ask("SELECT coalesce(max(number), 0) + 1 FROM episodes")
        self.many("INSERT INTO episodes VALUES (?, ?)", [(number, name)])
        return number

    def episodes(self) -> dict[str, int]:
        """Each episode's number."""
        return dict(self.ask("SELECT name, number FROM episodes"))

    def blind(self) -> list[int]:
        """The numbers of the moments that have no thumbnail."""
        query = "SELECT number FROM moments WHERE number NOT IN (SELECT moment FROM thumbnails) ORDER BY number"
        return [number for (number,) in self.ask(query)]

    def surprise(self) -> Float64[np.ndarray, "moments"]:
        """How surprising each moment was, in their order; NaN where it is not known."""
        return np.array([value for (value,) in self.ask("SELECT surprise FROM moments ORDER BY number")], np.float64)

    def columns(
        self, dim: int, after: int = 0, until: int = 2**62, bounds: str = "true", values: Sequence[object] = ()
    ) -> Rows:
        """What is searched of the moments whose numbers are above ``after`` and at most ``until``, in their order.

        ``bounds`` are more, in SQL, with their ``values``.
        """
        query = f"SELECT {COLUMNS} FROM moments WHERE number > ? AND number <= ? AND {bounds}"
        parts = [Rows.none(dim)]
        while some := self.ask(f"{query} ORDER BY number LIMIT {_TOGETHER}", (after, until, *values)):
            parts.append(to_rows(some, dim))
            after = some[-1][0]
        return Rows.joined(parts)


class Index(ABC):
    """How moments are found. Its methods are called inside a transaction of the database."""

    @abstractmethod
    def candidates(self, question: np.ndarray, pool: int, where: Where, exact: bool) -> Rows:
        """Moments among which the ``pool`` nearest are; none that ``where`` does not allow."""

    @abstractmethod
    def rows(self, where: Where) -> Rows:
        """All moments that ``where`` allows, in the order in which they came."""

    @abstractmethod
    def due(self) -> bool:
        """Whether so much has come that it pays to :meth:`grow`."""

    @abstractmethod
    def grow(self) -> None:
        """Take in what came."""

    @abstractmethod
    def sort(self) -> None:
        """Begin anew, as good as it can be."""

    @abstractmethod
    def clear(self) -> None:
        """Hold nothing: all latents are about to be others."""

    @abstractmethod
    def forget(self, numbers: Iterable[int]) -> None:
        """Leave out moments that are being deleted."""

    @abstractmethod
    def wrong(self) -> list[str]:
        """What in it is not as in the tables, in sentences; the tables are right."""

    @abstractmethod
    def pool(self) -> int:
        """How many moments it points to for a question; 0 where all are looked at."""

    @abstractmethod
    def tidy(self) -> None:
        """Delete what it does not need any more, when the transaction that saw to that is over."""


def to_rows(found: Sequence[tuple], dim: int) -> Rows:
    """Answers to a question for ``COLUMNS`` as arrays."""
    if not found:
        return Rows.none(dim)
    number, time, x, y, z, a, b, c, episode, latent = zip(*found, strict=True)
    places, turns = np.array([x, y, z], np.float64).T, np.array([a, b, c], np.float64).T  # NULL becomes NaN
    vectors = np.frombuffer(bytearray().join(latent), "<f2").reshape(-1, dim)
    return Rows(np.array(number), np.array(time), places, turns, np.array(episode, np.int32), vectors)


def _checksum(said: Sequence[object], latent: bytes, thumbnail: bytes | None) -> int:
    """Over all of a moment: a database does not notice a flipped bit inside a value."""
    return zlib.crc32(thumbnail or b"", zlib.crc32(latent, zlib.crc32(repr(tuple(said)).encode())))


def _number(value: float | None) -> float | None:
    """A number as SQLite gives it back, which keeps no sign of a zero."""
    return None if value is None else float(value) + 0.0


def _marks(count: int) -> str:
    return ", ".join("?" * count)
