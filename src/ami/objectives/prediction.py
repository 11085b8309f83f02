"""Predict the next latents from the last and the actions, and keep the latents worth predicting."""

from __future__ import annotations

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
    state_gaussian: float = 0.3  # SIGReg of the states
    scene_gaussian: float = 1.0  # SIGReg of the scenes
    gaussian: float = 0.0  # SIGReg of both together: also makes the state say nothing of the scene
    scene_steady: float = 4.0  # variance of a scene within its clip
    inverse: float = 1.0  # error of the action read from two successive states, in its own deviations
    variance: float = 0.0  # variance hinge of the states over the batch
    covariance: float = 0.0  # of the states over the batch
    clip_variance: float = 0.0  # variance hinge of the states within the clip


def rollout_loss(model: WorldModel, seen: Latent, clip: Clip, *, rollout: int, window: int = 1) -> Float[Tensor, ""]:
    """Mean energy of what was seen, ``rollout`` steps ahead of every step from which so many can be compared.

    Imagined latents are fed back, so errors that grow along a rollout are paid for. Targets are not detached: the
    encoder learns to be predictable, and the regularisers keep it from becoming constant.
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
    return model.energy(Belief(clip.embodiment, past), actions, future).mean()


class Dynamics(Objective):
    """Only predict: for the second stage, when the encoder has been frozen."""

    def __init__(self, rollout: int = 4) -> None:
        super().__init__()
        self.rollout = rollout

    def losses(self, model: WorldModel, clip: Clip, generator: torch.Generator) -> dict[str, Tensor]:
        """One loss, ``prediction``."""
        assert isinstance(model, JEPA)
        seen = model.encode(clip)
        return {"prediction": rollout_loss(model, seen, clip, rollout=self.rollout, window=model.config.window)}


class Prediction(Objective):
    """Learn to perceive and to predict together, from pixels, with no teacher and no negatives.

    Two codes with two clocks. The *state* token is what LeWM learns (Maes et al. 2026): the next one is predicted
    through several steps, SIGReg spreads it, and an inverse-dynamics head, which must read the action from two
    successive states, keeps in it what the agent can move (without it eb_jepa falls from 97 to 1 % in Two Rooms). The
    *scene* token is LeJEPA over time: steady within a clip, Gaussian over clips, so it can only say what tells one
    episode from another and does not move: the layout. One code for both forgets one of them: the states of a clip
    pull it towards what is fast, SIGReg with a weak inverse model towards what is slow.
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
        if weigh.state_gaussian:
            losses["state_gaussian"] = weigh.state_gaussian * clips * sigreg(flat, generator)
        if weigh.scene_gaussian:
            losses["scene_gaussian"] = weigh.scene_gaussian * clips * sigreg(scene.flatten(0, 1), generator)
        if weigh.gaussian:
            losses["gaussian"] = weigh.gaussian * clips * sigreg(seen.values.flatten(2).flatten(0, 1), generator)
        if weigh.scene_steady:
            losses["scene_steady"] = weigh.scene_steady * unsteadiness(scene)
        if weigh.inverse and clip.actions is not None:
            door = model.doors[clip.embodiment]
            done = (clip.actions - door.mean) / door.std
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
