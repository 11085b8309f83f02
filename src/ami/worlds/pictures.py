"""Pictures of worlds at the size that models see."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def fitted(shown: UInt8[np.ndarray, "height width channels"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    """A rendered picture, ``size`` px square in three colours; each pixel is the mean of those it covers."""
    if shown.shape[2] == 1:
        shown = shown.repeat(3, axis=2)
    if shown.shape[:2] != (size, size):
        shown = np.asarray(Image.fromarray(shown[..., :3]).resize((size, size), Image.Resampling.BOX))
    return np.ascontiguousarray(shown[..., :3], np.uint8)
