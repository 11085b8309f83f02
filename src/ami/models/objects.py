"""A world model that is told of objects instead of seeing pictures, and has learned how they move each other."""

from __future__ import annotations

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ami.models.horizon import times_ahead
from ami.nn.objects import BALL, HALF, MOVES, NUMBERS, PLACE, REMOVABLE, SPIN, THERE, VELOCITY, Mechanics, Pairs
from ami.types import Belief, Clip, Embodiment, Latent, WorldModel

_PLACE, _SPEED, _SPIN = 10.0, 30.0, 3.0  # px, px/s, 1/s: errors that count as 1


class ObjectsConfig(BaseModel):
    """What must be known to build one. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    embodiments: dict[str, Embodiment]  # one: an action has a number for each object, and above 0.5 removes it
    width: int = Field(64, ge=8)
    rounds: int = Field(3, ge=1, description="times in a step that bodies answer one another")
    below: float = Field(
        default=680.0, description="px; what has fallen so far is out of sight, and no error counts there"
    )


class ObjectModel(WorldModel):
    """Its latent is what is told of each object, one token each; no encoder is learned, only the dynamics.

    Objects come as ``Clip.proprio``, object after object: a description that a game gives of itself. The velocities
    are part of it, so a belief needs the last step only.
    """

    def __init__(self, config: ObjectsConfig) -> None:
        super().__init__()
        if len(config.embodiments) != 1:
            raise ValueError(f"a model of objects is built for one world, not for {len(config.embodiments)}")
        self.config, self.embodiments = config, config.embodiments
        (self.body,) = config.embodiments.values()
        self.latent_shape = (self.body.action_dim, NUMBERS)
        self.mechanics = Mechanics(config.width, config.rounds, self.body.step_seconds)

    def encode(self, clip: Clip) -> Latent:
        """Read the description of each step. ``ValueError`` where there is none."""
        told, wanted = clip.proprio, self.latent_shape[0] * NUMBERS
        if clip.embodiment != self.body.name or told is None or told.shape[-1] != wanted:
            came = "nothing" if told is None else f"{told.shape[-1]} numbers"
            raise ValueError(
                f"this model is told of {self.latent_shape[0]} objects of '{self.body.name}' in {wanted} numbers "
                f"(proprio); {came} of '{clip.embodiment}' came"
            )
        return Latent(told.unflatten(-1, self.latent_shape), clip.times)

    def believe(
        self,
        belief: Belief | None,
        seen: Latent,
        actions: Float[Tensor, "batch time action"] | None,
        embodiment: str = "",
    ) -> Belief:
        """Hold the last step."""
        name = belief.embodiment if belief else embodiment or self.body.name
        return Belief(name, Latent(seen.values[:, -1:], seen.times[:, -1:]))

    def predict(self, belief: Belief, actions: Float[Tensor, "batch horizon action"] | None, horizon: int) -> Latent:
        """Remove what is removed, and let the rest move, step after step."""
        wanted = (len(belief), horizon, self.latent_shape[0])
        if actions is None or actions.shape != wanted:
            came = "none" if actions is None else tuple(actions.shape)
            raise ValueError(f"actions of shape {wanted} say which objects are removed at each step; {came} came")
        objects, passed = belief.latents.values[:, -1], []
        pairs = Pairs.of(objects)
        for removed in actions.unbind(1):
            gone = (removed > 0.5) & (objects[..., REMOVABLE] > 0)
            objects = self.mechanics(objects.masked_fill(gone[..., None], 0.0), pairs)
            passed.append(objects)
        return Latent(torch.stack(passed, 1), times_ahead(belief.latents.times, self.body.step_seconds, horizon))

    def energy(
        self, belief: Belief, actions: Float[Tensor, "batch horizon action"] | None, future: Latent
    ) -> Float[Tensor, "batch horizon"]:
        """How far what moves is from where it was imagined, and how differently it moves: the mean over objects.

        A pseudo-Huber distance: a ball that by a hair went the other way shall not outweigh all others.
        """
        imagined, seen = self.predict(belief, actions, future.steps).values, future.values
        missed = [
            _soft((imagined[..., part] - seen[..., part]) / unit).sum(-1)
            for part, unit in ((PLACE, _PLACE), (HALF, _PLACE), (VELOCITY, _SPEED))
        ]
        # How a ball turns is hardly seen, and matters only where it rolls.
        missed.append(_soft((imagined[..., SPIN] - seen[..., SPIN]) / _SPIN) * (1 - 0.5 * seen[..., BALL]))
        counts = seen[..., THERE] * seen[..., MOVES] * (seen[..., PLACE.stop - 1] < self.config.below)
        return (torch.stack(missed).sum(0) * counts).sum(-1) / counts.sum(-1).clamp_min(1)


def _soft(error: Tensor) -> Tensor:
    """The error's size, without a corner at 0."""
    return (error.square() + 0.01).sqrt() - 0.1
