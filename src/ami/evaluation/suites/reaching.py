"""What all benchmarks of reaching goals share: shares with intervals, by distance, and which episodes to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float

from ami.agent import Agent
from ami.evaluation.statistics import wilson
from ami.planning.costs import Doubt, StepsToGo
from ami.planning.landmarks import Landmarks, StepsThrough
from ami.planning.proposed import Proposed
from ami.planning.sampling import SamplingPlanner, SamplingSettings
from ami.types import Interval, Latent, Result, WorldModel

# A short search, said in full like the long one of the suites without ways.
SHORT = SamplingSettings(
    samples=64,
    iterations=4,
    elites=8,
    refit="equal",
    init_std=1.0,
    min_std=0.02,
    momentum=0.0,
    colour=0.0,
    fine=0.5,
    keep=0,
    shrink=1.0,
    together=1,
)


@dataclass(frozen=True)
class ByWays:
    """How an agent is asked that has learned how far things are: it searches a little for fewer steps to go."""

    search: SamplingSettings = SHORT
    warm_iterations: int = 2  # when replanning from what is left of the last plan
    horizon: int = 2
    places: int = 30  # that the agent remembers, to fill pits
    pace: float = 0.5  # steps that each step should bring it nearer
    enough: float = 2.0  # steps to go with which it has arrived
    sure: float = 3.0  # steps that are counted directly; more are counted through landmarks, where a model keeps some
    through: bool = True  # landmarks, if there are any

    @property
    def told(self) -> str:
        """How it is asked, for a protocol."""
        return (
            f"A model that has learned ways searches for fewer steps to go: {self.search.samples} candidates × "
            f"{self.search.iterations} iterations over {self.horizon} steps, replanned every step with "
            f"{self.warm_iterations}. Where it keeps landmarks, more than {self.sure:g} steps are counted through "
            "them; the row count (the same model) does without. Who imitates does what the model proposes, without a "
            "search. The row flat (the same model) searches for a small "
            "distance, as the row simulator does."
        )

    def agent(self, model: WorldModel, embodiment: str, goal: Latent, seed: int) -> Agent:
        """It replans at every step; as who imitates, it does what the model proposes."""
        known = Landmarks.of(model, embodiment, self.sure) if self.through else None
        count = StepsToGo(goal, lambda now, there: model.reach(now, there, embodiment), sum=1.0, last=0.0)
        if embodiment in model.imitates:
            return Agent(model, embodiment, count, Proposed(goal), horizon=1, replan_every=1, seed=seed)
        return Agent(
            model,
            embodiment,
            count if known is None else StepsThrough.to(goal, known, sum=1.0, last=0.0),
            SamplingPlanner(self.search),
            SamplingPlanner(replace(self.search, iterations=self.warm_iterations)),
            horizon=self.horizon,
            replan_every=1,
            seed=seed,
            places=self.places,
            pace=self.pace,
            enough=self.enough,
            doubt=Doubt.of(model, goal, embodiment),
        )


BY_WAYS = ByWays()

# With one call of the model for each action: what a robot does that has two milliseconds (benchmarks/acting.py).
BRIEF = ByWays(search=replace(SHORT, samples=16, iterations=1, settle=False), warm_iterations=1, horizon=1)


class Attempt(Protocol):
    """Somebody's try at some pairs of start and goal, the first ones of all."""

    @property
    def model_calls(self) -> int:
        """Futures imagined, all episodes together."""
        ...

    def scores(self) -> dict[str, Bool[np.ndarray, "n"]]:
        """Who succeeded, by metric."""
        ...


@dataclass(frozen=True)
class Distances:
    """How far every goal is, and the ranges in which success is told apart."""

    far: Float[np.ndarray, "n"]
    bins: Sequence[float]
    unit: str
    rows: tuple[str, ...]  # whose success is told: the model's and these baselines'

    def told(self, metric: str, attempts: Mapping[str, Attempt]) -> list[dict[str, Any]]:
        """Success in every range that holds a goal."""
        found = []
        for low, high in zip(self.bins[:-1], self.bins[1:], strict=True):
            inside = (self.far >= low) & (self.far < high)
            rows = {}
            for name, attempt in attempts.items():
                wins = attempt.scores()[metric]
                if name in self.rows and inside[: len(wins)].any():
                    held = share(wins[inside[: len(wins)]])
                    rows[name] = {"value": held.value, "low": held.low, "high": held.high}
            if inside.any():
                found.append({"low": low, "high": high, "unit": self.unit, "n": int(inside.sum()), "rows": rows})
        return found


def share(wins: Bool[np.ndarray, "n"]) -> Interval:
    """How often it went well, with Wilson's interval."""
    return wilson(int(wins.sum()), len(wins))


def results(
    name: str,
    attempts: Mapping[str, Attempt],
    distances: Distances,
    log: Sequence[Mapping[str, Any]],
    *,
    seed: int,
    seconds: float,
) -> tuple[Result, ...]:
    """A result for each metric: the attempt called ``model``, with all others as its baselines."""
    model, others = attempts["model"], {who: each for who, each in attempts.items() if who != "model"}
    return tuple(
        counted(
            name,
            metric,
            wins,
            {who: share(other.scores()[metric]) for who, other in others.items()},
            seed=seed,
            seconds=seconds,
            model_calls=model.model_calls,
            details={"by_distance": distances.told(metric, attempts), "episodes": log},
        )
        for metric, wins in model.scores().items()
    )


def counted(
    name: str,
    metric: str,
    wins: Bool[np.ndarray, "n"],
    baselines: Mapping[str, Interval],
    *,
    seed: int,
    seconds: float,
    model_calls: int = 0,
    details: Mapping[str, Any] | None = None,
) -> Result:
    """How often something happened in episodes, as a result."""
    told = share(wins)
    return Result(
        benchmark=name,
        metric=metric,
        value=told.value,
        low=told.low,
        high=told.high,
        n=len(wins),
        unit="share",
        seeds=(seed,),
        interval="Wilson 95 %",
        baselines=baselines,
        seconds=seconds,
        model_calls=model_calls,
        details=details,
    )


def telling(
    reached: Bool[np.ndarray, "n"], ended: Bool[np.ndarray, "n"], far: Float[np.ndarray, "n"], count: int
) -> list[int]:
    """Episodes to show: one that arrived, one that did not, the farthest goal, and then simply the first ones."""
    wanted = [*np.flatnonzero(ended)[:1], *np.flatnonzero(~reached)[:1], far.argmax()]
    return list(dict.fromkeys(int(row) for row in (*wanted, *range(len(reached)))))[:count]
