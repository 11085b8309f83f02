"""Films that a memory lived through, screens before them, as leaps: what was held, and what was there steps later."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ami import parallel
from ami.data.episodes import Store
from ami.data.views import Over, Views
from ami.models.recurrent import RecurrentJEPA
from ami.objectives.foresight import screened
from ami.types import Clip

_TOGETHER = 16  # films at a time
SETTLE = 2  # steps after which a speed is known


class LeapStore(Over[Store | Views]):
    """Leaps of films, in whose clips latents are beliefs' recurrent states: what was held, and what it should be later.

    The second has what was there in both layers, for nothing stood before it. Of each film ``each`` leaps are taken
    at random. All are kept in memory, in half precision; ``half``: and lived through in bfloat16.
    """

    @torch.no_grad()
    def __init__(
        self,
        store: Store | Views,
        model: RecurrentJEPA,
        *,
        steps: int,
        films: int,
        each: int,
        screens: float,
        episodes: Sequence[int],
        seed: int,
        half: bool = False,
    ) -> None:
        super().__init__(store)
        generator, training = torch.Generator().manual_seed(seed), model.training
        rows = store.windows(steps, episodes=list(episodes))
        rows = rows[torch.randperm(len(rows), generator=generator)[:films].numpy()]
        model.eval()
        with torch.autocast(parallel.device_of(model).type, torch.bfloat16, enabled=half):
            lots = [
                _leaps(model, store.clips(rows[first : first + _TOGETHER], steps), each, screens, generator)
                for first in range(0, len(rows), _TOGETHER)
            ]
        model.train(training)
        self._held, self._came = (torch.cat(parts).flatten(0, 1) for parts in zip(*lots, strict=True))

    def __len__(self) -> int:
        return len(self._held)

    def windows(
        self, steps: int, frames_per_step: int = 1, episodes: Sequence[int] | None = None
    ) -> Int[np.ndarray, "windows 2"]:
        """(leap, 0) for each."""
        return np.stack([np.arange(len(self)), np.zeros(len(self), int)], 1)

    def clips(self, index: Int[np.ndarray, "batch 2"], steps: int, frames_per_step: int = 1) -> Clip:
        """Those leaps: two steps each, between which it is not said what was done."""
        assert (steps, frames_per_step) == (2, 1), "where a leap begins, and where it ends"
        rows, body = torch.from_numpy(index[:, 0]), self.embodiment
        held, came = self._held[rows].float(), self._came[rows].float()
        nothing = came.new_zeros(*came.shape[:2], held.shape[-1] - 2 * came.shape[-1])
        came = torch.cat([nothing, came, came], -1)
        times = torch.tensor([0.0, body.step_seconds]).expand(len(rows), -1)
        return Clip(body.name, times, latents=torch.stack([held, came], 1))


def _leaps(
    model: RecurrentJEPA, clip: Clip, each: int, screens: float, generator: torch.Generator
) -> tuple[Float[Tensor, "films leaps tokens held"], Float[Tensor, "films leaps tokens dim"]]:
    """What was held when some leaps of each film began, and what was there when they ended."""
    there = parallel.device_of(model)
    assert clip.video is not None, "screens are put before pictures"
    hidden, _ = screened(clip.video, screens, generator)
    whole = model.encode(clip.to(there)).values
    shown = Clip(clip.embodiment, clip.times, hidden).to(there)
    done = None if clip.actions is None else clip.actions.to(there)
    held = model.live(model.encode(shown), done, clip.embodiment).held
    leap = model.config.leap
    drawn = [torch.randperm(clip.steps - leap - SETTLE, generator=generator)[:each] for _ in range(len(clip))]
    begun, row = torch.stack(drawn) + SETTLE, torch.arange(len(clip))[:, None]
    return held[row, begun].half().cpu(), whole[row, begun + leap].half().cpu()
