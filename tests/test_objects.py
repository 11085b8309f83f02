"""A model of objects: what it may feel of its neighbours, and that it learns what gravity and a floor do."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ami.data.episodes import Episode, Store
from ami.models import checkpoint
from ami.models.contract import check
from ami.models.objects import ObjectModel, ObjectsConfig
from ami.nn.objects import BALL, HALF, JOINT, MOVES, PLACE, RADIUS, REMOVABLE, SPIN, THERE, VELOCITY, mirrored
from ami.objectives.motion import Motion
from ami.recipes.objects import ObjectSettings, objects
from ami.training.loop import begin, fit
from ami.types import Belief, Clip, Embodiment, Latent
from ami.worlds.iphyre import NUMBERS

BODY = Embodiment("blocks", 0.1, (0.0,) * 4, (1.0,) * 4)
FLOOR = 400.0


def scene(*bodies: Tensor) -> Tensor:
    """Up to four bodies; the rest is not there."""
    told = torch.zeros(4, 15)
    for place, body in enumerate(bodies):
        told[place] = body
    return told


def ball(x: float, y: float, speed: float = 0.0, joint: int = 0) -> Tensor:
    told = torch.zeros(15)
    told[PLACE], told[VELOCITY] = torch.tensor([x, y]), torch.tensor([0.0, speed])
    told[RADIUS], told[THERE], told[MOVES], told[BALL], told[JOINT] = 20.0, 1.0, 1.0, 1.0, joint
    return told


def block(x: float, y: float, half: float = 100.0, removable: bool = False, joint: int = 0) -> Tensor:
    told = torch.zeros(15)
    told[PLACE], told[HALF] = torch.tensor([x, y]), torch.tensor([half, 0.0])
    told[RADIUS], told[THERE], told[REMOVABLE], told[JOINT] = 10.0, 1.0, float(removable), joint
    return told


@pytest.fixture
def model() -> ObjectModel:
    """Of random weights that are large enough to be felt."""
    torch.random.default_generator.manual_seed(0)
    made = ObjectModel(ObjectsConfig(embodiments={BODY.name: BODY}, width=16)).eval()
    with torch.no_grad():
        for network in (made.mechanics.touch, made.mechanics.tie):
            network[-1].weight.mul_(5.0)
        made.mechanics.fall.copy_(torch.tensor([0.0, 0.1, 0.0, 0.01]))
    return made


def ahead(model: ObjectModel, told: Tensor, steps: int = 3, removed: int | None = None) -> Tensor:
    """Each step of what is imagined, where one object may be removed at first."""
    actions = torch.zeros(1, steps, 4)
    if removed is not None:
        actions[0, 0, removed] = 1.0
    belief = Belief(BODY.name, Latent(told[None, None], torch.zeros(1, 1)))
    return model.predict(belief, actions, steps).values[0]


def falls(episodes: int = 8, steps: int = 12) -> list[Episode]:
    """A ball that falls on a block from somewhere, stays there, and falls on when the block is removed."""
    rng, made = np.random.default_rng(0), []
    for _ in range(episodes):
        y, speed, left = FLOOR - 30 - rng.uniform(0, 80), 0.0, int(rng.integers(6, 11))
        told, actions = [scene(ball(250, y), block(250, FLOOR, removable=True))], np.zeros((steps - 1, 4))
        actions[left, 1] = 1.0
        for step in range(steps - 1):
            y, speed = y + 0.1 * speed + 0.5, speed + 10.0
            if step < left and y > FLOOR - 30:
                y, speed = FLOOR - 30.0, 0.0
            bodies = (ball(250, y, speed), block(250, FLOOR, removable=True))
            told.append(scene(*bodies[: 2 if step < left else 1]))
        numbers = torch.stack(told).flatten(1).numpy()
        made.append(Episode(np.arange(steps) * 0.1, proprio=numbers, actions=actions.astype(np.float32)))
    return made


def falls_clip() -> Clip:
    made = falls()
    numbers, actions = (np.stack([getattr(each, name) for each in made]) for name in ("proprio", "actions"))
    times = torch.arange(numbers.shape[1])[None].expand(len(made), -1) * 0.1
    return Clip(BODY.name, times, proprio=torch.from_numpy(numbers), actions=torch.from_numpy(actions))


def test_it_keeps_the_contract(model: ObjectModel) -> None:
    check(model, falls_clip(), differentiable=False)


def test_the_world_tells_the_numbers_that_the_model_reads() -> None:
    places = {"x": PLACE.start, "half_x": HALF.start, "velocity_x": VELOCITY.start, "spin": SPIN, "radius": RADIUS}
    places |= {"there": THERE, "moves": MOVES, "removable": REMOVABLE, "ball": BALL, "joint": JOINT}
    assert {name: NUMBERS.index(name) for name in places} == places
    assert len(NUMBERS) == 15


def test_bodies_feel_what_they_touch_and_nothing_far_away(model: ObjectModel) -> None:
    alone = ahead(model, scene(ball(250, 200)))[:, 0]
    far = ahead(model, scene(ball(250, 200), block(250, 500)))[:, 0]
    near = ahead(model, scene(ball(250, 200), block(250, 231)))[:, 0]
    torch.testing.assert_close(far, alone)
    assert (near - alone)[:, VELOCITY].abs().max() > 0.1


def test_bodies_feel_what_they_are_tied_to_however_far(model: ObjectModel) -> None:
    loose = ahead(model, scene(ball(250, 200), block(100, 500, 10.0)))[:, 0]
    tied = ahead(model, scene(ball(250, 200, joint=1), block(100, 500, 10.0, joint=1)))[:, 0]
    assert (tied - loose)[:, VELOCITY].abs().max() > 0.1
    other = ahead(model, scene(ball(250, 200, joint=1), block(100, 500, 10.0, joint=2)))[:, 0]
    torch.testing.assert_close(other[:, VELOCITY], loose[:, VELOCITY])


def test_what_stays_stays_and_only_what_can_be_removed_is(model: ObjectModel) -> None:
    told = scene(ball(250, 365), block(250, 400, removable=True), block(250, 430))
    kept = ahead(model, told)
    torch.testing.assert_close(kept[:, 1:], told[1:].expand(3, -1, -1))
    assert not ahead(model, told, removed=1)[:, 1].any()
    torch.testing.assert_close(ahead(model, told, removed=2), kept)
    free = ahead(model, told, removed=1)[0, 0] - ahead(model, scene(ball(250, 365)))[0, 0]
    assert (kept[0, 0] - ahead(model, scene(ball(250, 365)))[0, 0]).abs().max() > free.abs().max()


def test_where_the_zero_of_a_place_lies_is_not_felt(model: ObjectModel) -> None:
    told = scene(ball(250, 372), block(230, 400, 40.0))
    moved = told.clone()
    moved[:2, PLACE] += torch.tensor([64.0, -32.0])
    shifted = ahead(model, moved)
    shifted[:, :2, PLACE] -= torch.tensor([64.0, -32.0])
    torch.testing.assert_close(shifted, ahead(model, told), atol=1e-2, rtol=1e-3)
    torch.testing.assert_close(mirrored(mirrored(told)), told)


def test_energy_counts_what_is_in_sight_and_moves(model: ObjectModel) -> None:
    told, actions = scene(ball(250, 200), ball(100, 700), block(250, 500)), torch.zeros(1, 1, 4)
    belief = Belief(BODY.name, Latent(told[None, None], torch.zeros(1, 1)))
    own = model.predict(belief, actions, 1)
    assert model.energy(belief, actions, own).abs().max() < 1e-6

    def moved(place: int) -> float:
        other = own.values.clone()
        other[0, 0, place, 0] += 10.0
        return float(model.energy(belief, actions, Latent(other, own.times)).detach())

    assert moved(0) > 0.5
    assert moved(1) == moved(2) == pytest.approx(0.0, abs=1e-6)


def test_it_learns_to_fall_to_lie_and_to_fall_on(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "store", BODY)
    store.append(falls(24))
    recipe = objects([store], 0, ObjectSettings(steps=150, batch=32, width=16))
    (stage,) = recipe.stages
    trained = recipe.build()
    losses = [measured["blocks/prediction"] for measured in fit(begin(trained, stage, 0), stage, 0)]
    assert np.mean(losses[-10:]) < 0.2 * np.mean(losses[:10])
    assert isinstance(trained, ObjectModel)
    lies = scene(ball(250, FLOOR - 30), block(250, FLOOR, removable=True))
    assert (ahead(trained, lies, 5)[:, 0, 1] - (FLOOR - 30)).abs().max() < 5.0
    assert ahead(trained, lies, 5, removed=1)[-1, 0, 1] > FLOOR - 30 + 8.0
    came_from = checkpoint.Provenance("objects", checkpoint.code_version())
    checkpoint.save(tmp_path / "checkpoint", trained, came_from)
    torch.testing.assert_close(
        ahead(checkpoint.load(tmp_path / "checkpoint"), lies),
        ahead(trained.eval(), lies),  # pyright: ignore
    )


def test_what_it_cannot_do_is_said(model: ObjectModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing of 'blocks' came"):
        model.encode(Clip(BODY.name, torch.zeros(1, 1)))
    belief = Belief(BODY.name, Latent(scene(ball(0, 0))[None, None], torch.zeros(1, 1)))
    with pytest.raises(ValueError, match="removed at each step; none came"):
        model.predict(belief, None, 2)
    with pytest.raises(ValueError, match="one world"):
        ObjectModel(ObjectsConfig(embodiments={}))
    store = Store.create(tmp_path / "store", BODY)
    store.append([Episode(np.arange(9) * 0.1, actions=np.zeros((8, 4), np.float32))])
    with pytest.raises(ValueError, match="descriptions of objects"):
        objects([store])


def test_the_objective_shows_half_of_the_clips_in_a_mirror(model: ObjectModel) -> None:
    clip, seen = falls_clip(), []
    model.mechanics.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, 0, 0].clone()))
    Motion().losses(model, clip, torch.Generator().manual_seed(0))
    assert 0 < int((seen[0] < 0).sum()) < len(clip)
