"""From what is held now and what will be done to what comes next."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ActionDoor(nn.Module):
    """One embodiment's front door: its actions, whatever their number, become a condition of the model's width.

    Actions are normalised here with the mean and deviation of the training data. A passive embodiment has only the
    learned constant, which says what kind of world this is.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32), persistent=False)
        self.weight = nn.Parameter(torch.randn(width, len(mean)) / max(len(mean), 1) ** 0.5) if mean else None
        self.kind = nn.Parameter(torch.zeros(width))

    def forward(
        self, actions: Float[Tensor, "batch horizon action"] | None, context: Float[Tensor, "batch width"], horizon: int
    ) -> Iterator[Float[Tensor, "batch width"]]:
        """The condition of each step, added to what is the same at all of them.

        One step at a time: the conditions of a whole horizon in one product would not stay in cache, and took longer.
        """
        same = context + self.kind
        if self.weight is None or actions is None:
            yield from [same] * horizon
        else:
            for done in self.normal(actions).unbind(1):
                yield torch.addmm(same, done, self.weight.T)

    def normal(self, actions: Float[Tensor, "batch time action"]) -> Float[Tensor, "batch time action"]:
        """Actions in deviations of the training data."""
        return (actions - self.mean) / self.std


class ResidualPredictor(nn.Module):
    """One step of dynamics: a residual network that adds a change to the state.

    ``context`` is what does not change on the way (the scene), so a rollout projects it once. The last layer begins at
    zero: an untrained model expects that nothing changes.
    """

    def __init__(self, *, history: int, context: int, width: int, depth: int, state: int) -> None:
        super().__init__()
        self.state = nn.Linear(history, width)
        self.context = nn.Linear(context, width, bias=False)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.change = nn.Linear(width, state)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def forward(
        self, history: Float[Tensor, "rows history"], condition: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "rows state"]:
        """How the state changes in one step."""
        hidden = self.state(history).add_(condition).relu_()
        for layer in self.layers:
            more = layer(hidden).relu_()
            # In place where no gradient needs the old one: planning is a third faster for it.
            hidden = hidden + more if torch.is_grad_enabled() else hidden.add_(more)
        return self.change(hidden)
