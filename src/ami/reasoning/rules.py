"""How the surprise of a whole film becomes one number, by a rule that is fixed before any film is seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from ami.reasoning.surprise import Watching, energies, stepwise_energies
from ami.types import Clip, WorldModel


class Rule(Protocol):
    """A rule is frozen settings. Any curve is scored alike: a model's, or one that needs no model."""

    @property
    def name(self) -> str:
        """What it is called beside others."""
        ...

    @property
    def protocol(self) -> str:
        """How it goes, in a plain sentence."""
        ...

    @property
    def shortest(self) -> int:
        """Steps that a film needs."""
        ...

    def curve(self, model: WorldModel, film: Clip) -> Float[Tensor, "batch time"]:
        """How surprising each step of each film is to a model; NaN where nobody can say."""
        ...

    def paired(self, curve: Float[Tensor, "batch time"]) -> Float[Tensor, "batch"]:
        """A number for each film, to compare it with its twin: the impossible one should have the higher."""
        ...

    def alone(self, curve: Float[Tensor, "batch time"]) -> Float[Tensor, "batch"]:
        """A number for each film, to judge it without its twin: above some threshold it is impossible."""
        ...


@dataclass(frozen=True)
class SlidingWindows:
    """Meta's rule: short windows, each perceived anew, half of it believed; mean over windows for twins, else the most.

    With steps of two frames a window has 16 frames. The published figures take, for each set of films, the context
    that was best on it; here it is fixed. A window's energy (the mean over what it predicts) is put down at the middle
    of what it predicts. Source: Garrido et al. 2025, "Intuitive physics understanding emerges from self-supervised
    pretraining on natural videos".
    """

    context: int = 4  # steps of a window that are believed
    horizon: int = 4  # steps after them that are predicted and judged
    batch: int = 64  # windows at a time

    @property
    def name(self) -> str:
        """What it is called beside others."""
        return "sliding-windows"

    @property
    def protocol(self) -> str:
        """How it goes, in a plain sentence."""
        return (
            f"Sliding windows: {self.context} steps believed, {self.horizon} predicted open loop, mean energy; twins "
            "are compared by the mean over all windows, single films by the highest window (Garrido et al. 2025)."
        )

    @property
    def shortest(self) -> int:
        """Steps that a film needs."""
        return self.context + self.horizon

    def curve(self, model: WorldModel, film: Clip) -> Float[Tensor, "batch time"]:
        """The energy of each window, at the middle of what it predicts."""
        watching = Watching(self.context, self.horizon, batch=self.batch)
        windows = [energies(model, film.rows(slice(row, row + 1)), watching).mean(1) for row in range(len(film))]
        first = self.context + (self.horizon - 1) // 2
        judged = torch.stack(windows)
        if not judged.isfinite().all():
            raise ValueError("the model's energy of a film is NaN or infinite; train it anew, or find out why")
        curve = judged.new_full((len(film), film.steps), torch.nan)
        curve[:, first : first + judged.shape[1]] = judged
        return curve

    def paired(self, curve: Float[Tensor, "batch time"]) -> Float[Tensor, "batch"]:
        """The mean over all windows."""
        return curve.nanmean(1)

    def alone(self, curve: Float[Tensor, "batch time"]) -> Float[Tensor, "batch"]:
        """The window that surprises most."""
        return curve.nan_to_num(-torch.inf, posinf=torch.inf).amax(1)


@dataclass(frozen=True)
class Stepwise:
    """AMI's rule: a belief lives through the film, and every step is judged by what was expected just before it.

    Energies are added up as they are, for whoever says them says them over what it expected of its own error. The mean
    over a film's steps is both the twin's number and the single film's: a highest step would tell films made of two
    halves from whole ones, whatever is in them. The first steps do not count: who has seen one picture knows no speed,
    so there every film surprises, and the more the faster it begins.
    """

    settle: int = 3  # steps after the first picture that do not count
    batch: int = 64  # films at a time

    @property
    def name(self) -> str:
        """What it is called beside others."""
        return "stepwise"

    @property
    def protocol(self) -> str:
        """How it goes, in a plain sentence."""
        return (
            "Stepwise: one belief lives through the whole film; a step's surprise is its energy one step ahead, and a "
            f"film's is the mean over its steps but the first {1 + self.settle}, for twins and for single films alike."
        )

    @property
    def shortest(self) -> int:
        """Steps that a film needs."""
        return 2 + self.settle

    def curve(self, model: WorldModel, film: Clip) -> Float[Tensor, "batch time"]:
        """The energy of each step after the first."""
        curve = stepwise_energies(model, film, batch=self.batch)[..., 0]
        if not curve[:, 1:].isfinite().all():
            raise ValueError("the model's energy of a film is NaN or infinite; train it anew, or find out why")
        return curve

    def paired(self, curve: Float[Tensor, "batch time"]) -> Float[Tensor, "batch"]:
        """The mean over the steps that count."""
        return curve[:, 1 + self.settle :].nanmean(1)

    def alone(self, curve: Float[Tensor, "batch time"]) -> Float[Tensor, "batch"]:
        """The same."""
        return self.paired(curve)
