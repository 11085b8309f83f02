"""What is asked about the physical world: twins, what is hidden, and what if."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ami.evaluation.benchmark import Asking
from ami.evaluation.suites.hidden import Counterfactual, Hidden, _changes, _Reads, _ridge
from ami.evaluation.suites.pairs import PairsBenchmark
from ami.evaluation.suites.physics import Drawn
from ami.models import jepa, vjepa
from ami.models.mind import Mind, MindConfig
from ami.models.recurrent import RecurrentConfig, RecurrentJEPA
from ami.reasoning.rules import Stepwise
from ami.types import Belief, Embodiment, Latent, WorldModel
from ami.worlds.alone import MIDDLE, behind_a_screen, in_the_wind
from ami.worlds.violations import EMBODIMENT, TRUTH


def model() -> RecurrentJEPA:
    """Small, and untrained."""
    torch.manual_seed(0)
    body = replace(EMBODIMENT, action_mean=(0.0, 0.0), action_std=(0.2, 0.2))
    return RecurrentJEPA(RecurrentConfig(embodiments={body.name: body}, stem=8, dim=4, memory=4, width=16)).eval()


def mind() -> Mind:
    """One that acts, watches and expects."""
    film, arm = Embodiment("film", 0.2), Embodiment("arm", 0.2, (-1.0,), (1.0,), (0.0,), (1.0,))
    config = MindConfig(
        acting=jepa.sized("baby", {"arm": arm}),
        watching=vjepa.sized("baby", {"film": film}).model_copy(update={"causal": False}),
        expecting=model().config,
    )
    return Mind(config).eval()


class Copies(WorldModel):
    """It expects to see again what it sees, pixel by pixel."""

    embodiments = {EMBODIMENT.name: EMBODIMENT}  # noqa: RUF012
    latent_shape = (1, 3 * 64 * 64)

    def encode(self, clip):
        return Latent(clip.video.double().flatten(2)[:, :, None], clip.times)

    def believe(self, belief, seen, actions, embodiment=""):
        return Belief(EMBODIMENT.name, Latent(seen.values[:, -1:], seen.times[:, -1:]))

    def energy(self, belief, actions, future):
        return (future.values - belief.latents.values).square().mean((2, 3))


def test_who_copies_what_it_sees_is_at_chance_in_every_cell() -> None:
    asked = PairsBenchmark("physics", Drawn(), Stepwise())
    answer = asked.run(Copies(), 4, Asking(3))
    pairwise = {result.benchmark: result for result in answer.results if result.metric == "pairwise"}
    assert len(pairwise) == 9 * 4 + 1
    for name, result in pairwise.items():
        assert result.value == pytest.approx(0.5, abs=0.03), name
        for shortcut in ("frame-difference", "copy-last", "brightness"):
            assert result.baselines[shortcut].value == pytest.approx(0.5, abs=0.03), (name, shortcut)


def test_how_fast_a_film_begins_says_nothing_of_what_can_happen() -> None:
    rule, curve = Stepwise(settle=3), torch.rand(4, 12, generator=torch.Generator().manual_seed(0))
    begun, broken = curve.clone(), curve.clone()
    begun[:, :4], broken[:, 4] = 99.0, 99.0
    torch.testing.assert_close(rule.alone(begun), rule.alone(curve))
    torch.testing.assert_close(rule.paired(begun), rule.paired(curve))
    assert (rule.alone(broken) > rule.alone(curve) + 10).all()
    assert rule.shortest == 5


def test_twins_are_drawn_anew_for_every_seed_and_shown_to_people() -> None:
    source = Drawn(principles=("colour",), hidden=(True,), moving=(False,))
    (one,), (same,), (other,) = (list(source.twins(model(), 6, Asking(seed))) for seed in (1, 1, 2))
    assert one.cell == "colour/occluded/fixed"
    assert len(one.possible) == 6
    assert one.possible.video is not None
    assert torch.equal(one.possible.video, same.possible.video)
    assert not torch.equal(one.possible.video, other.possible.video)
    (usual,) = source.ordinary(model(), Asking(1))
    assert usual.video is not None
    assert not (usual.video[:, None] == one.possible.video).flatten(2).all(2).any(), "no film is its own yardstick"
    answer = PairsBenchmark("physics", source, Stepwise()).run(model(), 6, Asking(1))
    (strip,) = answer.strips
    assert set(strip.films) == {"possible", "impossible"}
    assert strip.moment == one.moment[0]


def test_who_stands_behind_a_screen_is_hidden_and_goes_on() -> None:
    films = behind_a_screen(8, np.random.default_rng(0))
    truth = np.stack([film.truth for film in films])
    assert (truth[:, MIDDLE, TRUTH.index("a_hidden")] == 1).all()
    assert (truth[:, 0, TRUTH.index("a_hidden")] == 0).all()
    drag = truth[:, 0, TRUTH.index("drag")]
    speed = np.hypot(*(truth[:, :, TRUTH.index(name)].T for name in ("a_dx", "a_dy")))
    np.testing.assert_allclose(speed[5], speed[0] * (1 - drag) ** 5, rtol=1e-4)


def test_another_wind_changes_what_follows_it_and_nothing_before() -> None:
    so, otherwise = in_the_wind(5, np.random.default_rng(0))
    for film, other in zip(so, otherwise, strict=True):
        np.testing.assert_array_equal(film.video[: MIDDLE + 1], other.video[: MIDDLE + 1])
        assert (film.video[-1] != other.video[-1]).any()


def test_what_a_change_means_is_learned_and_depends_on_what_was_read() -> None:
    drawn = torch.Generator().manual_seed(0)
    state, change = torch.randn(900, 6, generator=drawn), torch.randn(900, 3, generator=drawn)
    read = state[:, :1] - 2 * state[:, 1:2] + 30
    truth = read + change[:, :1] * (read - 30) / 2  # what the state alone says is off by what a change then tells
    teach, few, ask = slice(0, 400), slice(400, 700), slice(700, 900)
    ridge = _ridge(state[teach], truth[teach])
    said = ridge(state[few])
    reads = _Reads(ridge, _ridge(_changes(change[few], said, ridge), truth[few] - said))
    latent = Latent(torch.zeros(200, 1, 1), torch.zeros(200, 1))
    belief = Belief("physics", latent, recurrent=state[ask].view(200, 2, 3))
    before, after = (reads.before(belief) - truth[ask]).std(), (reads.after(belief, change[ask]) - truth[ask]).std()
    assert after < 0.4 * before


def test_hidden_causes_and_counterfactuals_are_answered_in_units() -> None:
    answer = Hidden(learn=12, explained=8).run(model(), 6, Asking(0))
    assert [result.benchmark for result in answer.results] == ["hidden/position", "hidden/velocity", "hidden/drag"]
    assert all("filtered" in result.baselines for result in answer.results)
    (result,) = Counterfactual(learn=12).run(model(), 6, Asking(0)).results
    assert result.benchmark == "counterfactual/position"
    assert result.low > 0
    assert result.baselines["factual"].value == 1.0


def test_a_mind_with_a_part_that_is_not_causal_is_asked_too() -> None:
    few = PairsBenchmark("physics", Drawn(principles=("colour",), hidden=(True,), moving=(False,)), Stepwise())
    assert few.run(mind(), 4, Asking(1)).results


def test_who_has_not_learned_this_world_is_told_so() -> None:
    stranger = Mind(MindConfig(acting=mind().config.acting))
    for question in (PairsBenchmark("physics", Drawn(), Stepwise()), Hidden(), Counterfactual()):
        with pytest.raises(ValueError, match="does not know 'physics' but arm; train one on what `ami collect"):
            question.run(stranger, 4, Asking(1))
