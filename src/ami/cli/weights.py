"""The verbs that exchange with other tools: V-JEPA 2's weights in and out, and features of films."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8
from tyro.conf import Positional

from ami.cli.show import Bars, Outcome, lines
from ami.cli.verb import Heavy, Verb

if TYPE_CHECKING:
    from ami.types import WorldModel

_TOKENS = 8192  # that are encoded at once: one clip of a giant, many of a baby
_STEPS = 8  # in a clip, for a model that perceives each step by itself


@dataclass(frozen=True, kw_only=True)
class Import(Verb):
    """Turn V-JEPA 2's weights, in a folder as Hugging Face publishes them, into a checkpoint. Nothing is downloaded."""

    folder: Positional[Path]  # with config.json and model.safetensors, or the several files that an index names
    checkpoint: Positional[Path]  # folder of the new checkpoint
    fps: float = 4.0  # frames a second at which films will be shown to it; V-JEPA 2 was trained at 4

    def run(self) -> Outcome:
        """Turn them."""
        from ami import files
        from ami.cli.refuse import refuse_used
        from ami.models import checkpoint, vjepa2

        refuse_used(self.checkpoint, "")
        model = vjepa2.read(self.folder, self.fps)
        settings = {
            "from": str(self.folder.resolve()),
            "layout": "VJEPA2Model",
            "fps": self.fps,
            "files": {path.name: files.digest_file(path) for path in sorted(self.folder.glob("*.safetensors"))},
        }
        checkpoint.save(
            self.checkpoint, model, checkpoint.Provenance("imported", checkpoint.code_version(), settings=settings)
        )
        held = {
            "checkpoint": str(self.checkpoint),
            "digest": checkpoint.digest(model),
            "parameters": sum(p.numel() for p in model.parameters()),
            "picture": model.config.picture,
            "fps": self.fps,
        }
        said = f"{held['parameters']:,} parameters, for films of {held['picture']} px at {self.fps:g} frames a second"
        return Outcome(held, lines(f"{said}; the checkpoint is {self.checkpoint}"))

    @property
    def writes(self) -> Path:
        """The folder it fills."""
        return self.checkpoint


@dataclass(frozen=True, kw_only=True)
class Export(Verb):
    """Write a checkpoint of V-JEPA 2's architecture as Hugging Face's VJEPA2Model reads it."""

    checkpoint: Positional[Path]  # folder of a checkpoint, or of a finished run
    folder: Positional[Path]  # a new folder, for config.json and model.safetensors

    def run(self) -> Outcome:
        """Write it."""
        from ami.cli.asking import checkpoint_in
        from ami.models import checkpoint, vjepa2
        from ami.models.vjepa import VJEPA

        model = checkpoint.load(checkpoint_in(self.checkpoint))
        if not isinstance(model, VJEPA):
            raise ValueError(
                f"{self.checkpoint} holds a {type(model).__name__}, and that layout is for V-JEPA 2 alone; other "
                "models go out as their checkpoint, whose tensors any reader of safetensors can read"
            )
        vjepa2.write(model, self.folder)
        parameters = sum(p.numel() for p in model.parameters())
        held = {"folder": str(self.folder), "digest": checkpoint.digest(model), "parameters": parameters}
        return Outcome(held, lines(f"{parameters:,} parameters in {self.folder}"))

    @property
    def writes(self) -> Path:
        """The folder it fills."""
        return self.folder


@dataclass(frozen=True, kw_only=True)
class Features(Heavy):
    """Write what a model perceives in films, clip by clip, as arrays that NumPy alone can open.

    features (clips tokens dim) float32, step after step; times (clips) float64, the second at which each clip begins;
    film (clips), the number of its film in films (names). Clips follow one another; what fills none at a film's end is
    left out.
    """

    checkpoint: Positional[Path]  # folder of a checkpoint, or of a finished run
    films: Positional[tuple[Path, ...]]  # files (mp4, mov, avi, mkv, webm), or folders of them
    out: Path  # the new .npz file
    fps: float | None = None  # frames a second to show to the model; as many as it learned with, if not said
    clip: int | None = None  # steps of the model in a clip; as many as it learned with (or 8), if not said
    skip_bad: bool = False  # leave out films that cannot be read or fill no clip; the JSON document lists them

    def run(self) -> Outcome:
        """Perceive them."""
        from ami.cli.asking import checkpoint_in
        from ami.data.ingest import recordings
        from ami.data.video import SUFFIXES
        from ami.models import checkpoint

        if self.out.suffix != ".npz":
            raise ValueError(f"--out is {self.out}; the arrays go into one file whose name ends in .npz")
        if self.out.exists():
            raise ValueError(f"{self.out} is there already; choose another name with --out, or delete it first")
        found = recordings(self.films, SUFFIXES)
        folder = checkpoint_in(self.checkpoint)
        shown = _Shown.to(checkpoint.load(folder), self.fps, self.clip)
        with Bars() as bars:
            held = {"checkpoint": checkpoint.digest(folder), **extract(shown, found, self.out, self.skip_bad, bars)}
        said = (
            f"{held['clips']} clips of {held['seconds']:g} s from {held['films']} films, {held['tokens']} tokens of "
            f"{held['dim']} numbers each, in {self.out}"
        )
        return Outcome(held, lines(said, *(f"left out {name}: {why}" for name, why in held["skipped"])))

    @property
    def writes(self) -> Path:
        """The file it fills."""
        return self.out


@dataclass(frozen=True)
class _Shown:
    """A model, and how films are shown to it."""

    model: WorldModel
    fps: float
    size: int  # px on a side
    steps: int  # in a clip

    @classmethod
    def to(cls, model: WorldModel, fps: float | None, steps: int | None) -> _Shown:
        """As it learned, where nothing else is said."""
        from ami.evaluation.films import rate
        from ami.models.vjepa import VJEPA

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

    def read(self, path: Path) -> UInt8[np.ndarray, "clips frames height width 3"]:
        """A film in clips; ``ValueError`` where it cannot be read or is shorter than one."""
        from ami.data.video import read_film

        video = read_film(path, size=self.size, fps=self.fps).video
        assert video is not None
        clips = len(video) // self.frames
        if not clips:
            raise ValueError(
                f"film {path} has {len(video)} frames at {self.fps:g} a second and a clip {self.frames}; choose fewer "
                "steps with --clip"
            )
        return video[: clips * self.frames].reshape(clips, self.frames, *video.shape[1:])

    def perceive(
        self, clips: UInt8[np.ndarray, "clips frames height width 3"]
    ) -> Iterator[Float[np.ndarray, "some tokens dim"]]:
        """What the model perceives, a few clips at a time."""
        import torch

        from ami.evaluation.films import film_clip

        together = max(_TOKENS // self.tokens, 1)
        for first in range(0, len(clips), together):
            with torch.no_grad():
                seen = self.model.encode(film_clip(self.model, *clips[first : first + together])).values
            yield seen.flatten(1, 2).float().numpy(force=True)


def extract(shown: _Shown, films: Sequence[Path], out: Path, skip_bad: bool, bars: Bars) -> dict[str, Any]:
    """Write the features of ``films`` to ``out``; the document says what is in it.

    They grow in a file beside ``out`` while one film after another is read, so that never more than one film is held in
    memory, and go into ``out`` when all are there.
    """
    from ami import files

    names, film, times, skipped = [], [], [], []
    out.parent.mkdir(parents=True, exist_ok=True)
    growing = out.with_name(f".{out.name}.{os.getpid()}.features.part")
    try:
        with growing.open("wb") as file:
            for done, path in enumerate(films):
                bars.tell("perceiving films", done, len(films))
                try:
                    clips = shown.read(path)
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
