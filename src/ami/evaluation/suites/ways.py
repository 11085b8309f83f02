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
from ami.evaluation.suites.control import Pairs, Played, RoomsBenchmark, shown
from ami.evaluation.suites.reaching import BRIEF, BY_WAYS, ByWays, counted, share
from ami.planning.sampling import SamplingSettings
from ami.types import Latent, WorldModel
from ami.worlds.rooms import EMBODIMENT, REPEAT, SEALED, Rooms, explore, sample_pairs, sample_rooms

_WALK, _NO_PLAN = 2, 3  # uses of the rooms' keys beside theirs


@dataclass(frozen=True)
class WaysBenchmark(RoomsBenchmark):
    """Go where the picture was taken, by a search of two steps that counts the steps to go.

    With ``ahead`` start and goal are two moments of a fresh walk, so many environment steps apart, and the episode has
    twice as many. A model that has learned no ways, and the simulator, search far ahead for a small distance instead,
    as in :class:`RoomsBenchmark`; so does ``flat``, the same model.
    """

    ways: ByWays = BY_WAYS
    ahead: int = 0

    @property
    def name(self) -> str:
        """What its results are called."""
        return f"two-rooms/{self.family}/distance-{self.ahead}" if self.ahead else super().name

    @property
    def protocol(self) -> tuple[str, ...]:
        """How it is asked, a plain sentence each."""
        walks = "distance-N: start and goal are two moments of a fresh walk, N environment steps apart; it has 2 N."
        return (*super().protocol, self.ways.told, *((walks,) if self.ahead else ()))

    def pairs(self, seed: int, n: int) -> Pairs:
        """The first ``n`` pairs of an evaluation seed."""
        if not self.ahead:
            return super().pairs(seed, n)
        return Pairs.of([self._of_walk(self.rng(seed, row, _WALK)) for row in range(n)])

    def _of_walk(self, rng: np.random.Generator) -> tuple[Rooms, np.ndarray, np.ndarray]:
        while True:
            rooms = sample_rooms(self.family, 1, rng)
            walk, _ = explore(rooms, self.ahead // REPEAT + 1, rng)
            if rooms.distance(walk[0], walk[-1])[0] >= self.apart:
                return rooms, walk[0], walk[-1]

    def agent(self, model: WorldModel, goal: Latent, search: SamplingSettings, seed: int) -> Agent:
        """Who is asked: it counts steps to go, where the model has learned to."""
        if EMBODIMENT.name not in model.reaches:
            return super().agent(model, goal, search, seed)
        return self.ways.agent(model, EMBODIMENT.name, goal, seed)

    @property
    def _flat(self) -> RoomsBenchmark:
        return RoomsBenchmark(self.family, self.cross_room, steps=self.steps)

    def _baselines(self, model: WorldModel, pairs: Pairs, asking: Asking) -> Mapping[str, Played]:
        fewer = pairs.first(asking.baseline_n or len(pairs))
        flat = self._flat.plan(model, fewer, asking, "flat")
        return {"flat": flat, **super()._baselines(model, pairs, asking)}


WALL = WaysBenchmark("wall")


@dataclass(frozen=True)
class NoPlanBenchmark:
    """Say from two pictures whether there is a way at all: half a world with a door in the wall, half without.

    A model that has learned whether any way leads there is asked that; and the agent acts in imagination. Where it is
    told that none does, or does not arrive there, no plan was found. ``sealed``: there is no door, and the answer is
    right; else there is one, and it is wrong.
    """

    sealed: bool
    steps: int = 30  # imagined
    ways: ByWays = BY_WAYS
    arrived: float = 1.0  # steps to go

    @property
    def name(self) -> str:
        """What its results are called."""
        return f"two-rooms/{SEALED if self.sealed else 'reachable'}"

    @property
    def protocol(self) -> tuple[str, ...]:
        """How it is asked, a plain sentence each."""
        return (
            "no_plan: the model, where it has learned that, thinks it less than half likely that any way leads to the "
            f"goal, or the agent acts in imagination for {self.steps} steps and never comes within {self.arrived:g} "
            "steps of it; right where the wall has no door (sealed), wrong where it has one (reachable).",
        )

    def able(self, model: WorldModel) -> None:
        """``ValueError`` for a model that has not learned ways."""
        if EMBODIMENT.name not in model.reaches:
            raise ValueError(f"{self.name} asks a model that has learned ways, and this one has not")

    def run(self, model: WorldModel, n: int, asking: Asking) -> Answer:
        """Ask ``model`` about ``n`` fresh pairs in different rooms."""
        self.able(model)
        began = time.perf_counter()
        none = self._none(model, n, asking)
        others = {"always": wilson(n, n)}
        if asking.untrained is not None:
            fewer = min(n, asking.baseline_n or n)
            others["untrained"] = share(self._none(asking.untrained, fewer, asking))
        metric, seconds = "no_plan_right" if self.sealed else "no_plan_wrong", time.perf_counter() - began
        return Answer((counted(self.name, metric, none, others, seed=asking.seed, seconds=seconds),))

    def pairs(self, seed: int, n: int) -> Pairs:
        """The first ``n`` pairs of an evaluation seed; sealed ones are the others with their doors shut."""
        kind = SEALED if self.sealed else "wall"
        return Pairs.of([sample_pairs(kind, 1, WALL.rng(seed, row, _NO_PLAN), cross_room=True) for row in range(n)])

    def _none(self, model: WorldModel, n: int, asking: Asking) -> Bool[np.ndarray, "n"]:
        pairs = self.pairs(asking.seed, n)
        start, goal = (shown(pairs.rooms, place) for place in (pairs.start, pairs.goal))
        agent = self.ways.agent(model, EMBODIMENT.name, perceive(model, goal), asking.seed)
        agent = replace(agent, enough=self.arrived)
        asking.tell(self.name, 0, 1)
        plan = agent.foresee(start, self.steps)
        asking.tell(self.name, 1, 1)
        return ~plan.found.numpy(force=True)


_CROSS = tuple(WaysBenchmark(family) for family in ("fixed", "door", "wall"))
_BRIEFLY: tuple[Benchmark, ...] = tuple(replace(each, ways=BRIEF) for each in _CROSS)
_FAR = WaysBenchmark("wall", ahead=100, steps=2 * 100 // REPEAT)

_NONE: tuple[Benchmark, ...] = (NoPlanBenchmark(sealed=True), NoPlanBenchmark(sealed=False))

ASKED: tuple[tuple[Benchmark, int], ...] = tuple((each, 200) for each in (*_CROSS, _FAR, *_NONE))

SUITES: tuple[Suite, ...] = (
    Suite("plan", tuple((each, 200) for each in (*_CROSS, _FAR))),
    Suite("door", ((WaysBenchmark("door"), 200),)),
    Suite("plan-brief", tuple((each, 200) for each in _BRIEFLY)),
    Suite("no-plan", tuple((each, 200) for each in _NONE)),
)
