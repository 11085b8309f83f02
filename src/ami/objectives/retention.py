"""Close your eyes when something is about to be shown, and say what it will be: how it pays to remember."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ami import parallel
from ami.models.recurrent import RecurrentJEPA
from ami.objectives.foresight import happening
from ami.objectives.regularizers import covariance, variance_hinge
from ami.types import Clip, Objective, WorldModel


@dataclass(frozen=True)
class RetentionSettings:
    """How films are lived through in which something is done, and the weight of each loss."""

    closed: float = 0.9  # share of the acts that are gone through with eyes closed
    acts: float = 3.0  # weight of what is expected while something is done; otherwise it is 1
    floor: float = 0.15  # weight of a cell in which nothing happens; their mean is 1
    behind: float = 0.5  # error of the second layer, before which nothing stands
    doubt: float = 0.05  # error of the expected error, in logarithms; it teaches nothing else
    variance: float = 3.0  # hinge of what changes within a film
    spread: float = 0.7  # deviation that it asks for; a token's own is 1
    covariance: float = 0.2  # of what changes
    precision: Literal["fp32", "bf16"] = "fp32"


class Retention(Objective):
    """Mean squared error of what was expected, where what was done brings to light what had been out of sight.

    A cue that has no effect for a while is not worth remembering to who predicts the next step alone. Here steps are
    told by actions: an *act* is a run of steps in which something is done. Through most of them the model goes without
    looking, so all that an act shows has to come from what is held, and its cells count by how much happens in them:
    a ball is one cell in sixty-four. Everything else is looked at, or nobody could follow where it went.
    """

    least_deviation = 0.05

    def __init__(self, settings: RetentionSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or RetentionSettings()

    def losses(self, model: WorldModel, clip: Clip, generator: torch.Generator) -> dict[str, Tensor]:
        """``prediction``, ``behind``, ``doubt``, ``variance`` and ``covariance``."""
        assert isinstance(model, RecurrentJEPA)
        weigh = self.settings
        if clip.actions is None:
            raise ValueError(
                "what brings things to light is told by actions, and the clip has none; give clips of acts"
            )
        acts = (clip.actions != 0).any(-1)
        chance = torch.rand(len(clip) * parallel.size(), clip.steps, generator=generator)
        shown = looked(acts, chance[parallel.rank() * len(clip) :][: len(clip)].to(clip.times), weigh.closed)
        other = torch.randperm(clip.steps, generator=generator)
        with torch.autocast(clip.times.device.type, torch.bfloat16, enabled=weigh.precision == "bf16"):
            seen = model.encode(clip)
            expected, doubt, _ = model.live(seen, clip.actions, clip.embodiment, shown)
        front, behind = expected.float().split(model.config.dim, -1)
        now = seen.values[:, 1:]
        error = (front - now).square().mean(-1)
        counts = happening(seen.values, weigh.floor) * (1 + (weigh.acts - 1) * acts[..., None])
        changes = (seen.values - seen.values[:, other]).flatten(0, 2)
        return {
            "prediction": (error * counts).mean(),
            "behind": weigh.behind * ((behind - now.detach()).square().mean(-1) * counts).mean(),
            "doubt": weigh.doubt * (doubt - (error.detach() + 1e-4).log()).square().mean(),
            "variance": weigh.variance * variance_hinge(changes, weigh.spread),
            "covariance": weigh.covariance * covariance(changes),
        }


def looked(
    acts: Bool[Tensor, "batch gaps"], chance: Float[Tensor, "batch time"], closed: float
) -> Bool[Tensor, "batch time"]:
    """Which steps are looked at: all but those of a share ``closed`` of the acts, each by the chance at its first."""
    before = torch.cat([torch.zeros_like(acts[:, :1]), acts[:, :-1]], 1)
    number = (acts & ~before).cumsum(1)
    shut = acts & (chance.gather(1, number) < closed)
    return torch.cat([torch.ones_like(acts[:, :1]), ~shut], 1)
