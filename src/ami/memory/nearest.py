"""Nearest neighbours among latents, exact or by way of a sketch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Float64, Int, Int32, Int64
from torch import Tensor

from ami import files
from ami.memory.sketch import Sketch

_FEW = 8192  # rows that are always searched exactly
_BLOCK = 2048  # rows at a time; 16 bits are widened to 32 without leaving the core's own memory


@dataclass(frozen=True, eq=False)
class Rows:
    """What is searched of moments, one row for each, in the order in which they came. What is not known is NaN."""

    numbers: Int64[np.ndarray, "rows"]
    times: Float64[np.ndarray, "rows"]
    places: Float64[np.ndarray, "rows 3"]
    turns: Float64[np.ndarray, "rows 3"]
    episodes: Int32[np.ndarray, "rows"]
    vectors: Float16[np.ndarray, "rows dim"]

    def __len__(self) -> int:
        return len(self.numbers)

    def taken(self, index: Int[np.ndarray, "some"] | Bool[np.ndarray, "rows"]) -> Rows:
        """Some of the rows, in the order of ``index``."""
        return Rows(*(array[index] for array in self.arrays()))

    def arrays(self) -> tuple[np.ndarray, ...]:
        """The fields, in order."""
        return self.numbers, self.times, self.places, self.turns, self.episodes, self.vectors

    @staticmethod
    def none(dim: int) -> Rows:
        """No rows."""
        empty = np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0, np.int32)
        return Rows(*empty, np.zeros((0, dim), np.float16))

    @staticmethod
    def joined(parts: Sequence[Rows]) -> Rows:
        """The rows of several, one after another."""
        return Rows(*map(np.concatenate, zip(*(part.arrays() for part in parts), strict=True)))


_NAMES = ("numbers", "times", "places", "turns", "episodes", "vectors")


@dataclass(frozen=True, eq=False)
class Part:
    """Rows that are searched together, and a sketch of them where they are many."""

    rows: Rows
    sketch: Sketch | None = None

    @classmethod
    def build(cls, rows: Rows, generator: torch.Generator) -> Self:
        """Sketch rows, and measure how far the sketch may be trusted."""
        if len(rows) <= _FEW:
            return cls(rows)
        return cls(rows, Sketch.build(rows.vectors, generator, lambda asked, top: nearest(rows.vectors, asked, top)))

    def candidates(
        self, question: Float[np.ndarray, "dim"], pool: int, allowed: Bool[np.ndarray, "rows"] | None, exact: bool
    ) -> Int64[np.ndarray, "some"]:
        """Rows among which the ``pool`` nearest are; none that is not allowed.

        What the sketch gives is in the order of its own distances, so dropping from it what is not allowed leaves what
        it would have given of the allowed rows alone, if enough is left. Otherwise they are searched exactly.
        """
        within = None if allowed is None else np.flatnonzero(allowed)
        count = len(self.rows) if within is None else len(within)
        if self.sketch is not None and not exact and count > _FEW:
            trusted = max(self.sketch.pool, pool)
            # Twice as many as would do if likeness and the bounds had nothing to do with each other.
            found = self.sketch.search(question, trusted if allowed is None else 2 * trusted * len(self.rows) // count)
            found = found if allowed is None else found[allowed[found]]
            if len(found) >= trusted:
                return found
        asked = torch.from_numpy(question)[None]
        if within is None:
            return nearest(self.rows.vectors, asked, pool)[0].numpy()
        best = nearest(self.rows.vectors, asked, pool, within)[0].numpy()
        return within[best]

    def write(self, folder: Path) -> None:
        """As plain arrays, to be mapped into memory."""
        for name, array in zip(_NAMES, self.rows.arrays(), strict=True):
            files.write_array(folder / f"{name}.npy", array)
        if self.sketch is not None:
            self.sketch.write(folder)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Map what was written; ``OSError`` or ``ValueError`` where it is not there or not whole."""
        # Mapped to be copied when written, which nobody does: torch warns of arrays that cannot be written.
        mapped = [np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False) for name in _NAMES]
        rows = Rows(*map(np.asarray, mapped))
        if len(set(map(len, rows.arrays()))) != 1:
            raise ValueError(f"{folder} is not whole")
        return cls(rows, Sketch.read(folder, *rows.vectors.shape))


def grown(parts: Sequence[Part], rows: Rows) -> list[Part]:
    """New rows beside parts of falling size; small parts are joined, so that each row is copied a few times only."""
    kept = list(parts)
    while kept and len(kept[-1].rows) < 2 * len(rows):
        rows = Rows.joined([kept.pop().rows, rows])
    return [*kept, Part(rows)]


def nearest(
    vectors: Float16[np.ndarray, "rows dim"],
    asked: Float[Tensor, "questions dim"],
    top: int,
    within: Int64[np.ndarray, "some"] | None = None,
) -> Int64[Tensor, "questions top"]:
    """The nearest rows to each question, the nearest first: exact but for the rounding of 32 bits.

    With ``within``, of those rows alone, and the answer counts in them.
    """
    best = torch.zeros((len(asked), 0))
    where = torch.zeros((len(asked), 0), dtype=torch.int64)
    for start, block in _blocks(vectors, within):
        ways = _distances(asked, block)
        here = torch.arange(start, start + len(block)).expand(len(asked), -1)
        if best.shape[1] >= top:  # most blocks hold nothing better
            some = (ways < best[:, -1:]).any(0).nonzero()[:, 0]
            ways, here = ways[:, some], here[:, some]
        best, order = torch.cat([best, ways], 1).sort(dim=1, stable=True)
        best, where = best[:, :top], torch.cat([where, here], 1).gather(1, order[:, :top])
    return where


def _distances(
    asked: Float[Tensor, "questions dim"], block: Float[Tensor, "block dim"]
) -> Float[Tensor, "questions block"]:
    """Where latents share a large mean, products would hide the distances by their rounding."""
    if len(asked) == 1:
        return torch.linalg.vector_norm(block.sub_(asked), dim=1)[None]
    middle = asked.mean(0)
    return torch.cdist(asked - middle, block - middle)


def _blocks(
    vectors: Float16[np.ndarray, "rows dim"], within: Int64[np.ndarray, "some"] | None
) -> Iterator[tuple[int, Float[Tensor, "block dim"]]]:
    for start in range(0, len(vectors) if within is None else len(within), _BLOCK):
        block = slice(start, start + _BLOCK)
        yield start, torch.from_numpy(vectors[block if within is None else within[block]]).float()
