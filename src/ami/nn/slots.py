"""Things as slots: each is somewhere, goes somewhere and looks like something; how they are seen, and go on."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

CELL = 2  # px on a side of what one cell stands for
KEPT = 4  # numbers of a cell that are kept of a thing: how much it is there, and that much of three colours
TOLD = (KEPT, 1)  # numbers of a cell that a picture tells: things, and whether something stands before them
VIEW = 13  # cells on a side of what is kept of a thing
_REACH, _GAP = 2.5, 6.5  # cells: within what a slot takes what it sees for its own; and from where on it is new
_NEW = math.exp(-((_GAP / _REACH) ** 2) / 2)
_LEAST = 7.0  # cells that something new fills
_JOLT = 0.8  # cells: who is so far from where it was expected goes another way now
_CALM = 9  # looks after which a way is as well known as it will be
_FARTHEST = 6.0  # cells that a look can correct
_FASTEST = 4.0  # cells per step
_RINGS = (3.0, 5.0, 8.0)  # cells from its middle at which a thing feels what is around it
_OPEN, _FOUND, _PATIENCE = 0.75, 0.3, 2  # shares that are to be seen, and are; looks in vain after which it is gone
_BEFORE, _FIRST = 1, 4  # things that may be new in a picture, and in the first

Maps = Float[Tensor, "batch number row column"]


class Slots(NamedTuple):
    """What is held of things; one value, all in cells and steps."""

    place: Float[Tensor, "batch slot 2"]
    pace: Float[Tensor, "batch slot 2"]
    memory: Float[Tensor, "batch slot memory"]
    there: Float[Tensor, "batch slot"]  # 1: somebody is in it
    looks: Float[Tensor, "batch slot"]  # since it goes this way
    missed: Float[Tensor, "batch slot"]  # looks in a row at a place that was open, and nobody there
    view: Float[Tensor, "batch slot kept view view"]  # what was seen of it, around its middle

    @property
    def size(self) -> Float[Tensor, "batch slot"]:
        """Cells that each fills."""
        return self.view[:, :, 0].sum((2, 3))

    def flat(self) -> Float[Tensor, "batch slot number"]:
        """All numbers of a slot in a row."""
        each = self.there, self.looks, self.missed
        return torch.cat([self.place, self.pace, self.memory, *(n[..., None] for n in each), self.view.flatten(2)], -1)

    @classmethod
    def of(cls, flat: Float[Tensor, "batch slot number"]) -> Slots:
        """What :meth:`flat` made a row."""
        view = KEPT * VIEW**2
        place, pace, memory, there, looks, missed, seen = flat.split(
            [2, 2, flat.shape[2] - view - 7, 1, 1, 1, view], -1
        )
        kept = seen.unflatten(-1, (KEPT, VIEW, VIEW))
        return cls(place, pace, memory, there.squeeze(-1), looks.squeeze(-1), missed.squeeze(-1), kept)


class Ahead(NamedTuple):
    """What is expected of things at the next step."""

    place: Float[Tensor, "batch slot 2"]
    pace: Float[Tensor, "batch slot 2"]
    near: Float[Tensor, "batch slot near"]  # what each feels around it
    others: Float[Tensor, "batch slot others"]  # and of the others


class Look(NamedTuple):
    """What a picture told of each slot."""

    place: Float[Tensor, "batch slot 2"]  # where it is, corrected for what of it is covered
    told: Bool[Tensor, "batch slot"]  # whether that could be seen


class SlotStem(nn.Module):
    """Pictures to maps of 2 px cells: what is a thing, what stands before things, and 32 numbers of all else.

    Beside its colours every pixel tells how it differs from the next ones: a screen is flat, and a ground is not.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pixels = nn.Conv2d(9, width // 2, 4, 2, 1)
        self.down = nn.Conv2d(width // 2, width, 3, 2, 1)
        self.near = nn.Conv2d(width, width, 3, 1, 1)
        self.far = nn.Conv2d(width, width, 3, 1, 2, dilation=2)
        self.both = nn.Conv2d(width, width, 3, 1, 1)
        self.up = nn.Conv2d(width, width // 2, 1)
        self.join = nn.Conv2d(width // 2, width, 3, 1, 1)
        self.out = nn.Conv2d(width, 2, 1)

    def forward(self, pictures: UInt8[Tensor, "pictures 3 height width"]) -> tuple[Maps, Maps]:
        """Before the sigmoid, what is a thing and what covers; and the numbers that both were read from."""
        device = pictures.device.type
        half = torch.is_autocast_enabled(device)
        pixels = pictures.to(torch.get_autocast_dtype(device) if half else self.out.weight.dtype)
        right = functional.pad(torch.tanh((pixels[..., 1:] - pixels[..., :-1]) / 4), (0, 1))
        below = functional.pad(torch.tanh((pixels[..., 1:, :] - pixels[..., :-1, :]) / 4), (0, 0, 0, 1))
        told = torch.cat([(pixels - 127.5) / 64, right, below], 1).contiguous(memory_format=torch.channels_last)
        fine = torch.relu(self.pixels(told))
        coarse = torch.relu(self.near(torch.relu(self.down(fine))))
        coarse = torch.relu(self.far(coarse) + coarse)
        coarse = torch.relu(self.both(coarse) + coarse)
        joined = torch.relu(fine + functional.interpolate(self.up(coarse), scale_factor=2.0, mode="nearest"))
        joined = torch.relu(self.join(joined))
        return self.out(joined).float(), joined


class SlotMemory(nn.Module):
    """Expect where things will be, look, and correct what was expected: a filter for several things at once.

    Without learning, each goes straight on, and a look corrects place and pace by the gains that least squares give
    for as many looks as there were since it last turned. What is learned is added to that: a recurrent cell that each
    slot has, told of what is around it and of the others (a graph of things, each pair alike), says how the way bends
    and how far a look is to be trusted. A slot that is not seen goes on; one whose place is open and empty is given
    up; what no slot takes for its own is a new one. Sources: Kalman 1960; Bar-Shalom and Fortmann 1988, "Tracking and
    data association"; Kahneman, Treisman and Gibbs 1992, "The reviewing of object files"; Battaglia et al. 2016,
    "Interaction networks"; Locatello et al. 2020, "Object-centric learning with slot attention".
    """

    cells: Tensor
    beside: Tensor
    ring: Tensor

    def __init__(self, *, side: int, slots: int, around: int, memory: int, width: int, acts: int) -> None:
        super().__init__()
        self.side, self.slots, self.memory, self.acts = side, slots, memory, acts
        cell, turn = torch.arange(float(side)), torch.arange(8) * math.pi / 4
        away = torch.arange(float(VIEW)) - VIEW // 2
        self.register_buffer("cells", torch.stack(torch.meshgrid(cell, cell, indexing="xy"), -1), persistent=False)
        self.register_buffer("beside", torch.stack(torch.meshgrid(away, away, indexing="xy"), -1), persistent=False)
        rings = [radius * torch.stack([turn.cos(), turn.sin()], 1) for radius in _RINGS]
        self.register_buffer("ring", torch.cat([torch.zeros(1, 2), *rings]), persistent=False)
        self.near = nn.Sequential(nn.Linear(around * len(self.ring), width), nn.ReLU(), nn.Linear(width, memory))
        self.pair = nn.Sequential(nn.Linear(8, memory), nn.ReLU(), nn.Linear(memory, memory), nn.ReLU())
        self.cell = nn.GRUCell(2 * memory + 9 + acts, memory)
        self.bend = _added(3 * memory + 3 + acts, width, 4)
        self.trust = _added(memory + 4, memory, 2)

    def begin(self, rows: int, like: Tensor) -> Slots:
        """Nobody is there yet."""
        none, still = like.new_zeros(rows, self.slots), like.new_zeros(rows, self.slots, 2)
        view = like.new_zeros(rows, self.slots, KEPT, VIEW, VIEW)
        return Slots(still, still, like.new_zeros(rows, self.slots, self.memory), none, none, none, view)

    def expect(self, held: Slots, around: Maps, covered: Maps, acts: Float[Tensor, "batch act"]) -> Ahead:
        """Where things will be, from what was around them at the last look and from what is done.

        What is covered goes straight on, for nobody sees what is around it.
        """
        place, pace = held.place, held.pace
        felt = self._sample(around, place.detach()[:, :, None] + self.ring, "border")
        near = torch.relu(self.near(felt.permute(0, 2, 3, 1).flatten(2)))
        way, size = place[:, None] - place[:, :, None], held.size[..., None] / 28
        mine, theirs = size[:, :, None].expand(-1, -1, self.slots, -1), size[:, None].expand(-1, self.slots, -1, -1)
        rush, own = pace[:, None] - pace[:, :, None], pace[:, :, None].expand(-1, -1, self.slots, -1)
        other = held.there[:, None] * (1 - torch.eye(self.slots, device=place.device))
        close = torch.exp(-way.square().sum(-1, keepdim=True) / 100) * other[..., None]
        others = (self.pair(torch.cat([way / 6, rush, own, mine, theirs], -1)) * close).sum(2)
        done = acts[:, None].expand(-1, self.slots, -1)
        clear = 1 - self._sample(covered, place.detach()[:, :, None])[:, 0]
        bent = clear * self.bend(torch.cat([held.memory, near, others, pace, size, done], -1))
        faster = pace + bent[..., :2]
        return Ahead(place + faster + bent[..., 2:], faster, near, others)

    def paint(self, held: Slots, ahead: Ahead) -> Maps:
        """What the picture should show of things where nothing stands before them."""
        each = self._painted(held, ahead.place)
        total = each[:, :, 0].sum(1, keepdim=True)  # of things that overlap, the one that is more there
        return each.sum(1) / total.clamp_min(1)

    def first(self, seen: Maps, covered: Maps) -> Slots:
        """What the first picture shows."""
        return self._born(self.begin(len(seen), seen), seen, seen[:, 0] * (1 - covered[:, 0]), _FIRST)

    def go_on(self, held: Slots, ahead: Ahead, acts: Float[Tensor, "batch act"]) -> Slots:
        """Without a look."""
        nothing = torch.zeros_like(ahead.place)
        memory = self._remember(held, ahead, nothing, nothing[..., :1], acts)
        return held._replace(place=ahead.place, pace=ahead.pace, memory=memory)

    def look(
        self, held: Slots, ahead: Ahead, seen: Maps, covered: Maps, acts: Float[Tensor, "batch act"]
    ) -> tuple[Slots, Look]:
        """Correct what was expected by a picture, where it is open. What is seen gets no gradient."""
        with torch.no_grad():
            clear, at = 1 - covered[:, 0], ahead.place.detach()
            shown, size = self._painted(held, at)[:, :, 0] * clear[:, None], held.size
            open_ = shown.sum((2, 3))
            claim = self._claims(held, seen, at)
            share = claim / (claim.sum(1, keepdim=True) + _NEW)
            found = share * (seen[:, 0] * clear)[:, None]
            there = found.sum((2, 3))
            told = (there > _FOUND * open_) & (open_ > _OPEN * size) & (held.there > 0)
            place = self._middle(found) - self._middle(shown) + at
        gain = ((open_ / size.clamp_min(1e-3)).clamp(0, 1) * told)[..., None]
        off = torch.where(told[..., None], place - ahead.place, 0.0).clamp(-_FARTHEST, _FARTHEST)
        looks = torch.where(off.detach().norm(dim=-1) > _JOLT, held.looks.clamp_max(1), held.looks)
        memory = self._remember(held, ahead, off, gain, acts)
        by_place, by_pace = self._gains(memory, off, looks)
        after = Slots(
            ahead.place + gain * by_place * off,
            (ahead.pace + gain * by_pace * off).clamp(-_FASTEST, _FASTEST),
            memory,
            held.there,
            looks + told,
            torch.where((open_ > 0.5 * size) & (there < _FOUND * open_), held.missed + 1, held.missed * ~told),
            held.view,
        )
        with torch.no_grad():
            after = self._seen(after, seen, clear, share, told)
            rest = seen[:, 0] * clear * (_NEW / (self._claims(after, seen, after.place).sum(1) + _NEW))
        return self._born(after, seen, rest, _BEFORE), Look(place, told)

    def _remember(self, held: Slots, ahead: Ahead, off: Tensor, gain: Tensor, acts: Tensor) -> Tensor:
        """What each slot's cell makes of a look, or of none."""
        known = 1 / (1 + held.looks[..., None]), held.size[..., None] / 28, acts[:, None].expand(-1, self.slots, -1)
        told = torch.cat([ahead.near, ahead.others, ahead.pace, off, off * gain, gain, *known], -1)
        return self.cell(told.flatten(0, 1), held.memory.flatten(0, 1)).unflatten(0, held.there.shape)

    def _gains(self, memory: Tensor, off: Tensor, looks: Tensor) -> tuple[Tensor, Tensor]:
        """Of place and pace: those of a line through the looks since the last turn, and what is learned beside."""
        count = looks[..., None].clamp_max(_CALM) + 2
        told = torch.cat([memory, off, off.norm(dim=-1, keepdim=True), 1 / (1 + looks[..., None])], -1)
        more = 3 * self.trust(told)
        place = torch.logit((2 * (2 * count - 1) / count / (count + 1)).clamp(0.02, 0.98))
        pace = torch.logit((6 / count / (count + 1) / 1.3).clamp(0.02, 0.98))
        place, pace = torch.sigmoid(place + more[..., :1]), 1.3 * torch.sigmoid(pace + more[..., 1:])
        first = looks[..., None] < 1  # who was seen once has no pace yet: it is all of the difference
        return torch.where(first, 1.0, place), torch.where(first, 1.0, pace)

    def _claims(self, held: Slots, seen: Maps, place: Tensor) -> Float[Tensor, "batch slot row column"]:
        """How likely each cell belongs to each slot: the likelier the nearer, and the more alike."""
        away = (self.cells - place[:, :, None, None]).square().sum(-1) / (2 * _REACH**2)
        own = held.view[:, :, 1:].sum((3, 4)) / held.size.clamp_min(1e-3)[..., None]
        colour = seen[:, 1:] / seen[:, :1].clamp_min(0.05)
        unlike = (colour[:, None] - own[..., None, None]).square().sum(2).clamp_max(4)
        return torch.exp(-away - unlike) * held.there[..., None, None]

    def _seen(self, held: Slots, seen: Maps, clear: Tensor, share: Tensor, told: Tensor) -> Slots:
        """Who was seen looks as it was seen; who went out of view, or is missed too often, is gone."""
        at = held.place[:, :, None, None] + self.beside
        found = self._sample(torch.cat([seen, clear[:, None]], 1), at.flatten(1, 2)).unflatten(2, at.shape[1:3])
        found = found.transpose(1, 2)
        own = self._sample(share.flatten(0, 1)[:, None], at.flatten(0, 1)).unflatten(0, share.shape[:2])
        new = (1 / (held.looks + 1)).clamp_min(0.2) * told
        view = held.view + new[..., None, None, None] * found[:, :, -1:] * (found[:, :, :-1] * own - held.view)
        inside = ((held.place > -4) & (held.place < self.side + 3)).all(-1)
        return held._replace(view=view, there=held.there * inside * (held.missed < _PATIENCE))

    def _born(self, held: Slots, seen: Maps, rest: Float[Tensor, "batch row column"], most: int) -> Slots:
        """New slots for what no slot took for its own."""
        for _ in range(most):
            with torch.no_grad():
                fill, at = (functional.avg_pool2d(rest[:, None], 5, 1, 2)[:, 0] * 25).flatten(1).max(1)
                place = self.cells.flatten(0, 1)[at]
                for _ in range(2):
                    place = self._middle((self._around(place) * rest)[:, None])[:, 0]
                free = held.there < 0.5
                new = functional.one_hot(free.float().argmax(1), self.slots) * (free.any(1) & (fill > _LEAST))[:, None]
                own = self._around(place)
                own = own / (own + _NEW)
                mine = seen * (own * rest / (seen[:, 0]).clamp_min(1e-3))[:, None]
                view = self._sample(mine, place[:, None, None] + self.beside)[:, None]
                rest = rest * (1 - own * new.any(1)[:, None, None])
            some = new[..., None].bool()
            held = Slots(
                torch.where(some, place[:, None], held.place),
                torch.where(some, 0.0, held.pace),
                torch.where(some, 0.0, held.memory),
                torch.where(new > 0, 1.0, held.there),
                torch.where(new > 0, 0.0, held.looks),
                torch.where(new > 0, 0.0, held.missed),
                torch.where(some[..., None, None], view, held.view),
            )
        return held

    def _painted(self, held: Slots, place: Tensor) -> Float[Tensor, "batch slot kept row column"]:
        """What is kept of each thing, put where it is."""
        at = (self.cells - place[:, :, None, None]) / (VIEW // 2)
        drawn = functional.grid_sample(held.view.flatten(0, 1), at.flatten(0, 1), align_corners=True)
        return drawn.unflatten(0, place.shape[:2]) * held.there[..., None, None, None]

    def _sample(self, maps: Maps, at: Float[Tensor, "batch row column 2"], beyond: str = "zeros") -> Maps:
        """Maps at places that lie between cells."""
        return functional.grid_sample(maps, at * 2 / (self.side - 1) - 1, align_corners=True, padding_mode=beyond)

    def _middle(self, mass: Float[Tensor, "batch slot row column"]) -> Float[Tensor, "batch slot 2"]:
        whole = mass.sum((2, 3)).clamp_min(1e-3)[..., None]
        return torch.einsum("bkyx,yxc->bkc", mass, self.cells) / whole

    def _around(self, place: Float[Tensor, "batch 2"]) -> Float[Tensor, "batch row column"]:
        return torch.exp(-(self.cells - place[:, None, None]).square().sum(-1) / (2 * _REACH**2))


def _added(numbers: int, width: int, out: int) -> nn.Sequential:
    """What is added to something that is right to begin with: zero, untrained."""
    last = nn.Linear(width, out)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(numbers, width), nn.ReLU(), last)
