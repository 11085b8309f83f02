"""Try for real what was imagined, one plan after another, and learn from each that failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_SURE = 4.0  # how much more a plan that was tried counts than one that was only imagined
_WIDER = 0.5  # and so much wider it says something, in units of the nearness, with every failure


@dataclass(frozen=True)
class Attempts:
    """Many imagined plans, and which of them to try next.

    What a plan promises is the mean of what it and its neighbours were imagined to give, a kernel regression: where
    small changes decide, the model may well be wrong, and a plan amid good ones is the safer. A plan that was tried and
    failed promises nothing, and takes its neighbours with it: the more of them the more have failed, for a model that
    was wrong about several plans is wrong about something that they share. Source: Nadaraya 1964.
    """

    plans: Float[Tensor, "plans number"]  # numbers in which plans are alike or not
    promise: Float[Tensor, "plans"]  # of each by itself, 0 to 1
    near: float  # plans so far apart still say something about each other

    def __post_init__(self) -> None:
        if len(self.plans) != len(self.promise) or not self.near > 0:
            raise ValueError(
                f"{len(self.plans)} plans with {len(self.promise)} promises and a nearness of {self.near} came; "
                "give each plan one promise, and a nearness above 0"
            )

    def after(self, failed: Sequence[int]) -> Float[Tensor, "plans"]:
        """What each plan promises when those numbered in ``failed`` have been tried; these themselves: nothing."""
        near = self.near * (1 + _WIDER * len(failed))
        weight = torch.exp(-torch.cdist(self.plans, self.plans).square() / (2 * near**2))
        held = self.promise.clone()
        tried = torch.tensor(failed, dtype=torch.long)
        held[tried], weight[:, tried] = 0.0, _SURE * weight[:, tried]
        found = (weight @ held) / weight.sum(1)
        found[tried] = -1.0
        return found

    def next(self, failed: Sequence[int]) -> int:
        """The most promising plan that has not been tried. ``ValueError`` when all have."""
        if len(failed) >= len(self.plans):
            raise ValueError(f"all {len(self.plans)} plans have been tried; imagine more")
        return int(self.after(failed).argmax())
