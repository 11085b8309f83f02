"""How far it is, what to do first and whether it can be done, as functions of state, goal and scene, for new places."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ami import parallel
from ami.models.jepa import JEPA, SCENE, STATE
from ami.types import Belief, Clip, Latent, Objective, WorldModel

_BLUR = 0.3  # deviations that what is judged from is moved about by
_LEFT_OUT = 0.03  # of what is judged: about as much as is wrong after two walks of a place


class Reach(Objective):
    """Learn from clips of shortest ways: moments, then the start, then the goal (:mod:`ami.training.ways`).

    Half of the states from which distances are asked are imagined, one or two steps on from what was seen, with the
    distance of where the walk really was then: a planner will ask about imagined states.

    A goal that comes after infinite time was not reached in several walks of a place. Who judges learns from it how
    likely a way is, from what was seen alone: near a wall the next imagined state may lie behind it. Not every door was
    found, and that must not be learned by heart: what is judged from is moved about by ``_BLUR`` in every number, and
    the least likely of a batch are left out (small losses, Han et al. 2018, "Co-teaching", section 3).
    """

    def __init__(self, fast: bool = False) -> None:
        super().__init__()
        self.fast = fast  # bfloat16

    def losses(self, model: WorldModel, clip: Clip, generator: torch.Generator) -> dict[str, Tensor]:
        """``reach``, relative to the root of the distance in steps, and ``first``, in ranges of the action.

        Of who judges also ``reachable``, the logarithm of how unlikely what is known was thought to be.
        """
        assert isinstance(model, JEPA)
        assert clip.actions is not None
        way, values, rows = model.way(clip.embodiment), model.encode(clip).values, len(clip)
        goal, start = model.aim(values[:, -1], clip.embodiment), values[:, -2, STATE]
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
            odds = None
            if clip.embodiment in model.judges:
                told = torch.cat([start, goal, scene], -1)
                moved = torch.randn((parallel.size(), *told.shape), generator=generator)[parallel.rank()]
                blurred = told + _BLUR * moved.to(told)
                odds = way.chance(*blurred.split([each.shape[-1] for each in (start, goal, scene)], -1))
        known = true.isfinite()
        some = known.sum().clamp_min(1)  # a batch may hold none
        off = (far - true)[known].abs() / (1 + true[known]).sqrt()
        missed = ((first - clip.actions[:, -1]) / (way.high - way.low)).abs().mean(-1)[known]
        losses = {"reach": off.sum() / some, "first": missed.sum() / some}
        if odds is not None:
            unlikely = functional.binary_cross_entropy_with_logits(odds, known.float(), reduction="none")
            losses["reachable"] = unlikely.topk(round((1 - _LEFT_OUT) * rows), largest=False).values.mean()
        return losses
