"""A drawn shell game: three cups alike on a table, a ball under one of them, swaps, and now and then a lift.

Seen from the front and above, in pixels of the 64 x 64 view (x to the right, y down) and frames of 0.1 s. A film is a
row of *events* after one another: a rest, a swap of two cups, of which the nearer passes before the other and before
whatever it passes, a lift of all cups, or a peek under one. In films for training every other event is a rest, and
all cups go up for single frames of it: a *glimpse* of how things stand. The ball goes with its cup. What is done is
told as an action: 1 at each frame at which all cups are up. A peek is not announced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from matplotlib.colors import hsv_to_rgb

from ami.data.episodes import Episode
from ami.types import Embodiment
from ami.worlds.drawing import OUTLINES, draw_boxes, draw_shapes, textures

SIZE = 64  # px on a side
FRAMES = 32
CUPS = 3
EMBODIMENT = Embodiment("cups", step_seconds=0.1, low=(0.0,), high=(1.0,))
TRUTH = ("ball_x", "ball_y", "place", "hidden", "swaps", "age")  # place: from the left; the last two: since last seen

REST, SWAP, LIFT, PEEK = range(4)
_CHANCES = np.array([0.08, 0.82, 0.05, 0.05])  # of each kind of event between two rests
_PACE = 3.0, 5.0  # px per frame, the mean over a swap
_RESTS = 1, 5  # frames; the upper bound, as everywhere below, is not reached
_HELD = 1, 4  # frames for which a cup is held up
_UP = 2, 4  # frames that it takes to be peeked under, and again to come down
_OUTLINE = 0.6  # as light as the rest of a cup
_SETTLED = 3  # frames at least between the ball's going out of sight and the first swap of a game
_GLIMPSES = 0.5  # share of the frames of a rest at which all cups are up, in the films that training sees
_AWAY = -99.0  # px, out of the view
_CHUNK = 16
_SHAPES = tuple(OUTLINES).index


@dataclass(frozen=True)
class Table:
    """How the table is laid in many films, and how everything looks."""

    places: Float[np.ndarray, "films 3"]  # px, where cups stand, from the left
    floor: Float[np.ndarray, "films"]  # y of the cups' lower edge
    edge: Float[np.ndarray, "films"]  # y of the table's far edge
    cup: Float[np.ndarray, "films"]  # half of a cup's height
    ball: Float[np.ndarray, "films"]  # radius
    aside: Float[np.ndarray, "films"]  # px that a cup comes nearer, or goes farther, on its way
    high: Float[np.ndarray, "films"]  # px that a cup is lifted
    paint: Float[np.ndarray, "films 3 3"]  # of table, cups and ball; 0 to 255

    def __len__(self) -> int:
        return len(self.floor)

    def rows(self, index: np.ndarray | slice) -> Table:
        """Some of the films."""
        return replace(self, **{each.name: getattr(self, each.name)[index] for each in fields(self)})


@dataclass(frozen=True)
class Play:
    """What is done in many films, event by event; the first event shows the ball, from its middle on."""

    kind: Int[np.ndarray, "films events"]
    pair: Int[np.ndarray, "films events 2"]  # places: who swaps, the nearer one first; the first is peeked under
    frames: Int[np.ndarray, "films events"]  # how long it takes
    up: Int[np.ndarray, "films events"]  # of these, how many a peeked cup takes to go up, and to come down
    ball: Int[np.ndarray, "films"]  # the place of the cup that gets the ball
    glimpses: Bool[np.ndarray, "films frames"] | None = None  # when all cups are up, if nothing else goes on


@dataclass(frozen=True)
class Course:
    """Where everything is at every frame."""

    cups: Float[np.ndarray, "films frames 3 2"]  # px, the middles of cups; the order is that of their first places
    depth: Float[np.ndarray, "films frames 3"]  # y of where each stands, or would: the larger, the nearer
    ball: Float[np.ndarray, "films frames 2"]
    place: Int[np.ndarray, "films frames"]  # of the ball's cup, from the left; of one on its way, where it will stand
    hidden: Bool[np.ndarray, "films frames"]  # the ball
    done: Float[np.ndarray, "films gaps 1"]  # the actions
    swaps: Int[np.ndarray, "films frames"]  # that have begun


def lay(count: int, rng: np.random.Generator) -> Table:
    """Tables of many looks; the ball's hue is never that of the cups."""
    cup, ball = rng.uniform(6.5, 9.5, count), rng.uniform(2.4, 3.4, count)
    places = 32.0 + rng.uniform(-3.0, 3.0, (count, 1)) + rng.uniform(16.0, 19.0, (count, 1)) * np.arange(-1, 2)
    hue = rng.random((count, CUPS))
    hue[:, 2] = hue[:, 1] + rng.uniform(0.15, 0.85, count)
    strong = rng.uniform([0.05, 0.6, 0.6], [0.35, 0.95, 0.95], (count, 3))  # how strong a colour, and how light
    light = rng.uniform([0.6, 0.4, 0.75], [0.95, 0.8, 1.0], (count, 3))
    floor = rng.uniform(42.0, 50.0, count)
    return Table(
        places=places + rng.uniform(-1.0, 1.0, (count, CUPS)),
        floor=floor,
        edge=floor - rng.uniform(6.0, 14.0, count),
        cup=cup,
        ball=ball,
        aside=rng.uniform(3.5, 7.0, count),
        high=2 * ball + rng.uniform(3.0, 7.0, count),
        paint=255 * hsv_to_rgb(np.stack([hue % 1.0, strong, light], -1)),
    )


def play(table: Table, kind: Int[np.ndarray, "films events"], rng: np.random.Generator) -> Play:
    """Who swaps with whom and how long each event takes, drawn for these kinds of events."""
    shape = kind.shape
    pair = np.argsort(rng.random((*shape, CUPS)), -1)[..., :2]
    one, other = np.take_along_axis(table.places[:, None], pair, 2).transpose(2, 0, 1)
    pace = rng.uniform(*_PACE, (shape[0], 1)) * rng.uniform(0.85, 1.15, shape)
    up = rng.integers(*_UP, shape)
    held = rng.integers(*_HELD, shape)
    swap = np.ceil(np.abs(one - other) / pace).astype(int)
    return Play(
        kind, pair, np.choose(kind, [rng.integers(*_RESTS, shape), swap, held, 2 * up + held]), up, pair[:, 0, 0]
    )


def course(table: Table, plays: Play, frames: int) -> Course:
    """Where everything is, from the moment on at which the first event holds up its cup."""
    count, events = plays.kind.shape
    rows, now = np.arange(count)[:, None], np.arange(frames)
    ends = np.cumsum(plays.frames, 1) - plays.up[:, :1]
    starts = ends - plays.frames
    at = np.minimum((now[:, None] >= ends[:, None]).sum(-1), events - 1)
    kind, pair, up = plays.kind[rows, at], plays.pair[rows, at], plays.up[rows, at]
    since, left = now - starts[rows, at], ends[rows, at] - 1 - now
    was, becomes = _places(plays)
    was, becomes = was[rows, at], becomes[rows, at]

    phase = np.clip(since / plays.frames[rows, at], 0.0, 1.0)[..., None]
    x0, x1 = (np.take_along_axis(table.places[:, None], each, 2) for each in (was, becomes))
    x = x0 + (0.5 - 0.5 * np.cos(np.pi * phase)) * (x1 - x0)
    first = was == pair[..., :1]
    aside = np.where(first, 1.0, -0.8) * (was != becomes) * table.aside[:, None, None]
    depth = table.floor[:, None, None] + aside * np.sin(np.pi * phase)
    lifted = kind == LIFT
    if plays.glimpses is not None:
        lifted = lifted | (plays.glimpses & (kind == REST))
    peeked = np.clip(np.minimum(since + 1, left) / up, 0.0, 1.0) * (kind == PEEK)
    raised = table.high[:, None, None] * np.maximum(peeked[..., None] * first, lifted[..., None])
    mine = rows, now, plays.ball[:, None]
    return Course(
        cups=np.stack([x, depth - table.cup[:, None, None] - raised], -1),
        depth=depth,
        ball=np.stack([x[mine], depth[mine] - table.ball[:, None] - 0.5], -1),
        place=becomes[mine],
        hidden=raised[mine] == 0,
        done=lifted[:, 1:, None].astype(float),
        swaps=((plays.kind == SWAP)[:, None] & (now[:, None] >= starts[:, None])).sum(-1),
    )


def _places(plays: Play) -> tuple[Int[np.ndarray, "films events 3"], Int[np.ndarray, "films events 3"]]:
    """The place of each cup before and after each event."""
    place = np.tile(np.arange(CUPS), (len(plays.kind), 1))
    held = [place]
    for kind, (one, other) in zip(plays.kind.T, plays.pair.transpose(1, 2, 0)[..., None], strict=True):
        swapped = np.where(place == one, other, np.where(place == other, one, place))
        place = np.where((kind == SWAP)[:, None], swapped, place)
        held.append(place)
    each = np.stack(held, 1)
    return each[:, :-1], each[:, 1:]


def draw(
    table: Table, runs: Course, rng: np.random.Generator, balls: Sequence[Float[np.ndarray, "films frames 2"]] = ()
) -> UInt8[np.ndarray, "balls films frames 64 64 3"]:
    """The films; or several of each, before the same background, that differ in where the ball is."""
    balls = balls or [runs.ball]
    count, frames = runs.depth.shape[:2]
    drawn = np.empty((len(balls), count, frames, SIZE, SIZE, 3), np.uint8)
    nearer = np.argsort(runs.depth, 2, kind="stable")
    for first in range(0, count, _CHUNK):
        rows = slice(first, first + _CHUNK)
        here, some = table.rows(rows), np.arange(len(table.floor[rows]))
        ground = textures(
            np.zeros((len(some), frames, 2)), rng, size=SIZE, reach=1, cells=(16.0, 6.0), contrast=12.0, light=(60, 170)
        )
        top = np.broadcast_to(np.array([-9.0, 0.0, 99.0, 99.0]), (len(some), frames, 4)).copy()
        top[..., 1] = here.edge[:, None]
        draw_boxes(ground, some, top, here.paint[:, 0])
        for number, ball in enumerate(balls):
            picture = ground.copy()
            seen = np.where(runs.hidden[rows, :, None], _AWAY, ball[rows])  # or it would shine through soft edges
            draw_shapes(picture, some, seen, here.ball, np.full(len(some), _SHAPES("disc")), here.paint[:, 2])
            for rank in range(CUPS):
                who = nearer[rows, :, rank, None, None]
                where = np.take_along_axis(runs.cups[rows], who, 2)[:, :, 0]
                for half, shade in ((here.cup, _OUTLINE), (here.cup - 1.0, 1.0)):
                    draw_shapes(
                        picture, some, where, half, np.full(len(some), _SHAPES("cup")), shade * here.paint[:, 1]
                    )
            drawn[number, rows] = (picture + 0.5).astype(np.uint8)
    return drawn


def collect(count: int, frames: int = FRAMES, seed: int = 0) -> list[Episode]:
    """``count`` films of ``frames`` frames of games that go on and on, with their truth (``TRUTH``) at every frame."""
    if count < 1 or frames < 12:
        raise ValueError(f"{count} films of {frames} frames were asked for; at least 1 of 12 can be drawn")
    rng = np.random.default_rng(seed)
    table = lay(count, rng)
    kind = np.full((count, frames), REST)
    kind[:, 2::2] = rng.choice(4, kind[:, 2::2].shape, p=_CHANCES)
    kind[:, 0] = PEEK
    plays = replace(play(table, kind, rng), glimpses=rng.random((count, frames)) < _GLIMPSES)
    runs = course(table, plays, frames)
    video, told = draw(table, runs, rng)[0], truth(runs)
    times = np.arange(frames) * EMBODIMENT.step_seconds
    return [
        Episode(times=times, video=film, actions=done, truth=each, source=f"cups/seed-{seed}/{number}")
        for number, (film, done, each) in enumerate(zip(video, runs.done, told, strict=True))
    ]


def truth(runs: Course) -> Float[np.ndarray, "films frames truth"]:
    """What is the case at each frame, see ``TRUTH``."""
    now = np.arange(runs.place.shape[1])
    seen = np.maximum.accumulate(np.where(runs.hidden, 0, now), 1)
    since = runs.swaps - np.take_along_axis(runs.swaps, seen, 1)
    rest = np.stack([runs.place, runs.hidden, since, now - seen], -1)
    return np.concatenate([runs.ball, rest], -1).astype(np.float32)


@dataclass(frozen=True)
class Games:
    """Films of one game each, up to the step before all cups go up, and three ways in which they may go on."""

    past: UInt8[np.ndarray, "films past 64 64 3"]
    futures: UInt8[np.ndarray, "places films future 64 64 3"]  # with the ball under each of the cups, from the left
    done: Float[np.ndarray, "films gaps 1"]  # the actions of all of it
    answer: Int[np.ndarray, "films"]  # the future that came


def games(count: int, swaps: int, rng: np.random.Generator, future: int = 3) -> Games:
    """The ball is shown, so many swaps follow, and all cups are lifted. In short games it is shown longer."""
    table = lay(count, rng)
    kind = np.array([PEEK, REST, *[SWAP, REST] * swaps, LIFT])
    plays = play(table, np.tile(kind, (count, 1)), rng)
    pauses = rng.integers(0, 3, plays.frames.shape)
    pauses[:, 1] += _SETTLED
    length = np.where(plays.kind == REST, pauses, plays.frames)
    last = (length[:, :-1].sum(1) - plays.up[:, 0]).max()
    length[:, 0] += last - (length[:, :-1].sum(1) - plays.up[:, 0])
    runs = course(table, replace(plays, frames=length), last + future)
    balls = []
    for place in range(CUPS):
        ball = runs.ball.copy()
        ball[:, last:, 0] = table.places[:, place, None]
        balls.append(ball)
    films = draw(table, runs, rng, balls)
    return Games(films[0, :, :last], films[:, :, last:], runs.done, runs.place[:, -1])
