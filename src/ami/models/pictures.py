"""What models that perceive each picture by itself ask of a clip."""

from __future__ import annotations

from jaxtyping import UInt8
from torch import Tensor

from ami.types import Clip


def each_alone(clip: Clip, side: int) -> UInt8[Tensor, "pictures 3 height width"]:
    """All pictures of all rows, step by step. ``ValueError`` unless each step is one of ``side`` x ``side`` px."""
    if clip.video is None:
        raise ValueError("this model perceives video, and the clip has none; record one with a camera")
    if clip.video.shape[2] != 1 or clip.video.shape[-2:] != (side, side):
        frames, _, height, width = clip.video.shape[2:]
        raise ValueError(
            f"a step has {frames} pictures of {height} x {width} px; this model is built for one of {side} x {side}"
        )
    pictures = clip.video.flatten(0, 2)
    if not len(pictures):
        raise ValueError("the clip is empty: it has no rows or no steps, so there is nothing to perceive")
    return pictures
