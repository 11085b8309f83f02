"""The same rooms with learned ways: short searches for fewer steps to go, beside the flat search of the same model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ami.agent import Agent
from ami.evaluation.benchmark import Asking, Benchmark, Suite
from ami.evaluation.suites.control import PLANNER, Pairs, Played, RoomsBenchmark
from ami.planning.costs import StepsToGo
from ami.planning.sampling import SamplingPlanner, SamplingSettings
from ami.types import Latent, WorldModel
from ami.worlds.rooms import EMBODIMENT, REPEAT, Rooms, explore, sample_rooms

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
_WALK = 2  # a use of the rooms' keys beside theirs


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
        rooms, start, goal = zip(*(self._of_walk(self._rng(seed, row, _WALK)) for row in range(n)), strict=True)
        layouts = Rooms(np.concatenate([each.wall for each in rooms]), np.concatenate([each.door for each in rooms]))
        return Pairs(layouts, np.concatenate(start), np.concatenate(goal))

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


_CROSS: tuple[Benchmark, ...] = tuple(WaysBenchmark(family) for family in ("fixed", "door", "wall"))
_FAR = WaysBenchmark("wall", ahead=100, steps=2 * 100 // REPEAT)

SUITES: tuple[Suite, ...] = (Suite("plan", tuple((each, 200) for each in (*_CROSS, _FAR))),)
