"""Planning by sampling: CEM, iCEM and MPPI are one loop that draws, imagines, and refits to the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ami.planning.guardrails import excesses, ranked, refusals
from ami.types import Belief, Cost, Guardrail, Latent, Plan, WorldModel


def equal(costs: Float[Tensor, "plans elites"], temperature: float) -> Float[Tensor, "plans elites"]:
    """Every elite counts the same.

    Source: Rubinstein 1999, and de Boer et al. 2005, "A tutorial on the cross-entropy method", section 4.
    """
    return torch.full_like(costs, 1 / costs.shape[1])


def softmin(costs: Float[Tensor, "plans elites"], temperature: float) -> Float[Tensor, "plans elites"]:
    """The cheaper, the more it counts, exponentially.

    Costs have no unit, so ``temperature`` is in units of the elites' own mean distance to the cheapest.
    Source: Williams et al. 2017, "Information theoretic MPC", equation 10.
    """
    above = costs - costs[:, :1]
    scale = above.mean(1, keepdim=True).clamp_min(torch.finfo(costs.dtype).tiny)
    return torch.softmax(-above / (temperature * scale), 1)


REFITS: dict[str, Callable[[Tensor, float], Tensor]] = {"equal": equal, "softmin": softmin}


@dataclass(frozen=True)
class SamplingSettings:
    """How a sampling planner searches. ``METHODS`` has the three known by name."""

    samples: int = 256  # candidates in the first iteration
    iterations: int = 6
    elites: int = 16  # the best of an iteration, to which the next is fitted
    refit: str = "equal"  # how much each elite counts: a name in REFITS
    temperature: float = 0.5  # of softmin; small = greedy
    init_std: float = 1.0  # at first, as a share of half the range of an action
    min_std: float = 0.02  # never less, same unit: a search that cannot move cannot mend a bad start
    momentum: float = 0.0  # share of the old distribution that a refit keeps
    colour: float = 0.0  # exponent of the noise's 1/f^colour spectrum: 0 white, 2 slow as a random walk
    fine: float = 0.0  # share of the candidates drawn at scales from 1 down to 0.03, to settle and still look around
    keep: int = 0  # elites that compete again in the next iteration, without being imagined again
    shrink: float = 1.0  # each iteration draws this many times fewer candidates than the one before
    together: int = 1  # plans imagined in one call of the model: 1 suits a CPU's cache, more suits a GPU

    def __post_init__(self) -> None:
        if self.refit not in REFITS:
            raise ValueError(f"no refit is called {self.refit!r}; choose one of {', '.join(REFITS)}")
        if not 2 <= self.elites <= self.samples:
            raise ValueError(f"{self.elites} elites of {self.samples} samples; there must be 2 or more, at most all")
        if min(self.iterations, self.together) < 1 or self.shrink < 1 or not 0 <= self.keep <= self.elites:
            raise ValueError("iterations, together and shrink are at least 1, and keep is at most elites")
        if not 0 <= self.fine <= 1:
            raise ValueError(f"fine is a share of the candidates, from 0 to 1, not {self.fine}")
        if not (0 <= self.momentum < 1 and self.temperature > 0 and self.init_std > 0 and self.min_std >= 0):
            raise ValueError("momentum lies in [0, 1), temperature and init_std above 0, min_std is not negative")

    @property
    def schedule(self) -> tuple[int, ...]:
        """Candidates imagined in each iteration; with fewer than two for each elite there would be no selection."""
        least = min(self.samples, 2 * self.elites)
        return tuple(max(least, round(self.samples / self.shrink**i)) for i in range(self.iterations))


METHODS: dict[str, SamplingSettings] = {
    "cem": SamplingSettings(),
    # Pinneri et al. 2020, "Sample-efficient cross-entropy method for real-time planning", section 3.
    "icem": SamplingSettings(colour=1.0, keep=8, momentum=0.1, shrink=1.25),
    # Williams et al. 2017, with the spread refitted too: at a fixed spread a few iterations do not converge.
    "mppi": SamplingSettings(refit="softmin", elites=32),
}


@dataclass(frozen=True)
class _Found:
    """The best candidate so far of each plan, with the future it was imagined to have."""

    actions: Float[Tensor, "plans horizon action"]
    imagined: Latent
    cost: Float[Tensor, "plans"]
    excess: Float[Tensor, "plans guardrails"]  # how far it goes beyond each
    rank: Float[Tensor, "plans"]  # what candidates are compared by: the cost, unless a guardrail is broken

    def or_better(self, other: _Found) -> _Found:
        better = other.rank < self.rank

        def choose(new: Tensor, old: Tensor) -> Tensor:
            return torch.where(better.view(-1, *[1] * (new.ndim - 1)), new, old)

        imagined = Latent(
            choose(other.imagined.values, self.imagined.values), choose(other.imagined.times, self.imagined.times)
        )
        return _Found(
            choose(other.actions, self.actions),
            imagined,
            choose(other.cost, self.cost),
            choose(other.excess, self.excess),
            choose(other.rank, self.rank),
        )


@dataclass(frozen=True)
class _Task:
    """One group of plans to search for: always equally many rows, so that the arithmetic is always the same."""

    model: WorldModel
    cost: Cost
    belief: Belief
    low: Float[Tensor, "action"]
    high: Float[Tensor, "action"]
    guardrails: Sequence[Guardrail]
    enough: Float[Tensor, "plans"] | None

    def imagine(
        self, candidates: Float[Tensor, "plans samples horizon action"]
    ) -> tuple[Float[Tensor, "plans samples"], _Found]:
        """The rank of every candidate, and the best of them. A cost that is not finite is the worst."""
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
        least, which = ranks.min(1)
        best = which + samples * torch.arange(plans, device=which.device)
        future = Latent(imagined.values[best], imagined.times[best])
        return ranks, _Found(actions[best], future, costs[best], excess[best], least)

    def refused(self, found: _Found) -> tuple[str, ...]:
        """Why the best candidate of each plan is not good enough; empty where it is."""
        reached = torch.ones_like(found.cost, dtype=torch.bool)
        if self.enough is not None:
            end = Latent(found.imagined.values[:, -1:], found.imagined.times[:, -1:])
            reached = self.cost(end, found.actions[:, -1:]) <= self.enough
        return refusals(self.guardrails, found.excess, found.cost < math.inf, reached)


@dataclass(frozen=True)
class SamplingPlanner:
    """Plans by drawing action sequences, imagining each, and drawing again near the best.

    The best candidate ever imagined is the plan: in a learned maze, with coloured noise, acting on it ended at the goal
    more often than acting on the final mean (with white noise neither was clearly better). The mean of the first
    distribution (``first_guess``, or the middle of the bounds) and of every later one, the last included, is a
    candidate itself. With guardrails the search first moves to what is allowed, and then to what is cheap.

    A row's plan depends on that row and its generator alone, to the last bit: groups of ``together`` rows are always
    imagined in calls of the same shape, because a matrix product may round differently at another batch size. (With
    ``together`` above 1 the model must also not mind a row's place in the batch.)
    """

    settings: SamplingSettings = METHODS["icem"]

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

        A row's goal is unreachable where every candidate's cost is infinite. Raises ``ValueError`` for bounds,
        generators, a first guess or ``enough`` that do not fit, and where a row's costs are otherwise no numbers.
        """
        values = belief.latents.values
        if len(low) != len(high):
            raise ValueError(f"{len(low)} lower and {len(high)} upper bounds came; give one of each per action")
        bounds = torch.tensor([tuple(low), tuple(high)], dtype=torch.float32, device=values.device)
        _check(bounds, horizon, len(belief), generators, first_guess)
        if first_guess is None:
            first_guess = bounds.mean(0).expand(len(belief), horizon, -1)
        first_guess = first_guess.to(bounds).clamp(*bounds)
        if enough is not None and enough.shape != (len(belief),):
            raise ValueError(f"enough is {tuple(enough.shape)} for {len(belief)} rows; give each row one number")
        found, history, why = [], [], []
        for index in groups(len(belief), self.settings.together, values.device):
            task = _Task(
                model,
                cost.rows(index),
                belief.rows(index),
                *bounds,
                guardrails=[each.rows(index) for each in guardrails],
                enough=None if enough is None else enough[index],
            )
            best, costs = self._search(task, first_guess[index], [generators[row] for row in index.tolist()])
            found.append(best)
            history.append(costs)
            why += task.refused(best)
        return self._answer(found, history, why, len(belief))

    def _search(
        self, task: _Task, mean: Float[Tensor, "plans horizon action"], generators: Sequence[torch.Generator]
    ) -> tuple[_Found, Float[Tensor, "iterations plans"]]:
        settings, reach = self.settings, (task.high - task.low) / 2
        std = (settings.init_std * reach).expand_as(mean)
        colour = _coloured(mean.shape[1], settings.colour).to(mean)
        kept, kept_ranks = mean[:, None][:, :0], mean.new_empty(len(mean), 0)
        best, history = None, []
        for samples in settings.schedule:
            noise = torch.einsum("th,psha->psta", colour, _draw(generators, samples - 1, mean))
            noise = noise * _scales(samples - 1, settings.fine).to(noise)
            # Refitting to draws before they are clamped explores more (8 % cheaper ways round a wall for white-noise
            # CEM, 1 % for iCEM) but settles less exactly (5 to 15 times the gap to a known optimum). So: clamped.
            drawn = (mean[:, None] + std[:, None] * noise).clamp(task.low, task.high)
            candidates = torch.cat([mean[:, None], drawn], 1)
            ranks, leader = task.imagine(candidates)
            best = leader if best is None else best.or_better(leader)
            history.append(best.cost)
            elite_ranks, elites = _elites(
                torch.cat([ranks, kept_ranks], 1), torch.cat([candidates, kept], 1), settings.elites
            )
            kept, kept_ranks = elites[:, : settings.keep], elite_ranks[:, : settings.keep]
            weights = REFITS[settings.refit](elite_ranks, settings.temperature)
            fitted, spread = _fit(elites, weights)
            mean = torch.lerp(fitted, mean, settings.momentum).clamp(task.low, task.high)
            std = torch.lerp(spread, std, settings.momentum).maximum(settings.min_std * reach)
        assert best is not None
        best = best.or_better(task.imagine(mean[:, None])[1])
        history[-1] = best.cost
        return best, torch.stack(history)

    def _answer(self, found: Sequence[_Found], history: Sequence[Tensor], why: Sequence[str], batch: int) -> Plan:
        """One plan from the groups', without the rows that only filled the last group."""
        imagined = Latent(
            torch.cat([group.imagined.values for group in found])[:batch],
            torch.cat([group.imagined.times for group in found])[:batch],
        )
        cost, rank = torch.cat([torch.stack([group.cost, group.rank]) for group in found], 1)[:, :batch]
        # A future that is no numbers may cost infinitely much too, but says nothing about a way.
        broken = cost.isfinite() | ~imagined.values.flatten(1).isfinite().all(1)
        broken = (broken & (rank == torch.finfo(rank.dtype).max)).nonzero().flatten().tolist()
        if broken:
            raise ValueError(f"no imagined future of row {broken[0]} has a finite cost; check the model and the belief")
        return Plan(
            actions=torch.cat([group.actions for group in found])[:batch],
            imagined=imagined,
            cost=cost,
            history=torch.cat(list(history), 1)[:, :batch],
            model_calls=sum(self.settings.schedule) + 1,
            why=tuple(why[:batch]),
        )


def groups(batch: int, size: int, device: torch.device) -> Iterator[Int[Tensor, "size"]]:
    """Row numbers, always ``size`` at a time: the last row is repeated to fill the last group.

    A matrix product rounds differently at another batch size, so whatever must not depend on the number of its
    neighbours is computed group by group, and the filling dropped.
    """
    for start in range(0, batch, size):
        yield torch.arange(start, start + size, device=device).clamp_max(batch - 1)


def _draw(
    generators: Sequence[torch.Generator], samples: int, like: Float[Tensor, "plans horizon action"]
) -> Float[Tensor, "plans samples horizon action"]:
    """Standard normal noise, each plan's from its own generator; a repeated row gets a copy, not a further draw."""
    drawn: dict[int, Tensor] = {}
    for generator in generators:
        if id(generator) not in drawn:
            noise = torch.randn(samples, *like.shape[1:], generator=generator, device=generator.device)
            drawn[id(generator)] = noise.to(like)
    return torch.stack([drawn[id(generator)] for generator in generators])


def _scales(samples: int, fine: float) -> Float[Tensor, "samples 1 1"]:
    """1 for most candidates; for a share of them falling evenly in logarithm to 0.03.

    At a goal the best plan is to stay, and among draws as wide as a search for detours needs hardly one is that still.
    """
    scales = torch.ones(samples, 1, 1)
    few = round(fine * samples)
    scales[:few, 0, 0] = torch.logspace(0, math.log10(0.03), few) if few else scales[:0, 0, 0]
    return scales


def _coloured(horizon: int, exponent: float) -> Float[Tensor, "horizon horizon"]:
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


def _elites(
    costs: Float[Tensor, "plans samples"], candidates: Float[Tensor, "plans samples horizon action"], number: int
) -> tuple[Float[Tensor, "plans elites"], Float[Tensor, "plans elites horizon action"]]:
    """The cheapest candidates, cheapest first; the cheapest stands in for any whose cost was not finite."""
    elite_costs, which = costs.topk(number, largest=False)
    usable = elite_costs < torch.finfo(costs.dtype).max
    which = torch.where(usable, which, which[:, :1])
    chosen = candidates.gather(1, which[..., None, None].expand(-1, -1, *candidates.shape[2:]))
    return torch.where(usable, elite_costs, elite_costs[:, :1]), chosen


def _fit(
    elites: Float[Tensor, "plans elites horizon action"], weights: Float[Tensor, "plans elites"]
) -> tuple[Float[Tensor, "plans horizon action"], Float[Tensor, "plans horizon action"]]:
    """Weighted mean and standard deviation of the elites."""
    weights = weights[..., None, None]
    mean = (weights * elites).sum(1)
    return mean, (weights * (elites - mean[:, None]).square()).sum(1).sqrt()


def _check(
    bounds: Float[Tensor, "2 action"],
    horizon: int,
    batch: int,
    generators: Sequence[torch.Generator],
    first_guess: Tensor | None,
) -> None:
    low, high = bounds
    if not len(low) or not bounds.isfinite().all() or (low > high).any():
        raise ValueError(f"actions need finite bounds, low below high, but they are {low.tolist()} and {high.tolist()}")
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
