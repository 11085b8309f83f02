"""A memory as one file of arrays that NumPy alone can open, out and in again."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ami import files
from ami.memory.episodic import About, Memory, kind
from ami.memory.moment import Moment

SCHEMA = 1
_FORMAT = "ami-memory"
_BATCH = 4096


def export(memory: Memory, out: Path) -> int:
    """Write all moments to ``out`` (npz), in the order in which they came; how many there were.

    latents (moments dim) float16; times, surprise (moments), places and turns (moments 3) float64, NaN where not known;
    names of episodes and sources, and the number of each moment's (episode, source); thumbnails, all bytes one after
    another, and where each ends.
    """
    latents, times, places, turns, surprise, ends = [], [], [], [], [], []
    episodes: dict[str, int] = {}
    sources: dict[str, int] = {}
    episode, source, size = [], [], 0
    out.parent.mkdir(parents=True, exist_ok=True)
    growing = out.with_name(f".{out.name}.{os.getpid()}.thumbnails.part")  # pictures may be more than fits in memory
    try:
        with growing.open("wb") as file:
            for _, moment in memory.moments():
                latents.append(moment.latent)
                times.append(moment.time)
                places.append(moment.place or (np.nan,) * 3)
                turns.append(moment.turn or (np.nan,) * 3)
                surprise.append(np.nan if moment.surprise is None else moment.surprise)
                episode.append(episodes.setdefault(moment.episode, len(episodes)))
                source.append(sources.setdefault(moment.source, len(sources)))
                size += file.write(moment.thumbnail or b"")
                ends.append(size)
        arrays = {
            "format": np.array(_FORMAT),
            "schema": np.array(SCHEMA),
            "about": np.array(json.dumps(asdict(memory.about))),
            "latents": np.array(latents, np.float16).reshape(-1, memory.about.dim),
            "times": np.array(times, np.float64),
            "places": np.array(places, np.float64).reshape(-1, 3),
            "turns": np.array(turns, np.float64).reshape(-1, 3),
            "surprise": np.array(surprise, np.float64),
            "episodes": np.array(list(episodes), str),
            "episode": np.array(episode, np.int64),
            "sources": np.array(list(sources), str),
            "source": np.array(source, np.int64),
            "thumbnails": np.memmap(growing, np.uint8, "r") if size else np.zeros(0, np.uint8),
            "ends": np.array(ends, np.int64),
        }
        files.write_whole(out, lambda file: np.savez(file, **arrays))
    finally:
        growing.unlink(missing_ok=True)
    return len(times)


def bring_in(path: Path, where: Path | str) -> int:
    """Make a new memory at ``where`` of what was exported, all of it or nothing; how many moments there are."""
    try:
        with np.load(path, allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
        form, schema, about = arrays["format"].item(), arrays["schema"].item(), json.loads(arrays["about"].item())
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(path, error) from None
    if form != _FORMAT or schema > SCHEMA:
        raise ValueError(f"{path} is {form!r} of schema {schema}; this AMI reads {_FORMAT!r} up to {SCHEMA}")
    try:
        told = About(**about)
    except TypeError as error:
        raise _damaged(path, error) from None
    memory = Memory.create(where, told)
    try:
        with memory:
            for first in range(0, len(arrays["times"]), _BATCH):
                memory.append(list(_moments(arrays, first)))
    except BaseException as error:
        kind(where).destroy(str(where))
        if isinstance(error, LookupError):
            raise _damaged(path, error) from None
        raise
    return len(arrays["times"])


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} is not the export of a memory, or is damaged ({error})")


def _moments(arrays: dict[str, np.ndarray], first: int) -> Iterator[Moment]:
    """A batch of what was exported."""
    starts = np.concatenate([[0], arrays["ends"]])
    for row in range(first, min(first + _BATCH, len(arrays["times"]))):
        x, y, z = arrays["places"][row].tolist()
        a, b, c = arrays["turns"][row].tolist()
        surprise = arrays["surprise"][row].item()
        yield Moment(
            latent=arrays["latents"][row],
            time=arrays["times"][row].item(),
            place=None if np.isnan(x) else (x, y, z),
            episode=str(arrays["episodes"][arrays["episode"][row]]),
            source=str(arrays["sources"][arrays["source"][row]]),
            surprise=None if np.isnan(surprise) else surprise,
            thumbnail=arrays["thumbnails"][starts[row] : starts[row + 1]].tobytes() or None,
            turn=None if np.isnan(a) else (a, b, c),
        )
