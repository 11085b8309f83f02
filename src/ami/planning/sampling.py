"""Planning by sampling: CEM, iCEM and MPPI are one loop that draws, imagines, and refits to the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from ami.planning.search import Found, Search, Task, draw


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
    settle: bool = True  # the mean to which the last iteration was fitted is imagined too, in one more call
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
class SamplingPlanner(Search):
    """Plans by drawing action sequences, imagining each, and drawing again near the best.

    The best candidate ever imagined is the plan: in a learned maze, with coloured noise, acting on it ended at the goal
    more often than acting on the final mean (with white noise neither was clearly better). The mean of the first
    distribution (``first_guess``, or the middle of the bounds) and of every later one, the last included, is a
    candidate itself.
    """

    settings: SamplingSettings = METHODS["icem"]

    @property
    def together(self) -> int:
        """Plans imagined in one call of the model."""
        return self.settings.together

    def leaders(
        self, task: Task, guess: Float[Tensor, "plans horizon action"], generators: Sequence[torch.Generator]
    ) -> Iterator[Found]:
        """The best of each iteration and, to ``settle``, the mean to which the last one was fitted."""
        settings, mean, reach = self.settings, guess, (task.high - task.low) / 2
        std = (settings.init_std * reach).expand_as(mean)
        kept, kept_ranks = mean[:, None][:, :0], mean.new_empty(len(mean), 0)
        for number, samples in enumerate(settings.schedule, start=1):
            noise = draw(generators, samples - 1, mean, settings.colour)
            noise = noise * _scales(samples - 1, settings.fine).to(noise)
            # Refitting to draws before they are clamped explores more (8 % cheaper ways round a wall for white-noise
            # CEM, 1 % for iCEM) but settles less exactly (5 to 15 times the gap to a known optimum). So: clamped.
            drawn = (mean[:, None] + std[:, None] * noise).clamp(task.low, task.high)
            candidates = torch.cat([mean[:, None], drawn], 1)
            ranks, leader = task.imagine(candidates)
            yield leader
            if number == settings.iterations and not settings.settle:
                return
            elite_ranks, elites = _elites(
                torch.cat([ranks, kept_ranks], 1), torch.cat([candidates, kept], 1), settings.elites
            )
            kept, kept_ranks = elites[:, : settings.keep], elite_ranks[:, : settings.keep]
            weights = REFITS[settings.refit](elite_ranks, settings.temperature)
            fitted, spread = _fit(elites, weights)
            mean = torch.lerp(fitted, mean, settings.momentum).clamp(task.low, task.high)
            std = torch.lerp(spread, std, settings.momentum).maximum(settings.min_std * reach)
        yield task.imagine(mean[:, None])[1]


@lru_cache(maxsize=32)
def _scales(samples: int, fine: float) -> Float[Tensor, "samples 1 1"]:
    """1 for most candidates; for a share of them falling evenly in logarithm to 0.03.

    At a goal the best plan is to stay, and among draws as wide as a search for detours needs hardly one is that still.
    """
    scales = torch.ones(samples, 1, 1)
    few = round(fine * samples)
    scales[:few, 0, 0] = torch.logspace(0, math.log10(0.03), few) if few else scales[:0, 0, 0]
    return scales


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
