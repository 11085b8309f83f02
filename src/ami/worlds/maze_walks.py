"""Mazes drawn at random, walks through them that come back again and again, and both as experience."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import minimum_spanning_tree, shortest_path

from ami.data.episodes import Episode
from ami.worlds.maze import COLOURS, EMBODIMENT, NAME, STRIDE, TURN, Mazes, intrinsics, pose_matrix
from ami.worlds.task import refuse_few

TRUTH = ("x", "y", "heading")  # metres, radians
_OPEN = 0.3  # share of the walls left by the tree that are taken away
_MARKERS, _POSTS = 0.6, 4  # markers for each cell; posts in a maze
_LIGHT = 0.7, 1.2  # of a wall
_LOOKS, _BUMPS = 0.5, 0.3  # chances to look round at a place that was gone to, and to walk straight on from there
_ON = 6  # steps straight on, through the next opening or against a wall


def sample(count: int, rng: np.random.Generator, wide: int = 5, high: int = 5, gate: bool = False) -> Mazes:
    """Every cell can be reached. With ``gate``, the two halves in x are joined by one opening only."""
    across, along = np.ones((count, wide + 1, high), bool), np.ones((count, wide, high + 1), bool)
    for shut_x, shut_y in zip(across, along, strict=True):
        _open(shut_x, shut_y, rng, wide // 2 if gate else None)
    across_paint, along_paint = np.zeros((*across.shape, 2), int), np.zeros((*along.shape, 2), int)
    for row in range(count):
        _paint((across[row], along[row]), (across_paint[row], along_paint[row]), rng, round(_MARKERS * wide * high))
    cells = np.stack([rng.permutation(wide * high)[:_POSTS] for _ in range(count)])
    corner = rng.choice([0.3, 0.7], (count, _POSTS, 2))
    colours = np.stack([rng.permutation(len(COLOURS))[:_POSTS] + 1 for _ in range(count)])
    tint = rng.uniform(0.85, 1.15, (count, 2, 3))
    return Mazes(
        across,
        along,
        across_paint,
        along_paint,
        np.stack([cells // high, cells % high], -1) + corner,
        colours,
        rng.uniform(*_LIGHT, across.shape).astype(np.float32),
        rng.uniform(*_LIGHT, along.shape).astype(np.float32),
        (np.array([[165.0], [125.0]]) * tint).astype(np.float32),
        (np.array([[60.0], [95.0]]) * rng.uniform(0.85, 1.15, (count, 2, 3))).astype(np.float32),
    )


def _open(across: np.ndarray, along: np.ndarray, rng: np.random.Generator, middle: int | None) -> None:
    """A spanning tree of random weights, and some openings more."""
    wide, high = along.shape[0], across.shape[1]
    cells = np.arange(wide * high).reshape(wide, high)
    pairs = np.concatenate(
        [
            np.stack([cells[:-1].ravel(), cells[1:].ravel()], 1),
            np.stack([cells[:, :-1].ravel(), cells[:, 1:].ravel()], 1),
        ]
    )
    weight = rng.uniform(1.0, 2.0, len(pairs))
    between = np.zeros(len(pairs), bool)
    if middle is not None:
        between[: (wide - 1) * high] = pairs[: (wide - 1) * high, 0] // high == middle - 1
        weight[between] += 2.0  # so that the tree goes through one of them
    tree = minimum_spanning_tree(csr_matrix((weight, pairs.T), shape=(wide * high,) * 2)).tocoo()
    joined = set(zip(tree.row.tolist(), tree.col.tolist(), strict=True))
    in_tree = np.array([tuple(pair) in joined for pair in pairs.tolist()])
    free = in_tree | (~between & (rng.random(len(pairs)) < _OPEN))
    across[1:-1] = ~free[: (wide - 1) * high].reshape(wide - 1, high)
    along[:, 1:-1] = ~free[(wide - 1) * high :].reshape(wide, high - 1)


def _paint(
    walls: tuple[np.ndarray, np.ndarray], paint: tuple[np.ndarray, np.ndarray], rng: np.random.Generator, count: int
) -> None:
    """Markers on sides of walls that can be seen from inside."""
    sides = []
    for which, shut in enumerate(walls):
        last = shut.shape[which] - 1
        for i, j in np.argwhere(shut).tolist():
            line = (i, j)[which]
            sides += [(which, i, j, side) for side in (0, 1) if (line, side) not in ((0, 0), (last, 1))]
    for place in rng.permutation(len(sides))[:count].tolist():
        which, i, j, side = sides[place]
        paint[which][i, j, side] = rng.integers(1, len(COLOURS) + 1)


def ways(mazes: Mazes) -> Int[np.ndarray, "batch cells cells"]:
    """The next cell on a shortest way to each cell (first) from each (second); -1 where one is there."""
    wide, high = mazes.size
    cells = np.arange(wide * high).reshape(wide, high)
    found = np.empty((len(mazes), cells.size, cells.size), int)
    for row in range(len(mazes)):
        right, up = ~mazes.across[row, 1:-1], ~mazes.along[row, :, 1:-1]
        pairs = np.concatenate(
            [
                np.stack([cells[:-1][right], cells[1:][right]], 1),
                np.stack([cells[:, :-1][up], cells[:, 1:][up]], 1),
            ]
        )
        graph = csr_matrix((np.ones(len(pairs)), pairs.T), shape=(cells.size,) * 2)
        _, before = shortest_path(graph, directed=False, unweighted=True, return_predecessors=True)
        found[row] = before  # on the way from the goal: undirected, so what comes before a cell is where to go next
    return np.where(found < 0, -1, found)


def walk(
    mazes: Mazes,
    start: Float[np.ndarray, "batch 3"],
    steps: int,
    rng: np.random.Generator,
    within: Bool[np.ndarray, "batch cells"] | None = None,
) -> tuple[Float[np.ndarray, "batch steps+1 3"], Float[np.ndarray, "batch steps 2"]]:
    """Go to one place ``within`` after another, by shortest ways: poses, and the actions between them.

    Where one has seldom been is gone to first. At some places one looks round; from some one walks straight on, for
    what a wall does to who walks against it has to be seen as well.
    """
    high, count, row = mazes.size[1], len(mazes), np.arange(len(mazes))
    following, pose = ways(mazes), start
    target, spin, on = np.full(count, -1), np.zeros(count), np.zeros(count)
    poses, actions, aim = [pose], [], rng.uniform(-0.12, 0.12, (count, 2))
    visits = np.zeros(following.shape[:2])
    for _ in range(steps):
        cell = np.floor(pose[:, 0]).astype(int) * high + np.floor(pose[:, 1]).astype(int)
        centre = np.stack([cell // high, cell % high], 1) + 0.5 + aim
        there = (target == cell) & (np.abs(pose[:, :2] - centre).max(1) < 0.2)
        done = (there & (spin == 0)) | (target < 0) | ((target != cell) & (following[row, target, cell] < 0))
        done &= on == 0
        visits[row, cell] += 0.1
        seldom = rng.random(visits.shape) - visits
        reachable = (following[row, :, cell] >= 0) & (True if within is None else within)
        target = np.where(done, np.where(reachable, seldom, -np.inf).argmax(1), target)
        chance = rng.random(count)
        spin = np.where(done, np.where(chance < _LOOKS, rng.choice([-14, 14], count), 0), spin)
        on = np.where(done & (chance > 1 - _BUMPS) & (within is None), _ON, on)
        aim = np.where(done[:, None], rng.uniform(-0.12, 0.12, (count, 2)), aim)
        onward = np.where(target == cell, cell, following[row, target, cell])
        goal = np.stack([onward // high, onward % high], 1) + 0.5 + aim
        apart = goal - pose[:, :2]
        off = _wrapped(np.arctan2(apart[:, 1], apart[:, 0]) - pose[:, 2])
        round_ = there & (spin != 0)
        turn = np.where(round_, np.sign(spin) * 0.9, np.clip(off / TURN, -1, 1))
        ahead = np.where(round_ | (np.abs(off) > 0.9), 0.0, np.clip(np.hypot(*apart.T) / STRIDE, 0.2, 1))
        spin = np.where(round_, spin - np.sign(spin), spin)
        turn, ahead, on = np.where(on > 0, 0.0, turn), np.where(on > 0, 1.0, ahead), np.maximum(on - 1, 0)
        action = np.clip(np.stack([ahead, turn], 1) + rng.normal(0, 0.12, (count, 2)), -1, 1).astype(np.float32)
        pose = mazes.move(pose, action, rng)
        poses.append(pose)
        actions.append(action)
    return np.stack(poses, 1), np.stack(actions, 1)


def starts(mazes: Mazes, rng: np.random.Generator, within: np.ndarray | None = None) -> Float[np.ndarray, "batch 3"]:
    """The middle of some cell, looking anywhere."""
    wide, high = mazes.size
    odds = rng.random((len(mazes), wide * high)) * (1.0 if within is None else within)
    cell = odds.argmax(1)
    return np.stack([cell // high + 0.5, cell % high + 0.5, rng.uniform(-np.pi, np.pi, len(mazes))], 1)


def collect(episodes: int, steps: int, seed: int) -> list[Episode]:
    """Record walks of ``steps`` pictures, each through a maze of its own, with depth and pose."""
    refuse_few(episodes, steps)
    rng = np.random.default_rng(seed)
    mazes = sample(episodes, rng)
    poses, actions = walk(mazes, starts(mazes, rng), steps - 1, rng)
    shown = [mazes.look(poses[:, step])[:2] for step in range(steps)]
    video, depth = (np.stack(each, 1) for each in zip(*shown, strict=True))
    times, camera = np.arange(steps) * EMBODIMENT.step_seconds, pose_matrix(poses)
    return [
        Episode(
            times=times,
            video=video[row],
            depth=depth[row],
            pose=camera[row].astype(np.float32),
            intrinsics=intrinsics(),
            actions=actions[row],
            truth=poses[row],
            source=f"{NAME}/seed-{seed}/{row}",
        )
        for row in range(episodes)
    ]


def _wrapped(angle: np.ndarray) -> np.ndarray:
    return (angle + np.pi) % (2 * np.pi) - np.pi
