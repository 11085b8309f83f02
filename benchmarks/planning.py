"""Times one plan of the baby beside stable-worldmodel's planners: the same model, problems and cost, one thread.

    python benchmarks/planning.py [--problems 60]

A plan succeeds if doing it in the true world, without another look, comes within 0.15 of the goal (the room is 2 wide,
a step 0.12). The peer's solvers are optional: ``pip install --no-deps stable-worldmodel==0.1.1`` and ``pip install
loguru``, best in an environment of its own. Only they are imported, because its package as a whole wants torchvision.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import io
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ami.models.jepa import JEPA, sized
from ami.planning.anytime import Anytime
from ami.planning.costs import GoalDistance
from ami.planning.gradient import GradientPlanner, GradientSettings
from ami.planning.mixture import Mixture
from ami.planning.sampling import METHODS, SamplingPlanner
from ami.planning.search import Search
from ami.types import Belief, Embodiment, Latent

HORIZON, SAMPLES, ITERATIONS, ELITES, DIM, STEP, NEAR = 20, 256, 6, 30, 16, 0.12, 0.15
SHORT = replace(METHODS["icem"], samples=64, elites=8, iterations=3)
SLOW = replace(METHODS["icem"], samples=128, elites=8, iterations=4, colour=2.0)  # the colour of the peer's iCEM
SMALL_CALLS = replace(SHORT, iterations=30, shrink=1.0)  # to stop near the deadline
SETTLE = GradientPlanner(GradientSettings(starts=8, steps=4, rate=0.2, init_std=0.2))

# The peer's own search first (its default number of elites), then cheaper ones of ours, to find equal cost for less.
SEARCHES: dict[str, Search] = {
    "cem 256x6, as the peer": SamplingPlanner(replace(METHODS["cem"], elites=ELITES)),
    "cem 256x6": SamplingPlanner(METHODS["cem"]),
    "mppi 256x6": SamplingPlanner(METHODS["mppi"]),
    "icem 256x6": SamplingPlanner(METHODS["icem"]),
    "icem 128x6": SamplingPlanner(replace(METHODS["icem"], samples=128, elites=10)),
    "icem 128x4, slow noise": SamplingPlanner(SLOW),
    "icem 64x6": SamplingPlanner(replace(SHORT, iterations=6)),
    "icem 64x3": SamplingPlanner(SHORT),
    "gradient 32x10": GradientPlanner(),
    "gradient 32x5": GradientPlanner(GradientSettings(steps=5)),
    "icem 64x3, gradient 8x4": Mixture(SamplingPlanner(SHORT), SETTLE),
    "icem 256x6, gradient 8x4": Mixture(SamplingPlanner(), SETTLE),
    **{f"anytime, {ms} ms": Anytime(SamplingPlanner(SMALL_CALLS), ms) for ms in (0, 10, 20, 40)},
}
# Class and options of stable-worldmodel's solvers, at about equal numbers of candidates.
PEERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "cem": ("cem", "CEMSolver", {"num_samples": SAMPLES, "n_steps": ITERATIONS, "topk": ELITES}),
    "icem": ("icem", "ICEMSolver", {"num_samples": SAMPLES, "n_steps": ITERATIONS, "topk": ELITES}),
    "mppi": ("mppi", "MPPISolver", {"num_samples": SAMPLES, "n_steps": ITERATIONS, "topk": ELITES}),
    "adam": (
        "gd",
        "GradientSolver",
        {"num_samples": 8, "n_steps": 20, "optimizer_cls": torch.optim.Adam, "optimizer_kwargs": {"lr": 0.1}},
    ),
}


def see(places: Float[Tensor, "batch time 2"]) -> Latent:
    """How places in [-1, 1]² are perceived: sixteen waves for the state, and an empty scene."""
    draw = torch.Generator().manual_seed(7)
    waves, phases = 1.5 * torch.randn(2, DIM, generator=draw), 6.3 * torch.rand(DIM, generator=draw)
    state = torch.sin(places @ waves + phases)
    return Latent(torch.stack([state, torch.zeros_like(state)], -2), torch.zeros(places.shape[:2]))


def untrained() -> JEPA:
    """The baby, whose predictor has yet to learn how a point moves in a room with a wall and a door."""
    torch.manual_seed(0)  # torch's layers take no generator
    return JEPA(sized("baby", {"point": Embodiment("point", 0.1, (-1.0, -1.0), (1.0, 1.0))})).eval()


def move(states: Float[Tensor, "batch 2"], actions: Float[Tensor, "batch 2"]) -> Float[Tensor, "batch 2"]:
    """The true world: a step in the unit disc, stopped by the walls and, but for the door, by the one at x = 0."""
    moved = (states + STEP * actions / actions.norm(dim=1, keepdim=True).clamp_min(1)).clamp(-1, 1)
    blocked = (states[:, 0].sign() != moved[:, 0].sign()) & ((moved[:, 1] - 0.3).abs() > 0.2)
    column = torch.where(blocked, states[:, 0].sign() * 1e-3, moved[:, 0])
    return torch.stack([column, moved[:, 1]], 1)


def train(model: JEPA, steps: int) -> float:
    """Teach the network by six-step rollouts; returns the last loss."""
    draw = torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    loss = torch.zeros(())
    for _ in range(steps):
        states = [2 * torch.rand(256, 2, generator=draw) - 1]
        actions = (3 * torch.rand(256, 6, 2, generator=draw) - 1.5).clamp(-1, 1)
        for step in range(6):
            states.append(move(states[-1], actions[:, step]))
        places = torch.stack(states, 1)
        belief, future = Belief("point", see(places[:, :1])), see(places[:, 1:])
        loss = model.energy(belief, actions, future).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decay.step()
    return loss.item()


@dataclass(frozen=True)
class Problem:
    """Go from one place to another, at least half a unit away."""

    start: Float[Tensor, "1 2"]
    goal: Float[Tensor, "1 2"]
    belief: Belief
    cost: GoalDistance
    seed: int


def problems(number: int, seed: int = 1) -> list[Problem]:
    """``number`` random problems."""
    draw = torch.Generator().manual_seed(seed)
    ends = 2 * torch.rand(10 * number, 2, 2, generator=draw) - 1
    ends = ends[(ends[:, 0] - ends[:, 1]).norm(dim=1) > 0.5][:number]
    belief, cost = Belief("point", see(ends[:, :1])), GoalDistance(see(ends[:, 1:]))
    picks = [torch.tensor([index]) for index in range(number)]
    return [Problem(ends[pick, 0], ends[pick, 1], belief.rows(pick), cost.rows(pick), int(pick)) for pick in picks]


Solver = Callable[[JEPA, Problem], tuple[Float[Tensor, "1 horizon 2"], int]]  # with the candidates imagined


def ours(planner: Search) -> Solver:
    """One of our planners."""

    def solve(model: JEPA, problem: Problem) -> tuple[Tensor, int]:
        generators = [torch.Generator().manual_seed(problem.seed)]
        bounds = {"low": (-1.0, -1.0), "high": (1.0, 1.0)}
        arguments = (model, problem.cost, problem.belief)
        plan = planner.plan(*arguments, horizon=HORIZON, generators=generators, **bounds)
        return plan.actions, plan.model_calls

    return solve


class Costable:
    """What the peer's solvers plan with: the same ``predict`` and cost."""

    def __init__(self, model: JEPA, cost: GoalDistance) -> None:
        self.model, self.cost, self.imagined = model, cost, 0

    def get_cost(self, info: dict[str, Tensor], candidates: Float[Tensor, "1 samples horizon 2"]) -> Tensor:
        """The peer draws without bounds; the model it plans with takes what a bounded body would do."""
        actions = candidates[0].clamp(-1, 1)
        self.imagined += len(actions)
        belief = Belief("point", Latent(info["latent"][0], torch.zeros(len(actions), 1)))
        return self.cost(self.model.predict(belief, actions, HORIZON), actions)[None]


def peers() -> dict[str, Solver]:
    """stable-worldmodel's planners; none where it is not installed."""
    found = importlib.util.find_spec("stable_worldmodel")
    if found is None or importlib.util.find_spec("loguru") is None:
        return {}
    package = ModuleType("stable_worldmodel")
    package.__path__ = list(found.submodule_search_locations or [])
    sys.modules["stable_worldmodel"] = package
    return {f"stable-worldmodel {name}": _peer(*said) for name, said in PEERS.items()}


def _peer(module: str, name: str, options: dict[str, Any]) -> Solver:
    solver_class = getattr(importlib.import_module(f"stable_worldmodel.solver.{module}"), name)

    def solve(model: JEPA, problem: Problem) -> tuple[Tensor, int]:
        import gymnasium

        costable = Costable(model, problem.cost)
        solver = solver_class(costable, seed=problem.seed, **options)
        space = gymnasium.spaces.Box(-np.ones((1, 2), np.float32), np.ones((1, 2), np.float32))
        solver.configure(action_space=space, n_envs=1, config=SimpleNamespace(horizon=HORIZON, action_block=1))
        # It prints a line for each plan, and turns gradients off itself where it needs none.
        with contextlib.redirect_stdout(io.StringIO()), torch.enable_grad():
            actions = solver.solve({"latent": problem.belief.latents.values})["actions"]
        return actions.detach().clamp(-1, 1), costable.imagined

    return solve


@dataclass(frozen=True)
class Row:
    """What one solver took and found, a number for each problem."""

    wall: list[float] = field(default_factory=list)  # ms
    spent: list[float] = field(default_factory=list)  # processor ms
    cost: list[float] = field(default_factory=list)
    success: list[bool] = field(default_factory=list)
    candidates: list[int] = field(default_factory=list)


@torch.no_grad()
def measure(model: JEPA, tasks: list[Problem], solvers: dict[str, Solver]) -> dict[str, Row]:
    """Every solver on every problem, taking turns."""
    table = {name: Row() for name in solvers}
    for solve in solvers.values():
        solve(model, tasks[0])
    for task in tasks:
        for name, solve in solvers.items():
            wall, spent = time.perf_counter(), time.process_time()
            actions, candidates = solve(model, task)
            table[name].wall.append(1e3 * (time.perf_counter() - wall))
            table[name].spent.append(1e3 * (time.process_time() - spent))
            table[name].cost.append(task.cost(model.predict(task.belief, actions, HORIZON), actions).item())
            place, far = task.start, []
            for action in actions.unbind(1):
                place = move(place, action)
                far.append((place - task.goal).norm().item())
            table[name].success.append(min(far) < NEAR)
            table[name].candidates.append(candidates)
    return table


def main() -> None:
    """Train the network, measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=60)
    parser.add_argument("--train-steps", type=int, default=400)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = untrained()
    loss = train(model, options.train_steps)
    parameters = sum(weight.numel() for part in (model.predictor, model.doors) for weight in part.parameters())
    print(f"predictor of {parameters:,} parameters, loss {loss:.4f}; {options.problems} problems, horizon {HORIZON}")
    rivals, searches = peers(), {name: ours(search) for name, search in SEARCHES.items()}
    if not rivals:
        print("stable-worldmodel is left out: it or loguru is not installed")
    table = measure(model, problems(options.problems), rivals | searches)
    first = next(iter(table.values()))
    print(
        f"{'search':26} {'candidates':>10} {'ms':>6} {'cpu ms':>6} {'longest':>7} {'success':>7} {'cost':>8} "
        f"{'minus first ± s.e.':>18} {'faster':>7}"
    )
    for name, row in table.items():
        gap = np.subtract(row.cost, first.cost)
        error = gap.std(ddof=1) / len(gap) ** 0.5
        faster = statistics.median(first.spent) / statistics.median(row.spent)
        print(
            f"{name:26} {statistics.median(row.candidates):>10.0f} {statistics.median(row.wall):>6.1f} "
            f"{statistics.median(row.spent):>6.1f} {max(row.wall):>7.1f} {statistics.mean(row.success):>7.0%} "
            f"{statistics.mean(row.cost):>8.2f} {gap.mean():>+10.2f} ± {error:<5.2f} {faster:>6.2f}x"
        )


if __name__ == "__main__":
    main()
