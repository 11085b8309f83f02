"""One mover alone, for questions with one answer: it passes behind a screen or stops there, or a gust blows or not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from ami.data.episodes import Episode
from ami.worlds.scenes import Scenes, scenes
from ami.worlds.violations import EMBODIMENT, FRAMES, GUST, draw, truth

MIDDLE = 12  # the frame at which it is behind the middle of its screen, or at which a gust begins
DRAG = 0.0, 0.08
STOPS = 0.1, 0.13  # the drag of what stops soon
SLOW = 0.8, 1.3  # px per frame, when it is first hidden
_BLOWS = 3  # frames


def behind_a_screen(count: int, rng: np.random.Generator) -> list[Episode]:
    """It goes straight on, slower and slower, and is out of sight at frame ``MIDDLE``."""
    scene = _alone(count, rng, hidden=True)
    return _episodes(scene, np.zeros((count, FRAMES - 1, 2)), rng, "behind-a-screen")


def stops_behind(count: int, age: int, rng: np.random.Generator) -> list[Episode]:
    """It slows down and stops behind its screen, quite hidden from frame ``MIDDLE`` on; the film ends ``age`` later."""
    scene = _alone(count, rng, hidden=True)
    movers, drag = scene.movers, rng.uniform(*STOPS, count)
    going = rng.uniform(*SLOW, (count, 1, 1)) * movers.going / np.linalg.norm(movers.going[:, :1], axis=-1)[..., None]
    ahead = going[:, 0] * ((1 - drag) / drag)[:, None]  # px that it still goes
    reach = np.concatenate([np.minimum(ahead, 0.0), np.maximum(ahead, 0.0)], -1)
    stage = replace(scene.stage, drag=drag, screen=scene.stage.screen + reach)
    scene = replace(scene, movers=replace(movers, coming=going, going=going), stage=stage)
    frames = MIDDLE + 1 + age
    return _episodes(scene, np.zeros((count, frames - 1, 2)), rng, "stops-behind")


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
    frames = gusts.shape[1] + 1
    video, told = draw((scene,), frames, rng, gusts=gusts)[0], truth(scene, frames, gusts)
    times = np.arange(frames) * EMBODIMENT.step_seconds
    return [
        Episode(times=times, video=film, actions=blown, truth=each, source=f"{name}/{number}")
        for number, (film, blown, each) in enumerate(zip(video, gusts, told, strict=True))
    ]
