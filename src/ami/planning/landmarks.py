"""Far goals, one landmark after another: of counts of steps only the short ones are trusted, and added up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ami.planning.costs import each_goal, goals_of, weighed
from ami.planning.guardrails import of_plans
from ami.types import Latent, WorldModel

# How many steps it is from each step of some latents to the one step of a goal in each row.
Reach = Callable[[Latent, Latent], Float[Tensor, "rows time"]]


@dataclass(frozen=True)
class Landmarks:
    """Moments of a place that is known, and the shortest ways from each to each.

    A learned count of steps has pits far from the goal, and hardly any near it. So what is more than ``sure`` steps
    apart is not joined, and a long way is a sum of short ones. Source: search on the replay buffer (Eysenbach et al.
    2019, section 3.1), with few nodes (Emmons et al. 2020; Zhang et al. 2021).
    """

    seen: Float[Tensor, "landmarks tokens dim"]
    steps: Float[Tensor, "landmarks landmarks"]  # from each row to each column; infinite where no way is known
    reach: Reach
    sure: float

    @classmethod
    def of(cls, model: WorldModel, embodiment: str, sure: float) -> Landmarks | None:
        """Those that a model keeps, joined by its own count; ``None`` where it keeps none."""
        kept = model.landmarks(embodiment)
        if kept is None:
            return None
        return cls.joined(kept.values[:, 0], lambda now, there: model.reach(now, there, embodiment), sure)

    @classmethod
    def joined(cls, seen: Float[Tensor, "landmarks tokens dim"], reach: Reach, sure: float) -> Landmarks:
        """With all shortest ways between them (Floyd 1962, Warshall 1962)."""
        if not sure > 0:
            raise ValueError(f"counts of up to {sure:g} steps cannot be put together; trust more than 0 steps")
        counted = _counted(seen, seen, reach)
        steps = torch.where(counted <= sure, counted, torch.inf)
        steps.diagonal().zero_()
        for middle in range(len(seen)):
            steps = torch.minimum(steps, steps[:, middle, None] + steps[middle])
        return cls(seen, steps, reach, sure)

    def to(self, goal: Latent) -> Float[Tensor, "plans landmarks"]:
        """Steps from each landmark to the goal of each plan, which is joined to the nearest one however far that is."""
        last = self.trusted(_counted(self.seen, goal.values[:, 0], self.reach).T)
        return (self.steps + last[:, None]).amin(-1)

    def trusted(self, counted: Float[Tensor, "rows some"]) -> Float[Tensor, "rows some"]:
        """Infinite but for short counts, or the shortest of each row: nothing is so far from all that it is lost."""
        return torch.where(counted <= counted.amin(1, keepdim=True).clamp_min(self.sure), counted, torch.inf)


@dataclass(frozen=True)
class StepsThrough:
    """Be few steps from the goal, counted through landmarks where it is far: all along the way, and at the end.

    From a state it is as many steps as to one of the ``near`` landmarks that look most like it, and on from there.
    Where a goal is no more than ``sure`` steps away, they are counted directly. It costs infinitely much where no way
    leads on. ``goal`` has one row per plan and one step; ``left`` is what is left from each landmark.
    """

    goal: Latent
    landmarks: Landmarks
    left: Float[Tensor, "plans landmarks"]
    near: int = 8
    sum: float = 1.0
    last: float = 1.0

    @classmethod
    def to(cls, goal: Latent, landmarks: Landmarks, *, sum: float = 1.0, last: float = 1.0) -> StepsThrough:
        """The ways of each plan are worked out once, when its goal is known."""
        return cls(goal, landmarks, landmarks.to(goal), sum=sum, last=last)

    def __call__(self, imagined: Latent, actions: Float[Tensor, "rows horizon action"]) -> Float[Tensor, "rows"]:
        straight = self.landmarks.reach(imagined, each_goal(self.goal, imagined))
        steps = torch.where(straight <= self.landmarks.sure, straight, self._through(imagined))
        return weighed(steps, self.sum, self.last)

    def _through(self, imagined: Latent) -> Float[Tensor, "rows horizon"]:
        """Steps by way of the best of the landmarks nearby."""
        states, seen = imagined.values.flatten(0, 1), self.landmarks.seen
        near = torch.cdist(states.flatten(1), seen.flatten(1)).topk(min(self.near, len(seen)), largest=False).indices
        here = states.repeat_interleave(near.shape[1], 0)[:, None]
        none = imagined.times.new_zeros(len(here), 1)
        there = self.landmarks.reach(Latent(here, none), Latent(seen[near.flatten(), None], none)).view(near.shape)
        left = self.left.repeat_interleave(len(states) // len(self.goal), 0).gather(1, near)
        return (self.landmarks.trusted(there) + left).amin(1).view(imagined.times.shape)

    def rows(self, index: slice | Tensor) -> StepsThrough:
        """The goals of some of the plans, in the order of ``index``."""
        return replace(self, goal=goals_of(self.goal, index), left=of_plans(self.left, index))


@torch.no_grad()
def _counted(
    seen: Float[Tensor, "landmarks tokens dim"], goals: Float[Tensor, "goals tokens dim"], reach: Reach
) -> Float[Tensor, "landmarks goals"]:
    """Steps from each to each, goal by goal: a goal's do not depend on how many others there are, to the last bit."""
    none = seen.new_zeros(1, len(seen))
    return torch.cat([reach(Latent(seen[None], none), Latent(goal[None, None], none[:, :1])) for goal in goals]).T
