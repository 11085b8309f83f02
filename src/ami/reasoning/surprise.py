"""Surprise: the calibrated energy of what was seen, step by step along a film."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ami.types import Clip, WorldModel


@dataclass(frozen=True)
class Watching:
    """How a film is judged. Pinned beforehand: the best context length is never looked for on what is reported."""

    context: int = 2  # steps of a window that are believed
    horizon: int = 1  # steps after them that are predicted, open loop, and judged
    around: int = 2  # steps before and after a step that it is compared with
    batch: int = 64  # windows at a time

    @property
    def window(self) -> int:
        """Steps of a window."""
        return self.context + self.horizon


@dataclass(frozen=True)
class Ordinary:
    """The model's own error on ordinary film, at each horizon: the middle and the spread of its logarithm.

    Errors grow with the horizon and differ from film to film by factors; in logarithms both are a shift, which
    ``middle`` takes away. Median and scaled median deviation are used, so that a few surprises in the film that
    is calibrated on do not become ordinary (Rousseeuw and Croux 1993, "Alternatives to the median absolute deviation").
    """

    middle: Float[Tensor, "horizon"]
    spread: Float[Tensor, "horizon"]


def energies(model: WorldModel, film: Clip, watching: Watching) -> Float[Tensor, "windows horizon"]:
    """The open-loop energy of every window of a film, in the model's units; row w judges steps w + context and on.

    Each window is perceived by itself: the first ``context`` steps are believed and ``horizon`` more are judged at
    once, none of them shown to the belief. The context is perceived once more alone, for a model that is not causal
    would see in it what comes after; what is judged is seen with the whole window, as a teacher sees its targets. The
    procedure is that of Garrido et al. 2025, "Intuitive physics understanding emerges from self-supervised pretraining
    on natural videos" (sliding windows, a fixed context).
    ``film`` is one row. ``ValueError`` where it is shorter than a window.
    """
    if len(film) != 1 or film.steps < watching.window:
        raise ValueError(
            f"{len(film)} film of {film.steps} steps came; surprise needs one of {watching.window} or more, "
            f"{watching.context} to believe and {watching.horizon} to judge"
        )
    count = film.steps - watching.window + 1
    judged = []
    with torch.no_grad():
        for first in range(0, count, watching.batch):
            rows = _windows(film, first, min(first + watching.batch, count), watching.window)
            belief = model.believe(None, model.encode(rows.between(0, watching.context)), None, film.embodiment)
            whole = model.encode(rows)
            judged.append(model.energy(belief, None, whole.between(watching.context, watching.window)))
    return torch.cat(judged)


def stepwise_energies(
    model: WorldModel, film: Clip, horizons: Sequence[int] = (1,), *, batch: int = 64
) -> Float[Tensor, "batch time horizon"]:
    """The energy of every step of films, for a belief that is carried along from their beginning, step by step.

    Entry (t, k) judges step t by what was believed when step t - ``horizons[k]`` had been seen and nothing after it,
    imagined open loop; NaN where the film had not begun by then. So what a recurrent state holds for long counts, where
    :func:`energies` begins a new belief for each window. ``batch`` films are watched at a time. ``ValueError`` for a
    model that is not causal (a step would tell what comes after it), and for films of one step.
    """
    if not model.part(film.embodiment).causal:
        raise ValueError("this model sees each step in the light of those after it; judge it by windows of a film")
    if not horizons or min(horizons) < 1 or film.steps < 2:
        raise ValueError(f"films of {film.steps} steps cannot be judged {horizons} steps ahead; 2 and 1 are the least")
    with torch.no_grad():
        rows = range(0, len(film), batch)
        return torch.cat([_along(model, film.rows(slice(first, first + batch)), horizons) for first in rows])


def _along(model: WorldModel, film: Clip, horizons: Sequence[int]) -> Float[Tensor, "batch time horizon"]:
    seen, belief = model.encode(film), None
    judged = seen.values.new_full((len(film), film.steps, len(horizons)), torch.nan)

    for now in range(film.steps - 1):
        belief = model.believe(belief, seen.between(now, now + 1), None, film.embodiment)
        ahead = min(max(horizons), film.steps - 1 - now)
        energy = model.energy(belief, None, seen.between(now + 1, now + 1 + ahead))
        for place, horizon in enumerate(horizons):
            if horizon <= ahead:
                judged[:, now + horizon, place] = energy[:, horizon - 1]
    return judged


def ordinary(films: Sequence[Float[Tensor, "windows horizon"]]) -> Ordinary:
    """Calibrate on the energies of ordinary films. A single film, watched by itself, is its own calibration."""
    logs = _log(torch.cat(list(films)))
    middle = logs.median(0).values
    spread = 1.4826 * (logs - middle).abs().median(0).values  # of a Gaussian: its deviation
    return Ordinary(middle, spread.clamp_min(1e-3))


def surprise(energy: Float[Tensor, "windows horizon"], known: Ordinary, watching: Watching) -> Float[Tensor, "steps"]:
    """How many deviations each step is above what is ordinary: the mean over all windows that judge it.

    The first ``context`` steps are judged by none and are NaN.
    """
    score = (_log(energy) - known.middle) / known.spread
    steps = len(energy) + watching.window - 1
    total, count = score.new_zeros(steps), score.new_zeros(steps)
    for ahead in range(watching.horizon):
        judged = slice(watching.context + ahead, watching.context + ahead + len(energy))
        total[judged] += score[:, ahead]
        count[judged] += 1
    return total / count


def standing_out(curve: Float[Tensor, "steps"], watching: Watching) -> Float[Tensor, "steps"]:
    """How far each step is above the median of its neighbours, ``around`` before and as many after; NaN stays NaN.

    A shaking camera makes whole stretches surprising; a moment is one where the film is not as just before and after.
    """
    reach = watching.around
    padded = torch.nn.functional.pad(curve, (reach, reach), value=torch.nan)
    beside = padded.unfold(0, 2 * reach + 1, 1)
    others = torch.cat([beside[:, :reach], beside[:, reach + 1 :]], 1)
    return curve - others.nanquantile(0.5, 1)


def _windows(film: Clip, first: int, stop: int, length: int) -> Clip:
    """Windows ``first`` to ``stop`` of a film, each a row; a view, for films are large."""
    assert film.video is not None
    part = slice(first, stop + length - 1)
    video = film.video[0, part].unfold(0, length, 1).movedim(-1, 1)
    return Clip(film.embodiment, times=film.times[0, part].unfold(0, length, 1), video=video)


def _log(energy: Tensor) -> Tensor:
    """Frames that stand still may be predicted without any error at all."""
    return energy.double().clamp_min(1e-12).log()
