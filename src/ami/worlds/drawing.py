"""Draw textures, shapes and boxes into many films at once; edges are soft over a pixel."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

Pictures = Float[np.ndarray, "films frames height width 3"]


def _disc(x: np.ndarray, y: np.ndarray, half: np.ndarray) -> np.ndarray:
    return np.hypot(x, y) - half


def _square(x: np.ndarray, y: np.ndarray, half: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(x), np.abs(y)) - 0.8 * half  # about the area of the disc


def _triangle(x: np.ndarray, y: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Point up; its centre is that of its bounding square."""
    return np.maximum(y - half, (2 * np.abs(x) - y - half) / 5**0.5)


def _cross(x: np.ndarray, y: np.ndarray, half: np.ndarray) -> np.ndarray:
    wide, thin = half, 0.4 * half
    across = np.maximum(np.abs(x) - wide, np.abs(y) - thin)
    return np.minimum(across, np.maximum(np.abs(x) - thin, np.abs(y) - wide))


def _diamond(x: np.ndarray, y: np.ndarray, half: np.ndarray) -> np.ndarray:
    return (np.abs(x) + np.abs(y) - 1.1 * half) / 2**0.5


def _ring(x: np.ndarray, y: np.ndarray, half: np.ndarray) -> np.ndarray:
    return np.abs(np.hypot(x, y) - 0.72 * half) - 0.28 * half


def _cup(x: np.ndarray, y: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Upside down, as cups stand over a ball: narrower at the top."""
    return np.maximum(np.abs(y) - half, np.abs(x) - 0.58 * half - 0.1 * y)


# How far a point is from each outline, inside negative.
OUTLINES = {
    "disc": _disc,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "diamond": _diamond,
    "ring": _ring,
    "cup": _cup,
}


def textures(
    offset: Float[np.ndarray, "films frames 2"],
    rng: np.random.Generator,
    *,
    size: int,
    reach: int,
    cells: tuple[float, ...],
    contrast: float,
    light: tuple[float, float],
) -> Pictures:
    """Noise in octaves (``cells`` px between its knots), ``reach`` px wider than the view, which pans through it.

    ``offset`` is where the view's corner is, parts of a pixel too. ``light`` bounds the mean of each colour channel.
    """
    films, frames = offset.shape[:2]
    wide = size + reach
    texture = rng.uniform(*light, (films, 1, 1, 3)).astype(np.float32)
    for cell in cells:
        knots = int(np.ceil(wide / cell)) + 1
        at = np.arange(wide, dtype=np.float32)[:, None] / cell
        blend = np.clip(1.0 - np.abs(at - np.arange(knots, dtype=np.float32)), 0.0, 1.0)
        noise = rng.uniform(-contrast, contrast, (films, 3, knots, knots)).astype(np.float32)
        texture = texture + np.moveaxis(blend @ noise @ blend.T, 1, -1)
    np.clip(texture, 0.0, 255.0, out=texture)
    picture = np.empty((films, frames, size, size, 3), np.float32)
    for film in range(films):
        if not offset[film].any():
            picture[film] = texture[film, :size, :size]
            continue
        for frame, (x, y) in enumerate(offset[film]):
            column, row = min(int(x), reach - 1), min(int(y), reach - 1)
            part = texture[film, row : row + size + 1, column : column + size + 1]
            part = part[:-1] + np.float32(y - row) * (part[1:] - part[:-1])
            picture[film, frame] = part[:, :-1] + np.float32(x - column) * (part[:, 1:] - part[:, :-1])
    return picture


def draw_shapes(
    picture: Pictures,
    films: Int[np.ndarray, "some"],
    centre: Float[np.ndarray, "some frames 2"],
    half: Float[np.ndarray, "some"],
    shape: Int[np.ndarray, "some"],
    colour: Float[np.ndarray, "some 3"],
) -> None:
    """Draw one shape into each of ``films``, all frames at once; only a square around it is touched."""
    if not len(films):
        return
    size, reach = picture.shape[2], int(np.ceil(half.max())) + 1
    frames = centre.shape[1]
    corner = np.clip(np.floor(centre).astype(int) - reach, 0, size - 2 * reach)
    pixel = corner[..., None] + np.arange(2 * reach)  # some, frames, (x, y), pixels
    gap = (pixel + 0.5 - centre[..., None]).astype(np.float32)
    x, y = gap[:, :, 0, None, :], gap[:, :, 1, :, None]
    wide = half.astype(np.float32)[:, None, None, None]
    outside = np.empty((len(films), frames, 2 * reach, 2 * reach), np.float32)
    for number, distance in enumerate(OUTLINES.values()):
        if (rows := shape == number).any():
            outside[rows] = distance(x[rows], y[rows], wide[rows])
    alpha = np.clip(0.5 - outside, 0.0, 1.0)[..., None]
    where = films[:, None, None, None], np.arange(frames)[:, None, None]
    where = *where, pixel[:, :, 1, :, None], pixel[:, :, 0, None, :]
    under = picture[where]
    picture[where] = under + alpha * (colour.astype(np.float32)[:, None, None, None] - under)


def draw_boxes(
    picture: Pictures,
    films: Int[np.ndarray, "some"],
    box: Float[np.ndarray, "some frames 4"],
    colour: Float[np.ndarray, "some 3"],
) -> None:
    """Draw one upright box (left, top, right, bottom; px) into each of ``films``."""
    at = np.arange(picture.shape[2], dtype=np.float32)
    low, high = box[..., :2].astype(np.float32), box[..., 2:].astype(np.float32)
    cover = np.clip(np.minimum(at + 1, high[..., None]) - np.maximum(at, low[..., None]), 0.0, 1.0)
    alpha = cover[:, :, 1, :, None] * cover[:, :, 0, None, :]
    for film, each, paint in zip(films, alpha, colour.astype(np.float32), strict=True):
        picture[film] += each[..., None] * (paint - picture[film])
