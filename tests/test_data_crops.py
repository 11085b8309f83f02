"""A crop is one window for a whole clip, drawn as V-JEPA draws it, and nothing but the seed and the place decide it."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from ami.data.crops import Crop, whole
from ami.data.episodes import Episode, Store
from ami.data.loader import Loader, Source
from ami.evaluation.films import film_clip
from ami.types import Clip, Embodiment, WorldModel


def where(side: int, batch: int = 1, steps: int = 3, frames: int = 2) -> Clip:
    """Films that say where each pixel is: red its row, green its column, blue its frame."""
    video = np.zeros((batch, steps, frames, side, side, 3), np.uint8)
    video[..., 0], video[..., 1] = np.arange(side)[:, None], np.arange(side)
    video[..., 2] = 10 * np.arange(steps * frames).reshape(steps, frames)[None, :, :, None, None]
    held = torch.from_numpy(video).permute(0, 1, 2, 5, 3, 4)
    return Clip("film", times=torch.zeros(batch, steps), video=held, truth=torch.ones(batch, steps, 1))


def drawn(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((rows, 5))


def test_windows_are_spread_as_they_are_said_to_be() -> None:
    top, left, tall, wide = np.array(Crop(64).windows(100, drawn(4000))).T
    assert ((top >= 0) & (left >= 0) & (top + tall <= 100) & (left + wide <= 100)).all()
    area, aspect = tall * wide / 1e4, tall / wide
    assert np.quantile(area, [0, 0.25, 0.5, 0.75, 1]) == pytest.approx([0.3, 0.475, 0.65, 0.825, 1.0], abs=0.02)
    small = area < 0.5  # any aspect fits there
    assert np.quantile(aspect[small], [0, 1]) == pytest.approx([0.75, 1.35], abs=0.03)
    assert np.median(aspect[small]) == pytest.approx((0.75 * 1.35) ** 0.5, abs=0.03)
    for place, room in ((top, 100 - tall), (left, 100 - wide)):
        assert np.mean(place[room > 20] / room[room > 20]) == pytest.approx(0.5, abs=0.02)
        assert (place == room).any()
        assert (place == 0).any()


def test_pixels_come_from_the_window_and_are_the_same_in_all_frames() -> None:
    clip, crop, chances = where(128, batch=20), Crop(32), drawn(20)
    video = crop(clip, chances).video
    assert video.shape == (20, 3, 2, 3, 32, 32)
    for row, (top, left, tall, wide) in enumerate(crop.windows(128, chances)):
        down = top + (np.arange(32) + 0.5) * tall / 32 - 0.5  # centres of pixels
        across = left + (np.arange(32) + 0.5) * wide / 32 - 0.5
        across = across[::-1] if chances[row, 4] < 0.5 else across
        inner = slice(2, -2)  # the outermost have fewer pixels to be an average of
        for step, frame in np.ndindex(3, 2):
            red, green, blue = video[row, step, frame].numpy()
            np.testing.assert_allclose(red[inner, inner], down[inner, None].repeat(28, 1), atol=1.01)
            np.testing.assert_allclose(green[inner, inner], across[None, inner].repeat(28, 0), atol=1.01)
            assert (blue == 10 * (2 * step + frame)).all()
    assert {bool(flip) for flip in chances[:, 4] < 0.5} == {True, False}


def test_pixels_are_averaged_where_they_shrink() -> None:
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 1, 1, 128, 128, 3), dtype=np.uint8))
    clip = Clip("film", torch.zeros(1, 1), video=noise.permute(0, 1, 2, 5, 3, 4))
    assert float(whole(clip, 16).video.float().std()) < 0.25 * float(noise.float().std())  # picked ones would keep it


def test_whole_pictures_keep_what_they_show() -> None:
    clip = where(96)
    assert whole(clip, 96) is clip
    small = whole(clip, 48)
    assert small.video.shape[-2:] == (48, 48)
    np.testing.assert_allclose(small.video[0, 0, 0, 0, 1:-1, 5], 0.5 + 2 * np.arange(1, 47), atol=0.51)
    assert torch.equal(small.truth, clip.truth)
    assert small.video[0, 0].is_contiguous(memory_format=torch.channels_last)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store.create(tmp_path_factory.mktemp("crops") / "s", Embodiment("film", 0.1))
    noise = np.random.default_rng(1)
    made.append([Episode(np.arange(9) * 0.1, noise.integers(0, 256, (9, 40, 40, 3), dtype=np.uint8)) for _ in range(3)])
    return made


def test_crops_are_a_function_of_the_seed_and_the_place(store: Store) -> None:
    """A run that goes on at any step, in any number of processes, sees what the one that never stopped saw."""
    source = Source(store, 3, 8, 2, crop=Crop(24))
    through = [clips[0].video for clips in Loader([source], 5).prefetch(0, 6)]
    again = [clips[0].video for clips in Loader([source], 5).prefetch(3, 6)]
    assert all(torch.equal(one, other) for one, other in zip(through[3:], again, strict=True))
    parts = [Loader([source], 5).batch(4, rank, 4)[0].video for rank in range(4)]
    assert torch.equal(torch.cat(parts), through[4])
    other = [clips[0].video for clips in Loader([source], 6).prefetch(0, 6)]
    assert not any(torch.equal(one, two) for one, two in zip(through, other, strict=True))


def test_a_window_in_time_is_seen_through_another_window_in_every_epoch(store: Store) -> None:
    source, plain = Source(store, 3, 4, 2, crop=Crop(40, flip=0.0)), Source(store, 3, 4, 2)
    cropped, uncropped = Loader([source], 0), Loader([plain], 0)  # 12 windows: three batches an epoch
    seen: dict[bytes, set[bytes]] = {}
    for step in range(12):
        for raw, cut in zip(uncropped.batch(step)[0].video, cropped.batch(step)[0].video, strict=True):
            seen.setdefault(raw.numpy().tobytes(), set()).add(cut.numpy().tobytes())
    assert len(seen) == 12
    assert len(set(chain(*seen.values()))) == 48


def test_crops_that_cannot_be_drawn_are_refused(tmp_path: Path) -> None:
    for wrong in ({"scale": (0.0, 1.0)}, {"scale": (0.5, 0.3)}, {"aspect": (1.2, 1.5)}, {"flip": 2.0}):
        with pytest.raises(ValueError, match=r"cannot be drawn; shares lie in \(0, 1\]"):
            Crop(64, **wrong)
    wide = Clip("film", torch.zeros(1, 1), video=torch.zeros(1, 1, 1, 3, 32, 64, dtype=torch.uint8))
    with pytest.raises(ValueError, match="square pictures, and these are 32 x 64 px"):
        Crop(16)(wide, drawn(1))


def test_films_larger_than_a_model_was_built_for_are_brought_to_its_size() -> None:
    class Watcher(WorldModel):
        embodiments, picture, frames = {"film": Embodiment("film", 0.2)}, 32, 2

    for side, seen in ((32, 32), (96, 32), (16, 16)):  # smaller ones are for the model to refuse
        clip = film_clip(Watcher(), np.full((4, side, side, 3), 7, np.uint8))
        assert clip.video.shape == (1, 2, 2, 3, seen, seen)
        assert (clip.video == 7).all()
