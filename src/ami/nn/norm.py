"""Normalising what an encoder says, with statistics of their own for each embodiment."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ami import parallel

_MOMENTUM = 0.02
_EPS = 1e-5


class EmbodimentNorm(nn.Module):
    """Batch normalisation without scale or shift; running statistics per embodiment, batch ones over all ranks.

    A LayerNorm at the end of an encoder puts latents on a sphere, where SIGReg cannot make them Gaussian; and
    statistics shared between a camera on a robot and pictures of a room would fit neither when the model acts.
    """

    mean: Tensor
    var: Tensor
    seen: Tensor

    def __init__(self, names: tuple[str, ...], dim: int) -> None:
        super().__init__()
        self.names = names
        self.register_buffer("mean", torch.zeros(len(names), dim))
        self.register_buffer("var", torch.ones(len(names), dim))
        self.register_buffer("seen", torch.zeros(len(names)))

    def forward(self, values: Float[Tensor, "rows dim"], name: str) -> Float[Tensor, "rows dim"]:
        """Zero mean and unit variance in each dimension."""
        index = self.names.index(name)
        if not self.training:
            return (values - self.mean[index]) * (self.var[index] + _EPS).rsqrt()
        mean = parallel.mean(values.mean(0))
        var = parallel.mean((values - mean).square().mean(0))
        with torch.no_grad():
            # At first newer batches count more, the n-th n times the first: an encoder that has just begun to learn
            # soon says other things, and a slow average would still be far off in a short training.
            self.seen[index] += 1
            weight = (2 / (self.seen[index] + 1)).clamp_min(_MOMENTUM)
            self.mean[index] += weight * (mean - self.mean[index])
            self.var[index] += weight * (var - self.var[index])
        return (values - mean) * (var + _EPS).rsqrt()
