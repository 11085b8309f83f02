"""Intervals agree with published tables and closed forms, and cover as often as they claim."""

import numpy as np
import pytest
from scipy import stats

from ami.evaluation.statistics import bootstrap_mean, bootstrap_ratio, clopper_pearson, share_by_cluster, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3 (score).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_agrees_with_newcombe(successes: int, n: int, low: float, high: float) -> None:
    interval = wilson(successes, n)
    assert interval.value == successes / n
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5.1e-5)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # The same table, method 5 (Clopper-Pearson).
        (81, 263, 0.2527, 0.3676),
        (15, 148, 0.0578, 0.1617),
        (0, 20, 0.0000, 0.1684),
        (1, 29, 0.0009, 0.1776),
    ],
)
def test_clopper_pearson_agrees_with_newcombe(successes: int, n: int, low: float, high: float) -> None:
    interval = clopper_pearson(successes, n)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5.1e-5)


def test_the_exact_interval_of_no_failure_is_in_closed_form() -> None:
    interval = clopper_pearson(50, 50)
    assert interval.low == pytest.approx(0.025 ** (1 / 50))
    assert interval.high == interval.value == 1.0
    assert wilson(50, 50).low == pytest.approx(50 / (50 + stats.norm.ppf(0.975) ** 2))


@pytest.mark.parametrize("method", ["BCa", "percentile"])
def test_a_bootstrapped_mean_agrees_with_the_normal_interval(method: str) -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    interval = bootstrap_mean(values, np.random.default_rng(1), method=method)
    reach = 1.96 * values.std() / np.sqrt(len(values))
    assert interval.value == pytest.approx(values.mean())
    assert (interval.low, interval.high) == pytest.approx((values.mean() - reach, values.mean() + reach), abs=0.03)


def test_clusters_are_redrawn_whole() -> None:
    """Ten copies of a value tell no more than one: the interval must be that of the ten-fold smaller sample."""
    values = np.random.default_rng(0).normal(size=40)
    alone = bootstrap_mean(values, np.random.default_rng(1))
    copied = bootstrap_mean(values.repeat(10), np.random.default_rng(1), clusters=np.arange(40).repeat(10))
    singly = bootstrap_mean(values.repeat(10), np.random.default_rng(1))
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))
    assert (singly.high - singly.low) < 0.5 * (copied.high - copied.low)


def test_clusters_of_unequal_size_weigh_by_their_size() -> None:
    values, clusters = np.array([1.0, 1.0, 1.0, 0.0]), np.array([7, 7, 7, 3])
    assert bootstrap_mean(values, np.random.default_rng(0), clusters=clusters).value == 0.75


def test_a_constant_ratio_has_no_width() -> None:
    interval = bootstrap_ratio(np.array([1.0, 2.0, 4.0]), np.array([2.0, 4.0, 8.0]), np.random.default_rng(0))
    assert (interval.low, interval.value, interval.high) == (0.5, 0.5, 0.5)


def test_winning_always_is_not_certainty() -> None:
    won = share_by_cluster(np.ones(45), np.arange(5).repeat(9), np.random.default_rng(0))
    assert (won.value, won.low, won.high) == (1.0, pytest.approx(0.025 ** (1 / 5)), 1.0)
    lost = share_by_cluster(np.zeros(45), np.arange(5).repeat(9), np.random.default_rng(0))
    assert (lost.value, lost.high) == (0.0, pytest.approx(1 - 0.025 ** (1 / 5)))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: wilson(5, 0), "5 successes of 0"),
        (lambda: clopper_pearson(6, 5), "6 successes of 5"),
        (lambda: wilson(1, 5, confidence=95), "95 is not between 0 and 1"),
        (lambda: bootstrap_mean(np.array([1.0]), np.random.default_rng(0)), "1 cluster came"),
        (lambda: bootstrap_mean(np.array([1.0, np.nan]), np.random.default_rng(0)), "NaN"),
        (
            lambda: bootstrap_mean(np.ones(3), np.random.default_rng(0), clusters=np.zeros(2, int)),
            "equally long",
        ),
    ],
)
def test_mistakes_are_named(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
