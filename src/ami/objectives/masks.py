"""Which tokens of a clip are hidden from the encoder, to be predicted from the rest.

A clip's tokens are numbered slot by slot (a *slot* is a step of the model: one tubelet of every patch), row by row. All
rows of a batch hide the same number of tokens, so that a batch is a plain tensor; *which* ones differs from row to row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

_TRIES = 100  # to place a row's rectangles so that something is left to see


@dataclass(frozen=True)
class Mask:
    """Token numbers in ascending order; the two never overlap."""

    visible: Int[Tensor, "batch kept"]
    hidden: Int[Tensor, "batch masked"]

    @property
    def ratio(self) -> float:
        """The share of hidden tokens among those that are used."""
        kept, masked = self.visible.shape[1], self.hidden.shape[1]
        return masked / (kept + masked)

    def rows(self, index: slice) -> Mask:
        """Some of the rows: a process's part of the global batch."""
        return Mask(self.visible[index], self.hidden[index])

    def to(self, device: torch.device) -> Mask:
        """The same mask on another device."""
        return Mask(self.visible.to(device), self.hidden.to(device))


@dataclass(frozen=True)
class Grid:
    """How a clip is cut in tokens."""

    slots: int
    rows: int
    columns: int

    @property
    def tokens(self) -> int:
        """Of one slot."""
        return self.rows * self.columns


@dataclass(frozen=True)
class Blocks:
    """Hide rectangles through the whole clip: what a still patch shows cannot then be copied from another moment.

    ``share`` is the part of the picture that one rectangle covers, ``aspect`` its least and greatest height over width.
    Source: Bardes et al. 2024, "V-JEPA", section 3.2: short-range masks are 8 blocks of 0.15, long-range 2 of 0.7.
    """

    count: int = 8
    share: float = 0.15
    aspect: tuple[float, float] = (0.75, 1.5)

    def draw(self, batch: int, grid: Grid, generator: torch.Generator) -> Mask:
        """The height and width are drawn once for the batch, the places for each row and block.

        Rectangles overlap by chance, so rows cover differing numbers of tokens: each gives up some of its visible and
        some of its hidden tokens, at random, down to the fewest of any row. A row of which nothing would be left to see
        (two blocks of 0.7 can cover all) is placed anew, and ``ValueError`` says where that does not help.
        """
        sides = self._sides(grid, generator)
        covered = self._covered(batch, grid, sides, generator)
        for _ in range(_TRIES):
            if not len(blind := covered.all(1).nonzero()[:, 0]):
                break
            covered[blind] = self._covered(len(blind), grid, sides, generator)
        fewest_hidden, fewest_visible = int(covered.sum(1).min()), int((~covered).sum(1).min())
        if not fewest_visible or not fewest_hidden:
            raise ValueError(
                f"{self.count} blocks of {self.share:g} of {grid.rows} x {grid.columns} tokens leave nothing to "
                f"{'predict' if fewest_visible else 'see'}; choose other blocks or smaller patches"
            )
        shuffled = torch.rand(covered.shape, generator=generator)
        hidden = (shuffled - 2.0 * covered).argsort(1)[:, :fewest_hidden]
        visible = (shuffled + 2.0 * covered).argsort(1)[:, :fewest_visible]
        return Mask(*(_through_time(part.sort(1).values, grid) for part in (visible, hidden)))

    def _covered(
        self, batch: int, grid: Grid, sides: tuple[int, int], generator: torch.Generator
    ) -> Bool[Tensor, "batch places"]:
        """Whether any rectangle of these sides, each put somewhere, lies over a place of the picture."""
        height, width = sides
        rows, columns = torch.arange(grid.rows), torch.arange(grid.columns)
        place = torch.rand(2, batch, self.count, 1, generator=generator)
        top, left = (place[0] * (grid.rows - height + 1)).long(), (place[1] * (grid.columns - width + 1)).long()
        tall, wide = (rows >= top) & (rows < top + height), (columns >= left) & (columns < left + width)
        return (tall[..., :, None] & wide[..., None, :]).any(1).flatten(1)

    def _sides(self, grid: Grid, generator: torch.Generator) -> tuple[int, int]:
        low, high = self.aspect
        aspect = low * (high / low) ** float(torch.rand((), generator=generator))  # a tall block is as likely as a wide
        area = self.share * grid.tokens
        height, width = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        return min(max(height, 1), grid.rows), min(max(width, 1), grid.columns)


@dataclass(frozen=True)
class Slots:
    """Hide whole slots: the end of a clip, its beginning, or any. Small movers cannot then be filled in from beside.

    With few large tokens, a tube mask hides either all of a mover or none of it, and nothing can be learned.
    """

    hidden: int  # slots
    ends: float = 0.35  # how often the last slots are hidden; as often the first ones, and otherwise any

    def draw(self, batch: int, grid: Grid, generator: torch.Generator) -> Mask:
        """``ValueError`` where no slot would be left to see."""
        if not 0 < self.hidden < grid.slots:
            raise ValueError(
                f"{self.hidden} of {grid.slots} slots cannot be hidden; at least one is seen and one hidden"
            )
        any_order = torch.rand(batch, grid.slots, generator=generator).argsort(1)
        forth = torch.arange(grid.slots).expand(batch, -1)
        kind = torch.rand(batch, 1, generator=generator)
        order = torch.where(kind < self.ends, forth, torch.where(kind < 2 * self.ends, forth.flip(1), any_order))
        seen = grid.slots - self.hidden
        tokens = torch.arange(grid.tokens)
        parts = (part.sort(1).values[..., None] * grid.tokens + tokens for part in (order[:, :seen], order[:, seen:]))
        return Mask(*(part.flatten(1) for part in parts))


Masking = Blocks | Slots
SHORT_RANGE, LONG_RANGE = Blocks(8, 0.15), Blocks(2, 0.7)


def covers(mask: Mask, grid: Grid) -> tuple[Bool[Tensor, "batch slots rows columns"], Bool[Tensor, "..."]]:
    """The visible and the hidden tokens as pictures, for showing and for proofs."""
    shape = (len(mask.visible), grid.slots, grid.rows, grid.columns)
    blank = torch.zeros(len(mask.visible), grid.slots * grid.tokens, dtype=torch.bool)
    return blank.scatter(1, mask.visible, True).view(shape), blank.scatter(1, mask.hidden, True).view(shape)


def _through_time(places: Int[Tensor, "batch places"], grid: Grid) -> Int[Tensor, "batch tokens"]:
    """The same places in every slot."""
    slots = torch.arange(grid.slots)[:, None] * grid.tokens
    return (places[:, None] + slots).flatten(1)
