"""Demonstrations in robomimic's HDF5 and in diffusion policy's Zarr come in with their actions at the right frames."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ami.data.episodes import Store
from ami.data.ingest import ingest
from ami.data.recording import Wanted
from conftest import Said

h5py = pytest.importorskip("h5py", reason="the extra 'robots' is not installed")
zarr = pytest.importorskip("zarr", reason="the extra 'robots' is not installed")
LENGTHS = (6, 4, 5)


def pictures(frames: int, size: int = 84) -> np.ndarray:
    """Upper half of one grey and lower half of another, brighter with each frame."""
    shown = np.zeros((frames, size, size, 3), np.uint8)
    shown[:, : size // 2] = 50 + 10 * np.arange(frames)[:, None, None, None]
    shown[:, size // 2 :] = 20
    return shown


def robomimic(path: Path, *, reach: float = 1.0, cameras: tuple[str, ...] = ("agentview_image",)) -> Path:
    """As robomimic's documentation lays it out, with eleven demonstrations of which three matter."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = sum(LENGTHS)
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 10}})
        for number, length in zip((10, 2, 0), LENGTHS, strict=True):
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"] = length
            demo["actions"] = np.stack([np.full((length, 7), 0.1 * reach * k) for k in range(length)])[:, 0]
            demo["states"] = rng.random((length, 12))
            demo["rewards"], demo["dones"] = np.zeros(length), np.zeros(length)
            for group in ("obs", "next_obs"):
                obs = demo.create_group(group)
                obs["robot0_eef_pos"] = np.full((length, 3), number, float)
                obs["robot0_eef_quat"] = np.tile([0, 0, 0, 1.0], (length, 1))
                obs["robot0_gripper_qpos"] = np.full((length, 2), 0.04)
                obs["object"] = rng.random((length, 10))
                for camera in cameras:
                    obs[camera] = pictures(length)
        file.create_group("mask")["train"] = np.array([b"demo_0"])
    return path


def pusht(folder: Path, version: int = 2, **changes: Any) -> Path:
    """The layout of pusht_cchi_v7_replay.zarr."""
    total = sum(LENGTHS)
    held = {
        "data/action": np.arange(2 * total, dtype=np.float32).reshape(total, 2),
        "data/state": np.arange(5 * total, dtype=np.float32).reshape(total, 5),
        "data/img": pictures(total, 96).astype(np.float32),
        "data/keypoint": np.zeros((total, 9, 2), np.float32),
        "meta/episode_ends": np.cumsum(LENGTHS),
    }
    group = zarr.open_group(folder, mode="w", zarr_format=version)
    for name, array in (held | changes).items():
        if array is not None:
            group.create_array(name, data=array)
    return folder


def test_demonstrations_in_hdf5(tmp_path: Path, ami: Callable[..., Said]) -> None:
    path = robomimic(tmp_path / "lift.hdf5")
    assert ami("ingest", path, "--out", tmp_path / "d", "--json").document["frames"] == 15
    said = ami("data", "info", tmp_path / "d", "--json").document
    assert said["fields"] == {"times": [], "video": [64, 64, 3], "proprio": [9], "actions": [7], "truth": [12]}
    store = Store.open(tmp_path / "d")
    assert (store.embodiment.name, store.embodiment.step_seconds) == ("Lift", 0.1)
    assert (store.embodiment.low, store.embodiment.high) == ((-1.0,) * 7, (1.0,) * 7)
    assert [info.source for info in store.episodes] == [f"lift.hdf5/demo_{k}" for k in (0, 2, 10)]  # by number
    episode = store.read(2)
    np.testing.assert_allclose(episode.actions[:, 0], [0, 0.1, 0.2, 0.3, 0.4])  # the sixth led to nothing that was seen
    np.testing.assert_allclose(episode.proprio[0], [10, 10, 10, 0, 0, 0, 1, 0.04, 0.04])
    assert episode.video[:, 0, 0, 0].tolist() == [50, 60, 70, 80, 90, 100]
    assert (episode.video[:, -1] == 20).all()


def test_actions_beyond_one_are_bounded_by_what_was_done(tmp_path: Path) -> None:
    ingest([robomimic(tmp_path / "a.h5", reach=5.0, cameras=())], tmp_path / "d")
    store = Store.open(tmp_path / "d")
    assert store.embodiment.high == pytest.approx((2.5,) * 7)
    assert "video" not in store.fields


def test_one_camera_of_several(tmp_path: Path, ami: Callable[..., Said]) -> None:
    path = robomimic(tmp_path / "a.hdf5", cameras=("robot0_eye_in_hand_image", "agentview_image"))
    ingest([path], tmp_path / "d", Wanted(camera="robot0_eye_in_hand"))
    assert Store.open(tmp_path / "d").fields["video"] == (64, 64, 3)
    mistake = ami("ingest", path, "--camera", "front", "--out", tmp_path / "e").mistake
    assert "no camera 'front'; there are agentview_image, robot0_eye_in_hand_image" in mistake


@pytest.mark.parametrize("version", [2, 3])
def test_demonstrations_in_zarr(version: int, tmp_path: Path, ami: Callable[..., Said]) -> None:
    folder = pusht(tmp_path / "pusht.zarr", version)
    assert ami("ingest", folder, "--out", tmp_path / "d", "--json").document["episodes"] == 3
    said = ami("data", "info", tmp_path / "d", "--json").document
    assert said["fields"] == {"times": [], "video": [64, 64, 3], "proprio": [2], "actions": [2], "truth": [5]}
    assert said["truth_names"] == ["pusher_x", "pusher_y", "block_x", "block_y", "block_angle"]
    episode = Store.open(tmp_path / "d").read(1)
    np.testing.assert_array_equal(episode.actions, [[12, 13], [14, 15], [16, 17]])
    np.testing.assert_array_equal(episode.truth[:, 0], [30, 35, 40, 45])
    np.testing.assert_array_equal(episode.proprio, episode.truth[:, :2])
    assert episode.video[:, 0, 0, 0].tolist() == [110, 120, 130, 140]


def test_a_zarr_group_inside_a_folder_and_without_pictures(tmp_path: Path) -> None:
    pusht(tmp_path / "pusht" / "pusht.zarr", **{"data/img": None})
    assert ingest([tmp_path / "pusht"], tmp_path / "d").frames == 15


def pickled(folder: Path) -> Path:
    """A description that asks for a codec that runs what it reads."""
    path = pusht(folder) / "data" / "action" / ".zarray"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"filters": [{"id": "pickle"}]}))
    return folder


def test_nothing_is_unpickled(tmp_path: Path, ami: Callable[..., Said]) -> None:
    assert "asks for pickle" in ami("ingest", pickled(tmp_path / "a.zarr"), "--out", tmp_path / "d").mistake


def test_actions_keep_their_frames(tmp_path: Path, ami: Callable[..., Said]) -> None:
    mistake = ami("ingest", pusht(tmp_path / "a.zarr"), "--fps", 5, "--out", tmp_path / "d").mistake
    assert "was recorded frame by frame, at its own rate; leave --fps out" in mistake


def torn_hdf5(folder: Path) -> Path:
    path = robomimic(folder.with_suffix(".hdf5"))
    path.write_bytes(path.read_bytes()[:3000])
    return path


def without_actions(folder: Path) -> Path:
    with h5py.File(path := robomimic(folder.with_suffix(".hdf5")), "a") as file:
        del file["data"]["demo_2"]["actions"]
    return path


def other_pictures(folder: Path) -> Path:
    with h5py.File(path := robomimic(folder.with_suffix(".hdf5")), "a") as file:
        obs = file["data"]["demo_2"]["obs"]
        del obs["agentview_image"]
        obs["agentview_image"] = pictures(3)
    return path


def only_a_table(folder: Path) -> Path:
    with h5py.File(path := folder.with_suffix(".hdf5"), "w") as file:
        file["data"] = np.array([b"demo_0"])
    return path


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (torn_hdf5, "is not an HDF5 file in robomimic's layout"),
        (without_actions, "is not an HDF5 file in robomimic's layout"),
        (only_a_table, "is not an HDF5 file in robomimic's layout"),
        (other_pictures, "video has shape (3, 64, 64, 3); for 4 frames"),
        (lambda folder: pusht(folder, **{"data/state": np.zeros((9, 5), np.float32)}), "its episodes end at 15"),
        (lambda folder: pusht(folder, **{"data/action": np.zeros((15, 3), np.float32)}), "another task's"),
        (lambda folder: pusht(folder, **{"data/action": np.full((15, 2), np.nan, np.float32)}), "actions holds NaN"),
        (lambda folder: pusht(folder, **{"data/state": None}), "is not a Zarr group in the layout of Push-T"),
        (lambda folder: pusht(folder, **{"data/img": pictures(15) / 255}), "wanted is 0 to 255"),
    ],
)
def test_what_is_broken_is_refused_in_one_sentence(
    make: Callable[[Path], Path], said: str, tmp_path: Path, ami: Callable[..., Said]
) -> None:
    assert said in ami("ingest", make(tmp_path / "a.zarr"), "--out", tmp_path / "d").mistake
