"""What is held of a memory for searching: rows sorted in files, and those that came since, read from the database."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import torch

from ami.memory import database
from ami.memory.nearest import Part, Rows, grown

_YOUNG, _DUE = 16384, 8  # it is due to be sorted when more rows than these, and an eighth of it, have come since


class Index:
    """Follows a database. Everything in it can be made from there: if its files are deleted, they are made anew.

    Each sorting is a folder with a number of its own, written before the transaction that names it is committed: a
    reader finds the files that belong to what it reads, or, where they were just replaced, reads the database itself.
    """

    def __init__(self, folder: Path, dim: int) -> None:
        self._folder, self._dim = folder, dim
        self._generation: int | None = None
        self._sorted = Part(Rows.none(dim))
        self._young: list[Part] = []

    def parts(self, connection: sqlite3.Connection) -> list[Part]:
        """All rows that there are at this point of a transaction."""
        generation = database.generation(connection)
        if generation != self._generation:
            self._generation, self._sorted, self._young = generation, self._read(generation), []
        last = max((int(part.rows.numbers.max(initial=0)) for part in (self._sorted, *self._young[-1:])), default=0)
        came = database.columns(connection, self._dim, last)
        if len(came):
            self._young = grown(self._young, came)
        return [self._sorted, *self._young]

    def rows(self, connection: sqlite3.Connection) -> Rows:
        """The same in one, in the order in which they came."""
        rows = Rows.joined([part.rows for part in self.parts(connection)])
        return rows.taken(rows.numbers.argsort())

    def due(self, connection: sqlite3.Connection) -> bool:
        """Whether so much has come that sorting pays."""
        before, *since = (len(part.rows) for part in self.parts(connection))
        return sum(since) > _YOUNG + before // _DUE

    def sort(self, connection: sqlite3.Connection, rows: Rows) -> None:
        """Write ``rows`` sorted, inside a transaction that makes them all there is."""
        number = database.generation(connection) + 1
        folder, self._generation = self._folder / str(number), None
        shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed before it could commit
        Part.build(rows, torch.Generator().manual_seed(number)).write(folder)
        database.set_about(connection, {"generation": number})

    def tidy(self, connection: sqlite3.Connection) -> None:
        """Delete the files of former sortings."""
        current = str(database.generation(connection))
        for folder in self._folder.iterdir() if self._folder.is_dir() else ():
            if folder.name != current:
                shutil.rmtree(folder)

    def wrong(self, connection: sqlite3.Connection) -> list[str]:
        """What in the files is not as in the database, in a sentence; the database is right."""
        held = self._read(database.generation(connection)).rows
        held = held.taken(held.numbers.argsort(kind="stable"))
        true = database.columns(connection, self._dim)
        true = true.taken(true.numbers <= held.numbers.max(initial=0))
        pairs = zip(held.arrays(), true.arrays(), strict=True)
        if all(one.shape == other.shape and one.tobytes() == other.tobytes() for one, other in pairs):
            return []
        return [f"{self._folder} is not what was written; delete that folder, and the next to write makes it anew"]

    def _read(self, generation: int) -> Part:
        try:
            held = Part.read(self._folder / str(generation))
        except (OSError, ValueError):  # none yet, or just replaced, or not whole: the database has it all
            return Part(Rows.none(self._dim))
        return held if held.rows.vectors.shape[1] == self._dim else Part(Rows.none(self._dim))
