"""How long is it known where something is that went behind a screen and stopped there?"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ami.evaluation.benchmark import Answer, Asking, Suite
from ami.evaluation.probes import best_ridge
from ami.evaluation.statistics import bootstrap_r2
from ami.evaluation.suites.physics import knows
from ami.types import Belief, Clip, Interval, Result, WorldModel
from ami.worlds.alone import MIDDLE, stops_behind
from ami.worlds.violations import EMBODIMENT, TRUTH

AGES = (10, 30, 100, 300)
_ASKED = {"position": ("a_x", "a_y"), "velocity": ("a_dx", "a_dy")}
_UNITS = {"position": "px", "velocity": "px per frame"}
_MOVES = 10  # steps; at this age it still goes on, later it has stopped
_WINDOW = 3  # steps that the twin without a memory sees
_APART = 4_000_037  # from the seeds of training
_TOGETHER = 16  # films in memory at once: three hundred frames are long


@dataclass(frozen=True)
class Occluded:
    """Its place, and its velocity while it has one, read out of a belief so many steps after it was last seen."""

    age: int
    learn: int = 1000  # films that teach the read-out, at the same age: with 128, half of what is held is not read

    least = 2  # episodes: intervals are over them
    able = staticmethod(knows)

    @property
    def name(self) -> str:
        """What its results are called."""
        return f"recall/occluded/age-{self.age}"

    @property
    def protocol(self) -> tuple[str, ...]:
        """How it is asked, a plain sentence each."""
        return (
            f"occluded: a mover slows down behind a screen, quite hidden {MIDDLE + 1} frames after the film began, and "
            f"stops there; a ridge fitted at that age on {self.learn} other films reads the recurrent state. Its "
            f"velocity is asked for up to {_MOVES} steps. 'window' believes the last {_WINDOW} steps only.",
        )

    @torch.no_grad()
    def run(self, model: WorldModel, n: int, asking: Asking) -> Answer:
        """Ask about ``n`` fresh films."""
        began = time.perf_counter()
        self.able(model)
        rng = np.random.default_rng([_APART + asking.seed, self.age])
        held: dict[str, list[Tensor]] = {}
        for first in range(0, self.learn + n, _TOGETHER):
            asking.tell(f"waiting {self.age} steps", first, self.learn + n)
            clip = _clip(min(_TOGETHER, self.learn + n - first), self.age, rng)
            for name, value in self._states(model, clip, asking).items():
                held.setdefault(name, []).append(value)
        asking.tell(f"waiting {self.age} steps", self.learn + n, self.learn + n)
        found = {name: torch.cat(parts) for name, parts in held.items()}
        truth = found.pop("truth")
        seconds = time.perf_counter() - began
        asked = [name for name in _ASKED if name == "position" or self.age <= _MOVES]
        return Answer(tuple(self._result(name, found, truth, asking.seed, seconds) for name in asked))

    def _states(self, model: WorldModel, clip: Clip, asking: Asking) -> dict[str, Tensor]:
        assert clip.truth is not None
        states = {"truth": clip.truth[:, -1], "model": _state(model, clip, 0)}
        states["window"] = _state(model, clip, max(clip.steps - _WINDOW, 0))
        if asking.untrained is not None:
            states["untrained"] = _state(asking.untrained, clip, 0)
        return states

    def _result(
        self, name: str, found: dict[str, Tensor], truth: Float[Tensor, "films column"], seed: int, seconds: float
    ) -> Result:
        told = truth[:, [TRUTH.index(column) for column in _ASKED[name]]].double()
        known = slice(0, self.learn)
        choose = torch.arange(self.learn) % 4 == 0

        def r2(states: Float[Tensor, "films feature"]) -> Interval:
            ridge = best_ridge(states[known], told[known], choose, ~choose)
            read, true = (each[self.learn :].numpy(force=True) for each in (ridge(states), told))
            return bootstrap_r2(read, true, np.random.default_rng(seed))

        judged = {who: r2(states) for who, states in found.items()}
        own, n = judged.pop("model"), len(truth) - self.learn
        return Result(
            f"{self.name}/{name}",
            "r2",
            own.value,
            own.low,
            own.high,
            n,
            "share",
            (seed,),
            f"bootstrap over {n} films, 95 %",
            judged,
            seconds=seconds,
            details={"unit": _UNITS[name]},
        )


def _state(model: WorldModel, clip: Clip, first: int) -> Float[Tensor, "films feature"]:
    """What is believed at the end of what was seen from step ``first`` on."""
    part = clip.between(first, clip.steps)
    belief: Belief = model.believe(None, model.encode(part), part.actions, part.embodiment)
    if belief.recurrent is None:
        raise ValueError("what is behind a screen is read out of a recurrent state, and this model carries none")
    return belief.recurrent.flatten(1)


def _clip(count: int, age: int, rng: np.random.Generator) -> Clip:
    films = stops_behind(count, age, rng)
    video, done, truth, times = (
        torch.from_numpy(np.stack([getattr(film, name) for film in films]))
        for name in ("video", "actions", "truth", "times")
    )
    pictures = video.movedim(-1, 2)[:, :, None].contiguous()
    return Clip(EMBODIMENT.name, times.float(), pictures, actions=done.float(), truth=truth.float())


ASKED = tuple((Occluded(age), 100) for age in AGES)
SUITES = (Suite("occluded-2", ASKED),)
