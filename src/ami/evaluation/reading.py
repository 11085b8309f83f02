"""Fit a read-out on a store's truth: half of the episodes teach it, the other half say how far off it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ami.data.crops import whole
from ami.data.episodes import Store, split
from ami.evaluation.probes import best_ridge
from ami.reasoning.counterfactual import past
from ami.reasoning.readout import Readout
from ami.reasoning.readouts import Features, Fitted, Kept
from ami.types import Belief, Clip, Latent, WorldModel

AHEAD = 16  # steps that are imagined after the middle of an episode, at most: as far as `ami imagine` does
EPISODES, MOST = 256, 4096  # episodes and steps that teach, and as many that measure: evenly taken if there are more
_TOGETHER = 32  # episodes that are perceived at once
_CHOOSING = 4  # every so many of the steps that teach choose the penalty


def fit_readout_on(
    model: WorldModel, store: Store, columns: Sequence[str], *, unit: str = "", features: Features = "latent"
) -> Kept:
    """Learn to read ``columns`` of the store's truth out of each step, by a ridge on frozen features.

    ``latent`` reads a step's latent, perceived or imagined, and learns from both: what is imagined is less sharp, and
    who learned from what is perceived alone misreads it. ``recurrent`` reads the recurrent state of what is believed
    after a step, where hidden things are. Steps whose truth is not a number are left out. Sides are parted by episode
    (:func:`ami.data.episodes.split`), and the penalty is chosen within the half that teaches.
    """
    if model.training:
        raise ValueError("the model is in training mode and would learn from what it is shown; call model.eval() first")
    if missing := [name for name in columns if name not in store.truth_names]:
        known = ", ".join(store.truth_names) or "none at all: it was recorded without its truth"
        raise ValueError(f"{store.folder} has no column {missing[0]!r} in its truth; it has {known}")
    sides = split(store, 0.5)
    if not columns or not all(sides):
        raise ValueError(f"a read-out needs a column and two episodes, one to learn from; {store.folder} is too small")
    number = [store.truth_names.index(name) for name in columns]
    (known, told, first), (asked, true, seen) = (_side(model, store, side, number, features) for side in sides)
    # A block of episodes of either kind: neighbours in time are alike.
    choose = torch.cat([torch.arange(count) * _CHOOSING // max(count, 1) == 0 for count in (first, len(known) - first)])
    ridge = best_ridge(known, told, choose, ~choose)
    weight = ridge.weight / ridge.scale[:, None]
    readout = Readout(torch.cat([weight, (ridge.constant - ridge.mean @ weight)[None]]).float())
    (off, ahead), true = (readout(asked) - true).split([seen, len(true) - seen]), true[:seen]
    spread = (true - true.mean(0)).square().mean(0).clamp_min(1e-12)
    return Kept(
        readout,
        Fitted(
            embodiment=store.embodiment.name,
            quantities=tuple(columns),
            unit=unit,
            features=features,
            error=tuple(off.abs().mean(0).tolist()),
            imagined=tuple(ahead.abs().mean(0).tolist()) if len(ahead) else None,
            r2=tuple((1 - off.square().mean(0) / spread).tolist()),
            learned=first,
            measured=seen,
            data=store.digest,
        ),
    )


def recorded(model: WorldModel, store: Store, episode: int) -> Clip:
    """A whole recording, one row, as the model sees it (:func:`cut`)."""
    if not 0 <= episode < len(store):
        raise ValueError(f"there is no episode {episode}: {store.folder} holds {len(store)}, from 0")
    steps = store.episodes[episode].length // model.part(_known(model, store)).frames
    if not steps:
        raise ValueError(f"episode {episode} of {store.folder} is shorter than a step of the model")
    return cut(model, store, np.array([[episode, 0]]), steps)


def cut(model: WorldModel, store: Store, index: Int[np.ndarray, "batch 2"], steps: int) -> Clip:
    """Windows of a store at (episode, first frame), in the steps and at the size of the model's pictures."""
    part = model.part(_known(model, store))
    clip = store.clips(index, steps, part.frames)
    return clip if part.picture is None else whole(clip, part.picture)


def _known(model: WorldModel, store: Store) -> str:
    """The store's embodiment. ``ValueError`` where the model does not know it."""
    name = store.embodiment.name
    if name not in model.embodiments:
        raise ValueError(f"the model does not know the embodiment '{name}'; it knows {', '.join(model.embodiments)}")
    return name


@torch.no_grad()
def _side(
    model: WorldModel, store: Store, episodes: Sequence[int], columns: Sequence[int], features: Features
) -> tuple[Float[Tensor, "n feature"], Float[Tensor, "n quantity"], int]:
    """The features and the truth of steps in these episodes, those that are equally long after one another.

    First, so many, as they are perceived; then latents as they are imagined from the middle of an episode.
    """
    episodes = episodes[:: -(-len(episodes) // EPISODES)]
    frames = model.part(_known(model, store)).frames
    by_steps: dict[int, list[int]] = {}
    for episode in episodes:
        by_steps.setdefault(store.episodes[episode].length // frames, []).append(episode)
    every = -(-sum(steps * len(alike) for steps, alike in by_steps.items()) // MOST) or 1
    seen: list[tuple[Tensor, Tensor]] = []
    imagined: list[tuple[Tensor, Tensor]] = []
    for steps, alike in by_steps.items():
        for first in range(0, len(alike) if steps else 0, _TOGETHER):
            clip = cut(model, store, np.array([[episode, 0] for episode in alike[first : first + _TOGETHER]]), steps)
            assert clip.truth is not None
            told = clip.truth[..., columns]
            seen.append(_known_rows(_features(model, clip, features)[:, ::every], told[:, ::every]))
            if features == "latent" and steps > 1:
                ahead, future = _imagined(model, clip)
                imagined.append(_known_rows(future[:, ::every], told[:, ahead][:, ::every]))
    count = sum(len(known) for _, known in seen)
    if count < _CHOOSING:
        raise ValueError(f"{store.folder} has too few steps with a finite truth in these columns; record more episodes")
    found, truth = (torch.cat(part) for part in zip(*seen, *imagined, strict=True))
    return found, truth.float(), count


def _known_rows(seen: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
    """Steps one after another, those whose truth is known."""
    seen, told = seen.flatten(0, 1), told.flatten(0, 1)
    known = told.isfinite().all(1)
    return seen[known], told[known]


def _imagined(model: WorldModel, clip: Clip) -> tuple[slice, Float[Tensor, "batch horizon feature"]]:
    """Which steps are imagined from the middle of a clip, by what was then done; and their latents."""
    start = (clip.steps - 1) // 2
    ahead = min(clip.steps - 1 - start, AHEAD)
    done = None if clip.actions is None else clip.actions[:, start : start + ahead]
    future = model.predict(past(model, clip.between(0, start + 1)), done, ahead)
    return slice(start + 1, start + 1 + ahead), future.values.flatten(2)


def _features(model: WorldModel, clip: Clip, features: Features) -> Float[Tensor, "batch time feature"]:
    """Of each step."""
    seen = model.encode(clip)
    if features == "latent":
        return seen.values.flatten(2)
    belief: Belief | None = None
    states = []
    for step in range(clip.steps):
        now = Latent(seen.values[:, step : step + 1], seen.times[:, step : step + 1])
        done = None if clip.actions is None else clip.actions[:, max(step - 1, 0) : step]
        belief = model.believe(belief, now, done, clip.embodiment)
        states.append(belief.recurrent)
    sizes = {None if state is None else tuple(state.shape) for state in states}
    if len(sizes) > 1 or None in sizes:
        raise ValueError(
            "what this model carries along has no fixed size to read from; read its latents (--features latent)"
        )
    return torch.stack([state.flatten(1) for state in states if state is not None], 1)
