"""Hidden causes of a recording, inferred by what is ordinary in the other recordings beside it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ami.data.episodes import Store
from ami.evaluation.reading import cut
from ami.reasoning.causes import Explained, Explaining, Spread, Unknown, explain, spread
from ami.types import Belief, Latent, WorldModel

MOST = 128  # stretches of other recordings to learn from
PRICE = 0.3  # of a change by one deviation, in ordinary energy: at a tenth of it what is known already is thrown away


@dataclass(frozen=True)
class Ordinary:
    """What is ordinary in recordings: how beliefs differ, and the mean energy of what follows them."""

    along: Spread
    energy: float


@torch.no_grad()
def ordinary(
    model: WorldModel, store: Store, past: int, horizon: int, unknown: Unknown, *, without: Collection[int] = ()
) -> Ordinary:
    """Learned from stretches of ``past`` steps that are believed and ``horizon`` that follow, evenly over the store.

    How a recurrent state changes as more becomes known is learned from beliefs about the same moments that saw half as
    much; where those are no other, and for latents, it is learned how beliefs differ from one another.
    """
    frames, others = model.part(store.embodiment.name).frames, [n for n in range(len(store)) if n not in without]
    windows = store.windows(past + horizon, frames, others)
    if len(windows) < 2:
        raise ValueError(
            f"{store.folder} has no two other stretches of {past + horizon} steps to learn from what is ordinary; ask "
            "about fewer steps, or infer nothing"
        )
    chosen = np.linspace(0, len(windows) - 1, min(len(windows), MOST)).round().astype(int)
    clip = cut(model, store, windows[chosen], past + horizon)
    seen, done = model.encode(clip), clip.actions

    def believed(first: int) -> Belief:
        acted = None if done is None else done[:, first : past - 1]
        return model.believe(None, seen.between(first, past), acted, clip.embodiment)

    beliefs, less = believed(0), believed(past // 2)
    follow = None if done is None else done[:, past - 1 :]
    energy = float(model.energy(replace(beliefs, earlier=None), follow, seen.between(past, past + horizon)).mean())
    learns = unknown == "recurrent" and _differ(beliefs.recurrent, less.recurrent)
    return Ordinary(spread(beliefs, (unknown,), knowing_less=less if learns else None), energy)


def infer(
    model: WorldModel,
    belief: Belief,
    actions: Float[Tensor, "batch horizon action"] | None,
    seen: Latent,
    known: Ordinary,
    price: float = PRICE,
) -> Explained:
    """The belief with the hidden causes that explain what was then ``seen``.

    A change by one deviation has its ``price``, in ordinary energy.
    """
    settings = Explaining(known.along.unknowns, prior=price * known.energy)
    return explain(model, belief, actions, seen, settings, known.along)


def _differ(more: Tensor | None, less: Tensor | None) -> bool:
    """Whether two states are of one kind and yet not the same: a memory of the last few steps is."""
    return (
        more is not None and less is not None and more.shape == less.shape and not torch.allclose(more, less, 0, 1e-4)
    )
