"""A teacher that follows its student: the target encoder of masked prediction, thrown away when training ends."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ami import parallel


class Teacher(nn.Module):
    """An exponential moving average of every parameter and buffer of a module; it has no gradient.

    Source: Tarvainen and Valpola 2017, equation 2; used as the target encoder by V-JEPA (Bardes et al. 2024).
    """

    def __init__(self, student: nn.Module, momentum: float) -> None:
        super().__init__()
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"the teacher's momentum is {momentum}; it must be at least 0 and below 1")
        self.momentum = momentum
        self.copy = copy.deepcopy(student).requires_grad_(False)

    @torch.no_grad()
    def forward(self, *inputs: Any) -> Tensor:
        """What the teacher says."""
        return self.copy(*inputs)

    @torch.no_grad()
    def follow(self, student: nn.Module) -> None:
        """One step towards the student; counters are copied, for they have no average."""
        for mine, theirs in zip(_tensors(self.copy), _tensors(student), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs.to(mine), 1.0 - self.momentum)
            else:
                mine.copy_(theirs)

    @torch.no_grad()
    def distance(self, student: nn.Module) -> Tensor:
        """How far the two are apart, as a share of the student's length: 0 when the student stands still."""
        pairs = list(zip(self.copy.parameters(), student.parameters(), strict=True))
        apart = parallel.length([mine - theirs for mine, theirs in pairs])
        return apart / parallel.length([theirs for _, theirs in pairs]).clamp_min(1e-6)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
