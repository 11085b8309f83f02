"""A read-out recovers what is linear in the features, in its own unit, whatever the features' scale."""

import pytest
import torch

from ami.reasoning.readout import Readout, fit_readout, with_products


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_linear_truth_is_recovered_whatever_the_scale_of_the_features(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(500, 4, generator=generator)
    truth = features @ torch.randn(4, 2, generator=generator) * 10 + torch.tensor([32.0, -5.0])
    readout = fit_readout(features[:250] * scale, truth[:250])
    assert readout.error(features[250:] * scale, truth[250:]).max() < 0.05
    assert readout.error(-features[250:] * scale, truth[250:]).min() > 5


def test_the_penalty_shrinks_to_the_mean_and_not_to_zero() -> None:
    features = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    truth = features[:, :1] + 30
    readout = fit_readout(features - features.mean(0), truth, penalty=1e6)
    torch.testing.assert_close(readout(features), truth.mean().expand(400, 1), rtol=1e-4, atol=0)


def test_a_quadratic_truth_is_recovered_from_products() -> None:
    features = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    truth = (features[:, :1] * features[:, 2:] - 2 * features[:, 1:2].square() + features[:, :1]) * 10
    for seen, low, high in ((with_products(features), 0, 0.1), (features, 5, 100)):
        assert low <= float(fit_readout(seen[:200], truth[:200]).error(seen[200:], truth[200:])) < high


@pytest.mark.parametrize("examples", [15, 60])
def test_more_features_than_examples_are_solved_as_exactly(examples: int) -> None:
    generator = torch.Generator().manual_seed(0)
    features, truth = torch.randn(examples, 30, generator=generator) + 1, torch.randn(examples, 2, generator=generator)
    x = torch.cat([features, torch.ones(examples, 1)], 1).double()
    penalty = torch.diag(torch.tensor([1e-3 * float(features.square().mean())] * 30 + [0.0])).double()
    wanted = torch.linalg.solve(x.T @ x / examples + penalty, x.T @ truth.double() / examples)
    torch.testing.assert_close(fit_readout(features, truth).weight.double(), wanted, rtol=1e-4, atol=1e-4)


def test_the_error_is_a_mean_of_absolute_ones_for_each_quantity() -> None:
    readout = Readout(torch.tensor([[2.0, 0.0], [1.0, 5.0]]))
    error = readout.error(torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0, 5.0], [1.0, 9.0]]))
    assert error.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("constant", [0.0, 4.0])
def test_a_collapsed_code_can_be_read_and_says_nothing(constant: float) -> None:
    truth = torch.arange(100.0)[:, None]
    readout = fit_readout(torch.full((100, 3), constant), truth)
    assert float(readout.error(torch.full((100, 3), constant), truth)) == pytest.approx(25.0, rel=1e-3)
