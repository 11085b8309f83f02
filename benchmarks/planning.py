"""Times one plan of the baby beside stable-worldmodel's CEM: the same model, problems and cost, one thread.

    python benchmarks/planning.py [--problems 60]

The peer's solver is optional: ``pip install --no-deps stable-worldmodel==0.1.1`` and ``pip install loguru``, best in an
environment of its own. Only its solver is imported, because its package as a whole asks for torchvision.
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
from dataclasses import dataclass, replace
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ami.models.jepa import JEPA, sized
from ami.planning.costs import GoalDistance
from ami.planning.sampling import METHODS, SamplingPlanner, SamplingSettings
from ami.types import Belief, Embodiment, Latent

HORIZON, SAMPLES, ITERATIONS, ELITES, DIM, STEP = 20, 256, 6, 30, 16, 0.12

# The peer's own search first (its default number of elites), then cheaper ones of ours, to find equal cost for less.
SEARCHES: dict[str, SamplingSettings] = {
    "cem 256x6, as the peer": replace(METHODS["cem"], elites=ELITES),
    "cem 256x6": METHODS["cem"],
    "mppi 256x6": METHODS["mppi"],
    "icem 256x6": METHODS["icem"],
    "icem 128x6": replace(METHODS["icem"], samples=128, elites=10),
    "icem 64x6": replace(METHODS["icem"], samples=64, elites=8),
    "icem 64x3": replace(METHODS["icem"], samples=64, elites=8, iterations=3),
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

    belief: Belief
    cost: GoalDistance
    seed: int


def problems(number: int) -> list[Problem]:
    """``number`` random problems."""
    draw = torch.Generator().manual_seed(1)
    ends = 2 * torch.rand(10 * number, 2, 2, generator=draw) - 1
    ends = ends[(ends[:, 0] - ends[:, 1]).norm(dim=1) > 0.5][:number]
    belief, cost = Belief("point", see(ends[:, :1])), GoalDistance(see(ends[:, 1:]))
    picks = [torch.tensor([index]) for index in range(number)]
    return [Problem(belief.rows(pick), cost.rows(pick), int(pick)) for pick in picks]


Solver = Callable[[JEPA, Problem], Float[Tensor, "1 horizon 2"]]


def ours(settings: SamplingSettings) -> Solver:
    """Our planner with one setting of its search."""
    planner = SamplingPlanner(settings)

    def solve(model: JEPA, problem: Problem) -> Tensor:
        generators = [torch.Generator().manual_seed(problem.seed)]
        bounds = {"low": (-1.0, -1.0), "high": (1.0, 1.0)}
        arguments = (model, problem.cost, problem.belief)
        return planner.plan(*arguments, horizon=HORIZON, generators=generators, **bounds).actions

    return solve


def peer() -> Solver | None:
    """stable-worldmodel's CEM over the same ``predict`` and cost, or ``None`` where it is not installed."""
    found = importlib.util.find_spec("stable_worldmodel")
    if found is None or importlib.util.find_spec("loguru") is None:
        return None
    package = ModuleType("stable_worldmodel")
    package.__path__ = list(found.submodule_search_locations or [])
    sys.modules["stable_worldmodel"] = package
    solver_class = importlib.import_module("stable_worldmodel.solver.cem").CEMSolver

    class Costable:
        def __init__(self, model: JEPA, cost: GoalDistance) -> None:
            self.model, self.cost = model, cost

        def get_cost(self, info: dict[str, Tensor], candidates: Float[Tensor, "1 samples horizon 2"]) -> Tensor:
            # The peer draws without bounds; the model it plans with takes what a bounded body would do.
            actions = candidates[0].clamp(-1, 1)
            belief = Belief("point", Latent(info["latent"][0], torch.zeros(len(actions), 1)))
            return self.cost(self.model.predict(belief, actions, HORIZON), actions)[None]

    def solve(model: JEPA, problem: Problem) -> Tensor:
        import gymnasium

        options: dict[str, Any] = {"num_samples": SAMPLES, "n_steps": ITERATIONS, "topk": ELITES}
        solver = solver_class(Costable(model, problem.cost), seed=problem.seed, **options)
        space = gymnasium.spaces.Box(-np.ones((1, 2), np.float32), np.ones((1, 2), np.float32))
        solver.configure(action_space=space, n_envs=1, config=SimpleNamespace(horizon=HORIZON, action_block=1))
        with contextlib.redirect_stdout(io.StringIO()):  # it prints a line for each plan
            return solver.solve({"latent": problem.belief.latents.values})["actions"].clamp(-1, 1)

    return solve


@torch.no_grad()
def measure(model: JEPA, tasks: list[Problem], solvers: dict[str, Solver]) -> dict[str, tuple[list[float], ...]]:
    """Wall and processor milliseconds and the cost found, of each solver on each problem, taking turns."""
    table: dict[str, tuple[list[float], ...]] = {name: ([], [], []) for name in solvers}
    for solve in solvers.values():
        solve(model, tasks[0])
    for task in tasks:
        for name, solve in solvers.items():
            wall, spent = time.perf_counter(), time.process_time()
            actions = solve(model, task)
            wall, spent = time.perf_counter() - wall, time.process_time() - spent
            cost = task.cost(model.predict(task.belief, actions, HORIZON), actions)
            for column, value in zip(table[name], (1e3 * wall, 1e3 * spent, cost.item()), strict=True):
                column.append(value)
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
    rival, solvers = peer(), {name: ours(settings) for name, settings in SEARCHES.items()}
    if rival is None:
        print("stable-worldmodel is left out: it or loguru is not installed")
        baseline = next(iter(solvers))
    else:
        baseline = "stable-worldmodel cem 256x6"
        solvers = {baseline: rival, **solvers}
    table = measure(model, problems(options.problems), solvers)
    print(
        f"{'search':28} {'candidates':>10} {'ms':>7} {'cpu ms':>7} {'cost':>8} {'minus first ± s.e.':>20} {'faster':>7}"
    )
    for name, (wall, spent, cost) in table.items():
        calls = sum(SEARCHES[name].schedule) + 1 if name in SEARCHES else SAMPLES * ITERATIONS
        gap = np.subtract(cost, table[baseline][2])
        error = gap.std(ddof=1) / len(gap) ** 0.5
        faster = statistics.median(table[baseline][1]) / statistics.median(spent)
        print(
            f"{name:28} {calls:>10} {statistics.median(wall):>7.1f} {statistics.median(spent):>7.1f} "
            f"{statistics.mean(cost):>8.2f} {gap.mean():>+12.2f} ± {error:<5.2f} {faster:>6.2f}x"
        )


if __name__ == "__main__":
    main()
