"""Random-resized crops of films: one window on the picture for a whole clip, so that what moves in it stays true."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch.nn import functional

from ami.types import Clip

CHANCES = 5  # numbers that a crop is drawn from: area, shape, two for its place, flip


@dataclass(frozen=True)
class Crop:
    """Cut a window out of each clip, the same in all its frames, and bring it to ``side`` pixels.

    Source: Bardes et al. 2024, "V-JEPA", appendix (random-resized crops with these two ranges), after Szegedy et al.
    2015, "Going deeper with convolutions", section 6. There a window that does not fit is drawn anew; here its aspect
    is drawn among those that fit, so that areas stay evenly spread. Pixels are averaged where they shrink.
    """

    chances: ClassVar[int] = CHANCES
    side: int  # px of what comes out
    scale: tuple[float, float] = (0.3, 1.0)  # least and greatest share of the picture's area
    aspect: tuple[float, float] = (0.75, 1.35)  # least and greatest height over width; one is as likely as its inverse
    flip: float = 0.5  # how often left and right change places

    def __post_init__(self) -> None:
        (small, large), (low, high) = self.scale, self.aspect
        if not (self.side >= 1 and 0 < small <= large <= 1 and 0 < low <= 1 <= high and 0 <= self.flip <= 1):
            raise ValueError(
                f"a crop to {self.side} px of {small:g} to {large:g} of the area and an aspect of {low:g} to {high:g} "
                f"cannot be drawn; shares lie in (0, 1], and the aspects on both sides of 1"
            )

    def __call__(self, clip: Clip, chances: Float[np.ndarray, "batch 5"]) -> Clip:
        """The clip through its windows; each row's is decided by its ``chances``, evenly drawn from [0, 1)."""
        video = clip.video
        if video is None:
            return clip
        height, width = video.shape[-2:]
        if height != width:
            raise ValueError(f"crops are cut from square pictures, and these are {height} x {width} px; ingest anew")
        made = torch.empty((*video.shape[:3], self.side, self.side, 3), dtype=torch.uint8).permute(0, 1, 2, 5, 3, 4)
        for row, (top, left, tall, wide) in enumerate(self.windows(height, chances)):
            seen = video[row, :, :, :, top : top + tall, left : left + wide].flatten(0, 1)
            # On bytes with colour last in memory this is 7 to 15 times as fast as Pillow or as area averages of floats.
            small = functional.interpolate(seen, (self.side, self.side), mode="bilinear", antialias=True)
            flipped = chances[row, 4] < self.flip
            made[row] = (small.flip(-1) if flipped else small).unflatten(0, video.shape[1:3])
        return replace(clip, video=made)

    def windows(self, side: int, chances: Float[np.ndarray, "batch 5"]) -> list[tuple[int, int, int, int]]:
        """Top, left, height and width of each row's window, in px of a picture of ``side``."""
        area, shape, down, right, _ = chances.T
        small, large = self.scale
        share = small + area * (large - small)
        low, high = (np.log(np.clip(end, share, 1 / share)) for end in self.aspect)  # what does not stand over the edge
        aspect = np.exp(low + shape * (high - low))
        tall, wide = (np.clip(np.rint(side * np.sqrt(share * each)), 1, side) for each in (aspect, 1 / aspect))
        top, left = down * (side - tall + 1), right * (side - wide + 1)
        return [(int(t), int(x), int(h), int(w)) for t, x, h, w in zip(top, left, tall, wide, strict=True)]


def uncut(side: int) -> Crop:
    """The crop that shows all of the picture."""
    return Crop(side, scale=(1.0, 1.0), aspect=(1.0, 1.0), flip=0.0)


def whole(clip: Clip, side: int) -> Clip:
    """The clip's whole pictures, brought to ``side`` pixels where they are of another size."""
    if clip.video is None or clip.video.shape[-2:] == (side, side):
        return clip
    return uncut(side)(clip, np.zeros((len(clip), CHANCES)))
