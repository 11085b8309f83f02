"""Hidden causes: what must have been so, for what was then seen to be expected? Inference by optimisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ami.types import Belief, Latent, WorldModel

Unknown = Literal["recurrent", "latents"]
# Places to their values and slopes, each row by itself.
Misfit = Callable[[Float[Tensor, "batch n"]], tuple[Float[Tensor, "batch"], Float[Tensor, "batch n"]]]
_ENOUGH = 1e-4  # share of the fall that its slope promises at which a step is taken
_SHORTER = 0.25  # of a step that was not taken


@dataclass(frozen=True)
class Explaining:
    """How hidden causes are looked for."""

    unknowns: tuple[Unknown, ...] = ("recurrent",)  # of the belief: what it carries along, the latents it holds
    steps: int = 15  # calls of the model, there and back
    prior: float = 0.03  # what a change by one deviation costs, in energy: nothing is changed without a reason
    first: float = 1.0  # deviations that the first step goes
    memory: int = 8  # steps from which the curvature is learned

    def __post_init__(self) -> None:
        if not self.unknowns or not set(self.unknowns) <= {"recurrent", "latents"}:
            raise ValueError(f"unknowns are {self.unknowns!r}; choose recurrent, latents or both")
        if min(self.steps, self.memory) < 1 or self.prior < 0 or not self.first > 0:
            raise ValueError("steps and memory are at least 1, first is above 0, prior is not negative")


@dataclass(frozen=True)
class Spread:
    """The directions in which beliefs differ from one another, each as long as their deviation along it.

    Hidden causes are looked for along these. A learned model answers anything for beliefs that it never comes to, so
    without them the energy falls just as far while the belief stops meaning anything (``docs/log.md`` has the numbers).
    """

    unknowns: tuple[Unknown, ...]
    directions: Float[Tensor, "n direction"]


@dataclass(frozen=True)
class Explained:
    """A belief from which what was seen is more to be expected, and how it came to be."""

    belief: Belief
    change: Float[Tensor, "batch n"]  # of the unknowns, in deviations along each direction or else in their own units
    history: Float[Tensor, "steps batch"]  # mean energy and the price of the change, which begins at 0; never goes up


def spread(
    beliefs: Belief, unknowns: Sequence[Unknown] = ("recurrent",), most: int = 64, *, knowing_less: Belief | None = None
) -> Spread:
    """Learn from many beliefs (a row each) how beliefs differ: their first ``most`` principal components.

    With ``knowing_less``, beliefs about the same moments of somebody who saw less of what was before, it is learned
    how a belief changes as more becomes known, which is what explaining is to do.
    """
    held = _unknowns(beliefs, unknowns)
    apart = held - (held.mean(0) if knowing_less is None else _unknowns(knowing_less, unknowns))
    _, deviation, directions = torch.linalg.svd(apart / len(apart) ** 0.5, full_matrices=False)
    kept = deviation[:most] > 1e-6 * deviation[0]
    if not kept.any():
        raise ValueError(f"these {len(beliefs)} beliefs are all alike; show different recordings")
    return Spread(tuple(unknowns), (deviation[:most, None] * directions[:most])[kept].T.contiguous())


def explain(
    model: WorldModel,
    belief: Belief,
    actions: Float[Tensor, "batch horizon action"] | None,
    seen: Latent,
    settings: Explaining | None = None,
    along: Spread | None = None,
) -> Explained:
    """Change the unknowns of ``belief`` until the future imagined from it fits what was then ``seen``.

    Minimised is the model's mean energy over the steps seen plus ``prior`` times the squared change in deviations: the
    most probable causes, where energy is a negative log-likelihood and the belief a Gaussian prior. Deviations are
    those of ``along``; without it, the unknowns' own units. By L-BFGS (Nocedal and Wright 2006, algorithms 7.4 and
    3.1), every row by itself: each has its own curvature and its own step, which is taken only where it goes down far
    enough and is shortened where it does not. The model's weights are not touched, nor given gradients. ``ValueError``
    where the energy has no gradient to the unknowns.
    """
    settings = settings or Explaining()
    if model.training:
        raise ValueError("the model is in training mode, where rows may talk to each other; call model.eval() first")
    if len(seen) != len(belief):
        raise ValueError(f"{len(seen)} rows were seen and {len(belief)} are believed; give each belief its own future")
    belief = replace(belief, earlier=None)  # what was carried before does not follow from causes thought of since
    begin = _unknowns(belief, settings.unknowns)
    ways = None if along is None else along.directions.to(begin)
    if along is not None and (along.unknowns, len(along.directions)) != (settings.unknowns, begin.shape[1]):
        raise ValueError(
            f"the spread is of {len(along.directions)} numbers ({', '.join(along.unknowns)}) and the belief has "
            f"{begin.shape[1]} unknowns ({', '.join(settings.unknowns)}); learn it from beliefs like this one"
        )

    def changed(by: Float[Tensor, "batch n"]) -> Belief:
        return _changed(belief, settings.unknowns, begin + (by if ways is None else by @ ways.T))

    def misfit(by: Float[Tensor, "batch n"]) -> tuple[Float[Tensor, "batch"], Float[Tensor, "batch n"]]:
        with torch.enable_grad():
            by = by.detach().requires_grad_()
            energy = model.energy(changed(by), actions, seen).mean(1)
            gradient = torch.autograd.grad(energy.sum(), by, allow_unused=True)[0] if energy.requires_grad else None
        if gradient is None:
            raise ValueError(f"this model's energy has no gradient to {' and '.join(settings.unknowns)} of a belief")
        by = by.detach()
        return energy.detach() + settings.prior * by.square().sum(1), gradient + 2 * settings.prior * by

    by, history = _descend(misfit, begin.new_zeros(len(begin), (begin if ways is None else ways).shape[1]), settings)
    return Explained(changed(by), by, history)


def _descend(
    misfit: Misfit, at: Float[Tensor, "batch n"], settings: Explaining
) -> tuple[Float[Tensor, "batch n"], Float[Tensor, "steps batch"]]:
    """The lowest place that each row comes to, and its value at the start and after each further call."""
    value, slope = misfit(at)
    if not (value.isfinite().all() and slope.isfinite().all()):
        raise ValueError("what was seen has no finite energy under this belief; check the model and what was seen")
    moved = bent = at.new_zeros(settings.memory, *at.shape)  # what steps changed in place and in slope; 0: none yet
    way, reach, history = _way(slope, moved, bent, settings.first), at.new_ones(len(at)), [value]
    for _ in range(settings.steps - 1):
        step = reach[:, None] * way
        there, rise = misfit(at + step)
        taken = there <= value + _ENOUGH * (slope * step).sum(1).clamp_max(0)
        taken &= rise.isfinite().all(1) & step.any(1)
        moved, bent = _remembered(taken, step, moved, rise - slope, bent)
        at, slope = torch.where(taken[:, None], at + step, at), torch.where(taken[:, None], rise, slope)
        value, reach = torch.where(taken, there, value), torch.where(taken, 1.0, _SHORTER * reach)
        way = torch.where(taken[:, None], _way(slope, moved, bent, settings.first), way)
        history.append(value)
    return at, torch.stack(history)


def _remembered(
    taken: Bool[Tensor, "batch"],
    step: Float[Tensor, "batch n"],
    moved: Float[Tensor, "memory batch n"],
    bend: Float[Tensor, "batch n"],
    bent: Float[Tensor, "memory batch n"],
) -> tuple[Float[Tensor, "memory batch n"], Float[Tensor, "memory batch n"]]:
    """The memory with this step for the oldest, in rows that took it and where it went through a valley's bend."""
    learned = taken & ((step * bend).sum(1) > 1e-8 * step.norm(dim=1) * bend.norm(dim=1))

    def rolled(held: Tensor, new: Tensor) -> Tensor:
        return torch.where(learned[:, None], torch.cat([held[1:], new[None]]), held)

    return rolled(moved, step), rolled(bent, bend)


def _way(
    slope: Float[Tensor, "batch n"],
    moved: Float[Tensor, "memory batch n"],
    bent: Float[Tensor, "memory batch n"],
    first: float,
) -> Float[Tensor, "batch n"]:
    """Downhill, by what the remembered steps say of the curvature; ``first`` far where none is remembered."""
    curved = (moved * bent).sum(2)
    weight = torch.where(curved > 0, 1 / curved, 0.0)
    way, shares = slope, []
    for step, bend, each in zip(moved.flip(0), bent.flip(0), weight.flip(0), strict=True):
        shares.insert(0, each * (step * way).sum(1))
        way = way - shares[0][:, None] * bend
    unknown = first / slope.norm(dim=1).clamp_min(torch.finfo(slope.dtype).tiny)
    way = way * torch.where(curved[-1] > 0, curved[-1] / bent[-1].square().sum(1), unknown)[:, None]
    for step, bend, each, share in zip(moved, bent, weight, shares, strict=True):
        way = way + (share - each * (bend * way).sum(1))[:, None] * step
    return -way


def _unknowns(belief: Belief, names: Sequence[Unknown]) -> Float[Tensor, "batch n"]:
    """What may be changed of a belief, a row of numbers each."""
    if "recurrent" in names and belief.recurrent is None:
        raise ValueError("this belief carries nothing along (no recurrent state); name latents as the unknowns")
    held = {"recurrent": belief.recurrent, "latents": belief.latents.values}
    return torch.cat([part.detach().flatten(1) for name in names if (part := held[name]) is not None], 1)


def _changed(belief: Belief, names: Sequence[Unknown], at: Float[Tensor, "batch n"]) -> Belief:
    """The belief with its unknowns as ``at`` says."""
    for name in names:
        was = belief.recurrent if name == "recurrent" else belief.latents.values
        assert was is not None
        part, at = at[:, : was[0].numel()].view_as(was), at[:, was[0].numel() :]
        if name == "recurrent":
            belief = replace(belief, recurrent=part)
        else:
            belief = replace(belief, latents=replace(belief.latents, values=part))
    return belief
