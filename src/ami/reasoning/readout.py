"""Read named quantities out of frozen latents, with an error in their own unit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ami.types import Latent


@dataclass(frozen=True)
class Readout:
    """A linear map from features to quantities."""

    weight: Float[Tensor, "feature+1 quantity"]

    def __call__(self, features: Float[Tensor, "n feature"]) -> Float[Tensor, "n quantity"]:
        return _with_constant(features) @ self.weight

    def along(self, latent: Latent) -> Float[Tensor, "batch time quantity"]:
        """What it reads in each step, all tokens together."""
        return self(latent.values.flatten(2).flatten(0, 1)).unflatten(0, latent.times.shape)

    def error(
        self, features: Float[Tensor, "n feature"], truth: Float[Tensor, "n quantity"]
    ) -> Float[Tensor, "quantity"]:
        """Mean absolute error of each quantity, in its unit."""
        return (self(features) - truth).abs().mean(0)


def fit_readout(
    features: Float[Tensor, "n feature"], truth: Float[Tensor, "n quantity"], penalty: float = 1e-3
) -> Readout:
    """Ridge regression in closed form; ``penalty`` is relative to the features' mean square. The constant is free.

    Of more features than rows it is solved in the rows (its dual form), which is as exact and does not cube them.
    """
    x, wanted = features.double(), truth.double()
    ridge = (penalty * x.square().mean()).clamp_min(1e-12)
    middle, level = x.mean(0), wanted.mean(0)
    x, wanted = x - middle, wanted - level
    if x.shape[1] > len(x):
        dual = x @ x.T / len(x)
        weight = x.T @ torch.linalg.solve(dual + ridge * torch.eye(len(x)).to(dual), wanted) / len(x)
    else:
        gram = x.T @ x / len(x)
        weight = torch.linalg.solve(gram + ridge * torch.eye(len(gram)).to(gram), x.T @ wanted / len(x))
    return Readout(torch.cat([weight, (level - middle @ weight)[None]]).to(features.dtype))


def with_products(features: Float[Tensor, "*n feature"]) -> Float[Tensor, "*n more"]:
    """The features, and the products of every two of them: read out linearly, they make a quadratic read-out.

    A place lies bent in a latent. In Two Rooms a ridge on the latent itself is off by up to 5.4 px (n = 10,000, mean
    1.0), on its products by up to 2.5 (mean 0.4).
    """
    one, other = torch.triu_indices(features.shape[-1], features.shape[-1], device=features.device)
    return torch.cat([features, features[..., one] * features[..., other]], -1)


def _with_constant(features: Tensor) -> Tensor:
    return torch.cat([features, torch.ones_like(features[:, :1])], 1)
