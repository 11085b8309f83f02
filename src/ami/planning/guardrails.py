"""What a plan must not break: measures of imagined steps to bound, and how a search ranks what breaks a bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ami.types import Guardrail, Latent, WorldModel, beside

BEYOND = 1e20  # more than any cost
_CONCENTRATED = 10  # times that a fit is made anew from what fitted best; after five hardly anything changes


@dataclass(frozen=True)
class Away:
    """How far what ``read`` finds in a latent is from each plan's ``place``: a straight distance, in its own unit."""

    read: Callable[[Latent], Float[Tensor, "rows time out"]]
    place: Float[Tensor, "plans out"]

    def __call__(
        self, imagined: Latent, actions: Float[Tensor, "rows horizon action"]
    ) -> Float[Tensor, "rows horizon"]:
        where = self.read(imagined)
        if where.shape[:2] != imagined.times.shape or where.shape[2:] != self.place.shape[1:]:
            raise ValueError(
                f"the read-out of {tuple(imagined.times.shape)} steps is {tuple(where.shape)}, but the place has "
                f"{self.place.shape[1]} numbers; read as many out of every step"
            )
        if len(where) % len(self.place):
            raise ValueError(f"{len(where)} futures cannot be shared by {len(self.place)} places; give one per plan")
        by_plan = where.unflatten(0, (len(self.place), -1))
        return torch.linalg.vector_norm(by_plan - self.place[:, None, None], dim=-1).flatten(0, 1)

    def rows(self, index: slice | Tensor) -> Away:
        """The places of some of the plans, in the order of ``index``."""
        return replace(self, place=of_plans(self.place, index))


@dataclass(frozen=True)
class Swept:
    """How near each step comes to each plan's ``place``: where it is imagined to end, or would if nothing stopped it.

    What a model errs about most is whether a step is stopped: a wall where there is a door moves it by a whole step.
    So of the two ends the nearer counts. ``moves`` says what an action changes in what is read where nothing is in the
    way (:func:`unstopped`), ``here`` what is read now, a row for each plan.
    """

    read: Callable[[Latent], Float[Tensor, "rows time out"]]
    place: Float[Tensor, "plans out"]
    here: Float[Tensor, "plans out"]
    moves: Float[Tensor, "action out"]

    def __call__(
        self, imagined: Latent, actions: Float[Tensor, "rows horizon action"]
    ) -> Float[Tensor, "rows horizon"]:
        ends = self.read(imagined)
        begun = beside(self.here, len(ends) // len(self.here))[:, None]
        free = torch.cat([begun, ends[:, :-1]], 1) + actions @ self.moves
        return torch.minimum(*(Away(lambda _, at=at: at, self.place)(imagined, actions) for at in (ends, free)))

    def rows(self, index: slice | Tensor) -> Swept:
        """The places of some of the plans, in the order of ``index``."""
        return replace(self, place=of_plans(self.place, index), here=of_plans(self.here, index))


@torch.no_grad()
def unstopped(
    model: WorldModel,
    seen: Latent,
    embodiment: str,
    read: Callable[[Latent], Float[Tensor, "rows time out"]],
    generator: torch.Generator,
) -> Float[Tensor, "action out"]:
    """What an action changes in what is read, where nothing is in the way: a linear map, by imagining.

    From each row of ``seen`` (one step) one action is imagined, drawn evenly within the bounds. The map is fitted to
    the half of them that fits it best: who is stopped moves otherwise. So more than half of ``seen`` must be free.
    Source: least trimmed squares (Rousseeuw 1984), by the concentration steps of Rousseeuw and Van Driessen 2006.
    """
    body = model.embodiments[embodiment]
    low, high = torch.tensor(body.low), torch.tensor(body.high)
    drawn = torch.rand(len(seen), len(low), generator=generator)
    actions = (low + (high - low) * drawn).to(seen.values)
    held = model.believe(None, seen, None, embodiment)
    changed = (read(model.predict(held, actions[:, None], 1)) - read(seen))[:, 0]
    kept = torch.ones(len(seen), dtype=torch.bool, device=changed.device)
    for _ in range(_CONCENTRATED):
        moves = torch.linalg.lstsq(actions[kept], changed[kept]).solution
        missed = (changed - actions @ moves).norm(dim=-1)
        kept = missed <= missed.median()
    return moves


@dataclass(frozen=True)
class Everywhere:
    """A measure that is the same for every plan: any function of the steps and actions, a learned uncertainty, say."""

    function: Callable[[Latent, Float[Tensor, "rows horizon action"]], Float[Tensor, "rows horizon"]]

    def __call__(
        self, imagined: Latent, actions: Float[Tensor, "rows horizon action"]
    ) -> Float[Tensor, "rows horizon"]:
        return self.function(imagined, actions)

    def rows(self, index: slice | Tensor) -> Everywhere:
        """The same for every plan."""
        return self


def of_plans(values: Float[Tensor, "plans ..."], index: slice | Tensor) -> Float[Tensor, "rows ..."]:
    """What belongs to some of the plans, in the order of ``index``; ``ValueError`` for a plan that has none."""
    last = -1
    if isinstance(index, slice):
        last += index.stop or 0
    elif isinstance(index, Tensor) and len(index):
        last = int(index.max())
    if last >= len(values):
        raise ValueError(f"plan number {last} has no goal: there are {len(values)}; give one for each plan")
    return values[index]


def action_length(imagined: Latent, actions: Float[Tensor, "rows horizon action"]) -> Float[Tensor, "rows horizon"]:
    """How long each action is, in the action's own unit: to limit it where the bounds of each number do not."""
    return torch.linalg.vector_norm(actions, dim=-1)


def excesses(
    guardrails: Sequence[Guardrail], imagined: Latent, actions: Float[Tensor, "rows horizon action"]
) -> Float[Tensor, "rows guardrails"]:
    """How far each future goes beyond each guardrail, summed over its steps; 0 where all of it is allowed."""
    if not guardrails:
        return actions.new_empty(len(actions), 0)
    return torch.stack([each.excess(imagined, actions) for each in guardrails], 1)


def ranked(costs: Float[Tensor, "rows"], excess: Float[Tensor, "rows guardrails"]) -> Float[Tensor, "rows"]:
    """One number to compare candidates by: the cost of what is allowed and, above every such cost, the excess.

    So of two candidates the better is the one that breaks the guardrails less, and only of allowed ones the cheaper.
    What is not finite is the worst: the largest number there is. Source: Deb 2000, "An efficient constraint handling
    method for genetic algorithms", section 3.
    """
    worst = torch.finfo(costs.dtype).max
    ranks = costs.nan_to_num(nan=worst, posinf=worst, neginf=worst)
    if not excess.shape[1]:
        return ranks
    total = excess.sum(1).to(costs)
    broken = (BEYOND * (1 + total)).clamp_max(worst / 1024)  # the worst itself would overflow in a mean
    broken = torch.where(total.isfinite(), broken, worst)
    return torch.where(total == 0, ranks, torch.maximum(broken, ranks))


def refusals(
    guardrails: Sequence[Guardrail],
    excess: Float[Tensor, "plans guardrails"],
    reachable: Bool[Tensor, "plans"],
    reached: Bool[Tensor, "plans"] | None,
) -> tuple[str, ...]:
    """``Plan.why`` for the best candidate of each plan; of several reasons the first, guardrails in their order.

    ``reached`` is ``None`` where nobody said what is near enough.
    """
    reasons = ["unreachable", *(f"guardrail: {each.name}" for each in guardrails), "search"]
    refused = torch.cat([~reachable[:, None], excess > 0, *([] if reached is None else [~reached[:, None]])], 1)
    return tuple(next((why for why, no in zip(reasons, row, strict=False) if no), "") for row in refused.tolist())
