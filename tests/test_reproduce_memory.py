"""What remembers is made from nothing by one command: a mind that explores and expects, and does no more."""

from dataclasses import replace
from pathlib import Path

import pytest

from ami.cli import reproduce
from ami.cli.show import Bars
from ami.evaluation import page
from ami.evaluation.benchmark import Suite
from ami.evaluation.suites import SUITES
from ami.evaluation.suites.layout import Layout
from ami.evaluation.suites.recall import Recall
from ami.evaluation.suites.shells import ShellGame
from ami.models import checkpoint
from ami.recipes.baby import SETTINGS
from ami.recipes.physics import PHYSICS
from ami.recipes.places import PLACES


def test_walks_and_shells_are_learned_by_one_checkpoint_and_asked_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(
        SETTINGS["baby"],
        physics=replace(PHYSICS, steps=2, retained_batch=2, leaps=0),
        places=replace(PLACES, steps=2, batch=2, clip=24),
        spatial=reproduce.CAPABILITIES["memory"].settings.spatial,
    )
    scale = replace(reproduce.CAPABILITIES["memory"], settings=settings, mazes=8, walk=24, cups=12)
    asked = ((Recall(ages=(4,), tour=20), 3), (Layout(steps=25, budget=5), 3), (ShellGame(1), 4))
    monkeypatch.setitem(SUITES, "memory", Suite("memory", asked))
    monkeypatch.setattr(page, "_curves", lambda curves: "")  # what takes longest of a report
    with Bars() as bars:
        report = reproduce.reproduce("memory", tmp_path / "out", 1, bars, scale=scale)
    names = {answer["benchmark"] for answer in report["results"]}
    assert {"recall/marker/age-4", "recall/walls", "recall/shell-game/swaps-1"} <= names
    game = next(answer for answer in report["results"] if answer["benchmark"] == "recall/shell-game/swaps-1")
    assert game["n"] == 4
    assert game["baselines"]["chance"]["value"] == pytest.approx(1 / 3)
    mind = checkpoint.load(tmp_path / "out" / "seed-0" / "run" / "checkpoint")
    assert set(mind.embodiments) == {"maze", "cups"}
