"""Training batches as a pure function of (seed, step, rank): nothing to save, nothing to restore."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from jaxtyping import Float, Int

from ami.data.episodes import EpisodeInfo
from ami.types import Clip

_AHEAD = 2  # batches read while the consumer computes; more only costs memory
_CROPS = 0x43  # keeps the keys of crops apart from those of an epoch's order


class Cuttable(Protocol):
    """What windows can be cut from: a :class:`Store`, or latents in memory."""

    @property
    def folder(self) -> Path:
        """Where it comes from, for messages."""
        ...

    @property
    def episodes(self) -> Sequence[EpisodeInfo]:
        """What it holds."""
        ...

    def windows(
        self, steps: int, frames_per_step: int = 1, episodes: Sequence[int] | None = None
    ) -> Int[np.ndarray, "windows 2"]:
        """Every (episode, first frame) from which a window fits."""
        ...

    def clips(self, index: Int[np.ndarray, "batch 2"], steps: int, frames_per_step: int = 1) -> Clip:
        """Those windows."""
        ...


class Change(Protocol):
    """What clips are shown through: a crop, or another lens."""

    chances: ClassVar[int]  # how many numbers it is drawn from

    def __call__(self, clip: Clip, chances: Float[np.ndarray, "batch chances"]) -> Clip:
        """The clip, each row changed as its ``chances`` say, which are evenly drawn from [0, 1)."""
        ...


@dataclass(frozen=True)
class Source:
    """Windows of one store: ``batch`` of them, of ``steps`` steps, from all episodes or only some of them."""

    store: Cuttable
    steps: int
    batch: int
    frames_per_step: int = 1
    episodes: tuple[int, ...] | None = None
    crop: Change | None = None  # drawn anew for each clip of the training, in every epoch


class Loader:
    """Shuffled windows of several stores, the same whatever the number of processes that share them."""

    def __init__(self, sources: Sequence[Source], seed: int) -> None:
        if seed < 0:
            raise ValueError(f"the loader's seed is {seed}; it must be 0 or more")
        self.sources = tuple(sources)
        self.seed = seed
        self._windows = tuple(_windows(source) for source in self.sources)
        # A memo, not a state: an epoch's order is a function of (seed, source, epoch) that is slow to work out.
        self._order = lru_cache(maxsize=2 * len(self.sources) + 1)(self._shuffle)

    def batch(self, step: int, rank: int = 0, size: int = 1) -> list[Clip]:
        """One clip per source: this rank's part of the global batch at ``step``."""
        if step < 0 or not 0 <= rank < size:
            raise ValueError(f"there is no step {step} for process {rank} of {size}; all three count from 0")
        return [self._clip(number, step, rank, size) for number in range(len(self.sources))]

    def prefetch(self, start: int, stop: int, rank: int = 0, size: int = 1) -> Iterator[list[Clip]]:
        """The batches from ``start`` to ``stop`` (not included), read ahead by one thread.

        An error of the reader is raised here; leaving the loop early stops the thread. To resume, start later.
        """
        steps = iter(range(start, stop))
        pool = ThreadPoolExecutor(1, thread_name_prefix="ami-loader")
        coming: deque[Future[list[Clip]]] = deque()
        try:
            while True:
                for step in steps:
                    coming.append(pool.submit(self.batch, step, rank, size))
                    if len(coming) >= _AHEAD:
                        break
                if not coming:
                    return
                yield coming.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _clip(self, number: int, step: int, rank: int, size: int) -> Clip:
        source, windows = self.sources[number], self._windows[number]
        if source.batch % size:
            raise ValueError(f"a batch of {source.batch} does not divide over {size} processes; choose a multiple")
        mine = source.batch // size
        positions = step * source.batch + rank * mine + np.arange(mine)
        epochs, places = np.divmod(positions, len(windows))
        chosen = np.empty(mine, np.int64)
        for epoch in np.unique(epochs).tolist():
            rows = epochs == epoch
            chosen[rows] = self._order(number, epoch)[places[rows]]
        clip = source.store.clips(windows[chosen], source.steps, source.frames_per_step)
        return clip if source.crop is None else source.crop(clip, self._chances(number, positions, source.crop.chances))

    def _chances(
        self, number: int, positions: Int[np.ndarray, "batch"], count: int
    ) -> Float[np.ndarray, "batch count"]:
        """Even numbers in [0, 1) for each place in the whole training, whoever computes it."""
        keys = (np.random.SeedSequence((self.seed, number, place, _CROPS)) for place in positions.tolist())
        return np.stack([np.random.Philox(key).random_raw(count) >> 11 for key in keys]) / 2.0**53

    def _shuffle(self, number: int, epoch: int) -> Int[np.ndarray, "windows"]:
        # Raw Philox words, sorted: unlike Generator.permutation, they are promised to be the same in every NumPy.
        keys = np.random.Philox(np.random.SeedSequence((self.seed, number, epoch)))
        return np.argsort(keys.random_raw(len(self._windows[number])), kind="stable")


def _windows(source: Source) -> Int[np.ndarray, "windows 2"]:
    if source.steps < 1 or source.batch < 1 or source.frames_per_step < 1:
        raise ValueError(
            f"steps, batch and frames per step must be 1 or more; {source.store.folder} was given {source}"
        )
    windows = source.store.windows(source.steps, source.frames_per_step, source.episodes)
    if not len(windows):
        chosen = range(len(source.store.episodes)) if source.episodes is None else source.episodes
        longest = max((source.store.episodes[number].length for number in chosen), default=0)
        raise ValueError(
            f"no episode of {source.store.folder} is long enough: a window needs "
            f"{source.steps * source.frames_per_step} frames and the longest has {longest}"
        )
    return windows
