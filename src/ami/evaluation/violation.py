"""Matched films, and what scores of them say: whether the impossible twin surprises more, whether alone, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ami.evaluation.statistics import auroc, bootstrap, bootstrap_auroc, share_by_cluster, wilson
from ami.reasoning.rules import Rule
from ami.types import Clip, Interval

Curve = Float[Tensor, "batch time"]
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # of possible films, that shall stay below a threshold


@dataclass(frozen=True)
class Twins:
    """Possible films and their impossible twins, row by row, of one principle under one condition.

    Twins may differ in length. Rows with the same ``quadruplet`` are not independent.
    """

    possible: Clip
    impossible: Clip
    principle: str
    quadruplet: tuple[str | int, ...]  # of each row
    condition: str = ""  # "occluded/moving", say; "" where it is not known
    moment: tuple[int | None, ...] = ()  # of each row, the step at which what cannot be is first seen; (): not known
    note: str = ""  # what the reader of a report shall know of them

    def __post_init__(self) -> None:
        counts = [len(self.possible), len(self.impossible), len(self.quadruplet), len(self.moment or self.quadruplet)]
        if len(set(counts)) > 1:
            raise ValueError(
                "{} possible and {} impossible films, {} quadruplets and {} moments came; each pair has one of "
                "each".format(*counts)
            )

    @property
    def cell(self) -> str:
        """Principle and condition."""
        return f"{self.principle}/{self.condition}" if self.condition else self.principle


def frame_difference(film: Clip) -> Curve:
    """How much each step's last picture differs from that of the step before: mean absolute difference, grey levels."""
    return _changes(film, lambda change: change.abs())


def copy_last(film: Clip) -> Curve:
    """How wrong it is to predict the last picture again: mean squared difference, grey levels squared."""
    return _changes(film, lambda change: change**2)


def brightness(film: Clip) -> Curve:
    """How bright each step's last picture is: grey levels, 0 to 255."""
    pictures = _last(film)
    return torch.stack([pictures[:, step].float().mean((1, 2, 3)) for step in range(film.steps)], 1)


PIXELS: dict[str, Callable[[Clip], Curve]] = {
    "frame-difference": frame_difference,
    "copy-last": copy_last,
    "brightness": brightness,
}


@dataclass(frozen=True)
class Scores:
    """What one judge said of pairs. Where there are two numbers to a row, that of the possible film comes first."""

    paired: Float[np.ndarray, "pairs 2"]  # to compare twins by
    alone: Float[np.ndarray, "pairs 2"]  # to judge each film without its twin
    late: Float[
        np.ndarray, "pairs"
    ]  # seconds from the violation to the peak of surprise; NaN: nobody knows where it is

    def __post_init__(self) -> None:
        if not (np.isfinite(self.paired).all() and np.isfinite(self.alone).all()):
            raise ValueError("a film's score is NaN or infinite, so it cannot be compared; find out why before asking")

    @staticmethod
    def joined(parts: Sequence[Scores]) -> Scores:
        """All pairs together."""
        return Scores(
            *(np.concatenate(each) for each in zip(*((p.paired, p.alone, p.late) for p in parts), strict=True))
        )

    def rows(self, index: np.ndarray) -> Scores:
        """Some of the pairs."""
        return Scores(self.paired[index], self.alone[index], self.late[index])


@dataclass(frozen=True)
class Judge:
    """A curve for each film, and the rule by which curves become scores."""

    curve: Callable[[Clip], Curve]
    rule: Rule

    def scores(self, twins: Twins) -> Scores:
        """What it says of all rows."""
        good, bad = self.curve(twins.possible), self.curve(twins.impossible)
        peak = bad.nan_to_num(-torch.inf, posinf=torch.inf).argmax(1)
        late = torch.full((len(bad),), torch.nan, dtype=torch.float64)
        for row, moment in enumerate(twins.moment):
            if moment is not None:
                times = twins.impossible.times[row]
                late[row] = times[peak[row]] - times[moment]
        columns = [torch.stack([by(good), by(bad)], 1).double() for by in (self.rule.paired, self.rule.alone)]
        return Scores(*(column.numpy(force=True) for column in (*columns, late)))

    def alone(self, films: Iterable[Clip]) -> Float[np.ndarray, "films"]:
        """What it says of films without twins."""
        return np.concatenate([self.rule.alone(self.curve(film)).double().numpy(force=True) for film in films])


def pairwise(scores: Scores, quadruplet: Int[np.ndarray, "pairs"], rng: np.random.Generator) -> tuple[Interval, str]:
    """How often the impossible twin surprises more (a tie counts as half), and how its interval was made."""
    good, bad = scores.paired.T
    won = (bad > good) + 0.5 * (bad == good)
    groups = len(np.unique(quadruplet))
    if groups == len(won) and not (won == 0.5).any():
        return wilson(int(won.sum()), len(won)), "Wilson 95 %"
    return share(won, quadruplet, rng), f"bootstrap over {groups} quadruplets, 95 %"


def single(scores: Scores, quadruplet: Int[np.ndarray, "pairs"], rng: np.random.Generator) -> Interval:
    """How often an impossible film has a higher score than a possible one of any pair (AUROC)."""
    good, bad = scores.alone.T
    if len(np.unique(quadruplet)) < 2:
        return Interval(auroc(bad, good), 0.0, 1.0)
    return bootstrap_auroc(bad, good, quadruplet, rng)


def alarms(
    scores: Scores,
    quadruplet: Int[np.ndarray, "pairs"],
    level: float,
    rng: np.random.Generator,
    ordinary: Float[np.ndarray, "films"] | None = None,
) -> Float[np.ndarray, "pairs 2"]:
    """1 for each film that surprises more than the share ``level`` of ordinary films does.

    Of possible films about 1 - ``level`` are then called impossible, if ordinary films tell what is ordinary. Without
    any, half of the quadruplets' possible films are the ordinary films of the other half.
    """
    if ordinary is not None:
        return (scores.alone > np.quantile(ordinary, level)).astype(float)
    names = np.unique(quadruplet)
    first = np.isin(quadruplet, rng.permutation(names)[: (len(names) + 1) // 2])
    told = np.zeros_like(scores.alone)
    for half, other in ((first, ~first), (~first, first)):
        known = scores.alone[other if other.any() else half, 0]
        told[half] = scores.alone[half] > np.quantile(known, level)
    return told


def miscalibration(
    scores: Scores,
    quadruplet: Int[np.ndarray, "pairs"],
    ordinary: Float[np.ndarray, "films"],
    rng: np.random.Generator,
) -> Interval:
    """How far shares of possible films above thresholds are from what these promise: mean over ``LEVELS``.

    0 is perfect; a few films are never quite there. Source: Naeini, Cooper and Hauskrecht 2015, "Obtaining well
    calibrated probabilities using Bayesian binning" (expected calibration error).
    """
    over = np.stack([alarms(scores, quadruplet, level, rng, ordinary)[:, 0] for level in LEVELS], 1)

    def error(weight: Float[np.ndarray, "pairs"]) -> float:
        return float(np.abs(weight @ over / weight.sum() - (1 - np.array(LEVELS))).mean())

    return bootstrap(error, quadruplet, rng)


def lateness(scores: Scores, quadruplet: Int[np.ndarray, "pairs"], rng: np.random.Generator) -> Interval:
    """How many seconds the peak of surprise is away from the violation: the median over films where that is known."""
    known = np.isfinite(scores.late)
    away = np.abs(scores.late[known])
    return bootstrap(lambda times: float(np.median(np.repeat(away, times))), quadruplet[known], rng)


def share(values: Float[np.ndarray, "n"], quadruplet: Int[np.ndarray, "n"], rng: np.random.Generator) -> Interval:
    """A share in quadruplets; of a single one nothing is known of others."""
    if len(np.unique(quadruplet)) < 2:
        return Interval(float(values.mean()), 0.0, 1.0)
    return share_by_cluster(values, quadruplet, rng)


def _last(film: Clip) -> UInt8[Tensor, "batch time 3 height width"]:
    if film.video is None:
        raise ValueError("twins are compared by their pictures too, and these have none; give clips with video")
    return film.video[:, :, -1]


def _changes(film: Clip, measure: Callable[[Tensor], Tensor]) -> Curve:
    """The mean of a measure of what changed since the step before; step by step, for pictures are large."""
    pictures = _last(film)
    found = torch.full(film.times.shape, torch.nan)
    for step in range(1, film.steps):
        found[:, step] = measure(pictures[:, step].float() - pictures[:, step - 1].float()).mean((1, 2, 3))
    return found
