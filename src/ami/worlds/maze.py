"""Mazes seen by who walks in them: rays cast in NumPy, many mazes at once, with depth, pose and what is on the walls.

One cell is a metre. x and y lie in the plane and z is up; a heading is in radians from x towards y, so to turn by a
positive angle is to turn left. The camera looks level from half the height of the walls.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from ami.types import Embodiment

SIZE = 64  # px of the picture's side, which spans 90 degrees
NAME = "maze"
STRIDE, TURN = 0.25, np.deg2rad(30.0)  # metres and radians of one step at full effort
EMBODIMENT = Embodiment(NAME, step_seconds=0.5, low=(-1.0, -1.0), high=(1.0, 1.0))
COLOURS = ("red", "green", "blue", "yellow", "magenta", "cyan")
_RGB = np.array(
    [[0, 0, 0], [220, 50, 40], [50, 180, 60], [50, 90, 230], [230, 210, 50], [210, 70, 200], [60, 200, 210]], np.float32
)
_BODY = 0.2  # half the side of who walks, metres
_SLIP = 0.05  # deviation of how far a step goes, of its length
_TURNS, _SWAY = 0.05, np.deg2rad(0.5)  # deviation of how far a turn goes, of its angle and besides
_EYE, _WALL, _POST, _THICK = 0.5, 1.0, 0.6, 0.13  # metres: heights of eye, walls and posts, radius of a post
_FADE = 0.12  # of the light, in each metre
_PANEL = 0.22, 0.78  # where on its wall a marker is, along it and upwards


@dataclass(frozen=True, eq=False)
class Mazes:
    """Mazes of ``wide`` x ``high`` cells. A number of 0 is no colour, and 1 to 6 are those of ``COLOURS``.

    ``across[:, i, j]`` says whether the edge from (i, j) to (i, j + 1) is a wall, and ``along[:, i, j]`` the one from
    (i, j) to (i + 1, j). Paint is on the side that is seen looking towards greater numbers, and on the other.
    """

    across: Bool[np.ndarray, "batch wide+1 high"]
    along: Bool[np.ndarray, "batch wide high+1"]
    across_paint: Int[np.ndarray, "batch wide+1 high 2"]
    along_paint: Int[np.ndarray, "batch wide high+1 2"]
    posts: Float[np.ndarray, "batch posts 2"]  # metres
    post_colours: Int[np.ndarray, "batch posts"]
    walls: Float[np.ndarray, "batch 2 3"]  # colours of those across and along, 0 to 255
    ground: Float[np.ndarray, "batch 2 3"]  # of the ceiling and the floor

    def __len__(self) -> int:
        return len(self.across)

    @property
    def size(self) -> tuple[int, int]:
        """Cells, in x and y."""
        return self.across.shape[1] - 1, self.across.shape[2]

    def rows(self, index: np.ndarray | slice) -> Mazes:
        """Some of them."""
        return Mazes(**{name: value[index] for name, value in vars(self).items()})

    def move(
        self, pose: Float[np.ndarray, "batch 3"], action: Float[np.ndarray, "batch 2"], rng: np.random.Generator
    ) -> Float[np.ndarray, "batch 3"]:
        """Turn, then walk; feet slip a little. Walls slide: first x, then y, and each stops at what it meets."""
        action = np.clip(action, -1.0, 1.0)
        slip, turns, sway = rng.standard_normal((3, len(pose)))
        heading = pose[:, 2] + TURN * action[:, 1] * (1 + _TURNS * turns) + _SWAY * sway
        far = STRIDE * action[:, 0] * (1 + _SLIP * slip)
        x = _stopped(self.across, pose[:, 0], far * np.cos(heading), pose[:, 1])
        y = _stopped(self.along.transpose(0, 2, 1), pose[:, 1], far * np.sin(heading), x)
        return np.stack([x, y, heading], 1)

    def look(
        self, pose: Float[np.ndarray, "batch 3"]
    ) -> tuple[UInt8[np.ndarray, "batch size size 3"], Float[np.ndarray, "batch size size"], Seen]:
        """The picture, how far along the camera's axis each pixel is (m), and what each column shows."""
        seen = self._cast(pose)
        rows = np.arange(SIZE, dtype=np.float32)
        down = ((rows + 0.5) / (SIZE / 2) - 1)[None, :, None]  # slope of each row
        z = seen.wall[:, None, :]
        level = _EYE / np.abs(down)
        height = _EYE - down * z
        depth = np.minimum(z, level)
        ground = np.where(down[..., None] < 0, self.ground[:, None, None, 0], self.ground[:, None, None, 1])
        panel = (seen.marker > 0)[:, None] & (height > _PANEL[0]) & (height < _PANEL[1])
        plain = np.broadcast_to(seen.shade[:, None], (*depth.shape, 3))
        painted = np.broadcast_to(_RGB[seen.marker][:, None], plain.shape)
        wall = np.where(panel[..., None], painted, plain)
        colour = np.where((z <= level)[..., None], wall, ground)
        post = seen.post[:, None, :]
        upright = _EYE - down * post
        before = (post < depth) & (upright > 0) & (upright < _POST)
        colour = np.where(before[..., None], _RGB[seen.post_colour][:, None], colour)
        depth = np.where(before, post, depth)
        picture = colour / (1 + _FADE * depth[..., None])
        return picture.astype(np.uint8), depth.astype(np.float32), seen

    def _cast(self, pose: Float[np.ndarray, "batch 3"]) -> Seen:
        """What each column of the picture meets first: a wall, and perhaps a post before it."""
        aside = 1 - (np.arange(SIZE) + 0.5) / (SIZE / 2)  # of the column, to the left of the axis
        cos, sin = np.cos(pose[:, 2:]), np.sin(pose[:, 2:])
        toward = np.stack([cos - aside * sin, sin + aside * cos], -1).astype(np.float32)  # one metre of depth
        toward = np.where(np.abs(toward) < 1e-6, np.float32(1e-6), toward)
        eye = pose[:, None, :2].astype(np.float32)
        x, x_line, x_cell, x_on = _crossed(self.across, eye[..., 0], eye[..., 1], toward[..., 0], toward[..., 1])
        y, y_line, y_cell, y_on = _crossed(
            self.along.transpose(0, 2, 1), eye[..., 1], eye[..., 0], toward[..., 1], toward[..., 0]
        )
        first, row = x < y, np.arange(len(self))[:, None]
        side = np.where(toward > 0, 0, 1)
        marker = np.where(
            first,
            self.across_paint[row, x_line, x_cell, side[..., 0]],
            self.along_paint[row, y_cell, y_line, side[..., 1]],
        )
        on = np.where(first, x_on, y_on)
        marker = np.where((on > _PANEL[0]) & (on < _PANEL[1]), marker, 0)
        light = np.where(on * 4 % 1 < 0.5, 1.0, 0.88)[..., None]  # the walls are of upright planks
        shade = np.where(first[..., None], self.walls[:, None, 0], self.walls[:, None, 1]) * light
        post, colour = self._posts(pose, aside)
        edge = np.where(first, x_line * self.size[1] + x_cell, (self.size[0] + 1) * self.size[1])
        edge = np.where(first, edge, edge + y_cell * (self.size[1] + 1) + y_line)
        return Seen(np.where(first, x, y), shade.astype(np.float32), marker, post, colour, edge)

    def _posts(self, pose: np.ndarray, aside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How far ahead each column meets a post first, ``inf`` where it does not, and its colour."""
        apart = self.posts - pose[:, None, :2]
        cos, sin = np.cos(pose[:, 2:]), np.sin(pose[:, 2:])
        ahead = (apart[..., 0] * cos + apart[..., 1] * sin)[..., None]
        left = (apart[..., 1] * cos - apart[..., 0] * sin)[..., None]
        square = 1 + aside**2
        middle = (ahead + left * aside) / square
        root = middle**2 - (ahead**2 + left**2 - _THICK**2) / square
        depth = np.where(root > 0, middle - np.sqrt(np.maximum(root, 0)), np.inf)
        depth = np.where(depth > 0.05, depth, np.inf)
        nearest = depth.argmin(1)
        colour = np.take_along_axis(self.post_colours[..., None], nearest[:, None], 1)[:, 0]
        return np.take_along_axis(depth, nearest[:, None], 1)[:, 0].astype(np.float32), colour


@dataclass(frozen=True, eq=False)
class Seen:
    """What each column of a picture meets."""

    wall: Float[np.ndarray, "batch column"]  # depth, metres
    shade: Float[np.ndarray, "batch column 3"]
    marker: Int[np.ndarray, "batch column"]  # colour of the marker on it, 0 for none
    post: Float[np.ndarray, "batch column"]  # depth, metres, inf for none
    post_colour: Int[np.ndarray, "batch column"]
    edge: Int[np.ndarray, "batch column"]  # which wall: those across first, in the order of ``edges``


def edges(mazes: Mazes) -> tuple[Bool[np.ndarray, "batch edge"], Float[np.ndarray, "edge 3"]]:
    """Whether each edge is a wall, those across first; and its middle with the heading that looks at it."""
    wide, high = mazes.size
    i, j = np.meshgrid(np.arange(wide + 1), np.arange(high), indexing="ij")
    across = np.stack([i.ravel(), j.ravel() + 0.5, np.zeros(i.size)], 1)
    i, j = np.meshgrid(np.arange(wide), np.arange(high + 1), indexing="ij")
    along = np.stack([i.ravel() + 0.5, j.ravel(), np.full(i.size, np.pi / 2)], 1)
    count = len(mazes)
    walls = np.concatenate([mazes.across.reshape(count, -1), mazes.along.reshape(count, -1)], 1)
    return walls, np.concatenate([across, along])


def with_edge(mazes: Mazes, edge: Int[np.ndarray, "batch"], wall: Bool[np.ndarray, "batch"]) -> Mazes:
    """The same mazes, one edge of each with or without a wall, by its number among ``edges``."""
    count, first = len(mazes), mazes.across[0].size
    flat = np.concatenate([mazes.across.reshape(count, -1), mazes.along.reshape(count, -1)], 1)
    flat[np.arange(count), edge] = wall
    across, along = flat[:, :first].reshape(mazes.across.shape), flat[:, first:].reshape(mazes.along.shape)
    return replace(mazes, across=across, along=along)


def pose_matrix(pose: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 4 4"]:
    """Camera to world, metres: the camera's x is right, y down and z ahead; the world's z is up."""
    cos, sin, zero, one = (
        np.cos(pose[..., 2]),
        np.sin(pose[..., 2]),
        np.zeros(pose.shape[:-1]),
        np.ones(pose.shape[:-1]),
    )
    rows = [
        [sin, zero, cos, pose[..., 0]],
        [-cos, zero, sin, pose[..., 1]],
        [zero, -one, zero, _EYE * one],
        [zero, zero, zero, one],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def intrinsics() -> Float[np.ndarray, "4"]:
    """fx fy cx cy, pixels."""
    return np.full(4, SIZE / 2)


def _stopped(walls: np.ndarray, place: np.ndarray, far: np.ndarray, beside: np.ndarray) -> np.ndarray:
    """Where a body that goes ``far`` comes to along an axis, with the walls that cross it (batch line cell)."""
    ahead = place + far
    front = np.where(far > 0, ahead + _BODY, ahead - _BODY)
    line = np.where(far > 0, np.floor(front), np.ceil(front)).astype(int)
    met = np.where(far > 0, line >= place + _BODY - 1e-9, line <= place - _BODY + 1e-9)
    row, last = np.arange(len(place)), walls.shape[2] - 1
    there = walls[row, np.clip(line, 0, walls.shape[1] - 1)]
    shut = np.zeros(len(place), bool)
    for side in (-_BODY + 1e-6, _BODY - 1e-6):
        shut |= there[row, np.clip(np.floor(beside + side).astype(int), 0, last)]
    return np.where(met & shut, np.where(far > 0, line - _BODY, line + _BODY), ahead)


def _crossed(
    walls: np.ndarray, start: np.ndarray, other: np.ndarray, toward: np.ndarray, aside: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The first wall that each ray crosses among those across one axis: depth, line, cell, and how far along it."""
    lines = np.arange(walls.shape[1], dtype=np.float32)
    depth = (lines - start[..., None]) / toward[..., None]
    at = other[..., None] + depth * aside[..., None]
    cell = np.floor(at).astype(np.int32)
    inside = (depth > 1e-4) & (cell >= 0) & (cell < walls.shape[2])
    cell = np.clip(cell, 0, walls.shape[2] - 1)
    met = inside & walls[np.arange(len(walls))[:, None, None], np.arange(walls.shape[1]), cell]
    depth = np.where(met, depth, np.float32(np.inf))
    line = depth.argmin(-1)
    chosen = line[..., None]
    depth, cell, at = (np.take_along_axis(each, chosen, -1)[..., 0] for each in (depth, cell, at))
    return depth, line, cell, at - cell
