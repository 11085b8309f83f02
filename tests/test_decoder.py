"""The decoder draws what a latent says, learns nothing that is not in it, and teaches the model nothing."""

import numpy as np
import pytest
import torch
from torch import nn

from ami.data.episodes import Store
from ami.evaluation.decoder import PictureDecoder, fit_decoder
from ami.nn.norm import EmbodimentNorm
from ami.types import Clip, Latent, WorldModel
from ami.worlds.rooms import EMBODIMENT, FLOOR
from tiny_stores import rooms_store


class Knowing(WorldModel):
    """Its latent is waves of the agent's place, scaled by a weight that a careless decoder would train."""

    embodiments = {EMBODIMENT.name: EMBODIMENT}  # noqa: RUF012
    latent_shape = (1, 24)

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1 / 26))
        self.norm = EmbodimentNorm((EMBODIMENT.name,), 24)

    def encode(self, clip: Clip) -> Latent:
        place = (clip.truth - 32) * self.scale
        values = torch.cat([wave(k * place) for k in (1, 2, 4) for wave in (torch.sin, torch.cos)], -1)
        return Latent(self.norm(values.flatten(0, 1), EMBODIMENT.name).view_as(values)[:, :, None], clip.times)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return rooms_store(tmp_path_factory.mktemp("decoder") / "rooms", 24, 40, "door")


def _centroid(pictures: np.ndarray) -> np.ndarray:
    """Where what is redder than the floor lies, px."""
    red = pictures[..., 0].astype(float) - pictures[..., 2] - float(FLOOR[0] - FLOOR[2])
    red = np.where(red > 60, red, 0.0) + 1e-9
    at = np.arange(pictures.shape[-2]) + 0.5
    return np.stack([(red.sum(-2) * at).sum(-1), (red.sum(-1) * at).sum(-1)], -1) / red.sum((-1, -2))[..., None]


def test_the_agent_is_drawn_where_the_latent_says(store: Store) -> None:
    model = Knowing().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    decode = fit_decoder(model, store, steps=350)
    clip = store.clips(np.array([[episode, 5] for episode in range(24)]), 6)
    pictures = decode(model.encode(clip))
    assert pictures.shape == (24, 6, 64, 64, 3)
    assert pictures.dtype == np.uint8
    shown = _centroid(clip.video[:, :, 0].permute(0, 1, 3, 4, 2).numpy())
    np.testing.assert_allclose(shown, clip.truth[..., :2], atol=0.5)
    gap = np.linalg.norm(_centroid(pictures) - clip.truth[..., :2].numpy(), axis=-1)
    assert np.median(gap) < 2
    assert (gap < 3).mean() > 0.8
    assert model.scale.grad is None
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_same_seed_draws_the_same(store: Store) -> None:
    model = Knowing().eval()
    latent = model.encode(store.clips(np.array([[0, 0]]), 3))
    spent = torch.get_rng_state()
    one = fit_decoder(model, store, steps=3, seed=4)(latent)
    torch.manual_seed(11)
    assert np.array_equal(one, fit_decoder(model, store, steps=3, seed=4)(latent))
    assert not np.array_equal(one, fit_decoder(model, store, steps=3, seed=5)(latent))
    torch.set_rng_state(spent)


def test_a_model_in_training_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match=r"the model is in training mode .* call model\.eval\(\) first"):
        fit_decoder(Knowing().train(), store, steps=1)


def test_pieces_are_laid_where_they_belong() -> None:
    decoder = PictureDecoder(2, torch.zeros(16, 16, 3), torch.Generator().manual_seed(0))
    with torch.no_grad():
        drawn = decoder(torch.zeros(1, 2))
        inner = torch.zeros(1, 64 * 32)
        inner[0, 9 * 32 : 10 * 32] = 1.0  # the second piece of the second row
        decoder.grid = nn.Sequential(nn.Identity())
        changed = (decoder(inner) != drawn).any(-1)[0]
    assert changed[2:4, 2:4].any()
    changed[2:4, 2:4] = False
    assert not changed.any()
