"""Small stores and settings with which a recipe runs in a second."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from ami.data.episodes import Episode, Store
from ami.data.robots import WIDOWX
from ami.data.video import FILM
from ami.objectives.prediction import PredictionSettings
from ami.recipes.baby import BabySettings
from ami.recipes.films import FilmSettings
from ami.recipes.spatial import SpatialSettings
from ami.worlds import cups, maze, maze_walks, rooms, tabletop, violations

TINY = BabySettings(
    precision="fp32",  # so that golden comparisons hold on any silicon
    steps=6,
    refine=6,
    unsure=0,
    clip=6,
    batch=8,
    small_batch=4,
    refine_batch=8,
    objective=PredictionSettings(rollout=3),
    films=FilmSettings(precision="fp32", steps=6, batch=4),
    spatial=SpatialSettings(steps=0),
)


def rooms_store(folder: Path, episodes: int = 10, steps: int = 20, family: str = "door") -> Store:
    """Walks in Two Rooms."""
    store = Store.create(folder, rooms.EMBODIMENT, rooms.TRUTH)
    store.append(rooms.collect(family, episodes, steps, seed=3))
    return store


def maze_store(folder: Path, walks: int = 6, steps: int = 14, seed: int = 0) -> Store:
    """Walks through mazes, with depth and poses."""
    store = Store.create(folder, maze.EMBODIMENT, maze_walks.TRUTH)
    store.append(maze_walks.collect(walks, steps, seed))
    return store


def table_store(folder: Path) -> Store:
    """What a camera that is moved saw, as ``tabletop`` holds it; of mazes, so that no MuJoCo is needed."""
    store = Store.create(folder, tabletop.EMBODIMENT)
    walks = maze_walks.collect(6, 8, seed=1)
    store.append([replace(walk, actions=tabletop.motions(walk.pose), proprio=None, truth=None) for walk in walks])
    return store


def life_store(folder: Path) -> Store:
    """Films of what can happen."""
    store = Store.create(folder, violations.EMBODIMENT, violations.TRUTH)
    store.append(violations.collect(8, 24, 0))
    return store


def game_store(folder: Path) -> Store:
    """Shell games."""
    store = Store.create(folder, cups.EMBODIMENT, cups.TRUTH)
    store.append(cups.collect(8, 32, 0))
    return store


def film_store(folder: Path, films: int = 2, frames: int = 30) -> Store:
    """A bright square that moves to the right over a background of its own."""
    store, rng = Store.create(folder, FILM), np.random.default_rng(4)
    made = []
    for number in range(films):
        video = np.broadcast_to(rng.integers(0, 120, (64, 64, 3), dtype=np.uint8), (frames, 64, 64, 3)).copy()
        for frame in range(frames):
            left = (2 * frame + 11 * number) % 54
            video[frame, 20:30, left : left + 10] = 230
        made.append(Episode(np.arange(frames) * FILM.step_seconds, video, source=f"film {number}"))
    store.append(made)
    return store


def robot_store(folder: Path, episodes: int = 6, frames: int = 10) -> Store:
    """A gripper, drawn as a square, that goes where its actions say."""
    store, rng = Store.create(folder, WIDOWX), np.random.default_rng(5)
    low, high = np.array(WIDOWX.low), np.array(WIDOWX.high)
    made = []
    for _ in range(episodes):
        actions = rng.uniform(low, high, (frames - 1, 7)).astype(np.float32)
        path = 32 + 100 * np.concatenate([np.zeros((1, 2)), actions[:, :2].cumsum(0)])
        video = np.full((frames, 64, 64, 3), 90, np.uint8)
        for frame, (x, y) in enumerate(np.clip(path, 5, 59).astype(int)):
            video[frame, y - 5 : y + 5, x - 5 : x + 5] = 200
        made.append(Episode(np.arange(frames) * WIDOWX.step_seconds, video, actions=actions))
    store.append(made)
    return store
