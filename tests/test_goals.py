"""Goals of every kind by numbers known by hand, and guardrails where the best way round is known in closed form."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ami.evaluation.simulator import RoomsSimulator
from ami.planning.costs import ActionCost, AnyOf, GoalDistance, ReadOut, StepsToGo, Sum
from ami.planning.guardrails import Away, Everywhere, action_length, ranked, refusals
from ami.planning.sampling import METHODS, SamplingPlanner, SamplingSettings
from ami.types import Belief, Guardrail, Latent, Plan
from ami.worlds.rooms import EMBODIMENT, REPEAT, SPEED, Rooms, sample_pairs
from known_worlds import HORIZON, integrator, latent
from test_planning import plan


def place(imagined: Latent) -> torch.Tensor:
    """The read-out of worlds whose latent is a place."""
    return imagined.values[:, :, 0]


def settled(method: str) -> SamplingSettings:
    """So many iterations, and so little spread left, that a search comes to rest."""
    return replace(METHODS[method], iterations=30, elites=32, shrink=1.0, min_std=0.002)


def path(*rows: list[list[float]]) -> Latent:
    """Imagined futures by hand, one list of places each."""
    values = torch.tensor(rows)[:, :, None]
    return Latent(values, torch.arange(values.shape[1]).expand(len(rows), -1).float())


def ahead(imagined: Latent, goal: Latent) -> torch.Tensor:
    """Steps to go in a world where the way back takes ten times as long as the way on: a quasimetric."""
    assert (len(goal), goal.steps) == (len(imagined), 1)
    gap = (goal.values - imagined.values)[:, :, 0, 0]
    return torch.where(gap >= 0, gap, -10 * gap)


# ---------------------------------------------------------------- goals


def test_steps_to_go_are_summed_from_the_imagined_steps_to_the_goal_of_their_plan():
    imagined, actions = path([[0.0], [1.0]], [[4.0], [2.0]], [[0.0], [1.0]], [[4.0], [2.0]]), torch.zeros(4, 2, 1)
    cost = StepsToGo(latent([[3.0], [1.0]]), ahead, sum=1.0, last=100.0)
    assert cost(imagined, actions).tolist() == [3 + 2 + 200, 10 + 1 + 100, 1 + 0 + 0, 30 + 10 + 1000]
    assert cost.rows(torch.tensor([1, 0]))(imagined, actions).tolist() == [1, 1040, 205, 111]
    assert replace(cost, sum=0.0)(imagined, actions).tolist() == [200, 100, 0, 1000]


def test_any_of_is_the_cheapest_of_each_row():
    imagined, actions = path([[0.0]], [[4.0]]), torch.ones(2, 1, 1)
    near, far = (GoalDistance(latent([[at]] * 2), "l1", last=0, min=0) for at in (1.0, 5.0))
    assert AnyOf((near, far))(imagined, actions).tolist() == [1.0, 1.0]
    assert AnyOf((far,))(imagined, actions).tolist() == [5.0, 1.0]
    own = AnyOf((GoalDistance(latent([[0.0], [9.0]]), last=0, min=0), near))
    assert own(imagined, actions).tolist() == [0.0, 3.0]
    assert own.rows(torch.tensor([1, 0]))(imagined, actions).tolist() == [1.0, 3.0]
    assert AnyOf((near, Sum(((-1.0, far),))))(imagined, actions).tolist() == [-5.0, -1.0]


def test_a_read_out_costs_what_lies_beyond_its_radius():
    imagined, actions = path([[3.0, 4.0], [0.0, 1.0]], [[0.0, 0.0], [6.0, 8.0]]), torch.zeros(2, 2, 2)
    cost = ReadOut(place, torch.zeros(1, 2), radius=2.0, sum=1.0, last=10.0)
    assert cost(imagined, actions).tolist() == [3.0, 8.0 + 80.0]
    assert replace(cost, radius=0.0, last=0.0)(imagined, actions).tolist() == [6.0, 10.0]
    own = replace(cost, target=torch.tensor([[0.0, 0.0], [6.0, 7.0]]))
    assert own(imagined, actions).tolist() == pytest.approx([3.0, math.hypot(6, 7) - 2])
    swapped = own.rows(torch.tensor([1, 0]))(imagined, actions)
    assert swapped.tolist() == pytest.approx([math.hypot(3, 3) - 2 + 11 * (math.hypot(6, 6) - 2), 88.0])


@pytest.mark.parametrize("method", METHODS)
def test_the_nearer_of_two_goals_is_reached(method):
    either = AnyOf((GoalDistance(latent([[0.9, 0.0], [0.4, 0.0]])), GoalDistance(latent([[-0.5, 0.0], [-0.8, 0.0]]))))
    found = plan(settled(method), integrator(), either, [[0.0, 0.0]] * 2)
    ends = found.imagined.values[:, -1, 0]
    assert (ends - torch.tensor([[-0.5, 0.0], [0.4, 0.0]])).norm(dim=-1).max() < 0.05


def test_a_read_out_goal_is_left_alone_within_its_radius():
    # With a little effort to pay, the cheapest way is to stop where the radius begins.
    goal = Sum(((10.0, ReadOut(place, torch.tensor([[1.0, 0.0], [0.0, -1.0]]), 0.3, sum=0)), (1.0, ActionCost())))
    found = plan(settled("cem"), integrator(), goal, [[0.0, 0.0]] * 2)
    ends = found.imagined.values[:, -1, 0]
    assert (ends - torch.tensor([[0.7, 0.0], [0.0, -0.7]])).norm(dim=-1).max() < 0.02


# ---------------------------------------------------------------- guardrails

BEFORE, ROUND, STEPS = 1.0, 0.5, 8  # start and goal at this distance from the middle of a disc with this radius


def past_the_disc(settings, guardrails: tuple[Guardrail, ...]) -> tuple[torch.Tensor, torch.Tensor, Plan]:
    """From one side of a disc to the other with little effort, in 24 directions; cost over the known optimum."""
    angle = torch.arange(24) * math.tau / 24
    far = BEFORE * torch.stack([angle.cos(), angle.sin()], -1)
    cost = Sum(((1.0, GoalDistance(latent(far), sum=0, min=0)), (1.0, ActionCost())))
    found = plan(settings, integrator(), cost, -far, bound=0.5, horizon=STEPS, guardrails=guardrails)
    nearest = place(found.imagined).norm(dim=-1).amin(1)
    # Of a way of length L in T equal steps, that stops a little short, no cost is below L^2 / (T + 1); the shortest
    # way round is two tangents and an arc.
    tangents, arc = 2 * math.sqrt(BEFORE**2 - ROUND**2), ROUND * (math.pi - 2 * math.acos(ROUND / BEFORE))
    length = tangents + arc if guardrails else 2 * BEFORE
    return found.cost / (length**2 / (STEPS + 1)), nearest, found


@pytest.mark.parametrize("method", METHODS)
def test_a_forbidden_disc_is_gone_round_on_nearly_the_shortest_way(method):
    keep_out = Guardrail("disc", Away(place, torch.zeros(24, 2)), low=ROUND)
    over, nearest, found = past_the_disc(settled(method), (keep_out,))
    assert found.found.all()
    assert (nearest >= ROUND).all()
    # Steps may cut the corner between two places outside the disc, so the optimum is a little below the smooth one.
    assert over.min() > 0.98
    assert over.mean() < 1.05
    over, nearest, found = past_the_disc(settled(method), ())
    assert found.found.all()
    assert (nearest < ROUND / 2).all()
    assert over.mean() == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("method", METHODS)
def test_few_iterations_break_no_guardrail_either(method):
    keep_out = Guardrail("disc", Away(place, torch.zeros(24, 2)), low=ROUND)
    _, nearest, found = past_the_disc(METHODS[method], (keep_out,))
    assert found.found.all()
    assert (nearest >= ROUND).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_limit_on_actions_is_obeyed_exactly_and_used_up(method):
    goals = torch.tensor([[9.0, 9.0], [-9.0, 0.0], [5.0, -7.0]])
    pace = Guardrail("pace", Everywhere(action_length), high=0.2)
    found = plan(
        settled(method),
        integrator(),
        GoalDistance(latent(goals)),
        torch.zeros(3, 2),
        guardrails=[pace],
    )
    lengths = found.actions.norm(dim=-1)
    assert found.found.all()
    assert (lengths <= 0.2).all()
    assert (lengths.sum(1) > 0.9 * 0.2 * HORIZON).all()


@pytest.mark.parametrize("method", METHODS)
def test_the_search_moves_to_what_is_allowed_where_no_first_candidate_is(method):
    # Never rest, where the goal is to stay: full speed both ways in every step is 0.35, which nobody draws by chance.
    goal, hurry = GoalDistance(latent([[0.0, 0.0]] * 4)), Guardrail("hurry", Everywhere(action_length), low=0.33)
    at_once = plan(replace(METHODS[method], iterations=1), integrator(), goal, torch.zeros(4, 2), guardrails=[hurry])
    assert at_once.why == ("guardrail: hurry",) * 4
    found = plan(settled(method), integrator(), goal, torch.zeros(4, 2), guardrails=[hurry])
    assert found.found.all()
    assert (found.actions.norm(dim=-1) >= 0.33).all()


def test_what_nobody_can_obey_is_no_plan_and_the_search_came_as_near_as_it_could():
    goal = GoalDistance(latent([[0.3, 0.3], [0.3, 0.3]]))
    fast = Guardrail("fast", Everywhere(action_length), low=1.0)
    found = plan(settled("cem"), integrator(), goal, [[0.0, 0.0]] * 2, guardrails=[fast])
    assert found.why == ("guardrail: fast",) * 2
    assert not found.found.any()
    assert found.actions.abs().mean() > 0.22  # of 0.25: the longest actions there are
    # One row's place is out of reach, the other's is not; and of two broken guardrails the first is named.
    near = Guardrail("near", Away(place, torch.tensor([[0.0, 0.0], [9.0, 0.0]])), high=1.0)
    found = plan("cem", integrator(), goal, [[0.0, 0.0]] * 2, guardrails=[near])
    assert found.why == ("", "guardrail: near")
    assert found.imagined.values[1, -1, 0, 0] > 2.5
    assert plan("cem", integrator(), goal, [[0.0, 0.0]] * 2, guardrails=[near, fast]).why == (
        "guardrail: fast",
        "guardrail: near",
    )


def test_a_plan_that_does_not_end_at_its_goal_is_none_where_the_caller_says_what_is_enough():
    goal, starts = GoalDistance(latent([[1.0, 0.0], [9.0, 0.0]]), "l2", min=0), [[0.0, 0.0]] * 2
    found = plan("cem", integrator(), goal, starts, enough=torch.tensor([0.1, 0.1]))
    assert found.why == ("", "search")
    assert found.found.tolist() == [True, False]
    assert found.cost[0] > 0.1  # of the whole way, which is not what is asked
    again = plan("cem", integrator(), goal, starts)
    assert again.why == ("", "")
    assert torch.equal(again.actions, found.actions)
    assert Plan(found.actions, found.imagined, found.cost, found.history, 1).found.tolist() == [True, True]


@pytest.mark.parametrize("together", [1, 3])
def test_neither_goals_nor_guardrails_of_its_neighbours_change_a_plan(together):
    settings = replace(METHODS["icem"], iterations=3, samples=50, elites=10, together=together)
    draw = torch.Generator().manual_seed(5)
    starts, goals, places = (torch.randn(7, 2, generator=draw) for _ in range(3))

    def planned(rows: list[int]) -> Plan:
        steps = StepsToGo(latent(goals[rows]), lambda now, goal: (goal.values - now.values)[:, :, 0].norm(dim=-1))
        return plan(
            settings,
            integrator(),
            AnyOf((steps, ReadOut(place, places[rows], radius=0.2))),
            starts[rows],
            guardrails=[Guardrail("disc", Away(place, places[rows]), low=0.5)],
            enough=torch.full((len(rows),), 1.0),
            generators=[torch.Generator().manual_seed(row) for row in rows],
        )

    everyone = planned(list(range(7)))
    assert 0 < everyone.found.sum() < 7
    for rows in ([0], [6], [2, 3], [5, 0, 4, 1]):
        alone = planned(rows)
        assert torch.equal(alone.actions, everyone.actions[rows])
        assert torch.equal(alone.cost, everyone.cost[rows])
        assert alone.why == tuple(everyone.why[row] for row in rows)


def test_allowed_comes_before_cheap_and_cheap_before_dear():
    costs = torch.tensor([5.0, -1e9, 2.0, 0.0, 1e9, float("nan"), 0.0])
    excess = torch.tensor([[0.0, 0.0], [0.0, 0.5], [0.0, 0.0], [0.2, 0.2], [0.0, 0.0], [0.0, 0.0], [float("nan"), 0.0]])
    ranks = ranked(costs, excess)
    assert ranks.argsort().tolist()[:5] == [2, 0, 4, 3, 1]
    assert (ranks[5:] == torch.finfo(torch.float32).max).all()
    assert torch.equal(ranked(costs[:5], excess[:5, :0]), costs[:5])
    assert (ranked(torch.tensor([math.nan, math.inf]), torch.ones(2, 1)) == ranks[5]).all()
    huge = ranked(torch.zeros(64), torch.full((64, 1), 1e30))
    assert huge.mean().isfinite()


def test_a_guardrail_by_hand():
    imagined, actions = path([[0.0], [3.0]], [[1.0], [2.0]]), torch.tensor([[[3.0, 4.0], [0.0, 0.0]]] * 2)
    away = Away(place, torch.tensor([[0.0], [2.0]]))
    assert away(imagined, actions).tolist() == [[0.0, 3.0], [1.0, 0.0]]
    assert Guardrail("out", away, low=1.5).excess(imagined, actions).tolist() == [1.5, 2.0]
    assert Guardrail("in", away, high=0.5).excess(imagined, actions).tolist() == [2.5, 0.5]
    assert Guardrail("ring", away, low=1.0, high=1.5).excess(imagined, actions).tolist() == [2.5, 1.0]
    swapped = Guardrail("in", away, high=0.5).rows(torch.tensor([1, 0]))
    assert swapped.excess(imagined, actions).tolist() == [2.0, 2.0]
    assert action_length(imagined, actions).tolist() == [[5.0, 0.0]] * 2
    yes, no = torch.tensor([True] * 4), torch.tensor([True, False, True, False])
    excess = torch.tensor([[0.0, 0.1], [0.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    rails = [Guardrail("a", away, low=1.0), Guardrail("b", away, low=1.0)]
    assert refusals(rails, excess, yes, no) == ("guardrail: b", "search", "guardrail: a", "guardrail: a")
    assert refusals(rails, excess, no, yes) == ("guardrail: b", "unreachable", "guardrail: a", "unreachable")


def test_a_measure_that_is_no_number_is_as_bad_as_can_be():
    def unknown(imagined: Latent, actions: torch.Tensor) -> torch.Tensor:
        at = place(imagined)[..., 0]
        return torch.where(at > 0.5, torch.nan, 0.0)

    blocked = Guardrail("known", Everywhere(unknown), high=1.0)
    found = plan("cem", integrator(1), GoalDistance(latent([[1.0]])), [[0.1]], guardrails=[blocked])
    assert found.imagined.values.max() <= 0.5
    assert found.imagined.values[0, -1].item() > 0.35


def test_what_does_not_fit_is_refused_in_one_sentence():
    imagined, actions, goal = path([[0.0]] * 3, [[1.0]] * 3), torch.zeros(2, 3, 1), latent([[0.0], [1.0]])
    away = Away(place, torch.zeros(2, 1))
    for refused, message in (
        (lambda: StepsToGo(imagined, ahead), "a goal is one step, but this latent has 3"),
        (lambda: StepsToGo(goal, lambda now, goal: now.values)(imagined, actions), r"reach answered \(2, 3, 1, 1\)"),
        (lambda: StepsToGo(goal, ahead).rows(torch.tensor([2])), "plan number 2 has no goal"),
        (lambda: ReadOut(place, torch.zeros(2, 1), radius=-1.0), "a radius is 0 or more"),
        (lambda: ReadOut(place, torch.zeros(2, 2))(imagined, actions), "the place has 2 numbers"),
        (lambda: Away(place, torch.zeros(3, 1))(imagined, actions), "2 futures cannot be shared by 3 places"),
        (lambda: AnyOf(()), "give at least one"),
        (lambda: Guardrail("disc", away), "'disc' allows from -inf to inf; give it a bound"),
        (lambda: Guardrail("disc", away, low=2.0, high=1.0), "from 2.0 to 1.0"),
        (
            lambda: Guardrail("u", Everywhere(lambda now, done: done), low=0.0).excess(imagined, actions),
            "'u' measured",
        ),
        (
            lambda: plan("cem", integrator(1), GoalDistance(goal), [[0.0]] * 2, enough=torch.ones(1)),
            r"enough is \(1,\)",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            refused()


# ---------------------------------------------------------------- a way that is known


def shortest(imagined: Latent, goal: Latent) -> torch.Tensor:
    """Steps at full effort on the shortest way of Two Rooms."""
    steps = imagined.steps
    places, ends = (each.values[:, :, 0].numpy().astype(float) for each in (imagined, goal))
    layout = Rooms(*ends[:, 0, 2:].T.repeat(steps, axis=-1))
    apart = layout.distance(places[..., :2].reshape(-1, 2), ends[:, 0, :2].repeat(steps, axis=0))
    return torch.from_numpy(apart.reshape(-1, steps) / (SPEED * REPEAT)).float()


def across(family: str, enough: float | None = None) -> tuple[Latent, Plan]:
    """Goals in the other room of 8 layouts, and the plans of the true simulator by steps to go."""
    rooms, *ends = sample_pairs(family, 8, np.random.default_rng(2), cross_room=True)
    start, goal = (latent(torch.from_numpy(np.stack([*at.T, rooms.wall, rooms.door], -1)).float()) for at in ends)
    found = SamplingPlanner(replace(METHODS["icem"], colour=2.0)).plan(
        RoomsSimulator(),
        StepsToGo(goal, shortest),
        Belief(EMBODIMENT.name, start),
        horizon=20,
        low=EMBODIMENT.low,
        high=EMBODIMENT.high,
        generators=[torch.Generator().manual_seed(row) for row in range(8)],
        enough=None if enough is None else torch.full((8,), enough),
    )
    return goal, found


def test_steps_to_go_lead_through_the_door_and_say_where_there_is_none():
    goal, found = across("wall", enough=2.0)  # one step, summed and as the last
    assert found.found.all()
    ends = found.imagined.values[:, -1, 0] - goal.values[:, 0, 0]
    assert (ends[:, :2].norm(dim=-1) <= SPEED * REPEAT).all()
    assert across("sealed")[1].why == ("unreachable",) * 8
