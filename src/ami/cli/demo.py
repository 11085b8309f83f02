"""The main job: from nothing to a report, in one folder, a stage at a time; a stage that is done is not done again.

demo.json           what was asked for
data/rooms          experience of Two Rooms
data/drawn          drawn films; data/physics; data/mazes; data/cups; data/tabletop; data/push-t, and other simulated
                    tasks; where recordings were given, data/films, data/robots, and data/rgbd, from which nothing is
                    learned
run/                the training run; beside it those of other recipes that are asked the same
report.json         written last, with report.html and episodes.jsonl beside it
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import RenderableType

from ami import files
from ami.cli.asking import ask_about, held_out
from ami.cli.collecting import ALL, collect
from ami.cli.refuse import refuse_used
from ami.cli.show import Bars, Outcome, with_lines
from ami.cli.training import Settings, train
from ami.cores import Tell, at_once
from ami.data.episodes import Store
from ami.data.ingest import ingest
from ami.data.spatial import RGBD, is_tum
from ami.data.video import SUFFIXES
from ami.evaluation.ask import Question
from ami.evaluation.report import DOCUMENT, Checkpoint, Code, Report, Suite, read_report, table, write_report
from ami.evaluation.suites import SUITES
from ami.recipes.baby import SETTINGS
from ami.recipes.places import PLACES
from ami.types import Interval, Result
from ami.worlds import cups, maze, violations
from ami.worlds import films as drawn
from ami.worlds.tabletop import NAME as TABLETOP

REQUEST = "demo.json"
_FILM = 16  # steps of a film of the table
_TASK = 65  # steps of an episode of a simulated task
FRESH = 1000  # evaluation seeds from here on are for reports; those below are for choosing settings


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    recipe: str = "baby"
    settings: Settings = SETTINGS["baby"]
    world: str = ALL  # of Two Rooms
    episodes: int = 900
    steps: int = 65  # model steps in each
    drawn: int = 3000  # films
    physics: int = 1000  # films of things that move, meet and fall
    mazes: int = 160  # walks
    walk: int = PLACES.clip  # steps of each
    cups: int = 0  # films of cups and balls
    tabletop: int = 0  # films of things on a table
    tasks: tuple[tuple[str, int], ...] = ()  # simulated tasks, and the episodes of each
    rivals: tuple[str, ...] = ()  # other recipes, trained alike on the same and asked the same
    suite: str = "demo"
    with_films: str = "demo-films"  # the suite, where films, or recordings with depth, were given
    bare: str = ""  # the suite, where what needs the extra 'worlds' is left out
    n: int | None = None  # episodes for each question, in place of the suite's number


FULL = Scale()


@dataclass(frozen=True)
class Request:
    """What was asked for."""

    out: Path
    data: Sequence[Path] = ()
    seed: int = 0
    skip_bad: bool = False

    @property
    def document(self) -> dict[str, Any]:
        """What must be the same when the job goes on."""
        return {"seed": self.seed, "data": [str(path) for path in self.data], "skip_bad": self.skip_bad}

    @property
    def command(self) -> str:
        """What makes it again."""
        words = ["ami", "demo", "--out", str(self.out), "--seed", str(self.seed)]
        words += ["--data", *map(str, self.data)] if self.data else []
        return shlex.join([*words, *(["--skip-bad"] if self.skip_bad else [])])


def demo(request: Request, bars: Bars, scale: Scale | None = None) -> tuple[dict[str, Any], bool]:
    """Do what is not done yet; the content of ``report.json``, and whether it was made now."""
    scale = scale or FULL
    out, part = request.out, bars.before
    _claim(request)
    if (out / DOCUMENT).is_file():
        return read_report(out), False
    bars.before = f"{part}1/3 "
    found = _sorted(request.data)
    if RGBD.name in found and not scale.rivals:
        raise ValueError(f"{found[RGBD.name][0]} has depth, about which this asks nothing; see `ami reproduce spatial`")
    made = {
        "rooms": (scale.world, scale.episodes, scale.steps),
        "drawn": ("drawn-films", scale.drawn, drawn.FRAMES),
        "physics": ("physics", scale.physics, violations.FRAMES),
        "mazes": (maze.NAME, scale.mazes, scale.walk),
        "cups": (cups.EMBODIMENT.name, scale.cups, cups.FRAMES),
        "tabletop": (TABLETOP, scale.tabletop, _FILM),
        **{world: (world, episodes, _TASK) for world, episodes in scale.tasks},
    }
    jobs: dict[str, Callable[[Tell], Store]] = {
        kind: partial(_experience, out / "data" / kind, *how, request.seed) for kind, how in made.items() if how[1]
    }
    for kind, paths in found.items():
        jobs[kind] = partial(_recordings, out / "data" / kind, kind, paths, request.skip_bad)
    stores = dict(zip(jobs, at_once(list(jobs.values()), bars.tell, torch.get_num_threads()), strict=True))
    bars.before = f"{part}2/3 "
    learned = [store for kind, store in stores.items() if kind != RGBD.name]
    done, *others = (
        _trained(name, learned, folder, request.seed, scale, bars)
        for name, folder in ((scale.recipe, out / "run"), *((rival, out / rival) for rival in scale.rivals))
    )
    bars.before = f"{part}3/3 "
    recorded = not stores.keys().isdisjoint(("films", RGBD.name))
    question = Question(scale.with_films if recorded else scale.suite, FRESH + request.seed, scale.n)
    unasked = {
        "robots": "robots" in stores and held_out(stores["robots"]) is None,  # too few to hold any out
        "films": not SUITES[question.suite].real_films,
    }
    asked = [store for kind, store in stores.items() if not unasked.get(kind)]
    rivals = [folder.parent for folder in others]
    write_report(out, ask_about(done, question, asked, bars, (request.command,), rivals=rivals))
    bars.before = part
    return read_report(out), True


def _trained(name: str, stores: Sequence[Store], run: Path, seed: int, scale: Scale, bars: Bars) -> Path:
    """The checkpoint of a run, begun or gone on with; a finished one is left as it is."""
    resume = (run / "recipe.json").is_file()
    return train(name, stores, run, seed, bars, settings=scale.settings, resume=resume)


def clear(out: Path) -> None:
    """Delete an earlier demo, and nothing else."""
    if (out / REQUEST).is_file():
        shutil.rmtree(out)
    elif out.exists():
        refuse_used(out)


def outcome(out: Path, document: Mapping[str, Any], said: str) -> Outcome:
    """A report that lies in ``out``, shown."""
    shown = with_lines(results_table(document), f"{said} {out / 'report.html'}")
    return Outcome({"folder": str(out), "report": document}, shown)


def results_table(document: Mapping[str, Any]) -> RenderableType:
    """The table of a report that was read back."""
    results = []
    for answer in document["results"]:
        held = {name: value for name, value in answer.items() if name != "by_distance"}
        beside = {name: Interval(**each) for name, each in answer["baselines"].items()}
        results.append(Result(**{**held, "baselines": beside, "seeds": tuple(answer["seeds"])}))
    heads = Checkpoint(**document["checkpoint"]), Suite(**document["suite"]), Code(**document["code"])
    return table(Report(*heads, results, document["created"]))


def _claim(request: Request) -> None:
    """Begin in a new folder, or make sure that what was begun there is the same."""
    path = request.out / REQUEST
    if not path.is_file():
        refuse_used(request.out)
        files.write_json(path, request.document)
    held = json.loads(path.read_text(encoding="utf-8"))
    if held != request.document:
        raise ValueError(
            f"{request.out} holds a demo of {held}, and {request.document} is asked for; choose another --out, or "
            f"begin anew with --fresh"
        )
    for stale in (request.out / "data").glob(".*.part"):  # what a killed process was writing
        shutil.rmtree(stale)


def _experience(folder: Path, world: str, episodes: int, steps: int, seed: int, tell: Tell) -> Store:
    if not folder.is_dir():
        collect(world, folder, episodes, steps, seed, tell)
    return Store.open(folder)


def _recordings(folder: Path, kind: str, paths: Sequence[Path], skip_bad: bool, tell: Tell) -> Store:
    if not folder.is_dir():
        ingest(paths, folder, skip_bad=skip_bad, progress=partial(tell, f"reading {kind}"))
    return Store.open(folder)


def _sorted(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Files, and the files in folders, by the store that they belong in."""
    known = {**dict.fromkeys(SUFFIXES, "films"), ".npz": "robots"}
    found: dict[str, list[Path]] = {}
    for path in paths:
        inside = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        kinds = [(known[file.suffix.lower()], file) for file in inside if file.suffix.lower() in known]
        kinds += [(RGBD.name, folder) for folder in (path, *sorted(path.rglob("*"))) if is_tum(folder)]
        if not kinds:
            there = "holds no recording" if path.exists() else "is not there"
            raise ValueError(
                f"{path} {there}; give films ({' '.join(SUFFIXES)}), robot episodes (.npz) or RGB-D folders "
                "(rgb.txt) with --data"
            )
        for kind, file in kinds:
            found.setdefault(kind, []).append(file)
    return dict(sorted(found.items()))
