"""Pictures become columns, what a column shows is kept at the place where it is, and places become columns again."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

COLUMN = 4  # px across of what one token stands for
_LITTLE = 0.05  # weight of knowing nothing

Pose = Float[Tensor, "*rows 3"]  # x and y, metres, and heading, radians, from x towards y
Step = Float[Tensor, "*rows 3"]  # ahead and to the left, metres, and a turn to the left, radians
Places = Float[Tensor, "rows place number"]  # what was seen at each point of a lattice: see :class:`PlaceMemory`


def moved(pose: Pose, step: Step) -> Pose:
    """Where a step leads that is taken at a pose."""
    cos, sin = torch.cos(pose[..., 2]), torch.sin(pose[..., 2])
    x = pose[..., 0] + cos * step[..., 0] - sin * step[..., 1]
    y = pose[..., 1] + sin * step[..., 0] + cos * step[..., 1]
    return torch.stack([x, y, pose[..., 2] + step[..., 2]], -1)


def between(start: Pose, end: Pose) -> Step:
    """The step that leads from one pose to another; its turn is within half a circle."""
    apart = end - start
    cos, sin = torch.cos(start[..., 2]), torch.sin(start[..., 2])
    ahead = cos * apart[..., 0] + sin * apart[..., 1]
    left = cos * apart[..., 1] - sin * apart[..., 0]
    turn = torch.remainder(apart[..., 2] + torch.pi, 2 * torch.pi) - torch.pi
    return torch.stack([ahead, left, turn], -1)


class ColumnStem(nn.Module):
    """Pictures to a row of tokens: each is told of all that is above and below it, and a little beside it."""

    def __init__(self, width: int, dim: int, height: int) -> None:
        super().__init__()
        self.piece = nn.Conv2d(3, width // 2, COLUMN, COLUMN)
        self.around = nn.Conv2d(width // 2, width // 2, 3, 1, 1)
        self.column = nn.Conv2d(width // 2, width, (height // COLUMN, 1))
        self.beside = nn.Conv2d(width, width, (1, 3), 1, (0, 1))
        self.out = nn.Linear(width, dim)

    def forward(self, pictures: UInt8[Tensor, "pictures 3 height width"]) -> Float[Tensor, "pictures column dim"]:
        """Width must be a multiple of 4 px, the height the one it was built for."""
        device = pictures.device.type
        half = torch.is_autocast_enabled(device)
        kind = torch.get_autocast_dtype(device) if half else self.piece.weight.dtype
        # Eight bits hold every x - 127.5 exactly, so pixels lose nothing in bfloat16.
        pixels = pictures.contiguous(memory_format=torch.channels_last).to(kind).sub_(127.5).mul_(1 / 64)
        hidden = torch.relu_(self.piece(pixels))
        hidden = hidden + torch.relu_(self.around(hidden))
        hidden = torch.relu_(self.column(hidden))
        hidden = hidden + torch.relu_(self.beside(hidden))
        return self.out(hidden[:, :, 0].transpose(1, 2))


class PlaceMemory(nn.Module):
    """A lattice of places that repeats itself every ``side * spacing`` metres, written and read between its points.

    At each point: the weight of the sights in which it was open, and for each of four directions from which it was
    seen to be shut, their weight and the weighed sum of ``value`` numbers, for a wall has two sides. A point is
    corrected towards what is seen there by the gain of a mean, 1 / n, or of a mean of the last ``most`` if there were
    more: a fact that never changes is learned ever better and one that changes is learned anew, and what is not looked
    at stays as it is, however long. It is the delta rule with place and direction for its key. Sources: Widrow and Hoff
    1960 (delta rule); Schlag, Irie and Schmidhuber 2021 (as a memory, keyed); Parisotto and Salakhutdinov 2018,
    "Neural Map".
    """

    def __init__(self, *, side: int, spacing: float, value: int, most: float) -> None:
        super().__init__()
        self.side, self.spacing, self.value, self.most = side, spacing, value, most
        self.told = 2 * value + 3  # numbers that are read at a point

    def empty(self, rows: int, like: Tensor) -> Places:
        """Nothing was seen yet."""
        return like.new_zeros(rows, self.side**2, 1 + 4 * (1 + self.value))

    def write(
        self,
        places: Places,
        at: Float[Tensor, "rows point 2"],
        weights: Float[Tensor, "rows point"],
        values: Float[Tensor, "rows shut value"],
        toward: Float[Tensor, "rows shut"],
    ) -> Places:
        """See ``values`` looking ``toward`` (radians) points in the plane (m), each as sure as its weight.

        There may be more points than values: the rest are seen to be open.
        """
        index, share = self._corners(at)
        share, shut = (share * weights[..., None]).to(places.dtype), values.shape[1]
        seen = _bearing(toward)[..., None] * torch.cat([torch.ones_like(values[..., :1]), values], -1)[:, :, None]
        seen = functional.pad(seen.flatten(2), (1, 0)).to(places.dtype)
        told = (share[:, :shut, :, None] * seen[:, :, None]).flatten(0, 2)
        known = places.flatten(0, 1).index_add(0, index[:, :shut].flatten(), told)
        opened = torch.zeros_like(known[:, 0]).index_add(0, index[:, shut:].flatten(), share[:, shut:].flatten())
        known[:, 0] += opened
        total = known[:, 0] + known[:, 1 :: 1 + self.value].sum(-1)
        return (known * (self.most / total.clamp_min(self.most))[:, None]).view_as(places)

    def read(
        self, places: Places, at: Float[Tensor, "rows point 2"], toward: Float[Tensor, "rows point"]
    ) -> Float[Tensor, "rows point told"]:
        """What was seen at points in the plane (m), by who looks ``toward`` them (radians).

        The share of the sights in which a point was shut; what was shown then from this side, and from any; how much
        of it is from this side; and how sure it all is, from 0, never seen, to 1.
        """
        index, share = self._corners(at)
        table, share = places.flatten(0, 1), share.to(places.dtype)
        found = functional.embedding_bag(index.flatten(0, 1), table, per_sample_weights=share.flatten(0, 1), mode="sum")
        opened, shown = found.view(*at.shape[:2], -1).tensor_split([1], -1)
        shown = shown.unflatten(-1, (4, -1))
        here, any_ = torch.einsum("bpk,bpkv->bpv", _bearing(toward), shown), shown.sum(2)
        shut, total = any_[..., :1], opened + any_[..., :1]
        return torch.cat(
            [
                shut / (total + _LITTLE),
                here[..., 1:] / (here[..., :1] + _LITTLE),
                any_[..., 1:] / (shut + _LITTLE),
                here[..., :1] / (shut + _LITTLE),
                total / (total + 1),
            ],
            -1,
        )

    def _corners(self, at: Float[Tensor, "rows point 2"]) -> tuple[Tensor, Tensor]:
        """The four points of the lattice round each point, counted through all rows, and how near it is to each.

        That adds up to 1.
        """
        place = at / self.spacing
        low = place.floor()
        near = torch.stack([1 - (place - low), place - low], -1)  # (rows point axis end)
        share = near[:, :, 0, :, None] * near[:, :, 1, None, :]
        both = torch.stack([low, low + 1], -1).long() % self.side
        index = both[:, :, 0, :, None] * self.side + both[:, :, 1, None, :]
        first = torch.arange(len(at), device=at.device)[:, None, None] * self.side**2
        return index.flatten(2) + first, share.flatten(2)


def _bearing(toward: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows 4"]:
    """How much each of four directions has of one; that adds up to 1, and opposite ones share none."""
    quarter = torch.arange(4, device=toward.device) * (torch.pi / 2)
    return torch.relu(torch.cos(toward[..., None] - quarter)).square()


class Writer(nn.Module):
    """What a column shows, at the place where it is; and that the way there is open."""

    shares = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)  # of the way
    open = 0.3  # how sure that is
    short = 0.02  # metres before a surface

    def __init__(self, dim: int, value: int, width: int) -> None:
        super().__init__()
        self.shown = nn.Sequential(nn.Linear(dim, width), nn.ReLU(), nn.Linear(width, value + 1))

    def forward(
        self,
        tokens: Float[Tensor, "rows view column dim"],
        depth: Float[Tensor, "rows view column"],
        pose: Float[Tensor, "rows view 3"],
        half: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Points, weights, values and directions, for :meth:`PlaceMemory.write`."""
        value, weight = self.shown(tokens).float().tensor_split([-1], -1)
        far = torch.stack([depth - self.short, *(share * depth for share in self.shares)], -1)
        surface, opened = outlook(pose, far, half).split([1, len(self.shares)], -2)
        points = torch.cat([surface.flatten(1, 3), opened.flatten(1, 3)], 1)
        sure = torch.cat([torch.sigmoid(weight).flatten(1), self.open * torch.ones_like(opened[..., 0]).flatten(1)], 1)
        return points, sure, value.flatten(1, 2), bearings(pose, depth.shape[-1], half).flatten(1)


class Viewer(nn.Module):
    """What would be seen from a pose: along each column's ray, what is open and what is in the way.

    Each place on the ray lets through a share of the view, and the rest shows what is there: volume rendering, of
    what is remembered in place of colours. Source: Mildenhall et al. 2020, "NeRF", equation 3.
    """

    far: Tensor

    def __init__(self, *, dim: int, told: int, width: int, reach: float, spacing: float) -> None:
        super().__init__()
        far = [0.12]
        while far[-1] < reach:  # metres; so near to one another that no place is stepped over
            far.append(far[-1] + min(max(0.12 * far[-1], 0.4 * spacing), spacing))
        self.register_buffer("far", torch.tensor(far), persistent=False)
        self.blocks = nn.Sequential(nn.Linear(told, width // 2), nn.ReLU(), nn.Linear(width // 2, 1))
        self.likely = nn.Parameter(torch.tensor([10.0, -4.0]))  # that a place blocks the view, by how often it did
        nn.init.zeros_(self.blocks[2].weight)  # pyright: ignore
        self.shows = nn.Conv1d(told + 2, width, 3, 1, 1)
        self.mixed = nn.Conv1d(width, width, 3, 1, 1)
        self.out = nn.Linear(width, dim + 1)

    def blocked(self, told: Float[Tensor, "*rows told"]) -> Float[Tensor, "*rows"]:
        """Whether a place of which this was read stands in the way of a view: the logarithm of the odds."""
        return self.blocks(told)[..., 0].float() + self.likely[0] * told[..., 0] + self.likely[1]

    def forward(
        self, memory: PlaceMemory, places: Places, pose: Float[Tensor, "rows view 3"], columns: int, half: float
    ) -> tuple[
        Float[Tensor, "rows view column dim"], Float[Tensor, "rows view column"], Float[Tensor, "rows view column"]
    ]:
        """The tokens expected from each pose, the logarithm of their expected squared error, and the depth, metres."""
        points = outlook(pose, self.far.expand(*pose.shape[:2], columns, -1), half)
        toward = bearings(pose, columns, half)[..., None].expand(points.shape[:-1])
        told = memory.read(places, points.flatten(1, 3), toward.flatten(1, 3))
        told = told.view(*points.shape[:-1], -1).flatten(0, 1)
        blocks = self.blocked(told)
        shut, passed = functional.logsigmoid(blocks), functional.logsigmoid(-blocks).cumsum(-1)
        stops = torch.exp(shut + functional.pad(passed[..., :-1], (1, 0)))
        left = 1 - stops.sum(-1, keepdim=True)
        far = (stops * self.far).sum(-1, keepdim=True)
        shown = torch.cat([torch.einsum("bcf,bcfv->bcv", stops, told), far / 3, left], -1)
        hidden = torch.relu(self.shows(shown.transpose(1, 2)))
        hidden = hidden + torch.relu(self.mixed(hidden))
        seen = self.out(hidden.transpose(1, 2)).float().unflatten(0, pose.shape[:2])
        depth = (far + left * self.far[-1])[..., 0].unflatten(0, pose.shape[:2])
        return seen[..., :-1], seen[..., -1].clamp(-8.0, 4.0), depth


def outlook(
    pose: Float[Tensor, "rows view 3"], far: Float[Tensor, "rows view column point"], half: float
) -> Float[Tensor, "rows view column point 2"]:
    """Points in the plane, ``far`` metres along the axis of a camera, through each of its columns.

    ``half`` is the tangent of half the angle that the camera spans.
    """
    columns = far.shape[2]
    aside = half * (1 - (torch.arange(columns, device=far.device) + 0.5) * (2 / columns))[:, None]
    x, y, heading = pose[..., None, None].unbind(2)
    cos, sin = torch.cos(heading), torch.sin(heading)
    return torch.stack([x + far * (cos - aside * sin), y + far * (sin + aside * cos)], -1)


def bearings(pose: Float[Tensor, "rows view 3"], columns: int, half: float) -> Float[Tensor, "rows view column"]:
    """The direction that each column of a camera looks in, radians."""
    aside = half * (1 - (torch.arange(columns, device=pose.device) + 0.5) * (2 / columns))
    return pose[..., 2:] + torch.atan(aside)


class Stride(nn.Module):
    """The step that an action makes with such things in the way, and the logarithm of its expected squared error."""

    def __init__(self, columns: int, action: int, width: int) -> None:
        super().__init__()
        self.met = nn.Sequential(nn.Linear(columns + action, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.meant = nn.Linear(action, width)
        self.out = nn.Linear(2 * width, 6)
        nn.init.zeros_(self.out.weight)
        self.out.bias = nn.Parameter(torch.tensor([0.0, 0.0, 0.0, -4.0, -4.0, -4.0]))

    def forward(self, far: Float[Tensor, "rows columns"], action: Float[Tensor, "rows action"]) -> tuple[Step, Step]:
        """In metres and radians; ``far`` is the logarithm of metres."""
        near = torch.exp(-far) / 3  # a wall that can be touched is near one, and those farther away hardly differ
        parts = self.met(torch.cat([near, action], -1)), torch.relu(self.meant(action))
        step, doubt = self.out(torch.cat(parts, -1)).float().split(3, -1)
        return step, doubt.clamp(-14.0, 2.0)
