"""Where things are: a few points found in the pictures of a film, and what keeps them worth predicting.

A film's tokens tell texture before they tell anything else, and what a still background shows is known already; taking
each film's temporal mean away removes it only while the camera stands. A *point* has no such trouble: it is a place in
the picture, the centre of mass of one learned map, and can say nothing but where something is. Points that move, that
go straight on, and that do not move together are movers, whatever the camera does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from ami import parallel
from ami.models.vjepa import VJEPAConfig
from ami.nn.points import PIECE, Found
from ami.objectives.masks import Mask
from ami.objectives.moving import moving

_FAR = 0.1  # half pictures: a point that stays nearer than this to its mean place is hardly worth reading
_LEAST = 0.02  # half pictures: who moves less is measured as if it moved so much


def spread(points: Float[Tensor, "batch slots points 2"]) -> Float[Tensor, "batch points"]:
    """The variance of each point within its film, mean of both axes."""
    return (points - points.mean(1, keepdim=True)).square().mean((1, 3))


def in_spreads(points: Float[Tensor, "batch slots points 2"]) -> Float[Tensor, "batch 1 points 1"]:
    """What to divide distances by, so that a fast mover counts no more than a slow one."""
    return (spread(points) + _LEAST**2).sqrt()[:, None, :, None]


def crookedness(points: Float[Tensor, "batch slots points 2"]) -> Float[Tensor, ""]:
    """How far each point is from halfway between where it was and where it will be, in its own spreads, squared.

    Zero for whoever goes straight on at an even pace. Source: the straightening of Goroshin et al. 2015, equation 4.
    """
    bend = points[:, 1:-1] - (points[:, :-2] + points[:, 2:]) / 2
    return (bend / in_spreads(points)).square().mean()


def stillness(points: Float[Tensor, "batch slots points 2"], at_least: float = 0.25) -> Float[Tensor, ""]:
    """How much the deviation of each point within its film falls short of ``at_least`` half pictures, as a share.

    Source: the variance hinge of VICReg (Bardes et al. 2022, equation 1), over time.
    """
    return functional.relu(1 - (spread(points) + 1e-6).sqrt() / at_least).mean()


def togetherness(points: Float[Tensor, "batch slots points 2"]) -> Float[Tensor, ""]:
    """The squared correlations of the ways that different points go: small when each follows something else.

    Over the films of all ranks. Source: the covariance term of VICReg (equation 3).
    """
    way = (points - points.mean(1, keepdim=True)) / in_spreads(points)
    rows = way.transpose(2, 3).flatten(0, 2)
    matrix = parallel.mean(rows.T @ rows / len(rows))
    return (matrix.square().sum() - matrix.diagonal().square().sum()) / points.shape[2]


def unnoticed(
    moves: Float[Tensor, "batch slots finders rows columns"],
    video: UInt8[Tensor, "batch slots tubelet 3 height width"],
) -> Float[Tensor, ""]:
    """How badly each slot by itself tells which of its pieces move, as only the whole film shows; over all ranks."""
    tubelet = video.shape[2]
    things, known, _ = moving(video.flatten(1, 2), PIECE)
    wanted = things.unflatten(1, (-1, tubelet)).mean(2)[:, :, None].expand_as(moves)
    counts = known.unflatten(1, (-1, tubelet)).all(2).float()
    missed = functional.binary_cross_entropy_with_logits(moves.float(), wanted, reduction="none").mean((2, 3, 4))
    return (missed * counts).sum() / parallel.mean(counts.sum()).clamp_min(1 / parallel.size())


@dataclass(frozen=True)
class PointSettings:
    """The weight of each loss."""

    crooked: float = 1.0
    still: float = 1.2  # much more makes points jitter in order to move; much less lets them rest
    fades: int = 0  # steps in which the weight of ``still`` falls to a tenth, for it finds movers; 0: it stays
    together: float = 1.0
    moves: float = 4.0  # how surely each piece is of something that moves, where a film tells
    found: float = 0.35  # share of ``fades`` after which it counts: who is told too soon looks for no second mover
    read: float = 1.0  # error of the points read from what was seen and from what was filled in
    films: tuple[str, ...] = ()  # embodiments whose films teach what to find; (): all. Points jitter where little moves


class Pointing(nn.Module):
    """Teaches a model's points, and asks its tokens for them: of the slots it sees, and of those it fills in.

    What is found, and how it goes on, is a target like a teacher's: no gradient of the reading passes into it. One
    linear map reads both kinds of slots, so what the predictor fills in must speak the encoder's language.
    """

    def __init__(self, config: VJEPAConfig, settings: PointSettings) -> None:
        super().__init__()
        if not config.points:
            raise ValueError("this model finds no points that could be taught; give its settings points")
        self.settings, self.tokens, self.finders = settings, (config.picture // config.patch) ** 2, config.finders
        self.read = nn.Linear(self.tokens * config.width, 4 * config.finders * config.points)

    def teaches(self, embodiment: str) -> bool:
        """Whether such films teach what to find."""
        return not self.settings.films or embodiment in self.settings.films

    def losses(
        self, found: Found, video: UInt8[Tensor, "batch slots tubelet 3 height width"], step: int = 0
    ) -> dict[str, Tensor]:
        """What keeps points worth predicting, at this step of the training; and what moves, as the whole film tells.

        Movers are found by points that are free to be anywhere. Told beforehand what moves, they would look for no
        second mover.
        """
        weigh, free = self.settings, found.free
        done = min(step / weigh.fades, 1.0) if weigh.fades else 0.0
        told = min(max(done - weigh.found, 0.0) * 10, 1.0) if weigh.fades else 1.0
        finders = free.chunk(self.finders, 2)
        return {
            "crooked": weigh.crooked * crookedness(free),
            "still": weigh.still * (1 - 0.9 * done) * stillness(free),
            "together": weigh.together * torch.stack([togetherness(one) for one in finders]).mean(),
            "moves": weigh.moves * told * unnoticed(found.moves, video),
        }

    def error(
        self,
        found: Float[Tensor, "batch slots points 2"],
        mask: Mask,
        context: Float[Tensor, "batch kept width"],
        guess: Float[Tensor, "batch masked width"],
    ) -> Float[Tensor, ""]:
        """The squared error of what is read, over each point's variance in all films, mean of seen and hidden slots.

        For masks that hide whole slots: tokens come slot by slot.
        """
        target = torch.cat([found, torch.gradient(found, dim=1)[0]], 2).detach()  # places, and ways of a slot
        least = torch.tensor([_FAR, _FAR / 5], device=found.device).repeat_interleave(found.shape[2])[:, None]
        mean, rows = parallel.mean(target.mean((0, 1))), parallel.size() * target[..., 0, 0].numel()
        scale = parallel.mean((target - mean).square().mean((0, 1))) * (rows / (rows - 1)) + least.square()
        errors = []
        for tokens, number in ((context, mask.visible), (guess, mask.hidden)):
            slot = number[:, :: self.tokens] // self.tokens
            # Adam moves every weight alike, and there are many: unscaled, what is read would leap at each step.
            read = self.read(tokens.unflatten(1, (-1, self.tokens)).flatten(2) / self.tokens).float()
            wanted = target[torch.arange(len(found), device=found.device)[:, None], slot]
            errors.append(((read.view_as(wanted) - wanted).square() / scale).mean())
        return self.settings.read * torch.stack(errors).mean()
