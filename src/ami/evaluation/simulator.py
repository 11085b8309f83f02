"""True simulators as world models: what the same planner reaches when nothing is left to learn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ami.models.horizon import times_ahead
from ami.planning.costs import GoalDistance
from ami.types import Belief, Clip, Embodiment, Latent, WorldModel
from ami.worlds import iphyre
from ami.worlds.rooms import EMBODIMENT, SIZE, Rooms
from ami.worlds.task import Task
from ami.worlds.tasks import TASKS


class Simulator(WorldModel):
    """The one kind of model that may read ``Clip.truth``: its latent is the state, as one token unless it says more."""

    def encode(self, clip: Clip) -> Latent:
        """Read the truth. ``ValueError`` where none was recorded."""
        if clip.truth is None or clip.truth.shape[-1] != self.latent_shape[1]:
            raise ValueError("this clip holds no true state of its world, which is all that the simulator can read")
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
        return Belief(belief.embodiment if belief else embodiment or next(iter(self.embodiments)), last)

    def draw(self, latent: Latent) -> UInt8[np.ndarray, "batch time height width 3"]:
        """What is seen in each state."""
        raise NotImplementedError

    def energy(
        self, belief: Belief, actions: Float[Tensor, "batch horizon action"] | None, future: Latent
    ) -> Float[Tensor, "batch horizon"]:
        """Squared distance between what is claimed and what happens, in the units of the state."""
        true = self.predict(belief, actions, future.steps)
        return (future.values - true.values).square().sum((-1, -2))


class RoomsSimulator(Simulator):
    """Two Rooms itself. Its latent is the truth, one token (agent x, agent y, wall x, door y) in px.

    Every row carries its own layout, and a goal is encoded with the layout of its row, so a distance between latents
    is the distance between places.
    """

    embodiments: Mapping[str, Embodiment] = {EMBODIMENT.name: EMBODIMENT}
    latent_shape = (1, 4)

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
        times = times_ahead(belief.latents.times, EMBODIMENT.step_seconds, horizon)
        return Latent(torch.cat([places, layout], -1)[:, :, None], times)

    def draw(self, latent: Latent) -> UInt8[np.ndarray, "batch time height width 3"]:
        """What is seen in each state."""
        x, y, wall, door = latent.values[:, :, 0].flatten(0, 1).numpy(force=True).T
        return Rooms(wall, door).render(np.stack([x, y], -1)).reshape(*latent.times.shape, SIZE, SIZE, 3)


class TaskSimulator(Simulator):
    """The simulator of a task, which is put into each row's state and run from there, one row after another."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.embodiments = {task.name: task.body()}
        self.latent_shape = (1, len(task.truth))

    def predict(self, belief: Belief, actions: Float[Tensor, "batch horizon action"] | None, horizon: int) -> Latent:
        """Run the world forward, one model step for each action."""
        if actions is None:
            raise ValueError(f"nothing happens in {self.task.name} by itself; give the simulator actions")
        held, passed = belief.latents, []
        for state, row in zip(held.values[:, -1, 0].numpy(force=True), actions.numpy(force=True), strict=True):
            states = [state]
            for action in row:
                states.append(self.task.step(states[-1], action)[-1])
            passed.append(np.stack(states[1:]))
        times = times_ahead(held.times, self.task.body().step_seconds, horizon)
        return Latent(torch.from_numpy(np.stack(passed)).to(held.values)[:, :, None], times)

    def draw(self, latent: Latent) -> UInt8[np.ndarray, "batch time height width 3"]:
        """What is seen in each state."""
        return np.stack([[self.task.render(state) for state in row[:, 0]] for row in latent.values.numpy(force=True)])


def simulator_of(body: str) -> RoomsSimulator | TaskSimulator | None:
    """The true world of an embodiment, to be run again from a recorded truth; ``None`` where nobody can."""
    if body == EMBODIMENT.name:
        return RoomsSimulator().eval()
    return TaskSimulator(TASKS[body]()).eval() if body in TASKS else None


class IPhyreSimulator(Simulator):
    """I-PHYRE's own simulator, told of a game at its beginning as any other model is, and played from there."""

    embodiments: Mapping[str, Embodiment] = {iphyre.BODY.name: iphyre.BODY}
    latent_shape = (iphyre.PLACES, len(iphyre.NUMBERS))

    def encode(self, clip: Clip) -> Latent:
        """Read the description of each step. ``ValueError`` where there is none."""
        if clip.proprio is None:
            raise ValueError("this clip describes no objects, which is all that the simulator can read")
        return Latent(clip.proprio.unflatten(-1, self.latent_shape), clip.times)

    def predict(self, belief: Belief, actions: Float[Tensor, "batch horizon action"] | None, horizon: int) -> Latent:
        """Play each row from where all was at rest; once a game is solved nothing more happens in it."""
        if actions is None:
            raise ValueError("the simulator needs to know what is removed; give it actions")
        held, passed = belief.latents, []
        for told, row in zip(held.values[:, -1].numpy(force=True), actions.numpy(force=True), strict=True):
            game = iphyre.Play(iphyre.Layout.told(told))
            states = []
            for action in row:
                states.append(states[-1] if game.solved else game.step(np.flatnonzero(action > 0.5).tolist()))
            passed.append(np.stack(states))
        times = times_ahead(held.times, iphyre.BODY.step_seconds, horizon)
        return Latent(torch.from_numpy(np.stack(passed)).to(held.values), times)


@dataclass(frozen=True)
class PlaceDistance:
    """``GoalDistance`` between what a task asks for of two states, in units of its tolerances, not between states."""

    goal: GoalDistance  # of states
    task: Task

    def __call__(self, imagined: Latent, actions: Float[Tensor, "rows horizon action"]) -> Float[Tensor, "rows"]:
        asked = replace(self.goal, goal=self._places(self.goal.goal))
        return asked(self._places(imagined), actions)

    def rows(self, index: slice | Tensor) -> PlaceDistance:
        """The goals of some of the plans, in the order of ``index``."""
        return replace(self, goal=self.goal.rows(index))

    def _places(self, states: Latent) -> Latent:
        places = self.task.place(states.values[:, :, 0].numpy(force=True))
        return Latent(torch.from_numpy(places).to(states.values), states.times)
