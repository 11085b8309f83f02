"""A memory that outlives the process: moments on disk, recalled by likeness, time and place.

A memory is a folder::

    memory.sqlite      all of it; anyone can open it with SQLite
    index/N/*.npy      latents sorted for searching; made from the database, and made anew if they are deleted
    writer.lock        held by the one process that writes
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float

from ami.memory import database
from ami.memory.index import Index
from ami.memory.moment import Moment, Recalled, Where
from ami.memory.retention import choose

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


class Memory:
    """Moments of one checkpoint. Many processes may read it while one writes.

    What ``append`` has returned from is on disk, also after a power cut. A reader sees what was written when it asks.
    """

    def __init__(self, folder: Path, write: bool) -> None:
        """Use :meth:`create` or :meth:`open`."""
        self.folder = Path(folder)
        self._database, self._lock = database.connect(self.folder, write)
        self._read_about()

    @classmethod
    def create(cls, folder: Path, about: About) -> Self:
        """Begin an empty memory in a new folder, open for writing."""
        database.create(Path(folder), asdict(about))
        return cls(folder, write=True)

    @classmethod
    def open(cls, folder: Path, *, write: bool = False) -> Self:
        """Open a memory that is there."""
        return cls(folder, write)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files, and of the right to write."""
        self._database.close()
        if self._lock is not None:
            self._lock.release()

    def __len__(self) -> int:
        with database.explained(self.folder):
            return self._database.execute("SELECT count(*) FROM moments").fetchone()[0]

    def refuse_other(self, checkpoint: str) -> None:
        """``ValueError`` unless this is the memory of the checkpoint with that digest."""
        if checkpoint != self.about.checkpoint:
            raise ValueError(
                f"{self.folder} is the memory of checkpoint {self.about.checkpoint[:12]}, and {checkpoint[:12]} "
                "perceives otherwise: bring it over with ami memory reembed, which looks at its thumbnails again"
            )

    def append(self, moments: Sequence[Moment]) -> list[int]:
        """Remember moments, all or none, and return their numbers. Where the limit is passed, some are forgotten.

        They are durable when it returns. Now and then, as the memory grows, it takes the time to sort its index.
        """
        for moment in moments:
            if len(moment.latent) != self.about.dim:
                raise ValueError(
                    f"a latent of {len(moment.latent)} numbers came; {self.folder} remembers {self.about.dim} of each"
                )
        with self._writing():
            numbers = database.insert(self._database, moments)
        limit = self.about.limit
        if limit is not None and len(self) > limit:
            self.prune(limit - limit // _ROOM)
            return numbers
        with self._reading():
            due = self._index.due(self._database)
        if due:
            self.sort()
        return numbers

    def recall(
        self,
        question: Float[np.ndarray, "dim"],
        top: int = 5,
        where: Where = Where(),  # noqa: B008 (it is frozen)
        *,
        exact: bool = False,
    ) -> list[Recalled]:
        """The ``top`` moments that are most like ``question`` among those that ``where`` allows, nearest first.

        Bounds hold before anything is ranked. Otherwise than ``exact``, one in fifty of the nearest may be missed where
        moments are many; what comes back is true in either case.
        """
        question = np.asarray(question, np.float32)
        if question.shape != (self.about.dim,):
            raise ValueError(
                f"a question of shape {question.shape} came; {self.folder} remembers {self.about.dim} numbers of each"
            )
        if not np.isfinite(question).all() or top < 1:
            raise ValueError(f"a question needs finite numbers, and 1 moment or more to ask for; {top} were asked for")
        found: list[tuple[float, int]] = []
        with self._reading():
            names = database.episode_numbers(self._database) if where.episodes is not None else {}
            for part in self._index.parts(self._database):
                rows, bounded = part.rows, where != Where()
                allowed = where.allows(rows.times, rows.places, rows.episodes, names) if bounded else None
                best = part.candidates(question, 4 * top + _POOL, allowed, exact)
                ways = rows.vectors[best].astype(np.float64) - question
                found += zip(np.linalg.norm(ways, axis=1).tolist(), rows.numbers[best].tolist(), strict=True)
            nearest = sorted(found)[:top]
            held = dict(self._named([number for _, number in nearest]))
        return [Recalled(number, distance, held[number]) for distance, number in nearest]

    def moments(self, numbers: Sequence[int] | None = None) -> Iterator[tuple[int, Moment]]:
        """Moments with their numbers, in the order in which they came: some, or all."""
        last, asked = 0, None if numbers is None else sorted(numbers)
        for first in range(0, len(asked) if asked is not None else 2**62, _BATCH):
            with self._reading():
                some = (
                    self._named(asked[first : first + _BATCH])
                    if asked is not None
                    else database.read(self._database, self.folder, after=last, limit=_BATCH)
                )
            yield from some
            if asked is None and not some:
                return
            last = some[-1][0] if some else last

    def numbers(self, where: Where) -> list[int]:
        """The numbers of all moments that ``where`` allows."""
        with self._reading():
            names = database.episode_numbers(self._database)
            parts = [part.rows for part in self._index.parts(self._database)]
        allowed = [rows.numbers[where.allows(rows.times, rows.places, rows.episodes, names)] for rows in parts]
        return np.concatenate(allowed).tolist()

    def forget(self, numbers: Collection[int]) -> int:
        """Delete moments, and every trace of them in the folder's files; how many there were."""
        with self._writing():
            rows = self._index.rows(self._database)
            gone = database.delete(self._database, numbers)
            self._index.sort(self._database, rows.taken(~np.isin(rows.numbers, list(numbers))))
        with database.explained(self.folder):
            self._index.tidy(self._database)
            database.erase(self._database, self.folder)
        return gone

    def prune(self, keep: int) -> Pruned:
        """Forget all but ``keep`` moments: the surprising stay, and the rarely seen (:mod:`ami.memory.retention`)."""
        if keep < 1:
            raise ValueError(f"{keep} moments were to be kept; keep 1 or more, or delete the folder {self.folder}")
        with self._reading():
            rows, surprise = self._index.rows(self._database), database.surprise(self._database)
        if len(rows) <= keep:
            return Pruned(len(rows), len(rows), 0.0)
        kept = choose(rows.vectors, surprise, keep, self.about.surprising, torch.Generator().manual_seed(0))
        self.forget(rows.numbers[~kept.rows].tolist())
        return Pruned(len(rows), keep, kept.radius)

    def reembed(self, about: About, perceive: Callable[[list[bytes]], Float[np.ndarray, "some dim"]]) -> None:
        """Make this the memory of another checkpoint: perceive all thumbnails anew, all or none. Its limit stays."""
        with self._writing():
            if blind := database.without_thumbnail(self._database):
                raise ValueError(
                    f"{len(blind)} moments of {self.folder} have no thumbnail to look at again; take them out first, "
                    "with ami memory forget --blind"
                )
            last = 0
            while some := database.read(self._database, self.folder, after=last, limit=_BATCH):
                latents = perceive([moment.thumbnail or b"" for _, moment in some])
                if latents.shape != (len(some), about.dim):
                    raise ValueError(f"{len(some)} latents of {about.dim} numbers were due; {latents.shape} came")
                anew = ((n, replace(moment, latent=new)) for (n, moment), new in zip(some, latents, strict=True))
                database.replace_latents(self._database, anew)
                last = some[-1][0]
            changed = replace(about, limit=self.about.limit, surprising=self.about.surprising)
            database.set_about(self._database, asdict(changed))
            index = Index(self.folder / "index", about.dim)
            index.sort(self._database, database.columns(self._database, about.dim))
        index.tidy(self._database)
        self._read_about()

    def episodes(self) -> list[str]:
        """The names of all episodes of which there is a moment."""
        with self._reading():
            return sorted(database.episode_numbers(self._database))

    def blind(self) -> list[int]:
        """The numbers of the moments that have no thumbnail."""
        with self._reading():
            return database.without_thumbnail(self._database)

    def summary(self) -> dict[str, Any]:
        """What it holds, and how it is searched: ``pool`` is 0 where all moments are looked at."""
        with self._reading():
            counted = database.counted(self._database)
            sketch = self._index.parts(self._database)[0].sketch
        return {
            **counted,
            "pool": 0 if sketch is None else sketch.pool,
            "bytes": sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file()),
        }

    def sort(self) -> None:
        """Make the index anew: recall is then as fast as it can be."""
        with self._writing():
            self._index.sort(self._database, self._index.rows(self._database))
        self._index.tidy(self._database)

    def check(self) -> list[str]:
        """Look at every byte: a sentence for each thing that is wrong, none when all is well."""
        with self._reading():
            found = [f"memory.sqlite: {said}" for said in database.broken_pages(self._database)]
            if not found:
                found += [
                    f"moment {n} is not what was written" for n in database.damaged(self._database, self.about.dim)
                ]
                found += self._index.wrong(self._database)
        return found

    def _named(self, numbers: Sequence[int]) -> list[tuple[int, Moment]]:
        return database.read(self._database, self.folder, numbers=numbers) if numbers else []

    def _read_about(self) -> None:
        with database.explained(self.folder):
            held = database.about(self._database)
        self.about = About(**{field.name: held[field.name] for field in fields(About)})
        self._index = Index(self.folder / "index", self.about.dim)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """One state of the database throughout."""
        with database.explained(self.folder), database.snapshot(self._database):
            yield

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """All or nothing."""
        if self._lock is None:
            raise ValueError(f"{self.folder} was opened for reading; open it for writing")
        with database.explained(self.folder), database.transaction(self._database):
            yield
