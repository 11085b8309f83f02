"""Memory Maze 9x9 as its authors built it, walked by who knows the way, with depth and pose. Source: Pasukonis 2022.

Lengths are halved: a cell of theirs, 2 m wide, counts as one metre here as in ``maze``, and the lattice of places that
a model keeps holds all of it. x and y are from the lower left corner, inside the outer walls; a heading is from x
towards y. The camera looks 0.1 radians down. The frame's border shows what is asked for, and is no part of the view.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import shortest_path
from torch import Tensor

from ami.data.episodes import Episode
from ami.types import Embodiment
from ami.worlds.task import SIZE, needed, refuse_few

NAME, EXTRA = "memory-maze", "memory-maze"
SIDE = 9  # cells
STRIDE, TURN = 0.25, 0.32  # metres and radians of a step, once it goes on as the one before it
# Ahead and to the left of what is done now, and of what was done before it: the body rolls on.
EMBODIMENT = Embodiment(NAME, step_seconds=0.25, low=(0.0, -1.0, 0.0, -1.0), high=(1.0,) * 4)
MOVES = ((0, 0), (1, 0), (0, 1), (0, -1), (1, 1), (1, -1))  # ahead and to the left, by the number of an action
COLOURS = ("red", "green", "blue")
TRUTH = ("x", "y", "heading", *(f"{colour}_{axis}" for colour in COLOURS for axis in "xy"))
_RGB = np.array([[170, 38, 30], [99, 170, 88], [39, 140, 217]]) / 220 * 255 * 0.7  # of the border
_BORDER = 2  # px
HALF = float(np.tan(np.deg2rad(40.0)))  # tangent of half the angle that the camera spans
_SCALE = 0.5  # of their lengths
_FAR = 20.0  # metres: beyond is the sky
_CAMERA = "walker/egocentric"
_REPEAT = 50  # steps of the simulator in one of the task
_LOOKS, _VISITS, _SLIPS = 0.5, 0.3, 0.1  # chances: to look round, to go to what is coloured, to do anything else
_THERE = 0.25  # metres
_AHEAD = 0.25  # of a step: less is none
_RADIUS = 0.3  # of what is coloured, metres
_HORIZON = 28  # row of the picture


class Seen(NamedTuple):
    """What a step brings."""

    picture: UInt8[np.ndarray, "64 64 3"]  # without the border
    asked: int  # number of the colour that is asked for
    reward: float


@dataclass(frozen=True, eq=False)
class Plan:
    """What is so: which cells are open, and where each colour is."""

    open: Bool[np.ndarray, "9 9"]  # by x and y
    things: Float[np.ndarray, "3 2"]  # metres

    def free(self, points: Float[Tensor, "point 2"]) -> Float[Tensor, "point"]:
        """Whether each point is in an open cell: 1 or 0."""
        cell = np.floor(points.numpy()).astype(int)
        inside = ((cell >= 0) & (cell < SIDE)).all(1)
        x, y = cell.clip(0, SIDE - 1).T
        return torch.from_numpy(inside & self.open[x, y]).float()

    def ways(self) -> Int[np.ndarray, "cells cells"]:
        """The next cell on a shortest way to each cell (first) from each (second); negative where there is none."""
        cells = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
        right, up = self.open[:-1] & self.open[1:], self.open[:, :-1] & self.open[:, 1:]
        start = np.concatenate([cells[:-1][right], cells[:, :-1][up]])
        end = np.concatenate([cells[1:][right], cells[:, 1:][up]])
        graph = csr_matrix((np.ones(len(start)), (start, end)), shape=(cells.size,) * 2)
        return shortest_path(graph, directed=False, unweighted=True, return_predecessors=True)[1]


class Walkable(Protocol):
    """A maze that can be walked in."""

    plan: Plan
    first: Seen

    def step(self, action: int) -> Seen:
        """Do one of ``MOVES``."""
        ...

    @property
    def camera(self) -> Float[np.ndarray, "4 4"]:
        """Camera to world, metres: the camera's x is right, y down and z ahead; the world's z is up."""
        ...


class MemoryMaze:
    """The task, one episode after another. ``ValueError`` where it is not installed."""

    def __init__(self, seed: int) -> None:
        with contextlib.redirect_stderr(io.StringIO()):  # gym says on import that gymnasium took its place
            tasks = needed("memory_maze.tasks", NAME, EXTRA)
        self._env = tasks.memory_maze_9x9(seed=seed, discrete_actions=True, global_observables=True)
        self.plan: Plan
        self.first: Seen
        self.reset()

    def reset(self) -> None:
        """Begin an episode in another maze."""
        step = self._env.reset()
        seen = step.observation
        # Both count in cells already; the colours of 9x9 are always these three.
        self.plan = Plan(np.asarray(seen["maze_layout"], bool).T, np.asarray(seen["targets_pos"]))
        self.first = _seen(step)

    def close(self) -> None:
        """Give back what draws it."""
        self._env.close()

    def step(self, action: int) -> Seen:
        """Do one of ``MOVES``."""
        return _seen(self._env.step(action))

    def walk(self, action: int) -> None:
        """The same motion, while nothing is asked for: two thirds of a step go into watching what is touched."""
        self.physics.set_control([-MOVES[action][0], -MOVES[action][1]])
        self.physics.step(_REPEAT)

    def look(self) -> tuple[UInt8[np.ndarray, "64 64 3"], Float[np.ndarray, "64 64"]]:
        """The picture without its border, and how far along the camera's axis each pixel is (m); 0 for the sky."""
        seen, far = (self.physics.render(SIZE, SIZE, camera_id=_CAMERA, depth=depth) for depth in (False, True))
        return inside(seen), np.where(far * _SCALE < _FAR, far * _SCALE, 0.0)

    @property
    def physics(self) -> Any:
        """The simulator."""
        return self._env.physics

    @property
    def camera(self) -> Float[np.ndarray, "4 4"]:
        """Camera to world, metres: the camera's x is right, y down and z ahead; the world's z is up."""
        data, pose = self.physics.named.data, np.eye(4)
        pose[:3, :3] = data.cam_xmat[_CAMERA].reshape(3, 3) * (1.0, -1.0, -1.0)  # theirs looks back, and up is up
        pose[:3, 3] = data.cam_xpos[_CAMERA] * _SCALE + (SIDE / 2, SIDE / 2, 0.0)
        return pose


def inside(frame: UInt8[np.ndarray, "64 64 3"]) -> UInt8[np.ndarray, "64 64 3"]:
    """A frame, what is next to its border in place of it."""
    within = slice(_BORDER, -_BORDER)
    return np.pad(frame[within, within], ((_BORDER, _BORDER), (_BORDER, _BORDER), (0, 0)), mode="edge")


def asked(frame: UInt8[np.ndarray, "64 64 3"]) -> int:
    """The number of the colour that a frame's border has."""
    return int(np.abs(frame[0].mean(0) - _RGB).sum(1).argmin())


def planar(camera: Float[np.ndarray, "*batch 4 4"]) -> Float[np.ndarray, "*batch 3"]:
    """x, y and heading of a camera."""
    ahead = camera[..., :2, 2]
    return np.stack([camera[..., 0, 3], camera[..., 1, 3], np.arctan2(ahead[..., 1], ahead[..., 0])], -1)


def shown(episode: Episode, columns: int) -> Float[np.ndarray, "steps column 3"]:
    """How far along the camera's axis each colour is that a column of a walk shows (m); 0 where it does not."""
    assert episode.truth is not None
    assert episode.depth is not None
    pose, things = episode.truth[:, None, :3], episode.truth[:, 3:].reshape(len(episode), -1, 2)
    apart, (cos, sin) = things - pose[..., :2], (np.cos(pose[..., 2]), np.sin(pose[..., 2]))
    ahead = (apart[..., 0] * cos + apart[..., 1] * sin)[:, None]
    left = (apart[..., 1] * cos - apart[..., 0] * sin)[:, None]
    aside = HALF * (1 - (np.arange(columns) + 0.5) * (2 / columns))[:, None]
    within = np.abs(left - aside * ahead) < _RADIUS * np.sqrt(1 + aside**2)
    wall = np.median(episode.depth[:, _HORIZON].reshape(len(episode), columns, -1), -1)[..., None]
    return np.where(within & (ahead > _RADIUS) & (wall > ahead - _RADIUS), ahead, 0.0)


def told(actions: Int[np.ndarray, "steps"], before: int = 0) -> Float[np.ndarray, "steps 4"]:
    """Actions by their numbers as the embodiment has them; ``before`` is what was done before the first."""
    done = np.array(MOVES, np.float32)[np.concatenate([[before], actions])]
    return np.concatenate([done[1:], done[:-1]], 1)


def nearest(wish: Float[np.ndarray, "2"]) -> int:
    """The number of the move for what is wished: ahead and to the left, shares of a step.

    Half a turn to be made is not worth a stop: who stops for it turns too far, and back again, for ever.
    """
    ahead, left = wish[0] > _AHEAD, abs(wish[1]) > 0.5
    return MOVES.index((int(ahead), int(np.sign(wish[1]) * left)))


def steer(pose: Float[np.ndarray, "3"], place: Float[np.ndarray, "2"]) -> int:
    """The move that brings one nearer to a place in plain sight."""
    apart = place - pose[:2]
    off = (np.arctan2(apart[1], apart[0]) - pose[2] + np.pi) % (2 * np.pi) - np.pi
    return nearest(np.array([float(abs(off) < 2 * TURN), np.clip(off / TURN, -1, 1)]))


class Wanderer:
    """Who knows the maze, and goes from place to place, to seldom seen ones first, and looks round at some."""

    def __init__(self, plan: Plan, rng: np.random.Generator) -> None:
        self.plan, self.rng, self.ways = plan, rng, plan.ways()
        self.visits = np.zeros(SIDE * SIDE)
        self.goal, self.spin = -1, 0

    def choose(self, pose: Float[np.ndarray, "3"]) -> int:
        """The next move."""
        x, y = np.floor(pose[:2]).clip(0, SIDE - 1).astype(int)
        cell = int(x * SIDE + y)
        self.visits[cell] += 0.1
        there = self.goal == cell and bool(np.abs(pose[:2] - _middle(cell)).max() < _THERE)
        if self.goal < 0 or (there and not self.spin):
            self._next(cell)
        if self.rng.random() < _SLIPS:
            return int(self.rng.integers(len(MOVES)))
        if there and self.spin:
            self.spin -= int(np.sign(self.spin))
            return nearest(np.array([0.0, np.sign(self.spin)]))
        return steer(pose, _middle(cell if self.goal == cell else int(self.ways[self.goal, cell])))

    def _next(self, cell: int) -> None:
        reachable = self.ways[:, cell] >= 0
        seldom = np.where(reachable, self.rng.random(len(self.visits)) - self.visits, -np.inf)
        self.goal = int(seldom.argmax())
        if self.rng.random() < _VISITS:
            x, y = np.floor(self.rng.choice(self.plan.things)).astype(int)
            self.goal = int(x * SIDE + y)
        self.spin = int(self.rng.choice([-20, 20])) if self.rng.random() < _LOOKS else 0


def collect(episodes: int, steps: int, seed: int) -> list[Episode]:
    """Record walks of ``steps`` pictures, each through a maze of its own, with depth and pose."""
    refuse_few(episodes, steps)
    maze = MemoryMaze(seed)
    return [_walk(maze, steps, (seed, number), f"{NAME}/seed-{seed}/{number}") for number in range(episodes)]


def _walk(maze: MemoryMaze, steps: int, key: tuple[int, int], source: str) -> Episode:
    maze.reset()
    who, seen, cameras, actions = Wanderer(maze.plan, np.random.default_rng(key)), [maze.look()], [maze.camera], []
    for _ in range(steps - 1):
        actions.append(who.choose(planar(cameras[-1])))
        maze.walk(actions[-1])
        seen.append(maze.look())
        cameras.append(maze.camera)
    video, depth = (np.stack(each) for each in zip(*seen, strict=True))
    things = np.tile(maze.plan.things.ravel(), (steps, 1))
    return Episode(
        times=np.arange(steps) * EMBODIMENT.step_seconds,
        video=video,
        depth=depth.astype(np.float32),
        pose=np.stack(cameras).astype(np.float32),
        intrinsics=intrinsics(),
        actions=told(np.array(actions)),
        truth=np.concatenate([planar(np.stack(cameras)), things], 1),
        source=source,
    )


def intrinsics() -> Float[np.ndarray, "4"]:
    """fx fy cx cy, pixels."""
    focal = SIZE / 2 / HALF
    return np.array([focal, focal, SIZE / 2, SIZE / 2])


def _seen(step: Any) -> Seen:
    frame = step.observation["image"]
    return Seen(inside(frame), asked(frame), float(step.reward or 0.0))


def _middle(cell: int) -> Float[np.ndarray, "2"]:
    return np.array([cell // SIDE, cell % SIDE]) + 0.5
