"""What teaches one part of a model that is made of several."""

from __future__ import annotations

import torch
from torch import Tensor

from ami.types import Clip, Objective, WorldModel


class ForPart(Objective):
    """An objective that is shown the part which answers for a clip, and not the whole model."""

    def __init__(self, inner: Objective, embodiment: str) -> None:
        super().__init__()
        self.inner, self.embodiment, self.least_deviation = inner, embodiment, inner.least_deviation

    def losses(self, model: WorldModel, clip: Clip, generator: torch.Generator) -> dict[str, Tensor]:
        """Those of the objective inside."""
        return self.inner.losses(model.part(clip.embodiment), clip, generator)

    def after_step(self, model: WorldModel) -> None:
        """That of the objective inside."""
        self.inner.after_step(model.part(self.embodiment))

    def gauges(self, model: WorldModel) -> dict[str, float]:
        """Those of the objective inside."""
        return self.inner.gauges(model.part(self.embodiment))
