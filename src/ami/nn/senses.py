"""Front doors for what a camera senses of a view besides colours: depth and points as tokens, and where tokens lie."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from ami import geometry

QUARTERS = 4  # of a cell
_FAR = 100.0  # metres; depth is told apart from there down to its inverse


def depth_pieces(
    depth: Float[Tensor, "views frames 1 height width"], patch: int
) -> Float[Tensor, "views cells pixels"]:
    """Depth pictures (metres, 0 is unknown) cut in cells: of each pixel the logarithm, and whether it is known."""
    cut = depth[:, :, 0].unflatten(3, (-1, patch)).unflatten(2, (-1, patch)).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    known = cut > 0
    far = torch.where(known, cut.clamp(1 / _FAR, _FAR).log(), 0.0)
    return torch.stack([far, known.to(far.dtype)], 3).flatten(2)


def colour_pieces(
    video: UInt8[Tensor, "views frames 3 height width"], patch: int
) -> Float[Tensor, "views cells pixels"]:
    """Pictures cut in cells like :func:`depth_pieces`; numbers are 0 at middle grey, 2 at white."""
    cut = video.unflatten(4, (-1, patch)).unflatten(3, (-1, patch)).permute(0, 3, 5, 1, 2, 4, 6)
    return (cut.flatten(1, 2).flatten(2).float() - 127.5) / 64


def halved(pieces: Float[Tensor, "views cells pixels"], patch: int) -> Float[Tensor, "views cells fewer"]:
    """What :func:`colour_pieces` cut, at half the resolution: the mean of each 2 x 2 pixels."""
    return pieces.unflatten(2, (-1, patch // 2, 2, patch // 2, 2)).mean((4, 6)).flatten(2)


def quarters(pieces: Float[Tensor, "views cells pixels"], patch: int) -> Float[Tensor, "views cells quarters pixels"]:
    """What :func:`colour_pieces` or :func:`depth_pieces` cut, cut once more each way."""
    cut = pieces.unflatten(2, (-1, 2, patch // 2, 2, patch // 2))
    return cut.permute(0, 1, 3, 5, 2, 4, 6).flatten(2, 3).flatten(3)


class CellStem(nn.Module):
    """Pictures to a grid of tokens: a network of two layers on the numbers of each cell, or of each of its quarters."""

    def __init__(self, numbers: int, width: int) -> None:
        super().__init__()
        self.piece = nn.Linear(numbers, 2 * width)
        self.token = nn.Linear(2 * width, width)

    def forward(self, pieces: Float[Tensor, "*views cells pixels"]) -> Float[Tensor, "*views cells width"]:
        """What :func:`colour_pieces` or :func:`depth_pieces` cut, or :func:`quarters`."""
        return self.token(torch.relu(self.piece(pieces)))


class PointStem(nn.Module):
    """Points to tokens: spread-out centres, the nearest neighbours of each, one small network for all, the maximum.

    The order of the points does not matter. Points at the camera itself, (0, 0, 0), are unknown and take no part.
    Source: Qi et al. 2017, "PointNet++" (section 3.2); Saito et al. 2024, "Point-JEPA" (centres and their neighbours).
    """

    def __init__(self, width: int, centres: int = 16, neighbours: int = 16) -> None:
        super().__init__()
        self.centres, self.neighbours = centres, neighbours
        self.each = nn.Linear(4, width)
        self.token = nn.Linear(width, width)

    def forward(
        self, points: Float[Tensor, "views points 3"]
    ) -> tuple[Float[Tensor, "views centres width"], Float[Tensor, "views centres 3"], Bool[Tensor, "views centres"]]:
        """Tokens, where they lie (metres, camera axes), and which of them there are."""
        points = _ordered(points)
        known = geometry.known(points)
        chosen, there = farthest(points, known, self.centres)
        centre = points.gather(1, chosen[..., None].expand(-1, -1, 3))
        apart = (centre[:, :, None] - points[:, None]).square().sum(-1).masked_fill(~known[:, None], torch.inf)
        near, index = (each[..., : self.neighbours] for each in apart.sort(stable=True))  # of two as near, the first
        around = points[:, None].expand(-1, self.centres, -1, -1).gather(2, index[..., None].expand(-1, -1, -1, 3))
        range_ = centre.norm(dim=-1, keepdim=True).clamp_min(1 / _FAR)
        shape = (around - centre[:, :, None]) / range_[..., None]  # as it is seen: near and far things look alike
        told = torch.cat([8 * shape, range_.log()[:, :, None].expand(*shape.shape[:3], 1)], -1)
        said = torch.relu(self.each(told)).masked_fill(near.isinf()[..., None], 0.0)
        return self.token(said.amax(2)), centre, there


def _ordered(points: Float[Tensor, "views points 3"]) -> Float[Tensor, "views points 3"]:
    """By a direction in which nothing that people build is even: where two points are as far, one is always first."""
    x, y, z = points.unbind(-1)
    return points.gather(1, (x + 0.7346 * y + 0.5812 * z).argsort(1)[..., None].expand(-1, -1, 3))


def farthest(
    points: Float[Tensor, "views points 3"], known: Bool[Tensor, "views points"], count: int
) -> tuple[Int[Tensor, "views count"], Bool[Tensor, "views count"]]:
    """Numbers of points far from one another: the nearest to the camera, then ever the farthest from all chosen.

    Where there are fewer points than asked for, the rest are not there. Source: Eldar et al. 1997, "The farthest point
    strategy for progressive image sampling".
    """
    range_ = points.norm(dim=-1).masked_fill(~known, torch.inf)
    chosen, there = [range_.argmin(1)], [known.any(1)]
    apart = torch.full_like(range_, torch.inf).masked_fill(~known, -1.0)
    for _ in range(count - 1):
        last = points.gather(1, chosen[-1][:, None, None].expand(-1, 1, 3))
        apart = torch.minimum(apart, (points - last).square().sum(-1))
        far, index = apart.max(1)
        chosen.append(index)
        there.append(far > 0)
    return torch.stack(chosen, 1), torch.stack(there, 1)


def bearings(points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Down, right (radians from the camera's axis) and the logarithm of the range of points in camera axes, metres.

    So a cell of a picture, whose range nobody may know, and a point lie in one space, in which to turn is to shift.
    """
    x, y, z = points.unbind(-1)
    level = torch.hypot(x, z)
    return torch.stack([torch.atan2(y, level), torch.atan2(x, z), torch.hypot(level, y).clamp_min(1 / _FAR).log()], -1)


def directions(bearing: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """The points, in camera axes and metres, that :func:`bearings` tells."""
    down, right, far = bearing.unbind(-1)
    level = down.cos()
    return torch.stack([level * right.sin(), down.sin(), level * right.cos()], -1) * far.exp()[..., None]


def rays(intrinsics: Float[Tensor, "batch 4"], side: int, picture: int) -> Float[Tensor, "batch cells 3"]:
    """The direction of each cell's middle, row by row: camera axes, one metre of depth."""
    pixels = picture // side
    one = intrinsics.new_ones(len(intrinsics), side, side)
    return geometry.unproject(one, intrinsics / pixels).flatten(1, 2)
