"""What is ordinary in recordings says where to look for hidden causes, and what is read of them gets better for it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ami.data.episodes import Episode, Store
from ami.evaluation.inferring import infer, ordinary
from ami.evaluation.reading import fit_readout_on
from ami.types import Belief, Embodiment, Latent, WorldModel

BODY = Embodiment("rail", 0.1)
STEPS, PAST = 20, 6


class Rail(WorldModel):
    """It sees the place of a cart, and carries an estimate of its speed along that gets surer step by step.

    The third number it carries is noise to it, which its energy mistakes for a speed: a way to be right for the wrong
    reason.
    """

    embodiments = {BODY.name: BODY}  # noqa: RUF012
    latent_shape = (1, 1)

    def encode(self, clip):
        return Latent(clip.video[:, :, 0, :1, :1, 0] / 10, clip.times)

    def believe(self, belief, seen, actions, embodiment=""):
        old, state = (None, None) if belief is None else (belief.latents.values, belief.recurrent)
        for step in range(seen.steps):
            now = seen.values[:, step : step + 1]
            if old is None or state is None:
                state = torch.stack([torch.zeros(len(now)), torch.ones(len(now)), torch.zeros(len(now))], 1)
            else:  # it believes what it sees slowly
                count = 1 / state[:, 1] + 1
                speed = state[:, 0] + ((now - old)[:, 0, 0, 0] - state[:, 0]) / (count + 6)
                state = torch.stack([speed, 1 / count, torch.zeros(len(now))], 1)
            old = now
        assert old is not None
        return Belief(BODY.name, Latent(old, seen.times[:, -1:]), None, state)

    def predict(self, belief, actions, horizon):
        ahead = torch.arange(1, horizon + 1)
        speed = belief.recurrent[:, :1] + 3 * belief.recurrent[:, 2:]
        places = belief.latents.values[:, :, 0, 0] + ahead * speed
        return Latent(places[:, :, None, None], belief.latents.times + ahead * BODY.step_seconds)

    def energy(self, belief, actions, future):
        return (future.values - self.predict(belief, actions, future.steps).values).square().mean((2, 3))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Carts that go at a speed of their own, in tenths of a pixel's brightness."""
    made, rng = Store.create(tmp_path / "d", BODY, ("speed",)), np.random.default_rng(2)
    recorded = []
    for number in range(40):
        speed = rng.integers(1, 12)
        place = (rng.integers(0, 20) + speed * np.arange(STEPS)).clip(0, 255).astype(np.uint8)
        video = np.broadcast_to(place[:, None, None, None], (STEPS, 16, 16, 3))
        truth = np.full((STEPS, 1), speed / 10, np.float32)
        recorded.append(Episode(np.arange(STEPS) / 10, video, truth=truth, source=str(number)))
    made.append(recorded)
    return made


def test_what_is_hidden_is_read_better_after_it_was_inferred(store: Store) -> None:
    model = Rail().eval()
    read = fit_readout_on(model, store, ["speed"], features="recurrent").readout
    known = ordinary(model, store, PAST, 8, "recurrent")
    direction = known.along.directions[:, 0] / known.along.directions[:, 0].norm()
    assert direction[2] == 0  # beliefs never differ in what is noise
    clip = store.clips(np.array([[n, 0] for n in range(40)]), PAST + 8)
    truth, seen = clip.truth[:, PAST - 1], model.encode(clip)
    belief = model.believe(None, seen.between(0, PAST), None)
    after = infer(model, belief, None, seen.between(PAST, PAST + 8), known).belief
    assert (after.recurrent[:, 2] == 0).all()
    off = [float((read(each.recurrent) - truth).square().mean() / truth.var()) for each in (belief, after)]
    assert off[0] > 0.25
    assert off[1] < 0.12


def test_recordings_that_are_asked_about_teach_nothing(store: Store) -> None:
    model = Rail().eval()
    all_of_them = ordinary(model, store, PAST, 8, "recurrent")
    few = ordinary(model, store, PAST, 8, "recurrent", without=range(3, 40))
    assert few.energy != all_of_them.energy
    with pytest.raises(ValueError, match="no two other stretches of 14 steps"):
        ordinary(model, store, PAST, 8, "recurrent", without=range(40))
    assert ordinary(model, store, PAST, 8, "latents").along.directions.shape == (1, 1)
