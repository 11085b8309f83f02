"""What frozen features know of drawn films, whose truth is known: where things are, how they move, what they are."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ami import parallel
from ami.evaluation import features
from ami.evaluation.benchmark import Answer, Asking
from ami.evaluation.features import Film
from ami.evaluation.films import film_clip
from ami.evaluation.probes import best_ridge, fit, fit_attentive
from ami.evaluation.statistics import bootstrap_mean, bootstrap_r2
from ami.training.loop import drawn_from
from ami.types import Interval, Result, WorldModel
from ami.worlds import films as drawn

_SHAPES = len(drawn.SHAPES)
_LAST = 2  # frames: where things are and how fast, on average over the last 0.2 s


@dataclass(frozen=True)
class Quantity:
    """What is read out: columns of the truth, or kinds to choose from."""

    name: str
    metric: Literal["r2", "accuracy"]
    columns: tuple[str, ...]


QUANTITIES = (
    Quantity("position", "r2", ("a_x", "a_y", "b_x", "b_y")),
    Quantity("velocity", "r2", ("a_dx", "a_dy", "b_dx", "b_dy")),
    Quantity("size", "r2", ("a_size", "b_size")),
    Quantity("count", "r2", ("count",)),
    Quantity("shape", "accuracy", ("a_shape", "b_shape")),
)


@dataclass(frozen=True)
class DrawnFilms:
    """Five questions about whole clips of fresh drawn films, as they stand in the last two frames.

    A ridge probe reads each quantity from all tokens of all steps, and an attentive probe as well (metric with
    ``_attentive``); penalties are chosen on a fifth of the films to learn from. Beside them, by the same ridge: the
    same architecture with fresh weights, principal components of the pixels, frame differences and the hand-made motion
    centroid; and, trained for the truth from the first layer on, the same architecture with its labels.
    """

    learn: int = 3000  # films that probes learn from
    supervised_steps: int = 600  # of the equal-size encoder that is trained with the labels
    supervised_batch: int = 32
    attentive_steps: int = 600

    @property
    def name(self) -> str:
        """What its results are called, all of them."""
        return f"films/({', '.join(quantity.name for quantity in QUANTITIES)})"

    @property
    def protocol(self) -> tuple[str, ...]:
        """How it is asked, a plain sentence each."""
        return (
            f"Probes learn from {self.learn:,} drawn films of {drawn.FRAMES} frames and are asked about fresh ones: "
            "two to four movers over a texture, a camera that pans in half of them; truth of the last two frames.",
            "r2: the share of variance explained, mean over two movers and their coordinates; 0 is saying the mean.",
        )

    def run(self, model: WorldModel, n: int, asking: Asking) -> Answer:
        """Ask with ``n`` fresh films."""
        began = time.perf_counter()
        learn, truth = self._draw(self.learn, 2 * asking.seed)
        asked, wanted = self._draw(n, 2 * asking.seed + 1)
        seen = {"model": features.model_eye(model, drawn.EMBODIMENT.name)}
        if asking.untrained is not None:
            seen["untrained"] = features.model_eye(asking.untrained, drawn.EMBODIMENT.name)
        seen |= {
            "pixels": features.pixels,
            "frame-differences": features.differences,
            "motion-centroid": features.motion_centroid,
        }
        said: dict[str, Tensor] = {}
        attentive: dict[str, Tensor] = {}
        for done, (name, eye) in enumerate(seen.items()):
            asking.tell("films", done, len(seen) + 1)
            tokens, asks = eye(learn), eye(asked)
            told = truth.to(tokens.device)  # probes work where the features are
            said[name] = self._ridge(tokens, told, asks)
            if name in ("model", "untrained"):
                probe = fit_attentive(tokens.flatten(1, 2), told, asking.seed, steps=self.attentive_steps)
                attentive[name] = _in_parts(probe, asks.flatten(1, 2))
        asking.tell("films", len(seen), len(seen) + 1)
        if asking.untrained is not None:
            said["supervised"] = self._supervised(asking.untrained, learn, truth, asked, asking.seed)
        asking.tell("films", len(seen) + 1, len(seen) + 1)
        seconds = time.perf_counter() - began
        results = [
            self._result(quantity, rows, wanted, asking.seed, seconds, suffix)
            for rows, suffix in ((said, ""), (attentive, "_attentive"))
            for quantity in QUANTITIES
        ]
        return Answer(tuple(results))

    def _draw(self, count: int, seed: int) -> tuple[list[Film], Float[Tensor, "films quantity"]]:
        """Films that no training drew: recipes' seeds are small numbers."""
        episodes = drawn.collect(count, seed=7_000_000 + seed)
        last = np.stack([episode.truth[-_LAST:].mean(0) for episode in episodes if episode.truth is not None])
        videos = [episode.video for episode in episodes if episode.video is not None]
        return videos, torch.from_numpy(targets(last))

    def _ridge(self, tokens: Tensor, truth: Tensor, asks: Tensor) -> Tensor:
        held = slice(0, len(tokens) // 5)
        kept = slice(len(tokens) // 5, None)
        scale = truth.std(0)  # one penalty grid for pixels and for kinds alike
        probe = best_ridge(tokens.flatten(1), truth / scale, held, kept)
        return probe(asks.flatten(1)) * scale

    def _supervised(
        self, fresh: WorldModel, learn: Sequence[Film], truth: Tensor, asked: Sequence[Film], seed: int
    ) -> Tensor:
        with drawn_from(seed):
            pupil = _Supervised(copy.deepcopy(fresh), learn[0], truth.shape[1])
        videos, asks = (torch.from_numpy(np.stack(each)) for each in (learn, asked))
        told = truth.to(parallel.device_of(pupil))
        fit(pupil, videos, told, seed, steps=self.supervised_steps, batch=self.supervised_batch, rate=3e-3)
        return _in_parts(pupil.eval(), asks)

    def _result(
        self,
        quantity: Quantity,
        rows: Mapping[str, Tensor],
        wanted: Tensor,
        seed: int,
        seconds: float,
        suffix: str,
    ) -> Result:
        intervals = {name: judge(quantity, said, wanted, seed) for name, said in rows.items()}
        own = intervals.pop("model")
        chance = 0.0 if quantity.metric == "r2" else 1 / _SHAPES
        return Result(
            benchmark=f"films/{quantity.name}",
            metric=quantity.metric + suffix,
            value=own.value,
            low=own.low,
            high=own.high,
            n=len(wanted),
            unit="" if quantity.metric == "r2" else "share",
            seeds=(seed,),
            interval=f"bootstrap over {len(wanted)} films, 95 %",
            baselines={**intervals, "chance": Interval(chance, chance, chance)},
            seconds=seconds,
        )


def targets(truth: Float[np.ndarray, "films truth"]) -> Float[np.ndarray, "films quantity"]:
    """The columns of all quantities side by side; a kind becomes one column for each, 1 where it is that."""
    parts = []
    for quantity in QUANTITIES:
        for column in quantity.columns:
            value = truth[:, drawn.TRUTH.index(column)]
            if quantity.metric == "r2":
                parts.append(value[:, None])
            else:
                parts.append(np.eye(_SHAPES)[value.astype(int)])
    return np.concatenate(parts, 1).astype(np.float32)


def judge(quantity: Quantity, said: Tensor, wanted: Tensor, seed: int) -> Interval:
    """How well one quantity was read, with a bootstrap interval over films."""
    first = 0
    for other in QUANTITIES:
        width = len(other.columns) * (1 if other.metric == "r2" else _SHAPES)
        if other == quantity:
            break
        first += width
    columns, rng = slice(first, first + width), np.random.default_rng(seed)
    answer, truth = (each[:, columns].double().numpy(force=True) for each in (said, wanted))
    if quantity.metric == "r2":
        return bootstrap_r2(answer, truth, rng)
    answer, truth = (each.reshape(len(each), -1, _SHAPES).argmax(2) for each in (answer, truth))
    return bootstrap_mean((answer == truth).mean(1), rng, method="percentile")


class _Supervised(nn.Module):
    """An encoder of the same architecture and a linear layer on all its tokens."""

    def __init__(self, model: WorldModel, film: Film, answers: int) -> None:
        super().__init__()
        self.model = model
        with torch.no_grad():
            width = model.eval().encode(film_clip(model, film, body=drawn.EMBODIMENT.name)).values.numel()
        self.answer = nn.Linear(width, answers).to(parallel.device_of(model))

    def forward(self, videos: Tensor) -> Tensor:
        clip = film_clip(self.model, *videos.numpy(), body=drawn.EMBODIMENT.name)
        return self.answer(self.model.encode(clip).values.flatten(1))


def _in_parts(probe: nn.Module, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([probe(part) for part in inputs.split(64)])
