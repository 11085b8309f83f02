"""Other memories for the same eyes, beside one that is keyed by place: recurrent cells, and all of the past."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ami.nn.places import Pose, between
from ami.nn.precision import fast_precision
from ami.training.loop import drawn_from
from ami.training.optim import Optimisation

_WAVES = torch.pi * torch.tensor([0.125, 0.25, 0.5, 1.0])  # radians in a metre
_TOLD = 2 * (2 * len(_WAVES) + 1) + 2  # numbers that tell networks of a pose
_FAR = 5.0  # metres: what counts as one
_NEAR = (0.3, 0.3, 0.4)  # metres, metres, radians: what attention begins by taking for a small difference
_FLOOR = 0.05  # of a token's variance: an error is never expected to be so small that less would surprise
_SLOW = 4.0  # a minGRU begins by changing 1 / (1 + e^4) of what it holds in a step


class Cell(nn.Module):
    """Keeps what is seen and from where, and tells what would be seen from elsewhere.

    What it holds is a tensor that goes in and comes out. It is told where it is, which a model must find out.
    """

    def __init__(self, shape: tuple[int, int], read: int, width: int) -> None:
        super().__init__()
        self.shape = shape
        layers = nn.Linear(read, 2 * width), nn.ReLU(), nn.Linear(2 * width, 2 * width), nn.ReLU()
        self.out = nn.Sequential(*layers, nn.Linear(2 * width, shape[0] * (shape[1] + 1)))

    def keep(
        self, held: Tensor | None, seen: Float[Tensor, "rows steps column dim"], poses: Float[Tensor, "rows steps 3"]
    ) -> Tensor:
        """What is held after some more steps; ``None`` before any."""
        raise NotImplementedError

    def read(self, held: Tensor, poses: Float[Tensor, "rows view 3"]) -> Float[Tensor, "rows view number"]:
        """What is held of what is seen from each pose."""
        raise NotImplementedError

    def tell(self, held: Tensor, poses: Float[Tensor, "rows view 3"]) -> tuple[Tensor, Tensor]:
        """The tokens expected from each pose, and the logarithm of each one's expected squared error."""
        told = self.out(self.read(held, poses)).unflatten(-1, (self.shape[0], -1))
        return told[..., :-1], told[..., -1].clamp(-8.0, 4.0)

    def misfits(
        self, held: Tensor, poses: Float[Tensor, "rows view 3"], seen: Float[Tensor, "rows view answer column dim"]
    ) -> Float[Tensor, "rows view answer"]:
        """How badly each of the pictures that might be seen from a pose fits: as a model of places says it."""
        tokens, doubt = self.tell(held, poses)
        error = (seen - tokens[:, :, None]).square().mean(-1)
        return (error / (doubt.exp() + _FLOOR)[:, :, None]).mean(-1)


class _Recurrent(Cell):
    """Holds as many numbers, however much was seen."""

    def __init__(self, shape: tuple[int, int], width: int) -> None:
        super().__init__(shape, 2 * width + _TOLD, width)
        self.door = nn.Linear(shape[0] * shape[1] + _TOLD, width)

    def keep(self, held: Tensor | None, seen: Tensor, poses: Tensor) -> Float[Tensor, "rows hidden"]:
        """The hidden state."""
        return self.go(held, torch.relu(self.door(torch.cat([seen.flatten(2), _told(poses)], -1))))

    def read(self, held: Float[Tensor, "rows hidden"], poses: Tensor) -> Tensor:
        """All of it, and the pose that is asked for."""
        return torch.cat([held[:, None].expand(-1, poses.shape[1], -1), _told(poses)], -1)

    def go(self, held: Tensor | None, told: Float[Tensor, "rows steps width"]) -> Float[Tensor, "rows hidden"]:
        """Through some steps."""
        raise NotImplementedError


class GRU(_Recurrent):
    """Source: Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder", section 2.3."""

    def __init__(self, shape: tuple[int, int], width: int) -> None:
        super().__init__(shape, width)
        self.cell = nn.GRU(width, 2 * width, batch_first=True)

    def go(self, held: Tensor | None, told: Float[Tensor, "rows steps width"]) -> Float[Tensor, "rows hidden"]:
        """Through some steps."""
        return self.cell(told, None if held is None else held[None])[1][0]


class MinGRU(_Recurrent):
    """A gate that does not look at what is held, so that nothing but time wears it away.

    Source: Feng et al. 2024, "Were RNNs all we needed?", section 3.1.
    """

    def __init__(self, shape: tuple[int, int], width: int) -> None:
        super().__init__(shape, width)
        self.gate, self.new = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width)
        nn.init.constant_(self.gate.bias, -_SLOW)

    def go(self, held: Tensor | None, told: Float[Tensor, "rows steps width"]) -> Float[Tensor, "rows hidden"]:
        """Through some steps."""
        gate, new = torch.sigmoid(self.gate(told)), self.new(told)
        held = torch.zeros_like(new[:, 0]) if held is None else held
        for step in range(told.shape[1]):
            held = torch.lerp(held, new[:, step], gate[:, step])
        return held


class Attention(Cell):
    """Holds all that was seen, and looks through all of it for each answer: what no memory of one size can beat.

    How much each step counts is learned, and begins with how near to the pose that is asked for it was seen. Source:
    Bahdanau, Cho and Bengio 2015, "Neural machine translation by jointly learning to align and translate", appendix
    A.1.2 (additive attention).
    """

    heads = 4

    def __init__(self, shape: tuple[int, int], width: int) -> None:
        super().__init__(shape, width + _TOLD, width)
        self.shown = nn.Linear(shape[0] * shape[1], width)
        self.apart = nn.Linear(_TOLD, width)
        self.counts = nn.Linear(width, self.heads)
        self.near = nn.Parameter(torch.tensor(_NEAR).reciprocal().expand(self.heads, -1).clone())

    def keep(self, held: Tensor | None, seen: Tensor, poses: Tensor) -> Float[Tensor, "rows steps number"]:
        """Of each step, what it showed and from where: it grows."""
        new = torch.cat([self.shown(seen.flatten(2)), poses], -1)
        return new if held is None else torch.cat([held, new], 1)

    def read(self, held: Float[Tensor, "rows steps number"], poses: Tensor) -> Tensor:
        """A mean over all steps, by what counts for each pose that is asked for."""
        shown, past = held.tensor_split([-3], -1)
        shape = *poses.shape[:2], past.shape[1], 3  # rows, views, steps
        apart = between(poses[:, :, None].expand(shape), past[:, None].expand(shape))
        hidden = torch.relu(shown[:, None] + self.apart(_told(apart)))
        far = torch.einsum("rvsa,ha->rvsh", apart.square(), self.near.square())
        counts = (self.counts(hidden) - far).softmax(2)
        read = torch.einsum("rvsh,rvshn->rvhn", counts, hidden.unflatten(-1, (self.heads, -1)))
        return torch.cat([read.flatten(2), _told(poses)], -1)


CELLS = {"GRU": GRU, "minGRU": MinGRU, "attention": Attention}


@dataclass(frozen=True)
class Teaching:
    """How a cell is taught; every cell alike."""

    steps: int = 250
    batch: int = 16  # walks
    views: int = 16  # asked for, of each walk
    least: float = 0.25  # share of a walk that is lived through before, at least
    width: int = 256  # of the layers; a recurrent cell holds twice as many numbers
    rate: float = 2e-3
    warmup: int = 30  # steps
    bold: float = 8.0  # a token counts by its squared length, but no more than this
    doubt: float = 0.05  # weight of the error of the expected error


def taught(
    kind: str,
    seen: Float[Tensor, "walks steps column dim"],
    poses: Float[Tensor, "walks steps 3"],
    how: Teaching,
    generator: torch.Generator,
) -> Cell:
    """A cell that has learned to tell what was, or will be, seen at any step of a walk, from some of its steps.

    It is the objective of a model of places (:class:`ami.objectives.revisits.Revisits`), but that pictures are frozen
    and that half or more of what is asked for was seen from that very pose, so it is easier.
    """
    with drawn_from(int(torch.randint(2**31, (), generator=generator))):
        cell = CELLS[kind]((seen.shape[2], seen.shape[3]), how.width)
    optimisation = Optimisation(how.rate, how.warmup)
    optimiser = optimisation.build(cell.parameters())
    for step in range(how.steps):
        row = torch.randint(len(seen), (how.batch,), generator=generator)
        until = int(torch.randint(round(how.least * seen.shape[1]), seen.shape[1], (), generator=generator))
        asked = torch.randint(seen.shape[1], (how.batch, how.views), generator=generator)
        target = seen[row[:, None], asked]
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_precision() == "bf16"):
            held = cell.keep(None, seen[row, :until], poses[row, :until])
            tokens, doubt = (each.float() for each in cell.tell(held, poses[row[:, None], asked]))
        error, bold = (tokens - target).square().mean(-1), target.square().mean(-1).clamp(max=how.bold)
        learned = (doubt - (error.detach() + 1e-3).log()).square().mean()
        loss = (error * bold).mean() / bold.mean() + how.doubt * learned
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(cell.parameters(), optimisation.clip)
        for group in optimiser.param_groups:
            group["lr"] = optimisation.rate_at(step, how.steps)
        optimiser.step()
    return cell.eval()


def _told(pose: Pose) -> Float[Tensor, "*rows told"]:
    """A pose as networks are told of it: waves of several lengths, and no jump where the heading goes round."""
    waves = (pose[..., :2, None] * _WAVES).flatten(-2)
    return torch.cat([waves.sin(), waves.cos(), pose[..., 2:].sin(), pose[..., 2:].cos(), pose[..., :2] / _FAR], -1)
