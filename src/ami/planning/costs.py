"""What an agent would rather avoid: costs of imagined futures, which a planner makes small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ami.types import Cost, Latent

# How far apart two latents are, from their difference: summed over dim, averaged over tokens.
DISTANCES: dict[str, Callable[[Tensor], Tensor]] = {
    "squared": lambda gap: gap.square().sum(-1).mean(-1),
    "l2": lambda gap: torch.linalg.vector_norm(gap, dim=-1).mean(-1),
    "l1": lambda gap: gap.abs().sum(-1).mean(-1),
}


@dataclass(frozen=True)
class GoalDistance:
    """Be at the goal: soon, at the end, and at least once.

    ``goal`` has one row per plan and one step. The distance to it at each imagined step makes three terms: their sum
    asks for haste, the last for staying, the smallest for having been there. The last alone plans badly over long
    horizons: candidates that come close and go past look no better than those that never came.
    """

    goal: Latent
    distance: str = "squared"
    sum: float = 1.0
    last: float = 1.0
    min: float = 1.0

    def __post_init__(self) -> None:
        if self.distance not in DISTANCES:
            raise ValueError(f"no distance is called {self.distance!r}; choose one of {', '.join(DISTANCES)}")
        if self.goal.steps != 1:
            raise ValueError(f"a goal is one step, but this latent has {self.goal.steps}; choose the step to reach")

    def __call__(self, imagined: Latent, actions: Float[Tensor, "rows horizon action"]) -> Float[Tensor, "rows"]:
        goals, values = self.goal.values, imagined.values
        if goals.shape[2:] != values.shape[2:]:
            raise ValueError(
                f"the goal is {_shape(goals)} but the model imagines {_shape(values)}; "
                "encode the goal with the model that plans"
            )
        if len(values) % len(goals):
            raise ValueError(
                f"{len(values)} imagined futures cannot be shared by {len(goals)} goals; give one per plan"
            )
        by_plan = values.unflatten(0, (len(goals), -1))
        far = DISTANCES[self.distance](by_plan - goals[:, None]).flatten(0, 1)
        return self.sum * far.sum(1) + self.last * far[:, -1] + self.min * far.amin(1)

    def rows(self, index: slice | Tensor) -> GoalDistance:
        """The goals of some of the plans, in the order of ``index``."""
        if isinstance(index, Tensor) and len(index) and int(index.max()) >= len(self.goal):
            raise ValueError(
                f"plan number {int(index.max())} has no goal: there are {len(self.goal)}; give one goal for each plan"
            )
        return replace(self, goal=Latent(self.goal.values[index], self.goal.times[index]))


@dataclass(frozen=True)
class ActionCost:
    """Do little: the squared length of the actions, summed over the horizon. Knows nothing of the plan."""

    def __call__(self, imagined: Latent, actions: Float[Tensor, "rows horizon action"]) -> Float[Tensor, "rows"]:
        return actions.square().sum((1, 2))

    def rows(self, index: slice | Tensor) -> ActionCost:
        """The same for every plan."""
        return self


@dataclass(frozen=True)
class Sum:
    """Several wishes at once, each with its weight. A negative weight seeks what the cost avoids."""

    terms: tuple[tuple[float, Cost], ...]

    def __post_init__(self) -> None:
        if not self.terms:
            raise ValueError("a sum of costs needs at least one (weight, cost)")

    def __call__(self, imagined: Latent, actions: Float[Tensor, "rows horizon action"]) -> Float[Tensor, "rows"]:
        return torch.stack([weight * cost(imagined, actions) for weight, cost in self.terms]).sum(0)

    def rows(self, index: slice | Tensor) -> Sum:
        """Every term for some of the plans, in the order of ``index``."""
        return Sum(tuple((weight, cost.rows(index)) for weight, cost in self.terms))


def _shape(values: Tensor) -> str:
    return f"{values.shape[2]} tokens of {values.shape[3]}"
