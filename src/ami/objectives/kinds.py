"""What teaches a model of several kinds of experience."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ami.types import Clip, Objective, WorldModel


class ByEmbodiment(Objective):
    """An objective of their own for the clips of some embodiments, by name, and ``other`` for those of the rest."""

    def __init__(self, named: Mapping[str, Objective], other: Objective) -> None:
        super().__init__()
        self._named, self._other = dict(named), other
        self._each = (*named.values(), other)
        self.parts = nn.ModuleList(self._each)
        self.least_deviation = min(each.least_deviation for each in self._each)

    def losses(self, model: WorldModel, clip: Clip, generator: torch.Generator) -> dict[str, Tensor]:
        """Those of the clip's own objective."""
        return self._named.get(clip.embodiment, self._other).losses(model, clip, generator)

    def after_step(self, model: WorldModel) -> None:
        """That of each objective."""
        for each in self._each:
            each.after_step(model)

    def gauges(self, model: WorldModel) -> dict[str, float]:
        """Those of all objectives."""
        return {name: value for each in self._each for name, value in each.gauges(model).items()}
