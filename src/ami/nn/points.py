"""Where things are in pictures: places that small networks find, and nothing else of what they see."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from ami.nn.tokenizers import PATCH, patches

PIECE = 4  # px on a side of what is looked at by itself
_FLAT = 0.0025  # square of a contrast (in 64 levels) below which a piece counts as flat: 3 levels
_SURE, _STEEP = 0.25, 30.0  # share of a point's map that has to be of what moves; all of a picture is below it
_CHUNK = 16  # steps at a time on a CPU: what a chunk leaves behind stays in cache


class Found(NamedTuple):
    """What is found in pictures. Places are right and down, in half pictures from the middle: -1 to 1."""

    places: Float[Tensor, "*pictures points 2"]  # a finder's points are neighbours; in the middle: nothing that moves
    free: Float[Tensor, "*pictures points 2"]  # where they would be if all things might move: what learns to follow
    moves: Float[Tensor, "*pictures finders rows columns"]  # log-odds that each piece is of something that moves

    def along(self, batch: int) -> Found:
        """The same, film by film."""
        return Found(*(each.unflatten(0, (batch, -1)) for each in self))


class Points(nn.Module):
    """Small networks look at each 4 x 4 px piece of a slot; a softmax over pieces makes each point's map.

    Nothing but the place of a map's centre gets out. Source: the soft arg-max of Finn et al. 2016, "Deep spatial
    autoencoders", section V-A. A piece is seen as its pixels and as how much these differ: a flat thing before a
    texture of its own colour is told by that alone. The mean over the picture says what is rare in it. Several networks
    that share nothing look for the same things, since which movers one finds is its first weights' luck. Each also
    tells how surely a piece is of something that moves, which binds where its points are.
    """

    places: Tensor
    raster: Tensor
    differ: Tensor
    pool: Tensor

    def __init__(self, *, picture: int, tubelet: int, count: int, finders: int = 1, width: int = 32) -> None:
        super().__init__()
        pixels = tubelet * 3 * PIECE**2
        self.finders, self.count = finders, finders * count
        self.look = _Layers(1, pixels + 6, finders * width)
        self.whole = _Layers(finders, width, width)
        self.think = _Layers(finders, width, width)
        self.again = _Layers(finders, width, width)
        self.maps = _Layers(finders, width, count)
        self.moves = _Layers(finders, width, 1)
        nn.init.constant_(self.moves.bias, 3.0)  # anything may move, until it is known better
        self.fine = picture // PIECE
        self.register_buffer("places", _places(picture), persistent=False)
        self.register_buffer("raster", _raster(self.places), persistent=False)
        differ, pool = _contrasts(tubelet)
        self.register_buffer("differ", differ, persistent=False)
        self.register_buffer("pool", pool, persistent=False)

    def forward(self, video: UInt8[Tensor, "steps tubelet 3 height width"]) -> Found:
        """All that is found, of each picture by itself."""
        chunk = _CHUNK if video.device.type == "cpu" else len(video)
        return Found(*(torch.cat(each) for each in zip(*map(self._find, video.split(chunk)), strict=True)))

    def _find(self, video: Tensor) -> Found:
        device = video.device.type
        half = torch.is_autocast_enabled(device)
        kind = torch.get_autocast_dtype(device) if half else self.places.dtype
        pixels = patches(video).to(kind).sub_(127.5).mul_(1 / 64)
        contrast = ((pixels @ self.differ.to(kind)).square_() @ self.pool.to(kind) + _FLAT).log()
        hidden = torch.relu(self.look(torch.cat([pixels, contrast.to(kind)], 1).T[None]))
        hidden = hidden.view(self.finders, -1, hidden.shape[-1])
        whole = self.whole(hidden.unflatten(-1, (len(video), -1)).mean(-1))
        thought = self.think(hidden).unflatten(-1, (len(video), -1)) + whole[..., None]
        hidden = hidden + torch.relu(thought.flatten(2))
        hidden = hidden + torch.relu(self.again(hidden))
        said, moves = self.maps(hidden).float(), self.moves(hidden).float()
        said, moves = (each.unflatten(-1, (len(video), -1)) for each in (said, moves))
        chances = torch.softmax(said, -1)
        bound = chances * moves.sigmoid()
        sure = bound.sum(-1, keepdim=True)
        places = (bound / sure.clamp_min(1e-6)) @ self.places * torch.sigmoid((sure - _SURE) * _STEEP)
        odds = moves[:, 0, :, self.raster].unflatten(-1, (self.fine, self.fine))
        return Found(_in_row(places), _in_row(chances @ self.places), odds.transpose(0, 1))


def _in_row(places: Float[Tensor, "finders count steps 2"]) -> Float[Tensor, "steps points 2"]:
    return places.permute(2, 0, 1, 3).flatten(1, 2)


class _Layers(nn.Module):
    """The same layer of several networks that share nothing, over columns: what comes out is fit for the next."""

    def __init__(self, networks: int, inputs: int, outputs: int) -> None:
        super().__init__()
        reach = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(networks, outputs, inputs).uniform_(-reach, reach))
        self.bias = nn.Parameter(torch.empty(networks, outputs, 1).uniform_(-reach, reach))

    def forward(self, columns: Float[Tensor, "networks inputs columns"]) -> Float[Tensor, "networks outputs columns"]:
        return torch.baddbmm(self.bias.to(columns.dtype), self.weight.to(columns.dtype), columns)


def _contrasts(tubelet: int) -> tuple[Float[Tensor, "pixels both"], Float[Tensor, "both 6"]]:
    """What takes a piece's mean colour from its pixels, and each pixel's mean over time; then the means of squares."""
    pixels = tubelet * 3 * PIECE**2
    unit = torch.eye(pixels).view(pixels, tubelet, PIECE**2, 3)
    differ = torch.cat([unit - unit.mean((1, 2), keepdim=True), unit - unit.mean(1, keepdim=True)], 1)
    mean = torch.eye(3).repeat(pixels // 3, 1) * (3 / pixels)
    return differ.flatten(1), torch.block_diag(mean, mean)


def _places(picture: int) -> Float[Tensor, "pieces 2"]:
    """The centre of each piece, in the order in which :func:`ami.nn.tokenizers.patches` cuts them."""
    side, fine = picture // PATCH, picture // PIECE
    at = (torch.arange(fine) + 0.5) * (2 / fine) - 1
    raster = torch.stack([at.repeat(fine), at.repeat_interleave(fine)], -1)
    return raster.view(side, 2, 2, side, 2, 2, 2).permute(0, 3, 1, 4, 2, 5, 6).reshape(-1, 2)


def _raster(places: Float[Tensor, "pieces 2"]) -> Int[Tensor, "pieces"]:
    """Which piece is where, row by row."""
    return (places[:, 1] * len(places) + places[:, 0]).argsort()
