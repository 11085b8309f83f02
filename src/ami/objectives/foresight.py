"""Live through a film, look now and then, and expect what comes: how a recurrent JEPA learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional

from ami import parallel
from ami.models.recurrent import RecurrentJEPA
from ami.nn.grid import CELL
from ami.objectives.regularizers import covariance, variance_hinge
from ami.types import Clip, Latent, Objective, WorldModel


@dataclass(frozen=True)
class ForesightSettings:
    """How films are lived through, and the weight of each loss."""

    unseen: float = 0.4  # share of the moments of looking that are followed by some of not looking
    longest: int = 8  # steps without a look
    looks: int = 5  # steps of looking in between, at most
    doubt: float = 0.05  # error of the expected error, in logarithms; it teaches nothing else
    variance: float = 3.0  # hinge of what changes within a film
    spread: float = 0.7  # deviation that it asks for; a token's own is 1
    covariance: float = 0.2  # of what changes
    screens: float = 0.85  # share of the films before which a screen is put
    behind: float = 0.5  # error of what was expected behind it
    stands: float = 0.3  # error of where a screen was said to stand
    floor: float = 0.2  # weight there of a cell in which nothing happens; their mean is 1
    precision: Literal["fp32", "bf16"] = "fp32"


class Foresight(Objective):
    """Mean squared error of what was expected, steps ahead where nothing was shown, at every moment of a film.

    The target is the same encoder's, and gradients pass: what keeps it from saying nothing is asked of the *changes*
    of a cell between two moments of a film, which must vary and not all in one way (VICReg's two terms). What stays is
    easily foretold and would otherwise be all that a code says; movers fill one cell in twenty.

    Before most films a screen is put, an upright rectangle of one colour, and the model is asked for the film as it is
    shown and, in its second layer, for the film as it is: V-JEPA's question, what the masked part of a film is in the
    space of what is perceived, asked at every step of a memory. So it pays to go on with what went out of sight. Most
    of what is behind a screen is a background that nobody can know, so there cells count by how much happens in them;
    and where the screen stands is known, so that is asked too: without it the gain never learned to be low.
    """

    least_deviation = 0.05

    def __init__(self, settings: ForesightSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or ForesightSettings()

    def losses(self, model: WorldModel, clip: Clip, generator: torch.Generator) -> dict[str, Tensor]:
        """``prediction``, ``behind``, ``stands``, ``doubt``, ``variance`` and ``covariance``."""
        assert isinstance(model, RecurrentJEPA)
        weigh = self.settings
        shown = _looks(len(clip) * parallel.size(), clip.steps, weigh, generator)
        shown = shown[parallel.rank() * len(clip) :][: len(clip)].to(clip.times.device)
        other = torch.randperm(clip.steps, generator=generator)
        if clip.video is None:
            raise ValueError("screens are put before pictures, and the clip has none; give clips with video")
        # Drawn film by film, in many small strokes: not on a GPU.
        hidden, covered = (each.to(clip.times.device) for each in screened(clip.video.cpu(), weigh.screens, generator))
        both = Clip(clip.embodiment, clip.times.repeat(2, 1), torch.cat([hidden, clip.video]))
        with torch.autocast(clip.times.device.type, torch.bfloat16, enabled=weigh.precision == "bf16"):
            perceived = model.encode(both).values
            seen, whole = Latent(perceived[: len(clip)], clip.times), perceived[len(clip) :].detach()
            expected, doubt, gain, _ = model.live(seen, clip.actions, clip.embodiment, shown)
        front, behind = expected.float().split(model.config.dim, -1)
        open_ = 1 - functional.avg_pool2d(covered.float(), CELL).flatten(2)[:, 1:]
        error = (front - seen.values[:, 1:]).square().mean(-1)
        changes = (seen.values - seen.values[:, other]).flatten(0, 2)
        return {
            "prediction": error.mean(),
            "behind": weigh.behind * ((behind - whole[:, 1:]).square().mean(-1) * happening(whole, weigh.floor)).mean(),
            "stands": weigh.stands * functional.binary_cross_entropy_with_logits(gain[..., 1], open_),
            "doubt": weigh.doubt * (doubt - (error.detach() + 1e-4).log()).square().mean(),
            "variance": weigh.variance * variance_hinge(changes, weigh.spread),
            "covariance": weigh.covariance * covariance(changes),
        }


@torch.no_grad()
def happening(
    tokens: Float[Tensor, "batch time tokens dim"], floor: float, beyond: float = 1.5
) -> Float[Tensor, "batch time-1 tokens"]:
    """How much each cell counts: by how far its token is from its mean over the film, the mean being 1.

    What most cells of a step do (``beyond`` times their median) does not count: a camera that moves, or blinks.
    """
    apart = (tokens - tokens.mean(1, keepdim=True)).square().mean(-1)[:, 1:]
    apart = (apart - beyond * apart.median(2, keepdim=True).values).clamp_min(0)
    return floor + (1 - floor) * apart / apart.mean((1, 2), keepdim=True).clamp_min(1e-3)


def _looks(
    rows: int, steps: int, settings: ForesightSettings, generator: torch.Generator
) -> Bool[Tensor, "rows steps"]:
    """Which steps are looked at: runs of looking, and after some of them runs of not looking. The first always is."""
    drawn = torch.rand(rows, steps, 3, generator=generator)
    shown = torch.ones(rows, steps, dtype=torch.bool)
    for row, chances in zip(shown, drawn.tolist(), strict=True):
        step = 0
        for look, whether, away in chances:
            step += 1 + int(look * settings.looks)
            if whether < settings.unseen:
                gone = 1 + int(away * settings.longest)
                row[step : step + gone] = False
                step += gone
            if step >= steps:
                break
    return shown


def screened(
    video: UInt8[Tensor, "batch time frames 3 height width"], share: float, generator: torch.Generator
) -> tuple[UInt8[Tensor, "batch time frames 3 height width"], Bool[Tensor, "batch time height width"]]:
    """The same films, before ``share`` of which a screen is put, in the way of something that moves; and where it is.

    It is hardly coloured and stands still or moves slowly all along. Where: a step and a place at which much changes.
    """
    rows, steps = video.shape[:2]
    size = min(video.shape[-2:])
    chance = torch.rand(rows * parallel.size(), 12, generator=generator)[parallel.rank() * rows :][:rows].tolist()
    video, covered = video.clone(), torch.zeros_like(video[:, :, 0, 0], dtype=torch.bool)
    for film, cover, (put, moves, when, where, *shape, light, tint) in zip(video, covered, chance, strict=True):
        if put >= share or steps < 2:
            continue
        step = 1 + int(when * (steps - 1))
        x, y = _moving(film[step - 1 : step + 1, 0], where)
        wide, tall, right, down, aside, below = shape
        colour = 255 * (0.25 + 0.6 * light) * (1 - 0.3 * torch.tensor([tint, 1 - tint, abs(1 - 2 * tint)]))
        for now in range(steps):
            gone = (now - step) * (moves < 0.5) / 32  # of the view's side
            box = (
                (x + gone * (right - 0.5) + 0.1 * (aside - 0.5), 0.08 + 0.16 * wide),
                (y + gone * (down - 0.5) + 0.1 * (below - 0.5), 0.08 + 0.16 * tall),
            )
            (left, end), (top, bottom) = (
                (max(round(size * (middle - half)), 0), max(round(size * (middle + half)), 0)) for middle, half in box
            )
            film[now, :, :, top:bottom, left:end] = colour.to(film)[:, None, None]
            cover[now, top:bottom, left:end] = True
    return video, covered


def _moving(pair: UInt8[Tensor, "2 3 height width"], chance: float) -> tuple[float, float]:
    """A place (x, y, shares of the view) at which two pictures differ, the likelier the more they do."""
    change = (pair[1].float() - pair[0].float()).abs().sum(0)
    cells = functional.adaptive_avg_pool2d(change[None], 8)[0].flatten()
    odds = (cells - cells.median()).clamp_min(0).square() + 1e-3
    place = int((odds.cumsum(0) < chance * odds.sum()).sum())
    return (place % 8 + 0.5) / 8, (place // 8 + 0.5) / 8
