"""How far the truth may lie from an imagined step: what was learned to be expected, and what was never learned."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ami.nn.predictors import ResidualPredictor


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
        shape = {"history": dim + actions, "context": dim, "width": width, "depth": 1}
        self.noise = ResidualPredictor(**shape, state=1)
        self.members = nn.ModuleList(ResidualPredictor(**shape, state=dim) for _ in range(members))

    def forward(
        self,
        state: Float[Tensor, "*rows dim"],
        action: Float[Tensor, "*rows action"],
        scene: Float[Tensor, "*rows dim"],
        taught: bool = False,
    ) -> Float[Tensor, "*rows"]:
        """The variance of each number of the state; actions in deviations. Only the noise is ``taught`` by it."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not taught):
            parted = self.whence(state, action, scene).var(0).mean(-1)
        step = torch.cat([state, action], -1)
        return self.noise(step, self.noise.context(scene))[..., 0].float().exp() + parted

    def whence(
        self,
        state: Float[Tensor, "*rows dim"],
        action: Float[Tensor, "*rows action"],
        scene: Float[Tensor, "*rows dim"],
    ) -> Float[Tensor, "members *rows dim"]:
        """What each member takes for the change from this state back to the one before it."""
        step = torch.cat([state, action], -1)
        return torch.stack([member(step, member.context(scene)) for member in self.members])
