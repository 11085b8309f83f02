"""The true simulator as a world model: what the same planner reaches when nothing is left to learn."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ami.types import Belief, Clip, Embodiment, Latent, WorldModel
from ami.worlds.rooms import EMBODIMENT, Rooms


class RoomsSimulator(WorldModel):
    """Two Rooms itself. Its latent is the truth, one token (agent x, agent y, wall x, door y) in px.

    The one model that may read ``Clip.truth``. Every row carries its own layout, and a goal is encoded with the
    layout of its row, so a distance between latents is the distance between places.
    """

    embodiments: Mapping[str, Embodiment] = {EMBODIMENT.name: EMBODIMENT}
    latent_shape = (1, 4)

    def encode(self, clip: Clip) -> Latent:
        """Read the truth. ``ValueError`` where none was recorded."""
        if clip.truth is None or clip.truth.shape[-1] != 4:
            raise ValueError("this clip holds no true state of Two Rooms, which is all that the simulator can read")
        return Latent(clip.truth[:, :, None, :], clip.times)

    def believe(
        self,
        belief: Belief | None,
        seen: Latent,
        actions: Float[Tensor, "batch time action"] | None,
        embodiment: str = "",
    ) -> Belief:
        """Only the last state matters: the world has no hidden past."""
        last = Latent(seen.values[:, -1:], seen.times[:, -1:])
        return Belief(belief.embodiment if belief else embodiment or EMBODIMENT.name, last)

    def predict(self, belief: Belief, actions: Float[Tensor, "batch horizon action"] | None, horizon: int) -> Latent:
        """Run the world forward, one model step for each action."""
        if actions is None:
            raise ValueError("nothing moves in Two Rooms by itself; give the simulator actions")
        state = belief.latents.values[:, -1, 0]
        x, y, wall, door = state.numpy(force=True).T.copy()
        rooms, position, passed = Rooms(wall, door), np.stack([x, y], -1), []
        for action in actions.numpy(force=True).transpose(1, 0, 2):
            position = rooms.step(position, action)[-1]
            passed.append(torch.from_numpy(position).to(state))
        places = torch.stack(passed, 1)
        layout = state[:, None, 2:].expand(-1, len(passed), -1)
        ticks = torch.arange(1, horizon + 1).to(belief.latents.times) * EMBODIMENT.step_seconds
        return Latent(torch.cat([places, layout], -1)[:, :, None], belief.latents.times[:, -1:] + ticks)

    def energy(
        self, belief: Belief, actions: Float[Tensor, "batch horizon action"] | None, future: Latent
    ) -> Float[Tensor, "batch horizon"]:
        """Squared distance in px between what is claimed and what happens."""
        true = self.predict(belief, actions, future.steps)
        return (future.values - true.values).square().sum((-1, -2))
