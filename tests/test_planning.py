"""Planners are tried where the best plan is known in closed form; costs where the number is known by hand."""

from dataclasses import replace

import pytest
import torch

import known_worlds
from ami.planning.costs import ActionCost, GoalDistance, Sum
from ami.planning.sampling import METHODS, REFITS, SamplingPlanner, SamplingSettings, _elites, _fit
from ami.planning.search import coloured
from ami.types import Belief, Latent, Plan
from known_worlds import HORIZON, Broken, Linear, Rounding, bang_bang, integrator, latent, least_effort


def plan(method: SamplingSettings | str, *world, **changes) -> Plan:
    return known_worlds.plan(SamplingPlanner(METHODS[method] if isinstance(method, str) else method), *world, **changes)


# ---------------------------------------------------------------- planners


@pytest.mark.parametrize("method", METHODS)
def test_each_method_finds_the_known_optimum_and_owes_it_to_refitting(method):
    # Such small problems nearly yield to luck, so the same number of candidates drawn at once is the yardstick.
    refitting = replace(METHODS[method], iterations=20, shrink=1.0)
    at_once = SamplingSettings(samples=20 * 256, iterations=1)
    open_gap, found = bang_bang(SamplingPlanner(refitting))
    assert (open_gap > -1e-6).all()
    assert (open_gap < 0.005).all()
    assert open_gap.mean() < 0.5 * bang_bang(SamplingPlanner(at_once))[0].mean()
    assert (found.actions[:, :2] > 0.2).all()
    open_gap, found, best = least_effort(SamplingPlanner(refitting))
    assert (open_gap > -1e-6).all()
    assert (open_gap < 0.005).all()
    assert open_gap.mean() < 0.5 * least_effort(SamplingPlanner(at_once))[0].mean()
    assert (found.actions[..., 0].mean(0) - best).abs().max() < 0.1


@pytest.mark.parametrize("method", METHODS)
def test_with_the_sign_of_the_cost_flipped_the_goal_is_fled(method):
    toward = GoalDistance(latent([[0.6, -0.4]]))
    gap = torch.tensor([0.6, -0.4])
    near = plan(method, integrator(), toward, [[0.0, 0.0]]).imagined.values[0, -1, 0]
    far = plan(method, integrator(), Sum(((-1.0, toward),)), [[0.0, 0.0]]).imagined.values[0, -1, 0]
    assert (near - gap).norm() < 0.05
    assert (far - gap).norm() > 2


@pytest.mark.parametrize("method", METHODS)
def test_the_answer_is_consistent_and_the_best_is_never_lost(method):
    starts, cost = [[0.0, 0.0], [1.0, 1.0], [-1.0, 0.5]], GoalDistance(latent([[0.6, 0.1], [0.0, 0.0], [0.3, 0.3]]))
    found = plan(method, integrator(), cost, starts)
    again = integrator().predict(Belief("test", latent(starts)), found.actions, HORIZON)
    assert torch.equal(again.values, found.imagined.values)
    assert torch.equal(again.times, found.imagined.times)
    torch.testing.assert_close(cost(again, found.actions), found.cost)
    assert (found.history.diff(dim=0) <= 0).all()
    assert torch.equal(found.history[-1], found.cost)
    assert found.history.shape == (METHODS[method].iterations + 1, 3)  # and the mean of the last


def test_candidates_imagined_are_counted_and_a_shrinking_schedule_imagines_fewer():
    imagined = []

    class Counting(Linear):
        def predict(self, belief, actions, horizon):
            imagined.append(len(actions))
            return super().predict(belief, actions, horizon)

    model = Counting(torch.eye(2), torch.eye(2))
    settings = SamplingSettings(samples=64, iterations=4, elites=8, keep=4, shrink=2.0)
    found = plan(settings, model, GoalDistance(latent([[0.1, 0.1]])), [[0.0, 0.0]])
    assert settings.schedule == (64, 32, 16, 16)
    assert imagined == [64, 32, 16, 16, 1]
    assert found.model_calls == sum(imagined)


@pytest.mark.parametrize("method", METHODS)
def test_bounds_are_obeyed_exactly_by_every_candidate(method):
    low, high = torch.tensor([-0.1, 0.3, 0.05]), torch.tensor([0.2, 0.3, 0.7])

    class Watching(Linear):
        def predict(self, belief, actions, horizon):
            assert (actions >= low).all()
            assert (actions <= high).all()
            return super().predict(belief, actions, horizon)

    # Seven elites: a mean over seven equal numbers may round to outside a bound.
    settings = replace(METHODS[method], elites=7, keep=0)
    model, cost = Watching(torch.eye(3), torch.eye(3)), GoalDistance(latent([[9.0, -9.0, -9.0]]))
    found = plan(settings, model, cost, [[0.0] * 3], low=low.tolist(), high=high.tolist())
    assert (found.actions >= low).all()
    assert (found.actions <= high).all()
    # The goal is out of reach beyond one bound of each: the plan leans on it.
    assert found.actions[0, :, 0].mean() > 0.12
    assert found.actions[0, :, 2].mean() < 0.2


def test_who_need_not_settle_saves_the_last_call_and_loses_no_other():
    cost = GoalDistance(latent([[0.6, 0.1]]))
    settled, not_settled = (
        plan(replace(METHODS["cem"], settle=settle), integrator(), cost, [[0.0, 0.0]]) for settle in (True, False)
    )
    assert torch.equal(not_settled.history, settled.history[:-1])
    assert not_settled.model_calls == settled.model_calls - 1


@pytest.mark.parametrize("together", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_a_plan_does_not_depend_on_its_neighbours_to_the_last_bit(method, together):
    settings = replace(METHODS[method], samples=50, elites=10, iterations=3, together=together)
    draw = torch.Generator().manual_seed(5)
    starts, goals = torch.randn(7, 2, generator=draw), torch.randn(7, 2, generator=draw)
    model = Rounding(torch.eye(2), torch.eye(2))
    everyone = plan(settings, model, GoalDistance(latent(goals)), starts, bound=1.0)
    for rows in ([0], [6], [2, 3], [5, 0, 4, 1]):
        alone = plan(
            settings,
            model,
            GoalDistance(latent(goals[rows])),
            starts[rows],
            bound=1.0,
            generators=[torch.Generator().manual_seed(row) for row in rows],
        )
        assert torch.equal(alone.actions, everyone.actions[rows])
        assert torch.equal(alone.imagined.values, everyone.imagined.values[rows])
        assert torch.equal(alone.history, everyone.history[:, rows])


@pytest.mark.parametrize("refit", REFITS)
def test_the_order_of_candidates_does_not_matter_to_the_refit(refit):
    draw = torch.Generator().manual_seed(1)
    candidates, costs = torch.randn(2, 40, 5, 3, generator=draw), torch.rand(2, 40, generator=draw)
    shuffle = torch.randperm(40, generator=draw)

    def fitted(order):
        elite_costs, elites = _elites(costs[:, order], candidates[:, order], 8)
        return _fit(elites, REFITS[refit](elite_costs, 0.5))

    for first, second in zip(fitted(torch.arange(40)), fitted(shuffle), strict=True):
        assert torch.equal(first, second)


def test_refits_weigh_as_their_papers_say():
    costs = torch.tensor([[1.0, 2.0, 6.0]])
    assert REFITS["equal"](costs, 0.5).tolist() == [pytest.approx([1 / 3] * 3)]
    # Mean distance to the cheapest is 2, so at temperature 0.5 the weights are as exp(0), exp(-1), exp(-5).
    expected = torch.tensor([1.0, 0.36788, 0.0067379]) / 1.3746179
    torch.testing.assert_close(REFITS["softmin"](costs, 0.5)[0], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(REFITS["softmin"](1e6 * costs + 7, 0.5)[0], expected, atol=1e-4, rtol=0)
    assert REFITS["softmin"](torch.ones(1, 4), 0.5).tolist() == [[0.25] * 4]


def test_coloured_noise_has_unit_variance_is_slow_and_does_not_tie_the_ends():
    assert torch.equal(coloured(20, 0.0), torch.eye(20))
    nearest = []
    for exponent in (0.5, 1.0, 2.0, 3.0):
        factor = coloured(20, exponent)
        covariance = factor @ factor.T
        torch.testing.assert_close(covariance.diagonal(), torch.ones(20))
        nearest.append(covariance[0, 1].item())
        assert (covariance[0].diff() < 0.01).all()
    assert nearest == sorted(nearest)
    assert nearest[0] > 0.1
    assert nearest[-1] > 0.9


def test_the_first_guess_is_a_candidate_and_a_smaller_budget_costs_more_but_never_more_than_the_guess():
    draw = torch.Generator().manual_seed(2)
    goals = torch.rand(24, 2, generator=draw) * 3 - 1.5
    cost, guess = GoalDistance(latent(goals)), torch.full((24, HORIZON, 2), 0.1)
    guessed = cost(integrator().predict(Belief("test", latent(torch.zeros(24, 2))), guess, HORIZON), guess)

    def spent(samples, iterations, start):
        settings = SamplingSettings(samples=samples, iterations=iterations, elites=max(2, samples // 10))
        return plan(settings, integrator(), cost, torch.zeros(24, 2), first_guess=start).cost

    assert (spent(2, 1, guess) <= guessed).all()
    means = [spent(*budget, None).mean().item() for budget in ((4, 1), (16, 3), (64, 6), (256, 10))]
    assert means == sorted(means, reverse=True)
    assert means[-1] < 0.5 * means[0]


def test_a_warm_start_is_worth_iterations():
    goals = torch.tensor([[1.0, -2.0], [2.0, 2.0], [-1.5, 0.5], [0.2, 1.8]])
    cost, start = GoalDistance(latent(goals)), torch.zeros(4, 2)
    first = plan("cem", integrator(), cost, start)
    now = start + first.actions[:, :2].sum(1)
    left = torch.cat([first.actions[:, 2:], torch.zeros(4, 2, 2)], 1)
    short = replace(METHODS["cem"], iterations=2)
    warm = plan(short, integrator(), cost, now, first_guess=left, seed=50)
    cold = plan(short, integrator(), cost, now, seed=50)
    assert (warm.cost < cold.cost).all()


@pytest.mark.parametrize("answer", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("method", METHODS)
def test_a_cost_that_is_not_finite_is_the_worst(method, answer):
    blocked = Broken(GoalDistance(latent([[1.0]])), wall=0.5, answer=answer)
    found = plan(method, integrator(1), blocked, [[0.0]])
    assert found.imagined.values.max() <= 0.5
    assert found.imagined.values[0, -1].item() > 0.35
    assert found.cost.isfinite().all()
    twice, starts = replace(blocked.rows(torch.tensor([0, 0])), wall=9.0), [[0.0], [99.0]]
    if answer == float("inf"):
        found = plan(method, integrator(1), twice, starts)
        assert found.why == ("", "unreachable")
        assert found.found.tolist() == [True, False]
        starts = [[0.0], [answer]]  # what is imagined from nowhere costs infinitely much as well, but is no answer
    with pytest.raises(ValueError, match="row 1 has a finite cost"):
        plan(method, integrator(1), twice, starts)


def test_what_does_not_fit_is_refused_in_one_sentence():
    cost, start = GoalDistance(latent([[0.1, 0.1]])), [[0.0, 0.0]]
    shared = torch.Generator()
    for changes, message in (
        ({"first_guess": torch.zeros(1, HORIZON + 1, 2)}, r"first guess is \(1, 13, 2\)"),
        ({"first_guess": torch.full((1, HORIZON, 2), float("nan"))}, "not finite"),
        ({"horizon": 0}, "cannot plan 0 steps"),
        ({"generators": []}, "0 generators came for 1 rows"),
        ({"low": [0.5, 0.5]}, "low below high"),
        ({"low": [-float("inf"), 0.0]}, "finite bounds"),
        ({"low": [0.0]}, "1 lower and 2 upper"),
    ):
        with pytest.raises(ValueError, match=message):
            plan("cem", integrator(), cost, start, **changes)
    with pytest.raises(ValueError, match="share a generator"):
        plan("cem", integrator(), cost, [[0.0, 0.0]] * 2, generators=[shared, shared])
    with pytest.raises(ValueError, match="plan number 1 has no goal"):
        plan("cem", integrator(), cost, [[0.0, 0.0]] * 2)
    for wrong, message in (
        ({"refit": "median"}, "no refit is called 'median'; choose one of equal, softmin"),
        ({"samples": 8, "elites": 9}, "9 elites of 8 samples"),
        ({"iterations": 0}, "at least 1"),
        ({"momentum": 1.0}, "momentum"),
    ):
        with pytest.raises(ValueError, match=message):
            SamplingSettings(**wrong)


# ---------------------------------------------------------------- costs


@pytest.mark.parametrize(("distance", "far"), [("squared", [25.0, 9.0, 16.0]), ("l2", [5, 3, 4]), ("l1", [7, 3, 4])])
def test_goal_distance_by_hand(distance, far):
    imagined = Latent(torch.tensor([[[3.0, 4.0]], [[3.0, 0.0]], [[0.0, 4.0]]])[None], torch.arange(3.0)[None])
    actions, goal = torch.zeros(1, 3, 2), latent([[0.0, 0.0]])

    def cost(**weights):
        terms = {"sum": 0.0, "last": 0.0, "min": 0.0, **weights}
        return GoalDistance(goal, distance, **terms)(imagined, actions).item()

    assert cost(sum=1.0) == pytest.approx(sum(far))
    assert cost(last=1.0) == pytest.approx(far[-1])
    assert cost(min=1.0) == pytest.approx(min(far))
    assert cost(sum=2.0, last=3.0, min=5.0) == pytest.approx(2 * sum(far) + 3 * far[-1] + 5 * min(far))


def test_each_plan_has_its_own_goal_and_its_candidates_lie_side_by_side():
    states = torch.tensor([[0.0], [1.0], [0.0], [1.0]])
    imagined, actions = latent(states), torch.zeros(4, 1, 1)
    cost = GoalDistance(latent([[0.0], [5.0]]), sum=1, last=0, min=0)
    assert cost(imagined, actions).tolist() == [0.0, 1.0, 25.0, 16.0]
    swapped = cost.rows(torch.tensor([1, 0]))
    assert swapped(imagined, actions).tolist() == [25.0, 16.0, 0.0, 1.0]


def test_sum_weighs_and_action_cost_counts_effort():
    imagined, actions = latent([[2.0]]), torch.tensor([[[3.0, 4.0], [1.0, 0.0]]])
    goal = GoalDistance(latent([[0.0]]), last=0, min=0)
    assert ActionCost()(imagined, actions).tolist() == [26.0]
    assert Sum(((2.0, goal), (-0.5, ActionCost())))(imagined, actions).tolist() == [2 * 4.0 - 13.0]


def test_costs_that_do_not_match_say_so():
    imagined = Latent(torch.zeros(4, 3, 1, 8), torch.zeros(4, 3))
    with pytest.raises(ValueError, match="goal is 1 tokens of 6 but the model imagines 1 tokens of 8"):
        GoalDistance(latent(torch.zeros(1, 6)))(imagined, torch.zeros(4, 3, 2))
    with pytest.raises(ValueError, match="4 imagined futures cannot be shared by 3 goals"):
        GoalDistance(latent(torch.zeros(3, 8)))(imagined, torch.zeros(4, 3, 2))
    with pytest.raises(ValueError, match="a goal is one step, but this latent has 3"):
        GoalDistance(imagined)
    with pytest.raises(ValueError, match="no distance is called 'cosine'; choose one of squared, l2, l1"):
        GoalDistance(latent([[0.0]]), "cosine")
    with pytest.raises(ValueError, match="at least one"):
        Sum(())
