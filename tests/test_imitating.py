"""What was done on the way to where one came is learned from moments on a line, and done without a search."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ami.agent import Agent
from ami.evaluation.suites.reaching import BY_WAYS
from ami.models.jepa import JEPA, SCENE, STATE, JEPAConfig
from ami.objectives.reach import Reach
from ami.planning.costs import StepsToGo
from ami.planning.proposed import Proposed
from ami.training.hindsight import HindsightStore
from ami.types import Clip, Embodiment, Latent

BODY = Embodiment("line", step_seconds=0.5, low=(-1.0,), high=(1.0,), action_mean=(0.0,), action_std=(1.0,))
BEFORE, AHEAD = 2, 4


class Errands:
    """Who walks at one pace to some place and stays there; a block stands still until it is moved at the very end.

    The first number of a state is where he is, the first of a scene where the block is.
    """

    folder = None

    def __init__(self, count: int = 64, steps: int = 12) -> None:
        drawn = torch.Generator().manual_seed(0)
        pace = 0.2 * torch.randn(count, 1, generator=drawn).sign().expand(-1, steps)
        self.values = torch.zeros(count, steps, 2, 4)
        self.values[:, 1:, STATE, 0] = pace[:, 1:].cumsum(1)
        self.values[:, :, SCENE, 0] = pace  # what the goal's scene says is where he went
        self.actions = pace
        self.episodes = tuple(SimpleNamespace(length=steps, place="") for _ in range(count))

    def windows(self, steps, frames_per_step=1, episodes=None):
        count, length = self.values.shape[:2]
        return np.array([[row, first] for row in range(count) for first in range(length - steps + 1)])

    def clips(self, index, steps, frames_per_step=1):
        rows = torch.from_numpy(index[:, :1])
        at = torch.from_numpy(index[:, 1:]) + torch.arange(steps)
        done = self.actions[rows, at[:, :-1]][..., None]
        return Clip("line", at * BODY.step_seconds, latents=self.values[rows, at], actions=done)


def model(imitates: tuple[str, ...] = ("line",)) -> JEPA:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return JEPA(
            JEPAConfig(embodiments={"line": BODY}, dim=4, reaches=("line",), imitates=imitates, reach_width=32)
        ).eval()


def moment(where: torch.Tensor, block: torch.Tensor) -> Latent:
    values = torch.zeros(len(where), 1, 2, 4)
    values[:, 0, STATE, 0], values[:, 0, SCENE, 0] = where, block
    return Latent(values, torch.zeros(len(where), 1))


def test_a_clip_is_a_start_a_goal_that_was_reached_and_what_was_done_first() -> None:
    errands = Errands()
    store = HindsightStore(errands, BEFORE, AHEAD)
    index = store.windows(BEFORE + 2)
    assert len(index) == 64 * (12 - BEFORE - AHEAD) * AHEAD
    assert len(np.unique(index, axis=0)) == len(index)
    clip = store.clips(index, BEFORE + 2)
    first, later = np.divmod(index[:, 1], AHEAD)
    start = torch.from_numpy(first + BEFORE)
    goal = start + 1 + torch.from_numpy(later)
    rows = torch.from_numpy(index[:, 0])
    assert goal.max() == 11
    assert torch.equal(clip.latents[:, -2], errands.values[rows, start])
    assert torch.equal(clip.latents[:, -1], errands.values[rows, goal])
    assert torch.equal(clip.actions[:, -1, 0], errands.actions[rows, start])
    assert torch.equal(clip.times[:, -1] - clip.times[:, -2], (goal - start) * BODY.step_seconds)


@pytest.mark.parametrize("imitates", [("line",), ()])
def test_only_who_imitates_sees_in_the_goal_what_stood_still(imitates: tuple[str, ...]) -> None:
    store, learner = HindsightStore(Errands(), BEFORE, AHEAD), model(imitates).train()
    objective, drawn = Reach(), torch.Generator().manual_seed(1)
    optimiser = torch.optim.Adam(learner.ways.parameters(), 3e-3)
    index = store.windows(BEFORE + 2)
    for _ in range(150):
        clip = store.clips(index[torch.randint(len(index), (128,), generator=drawn).numpy()], BEFORE + 2)
        # Neither where he is nor where he goes, and no scene but the goal's, tells on which side the errand was.
        clip.latents[:, :, STATE] = 0.0
        clip.latents[:, :-1, SCENE] = 0.0
        loss = sum(objective.losses(learner, clip, drawn).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    learner.eval()
    side = torch.tensor([-0.2, 0.2])
    here = learner.believe(None, moment(torch.zeros(2), torch.zeros(2)), None, "line")
    told = learner.propose(here, moment(torch.zeros(2), side), 1)[:, 0, 0]
    if imitates:
        assert torch.allclose(told, side, atol=0.05)
    else:
        torch.testing.assert_close(told[0], told[1])


def test_what_is_proposed_is_done_and_neighbours_change_nothing() -> None:
    learner = model()
    where = torch.linspace(-1.0, 1.0, 5)
    goal = moment(-where, where)
    agent = BY_WAYS.agent(learner, "line", goal, seed=0)
    assert isinstance(agent.planner, Proposed)
    assert isinstance(agent.cost, StepsToGo)
    seen = Clip("line", torch.zeros(5, 1), latents=moment(where, where).values)
    action, state = agent.act(None, seen)
    assert state.plan.model_calls == 1
    torch.testing.assert_close(action, learner.propose(state.belief, goal, 1)[:, 0])
    alone = BY_WAYS.agent(learner, "line", _row(goal, 3), seed=0)
    again, _ = alone.act(None, seen.rows(slice(3, 4)))
    assert torch.equal(again[0], action[3])


def test_what_is_proposed_may_lead_nowhere() -> None:
    learner = model()
    goal = moment(torch.ones(1), torch.ones(1))
    cost = StepsToGo(goal, lambda now, there: torch.full(now.times.shape, torch.inf))
    agent = Agent(learner, "line", cost, Proposed(goal), horizon=1, replan_every=1)
    _, state = agent.act(None, Clip("line", torch.zeros(1, 1), latents=moment(torch.zeros(1), torch.zeros(1)).values))
    assert state.plan.why == ("unreachable",)


def test_who_imitates_must_have_learned_ways() -> None:
    with pytest.raises(ValueError, match="name it in `reaches`"):
        JEPA(JEPAConfig(embodiments={"line": BODY}, imitates=("line",)))


def _row(goal: Latent, row: int) -> Latent:
    return Latent(goal.values[row : row + 1], goal.times[row : row + 1])
