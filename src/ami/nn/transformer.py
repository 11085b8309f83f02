"""Transformer blocks over tokens."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

_SHORT = 512  # tokens in a row, below which a CPU is faster at the products one by one


def attend(
    query: Float[Tensor, "batch heads tokens dim"],
    key: Float[Tensor, "batch heads others dim"],
    value: Float[Tensor, "batch heads others dim"],
    hears: Bool[Tensor, "..."] | None = None,
) -> Float[Tensor, "batch heads tokens dim"]:
    """Scaled dot-product attention, in which a token hears those that ``hears`` allows, or all of its row.

    In bfloat16 on a CPU short rows go through its three products one after another: fused, their way back takes two to
    four times as long there.
    """
    if query.device.type != "cpu" or query.dtype != torch.bfloat16 or query.shape[-2] >= _SHORT:
        return functional.scaled_dot_product_attention(query, key, value, hears)
    with torch.autocast("cpu", enabled=False):
        fits = (query * query.shape[-1] ** -0.5) @ key.mT
        if hears is not None:
            fits = fits.masked_fill(~hears, -torch.inf)
        return fits.softmax(-1) @ value


class Block(nn.Module):
    """Pre-norm self-attention and a two-layer network, each added to its input.

    Source: Vaswani et al. 2017, section 3; the norm comes first as in Xiong et al. 2020.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.before_network = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, tokens: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        """Every token hears every other of its row."""
        split = self.query_key_value(self.before_attention(tokens)).unflatten(-1, (3, self.heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)
        heard = attend(query, key, value).transpose(1, 2).flatten(2)
        tokens = tokens + self.attended(heard)
        return tokens + self.narrow(functional.gelu(self.widen(self.before_network(tokens))))
