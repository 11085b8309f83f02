"""When the steps are that a model imagines."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def times_ahead(
    times: Float[Tensor, "batch time"], step_seconds: float, horizon: int
) -> Float[Tensor, "batch horizon"]:
    """The seconds of the ``horizon`` steps that follow the last one."""
    ahead = torch.arange(1, horizon + 1, dtype=times.dtype, device=times.device)
    return torch.add(times[:, -1:], ahead, alpha=step_seconds)
