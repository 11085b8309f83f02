"""A JEPA keeps the promises of every world model after a little training, and prefers what really happened."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from ami.data.episodes import Store
from ami.models import checkpoint
from ami.models.contract import ContractError, check
from ami.models.jepa import JEPA, SCENE, STATE, JEPAConfig, sized
from ami.recipes.baby import acting
from ami.recipes.common import by_embodiment, gauge_clips
from ami.training.loop import begin, fit
from ami.types import Belief, Clip, Embodiment, Latent
from tiny_stores import TINY, film_store, rooms_store

ARM = Embodiment("arm", 0.2, (-1.0, -1.0), (1.0, 1.0))
FILM = Embodiment("film", 0.1)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Store]:
    folder = tmp_path_factory.mktemp("jepa")
    return [rooms_store(folder / "rooms", 24, 24, "fixed"), film_store(folder / "film")]


@pytest.fixture(scope="module", params=[1, 3], ids=["window 1", "window 3"])
def trained(request: pytest.FixtureRequest, stores: list[Store]) -> JEPA:
    """After a few seconds of the first stage."""
    settings = replace(TINY, window=request.param, steps=60, batch=24, enough=0)
    recipe = acting("baby", by_embodiment(stores), 0, settings)
    model = recipe.build()
    assert isinstance(model, JEPA)
    progress = begin(model, recipe.stages[0], 0)
    list(fit(progress, recipe.stages[0], 0))
    return model


def _clips(stores: list[Store], steps: int = 8) -> dict[str, Clip]:
    held = {store.embodiment.name: range(len(store))[:16] for store in stores}
    clips = gauge_clips({store.embodiment.name: store for store in stores}, held, steps)
    return {clip.embodiment: clip for clip in clips}


def test_it_conforms_with_actions_and_without(trained: JEPA, stores: list[Store]) -> None:
    for clip in _clips(stores).values():
        check(trained, clip)


def test_a_new_one_conforms_but_for_the_actions_it_has_not_learned_of(stores: list[Store]) -> None:
    clip = _clips(stores)["two-rooms"]
    model = JEPA(sized("baby", {"two-rooms": stores[0].embodiment}).model_copy(update={"lessons": 0}))
    check(model, clip, actions_matter=False)
    with pytest.raises(ContractError, match="ignores its actions"):
        check(model, clip)


def test_what_happened_has_less_energy_than_what_did_not(trained: JEPA, stores: list[Store]) -> None:
    clip = _clips(stores)["two-rooms"]
    with torch.no_grad():
        seen = trained.encode(clip)
        past = Latent(seen.values[:, :4], seen.times[:, :4])
        belief = trained.believe(None, past, clip.actions[:, :3], "two-rooms")
        done = clip.actions[:, 3:]
        future = Latent(seen.values[:, 4:], seen.times[:, 4:])
        true = trained.energy(belief, done, future).mean()
        for shift in (1, 2, 3):
            strange = Latent(future.values.roll(shift, 0), future.times)
            assert true < 0.85 * trained.energy(belief, done, strange).mean()
        assert true < trained.energy(belief, -done, future).mean()


def test_a_checkpoint_answers_as_the_model_did(trained: JEPA, stores: list[Store], tmp_path: Path) -> None:
    clip = _clips(stores)["two-rooms"]
    checkpoint.save(tmp_path / "c", trained, checkpoint.Provenance("test", checkpoint.CodeVersion("0")))
    again = checkpoint.load(tmp_path / "c")
    assert again.embodiments == trained.embodiments
    seen = trained.encode(clip)
    assert torch.equal(again.encode(clip).values, seen.values)
    first = Latent(seen.values[:, :1], seen.times[:, :1])
    answers = [
        model.predict(model.believe(None, first, clip.actions[:, :0], "two-rooms"), clip.actions, 7).values
        for model in (trained, again)
    ]
    assert torch.equal(*answers)
    assert checkpoint.digest(tmp_path / "c") == checkpoint.digest(trained)


def test_the_scene_stays_while_the_state_moves(trained: JEPA, stores: list[Store]) -> None:
    clip = _clips(stores)["two-rooms"]
    seen = trained.encode(clip)
    belief = Belief("two-rooms", Latent(seen.values[:, :1], seen.times[:, :1]))  # younger than a window of three
    imagined = trained.predict(belief, clip.actions, 7).values
    assert torch.equal(imagined[:, :, SCENE], seen.values[:, :1, SCENE].expand(-1, 7, -1))
    assert imagined[:, :, STATE].diff(dim=1).abs().mean() > 0.01
    # A young belief has been still: as if the same state had been held for as long as the window is.
    window = trained.config.window
    old = Latent(seen.values[:, :1].expand(-1, window, -1, -1), seen.times[:, :1].expand(-1, window))
    torch.testing.assert_close(trained.predict(Belief("two-rooms", old), clip.actions, 7).values, imagined)


def test_a_window_holds_what_came_last() -> None:
    model = JEPA(sized("baby", {"arm": ARM}, picture=16, window=3))
    values, times = torch.arange(5.0)[None, :, None, None].expand(2, 5, 2, 16), torch.arange(5.0).expand(2, 5)
    actions = torch.arange(5.0)[None, :, None].expand(2, 5, 2)
    belief = model.believe(None, Latent(values, times), actions[:, :4], "arm")
    assert belief.latents.values[0, :, 0, 0].tolist() == [2, 3, 4]
    assert belief.actions[0, :, 0].tolist() == [2, 3]
    belief = model.believe(belief, Latent(10 + values[:, :1], 10 + times[:, :1]), actions[:, 4:])
    assert belief.latents.values[0, :, 0, 0].tolist() == [3, 4, 10]
    assert belief.actions[0, :, 0].tolist() == [3, 4]


def test_actions_are_normalised_inside() -> None:
    """Actions in another unit, with statistics in that unit, lead to the same future."""
    body = replace(ARM, action_mean=(0.1, 0.2), action_std=(0.5, 0.4))
    scaled = replace(ARM, action_mean=(100.0, 200.0), action_std=(500.0, 400.0))
    torch.manual_seed(0)
    one, other = (JEPA(sized("baby", {"arm": each}, picture=16)) for each in (body, scaled))
    torch.nn.init.normal_(one.predictor.change.weight, std=0.05)
    other.load_state_dict(one.state_dict())
    belief = Belief("arm", Latent(torch.randn(3, 1, 2, 16), torch.zeros(3, 1)))
    actions = torch.rand(3, 4, 2)
    futures = [one.predict(belief, actions, 4).values, other.predict(belief, 1000 * actions, 4).values]
    torch.testing.assert_close(*futures, rtol=1e-4, atol=1e-4)


def test_mistakes_are_refused_in_a_sentence() -> None:
    model = JEPA(sized("baby", {"arm": ARM, "film": FILM}, picture=32)).eval()
    video = torch.zeros(2, 3, 1, 3, 32, 32, dtype=torch.uint8)
    times, actions = torch.zeros(2, 3), torch.zeros(2, 2, 2)
    held = Latent(torch.zeros(2, 1, 2, 16), torch.zeros(2, 1))
    mistakes = {
        "not trained with the embodiment 'cow'; it knows arm, film": lambda: model.encode(Clip("cow", times, video)),
        "perceives video, and the clip has none": lambda: model.encode(Clip("arm", times)),
        "pictures are 16 x 16 px": lambda: model.encode(Clip("arm", times, video[..., :16, :16])),
        "the clip has 2 frames a step": lambda: model.encode(Clip("arm", times, video.repeat(1, 1, 2, 1, 1, 1))),
        "the clip is empty": lambda: model.encode(Clip("arm", times[:0], video[:0])),
        "'film' has no actions; some were given": lambda: model.predict(Belief("film", held), actions, 2),
        "'arm' has 2 numbers an action; none were given": lambda: model.predict(Belief("arm", held), None, 2),
        r"'arm' needs actions of shape \(batch, 3, 2\)": lambda: model.predict(Belief("arm", held), actions, 3),
        r"'arm' needs actions of shape \(batch, 1, 2\)": lambda: model.believe(Belief("arm", held), held, actions),
        "there is no size 'huge'; choose one of baby, tiny": lambda: sized("huge", {"arm": ARM}),
    }
    for sentence, mistake in mistakes.items():
        with pytest.raises(ValueError, match=sentence) as caught:
            mistake()
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="colour"):
        JEPAConfig(embodiments={"arm": ARM}, colour="red")


def test_the_one_dial_only_grows_and_larger_sizes_run() -> None:
    counts = []
    for size in ("baby", "tiny", "small", "base", "large"):
        with torch.device("meta"):
            model = JEPA(sized(size, {"arm": ARM, "film": FILM}))
        counts.append(sum(p.numel() for p in model.parameters()))
    assert all(2 * small < large for small, large in pairwise(counts))
    torch.manual_seed(0)
    model = JEPA(sized("tiny", {"arm": ARM, "film": FILM}, window=2))
    assert len(model.encoder.blocks) == 4
    video = torch.randint(0, 256, (3, 4, 1, 3, 64, 64), dtype=torch.uint8)
    check(model, Clip("film", torch.arange(4.0).repeat(3, 1) * 0.1, video))
    assert model.encode(Clip("film", torch.zeros(3, 4), video)).values.shape == (3, 4, *model.latent_shape)


def test_an_encoder_that_trains_in_bfloat16_perceives_nearly_the_same_and_acts_in_fp32() -> None:
    bodies = {"film": Embodiment("film", 0.1)}
    draw = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (2, 3, 1, 3, 16, 16), dtype=torch.uint8, generator=draw)
    clip = Clip("film", torch.arange(3.0).expand(2, -1), video=video)
    exact = JEPA(sized("baby", bodies, picture=16))
    half = JEPA(sized("baby", bodies, picture=16, precision="bf16"))
    half.load_state_dict(exact.state_dict())
    with torch.no_grad():
        one, other = exact.encode(clip).values, half.encode(clip).values
    assert other.dtype == torch.float32
    torch.testing.assert_close(other, one, atol=0.05 * float(one.abs().max()), rtol=0)
    assert not torch.equal(other, one)
    half.load_state_dict(exact.state_dict())
    with torch.no_grad():
        assert torch.equal(exact.eval().encode(clip).values, half.eval().encode(clip).values)
