"""The verbs that exchange with other tools: V-JEPA 2's weights in and out, and features of films."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from ami.cli.show import Bars, Outcome, lines
from ami.cli.verb import Heavy, Verb


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
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: a GPU where there is one
    skip_bad: bool = False  # leave out films that cannot be read or fill no clip; the JSON document lists them

    def run(self) -> Outcome:
        """Perceive them."""
        from ami import parallel
        from ami.cli.asking import checkpoint_in
        from ami.cli.features import Shown, extract
        from ami.data.layouts import FILMS, find
        from ami.models import checkpoint

        if self.out.suffix != ".npz":
            raise ValueError(f"--out is {self.out}; the arrays go into one file whose name ends in .npz")
        if self.out.exists():
            raise ValueError(f"{self.out} is there already; choose another name with --out, or delete it first")
        found = [film.path for film in find(self.films, (FILMS,))]
        folder = checkpoint_in(self.checkpoint)
        shown = Shown.to(checkpoint.load(folder).to(parallel.device(self.device)), self.fps, self.clip)
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
