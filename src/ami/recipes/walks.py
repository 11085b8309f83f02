"""Walks that a camera perceived once: the views' latents, in memory, and from where they were seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ami import parallel
from ami.data.camera import CAMERA, Cameras
from ami.data.episodes import EpisodeInfo
from ami.models.spatial import SpatialJEPA
from ami.types import Clip


class WalkStore:
    """Walks as a camera perceived them: what training made of each view, in half precision, and the poses.

    A share ``colours`` of the walks, drawn by ``seed``, is perceived by colours alone, the rest by all senses.
    """

    @torch.no_grad()
    def __init__(
        self,
        cameras: Cameras,
        model: SpatialJEPA,
        episodes: Sequence[int],
        *,
        colours: float,
        seed: int,
        half: bool = False,
    ) -> None:
        training, device = model.training, parallel.device_of(model)
        model.eval()
        self.cameras = cameras
        self._held: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        alone = np.random.default_rng(seed).random(len(episodes)) < colours
        for episode, plain in zip(episodes, alone, strict=True):
            clip = cameras.clips(np.array([[episode, 0]]), cameras.episodes[episode].length)
            seen = replace(clip, depth=None, points=None) if plain else clip
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                views = model.taught(model.encode(seen.to(device)).values)
            assert clip.pose is not None
            self._held[episode] = views[0].half().cpu(), clip.times[0], clip.pose[0]
        model.train(training)

    @property
    def folder(self) -> Path:
        """Where the first of the recordings lie."""
        return self.cameras.folder

    @property
    def episodes(self) -> Sequence[EpisodeInfo]:
        """Of all stores."""
        return self.cameras.episodes

    def windows(
        self, steps: int, frames_per_step: int = 1, episodes: Sequence[int] | None = None
    ) -> Int[np.ndarray, "windows 2"]:
        """Every (episode, first step) from which a window fits, of the episodes that were perceived."""
        return self.cameras.windows(steps, frames_per_step, list(self._held) if episodes is None else episodes)

    def clips(self, index: Int[np.ndarray, "batch 2"], steps: int, frames_per_step: int = 1) -> Clip:
        """Those windows: times, poses, and as latents what training made of the views."""
        assert frames_per_step == 1, "a step is what was encoded"
        rows = ([part[start : start + steps] for part in self._held[int(episode)]] for episode, start in index)
        latents, times, pose = (torch.stack(parts) for parts in zip(*rows, strict=True))
        return Clip(CAMERA.name, times, latents=latents.float(), pose=pose)
