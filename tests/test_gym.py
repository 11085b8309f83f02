"""Any environment with pixels is recorded as it happened, and can be acted in again."""

import importlib.util

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from ami.types import Embodiment
from ami.worlds.gym import WORLDS, collect, make, record, to_action
from ami.worlds.tasks import TASKS


class Dial(gymnasium.Env):
    """A dial of brightness, turned by the action; shown in one of three ways, and full after it passes 250."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(self, shown: str = "box", actions: str = "box", render_mode: str | None = None) -> None:
        self.shown, self.render_mode = shown, render_mode
        picture = spaces.Box(0, 255, (32, 48, 1 if shown == "grey" else 3), np.uint8)
        vector = spaces.Box(-1.0, 1.0, (2,), np.float64)
        kinds = {"dict": spaces.Dict({"pose": vector, "camera": picture}), "rendered": vector}
        self.observation_space = kinds.get(shown, picture)
        self.action_space = {
            "box": spaces.Box(np.array([[-10.0], [0.0]], np.float32), np.array([[10.0], [30.0]], np.float32)),
            "discrete": spaces.Discrete(3, start=5),
            "unbounded": spaces.Box(-np.inf, np.inf, (1,)),
            "many": spaces.MultiDiscrete([2, 2]),
        }[actions]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.level = float(self.np_random.integers(10, 20))
        return self._observe(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        turned = 4.0 * (action - 5) if isinstance(self.action_space, spaces.Discrete) else float(np.sum(action))
        self.level = max(0.0, self.level + turned)
        return self._observe(), 0.0, self.level > 250, False, {}

    def render(self):
        if self.shown == "rendered" and self.render_mode is None:
            return None
        return np.full((32, 48, 1 if self.shown == "grey" else 3), min(self.level, 255), np.uint8)

    def _observe(self):
        vector = np.zeros(2)
        return {"dict": {"pose": vector, "camera": self.render()}, "rendered": vector}.get(self.shown, self.render())


@pytest.mark.parametrize("shown", ["box", "dict", "rendered", "grey"])
def test_pictures_and_actions_tell_what_happened(shown: str) -> None:
    body, episodes = collect(Dial(shown, "discrete", "rgb_array"), 3, 6, seed=1, action_repeat=2, size=16)
    assert (body.low, body.high, body.step_seconds) == ((0.0,) * 3, (1.0,) * 3, pytest.approx(0.1))
    assert len(episodes) == 3
    for episode in episodes:
        assert episode.video is not None
        assert episode.actions is not None
        assert episode.video.shape == (6, 16, 16, 3)
        np.testing.assert_allclose(episode.times, np.arange(6) * 0.1)
        np.testing.assert_array_equal(episode.actions.sum(1), 1.0)
        level = episode.video.mean((1, 2, 3))
        # Twice per step, the action's number times four; brightness cannot be negative here.
        np.testing.assert_allclose(np.diff(level), 8.0 * episode.actions.argmax(1))


def test_box_actions_stay_in_their_bounds_and_keep_their_shape() -> None:
    body, (episode, *_) = collect(Dial(), 2, 10, seed=0)
    assert (body.low, body.high) == ((-10.0, 0.0), (10.0, 30.0))
    assert episode.actions is not None
    assert episode.actions.shape[1] == 2
    assert (episode.actions >= body.low).all()
    assert (episode.actions <= body.high).all()


def test_the_environments_end_is_the_episodes_end() -> None:
    def turn_up(picture: np.ndarray, body: Embodiment, rng: np.random.Generator) -> np.ndarray:
        return np.array(body.high)

    _, (episode,) = collect(Dial(), 1, 100, seed=0, policy=turn_up)
    assert 2 < len(episode) < 10
    assert episode.video is not None
    assert episode.video[-1].min() >= 250
    assert episode.video[-2].max() <= 250


def test_the_same_seed_records_the_same() -> None:
    first, again, other = (collect(Dial(), 2, 5, seed=seed)[1] for seed in (3, 3, 4))
    assert [each.digest for each in first] == [each.digest for each in again]
    assert first[0].digest != first[1].digest
    assert first[0].digest != other[0].digest


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (Dial(actions="unbounded"), "not bounded"),
        (Dial(actions="many"), "MultiDiscrete"),
        (Dial("rendered"), "rgb_array"),
        ("CartPol-v1", "CartPole-v1"),
        ("no_such_module:Thing-v0", "cannot be made"),
    ],
)
def test_mistakes_are_named(env: gymnasium.Env | str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        collect(env, 1, 3, seed=0)


def test_a_model_action_becomes_the_environments_own() -> None:
    assert to_action(spaces.Discrete(3, start=5), np.array([0.1, 0.2, 0.9])) == 7
    box = spaces.Box(-1, 1, (2, 1), np.float32)
    assert box.contains(to_action(box, np.array([0.5, -0.5])))


def test_rooms_recorded_through_gymnasium_are_the_rooms() -> None:
    body, (episode,) = collect("ami/TwoRooms-door-v0", 1, 5, seed=0, action_repeat=4)
    assert body.step_seconds == pytest.approx(0.4)
    assert episode.video is not None
    assert episode.video.shape == (5, 64, 64, 3)


def test_worlds_have_names() -> None:
    recording = record("two-rooms/door", 2, 5, 0)
    assert recording.truth_names == ("agent_x", "agent_y", "wall_x", "door_y")
    assert len(recording.episodes) == 2
    assert set(WORLDS) == {
        "two-rooms/fixed",
        "two-rooms/door",
        "two-rooms/wall",
        "two-rooms/sealed",
        "two-rooms/revisited",
        "drawn-films",
        "physics",
        "physics-3d",
        "maze",
        "memory-maze",
        "tabletop",
        "cups",
        "first-person-rooms",
        "i-phyre",
        *TASKS,
    }
    films = record("drawn-films", 2, 4, 0)
    assert (films.embodiment.action_dim, len(films.episodes)) == (0, 2)
    assert len(films.truth_names) == films.episodes[0].truth.shape[1]
    gym = record("gym:ami/TwoRooms-wall-v0", 1, 3, 0)
    assert gym.embodiment.name == "gym:ami/TwoRooms-wall-v0"
    with pytest.raises(ValueError, match="two-rooms/door"):
        record("two-room/dor", 1, 3, 0)
    with pytest.raises(ValueError, match="gym:ID"):
        record("nowhere-like-it", 1, 3, 0)


def test_cartpole_is_a_world() -> None:
    if importlib.util.find_spec("pygame") is None:
        pytest.skip("CartPole draws itself with pygame, which is not installed")
    recording = record("gym:CartPole-v1", 2, 8, 0)
    assert recording.embodiment.action_dim == 2
    assert recording.episodes[0].video is not None
    assert recording.episodes[0].video.std() > 0


def test_what_is_missing_is_said() -> None:
    if importlib.util.find_spec("pygame") is not None:
        pytest.skip("pygame is installed")
    with pytest.raises(ValueError, match="pygame"):
        collect(make("CartPole-v1"), 1, 3, seed=0)
