"""Learn how far off what is imagined is, when all that imagines has been frozen."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ami.models.jepa import JEPA, STATE
from ami.types import Belief, Clip, Objective, WorldModel


class Uncertainty(Objective):
    """From clips of latents: imagine all but the first of them, and learn what is then missed.

    What a step adds is not known, for what was missed before goes on being missed; what it adds up to is. So the sums
    along the path are fitted, each to the squared error so far.
    """

    def losses(self, model: WorldModel, clip: Clip, generator: torch.Generator) -> dict[str, Tensor]:
        """``unsure``, the log-likelihood of what was missed; ``whence``, what the members are taught."""
        assert isinstance(model, JEPA)
        if clip.embodiment not in model.unsure or clip.actions is None:
            return {}
        window, seen = model.config.window, model.encode(clip)
        past, steps = seen.between(0, window), seen.steps - window
        actions = clip.actions[:, window - 1 :]
        with torch.no_grad():
            imagined = model.predict(Belief(clip.embodiment, past), actions, steps)
        future, spread = seen.between(window, seen.steps), model.spread(clip.embodiment)
        missed = (future.values - imagined.values)[:, :, STATE].square().mean(-1)
        adds = spread(model.judged(imagined, actions, clip.embodiment), taught=True)
        came = seen.values[:, window - 1 : -1, STATE] - future.values[:, :, STATE]
        whence = spread.whence(model.judged(future, actions, clip.embodiment))
        return {
            "unsure": unlikeliness(missed, adds.cumsum(1)),
            "whence": (whence - came).square().mean((1, 2, 3)).sum(),
        }


def unlikeliness(missed: Float[Tensor, "*rows"], variance: Float[Tensor, "*rows"]) -> Float[Tensor, ""]:
    """Twice the negative log-likelihood of squared errors under zero-mean Gaussians: least where they are equal.

    The mean is another's, frozen, so that nothing need keep this from neglecting it where it is hard to learn (Seitzer
    et al. 2022, "On the pitfalls of heteroscedastic uncertainty estimation").
    """
    return (missed / variance + variance.log()).mean()
