"""A film lived through: each picture is a grid of tokens, and a memory on that grid holds what is out of sight."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ami.models.horizon import fitting, times_ahead
from ami.models.pictures import each_alone
from ami.nn.grid import CELL, Grid, GridMemory, GridStem, Held, Leap
from ami.nn.norm import EmbodimentNorm
from ami.nn.predictors import ActionDoor
from ami.types import Belief, Clip, Embodiment, Latent, WorldModel

_CHUNK = 256  # pictures at a time
_FLOOR = 0.05  # of a token's variance: an error is never expected to be so small that less would surprise
_LEAPS = 0.3  # weight of a leap's energy: who is asked about eight steps is more often surprised for no reason
_WARY = 3  # power of the second layer's gain: where something may stand before it, hardly anything is learned of it


class RecurrentConfig(BaseModel):
    """What must be known to build a recurrent JEPA. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    embodiments: dict[str, Embodiment]  # with action_mean and action_std where there are actions
    picture: int = Field(64, ge=16, multiple_of=CELL, description="px on a side")
    stem: int = Field(64, ge=8, multiple_of=2, description="width of the layers from pixels to tokens")
    dim: int = Field(32, ge=2, description="numbers in a token")
    memory: int = Field(64, ge=2, description="numbers held in each cell, out of sight")
    width: int = Field(128, ge=8, description="of the layers of the memory")
    screened: tuple[str, ...] = Field(default=(), description="embodiments whose films taught it what a screen is")
    leap: int = Field(default=0, ge=0, description="steps of their films that are foretold at once; 0: none ever")
    leaping: int = Field(default=2, ge=0, description="blocks of what foretells them")


class Lived(NamedTuple):
    """What a film was like, at each step after the first."""

    expected: Float[Tensor, "batch time-1 tokens layers*dim"]
    doubt: Float[Tensor, "batch time-1 tokens"]  # the logarithm of the squared error expected of what shows
    gain: Float[Tensor, "batch time-1 tokens 2"]  # of each layer, before the sigmoid; the second is low behind a screen
    held: Float[Tensor, "batch time-1 tokens held"]  # before each step, as ``Belief.recurrent``


class RecurrentJEPA(WorldModel):
    """Expect the next grid, look, be surprised, remember.

    ``Belief.recurrent`` is (batch, tokens, memory + 2 dim): in each cell the memory, what is taken to show there, and
    what would if nothing stood before it; ``Belief.earlier`` is what was held at the steps before, as many as a leap
    passes over. A belief of any length of film costs the same, and is a value: it can be saved, compared, and changed
    so that it fits what came later (:mod:`ami.reasoning.causes`).
    """

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config, self.embodiments, self.picture = config, config.embodiments, config.picture
        self.side = config.picture // CELL
        self.latent_shape = (self.side**2, config.dim)
        self.lives = names = tuple(sorted(config.embodiments))
        self.stem = GridStem(config.stem, config.dim)
        self.norm = EmbodimentNorm(names, config.dim)
        self.memory = GridMemory(dim=config.dim, memory=config.memory, width=config.width)
        self.doors = nn.ModuleDict(
            {
                name: ActionDoor(
                    config.embodiments[name].action_mean, config.embodiments[name].action_std, config.width
                )
                for name in names
            }
        )
        sizes = {"dim": config.dim, "memory": config.memory, "width": config.width}
        self.leap = Leap(**sizes, blocks=config.leaping) if config.leap else None

    def encode(self, clip: Clip) -> Latent:
        """Perceive each picture by itself. Needs video of the size that the model was built for."""
        self.known(clip.embodiment)
        if clip.latents is not None:
            return Latent(clip.latents, clip.times)
        tokens = torch.cat([self.stem(part) for part in each_alone(clip, self.config.picture).split(_CHUNK)])
        flat = tokens.permute(0, 2, 3, 1).reshape(-1, self.config.dim)
        values = self.norm(flat.float(), clip.embodiment)
        return Latent(values.view(len(clip), clip.steps, *self.latent_shape), clip.times)

    def believe(
        self,
        belief: Belief | None,
        seen: Latent,
        actions: Float[Tensor, "batch time action"] | None,
        embodiment: str = "",
    ) -> Belief:
        """Live through the steps seen, one after another; the last is held as it was seen."""
        name = embodiment if belief is None else belief.embodiment
        fitting(self.known(name), actions, seen.steps - (belief is None))
        held = None if belief is None else self._held(belief)
        passed = deque([] if belief is None else self._passed(belief), max(self._leaps(name) - 1, 0))
        done = 0
        for step in range(seen.steps):
            grid = self._grid(seen.values[:, step])
            if held is None:
                held = self._first(grid, name)
                continue
            passed.append(_flat(held))
            condition = self._condition(name, None if actions is None else actions[:, done], grid)
            done += 1
            held = self._look(held, self.memory.expect(held, condition)[0], grid, condition, name)
        assert held is not None
        last = Latent(seen.values[:, -1:], seen.times[:, -1:])
        return Belief(name, last, recurrent=_flat(held), earlier=torch.stack([*passed], 1) if passed else None)

    def predict(self, belief: Belief, actions: Float[Tensor, "batch horizon action"] | None, horizon: int) -> Latent:
        """Go on without looking."""
        futures = self._imagine(belief, actions, horizon)
        body = self.known(belief.embodiment)
        times = times_ahead(belief.latents.times, body.step_seconds, horizon)
        return Latent(torch.stack([_tokens(ahead) for _, ahead, _ in futures], 1)[..., : self.config.dim], times)

    def energy(
        self, belief: Belief, actions: Float[Tensor, "batch horizon action"] | None, future: Latent
    ) -> Float[Tensor, "batch horizon"]:
        """How much each step would correct what is held, over how far off it was expected to be; mean over the cells.

        In each cell: the squared distance from what was imagined over the one that was expected, times the gain, and
        squared, for surprise is in a few cells. A blink is as unlikely as a miracle but corrects nothing: that is what
        Itti and Baldi 2009, "Bayesian surprise attracts human attention", count in place of how unlikely a step was.
        As far as the picture shows a cell to be clear (the gain of the second layer), it should show what was behind:
        so what went behind a screen is missed when it does not come out. To it is added how far the clear cells are
        from what the leap expected, ``config.leap`` steps before, where so much is held.
        """
        energies, futures = [], self._imagine(belief, actions, future.steps)
        for step, (held, ahead, doubt) in enumerate(futures):
            grid = self._grid(future.values[:, step])
            gain, clear = torch.sigmoid(self.memory.gain(held, ahead, grid)).chunk(2, 1)
            front, behind = ahead.chunk(2, 1)
            energy = _unlikely(gain, grid - clear * behind - (1 - clear) * front, doubt)
            if (begun := self._before_the_leap(belief, futures, step)) is not None:
                assert self.leap is not None
                leapt, wary = self.leap(begun)
                energy = energy + _LEAPS * _unlikely(clear, grid - leapt, wary)
            energies.append(energy)
        return torch.stack(energies, 1)

    def leap_from(
        self, held: Float[Tensor, "batch tokens held"]
    ) -> tuple[Float[Tensor, "batch tokens dim"], Float[Tensor, "batch tokens"]]:
        """What will be there ``config.leap`` steps after that was held, and how far off it expects to be."""
        assert self.leap is not None, "it was built to go step by step"
        ahead, doubt = self.leap(self._unflat(held))
        return _tokens(ahead), _tokens(doubt)[..., 0]

    def live(self, seen: Latent, actions: Tensor | None, embodiment: str, shown: Tensor | None = None) -> Lived:
        """Go through films from their beginning. ``shown`` (batch time) says at which steps they are looked at."""
        held = self._first(self._grid(seen.values[:, 0]), embodiment)
        expected, doubts, gains, before = [], [], [], []
        for step in range(1, seen.steps):
            grid = self._grid(seen.values[:, step])
            condition = self._condition(embodiment, None if actions is None else actions[:, step - 1], grid)
            ahead, doubt = self.memory.expect(held, condition)
            gain = self.memory.gain(held, ahead, grid)
            before.append(_flat(held))
            for each, found in ((expected, ahead), (doubts, doubt), (gains, gain)):
                each.append(_tokens(found))
            look = 1.0 if shown is None else shown[:, step, None, None, None].float()
            held = self.memory.correct(held, ahead, condition, grid, look * self._gains(gain, embodiment))
        lived = (torch.stack(each, 1) for each in (expected, doubts, gains, before))
        expected, doubts, gains, before = lived
        return Lived(expected, doubts[..., 0], gains, before)

    def _imagine(self, belief: Belief, actions: Tensor | None, horizon: int) -> list[tuple[Held, Grid, Grid]]:
        """For each step: what was held before it, what was expected of it, and how far off."""
        fitting(self.known(belief.embodiment), actions, horizon)
        held, futures = self._held(belief), []
        for step in range(horizon):
            condition = self._condition(belief.embodiment, None if actions is None else actions[:, step], held.now)
            ahead, doubt = self.memory.expect(held, condition)
            futures.append((held, ahead, doubt))
            held = self.memory.go_on(held, ahead, condition)
        return futures

    def _leaps(self, name: str) -> int:
        """Steps of a leap in films of an embodiment; 0: nothing of them is foretold so."""
        return self.config.leap if name in self.config.screened else 0

    def _passed(self, belief: Belief) -> list[Float[Tensor, "batch tokens held"]]:
        return [] if belief.earlier is None else list(belief.earlier.unbind(1))

    def _before_the_leap(self, belief: Belief, futures: Sequence[tuple[Held, Grid, Grid]], step: int) -> Held | None:
        """What was held, or is imagined to be, when a leap began that ends at a step of the future."""
        if not (leap := self._leaps(belief.embodiment)):
            return None
        back = leap - 1 - step
        if back <= 0:
            return futures[-back][0]
        passed = self._passed(belief)
        return self._unflat(passed[-back]) if back <= len(passed) else None

    def _first(self, grid: Grid, name: str) -> Held:
        """After the first picture, which nobody could expect."""
        begun = self.memory.begin(grid)
        return self._look(begun, begun.now, grid, self._condition(name, None, grid), name)

    def _look(self, held: Held, expected: Grid, grid: Grid, condition: Tensor, name: str) -> Held:
        gain = self._gains(self.memory.gain(held, expected, grid), name)
        return self.memory.correct(held, expected, condition, grid, gain)

    def _gains(self, told: Grid, name: str) -> Grid:
        """What each layer is corrected by; who knows screens looks behind only where the view is quite clear."""
        gain, clear = torch.sigmoid(told).chunk(2, 1)
        wary = name in self.config.screened and not self.training
        return torch.cat([gain, clear**_WARY if wary else clear], 1)

    def _held(self, belief: Belief) -> Held:
        assert belief.recurrent is not None
        return self._unflat(belief.recurrent)

    def _unflat(self, recurrent: Float[Tensor, "batch tokens held"]) -> Held:
        memory, now = recurrent.tensor_split([self.config.memory], -1)
        return Held(self._grid(memory), self._grid(now))

    def _grid(self, tokens: Float[Tensor, "batch tokens channel"]) -> Grid:
        return tokens.unflatten(1, (self.side, self.side)).permute(0, 3, 1, 2)

    def _condition(self, name: str, action: Tensor | None, grid: Grid) -> Float[Tensor, "batch width"]:
        door = cast(ActionDoor, self.doors[name])
        return door(action, grid.new_zeros(len(grid), self.config.width))


def _unlikely(weight: Grid, missed: Grid, doubt: Grid) -> Float[Tensor, "batch"]:
    """The mean over cells of squares of their squared error over the one that was expected."""
    return (weight * missed.square().mean(1, keepdim=True) / (torch.exp(doubt) + _FLOOR)).square().mean((1, 2, 3))


def _flat(held: Held) -> Float[Tensor, "batch tokens held"]:
    return torch.cat([_tokens(held.memory), _tokens(held.now)], -1)


def _tokens(grid: Grid) -> Float[Tensor, "batch tokens channel"]:
    return grid.permute(0, 2, 3, 1).flatten(1, 2)


def sized(embodiments: Mapping[str, Embodiment], size: str = "baby", picture: int = 64) -> RecurrentConfig:
    """The settings of one size: ``baby``, ``tiny`` or ``small``."""
    if size not in _SIZES:
        raise ValueError(f"there is no recurrent JEPA of size '{size}'; choose one of {', '.join(_SIZES)}")
    stem, dim, memory, width = _SIZES[size]
    return RecurrentConfig(
        embodiments=dict(embodiments), picture=picture, stem=stem, dim=dim, memory=memory, width=width
    )


# One dial; each size doubles the widths of the one before it.
#         stem, dim, memory, width
_SIZES = {"baby": (64, 32, 64, 128), "tiny": (128, 64, 128, 256), "small": (256, 128, 256, 512)}
