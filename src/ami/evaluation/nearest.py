"""Latents as pictures, without anything learned: the recorded moments that the model perceives as most alike."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from ami.data.episodes import Store
from ami.evaluation.benchmark import Decoder
from ami.evaluation.reading import recorded
from ami.types import Latent, WorldModel

MOST = 4096  # moments to choose from, evenly over the store


@torch.no_grad()
def nearest_frames(model: WorldModel, store: Store, episode: int) -> Decoder:
    """A decoder that answers with recorded pictures: of ``episode``, every step, and of the others as many as fit."""
    clips = {number: recorded(model, store, number) for number in _chosen(store, episode)}
    every = -(-sum(clip.steps for clip in clips.values()) // MOST)
    known, shown = [], []
    for number, clip in clips.items():
        assert clip.video is not None
        kept = slice(None, None, 1 if number == episode else every)
        known.append(model.encode(clip).values[0, kept].flatten(1))
        shown.append(clip.video[0, kept, -1].permute(0, 2, 3, 1))
    latents, pictures = torch.cat(known), torch.cat(shown).numpy(force=True)

    def decode(latent: Latent) -> UInt8[np.ndarray, "batch time height width 3"]:
        asked: Tensor = latent.values.flatten(2).flatten(0, 1)
        return pictures[torch.cdist(asked, latents).argmin(1).numpy(force=True)].reshape(
            *latent.times.shape, *pictures.shape[1:]
        )

    return decode


def _chosen(store: Store, episode: int) -> list[int]:
    """This episode, and others evenly over the store until there are steps enough."""
    length = max(sum(info.length for info in store.episodes) // len(store), 1)
    others = np.linspace(0, len(store) - 1, min(len(store), -(-MOST // length))).round().astype(int)
    return list(dict.fromkeys([episode, *others.tolist()]))
