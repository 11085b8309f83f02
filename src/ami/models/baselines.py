"""World models that know nothing of the future: what a trained one must beat."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from ami.models.horizon import times_ahead
from ami.types import Belief, Clip, Embodiment, Latent, WorldModel


class _NothingChanges(WorldModel):
    """The future is the present, whatever is done; the energy is the mean squared error of that."""

    def predict(self, belief: Belief, actions: Float[Tensor, "batch horizon action"] | None, horizon: int) -> Latent:
        """The last latent, again and again."""
        held, step = belief.latents, self.embodiments[belief.embodiment].step_seconds
        return Latent(held.values[:, -1:].repeat(1, horizon, 1, 1), times_ahead(held.times, step, horizon))

    def energy(
        self, belief: Belief, actions: Float[Tensor, "batch horizon action"] | None, future: Latent
    ) -> Float[Tensor, "batch horizon"]:
        """How far each step is from the present: squared, mean over tokens and dim."""
        return (future.values - belief.latents.values[:, -1:]).square().mean((2, 3))


class CopyLast(_NothingChanges):
    """Perceives and believes as ``model`` does, and predicts that nothing changes.

    Beside ``model`` it tells what the dynamics have learned beyond the encoder.
    """

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.model = model
        self.embodiments, self.latent_shape = model.embodiments, model.latent_shape

    def encode(self, clip: Clip) -> Latent:
        """What ``model`` perceives."""
        return self.model.encode(clip)

    def believe(
        self,
        belief: Belief | None,
        seen: Latent,
        actions: Float[Tensor, "batch time action"] | None,
        embodiment: str = "",
    ) -> Belief:
        """What ``model`` believes."""
        return self.model.believe(belief, seen, actions, embodiment)


class Pixels(_NothingChanges):
    """Its latent is the picture itself, made small: ``side`` x ``side`` tokens of red, green and blue in [0, 1].

    Beside a learned encoder it tells what the representation is worth.
    """

    def __init__(self, embodiments: Mapping[str, Embodiment], side: int = 8) -> None:
        super().__init__()
        self.embodiments, self.side, self.latent_shape = embodiments, side, (side * side, 3)

    def encode(self, clip: Clip) -> Latent:
        """The last frame of each step, averaged over squares: what is seen when the step ends."""
        if clip.video is None:
            raise ValueError("the pixel baseline needs video, and the clip has none; use clips recorded with a camera")
        frames = clip.video[:, :, -1].flatten(0, 1).float() / 255
        small = functional.adaptive_avg_pool2d(frames, self.side)
        return Latent(small.flatten(2).mT.unflatten(0, (len(clip), clip.steps)), clip.times)

    def believe(
        self,
        belief: Belief | None,
        seen: Latent,
        actions: Float[Tensor, "batch time action"] | None,
        embodiment: str = "",
    ) -> Belief:
        """Holds the last step only: nothing else is used."""
        last = Latent(seen.values[:, -1:], seen.times[:, -1:])
        name = embodiment if belief is None else belief.embodiment
        return Belief(name, last, None if actions is None else actions[:, :0])
