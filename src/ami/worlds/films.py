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
        picture = _backgrounds(camera, frames, rng)
        for mover in reversed(range(_MOVERS)):  # A is nearest
            there = np.flatnonzero(films.count[rows] > mover)
            chosen = there + first
            look = films.size[chosen, mover], films.shape[chosen, mover], films.colour[chosen, mover]
            _draw_mover(picture, there, position[chosen, mover], *look)
        for film, (left, width) in zip(picture, films.bar[rows], strict=True):
            if width:
                film[:, :, int(left) : int(left + width)] = 30.0
        yield from (picture + 0.5).astype(np.uint8)


def _backgrounds(
    camera: np.ndarray, frames: int, rng: np.random.Generator
) -> Float[np.ndarray, "films frames 64 64 3"]:
    """Noise in two octaves, wider than the view, through which the view pans by parts of a pixel."""
    films, reach = len(camera), int(np.ceil(PAN * (frames - 1))) + 1
    wide = SIZE + reach
    texture = rng.uniform(70.0, 185.0, (films, 1, 1, 3)).astype(np.float32)
    for cell in _CELLS:
        knots = int(np.ceil(wide / cell)) + 1
        at = np.arange(wide, dtype=np.float32)[:, None] / cell
        blend = np.clip(1.0 - np.abs(at - np.arange(knots, dtype=np.float32)), 0.0, 1.0)
        noise = rng.uniform(-_CONTRAST, _CONTRAST, (films, 3, knots, knots)).astype(np.float32)
        texture = texture + np.moveaxis(blend @ noise @ blend.T, 1, -1)
    np.clip(texture, 0.0, 255.0, out=texture)
    # The view begins at the end of the texture that it will pan away from.
    offset = np.where(camera < 0, float(reach), 0.0)[:, None] + camera[:, None] * np.arange(frames)[:, None]
    picture = np.empty((films, frames, SIZE, SIZE, 3), np.float32)
    for film in range(films):
        if not camera[film].any():
            picture[film] = texture[film, :SIZE, :SIZE]
            continue
        for frame, (x, y) in enumerate(offset[film]):
            column, row = min(int(x), reach - 1), min(int(y), reach - 1)
            part = texture[film, row : row + SIZE + 1, column : column + SIZE + 1]
            part = part[:-1] + np.float32(y - row) * (part[1:] - part[:-1])
            picture[film, frame] = part[:, :-1] + np.float32(x - column) * (part[:, 1:] - part[:, :-1])
    return picture


def _draw_mover(
    picture: np.ndarray, there: np.ndarray, centre: np.ndarray, size: np.ndarray, shape: np.ndarray, colour: np.ndarray
) -> None:
    """Draw one mover into the films ``there``, all frames at once; only a square around it is touched."""
    films, frames = centre.shape[:2]
    reach = int(np.ceil(RADIUS[1])) + 1
    corner = np.clip(np.floor(centre).astype(int) - reach, 0, SIZE - 2 * reach)
    pixel = corner[..., None] + np.arange(2 * reach)
    gap = (pixel + 0.5 - centre[..., None]).astype(np.float32)  # films, frames, (x, y), pixels
    x, y = gap[:, :, 0, None, :], gap[:, :, 1, :, None]
    half = size.astype(np.float32)[:, None, None, None]
    outside = np.empty((films, frames, 2 * reach, 2 * reach), np.float32)  # px from the outline, inside negative
    for number, distance in enumerate((_disc, _square, _triangle)):
        rows = shape == number
        outside[rows] = distance(x[rows], y[rows], half[rows])
    alpha = np.clip(0.5 - outside, 0.0, 1.0)[..., None]
    where = there[:, None, None, None], np.arange(frames)[:, None, None]
    where = *where, pixel[:, :, 1, :, None], pixel[:, :, 0, None, :]
    under = picture[where]
    picture[where] = under + alpha * (colour.astype(np.float32)[:, None, None, None] - under)


def _disc(x: np.ndarray, y: np.ndarray, half: np.ndarray) -> np.ndarray:
    return np.hypot(x, y) - half


def _square(x: np.ndarray, y: np.ndarray, half: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(x), np.abs(y)) - 0.8 * half  # about the area of the disc


def _triangle(x: np.ndarray, y: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Point up; its centre is that of its bounding square."""
    return np.maximum(y - half, (2 * np.abs(x) - y - half) / 5**0.5)


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
