"""An agent in a point world must reach the goal that it is shown, and must not where its cost is negated."""

from dataclasses import replace

import pytest
import torch

from ami.agent import Agent, perceive
from ami.planning.costs import GoalDistance, Sum
from ami.planning.sampling import METHODS, SamplingPlanner
from ami.types import Belief, Clip, Embodiment, Latent, WorldModel

SMALL = SamplingPlanner(replace(METHODS["cem"], samples=48, elites=6, iterations=3))


class Point(WorldModel):
    """Knows exactly that a point moves by its action; with ``rounding``, sees a little more in a larger batch."""

    def __init__(self, rounding: float = 0.0) -> None:
        super().__init__()
        self.embodiments = {
            "point": Embodiment("point", 0.1, (-0.2, -0.2), (0.2, 0.2)),
            "film": Embodiment("film", 0.1),
        }
        self.latent_shape = (1, 2)
        self.rounding = rounding
        self.eval()

    def encode(self, clip):
        return Latent(clip.proprio[:, :, None] + self.rounding * len(clip), clip.times)

    def believe(self, belief, seen, actions, embodiment=""):
        if belief is None:
            return Belief(embodiment, seen, actions)
        held = belief.latents
        latents = Latent(torch.cat([held.values, seen.values], 1), torch.cat([held.times, seen.times], 1))
        done = actions if belief.actions is None else torch.cat([belief.actions, actions], 1)
        return Belief(belief.embodiment, latents, done)

    def predict(self, belief, actions, horizon):
        values = belief.latents.values[:, -1:] + actions.cumsum(1)[:, :, None]
        times = belief.latents.times[:, -1:] + 0.1 * torch.arange(1, horizon + 1)
        return Latent(values, times)


class Spy:
    """A planner that counts, and keeps what it was asked."""

    def __init__(self, inner: SamplingPlanner = SMALL) -> None:
        self.inner, self.guesses = inner, []

    def plan(self, *positional, **named):
        self.guesses.append(named["first_guess"])
        return self.inner.plan(*positional, **named)


def clip(states: torch.Tensor, time: float = 0.0) -> Clip:
    return Clip("point", torch.full((len(states), 1), time), proprio=states[:, None])


def agent(goals: torch.Tensor, sign: float = 1.0, **changes) -> Agent:
    model = changes.pop("model", None) or Point()
    cost = Sum(((sign, GoalDistance(perceive(model, clip(goals), changes.get("together", 1)))),))
    settings = {"planner": SMALL, "horizon": 8, "replan_every": 2, **changes}
    return Agent(model, "point", cost, **settings)


def live(actor: Agent, states: torch.Tensor, steps: int, episodes=None):
    """Act in the true point world; every action and the last state of the world."""
    state, done = None, []
    for step in range(steps):
        action, state = actor.act(state, clip(states, 0.1 * step), episodes if state is None else None)
        done.append(action)
        states = states + action
    return torch.stack(done, 1), states, state


def scattered(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(rows, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_the_goal_is_reached_and_fled_with_the_cost_negated():
    starts, goals = scattered(6), scattered(6, seed=1)
    _, ends, _ = live(agent(goals), starts, 16)
    assert ((ends - goals).norm(dim=1) < 0.05).all()
    _, ends, _ = live(agent(goals, sign=-1.0), starts, 16)
    assert ((ends - goals).norm(dim=1) > (starts - goals).norm(dim=1) + 0.5).all()


def test_an_action_depends_on_its_own_episode_alone_to_the_last_bit():
    starts, goals, model = scattered(5), scattered(5, seed=1), Point(rounding=1e-3)
    together, _, _ = live(agent(goals, model=model), starts, 6)
    for rows in ([3], [4, 0], [1, 2, 3]):
        alone, _, _ = live(agent(goals[rows], model=model), starts[rows], 6, rows)
        assert torch.equal(alone, together[rows])
    fewer, _, _ = live(agent(goals[[3, 1]], model=model, together=2), starts[[3, 1]], 6, [3, 1])
    more, _, _ = live(agent(goals, model=model, together=2), starts, 6)
    assert torch.equal(fewer, more[[3, 1]])
    others, _, _ = live(agent(goals[[3]], model=model, seed=1), starts[[3]], 6, [3])
    assert not torch.equal(others, together[[3]])
    renamed, _, _ = live(agent(goals[[3]], model=model), starts[[3]], 6, [9])
    assert not torch.equal(renamed, together[[3]])


def test_acting_is_pure_so_a_state_can_be_gone_back_to():
    starts, actor = scattered(2), agent(scattered(2, seed=1), replan_every=1)
    action, state = actor.act(None, clip(starts))
    seen = clip(starts + action, 0.1)
    first, after = actor.act(state, seen)
    actor.act(after, clip(starts, 0.2))
    second, again = actor.act(state, seen)
    assert torch.equal(first, second)
    assert torch.equal(after.plan.actions, again.plan.actions)
    assert (state.step, after.step) == (1, 2)


def test_replanning_keeps_its_rhythm_and_starts_from_what_is_left():
    starts, cold, warm = scattered(2), Spy(), Spy()
    actor = agent(scattered(2, seed=1), planner=cold, warm_planner=warm, replan_every=3)
    _, state = actor.act(None, clip(starts))
    first = state.plan
    for step in range(1, 7):
        starts = starts + state.last_action
        _, state = actor.act(state, clip(starts, 0.1 * step))
        assert state.since_plan == step % 3 + 1
    assert cold.guesses == [None]
    assert len(warm.guesses) == 2
    assert torch.equal(warm.guesses[0][:, :-3], first.actions[:, 3:])
    assert (warm.guesses[0][:, -3:] == 0).all()
    assert len(state.belief.latents.times[0]) == 7
    assert state.belief.actions is not None
    assert torch.equal(state.belief.actions[:, :3], first.actions[:, :3])


def test_the_path_it_expects_is_what_then_happens_in_a_world_it_knows():
    starts, actor = scattered(3), agent(scattered(3, seed=1), replan_every=4)
    action, state = actor.act(None, clip(starts))
    for step in range(1, 4):
        starts = starts + action
        torch.testing.assert_close(state.expected.values[:, 0, 0], starts)
        torch.testing.assert_close(state.expected.times[:, 0], torch.full((3,), 0.1 * step))
        action, state = actor.act(state, clip(starts, 0.1 * step))
    assert state.expected.steps == 8 - 3


def test_an_episode_may_begin_with_a_history():
    states = torch.stack([scattered(2), scattered(2, seed=3)], 1)
    seen = Clip("point", torch.tensor([[0.0, 0.1]] * 2), proprio=states, actions=states.diff(dim=1))
    _, state = agent(scattered(2, seed=1)).act(None, seen)
    assert torch.equal(state.belief.latents.values[:, :, 0], states)
    assert torch.equal(state.belief.actions, states.diff(dim=1))


def test_what_does_not_fit_is_refused_in_one_sentence():
    goals = scattered(2)
    with pytest.raises(ValueError, match="does not know the embodiment 'arm'; it knows: point, film"):
        Agent(Point(), "arm", agent(goals).cost, SMALL)
    with pytest.raises(ValueError, match="'film' has no actions"):
        Agent(Point(), "film", agent(goals).cost, SMALL)
    with pytest.raises(ValueError, match="training mode"):
        agent(goals, model=Point().train())
    with pytest.raises(ValueError, match="needs a horizon at least as long, not 8"):
        agent(goals, replan_every=9)
    actor = agent(goals)
    _, state = actor.act(None, clip(goals))
    with pytest.raises(ValueError, match="3 episode numbers came for 2 rows"):
        actor.act(None, clip(goals), [1, 2, 3])
    with pytest.raises(ValueError, match="goes on with one new step of each of its 2 rows, but 3 rows"):
        actor.act(state, clip(scattered(3)))
    with pytest.raises(ValueError, match="new episode numbers"):
        actor.act(state, clip(goals), [0, 1])
    with pytest.raises(ValueError, match="is a 'point', but what it was shown is of 'film'"):
        actor.act(None, replace(clip(goals), embodiment="film"))
