"""How far the truth may lie from an imagined step: what was learned to be expected, and what was never learned."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Spread(nn.Module):
    """From where an imagined step ends, what was done and the scene: how much farther off it is than the step before.

    *Noise* is how far off such steps were (walls, contacts, what cannot be seen). It says nothing of steps unlike any
    that was learned from: there the *members* part, who were taught the same, whence a step came, and began with other
    weights. The sum is the law of total variance; source: Lakshminarayanan et al. 2017, "Simple and scalable predictive
    uncertainty estimation using deep ensembles", section 2.4; Chua et al. 2018 (PETS), section 4.

    Whence it came and not where it leads, so that an imagined step can be judged without what was imagined before.
    """

    def __init__(self, dim: int, actions: int, width: int, members: int = 2) -> None:
        super().__init__()
        self.noise = _network(2 * dim + actions, width, 1)
        self.members = nn.ModuleList(_network(2 * dim + actions, width, dim) for _ in range(members))

    def forward(self, step: Float[Tensor, "*rows number"], taught: bool = False) -> Float[Tensor, "*rows"]:
        """The variance of each number of the state. Only the noise is ``taught`` by it."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not taught):
            parted = self.whence(step).var(0).mean(-1)
        return self.noise(step)[..., 0].float().exp() + parted

    def whence(self, step: Float[Tensor, "*rows number"]) -> Float[Tensor, "members *rows dim"]:
        """What each member takes for the change from this state back to the one before it.

        A step is the state it ends in, the action in deviations, and the scene, one behind the other.
        """
        return torch.stack([member(step) for member in self.members])


def _network(numbers: int, width: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(numbers, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out)
    )
