"""Go over what surprised, once what is held stands still: a deeper network learns what could have been foretold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ami.models.recurrent import RecurrentJEPA
from ami.types import Clip, Objective, WorldModel


@dataclass(frozen=True)
class RehearsalSettings:
    """The weight of each loss."""

    behind: float = 0.5  # error of what was expected in the second layer, before which nothing stands
    doubt: float = 0.05  # error of the expected error, in logarithms; it teaches nothing else
    precision: Literal["fp32", "bf16"] = "fp32"


class Rehearsal(Objective):
    """Mean squared error of the second telling of what comes, of moments of a ``RehearsedStore``.

    In a loop over a film's steps what is expected has to be told by one small layer, and learned while all else still
    changes. A collision, one step in a hundred, is then never foretold, and yet it is held where all movers are and how
    fast (docs/log.md). The second telling begins as what the memory itself expects; what is held, and what corrects it,
    stay as they are. Of going over what surprised: Schaul et al. 2016, "Prioritized experience replay".
    """

    def __init__(self, model: RecurrentJEPA, settings: RehearsalSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or RehearsalSettings()
        assert model.careful is not None, "it was built to foretell once"
        known = {name: value for name, value in model.memory.state_dict().items() if name in model.careful.state_dict()}
        model.careful.load_state_dict(known, strict=False)

    def losses(self, model: WorldModel, clip: Clip, generator: torch.Generator) -> dict[str, Tensor]:
        """``prediction``, ``behind`` and ``doubt``."""
        assert isinstance(model, RecurrentJEPA)
        assert clip.latents is not None
        weigh, (held, came) = self.settings, clip.latents.unbind(1)
        with torch.autocast(clip.times.device.type, torch.bfloat16, enabled=weigh.precision == "bf16"):
            done = None if clip.actions is None else clip.actions[:, 0]
            expected, doubt = model.foretell(held, done, clip.embodiment)
        missed = (expected.float() - came[..., -expected.shape[-1] :]).square()
        front, behind = (each.mean(-1) for each in missed.split(model.config.dim, -1))
        return {
            "prediction": front.mean(),
            "behind": weigh.behind * behind.mean(),
            "doubt": weigh.doubt * (doubt.float() - (front.detach() + 1e-4).log()).square().mean(),
        }
