"""Films held out by time: no window touches what may not be seen."""

from pathlib import Path

import numpy as np
import pytest

from ami.data.episodes import Episode, Store
from ami.data.loader import Loader, Source
from ami.data.ranges import Ranged
from ami.data.video import FILM


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two films whose frames say their own number."""
    films = Store.create(tmp_path / "films", FILM)
    for length in (30, 12):
        video = np.arange(length, dtype=np.uint8)[:, None, None, None].repeat(3, 3)
        films.append([Episode(np.arange(length) * FILM.step_seconds, video, source=f"{length}")])
    return films


def test_windows_lie_within_the_ranges(store: Store) -> None:
    kept = Ranged(store, lambda frames: [(0, 5), (8, frames // 2)])
    found = kept.windows(2, 2)
    assert found.tolist() == [[0, 0], [0, 1], *([0, first] for first in range(8, 12)), [1, 0], [1, 1]]
    seen = np.concatenate([kept.clips(found[row : row + 1], 2, 2).video.flatten() for row in range(len(found))])
    assert set(seen.tolist()) == {*range(5), *range(8, 15)}


def test_a_loader_says_when_nothing_fits(store: Store) -> None:
    with pytest.raises(ValueError, match="is long enough: a window needs 4 frames"):
        Loader([Source(Ranged(store, lambda frames: [(0, 3)]), 2, 4, 2)], seed=0)


def test_a_loader_draws_from_the_ranges_alone(store: Store) -> None:
    loader = Loader([Source(Ranged(store, lambda frames: [(4, 9)]), 2, 8, 2)], seed=0)
    (clip,) = loader.batch(3)
    assert clip.video.min() >= 4
    assert clip.video.max() < 9
