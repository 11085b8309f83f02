"""What keeps a representation from collapsing; every statistic is over the global batch of all ranks."""

from __future__ import annotations

from typing import Any

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
    found = parallel.mean(_WaveMeans.apply(projected * (_REACH / (_KNOTS - 1)), _KNOTS - 1))
    gap = (found[..., 0] - gaussian[1:, None]).square() + found[..., 1].square()
    # At the first knot, 0, both functions are 1: the gap that is put in front.
    weighted = functional.pad(gap * gaussian[1:, None], (0, 0, 1, 0))
    return torch.trapezoid(weighted, knots, dim=0).mean()


class _WaveMeans(torch.autograd.Function):
    """The means over samples of exp(ikx), k = 1 … ``knots``, as real and imaginary parts ``(knots, directions, 2)``.

    exp(i(k+1)x) = exp(ikx) exp(ix): one cosine and one sine instead of sixteen of each. The gradient is a polynomial in
    exp(ix), summed by Horner's rule, so nothing is kept but exp(ix): six times faster on a CPU than to record every
    product, which was half of a training step.
    """

    @staticmethod
    def forward(ctx: Any, angle: Float[Tensor, "samples directions"], knots: int) -> Tensor:
        turn = torch.complex(angle.cos(), angle.sin())
        wave, means = turn.clone(), [turn.mean(0)]
        for _ in range(knots - 1):
            means.append(wave.mul_(turn).mean(0))
        ctx.save_for_backward(turn)
        return torch.view_as_real(torch.stack(means))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (turn,) = ctx.saved_tensors
        asked = torch.view_as_complex(gradients[0].contiguous()).conj()
        order = torch.arange(1, len(asked) + 1, device=turn.device)[:, None]
        # d exp(ikx) / dx = ik exp(ikx)
        parts = (asked * order * (1j / len(turn))).unbind(0)
        total = parts[-1] * turn
        for part in reversed(parts[:-1]):
            total.add_(part).mul_(turn)
        return total.real.contiguous(), None


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
