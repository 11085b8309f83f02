"""A capability's figures from nothing: a demo's stages once for each training seed, and the reports pooled."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

from ami import files
from ami.cli import demo
from ami.cli.show import Bars
from ami.evaluation.report import LOG, Checkpoint, Code, Report, Suite, read_report, write_report
from ami.evaluation.statistics import wilson
from ami.models.checkpoint import read_provenance
from ami.recipes.baby import DOOR, PLAN, SETTINGS
from ami.recipes.films import VIDEO
from ami.recipes.physics import PHYSICS
from ami.recipes.places import PLACES
from ami.recipes.spatial import SPATIAL
from ami.types import Interval, Result

_WALLS: dict[str, Any] = {"world": "two-rooms/wall", "episodes": 1500, "steps": 129}  # long enough to find the door
_DOORS = {**_WALLS, "world": "two-rooms/door", "episodes": 1000}
_REVISITED = {**_WALLS, "world": "two-rooms/revisited", "episodes": 3000}  # two of each layout; some have no door
_TASKS = (("push-t", 400), ("reacher", 200), ("point-maze", 300), ("cube", 160))
# What remembers, by itself: the parts that explore and expect, without those that act, watch and view.
_HOLDS = replace(
    SETTINGS["baby"], physics=replace(PHYSICS, steps=800, leaps=0), places=PLACES, spatial=replace(SPATIAL, steps=0)
)

_ROOMS = replace(demo.FULL, drawn=0, physics=0, mazes=0)
_NOTHING = replace(_ROOMS, episodes=0)

CAPABILITIES = {
    "rooms": replace(_ROOMS, settings=replace(SETTINGS["baby"], reach=0), suite="rooms", with_films="rooms"),
    "plan": replace(
        _ROOMS,
        settings=PLAN,
        **_REVISITED,
        tasks=_TASKS,
        suite="planning-worlds",
        with_films="planning-worlds",
        bare="planning-rooms",
    ),
    "wall": replace(_ROOMS, settings=PLAN, **_WALLS, suite="plan", with_films="plan"),
    "door": replace(_ROOMS, settings=DOOR, **_DOORS, suite="door", with_films="door"),
    "video": replace(_NOTHING, recipe="video", settings=VIDEO, drawn=6000, suite="films", with_films="video"),
    "reason": replace(
        _NOTHING, recipe="physics", settings=PHYSICS, physics=9000, suite="reason-4", with_films="reason-4"
    ),
    "spatial": replace(
        _NOTHING,
        recipe="spatial",
        settings=SPATIAL,
        rivals=("spatial-colours", "spatial-shuffled"),
        mazes=1500,
        walk=24,
        tabletop=1200,
        suite="spatial-5",
        with_films="spatial-5-recorded",
        bare="spatial-maze-4",
    ),
    "memory": replace(_NOTHING, settings=_HOLDS, mazes=800, cups=3000, suite="memory", with_films="memory"),
}


def reproduce(
    name: str, out: Path, seeds: int, bars: Bars, data: Sequence[Path] = (), scale: demo.Scale | None = None
) -> dict[str, Any]:
    """Collect, train and ask what belongs to a capability, for the seeds 0 to ``seeds`` - 1; the pooled report.

    With recordings in ``data`` the same models learn them too, and what is held out of them is asked about.

    A seed is that of the experience, of the training and of the questions, so no two seeds share anything. What was
    finished before is not done again.
    """
    if seeds < 1:
        raise ValueError(f"--seeds is {seeds}; at least one training is needed")
    scale, notes = at_hand(scale or CAPABILITIES[name])
    folders = [out / f"seed-{seed}" for seed in range(seeds)]
    for seed, folder in enumerate(folders):
        bars.before = f"seed {seed} ({seed + 1} of {seeds}) "
        demo.demo(demo.Request(folder, data, seed=seed), bars, scale)
    bars.before = ""
    words = ["ami", "reproduce", name, "--seeds", str(seeds), "--out", str(out)]
    command = shlex.join([*words, *(["--data", *map(str, data)] if data else [])])
    pooled = pool(folders, command)
    for rival in scale.rivals:
        notes += (_spent(rival, folders, pooled.cpu_seconds["train"]),)
    write_report(out, replace(pooled, notes=[*pooled.notes, *notes]))
    return read_report(out)


def at_hand(scale: demo.Scale) -> tuple[demo.Scale, tuple[str, ...]]:
    """What of it can be made where MuJoCo is not installed, and what must be said of that."""
    if not scale.bare or find_spec("mujoco") is not None:
        return scale, ()
    left = " and ".join([*(name for name, _ in scale.tasks), *(["the table"] if scale.tabletop else [])])
    said = f"MuJoCo (the extra 'worlds') is not installed: {left} could be neither learned from nor asked about."
    films = scale.with_films.replace(scale.suite, scale.bare)
    return replace(scale, tabletop=0, tasks=(), suite=scale.bare, with_films=films), (said,)


def _spent(rival: str, folders: Sequence[Path], own: float) -> str:
    """What the training of a rival took beside the checkpoint's own."""
    papers = [read_provenance(folder / rival / "checkpoint") for folder in folders]
    took = fmean(each.cpu_seconds for each in papers)
    return f"{rival} was trained in {took:.0f} CPU-seconds ({papers[0].steps} steps), the model in {own:.0f}."


def pool(folders: Sequence[Path], command: str) -> Report:
    """One report from reports of the same suite and code: every share is counted anew over all episodes."""
    held = [read_report(folder) for folder in folders]
    first = held[0]
    for key in ("suite", "code"):
        if other := next((each for each in held if each[key] != first[key]), None):
            raise ValueError(
                f"{folders[0]} and {folders[held.index(other)]} were made with another {key}; delete the older one"
            )
    logs = [_episodes(folder) for folder in folders]
    results = []
    for place, answer in enumerate(first["results"]):
        answers = [each["results"][place] for each in held]
        asked = answer["benchmark"], answer["metric"]
        results.append(_pooled(answers, [row for log in logs for row in log.get(asked, [])]))
    digests = [each["checkpoint"]["digest"] for each in held]
    one = len(held) == 1
    return Report(
        checkpoint=Checkpoint(
            digest=digests[0] if one else files.digest([digest.encode() for digest in digests]),
            parameters=first["checkpoint"]["parameters"],
            recipe=first["checkpoint"]["recipe"] + ("" if one else f", {len(held)} trainings"),
        ),
        suite=Suite(**first["suite"]),
        code=Code(**first["code"]),
        results=results,
        created=max(each["created"] for each in held),
        machine=first["machine"],
        cpu_seconds={name: fmean(each["cpu_seconds"][name] for each in held) for name in first["cpu_seconds"]},
        protocol=[*first["protocol"], "CPU-seconds are the mean of the trainings; intervals are over all episodes."],
        commands=(command,),
        notes=[note for each in held for note in each["notes"]] if one else (),
        provenance={"checkpoints": digests, "reports": [folder.name for folder in folders]},
    )


def _pooled(answers: Sequence[Mapping[str, Any]], episodes: Sequence[Mapping[str, Any]]) -> Result:
    first = answers[0]
    if not first["interval"].startswith("Wilson"):
        return _averaged(answers)
    n = sum(answer["n"] for answer in answers)
    whole = _counted([(answer, answer["n"]) for answer in answers])
    return Result(
        benchmark=first["benchmark"],
        metric=first["metric"],
        value=whole.value,
        low=whole.low,
        high=whole.high,
        n=n,
        unit="share",
        seeds=tuple(seed for answer in answers for seed in answer["seeds"]),
        interval=first["interval"],
        baselines={
            name: _counted([(each["baselines"][name], each["n"]) for each in answers]) for name in first["baselines"]
        },
        seconds=sum(answer["seconds"] for answer in answers),
        model_calls=sum(answer["model_calls"] for answer in answers),
        details={"by_distance": _bins([answer["by_distance"] for answer in answers]), "episodes": episodes},
    )


def _averaged(answers: Sequence[Mapping[str, Any]]) -> Result:
    """Trainings asked about the same recordings: n does not grow, so neither does the interval shrink."""
    first = answers[0]

    def mean(each: Sequence[Mapping[str, float]]) -> Interval:
        return Interval(*(fmean(one[key] for one in each) for key in ("value", "low", "high")))

    whole = mean(answers)
    return Result(
        **{key: first[key] for key in ("benchmark", "metric", "n", "unit")},
        value=whole.value,
        low=whole.low,
        high=whole.high,
        seeds=tuple(seed for answer in answers for seed in answer["seeds"]),
        interval=first["interval"] + (f", mean of {len(answers)} trainings" if len(answers) > 1 else ""),
        baselines={name: mean([each["baselines"][name] for each in answers]) for name in first["baselines"]},
        seconds=sum(answer["seconds"] for answer in answers),
        model_calls=sum(answer["model_calls"] for answer in answers),
    )


def _counted(shares: Sequence[tuple[Mapping[str, float], int]]) -> Interval:
    """The share over all the episodes of several shares, each of at most so many episodes."""
    if all(share["low"] == share["high"] for share, _ in shares):  # nobody's answers, but what chance would be
        return Interval(*(fmean(share[key] for share, _ in shares) for key in ("value", "low", "high")))
    counts = [_trials(share, most) for share, most in shares]
    return wilson(sum(wins for wins, _ in counts), sum(n for _, n in counts))


def _trials(share: Mapping[str, float], most: int) -> tuple[int, int]:
    """The successes and episodes that a Wilson interval was made of: a report keeps no n of a baseline's own."""
    for n in range(most, 0, -1):
        wins = round(share["value"] * n)
        made = wilson(wins, n)
        if max(abs(made.low - share["low"]), abs(made.high - share["high"])) < 1e-9:
            return wins, n
    raise ValueError(f"[{share['low']}, {share['high']}] is no Wilson interval of at most {most} episodes")


def _bins(answers: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Bins of the same distances, put together."""
    pooled = []
    for low, high, unit in sorted({(each["low"], each["high"], each["unit"]) for bins in answers for each in bins}):
        same = [each for bins in answers for each in bins if (each["low"], each["high"]) == (low, high)]
        rows = {}
        for name in dict.fromkeys(name for each in same for name in each["rows"]):
            share = _counted([(each["rows"][name], each["n"]) for each in same if name in each["rows"]])
            rows[name] = {"value": share.value, "low": share.low, "high": share.high}
        pooled.append({"low": low, "high": high, "unit": unit, "n": sum(each["n"] for each in same), "rows": rows})
    return pooled


def _episodes(folder: Path) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """The rows of a report's episode log, by benchmark and metric."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for line in (folder / LOG).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        benchmark, metrics = row.pop("benchmark"), row.pop("metrics")
        row["seed_folder"], _ = folder.name, row.pop("episode")
        for metric in metrics:
            found.setdefault((benchmark, metric), []).append(row)
    return found
