"""What is remembered, what is asked for, and what comes back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int32
from scipy.spatial.transform import Rotation

LONGEST = 65504.0  # the greatest number that 16 bits hold; no latent may be longer
_FARTHEST = 1e100  # of times and places: their squares must be numbers too
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


@dataclass(frozen=True, eq=False)
class Moment:
    """One step of the past: what was perceived, when, where, in which episode, and what it looked like.

    ``time`` is in seconds on a clock that the writer chooses, the same for all of a memory. ``place`` is x y z in
    metres in a frame that all of its episodes share; ``turn`` is how the camera was turned there: the axis of its
    rotation into that frame, times the angle in radians (:func:`posed` makes both of a pose). ``surprise`` is a number
    that is larger where less was expected; its unit is the writer's. ``thumbnail`` is the bytes of a PNG or JPEG file.
    What is not known is ``None``.
    """

    latent: Float[np.ndarray, "dim"]
    time: float
    place: tuple[float, float, float] | None = None
    episode: str = ""
    source: str = ""
    surprise: float | None = None
    thumbnail: bytes | None = None
    turn: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if self.latent.ndim != 1 or not self.latent.size:
            raise ValueError(f"a latent to remember is one row of numbers; one of shape {self.latent.shape} came")
        if not np.linalg.norm(self.latent.astype(np.float64)) <= LONGEST:  # nor is a NaN
            raise ValueError(f"a latent to remember is NaN, infinite or longer than {LONGEST:g}; scale it down")
        surprise = () if self.surprise is None else (self.surprise,)
        numbers = (self.time, *(self.place or ()), *(self.turn or ()), *surprise)
        if not all(abs(number) <= _FARTHEST for number in numbers):  # nor is a NaN
            raise ValueError(f"time, pose and surprise of a moment must be finite; {numbers} came")
        if self.thumbnail is not None and not self.thumbnail.startswith(_PICTURES):
            raise ValueError("a thumbnail must be the bytes of a PNG or JPEG file; other bytes came")

    @property
    def pose(self) -> Float64[np.ndarray, "4 4"] | None:
        """Camera to world, where place and turn are known."""
        return (
            None if self.place is None or self.turn is None else poses(np.array([self.place]), np.array([self.turn]))[0]
        )


def posed(pose: Float[np.ndarray, "4 4"]) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Place and turn of a pose, camera to world."""
    x, y, z = pose[:3, 3].astype(np.float64).tolist()
    a, b, c = Rotation.from_matrix(pose[:3, :3].astype(np.float64)).as_rotvec().tolist()
    return (x, y, z), (a, b, c)


def poses(
    places: Float64[np.ndarray, "rows 3"], turns: Float64[np.ndarray, "rows 3"]
) -> Float64[np.ndarray, "rows 4 4"]:
    """Poses, camera to world, of places and turns; all of them known."""
    made = np.tile(np.eye(4), (len(places), 1, 1))
    made[:, :3, :3] = Rotation.from_rotvec(turns).as_matrix()
    made[:, :3, 3] = places
    return made


@dataclass(frozen=True)
class Where:
    """Which moments may be recalled at all. Bounds are included; what is ``None`` does not bound.

    ``near`` is x y z and a radius, in metres; moments without a place are not near anything.
    """

    since: float | None = None  # seconds
    until: float | None = None
    near: tuple[float, float, float, float] | None = None
    episodes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        bounds = [bound for bound in (self.since, self.until, *(self.near or ())) if bound is not None]
        if any(map(math.isnan, bounds)) or (self.near is not None and self.near[3] < 0):
            raise ValueError(f"{self} bounds nothing: a bound is NaN, or the radius below 0")
        if self.near is not None and max(map(abs, self.near)) > _FARTHEST:
            raise ValueError(f"near {self.near} is farther than any place; the most is {_FARTHEST:g} m")

    def allows(
        self,
        times: Float64[np.ndarray, "rows"],
        places: Float64[np.ndarray, "rows 3"],
        episodes: Int32[np.ndarray, "rows"],
        numbers: dict[str, int],
    ) -> Bool[np.ndarray, "rows"]:
        """Which rows may be recalled. A place that is not known is NaN; ``numbers`` are those of the episodes."""
        allowed = np.ones(len(times), bool)
        if self.since is not None:
            allowed &= times >= self.since
        if self.until is not None:
            allowed &= times <= self.until
        if self.near is not None:
            ways = places - np.array(self.near[:3])
            allowed &= np.einsum("ij,ij->i", ways, ways) <= self.near[3] ** 2
        if self.episodes is not None:
            allowed &= np.isin(episodes, [numbers[name] for name in self.episodes if name in numbers])
        return allowed


@dataclass(frozen=True, eq=False)
class Recalled:
    """A moment that came back: its number in the memory, and how far its latent is from what was asked (Euclid)."""

    number: int
    distance: float
    moment: Moment
