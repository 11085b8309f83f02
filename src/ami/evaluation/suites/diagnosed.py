"""Which part of an agent loses the points: the same pairs with the truth in place of one part after another."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ami.agent import Agent, perceive
from ami.evaluation.benchmark import Answer, Asking, Suite
from ami.evaluation.oracle import Knowing, Read, Reading, Tally, TrueSteps
from ami.evaluation.probes import best_ridge
from ami.evaluation.simulator import RoomsSimulator
from ami.evaluation.statistics import bootstrap_mean
from ami.evaluation.suites.control import Pairs, Played, RoomsBenchmark, shown
from ami.evaluation.suites.reaching import counted, share
from ami.planning.costs import GoalDistance, StepsToGo
from ami.planning.landmarks import StepsThrough
from ami.planning.sampling import SamplingPlanner
from ami.reasoning.readout import with_products
from ami.types import Latent, Result, WorldModel
from ami.worlds.rooms import EMBODIMENT, REPEAT, SPEED, Rooms, explore, sample_rooms

_LABELLED, _ROLLED = 6, 7  # uses of the rooms' keys beside theirs
EPISODES = 30  # of each benchmark: every part that is replaced asks them again


@dataclass(frozen=True)
class Diagnosis:
    """Ask ``of`` again, with one part of the agent after another replaced by the truth.

    Where a part that was replaced gains the most, the points were lost.
    """

    of: RoomsBenchmark
    more: int = 4  # times as many candidates, and twice as many iterations, is a better search
    labelled: int = 400  # walks of 17 steps of which a read-out of the true state learns
    rolled: int = 100  # walks that are imagined to the end
    ahead: int = 32  # steps of them
    slow: int = 8  # episodes of true dynamics, at most, where a search looks more than four steps ahead

    @property
    def name(self) -> str:
        """What its results are called."""
        return f"{self.of.name}/diagnosis"

    @property
    def protocol(self) -> tuple[str, ...]:
        """How it is asked, a plain sentence each."""
        return (
            *self.of.protocol,
            f"diagnosis: the same pairs again. search: {self.more} times as many candidates, twice as many iterations. "
            "dynamics: the simulator imagines, and the model perceives what it draws. cost: how long "
            "the true shortest way is, from where a read-out of the latent says to be. perception: all else is true, "
            "and the state is what the read-out says. all: nothing was learned.",
            f"sampled: in some search a candidate would in truth have come within {self.of.near:g} px of the goal.",
            f"usable_steps: how many steps of a fresh walk are imagined before the place is more than "
            f"{self.of.near:g} px off, {self.ahead} at most.",
        )

    def run(self, model: WorldModel, n: int, asking: Asking) -> Answer:
        """Ask ``model`` about ``n`` fresh pairs, once with each part replaced."""
        began = time.perf_counter()
        pairs, read = self.of.pairs(asking.seed, n), self._read(model, asking.seed)
        met = torch.zeros(n, dtype=torch.bool)
        played = {
            part: self.of.follow(agent, asked, asking, f"{part} (diagnosis)")
            for part, (agent, asked) in self._agents(model, pairs, read, met, asking.seed).items()
        }
        own, others = played.pop("model"), played
        seconds = time.perf_counter() - began
        results = [
            counted(
                self.name,
                metric,
                wins,
                {part: share(each.scores()[metric]) for part, each in others.items()},
                seed=asking.seed,
                seconds=seconds,
                model_calls=own.model_calls,
            )
            for metric, wins in own.scores().items()
        ]
        results.append(counted(self.name, "sampled", met.numpy(), {}, seed=asking.seed, seconds=0.0))
        results.append(self._usable(model, read, asking.seed))
        return Answer(tuple(results), notes=(self._verdict(own, others, met.numpy()),))

    def _agents(
        self, model: WorldModel, pairs: Pairs, read: Read, met: Bool[Tensor, "n"], seed: int
    ) -> Mapping[str, tuple[Agent, Pairs]]:
        """Who goes which pairs: the agent as it is, and with each part replaced."""
        simulator = RoomsSimulator().eval()
        goal = torch.from_numpy(np.concatenate([pairs.goal, pairs.rooms.wall[:, None], pairs.rooms.door[:, None]], 1))
        agent = self.of.agent(model, perceive(model, shown(pairs.rooms, pairs.goal)), self.of.planner, seed)
        tally = Tally(agent.cost, goal.float(), self._solved, met, torch.arange(len(pairs)))
        weights = agent.cost
        assert isinstance(weights, GoalDistance | StepsToGo | StepsThrough)
        true = TrueSteps(goal.float(), read, _steps, weights.sum, weights.last)
        known = replace(true, read=lambda states: states.values[:, :, 0])
        better = replace(agent, planner=self._more(agent.planner), warm_planner=self._more(agent.warm_planner))
        few = pairs if agent.horizon <= 4 else pairs.first(min(self.slow, len(pairs)))
        return {
            "model": (replace(agent, model=Knowing(model, simulator).eval(), cost=tally), pairs),
            "search": (better, pairs),
            "dynamics": (replace(agent, model=Knowing(model, simulator, dynamics=True).eval()), few),
            "cost": (replace(agent, cost=true), pairs),
            "perception": (replace(better, model=Reading(model, simulator, read).eval(), cost=known), pairs),
            "all": (replace(better, model=simulator, cost=known), pairs),
        }

    def _more(self, planner: object) -> SamplingPlanner:
        assert isinstance(planner, SamplingPlanner)
        search = planner.settings
        return SamplingPlanner(replace(search, samples=self.more * search.samples, iterations=2 * search.iterations))

    def _solved(self, truth: Float[Tensor, "rows time 4"], goal: Float[Tensor, "rows 4"]) -> Bool[Tensor, "rows time"]:
        return torch.linalg.vector_norm(truth[..., :2] - goal[:, None, :2], dim=-1) <= self.of.near

    def _read(self, model: WorldModel, seed: int) -> Read:
        """The true state, by a ridge on the numbers of a latent and their products."""
        rooms, places, _ = self._walks(self.labelled, 17, seed, _LABELLED)
        layout = np.broadcast_to(np.stack([rooms.wall, rooms.door], -1), places.shape)
        truth = torch.from_numpy(np.concatenate([places, layout], -1)).flatten(0, 1)
        seen = torch.cat([perceive(model, shown(rooms, place), together=64).values for place in places])
        held = torch.arange(len(truth)) % 5 == 0
        probe = best_ridge(with_products(seen.flatten(2)).flatten(0, 1), truth, held, ~held)

        def read(latent: Latent) -> Float[Tensor, "rows time 4"]:
            features = with_products(latent.values.flatten(2)).flatten(0, 1)
            return probe(features).float().unflatten(0, latent.times.shape)

        return read

    def _usable(self, model: WorldModel, read: Read, seed: int) -> Result:
        """How long what is imagined without another look stays near what happens."""
        began = time.perf_counter()
        rooms, places, done = self._walks(self.rolled, self.ahead + 1, seed, _ROLLED)
        belief = model.believe(None, perceive(model, shown(rooms, places[0]), together=64), None, EMBODIMENT.name)
        actions = torch.from_numpy(done).float().transpose(0, 1)
        imagined = read(model.predict(belief, actions, self.ahead))[..., :2].numpy(force=True)
        off = np.linalg.norm(imagined - places[1:].transpose(1, 0, 2), axis=-1) > self.of.near
        usable = np.where(off.any(1), off.argmax(1), self.ahead).astype(float)
        told = bootstrap_mean(usable, np.random.default_rng(seed), method="percentile")
        return Result(
            benchmark=self.name,
            metric="usable_steps",
            value=told.value,
            low=told.low,
            high=told.high,
            n=self.rolled,
            unit="steps",
            seeds=(seed,),
            interval="bootstrap 95 %, over walks",
            baselines={},
            seconds=time.perf_counter() - began,
        )

    def _walks(self, count: int, steps: int, seed: int, use: int) -> tuple[Rooms, np.ndarray, np.ndarray]:
        """Fresh layouts, the places of a walk through each and the actions between them."""
        rng = self.of.rng(seed, 0, use)
        rooms = sample_rooms(self.of.family, count, rng)
        return rooms, *explore(rooms, steps, rng)

    def _verdict(self, own: Played, others: Mapping[str, Played], met: Bool[np.ndarray, "n"]) -> str:
        """A sentence: which part gains how much, and how often the search never saw a way to the goal."""
        gains = {
            part: float(others[part].ended.mean() - own.ended[: len(others[part].ended)].mean())
            for part in ("search", "dynamics", "cost")
        }
        gains["perception"] = float(others["all"].ended.mean() - others["perception"].ended.mean())
        told = ", ".join(f"{part} {100 * gain:+.0f}" for part, gain in gains.items())
        most = max(gains, key=lambda part: gains[part])
        blame = f"most is lost by the {most}" if gains[most] > 0 else "none of them loses any"
        failed = ~own.ended
        return (
            f"{self.name}: the truth in place of a part gains, in points of success_end, {told}: {blame}. Of "
            f"{failed.sum()} episodes that do not end at the goal, no search of {(failed & ~met).sum()} ever sampled a "
            "way to it."
        )


def _steps(truth: Float[Tensor, "rows time 4"], goal: Float[Tensor, "rows 4"]) -> Float[Tensor, "rows time"]:
    """Model steps at full pace from each place to the goal, by the shortest way in the goal's layout."""
    ends = goal.double().numpy(force=True).repeat(truth.shape[1], 0)
    starts = truth[..., :2].flatten(0, 1).double().numpy(force=True)
    far = Rooms(ends[:, 2], ends[:, 3]).distance(starts, ends[:, :2]) / (SPEED * REPEAT)
    return torch.from_numpy(far).to(truth).view(truth.shape[:2])


def diagnosed(suite: Suite) -> Suite:
    """The suite that asks what loses the points of another one's benchmarks; those of Two Rooms can be asked so."""
    asked = tuple((Diagnosis(each), min(n, EPISODES)) for each, n in suite.asked if isinstance(each, RoomsBenchmark))
    if not asked:
        raise ValueError(
            f"the suite {suite.name} asks nothing of which the truth could take a part: --diagnose is for goals in Two "
            "Rooms, as rooms and plan ask"
        )
    return Suite(f"{suite.name}-diagnosed", asked)
