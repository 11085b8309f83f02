"""What one sense says of a view from what others say, what is seen from elsewhere, and how the camera moved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ami import geometry, parallel
from ami.models.spatial import SpatialJEPA
from ami.nn.senses import QUARTERS, CellStem, bearings, quarters
from ami.nn.views import Senses, told
from ami.objectives.regularizers import covariance, variance_hinge
from ami.types import Clip, Objective, WorldModel

_SHORT = 0.1  # metres, and what a turn of 4 degrees is in six numbers: shorter motions count less
_SURE = 0.4, 0.1  # the same once latents stand still, and an error of a motion, of how far it goes, that hardly counts
# What pupils have of a view, and where their shares end: half of them see colours alone.
_SHOWN = ({"video"}, {"depth"}, {"video", "depth"})
_SHARES = (0.55, 0.75)
_DEPTH = 1
_POINTS = 0.25  # of the steps, in which those with depth alone have points in its place: few in each would cost as much


@dataclass(frozen=True)
class AcrossSettings:
    """The weight of each loss, and how much is kept from the pupil."""

    across: float = 1.0  # error of all that is sensed together, told from some of it
    colours: float = 1.0  # error of the code of what colours say by themselves, told from whatever was sensed
    depth: float = 1.0  # and of depth's
    code: int = 32  # numbers of such a code of a cell; colours have a fourth of them for each quarter of it
    lying: float = 3.0  # error of where what a cell shows lies
    view: float = 2.0  # error of the view from elsewhere
    motion: float = 2.0  # error of how the camera moved between two views
    asked: int = 4  # steps of a clip that are asked for, each from others
    often: float = 0.5  # share of the training steps in which they are
    variance: float = 4.0  # hinge of the deviation of each cell's latent over the batch
    spread: float = 0.9  # that it asks for
    covariance: float = 1.0
    hidden: float = 0.5  # share of the views of which a block of cells is kept from the pupil
    points: int = 256  # of depth pictures, given as points
    shuffled: bool = False  # whether poses are those of another clip: a control, from which nothing can be learned
    precision: Literal["fp32", "bf16"] = "fp32"


class Across(Objective):
    """One encoder perceives every view twice: with all senses, and as a pupil with one of them or a part of it.

    From the pupil's latent a small network tells the whole one (a masked latent, within and across the senses), and a
    linear layer the learned code of each sense by itself, depth's also where only colours were seen. Of colours each
    quarter of a cell has a code of its own. Each cell says where it looks and how far what it shows is, by which the
    world model moves it: from pupils' views and the motions between the cameras that tells the whole latent of a view
    that was not given, and from two views the motion. Gradients pass into the targets. What keeps these from saying
    nothing is VICReg's pair of terms (Bardes et al. 2022, equations 1 and 3), on each cell less its mean over the
    batch: a code of where a cell lies would else satisfy them.

    A clip without depth or poses teaches what it can: that is the twin that learns from colours alone. Asked for views
    from it knows not where, it would learn what all views of a place share, and nothing else (docs/log.md).
    """

    def __init__(self, model: SpatialJEPA, settings: AcrossSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or AcrossSettings()
        config, code = model.config, self.settings.code
        self.patch, dim, pixels = config.patch, config.dim, config.tubelet * config.patch**2
        self.whole = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))
        quarter = CellStem(3 * pixels // QUARTERS, code // QUARTERS)
        self.codes = nn.ModuleDict({"colours": quarter, "depth": CellStem(2 * pixels, code)})
        self.read = nn.ModuleDict({name: nn.Linear(dim, code) for name in self.codes})

    def losses(self, model: WorldModel, clip: Clip, generator: torch.Generator) -> dict[str, Tensor]:
        """``across``, ``depth``, ``view``, ``motion`` and the regularisers, where there is something to learn from."""
        assert isinstance(model, SpatialJEPA)
        weigh, device = self.settings, clip.times.device
        senses = model.senses(clip)
        with torch.autocast(device.type, torch.bfloat16, enabled=weigh.precision == "bf16"):
            whole, pupil = model.perceive(self._seen(model, senses, clip, generator), clip.embodiment).chunk(2)
            losses = {"across": weigh.across * (self.whole(pupil).float() - whole).square().mean()}
            losses |= self._codes(senses, pupil) | {"lying": weigh.lying * self._lying(model, senses, pupil)}
            if clip.pose is not None and float(torch.rand((), generator=generator)) < weigh.often:
                losses |= self._elsewhere(model, clip.pose, pupil, whole, generator)
        rows = (whole - parallel.mean(whole.mean(0))).flatten(0, 1)
        losses["variance"] = weigh.variance * variance_hinge(rows, weigh.spread)
        losses["covariance"] = weigh.covariance * covariance(rows)
        return losses

    def _seen(
        self, model: SpatialJEPA, senses: Senses, clip: Clip, generator: torch.Generator
    ) -> Float[Tensor, "both cells dim"]:
        """What the encoder says of every view by all its senses, then of every view as the pupil has it.

        Stems look once for both, and all cells hear one another in one batch, but for those beside points.
        """
        encoder, rays = model.encoder, senses.rays
        said = encoder.look(senses)
        whole = sum(said.values(), rays.new_zeros(*rays.shape[:2], 1))
        pupil, pointed = self._pupil(said, whole, clip.steps, generator)
        plain, pointed = (each.nonzero()[:, 0] for each in (~pointed, pointed))
        if senses.points is None:
            seen = encoder.hear(torch.cat([rays, rays[plain]]), torch.cat([whole, pupil[plain]]))
        else:
            seen = torch.cat([encoder.hear(rays, whole, senses.points), encoder.hear(rays[plain], pupil[plain])])
        pixels = None
        if senses.points is None and parallel.total(float(len(pointed))):  # where one process draws, all do
            assert clip.depth is not None
            pixels = torch.randperm(clip.depth.shape[-2:].numel(), generator=generator)[: self.settings.points]
        if not len(pointed):
            return seen
        points = _points(clip, pointed, pixels) if senses.points is None else senses.points[pointed]
        beside = encoder.hear(rays[pointed], torch.zeros_like(pupil[pointed]), points)
        order = torch.cat([plain, pointed]).argsort() + len(senses)
        return torch.cat([seen[: len(senses)], torch.cat([seen, beside])[order]])

    def _pupil(
        self, said: Mapping[str, Tensor], whole: Float[Tensor, "views cells _"], steps: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "views cells _"], Bool[Tensor, "views"]]:
        """What the pupil has of the pictures' cells, and which views it has as points instead.

        It has all views of a clip by the same sense, and a block of all or of none is hidden: so it is asked for
        views from elsewhere, and for motions, as whoever has one camera is.
        """
        chance = _drawn(len(whole), 4, generator).to(whole.device)
        chance[:, 2:] = chance[::steps, 2:].repeat_interleave(steps, 0)
        hidden = _blocks(whole.shape[1], chance[:, :2]) & (chance[:, 2:3] < self.settings.hidden)
        as_points = float(torch.rand((), generator=generator)) < _POINTS
        kind, kept = torch.bucketize(chance[:, 3].contiguous(), torch.tensor(_SHARES, device=whole.device)), whole
        if len(said) == len(_SHOWN) - 1:
            has = {name: torch.tensor([name in shown for shown in _SHOWN], device=whole.device) for name in said}
            kept = sum((each * has[name][kind, None, None] for name, each in said.items()), torch.zeros_like(whole))
        return kept.masked_fill(hidden[..., None], 0.0), (kind == _DEPTH) & (as_points and kept is not whole)

    def _codes(self, senses: Senses, pupil: Tensor) -> dict[str, Tensor]:
        """What each sense says by itself, cell by cell, told from whatever the pupil had."""
        weigh, losses, spread = self.settings, {}, pupil.new_zeros(())
        for name, weight, sensed in (
            ("colours", weigh.colours, None if senses.video is None else quarters(senses.video, self.patch)),
            ("depth", weigh.depth, senses.depth),
        ):
            if sensed is not None:
                code = self.codes[name](sensed).float()
                code = code - parallel.mean(code.mean(0))
                losses[name] = weight * (self.read[name](pupil).float() - code.flatten(2)).square().mean()
                rows = code.flatten(0, -2)
                spread = spread + weight * (weigh.variance * variance_hinge(rows) + covariance(rows))
        return losses | {"codes": spread}

    def _lying(self, model: SpatialJEPA, senses: Senses, pupil: Tensor) -> Tensor:
        """How far off cells are about where they look and, where depth is known, how far what they show is."""
        true = bearings(senses.rays)
        off = (model.lying(pupil) - true).square()
        missed = off[..., :2].mean()
        if senses.depth is not None:
            far, known = senses.depth.unflatten(2, (-1, 2, model.config.patch**2)).transpose(2, 3).flatten(3).unbind(2)
            share = known.mean(-1)
            depth = far.sum(-1) / known.sum(-1).clamp_min(1)
            away = (model.lying(pupil)[..., 2] - true[..., 2] - depth).square()
            missed = missed + (share * away).mean()
        return missed

    def _elsewhere(
        self, model: SpatialJEPA, pose: Tensor, pupil: Tensor, whole: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Some steps, each from some of the others, and the motions from these to it."""
        weigh, (clips, steps) = self.settings, pose.shape[:2]
        if weigh.shuffled:
            pose = pose[torch.randperm(clips, generator=generator)]
        here = torch.randperm(steps, generator=generator)[: weigh.asked]
        held, asked = (each.unflatten(0, (clips, steps)) for each in (pupil, whole))
        few = here[: math.ceil(len(here) / 2)]  # a pair costs more than a view, and there are many
        return {
            "view": weigh.view * _viewed(model, pose, here, held, asked, generator),
            "motion": weigh.motion * _measured(model, pose, few, held, _SHORT).mean(),
        }


class Moved(Objective):
    """Once latents stand still: how the camera moved between them and, less often, the view from elsewhere.

    While latents change, and pupils lack whole senses, what is told of a short motion is that there was none. Here
    errors count and not their squares, which are mostly those of pairs that hardly show the same.
    """

    def __init__(self, settings: AcrossSettings | None = None, views: float = 0.25) -> None:
        super().__init__()
        self.settings, self.views = settings or AcrossSettings(), views

    def losses(self, model: WorldModel, clip: Clip, generator: torch.Generator) -> dict[str, Tensor]:
        """``motion`` and, in a share ``views`` of the steps, ``view``; of a clip with latents and poses."""
        assert isinstance(model, SpatialJEPA)
        assert clip.latents is not None
        assert clip.pose is not None
        weigh, pose, seen = self.settings, clip.pose, clip.latents
        if weigh.shuffled:
            pose = pose[torch.randperm(len(pose), generator=generator)]
        here = torch.randperm(clip.steps, generator=generator)[: weigh.asked]
        short, small = _SURE
        with torch.autocast(clip.times.device.type, torch.bfloat16, enabled=weigh.precision == "bf16"):
            missed = _measured(model, pose, here[: math.ceil(len(here) / 2)], seen, short)
            losses = {"motion": weigh.motion * (missed + small**2).sqrt().mean()}
            if float(torch.rand((), generator=generator)) < self.views:
                losses["view"] = weigh.view * _viewed(model, pose, here, seen, seen, generator)
        return losses


def _viewed(
    model: SpatialJEPA, pose: Tensor, here: Tensor, held: Tensor, asked: Tensor, generator: torch.Generator
) -> Tensor:
    """How far off the views of steps ``here`` are, each told from about half of the other steps, never none of them."""
    clips, steps = pose.shape[:2]
    itself = (torch.arange(steps) == here[:, None]).to(pose.device)
    chance = _drawn(clips * len(here), steps, generator).to(pose.device).unflatten(0, (clips, -1))
    chance = chance.masked_fill(itself, -1.0)
    without = chance < chance.amax(2, keepdim=True).clamp_max(0.5)
    poses = geometry.relative(pose[:, None], pose[:, here, None])
    guess = model.elsewhere(held, model.lying(held), poses, without).float()
    return (guess - asked[:, here]).square().mean()


def _measured(
    model: SpatialJEPA, pose: Tensor, there: Tensor, seen: Tensor, short: float
) -> Float[Tensor, "clips pairs"]:
    """How far off the motions are that lead from each step of clips to others, squared."""
    lying = model.lying(seen)
    read = model.apart(seen, seen[:, there], lying, lying[:, there]).float()
    true = told(geometry.relative(pose[:, None], pose[:, there, None]))
    others = torch.arange(pose.shape[1]) != there[:, None]
    return _missed(read[:, others], true[:, others], short)


def _missed(read: Float[Tensor, "*n 9"], true: Float[Tensor, "*n 9"], short: float) -> Float[Tensor, "*n"]:
    """How far off motions are, of how far they go: rotations and metres alike, so that short ones count as much.

    Those shorter than ``short`` count less.
    """
    off = torch.stack([part.square().sum(-1) for part in (read - true).split([6, 3], -1)], -1)
    far = torch.stack([part.norm(dim=-1) for part in true.split([6, 3], -1)], -1)
    return (off / (far + short).square()).sum(-1)


def _drawn(rows: int, numbers: int, generator: torch.Generator) -> Float[Tensor, "rows numbers"]:
    """Chances for this process's rows; all processes draw those of the whole batch, alike."""
    return torch.rand(rows * parallel.size(), numbers, generator=generator)[parallel.rank() * rows :][:rows]


def _points(clip: Clip, rows: Tensor, pixels: Int[Tensor, "points"] | None) -> Float[Tensor, "some points 3"]:
    """Those pixels of some views' depth."""
    assert clip.depth is not None
    assert pixels is not None
    depth = clip.depth.flatten(0, 1)[rows, -1, 0]
    camera = torch.full((len(depth), 4), depth.shape[-1] / 2, device=depth.device)
    if clip.intrinsics is not None:
        camera = clip.intrinsics.repeat_interleave(clip.steps, 0)[rows]
    return geometry.unproject(depth, camera).flatten(1, 2)[:, pixels.to(depth.device)]


def _blocks(cells: int, corner: Float[Tensor, "views 2"]) -> Bool[Tensor, "views cells"]:
    """A block of half the view's side each way, somewhere in it."""
    side = math.isqrt(cells)
    size = max(side // 2, 1)
    first = (corner * (side - size + 1)).long()[..., None]
    line = torch.arange(side, device=corner.device)
    down, right = ((line >= first) & (line < first + size)).unbind(1)
    return (down[:, :, None] & right[:, None]).flatten(1)
