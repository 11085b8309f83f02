"""The spatial JEPA: a view's latent from whatever was sensed of it, and the latent of the view from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from ami import geometry
from ami.models.horizon import times_ahead
from ami.nn.norm import EmbodimentNorm
from ami.nn.senses import bearings, colour_pieces, depth_pieces, halved, rays
from ami.nn.views import Apart, Elsewhere, Senses, ViewEncoder, still
from ami.types import Belief, Clip, Embodiment, Latent, WorldModel

MOTION = 6  # numbers of an action: metres right, down and ahead, then a turn's axis times its angle (radians)
_TOLD = 9  # numbers that tell networks of a motion: six of its rotation, without a jump, and metres
_CHUNK = 256  # views at a time


class SpatialConfig(BaseModel):
    """What must be known to build a spatial JEPA. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    embodiments: dict[str, Embodiment]  # cameras that are moved: an action is a motion
    picture: int = Field(64, ge=16, description="px on a side")
    patch: int = Field(default=8, ge=4, multiple_of=2, description="px on a side of a cell")
    tubelet: int = Field(default=1, ge=1, description="frames in a step")
    width: int = Field(96, ge=8, multiple_of=4, description="of a token inside the encoder")
    depth: int = Field(default=3, ge=1, description="blocks of the encoder")
    heads: int = Field(default=3, ge=1)
    dim: int = Field(48, ge=2, description="numbers of a cell's latent that training changes")
    carried: bool = Field(
        default=False, description="whether a latent carries besides what colours its cell shows, at half resolution"
    )
    window: int = Field(default=4, ge=1, description="views that a belief holds")
    ahead_depth: int = Field(default=1, ge=1, description="blocks of what says how it is seen from elsewhere")
    apart_width: int = Field(default=256, ge=8, description="of the network that says how the camera moved")


class SpatialJEPA(WorldModel):
    """Perceives each step by itself, from colours, depth, points or any of them; tells the view from another pose.

    An action is how the camera moves, in its own axes, so a future is a walk: each of its steps is the view from where
    the motions so far lead, told from all views that are held, and no error is fed back. Where intrinsics are missing
    the camera is taken to see 90 degrees.

    A cell's latent is what training made of all that was sensed, by which views are compared and told. With ``carried``
    its colours follow (0 where none were seen, as in views that are told): which way a thing of a few pixels faces is
    in these and not in what foretells other views.
    """

    looks: Tensor

    def __init__(self, config: SpatialConfig) -> None:
        super().__init__()
        if config.width % (2 * config.heads):
            raise ValueError(
                f"a width of {config.width} cannot be shared by {config.heads} heads in pairs of dimensions"
            )
        if config.picture % config.patch:
            raise ValueError(f"pictures of {config.picture} px are not made of whole cells of {config.patch} px")
        for name, body in config.embodiments.items():
            if body.action_dim != MOTION:
                raise ValueError(f"'{name}' has {body.action_dim} numbers in an action; a camera's motion has {MOTION}")
        self.config, self.embodiments = config, config.embodiments
        self.picture, self.frames, self.side = config.picture, config.tubelet, config.picture // config.patch
        pixels, cells, dim = config.tubelet * config.patch**2, self.side**2, config.dim
        self.untaught = 3 * pixels // 4 if config.carried else 0
        self.latent_shape = cells, dim + self.untaught
        shared = {"width": config.width, "heads": config.heads, "dim": dim}
        self.encoder = ViewEncoder(pixels=pixels, depth=config.depth, **shared)
        self.norm = EmbodimentNorm(tuple(sorted(config.embodiments)), dim)
        self.lies = nn.Linear(dim, 3)  # where what a cell shows lies, beside where a camera of 90 degrees would look
        with torch.no_grad():
            self.lies.weight.mul_(0.1)
            self.lies.bias.zero_()
        camera = torch.full((1, 4), config.picture / 2)
        self.register_buffer("looks", bearings(rays(camera, self.side, config.picture))[0], persistent=False)
        self.elsewhere = Elsewhere(depth=config.ahead_depth, **shared)
        self.apart = Apart(cells=cells, dim=dim, motion=_TOLD, width=config.apart_width)

    def senses(self, clip: Clip) -> Senses:
        """What a clip holds of each of its views, steps of all rows one after another.

        ``ValueError`` where it holds nothing that this model perceives, or pictures of another size.
        """
        self.known(clip.embodiment)
        if clip.video is None and clip.depth is None and clip.points is None:
            raise ValueError("this model perceives colours, depth or points, and the clip has none of them")
        for name, pictures in (("video", clip.video), ("depth", clip.depth)):
            wanted = (self.config.tubelet, self.config.picture, self.config.picture)
            if pictures is not None and (came := (pictures.shape[2], *pictures.shape[-2:])) != wanted:
                raise ValueError(
                    f"{name} has {came} frames a step, rows and columns; this model was built for {wanted}"
                )
        camera, side = clip.intrinsics, self.config.picture
        if camera is None:
            camera = torch.full((len(clip), 4), side / 2, device=clip.times.device)
        looks = rays(camera.float(), self.side, side).repeat_interleave(clip.steps, 0)
        video, depth, points = (
            None if each is None else each.flatten(0, 1) for each in (clip.video, clip.depth, clip.points)
        )
        patch = self.config.patch
        return Senses(
            looks,
            None if video is None else colour_pieces(video, patch),
            None if depth is None else depth_pieces(depth, patch),
            points,
        )

    def perceive(self, said: Float[Tensor, "views cells dim"], embodiment: str) -> Float[Tensor, "views cells dim"]:
        """The latents of views, from what the encoder said of them, normalised together."""
        return self.norm(said.float().flatten(0, 1), embodiment).view(said.shape)

    def encode(self, clip: Clip) -> Latent:
        """Perceive each step by itself."""
        if clip.latents is not None:
            return Latent(clip.latents, clip.times)
        senses = self.senses(clip)
        parts = torch.arange(len(senses), device=clip.times.device).split(_CHUNK)
        taught = self.perceive(torch.cat([self.encoder(senses.rows(part)) for part in parts]), clip.embodiment)
        if self.untaught and senses.video is not None:
            views = torch.cat([taught, halved(senses.video, self.config.patch)], -1)
        else:
            views = self._bare(taught)
        return Latent(views.view(len(clip), clip.steps, *self.latent_shape), clip.times)

    def believe(
        self,
        belief: Belief | None,
        seen: Latent,
        actions: Float[Tensor, "batch time action"] | None,
        embodiment: str = "",
    ) -> Belief:
        """Hold the last ``window`` views, and the motions between them; without those, the last alone."""
        name = embodiment if belief is None else belief.embodiment
        self.known(name)
        values, times, moved = seen.values, seen.times, actions
        if belief is not None and actions is not None:
            before = [] if belief.actions is None else [belief.actions]
            values = torch.cat([belief.latents.values, values], 1)
            times = torch.cat([belief.latents.times, times], 1)
            moved = torch.cat([*before, actions], 1)
        keep = 1 if moved is None else min(self.config.window, values.shape[1])
        held = None if moved is None or keep == 1 else moved[:, 1 - keep :]
        return Belief(name, Latent(values[:, -keep:], times[:, -keep:]), held)

    def predict(self, belief: Belief, actions: Float[Tensor, "batch horizon action"] | None, horizon: int) -> Latent:
        """The views on a walk. ``ValueError`` where no motions come, for a view from nowhere cannot be told."""
        body, held = self.known(belief.embodiment), belief.latents
        if actions is None or tuple(actions.shape[1:]) != (horizon, MOTION):
            came = "none" if actions is None else f"{tuple(actions.shape)}"
            raise ValueError(f"'{body.name}' needs actions of shape (batch, {horizon}, {MOTION}), and {came} came")
        done = actions if belief.actions is None else torch.cat([belief.actions, actions], 1)
        poses = [torch.eye(4, dtype=done.dtype, device=done.device).expand(len(belief), 4, 4)]
        for step in geometry.from_motion(done).unbind(1):
            poses.append(poses[-1] @ step)
        known, asked = torch.stack(poses[: held.steps], 1), torch.stack(poses[held.steps :], 1)
        views = self.views_from(held.values, geometry.relative(known[:, None], asked[:, :, None]))
        times = times_ahead(held.times, body.step_seconds, horizon)
        return Latent(views, times)

    def energy(
        self, belief: Belief, actions: Float[Tensor, "batch horizon action"] | None, future: Latent
    ) -> Float[Tensor, "batch horizon"]:
        """Squared distance from what was imagined, mean over cells and taught numbers, whose variance is 1."""
        imagined = self.predict(belief, actions, future.steps)
        return (self.taught(future.values) - self.taught(imagined.values)).square().mean((-1, -2))

    def taught(self, views: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch taught"]:
        """Of latents what training made."""
        return views[..., : self.config.dim]

    def _bare(self, taught: Float[Tensor, "*batch taught"]) -> Float[Tensor, "*batch dim"]:
        """Latents of what was made of views whose colours nobody saw."""
        return functional.pad(taught, (0, self.untaught))

    def views_from(
        self, views: Float[Tensor, "rows held cells dim"], poses: Float[Tensor, "rows asked held 4 4"]
    ) -> Float[Tensor, "rows asked cells dim"]:
        """What would be seen from some poses, each told in the axes of the camera of each view that is held; metres."""
        return self._bare(self.elsewhere(self.taught(views), self.lying(views), poses).float())

    def measure(
        self, here: Float[Tensor, "rows held cells dim"], there: Float[Tensor, "rows asked cells dim"]
    ) -> Float[Tensor, "rows asked held 4 4"]:
        """From where each view ``there`` was seen: its pose in the axes of each camera that saw ``here``, metres.

        It is the mean of what is read on the way there and, turned round, on the way back: two looks at one motion.
        """
        one, other = (self.taught(here), self.lying(here)), (self.taught(there), self.lying(there))
        go, back = self._read(one, other), geometry.inverse(self._read(other, one)).transpose(1, 2)
        six, metres = ((a + b) / 2 for a, b in zip(_six(go), _six(back), strict=True))
        return geometry.assemble(geometry.from_six(six), metres)

    def _read(self, here: tuple[Tensor, Tensor], there: tuple[Tensor, Tensor]) -> Float[Tensor, "rows asked held 4 4"]:
        """A motion as the network tells it of taught latents and where they lie."""
        six, metres = self.apart(here[0], there[0], here[1], there[1]).float().split([6, 3], -1)
        return geometry.assemble(geometry.from_six(six + still(six)), metres)

    def lying(self, views: Float[Tensor, "*batch cells dim"]) -> Float[Tensor, "*batch cells 3"]:
        """Where what each cell shows lies: down, right (radians) and the logarithm of its range (metres)."""
        return self.looks + self.lies(self.taught(views)).float()


def _six(pose: Float[Tensor, "*batch 4 4"]) -> tuple[Float[Tensor, "*batch 6"], Float[Tensor, "*batch 3"]]:
    """What of a pose can be averaged: six numbers of its rotation, and its place."""
    return geometry.to_six(pose[..., :3, :3]), pose[..., :3, 3]


def sized(embodiments: Mapping[str, Embodiment], size: str = "baby", picture: int = 64) -> SpatialConfig:
    """The settings of one size: ``baby``, ``tiny`` or ``small``."""
    if size not in _SIZES:
        raise ValueError(f"there is no spatial JEPA of size '{size}'; choose one of {', '.join(_SIZES)}")
    width, depth, heads, dim = _SIZES[size]
    return SpatialConfig(
        embodiments=dict(embodiments),
        picture=picture,
        width=width,
        depth=depth,
        heads=heads,
        dim=dim,
        carried=True,
        apart_width=8 * width // 3,
    )


# One dial; each size doubles the widths of the one before it, with heads 32 wide in the baby and 64 beyond.
#         width, depth, heads, dim
_SIZES = {"baby": (96, 3, 3, 48), "tiny": (192, 6, 3, 96), "small": (384, 12, 6, 192)}
