"""A read-out says how far off it is where it did not learn, and lies beside a checkpoint without being part of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from ami.data.episodes import Episode, Store
from ami.evaluation.reading import fit_readout_on
from ami.models import checkpoint
from ami.models.jepa import JEPA, sized
from ami.reasoning import readouts
from ami.types import Belief, Embodiment, Latent, WorldModel

BODY = Embodiment("puck", 0.1)


class Seeing(WorldModel):
    """Its latent is the first pixel's three colours; it carries the sum of all it has seen of the first one along."""

    embodiments = {BODY.name: BODY}  # noqa: RUF012
    latent_shape = (1, 3)
    forgets = True

    def encode(self, clip):
        return Latent(clip.video[:, :, 0, None, :, 0, 0] / 255, clip.times)

    def believe(self, belief, seen, actions, embodiment=""):
        now = seen.values[:, :, 0, :1].sum(1)
        if belief is not None:
            now = now + belief.recurrent if self.forgets else torch.cat([belief.recurrent, now], 1)
        return Belief(BODY.name, seen, None, now)

    def predict(self, belief, actions, horizon):
        last = belief.latents.values[:, -1:]
        return Latent(last.expand(-1, horizon, -1, -1), belief.latents.times[:, -1:].expand(-1, horizon))


def store(folder: Path, episodes: int = 12, frames: int = 20) -> Store:
    """A colour that wanders and rests from the middle on; its truth: itself in cm, the sum so far, and mere luck."""
    made, rng = Store.create(folder, BODY, ("place", "sum", "luck")), np.random.default_rng(0)
    recorded = []
    for number in range(episodes):
        video = np.zeros((frames, 16, 16, 3), np.uint8)
        video[:, 0, 0] = rng.integers(0, 256, (frames, 3))
        video[(frames + 1) // 2 :, 0, 0] = video[(frames - 1) // 2, 0, 0]
        seen = video[:, 0, 0, 0] / 255
        truth = np.stack([40 * seen - 7, 10 * seen.cumsum(), np.full(frames, rng.normal())], 1).astype(np.float32)
        truth[3, 0] = np.nan if number % 2 else truth[3, 0]
        recorded.append(Episode(np.arange(frames) / 10, video, truth=truth, source=str(number)))
    made.append(recorded)
    return made


@pytest.fixture
def data(tmp_path: Path) -> Store:
    return store(tmp_path / "d")


def test_what_is_in_the_latent_is_read_in_its_unit(data: Store) -> None:
    kept = fit_readout_on(Seeing().eval(), data, ["place"], unit="cm")
    latent = Latent(torch.tensor([[[[0.5, 0.1, 0.9]], [[1.0, 0.0, 0.0]]]]), torch.zeros(1, 2))
    torch.testing.assert_close(kept.readout.along(latent), torch.tensor([[[13.0], [33.0]]]), atol=0.02, rtol=0)
    held = kept.fitted
    assert (held.embodiment, held.quantities, held.unit, held.features) == ("puck", ("place",), "cm", "latent")
    assert held.error[0] < 0.02
    assert held.r2[0] > 0.999
    assert held.data == data.digest
    gaps = sum(np.isnan(data.arrays(n)["truth"]).any() for n in range(len(data)))
    assert held.learned + held.measured == 12 * 20 - gaps


def test_what_is_imagined_is_read_too_and_has_an_error_of_its_own(data: Store) -> None:
    class Dim(Seeing):
        """What it imagines lies elsewhere in the latent than what it perceives."""

        def encode(self, clip):
            seen = super().encode(clip)
            return replace(seen, values=seen.values * torch.tensor([1.0, 0.0, 0.0]))

        def predict(self, belief, actions, horizon):
            future = super().predict(belief, actions, horizon)
            return replace(future, values=future.values[..., [1, 0, 2]] / 2)

    held = fit_readout_on(Dim().eval(), data, ["place"], unit="cm").fitted
    assert held.imagined is not None
    assert max(held.error[0], held.imagined[0]) < 0.05
    seen, carried = (fit_readout_on(Seeing().eval(), data, ["sum"], features=each) for each in ("latent", "recurrent"))
    assert seen.fitted.imagined is not None
    assert carried.fitted.imagined is None, "a state is not imagined"


def test_what_is_carried_along_is_read_out_of_beliefs(data: Store) -> None:
    hidden = fit_readout_on(Seeing().eval(), data, ["sum"], features="recurrent").fitted
    seen = fit_readout_on(Seeing().eval(), data, ["sum"]).fitted
    assert hidden.error[0] < 0.05
    assert seen.error[0] > 5
    growing = Seeing().eval()
    growing.forgets = False
    with pytest.raises(ValueError, match=r"no fixed size .* \(--features latent\)"):
        fit_readout_on(growing, data, ["sum"], features="recurrent")


def test_the_error_is_of_episodes_that_did_not_teach(data: Store) -> None:
    """A number that belongs to each episode can be learned by heart, and then says nothing of the others."""

    class Knowing(Seeing):
        latent_shape = (1, 12)

        def encode(self, clip):
            known = [data.arrays(n)["video"][0, 0, 0].tolist() for n in range(12)]
            which = [known.index(first) for first in clip.video[:, 0, 0, :, 0, 0].tolist()]
            return Latent(torch.eye(12)[which][:, None, None].expand(-1, clip.steps, -1, -1), clip.times)

    held = fit_readout_on(Knowing().eval(), data, ["luck"]).fitted
    luck = np.array([data.arrays(n)["truth"][0, 2] for n in range(12)])
    assert held.error[0] > 0.5 * np.abs(luck).mean()
    assert held.r2[0] < 0.2


def test_what_cannot_be_read_is_one_sentence(data: Store, tmp_path: Path) -> None:
    model = Seeing().eval()
    for columns, message in ((["speed"], "no column 'speed' in its truth; it has place, sum, luck"), ([], "a column")):
        with pytest.raises(ValueError, match=message):
            fit_readout_on(model, data, columns)
    with pytest.raises(ValueError, match="too small"):
        fit_readout_on(model, store(tmp_path / "one", 1), ["place"])
    with pytest.raises(ValueError, match="training mode"):
        fit_readout_on(Seeing(), data, ["place"])
    stranger = Seeing().eval()
    stranger.embodiments = {"arm": BODY}
    with pytest.raises(ValueError, match="does not know the embodiment 'puck'; it knows arm"):
        fit_readout_on(stranger, data, ["place"])


def test_they_lie_beside_the_checkpoint_and_are_no_part_of_it(data: Store, tmp_path: Path) -> None:
    folder, kept = tmp_path / "c", fit_readout_on(Seeing().eval(), data, ["place", "sum"], unit="cm")
    checkpoint.save(folder, JEPA(sized("baby", {"puck": BODY})), checkpoint.Provenance("x", checkpoint.code_version()))
    digest = checkpoint.digest(folder)
    assert readouts.load(folder, digest) == {}
    readouts.save(folder, digest, {"a": kept, "b": replace(kept, fitted=kept.fitted.model_copy(update={"unit": "m"}))})
    assert checkpoint.digest(folder) == digest
    checkpoint.load(folder)
    back = readouts.load(folder, digest)
    assert list(back) == ["a", "b"]
    assert back["a"].fitted == kept.fitted
    assert back["b"].fitted.unit == "m"
    assert torch.equal(back["a"].readout.weight, kept.readout.weight)
    with pytest.raises(ValueError, match=rf"belongs to the checkpoint {digest[:12]} and this one is 123; delete it"):
        readouts.load(folder, "123")


def test_a_damaged_file_is_refused(data: Store, tmp_path: Path) -> None:
    kept = fit_readout_on(Seeing().eval(), data, ["place"])
    readouts.save(tmp_path, "123", {"a": kept})
    path = tmp_path / readouts.FILE
    good = path.read_bytes()
    path.write_bytes(good[:-3])
    with pytest.raises(ValueError, match="is damaged"):
        readouts.load(tmp_path, "123")
    for was, came in ((b"schema", b"scheme"), (b"unit", b"Unit"), (b"ami-readouts", b"other-thing!"), (b"0.", b"x.")):
        assert was in good
        path.write_bytes(good.replace(was, came))
        with pytest.raises(ValueError, match="is damaged"):
            readouts.load(tmp_path, "123")
    wide = replace(kept, readout=replace(kept.readout, weight=torch.zeros(4, 2)))
    readouts.save(tmp_path, "123", {"a": wide})
    with pytest.raises(ValueError, match="'a' does not read 1 quantities"):
        readouts.load(tmp_path, "123")
    safetensors.torch.save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="is damaged"):
        readouts.load(tmp_path, "123")
