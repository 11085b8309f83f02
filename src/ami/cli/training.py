"""A recipe's run, with a bar for each stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from ami.cli.show import Bars
from ami.data.episodes import Store
from ami.recipes import RECIPES
from ami.recipes.baby import SETTINGS, BabySettings
from ami.recipes.films import VIDEO, FilmSettings
from ami.training.run import Tick
from ami.training.run import train as train_recipe


def settings_of(recipe: str, size: str | None = None, steps: int | None = None) -> BabySettings | FilmSettings:
    """A recipe's settings, with another size, or with ``steps`` in all: its stages keep their proportion."""
    settings = SETTINGS.get(recipe, VIDEO)
    if size is not None:
        settings = replace(settings, size=size)
    if steps is not None:
        if steps < 2:
            raise ValueError(f"{steps} steps were asked for; at least 2 are needed, one for each stage")
        if isinstance(settings, FilmSettings):
            return replace(settings, steps=steps)
        first = round(steps * settings.steps / (settings.steps + settings.refine))
        first = min(max(first, 1), steps - 1)
        settings = replace(settings, steps=first, refine=steps - first)
    return settings


def train(
    name: str,
    stores: Sequence[Store],
    out: Path,
    seed: int,
    bars: Bars,
    *,
    settings: BabySettings | FilmSettings,
    resume: bool = False,
) -> tuple[Path, list[str]]:
    """Train by a recipe; the checkpoint's folder, and what the gauges advise at the end."""
    recipe = RECIPES[name](stores, seed, settings)
    ends = list(accumulate(stage.steps for stage in recipe.stages))
    lengths = {stage.name: (end - stage.steps, stage.steps) for stage, end in zip(recipe.stages, ends, strict=True)}
    gauges: dict[str, float] = {}
    advice: list[str] = []

    def watch(tick: Tick) -> None:
        if any("/gauge/" in name for name in tick.measured):
            gauges.update(_worst(tick.measured))
            advice[:] = tick.advice
        before, length = lengths[tick.stage]
        bars.tell(tick.stage, tick.step - before, length, _note(tick.measured, gauges))

    for stage in recipe.stages:
        bars.tell(stage.name, 0, stage.steps)
    return train_recipe(recipe, out, resume=resume, watch=watch), advice


def _note(measured: Mapping[str, float], gauges: Mapping[str, float]) -> str:
    """What stands behind a bar: the loss, and the gauges of the state as they last were."""
    losses = [value for name, value in measured.items() if "/" in name and "/gauge/" not in name]
    shown: dict[str, Any] = {"loss": sum(losses)}
    shown |= {name.removesuffix("_0"): gauges[name] for name in ("rank_0", "deviation_0", "probe") if name in gauges}
    return "  ".join(f"{name} {value:.3g}" for name, value in shown.items())


def _worst(measured: Mapping[str, float]) -> dict[str, float]:
    """Each gauge at the lowest that it is for any embodiment: a low rank or deviation is a collapse."""
    found: dict[str, float] = {}
    for key, value in measured.items():
        if "/gauge/" in key:
            name = key.rsplit("/", 1)[-1]
            found[name] = min(value, found.get(name, value))
    return found
