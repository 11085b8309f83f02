"""The figures of spatial data are made from nothing by one command, each beside the twins that lack something."""

from dataclasses import replace
from pathlib import Path

import pytest

from ami.cli import demo, reproduce
from ami.cli.show import Bars
from ami.evaluation import page
from ami.evaluation.benchmark import Suite
from ami.evaluation.suites import SUITES, real_places, spatial
from ami.models.checkpoint import read_provenance
from ami.recipes.spatial import SPATIAL
from recorded_rooms import walk, write_tum

TINY = replace(spatial.MAZE, learn=6, steps=4, among=4, probe_steps=3)
SCALE = replace(
    reproduce.CAPABILITIES["spatial"],
    settings=replace(SPATIAL, steps=2, measures=2, clip=3, batch=2),
    mazes=6,
    walk=6,
    n=4,
)
TWINS = {"untrained", "spatial-colours", "spatial-shuffled"}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without MuJoCo, wherever this runs, and with few questions."""
    monkeypatch.setattr(reproduce, "find_spec", lambda name: None)
    monkeypatch.setitem(SUITES, "spatial-maze-4-recorded", Suite("tiny", ((TINY, 4), *real_places.ASKED), True))
    monkeypatch.setitem(reproduce.CAPABILITIES, "spatial", SCALE)
    monkeypatch.setattr(page, "_curves", lambda curves: "")  # what takes longest of a report


def test_figures_stand_beside_twins_that_were_trained_alike(ami, tmp_path: Path) -> None:
    room, out = write_tum(tmp_path / "rooms" / "one", walk()).parent, tmp_path / "out"
    report = ami("reproduce", "spatial", "--data", room, "--out", out, "--json").document["report"]
    asked = {answer["benchmark"]: set(answer["baselines"]) for answer in report["results"]}
    wanted = {"depth-from-rgb", "relative-pose", "ego-motion", "cross-modal", "queried-view"}
    assert asked.keys() == {f"spatial/{name}" for name in wanted} | {"real/rgb-to-depth", "real/queried-view"}
    assert all(rivals >= TWINS for rivals in asked.values())
    papers = [read_provenance(out / "seed-0" / name / "checkpoint") for name in ("run", *SCALE.rivals)]
    assert {each.steps for each in papers} == {4}  # the twin from colours has more of one stage in place of two
    assert len({tuple(each.data.items()) for each in papers}) == 1
    assert papers[0].data.keys() == {"maze"}  # what was recorded in the room is asked about, and never learned from
    assert any("MuJoCo" in note for note in report["notes"])
    assert sum("CPU-seconds (4 steps)" in note for note in report["notes"]) == 2


def test_with_mujoco_the_table_is_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproduce, "find_spec", lambda name: name)
    scale, notes = reproduce.at_hand(SCALE)
    assert (scale.tabletop, scale.suite, notes) == (1200, "spatial-5", ())
    maze, table, *_ = (each.name for each, _ in SUITES[scale.with_films].asked)
    assert (maze.split("/")[0], table.split("/")[0]) == ("spatial", "tabletop")
    assert table.endswith("spatial/(position, velocity, yaw)")


def test_folders_are_known_by_what_lies_in_them(tmp_path: Path) -> None:
    write_tum(tmp_path / "rooms" / "one", walk())
    assert demo._sorted([tmp_path / "rooms"]) == {"rgbd": [tmp_path / "rooms" / "one"]}


def test_a_demo_that_asks_nothing_about_depth_says_so_before_it_trains(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    for name in ("rgb.txt", "depth.txt"):
        (tmp_path / "room" / name).write_text("")
    with pytest.raises(ValueError, match="room has depth, about which this asks nothing"), Bars() as bars:
        demo.demo(demo.Request(tmp_path / "out", [tmp_path / "room"]), bars)
