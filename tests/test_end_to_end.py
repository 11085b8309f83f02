"""The main job in small: walks are recorded, a model is trained on them, and it finds its way to pictures of goals."""

from dataclasses import replace

import pytest

from ami.data.episodes import Store
from ami.evaluation.benchmark import Asking
from ami.evaluation.suites import control
from ami.evaluation.suites.control import PLANNER, RoomsBenchmark
from ami.models import checkpoint
from ami.planning.costs import GoalDistance, Sum
from ami.recipes.baby import BabySettings, baby
from ami.training.run import train
from ami.types import WorldModel
from ami.worlds import rooms

PAIRS = 16
BENCHMARK = RoomsBenchmark(
    "fixed", planner=replace(PLANNER, samples=96, iterations=4, together=PAIRS), warm_iterations=2
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[WorldModel, WorldModel]:
    """A model trained for some twenty seconds, and the same one before that."""
    folder = tmp_path_factory.mktemp("end-to-end")
    store = Store.create(folder / "walks", rooms.EMBODIMENT, rooms.TRUTH)
    store.append(rooms.collect("fixed", 80, 64, seed=0))
    recipe = baby([store], 0, BabySettings(steps=160, refine=250, unsure=40, batch=32))
    return checkpoint.load(train(recipe, folder / "run")), recipe.build().eval()


def _reached(model: WorldModel) -> float:
    return float(BENCHMARK.plan(model, BENCHMARK.pairs(0, PAIRS), Asking()).reached.mean())


def test_it_finds_its_way_to_the_other_room(made: tuple[WorldModel, WorldModel]) -> None:
    trained, untrained = made
    others = BENCHMARK._baselines(trained, BENCHMARK.pairs(0, PAIRS), Asking())
    rivals = [_reached(untrained), others["random"].reached.mean(), others["zero-action"].reached.mean()]
    assert _reached(trained) >= max(rivals) + 0.3


def test_it_fails_where_it_seeks_what_it_should_avoid(
    made: tuple[WorldModel, WorldModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "GoalDistance", lambda *args, **held: Sum(((-1.0, GoalDistance(*args, **held)),)))
    assert _reached(made[0]) <= 0.2
