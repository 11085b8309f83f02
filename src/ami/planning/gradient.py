"""Planning by gradient: the cost is followed downhill through the model, from several first actions at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ami.planning.search import Found, Search, Task, draw


@dataclass(frozen=True)
class GradientSettings:
    """How a gradient planner descends."""

    starts: int = 32  # the first guess, and random ones round it: a descent alone ends in the nearest valley
    steps: int = 10
    rate: float = 0.4  # how far the first step moves, as a share of half the range of an action; the last hardly moves
    momentum: float = 0.9  # share of the old mean gradient that a step keeps
    memory: float = 0.99  # the same for the mean squared gradient
    init_std: float = 0.5  # of the random starts, as a share of half the range of an action
    colour: float = 1.0  # exponent of their 1/f^colour spectrum: 0 white, 2 slow as a random walk
    together: int = 1  # plans imagined in one call of the model: 1 suits a CPU's cache, more suits a GPU

    def __post_init__(self) -> None:
        if min(self.starts, self.steps, self.together) < 1:
            raise ValueError("starts, steps and together are at least 1")
        if not (0 <= self.momentum < 1 and 0 <= self.memory < 1 and self.rate > 0 and self.init_std >= 0):
            raise ValueError("momentum and memory lie in [0, 1), rate is above 0, init_std is not negative")


@dataclass(frozen=True)
class GradientPlanner(Search):
    """Plans by Adam on the actions, which are put back inside their bounds after every step.

    Costs have no unit, and what breaks a guardrail ranks above them all, so a candidate's gradient is measured by its
    own largest number; twenty steps toward a known optimum then left a quarter of the gap that plain Adam left. A
    number without a finite gradient stays as it is for that step: a start where the cost has none is lost, not others.
    Source of the steps: Kingma and Ba 2015, "Adam", algorithm 1; here the rate falls evenly to nothing.
    """

    settings: GradientSettings = GradientSettings()

    @property
    def together(self) -> int:
        """Plans imagined in one call of the model."""
        return self.settings.together

    @property
    def descends(self) -> bool:
        """It does."""
        return True

    def leaders(
        self, task: Task, guess: Float[Tensor, "plans horizon action"], generators: Sequence[torch.Generator]
    ) -> Iterator[Found]:
        """The best before each step, and at last that after the last one."""
        settings, reach = self.settings, (task.high - task.low) / 2
        noise = draw(generators, settings.starts - 1, guess, settings.colour)
        actions = torch.cat([guess[:, None], guess[:, None] + settings.init_std * reach * noise], 1)
        yield from self.descend(task, actions.clamp(task.low, task.high))

    def descend(self, task: Task, actions: Float[Tensor, "plans starts horizon action"]) -> Iterator[Found]:
        """The same from given starts."""
        settings, reach = self.settings, (task.high - task.low) / 2
        mean = square = torch.zeros_like(actions)
        for step in range(settings.steps):
            gradient, leader = _gradient(task, actions)
            yield leader
            mean = torch.lerp(gradient, mean, settings.momentum)
            square = torch.lerp(gradient.square(), square, settings.memory)
            unbiased = (square / (1 - settings.memory ** (step + 1))).sqrt() + 1e-8
            change = mean / (1 - settings.momentum ** (step + 1)) / unbiased
            rate = settings.rate * (1 - step / settings.steps)
            actions = (actions - rate * reach * change).clamp(task.low, task.high)
        yield task.imagine(actions)[1]


def _gradient(
    task: Task, actions: Float[Tensor, "plans starts horizon action"]
) -> tuple[Float[Tensor, "plans starts horizon action"], Found]:
    """Which way each candidate gets worse, its largest number 1, 0 where it is not finite; and the best candidate."""
    with torch.enable_grad():
        actions = actions.detach().requires_grad_()
        ranks, leader = task.imagine(actions)
        # There may be a gradient and none of it to the actions: that to the model's weights.
        gradient = torch.autograd.grad(ranks.sum(), actions, allow_unused=True)[0] if ranks.requires_grad else None
    if gradient is None:
        raise ValueError("the cost of what this model imagines has no gradient to the actions; plan by sampling")
    gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
    largest = gradient.abs().amax((2, 3), keepdim=True)
    return gradient / largest.clamp_min(torch.finfo(gradient.dtype).tiny), leader
