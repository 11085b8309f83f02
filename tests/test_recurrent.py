"""A recurrent JEPA: what it holds, what it expects, and how it is taught."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ami.evaluation.films import passive
from ami.models import contract
from ami.models.recurrent import RecurrentConfig, RecurrentJEPA, sized
from ami.objectives.foresight import Foresight, ForesightSettings, screened
from ami.objectives.retention import Retention, looked, told_apart
from ami.types import Belief, Clip, Embodiment, Latent
from ami.worlds.violations import EMBODIMENT, experience

BODY = replace(EMBODIMENT, action_mean=(0.0, 0.0), action_std=(0.2, 0.2))


def model(seed: int = 0) -> RecurrentJEPA:
    """Untrained, but no longer expecting that nothing changes."""
    torch.manual_seed(seed)
    made = RecurrentJEPA(sized({BODY.name: BODY, "film": Embodiment("film", 0.1)}))
    with torch.no_grad():
        for parameter in made.memory.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made.eval()


@pytest.fixture(scope="module")
def clip() -> Clip:
    video, gusts, _ = experience(4, np.random.default_rng(0))
    pictures = torch.from_numpy(video).movedim(-1, 2)[:, :, None].contiguous()
    times = torch.arange(24).expand(4, -1) * BODY.step_seconds
    return Clip(BODY.name, times, pictures, actions=torch.from_numpy(gusts).float())


def test_it_keeps_the_contract_with_actions_and_without(clip: Clip) -> None:
    short = clip.between(0, 8)
    contract.check(model(), short)
    contract.check(model(), replace(short, embodiment="film", actions=None))


def test_living_through_a_film_expects_what_a_belief_at_each_step_predicts(clip: Clip) -> None:
    made, short = model(), clip.between(0, 5)
    with torch.no_grad():
        seen = made.encode(short)
        expected = made.live(seen, short.actions, BODY.name).expected
        belief = made.believe(None, Latent(seen.values[:, :4], seen.times[:, :4]), short.actions[:, :3], BODY.name)
        ahead = made.predict(belief, short.actions[:, 3:], 1)
    torch.testing.assert_close(expected[:, 3, :, : made.config.dim], ahead.values[:, 0])


def test_surprise_asks_what_is_behind_where_the_view_is_clear_and_what_shows_where_it_is_not(
    clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, dim = model(), 32
    with torch.no_grad():
        seen = made.encode(clip.between(0, 5))
        belief = made.believe(None, seen.between(0, 4), None, BODY.name)
        expected = made.live(seen, None, BODY.name).expected[:, 3]
        assert not torch.allclose(expected[..., :dim], expected[..., dim:], atol=0.1)
        for clear, layer in ((30.0, expected[..., dim:]), (-30.0, expected[..., :dim])):
            told = torch.tensor([30.0, clear])[:, None, None].expand(len(clip), 2, made.side, made.side)
            with monkeypatch.context() as patch:
                patch.setattr(made.memory, "gain", lambda *grids, told=told: told)
                none, whole = (
                    made.energy(belief, None, Latent(each[:, None], seen.times[:, 4:5]))
                    for each in (layer, seen.values[:, 4])
                )
            torch.testing.assert_close(none, torch.zeros_like(none))
            assert (whole > 1e3 * none).all()


def test_what_is_behind_a_screen_is_looked_away_less_once_a_model_has_learned() -> None:
    config = sized({BODY.name: BODY, "film": Embodiment("film", 0.1)}).model_copy(update={"screened": (BODY.name,)})
    made = RecurrentJEPA(config).eval()
    told = torch.zeros(1, 2, made.side, made.side)
    learned = made._gains(told, BODY.name)
    assert made._gains(told, "film").unique().tolist() == [0.5], "its films had no screens"
    assert made.train()._gains(told, BODY.name).unique().tolist() == [0.5]
    assert learned[:, 0].unique().tolist() == [0.5]
    assert learned[:, 1].unique().tolist() == [0.125]


def test_what_is_not_shown_is_not_looked_at(clip: Clip) -> None:
    made, short = model(), clip.between(0, 6)
    shown = torch.ones(4, 6, dtype=torch.bool)
    shown[:, 3] = False
    with torch.no_grad():
        seen = made.encode(short)
        other = replace(seen, values=seen.values.clone())
        other.values[:, 3] = 9.0
        same = made.live(other, short.actions, BODY.name, shown).expected
        expected = made.live(seen, short.actions, BODY.name, shown).expected
        looked = made.live(other, short.actions, BODY.name).expected
    torch.testing.assert_close(same, expected)
    assert not torch.allclose(looked, expected)


def test_a_belief_is_a_value_and_costs_the_same_at_any_age(clip: Clip) -> None:
    made = model()
    with torch.no_grad():
        seen = made.encode(clip)
        begun = made.believe(None, Latent(seen.values[:, :10], seen.times[:, :10]), clip.actions[:, :9], BODY.name)
        assert begun.recurrent is not None
        kept = Belief(BODY.name, begun.latents, None, begun.recurrent.clone())
        rest = Latent(seen.values[:, 10:], seen.times[:, 10:])
        on = made.believe(begun, rest, clip.actions[:, 9:])
        restored = made.believe(kept, rest, clip.actions[:, 9:])
    assert on.recurrent is not None
    assert restored.recurrent is not None
    assert torch.equal(on.recurrent, restored.recurrent)
    assert on.recurrent.shape == begun.recurrent.shape


def test_screens_cover_some_films_and_leave_the_rest_as_they_are(clip: Clip) -> None:
    assert clip.video is not None
    many = clip.video.repeat(16, 1, 1, 1, 1, 1)
    kept = many.clone()
    covered, where = screened(many, 0.75, torch.Generator().manual_seed(0))
    assert torch.equal(many, kept)
    changed = (covered != many).flatten(1).any(1).float().mean()
    assert 0.6 < changed < 0.9
    assert not (covered != many).any(2).any(2)[~where].any()
    assert 0.02 < where.float().mean() < 0.3  # of the view


def test_it_is_taught_what_comes_and_what_is_behind(clip: Clip) -> None:
    torch.manual_seed(0)
    made, objective = RecurrentJEPA(sized({BODY.name: BODY})), Foresight(ForesightSettings())
    optimiser = torch.optim.Adam(made.parameters(), 3e-3)
    short, first = clip.between(0, 10), None
    for _ in range(15):
        losses = objective.losses(made, short, torch.Generator().manual_seed(3))
        assert set(losses) == {"prediction", "behind", "stands", "doubt", "variance", "covariance"}
        first = first or losses
        optimiser.zero_grad()
        sum(losses.values(), torch.zeros(())).backward()
        assert all(parameter.grad is not None for parameter in made.parameters())
        optimiser.step()
    assert first is not None
    for name in ("prediction", "behind"):
        assert losses[name] < first[name], name


def test_eyes_are_closed_through_whole_acts_and_only_then() -> None:
    acts = torch.tensor([[0, 1, 1, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0, 0]]) > 0
    chance = torch.tensor([[0.9, 0.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9], [0.0] * 8])
    shown = looked(acts, chance, 0.5)
    assert shown.tolist() == [[True, True, False, False, True, True, True, True], [True] * 8]
    assert looked(acts, chance, 0.95)[0].tolist() == [True, True, False, False, True, True, False, True]


def test_what_an_act_shows_is_asked_of_the_memory(clip: Clip) -> None:
    torch.manual_seed(0)
    made, objective = RecurrentJEPA(sized({BODY.name: BODY})), Retention()
    optimiser = torch.optim.Adam(made.parameters(), 3e-3)
    short, first = clip.between(0, 8), None
    for _ in range(15):
        losses = objective.losses(made, short, torch.Generator().manual_seed(3))
        first = first or losses
        optimiser.zero_grad()
        sum(losses.values(), torch.zeros(())).backward()
        optimiser.step()
    assert first is not None
    for name in ("prediction", "behind"):
        assert losses[name] < first[name], name
    with pytest.raises(ValueError, match="told by actions"):
        objective.losses(made, replace(short, actions=None), torch.Generator())


LAMPS = Embodiment("lamps", 0.1, (0.0,), (1.0,), action_mean=(0.3,), action_std=(0.4,))


def lamps(films: int, seed: int) -> Clip:
    """One of four lamps is lit, then all is dark for some steps, then an act shows which it was; and again."""
    rng = np.random.default_rng(seed)
    video, acts = np.full((films, 12, 16, 16, 3), 90, np.uint8), np.zeros((films, 11, 1), np.float32)
    for film in range(films):
        for first, lamp in zip((0, 6), rng.permutation(4)[:2], strict=True):
            row, column = divmod(int(lamp), 2)
            for step in (first, first + 5):
                video[film, step, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 250
        acts[film, [4, 10]] = 1.0
    pictures = torch.from_numpy(video).movedim(-1, 2)[:, :, None].contiguous()
    return Clip(LAMPS.name, torch.arange(12).expand(films, -1) * 0.1, pictures, actions=torch.from_numpy(acts))


def test_what_an_act_will_show_is_learned_by_who_remembers_and_by_nobody_else() -> None:
    torch.manual_seed(0)
    small = RecurrentConfig(embodiments={LAMPS.name: LAMPS}, picture=16, stem=16, dim=8, memory=8, width=32)
    made, objective = RecurrentJEPA(small), Retention()
    optimiser = torch.optim.Adam(made.parameters(), 1e-2)
    for step in range(80):
        losses = objective.losses(made, lamps(32, step), torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        sum(losses.values(), torch.zeros(())).backward()
        optimiser.step()
    fresh = lamps(64, 999)
    with torch.no_grad():
        seen = made.eval().encode(fresh)
        belief = made.believe(None, seen.between(0, 5), fresh.actions[:, :4], LAMPS.name)
        last = made.believe(None, seen.between(4, 5), None, LAMPS.name)
        came, other = (seen.values[:, step : step + 1] for step in (5, 11))  # which lamp it was, and which it was later

        def surer(held: Belief) -> float:
            """The share of films in which what came surprises less than what will be shown by the next act."""
            done = fresh.actions[:, 4:5]
            first, second = (made.energy(held, done, Latent(each, fresh.times[:, 5:6])) for each in (came, other))
            return float((first < second).float().mean())

        assert surer(belief) > 0.95
        assert 0.25 < surer(last) < 0.75, "it can be told without a memory"
        assert belief.recurrent is not None
        assert surer(replace(belief, recurrent=belief.recurrent.roll(1, 0))) < 0.8


def test_an_act_is_told_apart_by_what_differs_and_by_nothing_else() -> None:
    came = torch.zeros(1, 4, 2, 3)  # four steps, two cells; the second looks the same in both acts
    came[0, 1, 0], came[0, 3, 0] = 1.0, -1.0
    acts = torch.tensor([[False, True, False, True]])
    assert told_apart(torch.zeros_like(came), came, acts, 0.3) == pytest.approx(0.0, abs=1e-6)
    assert told_apart(came, came, acts, 0.3) == pytest.approx(-np.log(2), abs=1e-3)
    assert told_apart(-came, came, acts, 0.3) > 5.0
    assert told_apart(came + 7.0, came + 7.0, acts, 0.3) == pytest.approx(-np.log(2), abs=1e-3)
    expected = torch.randn(2, 4, 2, 3, requires_grad=True)
    told_apart(expected, came.expand(2, -1, -1, -1), torch.cat([acts, acts & False]), 0.3).backward()
    assert expected.grad is not None
    assert expected.grad[0, acts[0], 0].abs().min() > 0
    assert (expected.grad[1] == 0).all()
    assert (expected.grad[0, ~acts[0]] == 0).all()


def test_what_does_not_fit_is_refused_in_a_sentence(clip: Clip) -> None:
    made = model()
    assert clip.video is not None
    with pytest.raises(ValueError, match="this model is built for one of 64 x 64"):
        made.encode(replace(clip, video=clip.video[..., :32, :32]))
    with pytest.raises(ValueError, match="needs actions of shape"):
        made.believe(None, made.encode(clip), clip.actions[:, :3], BODY.name)
    with pytest.raises(ValueError, match="screens are put before pictures"):
        Foresight().losses(made, replace(clip, video=None), torch.Generator())
    with pytest.raises(ValueError, match="no recurrent JEPA of size 'giant'"):
        sized({}, "giant")


def test_who_lives_through_films_can_watch_any() -> None:
    assert passive(RecurrentJEPA(sized({BODY.name: BODY}))).name == BODY.name
    assert passive(model()).name == "film"
