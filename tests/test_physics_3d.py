"""Physics staged in a room: nothing but physics tells the films of a pair apart, and the truth is what is seen."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest

from ami.data.episodes import Episode, Store
from ami.evaluation.benchmark import Asking
from ami.evaluation.suites import SUITES, physics
from ami.evaluation.suites.pairs import PairsBenchmark
from ami.evaluation.suites.physics_3d import Staged
from ami.models.baselines import Pixels
from ami.models.recurrent import RecurrentJEPA, sized
from ami.reasoning.rules import Stepwise
from ami.worlds import staged, violations
from ami.worlds.scenes import PRINCIPLES, free, scenes
from ami.worlds.violations import BLINKS, FRAMES, GREY, quadruplets

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mujoco") is None, reason="mujoco is not installed: pip install 'openami[worlds]'"
)
CELLS = [(p, hidden, moving) for p in PRINCIPLES for hidden in (False, True) for moving in (False, True)]
ALONG = ("x", "y", "z")


@pytest.fixture(scope="module")
def studio() -> staged.Studio:
    return staged.Studio()


@pytest.fixture(scope="module")
def films() -> list[Episode]:
    return staged.collect(16, 16, 2)


def told(film: Episode, *what: str) -> np.ndarray:
    """Of the first mover."""
    assert film.truth is not None
    return film.truth[:, [staged.TRUTH.index(f"a_{each}") for each in what]]


@pytest.mark.parametrize(("principle", "hidden", "moving"), CELLS)
def test_twins_share_their_frames_and_show_nothing_at_the_moment(studio, principle, hidden, moving) -> None:
    films = quadruplets(principle, 1, 3, hidden=hidden, moving=moving, draw=studio.draw)
    quad, moment = films.films[:, :, 0].astype(int), int(films.moment[0])
    for begins in (0, 1):
        np.testing.assert_array_equal(quad[begins, 0, :moment], quad[begins, 1, :moment])
    # So no sum over frames or over neighbouring ones is another: of gravity it is so pixel by pixel.
    np.testing.assert_array_equal(quad[0, 0] + quad[1, 1], quad[0, 1] + quad[1, 0])
    if principle in BLINKS and not hidden:
        assert (quad[:, :, moment] == GREY).all()
    else:
        np.testing.assert_array_equal(quad[0, 0, moment], quad[0, 1, moment])
        np.testing.assert_array_equal(quad[0, 0, moment], quad[1, 1, moment])
    shows = (np.abs(quad[0, 0] - quad[0, 1]).max(-1) > 12).sum((1, 2))
    assert shows[moment:].max() > 8, "what is impossible is to be seen"
    assert (np.abs(quad[0, 0] - quad[1, 0]).max(-1) > 12).sum((1, 2)).max() > 8, "and what was possible before it"


def test_a_board_hides_what_it_must_from_every_side(studio) -> None:
    for seed, principle in enumerate(("continuity", "collision", "gravity", "unity", "solidity")):
        films = quadruplets(principle, 2, 50 + seed, hidden=True, moving=True, draw=studio.draw)
        for number, moment in enumerate(films.moment):
            np.testing.assert_array_equal(films.films[0, 0, number, moment], films.films[1, 1, number, moment])


def test_nobody_comes_or_goes_and_the_camera_blinks_now_and_then(films) -> None:
    blind = 0
    for film in films:
        assert film.video is not None
        assert film.depth is not None
        assert len(np.unique(told(film, "there"))) == 1
        grey = (film.video == GREY).all((1, 2, 3))
        np.testing.assert_array_equal(grey, (film.depth == 0).all((1, 2)))
        blind += grey.sum()
    assert 0 < blind < 2 * len(films)


def test_a_mover_is_seen_where_its_position_is_projected_at_its_depth(films) -> None:
    fits = []
    for film in films:
        assert film.pose is not None
        assert film.depth is not None
        fx, fy, cx, cy = staged.INTRINSICS
        for frame, pose in enumerate(film.pose):
            pixels = told(film, "pixels")[frame, 0]
            x, y, z = (told(film, *ALONG)[frame] - pose[:3, 3]) @ pose[:3, :3]
            column, row = int(fx * x / z + cx), int(fy * y / z + cy)
            if pixels > 25 and min(row, column) >= 0 and max(row, column) < 64:
                fits.append(0.0 < z - film.depth[frame, row, column] < 0.2)
    assert len(fits) > 100
    assert np.mean(fits) > 0.95, "now and then another stands before it"


def test_velocities_are_those_of_positions_and_what_falls_comes_to_rest_on_the_floor(studio) -> None:
    rng = np.random.default_rng(0)
    down, _ = scenes("gravity", 1, rng, hidden=False, moving=False)
    moment, open_ = int(down.stage.moment[0]), np.zeros(FRAMES + 20, bool)
    film = studio.film(down, np.zeros((len(open_) - 1, 2)), open_, rng)
    height, falls = told(film, "z")[:, 0], told(film, "vz")[:, 0]
    radius = staged.PIXEL * down.movers.radius[0, 0]
    np.testing.assert_allclose(height[:moment], height[0], atol=1e-6)
    assert height[-1] == pytest.approx(radius, abs=0.01)
    assert (height > radius - 1e-6).all()
    # 0.5 px a frame and frame is 1 m/s²: slow, as in the plane.
    gap = staged.EMBODIMENT.step_seconds
    np.testing.assert_allclose(np.diff(falls[moment : moment + 4]), -0.5 * staged.PIXEL / gap**2 * gap, rtol=1e-5)
    np.testing.assert_allclose(told(film, "x")[:, 0], told(film, "x")[0, 0], atol=1e-6)

    calm = replace(scene := free(1, rng), stage=replace(scene.stage, drag=np.zeros(1)))
    calm = replace(calm, movers=replace(calm.movers, there=np.array([[True, False, False]])))
    gusts = np.zeros((11, 2))
    gusts[5] = 0.3, -0.6
    film = studio.film(calm, gusts, np.zeros(12, bool), rng)
    place, speed = told(film, *ALONG), told(film, "vx", "vy", "vz")
    np.testing.assert_allclose(np.diff(place, axis=0)[:5] / gap, speed[:5], atol=1e-5)
    assert film.actions is not None
    pushed = [film.actions[5, 0] * gap, -film.actions[5, 1] * gap, 0.0]
    np.testing.assert_allclose(speed[6] - speed[5], pushed, atol=1e-5)
    assert np.linalg.norm(pushed) > 0.1


def test_the_same_seed_stages_the_same_films_and_they_make_a_store(films, tmp_path) -> None:
    assert [each.digest for each in staged.collect(16, 16, 2)] == [each.digest for each in films]
    store = Store.create(tmp_path / "store", staged.EMBODIMENT, staged.TRUTH)
    store.append(films)
    assert {"video", "depth", "pose", "intrinsics", "actions", "truth"} <= set(store.fields)
    with pytest.raises(ValueError, match="at least 1 of 12"):
        staged.collect(1, 4)


def test_who_copies_is_at_chance_and_who_has_not_learned_this_world_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(physics, "_ORDINARY", 6)
    source = Staged(("colour", "gravity"), moving=(False,))
    asked = PairsBenchmark("physics-3d", replace(source, hidden=(False,)), Stepwise())
    model = Pixels({staged.NAME: staged.EMBODIMENT}).eval()
    answer = asked.run(model, 4, Asking(seed=1))
    pairwise = [each for each in answer.results if each.metric == "pairwise"]
    assert {each.benchmark for each in pairwise} >= {
        "physics-3d/colour/visible/fixed",
        "physics-3d/gravity/visible/fixed",
    }
    for each in pairwise:
        assert each.value == 0.5
        assert {name: who.value for name, who in each.baselines.items()} == dict.fromkeys(each.baselines, 0.5)
    with pytest.raises(ValueError, match="ami collect physics-3d"):
        next(source.twins(RecurrentJEPA(sized({"physics": violations.EMBODIMENT}, "tiny")), 2, Asking()))
    assert [each.name for each, _ in SUITES["physics-3d-2"].asked] == ["physics-3d", "physics-3d-held-out"]
