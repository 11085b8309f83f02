"""What moves is a thing: what a film shows of each of its pictures, and a picture by itself does not."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional

FAINT = 8.0  # grey levels by which the ground may change
PLAIN = 24.0  # and by which more a cell has to differ to be a thing for sure


@torch.no_grad()
def moving(
    video: UInt8[Tensor, "batch frames 3 height width"], cell: int, faint: float = FAINT, plain: float = PLAIN
) -> tuple[Float[Tensor, "batch frames row column"], Bool[Tensor, "batch frames"], Bool[Tensor, "batch frames"]]:
    """How surely each cell shows something that is not always there; of which pictures that is known; which are blank.

    Cells of ``cell`` px are compared with their own median over the film. A film whose ground moves by much, and a
    picture in which almost all is new, tell nothing. Source: Pathak et al. 2017, "Learning features by watching objects
    move", whose labels are motion segmented in films too.
    """
    cells = functional.avg_pool2d(video.flatten(0, 1).float(), cell).unflatten(0, video.shape[:2])
    apart = (cells - cells.median(1, keepdim=True).values).abs().amax(2)
    things = ((apart - faint) / plain).clamp(0, 1)
    share = (things > 0.5).float().mean((2, 3))
    contrast = cells.mean(2).flatten(2).std(2)
    blank = contrast < 0.15 * contrast.median(1, keepdim=True).values
    return things, (share.median(1).values < 0.2)[:, None] & (share < 0.4) & ~blank, blank
