"""Worlds of straight arithmetic, where the best plan is known in closed form, and what every planner is asked there."""

from dataclasses import dataclass, replace

import torch

from ami.planning.costs import ActionCost, GoalDistance, Sum
from ami.types import Belief, Clip, Latent, Plan, Planner, WorldModel
from ami.worlds.rooms import EMBODIMENT

HORIZON = 12


class Linear(WorldModel):
    """A world of straight arithmetic: state' = state A + action B."""

    def __init__(self, along: torch.Tensor, across: torch.Tensor) -> None:
        super().__init__()
        self.along, self.across = along, across
        self.latent_shape = (1, len(along))

    def predict(self, belief, actions, horizon):
        state, states = belief.latents.values[:, -1, 0], []
        for step in range(horizon):
            state = state @ self.along + actions[:, step] @ self.across
            states.append(state)
        times = belief.latents.times[:, -1:] + torch.arange(1, horizon + 1)
        return Latent(torch.stack(states, 1)[:, :, None], times)


class Rounding(Linear):
    """Answers a little differently at another batch size, as matrix products may; here always, so that a test sees."""

    def predict(self, belief, actions, horizon):
        imagined = super().predict(belief, actions, horizon)
        return Latent(imagined.values + 1e-3 * len(actions), imagined.times)


@dataclass(frozen=True)
class Broken:
    """A cost that knows no number for futures that ever go right of ``wall``."""

    inner: GoalDistance
    wall: float
    answer: float = float("nan")

    def __call__(self, imagined, actions):
        past = (imagined.values[..., 0] > self.wall).flatten(1).any(1)
        return torch.where(past, torch.tensor(self.answer), self.inner(imagined, actions))

    def rows(self, index):
        return replace(self, inner=self.inner.rows(index))


def integrator(dim: int = 2) -> Linear:
    return Linear(torch.eye(dim), torch.eye(dim))


def double_integrator() -> Linear:
    return Linear(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 1.0]]))


def latent(states: list[list[float]] | torch.Tensor) -> Latent:
    values = torch.as_tensor(states)[:, None, None]
    return Latent(values, torch.zeros(len(values), 1))


def plan(planner: Planner, model, cost, start, bound=0.25, seed=0, **changes) -> Plan:
    """Each row's generator is seeded with ``seed`` and its number."""
    belief = Belief("test", latent(start))
    dim = len(model.across)
    arguments = {
        "horizon": HORIZON,
        "low": [-bound] * dim,
        "high": [bound] * dim,
        "generators": [torch.Generator().manual_seed(seed + row) for row in range(len(belief))],
        **changes,
    }
    return planner.plan(model, cost, belief, **arguments)


def bang_bang(planner: Planner) -> tuple[torch.Tensor, Plan]:
    """Go 0.6 at 0.25 a step, on 8 seeds: nothing beats full speed and then rest, which leaves 0.35, 0.1, 0, 0, …

    The first value is the share of the gap between doing nothing and the optimum that each seed's plan leaves open.
    """
    cost, optimum, nothing = GoalDistance(latent([[0.6]] * 8), last=0, min=0), 0.35**2 + 0.1**2, HORIZON * 0.6**2
    found = plan(planner, integrator(1), cost, [[0.0]] * 8)
    return (found.cost - optimum) / (nothing - optimum), found


def least_effort(planner: Planner) -> tuple[torch.Tensor, Plan, torch.Tensor]:
    """Reach 3 at rest with little effort, on 8 seeds, beside the least-squares problem that solves it exactly."""
    effect = torch.tensor([[HORIZON - 1.0 - step, 1.0] for step in range(HORIZON)]).T
    goal = torch.tensor([3.0, 0.0])
    best = torch.linalg.solve(effect.T @ effect + 0.5 * torch.eye(HORIZON), effect.T @ goal)
    optimum = (effect @ best - goal).square().sum() + 0.5 * best.square().sum()
    assert best.abs().max() < 0.5
    cost = Sum(((1.0, GoalDistance(latent([[3.0, 0.0]] * 8), sum=0, min=0)), (0.5, ActionCost())))
    found = plan(planner, double_integrator(), cost, [[0.0, 0.0]] * 8, bound=0.5)
    return (found.cost - optimum) / (9.0 - optimum), found, best


def regulator(planner: Planner) -> tuple[torch.Tensor, Plan]:
    """Bring a cart to rest at 0 from place 1 and speed 0.5, on 4 seeds, beside the Riccati recursion of that task."""
    model, start, effort = double_integrator(), torch.tensor([1.0, 0.5]), 0.5
    along, across, to_go = model.along.T, model.across.T, torch.eye(2)
    for step in range(HORIZON):
        gain = torch.linalg.solve(across.T @ to_go @ across + effort, across.T @ to_go @ along)
        left = along.T @ to_go @ (along - across @ gain)
        to_go = torch.eye(2) + left if step < HORIZON - 1 else left  # the state now is nobody's doing
    optimum, nothing = start @ to_go @ start, (1 + 0.5 * torch.arange(1, HORIZON + 1)).square().sum() + 0.25 * HORIZON
    cost = Sum(((1.0, GoalDistance(latent([[0.0, 0.0]] * 4), last=0, min=0)), (effort, ActionCost())))
    found = plan(planner, model, cost, start.expand(4, 2), bound=2.0)
    assert found.actions.abs().max() < 2.0
    return (found.cost - optimum) / (nothing - optimum), found


class Redness(WorldModel):
    """Sees the middle of what is red and imagines that nothing is ever in the way; refuses to look at the truth."""

    embodiments = {EMBODIMENT.name: EMBODIMENT}  # noqa: RUF012
    latent_shape = (1, 2)

    def encode(self, clip: Clip) -> Latent:
        assert clip.truth is None
        assert clip.video is not None
        picture = clip.video[:, :, 0].float()
        red = (picture[:, :, 0] - picture[:, :, 2] - 100).clamp_min(0)
        at = torch.arange(64) + 0.5
        x, y = (red.sum(2) * at).sum(-1), (red.sum(3) * at).sum(-1)
        return Latent((torch.stack([x, y], -1) / red.sum((2, 3))[..., None])[:, :, None], clip.times)

    def believe(self, belief, seen, actions, embodiment=""):
        return Belief(EMBODIMENT.name, Latent(seen.values[:, -1:], seen.times[:, -1:]))

    def predict(self, belief, actions, horizon):
        moved = 8.0 * actions / actions.norm(dim=-1, keepdim=True).clamp_min(1.0)
        times = belief.latents.times[:, -1:] + EMBODIMENT.step_seconds * torch.arange(1, horizon + 1)
        return Latent(belief.latents.values[:, -1:] + moved.cumsum(1)[:, :, None], times)
