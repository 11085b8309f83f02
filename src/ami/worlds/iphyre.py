"""I-PHYRE: games in which blocks are removed, each at its moment, so that all balls fall into the abyss below.

The 40 games are those of the package ``iphyre`` (Li et al. 2023, "I-PHYRE: Interactive Physical Reasoning"). They are
simulated here by the same engine with the same numbers, so that layouts of one's own can be played too; a test holds
both side by side. Lengths in px of the game's screen, 600 x 600, x to the right and y down; seconds; radians.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw

from ami.types import Embodiment
from ami.worlds.pictures import fitted
from ami.worlds.task import SIZE, needed

NAME, EXTRA = "i-phyre", "iphyre"
SIDE = 600.0  # px of the screen; a ball below it has fallen
TICK = 1 / 60  # seconds of a physics step
REPEAT = 6  # physics steps in a model step
LASTS = 15.0  # seconds of a play
LATEST = 7.5  # seconds until which blocks are removed, as the package's own random plays do
PLACES = 12  # objects of a layout, at most
THICK = 10.0  # px from a block's middle line to its side
BODY = Embodiment(NAME, REPEAT * TICK, (0.0,) * PLACES, (1.0,) * PLACES)
# What is told of each object: the package's own description (where a block's ends are, as middle and half), and how it
# moves. ``joint`` and ``spring`` number the two that belong together, ``length`` is how far apart these were at first.
NUMBERS = (
    *("x", "y", "half_x", "half_y", "velocity_x", "velocity_y", "spin", "radius"),
    *("there", "moves", "removable", "ball", "joint", "spring", "length"),
)
X, Y, THERE, BALL = (NUMBERS.index(name) for name in ("x", "y", "there", "ball"))

Objects = Float[np.ndarray, "12 15"]
Plan = Float[np.ndarray, "removable"]  # seconds at which each removable block is removed; infinite: never

_GRAVITY = 100.0  # px/s²
_FRICTION, _ELASTICITY = 0.5, 0.1
_SPRING = (20.0, 1.0, 0.3)  # rest length, stiffness, damping
_COLOURS = {"fixed": (0, 0, 0), "removable": (164, 164, 164), "moves": (60, 90, 220), "ball": (230, 40, 40)}


@dataclass(frozen=True)
class Layout:
    """What a game begins with: blocks with two ends, then balls, all at rest."""

    blocks: tuple[tuple[float, float, float, float], ...]  # x, y of one end and of the other
    balls: tuple[tuple[float, float, float], ...]  # x, y, radius
    moves: tuple[bool, ...]  # of each block: whether it falls
    removable: tuple[bool, ...]  # of each block
    joints: tuple[tuple[int, int], ...] = ()  # of two objects that stay equally far apart
    springs: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if not self.balls or len(self.blocks) + len(self.balls) > PLACES:
            raise ValueError(
                f"{len(self.blocks)} blocks and {len(self.balls)} balls came; a game has 1 ball or more and at most "
                f"{PLACES} objects"
            )

    @classmethod
    def told(cls, objects: Objects) -> Layout:
        """The layout that a description of a beginning tells of; blocks come before balls."""
        there = objects[objects[:, THERE] > 0]
        blocks, balls = there[there[:, BALL] == 0], there[there[:, BALL] > 0]
        ends = np.concatenate([blocks[:, :2] - blocks[:, 2:4], blocks[:, :2] + blocks[:, 2:4]], 1)

        def pairs(kind: str) -> tuple[tuple[int, int], ...]:
            number = there[:, NUMBERS.index(kind)]
            found = (np.flatnonzero(number == each).tolist() for each in np.unique(number[number > 0]))
            return tuple((one, two) for one, two in found)

        return cls(
            blocks=tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in ends.tolist()),
            balls=tuple((x, y, radius) for x, y, radius in balls[:, [X, Y, NUMBERS.index("radius")]].tolist()),
            moves=tuple((blocks[:, NUMBERS.index("moves")] > 0).tolist()),
            removable=tuple((blocks[:, NUMBERS.index("removable")] > 0).tolist()),
            joints=pairs("joint"),
            springs=pairs("spring"),
        )

    @property
    def choices(self) -> tuple[int, ...]:
        """The objects that can be removed."""
        return tuple(np.flatnonzero(self.removable).tolist())


class Play:
    """One play from its beginning: what is removed goes in, what is there then comes out."""

    def __init__(self, layout: Layout) -> None:
        pymunk = needed("pymunk", NAME, EXTRA)
        self.layout, self.solved = layout, False
        self._space = pymunk.Space()
        self._space.gravity = (0.0, _GRAVITY)
        self._shapes = [
            *(self._block(pymunk, *each) for each in zip(layout.blocks, layout.moves, strict=True)),
            *(self._ball(pymunk, *each) for each in layout.balls),
        ]
        self._links = []
        for kind, pairs in (("joint", layout.joints), ("spring", layout.springs)):
            for number, pair in enumerate(pairs, 1):
                one, two = (self._shapes[each].body for each in pair)
                holds = (
                    pymunk.PinJoint(one, two)
                    if kind == "joint"
                    else pymunk.DampedSpring(one, two, (0, 0), (0, 0), *_SPRING)
                )
                self._space.add(holds)
                self._links.append((kind, number, pair, abs(one.position - two.position), holds))

    def step(self, removed: Iterable[int] = ()) -> Objects:
        """Remove objects, then let a model step pass. Who cannot be removed, or is gone, is left alone."""
        for each in removed:
            if each in self.layout.choices:
                self._remove(each)
        for _ in range(REPEAT):
            self._space.step(TICK)
            self.solved |= all(shape.body.position.y > SIDE for shape in self._shapes[len(self.layout.blocks) :])
        return self.objects()

    def objects(self) -> Objects:
        """The description of all that is there; zeros for what is not."""
        told = np.zeros((PLACES, len(NUMBERS)), np.float32)
        blocks = len(self.layout.blocks)
        for place, shape in enumerate(self._shapes):
            if shape is None:
                continue
            body, ball = shape.body, place >= blocks
            falls = ball or self.layout.moves[place]
            half = (0.0, 0.0) if ball else shape.b.rotated(body.angle)
            moving = (*body.velocity, body.angular_velocity) if falls else (0.0, 0.0, 0.0)
            kind = (1.0, falls, not ball and self.layout.removable[place], ball)
            told[place, :12] = (*body.position, *half, *moving, shape.radius, *kind)
        for kind, number, pair, length, _ in self._links:
            told[list(pair), NUMBERS.index(kind)] = number
            told[list(pair), NUMBERS.index("length")] = length
        return told

    def _remove(self, place: int) -> None:
        shape = self._shapes[place]
        if shape is None:
            return
        for link in [link for link in self._links if place in link[2]]:
            self._space.remove(link[-1])
            self._links.remove(link)
        self._space.remove(shape, shape.body)
        self._shapes[place] = None

    def _block(self, pymunk: Any, ends: tuple[float, float, float, float], moves: bool) -> Any:
        start, end = np.reshape(ends, (2, 2))
        middle = (start + end) / 2
        body = pymunk.Body(body_type=pymunk.Body.STATIC)
        if moves:  # the game gives every block the same moment, however long it is
            body = pymunk.Body(1.0, pymunk.moment_for_segment(1.0, (0, 0), (0, 0), THICK))
        shape = pymunk.Segment(body, tuple((start - middle).tolist()), tuple((end - middle).tolist()), THICK)
        return self._placed(shape, middle)

    def _ball(self, pymunk: Any, x: float, y: float, radius: float) -> Any:
        body = pymunk.Body(1.0, pymunk.moment_for_circle(1.0, 0, radius))
        return self._placed(pymunk.Circle(body, radius), np.array([x, y]))

    def _placed(self, shape: Any, middle: Float[np.ndarray, "2"]) -> Any:
        shape.body.position = tuple(middle.tolist())
        shape.friction, shape.elasticity = _FRICTION, _ELASTICITY
        self._space.add(shape.body, shape)
        return shape


def games() -> Mapping[str, Layout]:
    """The 40 games by name, in the package's order."""
    with contextlib.redirect_stdout(io.StringIO()):  # pygame, which the package imports, greets there
        described = needed("iphyre.games", NAME, EXTRA).PARAS
    return {name: _layout(each) for name, each in described.items()}


def random_plan(layout: Layout, rng: np.random.Generator) -> Plan:
    """Each block at another tenth of a second up to 7.5, one in five never: the package's own random plays."""
    moments = 1 + rng.choice(round(LATEST / BODY.step_seconds), len(layout.choices), replace=False)
    return np.where(rng.random(len(moments)) < 0.2, np.inf, np.round(moments * BODY.step_seconds, 6))


def actions(
    layout: Layout, plans: Float[np.ndarray, "plans removable"], steps: int
) -> Bool[np.ndarray, "plans steps 12"]:
    """Plans as what is removed at each model step."""
    done = np.zeros((len(plans), steps, PLACES), bool)
    plan, which = np.nonzero(np.isfinite(plans))
    moment = np.round(plans[plan, which] / BODY.step_seconds).astype(int)
    inside = moment < steps
    done[plan[inside], moment[inside], np.array(layout.choices, int)[which[inside]]] = True
    return done


def play(layout: Layout, plan: Plan) -> tuple[bool, Float[np.ndarray, "steps 12 15"]]:
    """Whether a plan solves the game, and all that was there, the beginning included, until it did or time was up."""
    steps = round(LASTS / BODY.step_seconds)
    game = Play(layout)
    passed = [game.objects()]
    for done in actions(layout, plan[None], steps)[0]:
        passed.append(game.step(np.flatnonzero(done).tolist()))
        if game.solved:
            break
    return game.solved, np.stack(passed)


def render(objects: Objects, size: int = SIZE) -> UInt8[np.ndarray, "size size 3"]:
    """The screen: grey blocks can be removed, black ones stay, blue ones fall, and so do the red balls."""
    scale = 4 * size / SIDE
    canvas = Image.new("RGB", (4 * size, 4 * size), (255, 255, 255))
    brush = ImageDraw.Draw(canvas)
    for kind in ("joint", "spring"):
        linked = objects[:, NUMBERS.index(kind)]
        for number in np.unique(linked[linked > 0]):
            ends = objects[linked == number, :2] * scale
            brush.line([tuple(end) for end in ends.tolist()], (0, 160, 80), 2)
    for x, y, half_x, half_y, *_, radius, there, moves, removable, ball, _, _, _ in objects.tolist():
        if not there:
            continue
        colour = _COLOURS["ball" if ball else "removable" if removable else "moves" if moves else "fixed"]
        ends = [((x - half_x) * scale, (y - half_y) * scale), ((x + half_x) * scale, (y + half_y) * scale)]
        wide = radius * scale
        if not ball:
            brush.line(ends, colour, round(2 * wide))
        for end in ends:
            brush.ellipse((end[0] - wide, end[1] - wide, end[0] + wide, end[1] + wide), colour)
    return fitted(np.asarray(canvas), size)


def _layout(described: Mapping[str, Any]) -> Layout:
    blocks = len(described["block"])
    return Layout(
        blocks=tuple((*start, *end) for start, end in described["block"]),
        balls=tuple((x, y, radius) for x, y, radius in described["ball"]),
        moves=tuple(map(bool, described["dynamic"][:blocks])),
        removable=tuple(map(bool, described["eli"][:blocks])),
        joints=tuple((one, two) for one, two in described.get("joint", ())),
        springs=tuple((one, two) for one, two in described.get("spring", ())),
    )
