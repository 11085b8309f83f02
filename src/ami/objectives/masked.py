"""Masked prediction, V-JEPA's objective: fill in the hidden tokens of a film, in the space of what is perceived."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from ami import parallel
from ami.models.vjepa import VJEPA, normed
from ami.objectives.masks import LONG_RANGE, SHORT_RANGE, Grid, Mask, Masking, Slots
from ami.objectives.points import Pointing, PointSettings
from ami.objectives.regularizers import covariance, sigreg, variance_hinge
from ami.objectives.teacher import Teacher
from ami.types import Clip, Objective, WorldModel


@dataclass(frozen=True)
class MaskedSettings:
    """The masks, the teacher, and the weight of each loss; at 0 it is not computed."""

    masks: tuple[Masking, ...] = (SHORT_RANGE, LONG_RANGE)  # several for each target, which is perceived once
    distance: Literal["l1", "l2"] = "l1"
    masked: float = 1.0  # error on the tokens that were hidden
    momentum: float | None = 0.99925  # of the teacher; None: the student is its own target, and gradients pass
    levels: tuple[int, ...] = ()  # of the teacher's blocks, to be predicted besides its last
    visible: float = 0.0  # error on the tokens that were seen
    visible_warmup: int = 1000  # steps until it has its full weight
    fill: float = 0.0  # error on the hidden tokens that teaches the predictor alone, for codes that others shape
    own: float = 0.0  # error on the own numbers of hidden tokens, of a model whose tokens carry some
    gaussian: float = 0.0  # SIGReg of the student's tokens
    variance: float = 0.0  # variance hinge of the student's tokens over the batch
    covariance: float = 0.0  # of the student's tokens over the batch
    points: PointSettings | None = None  # of a model that finds some
    precision: Literal["fp32", "bf16"] = "fp32"


class Masked(Objective):
    """Predict what a slowly following copy of the encoder makes of the whole clip, from what is left of it.

    Source: Bardes et al. 2024, "V-JEPA", equation 1 (L1 to a stop-gradient target, each token normalised). From V-JEPA
    2.1: the loss on visible tokens with its warm-up, and the teacher's earlier blocks as targets (deep
    self-supervision), each through a linear head. Without a teacher nothing but the regularisers (LeJEPA's SIGReg, or
    VICReg's) keeps the code from becoming constant: then at least one must have a weight.
    """

    waited: Tensor
    ratios: Tensor

    def __init__(self, model: VJEPA, settings: MaskedSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or MaskedSettings()
        weigh, width = self.settings, model.config.width
        if weigh.masked and weigh.momentum is None and not (weigh.gaussian or weigh.variance):
            raise ValueError("without a teacher the code collapses; give gaussian or variance a weight, or a momentum")
        if weigh.points and not all(isinstance(masking, Slots) for masking in weigh.masks):
            raise ValueError("points are read from whole slots; use masks that hide whole slots")
        if weigh.own and model.own is None:
            raise ValueError("this model's tokens carry no numbers of their own; give its settings some (own)")
        # Heads that read points tell tokens apart by 0.03 to 0.07; targets that are so alike teach nothing.
        self.least_deviation = 0.1 if weigh.masked or weigh.visible else 0.01
        self.teacher = None if weigh.momentum is None else Teacher(model.encoder, weigh.momentum)
        self.heads = nn.ModuleList(nn.Linear(width, width) for _ in weigh.levels)
        self.pointing = None if weigh.points is None else Pointing(model.config, weigh.points)
        self.register_buffer("waited", torch.zeros((), dtype=torch.long))  # steps, for the warm-up
        self.register_buffer("ratios", torch.zeros(len(weigh.masks)))  # of hidden tokens, at the last step

    def losses(self, model: WorldModel, clip: Clip, generator: torch.Generator) -> dict[str, Tensor]:
        """``masked``, ``visible``, ``fill``, ``own``, each regulariser what ``points`` teaches, by their weights."""
        assert isinstance(model, VJEPA)
        video = model.check(clip)
        with torch.autocast(video.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            losses, tokens = self._losses(model, clip, video, generator)
        return losses | self._regularisers(tokens.float(), len(clip), generator)

    def _losses(
        self, model: VJEPA, clip: Clip, video: Tensor, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Float[Tensor, "rows width"]]:
        """What compares something, and the student's tokens under all masks."""
        weigh, width = self.settings, model.config.width
        side = model.config.picture // model.config.patch
        grid = Grid(clip.steps, side, side)
        # What teaches the points is their own way through a film, so no gradient passes from the tokens into them.
        found = model.encoder.find(video) if self.pointing else None
        told = None if found is None else found.places.detach()
        own = None if model.own is None else model.own(video)
        targets: list[Tensor] = []
        if weigh.masked or weigh.visible or weigh.fill:
            with torch.set_grad_enabled(torch.is_grad_enabled() and bool(weigh.masked or weigh.visible)):
                targets = self._targets(model, video, told)
        parts: dict[str, list[Tensor]] = {"masked": [], "visible": [], "fill": [], "own": [], "points": []}
        contexts = []
        for kind, mask in enumerate(draw_masks(weigh.masks, clip, grid, generator)):
            self.ratios[kind] = mask.ratio
            context = model.encoder(video, mask.visible, found=told)[-1]
            seen = context if own is None else torch.cat([context, take(own, mask.visible)], -1)
            guess = model.predictor(seen, mask.visible, mask.hidden, slots=grid.slots, kind=kind)
            contexts.append(context)
            if weigh.masked:
                parts["masked"].append(weigh.masked * self._error(guess[..., :width], targets, mask.hidden))
            if weigh.visible:
                again = model.predictor(seen, mask.visible, mask.visible, slots=grid.slots, kind=kind)
                share = min(1.0, int(self.waited) / max(weigh.visible_warmup, 1))
                error = self._error(again[..., :width], targets, mask.visible)
                parts["visible"].append(weigh.visible * share * error)
            filled = guess
            if weigh.fill:
                filled = model.predictor(seen.detach(), mask.visible, mask.hidden, slots=grid.slots, kind=kind)
                still = [target.detach() for target in targets]
                parts["fill"].append(weigh.fill * self._error(filled[..., :width], still, mask.hidden))
            if weigh.own and own is not None:
                error = functional.l1_loss(filled[..., width:].float(), take(own, mask.hidden).float())
                parts["own"].append(weigh.own * error)
            if self.pointing and found is not None:
                parts["points"].append(self.pointing.error(found.places, mask, context, guess[..., :width]))
        losses = {name: torch.stack(part).mean() for name, part in parts.items() if part}
        if self.pointing and found is not None and self.pointing.teaches(clip.embodiment):
            losses |= self.pointing.losses(found, video, int(self.waited))
        return losses, torch.cat(contexts, 1).flatten(0, 1)

    @torch.no_grad()
    def after_step(self, model: WorldModel) -> None:
        """The teacher follows."""
        assert isinstance(model, VJEPA)
        self.waited += 1
        if self.teacher:
            self.teacher.follow(model.encoder)

    def gauges(self, model: WorldModel) -> dict[str, float]:
        """How far the teacher is behind, and how much each kind of mask hid.

        ``teacher_distance`` is a share of the student's length, ``teacher_beginning`` the share of the teacher that is
        still what it began with.
        """
        assert isinstance(model, VJEPA)
        apart: dict[str, float] = {}
        if self.teacher is not None:
            apart["teacher_distance"] = float(self.teacher.distance(model.encoder))
            apart["teacher_beginning"] = self.teacher.momentum ** int(self.waited)
        return apart | {f"mask_ratio_{kind}": ratio for kind, ratio in enumerate(self.ratios.tolist())}

    def _targets(self, model: VJEPA, video: Tensor, told: Tensor | None) -> list[Tensor]:
        """The whole clip's tokens at each level, the last one last."""
        perceive = self.teacher or model.encoder
        return [normed(level.float()) for level in perceive(video, None, self.settings.levels, told)]

    def _error(self, guess: Tensor, targets: list[Tensor], wanted: Tensor) -> Tensor:
        measure = functional.l1_loss if self.settings.distance == "l1" else functional.mse_loss
        guesses = [*(head(guess) for head in self.heads), guess]
        errors = [measure(one.float(), take(target, wanted)) for one, target in zip(guesses, targets, strict=True)]
        return torch.stack(errors).mean()

    def _regularisers(self, rows: Tensor, clips: int, generator: torch.Generator) -> dict[str, Tensor]:
        weigh, losses = self.settings, {}
        if weigh.gaussian:
            losses["gaussian"] = weigh.gaussian * clips * parallel.size() * sigreg(rows, generator)
        if weigh.variance:
            losses["variance"] = weigh.variance * variance_hinge(rows)
        if weigh.covariance:
            losses["covariance"] = weigh.covariance * covariance(rows)
        return losses


def draw_masks(maskings: tuple[Masking, ...], clip: Clip, grid: Grid, generator: torch.Generator) -> list[Mask]:
    """One mask of each kind for this process's rows; all processes draw those of the whole batch, alike."""
    here = slice(parallel.rank() * len(clip), (parallel.rank() + 1) * len(clip))
    drawn = [masking.draw(len(clip) * parallel.size(), grid, generator).rows(here) for masking in maskings]
    return [mask.to(clip.times.device) for mask in drawn]


def take(
    tokens: Float[Tensor, "batch tokens dim"], wanted: Int[Tensor, "batch some"]
) -> Float[Tensor, "batch some dim"]:
    """The tokens of these numbers, row by row."""
    return tokens.gather(1, wanted[..., None].to(tokens.device).expand(-1, -1, tokens.shape[-1]))
