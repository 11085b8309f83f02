"""Views as grids of cells, perceived from whatever is sensed of them, and as they would be from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from ami.nn.rotary import turns
from ami.nn.senses import DepthStem, PointStem, bearings
from ami.nn.tokenizers import PATCH, PatchStem
from ami.nn.video import RotaryBlock

_STEP = 0.2  # radians, and e-foldings of the range, that turn the fastest plane of a rotary position by 1


@dataclass(frozen=True)
class Senses:
    """What is sensed of a batch of views. What is ``None`` is absent, and never computed."""

    rays: Float[Tensor, "views cells 3"]  # to the middle of each cell, camera axes, one metre of depth
    video: UInt8[Tensor, "views frames 3 height width"] | None = None
    depth: Float[Tensor, "views cells pixels"] | None = None  # in pieces, as :func:`ami.nn.senses.depth_pieces` cuts
    points: Float[Tensor, "views points 3"] | None = None  # metres, camera axes
    hidden: Bool[Tensor, "views cells"] | None = None  # cells of which no picture says anything

    def __len__(self) -> int:
        return len(self.rays)

    def rows(self, index: Tensor) -> Senses:
        """Some of the views."""
        held = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(self, **{name: value[index] for name, value in held.items() if value is not None})

    def only(self, *names: str) -> Senses:
        """Of ``video``, ``depth`` and ``points`` those that are named."""
        return replace(self, **{name: None for name in ("video", "depth", "points") if name not in names})


class ViewEncoder(nn.Module):
    """Cells that know where they look, hear what is sensed there and one another, and are all that comes out.

    Pictures of colours and of depth lie on the cells' grid, so what they say is added to the cells; points are tokens
    beside them. Each sense has an embedding of its own. So what comes out has one shape, whatever was sensed, no order
    of the senses matters, and one sense more costs a stem and not a longer row of tokens. All tokens, cells and points,
    have a rotary position in bearings and range, which are those of the camera at hand, wide or narrow.
    """

    def __init__(self, *, frames: int, width: int, depth: int, heads: int, dim: int) -> None:
        super().__init__()
        self.head = width // heads
        self.colours = PatchStem((width // 4, width // 2, width), frames)
        self.depths = DepthStem(width, PATCH, frames)
        self.points = PointStem(width)
        self.sense = nn.Parameter(torch.randn(3, width) * 0.02)  # an embedding of each of the three
        self.where = nn.Linear(12, width)
        self.blocks = nn.ModuleList(RotaryBlock(width, heads) for _ in range(depth))
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim, bias=False))

    def forward(self, senses: Senses) -> Float[Tensor, "views cells dim"]:
        """What is said of each cell, before it is normalised."""
        said = sum(self.look(senses).values(), torch.zeros_like(senses.rays[..., :1]))
        if senses.hidden is not None:
            said = said.masked_fill(senses.hidden[..., None], 0.0)
        return self.hear(senses.rays, said, senses.points)

    def look(self, senses: Senses) -> dict[str, Float[Tensor, "views cells width"]]:
        """What the pictures of each sense say of each cell: ``video`` and ``depth``, where they are there."""
        said: dict[str, Tensor] = {}
        if senses.video is not None:
            said["video"] = self.colours(senses.video) + self.sense[0]
        if senses.depth is not None:
            said["depth"] = self.depths(senses.depth) + self.sense[1]
        return said

    def hear(
        self,
        rays: Float[Tensor, "views cells 3"],
        said: Float[Tensor, "views cells _"],
        points: Float[Tensor, "views points 3"] | None = None,
    ) -> Float[Tensor, "views cells dim"]:
        """What cells are when they have heard one another, and the points; ``said`` is the sum of what pictures say."""
        at, there, cells = bearings(rays), None, rays.shape[1]
        tokens = self.where(_waves(at)) + said
        if points is not None:
            more, centres, found = self.points(points)
            beside = bearings(centres)
            tokens = torch.cat([tokens, self.where(_waves(beside)) + more + self.sense[2]], 1)
            at = torch.cat([at, beside], 1)
            there = torch.cat([found.new_ones(len(found), cells), found], 1)[:, None, None]
        places = turns(at / _STEP, self.head)
        for block in self.blocks:
            tokens = block(tokens, places, there)
        return self.out(tokens[:, :cells])


def _waves(at: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 12"]:
    angles = torch.cat([at[..., :2], 2 * at[..., :2], 4 * at[..., :2]], -1)
    return torch.cat([angles.cos(), angles.sin()], -1)


class Elsewhere(nn.Module):
    """What is seen from elsewhere, from any number of views: each is looked at in the light of how to get there.

    Where a cell's content comes from is mostly a matter of the motion: so the motion says, for each of several heads,
    which cells every cell takes from. What that leaves out (what is near moves more) is told by a residual network on
    all cells, whose layers the motion scales and shifts (Perez et al. 2018, "FiLM"). What the views say is averaged,
    each with a weight of its own. Source of the task: Eslami et al. 2018, "Neural scene representation and rendering".
    """

    def __init__(self, *, cells: int, dim: int, motion: int, width: int, depth: int, heads: int = 4) -> None:
        super().__init__()
        self.shape, self.heads = (cells, dim), heads
        self.motion = nn.Sequential(nn.Linear(motion, width // 8), nn.ReLU())
        self.taken = nn.Linear(width // 8, heads * cells**2)
        self.value = nn.Linear(dim, heads * dim, bias=False)
        self.enter = nn.Linear(cells * dim, width)
        self.film = nn.Linear(width // 8, 2 * width * depth)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.weight = nn.Linear(width, 1)
        self.leave = nn.Linear(width, cells * dim)

    def forward(
        self,
        views: Float[Tensor, "rows held cells dim"],
        motion: Float[Tensor, "rows asked held motion"],
        without: Bool[Tensor, "rows asked held"] | None = None,
    ) -> Float[Tensor, "rows asked cells dim"]:
        """The views from there, each of its row's held ones; ``without`` leaves some of them out."""
        hidden, moved = torch.relu(self.enter(views.flatten(2)))[:, None], self.motion(motion)
        for layer, film in zip(self.layers, self.film(moved).chunk(len(self.layers), -1), strict=True):
            scale, shift = film.chunk(2, -1)
            hidden = hidden + torch.relu(layer(hidden) * (1 + scale) + shift)  # the first is the same for all asked
        weight = self.weight(hidden).float()
        if without is not None:
            weight = weight.masked_fill(without[..., None], -torch.inf)
        weight = weight.softmax(2)
        taken = self.taken(moved).unflatten(-1, (self.heads, self.shape[0], -1)).float().softmax(-1)
        taken = (taken * weight[..., None, None]).permute(0, 1, 4, 2, 3, 5)  # asked and its cells, then whence
        value = self.value(views).unflatten(-1, (self.heads, -1)).transpose(2, 3)
        carried = taken.to(value.dtype).flatten(3).flatten(1, 2) @ value.flatten(1, 3)
        more = self.leave((weight.to(hidden.dtype) * hidden).sum(2))
        return carried.unflatten(1, (-1, self.shape[0])) + more.unflatten(2, self.shape)


class Apart(nn.Module):
    """How the camera moved between two views: a network on both, and on how well their cells fit one another."""

    def __init__(self, *, cells: int, dim: int, motion: int, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.scale = heads, dim**-0.5
        self.here = nn.Linear(dim, heads * dim, bias=False)
        self.net = nn.Sequential(
            nn.Linear(2 * cells * dim + heads * cells**2, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, motion),
        )

    def forward(
        self, here: Float[Tensor, "rows held cells dim"], there: Float[Tensor, "rows asked cells dim"]
    ) -> Float[Tensor, "rows asked held motion"]:
        """The motions that lead from each of a row's views here to each of those there.

        The first layer is taken apart: what it makes of a view is the same in each of the view's pairs.
        """
        asks = self.here(here).unflatten(-1, (self.heads, -1)).transpose(2, 3)
        fits = self.scale * asks.flatten(1, 3) @ there.flatten(1, 2).to(asks.dtype).mT
        fits = fits.unflatten(1, asks.shape[1:4]).unflatten(-1, there.shape[1:3]).permute(0, 4, 1, 2, 3, 5)
        first, *rest = self.net
        assert isinstance(first, nn.Linear)
        view = here.shape[2] * here.shape[3]
        of_here, of_there, of_fits = first.weight.split([view, view, first.in_features - 2 * view], 1)
        said = functional.linear(fits.flatten(3), of_fits, first.bias)
        said = said + functional.linear(here.flatten(2), of_here)[:, None]
        said = said + functional.linear(there.flatten(2), of_there)[:, :, None]
        for layer in rest:
            said = layer(said)
        return said
