"""What was done on the way to where one came, as clips: a goal that was reached, and what was done first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int

from ami.data.views import Over
from ami.training.perceived import PerceivedStore
from ami.types import Clip


class HindsightStore(Over[PerceivedStore]):
    """Recorded moments with each of the moments soon after as their goal, in the form of :class:`WayStore`'s clips.

    Some moments, the start, the goal; the last action is the recorded one, and the goal comes as many steps later as it
    came. Of experience whose episodes were after something this tells what to do, with no model of what it leads to.
    Source: goal-conditioned supervised learning (Ghosh et al. 2021), hindsight as of Andrychowicz et al. 2017.
    """

    def __init__(self, store: PerceivedStore, before: int, ahead: int) -> None:
        super().__init__(store)
        self.before, self.ahead = before, ahead

    def windows(
        self, steps: int, frames_per_step: int = 1, episodes: Sequence[int] | None = None
    ) -> Int[np.ndarray, "windows 2"]:
        """Every (episode, moment x ``ahead`` + steps to the goal - 1) of which all is recorded."""
        found = self.store.windows(self.before + 1 + self.ahead, episodes=episodes)
        index = found.repeat(self.ahead, 0)
        index[:, 1] = index[:, 1] * self.ahead + np.tile(np.arange(self.ahead), len(found))
        return index

    def clips(self, index: Int[np.ndarray, "batch 2"], steps: int, frames_per_step: int = 1) -> Clip:
        """Those, each as some moments, the start and the goal."""
        assert (steps, frames_per_step) == (self.before + 2, 1), "some moments, the start and the goal"
        first, later = np.divmod(index[:, 1], self.ahead)
        seen = self.store.clips(np.stack([index[:, 0], first], 1), self.before + 1 + self.ahead)
        assert seen.latents is not None
        assert seen.actions is not None
        goal = torch.from_numpy(self.before + 1 + later)
        began = torch.arange(self.before + 1).expand(len(index), -1)
        moments, rows = torch.cat([began, goal[:, None]], 1), torch.arange(len(index))[:, None]
        return Clip(
            seen.embodiment,
            seen.times[rows, moments],
            latents=seen.latents[rows, moments],
            actions=seen.actions[:, : self.before + 1],
        )
