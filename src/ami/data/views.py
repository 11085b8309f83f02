"""Many views of little data: each episode again and again, shifted by some pixels and in another light."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torch.nn import functional

from ami.data.episodes import EpisodeInfo, Store
from ami.types import Clip, Embodiment

_SHIFT = 4  # px at most (Kostrikov et al. 2020, "Image augmentation is all you need", appendix E)
_LIGHT = 0.25  # gain of each colour at most this far from 1


_Shown = TypeVar("_Shown", bound="Store | Over[Any]")


class Over(Generic[_Shown]):
    """Something that stands for a store, or for what stands for one, and shows it otherwise."""

    def __init__(self, store: _Shown) -> None:
        self.store = store

    @property
    def folder(self) -> Path:
        """Where the recordings lie."""
        return self.store.folder

    @property
    def embodiment(self) -> Embodiment:
        """Whose recordings they are."""
        return self.store.embodiment

    @property
    def episodes(self) -> tuple[EpisodeInfo, ...]:
        """What the store holds, whole."""
        return self.store.episodes


class Views(Over[Store]):
    """A store in which every episode comes ``views`` times; view 0 is the recording itself.

    A view is one shift and one light for the whole episode, so what happens in it, and what was done, stays true. It
    depends on (episode, view) alone: sampled like any other store (:class:`ami.data.loader.Source`), nothing to save.
    """

    def __init__(self, store: Store, views: int) -> None:
        super().__init__(store)
        self.views = views

    @property
    def episodes(self) -> tuple[EpisodeInfo, ...]:
        """View after view of all episodes: number ``view * len(store) + episode``."""
        return self.store.episodes * self.views

    def of(self, episodes: Sequence[int]) -> tuple[int, ...]:
        """The numbers of all views of some of the store's episodes."""
        return tuple(view * len(self.store) + episode for view in range(self.views) for episode in episodes)

    def windows(
        self, steps: int, frames_per_step: int = 1, episodes: Sequence[int] | None = None
    ) -> Int[np.ndarray, "windows 2"]:
        """Every (episode, first frame) from which a window fits."""
        chosen = np.arange(len(self.episodes)) if episodes is None else np.asarray(episodes)
        parts = []
        for view in range(self.views):
            mine = chosen[chosen // len(self.store) == view] % len(self.store)
            found = self.store.windows(steps, frames_per_step, mine.tolist())
            parts.append(found + np.array([view * len(self.store), 0]))
        return np.concatenate(parts)

    def clips(self, index: Int[np.ndarray, "batch 2"], steps: int, frames_per_step: int = 1) -> Clip:
        """Windows of the views."""
        index = np.asarray(index, np.int64)
        base = np.stack([index[:, 0] % len(self.store), index[:, 1]], axis=1)
        clip = self.store.clips(base, steps, frames_per_step)
        if clip.video is None:
            return clip
        seen = [
            video if number < len(self.store) else _change(video, np.random.default_rng((0x56, int(number))))
            for number, video in zip(index[:, 0], clip.video, strict=True)
        ]
        return replace(clip, video=torch.stack(seen))


def _change(
    video: UInt8[Tensor, "time frames 3 height width"], rng: np.random.Generator
) -> UInt8[Tensor, "time frames 3 height width"]:
    """Shift, with the border repeated, and tint. The memory layout (colour last) is kept for the encoder."""
    down, right = rng.integers(0, 2 * _SHIFT + 1, 2)
    height, width = video.shape[-2:]
    gain = torch.from_numpy(rng.uniform(1 - _LIGHT, 1 + _LIGHT, (3, 1, 1))).float() * rng.uniform(
        1 - _LIGHT, 1 + _LIGHT
    )
    wide = functional.pad(video.flatten(0, 1).float(), (_SHIFT,) * 4, mode="replicate")
    lit = wide[..., down : down + height, right : right + width] * gain
    colour_last = lit.clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    return colour_last.unflatten(0, video.shape[:2])
