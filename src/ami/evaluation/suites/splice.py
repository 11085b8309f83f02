"""Is a spliced moment of a real film more surprising than the same moment as it was? Asked of held-out stretches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ami.data.episodes import Store
from ami.evaluation.benchmark import Answer, Asking
from ami.evaluation.films import film_clip, real_films
from ami.evaluation.flow import change_by_frame
from ami.evaluation.statistics import bootstrap_auroc
from ami.reasoning.surprise import Ordinary, Watching, energies, ordinary, standing_out, surprise
from ami.types import Interval, Result, WorldModel

Kind = Literal["cut", "reverse", "freeze", "teleport"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_Film = UInt8[np.ndarray, "frames height width 3"]
_FRAME = Watching(context=1, horizon=1)  # how what is known of each frame by itself becomes a surprise


@dataclass(frozen=True)
class Splice:
    """One way to splice, one AUROC: spliced moments against the same moments as they were filmed.

    The first ``known`` share of every film is ordinary: a model may have been trained on it, and each film's surprise
    is calibrated there. Stretches are drawn from the rest. In each, one moment of ``moment`` frames is spliced:

    - ``cut``: another film goes on from there.
    - ``reverse``: the moment is played backwards, and the film then goes on as it was.
    - ``freeze``: the frame before stands still for that moment.
    - ``teleport``: two squares of the picture, which look different, change places for that moment.

    The score of a moment is how far a step of it stands out at most: its surprise above that of its neighbours. Every
    row, model and baselines, is scored by this one rule. Where nothing tells spliced from unspliced, AUROC is 0.5.
    """

    kind: Kind
    known: float = 0.6
    stretch: int = 34  # frames
    moment: int = 10  # frames
    first: int = 9  # a moment begins at this frame of its stretch at the earliest
    patch: int = 16  # px on a side of what is teleported, of 64
    visible: float = 3.0  # grey levels by which a splice changes the pictures of its moment, on average
    tries: int = 20  # draws to find such a one; then the most visible of them
    unlike: float = 25.0  # grey levels by which the squares must differ, on average
    watching: Watching = field(default_factory=Watching)

    @property
    def name(self) -> str:
        """What its results are called."""
        return f"splice/{self.kind}"

    @property
    def protocol(self) -> tuple[str, ...]:
        """How it is asked, a plain sentence each."""
        return (
            f"Each film's first {self.known:.0%} is ordinary and calibrates surprise; splices are made in the rest, "
            f"where they change the picture by {self.visible:g} grey levels or more.",
            f"A splice lasts {self.moment} frames; a moment's score is the most that a step of it stands out: its "
            f"surprise less the median of {self.watching.around} steps before and {self.watching.around} after.",
            f"A step's surprise is the mean over the windows that judge it: {self.watching.context} steps believed, "
            f"{self.watching.horizon} predicted open loop; calibrated by horizon, in logarithms, by film.",
        )

    def run(self, model: WorldModel, n: int, asking: Asking) -> Answer:
        """Ask with ``n`` splices of the films of ``asking``, shared equally among them."""
        store = real_films(asking.films, model, self.name)
        began = time.perf_counter()
        pairs = self.pairs(store, n, np.random.default_rng((asking.seed, KINDS.index(self.kind))))
        film = np.array([pair.film for pair in pairs])
        rng = np.random.default_rng(asking.seed)

        def interval(scores: Float[np.ndarray, "pairs 2"]) -> Interval:
            return bootstrap_auroc(scores[:, 0], scores[:, 1], film, rng)

        own = interval(self._scores(_Judge(model, self.watching), store, pairs))
        seconds = time.perf_counter() - began
        rows = {name: interval(scores) for name, scores in self._by_frame(store, pairs).items()}
        if asking.untrained is not None:
            rows["untrained"] = interval(self._scores(_Judge(asking.untrained, self.watching), store, pairs))
        result = Result(
            benchmark=self.name,
            metric="auroc",
            value=own.value,
            low=own.low,
            high=own.high,
            n=len(pairs),
            unit="share",
            seeds=(asking.seed,),
            interval=f"bootstrap over {len(set(film))} films, 95 %",
            baselines={**rows, "chance": Interval(0.5, 0.5, 0.5)},
            seconds=seconds,
        )
        return Answer((result,))

    def pairs(self, store: Store, n: int, rng: np.random.Generator) -> list[Pair]:
        """Draw splices, film after film; every film of the store must have room for a stretch."""
        return [self._pair(store, number % len(store), rng) for number in range(n)]

    def _pair(self, store: Store, film: int, rng: np.random.Generator) -> Pair:
        """Draw until the splice can be seen: nobody could tell that a film in which all stands still runs backwards."""
        drawn = []
        for _ in range(self.tries):
            pair = self._draw(store, film, rng)
            change = np.abs(pair.spliced.astype(np.int16) - pair.real)[pair.at : pair.at + self.moment].mean()
            drawn.append((float(change), pair))
            if change >= self.visible:
                break
        return max(drawn, key=lambda each: each[0])[1]

    def _draw(self, store: Store, film: int, rng: np.random.Generator) -> Pair:
        real = self._stretch(store, film, rng)
        at = int(rng.integers(self.first, self.stretch - self.moment - 1))
        spliced = real.copy()
        span = slice(at, at + self.moment)
        if self.kind == "cut":
            other = (film + int(rng.integers(1, len(store)))) % len(store)
            spliced[at:] = self._stretch(store, other, rng)[at:]
        elif self.kind == "reverse":
            spliced[span] = real[span][::-1]
        elif self.kind == "freeze":
            spliced[span] = real[at - 1]
        else:
            spliced[span] = self._teleport(real[span], rng)
        return Pair(film, at, real, spliced)

    def _stretch(self, store: Store, film: int, rng: np.random.Generator) -> _Film:
        video = store.arrays(film)["video"]
        first = ordinary_frames(len(video), self.known)
        room = len(video) - first - self.stretch
        if room < 0:
            raise ValueError(
                f"{store.episodes[film].source or f'film {film}'} has {len(video)} frames; {self.name} needs "
                f"{self.stretch} after the first {self.known:.0%}: give a longer film"
            )
        start = first + int(rng.integers(room + 1))
        return np.array(video[start : start + self.stretch])

    def _teleport(self, real: _Film, rng: np.random.Generator) -> _Film:
        """Squares that look alike show nothing when they change places: of many pairs, one that differs."""
        side = real.shape[1] * self.patch // 64
        best, squares = -1.0, None
        for _ in range(50):
            one, other = (_square(corner, side) for corner in rng.integers(0, real.shape[1] - side + 1, (2, 2)))
            apart = max(abs(a.start - b.start) for a, b in zip(one, other, strict=True)) >= side
            unlike = float(np.abs(real[0][one].astype(float) - real[0][other]).mean())
            if apart and unlike > best:
                best, squares = unlike, (one, other)
                if unlike >= self.unlike:
                    break
        assert squares is not None
        spliced = real.copy()
        for here, there in (squares, squares[::-1]):
            spliced[(slice(None), *here)] = real[(slice(None), *there)]
        return spliced

    def _most(self, curve: Float[Tensor, "steps"], at: int, frames: int) -> float:
        """The score of the moment at frame ``at``. The first frame after it counts, for there the film jumps back."""
        moment = slice(at // frames, (at + self.moment) // frames + 1)
        return float(standing_out(curve, self.watching)[moment].nan_to_num(-torch.inf).max())

    def _scores(self, judge: _Judge, store: Store, pairs: Sequence[Pair]) -> Float[np.ndarray, "pairs 2"]:
        known = {}
        for film in sorted({pair.film for pair in pairs}):
            video = store.arrays(film)["video"]
            known[film] = judge.ordinary(video[: ordinary_frames(len(video), self.known)])
        frames = judge.model.frames
        scores = [
            [
                self._most(judge.surprise(video, known[pair.film]), pair.at, frames)
                for video in (pair.spliced, pair.real)
            ]
            for pair in pairs
        ]
        return np.array(scores)

    def _by_frame(self, store: Store, pairs: Sequence[Pair]) -> dict[str, Float[np.ndarray, "pairs 2"]]:
        """The scores of what needs no model, by the same rule."""
        known = {}
        for film in sorted({pair.film for pair in pairs}):
            video = store.arrays(film)["video"]
            known[film] = {
                name: ordinary([value[2:, None]])
                for name, value in change_by_frame(_pictures(video[: ordinary_frames(len(video), self.known)])).items()
            }
        scores: dict[str, list[float]] = {}
        for pair in pairs:
            for video in (pair.spliced, pair.real):
                for name, value in change_by_frame(_pictures(video)).items():
                    curve = surprise(value[1:, None], known[pair.film][name], _FRAME)
                    scores.setdefault(name, []).append(self._most(curve, pair.at, 1))
        return {name: np.array(value).reshape(-1, 2) for name, value in scores.items()}


@dataclass(frozen=True)
class Pair:
    """A stretch as it was filmed, and the same with a splice that begins at frame ``at``."""

    film: int
    at: int
    real: _Film
    spliced: _Film


@dataclass(frozen=True)
class _Judge:
    """A model that watches single films."""

    model: WorldModel
    watching: Watching

    def ordinary(self, video: _Film) -> Ordinary:
        return ordinary([energies(self.model, film_clip(self.model, video), self.watching)])

    def surprise(self, video: _Film, known: Ordinary) -> Float[Tensor, "steps"]:
        return surprise(energies(self.model, film_clip(self.model, video), self.watching), known, self.watching)


def ordinary_frames(frames: int, known: float) -> int:
    """How many frames of a film come before those that are held out."""
    return int(known * frames)


def _pictures(video: _Film) -> UInt8[Tensor, "frames 3 height width"]:
    return torch.from_numpy(np.array(video)).permute(0, 3, 1, 2)


def _square(corner: np.ndarray, side: int) -> tuple[slice, slice]:
    top, left = map(int, corner)
    return slice(top, top + side), slice(left, left + side)
