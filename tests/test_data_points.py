"""Clouds come in as they are in every way of writing them, and what stands for no point is never taken for one."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ami.data.doctor import check
from ami.data.episodes import Store
from ami.data.ingest import ingest
from ami.data.points import drawn, read_cloud
from ami.data.recording import Wanted
from conftest import Said

CORNERS = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (2.0, 4.0)])  # of a cube ahead
PCD = "VERSION 0.7\nFIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F U\nCOUNT 1 1 1 1\nWIDTH {}\nHEIGHT {}\nVIEWPOINT {}\n"
# Twelve points (k / 2, 1, -2), as pypcd4 1.5.1 and liblzf pack them.
PACKED = bytes.fromhex(
    "3e000000900000000100006000033f000080200300c0200304004000002020030040200300602003008020030090200300a0200300b020034027e023030100c0e021030100c0"
)


def ply(points: np.ndarray, how: str) -> bytes:
    """With a colour before the places and a face behind them, as scanners write it."""
    head = f"ply\nformat {how} 1.0\ncomment made by hand\nelement camera 1\nproperty double time\n"
    head += f"element vertex {len(points)}\nproperty uchar red\n"
    head += "".join(
        f"property {kind} {axis}\n" for kind, axis in zip(("float", "float32", "double"), "xyz", strict=True)
    )
    head += "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    if how == "ascii":
        rows = ["0.5", *(f"7 {x:.9g} {y:.9g} {z:.9g}" for x, y, z in points), "3 0 1 2"]
        return (head + "\n".join(rows) + "\n").encode()
    order = "<" if "little" in how else ">"
    rows = [struct.pack(f"{order}Bffd", 7, *point) for point in points]
    return head.encode() + struct.pack(f"{order}d", 0.5) + b"".join(rows) + struct.pack(f"{order}Biii", 3, 0, 1, 2)


def pcd(points: np.ndarray, how: str, viewpoint: str = "0 0 0 1 0 0 0", height: int = 1) -> bytes:
    head = PCD.format(len(points) // height, height, viewpoint) + f"POINTS {len(points)}\nDATA {how}\n"
    if how == "ascii":
        return (head + "\n".join(f"{x:.9g} {y:.9g} {z:.9g} 255" for x, y, z in points) + "\n").encode()
    return head.encode() + b"".join(struct.pack("<fffI", *point, 255) for point in points)


WRITERS = {
    "text.ply": lambda points: ply(points, "ascii"),
    "little.ply": lambda points: ply(points, "binary_little_endian"),
    "big.ply": lambda points: ply(points, "binary_big_endian"),
    "text.pcd": lambda points: pcd(points, "ascii"),
    "binary.pcd": lambda points: pcd(points, "binary"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_the_corners_of_a_cube(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(WRITERS[name](CORNERS))
    cloud = read_cloud(tmp_path / name)
    np.testing.assert_array_equal(cloud.points, CORNERS)
    assert cloud.pose is None


@given(st.lists(st.tuples(*[st.floats(-100, 100, width=32)] * 3), min_size=1, max_size=30))
@settings(max_examples=20, deadline=None)
def test_any_points_in_any_way_of_writing(tmp_path_factory: pytest.TempPathFactory, points: list) -> None:
    folder, held = tmp_path_factory.mktemp("clouds"), np.array(points)
    for name, write in WRITERS.items():
        (folder / name).write_bytes(write(held))
        np.testing.assert_allclose(read_cloud(folder / name).points, held, rtol=1e-7)


def test_packed_points(tmp_path: Path) -> None:
    head = (
        b"VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 12\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\n"
    )
    head += b"POINTS 12\nDATA binary_compressed\n"
    path = tmp_path / "a.pcd"
    path.write_bytes(head + PACKED)
    np.testing.assert_array_equal(read_cloud(path).points, [[k / 2, 1, -2] for k in range(12)])
    for damaged in (PACKED[:40], PACKED[:8] + b"\xff\xff\xff" + PACKED[11:], PACKED[:4] + b"\x01" + PACKED[5:]):
        path.write_bytes(head + damaged)
        with pytest.raises(ValueError, match=r"a\.pcd is not a point cloud that can be read"):
            read_cloud(path)


def test_where_the_sensor_was_is_the_pose_of_its_frame(tmp_path: Path) -> None:
    """A quarter turn about z: what is right of the sensor is down in the world. Quaternions begin with w here."""
    half = np.sqrt(0.5)
    (tmp_path / "a.pcd").write_bytes(pcd(CORNERS, "binary", f"1 2 3 {half} 0 0 {half}"))
    pose = read_cloud(tmp_path / "a.pcd").pose
    np.testing.assert_allclose(pose @ [1, 0, 0, 1], [1, 3, 3, 1], atol=1e-9)


def test_a_folder_is_an_episode_and_every_frame_has_as_many_points(tmp_path: Path, ami: Callable[..., Said]) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    for name, count in (("b.ply", 5), ("a.ply", 8), ("c.ply", 3)):
        (folder / name).write_bytes(ply(CORNERS[:count], "binary_little_endian"))
    said = ami("ingest", folder, "--points", 6, "--out", tmp_path / "d", "--json").document
    assert (said["episodes"], said["frames"]) == (1, 3)
    store = Store.open(tmp_path / "d")
    assert ami("data", "info", tmp_path / "d", "--json").document["fields"]["points"] == [6, 3]
    points = store.clips(np.array([[0, 0]]), 3).points[0]
    known = (points != 0).any(-1)
    assert known.sum(-1).tolist() == [6, 5, 3]
    np.testing.assert_array_equal(points[1, :5], CORNERS[:5])
    assert set(map(tuple, points[0].tolist())) < set(map(tuple, CORNERS.tolist()))
    assert {f.name: f.level for f in check(store)}["points scale"] == "ok"


def test_what_is_drawn_depends_on_the_frame_alone() -> None:
    many = np.random.default_rng(0).normal(size=(5000, 3))
    np.testing.assert_array_equal(drawn(many, 1000, 3), drawn(many, 1000, 3))
    assert not np.array_equal(drawn(many, 1000, 3), drawn(many, 1000, 4))
    assert len(np.unique(drawn(many, 1000, 3), axis=0)) == 1000
    assert np.abs(drawn(many, 1000, 3).mean(0)).max() < 0.15  # without looking: the cloud's middle stays


def test_millimetres_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.ply").write_bytes(ply(1000 * CORNERS, "ascii"))
    ingest([tmp_path / "a.ply"], tmp_path / "d", Wanted(points=8))
    (found,) = [f for f in check(Store.open(tmp_path / "d")) if f.level == "error"]
    assert "points are metres, and these look like millimetres" in found.message


def broken(change: Callable[[bytes], bytes], name: str = "little.ply") -> tuple[str, Callable[[], bytes]]:
    return name, lambda: change(WRITERS[name](CORNERS))


LOST = np.where(np.arange(8)[:, None] == 3, np.nan, CORNERS)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (("a.ply", lambda: ply(LOST, "ascii")), "holds points that are NaN or infinite"),
        (("a.ply", lambda: ply(LOST, "binary_big_endian")), "holds points that are NaN or infinite"),
        (("a.pcd", lambda: pcd(LOST, "binary")), "holds points that are NaN or infinite"),
        (("a.pcd", lambda: pcd(LOST * np.nan, "binary", height=2)), "holds no point"),
        (broken(lambda b: b[:-60]), "it is cut short: it promises 8 points"),
        (broken(lambda b: b[:-80], "text.ply"), "it is cut short: it promises 8 points and holds"),
        (broken(lambda b: b.replace(b"element vertex 8", b"element vertex 9999999999")), "it is cut short"),
        (broken(lambda b: b.replace(b"property double z", b"property double w")), "'z'|z"),
        (broken(lambda b: b.replace(b"vertex", b"edge")), "it has no vertices"),
        (broken(lambda b: b.replace(b"end_header", b"the end")), "its header has no end"),
        (broken(lambda b: b.replace(b"DATA binary", b"DATA secret"), "binary.pcd"), "its data are 'secret'"),
        (broken(lambda b: b.replace(b"TYPE F", b"TYPE X"), "binary.pcd"), "is not a point cloud that can be read"),
        (broken(lambda b: b[3:]), "does not begin with 'ply'"),
        (broken(lambda b: b""), "its header has no end"),
    ],
)
def test_what_is_no_cloud_is_refused_in_one_sentence(
    made: tuple[str, Callable[[], bytes]], said: str, tmp_path: Path, ami: Callable[..., Said]
) -> None:
    name, write = made
    (tmp_path / name).write_bytes(write())
    mistake = ami("ingest", tmp_path / name, "--out", tmp_path / "d").mistake
    assert name in mistake
    assert any(each in mistake for each in said.split("|"))


def test_a_picture_of_points_may_have_seen_nothing_somewhere(tmp_path: Path) -> None:
    (tmp_path / "a.pcd").write_bytes(pcd(LOST, "binary", height=2))
    np.testing.assert_array_equal(read_cloud(tmp_path / "a.pcd").points, np.delete(CORNERS, 3, axis=0))
