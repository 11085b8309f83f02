"""The optimiser and its schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from ami import parallel


@dataclass(frozen=True)
class Optimisation:
    """AdamW (Loshchilov and Hutter 2019) with a linear warm-up and a cosine to zero."""

    rate: float = 2e-3  # at its highest
    warmup: int = 20  # steps
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 1e-3  # of matrices; vectors are left alone
    clip: float = 1.0  # the gradient's length, at most
    epsilon: float = 1e-8  # a gradient much smaller than this moves nothing

    def rate_at(self, step: int, steps: int) -> float:
        """The learning rate of one step of ``steps``."""
        rise = min(1.0, (step + 1) / max(self.warmup, 1))
        return self.rate * rise * 0.5 * (1.0 + math.cos(math.pi * step / steps))

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.AdamW:
        """An optimiser of these parameters; its rate is set anew at each step."""
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for each in parameters:  # one fused step takes either shared weights or whole ones
            groups.setdefault((each.ndim > 1, parallel.is_shared(each)), []).append(each)
        settings = [
            {"params": held, "weight_decay": self.weight_decay if matrix else 0.0}
            for (matrix, _), held in groups.items()
        ]
        return torch.optim.AdamW(settings, lr=self.rate, betas=self.betas, eps=self.epsilon, fused=True)
