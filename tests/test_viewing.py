"""``ami view``: what a recording of a place shows is in the file that is written, and every mistake is one sentence."""

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ami import geometry
from ami.data.camera import CAMERA
from ami.data.episodes import Episode, Store
from ami.data.ingest import ingest
from ami.data.video import FILM
from ami.evaluation import places
from ami.evaluation.scene import scene
from ami.models import checkpoint
from ami.models.spatial import SpatialJEPA, sized
from ami.worlds import maze, maze_walks
from recorded_rooms import off_the_walls, walk, write_tum

WALKS, STEPS = 3, 6


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Walks through mazes, a recorded room in TUM's layout, a point cloud, and a checkpoint of fresh weights."""
    folder = tmp_path_factory.mktemp("made")
    store = Store.create(folder / "mazes", maze.EMBODIMENT, maze_walks.TRUTH)
    store.append(maze_walks.collect(WALKS, STEPS, seed=5))
    ingest([write_tum(folder / "room", walk())], folder / "rooms")
    Store.create(folder / "clouds", replace(FILM, name="clouds")).append(
        [Episode(np.zeros(1), points=np.random.default_rng(0).normal(size=(1, 50, 3)).astype(np.float32))]
    )
    torch.manual_seed(0)
    model = SpatialJEPA(sized({CAMERA.name: CAMERA}))
    checkpoint.save(folder / "c", model, checkpoint.Provenance("spatial", checkpoint.code_version()))
    return folder


def test_points_of_a_recorded_room_lie_on_its_walls(made: Path) -> None:
    shown = scene(Store.open(made / "rooms"), 0)
    off = off_the_walls(torch.from_numpy(np.concatenate([cloud.places for cloud in shown.clouds])).double())
    assert len(off) > 1000
    assert float(off.median()) < 0.01  # metres
    assert {cloud.colours.shape for cloud in shown.clouds} == {cloud.places.shape for cloud in shown.clouds}


def test_points_have_the_colour_of_the_pixel_that_shows_them(made: Path) -> None:
    held = Store.open(made / "mazes").arrays(0)
    shown = scene(Store.open(made / "mazes"), 0)
    back = geometry.place(geometry.inverse(torch.tensor(held["pose"][2])), torch.from_numpy(shown.clouds[2].places))
    column, row, _ = geometry.project(back, torch.tensor(held["intrinsics"])).unbind(-1)
    seen = held["video"][2][row.floor().long().clamp(0, 63), column.floor().long().clamp(0, 63)]
    assert (seen == shown.clouds[2].colours).all(1).mean() > 0.95


def test_views_that_are_told_are_read_by_what_they_have(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, model = Store.open(made / "mazes"), checkpoint.load(made / "c").eval()

    def last(model: SpatialJEPA, held: torch.Tensor, motions: torch.Tensor) -> torch.Tensor:
        views = held[:, -1].unflatten(-1, model.latent_shape).clone()
        views[..., -model.untaught :] = 0.0  # as of any view that is told, nobody saw its colours
        return views.flatten(1)

    monkeypatch.setattr(places, "imagined", last)
    told = scene(store, 1, model).told
    assert told is not None
    assert told.depth is not None
    assert told.imagined_depth is not None
    np.testing.assert_allclose(told.imagined_depth[1:], told.depth[:-1], atol=1e-4)


def test_what_is_read_is_read_from_colours_alone_and_imagined_from_before(made: Path) -> None:
    store, model = Store.open(made / "mazes"), checkpoint.load(made / "c").eval()
    told = scene(store, 1, model).told
    assert told is not None
    assert told.depth is not None
    assert told.imagined_depth is not None
    assert np.isnan(told.imagined_depth[0]).all()
    assert np.isfinite(told.imagined_depth[1:]).all()
    held = store.arrays(1)
    true = held["depth"].reshape(STEPS, 16, 4, 16, 4).mean((2, 4))
    assert np.abs(told.depth - true).mean() < np.abs(true.mean() - true).mean()  # a maze's depth shows in the dark
    alone = Store.create(made / "alone", maze.EMBODIMENT, maze_walks.TRUTH)
    alone.append([store.read(1)])
    with pytest.raises(ValueError, match="3 frames are too few"):
        scene(alone, 0, model)


def test_a_sheet_is_written_once(ami, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.png"
    said = ami("view", made / "mazes", "--out", out, "--checkpoint", made / "c", "--episode", 1, "--json").document
    assert (said["frames"], said["read"]) == (STEPS, "2 other recordings")
    with_told = Image.open(out).size
    assert "already" in ami("view", made / "mazes", "--out", out).mistake
    for name in ("rooms", "clouds"):
        assert ami("view", made / name, "--out", tmp_path / f"{name}.png").code == 0
    assert Image.open(tmp_path / "rooms.png").size[1] < with_told[1]


def test_a_rerun_recording_holds_every_frame(ami, made: Path, tmp_path: Path) -> None:
    pytest.importorskip("rerun", reason="the extra 'view' is not installed")
    from rerun.chunk import RrdReader

    out = tmp_path / "s.rrd"
    said = ami("view", made / "mazes", "--out", out, "--checkpoint", made / "c", "--json").document
    assert said["points"] == STEPS * 4096
    rows: Counter[str] = Counter()
    for chunk in RrdReader(str(out)).stream():
        rows[str(chunk.entity_path)] += chunk.num_rows
    seen, read, imagined = (f"/world/camera/{name}" for name in ("seen", "read", "imagined"))
    each = ("/world/camera", "/world/points", f"{seen}/colours", f"{seen}/depth", f"{read}/depth")
    later = (f"{imagined}/colours", f"{imagined}/depth")
    still = ("/world/way", seen, read, imagined)  # the path, and the three cameras
    assert rows == dict.fromkeys(each, STEPS) | dict.fromkeys(later, STEPS - 1) | dict.fromkeys(still, 1)


def test_without_rerun_one_sentence_says_how_to_get_it(
    ami, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    said = ami("view", made / "mazes", "--out", tmp_path / "s.rrd").mistake
    assert "needs rerun" in said
    assert "openami[view]" in said
    assert list(tmp_path.iterdir()) == []


def test_of_a_report_the_store_beside_it_is_shown(ami, made: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "report.json").touch()
    assert "beside it" in ami("view", tmp_path, "--out", tmp_path / "s.png").mistake
    (tmp_path / "data" / "mazes").symlink_to(made / "mazes")
    assert ami("view", tmp_path, "--out", tmp_path / "s.png").code == 0


def test_what_cannot_be_shown_is_refused_in_a_sentence(ami, made: Path, tmp_path: Path) -> None:
    films = Store.create(tmp_path / "films", FILM)
    films.append([Episode(np.arange(3) * 0.1, np.zeros((3, 64, 64, 3), np.uint8))])
    out = tmp_path / "s.png"
    for words, why in (
        ((made / "mazes", "--out", tmp_path / "s.jpg"), "ends in .rrd"),
        ((made / "mazes", "--out", out, "--episode", 9), "there is no episode 9"),
        ((tmp_path / "films", "--out", out), "no depth, points or poses"),
        ((tmp_path / "nothing", "--out", out), "no such folder"),
        ((made / "clouds", "--out", out, "--checkpoint", made / "c"), "no colours with poses"),
    ):
        assert why in ami("view", *words).mistake
    assert not out.exists()
