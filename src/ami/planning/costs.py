"""What an agent would rather avoid: costs of imagined futures, which a planner makes small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ami.planning.guardrails import Away, of_plans
from ami.types import Cost, Latent, WorldModel, beside

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
        _check_goal(self.goal)

    def __call__(self, imagined: Latent, actions: Float[Tensor, "rows horizon action"]) -> Float[Tensor, "rows"]:
        by_plan = imagined.values.unflatten(0, (len(self.goal), _candidates(self.goal, imagined)))
        far = DISTANCES[self.distance](by_plan - self.goal.values[:, None]).flatten(0, 1)
        return self.sum * far.sum(1) + self.last * far[:, -1] + self.min * far.amin(1)

    def rows(self, index: slice | Tensor) -> GoalDistance:
        """The goals of some of the plans, in the order of ``index``."""
        return replace(self, goal=goals_of(self.goal, index))


@dataclass(frozen=True)
class StepsToGo:
    """Be few steps from the goal, by a learned count of them: all along the way, and at the end.

    ``reach`` answers, for each imagined step and one goal a row, how many steps the way from there to the goal takes:
    a model's ``reach``, bound to an embodiment. It sees round walls, where a distance between latents looks across.
    ``goal`` has one row per plan and one step.
    """

    goal: Latent
    reach: Callable[[Latent, Latent], Float[Tensor, "rows time"]]
    sum: float = 1.0
    last: float = 1.0

    def __post_init__(self) -> None:
        _check_goal(self.goal)

    def __call__(self, imagined: Latent, actions: Float[Tensor, "rows horizon action"]) -> Float[Tensor, "rows"]:
        steps = self.reach(imagined, each_goal(self.goal, imagined))
        if steps.shape != imagined.times.shape:
            raise ValueError(
                f"reach answered {tuple(steps.shape)} for {tuple(imagined.times.shape)} steps; one each, please"
            )
        return weighed(steps, self.sum, self.last)

    def rows(self, index: slice | Tensor) -> StepsToGo:
        """The goals of some of the plans, in the order of ``index``."""
        return replace(self, goal=goals_of(self.goal, index))


DOUBTED = 0.5  # with more doubt than this, no plan was found


@dataclass(frozen=True)
class Doubt:
    """How unlikely it is, 0 to 1, that any way leads to the goal from the last step: not to be planned by, but asked.

    Planned by, it would be made small where a model has a hole in a wall; so it is asked of what was really seen.
    ``reachable`` answers for each step and one goal a row: a model's, bound to an embodiment.
    """

    goal: Latent
    reachable: Callable[[Latent, Latent], Float[Tensor, "rows time"]]

    def __post_init__(self) -> None:
        _check_goal(self.goal)

    @classmethod
    def of(cls, model: WorldModel, goal: Latent, embodiment: str) -> Doubt | None:
        """A model's own; ``None`` where it has not learned to judge."""
        if embodiment not in model.judges:
            return None
        return cls(goal, lambda now, there: model.reachable(now, there, embodiment))

    def __call__(self, imagined: Latent, actions: Float[Tensor, "rows horizon action"]) -> Float[Tensor, "rows"]:
        last = imagined.between(imagined.steps - 1, imagined.steps)
        return 1 - self.reachable(last, each_goal(self.goal, imagined))[:, 0]

    def rows(self, index: slice | Tensor) -> Doubt:
        """The goals of some of the plans, in the order of ``index``."""
        return replace(self, goal=goals_of(self.goal, index))


@dataclass(frozen=True)
class Unsure:
    """Go where the future is known: how far off the end of the path may be, for every step adds to that.

    ``uncertainty`` answers for each imagined step: a model's, bound to an embodiment. In a ``Sum`` it is weighed
    against a goal; bounded, it is a guardrail: ``Guardrail("unsure", Everywhere(unsure.uncertainty), high=0.1)``.
    """

    uncertainty: Callable[[Latent, Tensor], Float[Tensor, "rows horizon"]]

    @classmethod
    def of(cls, model: WorldModel, embodiment: str) -> Unsure | None:
        """A model's own; ``None`` where it has not learned how far off it may be."""
        if embodiment not in model.unsure:
            return None
        return cls(lambda imagined, actions: model.uncertainty(imagined, actions, embodiment))

    def __call__(self, imagined: Latent, actions: Float[Tensor, "rows horizon action"]) -> Float[Tensor, "rows"]:
        return self.uncertainty(imagined, actions)[:, -1]

    def rows(self, index: slice | Tensor) -> Unsure:
        """The same for every plan."""
        return self


@dataclass(frozen=True)
class ReadOut:
    """Bring what is read out of the latent within ``radius`` of ``target``: "the agent within 3 px of (x, y)".

    Costs the distance beyond the radius, in the read-out's own unit, all along the way and at the end; nearer than
    that is no better. ``target`` has one row per plan.
    """

    read: Callable[[Latent], Float[Tensor, "rows time out"]]
    target: Float[Tensor, "plans out"]
    radius: float = 0.0
    sum: float = 1.0
    last: float = 1.0

    def __post_init__(self) -> None:
        if not self.radius >= 0:
            raise ValueError(f"a radius is 0 or more, in the unit of what is read, not {self.radius}")

    def __call__(self, imagined: Latent, actions: Float[Tensor, "rows horizon action"]) -> Float[Tensor, "rows"]:
        beyond = (Away(self.read, self.target)(imagined, actions) - self.radius).clamp_min(0)
        return weighed(beyond, self.sum, self.last)

    def rows(self, index: slice | Tensor) -> ReadOut:
        """The targets of some of the plans, in the order of ``index``."""
        return replace(self, target=of_plans(self.target, index))


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


@dataclass(frozen=True)
class AnyOf:
    """One of several wishes will do, the cheapest: a goal that is a set, such as several pictures of one place."""

    costs: tuple[Cost, ...]

    def __post_init__(self) -> None:
        if not self.costs:
            raise ValueError("any of no costs is no wish; give at least one")

    def __call__(self, imagined: Latent, actions: Float[Tensor, "rows horizon action"]) -> Float[Tensor, "rows"]:
        return torch.stack([cost(imagined, actions) for cost in self.costs]).amin(0)

    def rows(self, index: slice | Tensor) -> AnyOf:
        """Every wish for some of the plans, in the order of ``index``."""
        return AnyOf(tuple(cost.rows(index) for cost in self.costs))


def _check_goal(goal: Latent) -> None:
    if goal.steps != 1:
        raise ValueError(f"a goal is one step, but this latent has {goal.steps}; choose the step to reach")


def _candidates(goal: Latent, imagined: Latent) -> int:
    """How many imagined futures each goal has."""
    goals, values = goal.values, imagined.values
    if goals.shape[2:] != values.shape[2:]:
        raise ValueError(
            f"the goal is {_shape(goals)} but the model imagines {_shape(values)}; "
            "encode the goal with the model that plans"
        )
    if len(values) % len(goals):
        raise ValueError(f"{len(values)} imagined futures cannot be shared by {len(goals)} goals; give one per plan")
    return len(values) // len(goals)


def each_goal(goal: Latent, imagined: Latent) -> Latent:
    """The goal of each imagined future."""
    times = _candidates(goal, imagined)
    return Latent(beside(goal.values, times), beside(goal.times, times))


def weighed(steps: Float[Tensor, "rows horizon"], sum: float, last: float) -> Float[Tensor, "rows"]:
    """What each step of a path costs, all along the way and again at its end, each with its weight."""
    total = steps.sum(1) * sum
    return total + last * steps[:, -1] if last else total


def goals_of(goal: Latent, index: slice | Tensor) -> Latent:
    """The goals of some of the plans, in the order of ``index``."""
    return Latent(of_plans(goal.values, index), of_plans(goal.times, index))


def _shape(values: Tensor) -> str:
    return f"{values.shape[2]} tokens of {values.shape[3]}"
