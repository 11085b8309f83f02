"""Close your eyes when something is about to be shown, and tell it from what else was shown: why remembering pays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ami import parallel
from ami.models.recurrent import RecurrentJEPA
from ami.objectives.foresight import happening
from ami.objectives.regularizers import covariance, variance_hinge
from ami.types import Clip, Objective, WorldModel

_NEVER = -1e9  # a logarithm; finite, or a film in which nothing is done would have no gradient but NaN


@dataclass(frozen=True)
class RetentionSettings:
    """How films are lived through in which something is done, and the weight of each loss."""

    closed: float = 0.8  # share of the acts that are gone through with eyes closed
    told: float = 1.0  # telling what an act shows from what the film's other acts show
    warmth: float = 0.3  # squared distance of tokens, the mean over their numbers, that makes e times less likely
    prediction: float = 0.1  # error of what was expected; its target is not taught by it
    acts: float = 3.0  # times as much while something is done
    floor: float = 0.15  # weight there of a cell in which nothing happens; their mean is 1
    behind: float = 0.05  # error of the second layer, before which nothing stands
    doubt: float = 0.05  # error of the expected error, in logarithms; it teaches nothing else
    variance: float = 3.0  # hinge of what changes within a film
    spread: float = 0.7  # deviation that it asks for; a token's own is 1
    covariance: float = 0.2  # of what changes
    precision: Literal["fp32", "bf16"] = "fp32"


class Retention(Objective):
    """Tell what an act shows from what the same film's other acts show, where one has to remember to know.

    A cue that has no effect for a while is not worth remembering to who predicts the next step alone. Here steps are
    told by actions: an *act* is a step at which something is done. Most runs of them the model goes through without
    looking, so all that they show has to come from what is held. What every act of a film shows alike (the cups, in the
    air) is most of the picture and no question of memory; the error of predicting it drowned the ball, one cell in
    sixty-four. So what is expected of a cell is compared with what each act of the film showed there: InfoNCE
    (van den Oord et al. 2018, "Representation learning with contrastive predictive coding", eq. 4), whose negatives
    differ in nothing but what must be remembered. It also teaches the encoder to say what tells acts apart.
    """

    least_deviation = 0.05

    def __init__(self, settings: RetentionSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or RetentionSettings()

    def losses(self, model: WorldModel, clip: Clip, generator: torch.Generator) -> dict[str, Tensor]:
        """``told`` (nats an act, of both layers), ``prediction``, ``behind``, ``doubt``, and of changes two."""
        assert isinstance(model, RecurrentJEPA)
        weigh = self.settings
        if clip.actions is None:
            raise ValueError(
                "what brings things to light is told by actions, and the clip has none; give clips of acts"
            )
        acts = (clip.actions != 0).any(-1)
        chance = torch.rand(len(clip) * parallel.size(), clip.steps, generator=generator)
        shown = looked(acts, chance[parallel.rank() * len(clip) :][: len(clip)].to(clip.times), weigh.closed)
        other = torch.randperm(clip.steps, generator=generator)
        with torch.autocast(clip.times.device.type, torch.bfloat16, enabled=weigh.precision == "bf16"):
            seen = model.encode(clip)
            expected, doubt, *_ = model.live(seen, clip.actions, clip.embodiment, shown)
        front, behind = expected.float().split(model.config.dim, -1)
        now = seen.values[:, 1:]
        error, error_behind = ((each - now.detach()).square().mean(-1) for each in (front, behind))
        counts = happening(seen.values, weigh.floor) * (1 + (weigh.acts - 1) * acts[..., None])
        changes = (seen.values - seen.values[:, other]).flatten(0, 2)
        # By each layer: surprise asks the one or the other.
        told = told_apart(front, now, acts, weigh.warmth) + told_apart(behind, now, acts, weigh.warmth)
        return {
            "told": weigh.told * told,
            "prediction": weigh.prediction * (error * counts).mean(),
            "behind": weigh.behind * (error_behind * counts).mean(),
            "doubt": weigh.doubt * (doubt - (error.detach() + 1e-4).log()).square().mean(),
            "variance": weigh.variance * variance_hinge(changes, weigh.spread),
            "covariance": weigh.covariance * covariance(changes),
        }


def told_apart(
    expected: Float[Tensor, "batch gaps tokens dim"],
    came: Float[Tensor, "batch gaps tokens dim"],
    acts: Bool[Tensor, "batch gaps"],
    warmth: float,
) -> Float[Tensor, ""]:
    """How surely each cell of an act is taken for that of another act of its film; 0 for who knows nothing, and less.

    The mean over acts of a sum over cells, in nats. A cell that looks the same in all acts adds nothing.
    """
    most = int(acts.sum(1).max())
    order = acts.float().argsort(dim=1, descending=True, stable=True)[:, :most]
    there = acts.gather(1, order)[:, None]
    rows = torch.arange(len(acts), device=acts.device)[:, None]
    one, each = (tokens[rows, order].transpose(1, 2) for tokens in (expected, came))
    # A squared distance but for the expected token's own square, which all that it is compared with share.
    near = (2 * one @ each.mT - each.square().sum(-1)[:, :, None]) / (each.shape[-1] * warmth)
    sure = near.masked_fill(~there[:, :, None], _NEVER).log_softmax(-1).diagonal(dim1=2, dim2=3)
    gained = torch.where(there, sure + acts.sum(1).clamp_min(1).log()[:, None, None], 0.0)
    return -gained.sum() / acts.sum().clamp_min(1)


def looked(
    acts: Bool[Tensor, "batch gaps"], chance: Float[Tensor, "batch time"], closed: float
) -> Bool[Tensor, "batch time"]:
    """Which steps are looked at: all but a share ``closed`` of the runs of acts, each by the chance at its first."""
    before = torch.cat([torch.zeros_like(acts[:, :1]), acts[:, :-1]], 1)
    number = (acts & ~before).cumsum(1)
    shut = acts & (chance.gather(1, number) < closed)
    return torch.cat([torch.ones_like(acts[:, :1]), ~shut], 1)
