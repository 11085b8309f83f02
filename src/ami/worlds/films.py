"""Drawn films with their truth: movers over a textured background, seen by a camera that pans in half of them.

Units are pixels of the 64 x 64 view, x to the right and y down, and frames of 0.1 s. Everything is told in the frame of
the *view*: ``a_x`` is where mover A's centre is in the picture, ``a_dx`` how far it goes there in a frame at that
moment (its velocity in the world is this plus the camera's, ``camera_dx``). Who is who is told by colour: A is reddish,
B is bluish, and both are in every film; up to two more, greenish, only make it harder. Backgrounds have patches of
every hue, so that colour alone does not find a mover. A film may have an upright bar before everything, fixed to the
camera like the pillar of a windscreen, behind which movers vanish.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

from ami.data.episodes import Episode
from ami.types import Embodiment
from ami.worlds.drawing import draw_shapes, textures

SIZE = 64  # px on a side
FRAMES = 16
PAN = 1.5  # px per frame, at most
SPEED = 0.5, 3.0  # px per frame
RADIUS = 4.0, 8.0  # px: half of the side of a mover's bounding square
SHAPES = ("disc", "square", "triangle")
_MOVERS = 4  # at most; A and B come first
_COLOURS = np.array([[205, 60, 60], [60, 75, 205], [60, 170, 70], [60, 170, 70]], np.float32)
_SPREAD = 40.0  # of each colour channel, either way
_CELLS = 8.0, 3.0  # px between the knots of the background's two octaves
_LIGHT = 70.0, 185.0  # of the background's colour channels, in the mean
_CONTRAST = 40.0  # of each octave in each colour channel, either way
_CHUNK = 8  # films drawn at a time: what a chunk needs stays in cache

EMBODIMENT = Embodiment("drawn-film", step_seconds=0.1)
_OF_MOVER = ("x", "y", "dx", "dy", "size", "shape")  # shape: the number in SHAPES
TRUTH = (*(f"{who}_{what}" for who in "ab" for what in _OF_MOVER), "count", "camera_dx", "camera_dy", "bar")


@dataclass(frozen=True)
class Films:
    """What happens in many films. Drawing it is another matter."""

    start: Float[np.ndarray, "films movers 2"]  # px, centres at frame 0
    velocity: Float[np.ndarray, "films movers 2"]  # px per frame in the view, at frame 0
    size: Float[np.ndarray, "films movers"]  # px, see RADIUS
    shape: Int[np.ndarray, "films movers"]
    colour: Float[np.ndarray, "films movers 3"]  # 0 to 255
    count: Int[np.ndarray, "films"]  # movers that are there
    camera: Float[np.ndarray, "films 2"]  # px per frame; 0 where it stands
    bar: Float[np.ndarray, "films 2"]  # px: left edge and width; width 0 where there is none

    def __len__(self) -> int:
        return len(self.count)

    def paths(self, frames: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions and velocities in the view, ``(films, movers, frames, 2)`` both.

        A mover that goes straight on past an edge is where the bouncing one is, mirrored: no step by step is needed.
        """
        low = self.size[..., None, None]
        room = SIZE - 2 * low
        run = self.start[:, :, None] + self.velocity[:, :, None] * np.arange(frames)[:, None] - low
        lap, along = np.divmod(run, room)
        back = lap % 2 == 1
        speed = np.where(back, -1.0, 1.0) * self.velocity[:, :, None]
        return low + np.where(back, room - along, along), speed


def sample_films(count: int, rng: np.random.Generator) -> Films:
    """Films to draw: the camera moves in half of them, a bar stands in a third."""
    size = rng.uniform(*RADIUS, (count, _MOVERS))
    margin = size[..., None]
    heading, pace = rng.uniform(-np.pi, np.pi, (2, count, _MOVERS)), rng.uniform(*SPEED, (count, _MOVERS))
    pan, towards = rng.uniform(0.5, PAN, count), rng.uniform(-np.pi, np.pi, count)
    moves = rng.permutation(count) % 2 == 1
    width = np.where(rng.permutation(count) % 3 == 0, rng.uniform(6.0, 12.0, count), 0.0)
    return Films(
        start=margin + rng.uniform(size=(count, _MOVERS, 2)) * (SIZE - 2 * margin),
        velocity=pace[..., None] * np.stack([np.cos(heading[0]), np.sin(heading[0])], -1),
        size=size,
        shape=rng.integers(len(SHAPES), size=(count, _MOVERS)),
        colour=_COLOURS + rng.uniform(-_SPREAD, _SPREAD, (count, _MOVERS, 3)),
        count=rng.integers(2, _MOVERS + 1, count),
        camera=np.where(moves, pan, 0.0)[:, None] * np.stack([np.cos(towards), np.sin(towards)], -1),
        bar=np.stack([rng.uniform(12.0, SIZE - 24.0, count), width], -1),
    )


def draw(films: Films, frames: int, rng: np.random.Generator) -> Iterator[UInt8[np.ndarray, "frames 64 64 3"]]:
    """The films one after another, their backgrounds drawn from ``rng``; edges are soft over a pixel."""
    position = films.paths(frames)[0]
    for first in range(0, len(films), _CHUNK):
        rows = slice(first, first + _CHUNK)
        camera = films.camera[rows]
        picture = textures(
            _offsets(camera, frames),
            rng,
            size=SIZE,
            reach=_reach(frames),
            cells=_CELLS,
            contrast=_CONTRAST,
            light=_LIGHT,
        )
        for mover in reversed(range(_MOVERS)):  # A is nearest
            there = np.flatnonzero(films.count[rows] > mover)
            chosen = there + first
            look = films.size[chosen, mover], films.shape[chosen, mover], films.colour[chosen, mover]
            draw_shapes(picture, there, position[chosen, mover], *look)
        for film, (left, width) in zip(picture, films.bar[rows], strict=True):
            if width:
                film[:, :, int(left) : int(left + width)] = 30.0
        yield from (picture + 0.5).astype(np.uint8)


def _offsets(camera: Float[np.ndarray, "films 2"], frames: int) -> Float[np.ndarray, "films frames 2"]:
    """The view begins at the end of the texture that it will pan away from."""
    return np.where(camera < 0, float(_reach(frames)), 0.0)[:, None] + camera[:, None] * np.arange(frames)[:, None]


def _reach(frames: int) -> int:
    return int(np.ceil(PAN * (frames - 1))) + 1


def collect(count: int, frames: int = FRAMES, seed: int = 0) -> list[Episode]:
    """Draw ``count`` films of ``frames`` frames, with their truth (``TRUTH``) at every frame."""
    if count < 1 or frames < 1:
        raise ValueError(f"{count} films of {frames} frames were asked for; at least 1 of 1 can be drawn")
    rng = np.random.default_rng(seed)
    films = sample_films(count, rng)
    position, velocity = films.paths(frames)
    still = np.stack([films.size, films.shape.astype(float)], -1)[:, :, None].repeat(frames, 2)
    movers = np.concatenate([position, velocity, still], -1)[:, :2]
    whole = np.column_stack([films.count, films.camera, films.bar[:, 1]])[:, None].repeat(frames, 1)
    truth = np.concatenate([movers[:, 0], movers[:, 1], whole], -1).astype(np.float32)
    times = np.arange(frames) * EMBODIMENT.step_seconds
    return [
        Episode(times=times, video=video, truth=truth[film], source=f"drawn-film/seed-{seed}/{film}")
        for film, video in enumerate(draw(films, frames, rng))
    ]
