"""When the steps are that a model imagines, and whether what is done fits them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ami.types import Embodiment


def times_ahead(
    times: Float[Tensor, "batch time"], step_seconds: float, horizon: int
) -> Float[Tensor, "batch horizon"]:
    """The seconds of the ``horizon`` steps that follow the last one."""
    ahead = torch.arange(1, horizon + 1, dtype=times.dtype, device=times.device)
    return torch.add(times[:, -1:], ahead, alpha=step_seconds)


def fitting(body: Embodiment, actions: Tensor | None, steps: int) -> None:
    """``ValueError`` for actions, where there are any, of another number of steps or of another body."""
    if actions is not None and tuple(actions.shape[1:]) != (steps, body.action_dim):
        raise ValueError(
            f"'{body.name}' needs actions of shape (batch, {steps}, {body.action_dim}); {tuple(actions.shape)} came"
        )
