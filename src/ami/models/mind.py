"""One model for everything: a part that acts and a part that watches, in one checkpoint."""

from __future__ import annotations

from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from ami.models.jepa import JEPA, JEPAConfig
from ami.models.vjepa import VJEPA, VJEPAConfig
from ami.types import Belief, Clip, Latent, WorldModel


class MindConfig(BaseModel):
    """The settings of both parts. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    acting: JEPAConfig
    watching: VJEPAConfig


class Mind(WorldModel):
    """An embodiment that acts is answered by a JEPA, one that only watches by a V-JEPA.

    Who acts needs a few numbers that a planner can roll out a thousand times; a film needs its whole grid of tokens.
    Today the parts share nothing but the checkpoint, its digest and the recipe that trains both.
    """

    def __init__(self, config: MindConfig) -> None:
        super().__init__()
        if both := config.acting.embodiments.keys() & config.watching.embodiments.keys():
            raise ValueError(f"'{min(both)}' cannot act and only watch; give it to one part")
        self.config = config
        self.acting, self.watching = JEPA(config.acting), VJEPA(config.watching)
        self.embodiments = {**self.acting.embodiments, **self.watching.embodiments}
        self.latent_shape, self.causal = self.acting.latent_shape, self.watching.causal
        self.frames, self.picture = self.watching.frames, self.watching.picture
        self.reaches = self.acting.reaches

    def part(self, embodiment: str) -> WorldModel:
        """Who answers for an embodiment."""
        if embodiment not in self.embodiments:
            known = ", ".join(sorted(self.embodiments))
            raise ValueError(f"this model was not trained with the embodiment '{embodiment}'; it knows {known}")
        return self.acting if embodiment in self.acting.embodiments else self.watching

    def encode(self, clip: Clip) -> Latent:
        """As its part does."""
        return self.part(clip.embodiment).encode(clip)

    def believe(
        self,
        belief: Belief | None,
        seen: Latent,
        actions: Float[Tensor, "batch time action"] | None,
        embodiment: str = "",
    ) -> Belief:
        """As its part does."""
        return self.part(belief.embodiment if belief else embodiment).believe(belief, seen, actions, embodiment)

    def predict(self, belief: Belief, actions: Float[Tensor, "batch horizon action"] | None, horizon: int) -> Latent:
        """As its part does."""
        return self.part(belief.embodiment).predict(belief, actions, horizon)

    def energy(
        self, belief: Belief, actions: Float[Tensor, "batch horizon action"] | None, future: Latent
    ) -> Float[Tensor, "batch horizon"]:
        """As its part does; energies of two parts are in two units."""
        return self.part(belief.embodiment).energy(belief, actions, future)

    def reach(self, now: Latent, goal: Latent, embodiment: str) -> Float[Tensor, "batch time"]:
        """As its part does."""
        return self.part(embodiment).reach(now, goal, embodiment)

    def propose(self, belief: Belief, goal: Latent, horizon: int) -> Float[Tensor, "batch horizon action"]:
        """As its part does."""
        return self.part(belief.embodiment).propose(belief, goal, horizon)
