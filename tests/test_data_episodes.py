"""The store gives back what was put in, notices what changed, and survives a crash."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ami import files
from ami.data.episodes import SCHEMA, Episode, Store, split
from ami.types import Embodiment

BODY = Embodiment("toy", 0.1, low=(-1.0, -1.0), high=(1.0, 1.0))


def poses(frames: int, rng: np.random.Generator) -> np.ndarray:
    """Turned by quarters, and moved."""
    pose = np.tile(np.eye(4, dtype=np.float32), (frames, 1, 1))
    pose[:, :3, :3] = np.stack([np.eye(3)[[1, 2, 0]], np.eye(3)[[2, 0, 1]]])[rng.integers(0, 2, frames)]
    pose[:, :3, 3] = rng.random((frames, 3))
    return pose


def recording(frames: int, seed: int = 0, **changes) -> Episode:
    """Every field filled, every number its own."""
    rng = np.random.default_rng(seed)
    return replace(
        Episode(
            times=np.arange(frames) * 0.1,
            video=rng.integers(0, 256, (frames, 6, 8, 3), dtype=np.uint8),
            depth=rng.random((frames, 6, 8), dtype=np.float32),
            points=rng.random((frames, 3, 3), dtype=np.float32),
            pose=poses(frames, rng),
            intrinsics=rng.random(4, dtype=np.float32),
            proprio=rng.random((frames, 3), dtype=np.float32),
            actions=rng.random((frames - 1, 2), dtype=np.float32),
            truth=rng.random((frames, 2), dtype=np.float32),
            source=f"rec{seed}",
        ),
        **changes,
    )


def passive(frames: int, seed: int = 0) -> Episode:
    return recording(frames, seed, actions=None, truth=None)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store.create(tmp_path / "s", BODY, ("x", "y"))
    made.append([recording(5, 0), recording(9, 1)])
    made.append([recording(7, 2)])
    return made


def test_what_was_put_in_comes_out(store: Store) -> None:
    opened = Store.open(store.folder)
    assert opened.embodiment == BODY
    assert opened.truth_names == ("x", "y")
    assert opened.digest == store.digest
    for number, frames in enumerate((5, 9, 7)):
        put, got = recording(frames, number), opened.read(number)
        assert got.digest == put.digest == opened.episodes[number].digest
        assert got.source == put.source
        for name, array in put.arrays().items():
            np.testing.assert_array_equal(getattr(got, name), array)


def test_anyone_can_open_it_with_numpy(store: Store) -> None:
    info = json.loads((store.folder / "index.json").read_text())["episodes"][1]
    shard = store.folder / "shards" / f"{info['shard']:05d}"
    rows = slice(info["start"], info["start"] + info["length"])
    video = np.load(shard / "video.npy", mmap_mode="r", allow_pickle=False)[rows]
    actions = np.load(shard / "actions.npy", allow_pickle=False)[rows]
    np.testing.assert_array_equal(video, recording(9, 1).video)
    np.testing.assert_array_equal(actions[:-1], recording(9, 1).actions)
    np.testing.assert_array_equal(actions[-1], 0)


def test_clips_cut_the_right_frames(store: Store) -> None:
    index = np.array([[2, 3], [0, 1], [1, 5]])
    clip = store.clips(index, steps=4)
    for row, (number, first) in enumerate(index.tolist()):
        whole = recording((5, 9, 7)[number], number).arrays()
        cut = slice(first, first + 4)
        frames = clip.video[row, :, 0].permute(0, 2, 3, 1)
        np.testing.assert_array_equal(frames, whole["video"][cut])
        np.testing.assert_array_equal(clip.depth[row, :, 0, 0], whole["depth"][cut])
        np.testing.assert_array_equal(clip.actions[row], whole["actions"][first : first + 3])
        np.testing.assert_array_equal(clip.intrinsics[row], whole["intrinsics"])
        for name in ("times", "points", "pose", "proprio", "truth"):
            np.testing.assert_array_equal(getattr(clip, name)[row], whole[name][cut])
    assert clip.video.shape == (3, 4, 1, 3, 6, 8)
    assert clip.video.flatten(0, 2).is_contiguous(memory_format=torch.channels_last)


def test_tubelets_hold_frames_in_order_and_end_with_their_time(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "s", replace(BODY, low=(), high=()))
    store.append([passive(9)])
    clip = store.clips(np.array([[0, 1]]), steps=3, frames_per_step=2)
    np.testing.assert_array_equal(clip.video[0].permute(0, 1, 3, 4, 2), passive(9).video[1:7].reshape(3, 2, 6, 8, 3))
    np.testing.assert_allclose(clip.times[0], [0.2, 0.4, 0.6])
    np.testing.assert_array_equal(clip.proprio[0], passive(9).proprio[[2, 4, 6]])


def test_actions_inside_a_step_are_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="a step must be one frame; 2 were asked for"):
        store.clips(np.array([[0, 0]]), steps=2, frames_per_step=2)


def test_windows_are_all_that_fit_and_no_more(store: Store) -> None:
    expected = [(n, k) for n, frames in ((1, 9), (2, 7)) for k in range(frames - 6 + 1)]
    assert [tuple(row) for row in store.windows(6).tolist()] == expected
    assert store.windows(6, episodes=(2,)).tolist() == [[2, 0], [2, 1]]
    assert len(store.windows(10)) == 0
    assert len(store.clips(store.windows(6), 6)) == len(expected)


@pytest.mark.parametrize(
    ("index", "match"), [([3, 0], "no episode 3"), ([-1, 0], "no episode -1"), ([0, 2], "5 frames")]
)
def test_windows_outside_are_refused(store: Store, index: list[int], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        store.clips(np.array([index]), steps=4)


def test_a_crash_between_shard_and_index_loses_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = store.digest

    def full_disk(path: Path, document: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_json", full_disk)
        with pytest.raises(OSError, match="no space"):
            store.append([recording(50, 3)])
    for survivor in (store, Store.open(store.folder)):
        assert (survivor.digest, len(survivor), survivor.verify()) == (before, 3, [])
    survivor = Store.open(store.folder)
    survivor.append([recording(6, 4)])  # over the stray shard
    assert survivor.verify() == []
    np.testing.assert_array_equal(Store.open(store.folder).read(3).video, recording(6, 4).video)


def test_verify_names_what_changed(store: Store) -> None:
    assert store.verify() == []
    path = store.folder / "shards" / "00000" / "video.npy"
    video = np.load(path, mmap_mode="r+")
    video[6, 0, 0, 0] ^= 1  # one bit of the second episode
    video.flush()
    assert [sentence[:16] for sentence in Store.open(store.folder).verify()] == ["episode 1 (rec1,"]
    path.write_bytes(path.read_bytes()[:-500])
    assert all("cannot be read" in sentence for sentence in Store.open(store.folder).verify())
    with pytest.raises(ValueError, match=r"video\.npy cannot be read"):
        Store.open(store.folder).clips(np.array([[0, 0]]), 2)


def test_the_digest_is_of_content_and_embodiment(tmp_path: Path, store: Store) -> None:
    def digest(body: Embodiment, episode: Episode, name: str) -> str:
        made = Store.create(tmp_path / name, body, ("x", "y"))
        made.append([episode])
        return made.digest

    first = digest(BODY, recording(5), "a")
    assert digest(BODY, recording(5, source="another name"), "b") == first
    assert digest(replace(BODY, step_seconds=0.2), recording(5), "c") != first
    assert digest(BODY, recording(5, actions=-recording(5).actions), "d") != first


def test_folders_that_are_no_store_are_refused(tmp_path: Path, store: Store) -> None:
    def refuses(match: str, folder: Path) -> None:
        with pytest.raises(ValueError, match=match):
            Store.open(folder)

    refuses("no such folder", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    refuses("is empty", tmp_path / "empty")
    refuses("not a store", store.folder / "shards")
    index = json.loads((store.folder / "index.json").read_text())
    for name, text, match in (
        ("newer", {**index, "schema": SCHEMA + 1}, "install a newer AMI"),
        ("other", {"format": "zip", "schema": 1}, "'zip'"),
        ("torn", {**index, "episodes": [{"shard": 0}]}, "damaged"),
        ("list", [1, 2], "not one of ours"),
    ):
        files.write_json(tmp_path / name / "index.json", text)
        refuses(match, tmp_path / name)
    with pytest.raises(ValueError, match="is not empty"):
        Store.create(store.folder, BODY)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"actions": np.zeros((5, 2), np.float32)},
            r"actions has shape \(5, 2\); for 5 frames it must be \(4, action\)",
        ),
        ({"actions": np.full((4, 2), np.nan, np.float32)}, "actions holds NaN"),
        ({"proprio": np.full((5, 1), np.inf, np.float32)}, "proprio holds NaN"),
        ({"times": np.array([0, 1, 1, 2, 3.0])}, "times do not increase"),
        ({"video": np.zeros((5, 6, 8, 3), np.float32)}, "video is float32"),
        ({"depth": np.zeros((5, 6, 7), np.float32)}, r"depth has shape \(5, 6, 7\)"),
        ({"depth": np.full((5, 6, 8), np.nan, np.float32)}, "depth holds NaN"),
        ({"depth": np.full((5, 6, 8), -0.1, np.float32)}, "depth goes below 0"),
        ({"points": np.full((5, 3, 3), np.nan, np.float32)}, "points holds NaN"),
        ({"points": np.zeros((5, 3, 2), np.float32)}, r"points has shape \(5, 3, 2\)"),
        ({"intrinsics": np.array([60.0, 0, 4, 3])}, "focal lengths are"),
        ({"pose": np.tile(np.diag([1.0, -1, 1, 1]), (5, 1, 1))}, "pose of frame 0 is left-handed"),
        ({"pose": np.tile(np.diag([1.0, 2, 1, 1]), (5, 1, 1))}, "pose of frame 0 is not rigid"),
    ],
)
def test_bad_episodes_cannot_be_built(changes: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        recording(5, **changes)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"actions": np.zeros((4, 3), np.float32)}, "3 numbers in an action; 'toy' has 2"),
        ({"actions": None}, "0 numbers in an action"),
        ({"truth": None}, "0 numbers in truth"),
        ({"pose": None}, "nothing for pose"),
        ({"video": np.zeros((5, 9, 9, 3), np.uint8), "depth": np.zeros((5, 9, 9), np.float32)}, "depth at each frame"),
    ],
)
def test_unlike_episodes_are_refused_and_change_nothing(store: Store, changes: dict, match: str) -> None:
    before = store.digest
    with pytest.raises(ValueError, match=match):
        store.append([recording(5, 8), recording(5, **changes)])
    assert Store.open(store.folder).digest == store.digest == before


def test_split_is_by_content_and_of_the_size_asked_for(tmp_path: Path) -> None:
    def made(name: str, seeds: list[int]) -> Store:
        store = Store.create(tmp_path / name, replace(BODY, low=(), high=()))
        store.append([Episode(np.arange(2) * 0.1, proprio=np.full((2, 1), seed, np.float32)) for seed in seeds])
        return store

    forward, backward = made("a", list(range(25))), made("b", list(range(25))[::-1])
    train, held = split(forward, 0.2)
    assert (len(train), len(held)) == (20, 5)
    assert sorted(train + held) == list(range(25))
    assert split(backward, 0.2)[1] == tuple(sorted(24 - number for number in held))
    assert [len(side) for side in split(made("two", [1, 2]), 0.01)] == [1, 1]
    assert [len(side) for side in split(made("one", [1]), 0.5)] == [1, 0]
    assert sorted(map(len, split(made("copies", [1, 2, 1, 1]), 0.5))) in ([1, 3],)
    walked = Store.create(tmp_path / "places", replace(BODY, low=(), high=()))
    walks = [np.full((2, 1), seed, np.float32) for seed in range(30)]
    walked.append([Episode(np.arange(2) * 0.1, proprio=walk, place=f"p{i // 3}") for i, walk in enumerate(walks)])
    sides = split(walked, 0.2)
    assert [len(side) for side in sides] == [24, 6]
    assert not {walked.episodes[i].place for i in sides[0]} & {walked.episodes[i].place for i in sides[1]}
    assert walked.read(4).place == "p1"
    with pytest.raises(ValueError, match="between 0 and 1"):
        split(forward, 1.0)
