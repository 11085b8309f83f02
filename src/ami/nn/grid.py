"""Pictures as grids of tokens, and a memory on the same grid that goes on where nothing is seen."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ami.nn.rotary import grid, turns
from ami.nn.video import RotaryBlock

CELL = 8  # px on a side of what one token stands for
_LEAST, _MOST = -8.0, 8.0  # of a logarithmic variance
_HEADS = 4  # of a leap's attention

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


class GridBlock(nn.Module):
    """Each cell hears its neighbours once more; it begins as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.around = nn.Conv2d(width, width, 3, 1, 1)
        self.out = nn.Conv2d(width, width, 1)
        self.out.weight = nn.Parameter(torch.zeros_like(self.out.weight))
        self.out.bias = nn.Parameter(torch.zeros(width))

    def forward(self, hidden: Grid) -> Grid:
        """What was heard before, and what is heard now."""
        return torch.relu(hidden + self.out(torch.relu(self.around(hidden))))


class Leap(nn.Module):
    """What will be there some steps later if nothing stands before it, told at once from what is held.

    Every cell hears every other, then its neighbours ``blocks`` times, then every other once more: in a leap things
    come from far away. An untrained one expects that nothing changes. The error that is expected teaches nothing else.
    """

    def __init__(self, *, dim: int, memory: int, width: int, blocks: int) -> None:
        super().__init__()
        self.dim, self.head = dim, width // _HEADS
        self.ahead = nn.Conv2d(memory + GridMemory.layers * dim, width, 3, 1, 1)
        self.first, self.last = (RotaryBlock(width, _HEADS, widen=2.0) for _ in range(2))
        self.near = nn.Sequential(*(GridBlock(width) for _ in range(blocks)))
        self.change, self.doubt = nn.Conv2d(width, dim, 1), nn.Conv2d(width, 1, 1)
        for told in (self.change, self.doubt):
            nn.init.zeros_(told.weight)
            nn.init.zeros_(cast(Tensor, told.bias))

    def forward(self, held: Held) -> tuple[Grid, Grid]:
        """The grid that is expected, and the logarithm of the squared error expected in each cell."""
        hidden = self._far(self.first, torch.relu(self.ahead(_beside(held.memory, held.now))))
        hidden = self._far(self.last, self.near(hidden))
        doubt = self.doubt(hidden.detach()).float().clamp(_LEAST, _MOST)
        return held.now[:, -self.dim :] + self.change(hidden).float(), doubt

    def _far(self, block: RotaryBlock, hidden: Grid) -> Grid:
        rows, columns = hidden.shape[2:]
        places = turns(grid(1, rows, columns, hidden.device), self.head)
        heard = block(hidden.flatten(2).transpose(1, 2), places).transpose(1, 2).unflatten(2, (rows, columns))
        return heard.contiguous(memory_format=torch.channels_last)


class GridMemory(nn.Module):
    """Expect, look, and correct what was expected: a recurrence over grids with the gains of a filter.

    What is expected next is what is taken to be there now and a change read from it and the memory. What then comes
    corrects it by a gain between 0 and 1, for each cell. A gain of 0 leaves what was expected: a camera that blinks
    takes nothing away. Two layers are held of every cell, what shows and what would show if nothing stood before it.
    The memory, a gated recurrence in which every cell hears its neighbours, hears of the second layer alone, and never
    what was seen but only what was learned from it. So where the gain is 0, behind a screen, all goes on much as
    while nobody looks, which every film teaches. Sources: Kalman 1960 (prediction and correction); Shi et al.
    2015, "Convolutional LSTM network"; Ballas et al. 2016 (gated, on grids); Wang and Adelson 1994, "Representing
    moving images with layers".
    """

    layers = 2

    def __init__(self, *, dim: int, memory: int, width: int) -> None:
        super().__init__()
        self.dim, self.memory = dim, memory
        both = self.layers * dim
        self.trust = nn.Conv2d(dim + both + memory, width // 4, 3, 1, 1)
        self.gains = nn.Conv2d(width // 4, self.layers, 1)
        self.hear = nn.Conv2d(2 * dim + memory, width, 3, 1, 1)
        self.gates = nn.Conv2d(width, 2 * memory, 1)
        self.ahead = nn.Conv2d(memory + both, width, 3, 1, 1)
        self.change = nn.Conv2d(width, both, 1)
        self.doubt = nn.Conv2d(width, 1, 1)
        for last in (self.change, self.doubt):
            nn.init.zeros_(last.weight)
        self.gains.bias = nn.Parameter(torch.full((self.layers,), 2.0))  # an untrained memory believes what it sees
        slow = torch.full((memory,), -1.0)
        self.gates.bias = nn.Parameter(torch.cat([slow, torch.zeros(memory)]))  # and is slow

    def begin(self, seen: Grid) -> Held:
        """Before anything but the first picture was seen."""
        shape = len(seen), self.memory, *seen.shape[2:]
        memory = seen.new_zeros(shape).contiguous(memory_format=torch.channels_last)
        return Held(memory, seen.repeat(1, self.layers, 1, 1))

    def expect(self, held: Held, condition: Float[Tensor, "batch width"]) -> tuple[Grid, Grid]:
        """The next grid of all layers, and the logarithm of the squared error expected of the first in each cell.

        The error that is expected teaches nothing else.
        """
        hidden = torch.relu(self.ahead(_beside(held.memory, held.now)) + condition[:, :, None, None])
        doubt = self.doubt(hidden.detach()).float().clamp(_LEAST, _MOST)
        return held.now + self.change(hidden).float(), doubt

    def gain(self, held: Held, expected: Grid, seen: Grid) -> Grid:
        """How far each cell of each layer will be corrected by what was seen, before the sigmoid."""
        trust = torch.relu(self.trust(_beside(seen, self._missed(expected, seen), held.memory)))
        return self.gains(trust).float()

    def correct(
        self, held: Held, expected: Grid, condition: Float[Tensor, "batch width"], seen: Grid, gain: Grid
    ) -> Held:
        """What is held after a look, with gains from 0 to 1."""
        learned = gain.repeat_interleave(self.dim, 1) * self._missed(expected, seen)
        return self._hold(held, expected + learned, learned[:, -self.dim :], condition)

    def go_on(self, held: Held, expected: Grid, condition: Float[Tensor, "batch width"]) -> Held:
        """What is held without one."""
        return self._hold(held, expected, torch.zeros_like(expected[:, -self.dim :]), condition)

    def _missed(self, expected: Grid, seen: Grid) -> Grid:
        return seen.repeat(1, self.layers, 1, 1) - expected

    def _hold(self, held: Held, now: Grid, news: Grid, condition: Float[Tensor, "batch width"]) -> Held:
        hidden = self.hear(_beside(now[:, -self.dim :], news, held.memory)) + condition[:, :, None, None]
        forget, new = self.gates(torch.relu(hidden)).float().chunk(2, 1)
        forget = torch.sigmoid(forget)
        return Held((1 - forget) * held.memory + forget * torch.tanh(new), now)


def _beside(*grids: Grid) -> Grid:
    return torch.cat(grids, 1).contiguous(memory_format=torch.channels_last)
