"""Guardrails where a model is wrong about what stops a step: a wall in its imagination that is not there."""

from dataclasses import replace

import pytest
import torch

from ami.agent import Agent, perceive
from ami.planning.costs import GoalDistance
from ami.planning.guardrails import Away, Swept, unstopped
from ami.types import Guardrail, Latent
from test_agent import SMALL, Point, clip, scattered

RADIUS = 0.15
PLACE, GOAL = torch.tensor([[0.2, 0.0]]), torch.tensor([[0.0, 0.6]])


class Walled(Point):
    """Imagines a wall at x = 0 that stops who comes from the left."""

    def predict(self, belief, actions, horizon):
        at, passed = belief.latents.values[:, -1, 0], []
        for action in actions.unbind(1):
            free = at + action
            stopped = (at[:, :1] <= 0) & (free[:, :1] > 0)
            at = torch.cat([torch.where(stopped, 0.0, free[:, :1]), free[:, 1:]], 1)
            passed.append(at)
        imagined = super().predict(belief, actions, horizon)
        return Latent(torch.stack(passed, 1)[:, :, None], imagined.times)


def place(seen: Latent) -> torch.Tensor:
    return seen.values[:, :, 0]


def walk(guard, starts: torch.Tensor, steps: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """How near each walk comes to the forbidden place and how far from the goal it ends, where there is no wall."""
    model, rows = Walled(), len(starts)
    cost = GoalDistance(perceive(model, clip(GOAL.expand(rows, -1))), "l2")
    actor = Agent(model, "point", cost, SMALL, horizon=3, replan_every=1, guardrails=guard)
    state, at, near = None, starts, torch.full((rows,), torch.inf)
    for step in range(steps):
        action, state = actor.act(state, clip(at, 0.1 * step))
        at = at + action
        near = torch.minimum(near, (at - PLACE).norm(dim=-1))
    return near, (at - GOAL).norm(dim=-1)


STARTS = torch.stack([torch.full((12,), -0.02), torch.linspace(-0.6, -0.4, 12)], 1)


def test_who_also_asks_where_an_unstopped_step_would_end_never_enters_through_a_wall_that_is_not_there() -> None:
    places, moves = PLACE.expand(12, -1), torch.eye(2)

    def now(belief):
        here = place(belief.latents)[:, -1]
        return [Guardrail("disc", Swept(place, places, here, moves), low=RADIUS)]

    trusting, _ = walk([Guardrail("disc", Away(place, places), low=RADIUS)], STARTS)
    near, left = walk(now, STARTS)
    assert (trusting < RADIUS).sum() > 3
    assert (near >= RADIUS - 1e-5).all()
    assert (left < 0.2).all()  # 0.6 away from where it began


def test_of_two_ends_the_nearer_counts_and_a_step_begins_where_the_last_was_imagined_to_end() -> None:
    imagined = Latent(torch.tensor([[[[0.0]], [[0.0]]], [[[3.0]], [[3.0]]]]), torch.zeros(2, 2))
    actions = torch.tensor([[[1.0], [2.0]], [[-1.0], [1.0]]])
    swept = Swept(place, torch.tensor([[5.0]]), torch.tensor([[1.0]]), torch.tensor([[2.0]]))
    # The first row: from 1 by 2 to 3, then from 0 by 4 to 4. The second: to -1, yet it ends at 3; from 3 to 5.
    assert swept(imagined, actions).tolist() == [[2.0, 1.0], [2.0, 0.0]]
    two = replace(swept, place=torch.tensor([[5.0], [3.0]]), here=torch.tensor([[1.0], [4.0]]))
    assert two(imagined, actions).tolist() == [[2.0, 1.0], [0.0, 0.0]]
    assert two.rows(torch.tensor([1, 0]))(imagined, actions).tolist() == [[3.0, 1.0], [2.0, 0.0]]


def test_what_an_action_moves_where_nothing_stops_it_is_found_although_many_are_stopped() -> None:
    at = 0.3 * scattered(400)
    seen, model = Latent(at[:, None, None], torch.zeros(400, 1)), Walled()
    turned = torch.tensor([[0.0, 3.0], [-2.0, 0.5]])

    def read(latent: Latent) -> torch.Tensor:
        return place(latent) @ turned

    moves = unstopped(model, seen, "point", read, torch.Generator().manual_seed(1))
    torch.testing.assert_close(moves, turned, atol=1e-4, rtol=1e-4)
    drawn = 0.4 * torch.rand(400, 2, generator=torch.Generator().manual_seed(1)) - 0.2
    changed = read(model.predict(model.believe(None, seen, None, "point"), drawn[:, None], 1)) - read(seen)
    everything = torch.linalg.lstsq(drawn, changed[:, 0]).solution
    assert (everything - turned).abs().max() == pytest.approx(0.45, abs=0.35)
