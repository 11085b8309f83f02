"""What frozen features know of real films: their direction in time, their order, their speed, and which film it is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ami.data.episodes import Store
from ami.evaluation import features
from ami.evaluation.benchmark import Answer, Asking
from ami.evaluation.features import Eye, Film
from ami.evaluation.films import real_films
from ami.evaluation.probes import Principal, best_ridge, fit_principal
from ami.evaluation.statistics import share_by_cluster
from ami.types import Interval, Result, WorldModel

Task = Literal["arrow-of-time", "order", "speed", "retrieval"]
TASKS: tuple[Task, ...] = get_args(Task)
_METRIC = {"retrieval": "recall1"}
_SAID = {
    "arrow-of-time": "arrow-of-time: is a clip played forwards or backwards? 50 % is chance.",
    "order": "order: of two halves of a clip, with a gap between them, which came first? 50 % is chance.",
    "speed": "speed: does a clip show every frame or every second one? 50 % is chance.",
    "retrieval": "retrieval: which film is a late clip from, by the early clip most like it, without any training?",
}


@dataclass(frozen=True)
class Windows:
    """Clips of several films, with where each is from."""

    clips: list[Film]
    film: list[int]
    first: list[int]  # frame at which each begins

    def __len__(self) -> int:
        return len(self.clips)

    def some(self, n: int) -> Windows:
        """At most ``n`` of them, evenly spread."""
        chosen = np.unique(np.linspace(0, len(self) - 1, min(n, len(self))).round().astype(int))
        return Windows(*([each[k] for k in chosen] for each in (self.clips, self.film, self.first)))


@dataclass(frozen=True)
class RealFilms:
    """One question about real films, of a linear probe on frozen features.

    Split by time: every film is cut into ranges to learn from, ranges that choose the penalty and ranges that are held
    out, with a gap longer than a clip before and after each held-out one: no frame, and hardly a moment, is on both
    sides. A film seen only at its beginning would say little about its end: here a hand takes the bottle away, there
    the traffic comes back. Clips in which next to nothing moves have no direction in time and are left out. Every row
    (model, untrained, pixels, …) has the same probe.

    The features of a step are reduced to ``kept`` principal components (of the known part, without labels). A clip is
    then described by their mean and by how each goes together with each other one a step later, which is what a
    reversed film has the other way round (Steinberg 1986, "On the time reversibility of time series"). Questions whose
    answer is turned round by a change that one can make oneself (play it backwards; swap the halves) are asked of the
    difference between the description of the clip and that of the changed one: the probe cannot prefer an answer.
    """

    task: Task
    clip: int = 10  # frames
    learn: int = 44  # frames in a range to learn from
    choose: int = 16  # of them, at its end, choose the penalty
    held: int = 20  # frames in a range that is held out
    moving: float = 2.0  # grey levels by which a clip's pixels must change in a frame, on average: else it has no arrow
    kept: int = 64

    @property
    def name(self) -> str:
        """What its results are called."""
        return f"real/{self.task}"

    @property
    def protocol(self) -> tuple[str, ...]:
        """How it is asked, a plain sentence each."""
        return (
            f"Real films are split by time: probes learn from ranges of {self.learn} frames and are asked about ranges "
            f"of {self.held}, with {self.gap} frames between them; clips have {self.clip} frames, and something moves.",
            _SAID[self.task],
        )

    @property
    def gap(self) -> int:
        """Frames between two parts: more than a clip."""
        return self.clip + 1

    def run(self, model: WorldModel, n: int, asking: Asking) -> Answer:
        """Ask with ``n`` held-out clips of the films of ``asking``, or all where there are fewer."""
        store = real_films(asking.films, model, self.name)
        began = time.perf_counter()
        known, held, asked = self.split(store)
        asked = asked.some(n)
        rng = np.random.default_rng(asking.seed)
        eyes: dict[str, Eye] = {"model": features.model_eye(model)}
        if asking.untrained is not None:
            eyes["untrained"] = features.model_eye(asking.untrained)
        eyes |= {"pixels": features.pixels, "frame-differences": features.differences, "flow": features.flow}
        rows = {}
        for done, (name, eye) in enumerate(eyes.items()):
            asking.tell(self.name, done, len(eyes))
            rows[name] = share_by_cluster(self._wins(eye, known, held, asked), np.array(asked.film), rng)
        asking.tell(self.name, len(eyes), len(eyes))
        own = rows.pop("model")
        even = 1 / len(store) if self.task == "retrieval" else 0.5
        result = Result(
            benchmark=self.name,
            metric=_METRIC.get(self.task, "accuracy"),
            value=own.value,
            low=own.low,
            high=own.high,
            n=len(asked),
            unit="share",
            seeds=(asking.seed,),
            interval=f"bootstrap over {len(set(asked.film))} films, 95 %",
            baselines={**rows, "chance": Interval(even, even, even)},
            seconds=time.perf_counter() - began,
        )
        return Answer((result,))

    def split(self, store: Store) -> tuple[Windows, Windows, Windows]:
        """Clips to learn from, to choose the penalty on, and to be asked about."""
        parts = tuple(Windows([], [], []) for _ in range(3))
        for film in range(len(store)):
            video = store.arrays(film)["video"]
            moves = np.abs(np.diff(video.astype(np.int16), axis=0)).mean((1, 2, 3))
            for part, ranges in zip(parts, self.ranges(len(video)), strict=True):
                for start, stop in ranges:
                    for first in range(start, stop - self.clip + 1):
                        if moves[first : first + self.clip - 1].mean() >= self.moving:
                            part.clips.append(np.array(video[first : first + self.clip]))
                            part.film.append(film)
                            part.first.append(first)
        if not all(map(len, parts)):
            raise ValueError(
                f"{store.folder} holds too little that moves to ask {self.name}: a film needs about "
                f"{self.learn + self.gap + self.held} frames or more; give longer ones"
            )
        known, held, asked = parts
        return known, held, asked

    def ranges(self, frames: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]], list[tuple[int, int]]]:
        """The three parts of a film of so many frames: (first, end) of every range to learn, to choose and to ask."""
        learn, choose, ask = [], [], []
        for start in range(0, frames, self.learn + self.held + 2 * self.gap):
            end = start + self.learn
            if end + self.gap + self.held > frames:
                learn.append((start, min(end, frames)))
                break
            learn.append((start, end - self.choose - self.gap))
            choose.append((end - self.choose, end))
            ask.append((end + self.gap, end + self.gap + self.held))
        return learn, choose, ask

    def _wins(self, eye: Eye, known: Windows, held: Windows, asked: Windows) -> Float[np.ndarray, "asked"]:
        """For each clip asked about: 1 where the answer is right, 0 where wrong, 0.5 where there is none."""
        learn = [*known.clips, *held.clips]
        kept, validate = slice(len(known)), slice(len(known), None)
        space = fit_principal(eye(learn).flatten(2).flatten(0, 1), self.kept)
        if self.task == "retrieval":
            films = np.array([*known.film, *held.film])
            like = _unit(_mean(space, eye, asked.clips)) @ _unit(_mean(space, eye, learn)).T
            return (films[like.argmax(1).numpy(force=True)] == np.array(asked.film)).astype(float)
        if self.task == "speed":
            x = torch.cat([self._speeds(space, eye, learn, k) for k in (1, 2)])
            y = torch.tensor([[1.0], [-1.0]]).to(x).repeat_interleave(len(learn), 0)
            both = torch.arange(len(x))
            old = both % len(learn) < len(known)
            probe = best_ridge(x, y, both[~old], both[old])
            said = [probe(self._speeds(space, eye, asked.clips, k))[:, 0] for k in (1, 2)]
            return torch.stack([_right(said[0]), _right(-said[1])]).mean(0).numpy(force=True)
        describe = self._direction if self.task == "arrow-of-time" else self._order
        x, asks = _balanced(describe(space, eye, learn), describe(space, eye, asked.clips))
        probe = best_ridge(x, x.new_ones(len(x), 1), validate, kept, centred=False)
        return _right(probe(asks)[:, 0]).numpy(force=True)

    def _direction(self, space: Principal, eye: Eye, clips: Sequence[Film]) -> tuple[Tensor, Tensor]:
        ways = [clips, [clip[::-1] for clip in clips]]
        forwards, backwards = (_motion(space(eye(each).flatten(2))) for each in ways)
        return forwards[0] - backwards[0], forwards[1] - backwards[1]

    def _order(self, space: Principal, eye: Eye, clips: Sequence[Film]) -> tuple[Tensor, Tensor]:
        """How the second half differs from the first, alone and by the way in which things move; odd in the order."""
        half = 2 * (2 * self.clip // 10)  # an even number of frames, with a gap between the halves
        first, second = (
            space(eye(each).flatten(2)) for each in ([c[:half] for c in clips], [c[-half:] for c in clips])
        )
        change = second.mean(1) - first.mean(1)
        way = (first[:, -1] - first[:, 0] + second[:, -1] - second[:, 0]) / 2
        return change, torch.einsum("ni,nj->nij", change, way).flatten(1)

    def _speeds(self, space: Principal, eye: Eye, clips: Sequence[Film], speed: int) -> Float[Tensor, "clips feature"]:
        half = 2 * (self.clip // 4)  # frames shown, an even number of them
        first = (self.clip - half) // 2
        shown = [clip[::2][:half] if speed == 2 else clip[first : first + half] for clip in clips]
        z = space(eye(shown).flatten(2))
        return torch.cat([z.mean(1), (z[:, 1:] - z[:, :-1]).square().mean(1)], 1)


def _motion(z: Float[Tensor, "clips time component"]) -> tuple[Tensor, Tensor]:
    """The mean of each component, and how each goes together with each other one a step later."""
    middle = z - z.mean(1, keepdim=True)
    later = torch.einsum("nti,ntj->nij", middle[:, :-1], middle[:, 1:]) / (z.shape[1] - 1)
    return z.mean(1), later.flatten(1)


def _balanced(learn: Sequence[Tensor], asked: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Two kinds of features side by side, each kind with the same length in all: few are not lost among many."""
    scales = [part.square().sum(1).mean().sqrt().clamp_min(1e-12) for part in learn]
    first, second = (torch.cat([p / s for p, s in zip(each, scales, strict=True)], 1) for each in (learn, asked))
    return first, second


def _mean(space: Principal, eye: Eye, clips: Sequence[Film]) -> Float[Tensor, "clips component"]:
    return space(eye(clips).flatten(2)).mean(1)


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=1, keepdim=True).clamp_min(1e-12)


def _right(said: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """An answer of exactly nothing is half right."""
    return (said > 0).double() + 0.5 * (said == 0).double()


def known_ranges(frames: int, known: float = 0.6) -> list[tuple[int, int]]:
    """What a model may learn from of a film of so many frames, if it is to be asked about it: nothing that is held out.

    These are the ranges that :class:`RealFilms` learns from within the first ``known`` share of the film, of which
    :class:`~ami.evaluation.suites.splice.Splice` holds out the rest. A film too short to be asked about may be seen
    whole.
    """
    rules = RealFilms("order")
    learn, choose, asked = rules.ranges(frames)
    if not asked:
        return [(0, frames)]
    ends = {start: end for start, end in learn} | {end - rules.learn: end for _, end in choose}
    return [(start, min(end, int(known * frames))) for start, end in sorted(ends.items()) if start < known * frames]
