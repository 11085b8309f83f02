"""How a slot JEPA learns: what moves is a thing; and of a film seen through a screen, where the film shows things."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from ami.models.slots import Followed, SlotJEPA
from ami.nn.slots import CELL
from ami.objectives.foresight import screened
from ami.objectives.moving import FAINT, PLAIN, moving
from ami.types import Clip, Objective, WorldModel


@dataclass(frozen=True)
class SlotSettings:
    """How films are seen and followed, and what counts."""

    screens: float = 0.85  # share of the films before which a screen is put
    faint: float = FAINT  # grey levels by which the ground may change
    plain: float = PLAIN  # and by which more a cell has to differ to be a thing for sure
    near: float = 0.3  # cells: distances below count by their square, above as they are
    lost: float = 6.0  # cells: who is farther off than that is somebody else
    settled: int = 2  # looks after which a thing can be expected
    precision: Literal["fp32", "bf16"] = "fp32"


class Noticing(Objective):
    """Which cells are things, and which are covered, of each picture by itself: what a film tells is the label.

    Things are what is not there at other times: cells that differ from their own median over the film, where most of
    them do not. So a single picture is asked for what only a film can show, and what stood still for once is a thing as
    well. Source: Pathak et al. 2017, "Learning features by watching objects move". What covers is a screen that is put
    before the film, or everything, where a picture shows nothing.
    """

    least_deviation = 0.0

    def __init__(self, settings: SlotSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or SlotSettings()

    def losses(self, model: WorldModel, clip: Clip, generator: torch.Generator) -> dict[str, Tensor]:
        """``things`` and ``covers``."""
        assert isinstance(model, SlotJEPA)
        video = _video(clip)
        things, known, nothing = moving(video[:, :, 0], CELL, self.settings.faint, self.settings.plain)
        hidden, screens = screened(video.cpu(), self.settings.screens, generator)
        with torch.autocast(video.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            told, _ = model.stem(hidden.to(video).flatten(0, 2))
        thing, cover = told.unflatten(0, video.shape[:2]).unbind(2)
        covered = functional.avg_pool2d(screens.to(video.device).float(), CELL)
        covered = torch.maximum(covered, nothing[..., None, None].float())
        open_ = (covered < 0.01) * known[..., None, None]
        missed = functional.binary_cross_entropy_with_logits(thing, things, reduction="none")
        return {
            "things": (missed * open_).sum() / (known.sum() * things[0, 0].numel()).clamp_min(1),
            "covers": functional.binary_cross_entropy_with_logits(cover, covered),
        }


class Following(Objective):
    """Where each thing is expected when it is seen through a screen: where it is in the film without one.

    V-JEPA's question, what the masked part of a film is in the space of what is perceived, asked of places: the whole
    film is followed by the same model without gradients (its teacher), the masked one with them (its student), and what
    the student's slots expect at every step, also where nothing shows, shall be where the teacher then finds it.
    """

    least_deviation = 0.0

    def __init__(self, settings: SlotSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or SlotSettings()

    def losses(self, model: WorldModel, clip: Clip, generator: torch.Generator) -> dict[str, Tensor]:
        """``place``: the distance from where each was expected, in cells."""
        assert isinstance(model, SlotJEPA)
        weigh, video = self.settings, _video(clip)
        hidden, _ = screened(video.cpu(), weigh.screens, generator)
        with torch.autocast(video.device.type, torch.bfloat16, enabled=weigh.precision == "bf16"):
            with torch.no_grad():
                whole = model.encode(clip)
            seen = model.encode(Clip(clip.embodiment, clip.times, hidden.to(video)))
        with torch.no_grad():
            truth = model.follow(whole, clip.actions, clip.embodiment)
        found = model.follow(seen, clip.actions, clip.embodiment)
        target, counts = _theirs(found, truth)
        far = (found.place - target).square().sum(-1)
        counts = counts * (found.looks >= weigh.settled) * (far.detach() < weigh.lost**2)
        distance = ((far + weigh.near**2).sqrt() - weigh.near) * counts
        return {"place": distance.sum() / counts.sum().clamp_min(1)}


@torch.no_grad()
def _theirs(
    found: Followed, truth: Followed
) -> tuple[Float[Tensor, "batch time slot 2"], Float[Tensor, "batch time slot"]]:
    """For each slot of one the place of the slot of the other that is the same thing, and whether there is one.

    It is the one that was nearest when both were seen in the first looks after the slot was filled, and stays so.
    """
    same = found.place.new_zeros(*found.there[:, 0].shape, truth.there.shape[2])
    targets, counts = [], []
    for step in range(found.place.shape[1]):
        same = same * found.old[:, step, :, None] * truth.old[:, step, None]
        apart = (found.looked[:, step, :, None] - truth.looked[:, step, None]).norm(dim=-1)
        apart = apart + 99 * (1 - truth.told[:, step, None])
        near, which = apart.min(2)
        sure = (near < 1.5) & (found.told[:, step] > 0) & (found.looks[:, step] < 4)
        same = torch.where(sure[..., None], functional.one_hot(which, same.shape[2]).to(same), same)
        targets.append(same @ truth.looked[:, step])
        counts.append((same * truth.told[:, step, None]).sum(2) * found.there[:, step])
    return torch.stack(targets, 1), torch.stack(counts, 1)


def _video(clip: Clip) -> UInt8[Tensor, "batch time 1 3 height width"]:
    if clip.video is None:
        raise ValueError("things are found in pictures, and the clip has none; give clips with video")
    return clip.video
