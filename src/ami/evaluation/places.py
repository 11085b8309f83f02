"""What frozen latents of views know of places: read-outs, retrieval among many, and how far off a pose is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from ami import geometry
from ami.data.camera import CAMERA, as_camera
from ami.evaluation.probes import best_ridge, fit, fit_attentive, fit_principal
from ami.evaluation.statistics import bootstrap
from ami.models.spatial import SpatialJEPA
from ami.training.loop import drawn_from
from ami.types import Clip, Interval, Latent, WorldModel

# Clips to what is seen in each of their views.
Eye = Callable[[Clip], Float[Tensor, "rows time feature"]]
GRID = 16  # cells on a side of the depth that is read out, and of pixels seen without learning
_ROWS, _ASKED = 16, 512  # clips, and rows that are read, at a time
_STILL, _TURN = 0.05, 0.035  # metres and radians: a camera that went less has no direction to be right about


def model_eye(model: WorldModel, *, depth: bool = False) -> Eye:
    """The latents of a model that sees colours alone; with ``depth``, depth alone."""

    def see(clip: Clip) -> Float[Tensor, "rows time feature"]:
        kept = {"video": None, "points": None} if depth else {"depth": None, "points": None}
        seen = replace(as_camera(clip), **kept)
        with torch.no_grad():
            parts = torch.arange(len(clip)).split(_ROWS)
            return torch.cat([model.encode(seen.rows(part)).values.flatten(2) for part in parts])

    return see


def compared(model: WorldModel, seen: Float[Tensor, "*batch feature"]) -> Float[Tensor, "*batch taught"]:
    """Of latents as :func:`model_eye` has them what training made, by which one view is told from another."""
    part = model.part(CAMERA.name)
    taught = part.latent_shape[1] - part.untaught
    return seen.unflatten(-1, part.latent_shape)[..., :taught].flatten(-2)


def pixels(clip: Clip) -> Float[Tensor, "rows time feature"]:
    """The pictures themselves, averaged to ``GRID`` x ``GRID`` cells, 0 to 1."""
    assert clip.video is not None
    shrunk = functional.adaptive_avg_pool2d(clip.video[:, :, -1].flatten(0, 1).float() / 255, GRID)
    return shrunk.flatten(1).unflatten(0, (len(clip), clip.steps))


def principal_eye(learn: Clip, components: int) -> Eye:
    """The principal components of the pixels of ``learn``."""
    axes = fit_principal(pixels(learn).flatten(0, 1), components)
    return lambda clip: axes(pixels(clip)).float()


def coarse_depth(clip: Clip) -> Float[Tensor, "rows time cells"]:
    """The mean depth of each of ``GRID`` x ``GRID`` cells, metres; NaN where nothing of it is known."""
    assert clip.depth is not None
    depth = clip.depth[:, :, -1].flatten(0, 1)
    known = functional.adaptive_avg_pool2d((depth > 0).float(), GRID)
    mean = functional.adaptive_avg_pool2d(depth, GRID) / torch.where(known > 0, known, torch.nan)
    return mean.flatten(1).unflatten(0, (len(clip), clip.steps))


def read_ridge(seen: Tensor, truth: Tensor, asked: Tensor) -> Tensor:
    """What a ridge, fitted on rows of ``seen``, says of other rows; the last fifth chooses its penalty."""
    cut = len(seen) * 4 // 5
    return best_ridge(seen, truth, slice(cut, None), slice(0, cut))(asked)


class _Network(nn.Module):
    """Two hidden layers on standardised features."""

    mean: Tensor
    scale: Tensor

    def __init__(self, seen: Float[Tensor, "n feature"], answers: int, width: int = 256) -> None:
        super().__init__()
        self.register_buffer("mean", seen.mean(0))
        self.register_buffer("scale", seen.std(0).clamp_min(1e-6))
        self.enter, self.again = nn.Linear(seen.shape[1], width), nn.Linear(width, width)
        self.answer = nn.Linear(width, answers)

    def forward(self, seen: Float[Tensor, "n feature"]) -> Float[Tensor, "n answer"]:
        hidden = torch.relu(self.enter((seen - self.mean) / self.scale))
        return self.answer(torch.relu(self.again(hidden)))


def read_network(seen: Tensor, truth: Tensor, asked: Tensor, seed: int, steps: int) -> Tensor:
    """What a small network, taught on rows of ``seen`` and ``truth``, says of other rows."""
    with drawn_from(seed):
        probe = _Network(seen, truth.shape[1])
    fit(probe, seen, truth, seed, steps=steps, batch=128, rate=1e-3)
    with torch.no_grad():
        return probe.eval()(asked)


def read_attentive(seen: Tensor, truth: Tensor, asked: Tensor, seed: int, steps: int, blocks: int = 0) -> Tensor:
    """What queries that look at all tokens, taught likewise, say of other rows; tokens are the last axis but one."""
    probe = fit_attentive(seen, truth, seed, steps=steps, batch=128, blocks=blocks)
    with torch.no_grad():
        return torch.cat([probe(part) for part in asked.split(_ASKED)])


@dataclass(frozen=True)
class Way:
    """One way to read quantities: features of rows to learn from and of rows asked about, and who reads them."""

    learn: Float[Tensor, "n ..."]
    asked: Float[Tensor, "m ..."]
    read: Callable[[Tensor, Tensor, Tensor], Tensor]  # features, their truth, other features: what is said of these


def _squares(said: Float[Tensor, "n quantity"], true: Float[Tensor, "n quantity"]) -> Float[Tensor, "n quantity"]:
    """Squared errors, each quantity in its own deviation."""
    return ((said - true) / true.std(0).clamp_min(1e-6)).square()


def read_best(
    ways: Sequence[Way],
    truth: Float[Tensor, "n quantity"],
    held: Bool[Tensor, "n"],
    groups: Sequence[slice],
    missed: Callable[[Tensor, Tensor], Tensor] = _squares,
) -> Float[Tensor, "m quantity"]:
    """What the best of some ways says, for each group of quantities: who errs least on rows ``held``.

    All learn from the other rows alone. So a network that makes much of noise is not asked where a ridge says less.
    """
    first = int(held.sum())
    said = [way.read(way.learn[~held], truth[~held], torch.cat([way.learn[held], way.asked])).to(truth) for way in ways]
    off = torch.stack([missed(each[:first], truth[held]).mean(0) for each in said])
    chosen = [int(off[:, group].mean(1).argmin()) for group in groups]
    return torch.cat([said[best][first:, group] for best, group in zip(chosen, groups, strict=True)], 1)


def measured(
    model: WorldModel, seen: Float[Tensor, "rows time feature"], pairs: Int[Tensor, "pairs 3"]
) -> Float[Tensor, "pairs 4 4"] | None:
    """How the camera moved between both views of each pair, by the model's own measure; ``None`` where it has none."""
    own = model.part(CAMERA.name)
    if not isinstance(own, SpatialJEPA):
        return None
    here, there = (seen[pairs[:, 0], pairs[:, step]].unflatten(1, own.latent_shape)[:, None] for step in (1, 2))
    with torch.no_grad():
        parts = zip(here.split(_ASKED), there.split(_ASKED), strict=True)
        return torch.cat([own.measure(one, other)[:, 0, 0] for one, other in parts])


def pairs(clip: Clip, apart: int, count: int, rng: np.random.Generator) -> Int[Tensor, "pairs 3"]:
    """Rows, and two different steps of each, at most ``apart`` from one another, between which the camera moved."""
    row = np.arange(count) % len(clip)
    gap = rng.integers(1, apart + 1, count)
    first = rng.integers(0, clip.steps - gap)
    ways = np.stack([first, first + gap], 1)
    ways = np.where(rng.random((count, 1)) < 0.5, ways, ways[:, ::-1])
    found = torch.from_numpy(np.concatenate([row[:, None], ways], 1))
    return found[moved(between(clip, found))]


def between(clip: Clip, pairs: Int[Tensor, "pairs 3"]) -> Float[Tensor, "pairs 4 4"]:
    """The poses of the second steps from the first."""
    assert clip.pose is not None
    return geometry.relative(clip.pose[pairs[:, 0], pairs[:, 1]], clip.pose[pairs[:, 0], pairs[:, 2]])


def moved(pose: Float[Tensor, "*batch 4 4"]) -> Bool[Tensor, "*batch"]:
    """Whether a camera moved or turned by more than what hardly shows."""
    return (pose[..., :3, 3].norm(dim=-1) > _STILL) | (geometry.angle(pose[..., :3, :3]) > _TURN)


class PoseErrors(NamedTuple):
    """How far off poses are."""

    turned: Float[Tensor, "n"]  # degrees, in rotation
    worst: Float[Tensor, "n"]  # degrees, the larger of that and of the direction's
    metres: Float[Tensor, "n"]


def pose_errors(said: Float[Tensor, "n 4 4"], true: Float[Tensor, "n 4 4"]) -> PoseErrors:
    """Of a camera that only turned, the direction does not count.

    Source of the measure: Yi et al. 2018, "Learning to find good correspondences", section 4.
    """
    turned = torch.rad2deg(geometry.angle(said[:, :3, :3].mT @ true[:, :3, :3]))
    went, goes = said[:, :3, 3], true[:, :3, 3]
    aside = torch.rad2deg(torch.acos(functional.cosine_similarity(went, goes, dim=-1).clamp(-1, 1)))
    worst = torch.where(goes.norm(dim=-1) > _STILL, torch.maximum(turned, aside), turned)
    return PoseErrors(turned, worst, (went - goes).norm(dim=-1))


def under(errors: Float[Tensor, "n"], most: float) -> Float[Tensor, "n"]:
    """Each error's part of the area under the curve of recall up to ``most``: the mean of it is the AUC, 0 to 1."""
    return (1 - errors / most).clamp_min(0)


def ranked_first(said: Float[Tensor, "n feature"], there: Float[Tensor, "n feature"], among: int) -> Float[Tensor, "n"]:
    """Whether each one's own is the nearest of ``among`` candidates: itself and the ones that follow it, in a ring."""
    far = torch.cdist(said.double(), there.double())
    ring = (torch.arange(len(said))[:, None] + torch.arange(min(among, len(said)))) % len(said)
    return (far.gather(1, ring).argmin(1) == 0).double()


def alone(pictures: Float[Tensor, "n cell"], least: float) -> Bool[Tensor, "n"]:
    """Whether each picture differs from all others by more than ``least``, root mean square over its cells."""
    far = torch.cdist(pictures.double(), pictures.double()) / pictures.shape[1] ** 0.5
    return far.fill_diagonal_(torch.inf).amin(1) > least


def walked(steps: Float[Tensor, "rows gaps 4 4"]) -> Float[Tensor, "rows steps 3"]:
    """Where motions lead, one after another, from the first camera's place: metres, in its axes."""
    pose = torch.eye(4, dtype=steps.dtype).expand(len(steps), 4, 4)
    places = [pose[:, :3, 3]]
    for step in steps.unbind(1):
        pose = pose @ step
        places.append(pose[:, :3, 3])
    return torch.stack(places, 1)


def explained(
    said: Float[np.ndarray, "n quantity"],
    true: Float[np.ndarray, "n quantity"],
    clusters: np.ndarray,
    rng: np.random.Generator,
) -> Interval:
    """R², mean over quantities, redrawing episodes."""

    def r2(weight: np.ndarray) -> float:
        mean = weight @ true / weight.sum()
        return float((1 - weight @ (said - true) ** 2 / (weight @ (true - mean) ** 2)).mean())

    return bootstrap(r2, clusters, rng)


def correlation(
    said: Float[np.ndarray, "n quantity"],
    true: Float[np.ndarray, "n quantity"],
    clusters: np.ndarray,
    rng: np.random.Generator,
) -> Interval:
    """Pearson's r, mean over quantities, redrawing episodes."""

    def r(weight: np.ndarray) -> float:
        one, other = (each - weight @ each / weight.sum() for each in (said, true))
        return float((weight @ (one * other) / np.sqrt((weight @ one**2) * (weight @ other**2))).mean())

    return bootstrap(r, clusters, rng)


def standard(pictures: Float[Tensor, "n cells"]) -> Float[Tensor, "n cells"]:
    """Each with mean 0 and deviation 1."""
    return (pictures - pictures.mean(1, keepdim=True)) / pictures.std(1, keepdim=True).clamp_min(1e-6)


@torch.no_grad()
def imagined(
    model: WorldModel, held: Float[Tensor, "rows held feature"], motions: Float[Tensor, "rows held 6"]
) -> Float[Tensor, "rows feature"]:
    """The view that the last motion leads to, from views that are held and the motions between them."""
    values = held.unflatten(2, model.part(CAMERA.name).latent_shape)
    times = torch.arange(held.shape[1]).expand(len(held), -1) * CAMERA.step_seconds
    belief = model.believe(None, Latent(values, times), motions[:, :-1], CAMERA.name)
    return model.predict(belief, motions[:, -1:], 1).values[:, 0].flatten(1)
