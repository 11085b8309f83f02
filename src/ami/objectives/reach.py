"""How far it is and what to do first, as functions of state, goal and scene, so that both hold in new places."""

from __future__ import annotations

import torch
from torch import Tensor

from ami.models.jepa import JEPA, SCENE, STATE
from ami.types import Belief, Clip, Latent, Objective, WorldModel


class Reach(Objective):
    """Learn from clips of shortest ways: moments, then the start, then the goal (:mod:`ami.training.ways`).

    Half of the states from which distances are asked are imagined, one or two steps on from what was seen, with the
    distance of where the walk really was then: a planner will ask about imagined states.
    """

    def __init__(self, fast: bool = False) -> None:
        super().__init__()
        self.fast = fast  # bfloat16

    def losses(self, model: WorldModel, clip: Clip, generator: torch.Generator) -> dict[str, Tensor]:
        """``reach``, relative to the root of the distance in steps, and ``first``, in ranges of the action."""
        assert isinstance(model, JEPA)
        assert clip.actions is not None
        way, values, rows = model.way(clip.embodiment), model.encode(clip).values, len(clip)
        goal, start = values[:, -1, STATE], values[:, -2, STATE]
        scene = values[:, -2, SCENE]
        true = (clip.times[:, -1] - clip.times[:, -2]) / model.embodiments[clip.embodiment].step_seconds
        with torch.autocast(values.device.type, torch.bfloat16, enabled=self.fast):
            begun = start.clone()
            with torch.no_grad():
                for back, part in ((1, slice(rows // 4)), (2, slice(rows // 4, rows // 2))):
                    held = slice(-1 - back - model.config.window, -1 - back)
                    belief = Belief(clip.embodiment, Latent(values[part, held], clip.times[part, held]))
                    begun[part] = model.predict(belief, clip.actions[part, -1 - back : -1], back).values[:, -1, STATE]
            far, first = way.steps(begun, goal, scene), way.action(start, goal, scene)
        missed = ((first - clip.actions[:, -1]) / (way.high - way.low)).abs().mean()
        return {"reach": ((far - true).abs() / (1 + true).sqrt()).mean(), "first": missed}
