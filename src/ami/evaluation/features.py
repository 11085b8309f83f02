"""What different eyes see in clips: a model's frozen features, and what needs no learning."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from ami.evaluation.films import film_clip
from ami.evaluation.flow import block_flow
from ami.types import WorldModel

Film = UInt8[np.ndarray, "frames height width 3"]
# Equally long films to what is seen of them. A row is a film, "time" its steps or frames.
Eye = Callable[[Sequence[Film]], Float[Tensor, "films time token dim"]]
_BATCH = 32  # films at a time
GRID = 16  # cells on a side to which pictures are averaged where they are seen without learning


def model_eye(model: WorldModel, body: str | None = None) -> Eye:
    """The latents of a model, as they are, of the embodiment ``body`` or of the one by which it watches films."""

    def see(films: Sequence[Film]) -> Float[Tensor, "films time token dim"]:
        seen = []
        with torch.no_grad():
            for first in range(0, len(films), _BATCH):
                seen.append(model.encode(film_clip(model, *films[first : first + _BATCH], body=body)).values)
        return torch.cat(seen).float()

    return see


def pixels(films: Sequence[Film]) -> Float[Tensor, "films time token dim"]:
    """The pictures themselves, averaged to ``GRID`` x ``GRID`` cells of red, green and blue, 0 to 1."""
    return _each(films, lambda video: _cells(video.float() / 255).flatten(2).mT)


def differences(films: Sequence[Film]) -> Float[Tensor, "films time token dim"]:
    """How much each cell of the picture changed since the frame before, 0 to 1."""
    return _each(films, lambda video: _cells(_change(video)).flatten(2).mT)


def motion_centroid(films: Sequence[Film]) -> Float[Tensor, "films time token dim"]:
    """Where the picture is red, green or blue and changes: centres of mass, from -1 to 1, under five weightings.

    The hand-made rival, made as good as we could: for one mover before a still camera it is nearly the truth. A pixel's
    weight is how far a colour stands out in it, times its change; the same with twice the median change taken away, for
    a camera that pans; the square of the first; and the colour alone, squared and to the fourth. Besides, the centre of
    all change, and how much there is of it.
    """

    def see(video: Tensor) -> Tensor:
        change = _change(video)
        colours = video.float() / 255
        others = torch.stack([colours[:, [1, 2]].amax(1), colours[:, [0, 2]].amax(1), colours[:, [0, 1]].amax(1)], 1)
        pure = (colours - others).clamp_min(0)
        pure = torch.maximum(pure[1:], pure[:-1])
        usual = change.flatten(1).median(1).values[:, None, None, None]
        moved = pure * change
        looks = [change, moved, pure * (change - 2 * usual).clamp_min(0), moved.square(), pure.square(), pure.pow(4)]
        weight = torch.cat(looks, 1) + 1e-9
        mass = weight.sum((2, 3))
        down, right = (
            (weight.sum(across) * torch.linspace(-1, 1, video.shape[axis])).sum(2) / mass
            for axis, across in ((2, 3), (3, 2))
        )
        return torch.stack([right, down, mass / mass[:, :1]], 2)

    return _each(films, see)


def flow(films: Sequence[Film]) -> Float[Tensor, "films time token dim"]:
    """How far each block of the picture moved since the frame before, px to the right and down."""
    return _each(films, lambda video: block_flow(video).shift)


def _each(films: Sequence[Film], see: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.stack([see(torch.from_numpy(np.array(film)).permute(0, 3, 1, 2)) for film in films])


def _change(video: UInt8[Tensor, "frames 3 height width"]) -> Float[Tensor, "pairs 1 height width"]:
    return (video[1:].float() - video[:-1].float()).abs().mean(1, keepdim=True) / 255


def _cells(pictures: Float[Tensor, "frames channel height width"]) -> Float[Tensor, "frames channel rows columns"]:
    return functional.adaptive_avg_pool2d(pictures, GRID)
