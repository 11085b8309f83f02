"""Predict how objects move: the rollout loss of a model that is told of them."""

from __future__ import annotations

import torch
from torch import Tensor

from ami import parallel
from ami.models.objects import ObjectModel
from ami.nn.objects import mirrored
from ami.types import Clip, Latent, Objective, WorldModel


class Motion(Objective):
    """The energy of what came, several steps ahead of the first; half of the clips are shown in a mirror.

    What is imagined is fed back, so errors that grow on the way are paid for.
    """

    def losses(self, model: WorldModel, clip: Clip, generator: torch.Generator) -> dict[str, Tensor]:
        """``prediction``."""
        assert isinstance(model, ObjectModel)
        seen = model.encode(clip)
        chance = torch.rand(len(clip) * parallel.size(), generator=generator)
        flipped = chance[parallel.rank() * len(clip) :][: len(clip)].to(seen.values) < 0.5
        values = torch.where(flipped[:, None, None, None], mirrored(seen.values), seen.values)
        belief = model.believe(None, Latent(values[:, :1], seen.times[:, :1]), None, clip.embodiment)
        return {"prediction": model.energy(belief, clip.actions, Latent(values[:, 1:], seen.times[:, 1:])).mean()}
