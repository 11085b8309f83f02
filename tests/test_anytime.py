"""Planning to a budget is tried with a clock that only the model moves: what is late, and by how much, is exact."""

from dataclasses import dataclass, field, replace

import pytest
import torch

from ami.planning.anytime import Anytime
from ami.planning.costs import GoalDistance, Sum
from ami.planning.gradient import GradientPlanner, GradientSettings
from ami.planning.mixture import Mixture
from ami.planning.sampling import METHODS, SamplingPlanner, SamplingSettings
from known_worlds import HORIZON, Broken, Linear, Rounding, bang_bang, integrator, latent, plan

SAMPLING = SamplingSettings(samples=32, elites=6, iterations=6, colour=1.0, keep=3)
DESCENT = GradientSettings(starts=4, steps=6)
SEARCHES = {
    "sampling": SamplingPlanner(SAMPLING),
    "gradient": GradientPlanner(DESCENT),
    "mixture": Mixture(SamplingPlanner(replace(SAMPLING, iterations=3)), GradientPlanner(replace(DESCENT, steps=3))),
}
CALLS = 7  # of the model by each of the first two; the mixture makes one more


def each_search(test):
    return pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)(test)


@dataclass
class Clock:
    """Seconds that pass only while the model imagines."""

    now: float = 100.0
    begun: list[float] = field(default_factory=list)  # of each call of the model
    ended: list[float] = field(default_factory=list)
    imagined: list[int] = field(default_factory=list)  # candidates in each call

    def __call__(self) -> float:
        return self.now


class Slow(Linear):
    """An integrator that takes its time: a millisecond a call, or as long as ``takes`` says, in turn."""

    def __init__(self, clock: Clock, takes: list[float] | None = None) -> None:
        super().__init__(torch.eye(2), torch.eye(2))
        self.clock, self.takes = clock, takes or [0.001]

    def predict(self, belief, actions, horizon):
        self.clock.begun.append(self.clock.now)
        self.clock.now += self.takes[(len(self.clock.begun) - 1) % len(self.takes)]
        self.clock.ended.append(self.clock.now)
        self.clock.imagined.append(len(actions))
        return super().predict(belief, actions, horizon)


GOALS = GoalDistance(latent([[1.2, -0.9], [0.3, 0.4], [-2.0, 0.1]]))
STARTS = [[0.0, 0.0]] * 3


@each_search
def test_without_a_budget_the_first_guess_is_imagined_once_and_is_the_plan(search):
    clock, guess = Clock(), torch.full((1, HORIZON, 2), 0.1)
    found = plan(Anytime(search, 0, clock), Slow(clock), GOALS.rows([0]), STARTS[:1], first_guess=guess)
    assert clock.imagined == [1]
    assert found.model_calls == 1
    assert torch.equal(found.actions, guess)
    assert found.history.shape == (1, 1)
    torch.testing.assert_close(found.imagined.values[0, -1, 0], torch.full((2,), 1.2))
    still = plan(Anytime(search, 0, clock), Slow(clock), GOALS.rows([0]), STARTS[:1])
    assert not still.actions.any()


@each_search
def test_more_time_is_never_worse_and_enough_of_it_is_the_whole_search(search):
    whole = plan(search, integrator(), GOALS, STARTS)
    costs, calls = [], []
    for budget_ms in range(12):
        clock = Clock()
        found = plan(Anytime(search, budget_ms, clock), Slow(clock), GOALS, STARTS)
        costs.append(found.cost)
        calls.append(found.model_calls)
        # What was found in less time is a beginning of what is found in more.
        torch.testing.assert_close(found.history[1:], whole.history[: len(found.history) - 1])
    assert (torch.stack(costs).diff(dim=0) <= 0).all()
    assert costs[-1].sum() < 0.5 * costs[0].sum()
    assert calls == sorted(calls)
    assert calls[:2] == [1, 1]
    assert calls[-1] == whole.model_calls + 1
    assert torch.equal(found.actions, whole.actions)


@each_search
def test_calls_that_take_equally_long_are_never_late_and_leave_no_time_for_another(search):
    for budget_ms in (2.5, 4.5, 6.5):
        clock = Clock()
        plan(Anytime(search, budget_ms, clock), Slow(clock), GOALS.rows([0]), STARTS[:1])
        assert len(clock.begun) == int(budget_ms)
        assert budget_ms - 1 < 1000 * (clock.now - 100) < budget_ms


@each_search
@pytest.mark.parametrize("seed", range(8))
def test_an_answer_is_never_late_by_more_than_one_call(search, seed):
    draw = torch.Generator().manual_seed(seed)
    takes, budget = torch.rand(20, generator=draw).pow(3).mul(0.01).tolist(), 0.02
    clock = Clock()
    plan(Anytime(search, 1000 * budget, clock), Slow(clock, takes), GOALS.rows([0]), STARTS[:1])
    spent = [end - start for start, end in zip(clock.begun, clock.ended, strict=True)]
    assert clock.now <= 100 + budget + spent[-1]
    # Each call but the first could be expected to end in time, and the first that could not was not begun.
    for number, start in enumerate(clock.begun[1:], start=1):
        assert start + max(spent[:number]) < 100 + budget
    assert clock.now + max(spent) >= 100 + budget or len(spent) >= CALLS + 1


def test_a_slow_call_is_remembered():
    # The second call takes 4 ms of 10. Half a millisecond at a time, later ones would fit until the end.
    clock = Clock()
    takes = [0.0005, 0.004, *[0.0005] * 20]
    long = Anytime(SamplingPlanner(replace(SAMPLING, iterations=20)), 10, clock)
    plan(long, Slow(clock, takes), GOALS.rows([0]), STARTS[:1])
    assert 1000 * (clock.now - 100) == pytest.approx(6.0)


@pytest.mark.parametrize("together", [1, 2])
def test_each_group_has_the_whole_budget_and_a_row_the_plan_it_has_alone(together):
    search = SamplingPlanner(replace(SAMPLING, together=together))

    class Ticking(Rounding):
        def predict(self, belief, actions, horizon):
            clock.now += 0.001
            return super().predict(belief, actions, horizon)

    clock, model = Clock(), Ticking(torch.eye(2), torch.eye(2))
    everyone = plan(Anytime(search, 4.5, clock), model, GOALS, STARTS)
    assert 1000 * (clock.now - 100) == pytest.approx(4 * (3 if together == 1 else 2))
    for row in range(3):
        generators = [torch.Generator().manual_seed(row)]
        alone = plan(Anytime(search, 4.5, clock), model, GOALS.rows([row]), STARTS[:1], generators=generators)
        assert torch.equal(alone.actions[0], everyone.actions[row])
        assert torch.equal(alone.history[:, 0], everyone.history[:, row])
        assert alone.model_calls == everyone.model_calls


def test_where_groups_stop_at_different_times_the_history_waits_for_the_longest():
    clock = Clock()
    takes = [0.001, 0.009, *[0.001] * 20]  # the first row has time for two calls, the others for nine
    short, full = Anytime(SEARCHES["sampling"], 9.5, clock), plan(SEARCHES["sampling"], integrator(), GOALS, STARTS)
    found = plan(short, Slow(clock, takes), GOALS, STARTS)
    assert found.history.shape == (8, 3)
    assert (found.history[1:, 0] == found.cost[0]).all()
    assert torch.equal(found.actions[1:], full.actions[1:])
    assert found.model_calls == full.model_calls + 1
    assert found.cost[0] > full.cost[0]


def test_with_time_enough_the_known_optimum_is_found_and_with_the_sign_flipped_the_goal_is_fled():
    patient = Anytime(SamplingPlanner(replace(METHODS["icem"], iterations=20, shrink=1.0)), 1e9, Clock())
    open_gap, _ = bang_bang(patient)
    assert (open_gap > -1e-6).all()
    assert (open_gap < 0.005).all()
    away = plan(patient, integrator(), Sum(((-1.0, GOALS.rows([0])),)), STARTS[:1])
    assert (away.imagined.values[0, -1, 0] - GOALS.goal.values[0, 0, 0]).norm() > 3


def test_a_guess_of_no_finite_cost_is_refused_alone_and_left_behind_by_a_search():
    # Standing still is impossible here, for the world begins right of where anything may be.
    blocked, start = Broken(GoalDistance(latent([[-1.0, 0.0]])), wall=0.1), [[0.3, 0.0]]
    clock = Clock()
    with pytest.raises(ValueError, match="no imagined future of row 0 has a finite cost"):
        plan(Anytime(SEARCHES["sampling"], 0, clock), Slow(clock), blocked, start)
    found = plan(Anytime(SEARCHES["sampling"], 5, clock), Slow(clock), blocked, start)
    assert found.imagined.values[..., 0].max() <= 0.1
    assert found.cost.isfinite().all()


def test_time_passes_on_the_wall_too():
    endless = SamplingPlanner(replace(SAMPLING, iterations=10**6))
    found = plan(Anytime(endless, 30), integrator(), GOALS, STARTS)
    assert 1 < found.model_calls < 32 * 10**5


def test_what_is_no_budget_is_refused():
    for budget in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="0 milliseconds or more"):
            Anytime(SEARCHES["sampling"], budget)
