"""Bodies that meet or are tied: what one does to the other in a step, learned in the frame of where they meet.

A body is a stretch from one end to the other with a radius: a block, or a ball where both ends are one. Where two
bodies are nearest is geometry; what then happens to their motion (bounce, friction, mass, gravity, how stiff a tie is)
is not written here but learned. Lengths in px, seconds, radians.

Sources of the idea: Battaglia et al. 2016, "Interaction Networks"; Allen et al. 2023, "Graph network simulators can
learn discontinuous, rigid contact dynamics" (that messages belong to contacts, not to pairs of centres).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

# What is told of a body, in this order.
PLACE, HALF, VELOCITY = slice(0, 2), slice(2, 4), slice(4, 6)  # HALF: from the middle to one end
SPIN, RADIUS, THERE, MOVES, REMOVABLE, BALL, JOINT, SPRING, LENGTH = range(6, 15)
NUMBERS = 15

_SPEED, _SHIFT = 100.0, 5.0  # px/s and px: what a network's 1 means
_NEAR = 25.0  # px: what is so near, and the way that both go in a step, can meet
# Motion beyond this is a mistake that would only grow: velocity px/s, spin 1/s, then shift px and turn in a step.
_BOUNDS = (600.0, 600.0, 20.0, 60.0, 60.0, 2.0)
_TOUCH, _TIE = 19, 8  # numbers that describe a contact, a tie


def mirrored(objects: Float[Tensor, "*batch 15"]) -> Float[Tensor, "*batch 15"]:
    """Left for right, about x = 0: where the zero of x lies is nothing that bodies feel."""
    signs = objects.new_ones(NUMBERS)
    signs[[PLACE.start, HALF.start, VELOCITY.start, SPIN]] = -1.0
    return objects * signs


@dataclass(frozen=True)
class Pairs:
    """Who may act on whom, as rows of a batch's objects laid end to end; the one that is moved comes first.

    ``end`` says whose end may be the point of contact: 0 and 1 the ends of the first, 2 and 3 those of the other. Two
    blocks may meet at each of their four ends (one that lies flat rests on two); a ball has only its middle.
    """

    one: Int[Tensor, "pairs"]
    other: Int[Tensor, "pairs"]
    end: Int[Tensor, "pairs"]
    tied: Int[Tensor, "ties"]
    tied_to: Int[Tensor, "ties"]
    elastic: Bool[Tensor, "ties"]

    @classmethod
    def of(cls, objects: Float[Tensor, "batch objects 15"]) -> Pairs:
        """Of all that is there and moves, with all else that is there."""
        there, ball = objects[..., THERE] > 0, objects[..., BALL] > 0
        count = objects.shape[1]
        moved = (there & (objects[..., MOVES] > 0))[:, :, None] & there[:, None]
        moved = moved & ~torch.eye(count, dtype=torch.bool, device=objects.device)
        row, one, other = moved.nonzero().unbind(1)
        round_one, round_other = ball[row, one], ball[row, other]
        both = ~round_one & ~round_other
        pair, end = torch.stack([round_one | ~round_other, both, ~round_one, both], 1).nonzero().unbind(1)

        def tie(number: int) -> Bool[Tensor, "batch objects objects"]:
            name = objects[..., number]
            return moved & (name[:, :, None] == name[:, None]) & (name[:, :, None] > 0)

        springs = tie(SPRING)
        tied_row, tied, tied_to = (tie(JOINT) | springs).nonzero().unbind(1)
        start, tied_start = row * count, tied_row * count
        return cls(
            (start + one)[pair],
            (start + other)[pair],
            end,
            tied_start + tied,
            tied_start + tied_to,
            springs[tied_row, tied, tied_to],
        )


@dataclass(frozen=True)
class _Contacts:
    """Where bodies are nearest: the gap between their surfaces, the way across it, and the arms to either surface."""

    one: Int[Tensor, "contacts"]
    other: Int[Tensor, "contacts"]
    gap: Float[Tensor, "contacts"]
    normal: Float[Tensor, "contacts 2"]  # from the first to the other
    arm: Float[Tensor, "contacts 2"]  # from the first's middle
    arm_other: Float[Tensor, "contacts 2"]


class Mechanics(nn.Module):
    """One step of a batch of scenes.

    Contacts and ties are asked several times a step what they change, each time with the velocities that the others
    have left, as a solver of contacts goes round until all agree; the answers are learned. All is told in the frame of
    the contact, so a slope at any angle is one thing to learn.
    """

    def __init__(self, width: int, rounds: int, seconds: float) -> None:
        super().__init__()
        self.rounds, self.seconds = rounds, seconds
        self.touch = _network(_TOUCH + rounds, 5, width)
        self.tie = _network(_TIE + rounds, 4, width)
        self.light = _network(3, 2, 16)  # how easily a body turns, and is turned out of what it overlaps
        self.fall = nn.Parameter(torch.zeros(4))  # velocity and shift that a step gives to whatever moves

    def forward(self, objects: Float[Tensor, "batch objects 15"], pairs: Pairs) -> Float[Tensor, "batch objects 15"]:
        """The scenes one step later. ``pairs`` are those of a step before, when at least as much was there."""
        flat = objects.flatten(0, 1)
        free = (flat[:, MOVES] * flat[:, THERE])[:, None]
        contacts, ties = self._contacts(flat, pairs), _Ties.of(flat, pairs)
        touch, tie, light = _touch(flat, contacts), ties.told(flat), self._light(flat)
        fall = self.fall * self.fall.new_tensor([_SPEED, _SPEED, 10.0, 10.0])
        still = flat.new_zeros(len(flat))
        before = torch.cat([flat[:, VELOCITY], flat[:, SPIN, None], torch.zeros_like(flat[:, :3])], 1)
        gain = torch.stack([still + fall[0], still + fall[1], still, still + fall[2], still + fall[3], still], 1)
        motion = before + free * gain
        bounds = motion.new_tensor(_BOUNDS)
        for number in range(self.rounds):
            turn = torch.eye(self.rounds, device=flat.device)[number]
            change = torch.zeros_like(motion).index_add(
                0, contacts.one, self._touched(contacts, touch, light, motion, turn)
            )
            change = change.index_add(0, ties.one, self._tied(ties, tie, motion, turn))
            motion = (motion + free * change).clamp(-bounds, bounds)
        return _moved(flat, before, motion, free, self.seconds).view_as(objects)

    def _contacts(self, flat: Float[Tensor, "rows 15"], pairs: Pairs) -> _Contacts:
        """Those that are near enough to matter in this step; only for these is the way back computed."""
        with torch.no_grad():
            there = (flat[pairs.one, THERE] > 0) & (flat[pairs.other, THERE] > 0)
            apart = _meet(flat, pairs.one, pairs.other, pairs.end).gap
            speed = (flat[pairs.one, VELOCITY] - flat[pairs.other, VELOCITY]).norm(dim=-1)
            near = (there & (apart < _NEAR + self.seconds * speed)).nonzero().squeeze(1)
        return _meet(flat, pairs.one[near], pairs.other[near], pairs.end[near])

    def _light(self, flat: Float[Tensor, "rows 15"]) -> Float[Tensor, "rows 2"]:
        told = torch.stack([flat[:, BALL], flat[:, RADIUS] / 30, flat[:, HALF].norm(dim=-1) / 50], -1)
        return 0.01 * nn.functional.softplus(self.light(told))

    def _touched(
        self, at: _Contacts, told: Tensor, light: Tensor, motion: Float[Tensor, "rows 6"], turn: Float[Tensor, "rounds"]
    ) -> Float[Tensor, "contacts 6"]:
        """What contacts change of the motion of the first body: velocity, spin, shift, turn."""
        along = _perpendicular(at.normal)
        one, other = motion[at.one], motion[at.other]
        rush = other[:, :2] + other[:, 2:3] * _perpendicular(at.arm_other)
        rush = rush - one[:, :2] - one[:, 2:3] * _perpendicular(at.arm)
        across, past = _dot(rush, at.normal), _dot(rush, along)
        now = [across / _SPEED, past / _SPEED, (at.gap + self.seconds * across) / 20, torch.tanh(past / 20)]
        asked = torch.cat([told, torch.stack(now, -1), turn.expand(len(told), -1)], -1)
        said = self.touch(asked.clamp(-4, 4))
        push = _SPEED * (said[:, :1] * at.normal + said[:, 1:2] * along)
        shift = _SHIFT * (said[:, 2:3] * at.normal + said[:, 3:4] * along)
        spin = _cross(at.arm, push) * light[at.one, 0] + 0.1 * said[:, 4]
        turned = _cross(at.arm, shift) * light[at.one, 1]
        return torch.cat([push, spin[:, None], shift, turned[:, None]], -1)

    def _tied(
        self, ties: _Ties, told: Tensor, motion: Float[Tensor, "rows 6"], turn: Float[Tensor, "rounds"]
    ) -> Float[Tensor, "ties 6"]:
        along = _perpendicular(ties.way)
        rush = motion[ties.other, :2] - motion[ties.one, :2]
        now = torch.stack([_dot(rush, ties.way) / _SPEED, _dot(rush, along) / _SPEED], -1)
        said = self.tie(torch.cat([told, now, turn.expand(len(told), -1)], -1).clamp(-8, 8))
        push = _SPEED * (said[:, :1] * ties.way + said[:, 1:2] * along)
        shift = _SHIFT * (said[:, 2:3] * ties.way + said[:, 3:4] * along)
        return torch.cat([push, torch.zeros_like(push[:, :1]), shift, torch.zeros_like(push[:, :1])], -1)


@dataclass(frozen=True)
class _Ties:
    """Bodies that are tied: how far apart, and the way from the first to the other."""

    one: Int[Tensor, "ties"]
    other: Int[Tensor, "ties"]
    elastic: Bool[Tensor, "ties"]
    far: Float[Tensor, "ties"]
    way: Float[Tensor, "ties 2"]

    @classmethod
    def of(cls, flat: Float[Tensor, "rows 15"], pairs: Pairs) -> _Ties:
        """Of those that are still there."""
        there = (flat[pairs.tied, THERE] > 0) & (flat[pairs.tied_to, THERE] > 0)
        one, other = pairs.tied[there], pairs.tied_to[there]
        between = flat[other, PLACE] - flat[one, PLACE]
        far = between.square().sum(-1).add(1e-6).sqrt()
        return cls(one, other, pairs.elastic[there], far, between / far[:, None])

    def told(self, flat: Float[Tensor, "rows 15"]) -> Float[Tensor, "ties 6"]:
        """What does not change during a step."""
        stretched = (self.far - flat[self.one, LENGTH]) / 5
        along = _perpendicular(self.way)
        kinds = self.elastic.to(flat), flat[self.other, MOVES]
        return torch.stack([*kinds, stretched, self.far / _SPEED, self.way[:, 1], along[:, 1]], -1)


def _touch(flat: Float[Tensor, "rows 15"], at: _Contacts) -> Float[Tensor, "contacts 15"]:
    """What does not change of contacts during a step; that gravity points down shows in the frame's second axes."""
    along, long = _perpendicular(at.normal), flat[:, HALF].norm(dim=-1) / 50
    one, other = flat[at.one], flat[at.other]
    arms = [_dot(arm, axis) / 50 for arm in (at.arm, at.arm_other) for axis in (at.normal, along)]
    kinds = [other[:, MOVES], one[:, BALL], other[:, BALL], one[:, RADIUS] / 30, other[:, RADIUS] / 30]
    gaps = [at.gap / 20, torch.exp(-at.gap.abs() / 2), at.normal[:, 1], along[:, 1]]
    return torch.stack([*gaps, *arms, *kinds, long[at.one], long[at.other]], -1)


def _meet(flat: Float[Tensor, "rows 15"], one: Tensor, other: Tensor, end: Tensor) -> _Contacts:
    """The contact between an end of one body and the nearest point of the other."""
    own = (end < 2)[:, None]
    pointed, stretched = torch.where(own[:, 0], one, other), torch.where(own[:, 0], other, one)
    tip = flat[pointed, PLACE] + (1 - 2 * (end % 2)).to(flat)[:, None] * flat[pointed, HALF]
    middle, half = flat[stretched, PLACE], flat[stretched, HALF]
    share = _dot(tip - middle, half) / half.square().sum(-1).clamp_min(1e-6)
    nearest = middle + share.clamp(-1, 1)[:, None] * half
    at, at_other = torch.where(own, tip, nearest), torch.where(own, nearest, tip)
    between = at_other - at
    far = between.square().sum(-1).add(1e-6).sqrt()
    normal = between / far[:, None]
    radius, radius_other = flat[one, RADIUS], flat[other, RADIUS]
    return _Contacts(
        one,
        other,
        far - radius - radius_other,
        normal,
        at + radius[:, None] * normal - flat[one, PLACE],
        at_other - radius_other[:, None] * normal - flat[other, PLACE],
    )


def _moved(
    flat: Float[Tensor, "rows 15"], before: Tensor, motion: Float[Tensor, "rows 6"], free: Tensor, seconds: float
) -> Float[Tensor, "rows 15"]:
    """Bodies after a step with the mean of the velocities before and after it, and what contacts shifted besides."""
    mean = seconds * (before[:, :3] + motion[:, :3]) / 2 + motion[:, 3:]
    angle = (free * mean[:, 2:]).squeeze(1)
    half = angle.cos()[:, None] * flat[:, HALF] + angle.sin()[:, None] * _perpendicular(flat[:, HALF])
    return torch.cat([flat[:, PLACE] + free * mean[:, :2], half, free * motion[:, :3], flat[:, RADIUS:]], -1)


def _network(numbers: int, out: int, width: int) -> nn.Sequential:
    """Two hidden layers; the last begins small: an untrained body hardly feels another."""
    last = nn.Linear(width, out)
    nn.init.normal_(last.weight, std=0.1 / width**0.5)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(numbers, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), last)


def _dot(one: Float[Tensor, "rows 2"], other: Float[Tensor, "rows 2"]) -> Float[Tensor, "rows"]:
    return (one * other).sum(-1)


def _cross(one: Float[Tensor, "rows 2"], other: Float[Tensor, "rows 2"]) -> Float[Tensor, "rows"]:
    return one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]


def _perpendicular(way: Float[Tensor, "rows 2"]) -> Float[Tensor, "rows 2"]:
    return torch.stack([-way[:, 1], way[:, 0]], -1)
