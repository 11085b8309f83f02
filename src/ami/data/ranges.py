"""A store of which only some stretches of each episode may be seen: films are held out by time, never by frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int

from ami.data.episodes import Store
from ami.data.views import Over
from ami.types import Clip

Ranges = Callable[[int], Sequence[tuple[int, int]]]  # of an episode's length: (first, end) of each, in frames


class Ranged(Over[Store]):
    """The windows of a store that lie wholly within what ``ranges`` allows.

    Sampled like any other (:class:`ami.data.loader.Source`), and nothing is copied.
    """

    def __init__(self, store: Store, ranges: Ranges) -> None:
        super().__init__(store)
        self.ranges = ranges

    def windows(
        self, steps: int, frames_per_step: int = 1, episodes: Sequence[int] | None = None
    ) -> Int[np.ndarray, "windows 2"]:
        """Every (episode, first frame) from which a window fits into a range."""
        found = self.store.windows(steps, frames_per_step, episodes)
        kept = np.zeros(len(found), bool)
        for episode in np.unique(found[:, 0]).tolist():
            mine = found[:, 0] == episode
            for first, end in self.ranges(self.episodes[episode].length):
                kept |= mine & (found[:, 1] >= first) & (found[:, 1] + steps * frames_per_step <= end)
        return found[kept]

    def clips(self, index: Int[np.ndarray, "batch 2"], steps: int, frames_per_step: int = 1) -> Clip:
        """Those windows."""
        return self.store.clips(index, steps, frames_per_step)
