"""Films that a memory lived through, as single steps: what was held before each, and what then came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ami import parallel
from ami.data.episodes import Store
from ami.data.views import Over, Views
from ami.models.recurrent import RecurrentJEPA
from ami.types import Clip

_TOGETHER = 16  # films at a time
_SETTLE = 3  # steps after the first picture whose surprise does not count: no speed is known then
_ROUND = (-2, -1, 0, 1)  # steps about one that surprised: also those after which nothing happened yet


class RehearsedStore(Over[Store | Views]):
    """Moments of films, in whose clips latents are beliefs' recurrent states: one that was held, and one to come to.

    The second has what came, in both layers, for nothing stood before it. Of each film the most surprising moment is
    found, and of these the ``surprises`` greatest are taken, each with those about it, and one more of each film at
    random: what comes as expected has little to teach. All are kept in memory, in half precision; ``half``: and lived
    through in bfloat16.
    """

    @torch.no_grad()
    def __init__(
        self,
        store: Store | Views,
        model: RecurrentJEPA,
        *,
        steps: int,
        films: int,
        surprises: int,
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
                _lived(model, store.clips(rows[first : first + _TOGETHER], steps), generator)
                for first in range(0, len(rows), _TOGETHER)
            ]
        model.train(training)
        greatest = torch.cat([lot.surprise for lot in lots])
        taken = torch.zeros(len(greatest), len(_ROUND) + 1, dtype=torch.bool)
        taken[greatest.topk(min(surprises, len(greatest))).indices] = True
        taken[:, -1] = True
        self._held, self._came, self._done = (
            torch.cat([getattr(lot, name) for lot in lots])[taken] for name in ("held", "came", "done")
        )

    def __len__(self) -> int:
        return len(self._held)

    def windows(
        self, steps: int, frames_per_step: int = 1, episodes: Sequence[int] | None = None
    ) -> Int[np.ndarray, "windows 2"]:
        """(moment, 0) for each."""
        return np.stack([np.arange(len(self)), np.zeros(len(self), int)], 1)

    def clips(self, index: Int[np.ndarray, "batch 2"], steps: int, frames_per_step: int = 1) -> Clip:
        """Those moments: two steps each, and what was done between them."""
        assert (steps, frames_per_step) == (2, 1), "what was held, and what came"
        rows, body = torch.from_numpy(index[:, 0]), self.embodiment
        held, came = self._held[rows].float(), self._came[rows].float()
        nothing = came.new_zeros(*came.shape[:2], held.shape[-1] - 2 * came.shape[-1])
        came = torch.cat([nothing, came, came], -1)
        return Clip(
            body.name,
            torch.tensor([0.0, body.step_seconds]).expand(len(rows), -1),
            latents=torch.stack([held, came], 1),
            actions=self._done[rows][:, None] if body.action_dim else None,
        )


class _Lived(NamedTuple):
    """What is taken of films that were lived through: the moments about the most surprising one, and a random one."""

    held: Float[Tensor, "films moments tokens held"]
    came: Float[Tensor, "films moments tokens dim"]
    done: Float[Tensor, "films moments action"]
    surprise: Float[Tensor, "films"]  # of the most surprising


def _lived(model: RecurrentJEPA, clip: Clip, generator: torch.Generator) -> _Lived:
    films, there = len(clip), clip.to(parallel.device_of(model))
    seen = model.encode(there)
    lived = model.live(seen, there.actions, clip.embodiment)
    surprise = model.surprises(seen, lived).cpu()
    surprise[:, :_SETTLE] = 0.0
    greatest, most = surprise.max(1)
    steps = torch.stack([*(most + off for off in _ROUND), torch.randint(clip.steps - 1, (films,), generator=generator)])
    at = torch.arange(films)[:, None], steps.T.clamp(0, clip.steps - 2)
    done = torch.zeros(films, clip.steps - 1, 0) if clip.actions is None else clip.actions
    return _Lived(lived.held[at].half().cpu(), seen.values[:, 1:][at].half().cpu(), done[at], greatest)
