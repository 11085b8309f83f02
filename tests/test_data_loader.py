"""Batches depend on nothing but the seed and the step."""

import threading
import time
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ami.data.episodes import Episode, Store
from ami.data.loader import Loader, Source
from ami.types import Embodiment


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Episodes whose every frame says which it is."""
    made = Store.create(tmp_path_factory.mktemp("loader") / "s", Embodiment("toy", 1.0))
    for length in (9, 4, 12):
        number = np.arange(length, dtype=np.float32) + 100 * len(made)
        made.append([Episode(np.arange(length) * 1.0, proprio=number[:, None])])
    return made


def seen(batch: list) -> list[list[int]]:
    """The first frame of each window of each source."""
    return [clip.proprio[:, 0, 0].int().tolist() for clip in batch]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**40), start=st.integers(0, 10**6), size=st.sampled_from([1, 2, 4]))
def test_the_global_batch_is_the_same_for_any_number_of_processes(
    store: Store, seed: int, start: int, size: int
) -> None:
    sources = (Source(store, 3, 8), Source(store, 2, 4, frames_per_step=2))
    whole = seen(Loader(sources, seed).batch(start))
    parts = [seen(Loader(sources, seed).batch(start, rank, size)) for rank in range(size)]
    assert [list(chain(*(part[k] for part in parts))) for k in range(2)] == whole


def test_every_window_once_in_an_epoch_and_in_a_new_order_each_time(store: Store) -> None:
    windows = store.windows(4)
    everything = sorted(100 * e + k for e, k in windows.tolist())
    loader = Loader([Source(store, 4, 4)], seed=3)  # 16 windows, four batches an epoch
    epochs = [list(chain(*(seen(loader.batch(step))[0] for step in range(4 * e, 4 * e + 4)))) for e in range(3)]
    assert all(sorted(epoch) == everything for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert seen(Loader([Source(store, 4, 4)], seed=4).batch(0)) != seen(loader.batch(0))


def test_batches_cross_epoch_borders(store: Store) -> None:
    loader = Loader([Source(store, 4, 24)], seed=0)  # 16 windows: two batches are three epochs
    drawn = np.array(seen(loader.batch(0))[0] + seen(loader.batch(1))[0])
    assert set(np.unique(drawn, return_counts=True)[1]) == {3}


def test_two_sources_of_one_store_are_not_in_step(store: Store) -> None:
    first, second = seen(Loader([Source(store, 4, 16), Source(store, 4, 16)], seed=0).batch(0))
    assert first != second
    assert sorted(first) == sorted(second)


def test_only_chosen_episodes_are_read(store: Store) -> None:
    assert all(100 <= k < 200 for k in seen(Loader([Source(store, 2, 30, episodes=(1,))], 0).batch(0))[0])


def test_the_order_is_the_same_on_every_machine(store: Store) -> None:
    # Golden: Philox and SeedSequence are specified, so this holds for any NumPy and any processor.
    assert seen(Loader([Source(store, 4, 16)], 7).batch(0)) == [
        [208, 206, 201, 205, 4, 207, 3, 100, 2, 1, 0, 5, 204, 202, 203, 200]
    ]


def test_prefetch_reads_the_same_batches_from_any_start(store: Store) -> None:
    loader = Loader([Source(store, 3, 4)], seed=1)
    all_of_them = [seen(batch) for batch in loader.prefetch(0, 9)]
    assert all_of_them == [seen(loader.batch(step)) for step in range(9)]
    assert [seen(batch) for batch in loader.prefetch(5, 9)] == all_of_them[5:]
    assert list(loader.prefetch(9, 9)) == []


def test_prefetch_reads_ahead_and_stops_when_left(store: Store) -> None:
    loader = Loader([Source(store, 3, 4)], seed=1)
    read: list[int] = []
    plain = loader.batch
    loader.batch = lambda step, rank=0, size=1: (read.append(step), plain(step, rank, size))[1]
    batches = loader.prefetch(0, 10**9)
    next(batches)
    deadline = time.monotonic() + 5
    while len(read) < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert read == [0, 1]  # the second is read before it is asked for, and no more than it
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ami-loader")]


def test_prefetch_raises_the_readers_error(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "s", Embodiment("toy", 1.0))
    store.append([Episode(np.arange(5.0), proprio=np.zeros((5, 1), np.float32))])
    loader = Loader([Source(Store.open(store.folder), 2, 2)], 0)
    (store.folder / "shards" / "00000" / "proprio.npy").unlink()
    with pytest.raises(ValueError, match=r"proprio\.npy cannot be read"):
        next(loader.prefetch(0, 3))


def test_mistakes_get_a_sentence(store: Store) -> None:
    with pytest.raises(ValueError, match="needs 26 frames and the longest has 12"):
        Loader([Source(store, 13, 1, frames_per_step=2)], 0)
    with pytest.raises(ValueError, match="6 does not divide over 4 processes"):
        Loader([Source(store, 3, 6)], 0).batch(0, 1, 4)
    with pytest.raises(ValueError, match="process 2 of 2"):
        Loader([Source(store, 3, 6)], 0).batch(0, 2, 2)
    with pytest.raises(ValueError, match="seed is -1"):
        Loader([], -1)
