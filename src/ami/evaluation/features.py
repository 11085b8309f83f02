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
    """Where the picture changes: the centre of the changes in each third of hue and in all, and how much changes.

    The hand-made rival: for one mover before a still camera it is nearly the truth. Colours are told apart because
    movers are: changes where red, green or blue is the strongest have a centre each, in px, besides that of all.
    """

    def see(video: Tensor) -> Tensor:
        change = _change(video)
        strongest = functional.one_hot(video[1:].argmax(1), 3).permute(0, 3, 1, 2)
        weight = torch.cat([change * strongest, change], 1).clamp_min(0.05) - 0.05  # without the camera's noise
        mass = weight.sum((2, 3))
        rows, columns = (torch.arange(side).float() for side in video.shape[2:])
        down = (weight.sum(3) * rows).sum(2) / mass.clamp_min(1e-3)
        right = (weight.sum(2) * columns).sum(2) / mass.clamp_min(1e-3)
        return torch.stack([right, down, mass], 2)

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
