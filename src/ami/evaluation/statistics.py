"""Intervals: how far a measured number may be from the true one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from ami.types import Interval


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """A share of successes with Wilson's score interval: short, and good also near 0 and 1.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    _check_count(successes, n, confidence)
    z = float(stats.norm.ppf((1 + confidence) / 2))
    share = successes / n
    shrink = 1 + z * z / n
    middle = (share + z * z / (2 * n)) / shrink
    reach = z / shrink * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    return _around(share, max(0.0, middle - reach), min(1.0, middle + reach))


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """A share of successes with the exact interval: never covers too little, hence wider than Wilson's.

    Source: Clopper and Pearson 1934, "The use of confidence or fiducial limits".
    """
    _check_count(successes, n, confidence)
    tail = (1 - confidence) / 2
    low = float(stats.beta.ppf(tail, successes, n - successes + 1)) if successes else 0.0
    high = float(stats.beta.ppf(1 - tail, successes + 1, n - successes)) if successes < n else 1.0
    return _around(successes / n, low, high)


def bootstrap_mean(
    values: Float[np.ndarray, "n"],
    rng: np.random.Generator,
    *,
    clusters: Int[np.ndarray, "n"] | None = None,
    confidence: float = 0.95,
    method: Literal["BCa", "percentile"] = "BCa",
    resamples: int = 2000,
) -> Interval:
    """A mean with a bootstrap interval that redraws whole clusters (episodes, say), or single values without them.

    Values of one episode resemble one another: redrawing them singly would claim more certainty than there is.
    """
    return bootstrap_ratio(
        values, np.ones(len(values)), rng, clusters=clusters, confidence=confidence, method=method, resamples=resamples
    )


def bootstrap_ratio(
    above: Float[np.ndarray, "n"],
    below: Float[np.ndarray, "n"],
    rng: np.random.Generator,
    *,
    clusters: Int[np.ndarray, "n"] | None = None,
    confidence: float = 0.95,
    method: Literal["BCa", "percentile"] = "BCa",
    resamples: int = 2000,
) -> Interval:
    """The sum of ``above`` over the sum of ``below``, with a bootstrap interval that redraws whole clusters.

    Source: Efron 1987, "Better bootstrap confidence intervals" (BCa); percentile is steadier with few clusters.
    ``ValueError`` where there are fewer than two clusters, for nothing then tells how much they differ.
    """
    above, below = np.asarray(above, float), np.asarray(below, float)
    clusters = np.arange(len(above)) if clusters is None else np.asarray(clusters)
    if not above.shape == below.shape == clusters.shape or above.ndim != 1:
        raise ValueError(
            f"values {above.shape}, weights {below.shape} and clusters {clusters.shape} must be equally long lists"
        )
    if not (np.isfinite(above).all() and np.isfinite(below).all()):
        raise ValueError("a value is NaN or infinite, so no mean exists; find out why before averaging")
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence of {confidence} is not between 0 and 1; 0.95 is usual")
    _, member = np.unique(clusters, return_inverse=True)
    groups = int(member.max(initial=-1)) + 1
    if groups < 2:
        raise ValueError(f"{groups} cluster came; a bootstrap needs two or more to see how much they differ")
    tops, bottoms = np.bincount(member, above), np.bincount(member, below)
    ratio = above.sum() / below.sum()
    if np.allclose(tops, ratio * bottoms, rtol=1e-12, atol=0.0):
        return Interval(float(ratio), float(ratio), float(ratio))
    drawn = stats.bootstrap(
        (tops, bottoms),
        lambda top, bottom, axis: top.sum(axis) / bottom.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, 10_000_000 // groups),
        confidence_level=confidence,
        method=method,
        rng=rng,
    ).confidence_interval
    return _around(float(ratio), float(drawn.low), float(drawn.high))


def auroc(positive: Float[np.ndarray, "p"], negative: Float[np.ndarray, "n"]) -> float:
    """How often a positive has a higher score than a negative; a tie counts as half.

    Source: Hanley and McNeil 1982, "The meaning and use of the area under a receiver operating characteristic curve".
    """
    ranks = stats.rankdata(np.concatenate([positive, negative]))
    count = len(positive)
    return float((ranks[:count].sum() - count * (count + 1) / 2) / (count * len(negative)))


def bootstrap_auroc(
    positive: Float[np.ndarray, "n"],
    negative: Float[np.ndarray, "n"],
    clusters: Int[np.ndarray, "n"],
    rng: np.random.Generator,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
) -> Interval:
    """AUROC of pairs, with a percentile interval that redraws whole clusters (films, say).

    Where all positives are above all negatives no redrawing would ever differ: each cluster then counts as one
    observation of an exact interval.
    """
    if not (np.isfinite(positive).all() and np.isfinite(negative).all()):
        raise ValueError("a score is NaN or infinite, so nothing can be ranked; find out why before asking")
    value, groups = auroc(positive, negative), len(np.unique(clusters))
    if groups >= 2 and value in (0.0, 1.0):
        return clopper_pearson(groups * int(value), groups, confidence)
    places, at = np.unique(np.concatenate([positive, negative]), return_inverse=True)
    above, below = at[: len(positive)], at[len(positive) :]

    def weighted(weight: Float[np.ndarray, "n"]) -> float:
        held = np.bincount(below, weight, len(places))
        return float(weight @ (held.cumsum() - held / 2)[above] / weight.sum() ** 2)

    return bootstrap(weighted, clusters, rng, confidence=confidence, resamples=resamples)


def bootstrap(
    statistic: Callable[[Int[np.ndarray, "n"]], float],
    clusters: Int[np.ndarray, "n"],
    rng: np.random.Generator,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
) -> Interval:
    """Any statistic with a percentile interval that redraws whole clusters.

    ``statistic`` is told how often each value comes, at first once. ``ValueError`` where there are fewer than two
    clusters.
    """
    names, member = np.unique(clusters, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"{len(names)} cluster came; a bootstrap needs two or more to see how much they differ")
    chosen = rng.integers(len(names), size=(resamples, len(names)))
    drawn = [statistic(np.bincount(each, minlength=len(names))[member]) for each in chosen]
    tail = (1 - confidence) / 2
    return _around(statistic(np.ones(len(member), int)), *map(float, np.quantile(drawn, [tail, 1 - tail])))


def bootstrap_r2(
    predicted: Float[np.ndarray, "n quantity"],
    truth: Float[np.ndarray, "n quantity"],
    rng: np.random.Generator,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
) -> Interval:
    """The share of the truth's variance that is explained, mean over quantities, redrawing whole rows (films).

    1 is perfect, 0 is what saying the mean always has, and below 0 is worse than that.
    """
    error, n = (predicted - truth) ** 2, len(truth)
    middle = truth - truth.mean(0)

    def explained(weight: Float[np.ndarray, "draws n"]) -> Float[np.ndarray, "draws"]:
        spread = weight @ middle**2 - (weight @ middle) ** 2 / n
        return (1 - weight @ error / spread).mean(1)

    drawn = explained(rng.multinomial(n, np.full(n, 1 / n), resamples).astype(float))
    tail = (1 - confidence) / 2
    return _around(float(explained(np.ones((1, n)))[0]), *map(float, np.quantile(drawn, [tail, 1 - tail])))


def share_by_cluster(
    wins: Float[np.ndarray, "n"], clusters: Int[np.ndarray, "n"], rng: np.random.Generator
) -> Interval:
    """A share of wins (1 won, 0 lost, 0.5 tied) in clusters that may be few, with a percentile interval.

    Where every value is the same no redrawing would ever differ. If all are won, or all lost, each cluster then counts
    as one observation of an exact interval: what is claimed stays modest.
    """
    interval = bootstrap_mean(wins, rng, clusters=clusters, method="percentile")
    if interval.value in (0.0, 1.0):
        groups = len(np.unique(clusters))
        return clopper_pearson(groups * int(interval.value), groups)
    return interval


def _around(value: float, low: float, high: float) -> Interval:
    """An interval that holds its value: rounding, and BCa's correction, may leave it just outside."""
    return Interval(value, min(low, value), max(high, value))


def _check_count(successes: int, n: int, confidence: float) -> None:
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} is no share; n is at least 1, and successes 0 to n")
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence of {confidence} is not between 0 and 1; 0.95 is usual")
