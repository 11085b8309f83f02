"""Predict the next latents from the last and the actions, and keep the latents worth predicting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ami import parallel
from ami.models.jepa import JEPA, SCENE, STATE
from ami.objectives.regularizers import clip_variance_hinge, covariance, sigreg, unsteadiness, variance_hinge
from ami.types import Belief, Clip, Latent, Objective, WorldModel


@dataclass(frozen=True)
class PredictionSettings:
    """The weight of each loss; at 0 it is not computed."""

    rollout: int = 4  # steps imagined before the last comparison
    gaussian: float = 0.2  # SIGReg of state and scene together
    scene_steady: float = 4.0  # variance of a scene within its clip
    inverse: float = 1.0  # error of the action read from two successive states, in its own deviations
    variance: float = 0.0  # variance hinge of the states over the batch
    covariance: float = 0.0  # of the states over the batch
    clip_variance: float = 0.0  # variance hinge of the states within the clip


def rollout_loss(
    model: WorldModel, seen: Latent, clip: Clip, *, rollout: int, window: int = 1, displaced: Tensor | None = None
) -> Float[Tensor, ""]:
    """Mean energy of what was seen, ``rollout`` steps ahead of every step from which so many can be compared.

    Imagined latents are fed back, so errors that grow along a rollout are paid for. Targets are not detached: the
    encoder learns to be predictable, and the regularisers keep it from becoming constant. ``displaced`` (batch tokens
    dim) is added to the past and to the future alike: changes should then depend on the action and little on the place.
    """
    last = seen.steps - rollout
    if last < window:
        raise ValueError(
            f"a clip of {seen.steps} steps is too short for {rollout} steps ahead of {window}; "
            f"give clips of at least {rollout + window} steps"
        )
    starts = range(window - 1, last)

    def windows(tensor: Tensor, offset: int, length: int) -> Tensor:
        return torch.cat([tensor[:, start + offset : start + offset + length] for start in starts])

    past = Latent(windows(seen.values, 1 - window, window), windows(seen.times, 1 - window, window))
    future = Latent(windows(seen.values, 1, rollout), windows(seen.times, 1, rollout))
    actions = None if clip.actions is None else windows(clip.actions, 0, rollout)
    if displaced is not None:
        offset = displaced.repeat(len(starts), 1, 1)[:, None]
        past, future = Latent(past.values + offset, past.times), Latent(future.values + offset, future.times)
    return model.energy(Belief(clip.embodiment, past), actions, future).mean()


class Dynamics(Objective):
    """Only predict: for the second stage, when the encoder has been frozen.

    ``displace`` names embodiments with little data, and how far (in deviations of a latent) whole clips of theirs are
    moved at random in latent space. From 17 robot episodes a predictor otherwise learns each kitchen by heart.
    """

    def __init__(self, rollout: int = 4, displace: Mapping[str, float] | None = None, inverse: float = 1.0) -> None:
        super().__init__()
        self.rollout, self.displace, self.inverse = rollout, dict(displace or {}), inverse

    def losses(self, model: WorldModel, clip: Clip, generator: torch.Generator) -> dict[str, Tensor]:
        """``prediction``; and ``inverse`` where the model learns ways: from one state to the next, what was done."""
        assert isinstance(model, JEPA)
        seen, far = model.encode(clip), self.displace.get(clip.embodiment, 0.0)
        offset = None
        if far:  # drawn for all ranks' rows, for generators draw alike
            drawn = torch.randn((parallel.size(), *seen.values[:, 0].shape), generator=generator)
            offset = drawn[parallel.rank()].to(seen.values) * far
        window = model.config.window
        loss = rollout_loss(model, seen, clip, rollout=self.rollout, window=window, displaced=offset)
        losses = {"prediction": loss}
        if clip.embodiment in model.reaches and clip.actions is not None:
            way, state = model.way(clip.embodiment), seen.values[:, :, STATE]
            acted = way.action(state[:, 0], model.aim(seen.values[:, 1], clip.embodiment), seen.values[:, 0, SCENE])
            losses["inverse"] = self.inverse * ((acted - clip.actions[:, 0]) / (way.high - way.low)).abs().mean()
        return losses


class Prediction(Objective):
    """Learn to perceive and to predict together, from pixels, with no teacher and no negatives.

    Two codes with two clocks. The *state* token is what LeWM learns (Maes et al. 2026): the next one is predicted
    through several steps, and an inverse-dynamics head, which must read the action from two successive states, keeps
    in it what the agent can move (without it eb_jepa falls from 97 to 1 % in Two Rooms). The *scene* token is steady
    within a clip, so it can only say what tells one episode from another and does not move: the layout (LeJEPA over
    time). SIGReg of both *together* keeps them from collapsing and, because a joint standard Gaussian has independent
    parts, pushes out of the state whatever the scene says already. SIGReg of each by itself left five sixths of the
    state's variance between episodes: distances then told layouts apart, not places. A strong one folds the two
    dimensions of a place into all sixteen, and distances saturate at a third of the room.
    """

    def __init__(self, model: JEPA, settings: PredictionSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or PredictionSettings()
        dim = model.config.dim
        acting = {name: body.action_dim for name, body in sorted(model.embodiments.items()) if body.action_dim}
        self.inverse = nn.ModuleDict({name: _InverseDynamics(dim, count) for name, count in acting.items()})

    def losses(self, model: WorldModel, clip: Clip, generator: torch.Generator) -> dict[str, Tensor]:
        """``prediction``, and each regulariser that has a weight."""
        assert isinstance(model, JEPA)
        weigh, seen = self.settings, model.encode(clip)
        state, scene = seen.values[:, :, STATE], seen.values[:, :, SCENE]
        flat, clips = state.flatten(0, 1), len(clip) * parallel.size()
        losses = {"prediction": rollout_loss(model, seen, clip, rollout=weigh.rollout, window=model.config.window)}
        if weigh.gaussian:
            losses["gaussian"] = weigh.gaussian * clips * sigreg(seen.values.flatten(2).flatten(0, 1), generator)
        if weigh.scene_steady:
            losses["scene_steady"] = weigh.scene_steady * unsteadiness(scene)
        if weigh.inverse and clip.actions is not None:
            done = model.door(clip.embodiment).normal(clip.actions)
            losses["inverse"] = weigh.inverse * functional.mse_loss(self.inverse[clip.embodiment](state), done)
        if weigh.variance:
            losses["variance"] = weigh.variance * variance_hinge(flat)
        if weigh.covariance:
            losses["covariance"] = weigh.covariance * covariance(flat)
        if weigh.clip_variance:
            losses["clip_variance"] = weigh.clip_variance * clip_variance_hinge(state)
        return losses


class _InverseDynamics(nn.Module):
    def __init__(self, dim: int, actions: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2 * dim, 128), nn.ReLU(), nn.Linear(128, actions))

    def forward(self, state: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time-1 action"]:
        """The action done between each two successive states, normalised."""
        return self.layers(torch.cat([state[:, :-1], state[:, 1:]], -1))
