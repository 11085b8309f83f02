"""Colour with depth and camera poses as episodes: folders in the layouts of TUM RGB-D and of 7-Scenes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from PIL import Image

from ami import geometry
from ami.data.episode import Episode
from ami.data.recording import Recording, Wanted, middle, opened, square
from ami.types import Embodiment

RGBD = Embodiment("rgbd", step_seconds=1 / 30)  # a camera that is carried about; the step is each recording's own
CAMERA = "camera.json"
_TOGETHER = 0.02  # seconds: what lies nearer in time was seen together (the tool that comes with TUM's sequences)
_COLOUR, _DEPTH, _POSE = ".color.png", ".depth.png", ".pose.txt"
_NOTHING = 65535  # in 7-Scenes, a depth that was not measured


@dataclass(frozen=True)
class Calibration:
    """A camera for pictures of ``width`` by ``height`` pixels, and what its depth pictures count in.

    ``fx fy cx cy`` in pixels from the *centre* of the first pixel, as OpenCV and both data sets give them;
    ``depth_scale`` is how many units of a depth picture are a metre. Without a size it is for any.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    depth_scale: float
    width: int | None = None
    height: int | None = None

    def cropped(self, width: int, height: int, size: int) -> Float[np.ndarray, "4"] | None:
        """Intrinsics, from the picture's corner, of the middle square at ``size`` pixels; ``None`` for other pictures.

        Pictures may be smaller or larger than those it was made for, of the same proportions.
        """
        own_width, own_height = self.width or width, self.height or height
        if own_width * height != own_height * width:
            return None
        left, top, side = middle(width, height)
        whole = np.array([self.fx, self.fy, self.cx + 0.5, self.cy + 0.5]) * width / own_width
        return (whole - [0, 0, left, top]) * size / side


# Shotton et al. 2013: all scenes are given this camera, and depth in millimetres.
SEVEN_SCENES = Calibration(585.0, 585.0, 320.0, 240.0, 1000.0, 640, 480)


@dataclass(frozen=True)
class _Frame:
    """What was recorded at one moment."""

    time: float  # seconds
    colour: Path
    depth: Path | None
    pose: Float[np.ndarray, "4 4"] | None  # camera to world, metres


def is_tum(path: Path) -> bool:
    """Is this a folder in TUM's layout?"""
    return (path / "rgb.txt").is_file()


def open_tum(path: Path, wanted: Wanted) -> Recording:
    """A folder of TUM RGB-D (Sturm et al. 2012): rgb.txt and, where they are there, depth.txt and groundtruth.txt.

    Lines are ``seconds file``, and ``seconds tx ty tz qx qy qz qw`` for poses: camera to world, metres. Depth has 16
    bits, ``depth_scale`` units to a metre (5000 where it is not said), 0 = unknown. The layout has no place for
    intrinsics: they come from ``camera.json`` in the folder, ``{"fx", "fy", "cx", "cy"}`` and optionally
    ``depth_scale``, ``width``, ``height``. A frame is a colour picture with the depth and the pose that lie within
    20 ms of it; others are left out.
    """
    camera = _calibration(path, wanted, 5000.0)
    if camera is None:
        raise ValueError(
            f"{path} has no intrinsics: put fx, fy, cx, cy (pixels) into {path / CAMERA}, or name such a file with "
            f"--calibration"
        )
    colour_at, colour = _listed(path / "rgb.txt", 1)
    frames = [_Frame(float(time), path / name[0], None, None) for time, name in zip(colour_at, colour, strict=True)]
    for name, columns in (("depth.txt", 1), ("groundtruth.txt", 7)):
        if not (path / name).is_file():
            continue
        times, rows = _listed(path / name, columns)
        near = _nearest(times, np.array([frame.time for frame in frames]))
        pairs = [(f, rows[k]) for f, k in zip(frames, near, strict=True) if abs(times[k] - f.time) <= _TOGETHER]
        if columns == 1:
            frames = [replace(frame, depth=path / row[0]) for frame, row in pairs]
        else:
            frames = [replace(frame, pose=_pose(path / name, row)) for frame, row in pairs]
        if not frames:
            raise ValueError(
                f"{path}: nothing in {name} lies within {_TOGETHER} s of the rest; are the clocks the same?"
            )
    return _recording(path, frames, camera, wanted)


def is_seven_scenes(path: Path) -> bool:
    """Is this a folder in the layout of 7-Scenes?"""
    return path.is_dir() and any(path.glob(f"frame-*{_COLOUR}"))


def open_seven_scenes(path: Path, wanted: Wanted) -> Recording:
    """A folder of 7-Scenes (Shotton et al. 2013): ``frame-NNNNNN`` with .color.png, .depth.png and .pose.txt.

    Depth has 16 bits of millimetres, 0 and 65535 = unknown; a pose is 4 rows of 4 numbers, camera to world, metres. The
    N-th frame was taken after N / 30 s. Without a ``camera.json`` (as for TUM's layout; ``depth_scale`` 1000) the
    camera is the one that the authors give, 585 px of focal length at 640 x 480. It was not registered to colour more
    exactly than that.
    """
    frames = []
    for colour in sorted(path.glob(f"frame-*{_COLOUR}")):
        name = colour.name.removesuffix(_COLOUR)
        depth, pose = path / f"{name}{_DEPTH}", path / f"{name}{_POSE}"
        missing = [file.name for file in (depth, pose) if not file.is_file()]
        if missing or not name.removeprefix("frame-").isdecimal():
            raise ValueError(f"{colour} has no {' and no '.join(missing) or 'number'} beside it; copy it again")
        rows = _numbers(pose, pose.read_text(encoding="utf-8").split())
        if rows.shape != (16,):
            raise ValueError(f"{pose} holds {len(rows)} numbers; a pose is 4 rows of 4")
        frames.append(_Frame(int(name.removeprefix("frame-")) / 30, colour, depth, rows.reshape(4, 4)))
    return _recording(path, frames, _calibration(path, wanted, 1000.0) or SEVEN_SCENES, wanted)


def _recording(path: Path, frames: Sequence[_Frame], camera: Calibration, wanted: Wanted) -> Recording:
    times = np.array([frame.time for frame in frames])
    if not (np.diff(times) > 0).all():
        raise ValueError(f"{path}: the times of its frames do not increase; sort them, and leave each in once")
    own = float(np.median(np.diff(times))) if len(times) > 1 else RGBD.step_seconds
    step = own if wanted.fps is None else max(own, 1 / wanted.fps)
    ticks = np.arange(round((times[-1] - times[0]) / step) + 1) * step
    chosen = [frames[k] for k in _nearest(times - times[0], ticks)]  # cameras drop frames, and their clocks tremble
    body = replace(RGBD, step_seconds=round(step, 6))
    return Recording(path, body, (path.name,), lambda _: (_episode(path, chosen, ticks, camera, wanted.size), None))


def _episode(
    path: Path, frames: Sequence[_Frame], ticks: Float64[np.ndarray, "frames"], camera: Calibration, size: int
) -> Episode:
    with opened(frames[0].colour) as first:
        width, height = first.size
    intrinsics = camera.cropped(width, height, size)
    if intrinsics is None:
        raise ValueError(
            f"{path} has pictures of {width} x {height} px and its camera is one of {camera.width} x {camera.height}; "
            f"put the intrinsics for these pictures into {path / CAMERA}"
        )
    video, depth = [], []
    for frame in frames:
        with opened(frame.colour) as picture:
            if picture.size != (width, height):
                raise ValueError(f"{frame.colour} is {_size(picture)} and those before it {width} x {height} px")
            video.append(square(picture, size))
        if frame.depth is not None:
            depth.append(_depth(frame.depth, (width, height), camera.depth_scale, size))
    poses = [frame.pose for frame in frames if frame.pose is not None]
    return Episode(
        times=ticks,
        video=np.stack(video),
        depth=np.stack(depth) if depth else None,
        pose=np.stack(poses) if poses else None,
        intrinsics=intrinsics,
        source=path.name,
    )


def _depth(path: Path, like: tuple[int, int], scale: float, size: int) -> Float[np.ndarray, "size size"]:
    """Metres in the middle square: of each new pixel the one depth at its middle, for means lie between surfaces."""
    with opened(path) as picture:
        if picture.size != like:
            raise ValueError(
                f"{path} is {_size(picture)} and its colour picture {like[0]} x {like[1]} px; give each colour pixel "
                f"a depth (register them) first"
            )
        if picture.mode not in ("I;16", "I"):
            raise ValueError(f"{path} is no depth picture: it has {picture.mode} pixels and 16 bits are wanted")
        held = np.asarray(picture)
    left, top, side = middle(*like)
    at = ((np.arange(size) + 0.5) * side / size).astype(int)
    kept = held[np.ix_(top + at, left + at)]
    return np.where(kept == _NOTHING, 0, kept).astype(np.float64) / scale


def _calibration(path: Path, wanted: Wanted, depth_scale: float) -> Calibration | None:
    """The camera of a folder; ``None`` where nobody says which."""
    own = path / CAMERA if (path / CAMERA).is_file() else wanted.calibration
    if own is None:
        return None
    try:
        held = json.loads(own.read_text(encoding="utf-8"))
        known = {name: float(held[name]) for name in ("fx", "fy", "cx", "cy")}
        known["depth_scale"] = float(held.get("depth_scale", depth_scale))
        camera = Calibration(**known, **{name: int(held[name]) for name in ("width", "height") if name in held})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{own} is no calibration: {error!r}; wanted are the numbers fx, fy, cx, cy") from error
    if not (np.isfinite(list(known.values())).all() and min(camera.fx, camera.fy, camera.depth_scale) > 0):
        raise ValueError(f"{own} is no calibration: focal lengths and depth_scale must be above 0")
    return camera


def _listed(path: Path, columns: int) -> tuple[Float64[np.ndarray, "rows"], list[list[str]]]:
    """Seconds, and the rest of each line of a file in TUM's manner, in the order of time."""
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [line for line in lines if line and not line[0].startswith("#")]
    bad = next((row for row in rows if len(row) < columns + 1), None)
    if bad or not rows:
        raise ValueError(f"{path} holds {' '.join(bad) if bad else 'no line'!r}; wanted are {columns + 1} words a line")
    times = _numbers(path, [row[0] for row in rows])
    order = np.argsort(times, kind="stable")
    return times[order], [rows[k][1 : columns + 1] for k in order]


def _pose(path: Path, row: Sequence[str]) -> Float[np.ndarray, "4 4"]:
    """A pose from tx ty tz qx qy qz qw."""
    numbers = torch.from_numpy(_numbers(path, row))
    if abs(numbers[3:].norm().item() - 1) > 0.01:
        raise ValueError(f"{path}: the quaternion {' '.join(row[3:])} is no rotation; its length must be 1")
    return geometry.assemble(geometry.from_quaternion(numbers[3:]), numbers[:3]).numpy()


def _numbers(path: Path, words: Sequence[str]) -> Float64[np.ndarray, "words"]:
    try:
        numbers = np.array([float(word) for word in words])
    except ValueError as error:
        raise ValueError(f"{path} does not hold numbers where they are wanted: {error}") from error
    if not np.isfinite(numbers).all():
        raise ValueError(f"{path} holds NaN or infinity; leave such frames out")
    return numbers


def _nearest(times: Float64[np.ndarray, "rows"], wanted: Float64[np.ndarray, "ticks"]) -> Int[np.ndarray, "ticks"]:
    """The place in ``times``, which increase, of the one nearest to each that is wanted."""
    after = np.searchsorted(times, wanted).clip(1, max(len(times) - 1, 1))
    before_is_nearer = wanted - times[after - 1] <= np.abs(times[np.minimum(after, len(times) - 1)] - wanted)
    return np.where(before_is_nearer, after - 1, np.minimum(after, len(times) - 1))


def _size(picture: Image.Image) -> str:
    return f"{picture.width} x {picture.height} px"
