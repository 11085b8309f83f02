"""One checkpoint of several parts: each embodiment is answered by its own, and all keep a model's promises."""

from pathlib import Path

import pytest
import torch

from ami.data.camera import CAMERA
from ami.models import checkpoint, contract
from ami.models import jepa as acting
from ami.models import spatial as viewing
from ami.models import vjepa as watching
from ami.models.mind import Mind, MindConfig
from ami.types import Clip, Embodiment

ARM, FILM = Embodiment("arm", 0.1, (-1.0, -1.0), (1.0, 1.0)), Embodiment("film", 0.2)


def mind() -> Mind:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Mind(
            MindConfig(
                acting=acting.sized("baby", {"arm": ARM}),
                watching=watching.sized("baby", {"film": FILM}),
                viewing=viewing.sized({CAMERA.name: CAMERA}),
            )
        )
    torch.nn.init.normal_(made.acting.predictor.change.weight, generator=torch.Generator().manual_seed(1))
    return made.eval()


def clip_of(body: Embodiment, frames: int, steps: int = 4) -> Clip:
    draw = torch.Generator().manual_seed(2)
    video = torch.randint(0, 256, (2, steps, frames, 3, 64, 64), dtype=torch.uint8, generator=draw)
    actions = torch.rand(2, steps - 1, body.action_dim, generator=draw) * 2 - 1 if body.action_dim else None
    times = body.step_seconds * torch.arange(steps).expand(2, -1)
    return Clip(body.name, times, video=video, actions=actions)


def test_all_parts_keep_the_promises() -> None:
    made = mind()
    contract.check(made, clip_of(ARM, 1))
    contract.check(made, clip_of(FILM, 2))
    contract.check(made, clip_of(CAMERA, 1))
    assert made.part("arm") is made.acting
    assert made.part("film") is made.watching
    assert made.part(CAMERA.name) is made.viewing


def test_a_mind_survives_its_checkpoint(tmp_path: Path) -> None:
    made = mind()
    code = checkpoint.CodeVersion("0")
    checkpoint.save(tmp_path / "kept", made, checkpoint.Provenance(recipe="baby", code=code))
    again = checkpoint.load(tmp_path / "kept")
    for seen in (clip_of(ARM, 1), clip_of(FILM, 2), clip_of(CAMERA, 1)):
        assert torch.equal(again.encode(seen).values, made.encode(seen).values)
    assert checkpoint.digest(tmp_path / "kept") == checkpoint.digest(made)


def test_nobody_belongs_to_two_parts() -> None:
    twice = Embodiment("film", 0.2, (-1.0,), (1.0,))
    with pytest.raises(ValueError, match="'film' cannot belong to two parts"):
        Mind(MindConfig(acting=acting.sized("baby", {"film": twice}), watching=watching.sized("baby", {"film": FILM})))
    with pytest.raises(ValueError, match="'dog'; it knows arm, camera, film"):
        mind().part("dog")
