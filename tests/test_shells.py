"""The shell game: what is drawn, and that only who remembers can answer."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ami.evaluation.benchmark import Asking
from ami.evaluation.suites.occluded import Occluded
from ami.evaluation.suites.shells import ShellGame
from ami.types import Belief, Latent, WorldModel
from ami.worlds import cups
from ami.worlds.alone import MIDDLE, stops_behind
from ami.worlds.cups import PEEK, SWAP, TRUTH, course, draw, games, lay, play
from ami.worlds.violations import EMBODIMENT as PHYSICS
from ami.worlds.violations import TRUTH as PHYSICAL


def played(count: int, seed: int = 0, frames: int = 40) -> tuple[cups.Table, cups.Play, cups.Course]:
    rng = np.random.default_rng(seed)
    table = lay(count, rng)
    kind = rng.choice(4, (count, frames // 2), p=[0.1, 0.6, 0.2, 0.1])
    kind[:, 0] = PEEK
    plays = play(table, kind, rng)
    return table, plays, course(table, plays, frames)


def test_the_ball_goes_with_its_cup_and_what_cannot_be_seen_of_it_is_not_drawn():
    table, _, runs = played(8)
    np.testing.assert_allclose(np.abs(runs.cups[..., 0] - runs.ball[:, :, None, 0]).min(2), 0.0, atol=1e-9)
    films = draw(table, runs, np.random.default_rng(1))[0]
    other = replace(table, paint=table.paint * np.array([1.0, 1.0, 0.3])[:, None])
    differs = (draw(other, runs, np.random.default_rng(1))[0] != films).any((2, 3, 4))
    np.testing.assert_array_equal(differs, ~runs.hidden)


def test_places_are_what_swaps_make_of_them():
    table, plays, runs = played(30, 1, 60)
    ends = np.cumsum(plays.frames, 1) - plays.up[:, :1]
    for film in range(30):
        place = plays.ball[film]
        for event, end in enumerate(ends[film]):
            one, two = plays.pair[film, event]
            if plays.kind[film, event] == SWAP:
                place = {one: two, two: one}.get(place, place)
            if end < 60:
                at = table.places[film, place]
                assert runs.ball[film, end, 0] == pytest.approx(
                    at, abs=2.0 if plays.kind[film, event + 1] == SWAP else 1e-6
                )
                assert plays.kind[film, event + 1] == SWAP or runs.place[film, end] == place


def test_nobody_jumps_and_the_nearer_of_two_that_swap_is_drawn_last():
    table, _, runs = played(30, 2, 60)
    assert np.abs(np.diff(runs.cups[..., 0], axis=1)).max() < 9.5  # px: a cell and a bit
    aside = np.abs(runs.depth - table.floor[:, None, None])
    assert ((aside > 1e-6).sum(2) <= 2).all(), "more than two move at once"
    assert (runs.depth.max(2) - table.floor[:, None] > 3.0).any()


def test_an_action_says_when_all_cups_go_up():
    _, _, runs = played(30, 3)
    up = runs.cups[..., 1] < runs.cups[..., 1].max((1, 2), keepdims=True) - 1e-6
    done = runs.done[..., 0] > 0
    assert done.any()
    raised = (runs.depth - runs.cups[..., 1]) - (runs.depth - runs.cups[..., 1]).min((1, 2), keepdims=True)
    assert (raised[:, 1:][done] > 0.5).all()
    assert up.any()
    rises = (np.diff(raised, axis=1) > 1e-6).all(2)
    assert (done | ~rises).all(), "all cups went up and nobody was told"


def test_films_for_training_have_their_truth():
    episodes = cups.collect(6, 30, seed=4)
    told = np.stack([each.truth for each in episodes])
    assert told.shape == (6, 30, len(TRUTH))
    hidden, age = (told[..., TRUTH.index(name)] for name in ("hidden", "age"))
    assert (hidden[:, 0] == 0).all()
    assert ((age > 0) == (hidden > 0)).all()
    again = cups.collect(6, 30, seed=4)
    np.testing.assert_array_equal(episodes[5].video, again[5].video)
    with pytest.raises(ValueError, match="at least 1 of 12"):
        cups.collect(1, 3)


def test_in_films_for_training_all_cups_go_up_while_nothing_moves_or_else_more_than_a_ball_would_tell_acts_apart():
    for film in cups.collect(12, 60, seed=7):
        acts = 1 + np.flatnonzero(film.actions[:, 0])
        assert len(acts) > 3
        pictures = film.video[acts].astype(int)
        moved = (np.abs(pictures - np.median(pictures, 0)).max(-1) > 0).sum((1, 2))
        assert moved.max() < 120  # px: two balls


def test_games_differ_in_what_is_under_which_cup_and_in_nothing_else():
    asked = games(30, 2, np.random.default_rng(5))
    futures = asked.futures.astype(int)
    assert (futures[0] != futures[1]).any((1, 2, 3, 4)).all()
    apart = (np.abs(futures - futures[[1, 2, 0]]).max(-1) > 0).sum((-1, -2))
    assert 0 < apart[..., -1].mean() < 120  # px: two balls
    assert (asked.done[:, :-3] == 0).all()
    assert (asked.done[:, -3:] == 1).all()
    assert set(asked.answer) == {0, 1, 2}
    assert np.bincount(asked.answer).min() > 4


class Snapshot(WorldModel):
    """It remembers the first picture that it saw, and expects that what comes looks like it."""

    embodiments = {cups.EMBODIMENT.name: cups.EMBODIMENT, PHYSICS.name: PHYSICS}  # noqa: RUF012
    latent_shape = (16, 16)

    def encode(self, clip):
        return Latent(clip.video[:, :, 0].flatten(2, 3).float(), clip.times)

    def believe(self, belief, seen, actions, embodiment=""):
        first = seen.values[:, 0] if belief is None else belief.recurrent
        return Belief(embodiment, seen.between(seen.steps - 1, seen.steps), None, first)

    def energy(self, belief, actions, future):
        return (future.values - belief.recurrent[:, None]).abs().mean((2, 3))


def test_who_remembers_where_it_was_knows_while_nobody_moves_it():
    (still,) = ShellGame(0).run(Snapshot(), 48, Asking()).results
    assert still.value == 1.0
    assert still.baselines["window"].value < 0.7
    assert still.baselines["shuffled"].value < 0.7
    (moved,) = ShellGame(3).run(Snapshot(), 48, Asking(untrained=Snapshot())).results
    assert moved.value < 0.7
    assert moved.baselines["untrained"].value == moved.value


def test_a_model_of_another_world_is_refused():
    model = Snapshot()
    model.embodiments = {PHYSICS.name: PHYSICS}
    with pytest.raises(ValueError, match="does not know 'cups' but physics"):
        ShellGame(0).run(model, 2, Asking())


def test_what_stops_behind_a_screen_is_hidden_at_every_age():
    for film in stops_behind(8, 60, np.random.default_rng(6)):
        assert film.truth is not None
        assert (film.truth[MIDDLE:, PHYSICAL.index("a_hidden")] == 1).all()
        assert film.truth[0, PHYSICAL.index("a_hidden")] == 0
        speed = np.hypot(*film.truth[:, [PHYSICAL.index(name) for name in ("a_dx", "a_dy")]].T)
        assert speed[MIDDLE + 10] > 0.1
        assert speed[-1] < 0.02


class LastMotion(Snapshot):
    """It remembers where something moved last: the middle of what changed, and since when it is so."""

    def believe(self, belief, seen, actions, embodiment=""):
        picture = seen.values.unflatten(2, (3, 64)).mean(2)
        change = (picture[:, 1:] - picture[:, :-1]).abs()
        change = change * (change > 1.0)
        last = (torch.arange(seen.steps - 1) * (change.amax((2, 3)) > 0)).argmax(1)
        there = change[torch.arange(len(change)), last] + 1e-6
        at = torch.arange(64.0)
        middle = torch.stack([(there.sum(axis) * at).sum(1) / there.sum((1, 2)) for axis in (1, 2)], 1)
        return Belief(embodiment, seen.between(seen.steps - 1, seen.steps), None, middle)


def test_where_it_went_out_of_sight_is_read_at_any_age_from_who_remembers_it():
    (place,) = Occluded(30, learn=64).run(LastMotion(), 48, Asking()).results
    assert place.benchmark == "recall/occluded/age-30/position"
    assert place.value > 0.35
    assert place.baselines["window"].value < 0.3
