"""What a benchmark and a suite of them are: one question asked of a checkpoint, and a frozen list of such questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from jaxtyping import UInt8

from ami import files
from ami.data.episodes import Store
from ami.data.pairs import Name, Pair
from ami.evaluation.strips import Beside, Strip
from ami.types import Latent, Result, WorldModel

Progress = Callable[[str, int, int], None]  # what is being done, how much of it is done, of how much
Decoder = Callable[[Latent], UInt8[np.ndarray, "batch time height width 3"]]  # latents as pictures, for people


@dataclass(frozen=True)
class Asking:
    """How a benchmark is asked this time: what does not change the question."""

    seed: int = 0  # of the evaluation; no two seeds share a pair, and training draws from none of them
    untrained: WorldModel | None = None  # the same architecture with fresh weights: a baseline
    baseline_n: int | None = None  # at most so many episodes of the baselines that plan: they cost as much as the model
    decode: Decoder | None = None  # to show in film strips what was imagined
    strips: int = 3  # film strips of each benchmark
    films: Store | None = None  # recordings without actions, for benchmarks that ask about real films
    pairs: Sequence[Pair] = ()  # published films, possible and impossible, for benchmarks that ask about them
    progress: Progress | None = None
    rivals: Mapping[str, WorldModel] = field(default_factory=dict)  # other checkpoints, asked the same beside it

    def tell(self, what: str, done: int, total: int) -> None:
        """Pass progress on to whoever asked for it."""
        if self.progress:
            self.progress(what, done, total)


@dataclass(frozen=True)
class Answer:
    """What came out: numbers, a few films to look at, and what must be known to read the numbers."""

    results: tuple[Result, ...]
    strips: tuple[Strip | Beside, ...] = ()
    notes: tuple[str, ...] = ()

    def __add__(self, other: Answer) -> Answer:
        return Answer(self.results + other.results, self.strips + other.strips, self.notes + other.notes)


class Benchmark(Protocol):
    """One question, with its protocol pinned in its fields.

    It may also have ``least``, the episodes that its intervals need, and ``able(model)``, which refuses a model that
    cannot be asked: both are heard before the first question of a suite.
    """

    @property
    def name(self) -> str:
        """What its results are called."""
        ...

    @property
    def protocol(self) -> tuple[str, ...]:
        """How it is asked, a plain sentence each."""
        ...

    def run(self, model: WorldModel, n: int, asking: Asking) -> Answer:
        """Ask ``model`` with ``n`` fresh episodes."""
        ...


@dataclass(frozen=True)
class Suite:
    """A frozen list of benchmarks, each with the number of its episodes."""

    name: str
    asked: tuple[tuple[Benchmark, int], ...]
    real_films: bool = False  # it asks about recordings, which must be at hand: what they are is no part of it
    layout: Name | None = None  # it asks about films that are published so; like recordings, they must be at hand
    on_gpu: bool = False  # whether it can be asked of a model that lies on a GPU: no part of the questions either

    @property
    def document(self) -> Mapping[str, Any]:
        """All that pins the questions down, as JSON."""
        return {
            "name": self.name,
            "benchmarks": [{"name": each.name, "n": n, "settings": asdict(each)} for each, n in self.asked],  # pyright: ignore
        }

    @property
    def asks(self) -> str:
        """What it asks, in a line."""
        asked = ", ".join(f"{each.name} × {n}" for each, n in self.asked)
        return asked if self.layout is None else f"{asked} at most: pairs of published films, whose folder is --data"

    @cached_property
    def digest(self) -> str:
        """sha256 over the canonical JSON: two reports with the same digest answer the same questions."""
        return files.digest([files.canonical(self.document)])

    @property
    def protocol(self) -> tuple[str, ...]:
        """How it is asked, a plain sentence each, said once."""
        return tuple(dict.fromkeys(sentence for each, _ in self.asked for sentence in each.protocol))
