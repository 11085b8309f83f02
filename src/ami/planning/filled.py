"""Costs with pits that an agent has sat in, and filled up."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ami.planning.guardrails import of_plans
from ami.types import Cost, Latent

_WIDTH = 0.18  # deviations in each number of a latent: so far around a place it is filled up
_EXACTLY = "donot_use_mm_for_euclid_dist"  # a product would tell what is near only roughly


@dataclass(frozen=True)
class Filled:
    """A cost, and a hill on each place where it promised more than came of it.

    A learned cost has pits: places that look nearer to the goal than all around them. Who moves downhill stays there.
    So whenever the best that can be imagined from a place is no better than the place itself, the place is raised to
    what that is worth: an agent that sits in a pit fills it until it can walk out.
    Source: learning real-time A* (Korf 1990, section 4), with hills in place of a table of states.
    """

    cost: Cost
    places: Float[Tensor, "plans places tokens dim"]
    heights: Float[Tensor, "plans places"]

    def __call__(self, imagined: Latent, actions: Float[Tensor, "rows horizon action"]) -> Float[Tensor, "rows"]:
        places = self.places.flatten(2)
        plans, _, numbers = places.shape
        far = torch.cdist(imagined.values.reshape(plans, -1, numbers), places, compute_mode=_EXACTLY)
        hills = torch.exp(far.square() * (-0.5 / (numbers * _WIDTH**2))) @ self.heights[:, :, None]
        return self.cost(imagined, actions) + hills.view(imagined.times.shape).sum(1)

    def rows(self, index: slice | Tensor) -> Filled:
        """The same for some of the plans, in the order of ``index``."""
        return replace(
            self,
            cost=self.cost.rows(index),
            places=of_plans(self.places, index),
            heights=of_plans(self.heights, index),
        )
