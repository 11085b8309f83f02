"""Pits: an agent that goes downhill sits in one, and one that fills them walks out."""

from dataclasses import dataclass, replace

import pytest
import torch

from ami.agent import Agent
from ami.planning.costs import Doubt
from ami.planning.filled import Filled
from ami.planning.sampling import METHODS, SamplingPlanner
from ami.types import Clip, Latent
from test_agent import Point, clip

NEAR = SamplingPlanner(replace(METHODS["cem"], samples=64, elites=8, iterations=2))


@dataclass(frozen=True)
class Pit:
    """Steps to (1, 0), with a wall between it and the origin that ends at y = ± 0.4: a pit lies before it."""

    plans: int

    def at(self, places: torch.Tensor) -> torch.Tensor:
        far = (places - torch.tensor([1.0, 0.0])).norm(dim=-1)
        return far / 0.2 + 9.0 * torch.exp(-(((places[..., 0] - 0.5) / 0.2) ** 2) - (places[..., 1] / 0.4) ** 8)

    def __call__(self, imagined, actions):
        return self.at(imagined.values[:, :, 0]).sum(1)

    def rows(self, index):
        return replace(self, plans=len(torch.arange(self.plans)[index]))


class Seeing(Point):
    """Also takes latents for what it sees."""

    def encode(self, clip):
        return super().encode(clip) if clip.latents is None else Latent(clip.latents, clip.times)


def walker(plans: int, **changes) -> Agent:
    settings = {"planner": NEAR, "horizon": 1, "replan_every": 1, "enough": 1.0, **changes}
    return Agent(Seeing(), "point", Pit(plans), **settings)


def ends(actor: Agent, starts: torch.Tensor, steps: int = 150) -> tuple[torch.Tensor, object]:
    """How near each walk ever came to the goal, and where it stood at the end."""
    state, places, near = None, starts.clone(), torch.full((len(starts),), torch.inf)
    for step in range(steps):
        action, state = actor.act(state, clip(places, 0.1 * step))
        places = places + action
        near = torch.minimum(near, (places - torch.tensor([1.0, 0.0])).norm(dim=-1))
    return near, state


STARTS = torch.tensor([[0.0, 0.0], [-0.1, 0.05], [0.1, -0.02], [0.0, 0.1]])


def test_an_agent_that_fills_pits_gets_out_of_one_and_another_stays() -> None:
    stays, _ = ends(walker(4), STARTS)
    leaves, state = ends(walker(4, places=150), STARTS)
    assert (stays > 0.4).all()
    assert (leaves < 0.2).all()
    assert state.heights.shape == (4, 150)
    assert (state.heights >= 0).all()


def test_who_has_arrived_fills_nothing() -> None:
    _, state = ends(walker(1, places=5), torch.tensor([[1.0, 0.05]]), steps=5)
    assert not state.heights.any()


def test_filling_leaves_rows_to_themselves() -> None:
    _, together = ends(walker(4, places=9), STARTS, steps=12)
    state, places = None, STARTS[2:3].clone()
    for step in range(12):
        seen = clip(places, 0.1 * step)
        alone = walker(1, places=9)
        action, state = alone.act(state, seen, None if state else [2])
        places = places + action
    assert torch.equal(state.heights[0], together.heights[2])


def test_a_hill_is_as_high_as_said_on_its_place_and_nothing_far_away() -> None:
    places = torch.tensor([[[[0.2, 0.0]]]])
    filled = Filled(Pit(1), places, torch.tensor([[3.0]]))
    here, away = Latent(places, torch.zeros(1, 1)), Latent(places + 1.0, torch.zeros(1, 1))
    for latent, height in ((here, 3.0), (away, 0.0)):
        raised = filled(latent, torch.zeros(1, 1, 2)) - Pit(1)(latent, torch.zeros(1, 1, 2))
        assert raised.item() == pytest.approx(height, abs=1e-4)
    assert filled.rows(torch.tensor([0, 0])).heights.shape == (2, 1)


def test_acting_in_imagination_arrives_where_acting_does_and_says_so_where_it_does_not() -> None:
    seen = clip(STARTS)
    found, stuck = walker(4, places=150).foresee(seen, 150), walker(4).foresee(seen, 150)
    assert found.found.all()
    assert stuck.why == ("unreachable",) * 4
    doubt = Doubt(goals := Latent(torch.tensor([[[[1.0, 0.0]]]]).expand(4, -1, -1, -1), torch.zeros(4, 1)), beyond)
    doubting = walker(4, places=150, doubt=doubt)
    assert doubting.foresee(seen, 150).why == ("", "unreachable", "", "")
    torch.testing.assert_close(doubting.act(None, seen)[0], walker(4, places=150).act(None, seen)[0])
    assert doubt.rows(torch.tensor([1])).goal.values.shape == goals.values[:1].shape


def beyond(now: Latent, goal: Latent) -> torch.Tensor:
    """How likely a way is: hardly from where it is seen that x is below 0, certain from where it is imagined."""
    return torch.where((now.values - goal.values)[:, :, 0, 0] < -1.05, 0.4, 0.6)
    assert found.actions.shape == (4, 150, 2)
    torch.testing.assert_close(found.imagined.values[:, -1, 0], STARTS + found.actions.sum(1))
    assert (found.history[1:] <= found.history[:-1]).all()
    assert isinstance(seen, Clip)
