"""Could this have happened? Matched films of nine principles, in view and behind a screen, camera still or moving."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import UInt8

from ami.evaluation.benchmark import Asking, Suite
from ami.evaluation.suites.pairs import PairsBenchmark
from ami.evaluation.violation import Twins
from ami.reasoning.rules import Stepwise
from ami.types import Clip, Embodiment, WorldModel
from ami.worlds import violations
from ami.worlds.scenes import PRINCIPLES

_TOGETHER = 50  # quadruplets that are held in memory at once
_ORDINARY = 5  # quadruplets of each cell whose possible films tell what is ordinary
_APART = 1_000_003  # from the seeds of training

Cell = tuple[str, bool, bool]  # principle, whether a screen hides it, whether the camera moves
Films = UInt8[np.ndarray, "films frames 64 64 3"]


@dataclass(frozen=True)
class Matched(ABC):
    """Quadruplets of a physical world; ``held_out``: with shapes, hues and cameras that training never saw."""

    body: ClassVar[Embodiment]

    principles: tuple[str, ...] = PRINCIPLES
    hidden: tuple[bool, ...] = (False, True)
    moving: tuple[bool, ...] = (False, True)
    held_out: bool = False

    @property
    def protocol(self) -> tuple[str, ...]:
        """How they are made, a plain sentence each."""
        return (
            "Films are drawn anew in quadruplets: two possible ones, and two that begin as the one and go on as the "
            "other, exchanged behind a screen (occluded) or, where the two then look different, in one grey frame "
            "(visible). The frames of the impossible two are those of the possible two (of gravity: pixel by pixel), "
            "so no sum over frames or over neighbouring frames can tell them apart.",
            f"Ordinary are the possible films of {_ORDINARY} other quadruplets of each principle and condition.",
        )

    @abstractmethod
    def artist(self) -> violations.Draw:
        """Who draws this world."""

    def twins(self, model: WorldModel, n: int, asking: Asking) -> Iterator[Twins]:
        """``n`` pairs, half as many quadruplets, in each cell; the model has to know this world's embodiment."""
        knows(model, self.body.name)
        draw, cells = self.artist(), self._cells()
        for place, cell in enumerate(cells):
            asking.tell("drawing and judging films", place, len(cells))
            for first in range(0, (n + 1) // 2, _TOGETHER):
                count = min(_TOGETHER, (n + 1) // 2 - first)
                seed = [_APART + asking.seed, 1 + self.held_out, place + 1, first + 1]
                yield self._twins(self._drawn(draw, cell, count, seed), *cell, first)
        asking.tell("drawing and judging films", len(cells), len(cells))

    def ordinary(self, model: WorldModel, asking: Asking) -> Iterator[Clip]:
        """Possible films of the same cells, of other quadruplets: what is rare among them, it is told, is rare."""
        draw = self.artist()
        for place, cell in enumerate(self._cells()):
            films = self._drawn(draw, cell, _ORDINARY, [_APART + asking.seed, 3, place + 1]).films
            yield self._clip(np.concatenate([films[0, 0], films[1, 1]]))

    def _cells(self) -> list[Cell]:
        return [(p, h, m) for h in self.hidden for m in self.moving for p in self.principles]

    def _drawn(self, draw: violations.Draw, cell: Cell, count: int, seed: Sequence[int]) -> violations.Quadruplets:
        principle, hidden, moving = cell
        return violations.quadruplets(
            principle, count, seed, hidden=hidden, moving=moving, held_out=self.held_out, draw=draw
        )

    def _twins(self, drawn: violations.Quadruplets, principle: str, hidden: bool, moving: bool, first: int) -> Twins:
        films, count = drawn.films, len(drawn.moment)
        return Twins(
            self._clip(np.concatenate([films[0, 0], films[1, 1]])),
            self._clip(np.concatenate([films[0, 1], films[1, 0]])),
            principle,
            tuple(range(first, first + count)) * 2,
            f"{'occluded' if hidden else 'visible'}/{'moving' if moving else 'fixed'}",
            tuple(drawn.moment.tolist()) * 2,
        )

    def _clip(self, video: Films) -> Clip:
        """Films without actions: nobody says that no wind blew, and none did."""
        pictures = torch.from_numpy(video).movedim(-1, 2)[:, :, None].contiguous()
        times = torch.arange(video.shape[1]) * self.body.step_seconds
        return Clip(self.body.name, times.expand(len(video), -1), pictures)


@dataclass(frozen=True)
class Drawn(Matched):
    """Of AMI's own flat world."""

    body = violations.EMBODIMENT

    def artist(self) -> violations.Draw:
        """NumPy."""
        return violations.draw


def knows(model: WorldModel, world: str = violations.EMBODIMENT.name) -> None:
    """``ValueError`` for a model that has not learned this world."""
    if world not in model.embodiments:
        raise ValueError(
            f"this model does not know '{world}' but {', '.join(sorted(model.embodiments))}; "
            f"train one on what `ami collect {world}` records"
        )


ASKED = ((PairsBenchmark("physics", Drawn(), Stepwise()), 300),)
HELD_OUT = ((PairsBenchmark("physics-held-out", Drawn(held_out=True), Stepwise()), 300),)
SUITES = (Suite("physics-2", (*ASKED, *HELD_OUT)),)
QUICK = PairsBenchmark("physics", Drawn(moving=(False,)), Stepwise())
