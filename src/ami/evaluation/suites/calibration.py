"""Does a model know how far off what it imagines is? Asked of fresh walks in fresh rooms."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats

from ami.agent import perceive
from ami.evaluation.benchmark import Answer, Asking, Benchmark, Suite
from ami.evaluation.statistics import bootstrap, bootstrap_mean
from ami.evaluation.suites.control import shown
from ami.evaluation.suites.ways import WaysBenchmark
from ami.types import Clip, Interval, Result, WorldModel
from ami.worlds.rooms import EMBODIMENT, explore, sample_rooms

_WALKED, _REDRAWN = 8, 9  # uses of the rooms' keys beside theirs


@dataclass(frozen=True)
class CalibrationBenchmark:
    """Imagine a walk whose actions are told, say how far off that may be, and compare with what was then seen.

    ``coverage_Q``: the share of numbers that end within the interval that should hold Q % of them, for a Gaussian of
    the variance that the model expects. ``spearman``: the rank correlation, over walks, of that variance and of the
    squared error. Only tokens that the model imagines to change are compared.
    """

    family: str = "wall"
    ahead: tuple[int, ...] = (1, 4, 8, 16)  # model steps
    levels: tuple[float, ...] = (0.5, 0.8, 0.9, 0.95)
    past: int = 2  # steps that are seen
    together: int = 64  # walks perceived at once

    name = "two-rooms/calibration"

    @property
    def protocol(self) -> tuple[str, ...]:
        """How it is asked, a plain sentence each."""
        return (
            f"calibration: walks in fresh layouts; {self.past} steps are seen, and what the actions after them lead to "
            f"is imagined {', '.join(map(str, self.ahead))} steps ahead.",
            "coverage_Q: how many numbers of the latent lie within the interval that should hold Q % of them.",
            "spearman: rank correlation over walks of the expected and the true squared error; 0 says nothing.",
            "one size: the mean squared error of as many other walks, said of every walk.",
        )

    def able(self, model: WorldModel) -> None:
        """``ValueError`` for a model that does not say how far off it may be."""
        if EMBODIMENT.name not in model.unsure:
            raise ValueError(f"{self.name} asks a model that has learned how far off it may be, and this one has not")

    def run(self, model: WorldModel, n: int, asking: Asking) -> Answer:
        """Ask ``model`` about ``n`` fresh walks, each in a layout of its own."""
        self.able(model)
        began = time.perf_counter()
        asking.tell(self.name, 0, 2)
        missed, expected = self._walks(model, n, asking.seed, _WALKED)
        asking.tell(self.name, 1, 2)
        seconds, others = time.perf_counter() - began, {"one-size": (missed, self._one_size(model, n, asking.seed))}
        if asking.untrained is not None:
            others["untrained"] = self._walks(asking.untrained, n, asking.seed, _WALKED)
        asking.tell(self.name, 2, 2)
        rng = np.random.default_rng(asking.seed)
        results = []
        for place, steps in enumerate(self.ahead):
            own = self._scores(missed[:, place], expected[:, place], rng)
            beside = {name: self._scores(off[:, place], said[:, place], rng) for name, (off, said) in others.items()}
            results += [
                Result(
                    benchmark=f"{self.name}/ahead-{steps}",
                    metric=metric,
                    value=value.value,
                    low=value.low,
                    high=value.high,
                    n=n,
                    unit="correlation" if metric == "spearman" else "share",
                    seeds=(asking.seed,),
                    interval=f"bootstrap over {n} walks, 95 %",
                    baselines={name: each[metric] for name, each in beside.items()},
                    seconds=seconds,
                )
                for metric, value in own.items()
            ]
        return Answer(tuple(results))

    def _scores(
        self, missed: Float[np.ndarray, "n number"], expected: Float[np.ndarray, "n"], rng: np.random.Generator
    ) -> Mapping[str, Interval]:
        """Each metric of one number of steps ahead."""
        off, walks = np.abs(missed) / np.sqrt(expected)[:, None], np.arange(len(missed))
        found = {
            f"coverage_{100 * level:g}": bootstrap_mean(
                (off < stats.norm.ppf((1 + level) / 2)).mean(1), rng, method="percentile"
            )
            for level in self.levels
        }
        squared = np.square(missed).mean(1)

        def ranked(times: np.ndarray) -> float:
            rows = np.repeat(walks, times)
            if np.ptp(expected[rows]) == 0:
                return 0.0  # who says the same of all has ranked none
            return float(stats.spearmanr(expected[rows], squared[rows]).statistic)  # pyright: ignore

        return {**found, "spearman": bootstrap(ranked, walks, rng)}

    @torch.no_grad()
    def _walks(
        self, model: WorldModel, n: int, seed: int, use: int
    ) -> tuple[Float[np.ndarray, "n ahead number"], Float[np.ndarray, "n ahead"]]:
        """By how much each number was missed, and the variance that was expected."""
        clip = self._clip(n, seed, use)
        assert clip.actions is not None
        seen, told = perceive(model, clip, self.together), clip.actions[:, self.past - 1 :]
        belief = model.believe(None, seen.between(0, self.past), clip.actions[:, : self.past - 1], clip.embodiment)
        imagined = model.predict(belief, told, max(self.ahead))
        moved = (imagined.values != belief.latents.values[:, -1:]).flatten(0, 1).any(0).any(-1)
        at = torch.tensor(self.ahead) - 1
        missed = (seen.values[:, self.past :] - imagined.values)[:, at][:, :, moved].flatten(2)
        expected = model.uncertainty(imagined, told, clip.embodiment)[:, at]
        return missed.double().numpy(force=True), expected.double().numpy(force=True)

    def _one_size(self, model: WorldModel, n: int, seed: int) -> Float[np.ndarray, "n ahead"]:
        other, _ = self._walks(model, n, seed, _REDRAWN)
        return np.broadcast_to(np.square(other).mean((0, 2)), (n, len(self.ahead)))

    def _clip(self, n: int, seed: int, use: int) -> Clip:
        """Walks of ``past`` steps and as many more as are imagined, each drawn with a key of its own."""
        asked, steps, walks = WaysBenchmark(self.family), self.past + max(self.ahead), []
        for row in range(n):
            rng = asked.rng(seed, row, use)
            rooms = sample_rooms(self.family, 1, rng)
            places, actions = explore(rooms, steps, rng)
            video = torch.cat([shown(rooms, place).video for place in places], 1)  # pyright: ignore
            walks.append((video, torch.from_numpy(actions[:, 0]).float()))
        times = EMBODIMENT.step_seconds * torch.arange(float(steps)).expand(n, -1)
        video, done = zip(*walks, strict=True)
        return Clip(EMBODIMENT.name, times, video=torch.cat(video), actions=torch.stack(done))


_CALIBRATION: Benchmark = CalibrationBenchmark()

SUITES: tuple[Suite, ...] = (Suite("calibration", ((_CALIBRATION, 500),)),)
