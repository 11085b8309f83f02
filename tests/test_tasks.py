"""Simulated tasks: their state is a value that can be put back, and what is asked of them is fresh and unsolved."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch

from ami.evaluation.benchmark import Asking
from ami.evaluation.simulator import PlaceDistance, TaskSimulator
from ami.evaluation.suites import SUITES
from ami.evaluation.suites.tasks import Pairs, TaskBenchmark
from ami.models.contract import check
from ami.planning.costs import GoalDistance
from ami.types import Belief, Clip, Latent, WorldModel
from ami.worlds.gym import record
from ami.worlds.task import REPEAT, Task, collect
from ami.worlds.tasks import TASKS

NEEDS = {"push-t": "gym_pusht", "reacher": "dm_control", "point-maze": "ogbench", "cube": "ogbench"}
MISSING = {name: importlib.util.find_spec(module) is None for name, module in NEEDS.items()}
each_task = pytest.mark.parametrize("name", TASKS)


@pytest.fixture(scope="module")
def opened():
    """Each task, opened once for all tests that ask for it."""
    held: dict[str, Task] = {}

    def task(name: str) -> Task:
        if MISSING[name]:
            pytest.skip(f"{NEEDS[name]} is not installed: pip install 'openami[worlds]'")
        if name not in held:
            held[name] = TASKS[name]()
        return held[name]

    return task


@each_task
def test_what_is_missing_is_said(name: str) -> None:
    if not MISSING[name]:
        pytest.skip(f"{NEEDS[name]} is installed")
    with pytest.raises(ValueError, match=r"openami\[worlds\]"):
        record(name, 1, 2, 0)


@each_task
def test_the_same_seed_records_the_same(name: str, opened) -> None:
    task = opened(name)
    first, again, other = (collect(task, 1, 4, seed)[0] for seed in (3, 3, 4))
    assert first.digest == again.digest != other.digest
    assert first.video is not None
    assert first.truth is not None
    assert first.actions is not None
    assert first.video.shape == (4, 64, 64, 3)
    assert first.truth.shape == (4, len(task.truth))
    assert (first.actions >= task.low).all()
    assert (first.actions <= task.high).all()
    np.testing.assert_allclose(np.diff(first.times), REPEAT * task.seconds)


@each_task
def test_a_state_put_back_looks_the_same_and_goes_on_the_same(name: str, opened) -> None:
    task = opened(name)
    episode = collect(task, 1, 8, seed=1)[0]
    assert episode.truth is not None
    assert episode.video is not None
    assert episode.actions is not None
    pictures = episode.video.astype(int)
    assert np.abs(pictures[0] - pictures[-1]).max() > 50, "nothing moved"
    for moment in (6, 0, 3):  # whatever was simulated before
        np.testing.assert_array_equal(task.render(episode.truth[moment]), episode.video[moment])
        kept = episode.truth[moment].astype(np.float32)  # as a store keeps it
        assert np.abs(task.render(kept).astype(int) - pictures[moment]).max() <= 24
        passed = task.step(episode.truth[moment], episode.actions[moment])
        np.testing.assert_allclose(passed[-1], episode.truth[moment + 1], atol=1e-4)
        assert passed.shape == (REPEAT, len(task.truth))


@each_task
def test_explorers_do_things_and_scripts_do_them_better_than_chance(name: str, opened) -> None:
    task = opened(name)
    asked = next(each for each, _ in SUITES[name].asked if each.name == f"{name}/lewm")
    assert isinstance(asked, TaskBenchmark)
    played = replace(asked, simulated=0)._baselines(asked.pairs(task, 0, 8), Asking())
    shares = {who: each.reached.mean() for who, each in played.items()}
    assert shares["script"] >= {"push-t": 0.0}.get(name, 0.5)
    assert shares["script"] >= shares["random"]
    assert shares["zero-action"] <= 0.25


def test_push_t_is_solved_by_positions_and_angle(opened) -> None:
    task = opened("push-t")
    goal = np.array([100.0, 100.0, 300.0, 300.0, 3.1, *np.zeros(5)])

    def moved(pusher: float = 0.0, block: float = 0.0, degrees: float = 0.0) -> bool:
        change = np.array([pusher, 0.0, 0.0, block, np.deg2rad(degrees), 9.0, 9.0, 9.0, 9.0, 9.0])
        return bool(task.solved(goal + change, goal))

    assert moved()
    assert moved(pusher=19.9)
    assert not moved(pusher=20.1)
    assert moved(block=-19.9)
    assert not moved(pusher=15.0, block=15.0), "the two positions count together"
    assert moved(degrees=19.9)
    assert moved(degrees=-19.9)
    assert moved(degrees=360.0)
    assert not moved(degrees=20.1)
    assert not moved(degrees=180.0)
    assert task.solved(np.stack([goal, goal + 30.0]), goal).tolist() == [True, False]


def test_the_reachers_goal_is_a_place_of_its_fingertip(opened) -> None:
    task = opened("reacher")
    goal = np.array([0.3, 0.8, 0.0, 0.0])
    tip = task.place(goal)[0] * task.near
    task.render(goal)
    np.testing.assert_allclose(tip, task.data.geom("finger").xpos[:2], atol=1e-6)
    # The elbow on the other side of the line from shoulder to fingertip: another pose, the same place.
    elbow = np.array([0.3 + 0.8, -0.8, 5.0, 5.0])
    assert task.solved(elbow, goal)
    assert task.solved(goal + np.array([2 * np.pi, 0.0, 0.0, 0.0]), goal)
    assert not task.solved(goal + np.array([0.2, 0.0, 0.0, 0.0]), goal)


def test_the_cubes_goal_is_its_place_alone(opened) -> None:
    task = opened("cube")
    goal = task.start(np.random.default_rng(0))
    at = task.truth.index("qpos_14")
    for axis, far in ((0, 0.039), (2, -0.039)):
        moved = goal.copy()
        moved[:at] += 0.5
        moved[at + axis] += far
        assert task.solved(moved, goal)
        moved[at + axis] += 0.002 * np.sign(far)
        assert not task.solved(moved, goal)


def test_the_maze_is_solved_within_a_metre_and_has_walls(opened) -> None:
    task = opened("point-maze")
    goal = np.array([4.0, 0.0, 0.0, 0.0])
    assert task.solved(goal + np.array([0.9, 0.0, 3.0, 3.0]), goal)
    assert not task.solved(goal + np.array([0.9, 0.9, 0.0, 0.0]), goal)
    state = np.zeros(4)  # the free cell in a corner; walls to the left and below
    for _ in range(4):
        state = task.step(state, np.array([-1.0, 0.0]))[-1]
    assert -1.5 < state[0] < -1.0
    np.testing.assert_allclose(task.step(goal, np.array([0.0, 1.0]))[:, 1], 0.2 * np.arange(1, 6), atol=0.05)


@each_task
def test_pairs_never_begin_solved_and_are_real(name: str, opened) -> None:
    task = opened(name)
    far = next(each for each, _ in SUITES[name].asked if each.name == f"{name}/distance")
    assert isinstance(far, TaskBenchmark)
    far = replace(far, ahead=(5, 40), before=10)
    pairs, few, other = far.pairs(task, 0, 8), far.pairs(task, 0, 2), far.pairs(task, 1, 2)
    assert not task.solved(pairs.start, pairs.goal).any()
    np.testing.assert_array_equal(pairs.goal[:2], few.goal)
    assert not (few.start == other.start).all(-1).any()
    assert set(pairs.ahead % REPEAT) == {0}
    assert pairs.ahead.min() >= 5
    assert pairs.ahead.max() <= 40


def test_success_is_judged_after_every_environment_step_until_the_budget_is_spent(opened) -> None:
    """The goal lies 3 m away: passed at 1 m a model step, left again, and for one of two already out of time."""
    task = opened("point-maze")
    asked = TaskBenchmark(task.name, "test", (5, 5), task.success)
    goals = np.array([[3.0, 0.0, 0.0, 0.0], [0.0, 3.5, 0.0, 0.0]])
    pairs = Pairs(task, np.zeros((2, 4)), goals, np.array([15, 5]))
    played = asked.play(pairs, lambda states, step: np.array([[1.0, 0.0], [0.0, 1.0]]))
    assert played.path.shape == (31, 2, 4)
    assert played.solved[:, 0].argmax() == 11  # 2.2 m on
    assert played.reached.tolist() == [True, False]
    assert played.ended.tolist() == [False, False]
    stays = asked.play(pairs, lambda states, step: np.clip(goals[:, :2] - states[:, :2], -1.0, 1.0))
    assert stays.ended.tolist() == [True, False]


def test_the_simulator_imagines_what_happens(opened) -> None:
    task = opened("reacher")
    episodes = collect(task, 3, 6, seed=0)
    clip = Clip(
        task.name,
        torch.arange(6).repeat(3, 1) * task.body().step_seconds,
        truth=torch.from_numpy(np.stack([each.truth for each in episodes])).float(),
        actions=torch.from_numpy(np.stack([each.actions for each in episodes])).float(),
    )
    model = TaskSimulator(task).eval()
    check(model, clip, differentiable=False)
    seen = model.encode(clip)
    belief = model.believe(None, Latent(seen.values[:, :1], seen.times[:, :1]), None)
    torch.testing.assert_close(model.predict(belief, clip.actions, 5).values, seen.values[:, 1:], atol=1e-3, rtol=1e-3)


def test_the_same_planner_on_the_true_simulator_reaches_goals(opened) -> None:
    task = opened("reacher")
    asked = next(each for each, _ in SUITES["reacher"].asked if each.name == "reacher/lewm")
    assert isinstance(asked, TaskBenchmark)
    asked = replace(asked, simulator_samples=32)
    pairs = asked.pairs(task, 0, 4)
    assert asked.plan(TaskSimulator(task).eval(), pairs, Asking()).reached.mean() >= 0.75
    fled = replace(asked, weights=(-1.0, -5.0, -1.0))
    assert fled.plan(TaskSimulator(task).eval(), pairs, Asking()).ended.mean() <= 0.25


def test_first_person_depth_and_pose_fit_what_is_seen() -> None:
    if importlib.util.find_spec("miniworld") is None:
        pytest.skip("miniworld is not installed: pip install 'openami[worlds]'")
    first, again = record("first-person-rooms", 2, 12, 0), record("first-person-rooms", 2, 12, 0)
    assert [each.digest for each in first.episodes] == [each.digest for each in again.episodes]
    walked = 0.0
    for episode in first.episodes:
        assert episode.depth is not None
        assert episode.pose is not None
        assert episode.truth is not None
        assert episode.intrinsics is not None
        assert episode.video is not None
        assert episode.video.std() > 10
        fx, fy, cx, cy = episode.intrinsics
        row, column = np.mgrid[:64, :64] + 0.5
        ray = np.stack([(column - cx) / fx, (row - cy) / fy, np.ones((64, 64))], -1) * episode.depth[..., None]
        world = ray @ episode.pose[:, None, :3, :3].swapaxes(-1, -2) + episode.pose[:, None, None, :3, 3]
        # Floor at 0 and walls at 7 m: every pixel lies in the house, none below its floor and many on it.
        inside = (np.abs(world[..., [0, 2]]) < 7.1).all(-1) & (world[..., 1] > -0.1)
        assert inside.mean() > 0.99
        assert (np.abs(world[..., 1]) < 0.1).mean() > 0.05
        np.testing.assert_allclose(episode.pose[:, [0, 2], 3], episode.truth[:, :2], atol=1e-6)
        walked += np.linalg.norm(np.diff(episode.truth[:, :2], axis=0), axis=-1).sum()
    assert walked > 4.0


def test_places_are_compared_not_states(opened) -> None:
    task = opened("reacher")
    goal = Latent(torch.tensor([[[[0.3, 0.8, 0.0, 0.0]]]]), torch.zeros(1, 1))
    cost = PlaceDistance(GoalDistance(goal, "l2", sum=0.0, last=1.0, min=0.0), task)
    states = torch.tensor([[[[0.3, 0.8, 7.0, 7.0]]], [[[1.1, -0.8, 0.0, 0.0]]], [[[0.3, 0.0, 0.0, 0.0]]]])
    same, elbow, far = cost(Latent(states, torch.zeros(3, 1)), torch.zeros(3, 1, 2)).tolist()
    assert max(same, elbow) < 1e-3
    assert far > 1.0
    assert cost.rows(slice(0, 1)).goal.goal.values.shape == (1, 1, 1, 4)


class Ball(WorldModel):
    """Sees where the ball is, by its colour, and imagines a world without walls; refuses to look at the truth."""

    latent_shape = (1, 2)

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.embodiments = {task.name: task.body()}

    def encode(self, clip: Clip) -> Latent:
        assert clip.truth is None
        assert clip.video is not None
        picture = clip.video[:, :, 0].float()
        red = (picture[:, :, 0] - picture[:, :, 2] - 60).clamp_min(0)
        at = torch.arange(64) + 0.5
        x, y = (red.sum(2) * at).sum(-1), (red.sum(3) * -at).sum(-1)
        return Latent((torch.stack([x, y], -1) / red.sum((2, 3))[..., None])[:, :, None], clip.times)

    def believe(self, belief, seen, actions, embodiment=""):
        return Belief("point-maze", Latent(seen.values[:, -1:], seen.times[:, -1:]))

    def predict(self, belief, actions, horizon):
        times = belief.latents.times[:, -1:] + torch.arange(1, horizon + 1) / 2
        return Latent(belief.latents.values[:, -1:] + 2.6 * actions.cumsum(1)[:, :, None], times)


def test_a_model_that_sees_only_pictures_is_asked_beside_all_baselines(opened) -> None:
    task = opened("point-maze")
    asked = next(each for each, _ in SUITES["point-maze"].asked if each.name == "point-maze/lewm")
    assert isinstance(asked, TaskBenchmark)
    answer = replace(asked, simulated=1, simulator_samples=16).run(Ball(task).eval(), 5, Asking(seed=1, strips=2))
    ever, end = answer.results
    assert (ever.benchmark, ever.metric, end.metric) == ("point-maze/lewm", "success_ever", "success_end")
    assert ever.value >= 0.6
    assert set(ever.baselines) == {"random", "zero-action", "script", "simulator"}
    assert ever.baselines["zero-action"].value == 0.0
    assert len(answer.strips) == 2
    assert "environment steps" in answer.strips[0].caption


class Knowing(Ball):
    """Also counts pixels as steps, and keeps a few places of the maze."""

    reaches = ("point-maze",)

    def reach(self, now, goal, embodiment):
        return (now.values - goal.values)[:, :, 0].norm(dim=-1) / 2.6

    def landmarks(self, embodiment):
        return Latent(
            torch.cartesian_prod(torch.arange(4.0, 64.0, 8.0), -torch.arange(4.0, 64.0, 8.0))[:, None, None],
            torch.zeros(64, 1),
        )


def test_who_keeps_landmarks_is_asked_with_them_and_beside_that_without(opened) -> None:
    asked = next(each for each, _ in SUITES["point-maze"].asked if each.name == "point-maze/lewm")
    asked = replace(asked, simulated=0, planner=replace(asked.planner, samples=16, elites=4))
    found = asked.run(Knowing(opened("point-maze")).eval(), 2, Asking(seed=1, strips=0)).results[0]
    assert set(found.baselines) == {"random", "zero-action", "script", "flat", "count"}
    assert "landmarks" in " ".join(asked.protocol)


def test_questions_without_an_answer_are_refused() -> None:
    with pytest.raises(ValueError, match="push-t"):
        TaskBenchmark("pusht", "lewm", (25, 25), "")
    with pytest.raises(ValueError, match="20 px"):
        TaskBenchmark("push-t", "lewm", (25, 25), "anything goes")
    with pytest.raises(ValueError, match="multiples of 5"):
        TaskBenchmark("push-t", "lewm", (25, 27), TASKS["push-t"].success)
    with pytest.raises(ValueError, match="never acted"):
        TaskBenchmark("push-t", "lewm", (25, 25), TASKS["push-t"].success).run(Nobody().eval(), 1, Asking())


class Nobody(WorldModel):
    """Has never acted anywhere."""

    embodiments = {}  # noqa: RUF012
