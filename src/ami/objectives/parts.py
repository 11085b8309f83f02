"""What teaches one part of a model that is made of several."""

from __future__ import annotations

import torch
from torch import Tensor

from ami.types import Clip, Objective, WorldModel


class ForPart(Objective):
    """An objective that is shown one part of a model, by its name, and never the whole."""

    def __init__(self, inner: Objective, part: str) -> None:
        super().__init__()
        self.inner, self.part, self.least_deviation = inner, part, inner.least_deviation

    def losses(self, model: WorldModel, clip: Clip, generator: torch.Generator) -> dict[str, Tensor]:
        """Those of the objective inside."""
        return self.inner.losses(part_of(model, self.part), clip, generator)

    def after_step(self, model: WorldModel) -> None:
        """That of the objective inside."""
        self.inner.after_step(part_of(model, self.part))

    def gauges(self, model: WorldModel) -> dict[str, float]:
        """Those of the objective inside."""
        return self.inner.gauges(part_of(model, self.part))


def part_of(model: WorldModel, name: str) -> WorldModel:
    """A part of a model that is a model itself."""
    part = model.get_submodule(name)
    assert isinstance(part, WorldModel)
    return part
