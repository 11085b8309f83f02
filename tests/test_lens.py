"""Clips through another lens: what is seen of a place stays where it is, in metres."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ami import geometry
from ami.data.episodes import Store
from ami.data.lens import Lens
from ami.data.loader import Loader, Source
from ami.types import Clip
from tiny_stores import maze_store

HALF = np.array([[0.0, 0.0, 0.7, 0.3, 0.5, 0.5, 0.5, 0.5]])  # the smallest window, off the middle, in the same light


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return maze_store(tmp_path_factory.mktemp("lens") / "store", 3, 4, seed=2)


@pytest.fixture(scope="module")
def clip(store: Store) -> Clip:
    return store.clips(np.array([[0, 0]]), 4)


def parts(clip: Clip) -> tuple[Tensor, Tensor, Tensor]:
    """Colours, depth and intrinsics."""
    assert clip.video is not None
    assert clip.depth is not None
    assert clip.intrinsics is not None
    return clip.video, clip.depth, clip.intrinsics


def test_what_is_seen_stays_where_it_is(clip: Clip) -> None:
    points, closer = (
        geometry.unproject(depth[:, :, 0, 0], camera[:, None])
        for _, depth, camera in (parts(clip), parts(Lens()(clip, HALF)))
    )
    top, left = int(0.7 * 33), int(0.3 * 33)
    around = avg_pool2d(closer[0].movedim(-1, 1), 2).movedim(1, -1)  # two by two are one again
    torch.testing.assert_close(around, points[0, :, top : top + 32, left : left + 32])


def test_depth_and_colours_are_cut_alike(clip: Clip) -> None:
    red = parts(clip)[0][:, :, :, :1]
    video, depth, _ = parts(Lens()(replace(clip, depth=red.float()), HALF))
    one, other = (avg_pool2d(each.flatten(0, 1), 2) for each in (video[:, :, 0, :1].float(), depth[:, :, 0]))
    assert np.corrcoef(one.flatten(), other.flatten())[0, 1] > 0.98


def test_light_is_as_drawn_and_some_clips_stay_as_they_are(clip: Clip) -> None:
    dark = HALF.copy()
    dark[0, 1], dark[0, 4] = 0.999, 0.0  # the whole picture, in the least light
    true, seen, kept = (parts(each) for each in (clip, Lens()(clip, dark), Lens(often=0.0)(clip, dark)))
    torch.testing.assert_close(seen[0].float(), true[0].float() * np.exp(-Lens.light), atol=1.0, rtol=0)
    assert all(torch.equal(one, other) for one, other in zip(kept, true, strict=True))


def test_batches_through_a_lens_are_the_same_whoever_reads_them(store: Store) -> None:
    loader = Loader([Source(store, 3, 4, crop=Lens(often=1.0))], seed=1)
    video, _, camera = parts(loader.batch(2)[0])
    shared = [parts(loader.batch(2, rank, 2)[0])[0] for rank in (0, 1)]
    assert torch.equal(video, torch.cat(shared))
    assert not torch.equal(camera[0], camera[1])


def test_what_has_no_lens_is_refused(clip: Clip) -> None:
    with pytest.raises(ValueError, match="it has no lens"):
        Lens()(replace(clip, intrinsics=None), HALF)
    with pytest.raises(ValueError, match="cannot be built"):
        Lens(closest=0.0)
