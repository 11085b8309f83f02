"""What keeps a representation from collapsing. Every statistic is over the global batch, whatever the number of ranks."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from ami import parallel

_KNOTS = 17
_REACH = 3.0


def sigreg(
    values: Float[Tensor, "samples dim"], generator: torch.Generator, *, directions: int = 256
) -> Float[Tensor, ""]:
    """How far the samples are from an isotropic standard Gaussian; small where they are one.

    Along random unit directions, redrawn at each call, the empirical characteristic function is compared with the
    Gaussian's at 17 knots on [0, 3], weighted by exp(-t²/2): the Epps-Pulley statistic, divided by the number of
    samples. Averages are taken over all ranks before they are squared, so ranks must share the generator's seed.
    Source: Balestriero and LeCun 2025, "LeJEPA", section 4 (SIGReg).
    """
    drawn = torch.randn(values.shape[1], directions, generator=generator).to(values)
    projected = values @ functional.normalize(drawn, dim=0)
    knots = torch.linspace(0.0, _REACH, _KNOTS).to(values)
    gaussian = torch.exp(-knots.square() / 2)
    # exp(i(t+d)x) = exp(itx) exp(idx): one cosine and one sine instead of seventeen of each, which were a fifth of a
    # training step on a CPU.
    step = projected * (_REACH / (_KNOTS - 1))
    turn_re, turn_im = step.cos(), step.sin()
    real, imaginary = torch.ones_like(step), torch.zeros_like(step)
    means = []
    for _ in range(_KNOTS):
        means.append(torch.stack([real.mean(0), imaginary.mean(0)]))
        real, imaginary = real * turn_re - imaginary * turn_im, real * turn_im + imaginary * turn_re
    found = parallel.mean(torch.stack(means, -1))
    gap = (found[0] - gaussian).square() + found[1].square()
    return torch.trapezoid(gap * gaussian, knots, dim=-1).mean()


def variance_hinge(values: Float[Tensor, "samples dim"], at_least: float = 1.0) -> Float[Tensor, ""]:
    """How much each dimension's deviation over the batch falls short of ``at_least``. Source: VICReg, equation 1."""
    mean = parallel.mean(values.mean(0))
    variance = parallel.mean((values - mean).square().mean(0))
    return functional.relu(at_least - (variance + 1e-4).sqrt()).mean()


def covariance(values: Float[Tensor, "samples dim"]) -> Float[Tensor, ""]:
    """The squared covariances between dimensions, summed, over their number. Source: VICReg, equation 3."""
    mean = parallel.mean(values.mean(0))
    gap = values - mean
    matrix = parallel.mean(gap.T @ gap / len(gap))
    return (matrix.square().sum() - matrix.diagonal().square().sum()) / values.shape[1]


def clip_variance_hinge(values: Float[Tensor, "batch time dim"], at_least: float = 1.0) -> Float[Tensor, ""]:
    """How much each dimension's deviation *within* a clip falls short: against codes that only tell clips apart.

    Source: Sobal et al. 2022, "Joint embedding predictive architectures focus on slow features".
    """
    return functional.relu(at_least - (values.var(1, correction=0) + 1e-4).sqrt()).mean()


def unsteadiness(values: Float[Tensor, "batch time dim"]) -> Float[Tensor, ""]:
    """The variance within a clip: zero for a code of what stays while a clip lasts."""
    return (values - values.mean(1, keepdim=True)).square().mean()
