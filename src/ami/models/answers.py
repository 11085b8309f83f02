"""What the contract asks of answers: of which shape they are, whether two agree, and which tensors they hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from ami.types import Clip

# Two answers that should agree may differ by this much of their largest value: batches of other sizes round otherwise.
_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}
_COARSE = 3e-2  # for 16-bit numbers


class ContractError(ValueError):
    """A model broke a promise; the sentence says which and what was seen."""


def unchanged(old: Tensor, new: Tensor) -> bool:
    """Whether a tensor still holds what it did."""
    return torch.equal(old.nan_to_num(), new.nan_to_num()) if old.is_floating_point() else torch.equal(old, new)


def leaves(value: Any) -> Iterator[Tensor]:
    """Every tensor in a value, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from leaves(item)
    elif is_dataclass(value):
        yield from leaves(tuple(getattr(value, field.name) for field in fields(value)))


def parts(clip: Clip) -> list[tuple[str, Tensor]]:
    """What a clip holds, by name."""
    named = ((field.name, getattr(clip, field.name)) for field in fields(clip))
    return [(name, value) for name, value in named if isinstance(value, Tensor)]


def chosen(tensor: Tensor | None, index: Tensor) -> Tensor | None:
    """Some of the rows, where there are any."""
    return None if tensor is None else tensor[index]


def sound(verb: str, values: Tensor, wanted: tuple[int, ...]) -> None:
    """Refuse an answer of another shape, or with numbers that are none."""
    if tuple(values.shape) != wanted:
        words = ", ".join(("batch", "time", "tokens", "dim")[: len(wanted)])
        raise ContractError(f"{verb} gave the shape {tuple(values.shape)}; ({words}) = {wanted} was wanted")
    if not values.is_floating_point() or not values.isfinite().all():
        raise ContractError(f"{verb} gave numbers that are not finite; a NaN would win or lose every comparison unseen")


def same(one: Tensor, two: Tensor) -> bool:
    """Whether two answers agree up to rounding."""
    if one.shape != two.shape:
        return False
    if not one.numel():
        return True
    scale = torch.maximum(one.abs().max(), two.abs().max())
    return bool((one - two).abs().max() <= _TOLERANCE.get(one.dtype, _COARSE) * scale)
