"""A memory that outlives the process: moments in a database, recalled by likeness, time and place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Int

from ami.memory.database import Database
from ami.memory.moment import Moment, Recalled, Where
from ami.memory.nearest import Rows
from ami.memory.retention import choose
from ami.memory.sqlite import SQLite

_POOL = 64  # candidates, besides four for each moment asked for, that are compared in 64 bits
_ROOM = 8  # where a limit is passed, one in so many goes
_BATCH = 1024  # moments read, or perceived anew, at a time


@dataclass(frozen=True)
class About:
    """Whose memory it is: latents mean something to one checkpoint only."""

    checkpoint: str  # its digest
    embodiment: str
    dim: int  # numbers in a latent
    folder: str = ""  # where the checkpoint lay
    limit: int | None = None  # moments that it holds at most; None: as many as the disk
    surprising: float = 0.25  # share of what is kept that is kept for its surprise

    def __post_init__(self) -> None:
        if self.dim < 1 or (self.limit is not None and self.limit < _ROOM) or not 0 <= self.surprising <= 1:
            raise ValueError(
                f"a memory of latents of {self.dim} numbers, at most {self.limit} moments and a surprising share of "
                f"{self.surprising:g} cannot be: it needs 1 number, {_ROOM} moments and a share of 0 to 1"
            )


@dataclass(frozen=True)
class Pruned:
    """What a pruning did. Nothing went that was farther than ``radius`` (Euclid) from all that stayed."""

    before: int
    after: int
    radius: float


def kind(where: Path | str) -> type[Database]:
    """What a memory is kept in that is named so: a folder, or ``postgresql://HOST/DATABASE#NAME``."""
    if not str(where).startswith(("postgresql://", "postgres://")):
        return SQLite
    try:
        from ami.memory.postgres import Postgres
    except ImportError:
        raise ValueError(
            "a memory on PostgreSQL needs psycopg, which is not installed; get it with pip install 'openami[postgres]'"
        ) from None
    return Postgres


class Memory:
    """Moments of one checkpoint. Many processes may read it while one writes.

    What ``append`` has returned from is on disk, also after a power cut. A reader sees what was written when it asks.
    """

    def __init__(self, database: Database) -> None:
        """Use :meth:`create` or :meth:`open`."""
        self._database, self.name = database, database.name
        self._read_about()

    @classmethod
    def create(cls, where: Path | str, about: About) -> Self:
        """Begin an empty memory where nothing is, open for writing."""
        kind(where).create(str(where), asdict(about))
        return cls.open(where, write=True)

    @classmethod
    def open(cls, where: Path | str, *, write: bool = False) -> Self:
        """Open a memory that is there."""
        return cls(kind(where).open(str(where), write))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it, and of the right to write."""
        self._database.close()

    def __len__(self) -> int:
        with self._database.reading():
            return self._database.count()

    def refuse_other(self, checkpoint: str) -> None:
        """``ValueError`` unless this is the memory of the checkpoint with that digest."""
        if checkpoint != self.about.checkpoint:
            raise ValueError(
                f"{self.name} is the memory of checkpoint {self.about.checkpoint[:12]}, and {checkpoint[:12]} "
                "perceives otherwise: bring it over with ami memory reembed, which looks at its thumbnails again"
            )

    def append(self, moments: Sequence[Moment]) -> list[int]:
        """Remember moments, all or none, and return their numbers. Where the limit is passed, some are forgotten.

        They are durable when it returns. Now and then, as the memory grows, it takes the time to sort its index.
        """
        for moment in moments:
            if len(moment.latent) != self.about.dim:
                raise ValueError(
                    f"a latent of {len(moment.latent)} numbers came; {self.name} remembers {self.about.dim} of each"
                )
        with self._database.writing():
            numbers = self._database.insert(moments)
        limit = self.about.limit
        if limit is not None and len(self) > limit:
            self.prune(limit - limit // _ROOM)
            return numbers
        with self._database.reading():
            due = self._index.due()
        if due:
            self._arrange(self._index.grow)
        return numbers

    def recall(
        self,
        question: Float[np.ndarray, "dim"],
        top: int = 5,
        where: Where = Where(),  # noqa: B008 (it is frozen)
        *,
        apart: float = 0.0,
        exact: bool = False,
    ) -> list[Recalled]:
        """The ``top`` moments that are most like ``question`` among those that ``where`` allows, nearest first.

        Bounds hold before anything is ranked. Who is less than ``apart`` seconds from one of the same episode that is
        more like the question is passed over. Otherwise than ``exact``, one in fifty of the nearest may be missed where
        moments are many; what comes back is true in either case.
        """
        question = np.asarray(question, np.float32)
        if question.shape != (self.about.dim,):
            raise ValueError(
                f"a question of shape {question.shape} came; {self.name} remembers {self.about.dim} numbers of each"
            )
        if not np.isfinite(question).all() or top < 1 or not apart >= 0:
            raise ValueError(
                f"a question needs finite numbers, 1 moment or more to ask for and a time of 0 s or more between them; "
                f"{top} were asked for, {apart:g} s apart"
            )
        with self._database.reading():
            pool = 4 * top + _POOL
            while True:
                rows = self._index.candidates(question, pool, where, exact)
                ways = np.linalg.norm(rows.vectors.astype(np.float64) - question, axis=1)
                nearest = _apart(rows, np.lexsort((rows.numbers, ways)), top, apart)
                if len(nearest) == top or not apart or exact or pool >= self._database.count():
                    break
                pool *= 4  # one long look at the same thing filled it
            numbers = rows.numbers[nearest].tolist()
            held = dict(self._named(numbers))
        return [Recalled(n, way, held[n]) for n, way in zip(numbers, ways[nearest].tolist(), strict=True)]

    def rows(self, where: Where = Where(), most: int | None = None) -> Rows:  # noqa: B008 (it is frozen)
        """Latents, times, poses and episodes of all moments that ``where`` allows, the newest first, at most ``most``.

        For what needs many at once: everything but the thumbnails, in arrays (:func:`ami.memory.moment.poses` makes
        matrices of places and turns). The newest is that of the latest time; of the same time, the last that came.
        """
        with self._database.reading():
            rows = self._index.rows(where)
        return rows.taken(np.lexsort((rows.numbers, rows.times))[::-1][:most])

    def moments(self, numbers: Sequence[int] | None = None) -> Iterator[tuple[int, Moment]]:
        """Moments with their numbers: those named, in the order named, or all, in the order in which they came."""
        if numbers is not None:
            for first in range(0, len(numbers), _BATCH):
                asked = [int(number) for number in numbers[first : first + _BATCH]]
                with self._database.reading():
                    held = dict(self._named(asked))
                yield from ((number, held[number]) for number in asked if number in held)
            return
        last = 0
        while True:
            with self._database.reading():
                some = self._database.read(after=last, limit=_BATCH)
            if not some:
                return
            yield from some
            last = some[-1][0]

    def forget(self, numbers: Collection[int]) -> int:
        """Delete moments, and every trace of them in what the memory is kept in; how many there were."""
        with self._database.writing():
            self._index.forget(numbers)
            gone = self._database.delete(numbers)
        with self._database.reading():
            self._index.tidy()
        self._database.erase()
        return gone

    def prune(self, keep: int) -> Pruned:
        """Forget all but ``keep`` moments: the surprising stay, and the rarely seen (:mod:`ami.memory.retention`)."""
        if keep < 1:
            raise ValueError(f"{keep} moments were to be kept; keep 1 or more, or delete the memory {self.name}")
        with self._database.reading():
            rows, surprise = self._index.rows(Where()), self._database.surprise()
        if len(rows) <= keep:
            return Pruned(len(rows), len(rows), 0.0)
        kept = choose(rows.vectors, surprise, keep, self.about.surprising, torch.Generator().manual_seed(0))
        self.forget(rows.numbers[~kept.rows].tolist())
        return Pruned(len(rows), keep, kept.radius)

    def reembed(self, about: About, perceive: Callable[[list[bytes]], Float[np.ndarray, "some dim"]]) -> None:
        """Make this the memory of another checkpoint: perceive all thumbnails anew, all or none. Its limit stays."""
        database = self._database
        with database.writing():
            if blind := database.blind():
                raise ValueError(
                    f"{len(blind)} moments of {self.name} have no thumbnail to look at again; take them out first, "
                    "with ami memory forget --blind"
                )
            self._index.clear()
            last = 0
            while some := database.read(after=last, limit=_BATCH):
                latents = perceive([moment.thumbnail or b"" for _, moment in some])
                if latents.shape != (len(some), about.dim):
                    raise ValueError(f"{len(some)} latents of {about.dim} numbers were due; {latents.shape} came")
                anew = ((n, replace(moment, latent=new)) for (n, moment), new in zip(some, latents, strict=True))
                database.replace_latents(anew)
                last = some[-1][0]
            changed = replace(about, limit=self.about.limit, surprising=self.about.surprising)
            database.set_about(asdict(changed))
            database.index(about.dim).sort()
        self._read_about()
        with database.reading():
            self._index.tidy()

    def episodes(self) -> list[str]:
        """The names of all episodes of which there is a moment."""
        with self._database.reading():
            return sorted(self._database.episodes())

    def blind(self) -> list[int]:
        """The numbers of the moments that have no thumbnail."""
        with self._database.reading():
            return self._database.blind()

    def summary(self) -> dict[str, Any]:
        """What it holds, and how it is searched: ``pool`` is 0 where all moments are looked at."""
        with self._database.reading():
            return {**self._database.counted(), "pool": self._index.pool(), "bytes": self._database.size()}

    def sort(self) -> None:
        """Make the index anew: recall is then as fast as it can be."""
        self._arrange(self._index.sort)

    def check(self) -> list[str]:
        """Look at every byte: a sentence for each thing that is wrong, none when all is well."""
        with self._database.reading():
            if found := self._database.broken():
                return found
            damaged = [f"moment {n} is not what was written" for n in self._database.damaged(self.about.dim)]
            return damaged + self._index.wrong()

    def _arrange(self, how: Callable[[], None]) -> None:
        with self._database.writing():
            how()
        with self._database.reading():
            self._index.tidy()

    def _named(self, numbers: Sequence[int]) -> list[tuple[int, Moment]]:
        return self._database.read(numbers=numbers) if numbers else []

    def _read_about(self) -> None:
        with self._database.reading():
            held = self._database.about()
        self.about = About(**{field.name: held[field.name] for field in fields(About)})
        self._index = self._database.index(self.about.dim)


def _apart(rows: Rows, order: Int[np.ndarray, "rows"], top: int, seconds: float) -> list[int]:
    """The first ``top`` of ``order`` that are so far, in time, from those of their episode that came before them."""
    chosen: list[int] = []
    for row in order.tolist():
        same = [one for one in chosen if rows.episodes[one] == rows.episodes[row]]
        if not (np.abs(rows.times[same] - rows.times[row]) < seconds).any():
            chosen.append(row)
        if len(chosen) == top:
            break
    return chosen
