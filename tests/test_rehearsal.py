"""Going over what surprised: which moments, what is learned of them, and what is then no surprise any more."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ami.data.episodes import Store
from ami.models import checkpoint, contract
from ami.models.recurrent import RecurrentConfig, RecurrentJEPA, sized
from ami.objectives.rehearsal import Rehearsal
from ami.recipes.physics import PhysicsSettings, physics
from ami.recipes.rehearsed import RehearsedStore
from ami.training.loop import begin, fit
from ami.training.run import Tick, train
from ami.types import Clip
from ami.worlds.violations import EMBODIMENT
from tiny_stores import life_store

BODY = replace(EMBODIMENT, action_mean=(0.0, 0.0), action_std=(0.2, 0.2))
HOW = {"steps": 24, "films": 99, "surprises": 3, "seed": 0}


def model(seed: int = 0, *, careful: int = 1, screened: tuple[str, ...] = (BODY.name,)) -> RecurrentJEPA:
    """Untrained, but no longer expecting that nothing changes."""
    torch.manual_seed(seed)
    config = sized({BODY.name: BODY}).model_copy(update={"careful": careful, "screened": screened})
    made = RecurrentJEPA(RecurrentConfig(**config.model_dump()))
    with torch.no_grad():
        for name, parameter in sorted(made.named_parameters()):
            if not name.startswith("stem"):
                parameter.add_(0.05 * torch.randn_like(parameter))
    return made.eval()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return life_store(tmp_path_factory.mktemp("films") / "physics")


@pytest.fixture(scope="module")
def clip(store: Store) -> Clip:
    return store.clips(store.windows(24)[:3], 24)


def test_it_keeps_the_contract(clip: Clip) -> None:
    contract.check(model(), clip.between(0, 8))


def test_nothing_surprises_that_was_expected_by_either(clip: Clip) -> None:
    made = model()
    alone = model(screened=())  # the same numbers, but films of which nothing was rehearsed
    with torch.no_grad():
        seen = made.encode(clip)
        belief = made.believe(None, seen.between(0, 6), None, BODY.name)
        done, rest = torch.zeros(3, 2, 2), seen.between(6, 8)
        once, twice = alone.energy(belief, done, rest), made.energy(belief, done, rest)
        assert (twice <= once).all()
        assert (twice < once).any()
        torch.testing.assert_close(made.predict(belief, done, 2).values, alone.predict(belief, done, 2).values)
        # Who was right the second time is not surprised, whatever was expected at first.
        grid = made._grid(rest.values[:, 0]).repeat(1, 2, 1, 1)
        made.careful.expect = lambda held, condition: (grid, torch.zeros(3, 1, 8, 8))
        assert made.energy(belief, done[:, :1], rest.between(0, 1)).max() < 1e-9


def test_it_begins_as_what_the_memory_expects(clip: Clip) -> None:
    made = model()
    Rehearsal(made)
    for block in made.careful.further:
        torch.nn.init.zeros_(block.out.weight)
        torch.nn.init.zeros_(block.out.bias)
    with torch.no_grad():
        lived = made.live(made.encode(clip), clip.actions, BODY.name)
        again, doubt = made.foretell(lived.held[:, 5], clip.actions[:, 5], BODY.name)
    torch.testing.assert_close(again, lived.expected[:, 5])
    torch.testing.assert_close(doubt, lived.doubt[:, 5])


def test_moments_are_those_that_surprised_most_and_what_is_about_them(store: Store) -> None:
    made = model()
    films = store.clips(store.windows(24), 24)
    with torch.no_grad():
        seen = made.encode(films)
        lived = made.live(seen, films.actions, BODY.name)
        surprise = made.surprises(seen, lived)[:, 3:]
    held = RehearsedStore(store, made, **HOW, episodes=range(len(store)))
    rows = held.windows(2)
    assert len(held) == len(rows) == 3 * 4 + len(films)
    clips = held.clips(rows, 2)
    film = int(surprise.amax(1).argmax())
    step = 3 + int(surprise[film].argmax())
    before, came = clips.latents[:, 0], clips.latents[:, 1]
    there = (before - lived.held[film, step]).abs().amax((1, 2)) < 0.01
    assert there.sum() >= 1, "what surprised most of all is missing"
    torch.testing.assert_close(came[there][0, :, -64:-32], seen.values[film, step + 1], atol=0.01, rtol=0.01)
    torch.testing.assert_close(came[there][0, :, -32:], seen.values[film, step + 1], atol=0.01, rtol=0.01)
    torch.testing.assert_close(clips.actions[there][0, 0], films.actions[film, step])


def test_what_can_be_foretold_is_learned_and_nothing_else_is_touched(store: Store, tmp_path: Path) -> None:
    recipe = physics([store], 0, PhysicsSettings(steps=1, batch=2, rehearse=60, precision="fp32"))
    made = recipe.build()
    was = {name: value.clone() for name, value in made.state_dict().items()}
    progress = begin(made, recipe.stages[1], 0)
    losses = [measured["physics/prediction"] for measured in fit(progress, recipe.stages[1], 0)]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    for name, value in made.state_dict().items():
        if not name.startswith("careful"):
            assert torch.equal(value, was[name]), f"{name} was changed"


def test_who_was_not_built_for_it_is_told_so(store: Store) -> None:
    assert physics([store], 0, PhysicsSettings(steps=1, rehearse=0)).build().careful is None
    with pytest.raises(AssertionError, match="built to foretell once"):
        Rehearsal(model(careful=0))


def test_a_run_that_was_stopped_while_it_goes_over_ends_as_one_that_was_not(store: Store, tmp_path: Path) -> None:
    recipe = physics([store], 0, PhysicsSettings(steps=1, batch=2, rehearse=4, precision="fp32"))

    def stop(tick: Tick) -> None:
        if (tick.stage, tick.step) == ("rehearse", 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "stopped", save_every=2, watch=stop)
    ends = (
        train(recipe, tmp_path / "stopped", resume=True, save_every=2),
        train(recipe, tmp_path / "whole", save_every=2),
    )
    one, other = (checkpoint.digest(checkpoint.load(each)) for each in ends)
    assert one == other
