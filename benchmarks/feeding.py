"""Frames per CPU-second on the way from a film to a training step: decoding, cutting, cropping, and what a step takes.

    python benchmarks/feeding.py

Everything runs on one thread and takes turns, so that a busy neighbour slows all rows alike. The film is drawn here (a
panning texture in H.264, 30 frames a second); decoding is counted in frames that are kept at 10 a second, though all
must be decoded. Crops are cut and brought to 64 px, ours and with Pillow, the usual tool beside a film reader.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ami.data.crops import CHANCES, Crop
from ami.data.episodes import Episode, Store
from ami.data.video import FILM, read_film, write_film
from ami.recipes.films import VIDEO, video
from ami.training.loop import begin, fit
from ami.types import Clip

SIDE, STEPS, FRAMES, BATCH = 64, 8, 2, 16  # of the recipe video's clips
STORED = (64, 96, 128)  # px of films in a store
TURNS = 7

Work = Callable[[], int]  # does something, and says with how many frames


def main() -> None:
    """Time everything in turns and print the table."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        works = {**decoding(folder, rng), **cutting(folder, rng), **training(folder, rng)}
        taken: dict[str, list[float]] = {title: [] for title in works}
        for turn in range(TURNS + 1):
            for title, work in works.items():
                began = time.process_time()
                frames = work()
                if turn:  # the first is to warm up
                    taken[title].append(frames / (time.process_time() - began))
    print("frames per CPU-second, median of", TURNS, "turns\n")
    for title, rates in taken.items():
        print(f"{title:44} {np.median(rates):10,.0f}")


def panning(height: int, width: int, frames: int, rng: np.random.Generator) -> np.ndarray:
    """A texture that goes by, two pixels a frame."""
    small = rng.integers(0, 256, (height // 8, (width + 2 * frames) // 8 + 1, 3), dtype=np.uint8)
    wide = np.asarray(Image.fromarray(small).resize((width + 2 * frames, height), Image.Resampling.BILINEAR))
    return np.stack([wide[:, 2 * frame : 2 * frame + width] for frame in range(frames)])


def decoding(folder: Path, rng: np.random.Generator) -> dict[str, Work]:
    """Films of two usual sizes."""
    works: dict[str, Work] = {}
    for height, width in ((360, 640), (720, 1280)):
        path = folder / f"{height}.mp4"
        write_film(path, panning(height, width, 90, rng), fps=30)
        works[f"decoded from {width} x {height}, to {SIDE} px"] = lambda path=path: len(read_film(path, size=SIDE))
    return works


def cutting(folder: Path, rng: np.random.Generator) -> dict[str, Work]:
    """Clips of stores, whole and cropped."""
    works: dict[str, Work] = {}
    crop = Crop(SIDE)
    for side in STORED:
        store = filled(folder / f"stored-{side}", side, rng)
        windows = store.windows(STEPS, FRAMES)

        def clips(store: Store = store, windows: np.ndarray = windows) -> Clip:
            return store.clips(windows[rng.integers(len(windows), size=BATCH)], STEPS, FRAMES)

        if side == SIDE:
            works[f"cut from a store of {side} px"] = lambda clips=clips: count(clips())
        works[f"cut and cropped from {side} px"] = lambda clips=clips: count(
            crop(clips(), rng.random((BATCH, CHANCES)))
        )
        works[f"the same with Pillow from {side} px"] = lambda clips=clips: pillow(crop, clips(), rng)
    return works


def pillow(crop: Crop, clip: Clip, rng: np.random.Generator) -> int:
    """The same windows, resized frame by frame."""
    assert clip.video is not None
    chances = rng.random((len(clip), CHANCES))
    pictures = clip.video.flatten(1, 2).permute(0, 1, 3, 4, 2).numpy()
    made = np.empty((*pictures.shape[:2], SIDE, SIDE, 3), np.uint8)
    for row, (top, left, tall, wide) in enumerate(crop.windows(pictures.shape[2], chances)):
        box = (left, top, left + wide, top + tall)
        for number, picture in enumerate(pictures[row]):
            made[row, number] = Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box)
    return made.shape[0] * made.shape[1]


def training(folder: Path, rng: np.random.Generator) -> dict[str, Work]:
    """Whole steps of the recipe video at its smallest size, their clips included."""
    store, works = filled(folder / "trained", 96, rng), {}
    for title, crop in (("whole", None), ("cropped", Crop.scale)):
        recipe = video([store], 0, replace(VIDEO, batch=BATCH, steps=10**6, crop=crop))
        steps = fit(begin(recipe.build(), stage := recipe.stages[0], 0), replace(stage, gauge_every=10**6), 0)

        def some(steps=steps) -> int:
            for _ in range(4):
                next(steps)
            return 4 * BATCH * STEPS * FRAMES

        works[f"trained by the baby, clips {title} from 96 px"] = some
    return works


def filled(folder: Path, side: int, rng: np.random.Generator) -> Store:
    """A store of ten films."""
    store = Store.create(folder, FILM)
    films = (panning(side, side, 60, rng) for _ in range(10))
    store.append([Episode(np.arange(60) * FILM.step_seconds, film) for film in films])
    return store


def count(clip: Clip) -> int:
    """Frames in a clip."""
    assert clip.video is not None
    return clip.video.shape[:3].numel()


if __name__ == "__main__":
    main()
