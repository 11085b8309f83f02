"""Walk, remember, and see again what was seen before, from elsewhere: how a JEPA of places learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from ami import parallel
from ami.models.places import PlacesJEPA
from ami.nn.places import COLUMN, bearings, between, outlook
from ami.objectives.regularizers import covariance
from ami.types import Clip, Objective, WorldModel

_NEAREST = 0.05  # metres
_BANDS = 4  # parts of a column, one above the other, each of a colour
_LENGTH = 10.0  # one over metres or radians: by this an expected error makes the weight of its step


@dataclass(frozen=True)
class RevisitSettings:
    """How walks are revisited, and the weight of each loss."""

    views: int = 24  # of later steps of a walk, asked for from the memory of the earlier ones
    least: float = 0.5  # share of a walk that is remembered, at least
    view: float = 1.0  # error of what was expected to be seen
    bold: float = 8.0  # a token counts by its squared length, but no more than this
    way: float = 1.0  # error of the expected depth, in logarithms
    which: float = 0.1  # of which of the columns each expected column was
    sharp: float = 0.2  # temperature of that
    doubt: float = 0.05  # error of the expected error, in logarithms; it teaches nothing else
    depth: float = 1.0  # error of the depth perceived, in logarithms
    colour: float = 0.3  # error of the colours perceived; a quarter of the range of a channel is 1
    stride: float = 0.1  # likelihood of the steps made, weighed by their expected error
    covariance: float = 0.4
    precision: Literal["fp32", "bf16"] = "fp32"  # of the encoder


class Revisits(Objective):
    """What would be seen at a later step of a walk, from the memory of the earlier ones and the pose it was seen at.

    The recorded pose says where things were seen, and depth, where it was recorded, how far away they were: this
    teaches where to keep what is seen. The model alone estimates both. Gradients pass to the target too; a batch norm
    and the covariance between its numbers keep it from saying nothing, or the same thing in all of them. Of what it
    might say, though, a target that follows what is foretold drops what is foretold badly at first: which of the three
    channels of colour were lost, and for good, was chance. So a token must tell the colours of its column. Only what
    was seen before can be told, so a column counts by how much is known of the place that it shows.

    It pays for retention and for nothing else: there is no loss on the next step. Sources: Eslami et al. 2018,
    "Neural scene representation and rendering" (views by pose); van den Oord et al. 2018 (which of them it was);
    Seitzer et al. 2022, "On the pitfalls of heteroscedastic uncertainty estimation", equation 7 (steps, with beta 0.5).
    """

    def __init__(self, dim: int, settings: RevisitSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or RevisitSettings()
        self.colours = nn.Linear(dim, 3 * _BANDS)

    def losses(self, model: WorldModel, clip: Clip, generator: torch.Generator) -> dict[str, Tensor]:
        """``depth``, ``colour``, ``stride``, ``view``, ``way``, ``doubt``, ``which`` and ``covariance``."""
        assert isinstance(model, PlacesJEPA)
        if clip.video is None or clip.depth is None or clip.pose is None or clip.actions is None:
            raise ValueError(
                "places are learned from walks with video, actions, depth and pose; the clip lacks some of them"
            )
        weigh, steps = self.settings, clip.steps
        with torch.autocast(clip.times.device.type, torch.bfloat16, enabled=weigh.precision == "bf16"):
            tokens = model.encode(clip).values
        pose, true = planar(clip.pose), columns(clip.depth)
        walked = between(pose[:, :1].expand_as(pose), pose)
        far = model.far(tokens)
        step, doubt = model.stride(clip.embodiment, tokens[:, :-1].detach().flatten(0, 1), clip.actions.flatten(0, 1))
        missed = (step - between(pose[:, :-1], pose[:, 1:]).flatten(0, 1)).square()
        apart = _LENGTH * torch.exp(doubt.detach() / 2)  # or what surprises, a wall in the way, is hardly learned
        losses = {
            "depth": weigh.depth * _apart(far, true).mean(),
            "colour": weigh.colour * functional.smooth_l1_loss(self.colours(tokens), shades(clip.video), beta=0.2),
            "stride": weigh.stride * (apart * (missed * torch.exp(-doubt) + doubt)).mean(),
            "covariance": weigh.covariance * covariance(tokens.flatten(0, 2)),
        }
        until = int(steps * (weigh.least + (1 - weigh.least) * 0.9 * float(torch.rand((), generator=generator))))
        drawn = torch.rand(len(clip) * parallel.size(), weigh.views, generator=generator)
        drawn = drawn[parallel.rank() * len(clip) :][: len(clip)].to(tokens)
        asked = until + (drawn * (steps - until)).long()
        row = torch.arange(len(clip), device=tokens.device)[:, None]
        points = model.writer(tokens[:, :until], far[:, :until].detach().exp(), walked[:, :until], model.config.half)
        places = model.memory.write(model.memory.empty(len(clip), tokens), *points)
        told = model.viewer(model.memory, places, walked[row, asked], model.columns, model.config.half)
        return losses | self._views(
            model, told, places.detach(), walked[row, asked], tokens[row, asked], true[row, asked]
        )

    def _views(
        self, model: PlacesJEPA, told: tuple[Tensor, ...], places: Tensor, pose: Tensor, seen: Tensor, true: Tensor
    ) -> dict[str, Tensor]:
        """How well views are told, by what could be known of them."""
        weigh, (tokens, doubt, way) = self.settings, told
        surface = outlook(pose, true[..., None] - model.writer.short, model.config.half)
        toward = bearings(pose, true.shape[-1], model.config.half)
        counts = model.memory.read(places, surface.flatten(1, 3), toward.flatten(1))[..., -1].view_as(true)
        bold = counts * seen.detach().square().mean(-1).clamp(max=weigh.bold)
        error = (tokens - seen).square().mean(-1)
        every = max(1, tokens[..., 0].numel() // 1024)
        one, other = (functional.normalize(each.flatten(0, 2)[::every], dim=-1) for each in (tokens, seen))
        which = functional.cross_entropy(one @ other.T / weigh.sharp, torch.arange(len(one), device=one.device))
        return {
            "view": weigh.view * (error * bold).mean() / bold.mean().clamp_min(1e-3),
            "way": weigh.way
            * (_apart(way.clamp_min(_NEAREST).log(), true) * bold).mean()
            / bold.mean().clamp_min(1e-3),
            "doubt": weigh.doubt * (doubt - (error.detach() + 1e-3).log()).square().mean(),
            "which": weigh.which * which,
        }


def planar(pose: Float[Tensor, "batch time 4 4"]) -> Float[Tensor, "batch time 3"]:
    """x, y and heading of cameras that look level, in a world whose z is up."""
    ahead = pose[..., :3, 2]
    return torch.stack([pose[..., 0, 3], pose[..., 1, 3], torch.atan2(ahead[..., 1], ahead[..., 0])], -1)


def columns(depth: Float[Tensor, "batch time frames 1 height width"]) -> Float[Tensor, "batch time column"]:
    """How far what each column shows at the height of the eye is, metres."""
    middle = depth.shape[-2] // 2
    level = depth[:, :, -1, 0, middle - 2 : middle + 2].unflatten(-1, (-1, COLUMN))
    return level.transpose(2, 3).flatten(3).median(-1).values


def shades(video: UInt8[Tensor, "batch time frames 3 height width"]) -> Float[Tensor, "batch time column number"]:
    """The mean colours of some parts of each column, one above the other: their channels, -2 to 2."""
    height = video.shape[-2] // _BANDS
    parts = functional.avg_pool2d(video[:, :, -1].flatten(0, 1).float(), (height, COLUMN))
    return (parts / 64 - 2).permute(0, 3, 1, 2).flatten(2).unflatten(0, video.shape[:2])


def _apart(far: Tensor, true: Tensor) -> Tensor:
    """Of two depths, the first in logarithms; it is nearly their relative error."""
    return functional.smooth_l1_loss(far, true.clamp_min(_NEAREST).log(), beta=0.1, reduction="none")
