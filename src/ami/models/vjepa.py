"""V-JEPA: what is hidden of a film is predicted from what is seen of it, in the space of what is perceived."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

from ami.models.horizon import times_ahead
from ami.nn.points import Points
from ami.nn.tokenizers import PATCH, PatchStem
from ami.nn.video import MaskedPredictor, Own, Tubelets, VideoEncoder
from ami.types import Belief, Clip, Embodiment, Latent, WorldModel

_NOISE = 0.04  # of own numbers, which deviate by about a half: what a camera and compression change anyway


class VJEPAConfig(BaseModel):
    """What must be known to build a V-JEPA. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    embodiments: dict[str, Embodiment]  # films: none of them has actions
    picture: int = Field(default=64, ge=16, description="px on a side")
    patch: int = Field(default=16, ge=1, description="px on a side of what one token sees")
    tubelet: int = Field(default=2, ge=1, description="frames in a step")
    slots: int = Field(default=8, ge=1, description="steps in a training clip")
    stem: Literal["pieces", "patches"] = Field(
        default="patches", description="three small layers to a token, or one product"
    )
    pictures: bool = Field(
        default=False, description="whether a step of one frame has an embedding of its own (V-JEPA 2.1)"
    )
    width: int = Field(default=192, ge=8)
    depth: int = Field(default=12, ge=1)
    heads: int = Field(default=3, ge=1)
    widen: float = Field(default=4.0, gt=0, description="a block's inner width over its own")
    predictor_width: int = Field(default=96, ge=8)
    predictor_depth: int = Field(default=4, ge=1)
    predictor_heads: int = Field(default=3, ge=1)
    predictor_widen: float = Field(default=4.0, gt=0)
    kinds: int = Field(default=2, ge=1, description="kinds of masks, each with a token of its own for what is hidden")
    points: int = Field(
        default=0, ge=0, description="places that each finder tells all tokens of a step; 0: none looks"
    )
    own: int = Field(
        default=0, ge=0, description="numbers of each frame of a patch that its token carries besides, as they are"
    )
    finders: int = Field(default=3, ge=1, description="networks that look for points, each for itself")
    anew: bool = Field(
        default=False, description="whether training computes blocks anew on the way back, in place of keeping them"
    )
    causal: bool = Field(default=True, description="whether a step hears only those before it")
    tiled: bool = Field(default=False, description="V-JEPA 2's variant of rotary positions, for its weights")
    affine: bool = Field(default=False, description="whether the last norm scales and shifts, as in V-JEPA 2's weights")
    eps: float = Field(default=1e-6, gt=0, description="of the norms")
    mean: tuple[float, float, float] = Field(default=(0.485, 0.456, 0.406), description="of pixels from 0 to 1")
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


class VJEPA(WorldModel):
    """Each step (a tubelet of frames) becomes a grid of tokens; the predictor fills in those of steps to come.

    Source: Bardes et al. 2024, "Revisiting feature prediction for learning visual representations from video"; Assran
    et al. 2025, "V-JEPA 2". Passive: it has no actions.
    """

    def __init__(self, config: VJEPAConfig) -> None:
        super().__init__()
        fixed = config.stem == "pieces" or config.points > 0 or config.own > 0
        if config.picture % config.patch or (fixed and config.patch != PATCH):
            raise ValueError(
                f"{config.picture} px cannot be cut in patches of {config.patch}"
                + (f"; a stem of pieces, like points and own numbers, has patches of {PATCH}" if fixed else "")
            )
        for width, heads in ((config.width, config.heads), (config.predictor_width, config.predictor_heads)):
            if width % (2 * heads):
                raise ValueError(f"a width of {width} cannot be shared by {heads} heads in pairs of dimensions")
        if acting := [name for name, body in config.embodiments.items() if body.action_dim]:
            raise ValueError(f"'{acting[0]}' has actions, and a V-JEPA only watches; train a JEPA")
        self.config, self.embodiments, self.causal = config, config.embodiments, config.causal
        self.frames, self.picture = config.tubelet, config.picture
        side = config.picture // config.patch
        own = config.tubelet * config.own
        self.own = Own(config.own) if own else None
        self.latent_shape, self.untaught = (side**2, config.width + own), own
        quarter = config.width // 4
        stem = (
            PatchStem((quarter, 2 * quarter, config.width), config.tubelet)
            if config.stem == "pieces"
            else Tubelets(config.width, config.patch, config.tubelet, config.mean, config.std, config.pictures)
        )
        shared = {"side": side, "tiled": config.tiled, "eps": config.eps, "anew": config.anew}
        looks = {"tubelet": config.tubelet, "count": config.points, "finders": config.finders}
        self.encoder = VideoEncoder(
            stem,
            Points(picture=config.picture, **looks) if config.points else None,
            width=config.width,
            depth=config.depth,
            heads=config.heads,
            widen=config.widen,
            causal=config.causal,
            affine=config.affine,
            **shared,
        )
        self.predictor = MaskedPredictor(
            tokens_width=config.width + own,
            own=own,
            frames=config.tubelet,
            width=config.predictor_width,
            depth=config.predictor_depth,
            heads=config.predictor_heads,
            widen=config.predictor_widen,
            kinds=config.kinds,
            **shared,
        )

    @property
    def window(self) -> int:
        """Steps that a belief holds, half of a training clip; as many are imagined at a time."""
        return max(self.config.slots // 2, 1)

    def check(self, clip: Clip) -> Tensor:
        """The clip's video, once it is known to fit; ``ValueError`` says what does not."""
        self.known(clip.embodiment)
        if clip.video is None:
            raise ValueError("this model perceives video, and the clip has none; record one with a camera")
        side = self.config.picture
        if clip.video.shape[-2:] != (side, side):
            height, width = clip.video.shape[-2:]
            raise ValueError(f"pictures are {height} x {width} px; this model was built for {side} x {side}")
        return clip.video

    def encode(self, clip: Clip) -> Latent:
        """Perceive a whole clip at once: a step is seen in the light of those before it (of all, when not causal)."""
        if clip.latents is not None:
            return Latent(clip.latents, clip.times)
        video = self.check(clip)
        (tokens,) = self.encoder(video)
        if self.own is not None:
            tokens = torch.cat([tokens, self.own(video)], -1)
        return Latent(tokens.unflatten(1, (clip.steps, -1)), clip.times)

    def believe(
        self,
        belief: Belief | None,
        seen: Latent,
        actions: Float[Tensor, "batch time action"] | None,
        embodiment: str = "",
    ) -> Belief:
        """Hold the last ``window`` steps."""
        name = embodiment if belief is None else belief.embodiment
        self.known(name)
        values, times = seen.values, seen.times
        if belief is not None:
            values = torch.cat([belief.latents.values, values], 1)
            times = torch.cat([belief.latents.times, times], 1)
        return Belief(name, Latent(values[:, -self.window :], times[:, -self.window :]))

    def predict(self, belief: Belief, actions: Float[Tensor, "batch horizon action"] | None, horizon: int) -> Latent:
        """Fill in the hidden future, ``window`` steps at a time; what was filled in is then held like what was seen."""
        body = self.known(belief.embodiment)
        if actions is not None:
            raise ValueError(f"'{body.name}' has no actions, and some were given; a film can only be watched")
        held, filled = belief.latents.values, []
        for _ in range(0, horizon, self.window):  # all of a stretch at once, so that a longer look changes nothing
            ahead = self._fill(held)
            filled.append(ahead)
            held = torch.cat([held, ahead], 1)[:, -self.window :]
        times = times_ahead(belief.latents.times, body.step_seconds, horizon)
        return Latent(torch.cat(filled, 1)[:, :horizon], times)

    def energy(
        self, belief: Belief, actions: Float[Tensor, "batch horizon action"] | None, future: Latent
    ) -> Float[Tensor, "batch horizon"]:
        """Mean absolute difference from what was imagined, both layer-normed. Source: V-JEPA, equation 1.

        Of tokens that carry own numbers, these alone: what a token is told of the rest of the picture is as unsteady as
        what finds it. Each patch counts by its worst frame, and a step is the geometric mean of its patches, above what
        is noise: what moves in a few patches anyway does not drown what happens to others.
        """
        imagined, width = self.predict(belief, actions, future.steps).values, self.config.width
        if self.own is not None:
            errors = (future.values[..., width:] - imagined[..., width:]).abs()
            worst = errors.unflatten(-1, (self.frames, -1)).mean(-1).amax(-1)
            return (worst + _NOISE).log().mean(-1).exp()
        return (normed(future.values) - normed(imagined)).abs().mean((-1, -2))

    def _fill(self, held: Float[Tensor, "batch time tokens dim"]) -> Float[Tensor, "batch time tokens dim"]:
        tokens, slots = held.shape[2], held.shape[1] + self.window
        number = torch.arange(slots * tokens, device=held.device).expand(len(held), -1)
        seen = held.shape[1] * tokens
        filled = self.predictor(held.flatten(1, 2), number[:, :seen], number[:, seen:], slots=slots)
        return filled.unflatten(1, (self.window, tokens))


def normed(tokens: Float[Tensor, "*any dim"]) -> Float[Tensor, "*any dim"]:
    """Each token with mean 0 and variance 1: the space in which V-JEPA's targets lie."""
    return functional.layer_norm(tokens, tokens.shape[-1:])


# One dial. The widths are those of the family of vision transformers (Dosovitskiy et al. 2021; large, huge and giant as
# in V-JEPA 2, table 12), heads are 64 wide, the predictor is half as wide as a small encoder and never wider than
# V-JEPA 2's 384, and pictures grow where a size is meant for a cluster. Baby has a stem of three small layers, for
# there one product of 1,536 pixels would be most of the model, and heads of 32.
#               width, depth, heads, predictor: width, depth, heads; picture, slots
_LARGE = 768  # from this width on, what lies inside blocks is most of a training's memory
_SIZES: dict[str, tuple[int, int, int, int, int, int, int, int]] = {
    "baby": (96, 4, 3, 96, 1, 3, 64, 8),
    "tiny": (192, 12, 3, 96, 4, 3, 64, 8),
    "small": (384, 12, 6, 192, 6, 6, 128, 8),
    "base": (768, 12, 12, 384, 12, 12, 224, 8),
    "large": (1024, 24, 16, 384, 12, 12, 256, 8),
    "huge": (1280, 32, 16, 384, 12, 12, 256, 8),
    "giant": (1408, 40, 22, 384, 12, 12, 256, 8),
}


def sized(size: str, embodiments: Mapping[str, Embodiment], *, picture: int | None = None) -> VJEPAConfig:
    """The settings of one size: ``baby``, ``tiny``, ``small``, ``base``, ``large``, ``huge`` or ``giant``."""
    if size not in _SIZES:
        raise ValueError(f"there is no size '{size}'; choose one of {', '.join(_SIZES)}")
    if picture is not None and picture < PATCH:
        raise ValueError(f"pictures of {picture} px were asked for; a model sees {PATCH} px or more")
    width, depth, heads, predictor_width, predictor_depth, predictor_heads, side, slots = _SIZES[size]
    return VJEPAConfig(
        embodiments=dict(embodiments),
        picture=picture or side,
        slots=slots,
        stem="pieces" if size == "baby" else "patches",
        width=width,
        depth=depth,
        heads=heads,
        widen=48 / 11 if size == "giant" else 4.0,  # ViT-g: an inner width of 6,144
        predictor_width=predictor_width,
        predictor_depth=predictor_depth,
        predictor_heads=predictor_heads,
        anew=width >= _LARGE,
    )
