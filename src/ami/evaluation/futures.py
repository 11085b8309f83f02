"""What if, about a recording: the future as it was and as it might have been, imagined side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ami.data.episodes import Store
from ami.evaluation.benchmark import Decoder
from ami.evaluation.inferring import infer, ordinary
from ami.evaluation.reading import AHEAD, recorded
from ami.evaluation.simulator import simulator_of
from ami.reasoning.counterfactual import Futures, carried, distance, past, what_if
from ami.reasoning.readouts import Kept
from ami.types import Belief, Clip, Latent, WorldModel

Film = UInt8[np.ndarray, "k height width 3"]
Told = Float[np.ndarray, "steps truth"]
_SHOWN = 8  # pictures in a row


@dataclass(frozen=True)
class WhatIf:
    """What is asked of a recording. Up to step ``start`` it is believed; then the futures part."""

    episode: int
    held: tuple[tuple[int, tuple[float, ...]], ...] = ()  # other actions: from which imagined step on, and which
    past: int | None = None  # another recording of the store, which is what was seen up to ``start`` instead
    start: int | None = None  # the last step that is believed, from 0; the middle of the recording, if not said
    steps: int | None = None  # to imagine; 16, or as many as the recording has left, if not said
    infer: Literal["recurrent", "latents", "nothing"] | None = None  # of the belief; what it carries along, if it does


@dataclass(frozen=True)
class Imagined:
    """The answer: as JSON, and what its pictures are drawn from. One row."""

    document: dict[str, Any]
    futures: Futures
    seen: Film  # each step's last frame, as it was recorded
    truly: Film | None  # the same as it would truly have been, where somebody knows


@torch.no_grad()
def imagine(model: WorldModel, store: Store, asked: WhatIf, shelf: Mapping[str, Kept]) -> Imagined:
    """Infer hidden causes from what was then seen, replace what is asked about, and imagine both futures.

    What would truly have come is told where somebody knows: by another past's own recording, where the same was done
    after it, or by the world's simulator, run again from the recorded truth. ``ValueError`` for what does not fit.
    """
    if "video" not in store.fields:
        raise ValueError(f"{store.folder} holds no pictures, and what is imagined is shown beside them")
    clip = recorded(model, store, asked.episode)
    start, steps = _when(asked, clip.steps)
    ahead = slice(start + 1, start + 1 + steps)
    perceived = model.encode(clip.between(0, ahead.stop))
    seen = Latent(perceived.values[:, ahead], perceived.times[:, ahead])
    done = None if clip.actions is None else clip.actions[:, start : start + steps]
    instead = _instead(asked, store, done)
    before = past(model, clip.between(0, start + 1))
    explained = _explained(model, store, asked, start, before, done, seen)
    source, other = clip, explained
    if asked.past is not None:
        source = recorded(model, store, asked.past)
        if source.steps < ahead.stop:
            raise ValueError(f"episode {asked.past} has {source.steps} steps; {ahead.stop} are needed to compare")
        other = carried(explained, before, past(model, source.between(0, start + 1)))
    futures = what_if(model, explained, done, steps, instead=instead, other=other)
    truth, truly = _truly(store, source, ahead, instead)
    energies = [model.energy(belief, done, seen)[0].tolist() for belief in (before, explained)]
    document = {
        "store": {"folder": str(store.folder), "digest": store.digest},
        "episode": asked.episode,
        "past": asked.past,
        "embodiment": clip.embodiment,
        "start": start,
        "times": clip.times[0, ahead].tolist(),
        "actions": None if done is None or instead is None else _both(done[0].tolist(), instead[0].tolist()),
        "inferred": asked.infer != "nothing",
        "energy": {
            "before_inferring": energies[0],
            **_both(energies[1], model.energy(other, instead, seen)[0].tolist()),
        },
        "apart": futures.apart[0].tolist(),
        "error": distance(futures.factual, seen)[0].tolist(),
        "readouts": _read(shelf, futures, clip, _both(_told(clip, ahead), truth), store.truth_names),
        "hidden": _hidden(shelf, clip, before, explained),
    }
    return Imagined(document, futures, _last_frames(clip, ahead), truly)


def strips(answer: Imagined, decode: Decoder) -> tuple[list[int], dict[str, Film]]:
    """A few imagined steps (from 1), and their pictures row by row: recorded, imagined twice, and as it truly went."""
    steps = answer.futures.factual.steps
    at = np.unique(np.linspace(0, steps - 1, min(steps, _SHOWN)).round().astype(int))
    rows = {"recorded": answer.seen[at]}
    for name, future in (("imagined", answer.futures.factual), ("what if", answer.futures.other)):
        rows[name] = decode(Latent(future.values[:, at], future.times[:, at]))[0]
    if answer.truly is not None:
        rows["what if, truly"] = answer.truly[at]
    return (at + 1).tolist(), rows


def _when(asked: WhatIf, total: int) -> tuple[int, int]:
    """The last step that is believed, and how many are imagined after it."""
    start = (total - 1) // 2 if asked.start is None else asked.start
    left = total - 1 - start
    steps = min(left, AHEAD) if asked.steps is None else asked.steps
    if start < 0 or not 1 <= steps <= left:
        raise ValueError(
            f"{steps} steps after step {start} were asked for, and episode {asked.episode} has steps 0 to {total - 1}; "
            "let both futures lie within it"
        )
    return start, steps


def _instead(
    asked: WhatIf, store: Store, done: Float[Tensor, "1 steps action"] | None
) -> Float[Tensor, "1 steps action"] | None:
    """What is done in the other future: what was done, until something else is held."""
    body = store.embodiment
    if done is None:
        if asked.held:
            raise ValueError(f"nobody acts as '{body.name}', so no action can be another; ask with past=EPISODE")
        return None
    instead = done.clone()
    for step, action in asked.held:
        said = f"the action {','.join(f'{number:g}' for number in action)} from step {step}"
        if len(action) != body.action_dim or not 0 <= step < done.shape[1]:
            raise ValueError(
                f"{said} does not fit: '{body.name}' has {body.action_dim} numbers in an action, and steps 0 to "
                f"{done.shape[1] - 1} are imagined"
            )
        if not all(low <= number <= high for low, number, high in zip(body.low, action, body.high, strict=True)):
            raise ValueError(f"{said} is out of bounds: '{body.name}' acts from {body.low} to {body.high}")
        instead[:, step:] = torch.tensor(action)
    return instead


def _explained(
    model: WorldModel, store: Store, asked: WhatIf, start: int, before: Belief, done: Tensor | None, seen: Latent
) -> Belief:
    """What is believed with the hidden causes that explain what was then seen."""
    if asked.infer == "nothing":
        return before
    unknown = asked.infer or ("latents" if before.recurrent is None else "recurrent")
    others = [episode for episode in (asked.episode, asked.past) if episode is not None]
    known = ordinary(model, store, start + 1, seen.steps, unknown, without=others)
    return infer(model, before, done, seen, known).belief


def _truly(
    store: Store, source: Clip, ahead: slice, instead: Float[Tensor, "1 steps action"] | None
) -> tuple[Told | None, Film | None]:
    """The truth of the other future and its pictures: as its past went on by the same actions, or by the simulator."""
    done = None if source.actions is None else source.actions[:, ahead.start - 1 : ahead.stop - 1]
    if instead is None or (done is not None and torch.equal(done, instead)):
        return _told(source, ahead), _last_frames(source, ahead)
    simulator = None if source.truth is None else simulator_of(source.embodiment)
    if simulator is None:
        return None, None
    now = source.between(ahead.start - 1, ahead.start)
    belief = simulator.believe(None, simulator.encode(now), None, source.embodiment)
    truth = simulator.predict(belief, instead, instead.shape[1])
    return truth.values[0, :, 0].numpy(force=True), simulator.draw(truth)[0]


def _told(clip: Clip, ahead: slice) -> Told | None:
    return None if clip.truth is None else clip.truth[0, ahead].numpy(force=True)


def _last_frames(clip: Clip, ahead: slice) -> Film:
    """Of each step, the last frame."""
    assert clip.video is not None
    return clip.video[0, ahead, -1].permute(0, 2, 3, 1).numpy(force=True)


def _read(
    shelf: Mapping[str, Kept], futures: Futures, clip: Clip, truth: Mapping[str, Told | None], names: Sequence[str]
) -> list[dict[str, Any]]:
    """What the checkpoint's read-outs of latents say at each step of both futures, and the truth where it is known."""
    found = []
    for name, kept in _of(shelf, clip, "latent").items():
        held = kept.fitted
        columns = [names.index(each) for each in held.quantities] if set(held.quantities) <= set(names) else None
        true = {
            which: None if told is None or columns is None else _finite(told[:, columns])
            for which, told in truth.items()
        }
        found.append(
            {
                **_about(name, kept),
                **_both(*(_finite(kept.readout.along(each)[0]) for each in (futures.factual, futures.other))),
                "apart": _finite(futures.differ(kept.readout)[0]),
                "truth": true,
            }
        )
    return found


def _hidden(shelf: Mapping[str, Kept], clip: Clip, before: Belief, explained: Belief) -> list[dict[str, Any]]:
    """What its read-outs of what is carried along say of the last step believed, before and after inferring."""
    return [
        {
            **_about(name, kept),
            **{
                when: _finite(kept.readout(belief.recurrent.flatten(1))[0])
                for when, belief in (("before", before), ("after", explained))
                if belief.recurrent is not None
            },
        }
        for name, kept in _of(shelf, clip, "recurrent").items()
    ]


def _of(shelf: Mapping[str, Kept], clip: Clip, features: str) -> dict[str, Kept]:
    return {
        name: kept
        for name, kept in shelf.items()
        if (kept.fitted.embodiment, kept.fitted.features) == (clip.embodiment, features)
    }


def _about(name: str, kept: Kept) -> dict[str, Any]:
    held = kept.fitted
    error = held.error if held.imagined is None else held.imagined  # where one is said, it is imagined steps it reads
    return {"name": name, "quantities": list(held.quantities), "unit": held.unit, "error": list(error)}


def _both(factual: Any, other: Any) -> dict[str, Any]:
    return {"factual": factual, "what_if": other}


def _finite(values: Any) -> Any:
    """Numbers as JSON has them: what is none becomes ``None``."""
    if isinstance(values, Tensor | np.ndarray):
        return _finite(values.tolist())
    if isinstance(values, list):
        return [_finite(each) for each in values]
    return values if math.isfinite(values) else None
