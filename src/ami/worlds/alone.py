"""One mover alone, for questions with one answer: it passes behind a screen, or a gust blows that might not have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from ami.data.episodes import Episode
from ami.worlds.scenes import Scenes, scenes
from ami.worlds.violations import EMBODIMENT, FRAMES, GUST, draw, truth

MIDDLE = 12  # the frame at which it is behind the middle of its screen, or at which a gust begins
DRAG = 0.0, 0.08
_BLOWS = 3  # frames


def behind_a_screen(count: int, rng: np.random.Generator) -> list[Episode]:
    """It goes straight on, slower and slower, and is out of sight at frame ``MIDDLE``."""
    scene = _alone(count, rng, hidden=True)
    return _episodes(scene, np.zeros((count, FRAMES - 1, 2)), rng, "behind-a-screen")


def in_the_wind(count: int, rng: np.random.Generator) -> tuple[list[Episode], list[Episode]]:
    """A gust blows from frame ``MIDDLE`` on; and the same films as they are when another one blows instead."""
    scene = _alone(count, rng, hidden=False)
    seed = rng.integers(2**32)
    blown = [
        _episodes(scene, _gusts(count, rng), np.random.default_rng(seed), "in-the-wind") for _ in ("so", "otherwise")
    ]
    return blown[0], blown[1]


def _alone(count: int, rng: np.random.Generator, *, hidden: bool) -> Scenes:
    scene, _ = scenes("inertia", count, rng, hidden=hidden, moving=False)
    stage = replace(scene.stage, moment=np.full(count, MIDDLE), drag=rng.uniform(*DRAG, count))
    return replace(scene, stage=stage)


def _gusts(count: int, rng: np.random.Generator) -> Float[np.ndarray, "films gaps 2"]:
    towards, strength = rng.uniform(-np.pi, np.pi, count), rng.uniform(0.2, GUST, count)
    blows = strength[:, None] * np.stack([np.cos(towards), np.sin(towards)], -1)
    since = np.arange(FRAMES - 1) - MIDDLE
    return blows[:, None] * ((since >= 0) & (since < _BLOWS))[None, :, None]


def _episodes(scene: Scenes, gusts: np.ndarray, rng: np.random.Generator, name: str) -> list[Episode]:
    video, told = draw((scene,), FRAMES, rng, gusts=gusts)[0], truth(scene, FRAMES, gusts)
    times = np.arange(FRAMES) * EMBODIMENT.step_seconds
    return [
        Episode(times=times, video=film, actions=blown, truth=each, source=f"{name}/{number}")
        for number, (film, blown, each) in enumerate(zip(video, gusts, told, strict=True))
    ]
