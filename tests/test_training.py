"""Training stops, goes on and is shared out without changing what is learned; the gauges see a collapse."""

import json
import multiprocessing
import os
import random
import signal
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ami.data.episodes import Store
from ami.data.loader import Loader
from ami.models import checkpoint
from ami.models.snapshot import load_state
from ami.objectives.prediction import Dynamics
from ami.recipes.baby import baby
from ami.training.gauges import effective_rank
from ami.training.loop import begin, fit
from ami.training.optim import Optimisation
from ami.training.perceived import PerceivedStore
from ami.training.run import Recipe, Tick, read_metrics, train
from ami.types import Clip, Objective, WorldModel
from tiny_stores import TINY, rooms_store
from two_processes import both

SETTINGS = replace(TINY, steps=12, refine=12)
TIMED = ("cpu_seconds", "seconds", "frames_per_second")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return rooms_store(tmp_path_factory.mktemp("training") / "rooms")


def _measured(folder: Path) -> list[dict[str, object]]:
    return [{k: v for k, v in row.items() if k not in TIMED} for row in read_metrics(folder)]


def _trained(store: Store, folder: Path) -> tuple[str, list[dict[str, object]]]:
    """What a run of its own, never disturbed, ends with."""
    done = train(baby([store], 1, SETTINGS), folder, save_every=3, log_every=1)
    return checkpoint.digest(done), _measured(folder)


# Stopping and going on


def _killed(store: Path, folder: Path, resume: bool, moment: int | None, delay: float) -> None:
    """Train, and be killed ``delay`` seconds after a step of the whole run, whatever is being done then."""
    before = {"perceive": 0, "refine": SETTINGS.steps}

    def watch(tick) -> None:
        if before[tick.stage] + tick.step == moment:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()

    train(baby([Store.open(store)], 1, SETTINGS), folder, resume=resume, save_every=3, log_every=1, watch=watch)


def test_a_run_that_is_killed_again_and_again_ends_as_one_that_was_not(store: Store, tmp_path: Path) -> None:
    digest, rows = _trained(store, tmp_path / "undisturbed")
    folder, chance, fork = tmp_path / "killed", random.Random(0), multiprocessing.get_context("fork")
    stages, deaths = set(), 0
    for moment in (1, 5, 9, 12, 13, 17, 22, 24, None):
        child = fork.Process(
            target=_killed, args=(store.folder, folder, folder.exists(), moment, chance.uniform(0, 0.01))
        )
        child.start()
        child.join(60)
        deaths += child.exitcode == -signal.SIGKILL
        if child.exitcode == -signal.SIGKILL and (folder / "latest.safetensors").is_file():
            stages.add(load_state(folder / "latest.safetensors")["stage"])
    assert child.exitcode == 0
    assert deaths >= 6
    assert stages == {0, 1}
    assert checkpoint.digest(folder / "checkpoint") == digest
    assert _measured(folder) == rows
    assert [row["step"] for row in rows] == list(range(1, 25))
    assert train(baby([store], 1, SETTINGS), folder, resume=True) == folder / "checkpoint"  # it is done: nothing to do


def test_another_seed_ends_elsewhere(store: Store, tmp_path: Path) -> None:
    ends = {checkpoint.digest(train(baby([store], seed, TINY), tmp_path / str(seed))) for seed in (1, 2)}
    assert len(ends) == 2


def test_a_folder_is_used_for_one_run(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(ValueError, match=r"there is no run in .* to resume"):
        train(baby([store], 1, TINY), folder, resume=True)
    train(baby([store], 1, TINY), folder)
    with pytest.raises(ValueError, match=r"already holds a run; go on with --resume"):
        train(baby([store], 1, TINY), folder)
    with pytest.raises(ValueError, match=r"another recipe, data or seed"):
        train(baby([store], 2, TINY), folder, resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"is not empty and holds no run"):
        train(baby([store], 1, TINY), tmp_path / "other")
    held = checkpoint.read_provenance(folder / "checkpoint")
    assert (held.recipe, held.seeds, held.steps) == ("baby", (1,), 12)
    assert held.data == {"two-rooms": store.digest}
    assert json.loads((folder / "recipe.json").read_text())["settings"]["batch"] == TINY.batch


def test_what_a_kill_leaves_in_a_new_folder_does_not_stop_the_run(store: Store, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".recipe.json.99.part").touch()
    train(baby([store], 1, TINY), tmp_path / "run", resume=True)


class Spoilt(Objective):
    """Dynamics, whose loss or gradient is no number from some step on."""

    def __init__(self, what: str, after: int) -> None:
        super().__init__()
        self.what, self.after, self.dynamics = what, after, Dynamics(2)

    def losses(self, model: WorldModel, clip: Clip, generator: torch.Generator) -> dict[str, Tensor]:
        self.after -= 1
        loss = self.dynamics.losses(model, clip, generator)["prediction"]
        if self.after >= 0:
            return {"fine": loss}
        if self.what == "loss":
            return {"fine": loss, "spoilt": loss * float("inf")}
        return {"spoilt": loss + (loss - loss.detach()).sqrt()}  # 0, with an infinite slope


@pytest.mark.parametrize(
    ("what", "said"), [("loss", "two-rooms/spoilt is not a number"), ("gradient", "the gradient is not a number")]
)
def test_it_stops_at_what_is_no_number_and_the_last_good_state_is_on_disk(
    store: Store, tmp_path: Path, what: str, said: str
) -> None:
    recipe = baby([store], 1, TINY)
    recipe = replace(recipe, stages=(replace(recipe.stages[0], objective=lambda model: Spoilt(what, 4)),))
    with pytest.raises(RuntimeError, match=f"step 4 of perceive: {said}"):
        train(recipe, tmp_path / "run", save_every=1)
    state = load_state(tmp_path / "run" / "latest.safetensors")
    assert state["progress"]["step"] == 4
    assert all(value.isfinite().all() for value in state["progress"]["model"].values())
    assert not (tmp_path / "run" / "checkpoint").exists()


# What is frozen, and what is perceived once


def _whole_stage(recipe: Recipe, number: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    model = recipe.build()
    nn.init.normal_(model.get_parameter("predictor.change.weight"), std=0.1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    list(fit(begin(model, recipe.stages[number], 0), recipe.stages[number], 0))
    return before, model.state_dict()


def test_frozen_parts_do_not_move_and_the_others_do(store: Store) -> None:
    recipe = baby([store], 1, TINY)
    # Stage 1 on pictures: its encoder is frozen, though it perceives anew at every step.
    frozen = replace(recipe.stages[1], loader=recipe.stages[0].loader)
    before, after = _whole_stage(replace(recipe, stages=(frozen,)), 0)
    for name, value in after.items():
        assert torch.equal(value, before[name]) == name.startswith("encoder"), name
    before, after = _whole_stage(recipe, 0)
    assert [name for name, value in after.items() if torch.equal(value, before[name])] == []


def test_a_stage_forgets_what_the_one_before_froze(store: Store) -> None:
    recipe = baby([store], 1, TINY)
    model = recipe.build()
    begin(model, recipe.stages[1], 0)
    assert not any(p.requires_grad for p in model.get_submodule("encoder").parameters())
    begin(model, recipe.stages[0], 0)
    assert all(p.requires_grad for p in model.parameters())
    with pytest.raises(AttributeError, match="encodre"):
        begin(model, replace(recipe.stages[1], frozen=("encodre",)), 0)


def test_perceived_clips_are_what_the_model_sees(store: Store) -> None:
    model = baby([store], 1, TINY).build().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    perceived = PerceivedStore(store, model, (2, 5))
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    index = np.array([[5, 3], [2, 0], [5, 16]])
    pictures, latents = store.clips(index, 4), perceived.clips(index, 4)
    assert latents.video is None
    assert torch.equal(latents.actions, pictures.actions)
    assert torch.equal(latents.times, pictures.times)
    torch.testing.assert_close(latents.latents, model.eval().encode(pictures).values, rtol=1e-5, atol=1e-5)
    assert set(perceived.windows(20)[:, 0]) == {2, 5}


def test_a_stage_that_goes_on_is_built_from_what_it_began_with(store: Store, tmp_path: Path) -> None:
    recipe, sums = baby([store], 1, replace(TINY, steps=2, refine=4)), []
    first, second = recipe.stages[:2]

    def noted(model: WorldModel) -> Loader:
        sums.append(sum(float(p.detach().sum()) for p in model.parameters()))
        return second.loader(model)

    def stop(tick: Tick) -> None:
        if (tick.stage, tick.step) == ("refine", 3):
            raise KeyboardInterrupt

    recipe = replace(recipe, stages=(first, replace(second, loader=noted)))
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "run", save_every=2, watch=stop)
    train(recipe, tmp_path / "run", save_every=2, resume=True)
    assert sums == [sums[0]] * 2


# Several processes


def on_each(rank: int) -> dict[str, Tensor]:
    folder = Path(os.environ["AMI_TEST_FOLDER"])
    return _after_a_run(Store.open(folder / "rooms"), folder / "run")


def _after_a_run(store: Store, folder: Path) -> dict[str, Tensor]:
    # With its usual epsilon Adam makes whole steps of gradients that are mere rounding: a bias before a normalisation
    # has no other.
    calm = Optimisation(warmup=1, epsilon=1e-3)
    settings = replace(TINY, steps=2, refine=2, views=2, optimisation=calm, refine_optimisation=calm)
    recipe = baby([store], 1, settings)
    model = recipe.build()
    train(replace(recipe, build=lambda: model), folder)
    return dict(model.state_dict())


def test_two_processes_end_with_the_weights_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = _after_a_run(rooms_store(tmp_path / "rooms"), tmp_path / "alone")
    monkeypatch.setenv("AMI_TEST_FOLDER", str(tmp_path))
    two = both(on_each)
    new = baby([Store.open(tmp_path / "rooms")], 1, TINY).build().state_dict()
    for name, value in alone.items():
        assert torch.equal(two[0][name], two[1][name]), f"the ranks drift apart in {name}"
        torch.testing.assert_close(two[0][name], value, rtol=0, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    assert (alone["encoder.read.two-rooms.weight"] - new["encoder.read.two-rooms.weight"]).abs().max() > 1e-3
    assert len(read_metrics(tmp_path / "run")) == len(read_metrics(tmp_path / "alone"))
    assert checkpoint.load(tmp_path / "run" / "checkpoint").embodiments


# The optimiser and the gauges


def test_the_rate_rises_and_falls_to_zero() -> None:
    rates = [Optimisation(rate=1.0, warmup=10).rate_at(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert np.argmax(rates) == 9
    assert rates[50] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.0, abs=1e-3)


def test_only_matrices_decay() -> None:
    matrix, vector = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    optimiser = Optimisation(rate=0.1, weight_decay=0.5).build([matrix, vector])
    matrix.grad, vector.grad = torch.zeros(2, 2), torch.zeros(2)
    optimiser.step()
    assert torch.equal(vector, torch.ones(2))
    torch.testing.assert_close(matrix.detach(), torch.full((2, 2), 0.95))


def test_the_effective_rank_has_closed_forms() -> None:
    basis = torch.linalg.qr(torch.randn(50, 5, generator=torch.Generator().manual_seed(0)))[0]
    basis = torch.linalg.qr(basis - basis.mean(0))[0]
    assert effective_rank(basis) == pytest.approx(5, rel=1e-6)
    assert effective_rank(basis[:, :1] * torch.tensor([1.0, -2.0, 3.0])) == pytest.approx(1, rel=1e-4)
    assert effective_rank(torch.ones(9, 4)) == pytest.approx(1, rel=1e-4)
    share = np.array([0.7, 0.2, 0.1])
    skewed = effective_rank(basis[:, :3] * torch.tensor(share) + 100)
    assert skewed == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-6)


def test_advice_and_gauges_reach_who_watches(store: Store, tmp_path: Path) -> None:
    ticks = []
    train(baby([store], 1, replace(TINY, steps=2, refine=1)), tmp_path / "run", watch=ticks.append)
    assert [(tick.stage, tick.step, tick.steps) for tick in ticks] == [
        ("perceive", 1, 2),
        ("perceive", 2, 2),
        ("refine", 1, 1),
    ]
    assert "two-rooms/gauge/probe" in ticks[1].measured
    assert "two-rooms/gauge/probe" not in ticks[0].measured
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [2, 3]
