"""Random windows per second: AMI's store beside HDF5 and LanceDB, the same frames and windows in one run.

    pip install "openami[bench]" && python benchmarks/reading.py

Frames are pictures of rooms (flat colours, some noise), which is the kindest case for compression. Every reader
delivers the same (batch, 16, 64, 64, 3) array, which is compared byte for byte before anything is timed. Files are in
the page cache for all of them; each reader has its fastest batched access that we know of.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8

from ami.data.episodes import Episode, Store
from ami.types import Embodiment

EPISODES, FRAMES, SIDE = 200, 100, 64
STEPS, BATCH = 16, 64
SECONDS = 15.0  # of taking turns

Read = Callable[[Int[np.ndarray, "batch 2"]], UInt8[np.ndarray, "batch steps side side 3"]]


def main() -> None:
    """Write the frames in every format, check that they read the same, time them, print the table."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        films = pictures(np.random.default_rng(0))
        store, ours = ami(folder, films)
        readers: dict[str, Read] = {"AMI store": ours}
        for title, package, make in (
            ("HDF5 gzip", "h5py", hdf5_gzip),
            ("HDF5 contiguous", "h5py", hdf5_contiguous),
            ("LanceDB", "lancedb", lancedb_rows),
        ):
            if importlib.util.find_spec(package) is None:
                print(f"{title}: left out, for {package} is not installed (pip install 'openami[bench]').")
                continue
            readers[title] = make(folder, films)
        windows = store.windows(STEPS)
        draw = (windows[np.random.default_rng(step).integers(len(windows), size=BATCH)] for step in range(10**9))
        index = next(draw)
        for title, read in readers.items():
            assert np.array_equal(read(index), ours(index)), f"{title} reads other frames"
        table(measure(readers, draw))


def pictures(rng: np.random.Generator) -> UInt8[np.ndarray, "episodes frames side side 3"]:
    """Two coloured rooms, a wall, and a disc that wanders; noise of one or two grey levels."""
    films = np.empty((EPISODES, FRAMES, SIDE, SIDE, 3), np.uint8)
    y, x = np.mgrid[:SIDE, :SIDE]
    for film in films:
        left, right, disc = rng.integers(40, 216, (3, 3))
        room = np.where((x < rng.integers(20, 44))[..., None], left, right)
        path = np.clip(32 + np.cumsum(rng.normal(0, 2, (FRAMES, 2)), 0), 6, 58)
        inside = (x - path[:, 0, None, None]) ** 2 + (y - path[:, 1, None, None]) ** 2 < 16
        noise = rng.integers(-1, 2, film.shape)
        film[:] = np.where(inside[..., None], disc, room) + noise
    return films


def ami(folder: Path, films: np.ndarray) -> tuple[Store, Read]:
    """Our own: everything a model is given, as a clip."""
    store = Store.create(folder / "ami", Embodiment("bench", 0.1))
    for part in np.array_split(films, 4):  # four shards, as a growing store has
        store.append([Episode(np.arange(FRAMES) * 0.1, film) for film in part])

    def read(index: np.ndarray) -> np.ndarray:
        video = store.clips(index, STEPS).video
        assert video is not None
        return video[:, :, 0].permute(0, 1, 3, 4, 2).numpy()

    return store, read


def hdf5_gzip(folder: Path, films: np.ndarray) -> Read:
    """One chunk per frame: larger chunks make random windows slower, for more is unpacked than is used."""
    return _hdf5(folder / "gzip.h5", films, chunks=(1, SIDE, SIDE, 3), compression="gzip")


def hdf5_contiguous(folder: Path, films: np.ndarray) -> Read:
    """Neither chunks nor compression: the fastest HDF5 there is."""
    return _hdf5(folder / "contiguous.h5", films)


def _hdf5(path: Path, films: np.ndarray, **layout: object) -> Read:
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("video", data=films.reshape(-1, SIDE, SIDE, 3), **layout)
    video = h5py.File(path, "r")["video"]
    assert isinstance(video, h5py.Dataset)

    def read(index: np.ndarray) -> np.ndarray:
        out = np.empty((len(index), STEPS, SIDE, SIDE, 3), np.uint8)
        for row, first in enumerate((index[:, 0] * FRAMES + index[:, 1]).tolist()):
            video.read_direct(out, np.s_[first : first + STEPS], np.s_[row])
        return out

    return read


def lancedb_rows(folder: Path, films: np.ndarray) -> Read:
    """A row per frame, raw bytes of fixed size, all the batch's rows in one call."""
    import lancedb
    import pyarrow as pa

    size = SIDE * SIDE * 3
    schema = pa.schema([("row", pa.int64()), ("frame", pa.binary(size))])

    def batches() -> Iterator[pa.RecordBatch]:
        for number, film in enumerate(films):
            rows = pa.array(range(number * FRAMES, (number + 1) * FRAMES), pa.int64())
            frames = pa.FixedSizeBinaryArray.from_buffers(pa.binary(size), FRAMES, [None, pa.py_buffer(film.tobytes())])
            yield pa.record_batch([rows, frames], schema=schema)

    table = lancedb.connect(folder / "lance").create_table("video", batches(), schema=schema)
    table.optimize()

    def read(index: np.ndarray) -> np.ndarray:
        wanted = ((index[:, 0] * FRAMES + index[:, 1])[:, None] + np.arange(STEPS)).reshape(-1)
        distinct, places = np.unique(wanted, return_inverse=True)
        got = table.take_offsets(distinct.tolist()).to_arrow().combine_chunks()
        order = np.argsort(got["row"].to_numpy())
        chunk = got["frame"].chunk(0)
        flat = np.frombuffer(chunk.buffers()[1], np.uint8, len(chunk) * size, chunk.offset * size)
        return flat.reshape(-1, SIDE, SIDE, 3)[order[places]].reshape(len(index), STEPS, SIDE, SIDE, 3)

    return read


def measure(readers: dict[str, Read], draw: Iterator[np.ndarray]) -> dict[str, tuple[float, float]]:
    """For each reader, windows per second in its median batch, and CPU-seconds for a thousand windows.

    The readers take turns on the same windows, so that a busy neighbour slows them alike.
    """
    walls: dict[str, list[float]] = {title: [] for title in readers}
    cpus: dict[str, list[float]] = {title: [] for title in readers}
    began = time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        index = next(draw)
        for title, read in readers.items():
            wall, cpu = time.perf_counter(), time.process_time()
            read(index)
            walls[title].append(time.perf_counter() - wall)
            cpus[title].append(time.process_time() - cpu)
    return {
        title: (BATCH / float(np.median(walls[title])), float(np.mean(cpus[title])) / BATCH * 1000) for title in readers
    }


def table(results: dict[str, tuple[float, float]]) -> None:
    """Print what was measured, with ratios to the first row."""
    ours, our_cpu = results["AMI store"]
    print(f"\nRandom {STEPS}-step windows of {SIDE}×{SIDE} RGB, {BATCH} a batch, {EPISODES * FRAMES} frames")
    print(f"{'':16} {'windows/s':>10} {'CPU s per 1,000':>16} {'AMI is faster':>14} {'and uses less CPU':>18}")
    for title, (speed, cpu) in results.items():
        print(f"{title:16} {speed:10,.0f} {cpu:16.3f} {ours / speed:13.1f}× {cpu / our_cpu:17.1f}×")


if __name__ == "__main__":
    main()
