"""The verb that watches films and writes how surprising they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from ami.cli.show import Bars, Outcome, listing, with_lines
from ami.cli.verb import Heavy

_SHOWN = 288  # px on a side of the film on the page
_SHORT = 3000  # frames; longer films are shown in the size that the model sees


@dataclass(frozen=True, kw_only=True)
class Watch(Heavy):
    """Watch films and write how surprising each step was: a timeline (JSON), and a page with the curve and the film."""

    checkpoint: Positional[Path]  # folder of a checkpoint, or of a finished run
    films: Positional[tuple[Path, ...]]  # files, or folders of them
    out: Path | None = None  # folder of the timelines and pages; runs/watch/NAME of the first film if not said
    ordinary: tuple[Path, ...] = ()  # films that surprise is calibrated on; each film on itself where none is named

    def run(self) -> Outcome:
        """Watch them."""
        from ami.cli.asking import checkpoint_in
        from ami.cli.refuse import refuse_used
        from ami.models import checkpoint

        films, ordinary = films_in(self.films), films_in(self.ordinary)
        if not films:
            raise ValueError("no film was named; give one or more film files, or a folder of them")
        refuse_used(self.writes)
        folder = checkpoint_in(self.checkpoint)
        model, digest = checkpoint.load(folder).eval(), checkpoint.digest(folder)
        with Bars() as bars:
            held = watch_films(model, films, ordinary, self.writes, digest, bars)
        rows = [
            (each["film"], ", ".join(f"{moment['time']:.1f} s" for moment in each["moments"]) or "nothing")
            for each in held["films"]
        ]
        shown = listing([("film", "what stands out, the most surprising first"), *rows])
        return Outcome(held, with_lines(shown, f"timelines and pages are in {self.writes}"))

    @property
    def writes(self) -> Path:
        """The folder it fills."""
        return self.out or Path("runs/watch") / (self.films[0].stem if self.films else "film")


def films_in(paths: Sequence[Path]) -> list[Path]:
    """The films named, and those in the folders named, in order."""
    from ami.data.video import SUFFIXES

    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
            if not inside:
                raise ValueError(f"folder {path} holds no film ({' '.join(SUFFIXES)})")
            found += inside
        else:
            found.append(path)
    return found


def watch_films(
    model: Any, films: Sequence[Path], ordinary: Sequence[Path], out: Path, digest: str, bars: Bars
) -> dict[str, Any]:
    """Watch every film before anything is written; the document is what the files hold together."""
    from ami import files
    from ami.data.video import read_film
    from ami.evaluation.films import film_side, rate
    from ami.evaluation.timeline import calibrate, watch
    from ami.evaluation.timeline_page import page
    from ami.reasoning.surprise import Watching

    fps, size, watching = rate(model), film_side(model), Watching()
    shortest = watching.window * model.frames

    def read(path: Path) -> Any:
        video = read_film(path, size=size, fps=fps).video
        assert video is not None
        if len(video) < shortest:
            raise ValueError(
                f"film {path} has {len(video)} frames at {fps:g} a second; surprise needs {shortest} or more: "
                "give a longer one"
            )
        return video

    videos = [read(path) for path in films]
    known = calibrate(model, [read(path) for path in ordinary], watching) if ordinary else None
    made = []
    for done, (path, video) in enumerate(zip(films, videos, strict=True)):
        bars.tell("watching", done, len(films))
        made.append(watch(model, video, watching, known, name=path.name))
    settings = {"checkpoint": digest, "watching": asdict(watching), "ordinary": [path.name for path in ordinary]}
    for number, (path, video, timeline) in enumerate(zip(films, videos, made, strict=True)):
        name = path.stem if [each.stem for each in films].count(path.stem) == 1 else f"{path.stem}-{number}"
        shown = read_film(path, size=_SHOWN, fps=fps).video if len(video) <= _SHORT else video
        assert shown is not None
        files.write_json(out / f"{name}.json", {**settings, **timeline.document})
        files.write_text(out / f"{name}.html", page(timeline, shown, fps, digest))
    bars.tell("watching", len(films), len(films))
    return {"folder": str(out), **settings, "films": [timeline.document for timeline in made]}
