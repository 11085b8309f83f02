"""One command trains one checkpoint and asks it all that planning is asked; rooms alone where MuJoCo is missing."""

from dataclasses import replace
from pathlib import Path

import pytest

from ami.cli import reproduce
from ami.cli.show import Bars
from ami.evaluation.suites import SUITES
from ami.models import checkpoint

SCALE = reproduce.CAPABILITIES["plan"]
ROOMS = ("fixed/cross-room", "door/cross-room", "wall/cross-room", "wall/distance-100", "sealed", "reachable")
WORLDS = ("push-t/lewm", "reacher/lewm", "point-maze/lewm", "cube/lewm", "point-maze/distance-100")


def _asked(suite: str) -> set[str]:
    return {each.name for each, _ in SUITES[suite].asked}


def test_what_is_asked_depends_on_the_simulators_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms = {f"two-rooms/{name}" for name in (*ROOMS, "guardrails")}
    monkeypatch.setattr(reproduce, "find_spec", lambda name: name)
    scale, notes = reproduce.at_hand(SCALE)
    assert (scale, notes) == (SCALE, ())
    assert _asked(scale.suite) == rooms | set(WORLDS)
    assert {world for world, _ in scale.tasks} == {name.split("/")[0] for name in WORLDS}
    monkeypatch.setattr(reproduce, "find_spec", lambda name: None)
    scale, (note,) = reproduce.at_hand(SCALE)
    assert not scale.tasks
    assert _asked(scale.suite) == rooms
    assert "push-t and reacher and point-maze and cube" in note


def test_one_checkpoint_learns_rooms_and_tasks(tmp_path: Path) -> None:
    pytest.importorskip("gym_pusht", reason="needs the extra 'worlds'")
    settings = replace(SCALE.settings, steps=2, refine=2, reach=2, unsure=1, batch=8, enough=100)
    scale = replace(SCALE, settings=settings, episodes=12, steps=33, tasks=(("push-t", 2),), suite="no-plan", n=2)
    with Bars() as bars:
        report = reproduce.reproduce("plan", tmp_path / "out", 1, bars, scale=scale)
    model = checkpoint.load(tmp_path / "out" / "seed-0" / "run" / "checkpoint")
    assert set(model.embodiments) == set(model.reaches) == {"two-rooms", "push-t"}
    assert {answer["benchmark"] for answer in report["results"]} == {"two-rooms/sealed", "two-rooms/reachable"}
    assert report["cpu_seconds"]["collect"] > 0
