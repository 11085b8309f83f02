"""From what is held now and what will be done to what comes next."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class ResidualPredictor(nn.Module):
    """One step of dynamics on a flat state: a residual network that adds a change to the last latent."""

    def __init__(self, state: int, condition: int, width: int, depth: int, out: int) -> None:
        super().__init__()
        self.state = nn.Linear(state, width)
        self.condition = nn.Linear(condition, width, bias=False)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.change = nn.Linear(width, out)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def forward(
        self, state: Float[Tensor, "rows state"], condition: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "rows out"]:
        """The change from the last latent to the next. ``condition`` comes from :meth:`prepare`."""
        hidden = functional.relu(self.state(state) + condition)
        for block in self.blocks:
            hidden = hidden + functional.relu(block(hidden))
        return self.change(hidden)

    def prepare(self, condition: Float[Tensor, "... condition"]) -> Float[Tensor, "... width"]:
        """Project the conditions of a whole horizon at once: one product instead of one for each step."""
        return self.condition(condition)
