"""Every recipe computes where its model lies: no tensor is left behind on the CPU, which a GPU would refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ami import parallel
from ami.cli.training import settings_of
from ami.models import checkpoint
from ami.recipes import RECIPES
from ami.recipes.physics import PhysicsSettings
from ami.recipes.places import PlacesSettings
from ami.recipes.slots import SlotsSettings
from ami.recipes.spatial import SpatialSettings
from ami.training.run import Recipe, Tick, read_metrics, train
from elsewhere import GPU, Elsewhere, put
from tiny_stores import TINY, film_store, game_store, life_store, maze_store, rooms_store

MADE = {
    "baby": (rooms_store, replace(TINY, enough=100, reach=2, reach_batch=8)),
    "video": (film_store, TINY.films),
    "physics": (life_store, PhysicsSettings(steps=2, batch=2, leaps=2, precision="fp32")),
    "slots": (life_store, SlotsSettings(notice=2, notice_batch=2, steps=2, batch=2, precision="fp32")),
    "retention": (game_store, PhysicsSettings(steps=2, batch=2, retained_batch=2, leaps=0, precision="fp32")),
    "tiny video": (film_store, replace(settings_of("video", "tiny", 2), picture=64, batch=2, precision="fp32")),
    "places": (maze_store, PlacesSettings(steps=2, batch=2, clip=12, precision="fp32")),
    "spatial": (maze_store, SpatialSettings(steps=2, measures=2, batch=2, precision="fp32")),
}


@pytest.fixture(params=MADE)
def recipe(request: pytest.FixtureRequest, tmp_path: Path) -> Recipe:
    make, settings = MADE[request.param]
    name = {"retention": "physics", "tiny video": "video"}.get(request.param, request.param)
    return RECIPES[name]([make(tmp_path / "store")], 0, settings)


@pytest.mark.filterwarnings("ignore:User provided device_type of 'cuda'")
def test_every_stage_of_every_recipe_computes_where_the_model_lies(recipe: Recipe) -> None:
    model = recipe.build()
    for stage in recipe.stages:
        with Elsewhere():
            put(model)
            objective = put(stage.objective(model))
            assert parallel.device_of(model) == GPU
            for clip in stage.loader(model).batch(0):
                losses = objective.losses(model.train(), clip.to(GPU), torch.Generator().manual_seed(0))
                assert losses
                assert all(loss.device == GPU for loss in losses.values())
            objective.after_step(model)
            objective.gauges(model)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_gpu_learns_what_the_cpu_does_also_when_it_is_stopped(recipe: Recipe, tmp_path: Path) -> None:
    def stop(tick: Tick) -> None:
        if tick.step == 2:
            raise KeyboardInterrupt

    train(recipe, tmp_path / "cpu", log_every=1)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "gpu", log_every=1, save_every=1, watch=stop, device="cuda")
    done = train(recipe, tmp_path / "gpu", log_every=1, resume=True, device="cuda")
    rows = zip(read_metrics(tmp_path / "cpu"), read_metrics(tmp_path / "gpu"), strict=True)
    for one, other in rows:
        told = [name for name in one if "/" in name and "gauge/" not in name]
        assert [other[name] for name in told] == pytest.approx([one[name] for name in told], rel=0.05, abs=0.02)
    assert checkpoint.read_provenance(done).device == torch.cuda.get_device_name()


def test_the_pretended_gpu_refuses_what_a_real_one_would() -> None:
    with Elsewhere():
        far, near = torch.ones(3).to(GPU), torch.ones(3)
        assert (far * 2 + torch.tensor(1.0)).device == GPU
        assert far[torch.tensor([0])].device == GPU
        assert (far.cpu() + near).device.type == "cpu"
        for wrong in (lambda: far + near, lambda: near[far.long()], lambda: far.numpy()):
            with pytest.raises(AssertionError, match="GPU"):
                wrong()


def test_a_device_that_is_not_there_is_refused() -> None:
    assert parallel.device("cpu").type == "cpu"
    if not torch.cuda.is_available():
        assert parallel.device("auto").type == "cpu"
        with pytest.raises(ValueError, match="finds no GPU; choose cpu or auto"):
            parallel.device("cuda")
