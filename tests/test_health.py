"""What goes wrong in a training is said with its step, its meaning and what to try; what goes well is left in peace."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ami.data.episodes import Store
from ami.data.loader import Loader, Source
from ami.models import checkpoint
from ami.models.vjepa import VJEPA, VJEPAConfig
from ami.objectives.masked import Masked, MaskedSettings
from ami.objectives.masks import Grid, Mask, Slots
from ami.objectives.points import PointSettings
from ami.recipes.common import gauge_clips
from ami.training.gauges import gauge
from ami.training.health import Ailment, examine, history
from ami.training.loop import Stage, drawn_from
from ami.training.optim import Optimisation
from ami.training.run import Recipe, read_metrics, train
from ami.types import Clip, Embodiment, Latent, Objective, WorldModel
from ami.worlds import films

SMALL = VJEPAConfig(
    embodiments={films.EMBODIMENT.name: films.EMBODIMENT},
    stem="pieces",
    width=32,
    depth=1,
    heads=2,
    predictor_width=16,
    predictor_depth=1,
    predictor_heads=2,
    slots=4,
)
WELL = MaskedSettings(masks=(Slots(2),), momentum=0.9)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store.create(tmp_path_factory.mktemp("health") / "s", films.EMBODIMENT, films.TRUTH)
    made.append(films.collect(40, 8, seed=2))
    return made


def recipe(store: Store, objective: MaskedSettings, steps: int, rate: float, gauge_every: int) -> Recipe:
    def build() -> VJEPA:
        with drawn_from(0):
            return VJEPA(SMALL)

    stage = Stage(
        "watch",
        steps,
        lambda model: Masked(model, objective),
        lambda model: Loader([Source(store, 4, 8, 2)], 0),
        Optimisation(rate=rate, warmup=2),
        gauge_every=gauge_every,
        gauge_clips=gauge_clips({films.EMBODIMENT.name: store}, {films.EMBODIMENT.name: range(16)}, 4, 2),
    )
    return Recipe("video", {}, {}, 0, build, (stage,))


def warned(
    store: Store, folder: Path, objective: MaskedSettings, steps: int = 4, rate: float = 1e-3, gauge_every: int = 2
) -> tuple[str, ...]:
    """What the papers of a checkpoint say of its training."""
    return checkpoint.read_provenance(train(recipe(store, objective, steps, rate, gauge_every), folder)).warnings


def test_a_healthy_run_gives_no_warning_and_every_gauge(store: Store, tmp_path: Path) -> None:
    assert warned(store, tmp_path / "run", WELL, steps=60, gauge_every=10) == ()
    rows = read_metrics(tmp_path / "run")
    of_latents = {f"drawn-film/gauge/{name}" for name in ("rank_0", "deviation_0", "probe")}
    of_objective = {f"gauge/{name}" for name in ("teacher_distance", "teacher_beginning", "mask_ratio_0")}
    assert all(of_latents | of_objective <= set(row) for row in rows)
    assert not any("warnings" in row for row in rows)


def test_a_collapse_is_named_with_its_step(store: Store, tmp_path: Path) -> None:
    """A student that is its own teacher makes all films alike, and the mistake is seen when it happens."""
    ticks = []
    settings = replace(WELL, momentum=0.0)
    done = train(recipe(store, settings, 60, 1e-2, 10), tmp_path / "run", watch=ticks.append)
    rows = read_metrics(tmp_path / "run")
    name = "drawn-film/gauge/deviation_0"
    first = next(row["step"] for row in rows if row.get(name, 1.0) < 0.1)
    said = checkpoint.read_provenance(done).warnings
    (collapse,) = (each for each in said if "collapsed" in each)
    assert collapse.startswith(f"features collapsed at step {first}: deviation_0 of 'drawn-film' is 0.0")
    assert "all that it sees looks alike" in collapse
    assert "raise the weight of a regulariser" in collapse
    assert any("student's double" in each for each in said)
    (tick,) = (tick for tick in ticks if tick.step == first)
    assert collapse in tick.advice
    assert [each["gauge"] for row in rows if row["step"] == first for each in row["warnings"]].count(name) == 1


def test_a_teacher_that_does_not_follow_is_named(store: Store, tmp_path: Path) -> None:
    said = warned(store, tmp_path / "run", replace(WELL, momentum=0.9999))
    assert [each.split(":")[0] for each in said] == ["the teacher does not follow at step 2"]  # half of the four steps
    assert "100% of it is still what it began with when 50% of the stage is over" in said[0]
    assert "lower the teacher's momentum" in said[0]


def test_a_teacher_that_is_left_behind_is_named(store: Store, tmp_path: Path) -> None:
    said = warned(store, tmp_path / "run", replace(WELL, momentum=0.99), steps=10, rate=0.1, gauge_every=5)
    assert any(each.startswith("the teacher lost its student at step 5: they are ") for each in said)


def test_a_student_that_stands_still_is_named(store: Store, tmp_path: Path) -> None:
    said = warned(store, tmp_path / "run", replace(WELL, momentum=0.5), rate=0.0)
    assert any("the teacher is its student's double at step 2: they are 0 apart" in each for each in said)


@dataclass(frozen=True)
class Few:
    """Hide, or show, so few tokens of all."""

    hidden: int

    def draw(self, batch: int, grid: Grid, generator: torch.Generator) -> Mask:
        order = torch.rand(batch, grid.slots * grid.tokens, generator=generator).argsort(1)
        return Mask(order[:, self.hidden :].sort(1).values, order[:, : self.hidden].sort(1).values)


@pytest.mark.parametrize(
    ("hidden", "said"), [(1, r"1\.6% of .* too little: .* copied"), (63, r"98\.4% of .* too much: .* left to see")]
)
def test_masks_that_hide_nothing_or_everything_are_named(store: Store, tmp_path: Path, hidden: int, said: str) -> None:
    settings: Any = replace(WELL, momentum=0.5, masks=(Slots(2), Few(hidden)))  # 4 slots of 16 tokens
    (found,) = warned(store, tmp_path / "run", settings)
    assert re.fullmatch(rf"masks out of bounds at step 2: {said}.*", found)
    assert "mask_ratio_1" in found


def test_points_need_not_tell_tokens_apart_as_targets_do() -> None:
    model = VJEPA(SMALL.model_copy(update={"points": 2}))
    pointing = replace(WELL, masked=0.0, momentum=None, points=PointSettings())
    for deviation, settings, many in ((0.05, WELL, 1), (0.05, pointing, 0), (0.005, pointing, 1)):
        found = examine(
            {"drawn-film/gauge/deviation_0": deviation}, model, Masked(model, settings), clips={"drawn-film": 9}
        )
        assert len(found) == many


def test_what_went_away_is_said_to_have_gone() -> None:
    def row(step: int, *ails: str) -> dict[str, Any]:
        held = [asdict(Ailment(f"gauge/{name}", f"{name} is bad", f"it is {step}; rest")) for name in ails]
        return {"step": step, "gauge/a": 1.0, "gauge/b": 2.0, "loss": 0.5} | ({"warnings": held} if held else {})

    rows = [row(100), row(200, "a"), {"step": 210, "loss": 1.0}, row(300, "b", "a"), row(400, "b"), row(500, "b")]
    assert history(rows) == (
        "a is bad at step 200: it is 200; rest (it was well again at step 400)",
        "b is bad at step 300: it is 300; rest",
    )
    assert history([row(100), row(200)]) == ()


class Seer(WorldModel):
    """Perceives its clip's truth through a matrix, in as many tokens as there are places."""

    embodiments: Mapping[str, Embodiment] = {"toy": Embodiment("toy", 1.0)}

    def __init__(self, through: Tensor, places: Tensor | None = None) -> None:
        super().__init__()
        self.through, self.places = through, torch.zeros(1, through.shape[1]) if places is None else places
        self.latent_shape = len(self.places), through.shape[1]

    def encode(self, clip: Clip) -> Latent:
        assert clip.truth is not None
        return Latent((clip.truth @ self.through)[:, :, None] + self.places, clip.times)


def judged(model: Seer) -> tuple[dict[str, float], list[str]]:
    truth = torch.randn(16, 10, 4, generator=torch.Generator().manual_seed(0))
    found = gauge(model, Clip("toy", torch.zeros(16, 10), truth=truth))
    said = examine({f"toy/gauge/{name}": value for name, value in found.items()}, model, Objective(), clips={"toy": 16})
    return found, [each.at(7) for each in said]


def test_gauges_see_a_collapse() -> None:
    healthy, said = judged(Seer(torch.eye(4)))
    assert healthy["rank_0"] > 3.9
    assert healthy["deviation_0"] == pytest.approx(1.0, abs=0.1)
    assert healthy["probe"] < 0.01
    assert said == []
    flat, said = judged(Seer(torch.eye(4)[:, :1].repeat(1, 12)))
    assert flat["rank_0"] == pytest.approx(1.0, abs=0.01)
    assert flat["probe"] == pytest.approx(0.75 * 0.8, abs=0.12)  # three quantities of four can only be guessed
    assert [each.split(":")[0] for each in said] == ["features flattened at step 7"]
    assert "use 1.0 of 12 dimensions (rank_0) where 2.0 or more are healthy" in said[0]
    still, said = judged(Seer(torch.zeros(4, 4)))
    assert still["deviation_0"] == 0.0
    assert any("features collapsed at step 7: deviation_0 of 'toy' is 0.000" in each for each in said)


def test_tokens_that_only_say_where_they_are_have_collapsed() -> None:
    places = 3 * torch.randn(9, 12, generator=torch.Generator().manual_seed(1))
    blind, said = judged(Seer(torch.zeros(4, 12), places))
    assert blind["deviation_0"] < 1e-6
    assert any("features collapsed" in each for each in said)
    seeing, said = judged(Seer(torch.eye(4, 12), places))
    assert seeing["rank_0"] == pytest.approx(4, abs=0.1)
    assert said == []


def test_what_nobody_teaches_hides_no_collapse() -> None:
    model = Seer(torch.cat([torch.zeros(4, 4), 5 * torch.eye(4)], 1))
    assert judged(model)[1] == []
    model.untaught = 4
    found, said = judged(model)
    assert found["deviation_0"] == 0.0
    assert found["probe"] < 0.05  # what can be read out can be read out of all
    assert any("features collapsed" in each for each in said)


def test_each_embodiment_is_judged_by_itself() -> None:
    measured = {"toy/gauge/deviation_0": 0.01, "robot/gauge/deviation_0": 1.0, "toy/prediction": 0.0}
    (said,) = examine(measured, Seer(torch.eye(4)), Objective(), clips={"toy": 9, "robot": 9})
    assert said.gauge == "toy/gauge/deviation_0"


def test_of_two_films_nobody_can_say_how_many_dimensions_they_need() -> None:
    for count, many in ((3, 0), (16, 1)):
        found = examine({"toy/gauge/rank_0": 1.4}, Seer(torch.eye(4, 12)), Objective(), clips={"toy": count})
        assert len(found) == many
