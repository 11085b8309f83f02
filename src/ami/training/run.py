"""A run's folder: what was asked, what was measured, where it stands, and the checkpoint at its end.

recipe.json     the recipe, resolved; a run is resumed only with the same
NAME/           the run of each part, where the recipe is of several
metrics.jsonl   a line for each logged step, with what the gauges warned of
opening.safetensors  the weights with which its stage began, where that is not the first; gone at the end
latest.safetensors   the last saved state (stage, step, weights, optimiser); replaced whole. Where several processes
                share weights, each writes its own beside it (latest.STEP.RANK.safetensors), and this one comes last
checkpoint/     the trained model
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ami import cores, files, parallel
from ami.models import checkpoint
from ami.models.snapshot import open_state, save_state
from ami.training.health import examine, history
from ami.training.loop import Stage, begin, fit
from ami.types import LeftOut, WorldModel

METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Recipe:
    """Data, model, objective and training in one value. Building one writes nothing.

    Where it is of several ``parts``, each has a recipe, built anew by whoever trains it, and ``join`` makes one model
    of what they have learned; ``stages`` are then those of all parts, one after another.
    """

    name: str
    settings: Mapping[str, Any]  # everything that decides the outcome, as JSON
    data: Mapping[str, str]  # each store's embodiment and digest
    seed: int
    build: Callable[[], WorldModel]
    stages: tuple[Stage, ...]
    left_out: tuple[LeftOut, ...] = ()  # of the data: what could not be read, or is shorter than a clip
    parts: Mapping[str, Callable[[], Recipe]] = field(default_factory=dict)  # can be pickled: partials, not lambdas
    join: Callable[[Mapping[str, WorldModel]], WorldModel] | None = None

    @property
    def document(self) -> dict[str, Any]:
        """What ``recipe.json`` holds."""
        return {"name": self.name, "seed": self.seed, "settings": dict(self.settings), "data": dict(self.data)}

    @property
    def steps(self) -> int:
        """Of all stages."""
        return sum(stage.steps for stage in self.stages)


@dataclass(frozen=True)
class Tick:
    """What a watcher of a run is told."""

    stage: str
    step: int  # of that stage
    steps: int  # that it has
    measured: Mapping[str, float]
    advice: tuple[str, ...] = ()


def train(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    save_every: int = 100,
    log_every: int = 10,
    watch: Callable[[Tick], None] = lambda tick: None,
    device: torch.device | str = "cpu",
    workers: int = 1,
) -> Path:
    """Train, or go on training, in ``folder``, on ``device``; the checkpoint's folder comes back.

    ``workers`` parts of a recipe that has some are trained at a time, each in a process of its own.

    A run that is killed at any moment and resumed ends with the weights of one that was not, bit for bit, on the same
    machine with the same number of threads and processes; with other processes, up to rounding. ``ValueError`` where
    the folder, which all processes must see, holds a run and ``resume`` is false, or holds another recipe's run.
    """
    parallel.first(lambda: _claim(folder, recipe.document, resume))
    done = folder / "checkpoint"
    if (done / checkpoint.CONFIG).is_file():
        return done
    if recipe.parts:
        how = {"save_every": save_every, "log_every": log_every, "device": device}
        return _train_parts(recipe, folder, watch, workers, how)
    model = recipe.build().to(device)
    state = open_state(folder / "latest.safetensors") if (folder / "latest.safetensors").is_file() else None
    resumed = sum(stage.steps for stage in recipe.stages[: state["stage"]]) + state["progress"]["step"] if state else 0
    log = _Log(folder, log_every, resumed)
    spent, before, opening = _spending(state or {}), 0, folder / "opening.safetensors"
    for number, stage in enumerate(recipe.stages):
        if state and number < state["stage"]:
            before += stage.steps
            continue
        if number:
            _as_begun(model, opening, again=bool(state), turn=number)
        progress = begin(model, stage, recipe.seed)
        if state and number == state["stage"]:
            progress.restore(state["progress"])
        for measured in fit(progress, stage, _drawn(recipe.seed, stage.name)):
            now = spent()
            step, last = before + progress.step, progress.step == stage.steps
            clips = {clip.embodiment: len(clip) for clip in stage.gauge_clips}
            found = examine(measured, model, progress.objective, clips=clips, done=progress.step / stage.steps)
            row = {"stage": stage.name, "step": step, **now, **measured}
            log.add(row | ({"warnings": [asdict(each) for each in found]} if found else {}), last)
            watch(Tick(stage.name, progress.step, stage.steps, measured, tuple(each.at(step) for each in found)))
            if progress.step % save_every == 0 or last:
                kept = {"stage": number, "progress": progress.state(), **now}
                log.flush()
                save_state(folder / "latest.safetensors", kept, step)
        state, model = None, _in_one_piece(model, lambda: recipe.build().to(device))
        before += stage.steps
    papers = _provenance(recipe, history(read_metrics(folder)), torch.device(device), **spent())
    parallel.first(lambda: checkpoint.save(done, model.eval(), papers))
    parallel.first(lambda: opening.unlink(missing_ok=True))
    return done


def _as_begun(model: WorldModel, opening: Path, *, again: bool, turn: int) -> None:
    """Keep the weights with which a stage begins; where it goes on, take them again.

    A stage may be built from what was learned before it, and from nothing that it taught itself.
    """
    if again:
        model.load_state_dict({name: value.like() for name, value in open_state(opening)["model"].items()})
    else:
        save_state(opening, {"model": dict(model.state_dict())}, turn)


def _train_parts(
    recipe: Recipe, folder: Path, watch: Callable[[Tick], None], workers: int, how: Mapping[str, Any]
) -> Path:
    """Train each part in a folder of its own, then join them; in the metrics they follow one another."""
    assert recipe.join
    jobs = [partial(_train_part, make, folder / name, how) for name, make in recipe.parts.items()]
    done = dict(zip(recipe.parts, cores.at_once(jobs, watch, workers), strict=True))
    rows: list[dict[str, Any]] = []
    spent = {"step": 0, "cpu_seconds": 0.0, "seconds": 0.0}  # by the parts before
    for part in done.values():
        rows += [row | {name: row[name] + held for name, held in spent.items()} for row in read_metrics(part.parent)]
        spent = {name: rows[-1][name] for name in spent}
    model = recipe.join({name: checkpoint.load(part) for name, part in done.items()})
    papers = _provenance(
        recipe, history(rows), torch.device(how["device"]), spent["cpu_seconds"], seconds=spent["seconds"]
    )

    def keep() -> None:
        files.write_text(folder / METRICS, "".join(json.dumps(row) + "\n" for row in rows))
        checkpoint.save(folder / "checkpoint", model.eval(), papers)

    parallel.first(keep)
    return folder / "checkpoint"


def _train_part(make: Callable[[], Recipe], folder: Path, how: Mapping[str, Any], tell: cores.Tell) -> Path:
    """Begin the run of a part, or go on with it."""
    return train(make(), folder, resume=(folder / "recipe.json").is_file(), watch=tell, **how)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log; a torn last line, which a crash can leave, is dropped."""
    path = folder / METRICS
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in lines]


def _in_one_piece(model: WorldModel, build: Callable[[], WorldModel]) -> WorldModel:
    """The model itself or, where processes share its weights out, a new one that holds all of them."""
    held = model.state_dict()
    if not any(map(parallel.is_shared, held.values())):
        return model
    gathered = build()
    gathered.load_state_dict({name: parallel.whole(value) for name, value in held.items()})
    return gathered


class _Log:
    """Adds to ``metrics.jsonl`` when the run saves; begins by dropping what lies after the state that is resumed."""

    def __init__(self, folder: Path, every: int, resumed: int) -> None:
        self.path, self.every = folder / METRICS, every
        self._waiting: list[dict[str, Any]] = []
        if parallel.rank() == 0 and self.path.is_file():
            kept = [row for row in read_metrics(folder) if row["step"] <= resumed]
            files.write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))

    def add(self, row: dict[str, Any], last: bool) -> None:
        gauged = any("gauge/" in name for name in row)
        if parallel.rank() == 0 and (row["step"] % self.every == 0 or gauged or last):
            self._waiting.append(row)

    def flush(self) -> None:
        for row in self._waiting:
            files.append_line(self.path, row)
        self._waiting = []


def _drawn(seed: int, stage: str) -> int:
    """The seed of a stage, by its name: what else a recipe teaches, before it or after, changes nothing in it."""
    return seed << 32 | zlib.crc32(stage.encode())


def _claim(folder: Path, document: Mapping[str, Any], resume: bool) -> None:
    path = folder / "recipe.json"
    if path.is_file():
        if not resume:
            raise ValueError(f"{folder} already holds a run; go on with --resume, or choose another folder")
        held = json.loads(path.read_text(encoding="utf-8"))
        if held != json.loads(json.dumps(document)):
            raise ValueError(f"{folder} holds a run of another recipe, data or seed; choose another folder")
    elif folder.is_dir() and any(file.suffix != ".part" for file in folder.iterdir()):
        raise ValueError(f"{folder} is not empty and holds no run; choose another folder")
    elif resume and not folder.is_dir():
        raise ValueError(f"there is no run in {folder} to resume")
    else:
        files.write_json(path, document)


def _spending(before: Mapping[str, Any]) -> Callable[[], dict[str, float]]:
    """What says how long it took so far, with what was ``before``: CPU time of all processes, and by the clock."""
    cpu = before.get("cpu_seconds", 0.0) - parallel.total(time.process_time())
    wall = before.get("seconds", 0.0) - time.monotonic()
    return lambda: {"cpu_seconds": cpu + parallel.total(time.process_time()), "seconds": wall + time.monotonic()}


def _provenance(
    recipe: Recipe, warnings: tuple[str, ...], device: torch.device, cpu_seconds: float, seconds: float
) -> checkpoint.Provenance:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return checkpoint.Provenance(
        recipe=recipe.name,
        code=checkpoint.code_version(),
        settings=recipe.settings,
        data=recipe.data,
        seeds=(recipe.seed,),
        steps=recipe.steps,
        cpu_seconds=cpu_seconds,
        seconds=seconds,
        device=name if parallel.size() == 1 else f"{parallel.size()} x {name}",
        left_out=recipe.left_out,
        warnings=warnings,
    )
