"""How moments are found that SQLite keeps: in files sorted for searching, and among those that came since."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from ami.memory.database import Database, Index
from ami.memory.moment import Where
from ami.memory.nearest import Part, Rows, grown

_DUE = 8192  # rows that may have come since the last part was written; they are all looked at


@dataclass(frozen=True, eq=False)
class _Piece:
    """A part of the index: what came after the piece before it, up to the moment ``last``, and was not deleted."""

    part: Part
    last: int
    folder: int | None = None  # its number, where it is written

    def joined(self, other: _Piece) -> _Piece:
        """This and the next in one."""
        return _Piece(Part(Rows.joined([self.part.rows, other.part.rows])), other.last)


class FileIndex(Index):
    """Follows a database. Everything in it can be made from there: if its files are deleted, they are made anew.

    Parts of falling size, as a log-structured merge tree has them (O'Neil et al. 1996): what came becomes a part, and
    neighbours of like size become one, so that each row is written anew a few times only, however many there are. A
    part is a folder with a number that is never given twice, written before the transaction that names it is committed:
    a reader finds the files that belong to what it reads, or, where they were just replaced, reads the database itself.
    """

    def __init__(self, database: Database, folder: Path, dim: int) -> None:
        self._database, self._folder, self._dim = database, folder, dim
        self._named: list[list[int]] = []  # number and last moment of each part, as the database has them
        self._sorted: list[_Piece] = []
        self._young: list[Part] = []

    def candidates(self, question: Float[np.ndarray, "dim"], pool: int, where: Where, exact: bool) -> Rows:
        """Of each part, as many as are needed."""
        found = [Rows.none(self._dim)]
        for part in self._parts():
            rows = part.rows
            allowed = (
                None if where == Where() else where.allows(rows.times, rows.places, rows.episodes, self._names(where))
            )
            found.append(rows.taken(part.candidates(question, pool, allowed, exact)))
        return Rows.joined(found)

    def rows(self, where: Where) -> Rows:
        """Of each part, all that are allowed."""
        parts = [part.rows for part in self._parts()]
        if where == Where():
            return Rows.joined([Rows.none(self._dim), *parts])
        names = self._names(where)
        allowed = [each.taken(where.allows(each.times, each.places, each.episodes, names)) for each in parts]
        return Rows.joined([Rows.none(self._dim), *allowed])

    def due(self) -> bool:
        """Whether much has come, or files were lost."""
        self._parts()
        return sum(len(part.rows) for part in self._young) > _DUE or any(each.folder is None for each in self._sorted)

    def grow(self) -> None:
        """Make a part of what came, and one of neighbours of like size."""
        self._write(self._pieces())

    def sort(self) -> None:
        """Make one part of everything."""
        first, *others = self._pieces()
        for piece in others:
            first = first.joined(piece)
        self._write([_Piece(first.part, first.last)])

    def clear(self) -> None:
        """Name no part."""
        self._database.set_about({"parts": []})

    def forget(self, numbers: Iterable[int]) -> None:
        """Write those parts anew that lose something."""
        going, left = np.array(list(numbers), np.int64), []
        for piece in self._pieces():
            stays = ~np.isin(piece.part.rows.numbers, going)
            left.append(piece if stays.all() else _Piece(Part(piece.part.rows.taken(stays)), piece.last))
        self._write(left)

    def tidy(self) -> None:
        """Delete the folders of former parts."""
        current = {str(number) for number, _ in self._database.told("parts")}
        for folder in self._folder.iterdir() if self._folder.is_dir() else ():
            if folder.name not in current:
                shutil.rmtree(folder)

    def wrong(self) -> list[str]:
        """Compares all files with the database; those that are lost are no harm."""
        after, found = 0, []
        for number, last in self._database.told("parts"):
            folder, true = self._folder / str(number), self._database.columns(self._dim, after, last)
            held, after = self._read(number), last
            if held is not None and not _same(held.rows, true):
                found.append(
                    f"{folder} is not what was written; delete that folder, and the next to write makes it anew"
                )
        return found

    def pool(self) -> int:
        """Of all parts together."""
        return sum(part.sketch.pool for part in self._parts() if part.sketch is not None)

    def _parts(self) -> list[Part]:
        """All rows that there are at this point of a transaction."""
        named = self._database.told("parts")
        if named != self._named:
            held = {piece.folder: piece for piece in self._sorted if piece.folder is not None}
            starts = [0, *(last for _, last in named)]
            self._sorted = [
                held[number] if number in held else self._piece(number, after, last)
                for after, (number, last) in zip(starts, named, strict=False)
            ]
            self._named, self._young = named, []
        came = self._database.columns(self._dim, self._last())
        if len(came):
            self._young = grown(self._young, came)
        return [*(piece.part for piece in self._sorted), *self._young]

    def _pieces(self) -> list[_Piece]:
        """The same, what came since in one piece."""
        self._parts()
        return [
            *self._sorted,
            _Piece(Part(Rows.joined([Rows.none(self._dim), *(each.rows for each in self._young)])), self._last()),
        ]

    def _last(self) -> int:
        """The last moment that is known."""
        return int(self._young[-1].rows.numbers[-1]) if self._young else self._named[-1][1] if self._named else 0

    def _names(self, where: Where) -> dict[str, int]:
        return {} if where.episodes is None else self._database.episodes()

    def _write(self, pieces: Iterable[_Piece]) -> None:
        """Write what is not written yet, inside a transaction that makes the pieces all there is."""
        kept: list[_Piece] = []
        for piece in pieces:
            while kept and len(kept[-1].part.rows) <= 2 * len(piece.part.rows):
                piece = kept.pop().joined(piece)
            kept.append(piece)
        number, named = max((number for number, _ in self._named), default=0), []
        self._named = []  # what is written is mapped when it is read next
        for piece in kept:
            if piece.folder is None:
                number += 1
                folder = self._folder / str(number)
                shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed before it could commit
                Part.build(piece.part.rows, torch.Generator().manual_seed(number)).write(folder)
            named.append([number if piece.folder is None else piece.folder, piece.last])
        self._database.set_about({"parts": named})

    def _piece(self, number: int, after: int, last: int) -> _Piece:
        """As it was written, or from the database, which has it all."""
        held = self._read(number)
        return (
            _Piece(Part(self._database.columns(self._dim, after, last)), last)
            if held is None
            else _Piece(held, last, number)
        )

    def _read(self, number: int) -> Part | None:
        """``None`` where it was just replaced, or is not whole."""
        try:
            held = Part.read(self._folder / str(number))
        except (OSError, ValueError):
            return None
        return held if held.rows.vectors.shape[1] == self._dim else None


def _same(held: Rows, true: Rows) -> bool:
    pairs = zip(held.arrays(), true.arrays(), strict=True)
    return all(one.shape == other.shape and one.tobytes() == other.tobytes() for one, other in pairs)
