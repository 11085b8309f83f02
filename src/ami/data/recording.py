"""What a reader gives back: episodes that are still to be read, and how they were wanted."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ami.data.episode import Episode
from ami.types import Embodiment, LeftOut


@dataclass(frozen=True)
class Wanted:
    """How recordings are to come in."""

    size: int = 64  # px on a side: of every picture the middle square, made so large
    fps: float | None = None  # frames a second; None: 10 of films and clouds, all of anything else
    camera: str | None = None  # which of a robot's cameras; None: the first
    calibration: Path | None = None  # a camera.json for RGB-D folders that have none of their own
    points: int = 1024  # of each cloud

    def __post_init__(self) -> None:
        if self.fps is not None and not self.fps > 0:
            raise ValueError(f"{self.fps} frames per second were asked for; the rate must be above 0")
        if self.size < 1 or self.points < 1:
            raise ValueError(f"{self.size} px and {self.points} points were asked for; both must be at least 1")


@dataclass(frozen=True)
class Recording:
    """Episodes of one embodiment at one place on disk, read one by one when their turn comes.

    ``read`` gives an episode by its number, and what was lost of it if it is not whole. ``ValueError`` says in one
    sentence why an episode cannot be read.
    """

    path: Path
    embodiment: Embodiment
    names: tuple[str, ...]  # of the episodes
    read: Callable[[int], tuple[Episode, LeftOut | None]]
    truth_names: tuple[str, ...] = ()


class MissingError(ValueError):
    """What would read a recording is not installed: no fault of the recording."""


def needed(module: str, what: str, extra: str) -> Any:
    """A module of an extra; ``MissingError``, a ``ValueError``, says how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise MissingError(
            f"{what} needs {package}, which cannot be imported ({error}); "
            f"install the extra with pip install 'openami[{extra}]'"
        ) from error


def opened(path: Path) -> Image.Image:
    """A picture file, decoded. ``ValueError`` where it is none or is damaged, ``FileNotFoundError`` where none is."""
    try:
        picture = Image.open(path)
        picture.load()
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # a torn PNG is a SyntaxError to Pillow
        raise ValueError(
            f"picture {path} cannot be read ({error}); it is damaged, or no picture: copy it again"
        ) from error
    return picture


def square(picture: Image.Image, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The middle square of a picture in RGB, averaged to ``size`` pixels."""
    left, top, side = middle(picture.width, picture.height)
    box = (left, top, left + side, top + side)
    return np.asarray(picture.convert("RGB").resize((size, size), Image.Resampling.BOX, box))


def squares(pictures: np.ndarray, size: int, name: str) -> UInt8[np.ndarray, "frames size size 3"]:
    """The same of many, (frames height width 3): uint8, or other numbers from 0 to 255."""
    if pictures.ndim != 4 or pictures.shape[3] != 3 or not pictures.size:
        raise ValueError(f"{name}: pictures have shape {pictures.shape}; wanted are (frames, height, width, 3)")
    if pictures.dtype != np.uint8:
        if not (np.isfinite(pictures).all() and pictures.min() >= 0 and 1 < pictures.max() <= 255):
            raise ValueError(f"{name}: pictures go from {pictures.min()} to {pictures.max()}; wanted is 0 to 255")
        pictures = pictures.round().astype(np.uint8)
    return np.stack([square(Image.fromarray(picture), size) for picture in pictures])


def middle(width: int, height: int) -> tuple[int, int, int]:
    """Where the middle square of a picture begins, left and top, and its side: pixels."""
    side = min(width, height)
    return (width - side) // 2, (height - side) // 2, side
