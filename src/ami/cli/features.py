"""What a model perceives in films, written down as arrays."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ami import files, parallel
from ami.cli.show import Bars
from ami.data.video import read_film
from ami.evaluation.films import film_clip, passive, rate
from ami.models.vjepa import VJEPA
from ami.types import WorldModel

_TOKENS = 8192  # that are encoded at once: one clip of a giant, many of a baby
_STEPS = 8  # in a clip, for a model that perceives each step by itself
_READERS = 4  # films that are read ahead for a GPU, for one reader would keep it waiting; a CPU has enough to do
_Clips = UInt8[np.ndarray, "clips frames height width 3"]


@dataclass(frozen=True)
class Shown:
    """A model, and how films are shown to it."""

    model: WorldModel
    fps: float
    size: int  # px on a side
    steps: int  # in a clip

    @classmethod
    def to(cls, model: WorldModel, fps: float | None, steps: int | None) -> Shown:
        """As it learned, where nothing else is said; of a model in parts, to the one that watches."""
        model = model.part(passive(model).name)
        learned = rate(model)
        if fps is not None and not 0 < fps < float("inf"):
            raise ValueError(f"--fps is {fps:g}; it must be above 0, and this model learned with {learned:g}")
        if steps is not None and steps < 1:
            raise ValueError(f"--clip is {steps}; a clip has at least 1 step")
        own = model.config.slots if isinstance(model, VJEPA) else _STEPS
        return cls(model.eval(), fps or learned, model.picture or 64, steps or own)

    @property
    def frames(self) -> int:
        """In a clip."""
        return self.steps * self.model.frames

    @property
    def tokens(self) -> int:
        """Of a clip."""
        return self.steps * self.model.latent_shape[0]

    def read(self, path: Path) -> _Clips:
        """A film in clips; ``ValueError`` where it cannot be read or is shorter than one."""
        video = read_film(path, size=self.size, fps=self.fps).video
        assert video is not None
        clips = len(video) // self.frames
        if not clips:
            raise ValueError(
                f"film {path} has {len(video)} frames at {self.fps:g} a second and a clip {self.frames}; choose fewer "
                "steps with --clip"
            )
        return video[: clips * self.frames].reshape(clips, self.frames, *video.shape[1:])

    def read_ahead(self, films: Sequence[Path]) -> Iterator[Future[_Clips]]:
        """The films one after another, each to be waited for; on a GPU some are read before they are asked for."""
        readers = _READERS if parallel.device_of(self.model).type == "cuda" else 1
        coming: deque[Future[_Clips]] = deque()
        with ThreadPoolExecutor(readers, thread_name_prefix="ami-films") as pool:
            try:
                for path in films:
                    coming.append(pool.submit(self.read, path))
                    if len(coming) == readers:
                        yield coming.popleft()
                yield from coming
            finally:
                pool.shutdown(cancel_futures=True)

    def perceive(self, clips: _Clips) -> Iterator[Float[np.ndarray, "some tokens dim"]]:
        """What the model perceives, a few clips at a time; the next are on their way while those before are fetched."""
        together = max(_TOKENS // self.tokens, 1)
        some = (clips[first : first + together] for first in range(0, len(clips), together))
        for seen, _ in pairwise(chain(map(self._encode, some), [None])):
            assert seen is not None
            yield seen.flatten(1, 2).float().numpy(force=True)

    @torch.no_grad()
    def _encode(self, clips: _Clips) -> Float[Tensor, "some steps tokens dim"]:
        return self.model.encode(film_clip(self.model, *clips)).values


def extract(shown: Shown, films: Sequence[Path], out: Path, skip_bad: bool, bars: Bars) -> dict[str, Any]:
    """Write the features of ``films`` to ``out``; the document says what is in it.

    They grow in a file beside ``out`` while one film after another is read, so that no more than one film is held in
    memory (on a GPU a few, which are read ahead), and go into ``out`` when all are there.
    """
    names, film, times, skipped = [], [], [], []
    out.parent.mkdir(parents=True, exist_ok=True)
    growing = out.with_name(f".{out.name}.{os.getpid()}.features.part")
    try:
        with growing.open("wb") as file:
            for done, (path, coming) in enumerate(zip(films, shown.read_ahead(films), strict=True)):
                bars.tell("perceiving films", done, len(films))
                try:
                    clips = coming.result()
                except ValueError as error:
                    if not skip_bad:
                        raise ValueError(f"{error} (--skip-bad leaves such films out and goes on)") from error
                    skipped.append((str(path), str(error)))
                    continue
                for features in shown.perceive(clips):
                    file.write(np.ascontiguousarray(features, "<f4").data)
                times += [number * shown.frames / shown.fps for number in range(len(clips))]
                film += [len(names)] * len(clips)
                names.append(str(path))
        if not names:
            name, why = skipped[0]
            raise ValueError(f"not one of {len(skipped)} films could be used; the first, {name}: {why}")
        shape = (len(times), shown.tokens, shown.model.latent_shape[1])
        arrays = {
            "features": np.memmap(growing, "<f4", "r", shape=shape),
            "times": np.array(times, np.float64),
            "films": np.array(names),
            "film": np.array(film, np.int64),
        }
        files.write_whole(out, lambda file: np.savez(file, **arrays))
    finally:
        growing.unlink(missing_ok=True)
    bars.tell("perceiving films", len(films), len(films))
    return {
        "file": str(out),
        "films": len(names),
        **dict(zip(("clips", "tokens", "dim"), shape, strict=True)),
        "steps": shown.steps,
        "fps": shown.fps,
        "seconds": shown.frames / shown.fps,
        "skipped": skipped,
    }
