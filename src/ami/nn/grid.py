"""Pictures as grids of tokens, and a memory on the same grid that goes on where nothing is seen."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

CELL = 8  # px on a side of what one token stands for
_LEAST, _MOST = -8.0, 8.0  # of a logarithmic variance

Grid = Float[Tensor, "batch channel row column"]  # channels last in memory: a convolution is then one matrix product


class GridStem(nn.Module):
    """Pictures to tokens that overlap: three convolutions to a grid of 8 px, one linear layer to what is kept."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.piece = nn.Conv2d(3, width // 2, 4, 4)
        self.merge = nn.Conv2d(width // 2, width, 3, 2, 1)
        self.around = nn.Conv2d(width, width, 3, 1, 1)
        self.out = nn.Conv2d(width, dim, 1)

    def forward(self, pictures: UInt8[Tensor, "pictures 3 height width"]) -> Grid:
        """Height and width must be multiples of 8 px."""
        device = pictures.device.type
        half = torch.is_autocast_enabled(device)
        kind = torch.get_autocast_dtype(device) if half else self.piece.weight.dtype
        # Eight bits hold every x - 127.5 exactly, so pixels lose nothing in bfloat16.
        pixels = pictures.contiguous(memory_format=torch.channels_last).to(kind).sub_(127.5).mul_(1 / 64)
        hidden = torch.relu_(self.piece(pixels))
        hidden = torch.relu_(self.merge(hidden))
        return self.out(torch.relu_(self.around(hidden)))


class Held(NamedTuple):
    """What a grid memory holds after a step: what cannot be seen of it, and what is taken to be there."""

    memory: Grid
    now: Grid  # of ``layers`` times ``dim`` channels: what shows, then what is behind


class GridMemory(nn.Module):
    """Expect, look, and correct what was expected: a recurrence over grids with the gains of a filter.

    What is expected next is what is taken to be there now and a change read from the memory. What then comes changes
    the memory (a gated recurrence, every cell hears its neighbours) and, by a gain for each cell between 0 and 1, what
    is taken to be there. A gain of 0 leaves what was expected: a camera that blinks takes nothing away. Where nothing
    is shown, what was expected is all that is seen. Two layers are held of every cell, what shows and what would show
    if nothing stood before it; only the first is compared with what comes. Sources: Kalman 1960 (prediction and
    correction); Shi et al. 2015, "Convolutional LSTM network"; Ballas et al. 2016 (gated, on grids); Wang and Adelson
    1994 (layers).
    """

    layers = 2

    def __init__(self, *, dim: int, memory: int, width: int) -> None:
        super().__init__()
        self.dim, self.memory = dim, memory
        self.look = nn.Conv2d((1 + self.layers) * dim + memory, width, 3, 1, 1)
        self.gates = nn.Conv2d(width, 2 * memory + self.layers, 1)
        self.ahead = nn.Conv2d(memory, width, 3, 1, 1)
        self.change = nn.Conv2d(width, self.layers * dim, 1)
        self.doubt = nn.Conv2d(width, 1, 1)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.doubt.weight)
        bias = torch.cat([torch.full((memory,), -1.0), torch.zeros(memory), torch.full((self.layers,), 2.0)])
        self.gates.bias = nn.Parameter(bias)  # an untrained memory changes slowly and believes what it sees

    def begin(self, seen: Grid) -> Held:
        """Before anything but the first picture was seen."""
        shape = len(seen), self.memory, *seen.shape[2:]
        memory = seen.new_zeros(shape).contiguous(memory_format=torch.channels_last)
        return Held(memory, seen.repeat(1, self.layers, 1, 1))

    def expect(self, held: Held, condition: Float[Tensor, "batch width"]) -> tuple[Grid, Grid]:
        """The next grid of all layers, and the logarithm of the squared error expected of the first in each cell.

        The error that is expected teaches nothing else.
        """
        hidden = torch.relu(self.ahead(held.memory) + condition[:, :, None, None])
        doubt = self.doubt(hidden.detach()).float().clamp(_LEAST, _MOST)
        return held.now + self.change(hidden).float(), doubt

    def correct(self, held: Held, expected: Grid, seen: Grid, condition: Float[Tensor, "batch width"]) -> Held:
        """What is held after a look; what was seen is the first layer's."""
        missed = seen.repeat(1, self.layers, 1, 1) - expected
        heard = torch.cat([seen, missed, held.memory], 1).contiguous(memory_format=torch.channels_last)
        gates = self.gates(torch.relu(self.look(heard) + condition[:, :, None, None])).float()
        forget, new, gain = gates.split([self.memory, self.memory, self.layers], 1)
        forget = torch.sigmoid(forget)
        memory = (1 - forget) * held.memory + forget * torch.tanh(new)
        return Held(memory, expected + torch.sigmoid(gain).repeat_interleave(self.dim, 1) * missed)
