"""Matched films of what can happen and of what cannot, for nine questions about physics.

A *quadruplet* has two ways in which a film can begin and two in which it can go on, A and B. AA and BB are possible, AB
and BA are not, and the frames of the impossible two are those of the possible two. (Of gravity that holds pixel by
pixel: who falls is exchanged and the rope is not, and they share no pixel but at soft edges.) So whatever is summed
over frames, or over neighbouring frames, has the same sum on both sides, and a score made of it picks the right film of
a pair exactly half of the time: that is the guard against shortcuts, by construction. Where A and B look different at
the moment at which they are exchanged, something hides it: a screen (``hidden``) or, in full view, one grey frame, a
blink.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from ami.data.episodes import Episode
from ami.types import Embodiment
from ami.worlds.drawing import draw_boxes, draw_shapes, textures
from ami.worlds.physics import MOVERS, SIZE, Movers, Stage, paths
from ami.worlds.scenes import PAN, PRINCIPLES, Scenes, free, scenes

FRAMES = 24
GREY = 128
BLINKS = ("permanence", "continuity", "colour", "shape", "solidity", "unity")  # what shows when it is exchanged
GUST = 0.6  # px per frame and frame, at most
EMBODIMENT = Embodiment("physics", step_seconds=0.1, low=(-GUST, -GUST), high=(GUST, GUST))
# Of the films to learn from: collisions and falls are over in a moment, and a fifth is of nothing in particular.
_SHARES = np.array([*({"collision": 3.0, "gravity": 2.0}.get(principle, 1.0) for principle in PRINCIPLES), 3.0])
_SHARES /= _SHARES.sum()
_CHUNK = 16


class Draw(Protocol):
    """Films of the same scenes before the same backgrounds. Each outcome is (whose furniture, whose movers)."""

    def __call__(
        self,
        sides: tuple[Scenes, ...],
        frames: int,
        rng: np.random.Generator,
        *,
        outcomes: tuple[tuple[int, int], ...] = ((0, 0),),
        held_out: bool = False,
    ) -> UInt8[np.ndarray, "outcomes films frames 64 64 3"]: ...


def draw(
    sides: tuple[Scenes, ...],
    frames: int,
    rng: np.random.Generator,
    *,
    outcomes: tuple[tuple[int, int], ...] = ((0, 0),),
    gusts: np.ndarray | None = None,
    held_out: bool = False,
) -> UInt8[np.ndarray, "outcomes films frames 64 64 3"]:
    """Drawn flat, as they are simulated; ``gusts`` move all alike."""
    count = len(sides[0])
    places = [paths(side.movers, side.stage, frames, gusts)[0] for side in sides]
    drawn = np.empty((len(outcomes), count, frames, SIZE, SIZE, 3), np.uint8)
    for first in range(0, count, _CHUNK):
        rows = slice(first, first + _CHUNK)
        stage = sides[0].stage.rows(rows)
        offset = stage.camera[:, None] * (np.arange(frames)[:, None] - stage.moment[:, None, None])
        ground = textures(
            offset - offset.min(1, keepdims=True),
            rng,
            size=SIZE,
            reach=int(np.ceil(1.2 * PAN[1] * (frames - 1))) + 1,
            cells=(9.0, 4.0) if held_out else (16.0, 6.0),
            contrast=10.0,
            light=(95.0, 155.0),
        )
        for number, (furniture, movers) in enumerate(outcomes):
            picture = ground.copy()
            _draw(picture, sides[furniture], sides[movers].movers.rows(rows), places[movers][rows], offset, rows)
            drawn[number, rows] = (picture + 0.5).astype(np.uint8)
    return drawn


def _draw(
    picture: np.ndarray, scene: Scenes, movers: Movers, place: np.ndarray, offset: np.ndarray, rows: slice
) -> None:
    stage, paint = scene.stage.rows(rows), scene.paint[rows]
    frames = picture.shape[1]
    since = np.maximum(np.arange(frames) - stage.moment[:, None], 0)
    risen = (stage.pull[:, None] * since)[..., None] * np.array([0.0, -1.0, 0.0, -1.0])
    shift = np.concatenate([offset, offset], -1)

    def box(each: np.ndarray, colour: np.ndarray, moved: np.ndarray | float = 0.0) -> None:
        there = np.flatnonzero(each[:, 2] > each[:, 0])
        seen = each[:, None] + moved - shift
        draw_boxes(picture, there, seen[there], colour[there])

    wide = np.broadcast_to(np.array([-99.0, 0.0, 199.0, 199.0]), stage.wall.shape).copy()
    wide[:, 1] = stage.floor
    wide[stage.gravity == 0] = 0.0
    box(wide, paint[:, 3])
    box(stage.wall, paint[:, 0])
    box(stage.rope, paint[:, 1], risen)
    for mover in reversed(range(MOVERS)):
        there = np.flatnonzero(movers.there[:, mover])
        look = movers.radius[there, mover], movers.shape[there, mover], movers.colour[there, mover]
        draw_shapes(picture, there, place[there, mover] - offset[there], *look)
    box(stage.screen, paint[:, 2])


@dataclass(frozen=True)
class Quadruplets:
    """Films of one principle in one condition. ``films[i, j]`` begins as side i and goes on as side j."""

    films: UInt8[np.ndarray, "begins goes quadruplets frames 64 64 3"]
    moment: Int[np.ndarray, "quadruplets"]  # the first frame in which a possible and an impossible film may differ


def quadruplets(
    principle: str,
    count: int,
    seed: int | Sequence[int],
    *,
    hidden: bool,
    moving: bool,
    held_out: bool = False,
    draw: Draw = draw,
) -> Quadruplets:
    """``count`` quadruplets, two pairs each: any number of them from a seed."""
    rng = np.random.default_rng(seed)
    sides = scenes(principle, count, rng, hidden=hidden, moving=moving, held_out=held_out)
    moment = sides[0].stage.moment
    if principle == "gravity":  # what is exchanged is who falls, not what was before
        drawn = draw(sides, FRAMES, rng, outcomes=((0, 0), (0, 1), (1, 0), (1, 1)), held_out=held_out)
        films = drawn.reshape(2, 2, *drawn.shape[1:])
    else:
        drawn = draw(sides, FRAMES, rng, outcomes=((0, 0), (1, 1)), held_out=held_out)
        late = (np.arange(FRAMES) >= moment[:, None])[..., None, None, None]
        films = np.stack([np.stack([np.where(late, drawn[j], drawn[i]) for j in (0, 1)]) for i in (0, 1)])
    if principle in BLINKS and not hidden:
        films[:, :, np.arange(count), moment] = GREY
    return Quadruplets(films, moment)


def experience(
    count: int, rng: np.random.Generator, frames: int = FRAMES
) -> tuple[
    UInt8[np.ndarray, "films frames 64 64 3"],
    Float[np.ndarray, "films gaps 2"],
    Float[np.ndarray, "films frames truth"],
]:
    """Films of what can happen, of every kind, with the gusts that were made in them and their truth."""
    rows, sides, blown = zip(*possible(count, frames, rng), strict=True)
    order = np.argsort(np.concatenate(rows))
    scene, gusts = _joined(sides).rows(order), np.concatenate(blown)[order]  # to simulate one takes as long as all
    video = draw((scene,), frames, rng, gusts=gusts)[0]
    video[blinks(count, frames, rng)] = GREY
    return video, gusts, truth(scene, frames, gusts).astype(np.float32)


def blinks(count: int, frames: int, rng: np.random.Generator) -> Bool[np.ndarray, "films frames"]:
    """Where the camera blinks, now and then."""
    closed = np.zeros((count, frames), bool)
    for _ in range(2):
        some = np.flatnonzero(rng.random(count) < 0.4)
        closed[some, rng.integers(1, frames, len(some))] = True
    return closed


def possible(
    count: int, frames: int, rng: np.random.Generator
) -> Iterator[tuple[Int[np.ndarray, "some"], Scenes, Float[np.ndarray, "some gaps 2"]]]:
    """What ``count`` films of what can happen show, some at a time: which films, their scenes, and the gusts in them.

    Those of one principle are side A or B, at any moment, before no screen.
    """
    kinds = rng.choice(len(PRINCIPLES) + 1, count, p=_SHARES)
    for kind, principle in enumerate(PRINCIPLES):
        rows = np.flatnonzero(kinds == kind)
        moves = rng.random(len(rows)) < 0.5
        for moving in (False, True):
            some = rows[moves == moving]
            sides = scenes(principle, len(some), rng, hidden=False, moving=moving)
            moment = rng.integers(5, frames - 4, len(some))
            half = len(some) // 2
            for side, part in zip(sides, (slice(0, half), slice(half, None)), strict=True):
                side = replace(side, stage=replace(side.stage, moment=moment))
                if len(some[part]):
                    yield some[part], side.rows(part), np.zeros((len(some[part]), frames - 1, 2))
    rest = np.flatnonzero(kinds >= len(PRINCIPLES))
    if len(rest):
        yield rest, free(len(rest), rng), _gusts(len(rest), frames, rng)


def _joined(parts: Sequence[Scenes]) -> Scenes:
    movers, stage = Movers.joined([part.movers for part in parts]), Stage.joined([part.stage for part in parts])
    return Scenes(movers, stage, np.concatenate([part.paint for part in parts]))


def _gusts(count: int, frames: int, rng: np.random.Generator) -> np.ndarray:
    """In half of the films a wind comes up once, for three steps."""
    towards, strength = rng.uniform(-np.pi, np.pi, count), rng.uniform(0.1, GUST, count) * (rng.random(count) < 0.5)
    blows = strength[:, None] * np.stack([np.cos(towards), np.sin(towards)], -1)
    since = np.arange(frames - 1) - rng.integers(2, frames - 4, (count, 1))
    return blows[:, None] * ((since >= 0) & (since < 3))[..., None]


_OF_MOVER = ("x", "y", "dx", "dy", "there", "hidden")
TRUTH = (*(f"{who}_{what}" for who in "ab" for what in _OF_MOVER), "camera_dx", "camera_dy", "drag")


def truth(scene: Scenes, frames: int, gusts: np.ndarray) -> np.ndarray:
    """Where the first two movers are in the view, px, how fast in the world, and whether a screen hides them."""
    position, velocity = paths(scene.movers, scene.stage, frames, gusts)
    stage = scene.stage
    radius = scene.movers.radius[:, :, None]
    x, y = position[..., 0], position[..., 1]
    left, top, right, bottom = stage.screen.T[..., None, None]
    hidden = (x - radius >= left) & (x + radius <= right) & (y - radius >= top) & (y + radius <= bottom)
    offset = stage.camera[:, None] * (np.arange(frames)[:, None] - stage.moment[:, None, None])
    there = np.broadcast_to(scene.movers.there[..., None], hidden.shape)
    each = np.concatenate([position - offset[:, None], velocity, np.stack([there, hidden], -1)], -1)
    still = np.column_stack([stage.camera, stage.drag])[:, None].repeat(frames, 1)
    return np.concatenate([each[:, 0], each[:, 1], still], -1)


def collect(count: int, frames: int = FRAMES, seed: int = 0) -> list[Episode]:
    """``count`` films of ``frames`` frames of what can happen; the actions are gusts, the truth is ``TRUTH``."""
    if count < 1 or frames < 12:
        raise ValueError(f"{count} films of {frames} frames were asked for; at least 1 of 12 can be drawn")
    drawn = experience(count, np.random.default_rng(seed), frames)
    times = np.arange(frames) * EMBODIMENT.step_seconds
    return [
        Episode(times=times, video=film, actions=blown, truth=told, source=f"physics/seed-{seed}/{number}")
        for number, (film, blown, told) in enumerate(zip(*drawn, strict=True))
    ]
