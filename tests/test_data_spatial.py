"""RGB-D folders come in as they were measured: walls are where they are, and what cannot be is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ami import geometry
from ami.data.doctor import check
from ami.data.episodes import Store
from ami.data.ingest import ingest
from ami.data.recording import Wanted
from ami.data.spatial import SEVEN_SCENES
from ami.data.survey import seen_again
from conftest import Said
from recorded_rooms import CAMERA, HEIGHT, colours, off_the_walls, walk, write_seven_scenes, write_tum

WRITERS = {"tum": write_tum, "7-scenes": write_seven_scenes}
OPENGL = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))


@pytest.fixture(params=WRITERS)
def write(request: pytest.FixtureRequest) -> Callable[..., Path]:
    return WRITERS[request.param]


def complaints(store: Store, against: Store | None = None) -> dict[str, str]:
    """What the doctor says of poses and scales, where it is not well."""
    names = ("poses", "depth scale", "depth units", "intrinsics")
    return {f.name: f"{f.level}: {f.message}" for f in check(store, against) if f.name in names and f.level != "ok"}


def world_points(store: Store) -> Tensor:
    held = {name: torch.tensor(array, dtype=torch.float64) for name, array in store.arrays(0).items()}
    seen = geometry.unproject(held["depth"], held["intrinsics"].expand(len(held["depth"]), 4))
    return geometry.place(held["pose"], seen.flatten(1, 2))


def test_the_walls_of_a_room_are_where_they_are(write, tmp_path: Path) -> None:
    report = ingest([write(tmp_path / "room", walk())], tmp_path / "d", Wanted(size=HEIGHT))
    store = Store.open(tmp_path / "d")
    assert (report.episodes, report.frames, store.embodiment.name) == (1, 6, "rgbd")
    assert set(store.fields) == {"times", "video", "depth", "pose", "intrinsics"}
    assert off_the_walls(world_points(store)).max() < 1.5e-3  # depth is kept in millimetres, or finer
    assert complaints(store) == {}


def test_depth_comes_back_from_the_points_of_a_recording(write, tmp_path: Path) -> None:
    ingest([write(tmp_path / "room", walk())], tmp_path / "d", Wanted(size=HEIGHT))
    clip = Store.open(tmp_path / "d").clips(np.array([[0, 0]]), steps=6)
    depth, camera = clip.depth[:, :, 0, 0], clip.intrinsics[:, None]
    seen = geometry.unproject(depth, camera)
    assert torch.equal(geometry.render(seen.flatten(2, 3), camera, HEIGHT, HEIGHT), depth)


def test_pictures_are_cut_to_their_middle_square_and_the_camera_with_them(write, tmp_path: Path) -> None:
    folder = write(tmp_path / "room", walk())
    for size in (60, 30):
        ingest([folder], tmp_path / f"d{size}", Wanted(size=size))
        episode = Store.open(tmp_path / f"d{size}").read(0)
        np.testing.assert_allclose(episode.intrinsics, np.array([60, 60, 30, 30]) * size / 60)
        half = colours(6)[:, :, 10:70].reshape(6, size, 60 // size, size, 60 // size, 3).mean((2, 4))
        assert np.abs(episode.video - half).max() <= 0.5


def test_a_picture_made_smaller_still_fits_its_poses(write, tmp_path: Path) -> None:
    ingest([write(tmp_path / "room", walk())], tmp_path / "d", Wanted(size=16))
    store = Store.open(tmp_path / "d")
    assert off_the_walls(world_points(store)).median() < 0.02  # a pixel sees 6 cm of a wall
    assert complaints(store) == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (geometry.inverse, "if poses led from world to camera"),
        (lambda pose: pose @ OPENGL, "if poses had OpenGL's axes"),
        (lambda pose: geometry.assemble(pose[:, :3, :3], 1000 * pose[:, :3, 3]), "if poses were 0.001 times as long"),
    ],
)
def test_poses_of_another_convention_are_named(write, change, said: str, tmp_path: Path) -> None:
    ingest([write(tmp_path / "room", change(walk()))], tmp_path / "d")
    found = complaints(Store.open(tmp_path / "d"))
    assert found["poses"].startswith("error: ")
    assert said in found["poses"]


def test_millimetres_read_as_metres_are_found(write, tmp_path: Path, ami: Callable[..., Said]) -> None:
    folder = write(tmp_path / "room", walk())
    (folder / "camera.json").write_text(json.dumps({**CAMERA, "depth_scale": 5000 / 1000 if write is write_tum else 1}))
    assert ami("ingest", folder, "--out", tmp_path / "mm").code == 0
    said = ami("data", "check", tmp_path / "mm", "--json")
    assert said.code == 1
    found = {each["name"]: each["message"] for each in said.document if each["level"] == "error"}
    assert "look like millimetres" in found["depth scale"]
    assert "1000 times as long" in found["poses"]
    ingest([write(tmp_path / "other", walk())], tmp_path / "m")
    assert "both in metres" in complaints(Store.open(tmp_path / "m"), Store.open(tmp_path / "mm"))["depth units"]


def test_another_unit_of_depth_is_found_by_the_poses(tmp_path: Path) -> None:
    """1000 in place of TUM's 5000: walls at 10 m may be walls, but do not fit how the camera moved."""
    ingest([write_tum(tmp_path / "room", walk(), scale=1000.0)], tmp_path / "d")
    found = complaints(Store.open(tmp_path / "d"))
    assert list(found) == ["poses"]
    assert "5 times as long" in found["poses"]


def mirrored(folder: Path) -> None:
    np.savetxt(folder / "frame-000001.pose.txt", np.diag([1.0, -1.0, 1.0, 1.0]))


def stretched(folder: Path) -> None:
    np.savetxt(folder / "frame-000001.pose.txt", np.diag([1.0, 1.1, 1.0, 1.0]))


def lost(folder: Path) -> None:
    np.savetxt(folder / "frame-000001.pose.txt", np.full((4, 4), np.nan))


def short(folder: Path) -> None:
    (folder / "frame-000001.pose.txt").write_text("1 0 0")


def alone(folder: Path) -> None:
    (folder / "frame-000001.pose.txt").unlink()


def other_size(folder: Path) -> None:
    Image.fromarray(np.ones((30, 40), np.uint16)).save(folder / "frame-000001.depth.png")


def eight_bits(folder: Path) -> None:
    Image.fromarray(np.ones((60, 80), np.uint8)).save(folder / "frame-000001.depth.png")


def torn(folder: Path) -> None:
    path = folder / "frame-000001.color.png"
    path.write_bytes(path.read_bytes()[:100])


def no_camera(folder: Path) -> None:
    (folder / "camera.json").unlink()


def words(folder: Path) -> None:
    (folder / "camera.json").write_text('{"fx": "wide", "fy": 1, "cx": 1, "cy": 1}')


def number_as_word(folder: Path) -> None:
    (folder / "camera.json").write_text('{"fx": 50, "fy": 50, "cx": 1, "cy": 1, "depth_scale": "much"}')


def torn_within(folder: Path) -> None:
    path = folder / "frame-000001.color.png"
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 1] ^= 32
    path.write_bytes(content)


def no_rotation(folder: Path) -> None:
    (folder / "groundtruth.txt").write_text("100.0 0 0 0 0 0 0 0\n")


def other_clock(folder: Path) -> None:
    (folder / "groundtruth.txt").write_text("5.0 0 0 0 0 0 0 1\n")


@pytest.mark.parametrize(
    ("kind", "harm", "said"),
    [
        ("7-scenes", mirrored, "the pose of frame 1 is left-handed"),
        ("7-scenes", stretched, "the pose of frame 1 is not rigid"),
        ("7-scenes", lost, "holds NaN or infinity"),
        ("7-scenes", short, "holds 3 numbers; a pose is 4 rows of 4"),
        ("7-scenes", alone, "has no frame-000001.pose.txt beside it"),
        ("7-scenes", other_size, "is 40 x 30 px and its colour picture 80 x 60 px"),
        ("7-scenes", eight_bits, "16 bits are wanted"),
        ("7-scenes", torn, "cannot be read"),
        ("tum", no_camera, "has no intrinsics: put fx, fy, cx, cy (pixels) into"),
        ("tum", words, "is no calibration"),
        ("tum", number_as_word, "is no calibration"),
        ("7-scenes", torn_within, "cannot be read"),
        ("tum", no_rotation, "is no rotation; its length must be 1"),
        ("tum", other_clock, "are the clocks the same?"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(
    kind: str, harm: Callable[[Path], None], said: str, tmp_path: Path, ami: Callable[..., Said]
) -> None:
    folder = WRITERS[kind](tmp_path / "room", walk())
    harm(folder)
    assert said in ami("ingest", folder, "--out", tmp_path / "d").mistake
    assert not (tmp_path / "d").exists()


def test_a_camera_may_be_said_elsewhere_and_for_a_larger_picture(tmp_path: Path, ami: Callable[..., Said]) -> None:
    folder = write_tum(tmp_path / "room", walk())
    twice = {name: 2 * value for name, value in CAMERA.items()} | {"cx": 79.5, "cy": 59.5, "width": 160, "height": 120}
    (tmp_path / "mine.json").write_text(json.dumps(twice))
    (folder / "camera.json").unlink()
    words = ["ingest", folder, "--calibration", tmp_path / "mine.json", "--size", 60, "--out", tmp_path / "d", "--json"]
    assert ami(*words).document["frames"] == 6
    np.testing.assert_allclose(Store.open(tmp_path / "d").read(0).intrinsics, [60, 60, 30, 30])
    (tmp_path / "mine.json").write_text(json.dumps({**twice, "height": 90}))
    assert "its camera is one of 160 x 90" in ami(*words[:-2], tmp_path / "e").mistake


def test_seven_scenes_has_a_camera_of_its_own(tmp_path: Path) -> None:
    folder = write_seven_scenes(tmp_path / "room", walk())
    (folder / "camera.json").unlink()
    ingest([folder], tmp_path / "d", Wanted(size=60))
    np.testing.assert_allclose(Store.open(tmp_path / "d").read(0).intrinsics, [73.125, 73.125, 30.0625, 30.0625])
    assert SEVEN_SCENES.cropped(640, 480, 480).tolist() == [585, 585, 240.5, 240.5]


def test_unknown_depth_stays_unknown(tmp_path: Path) -> None:
    folder = write_seven_scenes(tmp_path / "room", walk())
    kept = np.full((60, 80), 1500, np.uint16)
    kept[20:30], kept[30:40] = 0, 65535
    Image.fromarray(kept).save(folder / "frame-000002.depth.png")
    ingest([folder], tmp_path / "d", Wanted(size=60))
    depth = Store.open(tmp_path / "d").read(0).depth[2]
    assert (depth[20:40] == 0).all()
    assert (depth[:20] == 1.5).all()


def test_frames_come_at_an_even_rate(tmp_path: Path) -> None:
    folder = write_tum(tmp_path / "room", walk(6))
    ingest([folder], tmp_path / "half", Wanted(fps=5))
    store = Store.open(tmp_path / "half")
    assert store.embodiment.step_seconds == pytest.approx(0.2)
    assert (store.read(0).video[:, 0, 0, 2] // 10).tolist() in ([0, 2, 4], [0, 2, 5])
    rows = (folder / "rgb.txt").read_text().splitlines()
    (folder / "rgb.txt").write_text("\n".join([*rows[:2], "100.212 rgb/2.png", *rows[4:]]))  # late by 12 ms, and a gap
    ingest([folder], tmp_path / "d")
    episode = Store.open(tmp_path / "d").read(0)
    assert (episode.video[:, 0, 0, 2] // 10).tolist() in ([0, 1, 2, 2, 4, 5], [0, 1, 2, 4, 4, 5])
    np.testing.assert_allclose(np.diff(episode.times), 0.1, atol=0.006)


def test_real_recordings_agree_with_themselves(shared_data: Path, tmp_path: Path, ami: Callable[..., Said]) -> None:
    """Where two neighbouring views see something, they see it within 1 % of its distance (shelf), and 2 % (room)."""
    assert ami("ingest", shared_data / "rgbd", "--out", tmp_path / "d", "--json").document["frames"] == 20
    said = ami("data", "info", tmp_path / "d", "--json").document
    assert (said["episodes"], said["fields"]["depth"]) == (2, [64, 64])
    assert complaints(Store.open(tmp_path / "d")) == {}
    for number, most in ((0, 0.02), (1, 0.01)):
        held = {k: torch.tensor(v, dtype=torch.float64) for k, v in Store.open(tmp_path / "d").arrays(number).items()}
        camera = held["intrinsics"]
        points = geometry.unproject(held["depth"], camera.expand(len(held["depth"]), 4)).flatten(1, 2)
        motion = geometry.relative(held["pose"][1:], held["pose"][:-1])
        apart = seen_again(points[:-1], motion, held["depth"][1:], camera)
        assert apart.isfinite().double().mean() > 0.1
        assert apart[apart.isfinite()].median() < most
