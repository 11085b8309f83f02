"""A film's timeline: how surprising each step is to a model, and its most surprising moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ami.evaluation.films import film_clip, passive
from ami.reasoning.surprise import (
    Ordinary,
    Watching,
    energies,
    ordinary,
    standing_out,
    stepwise_energies,
    surprise,
)
from ami.types import Clip, WorldModel

Film = UInt8[np.ndarray, "frames height width 3"]
APART = 1.0  # seconds between two moments
MOST = 5  # moments


@dataclass(frozen=True)
class Moment:
    """A step that stands out."""

    time: float  # seconds since the film began
    surprise: float  # deviations above what is ordinary
    stands_out: float  # deviations above the steps beside it


@dataclass(frozen=True)
class Timeline:
    """What ``watch`` answers. ``surprise`` is ``None`` where there was too little before a step to judge it."""

    film: str
    step_seconds: float
    calibrated_on: str
    times: tuple[float, ...]  # seconds, of each step's last frame
    surprise: tuple[float | None, ...]
    moments: tuple[Moment, ...]  # the one that stands out most comes first

    @property
    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "film": self.film,
            "step_seconds": self.step_seconds,
            "calibrated_on": self.calibrated_on,
            "times": list(self.times),
            "surprise": list(self.surprise),
            "moments": [vars(moment) for moment in self.moments],
        }


def calibrate(model: WorldModel, films: Sequence[Film], watching: Watching) -> Ordinary:
    """What the model's own error is on ordinary films."""
    return ordinary([_judged(model, film_clip(model, film), watching) for film in films])


def watch(
    model: WorldModel, video: Film, watching: Watching, known: Ordinary | None = None, *, name: str = "film"
) -> Timeline:
    """Watch one film. Without ``known`` it is calibrated on itself: what is ordinary is what it mostly shows.

    A model that lives through films is judged by one belief, carried along from the beginning; any other by windows.
    """
    clip = film_clip(model, video)
    energy = _judged(model, clip, watching)
    curve = surprise(energy, known or ordinary([energy]), watching)
    out = standing_out(curve, watching).numpy(force=True)
    held, times = curve.numpy(force=True), clip.times[0].double().numpy()
    return Timeline(
        film=name,
        step_seconds=passive(model).step_seconds,
        calibrated_on="itself" if known is None else "ordinary films",
        times=tuple(round(float(time), 4) for time in times),
        surprise=tuple(None if np.isnan(value) else round(float(value), 4) for value in held),
        moments=tuple(
            Moment(round(float(times[k]), 4), round(float(held[k]), 4), round(float(out[k]), 4))
            for k in _peaks(np.where(held > 0, out, np.nan), times)
        ),
    )


def _judged(model: WorldModel, clip: Clip, watching: Watching) -> Float[Tensor, "windows horizon"]:
    """What :func:`energies` answers; a belief that holds on is not begun anew for each window."""
    if clip.embodiment not in model.lives:
        return energies(model, clip, watching)
    along, count = stepwise_energies(model, clip, range(1, watching.horizon + 1))[0], clip.steps - watching.window + 1
    ahead = range(watching.horizon)
    return torch.stack([along[watching.context + k : watching.context + k + count, k] for k in ahead], 1)


def _peaks(out: np.ndarray, times: np.ndarray) -> list[int]:
    """The steps that stand out most, from the highest down, none within ``APART`` seconds of a higher one.

    NaN is never chosen: a step that was judged by nothing, or that is less surprising than is ordinary.
    """
    chosen: list[int] = []
    for step in np.argsort(-np.nan_to_num(out, nan=-np.inf), kind="stable"):
        if len(chosen) == MOST or not out[step] > 0:
            break
        if all(abs(times[step] - times[other]) >= APART for other in chosen):
            chosen.append(int(step))
    return chosen
