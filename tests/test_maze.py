"""The maze: what is seen agrees with where it is seen from, walls stop who walks, and walks come everywhere again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ami.data.episodes import Store
from ami.worlds import gym, maze, maze_walks
from ami.worlds.maze import SIZE, Mazes


def empty(posts: list[tuple[float, float]]) -> Mazes:
    """One hall of 5 x 5 metres with red posts, and a green marker on its far wall in x."""
    across, along = np.zeros((1, 6, 5), bool), np.zeros((1, 5, 6), bool)
    across[:, [0, -1]], along[:, :, [0, -1]] = True, True
    paint = np.zeros((1, 6, 5, 2), int)
    paint[0, 5, 2, 0] = 2
    grey = np.full((1, 2, 3), 100, np.float32)
    colours = np.ones((1, len(posts)), int)
    return Mazes(
        across,
        along,
        paint,
        np.zeros((1, 5, 6, 2), int),
        np.array([posts]),
        colours,
        np.ones((1, 6, 5)),
        np.ones((1, 5, 6)),
        grey,
        grey,
    )


def test_depth_is_that_of_the_closed_form() -> None:
    picture, depth, seen = empty([(3.0, 2.0)]).look(np.array([[1.0, 2.5, 0.0]]))
    rows = (np.arange(SIZE) + 0.5) / 32 - 1
    assert depth[0, 31, 10] == pytest.approx(2.5 / abs(rows[10]), abs=0.01)  # the wall beside, y = 5
    assert depth[0, 60, 5] == pytest.approx(0.5 / rows[60], rel=1e-5)  # the floor
    assert depth[0, 33, 40] == pytest.approx(2 - 0.18, abs=0.02)  # the post, half a metre to the right
    assert seen.wall[0, 31] == pytest.approx(4.0, abs=1e-5)
    assert picture[0, 33, 40].argmax() == 0  # red
    assert picture[0, 32, 31].argmax() == 1  # green


def test_points_of_two_views_lie_on_the_same_walls() -> None:
    episode = maze_walks.collect(1, 6, seed=3)[0]
    assert episode.depth is not None
    assert episode.pose is not None
    at = (np.arange(SIZE) + 0.5 - 32) / 32
    for depth, pose in zip(episode.depth, episode.pose, strict=True):
        rays = np.stack(
            [np.broadcast_to(at, (SIZE, SIZE)), np.broadcast_to(at[:, None], (SIZE, SIZE)), np.ones((SIZE, SIZE))], -1
        )
        points = (rays * depth[..., None]) @ pose[:3, :3].T + pose[:3, 3]
        height = points[..., 2]
        assert ((height > -1e-3) & (height < 1 + 1e-3)).all()
        walls = points[31][depth[31] > 0]  # level with the eye: on a wall, whose x or y is whole, or on a post
        off = np.abs(walls[:, :2] - walls[:, :2].round()).min(1)
        assert (off < 1e-3).mean() > 0.5


def test_nobody_walks_through_walls() -> None:
    rng = np.random.default_rng(0)
    mazes = maze_walks.sample(20, rng)
    poses, _ = maze_walks.walk(mazes, maze_walks.starts(mazes, rng), 200, rng)
    before, after = np.floor(poses[:, :-1, :2]).astype(int), np.floor(poses[:, 1:, :2]).astype(int)
    row = np.arange(20)[:, None]
    moved = after[..., 0] - before[..., 0]
    line = np.maximum(before[..., 0], after[..., 0])
    assert (np.abs(poses[..., :2] - 2.5) <= 2.301).all()
    assert not (mazes.across[row, line, before[..., 1]] & (moved != 0)).any()


def test_some_walk_against_walls_and_stand() -> None:
    rng = np.random.default_rng(3)
    mazes = maze_walks.sample(20, rng)
    poses, actions = maze_walks.walk(mazes, maze_walks.starts(mazes, rng), 200, rng)
    made = np.linalg.norm(np.diff(poses[..., :2], axis=1), axis=-1)
    meant = maze.STRIDE * actions[..., 0]
    stopped = (meant > 0.2) & (made < 0.1)
    assert 0.01 < stopped.mean() < 0.1


def test_a_walk_goes_everywhere_and_comes_back_and_stays_within() -> None:
    rng = np.random.default_rng(1)
    mazes = maze_walks.sample(8, rng, 10, 5, gate=True)
    half = np.arange(50) < 25
    within = np.broadcast_to(half, (8, 50))
    poses, _ = maze_walks.walk(mazes, maze_walks.starts(mazes, rng), 600, rng)
    cells = (np.floor(poses[..., 0]) * 5 + np.floor(poses[..., 1])).astype(int)
    assert np.mean([len(set(each)) for each in cells.tolist()]) > 30
    inside, _ = maze_walks.walk(mazes, maze_walks.starts(mazes, rng, within), 200, rng, within)
    assert (inside[..., 0] < 5).all()


def test_a_gate_is_the_only_way_between_two_halves() -> None:
    mazes = maze_walks.sample(10, np.random.default_rng(2), 10, 5, gate=True)
    assert ((~mazes.across[:, 5]).sum(1) == 1).all()
    assert (maze_walks.ways(mazes)[:, 0] >= 0).sum(1).min() == 49  # all but the cell itself


def test_an_edge_is_put_and_taken_by_its_number() -> None:
    mazes = maze_walks.sample(3, np.random.default_rng(2))
    walls, middles = maze.edges(mazes)
    number = np.array([7, 33, 40])
    other = maze.with_edge(mazes, number, ~walls[np.arange(3), number])
    changed = maze.edges(other)[0] != walls
    assert changed[np.arange(3), number].all()
    assert changed.sum() == 3
    assert middles.shape == (walls.shape[1], 3)


def test_the_column_says_which_edge_it_shows() -> None:
    hall = empty([(1.0, 1.0)])
    seen = hall.look(np.array([[2.5, 2.5, 0.0]]))[2]
    assert np.allclose(maze.edges(hall)[1][seen.face[0, 31] // 2], [5, 2.5, 0])


def test_it_is_recorded_by_name(tmp_path: Path) -> None:
    first, again = (gym.record("maze", 2, 5, 7) for _ in range(2))
    assert [each.digest for each in first.episodes] == [each.digest for each in again.episodes]
    assert first.embodiment.name == "maze"
    store = Store.create(tmp_path / "s", first.embodiment, first.truth_names)
    store.append(first.episodes)
    assert store.clips(np.array([[0, 0]]), 3).pose is not None
    with pytest.raises(ValueError, match="at least 1 of 2 steps"):
        maze_walks.collect(1, 1, 0)
