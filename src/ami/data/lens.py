"""Other cameras than the one at hand: part of what it saw, as one with a narrower view would, in another light."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from ami.types import Clip


@dataclass(frozen=True)
class Lens:
    """Shows a clip through another lens, the same in all its steps: colours, depth and intrinsics stay of one mind.

    Poses and metres are as they were, so all that is known of a place remains true. Left with their own lens, clips
    teach one field of view, and whoever saw no other is lost in a recording of one half as wide.
    """

    chances: ClassVar[int] = 8  # whether at all, how much, two for its place, and four of the light
    often: float = 0.5  # share of the clips that are shown so
    closest: float = 0.5  # the least share of a picture's side that is kept
    light: float = 0.4  # by how many e-foldings all light, and half as many each colour, is made more or less

    def __post_init__(self) -> None:
        if not (0 <= self.often <= 1 and 0 < self.closest <= 1 and self.light >= 0):
            raise ValueError(
                f"a lens for {self.often:g} of the clips that keeps {self.closest:g} of a side, in {self.light:g} "
                f"e-foldings of light, cannot be built; shares lie in (0, 1]"
            )

    def __call__(self, clip: Clip, chances: Float[np.ndarray, "batch 8"]) -> Clip:
        """The clip as it would be seen; each row's lens is decided by its ``chances``, evenly drawn from [0, 1).

        ``ValueError`` where the clip has no pictures, or no intrinsics to go with them.
        """
        if clip.video is None or clip.intrinsics is None:
            raise ValueError(f"'{clip.embodiment}' was recorded without pictures or intrinsics: it has no lens")
        side = clip.video.shape[-1]
        video, camera = clip.video.clone(), clip.intrinsics.clone()
        depth = None if clip.depth is None else clip.depth.clone()
        for row in np.flatnonzero(chances[:, 0] < self.often):
            kept = round(side * (self.closest + float(chances[row, 1]) * (1 - self.closest)))
            top, left = (int(chance * (side - kept + 1)) for chance in chances[row, 2:4])
            window = (..., slice(top, top + kept), slice(left, left + kept))
            video[row] = _brought(self._lit(clip.video[row][window], chances[row, 4:]), side, "bilinear").byte()
            if clip.depth is not None and depth is not None:
                depth[row] = _brought(clip.depth[row][window], side, "nearest-exact")
            corner = camera.new_tensor([0.0, 0.0, left, top])
            camera[row] = (clip.intrinsics[row] - corner) * (side / kept)
        return replace(clip, video=video, depth=depth, intrinsics=camera)

    def _lit(self, video: Tensor, chances: Float[np.ndarray, "4"]) -> Float[Tensor, "steps frames 3 height width"]:
        whole, *colours = self.light * (2 * chances - 1)
        gain = torch.tensor([np.exp(whole + each / 2) for each in colours], dtype=torch.float32)
        return (video.float() * gain[:, None, None]).clamp(0, 255)


def _brought(pictures: Float[Tensor, "steps frames channels height width"], side: int, how: str) -> Tensor:
    """Pictures to ``side`` pixels; what lies between pixels is rounded down."""
    flat = pictures.flatten(0, 1).float()
    return functional.interpolate(flat, (side, side), mode=how).unflatten(0, pictures.shape[:2]).to(pictures.dtype)
