"""Experience as a frozen encoder perceived it: each frame is encoded once, and dynamics train on latents alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ami import parallel
from ami.data.episodes import Store
from ami.data.views import Over, Views
from ami.types import Clip, WorldModel


class PerceivedStore(Over[Store | Views]):
    """A store whose clips hold latents in place of pictures. Sampled like any other (:class:`ami.data.loader.Source`).

    Latents of baby size are a thousandth of the pictures, so all are kept in memory.
    """

    @torch.no_grad()
    def __init__(self, store: Store | Views, model: WorldModel, episodes: Sequence[int]) -> None:
        training = model.training
        model.eval()
        super().__init__(store)
        self._start: dict[int, int] = {}
        times, actions, latents, total = [], [], [], 0
        for episode in episodes:
            length = store.episodes[episode].length
            clip = store.clips(np.array([[episode, 0]]), length)
            self._start[episode] = total
            total += length
            times.append(clip.times[0])
            latents.append(model.encode(clip.to(parallel.device_of(model))).values[0].cpu())
            if clip.actions is not None:
                actions.append(torch.cat([clip.actions[0], torch.zeros_like(clip.actions[0, :1])]))
        model.train(training)
        self._times, self._latents = torch.cat(times), torch.cat(latents)
        self._actions = torch.cat(actions) if actions else None

    @property
    def perceived(self) -> tuple[int, ...]:
        """The episodes that were encoded."""
        return tuple(self._start)

    @property
    def latents(self) -> Float[Tensor, "moments tokens dim"]:
        """All that was perceived, episode after episode."""
        return self._latents

    def windows(
        self, steps: int, frames_per_step: int = 1, episodes: Sequence[int] | None = None
    ) -> Int[np.ndarray, "windows 2"]:
        """Every (episode, first step) from which a window fits, of the episodes that were perceived."""
        return self.store.windows(steps, frames_per_step, list(self._start) if episodes is None else episodes)

    def clips(self, index: Int[np.ndarray, "batch 2"], steps: int, frames_per_step: int = 1) -> Clip:
        """Windows at (episode, first step), with latents, times and actions."""
        assert frames_per_step == 1, "a step is what was encoded"
        first = torch.tensor([self._start[int(episode)] + int(start) for episode, start in index])
        rows = first[:, None] + torch.arange(steps)
        return Clip(
            embodiment=self.store.embodiment.name,
            times=self._times[rows],
            actions=None if self._actions is None else self._actions[rows[:, :-1]],
            latents=self._latents[rows],
        )
