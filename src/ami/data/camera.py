"""Whatever was recorded with poses, as one embodiment: a camera whose actions are how it moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int

from ami import geometry
from ami.data.episodes import EpisodeInfo, Store
from ami.types import Clip, Embodiment

_METRES, _RADIANS = 1.0, float(np.pi / 2)  # the most that it moves in a step, along and about each axis
# Metres right, down and ahead, then the axis of its turn times the angle, in the axes of the camera before it moves.
CAMERA = Embodiment(
    "camera", step_seconds=0.5, low=(-_METRES,) * 3 + (-_RADIANS,) * 3, high=(_METRES,) * 3 + (_RADIANS,) * 3
)


def as_camera(clip: Clip) -> Clip:
    """The same clip as a camera's: its actions are the motions between its poses, in place of what a body did.

    ``ValueError`` where it has no poses.
    """
    if clip.pose is None:
        raise ValueError(f"'{clip.embodiment}' was recorded without poses, so nobody knows how its camera moved")
    moved = geometry.to_motion(geometry.relative(clip.pose[:, :-1], clip.pose[:, 1:]))
    return replace(clip, embodiment=CAMERA.name, actions=moved, proprio=None)


@dataclass(frozen=True)
class Moved:
    """A store with poses, whose windows come as a camera's."""

    store: Store
    colours_only: bool = False  # as from a camera without depth that nobody tells how it moved

    def __post_init__(self) -> None:
        for field in ("video", "pose"):
            if field not in self.store.fields:
                raise ValueError(f"{self.store.folder} holds no {field}; a camera that is moved needs it")

    @property
    def folder(self) -> Path:
        """The store's folder."""
        return self.store.folder

    @property
    def episodes(self) -> Sequence[EpisodeInfo]:
        """The store's episodes."""
        return self.store.episodes

    def windows(
        self, steps: int, frames_per_step: int = 1, episodes: Sequence[int] | None = None
    ) -> Int[np.ndarray, "windows 2"]:
        """Those of the store."""
        return self.store.windows(steps, frames_per_step, episodes)

    def clips(self, index: Int[np.ndarray, "batch 2"], steps: int, frames_per_step: int = 1) -> Clip:
        """Those of the store, as a camera's."""
        clip = as_camera(self.store.clips(index, steps, frames_per_step))
        return replace(clip, depth=None, points=None, pose=None, actions=None) if self.colours_only else clip
