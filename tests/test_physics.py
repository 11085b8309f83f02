"""The physical world: what it conserves, and that nothing but physics tells the films of a pair apart."""

from dataclasses import replace

import numpy as np
import pytest

from ami.worlds import violations
from ami.worlds.physics import MOVERS, SIZE, Movers, Stage, paths
from ami.worlds.scenes import PRINCIPLES, free, scenes
from ami.worlds.violations import BLINKS, FRAMES, GREY, experience, quadruplets

CELLS = [
    (principle, hidden, moving) for principle in PRINCIPLES for hidden in (False, True) for moving in (False, True)
]
POSSIBLE, IMPOSSIBLE = ((0, 0), (1, 1)), ((0, 1), (1, 0))


def still(count: int) -> tuple[Movers, Stage]:
    """Nothing there, no drag, no gravity."""
    zeros, none, flat = np.zeros((count, MOVERS, 2)), np.zeros((count, 4)), np.zeros(count)
    movers = Movers(
        zeros,
        zeros,
        zeros,
        np.full((count, MOVERS), 5.0),
        np.zeros((count, MOVERS), int),
        np.zeros((count, MOVERS, 3)),
        np.ones((count, MOVERS), bool),
    )
    return movers, Stage(np.zeros(count, int), none, none, flat, none, flat, flat, flat, np.zeros((count, 2)))


def test_momentum_and_energy_are_conserved():
    rng = np.random.default_rng(0)
    scene = free(200, rng)
    stage = replace(scene.stage, drag=np.zeros(200))
    _, velocity = paths(scene.movers, stage, FRAMES)
    there = scene.movers.there[..., None, None]
    momentum = (velocity * there).sum(1)
    energy = (velocity**2 * there).sum((1, -1))
    np.testing.assert_allclose(momentum, momentum[:, :1].repeat(FRAMES, 1), atol=1e-9)
    np.testing.assert_allclose(energy, energy[:, :1].repeat(FRAMES, 1), atol=1e-9)
    assert (np.abs(np.diff(velocity[:, 0], axis=1)).max((1, 2)) > 0.5).sum() > 5, "nobody ever met anybody"


def test_time_can_be_run_back():
    scene = free(50, np.random.default_rng(1))
    forwards, velocity = paths(scene.movers, scene.stage, FRAMES)
    last = replace(scene.movers, position=forwards[:, :, -1], coming=velocity[:, :, -1], going=velocity[:, :, -1])
    ended = replace(scene.stage, moment=np.full(50, FRAMES - 1))
    backwards, _ = paths(last, ended, FRAMES)
    alone = scene.movers.there.sum(1) == 1  # a meeting falls on other parts of a frame
    np.testing.assert_allclose(backwards[alone][:, 0], forwards[alone][:, 0], atol=1e-9)


def test_who_else_is_simulated_changes_nothing():
    rng = np.random.default_rng(3)
    parts = [free(5, rng), *(scenes(name, 3, rng, hidden=False, moving=True)[0] for name in ("solidity", "gravity"))]
    movers = Movers.joined([part.movers for part in parts])
    together = paths(movers, Stage.joined([part.stage for part in parts]), FRAMES)
    alone = [paths(part.movers, part.stage, FRAMES) for part in parts]
    for found, each in zip(together, zip(*alone, strict=True), strict=True):
        np.testing.assert_array_equal(found, np.concatenate(each))


def test_drag_takes_its_share_in_every_frame():
    movers, stage = still(1)
    movers = replace(
        movers, going=movers.going + np.array([[[2.0, 0.0], [0.0, 0.0], [0.0, 0.0]]]), there=np.eye(3)[:1] > 0
    )
    _, velocity = paths(movers, replace(stage, drag=np.array([0.1])), 5)
    np.testing.assert_allclose(velocity[0, 0, :, 0], 2.0 * 0.9 ** np.arange(5))


def test_what_falls_lands_and_what_hangs_stays_until_its_rope_is_pulled():
    movers, stage = still(3)
    movers = replace(
        movers, position=movers.position + np.array([20.0, 25.0]), there=np.array([[True, False, False]] * 3)
    )
    rope = np.array([[0.0] * 4, *[[19.0, -9.0, 21.0, 19.0]] * 2])
    stage = replace(stage, gravity=np.full(3, 0.25), floor=np.full(3, 58.0), rope=rope, pull=np.array([0.0, 0.0, 2.0]))
    position, _ = paths(movers, stage, 60)
    assert position[0, 0, -1, 1] == pytest.approx(53.0, abs=0.5)
    np.testing.assert_allclose(position[1, 0, :, 1], 25.0)
    np.testing.assert_allclose(position[2], position[0])


@pytest.mark.parametrize(("principle", "hidden", "moving"), CELLS)
def test_twins_are_the_same_to_the_byte_up_to_the_moment_and_frames_are_shared(principle, hidden, moving):
    films = quadruplets(principle, 4, 3, hidden=hidden, moving=moving)
    for number, moment in enumerate(films.moment):
        quad = films.films[:, :, number]
        for begins in (0, 1):
            np.testing.assert_array_equal(quad[begins, 0, :moment], quad[begins, 1, :moment])
        assert (quad[0, 0] != quad[0, 1]).any()
        for goes in (0, 1) if principle != "gravity" else ():
            np.testing.assert_array_equal(quad[0, goes, moment:], quad[1, goes, moment:])
        wide = quad.astype(int)
        np.testing.assert_allclose(wide[0, 0] + wide[1, 1], wide[0, 1] + wide[1, 0], atol=12)  # soft edges may touch
        if principle in BLINKS and not hidden:
            assert (quad[:, :, moment] == GREY).all()
        else:  # at the moment itself nothing shows
            np.testing.assert_array_equal(quad[0, 0, moment], quad[0, 1, moment])


def brightness(film: np.ndarray) -> float:
    return float(film.mean(dtype=float))


def frame_difference(film: np.ndarray) -> float:
    return float(np.abs(np.diff(film.astype(int), axis=0)).sum())


def squared_copy(film: np.ndarray) -> float:
    return float((np.diff(film.astype(int), axis=0) ** 2).sum())


@pytest.mark.parametrize("score", [brightness, frame_difference, squared_copy])
@pytest.mark.parametrize(("principle", "hidden", "moving"), CELLS)
def test_no_shortcut_tells_them_apart(score, principle, hidden, moving):
    films = quadruplets(principle, 12, 11, hidden=hidden, moving=moving).films
    right = []
    for quad in np.moveaxis(films, 2, 0):
        scores = np.array([[score(quad[i, j]) for j in (0, 1)] for i in (0, 1)])
        for begins in (0, 1):  # the twin that goes on as it began is possible
            apart = scores[begins, 1 - begins] - scores[begins, begins]
            right.append(0.5 if abs(apart) < 1e-9 * abs(scores[begins, begins]) else float(apart > 0))
    assert np.mean(right) == pytest.approx(0.5, abs=0.03)


def test_films_for_training_are_possible_told_and_blown_by_their_gusts():
    video, gusts, truth = experience(60, np.random.default_rng(5))
    assert video.shape == (60, FRAMES, SIZE, SIZE, 3)
    assert gusts.shape == (60, FRAMES - 1, 2)
    assert np.isfinite(truth).all()
    assert 0 < (gusts != 0).any((1, 2)).sum() < 40
    there = truth[..., violations.TRUTH.index("a_there")]
    assert (there == there[:, :1]).all(), "somebody came or went"


def test_the_same_seed_draws_the_same_films():
    one, same, other = (quadruplets("colour", 3, seed, hidden=True, moving=True).films for seed in (4, 4, 5))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_held_out_looks_are_never_seen_in_training():
    rng = np.random.default_rng(2)
    seen, _ = scenes("colour", 300, rng, hidden=False, moving=True)
    held, _ = scenes("colour", 300, rng, hidden=False, moving=True, held_out=True)
    assert not set(seen.movers.shape.ravel()) & set(held.movers.shape.ravel())
    assert np.linalg.norm(seen.stage.camera, axis=1).max() <= np.linalg.norm(held.stage.camera, axis=1).min()


def test_an_unknown_principle_is_refused():
    with pytest.raises(ValueError, match="no principle 'magic'"):
        quadruplets("magic", 1, 0, hidden=False, moving=False)
