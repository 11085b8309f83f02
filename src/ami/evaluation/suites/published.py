"""The suites of published films: IntPhys, IntPhys 2, GRASP and InfLevel, asked of whoever has them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ami.data.pairs import LAYOUTS, Name, Pair
from ami.evaluation.benchmark import Asking, Suite
from ami.evaluation.films import film_clip, film_side, rate
from ami.evaluation.suites.pairs import PairsBenchmark
from ami.evaluation.violation import Twins
from ami.types import Clip, WorldModel


@dataclass(frozen=True)
class Published:
    """Pairs from a folder, read as the model watches: their middle squares at its size and its rate."""

    layout: Name

    @property
    def protocol(self) -> tuple[str, ...]:
        """How they are made, a plain sentence each."""
        return (
            f"The films are those of {self.layout}, whole, their middle squares, at the model's own rate. Where "
            "only some are asked about, whole quadruplets are drawn.",
        )

    def twins(self, model: WorldModel, n: int, asking: Asking) -> Iterator[Twins]:
        """About ``n`` of the pairs of ``asking`` at most, one by one."""
        fps, size = rate(model), film_side(model)
        chosen = some(asking.pairs, n, np.random.default_rng(asking.seed))
        for done, pair in enumerate(chosen):
            asking.tell(self.layout, done, len(chosen))
            possible, impossible = (film_clip(model, video) for video in pair.read(size, fps))
            made = pair.frame_rate()
            note = f"Films of {made:g} frames a second were shown at the {fps:g} that this model watches."
            yield Twins(
                possible,
                impossible,
                pair.principle,
                (pair.quadruplet,),
                pair.condition,
                (_step(pair.parts, fps, model.frames, impossible.steps),),
                "" if math.isclose(made, fps, rel_tol=0.01) else note,
            )
        asking.tell(self.layout, len(chosen), len(chosen))

    def ordinary(self, model: WorldModel, asking: Asking) -> tuple[Clip, ...]:
        """None: all that is published has a twin."""
        return ()


def some(pairs: Sequence[Pair], n: int, rng: np.random.Generator) -> Sequence[Pair]:
    """All pairs, or as many quadruplets as have ``n`` of them."""
    if n >= len(pairs):
        return pairs
    groups: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        groups.setdefault((pair.principle, pair.quadruplet), []).append(pair)
    names, chosen = list(groups), []
    for number in rng.permutation(len(names)):
        if len(chosen) < n:
            chosen += groups[names[number]]
    return chosen


def _step(seconds: float | None, fps: float, frames: int, steps: int) -> int | None:
    """The step that first shows what there is from some moment on; ``None`` where the film is over by then."""
    if seconds is None:
        return None
    step = math.ceil(seconds * fps - 1e-3) // frames
    return step if step < steps else None


SUITES = tuple(Suite(name, ((PairsBenchmark(name, Published(name)), 10_000),), layout=name) for name in LAYOUTS)
