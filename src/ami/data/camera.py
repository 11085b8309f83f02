"""Whatever was recorded with poses, as one embodiment: a camera whose actions are how it moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
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
    return replace(clip, embodiment=CAMERA.name, actions=moved, proprio=None, truth=None)


@dataclass(frozen=True)
class Cameras:
    """Stores with pictures and poses, one after another as if they were one; their windows come as one camera's.

    They must agree on what else they hold, and on the size of pictures: a batch has rows of all of them.
    """

    stores: tuple[Store, ...]
    colours_only: bool = False  # as from a camera without depth that nobody tells how it moved

    def __post_init__(self) -> None:
        held = [self._fields(store) for store in self.stores]
        for store, fields_ in zip(self.stores, held, strict=True):
            if missing := [name for name in ("video", "pose") if name not in fields_]:
                raise ValueError(f"{store.folder} holds no {missing[0]}, which a camera that is moved needs")
            if fields_ != held[0]:
                raise ValueError(
                    f"{store.folder} holds {fields_}, and {self.folder} {held[0]}; both must hold the same"
                )

    @staticmethod
    def _fields(store: Store) -> dict[str, tuple[int, ...]]:
        wanted = ("video", "depth", "points", "pose", "intrinsics")
        return {name: shape for name, shape in store.fields.items() if name in wanted}

    @property
    def folder(self) -> Path:
        """That of the first."""
        return self.stores[0].folder

    @property
    def episodes(self) -> Sequence[EpisodeInfo]:
        """Of all, store after store: that is how they are numbered."""
        return [info for store in self.stores for info in store.episodes]

    def windows(
        self, steps: int, frames_per_step: int = 1, episodes: Sequence[int] | None = None
    ) -> Int[np.ndarray, "windows 2"]:
        """Those of all stores, or of some episodes."""
        found, first = [], 0
        for store in self.stores:
            here = None if episodes is None else [each - first for each in episodes if 0 <= each - first < len(store)]
            found.append(store.windows(steps, frames_per_step, here) + np.array([first, 0]))
            first += len(store)
        return np.concatenate(found)

    def clips(self, index: Int[np.ndarray, "batch 2"], steps: int, frames_per_step: int = 1) -> Clip:
        """Those windows, in the order in which they were asked for."""
        first, clips, rows = 0, [], []
        for store in self.stores:
            here = np.flatnonzero((index[:, 0] >= first) & (index[:, 0] < first + len(store)))
            if len(here):
                clips.append(as_camera(store.clips(index[here] - np.array([first, 0]), steps, frames_per_step)))
                rows.append(here)
            first += len(store)
        clip = _joined(clips).rows(torch.from_numpy(np.concatenate(rows)).argsort())
        return replace(clip, depth=None, points=None, pose=None, actions=None) if self.colours_only else clip


def _joined(clips: Sequence[Clip]) -> Clip:
    """The rows of clips of one embodiment that hold the same."""
    held = {each.name: [getattr(clip, each.name) for clip in clips] for each in fields(Clip)}
    return replace(clips[0], **{name: torch.cat(v) for name, v in held.items() if isinstance(v[0], torch.Tensor)})
