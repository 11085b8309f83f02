"""I-PHYRE: the same games as the package's, drawn ones beside them, and attempts that are counted."""

import importlib
import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch

from ami.evaluation.benchmark import Asking
from ami.evaluation.simulator import IPhyreSimulator
from ami.evaluation.suites import SUITES
from ami.evaluation.suites.iphyre import IPhyreBenchmark, height, imagine
from ami.models.objects import ObjectModel, ObjectsConfig
from ami.types import Clip
from ami.worlds import iphyre, layouts
from ami.worlds.gym import record

MISSING = [name for name in ("iphyre", "pymunk", "pygame") if importlib.util.find_spec(name) is None]
needs_games = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {MISSING}; pip install 'openami[iphyre]'")
BENCHMARK = IPhyreBenchmark(samples=16, simulated=16)
TWO = iphyre.Layout(
    blocks=((200, 400, 300, 400), (200, 500, 300, 500)),
    balls=((250, 340, 20),),
    moves=(False, False),
    removable=(True, True),
)


@pytest.mark.skipif("pymunk" not in MISSING, reason="drawn games need pymunk alone, and it is installed")
def test_what_is_missing_is_said() -> None:
    with pytest.raises(ValueError, match=r"openami\[iphyre\]"):
        record("i-phyre", 1, 2, 0)


@needs_games
def test_plays_are_those_of_the_package() -> None:
    simulator = importlib.import_module("iphyre.simulator")
    rng, steps = np.random.default_rng(3), 60
    for name, layout in iphyre.games().items():
        clicks = simulator.IPHYRE(name).get_action_space()
        theirs, ours, solved = simulator.IPHYRE(name), iphyre.Play(layout), False
        theirs.reset()
        for removed in iphyre.actions(layout, iphyre.random_plan(layout, rng)[None] / 2, steps)[0]:
            (gone,) = np.nonzero(removed)
            told = ours.step(gone.tolist())
            for tick in range(iphyre.REPEAT):
                click = [0.0, 0.0] if tick >= len(gone) else clicks[1 + layout.choices.index(gone[tick])]
                seen, _, done = theirs.step(click)
                solved |= done
            if len(gone) > 1:
                break  # the package removes one a tick
            ends = np.concatenate([told[:, :2] - told[:, 2:4], told[:, :2] + told[:, 2:4]], 1)
            np.testing.assert_allclose(ends, seen[:, :4], atol=1e-3, err_msg=name)
            assert solved == ours.solved
            if solved:
                break


@needs_games
def test_a_beginning_tells_its_layout() -> None:
    known = iphyre.games()
    assert len(known) == 40
    for name, layout in known.items():
        again = iphyre.Layout.told(iphyre.Play(layout).objects())
        for field in ("blocks", "balls"):
            np.testing.assert_allclose(getattr(again, field), getattr(layout, field), atol=1e-3, err_msg=name)
        assert (again.moves, again.removable) == (layout.moves, layout.removable)
        assert {frozenset(pair) for pair in again.joints} == {frozenset(pair) for pair in layout.joints}
        assert {frozenset(pair) for pair in again.springs} == {frozenset(pair) for pair in layout.springs}


@needs_games
def test_drawn_games_are_as_many_as_one_likes_and_none_of_the_forty() -> None:
    first, again, other = (layouts.collect(2, 30, seed) for seed in (1, 1, 2))
    assert [each.digest for each in first] == [each.digest for each in again] != [each.digest for each in other]
    drawn = [layouts.drawn(np.random.default_rng(seed)) for seed in range(60)]
    assert not {layout.blocks for layout in drawn} & {layout.blocks for layout in iphyre.games().values()}
    assert any(layout.joints for layout in drawn)
    assert any(layout.springs for layout in drawn)
    for layout in drawn:
        assert 1 <= len(layout.choices) <= 6
        game = iphyre.Play(layout)
        before, after = game.objects(), game.step()
        assert np.abs(after - before)[:, :2].max() < 25.0, "nothing that was drawn bursts apart"


@needs_games
def test_a_plan_removes_each_block_at_its_moment() -> None:
    solved, passed = iphyre.play(TWO, np.array([1.0, 2.0]))
    there = passed[:, :3, iphyre.THERE]
    assert solved
    assert there[:11].all()
    assert not there[11:, 0].any()
    assert there[20, 1]
    assert not there[21:, 1].any()
    for never in (np.array([np.inf, 2.0]), np.array([1.0, np.inf])):
        assert not iphyre.play(TWO, never)[0]
    assert float(height(torch.from_numpy(passed[-1]))) == 0.0
    assert float(height(torch.from_numpy(passed[0]))) == 260.0


def test_random_plans_are_the_packages() -> None:
    rng = np.random.default_rng(0)
    plans = np.stack([iphyre.random_plan(TWO, rng) for _ in range(500)])
    held = plans[np.isfinite(plans)]
    assert 0.15 < np.isinf(plans).mean() < 0.25
    assert held.min() == 0.1
    assert held.max() == 7.5
    np.testing.assert_allclose(held * 10, np.round(held * 10))
    done = iphyre.actions(TWO, plans, 150)
    assert done.sum() == len(held)
    assert not done[:, :, 2:].any()


@needs_games
def test_a_picture_shows_what_is_there() -> None:
    game = iphyre.Play(TWO)
    picture = iphyre.render(game.objects()).astype(int)
    x, ball, block = 27, 36, 43  # 250, 340 and 400 px
    assert picture.shape == (64, 64, 3)
    assert picture[ball, x, 0] - picture[ball, x, 2] > 150
    assert np.ptp(picture[block, x]) == 0
    assert picture[block, x, 0] < 200
    assert (iphyre.render(game.step([0]))[block, x] > 240).all()


@needs_games
def test_imagining_with_the_simulator_foretells_what_happens() -> None:
    rng = np.random.default_rng(1)
    for name in ("hole", "pendulum", "multi_ball_spring"):
        layout = iphyre.games()[name]
        plans = np.stack([iphyre.random_plan(layout, rng) for _ in range(8)])
        _, promise = imagine(IPhyreSimulator(), layout, plans)
        assert ((promise > 0.6).numpy() == [iphyre.play(layout, plan)[0] for plan in plans]).all()


@needs_games
def test_attempts_are_counted_and_a_model_that_knows_needs_fewer() -> None:
    known = list(iphyre.games().values())[:8]
    knows = BENCHMARK.plan(IPhyreSimulator(), known, Asking(), "simulator", 16)
    chance = BENCHMARK.search(known, Asking(), None)
    assert knows.within(1).sum() > chance.within(1).sum()
    assert (knows.within(1) <= knows.within(10)).all()
    assert knows.took.max() <= 10
    again = BENCHMARK.plan(IPhyreSimulator(), known[:2], Asking(), "simulator", 16)
    assert (again.took == knows.took[:2]).all(), "a game's attempts do not depend on how many games are asked"
    assert (BENCHMARK.search(known, Asking(seed=1), 0.5).took != chance.took).any()


@needs_games
def test_the_benchmark_answers_with_its_baselines_and_films() -> None:
    body = iphyre.BODY
    model = ObjectModel(ObjectsConfig(embodiments={body.name: body}, width=8, rounds=1)).eval()
    answer = replace(BENCHMARK, samples=4, simulated=4, attempts=2).run(model, 2, Asking(strips=1, untrained=model))
    solved, first = answer.results
    assert (solved.benchmark, solved.metric, first.metric) == ("i-phyre", "solved", "solved_first")
    assert set(solved.baselines) == {"random", "no-model", "simulator", "untrained"}
    assert solved.value >= first.value
    assert solved.model_calls == 8
    assert len(answer.strips) == 1
    assert SUITES["i-phyre"].asked[0][1] % 40 == 0, "every game is asked equally often"


def test_a_model_of_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="learned from 'i-phyre'"):
        BENCHMARK.run(_Other(), 1, Asking())


def test_a_layout_has_a_ball_and_room() -> None:
    with pytest.raises(ValueError, match="1 ball or more"):
        replace(TWO, balls=())
    with pytest.raises(ValueError, match="at most 12 objects"):
        replace(TWO, balls=TWO.balls * 11)


def test_the_simulator_says_what_it_needs() -> None:
    with pytest.raises(ValueError, match="describes no objects"):
        IPhyreSimulator().encode(Clip("i-phyre", torch.zeros(1, 1)))


class _Other(ObjectModel):
    def __init__(self) -> None:
        super().__init__(ObjectsConfig(embodiments={"other": replace(iphyre.BODY, name="other")}, width=8))
