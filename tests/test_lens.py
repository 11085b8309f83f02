"""Clips through another lens: what is seen of a place stays where it is, in metres."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ami import geometry
from ami.data.episodes import Store
from ami.data.lens import Lens
from ami.data.loader import Loader, Source
from ami.types import Clip
from ami.worlds import maze, maze_walks

HALF = np.array([[0.0, 0.0, 0.7, 0.3, 0.5, 0.5, 0.5, 0.5]])  # the smallest window, off the middle, in the same light


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store.create(tmp_path_factory.mktemp("lens") / "store", maze.EMBODIMENT, maze_walks.TRUTH)
    made.append(maze_walks.collect(3, 4, seed=2))
    return made


@pytest.fixture(scope="module")
def clip(store: Store) -> Clip:
    return store.clips(np.array([[0, 0]]), 4)


def test_what_is_seen_stays_where_it_is(clip: Clip) -> None:
    seen = Lens()(clip, HALF)
    assert clip.depth is not None
    assert clip.intrinsics is not None
    assert seen.depth is not None
    assert seen.intrinsics is not None
    points, closer = (geometry.unproject(each.depth[:, :, 0, 0], each.intrinsics[:, None]) for each in (clip, seen))
    top, left = int(0.7 * 33), int(0.3 * 33)
    around = torch.nn.functional.avg_pool2d(closer[0].movedim(-1, 1), 2).movedim(1, -1)  # two by two are one again
    torch.testing.assert_close(around, points[0, :, top : top + 32, left : left + 32])
    assert torch.equal(seen.pose, clip.pose)


def test_depth_and_colours_are_cut_alike(clip: Clip) -> None:
    assert clip.video is not None
    grey = clip.video[:, :, :, 0].float()
    seen = Lens()(replace(clip, depth=grey[:, :, :, None]), HALF)
    assert seen.video is not None
    assert seen.depth is not None
    one, other = (
        torch.nn.functional.avg_pool2d(each.flatten(0, 1), 2)
        for each in (seen.video[:, :, 0, :1].float(), seen.depth[:, :, 0])
    )
    assert np.corrcoef(one.flatten(), other.flatten())[0, 1] > 0.98


def test_light_is_as_drawn_and_some_clips_stay_as_they_are(clip: Clip) -> None:
    dark = HALF.copy()
    dark[0, 1], dark[0, 4] = 0.999, 0.0  # the whole picture, in the least light
    assert clip.video is not None
    seen, kept = Lens()(clip, dark), Lens(often=0.0)(clip, dark)
    wanted = clip.video.float() * np.exp(-Lens.light)
    torch.testing.assert_close(seen.video.float(), wanted, atol=1.0, rtol=0)
    assert torch.equal(kept.video, clip.video)
    assert torch.equal(kept.intrinsics, clip.intrinsics)


def test_batches_through_a_lens_are_the_same_whoever_reads_them(store: Store) -> None:
    loader = Loader([Source(store, 3, 4, crop=Lens(often=1.0))], seed=1)
    (whole,) = loader.batch(2)
    parts = [loader.batch(2, rank, 2)[0] for rank in (0, 1)]
    assert torch.equal(whole.video, torch.cat([part.video for part in parts]))
    assert not torch.equal(whole.intrinsics[0], whole.intrinsics[1])


def test_what_has_no_lens_is_refused(clip: Clip) -> None:
    with pytest.raises(ValueError, match="it has no lens"):
        Lens()(replace(clip, intrinsics=None), HALF)
    with pytest.raises(ValueError, match="cannot be built"):
        Lens(closest=0.0)
