"""Reaching states of simulated tasks that are shown as pictures: LeWM's protocol, and one by distance."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from ami.agent import Agent, perceive
from ami.evaluation.benchmark import Answer, Asking, Benchmark, Suite
from ami.evaluation.simulator import PlaceDistance, TaskSimulator
from ami.evaluation.strips import Strip
from ami.evaluation.suites.control import PLANNER
from ami.evaluation.suites.reaching import BY_WAYS, ByWays, Distances, results, telling
from ami.planning.costs import GoalDistance
from ami.planning.sampling import SamplingPlanner, SamplingSettings
from ami.types import Clip, Latent, WorldModel
from ami.worlds.task import REPEAT, Task
from ami.worlds.tasks import TASKS

# Evaluation draws from keys (this, world, seed, row, ...); collecting draws from (seed, episode), so they never meet.
_KEY = 0x5441534B
_PAIR, _RANDOM = range(2)
_TRIES = 1000  # episodes recorded for one pair, at most; most begin with one that is not solved


@dataclass(frozen=True)
class Pairs:
    """Where each episode begins and what it shall reach: two states of one recorded episode."""

    task: Task
    start: Float[np.ndarray, "n truth"]
    goal: Float[np.ndarray, "n truth"]
    ahead: Int[np.ndarray, "n"]  # environment steps from one to the other, as they were recorded

    def __len__(self) -> int:
        return len(self.start)

    def first(self, n: int) -> Pairs:
        """The first ``n`` of them."""
        return Pairs(self.task, self.start[:n], self.goal[:n], self.ahead[:n])


@dataclass(frozen=True)
class Played:
    """What happened: the state of every episode after each environment step, and what it took."""

    path: Float[np.ndarray, "steps+1 n truth"]  # the start first
    solved: Bool[np.ndarray, "steps+1 n"]  # and never once an episode's budget is spent
    ended: Bool[np.ndarray, "n"]  # at the goal when the budget is spent
    model_calls: int = 0  # futures imagined, all episodes together

    @property
    def reached(self) -> Bool[np.ndarray, "n"]:
        """Ever at the goal."""
        return np.asarray(self.solved.any(0))

    def scores(self) -> dict[str, Bool[np.ndarray, "n"]]:
        """By metric."""
        return {"success_ever": self.reached, "success_end": self.ended}


# States (n, truth) and number of the model step to an action (n, action).
Choose = Callable[[np.ndarray, int], np.ndarray]


@dataclass(frozen=True)
class TaskBenchmark:
    """Bring a world into the state that a picture shows. The protocol is pinned here; the suite's digest covers it.

    The benchmark records its own episodes, from a key for each (world, seed, row) that no training data is drawn with.
    A pair is two states of one of them; pairs that begin solved are dropped, and the next episode takes their place.
    The model sees pictures and nothing else; success is judged by the simulator's state.
    """

    world: str
    label: str
    ahead: tuple[int, int]  # environment steps from start to goal as recorded, at least and at most
    success: str  # in words; the world itself judges, and must judge so
    patience: int = 2  # an episode has so many times the steps that the goal is ahead
    before: int = 20  # model steps of the recorded episode before the start, at most
    bins: tuple[float, ...] = ()  # of the steps ahead; empty: not told apart
    planner: SamplingSettings = PLANNER
    warm_iterations: int = 3  # when replanning from what is left of the last plan
    horizon: int = 8
    replan_every: int = 1
    distance: str = "l2"  # of latents
    weights: tuple[float, float, float] = (1.0, 5.0, 1.0)  # of the path's sum, its last step and its nearest
    ways: ByWays = BY_WAYS  # of a model that has learned how far things are
    simulated: int = 8  # episodes of the row "simulator", at most; 0: none
    simulator_samples: int = 48  # candidates that it imagines, in as many iterations as the warm ones

    def __post_init__(self) -> None:
        if self.world not in TASKS:
            raise ValueError(f"there is no task '{self.world}'; choose one of {', '.join(TASKS)}")
        if self.success != TASKS[self.world].success:
            raise ValueError(
                f"'{self.world}' succeeds when {TASKS[self.world].success}, and this asks for {self.success}"
            )
        least, most = self.ahead
        if not REPEAT <= least <= most or least % REPEAT or most % REPEAT:
            raise ValueError(f"goals lie {least} to {most} steps ahead; both must be multiples of {REPEAT}, in order")

    @property
    def name(self) -> str:
        """What its results are called."""
        return f"{self.world}/{self.label}"

    @property
    def protocol(self) -> tuple[str, ...]:
        """How it is asked, a plain sentence each."""
        least, most = self.ahead
        far = f"{least}" if least == most else f"{least} to {most}"
        return (
            f"{self.name}: start and goal are two states of one episode, {far} environment steps apart; the episodes "
            "are recorded by the benchmark with keys that no training data is drawn with.",
            "Pairs that begin solved are dropped, and others are drawn in their place.",
            f"An episode has {self.patience} times the environment steps that its goal is ahead; an action is held for "
            f"{REPEAT} of them.",
            f"{self.world}: the goal is reached when {self.success}.",
            "success_ever: after any environment step. success_end: after the last one.",
            "The model sees pictures only, the goal's too; success is judged by the simulator's state.",
            f"Planning: {self.planner.samples} candidates × {self.planner.iterations} iterations over {self.horizon} "
            f"steps, replanned every {self.replan_every} with {self.warm_iterations} iterations; the row 'simulator' "
            f"has {self.simulator_samples} candidates × {self.warm_iterations}, for it is slow.",
            self.ways.told,
        )

    def pairs(self, task: Task, seed: int, n: int) -> Pairs:
        """The first ``n`` pairs of an evaluation seed."""
        drawn = [self._pair(task, seed, row) for row in range(n)]
        start, goal, ahead = zip(*drawn, strict=True)
        return Pairs(task, np.stack(start), np.stack(goal), np.array(ahead))

    def able(self, model: WorldModel) -> None:
        """``ValueError`` for a model that never acted in this world."""
        if self.world not in model.embodiments:
            known = ", ".join(model.embodiments) or "none"
            raise ValueError(f"the model never acted in '{self.world}'; it knows the embodiments {known}")

    def run(self, model: WorldModel, n: int, asking: Asking) -> Answer:
        """Ask ``model`` with ``n`` fresh pairs; two results, and a few films."""
        if n < 1:
            raise ValueError(f"{n} pairs were asked for; a result needs at least one")
        self.able(model)
        pairs = self.pairs(TASKS[self.world](), asking.seed, n)
        began = time.perf_counter()
        played = self.plan(model, pairs, asking)
        seconds = time.perf_counter() - began
        attempts = {"model": played, **self._baselines(pairs, asking)}
        if self.world in model.reaches:
            attempts["flat"] = self.plan(model, pairs.first(asking.baseline_n or n), asking, "flat", flat=True)
        if model.landmarks(self.world) is not None:
            alone = replace(self, ways=replace(self.ways, through=False))
            attempts["count"] = alone.plan(model, pairs.first(asking.baseline_n or n), asking, "count")
        log = [_episode(pairs, played, row) for row in range(n)]
        told = Distances(
            pairs.ahead, self.bins, "environment steps", ("model", "count", "flat", "random", "script", "simulator")
        )
        found = results(self.name, attempts, told, log, seed=asking.seed, seconds=seconds)
        return Answer(found, self._strips(pairs, played, asking))

    def plan(
        self, model: WorldModel, pairs: Pairs, asking: Asking, what: str = "model", *, flat: bool = False
    ) -> Played:
        """Let ``model`` find its ways by planning; the simulator is shown the truth, any other model the pictures.

        ``flat``: by a long search for a small distance, though it has learned how far things are.
        """
        knows, task = isinstance(model, TaskSimulator), pairs.task
        search = self.planner
        if knows:
            search = replace(search, samples=self.simulator_samples, iterations=self.warm_iterations)

        def seen(states: np.ndarray, step: int) -> Clip:
            return _clip(task, states, step, knows)

        goal = perceive(model, seen(pairs.goal, 0))
        if self.world in model.reaches and not flat:
            agent = self.ways.agent(model, self.world, goal, asking.seed)
        else:
            agent = self._agent(model, goal, task, search, asking.seed)
        state, calls, steps = None, 0, self._steps(pairs)

        def choose(states: np.ndarray, step: int) -> np.ndarray:
            nonlocal state, calls
            action, state = agent.act(state, seen(states, step))
            calls += state.plan.model_calls * len(pairs) if state.since_plan == 1 else 0
            asking.tell(f"{self.name}: {what}", step + 1, steps)
            return action.numpy(force=True)

        return replace(self.play(pairs, choose), model_calls=calls)

    def _agent(self, model: WorldModel, goal: Latent, task: Task, search: SamplingSettings, seed: int) -> Agent:
        """Who is asked: it goes where the goal's latent is near."""
        path, last, nearest = self.weights
        cost = GoalDistance(goal, self.distance, sum=path, last=last, min=nearest)
        return Agent(
            model,
            self.world,
            PlaceDistance(cost, task) if isinstance(model, TaskSimulator) else cost,
            SamplingPlanner(search),
            SamplingPlanner(replace(search, iterations=self.warm_iterations)),
            horizon=self.horizon,
            replan_every=self.replan_every,
            seed=seed,
        )

    def play(self, pairs: Pairs, choose: Choose) -> Played:
        """Run all episodes side by side, and judge them by the true state until each one's budget is spent."""
        path = [pairs.start[None]]
        for step in range(self._steps(pairs)):
            acted = zip(path[-1][-1], choose(path[-1][-1], step), strict=True)
            path.append(np.stack([pairs.task.step(state, action) for state, action in acted], 1))
        path = np.concatenate(path)
        budget = self.patience * pairs.ahead
        solved = pairs.task.solved(path, pairs.goal) & (np.arange(len(path))[:, None] <= budget)
        return Played(path, solved, solved[budget, np.arange(len(pairs))])

    def _steps(self, pairs: Pairs) -> int:
        return self.patience * int(pairs.ahead.max()) // REPEAT

    def _baselines(self, pairs: Pairs, asking: Asking) -> Mapping[str, Played]:
        task, shape = pairs.task, (self._steps(pairs), len(pairs.task.low))
        draws = np.stack(
            [self._rng(asking.seed, row, _RANDOM).uniform(task.low, task.high, shape) for row in range(len(pairs))], 1
        )
        scripts = [task.script(goal) for goal in pairs.goal]
        played = {
            "random": self.play(pairs, lambda states, step: draws[step]),
            "zero-action": self.play(pairs, lambda states, step: np.zeros_like(draws[step])),
            "script": self.play(
                pairs, lambda states, step: np.stack([act(each) for act, each in zip(scripts, states, strict=True)])
            ),
        }
        fewer = pairs.first(asking.baseline_n or len(pairs))
        if asking.untrained is not None:
            played["untrained"] = self.plan(asking.untrained, fewer, asking, "untrained")
        if self.simulated:
            some = pairs.first(min(self.simulated, len(fewer)))
            played["simulator"] = self.plan(TaskSimulator(task).eval(), some, asking, "simulator")
        return played

    def _pair(self, task: Task, seed: int, row: int) -> tuple[np.ndarray, np.ndarray, int]:
        rng = self._rng(seed, row, _PAIR)
        for _ in range(_TRIES):
            ahead = int(rng.integers(self.ahead[0] // REPEAT, self.ahead[1] // REPEAT + 1))
            begin = int(rng.integers(self.before + 1))
            states, _ = task.walk(task.start(rng), task.explorer(rng), begin + ahead)
            if not task.solved(states[begin], states[-1]):
                return states[begin], states[-1], REPEAT * ahead
        raise ValueError(f"{self.name}: of {_TRIES} pairs none began unsolved; ask for goals that are farther ahead")

    def _strips(self, pairs: Pairs, played: Played, asking: Asking) -> tuple[Strip, ...]:
        strips = []
        for row in telling(played.reached, played.ended, pairs.ahead, asking.strips):
            budget = self.patience * int(pairs.ahead[row])
            moments = np.unique(np.linspace(0, budget, 8).round().astype(int))
            strips.append(
                Strip(
                    title=f"{self.name}, episode {row}: {pairs.ahead[row]} environment steps to go",
                    real=np.stack([pairs.task.render(state) for state in played.path[moments, row]]),
                    imagined=None,
                    goal=pairs.task.render(pairs.goal[row]),
                    caption=_outcome(played, row, budget),
                )
            )
        return tuple(strips)

    def _rng(self, seed: int, row: int, use: int) -> np.random.Generator:
        return np.random.default_rng((_KEY, *self.world.encode(), *self.ahead, seed, row, use))


def _clip(task: Task, states: Float[np.ndarray, "n truth"], step: int, truth: bool) -> Clip:
    """What is seen at one step: the picture, or the truth."""
    times = torch.full((len(states), 1), step * task.body().step_seconds)
    if truth:
        return Clip(task.name, times, truth=torch.from_numpy(states[:, None]).float())
    pictures = torch.from_numpy(np.stack([task.render(state) for state in states]))
    return Clip(task.name, times, video=pictures[:, None, None].permute(0, 1, 2, 5, 3, 4))


def _episode(pairs: Pairs, played: Played, row: int) -> dict[str, Any]:
    """A line of the episode log; states in the world's own units."""
    return {
        "start": pairs.start[row].round(4).tolist(),
        "goal": pairs.goal[row].round(4).tolist(),
        "ahead": int(pairs.ahead[row]),
        "ever": bool(played.reached[row]),
        "end": bool(played.ended[row]),
    }


def _outcome(played: Played, row: int, budget: int) -> str:
    if not played.reached[row]:
        return f"never reached the goal in {budget} environment steps"
    stayed = "and was there at the end" if played.ended[row] else "and was gone at the end"
    return f"reached the goal after {int(played.solved[:, row].argmax())} of {budget} environment steps {stayed}"


def _asked(world: str, label: str, least: int, most: int, simulated: int, **pinned: Any) -> tuple[Benchmark, int]:
    return TaskBenchmark(world, label, (least, most), TASKS[world].success, simulated=simulated, **pinned), 200


def _lewm(world: str, simulated: int = 8) -> tuple[Benchmark, int]:
    return _asked(world, "lewm", 25, 25, simulated)


def _distance(world: str, simulated: int = 0) -> tuple[Benchmark, int]:
    return _asked(world, "distance", 5, 150, simulated, bins=(5.0, 30.0, 60.0, 90.0, 120.0, 151.0))


# What is asked of who learned them all: fifty pairs each, as in LeWM's paper, and few of them of the slow simulators.
ASKED: tuple[tuple[Benchmark, int], ...] = tuple(
    (_asked(world, label, ahead, ahead, simulated=2)[0], 50)
    for world, label, ahead in (*((world, "lewm", 25) for world in TASKS), ("point-maze", "distance-100", 100))
)

# The row "simulator" costs minutes an episode where the simulator is slow and the goal far; there it is left out.
SUITES: tuple[Suite, ...] = (
    Suite("push-t", (_lewm("push-t"), _distance("push-t"))),
    Suite("reacher", (_lewm("reacher"), _distance("reacher", 8))),
    Suite(
        "point-maze",
        (_lewm("point-maze"), _distance("point-maze", 4), _asked("point-maze", "distance-100", 100, 100, 4)),
    ),
    Suite("cube", (_lewm("cube", 4), _distance("cube"))),
)
