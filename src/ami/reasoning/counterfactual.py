"""What if: the same past and the same hidden causes, and something else done, or something else there."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ami.reasoning.readout import Readout
from ami.types import Belief, Clip, Latent, WorldModel


@dataclass(frozen=True)
class Futures:
    """Two futures that are imagined side by side: of what was, and of what was not. A row and a step are the same."""

    factual: Latent
    other: Latent

    def __post_init__(self) -> None:
        if self.factual.values.shape != self.other.values.shape:
            raise ValueError(
                f"futures of shape {tuple(self.factual.values.shape)} and {tuple(self.other.values.shape)} cannot be "
                "compared step by step; imagine as many rows and steps of both"
            )

    @property
    def apart(self) -> Float[Tensor, "batch horizon"]:
        """How far apart they are at each step: root mean square over tokens and dim, in the latent's own unit."""
        return distance(self.factual, self.other)

    def differ(self, read: Readout) -> Float[Tensor, "batch horizon quantity"]:
        """What is read out of the other future, less what is read out of the factual one, in the read-out's units."""
        return read.along(self.other) - read.along(self.factual)


def distance(one: Latent, other: Latent) -> Float[Tensor, "batch time"]:
    """How far apart two latents are at each step: root mean square over tokens and dim."""
    return (one.values - other.values).square().mean((-1, -2)).sqrt()


@torch.no_grad()
def past(model: WorldModel, clip: Clip) -> Belief:
    """What is believed after a clip, of which nothing was known before; futures are judged by it as it is now alone."""
    return replace(model.believe(None, model.encode(clip), clip.actions, clip.embodiment), earlier=None)


@torch.no_grad()
def what_if(
    model: WorldModel,
    belief: Belief,
    done: Float[Tensor, "batch horizon action"] | None,
    horizon: int,
    *,
    instead: Float[Tensor, "batch horizon action"] | None = None,
    other: Belief | None = None,
) -> Futures:
    """Something else is done (``instead``), or something else was there (``other``): imagined beside what was.

    What ``belief`` holds of hidden causes is in both futures. These are the three steps of Pearl 2009, "Causality",
    theorem 7.1.7: causes are inferred from what was seen (:func:`ami.reasoning.causes.explain`), something is
    replaced, the future is imagined anew. ``other`` is believed after an edited past, perceived anew (:func:`past`): an
    object was taken out of a clip's pictures, put in, or moved; it is given the causes that were inferred
    (:func:`carried`).
    """
    then = done if instead is None else instead
    return Futures(model.predict(belief, done, horizon), model.predict(other or belief, then, horizon))


def carried(explained: Belief, before: Belief, edited: Belief, alike: float = 0.1) -> Belief:
    """An edited past's belief with the hidden causes that explain the factual one: ``explained`` less ``before``.

    They are carried where the edit changed nothing: a token of a state that has several, where the two pasts differ by
    less than ``alike`` of its length, for what was inferred about an object says nothing of a place that it is missing
    from. A state that is one row of numbers takes all. ``ValueError`` where the beliefs are not alike in shape.
    """
    values = _carried(explained.latents.values, before.latents.values, edited.latents.values, alike)
    recurrent = edited.recurrent
    if explained.recurrent is not None and before.recurrent is not None and recurrent is not None:
        recurrent = _carried(explained.recurrent, before.recurrent, recurrent, alike)
    return replace(edited, latents=replace(edited.latents, values=values), recurrent=recurrent)


def _carried(explained: Tensor, before: Tensor, edited: Tensor, alike: float) -> Tensor:
    if not explained.shape == before.shape == edited.shape:
        shapes = " and ".join(str(tuple(each.shape)) for each in (before, edited))
        raise ValueError(f"hidden causes cannot be carried between states of shape {shapes}; let both pasts be as long")
    change = explained - before
    if before.ndim > 2:
        same = (edited - before).norm(dim=-1, keepdim=True) <= alike * before.norm(dim=-1, keepdim=True)
        change = torch.where(same, change, 0.0)
    return edited + change
