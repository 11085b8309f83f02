"""What of a picture is remembered: the model's latent of it, alone and still, as one row of numbers."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ami.types import Clip, Latent, WorldModel

_FEW = 4  # tokens that are remembered as they are
_TOGETHER = 64  # pictures at a time


def descriptor(latent: Latent) -> Float[Tensor, "batch time dim"]:
    """Each step as one row: its few tokens one after another, or the mean of many.

    A JEPA's state and scene are both needed. Of a V-JEPA's grid the mean found a moment again as well as its quarters
    or all of it did, from a cut, shifted or darkened picture (docs/log.md), in a sixteenth of the numbers.
    """
    values = latent.values
    return values.flatten(2) if values.shape[2] <= _FEW else values.mean(2)


@torch.no_grad()
def perceive_stills(
    model: WorldModel, embodiment: str, pictures: UInt8[np.ndarray, "pictures height width 3"]
) -> Float[np.ndarray, "pictures dim"]:
    """The descriptor of each picture, shown by itself for one step.

    What is to be recalled by a picture is remembered as a picture: nothing before it is heard, and it does not move.
    So what comes from a film, from a thumbnail looked at again, and from a question, can be compared.
    """
    part, seen = model.part(embodiment), []
    for first in range(0, len(pictures), _TOGETHER):
        video = torch.from_numpy(np.array(pictures[first : first + _TOGETHER])).permute(0, 3, 1, 2)
        still = video[:, None, None].expand(-1, 1, part.frames, -1, -1, -1)
        latent = part.encode(Clip(embodiment, torch.zeros(len(still), 1), video=still))
        seen.append(descriptor(latent)[:, 0].float().numpy(force=True))
    return np.concatenate(seen)
