"""What a cell's latent carries besides what it learned, and how motions are measured once latents stand still."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ami.cli.training import settings_of
from ami.data.camera import CAMERA, Cameras
from ami.data.episodes import Store
from ami.evaluation import places
from ami.models import checkpoint
from ami.models.spatial import SpatialConfig, SpatialJEPA, sized
from ami.objectives.across import AcrossSettings, Moved
from ami.recipes.physics import PhysicsSettings
from ami.recipes.spatial import SPATIAL, SpatialSettings, spatial, spatial_colours
from ami.recipes.walks import WalkStore
from ami.training.run import train
from ami.types import Belief, Clip, Latent
from tiny_stores import maze_store

FEW = replace(SPATIAL, steps=2, measures=3, clip=4, batch=2, precision="fp32")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return maze_store(tmp_path_factory.mktemp("maze") / "store", 8, 8, seed=5)


@pytest.fixture(scope="module")
def cameras(store: Store) -> Cameras:
    return Cameras((store,))


@pytest.fixture(scope="module")
def clip(cameras: Cameras) -> Clip:
    return cameras.clips(np.array([[episode, 0] for episode in range(4)]), 5)


def model() -> SpatialJEPA:
    torch.manual_seed(0)
    return SpatialJEPA(sized({CAMERA.name: CAMERA})).eval()


@torch.no_grad()
def test_a_cell_carries_its_colours_at_half_resolution(clip: Clip) -> None:
    made = model()
    assert clip.video is not None
    values = made.encode(replace(clip, depth=None)).values
    cell = clip.video[2, 3, 0, :, 8:16, 24:32].float()  # the second row of cells, the fourth of its line
    half = torch.nn.functional.avg_pool2d((cell - 127.5) / 64, 2)
    torch.testing.assert_close(values[2, 3, 8 + 3, 48:], half.flatten())
    assert not made.encode(replace(clip, video=None)).values[..., 48:].any(), "nobody saw colours"
    assert made.latent_shape == (64, 48 + made.untaught)
    assert made.untaught == 48


@torch.no_grad()
def test_what_is_carried_neither_compares_nor_foretells_views(clip: Clip) -> None:
    made = model()
    seen = made.encode(clip)
    other = Latent(torch.cat([seen.values[..., :48], torch.randn_like(seen.values[..., 48:])], -1), seen.times)
    beliefs = [made.believe(None, each.between(0, 3), clip.actions[:, :2], CAMERA.name) for each in (seen, other)]
    assert all(isinstance(each, Belief) for each in beliefs)
    one, two = (made.predict(each, clip.actions[:, 2:], 2).values for each in beliefs)
    assert torch.equal(one, two)
    assert not one[..., 48:].any(), "views that are told have no colours"
    energies = [made.energy(beliefs[0], clip.actions[:, 2:], each.between(3, 5)) for each in (seen, other)]
    assert torch.equal(*energies)
    assert torch.equal(*(made.measure(each.values, each.values[:, :2]) for each in (seen, other)))
    taught = places.compared(made, seen.values.flatten(2))
    assert torch.equal(taught, seen.values[..., :48].flatten(2))


def test_models_from_before_carry_nothing() -> None:
    made = SpatialJEPA(SpatialConfig(embodiments={CAMERA.name: CAMERA}))
    assert (made.latent_shape, made.untaught) == ((64, 48), 0)


@torch.no_grad()
@pytest.mark.parametrize("colours", [0.0, 1.0])
def test_walks_are_perceived_once_by_colours_or_by_all_senses(cameras: Cameras, colours: float) -> None:
    made = model()
    walks = WalkStore(cameras, made, (1, 4, 6), colours=colours, seed=0)
    index = np.array([[4, 2], [1, 0]])
    assert set(walks.windows(4)[:, 0]) == {1, 4, 6}
    clip, true = walks.clips(index, 4), cameras.clips(index, 4)
    seen = made.encode(replace(true, depth=None, points=None) if colours else true).values[..., :48]
    assert clip.latents is not None
    torch.testing.assert_close(clip.latents, seen, atol=2e-3, rtol=2e-3)
    assert clip.pose is not None
    assert true.pose is not None
    assert torch.equal(clip.pose, true.pose)
    assert torch.equal(clip.times, true.times)


def test_motions_are_learned_of_latents_that_stand_still(cameras: Cameras) -> None:
    made = model()
    walks = WalkStore(cameras, made, range(8), colours=0.5, seed=0)
    clip = walks.clips(np.array([[episode, 1] for episode in range(8)]), 5)
    objective, optimiser = Moved(views=1.0), torch.optim.Adam(made.parameters(), 2e-3)
    first: dict[str, float] = {}
    losses: dict[str, torch.Tensor] = {}
    for _ in range(40):
        losses = objective.losses(made.train(), clip, torch.Generator().manual_seed(1))
        assert set(losses) == {"motion", "view"}
        first = first or {name: float(loss.detach()) for name, loss in losses.items()}
        optimiser.zero_grad()
        sum(losses.values(), torch.zeros(())).backward()
        optimiser.step()
    assert losses["motion"] < 0.8 * first["motion"]
    assert losses["view"] < 0.9 * first["view"]
    assert all(p.grad is None for p in made.encoder.parameters()), "what was perceived teaches no eye"
    assert set(Moved(views=0.0).losses(made, clip, torch.Generator())) == {"motion"}
    shuffled = Moved(AcrossSettings(shuffled=True), views=0.0)
    honest, wrong = (
        float(each.losses(made, clip, torch.Generator().manual_seed(1))["motion"].detach())
        for each in (Moved(views=0.0), shuffled)
    )
    assert wrong > honest, "poses of other walks were believed"


def test_the_last_stage_leaves_what_is_perceived_as_it_was(store: Store, tmp_path: Path) -> None:
    kept = {
        measures: checkpoint.load(train(spatial([store], 3, replace(FEW, measures=measures)), tmp_path / str(measures)))
        for measures in (0, 3)
    }
    before, after = (each.state_dict() for each in kept.values())
    changed = {name.split(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed <= {"apart", "elsewhere"}
    assert "apart" in changed


def test_the_twin_has_as_many_seconds_and_measures_nothing(store: Store) -> None:
    for steps, measures, wanted in ((SPATIAL.steps, SPATIAL.measures, 10_500), (100, 0, 144)):
        (only,) = spatial_colours([store], 0, replace(FEW, steps=steps, measures=measures)).stages
        assert (only.name, only.steps) == ("places", wanted)


def test_steps_are_shared_out_among_the_stages_of_a_recipe() -> None:
    space, physics = settings_of("spatial", steps=101), settings_of("physics", steps=90)
    assert isinstance(space, SpatialSettings)
    assert isinstance(physics, PhysicsSettings)
    assert (space.steps, space.measures) == (51, 50)
    assert (physics.steps, physics.leaps) == (30, 60)
    with pytest.raises(ValueError, match="1 steps were asked for; at least 2 are needed, one for each stage"):
        settings_of("physics", steps=1)


@torch.no_grad()
def test_a_motion_is_read_there_and_back(clip: Clip) -> None:
    made = model()
    torch.nn.init.normal_(made.apart.net[-1].weight, std=0.2)
    views = made.encode(clip).values
    both = [(made.taught(part), made.lying(part)) for part in (views[:, :2], views[:, 3:])]
    one = made._read(*both) @ made._read(*reversed(both)).transpose(1, 2)
    mean = made.measure(views[:, :2], views[:, 3:]) @ made.measure(views[:, 3:], views[:, :2]).transpose(1, 2)
    assert mean.shape == (4, 2, 2, 4, 4)
    off, before = ((each - torch.eye(4)).abs().amax() for each in (mean, one))
    assert off < 0.2 * before, "there and back is not where one was"
