"""Leaps: what is told at once of some steps later, which are learned, and when somebody is surprised by them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ami.agent import _joined
from ami.data.episodes import Store
from ami.memory.belief import load_belief, save_belief
from ami.models import checkpoint, contract
from ami.models.recurrent import RecurrentConfig, RecurrentJEPA, sized
from ami.reasoning.causes import Explaining, explain
from ami.reasoning.counterfactual import past
from ami.recipes.leaps import LeapStore
from ami.recipes.physics import PhysicsSettings, physics
from ami.training.loop import begin, fit
from ami.training.run import Tick, train
from ami.types import Belief, Clip, Latent
from ami.worlds.violations import EMBODIMENT
from tiny_stores import life_store

BODY = replace(EMBODIMENT, action_mean=(0.0, 0.0), action_std=(0.2, 0.2))
LEAP = 3


def model(leap: int = LEAP) -> RecurrentJEPA:
    """Untrained, but no longer expecting that nothing changes; who leaps or not is otherwise the same."""
    torch.manual_seed(0)
    config = sized({BODY.name: BODY}).model_copy(update={"leap": leap, "leaping": 1, "screened": (BODY.name,)})
    made = RecurrentJEPA(RecurrentConfig(**config.model_dump()))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in sorted(made.named_parameters(), key=lambda each: (each[0].startswith("leap"), each[0])):
            if not name.startswith("stem"):
                parameter.add_(0.05 * torch.randn_like(parameter))
    return made.eval()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return life_store(tmp_path_factory.mktemp("films") / "physics")


@pytest.fixture(scope="module")
def clip(store: Store) -> Clip:
    return store.clips(store.windows(24)[:3], 24)


@torch.no_grad()
def believed(made: RecurrentJEPA, seen: Latent, *stops: int) -> Belief:
    belief, start = None, 0
    for stop in stops:
        belief, start = made.believe(belief, seen.between(start, stop), None, BODY.name), stop
    assert belief is not None
    return belief


def test_it_keeps_the_contract(clip: Clip) -> None:
    contract.check(model(), clip.between(0, 8))


def test_a_step_is_judged_by_what_was_held_a_leap_before(clip: Clip) -> None:
    made, alone = model(), model(leap=0)
    with torch.no_grad():
        seen = made.encode(clip)
        rest = seen.between(6, 7)
        added = made.energy(believed(made, seen, 6), None, rest) - alone.energy(believed(alone, seen, 6), None, rest)
        held = believed(made, seen, 4).recurrent  # step 6 is three after step 3
        assert held is not None
        expected, doubt = made.leap_from(held)
        missed = (rest.values[:, 0] - expected).square().mean(-1) / (doubt.exp() + 0.05)
        assert (added[:, 0] > 0).all()
        # Where the view is quite clear; elsewhere less than that.
        assert (added[:, 0] <= missed.square().mean(-1) * (1 + 1e-5)).all()
        # Who was expected by a leap adds no surprise to that of the step itself.
        made.leap.forward = lambda held: (made._grid(rest.values[:, 0]), torch.zeros(3, 1, 8, 8))
        torch.testing.assert_close(
            made.energy(believed(made, seen, 6), None, rest), alone.energy(believed(alone, seen, 6), None, rest)
        )


def test_a_film_just_begun_is_not_judged_by_leaps(clip: Clip) -> None:
    made, alone = model(), model(leap=0)
    with torch.no_grad():
        seen = made.encode(clip)
        for steps in (1, 2):
            one, other = believed(made, seen, steps), believed(alone, seen, steps)
            rest = seen.between(steps, steps + 1)
            torch.testing.assert_close(made.energy(one, None, rest), alone.energy(other, None, rest))
        # But steps that lie a leap ahead are, by what is held now.
        rest = seen.between(1, 1 + LEAP)
        more = made.energy(believed(made, seen, 1), None, rest) - alone.energy(believed(alone, seen, 1), None, rest)
        assert (more[:, : LEAP - 1] == 0).all()
        assert (more[:, LEAP - 1] > 0).all()


def test_what_was_held_before_is_part_of_a_belief(clip: Clip, tmp_path: Path) -> None:
    made = model()
    with torch.no_grad():
        seen = made.encode(clip)
        whole, pieces = believed(made, seen, 6), believed(made, seen, 1, 2, 5, 6)
        assert whole.earlier is not None
        assert whole.earlier.shape == (3, LEAP - 1, 64, 128)
        torch.testing.assert_close(pieces.earlier, whole.earlier)
        torch.testing.assert_close(whole.earlier[:, -1], believed(made, seen, 5).recurrent)
        torch.testing.assert_close(made.predict(whole, None, 2).values, made.predict(pieces, None, 2).values)
        save_belief(tmp_path / "belief", whole, "0" * 64)
        again = load_belief(tmp_path / "belief", "0" * 64)
        rest = seen.between(6, 8)
        torch.testing.assert_close(made.energy(again, None, rest), made.energy(whole, None, rest))
        # Rows of films of other lengths are joined by what they all hold.
        young = believed(made, seen, 2)
        assert _joined([whole, young]).earlier.shape == (6, 1, 64, 128)
        assert _joined([whole, believed(made, seen, 1)]).earlier is None


def test_causes_are_judged_by_what_is_believed_now_alone(clip: Clip) -> None:
    made = model()
    belief, rest = past(made, clip.between(0, 6)), made.encode(clip).between(6, 10)
    explained = explain(made, replace(belief, earlier=torch.zeros(3, 2, 64, 128)), None, rest, Explaining(steps=3))
    assert belief.earlier is None
    assert explained.belief.earlier is None
    with torch.no_grad():
        torch.testing.assert_close(explained.history[0], made.energy(belief, None, rest).mean(1))
    assert (explained.history[-1] < explained.history[0]).all()


def test_leaps_begin_behind_screens_and_end_where_nothing_hides(store: Store) -> None:
    made, films = model(), store.clips(store.windows(24), 24)
    how = {"steps": 24, "films": 99, "each": 2, "seed": 0, "episodes": range(len(store))}
    plain = LeapStore(store, made, **how, screens=0.0)
    assert len(plain) == len(plain.windows(2)) == 2 * len(films)
    clips = plain.clips(plain.windows(2), 2)
    with torch.no_grad():
        seen = made.encode(films).values
        held = made.live(made.encode(films), films.actions, BODY.name).held
    begun, ended = clips.latents[0]
    film, step = [int(each) for each in (held - begun).abs().amax((2, 3)).lt(0.01).nonzero()[0]]
    assert step >= 2, "no speed is known yet"
    for layer in (ended[:, -64:-32], ended[:, -32:]):
        torch.testing.assert_close(layer, seen[film, step + LEAP], atol=0.01, rtol=0.01)
    hidden = LeapStore(store, made, **how, screens=1.0)
    behind = hidden.clips(hidden.windows(2), 2)
    assert behind.actions is None
    assert (behind.latents[:, 0] - clips.latents[:, 0]).abs().max() > 0.02, "no screen was put before them"
    torch.testing.assert_close(behind.latents[:, 1], clips.latents[:, 1])


def test_what_can_be_foretold_is_learned_and_nothing_else_is_touched(store: Store) -> None:
    recipe = physics([store], 0, PhysicsSettings(steps=1, batch=2, leaps=60, precision="fp32"))
    made = recipe.build()
    was = {name: value.clone() for name, value in made.state_dict().items()}
    progress = begin(made, recipe.stages[1], 0)
    losses = [measured["physics/prediction"] for measured in fit(progress, recipe.stages[1], 0)]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    for name, value in made.state_dict().items():
        assert torch.equal(value, was[name]) != name.startswith("leap"), f"{name} was changed, or did not learn"


def test_who_was_not_built_for_it_is_told_so(store: Store) -> None:
    assert physics([store], 0, PhysicsSettings(steps=1, leaps=0)).build().leap is None
    with pytest.raises(ValueError, match="a leap of 8 steps fits in clips of 11 or more, not of 10"):
        physics([store], 0, PhysicsSettings(clip=10))
    with pytest.raises(AssertionError, match="step by step"):
        model(leap=0).leap_from(torch.zeros(1, 64, 128))


def test_a_run_that_was_stopped_while_it_learns_to_leap_ends_as_one_that_was_not(store: Store, tmp_path: Path) -> None:
    recipe = physics([store], 0, PhysicsSettings(steps=1, batch=2, leaps=4, precision="fp32"))

    def stop(tick: Tick) -> None:
        if (tick.stage, tick.step) == ("leap", 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "stopped", save_every=2, watch=stop)
    ends = (
        train(recipe, tmp_path / "stopped", resume=True, save_every=2),
        train(recipe, tmp_path / "whole", save_every=2),
    )
    one, other = (checkpoint.digest(checkpoint.load(each)) for each in ends)
    assert one == other
