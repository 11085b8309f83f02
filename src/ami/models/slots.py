"""A film as things that go on: pictures tell where things are, slots hold them, and what is hidden moves on in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from ami.models.horizon import fitting, times_ahead
from ami.models.pictures import each_alone
from ami.nn.predictors import ActionDoor
from ami.nn.slots import CELL, KEPT, TOLD, Ahead, Maps, SlotMemory, Slots, SlotStem
from ami.types import Belief, Clip, Embodiment, Latent, WorldModel

_CHUNK = 384  # pictures at a time


class SlotConfig(BaseModel):
    """What must be known to build a slot JEPA. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    embodiments: dict[str, Embodiment]
    picture: int = Field(64, ge=32, multiple_of=4, description="px on a side")
    slots: int = Field(default=5, ge=1, description="things that can be held at once")
    stem: int = Field(32, ge=8, multiple_of=2, description="width of the layers that see")
    around: int = Field(12, ge=2, description="numbers of a cell that tell a thing what is around it")
    memory: int = Field(64, ge=8, description="numbers held of a thing beside place, pace and looks")
    width: int = Field(96, ge=8, description="of the layers that say how things go on")
    acts: int = Field(default=8, ge=1, description="numbers that tell what is done")


class Followed(NamedTuple):
    """What a film was like for its slots, at each step after the first."""

    place: Float[Tensor, "batch time-1 slot 2"]  # where each was expected
    looked: Float[Tensor, "batch time-1 slot 2"]  # where it was, as far as that was told
    told: Float[Tensor, "batch time-1 slot"]
    there: Float[Tensor, "batch time-1 slot"]  # before the look
    looks: Float[Tensor, "batch time-1 slot"]
    old: Float[Tensor, "batch time-1 slot"]  # whether it is the same that was in it the step before


class SlotJEPA(WorldModel):
    """Expect where things will be, look, be surprised, hold on to them.

    A latent is a map of 2 px cells: how much of a thing is in each and of what colour (4 numbers), whether something
    stands before things there (1), and what a thing should know of it (the rest). ``Belief.recurrent`` is (batch,
    slots, numbers): where each thing is, how fast it goes, what it is like, what was seen of it. What is expected is
    painted from that, so energy is asked in the space of what is perceived. A belief of any length of film costs the
    same.
    """

    def __init__(self, config: SlotConfig) -> None:
        super().__init__()
        self.config, self.embodiments, self.picture = config, config.embodiments, config.picture
        self.side = config.picture // CELL
        self.latent_shape = (self.side**2, sum(TOLD) + config.around)
        self.lives = tuple(sorted(config.embodiments))
        self.stem = SlotStem(config.stem)
        self.around = nn.Sequential(
            nn.Conv2d(config.stem + 5, 2 * config.around, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(2 * config.around, config.around, 3, 1, 1),
            nn.ReLU(),
        )
        sizes = {"around": config.around, "memory": config.memory, "width": config.width}
        self.memory = SlotMemory(side=self.side, slots=config.slots, acts=config.acts, **sizes)
        self.doors = nn.ModuleDict(
            {
                name: ActionDoor(body.action_mean, body.action_std, config.acts)
                for name, body in config.embodiments.items()
            }
        )

    def encode(self, clip: Clip) -> Latent:
        """Perceive each picture by itself. Needs video of the size that the model was built for."""
        self.known(clip.embodiment)
        if clip.latents is not None:
            return Latent(clip.latents, clip.times)
        pictures = each_alone(clip, self.config.picture)
        maps = torch.cat([self._perceived(part) for part in pictures.split(_CHUNK)])
        return Latent(maps.flatten(2).transpose(1, 2).unflatten(0, tuple(clip.times.shape)), clip.times)

    def believe(
        self,
        belief: Belief | None,
        seen: Latent,
        actions: Float[Tensor, "batch time action"] | None,
        embodiment: str = "",
    ) -> Belief:
        """Live through what was seen; the first picture ever is taken as it is."""
        name = belief.embodiment if belief else embodiment
        held = None if belief is None else self._held(belief)
        before = None if belief is None else self._maps(belief.latents.values[:, -1])
        fitting(self.known(name), actions, seen.steps - (belief is None))
        done = 0
        for step in range(seen.steps):
            now = self._maps(seen.values[:, step])
            if held is None or before is None:
                held = self.memory.first(*now[:2])
            else:
                acts = self._acts(name, None if actions is None else actions[:, done], now.things)
                done += 1
                held, _ = self.memory.look(held, self._ahead(held, before, acts), *now[:2], acts)
            before = now
        assert held is not None
        return Belief(name, Latent(seen.values[:, -1:], seen.times[:, -1:]), recurrent=held.flat())

    def predict(self, belief: Belief, actions: Float[Tensor, "batch horizon action"] | None, horizon: int) -> Latent:
        """Go on without looking; what is around things and stands before them stays as it was seen last."""
        last = belief.latents.values[:, -1, :, KEPT:]
        painted = self._imagine(belief, actions, horizon)
        values = [torch.cat([each.flatten(2).transpose(1, 2), last], -1) for each in painted]
        body = self.known(belief.embodiment)
        return Latent(torch.stack(values, 1), times_ahead(belief.latents.times, body.step_seconds, horizon))

    def energy(
        self, belief: Belief, actions: Float[Tensor, "batch horizon action"] | None, future: Latent
    ) -> Float[Tensor, "batch horizon"]:
        """The squared error of what was painted, all cells together where nothing stands before them; squared again.

        In cells that are wholly wrong, squared: a thing that is somewhere else is one surprise, and who is followed
        imperfectly for a whole film is none.
        """
        energies = []
        for step, painted in enumerate(self._imagine(belief, actions, future.steps)):
            seen = self._maps(future.values[:, step])
            missed = (seen.things - painted).square() * (1 - seen.covered)
            energies.append(missed.sum((1, 2, 3)).square())
        return torch.stack(energies, 1)

    def follow(self, seen: Latent, actions: Tensor | None, name: str) -> Followed:
        """Go through films from their beginning, and keep what was expected and what was then seen of each slot."""
        before, kept = self._maps(seen.values[:, 0]), []
        held = self.memory.first(*before[:2])
        for step in range(1, seen.steps):
            now = self._maps(seen.values[:, step])
            acts = self._acts(name, None if actions is None else actions[:, step - 1], now.things)
            ahead = self._ahead(held, before, acts)
            after, look = self.memory.look(held, ahead, *now[:2], acts)
            kept.append((ahead.place, look.place, look.told.float(), held.there, held.looks, (held.looks > 0).float()))
            held, before = after, now
        return Followed(*(torch.stack(each, 1) for each in zip(*kept, strict=True)))

    def _perceived(self, pictures: Tensor) -> Maps:
        told, numbers = self.stem(pictures)
        things, covered = torch.sigmoid(2 * told[:, :1]), torch.sigmoid(told[:, 1:])
        colours = functional.avg_pool2d(pictures.float(), CELL) / 127.5 - 1
        beside = torch.cat([numbers / 4 * (1 - covered), covered, things, colours], 1)
        around = self.around(beside.contiguous(memory_format=torch.channels_last)).float()
        around = around * (1 - functional.max_pool2d(covered, 5, 1, 2))  # the rim of what covers looks like a wall
        return torch.cat([things, things * colours, covered, around], 1)

    def _ahead(self, held: Slots, before: _Told, acts: Tensor) -> Ahead:
        return self.memory.expect(held, before.around, before.covered, acts)

    def _imagine(self, belief: Belief, actions: Tensor | None, horizon: int) -> list[Maps]:
        """What should show of things at each step."""
        fitting(self.known(belief.embodiment), actions, horizon)
        held, last = self._held(belief), self._maps(belief.latents.values[:, -1])
        futures = []
        for step in range(horizon):
            acts = self._acts(belief.embodiment, None if actions is None else actions[:, step], held.place)
            ahead = self._ahead(held, last, acts)
            futures.append(self.memory.paint(held, ahead))
            held = self.memory.go_on(held, ahead, acts)
        return futures

    def _maps(self, tokens: Float[Tensor, "batch tokens channel"]) -> _Told:
        maps = tokens.transpose(1, 2).unflatten(2, (self.side, self.side))
        return _Told(*maps.split([*TOLD, self.config.around], 1))

    def _held(self, belief: Belief) -> Slots:
        assert belief.recurrent is not None
        return Slots.of(belief.recurrent)

    def _acts(self, name: str, action: Tensor | None, like: Tensor) -> Float[Tensor, "batch act"]:
        door = cast(ActionDoor, self.doors[name])
        return door(action, like.new_zeros(len(like), self.config.acts))


class _Told(NamedTuple):
    """A latent as maps."""

    things: Maps
    covered: Maps
    around: Maps


def sized(embodiments: Mapping[str, Embodiment], size: str = "baby", picture: int = 64) -> SlotConfig:
    """The settings of one size: ``baby``, ``tiny`` or ``small``; each doubles the widths of the one before it."""
    if size not in _SIZES:
        raise ValueError(f"there is no slot JEPA of size '{size}'; choose one of {', '.join(_SIZES)}")
    times = _SIZES[size]
    return SlotConfig(
        embodiments=dict(embodiments),
        picture=picture,
        stem=32 * times,
        around=12 * times,
        memory=64 * times,
        width=96 * times,
    )


_SIZES = {"baby": 1, "tiny": 2, "small": 4}
