"""The agent perceives, believes, imagines and chooses; its fields are the configurator: goal, horizon, budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ami.planning.costs import DOUBTED
from ami.planning.filled import Filled
from ami.planning.search import groups, part
from ami.types import Belief, Clip, Cost, Embodiment, Guardrail, Latent, Plan, Planner, WorldModel, beside


@dataclass(frozen=True)
class AgentState:
    """All that an agent remembers between two actions; a value that can be kept, compared and gone back to.

    ``plan.imagined`` is the whole path it expected when it planned; ``expected`` is what is left of that.
    """

    belief: Belief
    plan: Plan
    since_plan: int  # actions of the plan already done
    last_action: Float[Tensor, "batch action"]
    episodes: tuple[int, ...]  # who each row is: with the agent's seed and ``step``, the key of its randomness
    step: int  # actions done since the episode began
    places: Float[Tensor, "batch places tokens dim"] | None = None  # where plans were made, the last few
    heights: Float[Tensor, "batch places"] | None = None  # what the cost of each has been raised by

    @property
    def expected(self) -> Latent:
        """The imagined path from the step to be seen next to the horizon."""
        ahead = slice(max(self.since_plan - 1, 0), None)
        return Latent(self.plan.imagined.values[:, ahead], self.plan.imagined.times[:, ahead])


@dataclass(frozen=True)
class Agent:
    """Acts toward a goal by planning, for many episodes at once.

    ``cost`` has one row per episode. A plan is followed for ``replan_every`` steps; the next one starts from what is
    left of it (a warm start), so ``warm_planner`` may have a smaller budget. An action depends on the row alone: the
    seed, the episode's number, what it has seen, its goal (encode goals with ``perceive``). Evaluating in another batch
    size changes nothing, to the last bit.
    """

    model: WorldModel
    embodiment: str
    cost: Cost
    planner: Planner
    warm_planner: Planner | None = None  # the planner, where none is given
    horizon: int = 20
    replan_every: int = 2
    seed: int = 0
    together: int = 1  # rows perceived in one call of the model
    places: int = 0  # that it remembers of an episode, to fill pits of its cost (:class:`ami.planning.filled.Filled`)
    pace: float = 1.0  # what each step should bring the cost of one step down by; where it does not, a pit is filled
    # What no step of a plan may break, a row for every episode; it may depend on what is believed when it is made.
    guardrails: Sequence[Guardrail] | Callable[[Belief], Sequence[Guardrail]] = ()
    enough: float = 0.0  # the cost of one step at which it has arrived: there nothing is filled
    doubt: Cost | None = None  # that any way leads to the goal, 0 to 1; asked when it foresees, not when it acts

    def __post_init__(self) -> None:
        if self.embodiment not in self.model.embodiments:
            known = ", ".join(self.model.embodiments) or "none"
            raise ValueError(f"the model does not know the embodiment {self.embodiment!r}; it knows: {known}")
        if not self.body.action_dim:
            raise ValueError(f"{self.embodiment!r} has no actions, so there is nothing to plan; it can only be watched")
        if self.model.training:
            raise ValueError(
                "the model is in training mode, where rows may talk to each other; call model.eval() first"
            )
        if self.together < 1:
            raise ValueError(f"{self.together} rows cannot be perceived together; it must be at least 1")
        if not 1 <= self.replan_every <= self.horizon:
            raise ValueError(
                f"replanning every {self.replan_every} steps needs a horizon at least as long, not {self.horizon}"
            )

    @property
    def body(self) -> Embodiment:
        """The action space that the agent acts with."""
        return self.model.embodiments[self.embodiment]

    def act(
        self, state: AgentState | None, seen: Clip, episodes: Sequence[int] | None = None
    ) -> tuple[Float[Tensor, "batch action"], AgentState]:
        """The action to do now in each episode, and what to remember.

        ``seen`` is the one step that followed the last action; where an episode begins (``state`` is ``None``) it may
        be several, with the actions between them, and ``episodes`` numbers its rows (0, 1, … where it is ``None``).
        """
        if seen.embodiment != self.embodiment:
            raise ValueError(f"this agent is a {self.embodiment!r}, but what it was shown is of {seen.embodiment!r}")
        if state is None:
            numbers = tuple(range(len(seen))) if episodes is None else tuple(episodes)
            if len(numbers) != len(seen):
                raise ValueError(f"{len(numbers)} episode numbers came for {len(seen)} rows; give each row one")
            belief = self._perceive(None, seen, seen.actions)
            plan = self._plan(self.planner, self.cost, belief, numbers, 0, None)
            begun = AgentState(belief, plan, 0, plan.actions[:, 0], numbers, 0)
            return self._do(self._filled(begun))
        if episodes is not None or seen.steps != 1 or len(seen) != len(state.episodes):
            raise ValueError(
                f"an episode goes on with one new step of each of its {len(state.episodes)} rows, but "
                f"{len(seen)} rows of {seen.steps} steps{' and new episode numbers' if episodes else ''} came; "
                "begin another with state None"
            )
        state = replace(state, belief=self._perceive(state.belief, seen, state.last_action[:, None]))
        if state.since_plan >= self.replan_every:
            guess = self._rest(state)
            planner, cost = self.warm_planner or self.planner, self._cost(state)
            plan = self._plan(planner, cost, state.belief, state.episodes, state.step, guess)
            state = self._filled(replace(state, plan=plan, since_plan=0))
        return self._do(state)

    def foresee(self, seen: Clip, steps: int, episodes: Sequence[int] | None = None) -> Plan:
        """Act in imagination alone: a plan as long as ``steps``, of many short ones, and whether it ever arrives.

        What is imagined is taken for seen. Where no step of the path costs ``enough`` or less, or it is doubted from
        the first that any way leads to the goal, ``why`` is ``unreachable``. ``cost`` is that of the nearest step.
        """
        action, state = self.act(None, seen, episodes)
        done, passed, costs, calls = [], [], [], 0
        here, doubts = state.belief.latents, torch.zeros(len(seen))
        if self.doubt is not None:
            doubts = self._one_step(self.doubt, here.between(here.steps - 1, here.steps), action)[:, 0]
        for _ in range(steps):
            place = slice(state.since_plan - 1, state.since_plan)
            ahead = Latent(state.plan.imagined.values[:, place], state.plan.imagined.times[:, place])
            calls += state.plan.model_calls if state.since_plan == 1 else 0
            done.append(action)
            passed.append(ahead)
            costs.append(self._one_step(self.cost, ahead, action)[:, 0])
            action, state = self.act(state, Clip(self.embodiment, ahead.times, latents=ahead.values))
        nearest = torch.stack(costs).cummin(0).values
        refused = ((nearest[-1] > self.enough) | (doubts.to(nearest) > DOUBTED)).tolist()
        return Plan(
            actions=torch.stack(done, 1),
            imagined=Latent(
                torch.cat([each.values for each in passed], 1), torch.cat([each.times for each in passed], 1)
            ),
            cost=nearest[-1],
            history=nearest,
            model_calls=calls,
            why=tuple("unreachable" if no else "" for no in refused),
        )

    @torch.no_grad()
    def _one_step(
        self, cost: Cost, steps: Latent, action: Float[Tensor, "batch action"]
    ) -> Float[Tensor, "batch steps"]:
        """What each of these steps costs by itself: candidates of one step, group by group as in planning."""
        found = []
        for index in groups(len(action), self.together, action.device):
            with torch.inference_mode():
                each = Latent(steps.values[index].flatten(0, 1)[:, None], steps.times[index].flatten()[:, None])
                done = beside(action[index], steps.steps)[:, None]
                found.append(part(cost, index, len(action))(each, done).view(-1, steps.steps))
        return torch.cat(found)[: len(action)]

    def _do(self, state: AgentState) -> tuple[Float[Tensor, "batch action"], AgentState]:
        """The next action of the plan; the middle of the bounds where no plan was found."""
        action = state.plan.actions[:, state.since_plan]
        if any(state.plan.why):
            action = torch.where(state.plan.found[:, None], action, self._middle(action))
        return action, replace(state, since_plan=state.since_plan + 1, last_action=action, step=state.step + 1)

    @torch.no_grad()
    def _perceive(self, belief: Belief | None, seen: Clip, actions: Tensor | None) -> Belief:
        beliefs = []
        for index in groups(len(seen), self.together, seen.times.device):
            latents = self.model.encode(part(seen, index, len(seen)))
            held = None if belief is None else part(belief, index, len(seen))
            done = None if actions is None else actions[index]
            beliefs.append(self.model.believe(held, latents, done, self.embodiment))
        return beliefs[0] if self.together == len(seen) else _joined(beliefs).rows(slice(len(seen)))

    def _cost(self, state: AgentState) -> Cost:
        if state.places is None or state.heights is None:
            return self.cost
        return Filled(self.cost, state.places, state.heights)

    @torch.no_grad()
    def _filled(self, state: AgentState) -> AgentState:
        """Remember the place of a new plan, raised to what the plan's first step is worth, if that is more."""
        if not self.places:
            return state
        held = state.belief.latents
        here, first = held.between(held.steps - 1, held.steps), state.plan.imagined.between(0, 1)
        if self.horizon == 1:  # the plan is its first step, and what that costs is known
            now, then = self._one_step(self._cost(state), here, state.plan.actions[:, 0]), state.plan.cost[:, None]
        else:
            both = Latent(torch.cat([here.values, first.values], 1), torch.cat([here.times, first.times], 1))
            now, then = self._one_step(self._cost(state), both, state.plan.actions[:, 0]).split(1, 1)
        places, heights = here.values, torch.where(now > self.enough, (then + self.pace - now).clamp_min(0), 0)
        if state.places is not None and state.heights is not None:
            places = torch.cat([state.places, places], 1)[:, -self.places :]
            heights = torch.cat([state.heights, heights], 1)[:, -self.places :]
        return replace(state, places=places, heights=heights)

    def _plan(
        self,
        planner: Planner,
        cost: Cost,
        belief: Belief,
        episodes: Sequence[int],
        step: int,
        first_guess: Tensor | None,
    ) -> Plan:
        return planner.plan(
            self.model,
            cost,
            belief,
            horizon=self.horizon,
            low=self.body.low,
            high=self.body.high,
            generators=[_generator(self.seed, episode, step) for episode in episodes],
            first_guess=first_guess,
            guardrails=self.guardrails(belief) if callable(self.guardrails) else self.guardrails,
        )

    def _rest(self, state: AgentState) -> Float[Tensor, "batch horizon action"]:
        """What is left of the plan, and then the middle of the bounds: the warm start."""
        left = state.plan.actions[:, state.since_plan :]
        return torch.cat([left, self._middle(left).expand(len(left), state.since_plan, -1)], 1)

    def _middle(self, like: Tensor) -> Float[Tensor, "action"]:
        """The action in the middle of the bounds."""
        bounds = zip(self.body.low, self.body.high, strict=True)
        return torch.tensor([(low + high) / 2 for low, high in bounds]).to(like)


@torch.no_grad()
def perceive(model: WorldModel, seen: Clip, together: int = 1) -> Latent:
    """Encode a clip ``together`` rows at a time, as for goals: no row then depends on how many others there are."""
    parts = [model.encode(part(seen, index, len(seen))) for index in groups(len(seen), together, seen.times.device)]
    joined = _joined_latents(parts)
    return Latent(joined.values[: len(seen)], joined.times[: len(seen)])


def _generator(seed: int, episode: int, step: int) -> torch.Generator:
    """A generator of its own for each plan of each episode, so that nothing hangs on what was drawn before."""
    key = np.random.SeedSequence((seed, episode, step)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(key) >> 1)


def _joined(beliefs: Sequence[Belief]) -> Belief:
    """The rows of several beliefs of one model, one after another."""

    def join(parts: Sequence[Tensor | None]) -> Tensor | None:
        present = [part for part in parts if part is not None]
        return torch.cat(present) if present else None

    recalled = [belief.recalled for belief in beliefs if belief.recalled is not None]
    shared = min(0 if belief.earlier is None else belief.earlier.shape[1] for belief in beliefs)
    return Belief(
        beliefs[0].embodiment,
        _joined_latents([belief.latents for belief in beliefs]),
        join([belief.actions for belief in beliefs]),
        join([belief.recurrent for belief in beliefs]),
        _joined_latents(recalled) if recalled else None,
        join([belief.earlier[:, -shared:] for belief in beliefs if shared and belief.earlier is not None]),
    )


def _joined_latents(parts: Sequence[Latent]) -> Latent:
    return Latent(torch.cat([part.values for part in parts]), torch.cat([part.times for part in parts]))
