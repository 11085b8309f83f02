"""How pictures move, by matching blocks: the optical flow that learned surprise must beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Flow:
    """Where each block of a frame came from in the frame before, and how well it fits there."""

    shift: Float[Tensor, "pairs blocks 2"]  # px to the right and down that the block has moved
    residual: Float[Tensor, "pairs blocks"]  # grey levels: what the best shift does not explain


def block_flow(
    video: UInt8[Tensor, "frames 3 height width"], *, block: int = 8, reach: int = 3, still: float = 0.5
) -> Flow:
    """Full search over shifts of up to ``reach`` px for each ``block`` x ``block`` square, by mean absolute difference.

    A shift must explain ``still`` grey levels per px more than standing still does, so that flat blocks stand still
    rather than wander. Source: Jain and Jain 1981, "Displacement measurement and its application in interframe coding".
    """
    grey = video.float().mean(1)
    before = functional.pad(grey[:-1, None], (reach,) * 4, mode="replicate")[:, 0]
    height, width = grey.shape[1:]
    best, shift = None, None
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            top, left = reach - down, reach - right
            came = before[:, top : top + height, left : left + width]
            error = functional.avg_pool2d((grey[1:] - came).abs()[:, None], block).flatten(1)
            toll = error + still * (right * right + down * down) ** 0.5
            here = error.new_tensor([right, down]).expand(*error.shape, 2)
            if best is None or shift is None:
                best, shift, residual = toll, here, error
                continue
            better = toll < best
            best, residual = torch.where(better, toll, best), torch.where(better, error, residual)
            shift = torch.where(better[..., None], here, shift)
    assert shift is not None
    return Flow(shift, residual)


def change_by_frame(video: UInt8[Tensor, "frames 3 height width"]) -> dict[str, Float[Tensor, "frames"]]:
    """What a film does at each frame, without any learning; 0 where too few frames came before.

    ``frame-differences``: mean absolute change, grey levels; ``flow-magnitude``: px per frame; ``flow-change``: how far
    the flow differs from that of the frame before, px per frame; ``flow-residual``: grey levels left unexplained.
    """
    flow = block_flow(video)
    turn = (flow.shift[1:] - flow.shift[:-1]).norm(dim=-1).mean(1)
    late = {
        "frame-differences": (video[1:].float() - video[:-1].float()).abs().mean((1, 2, 3)),
        "flow-magnitude": flow.shift.norm(dim=-1).mean(1),
        "flow-change": turn,
        "flow-residual": flow.residual.mean(1),
    }
    return {name: functional.pad(value, (len(video) - len(value), 0)) for name, value in late.items()}
