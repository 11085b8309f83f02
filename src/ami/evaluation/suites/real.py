"""What frozen features know of real films: their direction in time, their order, their speed, and which film it is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ami.data.episodes import Store
from ami.evaluation import features
from ami.evaluation.benchmark import Answer, Asking
from ami.evaluation.features import Eye, Film
from ami.evaluation.probes import Principal, best_ridge, fit_principal
from ami.evaluation.statistics import share_by_cluster
from ami.types import Interval, Result, WorldModel

Task = Literal["arrow-of-time", "order", "speed", "retrieval"]
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


@dataclass(frozen=True)
class RealFilms:
    """One question about real films, of a linear probe on frozen features.

    Split by time: the probe learns from each film's first ``known`` share, its penalty is chosen on the part of that
    after ``validate``, and it is tested on the rest. Between any two of the three lies a gap longer than a clip, so
    that no frame, and hardly a moment, is on both sides. Every row (model, untrained, pixels, …) has the same probe.

    The features of a step are reduced to ``kept`` principal components (of the known part, without labels). A clip is
    then described by their mean and by how each goes together with each other one a step later, which is what a
    reversed film has the other way round (Steinberg 1986, "On the time reversibility of time series"). Questions whose
    answer is turned round by a change that one can make oneself (play it backwards; swap the halves) are asked of the
    difference between the description of the clip and that of the changed one: the probe cannot prefer an answer.
    """

    task: Task
    known: float = 0.6
    validate: float = 0.4
    clip: int = 16  # frames
    stride: int = 2  # frames between the beginnings of two clips to learn from
    kept: int = 64

    @property
    def name(self) -> str:
        """What its results are called."""
        return f"real/{self.task}"

    @property
    def protocol(self) -> tuple[str, ...]:
        """How it is asked, a plain sentence each."""
        return (
            f"Probes learn from clips of {self.clip} frames in the first {self.known:.0%} of each real film and are "
            f"tested on the rest, after a gap of {self.gap} frames.",
            _SAID[self.task],
        )

    @property
    def gap(self) -> int:
        """Frames between two parts: more than a clip."""
        return self.clip + 1

    def run(self, model: WorldModel, n: int, asking: Asking) -> Answer:
        """Ask with ``n`` held-out clips of the films of ``asking``, equally many of each where it is long enough."""
        store = asking.films
        if store is None or len(store) < 2:
            raise ValueError(f"{self.name} needs two or more real films; name a store of them with --data")
        began = time.perf_counter()
        known, held, asked = self.split(store, -(-n // len(store)))
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

    def split(self, store: Store, most: int) -> tuple[Windows, Windows, Windows]:
        """Clips to learn from, to choose the penalty on, and to be asked about: at most ``most`` of each film."""
        parts = []
        for start, stop, gap in ((0.0, self.validate, 0), (self.validate, self.known, 1), (self.known, 1.0, 1)):
            part = Windows([], [], [])
            for film in range(len(store)):
                video = store.arrays(film)["video"]
                first = int(start * len(video)) + gap * self.gap
                begins = np.arange(first, int(stop * len(video)) - self.clip + 1)
                if stop == 1.0:
                    if not len(begins):
                        raise ValueError(
                            f"{store.episodes[film].source or f'film {film}'} has {len(video)} frames: nothing is left "
                            f"after the first {self.known:.0%} and a gap; give a longer film"
                        )
                    begins = begins[np.unique(np.linspace(0, len(begins) - 1, min(most, len(begins))).astype(int))]
                else:
                    begins = begins[:: self.stride]
                part.clips.extend(np.array(video[k : k + self.clip]) for k in begins)
                part.film.extend([film] * len(begins))
                part.first.extend(map(int, begins))
            parts.append(part)
        known, held, asked = parts
        if not len(known) or not len(held):
            raise ValueError(f"{store.folder} holds only films too short to learn {self.name} from; give longer ones")
        return known, held, asked

    def _wins(self, eye: Eye, known: Windows, held: Windows, asked: Windows) -> Float[np.ndarray, "asked"]:
        """For each clip asked about: 1 where the answer is right, 0 where wrong, 0.5 where there is none."""
        learn = [*known.clips, *held.clips]
        kept, validate = slice(len(known)), slice(len(known), None)
        space = fit_principal(eye(learn).flatten(2).flatten(0, 1), self.kept)
        if self.task == "retrieval":
            films = np.array([*known.film, *held.film])
            like = _unit(_mean(space, eye, asked.clips)) @ _unit(_mean(space, eye, learn)).T
            return (films[like.argmax(1).numpy()] == np.array(asked.film)).astype(float)
        if self.task == "speed":
            x = torch.cat([self._speeds(space, eye, learn, k) for k in (1, 2)])
            y = torch.tensor([[1.0], [-1.0]]).double().repeat_interleave(len(learn), 0)
            both = torch.arange(len(x))
            old = both % len(learn) < len(known)
            probe = best_ridge(x, y, both[~old], both[old])
            said = [probe(self._speeds(space, eye, asked.clips, k))[:, 0] for k in (1, 2)]
            return torch.stack([_right(said[0]), _right(-said[1])]).mean(0).numpy()
        describe = self._direction if self.task == "arrow-of-time" else self._order
        x = describe(space, eye, learn)
        probe = best_ridge(x, torch.ones(len(x), 1).double(), validate, kept, centred=False)
        return _right(probe(describe(space, eye, asked.clips))[:, 0]).numpy()

    def _direction(self, space: Principal, eye: Eye, clips: Sequence[Film]) -> Float[Tensor, "clips feature"]:
        ways = [clips, [clip[::-1] for clip in clips]]
        forwards, backwards = (_motion(space(eye(each).flatten(2))) for each in ways)
        return forwards - backwards

    def _order(self, space: Principal, eye: Eye, clips: Sequence[Film]) -> Float[Tensor, "clips feature"]:
        """How the second half differs from the first, alone and by the way in which things move; odd in the order."""
        half = 2 * (3 * self.clip // 16)  # an even number of frames, with a gap of a quarter of the clip
        first, second = (space(eye(each).flatten(2)) for each in ([c[:half] for c in clips], [c[-half:] for c in clips]))
        change = second.mean(1) - first.mean(1)
        way = (first[:, -1] - first[:, 0] + second[:, -1] - second[:, 0]) / 2
        return torch.cat([change, torch.einsum("ni,nj->nij", change, way).flatten(1)], 1)

    def _speeds(self, space: Principal, eye: Eye, clips: Sequence[Film], speed: int) -> Float[Tensor, "clips feature"]:
        half, quarter = self.clip // 2, self.clip // 4
        z = space(eye([c[::2] if speed == 2 else c[quarter : quarter + half] for c in clips]).flatten(2))
        return torch.cat([_motion(z), (z[:, 1:] - z[:, :-1]).square().mean(1)], 1)


def _motion(z: Float[Tensor, "clips time component"]) -> Float[Tensor, "clips feature"]:
    """The mean of each component, and how each goes together with each other one a step later."""
    middle = z - z.mean(1, keepdim=True)
    later = torch.einsum("nti,ntj->nij", middle[:, :-1], middle[:, 1:]) / (z.shape[1] - 1)
    return torch.cat([z.mean(1), later.flatten(1)], 1)


def _mean(space: Principal, eye: Eye, clips: Sequence[Film]) -> Float[Tensor, "clips component"]:
    return space(eye(clips).flatten(2)).mean(1)


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=1, keepdim=True).clamp_min(1e-12)


def _right(said: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """An answer of exactly nothing is half right."""
    return ((said > 0).double() + 0.5 * (said == 0).double())
