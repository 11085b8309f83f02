"""A transformer over the tokens of a film, which never computes the tokens that are hidden from it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ami.nn.points import Found, Points
from ami.nn.rotary import Turns, grid, turns
from ami.nn.tokenizers import PATCH, PatchStem, patches
from ami.nn.transformer import attend


class Tubelets(nn.Module):
    """Blocks of pixels (a few frames of one square patch) to tokens, by one product.

    With ``pictures``, a step of a single frame has an embedding of its own (V-JEPA 2.1), so one model sees both.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, width: int, patch: int, frames: int, mean: tuple[float, ...], std: tuple[float, ...], pictures: bool
    ) -> None:
        super().__init__()
        self.patch, self.frames = patch, frames
        self.register_buffer("mean", 255 * torch.tensor(mean).view(3, 1, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(3, 1, 1, 1), persistent=False)
        self.project = nn.Linear(3 * frames * patch**2, width)
        self.picture = nn.Linear(3 * patch**2, width) if pictures else None

    def forward(self, video: UInt8[Tensor, "steps frames 3 height width"]) -> Float[Tensor, "steps tokens width"]:
        """Pixels 0 to 255; ``ValueError`` where a step has another number of frames than the model was built for."""
        steps, frames, _, height, width = video.shape
        project = self.picture if frames == 1 and self.picture is not None else self.project
        if frames not in (self.frames, 1) or (frames == 1 < self.frames and self.picture is None):
            raise ValueError(f"the clip has {frames} frames a step; this model was built for {self.frames}")
        tall, wide = height // self.patch, width // self.patch
        cut = video.view(steps, frames, 3, tall, self.patch, wide, self.patch).permute(0, 3, 5, 2, 1, 4, 6)
        pixels = (cut.to(project.weight.dtype) - self.mean) / self.std
        return project(pixels.reshape(steps, tall * wide, -1))


class Own(nn.Module):
    """What each frame of a patch shows of itself, in a few numbers: a random projection, the same for every patch.

    Nobody teaches it, so it cannot collapse, and it keeps what codes that are taught to say where things are forget.
    Source: Chiu et al. 2022, "Self-supervised learning with random-projection quantizer for speech recognition",
    section 3.1, and Burda et al. 2019, "Exploration by random network distillation", section 2.2 (an error of
    predicting a fixed random code as surprise).
    """

    project: Tensor

    def __init__(self, numbers: int) -> None:
        super().__init__()
        pixels = 3 * PATCH**2
        self.register_buffer("project", torch.randn(pixels, numbers) / pixels**0.5)

    def forward(self, video: UInt8[Tensor, "batch steps frames 3 height width"]) -> Float[Tensor, "batch tokens own"]:
        """Tokens slot by slot; of each, the numbers of its first frame, then of the next."""
        batch, steps, frames = video.shape[:3]
        pieces = patches(video.flatten(0, 1)).unflatten(1, (frames, -1)).unflatten(0, (-1, 16))  # of 4 x 4 px
        shown = pieces.transpose(1, 2).flatten(2).to(self.project.dtype).sub_(127.5).mul_(1 / 64)
        return (shown @ self.project).flatten(1).view(batch, steps * (len(shown) // (batch * steps)), -1)


class RotaryBlock(nn.Module):
    """Pre-norm self-attention with turned queries and keys, and a two-layer network, each added to its input."""

    def __init__(self, width: int, heads: int, widen: float = 4.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width, eps=eps)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.before_network = nn.LayerNorm(width, eps=eps)
        self.widen = nn.Linear(width, int(width * widen))
        self.narrow = nn.Linear(int(width * widen), width)

    def forward(
        self, tokens: Float[Tensor, "batch tokens width"], places: Turns, hears: Bool[Tensor, "..."] | None = None
    ) -> Float[Tensor, "batch tokens width"]:
        """Every token hears those that ``hears`` (from token, to token) allows, or all of its row."""
        split = self.query_key_value(self.before_attention(tokens)).unflatten(-1, (3, self.heads, -1))
        query, key = places.apply(split[:, :, :2]).transpose(1, 3).unbind(2)
        heard = attend(query, key, split[:, :, 2].transpose(1, 2), hears)
        tokens = tokens + self.attended(heard.transpose(1, 2).flatten(2))
        return tokens + self.narrow(functional.gelu(self.widen(self.before_network(tokens))))


def _anew(block: nn.Module, *inputs: Any) -> Tensor:
    """What a block says. Of what lies inside nothing is kept for the way back: there it is computed once more.

    Source: Chen et al. 2016, "Training deep nets with sublinear memory cost", section 3.
    """
    if not torch.is_grad_enabled():
        return block(*inputs)
    return cast(Tensor, checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False))


class VideoEncoder(nn.Module):
    """Tokens of a film's steps, each in the light of the others (of those before it, when ``causal``)."""

    def __init__(
        self,
        stem: Tubelets | PatchStem,
        points: Points | None = None,
        *,
        side: int,
        width: int,
        depth: int,
        heads: int,
        widen: float = 4.0,
        causal: bool = True,
        tiled: bool = False,
        affine: bool = False,
        anew: bool = False,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.stem, self.side, self.causal, self.tiled, self.head = stem, side, causal, tiled, width // heads
        self.anew = anew
        self.points, self.told = points, nn.Linear(2 * points.count, width) if points else None
        self.blocks = nn.ModuleList(RotaryBlock(width, heads, widen, eps) for _ in range(depth))
        # Without scale and shift what comes out is what V-JEPA's target is: layer-normed.
        self.norm = nn.LayerNorm(width, eps=eps, elementwise_affine=affine)

    def forward(
        self,
        video: UInt8[Tensor, "batch steps frames 3 height width"],
        visible: Int[Tensor, "batch kept"] | None = None,
        levels: Collection[int] = (),
        found: Float[Tensor, "batch steps points 2"] | None = None,
    ) -> list[Float[Tensor, "batch kept width"]]:
        """The normed tokens after each block that ``levels`` numbers (0 is the first), and after the last.

        ``visible`` numbers the tokens that may be seen, ascending in each row; no other takes part in any product after
        the stem. ``None`` sees all. ``found`` are the points, where somebody has found them already.
        """
        steps = video.shape[1]
        tokens = self.stem(video.flatten(0, 1))
        if self.told is not None:
            found = self.find(video).places if found is None else found
            tokens = tokens + self.told(found.flatten(0, 1).flatten(1))[:, None]
        tokens = tokens.unflatten(0, video.shape[:2]).flatten(1, 2)
        places = grid(steps, self.side, self.side, tokens.device)
        where, slot = turns(places, self.head, tiled=self.tiled), places[:, 0]
        if visible is not None:
            tokens = tokens.gather(1, visible[..., None].expand(-1, -1, tokens.shape[-1]))
            where, slot = where[visible], slot[visible]
        hears = (slot[..., :, None] >= slot[..., None, :]) if self.causal else None
        if hears is not None and hears.ndim == 3:
            hears = hears[:, None]
        passed = []
        for number, block in enumerate(self.blocks):
            tokens = _anew(block, tokens, where, hears) if self.anew else block(tokens, where, hears)
            if number in levels and number < len(self.blocks) - 1:
                passed.append(self.norm(tokens))
        return [*passed, self.norm(tokens)]

    def find(self, video: UInt8[Tensor, "batch steps frames 3 height width"]) -> Found:
        """Where the points are that every token of a step is told, and what else tells them."""
        assert self.points is not None
        return self.points(video.flatten(0, 1)).along(len(video))


class MaskedPredictor(nn.Module):
    """What hidden tokens would be, from the visible ones and the places of both. Source: V-JEPA, section 3.1.

    The last ``own`` numbers of a token, which :class:`Own` gives for each of its frames, are guessed as what they were
    at the nearest visible moment of the same place, and a change.
    """

    def __init__(
        self,
        *,
        side: int,
        tokens_width: int,
        width: int,
        depth: int,
        heads: int,
        widen: float = 4.0,
        kinds: int = 2,
        own: int = 0,
        frames: int = 1,
        tiled: bool = False,
        anew: bool = False,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.side, self.tiled, self.anew, self.head = side, tiled, anew, width // heads
        self.own, self.frames = own, frames
        self.enter = nn.Linear(tokens_width, width)
        self.hidden = nn.Parameter(torch.zeros(kinds, width))  # one for each kind of mask
        self.blocks = nn.ModuleList(RotaryBlock(width, heads, widen, eps) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=eps)
        self.leave = nn.Linear(width, tokens_width)
        if own:  # in the beginning all stays as it was
            nn.init.zeros_(self.leave.weight[-own:])
            nn.init.zeros_(self.leave.bias[-own:])

    def forward(
        self,
        context: Float[Tensor, "batch kept width"],
        visible: Int[Tensor, "batch kept"],
        hidden: Int[Tensor, "batch masked"],
        *,
        slots: int,
        kind: int = 0,
    ) -> Float[Tensor, "batch masked width"]:
        """``visible`` and ``hidden`` number the tokens of a clip of so many ``slots``."""
        number = torch.cat([visible, hidden], 1)
        where = turns(grid(slots, self.side, self.side, number.device), self.head, tiled=self.tiled)[number]
        asked = self.hidden[kind % len(self.hidden)].expand(*hidden.shape, -1)
        known = self.enter(context)
        tokens = torch.cat([known, asked.to(known.dtype)], 1)
        for block in self.blocks:
            tokens = _anew(block, tokens, where) if self.anew else block(tokens, where)
        guess = self.leave(self.norm(tokens[:, visible.shape[1] :]))
        if not self.own:
            return guess
        held = _held(context[..., -self.own :].unflatten(-1, (self.frames, -1)), visible, hidden, self.side**2)
        return torch.cat([guess[..., : -self.own], guess[..., -self.own :] + held.to(guess.dtype)], -1)


def _held(
    own: Float[Tensor, "batch kept frames numbers"],
    visible: Int[Tensor, "batch kept"],
    hidden: Int[Tensor, "batch masked"],
    tokens: int,
) -> Float[Tensor, "batch masked own"]:
    """What was seen last at the place of a hidden token, or what will be first where that is nearer; else nothing."""
    gap = hidden[:, :, None] // tokens - visible[:, None] // tokens  # slots; at a tie what came before is nearer
    elsewhere = hidden[:, :, None] % tokens != visible[:, None] % tokens
    far = (2 * gap.abs() - (gap > 0).long()).masked_fill(elsewhere, torch.iinfo(torch.long).max)
    least, nearest = far.min(2, keepdim=True)
    frame = torch.where(gap.gather(2, nearest) > 0, own.shape[2] - 1, 0)
    row = torch.arange(len(own), device=own.device)[:, None, None]
    held = own[row, nearest, frame][:, :, 0].masked_fill(least == torch.iinfo(torch.long).max, 0.0)
    return held.repeat(1, 1, own.shape[2])
