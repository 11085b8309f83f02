"""Tell at once what will be there some steps later, once what is held stands still: a deeper network learns to leap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ami.models.recurrent import RecurrentJEPA
from ami.objectives.foresight import happening
from ami.types import Clip, Objective, WorldModel


@dataclass(frozen=True)
class LeapsSettings:
    """The weight of each loss."""

    floor: float = 0.2  # weight of a cell in which nothing happens; their mean is 1
    doubt: float = 0.05  # error of the expected error, in logarithms; it teaches nothing else
    precision: Literal["fp32", "bf16"] = "fp32"


class Leaps(Objective):
    """Mean squared error of what a leap expects, of those of a ``LeapStore``; cells in which much happens weigh more.

    What goes on from step to step is told by one small layer, and learned while all else still changes. A collision is
    one step in a hundred and is then never foretold, though all that it takes is held; but a leap over one, or over
    what turns back from a wall behind a screen, is every second leap of such a film. What is held, and what corrects
    it, stay as they are. Source: Gregor et al. 2019, "Temporal difference variational auto-encoder" (jumps).
    """

    def __init__(self, settings: LeapsSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or LeapsSettings()

    def losses(self, model: WorldModel, clip: Clip, generator: torch.Generator) -> dict[str, Tensor]:
        """``prediction`` and ``doubt``."""
        assert isinstance(model, RecurrentJEPA)
        assert clip.latents is not None
        weigh, (held, came) = self.settings, clip.latents.unbind(1)
        with torch.autocast(clip.times.device.type, torch.bfloat16, enabled=weigh.precision == "bf16"):
            expected, doubt = model.leap_from(held)
        begun, ended = (each[..., -model.config.dim :] for each in (held, came))
        missed = (expected.float() - ended).square().mean(-1)
        return {
            "prediction": (missed * happening(torch.stack([begun, ended], 1), weigh.floor)[:, 0]).mean(),
            "doubt": weigh.doubt * (doubt.float() - (missed.detach() + 1e-4).log()).square().mean(),
        }
