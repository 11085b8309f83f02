"""What every search shares: it imagines candidates call by call, and the best ever imagined is the plan."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ami.planning.guardrails import excesses, ranked, refusals
from ami.types import Belief, Clip, Cost, Guardrail, Latent, Plan, WorldModel


@dataclass(frozen=True)
class Found:
    """The best candidate of each plan, with the future it was imagined to have."""

    actions: Float[Tensor, "plans horizon action"]
    imagined: Latent
    cost: Float[Tensor, "plans"]
    excess: Float[Tensor, "plans guardrails"]  # how far it goes beyond each
    rank: Float[Tensor, "plans"]  # what candidates are compared by: the cost, unless a guardrail is broken
    among: int  # how many candidates each is the best of

    def or_better(self, other: Found) -> Found:
        """The better of two for each plan; the first where they are equal."""
        better = other.rank < self.rank

        def choose(new: Tensor, old: Tensor) -> Tensor:
            return torch.where(better.view(-1, *[1] * (new.ndim - 1)), new, old)

        return Found(
            choose(other.actions, self.actions),
            Latent(
                choose(other.imagined.values, self.imagined.values), choose(other.imagined.times, self.imagined.times)
            ),
            choose(other.cost, self.cost),
            choose(other.excess, self.excess),
            choose(other.rank, self.rank),
            self.among + other.among,
        )


@dataclass(frozen=True)
class Task:
    """One group of plans to search for: always equally many rows, so that the arithmetic is always the same."""

    model: WorldModel
    cost: Cost
    belief: Belief
    low: Float[Tensor, "action"]
    high: Float[Tensor, "action"]
    guardrails: Sequence[Guardrail]
    enough: Float[Tensor, "plans"] | None

    def rows(self, index: slice | Tensor) -> Task:
        """Some of the plans, in the order of ``index``."""
        return replace(
            self,
            cost=self.cost.rows(index),
            belief=self.belief.rows(index),
            guardrails=[each.rows(index) for each in self.guardrails],
            enough=None if self.enough is None else self.enough[index],
        )

    def imagine(
        self, candidates: Float[Tensor, "plans samples horizon action"]
    ) -> tuple[Float[Tensor, "plans samples"], Found]:
        """The rank of every candidate, and the best of them; a cost that is not finite is the worst."""
        plans, samples, horizon, _ = candidates.shape
        actions = candidates.flatten(0, 1)
        imagined = self.model.predict(self.belief.repeat(samples), actions, horizon)
        costs = self.cost(imagined, actions)
        if costs.shape != (plans * samples,):
            raise ValueError(
                f"the cost answered {tuple(costs.shape)} for {plans * samples} candidates; one each, please"
            )
        worst = torch.finfo(costs.dtype).max
        costs = costs.nan_to_num(nan=worst, posinf=math.inf, neginf=worst)  # infinite: no way to the goal from there
        excess = excesses(self.guardrails, imagined, actions)
        ranks = ranked(costs, excess).view(plans, samples)
        with torch.no_grad():  # who follows a gradient follows that of the ranks
            least, which = ranks.min(1)
            best = which if plans == 1 else which + samples * torch.arange(plans, device=which.device)
            future = Latent(imagined.values.index_select(0, best), imagined.times.index_select(0, best))
            done, cost, beyond = (each.index_select(0, best) for each in (actions, costs, excess))
            return ranks, Found(done, future, cost, beyond, least, samples)

    def refused(self, found: Found) -> tuple[str, ...]:
        """Why the best candidate of each plan is not good enough; empty where it is."""
        reached = None
        if self.enough is not None:
            end = Latent(found.imagined.values[:, -1:], found.imagined.times[:, -1:])
            reached = self.cost(end, found.actions[:, -1:]) <= self.enough
        return refusals(self.guardrails, found.excess, found.cost < math.inf, reached)


class Search(ABC):
    """A planner that calls the model again and again, and answers with the best candidate ever imagined.

    With guardrails a search first moves to what is allowed, and then to what is cheap.

    A row's plan depends on that row and its generator alone, to the last bit: groups of ``together`` rows are always
    imagined in calls of the same shape, because a matrix product may round differently at another batch size. (With
    ``together`` above 1 the model must also not mind a row's place in the batch.)
    """

    @property
    @abstractmethod
    def together(self) -> int:
        """Plans imagined in one call of the model."""

    @property
    def descends(self) -> bool:
        """Whether it follows gradients; who does not imagines in inference mode, which is an eighth faster."""
        return False

    @abstractmethod
    def leaders(
        self, task: Task, guess: Float[Tensor, "plans horizon action"], generators: Sequence[torch.Generator]
    ) -> Iterator[Found]:
        """The best candidate of one call of the model, then of the next; each call is made when it is asked for.

        There is at least one, and ``guess``, which lies inside the bounds, is a candidate of it. Gradients are off.
        """

    @torch.no_grad()
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
        """Plan ``horizon`` steps for every row of ``belief``, each with its own generator.

        Raises ``ValueError`` for bounds, generators, a first guess or ``enough`` that do not fit, and where no
        candidate of a row has a finite cost.
        """
        values = belief.latents.values
        if len(low) != len(high):
            raise ValueError(f"{len(low)} lower and {len(high)} upper bounds came; give one of each per action")
        _check(low, high, horizon, len(belief), generators, first_guess)
        bounds = torch.tensor([tuple(low), tuple(high)], dtype=torch.float32, device=values.device)
        if first_guess is None:
            first_guess = bounds.mean(0).expand(len(belief), horizon, -1)
        first_guess = first_guess.to(bounds).clamp(*bounds)
        if enough is not None and enough.shape != (len(belief),):
            raise ValueError(f"enough is {tuple(enough.shape)} for {len(belief)} rows; give each row one number")
        found, history, why = [], [], []
        whole = Task(model, cost, belief, *bounds, guardrails=guardrails, enough=enough)
        rows = torch.arange(len(belief))
        for index in groups(len(belief), self.together, values.device):
            task = part(whole, index, len(belief))
            drawing = generators if task is whole else [generators[row] for row in rows[index].tolist()]
            with torch.inference_mode(not self.descends):
                leaders = self.leaders(task, first_guess[index], drawing)
                best = list(accumulate(leaders, Found.or_better))
                history.append(torch.stack([each.cost for each in best]))
                why += task.refused(best[-1])
            found.append(best[-1])
        return _answer(found, history, why, len(belief))


def groups(batch: int, size: int, device: torch.device) -> Iterator[slice | Int[Tensor, "size"]]:
    """Rows, always ``size`` at a time: the last row is repeated to fill the last group.

    A matrix product rounds differently at another batch size, so whatever must not depend on the number of its
    neighbours is computed group by group, and the filling dropped.
    """
    for start in range(0, batch, size):
        whole = slice(start, start + size)  # of which nothing need be copied
        yield whole if whole.stop <= batch else torch.arange(start, whole.stop, device=device).clamp_max(batch - 1)


_Rows = TypeVar("_Rows", Belief, Clip, Cost, Task)


def part(whole: _Rows, index: slice | Tensor, batch: int) -> _Rows:
    """The rows of one group; where it is all of the batch, as they are."""
    if isinstance(index, slice) and (index.start, index.stop) == (0, batch):
        return whole
    return whole.rows(index)


def draw(
    generators: Sequence[torch.Generator], samples: int, like: Float[Tensor, "plans horizon action"], colour: float
) -> Float[Tensor, "plans samples horizon action"]:
    """Noise of a 1/f^colour spectrum, each plan's from its own generator; a repeated row gets a copy."""
    drawn: dict[int, Tensor] = {}
    for generator in generators:
        if id(generator) not in drawn:
            noise = torch.randn(samples, *like.shape[1:], generator=generator, device=generator.device)
            drawn[id(generator)] = noise.to(like)
    white = torch.stack([drawn[id(generator)] for generator in generators])
    return coloured(like.shape[1], colour).to(white) @ white if colour and like.shape[1] > 1 else white


@lru_cache(maxsize=32)
def coloured(horizon: int, exponent: float) -> Float[Tensor, "horizon horizon"]:
    """The matrix that turns white noise over time into noise of unit variance with a 1/f^exponent spectrum.

    Cholesky factor of the autocovariance, taken from a period twice the horizon: on a period of just the horizon, as
    an FFT gives it, the last action would be tied to the first. Source of the idea: Pinneri et al. 2020, section 3.1.
    """
    if exponent == 0 or horizon == 1:
        return torch.eye(horizon)
    frequency = torch.fft.rfftfreq(2 * horizon, dtype=torch.float64)
    frequency[0] = frequency[1]
    covariance = torch.fft.irfft(frequency**-exponent, n=2 * horizon)[:horizon]
    lag = torch.arange(horizon)
    return torch.linalg.cholesky((covariance / covariance[0])[(lag[:, None] - lag).abs()]).float()


def _answer(
    found: Sequence[Found], history: Sequence[Float[Tensor, "iterations plans"]], why: Sequence[str], batch: int
) -> Plan:
    """One plan from the groups', without the rows that only filled the last group.

    A group whose search ended early keeps its last cost in the history until the longest has ended. What is put
    together here is ordinary again: who is handed a plan may ask for gradients.
    """

    def joined(parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([*parts])[:batch]

    values, times = joined([each.imagined.values for each in found]), joined([each.imagined.times for each in found])
    cost, ranks = joined([each.cost for each in found]), torch.cat([each.rank for each in found]).tolist()
    worst = torch.finfo(cost.dtype).max
    for row in range(batch):
        # A future that is no numbers may cost infinitely much too, but says nothing about a way.
        if ranks[row] == worst and (cost[row].isfinite() or not values[row].isfinite().all()):
            raise ValueError(
                f"no imagined future of row {row} has a finite cost and excess; check the model and the belief"
            )
    longest = max(len(costs) for costs in history)
    whole = [torch.cat([costs, costs[-1:].expand(longest - len(costs), -1)]) for costs in history]
    return Plan(
        actions=joined([each.actions for each in found]),
        imagined=Latent(values, times),
        cost=cost,
        history=torch.cat(whole, 1)[:, :batch],
        model_calls=max(group.among for group in found),
        why=tuple(why[:batch]),
    )


def _check(
    low: Sequence[float],
    high: Sequence[float],
    horizon: int,
    batch: int,
    generators: Sequence[torch.Generator],
    first_guess: Tensor | None,
) -> None:
    if not len(low) or not all(-math.inf < least <= most < math.inf for least, most in zip(low, high, strict=True)):
        raise ValueError(f"actions need finite bounds, low below high, but they are {[*low]} and {[*high]}")
    if horizon < 1 or batch < 1:
        raise ValueError(f"cannot plan {horizon} steps for {batch} rows; both must be at least 1")
    if len(generators) != batch:
        raise ValueError(f"{len(generators)} generators came for {batch} rows; give each row its own")
    if len({id(generator) for generator in generators}) != batch:
        raise ValueError("two rows share a generator, so their plans would depend on each other; give each row its own")
    expected = (batch, horizon, len(low))
    if first_guess is not None and tuple(first_guess.shape) != expected:
        raise ValueError(
            f"the first guess is {tuple(first_guess.shape)} but a plan here is (batch, horizon, action) = {expected}; "
            "cut or extend it"
        )
    if first_guess is not None and not first_guess.isfinite().all():
        raise ValueError("the first guess has numbers that are not finite; leave it out to begin from the middle")
