"""Two Rooms: a disc, a dividing wall with a door, seen from above; vectorised over any number of rooms.

Units are pixels of the 64 x 64 picture, x to the right and y down. The agent's centre moves in [6, 58]², at most 2 px
per environment step; the wall blocks a 7 px band except at a 7.5 px door. What is drawn agrees with that: a disc of
radius 2.5 px, a wall 2 px thick, an opening of 12.5 px. The geometry follows the Two Rooms task of Sobal et al. 2025
(PLDM), sizes as stated here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ami.data.episodes import Episode
from ami.types import Embodiment

SIZE = 64
LOW, HIGH = 6.0, 58.0  # where the agent's centre may be
BAND = 3.5  # half of the width that the wall blocks
GAP = 3.75  # half of the width that the door leaves
ROUNDING = 1e-4  # px: who leans on the wall is not inside it, also where the position was kept as a float32
RADIUS = BAND - 1.0  # the drawn wall is 2 px thick, so the disc takes up the rest
SPEED = 2.0  # px per environment step
REPEAT = 4  # environment steps in a model step: the action is held
SECONDS = 0.1  # of one environment step
FAMILIES = ("fixed", "door", "wall")
SEALED = "sealed"  # as ``wall``, with every door shut: asked to see whether a planner says that there is no way
REVISITED = "revisited"  # as ``wall``, every sixth without a door, and each walked WALKS times from anywhere
WALKS = 2
SHUT = -SIZE  # px: the place of a door that is not there, so far outside that it neither opens nor is drawn
FLOOR, WALL, AGENT = (np.array(c, np.float32) for c in ((236, 233, 225), (44, 54, 74), (222, 62, 40)))

EMBODIMENT = Embodiment("two-rooms", step_seconds=REPEAT * SECONDS, low=(-1.0, -1.0), high=(1.0, 1.0))
TRUTH = ("agent_x", "agent_y", "wall_x", "door_y")


@dataclass(frozen=True)
class Rooms:
    """The layouts of many rooms: where each dividing wall stands, and the centre of its door."""

    wall: np.ndarray  # (rooms,) px
    door: np.ndarray  # (rooms,) px; SHUT where there is none

    def __len__(self) -> int:
        return len(self.wall)

    def rows(self, index: np.ndarray | slice) -> Rooms:
        """Some of the rooms."""
        return Rooms(self.wall[index], self.door[index])

    def repeat(self, times: int) -> Rooms:
        """Every room ``times`` times, copies side by side."""
        return Rooms(self.wall.repeat(times), self.door.repeat(times))

    def move(self, position: np.ndarray, action: np.ndarray) -> np.ndarray:
        """One environment step: positions ``(rooms, 2)`` and actions ``(rooms, 2)`` to new positions.

        An action longer than 1 is shortened to 1. Walls slide: first x moves, then y, and each stops at what it meets.
        """
        (x, y), (right, down) = position.T, action.T
        pace = SPEED / np.maximum(np.sqrt(right * right + down * down), 1.0)
        to_x, to_y = np.clip(x + pace * right, LOW, HIGH), np.clip(y + pace * down, LOW, HIGH)
        in_band = np.abs(to_x - self.wall) < BAND
        through = np.abs(y - self.door) <= GAP + ROUNDING
        stop = np.where(x < self.wall, self.wall - BAND, self.wall + BAND)
        to_x = np.where(in_band & ~through, stop, to_x)
        to_y = np.where(in_band & through, np.clip(to_y, self.door - GAP, self.door + GAP), to_y)
        return np.stack([to_x, to_y], axis=-1)

    def step(self, position: np.ndarray, action: np.ndarray) -> np.ndarray:
        """One model step: the action held for ``REPEAT`` environment steps. Positions ``(REPEAT, rooms, 2)``."""
        passed = []
        for _ in range(REPEAT):
            position = self.move(position, action)
            passed.append(position)
        return np.stack(passed)

    def side(self, position: np.ndarray) -> np.ndarray:
        """Which room each position is in: -1 left, 1 right, 0 in the doorway."""
        return np.where(np.abs(position[:, 0] - self.wall) < BAND, 0, np.sign(position[:, 0] - self.wall))

    def distance(self, start: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """Length in px of the shortest way between positions ``(rooms, 2)``; through the door where they need it.

        Infinite from one room to the other where the door is shut.
        """
        leftwards = (start[:, 0] > goal[:, 0])[:, None]
        a, b = np.where(leftwards, goal, start), np.where(leftwards, start, goal)
        # A way from left to right crosses the two ends of the doorway, each at a height inside the gap. An end that
        # does not lie between a and b is moved to the nearer of them, where it asks for nothing.
        ends = []
        for x in (self.wall - BAND + ROUNDING, self.wall + BAND - ROUNDING):
            before, after = x < a[:, 0], x > b[:, 0]
            at = np.where(before, a[:, 1], b[:, 1])
            low, high = (np.where(before | after, at, self.door + gap) for gap in (-GAP, GAP))
            ends.append((np.clip(x, a[:, 0], b[:, 0]), low, high))
        (near, *_), (far, *_) = ends
        straight = _height(a, b, near), _height(a, b, far)
        ways = [(np.clip(straight[0], *ends[0][1:]), np.clip(straight[1], *ends[1][1:]))]
        # The shortest way is straight or bends at a corner; from that corner on it is straight, or bends once more.
        for corner in ends[0][1:]:
            ways.append((corner, np.clip(_height(np.stack([near, corner], -1), b, far), *ends[1][1:])))
        for corner in ends[1][1:]:
            ways.append((np.clip(_height(a, np.stack([far, corner], -1), near), *ends[0][1:]), corner))
        lengths = []
        for first, second in ways:
            points = np.stack([a, np.stack([near, first], -1), np.stack([far, second], -1), b])
            lengths.append(np.linalg.norm(np.diff(points, axis=0), axis=-1).sum(0))
        parted = (self.door == SHUT) & ((start[:, 0] < self.wall) != (goal[:, 0] < self.wall))
        return np.where(parted, np.inf, np.min(lengths, axis=0))

    def render(self, position: np.ndarray) -> np.ndarray:
        """Pictures ``(rooms, 64, 64, 3)`` uint8 with anti-aliased edges, so that a tenth of a pixel shows."""
        return draw_agent(self.background(), position)

    def background(self) -> np.ndarray:
        """The rooms without an agent, ``(rooms, 64, 64, 3)`` uint8."""
        pixel = np.arange(SIZE, dtype=np.float32)
        outer = _covered(pixel, LOW - RADIUS, HIGH + RADIUS)
        floor = outer[:, None] * outer[None, :]
        column = _covered(pixel, (self.wall - 1.0)[:, None], (self.wall + 1.0)[:, None])
        closed = 1.0 - _covered(pixel, (self.door - GAP - RADIUS)[:, None], (self.door + GAP + RADIUS)[:, None])
        floor = floor * (1.0 - closed[:, :, None] * column[:, None, :])
        return (WALL + floor[..., None].astype(np.float32) * (FLOOR - WALL) + 0.5).astype(np.uint8)


def draw_agent(background: np.ndarray, position: np.ndarray) -> np.ndarray:
    """The agent's disc at ``position`` ``(n, 2)`` over pictures ``(n, 64, 64, 3)``, which are left as they were."""
    picture = background.copy()
    corner = np.floor(position).astype(int) - 4
    offset = np.arange(8)
    column, row = corner[:, :1] + offset, corner[:, 1:] + offset
    from_centre = np.hypot((row + 0.5 - position[:, 1:])[:, :, None], (column + 0.5 - position[:, :1])[:, None, :])
    alpha = np.clip(RADIUS + 0.5 - from_centre, 0.0, 1.0).astype(np.float32)[..., None]
    where = np.arange(len(picture))[:, None, None], row[:, :, None], column[:, None, :]
    picture[where] = (picture[where] * (1.0 - alpha) + AGENT * alpha + 0.5).astype(np.uint8)
    return picture


def _height(a: np.ndarray, b: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Where the line from ``a`` to ``b`` passes ``x``; its beginning, where it goes straight up."""
    run = b[:, 0] - a[:, 0]
    share = np.divide(x - a[:, 0], run, out=np.zeros_like(run), where=run != 0)
    return a[:, 1] + share * (b[:, 1] - a[:, 1])


def _covered(pixel: np.ndarray, low: np.ndarray | float, high: np.ndarray | float) -> np.ndarray:
    """How much of each pixel's unit interval lies in [low, high]."""
    return np.clip(np.minimum(pixel + 1.0, high) - np.maximum(pixel, low), 0.0, 1.0)


def sample_rooms(family: str, count: int, rng: np.random.Generator) -> Rooms:
    """Layouts of one family: ``fixed``, ``door`` (its place is random) or ``wall`` (so is the column, ± 10 px).

    ``sealed`` draws the layouts of ``wall`` and shuts their doors: the same seed gives twins that differ in that alone.
    """
    if family not in (*FAMILIES, SEALED):
        raise ValueError(f"unknown family of rooms '{family}'; there are {', '.join((*FAMILIES, SEALED))}")
    wall, door = np.full(count, SIZE / 2), np.full(count, SIZE / 2)
    if family != "fixed":
        door = rng.uniform(LOW + 2 * GAP, HIGH - 2 * GAP, count)
    if family in ("wall", SEALED):
        wall = wall + rng.uniform(-10.0, 10.0, count)
    return Rooms(wall, np.full(count, float(SHUT)) if family == SEALED else door)


def sample_positions(rooms: Rooms, rng: np.random.Generator, side: np.ndarray | None = None) -> np.ndarray:
    """Places outside the doorway, uniform over the free floor; ``side`` (-1 or 1 each) asks for one of the rooms."""
    left, right = rooms.wall - BAND - LOW, HIGH - rooms.wall - BAND
    if side is None:
        side = np.where(rng.uniform(size=len(rooms)) * (left + right) < left, -1, 1)
    along = rng.uniform(size=len(rooms))
    x = np.where(side < 0, LOW + along * left, HIGH - along * right)
    return np.stack([x, rng.uniform(LOW, HIGH, len(rooms))], axis=-1)


def sample_pairs(
    family: str, count: int, rng: np.random.Generator, *, cross_room: bool, apart: float = 9.0
) -> tuple[Rooms, np.ndarray, np.ndarray]:
    """Rooms with a start and a goal each, at least ``apart`` px from one another (so that none starts solved)."""
    rooms = sample_rooms(family, count, rng)
    side = rng.choice((-1, 1), count)
    start = sample_positions(rooms, rng, side)
    goal = sample_positions(rooms, rng, -side if cross_room else side)
    while (near := rooms.distance(start, goal) < apart).any():
        goal[near] = sample_positions(rooms.rows(near), rng, (-side if cross_room else side)[near])
    return rooms, start, goal


def explore(rooms: Rooms, steps: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Wander: positions ``(steps, rooms, 2)`` and the actions ``(steps - 1, rooms, 2)`` between them.

    The heading drifts and the pace changes. After a bump the walker turns only sometimes: it must push walls often
    enough for a model to learn that they do not give way.
    """
    count = len(rooms)
    position = sample_positions(rooms, rng)
    heading = rng.uniform(-np.pi, np.pi, count)
    positions, actions = [position], []
    for _ in range(steps - 1):
        pace = rng.uniform(0.0, 1.3, count)
        action = np.clip(pace[:, None] * np.stack([np.cos(heading), np.sin(heading)], -1), -1.0, 1.0)
        to = rooms.step(position, action)[-1]
        expected = np.minimum(np.linalg.norm(action, axis=-1), 1.0) * SPEED * REPEAT
        bumped = np.linalg.norm(to - position, axis=-1) < 0.9 * expected
        turn = (bumped & (rng.uniform(size=count) < 0.3)) | (rng.uniform(size=count) < 0.05)
        drift = rng.normal(0.0, 0.35, count)
        heading = np.where(turn, rng.uniform(-np.pi, np.pi, count), heading + drift)
        positions.append(to)
        actions.append(action)
        position = to
    return np.stack(positions), np.stack(actions)


def collect(family: str, episodes: int, steps: int, seed: int) -> list[Episode]:
    """Record exploring walks, ``steps`` model steps long: one of each layout, or ``WALKS`` of each where ``revisited``.

    The walks of one layout share their ``place``.
    """
    rng = np.random.default_rng(seed)
    walks = WALKS if family == REVISITED else 1
    rooms = _layouts(family, -(-episodes // walks), rng).repeat(walks).rows(slice(episodes))
    positions, actions = explore(rooms, steps, rng)
    times = np.arange(steps) * EMBODIMENT.step_seconds
    background = rooms.background()
    recorded = []
    for i in range(episodes):
        truth = np.concatenate([positions[:, i], np.tile([rooms.wall[i], rooms.door[i]], (steps, 1))], axis=1)
        recorded.append(
            Episode(
                times=times,
                video=draw_agent(np.broadcast_to(background[i], (steps, SIZE, SIZE, 3)), positions[:, i]),
                actions=actions[:, i].astype(np.float32),
                truth=truth.astype(np.float32),
                source=f"two-rooms/{family}/seed-{seed}/{i}",
                place=f"two-rooms/{family}/seed-{seed}/layout-{i // walks}" if walks > 1 else "",
            )
        )
    return recorded


def _layouts(family: str, count: int, rng: np.random.Generator) -> Rooms:
    if family != REVISITED:
        return sample_rooms(family, count, rng)
    rooms = sample_rooms("wall", count, rng)
    return Rooms(rooms.wall, np.where(np.arange(count) % 6 == 5, float(SHUT), rooms.door))
