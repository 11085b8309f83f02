"""What to try next: what promises most among its neighbours, and nothing like what has failed."""

import pytest
import torch

from ami.planning.attempts import Attempts

LINE = torch.tensor([[0.0], [0.1], [0.2], [5.0], [9.0]])


def test_the_most_promising_is_tried_first() -> None:
    assert Attempts(LINE, torch.tensor([0.1, 0.2, 0.1, 0.3, 0.9]), 0.01).next([]) == 4


def test_a_plan_amid_good_ones_is_safer_than_one_amid_bad_ones() -> None:
    plans = torch.tensor([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]])
    promise = torch.tensor([0.8, 0.8, 0.8, 0.1, 0.9, 0.1])
    assert Attempts(plans, promise, 0.5).next([]) in (0, 1, 2)
    assert Attempts(plans, promise, 0.01).next([]) == 4


def test_what_failed_is_not_tried_again_and_takes_its_neighbours_with_it() -> None:
    tries = Attempts(LINE, torch.tensor([0.8, 0.9, 0.8, 0.5, 0.4]), 0.5)
    assert tries.next([]) in (0, 1, 2)
    assert tries.next([1]) == 3
    before, after = (float(tries.after(failed)[4]) for failed in ([], [1]))
    assert after == pytest.approx(before, abs=1e-3), "what is far from it promises as much as before"
    order: list[int] = []
    while len(order) < len(LINE):
        order.append(tries.next(order))
    assert sorted(order) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="all 5 plans"):
        tries.next(order)


def test_every_failure_says_more_about_plans_farther_away() -> None:
    plans = torch.tensor([[0.0], [1.5], [8.0], [9.0], [20.0]])
    tries = Attempts(plans, torch.tensor([0.9, 0.8, 0.9, 0.9, 0.7]), 0.5)
    one, several = tries.after([0]), tries.after([0, 2, 3])
    assert several[1] < one[1] - 0.1
    assert several[4] > 0.6


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(ValueError, match="one promise"):
        Attempts(LINE, torch.ones(2), 0.5)
    with pytest.raises(ValueError, match="above 0"):
        Attempts(LINE, torch.ones(5), 0.0)
