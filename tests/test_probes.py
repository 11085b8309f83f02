"""Probes find what is there, in closed form where there is one, and nothing where there is nothing."""

import numpy as np
import pytest
import torch

from ami.evaluation.probes import best_ridge, fit_attentive, fit_principal, fit_ridges
from ami.evaluation.statistics import auroc, bootstrap_auroc, bootstrap_r2


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
def test_both_forms_of_ridge_are_the_textbook_one(shape) -> None:
    x, y, penalty = normal(*shape) * 3 + 1, normal(shape[0], 2, seed=1) + 5, 0.1
    (probe,) = fit_ridges(x, y, [penalty])
    z = (x - x.mean(0)) / x.std(0, unbiased=False)
    gram = z.T @ z + penalty * shape[1] * torch.eye(shape[1])
    expected = z @ torch.linalg.inv(gram) @ z.T @ (y - y.mean(0)) + y.mean(0)
    torch.testing.assert_close(probe(x), expected)
    # At the least of its own objective every gradient is zero.
    residual = z @ probe.weight - (y - y.mean(0))
    torch.testing.assert_close(z.T @ residual + penalty * shape[1] * probe.weight, torch.zeros(shape[1], 2).double())


def test_ridge_is_exact_without_penalty_and_deaf_to_what_never_moves() -> None:
    x = torch.cat([normal(50, 3), torch.full((50, 1), 7.0)], 1)
    y = x[:, :1] * 2 - x[:, 2:3] + 4
    (probe,) = fit_ridges(x, y, [1e-12])
    torch.testing.assert_close(probe(x), y)
    moved = x.clone()
    moved[:, 3] += 1e6
    torch.testing.assert_close(probe(moved), y)


def test_without_a_centre_the_answer_turns_with_the_features() -> None:
    x = normal(30, 5)
    (probe,) = fit_ridges(x, torch.ones(30, 1).double(), [0.1], centred=False)
    torch.testing.assert_close(probe(-x), -probe(x))


def test_each_quantity_has_the_penalty_that_serves_it() -> None:
    x, noise = normal(120, 100), normal(120, 1, seed=3)
    clear = x[:, :20].sum(1, keepdim=True)
    probe = best_ridge(x, torch.cat([clear, noise], 1), slice(0, 40), slice(40, None))
    fresh = normal(400, 100, seed=4)
    said = probe(fresh)
    assert torch.corrcoef(torch.stack([said[:, 0], fresh[:, :20].sum(1)]))[0, 1] > 0.8
    assert said[:, 1].std() < 0.3, "what cannot be read is hardly guessed at"


def test_principal_components_are_those_of_the_covariance() -> None:
    x = normal(300, 4) * torch.tensor([5.0, 1.0, 0.1, 2.0]) + 3
    space = fit_principal(x, 2)
    z = space(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(2).double(), atol=1e-9, rtol=0)
    values = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)
    torch.testing.assert_close(z.square().mean(0), values[:2] / values[0])


def test_attention_finds_the_one_token_that_says_it() -> None:
    """The answer is in whichever token is marked: a mean over tokens would drown it in the others."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(600, 12, 4, generator=generator)
    tokens[..., 0] = 0
    which = torch.randint(12, (600,), generator=generator)
    rows = torch.arange(600)
    tokens[rows, which, 0] = 3.0
    truth = 10 + 2 * tokens[rows, which, 1:2]
    probe = fit_attentive(tokens[:500], truth[:500], seed=0, steps=500)
    with torch.no_grad():
        error = (probe(tokens[500:]) - truth[500:]).square().mean() / truth[500:].var()
    assert error < 0.25
    ridge = best_ridge(tokens[:500].flatten(1), truth[:500], slice(0, 100), slice(100, 500))
    flat = (ridge(tokens[500:].flatten(1)) - truth[500:]).square().mean() / truth[500:].var()
    assert flat > 0.6
    again = fit_attentive(tokens[:500], truth[:500], seed=0, steps=3)
    torch.testing.assert_close(fit_attentive(tokens[:500], truth[:500], seed=0, steps=3).query, again.query)


def test_auroc_counts_pairs() -> None:
    rng = np.random.default_rng(0)
    positive, negative = rng.integers(0, 9, 30).astype(float), rng.integers(0, 7, 40).astype(float)
    wins = (positive[:, None] > negative).mean() + 0.5 * (positive[:, None] == negative).mean()
    assert auroc(positive, negative) == pytest.approx(wins)
    assert auroc(negative, positive) == pytest.approx(1 - wins), "swapped labels flip the score"
    assert auroc(np.ones(4), np.ones(5)) == 0.5


def test_auroc_has_an_interval_over_films() -> None:
    rng = np.random.default_rng(1)
    film = np.repeat(np.arange(8), 20)
    shift = rng.normal(size=8)[film]
    positive, negative = rng.normal(size=160) + 1 + shift, rng.normal(size=160) + shift
    wide = bootstrap_auroc(positive, negative, film, np.random.default_rng(0))
    narrow = bootstrap_auroc(positive, negative, np.arange(160), np.random.default_rng(0))
    assert wide.value == narrow.value == auroc(positive, negative)
    assert wide.low < wide.value < wide.high
    assert bootstrap_auroc(np.ones(6), np.zeros(6), np.arange(6) // 2, rng).low == pytest.approx(0.025 ** (1 / 3))
    with pytest.raises(ValueError, match="1 cluster came"):
        bootstrap_auroc(positive, negative, np.zeros(160), rng)
    with pytest.raises(ValueError, match="nothing can be ranked"):
        bootstrap_auroc(np.full(4, np.nan), np.zeros(4), np.arange(4), rng)


def test_r2_is_the_share_explained() -> None:
    rng = np.random.default_rng(2)
    truth = rng.normal(size=(4000, 2)) * [1.0, 50.0]
    assert bootstrap_r2(truth, truth, rng).low == 1.0
    assert bootstrap_r2(np.broadcast_to(truth.mean(0), truth.shape), truth, rng).value == pytest.approx(0.0)
    assert bootstrap_r2(-truth, truth, rng).value == pytest.approx(-3.0, abs=0.01)
    noisy = bootstrap_r2(truth + rng.normal(size=truth.shape) * [0.5, 25.0], truth, rng)
    assert noisy.low < 0.75 < noisy.high
