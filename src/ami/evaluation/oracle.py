"""Agents with the truth in place of a part: its dynamics, its cost, its search, or all but its perception."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ami.evaluation.simulator import Simulator
from ami.planning.guardrails import of_plans
from ami.types import Belief, Clip, Cost, Latent, WorldModel

Read = Callable[[Latent], Float[Tensor, "rows time truth"]]  # the true state, or what is taken for it


@dataclass(frozen=True)
class Known(Latent):
    """A latent, and the true state at each step."""

    truth: Float[Tensor, "batch time truth"]


class Knowing(WorldModel):
    """A model beside the simulator of its world: it answers as the model does and knows what is true.

    With ``dynamics`` it imagines what really follows: the simulator runs, its states are drawn, and the model perceives
    what was drawn. The truth travels in the belief as what an oracle recalls.
    """

    def __init__(self, model: WorldModel, simulator: Simulator, *, dynamics: bool = False) -> None:
        super().__init__()
        self.model, self.simulator, self.dynamics = model, simulator, dynamics
        self.embodiments, self.latent_shape = model.embodiments, model.latent_shape
        self.reaches, self.judges, self.causal = model.reaches, model.judges, model.causal
        self.imitates = model.imitates

    def encode(self, clip: Clip) -> Known:
        """What the model perceives, and the truth that was recorded."""
        seen, state = self.model.encode(replace(clip, truth=None)), self.simulator.encode(clip)
        return Known(seen.values, seen.times, state.values[:, :, 0])

    def believe(
        self,
        belief: Belief | None,
        seen: Latent,
        actions: Float[Tensor, "batch time action"] | None,
        embodiment: str = "",
    ) -> Belief:
        """As the model, and the state last seen."""
        assert isinstance(seen, Known), "who knows the truth was shown it"
        held = None if belief is None else replace(belief, recalled=None)
        last = Latent(seen.truth[:, -1:, None], seen.times[:, -1:])
        return replace(self.model.believe(held, seen, actions, embodiment), recalled=last)

    def predict(self, belief: Belief, actions: Float[Tensor, "batch horizon action"] | None, horizon: int) -> Known:
        """What the model imagines, or with ``dynamics`` what it would perceive; and what would be true."""
        assert belief.recalled is not None, "who knows the truth holds it"
        states = self.simulator.predict(Belief(belief.embodiment, belief.recalled), actions, horizon)
        if self.dynamics:
            imagined = self.model.encode(self.seen(states, belief.embodiment))
        else:
            imagined = self.model.predict(replace(belief, recalled=None), actions, horizon)
        return Known(imagined.values, imagined.times, states.values[:, :, 0])

    def seen(self, states: Latent, embodiment: str) -> Clip:
        """Pictures of true states."""
        video = torch.from_numpy(self.simulator.draw(states))[:, :, None].permute(0, 1, 2, 5, 3, 4)
        return Clip(embodiment, states.times, video=video)

    def reach(self, now: Latent, goal: Latent, embodiment: str) -> Float[Tensor, "batch time"]:
        """As the model."""
        return self.model.reach(now, goal, embodiment)

    def landmarks(self, embodiment: str) -> Latent | None:
        """As the model."""
        return self.model.landmarks(embodiment)

    def propose(self, belief: Belief, goal: Latent, horizon: int) -> Float[Tensor, "batch horizon action"]:
        """As the model."""
        return self.model.propose(replace(belief, recalled=None), goal, horizon)


class Reading(Simulator):
    """A simulator that is shown pictures: it takes for the state what is read out of a model's latent."""

    def __init__(self, model: WorldModel, simulator: Simulator, read: Read) -> None:
        super().__init__()
        self.model, self.simulator, self.read = model, simulator, read
        self.embodiments, self.latent_shape = simulator.embodiments, simulator.latent_shape

    def encode(self, clip: Clip) -> Latent:
        """What is read of what the model perceives."""
        return self.simulator.encode(replace(clip, truth=self.read(self.model.encode(clip))))

    def predict(self, belief: Belief, actions: Float[Tensor, "batch horizon action"] | None, horizon: int) -> Latent:
        """As the simulator that knows the truth."""
        return self.simulator.predict(belief, actions, horizon)


@dataclass(frozen=True)
class TrueSteps:
    """Be few steps from the goal, by the true count of them, from states that ``read`` finds in what is imagined."""

    goal: Float[Tensor, "plans truth"]
    read: Read
    steps: Callable[[Float[Tensor, "rows time truth"], Float[Tensor, "rows truth"]], Float[Tensor, "rows time"]]
    sum: float = 1.0
    last: float = 0.0

    def __call__(self, imagined: Latent, actions: Float[Tensor, "rows horizon action"]) -> Float[Tensor, "rows"]:
        goals = self.goal.repeat_interleave(len(imagined) // len(self.goal), 0)
        steps = self.steps(self.read(imagined), goals)
        return self.sum * steps.sum(1) + self.last * steps[:, -1]

    def rows(self, index: slice | Tensor) -> TrueSteps:
        """The goals of some of the plans, in the order of ``index``."""
        return replace(self, goal=of_plans(self.goal, index))


@dataclass(frozen=True)
class Tally:
    """A cost that notes, beside its answer, which plans had a candidate that would in truth have come to the goal."""

    cost: Cost
    goal: Float[Tensor, "plans truth"]
    solved: Callable[[Float[Tensor, "rows time truth"], Float[Tensor, "rows truth"]], Bool[Tensor, "rows time"]]
    met: Bool[Tensor, "plans"]  # filled in as it is asked
    number: Tensor  # of each plan, in ``met``

    def __call__(self, imagined: Latent, actions: Float[Tensor, "rows horizon action"]) -> Float[Tensor, "rows"]:
        if isinstance(imagined, Known):
            goals = self.goal.repeat_interleave(len(imagined) // len(self.goal), 0)
            arrives = self.solved(imagined.truth, goals).any(1).view(len(self.goal), -1).any(1)
            self.met[self.number[arrives]] = True
        return self.cost(imagined, actions)

    def rows(self, index: slice | Tensor) -> Tally:
        """The same for some of the plans, in the order of ``index``; they are noted in the same place."""
        number = of_plans(self.number, index)
        return replace(self, cost=self.cost.rows(index), goal=of_plans(self.goal, index), number=number)
