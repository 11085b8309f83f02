"""A recipe's run, with a bar for each stage; or, before one, what it would take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ami import parallel
from ami.cli.show import Bars, Outcome, lines, listing, missing
from ami.data.episodes import Store
from ami.models import checkpoint
from ami.nn.precision import fast_precision
from ami.recipes import RECIPES, scale
from ami.recipes.baby import SETTINGS, BabySettings
from ami.recipes.films import VIDEO, FilmSettings
from ami.recipes.objects import OBJECTS, ObjectSettings
from ami.recipes.physics import PHYSICS, PhysicsSettings
from ami.recipes.places import PLACES, PlacesSettings
from ami.recipes.slots import SLOTS, SlotsSettings
from ami.recipes.spatial import SPATIAL, SpatialSettings
from ami.training.estimate import UTILISATION, Cluster
from ami.training.run import Tick
from ami.training.run import train as train_recipe

_STAGES = ("notice", "steps", "leaps", "measures")  # what settings call the steps of a recipe's stages
Settings = (
    BabySettings | FilmSettings | PhysicsSettings | SlotsSettings | ObjectSettings | PlacesSettings | SpatialSettings
)


def settings_of(recipe: str, size: str | None = None, steps: int | None = None, picture: int | None = None) -> Settings:
    """A recipe's settings, with another size, or with ``steps`` in all.

    Of a baby they are those of the first two stages of the part that acts; all else keeps its proportion to them.
    """
    known: dict[str, Settings] = {
        **SETTINGS,
        "video": VIDEO,
        "physics": PHYSICS,
        "slots": SLOTS,
        "objects": OBJECTS,
        "places": PLACES,
        **dict.fromkeys(("spatial", "spatial-colours", "spatial-shuffled"), SPATIAL),
    }
    settings = known[recipe]
    if size is not None:
        if isinstance(settings, ObjectSettings):
            raise ValueError(f"the recipe objects has one size, and --size {size} is none of its settings")
        settings = replace(settings, size=size)
    if picture is not None:
        if not isinstance(settings, FilmSettings):
            raise ValueError(f"the recipe {recipe} sees pictures as they are; --picture is for the recipe video")
        settings = replace(settings, picture=picture)
    if not isinstance(settings, BabySettings):
        return settings if steps is None else _lasting(settings, steps)
    if size is not None:
        settings = replace(
            settings,
            films=replace(settings.films, size=size),
            physics=replace(settings.physics, size=size),
            places=replace(settings.places, size=size),
            spatial=replace(settings.spatial, size=size),
        )
    if steps is not None:
        if steps < 2:
            raise ValueError(f"{steps} steps were asked for; at least 2 are needed, one for each stage")
        share = steps / (settings.steps + settings.refine)

        def fewer(count: int) -> int:
            return max(round(share * count), 1) if count else 0

        settings = replace(
            settings,
            steps=(first := min(fewer(settings.steps), steps - 1)),
            refine=steps - first,
            reach=fewer(settings.reach),
            unsure=fewer(settings.unsure),
            films=replace(settings.films, steps=fewer(settings.films.steps)),
            physics=replace(settings.physics, steps=fewer(settings.physics.steps), leaps=fewer(settings.physics.leaps)),
            places=replace(settings.places, steps=fewer(settings.places.steps)),
            spatial=replace(
                settings.spatial, steps=fewer(settings.spatial.steps), measures=fewer(settings.spatial.measures)
            ),
        )
    return settings


def _lasting(settings: Settings, steps: int) -> Settings:
    """With ``steps`` in all, each stage's in proportion to what it has."""
    stages = [name for name in _STAGES if getattr(settings, name, 0)]
    if steps < len(stages):
        least = "1 is needed" if len(stages) == 1 else f"{len(stages)} are needed, one for each stage"
        raise ValueError(f"{steps} steps were asked for; at least {least}")
    counts = {name: getattr(settings, name) for name in stages}
    share = steps / sum(counts.values())
    fewer = {name: max(int(share * count), 1) for name, count in counts.items()}
    return replace(settings, **fewer | {"steps": fewer["steps"] + steps - sum(fewer.values())})


def train(
    name: str,
    stores: Sequence[Store],
    out: Path,
    seed: int,
    bars: Bars,
    *,
    settings: Settings,
    resume: bool = False,
    device: torch.device | str = "cpu",
) -> Path:
    """Train by a recipe; the checkpoint's folder, whose provenance says what the gauges warned of."""
    recipe = RECIPES[name](stores, seed, _settled(settings, torch.device(device).type))
    gauges: dict[str, float] = {}
    warned: set[str] = set()

    def watch(tick: Tick) -> None:
        if any("/gauge/" in name for name in tick.measured):
            gauges.update(_worst(tick.measured))
            warned.update(tick.advice)
        bars.tell(tick.stage, tick.step, tick.steps, _note(tick.measured, gauges, len(warned)))

    for stage in recipe.stages:
        bars.tell(stage.name, 0, stage.steps)
    alone = parallel.size() == 1 and torch.device(device).type == "cpu"
    workers = torch.get_num_threads() if alone else 1
    return train_recipe(recipe, out, resume=resume, watch=watch, device=device, workers=workers)


def outcome(done: Path) -> Outcome:
    """What to say of a checkpoint that was trained."""
    papers = checkpoint.read_provenance(done)
    held = {
        "checkpoint": str(done),
        "digest": checkpoint.digest(done),
        "steps": papers.steps,
        "cpu_seconds": papers.cpu_seconds,
        "seconds": papers.seconds,
        "device": papers.device,
        "advice": list(papers.warnings),
        "left_out": [asdict(each) for each in papers.left_out],
    }
    by_clock = f"{papers.seconds:.0f} s on {papers.device}"
    took = f"{papers.cpu_seconds:.0f} CPU-seconds" if papers.device.endswith("cpu") else by_clock
    said = f"{papers.steps} steps, {took}; the checkpoint is {done}"
    return Outcome(held, lines(said, *missing(papers.left_out, most=5), *papers.warnings))


def _settled(settings: Any, device: str) -> Any:
    """The same settings, and those of the parts, with a precision of ``auto`` put as the device has it."""
    held = {each.name: getattr(settings, each.name) for each in fields(settings)}
    parts = {name: _settled(value, device) for name, value in held.items() if is_dataclass(value)}
    if held.get("precision") == "auto":
        parts["precision"] = fast_precision(device)
    return replace(settings, **parts)


def preview(recipe: str, size: str | None, steps: int | None, picture: int | None, cluster: str) -> Outcome:
    """What training would take, on a cluster of that name."""
    if recipe != "video":
        raise ValueError(f"a dry run reckons what a V-JEPA takes, by the recipe video; {recipe} is not one")
    if steps is not None and steps < 1:
        raise ValueError(f"{steps} steps were asked for; at least 1 is needed")
    held = {"recipe": recipe, **scale.preview(size or "baby", Cluster.named(cluster), steps, picture)}
    clip, plan, takes, parts = held["clip"], held["schedule"], held["takes"], held["parameters"]
    seen = " and ".join(f"{mask['visible']:,}" for mask in clip["masks"])
    state, clip_bytes, memory = (_size(takes[f"{each}_bytes"]) for each in ("state", "clip", "memory"))
    hours = f"{_time(takes['hours'])}, or {_time(takes['gpu_hours'])} of one GPU, at {UTILISATION:.0%} of its peak"
    rows = [
        ("size", held["size"]),
        ("parameters", ", ".join(f"{number:,} in the {name}" for name, number in parts.items())),
        (
            "a clip",
            f"{clip['frames']} frames at {clip['fps']:g} a second, {clip['picture']} px: {clip['tokens']:,} tokens",
        ),
        ("of them seen", f"{seen}, under the two masks"),
        ("training", f"{plan['steps']:,} steps of {plan['batch']:,} clips, AdamW at {plan['rate']:.3g}"),
        ("operations", f"{takes['flops_per_step']:.3g} a step, {takes['flops_per_step'] * plan['steps']:.3g} in all"),
        ("memory", f"{memory} on each GPU: {state} of weights and what goes with them, {clip_bytes} for each clip"),
        ("at once", f"clips on each GPU: {takes['clips_at_once']}, of the {takes['room']} that its memory holds"),
        (cluster, hours if takes["fits"] else "a step does not fit; reckon with more GPUs"),
        ("but here", f"ami train itself does {steps or VIDEO.steps:,} steps of {VIDEO.batch} clips, for one machine"),
    ]
    return Outcome(held, listing(rows))


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**29 else f"{count / 2**20:.1f} MiB"


def _time(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 1 else f"{60 * hours:.1f} min" if hours >= 1 / 60 else "a minute at most"


def _note(measured: Mapping[str, float], gauges: Mapping[str, float], warned: int = 0) -> str:
    """What stands behind a bar: the loss, the gauges of the state as they last were, and how often they warned."""
    losses = [value for name, value in measured.items() if "/" in name and "/gauge/" not in name]
    shown: dict[str, Any] = {"loss": sum(losses)}
    shown |= {name.removesuffix("_0"): gauges[name] for name in ("rank_0", "deviation_0", "probe") if name in gauges}
    said = [f"{name} {value:.3g}" for name, value in shown.items()] + ([f"warnings {warned}"] if warned else [])
    return "  ".join(said)


def _worst(measured: Mapping[str, float]) -> dict[str, float]:
    """Each gauge at the lowest that it is for any embodiment: a low rank or deviation is a collapse."""
    found: dict[str, float] = {}
    for key, value in measured.items():
        if "/gauge/" in key:
            name = key.rsplit("/", 1)[-1]
            found[name] = min(value, found.get(name, value))
    return found
