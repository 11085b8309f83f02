"""Planners that follow the gradient, alone or after sampling, are tried where the best plan is known in closed form."""

from dataclasses import dataclass, replace

import pytest
import torch

from ami.planning.costs import GoalDistance, Sum
from ami.planning.gradient import GradientPlanner, GradientSettings
from ami.planning.guardrails import Everywhere
from ami.planning.mixture import Mixture
from ami.planning.sampling import METHODS, SamplingPlanner, SamplingSettings
from ami.planning.search import Task
from ami.types import Belief, Guardrail, Latent
from known_worlds import (
    HORIZON,
    Broken,
    Linear,
    Rounding,
    bang_bang,
    integrator,
    latent,
    least_effort,
    plan,
    regulator,
)

PATIENT = GradientSettings(starts=8, steps=60, rate=0.1)
SHORT = SamplingSettings(samples=64, elites=8, iterations=3, colour=1.0)
SETTLE = GradientSettings(starts=4, steps=60, rate=0.1, init_std=0.1)
PLANNERS = {"gradient": GradientPlanner(PATIENT), "mixture": Mixture(SamplingPlanner(SHORT), GradientPlanner(SETTLE))}


def each_planner(test):
    return pytest.mark.parametrize("planner", PLANNERS.values(), ids=PLANNERS)(test)


@dataclass(frozen=True)
class Valleys:
    """To end at 0 costs 0.5 and to end near it more; the deeper valley is at 1."""

    def __call__(self, imagined, actions):
        place = imagined.values[:, -1, 0, 0]
        return torch.minimum(place.square() + 0.5, 4 * (place - 1).square())

    def rows(self, index):
        return self


def task(model, cost, start) -> Task:
    bound = torch.full((len(model.across),), 0.25)
    return Task(model, cost, Belief("test", latent(start)), -bound, bound, (), None)


@each_planner
def test_the_known_optimum_is_found(planner):
    for problem in (bang_bang, least_effort, regulator):
        open_gap, found, *best = problem(planner)
        assert (open_gap > -1e-6).all()
        assert (open_gap < 0.003).all()
        if best:
            assert (found.actions[..., 0].mean(0) - best[0]).abs().max() < 0.05


def test_a_descent_after_sampling_closes_most_of_what_sampling_leaves():
    for problem in (bang_bang, least_effort, regulator):
        assert problem(PLANNERS["mixture"])[0].mean() < 0.3 * problem(SamplingPlanner(SHORT))[0].mean()


@each_planner
def test_with_the_sign_of_the_cost_flipped_the_goal_is_fled(planner):
    toward, gap = GoalDistance(latent([[0.6, -0.4]])), torch.tensor([0.6, -0.4])
    near = plan(planner, integrator(), toward, [[0.0, 0.0]]).imagined.values[0, -1, 0]
    far = plan(planner, integrator(), Sum(((-1.0, toward),)), [[0.0, 0.0]]).imagined.values[0, -1, 0]
    assert (near - gap).norm() < 0.02
    assert (far - gap).norm() > 4


def test_the_steps_are_those_of_adam():
    # The reference is torch's, on a gradient that is measured by its own largest number.
    settings, given = GradientSettings(steps=6, rate=0.3, momentum=0.8, memory=0.9), []

    class Watching(Linear):
        def predict(self, belief, actions, horizon):
            given.append(actions.detach()[0])
            return super().predict(belief, actions, horizon)

    model, cost = Watching(torch.eye(2), torch.eye(2)), GoalDistance(latent([[0.1, -0.7]]), last=0, min=0)
    list(GradientPlanner(settings).descend(task(model, cost, [[0.0, 0.0]]), torch.zeros(1, 1, HORIZON, 2)))
    ours, actions = given[:], torch.zeros(1, HORIZON, 2, requires_grad=True)
    optimiser = torch.optim.Adam([actions], lr=0.3 * 0.25, betas=(0.8, 0.9))
    falling = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / 6)
    for _ in range(6):
        optimiser.zero_grad()
        cost(model.predict(Belief("test", latent([[0.0, 0.0]])), actions, HORIZON), actions).sum().backward()
        assert actions.grad is not None
        actions.grad /= actions.grad.abs().max()
        optimiser.step()
        falling.step()
        with torch.no_grad():
            actions.clamp_(-0.25, 0.25)
    assert len(ours) == 7
    torch.testing.assert_close(ours[-1], actions[0].detach(), atol=1e-6, rtol=1e-4)
    assert 0.1 < ours[-1].abs().max() <= 0.25


@each_planner
def test_the_answer_is_consistent_counted_and_free_of_gradients(planner):
    imagined = []

    class Counting(Linear):
        def predict(self, belief, actions, horizon):
            imagined.append(len(actions))
            return super().predict(belief, actions, horizon)

    start, cost = [[0.0, 0.0]], GoalDistance(latent([[0.6, 0.1]]))
    found = plan(planner, Counting(torch.eye(2), torch.eye(2)), cost, start)
    again = integrator().predict(Belief("test", latent(start)), found.actions, HORIZON)
    assert torch.equal(again.values, found.imagined.values)
    torch.testing.assert_close(cost(again, found.actions), found.cost)
    assert (found.history.diff(dim=0) <= 0).all()
    assert torch.equal(found.history[-1], found.cost)
    assert found.model_calls == sum(imagined)
    assert len(found.history) == len(imagined)
    assert not any(tensor.requires_grad for tensor in (found.actions, found.imagined.values, found.cost, found.history))


@each_planner
def test_bounds_are_obeyed_exactly_by_every_candidate(planner):
    low, high = torch.tensor([-0.1, 0.3, 0.05]), torch.tensor([0.2, 0.3, 0.7])

    class Watching(Linear):
        def predict(self, belief, actions, horizon):
            assert (actions >= low).all()
            assert (actions <= high).all()
            return super().predict(belief, actions, horizon)

    model, cost = Watching(torch.eye(3), torch.eye(3)), GoalDistance(latent([[9.0, -9.0, -9.0]]))
    found = plan(planner, model, cost, [[0.0] * 3], low=low.tolist(), high=high.tolist())
    # The goal is out of reach beyond one bound of each: the best plan leans on it; the last action matters least.
    assert (found.actions[:, :-1, 0] > 0.19).all()
    assert (found.actions[:, :-1, 2] < 0.06).all()


@pytest.mark.parametrize("together", [1, 3])
@each_planner
def test_a_plan_does_not_depend_on_its_neighbours_to_the_last_bit(planner, together):
    gradient = GradientPlanner(replace(PATIENT, steps=4, together=together))
    if isinstance(planner, Mixture):
        planner = Mixture(SamplingPlanner(replace(SHORT, together=together)), gradient)
    else:
        planner = gradient
    draw = torch.Generator().manual_seed(5)
    starts, goals = torch.randn(7, 2, generator=draw), torch.randn(7, 2, generator=draw)
    model = Rounding(torch.eye(2), torch.eye(2))
    everyone = plan(planner, model, GoalDistance(latent(goals)), starts, bound=1.0)
    for rows in ([0], [6], [2, 3], [5, 0, 4, 1]):
        generators = [torch.Generator().manual_seed(row) for row in rows]
        cost = GoalDistance(latent(goals[rows]))
        alone = plan(planner, model, cost, starts[rows], bound=1.0, generators=generators)
        assert torch.equal(alone.actions, everyone.actions[rows])
        assert torch.equal(alone.imagined.values, everyone.imagined.values[rows])
        assert torch.equal(alone.history, everyone.history[:, rows])


@torch.no_grad()
def test_the_order_of_starts_does_not_matter():
    draw = torch.Generator().manual_seed(1)
    starts, shuffle = 0.2 * torch.randn(1, 12, HORIZON, 2, generator=draw), torch.randperm(12, generator=draw)
    problem = task(integrator(), GoalDistance(latent([[0.9, -1.4]])), [[0.0, 0.0]])
    one = list(GradientPlanner(PATIENT).descend(problem, starts))
    two = list(GradientPlanner(PATIENT).descend(problem, starts[:, shuffle]))
    for first, second in zip(one, two, strict=True):
        torch.testing.assert_close(first.cost, second.cost)
        torch.testing.assert_close(first.actions, second.actions)
        assert not first.cost.requires_grad  # or every step's graph would be kept


def test_a_smaller_budget_costs_more_but_never_more_than_the_guess():
    draw = torch.Generator().manual_seed(2)
    goals = torch.rand(12, 2, generator=draw) * 3 - 1.5
    cost, guess = GoalDistance(latent(goals)), torch.full((12, HORIZON, 2), 0.1)
    guessed = cost(integrator().predict(Belief("test", latent(torch.zeros(12, 2))), guess, HORIZON), guess)

    def spent(starts, steps, start):
        planner = GradientPlanner(GradientSettings(starts=starts, steps=steps))
        return plan(planner, integrator(), cost, torch.zeros(12, 2), first_guess=start).cost

    assert (spent(1, 1, guess) <= guessed).all()
    means = [spent(*budget, None).mean().item() for budget in ((1, 1), (2, 3), (4, 10), (8, 40))]
    assert means == sorted(means, reverse=True)
    assert means[-1] < 0.5 * means[0]


def test_random_starts_leave_the_valley_of_the_guess_and_a_descent_stays_in_the_valley_that_sampling_found():
    alone, several = (GradientPlanner(replace(PATIENT, starts=starts, init_std=1.0)) for starts in (1, 16))
    sampling = SamplingPlanner(replace(SHORT, samples=8, elites=2, iterations=1))
    shallow, deep, found, settled = (
        plan(planner, integrator(1), Valleys(), [[0.0]]).cost.item()
        for planner in (alone, several, sampling, Mixture(sampling, alone))
    )
    assert shallow == pytest.approx(0.5, abs=1e-3)
    assert deep < 1e-3
    assert 1e-2 < found < 0.5
    assert settled < 1e-3


@each_planner
def test_the_search_goes_to_what_is_allowed_and_then_to_what_is_cheap(planner):
    place = Everywhere(lambda imagined, actions: imagined.values[..., 0, 0])
    bar, cost = Guardrail("bar", place, high=0.4), GoalDistance(latent([[0.6]]))
    across = torch.full((1, HORIZON, 1), 0.2)
    found = plan(planner, integrator(1), cost, [[0.0]], first_guess=across, guardrails=[bar])
    assert found.why == ("",)
    assert 0.35 < found.imagined.values[0, -1, 0, 0].item() <= 0.4
    shut = plan(planner, integrator(1), cost, [[9.0]], first_guess=across, guardrails=[bar])
    assert shut.why == ("guardrail: bar",)
    assert (shut.actions < -0.24).all()


@pytest.mark.parametrize("answer", [float("nan"), -float("inf")])
@each_planner
def test_a_cost_that_is_not_finite_is_the_worst(planner, answer):
    blocked = Broken(GoalDistance(latent([[1.0]])), wall=0.5, answer=answer)
    found = plan(planner, integrator(1), blocked, [[0.0]])
    assert found.imagined.values.max() <= 0.5
    assert found.imagined.values[0, -1].item() > 0.35
    with pytest.raises(ValueError, match="row 1 has a finite cost"):
        plan(planner, integrator(1), replace(blocked.rows(torch.tensor([0, 0])), wall=9.0), [[0.0], [99.0]])


def test_a_number_without_a_finite_gradient_stays_and_the_others_move():
    @dataclass(frozen=True)
    class Kinked:
        """The first action's square root has no slope at 0, where a descent begins."""

        inner: GoalDistance

        def __call__(self, imagined, actions):
            return self.inner(imagined, actions) + actions[:, 0, 0].abs().sqrt()

        def rows(self, index):
            return replace(self, inner=self.inner.rows(index))

    alone = GradientPlanner(replace(PATIENT, starts=1))
    found = plan(alone, integrator(1), Kinked(GoalDistance(latent([[0.6]]))), [[0.0]])
    assert found.actions[0, 0, 0] == 0
    assert (found.actions[0, 1:3] > 0.2).all()
    assert found.imagined.values[0, -1].item() == pytest.approx(0.6, abs=0.02)


def test_what_does_not_fit_is_refused_in_one_sentence():
    class Simulator(Linear):
        def predict(self, belief, actions, horizon):
            return super().predict(belief, actions.detach(), horizon)

    class Weighty(Linear):
        def predict(self, belief, actions, horizon):
            scale = torch.ones((), requires_grad=True)  # as of a model whose weights have gradients
            imagined = super().predict(belief, actions.detach(), horizon)
            return Latent(scale * imagined.values, imagined.times)

    for world in (Simulator, Weighty):
        with pytest.raises(ValueError, match="no gradient to the actions; plan by sampling"):
            plan(PLANNERS["gradient"], world(torch.eye(1), torch.eye(1)), GoalDistance(latent([[0.6]])), [[0.0]])
    for wrong, message in (({"starts": 0}, "at least 1"), ({"rate": 0.0}, "rate"), ({"memory": 1.0}, "memory")):
        with pytest.raises(ValueError, match=message):
            GradientSettings(**wrong)
    with pytest.raises(ValueError, match="1 plans together and the second 3"):
        Mixture(SamplingPlanner(METHODS["cem"]), GradientPlanner(GradientSettings(together=3)))
