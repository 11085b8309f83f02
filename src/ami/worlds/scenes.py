"""Scenes of a physical world in which one thing happens at a moment: two sides, A and B, for each of nine principles.

permanence: a mover is there, or is not · continuity: it is here, or there · colour, shape: it looks so, or otherwise ·
solidity: it turns back from one side of a wall, or from the other · gravity: its rope is drawn away and it falls, or
holds and it stays · inertia: it moves this way, or that · collision: a slow and a fast mover meet, or a fast and a slow
· unity: one large mover, or two small ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from matplotlib.colors import hsv_to_rgb

from ami.worlds.drawing import OUTLINES
from ami.worlds.physics import MOVERS, SIZE, Movers, Stage

PRINCIPLES = ("permanence", "continuity", "colour", "shape", "solidity", "gravity", "inertia", "collision", "unity")
SPEED = 1.8, 3.0  # px per frame
RADIUS = 5.0, 6.5  # px
PAN = 0.4, 1.0  # px per frame, where the camera moves
DRAG = 0.0, 0.04
MOMENT = 10, 13  # frames
_SHAPES = tuple(OUTLINES).index
_USUAL = np.array([_SHAPES("disc"), _SHAPES("square"), _SHAPES("triangle"), _SHAPES("diamond")])
_HELD_OUT = np.array([_SHAPES("cross"), _SHAPES("ring")])
_HELD_OUT_HUES = ((0.10, 0.19), (0.55, 0.64))  # orange to yellow, and azure: never seen in training


@dataclass(frozen=True)
class Scenes:
    """What happens in many films, and how the furniture is painted."""

    movers: Movers
    stage: Stage
    paint: Float[np.ndarray, "films 4 3"]  # of wall, rope, screen and floor

    def __len__(self) -> int:
        return len(self.movers)

    def rows(self, index: np.ndarray | slice) -> Scenes:
        """Some of the films."""
        return Scenes(self.movers.rows(index), self.stage.rows(index), self.paint[index])


def scenes(
    principle: str, count: int, rng: np.random.Generator, *, hidden: bool, moving: bool, held_out: bool = False
) -> tuple[Scenes, Scenes]:
    """The two sides, A and B, of ``count`` quadruplets: at the moment they may exchange what follows."""
    if principle not in PRINCIPLES:
        raise ValueError(f"there is no principle '{principle}'; choose one of {', '.join(PRINCIPLES)}")
    movers, stage = _nothing(count, rng, moving, held_out)
    centre = 32.0 + rng.uniform(-4.0, 4.0, (count, 2))
    movers = replace(movers, position=movers.position * 0.0 + centre[:, None])
    pace = rng.uniform(*SPEED, count)
    forward = np.stack([pace, pace * rng.uniform(-0.25, 0.25, count)], -1)
    a, b = _SIDES[principle](movers, stage, forward, rng, held_out)
    if hidden:
        screen = _screen(a, b, rng)
        a, b = (replace(side, stage=replace(side.stage, screen=screen)) for side in (a, b))
    if principle in ("permanence", "colour", "shape", "collision", "unity"):
        a, b = _with_another(a, b, centre, rng)
    turn = rng.random((count, 2)) < 0.5
    return _turned(a, turn), _turned(b, turn)


def free(count: int, rng: np.random.Generator) -> Scenes:
    """Films of anything: up to three movers anywhere, that may meet."""
    movers, stage = _nothing(count, rng, moving=False, held_out=False)
    stage = replace(stage, camera=_camera(count, rng, False) * (rng.random((count, 1)) < 0.5))
    stage = replace(stage, moment=np.zeros(count, int), drag=rng.uniform(0.0, 0.08, count))
    cells = np.argsort(rng.random((count, 9)))[:, :MOVERS]
    position = np.stack([cells % 3, cells // 3], -1) * 20.0 + 12.0 + rng.uniform(-3.0, 3.0, (count, MOVERS, 2))
    heading = rng.uniform(-np.pi, np.pi, (count, MOVERS))
    pace = rng.uniform(0.5, SPEED[1], (count, MOVERS)) * (rng.random((count, MOVERS)) < 0.75)
    velocity = pace[..., None] * np.stack([np.cos(heading), np.sin(heading)], -1)
    there = np.arange(MOVERS) < rng.integers(1, MOVERS + 1, (count, 1))
    return _furnished(replace(movers, position=position, coming=velocity, going=velocity, there=there), stage, rng)


def _nothing(count: int, rng: np.random.Generator, moving: bool, held_out: bool) -> tuple[Movers, Stage]:
    """Nobody there, each with a look of its own, on an empty stage."""
    still, none = np.zeros((count, MOVERS, 2)), np.zeros((count, 4))
    movers = Movers(
        still,
        still,
        still,
        rng.uniform(*RADIUS, (count, MOVERS)),
        rng.choice(_HELD_OUT if held_out else _USUAL, (count, MOVERS)),
        _colours(_hues((count, MOVERS), rng, held_out), rng),
        np.zeros((count, MOVERS), bool),
    )
    camera = _camera(count, rng, held_out) if moving else np.zeros((count, 2))
    still = np.zeros(count)
    stage = Stage(
        rng.integers(*MOMENT, count), none, none, still, none, still, still, rng.uniform(*DRAG, count), camera
    )
    return movers, stage


def _camera(count: int, rng: np.random.Generator, held_out: bool) -> np.ndarray:
    towards = rng.uniform(-np.pi, np.pi, count)
    pan = rng.uniform(PAN[1], 1.2 * PAN[1], count) if held_out else rng.uniform(*PAN, count)
    return pan[:, None] * np.stack([np.cos(towards), np.sin(towards)], -1)


def _hues(shape: tuple[int, ...], rng: np.random.Generator, held_out: bool) -> np.ndarray:
    (a, b), (c, d) = _HELD_OUT_HUES
    if held_out:
        share = rng.uniform(0.0, b - a + d - c, shape)
        return np.where(share < b - a, a + share, c + share - (b - a))
    share = rng.uniform(0.0, 1.0 - (b - a) - (d - c), shape)
    share = share + (share >= a) * (b - a)
    return share + (share >= c) * (d - c)


def _colours(hue: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    strong, light = rng.uniform(0.7, 1.0, hue.shape), rng.uniform(0.7, 1.0, hue.shape)
    return 255.0 * hsv_to_rgb(np.stack([hue, strong, light], -1))


def _furnished(movers: Movers, stage: Stage, rng: np.random.Generator) -> Scenes:
    count = len(movers)
    paint = rng.uniform(0.0, 1.0, (count, 4)), rng.uniform(0.0, 0.3, (count, 4)), rng.uniform(0.25, 0.85, (count, 4))
    return Scenes(movers, stage, 255.0 * hsv_to_rgb(np.stack(paint, -1)))


def _first(values: np.ndarray, new: np.ndarray, mover: int = 0) -> np.ndarray:
    """The same with other values for one mover."""
    values = values.copy()
    values[:, mover] = new
    return values


def _one(movers: Movers, velocity: np.ndarray) -> Movers:
    """The first mover alone, on a straight way."""
    there = _first(movers.there, np.ones(len(movers), bool))
    return replace(movers, coming=_first(movers.coming, velocity), going=_first(movers.going, velocity), there=there)


Sides = tuple[Scenes, Scenes]


def _permanence(movers: Movers, stage: Stage, forward: np.ndarray, rng: np.random.Generator, held_out: bool) -> Sides:
    a = _furnished(_one(movers, forward), stage, rng)
    return a, replace(a, movers=replace(a.movers, there=np.zeros_like(movers.there)))


def _continuity(movers: Movers, stage: Stage, forward: np.ndarray, rng: np.random.Generator, held_out: bool) -> Sides:
    a = _furnished(_one(movers, forward), stage, rng)
    aside = np.stack([np.zeros(len(movers)), rng.uniform(6.5, 9.0, len(movers))], -1)
    place = movers.position[:, 0]
    up, down = (replace(a.movers, position=_first(movers.position, place + sign * aside)) for sign in (-1, 1))
    return replace(a, movers=up), replace(a, movers=down)


def _colour(movers: Movers, stage: Stage, forward: np.ndarray, rng: np.random.Generator, held_out: bool) -> Sides:
    a = _furnished(_one(movers, forward), stage, rng)
    hue = _hues((len(movers), 2), rng, held_out)
    while (near := (np.abs((hue[:, 0] - hue[:, 1] + 0.5) % 1.0 - 0.5) < 0.2)).any():
        hue[near] = _hues((int(near.sum()), 2), rng, held_out)
    colour = _colours(hue, rng)
    one, other = (replace(a.movers, colour=_first(movers.colour, colour[:, side])) for side in (0, 1))
    return replace(a, movers=one), replace(a, movers=other)


def _shape(movers: Movers, stage: Stage, forward: np.ndarray, rng: np.random.Generator, held_out: bool) -> Sides:
    a = _furnished(_one(movers, forward), stage, rng)
    kinds = _HELD_OUT if held_out else _USUAL
    pair = kinds[np.argsort(rng.random((len(movers), len(kinds))))[:, :2]]
    one, other = (replace(a.movers, shape=_first(movers.shape, pair[:, side])) for side in (0, 1))
    return replace(a, movers=one), replace(a, movers=other)


def _solidity(movers: Movers, stage: Stage, forward: np.ndarray, rng: np.random.Generator, held_out: bool) -> Sides:
    thick, tall = rng.uniform(4.0, 6.0, len(movers)), 28.0
    x, y = movers.position[:, 0].T
    wall = np.stack([x - thick / 2, y - tall, x + thick / 2, y + tall], -1)
    a = _furnished(_one(movers, forward), replace(stage, wall=wall), rng)
    back, aside = forward * [-1, 1], np.stack([thick / 2 + movers.radius[:, 0], np.zeros(len(movers))], -1)
    left = replace(
        a.movers,
        position=_first(movers.position, movers.position[:, 0] - aside),
        going=_first(movers.going, back),
    )
    right = replace(
        a.movers,
        position=_first(movers.position, movers.position[:, 0] + aside),
        coming=_first(movers.coming, back),
    )
    return replace(a, movers=left), replace(a, movers=right)


def _gravity(movers: Movers, stage: Stage, forward: np.ndarray, rng: np.random.Generator, held_out: bool) -> Sides:
    count = len(movers)
    x, y = movers.position[:, 0, 0], rng.uniform(20.0, 25.0, count)
    end, half = y - movers.radius[:, 0] - 1.0, rng.uniform(1.0, 2.0, count)  # rope and mover share no pixel
    stage = replace(
        stage,
        rope=np.stack([x - half, np.full(count, -2.0 * SIZE), x + half, end], -1),
        floor=rng.uniform(56.0, 60.0, count),
        gravity=np.full(count, 0.5),
        drag=np.zeros(count),
    )
    place = _first(movers.position, np.stack([x, y], -1))
    b = _furnished(replace(_one(movers, 0.0 * forward), position=place), stage, rng)
    return replace(b, stage=replace(stage, pull=rng.uniform(1.6, 2.4, count))), b


def _inertia(movers: Movers, stage: Stage, forward: np.ndarray, rng: np.random.Generator, held_out: bool) -> Sides:
    angle = np.deg2rad(rng.uniform(60.0, 120.0, len(movers))) * rng.choice([-1, 1], len(movers))
    x, y = forward.T
    turned = np.stack([np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y], -1)
    a = _furnished(_one(movers, forward), stage, rng)
    return a, replace(a, movers=_one(a.movers, turned))


def _collision(movers: Movers, stage: Stage, forward: np.ndarray, rng: np.random.Generator, held_out: bool) -> Sides:
    ahead = np.array([1.0, 0.0])
    slow = rng.uniform(0.7, 1.1, (len(movers), 1)) * ahead
    fast = rng.uniform(2.2, 3.0, (len(movers), 1)) * ahead
    left = movers.position[:, 0] - movers.radius[:, :1] * ahead
    right = movers.position[:, 0] + movers.radius[:, 1:2] * ahead
    there = np.broadcast_to(np.arange(MOVERS) < 2, movers.there.shape)
    both = replace(movers, position=_first(_first(movers.position, left), right, 1), there=there)
    a = _furnished(both, stage, rng)
    still = movers.coming

    def meet(one: np.ndarray, other: np.ndarray) -> Movers:
        coming, going = _first(_first(still, one), -other, 1), _first(_first(still, -other), one, 1)
        return replace(both, coming=coming, going=going)

    return replace(a, movers=meet(slow, fast)), replace(a, movers=meet(fast, slow))


def _unity(movers: Movers, stage: Stage, forward: np.ndarray, rng: np.random.Generator, held_out: bool) -> Sides:
    radius = movers.radius.copy()
    radius[:, 0] = rng.uniform(6.5, 7.5, len(movers))
    a = _furnished(_one(replace(movers, radius=radius), forward), stage, rng)
    half = radius[:, 0] / 2**0.5
    aside = np.stack([np.zeros(len(movers)), half + 0.5], -1)
    two = _one(a.movers, forward)
    for mover, sign in ((0, -1), (1, 1)):
        two = replace(
            two,
            position=_first(two.position, movers.position[:, 0] + sign * aside, mover),
            coming=_first(two.coming, forward, mover),
            going=_first(two.going, forward, mover),
            radius=_first(two.radius, half, mover),
            shape=_first(two.shape, movers.shape[:, 0], mover),
            colour=_first(two.colour, movers.colour[:, 0], mover),
            there=_first(two.there, np.ones(len(movers), bool), mover),
        )
    return a, replace(a, movers=two)


_SIDES = {
    "permanence": _permanence,
    "continuity": _continuity,
    "colour": _colour,
    "shape": _shape,
    "solidity": _solidity,
    "gravity": _gravity,
    "inertia": _inertia,
    "collision": _collision,
    "unity": _unity,
}


def _screen(a: Scenes, b: Scenes, rng: np.random.Generator) -> np.ndarray:
    """A screen that covers, at the moment, whatever is different in A and B."""
    margin = rng.uniform([2.0, 3.0], [4.5, 7.0], (len(a), 2))
    low, high = np.full((len(a), 2), np.inf), np.full((len(a), 2), -np.inf)
    for side in (a, b):
        reach = side.movers.radius[..., None] + 1.0
        there = side.movers.there[..., None]
        low = np.minimum(low, np.where(there, side.movers.position - reach, np.inf).min(1))
        high = np.maximum(high, np.where(there, side.movers.position + reach, -np.inf).max(1))
    screen = np.concatenate([low - margin, high + margin], -1)
    screen[:, 3] += np.where(a.stage.gravity > 0, 4.0, 0.0)  # the beginning of the fall is hidden too
    return screen


def _with_another(a: Scenes, b: Scenes, centre: np.ndarray, rng: np.random.Generator) -> Sides:
    """In half of the films somebody else passes by, too far away to be met."""
    count = len(a)
    place = centre + np.stack(
        [rng.uniform(-20, 20, count), rng.choice([-1, 1], count) * rng.uniform(20, 24, count)], -1
    )
    pace = np.stack([rng.uniform(-1.0, 1.0, count), np.zeros(count)], -1)
    there = rng.random(count) < 0.5

    def joined(movers: Movers) -> Movers:
        last = MOVERS - 1
        return replace(
            movers,
            position=_first(movers.position, place, last),
            coming=_first(movers.coming, pace, last),
            going=_first(movers.going, pace, last),
            there=_first(movers.there, there, last),
        )

    return replace(a, movers=joined(a.movers)), replace(b, movers=joined(b.movers))


def _turned(scene: Scenes, turn: np.ndarray) -> Scenes:
    """Mirrored left to right where ``turn[:, 0]``; where ``turn[:, 1]`` x and y change places, if nothing falls."""
    mirror = turn[:, 0]
    swap = turn[:, 1] & (scene.stage.gravity == 0)

    def vector(values: np.ndarray, size: float) -> np.ndarray:
        lead = (slice(None), *(None,) * (values.ndim - 2))
        x, y = np.where(mirror[lead], size - values[..., 0], values[..., 0]), values[..., 1]
        return np.stack([np.where(swap[lead], y, x), np.where(swap[lead], x, y)], -1)

    def box(values: np.ndarray) -> np.ndarray:
        low, high = vector(values[:, :2], SIZE), vector(values[:, 2:], SIZE)
        turned = np.concatenate([np.minimum(low, high), np.maximum(low, high)], -1)
        return np.where((values[:, 2] > values[:, 0])[:, None], turned, 0.0)

    movers, stage = scene.movers, scene.stage
    movers = replace(
        movers,
        position=vector(movers.position, SIZE),
        coming=vector(movers.coming, 0.0),
        going=vector(movers.going, 0.0),
    )
    stage = replace(
        stage,
        wall=box(stage.wall),
        rope=box(stage.rope),
        screen=box(stage.screen),
        camera=vector(stage.camera, 0.0),
    )
    return replace(scene, movers=movers, stage=stage)
