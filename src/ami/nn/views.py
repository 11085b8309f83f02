"""Views as grids of cells, perceived from whatever is sensed of them, and as they would be from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ami import geometry
from ami.nn.rotary import turns
from ami.nn.senses import CellStem, PointStem, bearings, directions
from ami.nn.video import RotaryBlock

_NEVER = -1e4  # what weighs so much is not taken
_STEP = 0.2  # radians, and e-foldings of the range, that turn the fastest plane of a rotary position by 1


@dataclass(frozen=True)
class Senses:
    """What is sensed of a batch of views. What is ``None`` is absent, and never computed."""

    rays: Float[Tensor, "views cells 3"]  # to the middle of each cell, camera axes, one metre of depth
    video: Float[Tensor, "views cells pixels"] | None = None  # in pieces, as :func:`ami.nn.senses.colour_pieces` cuts
    depth: Float[Tensor, "views cells pixels"] | None = None  # and :func:`ami.nn.senses.depth_pieces`
    points: Float[Tensor, "views points 3"] | None = None  # metres, camera axes
    hidden: Bool[Tensor, "views cells"] | None = None  # cells of which no picture says anything

    def __len__(self) -> int:
        return len(self.rays)

    def rows(self, index: Tensor) -> Senses:
        """Some of the views."""
        held = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(self, **{name: value[index] for name, value in held.items() if value is not None})


class ViewEncoder(nn.Module):
    """Cells that know where they look, hear what is sensed there and one another, and are all that comes out.

    Pictures of colours and of depth lie on the cells' grid, so what they say is added to the cells; points are tokens
    beside them. Each sense has an embedding of its own. So what comes out has one shape, whatever was sensed, no order
    of the senses matters, and one sense more costs a stem and not a longer row of tokens. All tokens, cells and points,
    have a rotary position in bearings and range, which are those of the camera at hand, wide or narrow.
    """

    def __init__(self, *, pixels: int, width: int, depth: int, heads: int, dim: int) -> None:
        super().__init__()
        self.head = width // heads
        self.colours = CellStem(3 * pixels, width)
        self.depths = CellStem(2 * pixels, width)
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
    """What is seen from elsewhere, from any number of views: their cells, moved to where they are seen from there.

    Each cell that is held is a point (``lying``), so the motion between the cameras says where it is seen from there;
    a cell that is asked for takes from those that come to lie near it, and of these rather from the nearer, which hide
    the others (a soft z-buffer). What comes together so is made a view by blocks in which the asked cells hear one
    another. Source of the task: Eslami et al. 2018, "Neural scene representation and rendering"; of the moving:
    Wiles et al. 2020, "SynSin", section 3.2.
    """

    def __init__(self, *, dim: int, width: int, depth: int, heads: int, takers: int = 2) -> None:
        super().__init__()
        self.head, self.takers = width // heads, takers
        self.value = nn.Linear(dim, takers * dim, bias=False)
        self.sharp = nn.Parameter(torch.linspace(3.0, 5.0, takers))  # logarithm of how fast a weight falls, per radian²
        self.near = nn.Parameter(torch.ones(takers))  # how much an e-folding of the range makes less of a weight
        self.trust = nn.Linear(dim, takers)
        self.nothing = nn.Parameter(torch.full((takers,), -3.0))  # what is taken where nothing comes to lie
        self.enter = nn.Linear(takers * (dim + 4) + 12, width)
        self.blocks = nn.ModuleList(RotaryBlock(width, heads) for _ in range(depth))
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim))

    def forward(
        self,
        views: Float[Tensor, "rows held cells dim"],
        lying: Float[Tensor, "rows held cells 3"],
        poses: Float[Tensor, "rows asked held 4 4"],
        without: Bool[Tensor, "rows asked held"] | None = None,
    ) -> Float[Tensor, "rows asked cells dim"]:
        """The views from there, each of its row's held ones; ``without`` leaves some of them out.

        ``lying``: bearings of what each cell shows, as :func:`ami.nn.senses.bearings` says; ``poses`` are told in the
        axes of each held camera.
        """
        kept = torch.ones(poses.shape[:3], device=views.device) if without is None else (~without).float()
        value, trust = self.value(views).float(), self.trust(views).float()
        with torch.autocast(views.device.type, enabled=False):  # a millionth of a radian is not seen, a hundredth is
            kept = kept / kept.sum(-1, keepdim=True)
            asked = (kept @ lying[..., :2].float().flatten(2)).unflatten(-1, (-1, 2))  # its camera is like those held
            moved = bearings(geometry.place(geometry.inverse(poses.float()), directions(lying.float())[:, None]))
            carried = self.carried(value, trust, moved, asked, without)
        at = torch.cat([asked, torch.zeros_like(asked[..., :1])], -1).flatten(0, 1)
        tokens = self.enter(torch.cat([carried.flatten(0, 1), _waves(at)], -1))
        places = turns(at / _STEP, self.head)
        for block in self.blocks:
            tokens = block(tokens, places)
        return self.leave(tokens).unflatten(0, poses.shape[:2])

    def carried(
        self,
        value: Float[Tensor, "rows held cells takers_dim"],
        trust: Float[Tensor, "rows held cells takers"],
        moved: Float[Tensor, "rows asked held cells 3"],
        asked: Float[Tensor, "rows asked cells 2"],
        without: Bool[Tensor, "rows asked held"] | None = None,
    ) -> Float[Tensor, "rows asked cells taken"]:
        """What comes to lie near each asked cell, with how far off it does, its range and how much of it there is.

        A weight is a Gaussian of how far off, times what a held cell is trusted and its range to a negative power.
        """
        sharp = self.sharp.exp()[:, None, None]
        trust = trust.movedim(3, 1)[:, None]  # rows, asked, takers, held, cells
        if without is not None:
            trust = trust.masked_fill(without[:, :, None, :, None], _NEVER)
        moved = moved[:, :, None].expand(-1, -1, self.takers, -1, -1, -1)
        bias = trust - self.near[:, None, None] * moved[..., 2] - sharp * moved[..., :2].square().sum(-1)
        keys = torch.cat([2 * sharp[..., None] * moved[..., :2], bias[..., None]], -1).flatten(3, 4)
        query = torch.cat([asked, torch.ones_like(asked[..., :1])], -1)[:, :, None]
        # As in any square of a difference, what is the same for all keys is left out; but not where none is taken.
        none = self.nothing[:, None, None] + sharp * asked.square().sum(-1)[:, :, None, :, None]
        weight = torch.cat([query @ keys.mT, none], -1).softmax(-1)[..., :-1]
        value = value.unflatten(-1, (self.takers, -1)).movedim(3, 1).flatten(2, 3)[:, None]
        value = torch.cat([value.expand(-1, moved.shape[1], -1, -1, -1), moved.flatten(3, 4)], -1)
        share = weight.sum(-1, keepdim=True)
        what, where, far = (weight @ value).split([value.shape[-1] - 3, 2, 1], -1)
        return torch.cat([what, where - share * asked[:, :, None], far, share], -1).transpose(2, 3).flatten(3)


class Apart(nn.Module):
    """How the camera moved between two views: a network on where each cell of one is found again in the other.

    For each of several heads a cell looks for its like among those of the other view, and what is told is where that
    lies, on the average over all that might be it, and what it is. From that flow and both looks one small network,
    the same for all cells, makes out by how much less than a cell things moved, and another the motion from all cells.
    Source of the reading: Kendall et al. 2017, "End-to-end learning of geometry and context for deep stereo
    regression", equation 1; of comparing what was found: Sun et al. 2018, "PWC-Net", section 3.
    """

    def __init__(
        self, *, cells: int, dim: int, motion: int, width: int, heads: int = 4, key: int = 16, said: int = 32
    ) -> None:
        super().__init__()
        self.heads = heads
        self.key = nn.Linear(dim, heads * key, bias=False)
        self.look = nn.Linear(dim, said)
        self.near = nn.Parameter(torch.linspace(0.5, 4.0, heads))  # how fast a likeness falls with the way, per radian²
        self.each = nn.Sequential(
            nn.Linear(4 * heads + 3 + 2 * said, 2 * said), nn.ReLU(), nn.Linear(2 * said, said), nn.ReLU()
        )
        self.net = nn.Sequential(
            nn.Linear(cells * said, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, motion),
        )

    def forward(
        self,
        here: Float[Tensor, "rows held cells dim"],
        there: Float[Tensor, "rows asked cells dim"],
        lying_here: Float[Tensor, "rows held cells 3"],
        lying_there: Float[Tensor, "rows asked cells 3"],
    ) -> Float[Tensor, "rows asked held motion"]:
        """The motions that lead from each of a row's views here to each of those there."""
        asks, keys = (
            self.key(view).float().unflatten(-1, (self.heads, -1)).transpose(2, 3) for view in (here, there)
        )  # rows, views, heads, cells, key
        with torch.autocast(here.device.type, enabled=False):
            ways = self.near.clamp_min(0).sqrt()[:, None, None]
            asks, keys = (
                torch.cat([each, ways * lying[:, :, None, :, :2].float()], -1)
                for each, lying in ((asks, lying_here), (keys, lying_there))
            )
            asks = torch.cat([2 * asks, torch.ones_like(asks[..., :1])], -1)
            keys = torch.cat([keys, -keys.square().sum(-1, keepdim=True)], -1)
            fits = (asks[:, None] @ keys[:, :, None].mT).softmax(-1)  # by the square of what cells differ by
            found = fits @ lying_there[:, :, None, None].float()
        flow = torch.cat([found - lying_here[:, None, :, None].float(), fits.amax(-1, keepdim=True)], -1)
        like = fits @ self.look(there).float().unflatten(-1, (self.heads, -1)).transpose(2, 3)[:, :, None]
        mine = torch.cat([lying_here.float(), self.look(here).float()], -1)[:, None].expand(
            -1, flow.shape[1], -1, -1, -1
        )
        seen = torch.cat([*(each.transpose(3, 4).flatten(4) for each in (flow, like)), mine], -1)
        return self.net(self.each(seen).flatten(3))


def told(pose: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 9"]:
    """A motion in numbers that are 0 where nothing moves: its rotation's six, less the identity's, and metres."""
    six = geometry.to_six(pose[..., :3, :3])
    return torch.cat([six - still(six), pose[..., :3, 3]], -1)


def still(like: Tensor) -> Float[Tensor, "6"]:
    """The six numbers of a rotation that turns nothing."""
    return geometry.to_six(torch.eye(3, dtype=like.dtype, device=like.device))
