"""Where things are in pictures: places that small networks find, and nothing else of what they see."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ami.nn.tokenizers import PATCH, patches

_PIECE = 4  # px on a side of what is looked at by itself
_FLAT = 0.0025  # square of a contrast (in 64 levels) below which a piece counts as flat: 3 levels
_CHUNK = 16  # steps at a time on a CPU: what a chunk leaves behind stays in cache


class Points(nn.Module):
    """Small networks look at each 4 x 4 px piece of a slot; a softmax over pieces makes each point's map.

    Nothing but the place of a map's centre gets out. Source: the soft arg-max of Finn et al. 2016, "Deep spatial
    autoencoders", section V-A. A piece is seen as its pixels and as how much these differ: a flat thing before a
    texture of its own colour is told by that alone. The mean over the picture says what is rare in it. Several networks
    that share nothing look for the same things, since which movers one finds is its first weights' luck.
    """

    places: Tensor
    differ: Tensor
    pool: Tensor

    def __init__(self, *, picture: int, tubelet: int, count: int, finders: int = 1, width: int = 32) -> None:
        super().__init__()
        pixels = tubelet * 3 * _PIECE**2
        self.finders, self.count = finders, finders * count
        self.look = _Layers(1, pixels + 6, finders * width)
        self.whole = _Layers(finders, width, width)
        self.think = _Layers(finders, width, width)
        self.again = _Layers(finders, width, width)
        self.maps = _Layers(finders, width, count)
        self.register_buffer("places", _places(picture), persistent=False)
        differ, pool = _contrasts(tubelet)
        self.register_buffer("differ", differ, persistent=False)
        self.register_buffer("pool", pool, persistent=False)

    def forward(self, video: UInt8[Tensor, "steps tubelet 3 height width"]) -> Float[Tensor, "steps points 2"]:
        """Right and down, in half pictures from the middle: -1 to 1. A finder's points are neighbours."""
        chunk = _CHUNK if video.device.type == "cpu" else len(video)
        return torch.cat([self._find(part) for part in video.split(chunk)])

    def _find(self, video: Tensor) -> Tensor:
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
        said = self.maps(hidden + torch.relu(self.again(hidden))).float()
        chances = torch.softmax(said.unflatten(-1, (len(video), len(self.places))), -1)
        return (chances @ self.places).permute(2, 0, 1, 3).flatten(1, 2)


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
    pixels = tubelet * 3 * _PIECE**2
    unit = torch.eye(pixels).view(pixels, tubelet, _PIECE**2, 3)
    differ = torch.cat([unit - unit.mean((1, 2), keepdim=True), unit - unit.mean(1, keepdim=True)], 1)
    mean = torch.eye(3).repeat(pixels // 3, 1) * (3 / pixels)
    return differ.flatten(1), torch.block_diag(mean, mean)


def _places(picture: int) -> Float[Tensor, "pieces 2"]:
    """The centre of each piece, in the order in which :func:`ami.nn.tokenizers.patches` cuts them."""
    side, fine = picture // PATCH, picture // _PIECE
    at = (torch.arange(fine) + 0.5) * (2 / fine) - 1
    raster = torch.stack([at.repeat(fine), at.repeat_interleave(fine)], -1)
    return raster.view(side, 2, 2, side, 2, 2, 2).permute(0, 3, 1, 4, 2, 5, 6).reshape(-1, 2)
