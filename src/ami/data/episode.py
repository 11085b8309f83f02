"""One recording at its frame rate, and what it may not be."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8

from ami import files, geometry

# For each field of an episode: how it is kept, and its shape. "gaps" are the spaces between frames.
FIELDS: dict[str, tuple[str, tuple[str | int, ...]]] = {
    "times": ("<f8", ("frames",)),
    "video": ("|u1", ("frames", "height", "width", 3)),
    "depth": ("<f4", ("frames", "height", "width")),
    "points": ("<f4", ("frames", "points", 3)),
    "pose": ("<f4", ("frames", 4, 4)),
    "intrinsics": ("<f4", (4,)),
    "proprio": ("<f4", ("frames", "proprio")),
    "actions": ("<f4", ("gaps", "action")),
    "truth": ("<f4", ("frames", "truth")),
}


@dataclass(frozen=True, eq=False)
class Episode:
    """One recording at its frame rate. What was not recorded is ``None``.

    ``times`` in seconds; ``depth`` in metres along the camera's axis, 0 = unknown; ``points`` in metres in camera axes,
    (0, 0, 0) = none there, for all frames have as many; ``pose`` camera to world, metres; ``intrinsics`` fx fy cx cy in
    pixels from the picture's corner (:mod:`ami.geometry`); ``actions[t]`` was done between frames t and t+1; ``truth``
    is simulator state; ``source`` says where it came from; episodes with the same ``place`` were recorded where nothing
    but their actor was moved in between. A wrong shape, a number that is not finite (of ``truth`` it says that nobody
    knows), a depth below 0 or a pose that is not rigid is a ``ValueError``.
    """

    times: Float64[np.ndarray, "frames"]
    video: UInt8[np.ndarray, "frames height width 3"] | None = None
    depth: Float[np.ndarray, "frames height width"] | None = None
    points: Float[np.ndarray, "frames points 3"] | None = None
    pose: Float[np.ndarray, "frames 4 4"] | None = None
    intrinsics: Float[np.ndarray, "4"] | None = None
    proprio: Float[np.ndarray, "frames proprio"] | None = None
    actions: Float[np.ndarray, "frames-1 action"] | None = None
    truth: Float[np.ndarray, "frames truth"] | None = None
    source: str = ""
    place: str = ""  # "": nobody can say

    def __post_init__(self) -> None:
        if self.video is not None and self.video.dtype != np.uint8:
            raise ValueError(f"{self.name}: video is {self.video.dtype}; it must be uint8, 0 to 255")
        frames = len(self.times)
        if frames < 1:
            raise ValueError(f"{self.name}: it holds no frame; an episode needs at least one")
        sizes: dict[str | int, int] = {"frames": frames, "gaps": frames - 1}
        for name, array in self.arrays().items():
            wanted = FIELDS[name][1]
            fits = array.ndim == len(wanted) and all(
                size == (axis if isinstance(axis, int) else sizes.setdefault(axis, size))
                for axis, size in zip(wanted, array.shape, strict=True)
            )
            if not fits:
                shape = ", ".join(str(sizes.get(axis, axis)) for axis in wanted)
                raise ValueError(
                    f"{self.name}: {name} has shape {array.shape}; for {frames} frames it must be ({shape})"
                )
            if name not in ("video", "truth") and not np.isfinite(array).all():
                raise ValueError(f"{self.name}: {name} holds NaN or infinity; mend or leave out the episode")
        if not (np.diff(self.times) > 0).all():
            raise ValueError(f"{self.name}: times do not increase; they are the seconds at which frames were taken")
        self._refuse_impossible_cameras()

    def _refuse_impossible_cameras(self) -> None:
        if self.depth is not None and (self.depth < 0).any():
            raise ValueError(f"{self.name}: depth goes below 0; it is metres ahead of the camera, and 0 = unknown")
        if self.intrinsics is not None and not (self.intrinsics[:2] > 0).all():
            raise ValueError(f"{self.name}: the focal lengths are {self.intrinsics[:2]}; pixels above 0 are wanted")
        if self.pose is None:
            return
        pose = torch.tensor(np.asarray(self.pose, np.float64))
        bent = (~geometry.rigid(pose)).nonzero()
        if len(bent):
            frame = int(bent[0])
            mirrored = bool(torch.linalg.det(pose[frame, :3, :3]) < 0)
            how = "is left-handed: it mirrors" if mirrored else "is not rigid: it stretches, shears or projects"
            raise ValueError(f"{self.name}: the pose of frame {frame} {how}; camera to world, right-handed, is wanted")

    def arrays(self) -> dict[str, np.ndarray]:
        """What was recorded, in the types it is kept in."""
        held = ((name, getattr(self, name), kind) for name, (kind, _) in FIELDS.items())
        return {name: np.asarray(value, kind) for name, value, kind in held if value is not None}

    @cached_property
    def digest(self) -> str:
        """sha256 of the content; ``source`` is no part of it, so the same film under two names is one film."""
        return files.digest_arrays(self.arrays())

    @property
    def name(self) -> str:
        """What error messages call it."""
        return self.source or "episode"

    def __len__(self) -> int:
        return len(self.times)
