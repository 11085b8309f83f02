"""What a masked training will take, before anything is allocated: operations, memory of a GPU, hours."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

UTILISATION = 0.4  # of a GPU's peak: what large, well-fed trainings of transformers reach; loading films is not counted
_HALF, _FULL = 2, 4  # bytes of a number: activations and gathered weights, and all that the optimiser holds
_ROOM = 0.9  # of a GPU's memory: the rest goes to fragments, buffers of communication and the context


@dataclass(frozen=True)
class Accelerator:
    """A GPU as its data sheet has it."""

    peak: float  # dense bfloat16 operations a second
    memory: float  # bytes


ACCELERATORS = {
    "A100": Accelerator(312e12, 80e9),
    "H100": Accelerator(989e12, 80e9),
    "H200": Accelerator(989e12, 141e9),
    "B200": Accelerator(2250e12, 180e9),
}


@dataclass(frozen=True)
class Cluster:
    """So many GPUs of a kind."""

    gpus: int
    kind: str

    @classmethod
    def named(cls, name: str) -> Cluster:
        """``8xH100`` is eight H100. ``ValueError`` for what is no such name, or no known kind."""
        found = re.fullmatch(r"([1-9]\d{0,5})[x×](\w+)", name)
        if not found or found[2] not in ACCELERATORS:
            raise ValueError(f"there is no cluster {name!r}; say 8xH100, or so many of {', '.join(ACCELERATORS)}")
        return cls(int(found[1]), found[2])

    @property
    def of(self) -> Accelerator:
        """One of its GPUs."""
        return ACCELERATORS[self.kind]


@dataclass(frozen=True)
class Tower:
    """A stack of transformer blocks."""

    width: int
    depth: int
    inner: int  # width of the two-layer network's middle

    def flops(self, tokens: int) -> int:
        """Operations forward for one clip; a multiplication and its addition are two.

        A block multiplies each token with width x (3 + 1) width and twice width x inner; queries meet keys, and weights
        meet values, tokens x tokens x width each.
        """
        products = 4 * self.width**2 + 2 * self.width * self.inner
        return self.depth * (2 * tokens * products + 4 * tokens**2 * self.width)

    def flops_anew(self, tokens: int) -> int:
        """Operations to find again what the backward pass needs: all but each block's last product."""
        return self.flops(tokens) - self.depth * 2 * tokens * self.width * self.inner

    @property
    def block_parameters(self) -> int:
        """Of one block."""
        return 4 * self.width**2 + 2 * self.width * self.inner + 9 * self.width + self.inner

    def kept(self, tokens: int, anew: bool) -> int:
        """Bytes that the backward pass finds again: what blocks need, or their inputs alone where that comes anew."""
        return _HALF * tokens * self.width * self.depth if anew else self.depth * self.inside(tokens)

    def inside(self, tokens: int) -> int:
        """Bytes that one block's backward pass needs.

        Of its width: the input, its norm, queries, keys and values, the first two turned, what was heard, the sum, its
        norm; of the inner one: before and after the activation.
        """
        return _HALF * tokens * (10 * self.width + 2 * self.inner)


@dataclass(frozen=True)
class Masked:
    """What masked prediction computes for a clip: the teacher all of it; for each mask, student and predictor.

    ``stem`` counts the multiplications for a token, before anything is hidden: of the layer that sees pixels, whose
    input needs no gradient, and of those after it.
    """

    encoder: Tower
    predictor: Tower
    stem: tuple[int, int]
    pixels: int  # numbers in what becomes one token
    tokens: int
    masks: tuple[tuple[int, int], ...]  # visible and hidden tokens
    anew: bool = False  # whether blocks are computed once more on the way back (as by V-JEPA 2), to keep less

    @property
    def flops(self) -> int:
        """Operations of a training step for one clip: a backward pass takes twice the forward one."""
        first, rest = (2 * self.tokens * each for each in self.stem)
        total = first + rest + self.encoder.flops(self.tokens)  # the teacher
        between = 2 * self.encoder.width * self.predictor.width  # into the predictor, and out of it
        for visible, hidden in self.masks:
            inside = self.encoder.flops(visible) + self.predictor.flops(visible + hidden)
            total += 2 * first + 3 * (rest + inside + between * (visible + hidden))
            if self.anew:
                total += self.encoder.flops_anew(visible) + self.predictor.flops_anew(visible + hidden)
        return total

    @property
    def activations(self) -> int:
        """Bytes for one clip, at the worst moment."""
        kept = _FULL * self.tokens * self.encoder.width  # the targets
        inside = [self.encoder.inside(self.tokens)]
        for visible, hidden in self.masks:
            kept += _HALF * self.tokens * self.pixels
            kept += self.encoder.kept(visible, self.anew) + self.predictor.kept(visible + hidden, self.anew)
            inside.append(self.predictor.inside(visible + hidden))
        return kept + max(inside)


@dataclass(frozen=True)
class Estimate:
    """What a training takes on a cluster."""

    flops_per_step: int
    hours: float
    gpu_hours: float
    clips_at_once: int  # on each GPU: its share of the batch, all of it in one pass
    room: int  # clips that its memory would hold
    state_bytes: int  # on each GPU: weights, gradients, the optimiser's moments and the teacher, and blocks in use
    clip_bytes: int  # for the activations of one clip
    memory_bytes: int  # on each GPU, with so many clips at once
    fits: bool


def estimate(work: Masked, trained: int, taught_by: int, *, batch: int, steps: int, cluster: Cluster) -> Estimate:
    """For ``trained`` parameters and a teacher of ``taught_by``, each a share of which lies on every GPU.

    A trained parameter is held with its gradient and two moments, a teacher's alone, all in fp32 (ZeRO stage 3:
    Rajbhandari et al. 2020, section 3.1); three blocks are gathered in bfloat16 at a time: one computes, one arrives
    and one gives its gradients away.
    """
    gpu = cluster.of
    shared = _FULL * (4 * trained + taught_by)
    block = max(work.encoder.block_parameters, work.predictor.block_parameters)
    state = math.ceil(shared / cluster.gpus) + 3 * _HALF * block
    mine = math.ceil(batch / cluster.gpus)
    room = max(int((_ROOM * gpu.memory - state) // work.activations), 0)
    flops = batch * work.flops
    hours = steps * flops / (cluster.gpus * gpu.peak * UTILISATION) / 3600
    return Estimate(
        flops_per_step=flops,
        hours=hours,
        gpu_hours=hours * cluster.gpus,
        clips_at_once=mine,
        room=room,
        state_bytes=state,
        clip_bytes=work.activations,
        memory_bytes=state + mine * work.activations,
        fits=room >= mine,
    )
