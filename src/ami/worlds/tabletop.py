"""Things on a table in a room, that slide and roll as MuJoCo has it, seen by a camera that moves about them.

Metres, seconds and radians; the world's origin is the middle of the table's top, z is up. The thing called *target* is
red with a white end, so that it shows which way it faces; no other thing is reddish. An action is the camera's own
motion: how far it goes (right, down, ahead) and how it turns (a rotation vector), in its axes before the motion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.colors import hsv_to_rgb
from scipy.spatial.transform import Rotation

from ami.data.episodes import Episode
from ami.types import Embodiment
from ami.worlds.bodies import mujoco_for
from ami.worlds.eye import INTRINSICS, Eye, looking, mjcf, paint, room, text
from ami.worlds.task import refuse_few

NAME = "tabletop"
GO, TURN = 0.2, 0.15  # metres and radians between two frames, at most
EMBODIMENT = Embodiment(NAME, step_seconds=0.1, low=(-GO,) * 3 + (-TURN,) * 3, high=(GO,) * 3 + (TURN,) * 3)
WHO = ("target", "b", "c", "d", "e")
TRUTH = tuple(f"{who}_{what}" for who in WHO for what in ("there", "x", "y", "z", "vx", "vy", "vz", "yaw", "pixels"))
HALF, RIM, DEEP = 0.55, 0.05, 0.7  # metres: half of the table's side, the height of its rim and of the table
STILL = 0.25  # of the films have a camera that stands
_PARTS = 20  # of a frame, for the simulator
_HUES = 0.09, 0.91  # of all things but the target
# Half of their sides; radius; radius and half of the height: what MuJoCo calls a geom's size.
_SIZES = {
    "box": ((0.04, 0.04, 0.04), (0.1, 0.1, 0.1)),
    "sphere": ((0.04,), (0.085,)),
    "cylinder": ((0.04, 0.04), (0.08, 0.1)),
    "ellipsoid": ((0.06, 0.04, 0.04), (0.11, 0.08, 0.07)),
    "capsule": ((0.035, 0.04), (0.055, 0.08)),  # it lies
}
_HEIGHT = {"box": 2, "sphere": 0, "cylinder": 1, "ellipsoid": 2, "capsule": 0}  # which of the sizes says how high


@dataclass(frozen=True)
class Thing:
    """Something on the table, as it is at the beginning."""

    kind: str
    size: Float[np.ndarray, "sizes"]
    colour: Float[np.ndarray, "3"]  # 0 to 1
    glossy: bool
    place: Float[np.ndarray, "2"]
    yaw: float
    velocity: Float[np.ndarray, "2"]
    spin: float  # about z

    @property
    def height(self) -> float:
        """Of its middle above the table."""
        return float(self.size[_HEIGHT[self.kind]])

    @property
    def reach(self) -> float:
        """No part of it is farther from its middle than this."""
        return float(np.linalg.norm(self.size)) if self.kind != "capsule" else float(self.size.sum())


@dataclass(frozen=True)
class Film:
    """An episode, and which of the things each pixel shows: its number in ``WHO``, or -1."""

    episode: Episode
    segments: Int[np.ndarray, "frames 64 64"]


def collect(episodes: int, steps: int, seed: int) -> list[Episode]:
    """Record episodes of ``steps`` frames; ``ValueError`` where ``mujoco`` is not installed."""
    refuse_few(episodes, steps)
    eye = Eye(NAME)
    return [film(eye, steps, (seed, number), f"{NAME}/seed-{seed}/{number}").episode for number in range(episodes)]


def film(eye: Eye, steps: int, key: tuple[int, int], source: str = "") -> Film:
    """One episode with its segments, all of it drawn from ``key``."""
    rng = np.random.default_rng(key)
    mujoco, things, poses = mujoco_for(NAME), laid(rng), paths(steps, rng)
    model = mujoco.MjModel.from_xml_string(_document(things, rng))
    paint(model, rng)
    data = mujoco.MjData(model)
    for number, thing in enumerate(things):
        data.qvel[6 * number : 6 * number + 6] = *thing.velocity, 0.0, 0.0, 0.0, thing.spin
    seen, segments, told = [], [], []
    for number, pose in enumerate(poses):
        if number:
            mujoco.mj_step(model, data, _PARTS)
        mujoco.mj_forward(model, data)  # where everything is now: a step leaves that as it was before
        seen.append(eye.look(model, data, pose))
        segments.append(np.where(seen[-1].geom < 0, -1, model.geom_bodyid[seen[-1].geom] - 1))
        told.append(_truth(data, len(things), segments[-1]))
    episode = Episode(
        times=np.arange(steps) * EMBODIMENT.step_seconds,
        video=np.stack([each.video for each in seen]),
        depth=np.stack([each.depth for each in seen]),
        pose=poses,
        intrinsics=np.array(INTRINSICS),
        actions=motions(poses),
        truth=np.stack(told),
        source=source,
    )
    return Film(episode, np.stack(segments))


def laid(rng: np.random.Generator) -> list[Thing]:
    """The target and one to four other things, apart from each other; most of them move."""
    things: list[Thing] = []
    count = int(rng.integers(2, len(WHO) + 1))
    while len(things) < count:
        new = _thing(rng, target=not things)
        if all(np.linalg.norm(new.place - each.place) > new.reach + each.reach for each in things):
            things.append(new)
    return things


def _thing(rng: np.random.Generator, target: bool) -> Thing:
    kind = "box" if target else str(rng.choice(list(_SIZES)))
    size = rng.uniform(*_SIZES[kind])
    hue, strong, light = rng.uniform(*_HUES), rng.uniform(0.5, 1.0), rng.uniform(0.5, 1.0)
    if target:
        size = rng.uniform([0.1, 0.045, 0.04], [0.12, 0.065, 0.055])
        hue, strong, light = rng.uniform(-0.02, 0.02) % 1.0, rng.uniform(0.8, 1.0), rng.uniform(0.7, 0.95)
    towards, speed = rng.uniform(-np.pi, np.pi), rng.uniform(0.1, 0.9) * (rng.random() < 0.7)
    return Thing(
        kind=kind,
        size=size,
        colour=hsv_to_rgb([hue, strong, light]),
        glossy=bool(rng.random() < 0.3),
        place=rng.uniform(-HALF + 0.12, HALF - 0.12, 2),
        yaw=rng.uniform(-np.pi, np.pi),
        velocity=speed * np.array([np.cos(towards), np.sin(towards)]),
        spin=rng.uniform(-4.0, 4.0) * (speed > 0.0),
    )


def _document(things: list[Thing], rng: np.random.Generator) -> str:
    tints, wood = rng.uniform(0.5, 1.0, (5, 3)), rng.uniform(0.5, 1.0, (2, 3))
    slip = f'friction="{rng.uniform(0.02, 0.1):.3g} 0.001 0.0001"'
    table = (
        f'<geom type="box" size="{HALF} {HALF} 0.02" pos="0 0 -0.02" material="table" {slip} rgba="{text(wood[0])} 1"/>'
    )
    for x, y in ((1, 0), (0, 1), (-1, 0), (0, -1)):
        long = text([0.01 + HALF * abs(y), 0.01 + HALF * abs(x), RIM])
        table += f'<geom type="box" size="{long}" pos="{x * HALF} {y * HALF} 0" {slip} rgba="{text(wood[1])} 1"/>'
    light = (*rng.uniform(-0.7, 0.7, 2), -1.0)
    bodies = [_body(thing, slip, target=not number) for number, thing in enumerate(things)]
    return mjcf(room(-DEEP, tints) + table + "".join(bodies), light)


def _body(thing: Thing, slip: str, target: bool) -> str:
    """The target is two boxes end to end, of which the one ahead is white."""
    look = f'{slip} material="{"glossy" if thing.glossy else "matt"}" type="{thing.kind}"'
    lying = 'zaxis="1 0 0"' if thing.kind == "capsule" else ""
    geoms = f'<geom {look} size="{text(thing.size)}" {lying} rgba="{text(thing.colour)} 1"/>'
    if target:
        (long, wide, high), share = thing.size, 1 / 3
        red, white = text([long * (1 - share), wide, high]), text([long * share, wide, high])
        geoms = (
            f'<geom {look} size="{red}" pos="{-long * share} 0 0" rgba="{text(thing.colour)} 1"/>'
            f'<geom {look} size="{white}" pos="{long * (1 - share)} 0 0" rgba="0.95 0.95 0.95 1"/>'
        )
    turned = text([np.cos(thing.yaw / 2), 0.0, 0.0, np.sin(thing.yaw / 2)])
    return f'<body pos="{text([*thing.place, thing.height])}" quat="{turned}"><freejoint/>{geoms}</body>'


def paths(steps: int, rng: np.random.Generator) -> Float[np.ndarray, "steps 4 4"]:
    """Camera poses: about the table at a steady rate, swaying in height, distance, aim and tilt; or one that stands."""
    time = np.arange(steps)[:, None]
    middle = rng.uniform([-np.pi, 0.45, 1.1, -0.12, -0.12, -0.08], [np.pi, 0.85, 1.6, 0.12, 0.12, 0.08])
    sway = rng.uniform(0.0, [0.1, 0.15, 0.2, 0.1, 0.1, 0.08])
    period, phase = rng.uniform(20.0, 40.0, 6), rng.uniform(-np.pi, np.pi, 6)
    way = middle + sway * np.sin(2.0 * np.pi * time / period + phase)
    way[:, 0] += rng.uniform(-0.08, 0.08) * time[:, 0]
    if rng.random() < STILL:
        way[:] = way[0]
    return np.stack([_around(*each) for each in way])


def _around(azimuth: float, elevation: float, distance: float, x: float, y: float, roll: float) -> np.ndarray:
    at = np.array([x, y, 0.0])
    flat = np.cos(elevation)
    away = np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)])
    return looking(at + distance * away, at, roll)


def motions(poses: Float[np.ndarray, "steps 4 4"]) -> Float[np.ndarray, "steps-1 6"]:
    """How the camera went and turned from each pose to the next, in its axes before the motion."""
    between = np.linalg.inv(poses[:-1]) @ poses[1:]
    return np.concatenate([between[:, :3, 3], Rotation.from_matrix(between[:, :3, :3]).as_rotvec()], 1)


def _truth(data: Any, count: int, segments: Int[np.ndarray, "64 64"]) -> Float[np.ndarray, "truth"]:
    told = np.zeros((len(WHO), len(TRUTH) // len(WHO)), np.float32)
    for number in range(count):
        turned, speed = data.xmat[1 + number].reshape(3, 3), data.qvel[6 * number : 6 * number + 3]
        yaw = np.arctan2(turned[1, 0], turned[0, 0])
        told[number] = 1.0, *data.xpos[1 + number], *speed, yaw, (segments == number).sum()
    return told.ravel()
