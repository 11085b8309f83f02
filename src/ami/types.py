"""The nouns and verbs that flow through everything. Read this file first.

Shapes are written with axis words. ``batch`` is always first, and only the caller knows what its rows stand for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn


@dataclass(frozen=True)
class Embodiment:
    """An action space and its sensors: what a clip's numbers mean.

    ``step_seconds`` is the time between two steps. ``low`` and ``high`` bound each action dimension; both empty for
    passive video. The means and deviations are measured on the training data when a model is built, and are kept in
    its checkpoint, so that it can act alone. ``proprio`` is what a body feels of itself: joint angles, a gripper.
    """

    name: str
    step_seconds: float
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    action_mean: tuple[float, ...] = ()
    action_std: tuple[float, ...] = ()
    proprio_mean: tuple[float, ...] = ()
    proprio_std: tuple[float, ...] = ()

    @property
    def action_dim(self) -> int:
        """Numbers in one action; 0 for passive video."""
        return len(self.low)


@dataclass(frozen=True)
class Clip:
    """A batch of equally long stretches of recorded experience, cut in steps. What was not recorded is ``None``.

    All rows share one embodiment. ``frames`` is the number of video frames in a step (a *tubelet*). Cameras look
    along +z with x right and y down; ``pose`` maps camera to world, in metres.
    """

    embodiment: str
    times: Float[Tensor, "batch time"]  # seconds since the episode began
    video: UInt8[Tensor, "batch time frames 3 height width"] | None = None
    depth: Float[Tensor, "batch time frames 1 height width"] | None = None  # metres, 0 = unknown
    points: Float[Tensor, "batch time points 3"] | None = None  # metres, camera axes, (0, 0, 0) = none
    pose: Float[Tensor, "batch time 4 4"] | None = None
    intrinsics: Float[Tensor, "batch 4"] | None = None  # fx fy cx cy, pixels from the corner
    proprio: Float[Tensor, "batch time proprio"] | None = None
    actions: Float[Tensor, "batch time-1 action"] | None = None  # actions[:, t] was done between steps t and t+1
    truth: Float[Tensor, "batch time truth"] | None = None  # simulator state: for measuring, never for a model
    latents: Float[Tensor, "batch time tokens dim"] | None = None  # perceived before by this model, frozen since

    def __len__(self) -> int:
        return self.times.shape[0]

    @property
    def steps(self) -> int:
        """Steps in each row."""
        return self.times.shape[1]

    def to(self, device: torch.device | str) -> Clip:
        """The same clip on another device."""
        return replace(self, **{k: v.to(device) for k, v in _tensors(self).items()})

    def rows(self, index: slice | Tensor) -> Clip:
        """Some of the rows, in the order of ``index``."""
        return replace(self, **{k: v[index] for k, v in _tensors(self).items()})

    def between(self, start: int, stop: int) -> Clip:
        """Steps ``start`` to ``stop`` (not included) of every row, with the actions between them."""
        if not 0 <= start < stop <= self.steps:
            raise ValueError(f"steps {start} to {stop} are not inside a clip of {self.steps} steps")
        cut = {k: v[:, start : stop - (k == "actions")] for k, v in _tensors(self).items() if k != "intrinsics"}
        return replace(self, **cut)


@dataclass(frozen=True)
class LeftOut:
    """A recording, or the end of one, that did not come in: it goes with the data into the checkpoint's papers."""

    name: str
    why: str
    seconds: float | None = None  # of experience that were lost with it; None: nobody can say
    clips: int | None = None  # that would have been cut from it side by side; known once it is known how long clips are


@dataclass(frozen=True)
class Latent:
    """What a model perceived, or imagines, at each step. A global state has ``tokens = 1``."""

    values: Float[Tensor, "batch time tokens dim"]
    times: Float[Tensor, "batch time"]

    def __len__(self) -> int:
        return self.values.shape[0]

    @property
    def steps(self) -> int:
        """Steps in each row."""
        return self.values.shape[1]

    def between(self, start: int, stop: int) -> Latent:
        """Steps ``start`` to ``stop`` (not included) of every row."""
        return Latent(self.values[:, start:stop], self.times[:, start:stop])


@dataclass(frozen=True)
class Belief:
    """What an agent holds now: the recent latents and, where a model has them, a recurrent state and what it recalled.

    A value like any other: it can be saved, compared, copied for every candidate of a planner.
    """

    embodiment: str
    latents: Latent
    actions: Float[Tensor, "batch time-1 action"] | None = None  # done between the latents; None for passive video
    recurrent: Float[Tensor, "batch ..."] | None = None  # whatever else a model carries along
    recalled: Latent | None = None
    earlier: Float[Tensor, "batch before ..."] | None = None  # what it carried at the steps before, the latest last

    def __len__(self) -> int:
        return len(self.latents)

    def rows(self, index: slice | Tensor) -> Belief:
        """Some of the rows, in the order of ``index``."""
        return self._each_row(lambda tensor: tensor[index])

    def repeat(self, times: int) -> Belief:
        """Every row ``times`` times, copies side by side: the belief of a planner's candidates."""
        return self._each_row(lambda tensor: beside(tensor, times))

    def _each_row(self, change: Callable[[Tensor], Tensor]) -> Belief:
        def each(held: Latent | Tensor) -> Any:
            return change(held) if isinstance(held, Tensor) else Latent(change(held.values), change(held.times))

        return Belief(self.embodiment, **{k: each(v) for k, v in vars(self).items() if isinstance(v, Latent | Tensor)})


class WorldModel(nn.Module):
    """Four verbs that every model answers, a baseline and a simulator too; ``models/contract.py`` checks one."""

    embodiments: Mapping[str, Embodiment]
    latent_shape: tuple[int, int]  # tokens, dim
    causal: bool = True  # whether a latent depends on its step and those before it alone; False: on its whole clip
    frames: int = 1  # video frames in a step
    reaches: tuple[str, ...] = ()  # embodiments for which ``reach`` and ``propose`` answer
    judges: tuple[str, ...] = ()  # those of them for which ``reachable`` answers
    imitates: tuple[str, ...] = ()  # those of them for which ``propose`` says what to do, and no search is the better
    unsure: tuple[str, ...] = ()  # embodiments for which ``uncertainty`` answers
    lives: tuple[str, ...] = ()  # embodiments whose films it lives through step by step, told of actions or not
    places: tuple[str, ...] = ()  # embodiments for which ``where``, ``look`` and ``recognise`` answer
    untaught: int = 0  # numbers at the end of each token that no training changes
    picture: int | None = None  # px on a side of the pictures it was built for; None: any

    def part(self, embodiment: str) -> WorldModel:
        """Who answers for an embodiment: the model itself, unless it is made of parts."""
        return self

    def known(self, name: str) -> Embodiment:
        """An embodiment that it knows. ``ValueError`` names those that it does."""
        if name not in self.embodiments:
            known = ", ".join(sorted(self.embodiments))
            raise ValueError(f"this model was not trained with the embodiment '{name}'; it knows {known}")
        return self.embodiments[name]

    def encode(self, clip: Clip) -> Latent:
        """Perceive: each step of ``clip`` by itself or with steps before it; after it only if not ``causal``."""
        raise NotImplementedError

    def believe(
        self,
        belief: Belief | None,
        seen: Latent,
        actions: Float[Tensor, "batch time action"] | None,
        embodiment: str = "",
    ) -> Belief:
        """Update the belief with newly seen steps; ``None`` begins a new one.

        ``actions`` led to the steps seen: one fewer than them when a belief begins, as many when it goes on.
        """
        raise NotImplementedError

    def predict(self, belief: Belief, actions: Float[Tensor, "batch horizon action"] | None, horizon: int) -> Latent:
        """Imagine the next ``horizon`` steps, the future only. ``actions`` is ``None`` for passive video."""
        raise NotImplementedError

    def energy(
        self, belief: Belief, actions: Float[Tensor, "batch horizon action"] | None, future: Latent
    ) -> Float[Tensor, "batch horizon"]:
        """How badly each step of ``future`` fits the belief; small = expected. In units of the model's own."""
        raise NotImplementedError

    def reach(self, now: Latent, goal: Latent, embodiment: str) -> Float[Tensor, "batch time"]:
        """How many steps at full effort it takes from each step of ``now`` to the one step of ``goal``.

        Not symmetric: what falls down does not climb. A model may leave this and ``propose`` out (``reaches``).
        """
        raise ValueError(f"this model has not learned how far things are for '{embodiment}'; see its `reaches`")

    def reachable(self, now: Latent, goal: Latent, embodiment: str) -> Float[Tensor, "batch time"]:
        """How likely it is, 0 to 1, that any way leads from each step of ``now`` to the one step of ``goal``."""
        raise ValueError(f"this model has not learned whether any way leads for '{embodiment}'; see its `judges`")

    def landmarks(self, embodiment: str) -> Latent | None:
        """Moments of the place where an embodiment always is, a row each; ``None`` where none are kept."""
        return None

    def propose(self, belief: Belief, goal: Latent, horizon: int) -> Float[Tensor, "batch horizon action"]:
        """What to do to get to the one step of ``goal``, without a search: a first guess for one."""
        raise ValueError(f"this model has not learned what to do first as '{belief.embodiment}'; see its `reaches`")

    def uncertainty(
        self, imagined: Latent, actions: Float[Tensor, "batch horizon action"], embodiment: str
    ) -> Float[Tensor, "batch horizon"]:
        """The mean square by which it expects each imagined step to be off, in the tokens that actions move."""
        raise ValueError(f"this model has not learned how unsure it is for '{embodiment}'; see its `unsure`")

    def where(self, belief: Belief) -> Float[Tensor, "batch pose"]:
        """Where it believes to be, from where the belief began. A model may leave out this and the next four."""
        raise ValueError(f"this model has not learned where things are for '{belief.embodiment}'; see its `places`")

    def look(self, belief: Belief, poses: Float[Tensor, "batch view pose"]) -> Latent:
        """Imagine what would be seen from poses like that of ``where``; the views take the place of steps."""
        raise ValueError(f"this model has not learned where things are for '{belief.embodiment}'; see its `places`")

    def free(self, belief: Belief, points: Float[Tensor, "batch point axis"]) -> Float[Tensor, "batch point"]:
        """How open it believes points in the space of ``where`` to be, from 0 to 1; 0.5 where it never looked."""
        raise ValueError(f"this model has not learned where things are for '{belief.embodiment}'; see its `places`")

    def recognise(
        self, belief: Belief, poses: Float[Tensor, "batch view pose"], seen: Latent
    ) -> Float[Tensor, "batch seen"]:
        """How badly each view of ``seen`` fits its pose, in the model's own unit; several for a pose lie together."""
        raise ValueError(f"this model has not learned where things are for '{belief.embodiment}'; see its `places`")

    def remind(self, belief: Belief, poses: Float[Tensor, "batch view pose"], seen: Latent) -> Belief:
        """The belief of who also knows what was seen from poses like that of ``where``: what was recalled comes in."""
        raise ValueError(f"this model has not learned where things are for '{belief.embodiment}'; see its `places`")


class Objective(nn.Module):
    """What teaches a model, and is thrown away afterwards with all that it owns (projectors, heads, a teacher)."""

    least_deviation: float = 0.1  # of latents between clips; with less they have collapsed, for what this one wants

    def losses(self, model: WorldModel, clip: Clip, generator: torch.Generator) -> dict[str, Tensor]:
        """Named scalar losses, already weighted: training minimises their sum. All ranks' generators draw alike."""
        raise NotImplementedError

    def after_step(self, model: WorldModel) -> None:
        """Called once after every optimiser step; here a teacher follows its student."""

    def gauges(self, model: WorldModel) -> dict[str, float]:
        """How it goes, in numbers that are not to be minimised: for the log."""
        return {}


class Cost(Protocol):
    """What the agent would rather avoid. What belongs to each plan (its goal, say) is a row of the cost's own.

    When called, the rows of one plan's candidates lie side by side, plan after plan.
    """

    def __call__(self, imagined: Latent, actions: Float[Tensor, "rows horizon action"]) -> Float[Tensor, "rows"]: ...

    def rows(self, index: slice | Tensor) -> Cost:
        """The same cost for some of the plans, in the order of ``index``: a planner works group by group."""
        ...


class Measure(Protocol):
    """A number for each step of an imagined future, in a unit of its own. Its rows are those of a ``Cost``."""

    def __call__(self, imagined: Latent, actions: Float[Tensor, "rows step action"]) -> Float[Tensor, "rows step"]: ...

    def rows(self, index: slice | Tensor) -> Measure:
        """The same measure for some of the plans, in the order of ``index``."""
        ...


@dataclass(frozen=True)
class Guardrail:
    """What no step of a plan may break, however good the rest: a measure that stays from ``low`` to ``high``."""

    name: str
    measure: Measure
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if not self.low <= self.high or (math.isinf(self.low) and math.isinf(self.high)):
            raise ValueError(f"the guardrail {self.name!r} allows from {self.low} to {self.high}; give it a bound")

    def excess(self, imagined: Latent, actions: Float[Tensor, "rows horizon action"]) -> Float[Tensor, "rows"]:
        """How far each future goes beyond the bounds, summed over its steps; 0 where all of it is allowed."""
        if (measured := self.measure(imagined, actions)).shape != actions.shape[:2]:
            raise ValueError(f"the guardrail {self.name!r} measured {tuple(measured.shape)}, not one number a step")
        return ((measured - self.high).clamp_min(0) + (self.low - measured).clamp_min(0)).sum(1)

    def rows(self, index: slice | Tensor) -> Guardrail:
        """The same for some of the plans, in the order of ``index``."""
        return replace(self, measure=self.measure.rows(index))


@dataclass(frozen=True)
class Plan:
    """What a planner answers, for each row of the belief it was asked about.

    Where no plan was found, the rest of the row shows the best that the search came to, which is not to be acted on.
    ``why`` then says ``unreachable`` (no way leads there: all that was imagined costs infinitely much, or one is
    doubted), ``guardrail: NAME`` (all of it breaks that) or ``search`` (the best of it does not end at the goal).
    """

    actions: Float[Tensor, "batch horizon action"]
    imagined: Latent
    cost: Float[Tensor, "batch"]
    history: Float[Tensor, "iterations batch"]  # the best candidate's cost after each iteration
    model_calls: int  # candidate futures imagined per row
    why: tuple[str, ...] = ()  # of each row, why no plan was found; "" where one was, () where all were

    @property
    def found(self) -> Bool[Tensor, "batch"]:
        """Whether each row has a plan to follow."""
        return torch.tensor([not why for why in self.why or [""] * len(self.cost)], device=self.cost.device)


class Planner(Protocol):
    """Chooses actions by imagining. Holds settings, never state: a warm start is an argument."""

    def plan(
        self,
        model: WorldModel,
        cost: Cost,
        belief: Belief,
        *,
        horizon: int,
        low: Sequence[float],
        high: Sequence[float],
        generators: Sequence[torch.Generator],
        first_guess: Float[Tensor, "batch horizon action"] | None = None,
        guardrails: Sequence[Guardrail] = (),
        enough: Float[Tensor, "batch"] | None = None,
    ) -> Plan:
        """Plan for every row. ``generators`` has one per row, so a row's plan does not depend on its neighbours.

        With ``enough``, a plan counts as found only if ``cost`` of its last step alone is at most that.
        """
        ...


@dataclass(frozen=True)
class Interval:
    """A value with the range that holds it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Result:
    """One answer of a checkpoint. A number without its interval, n and seeds cannot be built."""

    benchmark: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    unit: str
    seeds: tuple[int, ...]
    interval: str  # how low and high were made, e.g. "Wilson 95 %"
    baselines: Mapping[str, Interval]
    seconds: float = 0.0
    model_calls: int = 0
    details: Mapping[str, Any] | None = None  # whatever the report draws: success by distance, episode log

    def __post_init__(self) -> None:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"{self.benchmark}: {self.value} is not inside its interval [{self.low}, {self.high}]")
        if self.n < 1:
            raise ValueError(f"{self.benchmark}: n is {self.n}; a result needs at least one observation")


def beside(tensor: Float[Tensor, "rows ..."], times: int) -> Float[Tensor, "copies ..."]:
    """Every row ``times`` times, copies side by side. To be read only: those of a single row share their memory."""
    return tensor.expand(times, *tensor.shape[1:]) if tensor.shape[0] == 1 else tensor.repeat_interleave(times, 0)


def _tensors(clip: Clip) -> dict[str, Tensor]:
    return {name: value for name, value in vars(clip).items() if isinstance(value, Tensor)}
