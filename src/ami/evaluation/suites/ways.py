"""The same rooms with learned ways: short searches for fewer steps to go, beside the flat search of the same model."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool

from ami.agent import Agent, perceive
from ami.evaluation.benchmark import Answer, Asking, Benchmark, Suite
from ami.evaluation.statistics import wilson
from ami.evaluation.suites.control import PLANNER, Pairs, Played, RoomsBenchmark, shown
from ami.evaluation.suites.reaching import share
from ami.planning.costs import StepsToGo
from ami.planning.sampling import SamplingPlanner, SamplingSettings
from ami.types import Latent, Result, WorldModel
from ami.worlds.rooms import EMBODIMENT, REPEAT, SEALED, Rooms, explore, sample_pairs, sample_rooms

# Said in full, like the long search of the suites without ways.
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
_WALK, _NO_PLAN = 2, 3  # uses of the rooms' keys beside theirs


@dataclass(frozen=True)
class WaysBenchmark(RoomsBenchmark):
    """Go where the picture was taken, by a search of two steps that counts the steps to go.

    With ``ahead`` start and goal are two moments of a fresh walk, so many environment steps apart, and the episode has
    twice as many. A model that has learned no ways, and the simulator, search far ahead for a small distance instead,
    as in :class:`RoomsBenchmark`; so does ``flat``, the same model.
    """

    planner: SamplingSettings = SHORT
    warm_iterations: int = 2
    horizon: int = 2
    replan_every: int = 1
    ahead: int = 0
    places: int = 30  # that the agent remembers
    enough: float = 2.0  # steps to go with which it has arrived

    @property
    def name(self) -> str:
        """What its results are called."""
        return f"two-rooms/{self.family}/distance-{self.ahead}" if self.ahead else super().name

    @property
    def protocol(self) -> tuple[str, ...]:
        """How it is asked, a plain sentence each."""
        walks = "distance-N: start and goal are two moments of a fresh walk, N environment steps apart; it has 2 N."
        cost = "The search adds up the steps to go that the model has learned to tell; flat: its distances of latents."
        return (*super().protocol, cost, *((walks,) if self.ahead else ()))

    def pairs(self, seed: int, n: int) -> Pairs:
        """The first ``n`` pairs of an evaluation seed."""
        if not self.ahead:
            return super().pairs(seed, n)
        return Pairs.of([self._of_walk(self._rng(seed, row, _WALK)) for row in range(n)])

    def _of_walk(self, rng: np.random.Generator) -> tuple[Rooms, np.ndarray, np.ndarray]:
        while True:
            rooms = sample_rooms(self.family, 1, rng)
            walk, _ = explore(rooms, self.ahead // REPEAT + 1, rng)
            if rooms.distance(walk[0], walk[-1])[0] >= self.apart:
                return rooms, walk[0], walk[-1]

    def _agent(self, model: WorldModel, goal: Latent, search: SamplingSettings, seed: int) -> Agent:
        if EMBODIMENT.name not in model.reaches:
            return self._flat._agent(model, goal, replace(PLANNER, together=search.together), seed)
        return Agent(
            model,
            EMBODIMENT.name,
            StepsToGo(goal, lambda now, there: model.reach(now, there, EMBODIMENT.name), sum=1.0, last=0.0),
            SamplingPlanner(search),
            SamplingPlanner(replace(search, iterations=self.warm_iterations, fine=self.warm_fine)),
            horizon=self.horizon,
            replan_every=self.replan_every,
            seed=seed,
            places=self.places,
            enough=self.enough,
        )

    @property
    def _flat(self) -> RoomsBenchmark:
        return RoomsBenchmark(self.family, self.cross_room, steps=self.steps)

    def _baselines(self, model: WorldModel, pairs: Pairs, asking: Asking) -> Mapping[str, Played]:
        fewer = pairs.first(asking.baseline_n or len(pairs))
        flat = self._flat.plan(model, fewer, asking, "flat")
        return {"flat": flat, **super()._baselines(model, pairs, asking)}


@dataclass(frozen=True)
class NoPlanBenchmark:
    """Say from two pictures whether there is a way at all: half a world with a door in the wall, half without.

    The agent acts in imagination; where it does not arrive there, no plan was found. ``sealed``: there is no door, and
    the answer is right; else there is one, and it is wrong.
    """

    sealed: bool
    steps: int = 30  # imagined
    ways: WaysBenchmark = WaysBenchmark("wall")
    arrived: float = 1.0  # steps to go

    @property
    def name(self) -> str:
        """What its results are called."""
        return f"two-rooms/{SEALED if self.sealed else 'reachable'}"

    @property
    def protocol(self) -> tuple[str, ...]:
        """How it is asked, a plain sentence each."""
        return (
            f"no_plan: the agent acts in imagination for {self.steps} steps and never comes within {self.arrived:g} "
            "steps of the goal; right where the wall has no door (sealed), wrong where it has one (reachable).",
        )

    def run(self, model: WorldModel, n: int, asking: Asking) -> Answer:
        """Ask ``model`` about ``n`` fresh pairs in different rooms."""
        if EMBODIMENT.name not in model.reaches:
            raise ValueError(f"{self.name} asks a model that has learned ways, and this one has not")
        began = time.perf_counter()
        none = self._none(model, n, asking)
        others = {"always": wilson(n, n)}
        if asking.untrained is not None:
            fewer = min(n, asking.baseline_n or n)
            others["untrained"] = share(self._none(asking.untrained, fewer, asking))
        told = share(none)
        found = Result(
            benchmark=self.name,
            metric="no_plan_right" if self.sealed else "no_plan_wrong",
            value=told.value,
            low=told.low,
            high=told.high,
            n=n,
            unit="share",
            seeds=(asking.seed,),
            interval="Wilson 95 %",
            baselines=others,
            seconds=time.perf_counter() - began,
        )
        return Answer((found,))

    def _none(self, model: WorldModel, n: int, asking: Asking) -> Bool[np.ndarray, "n"]:
        drawn = [
            sample_pairs(
                SEALED if self.sealed else "wall", 1, self.ways._rng(asking.seed, row, _NO_PLAN), cross_room=True
            )
            for row in range(n)
        ]
        pairs = Pairs.of(drawn)
        start, goal = (shown(pairs.rooms, place) for place in (pairs.start, pairs.goal))
        search = self.ways.planner
        agent = replace(self.ways._agent(model, perceive(model, goal), search, asking.seed), enough=self.arrived)
        asking.tell(self.name, 0, 1)
        plan = agent.foresee(start, self.steps)
        asking.tell(self.name, 1, 1)
        return ~plan.found.numpy(force=True)


_CROSS: tuple[Benchmark, ...] = tuple(WaysBenchmark(family) for family in ("fixed", "door", "wall"))
_FAR = WaysBenchmark("wall", ahead=100, steps=2 * 100 // REPEAT)

_NONE: tuple[Benchmark, ...] = (NoPlanBenchmark(sealed=True), NoPlanBenchmark(sealed=False))

SUITES: tuple[Suite, ...] = (Suite("plan", tuple((each, 200) for each in (*_CROSS, _FAR, *_NONE))),)
