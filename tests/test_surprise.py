"""Surprise rises where a film stops being itself, and a splice is found by a model that knows how things move."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ami.data.episodes import Episode, Store
from ami.data.video import FILM
from ami.evaluation.benchmark import Asking
from ami.evaluation.films import film_clip, passive, rate, real_films
from ami.evaluation.flow import block_flow
from ami.evaluation.suites.splice import KINDS, Splice
from ami.models.baselines import Pixels
from ami.reasoning.surprise import Ordinary, Watching, energies, ordinary, standing_out, surprise
from ami.types import Belief, Clip, Embodiment, Latent, WorldModel


class Blind(Pixels):
    """Sees nothing, and is surprised by nothing."""

    def encode(self, clip: Clip) -> Latent:
        return Latent(torch.zeros(len(clip), clip.steps, 1, 1), clip.times)


class Inert(Pixels):
    """Expects that things go on as they went: what the last two steps held is drawn on in a straight line."""

    def believe(self, belief, seen, actions, embodiment=""):
        assert belief is None
        return Belief(embodiment, seen)

    def energy(self, belief, actions, future):
        held, ahead = belief.latents.values, torch.arange(1, future.steps + 1)[:, None, None]
        expected = held[:, -1:] + ahead * (held[:, -1:] - held[:, -2:-1])
        return (future.values - expected).square().mean((2, 3))


def model(kind: type[Pixels] = Pixels) -> WorldModel:
    return kind({"film": FILM}).eval()


def pans(films: int = 3, frames: int = 100) -> list[np.ndarray]:
    """A texture that goes by, each film at its own speed."""
    made = []
    for number in range(films):
        rng = np.random.default_rng(number)
        noise = np.fft.rfft(rng.normal(size=(64, 320, 3)).cumsum(0), axis=1)
        noise[:, 14:] = 0  # no wave shorter than 23 px: it goes by smoothly
        wide = np.fft.irfft(noise, 320, axis=1)
        wide = (127 + 60 * np.clip(wide / wide.std(), -2, 2)).astype(np.uint8)
        made.append(np.stack([np.roll(wide, -(1 + number) * k, axis=1)[:, :64] for k in range(frames)]))
    return made


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    held = Store.create(tmp_path_factory.mktemp("films") / "s", FILM)
    held.append([Episode(np.arange(len(video)) / 10, video, source=str(k)) for k, video in enumerate(pans())])
    return held


def test_each_step_is_judged_by_what_came_before_it() -> None:
    watching, film = Watching(context=2, horizon=3), film_clip(model(), pans(1, 12)[0])
    judged = energies(model(), film, watching)
    assert judged.shape == (12 - 5 + 1, 3)
    seen = model().encode(film).values[0]
    for window in (0, 4, 7):
        for ahead in range(3):
            error = (seen[window + 2 + ahead] - seen[window + 1]).square().mean()
            assert judged[window, ahead] == pytest.approx(float(error))
    torch.testing.assert_close(judged, energies(model(), film, Watching(2, 3, batch=3)))
    even = Ordinary(torch.zeros(3).double(), torch.ones(3).double())
    curve = surprise(torch.e ** torch.arange(8.0)[:, None].expand(8, 3).double(), even, watching)
    assert curve[:2].isnan().all()
    # Step 4 is judged by windows 2, 1 and 0; the last step only by the last window.
    assert curve[4] == pytest.approx((2 + 1 + 0) / 3)
    assert curve[-1] == pytest.approx(7)


def test_a_belief_has_seen_nothing_of_what_it_is_judged_by() -> None:
    class Whole(Pixels):
        """Not causal: every latent holds the mean of all that its clip shows."""

        def encode(self, clip):
            seen = super().encode(clip)
            return Latent(seen.values.mean(1, keepdim=True).expand_as(seen.values), seen.times)

    assert float(energies(model(Whole), film_clip(model(), pans(1, 12)[0]), Watching(2, 1)).min()) > 0


def test_what_is_ordinary_has_no_surprise_and_no_unit() -> None:
    energy = torch.rand(200, 2, generator=torch.Generator().manual_seed(0)).double() + 0.1
    watching = Watching(2, 2)
    curve = surprise(energy, ordinary([energy]), watching)[2:]
    assert abs(float(curve.median())) < 0.3
    scaled = energy * torch.tensor([7.0, 1e-3])
    torch.testing.assert_close(surprise(scaled, ordinary([scaled]), watching)[2:], curve)
    spoilt = energy.clone()
    spoilt[50] *= 1e6  # one surprise does not become ordinary
    assert float(surprise(spoilt, ordinary([spoilt]), watching)[52]) > 5


def test_a_moment_stands_out_from_its_neighbours_not_from_the_film() -> None:
    curve = torch.tensor([torch.nan, 0.0, 0.0, 5.0, 0.0, 0.0, 9.0, 9.0, 9.0, 9.0])
    out = standing_out(curve, Watching(around=2))
    assert out[3] == 5.0
    assert out[8] == 0.0
    assert out[0].isnan()


def test_films_too_short_for_a_window_are_refused() -> None:
    with pytest.raises(ValueError, match="1 film of 2 steps came; surprise needs one of 3 or more"):
        energies(model(), film_clip(model(), pans(1, 2)[0]), Watching(2, 1))


def test_a_film_is_cut_in_the_steps_of_its_model() -> None:
    pairs = model()
    pairs.frames = 2
    video = pans(1, 9)[0]
    clip = film_clip(pairs, video)
    assert clip.video is not None
    assert clip.video.shape == (1, 4, 2, 3, 64, 64)
    np.testing.assert_array_equal(clip.video[0, 3, 1].permute(1, 2, 0), video[7])
    np.testing.assert_allclose(clip.times[0], [0.05, 0.15, 0.25, 0.35])
    assert rate(pairs) == pytest.approx(20)
    bodies = {"drawn-film": Embodiment("drawn-film", 0.2), "arm": Embodiment("arm", 0.1, (0.0,), (1.0,))}
    assert passive(Pixels(bodies)).name == "drawn-film"
    with pytest.raises(ValueError, match="has learned arm: nothing that is watched"):
        passive(Pixels({"arm": bodies["arm"]}))


def test_flow_finds_which_way_and_how_far() -> None:
    still = np.kron(np.random.default_rng(0).integers(0, 256, (16, 16, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    video = torch.from_numpy(np.stack([np.roll(still, (k, -2 * k), (0, 1)) for k in range(3)])).permute(0, 3, 1, 2)
    inner = block_flow(video).shift.unflatten(1, (8, 8))[:, 1:-1, 1:-1]
    torch.testing.assert_close(inner, torch.tensor([-2.0, 1.0]).expand_as(inner))
    flat = block_flow(torch.full((2, 3, 64, 64), 9, dtype=torch.uint8))
    assert flat.shift.abs().sum() == flat.residual.sum() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_splice_changes_its_moment_and_nothing_before(store: Store, kind) -> None:
    splice = Splice(kind)
    for pair in splice.pairs(store, 6, np.random.default_rng(1)):
        video, held = store.arrays(pair.film)["video"], int(splice.known * 100)
        starts = [k for k in range(held, 100 - splice.stretch + 1) if np.array_equal(video[k : k + 34], pair.real)]
        assert starts, "a stretch is cut from what is held out"
        differs = (pair.real != pair.spliced).any((1, 2, 3))
        assert not differs[: pair.at].any()
        assert differs[pair.at :].any()
        if kind != "cut":
            assert not differs[pair.at + splice.moment :].any()
    again = [splice.pairs(store, 3, np.random.default_rng(5))[2].spliced for _ in range(2)]
    np.testing.assert_array_equal(*again)


def test_splices_are_found_by_who_knows_how_things_move(store: Store) -> None:
    asking = Asking(seed=2, films=store, untrained=model(Blind))
    result = Splice("reverse").run(model(Inert), 30, asking).results[0]
    assert (result.benchmark, result.metric, result.n) == ("splice/reverse", "auroc", 30)
    assert result.value > 0.9
    assert result.low <= result.value <= result.high
    assert result.baselines["untrained"].value == 0.5, "who sees nothing is at chance"
    assert {"frame-differences", "flow-magnitude", "flow-change", "flow-residual"} < set(result.baselines)
    assert Splice("cut").run(model(Inert), 30, asking).results[0].value > 0.95


def test_steps_of_two_frames_are_scored_by_the_same_rule(store: Store) -> None:
    pairs = Inert({"film": Embodiment("film", 0.2)}).eval()
    pairs.frames = 2
    assert Splice("cut").run(pairs, 20, Asking(films=store)).results[0].value > 0.95
    fast = model(Inert)
    fast.frames = 2
    with pytest.raises(ValueError, match="this model watches 20"):
        Splice("cut").run(fast, 20, Asking(films=store))


def test_questions_without_films_are_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs two or more real films"):
        Splice("cut").run(model(), 4, Asking())
    slow = Store.create(tmp_path / "slow", Embodiment("film", 0.2))
    slow.append([store.read(0), store.read(1)])
    with pytest.raises(ValueError, match="has 5 frames a second and this model watches 10"):
        real_films(slow, model(), "x")
    felt = Store.create(tmp_path / "felt", slow.embodiment)
    felt.append([Episode(np.arange(3) / 5.0, proprio=np.zeros((3, 1), np.float32), source=str(k)) for k in range(2)])
    with pytest.raises(ValueError, match="holds no pictures, and x asks about films"):
        real_films(felt, model(), "x")
    short = Store.create(tmp_path / "short", FILM)
    short.append([Episode(np.arange(50) / 10, video[:50], source=str(k)) for k, video in enumerate(pans(2))])
    with pytest.raises(ValueError, match="0 has 50 frames; splice/cut needs 34 after the first 60%"):
        Splice("cut").run(model(), 4, Asking(films=short))
