"""Is it collapsing? Numbers that say so while a model trains; ami.training.health says what they mean."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ami import parallel
from ami.reasoning.readout import fit_readout
from ami.types import Clip, WorldModel


def effective_rank(values: Float[Tensor, "n dim"]) -> float:
    """How many dimensions are in use: the exponential of the entropy of the normalised singular values.

    Source: Roy and Vetterli 2007; used as RankMe by Garrido et al. 2023 (equation 1).
    """
    strengths = torch.linalg.svdvals((values - values.mean(0)).double())
    share = strengths / strengths.sum().clamp_min(1e-12)
    return float(torch.exp(-(share * (share + 1e-12).log()).sum()))


@torch.no_grad()
def gauge(model: WorldModel, clip: Clip) -> dict[str, float]:
    """Gauges on held-out experience, for each token of the latent and, where the truth is known, a linear read-out.

    ``rank`` and ``deviation`` of a grid of tokens are of what differs from film to film at the same place: a code that
    only says where a token lies has collapsed, however many tokens there are. What is not taught cannot collapse, and
    has no part in either. ``probe`` errors are of a ridge regression fitted on half of the rows and measured on the
    other half, in the truth's own unit (px in Two Rooms), mean over its quantities.
    """
    training = model.training
    model.eval()
    values = model.encode(clip.to(parallel.device_of(model))).values.cpu()
    model.train(training)
    found = {}
    taught = values[..., : values.shape[-1] - model.part(clip.embodiment).untaught]
    for token, part in enumerate(_codes(taught)):
        flat = part.flatten(0, 1)
        found[f"rank_{token}"] = effective_rank(flat)
        found[f"deviation_{token}"] = float(flat.std(0).mean())
    if clip.truth is not None and len(clip) > 1:
        half = len(clip) // 2
        features, truth = values.flatten(2), clip.truth
        readout = fit_readout(features[:half].flatten(0, 1), truth[:half].flatten(0, 1))
        found["probe"] = float(readout.error(features[half:].flatten(0, 1), truth[half:].flatten(0, 1)).mean())
    return found


def _codes(values: Float[Tensor, "batch time tokens dim"]) -> tuple[Float[Tensor, "batch some dim"], ...]:
    """Two tokens may be two codes; the tokens of a grid are all of one kind, each against its place's mean."""
    if values.shape[2] <= 2:
        return values.unbind(2)
    over = (0,) if len(values) > 1 else (0, 1)  # of one film, against its own other steps
    return ((values - values.mean(over, keepdim=True)).flatten(1, 2),)
