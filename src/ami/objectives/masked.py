"""V-JEPA's objective: fill in the hidden tokens of a film, in the space of what a teacher perceives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from ami import parallel
from ami.objectives.masks import LONG_RANGE, SHORT_RANGE, Grid, Mask, Masking
from ami.objectives.regularizers import covariance, sigreg, variance_hinge
from ami.objectives.teacher import Teacher
from ami.types import Clip, Objective, WorldModel


class Maskable(Protocol):
    """What a model must have to be taught so."""

    def grid_of(self, clip: Clip) -> Grid:
        """How the clip is cut in tokens."""
        ...

    @property
    def encoder(self) -> Callable[..., Tensor]:
        """``encoder(video, visible)``: the tokens that are named, and no others ever enter; ``None`` names all."""
        ...

    @property
    def predictor(self) -> Callable[..., Tensor]:
        """``predictor(context, visible, wanted)``: a guess of any tokens' features, from those that were seen."""
        ...


@dataclass(frozen=True)
class MaskedSettings:
    """The masks, the teacher, and the weight of each loss; at 0 it is not computed."""

    masks: tuple[Masking, ...] = (SHORT_RANGE, LONG_RANGE)  # several for each target, which is perceived once
    distance: Literal["l1", "l2"] = "l1"
    momentum: float | None = 0.99925  # of the teacher; None: the student is its own target, and gradients pass
    visible: float = 0.0  # error on the tokens that were seen
    visible_warmup: int = 1000  # steps until it has its full weight
    gaussian: float = 0.0  # SIGReg of the student's tokens
    variance: float = 0.0  # variance hinge of the student's tokens over the batch
    covariance: float = 0.0  # of the student's tokens over the batch


class Masked(Objective):
    """Predict what a slowly following copy of the encoder makes of the whole clip, from what is left of it.

    Source: Bardes et al. 2024, "V-JEPA", equation 1 (L1 to a stop-gradient target, each token normalised); the loss on
    visible tokens with its warm-up is V-JEPA 2.1's. Without a teacher nothing but the regularisers (LeJEPA's SIGReg,
    or VICReg's) keeps the code from becoming constant: then at least one must have a weight.
    """

    waited: Tensor

    def __init__(self, model: Maskable, settings: MaskedSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or MaskedSettings()
        weigh = self.settings
        if weigh.momentum is None and not (weigh.gaussian or weigh.variance):
            raise ValueError("without a teacher the code collapses; give gaussian or variance a weight, or a momentum")
        encoder = cast(nn.Module, model.encoder)
        self.teacher = None if weigh.momentum is None else Teacher(encoder, weigh.momentum)
        self.register_buffer("waited", torch.zeros((), dtype=torch.long))  # steps, for the warm-up

    def losses(self, model: WorldModel, clip: Clip, generator: torch.Generator) -> dict[str, Tensor]:
        """``masked``; ``visible`` and each regulariser that has a weight."""
        student, weigh = cast(Maskable, model), self.settings
        masks = draw_masks(weigh.masks, clip, student.grid_of(clip), generator)
        whole = None if self.teacher else student.encoder(clip.video, None)
        target = normal(self.teacher(clip.video, None) if self.teacher else cast(Tensor, whole))
        masked, visible, contexts = [], [], []
        for mask in masks:
            context = student.encoder(clip.video, mask.visible)
            contexts.append(context)
            masked.append(self._error(student.predictor(context, mask.visible, mask.hidden), target, mask.hidden))
            if weigh.visible:
                visible.append(
                    self._error(student.predictor(context, mask.visible, mask.visible), target, mask.visible)
                )
        losses = {"masked": torch.stack(masked).mean()}
        if weigh.visible:
            share = min(1.0, int(self.waited) / max(weigh.visible_warmup, 1))
            losses["visible"] = weigh.visible * share * torch.stack(visible).mean()
        rows = torch.cat([context.flatten(0, 1) for context in contexts] if whole is None else [whole.flatten(0, 1)])
        if weigh.gaussian:
            losses["gaussian"] = weigh.gaussian * len(clip) * parallel.size() * sigreg(rows, generator)
        if weigh.variance:
            losses["variance"] = weigh.variance * variance_hinge(rows)
        if weigh.covariance:
            losses["covariance"] = weigh.covariance * covariance(rows)
        return losses

    @torch.no_grad()
    def after_step(self, model: WorldModel) -> None:
        """The teacher follows."""
        self.waited += 1
        if self.teacher:
            self.teacher.follow(cast(nn.Module, cast(Maskable, model).encoder))

    def _error(self, guessed: Tensor, target: Tensor, wanted: Tensor) -> Tensor:
        measure = functional.l1_loss if self.settings.distance == "l1" else functional.mse_loss
        return measure(guessed.float(), take(target, wanted))


def draw_masks(maskings: tuple[Masking, ...], clip: Clip, grid: Grid, generator: torch.Generator) -> list[Mask]:
    """One mask of each kind for this process's rows; all processes draw those of the whole batch, alike."""
    here = slice(parallel.rank() * len(clip), (parallel.rank() + 1) * len(clip))
    return [masking.draw(len(clip) * parallel.size(), grid, generator).rows(here) for masking in maskings]


def take(
    tokens: Float[Tensor, "batch tokens dim"], wanted: Int[Tensor, "batch some"]
) -> Float[Tensor, "batch some dim"]:
    """The tokens of these numbers, row by row."""
    return tokens.gather(1, wanted[..., None].to(tokens.device).expand(-1, -1, tokens.shape[-1]))


def normal(tokens: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
    """Each token with mean 0 and deviation 1, so that its length says nothing."""
    return functional.layer_norm(tokens.float(), tokens.shape[-1:])
