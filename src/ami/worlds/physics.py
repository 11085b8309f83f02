"""A small physical world, simulated for many films at once: movers, a wall, a rope, a floor, drag, gusts.

Everything is told in pixels of the 64 x 64 view as it is at the film's *moment* (x to the right, y down), in frames of
0.1 s, and for equal masses. A film is simulated from its moment, forwards and backwards: elastic collisions and drag
can be run back, so what leads to a collision is what follows from its mirror image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
from jaxtyping import Bool, Float, Int

SIZE = 64  # px on a side
MOVERS = 3
_PARTS = 4  # of a frame, for the simulator
_BOUNCE = 0.3  # of the speed at which something falls on the floor

Rectangles = Float[np.ndarray, "films 4"]  # left, top, right, bottom; empty where there is none


class _Rows:
    """What has a row for each film."""

    def rows(self, index: np.ndarray | slice):
        """Some of the films."""
        return replace(self, **{each.name: getattr(self, each.name)[index] for each in fields(self)})  # pyright: ignore

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """All the films of several."""
        return cls(*(np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(cls)))  # pyright: ignore


@dataclass(frozen=True)
class Movers(_Rows):
    """Where everything that moves is at the moment, how fast, and how it looks."""

    position: Float[np.ndarray, "films movers 2"]
    coming: Float[np.ndarray, "films movers 2"]  # px per frame, up to the moment
    going: Float[np.ndarray, "films movers 2"]  # from it on: what a collision just then makes of it
    radius: Float[np.ndarray, "films movers"]  # physically all are discs
    shape: Int[np.ndarray, "films movers"]
    colour: Float[np.ndarray, "films movers 3"]  # 0 to 255
    there: Bool[np.ndarray, "films movers"]

    def __len__(self) -> int:
        return len(self.there)


@dataclass(frozen=True)
class Stage(_Rows):
    """Where it happens."""

    moment: Int[np.ndarray, "films"]  # the frame that all else is told from
    wall: Rectangles
    rope: Rectangles  # the first mover hangs from it
    pull: Float[np.ndarray, "films"]  # px per frame that the rope goes up alone from the moment on; 0: it holds
    screen: Rectangles  # before everything
    floor: Float[np.ndarray, "films"]  # y of it, where there is gravity
    gravity: Float[np.ndarray, "films"]  # px per frame and frame; 0: seen from above
    drag: Float[np.ndarray, "films"]  # share of its speed that a mover loses in a frame
    camera: Float[np.ndarray, "films 2"]  # px per frame


def paths(
    movers: Movers,
    stage: Stage,
    frames: int,
    gusts: Float[np.ndarray, "films gaps 2"] | None = None,
) -> tuple[Float[np.ndarray, "films movers frames 2"], Float[np.ndarray, "films movers frames 2"]]:
    """Positions and velocities in the world at every frame; ``gusts`` (px per frame and frame) move all alike."""
    since = np.arange(frames) - stage.moment[:, None]
    gaps = np.arange(frames - 1)
    wind = np.zeros((len(movers), frames - 1, 2)) if gusts is None else gusts
    rows = np.arange(len(movers))[:, None]
    after, before = (stage.moment[:, None] + way for way in (gaps, -1 - gaps))
    late = _run(movers, stage, np.where((after < frames - 1)[..., None], wind[rows, after % (frames - 1)], 0.0))
    early = _run(movers, stage, np.where((before >= 0)[..., None], wind[rows, before % (frames - 1)], 0.0), back=True)
    where = rows, slice(None), np.abs(since)
    found = [
        np.where((since >= 0)[..., None, None], go[where], back[where]) for go, back in zip(late, early, strict=True)
    ]
    return found[0].swapaxes(1, 2), found[1].swapaxes(1, 2)


def _run(
    movers: Movers, stage: Stage, gusts: Float[np.ndarray, "films gaps 2"], *, back: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """From the moment on, or back from it in reversed time; ``gaps`` frames beyond the first."""
    part = 1.0 / _PARTS
    position, velocity = movers.position.copy(), -movers.coming if back else movers.going.copy()
    kept = ((1.0 - stage.drag) ** ((-part if back else part) / 2))[:, None, None]
    hangs = (stage.rope[:, 2] > stage.rope[:, 0]) & (back | (stage.pull == 0))
    fall = np.zeros_like(position)
    fall[..., 1] = stage.gravity[:, None] * ~(hangs[:, None] & (np.arange(MOVERS) == 0))
    places, speeds = [position.copy()], [movers.going.copy()]
    for gap in range(gusts.shape[1]):
        kick = 0.5 * part * (fall + gusts[:, gap, None])
        for _ in range(_PARTS):  # half a kick before the way and half after: no direction of time
            velocity = (velocity + kick) * kept
            _meet(movers, position, velocity)
            _touch(stage.wall, movers, position, velocity)
            position += part * velocity
            _land(stage, movers, position, velocity)
            velocity = velocity * kept + kick
        places.append(position.copy())
        speeds.append(velocity * (-1.0 if back else 1.0))
    return np.stack(places, 2), np.stack(speeds, 2)


def _meet(movers: Movers, position: np.ndarray, velocity: np.ndarray) -> None:
    """Two that touch and approach exchange their speeds along the line between them: equal masses, elastic."""
    for one in range(MOVERS):
        for other in range(one + 1, MOVERS):
            gap = position[:, other] - position[:, one]
            apart = np.linalg.norm(gap, axis=-1)
            along = gap / np.maximum(apart, 1e-9)[:, None]
            closing = ((velocity[:, one] - velocity[:, other]) * along).sum(-1)
            meets = movers.there[:, one] & movers.there[:, other] & (closing > 0)
            meets &= apart < movers.radius[:, one] + movers.radius[:, other] + 1e-6
            change = np.where(meets, closing, 0.0)[:, None] * along
            velocity[:, one] -= change
            velocity[:, other] += change


def _touch(box: Rectangles, movers: Movers, position: np.ndarray, velocity: np.ndarray) -> None:
    """What touches the box and goes into it turns back."""
    nearest = np.clip(position, box[:, None, :2], np.maximum(box[:, None, 2:], box[:, None, :2]))
    gap = position - nearest
    apart = np.linalg.norm(gap, axis=-1)
    out = gap / np.maximum(apart, 1e-9)[..., None]
    into = (velocity * out).sum(-1)
    touches = (apart < movers.radius + 1e-6) & (into < 0) & (box[:, 2] > box[:, 0])[:, None]
    velocity -= np.where(touches, 2.0 * into, 0.0)[..., None] * out


def _land(stage: Stage, movers: Movers, position: np.ndarray, velocity: np.ndarray) -> None:
    """Where there is gravity there is a floor."""
    lowest = stage.floor[:, None] - movers.radius
    lands = (stage.gravity > 0)[:, None] & (position[..., 1] > lowest)
    position[..., 1] = np.where(lands, lowest, position[..., 1])
    down = velocity[..., 1]
    velocity[..., 1] = np.where(lands & (down > 0), np.where(down > 0.6, -_BOUNCE * down, 0.0), down)
