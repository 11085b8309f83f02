"""Where things are: a few points found in the pictures of a film, and what keeps them worth predicting.

A film's tokens tell texture before they tell anything else, and what a still background shows is known already; taking
each film's temporal mean away removes it only while the camera stands. A *point* has no such trouble: it is a place in
the picture, the centre of mass of one learned map, and can say nothing but where something is. Points that move, that
go straight on, and that do not move together are movers, whatever the camera does.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from ami import parallel
from ami.nn.tokenizers import PATCH, patches

_PIECE = 4  # px on a side of what is looked at by itself
_LEAST = 0.02  # half pictures: who moves less is measured as if it moved so much


class Points(nn.Module):
    """A small network looks at each 4 x 4 px piece of a slot by itself; a softmax over pieces makes each point's map.

    Nothing but the place of a map's centre gets out. Source: the soft arg-max of Finn et al. 2016, "Deep spatial
    autoencoders", section V-A.
    """

    places: Tensor

    def __init__(self, *, picture: int, tubelet: int, count: int, width: int = 32) -> None:
        super().__init__()
        self.look = nn.Linear(tubelet * 3 * _PIECE**2, width)
        self.think = nn.Linear(width, width)
        self.maps = nn.Linear(width, count)
        self.register_buffer("places", _places(picture), persistent=False)

    def forward(
        self, video: UInt8[Tensor, "batch slots tubelet 3 height width"]
    ) -> Float[Tensor, "batch slots points 2"]:
        """Right and down, in half pictures from the middle: -1 to 1."""
        pixels = patches(video.flatten(0, 1)).to(self.look.weight.dtype).sub_(127.5).mul_(1 / 64)
        hidden = torch.relu(self.look(pixels))
        said = self.maps(hidden + torch.relu(self.think(hidden))).float()
        chances = torch.softmax(said.view(*video.shape[:2], len(self.places), -1), 2)
        return chances.transpose(2, 3) @ self.places


def _places(picture: int) -> Float[Tensor, "pieces 2"]:
    """The centre of each piece, in the order in which :func:`ami.nn.tokenizers.patches` cuts them."""
    side, fine = picture // PATCH, picture // _PIECE
    at = (torch.arange(fine) + 0.5) * (2 / fine) - 1
    raster = torch.stack([at.repeat(fine), at.repeat_interleave(fine)], -1)
    return raster.view(side, 2, 2, side, 2, 2, 2).permute(0, 3, 1, 4, 2, 5, 6).reshape(-1, 2)


def spread(points: Float[Tensor, "batch slots points 2"]) -> Float[Tensor, "batch points"]:
    """The variance of each point within its film, mean of both axes."""
    return (points - points.mean(1, keepdim=True)).square().mean((1, 3))


def in_spreads(points: Float[Tensor, "batch slots points 2"]) -> Float[Tensor, "batch 1 points 1"]:
    """What to divide distances by, so that a fast mover counts no more than a slow one."""
    return (spread(points) + _LEAST**2).sqrt()[:, None, :, None]


def crookedness(points: Float[Tensor, "batch slots points 2"]) -> Float[Tensor, ""]:
    """How far each point is from halfway between where it was and where it will be, in its own spreads, squared.

    Zero for whoever goes straight on at an even pace. Source: the straightening of Goroshin et al. 2015, equation 4.
    """
    bend = points[:, 1:-1] - (points[:, :-2] + points[:, 2:]) / 2
    return (bend / in_spreads(points)).square().mean()


def stillness(points: Float[Tensor, "batch slots points 2"], at_least: float = 0.25) -> Float[Tensor, ""]:
    """How much the deviation of each point within its film falls short of ``at_least`` half pictures, as a share.

    Source: the variance hinge of VICReg (Bardes et al. 2022, equation 1), over time.
    """
    return functional.relu(1 - (spread(points) + 1e-6).sqrt() / at_least).mean()


def togetherness(points: Float[Tensor, "batch slots points 2"]) -> Float[Tensor, ""]:
    """The squared correlations of the ways that different points go: small when each follows something else.

    Over the films of all ranks. Source: the covariance term of VICReg (equation 3).
    """
    way = (points - points.mean(1, keepdim=True)) / in_spreads(points)
    rows = way.transpose(2, 3).flatten(0, 2)
    matrix = parallel.mean(rows.T @ rows / len(rows))
    return (matrix.square().sum() - matrix.diagonal().square().sum()) / points.shape[2]


def between(
    points: Float[Tensor, "batch slots points 2"], seen: Tensor, hidden: Tensor
) -> Float[Tensor, "batch hidden points 2"]:
    """Guess the points of hidden slots on the straight line between the nearest seen ones; past the ends, copy.

    ``seen`` and ``hidden`` are numbers of slots, ``(batch, ...)``. A predictor that adds to this need not first find
    out that things persist.
    """
    apart = hidden[:, :, None] - seen[:, None, :]
    far = points.shape[1]
    before, last = torch.where(apart > 0, apart, far).min(-1)
    after, first = torch.where(apart < 0, -apart, far).min(-1)
    share = torch.where(after == far, 1.0, torch.where(before == far, 0.0, after / (before + after)))[..., None, None]
    rows = torch.arange(len(points), device=points.device)[:, None]
    known = points[rows, seen]
    return share * known[rows, last] + (1 - share) * known[rows, first]
