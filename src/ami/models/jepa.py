"""The joint-embedding predictive world model: it predicts what it would perceive, never pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ami.nn.encoders import StepEncoder
from ami.nn.predictors import ActionDoor, ResidualPredictor
from ami.types import Belief, Clip, Embodiment, Latent, WorldModel

STATE, SCENE = 0, 1  # the tokens of a latent


class JEPAConfig(BaseModel):
    """What must be known to build a JEPA. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    embodiments: dict[str, Embodiment]  # with action_mean and action_std, measured on the training data
    picture: int = Field(64, ge=16, multiple_of=16, description="px on a side")
    tubelet: int = Field(default=1, ge=1, description="frames in a step")
    widths: tuple[int, int, int] = Field((24, 48, 96), description="of the three layers from pixels to tokens")
    blocks: int = Field(0, ge=0, description="transformer blocks among the tokens of a step")
    dim: int = Field(16, ge=2, description="numbers in each of the two tokens of a latent")
    window: int = Field(1, ge=1, description="latents that a belief holds")
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="of the encoder while it trains; it always acts in fp32"
    )
    predictor_width: int = Field(128, ge=8)
    predictor_depth: int = Field(2, ge=0)


# One dial. Each size doubles the widths of the one before it about every second step and adds blocks; baby has none,
# because attention among sixteen tokens costs two CPU cores more than it gives.
#               tokens' width, blocks, dim, predictor width, predictor depth
_SIZES = {
    "baby": (96, 0, 16, 128, 2),
    "tiny": (192, 4, 64, 384, 3),
    "small": (384, 12, 128, 768, 4),
    "base": (768, 12, 192, 1536, 6),
    "large": (1024, 24, 256, 2048, 8),
}


def sized(
    size: str, embodiments: Mapping[str, Embodiment], *, picture: int = 64, window: int = 1, precision: str = "fp32"
) -> JEPAConfig:
    """The settings of one size: ``baby``, ``tiny``, ``small``, ``base`` or ``large``."""
    if size not in _SIZES:
        raise ValueError(f"there is no size '{size}'; choose one of {', '.join(_SIZES)}")
    width, blocks, dim, predictor_width, predictor_depth = _SIZES[size]
    return JEPAConfig(
        embodiments=dict(embodiments),
        picture=picture,
        widths=(width // 4, width // 2, width),
        blocks=blocks,
        dim=dim,
        window=window,
        precision=precision,  # pyright: ignore[reportArgumentType] (checked by the settings)
        predictor_width=predictor_width,
        predictor_depth=predictor_depth,
    )


class JEPA(WorldModel):
    """Each step becomes two tokens: the *state*, which moves, and the *scene*, which stays while an episode lasts.

    The objective makes them so (:mod:`ami.objectives.prediction`); the model only promises that the state of the next
    step depends on the held states, the scene and the action, and that the scene it imagines is the one it holds. So
    the distance to a goal in the same place is a distance of states: the scenes cancel.
    """

    def __init__(self, config: JEPAConfig) -> None:
        super().__init__()
        self.config = config
        self.embodiments = config.embodiments
        self.latent_shape = (2, config.dim)
        self.frames, self.picture = config.tubelet, config.picture
        names = tuple(sorted(config.embodiments))
        self.encoder = StepEncoder(
            picture=config.picture,
            tubelet=config.tubelet,
            widths=config.widths,
            blocks=config.blocks,
            out=2 * config.dim,
            embodiments={name: config.embodiments[name] for name in names},
            precision=config.precision,
        )
        self.predictor = ResidualPredictor(
            history=config.window * config.dim,
            context=config.dim,
            width=config.predictor_width,
            depth=config.predictor_depth,
            state=config.dim,
        )
        self.doors = nn.ModuleDict({name: _door(config.embodiments[name], config.predictor_width) for name in names})

    def encode(self, clip: Clip) -> Latent:
        """Perceive each step by itself. Needs video of the size that the model was built for."""
        self._body(clip.embodiment)
        if clip.latents is not None:
            return Latent(clip.latents, clip.times)
        if clip.video is None:
            raise ValueError("this model perceives video, and the clip has none; record one with a camera")
        if not clip.video.shape[0] * clip.video.shape[1]:
            raise ValueError("the clip is empty: it has no rows or no steps, so there is nothing to perceive")
        felt = None if clip.proprio is None else clip.proprio.flatten(0, 1)
        perceived = self.encoder(clip.video.flatten(0, 1), felt, clip.embodiment)
        return Latent(perceived.view(len(clip), clip.steps, 2, self.config.dim), clip.times)

    def believe(
        self,
        belief: Belief | None,
        seen: Latent,
        actions: Float[Tensor, "batch time action"] | None,
        embodiment: str = "",
    ) -> Belief:
        """Hold the last ``window`` latents, and the actions between them."""
        name = embodiment if belief is None else belief.embodiment
        self._body(name)
        values, times, done = seen.values, seen.times, actions
        if belief is not None:
            values = torch.cat([belief.latents.values, values], 1)
            times = torch.cat([belief.latents.times, times], 1)
            if actions is not None and belief.actions is not None:
                done = torch.cat([belief.actions, actions], 1)
        keep = min(self.config.window, values.shape[1])
        held = None if done is None else done[:, done.shape[1] - (keep - 1) :]
        return Belief(name, Latent(values[:, -keep:], times[:, -keep:]), held)

    def predict(self, belief: Belief, actions: Float[Tensor, "batch horizon action"] | None, horizon: int) -> Latent:
        """Imagine ``horizon`` steps; the scene stays."""
        body = self._body(belief.embodiment)
        self._check(body, actions, horizon)
        held, dim = belief.latents.values, self.config.dim
        scene = held[:, -1, SCENE]
        # A belief younger than the window has been still until now: its oldest state stands in for what was before.
        states = held[:, :, STATE]
        missing = self.config.window - states.shape[1]
        history = torch.cat([states[:, :1].expand(-1, missing, -1), states], 1).flatten(1)
        passed = []
        for condition in self.door(belief.embodiment)(actions, self.predictor.context(scene), horizon):
            state = history[:, -dim:] + self.predictor(history, condition)
            history = torch.cat([history[:, dim:], state], 1) if self.config.window > 1 else state
            passed.append(state)
        imagined = torch.stack([torch.stack(passed, 1), scene[:, None].expand(-1, horizon, -1)], 2)
        ahead = body.step_seconds * torch.arange(1, horizon + 1).to(belief.latents.times)
        return Latent(imagined, belief.latents.times[:, -1:] + ahead)

    def energy(
        self, belief: Belief, actions: Float[Tensor, "batch horizon action"] | None, future: Latent
    ) -> Float[Tensor, "batch horizon"]:
        """Squared distance from what was imagined, mean over tokens and dim. A latent's own variance is 1."""
        imagined = self.predict(belief, actions, future.steps)
        return (future.values - imagined.values).square().mean((-1, -2))

    def door(self, embodiment: str) -> ActionDoor:
        """Where an embodiment's actions come in."""
        return cast(ActionDoor, self.doors[embodiment])

    def _body(self, name: str) -> Embodiment:
        if name not in self.embodiments:
            known = ", ".join(sorted(self.embodiments))
            raise ValueError(f"this model was not trained with the embodiment '{name}'; it knows {known}")
        return self.embodiments[name]

    @staticmethod
    def _check(body: Embodiment, actions: Tensor | None, horizon: int) -> None:
        if (actions is None) != (body.action_dim == 0):
            needs = f"{body.action_dim} numbers an action" if body.action_dim else "no actions"
            raise ValueError(f"'{body.name}' has {needs}; {'none' if actions is None else 'some'} were given")
        if actions is not None and actions.shape[1:] != (horizon, body.action_dim):
            raise ValueError(
                f"{horizon} steps of '{body.name}' need actions of shape (batch, {horizon}, {body.action_dim}), "
                f"not {tuple(actions.shape)}"
            )


def _door(body: Embodiment, width: int) -> ActionDoor:
    """Statistics that are missing mean that actions come as they are."""
    mean = body.action_mean or (0.0,) * body.action_dim
    std = body.action_std or (1.0,) * body.action_dim
    return ActionDoor(mean, std, width)
