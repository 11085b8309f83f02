"""Things on a table: what the eye says of depth and pose against closed forms, and that the truth is what is seen."""

import importlib.util

import numpy as np
import pytest

from ami.data.episodes import Store
from ami.worlds import tabletop
from ami.worlds.bodies import mujoco_for
from ami.worlds.eye import INTRINSICS, ROOM, Eye, looking, mjcf, paint, room
from ami.worlds.task import SIZE

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mujoco") is None, reason="mujoco is not installed: pip install 'openami[worlds]'"
)
FRAMES = 12
ALONG = ("x", "y", "z")


@pytest.fixture(scope="module")
def eye() -> Eye:
    return Eye("a test")


@pytest.fixture(scope="module")
def films(eye: Eye) -> list[tabletop.Film]:
    return [tabletop.film(eye, FRAMES, (3, number)) for number in range(6)]


def rays() -> np.ndarray:
    """Where the middle of each pixel looks, in camera axes, a metre ahead."""
    fx, fy, cx, cy = INTRINSICS
    down, right = np.mgrid[:SIZE, :SIZE] + 0.5
    return np.stack([(right - cx) / fx, (down - cy) / fy, np.ones_like(right)], -1)


def told(film: tabletop.Film, who: str, *what: str) -> np.ndarray:
    assert film.episode.truth is not None
    return film.episode.truth[:, [tabletop.TRUTH.index(f"{who}_{each}") for each in what]]


def world(film: tabletop.Film, frame: int) -> np.ndarray:
    """Where everything seen is, by depth, intrinsics and pose alone."""
    episode = film.episode
    assert episode.depth is not None
    assert episode.pose is not None
    pose = episode.pose[frame]
    return (rays() * episode.depth[frame][..., None]) @ pose[:3, :3].T + pose[:3, 3]


def test_depth_is_that_of_a_plane_and_of_a_sphere(eye: Eye) -> None:
    mujoco, middle, radius = mujoco_for("a test"), np.array([0.1, -0.2, 0.4]), 0.3
    ball = f'<geom type="sphere" size="{radius}" pos="0.1 -0.2 0.4"/>'
    model = mujoco.MjModel.from_xml_string(mjcf(room(-0.25, np.ones((5, 3))) + ball))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    pose = looking(np.array([0.9, 0.5, 1.2]), np.array([0.0, 0.0, 0.3]), 0.2)
    seen = eye.look(model, data, pose)

    towards = rays() @ pose[:3, :3].T
    floor = (-0.25 - pose[2, 3]) / towards[..., 2]
    away = pose[:3, 3] - middle
    square, half = (towards**2).sum(-1), towards @ away
    under = half**2 - square * (away @ away - radius**2)
    met = under > 0
    sphere = (-half - np.sqrt(np.where(met, under, 0.0))) / square
    ball_number = model.ngeom - 1
    assert ((seen.geom == ball_number) != met).sum() < 25, "only its edge may differ: it is drawn with facets"
    inside = (seen.geom == ball_number) & (under > 0.02)
    assert inside.sum() > 300
    np.testing.assert_allclose(seen.depth[inside], sphere[inside], atol=0.008)
    ground = seen.geom == 0
    assert ground.sum() > 1000
    np.testing.assert_allclose(seen.depth[ground], floor[ground], rtol=1e-3)


def test_beyond_everything_depth_is_unknown(eye: Eye) -> None:
    mujoco = mujoco_for("a test")
    model = mujoco.MjModel.from_xml_string(mjcf(room(0.0, np.ones((5, 3)))))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    up = eye.look(model, data, looking(np.array([0.0, 0.0, 1.0]), np.array([0.01, 0.0, 9.0])))
    assert (up.depth == 0).any()
    np.testing.assert_array_equal(up.depth == 0, up.geom == -1)
    wall = eye.look(model, data, looking(np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 1.0])))
    assert wall.depth[SIZE // 2, SIZE // 2] == pytest.approx(ROOM, rel=1e-3)


def test_a_pose_has_right_down_and_ahead() -> None:
    pose = looking(np.array([0.0, -2.0, 1.0]), np.array([0.0, 0.0, 1.0]))
    np.testing.assert_allclose(pose[:3, :3].T, [[1, 0, 0], [0, 0, -1], [0, 1, 0]], atol=1e-12)
    rolled = looking(np.array([1.0, 2.0, 3.0]), np.array([0.3, 0.2, 0.1]), 0.7)
    np.testing.assert_allclose(rolled[:3, :3] @ rolled[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rolled) == pytest.approx(1.0)


def test_a_thing_is_seen_where_its_position_is_projected(films: list[tabletop.Film]) -> None:
    right = []
    for film in films:
        assert film.episode.pose is not None
        for frame, pose in enumerate(film.episode.pose):
            if told(film, "target", "pixels")[frame, 0] < 40:
                continue
            x, y, z = (told(film, "target", *ALONG)[frame] - pose[:3, 3]) @ pose[:3, :3]
            fx, fy, cx, cy = INTRINSICS
            right.append(film.segments[frame, int(fy * y / z + cy), int(fx * x / z + cx)] == 0)
    assert len(right) > 40
    assert np.mean(right) > 0.9, "now and then something stands before it"


def test_seen_points_lie_where_the_truth_says(films: list[tabletop.Film]) -> None:
    """Depth, pose and segments together: what is seen of a thing is not farther from its middle than it reaches."""
    for film in films:
        for frame in (0, FRAMES - 1):
            points = world(film, frame)
            for number, who in enumerate(tabletop.WHO):
                its = points[film.segments[frame] == number]
                far = np.linalg.norm(its - told(film, who, *ALONG)[frame], axis=1)
                assert (far < 0.19).all()
            rest = points[film.segments[frame] == -1]
            assert rest[:, 2].min() == pytest.approx(-tabletop.DEEP, abs=0.02)


def test_the_target_faces_its_white_end(films: list[tabletop.Film]) -> None:
    gaps = []
    for film in films:
        assert film.episode.video is not None
        its, points = film.segments[0] == 0, world(film, 0)
        pale = film.episode.video[0].min(-1) > 0.55 * film.episode.video[0].max(-1)
        white, red = points[its & pale], points[its & ~pale]
        if min(len(white), len(red)) >= 8:
            ahead = white.mean(0) - red.mean(0)
            gaps.append(np.arctan2(ahead[1], ahead[0]) - told(film, "target", "yaw")[0, 0])
    assert len(gaps) >= 3
    assert np.abs(np.angle(np.exp(1j * np.array(gaps)))).max() < 0.7


def test_actions_lead_from_pose_to_pose_within_their_bounds(films: list[tabletop.Film]) -> None:
    from scipy.spatial.transform import Rotation

    for film in films:
        poses, actions = film.episode.pose, film.episode.actions
        assert poses is not None
        assert actions is not None
        here = poses[0]
        for action in actions:
            step = np.eye(4)
            step[:3, :3], step[:3, 3] = Rotation.from_rotvec(action[3:]).as_matrix(), action[:3]
            here = here @ step
        np.testing.assert_allclose(here, poses[-1], atol=1e-9)
        assert (np.abs(actions) <= tabletop.EMBODIMENT.high).all()
    assert any(np.abs(film.episode.actions).max() > 0.03 for film in films)


def test_velocities_are_the_changes_of_positions_and_things_stay_on_the_table(films: list[tabletop.Film]) -> None:
    apart = []
    for film in films:
        place, velocity = told(film, "target", *ALONG), told(film, "target", "vx", "vy", "vz")
        mean = (velocity[1:] + velocity[:-1]) / 2
        apart.append(np.abs(np.diff(place, axis=0) / tabletop.EMBODIMENT.step_seconds - mean).max(1))
        assert (np.abs(place[:, :2]) < tabletop.HALF).all()
    assert np.median(np.concatenate(apart)) < 0.02, "m/s; only what collides changes faster"
    assert max(np.abs(told(film, "target", "vx")).max() for film in films) > 0.2


def test_the_same_key_gives_the_same_film_whatever_was_seen_before(eye: Eye, films: list[tabletop.Film]) -> None:
    again, other = (tabletop.film(eye, FRAMES, key) for key in ((3, 0), (4, 0)))
    for name, array in films[0].episode.arrays().items():
        np.testing.assert_array_equal(array, again.episode.arrays()[name])
    np.testing.assert_array_equal(films[0].segments, again.segments)
    assert other.episode.digest != again.episode.digest


def test_it_is_recorded_by_its_name(ami, tmp_path) -> None:
    assert ami("collect", "tabletop", "--out", tmp_path / "store", "--episodes", 2, "--steps", 3).code == 0
    store = Store.open(tmp_path / "store")
    assert set(store.fields) == {"times", "video", "depth", "pose", "intrinsics", "actions", "truth"}
    assert store.truth_names == tabletop.TRUTH
    with pytest.raises(ValueError, match="at least 1 of 2 steps"):
        tabletop.collect(1, 1, 0)


def test_paint_is_seen_on_whichever_model_is_looked_at(eye: Eye) -> None:
    mujoco, pose = mujoco_for("a test"), looking(np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.3]))
    shown = []
    for seed in (0, 1):
        model = mujoco.MjModel.from_xml_string(mjcf(room(0.0, np.ones((5, 3)))))
        paint(model, np.random.default_rng(seed))
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        shown.append((model, data, eye.look(model, data, pose)))
    (model, data, first), (_, _, second) = shown
    for number in (0, 1):  # floor, and the wall that is ahead
        its = first.geom == number
        assert first.video[its].std() > 5
        assert np.abs(first.video[its].astype(int) - second.video[its]).mean() > 5
    np.testing.assert_array_equal(eye.look(model, data, pose).video, first.video)
