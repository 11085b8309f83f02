"""A walk lived through: what is seen is kept at the place where it is, and from there it can be seen again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ami.models.horizon import times_ahead
from ami.models.pictures import each_alone
from ami.nn.norm import EmbodimentNorm
from ami.nn.places import COLUMN, ColumnStem, PlaceMemory, Places, Stride, Viewer, Writer, moved
from ami.types import Belief, Clip, Embodiment, Latent, WorldModel

_CHUNK = 256  # pictures at a time
_FLOOR = 0.05  # of a token's variance: an error is never expected to be so small that less would surprise
_NUDGE = (0.06, 0.06, 0.04)  # metres, metres, radians: by so much a pose is moved to see how the view changes
_ALIKE = 48.0  # numbers of a view that err together: what one of them says is not said so often
_MOST = (0.15, 0.15, 0.12)  # metres, metres, radians: no look corrects a pose by more


class PlacesConfig(BaseModel):
    """What must be known to build a JEPA of places. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    embodiments: dict[str, Embodiment]  # with action_mean and action_std
    picture: int = Field(64, ge=16, multiple_of=COLUMN, description="px on a side")
    half: float = Field(1.0, gt=0, description="tangent of half the angle that the camera spans")
    width: int = Field(64, ge=8, multiple_of=2, description="of the layers")
    dim: int = Field(32, ge=2, description="numbers in a token")
    value: int = Field(12, ge=2, description="numbers kept at a place")
    side: int = Field(64, ge=4, description="points on a side of the lattice of places")
    spacing: float = Field(0.2, gt=0, description="metres between them")
    most: float = Field(20.0, gt=0, description="sights after which the oldest are forgotten")
    reach: float = Field(7.0, gt=0.2, description="metres: how far it sees in its memory")


class Held(NamedTuple):
    """What is held after a step: the memory, where one is in it, and how sure of that."""

    places: Places
    pose: Float[Tensor, "rows 3"]
    spread: Float[Tensor, "rows 3 3"]  # covariance of the pose


class PlacesJEPA(WorldModel):
    """Step, expect the view from there, look, correct where one is, and keep what was seen where it is.

    Where it is, is where it went since its belief began, corrected by what it sees: the extended Kalman filter, whose
    measurement is the learned view from memory and its learned error. ``Belief.recurrent`` holds all of it: memory,
    pose, covariance. A step costs the same after any number of steps. Source: Thrun, Burgard and Fox 2005,
    "Probabilistic robotics", section 3.3.
    """

    def __init__(self, config: PlacesConfig) -> None:
        super().__init__()
        self.config, self.embodiments, self.picture = config, config.embodiments, config.picture
        self.columns = config.picture // COLUMN
        self.latent_shape = (self.columns, config.dim)
        self.places = names = tuple(sorted(config.embodiments))
        self.stem = ColumnStem(config.width, config.dim, config.picture)
        self.norm = EmbodimentNorm(names, config.dim)
        self.depth = nn.Sequential(nn.Linear(config.dim, config.width), nn.ReLU(), nn.Linear(config.width, 1))
        self.memory = PlaceMemory(side=config.side, spacing=config.spacing, value=config.value, most=config.most)
        self.writer = Writer(config.dim, config.value, config.width)
        self.viewer = Viewer(
            dim=config.dim, told=self.memory.told, width=config.width, reach=config.reach, spacing=config.spacing
        )
        self.strides = nn.ModuleDict(
            {name: Stride(self.columns, config.embodiments[name].action_dim, 2 * config.width) for name in names}
        )

    def encode(self, clip: Clip) -> Latent:
        """Perceive each picture by itself. Needs video of the size that the model was built for."""
        self.known(clip.embodiment)
        if clip.latents is not None:
            return Latent(clip.latents, clip.times)
        tokens = torch.cat([self.stem(part) for part in each_alone(clip, self.config.picture).split(_CHUNK)])
        values = self.norm(tokens.float().flatten(0, 1), clip.embodiment)
        return Latent(values.view(len(clip), clip.steps, *self.latent_shape), clip.times)

    def far(self, tokens: Float[Tensor, "*rows column dim"]) -> Float[Tensor, "*rows column"]:
        """The logarithm of how many metres away what each column shows is."""
        return self.depth(tokens)[..., 0].float().clamp(-3.0, 4.0)

    def believe(
        self,
        belief: Belief | None,
        seen: Latent,
        actions: Float[Tensor, "batch time action"] | None,
        embodiment: str = "",
    ) -> Belief:
        """Walk through the steps seen, one after another; where a belief begins is the origin of its places."""
        name = embodiment if belief is None else belief.embodiment
        done = self._actions(name, actions, seen.steps - (belief is None))
        held, before = (None, None) if belief is None else (self._held(belief), belief.latents.values[:, -1])
        for step in range(seen.steps):
            tokens = seen.values[:, step]
            if held is None or before is None:
                pose = tokens.new_zeros(len(tokens), 3)
                held = Held(self.memory.empty(len(tokens), tokens), pose, torch.zeros_like(torch.diag_embed(pose)))
            else:
                held = self._step(held, name, before, done[:, step - seen.steps])
                held = self._look(held, tokens)
            held, before = held._replace(places=self._keep(held.places, tokens[:, None], held.pose[:, None])), tokens
        assert held is not None
        last = Latent(seen.values[:, -1:], seen.times[:, -1:])
        return Belief(name, last, recurrent=_packed(held))

    def predict(self, belief: Belief, actions: Float[Tensor, "batch horizon action"] | None, horizon: int) -> Latent:
        """Walk on with closed eyes: what would be seen from where each step leads."""
        body = self.known(belief.embodiment)
        views = [tokens for tokens, _ in self._imagine(belief, actions, horizon)]
        times = times_ahead(belief.latents.times, body.step_seconds, horizon)
        return Latent(torch.stack(views, 1), times)

    def energy(
        self, belief: Belief, actions: Float[Tensor, "batch horizon action"] | None, future: Latent
    ) -> Float[Tensor, "batch horizon"]:
        """The squared error of what was imagined of each step over the one that was expected, mean over columns."""
        futures = self._imagine(belief, actions, future.steps)
        found = [_misfit(tokens, doubt, future.values[:, step]) for step, (tokens, doubt) in enumerate(futures)]
        return torch.stack(found, 1)

    def where(self, belief: Belief) -> Float[Tensor, "batch 3"]:
        """x ahead and y to the left of where the belief began (m), and the heading since then (radians)."""
        self.known(belief.embodiment)
        return self._held(belief).pose.clone()  # a view of it would keep the whole memory alive

    def look(self, belief: Belief, poses: Float[Tensor, "batch view 3"]) -> Latent:
        """What would be seen from poses like those of :meth:`where`; the views take the place of steps."""
        self.known(belief.embodiment)
        times = belief.latents.times[:, -1:].expand(-1, poses.shape[1])
        return Latent(self._view(self._held(belief).places, poses)[0], times)

    def free(self, belief: Belief, points: Float[Tensor, "batch point 2"]) -> Float[Tensor, "batch point"]:
        """How likely a point in the plane is not to stand in the way, from the side from which it most does."""
        self.known(belief.embodiment)
        places, sides = self._held(belief).places, torch.arange(4) * (torch.pi / 2)
        told = [self.memory.read(places, points, side.to(points).expand(points.shape[:-1])) for side in sides]
        blocked = torch.stack([self.viewer.blocked(each) for each in told]).amax(0).sigmoid()
        return 0.5 + told[0][..., -1] * (0.5 - blocked)

    def recognise(
        self, belief: Belief, poses: Float[Tensor, "batch view 3"], seen: Latent
    ) -> Float[Tensor, "batch seen"]:
        """How badly what is seen fits each pose: as :meth:`energy`, for views in place of steps."""
        self.known(belief.embodiment)
        each, over = divmod(seen.steps, poses.shape[1])
        if over or not each:
            raise ValueError(f"{seen.steps} views cannot be as many for each of {poses.shape[1]} poses")
        expected = self._view(self._held(belief).places, poses)
        tokens, doubt = (part.repeat_interleave(each, 1) for part in expected)
        return _misfit(tokens, doubt, seen.values)

    def remind(self, belief: Belief, poses: Float[Tensor, "batch view 3"], seen: Latent) -> Belief:
        """The belief of who also saw ``seen`` from poses like those of :meth:`where`: what was recalled comes in."""
        self.known(belief.embodiment)
        held = self._held(belief)
        places = self._keep(held.places, seen.values, poses)
        return replace(belief, recurrent=_packed(held._replace(places=places)))

    def _view(self, places: Places, poses: Tensor) -> tuple[Tensor, Tensor]:
        return self.viewer(self.memory, places, poses, self.columns, self.config.half)[:2]

    def _keep(self, places: Places, tokens: Float[Tensor, "rows view column dim"], pose: Tensor) -> Places:
        """Keep what was seen from some poses."""
        return self.memory.write(places, *self.writer(tokens, self.far(tokens).exp(), pose, self.config.half))

    def stride(self, name: str, tokens: Float[Tensor, "rows column dim"], action: Tensor) -> tuple[Tensor, Tensor]:
        """The step that an action makes where ``tokens`` are seen, and the logarithm of its expected squared error."""
        body = self.embodiments[name]
        mean, std = (tokens.new_tensor(each) for each in (body.action_mean, body.action_std))
        return cast(Stride, self.strides[name])(self.far(tokens), (action - mean) / std)

    def _step(self, held: Held, name: str, tokens: Tensor, action: Tensor) -> Held:
        """Where an action leads, not having looked."""
        step, doubt = self.stride(name, tokens, action)
        cos, sin = torch.cos(held.pose[:, 2]), torch.sin(held.pose[:, 2])
        zero, one = torch.zeros_like(cos), torch.ones_like(cos)
        turned = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], -1).view(-1, 3, 3)
        pose = moved(held.pose, step)
        apart = pose - held.pose
        drift = torch.diag_embed(torch.ones_like(pose))
        drift = torch.cat([drift[..., :2], torch.stack([-apart[:, 1], apart[:, 0], one], -1)[..., None]], -1)
        noise = turned @ torch.diag_embed(doubt.exp()) @ turned.mT
        return Held(held.places, pose, drift @ held.spread @ drift.mT + noise)

    def _look(self, held: Held, tokens: Float[Tensor, "rows column dim"]) -> Held:
        """Correct the pose by what is seen: one step of Gauss and Newton from where one thought to be."""
        nudge = torch.diag(held.pose.new_tensor(_NUDGE))
        around = torch.cat([held.pose[:, None], held.pose[:, None] + nudge, held.pose[:, None] - nudge], 1)
        views, doubt = self._view(held.places, around)
        slope = (views[:, 1:4] - views[:, 4:]) / (2 * nudge.diagonal()[:, None, None])
        sure = 1 / (_ALIKE * (doubt[:, 0].exp() + _FLOOR))
        weighed = slope * sure[:, None, :, None]
        known = torch.linalg.inv(held.spread + 1e-6 * torch.eye(3).to(held.spread))
        known = known + weighed.flatten(2) @ slope.flatten(2).mT
        spread = torch.linalg.inv(known)
        missed = (weighed * (tokens - views[:, 0])[:, None]).flatten(2).sum(-1)
        most = held.pose.new_tensor(_MOST)
        change = (spread @ missed[..., None])[..., 0]
        return Held(held.places, held.pose + change.clamp(-most, most), spread)

    def _imagine(self, belief: Belief, actions: Tensor | None, horizon: int) -> list[tuple[Tensor, Tensor]]:
        """For each step, the view that is expected and the logarithm of its expected squared error."""
        done = self._actions(belief.embodiment, actions, horizon)
        held, tokens, futures = self._held(belief), belief.latents.values[:, -1], []
        pose = held.pose
        for step in range(horizon):
            pose = moved(pose, self.stride(belief.embodiment, tokens, done[:, step])[0])
            views, doubt = self._view(held.places, pose[:, None])
            tokens = views[:, 0]
            futures.append((tokens, doubt[:, 0]))
        return futures

    def _held(self, belief: Belief) -> Held:
        assert belief.recurrent is not None
        places, pose, spread = belief.recurrent.tensor_split([-12, -9], -1)
        return Held(places.unflatten(1, (self.config.side**2, -1)), pose, spread.unflatten(1, (3, 3)))

    def _actions(self, name: str, actions: Tensor | None, steps: int) -> Float[Tensor, "batch time action"]:
        body = self.known(name)
        if actions is None and not steps:
            return torch.zeros(0, 0, body.action_dim)
        if actions is None or tuple(actions.shape[1:]) != (steps, body.action_dim):
            shape = "nothing" if actions is None else tuple(actions.shape)
            raise ValueError(f"'{name}' needs actions of shape (batch, {steps}, {body.action_dim}); {shape} came")
        return actions


def _packed(held: Held) -> Float[Tensor, "rows number"]:
    return torch.cat([part.flatten(1) for part in held], 1)


def _misfit(tokens: Tensor, doubt: Tensor, seen: Tensor) -> Tensor:
    return ((seen - tokens).square().mean(-1) / (doubt.exp() + _FLOOR)).mean(-1)


def sized(embodiments: Mapping[str, Embodiment], size: str = "baby", picture: int = 64) -> PlacesConfig:
    """The settings of one size: ``baby``, ``tiny`` or ``small``."""
    if size not in _SIZES:
        raise ValueError(f"there is no JEPA of places of size '{size}'; choose one of {', '.join(_SIZES)}")
    width, dim, value = _SIZES[size]
    made = {"embodiments": dict(embodiments), "picture": picture, "width": width, "dim": dim, "value": value}
    return PlacesConfig.model_validate(made)


# One dial; each size doubles the widths of the one before it.
#         width, dim, value
_SIZES = {"baby": (64, 32, 12), "tiny": (128, 64, 24), "small": (256, 128, 48)}
