"""Could this have happened in a room? The same questions of films that have depth, drawn by MuJoCo."""

from __future__ import annotations

from dataclasses import dataclass

from ami.evaluation.benchmark import Suite
from ami.evaluation.suites.pairs import PairsBenchmark
from ami.evaluation.suites.physics import Matched
from ami.reasoning.rules import Stepwise
from ami.worlds import staged
from ami.worlds.violations import Draw


@dataclass(frozen=True)
class Staged(Matched):
    """Of the world ``physics-3d``; ``ValueError`` where ``mujoco`` is not installed."""

    body = staged.EMBODIMENT

    def artist(self) -> Draw:
        """MuJoCo."""
        return staged.Studio().draw


SUITES = (
    Suite(
        "physics-3d-2",
        (
            (PairsBenchmark("physics-3d", Staged(), Stepwise()), 300),
            (PairsBenchmark("physics-3d-held-out", Staged(held_out=True), Stepwise()), 300),
        ),
    ),
)
