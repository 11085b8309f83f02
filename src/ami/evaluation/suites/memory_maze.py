"""Memory Maze 9x9: go to the colour that is asked for, again and again, in a maze that nobody has told of."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ami.evaluation.benchmark import Answer, Asking, Suite
from ami.evaluation.seeking import Legs, Seeker, Sight, fit_sight
from ami.evaluation.statistics import bootstrap_mean
from ami.nn.places import between
from ami.planning.routes import Field, Routes, follow
from ami.types import Clip, Interval, Latent, Result, WorldModel
from ami.worlds.memory_maze import (
    EMBODIMENT,
    HALF,
    NAME,
    STRIDE,
    TURN,
    MemoryMaze,
    Seen,
    Walkable,
    collect,
    nearest,
    planar,
    shown,
    told,
)

_KEY = 0x4D4D  # evaluation draws from (this, seed, row, use); collecting from a bare seed
_EPISODE, _PLAYER, _WALKS = range(3)
# Mean scores of 1,000 steps, that of Dreamer with TBTT; Pasukonis, Lillicrap and Hafner 2022, arXiv:2210.13383.
_PUBLISHED = {"human, published": 26.4, "oracle, published": 34.8, "Dreamer, published": 33.2}

Player = Callable[[Seen, Walkable], int]  # what is seen, and the maze, which only who is told all may look into


@dataclass(frozen=True)
class Played:
    """What happened in one episode."""

    score: float  # colours reached
    late: float  # of them in the second half
    lost: float  # metres between where one believed to be at the end and was, 0 for who does not believe


@dataclass(frozen=True)
class MemoryMazeBenchmark:
    """Whole episodes of the task itself. The protocol is pinned here."""

    steps: int = 1000
    window: int = 8  # steps that the twin without memory remembers
    walks: int = 20  # from which it is learned to tell what a latent shows
    walked: int = 250  # steps of each
    taught: int = 2000  # steps of that learning

    name = "memory-maze/9x9"

    least = 2  # episodes: intervals are over them

    @property
    def protocol(self) -> tuple[str, ...]:
        """How it is asked, a plain sentence each."""
        return (
            f"{self.name}: Memory Maze 9x9, {self.steps} steps an episode, another maze each; the score is the number "
            "of times that the colour was reached that the border of the frame shows.",
            "The model sees frames without their border and what was done; it goes to where its belief says that the "
            "colour was seen, by shortest ways over what it believes to be open, and else to the place beside one that "
            "it never looked at that takes the fewest steps, and turns round there. What a latent shows is told by a "
            f"read-out learned from {self.walks} walks of {self.walked} steps through other mazes.",
            f"'window' is the same whose belief begins anew with the last {self.window} steps every five "
            "steps; 'told all' follows such ways over the true maze from its true pose to the true place. Published "
            "scores are those of Pasukonis et al. 2022.",
        )

    def able(self, model: WorldModel) -> None:
        """``ValueError`` for a model that has not learned where things are there."""
        if NAME not in model.places:
            known = ", ".join(model.places) or "none"
            raise ValueError(
                f"this model has not learned where things are in '{NAME}' (it has of: {known}); train it on "
                f"`ami collect {NAME}` with the recipe places"
            )

    @torch.no_grad()
    def run(self, model: WorldModel, n: int, asking: Asking) -> Answer:
        """Ask ``model`` in ``n`` fresh episodes."""
        self.able(model)
        began, part = time.perf_counter(), model.part(NAME)
        sight = self.sight(part, asking.seed)
        played: dict[str, list[Played]] = {}
        for row in range(n):
            for who in ("model", "window", "told all", "random"):
                if who == "model" or asking.baseline_n is None or row < asking.baseline_n:
                    player = self._player(who, part, sight, (_KEY, asking.seed, row, _PLAYER))
                    maze = MemoryMaze(_number((_KEY, asking.seed, row, _EPISODE)))
                    played.setdefault(who, []).append(self.play(player, maze))
                    maze.close()
                asking.tell(f"{self.name}: {who}", row + 1, n)
        return Answer((self._result(played, asking.seed, time.perf_counter() - began),))

    def sight(self, model: WorldModel, seed: int) -> Sight:
        """The read-out of what a latent shows, learned from walks that no episode shares a maze with."""
        walks = collect(self.walks, self.walked, _number((_KEY, seed, 0, _WALKS)))
        video = torch.from_numpy(np.stack([each.video for each in walks if each.video is not None]))
        times = torch.arange(self.walked).expand(len(walks), -1) * EMBODIMENT.step_seconds
        seen = model.encode(Clip(NAME, times, video.permute(0, 1, 4, 2, 3)[:, :, None])).values
        true = np.stack([shown(each, seen.shape[2]) for each in walks])
        return fit_sight(seen.flatten(0, 1), torch.from_numpy(true).float().flatten(0, 1), self.taught, seed)

    def play(self, player: Player, maze: Walkable) -> Played:
        """One episode."""
        seen, rewards = maze.first, []
        for _ in range(self.steps):
            seen = maze.step(player(seen, maze))
            rewards.append(seen.reward)
        lost = player.lost(maze) if isinstance(player, Believer) else 0.0
        return Played(sum(rewards), sum(rewards[self.steps // 2 :]), lost)

    def _player(self, who: str, model: WorldModel, sight: Sight, key: tuple[int, ...]) -> Player:
        rng = np.random.default_rng(key)
        if who == "random":
            return lambda seen, maze: int(rng.integers(6))
        if who == "told all":
            return Told()
        legs, window = Legs(STRIDE, TURN, HALF), self.window if who == "window" else None
        return Believer(Seeker(model, NAME, sight, legs, rng, window))

    def _result(self, played: Mapping[str, list[Played]], seed: int, seconds: float) -> Result:
        rng = np.random.default_rng(seed)
        found = {
            who: bootstrap_mean(np.array([each.score for each in episodes]), rng, method="percentile")
            for who, episodes in played.items()
        }
        own = found.pop("model")
        details: dict[str, Any] = {
            "episodes": [
                {"who": who, "score": each.score, "second half": each.late, "lost": each.lost}
                for who, episodes in played.items()
                for each in episodes
            ]
        }
        beside = {**found, **{who: Interval(score, score, score) for who, score in _PUBLISHED.items()}}
        n, how = len(played["model"]), "bootstrap over episodes, 95 %"
        values = own.value, own.low, own.high
        return Result(self.name, "score", *values, n, "colours", (seed,), how, beside, seconds, details=details)


class Told:
    """Who is told the maze, where it is and where everything is."""

    def __init__(self) -> None:
        self._ways: dict[int, Field] = {}

    def __call__(self, seen: Seen, maze: Walkable) -> int:
        """The next move on the way to what is asked for."""
        if seen.asked not in self._ways:
            thing = torch.from_numpy(maze.plan.things[seen.asked]).float()
            self._ways[seen.asked] = Routes(reach=9.0).to(thing, maze.plan.free)
        pose = torch.from_numpy(planar(maze.camera)).float()
        return nearest(follow(self._ways[seen.asked], pose, stride=STRIDE, turn=TURN).numpy())


class Believer:
    """Who has a world model and what it sees, and nothing else."""

    def __init__(self, seeker: Seeker) -> None:
        self._seeker = seeker
        self._last, self._before = 0, 0
        self._start: np.ndarray | None = None

    def __call__(self, seen: Seen, maze: Walkable) -> int:
        """See, and then do what leads to what is asked for."""
        if self._start is None:
            self._start = planar(maze.camera)  # for :meth:`lost` alone
        video = torch.from_numpy(seen.picture).permute(2, 0, 1)[None, None, None]
        latent = self._seeker.model.encode(Clip(NAME, torch.zeros(1, 1), video))
        done = torch.from_numpy(told(np.array([self._last]), self._before)[0])
        self._seeker.see(Latent(latent.values, latent.times), done)
        self._before, self._last = self._last, nearest(self._seeker.wish(seen.asked).numpy())
        return self._last

    def lost(self, maze: Walkable) -> float:
        """How far from where it is it believes to be (m)."""
        start, now = (torch.from_numpy(each).float() for each in (self._start, planar(maze.camera)))
        return float((between(start, now) - self._seeker.pose)[:2].norm())


def _number(key: tuple[int, ...]) -> int:
    return int(np.random.default_rng(key).integers(2**31))


SUITES = (Suite(NAME, ((MemoryMazeBenchmark(), 20),)),)
