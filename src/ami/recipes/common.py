"""What recipes share: which stores feed a model, and what was measured on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ami.data.episodes import Store, split
from ami.types import Clip, Embodiment, LeftOut

HELD_OUT, AT_MOST = 0.3, 64  # share and number of a store's episodes that gauges and benchmarks see, training never


def by_embodiment(stores: Sequence[Store]) -> dict[str, Store]:
    """The stores under the names of their embodiments, of which each may come once."""
    if not stores:
        raise ValueError("a recipe learns from experience and none was given; name at least one store with --data")
    found: dict[str, Store] = {}
    for store in stores:
        name = store.embodiment.name
        if name in found:
            raise ValueError(f"{found[name].folder} and {store.folder} both hold '{name}'; collect into one store")
        if not len(store):
            raise ValueError(f"{store.folder} holds no episodes; collect or ingest some")
        found[name] = store
    return dict(sorted(found.items()))


def sides(store: Store) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Episodes to train on, and those held out. A store of one or two films trains on all it has."""
    if len(store) < 5:
        return tuple(range(len(store))), tuple(range(len(store)))
    return split(store, min(HELD_OUT, AT_MOST / len(store)))


@dataclass(frozen=True)
class Parted:
    """What each embodiment's store is split into, and its body as measured on what is trained on."""

    train: Mapping[str, tuple[int, ...]]
    held: Mapping[str, tuple[int, ...]]
    bodies: Mapping[str, Embodiment]


def parted(stores: Mapping[str, Store]) -> Parted:
    """Each store's two sides."""
    split_up = {name: sides(store) for name, store in stores.items()}
    train = {name: trained for name, (trained, _) in split_up.items()}
    held = {name: kept for name, (_, kept) in split_up.items()}
    return Parted(train, held, {name: measured(store, train[name]) for name, store in stores.items()})


def measured(store: Store, episodes: Sequence[int]) -> Embodiment:
    """The store's embodiment with the mean and deviation of what was done and felt in ``episodes``.

    A dimension that hardly moves is given the deviation that a tenth of its range would have, so that its noise is
    not blown up.
    """
    body = store.embodiment
    held = [store.arrays(episode) for episode in episodes]
    if body.action_dim:
        done = np.concatenate([arrays["actions"] for arrays in held])
        least = (np.array(body.high) - np.array(body.low)) / 20
        mean, std = _statistics(done, least)
        body = replace(body, action_mean=mean, action_std=std)
    if "proprio" in store.fields:
        felt = np.concatenate([arrays["proprio"] for arrays in held])
        mean, std = _statistics(felt, 1e-3 + 0.05 * np.abs(felt).max(0))
        body = replace(body, proprio_mean=mean, proprio_std=std)
    return body


def _statistics(values: np.ndarray, least: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation, the latter at least ``least``."""
    mean, std = values.mean(0, dtype=np.float64), values.std(0, dtype=np.float64)
    return tuple(map(float, mean)), tuple(map(float, np.maximum(std, least)))


def left_out(stores: Mapping[str, Store], frames: int) -> tuple[LeftOut, ...]:
    """What no clip of ``frames`` will show: what ingest could not read, and episodes that are shorter than a clip.

    Only whole clips are lost: where two seconds are missing and a clip has three, none is.
    """
    missing = []
    for store in stores.values():
        second = 1 / store.embodiment.step_seconds  # in frames
        for each in store.left_out:
            clips = None if each.seconds is None else int(each.seconds * second + 1e-6) // frames
            missing.append(replace(each, clips=clips))
        for number, info in enumerate(store.episodes):
            if info.length < frames:
                why = f"it has {info.length} frames and a clip {frames}"
                name = info.source or f"episode {number} of {store.folder}"
                missing.append(LeftOut(name, why, round(info.length / second, 3), clips=0))
    return tuple(missing)


def gauge_clips(
    stores: Mapping[str, Store], held: Mapping[str, Sequence[int]], steps: int, frames_per_step: int = 1
) -> tuple[Clip, ...]:
    """One clip of held-out experience for each embodiment: the last window of up to 64 episodes.

    The last, for of recorded films all learn from the beginning.
    """
    clips, needed = [], steps * frames_per_step
    for name, store in stores.items():
        starts = {episode: store.episodes[episode].length - needed for episode in held[name][:64]}
        index = np.array([[episode, start] for episode, start in starts.items() if start >= 0])
        if len(index):
            clips.append(store.clips(index, steps, frames_per_step))
    return tuple(clips)
