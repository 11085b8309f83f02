"""A belief that was saved goes on bit for bit as if nobody had stopped, and only where it means something."""

from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from tests import test_places, test_recurrent
from torch import Tensor

from ami.memory.belief import load_belief, save_belief
from ami.models import checkpoint
from ami.models.jepa import JEPA, sized
from ami.types import Belief, Clip, Embodiment, Latent, WorldModel

CAR = Embodiment("car", 0.5, low=(-1.0,), high=(1.0,))


def clip(body: Embodiment, steps: int = 8) -> Clip:
    draw = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (2, steps, 1, 3, 64, 64), dtype=torch.uint8, generator=draw)
    actions = torch.rand(2, steps - 1, body.action_dim, generator=draw) if body.action_dim else None
    return Clip(body.name, body.step_seconds * torch.arange(steps).expand(2, -1), video, actions=actions)


def parts(belief: Belief) -> list[Tensor | None]:
    recalled = (None, None) if belief.recalled is None else (belief.recalled.values, belief.recalled.times)
    return [belief.latents.values, belief.latents.times, belief.actions, belief.recurrent, *recalled]


@pytest.fixture(params=["window", "grid", "places"])
def lived(request: pytest.FixtureRequest) -> tuple[WorldModel, Clip]:
    if request.param == "window":
        return JEPA(sized("baby", {"car": CAR})).eval(), clip(CAR)
    if request.param == "grid":
        return test_recurrent.model(), clip(test_recurrent.BODY)
    return test_places.model(), clip(test_places.BODY)


@torch.no_grad()
def test_restored_it_goes_on_as_if_nobody_had_stopped(lived: tuple[WorldModel, Clip], tmp_path: Path) -> None:
    model, seen = lived
    name, latents, digest = seen.embodiment, model.encode(seen), checkpoint.digest(model)

    def acted(first: int, last: int) -> Tensor | None:
        return None if seen.actions is None else seen.actions[:, first:last]

    begun = model.believe(None, latents.between(0, 4), acted(0, 3), name)
    save_belief(tmp_path / "belief.safetensors", begun.rows(slice(0, 1)), "of something else")
    save_belief(tmp_path / "belief.safetensors", begun, digest)
    futures = []
    for held in (begun, load_belief(tmp_path / "belief.safetensors", digest)):
        on = model.believe(held, latents.between(4, 6), acted(3, 5))
        futures.append((model.predict(on, acted(5, 7), 2).values, model.energy(on, acted(5, 7), latents.between(6, 8))))
    assert torch.equal(futures[0][0], futures[1][0])
    assert torch.equal(futures[0][1], futures[1][1])


def test_every_part_comes_back_and_no_other(tmp_path: Path) -> None:
    def latent() -> Latent:
        return Latent(torch.randn(2, 3, 1, 4), torch.rand(2, 3))

    whole = Belief("car", latent(), torch.randn(2, 2, 1), torch.randn(2, 5), latent())
    for belief in (whole, replace(whole, actions=None, recurrent=None, recalled=None)):
        save_belief(tmp_path / "b", belief, "c0ffee")
        back = load_belief(tmp_path / "b", "c0ffee")
        assert back.embodiment == "car"
        for one, other in zip(parts(belief), parts(back), strict=True):
            assert one is other is None or (one is not None and other is not None and torch.equal(one, other))


def test_what_is_no_belief_of_this_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "b"
    save_belief(path, Belief("car", Latent(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1))), "c0ffee" * 10)
    with pytest.raises(ValueError, match="is a belief of checkpoint c0ffeec0ffee, and means nothing to decafdecafde"):
        load_belief(path, "decaf" * 12)
    with pytest.raises(ValueError, match="no such file"):
        load_belief(tmp_path / "none", "c0ffee")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="is damaged, or is no belief"):
        load_belief(path, "c0ffee" * 10)
    safetensors.torch.save_file({"values": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="holds tensors, but is not a belief"):
        load_belief(path, "c0ffee" * 10)
