"""Times one plan beside stable-worldmodel's CEM: the same network, the same problems, the same cost, one thread.

    python benchmarks/planning.py [--width 192] [--problems 60] [--plain]

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
from torch import Tensor, nn

from ami.planning.costs import GoalDistance
from ami.planning.sampling import METHODS, SamplingPlanner, SamplingSettings
from ami.types import Belief, Embodiment, Latent, WorldModel

HORIZON, SAMPLES, ITERATIONS, ELITES, DIM, STEP = 20, 256, 6, 30, 32, 0.12

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


class Maze(WorldModel):
    """A residual network that learned how a point moves in a room with a wall and a door, seen as 32 waves.

    ``plain`` calls the layers as training does; otherwise a rollout without gradients reuses two blocks of memory.
    """

    def __init__(self, width: int, depth: int, plain: bool) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(7)
        self.embodiments = {"point": Embodiment("point", 0.1, (-1.0, -1.0), (1.0, 1.0))}
        self.latent_shape, self.plain = (1, DIM), plain
        self.waves, self.phases = 1.5 * torch.randn(2, DIM, generator=draw), 6.3 * torch.rand(DIM, generator=draw)
        torch.manual_seed(0)  # torch's layers take no generator
        self.state, self.action = nn.Linear(DIM, width), nn.Linear(2, width, bias=False)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.change = nn.Linear(width, DIM)
        nn.init.zeros_(self.change.weight)

    def see(self, states: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch dim"]:
        """The latent of a position in [-1, 1]²."""
        return torch.sin(states @ self.waves + self.phases)

    def predict(self, belief, actions, horizon):
        start = belief.latents.values[:, -1, 0]
        frugal = not (self.plain or torch.is_grad_enabled())
        states = self._frugal(start, actions) if frugal else self._layered(start, actions)
        times = belief.latents.times[:, -1:] + 0.1 * torch.arange(1, horizon + 1)
        return Latent(states[:, :, None], times)

    def _layered(self, state: Tensor, actions: Tensor) -> Tensor:
        states = []
        for step in range(actions.shape[1]):
            hidden = torch.relu(self.state(state) + self.action(actions[:, step]))
            for layer in self.layers:
                hidden = hidden + torch.relu(layer(hidden))
            state = state + self.change(hidden)
            states.append(state)
        return torch.stack(states, 1)

    def _frugal(self, state: Tensor, actions: Tensor) -> Tensor:
        states = state.new_empty(*actions.shape[:2], DIM)
        hidden, block = (state.new_empty(len(state), self.state.out_features) for _ in range(2))
        into, across, out = self.state.weight.t(), self.action.weight.t(), self.change.weight.t()
        layers = [(layer.bias, layer.weight.t()) for layer in self.layers]
        for step in range(actions.shape[1]):
            torch.addmm(self.state.bias, state, into, out=hidden).addmm_(actions[:, step], across).relu_()
            for bias, weight in layers:
                hidden += torch.addmm(bias, hidden, weight, out=block).relu_()
            state = torch.addmm(self.change.bias, hidden, out).add_(state)
            states[:, step] = state
        return states


def move(states: Float[Tensor, "batch 2"], actions: Float[Tensor, "batch 2"]) -> Float[Tensor, "batch 2"]:
    """The true world: a step in the unit disc, stopped by the walls and, but for the door, by the one at x = 0."""
    moved = (states + STEP * actions / actions.norm(dim=1, keepdim=True).clamp_min(1)).clamp(-1, 1)
    blocked = (states[:, 0].sign() != moved[:, 0].sign()) & ((moved[:, 1] - 0.3).abs() > 0.2)
    column = torch.where(blocked, states[:, 0].sign() * 1e-3, moved[:, 0])
    return torch.stack([column, moved[:, 1]], 1)


def train(model: Maze, steps: int) -> float:
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
        latents = model.see(torch.stack(states, 1))
        belief = Belief("point", Latent(latents[:, :1, None], torch.zeros(256, 1)))
        loss = (model.predict(belief, actions, 6).values[:, :, 0] - latents[:, 1:]).square().mean()
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


def problems(model: Maze, number: int) -> list[Problem]:
    """``number`` random problems."""
    draw = torch.Generator().manual_seed(1)
    ends = 2 * torch.rand(10 * number, 2, 2, generator=draw) - 1
    ends = ends[(ends[:, 0] - ends[:, 1]).norm(dim=1) > 0.5][:number]
    latents = [Latent(model.see(ends[:, which])[:, None, None], torch.zeros(number, 1)) for which in (0, 1)]
    belief, cost = Belief("point", latents[0]), GoalDistance(latents[1])
    picks = [torch.tensor([index]) for index in range(number)]
    return [Problem(belief.rows(pick), cost.rows(pick), int(pick)) for pick in picks]


Solver = Callable[[Maze, Problem], Float[Tensor, "1 horizon 2"]]


def ours(settings: SamplingSettings) -> Solver:
    """Our planner with one setting of its search."""
    planner = SamplingPlanner(settings)

    def solve(model: Maze, problem: Problem) -> Tensor:
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
        def __init__(self, model: Maze, cost: GoalDistance) -> None:
            self.model, self.cost = model, cost

        def get_cost(self, info: dict[str, Tensor], candidates: Float[Tensor, "1 samples horizon 2"]) -> Tensor:
            # The peer draws without bounds; the model it plans with takes what a bounded body would do.
            actions = candidates[0].clamp(-1, 1)
            belief = Belief("point", Latent(info["latent"][0], torch.zeros(len(actions), 1)))
            return self.cost(self.model.predict(belief, actions, HORIZON), actions)[None]

    def solve(model: Maze, problem: Problem) -> Tensor:
        import gymnasium

        options: dict[str, Any] = {"num_samples": SAMPLES, "n_steps": ITERATIONS, "topk": ELITES}
        solver = solver_class(Costable(model, problem.cost), seed=problem.seed, **options)
        space = gymnasium.spaces.Box(-np.ones((1, 2), np.float32), np.ones((1, 2), np.float32))
        solver.configure(action_space=space, n_envs=1, config=SimpleNamespace(horizon=HORIZON, action_block=1))
        with contextlib.redirect_stdout(io.StringIO()):  # it prints a line for each plan
            return solver.solve({"latent": problem.belief.latents.values})["actions"].clamp(-1, 1)

    return solve


@torch.no_grad()
def measure(model: Maze, tasks: list[Problem], solvers: dict[str, Solver]) -> dict[str, tuple[list[float], ...]]:
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
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--problems", type=int, default=60)
    parser.add_argument("--train-steps", type=int, default=400)
    parser.add_argument("--plain", action="store_true", help="call the layers as training does")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = Maze(options.width, options.depth, options.plain)
    loss = train(model, options.train_steps)
    parameters = sum(weight.numel() for weight in model.parameters())
    print(f"predictor of {parameters:,} parameters, loss {loss:.4f}; {options.problems} problems, horizon {HORIZON}")
    rival, solvers = peer(), {name: ours(settings) for name, settings in SEARCHES.items()}
    if rival is None:
        print("stable-worldmodel is left out: it or loguru is not installed")
        baseline = next(iter(solvers))
    else:
        baseline = "stable-worldmodel cem 256x6"
        solvers = {baseline: rival, **solvers}
    table = measure(model, problems(model, options.problems), solvers)
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
