"""A film as a model watches it: which embodiment, at what rate, in steps of how many frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import UInt8

from ami import parallel
from ami.data.crops import whole
from ami.data.episodes import Store
from ami.data.video import FILM
from ami.types import Clip, Embodiment, WorldModel


def passive(model: WorldModel, name: str = FILM.name) -> Embodiment:
    """The embodiment by which a model watches: ``name``, the only one without actions, or one that it lives through."""
    bodies = {each: body for each, body in model.embodiments.items() if not body.action_dim}
    if name in bodies:
        return bodies[name]
    if len(bodies) == 1:
        return next(iter(bodies.values()))
    if not bodies and model.lives:
        return model.embodiments[model.lives[0]]
    knows = ", ".join(sorted(model.embodiments))
    raise ValueError(
        f"this model has learned {knows}: nothing that is watched without acting; train one with films, "
        "by the recipe video or baby"
    )


def rate(model: WorldModel) -> float:
    """Frames a second at which a model watches films."""
    return model.frames / passive(model).step_seconds


def film_side(model: WorldModel) -> int:
    """Pixels on a side of the films that a model watches; of one in parts, those of the part that does."""
    return model.part(passive(model).name).picture or 64


def film_clip(model: WorldModel, *videos: UInt8[np.ndarray, "frames height width 3"], body: str | None = None) -> Clip:
    """Equally long films, one in each row, in whole steps; frames that fill no step at the end are left out.

    A step's time is that of its last frame. Pictures larger than the model was built for are brought to its size; then
    all goes to where the model lies.
    """
    watching = passive(model, body or FILM.name)
    part = model.part(watching.name)
    frames, size = part.frames, part.picture
    steps = len(videos[0]) // frames
    stacked = torch.from_numpy(np.stack([video[: steps * frames] for video in videos]))
    times = (torch.arange(steps) + 1 - 1 / frames) * watching.step_seconds
    seen = stacked.unflatten(1, (steps, frames)).permute(0, 1, 2, 5, 3, 4)
    clip = Clip(watching.name, times=times.expand(len(videos), -1), video=seen)
    if size is not None and seen.shape[-1] > size:
        clip = whole(clip, size)
    return _beside(model, clip)


def _beside(model: WorldModel, clip: Clip) -> Clip:
    """The clip where the model lies; pictures go to a GPU from pinned memory, so that nobody waits for them."""
    where = parallel.device_of(model)
    if where.type == "cuda" and clip.video is not None:
        clip = replace(clip, video=clip.video.pin_memory().to(where, non_blocking=True))
    return clip.to(where)


def real_films(store: Store | None, model: WorldModel, asks: str) -> Store:
    """The films that ``asks`` asks about; ``ValueError`` where they are missing, too few, or of another rate."""
    if store is None or len(store) < 2:
        raise ValueError(f"{asks} needs two or more real films; name a store of them with --data")
    if "video" not in store.fields:
        raise ValueError(f"{store.folder} holds no pictures, and {asks} asks about films")
    if abs(store.embodiment.step_seconds * rate(model) - 1) > 0.01:
        raise ValueError(
            f"{store.folder} has {1 / store.embodiment.step_seconds:g} frames a second and this model watches "
            f"{rate(model):g}; ingest the films with --fps {rate(model):g}"
        )
    return store
