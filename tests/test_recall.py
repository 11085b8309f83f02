"""What is asked of a memory of walks: questions show what they ask for, twins know only what they may, ways lead."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.test_places import model

from ami.evaluation.benchmark import Asking
from ami.evaluation.suites import SUITES
from ami.evaluation.suites.layout import Layout
from ami.evaluation.suites.recall import Recall
from ami.evaluation.suites.reminded import Reminded
from ami.evaluation.walking import TWINS, Walked, markers, painted, views
from ami.models.baselines import CopyLast
from ami.nn.places import between, moved
from ami.planning.routes import Routes, follow
from ami.worlds import maze_walks
from ami.worlds.maze import STRIDE, TURN, Mazes


def mazes(count: int = 3) -> Mazes:
    return maze_walks.sample(count, np.random.default_rng(0))


def walked(steps: int = 20) -> Walked:
    rng, here = np.random.default_rng(1), mazes()
    poses, actions = maze_walks.walk(here, maze_walks.starts(here, rng), steps, rng)
    with torch.no_grad():
        lived = Walked(model(), here, poses, actions)
        for _ in range(steps + 1):
            lived.step()
    return lived


def test_a_marker_is_seen_from_before_it_and_counted_where_it_shows() -> None:
    here = mazes()
    asked = markers(here)
    for place in range(5):
        seen = here.look(asked.before[:, place, 0])[2]
        clear = seen.post[:, 31] > 0.6
        assert (seen.face[clear, 31] == asked.face[clear, place]).all()
        assert (seen.marker[clear, 31] == asked.colour[clear, place]).all()
        assert (asked.seen(seen)[clear, place] > 20).all()


def test_another_colour_changes_the_marker_alone() -> None:
    here = mazes()
    asked = markers(here)
    other = painted(here, asked.face[:, 0], 3)
    changed = (other.across_paint != here.across_paint).sum((1, 2, 3)) + (other.along_paint != here.along_paint).sum(
        (1, 2, 3)
    )
    assert (changed == (asked.colour[:, 0] != 3)).all()
    assert (views(painted(here, asked.face[:, 0], 1), asked.before[:, 0])[:, :, 32, 32, 0] > 100).all()


@torch.no_grad()
def test_what_was_seen_from_a_pose_is_found_by_who_keeps_every_view() -> None:
    lived = walked()
    lived.believed = lived.from_start(np.arange(3), lived.poses)
    pose = lived.poses[:, 7:8]
    answers = [views(painted(lived.mazes, markers(lived.mazes).face[:, 0], 1), pose), views(lived.mazes, pose)]
    answers[0][:] = 255 - answers[0]
    found = lived.misfits(np.arange(3), pose, answers)
    assert set(found) == {"model", *TWINS}
    assert (found["nearest view"][:, 0, 1] < 1e-6).all()
    assert (found["nearest view"].argmin(2) == 1).all()


@torch.no_grad()
def test_poses_are_told_from_where_one_was_when_nearest_to_them() -> None:
    lived, rows = walked(), np.arange(3)
    true = lived.from_start(rows, lived.poses)
    frame = torch.tensor([0.4, -1.0, 2.0])  # that another would choose
    lived.believed = moved(frame.expand_as(true), true)
    beside = lived.poses[:, 5:9] + np.array([0.001, 0.002, 0.5])
    told = moved(frame.expand(3, 4, 3), lived.from_start(rows, beside))
    apart = between(told, lived.from_near(rows, beside))
    assert apart.abs().max() < 1e-3
    late = lived.poses[:, 18:]
    before = lived.from_near(rows, late)
    lived.believed[:, :6] += 1.0
    assert torch.equal(lived.from_near(rows, late), before)  # what was believed elsewhere does not matter


@torch.no_grad()
def test_a_twin_with_a_window_knows_nothing_of_what_was_before_it() -> None:
    one, other = walked(), walked()
    other.tokens[:, :5] = torch.randn_like(other.tokens[:, :5])
    pose = one.poses[:, 3:4]
    asked = [each.misfits(np.arange(3), pose, [views(each.mazes, pose)])["window"] for each in (one, other)]
    assert np.array_equal(asked[0], asked[1])


def test_all_questions_are_asked_and_answered_with_intervals() -> None:
    recalled = Recall(ages=(3, 8), tour=30).run(model(), 3, Asking(7)).results
    assert [each.benchmark for each in recalled] == [
        "recall/marker/age-3",
        "recall/marker/age-8",
        "recall/forgetting",
        "recall/after-restart",
    ]
    assert set(recalled[0].baselines) == {*TWINS, "chance"}
    laid = Layout(steps=25, budget=12).run(model(), 3, Asking(7)).results
    assert [each.benchmark for each in laid] == ["recall/walls", "recall/objects", "recall/go-to"]
    assert laid[-1].baselines["told all"].value > 0


def test_a_new_belief_is_reminded_of_what_another_kept_on_disk() -> None:
    (answer,) = Reminded(steps=40).run(model(), 3, Asking(7)).results
    assert answer.benchmark == "recall/reminded"
    assert set(answer.baselines) == {"old", "new", "chance"}


def test_the_same_seed_asks_the_same_and_restarting_changes_no_answer() -> None:
    one, again = (Recall(ages=(4,), tour=20).run(model(), 3, Asking(7)).results for _ in range(2))
    assert [each.value for each in one] == [each.value for each in again]


def test_who_has_not_learned_places_is_told_how() -> None:
    blind = CopyLast(model())
    with pytest.raises(ValueError, match=r"has not learned where things are in a 'maze' .* `ami collect maze`"):
        Recall().run(blind, 1, Asking())
    assert "recall" in SUITES


def test_a_way_leads_round_what_is_shut() -> None:
    def openness(at: torch.Tensor) -> torch.Tensor:
        return 1 - ((at[:, 0].abs() < 0.1) & (at[:, 1] < 1.0)).float()  # a wall with an end

    field = Routes(reach=3.0).to(torch.tensor([1.0, 0.0]), openness)
    straight, round_ = field(torch.tensor([[1.0, 1.5], [-1.0, 0.0]]))
    assert straight == pytest.approx(1.5, abs=0.1)
    assert round_ > 2 * (1 + 1.1**2) ** 0.5
    pose = torch.tensor([-1.0, 0.0, 3.0])
    for _ in range(40):
        ahead, turn = follow(field, pose, stride=STRIDE, turn=TURN).tolist()
        pose[2] += TURN * turn
        pose[:2] += STRIDE * ahead * torch.stack([pose[2].cos(), pose[2].sin()])
        assert openness(pose[None, :2]).item() == 1.0
    assert (pose[:2] - torch.tensor([1.0, 0.0])).norm() < 0.3


def test_no_way_ends_on_the_other_side_of_a_wall() -> None:
    goal = torch.tensor([0.3, 0.0])

    def openness(at: torch.Tensor) -> torch.Tensor:
        wall = (at[:, 0].abs() < 0.1) & (at[:, 1].abs() < 2.0)
        thing = (at - goal).norm(dim=1) < 0.18
        return 1 - (wall | thing).float()

    field = Routes(reach=3.0).to(goal, openness)
    behind, before, aside = field(torch.tensor([[-0.2, 0.0], [0.75, 0.0], [0.3, 1.0]]))
    assert behind > 4.0
    assert before < 0.6
    assert aside < 1.2 + 0.5
    nowhere = Routes(reach=3.0).to(goal, lambda at: torch.zeros(len(at)))
    assert nowhere(torch.tensor([[1.3, 0.0]])).item() == pytest.approx(101, rel=0.05)
