"""Walks through mazes as a model lives through them, and what is asked of its belief on the way, beside its twins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ami.nn.places import between, moved
from ami.types import Belief, Clip, Latent, WorldModel
from ami.worlds.maze import EMBODIMENT, NAME, Mazes, Seen

WINDOW = 8  # steps that a twin without memory remembers
_NEAR = (0.3, 0.3, 0.4)  # metres, metres, radians: what counts as a small difference between two poses
_TOGETHER = 24  # questions: each has the whole belief of its walk beside it
TWINS = ("told from the start", "window", "another walk", "nearest view")


@dataclass
class Walked:
    """What is known after some steps: the belief, and all that its twins need. Grows by :meth:`step`."""

    model: WorldModel
    mazes: Mazes
    poses: Float[np.ndarray, "batch steps 3"]  # true
    actions: Float[np.ndarray, "batch steps-1 2"]
    belief: Belief | None = None
    now: int = -1
    believed: Tensor = field(init=False)  # pose (batch steps 3)
    tokens: Tensor = field(init=False)  # (batch steps token dim)
    origin: Tensor | None = None  # where the belief began, as the one before it says; None: where the walk did

    def __post_init__(self) -> None:
        # In one piece: small tensors kept between large ones that go leave holes that are never filled.
        self.believed = torch.zeros(self.poses.shape)
        self.tokens = torch.zeros(*self.poses.shape[:2], *self.model.part(NAME).latent_shape)

    def step(self) -> Seen:
        """Go on by one step and look."""
        self.now += 1
        pictures, _, seen = self.mazes.look(self.poses[:, self.now])
        latent = self.perceive(pictures[:, None])
        acted = None if self.now == 0 else torch.from_numpy(self.actions[:, self.now - 1 : self.now])
        self.belief = self.model.believe(self.belief, latent, acted, NAME)
        self.believed[:, self.now], self.tokens[:, self.now] = self.model.where(self.belief), latent.values[:, 0]
        return seen

    def perceive(self, pictures: np.ndarray) -> Latent:
        """Pictures (rows view size size 3) as latents."""
        video = torch.from_numpy(pictures).permute(0, 1, 4, 2, 3)[:, :, None]
        times = torch.arange(video.shape[1]).expand(len(video), -1) * EMBODIMENT.step_seconds
        return self.model.encode(Clip(NAME, times.float(), video))

    def from_start(self, rows: Int[np.ndarray, "k"], poses: Float[np.ndarray, "k view 3"]) -> Float[Tensor, "k view 3"]:
        """True poses from where the walk began."""
        start = torch.from_numpy(self.poses[rows, :1]).float()
        return between(start.expand(*poses.shape[:2], -1), torch.from_numpy(poses).float())

    def from_near(self, rows: Int[np.ndarray, "k"], poses: Float[np.ndarray, "k view 3"]) -> Float[Tensor, "k view 3"]:
        """True poses where one believes them who is told how each lies from where one was when nearest to it.

        Who was told no pose has a map that is bent a little and turned, so any one frame for all of it puts far
        places beside themselves; each pose that was believed is a frame for what is near it. Source: Sibley, Mei, Reid
        and Newman 2009, "Adaptive relative bundle adjustment".
        """
        asked, been = (torch.from_numpy(each).float() for each in (poses, self.poses[rows, : self.now + 1]))
        nearest = torch.cdist(asked[..., :2], been[..., :2]).argmin(-1)
        was = been[torch.arange(len(rows))[:, None], nearest]
        return self._since(rows, moved(self.believed[torch.from_numpy(rows)[:, None], nearest], between(was, asked)))

    def _since(self, rows: Int[np.ndarray, "k"], poses: Float[Tensor, "k view 3"]) -> Float[Tensor, "k view 3"]:
        """Poses from where the walk began, from where the belief did."""
        return poses if self.origin is None else between(self.origin[rows][:, None].expand_as(poses), poses)

    def misfits(
        self,
        rows: Int[np.ndarray, "k"],
        poses: Float[np.ndarray, "k view 3"],
        answers: Sequence[UInt8[np.ndarray, "k view size size 3"]],
    ) -> dict[str, Float[np.ndarray, "k view answer"]]:
        """How badly each of the pictures that might be seen from ``poses`` fits what is believed, of all twins."""
        parts = [slice(first, first + _TOGETHER) for first in range(0, len(rows), _TOGETHER)]
        found = [self._misfits(rows[part], poses[part], [each[part] for each in answers]) for part in parts]
        return {who: np.concatenate([each[who] for each in found]) for who in found[0]}

    def _misfits(
        self, rows: np.ndarray, poses: np.ndarray, answers: Sequence[np.ndarray]
    ) -> dict[str, Float[np.ndarray, "k view answer"]]:
        shape = *poses.shape[:2], len(answers)
        seen = self.perceive(np.stack(answers, 2).reshape(len(poses), -1, *answers[0].shape[2:]))
        asked, start = self.from_near(rows, poses), self._since(rows, self.from_start(rows, poses))
        index, belief = torch.from_numpy(rows), self._belief()
        found = {"model": self.model.recognise(belief.rows(index), asked, seen)}
        found["told from the start"] = self.model.recognise(belief.rows(index), start, seen)
        found["another walk"] = self.model.recognise(belief.rows((index + 1) % len(belief)), asked, seen)
        since = torch.from_numpy(self.poses[rows, self.now]).float()[:, None]
        apart = between(since.expand(*poses.shape[:2], -1), torch.from_numpy(poses).float())
        short = self._short(index)
        here = self.model.where(short)[:, None].expand_as(apart)
        found["window"] = self.model.recognise(short, moved(here, apart), seen)
        found["nearest view"] = self._nearest(index, asked, seen)
        found |= self.others(index, self.from_start(rows, poses), seen)
        return {who: each.view(shape).numpy() for who, each in found.items()}

    def others(self, index: Tensor, asked: Float[Tensor, "k view 3"], seen: Latent) -> dict[str, Tensor]:
        """How badly each of ``seen`` fits what others hold who walk along; those of one pose lie together."""
        return {}

    def _belief(self) -> Belief:
        assert self.belief is not None
        return self.belief

    def _short(self, index: Tensor) -> Belief:
        """The belief of who remembers but the last few steps."""
        first = max(0, self.now + 1 - WINDOW)
        rows, place = index.unique(return_inverse=True)
        tokens = self.tokens[rows, first : self.now + 1]
        times = torch.arange(tokens.shape[1]).expand(len(rows), -1) * EMBODIMENT.step_seconds
        acted = torch.from_numpy(self.actions[:, first : self.now])[rows]
        return self.model.believe(None, Latent(tokens, times.float()), acted, NAME).rows(place)

    def _nearest(self, index: Tensor, asked: Tensor, seen: Latent) -> Tensor:
        """The squared distance to what was seen where one was nearest to the pose: attention to all of the past."""
        near = torch.tensor(_NEAR)
        found = []
        for row, views, tokens in zip(index.tolist(), asked, seen.values, strict=True):
            past = self.believed[row, : self.now + 1]
            apart = between(views[:, None].expand(-1, len(past), -1), past.expand(len(views), -1, -1))
            closest = (apart / near).square().sum(-1).argmin(1).repeat_interleave(len(tokens) // len(views))
            found.append((self.tokens[row, closest] - tokens).square().mean((1, 2)))
        return torch.stack(found)


def views(mazes: Mazes, poses: Float[np.ndarray, "k view 3"]) -> np.ndarray:
    """Pictures (k view size size 3): many poses in each maze."""
    each = mazes.rows(np.repeat(np.arange(len(poses)), poses.shape[1]))
    pictures = each.look(poses.reshape(-1, 3))[0]
    return pictures.reshape(*poses.shape[:2], *pictures.shape[1:])


@dataclass(frozen=True, eq=False)
class Markers:
    """The markers of some mazes, each on one side of a wall; where there are fewer in a maze, ``colour`` is 0."""

    face: Int[np.ndarray, "batch marker"]
    colour: Int[np.ndarray, "batch marker"]
    before: Float[np.ndarray, "batch marker view 3"]  # poses from which it is seen, the first right before it

    def seen(self, seen: Seen) -> Int[np.ndarray, "batch marker"]:
        """In how many columns each is seen, not from afar."""
        shows = np.where((seen.marker > 0) & (seen.wall < 4) & (seen.wall < seen.post), seen.face, -1)
        return (shows[:, None] == self.face[..., None]).sum(-1) * (self.colour > 0)


def markers(mazes: Mazes, apart: float = 0.6, aside: float = 0.25) -> Markers:
    """All markers, seen from ``apart`` metres before them, and from ``aside`` metres to the left and to the right."""
    wide, high = mazes.size
    listed: list[list[tuple[int, int, tuple[float, float, float]]]] = []
    for row in range(len(mazes)):
        found = []
        for i, j, side in np.argwhere(mazes.across_paint[row]).tolist():
            heading = side * np.pi
            pose = (i, j + 0.5, heading)
            found.append((2 * (i * high + j) + side, int(mazes.across_paint[row, i, j, side]), pose))
        for i, j, side in np.argwhere(mazes.along_paint[row]).tolist():
            heading = np.pi / 2 - side * np.pi
            pose = (i + 0.5, j, heading)
            face = 2 * ((wide + 1) * high + i * (high + 1) + j) + side
            found.append((face, int(mazes.along_paint[row, i, j, side]), pose))
        listed.append(found)
    most = max(map(len, listed))
    face, colour = np.full((len(mazes), most), -2), np.zeros((len(mazes), most), int)
    at = np.zeros((len(mazes), most, 3))
    for row, found in enumerate(listed):
        for place, each in enumerate(found):
            face[row, place], colour[row, place], at[row, place] = each
    x, y, heading = np.moveaxis(at, -1, 0)
    left = np.array([0.0, aside, -aside])
    x = x[..., None] - apart * np.cos(heading)[..., None] - left * np.sin(heading)[..., None]
    y = y[..., None] - apart * np.sin(heading)[..., None] + left * np.cos(heading)[..., None]
    return Markers(face, colour, np.stack([x, y, heading[..., None] - np.arctan2(left, apart)], -1))


def painted(mazes: Mazes, face: Int[np.ndarray, "k"], colour: int) -> Mazes:
    """The same mazes, one side of one wall of each in another colour."""
    row = np.arange(len(mazes))
    across, along = mazes.across_paint.copy(), mazes.along_paint.copy()
    first = across[0].size
    flat = np.concatenate([across.reshape(len(mazes), -1), along.reshape(len(mazes), -1)], 1)
    flat[row, face] = colour
    return replace(
        mazes, across_paint=flat[:, :first].reshape(across.shape), along_paint=flat[:, first:].reshape(along.shape)
    )
