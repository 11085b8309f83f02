"""Drawn games for I-PHYRE: any number of layouts from a seed, none of them one of the package's 40."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ami.data.episodes import Episode
from ami.worlds.iphyre import (
    BODY,
    NAME,
    PLACES,
    SIDE,
    THERE,
    THICK,
    Layout,
    Play,
    Y,
    actions,
    random_plan,
)
from ami.worlds.task import refuse_few

_CLEAR = 1.9 * THICK  # px between the middle lines of two blocks, at least: a tenth of a touch is not felt
_MOST = 6  # blocks that can be removed, as in the package's games
_TRIES = 40
_BELOW = 650.0  # px: an episode ends when all balls are so far down

Segment = Float[np.ndarray, "2 2"]  # two ends


def drawn(rng: np.random.Generator) -> Layout:
    """A few blocks of any kind, and balls and falling blocks that lie on them or hang above; some are linked.

    What the package's games are made of, put together at random: most cannot be played in any sensible way, but things
    fall, roll, tip, swing and are pulled in them.
    """
    while True:
        sketch = _Sketch(rng)
        for _ in range(rng.integers(3, 8)):
            sketch.stand()
        for _ in range(rng.choice(4, p=[0.35, 0.35, 0.2, 0.1])):
            sketch.lay()
        for _ in range(rng.choice([1, 2, 3, 5], p=[0.55, 0.3, 0.1, 0.05])):
            sketch.drop()
        if sketch.balls and len(sketch.blocks) + len(sketch.balls) <= PLACES and 1 <= sum(sketch.removable) <= _MOST:
            return sketch.layout()


def collect(episodes: int, steps: int, seed: int) -> list[Episode]:
    """Random plays of drawn games, of at most ``steps`` steps: what is there, and what was removed."""
    refuse_few(episodes, steps)
    return [_episode(steps, (seed, number), f"{NAME}/seed-{seed}/{number}") for number in range(episodes)]


def _episode(steps: int, key: tuple[int, int], source: str) -> Episode:
    rng = np.random.default_rng(key)
    layout = drawn(rng)
    done = actions(layout, random_plan(layout, rng)[None], steps - 1)[0]
    game = Play(layout)
    passed = [game.objects()]
    for removed in done:
        passed.append(game.step(np.flatnonzero(removed).tolist()))
        balls = passed[-1][len(layout.blocks) :]
        if (balls[balls[:, THERE] > 0, Y] > _BELOW).all():
            break
    return Episode(
        times=np.arange(len(passed)) * BODY.step_seconds,
        proprio=np.stack(passed).reshape(len(passed), -1),
        actions=done[: len(passed) - 1].astype(np.float32),
        source=source,
    )


class _Sketch:
    """A layout in the making. Whatever finds no room is left out."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.blocks: list[Segment] = []
        self.moves: list[bool] = []
        self.removable: list[bool] = []
        self.balls: list[tuple[float, float, float]] = []

    def layout(self) -> Layout:
        """As it is now, with links in one of three."""
        links: dict[str, tuple[tuple[int, int], ...]] = {}
        if self.rng.random() < 0.3:
            links[("joints", "springs")[self.rng.integers(2)]] = self._links()
        ends = tuple((*start, *end) for start, end in (block.tolist() for block in self.blocks))
        return Layout(ends, tuple(self.balls), tuple(self.moves), tuple(self.removable), **links)

    def stand(self) -> None:
        """A block that stays: level, upright (often on another block) or at a slant."""
        rng = self.rng
        for _ in range(_TRIES):
            length = rng.uniform(10, 80) if rng.random() < 0.5 else rng.uniform(60, 330)
            kind = rng.choice(["level", "upright", "slant"], p=[0.4, 0.2, 0.4])
            middle = rng.uniform((80, 140), (520, 520))
            if kind == "upright":
                length = min(length, 120.0)
                if self.blocks and rng.random() < 0.7:
                    middle = self._on_block()[0] - (0, 2 * THICK + length / 2)
            turn = {"level": 0.0, "upright": np.pi / 2, "slant": rng.uniform(-1.1, 1.1)}[kind]
            if self._put(middle, length, turn, moves=False, removable=rng.random() < 0.55):
                return

    def lay(self) -> None:
        """A block that falls."""
        rng = self.rng
        for _ in range(_TRIES if self.blocks else 0):
            length = rng.choice([10.0, rng.uniform(10, 60), rng.uniform(40, 260)])
            turn = rng.uniform(-1.4, 1.4) if rng.random() < 0.3 else 0.0
            if self._put(self._above(THICK), length, turn, moves=True, removable=rng.random() < 0.15):
                return

    def drop(self) -> None:
        """A ball."""
        rng = self.rng
        for _ in range(_TRIES if self.blocks else 0):
            radius = float(rng.choice([20.0, 20.0, 20.0, 30.0, rng.uniform(15, 60)]))
            place = self._above(radius)
            free = all(_apart(place[None].repeat(2, 0), block) >= radius + 0.95 * THICK for block in self.blocks)
            free &= all(np.hypot(*(place - (x, y))) >= radius + other - 0.5 for x, y, other in self.balls)
            if free and (place > 20).all() and place[0] < SIDE - 20 and place[1] < SIDE - 40:
                self.balls.append((*place.tolist(), radius))
                return

    def _put(self, middle: Float[np.ndarray, "2"], length: float, turn: float, *, moves: bool, removable: bool) -> bool:
        half = length / 2 * np.array([np.cos(turn), np.sin(turn)])
        block = np.stack([middle - half, middle + half])
        if (block < 5).any() or (block > SIDE - 5).any() or any(_apart(block, each) < _CLEAR for each in self.blocks):
            return False
        self.blocks.append(block)
        self.moves.append(moves)
        self.removable.append(bool(removable))
        return True

    def _on_block(self) -> tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2"]]:
        """A point of a block, often its end, and what is up there: across the block."""
        start, end = self.blocks[self.rng.integers(len(self.blocks))]
        share = self.rng.choice([0.0, 1.0, self.rng.random(), self.rng.random()])
        along = (end - start) / max(float(np.linalg.norm(end - start)), 1e-9)
        up = np.array([along[1], -along[0]])
        return start + share * (end - start), -up if up[1] > 0 else up

    def _above(self, radius: float) -> Float[np.ndarray, "2"]:
        """Where something round would lie on a block or, in one of three, hang above it."""
        point, up = self._on_block()
        gap = self.rng.uniform(0, 120) if self.rng.random() < 1 / 3 else 0.0
        return point + (THICK + radius) * up - (0, gap)

    def _links(self) -> tuple[tuple[int, int], ...]:
        """One pair or two: something that falls, tied to a block that stays or to another that falls."""
        moves = np.array([*self.moves, *[True] * len(self.balls)])
        fixed, falling = (self.rng.permutation(np.flatnonzero(each)).tolist() for each in (~moves, moves))
        if len(falling) > 1 and self.rng.random() < 0.35:
            return ((falling[0], falling[1]),)
        pairs = tuple(zip(fixed, falling, strict=False))
        return pairs[: 2 if self.rng.random() < 0.3 else 1]


def _apart(one: Segment, two: Segment) -> float:
    """How near two segments come to each other, to a ninth of their length."""
    return min(_nearest(one, two), _nearest(two, one))


def _nearest(one: Segment, two: Segment) -> float:
    points = one[0] + np.linspace(0, 1, 9)[:, None] * (one[1] - one[0])
    along = two[1] - two[0]
    share = (((points - two[0]) @ along) / max(float(along @ along), 1e-9)).clip(0, 1)
    return float(np.linalg.norm(points - two[0] - share[:, None] * along, axis=1).min())
