"""Rotary positions in time and space: attention then sees how far apart two tokens are, not where they are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

_BASE = 10_000.0


@dataclass(frozen=True)
class Turns:
    """The cosines and sines that a head's halves are turned by, one row for each token.

    A head's dimensions are laid out in two halves, ``a`` and ``b``: dimension i of each makes a plane. Scores do not
    change when queries and keys are laid out otherwise together, and two halves are two plain slices of memory, where
    the usual neighbouring pairs would be strided.
    """

    cos: Float[Tensor, "*rows tokens 2 half"]
    sin: Float[Tensor, "*rows tokens 2 half"]

    def __getitem__(self, index: Int[Tensor, "*rows kept"]) -> Turns:
        """Those of some tokens, in the order of ``index``."""
        return Turns(self.cos[index], self.sin[index])

    def apply(self, values: Float[Tensor, "batch tokens parts heads dim"]) -> Float[Tensor, "..."]:
        """Turn queries and keys (the ``parts``) of every head."""
        (ca, cb), (sa, sb) = (
            table.to(values.dtype)[..., None, None, :, :].unbind(-2) for table in (self.cos, self.sin)
        )
        a, b = values.chunk(2, -1)
        if torch.is_grad_enabled():
            return torch.cat([a * ca - b * sa, b * cb + a * sb], -1)
        turned = torch.empty_like(values)
        to_a, to_b = turned.chunk(2, -1)
        torch.mul(a, ca, out=to_a).addcmul_(b, sa, value=-1)
        torch.mul(b, cb, out=to_b).addcmul_(a, sb)
        return turned


def turns(
    places: Int[Tensor, "*rows tokens 3"] | Float[Tensor, "*rows tokens 3"], dim: int, *, tiled: bool = False
) -> Turns:
    """The turns of tokens at (time, row, column), or at any three coordinates, in a head of ``dim`` dimensions.

    Each of the three axes has a third of the dimensions, in planes that turn with falling speed; what is left over of
    ``dim`` does not turn. Source: Su et al. 2021, "RoFormer", equation 15, for each axis.

    ``tiled`` is V-JEPA 2's variant, for its weights alone: in a plane of its neighbouring dimensions 2i and 2i+1 the
    frequencies number 2i and 2i+1 (modulo the number of planes) stand where a rotation has the same one twice, so it
    neither keeps lengths nor depends on differences of places only.
    """
    if dim % 2:
        raise ValueError(f"a head of {dim} dimensions has no planes to turn; it must be even")
    planes = dim // 3 // 2
    speed = _BASE ** -(torch.arange(planes, dtype=torch.float32, device=places.device) / max(planes, 1))
    of_a, of_b = speed, speed
    if tiled:
        twice = torch.cat([speed, speed])
        of_a, of_b = twice[0::2], twice[1::2]
    rest = torch.zeros(*places.shape[:-1], dim // 2 - 3 * planes, device=places.device)

    def angles(speeds: Tensor) -> Tensor:
        return torch.cat([*(place[..., None].float() * speeds for place in places.unbind(-1)), rest], -1)

    both = torch.stack([angles(of_a), angles(of_b)], -2)
    return Turns(both.cos(), both.sin())


def grid(slots: int, rows: int, columns: int, device: torch.device | None = None) -> Int[Tensor, "tokens 3"]:
    """The places (time, row, column) of a clip's tokens, slot by slot, row by row."""
    return torch.cartesian_prod(*(torch.arange(count, device=device) for count in (slots, rows, columns)))
